"""The checks of candles: each finds its flaw, and the score is a hundred without its visible parts."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from collector.quality.candles import Point, compare, examine

HOUR = 3_600_000_000


def point(number: int, **changes: Any) -> Point:
    base = Decimal(100 + number)
    values = {"open": base, "high": base + 2, "low": base - 2, "close": base + 1, "volume": Decimal(5), **changes}
    return Point(number * HOUR, **{name: None if value is None else Decimal(value) for name, value in values.items()})  # type: ignore[arg-type]


def test_sound_candles_score_a_hundred() -> None:
    """Nothing is taken off, and there are as many as there could be."""
    report = examine([point(n) for n in range(50)], HOUR)
    assert (report.score, report.completeness, report.expected, report.present) == (100.0, 100.0, 50, 50)
    assert set(report.parts.values()) == {0.0}


@pytest.mark.parametrize(
    ("flaw", "changes"),
    [
        ("not_positive", {"low": 0}),
        ("not_positive", {"low": -1}),
        ("inverted", {"high": 90, "low": 120}),
        ("outside", {"open": 500, "high": 130}),
        ("outside", {"close": 1}),
        ("negative_volume", {"volume": -1}),
    ],
)
def test_a_flaw_is_counted_and_taken_off(flaw: str, changes: dict[str, Any]) -> None:
    """One of fifty candles is two per cent."""
    report = examine([point(n, **(changes if n == 20 else {})) for n in range(50)], HOUR)
    assert getattr(report, flaw) == 1
    assert report.parts[flaw] == 2.0
    assert report.score <= 98.0


def test_duplicates_jumps_and_repeats_are_found() -> None:
    """A jump needs a neighbour; a few equal candles are a quiet market."""
    assert examine([point(1), point(1), point(2)], HOUR).duplicates == 1
    apart = {"open": 900, "high": 910, "low": 890, "close": 900}
    assert examine([point(1), point(2, **apart)], HOUR).jumps == 1
    assert examine([point(1), point(5, **apart)], HOUR).jumps == 0
    same = {"open": 7, "high": 7, "low": 7, "close": 7}
    assert examine([point(n, **same) for n in range(12)], HOUR).stale == 0
    assert examine([point(n, **same) for n in range(20)], HOUR).stale == 19
    assert examine([point(n, volume=0, **same) for n in range(20)], HOUR).stale == 0


def test_what_is_missing_counts_as_expected() -> None:
    """The ranges are named, as many as are kept."""
    missing = [(50 * HOUR, 60 * HOUR), (70 * HOUR, 110 * HOUR)]
    report = examine([point(n) for n in range(50)], HOUR, missing=missing, ranges_kept=1)
    assert (report.missing, report.expected, report.completeness, report.score) == (50, 100, 50.0, 50.0)
    assert report.missing_ranges == missing[:1]


def test_nothing_at_all_scores_nothing() -> None:
    """And is no division by nought."""
    assert examine([], HOUR).score == 0.0


def test_two_sources_are_compared_bucket_by_bucket() -> None:
    """What only one of them has says nothing; the largest difference is named with its time."""
    ours = [point(n) for n in range(10)]
    theirs = [point(n, **({"close": Decimal("103.02")} if n == 2 else {})) for n in range(2, 12)]
    opinion = compare(ours, theirs, ("one", "other"))
    assert (opinion.compared, opinion.equal, opinion.at_us) == (8, 7, 2 * HOUR)
    assert opinion.largest == pytest.approx(100 * 0.02 / 103.02, rel=1e-4)
