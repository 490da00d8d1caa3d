"""The replay server: recorded messages again, through real websockets on loopback.

A client gets the frames of the channels it asked for, in their order and no faster than it reads them; requests of
REST are answered from the recording, in step: the frames after a recorded answer wait until it was asked for, two
seconds at most. Where the recording was disconnected, the clients concerned are, and what comes after waits for them.

``GET /admin/status`` tells how far it is; ``POST /admin/start`` begins without waiting for more subscriptions.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterable, Sequence
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from pathlib import Path
from urllib.parse import urlsplit

import msgspec
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from collector.clock import Clock, SystemClock
from collector.errors import MessageError, UnknownName, UsageError
from collector.events import ServerNotice
from collector.exchanges.base import Exchange, Listing, Subscription
from collector.exchanges.registry import create_exchange
from collector.feeds.recording import Line, read_recording
from collector.sim import dialect, wire
from collector.sim.running import task_group
from collector.sim.script import RecordedAnswer, Script, look_through, path_of, request_key
from collector.streams import DATA_TYPES

END_OF_RECORDING = "end of recording"
"""With close code 1000: nothing more will come."""


_NORMAL = 1000
_GOING_AWAY = 1001
_CHUNK_BYTES = 64 * 1024
_LINES_PER_TURN = 512
_log = logging.getLogger("collector.sim")
_log.setLevel(logging.CRITICAL)  # a broken line is what this server is for


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What to replay, and how.

    Args:
        symbols: ``BASE_QUOTE``, the ones that a client may collect.
        speed: times the recorded speed; None is as fast as the client reads.
        data_types: what the client will subscribe to (``prices``, ``orderbook``, ``klines``, …), so that the replay can
            begin when it has; None where nobody knows: then it begins ``settle_s`` after the last subscription.
        raw_trades: whether its ``prices`` are the raw trades.
        settle_s: how long no further subscription has come before it begins, in seconds.
        again: begin from the first frame again once all clients have gone.
        answer_wait_s: how long the frames after a recorded answer wait until it is asked for, in seconds.
        return_wait_s: how long frames wait for a client that was lost, while others are there, in seconds.
    """

    path: Path
    exchange: str
    symbols: Sequence[str]
    speed: float | None = 1.0
    data_types: Sequence[str] | None = None
    raw_trades: bool = False
    settle_s: float = 1.0
    again: bool = False
    answer_wait_s: float = 2.0
    return_wait_s: float = 30.0


class _Abandoned(Exception):
    """All clients have gone before the end, and the recording is to be played again for the next."""


class _Client:
    """One websocket connection: what it asked for and what waits to be written to it."""

    def __init__(self, connection: ServerConnection, route: str | None) -> None:
        self.connection = connection
        self.route = route
        self.channels: set[str] = set()
        self.chunk: list[bytes] = []

    def hears(self, channel: str | None, path: str | None) -> bool:
        """Say whether a frame of a channel, recorded on a path, is for this client (no channel: for all)."""
        return (self.route is None or self.route == path) and (channel is None or channel in self.channels)

    async def flush(self) -> None:
        """Write what waits, and wait until the client has read nearly all."""
        if self.chunk:
            wire.write(self.connection, b"".join(self.chunk))
            self.chunk.clear()
            if wire.is_open(self.connection):
                with suppress(ConnectionError, ConnectionClosed):
                    await self.connection.drain()


