"""OKX: spot, swaps and futures, by instrument id, over its v5 websocket and REST.

Sources: the exchange's pages "WebSocket / Trades channel", "All trades channel", "Order book channel" (with "Sequence
ID" and "Checksum"), "Candlesticks channel", "Get instruments", "Get trades history", and recordings of 2022 and 2026.

Symbols: ``BTC-USDT`` is ``BTC_USDT``, the swap ``BTC-USDT-SWAP`` is ``BTC_USDT-SWAP``, the future ``BTC-USD-260327`` is
``BTC_USD-260327``: the first hyphen becomes an underscore. Sizes of spot are in the base currency, of swaps and futures
in contracts, as the exchange sends them.

Trade ids count up by one for each instrument. A message of ``trades`` stands for the ``count`` trades of one taker's
order at one price, and has the id of the last; ``trades-all`` has each by itself. Book messages are chained by
``prevSeqId``. Their checksum has always been 0 since June 2026 and is not looked at where there is a ``seqId``.

Best prices are those of ``bbo-tbt``. Funding comes in three parts (rate, mark price, index price), each a row with the
rest empty; forced orders come for all contracts of a type together, at their bankruptcy prices; open interest is in
contracts.
"""

from __future__ import annotations

import re
import zlib
from collections.abc import Sequence
from decimal import Decimal
from itertools import chain, zip_longest
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
    Milliseconds,
    Natural,
    best,
    chunks,
    document,
    milliseconds_us,
    pack,
    read_answer,
    require_decimals,
    require_levels,
    require_signed,
    require_stream,
    symbols_once,
    volume,
)

STREAMS = ("prices", "orderbook", "klines", "tickers", "funding", "open_interest", "liquidations")
"""What perpetual contracts have; dated ones have no funding, and spot has neither of the last three."""

BOOKS = frozenset({"books", "books-l2-tbt", "books50-l2-tbt"})
"""The channels of one snapshot and then changes; they are one to us, so that a recording of any of them plays."""

UPGRADE = "64008"
"""The code of the notice that the connection will be closed for a service upgrade."""

_TRADES = frozenset({"trades", "trades-all"})
_CHANNELS = {
    "prices": ("trades",),
    "orderbook": ("books",),
    "klines": ("candle1m",),
    "tickers": ("bbo-tbt",),
    "funding": ("funding-rate", "mark-price", "index-tickers"),
    "open_interest": ("open-interest",),
    "liquidations": ("liquidation-orders",),
}
_TICKERS, _INDEX, _LIQUIDATIONS = "bbo-tbt", "index-tickers", "liquidation-orders"
_MARKET = frozenset({"funding-rate", "mark-price", "open-interest", _INDEX, _LIQUIDATIONS})
_PUBLIC, _BUSINESS = "/ws/v5/public", "/ws/v5/business"
_TYPES = ("SPOT", "SWAP", "FUTURES")
_WRONG_CHANNEL = re.compile(r"channel:\s*([\w-]+),\s*instId:\s*([\w-]+)").search

_DIGITS = "0123456789"

_X_PERP = "UM-XPERP"
"""In the symbol of a future without an end in fact: ``BTC-USD_UM_XPERP-310404`` is ``BTC_USD-UM-XPERP-310404``."""

_LEVELS = re.compile(r'\["([0-9]+(?:\.[0-9]+)?)","([0-9]+(?:\.[0-9]+)?)","[0-9]*","[0-9]*"\]').findall


class _Row(msgspec.Struct, gc=False):
    """A book, or a row of a channel that we don't read."""

    time: str = field(name="ts", default="")
    bids: msgspec.Raw = msgspec.Raw()
    asks: msgspec.Raw = msgspec.Raw()
    last_id: Natural | None = field(name="seqId", default=None)
    previous_id: int | None = field(name="prevSeqId", default=None)
    checksum: int = 0


