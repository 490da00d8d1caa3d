"""What the sources of candles answer, each as its own documentation says: paths, parameters, limits, orders, errors.

Written from those documents and not from the parsers, so that each is a check of the other. Every source tells of one
market; the aggregators tell of an index made from it (``index_of``).
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from collector.sim.history_market import DAY_US, HOUR_US, LOTS, MINUTE_US, TICKS, WEEK_US, HistoryMarket, MarketCandle
from collector.sim.history_market import decimal_text as text

_SECOND_US = 1_000_000
_EIGHT_HOURS_US = 8 * HOUR_US


class Query(msgspec.Struct, frozen=True):
    """A request to one source, and what it may tell.

    Args:
        path: without the source's prefix.
        body: what was posted.
        now_us: the server's clock.
        most: how many candles a page may hold at most, where the source is to lie about its limit; None for its own.
        holes_us: spans of which this source lacks the candles.
    """

    path: str
    params: Mapping[str, str]
    body: bytes
    now_us: int
    most: int | None = None
    holes_us: Sequence[tuple[int, int]] = ()


class Answer(msgspec.Struct):
    """An answer: a document for JSON, with candles among it that faults can touch."""

    status: int
    document: Any
    rows: list[Any] | None = None
    """The list of candles in the document."""
    oldest_cut: bool = False
    """Whether a row too many would cost the oldest candle (otherwise the newest)."""


class Refused(Exception):
    """A request that the source answers with an error."""

    def __init__(self, status: int, document: object) -> None:
        super().__init__(str(document))
        self.answer = Answer(status, document)


class Dialect(ABC):
    """One source. ``name`` is its prefix on the server."""

    name: ClassVar[str]
    allowed: ClassVar[tuple[int, float]]
    """The weight that it allows in so many seconds."""
    used_header: ClassVar[str] = ""

    def __init__(self, market: HistoryMarket) -> None:
        self.market = market
        self.by_native = {self.native(symbol): symbol for symbol in market.symbols}

    @abstractmethod
    def native(self, symbol: str) -> str:
        """Spell a symbol as the source does."""

    @abstractmethod
    def answer(self, query: Query) -> Answer:
        """Answer a request; raise Refused where the source refuses it."""

    def weight(self, path: str, params: Mapping[str, str], body: bytes) -> int:  # noqa: ARG002
        """Return what a request costs."""
        return 1

    @abstractmethod
    def too_many(self) -> Answer:
        """Return the answer to a request beyond the limit."""

    def find(self, native: str | None, refusal: Callable[[], Refused]) -> str:
        """Return the symbol of a native spelling."""
        symbol = self.by_native.get(native or "")
        if symbol is None:
            raise refusal()
        return symbol

    def candles(
        self, query: Query, symbol: str, length_us: int, from_us: int, to_us: int, *, offset_us: int | None = None
    ) -> list[MarketCandle]:
        """Return the candles that start in ``[from_us, to_us)``, as far as this source has them."""
        if offset_us is None:
            found = self.market.candles(symbol, length_us, from_us, to_us, query.now_us)
        else:
            found = self.market.shifted(symbol, length_us, from_us, to_us, query.now_us, offset_us)
        return [candle for candle in found if not any(start <= candle.start_us < end for start, end in query.holes_us)]


def prices(candle: MarketCandle) -> tuple[str, str, str, str]:
    """Return open, high, low and close as text."""
    return text(candle.open, TICKS), text(candle.high, TICKS), text(candle.low, TICKS), text(candle.close, TICKS)


def volumes(candle: MarketCandle) -> tuple[str, str]:
    """Return the volume in base and in quote currency as text."""
    return text(candle.lots, LOTS), text(candle.quote, LOTS * TICKS)


def index_of(candle: MarketCandle, name: str) -> MarketCandle:
    """Return what an aggregator makes of a candle: all its prices a little higher, its volumes doubled."""
    ticks = {"cryptocompare": 3, "coingecko": 5}[name]
    return candle._replace(
        open=candle.open + ticks,
        high=candle.high + ticks,
        low=candle.low + ticks,
        close=candle.close + ticks,
        lots=candle.lots * 2,
        quote=candle.quote * 2,
    )


def _number(digits: str) -> msgspec.Raw:
    """Write a number as JSON's number, in exactly these digits."""
    return msgspec.Raw(digits.encode())


def _whole(query: Query, name: str, default: int | None = None) -> int | None:
    value = query.params.get(name, "")
    return int(value) if value.isascii() and value.isdigit() else default


def _most(query: Query, asked: int | None, default: int, limit: int) -> int:
    most = min(default if asked is None else asked, limit)
    return most if query.most is None else min(most, query.most)


