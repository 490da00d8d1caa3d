"""Where a session's recording ended: what its feed must know to go on, read from the last rows. Pure."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import NamedTuple

from collector.streams import PRICES, Stream

TAIL_US = 30_000_000
"""How far back, in time of receipt, the end of a file is looked at for holes that no ledger row names yet."""

SETTLED_US = 15_000_000
"""Holes before a trade that was received this long before the end were in the ledger when the session broke off."""


class Tail(NamedTuple):
    """What the last rows of ``prices.csv`` tell.

    ``highest`` is the highest trade id. ``holes``: for each the first and last missing id, and the times of the trades
    around it. ``arrived``: ids that are there although they were known to be missing, with their times.
    """

    highest: int | None
    holes: list[tuple[int, int, int, int]]
    arrived: list[tuple[int, int]]


def read_tail(rows: Iterable[Sequence[str]], *, settled_before_us: int, known: Sequence[tuple[int, int]] = ()) -> Tail:
    """Look through the last rows of ``prices.csv`` for what the ledger may not know yet.

    Args:
        settled_before_us: holes before a trade that was received earlier than this are passed over.
        known: the inclusive intervals of ids that the ledger calls missing.
    """
    received = position(PRICES, "received_at")
    trade_id = position(PRICES, "trade_id")
    numbered = [row for row in rows if row[trade_id].isdecimal()]
    first_id = {int(row[trade_id]): _first_id(row) for row in numbered}
    # What a repair added is of any age: it fills holes, and says nothing about what stood beside it.
    live = sorted((int(row[trade_id]), int(row[0]), int(row[received] or 0)) for row in numbered if not _fetched(row))
    fetched = sorted((first_id[int(row[trade_id])], int(row[trade_id])) for row in numbered if _fetched(row))
    holes = [
        (*part, from_us, to_us)
        for (before, from_us, _), (after, to_us, at_us) in pairwise(live)
        if first_id[after] > before + 1 and at_us >= settled_before_us
        for part in without(before + 1, first_id[after] - 1, fetched)
    ]
    seen = sorted((int(row[trade_id]), int(row[0])) for row in numbered)
    arrived = [
        (number, at_us)
        for first, last in known
        for number, at_us in seen[bisect_left(seen, (first,)) : bisect_left(seen, (last + 1,))]
    ]
    return Tail(live[-1][0] if live else None, holes, arrived)


def _fetched(row: Sequence[str]) -> bool:
    return row[position(PRICES, "source")] == "rest"


def _first_id(row: Sequence[str]) -> int:
    """Return the first id that a row covers: an aggregated trade with its last raw trade's id covers those before."""
    trade_id, first, last = (row[position(PRICES, name)] for name in ("trade_id", "first_raw_id", "last_raw_id"))
    return int(first) if last == trade_id and first.isdecimal() else int(trade_id)


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
    """Return where a column stands in a stream's rows."""
    return next(position for position, found in enumerate(stream.columns) if found.name == column)