class Replay:
    """One recording being played. Made by ``serve_replay``."""

    def __init__(self, options: Options, exchange: Exchange, script: Script, listing: bytes, clock: Clock) -> None:
        self.options = options
        self.exchange = exchange
        self.script = script
        self.port = 0
        self.state = "waiting"
        self.sent = 0
        self.ended = asyncio.Event()
        self._listing = listing
        self._clock = clock
        self._clients: list[_Client] = []
        self._changed = asyncio.Event()
        self._asked_at_s = clock.monotonic_s()
        self._started = asyncio.Event()
        self._awaited: set[str] = set()
        self._path_of: dict[str, str] = {}
        self._position: tuple[int, int] = (0, 0)
        self._waiting_bytes = 0
        self._audience: dict[tuple[str | None, str | None], list[_Client]] = {}
        self._listing_path = exchange.listing_request().path
        self._snapshot_paths = {exchange.snapshot_request(symbol).path for symbol in options.symbols}
        # A session that replays polls nothing: its rows would depend on the speed.
        polled = [Subscription(name, symbol) for name in exchange.polled_streams for symbol in options.symbols]
        self._polled_paths = {request.path for request in exchange.poll_requests(polled)}
        self._natives = {exchange.native_of[symbol].upper() for symbol in options.symbols}

    @property
    def ws_url(self) -> str:
        """The websocket address."""
        return f"ws://127.0.0.1:{self.port}"

    @property
    def rest_url(self) -> str:
        """The REST address: the same port."""
        return f"http://127.0.0.1:{self.port}"

    # Playing

    async def run(self) -> None:
        """Play the recording once, or for one audience after the other; returns after the end, unless ``again``."""
        while True:
            await self._until_ready()
            self.state = "playing"
            with suppress(_Abandoned):
                await self._play()
                self.state = "ended"
                await self._close(self._clients, _NORMAL, END_OF_RECORDING)
                self.ended.set()
            if not self.options.again:
                return
            await self._until(lambda: not self._clients)
            self._rewind()

    def start(self) -> None:
        """Begin without waiting for further subscriptions."""
        self._started.set()
        self._changed.set()

    def _rewind(self) -> None:
        self.state = "waiting"
        self.sent = 0
        self._position = 0, 0
        self._awaited.clear()
        self._path_of.clear()
        self._started.clear()
        self.script.rewind()

    async def _until_ready(self) -> None:
        """Wait until all is asked for that the client will ask for; where that is unknown, for a while of silence."""
        expected = self._expected()
        # What is expected may never be asked for, by a client of another mind: then silence decides after all.
        settle_s = self.options.settle_s * 10 if expected else self.options.settle_s

        def settled() -> bool:
            return bool(self._asked()) and self._clock.monotonic_s() - self._asked_at_s >= settle_s

        def ready() -> bool:
            return self._started.is_set() or (bool(expected) and expected <= self._asked())

        while not ready() and not settled():
            left_s = self._asked_at_s + settle_s - self._clock.monotonic_s() if self._asked() else None
            await self._until(ready, None if left_s is None else max(left_s, 0.001), or_changed=True)

    def _expected(self) -> set[str]:
        """Return the channels that the collector will ask for, if it is known to be the client."""
        return channels_of(self.exchange, self.subscriptions(), raw_trades=self.options.raw_trades)

    def subscriptions(self) -> list[Subscription]:
        """Return what the collector will subscribe to, if it is known to be the client."""
        types = self.options.data_types or ()
        return [Subscription(stream, symbol) for symbol in self.options.symbols for stream in types]

    @property
    def missing(self) -> list[str]:
        """The channels that the collector will ask for and the recording does not have."""
        return sorted(self._expected().difference(*self.script.channels.values()))

    async def _play(self) -> None:
        began_s = self._clock.monotonic_s()
        began_ns: int | None = None
        for line in read_recording(self.options.path):
            self._position = line.number, line.received_ns
            if not line.number % _LINES_PER_TURN:
                await asyncio.sleep(0)  # frames that nobody asked for must not keep requests waiting
            if began_ns is None:
                began_ns = line.received_ns
            if self.options.speed is not None:
                await self._pace(began_s + (line.received_ns - began_ns) / 1e9 / self.options.speed)
            answer = self.script.answer_at(line.number)
            if answer is not None:
                await self._in_step(answer)
            elif line.kind in ("<", "b"):
                await self._pass_on(line)
            elif line.kind == "+":
                await self._opened(line)
            elif line.kind == "-" and line.number < self.script.last_frame:
                await self._disconnected(line.connection)
        await self._flush()

    async def _pace(self, due_s: float) -> None:
        """Wait for a line's time."""
        left_s = due_s - self._clock.monotonic_s()
        if left_s > 0.001:
            await self._flush()
            await asyncio.sleep(left_s)

    async def _pass_on(self, line: Line) -> None:
        """Give a frame to all who asked for its channel."""
        channel = self.exchange.channel_of(line.payload)
        if channel is None and not self._is_for_all(line.payload):
            return
        if channel in self._awaited:
            await self._flush()
            await self._until_back()
        opcode = wire.BINARY if line.kind == "b" else wire.TEXT
        hearers = self._hearers(channel, self._path_of.get(line.connection))
        for client in hearers:
            client.chunk.append(wire.header(opcode, len(line.payload)))
            client.chunk.append(line.payload)
            self._waiting_bytes += len(line.payload)
        self.sent += bool(hearers)
        if self._waiting_bytes >= _CHUNK_BYTES:
            await self._flush()

    def _hearers(self, channel: str | None, path: str | None) -> list[_Client]:
        found = self._audience.get((channel, path))
        if found is None:
            found = [client for client in self._clients if client.hears(channel, path)]
            self._audience[channel, path] = found
        return found

    def _is_for_all(self, payload: bytes) -> bool:
        """Say whether a frame of no channel is part of the play: what no client can read, and announcements, are.

        Acknowledgements are not: each client gets those of its own requests.
        """
        try:
            events = self.exchange.parse(payload, 0)
        except MessageError:
            return True
        return any(isinstance(event, ServerNotice) for event in events)

    async def _in_step(self, answer: RecordedAnswer) -> None:
        """Hold the frames until an answer was asked for, if a client will ask for it at all."""
        path, symbol = answer.key
        types = self.options.data_types
        unwanted = path in self._polled_paths or (
            types is not None and "orderbook" not in types and path in self._snapshot_paths
        )
        if answer.given or path == self._listing_path or (symbol and symbol not in self._natives) or unwanted:
            return
        await self._flush()
        await self._until(lambda: answer.given, self.options.answer_wait_s)

    async def _opened(self, line: Line) -> None:
        if line.connection in self._path_of:  # the recorder died without a word, and went on later
            await self._disconnected(line.connection)
        self._path_of[line.connection] = path_of(line.payload)

    async def _disconnected(self, connection: str) -> None:
        """End the clients of a connection that was lost, unless another recorded one goes on with its channels."""
        path = self._path_of.pop(connection, None)
        lost = set(self.script.channels.get(connection, ()))
        for other in self._path_of:
            lost -= self.script.channels.get(other, set())
        concerned = [client for client in self._clients if any(client.hears(channel, path) for channel in lost)]
        await self._flush()
        for client in concerned:
            self._awaited |= client.channels
        await self._close(concerned, _GOING_AWAY, "the recording was disconnected here")

    async def _flush(self) -> None:
        self._waiting_bytes = 0
        for client in list(self._clients):
            await client.flush()
        await asyncio.sleep(0)  # nothing before this has to have waited

    # Waiting

    async def _until_back(self) -> None:
        """Wait until channels that were lost are asked for again; where some clients stayed, not for ever."""
        while not self._awaited <= self._asked():
            if await self._until(lambda: self._awaited <= self._asked(), self.options.return_wait_s):
                break
            if self._clients:
                break  # whoever is still there does not want them any more
            if self.options.again:
                raise _Abandoned
        self._awaited.clear()

    async def _until(
        self, done: Callable[[], bool], timeout_s: float | None = None, *, or_changed: bool = False
    ) -> bool:
        """Wait for a condition, looked at whenever a client comes, goes or asks; say whether it came true in time."""
        with suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                while not done():
                    self._changed.clear()
                    await self._changed.wait()
                    if or_changed:
                        break
        return done()

    def _asked(self) -> set[str]:
        return set().union(*(client.channels for client in self._clients))

    # Clients

    async def connected(self, connection: ServerConnection) -> None:
        """Serve one websocket until it ends."""
        path = connection.request.path if connection.request else "/"
        route = path_of(path)
        client = _Client(connection, route if route in self.script.paths else None)
        if self.state == "ended":
            await connection.close(_NORMAL, END_OF_RECORDING)
            return
        self._clients.append(client)
        self._ask(client, self.exchange.channels_asked(path, None))
        try:
            async for message in connection:
                await self._requested(client, path, message)
        except ConnectionClosed:
            pass  # clients may go as they like
        finally:
            self._gone(client)

    async def _requested(self, client: _Client, path: str, message: str | bytes) -> None:
        frame = message if isinstance(message, str) else message.decode(errors="replace")
        acknowledgement = self.exchange.acknowledgement(frame)
        if acknowledgement is not None:
            await client.connection.send(acknowledgement)
        self._ask(client, self.exchange.channels_asked(path, frame))

    def _ask(self, client: _Client, channels: Iterable[str]) -> None:
        client.channels.update(channels)
        self._asked_at_s = self._clock.monotonic_s()
        self._audience.clear()
        self._changed.set()

    def _gone(self, client: _Client) -> None:
        """Forget a client; if it went by itself, what it asked for waits until someone asks again."""
        if client in self._clients:
            self._clients.remove(client)
            if self.state == "playing":
                self._awaited |= client.channels
        self._audience.clear()
        self._changed.set()

    async def _close(self, clients: Iterable[_Client], code: int, reason: str) -> None:
        """End connections after all that was written to them, side by side."""
        leaving = list(clients)
        self._clients = [client for client in self._clients if client not in leaving]
        self._audience.clear()
        async with asyncio.TaskGroup() as group:
            for client in leaving:
                group.create_task(client.connection.close(code, reason))
        self._changed.set()

    # REST

    async def requested(self, _: ServerConnection, request: Request) -> Response | None:
        """Answer an HTTP request; None lets a websocket be opened."""
        if request.headers.get("Upgrade", "").lower() == "websocket":
            return None
        path = urlsplit(request.path).path
        if path == "/admin/status":
            return _response(200, msgspec.json.encode(self.status()))
        if path == "/admin/start" and request.method == "POST":
            self.start()
            return _response(200, msgspec.json.encode(self.status()))
        if path == self._listing_path:
            return _response(200, self._listing)
        answer = self.script.give(request_key(request.path), *self._position)
        if answer is None:
            return _response(404, dialect.error(-1, "The recording holds no answer to this request."))
        self._changed.set()
        return _response(answer.status, answer.body)

    def status(self) -> dict[str, object]:
        """Return how far the replay is."""
        return {
            "exchange": self.exchange.name,
            "recording": self.options.path.name,
            "state": self.state,
            "line": self._position[0],
            "frames": self.script.frames,
            "sent": self.sent,
            "clients": len(self._clients),
            "waiting_for": sorted(self._awaited)[:20],
        }


