"""A loopback exchange: a real websocket and REST server on a port that the system chooses; it does what a test says."""

from __future__ import annotations

import asyncio
import json
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Sequence
from contextlib import asynccontextmanager
from http import HTTPStatus
from pathlib import Path
from typing import Any

import pytest
import uvloop
from websockets.asyncio.server import Server, ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from collector import config
from collector.clock import SystemClock
from collector.events import BookTop, Gap, Kline, MarketEvent, Trade
from collector.exchanges.base import Limits, Listing, Subscription
from collector.exchanges.binance import Binance
from collector.feeds.feed import Feed

T0_MS = 1_723_000_000_000
LISTINGS = [
    Listing("BTC_USDT", "BTCUSDT", "BTC", "USDT"),
    Listing("ETH_USDT", "ETHUSDT", "ETH", "USDT"),
    Listing("BNB_USDT", "BNBUSDT", "BNB", "USDT"),
]
Behaviour = Callable[[ServerConnection, int], Awaitable[None]]
Answer = tuple[int, dict[str, str], bytes]


class Loopback(Binance):
    """Binance's dialect with limits that a test can live with."""

    limits = Limits(
        streams_per_connection=1024,
        streams_per_frame=200,
        frames_per_s=1000,
        connects_per_5_min=300,
        connection_life_s=None,
        weight_per_min=60_000,
    )


class ListSink:
    """Keep everything that a feed passes on, and let a test wait for it."""

    def __init__(self) -> None:
        self.trades: list[Trade] = []
        self.books: list[BookTop] = []
        self.gaps: list[Gap] = []
        self.events: dict[str, list[MarketEvent]] = {}
        self.klines: list[Kline] = []
        self.observed: dict[str, int] = {}

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
        self.observed[symbol] = max(timestamp_us, self.observed.get(symbol, 0))

    def ids(self, symbol: str = "BTC_USDT") -> list[int | str]:
        return [trade.trade_id for trade in self.trades if trade.symbol == symbol]

    def holes(self, symbol: str = "BTC_USDT") -> list[tuple[str, int | None, int | None]]:
        return [
            (gap.cause, gap.from_id, gap.to_id) for gap in self.gaps if gap.symbol == symbol and gap.stream == "prices"
        ]


