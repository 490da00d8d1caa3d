"""Sums of float64 values without any rounding: equal whatever the order, and whoever adds, numpy or QuestDB.

A value is cut into four whole numbers: what stands before the point, and three times 30 bits behind it. Integers add
exactly, and the nearest float64 of the total is the one result. Bits behind the 90th are cut off: they are beyond the
precision of any value above 4e-12. A total must stay below 9e18.
"""

from __future__ import annotations

from typing import Any

from collector.reading.arrow import extra

LIMBS = 4
_BITS = 30
_SCALE = float(1 << _BITS)

Total = tuple[int, int, int, int]
"""The sums of the four parts, the highest first."""


def limbs_of(values: Any) -> list[Any]:
    """Return the four parts of each value of a numpy array, as int64 arrays."""
    numpy = extra("numpy")
    parts = []
    rest = values
    for n in range(LIMBS):
        whole = numpy.floor(rest)
        parts.append(whole.astype("int64"))
        if n < LIMBS - 1:
            rest = (rest - whole) * _SCALE
    return parts


def limbs_in_sql(value: str, name: str) -> list[tuple[str, str]]:
    """Return each part's name and its expression in QuestDB's SQL, of an expression that gives a DOUBLE."""
    parts = []
    rest = value
    for n in range(LIMBS):
        parts.append((f"{name}_{n}", f"cast(floor({rest}) AS LONG)"))
        rest = f"(({rest}) - floor({rest})) * {_SCALE:.1f}"
    return parts


def added(a: Total, b: Total) -> Total:
    """Return the total of two totals."""
    return (a[0] + b[0], a[1] + b[1], a[2] + b[2], a[3] + b[3])


def value_of(total: Total) -> float:
    """Return the float64 that is nearest to a total."""
    number = 0
    for part in total:
        number = (number << _BITS) + part
    return number / (1 << _BITS * (LIMBS - 1))
