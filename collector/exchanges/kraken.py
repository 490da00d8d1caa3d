"""Kraken spot, over its websocket v2 and REST.

Sources: the exchange's pages "Trades", "Book", "OHLC", "Ticker (Level 1)", "Get Ticker Information", "Spot Websockets
(v2) Book Checksum", "Tradable Asset Pairs", "Recent Trades", its help page on connection rates, and recordings of 2025
and 2026.

Prices and sizes are JSON numbers, and the checksum is over their text: they are read as text, never as floats.
``side`` is the taker's. Trade ids count up by one for each pair. Book messages have no ids; the checksum of the ten
best levels tells whether one is missing. A candle does not say that it is closed: it is once the next one begins.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from itertools import chain
from typing import Annotated, Any, Literal, final

import msgspec
from msgspec import field

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
    Ticker,
    Trade,
)
from collector.exchanges.base import (
    BookRule,
    Checksum,
    ConnectionPlan,
    Exchange,
    Limits,
    Listing,
    Request,
    Subscription,
)
from collector.exchanges.decode import (
    UNREADABLE,
    Natural,
    best,
    chunks,
    document,
    iso_us,
    pack,
    read_answer,
    require_levels,
    require_stream,
    symbols_once,
    volume,
)
from collector.exchanges.rules import InOrderRule

STREAMS = ("prices", "orderbook", "klines", "tickers")

DEPTH = 100
"""Levels of each side that are asked for."""

DEPTHS = (10, 25, 100, 500, 1000)

_CHANNELS = {"prices": "trade", "orderbook": "book", "klines": "ohlc", "tickers": "ticker"}
_NUMBERED = tuple(_CHANNELS.values())
_KNOWN = frozenset({"trade", "book", "ohlc", "ticker", "heartbeat"})
_INTERVALS = {1: "1m", 5: "5m", 15: "15m", 60: "1h", 240: "4h", 1440: "1d"}
_TO_V2 = {"XBT": "BTC", "XDG": "DOGE"}
_TO_REST = {ours: theirs for theirs, ours in _TO_V2.items()}
_SCIENTIFIC = re.compile(r"[0-9]{1,40}(?:\.[0-9]{1,40})?[eE][+-]?[0-9]{1,2}").fullmatch
_PLAIN = re.compile(r"[0-9]+(?:\.[0-9]+)?").fullmatch
_LEVELS = re.compile(r'\{"price":([0-9]+(?:\.[0-9]+)?),"qty":([0-9]+(?:\.[0-9]+)?)\}').findall
_SECONDS = re.compile(r"([0-9]{1,12})(?:\.([0-9]+))?").fullmatch
_DIGITS = "0123456789"

_Time = Annotated[datetime, msgspec.Meta(tz=True)]
_Number = Any
"""The text of a number, as the decoder's ``float_hook`` leaves it; an int where it has neither point nor exponent."""


class _Print(msgspec.Struct, gc=False):
    native: str = field(name="symbol")
    side: Literal["buy", "sell"]
    price: _Number
    volume: _Number = field(name="qty")
    trade_id: Natural
    time: _Time = field(name="timestamp")


class _BookLevel(msgspec.Struct, gc=False):
    price: _Number
    size: _Number = field(name="qty")


class _Book(msgspec.Struct, gc=False):
    native: str = field(name="symbol")
    bids: msgspec.Raw
    asks: msgspec.Raw
    checksum: Natural
    time: _Time | None = field(name="timestamp", default=None)


class _Candle(msgspec.Struct, gc=False):
    native: str = field(name="symbol")
    open: _Number
    high: _Number
    low: _Number
    close: _Number
    volume: _Number
    trades: Natural
    start: _Time = field(name="interval_begin")
    interval: int


class _Quotes(msgspec.Struct, gc=False):
    native: str = field(name="symbol")
    bid: _Number
    bid_size: _Number = field(name="bid_qty")
    ask: _Number
    ask_size: _Number = field(name="ask_qty")
    time: _Time | None = field(name="timestamp", default=None)


