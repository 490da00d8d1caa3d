"""What reading 10 million trades back costs: from the CSV, from QuestDB, and with pandas alone.

Each way is run in a process of its own, several times; the quickest counts, because others may use the machine. The CPU
is that of the reading process: its own work (user) and the memory that the system gives it (system) beside it.
"""

from __future__ import annotations

import importlib
import json
import os
import subprocess
import sys
import time
from decimal import Decimal
from pathlib import Path

from bench.harness import PROJECT, Figure, Place, Result, Scale
from collector.config import Config
from collector.session.manifest import FileRecord, Manifest, save_manifest
from collector.storage.cursor import Cursor, Position, SavedFile, save_cursor
from collector.storage.files import OperatingSystem
from collector.storage.ilp import Encoder
from collector.storage.migrations import migrate
from collector.storage.questdb import Acknowledged, HttpTransport
from collector.streams import PRICES

TARGET_CSV_S = 2.0
TARGET_QUESTDB_S = 5.0
SESSION = "reading"
SYMBOL = "BTC_USDT"
_START_US = 1_700_006_400_000_000
_PORTION_ROWS = 50_000
_APPLY_TIMEOUT_S = 300.0


def measure(place: Place, scale: Scale) -> list[Result]:
    """Make a session of so many trades, deliver it, and read it in each way."""
    rows = scale.read_rows
    directory = place.folder / f"session_{SESSION}"
    path = directory / SYMBOL / PRICES.file
    _write(directory, path, rows)
    server = place.database
    server.install()
    server.start()
    settings = server.settings(place.config.questdb)
    migrate(settings)
    _deliver(path, HttpTransport.from_config(settings))
    _wait_applied(place.config, rows)
    note = f"{rows:,} trades, {path.stat().st_size / 1e9:.2f} GB of CSV"
    share = rows / 10_000_000
    results: list[Result] = []
    for name, how, target in (
        ("CSV to pandas", "csv:pandas", TARGET_CSV_S * share),
        ("CSV to polars", "csv:polars", TARGET_CSV_S * share),
        ("QuestDB to pandas", "questdb:pandas", TARGET_QUESTDB_S * share),
        ("CSV in batches", "csv:batches", None),
        ("pandas.read_csv", "pandas", None),
    ):
        runs = [_run(place, path, how) for _ in range(scale.runs)]
        best = min(runs, key=lambda run: run["wall_s"])
        cpu = f"{best['user_s']:.2f} s user + {best['system_s']:.2f} s system, {best['peak_mb']:,.0f} MB; {note}"
        results.append(Figure(f"reading: {name}", best["wall_s"], "s", target, note=cpu))
    return results


def _write(directory: Path, path: Path, rows: int) -> None:
    """Write trades as a session does, its manifest, and a cursor that says that all was delivered."""
    path.parent.mkdir(parents=True)
    with path.open("w", encoding="ascii") as file:
        file.write(PRICES.header)
        for begin in range(0, rows, _PORTION_ROWS):
            file.writelines(_line(n) for n in range(begin, min(begin + _PORTION_ROWS, rows)))
    record = FileRecord(PRICES.name, SYMBOL, f"{SYMBOL}/{PRICES.file}", rows=rows, next_seq=rows + 1)
    manifest = Manifest(SESSION, "sim", [SYMBOL], [PRICES.name], created_us=_START_US, state="completed")
    manifest.files.append(record)
    save_manifest(directory, manifest, OperatingSystem())
    end = Position(1, path.stat().st_size, rows)
    save_cursor(OperatingSystem(), directory, Cursor(SESSION, [SavedFile(PRICES.name, SYMBOL, end, end)]))


def _line(n: int) -> str:
    ticks, lots = 6_000_000 + n * 7919 % 100_000, 1 + n * 104_729 % 10_000_000
    at = _START_US + n * 9973
    quote = Decimal(ticks * lots).scaleb(-7)
    return (
        f"{at},{ticks // 100}.{ticks % 100:02d},{lots // 100_000}.{lots % 100_000:05d},{quote:f},"
        f"{'buy' if n % 3 else 'sell'},{3_000_000_000 + n},{n + 1},{at + 48_211},ws,{2 * n},{2 * n + 1}\n"
    )


def _deliver(path: Path, transport: HttpTransport) -> None:
    encoder = Encoder(PRICES, {"session_id": SESSION, "exchange": "sim", "symbol": SYMBOL})
    with path.open("rb") as file:
        file.readline()
        while lines := file.readlines(8 * 1024 * 1024):
            encoded = encoder.encode(b"".join(lines))
            outcome = transport.send(PRICES.table, encoded.body, len(lines))
            if outcome != Acknowledged():
                raise RuntimeError(f"QuestDB did not take the trades: {outcome}")
    transport.close()


def _wait_applied(config: Config, rows: int) -> None:
    import collector

    deadline = time.monotonic() + _APPLY_TIMEOUT_S
    while collector.open_session(SESSION, config=config).prices(SYMBOL).source != "questdb":
        if time.monotonic() > deadline:
            raise RuntimeError(f"QuestDB did not show {rows} trades")
        time.sleep(1)


def _run(place: Place, path: Path, how: str) -> dict[str, float]:
    done = subprocess.run(
        [sys.executable, "-m", "bench.reading", how, str(place.config_path), str(path)],
        cwd=PROJECT,
        capture_output=True,
        text=True,
        check=True,
    )
    found: dict[str, float] = json.loads(done.stdout)
    return found


def read(how: str, config_path: Path, path: Path) -> int:
    """Read all trades in one way; return how many there were."""
    if how == "pandas":
        import pandas as pd

        return len(pd.read_csv(path))
    import collector

    source, _, form = how.partition(":")
    rows = collector.open_session(SESSION, config=config_path, source=source).prices(SYMBOL)  # type: ignore[arg-type]
    if form == "batches":
        return sum(batch.num_rows for batch in rows.batches())
    return len(rows.pandas()) if form == "pandas" else int(rows.polars().height)


def main(how: str, config_path: Path, path: Path) -> None:
    """Print what one reading cost, libraries loaded before."""
    import resource

    import collector

    for module in ("pandas", "polars", "pyarrow.csv", "pyarrow.parquet"):
        importlib.import_module(module)
    collector.open_session(SESSION, config=config_path, source="csv").prices(SYMBOL, end=0).pandas()
    before, begin = os.times(), time.perf_counter()
    read(how, config_path, path)
    wall_s, after = time.perf_counter() - begin, os.times()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (1000 if sys.platform == "linux" else 1_000_000)
    cost = {"user_s": after.user - before.user, "system_s": after.system - before.system}
    print(json.dumps({"wall_s": wall_s, **cost, "peak_mb": peak}))


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3]))
