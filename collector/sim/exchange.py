"""The simulated exchange: Binance's protocol, websocket and REST on one port, with faults on demand.

It is spot's, with the mark prices, the forced orders and the open interest of USD-M futures beside it.

The market goes on whether anyone is connected or not. What is beside the exchange's own protocol:

- ``GET /admin/status``: what was sent, asked and refused, and which faults happened how often;
- ``GET /admin/record?after=N&limit=N``: per connection, in order, which ids of which channel it was sent;
- ``GET /admin/market?symbol=S&from_us=T&to_us=T``: its truth about funding, open interest and forced orders;
- ``GET /admin/trades?symbol=S&from_id=N&limit=N``: the market's truth, whoever was connected;
- ``GET``, ``POST``, ``DELETE /admin/faults``: the armed faults; a new one (its parameters in the query); none any more.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager, suppress
from http import HTTPStatus
from urllib.parse import parse_qsl, unquote, urlsplit

import msgspec
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.exceptions import ConnectionClosed
from websockets.http11 import Request, Response

from collector.clock import Clock, SystemClock
from collector.errors import CollectorError, UsageError
from collector.sim import dialect, wire
from collector.sim.answers import Answers, Reply, Weights
from collector.sim.faults import GARBAGE, Fault, Faults, Sent, fault_from
from collector.sim.market import BUCKET_US, INTERVALS_US, SECOND_US, Instrument, Market, first_raw_id
from collector.sim.record import ChannelRecord, ConnectionRecord
from collector.sim.running import task_group

MAX_STREAMS = 1024
MAX_REQUESTS_PER_S = 5
_BUCKETS_PER_KLINE = 20  # klines are pushed every 2 s
_DEPTH_CHANNELS = (("depth@100ms", 1), ("depth", 10), ("depth@1000ms", 10))
"""Channels of book diffs, with how many buckets of 100 ms one of their messages covers."""
_MAX_PAGE = 10_000
_POLICY_VIOLATION = 1008
_GOING_AWAY = 1001
_PHRASES = {status.value: status.phrase for status in HTTPStatus} | {418: "I'm a teapot"}
_log = logging.getLogger("collector.sim")
_log.setLevel(logging.CRITICAL)  # a broken line is what this server is for


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """What to simulate.

    Args:
        rate: messages (aggregated trades) in a second, over all symbols.
        weight_per_min: the REST weight allowed in a minute.
        gives_trades: REST answers requests for trades; otherwise what a client missed cannot be had.
        ban_s: how long a ban (418) lasts, in seconds.
        connection_life_s: after how long the exchange ends a connection, in seconds; None: never.
        max_backlog_bytes: how much may wait for a client that reads too slowly, before it is dropped.
    """

    symbols: Sequence[str] = ("BTC_USDT", "ETH_USDT")
    seed: int = 1
    rate: float = 50
    faults: Sequence[Fault] = ()
    weight_per_min: int = 6000
    gives_trades: bool = True
    ban_s: float = 120
    connection_life_s: float | None = None
    max_backlog_bytes: int = 256 * 1024 * 1024


class _Client:
    """One websocket connection and what it asked for."""

    def __init__(self, connection: ServerConnection, record: ConnectionRecord, *, combined: bool) -> None:
        self.connection = connection
        self.record = record
        self.number = record.number
        self.combined = combined
        self.channels: dict[str, ChannelRecord] = {}
        """What it has now; the record keeps what it once had, too."""
        self.silent: set[str] = set()
        self.outbox: list[str] = []
        self._requests: deque[float] = deque(maxlen=MAX_REQUESTS_PER_S)

    def too_fast(self, now_s: float) -> bool:
        """Count a request; say whether it is one too many in a second."""
        full = len(self._requests) == MAX_REQUESTS_PER_S
        too_fast = full and now_s - self._requests[0] < 1
        self._requests.append(now_s)
        return too_fast


class SimulatedExchange:
    """The exchange as an object: its market, its clients, and what it answers. Made by ``serve_exchange``."""

    def __init__(self, options: Options, clock: Clock, group: asyncio.TaskGroup) -> None:
        self.market = Market(options.symbols, seed=options.seed, rate=options.rate)
        self.faults = Faults(options.faults)
        self.weights = Weights(options.weight_per_min, ban_s=options.ban_s)
        self.counts: Counter[str] = Counter()
        self.port = 0
        self.published_us = clock.now_us()
        self.began_us = self.published_us
        self._clock = clock
        self._group = group
        self._max_backlog_bytes = options.max_backlog_bytes
        self._connection_life_s = options.connection_life_s
        self._answers = Answers(self.market, gives_trades=options.gives_trades)
        self._stopping = asyncio.Event()
        self._clients: set[_Client] = set()
        self._audience: dict[str, list[_Client]] = {}
        self._klines: dict[str, list[str]] = {}
        self._records: list[ConnectionRecord] = []
        self._next = {
            native: instrument.next_trade(self.published_us) for native, instrument in self.market.by_native.items()
        }
        self._due = {
            native: instrument.time_of(self._next[native]) for native, instrument in self.market.by_native.items()
        }

    @property
    def ws_url(self) -> str:
        """The websocket address."""
        return f"ws://127.0.0.1:{self.port}"

    @property
    def rest_url(self) -> str:
        """The REST address: the same port."""
        return f"http://127.0.0.1:{self.port}"

    # The market's messages

    async def run(self) -> None:
        """Publish what happens in the market, as time goes by, until ``stop``."""
        while not self._stopping.is_set():
            now_us = self._clock.now_us()
            while self.published_us < now_us:
                self.publish(min(now_us, self.published_us + BUCKET_US))
                await asyncio.sleep(0)
            # Few symbols: wake when something is due, so that a slow market's messages come one by one. Many: looking
            # at each of them at every turn costs more than what they send.
            few = len(self._due) <= 20
            wait_us = min(self._due.values(), default=now_us) - now_us if few else 5_000 + 50 * len(self._due)
            wait_us = min(wait_us, BUCKET_US - now_us % BUCKET_US, 50_000)
            await self._pause(max(wait_us, 1_000) / 1e6)

    def stop(self) -> None:
        """End ``run`` and all answers that are slow on purpose."""
        self._stopping.set()

    async def _pause(self, seconds: float) -> None:
        """Wait that long, or until ``stop``."""
        with suppress(TimeoutError):
            async with asyncio.timeout(seconds):
                await self._stopping.wait()

    def publish(self, until_us: int) -> None:
        """Send what happens until a time: trades as they come, books and candles at the end of each 100 ms."""
        while self.published_us < until_us:
            end_of_bucket = (self.published_us // BUCKET_US + 1) * BUCKET_US
            to_us = min(end_of_bucket, until_us)
            for instrument in self.market.by_native.values():
                if self._due[instrument.native] < to_us:
                    self._publish_trades(instrument, to_us)
            self.published_us = to_us
            if to_us == end_of_bucket and self._audience:
                for instrument in self.market.by_native.values():
                    self._publish_bucket(instrument, to_us)
        for client in list(self._clients):
            self._flush(client)

    def _publish_trades(self, instrument: Instrument, to_us: int) -> None:
        native = instrument.native
        first, end = self._next[native], instrument.next_trade(to_us)
        self._next[native], self._due[native] = end, instrument.time_of(end)
        prints = instrument.trades(first, end)
        instrument.fold_live(prints)
        lower = native.lower()
        if f"{lower}@aggTrade" in self._audience:
            self._deliver(f"{lower}@aggTrade", range(first, end), dialect.aggregated_trades(instrument, prints), 1)
        if f"{lower}@trade" in self._audience:
            texts = dialect.raw_trades(instrument, prints)
            first_raw = first_raw_id(first)
            self._deliver(f"{lower}@trade", range(first_raw, first_raw + len(texts)), texts, 1)

    def _publish_bucket(self, instrument: Instrument, time_us: int) -> None:
        """Send the book and the candles as of the end of a bucket."""
        lower = instrument.native.lower()
        bucket = instrument.bucket_at(time_us) - 1
        for name, buckets in _DEPTH_CHANNELS:
            channel = f"{lower}@{name}"
            if channel in self._audience and (bucket + 1) % buckets == 0:
                diff = instrument.diff(bucket - buckets, bucket)
                text = dialect.depth_update(instrument, diff, time_us)
                self._deliver(channel, [diff.last_id], [text], diff.last_id - diff.first_id + 1)
        if f"{lower}@bookTicker" in self._audience:
            book = instrument.book(bucket)
            span = book.last_id - instrument.last_update_id(bucket - 1)
            self._deliver(f"{lower}@bookTicker", [book.last_id], [dialect.book_ticker(instrument, book)], span)
        if time_us % SECOND_US == 0 and f"{lower}@markPrice@1s" in self._audience:
            text = dialect.mark_price(instrument, instrument.mark(time_us), time_us)
            self._deliver(f"{lower}@markPrice@1s", [time_us // SECOND_US], [text], 1)
        if f"{lower}@forceOrder" in self._audience and (forced := instrument.forced(bucket)) is not None:
            self._deliver(f"{lower}@forceOrder", [bucket], [dialect.forced_order(instrument, forced)], 1)
        for interval in self._klines.get(lower, ()):
            self._publish_kline(instrument, interval, time_us)

    def _publish_kline(self, instrument: Instrument, interval: str, time_us: int) -> None:
        length = INTERVALS_US[interval]
        closes = time_us % length == 0
        if not closes and time_us // BUCKET_US % _BUCKETS_PER_KLINE:
            return
        start = (time_us - 1) // length * length
        fold = instrument.candle(start, length, time_us)
        if fold is not None:
            text = dialect.kline(instrument, interval, (start, start + length), fold, time_us)
            self._deliver(f"{instrument.native.lower()}@kline_{interval}", [time_us], [text], 0)

    def _deliver(self, channel: str, ids: Sequence[int], texts: list[str], span: int) -> None:
        """Put messages into the outboxes of all who asked; ``span`` is how many ids up to its own each carries."""
        self.counts["messages"] += len(texts)
        shared: dict[bool, str] = {}
        for client in tuple(self._audience.get(channel, ())):  # a fault may send one of them away
            if channel in client.silent:
                continue
            if not self.faults.quiet:
                self._deliver_with_faults(client, channel, ids, texts, span)
                continue
            frames = shared.get(client.combined)
            if frames is None:
                frames = shared[client.combined] = _frames(channel, texts, combined=client.combined)
            client.outbox.append(frames)
            record = client.channels[channel]
            record.messages += len(texts)
            if span:
                record.ids.add(ids[0] - span + 1, ids[-1])

    def _deliver_with_faults(
        self, client: _Client, channel: str, ids: Sequence[int], texts: list[str], span: int
    ) -> None:
        messages = [Sent(number, text) for number, text in zip(ids, texts, strict=True)]
        outcome = self.faults.on_messages(client.number, channel, messages, self._clock.monotonic_s())
        client.outbox.append(_frames(channel, [sent.text for sent in outcome.out], combined=client.combined))
        record = client.channels[channel]
        record.messages += len(outcome.out)
        if span:
            for sent in outcome.out:
                if sent.id != GARBAGE:
                    record.ids.add(sent.id - span + 1, sent.id)
            for kind, number in outcome.withheld:
                record.withheld[kind].add(number - span + 1, number)
            for number in outcome.repeated:
                record.repeated.add(number - span + 1, number)
        if outcome.deaf:
            client.silent.add(channel)
        if outcome.ending is not None:
            self._end(client, outcome.ending)

    def _end(self, client: _Client, fault: Fault) -> None:
        """End a connection as a fault wants it."""
        client.record.ending = client.record.ending or fault.kind
        if fault.kind == "shutdown":
            client.outbox.append(_frames("", [dialect.shutdown_notice(self.published_us)], combined=False))
            self._group.create_task(self._close_later(client, fault.seconds))
            return
        self._flush(client)
        self._forget(client)
        if fault.kind == "drop":
            wire.abort(client.connection)
        else:
            code = fault.status if fault.status >= 1000 else _GOING_AWAY
            self._group.create_task(client.connection.close(code, "closed on purpose"))

    async def _end_life(self, client: _Client, seconds: float) -> None:
        """End a connection that has reached its age, as Binance does after 24 hours."""
        await self._pause(seconds)
        if client in self._clients and not self._stopping.is_set():
            client.record.ending = client.record.ending or "age"
            self._flush(client)
            self._forget(client)
            await client.connection.close(_GOING_AWAY, "the connection is too old")

    async def _close_later(self, client: _Client, seconds: float) -> None:
        await self._pause(seconds)
        self._forget(client)
        await client.connection.close(_GOING_AWAY, "the server is shutting down")

    def _flush(self, client: _Client) -> None:
        if not client.outbox:
            return
        wire.write(client.connection, "".join(client.outbox).encode("latin-1"))
        client.outbox.clear()
        if wire.backlog(client.connection) > self._max_backlog_bytes:
            self.counts["slow_clients_dropped"] += 1
            client.record.ending = "too slow"
            self._forget(client)
            wire.abort(client.connection)

    # Clients

    async def connected(self, connection: ServerConnection) -> None:
        """Serve one websocket until it ends."""
        path = connection.request.path if connection.request else "/"
        record = ConnectionRecord(len(self._records) + 1, path, self._clock.now_us())
        self._records.append(record)
        client = _Client(connection, record, combined=urlsplit(path).path.startswith("/stream"))
        self._clients.add(client)
        self.counts["connections"] += 1
        self._subscribe(client, _streams_of(path))
        if self._connection_life_s is not None:
            self._group.create_task(self._end_life(client, self._connection_life_s))
        try:
            async for message in connection:
                await self._requested(client, message)
        except ConnectionClosed:
            pass  # how it ended is in the record
        finally:
            self._forget(client)
            record.closed_us = self._clock.now_us()

    async def _requested(self, client: _Client, message: str | bytes) -> None:
        """Answer a request that came over the websocket."""
        self.counts["requests"] += 1
        if client.too_fast(self._clock.monotonic_s()):
            client.record.ending = "too many requests"
            await client.connection.close(_POLICY_VIOLATION, "Too many requests")
            return
        answer = self._answer_to(client, message)
        if len(client.channels) > MAX_STREAMS:
            await client.connection.close(_POLICY_VIOLATION, "Too many streams")
        elif wire.is_open(client.connection):
            await client.connection.send(msgspec.json.encode(answer), text=True)

    def _answer_to(self, client: _Client, message: str | bytes) -> object:
        try:
            request = msgspec.json.decode(message, type=_WebsocketRequest)
        except (msgspec.DecodeError, UnicodeError, RecursionError) as error:
            return {"error": {"code": 3, "msg": f"Invalid JSON: {error}"}, "id": None}
        if request.method == "LIST_SUBSCRIPTIONS":
            return {"result": list(client.channels), "id": request.id}
        if request.method == "SUBSCRIBE":
            if not self._subscribe(client, request.params):
                return {"error": {"code": 2, "msg": "Invalid request: refused on purpose"}, "id": request.id}
        elif request.method == "UNSUBSCRIBE":
            self._unsubscribe(client, request.params)
        else:
            known = "`SUBSCRIBE`, `UNSUBSCRIBE`, `LIST_SUBSCRIPTIONS`"
            text = f"Invalid request: unknown variant `{request.method}`, expected one of {known}"
            return {"error": {"code": 2, "msg": text}, "id": request.id}
        return {"result": None, "id": request.id}

    def _subscribe(self, client: _Client, channels: Sequence[str]) -> bool:
        """Let a client have channels; an unknown one is taken and stays silent, as with the real exchange."""
        verdicts = {channel: self.faults.on_subscription(client.number, channel) for channel in channels}
        if "reject" in verdicts.values():
            return False
        for channel, verdict in verdicts.items():
            if verdict == "silent":
                client.silent.add(channel)
            if channel not in client.channels:
                client.channels[channel] = client.record.channels.setdefault(channel, ChannelRecord())
                self._audience.setdefault(channel, []).append(client)
        self._index_klines()
        return True

    def _unsubscribe(self, client: _Client, channels: Sequence[str]) -> None:
        for channel in channels:
            client.channels.pop(channel, None)
            client.silent.discard(channel)
            audience = self._audience.get(channel, [])
            if client in audience:
                audience.remove(client)
            if not audience:
                self._audience.pop(channel, None)
        self._index_klines()

    def _forget(self, client: _Client) -> None:
        self._clients.discard(client)
        self._unsubscribe(client, list(client.channels))

    def _index_klines(self) -> None:
        self._klines = {}
        for channel in self._audience:
            native, _, interval = channel.partition("@kline_")
            if interval in INTERVALS_US:
                self._klines.setdefault(native, []).append(interval)

    # REST

    async def requested(self, connection: ServerConnection, request: Request) -> Response | None:
        """Answer an HTTP request; None lets a websocket be opened."""
        parts = urlsplit(request.path)
        params = dict(parse_qsl(parts.query, keep_blank_values=True))
        if parts.path.startswith("/admin/"):
            return _response(self._administer(request.method, parts.path, params))
        if parts.path.startswith("/api/"):
            return _response(*await self._rest(parts.path, params))
        if parts.path in ("/", "/ws", "/stream") or parts.path.startswith("/ws/"):
            fault = self.faults.on_opening()
            return _response(Reply(max(400, min(fault.status, 599)), b"")) if fault else None
        return connection.respond(HTTPStatus.NOT_FOUND, "There is nothing here.\n")

    async def _rest(self, path: str, params: Mapping[str, str]) -> tuple[Reply, int]:
        self.counts["rest_requests"] += 1
        now_s = self._clock.now_us() / 1e6
        fault = self.faults.on_request(path)
        if fault is not None and fault.kind in ("limit", "ban"):
            self.weights.send_away(429 if fault.kind == "limit" else 418, now_s + fault.seconds)
        reply = self.weights.charge(self._answers.weight(path, params), now_s)
        if reply is None and fault is not None and fault.kind == "fail":
            reply = Reply(min(fault.status, 599), dialect.error(-1000, "An unknown error occurred."))
        if reply is None:
            reply = await self._answers.answer(path, params, self.published_us, fault)
        if fault is not None and fault.kind == "slow":
            await self._pause(fault.seconds)
        self.counts[f"rest_{reply.status}"] += 1
        return reply, self.weights.used

    # Beside the protocol

    def _administer(self, method: str, path: str, params: Mapping[str, str]) -> Reply:
        try:
            if path == "/admin/faults":
                return self._administer_faults(method, params)
            if path == "/admin/status":
                return _document(self.status())
            if path == "/admin/record":
                return _document(self._record(int(params.get("after", "0")), int(params.get("limit", "100"))))
            if path == "/admin/trades":
                return _document(self._truth(params))
            if path == "/admin/market":
                return _document(self._market_truth(params))
        except (CollectorError, ValueError, KeyError) as error:
            return Reply(400, msgspec.json.encode({"error": str(error)}))
        return Reply(404, b'{"error":"There is no such page."}')

    def _administer_faults(self, method: str, params: Mapping[str, str]) -> Reply:
        if method == "POST":
            self.faults.add(fault_from(dict(params)))
        elif method == "DELETE":
            self.faults.clear()
        elif method != "GET":
            raise UsageError(f"{method} does nothing here.")
        return _document({"armed": self.faults.armed(), "fired": self.faults.fired})

    def status(self) -> dict[str, object]:
        """Return what happened so far."""
        return {
            "exchange": "sim",
            "seed": self.market.seed,
            "rate": self.market.rate,
            "symbols": [instrument.symbol for instrument in self.market.by_native.values()],
            "began_us": self.began_us,
            "published_us": self.published_us,
            "clients": len(self._clients),
            "counts": self.counts,
            "weight_used": self.weights.used,
            "refused": self.weights.refused,
            "faults_fired": self.faults.fired,
        }

    def _record(self, after: int, limit: int) -> dict[str, object]:
        page = self._records[after : after + max(1, min(limit, _MAX_PAGE))]
        more = after + len(page) < len(self._records)
        return {"connections": [record.described() for record in page], "next": after + len(page) if more else None}

    def _truth(self, params: Mapping[str, str]) -> dict[str, object]:
        """Return what was traded: rows of id, price, size, first and last raw id, time in ms, buyer was maker."""
        instrument = self.market.by_native[params["symbol"].replace("_", "")]
        first = int(params["from_id"]) if "from_id" in params else instrument.next_trade(self.began_us)
        end = self._next[instrument.native]
        page_end = min(end, first + max(1, min(int(params.get("limit", "1000")), _MAX_PAGE)))
        rows = [
            list(dialect.trade_row(instrument, trade).values())[:-1] for trade in instrument.trades(first, page_end)
        ]
        return {"trades": rows, "next": page_end if page_end < end else None}

    def _market_truth(self, params: Mapping[str, str]) -> dict[str, object]:
        """Return what happened from one time to before another, beside trades and books, as the dialect writes it.

        Rows are of: time in ms, mark price, index price, rate and next funding; time, price, size and side of forced
        orders; time and amount of open interest.
        """
        instrument = self.market.by_native[params["symbol"].replace("_", "")]
        from_us = int(params["from_us"])
        to_us = min(int(params["to_us"]), self.published_us, from_us + _MAX_PAGE * BUCKET_US)
        price, size = instrument.price_text, instrument.lot_text
        seconds = range(-(-from_us // SECOND_US) * SECOND_US, to_us, SECOND_US)
        buckets = range(instrument.bucket_at(from_us - 1), instrument.bucket_at(to_us - 1))
        marks = [instrument.mark(time_us) for time_us in seconds]
        forced = [found for bucket in buckets if (found := instrument.forced(bucket)) is not None]
        return {
            "funding": [
                [
                    m.time_us // 1000,
                    price(m.mark_ticks),
                    price(m.index_ticks),
                    dialect.rate_text(m.rate),
                    m.next_us // 1000,
                ]
                for m in marks
            ],
            "liquidations": [
                [f.time_us // 1000, price(f.ticks), size(f.lots), "sell" if f.sold else "buy"] for f in forced
            ],
            "open_interest": [[at_us // 1000, size(instrument.open_interest(at_us))] for at_us in seconds],
        }


class _WebsocketRequest(msgspec.Struct):
    method: str
    params: list[str] = []
    id: int | str | None = None


@asynccontextmanager
async def serve_exchange(
    options: Options | None = None, *, host: str = "127.0.0.1", port: int = 0, clock: Clock | None = None
) -> AsyncIterator[SimulatedExchange]:
    """Serve the simulated exchange for as long as the block lasts; port 0 lets the system choose one.

    Raises:
        UsageError: the address cannot be listened on.
    """
    async with task_group() as group:
        exchange = SimulatedExchange(options or Options(), clock or SystemClock(), group)
        try:
            server = await serve(
                exchange.connected,
                host,
                port,
                process_request=exchange.requested,
                compression=None,
                open_timeout=None,  # a slow answer is slow on purpose
                ping_interval=20,
                ping_timeout=60,
                close_timeout=1,
                max_size=1024 * 1024,
                logger=_log,
                server_header=None,
            )
        except OSError as error:
            raise UsageError(
                f"The simulated exchange cannot listen on {host}:{port}: {error}.", hint="Choose another with --port."
            ) from error
        exchange.port = server.sockets[0].getsockname()[1]
        group.create_task(exchange.run())
        try:
            yield exchange
        finally:
            exchange.stop()
            server.close()
            await server.wait_closed()


def _frames(channel: str, texts: Sequence[str], *, combined: bool) -> str:
    """Return messages as frames, one character a byte."""
    header = wire.text_header
    if combined:
        start = f'{{"stream":"{channel}","data":'
        extra = len(start) + 1
        return "".join([f"{header(len(text) + extra)}{start}{text}}}" for text in texts])
    return "".join([header(len(text)) + text for text in texts])


def _streams_of(path: str) -> list[str]:
    """Return the channels that an address asks for."""
    parts = urlsplit(unquote(path))
    if parts.path.startswith("/ws/"):
        return [name for name in parts.path[4:].split("/") if name]
    return [name for name in dict(parse_qsl(parts.query)).get("streams", "").split("/") if name]


def _document(content: object) -> Reply:
    return Reply(200, msgspec.json.encode(content))


def _response(reply: Reply, weight_used: int | None = None) -> Response:
    headers = Headers(
        {
            "Content-Type": "application/json;charset=UTF-8",
            "Content-Length": str(len(reply.body)),
            "Connection": "close",
        }
    )
    if weight_used is not None:
        headers["X-MBX-USED-WEIGHT-1M"] = str(weight_used)
    if reply.retry_after_s is not None:
        headers["Retry-After"] = str(int(reply.retry_after_s))
    return Response(reply.status, _PHRASES.get(reply.status, "Unknown"), headers, reply.body)
