"""Time as a parameter: what needs a clock is given one, so that tests and replays can give another."""

from __future__ import annotations

import time
from typing import Protocol

import msgspec


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


class ClockStep(msgspec.Struct, frozen=True):
    """That the wall clock was set: when (by the clock as it then was), and by how many seconds (negative: back)."""

    at_us: int
    step_s: float


class StepDetector:
    """Notice steps of the wall clock by the clock that never steps; a clock that is only slewed is none.

    A machine that slept has stepped, too: the monotonic clock stands still meanwhile.

    Args:
        least_s: the smallest difference between two looks that counts as a step, in seconds.
    """

    def __init__(self, clock: Clock, *, least_s: float = 0.25) -> None:
        self._clock = clock
        self._least_s = least_s
        self._offset_us = self._offset()

    def look(self) -> ClockStep | None:
        """Return the step since the last look, None where there was none; to be called several times a second."""
        offset_us, before_us = self._offset(), self._offset_us
        self._offset_us = offset_us
        step_s = (offset_us - before_us) / 1e6
        return ClockStep(self._clock.now_us(), round(step_s, 6)) if abs(step_s) >= self._least_s else None

    def _offset(self) -> int:
        return self._clock.now_us() - round(self._clock.monotonic_s() * 1e6)


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
