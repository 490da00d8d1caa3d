"""Trades for candles, and an oracle that is slow, simple and shares no code with the aggregator."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from fractions import Fraction
from typing import Any

import pytest

from collector.candles.aggregator import EXACT, Aggregator, Candle, Ticks
from collector.events import Trade

LENGTHS_US = {"1m": 60, "5m": 300, "15m": 900, "1h": 3600, "4h": 14400, "1d": 86400}
DAY_US = 1_700_006_400_000_000  # 2023-11-15T00:00:00Z

Row = tuple[int, Trade]
"""A trade as it stands in the log: its ``seq`` and itself."""


def make_trade(
    second: float, price: str = "100", volume: str = "1", *, trade_id: int | str = 0, side: str = "buy", **more: Any
) -> Trade:
    """Make a trade some seconds after the test day's midnight."""
    timestamp_us = DAY_US + round(second * 1_000_000)
    return Trade("BTC_USDT", timestamp_us, price, volume, side, trade_id, timestamp_us + 7, **more)  # type: ignore[arg-type]


def ticks_of(rows: Sequence[Row]) -> Ticks:
    """Make what the log hands over: trades, their ``seq``, their exact quote volumes."""
    trades = [trade for _, trade in rows]
    quotes = [EXACT.multiply(EXACT.create_decimal(t.price), EXACT.create_decimal(t.volume)) for t in trades]
    return Ticks(trades, [seq for seq, _ in rows], quotes)


class MemoryHistory:
    """A log in memory: everything that was folded, and every candle that came out."""

    def __init__(self) -> None:
        self.rows: list[Row] = []
        self.lines: list[Candle] = []

    def whole_from_us(self) -> int:
        return 0

    def first_timestamp_us(self) -> int | None:
        return self.rows[0][1].timestamp_us if self.rows else None

    def last_timestamp_us(self) -> int | None:
        return max((trade.timestamp_us for _, trade in self.rows), default=None)

    def tail(self, from_us: int) -> Iterator[Ticks]:
        first = next((i for i, (_, t) in enumerate(self.rows) if t.timestamp_us >= from_us), len(self.rows))
        for begin in range(max(0, first - 100), len(self.rows), 3):
            yield ticks_of(self.rows[begin : begin + 3])

    def candles(self, from_us: int) -> Iterator[Candle]:
        first = next((i for i, c in enumerate(self.lines) if c.timestamp_us >= from_us), len(self.lines))
        return iter(self.lines[max(0, first - 100) :])


class Run:
    """A session's candles: an aggregator, its log, and everything it emitted, as a flusher drives it."""

    def __init__(self, history: MemoryHistory | None = None, *, log: bool = True, **options: Any) -> None:
        self.log = history or MemoryHistory()
        options = {"grace_us": 2_000_000, **options}
        self.aggregator = Aggregator("BTC_USDT", history=self.log if log else None, **options)
        self.gaps: list[tuple[int, int]] = []

    def has_gap(self, from_us: int, to_us: int) -> bool:
        return any(a < to_us and b > from_us for a, b in self.gaps)

    def write(self, *trades: Trade) -> None:
        rows = list(enumerate(trades, len(self.log.rows) + 1))
        self.log.rows.extend(rows)
        ticks = ticks_of(rows)
        self.aggregator.fold(ticks.trades, ticks.seqs, ticks.quotes)

    def close(self, second: float) -> list[Candle]:
        """Close what is due some seconds after the test day's midnight."""
        return self._keep(self.aggregator.close_due(DAY_US + round(second * 1_000_000), self.has_gap))

    def finish(self) -> list[Candle]:
        return self._keep(self.aggregator.finish(self.has_gap))

    def restarted(self, **options: Any) -> Run:
        """Return the run of a process that finds this one's log."""
        run = Run(self.log, **options)
        run.gaps = self.gaps
        run.aggregator.rebuild(self.log)
        return run

    def _keep(self, rows: list[Candle]) -> list[Candle]:
        self.log.lines.extend(rows)
        return rows

    @property
    def final(self) -> dict[tuple[str, int], Candle]:
        """Return the last row per key."""
        return {candle.key: candle for candle in self.log.lines}


def facts(candle: Candle) -> dict[str, Any]:
    """Return what a candle says of its trades, sums as numbers."""
    return {
        "open": candle.open,
        "high": Fraction(candle.high),
        "low": Fraction(candle.low),
        "close": candle.close,
        "volume": Fraction(candle.volume),
        "quote_volume": Fraction(candle.quote_volume),
        "trades_count": candle.trades_count,
        "taker_buy_volume": Fraction(candle.taker_buy_volume),
        "first_trade_id": candle.first_trade_id,
        "last_trade_id": candle.last_trade_id,
        "source": candle.source,
    }


def oracle(rows: Iterable[Row]) -> dict[tuple[str, int], dict[str, Any]]:
    """Work every candle out from all of its trades at once, with fractions."""
    buckets: dict[tuple[str, int], list[Row]] = {}
    for row in rows:
        for interval, seconds in LENGTHS_US.items():
            length = seconds * 1_000_000
            buckets.setdefault((interval, row[1].timestamp_us // length * length), []).append(row)

    def order(row: Row) -> tuple[int, int]:
        trade_id = str(row[1].trade_id)
        return row[1].timestamp_us, int(trade_id) if trade_id.isdigit() else row[0]

    def one(found: list[Row]) -> dict[str, Any]:
        trades = [trade for _, trade in sorted(found, key=order)]
        return {
            "open": trades[0].price,
            "high": max(Fraction(t.price) for t in trades),
            "low": min(Fraction(t.price) for t in trades),
            "close": trades[-1].price,
            "volume": sum(Fraction(t.volume) for t in trades),
            "quote_volume": sum(Fraction(t.price) * Fraction(t.volume) for t in trades),
            "trades_count": sum(
                1 if t.first_raw_id is None or t.last_raw_id is None else t.last_raw_id - t.first_raw_id + 1
                for t in trades
            ),
            "taker_buy_volume": sum(Fraction(t.volume) for t in trades if t.side == "buy"),
            "first_trade_id": str(trades[0].trade_id),
            "last_trade_id": str(trades[-1].trade_id),
            "source": "rest" if any(t.source == "rest" for t in trades) else "ws",
        }

    return {key: one(found) for key, found in buckets.items()}


@pytest.fixture(scope="session")
def run_candles() -> Callable[..., Run]:
    """Give the maker of runs."""
    return Run


@pytest.fixture(scope="session")
def trade_at() -> Callable[..., Trade]:
    """Give the maker of trades."""
    return make_trade


@pytest.fixture(scope="session")
def expected_candles() -> Callable[..., Any]:
    """Give the oracle."""
    return oracle


@pytest.fixture(scope="session")
def facts_of() -> Callable[..., Any]:
    """Give the reader of a candle's facts."""
    return facts
