"""Binance's history, spot and USD-M futures: oldest first, both bounds inclusive.

Sources: "Kline/Candlestick data" (twelve columns) of the spot and of the USD-M futures API, "LIMITS"
(``X-MBX-USED-WEIGHT-1M``, 429 and 418), "Error codes"; of futures also "Get Funding Rate History" (1000 rows; 500
requests in five minutes) and "Open Interest Statistics" (500 rows, the latest 30 days; 1000 requests in five minutes).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from collector.exchanges.base import Request
from collector.exchanges.candle_sources.base import (
    CandleSource,
    HistoryCandle,
    HistorySource,
    SourceLimits,
    split,
    text,
    time_us,
)
from collector.exchanges.candle_sources.intervals import INTERVALS_US, MINUTE_US
from collector.exchanges.candle_sources.series import FundingPoint, OpenInterestPoint, SeriesSource, signed


class _Binance(HistorySource):
    """How Binance spells symbols and words its errors."""

    codes: ClassVar[Mapping[str, str]] = {
        "-1121": "unknown_symbol",
        "-1122": "unknown_symbol",
        "-1003": "rate_limit",
        "-1015": "rate_limit",
        "-1000": "outage",
        "-1001": "outage",
        "-1006": "outage",
        "-1007": "outage",
        "-1008": "outage",
        "-1016": "outage",
    }

    def native_by_rule(self, symbol: str) -> str:
        base, rest = split(symbol)
        quote, _, date = rest.partition("-")
        return f"{base}{quote}{'_' if date else ''}{date}".upper()

    def refusal_in(self, document: Any) -> tuple[str, str] | None:
        if isinstance(document, dict) and "code" in document:
            return str(document["code"]), str(document.get("msg", ""))
        return None


class BinanceCandles(_Binance, CandleSource):
    """Binance spot."""

    name = "binance"
    rest_url = "https://api.binance.com"
    limits = SourceLimits(weight=6000, per_s=60, pace_s=0.2, used_header="X-MBX-USED-WEIGHT-1M")
    intervals: ClassVar[Mapping[str, str]] = {interval: interval for interval in INTERVALS_US}

    _path = "/api/v3/klines"
    _weight = 2

    def page_size(self, interval: str) -> int:  # noqa: ARG002
        # Futures allow 1500 by the documentation, but 1000 cost half the weight, and large clients keep to them.
        return 1000

    def request(self, symbol: str, interval: str, from_us: int, to_us: int, *, now_us: int) -> Request:  # noqa: ARG002
        params = {
            "symbol": self.native(symbol),
            "interval": self.intervals[interval],
            "startTime": str(from_us // 1000),
            "endTime": str((to_us - 1) // 1000),
            "limit": str(self.page_size(interval)),
        }
        return Request(self._path, params, weight=self._weight)

    def read(self, document: Any, interval: str, request: Request) -> Iterable[HistoryCandle]:  # noqa: ARG002
        for start, o, high, low, close, volume, _, quote, count, taker, taker_quote, *_ in document:
            yield HistoryCandle(
                time_us(start, 1000),
                text(o),
                text(high),
                text(low),
                text(close),
                text(volume),
                text(quote),
                int(count),
                text(taker),
                text(taker_quote),
            )


class BinanceFuturesCandles(BinanceCandles):
    """Binance USD-M futures."""

    name = "binance_futures"
    rest_url = "https://fapi.binance.com"
    limits = SourceLimits(weight=2400, per_s=60, pace_s=0.2, used_header="X-MBX-USED-WEIGHT-1M")

    _path = "/fapi/v1/klines"
    _weight = 5


class BinanceFuturesFunding(_Binance, SeriesSource[FundingPoint]):
    """What the holders of Binance USD-M futures paid each other."""

    name = "binance_futures"
    rest_url = "https://fapi.binance.com"
    limits = SourceLimits(weight=500, per_s=300, pace_s=0.2)

    def request(self, symbol: str, from_us: int, to_us: int) -> Request:
        params = {
            "symbol": self.native(symbol),
            "startTime": str(-(-from_us // 1000)),
            "endTime": str((to_us - 1) // 1000),
            "limit": "1000",
        }
        return Request("/fapi/v1/fundingRate", params)

    def read(self, document: Any) -> Iterable[FundingPoint]:
        for row in document:
            mark = row.get("markPrice")
            yield FundingPoint(
                time_us(row["fundingTime"], 1000), signed(row["fundingRate"]), text(mark) if mark else None
            )


class BinanceFuturesOpenInterest(_Binance, SeriesSource[OpenInterestPoint]):
    """How much was held of Binance USD-M futures, every five minutes."""

    name = "binance_futures"
    rest_url = "https://fapi.binance.com"
    limits = SourceLimits(weight=1000, per_s=300, pace_s=0.2)
    span_us = 500 * 5 * MINUTE_US
    reach_days = 29.9  # of 30: the far end passes while it is asked for

    def request(self, symbol: str, from_us: int, to_us: int) -> Request:
        params = {
            "symbol": self.native(symbol),
            "period": "5m",
            "startTime": str(-(-from_us // 1000)),
            "endTime": str((to_us - 1) // 1000),
            "limit": "500",
        }
        return Request("/futures/data/openInterestHist", params)

    def read(self, document: Any) -> Iterable[OpenInterestPoint]:
        for row in document:
            yield OpenInterestPoint(
                time_us(row["timestamp"], 1000), text(row["sumOpenInterest"]), text(row["sumOpenInterestValue"])
            )
