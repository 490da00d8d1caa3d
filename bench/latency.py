"""How soon after its receipt a tick can be queried in QuestDB.

The table is asked over HTTP for its highest ``seq`` again and again; a row counts as there when the answer that shows
it has arrived. Its receipt is the ``received_at`` of its CSV row: the same machine's clock. Up to half a second of it
is the flush's interval; what QuestDB takes of the rest is measured by itself, with rows sent to it directly.
"""

from __future__ import annotations

import csv
import time
from pathlib import Path

from bench.harness import DaemonProcess, Figure, Place, Result, Scale, load_server, percentile, symbol_names
from collector.events import Trade
from collector.session.rows import format_trades
from collector.storage.ilp import Encoder
from collector.storage.questdb import Acknowledged, HttpTransport
from collector.streams import PRICES

RATE = 2000
TARGET_S = 0.75
WARM_UP_S = 3.0
POLL_S = 0.005
FLUSH_INTERVAL_S = 0.5


def measure(place: Place, scale: Scale) -> list[Result]:
    """Compare when rows were received with when they were seen."""
    count = round((WARM_UP_S + scale.latency_s) * RATE)
    with place.daemon() as daemon, load_server(count, rate=RATE) as (ws_url, rest_url):
        session_id = daemon.start(ws_url, rest_url, symbol_names(1))
        seen = _watch(daemon, session_id, count)
        status = daemon.wait_until_done(session_id, count, timeout_s=60)
        path = place.folder / f"session_{session_id}" / symbol_names(1)[0] / "prices.csv"
        warm = _delays(path, seen)[round(WARM_UP_S * RATE) :]
        alone = _database_alone(place, round(scale.latency_s / FLUSH_INTERVAL_S))
    note = f"{len(warm):,} rows; flushes took {status['flush_max_s']:.2f} s at most"
    return [
        Figure("latency: receipt to queryable, p99", percentile(warm, 0.99), "s", TARGET_S, note=note),
        Figure("latency: receipt to queryable, median", percentile(warm, 0.5), "s"),
        Figure("latency: receipt to queryable, worst", max(warm), "s"),
        Figure("latency: QuestDB alone, p99", percentile(alone, 0.99), "s", note="from sending to queryable"),
        Figure("latency: QuestDB alone, median", percentile(alone, 0.5), "s"),
    ]


def _database_alone(place: Place, beats: int) -> list[float]:
    """Send what a flush brings straight to QuestDB, again and again; return the seconds until the rows were visible."""
    session_id = f"latency-{time.time_ns()}"
    transport = _connect(place)
    encoder = Encoder(PRICES, {"session_id": session_id, "exchange": "binance", "symbol": "S0000_USDT"})
    per_beat = round(RATE * FLUSH_INTERVAL_S)
    delays = []
    for beat in range(beats):
        now_us = time.time_ns() // 1000
        trades = [
            Trade("S0000_USDT", now_us + n, "61000.10000000", "0.00100000", "buy", beat * per_beat + n, now_us)
            for n in range(per_beat)
        ]
        last = (beat + 1) * per_beat
        body = encoder.encode(format_trades(trades, beat * per_beat + 1)[0]).body
        begin_s = time.monotonic()
        outcome = transport.send(PRICES.table, body, per_beat)
        if outcome != Acknowledged():
            raise RuntimeError(f"QuestDB took {per_beat} rows with {outcome}")
        while _highest_seq(transport, session_id) < last:
            time.sleep(POLL_S)
        took_s = time.monotonic() - begin_s
        delays.append(took_s)
        time.sleep(max(0.0, FLUSH_INTERVAL_S - took_s))
    transport.close()
    return delays


def _highest_seq(database: HttpTransport, session_id: str) -> int:
    rows = database.query(f"select max(seq) last from tick_prices where session_id = '{session_id}'")  # noqa: S608  an id of ours
    found = rows[0]["last"]
    return found if isinstance(found, int) else 0


def _connect(place: Place) -> HttpTransport:
    return HttpTransport.from_config(place.database.settings(place.config.questdb))


def _watch(daemon: DaemonProcess, session_id: str, count: int) -> list[tuple[float, int]]:
    """Return (when, highest seq that was visible) for each change, until all rows are."""
    seen: list[tuple[float, int]] = []
    last = 0
    deadline = time.monotonic() + count / RATE + 60
    database = _connect(daemon.place)
    while last < count:
        if time.monotonic() > deadline:
            raise RuntimeError(f"only {last} of {count} rows were visible in time")
        found = _highest_seq(database, session_id)
        if found > last:
            last = found
            seen.append((time.time(), last))
        time.sleep(POLL_S)
    database.close()
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
