"""What receiving costs: CPU microseconds per trade of this process, the server being another one.

``recv`` is the websocket library alone, ``connection`` our connection with a receiver that does nothing, ``feed`` the
whole path: parse, continuity, session buffer. ``deflate`` is ``connection`` with permessage-deflate negotiated.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import structlog
import uvloop
from websockets.asyncio.client import connect
from websockets.asyncio.server import ServerConnection, serve
from websockets.exceptions import ConnectionClosed

from collector import config
from collector.clock import SystemClock
from collector.exchanges.base import Listing, Subscription
from collector.exchanges.binance import Binance
from collector.feeds.connection import Receiver, open_connection
from collector.feeds.feed import Feed
from collector.session.buffer import SessionBuffer

SUBSCRIBE = json.dumps({"method": "SUBSCRIBE", "params": ["s0000usdt@aggTrade"], "id": 1})
LISTING = Listing("S0000_USDT", "S0000USDT", "S0000", "USDT")


async def bare_recv(url: str) -> int:
    """Take every message with recv() and drop it."""
    count = 0
    async with connect(url, compression=None, proxy=None, max_queue=4096) as connection:
        await connection.send(SUBSCRIBE)
        recv = connection.recv
        try:
            while True:
                await recv(decode=False)
                count += 1
        except ConnectionClosed:
            return count


async def own_connection(url: str, *, compression: bool = False) -> int:
    """Take every message with our connection and drop it."""
    count = 0
    ended = asyncio.Event()

    def take(_: bytes) -> None:
        nonlocal count
        count += 1

    receiver = Receiver(text=take, binary=take, ended=ended.set)
    settings = config.Feed(compression=compression)
    connection = await open_connection(url, receiver, settings=settings, now_us=SystemClock().now_us)
    await connection.send(SUBSCRIBE)
    await ended.wait()
    return count


async def whole_feed(url: str) -> int:
    """Take every trade into a session's buffer, which is emptied twice a second."""
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
            await asyncio.sleep(0.5)
            buffer.mark_written(buffer.swap().rows)

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(flush())
        await feed.run()
    return buffer.received


@asynccontextmanager
async def server_process(*arguments: str) -> AsyncIterator[str]:
    """Run a server that prints its port, and end it."""
    process = subprocess.Popen([sys.executable, *arguments], stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220  once
    assert process.stdout is not None
    try:
        yield f"ws://127.0.0.1:{json.loads(process.stdout.readline())['port']}"
    finally:
        process.terminate()
        process.wait()
        process.stdout.close()


async def measure(
    kind: str, take: Callable[[str], Awaitable[int]], arguments: list[str], runs: int
) -> dict[str, object]:
    """Return the best of several runs: the others had more of somebody else's work in them."""
    costs = []
    count = 0
    for _ in range(runs):
        async with server_process(*arguments) as url:
            begin = time.process_time()
            count = await take(url)
            costs.append((time.process_time() - begin) / count * 1e6)
    return {"what": kind, "trades": count, "cpu_us_per_trade": round(min(costs), 2)}


async def serve_deflated(count: int) -> None:
    """Serve the load server's frames with permessage-deflate, for the comparison."""
    sys.path.insert(0, str(Path(__file__).parent))
    from blast import frame

    async def behave(connection: ServerConnection) -> None:
        await connection.recv()
        for number in range(count):
            await connection.send(frame("S0000USDT", number, 1_723_000_000_000 + number)[4:].decode())
        await connection.close(1000, "end of recording")

    async with serve(behave, "127.0.0.1", 0, compression="deflate") as server:
        print(json.dumps({"port": server.sockets[0].getsockname()[1]}), flush=True)
        await server.serve_forever()


async def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=300_000)
    parser.add_argument("--rate", type=float, default=2000)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--serve-deflated", type=int, default=0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    if given.serve_deflated:
        await serve_deflated(given.serve_deflated)
        return
    here = Path(__file__).parent
    flood = [str(here / "blast.py"), "--count", str(given.count)]
    paced = [str(here / "blast.py"), "--count", str(round(given.rate * 5)), "--rate", str(given.rate)]
    deflated = [str(here / "receive.py"), "--serve-deflated", str(given.count // 3)]
    rows = [
        await measure("recv", bare_recv, flood, given.runs),
        await measure("connection", own_connection, flood, given.runs),
        await measure("connection, deflate", lambda url: own_connection(url, compression=True), deflated, given.runs),
        await measure("feed", whole_feed, flood, given.runs),
        await measure(f"recv, {given.rate:.0f}/s", bare_recv, paced, 1),
        await measure(f"feed, {given.rate:.0f}/s", whole_feed, paced, 1),
    ]
    for row in rows:
        print(f"{row['what']:<24}{row['trades']:>10} trades {row['cpu_us_per_trade']:>8} µs CPU each")
    if given.json:
        given.json.write_text(json.dumps(rows, indent=2), encoding="utf-8")


if __name__ == "__main__":
    uvloop.run(main())
