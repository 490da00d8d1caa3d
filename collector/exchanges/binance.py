"""Binance spot, and what its futures share with it: the words of the websocket and of REST.

Sources: the exchange's pages "WebSocket Streams" and "REST API: market data", and recordings of the real exchange.
Prices and sizes are passed on as the exchange wrote them, once they are known to be plain decimal digits.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from decimal import Decimal
from typing import Annotated, Any, Literal, TypeVar, final
from urllib.parse import unquote

import msgspec
from msgspec import UNSET, UnsetType, field

from collector.errors import MessageError, UnknownName
from collector.events import (
    Acknowledged,
    BookDelta,
    BookSnapshot,
    Event,
    Funding,
    Kline,
    Level,
    Liquidation,
    OffBookPrint,
    OpenInterest,
    Rejected,
    ServerNotice,
    Side,
    Ticker,
    Trade,
)
from collector.exchanges.base import (
    BookRule,
    ConnectionPlan,
    Exchange,
    Limits,
    Listing,
    Request,
    Subscription,
)
from collector.exchanges.decode import require_levels, require_signed, require_stream, volume

Natural = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""An id or a time: it fits a LONG column."""

OFF_BOOK = frozenset({"INSURANCE_FUND", "ADL", "NA"})
"""Order types (``X``) of prints that no order of the book took part in; futures only."""

STREAMS = ("prices", "orderbook", "klines", "tickers")
_SUFFIXES = {
    "orderbook": "depth@100ms",
    "klines": "kline_1m",
    "tickers": "bookTicker",
    "funding": "markPrice@1s",
    "liquidations": "forceOrder",
}
_SIDES: dict[str, Side] = {"BUY": "buy", "SELL": "sell"}

_DIGITS = "0123456789"
_DECIMAL = re.compile(r"[0-9]+(?:\.[0-9]+)?").fullmatch
_MICROSECONDS_FROM = 10**14
"""A time from this on is in microseconds already (``timeUnit=MICROSECOND``); in milliseconds it is the year 5138."""


@final
class _AggTrade(msgspec.Struct, tag_field="e", tag="aggTrade", gc=False):
    native: str = field(name="s")
    price: str = field(name="p")
    volume: str = field(name="q")
    trade_id: Natural = field(name="a")
    first_raw_id: Natural = field(name="f")
    last_raw_id: Natural = field(name="l")
    time: Natural = field(name="T")
    buyer_is_maker: bool = field(name="m")


@final
class _RawTrade(msgspec.Struct, tag_field="e", tag="trade", gc=False):
    native: str = field(name="s")
    price: str = field(name="p")
    volume: str = field(name="q")
    trade_id: Natural = field(name="t")
    time: Natural = field(name="T")
    buyer_is_maker: bool = field(name="m")
    order_type: str = field(name="X", default="")


@final
class _Depth(msgspec.Struct, tag_field="e", tag="depthUpdate", gc=False):
    native: str = field(name="s")
    event_time: Natural = field(name="E")
    first_id: Natural = field(name="U")
    last_id: Natural = field(name="u")
    bids: list[Level] = field(name="b")
    asks: list[Level] = field(name="a")
    previous_id: Natural | None = field(name="pu", default=None)
    transaction_time: Natural = field(name="T", default=0)


class _Candle(msgspec.Struct, gc=False):
    start: Natural = field(name="t")
    interval: str = field(name="i")
    open: str = field(name="o")
    high: str = field(name="h")
    low: str = field(name="l")
    close: str = field(name="c")
    volume: str = field(name="v")
    quote_volume: str = field(name="q")
    trades_count: Natural = field(name="n")
    taker_buy_volume: str = field(name="V")
    closed: bool = field(name="x")


@final
class _Kline(msgspec.Struct, tag_field="e", tag="kline", gc=False):
    native: str = field(name="s")
    event_time: Natural = field(name="E")
    candle: _Candle = field(name="k")


@final
class _BookTicker(msgspec.Struct, tag_field="e", tag="bookTicker", gc=False):
    native: str = field(name="s")
    update_id: Natural = field(name="u")
    bid: str = field(name="b")
    bid_qty: str = field(name="B")
    ask: str = field(name="a")
    ask_qty: str = field(name="A")
    event_time: Natural = field(name="E", default=0)
    transaction_time: Natural = field(name="T", default=0)


