"""How much of a session's time each symbol covers, by what the ledger says: pure.

A minute counts as covered unless a gap says otherwise: silence is never taken for a hole here, because the feed has
judged it already. Gaps whose bounds nobody knows cover the time that is known of them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence

import msgspec

from collector.session.gaps import Entry

HOUR_US = 3_600_000_000
_MISSING = ("open", "unrecoverable")  # what a partial one still lacks is in rows of its own


class HourCoverage(msgspec.Struct, frozen=True):
    """One hour (UTC) of a symbol: which share of the session's time in it is in no gap, 0 … 1."""

    symbol: str
    hour_us: int
    coverage: float


class SymbolCoverage(msgspec.Struct, frozen=True):
    """A symbol over the whole session; ``missing_rows`` is exact where the exchange numbers its rows."""

    symbol: str
    coverage: float
    missing_s: float
    missing_rows: int
    gaps: int
    gaps_open: int
    causes: dict[str, int]


def coverage_of(
    entries: Sequence[Entry], symbols: Iterable[str], from_us: int, to_us: int, *, stream: str = "prices"
) -> list[SymbolCoverage]:
    """Return each symbol's coverage by a stream between two times, in microseconds."""
    span_us = max(1, to_us - from_us)
    found = []
    for symbol in symbols:
        own = [entry for entry in entries if entry.symbol == symbol and entry.stream == stream]
        missing_us = _length(_holes(own, from_us, to_us))
        found.append(
            SymbolCoverage(
                symbol,
                1 - missing_us / span_us,
                missing_us / 1_000_000,
                sum(max(0, (e.expected_rows or 0) - e.repaired_rows) for e in own if e.state in _MISSING),
                len(own),
                sum(entry.state == "open" for entry in own),
                # What a partial gap still lacks is a row of its own, and no other gap.
                dict(Counter(str(entry.cause) for entry in own if not entry.detail.startswith("of g"))),
            )
        )
    return found


def hours_of(
    entries: Sequence[Entry], symbols: Iterable[str], from_us: int, to_us: int, *, stream: str = "prices"
) -> list[HourCoverage]:
    """Return the coverage of each hour that a session touches, symbol by symbol."""
    found = []
    for symbol in symbols:
        holes = _holes([e for e in entries if e.symbol == symbol and e.stream == stream], from_us, to_us)
        for hour_us in range(from_us - from_us % HOUR_US, max(to_us, from_us + 1), HOUR_US):
            begin, end = max(hour_us, from_us), min(hour_us + HOUR_US, to_us)
            if end > begin:
                clipped = [(max(a, begin), min(b, end)) for a, b in holes if a < end and b > begin]
                found.append(HourCoverage(symbol, hour_us, 1 - _length(clipped) / (end - begin)))
    return found


def _holes(entries: Sequence[Entry], from_us: int, to_us: int) -> list[tuple[int, int]]:
    """Return the times that are missing, clipped, in order and without overlaps."""
    known = sorted(
        (
            max(from_us, entry.from_us if entry.from_us is not None else entry.to_us or from_us),
            # A gap that is still open has no end yet.
            min(to_us, entry.to_us if entry.to_us is not None else to_us),
        )
        for entry in entries
        if entry.state in _MISSING and (entry.from_us is not None or entry.to_us is not None)
    )
    holes: list[tuple[int, int]] = []
    for begin, end in known:
        if end <= begin:
            continue
        if holes and begin <= holes[-1][1]:
            holes[-1] = holes[-1][0], max(end, holes[-1][1])
        else:
            holes.append((begin, end))
    return holes


def _length(holes: Iterable[tuple[int, int]]) -> int:
    return sum(end - begin for begin, end in holes)
