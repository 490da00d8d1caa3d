"""Folding is exact: no digit is lost, and what is missing is named."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

from hypothesis import given
from hypothesis import strategies as st

from collector.exchanges.candle_sources.base import HistoryCandle
from collector.exchanges.candle_sources.folding import fold
from collector.exchanges.candle_sources.intervals import HOUR_US, MINUTE_US

T = 1_700_006_400_000_000
digits = st.decimals(min_value=0, max_value=10**12, allow_nan=False, places=12).map(lambda number: format(number, "f"))
hours = st.lists(st.tuples(digits, digits, digits, digits, digits, st.integers(0, 10**6)), min_size=1, max_size=24)


def candle(number: int, row: tuple[str, str, str, str, str, int]) -> HistoryCandle:
    return HistoryCandle(T + number * HOUR_US, *row[:4], volume=row[4], quote_volume=row[4], trades_count=row[5])


@given(rows=hours)
def test_sums_and_extremes_are_exact(rows: list[tuple[str, str, str, str, str, int]]) -> None:
    """Against fractions, which know no rounding."""
    (folded,) = fold([candle(number, row) for number, row in enumerate(rows)], "1d", "1h")
    assert folded.candle.open == rows[0][0]
    assert folded.candle.close == rows[-1][3]
    assert Fraction(folded.candle.volume or "") == sum(Fraction(row[4]) for row in rows)
    assert Decimal(folded.candle.high) == max(Decimal(row[1]) for row in rows)
    assert Decimal(folded.candle.low) == min(Decimal(row[2]) for row in rows)
    assert folded.candle.trades_count == sum(row[5] for row in rows)
    assert folded.missing == tuple(T + number * HOUR_US for number in range(len(rows), 24))


@given(rows=st.lists(st.tuples(digits, digits, digits, digits, digits, st.integers(0, 9)), min_size=24, max_size=24))
def test_folding_in_two_steps_is_folding_in_one(rows: list[tuple[str, str, str, str, str, int]]) -> None:
    """Hours to four hours to a day."""
    parts = [candle(number, row) for number, row in enumerate(rows)]
    (once,) = fold(parts, "1d", "1h")
    (twice,) = fold([one.candle for one in fold(parts, "4h", "1h")], "1d", "4h")
    assert once == twice


def test_what_a_part_does_not_publish_is_unknown_of_the_whole() -> None:
    """No volume is not a volume of nothing; one part under way leaves the whole under way."""
    known = HistoryCandle(T, "1", "2", "0.5", "1.5", "10", None, 3, "4", None)
    unknown = HistoryCandle(T + MINUTE_US, "1.5", "3", "1", "2", None, None, None, "4", None, closed=False)
    (folded,) = fold([known, unknown], "3m", "1m")
    assert folded.candle == HistoryCandle(T, "1", "3", "0.5", "2", None, None, None, "8", None, closed=False)
    assert folded.missing == (T + 2 * MINUTE_US,)
    assert fold([], "3m", "1m") == []
