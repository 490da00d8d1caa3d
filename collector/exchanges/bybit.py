"""Bybit, spot and linear contracts, over its v5 websocket and REST.

Sources: the exchange's pages "Connect", "Orderbook", "Trade", "Kline" (WebSocket Stream, Public), "Get Instruments
Info", "Get Orderbook", "Get Recent Public Trades", "Rate Limit Rules", and a recording of 2024. ``side`` is the
taker's. Ids of trades don't count, and of public trades only the newest can be had later. Best prices are those of the
book of one level; funding and open interest those of ``tickers``, whose messages say only what changed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Literal

import msgspec
from msgspec import field

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
    chunks,
    document,
    natural,
    pack,
    read_answer,
    require_decimals,
    require_levels,
    require_price_and_size,
    require_signed,
    require_stream,
    symbols_once,
    volume,
)
from collector.exchanges.rules import ContiguousRule

STREAMS = ("prices", "orderbook", "klines", "tickers")

DEPTH = "200"
"""Of the order book that is asked for; 1 has no changes, only its best level again and again."""

_DEEP = re.compile(r"orderbook\.(?:[2-9]|[1-9][0-9]{1,4})\.(.+)").fullmatch
"""A book of a snapshot and changes: not that of one level, nor ``orderbook.full``, which has no snapshot."""

_DIGITS = "0123456789"
_SIDES: dict[str, Side] = {"Buy": "buy", "Sell": "sell"}
_CLOSED_BY: dict[str, Side] = {"Buy": "sell", "Sell": "buy"}
"""Of a liquidated position's side (``Buy``: it was long): the side of the order that closed it."""
_TOP, _TICKERS, _LIQUIDATION = "orderbook.1.", "tickers.", "allLiquidation."
_TOPICS = {
    "prices": "publicTrade.",
    "orderbook": f"orderbook.{DEPTH}.",
    "klines": "kline.1.",
    "tickers": _TOP,
    "funding": _TICKERS,
    "open_interest": _TICKERS,
    "liquidations": _LIQUIDATION,
}
_FUNDING = ("rate", "next_funding", "mark_price", "index_price")
_INTEREST = ("amount", "value")
_INTERVALS = {"1": "1m", "5": "5m", "15": "15m", "60": "1h", "240": "4h", "D": "1d"}


class _Print(msgspec.Struct, gc=False):
    native: str = field(name="s")
    price: str = field(name="p")
    volume: str = field(name="v")
    side: Literal["Buy", "Sell"] = field(name="S")
    trade_id: str = field(name="i")
    time: Milliseconds = field(name="T")


class _Candle(msgspec.Struct, gc=False):
    start: Milliseconds
    interval: str
    open: str
    high: str
    low: str
    close: str
    volume: str
    turnover: str
    confirm: bool
    timestamp: Milliseconds


class _Book(msgspec.Struct, gc=False):
    native: str = field(name="s")
    bids: list[Level] = field(name="b")
    asks: list[Level] = field(name="a")
    last_id: Natural = field(name="u")


class _Trades(msgspec.Struct, gc=False):
    data: list[_Print]


class _Candles(msgspec.Struct, gc=False):
    data: list[_Candle]


class _BookPush(msgspec.Struct, gc=False):
    type: Literal["snapshot", "delta"]
    data: _Book
    time: Milliseconds = field(name="ts")
    engine_time: Milliseconds = field(name="cts", default=0)


class _Market(msgspec.Struct, gc=False, omit_defaults=True):
    """What ``tickers`` says of a contract; a message of changes has only what changed."""

    rate: str | None = field(name="fundingRate", default=None)
    next_funding: str | None = field(name="nextFundingTime", default=None)
    mark_price: str | None = field(name="markPrice", default=None)
    index_price: str | None = field(name="indexPrice", default=None)
    amount: str | None = field(name="openInterest", default=None)
    value: str | None = field(name="openInterestValue", default=None)


