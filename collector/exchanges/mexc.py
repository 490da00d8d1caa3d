"""MEXC spot: the websocket v3, whose pushes are protobuf, and its REST.

Sources: the exchange's page "WebSocket Market Streams", its published ``.proto`` files, and two clients in production.
Pushes are read by a reader of our own: they have five kinds of messages with 26 fields between them that matter here,
which is no reason for another dependency with a native library, or for generated code.

``tradeType`` is the taker's side, 1 buys and 2 sells. Trades have had an id of their own (a text) only since a later
version of the files; those without one get one of their time and place in the message.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal

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
from collector.exchanges.protobuf import message, number, read_fields, text
from collector.exchanges.rules import ContiguousRule

STREAMS = ("prices", "orderbook", "klines", "tickers")

_DEALS, _DEPTH, _KLINE, _BEST = (
    "spot@public.aggre.deals.v3.api.pb",
    "spot@public.aggre.depth.v3.api.pb",
    "spot@public.kline.v3.api.pb",
    "spot@public.aggre.bookTicker.v3.api.pb",
)
# Field numbers of PushDataV3ApiWrapper.
_CHANNEL, _SYMBOL, _CREATED, _SENT = 1, 3, 5, 6
_KLINE_BODY, _DEPTH_BODY, _DEALS_BODY, _BEST_BODY = 308, 313, 314, 315

_SIDES: dict[int, Side] = {1: "buy", 2: "sell"}
_INTERVALS = {"Min1": "1m", "Min5": "5m", "Min15": "15m", "Min60": "1h", "Hour4": "4h", "Day1": "1d"}
_NUMBER = r"([0-9]+(?:\.[0-9]+)?)"
_LEVELS = re.compile(f"([\n\x12])(.)\n(.){_NUMBER}\x12(.){_NUMBER}", re.DOTALL).findall
"""A level of either side, as bytes read as Latin-1: its length, its price, its size, each with its length before it."""
_DEAL = re.compile(
    f"\n(.){_NUMBER}\x12(.){_NUMBER}\x18([\x01\x02]) ([\x80-\xff]{{5}}[\x01-\x7f])\\*(.)([0-9A-Za-z_]+)", re.DOTALL
).fullmatch
"""A deal as it is nearly always written: each field once, in the order of their numbers."""
_SPEED = re.compile(r"@(?:10|100)ms(?=@|$)")
_REFUSED = re.compile(r"\[([^\]]*)\]")


class _Answer(msgspec.Struct, gc=False):
    id: int | str | None = None
    code: int = 0
    msg: str = ""


class _ClientFrame(msgspec.Struct, gc=False):
    method: str
    params: list[str] = []


class _Listed(msgspec.Struct, gc=False):
    symbol: str
    base: str = msgspec.field(name="baseAsset")
    quote: str = msgspec.field(name="quoteAsset")
    status: str | int = "1"
    spot: bool = msgspec.field(name="isSpotTradingAllowed", default=True)


class _ListingAnswer(msgspec.Struct, gc=False):
    symbols: list[_Listed]


class _BookAnswer(msgspec.Struct, gc=False):
    last_id: Natural = msgspec.field(name="lastUpdateId")
    bids: list[Level]
    asks: list[Level]
    time: Natural = msgspec.field(name="timestamp", default=0)


class _Recent(msgspec.Struct, gc=False):
    time: Natural


class _Volume(msgspec.Struct, gc=False):
    symbol: str
    volume: str | None = msgspec.field(name="quoteVolume", default=None)


class _Refusal(msgspec.Struct, gc=False):
    code: int = 0
    msg: str = ""


_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_client_frame = msgspec.json.Decoder(_ClientFrame).decode
_LISTING = msgspec.json.Decoder(_ListingAnswer)
_BOOK = msgspec.json.Decoder(_BookAnswer)
_RECENT = msgspec.json.Decoder(list[_Recent])
_VOLUMES = msgspec.json.Decoder(list[_Volume])
_REFUSAL = msgspec.json.Decoder(_Refusal)


class Mexc(Exchange):
    """MEXC spot. Native spellings are ``BASEQUOTE``."""

    name = "mexc"
    ws_url = "wss://wbs-api.mexc.com"
    rest_url = "https://api.mexc.com"
    limits = Limits(
        streams_per_connection=30,
        streams_per_frame=30,
        frames_per_s=5,  # none is documented for the websocket
        connects_per_5_min=100,  # none is documented
        connection_life_s=24 * 3600,
        weight_per_min=1500,  # 500 in 10 s for each endpoint; half of it is plenty
        ping_interval_s=20,  # a connection without traffic is closed after a minute
    )
    streams: tuple[str, ...] = STREAMS
    trade_ids_contiguous = False
    snapshot_depth = 5000
    klines_say_closed = False

    def listing_request(self) -> Request:
        return Request("/api/v3/exchangeInfo", weight=10)

    def parse_listing(self, body: bytes) -> list[Listing]:
        answer = read_answer(_LISTING, body, "the list of symbols", _words).symbols
        answer.sort(key=lambda listed: not _trades(listed))
        symbols = symbols_once((f"{listed.base}_{listed.quote}", listed.symbol) for listed in answer)
        return [
            Listing(symbol, listed.symbol, listed.base, listed.quote, _trades(listed))
            for symbol, listed in zip(symbols, answer, strict=True)
        ]

    def write_listing(self, symbols: Sequence[str]) -> bytes | None:
        pairs = [symbol.partition("_") for symbol in symbols]
        rows = [{"symbol": f"{base}{quote}", "baseAsset": base, "quoteAsset": quote} for base, _, quote in pairs]
        return msgspec.json.encode({"symbols": rows})

    def plan(self, subscriptions: Sequence[Subscription], *, raw_trades: bool = False) -> list[ConnectionPlan]:  # noqa: ARG002  all trades are raw
        plans = []
        for packed in pack(subscriptions, self.limits.streams_per_connection):
            names = [self._channel_name(subscription) for subscription in packed]
            plans.append(ConnectionPlan("/ws", (_frame("SUBSCRIPTION", names),), tuple(packed)))
        return plans

    def parse(self, frame: bytes | str, received_us: int) -> Sequence[Event]:
        if isinstance(frame, str) or frame[:1] == b"{":
            return _answer(frame)
        fields = dict(read_fields(frame))
        if not isinstance(fields.get(_CHANNEL), bytes):
            raise MessageError("A push names no channel.")
        symbol = self.symbol_of.get(text(fields.get(_SYMBOL)))
        if symbol is None:
            return ()
        if (body := fields.get(_DEALS_BODY)) is not None:
            return _deals(message(body), symbol, received_us)
        time_us = (number(fields.get(_SENT)) or number(fields.get(_CREATED))) * 1000 or received_us
        if (body := fields.get(_DEPTH_BODY)) is not None:
            return (_delta(message(body), symbol, time_us, received_us),)
        if (body := fields.get(_KLINE_BODY)) is not None:
            return _kline(message(body), symbol, time_us, received_us)
        if (body := fields.get(_BEST_BODY)) is not None:
            return (_ticker(message(body), symbol, time_us, received_us),)
        return ()

    def snapshot_request(self, symbol: str) -> Request:
        return Request("/api/v3/depth", {"symbol": self._native(symbol), "limit": str(self.snapshot_depth)})

    def parse_snapshot(self, symbol: str, body: bytes, received_us: int) -> BookSnapshot:
        answer = read_answer(_BOOK, body, f"the order book of {symbol}", _words)
        require_levels(answer.bids, answer.asks)
        return BookSnapshot(symbol, answer.time * 1000, answer.last_id, answer.bids, answer.asks, received_us)

    def book_rule(self) -> BookRule:
        return ContiguousRule()

    def newest_trade_request(self, symbol: str) -> Request | None:
        return Request("/api/v3/trades", {"symbol": self._native(symbol), "limit": "1"})

    def parse_newest_trade_us(self, symbol: str, body: bytes, received_us: int) -> int | None:  # noqa: ARG002  the trade's
        rows = read_answer(_RECENT, body, f"the newest trade of {symbol}", _words)
        return max((row.time * 1000 for row in rows), default=None)

    def trades_request(
        self,
        symbol: str,  # noqa: ARG002  REST gives no ids
        from_id: int,  # noqa: ARG002
        limit: int,  # noqa: ARG002
        *,
        raw_trades: bool = False,  # noqa: ARG002
        from_us: int | None = None,  # noqa: ARG002
    ) -> Request | None:
        return None

    def parse_trades(self, symbol: str, body: bytes, received_us: int) -> list[Trade]:  # noqa: ARG002  never asked for
        raise MessageError(f"The trades of {symbol} have no ids in an answer of REST.")

    def volumes_request(self) -> Request | None:
        return Request("/api/v3/ticker/24hr", weight=40)

    def parse_volumes(self, body: bytes) -> dict[str, Decimal]:
        return {row.symbol: volume(row.volume or "") for row in read_answer(_VOLUMES, body, "the volumes", _words)}

    def ping_frame(self) -> str | None:
        return '{"method":"PING"}'

    def channel_of(self, frame: bytes | str) -> str | None:
        if isinstance(frame, str) or frame[:1] == b"{":
            return None
        try:
            name = next((value for field, value in read_fields(frame) if field == _CHANNEL), None)
            return _plain_channel(text(name)) or None
        except MessageError:
            return None

    def channels_asked(self, path: str, frame: str | None) -> Sequence[str]:  # noqa: ARG002  nothing is asked by a path
        asked = _client_frame(frame)
        return [_plain_channel(name) for name in asked.params] if asked and asked.method == "SUBSCRIPTION" else ()

    def acknowledgement(self, frame: str) -> str | None:
        asked = _client_frame(frame)
        if asked is None or asked.method not in ("SUBSCRIPTION", "UNSUBSCRIPTION", "PING"):
            return None
        words = "PONG" if asked.method == "PING" else ",".join(asked.params)
        return msgspec.json.encode({"id": 0, "code": 0, "msg": words}).decode()

    def _channel_name(self, subscription: Subscription) -> str:
        require_stream(subscription.stream, self.streams)
        native = self._native(subscription.symbol)
        return {
            "prices": f"{_DEALS}@100ms@{native}",
            "orderbook": f"{_DEPTH}@100ms@{native}",
            "klines": f"{_KLINE}@{native}@Min1",
            "tickers": f"{_BEST}@100ms@{native}",
        }[subscription.stream]

    def _native(self, symbol: str) -> str:
        try:
            return self.native_of[symbol]
        except KeyError:
            raise UnknownName("symbol", symbol, list(self.native_of)) from None


def _deals(body: bytes, symbol: str, received_us: int) -> Sequence[Event]:
    """Read PublicAggreDealsV3Api: the deals are its field 1."""
    trades = []
    for place, (field, value) in enumerate(read_fields(body)):
        if field == 1:
            trades.append(_deal(message(value), place, symbol, received_us))
    return trades


def _deal(body: bytes, place: int, symbol: str, received_us: int) -> Trade:
    """Read PublicAggreDealsV3ApiItem."""
    found = _DEAL(body.decode("latin-1"))
    if found:
        price_size, price, size_size, size, kind, time, name_size, name = found.groups()
        if ord(price_size) == len(price) and ord(size_size) == len(size) and ord(name_size) == len(name):
            time_ms = _six_bytes(time.encode("latin-1"))
            return Trade(symbol, time_ms * 1000, price, size, _SIDES[ord(kind)], trade_id(name), received_us)
    fields = dict(read_fields(body))
    price, size = text(fields.get(1)), text(fields.get(2))
    side = _SIDES.get(number(fields.get(3)))
    time_ms = number(fields.get(4))
    require_price_and_size(price, size)
    if side is None or not time_ms:
        raise MessageError(f"A trade of {symbol} has no side, or no time.")
    name = text(fields.get(5)) or f"{time_ms}-{place}"
    return Trade(symbol, time_ms * 1000, price, size, side, trade_id(name), received_us)


def _six_bytes(data: bytes) -> int:
    """Return the number of a varint of six bytes, as every time in milliseconds is from 2004 to 2109."""
    a, b, c, d, e, f = data
    return (a & 127) | (b & 127) << 7 | (c & 127) << 14 | (d & 127) << 21 | (e & 127) << 28 | f << 35


def _delta(body: bytes, symbol: str, time_us: int, received_us: int) -> BookDelta:
    """Read PublicAggreDepthsV3Api: asks 1, bids 2, versions from 4 to 5, as text."""
    bids, asks, at = _levels_as_written(body)
    checked = len(bids) + len(asks)
    versions = {4: "", 5: ""}
    for field, value in read_fields(body[at:]):
        if field == 1:
            asks.append(_level(message(value)))
        elif field == 2:
            bids.append(_level(message(value)))
        elif field in versions:
            versions[field] = text(value)
    if len(bids) + len(asks) != checked:
        require_levels(bids, asks)
    first_id, last_id = natural(versions[4]), natural(versions[5])
    if first_id > last_id:
        raise MessageError(f"A change of the book of {symbol} ends before it begins ({first_id}, {last_id}).")
    return BookDelta(symbol, time_us, first_id, last_id, None, bids, asks, received_us)


def _levels_as_written(body: bytes) -> tuple[list[Level], list[Level], int]:
    """Return the levels that a body begins with, and where they end; none where they are written in another way.

    Nearly always each level is a price and then a size, of fewer than 128 bytes together. Then a pattern finds them in
    a third of the time of a look at each byte, and the sums of the lengths tell whether it was right.
    """
    as_text = body.decode("latin-1")
    found = _LEVELS(as_text)
    if not found:
        return [], [], 0
    _, lengths, price_lengths, prices, size_lengths, sizes = zip(*found, strict=True)
    in_prices, in_sizes = len("".join(prices)), len("".join(sizes))
    length = _sum(lengths)
    end = length + 2 * len(found)
    if (
        _sum(price_lengths) != in_prices
        or _sum(size_lengths) != in_sizes
        or length != in_prices + in_sizes + 4 * len(found)
        # All levels together are as long as the way from the beginning to the end of the last: nothing is in between.
        or as_text.rindex(f"\x12{size_lengths[-1]}{sizes[-1]}") + 2 + len(sizes[-1]) != end
    ):
        return [], [], 0
    asks = [(price, size) for kind, _, _, price, _, size in found if kind == "\n"]
    bids = [(price, size) for kind, _, _, price, _, size in found if kind != "\n"]
    return bids, asks, end


def _sum(bytes_as_text: Sequence[str]) -> int:
    return sum("".join(bytes_as_text).encode("latin-1"))


def _level(body: bytes) -> Level:
    fields = dict(read_fields(body))
    return text(fields.get(1)), text(fields.get(2))


def _ticker(body: bytes, symbol: str, time_us: int, received_us: int) -> Ticker:
    """Read PublicAggreBookTickerV3Api: the bid's price and size, the ask's, the book's version."""
    fields = dict(read_fields(body))
    bid, bid_size, ask, ask_size, version = (text(fields.get(place)) for place in range(1, 6))
    bids: list[Level] = [(bid, bid_size)] if bid else []
    asks: list[Level] = [(ask, ask_size)] if ask else []
    require_levels(bids, asks)
    number = natural(version) if version else None
    return Ticker(symbol, time_us, *best(bids), *best(asks), number, received_us, timed=time_us != received_us)


