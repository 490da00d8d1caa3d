"""Hyperliquid's history. Candles: one POST for all of a coin, both bounds inclusive, the newest 5000 only.

Sources: "Info endpoint", "Candle snapshot" ("Only the most recent 5000 candles are available"); "Rate limits and user
limits" (1200 of weight a minute; 20 for a request, and one more for each 60 candles that come);
"Retrieve historical funding rates" (500 rows, oldest first; one more for each 20).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

import msgspec

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
from collector.exchanges.candle_sources.intervals import INTERVALS_US
from collector.exchanges.candle_sources.series import FundingPoint, SeriesSource, signed

_KEPT = 5000
_CANDLES_PER_WEIGHT = 60


class _Hyperliquid(HistorySource):
    """How Hyperliquid spells symbols and words its errors."""

    def native_by_rule(self, symbol: str) -> str:
        # A contract has one quote currency, so it is called by its base alone; case matters (kPEPE).
        return split(symbol)[0]

    def refusal(
        self, status: int, body: bytes, retry_after_s: float | None = None, *, words: str = ""
    ) -> SourceRefused:
        if status == 500 and body.strip() == b"null":
            return SourceRefused(f"{self.name} does not know the coin.", reason="unknown_symbol", status=status)
        return super().refusal(status, body, retry_after_s, words=words)


class HyperliquidCandles(_Hyperliquid, CandleSource):
    """Hyperliquid's perpetuals. Its weeks are left alone: where they begin is not documented."""

    name = "hyperliquid"
    rest_url = "https://api.hyperliquid.xyz"
    limits = SourceLimits(weight=1200, per_s=60)
    intervals: ClassVar[Mapping[str, str]] = {
        interval: interval for interval in ("1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "12h", "1d")
    }
    newest_first = True

    def page_size(self, interval: str) -> int:  # noqa: ARG002
        return _KEPT

    def reach_us(self, interval: str, now_us: int) -> int | None:
        return max(0, now_us - _KEPT * INTERVALS_US[interval] + 1)

    @property
    def reach_reason(self) -> str:
        return f"{self.name} gives the newest {_KEPT} candles only."

    def request(self, symbol: str, interval: str, from_us: int, to_us: int, *, now_us: int) -> Request:  # noqa: ARG002
        asked = {
            "coin": self.native(symbol),
            "interval": self.intervals[interval],
            "startTime": from_us // 1000,
            "endTime": (to_us - 1) // 1000,
        }
        candles = (to_us - from_us) // INTERVALS_US[interval]
        body = msgspec.json.encode({"type": "candleSnapshot", "req": asked})
        return Request("/info", method="POST", body=body, weight=20 + candles // _CANDLES_PER_WEIGHT)

    def read(self, document: Any, interval: str, request: Request) -> Iterable[HistoryCandle]:  # noqa: ARG002
        for row in document or ():
            yield HistoryCandle(
                time_us(row["t"], 1000),
                text(row["o"]),
                text(row["h"]),
                text(row["l"]),
                text(row["c"]),
                text(row["v"]),
                trades_count=int(row["n"]),
            )


class HyperliquidFunding(_Hyperliquid, SeriesSource[FundingPoint]):
    """What the holders of Hyperliquid's perpetuals paid each other, hour by hour."""

    name = "hyperliquid"
    rest_url = "https://api.hyperliquid.xyz"
    limits = SourceLimits(weight=1200, per_s=60)

    def request(self, symbol: str, from_us: int, to_us: int) -> Request:
        asked = {
            "type": "fundingHistory",
            "coin": self.native(symbol),
            "startTime": -(-from_us // 1000),
            "endTime": (to_us - 1) // 1000,
        }
        return Request("/info", method="POST", body=msgspec.json.encode(asked), weight=45)

    def read(self, document: Any) -> Iterable[FundingPoint]:
        for row in document or ():
            yield FundingPoint(time_us(row["time"], 1000), signed(row["fundingRate"]))
