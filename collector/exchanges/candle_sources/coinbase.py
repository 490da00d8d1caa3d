"""Coinbase's candles, Exchange and Advanced Trade: newest first, both bounds inclusive, too many are an error.

Sources: "Get product candles" of the Exchange API (rows are ``[time, low, high, open, close, volume]``; only six
granularities; no candle where nothing was traded, and some may precede ``start``) and "Get Public Product Candles" of
the Advanced Trade API; "REST API Rate Limits" of both (10 requests a second).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from collector.exchanges.base import Request
from collector.exchanges.candle_sources.base import (
    SECOND_US,
    CandleSource,
    HistoryCandle,
    SourceLimits,
    split,
    text,
    time_us,
)
from collector.exchanges.candle_sources.intervals import INTERVALS_US


class CoinbaseCandles(CandleSource):
    """Coinbase Exchange: there is no 30m and no 4h."""

    name = "coinbase"
    rest_url = "https://api.exchange.coinbase.com"
    limits = SourceLimits(weight=10, per_s=1)
    intervals: ClassVar[Mapping[str, str]] = {
        "1m": "60",
        "5m": "300",
        "15m": "900",
        "1h": "3600",
        "6h": "21600",
        "1d": "86400",
    }
    newest_first = True
    codes: ClassVar[Mapping[str, str]] = {"NotFound": "unknown_symbol", "Public rate limit exceeded": "rate_limit"}

    def native_by_rule(self, symbol: str) -> str:
        base, quote = split(symbol)
        return f"{base}-{quote}".upper()

    def page_size(self, interval: str) -> int:  # noqa: ARG002
        return 300

    def request(self, symbol: str, interval: str, from_us: int, to_us: int, *, now_us: int) -> Request:  # noqa: ARG002
        params = {
            "granularity": self.intervals[interval],
            "start": str(from_us // SECOND_US),
            "end": str((to_us - INTERVALS_US[interval]) // SECOND_US),
        }
        return Request(f"/products/{self.native(symbol)}/candles", params)

    def read(self, document: Any, interval: str, request: Request) -> Iterable[HistoryCandle]:  # noqa: ARG002
        for start, low, high, o, close, volume, *_ in document:
            yield HistoryCandle(time_us(start, SECOND_US), text(o), text(high), text(low), text(close), text(volume))

    def refusal_in(self, document: Any) -> tuple[str, str] | None:
        if isinstance(document, dict):
            words = str(document["message"])
            return words.rstrip("."), words
        return None


class CoinbaseAdvancedCandles(CandleSource):
    """Coinbase Advanced Trade's public market products: there is no 4h."""

    name = "coinbase_advanced"
    rest_url = "https://api.coinbase.com"
    limits = SourceLimits(weight=10, per_s=1)
    intervals: ClassVar[Mapping[str, str]] = {
        "1m": "ONE_MINUTE",
        "5m": "FIVE_MINUTE",
        "15m": "FIFTEEN_MINUTE",
        "30m": "THIRTY_MINUTE",
        "1h": "ONE_HOUR",
        "2h": "TWO_HOUR",
        "6h": "SIX_HOUR",
        "1d": "ONE_DAY",
    }
    newest_first = True
    codes: ClassVar[Mapping[str, str]] = {
        "NOT_FOUND": "unknown_symbol",
        "RESOURCE_EXHAUSTED": "rate_limit",
        "INTERNAL": "outage",
        "UNAVAILABLE": "outage",
    }

    def native_by_rule(self, symbol: str) -> str:
        base, quote = split(symbol)
        return f"{base}-{quote}".upper()

    def page_size(self, interval: str) -> int:  # noqa: ARG002
        # 350 are documented, 300 were; the last one of a full page is not to be relied on.
        return 299

    def request(self, symbol: str, interval: str, from_us: int, to_us: int, *, now_us: int) -> Request:  # noqa: ARG002
        params = {
            "granularity": self.intervals[interval],
            "start": str(from_us // SECOND_US),
            "end": str((to_us - INTERVALS_US[interval]) // SECOND_US),
        }
        return Request(f"/api/v3/brokerage/market/products/{self.native(symbol)}/candles", params)

    def read(self, document: Any, interval: str, request: Request) -> Iterable[HistoryCandle]:  # noqa: ARG002
        for row in document["candles"]:
            yield HistoryCandle(
                time_us(row["start"], SECOND_US),
                text(row["open"]),
                text(row["high"]),
                text(row["low"]),
                text(row["close"]),
                text(row["volume"]),
            )

    def refusal_in(self, document: Any) -> tuple[str, str] | None:
        if "error" not in document:
            return None
        return str(document["error"]), str(document.get("message") or document.get("error_details") or "")