class Binance(Dialect):
    """``GET /api/v3/klines``: startTime and endTime inclusive in ms; up to 1000 from the start, or up to the end."""

    name = "binance"
    allowed = (6000, 60)
    used_header = "X-MBX-USED-WEIGHT-1M"
    path = "/api/v3/klines"
    most = 1000
    lengths: ClassVar[Mapping[str, int]] = {
        "1m": MINUTE_US,
        "3m": 3 * MINUTE_US,
        "5m": 5 * MINUTE_US,
        "15m": 15 * MINUTE_US,
        "30m": 30 * MINUTE_US,
        "1h": HOUR_US,
        "2h": 2 * HOUR_US,
        "4h": 4 * HOUR_US,
        "6h": 6 * HOUR_US,
        "8h": 8 * HOUR_US,
        "12h": 12 * HOUR_US,
        "1d": DAY_US,
        "3d": 3 * DAY_US,
        "1w": WEEK_US,
    }

    def native(self, symbol: str) -> str:
        return symbol.replace("_", "")

    def weight(self, path: str, params: Mapping[str, str], body: bytes) -> int:  # noqa: ARG002
        return 2

    def too_many(self) -> Answer:
        return Answer(429, {"code": -1003, "msg": "Too many requests; current limit of IP is exceeded."})

    def answer(self, query: Query) -> Answer:
        if query.path != self.path:
            raise Refused(404, {"code": -1, "msg": f"There is no {query.path}."})
        symbol = self.find(query.params.get("symbol"), lambda: Refused(400, {"code": -1121, "msg": "Invalid symbol."}))
        length = self.lengths.get(query.params.get("interval", ""))
        if length is None:
            raise Refused(400, {"code": -1120, "msg": "Invalid interval."})
        most = _most(query, _whole(query, "limit"), 500, self.most)
        start, end = _whole(query, "startTime"), _whole(query, "endTime")
        end_us = query.now_us + 1 if end is None else end * 1000 + 1
        if start is None:
            found = self.candles(query, symbol, length, end_us - (most + 1) * length, end_us)[-most:]
        else:
            found = self.candles(query, symbol, length, start * 1000, end_us)[:most]
        rows = [self._row(candle, length) for candle in found]
        return Answer(200, rows, rows)

    @staticmethod
    def _row(candle: MarketCandle, length: int) -> list[object]:
        volume, quote = volumes(candle)
        return [
            candle.start_us // 1000,
            *prices(candle),
            volume,
            (candle.start_us + length) // 1000 - 1,
            quote,
            candle.trades,
            text(candle.taker_lots, LOTS),
            text(candle.taker_quote, LOTS * TICKS),
            "0",
        ]


class BinanceFutures(Binance):
    """``GET /fapi/v1/klines``: weight 1, 2, 5 or 10 by the limit."""

    name = "binance_futures"
    allowed = (2400, 60)
    path = "/fapi/v1/klines"
    most = 1500

    def weight(self, path: str, params: Mapping[str, str], body: bytes) -> int:  # noqa: ARG002
        limit = int(params.get("limit", "500"))
        return 1 if limit < 100 else 2 if limit < 500 else 5 if limit <= 1000 else 10