@final
class _Trades(msgspec.Struct, tag_field="channel", tag="trade", gc=False):
    type: Literal["snapshot", "update"]
    data: list[_Print]


@final
class _Books(msgspec.Struct, tag_field="channel", tag="book", gc=False):
    type: Literal["snapshot", "update"]
    data: list[_Book]


@final
class _Candles(msgspec.Struct, tag_field="channel", tag="ohlc", gc=False):
    type: Literal["snapshot", "update"]
    data: list[_Candle]
    time: _Time | None = field(name="timestamp", default=None)


@final
class _Tickers(msgspec.Struct, tag_field="channel", tag="ticker", gc=False):
    type: Literal["snapshot", "update"]
    data: list[_Quotes]


@final
class _Heartbeat(msgspec.Struct, tag_field="channel", tag="heartbeat", gc=False):
    pass


class _Answer(msgspec.Struct, gc=False):
    method: str = ""
    success: bool | None = None
    error: str = ""
    native: str = field(name="symbol", default="")
    request_id: int | None = field(name="req_id", default=None)


class _Named(msgspec.Struct, gc=False):
    native: str = field(name="symbol", default="")
    interval: int = 0


class _Envelope(msgspec.Struct, gc=False):
    channel: str
    data: list[_Named] = []


class _Parameters(msgspec.Struct, gc=False):
    channel: str = ""
    natives: list[str] = field(name="symbol", default=[])
    interval: int = 1


class _ClientFrame(msgspec.Struct, gc=False):
    method: str
    parameters: _Parameters | None = field(name="params", default=None)
    request_id: int | None = field(name="req_id", default=None)


class _Listed(msgspec.Struct, gc=False):
    name: str = field(name="wsname", default="")
    status: str = "online"


class _PairsAnswer(msgspec.Struct, gc=False):
    result: dict[str, _Listed]


class _RestBook(msgspec.Struct, gc=False):
    bids: list[tuple[str, str, int]]
    asks: list[tuple[str, str, int]]


class _BookAnswer(msgspec.Struct, gc=False):
    result: dict[str, _RestBook]


class _TradesAnswer(msgspec.Struct, gc=False):
    result: dict[str, list[tuple[str, str, _Number, Literal["b", "s"], str, str, Natural]] | str]


class _Day(msgspec.Struct, gc=False):
    """What was traded today and in 24 hours, and the average price of it."""

    volumes: tuple[str, str] = field(name="v")
    prices: tuple[str, str] = field(name="p")


class _DaysAnswer(msgspec.Struct, gc=False):
    result: dict[str, _Day]


class _Refusal(msgspec.Struct, gc=False):
    error: list[str] = []


_decode = msgspec.json.Decoder(_Trades | _Books | _Candles | _Tickers | _Heartbeat, float_hook=str).decode
_decode_levels = msgspec.json.Decoder(list[_BookLevel], float_hook=str).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_client_frame = msgspec.json.Decoder(_ClientFrame).decode
_PAIRS = msgspec.json.Decoder(_PairsAnswer)
_BOOK = msgspec.json.Decoder(_BookAnswer)
_TRADES = msgspec.json.Decoder(_TradesAnswer, float_hook=str)
_DAYS = msgspec.json.Decoder(_DaysAnswer)
_REFUSAL = msgspec.json.Decoder(_Refusal)


def checksum(bids: Sequence[Level], asks: Sequence[Level]) -> int:
    """Return the checksum of a book: CRC32 of the ten best asks and bids, digits only, without leading zeros."""
    if len(_SUMMED) > _MOST_SUMMED:
        _SUMMED.clear()
    numbers = chain.from_iterable(chain(asks, bids))
    return zlib.crc32("".join(map(_SUMMED.__getitem__, numbers)).encode())