@final
class _SpotTicker(msgspec.Struct, gc=False):
    """Spot's ``bookTicker``, which says neither what it is nor when it was."""

    native: str = field(name="s")
    update_id: Natural = field(name="u")
    bid: str = field(name="b")
    bid_qty: str = field(name="B")
    ask: str = field(name="a")
    ask_qty: str = field(name="A")
    event_time: Natural = field(name="E", default=0)
    transaction_time: Natural = field(name="T", default=0)


class _SpotTickerFrame(msgspec.Struct, gc=False):
    data: _SpotTicker


@final
class _MarkPrice(msgspec.Struct, tag_field="e", tag="markPriceUpdate", gc=False):
    native: str = field(name="s")
    event_time: Natural = field(name="E")
    mark_price: str = field(name="p")
    rate: str = field(name="r", default="")
    next_funding: Natural = field(name="T", default=0)
    index_price: str = field(name="i", default="")


class _ForcedOrder(msgspec.Struct, gc=False):
    native: str = field(name="s")
    side: Literal["BUY", "SELL"] = field(name="S")
    price: str = field(name="p")
    quantity: str = field(name="q")
    filled: str = field(name="z")
    time: Natural = field(name="T")


@final
class _Forced(msgspec.Struct, tag_field="e", tag="forceOrder", gc=False):
    order: _ForcedOrder = field(name="o")

    @property
    def native(self) -> str:
        return self.order.native


@final
class _Shutdown(msgspec.Struct, tag_field="e", tag="serverShutdown", gc=False):
    native: str = field(name="s", default="")
    event_time: Natural = field(name="E", default=0)


class _Error(msgspec.Struct, gc=False):
    code: int = 0
    msg: str = ""


_Body = _AggTrade | _RawTrade | _Depth | _Kline | _BookTicker | _MarkPrice | _Forced | _Shutdown
_KNOWN = frozenset(
    {"aggTrade", "trade", "depthUpdate", "kline", "bookTicker", "markPriceUpdate", "forceOrder", "serverShutdown"}
)


class _Frame(msgspec.Struct, gc=False):
    """A combined frame (``data``), an answer to a request (the rest), or a bare event (``event_name``)."""

    data: _Body | UnsetType = UNSET
    event_name: str = field(name="e", default="")
    event: _Body | UnsetType = UNSET
    result: msgspec.Raw | UnsetType = UNSET
    error: _Error | None = None
    id: int | str | None = None
    code: int | None = None
    msg: str = ""


class _Envelope(msgspec.Struct, gc=False):
    """What tells the channel of a frame: the combined stream's name, else the event's own words."""

    stream: str = ""
    event_name: str = field(name="e", default="")
    native: str = field(name="s", default="")
    last_id: int | None = field(name="u", default=None)
    candle: _Candle | None = field(name="k", default=None)
    order: _ForcedOrder | None = field(name="o", default=None)


class _ClientFrame(msgspec.Struct, gc=False):
    method: str
    params: list[Any] = []
    id: int | str | None = None


class _Listed(msgspec.Struct, gc=False):
    symbol: str
    base: str = field(name="baseAsset")
    quote: str = field(name="quoteAsset")
    spot_status: str = field(name="status", default="")
    contract_status: str = field(name="contractStatus", default="")
    contract_size: Natural | None = field(name="contractSize", default=None)

    @property
    def status(self) -> str:
        return self.spot_status or self.contract_status


class _ExchangeInfo(msgspec.Struct, gc=False):
    symbols: list[_Listed]


class _DepthAnswer(msgspec.Struct, gc=False):
    last_id: Natural = field(name="lastUpdateId")
    bids: list[Level]
    asks: list[Level]
    transaction_time: Natural = field(name="T", default=0)


class _TradeAnswer(msgspec.Struct, gc=False):
    price: str = field(name="p")
    volume: str = field(name="q")
    trade_id: Natural = field(name="a")
    first_raw_id: Natural = field(name="f")
    last_raw_id: Natural = field(name="l")
    time: Natural = field(name="T")
    buyer_is_maker: bool = field(name="m")


