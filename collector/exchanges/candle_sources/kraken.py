"""Kraken's spot candles: the latest 720 and the one under way, whatever ``since`` says.

Source: "Get OHLC Data": "older data cannot be retrieved, regardless of the value of since"; ``since`` is exclusive; the
last row is not committed. Rows are ``[time, open, high, low, close, vwap, volume, count]``. Limit: a request a second
("Spot REST rate limits").
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
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

_COMMITTED = 720
_OWN_NAMES = {"BTC": "XBT", "DOGE": "XDG"}


class KrakenCandles(CandleSource):
    """Kraken spot."""

    name = "kraken"
    rest_url = "https://api.kraken.com"
    limits = SourceLimits(weight=60, per_s=60, pace_s=1.0)
    intervals: ClassVar[Mapping[str, str]] = {
        "1m": "1",
        "5m": "5",
        "15m": "15",
        "30m": "30",
        "1h": "60",
        "4h": "240",
        "1d": "1440",
    }
    codes: ClassVar[Mapping[str, str]] = {
        "EQuery:Unknown asset pair": "unknown_symbol",
        "EAPI:Rate limit exceeded": "rate_limit",
        "EGeneral:Too many requests": "rate_limit",
        "EService:Throttled": "rate_limit",
        "EService:Unavailable": "outage",
        "EService:Busy": "outage",
        "EGeneral:Internal error": "outage",
    }

    def native(self, symbol: str) -> str:
        # REST has names of its own for two coins; listings have the websocket's.
        return self.native_by_rule(symbol)

    def native_by_rule(self, symbol: str) -> str:
        base, quote = (_OWN_NAMES.get(part, part) for part in split(symbol.upper()))
        return f"{base}{quote}"

    def page_size(self, interval: str) -> int:  # noqa: ARG002
        return _COMMITTED + 1

    def reach_us(self, interval: str, now_us: int) -> int | None:
        return now_us - (_COMMITTED + 1) * INTERVALS_US[interval] + 1

    @property
    def reach_reason(self) -> str:
        return f"{self.name} gives the latest {_COMMITTED} candles only."

    def request(self, symbol: str, interval: str, from_us: int, to_us: int, *, now_us: int) -> Request:  # noqa: ARG002
        params = {
            "pair": self.native(symbol),
            "interval": self.intervals[interval],
            "since": str(from_us // SECOND_US - 1),
        }
        return Request("/0/public/OHLC", params)

    def read(self, document: Any, interval: str, request: Request) -> Iterable[HistoryCandle]:  # noqa: ARG002
        rows = _rows(document)
        for number, (start, o, high, low, close, _, volume, count, *_) in enumerate(rows, 1):
            yield HistoryCandle(
                time_us(start, SECOND_US),
                text(o),
                text(high),
                text(low),
                text(close),
                text(volume),
                trades_count=int(count),
                closed=number < len(rows),
            )

    def oldest_in(self, document: Any, candles: Sequence[HistoryCandle]) -> int | None:  # noqa: ARG002
        # Fewer than it keeps: there were no others since the time that was asked for.
        return candles[0].start_us if len(candles) >= _COMMITTED else None

    def refusal_in(self, document: Any) -> tuple[str, str] | None:
        errors = document["error"]
        return (str(errors[0]), str(errors[0])) if errors else None


def _rows(document: Any) -> Sequence[Sequence[Any]]:
    """Return the rows, which stand under the pair's name as Kraken spells it."""
    result = document["result"]
    names = [name for name in result if name != "last"]
    if len(names) != 1:
        raise ValueError(f"{len(names)} pairs in an answer about one")
    rows: Sequence[Sequence[Any]] = result[names[0]]
    return rows