class _Summed(dict[str, str]):
    """Numbers as the checksum has them: most of the best levels' were in the one before, too."""

    def __missing__(self, number: str) -> str:
        found = self[number] = number.replace(".", "").lstrip("0")
        return found


_SUMMED = _Summed()
_MOST_SUMMED = 4096


class Kraken(Exchange):
    """Kraken spot. Native spellings are those of v2, ``BTC/USD``: XBT is BTC, XDG is DOGE."""

    name = "kraken"
    ws_url = "wss://ws.kraken.com"
    rest_url = "https://api.kraken.com"
    limits = Limits(
        streams_per_connection=400,  # no figure is documented
        streams_per_frame=100,
        frames_per_s=10,
        connects_per_5_min=75,  # about 150 attempts in ten minutes from one address, by Cloudflare
        connection_life_s=None,
        weight_per_min=60,  # a request is one; public ones are allowed each second
        ping_interval_s=30,  # a connection of no subscription that speaks is closed after a minute
    )
    streams = STREAMS
    trade_ids_contiguous = True
    trades_paging = "time"
    book_needs_snapshot = False
    deepest_book = 100
    book_numbered = False
    book_checksum = Checksum(10, checksum)
    klines_say_closed = False

    def listing_request(self) -> Request:
        return Request("/0/public/AssetPairs")

    def parse_listing(self, body: bytes) -> list[Listing]:
        rows = [
            row for row in read_answer(_PAIRS, body, "the list of pairs", _words).result.values() if "/" in row.name
        ]
        rows.sort(key=lambda row: row.status != "online")
        pairs = [tuple(_TO_V2.get(part, part) for part in row.name.split("/", 1)) for row in rows]
        symbols = symbols_once((f"{base}_{quote}".upper(), f"{base}-{quote}") for base, quote in pairs)
        return [
            Listing(symbol, f"{base}/{quote}", base, quote, row.status == "online")
            for row, symbol, (base, quote) in zip(rows, symbols, pairs, strict=True)
        ]

    def write_listing(self, symbols: Sequence[str]) -> bytes | None:
        pairs = {symbol: {"wsname": symbol.replace("_", "/", 1), "status": "online"} for symbol in symbols}
        return msgspec.json.encode({"error": [], "result": pairs})

    def plan(self, subscriptions: Sequence[Subscription], *, raw_trades: bool = False) -> list[ConnectionPlan]:  # noqa: ARG002  all trades are raw
        return [self._connection(packed) for packed in pack(subscriptions, self.limits.streams_per_connection)]

    def renewal_frames(self, subscription: Subscription) -> Sequence[str]:
        natives = [self._native(subscription.symbol)]
        number = _NUMBERED.index("book")
        return [_request(method, "book", natives, number) for method in ("unsubscribe", "subscribe")]

    def parse(self, frame: bytes | str, received_us: int) -> Sequence[Event]:
        try:
            message = _decode(frame)
        except UNREADABLE as error:
            return _read_other(frame, error)
        symbol_of = self.symbol_of
        if type(message) is _Trades:
            trades = [
                _trade(row, symbol, received_us)
                for row in message.data
                if (symbol := symbol_of.get(row.native)) is not None
            ]
            return _past(trades) if message.type == "snapshot" else trades
        if type(message) is _Books:
            return [
                _book(row, symbol, received_us, message.type)
                for row in message.data
                if (symbol := symbol_of.get(row.native)) is not None
            ]
        if type(message) is _Candles:
            # A snapshot is history, which is not asked for.
            rows = message.data if message.type == "update" else ()
            return [
                _kline(row, symbol, received_us, message.time)
                for row in rows
                if (symbol := symbol_of.get(row.native)) is not None
            ]
        if type(message) is _Tickers:
            return [
                _ticker(row, symbol, received_us)
                for row in message.data
                if (symbol := symbol_of.get(row.native)) is not None
            ]
        return (ServerNotice("heartbeat", 0),)

    def snapshot_request(self, symbol: str) -> Request:
        return Request("/0/public/Depth", {"pair": self._pair(symbol), "count": "500"})

    def parse_snapshot(self, symbol: str, body: bytes, received_us: int) -> BookSnapshot:
        books = list(read_answer(_BOOK, body, f"the order book of {symbol}", _words).result.values())
        if len(books) != 1:
            raise MessageError(f"The answer to the request for the order book of {symbol} holds {len(books)} books.")
        bids: list[Level] = [(price, size) for price, size, _ in books[0].bids]
        asks: list[Level] = [(price, size) for price, size, _ in books[0].asks]
        require_levels(bids, asks)
        return BookSnapshot(symbol, 0, 0, bids, asks, received_us)

    def book_rule(self) -> BookRule:
        return InOrderRule()

    def newest_trade_request(self, symbol: str) -> Request | None:
        # Without ``since`` it is the newest thousand.
        return Request("/0/public/Trades", {"pair": self._pair(symbol)})

    def trades_request(
        self,
        symbol: str,
        from_id: int,  # noqa: ARG002  it is asked by time; ids tell afterwards what is new
        limit: int,
        *,
        raw_trades: bool = False,  # noqa: ARG002  all trades are raw
        from_us: int | None = None,
    ) -> Request | None:
        if from_us is None:
            return None
        # ``since`` is in nanoseconds, and what happened then is left out.
        params = {"pair": self._pair(symbol), "since": str((from_us - 1) * 1000), "count": str(min(limit, 1000))}
        return Request("/0/public/Trades", params)

    def parse_trades(self, symbol: str, body: bytes, received_us: int) -> list[Trade]:
        answer = read_answer(_TRADES, body, f"the trades of {symbol}", _words).result
        rows = next((value for name, value in answer.items() if name != "last" and isinstance(value, list)), [])
        return [
            Trade(
                symbol,
                _seconds_us(time),
                _plain(price),
                _plain(volume),
                "buy" if side == "b" else "sell",
                trade_id,
                received_us,
                "rest",
            )
            for price, volume, time, side, _, _, trade_id in rows
        ]

    def volumes_request(self) -> Request | None:
        return Request("/0/public/Ticker")

    def parse_volumes(self, body: bytes) -> dict[str, Decimal]:
        days = read_answer(_DAYS, body, "the volumes", _words).result
        volumes = {}
        for native in self.symbol_of:
            base, _, quote = native.partition("/")
            base, quote = _TO_REST.get(base, base), _TO_REST.get(quote, quote)
            # The oldest assets have a letter before their names in REST: X that of a coin, Z that of money.
            spellings = (base + quote, *(f"{b}{base}{q}{quote}" for b in ("", "X", "Z") for q in ("", "X", "Z")))
            day = next((days[spelling] for spelling in spellings if spelling in days), None)
            if day is not None:
                volumes[native] = volume(day.volumes[1]) * volume(day.prices[1])
        return volumes

    def ping_frame(self) -> str | None:
        return '{"method":"ping"}'

    def channel_of(self, frame: bytes | str) -> str | None:
        try:
            envelope = _decode_envelope(frame)
        except UNREADABLE:
            return None
        if not envelope.data or not envelope.data[0].native:
            return None
        return _channel(envelope.channel, envelope.data[0].native, envelope.data[0].interval)

    def channels_asked(self, path: str, frame: str | None) -> Sequence[str]:  # noqa: ARG002  only frames ask
        asked = _client_frame(frame)
        if asked is None or asked.method != "subscribe" or asked.parameters is None:
            return ()
        parameters = asked.parameters
        return [_channel(parameters.channel, native, parameters.interval) for native in parameters.natives]

    def acknowledgement(self, frame: str) -> str | None:
        asked = _client_frame(frame)
        if asked is None or asked.method not in ("ping", "subscribe", "unsubscribe"):
            return None
        answer: dict[str, object] = {"method": "pong" if asked.method == "ping" else asked.method}
        if asked.parameters is not None:
            # One answer for each pair; the first says what a client needs to know.
            first = "".join(asked.parameters.natives[:1])
            answer |= {"result": {"channel": asked.parameters.channel, "symbol": first}, "success": True}
        return msgspec.json.encode(answer | ({} if asked.request_id is None else {"req_id": asked.request_id})).decode()

    def _connection(self, subscriptions: Sequence[Subscription]) -> ConnectionPlan:
        by_channel: dict[str, list[str]] = {}
        for subscription in subscriptions:
            require_stream(subscription.stream, STREAMS)
            by_channel.setdefault(_CHANNELS[subscription.stream], []).append(self._native(subscription.symbol))
        frames, numbers = [], []
        for channel, natives in by_channel.items():
            for count, part in enumerate(chunks(natives, self.limits.streams_per_frame), 1):
                # A refusal names its pair and its request, but no channel: that is told by the request's number.
                numbers.append(count * len(_NUMBERED) + _NUMBERED.index(channel))
                frames.append(_request("subscribe", channel, part, numbers[-1]))
        return ConnectionPlan("/v2", tuple(frames), tuple(subscriptions), tuple(numbers))

    def _pair(self, symbol: str) -> str:
        """Return a pair as REST spells it: ``XBTUSD``."""
        return "".join(_TO_REST.get(part, part) for part in self._native(symbol).split("/"))

    def _native(self, symbol: str) -> str:
        try:
            return self.native_of[symbol]
        except KeyError:
            raise UnknownName("symbol", symbol, list(self.native_of)) from None


