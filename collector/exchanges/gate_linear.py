"""Gate's USDT perpetuals: spot's words on another address, sizes in contracts.

Sources: the exchange's pages "Futures WebSocket v4" and "Gate API v4", and frames of the real exchange of 2020 to 2026.

A size is a number of contracts, each worth ``quanto_multiplier`` of base currency; that of a trade is negative where
the taker sold. With the header ``X-Gate-Size-Decimal`` sizes may have a fraction, and are text. Nothing says that
trade ids count up by one, so nobody looks for holes in them. Forced orders (``futures.public_liquidates``) are left
out: their size has a sign, and no page says whether it is the order's or the position's.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType
from typing import Any, final

import msgspec

from collector.errors import MessageError
from collector.events import BookDelta, BookSnapshot, Event, Funding, Kline, Level, OpenInterest, Side, Ticker, Trade
from collector.exchanges.base import BookRule, Limits, Listing, Request, Subscription
from collector.exchanges.decode import (
    UNREADABLE,
    Natural,
    best,
    chunks,
    document,
    read_answer,
    require_decimals,
    require_levels,
    require_price_and_size,
    require_signed,
    volume,
)
from collector.exchanges.gate import Gate, read_answer_frame, words_of
from collector.exchanges.rules import ContiguousRule

STREAMS = ("prices", "orderbook", "klines", "tickers", "funding", "open_interest")

_API = "/api/v4/futures/usdt"
_TRADES, _CHANGES, _CANDLES = "futures.trades", "futures.order_book_update", "futures.candlesticks"
_BEST, _TICKERS = "futures.book_ticker", "futures.tickers"
_KNOWN = frozenset({_TRADES, _CHANGES, _CANDLES, _BEST, _TICKERS})
_OF_MANY = {"prices": _TRADES, "tickers": _BEST, "funding": _TICKERS, "open_interest": _TICKERS}
_DEPTH = "100"

_Size = str | int


class _Print(msgspec.Struct, gc=False):
    native: str = msgspec.field(name="contract")
    id: Natural
    price: str
    size: _Size
    time: Natural = msgspec.field(name="create_time")
    time_ms: Natural = msgspec.field(name="create_time_ms", default=0)


class _Level(msgspec.Struct, gc=False):
    price: str = msgspec.field(name="p")
    size: _Size = msgspec.field(name="s")


class _Changes(msgspec.Struct, gc=False):
    native: str = msgspec.field(name="s")
    time: Natural = msgspec.field(name="t")
    first_id: Natural = msgspec.field(name="U")
    last_id: Natural = msgspec.field(name="u")
    bids: list[_Level] = msgspec.field(name="b", default_factory=list)
    asks: list[_Level] = msgspec.field(name="a", default_factory=list)
    full: bool = False


class _Candle(msgspec.Struct, gc=False):
    name: str = msgspec.field(name="n")
    start: Natural = msgspec.field(name="t")
    open: str = msgspec.field(name="o")
    high: str = msgspec.field(name="h")
    low: str = msgspec.field(name="l")
    close: str = msgspec.field(name="c")
    volume: _Size = msgspec.field(name="v")


class _Quote(msgspec.Struct, gc=False):
    native: str = msgspec.field(name="s")
    time: Natural = msgspec.field(name="t")
    id: Natural = msgspec.field(name="u")
    bid: str = msgspec.field(name="b")
    bid_size: _Size = msgspec.field(name="B")
    ask: str = msgspec.field(name="a")
    ask_size: _Size = msgspec.field(name="A")


class _Figures(msgspec.Struct, gc=False):
    native: str = msgspec.field(name="contract")
    rate: str = msgspec.field(name="funding_rate", default="")
    mark_price: str = ""
    index_price: str = ""
    open_interest: str = msgspec.field(name="total_size", default="")


@final
class _TradesUpdate(msgspec.Struct, tag_field="channel", tag=_TRADES, gc=False):
    event: str
    result: list[_Print]


@final
class _ChangesUpdate(msgspec.Struct, tag_field="channel", tag=_CHANGES, gc=False):
    event: str
    result: _Changes


@final
class _CandlesUpdate(msgspec.Struct, tag_field="channel", tag=_CANDLES, gc=False):
    event: str
    result: list[_Candle]
    time: Natural = 0
    time_ms: Natural = 0


@final
class _QuoteUpdate(msgspec.Struct, tag_field="channel", tag=_BEST, gc=False):
    event: str
    result: _Quote


@final
class _FiguresUpdate(msgspec.Struct, tag_field="channel", tag=_TICKERS, gc=False):
    event: str
    result: list[_Figures]
    time: Natural = 0
    time_ms: Natural = 0


class _Where(msgspec.Struct, gc=False):
    native: str = msgspec.field(name="contract", default="")
    symbol: str = msgspec.field(name="s", default="")
    candle: str = msgspec.field(name="n", default="")


class _Envelope(msgspec.Struct, gc=False):
    channel: str = ""
    event: str = ""
    result: _Where | list[_Where] | None = None


class _Listed(msgspec.Struct, gc=False):
    name: str
    multiplier: str = msgspec.field(name="quanto_multiplier", default="")
    delisting: bool = msgspec.field(name="in_delisting", default=False)
    status: str = "trading"


class _BookAnswer(msgspec.Struct, gc=False):
    id: Natural
    bids: list[_Level]
    asks: list[_Level]
    update: Any = 0


class _PastPrint(msgspec.Struct, gc=False):
    id: Natural
    price: str
    size: _Size
    time: Any = msgspec.field(name="create_time")
    exact_time: Any = msgspec.field(name="create_time_ms", default="")
    """Seconds, with three decimals, whatever its name."""


class _Volume(msgspec.Struct, gc=False):
    native: str = msgspec.field(name="contract")
    volume: str = msgspec.field(name="volume_24h_quote", default="")


_decode = msgspec.json.Decoder(
    _TradesUpdate | _ChangesUpdate | _CandlesUpdate | _QuoteUpdate | _FiguresUpdate, float_hook=str
).decode
_decode_envelope = msgspec.json.Decoder(_Envelope, float_hook=str).decode
_LISTING = msgspec.json.Decoder(list[_Listed])
_BOOK = msgspec.json.Decoder(_BookAnswer, float_hook=str)
_TRADE_ROWS = msgspec.json.Decoder(list[_PastPrint], float_hook=str)
_VOLUMES = msgspec.json.Decoder(list[_Volume])


class GateLinear(Gate):
    """Gate's perpetual contracts of USDT. Native spellings are ``BASE_QUOTE``."""

    name = "gate_linear"
    ws_url = "wss://fx-ws.gateio.ws"
    headers: Mapping[str, str] = MappingProxyType({"X-Gate-Size-Decimal": "1"})
    limits = Limits(
        streams_per_connection=200,  # none is documented; 300 connections are allowed
        streams_per_frame=100,
        frames_per_s=10,  # none is documented
        connects_per_5_min=100,
        connection_life_s=None,
        weight_per_min=600,  # 200 requests in 10 s for each endpoint, by "Gate API v4"; half of it is plenty
    )
    streams = STREAMS
    trade_ids_contiguous = False

    _path = "/v4/ws/usdt"

    def listing_request(self) -> Request:
        return Request(f"{_API}/contracts")

    def parse_listing(self, body: bytes) -> list[Listing]:
        listings = []
        for row in read_answer(_LISTING, body, "the list of contracts", words_of):
            base, _, quote = row.name.partition("_")
            active = row.status == "trading" and not row.delisting
            size = row.multiplier if row.multiplier.strip("0.") else ""
            listings.append(Listing(row.name, row.name, base, quote, active, size))
        return listings

    def write_listing(self, symbols: Sequence[str]) -> bytes | None:
        return msgspec.json.encode([{"name": symbol, "quanto_multiplier": "1"} for symbol in symbols])

    def parse(self, frame: bytes | str, received_us: int) -> Sequence[Event]:
        try:
            update = _decode(frame)
        except UNREADABLE as error:
            return read_answer_frame(frame, error, _KNOWN) if _is_read(frame) else ()
        if update.event != "update":
            return ()
        if type(update) is _TradesUpdate:
            symbol_of = self.symbol_of
            return [
                _trade(row, symbol, received_us)
                for row in update.result
                if (symbol := symbol_of.get(row.native)) is not None
            ]
        if type(update) is _ChangesUpdate:
            return self._changes(update.result, received_us)
        if type(update) is _CandlesUpdate:
            return self._candles(update, received_us)
        if type(update) is _QuoteUpdate:
            return self._quote(update.result, received_us)
        return self._figures(update, received_us) if type(update) is _FiguresUpdate else ()

    def snapshot_request(self, symbol: str) -> Request:
        return Request(f"{_API}/order_book", {"contract": self._native(symbol), "limit": _DEPTH, "with_id": "true"})

    def parse_snapshot(self, symbol: str, body: bytes, received_us: int) -> BookSnapshot:
        answer = read_answer(_BOOK, body, f"the order book of {symbol}", words_of)
        bids, asks = _levels(answer.bids), _levels(answer.asks)
        require_levels(bids, asks)
        time_us = _seconds_us(answer.update)
        return BookSnapshot(symbol, time_us, answer.id, bids, asks, received_us)

    def book_rule(self) -> BookRule:
        # The documented procedure is spot's.
        return ContiguousRule()

    def trades_request(
        self,
        symbol: str,
        from_id: int,  # noqa: ARG002  the newest thousand are what can be had
        limit: int,  # noqa: ARG002
        *,
        raw_trades: bool = False,  # noqa: ARG002
        from_us: int | None = None,  # noqa: ARG002
    ) -> Request | None:
        return Request(f"{_API}/trades", {"contract": self._native(symbol), "limit": "1000"})

    def parse_trades(self, symbol: str, body: bytes, received_us: int) -> list[Trade]:
        rows = read_answer(_TRADE_ROWS, body, f"the trades of {symbol}", words_of)
        trades = []
        for row in rows:
            side, size = _side_and_size(row.size)
            require_price_and_size(row.price, size)
            time_us = _seconds_us(row.exact_time or row.time)
            trades.append(Trade(symbol, time_us, row.price, size, side, row.id, received_us, "rest"))
        trades.reverse()  # newest first
        return trades

    def volumes_request(self) -> Request | None:
        return Request(f"{_API}/tickers")

    def parse_volumes(self, body: bytes) -> dict[str, Decimal]:
        return {row.native: volume(row.volume) for row in read_answer(_VOLUMES, body, "the volumes", words_of)}

    def channel_of(self, frame: bytes | str) -> str | None:
        try:
            envelope = _decode_envelope(frame)
        except UNREADABLE:
            return None
        rows = envelope.result if isinstance(envelope.result, list) else [envelope.result]
        where = rows[0] if rows else None
        if where is None or envelope.event != "update":
            return None
        native = where.candle or where.native or where.symbol
        return f"{envelope.channel}:{native}" if native else None

    def _requests(self, subscriptions: Sequence[Subscription]) -> Iterable[tuple[str, Sequence[str]]]:
        for channel in dict.fromkeys(_OF_MANY.values()):
            asked = [one.symbol for one in subscriptions if _OF_MANY.get(one.stream) == channel]
            natives = list(dict.fromkeys(map(self._native, asked)))
            for part in chunks(natives, self.limits.streams_per_frame):
                yield channel, part
        for one in subscriptions:
            if one.stream == "orderbook":
                yield _CHANGES, [self._native(one.symbol), "100ms", _DEPTH]
            elif one.stream == "klines":
                yield _CANDLES, ["1m", self._native(one.symbol)]

    def _changes(self, row: _Changes, received_us: int) -> Sequence[Event]:
        symbol = self.symbol_of.get(row.native)
        if symbol is None:
            return ()
        bids, asks = _levels(row.bids), _levels(row.asks)
        require_levels(bids, asks)
        if row.full:
            return (BookSnapshot(symbol, row.time * 1000, row.last_id, bids, asks, received_us),)
        if row.first_id > row.last_id:
            raise MessageError(f"A change of the book of {symbol} ends before it begins.")
        return (BookDelta(symbol, row.time * 1000, row.first_id, row.last_id, None, bids, asks, received_us),)

    def _candles(self, update: _CandlesUpdate, received_us: int) -> Sequence[Event]:
        klines = []
        for row in update.result:
            interval, _, native = row.name.partition("_")
            symbol = self.symbol_of.get(native)
            if symbol is None:
                continue
            size = str(row.volume)
            require_decimals(row.open, row.high, row.low, row.close, size)
            time_us = (update.time_ms or update.time * 1000) * 1000
            start_us = row.start * 1_000_000
            klines.append(
                Kline(
                    symbol, interval, start_us, row.open, row.high, row.low, row.close, size, None, None, None, False,
                    time_us, received_us,
                )
            )  # fmt: skip
        return klines

    def _quote(self, row: _Quote, received_us: int) -> Sequence[Event]:
        symbol = self.symbol_of.get(row.native)
        if symbol is None:
            return ()
        bids: list[Level] = [(row.bid, str(row.bid_size))] if row.bid else []
        asks: list[Level] = [(row.ask, str(row.ask_size))] if row.ask else []
        require_levels(bids, asks)
        time_us = row.time * 1000 or received_us
        return (Ticker(symbol, time_us, *best(bids), *best(asks), row.id, received_us, timed=row.time > 0),)

    def _figures(self, update: _FiguresUpdate, received_us: int) -> Sequence[Event]:
        events: list[Event] = []
        time_us = (update.time_ms or update.time * 1000) * 1000
        for row in update.result:
            symbol = self.symbol_of.get(row.native)
            if symbol is None:
                continue
            require_signed(*filter(None, (row.rate, row.mark_price, row.index_price)))
            prices = row.mark_price or None, row.index_price or None
            events.append(Funding(symbol, time_us, row.rate or None, None, *prices, received_us))
            if row.open_interest:
                require_decimals(row.open_interest)
                events.append(OpenInterest(symbol, time_us, row.open_interest, None, received_us))
        return events


def _trade(row: _Print, symbol: str, received_us: int) -> Trade:
    side, size = _side_and_size(row.size)
    require_price_and_size(row.price, size)
    time_us = (row.time_ms or row.time * 1000) * 1000
    return Trade(symbol, time_us, row.price, size, side, row.id, received_us)


def _side_and_size(signed: _Size) -> tuple[Side, str]:
    text = str(signed)
    return ("sell", text[1:]) if text.startswith("-") else ("buy", text)


def _seconds_us(seconds: object) -> int:
    """Return a time in seconds, a number or text with or without a fraction, in microseconds."""
    return int(volume(str(seconds)) * 1_000_000)


def _levels(rows: Sequence[_Level]) -> list[Level]:
    return [(row.price, str(row.size)) for row in rows]


def _is_read(frame: bytes | str) -> bool:
    """Say whether a frame that fits no type is to be looked at: books without numbers, of 2020, are not."""
    message = document(frame)
    return not (isinstance(message, dict) and message.get("channel") == "futures.order_book")