class Okx(Dialect):
    """``GET /api/v5/market/candles`` and ``history-candles``: ``after`` older than, ``before`` newer than."""

    name = "okx"
    allowed = (40, 2)
    kept = 1440
    lengths: ClassVar[Mapping[str, int]] = {
        "1m": MINUTE_US,
        "3m": 3 * MINUTE_US,
        "5m": 5 * MINUTE_US,
        "15m": 15 * MINUTE_US,
        "30m": 30 * MINUTE_US,
        "1H": HOUR_US,
        "2H": 2 * HOUR_US,
        "4H": 4 * HOUR_US,
        "6H": 6 * HOUR_US,
        "12H": 12 * HOUR_US,
        "1D": DAY_US,
        "1W": WEEK_US,
    }

    def native(self, symbol: str) -> str:
        return symbol.replace("_", "-")

    def weight(self, path: str, params: Mapping[str, str], body: bytes) -> int:  # noqa: ARG002
        return 2 if "history" in path else 1

    def too_many(self) -> Answer:
        return Answer(429, {"code": "50011", "msg": "Too Many Requests", "data": []})

    def answer(self, query: Query) -> Answer:
        history = query.path == "/api/v5/market/history-candles"
        if not history and query.path != "/api/v5/market/candles":
            raise Refused(404, {"code": "404", "msg": "Not Found", "data": []})
        unknown = {"code": "51001", "msg": "Instrument ID does not exist", "data": []}
        symbol = self.find(query.params.get("instId"), lambda: Refused(200, unknown))
        bar = query.params.get("bar", "1m")
        length = self.lengths.get(bar.removesuffix("utc"))
        if length is None:
            raise Refused(200, {"code": "51000", "msg": "Parameter bar error", "data": []})
        # Bars of six hours and more begin as a day does at UTC+8, unless they are asked for in UTC.
        monday = 4 * DAY_US if length == WEEK_US else 0
        offset = monday if bar.endswith("utc") or length < 6 * HOUR_US else monday - _EIGHT_HOURS_US
        most = _most(query, _whole(query, "limit"), 100, 300)
        after, before = _whole(query, "after"), _whole(query, "before")
        to_us = query.now_us + 1 if after is None else after * 1000
        from_us = to_us - (most + 2) * length if before is None else before * 1000 + 1
        if history:
            to_us = min(to_us, query.now_us - length + 1)
        else:
            from_us = max(from_us, query.now_us - self.kept * length + 1)
        found = self.candles(query, symbol, length, from_us, to_us, offset_us=offset)[-most:]
        rows: list[Any] = []
        for candle in reversed(found):
            volume, quote = volumes(candle)
            closed = candle.start_us + length <= query.now_us
            rows.append([str(candle.start_us // 1000), *prices(candle), volume, quote, quote, "1" if closed else "0"])
        return Answer(200, {"code": "0", "msg": "", "data": rows}, rows, oldest_cut=True)


class Bybit(Dialect):
    """``GET /v5/market/kline``: newest first, up to 1000, ``start`` rounded down to a bucket, ``end`` inclusive."""

    name = "bybit"
    allowed = (600, 5)
    category = "spot"
    lengths: ClassVar[Mapping[str, int]] = {
        **{str(minutes): minutes * MINUTE_US for minutes in (1, 3, 5, 15, 30, 60, 120, 240, 360, 720)},
        "D": DAY_US,
        "W": WEEK_US,
    }

    def native(self, symbol: str) -> str:
        return symbol.replace("_", "")

    def too_many(self) -> Answer:
        return Answer(200, {"retCode": 10006, "retMsg": "Too many visits. Exceeded the API Rate Limit.", "result": {}})

    def answer(self, query: Query) -> Answer:
        if query.path != "/v5/market/kline":
            raise Refused(404, "")
        if query.params.get("category", "linear") != self.category:
            raise Refused(200, {"retCode": 10001, "retMsg": "Invalid category", "result": {}})
        unknown = {"retCode": 10001, "retMsg": "Not supported symbols", "result": {}}
        symbol = self.find(query.params.get("symbol"), lambda: Refused(200, unknown))
        length = self.lengths.get(query.params.get("interval", ""))
        if length is None:
            raise Refused(200, {"retCode": 10001, "retMsg": "Invalid period!", "result": {}})
        most = _most(query, _whole(query, "limit"), 200, 1000)
        start, end = _whole(query, "start"), _whole(query, "end")
        to_us = query.now_us + 1 if end is None else end * 1000 + 1
        from_us = to_us - most * length if start is None else start * 1000
        if start is not None:
            offset = 4 * DAY_US if length == WEEK_US else 0
            from_us -= (from_us - offset) % length
        rows: list[Any] = [
            [str(candle.start_us // 1000), *prices(candle), *volumes(candle)]
            for candle in reversed(self.candles(query, symbol, length, from_us, to_us)[-most:])
        ]
        result = {"category": self.category, "symbol": self.native(symbol), "list": rows}
        document = {"retCode": 0, "retMsg": "OK", "result": result, "retExtInfo": {}, "time": query.now_us // 1000}
        return Answer(200, document, rows, oldest_cut=True)


class BybitLinear(Bybit):
    """The same of contracts."""

    name = "bybit_linear"
    category = "linear"


class Coinbase(Dialect):
    """``GET /products/{id}/candles``: more than 300 are an error; one candle before ``start`` may come, too."""

    name = "coinbase"
    allowed = (10, 1)
    most = 300
    granularities = (60, 300, 900, 3600, 21_600, 86_400)

    def native(self, symbol: str) -> str:
        return symbol.replace("_", "-")

    def too_many(self) -> Answer:
        return Answer(429, {"message": "Public rate limit exceeded"})

    def answer(self, query: Query) -> Answer:
        parts = query.path.strip("/").split("/")
        if len(parts) != 3 or parts[0] != "products" or parts[2] != "candles":
            raise Refused(404, {"message": "Route not found"})
        symbol = self.find(parts[1], lambda: Refused(404, {"message": "NotFound"}))
        granularity = _whole(query, "granularity", 60)
        if granularity not in self.granularities:
            raise Refused(400, {"message": "Unsupported granularity"})
        length = granularity * _SECOND_US
        start, end = _whole(query, "start"), _whole(query, "end")
        if start is None or end is None:
            end = query.now_us // _SECOND_US
            start = end - (self.most - 1) * granularity
        count = (end - start) // granularity + 1
        if count > self.most:
            words = "granularity too small for the requested time range. Count of aggregations requested exceeds 300"
            raise Refused(400, {"message": words})
        # "Some of those candles may precede your declared start value."
        early = length if count < self.most else 0
        found = self.candles(query, symbol, length, start * _SECOND_US - early, end * _SECOND_US + 1)
        rows: list[Any] = []
        for candle in reversed(found[-_most(query, None, self.most, self.most) :]):
            o, high, low, close = prices(candle)
            numbers = [_number(digits) for digits in (low, high, o, close, volumes(candle)[0])]
            rows.append([candle.start_us // _SECOND_US, *numbers])
        return Answer(200, rows, rows, oldest_cut=True)


class CoinbaseAdvanced(Dialect):
    """``GET /api/v3/brokerage/market/products/{id}/candles``: start and end in seconds, up to 350, newest first."""

    name = "coinbase_advanced"
    allowed = (10, 1)
    lengths: ClassVar[Mapping[str, int]] = {
        "ONE_MINUTE": MINUTE_US,
        "FIVE_MINUTE": 5 * MINUTE_US,
        "FIFTEEN_MINUTE": 15 * MINUTE_US,
        "THIRTY_MINUTE": 30 * MINUTE_US,
        "ONE_HOUR": HOUR_US,
        "TWO_HOUR": 2 * HOUR_US,
        "SIX_HOUR": 6 * HOUR_US,
        "ONE_DAY": DAY_US,
    }

    def native(self, symbol: str) -> str:
        return symbol.replace("_", "-")

    def too_many(self) -> Answer:
        return Answer(429, {"error": "RESOURCE_EXHAUSTED", "message": "Too many requests"})

    def answer(self, query: Query) -> Answer:
        head, _, rest = query.path.partition("/api/v3/brokerage/market/products/")
        native, _, tail = rest.partition("/")
        if head or tail != "candles":
            raise Refused(404, {"error": "NOT_FOUND", "error_details": "no such route", "message": "no such route"})
        unknown = {"error": "NOT_FOUND", "error_details": "valid product_id is required", "message": "not found"}
        symbol = self.find(native, lambda: Refused(404, unknown))
        length = self.lengths.get(query.params.get("granularity", ""))
        start, end = _whole(query, "start"), _whole(query, "end")
        if length is None or start is None or end is None:
            raise Refused(400, {"error": "INVALID_ARGUMENT", "error_details": "", "message": "invalid argument"})
        if (end - start) * _SECOND_US // length >= 350:
            words = "number of candles requested should be less than 350"
            raise Refused(400, {"error": "INVALID_ARGUMENT", "error_details": words, "message": words})
        found = self.candles(query, symbol, length, start * _SECOND_US, end * _SECOND_US + 1)
        rows: list[Any] = []
        for candle in reversed(found[-_most(query, None, 350, 350) :]):
            o, high, low, close = prices(candle)
            start_s = str(candle.start_us // _SECOND_US)
            volume = volumes(candle)[0]
            rows.append({"start": start_s, "low": low, "high": high, "open": o, "close": close, "volume": volume})
        return Answer(200, {"candles": rows}, rows, oldest_cut=True)


class Kraken(Dialect):
    """``GET /0/public/OHLC``: of the latest 720 those after ``since``, and always the one under way."""

    name = "kraken"
    allowed = (60, 60)
    kept = 720
    minutes = (1, 5, 15, 30, 60, 240, 1440, 10_080, 21_600)

    def native(self, symbol: str) -> str:
        return symbol.replace("BTC", "XBT").replace("DOGE", "XDG").replace("_", "")

    def too_many(self) -> Answer:
        return Answer(200, {"error": ["EGeneral:Too many requests"]})

    def answer(self, query: Query) -> Answer:
        if query.path != "/0/public/OHLC":
            raise Refused(404, {"error": ["EGeneral:Unknown method"]})
        symbol = self.find(query.params.get("pair"), lambda: Refused(200, {"error": ["EQuery:Unknown asset pair"]}))
        minutes = _whole(query, "interval", 1)
        if minutes not in self.minutes:
            raise Refused(200, {"error": ["EGeneral:Invalid arguments"]})
        length = minutes * MINUTE_US
        current = query.now_us - query.now_us % length
        since_us = (_whole(query, "since", 0) or 0) * _SECOND_US
        kept = _most(query, None, self.kept, self.kept)
        committed = self.candles(query, symbol, length, current - kept * length, current)
        found = [candle for candle in committed if candle.start_us > since_us]
        found += self.candles(query, symbol, length, current, current + 1)
        rows: list[Any] = [
            [
                candle.start_us // _SECOND_US,
                *prices(candle),
                text(candle.open, TICKS),
                volumes(candle)[0],
                candle.trades,
            ]
            for candle in found
        ]
        last = committed[-1].start_us // _SECOND_US if committed else 0
        return Answer(200, {"error": [], "result": {f"X{self.native(symbol)}": rows, "last": last}}, rows)


class Bitget(Dialect):
    """``GET /api/v2/spot/market/candles`` and ``history-candles``: what is before ``endTime``, 1000 or 200."""

    name = "bitget"
    allowed = (20, 1)
    lengths: ClassVar[Mapping[str, int]] = {
        "1min": MINUTE_US,
        "3min": 3 * MINUTE_US,
        "5min": 5 * MINUTE_US,
        "15min": 15 * MINUTE_US,
        "30min": 30 * MINUTE_US,
        "1h": HOUR_US,
        "4h": 4 * HOUR_US,
        "6h": 6 * HOUR_US,
        "12h": 12 * HOUR_US,
        "1day": DAY_US,
        "1D": DAY_US,
        "1week": WEEK_US,
        "6H": 6 * HOUR_US,
        "12H": 12 * HOUR_US,
        "1W": WEEK_US,
    }

    def native(self, symbol: str) -> str:
        return symbol.replace("_", "")

    def too_many(self) -> Answer:
        return Answer(429, {"code": "429", "msg": "Too Many Requests", "data": None})

    def answer(self, query: Query) -> Answer:
        history = query.path == "/api/v2/spot/market/history-candles"
        if not history and query.path != "/api/v2/spot/market/candles":
            raise Refused(404, {"code": "40404", "msg": "Request URL NOT FOUND", "data": None})
        native = query.params.get("symbol")
        unknown = {"code": "40034", "msg": f"Parameter {native} does not exist", "data": None}
        symbol = self.find(native, lambda: Refused(400, unknown))
        word = query.params.get("granularity", "")
        length = self.lengths.get(word.removesuffix("utc"))
        if length is None:
            raise Refused(400, {"code": "400171", "msg": "Parameter verification failed", "data": None})
        monday = 4 * DAY_US if length == WEEK_US else 0
        offset = monday if word.endswith("utc") or length < 6 * HOUR_US else monday - _EIGHT_HOURS_US
        most = _most(query, _whole(query, "limit"), 100, 200 if history else 1000)
        end = _whole(query, "endTime")
        if history and end is None:
            raise Refused(400, {"code": "40020", "msg": "Parameter endTime error", "data": None})
        to_us = query.now_us + 1 if end is None else end * 1000
        start = None if history else _whole(query, "startTime")
        from_us = to_us - (most + 1) * length if start is None else start * 1000
        if not history:
            days = 30 if length < HOUR_US else 60 if length < 4 * HOUR_US else 240
            from_us = max(from_us, query.now_us - days * DAY_US)
        rows: list[Any] = []
        for candle in self.candles(query, symbol, length, from_us, to_us, offset_us=offset)[-most:]:
            volume, quote = volumes(candle)
            rows.append([str(candle.start_us // 1000), *prices(candle), volume, quote, quote])
        document = {"code": "00000", "msg": "success", "requestTime": query.now_us // 1000, "data": rows}
        return Answer(200, document, rows, oldest_cut=True)


class Kucoin(Dialect):
    """``GET /api/v1/market/candles``: seconds, ``endAt`` exclusive, the newest 1500 of them, newest first."""

    name = "kucoin"
    allowed = (2000, 30)
    lengths: ClassVar[Mapping[str, int]] = {
        **{f"{minutes}min": minutes * MINUTE_US for minutes in (1, 3, 5, 15, 30)},
        **{f"{hours}hour": hours * HOUR_US for hours in (1, 2, 4, 6, 8, 12)},
        "1day": DAY_US,
    }

    def native(self, symbol: str) -> str:
        return symbol.replace("_", "-")

    def weight(self, path: str, params: Mapping[str, str], body: bytes) -> int:  # noqa: ARG002
        return 3

    def too_many(self) -> Answer:
        return Answer(429, {"code": "429000", "msg": "Too Many Requests"})

    def answer(self, query: Query) -> Answer:
        if query.path != "/api/v1/market/candles":
            raise Refused(404, {"code": "404000", "msg": "Url Not Found"})
        unknown = {"code": "400100", "msg": "This pair is not provided at present"}
        symbol = self.find(query.params.get("symbol"), lambda: Refused(200, unknown))
        length = self.lengths.get(query.params.get("type", ""))
        if length is None:
            raise Refused(200, {"code": "400100", "msg": "type is not supported"})
        most = _most(query, None, 1500, 1500)
        end = _whole(query, "endAt")
        to_us = query.now_us + 1 if not end else end * _SECOND_US
        start = _whole(query, "startAt")
        from_us = to_us - 100 * length if not start else start * _SECOND_US
        rows: list[Any] = []
        for candle in reversed(self.candles(query, symbol, length, from_us, to_us)[-most:]):
            o, high, low, close = prices(candle)
            rows.append([str(candle.start_us // _SECOND_US), o, close, high, low, *volumes(candle)])
        return Answer(200, {"code": "200000", "data": rows}, rows, oldest_cut=True)


class Gate(Dialect):
    """``GET /api/v4/spot/candlesticks``: from and to inclusive, never with limit; 1000 at most, the latest 10,000."""

    name = "gate"
    allowed = (200, 10)
    most = 1000
    kept = 10_000
    lengths: ClassVar[Mapping[str, int]] = {
        "10s": 10 * _SECOND_US,
        "1m": MINUTE_US,
        "5m": 5 * MINUTE_US,
        "15m": 15 * MINUTE_US,
        "30m": 30 * MINUTE_US,
        "1h": HOUR_US,
        "4h": 4 * HOUR_US,
        "8h": 8 * HOUR_US,
        "1d": DAY_US,
        "7d": 7 * DAY_US,
    }

    def native(self, symbol: str) -> str:
        return symbol

    def too_many(self) -> Answer:
        return Answer(429, {"label": "TOO_MANY_REQUESTS", "message": "Request Rate Limit Exceeded"})

    def answer(self, query: Query) -> Answer:
        if query.path != "/api/v4/spot/candlesticks":
            raise Refused(404, {"label": "NOT_FOUND", "message": "no such route"})
        native = query.params.get("currency_pair")
        unknown = {"label": "INVALID_CURRENCY_PAIR", "message": f"Invalid currency pair {native}"}
        symbol = self.find(native, lambda: Refused(400, unknown))
        length = self.lengths.get(query.params.get("interval", "30m"))
        if length is None:
            raise self._invalid("Invalid interval")
        start, end, limit = _whole(query, "from"), _whole(query, "to"), _whole(query, "limit")
        if limit is not None and (start is not None or end is not None):
            raise self._invalid("limit conflicts with from and to")
        to_us = query.now_us + 1 if end is None else end * _SECOND_US + 1
        from_us = to_us - (limit or 100) * length if start is None else start * _SECOND_US
        if (to_us - 1) // length - from_us // length + 1 > self.most:
            raise self._invalid("Candlestick range too broad. Maximum 1000 data points are allowed per request")
        if from_us < query.now_us - self.kept * length:
            raise self._invalid("Candlestick too long ago. Maximum 10000 points ago are allowed")
        rows: list[Any] = []
        for candle in self.candles(query, symbol, length, from_us, to_us)[: _most(query, None, self.most, self.most)]:
            o, high, low, close = prices(candle)
            volume, quote = volumes(candle)
            closed = "true" if candle.start_us + length <= query.now_us else "false"
            rows.append([str(candle.start_us // _SECOND_US), quote, close, high, low, o, volume, closed])
        return Answer(200, rows, rows)

    @staticmethod
    def _invalid(words: str) -> Refused:
        return Refused(400, {"label": "INVALID_PARAM_VALUE", "message": words})


class Mexc(Dialect):
    """``GET /api/v3/klines``: 500 come whatever is asked for, ``endTime`` is exclusive, an hour is ``60m``."""

    name = "mexc"
    allowed = (500, 10)
    lengths: ClassVar[Mapping[str, int]] = {
        "1m": MINUTE_US,
        "5m": 5 * MINUTE_US,
        "15m": 15 * MINUTE_US,
        "30m": 30 * MINUTE_US,
        "60m": HOUR_US,
        "4h": 4 * HOUR_US,
        "1d": DAY_US,
        "1W": WEEK_US,
    }

    def native(self, symbol: str) -> str:
        return symbol.replace("_", "")

    def too_many(self) -> Answer:
        return Answer(429, {"code": 429, "msg": "Too Many Requests"})

    def answer(self, query: Query) -> Answer:
        if query.path != "/api/v3/klines":
            raise Refused(404, {"code": 404, "msg": "Not Found"})
        symbol = self.find(query.params.get("symbol"), lambda: Refused(400, {"code": -1121, "msg": "Invalid symbol."}))
        length = self.lengths.get(query.params.get("interval", ""))
        if length is None:
            raise Refused(400, {"code": -1121, "msg": "Invalid interval."})
        most = _most(query, _whole(query, "limit"), 500, 500)
        start, end = _whole(query, "startTime"), _whole(query, "endTime")
        to_us = query.now_us + 1 if end is None else end * 1000
        from_us = to_us - most * length if start is None else start * 1000
        rows: list[Any] = []
        for candle in self.candles(query, symbol, length, from_us, to_us)[:most]:
            volume, quote = volumes(candle)
            end_ms = (candle.start_us + length) // 1000
            rows.append([candle.start_us // 1000, *prices(candle), volume, end_ms, quote])
        return Answer(200, rows, rows)


class Hyperliquid(Dialect):
    """``POST /info`` of the type ``candleSnapshot``: both bounds inclusive, of the newest 5000, oldest first."""

    name = "hyperliquid"
    allowed = (1200, 60)
    kept = 5000
    lengths: ClassVar[Mapping[str, int]] = {
        **{f"{minutes}m": minutes * MINUTE_US for minutes in (1, 3, 5, 15, 30)},
        **{f"{hours}h": hours * HOUR_US for hours in (1, 2, 4, 8, 12)},
        "1d": DAY_US,
        "3d": 3 * DAY_US,
    }

    def native(self, symbol: str) -> str:
        return symbol.partition("_")[0]

    def weight(self, path: str, params: Mapping[str, str], body: bytes) -> int:  # noqa: ARG002
        try:
            asked = msgspec.json.decode(body)["req"]
            candles = (asked["endTime"] - asked["startTime"]) * 1000 // self.lengths[asked["interval"]]
        except (msgspec.MsgspecError, LookupError, TypeError):
            return 20
        return 20 + int(min(candles, self.kept)) // 60

    def too_many(self) -> Answer:
        return Answer(429, None)

    def answer(self, query: Query) -> Answer:
        try:
            document = msgspec.json.decode(query.body)
            asked = document["req"]
            coin, length = asked["coin"], self.lengths[asked["interval"]]
            start_us, end_us = asked["startTime"] * 1000, asked["endTime"] * 1000
        except (msgspec.MsgspecError, LookupError, TypeError) as error:
            raise Refused(422, "Failed to deserialize the JSON body into the target type") from error
        if query.path != "/info" or document.get("type") != "candleSnapshot":
            raise Refused(422, "Failed to deserialize the JSON body into the target type")
        symbol = self.find(coin, lambda: Refused(500, None))
        kept = _most(query, None, self.kept, self.kept)
        oldest = query.now_us - query.now_us % length - (kept - 1) * length
        rows: list[Any] = []
        for candle in self.candles(query, symbol, length, max(start_us, oldest), end_us + 1):
            o, high, low, close = prices(candle)
            start_ms = candle.start_us // 1000
            rows.append(
                {
                    "t": start_ms,
                    "T": start_ms + length // 1000 - 1,
                    "s": coin,
                    "i": asked["interval"],
                    "o": o,
                    "c": close,
                    "h": high,
                    "l": low,
                    "v": volumes(candle)[0],
                    "n": candle.trades,
                }
            )
        return Answer(200, rows, rows, oldest_cut=True)


class Cryptocompare(Dialect):
    """``GET /data/v2/histo…``: one more than ``limit``, up to ``toTs``; zeros before the first trade."""

    name = "cryptocompare"
    allowed = (300, 60)
    lengths: ClassVar[Mapping[str, int]] = {"histominute": MINUTE_US, "histohour": HOUR_US, "histoday": DAY_US}

    def native(self, symbol: str) -> str:
        return symbol.replace("_", "/")

    def too_many(self) -> Answer:
        words = "You are over your rate limit please upgrade your account!"
        return Answer(200, {"Response": "Error", "Message": words, "HasWarning": False, "Type": 99, "Data": {}})

    def answer(self, query: Query) -> Answer:
        length = self.lengths.get(query.path.removeprefix("/data/v2/"))
        if length is None:
            raise self._error("Path does not exist")
        base, quote = query.params.get("fsym"), query.params.get("tsym")
        market = query.params.get("e", "CCCAGG")
        words = f"{market} market does not exist for this coin pair ({base}-{quote})"
        if query.params.get("tryConversion", "true") == "false":
            symbol = self.find(f"{base}/{quote}", lambda: self._error(words))
        else:
            # What is not traded is worked out by way of another currency, and looks like any other.
            symbol = next((name for name in self.market.symbols if name.startswith(f"{base}_")), self.market.symbols[0])
        limit = _whole(query, "limit", 168) or 0
        if not 1 <= limit <= 2000:
            raise self._error("limit param is not valid: it must be between 1 and 2000")
        if query.most is not None:
            limit = min(limit, query.most)
        to_us = (_whole(query, "toTs") or query.now_us // _SECOND_US) * _SECOND_US
        last = to_us - to_us % length
        first = last - limit * length
        if length == MINUTE_US and first < query.now_us - 7 * DAY_US:
            raise self._error("histominute data is only available for the last 7 days")
        there = {candle.start_us: candle for candle in self.candles(query, symbol, length, first, last + 1)}
        rows: list[Any] = [self._row(symbol, start, there.get(start)) for start in range(first, last + 1, length)]
        inner = {"Aggregated": False, "TimeFrom": first // _SECOND_US, "TimeTo": last // _SECOND_US, "Data": rows}
        document = {
            "Response": "Success",
            "Message": "",
            "HasWarning": False,
            "Type": 100,
            "RateLimit": {},
            "Data": inner,
        }
        return Answer(200, document, rows, oldest_cut=True)

    def _row(self, symbol: str, start_us: int, candle: MarketCandle | None) -> dict[str, object]:
        if candle is None:
            price = 0 if start_us < self.market.listed_us(symbol) else self.market.price(symbol, start_us)
            candle = MarketCandle(start_us, price, price, price, price, 0, 0, 0, 0, 0)
            candle = candle if price == 0 else index_of(candle, self.name)
        else:
            candle = index_of(candle, self.name)
        o, high, low, close = (_number(digits) for digits in prices(candle))
        volume, quote = (_number(digits) for digits in volumes(candle))
        return {
            "time": start_us // _SECOND_US,
            "high": high,
            "low": low,
            "open": o,
            "volumefrom": volume,
            "volumeto": quote,
            "close": close,
            "conversionType": "direct",
            "conversionSymbol": "",
        }

    @staticmethod
    def _error(words: str) -> Refused:
        return Refused(200, {"Response": "Error", "Message": words, "HasWarning": False, "Type": 2, "Data": {}})


class Coingecko(Dialect):
    """``GET /api/v3/coins/{id}/ohlc``: the times are ends; ``/coins/list`` and ``/coins/markets`` name the ids."""

    name = "coingecko"
    allowed = (30, 60)
    days = (1, 7, 14, 30, 90, 180, 365)
    known: ClassVar[Mapping[str, str]] = {"BTC": "bitcoin", "ETH": "ethereum", "SOL": "solana", "BNB": "binancecoin"}

    def native(self, symbol: str) -> str:
        base = symbol.partition("_")[0]
        return self.known.get(base, base.lower())

    def too_many(self) -> Answer:
        return Answer(429, {"status": {"error_code": 429, "error_message": "You've exceeded the Rate Limit."}})

    def answer(self, query: Query) -> Answer:
        if query.path == "/api/v3/coins/list":
            return Answer(200, self._list())
        if query.path == "/api/v3/coins/markets":
            return Answer(200, self._ranked(query))
        parts = query.path.removeprefix("/api/v3/").split("/")
        if len(parts) != 3 or parts[0] != "coins" or parts[2] != "ohlc":
            raise Refused(404, {"error": "Incorrect path. Please check https://www.coingecko.com/api/"})
        symbol = self.find(parts[1], lambda: Refused(404, {"error": "coin not found"}))
        if query.params.get("vs_currency") not in ("usd", "eur", "btc"):
            raise Refused(400, {"error": "invalid vs_currency"})
        days = _whole(query, "days")
        if days not in self.days:
            raise Refused(400, {"error": "Invalid days parameter"})
        length = 30 * MINUTE_US if days <= 2 else 4 * HOUR_US if days <= 30 else 4 * DAY_US
        rows: list[Any] = []
        for candle in self.candles(query, symbol, length, query.now_us - days * DAY_US, query.now_us + 1):
            end_us = min(candle.start_us + length, query.now_us)
            numbers = [_number(digits) for digits in prices(index_of(candle, self.name))]
            rows.append([end_us // 1000, *numbers])
        return Answer(200, rows, rows, oldest_cut=True)

    def _list(self) -> list[dict[str, str]]:
        """Name every coin, and before each another one that uses its symbol."""
        coins = []
        for base in self._bases():
            coin = self.known.get(base, base.lower())
            coins.append({"id": f"{coin}-wormhole", "symbol": base.lower(), "name": f"Bridged {base}"})
            coins.append({"id": coin, "symbol": base.lower(), "name": base.title()})
        return coins

    def _ranked(self, query: Query) -> list[dict[str, object]]:
        page, per_page = _whole(query, "page", 1) or 1, min(_whole(query, "per_page", 100) or 100, 250)
        ranked = [
            {"id": self.known.get(base, base.lower()), "symbol": base.lower(), "name": base.title(),
             "market_cap_rank": rank, "market_cap": 10**12 // rank, "current_price": 1}
            for rank, base in enumerate(self._bases(), 1)
        ]  # fmt: skip
        return ranked[(page - 1) * per_page : page * per_page]

    def _bases(self) -> list[str]:
        return list(dict.fromkeys(symbol.partition("_")[0] for symbol in self.market.symbols))


DIALECTS: tuple[type[Dialect], ...] = (
    BinanceFutures,
    Binance,
    Coingecko,
    Cryptocompare,
    Okx,
    Bybit,
    BybitLinear,
    Coinbase,
    CoinbaseAdvanced,
    Kraken,
    Bitget,
    Kucoin,
    Gate,
    Mexc,
    Hyperliquid,
)
