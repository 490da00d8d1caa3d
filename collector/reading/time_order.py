"""Rows in the order of time, out of blocks that are nearly so, in bounded memory.

A log is written as rows arrive, so a repaired gap stands behind later trades. A block's rows are given on as soon as
no later block has an older one; what waits meanwhile grows with how far rows stand from their place in time.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from collector.reading.arrow import Table, extra

_NEVER = 1 << 62


def least_times(tables: Iterable[Table]) -> list[int]:
    """Return the least time of each block, by its first column; a far one where it has no rows."""
    pc = extra("pyarrow.compute")
    found = []
    for table in tables:
        least = pc.min(table.column(0)).cast("int64").as_py()
        found.append(_NEVER if least is None else int(least))
    return found


def in_time_order(tables: Iterable[Table], least: Sequence[int]) -> Iterator[Table]:
    """Return the rows by time; rows of one time stay in the order in which they come.

    Args:
        tables: the blocks; their first column is the time.
        least: each block's least time (``least_times``), in the same order.
    """
    limits = _least_behind(least)
    waiting: list[Table] = []
    for table, limit in zip(tables, limits, strict=True):
        waiting.append(table)
        ready, waiting = _split(waiting, limit)
        if ready is not None:
            yield ready


def _least_behind(least: Sequence[int]) -> list[int]:
    """Return, for each block, the least time in the blocks behind it."""
    limits: list[int] = []
    limit = _NEVER
    for time in reversed(least):
        limits.append(limit)
        limit = min(limit, time)
    return limits[::-1]


def _split(tables: list[Table], limit: int) -> tuple[Table | None, list[Table]]:
    """Return the rows up to a time, sorted, and the tables of what is later."""
    pa, numpy = extra("pyarrow"), extra("numpy")
    ready: list[Table] = []
    later: list[Table] = []
    for table in tables:
        times = _times(table)
        if not times.size:
            continue
        if times.min() > limit:
            later.append(table)
        elif times.max() <= limit:
            ready.append(table)
        else:
            early = times <= limit
            ready.append(table.filter(pa.array(early)))
            later.append(table.filter(pa.array(~early)))
    if not ready:
        return None, later
    joined = pa.concat_tables(ready) if len(ready) > 1 else ready[0]
    times = _times(joined)
    if (times[1:] < times[:-1]).any():
        joined = joined.take(pa.array(numpy.argsort(times, kind="stable")))
    return joined, later


def _times(table: Table) -> Any:
    return table.column(0).cast("int64").to_numpy()
