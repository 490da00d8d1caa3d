"""KuCoin's perpetuals of USDT: spot's connection and token, other topics, sizes in contracts.

Sources: the exchange's pages "Get Ticker v2", "Match execution data", "Level 2 Market Data", "Contract Market Data" and
"Get All Symbols" of its futures, and frames of the real exchange of 2024.

A size is a number of contracts, each worth ``multiplier`` of base currency. Rates, marks and REST's prices are JSON
numbers: their text is kept, an exponent is written out. Open interest comes over REST only. Candles are left out: a
client in production finds their volume wrong. Forced orders are not published. XBT is BTC here as elsewhere.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Any, Literal, final

import msgspec

from collector.errors import MessageError
from collector.events import BookDelta, BookSnapshot, Event, Funding, Level, OpenInterest, Side, Ticker, Trade
from collector.exchanges.base import ConnectionPlan, Listing, Request, Subscription
from collector.exchanges.decode import (
    UNREADABLE,
    Natural,
    best,
    chunks,
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
from collector.exchanges.kucoin import Kucoin, read_answer_frame, subscribe_frame, words_of

STREAMS = ("prices", "orderbook", "tickers", "funding", "open_interest")

_TOPICS = {
    "prices": "/contractMarket/execution",
    "orderbook": "/contractMarket/level2",
    "tickers": "/contractMarket/tickerV2",
    "funding": "/contract/instrument",
}
_SUBJECTS = frozenset({"match", "level2", "tickerV2", "mark.index.price", "funding.rate"})
_CONTRACTS = "/api/v1/contracts/active"
_TO_OURS = {"XBT": "BTC"}
_Number = Any
"""The text of a number, as the decoder's ``float_hook`` leaves it; an int where it has neither point nor exponent."""


class _Match(msgspec.Struct, gc=False):
    trade_id: str = msgspec.field(name="tradeId")
    price: str
    size: _Number
    side: Side
    time_ns: Natural = msgspec.field(name="ts")


class _Change(msgspec.Struct, gc=False):
    sequence: Natural
    change: str
    time: Natural = msgspec.field(name="timestamp")


class _Best(msgspec.Struct, gc=False):
    sequence: Natural
    bid: str = msgspec.field(name="bestBidPrice")
    bid_size: _Number = msgspec.field(name="bestBidSize")
    ask: str = msgspec.field(name="bestAskPrice")
    ask_size: _Number = msgspec.field(name="bestAskSize")
    time_ns: Natural = msgspec.field(name="ts")


class _Marks(msgspec.Struct, gc=False):
    mark: _Number = msgspec.field(name="markPrice")
    index: _Number = msgspec.field(name="indexPrice")
    time: Natural = msgspec.field(name="timestamp")


class _Rate(msgspec.Struct, gc=False):
    rate: _Number = msgspec.field(name="fundingRate")
    time: Natural = msgspec.field(name="timestamp")


@final
class _MatchMessage(msgspec.Struct, tag_field="subject", tag="match", gc=False):
    topic: str
    data: _Match


@final
class _ChangeMessage(msgspec.Struct, tag_field="subject", tag="level2", gc=False):
    topic: str
    data: _Change


@final
class _BestMessage(msgspec.Struct, tag_field="subject", tag="tickerV2", gc=False):
    topic: str
    data: _Best


@final
class _MarksMessage(msgspec.Struct, tag_field="subject", tag="mark.index.price", gc=False):
    topic: str
    data: _Marks


@final
class _RateMessage(msgspec.Struct, tag_field="subject", tag="funding.rate", gc=False):
    topic: str
    data: _Rate


class _Contract(msgspec.Struct, gc=False):
    native: str = msgspec.field(name="symbol")
    base: str = msgspec.field(name="baseCurrency")
    quote: str = msgspec.field(name="quoteCurrency")
    multiplier: _Number = 0
    inverse: bool = msgspec.field(name="isInverse", default=False)
    delivery: int | None = msgspec.field(name="expireDate", default=None)
    status: str = "Open"
    open_interest: str | None = msgspec.field(name="openInterest", default=None)
    turnover: _Number = msgspec.field(name="turnoverOf24h", default=0)


