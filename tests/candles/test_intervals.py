"""Buckets are aligned to UTC."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.candles.intervals import HIGHER, INTERVALS, bucket_start


def test_intervals_are_the_documented_ones() -> None:
    """The intervals are 1m 5m 15m 1h 4h 1d, shortest first, and all but 1m fold from 1m."""
    assert list(INTERVALS) == ["1m", "5m", "15m", "1h", "4h", "1d"]
    assert list(HIGHER) == ["5m", "15m", "1h", "4h", "1d"]


def test_each_interval_divides_the_next_one() -> None:
    """A candle of one interval never straddles two of the next."""
    lengths = list(INTERVALS.values())
    assert all(longer % shorter == 0 for shorter, longer in itertools.pairwise(lengths))


def test_a_day_starts_at_midnight_utc() -> None:
    """2024-08-09T00:05:05.809Z belongs to the day that began 305.809 s before."""
    assert bucket_start(1_723_161_905_809_000, "1d") == 1_723_161_600_000_000


@given(st.integers(0, 4_102_444_800_000_000), st.sampled_from(list(INTERVALS)))
def test_a_time_lies_in_its_bucket(timestamp_us: int, interval: str) -> None:
    """A bucket's start is at or before the time, by less than its length, and is its own start."""
    start = bucket_start(timestamp_us, interval)
    assert start <= timestamp_us < start + INTERVALS[interval]
    assert start == bucket_start(start, interval)


def test_an_unknown_interval_is_an_error() -> None:
    """There is no candle of two minutes."""
    with pytest.raises(KeyError):
        bucket_start(0, "2m")
