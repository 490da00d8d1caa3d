"""Times and intervals as people write them, in microseconds."""

from __future__ import annotations

import re
from datetime import UTC, date, datetime, time

from collector.errors import UsageError

Time = datetime | date | str | int
"""A time: a ``datetime`` (naive means UTC), a date, ISO 8601 text, or integer microseconds since the epoch, UTC."""

_INTERVAL = re.compile(r"([1-9][0-9]{0,5})(ms|s|m|h|d|w)")
_UNITS_US = {
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def to_us(at: Time | None) -> int | None:
    """Return a time as microseconds since the epoch, UTC; None stays None.

    Raises:
        UsageError: the text is no time.
    """
    if at is None or (isinstance(at, int) and not isinstance(at, bool)):
        return at
    if isinstance(at, str):
        try:
            at = datetime.fromisoformat(at.strip())
        except ValueError as error:
            raise UsageError(f"{at!r} is no time.", hint="Write it as 2026-11-21 or 2026-11-21T08:15:00.") from error
    if not isinstance(at, datetime):
        if not isinstance(at, date):
            raise UsageError(f"{at!r} is no time.", hint="Give a datetime, ISO text or microseconds.")
        at = datetime.combine(at, time())
    whole = at.replace(tzinfo=UTC) if at.tzinfo is None else at.astimezone(UTC)
    delta = whole - _EPOCH
    return (delta.days * 86_400 + delta.seconds) * 1_000_000 + delta.microseconds


def interval_us(text: str) -> int:
    """Return the length of ``250ms``, ``90s``, ``7m``, ``4h``, ``1d`` or ``1w`` in microseconds.

    Raises:
        UsageError: it is no interval.
    """
    found = _INTERVAL.fullmatch(text.strip().lower())
    if found is None:
        raise UsageError(f"{text!r} is no interval.", hint="Write it as 250ms, 90s, 7m, 4h, 1d or 1w.")
    return int(found[1]) * _UNITS_US[found[2]]