class _MarketPush(msgspec.Struct, gc=False):
    type: Literal["snapshot", "delta"]
    data: _Market
    time: Milliseconds = field(name="ts")
    sequence: Natural = field(name="cs", default=0)


class _Closed(msgspec.Struct, gc=False):
    native: str = field(name="s")
    position: Literal["Buy", "Sell"] = field(name="S")
    volume: str = field(name="v")
    price: str = field(name="p")
    time: Milliseconds = field(name="T")


class _Liquidations(msgspec.Struct, gc=False):
    data: list[_Closed]


class _Frame(msgspec.Struct, gc=False):
    """What tells the kind of a message: a topic, or an operation that is answered."""

    topic: str = ""
    op: str = ""
    success: bool | None = None
    message: str = field(name="ret_msg", default="")
    request_id: str = field(name="req_id", default="")


class _ClientFrame(msgspec.Struct, gc=False):
    op: str
    args: list[str] = []
    request_id: str = field(name="req_id", default="")


class _Listed(msgspec.Struct, gc=False):
    native: str = field(name="symbol")
    base: str = field(name="baseCoin")
    quote: str = field(name="quoteCoin")
    status: str = "Trading"


class _Instruments(msgspec.Struct, gc=False):
    rows: list[_Listed] = field(name="list")
    cursor: str | None = field(name="nextPageCursor", default=None)


class _InstrumentsAnswer(msgspec.Struct, gc=False):
    result: _Instruments
    code: Literal[0] = field(name="retCode")


class _BookResult(_Book, gc=False):
    engine_time: Milliseconds = field(name="cts", default=0)
    time: Milliseconds = field(name="ts", default=0)


class _BookAnswer(msgspec.Struct, gc=False):
    result: _BookResult
    code: Literal[0] = field(name="retCode")


class _RecentTrade(msgspec.Struct, gc=False):
    id: str = field(name="execId")
    price: str
    size: str
    side: Literal["Buy", "Sell"]
    time: str


class _RecentTrades(msgspec.Struct, gc=False):
    rows: list[_RecentTrade] = field(name="list")


class _RecentTradesAnswer(msgspec.Struct, gc=False):
    result: _RecentTrades
    code: Literal[0] = field(name="retCode")


class _Volume(msgspec.Struct, gc=False):
    native: str = field(name="symbol")
    turnover: str = field(name="turnover24h", default="")


class _Volumes(msgspec.Struct, gc=False):
    rows: list[_Volume] = field(name="list")


class _VolumesAnswer(msgspec.Struct, gc=False):
    code: Literal[0] = field(name="retCode")
    result: _Volumes


class _Refusal(msgspec.Struct, gc=False):
    code: int = field(name="retCode", default=0)
    message: str = field(name="retMsg", default="")


_decode = msgspec.json.Decoder(_Frame).decode
_decode_trades = msgspec.json.Decoder(_Trades).decode
_decode_book = msgspec.json.Decoder(_BookPush).decode
_decode_candles = msgspec.json.Decoder(_Candles).decode
_decode_market = msgspec.json.Decoder(_MarketPush).decode
_decode_liquidations = msgspec.json.Decoder(_Liquidations).decode
_decode_client_frame = msgspec.json.Decoder(_ClientFrame).decode
_INSTRUMENTS = msgspec.json.Decoder(_InstrumentsAnswer)
_BOOK = msgspec.json.Decoder(_BookAnswer)
_RECENT = msgspec.json.Decoder(_RecentTradesAnswer)
_VOLUMES = msgspec.json.Decoder(_VolumesAnswer)
_REFUSAL = msgspec.json.Decoder(_Refusal)


