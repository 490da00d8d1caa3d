"""The intervals of historical candles and where their buckets start: aligned to UTC, weeks to Mondays."""

from __future__ import annotations

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US

INTERVALS_US: dict[str, int] = {
    "1m": MINUTE_US,
    "3m": 3 * MINUTE_US,
    "5m": 5 * MINUTE_US,
    "15m": 15 * MINUTE_US,
    "30m": 30 * MINUTE_US,
    "1h": HOUR_US,
    "2h": 2 * HOUR_US,
    "4h": 4 * HOUR_US,
    "6h": 6 * HOUR_US,
    "12h": 12 * HOUR_US,
    "1d": DAY_US,
    "1w": 7 * DAY_US,
}
"""Every interval that history is kept in, shortest first, with its length in microseconds."""

_FIRST_MONDAY_US = 4 * DAY_US  # 1970-01-05: the epoch is a Thursday


def bucket_start(timestamp_us: int, interval: str) -> int:
    """Return the start of the bucket that a time falls in, in microseconds since the epoch.

    Raises:
        KeyError: there is no such interval.
    """
    offset = _FIRST_MONDAY_US if interval == "1w" else 0
    return timestamp_us - (timestamp_us - offset) % INTERVALS_US[interval]


def bucket_from(timestamp_us: int, interval: str) -> int:
    """Return the start of the first bucket that does not begin before a time.

    Raises:
        KeyError: there is no such interval.
    """
    return bucket_start(timestamp_us + INTERVALS_US[interval] - 1, interval)
