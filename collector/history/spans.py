"""Algebra of spans of bucket starts, ``[first, before)`` in microseconds: ascending, apart, never empty. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

Span = tuple[int, int]
Spans = list[Span]


def union(*several: Iterable[Span]) -> Spans:
    """Return what is in any of some spans, in as few as possible."""
    joined: Spans = []
    for first, before in sorted(span for spans in several for span in spans):
        if before <= first:
            continue
        if joined and first <= joined[-1][1]:
            joined[-1] = joined[-1][0], max(joined[-1][1], before)
        else:
            joined.append((first, before))
    return joined


def subtract(spans: Iterable[Span], taken: Iterable[Span]) -> Spans:
    """Return what of some spans is in none of others; both ascending and apart."""
    left: Spans = []
    holes = list(taken)
    at = 0
    for first, before in spans:
        while at < len(holes) and holes[at][1] <= first:
            at += 1
        position = at
        while first < before:
            if position == len(holes) or holes[position][0] >= before:
                left.append((first, before))
                break
            if holes[position][0] > first:
                left.append((first, holes[position][0]))
            first = max(first, holes[position][1])  # noqa: PLW2901  (what is left of the span)
            position += 1
    return left


def intersect(spans: Sequence[Span], others: Sequence[Span]) -> Spans:
    """Return what is in both of two lists of spans."""
    return subtract(spans, subtract(spans, others))


def of_starts(starts: Iterable[int], length_us: int) -> Spans:
    """Return the spans of buckets by their starts, in any order."""
    spans: Spans = []
    for start in sorted(starts):
        if spans and spans[-1][1] >= start:
            spans[-1] = spans[-1][0], max(spans[-1][1], start + length_us)
        else:
            spans.append((start, start + length_us))
    return spans


def joined(spans: Iterable[Span], within_us: int) -> Spans:
    """Return spans with those put together that are at most so far apart: one request may then serve several."""
    found: Spans = []
    for first, before in spans:
        if found and first - found[-1][1] <= within_us:
            found[-1] = found[-1][0], before
        else:
            found.append((first, before))
    return found


def length(spans: Iterable[Span]) -> int:
    """Return how long spans are together, in microseconds."""
    return sum(before - first for first, before in spans)


def holds(spans: Sequence[Span], at: int) -> bool:
    """Tell whether a time is in one of some spans."""
    low, high = 0, len(spans)
    while low < high:
        middle = (low + high) // 2
        if spans[middle][1] <= at:
            low = middle + 1
        else:
            high = middle
    return low < len(spans) and spans[low][0] <= at
