"""Coinbase Advanced Trade: the public feed (``market_trades``, ``level2``, ``candles``, ``ticker``,
``heartbeats``) and its REST.

Sources: the exchange's pages "Advanced Trade WebSocket Channels", "WebSocket Rate Limits" and "Get Public Market
Trades", and its own specification of the feed. ``side`` of a trade is the maker's, as on Coinbase Exchange: so says
another adapter in production, and a recorded answer of REST has a SELL at the best ask; ours is the taker's.

``sequence_num`` counts the messages of a connection, whatever their channel, so it says nothing of one symbol; level 2
"guarantees delivery of all updates", and the order of messages is followed.
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
    Kline,
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
    best,
    chunks,
    document,
    iso_us,
    natural,
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

STREAMS = ("prices", "orderbook", "klines", "tickers")

_API = "/api/v3/brokerage/market"
_TAKER: dict[str, Side] = {"BUY": "sell", "SELL": "buy"}
_CHANNELS = {"prices": "market_trades", "orderbook": "level2", "klines": "candles", "tickers": "ticker"}
_KNOWN = frozenset({"market_trades", "l2_data", "candles", "ticker", "heartbeats", "subscriptions"})
_KIND = Literal["snapshot", "update"]


class _Trade(msgspec.Struct, gc=False):
    trade_id: str
    native: str = msgspec.field(name="product_id")
    price: str
    size: str
    side: Literal["BUY", "SELL"]
    time: datetime


class _TradesEvent(msgspec.Struct, gc=False):
    type: _KIND
    trades: list[_Trade]


@final
class _Trades(msgspec.Struct, tag_field="channel", tag="market_trades", gc=False):
    events: list[_TradesEvent]
    timestamp: datetime | None = None


class _Change(msgspec.Struct, gc=False):
    side: Literal["bid", "offer"]
    price: str = msgspec.field(name="price_level")
    size: str = msgspec.field(name="new_quantity")
    time: str = msgspec.field(name="event_time", default="")


class _BookEvent(msgspec.Struct, gc=False):
    type: _KIND
    native: str = msgspec.field(name="product_id")
    updates: list[_Change]


@final
class _Book(msgspec.Struct, tag_field="channel", tag="l2_data", gc=False):
    events: list[_BookEvent]
    timestamp: datetime


class _Candle(msgspec.Struct, gc=False):
    native: str = msgspec.field(name="product_id")
    start: str
    open: str
    high: str
    low: str
    close: str
    volume: str


class _CandlesEvent(msgspec.Struct, gc=False):
    type: _KIND
    candles: list[_Candle]


@final
class _Candles(msgspec.Struct, tag_field="channel", tag="candles", gc=False):
    events: list[_CandlesEvent]
    timestamp: datetime


class _Quotes(msgspec.Struct, gc=False):
    native: str = msgspec.field(name="product_id")
    bid: str = msgspec.field(name="best_bid")
    bid_size: str = msgspec.field(name="best_bid_quantity")
    ask: str = msgspec.field(name="best_ask")
    ask_size: str = msgspec.field(name="best_ask_quantity")


class _QuotesEvent(msgspec.Struct, gc=False):
    type: _KIND
    tickers: list[_Quotes]


@final
class _Tickers(msgspec.Struct, tag_field="channel", tag="ticker", gc=False):
    events: list[_QuotesEvent]
    timestamp: datetime


@final
class _Heartbeats(msgspec.Struct, tag_field="channel", tag="heartbeats", gc=False):
    timestamp: datetime


@final
class _Subscriptions(msgspec.Struct, tag_field="channel", tag="subscriptions", gc=False):
    timestamp: datetime | None = None


class _Envelope(msgspec.Struct, gc=False):
    channel: str = ""
    events: list[dict[str, Any]] = []


class _ClientFrame(msgspec.Struct, gc=False):
    type: str
    channel: str = ""
    product_ids: list[str] = []


class _Listed(msgspec.Struct, gc=False):
    id: str = msgspec.field(name="product_id")
    base: str = msgspec.field(name="base_currency_id")
    quote: str = msgspec.field(name="quote_currency_id")
    status: str = "online"
    trading_disabled: bool = False
    is_disabled: bool = False
    alias: str = ""
    volume: str = msgspec.field(name="approximate_quote_24h_volume", default="")


class _Listing(msgspec.Struct, gc=False):
    products: list[_Listed]


class _PriceLevel(msgspec.Struct, gc=False):
    price: str
    size: str


class _PriceBook(msgspec.Struct, gc=False):
    bids: list[_PriceLevel]
    asks: list[_PriceLevel]
    time: datetime | None = None


class _BookAnswer(msgspec.Struct, gc=False):
    pricebook: _PriceBook


class _TradesAnswer(msgspec.Struct, gc=False):
    trades: list[_Trade]


class _Refusal(msgspec.Struct, gc=False):
    error: str = ""
    message: str = ""
    error_details: str = ""


_decode = msgspec.json.Decoder(_Trades | _Book | _Candles | _Tickers | _Heartbeats | _Subscriptions).decode
_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_client_frame = msgspec.json.Decoder(_ClientFrame).decode
_LISTING = msgspec.json.Decoder(_Listing)
_BOOK = msgspec.json.Decoder(_BookAnswer)
_TRADES = msgspec.json.Decoder(_TradesAnswer)
_REFUSAL = msgspec.json.Decoder(_Refusal)


class CoinbaseAdvanced(Exchange):
    """Coinbase Advanced Trade, spot. Native spellings are ``BASE-QUOTE``; its candles are of five minutes."""

    name = "coinbase_advanced"
    ws_url = "wss://advanced-trade-ws.coinbase.com"
    rest_url = "https://api.coinbase.com"
    limits = Limits(
        streams_per_connection=200,  # no figure is documented
        streams_per_frame=100,
        frames_per_s=4,  # 8 unauthenticated messages a second for each address, by "WebSocket Rate Limits"
        connects_per_5_min=300,  # 8 a second for each address
        connection_life_s=None,
        weight_per_min=300,  # 10 public requests a second for each address
    )
    streams = STREAMS
    trade_ids_contiguous = True
    trades_paging = "recent"
    book_needs_snapshot = False
    book_numbered = False
    klines_say_closed = False

    def listing_request(self) -> Request:
        return Request(f"{_API}/products", {"product_type": "SPOT"})

    def parse_listing(self, body: bytes) -> list[Listing]:
        answer = read_answer(_LISTING, body, "the list of products", _words).products
        answer.sort(key=lambda listed: not _trades(listed))
        symbols = symbols_once((f"{listed.base}_{listed.quote}", listed.id) for listed in answer)
        return [
            Listing(symbol, listed.id, listed.base, listed.quote, _trades(listed))
            for symbol, listed in zip(symbols, answer, strict=True)
        ]

    def write_listing(self, symbols: Sequence[str]) -> bytes | None:
        pairs = [symbol.partition("_") for symbol in symbols]
        products = [
            {"product_id": f"{base}-{quote}", "base_currency_id": base, "quote_currency_id": quote}
            for base, _, quote in pairs
        ]
        return msgspec.json.encode({"products": products})

    def plan(self, subscriptions: Sequence[Subscription], *, raw_trades: bool = False) -> list[ConnectionPlan]:  # noqa: ARG002  all trades are raw
        for subscription in subscriptions:
            require_stream(subscription.stream, STREAMS)
        return [
            ConnectionPlan("/", tuple(self._frames(packed)), tuple(packed))
            for packed in pack(subscriptions, self.limits.streams_per_connection)
        ]

    def renewal_frames(self, subscription: Subscription) -> Sequence[str]:
        products = [self._native(subscription.symbol)]
        return [_frame(kind, _CHANNELS["orderbook"], products) for kind in ("unsubscribe", "subscribe")]

    def unsubscribe_frames(self, subscriptions: Sequence[Subscription], *, raw_trades: bool = False) -> Sequence[str]:
        frames = super().unsubscribe_frames(subscriptions, raw_trades=raw_trades)
        return [frame for frame in frames if '"heartbeats"' not in frame]  # one for all of a connection

    def parse(self, frame: bytes | str, received_us: int) -> Sequence[Event]:
        try:
            message = _decode(frame)
        except UNREADABLE as error:
            return _other(frame, error)
        if type(message) is _Trades:
            return self._read_trades(message, received_us)
        if type(message) is _Book:
            return self._read_book(message, received_us)
        if type(message) is _Candles:
            return self._read_candles(message, received_us)
        if type(message) is _Tickers:
            return self._read_tickers(message, received_us)
        if type(message) is _Heartbeats:
            return (ServerNotice("heartbeat", iso_us(message.timestamp)),)
        return (Acknowledged(None),)

    def snapshot_request(self, symbol: str) -> Request:
        return Request(f"{_API}/product_book", {"product_id": self._native(symbol)})

    def parse_snapshot(self, symbol: str, body: bytes, received_us: int) -> BookSnapshot:
        book = read_answer(_BOOK, body, f"the order book of {symbol}", _words).pricebook
        bids: list[Level] = [(level.price, level.size) for level in book.bids]
        asks: list[Level] = [(level.price, level.size) for level in book.asks]
        require_levels(bids, asks)
        time_us = iso_us(book.time) if book.time else 0
        return BookSnapshot(symbol, time_us, time_us, bids, asks, received_us)

    def book_rule(self) -> BookRule:
        return InOrderRule()

    def newest_trade_request(self, symbol: str) -> Request | None:
        return Request(f"{_API}/products/{self._native(symbol)}/ticker", {"limit": "1"})

    def trades_request(
        self,
        symbol: str,
        from_id: int,  # noqa: ARG002  see below
        limit: int,  # noqa: ARG002
        *,
        raw_trades: bool = False,  # noqa: ARG002  all trades are raw
        from_us: int | None = None,  # noqa: ARG002
    ) -> Request | None:
        # It is asked by time and gives the newest of a span, so it can't be gone through from an id on; the newest
        # thousand are what a short outage takes.
        return Request(f"{_API}/products/{self._native(symbol)}/ticker", {"limit": "1000"})

    def parse_trades(self, symbol: str, body: bytes, received_us: int) -> list[Trade]:
        answer = read_answer(_TRADES, body, f"the trades of {symbol}", _words)
        trades = [_trade(row, symbol, received_us, "rest") for row in answer.trades]
        trades.sort(key=_number)
        return trades

    def volumes_request(self) -> Request | None:
        return self.listing_request()

    def parse_volumes(self, body: bytes) -> dict[str, Decimal]:
        return {row.id: volume(row.volume) for row in read_answer(_LISTING, body, "the volumes", _words).products}

    def channel_of(self, frame: bytes | str) -> str | None:
        try:
            envelope = _decode_envelope(frame)
        except UNREADABLE:
            return None
        native = next((name for event in envelope.events if (name := _product(event))), "")
        channel = "level2" if envelope.channel == "l2_data" else envelope.channel
        return f"{channel}:{native}" if channel and native else None

    def channels_asked(self, path: str, frame: str | None) -> Sequence[str]:  # noqa: ARG002  nothing is asked by a path
        asked = _client_frame(frame)
        if asked is None or asked.type != "subscribe":
            return ()
        return [f"{asked.channel}:{product}" for product in asked.product_ids]

    def acknowledgement(self, frame: str) -> str | None:
        asked = _client_frame(frame)
        if asked is None or asked.type not in ("subscribe", "unsubscribe"):
            return None
        subscriptions = {asked.channel: asked.product_ids}
        return msgspec.json.encode({"channel": "subscriptions", "events": [{"subscriptions": subscriptions}]}).decode()

    def _frames(self, subscriptions: Sequence[Subscription]) -> list[str]:
        """Return a frame for each channel and up to a hundred products, and one that keeps the connection alive.

        Most channels close where nothing comes for 60 to 90 seconds; heartbeats keep all of them open.
        """
        frames = [_frame("subscribe", "heartbeats", [])]
        for stream, channel in _CHANNELS.items():
            products = [self._native(asked.symbol) for asked in subscriptions if asked.stream == stream]
            frames += [_frame("subscribe", channel, part) for part in chunks(products, self.limits.streams_per_frame)]
        return frames

    def _read_trades(self, message: _Trades, received_us: int) -> Sequence[Event]:
        events: list[Event] = []
        symbol_of = self.symbol_of
        for event in message.events:
            trades = [
                _trade(row, symbol_of[row.native], received_us, "ws") for row in event.trades if row.native in symbol_of
            ]
            if len(trades) > 1:
                trades.sort(key=_number)
            events += [PastTrade(trade) for trade in trades] if event.type == "snapshot" else trades
        return events

    def _read_book(self, message: _Book, received_us: int) -> Sequence[Event]:
        events: list[Event] = []
        for event in message.events:
            symbol = self.symbol_of.get(event.native)
            if symbol is None:
                continue
            bids: list[Level] = []
            asks: list[Level] = []
            for change in event.updates:
                (bids if change.side == "bid" else asks).append((change.price, change.size))
            require_levels(bids, asks)
            time_us = _event_us(event.updates) or iso_us(message.timestamp) or received_us
            if event.type == "snapshot":
                events.append(BookSnapshot(symbol, time_us, time_us, bids, asks, received_us))
            else:
                events.append(BookDelta(symbol, time_us, time_us, time_us, None, bids, asks, received_us))
        return events

    def _read_candles(self, message: _Candles, received_us: int) -> Sequence[Event]:
        klines = []
        for event in message.events:
            for candle in event.candles:
                symbol = self.symbol_of.get(candle.native)
                if symbol is not None:
                    klines.append(_kline(candle, symbol, iso_us(message.timestamp), received_us))
        klines.sort(key=lambda kline: kline.start_us)  # the first push has the past ones, newest first
        return klines

    def _read_tickers(self, message: _Tickers, received_us: int) -> Sequence[Event]:
        time_us = iso_us(message.timestamp)
        tickers = []
        for event in message.events:
            for row in event.tickers:
                symbol = self.symbol_of.get(row.native)
                if symbol is None:
                    continue
                bids: list[Level] = [(row.bid, row.bid_size)] if row.bid else []
                asks: list[Level] = [(row.ask, row.ask_size)] if row.ask else []
                require_levels(bids, asks)
                tickers.append(Ticker(symbol, time_us, *best(bids), *best(asks), None, received_us))
        return tickers

    def _native(self, symbol: str) -> str:
        try:
            return self.native_of[symbol]
        except KeyError:
            raise UnknownName("symbol", symbol, list(self.native_of)) from None


def _trade(row: _Trade, symbol: str, received_us: int, source: str) -> Trade:
    require_price_and_size(row.price, row.size)
    side = _TAKER[row.side]
    return Trade(symbol, iso_us(row.time), row.price, row.size, side, natural(row.trade_id), received_us, source)


def _number(trade: Trade) -> int | str:
    return trade.trade_id


def _kline(candle: _Candle, symbol: str, time_us: int, received_us: int) -> Kline:
    require_decimals(candle.open, candle.high, candle.low, candle.close, candle.volume)
    return Kline(
        symbol=symbol,
        interval="5m",
        start_us=natural(candle.start) * 1_000_000,
        open=candle.open,
        high=candle.high,
        low=candle.low,
        close=candle.close,
        volume=candle.volume,
        quote_volume=None,
        trades_count=None,
        taker_buy_volume=None,
        closed=False,
        timestamp_us=time_us,
        received_us=received_us,
    )


def _event_us(changes: Sequence[_Change]) -> int:
    """Return the time of the last change; 0 where it has none (a snapshot's say 1970)."""
    if not changes or not changes[-1].time:
        return 0
    try:
        return iso_us(datetime.fromisoformat(changes[-1].time))
    except (ValueError, OverflowError) as error:
        raise MessageError(f"{changes[-1].time[:40]!r} is not a time.") from error


def _trades(listed: _Listed) -> bool:
    """Say whether a product is traded under its own name; the messages of an alias name the product behind it."""
    return listed.status == "online" and not (listed.trading_disabled or listed.is_disabled or listed.alias)


def _product(event: dict[str, Any]) -> str:
    """Return the product that an event of a message is about."""
    rows = event.get("trades") or event.get("candles") or event.get("tickers") or [event]
    name = rows[0].get("product_id") if isinstance(rows, list) and isinstance(rows[0], dict) else None
    return name if isinstance(name, str) else ""


def _frame(kind: str, channel: str, products: Sequence[str]) -> str:
    words: dict[str, object] = {"type": kind, "channel": channel}
    return msgspec.json.encode({**words, "product_ids": products} if products else words).decode()


def _client_frame(frame: str | None) -> _ClientFrame | None:
    try:
        return None if frame is None else _decode_client_frame(frame)
    except UNREADABLE:
        return None


def _words(body: bytes) -> str:
    refusal = _REFUSAL.decode(body)
    return refusal.message or refusal.error_details or refusal.error


def _other(frame: bytes | str, error: BaseException) -> Sequence[Event]:
    """Read a frame that is of none of our channels: a refusal, or nothing to us; raise for a broken one."""
    message = document(frame)
    if isinstance(message, dict):
        if message.get("type") == "error" and isinstance(message.get("message"), str):
            return (Rejected(None, "", message["message"]),)
        channel = message.get("channel")
        if isinstance(channel, str) and channel not in _KNOWN:
            return ()
    raise MessageError(f"A frame cannot be read: {error}.") from error