def _request(method: str, channel: str, natives: Sequence[str], number: int) -> str:
    parameters: dict[str, object] = {"channel": channel, "symbol": natives}
    if channel == "book":
        parameters["depth"] = DEPTH
    elif channel == "ohlc":
        parameters["interval"] = 1
    elif channel == "ticker":
        parameters["event_trigger"] = "bbo"
    if method == "subscribe":
        parameters["snapshot"] = channel != "ohlc"
    return msgspec.json.encode({"method": method, "params": parameters, "req_id": number}).decode()


def _trade(row: _Print, symbol: str, received_us: int) -> Trade:
    price, volume = row.price, row.volume
    # Nearly all numbers have a fraction, and then nothing but the point is left of them.
    if type(price) is not str or price.strip(_DIGITS) != "." or price == ".":
        price = _plain(price)
    if type(volume) is not str or volume.strip(_DIGITS) != "." or volume == ".":
        volume = _plain(volume)
    return Trade(symbol, iso_us(row.time), price, volume, row.side, row.trade_id, received_us)


def _past(trades: list[Trade]) -> list[PastTrade]:
    return [PastTrade(trade) for trade in sorted(trades, key=lambda trade: trade.trade_id)]


def _book(row: _Book, symbol: str, received_us: int, kind: str) -> BookSnapshot | BookDelta:
    bids, asks = _levels(row.bids), _levels(row.asks)
    time_us = iso_us(row.time) if row.time is not None else 0
    if kind == "snapshot":
        depth = _depth(max(len(bids), len(asks)))
        return BookSnapshot(symbol, time_us, time_us, bids, asks, received_us, row.checksum, depth)
    if not time_us:
        raise MessageError(f"A change of the book of {symbol} has no time.")
    return BookDelta(symbol, time_us, time_us, time_us, None, bids, asks, received_us, row.checksum)


