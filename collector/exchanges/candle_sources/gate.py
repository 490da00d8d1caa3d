"""Gate's spot candles: oldest first, seconds, both bounds inclusive, and only the latest 10,000.

Sources: "Market candlesticks" of the API v4: ``from`` and ``to`` not together with ``limit``; rows are ``[time, quote
volume, close, high, low, open, base volume, closed]``; more than 1000 are refused ("Candlestick range too broad"), and
so is what is older than 10,000 candles ("Candlestick too long ago"). Limit: 200 requests in 10 s for each endpoint.
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

_KEPT = 10_000
_MARGIN = 30
"""Candles at the far end that are not asked for: they pass out of reach while a range is walked."""


class GateCandles(CandleSource):
    """Gate spot."""

    name = "gate"
    rest_url = "https://api.gateio.ws"
    limits = SourceLimits(weight=200, per_s=10)
    intervals: ClassVar[Mapping[str, str]] = {
        "1m": "1m",
        "5m": "5m",
        "15m": "15m",
        "30m": "30m",
        "1h": "1h",
        "4h": "4h",
        "1d": "1d",
    }
    codes: ClassVar[Mapping[str, str]] = {
        "INVALID_CURRENCY_PAIR": "unknown_symbol",
        "INVALID_CURRENCY": "unknown_symbol",
        "TOO_MANY_REQUESTS": "rate_limit",
        "SERVER_ERROR": "outage",
        "INTERNAL": "outage",
        "TOO_BUSY": "outage",
    }

    def native_by_rule(self, symbol: str) -> str:
        return "_".join(split(symbol)).upper()

    def page_size(self, interval: str) -> int:  # noqa: ARG002
        return 1000

    def reach_us(self, interval: str, now_us: int) -> int | None:
        return max(0, now_us - (_KEPT - _MARGIN) * INTERVALS_US[interval])

    @property
    def reach_reason(self) -> str:
        return f"{self.name} gives the latest {_KEPT} candles only."

    def request(self, symbol: str, interval: str, from_us: int, to_us: int, *, now_us: int) -> Request:  # noqa: ARG002
        params = {
            "currency_pair": self.native(symbol),
            "interval": self.intervals[interval],
            "from": str(from_us // SECOND_US),
            "to": str((to_us - INTERVALS_US[interval]) // SECOND_US),
        }
        return Request("/api/v4/spot/candlesticks", params)

    def read(self, document: Any, interval: str, request: Request) -> Iterable[HistoryCandle]:  # noqa: ARG002
        for start, quote, close, high, low, o, volume, *rest in document:
            yield HistoryCandle(
                time_us(start, SECOND_US),
                text(o),
                text(high),
                text(low),
                text(close),
                text(volume),
                text(quote),
                closed=str(rest[0]).lower() == "true" if rest else True,
            )

    def refusal_in(self, document: Any) -> tuple[str, str] | None:
        return (str(document["label"]), str(document.get("message", ""))) if isinstance(document, dict) else None