def parse_speed(text: str) -> float | None:
    """Read a speed: ``real``, ``max`` (None) or a factor such as ``10x``; raise UsageError where it is none."""
    if text in ("real", "max"):
        return 1.0 if text == "real" else None
    with suppress(ValueError):
        factor = float(text.removesuffix("x"))
        if 0 < factor < 1e9:
            return factor
    raise UsageError(f"{text!r} is no speed.", hint="Say real, max, or a factor such as 10x.")


@asynccontextmanager
async def serve_replay(
    options: Options, *, host: str = "127.0.0.1", port: int = 0, clock: Clock | None = None
) -> AsyncIterator[Replay]:
    """Serve a recording for as long as the block lasts; port 0 lets the system choose one.

    Raises:
        RecordingError: the recording cannot be read.
        UsageError: the address cannot be listened on, or there is no such exchange or symbol.
    """
    exchange, script, listing = _prepare(options)
    for symbol in options.symbols:
        _require_frames(script, exchange, symbol, options.path)
    replay = Replay(options, exchange, script, listing, clock or SystemClock())
    async with task_group() as group:
        try:
            server = await serve(
                replay.connected,
                host,
                port,
                process_request=replay.requested,
                compression=None,
                ping_interval=None,  # a client that is busy with what it was sent is not dead
                create_connection=wire.AnyRequest,
                close_timeout=60,  # all that was sent is to be read before the end
                max_size=1024 * 1024,
                logger=_log,
                server_header=None,
            )
        except OSError as error:
            raise UsageError(
                f"The replay server cannot listen on {host}:{port}: {error}.", hint="Choose another with --port."
            ) from error
        replay.port = server.sockets[0].getsockname()[1]
        playing = group.create_task(replay.run())
        try:
            yield replay
        finally:
            playing.cancel()
            server.close()
            await server.wait_closed()


