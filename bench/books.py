"""What an exchange's words cost: a trade, and a change of forty levels from its bytes to the book that has it.

A table row per exchange and kind; CPU of this process alone, the least of several runs over the same messages, because
whatever else the machine does only adds to it. And the memory of 500 full-depth books in a process of their own.
"""

from __future__ import annotations

import gc
import json
import random
import subprocess
import sys
import time
from collections.abc import Callable

from bench.dialects import DIALECTS, Dialect, Market, dialect
from bench.harness import PROJECT, Figure, Place, Result, Scale, resident_mb
from collector.clock import SystemClock
from collector.events import BookDelta, BookSnapshot, Trade
from collector.feeds.orderbook import BookSync

MESSAGES = 2_000
TRADE_TARGET_US = 3.0
CHANGE_TARGET_US = 15.0
BOOKS = 500
BOOKS_TARGET_MB = 500.0
DEPTH = 5_000
SYMBOL = "BTC_USDT"


def measure(place: Place, scale: Scale) -> list[Result]:  # noqa: ARG001  every benchmark is called alike
    """Measure each exchange, deep rows, and the memory of many books."""
    results: list[Result] = []
    for name in DIALECTS:
        words = dialect(name, MESSAGES)
        runs = 5 * scale.runs
        results += [
            Figure(f"{name}: parse a trade", least(trades_us, words, runs), "µs CPU", TRADE_TARGET_US),
            Figure(f"{name}: parse and apply 40 levels", least(changes_us, words, runs), "µs CPU", CHANGE_TARGET_US),
        ]
    words = dialect("binance", MESSAGES)
    deep = least(lambda given: changes_us(given, levels=20), words, 5 * scale.runs)
    results.append(Figure("binance: the same with rows of 20 levels", deep, "µs CPU"))
    results.append(Figure(f"{BOOKS} books of {DEPTH} levels a side", books_mb(), "MB", BOOKS_TARGET_MB))
    return results


def least(cost: Callable[[Dialect], float], words: Dialect, runs: int) -> float:
    """Return the least of several runs."""
    gc.collect()
    return min(cost(words) for _ in range(runs))


def trades_us(words: Dialect) -> float:
    """Turn frames of one trade each into events; return microseconds of CPU a trade."""
    parse, now_us = words.exchange.parse, SystemClock().now_us
    begin_s = time.process_time()
    for frame in words.trades:
        parse(frame, now_us())
    used_s = time.process_time() - begin_s
    if not all(type(event) is Trade for frame in words.trades for event in parse(frame, 0)):
        raise RuntimeError(f"{words.exchange.name} does not read its trades")
    return used_s / len(words.trades) * 1e6


def changes_us(words: Dialect, *, levels: int = 3) -> float:
    """Take a book through its changes, with its rule, checksum and rows; return microseconds of CPU a change."""
    exchange = words.exchange
    sync = BookSync(
        SYMBOL,
        exchange.book_rule(),
        levels=levels,
        checksum=exchange.book_checksum,
        numbered=exchange.book_numbered,
    )
    parse, now_us = exchange.parse, SystemClock().now_us
    on_delta, on_snapshot = sync.on_delta, sync.on_pushed_snapshot
    if words.rest:
        sync.on_snapshot(exchange.parse_snapshot(SYMBOL, words.book, 0))
    else:
        for event in parse(words.book, 0):
            if isinstance(event, BookSnapshot):
                on_snapshot(event)
    rows = 0
    begin_s = time.process_time()
    for frame in words.changes:
        for event in parse(frame, now_us()):
            if type(event) is BookDelta:
                rows += len(on_delta(event))
            elif type(event) is BookSnapshot:
                rows += len(on_snapshot(event))
    used_s = time.process_time() - begin_s
    if sync.needs_snapshot or rows < len(words.changes) / 50:
        raise RuntimeError(f"{exchange.name} did not take its changes: {rows} rows")
    return used_s / len(words.changes) * 1e6


def books_mb() -> float:
    """Fill books in a process of their own, change each, and return what they added to its resident memory."""
    ran = subprocess.run(
        [sys.executable, "-m", "bench.books"], cwd=PROJECT, stdout=subprocess.PIPE, text=True, check=True
    )
    return float(json.loads(ran.stdout)["mb"])


def fill() -> float:
    """Return the memory in MB that the books take."""
    import os

    exchange = dialect("binance", 1).exchange
    gc.collect()
    before_mb = resident_mb(os.getpid())
    kept = []
    for number in range(BOOKS):
        market = Market(random.Random(number), middle=1_000_000 + 7919 * number)
        sync = BookSync(SYMBOL, exchange.book_rule())
        bids, asks = market.begin(DEPTH)
        sync.on_snapshot(BookSnapshot(SYMBOL, 0, 0, bids, asks, 0))
        for n in range(1, 11):
            bids, asks = market.step()
            sync.on_delta(BookDelta(SYMBOL, 100_000 * n, n, n, None, bids, asks, 0))
        kept.append(sync)
        del bids, asks, market
    gc.collect()
    return resident_mb(os.getpid()) - before_mb


if __name__ == "__main__":
    json.dump({"mb": fill()}, sys.stdout)
