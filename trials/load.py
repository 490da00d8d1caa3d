"""The two promises of load: an outage in the middle of a flood costs nothing, and a backlog of any size no memory.

python -m trials.load flood --rate 50000 --seconds 60
python -m trials.load backlog --rows 10000000
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from trials.oracle import read_rows
from trials.parts import PROJECT, Cadence, Daemon, Database, wait_until
from trials.sessions import cpu_s, peak_bytes, write_session
from trials.soak import percentile


def flood(folder: Path, *, rate: float, seconds: float) -> dict[str, Any]:
    """Receive at a steady pace, without QuestDB in the middle third of the time; nothing may drop."""
    database = Database(folder / "questdb", heap_max="1g")
    daemon = Daemon(folder / "daemon", data_dir=folder / "data", environment=database.environment())
    count = round(rate * seconds)
    command = [sys.executable, "-m", "bench.blast", "--count", str(count), "--rate", str(rate)]
    with subprocess.Popen(command, cwd=PROJECT, stdout=subprocess.PIPE) as blast:
        try:
            daemon.start()
            if blast.stdout is None:
                raise RuntimeError("the load server has no output")
            port = json.loads(blast.stdout.readline())["port"]
            daemon.ask(
                "start", exchange="binance", symbols=["S0000_USDT"], session_id="flood", data_types=["prices"],
                ws_url=f"ws://127.0.0.1:{port}", rest_url=f"http://127.0.0.1:{port}", recording="flood",
            )  # fmt: skip
            path = daemon.data_dir / "session_flood" / "S0000_USDT" / "prices.csv"
            begun = time.monotonic()
            before = peak_bytes(daemon.pid)
            with Cadence(path) as cadence:
                time.sleep(seconds / 3)
                down_ns = time.time_ns()
                database.kill()
                time.sleep(seconds / 3)
                starting = threading.Thread(target=database.start)
                starting.start()
                daemon.wait_state("flood", "completed", bound_s=3 * seconds + 60)
                took_s = time.monotonic() - begun
                starting.join()
            rest = daemon.status()["questdb"]["lag_rows"]
            drained_from = time.monotonic()
            daemon.wait_delivered(180)
            drained_s = time.monotonic() - drained_from
            status = daemon.session("flood")
            database.wait_applied()
            (found, distinct) = database.query(
                "select count(), count_distinct(seq) from tick_prices where session_id = 'flood'"
            )[0]
            ids = [int(row["trade_id"]) for row in read_rows(path.parent.parent, "prices", "S0000_USDT")]
            calm, out = cadence.between(0, down_ns), cadence.between(down_ns, time.time_ns())
            problems = []
            if len(ids) != count or ids != list(range(ids[0], ids[0] + count)) or status["buffer"]["dropped"]:
                problems.append(f"{count} were sent, {len(ids)} are in the CSV, {status['buffer']['dropped']} dropped")
            if (found, distinct) != (count, count):
                problems.append(f"QuestDB has {found} rows, {distinct} of them different")
            return {
                "messages sent": count,
                "seconds": round(took_s, 1),
                "messages per second": round(count / took_s),
                "dropped": status["buffer"]["dropped"],
                "rows in CSV": len(ids),
                "rows in QuestDB": found,
                "rows behind when the flood ended": rest,
                "seconds to drain them": round(drained_s, 1),
                "flush interval before the outage (s), p50, p99, worst": _three(calm),
                "flush interval from the outage on (s), p50, p99, worst": _three(out),
                "longest flush (s)": round(status["flush_max_s"], 3),
                "memory before and peak (MB)": [round(before / 1e6), round(peak_bytes(daemon.pid) / 1e6)],
                "problems": problems,
            }
        finally:
            blast.terminate()
            daemon.end()
            database.end()


def backlog(folder: Path, *, rows: int) -> dict[str, Any]:
    """Import a session of so many rows; memory may not depend on how many there are."""
    database = Database(folder / "questdb", heap_max="1g")
    daemon = Daemon(folder / "daemon", data_dir=folder / "data", environment=database.environment())
    try:
        daemon.start()
        warm = write_session(folder / "session_warm", 300_000)
        daemon.ask("import", session=str(warm), timeout_s=600)
        before = peak_bytes(daemon.pid)
        directory = write_session(folder / "session_backlog", rows)
        used_s = cpu_s(daemon.pid), cpu_s(database.pid)
        begun = time.monotonic()
        daemon.ask("import", session=str(directory), timeout_s=24 * 3600)
        took_s = time.monotonic() - begun
        used_s = cpu_s(daemon.pid) - used_s[0], cpu_s(database.pid) - used_s[1]
        after = peak_bytes(daemon.pid)
        sql = "select count(), min(seq), max(seq) from tick_prices where session_id = 'backlog'"
        wait_until(lambda: database.query(sql, 600)[0][0] >= rows, "all rows to show", 60)
        found = database.query(sql, 600)[0]
        problems = [] if found == [rows, 1, rows] else [f"QuestDB has {found}"]
        if after - before > 32_000_000:
            problems.append(f"memory grew by {(after - before) / 1e6:.0f} MB")
        return {
            "rows": rows,
            "seconds until all were visible": round(took_s, 1),
            "rows per second": round(rows / took_s),
            "CPU of daemon and database (µs a row)": [round(used * 1e6 / rows, 2) for used in used_s],
            "peak memory with 300,000 rows and with all (MB)": [round(before / 1e6), round(after / 1e6)],
            "problems": problems,
        }
    finally:
        daemon.end()
        database.end()


def _three(values: list[float]) -> list[float]:
    return [round(percentile(values, share), 3) for share in (0.5, 0.99, 1.0)]


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["flood", "backlog"])
    parser.add_argument("--rate", type=float, default=50_000)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--rows", type=int, default=10_000_000)
    parser.add_argument("--results", type=Path, default=PROJECT / "build" / "load")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    folder = Path(tempfile.mkdtemp(prefix="collector-load-"))
    try:
        if arguments.what == "flood":
            report = flood(folder, rate=arguments.rate, seconds=arguments.seconds)
        else:
            report = backlog(folder, rows=arguments.rows)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    arguments.results.mkdir(parents=True, exist_ok=True)
    (arguments.results / f"{arguments.what}.json").write_text(json.dumps(report, indent=2) + "\n")
    print(json.dumps(report, indent=2))
    return 1 if report["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
