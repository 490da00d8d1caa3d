"""OKX's history. Candles: newest first, both bounds exclusive, old ones by another path, longer bars only with ``utc``.

Sources: "GET / Candlesticks" (300 rows, the latest 1440, 40 requests in 2 s) and "GET / Candlesticks history" (20 in 2
s). Bars of six hours and more start at UTC+8 unless they are asked for as ``6Hutc`` and so on. Volumes: of spot the
base currency is the sixth column, of contracts the seventh (the sixth counts contracts).

Of contracts also: "Get funding rate history" (100 rows, three months, bounds exclusive; 10 requests in 2 s) and "Get
contract open interest history" (100 rows, the latest 1440; 10 requests in 2 s).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, ClassVar

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
from collector.exchanges.candle_sources.intervals import INTERVALS_US, MINUTE_US
from collector.exchanges.candle_sources.series import FundingPoint, OpenInterestPoint, SeriesSource, signed

_RECENT_BARS = 1440
_MARGIN_BARS = 60
"""How far within the latest bars a span must be for the path of recent ones: some pass while a range is walked."""


class _Okx(HistorySource):
    """How OKX words its errors."""

    codes: ClassVar[Mapping[str, str]] = {
        "50011": "rate_limit",
        "50061": "rate_limit",
        "51001": "unknown_symbol",
        "50001": "outage",
        "50004": "outage",
        "50013": "outage",
        "50026": "outage",
    }

    def refusal_in(self, document: Any) -> tuple[str, str] | None:
        code = str(document["code"])
        return None if code == "0" else (code, str(document.get("msg", "")))


class OkxCandles(_Okx, CandleSource):
    """OKX spot and swaps (``BTC_USDT-SWAP``)."""

    name = "okx"
    rest_url = "https://www.okx.com"
    limits = SourceLimits(weight=40, per_s=2)
    intervals: ClassVar[Mapping[str, str]] = {
        "1m": "1m",
        "3m": "3m",
        "5m": "5m",
        "15m": "15m",
        "30m": "30m",
        "1h": "1H",
        "2h": "2H",
        "4h": "4H",
        "6h": "6Hutc",
        "12h": "12Hutc",
        "1d": "1Dutc",
        "1w": "1Wutc",
    }
    newest_first = True

    def native_by_rule(self, symbol: str) -> str:
        base, quote = split(symbol)
        return f"{base}-{quote}".upper()

    def page_size(self, interval: str) -> int:  # noqa: ARG002
        return 300

    def request(self, symbol: str, interval: str, from_us: int, to_us: int, *, now_us: int) -> Request:
        recent = from_us >= now_us - (_RECENT_BARS - _MARGIN_BARS) * INTERVALS_US[interval]
        params = {
            "instId": self.native(symbol),
            "bar": self.intervals[interval],
            "before": str(from_us // 1000 - 1),
            "after": str(to_us // 1000),
            "limit": str(self.page_size(interval)),
        }
        path = "/api/v5/market/candles" if recent else "/api/v5/market/history-candles"
        return Request(path, params, weight=1 if recent else 2)

    def read(self, document: Any, interval: str, request: Request) -> Iterable[HistoryCandle]:  # noqa: ARG002
        spot = request.params["instId"].count("-") == 1
        for start, o, high, low, close, volume, currency, quote, confirmed, *_ in document["data"]:
            yield HistoryCandle(
                time_us(start, 1000),
                text(o),
                text(high),
                text(low),
                text(close),
                text(volume if spot else currency),
                text(quote),
                closed=confirmed == "1",
            )


class _OkxContracts(_Okx):
    def native_by_rule(self, symbol: str) -> str:
        base, quote = split(symbol)
        return f"{base}-{quote if '-' in quote else f'{quote}-SWAP'}".upper()


class OkxFunding(_OkxContracts, SeriesSource[FundingPoint]):
    """What the holders of OKX swaps paid each other."""

    name = "okx"
    rest_url = "https://www.okx.com"
    limits = SourceLimits(weight=10, per_s=2)
    newest_first = True
    reach_days = 90

    def request(self, symbol: str, from_us: int, to_us: int) -> Request:
        params = {
            "instId": self.native(symbol),
            "before": str((from_us - 1) // 1000),
            "after": str(-(-to_us // 1000)),
            "limit": "100",
        }
        return Request("/api/v5/public/funding-rate-history", params)

    def read(self, document: Any) -> Iterable[FundingPoint]:
        for row in document["data"]:
            # The rate that was paid; the other one is what it was predicted to be.
            yield FundingPoint(time_us(row["fundingTime"], 1000), signed(row.get("realizedRate") or row["fundingRate"]))


class OkxOpenInterest(_OkxContracts, SeriesSource[OpenInterestPoint]):
    """How much was held of OKX swaps, every five minutes: rows are ``[time, contracts, base currency, USD]``."""

    name = "okx"
    rest_url = "https://www.okx.com"
    limits = SourceLimits(weight=10, per_s=2)
    newest_first = True
    span_us = 100 * 5 * MINUTE_US
    reach_days = 4.9  # 1440 of five minutes are five days: the far end passes while it is asked for

    def request(self, symbol: str, from_us: int, to_us: int) -> Request:
        params = {
            "instId": self.native(symbol),
            "period": "5m",
            "begin": str((from_us - 1) // 1000),
            "end": str(-(-to_us // 1000)),
            "limit": "100",
        }
        return Request("/api/v5/rubik/stat/contracts/open-interest-history", params)

    def read(self, document: Any) -> Iterable[OpenInterestPoint]:
        for time, _, amount, value, *_ in document["data"]:
            yield OpenInterestPoint(time_us(time, 1000), text(amount), text(value))
