"""MEXC's spot klines: Binance's words, but 500 a page, an exclusive end, and intervals of its own.

Sources: "Kline/Candlestick Data" of the spot API v3, which documents 1000 a page; 500 come. Limit: 500 of weight in
10 s for each endpoint.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from collector.exchanges.base import Request
from collector.exchanges.candle_sources.base import CandleSource, HistoryCandle, SourceLimits, split, text, time_us


class MexcCandles(CandleSource):
    """MEXC spot. Its weeks are left alone: where they begin is not documented."""

    name = "mexc"
    rest_url = "https://api.mexc.com"
    limits = SourceLimits(weight=500, per_s=10)
    intervals: ClassVar[Mapping[str, str]] = {
        "1m": "1m",
        "5m": "5m",
        "15m": "15m",
        "30m": "30m",
        "1h": "60m",
        "4h": "4h",
        "1d": "1d",
    }
    codes: ClassVar[Mapping[str, str]] = {
        "-1121": "unknown_symbol",
        "10007": "unknown_symbol",
        "30014": "unknown_symbol",
        "429": "rate_limit",
        "510": "rate_limit",
        "500": "outage",
        "503": "outage",
    }

    def native_by_rule(self, symbol: str) -> str:
        return "".join(split(symbol)).upper()

    def page_size(self, interval: str) -> int:  # noqa: ARG002
        return 500

    def request(self, symbol: str, interval: str, from_us: int, to_us: int, *, now_us: int) -> Request:  # noqa: ARG002
        params = {
            "symbol": self.native(symbol),
            "interval": self.intervals[interval],
            "startTime": str(from_us // 1000),
            "endTime": str(to_us // 1000),
            "limit": str(self.page_size(interval)),
        }
        return Request("/api/v3/klines", params)

    def read(self, document: Any, interval: str, request: Request) -> Iterable[HistoryCandle]:  # noqa: ARG002
        for start, o, high, low, close, volume, _, quote, *_ in document:
            yield HistoryCandle(
                time_us(start, 1000), text(o), text(high), text(low), text(close), text(volume), text(quote)
            )

    def refusal_in(self, document: Any) -> tuple[str, str] | None:
        return (str(document["code"]), str(document.get("msg", ""))) if isinstance(document, dict) else None