class _ContractsAnswer(msgspec.Struct, gc=False):
    code: Literal["200000"]
    data: list[_Contract]


class _Book(msgspec.Struct, gc=False):
    sequence: Natural
    bids: list[tuple[_Number, _Number]]
    asks: list[tuple[_Number, _Number]]
    time_ns: Natural = msgspec.field(name="ts", default=0)


class _BookAnswer(msgspec.Struct, gc=False):
    code: Literal["200000"]
    data: _Book


_decode = msgspec.json.Decoder(
    _MatchMessage | _ChangeMessage | _BestMessage | _MarksMessage | _RateMessage, float_hook=str
).decode
_CONTRACTS_ANSWER = msgspec.json.Decoder(_ContractsAnswer, float_hook=str)
_BOOK = msgspec.json.Decoder(_BookAnswer, float_hook=str)


class KucoinLinear(Kucoin):
    """KuCoin's perpetual contracts of USDT. Native spellings are ``XBTUSDTM``."""

    name = "kucoin_linear"
    ws_url = "wss://ws-api-futures.kucoin.com"
    rest_url = "https://api-futures.kucoin.com"
    streams = STREAMS
    polled_streams = ("open_interest",)
    steady_streams = frozenset({"funding"})  # "Instrument": the mark price each second, the rate each minute

    def listing_request(self) -> Request:
        return Request(_CONTRACTS, weight=6)

    def parse_listing(self, body: bytes) -> list[Listing]:
        rows = read_answer(_CONTRACTS_ANSWER, body, "the list of contracts", words_of).data
        rows = [row for row in rows if row.quote == "USDT" and row.delivery is None and not row.inverse]
        rows.sort(key=lambda row: row.status != "Open")
        bases = [_TO_OURS.get(row.base, row.base) for row in rows]
        symbols = symbols_once((f"{base}_{row.quote}", row.native) for base, row in zip(bases, rows, strict=True))
        return [
            Listing(symbol, row.native, base, row.quote, row.status == "Open", _plain(row.multiplier))
            for symbol, base, row in zip(symbols, bases, rows, strict=True)
        ]

    def write_listing(self, symbols: Sequence[str]) -> bytes | None:
        rows = []
        for symbol in symbols:
            base, _, quote = symbol.partition("_")
            base = {ours: theirs for theirs, ours in _TO_OURS.items()}.get(base, base)
            names = {"symbol": f"{base}{quote}M", "baseCurrency": base, "quoteCurrency": quote}
            rows.append({**names, "multiplier": 1})
        return msgspec.json.encode({"code": "200000", "data": rows})

    def plan(self, subscriptions: Sequence[Subscription], *, raw_trades: bool = False) -> list[ConnectionPlan]:  # noqa: ARG002  all trades are raw
        for subscription in subscriptions:
            require_stream(subscription.stream, self.streams)
        pushed = [asked for asked in subscriptions if asked.stream in _TOPICS]
        return [self._connect(packed) for packed in pack(pushed, self.limits.streams_per_connection)]

    def parse(self, frame: bytes | str, received_us: int) -> Sequence[Event]:
        try:
            message = _decode(frame)
        except UNREADABLE as error:
            return read_answer_frame(frame, error, _SUBJECTS)
        symbol = self.symbol_of.get(message.topic.rpartition(":")[2])
        if symbol is None:
            return ()
        if type(message) is _MatchMessage:
            trade = message.data
            size = _plain(trade.size)
            require_price_and_size(trade.price, size)
            number = trade_id(trade.trade_id)
            return (Trade(symbol, trade.time_ns // 1000, trade.price, size, trade.side, number, received_us),)
        if type(message) is _ChangeMessage:
            return (_delta(message.data, symbol, received_us),)
        if type(message) is _BestMessage:
            row = message.data
            bids: list[Level] = [(row.bid, _plain(row.bid_size))]
            asks: list[Level] = [(row.ask, _plain(row.ask_size))]
            require_levels(bids, asks)
            return (Ticker(symbol, row.time_ns // 1000, *best(bids), *best(asks), row.sequence, received_us),)
        if type(message) is _MarksMessage:
            prices = _plain(message.data.mark), _plain(message.data.index)
            require_decimals(*prices)
            return (Funding(symbol, message.data.time * 1000, None, None, *prices, received_us),)
        if type(message) is _RateMessage:
            rate = _plain(message.data.rate)
            return (Funding(symbol, message.data.time * 1000, rate, None, None, None, received_us),)
        return ()

    def snapshot_request(self, symbol: str) -> Request:
        return Request("/api/v1/level2/snapshot", {"symbol": self._native(symbol)}, weight=6)

    def parse_snapshot(self, symbol: str, body: bytes, received_us: int) -> BookSnapshot:
        book = read_answer(_BOOK, body, f"the order book of {symbol}", words_of).data
        bids: list[Level] = [(_plain(price), _plain(size)) for price, size in book.bids]
        asks: list[Level] = [(_plain(price), _plain(size)) for price, size in book.asks]
        require_levels(bids, asks)
        return BookSnapshot(symbol, book.time_ns // 1000, book.sequence, bids, asks, received_us)

    def trades_request(
        self,
        symbol: str,  # noqa: ARG002  REST's trades have another form, which nothing here was seen of
        from_id: int,  # noqa: ARG002
        limit: int,  # noqa: ARG002
        *,
        raw_trades: bool = False,  # noqa: ARG002
        from_us: int | None = None,  # noqa: ARG002
    ) -> Request | None:
        return None

    def parse_trades(self, symbol: str, body: bytes, received_us: int) -> list[Trade]:  # noqa: ARG002  never asked for
        raise MessageError(f"The trades of {symbol} are not asked of REST.")

    def newest_trade_request(self, symbol: str) -> Request | None:  # noqa: ARG002  as above
        return None

    def volumes_request(self) -> Request | None:
        return self.listing_request()

    def parse_volumes(self, body: bytes) -> dict[str, Decimal]:
        rows = read_answer(_CONTRACTS_ANSWER, body, "the volumes", words_of).data
        return {row.native: volume(str(row.turnover)) for row in rows}

    def poll_requests(self, subscriptions: Sequence[Subscription]) -> Sequence[Request]:
        wanted = any(asked.stream == "open_interest" for asked in subscriptions)
        return (self.listing_request(),) if wanted else ()

    def parse_poll(self, request: Request, body: bytes, received_us: int) -> Sequence[Event]:  # noqa: ARG002  one kind
        events = []
        for row in read_answer(_CONTRACTS_ANSWER, body, "open interest", words_of).data:
            symbol = self.symbol_of.get(row.native)
            if symbol is not None and row.open_interest:
                require_decimals(row.open_interest)
                events.append(OpenInterest(symbol, received_us, row.open_interest, None, received_us, "rest"))
        return events

    def _connect(self, subscriptions: Sequence[Subscription]) -> ConnectionPlan:
        topics = []
        for stream, topic in _TOPICS.items():
            natives = [self._native(asked.symbol) for asked in subscriptions if asked.stream == stream]
            topics += [f"{topic}:{','.join(part)}" for part in chunks(natives, self.limits.streams_per_frame)]
        frames = tuple(subscribe_frame(str(number), topic) for number, topic in enumerate(topics, 1))
        return ConnectionPlan("/endpoint", frames, tuple(subscriptions), tuple(map(str, range(1, len(topics) + 1))))


def _delta(row: _Change, symbol: str, received_us: int) -> BookDelta:
    parts = row.change.split(",")
    if len(parts) != 3 or parts[1] not in ("buy", "sell"):
        raise MessageError(f"A change of the book of {symbol} is none: {row.change[:60]!r}.")
    price, side, size = parts
    # A price of zero changes no level: it only moves the sequence on.
    levels: list[Level] = [(price, size)] if price.strip("0.") else []
    bids, asks = (levels, []) if side == "buy" else ([], levels)
    require_levels(bids, asks)
    return BookDelta(symbol, row.time * 1000, row.sequence, row.sequence, None, bids, asks, received_us)


def _plain(number: object) -> str:
    """Return a number's text as plain decimal digits; raise MessageError for what is none."""
    text = str(number) if type(number) is int else number
    if not isinstance(text, str):
        raise MessageError(f"{str(number)[:40]!r} is not a number.")
    if "e" in text or "E" in text:
        text = format(volume(text), "f")
    require_signed(text)
    return text
