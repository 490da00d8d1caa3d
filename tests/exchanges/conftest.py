"""Fixtures for the exchanges: where recordings of real messages are, and a loopback server that speaks a dialect."""

from __future__ import annotations

import asyncio
import base64
import gzip
import os
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from collector import config
from collector.clock import SystemClock
from collector.events import BookTop, Gap, Kline, MarketEvent, Trade
from collector.exchanges.base import Exchange, Subscription
from collector.feeds.feed import END_OF_RECORDING, Feed

ASKED_AGAIN = "asked again"
"""In a script: wait until the client asks for a channel that it has asked for before."""

DISCONNECT = "disconnect"
"""In a script: end all connections, and go on when all channels are asked for again."""


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The folder of recordings that COLLECTOR_RECORDINGS names; skips visibly where it names none."""
    folder = os.environ.get("COLLECTOR_RECORDINGS")
    if not folder:
        pytest.skip("COLLECTOR_RECORDINGS is not set: no recordings of real messages")
    return Path(folder)


class Recorded:
    """Read recordings."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def frames(self, name: str) -> Iterator[tuple[int, bytes]]:
        """Return the frames received, each with its time of receipt in microseconds."""
        with gzip.open(self._folder / name, "rt") as lines:
            for line in lines:
                received_ns, _, kind, payload = line.rstrip("\n").split(" ", 3)
                if kind in ("<", "b"):
                    yield int(received_ns) // 1000, base64.b64decode(payload) if kind == "b" else payload.encode()

    def answer(self, name: str, part: str) -> bytes:
        """Return the first answer of REST to a request whose address has a part."""
        with gzip.open(self._folder / name, "rt") as lines:
            for line in lines:
                _, _, kind, payload = line.rstrip("\n").split(" ", 3)
                if kind == "GET" and part in payload.split(" ", 2)[1]:
                    return payload.split(" ", 2)[2].encode()
        raise AssertionError(f"{name} has no answer to {part}")


@pytest.fixture(scope="session")
def recorded(recordings: Path) -> Recorded:
    return Recorded(recordings)


class Collected:
    """What a feed passed on: the sink of a test."""

    def __init__(self) -> None:
        self.trades: list[Trade] = []
        self.books: list[BookTop] = []
        self.gaps: list[Gap] = []
        self.events: dict[str, list[MarketEvent]] = {}
        self.klines: list[Kline] = []
        self.asked: list[str] = []
        """The frames that the server got."""

    def is_crowded(self) -> bool:
        return False

    def add_trade(self, trade: Trade) -> None:
        self.trades.append(trade)

    def add_book(self, top: BookTop) -> None:
        self.books.append(top)

    def add_event(self, stream: str, event: MarketEvent) -> None:
        self.events.setdefault(stream, []).append(event)

    def add_gap(self, gap: Gap) -> None:
        self.gaps.append(gap)

    def add_kline(self, kline: Kline) -> None:
        self.klines.append(kline)

    def observe(self, symbol: str, timestamp_us: int) -> None:
        pass


class SilentLog:
    """Accept what a feed logs."""

    def bind(self, **_: object) -> SilentLog:
        return self

    def __getattr__(self, level: str) -> Callable[..., None]:
        return lambda *_, **__: None


