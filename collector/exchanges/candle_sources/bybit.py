"""Bybit's history. Klines: newest first, up to 1000, both bounds inclusive of a candle's start.

Sources: "Get Kline", "Rate Limit Rules" (600 requests in 5 s for an address; 403 beyond it means ten minutes away),
"Error Codes". A ``start`` that is not aligned is rounded down, so a walk aligns it up.

Of contracts also: "Get Funding Rate History" and "Get Open Interest" (each 200 rows, newest first, bounds inclusive).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from collector.errors import SourceRefused
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
from collector.exchanges.candle_sources.intervals import MINUTE_US
from collector.exchanges.candle_sources.series import FundingPoint, OpenInterestPoint, SeriesSource, signed

_BAN_S = 600.0


class _Bybit(HistorySource):
    """How Bybit spells symbols and words its errors."""

    codes: ClassVar[Mapping[str, str]] = {
        "10006": "rate_limit",
        "10016": "rate_limit",
        "10018": "rate_limit",
        "10429": "rate_limit",
        "10000": "outage",
        "symbol": "unknown_symbol",
    }

    def native_by_rule(self, symbol: str) -> str:
        base, rest = split(symbol)
        quote, _, date = rest.partition("-")
        return f"{base}{quote}{'-' if date else ''}{date}".upper()

    def refusal_in(self, document: Any) -> tuple[str, str] | None:
        code, words = document["retCode"], str(document.get("retMsg", ""))
        if code == 0:
            return None
        # One code stands for all parameters that are wrong; only the words tell which one it is.
        return ("symbol" if code == 10001 and "symbol" in words.lower() else str(code)), words

    def refusal(
        self, status: int, body: bytes, retry_after_s: float | None = None, *, words: str = ""
    ) -> SourceRefused:
        refused = super().refusal(status, body, retry_after_s, words=words)
        if status == 403:
            refused = SourceRefused(
                refused.message, reason="rate_limit", status=status, retry_after_s=retry_after_s or _BAN_S
            )
        return refused


class BybitCandles(_Bybit, CandleSource):
    """Bybit spot."""

    name = "bybit"
    rest_url = "https://api.bybit.com"
    limits = SourceLimits(weight=600, per_s=5)
    intervals: ClassVar[Mapping[str, str]] = {
        "1m": "1",
        "3m": "3",
        "5m": "5",
        "15m": "15",
        "30m": "30",
        "1h": "60",
        "2h": "120",
        "4h": "240",
        "6h": "360",
        "12h": "720",
        "1d": "D",
        "1w": "W",
    }
    newest_first = True

    _category = "spot"

    def page_size(self, interval: str) -> int:  # noqa: ARG002
        return 1000

    def request(self, symbol: str, interval: str, from_us: int, to_us: int, *, now_us: int) -> Request:  # noqa: ARG002
        params = {
            "category": self._category,
            "symbol": self.native(symbol),
            "interval": self.intervals[interval],
            "start": str(from_us // 1000),
            "end": str((to_us - 1) // 1000),
            "limit": str(self.page_size(interval)),
        }
        return Request("/v5/market/kline", params)

    def read(self, document: Any, interval: str, request: Request) -> Iterable[HistoryCandle]:  # noqa: ARG002
        for start, o, high, low, close, volume, turnover, *_ in document["result"]["list"]:
            yield HistoryCandle(
                time_us(start, 1000), text(o), text(high), text(low), text(close), text(volume), text(turnover)
            )


class BybitLinearCandles(BybitCandles):
    """Bybit's contracts that are settled in USDT or USDC."""

    name = "bybit_linear"

    _category = "linear"


class BybitLinearFunding(_Bybit, SeriesSource[FundingPoint]):
    """What the holders of Bybit's contracts paid each other."""

    name = "bybit_linear"
    rest_url = "https://api.bybit.com"
    limits = SourceLimits(weight=600, per_s=5)
    newest_first = True

    def request(self, symbol: str, from_us: int, to_us: int) -> Request:
        # A start without an end is refused.
        params = {
            "category": "linear",
            "symbol": self.native(symbol),
            "startTime": str(-(-from_us // 1000)),
            "endTime": str((to_us - 1) // 1000),
            "limit": "200",
        }
        return Request("/v5/market/funding/history", params)

    def read(self, document: Any) -> Iterable[FundingPoint]:
        for row in document["result"]["list"]:
            yield FundingPoint(time_us(row["fundingRateTimestamp"], 1000), signed(row["fundingRate"]))


class BybitLinearOpenInterest(_Bybit, SeriesSource[OpenInterestPoint]):
    """How much was held of Bybit's contracts, every five minutes."""

    name = "bybit_linear"
    rest_url = "https://api.bybit.com"
    limits = SourceLimits(weight=600, per_s=5)
    newest_first = True
    span_us = 200 * 5 * MINUTE_US

    def request(self, symbol: str, from_us: int, to_us: int) -> Request:
        params = {
            "category": "linear",
            "symbol": self.native(symbol),
            "intervalTime": "5min",
            "startTime": str(-(-from_us // 1000)),
            "endTime": str((to_us - 1) // 1000),
            "limit": "200",
        }
        return Request("/v5/market/open-interest", params)

    def read(self, document: Any) -> Iterable[OpenInterestPoint]:
        for row in document["result"]["list"]:
            yield OpenInterestPoint(time_us(row["timestamp"], 1000), text(row["openInterest"]))
