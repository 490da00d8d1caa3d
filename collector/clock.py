"""Time as a parameter: what needs a clock is given one, so that tests and replays can give another."""

from __future__ import annotations

import time
from typing import Protocol


class Clock(Protocol):
    """Tell the time twice: for stamping (wall) and for measuring (monotonic)."""

    def now_us(self) -> int:
        """Return the wall clock, in microseconds since the epoch, UTC."""
        ...

    def monotonic_s(self) -> float:
        """Return a clock that never steps, in seconds from an unspecified start."""
        ...


class SystemClock:
    """The machine's own clocks."""

    def now_us(self) -> int:
        return time.time_ns() // 1000

    def monotonic_s(self) -> float:
        return time.monotonic()


class ManualClock:
    """A clock that moves only when it is told to; the two clocks can be moved apart, as a stepped wall clock is."""

    def __init__(self, now_us: int = 1_700_000_000_000_000, monotonic_s: float = 0.0) -> None:
        self._now_us = now_us
        self._monotonic_s = monotonic_s

    def now_us(self) -> int:
        return self._now_us

    def monotonic_s(self) -> float:
        return self._monotonic_s

    def advance(self, seconds: float) -> None:
        """Move both clocks forward."""
        self._now_us += round(seconds * 1_000_000)
        self._monotonic_s += seconds

    def step_wall(self, seconds: float) -> None:
        """Move the wall clock alone, as a time server does."""
        self._now_us += round(seconds * 1_000_000)