class Bybit(Exchange):
    """Bybit spot."""

    name = "bybit"
    streams: tuple[str, ...] = STREAMS
    ws_url = "wss://stream.bybit.com"
    rest_url = "https://api.bybit.com"
    limits = Limits(
        streams_per_connection=400,  # the names of all topics of one connection may have 21,000 characters
        streams_per_frame=10,  # on spot; elsewhere it costs nothing
        frames_per_s=10,
        connects_per_5_min=300,  # 500 are allowed
        connection_life_s=None,
        weight_per_min=1200,  # a request is one; 600 are allowed in 5 s
        ping_interval_s=20,
    )
    # "Orderbook": of one level, a snapshot is pushed again when three seconds have passed without a change.
    steady_streams: frozenset[str] = frozenset({"tickers"})
    trade_ids_contiguous = False
    trades_paging = "recent"
    klines_open_at_previous_close = True  # "Get Kline": each open of the example is the close of the row before it
    book_needs_snapshot = False
    deepest_book = 200

    _category = "spot"
    _recent_trades = "60"

    def __init__(self, listings: Sequence[Listing] = ()) -> None:
        super().__init__(listings)
        # Per symbol, because messages only say what changed: its best prices, and its market with its sequence.
        self._tops: dict[str, tuple[Level | None, Level | None]] = {}
        self._markets: dict[str, tuple[int, _Market]] = {}

    def listing_request(self) -> Request:
        return Request("/v5/market/instruments-info", {"category": self._category, "limit": "1000"})

    def next_listing_request(self, request: Request, body: bytes) -> Request | None:
        cursor = read_answer(_INSTRUMENTS, body, "the list of instruments", _words).result.cursor
        return Request(request.path, {**request.params, "cursor": cursor}) if cursor else None

    def parse_listing(self, body: bytes) -> list[Listing]:
        rows = read_answer(_INSTRUMENTS, body, "the list of instruments", _words).result.rows
        rows.sort(key=lambda row: row.status != "Trading")
        symbols = symbols_once((_symbol(row), row.native) for row in rows)
        return [
            Listing(symbol, row.native, row.base, row.quote, row.status == "Trading")
            for row, symbol in zip(rows, symbols, strict=True)
        ]

    def write_listing(self, symbols: Sequence[str]) -> bytes | None:
        pairs = [symbol.partition("_") for symbol in symbols]
        rows = [{"symbol": f"{base}{quote}", "baseCoin": base, "quoteCoin": quote} for base, _, quote in pairs]
        return msgspec.json.encode({"retCode": 0, "retMsg": "OK", "result": {"nextPageCursor": "", "list": rows}})

    def plan(self, subscriptions: Sequence[Subscription], *, raw_trades: bool = False) -> list[ConnectionPlan]:  # noqa: ARG002  all trades are raw
        return [
            # Funding and open interest are of one topic, which may be asked for once.
            self._connection(list(dict.fromkeys(self._topic(subscription) for subscription in packed)), packed)
            for packed in pack(subscriptions, self.limits.streams_per_connection)
        ]

    def renewal_frames(self, subscription: Subscription) -> Sequence[str]:
        topics = [self._topic(subscription)]
        return [msgspec.json.encode({"op": op, "args": topics}).decode() for op in ("unsubscribe", "subscribe")]

    def parse(self, frame: bytes | str, received_us: int) -> Sequence[Event]:
        try:
            # Most messages are trades, written like this; then there is no need to look for the topic first.
            if (b'"publicTrade.' if type(frame) is bytes else '"publicTrade.') in frame[:24]:  # type: ignore[operator]
                return self._trades(_decode_trades(frame), received_us)
            kind = _decode(frame)
            topic = kind.topic
            if topic.startswith(("publicTrade.", "trade.")):
                return self._trades(_decode_trades(frame), received_us)
            if _DEEP(topic):
                return self._book(_decode_book(frame), received_us)
            if topic.startswith(_TOP):
                return self._top(_decode_book(frame), received_us)
            if topic.startswith(_TICKERS) and "funding" in self.streams:
                return self._market(topic, _decode_market(frame), received_us)
            if topic.startswith(_LIQUIDATION):
                return self._liquidations(_decode_liquidations(frame).data, received_us)
            if topic.startswith("kline."):
                symbol = self.symbol_of.get(topic.rpartition(".")[2])
                rows = _decode_candles(frame).data if symbol else ()
                return [_kline(row, symbol or "", received_us) for row in rows]
        except UNREADABLE as error:
            document(frame)
            raise MessageError(f"A message cannot be read: {error}.") from error
        return () if topic else _answer(kind)

    def snapshot_request(self, symbol: str) -> Request:
        params = {"category": self._category, "symbol": self._native(symbol), "limit": DEPTH}
        return Request("/v5/market/orderbook", params)

    def parse_snapshot(self, symbol: str, body: bytes, received_us: int) -> BookSnapshot:
        book = read_answer(_BOOK, body, f"the order book of {symbol}", _words).result
        require_levels(book.bids, book.asks)
        time_us = (book.engine_time or book.time) * 1000
        return BookSnapshot(symbol, time_us, book.last_id, book.bids, book.asks, received_us)

    def book_rule(self) -> BookRule:
        return ContiguousRule()

    def newest_trade_request(self, symbol: str) -> Request | None:
        params = {"category": self._category, "symbol": self._native(symbol), "limit": "1"}
        return Request("/v5/market/recent-trade", params)

    def trades_request(
        self,
        symbol: str,
        from_id: int,  # noqa: ARG002  see below
        limit: int,  # noqa: ARG002
        *,
        raw_trades: bool = False,  # noqa: ARG002  all trades are raw
        from_us: int | None = None,  # noqa: ARG002
    ) -> Request | None:
        # It can't be paged: the newest thousand are what there is, and of spot the newest sixty.
        params = {"category": self._category, "symbol": self._native(symbol), "limit": self._recent_trades}
        return Request("/v5/market/recent-trade", params)

    def parse_trades(self, symbol: str, body: bytes, received_us: int) -> list[Trade]:
        rows = read_answer(_RECENT, body, f"the trades of {symbol}", _words).result.rows
        trades = []
        for row in rows:
            require_price_and_size(row.price, row.size)
            # Nobody vouches that these ids are ``i`` of the websocket; a repair compares what the trades say, too.
            _require_trade_id(row.id, symbol)
            time_us = natural(row.time) * 1000
            trades.append(Trade(symbol, time_us, row.price, row.size, _SIDES[row.side], row.id, received_us, "rest"))
        trades.reverse()  # newest first
        return trades

    def volumes_request(self) -> Request | None:
        return Request("/v5/market/tickers", {"category": self._category})

    def parse_volumes(self, body: bytes) -> dict[str, Decimal]:
        rows = read_answer(_VOLUMES, body, "the volumes", _words).result.rows
        return {row.native: volume(row.turnover) for row in rows}

    def ping_frame(self) -> str | None:
        return '{"op":"ping"}'

    def channel_of(self, frame: bytes | str) -> str | None:
        try:
            topic = _decode(frame).topic
        except UNREADABLE:
            return None
        return _channel(topic) if topic else None

    def channels_asked(self, path: str, frame: str | None) -> Sequence[str]:  # noqa: ARG002  only frames ask
        asked = _client_frame(frame)
        return [_channel(topic) for topic in asked.args] if asked is not None and asked.op == "subscribe" else ()

    def acknowledgement(self, frame: str) -> str | None:
        asked = _client_frame(frame)
        if asked is None or asked.op not in ("ping", "subscribe", "unsubscribe"):
            return None
        words = "pong" if asked.op == "ping" else asked.op
        answer = {"success": True, "ret_msg": words, "conn_id": "0", "req_id": asked.request_id, "op": asked.op}
        return msgspec.json.encode(answer).decode()

    def _connection(self, topics: Sequence[str], subscriptions: Sequence[Subscription]) -> ConnectionPlan:
        frames = tuple(
            msgspec.json.encode({"req_id": str(number), "op": "subscribe", "args": part}).decode()
            for number, part in enumerate(chunks(topics, self.limits.streams_per_frame), 1)
        )
        numbers = tuple(str(number) for number in range(1, len(frames) + 1))
        return ConnectionPlan(f"/v5/public/{self._category}", frames, tuple(subscriptions), numbers)

    def _topic(self, subscription: Subscription) -> str:
        require_stream(subscription.stream, self.streams)
        return _TOPICS[subscription.stream] + self._native(subscription.symbol)

    def _trades(self, message: _Trades, received_us: int) -> Sequence[Event]:
        symbol_of = self.symbol_of
        return [
            _trade(row, symbol, received_us)
            for row in message.data
            if (symbol := symbol_of.get(row.native)) is not None
        ]

    def _book(self, message: _BookPush, received_us: int) -> Sequence[Event]:
        book = message.data
        symbol = self.symbol_of.get(book.native)
        if symbol is None:
            return ()
        bids, asks, last_id = book.bids, book.asks, book.last_id
        require_levels(bids, asks)
        # ``cts`` is the matching engine's time, and the clock of the trades' ``T``; ``ts`` is when it was pushed.
        time_us = (message.engine_time or message.time) * 1000
        if message.type == "snapshot":
            return (BookSnapshot(symbol, time_us, last_id, bids, asks, received_us),)
        return (BookDelta(symbol, time_us, last_id, last_id, None, bids, asks, received_us),)

    def _top(self, message: _BookPush, received_us: int) -> Sequence[Event]:
        book = message.data
        symbol = self.symbol_of.get(book.native)
        if symbol is None:
            return ()
        require_levels(book.bids, book.asks)
        known = (None, None) if message.type == "snapshot" else self._tops.get(symbol)
        if known is None:
            return ()  # changes of what was never told: the snapshot comes first
        bid, ask = merge_top(known[0], book.bids), merge_top(known[1], book.asks)
        self._tops[symbol] = bid, ask
        time_us = (message.engine_time or message.time) * 1000
        bid_price, bid_size = bid or (None, None)
        ask_price, ask_size = ask or (None, None)
        return (Ticker(symbol, time_us, bid_price, bid_size, ask_price, ask_size, book.last_id, received_us),)

    def _market(self, topic: str, message: _MarketPush, received_us: int) -> Sequence[Event]:
        """Read what changed into what is known; say all of the part that changed."""
        symbol = self.symbol_of.get(topic.removeprefix(_TICKERS))
        if symbol is None:
            return ()
        fresh = message.data
        if message.type == "delta":
            if symbol not in self._markets:
                return ()  # as above
            sequence, before = self._markets[symbol]
            if message.sequence < sequence:
                return ()  # two connections deliver while one takes over from the other, which is behind
            known = merge_market(before, fresh)
        else:
            known = fresh
        _require_market(fresh)
        self._markets[symbol] = message.sequence, known
        time_us = message.time * 1000
        events: list[Event] = []
        if any(getattr(fresh, name) is not None for name in _FUNDING):
            next_us = natural(known.next_funding) * 1000 if known.next_funding else 0
            events.append(
                Funding(
                    symbol,
                    time_us,
                    known.rate or None,
                    next_us or None,
                    known.mark_price or None,
                    known.index_price or None,
                    received_us,
                )
            )
        if known.amount and any(getattr(fresh, name) is not None for name in _INTEREST):
            events.append(OpenInterest(symbol, time_us, known.amount, known.value or None, received_us))
        return events

    def _liquidations(self, rows: Sequence[_Closed], received_us: int) -> Sequence[Event]:
        events: list[Event] = []
        for row in rows:
            symbol = self.symbol_of.get(row.native)
            if symbol is not None:
                require_decimals(row.price, row.volume)
                side = _CLOSED_BY[row.position]
                events.append(Liquidation(symbol, row.time * 1000, row.price, row.volume, side, received_us))
        return events

    def _native(self, symbol: str) -> str:
        try:
            return self.native_of[symbol]
        except KeyError:
            raise UnknownName("symbol", symbol, list(self.native_of)) from None