def _kline(body: bytes, symbol: str, time_us: int, received_us: int) -> Sequence[Event]:
    """Read PublicSpotKlineV3Api."""
    fields = dict(read_fields(body))
    interval = _INTERVALS.get(text(fields.get(1)))
    if interval is None:
        return ()
    opened, close, high, low, volume, amount = (text(fields.get(place)) for place in range(3, 9))
    require_decimals(opened, close, high, low, volume, amount)
    return (
        Kline(
            symbol=symbol,
            interval=interval,
            start_us=number(fields.get(2)) * 1_000_000,
            open=opened,
            high=high,
            low=low,
            close=close,
            volume=volume,
            quote_volume=amount,
            trades_count=None,
            taker_buy_volume=None,
            closed=False,
            timestamp_us=time_us,
            received_us=received_us,
        ),
    )


def _trades(listed: _Listed) -> bool:
    return str(listed.status) in ("1", "ENABLED") and listed.spot


def _plain_channel(name: str) -> str:
    """Spell a channel in one way whatever its speed, so that a recording of any of them plays."""
    return _SPEED.sub("", name)


def _frame(method: str, names: Sequence[str]) -> str:
    return msgspec.json.encode({"method": method, "params": names}).decode()


def _client_frame(frame: str | None) -> _ClientFrame | None:
    try:
        return None if frame is None else _decode_client_frame(frame)
    except UNREADABLE:
        return None


def _words(body: bytes) -> str:
    refusal = _REFUSAL.decode(body)
    return f"{refusal.msg} (code {refusal.code})" if refusal.msg else ""


def _answer(frame: bytes | str) -> Sequence[Event]:
    """Read an answer to a request. A refusal has the code 0, too: only its words tell."""
    try:
        answer = _decode_answer(frame)
    except UNREADABLE as error:
        raise MessageError(f"A frame is no answer: {error}.") from error
    if answer.msg == "PONG":
        return ()
    if answer.code or "not subscribed" in answer.msg.lower():
        names = [name for part in _REFUSED.findall(answer.msg) for name in part.split(",") if name]
        channels = [_plain_channel(name.strip()) for name in names]
        return [Rejected(None, str(answer.code), answer.msg, channel) for channel in channels or (None,)]
    return (Acknowledged(None),)
