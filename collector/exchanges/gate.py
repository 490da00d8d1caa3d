"""Gate spot: the websocket v4 and its REST.

Sources: the exchange's pages "Spot WebSocket v4" and "Gate API v4", and a recording of the real exchange. ``side`` is
the taker's. Trades are numbered within their market by ``id_market``, without holes; messages from before there was
such a field have only ``id``, which counts over all markets: it stays text here, so that nobody looks for holes in it.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal
from typing import Any, final

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
    milliseconds_us,
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
from collector.exchanges.rules import ContiguousRule

STREAMS = ("prices", "orderbook", "klines", "tickers")

_API = "/api/v4/spot"
_TRADES, _CHANGES, _BOOKS, _CANDLES = "spot.trades", "spot.order_book_update", "spot.obu", "spot.candlesticks"
_BEST = "spot.book_ticker"
_KNOWN = frozenset({_TRADES, _CHANGES, _BOOKS, _CANDLES, _BEST})
_NO_TIME = '"time":0,'
"""How a frame is planned: ``stamp`` puts the time in, because it may not differ by more than a minute."""


class _Print(msgspec.Struct, gc=False):
    native: str = msgspec.field(name="currency_pair")
    id: Natural
    time: str = msgspec.field(name="create_time_ms")
    side: Side
    size: str = msgspec.field(name="amount")
    price: str
    market_id: Natural | None = msgspec.field(name="id_market", default=None)
    range: str = ""


class _Changes(msgspec.Struct, gc=False):
    native: str = msgspec.field(name="s")
    time: Natural = msgspec.field(name="t")
    last_id: Natural = msgspec.field(name="u")
    first_id: Natural | None = msgspec.field(name="U", default=None)
    bids: list[Level] = msgspec.field(name="b", default_factory=list)
    asks: list[Level] = msgspec.field(name="a", default_factory=list)
    full: bool = False


class _Quote(msgspec.Struct, gc=False):
    native: str = msgspec.field(name="s")
    time: Natural = msgspec.field(name="t")
    id: Natural = msgspec.field(name="u")
    bid: str = msgspec.field(name="b")
    bid_size: str = msgspec.field(name="B")
    ask: str = msgspec.field(name="a")
    ask_size: str = msgspec.field(name="A")


class _Candle(msgspec.Struct, gc=False):
    name: str = msgspec.field(name="n")
    start: str = msgspec.field(name="t")
    open: str = msgspec.field(name="o")
    high: str = msgspec.field(name="h")
    low: str = msgspec.field(name="l")
    close: str = msgspec.field(name="c")
    quote_volume: str = msgspec.field(name="v")
    volume: str | None = msgspec.field(name="a", default=None)


class _Failure(msgspec.Struct, gc=False):
    code: int = 0
    message: str = ""


class _Answer(msgspec.Struct, gc=False):
    channel: str
    event: str = ""
    error: _Failure | None = None
    id: int | str | None = None


@final
class _TradeUpdate(msgspec.Struct, tag_field="channel", tag=_TRADES, gc=False):
    event: str
    result: _Print


@final
class _ChangesUpdate(msgspec.Struct, tag_field="channel", tag=_CHANGES, gc=False):
    event: str
    result: _Changes


@final
class _BookUpdate(msgspec.Struct, tag_field="channel", tag=_BOOKS, gc=False):
    event: str
    result: _Changes


@final
class _CandleUpdate(msgspec.Struct, tag_field="channel", tag=_CANDLES, gc=False):
    event: str
    result: _Candle
    time: Natural = 0
    time_ms: Natural = 0


@final
class _QuoteUpdate(msgspec.Struct, tag_field="channel", tag=_BEST, gc=False):
    event: str
    result: _Quote


class _Where(msgspec.Struct, gc=False):
    native: str = msgspec.field(name="currency_pair", default="")
    symbol: str = msgspec.field(name="s", default="")
    candle: str = msgspec.field(name="n", default="")


class _Envelope(msgspec.Struct, gc=False):
    channel: str = ""
    event: str = ""
    result: _Where | None = None


class _ClientFrame(msgspec.Struct, gc=False):
    channel: str
    event: str = ""
    payload: list[Any] = []
    id: int | str | None = None


class _Listed(msgspec.Struct, gc=False):
    id: str
    base: str
    quote: str
    status: str = msgspec.field(name="trade_status", default="tradable")


class _BookAnswer(msgspec.Struct, gc=False):
    id: Natural
    bids: list[Level]
    asks: list[Level]
    update: Natural = 0


class _TradeAnswer(msgspec.Struct, gc=False):
    id: str
    time: str = msgspec.field(name="create_time_ms")
    side: Side
    size: str = msgspec.field(name="amount")
    price: str
    market_id: str = msgspec.field(name="sequence_id", default="")


class _Volume(msgspec.Struct, gc=False):
    native: str = msgspec.field(name="currency_pair")
    volume: str = msgspec.field(name="quote_volume", default="")


class _Refusal(msgspec.Struct, gc=False):
    label: str = ""
    message: str = ""


_decode = msgspec.json.Decoder(_TradeUpdate | _ChangesUpdate | _BookUpdate | _CandleUpdate | _QuoteUpdate).decode
_decode_answer = msgspec.json.Decoder(_Answer).decode
_decode_envelope = msgspec.json.Decoder(_Envelope).decode
_decode_client_frame = msgspec.json.Decoder(_ClientFrame).decode
_LISTING = msgspec.json.Decoder(list[_Listed])
_BOOK = msgspec.json.Decoder(_BookAnswer)
_TRADE_ROWS = msgspec.json.Decoder(list[_TradeAnswer])
_VOLUMES = msgspec.json.Decoder(list[_Volume])
_REFUSAL = msgspec.json.Decoder(_Refusal)


class Gate(Exchange):
    """Gate spot. Native spellings are ``BASE_QUOTE``."""

    name = "gate"
    ws_url = "wss://api.gateio.ws"
    rest_url = "https://api.gateio.ws"
    limits = Limits(
        streams_per_connection=200,  # none is documented; its support advises a hundred connections at most
        streams_per_frame=100,
        frames_per_s=10,  # none is documented
        connects_per_5_min=100,
        connection_life_s=None,
        weight_per_min=600,  # 200 requests in 10 s for each endpoint, by "Gate API v4"; half of it is plenty
    )
    streams: tuple[str, ...] = STREAMS
    trade_ids_contiguous = True
    snapshot_depth = 100
    deepest_book = 50
    trades_paging = "recent"
    klines_say_closed = False
    """``w`` says it, but "may be missing", says the documentation."""

    _path = "/ws/v4/"

    def listing_request(self) -> Request:
        return Request(f"{_API}/currency_pairs")

    def parse_listing(self, body: bytes) -> list[Listing]:
        answer = read_answer(_LISTING, body, "the list of currency pairs", words_of)
        answer.sort(key=lambda listed: listed.status != "tradable")
        symbols = symbols_once((f"{listed.base}_{listed.quote}", listed.id) for listed in answer)
        return [
            Listing(symbol, listed.id, listed.base, listed.quote, listed.status == "tradable")
            for symbol, listed in zip(symbols, answer, strict=True)
        ]

    def write_listing(self, symbols: Sequence[str]) -> bytes | None:
        pairs = [symbol.partition("_") for symbol in symbols]
        return msgspec.json.encode(
            [{"id": f"{base}_{quote}", "base": base, "quote": quote} for base, _, quote in pairs]
        )

    def plan(self, subscriptions: Sequence[Subscription], *, raw_trades: bool = False) -> list[ConnectionPlan]:  # noqa: ARG002  all trades are raw
        for subscription in subscriptions:
            require_stream(subscription.stream, self.streams)
        return [self._connection(packed) for packed in pack(subscriptions, self.limits.streams_per_connection)]

    def stamp(self, frame: str, now_us: int) -> str:
        return frame.replace(_NO_TIME, f'"time":{now_us // 1_000_000},', 1)

    def parse(self, frame: bytes | str, received_us: int) -> Sequence[Event]:
        try:
            update = _decode(frame)
        except UNREADABLE as error:
            return read_answer_frame(frame, error, _KNOWN)
        if update.event != "update":
            return ()
        if type(update) is _TradeUpdate:
            symbol = self.symbol_of.get(update.result.native)
            return () if symbol is None else (_trade(update.result, symbol, received_us),)
        if type(update) is _CandleUpdate:
            return self._kline(update, received_us)
        if type(update) is _QuoteUpdate:
            return self._ticker(update.result, received_us)
        return self._book(update.result, received_us)

    def snapshot_request(self, symbol: str) -> Request:
        # The documented procedure asks for a hundred levels.
        return Request(f"{_API}/order_book", {"currency_pair": self._native(symbol), "limit": "100", "with_id": "true"})

    def parse_snapshot(self, symbol: str, body: bytes, received_us: int) -> BookSnapshot:
        answer = read_answer(_BOOK, body, f"the order book of {symbol}", words_of)
        require_levels(answer.bids, answer.asks)
        return BookSnapshot(symbol, answer.update * 1000, answer.id, answer.bids, answer.asks, received_us)

    def book_rule(self) -> BookRule:
        # "U <= baseID+1 and u >= baseID+1" for the first, no hole after it: "How to maintain local order book".
        return ContiguousRule()

    def newest_trade_request(self, symbol: str) -> Request | None:
        return Request(f"{_API}/trades", {"currency_pair": self._native(symbol), "limit": "1"})

    def trades_request(
        self,
        symbol: str,
        from_id: int,  # noqa: ARG002  see below
        limit: int,  # noqa: ARG002
        *,
        raw_trades: bool = False,  # noqa: ARG002  all trades are raw
        from_us: int | None = None,  # noqa: ARG002
    ) -> Request | None:
        # It is paged by ``id``, which is not the number within the market; the newest thousand are what can be had.
        return Request(f"{_API}/trades", {"currency_pair": self._native(symbol), "limit": "1000"})

    def parse_trades(self, symbol: str, body: bytes, received_us: int) -> list[Trade]:
        answer = read_answer(_TRADE_ROWS, body, f"the trades of {symbol}", words_of)
        trades = []
        for row in answer:
            require_price_and_size(row.price, row.size)
            number = natural(row.market_id) if row.market_id else str(natural(row.id))
            time_us = milliseconds_us(row.time)
            trades.append(Trade(symbol, time_us, row.price, row.size, row.side, number, received_us, "rest"))
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
        where = envelope.result
        if where is None or envelope.event != "update":
            return None
        if envelope.channel == _CANDLES:
            return f"{_CANDLES}:{where.candle}"
        native = where.native or _pair(where.symbol)
        return f"{envelope.channel}:{native}" if native else None

    def channels_asked(self, path: str, frame: str | None) -> Sequence[str]:  # noqa: ARG002  nothing is asked by a path
        asked = _client_frame(frame)
        if asked is None or asked.event != "subscribe":
            return ()
        payload = [word for word in asked.payload if isinstance(word, str)]
        if asked.channel.endswith(".order_book_update"):
            payload = payload[:1]
        elif asked.channel.endswith(".candlesticks"):
            payload = ["_".join(payload)]
        return [f"{asked.channel}:{_pair(word)}" for word in payload]

    def acknowledgement(self, frame: str) -> str | None:
        asked = _client_frame(frame)
        if asked is None or asked.event not in ("subscribe", "unsubscribe"):
            return None
        words = {"time": 0, "id": asked.id, "channel": asked.channel, "event": asked.event, "error": None}
        return msgspec.json.encode({**words, "result": {"status": "success"}}).decode()

    def _connection(self, subscriptions: Sequence[Subscription]) -> ConnectionPlan:
        requests = list(self._requests(subscriptions))
        frames = [
            f'{{{_NO_TIME}"id":{number},"channel":"{channel}","event":"subscribe","payload":{_json(payload)}}}'
            for number, (channel, payload) in enumerate(requests, 1)
        ]
        return ConnectionPlan(self._path, tuple(frames), tuple(subscriptions), tuple(range(1, len(frames) + 1)))

    def _requests(self, subscriptions: Sequence[Subscription]) -> Iterable[tuple[str, Sequence[str]]]:
        """Yield what to subscribe to: many markets at once for trades and quotes, one at a time otherwise."""
        for stream, channel in (("prices", _TRADES), ("tickers", _BEST)):
            natives = [self._native(asked.symbol) for asked in subscriptions if asked.stream == stream]
            for part in chunks(natives, self.limits.streams_per_frame):
                yield channel, part
        for asked in subscriptions:
            if asked.stream == "orderbook":
                yield _CHANGES, [self._native(asked.symbol), "100ms"]
            elif asked.stream == "klines":
                yield _CANDLES, ["1m", self._native(asked.symbol)]

    def _book(self, body: _Changes, received_us: int) -> Sequence[Event]:
        symbol = self.symbol_of.get(_pair(body.native))
        if symbol is None:
            return ()
        require_levels(body.bids, body.asks)
        time_us = body.time * 1000
        if body.full:
            return (BookSnapshot(symbol, time_us, body.last_id, body.bids, body.asks, received_us),)
        first_id = body.first_id
        if first_id is None or first_id > body.last_id:
            raise MessageError(f"A change of the book of {symbol} has no beginning, or ends before it.")
        return (BookDelta(symbol, time_us, first_id, body.last_id, None, body.bids, body.asks, received_us),)

    def _ticker(self, row: _Quote, received_us: int) -> Sequence[Event]:
        symbol = self.symbol_of.get(row.native)
        if symbol is None:
            return ()
        bids: list[Level] = [(row.bid, row.bid_size)] if row.bid else []
        asks: list[Level] = [(row.ask, row.ask_size)] if row.ask else []
        require_levels(bids, asks)
        return (Ticker(symbol, row.time * 1000, *best(bids), *best(asks), row.id, received_us),)

    def _kline(self, update: _CandleUpdate, received_us: int) -> Sequence[Event]:
        candle = update.result
        interval, _, native = candle.name.partition("_")
        symbol = self.symbol_of.get(native)
        if symbol is None:
            return ()
        # Before ``a`` there was only ``v``, and nothing told of which currency it is.
        volume, quote_volume = (
            (candle.quote_volume, None) if candle.volume is None else (candle.volume, candle.quote_volume)
        )
        require_decimals(candle.open, candle.high, candle.low, candle.close, volume, candle.quote_volume)
        return (
            Kline(
                symbol=symbol,
                interval=interval,
                start_us=natural(candle.start) * 1_000_000,
                open=candle.open,
                high=candle.high,
                low=candle.low,
                close=candle.close,
                volume=volume,
                quote_volume=quote_volume,
                trades_count=None,
                taker_buy_volume=None,
                closed=False,
                timestamp_us=(update.time_ms or update.time * 1000) * 1000,
                received_us=received_us,
            ),
        )

    def _native(self, symbol: str) -> str:
        try:
            return self.native_of[symbol]
        except KeyError:
            raise UnknownName("symbol", symbol, list(self.native_of)) from None


def _trade(body: _Print, symbol: str, received_us: int) -> Trade:
    require_price_and_size(body.price, body.size)
    time_us = milliseconds_us(body.time)
    number = body.market_id
    if number is None:
        return Trade(symbol, time_us, body.price, body.size, body.side, str(body.id), received_us)
    first, _, last = body.range.partition("-")
    if first == last:
        return Trade(symbol, time_us, body.price, body.size, body.side, number, received_us)
    # One message for several of the market's numbers goes by the last of them.
    first_id, last_id = natural(first), natural(last)
    return Trade(
        symbol, time_us, body.price, body.size, body.side, last_id, received_us, "ws", min(first_id, last_id), last_id
    )


def _pair(name: str) -> str:
    """Return the market that ``ob.BTC_USDT.400`` or a bare name is of."""
    return name.split(".")[1] if name.startswith("ob.") else name


def _json(payload: Sequence[str]) -> str:
    return msgspec.json.encode(payload).decode()


def _client_frame(frame: str | None) -> _ClientFrame | None:
    try:
        return None if frame is None else _decode_client_frame(frame)
    except UNREADABLE:
        return None


def words_of(body: bytes) -> str:
    """Return the exchange's own words from the body of an error."""
    refusal = _REFUSAL.decode(body)
    return f"{refusal.message} ({refusal.label})" if refusal.label else refusal.message


def read_answer_frame(frame: bytes | str, error: BaseException, known: frozenset[str]) -> Sequence[Event]:
    """Read an answer to a request; return nothing for an update of no known channel; raise for a broken frame."""
    message = document(frame)
    if isinstance(message, dict) and message.get("event") != "update":
        try:
            answer = _decode_answer(frame)
        except UNREADABLE as unreadable:
            raise MessageError(f"An answer cannot be read: {unreadable}.") from unreadable
        if answer.error is not None:
            return (Rejected(answer.id, str(answer.error.code), answer.error.message),)
        return (Acknowledged(answer.id),) if answer.event in ("subscribe", "unsubscribe") else ()
    channel = message.get("channel") if isinstance(message, dict) else None
    if not isinstance(channel, str) or channel in known:
        raise MessageError(f"A frame of the channel {channel!r} cannot be read: {error}.") from error
    return ()