class _OpenInterestAnswer(msgspec.Struct, gc=False):
    native: str = field(name="symbol")
    amount: str = field(name="openInterest")
    time: Natural


_decode_spot_ticker = msgspec.json.Decoder(_SpotTickerFrame).decode
_decode_bare_ticker = msgspec.json.Decoder(_SpotTicker).decode
_OPEN_INTEREST = msgspec.json.Decoder(_OpenInterestAnswer)
_decode_frame = msgspec.json.Decoder(_Frame).decode
_decode_body = msgspec.json.Decoder(_Body).decode
_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_client_frame = msgspec.json.Decoder(_ClientFrame).decode
_LISTING = msgspec.json.Decoder(_ExchangeInfo)
_DEPTH = msgspec.json.Decoder(_DepthAnswer)
_TRADES = msgspec.json.Decoder(list[_TradeAnswer])
_ERROR = msgspec.json.Decoder(_Error)

T = TypeVar("T")

_UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)
"""What decoding of arbitrary bytes or text can raise."""


class _Volume(msgspec.Struct, gc=False):
    symbol: str
    quote_volume: str = field(name="quoteVolume", default="")
    coins: str = field(name="baseVolume", default="")
    average: str = field(name="weightedAvgPrice", default="")


_VOLUMES = msgspec.json.Decoder(list[_Volume])


class SpotBookRule:
    """Spot's rule: drop ``u <= L``; the first needs ``U <= L + 1 <= u``; then each ``U`` is the last ``u`` plus one.

    Source: "How to manage a local order book correctly". ``L`` is the snapshot's ``lastUpdateId``.
    """

    __slots__ = ("last_id",)

    def __init__(self) -> None:
        self.last_id: int | None = None

    def apply_snapshot(self, snapshot: BookSnapshot) -> None:
        self.last_id = snapshot.last_id

    def judge(self, delta: BookDelta) -> str:
        last = self.last_id
        if last is None:
            return "gap"
        if delta.last_id <= last:
            return "stale"
        # The documentation lets only the first delta after a snapshot overlap it. One that overlaps later repeats
        # changes that are applied already and brings new ones: sizes are absolute, so nothing is missing.
        if delta.first_id > last + 1:
            return "gap"
        self.last_id = delta.last_id
        return "apply"