class ListLog:
    """Keep log events by name; what a bound logger can do, as far as feeds use it."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, dict[str, Any]]] = []

    def bind(self, **_: Any) -> ListLog:
        return self

    def named(self, event: str) -> list[dict[str, Any]]:
        return [values for _, name, values in self.events if name == event]

    def __getattr__(self, level: str) -> Callable[..., None]:
        def log(event: str, **values: Any) -> None:
            self.events.append((level, event, values))

        return log


class LoopbackExchange:
    """What the server was asked, and how it answers. ``behave`` gets each connection with its number, from 0."""

    def __init__(self, behave: Behaviour) -> None:
        self.behave = behave
        self.rest: Callable[[str], Answer | Awaitable[Answer]] = lambda _: (404, {}, b"{}")
        self.refuse: list[Answer] = []
        self.opened = 0
        self.asked: list[str] = []
        self.requests: list[str] = []
        self.handshakes: list[float] = []
        self.server: Server | None = None

    @property
    def port(self) -> int:
        assert self.server is not None
        port: int = self.server.sockets[0].getsockname()[1]
        return port

    @property
    def ws_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}"

    @property
    def rest_url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def process_request(self, _: ServerConnection, request: Request) -> Response | None:
        if request.headers.get("Upgrade", "").lower() == "websocket":
            self.handshakes.append(asyncio.get_running_loop().time())
            return _response(self.refuse.pop(0)) if self.refuse else None
        self.requests.append(request.path)
        answer = self.rest(request.path)
        return _response(answer if isinstance(answer, tuple) else await answer)

    async def handle(self, connection: ServerConnection) -> None:
        number, self.opened = self.opened, self.opened + 1
        try:
            await self.behave(connection, number)
        except ConnectionClosed:
            return


def _response(answer: Answer) -> Response:
    status, headers, body = answer
    fields = Headers({"Content-Length": str(len(body)), "Connection": "close", **headers})
    return Response(status, HTTPStatus(status).phrase, fields, body)


class Words:
    """Frames as Binance words them, and what servers do with them."""

    listings = LISTINGS
    t0_us = T0_MS * 1000

    def trade(self, number: int, *, native: str = "BTCUSDT", ms: int | None = None) -> str:
        time = T0_MS + (number if ms is None else ms)
        body = {
            "e": "aggTrade", "E": time, "s": native, "a": number, "p": "100.5", "q": "0.25", "f": number, "l": number,
            "T": time, "m": True, "M": True,
        }  # fmt: skip
        return json.dumps({"stream": f"{native.lower()}@aggTrade", "data": body})

    def depth(self, first: int, last: int, *, native: str = "BTCUSDT", ms: int | None = None, bid: str = "100") -> str:
        time = T0_MS + (last if ms is None else ms)
        body = {
            "e": "depthUpdate", "E": time, "s": native, "U": first, "u": last, "b": [[bid, f"{last}.0"]], "a": [],
        }  # fmt: skip
        return json.dumps({"stream": f"{native.lower()}@depth@100ms", "data": body})

    def snapshot(self, last: int) -> Answer:
        book = {"lastUpdateId": last, "bids": [["99", "1"], ["98", "1"]], "asks": [["101", "1"], ["102", "1"]]}
        return 200, {"Content-Type": "application/json"}, json.dumps(book).encode()

    async def subscribed(self, connection: ServerConnection) -> list[str]:
        """Wait for the first subscribe frame, accept it, and return the channels."""
        asked = json.loads(await connection.recv())
        await connection.send(json.dumps({"result": None, "id": asked["id"]}))
        channels: list[str] = asked["params"]
        return channels

    async def send_trades(self, connection: ServerConnection, numbers: Sequence[int]) -> None:
        for number in numbers:
            await connection.send(self.trade(number))

    async def end_recording(self, connection: ServerConnection) -> None:
        await connection.close(1000, "end of recording")


class Bench:
    """Servers and feeds for one test."""

    def __init__(self) -> None:
        self.sink = ListSink()
        self.log = ListLog()

    def settings(self, **changes: Any) -> config.Feed:
        quick: dict[str, Any] = {
            "backoff_initial_s": 0.02,
            "backoff_cap_s": 0.2,
            "reorder_grace_s": 0.1,
            "close_timeout_s": 0.5,
            "snapshots_per_s": 1000,
            "overlap_timeout_s": 1.5,
        }
        return config.Feed(**{**quick, **changes})

    @asynccontextmanager
    async def serving(self, behave: Behaviour, **options: Any) -> AsyncIterator[LoopbackExchange]:
        exchange = LoopbackExchange(behave)
        async with serve(
            exchange.handle, "127.0.0.1", 0, process_request=exchange.process_request, close_timeout=0.5, **options
        ) as exchange.server:
            yield exchange

    def feed(
        self,
        server: LoopbackExchange,
        *wanted: str,
        exchange_class: type[Binance] = Loopback,
        settings: dict[str, Any] | None = None,
        **options: Any,
    ) -> Feed:
        """Return a feed of ``stream/symbol`` subscriptions."""
        subscriptions = [Subscription(*one.split("/")) for one in wanted or ("prices/BTC_USDT",)]
        options = {"clock": SystemClock(), "ws_url": server.ws_url, "rest_url": server.rest_url, **options}
        return Feed(
            exchange_class(LISTINGS),
            subscriptions,
            self.sink,
            config=self.settings(**(settings or {})),
            log=self.log,  # type: ignore[arg-type]
            **options,
        )

    @asynccontextmanager
    async def running(self, feed: Feed) -> AsyncIterator[Feed]:
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(feed.run())
            try:
                yield feed
            finally:
                await feed.stop()

    async def until(self, condition: Callable[[], object]) -> None:
        """Return once a condition holds; the test's own bound ends the waiting."""
        while not condition():
            await asyncio.sleep(0.005)


@pytest.fixture
def bench() -> Bench:
    return Bench()


@pytest.fixture
def loopback_exchange() -> type[Binance]:
    return Loopback


@pytest.fixture
def words() -> Words:
    return Words()


@pytest.fixture
def run() -> Callable[[Coroutine[Any, Any, None]], None]:
    """Run a coroutine on the daemon's kind of loop, for 20 seconds at most."""

    async def bounded(scenario: Coroutine[Any, Any, None]) -> None:
        async with asyncio.timeout(20):
            await scenario

    return lambda scenario: uvloop.run(bounded(scenario))


@pytest.fixture
def self_signed(tmp_path: Path) -> ssl.SSLContext:
    """A server's certificate for 127.0.0.1 that nobody else signed."""
    openssl = shutil.which("openssl")
    if openssl is None:
        pytest.skip("openssl makes the certificate, and it is not installed")
    key, certificate = tmp_path / "key.pem", tmp_path / "certificate.pem"
    subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"]
    files = ["-keyout", str(key), "-out", str(certificate)]
    subprocess.run(
        [openssl, "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "1", *subject, *files],
        check=True,
        capture_output=True,
        timeout=30,
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate, key)
    return context
