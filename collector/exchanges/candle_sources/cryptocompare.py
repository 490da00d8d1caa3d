"""CryptoCompare's histories: an index over many exchanges, not one exchange's candles.

Sources: "Historical Minute/Hourly/Daily OHLCV": up to 2000 back from ``toTs`` inclusive, and one more than ``limit``;
minutes are kept for seven days; without ``tryConversion=false`` a pair that is not traded is worked out by way of BTC;
``e`` is CCCAGG unless it is said. What lies before the first trade comes as zeros.
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
from collector.exchanges.candle_sources.intervals import DAY_US, INTERVALS_US

_MINUTES_KEPT_US = 7 * DAY_US


class CryptocompareCandles(CandleSource):
    """CryptoCompare's aggregate index (CCCAGG)."""

    name = "cryptocompare"
    kind = "aggregator"
    rest_url = "https://min-api.cryptocompare.com"
    limits = SourceLimits(weight=300, per_s=60, pace_s=0.1)
    intervals: ClassVar[Mapping[str, str]] = {"1m": "histominute", "1h": "histohour", "1d": "histoday"}
    newest_first = True
    codes: ClassVar[Mapping[str, str]] = {"99": "rate_limit", "market": "unknown_symbol", "500": "outage"}

    def native_by_rule(self, symbol: str) -> str:
        return "/".join(split(symbol)).upper()

    def native(self, symbol: str) -> str:
        return self.native_by_rule(symbol)

    def page_size(self, interval: str) -> int:  # noqa: ARG002
        return 2000

    def reach_us(self, interval: str, now_us: int) -> int | None:
        return now_us - _MINUTES_KEPT_US + INTERVALS_US[interval] if interval == "1m" else None

    @property
    def reach_reason(self) -> str:
        return f"{self.name} keeps minutes for seven days."

    def request(self, symbol: str, interval: str, from_us: int, to_us: int, *, now_us: int) -> Request:  # noqa: ARG002
        base, _, quote = self.native(symbol).partition("/")
        length = INTERVALS_US[interval]
        params = {
            "fsym": base,
            "tsym": quote,
            "e": "CCCAGG",
            "tryConversion": "false",
            # It must be positive, and one more comes: a span of one is asked for as two.
            "limit": str(max(1, (to_us - from_us) // length - 1)),
            "toTs": str((to_us - length) // SECOND_US),
        }
        return Request(f"/data/v2/{self.intervals[interval]}", params)

    def read(self, document: Any, interval: str, request: Request) -> Iterable[HistoryCandle]:  # noqa: ARG002
        for row in document["Data"]["Data"]:
            numbers = [text(row[name]) for name in ("open", "high", "low", "close", "volumefrom", "volumeto")]
            if all(number.strip("0.") == "" for number in numbers):
                continue
            o, high, low, close, volume, quote = numbers
            yield HistoryCandle(time_us(row["time"], SECOND_US), o, high, low, close, volume, quote)

    def refusal_in(self, document: Any) -> tuple[str, str] | None:
        if document.get("Response") != "Error":
            return None
        words = str(document.get("Message", ""))
        return ("market" if "market does not exist" in words else str(document.get("Type", ""))), words
