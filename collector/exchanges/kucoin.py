"""KuCoin spot: the classic public websocket and its REST.

Sources: the exchange's pages "WebSocket: introduction", "Get Public Token", "Trade", "Orderbook Increment", "Ticker",
"Klines", "Get Part OrderBook" and "Get All Tickers", and a recording of the real exchange. Before each connection REST
gives an address and a token. ``side`` of a match is the taker's. The ids of trades grow, but not by one.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Literal, final
from urllib.parse import quote, urlsplit

import msgspec

from collector.errors import MessageError, UnknownName
from collector.events import (
    Acknowledged,
    BookDelta,
    BookSnapshot,
    Event,
    Kline,
    Level,
    Rejected,
    Side,
    Ticker,
    Trade,
)
from collector.exchanges.base import BookRule, ConnectionPlan, Exchange, Limits, Listing, Request, Subscription
from collector.exchanges.decode import (
    UNREADABLE,
    Natural,
    best,
    chunks,
    document,
    natural,
    pack,
    read_answer,
    require_decimals,
    require_levels,
    require_price_and_size,
    require_stream,
    symbols_once,
    trade_id,
    volume,
)
from collector.exchanges.rules import ContiguousRule

STREAMS = ("prices", "orderbook", "klines", "tickers")

_MATCH, _LEVEL2, _CANDLES, _TICKER = "/market/match", "/market/level2", "/market/candles", "/market/ticker"
_TOPICS = {"prices": _MATCH, "orderbook": _LEVEL2, "klines": _CANDLES, "tickers": _TICKER}
_SUBJECTS = frozenset({"trade.l3match", "trade.l2update", "trade.ticker", "trade.candles.add", "trade.candles.update"})
_INTERVALS = {"1min": "1m", "5min": "5m", "15min": "15m", "1hour": "1h", "4hour": "4h", "1day": "1d"}
_OK = "200000"
_LISTING_PATH = "/api/v2/symbols"
_BOOK_PATH = "/api/v1/market/orderbook/level2_100"
_CURRENT_PATHS = {"/api/v1/symbols": _LISTING_PATH, "/api/v3/market/orderbook/level2": _BOOK_PATH}
"""Answers of the same form that were had under other paths: an older version's, and one that wants a key now."""


class _Match(msgspec.Struct, gc=False):
    native: str = msgspec.field(name="symbol")
    trade_id: str = msgspec.field(name="tradeId")
    price: str
    size: str
    side: Side
    time: str


class _Changes(msgspec.Struct, gc=False):
    bids: list[tuple[str, str, str | int]]
    asks: list[tuple[str, str, str | int]]


class _Level2(msgspec.Struct, gc=False):
    native: str = msgspec.field(name="symbol")
    first_id: Natural = msgspec.field(name="sequenceStart")
    last_id: Natural = msgspec.field(name="sequenceEnd")
    changes: _Changes
    time: Natural = 0


class _Candle(msgspec.Struct, gc=False):
    native: str = msgspec.field(name="symbol")
    values: tuple[str, str, str, str, str, str, str] = msgspec.field(name="candles")
    time: Natural = 0


class _Best(msgspec.Struct, gc=False):
    bid: str = msgspec.field(name="bestBid")
    bid_size: str = msgspec.field(name="bestBidSize")
    ask: str = msgspec.field(name="bestAsk")
    ask_size: str = msgspec.field(name="bestAskSize")
    sequence: str
    time: Natural = 0


@final
class _TickerMessage(msgspec.Struct, tag_field="subject", tag="trade.ticker", gc=False):
    data: _Best
    topic: str


@final
class _MatchMessage(msgspec.Struct, tag_field="subject", tag="trade.l3match", gc=False):
    data: _Match


@final
class _Level2Message(msgspec.Struct, tag_field="subject", tag="trade.l2update", gc=False):
    data: _Level2


@final
class _NewCandleMessage(msgspec.Struct, tag_field="subject", tag="trade.candles.add", gc=False):
    data: _Candle
    topic: str


@final
class _CandleMessage(msgspec.Struct, tag_field="subject", tag="trade.candles.update", gc=False):
    data: _Candle
    topic: str


class _Answer(msgspec.Struct, gc=False):
    type: str
    id: str | int | None = None
    code: int | str = ""
    data: str = ""


class _Envelope(msgspec.Struct, gc=False):
    type: str = ""
    topic: str = ""


class _ClientFrame(msgspec.Struct, gc=False):
    type: str
    topic: str = ""
    id: str | int | None = None


