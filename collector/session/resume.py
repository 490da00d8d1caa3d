"""Where a session's recording ended: what its feed must know to go on, read from the last rows. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise

from collector.streams import PRICES, Stream

TAIL_US = 30_000_000
"""How far back, in time of receipt, the end of a file is looked at for holes that no ledger row names yet."""

SETTLED_US = 15_000_000
"""Holes before a trade that was received this long before the end were in the ledger when the session broke off."""


def find_holes(
    rows: Iterable[Sequence[str]], *, settled_before_us: int
) -> tuple[int | None, list[tuple[int, int, int, int]]]:
    """Return the highest trade id in the last rows of ``prices.csv``, and the holes between their ids.

    Args:
        settled_before_us: holes before a trade that was received earlier than this are passed over.

    Returns:
        The id, and for each hole its first and last missing id and the times of the trades around it.
    """
    received = position(PRICES, "received_at")
    trade_id = position(PRICES, "trade_id")
    seen = sorted(
        (int(row[trade_id]), int(row[0]), int(row[received] or 0)) for row in rows if row[trade_id].isdecimal()
    )
    holes = [
        (before + 1, after - 1, from_us, to_us)
        for (before, from_us, _), (after, to_us, at_us) in pairwise(seen)
        if after > before + 1 and at_us >= settled_before_us
    ]
    return (seen[-1][0] if seen else None), holes


def without(first: int, last: int, known: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the parts of an inclusive interval that no known one covers."""
    parts = []
    for known_first, known_last in known:
        if known_last < first or known_first > last:
            continue
        if known_first > first:
            parts.append((first, known_first - 1))
        first = max(first, known_last + 1)
    if first <= last:
        parts.append((first, last))
    return parts


def position(stream: Stream, column: str) -> int:
    return next(position for position, found in enumerate(stream.columns) if found.name == column)
