"""Coinbase Exchange: the public feed (``matches``, ``level2_batch``, ``ticker``, ``heartbeat``) and its REST.

Sources: the exchange's pages "WebSocket Channels", "WebSocket Rate Limits", "Get product trades", "Pagination", and a
recording of the real exchange. ``side`` of a match is the maker's ("a buy side match is a down-tick"); ours is the
taker's, the other one. Level 2 has no sequence numbers: its page says that delivery is guaranteed, so the order of
messages is all there is to follow. A ``ticker`` comes with each match, not with each change of the best bid or ask.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any, Literal, final

import msgspec

from collector.errors import MessageError, UnknownName
from collector.events import (
    Acknowledged,
    BookDelta,
    BookSnapshot,
    Event,
    Level,
    PastTrade,
    Rejected,
    ServerNotice,
    Side,
    Ticker,
    Trade,
)
from collector.exchanges.base import BookRule, ConnectionPlan, Exchange, Limits, Listing, Request, Subscription
from collector.exchanges.decode import (
    UNREADABLE,
    Natural,
    chunks,
    document,
    iso_us,
    pack,
    read_answer,
    require_decimals,
    require_levels,
    require_price_and_size,
    require_stream,
    symbols_once,
    volume,
)
from collector.exchanges.rules import InOrderRule

STREAMS = ("prices", "orderbook", "tickers")

_TAKER: dict[str, Side] = {"buy": "sell", "sell": "buy"}
_CHANNELS = {"prices": "matches", "orderbook": "level2_batch", "tickers": "ticker"}
_CHANNEL_OF = {
    "match": "matches",
    "last_match": "matches",
    "snapshot": "level2",
    "l2update": "level2",
    "heartbeat": "heartbeat",
    "ticker": "ticker",
}
_KNOWN = frozenset({"match", "last_match", "snapshot", "l2update", "ticker", "heartbeat", "subscriptions", "error"})
_MAKERS_SIDE = Literal["buy", "sell"]


class _Print(msgspec.Struct, gc=False):
    native: str = msgspec.field(name="product_id")
    trade_id: Natural
    side: _MAKERS_SIDE
    price: str
    size: str
    time: datetime


@final
class _Match(_Print, tag_field="type", tag="match", gc=False):
    pass


@final
class _LastMatch(_Print, tag_field="type", tag="last_match", gc=False):
    pass


@final
class _Snapshot(msgspec.Struct, tag_field="type", tag="snapshot", gc=False):
    native: str = msgspec.field(name="product_id")
    bids: list[Level]
    asks: list[Level]
    time: datetime | None = None


@final
class _Update(msgspec.Struct, tag_field="type", tag="l2update", gc=False):
    native: str = msgspec.field(name="product_id")
    changes: list[tuple[_MAKERS_SIDE, str, str]]
    time: datetime


@final
class _Quotes(msgspec.Struct, tag_field="type", tag="ticker", gc=False):
    native: str = msgspec.field(name="product_id")
    sequence: Natural
    bid: str = msgspec.field(name="best_bid")
    ask: str = msgspec.field(name="best_ask")
    time: datetime
    bid_size: str = msgspec.field(name="best_bid_size", default="")
    ask_size: str = msgspec.field(name="best_ask_size", default="")


@final
class _Heartbeat(msgspec.Struct, tag_field="type", tag="heartbeat", gc=False):
    native: str = msgspec.field(name="product_id")
    time: datetime


@final
class _Subscriptions(msgspec.Struct, tag_field="type", tag="subscriptions", gc=False):
    native: str = ""


@final
class _Error(msgspec.Struct, tag_field="type", tag="error", gc=False):
    native: str = ""
    message: str = ""
    reason: str = ""


class _Envelope(msgspec.Struct, gc=False):
    type: str = ""
    native: str = msgspec.field(name="product_id", default="")


class _ClientFrame(msgspec.Struct, gc=False):
    type: str
    product_ids: list[str] = []
    channels: list[str | dict[str, Any]] = []


class _Listed(msgspec.Struct, gc=False):
    id: str
    base: str = msgspec.field(name="base_currency")
    quote: str = msgspec.field(name="quote_currency")
    status: str = "online"
    trading_disabled: bool = False


class _BookAnswer(msgspec.Struct, gc=False):
    bids: list[tuple[str, str, int | str]]
    asks: list[tuple[str, str, int | str]]
    sequence: float | int | str = 0
    time: datetime | None = None


class _TradeAnswer(msgspec.Struct, gc=False):
    trade_id: Natural
    side: _MAKERS_SIDE
    price: str
    size: str
    time: datetime


class _Day(msgspec.Struct, gc=False):
    last: str = ""
    volume: str = ""


class _Stats(msgspec.Struct, gc=False):
    day: _Day = msgspec.field(name="stats_24hour", default_factory=_Day)


class _Refusal(msgspec.Struct, gc=False):
    message: str = ""


_decode = msgspec.json.Decoder(
    _Match | _LastMatch | _Snapshot | _Update | _Quotes | _Heartbeat | _Subscriptions | _Error
).decode
_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_client_frame = msgspec.json.Decoder(_ClientFrame).decode
_LISTING = msgspec.json.Decoder(list[_Listed])
_BOOK = msgspec.json.Decoder(_BookAnswer)
_TRADES = msgspec.json.Decoder(list[_TradeAnswer])
_STATS = msgspec.json.Decoder(dict[str, _Stats])
_REFUSAL = msgspec.json.Decoder(_Refusal)


class Coinbase(Exchange):
    """Coinbase Exchange, spot. Native spellings are ``BASE-QUOTE``."""

    name = "coinbase"
    ws_url = "wss://ws-feed.exchange.coinbase.com"
    rest_url = "https://api.exchange.coinbase.com"
    limits = Limits(
        streams_per_connection=200,  # no figure is documented; several connections are advised for a wide subscription
        streams_per_frame=100,
        frames_per_s=8,  # 100 a second by "WebSocket Rate Limits"; 8 requests a second for each address
        connects_per_5_min=300,
        connection_life_s=None,
        weight_per_min=300,  # 10 requests a second, 15 in a burst, by "REST API Rate Limits"; half of it is plenty
    )
    streams = STREAMS
    trade_ids_contiguous = True
    book_needs_snapshot = False
    book_numbered = False

    def listing_request(self) -> Request:
        return Request("/products")

    def parse_listing(self, body: bytes) -> list[Listing]:
        answer = read_answer(_LISTING, body, "the list of products", _words)
        answer.sort(key=lambda listed: not _trades(listed))
        symbols = symbols_once((f"{listed.base}_{listed.quote}", listed.id) for listed in answer)
        return [
            Listing(symbol, listed.id, listed.base, listed.quote, _trades(listed))
            for symbol, listed in zip(symbols, answer, strict=True)
        ]

    def write_listing(self, symbols: Sequence[str]) -> bytes | None:
        pairs = [symbol.partition("_") for symbol in symbols]
        return msgspec.json.encode(
            [{"id": f"{base}-{quote}", "base_currency": base, "quote_currency": quote} for base, _, quote in pairs]
        )

    def plan(self, subscriptions: Sequence[Subscription], *, raw_trades: bool = False) -> list[ConnectionPlan]:  # noqa: ARG002  all trades are raw
        for subscription in subscriptions:
            require_stream(subscription.stream, STREAMS)
        return [
            ConnectionPlan("/", tuple(self._frames(packed)), tuple(packed))
            for packed in pack(subscriptions, self.limits.streams_per_connection)
        ]

    def renewal_frames(self, subscription: Subscription) -> Sequence[str]:
        products = [self._native(subscription.symbol)]
        return [_frame(kind, products, [_CHANNELS["orderbook"]]) for kind in ("unsubscribe", "subscribe")]

    def parse(self, frame: bytes | str, received_us: int) -> Sequence[Event]:
        try:
            message = _decode(frame)
            if type(message) is _Subscriptions:
                return (Acknowledged(None),)
            if type(message) is _Error:
                return (Rejected(None, "", f"{message.message}: {message.reason}".strip(": ")),)
            symbol = self.symbol_of[message.native]
        except KeyError:
            return ()
        except UNREADABLE as error:
            return _ignore_or_raise(frame, error)
        if type(message) is _Match:
            return (_trade(message, symbol, received_us),)
        if type(message) is _Update:
            return (_delta(message, symbol, received_us),)
        if type(message) is _Snapshot:
            require_levels(message.bids, message.asks)
            time_us = iso_us(message.time) if message.time else 0
            return (BookSnapshot(symbol, time_us, time_us, message.bids, message.asks, received_us),)
        if type(message) is _LastMatch:
            return (PastTrade(_trade(message, symbol, received_us)),)
        if type(message) is _Quotes:
            return (_ticker(message, symbol, received_us),)
        return (ServerNotice("heartbeat", iso_us(message.time)),) if type(message) is _Heartbeat else ()

    def snapshot_request(self, symbol: str) -> Request:
        return Request(f"/products/{self._native(symbol)}/book", {"level": "2"})

    def parse_snapshot(self, symbol: str, body: bytes, received_us: int) -> BookSnapshot:
        answer = read_answer(_BOOK, body, f"the order book of {symbol}", _words)
        bids: list[Level] = [(price, size) for price, size, _ in answer.bids]
        asks: list[Level] = [(price, size) for price, size, _ in answer.asks]
        require_levels(bids, asks)
        time_us = iso_us(answer.time) if answer.time else 0
        return BookSnapshot(symbol, time_us, time_us, bids, asks, received_us)

    def book_rule(self) -> BookRule:
        return InOrderRule()

    def newest_trade_request(self, symbol: str) -> Request | None:
        return Request(f"/products/{self._native(symbol)}/trades", {"limit": "1"})

    def trades_request(
        self,
        symbol: str,
        from_id: int,
        limit: int,
        *,
        raw_trades: bool = False,  # noqa: ARG002  all trades are raw
        from_us: int | None = None,  # noqa: ARG002  ids are better
    ) -> Request | None:
        # ``after`` asks for what is older than an id, newest first.
        count = min(limit, 1000)
        return Request(f"/products/{self._native(symbol)}/trades", {"after": str(from_id + count), "limit": str(count)})

    def parse_trades(self, symbol: str, body: bytes, received_us: int) -> list[Trade]:
        answer = read_answer(_TRADES, body, f"the trades of {symbol}", _words)
        for row in answer:
            require_price_and_size(row.price, row.size)
        answer.sort(key=lambda row: row.trade_id)
        return [
            Trade(symbol, iso_us(row.time), row.price, row.size, _TAKER[row.side], row.trade_id, received_us, "rest")
            for row in answer
        ]

    def volumes_request(self) -> Request | None:
        # No page documents it, and many clients use it: the documented "Get all product volume" has no prices.
        return Request("/products/stats")

    def parse_volumes(self, body: bytes) -> dict[str, Decimal]:
        stats = read_answer(_STATS, body, "the volumes", _words)
        return {native: volume(row.day.volume) * volume(row.day.last) for native, row in stats.items()}

    def channel_of(self, frame: bytes | str) -> str | None:
        try:
            envelope = _decode_envelope(frame)
        except UNREADABLE:
            return None
        channel = _CHANNEL_OF.get(envelope.type)
        return f"{channel}:{envelope.native}" if channel and envelope.native else None

    def channels_asked(self, path: str, frame: str | None) -> Sequence[str]:  # noqa: ARG002  nothing is asked by a path
        asked = _client_frame(frame)
        if asked is None or asked.type != "subscribe":
            return ()
        # Level 2 in batches and one by one is one channel, so that a recording of either plays.
        names = [name.removesuffix("_batch") for name in asked.channels if isinstance(name, str)]
        return [f"{name}:{product}" for name in names for product in asked.product_ids]

    def acknowledgement(self, frame: str) -> str | None:
        asked = _client_frame(frame)
        if asked is None or asked.type not in ("subscribe", "unsubscribe"):
            return None
        channels = [{"name": name, "product_ids": asked.product_ids} for name in asked.channels]
        return msgspec.json.encode({"type": "subscriptions", "channels": channels}).decode()

    def _frames(self, subscriptions: Sequence[Subscription]) -> list[str]:
        """Return a frame for each channel and up to a hundred products; the first of a product has its heartbeat.

        Without heartbeats nothing tells a quiet market from a dead connection.
        """
        frames = []
        beating: set[str] = set()
        for stream, channel in _CHANNELS.items():
            products = [self._native(asked.symbol) for asked in subscriptions if asked.stream == stream]
            for beats in (False, True):
                some = [product for product in products if (product in beating) is not beats]
                channels = [channel, "heartbeat"] if beats else [channel]
                frames += [_frame("subscribe", part, channels) for part in chunks(some, self.limits.streams_per_frame)]
            beating.update(products)
        return frames

    def _native(self, symbol: str) -> str:
        try:
            return self.native_of[symbol]
        except KeyError:
            raise UnknownName("symbol", symbol, list(self.native_of)) from None


def _trade(body: _Match | _LastMatch, symbol: str, received_us: int) -> Trade:
    require_price_and_size(body.price, body.size)
    return Trade(symbol, iso_us(body.time), body.price, body.size, _TAKER[body.side], body.trade_id, received_us)


def _delta(body: _Update, symbol: str, received_us: int) -> BookDelta:
    bids: list[Level] = []
    asks: list[Level] = []
    for side, price, size in body.changes:
        (bids if side == "buy" else asks).append((price, size))
    require_levels(bids, asks)
    # Now and then the exchange writes the year 1; then the time of receipt is the nearest there is.
    time_us = iso_us(body.time) or received_us
    return BookDelta(symbol, time_us, time_us, time_us, None, bids, asks, received_us)


def _ticker(body: _Quotes, symbol: str, received_us: int) -> Ticker:
    # Until 2022 there were no sizes; a side that is empty has the price 0.
    sides: list[tuple[str | None, str | None]] = []
    for price, size in ((body.bid, body.bid_size), (body.ask, body.ask_size)):
        require_decimals(*filter(None, (price, size)))
        sides.append((price, size or None) if price.strip("0.") else (None, None))
    bid, ask = sides
    return Ticker(symbol, iso_us(body.time), *bid, *ask, body.sequence, received_us)


def _trades(listed: _Listed) -> bool:
    return listed.status == "online" and not listed.trading_disabled


def _frame(kind: str, products: Sequence[str], channels: Sequence[str]) -> str:
    return msgspec.json.encode({"type": kind, "product_ids": products, "channels": channels}).decode()


def _client_frame(frame: str | None) -> _ClientFrame | None:
    try:
        return None if frame is None else _decode_client_frame(frame)
    except UNREADABLE:
        return None


def _words(body: bytes) -> str:
    return _REFUSAL.decode(body).message


def _ignore_or_raise(frame: bytes | str, error: BaseException) -> Sequence[Event]:
    """Return nothing for a message of a type that we don't read; raise for a broken one."""
    message = document(frame)
    kind = message.get("type") if isinstance(message, dict) else None
    if not isinstance(kind, str) or kind in _KNOWN:
        raise MessageError(f"A frame of the type {kind!r} cannot be read: {error}.") from error
    return ()
