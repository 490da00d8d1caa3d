"""Past candles: from the bodies of a source's answers, as if it answered at once, to rows that QuestDB shows.

The whole way but the network: walk, parse, CSV, sync, delivery to a real QuestDB, and a count there. Wall time.
"""

from __future__ import annotations

import shutil
import time

import msgspec
import structlog

from bench.harness import Figure, Place, Result, Scale, median
from collector.clock import SystemClock
from collector.events import PastCandle
from collector.exchanges.candle_sources.intervals import MINUTE_US
from collector.exchanges.candle_sources.registry import create_source
from collector.exchanges.candle_sources.walk import walk
from collector.session.rows import format_past_candles
from collector.storage.csv_log import CsvLog, Write
from collector.storage.files import OperatingSystem
from collector.storage.migrations import migrate
from collector.storage.questdb import HttpTransport
from collector.storage.replicator import Replicator
from collector.storage.sql import connect
from collector.streams import CANDLES_1M

CANDLES = 150_000
PAGE = 1000
BEGIN_US = 1_700_000_000_000_000 // MINUTE_US * MINUTE_US
PAGES_PER_FLUSH = 25
SYMBOL = "BENCH_USDT"
TIMEOUT_S = 120.0
TARGET_ROWS_PER_S = 100_000


def measure(place: Place, scale: Scale) -> list[Result]:
    """Measure the way of minutes several times, each as a session of its own."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    bodies = [_body(BEGIN_US + n * PAGE * MINUTE_US) for n in range(CANDLES // PAGE)]
    runs = [_run(place, bodies, n) for n in range(scale.runs)]
    return [
        Figure(
            "history.rows_per_s", round(median(runs)), "rows/s", TARGET_ROWS_PER_S, "higher",
            "from the body of an answer to a row that a query finds",
        )
    ]  # fmt: skip


def _body(start_us: int) -> bytes:
    rows = []
    for at_us in range(start_us, start_us + PAGE * MINUTE_US, MINUTE_US):
        at = at_us // 1000
        rows.append(
            [at, "64100.10", "64150.20", "64090.00", "64120.50", "12.34500000", at + 59_999, "791234.56", 512,
             "6.10000000", "391000.12", "0"]
        )  # fmt: skip
    return msgspec.json.encode(rows)


def _run(place: Place, bodies: list[bytes], number: int) -> float:
    server = place.database
    server.install()
    server.start()
    settings = server.settings(place.config.questdb)
    migrate(settings)
    folder = place.folder / "history"
    shutil.rmtree(folder, ignore_errors=True)
    session_id = f"20260101-000000-history-{number:04d}"
    log = CsvLog(folder, files=OperatingSystem())
    file = log.open(CANDLES_1M, SYMBOL)
    replicator = Replicator(
        lambda: HttpTransport.from_config(settings), config=settings, files=OperatingSystem(), clock=SystemClock(),
        log=structlog.get_logger(),
    )  # fmt: skip
    replicator.add_session(session_id, "history", folder)
    replicator.start()
    source = create_source("binance")
    end_us = BEGIN_US + CANDLES * MINUTE_US
    now_us = time.time_ns() // 1000
    begin_s = time.monotonic()
    walked = walk(source, SYMBOL, "1m", BEGIN_US, end_us, now_us=now_us)
    for number_of_page, body in enumerate(bodies, 1):
        rows = [
            PastCandle(
                SYMBOL, c.start_us, "1m", c.open, c.high, c.low, c.close, c.volume, c.quote_volume, c.trades_count,
                c.taker_buy_volume, c.taker_buy_quote_volume, source.name, now_us,
            )
            for c in walked.feed(body)
        ]  # fmt: skip
        log.append([Write(file, format_past_candles(rows, file.next_seq), len(rows))])
        if number_of_page % PAGES_PER_FLUSH == 0 or number_of_page == len(bodies):
            replicator.committed(session_id, log.sync())
    with connect(settings) as connection:
        deadline_s = time.monotonic() + TIMEOUT_S
        query = "SELECT count() FROM candles_1m WHERE session_id = %s"
        while connection.value(query, session_id) != CANDLES:
            if time.monotonic() > deadline_s:
                raise RuntimeError(f"QuestDB took too long: {replicator.status().reason}")
            time.sleep(0.02)
    took_s = time.monotonic() - begin_s
    replicator.stop(10)
    log.close()
    return CANDLES / took_s