class ScriptedExchange:
    """Acknowledge what clients ask for; once they have asked for all, say the script's frames and end.

    A frame goes to the connection that asked for its channel, and one of no channel to all. Requests of REST are
    answered by ``answer``, which is given their path and query; what it has no answer to is not found.
    """

    def __init__(
        self,
        exchange: Exchange,
        expected: set[str],
        script: Sequence[bytes | str],
        got: list[str],
        *,
        binary: bool = False,
        answer: Callable[[str], bytes | None] = lambda _: None,
    ) -> None:
        self._exchange = exchange
        self._binary = binary
        self._answer = answer
        self._expected = expected
        self._script = script
        self._got = got
        self._clients: dict[ServerConnection, set[str]] = {}
        self._changed = asyncio.Event()
        self._repeated = False

    async def handle(self, connection: ServerConnection) -> None:
        channels = self._clients.setdefault(connection, set())
        path = connection.request.path if connection.request else "/"
        channels.update(self._exchange.channels_asked(path, None))
        try:
            async for message in connection:
                await self._take(connection, path, message if isinstance(message, str) else message.decode())
        except ConnectionClosed:
            pass
        finally:
            self._clients.pop(connection, None)

    async def process_request(self, _: ServerConnection, request: Request) -> Response | None:
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return None
        body = self._answer(request.path)
        status, phrase = (404, "Not Found") if body is None else (200, "OK")
        headers = Headers({"Content-Length": str(len(body or b"")), "Connection": "close"})
        return Response(status, phrase, headers, body or b"")

    async def _take(self, connection: ServerConnection, path: str, frame: str) -> None:
        self._got.append(frame)
        acknowledgement = self._exchange.acknowledgement(frame)
        if acknowledgement is not None:
            await connection.send(acknowledgement)
        asked = set(self._exchange.channels_asked(path, frame))
        self._repeated = self._repeated or bool(asked & self._clients[connection])
        self._clients[connection] |= asked
        self._changed.set()

    async def perform(self) -> None:
        await self._until(self._all_asked)
        for item in self._script:
            if item == ASKED_AGAIN:
                await self._until(lambda: self._repeated)
                self._repeated = False
            elif item == DISCONNECT:
                await self._end(1001, "going away")
                await self._until(self._all_asked)
            else:
                await self._say(item)
        await self._end(1000, END_OF_RECORDING)

    def _all_asked(self) -> bool:
        return self._expected <= set().union(*self._clients.values())

    async def _say(self, frame: bytes | str) -> None:
        channel = self._exchange.channel_of(frame)
        for connection, channels in list(self._clients.items()):
            if channel is None or channel in channels:
                await connection.send(frame if isinstance(frame, str) or self._binary else frame.decode())

    async def _end(self, code: int, reason: str) -> None:
        leaving = list(self._clients)
        self._clients.clear()
        for connection in leaving:
            await connection.close(code, reason)

    async def _until(self, condition: Callable[[], bool]) -> None:
        while not condition():
            self._changed.clear()
            await self._changed.wait()


Play = Callable[..., Collected]


@pytest.fixture
def play() -> Play:
    """Return a function that collects a script of frames through a feed and a real websocket, to its end."""

    async def collect(
        exchange: Exchange,
        subscriptions: Sequence[Subscription],
        script: Sequence[bytes | str],
        options: dict[str, Any],
    ) -> Collected:
        collected = Collected()
        expected: set[str] = set()
        for plan in exchange.plan(subscriptions, raw_trades=options.get("raw_trades", False)):
            for frame in (None, *plan.frames):
                expected.update(exchange.channels_asked(plan.path, frame))
        scripted = ScriptedExchange(
            exchange,
            expected,
            script,
            collected.asked,
            binary=options.pop("binary", False),
            answer=options.pop("answer", lambda _: None),
        )
        settings = config.Feed(backoff_initial_s=0.02, backoff_cap_s=0.2, reorder_grace_s=0.1, snapshots_per_s=1000)
        async with (
            asyncio.timeout(30),
            serve(scripted.handle, "127.0.0.1", 0, close_timeout=5, process_request=scripted.process_request) as server,
        ):
            port = server.sockets[0].getsockname()[1]
            feed = Feed(
                exchange,
                subscriptions,
                collected,
                config=settings,
                clock=SystemClock(),
                log=SilentLog(),  # type: ignore[arg-type]
                ws_url=f"ws://127.0.0.1:{port}",
                rest_url=f"http://127.0.0.1:{port}",
                **options,
            )
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(feed.run())
                await scripted.perform()
        return collected

    def run(
        exchange: Exchange, subscriptions: Sequence[Subscription], script: Sequence[bytes | str], **options: Any
    ) -> Collected:
        return asyncio.run(collect(exchange, subscriptions, script, options))

    return run