class _Print(msgspec.Struct, gc=False):
    price: str = field(name="px")
    volume: str = field(name="sz")
    trade_id: Natural = field(name="tradeId")
    side: Literal["buy", "sell"]
    time: Milliseconds = field(name="ts")
    count: Natural = 0


class _TradesArgument(msgspec.Struct, gc=False):
    channel: Literal["trades", "trades-all"]
    native: str = field(name="instId")


class _Trades(msgspec.Struct, gc=False):
    """A push of trades alone: most messages are, and one struct for them is read in half the time."""

    argument: _TradesArgument = field(name="arg")
    data: list[_Print]


class _Argument(msgspec.Struct, gc=False, frozen=True, omit_defaults=True):
    channel: str = ""
    native: str = field(name="instId", default="")
    type: str = field(name="instType", default="")


class _Frame(msgspec.Struct, gc=False):
    """A push (``data``), or an answer or a notice (``event``)."""

    argument: _Argument | None = field(name="arg", default=None)
    action: str = ""
    data: list[_Row | list[str]] | None = None
    event: str = ""
    id: str | None = None
    code: str = ""
    msg: str = ""


class _Closed(msgspec.Struct, gc=False):
    price: str = field(name="bkPx")
    volume: str = field(name="sz")
    side: Literal["buy", "sell"]
    time: Milliseconds = field(name="ts")


class _Market(msgspec.Struct, gc=False):
    """A row of ``funding-rate``, ``mark-price``, ``index-tickers``, ``open-interest`` or ``liquidation-orders``."""

    native: str = field(name="instId")
    time: Milliseconds = field(name="ts", default=0)
    rate: str = field(name="fundingRate", default="")
    funding_time: str = field(name="fundingTime", default="")
    mark_price: str = field(name="markPx", default="")
    index_price: str = field(name="idxPx", default="")
    amount: str = field(name="oi", default="")
    value: str = field(name="oiUsd", default="")
    details: list[_Closed] = []


class _MarketPush(msgspec.Struct, gc=False):
    argument: _Argument = field(name="arg")
    data: list[_Market]


class _Envelope(msgspec.Struct, gc=False):
    argument: _Argument = field(name="arg")
    event: str = ""


class _ClientFrame(msgspec.Struct, gc=False):
    op: str
    arguments: list[_Argument] = field(name="args", default=[])
    id: str | None = None


class _Listed(msgspec.Struct, gc=False):
    native: str = field(name="instId")
    type: str = field(name="instType")
    state: str = "live"
    base: str = field(name="baseCcy", default="")
    quote: str = field(name="quoteCcy", default="")
    contract_size: str = field(name="ctVal", default="")
    contract_type: str = field(name="ctType", default="")


class _Instruments(msgspec.Struct, gc=False):
    data: list[_Listed]
    code: Literal["0"]


class _BookAnswer(msgspec.Struct, gc=False):
    data: list[_Row]
    code: Literal["0"]


class _TradesAnswer(msgspec.Struct, gc=False):
    data: list[_Print]
    code: Literal["0"]


class _Volume(msgspec.Struct, gc=False):
    native: str = field(name="instId")
    type: str = field(name="instType")
    turnover: str = field(name="volCcy24h", default="")
    last: str = ""


class _VolumesAnswer(msgspec.Struct, gc=False):
    code: Literal["0"]
    data: list[_Volume]


class _Refusal(msgspec.Struct, gc=False):
    code: str = ""
    msg: str = ""


_decode = msgspec.json.Decoder(_Frame).decode
_decode_trades = msgspec.json.Decoder(_Trades, strict=False).decode  # ids and times are digits in quotes
_decode_market = msgspec.json.Decoder(_MarketPush, strict=False).decode
_decode_levels = msgspec.json.Decoder(list[tuple[str, str, str, str]]).decode
_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_client_frame = msgspec.json.Decoder(_ClientFrame).decode
_INSTRUMENTS = msgspec.json.Decoder(_Instruments)
_BOOK = msgspec.json.Decoder(_BookAnswer)
_TRADES_ANSWER = msgspec.json.Decoder(_TradesAnswer, strict=False)
_VOLUMES = msgspec.json.Decoder(_VolumesAnswer)
_REFUSAL = msgspec.json.Decoder(_Refusal)


