"""Collect fast for long, and look at what creeps: memory, descriptors, lag.

    python -m trials.soak --minutes 30

Samples are taken every two seconds; after a warm-up a line is fitted through each series. The run fails where a line
rises more than it may, where a trade was dropped, or where CSV and QuestDB differ at the end. A report with plots
(SVG) is written beside the figures.
"""

from __future__ import annotations

import argparse
import html
import json
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from trials.parts import PROJECT, Cadence, Daemon, Database, Exchange
from trials.sessions import begin, finish

SAMPLE_S = 2.0
WARM_UP_SHARE = 0.25
WARM_UP_S = 180.0
"""Caches, pools and the heap of the allocator fill up for so much of the run, and for so long at least."""
JUDGED_S = 120.0
"""A line through less time than this says nothing: the run is too short to be judged by its slopes."""


@dataclass(frozen=True)
class Series:
    """One figure over time: how much it may rise in an hour, beyond which it would not hold for months."""

    name: str
    unit: str
    most_per_hour: float
    noise: float
    """A rise over the whole run that is within this is none: a line through few samples is never level."""


SERIES = (
    Series("memory", "MB", 5.0, 4.0),
    Series("descriptors", "", 1.0, 2.0),
    Series("rows behind", "rows", 2_000.0, 20_000.0),
    Series("threads", "", 0.5, 1.0),
)


def slope(times: Sequence[float], values: Sequence[float]) -> float:
    """Return the slope of the line of least squares, per second; 0 where there are too few points."""
    if len(times) < 2:
        return 0.0
    mean_t, mean_v = sum(times) / len(times), sum(values) / len(values)
    spread = sum((t - mean_t) ** 2 for t in times)
    return sum((t - mean_t) * (v - mean_v) for t, v in zip(times, values, strict=True)) / spread if spread else 0.0


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value that so many (0 … 1) of all are not above; 0 where there are none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else 0.0


def judge(samples: dict[str, list[float]], times: list[float]) -> tuple[dict[str, float], list[str]]:
    """Return the slopes per hour of what came after the warm-up, and which of them are too steep; see ``JUDGED_S``."""
    warm_s = max(WARM_UP_S, times[-1] * WARM_UP_SHARE)
    long_enough = times[-1] - warm_s >= JUDGED_S
    start = next((i for i, t in enumerate(times) if t >= warm_s), 0) if long_enough else 0
    slopes, problems = {}, []
    for series in SERIES:
        per_s = slope(times[start:], samples[series.name][start:])
        slopes[series.name] = round(per_s * 3600, 2)
        rise = per_s * (times[-1] - times[start])
        if long_enough and per_s * 3600 > series.most_per_hour and rise > series.noise:
            problems.append(f"{series.name} rises by {per_s * 3600:.1f} {series.unit} in an hour".replace("  ", " "))
    return slopes, problems


def plot(title: str, unit: str, times: Sequence[float], values: Sequence[float]) -> str:
    """Draw one series as SVG."""
    width, height, left, bottom = 860, 200, 70, 24
    top_value = max(values) * 1.1 or 1.0
    span = times[-1] or 1.0
    points = " ".join(
        f"{left + (width - left - 10) * t / span:.1f},{height - bottom - (height - bottom - 10) * v / top_value:.1f}"
        for t, v in zip(times, values, strict=True)
    )
    text = 'font-family="sans-serif" font-size="12" fill="#444"'
    return (
        f'<h2>{html.escape(title)} {f"({unit})" if unit else ""}</h2><svg viewBox="0 0 {width} {height}" '
        f'width="{width}" xmlns="http://www.w3.org/2000/svg"><rect x="{left}" y="10" width="{width - left - 10}" '
        f'height="{height - bottom - 10}" fill="#f6f6f6"/><polyline points="{points}" fill="none" stroke="#1668b8" '
        f'stroke-width="1.5"/><text x="4" y="20" {text}>{top_value:,.0f}</text>'
        f'<text x="4" y="{height - bottom}" {text}>0</text>'
        f'<text x="{width - 80}" y="{height - 6}" {text}>{span / 60:.1f} min</text></svg>'
    )


