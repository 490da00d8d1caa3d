"""The simulated sources without a network between: a walk is fed what the server would answer."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from urllib.parse import urlencode

import pytest

from collector.clock import ManualClock
from collector.errors import CollectorError
from collector.exchanges.candle_sources.base import CandleSource, HistoryCandle
from collector.exchanges.candle_sources.coingecko import CoingeckoCandles
from collector.exchanges.candle_sources.intervals import INTERVALS_US
from collector.exchanges.candle_sources.registry import create_source
from collector.exchanges.candle_sources.walk import Walk, walk
from collector.sim.history import HistoryFault, HistoryServer, Options
from collector.sim.history_answers import index_of
from collector.sim.history_market import LOTS, TICKS, MarketCandle
from collector.sim.history_market import decimal_text as text

NOW_US = 1_747_094_099_000_000  # 2025-05-12, 23:54:59 UTC
MAX_REQUESTS = 5_000


class Bench:
    """One server, and walks over it."""

    now_us = NOW_US

    def __init__(self) -> None:
        self.asked: list[str] = []

    def serve(self, *faults: HistoryFault, **options: object) -> HistoryServer:
        values: dict[str, object] = {"symbols": ("BTC_USDT", "ETH_USDT"), "limits": False, **options}
        return HistoryServer(Options(faults=faults, **values), ManualClock(NOW_US))  # type: ignore[arg-type]

    def source(self, name: str) -> CandleSource:
        source = create_source(name)
        if isinstance(source, CoingeckoCandles):
            source.ids = {"BTC": "bitcoin", "ETH": "ethereum"}
        return source

    def ask(self, server: HistoryServer, walk: Walk) -> list[HistoryCandle]:
        """Send a walk's request and feed it the answer, as the client does."""
        request = walk.request
        assert request is not None
        query = f"?{urlencode(request.params)}" if request.params else ""
        self.asked.append(request.path + query)
        reply = server.answer(request.method, f"/{walk.source.name}{request.path}{query}", request.body or b"")
        if reply.status != 200:
            raise walk.source.refusal(reply.status, reply.body)
        return walk.feed(reply.body)

    def collect(self, server: HistoryServer, walk: Walk) -> list[HistoryCandle]:
        """Walk to the end, asking again where an answer was wrong."""
        candles: list[HistoryCandle] = []
        for _ in range(MAX_REQUESTS):
            if walk.request is None:
                return candles
            try:
                candles += self.ask(server, walk)
            except CollectorError:
                continue
        raise AssertionError("the walk does not end")

    def walk(self, name: str, interval: str, from_us: int, to_us: int, symbol: str = "BTC_USDT") -> Walk:
        return walk(self.source(name), symbol, interval, from_us, to_us, now_us=NOW_US)

    def expected(
        self, server: HistoryServer, name: str, interval: str, from_us: int, to_us: int, symbol: str = "BTC_USDT"
    ) -> list[HistoryCandle]:
        """Return the market's candles as this source has them, closed or not as they are now."""
        found = server.market.candles(symbol, INTERVALS_US[interval], from_us, to_us, NOW_US)
        if name in ("cryptocompare", "coingecko"):
            found = [index_of(candle, name) for candle in found]
        return [self._candle(candle, name, INTERVALS_US[interval]) for candle in found]

    def _candle(self, candle: MarketCandle, name: str, length_us: int) -> HistoryCandle:
        prices = [text(ticks, TICKS) for ticks in (candle.open, candle.high, candle.low, candle.close)]
        binance = name.startswith("binance")
        no_quote = ("coinbase", "coinbase_advanced", "kraken", "hyperliquid", "coingecko")
        return HistoryCandle(
            candle.start_us,
            *prices,  # type: ignore[arg-type]
            volume=None if name == "coingecko" else text(candle.lots, LOTS),
            quote_volume=None if name in no_quote else text(candle.quote, LOTS * TICKS),
            trades_count=candle.trades if binance or name in ("kraken", "hyperliquid") else None,
            taker_buy_volume=text(candle.taker_lots, LOTS) if binance else None,
            taker_buy_quote_volume=text(candle.taker_quote, LOTS * TICKS) if binance else None,
            closed=candle.start_us + length_us <= NOW_US,
        )

    def same(self, candles: Sequence[HistoryCandle]) -> list[tuple[object, ...]]:
        """Return what candles say, with numbers as numbers: a fold writes a sum's zeros otherwise than an exchange."""
        names = HistoryCandle.__struct_fields__
        values = [[getattr(candle, name) for name in names] for candle in candles]
        return [tuple(Decimal(value) if isinstance(value, str) else value for value in row) for row in values]


@pytest.fixture
def bench() -> Bench:
    return Bench()