def checksum(bids: Sequence[Level], asks: Sequence[Level]) -> int:
    """Return the checksum of a book: CRC32 of ``bid:size:ask:size:…`` of the 25 best pairs, as a signed number."""
    pairs = zip_longest(bids, asks, fillvalue=())
    crc = zlib.crc32(":".join(chain.from_iterable(chain.from_iterable(pairs))).encode())
    return crc - 2**32 if crc >= 2**31 else crc


class OkxBookRule:
    """Each message's ``prevSeqId`` is the ``seqId`` before it; ``seqId`` itself may repeat (nothing changed) or fall.

    Source: "Sequence ID". A fall is a reset after maintenance, and breaks nothing. Messages of before there were ids
    have none, and follow each other as they come, under their checksums.
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
        previous = delta.previous_id
        if previous is not None and previous != last:
            return "stale" if previous < last and delta.last_id <= last else "gap"
        self.last_id = delta.last_id
        return "apply"


class Okx(Exchange):
    """OKX. Native spellings are instrument ids."""

    name = "okx"
    streams = STREAMS
    steady_streams = frozenset({"funding"})  # mark prices every 200 ms, or every 10 s where they don't change
    ws_url = "wss://ws.okx.com:8443"
    rest_url = "https://www.okx.com"
    limits = Limits(
        streams_per_connection=60,  # "less than 30" of the deep books on one connection, each with its trades
        streams_per_frame=60,
        frames_per_s=2,  # 480 requests an hour on one connection: subscribing needs one or two
        connects_per_5_min=300,  # 3 a second from one address
        connection_life_s=None,
        weight_per_min=300,  # a request is one; instruments and trades allow 20 in two seconds
        ping_interval_s=20,  # the server goes after 30 s without a message
    )
    trade_ids_contiguous = True
    book_needs_snapshot = False
    deepest_book = 400
    book_checksum = Checksum(25, checksum)

    def __init__(self, listings: Sequence[Listing] = ()) -> None:
        super().__init__(listings)
        # An index is of all contracts of its pair; their listings don't name it, but begin with it.
        self._of_index: dict[str, list[str]] = {}
        for listing in listings:
            if _kind(listing.native) != "SPOT":
                self._of_index.setdefault(_index(listing.native), []).append(listing.symbol)

    def offers(self, listing: Listing) -> tuple[str, ...]:
        kind = _kind(listing.native)
        if kind == "SPOT":
            return STREAMS[:4]
        if kind == "FUTURES" and _X_PERP not in listing.symbol:
            return tuple(stream for stream in STREAMS if stream != "funding")
        return STREAMS

    def listing_request(self) -> Request:
        return Request("/api/v5/public/instruments", {"instType": _TYPES[0]})

    def next_listing_request(self, request: Request, body: bytes) -> Request | None:  # noqa: ARG002  a page for each type
        later = _TYPES[_TYPES.index(request.params["instType"]) + 1 :]
        return Request(request.path, {"instType": later[0]}) if later else None

    def parse_listing(self, body: bytes) -> list[Listing]:
        rows = read_answer(_INSTRUMENTS, body, "the list of instruments", _words).data
        known = [row for row in rows if row.type in _TYPES]
        known.sort(key=lambda row: row.state != "live")
        symbols = symbols_once((_symbol(row.native), row.native) for row in known)
        return [_listing(row, symbol) for row, symbol in zip(known, symbols, strict=True)]

    def write_listing(self, symbols: Sequence[str]) -> bytes | None:
        rows = []
        for symbol in symbols:
            native = symbol.replace("_", "-", 1).replace(f"-{_X_PERP}-", f"_{_X_PERP.replace('-', '_')}-")
            rows.append({"instId": native, "instType": _kind(native), "state": "live"})
        return msgspec.json.encode({"code": "0", "msg": "", "data": rows})

    def plan(self, subscriptions: Sequence[Subscription], *, raw_trades: bool = False) -> list[ConnectionPlan]:
        by_path: dict[str, list[Subscription]] = {}
        for subscription in subscriptions:
            by_path.setdefault(_path(subscription.stream, raw_trades), []).append(subscription)
        return [
            self._connection(path, packed, raw_trades)
            for path, asked in by_path.items()
            for packed in pack(asked, self.limits.streams_per_connection)
        ]

    def renewal_frames(self, subscription: Subscription) -> Sequence[str]:
        arguments = self._arguments(subscription, raw_trades=False)
        return [msgspec.json.encode({"op": op, "args": arguments}).decode() for op in ("unsubscribe", "subscribe")]

    def parse(self, frame: bytes | str, received_us: int) -> Sequence[Event]:
        try:
            if (b'"trades' if type(frame) is bytes else '"trades') in frame[:24]:  # type: ignore[operator]
                return self._trades(_decode_trades(frame), received_us)
            decoded = _decode(frame)
        except UNREADABLE as error:
            return _ignore_or_raise(frame, error)
        argument, rows = decoded.argument, decoded.data
        if argument is None or rows is None:
            return _answer(decoded)
        channel = argument.channel
        if channel in _MARKET:
            return self._market(frame, received_us)
        symbol = self.symbol_of.get(argument.native)
        if symbol is None:
            return ()
        if channel in _TRADES:
            return self._trades_anyhow(frame, received_us)
        if channel in BOOKS:
            return [_book(row, symbol, received_us, decoded.action) for row in rows]
        if channel == _TICKERS:
            return [_ticker(row, symbol, received_us) for row in rows]
        if channel.startswith("candle"):
            return [_kline(row, symbol, received_us, channel) for row in rows]
        return ()

    def _market(self, frame: bytes | str, received_us: int) -> Sequence[Event]:
        """Read what is none of trades, books, candles and best prices; each message has one part of a funding."""
        try:
            message = _decode_market(frame)
        except UNREADABLE as error:
            return _ignore_or_raise(frame, error)
        channel = message.argument.channel
        events: list[Event] = []
        for row in message.data:
            if channel == _INDEX:
                require_decimals(row.index_price)
                time_us = row.time * 1000 or received_us
                events += [
                    Funding(symbol, time_us, None, None, None, row.index_price, received_us)
                    for symbol in self._of_index.get(row.native, ())
                ]
                continue
            symbol = self.symbol_of.get(row.native)
            if symbol is not None:
                events += _market_events(row, symbol, received_us, channel)
        return events

    def _trades(self, message: _Trades, received_us: int) -> Sequence[Event]:
        symbol = self.symbol_of.get(message.argument.native)
        return [] if symbol is None else [_trade(row, symbol, received_us) for row in message.data]

    def _trades_anyhow(self, frame: bytes | str, received_us: int) -> Sequence[Event]:
        """Read trades that are not written as usual: white space, another order of fields."""
        try:
            return self._trades(_decode_trades(frame), received_us)
        except UNREADABLE as error:
            return _ignore_or_raise(frame, error)

    def snapshot_request(self, symbol: str) -> Request:
        return Request("/api/v5/market/books", {"instId": self._native(symbol), "sz": "400"})

    def parse_snapshot(self, symbol: str, body: bytes, received_us: int) -> BookSnapshot:
        rows = read_answer(_BOOK, body, f"the order book of {symbol}", _words).data
        if len(rows) != 1:
            raise MessageError(f"The answer to the request for the order book of {symbol} holds {len(rows)} books.")
        book = _book(rows[0], symbol, received_us, "snapshot")
        if not isinstance(book, BookSnapshot):
            raise MessageError(f"The answer to the request for the order book of {symbol} is none.")
        return book

    def book_rule(self) -> BookRule:
        return OkxBookRule()

    def newest_trade_request(self, symbol: str) -> Request | None:
        return Request("/api/v5/market/trades", {"instId": self._native(symbol), "limit": "1"})

    def trades_request(
        self,
        symbol: str,
        from_id: int,
        limit: int,
        *,
        raw_trades: bool = False,  # noqa: ARG002  the ids of both channels are the raw trades'
        from_us: int | None = None,  # noqa: ARG002  ids are better
    ) -> Request | None:
        # ``after`` asks for what is older than an id, the newest first; three months of it can be had.
        count = min(limit, 100)
        params = {"instId": self._native(symbol), "type": "1", "after": str(from_id + count), "limit": str(count)}
        return Request("/api/v5/market/history-trades", params)

    def parse_trades(self, symbol: str, body: bytes, received_us: int) -> list[Trade]:
        rows = read_answer(_TRADES_ANSWER, body, f"the trades of {symbol}", _words).data
        trades = [_trade(row, symbol, received_us) for row in reversed(rows)]
        for trade in trades:
            trade.source = "rest"
        return trades

    def volumes_request(self) -> Request | None:
        return Request("/api/v5/market/tickers", {"instType": _TYPES[0]})

    def next_volumes_request(self, request: Request, body: bytes) -> Request | None:
        return self.next_listing_request(request, body)

    def parse_volumes(self, body: bytes) -> dict[str, Decimal]:
        rows = read_answer(_VOLUMES, body, "the volumes", _words).data
        # ``volCcy24h`` is in quote currency for spot, and in base currency for contracts.
        return {row.native: volume(row.turnover) * (1 if row.type == "SPOT" else volume(row.last)) for row in rows}

    def ping_frame(self) -> str | None:
        return "ping"

    def channel_of(self, frame: bytes | str) -> str | None:
        try:
            envelope = _decode_envelope(frame)
        except UNREADABLE:
            return None
        argument = envelope.argument
        return None if envelope.event or not (argument.native or argument.type) else _channel(argument)

    def channels_asked(self, path: str, frame: str | None) -> Sequence[str]:  # noqa: ARG002  only frames ask
        asked = _client_frame(frame)
        if asked is None or asked.op != "subscribe":
            return ()
        return [_channel(argument) for argument in asked.arguments if argument.native or argument.type]

    def acknowledgement(self, frame: str) -> str | None:
        if frame == "ping":
            return "pong"
        asked = _client_frame(frame)
        if asked is None or asked.op not in ("subscribe", "unsubscribe") or not asked.arguments:
            return None
        # One answer for each argument; the first says what a client needs to know.
        answer = {"event": asked.op, "arg": asked.arguments[0], "connId": "0"}
        return msgspec.json.encode(answer | ({} if asked.id is None else {"id": asked.id})).decode()

    def _connection(self, path: str, subscriptions: Sequence[Subscription], raw_trades: bool) -> ConnectionPlan:
        # What several contracts share (an index, all forced orders of a kind) is asked for once.
        asked = [self._arguments(subscription, raw_trades) for subscription in subscriptions]
        arguments = list(dict.fromkeys(chain.from_iterable(asked)))
        frames = tuple(
            msgspec.json.encode({"id": str(number), "op": "subscribe", "args": part}).decode()
            for number, part in enumerate(chunks(arguments, self.limits.streams_per_frame), 1)
        )
        return ConnectionPlan(path, frames, tuple(subscriptions), tuple(str(n) for n in range(1, len(frames) + 1)))

    def _arguments(self, subscription: Subscription, raw_trades: bool) -> list[_Argument]:
        require_stream(subscription.stream, STREAMS)
        native = self._native(subscription.symbol)
        if subscription.stream == "prices" and raw_trades:
            return [_Argument("trades-all", native)]
        if subscription.stream == "liquidations":
            return [_Argument(_LIQUIDATIONS, type=_kind(native))]
        return [
            _Argument(channel, _index(native) if channel == _INDEX else native)
            for channel in _CHANNELS[subscription.stream]
        ]

    def _native(self, symbol: str) -> str:
        try:
            return self.native_of[symbol]
        except KeyError:
            raise UnknownName("symbol", symbol, list(self.native_of)) from None


def _path(stream: str, raw_trades: bool) -> str:
    """Return the path that serves a stream (since 2023-06-20; the other one answers with an error)."""
    require_stream(stream, STREAMS)
    return _BUSINESS if stream == "klines" or (stream == "prices" and raw_trades) else _PUBLIC


def _trade(row: _Print, symbol: str, received_us: int) -> Trade:
    price, volume, last_id, count = row.price, row.volume, row.trade_id, row.count
    # Nearly all numbers have a fraction, and then nothing but the point is left of them.
    if price.strip(_DIGITS) != "." or volume.strip(_DIGITS) != "." or price == "." or volume == ".":
        require_decimals(price, volume)
    if count > last_id + 1:
        raise MessageError(f"A trade of {symbol} with the id {last_id} cannot stand for {count}.")
    return Trade(
        symbol,
        row.time * 1000,
        price,
        volume,
        row.side,
        last_id,
        received_us,
        "ws",
        last_id - count + 1 if count else None,
        last_id if count else None,
    )


def _book(row: _Row | list[str], symbol: str, received_us: int, action: str) -> BookSnapshot | BookDelta:
    if type(row) is not _Row or not row.bids or not row.asks:
        raise MessageError(f"A message of the book of {symbol} lacks a side.")
    bids, asks = _levels(row.bids), _levels(row.asks)
    time_us = milliseconds_us(row.time)
    last_id, previous_id, total = row.last_id, row.previous_id, None
    if last_id is None:
        # Before there were ids: the times order the messages, and checksums tell whether one is missing.
        last_id, previous_id, total = time_us // 1000, None, row.checksum or None
    elif previous_id is None and action == "update":
        raise MessageError(f"A change of the book of {symbol} does not say which one it follows.")
    if action == "snapshot":
        return BookSnapshot(symbol, time_us, last_id, bids, asks, received_us, total)
    if action != "update":
        raise MessageError(f"A message of the book of {symbol} is neither a snapshot nor an update.")
    return BookDelta(symbol, time_us, last_id, last_id, previous_id, bids, asks, received_us, total)


def _levels(side: msgspec.Raw) -> list[Level]:
    """Read a side of a book. Written as usual, one search finds all levels in a third of the time."""
    text = str(side, "utf-8")
    levels: list[Level] = _LEVELS(text)
    if len(levels) + 1 == text.count("["):
        return levels
    try:
        levels = [(price, size) for price, size, _, _ in _decode_levels(text)]
    except UNREADABLE as error:
        raise MessageError(f"The levels of a book cannot be read: {error}.") from error
    require_levels(levels, ())
    return levels


def _ticker(row: _Row | list[str], symbol: str, received_us: int) -> Ticker:
    if type(row) is not _Row or not row.bids or not row.asks:
        raise MessageError(f"The best prices of {symbol} lack a side.")
    time_us = milliseconds_us(row.time)
    return Ticker(symbol, time_us, *best(_levels(row.bids)), *best(_levels(row.asks)), row.last_id, received_us)


def _market_events(row: _Market, symbol: str, received_us: int, channel: str) -> list[Event]:
    time_us = row.time * 1000 or received_us  # funding rates had no time of their own in 2021
    if channel == _LIQUIDATIONS:
        for closed in row.details:
            require_decimals(closed.price, closed.volume)
        return [
            Liquidation(symbol, closed.time * 1000, closed.price, closed.volume, closed.side, received_us)
            for closed in row.details
        ]
    if channel == "open-interest":
        require_decimals(row.amount)
        # The value is in dollars, which are the quote currency of some contracts only.
        value = row.value if row.value and symbol.partition("_")[2].startswith("USD-") else None
        require_decimals(*filter(None, (value,)))
        return [OpenInterest(symbol, time_us, row.amount, value, received_us)]
    if channel == "mark-price":
        require_decimals(row.mark_price)
        return [Funding(symbol, time_us, None, None, row.mark_price, None, received_us)]
    require_signed(*filter(None, (row.rate,)))
    # ``fundingTime`` is when this rate is paid; ``nextFundingTime`` is the time after that.
    paid_us = milliseconds_us(row.funding_time) if row.funding_time else None
    return [Funding(symbol, time_us, row.rate or None, paid_us, None, None, received_us)]


def _kline(row: _Row | list[str], symbol: str, received_us: int, channel: str) -> Kline:
    """Read ``[time, open, high, low, close, volume, in currency, in quote currency, confirmed]``."""
    if type(row) is not list or len(row) < 9:
        raise MessageError(f"A candle of {symbol} lacks a field.")
    start, o, high, low, close, volume, _, quote_volume, confirmed = row[:9]
    require_decimals(o, high, low, close, volume, quote_volume)
    start_us = milliseconds_us(start)
    interval = channel.removeprefix("candle")
    return Kline(
        symbol=symbol,
        interval=interval.lower() if interval.endswith("H") else interval,
        start_us=start_us,
        open=o,
        high=high,
        low=low,
        close=close,
        volume=volume,
        quote_volume=quote_volume,
        trades_count=None,
        taker_buy_volume=None,
        closed=confirmed == "1",
        timestamp_us=start_us,  # the message has no time of its own
        received_us=received_us,
    )


def _answer(frame: _Frame) -> Sequence[Event]:
    if frame.event == "subscribe":
        return (Acknowledged(frame.id),)
    if frame.event == "error":
        named = _WRONG_CHANNEL(frame.msg)
        channel = _channel(_Argument(named[1], named[2])) if named else None
        return (Rejected(frame.id, frame.code, frame.msg, channel),)
    if frame.event == "notice" and frame.code == UPGRADE:
        return (ServerNotice("shutdown", 0, frame.msg),)
    return ()


def _ignore_or_raise(frame: bytes | str, error: BaseException) -> Sequence[Event]:
    """Return nothing for the answer to a ping, and for channels that we don't read; raise for a broken message."""
    if frame in (b"pong", "pong"):
        return ()
    read = document(frame)
    argument = read.get("arg") if isinstance(read, dict) else None
    channel = argument.get("channel") if isinstance(argument, dict) else None
    if (
        not isinstance(channel, str)
        or channel in _TRADES | BOOKS | _MARKET | {_TICKERS}
        or channel.startswith("candle")
    ):
        raise MessageError(f"A message of the channel {str(channel)[:40]!r} cannot be read: {error}.") from error
    return ()


