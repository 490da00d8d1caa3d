"""What each stage costs by itself: CPU microseconds per trade of this process, on the trades of the load server.

Batches are what half a second brings at 50,000 trades/s. ``replicate`` sends them to a real QuestDB, whose CPU is its
own. The stages' sum is less than the flood's figure: between them there are threads, wake-ups and a colder cache.
"""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable, Sequence
from decimal import Decimal
from pathlib import Path

import structlog

from bench.blast import frame
from bench.harness import Figure, Place, Result, Scale, median
from bench.receive import LISTING, cost_us, take_with_connection
from collector.candles.aggregator import Aggregator
from collector.clock import SystemClock
from collector.events import Trade
from collector.exchanges.base import Subscription
from collector.exchanges.binance import Binance
from collector.feeds.sink import ResumePoint
from collector.feeds.tracks import TradeTrack
from collector.session.buffer import SessionBuffer
from collector.session.rows import format_trades
from collector.storage.csv_log import CsvLog, Write
from collector.storage.files import OperatingSystem
from collector.storage.migrations import migrate
from collector.storage.questdb import HttpTransport
from collector.storage.replicator import Replicator
from collector.streams import PRICES

TRADES = 200_000
BATCH = 25_000
BASE_MS = 1_723_000_000_000
SESSION_ID = "20240807-030640-binance-b3c4"
TIMEOUT_S = 60.0
_HEADER_BYTES = 4


def measure(place: Place, scale: Scale) -> list[Result]:
    """Measure every stage several times on the same trades."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    exchange = Binance([LISTING])
    frames = [frame(LISTING.native, n, BASE_MS + n // 50)[_HEADER_BYTES:] for n in range(TRADES)]
    trades = [event for payload in frames for event in exchange.parse(payload, BASE_MS * 1000)]
    batches = [[t for t in trades[at : at + BATCH] if isinstance(t, Trade)] for at in range(0, TRADES, BATCH)]
    folder = place.folder / "stages"
    replicate = Replicate(place, folder)
    stages: dict[str, Callable[[], float]] = {
        "receive": lambda: cost_us(take_with_connection, TRADES),
        "parse": lambda: parse(exchange, frames),
        "buffer": lambda: buffer(exchange, batches),
        "CSV: format, append, sync": lambda: write(folder, batches)[0],
        "candles": lambda: fold(batches),
        "replicate": lambda: replicate.run(batches),
    }
    return [
        Figure(f"stage: {name}", median([stage() for _ in range(scale.runs)]), "µs CPU/trade")
        for name, stage in stages.items()
    ]


def parse(exchange: Binance, frames: Sequence[bytes]) -> float:
    """Turn frames into events, each with the time of its receipt."""
    now_us = SystemClock().now_us
    begin_s = time.process_time()
    for payload in frames:
        exchange.parse(payload, now_us())
    return (time.process_time() - begin_s) / len(frames) * 1e6


def buffer(exchange: Binance, batches: Sequence[list[Trade]]) -> float:
    """Judge trades by their ids and put them into a session's buffer, as the feed does."""
    kept = SessionBuffer(10 * BATCH)
    subscription = Subscription(PRICES.name, LISTING.symbol)
    contiguous = exchange.trade_ids_contiguous
    track = TradeTrack(subscription, kept, contiguous=contiguous, resume=ResumePoint(), reorder_grace_s=1)
    begin_s = time.process_time()
    for batch in batches:
        for trade in batch:
            track.received += 1
            track.last = trade
            if track.accept(trade):
                kept.add_trade(trade)
        kept.mark_written(kept.swap().rows)
    return (time.process_time() - begin_s) / kept.written * 1e6


def write(folder: Path, batches: Sequence[list[Trade]]) -> tuple[float, CsvLog]:
    """Format, append and sync; return the cost, and the log that holds the rows."""
    shutil.rmtree(folder, ignore_errors=True)
    log = CsvLog(folder, files=OperatingSystem())
    file = log.open(PRICES, LISTING.symbol)
    begin_s = time.process_time()
    for batch in batches:
        log.append([Write(file, format_trades(batch, file.next_seq)[0], len(batch))])
        log.sync()
    cost_us = (time.process_time() - begin_s) / file.rows * 1e6
    log.close()
    return cost_us, log


def fold(batches: Sequence[list[Trade]]) -> float:
    """Fold what was written into candles, and close those that are due."""
    candles = Aggregator(LISTING.symbol, grace_us=2_000_000)
    quotes = [[Decimal(trade.price) * Decimal(trade.volume) for trade in batch] for batch in batches]
    first_seq = 1
    begin_s = time.process_time()
    for batch, amounts in zip(batches, quotes, strict=True):
        candles.fold(batch, range(first_seq, first_seq + len(batch)), amounts)
        candles.close_due(batch[-1].timestamp_us, lambda _from_us, _to_us: False)
        first_seq += len(batch)
    return (time.process_time() - begin_s) / (first_seq - 1) * 1e6


class Replicate:
    """Deliver committed rows to a real QuestDB until they are acknowledged."""

    def __init__(self, place: Place, folder: Path) -> None:
        self._server = place.database
        self._config = place.config.questdb
        self._folder = folder
        self._runs = 0

    def run(self, batches: Sequence[list[Trade]]) -> float:
        """Write a session's log, then deliver it batch by batch; the writing is not counted."""
        self._server.install()
        self._server.start()
        settings = self._server.settings(self._config)
        migrate(settings)
        self._runs += 1
        session_id = f"{SESSION_ID}-{self._runs}"
        shutil.rmtree(self._folder, ignore_errors=True)
        log = CsvLog(self._folder, files=OperatingSystem())
        file = log.open(PRICES, LISTING.symbol)
        commits = []
        for batch in batches:
            log.append([Write(file, format_trades(batch, file.next_seq)[0], len(batch))])
            commits += log.sync()
        replicator = Replicator(
            lambda: HttpTransport.from_config(settings),
            config=settings,
            files=OperatingSystem(),
            clock=SystemClock(),
            log=structlog.get_logger(),
        )
        replicator.add_session(session_id, "binance", self._folder)
        begin_s = time.process_time()
        replicator.start()
        deadline_s = time.monotonic() + TIMEOUT_S
        for commit in commits:
            replicator.committed(session_id, [commit])
            while replicator.status().acknowledged_rows < commit.rows:
                if time.monotonic() > deadline_s:
                    raise RuntimeError(f"QuestDB took too long: {replicator.status().reason}")
                time.sleep(0.01)
        replicator.stop(10)
        used_s = time.process_time() - begin_s
        log.close()
        return used_s / file.rows * 1e6