def merge_top(before: Level | None, changes: Sequence[Level]) -> Level | None:
    """Return the best level after some changes of a book of one level: a new one replaces it, a size of 0 ends it."""
    after = before
    for price, size in changes:
        if size.strip("0."):
            after = (price, size)
        elif after is not None and after[0] == price:
            after = None
    return after


def merge_market(before: _Market, changes: _Market) -> _Market:
    """Return what is known of a contract after a message of changes."""
    changed = {name: value for name in (*_FUNDING, *_INTEREST) if (value := getattr(changes, name)) is not None}
    return msgspec.structs.replace(before, **changed)


def _require_market(market: _Market) -> None:
    require_signed(*filter(None, (market.rate,)))
    require_decimals(*filter(None, (market.mark_price, market.index_price, market.amount, market.value)))


def _trade(row: _Print, symbol: str, received_us: int) -> Trade:
    price, volume, trade_id = row.price, row.volume, row.trade_id
    # Nearly all numbers have a fraction, and then nothing but the point is left of them.
    if price.strip(_DIGITS) != "." or volume.strip(_DIGITS) != "." or price == "." or volume == ".":
        require_decimals(price, volume)
    _require_trade_id(trade_id, symbol)
    # Ids of spot look like numbers, but don't count the trades: they are text, so that nobody orders by them.
    return Trade(symbol, row.time * 1000, price, volume, _SIDES[row.side], trade_id, received_us)