def _listing(row: _Listed, symbol: str) -> Listing:
    base, _, rest = row.native.partition("-")
    quote = row.quote or re.split("[-_]", rest)[0]
    inverse = row.contract_type == "inverse"
    return Listing(symbol, row.native, row.base or base, quote, row.state == "live", row.contract_size, inverse)


def _kind(native: str) -> str:
    """Return an instrument's type by its id."""
    kinds = native.split("-")[2:]
    return "SPOT" if not kinds else "SWAP" if kinds[-1] == "SWAP" else "FUTURES"


def _index(native: str) -> str:
    """Return the index of a contract, by its id: the pair it begins with."""
    base, _, rest = native.partition("-")
    return f"{base}-{re.split('[-_]', rest)[0]}"


def _symbol(native: str) -> str:
    base, _, rest = native.partition("-")
    return f"{base}_{rest.replace('_', '-')}"


def _channel(argument: _Argument) -> str:
    name = "books" if argument.channel in BOOKS else argument.channel
    return f"{name}:{argument.native or argument.type}"


def _client_frame(frame: str | None) -> _ClientFrame | None:
    try:
        return None if frame is None else _decode_client_frame(frame)
    except UNREADABLE:
        return None


def _words(body: bytes) -> str:
    refusal = _REFUSAL.decode(body)
    return f"{refusal.msg} (code {refusal.code})" if refusal.code not in ("", "0") else ""
