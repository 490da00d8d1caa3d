"""Spans: the algebra is that of sets of buckets."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from collector.history.spans import Spans, holds, intersect, joined, length, of_starts, subtract, union

SETS = st.sets(st.integers(0, 40), max_size=30)


def spans_of(buckets: set[int]) -> Spans:
    return of_starts(buckets, 1)


def buckets_in(spans: Spans) -> set[int]:
    return {bucket for first, before in spans for bucket in range(first, before)}


@given(SETS, SETS)
def test_the_algebra_is_that_of_sets(one: set[int], other: set[int]) -> None:
    """Union, difference and intersection give what sets give, ascending and apart."""
    a, b = spans_of(one), spans_of(other)
    for found, expected in ((union(a, b), one | other), (subtract(a, b), one - other), (intersect(a, b), one & other)):
        assert found == spans_of(expected)
        assert buckets_in(found) == expected
        assert length(found) == len(expected)


@given(SETS, st.integers(-1, 41))
def test_a_time_is_in_spans_where_its_bucket_is(buckets: set[int], at: int) -> None:
    """Whatever the spans."""
    assert holds(spans_of(buckets), at) is (at in buckets)


@given(SETS, st.integers(0, 10))
def test_joining_covers_all_and_bridges_only_what_is_near(buckets: set[int], within: int) -> None:
    """What is between two that are put together is not wider than was said."""
    hulls = joined(spans_of(buckets), within)
    assert buckets <= buckets_in(hulls)
    assert all(hole[1] - hole[0] <= within for hole in subtract(hulls, spans_of(buckets)))
    assert all(after[0] - before[1] > within for before, after in pairwise(hulls))
