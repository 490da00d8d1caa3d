"""The candle intervals and where their buckets start: aligned to UTC, by exchange time."""

from __future__ import annotations

MINUTE_US = 60_000_000

INTERVALS: dict[str, int] = {
    "1m": MINUTE_US,
    "5m": 5 * MINUTE_US,
    "15m": 15 * MINUTE_US,
    "1h": 60 * MINUTE_US,
    "4h": 240 * MINUTE_US,
    "1d": 1440 * MINUTE_US,
}
"""Every interval that is built, shortest first, with its length in microseconds. Each divides the next, and the day."""

HIGHER = {name: length for name, length in INTERVALS.items() if name != "1m"}
"""The intervals that fold from 1m candles, shortest first."""


def bucket_start(timestamp_us: int, interval: str) -> int:
    """Return the start of the bucket that a time falls in, in microseconds since the epoch.

    Raises:
        KeyError: there is no such interval.
    """
    return timestamp_us - timestamp_us % INTERVALS[interval]
