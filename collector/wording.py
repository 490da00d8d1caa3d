"""Counts, times and sizes as a person reads them, the same on the command line and on the dashboard."""

from __future__ import annotations

from datetime import UTC, datetime

_MINUTE_S, _HOUR_S, _DAY_S = 60, 3600, 86400


def duration_text(seconds: float | None) -> str:
    """Return a length of time in its two largest units: ``4.2 s``, ``3 m 05 s``, ``2 h 10 m``, ``5 d 03 h``."""
    if seconds is None:
        return "-"
    if seconds < _MINUTE_S:
        return f"{seconds:.1f} s"
    whole = int(seconds)
    if whole < _HOUR_S:
        return f"{whole // _MINUTE_S} m {whole % _MINUTE_S:02} s"
    if whole < _DAY_S:
        return f"{whole // _HOUR_S} h {whole % _HOUR_S // _MINUTE_S:02} m"
    return f"{whole // _DAY_S} d {whole % _DAY_S // _HOUR_S:02} h"


def time_text(us: int | None) -> str:
    """Return a time to the second, UTC."""
    return "-" if us is None else f"{datetime.fromtimestamp(us / 1_000_000, UTC):%Y-%m-%d %H:%M:%SZ}"


def age_text(seconds: float | None) -> str:
    """Return how long ago something was."""
    return "-" if seconds is None else f"{duration_text(seconds)} ago"


def count_text(count: float) -> str:
    """Return a number with its thousands apart."""
    return f"{count:,.0f}"


def rate_text(per_second: float) -> str:
    """Return a rate, with a digit after the point where it is small."""
    return f"{per_second:,.1f}" if per_second < 100 else f"{per_second:,.0f}"


def bytes_text(count: float | None) -> str:
    """Return a number of bytes in the unit that suits it."""
    if count is None:
        return "-"
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