def _require_trade_id(trade_id: str, symbol: str) -> None:
    if not (trade_id.isascii() and trade_id.replace("-", "").isalnum() and len(trade_id) <= 64):
        raise MessageError(f"{trade_id[:40]!r} is not the id of a trade of {symbol}.")


def _kline(row: _Candle, symbol: str, received_us: int) -> Kline:
    require_decimals(row.open, row.high, row.low, row.close, row.volume, row.turnover)
    return Kline(
        symbol=symbol,
        interval=_INTERVALS.get(row.interval, row.interval),
        start_us=row.start * 1000,
        open=row.open,
        high=row.high,
        low=row.low,
        close=row.close,
        volume=row.volume,
        quote_volume=row.turnover,
        trades_count=None,
        taker_buy_volume=None,
        closed=row.confirm,
        timestamp_us=row.timestamp * 1000,
        received_us=received_us,
    )


def _answer(frame: _Frame) -> Sequence[Event]:
    if frame.op == "subscribe" or (not frame.op and frame.success is False):
        request_id = frame.request_id or None
        if frame.success:
            return (Acknowledged(request_id),)
        if frame.success is False:
            return (Rejected(request_id, "", frame.message),)
    return ()


def _symbol(row: _Listed) -> str:
    """Return ``BASE_QUOTE``; of a dated contract (``BTC-27MAR26``, ``BTCUSDT-27MAR26``) with its day."""
    symbol = f"{row.base}_{row.quote}"
    delivery = row.native.partition("-")[2]
    return f"{symbol}-{delivery}" if delivery else symbol


def _channel(topic: str) -> str:
    """Spell a channel in one way: the books of any depth beyond one are one, so that a recording of any plays."""
    deep = _DEEP(topic)
    return f"orderbook.{deep[1]}" if deep else topic


def _client_frame(frame: str | None) -> _ClientFrame | None:
    try:
        return None if frame is None else _decode_client_frame(frame)
    except UNREADABLE:
        return None


def _words(body: bytes) -> str:
    refusal = _REFUSAL.decode(body)
    return f"{refusal.message} (code {refusal.code})" if refusal.code else ""