class Soak:
    """One run."""

    def __init__(self, folder: Path, *, rate: float, symbols: int, seed: int) -> None:
        names = tuple(f"S{number:02d}_USDT" for number in range(symbols))
        self.exchange = Exchange(seed=seed, rate=rate, symbols=names)
        self.database = Database(folder / "questdb", heap_max="1g")
        self.daemon = Daemon(folder / "daemon", data_dir=folder / "data", environment=self.database.environment())
        self.times: list[float] = []
        self.samples: dict[str, list[float]] = {series.name: [] for series in SERIES}
        self.rows = 0

    def run(self, seconds: float) -> dict[str, Any]:
        """Collect for so long; return the figures and what is wrong."""
        self.daemon.start()
        directory = begin(self.daemon, self.exchange, "soak", 1000)
        begun, first_rows = time.monotonic(), self._status()["rows"]["prices"]
        with Cadence(directory / self.exchange.symbols[0] / "prices.csv") as cadence:
            while (elapsed := time.monotonic() - begun) < seconds:
                self._sample(elapsed)
                time.sleep(SAMPLE_S)
        took_s = time.monotonic() - begun
        status = self._status()
        slopes, problems = judge(self.samples, self.times)
        rate = (status["rows"]["prices"] - first_rows) / took_s
        buffer = status["buffer"]
        if buffer["dropped"] or status["gaps"]:
            problems.append(f"{buffer['dropped']} rows were dropped and {status['gaps']} gaps entered")
        intervals = cadence.intervals_s
        verdict = finish(self.daemon, self.database, self.exchange, directory)
        return {
            "seconds": round(took_s, 1),
            "trades per second": round(rate),
            "slopes per hour": slopes,
            "memory (MB), least and most": [min(self.samples["memory"]), max(self.samples["memory"])],
            "flush interval (s), p50, p99, worst": [round(percentile(intervals, p), 3) for p in (0.5, 0.99, 1.0)],
            "longest flush (s)": round(status["flush_max_s"] or 0.0, 3),
            "figures": verdict.figures,
            "problems": [*problems, *verdict.problems],
        }

    def _status(self) -> dict[str, Any]:
        return self.daemon.session("soak")

    def _sample(self, elapsed: float) -> None:
        status = self.daemon.status()
        if not status:
            return
        self.times.append(elapsed)
        self.samples["memory"].append(round(self.daemon.resident_bytes() / 1e6, 2))
        self.samples["descriptors"].append(self.daemon.open_files())
        self.samples["rows behind"].append(status["questdb"]["lag_rows"])
        threads = sum(1 for _ in Path(f"/proc/{self.daemon.pid}/task").iterdir())
        self.samples["threads"].append(threads)

    def end(self) -> None:
        """End everything that was started."""
        for part in (self.daemon.end, self.exchange.end, self.database.end):
            part()


def write_report(results: Path, report: dict[str, Any], soak: Soak) -> Path:
    """Write the figures and the plots; return the page's path."""
    results.mkdir(parents=True, exist_ok=True)
    (results / "report.json").write_text(json.dumps(report | {"times": soak.times, "samples": soak.samples}) + "\n")
    plots = [plot(series.name, series.unit, soak.times, soak.samples[series.name]) for series in SERIES]
    listed = html.escape(json.dumps(report, indent=2))
    page = results / "report.html"
    page.write_text(f"<!doctype html><meta charset=utf-8><title>soak</title><pre>{listed}</pre>{''.join(plots)}\n")
    return page


def main() -> int:
    """Run it for as long as it was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--rate", type=float, default=20_000, help="trades in a second, over all symbols")
    parser.add_argument("--symbols", type=int, default=20)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--results", type=Path, default=PROJECT / "build" / "soak")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = Path(tempfile.mkdtemp(prefix="collector-soak-"))
    soak = None
    try:
        soak = Soak(folder, rate=arguments.rate, symbols=arguments.symbols, seed=arguments.seed)
        report = soak.run(arguments.minutes * 60)
        page = write_report(arguments.results, report, soak)
    finally:
        if soak is not None:
            soak.end()
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(report, indent=2))
    print(f"report: {page}")
    return 1 if report["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
