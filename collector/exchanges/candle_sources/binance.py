"""Binance's klines, spot and USD-M futures: oldest first, both bounds inclusive, twelve columns.

Sources: "Kline/Candlestick data" of the spot and of the USD-M futures API, "LIMITS" (``X-MBX-USED-WEIGHT-1M``, 429 and
418), "Error codes".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from collector.exchanges.base import Request
from collector.exchanges.candle_sources.base import CandleSource, HistoryCandle, SourceLimits, split, text, time_us
from collector.exchanges.candle_sources.intervals import INTERVALS_US


class BinanceCandles(CandleSource):
    """Binance spot."""

    name = "binance"
    rest_url = "https://api.binance.com"
    limits = SourceLimits(weight=6000, per_s=60, pace_s=0.2, used_header="X-MBX-USED-WEIGHT-1M")
    intervals: ClassVar[Mapping[str, str]] = {interval: interval for interval in INTERVALS_US}
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

    _path = "/api/v3/klines"
    _weight = 2

    def native_by_rule(self, symbol: str) -> str:
        base, rest = split(symbol)
        quote, _, date = rest.partition("-")
        return f"{base}{quote}{'_' if date else ''}{date}".upper()

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

    def refusal_in(self, document: Any) -> tuple[str, str] | None:
        if isinstance(document, dict) and "code" in document:
            return str(document["code"]), str(document.get("msg", ""))
        return None


class BinanceFuturesCandles(BinanceCandles):
    """Binance USD-M futures."""

    name = "binance_futures"
    rest_url = "https://fapi.binance.com"
    limits = SourceLimits(weight=2400, per_s=60, pace_s=0.2, used_header="X-MBX-USED-WEIGHT-1M")

    _path = "/fapi/v1/klines"
    _weight = 5