class Binance(Exchange):
    """Binance spot."""

    name = "binance"
    ws_url = "wss://stream.binance.com:9443"
    rest_url = "https://api.binance.com"
    limits = Limits(
        streams_per_connection=1024,
        streams_per_frame=200,
        frames_per_s=3,  # 5 are allowed, and our pongs count among them
        connects_per_5_min=300,
        connection_life_s=24 * 3600,
        weight_per_min=6000,
    )
    streams: tuple[str, ...] = STREAMS
    trade_ids_contiguous = True
    snapshot_depth: int | None = 5000

    _api = "/api/v3"
    _depth_limit = "5000"
    _depth_weight = 250
    _trades_weight = 4
    _volumes_weight = 80
    _listing_weight = 20

    def listing_request(self) -> Request:
        return Request(f"{self._api}/exchangeInfo", weight=self._listing_weight)

    def parse_listing(self, body: bytes) -> list[Listing]:
        answer = _read(_LISTING, body, "the list of instruments")
        taken: set[str] = set()
        listings = []
        for listed in sorted(answer.symbols, key=lambda listed: listed.status != "TRADING"):
            symbol = _symbol(listed, taken)
            taken.add(symbol)
            size = "" if listed.contract_size is None else str(listed.contract_size)
            active = listed.status == "TRADING"
            listings.append(Listing(symbol, listed.symbol, listed.base, listed.quote, active, size, inverse=bool(size)))
        return listings

    def plan(self, subscriptions: Sequence[Subscription], *, raw_trades: bool = False) -> list[ConnectionPlan]:
        by_path: dict[str, dict[str, list[Subscription]]] = {}
        for subscription in subscriptions:
            path = self._path(subscription.stream, raw_trades)
            by_path.setdefault(path, {}).setdefault(subscription.symbol, []).append(subscription)
        return [
            self._connection(path, packed, raw_trades)
            for path, by_symbol in by_path.items()
            for packed in _pack(by_symbol.values(), self.limits.streams_per_connection)
        ]

    def parse(self, frame: bytes | str, received_us: int) -> Sequence[Event]:
        try:
            decoded = _decode_frame(frame)
            body = decoded.data
            if body is UNSET:
                if not decoded.event_name:
                    return _answer(decoded) or self._bare_ticker(frame, received_us)
                body = _decode_body(frame)
            symbol = self.symbol_of[body.native]
        except KeyError:
            # A notice of the server, or a symbol that nobody asked for.
            return (_shutdown(body),) if type(body) is _Shutdown else ()
        except _UNREADABLE as error:
            # Spot's best prices are the one kind that has no name, and come here.
            found = self._spot_ticker(frame, received_us)
            return _ignore_or_raise(frame, error) if found is None else found
        if type(body) is _AggTrade:
            time = body.time
            price = body.price
            volume = body.volume
            # Nearly all numbers have a fraction, and then nothing but the point is left of them.
            if price.strip(_DIGITS) != "." or volume.strip(_DIGITS) != "." or price == "." or volume == ".":
                _require_decimals(price, volume)
            return (
                Trade(
                    symbol,
                    time if time >= _MICROSECONDS_FROM else time * 1000,
                    price,
                    volume,
                    "sell" if body.buyer_is_maker else "buy",
                    body.trade_id,
                    received_us,
                    "ws",
                    body.first_raw_id,
                    body.last_raw_id,
                ),
            )
        if type(body) is _RawTrade:
            return (_raw_trade(body, symbol, received_us),)
        if type(body) is _Depth:
            return (_delta(body, symbol, received_us),)
        if type(body) is _Kline:
            return (_kline(body, symbol, received_us),)
        if type(body) is _BookTicker:
            return (_ticker(body, symbol, received_us),)
        if type(body) is _MarkPrice:
            return (_funding(body, symbol, received_us),)
        return (_liquidation(body.order, symbol, received_us),) if type(body) is _Forced else ()

    def _spot_ticker(self, frame: bytes | str, received_us: int) -> Sequence[Event] | None:
        try:
            return self._known_ticker(_decode_spot_ticker(frame).data, received_us)
        except _UNREADABLE:
            return None

    def _bare_ticker(self, frame: bytes | str, received_us: int) -> Sequence[Event]:
        try:
            return self._known_ticker(_decode_bare_ticker(frame), received_us)
        except _UNREADABLE:
            return ()

    def _known_ticker(self, body: _SpotTicker, received_us: int) -> Sequence[Event]:
        symbol = self.symbol_of.get(body.native)
        return () if symbol is None else (_ticker(body, symbol, received_us),)

    def snapshot_request(self, symbol: str) -> Request:
        params = {"symbol": self._native(symbol), "limit": self._depth_limit}
        return Request(f"{self._api}/depth", params, weight=self._depth_weight)

    def parse_snapshot(self, symbol: str, body: bytes, received_us: int) -> BookSnapshot:
        answer = _read(_DEPTH, body, f"the order book of {symbol}")
        require_levels(answer.bids, answer.asks)
        time = microseconds(answer.transaction_time)
        return BookSnapshot(symbol, time, answer.last_id, answer.bids, answer.asks, received_us)

    def book_rule(self) -> BookRule:
        return SpotBookRule()

    def newest_trade_request(self, symbol: str) -> Request | None:
        params = {"symbol": self._native(symbol), "limit": "1"}
        return Request(f"{self._api}/aggTrades", params, weight=self._trades_weight)

    def book_probe_request(self, symbol: str) -> Request:
        return Request(f"{self._api}/depth", {"symbol": self._native(symbol), "limit": "5"}, weight=5)

    def trades_request(
        self,
        symbol: str,
        from_id: int,
        limit: int,
        *,
        raw_trades: bool = False,
        from_us: int | None = None,  # noqa: ARG002  ids are better
    ) -> Request | None:
        if raw_trades:
            return None  # historicalTrades wants an API key
        params = {"symbol": self._native(symbol), "fromId": str(from_id), "limit": str(min(limit, 1000))}
        return Request(f"{self._api}/aggTrades", params, weight=self._trades_weight)

    def parse_trades(self, symbol: str, body: bytes, received_us: int) -> list[Trade]:
        answer = _read(_TRADES, body, f"the trades of {symbol}")
        for row in answer:
            _require_decimals(row.price, row.volume)
        return [
            Trade(
                symbol,
                microseconds(row.time),
                row.price,
                row.volume,
                "sell" if row.buyer_is_maker else "buy",
                row.trade_id,
                received_us,
                "rest",
                row.first_raw_id,
                row.last_raw_id,
            )
            for row in answer
        ]

    def poll_requests(self, subscriptions: Sequence[Subscription]) -> Sequence[Request]:
        return [
            Request(f"{self._api}/openInterest", {"symbol": self._native(subscription.symbol)})
            for subscription in subscriptions
            if subscription.stream == "open_interest"
        ]

    def parse_poll(self, request: Request, body: bytes, received_us: int) -> Sequence[Event]:  # noqa: ARG002  it says whose
        answer = _read(_OPEN_INTEREST, body, "open interest")
        _require_decimals(answer.amount)
        symbol = self.symbol_of.get(answer.native)
        if symbol is None:
            return ()
        return (OpenInterest(symbol, microseconds(answer.time), answer.amount, None, received_us, "rest"),)

    def volumes_request(self) -> Request | None:
        return Request(f"{self._api}/ticker/24hr", weight=self._volumes_weight)

    def parse_volumes(self, body: bytes) -> dict[str, Decimal]:
        rows = _read(_VOLUMES, body, "the volumes")
        # Coin-margined contracts have volumes in contracts and in coins.
        return {row.symbol: volume(row.quote_volume) or volume(row.coins) * volume(row.average) for row in rows}

    def channel_of(self, frame: bytes | str) -> str | None:
        try:
            envelope = _decode_envelope(frame)
        except _UNREADABLE:
            return None
        if envelope.stream:
            return _channel(envelope.stream)
        native = envelope.native or (envelope.order.native if envelope.order else "")
        if not native:
            return None
        suffix = {
            "aggTrade": "aggTrade",
            "trade": "trade",
            "depthUpdate": "depth",
            "kline": f"kline_{envelope.candle.interval}" if envelope.candle else "kline",
            "markPriceUpdate": "markPrice",
            "": "bookTicker" if envelope.last_id is not None else "",
        }.get(envelope.event_name, envelope.event_name)
        return f"{native.lower()}@{suffix}" if suffix else None

    def channels_asked(self, path: str, frame: str | None) -> Sequence[str]:
        if frame is not None:
            asked = _client_frame(frame)
            if asked is None or asked.method != "SUBSCRIBE":
                return ()
            return [_channel(name) for name in asked.params if isinstance(name, str)]
        address, _, query = unquote(path).partition("?")
        if "/ws/" in address:
            return [_channel(name) for name in address.partition("/ws/")[2].split("/") if name]
        streams = next((part[8:] for part in query.split("&") if part.startswith("streams=")), "")
        return [_channel(name) for name in streams.split("/") if name]

    def acknowledgement(self, frame: str) -> str | None:
        asked = _client_frame(frame)
        if asked is None or asked.method not in ("SUBSCRIBE", "UNSUBSCRIBE"):
            return None
        return msgspec.json.encode({"result": None, "id": asked.id}).decode()

    def _path(self, stream: str, raw_trades: bool) -> str:  # noqa: ARG002  futures spread their streams over two paths
        require_stream(stream, self.streams)
        return "/stream"

    def _channel_name(self, subscription: Subscription, raw_trades: bool) -> str:
        stream = subscription.stream
        require_stream(stream, self.streams)
        suffix = _SUFFIXES.get(stream) or ("trade" if raw_trades else "aggTrade")
        return f"{self._native(subscription.symbol).lower()}@{suffix}"

    def _connection(self, path: str, subscriptions: Sequence[Subscription], raw_trades: bool) -> ConnectionPlan:
        names = [self._channel_name(subscription, raw_trades) for subscription in subscriptions]
        size = self.limits.streams_per_frame
        chunks = [names[start : start + size] for start in range(0, len(names), size)]
        frames = tuple(
            msgspec.json.encode({"method": "SUBSCRIBE", "params": chunk, "id": number}).decode()
            for number, chunk in enumerate(chunks, 1)
        )
        return ConnectionPlan(path, frames, tuple(subscriptions), tuple(range(1, len(chunks) + 1)))

    def _native(self, symbol: str) -> str:
        try:
            return self.native_of[symbol]
        except KeyError:
            raise UnknownName("symbol", symbol, list(self.native_of)) from None