def _prepare(options: Options) -> tuple[Exchange, Script, bytes]:
    """Make the exchange's dialect for the symbols, and its list of instruments: as recorded if that has them all."""
    plain = create_exchange(options.exchange)
    made = plain.write_listing(options.symbols) or dialect.exchange_info(options.symbols, 0)
    made_listings = _listings(plain, made, options.symbols)
    exchange = create_exchange(options.exchange, made_listings or ())
    script = look_through(options.path, exchange, options.symbols if made_listings else ())
    recorded = script.first_answer(plain.listing_request().path)
    recorded_listings = _listings(plain, recorded, options.symbols)
    if recorded is not None and recorded_listings is not None:
        return create_exchange(options.exchange, recorded_listings), script, recorded
    if made_listings is None:
        known = [listing.symbol for listing in plain.parse_listing(recorded)] if recorded else []
        raise UnknownName("symbol", ",".join(options.symbols), known, hint="A symbol is BASE_QUOTE, such as BTC_USDT.")
    return exchange, script, made


def _require_frames(script: Script, exchange: Exchange, symbol: str, path: Path) -> None:
    """Raise UsageError where a recording has nothing of a symbol: a session of it would be empty without a reason."""
    recorded = set().union(*script.channels.values())
    channels: set[str] = set()
    for raw_trades in (False, True):
        subscriptions = [Subscription(stream, symbol) for stream in DATA_TYPES]
        channels |= channels_of(exchange, subscriptions, raw_trades=raw_trades)
    if not channels & recorded:
        raise UsageError(
            f"The recording {path.name} holds nothing of {symbol}.",
            hint=f"It has {', '.join(sorted(recorded)[:8]) or 'no frames'}.",
        )


