"""Bitget spot: the public websocket v3 (of the unified account) and its REST; the base of its perpetuals.

Sources: the exchange's pages "Websocket", "Public Trade Channel", "Depth Channel", "Candlestick Channel", "Tickers
Channel", "Liquidation Channel" and "Get Tickers" of API v3, and frames of the real exchange.

v3 rather than v2, because its books name the number before their own (``pseq``), while v2 has checksums that are 0 on
many channels. Trades of v2 are read, too: recordings have them.

``side`` is the taker's. The first message of a subscription, a ``snapshot``, has trades from before it. Their ids grow,
but not by one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Literal

import msgspec

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
    PastTrade,
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
    require_signed,
    require_stream,
    symbols_once,
    trade_id,
    volume,
)
from collector.exchanges.rules import ChainedRule

STREAMS = ("prices", "orderbook", "klines", "tickers")

_API = "/api/v3/market"
_TOPICS = {
    "prices": "publicTrade",
    "orderbook": "books",
    "klines": "kline",
    "tickers": "books1",
    "funding": "ticker",
    "open_interest": "ticker",
    "liquidations": "liquidation",
}
_READ = frozenset({"publicTrade", "books", "books1", "kline", "liquidation", "trade"})
_OF_A_MARKET = frozenset({"liquidation"})
"""Topics of a whole market: they take no symbol."""
_OTHER_SIDE: dict[Side, Side] = {"buy": "sell", "sell": "buy"}
_KIND = Literal["snapshot", "update"]
_OK = "00000"


class _Argument(msgspec.Struct, gc=False):
    """What a message is about; the names of v2 are ``channel`` and ``instId``."""

    kind: str = msgspec.field(name="instType", default="spot")
    topic: str = ""
    symbol: str = ""
    interval: str = ""
    channel: str = ""
    instrument: str = msgspec.field(name="instId", default="")


class _Row(msgspec.Struct, gc=False):
    """A trade, a book, a candle, or a trade of v2: one struct, so that a message is decoded in one step."""

    id: str = msgspec.field(name="i", default="")
    price: str = msgspec.field(name="p", default="")
    size: str = msgspec.field(name="v", default="")
    side: Side | None = msgspec.field(name="S", default=None)
    time: str = msgspec.field(name="T", default="")

    bids: list[Level] | None = msgspec.field(name="b", default=None)
    asks: list[Level] | None = msgspec.field(name="a", default=None)
    sequence: Natural | None = msgspec.field(name="seq", default=None)
    previous: Natural | None = msgspec.field(name="pseq", default=None)
    book_time: str = msgspec.field(name="ts", default="")

    start: str = ""
    open: str = ""
    high: str = ""
    low: str = ""
    close: str = ""
    volume: str = ""
    turnover: str = ""

    id_v2: str = msgspec.field(name="tradeId", default="")
    price_v2: str = msgspec.field(name="price", default="")
    size_v2: str = msgspec.field(name="size", default="")
    side_v2: Side | None = msgspec.field(name="side", default=None)

    symbol: str = ""
    amount: str = ""
    funding_rate: str = msgspec.field(name="fundingRate", default="")
    next_funding: str = msgspec.field(name="nextFundingTime", default="")
    mark_price: str = msgspec.field(name="markPrice", default="")
    index_price: str = msgspec.field(name="indexPrice", default="")
    open_interest: str = msgspec.field(name="openInterest", default="")


class _Push(msgspec.Struct, gc=False):
    action: _KIND
    arg: _Argument
    data: list[_Row]
    time: Natural = msgspec.field(name="ts", default=0)


class _Answer(msgspec.Struct, gc=False):
    event: str
    arg: _Argument | None = None
    code: str | int = ""
    msg: str = ""


class _Envelope(msgspec.Struct, gc=False):
    arg: _Argument
    action: str


class _ClientFrame(msgspec.Struct, gc=False):
    op: str
    args: list[_Argument] = []


class _Listed(msgspec.Struct, gc=False):
    symbol: str
    base: str = msgspec.field(name="baseCoin")
    quote: str = msgspec.field(name="quoteCoin")
    status: str = "online"


class _ListingAnswer(msgspec.Struct, gc=False):
    code: Literal["00000"]
    data: list[_Listed]


class _BookRows(msgspec.Struct, gc=False):
    bids: list[Level] = msgspec.field(name="b")
    asks: list[Level] = msgspec.field(name="a")
    time: str = msgspec.field(name="ts", default="0")


class _BookAnswer(msgspec.Struct, gc=False):
    code: Literal["00000"]
    data: _BookRows


class _Fill(msgspec.Struct, gc=False):
    id: str = msgspec.field(name="execId")
    price: str
    size: str
    side: Side
    time: str = msgspec.field(name="ts")


class _TradesAnswer(msgspec.Struct, gc=False):
    code: Literal["00000"]
    data: list[_Fill]


class _Turnover(msgspec.Struct, gc=False):
    symbol: str
    turnover: str = msgspec.field(name="turnover24h", default="0")


class _TurnoverAnswer(msgspec.Struct, gc=False):
    code: Literal["00000"]
    data: list[_Turnover]


class _Refusal(msgspec.Struct, gc=False):
    code: str | int = ""
    msg: str = ""


_decode = msgspec.json.Decoder(_Push).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_client_frame = msgspec.json.Decoder(_ClientFrame).decode
_LISTING = msgspec.json.Decoder(_ListingAnswer)
_BOOK = msgspec.json.Decoder(_BookAnswer)
_TRADES = msgspec.json.Decoder(_TradesAnswer)
_TURNOVERS = msgspec.json.Decoder(_TurnoverAnswer)
_REFUSAL = msgspec.json.Decoder(_Refusal)


class Bitget(Exchange):
    """Bitget spot. Native spellings are ``BASEQUOTE``."""

    name = "bitget"
    ws_url = "wss://ws.bitget.com"
    rest_url = "https://api.bitget.com"
    limits = Limits(
        streams_per_connection=48,  # 1,000 are allowed, and fewer than 50 advised, by "Websocket"
        streams_per_frame=5,  # a client in production keeps to five arguments, 100 ms apart
        frames_per_s=5,  # 10 are allowed, pings among them, and 240 subscriptions an hour on a connection
        connects_per_5_min=300,
        connection_life_s=24 * 3600,
        weight_per_min=600,  # 20 requests a second for each endpoint; half of it is plenty
        ping_interval_s=25,  # it asks for one every 30 s, and closes after two minutes
    )
    streams: tuple[str, ...] = STREAMS
    trade_ids_contiguous = False
    trades_paging = "recent"
    book_needs_snapshot = False
    klines_say_closed = False

    _kind = "spot"
    _category = "SPOT"

    def listing_request(self) -> Request:
        return Request(f"{_API}/instruments", {"category": self._category})

    def parse_listing(self, body: bytes) -> list[Listing]:
        answer = read_answer(_LISTING, body, "the list of instruments", _words).data
        answer.sort(key=lambda listed: listed.status != "online")
        symbols = symbols_once((f"{listed.base}_{listed.quote}", listed.symbol) for listed in answer)
        return [
            Listing(symbol, listed.symbol, listed.base, listed.quote, listed.status == "online")
            for symbol, listed in zip(symbols, answer, strict=True)
        ]

    def write_listing(self, symbols: Sequence[str]) -> bytes | None:
        pairs = [symbol.partition("_") for symbol in symbols]
        rows = [{"symbol": f"{base}{quote}", "baseCoin": base, "quoteCoin": quote} for base, _, quote in pairs]
        return msgspec.json.encode({"code": _OK, "data": rows})

    def plan(self, subscriptions: Sequence[Subscription], *, raw_trades: bool = False) -> list[ConnectionPlan]:  # noqa: ARG002  all trades are raw
        plans = []
        for packed in pack(subscriptions, self.limits.streams_per_connection):
            arguments = _each_once(self._argument(subscription) for subscription in packed)
            frames = [_frame("subscribe", part) for part in chunks(arguments, self.limits.streams_per_frame)]
            plans.append(ConnectionPlan("/v3/ws/public", tuple(frames), tuple(packed)))
        return plans

    def renewal_frames(self, subscription: Subscription) -> Sequence[str]:
        argument = self._argument(subscription)
        return [_frame(verb, [argument]) for verb in ("unsubscribe", "subscribe")]

    def parse(self, frame: bytes | str, received_us: int) -> Sequence[Event]:
        try:
            push = _decode(frame)
        except UNREADABLE as error:
            return _other(frame, error)
        topic = push.arg.topic
        if topic == "liquidation" and "liquidations" in self.streams:
            return self._liquidations(push, received_us)
        symbol = self._symbol(push.arg)
        if symbol is None:
            return ()
        if topic == "publicTrade":
            return _trades([_trade(row, symbol, received_us) for row in push.data], push.action)
        if topic == "books":
            return [_book(row, push.action, symbol, received_us) for row in push.data]
        if topic == "kline":
            return _klines(push, symbol, received_us)
        if topic == "books1":
            return [_ticker(row, symbol, received_us) for row in push.data]
        if topic == "ticker":
            return self._contract(push, symbol, received_us)
        if push.arg.channel == "trade":
            return _trades([_trade_v2(row, symbol, received_us) for row in push.data], push.action)
        return ()

    def snapshot_request(self, symbol: str) -> Request:
        params = {"category": self._category, "symbol": self._native(symbol), "limit": "200"}
        return Request(f"{_API}/orderbook", params)

    def parse_snapshot(self, symbol: str, body: bytes, received_us: int) -> BookSnapshot:
        book = read_answer(_BOOK, body, f"the order book of {symbol}", _words).data
        require_levels(book.bids, book.asks)
        return BookSnapshot(symbol, natural(book.time) * 1000, 0, book.bids, book.asks, received_us)

    def book_rule(self) -> BookRule:
        return ChainedRule()

    def newest_trade_request(self, symbol: str) -> Request | None:
        return Request(f"{_API}/fills", {"category": self._category, "symbol": self._native(symbol), "limit": "1"})

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
        return Request(f"{_API}/fills", {"category": self._category, "symbol": self._native(symbol), "limit": "100"})

    def parse_trades(self, symbol: str, body: bytes, received_us: int) -> list[Trade]:
        answer = read_answer(_TRADES, body, f"the trades of {symbol}", _words).data
        trades = []
        for row in answer:
            require_price_and_size(row.price, row.size)
            time_us = natural(row.time) * 1000
            number = trade_id(row.id)
            trades.append(Trade(symbol, time_us, row.price, row.size, row.side, number, received_us, "rest"))
        trades.sort(key=_order)
        return trades

    def volumes_request(self) -> Request | None:
        return Request(f"{_API}/tickers", {"category": self._category})

    def parse_volumes(self, body: bytes) -> dict[str, Decimal]:
        rows = read_answer(_TURNOVERS, body, "the volumes", _words).data
        return {row.symbol: volume(row.turnover) for row in rows}

    def ping_frame(self) -> str | None:
        return "ping"

    def channel_of(self, frame: bytes | str) -> str | None:
        try:
            return _channel(_decode_envelope(frame).arg)
        except UNREADABLE:
            return None

    def channels_asked(self, path: str, frame: str | None) -> Sequence[str]:  # noqa: ARG002  nothing is asked by a path
        try:
            asked = None if frame is None else _decode_client_frame(frame)
        except UNREADABLE:
            return ()
        if asked is None or asked.op != "subscribe":
            return ()
        return [_channel(argument) for argument in asked.args]

    def acknowledgement(self, frame: str) -> str | None:
        if frame == "ping":
            return "pong"
        try:
            asked = _decode_client_frame(frame)
        except UNREADABLE:
            return None
        # The exchange acknowledges each argument in a message of its own; nobody waits for more than one.
        return msgspec.json.encode({"event": asked.op, "arg": asked.args[0]}).decode() if asked.args else None

    def _argument(self, subscription: Subscription) -> dict[str, str]:
        require_stream(subscription.stream, self.streams)
        topic = _TOPICS[subscription.stream]
        if topic in _OF_A_MARKET:
            self._native(subscription.symbol)
            return {"instType": self._kind, "topic": topic}
        argument = {"instType": self._kind, "topic": topic, "symbol": self._native(subscription.symbol)}
        return {**argument, "interval": "1m"} if topic == "kline" else argument

    def _contract(self, push: _Push, symbol: str, received_us: int) -> Sequence[Event]:
        """Read the ticker of a contract: its funding and its open interest; spot has neither."""
        if "funding" not in self.streams:
            return ()
        events: list[Event] = []
        for row in push.data:
            time_us = push.time * 1000
            if row.funding_rate or row.mark_price:
                require_signed(*filter(None, (row.funding_rate, row.mark_price, row.index_price)))
                # A contract that is delivered has no funding, and says so by the time 0.
                following = natural(row.next_funding or "0") * 1000
                rate = row.funding_rate if following and row.funding_rate else None
                prices = row.mark_price or None, row.index_price or None
                events.append(Funding(symbol, time_us, rate, following or None, *prices, received_us))
            if row.open_interest:
                require_decimals(row.open_interest)
                events.append(OpenInterest(symbol, time_us, row.open_interest, None, received_us))
        return events

    def _liquidations(self, push: _Push, received_us: int) -> Sequence[Event]:
        """Read the forced closings of a whole market: in each second the largest of either side of each contract.

        ``side`` is the position's. ``amount`` is in quote currency: divided by the price, it is a round size.
        """
        events: list[Event] = []
        for row in push.data if push.arg.kind.lower() == self._kind else ():
            symbol = self.symbol_of.get(row.symbol)
            if symbol is None:
                continue
            require_price_and_size(row.price_v2, row.amount)
            if row.side_v2 is None:
                raise MessageError(f"A liquidation of {symbol} has no side.")
            time_us, side = natural(row.book_time) * 1000, _OTHER_SIDE[row.side_v2]
            events.append(Liquidation(symbol, time_us, row.price_v2, row.amount, side, received_us))
        return events

    def _symbol(self, arg: _Argument) -> str | None:
        """Return whose message it is; None for markets that were not asked for (spot and futures share spellings)."""
        return self.symbol_of.get(arg.symbol or arg.instrument) if arg.kind.lower() == self._kind else None

    def _native(self, symbol: str) -> str:
        try:
            return self.native_of[symbol]
        except KeyError:
            raise UnknownName("symbol", symbol, list(self.native_of)) from None


def _trades(trades: list[Trade], action: _KIND) -> Sequence[Event]:
    if len(trades) > 1:
        trades.sort(key=_order)
    return trades if action == "update" else [PastTrade(trade) for trade in trades]


def _order(trade: Trade) -> tuple[int, str]:
    """Put trades in order, oldest first: they come newest first, and ids of one length sort as text."""
    return trade.timestamp_us, str(trade.trade_id).zfill(20)


def _trade(row: _Row, symbol: str, received_us: int) -> Trade:
    require_price_and_size(row.price, row.size)
    if row.side is None:
        raise MessageError(f"A trade of {symbol} has no side.")
    return Trade(symbol, natural(row.time) * 1000, row.price, row.size, row.side, trade_id(row.id), received_us)


def _trade_v2(row: _Row, symbol: str, received_us: int) -> Trade:
    require_price_and_size(row.price_v2, row.size_v2)
    if row.side_v2 is None:
        raise MessageError(f"A trade of {symbol} has no side.")
    time_us = natural(row.book_time) * 1000
    return Trade(symbol, time_us, row.price_v2, row.size_v2, row.side_v2, trade_id(row.id_v2), received_us)


def _book(row: _Row, action: _KIND, symbol: str, received_us: int) -> Event:
    bids, asks, sequence = row.bids, row.asks, row.sequence
    if bids is None or asks is None or sequence is None:
        raise MessageError(f"A message of the book of {symbol} has no sides, or no number.")
    require_levels(bids, asks)
    time_us = natural(row.book_time) * 1000
    if action == "snapshot":
        return BookSnapshot(symbol, time_us, sequence, bids, asks, received_us)
    return BookDelta(symbol, time_us, sequence, sequence, row.previous, bids, asks, received_us)


def _ticker(row: _Row, symbol: str, received_us: int) -> Ticker:
    bids, asks = row.bids or [], row.asks or []
    require_levels(bids, asks)
    return Ticker(symbol, natural(row.book_time) * 1000, *best(bids), *best(asks), row.sequence, received_us)


def _klines(push: _Push, symbol: str, received_us: int) -> Sequence[Event]:
    for row in push.data:
        require_decimals(row.open, row.high, row.low, row.close, row.volume, row.turnover)
    klines = [
        Kline(
            symbol=symbol,
            interval=push.arg.interval,
            start_us=natural(row.start) * 1000,
            open=row.open,
            high=row.high,
            low=row.low,
            close=row.close,
            volume=row.volume,
            quote_volume=row.turnover,
            trades_count=None,
            taker_buy_volume=None,
            closed=False,
            timestamp_us=push.time * 1000,
            received_us=received_us,
        )
        for row in push.data
    ]
    klines.sort(key=lambda kline: kline.start_us)
    return klines


def _each_once(arguments: Iterable[dict[str, str]]) -> list[dict[str, str]]:
    """Return arguments without repetitions: two streams may come on one channel."""
    return list({tuple(argument.items()): argument for argument in arguments}.values())


def _channel(arg: _Argument) -> str:
    topic = arg.topic or arg.channel
    return f"{topic}{f'_{arg.interval}' if arg.interval else ''}:{arg.symbol or arg.instrument}"


def _frame(verb: str, arguments: Sequence[dict[str, str]]) -> str:
    return msgspec.json.encode({"op": verb, "args": arguments}).decode()


def _words(body: bytes) -> str:
    refusal = _REFUSAL.decode(body)
    return f"{refusal.msg} (code {refusal.code})" if refusal.msg else ""


def _other(frame: bytes | str, error: BaseException) -> Sequence[Event]:
    """Read an answer to a request; return nothing for a message that we don't read; raise for a broken one."""
    if frame in (b"pong", "pong"):
        return ()
    message = document(frame)
    if isinstance(message, dict) and "event" in message:
        try:
            answer = _decode_answer(frame)
        except UNREADABLE as unreadable:
            raise MessageError(f"An answer cannot be read: {unreadable}.") from unreadable
        if answer.event == "error":
            channel = None if answer.arg is None else _channel(answer.arg)
            return (Rejected(None, str(answer.code), answer.msg, channel),)
        return (Acknowledged(None),) if answer.event in ("subscribe", "unsubscribe") else ()
    arg = message.get("arg") if isinstance(message, dict) else None
    topic = arg.get("topic", arg.get("channel")) if isinstance(arg, dict) else None
    if not isinstance(topic, str) or topic in _READ:
        raise MessageError(f"A frame of the topic {topic!r} cannot be read: {error}.") from error
    return ()