def _raw_trade(body: _RawTrade, symbol: str, received_us: int) -> Trade | OffBookPrint:
    time = microseconds(body.time)
    price = body.price
    volume = body.volume
    if body.order_type in OFF_BOOK:
        return OffBookPrint(symbol, time, body.trade_id, received_us)
    if price.strip(_DIGITS) != "." or volume.strip(_DIGITS) != "." or price == "." or volume == ".":
        _require_decimals(price, volume)
    return Trade(symbol, time, price, volume, "sell" if body.buyer_is_maker else "buy", body.trade_id, received_us)


def _delta(body: _Depth, symbol: str, received_us: int) -> BookDelta:
    bids, asks = body.bids, body.asks
    require_levels(bids, asks)
    if body.first_id > body.last_id:
        raise MessageError(f"A depth update of {symbol} ends before it begins ({body.first_id}, {body.last_id}).")
    # Spot has only E. Futures have T too, the matching engine's time: the clock of the trades' T, so that book rows and
    # trades are in one order, whatever the pushing server's E says.
    time = microseconds(body.transaction_time or body.event_time)
    return BookDelta(symbol, time, body.first_id, body.last_id, body.previous_id, bids, asks, received_us)


def _kline(body: _Kline, symbol: str, received_us: int) -> Kline:
    candle = body.candle
    _require_decimals(candle.open, candle.high, candle.low, candle.close)
    _require_decimals(candle.volume, candle.quote_volume, candle.taker_buy_volume)
    return Kline(
        symbol=symbol,
        interval=candle.interval,
        start_us=microseconds(candle.start),
        open=candle.open,
        high=candle.high,
        low=candle.low,
        close=candle.close,
        volume=candle.volume,
        quote_volume=candle.quote_volume,
        trades_count=candle.trades_count,
        taker_buy_volume=candle.taker_buy_volume,
        closed=candle.closed,
        timestamp_us=microseconds(body.event_time),
        received_us=received_us,
    )