def channels_of(exchange: Exchange, subscriptions: Sequence[Subscription], *, raw_trades: bool) -> set[str]:
    """Return the channels that the collector asks for when it has these subscriptions."""
    channels: set[str] = set()
    had = [
        subscription
        for subscription in subscriptions
        if subscription.stream in exchange.offers(exchange.listing_of[subscription.symbol])
        and subscription.stream not in exchange.polled_streams
    ]
    for plan in exchange.plan(had, raw_trades=raw_trades):
        channels.update(exchange.channels_asked(plan.path, None))
        for frame in plan.frames:
            channels.update(exchange.channels_asked(plan.path, frame))
    return channels


def _listings(exchange: Exchange, body: bytes | None, symbols: Sequence[str]) -> list[Listing] | None:
    """Return the instruments of the symbols, or None where one is missing."""
    if body is None:
        return None
    try:
        by_symbol = {listing.symbol: listing for listing in exchange.parse_listing(body)}
    except MessageError:
        return None
    return [by_symbol[symbol] for symbol in symbols] if all(symbol in by_symbol for symbol in symbols) else None


def _response(status: int, body: bytes) -> Response:
    headers = Headers(
        {"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"},
    )
    phrase = HTTPStatus(status).phrase if status in list(HTTPStatus) else "Unknown"
    return Response(status, phrase, headers, body)
