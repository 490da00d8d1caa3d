"""KuCoin's spot candles: newest first, seconds, rows are ``[time, open, close, high, low, volume, turnover]``.

Sources: "Get Klines" (1500 rows; ``startAt`` inclusive, ``endAt`` exclusive), "Rate Limit" (2000 of weight in 30 s for
public requests, three a request; code 429000).
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


class KucoinCandles(CandleSource):
    """KuCoin spot. Its weeks are left alone: where they begin is not documented."""

    name = "kucoin"
    rest_url = "https://api.kucoin.com"
    limits = SourceLimits(weight=2000, per_s=30)
    intervals: ClassVar[Mapping[str, str]] = {
        "1m": "1min",
        "3m": "3min",
        "5m": "5min",
        "15m": "15min",
        "30m": "30min",
        "1h": "1hour",
        "2h": "2hour",
        "4h": "4hour",
        "6h": "6hour",
        "12h": "12hour",
        "1d": "1day",
    }
    newest_first = True
    codes: ClassVar[Mapping[str, str]] = {
        "400100": "unknown_symbol",
        "900001": "unknown_symbol",
        "429000": "rate_limit",
        "200002": "rate_limit",
        "500000": "outage",
        "503000": "outage",
    }

    def native_by_rule(self, symbol: str) -> str:
        return "-".join(split(symbol)).upper()

    def page_size(self, interval: str) -> int:  # noqa: ARG002
        return 1500

    def request(self, symbol: str, interval: str, from_us: int, to_us: int, *, now_us: int) -> Request:  # noqa: ARG002
        params = {
            "symbol": self.native(symbol),
            "type": self.intervals[interval],
            "startAt": str(from_us // SECOND_US),
            "endAt": str(to_us // SECOND_US),
        }
        return Request("/api/v1/market/candles", params, weight=3)

    def read(self, document: Any, interval: str, request: Request) -> Iterable[HistoryCandle]:  # noqa: ARG002
        for start, o, close, high, low, volume, turnover, *_ in document["data"]:
            yield HistoryCandle(
                time_us(start, SECOND_US), text(o), text(high), text(low), text(close), text(volume), text(turnover)
            )

    def refusal_in(self, document: Any) -> tuple[str, str] | None:
        code = str(document["code"])
        return None if code == "200000" else (code, str(document.get("msg", "")))