def _ticker(body: _BookTicker | _SpotTicker, symbol: str, received_us: int) -> Ticker:
    """Read the best prices; an empty side has a size of 0. Futures say when it was, by the matching engine's clock."""
    _require_decimals(body.bid, body.bid_qty, body.ask, body.ask_qty)
    bid, bid_qty = (body.bid, body.bid_qty) if body.bid_qty.strip("0.") else (None, None)
    ask, ask_qty = (body.ask, body.ask_qty) if body.ask_qty.strip("0.") else (None, None)
    time = microseconds(body.transaction_time or body.event_time)
    return Ticker(symbol, time or received_us, bid, bid_qty, ask, ask_qty, body.update_id, received_us, time > 0)


def _funding(body: _MarkPrice, symbol: str, received_us: int) -> Funding:
    """Read the mark price; dated contracts have no funding: no rate, and a next time of 0."""
    require_signed(*filter(None, (body.mark_price, body.rate, body.index_price)))
    return Funding(
        symbol,
        microseconds(body.event_time),
        body.rate or None,
        microseconds(body.next_funding) or None,
        body.mark_price or None,
        body.index_price or None,
        received_us,
    )


def _liquidation(order: _ForcedOrder, symbol: str, received_us: int) -> Liquidation:
    """Read a forced order: the price is the order's own, the size what was filled of it."""
    volume = order.filled if order.filled.strip("0.") else order.quantity
    _require_decimals(order.price, volume)
    return Liquidation(symbol, microseconds(order.time), order.price, volume, _SIDES[order.side], received_us)


