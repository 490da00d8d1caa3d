"""What receiving costs: CPU microseconds per trade of this process, the server being another one.

``library`` is the websocket library's ``recv()`` alone, ``connection`` ours with a receiver that does nothing, ``feed``
the whole path: receive, parse, continuity, session buffer.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Awaitable, Callable

import structlog
import uvloop
from websockets.asyncio.client import connect
from websockets.exceptions import ConnectionClosed

from bench.harness import Figure, Place, Result, Scale, load_server, median
from collector import config
from collector.clock import SystemClock
from collector.exchanges.base import Listing, Subscription
from collector.exchanges.binance import Binance
from collector.feeds.connection import Receiver, open_connection
from collector.feeds.feed import Feed
from collector.session.buffer import SessionBuffer

SUBSCRIBE = json.dumps({"method": "SUBSCRIBE", "params": ["s0000usdt@aggTrade"], "id": 1})
LISTING = Listing("S0000_USDT", "S0000USDT", "S0000", "USDT")
FLUSH_INTERVAL_S = 0.5

Take = Callable[[str], Awaitable[int]]
"""Connect to an address, take everything that comes, return how many trades that were."""


def measure(_: Place, scale: Scale) -> list[Result]:
    """Take the same flood in three ways."""
    kinds: dict[str, Take] = {
        "the library's recv() alone": take_with_library,
        "our connection": take_with_connection,
        "our feed, to the session's buffer": take_with_feed,
    }
    results: list[Result] = []
    for name, take in kinds.items():
        costs = [cost_us(take, scale.flood_trades) for _ in range(scale.runs)]
        results.append(Figure(f"receive: {name}", median(costs), "µs CPU/trade"))
    return results


def cost_us(take: Take, count: int) -> float:
    """Return the CPU per trade of one flood."""

    async def run(url: str) -> float:
        before_s = time.process_time()
        taken = await take(url)
        return (time.process_time() - before_s) / taken * 1e6

    with load_server(count) as (ws_url, _):
        return uvloop.run(run(ws_url))


async def take_with_library(url: str) -> int:
    """Take every message with recv() and drop it."""
    count = -1  # the acknowledgement is no trade
    async with connect(f"{url}/stream", compression=None, proxy=None, max_queue=4096) as connection:
        await connection.send(SUBSCRIBE)
        recv = connection.recv
        try:
            while True:
                await recv(decode=False)
                count += 1
        except ConnectionClosed:
            return count


async def take_with_connection(url: str) -> int:
    """Take every message with our connection and drop it."""
    count = -1
    ended = asyncio.Event()

    def take(_: bytes) -> None:
        nonlocal count
        count += 1

    receiver = Receiver(text=take, binary=take, ended=ended.set)
    settings = config.Feed()
    connection = await open_connection(f"{url}/stream", receiver, settings=settings, now_us=SystemClock().now_us)
    await connection.send(SUBSCRIBE)
    await ended.wait()
    return count


async def take_with_feed(url: str) -> int:
    """Take every trade into a session's buffer, which is emptied twice a second."""
    structlog.configure(logger_factory=structlog.ReturnLoggerFactory())
    buffer = SessionBuffer(10_000_000)
    feed = Feed(
        Binance([LISTING]),
        [Subscription("prices", LISTING.symbol)],
        buffer,
        config=config.Feed(),
        clock=SystemClock(),
        log=structlog.get_logger(),
        ws_url=url,
    )

    async def flush() -> None:
        while not feed.finished.is_set():
            await asyncio.sleep(FLUSH_INTERVAL_S)
            buffer.mark_written(buffer.swap().rows)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(flush())
        await feed.run()
    return buffer.received