def _levels(side: msgspec.Raw) -> list[Level]:
    """Read a side of a book. Written as usual, one search finds all levels in a third of the time."""
    text = str(side, "utf-8")
    levels: list[Level] = _LEVELS(text)
    if len(levels) == text.count("{"):
        return levels
    try:
        return [(_plain(level.price), _plain(level.size)) for level in _decode_levels(text)]
    except UNREADABLE as error:
        raise MessageError(f"The levels of a book cannot be read: {error}.") from error


def _depth(levels: int) -> int:
    """Return the depth that a snapshot was subscribed with: a full one tells it; others are as we ask for."""
    return levels if levels in DEPTHS else next((depth for depth in DEPTHS if depth >= max(levels, DEPTH)), DEPTHS[-1])


def _kline(row: _Candle, symbol: str, received_us: int, time: datetime | None) -> Kline:
    start_us = iso_us(row.start)
    return Kline(
        symbol=symbol,
        interval=_INTERVALS.get(row.interval, f"{row.interval}m"),
        start_us=start_us,
        open=_plain(row.open),
        high=_plain(row.high),
        low=_plain(row.low),
        close=_plain(row.close),
        volume=_plain(row.volume),
        quote_volume=None,  # volume times vwap is not exact
        trades_count=row.trades,
        taker_buy_volume=None,
        closed=False,
        timestamp_us=start_us if time is None else iso_us(time),
        received_us=received_us,
    )