class _Listed(msgspec.Struct, gc=False):
    symbol: str
    base: str = msgspec.field(name="baseCurrency")
    quote: str = msgspec.field(name="quoteCurrency")
    active: bool = msgspec.field(name="enableTrading", default=True)


class _Server(msgspec.Struct, gc=False):
    endpoint: str


class _Token(msgspec.Struct, gc=False):
    token: str
    servers: list[_Server] = msgspec.field(name="instanceServers")


class _Book(msgspec.Struct, gc=False):
    sequence: str | int
    bids: list[Level]
    asks: list[Level]
    time: Natural = 0


class _Row(msgspec.Struct, gc=False):
    sequence: str
    price: str
    size: str
    side: Side
    time: Natural


class _Volume(msgspec.Struct, gc=False):
    symbol: str
    turnover: str | None = msgspec.field(name="volValue", default=None)


class _Volumes(msgspec.Struct, gc=False):
    ticker: list[_Volume]


class _VolumesAnswer(msgspec.Struct, gc=False):
    code: Literal["200000"]
    data: _Volumes


class _ListingAnswer(msgspec.Struct, gc=False):
    code: Literal["200000"]
    data: list[_Listed]


class _TokenAnswer(msgspec.Struct, gc=False):
    code: Literal["200000"]
    data: _Token


class _BookAnswer(msgspec.Struct, gc=False):
    code: Literal["200000"]
    data: _Book


class _TradesAnswer(msgspec.Struct, gc=False):
    code: Literal["200000"]
    data: list[_Row]


class _Refusal(msgspec.Struct, gc=False):
    code: str = ""
    msg: str = ""


_decode = msgspec.json.Decoder(
    _MatchMessage | _Level2Message | _NewCandleMessage | _CandleMessage | _TickerMessage
).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_client_frame = msgspec.json.Decoder(_ClientFrame).decode
_LISTING = msgspec.json.Decoder(_ListingAnswer)
_TOKEN = msgspec.json.Decoder(_TokenAnswer)
_BOOK = msgspec.json.Decoder(_BookAnswer)
_TRADES = msgspec.json.Decoder(_TradesAnswer)
_VOLUMES = msgspec.json.Decoder(_VolumesAnswer)
_REFUSAL = msgspec.json.Decoder(_Refusal)


