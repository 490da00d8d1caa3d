"""Bitget's spot candles: two interfaces, old candles 200 at a time before an exclusive end, recent ones by a span.

Sources: "Get Candlestick Data" (up to 1000; 1m to 30m go back 30 days, 1h 60 days, longer ones 240 days) and "Get
History Candlestick Data" (200), each 20 requests a second. Longer bars start at UTC+8 unless they are asked for as
``6Hutc`` and so on.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

from collector.exchanges.base import Request
from collector.exchanges.candle_sources.base import CandleSource, HistoryCandle, SourceLimits, split, text, time_us
from collector.exchanges.candle_sources.intervals import DAY_US, HOUR_US, INTERVALS_US

_RECENT_PAGE = 1000
_HISTORY_PAGE = 200


class BitgetCandles(CandleSource):
    """Bitget spot."""

    name = "bitget"
    rest_url = "https://api.bitget.com"
    limits = SourceLimits(weight=20, per_s=1)
    intervals: ClassVar[Mapping[str, str]] = {
        "1m": "1min",
        "3m": "3min",
        "5m": "5min",
        "15m": "15min",
        "30m": "30min",
        "1h": "1h",
        "4h": "4h",
        "6h": "6Hutc",
        "12h": "12Hutc",
        "1d": "1Dutc",
        "1w": "1Wutc",
    }
    newest_first = True
    codes: ClassVar[Mapping[str, str]] = {
        "40034": "unknown_symbol",
        "40309": "unknown_symbol",
        "429": "rate_limit",
        "30007": "rate_limit",
        "40010": "outage",
        "40015": "outage",
        "40725": "outage",
        "45001": "outage",
    }

    def native_by_rule(self, symbol: str) -> str:
        return "".join(split(symbol)).upper()

    def page_size(self, interval: str) -> int:  # noqa: ARG002
        return _RECENT_PAGE

    def page_at(self, interval: str, from_us: int, now_us: int) -> int:
        return _RECENT_PAGE if _is_recent(interval, from_us, now_us) else _HISTORY_PAGE

    def request(self, symbol: str, interval: str, from_us: int, to_us: int, *, now_us: int) -> Request:
        params = {
            "symbol": self.native(symbol),
            "granularity": self.intervals[interval],
            "endTime": str(to_us // 1000),
            "limit": str(self.page_at(interval, from_us, now_us)),
        }
        if not _is_recent(interval, from_us, now_us):
            return Request("/api/v2/spot/market/history-candles", params)
        return Request("/api/v2/spot/market/candles", {**params, "startTime": str(from_us // 1000)})

    def read(self, document: Any, interval: str, request: Request) -> Iterable[HistoryCandle]:  # noqa: ARG002
        for start, o, high, low, close, volume, _, quote, *_ in document["data"]:
            yield HistoryCandle(
                time_us(start, 1000), text(o), text(high), text(low), text(close), text(volume), text(quote)
            )

    def refusal_in(self, document: Any) -> tuple[str, str] | None:
        code = str(document["code"])
        return None if code == "00000" else (code, str(document.get("msg", "")))


def _is_recent(interval: str, from_us: int, now_us: int) -> bool:
    """Tell whether the interface of recent candles still has a start, with a day to spare."""
    length = INTERVALS_US[interval]
    days = 30 if length < HOUR_US else 60 if length < 4 * HOUR_US else 240
    return from_us >= now_us - (days - 1) * DAY_US