def _ticker(row: _Quotes, symbol: str, received_us: int) -> Ticker:
    bid, ask = (_plain(row.bid), _plain(row.bid_size)), (_plain(row.ask), _plain(row.ask_size))
    time_us = iso_us(row.time) if row.time is not None else 0
    sides = *best([bid]), *best([ask])
    # Older messages have no time.
    return Ticker(symbol, time_us or received_us, *sides, None, received_us, timed=time_us > 0)


def _plain(number: object) -> str:
    """Return a number's text as plain decimal digits; raise MessageError for what is none."""
    text = str(number) if type(number) is int else number
    if isinstance(text, str):
        if _PLAIN(text):
            return text
        if _SCIENTIFIC(text):
            return format(Decimal(text), "f")
    raise MessageError(f"{str(number)[:40]!r} is not a decimal number.")


def _seconds_us(number: object) -> int:
    found = _SECONDS(str(number))
    if not found:
        raise MessageError(f"{str(number)[:40]!r} is not a time in seconds.")
    return int(found[1]) * 1_000_000 + int(f"{found[2] or ''}000000"[:6])


def _read_other(frame: bytes | str, error: BaseException) -> Sequence[Event]:
    """Read a frame that is no market event: an answer, or a channel that we don't read; raise for a broken one."""
    read = document(frame)
    channel = read.get("channel") if isinstance(read, dict) else 5
    if not isinstance(channel, str | None) or channel in _KNOWN:
        raise MessageError(f"A message of the channel {str(channel)[:40]!r} cannot be read: {error}.") from error
    if channel is not None:
        return ()
    try:
        answer = _decode_answer(frame)
    except UNREADABLE as unreadable:
        raise MessageError(f"An answer cannot be read: {unreadable}.") from unreadable
    if answer.success is False or (answer.error and answer.success is None):
        return (Rejected(answer.request_id, "", answer.error, _refused_channel(answer)),)
    return (Acknowledged(answer.request_id),) if answer.method == "subscribe" and answer.success else ()


def _refused_channel(answer: _Answer) -> str | None:
    if not answer.native or answer.request_id is None:
        return None
    return _channel(_NUMBERED[answer.request_id % len(_NUMBERED)], answer.native, 1)


def _channel(channel: str, native: str, interval: int) -> str:
    """Spell a channel in one way: the books of any depth are one, so that a recording of any of them plays."""
    return f"{channel}_{interval}:{native}" if channel == "ohlc" else f"{channel}:{native}"


def _client_frame(frame: str | None) -> _ClientFrame | None:
    try:
        return None if frame is None else _decode_client_frame(frame)
    except UNREADABLE:
        return None


def _words(body: bytes) -> str:
    return ", ".join(_REFUSAL.decode(body).error)