class Kucoin(Exchange):
    """KuCoin spot. Native spellings are ``BASE-QUOTE``."""

    name = "kucoin"
    ws_url = "wss://ws-api-spot.kucoin.com"
    rest_url = "https://api.kucoin.com"
    limits = Limits(
        streams_per_connection=300,  # topics, by its FAQ; some pages say 400
        streams_per_frame=100,
        frames_per_s=5,  # 100 in 10 s, pings among them
        connects_per_5_min=150,  # 30 a minute
        connection_life_s=24 * 3600,  # a token's
        weight_per_min=2000,  # 2,000 in 30 s for public requests; half of it is plenty
        ping_interval_s=15,  # answers to the request for a token ask for 18
    )
    streams: tuple[str, ...] = STREAMS
    trade_ids_contiguous = False
    snapshot_depth = 100
    deepest_book = 50
    trades_paging = "recent"
    klines_say_closed = False

    def connection_request(self) -> Request | None:
        return Request("/api/v1/bullet-public", method="POST", weight=10)

    def address_from(self, body: bytes) -> str:
        answer = read_answer(_TOKEN, body, "a token", words_of).data
        for server in answer.servers:
            if urlsplit(server.endpoint).scheme in ("ws", "wss"):
                return f"{server.endpoint}?token={quote(answer.token, safe='')}"
        raise MessageError("The answer to the request for a token names no websocket address.")

    def listing_request(self) -> Request:
        return Request(_LISTING_PATH, weight=4)

    def parse_listing(self, body: bytes) -> list[Listing]:
        answer = read_answer(_LISTING, body, "the list of symbols", words_of).data
        answer.sort(key=lambda listed: not listed.active)
        symbols = symbols_once((f"{listed.base}_{listed.quote}", listed.symbol) for listed in answer)
        return [
            Listing(symbol, listed.symbol, listed.base, listed.quote, listed.active)
            for symbol, listed in zip(symbols, answer, strict=True)
        ]

    def write_listing(self, symbols: Sequence[str]) -> bytes | None:
        pairs = [symbol.partition("_") for symbol in symbols]
        rows = [{"symbol": f"{base}-{quote}", "baseCurrency": base, "quoteCurrency": quote} for base, _, quote in pairs]
        return msgspec.json.encode({"code": _OK, "data": rows})

    def plan(self, subscriptions: Sequence[Subscription], *, raw_trades: bool = False) -> list[ConnectionPlan]:  # noqa: ARG002  all trades are raw
        for subscription in subscriptions:
            require_stream(subscription.stream, self.streams)
        return [self._connection(packed) for packed in pack(subscriptions, self.limits.streams_per_connection)]

    def parse(self, frame: bytes | str, received_us: int) -> Sequence[Event]:
        try:
            message = _decode(frame)
        except UNREADABLE as error:
            return read_answer_frame(frame, error, _SUBJECTS)
        if type(message) is _TickerMessage:
            return self._ticker(message, received_us)
        symbol = self.symbol_of.get(message.data.native)
        if symbol is None:
            return ()
        if type(message) is _MatchMessage:
            body = message.data
            require_price_and_size(body.price, body.size)
            time_us = natural(body.time) // 1000
            number = trade_id(body.trade_id)
            return (Trade(symbol, time_us, body.price, body.size, body.side, number, received_us),)
        if type(message) is _Level2Message:
            return (_delta(message.data, symbol, received_us),)
        return _kline(message, symbol, received_us)

    def snapshot_request(self, symbol: str) -> Request:
        # The whole book wants an API key.
        return Request(_BOOK_PATH, {"symbol": self._native(symbol)}, weight=4)

    def parse_snapshot(self, symbol: str, body: bytes, received_us: int) -> BookSnapshot:
        book = read_answer(_BOOK, body, f"the order book of {symbol}", words_of).data
        require_levels(book.bids, book.asks)
        sequence = natural(str(book.sequence))
        return BookSnapshot(symbol, book.time * 1000, sequence, book.bids, book.asks, received_us)

    def book_rule(self) -> BookRule:
        # "sequenceStart <= sequence + 1 and sequenceEnd > sequence": "Orderbook Increment, Calibration procedure".
        return ContiguousRule()

    def newest_trade_request(self, symbol: str) -> Request | None:
        return Request("/api/v1/market/histories", {"symbol": self._native(symbol)}, weight=3)

    def trades_request(
        self,
        symbol: str,
        from_id: int,  # noqa: ARG002  see below
        limit: int,  # noqa: ARG002
        *,
        raw_trades: bool = False,  # noqa: ARG002  all trades are raw
        from_us: int | None = None,  # noqa: ARG002
    ) -> Request | None:
        # It can't be paged: the newest hundred are what there is.
        return Request("/api/v1/market/histories", {"symbol": self._native(symbol)}, weight=3)

    def parse_trades(self, symbol: str, body: bytes, received_us: int) -> list[Trade]:
        answer = read_answer(_TRADES, body, f"the trades of {symbol}", words_of).data
        for row in answer:
            require_price_and_size(row.price, row.size)
        trades = [
            Trade(symbol, row.time // 1000, row.price, row.size, row.side, trade_id(row.sequence), received_us, "rest")
            for row in answer
        ]
        trades.sort(key=lambda trade: trade.timestamp_us)
        return trades

    def volumes_request(self) -> Request | None:
        return Request("/api/v1/market/allTickers", weight=15)

    def parse_volumes(self, body: bytes) -> dict[str, Decimal]:
        rows = read_answer(_VOLUMES, body, "the volumes", words_of).data.ticker
        return {row.symbol: volume(row.turnover or "") for row in rows}

    def current_path(self, path: str) -> str:
        return _CURRENT_PATHS.get(path, path)

    def ping_frame(self) -> str | None:
        return '{"id":"ping","type":"ping"}'

    def channel_of(self, frame: bytes | str) -> str | None:
        try:
            envelope = _decode_envelope(frame)
        except UNREADABLE:
            return None
        return envelope.topic or None if envelope.type == "message" else None

    def channels_asked(self, path: str, frame: str | None) -> Sequence[str]:  # noqa: ARG002  nothing is asked by a path
        asked = _client_frame(frame)
        if asked is None or asked.type != "subscribe":
            return ()
        topic, _, names = asked.topic.partition(":")
        return [f"{topic}:{name}" for name in names.split(",") if name]

    def acknowledgement(self, frame: str) -> str | None:
        asked = _client_frame(frame)
        if asked is None or asked.type not in ("subscribe", "unsubscribe", "ping"):
            return None
        kind = "pong" if asked.type == "ping" else "ack"
        return msgspec.json.encode({"id": str(asked.id), "type": kind}).decode()

    def _connection(self, subscriptions: Sequence[Subscription]) -> ConnectionPlan:
        topics: list[str] = []
        for stream in ("prices", "orderbook", "tickers"):
            natives = [self._native(asked.symbol) for asked in subscriptions if asked.stream == stream]
            topics += [f"{_TOPICS[stream]}:{','.join(part)}" for part in chunks(natives, self.limits.streams_per_frame)]
        topics += [
            f"{_CANDLES}:{self._native(asked.symbol)}_1min" for asked in subscriptions if asked.stream == "klines"
        ]
        frames = tuple(subscribe_frame(str(number), topic) for number, topic in enumerate(topics, 1))
        return ConnectionPlan("/endpoint", frames, tuple(subscriptions), tuple(map(str, range(1, len(topics) + 1))))

    def _ticker(self, message: _TickerMessage, received_us: int) -> Sequence[Event]:
        symbol = self.symbol_of.get(message.topic.rpartition(":")[2])
        if symbol is None:
            return ()
        row = message.data
        bids: list[Level] = [(row.bid, row.bid_size)]
        asks: list[Level] = [(row.ask, row.ask_size)]
        require_levels(bids, asks)
        sequence = natural(row.sequence)
        time_us = row.time * 1000 or received_us
        return (Ticker(symbol, time_us, *best(bids), *best(asks), sequence, received_us, timed=row.time > 0),)

    def _native(self, symbol: str) -> str:
        try:
            return self.native_of[symbol]
        except KeyError:
            raise UnknownName("symbol", symbol, list(self.native_of)) from None


def _delta(body: _Level2, symbol: str, received_us: int) -> BookDelta:
    # A price of zero changes no level: it only moves the sequence on.
    bids: list[Level] = [(price, size) for price, size, _ in body.changes.bids if price != "0"]
    asks: list[Level] = [(price, size) for price, size, _ in body.changes.asks if price != "0"]
    require_levels(bids, asks)
    if body.first_id > body.last_id:
        raise MessageError(f"A change of the book of {symbol} ends before it begins ({body.first_id}, {body.last_id}).")
    # Older messages have no time; then that of receipt is the nearest there is.
    time_us = body.time * 1000 or received_us
    return BookDelta(symbol, time_us, body.first_id, body.last_id, None, bids, asks, received_us)


def _kline(message: _CandleMessage | _NewCandleMessage, symbol: str, received_us: int) -> Sequence[Event]:
    interval = _INTERVALS.get(message.topic.rpartition("_")[2])
    if interval is None:
        return ()
    start, opened, close, high, low, volume, turnover = message.data.values
    require_decimals(opened, close, high, low, volume, turnover)
    return (
        Kline(
            symbol=symbol,
            interval=interval,
            start_us=natural(start) * 1_000_000,
            open=opened,
            high=high,
            low=low,
            close=close,
            volume=volume,
            quote_volume=turnover,
            trades_count=None,
            taker_buy_volume=None,
            closed=False,
            timestamp_us=message.data.time // 1000,
            received_us=received_us,
        ),
    )


def subscribe_frame(number: str, topic: str) -> str:
    """Return the frame that asks for a topic, and for an answer."""
    frame: dict[str, Any] = {"id": number, "type": "subscribe", "topic": topic, "privateChannel": False}
    return msgspec.json.encode({**frame, "response": True}).decode()


def _client_frame(frame: str | None) -> _ClientFrame | None:
    try:
        return None if frame is None else _decode_client_frame(frame)
    except UNREADABLE:
        return None


def words_of(body: bytes) -> str:
    """Return the exchange's own words from the body of an error."""
    refusal = _REFUSAL.decode(body)
    return f"{refusal.msg} (code {refusal.code})" if refusal.msg else ""


def read_answer_frame(frame: bytes | str, error: BaseException, known: frozenset[str]) -> Sequence[Event]:
    """Read an answer to a request; return nothing for a message that we don't read; raise for a broken frame."""
    message = document(frame)
    if isinstance(message, dict) and message.get("type") in ("ack", "error"):
        try:
            answer = _decode_answer(frame)
        except UNREADABLE as unreadable:
            raise MessageError(f"An answer cannot be read: {unreadable}.") from unreadable
        if answer.type == "ack":
            return (Acknowledged(answer.id),)
        return (Rejected(answer.id, str(answer.code), answer.data),)
    if isinstance(message, dict) and isinstance(message.get("type"), str):
        subject = message.get("subject", "")
        if isinstance(subject, str) and subject not in known:
            return ()
    raise MessageError(f"A frame cannot be read: {error}.") from error
