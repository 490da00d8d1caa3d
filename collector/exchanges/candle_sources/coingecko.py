"""CoinGecko's OHLC: prices over many exchanges without volume, back from now, its granularity chosen by itself.

Source: "Coin OHLC Chart by ID": one or two days come in 30 minutes, up to thirty in 4 hours, more in 4 days, which no
interval here is; times are a candle's **end**. ``days`` is one of a few numbers. Also: "Coins List", "Coins List with
Market Data". Limits: 30 calls a minute, and 0.6 s between two.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

import msgspec

from collector.errors import MessageError, UnknownName
from collector.exchanges.base import Listing, Request
from collector.exchanges.candle_sources.base import (
    UNREADABLE_FIELDS,
    CandleSource,
    HistoryCandle,
    SourceLimits,
    split,
    text,
    time_us,
)
from collector.exchanges.candle_sources.intervals import DAY_US, INTERVALS_US, bucket_start

_REACH_DAYS = {"30m": 1, "4h": 30}
_DAYS = {"30m": (1,), "4h": (7, 14, 30)}
"""The numbers of days that may be asked for, by the interval that comes."""
_CURRENCIES = {"USDT": "usd", "USDC": "usd", "BUSD": "usd", "FDUSD": "usd"}
"""Quote currencies that it has no prices in, and what stands for them."""
MARKETS_PAGE = 250


class Coin(msgspec.Struct, frozen=True):
    """A coin as CoinGecko lists it; symbols are not unique, ids are. The rank is by market cap, None where it has none.

    ``symbol`` is in capitals.
    """

    id: str
    symbol: str
    name: str
    market_cap_rank: int | None = None


class CoingeckoCandles(CandleSource):
    """CoinGecko.

    Args:
        listings: unused; CoinGecko has no pairs.
        ids: its id of each base currency, in capitals (see ``ids_by_symbol``).
    """

    name = "coingecko"
    kind = "aggregator"
    rest_url = "https://api.coingecko.com"
    limits = SourceLimits(weight=30, per_s=60, pace_s=0.6)
    intervals: ClassVar[Mapping[str, str]] = {"30m": "30m", "4h": "4h"}
    codes: ClassVar[Mapping[str, str]] = {"coin not found": "unknown_symbol", "429": "rate_limit"}

    def __init__(self, listings: Sequence[Listing] = (), *, ids: Mapping[str, str] | None = None) -> None:
        super().__init__(listings)
        self.ids = dict(ids or {})

    def native(self, symbol: str) -> str:
        return self.native_by_rule(symbol)

    def native_by_rule(self, symbol: str) -> str:
        base = split(symbol)[0].upper()
        if base not in self.ids:
            raise UnknownName("coin", base, list(self.ids), hint="Refresh the list of coins, or name another source.")
        return self.ids[base]

    def page_size(self, interval: str) -> int:
        return _REACH_DAYS[interval] * DAY_US // INTERVALS_US[interval] + 1

    def reach_us(self, interval: str, now_us: int) -> int | None:
        return now_us - _REACH_DAYS[interval] * DAY_US

    @property
    def reach_reason(self) -> str:
        return f"{self.name} gives 30m candles of one day and 4h candles of thirty days only."

    def request(self, symbol: str, interval: str, from_us: int, to_us: int, *, now_us: int) -> Request:  # noqa: ARG002
        needed = -(-(now_us - from_us) // DAY_US)
        allowed = _DAYS[interval]
        days = next((days for days in allowed if days >= needed), allowed[-1])
        quote = split(symbol)[1].upper()
        currency = _CURRENCIES.get(quote, quote.lower())
        params = {"vs_currency": currency, "days": str(days), "precision": "full"}
        return Request(f"/api/v3/coins/{self.native(symbol)}/ohlc", params)

    def read(self, document: Any, interval: str, request: Request) -> Iterable[HistoryCandle]:  # noqa: ARG002
        for end, o, high, low, close, *_ in document:
            start_us = time_us(end, 1000) - INTERVALS_US[interval]
            # The candle under way ends whenever the list was made: it is not one of this interval.
            if start_us >= 0 and start_us == bucket_start(start_us, interval):
                yield HistoryCandle(start_us, text(o), text(high), text(low), text(close))

    def refusal_in(self, document: Any) -> tuple[str, str] | None:
        if not isinstance(document, dict):
            return None
        told = document.get("status", document).get("error_code", "")
        words = str(document.get("status", {}).get("error_message", "") or document.get("error", ""))
        return (str(told) if told else words), words

    def coins_request(self) -> Request:
        """Return the request for all coins with their ids."""
        return Request("/api/v3/coins/list")

    def markets_request(self, page: int) -> Request:
        """Return the request for a page (from 1) of coins with their ranks, largest market cap first."""
        params = {
            "vs_currency": "usd",
            "order": "market_cap_desc",
            "per_page": str(MARKETS_PAGE),
            "page": str(page),
        }
        return Request("/api/v3/coins/markets", params)

    def parse_coins(self, body: bytes) -> list[Coin]:
        """Read the answer to either request.

        Raises:
            SourceRefused, MessageError: as ``parse``.
        """
        document = self.document(body)
        try:
            return [
                Coin(str(row["id"]), str(row["symbol"]).upper(), str(row["name"]), row.get("market_cap_rank"))
                for row in document
            ]
        except UNREADABLE_FIELDS as error:
            raise MessageError(f"The list of coins of {self.name} cannot be read: {error}.") from error


def ids_by_symbol(coins: Iterable[Coin]) -> dict[str, str]:
    """Return the id of each symbol: of several coins with one symbol the one with the best rank, then the first."""
    chosen: dict[str, Coin] = {}
    for coin in coins:
        known = chosen.get(coin.symbol)
        if known is None or _rank(coin) < _rank(known):
            chosen[coin.symbol] = coin
    return {symbol: coin.id for symbol, coin in chosen.items()}


def _rank(coin: Coin) -> float:
    return float("inf") if coin.market_cap_rank is None else coin.market_cap_rank
