"""How soon after its receipt a tick can be queried in QuestDB.

The table is asked over HTTP for its highest ``seq`` again and again; a row counts as there when the answer that shows
it has arrived. Its receipt is the ``received_at`` of its CSV row: the same machine's clock.
"""

from __future__ import annotations

import csv
import time
from pathlib import Path

from bench.harness import DaemonProcess, Figure, Place, Result, Scale, load_server, percentile, symbol_names

RATE = 2000
TARGET_S = 0.75
WARM_UP_S = 3.0
POLL_S = 0.005


def measure(place: Place, scale: Scale) -> list[Result]:
    """Compare when rows were received with when they were seen."""
    count = round((WARM_UP_S + scale.latency_s) * RATE)
    with place.daemon() as daemon, load_server(count, rate=RATE) as (ws_url, rest_url):
        session_id = daemon.start(ws_url, rest_url, symbol_names(1))
        seen = _watch(daemon, session_id, count)
        status = daemon.wait_until_done(session_id, count, timeout_s=60)
        path = place.folder / f"session_{session_id}" / symbol_names(1)[0] / "prices.csv"
        delays = _delays(path, seen)
        path_rows = status["rows"]["prices"]
    warm = delays[round(WARM_UP_S * RATE) :]
    return [
        Figure("latency: receipt to queryable, p99", percentile(warm, 0.99), "s", TARGET_S, note=f"{path_rows:,} rows"),
        Figure("latency: receipt to queryable, median", percentile(warm, 0.5), "s"),
        Figure("latency: receipt to queryable, worst", max(warm), "s"),
    ]


def _watch(daemon: DaemonProcess, session_id: str, count: int) -> list[tuple[float, int]]:
    """Return (when, highest seq that was visible) for each change, until all rows are."""
    sql = f"select max(seq) from tick_prices where session_id = '{session_id}'"  # noqa: S608  an id of ours
    seen: list[tuple[float, int]] = []
    last = 0
    deadline = time.monotonic() + count / RATE + 60
    while last < count:
        if time.monotonic() > deadline:
            raise RuntimeError(f"only {last} of {count} rows were visible in time")
        found = daemon.place.query(sql)[0][0] or 0
        if found > last:
            last = found
            seen.append((time.time(), last))
        time.sleep(POLL_S)
    return seen


def _delays(path: Path, seen: list[tuple[float, int]]) -> list[float]:
    """Return each row's seconds from receipt to the first answer that showed it."""
    delays = []
    position = 0
    with path.open(encoding="ascii", newline="") as file:
        for row in csv.DictReader(file):
            while seen[position][1] < int(row["seq"]):
                position += 1
            delays.append(seen[position][0] - int(row["received_at"]) / 1e6)
    return delays