def microseconds(time: int) -> int:
    """Return a time of the exchange in microseconds, whichever of its two units (ms by default) it came in."""
    return time if time >= _MICROSECONDS_FROM else time * 1000


def _answer(frame: _Frame) -> Sequence[Event]:
    """Read a frame that is no market event: an answer to a request, or a notice in the WebSocket API's wrapper."""
    if frame.error is not None:
        return (Rejected(frame.id, str(frame.error.code), frame.error.msg),)
    if frame.code is not None:
        return (Rejected(frame.id, str(frame.code), frame.msg),)
    if frame.result is not UNSET:
        return (Acknowledged(frame.id),)
    if type(frame.event) is _Shutdown:
        return (_shutdown(frame.event),)
    return ()


def _shutdown(body: _Shutdown) -> ServerNotice:
    return ServerNotice("shutdown", microseconds(body.event_time))


def _ignore_or_raise(frame: bytes | str, error: BaseException) -> Sequence[Event]:
    """Return nothing for a frame of a kind that we don't read (24hrTicker and the like); raise for a broken one."""
    try:
        document = msgspec.json.decode(frame)
    except _UNREADABLE as unreadable:
        raise MessageError(f"A frame is not JSON: {unreadable}.") from unreadable
    body = document.get("data", document) if isinstance(document, dict) else document
    if isinstance(body, list):
        return ()
    if not isinstance(body, dict):
        raise MessageError("A frame is neither an event nor an answer.") from error
    name = body.get("e")
    nameless = name is None and {"s", "u", "b", "a"} <= body.keys()
    if nameless or (isinstance(name, str) and name in _KNOWN) or not isinstance(name, str | None):
        raise MessageError(f"A frame of the kind {name!r} cannot be read: {error}.") from error
    return ()


def _read(decoder: msgspec.json.Decoder[T], body: bytes, what: str) -> T:
    """Decode an answer of REST; raise MessageError with the exchange's own words where it is an error."""
    try:
        return decoder.decode(body)
    except _UNREADABLE as error:
        try:
            refusal = _ERROR.decode(body)
        except _UNREADABLE:
            refusal = _Error()
        reason = f"{refusal.msg} (code {refusal.code})" if refusal.msg else str(error)
        raise MessageError(f"The answer to the request for {what} cannot be read: {reason}.") from error


def _symbol(listed: _Listed, taken: set[str]) -> str:
    """Return ``BASE_QUOTE``, of ``BTCUSD_PERP`` too; a dated contract (``BTCUSDT_260327``): ``BTC_USDT-260327``."""
    symbol = f"{listed.base}_{listed.quote}"
    _, _, delivery = listed.symbol.partition("_")
    if delivery and delivery != "PERP":
        symbol = f"{symbol}-{delivery}"
    return symbol if symbol not in taken else f"{symbol}-{listed.symbol}"


def _pack(groups: Iterable[Sequence[Subscription]], size: int) -> Iterator[list[Subscription]]:
    """Fill connections one after the other; a symbol's streams stay together."""
    packed: list[Subscription] = []
    for group in groups:
        if packed and len(packed) + len(group) > size:
            yield packed
            packed = []
        packed.extend(group)
    if packed:
        yield packed


def _require_decimals(*texts: str) -> None:
    """Raise MessageError where a price or a size is not plain decimal digits: they go into CSV as they are."""
    for text in texts:
        if not _DECIMAL(text):
            raise MessageError(f"{text[:40]!r} is not a decimal number.")


def _client_frame(frame: str) -> _ClientFrame | None:
    try:
        return _decode_client_frame(frame)
    except _UNREADABLE:
        return None


def _channel(name: str) -> str:
    """Spell a channel in one way: the depth diffs of any speed are one, so that a recording of any of them plays.

    So are the mark prices.
    """
    native, _, suffix = name.partition("@")
    if suffix == "depth" or suffix.startswith("depth@"):
        suffix = "depth"
    elif suffix.startswith("markPrice@"):
        suffix = "markPrice"
    return f"{native.lower()}@{suffix}"
