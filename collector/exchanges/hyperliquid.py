"""Hyperliquid: perpetuals and spot, over its websocket and the ``/info`` endpoint.

Sources: the exchange's pages "WebSocket / Subscriptions", "Timeouts and heartbeats", "Info endpoint", "Rate limits and
user limits", and a recording of 2025.

Symbols: the perpetual ``BTC`` is ``BTC_USDC``, as its margin is; a pair of spot (``PURR/USDC``, or a number such as
``@107``) is ``HYPE_USDC-SPOT``; symbols are capitals (``kPEPE`` is ``KPEPE_USDC``).

``side`` is the taker's: ``B`` buys. A trade's ``tid`` is a hash and counts nothing, so it is text. The first message
of trades after subscribing is history. Each ``l2Book`` is the 20 best levels of a moment, without an id. What was
missed can't be asked for. A perpetual's funding rate is for an hour, its index price is the oracle's; the message has
no time, so that of receipt stands for it. Pairs of spot have neither funding nor open interest.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Literal, final

import msgspec
from msgspec import field

from collector.errors import MessageError, UnknownName
from collector.events import (
    Acknowledged,
    BookSnapshot,
    Event,
    Funding,
    Kline,
    Level,
    OpenInterest,
    Rejected,
    Side,
    Ticker,
    Trade,
)
from collector.exchanges.base import BookRule, ConnectionPlan, Exchange, Limits, Listing, Request, Subscription
from collector.exchanges.decode import (
    UNREADABLE,
    Milliseconds,
    Natural,
    best,
    document,
    pack,
    read_answer,
    require_decimals,
    require_levels,
    require_signed,
    require_stream,
    symbols_once,
    volume,
)
from collector.exchanges.rules import InOrderRule

STREAMS = ("prices", "orderbook", "klines", "tickers", "funding", "open_interest")

_CHANNELS = {
    "prices": "trades",
    "orderbook": "l2Book",
    "klines": "candle",
    "tickers": "bbo",
    "funding": "activeAssetCtx",
    "open_interest": "activeAssetCtx",
}
_OF_PERPETUALS = frozenset({"funding", "open_interest"})
_SIDES: dict[str, Side] = {"B": "buy", "A": "sell"}
_DIGITS = "0123456789"
_KNOWN = frozenset({"trades", "l2Book", "candle", "bbo", "activeAssetCtx", "subscriptionResponse", "error"})
_PERPETUALS, _SPOT = b'{"type":"meta"}', b'{"type":"spotMeta"}'
_PERPETUAL_VOLUMES, _SPOT_VOLUMES = b'{"type":"metaAndAssetCtxs"}', b'{"type":"spotMetaAndAssetCtxs"}'
_QUOTE = "USDC"
_SUFFIX = "-SPOT"


class _Print(msgspec.Struct, gc=False):
    native: str = field(name="coin")
    side: Literal["B", "A"]
    price: str = field(name="px")
    volume: str = field(name="sz")
    time: Milliseconds
    trade_id: Natural = field(name="tid")


class _BookLevel(msgspec.Struct, gc=False):
    price: str = field(name="px")
    size: str = field(name="sz")


class _Book(msgspec.Struct, gc=False):
    native: str = field(name="coin")
    time: Milliseconds
    sides: tuple[list[_BookLevel], list[_BookLevel]] = field(name="levels")


class _Candle(msgspec.Struct, gc=False):
    native: str = field(name="s")
    start: Milliseconds = field(name="t")
    interval: str = field(name="i")
    open: str = field(name="o")
    high: str = field(name="h")
    low: str = field(name="l")
    close: str = field(name="c")
    volume: str = field(name="v")
    trades: Natural = field(name="n")


class _Quotes(msgspec.Struct, gc=False):
    native: str = field(name="coin")
    time: Milliseconds
    sides: tuple[_BookLevel | None, _BookLevel | None] = field(name="bbo")


class _Figures(msgspec.Struct, gc=False):
    funding: str | None = None
    open_interest: str | None = field(name="openInterest", default=None)
    mark: str | None = field(name="markPx", default=None)
    oracle: str | None = field(name="oraclePx", default=None)


class _Context(msgspec.Struct, gc=False):
    native: str = field(name="coin")
    figures: _Figures = field(name="ctx")


class _Subscription(msgspec.Struct, gc=False):
    type: str = ""
    native: str = field(name="coin", default="")
    interval: str = ""


class _Response(msgspec.Struct, gc=False):
    method: str = ""
    subscription: _Subscription | None = None


@final
class _Trades(msgspec.Struct, tag_field="channel", tag="trades", gc=False):
    data: list[_Print]


@final
class _BookPush(msgspec.Struct, tag_field="channel", tag="l2Book", gc=False):
    data: _Book


@final
class _CandlePush(msgspec.Struct, tag_field="channel", tag="candle", gc=False):
    data: _Candle


@final
class _QuotesPush(msgspec.Struct, tag_field="channel", tag="bbo", gc=False):
    data: _Quotes


@final
class _ContextPush(msgspec.Struct, tag_field="channel", tag="activeAssetCtx", gc=False):
    data: _Context


@final
class _Acknowledgement(msgspec.Struct, tag_field="channel", tag="subscriptionResponse", gc=False):
    data: _Response


@final
class _Error(msgspec.Struct, tag_field="channel", tag="error", gc=False):
    data: str


class _Named(msgspec.Struct, gc=False):
    native: str = field(name="coin", default="")
    candle: str = field(name="s", default="")
    interval: str = field(name="i", default="")


class _Envelope(msgspec.Struct, gc=False):
    channel: str
    data: _Named | list[_Named]


class _ClientFrame(msgspec.Struct, gc=False):
    method: str
    subscription: _Subscription | None = None


class _Perpetual(msgspec.Struct, gc=False):
    name: str
    delisted: bool = field(name="isDelisted", default=False)


class _Token(msgspec.Struct, gc=False):
    name: str
    index: int


class _Pair(msgspec.Struct, gc=False):
    name: str
    tokens: tuple[int, int]


class _Perpetuals(msgspec.Struct, gc=False):
    universe: list[_Perpetual]


class _Spot(msgspec.Struct, gc=False):
    universe: list[_Pair]
    tokens: list[_Token]


class _Volume(msgspec.Struct, gc=False):
    native: str = field(name="coin", default="")
    volume: str = field(name="dayNtlVlm", default="")


class _Universe(msgspec.Struct, gc=False):
    universe: list[msgspec.Raw]
    tokens: list[_Token] | None = None


_decode = msgspec.json.Decoder(
    _Trades | _BookPush | _CandlePush | _QuotesPush | _ContextPush | _Acknowledgement | _Error
).decode
_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_client_frame = msgspec.json.Decoder(_ClientFrame).decode
_decode_subscription = msgspec.json.Decoder(_Subscription).decode
_UNIVERSE = msgspec.json.Decoder(_Universe)
_ALL_PERPETUALS = msgspec.json.Decoder(_Perpetuals)
_ALL_PAIRS = msgspec.json.Decoder(_Spot)
_BOOK = msgspec.json.Decoder(_Book)
_VOLUMES = msgspec.json.Decoder(tuple[_Perpetuals, list[_Volume]])


class Hyperliquid(Exchange):
    """Hyperliquid. Native spellings are the names of coins."""

    name = "hyperliquid"
    ws_url = "wss://api.hyperliquid.xyz"
    rest_url = "https://api.hyperliquid.xyz"
    limits = Limits(
        streams_per_connection=1000,  # of one address, on all of its connections
        streams_per_frame=1,
        frames_per_s=20,  # 2,000 a minute from one address
        connects_per_5_min=30,  # 30 new ones a minute, 10 (100 in an older copy of the page) at once
        connection_life_s=None,
        weight_per_min=1200,
        ping_interval_s=30,  # a connection on which nothing was said for 60 s is closed
    )
    streams = STREAMS
    trade_ids_contiguous = False
    trade_ids_ordered = False  # a hash of the two orders' ids
    book_needs_snapshot = False
    deepest_book = 20
    book_numbered = False
    first_trades_past = True
    klines_say_closed = False

    def listing_request(self) -> Request:
        return Request("/info", method="POST", body=_PERPETUALS, weight=20)

    def next_listing_request(self, request: Request, body: bytes) -> Request | None:  # noqa: ARG002  spot has its own
        return Request("/info", method="POST", body=_SPOT, weight=20) if request.body == _PERPETUALS else None

    def parse_listing(self, body: bytes) -> list[Listing]:
        what = "the list of instruments"
        if read_answer(_UNIVERSE, body, what, _words).tokens is None:
            perpetuals = read_answer(_ALL_PERPETUALS, body, what, _words).universe
            return [
                Listing(f"{row.name}_{_QUOTE}".upper(), row.name, row.name, _QUOTE, not row.delisted)
                for row in perpetuals
            ]
        spot = read_answer(_ALL_PAIRS, body, what, _words)
        names = {token.index: token.name for token in spot.tokens}
        pairs = [(row.name, names.get(row.tokens[0]), names.get(row.tokens[1])) for row in spot.universe]
        known = [(native, base, quote) for native, base, quote in pairs if base and quote]
        symbols = symbols_once((f"{base}_{quote}{_SUFFIX}".upper(), native) for native, base, quote in known)
        return [
            Listing(symbol, native, base, quote) for symbol, (native, base, quote) in zip(symbols, known, strict=True)
        ]

    def offers(self, listing: Listing) -> tuple[str, ...]:
        if not listing.symbol.endswith(_SUFFIX):
            return self.streams
        return tuple(stream for stream in self.streams if stream not in _OF_PERPETUALS)

    def write_listing(self, symbols: Sequence[str]) -> bytes | None:
        if all(symbol.endswith(_SUFFIX) for symbol in symbols):
            pairs = [symbol.removesuffix(_SUFFIX).partition("_") for symbol in symbols]
            tokens = sorted({token for base, _, quote in pairs for token in (base, quote)})
            return msgspec.json.encode(
                {
                    "universe": [
                        {"name": f"{base}/{quote}", "tokens": [tokens.index(base), tokens.index(quote)]}
                        for base, _, quote in pairs
                    ],
                    "tokens": [{"name": name, "index": index} for index, name in enumerate(tokens)],
                }
            )
        return msgspec.json.encode({"universe": [{"name": symbol.partition("_")[0]} for symbol in symbols]})

    def plan(self, subscriptions: Sequence[Subscription], *, raw_trades: bool = False) -> list[ConnectionPlan]:  # noqa: ARG002  all trades are raw
        return [self._connection(packed) for packed in pack(subscriptions, self.limits.streams_per_connection)]

    def renewal_frames(self, subscription: Subscription) -> Sequence[str]:
        asked = self._asked(subscription)
        return [_request(method, asked) for method in ("unsubscribe", "subscribe")]

    def parse(self, frame: bytes | str, received_us: int) -> Sequence[Event]:
        try:
            message = _decode(frame)
        except UNREADABLE as error:
            return _ignore_or_raise(frame, error)
        if type(message) is _Trades:
            symbol_of = self.symbol_of
            return [
                _trade(row, symbol, received_us)
                for row in message.data
                if (symbol := symbol_of.get(row.native)) is not None
            ]
        if type(message) is _BookPush:
            symbol = self.symbol_of.get(message.data.native)
            return () if symbol is None else (_book(message.data, symbol, received_us),)
        if type(message) is _CandlePush:
            symbol = self.symbol_of.get(message.data.native)
            return () if symbol is None else (_kline(message.data, symbol, received_us),)
        if type(message) is _QuotesPush:
            symbol = self.symbol_of.get(message.data.native)
            return () if symbol is None else (_ticker(message.data, symbol, received_us),)
        if type(message) is _ContextPush:
            symbol = self.symbol_of.get(message.data.native)
            return () if symbol is None else _figures(message.data.figures, symbol, received_us)
        return _answer(message)

    def snapshot_request(self, symbol: str) -> Request:
        body = msgspec.json.encode({"type": "l2Book", "coin": self._native(symbol)})
        return Request("/info", method="POST", body=body, weight=2)

    def parse_snapshot(self, symbol: str, body: bytes, received_us: int) -> BookSnapshot:
        return _book(read_answer(_BOOK, body, f"the order book of {symbol}", _words), symbol, received_us)

    def book_rule(self) -> BookRule:
        return InOrderRule()

    def trades_request(
        self,
        symbol: str,  # noqa: ARG002  only the newest trades can be had
        from_id: int,  # noqa: ARG002
        limit: int,  # noqa: ARG002
        *,
        raw_trades: bool = False,  # noqa: ARG002
        from_us: int | None = None,  # noqa: ARG002
    ) -> Request | None:
        return None

    def parse_trades(self, symbol: str, body: bytes, received_us: int) -> list[Trade]:  # noqa: ARG002  never asked for
        raise MessageError(f"Hyperliquid does not give the trades of {symbol} from an id on.")

    def volumes_request(self) -> Request | None:
        return Request("/info", method="POST", body=_PERPETUAL_VOLUMES, weight=20)

    def next_volumes_request(self, request: Request, body: bytes) -> Request | None:  # noqa: ARG002  spot has its own
        if request.body != _PERPETUAL_VOLUMES:
            return None
        return Request("/info", method="POST", body=_SPOT_VOLUMES, weight=20)

    def parse_volumes(self, body: bytes) -> dict[str, Decimal]:
        listed, figures = read_answer(_VOLUMES, body, "the volumes", _words)
        # Spot's figures name their pair, and there may be more of them than pairs; those of perpetuals are in order.
        names = [row.native or perpetual.name for row, perpetual in zip(figures, listed.universe, strict=False)]
        names += [row.native for row in figures[len(names) :]]
        return {name: volume(row.volume) for name, row in zip(names, figures, strict=True)}

    def ping_frame(self) -> str | None:
        return '{"method":"ping"}'

    def channel_of(self, frame: bytes | str) -> str | None:
        try:
            envelope = _decode_envelope(frame)
        except UNREADABLE:
            return None
        rows = envelope.data if isinstance(envelope.data, list) else [envelope.data]
        if not rows or not (rows[0].native or rows[0].candle):
            return None
        return _channel(_Subscription(envelope.channel, rows[0].native or rows[0].candle, rows[0].interval))

    def channels_asked(self, path: str, frame: str | None) -> Sequence[str]:  # noqa: ARG002  only frames ask
        asked = _client_frame(frame)
        if asked is None or asked.method != "subscribe" or asked.subscription is None or not asked.subscription.native:
            return ()
        return [_channel(asked.subscription)]

    def acknowledgement(self, frame: str) -> str | None:
        asked = _client_frame(frame)
        if asked is not None and asked.method == "ping":
            return '{"channel":"pong"}'
        if asked is None or asked.method not in ("subscribe", "unsubscribe") or asked.subscription is None:
            return None
        return msgspec.json.encode({"channel": "subscriptionResponse", "data": msgspec.json.decode(frame)}).decode()

    def _connection(self, subscriptions: Sequence[Subscription]) -> ConnectionPlan:
        # Two streams may come on one channel.
        asked = list({_channel(one): one for one in map(self._asked, subscriptions)}.values())
        frames = tuple(_request("subscribe", one) for one in asked)
        # Answers repeat what was asked for: that is the id.
        return ConnectionPlan("/ws", frames, tuple(subscriptions), tuple(_channel(one) for one in asked))

    def _asked(self, subscription: Subscription) -> _Subscription:
        require_stream(subscription.stream, STREAMS)
        channel = _CHANNELS[subscription.stream]
        return _Subscription(channel, self._native(subscription.symbol), "1m" if channel == "candle" else "")

    def _native(self, symbol: str) -> str:
        try:
            return self.native_of[symbol]
        except KeyError:
            raise UnknownName("symbol", symbol, list(self.native_of)) from None


def _request(method: str, asked: _Subscription) -> str:
    subscription: dict[str, Any] = {"type": asked.type, "coin": asked.native}
    if asked.interval:
        subscription["interval"] = asked.interval
    return msgspec.json.encode({"method": method, "subscription": subscription}).decode()


def _trade(row: _Print, symbol: str, received_us: int) -> Trade:
    price, volume = row.price, row.volume
    # Nearly all numbers have a fraction, and then nothing but the point is left of them.
    if price.strip(_DIGITS) != "." or volume.strip(_DIGITS) != "." or price == "." or volume == ".":
        require_decimals(price, volume)
    return Trade(symbol, row.time * 1000, price, volume, _SIDES[row.side], str(row.trade_id), received_us)


def _book(book: _Book, symbol: str, received_us: int) -> BookSnapshot:
    bids, asks = book.sides
    best_bids: list[Level] = [(level.price, level.size) for level in bids]
    best_asks: list[Level] = [(level.price, level.size) for level in asks]
    require_levels(best_bids, best_asks)
    return BookSnapshot(symbol, book.time * 1000, book.time, best_bids, best_asks, received_us)


def _kline(row: _Candle, symbol: str, received_us: int) -> Kline:
    require_decimals(row.open, row.high, row.low, row.close, row.volume)
    return Kline(
        symbol=symbol,
        interval=row.interval,
        start_us=row.start * 1000,
        open=row.open,
        high=row.high,
        low=row.low,
        close=row.close,
        volume=row.volume,
        quote_volume=None,
        trades_count=row.trades,
        taker_buy_volume=None,
        closed=False,
        timestamp_us=row.start * 1000,  # the message has no time of its own
        received_us=received_us,
    )


def _ticker(quotes: _Quotes, symbol: str, received_us: int) -> Ticker:
    bids, asks = ([] if level is None else [(level.price, level.size)] for level in quotes.sides)
    require_levels(bids, asks)
    return Ticker(symbol, quotes.time * 1000, *best(bids), *best(asks), None, received_us)


def _figures(figures: _Figures, symbol: str, received_us: int) -> Sequence[Event]:
    require_signed(*filter(None, (figures.funding, figures.open_interest, figures.mark, figures.oracle)))
    events: list[Event] = []
    if figures.funding is not None:
        prices = figures.mark, figures.oracle
        events.append(Funding(symbol, received_us, figures.funding, None, *prices, received_us))
    if figures.open_interest is not None:
        events.append(OpenInterest(symbol, received_us, figures.open_interest, None, received_us))
    return events


def _answer(message: _Acknowledgement | _Error) -> Sequence[Event]:
    if type(message) is _Error:
        named = _subscription_in(message.data)
        channel = None if named is None else _channel(named)
        if message.data.startswith("Already subscribed"):
            return (Acknowledged(channel),)
        return (Rejected(channel, "", message.data, channel),)
    response = message.data if type(message) is _Acknowledgement else _Response()
    if response.method != "subscribe" or response.subscription is None:
        return ()
    return (Acknowledged(_channel(response.subscription)),)


def _subscription_in(words: str) -> _Subscription | None:
    """Find what was asked for in the words of an error: ``Invalid subscription {"type":"trades","coin":"X"}``."""
    start, end = words.find("{"), words.rfind("}")
    try:
        found = _decode_subscription(words[start : end + 1])
    except UNREADABLE:
        return None
    return found if found.type and found.native else None


def _ignore_or_raise(frame: bytes | str, error: BaseException) -> Sequence[Event]:
    """Return nothing for channels that we don't read (pong, bbo, allMids and so on); raise for a broken message."""
    read = document(frame)
    channel = read.get("channel") if isinstance(read, dict) else None
    if not isinstance(channel, str) or channel in _KNOWN:
        raise MessageError(f"A message of the channel {str(channel)[:40]!r} cannot be read: {error}.") from error
    return ()


def _channel(asked: _Subscription) -> str:
    return f"{asked.type}:{asked.native}" + (f":{asked.interval}" if asked.interval else "")


def _client_frame(frame: str | None) -> _ClientFrame | None:
    try:
        return None if frame is None else _decode_client_frame(frame)
    except UNREADABLE:
        return None


def _words(body: bytes) -> str:
    words = msgspec.json.decode(body)
    return words if isinstance(words, str) else ""
