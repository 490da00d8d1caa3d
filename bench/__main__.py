"""``python -m bench [NAME …]``: run the benchmarks, print one table, write ``build/bench.json``.

All of it runs on loopback, with servers of its own on ports that the system chooses; nothing stays behind.
"""

from __future__ import annotations

import argparse
import dataclasses
import importlib
import json
import os
import platform
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from bench.harness import PROJECT, QUICK, Figure, Place, Result, Scale, Skipped

BENCHMARKS = (
    "receive",
    "stages",
    "books",
    "flood",
    "paced",
    "sustained",
    "csv_log",
    "memory",
    "latency",
    "replay",
    "many_symbols",
    "reading",
    "history",
    "api",
)
REPORT = PROJECT / "build" / "bench.json"
_VERSIONS = ("collector", "websockets", "uvloop", "msgspec")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run what was asked for; return 1 where a target was missed or a benchmark failed."""
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__.split("\n")[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of {', '.join(BENCHMARKS)}; all by default")
    parser.add_argument("--quick", action="store_true", help="only try whether they run: shorter, once each")
    parser.add_argument("--json", type=Path, default=REPORT, metavar="PATH", help="where the report goes")
    given = parser.parse_args(arguments)
    unknown = sorted(set(given.names) - set(BENCHMARKS))
    if unknown:
        parser.error(f"there is no benchmark {unknown[0]!r}; there are {', '.join(BENCHMARKS)}")
    scale = QUICK if given.quick else Scale()
    results, failures = run(given.names or BENCHMARKS, scale)
    print(table(results))
    for name, reason in failures.items():
        print(f"{name} FAILED: {reason}", file=sys.stderr)
    given.json.parent.mkdir(parents=True, exist_ok=True)
    given.json.write_text(json.dumps(report(results, failures, scale), indent=2) + "\n", encoding="utf-8")
    print(f"Written to {given.json}.")
    missed = [result for result in results if isinstance(result, Figure) and result.reached is False]
    return 1 if missed or failures else 0


def run(names: Sequence[str], scale: Scale) -> tuple[list[Result], dict[str, str]]:
    """Run benchmarks one after the other in one place; what fails does not keep the others from running."""
    results: list[Result] = []
    failures: dict[str, str] = {}
    place = Place(PROJECT / "build" / f"bench-{os.getpid()}")
    try:
        for name in names:
            print(f"{name} …", file=sys.stderr, flush=True)
            try:
                results += importlib.import_module(f"bench.{name}").measure(place, scale)
            except Exception as error:  # noqa: BLE001  whatever one of them meets, the others are measured
                failures[name] = f"{type(error).__name__}: {error}"
    finally:
        place.close()
    return results, failures


def table(results: Sequence[Result]) -> str:
    """Return the figures as a table for a terminal."""
    rows = [("figure", "measured", "unit", "target", "")]
    for result in results:
        if isinstance(result, Skipped):
            rows.append((result.name, "skipped", "", "", result.reason))
            continue
        target = "" if result.target is None else f"{'≤' if result.better == 'lower' else '≥'} {shown(result.target)}"
        verdict = {None: "", True: "reached", False: "MISSED"}[result.reached]
        remark = f"{verdict} ({result.note})" if verdict and result.note else verdict or result.note
        rows.append((result.name, shown(result.value), result.unit, target, remark))
    widths = [max(len(row[column]) for row in rows) for column in range(4)]
    lines = [
        f"{name:<{widths[0]}}  {value:>{widths[1]}}  {unit:<{widths[2]}}  {target:>{widths[3]}}  {remark}".rstrip()
        for name, value, unit, target, remark in rows
    ]
    return "\n".join([lines[0], "-" * max(map(len, lines)), *lines[1:]])


def shown(value: float) -> str:
    """Return a number with three or more digits that mean something."""
    if abs(value) >= 1000:
        return f"{value:,.0f}"
    return f"{value:.1f}" if abs(value) >= 100 else f"{value:.2f}"


def report(results: Sequence[Result], failures: dict[str, str], scale: Scale) -> dict[str, object]:
    """Return what ``build/bench.json`` holds."""
    return {
        "made_at": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "machine": machine(),
        "versions": {package: version(package) for package in _VERSIONS} | {"python": platform.python_version()},
        "revision": revision(),
        "scale": dataclasses.asdict(scale),
        "figures": [
            dataclasses.asdict(result) | {"reached": result.reached} for result in results if isinstance(result, Figure)
        ],
        "skipped": [dataclasses.asdict(result) for result in results if isinstance(result, Skipped)],
        "failed": failures,
    }


def machine() -> dict[str, object]:
    """Return what the figures depend on; the load says whether something else was running."""
    model = platform.processor() or platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text(encoding="utf-8").splitlines() if line.startswith("model name")]
        model = names[0].partition(":")[2].strip() if names else model
    load = os.getloadavg() if hasattr(os, "getloadavg") else ()
    return {"processor": model, "cores": os.cpu_count(), "system": platform.platform(terse=True), "load": load}


def revision() -> str:
    """Return the commit that was measured; empty outside of a repository."""
    if shutil.which("git") is None:
        return ""
    found = subprocess.run(
        ["git", "rev-parse", "HEAD"],  # noqa: S607  whichever git is there
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=False,
    )
    return found.stdout.strip()


if __name__ == "__main__":
    sys.exit(main())
