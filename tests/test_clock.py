"""The clocks: one of the machine, one that a test moves."""

from __future__ import annotations

import time

import pytest

from collector.clock import ManualClock, StepDetector, SystemClock


def test_the_system_clock_tells_microseconds_since_the_epoch() -> None:
    """The wall clock lies between two looks at the machine's."""
    before = time.time_ns() // 1000
    now = SystemClock().now_us()
    assert before <= now <= time.time_ns() // 1000


def test_the_system_clock_never_goes_back() -> None:
    """The monotonic clock is the machine's monotonic clock."""
    clock = SystemClock()
    assert clock.monotonic_s() <= clock.monotonic_s()


def test_advancing_moves_both_clocks() -> None:
    """Time passes on the wall and on the stopwatch."""
    clock = ManualClock(now_us=1_000_000, monotonic_s=5.0)
    clock.advance(1.5)
    assert (clock.now_us(), clock.monotonic_s()) == (2_500_000, 6.5)


def test_stepping_the_wall_clock_leaves_the_monotonic_one() -> None:
    """A time server moves the wall clock, backwards too; nothing has passed."""
    clock = ManualClock(now_us=1_000_000, monotonic_s=5.0)
    clock.step_wall(-0.25)
    assert (clock.now_us(), clock.monotonic_s()) == (750_000, 5.0)


@pytest.mark.parametrize("step_s", [-3600.0, -0.5, 0.5, 3600.0])
def test_a_step_of_the_wall_clock_is_noticed_once(step_s: float) -> None:
    """When, and by how much; what goes on in step afterwards is no step."""
    clock = ManualClock()
    detector = StepDetector(clock)
    clock.advance(0.25)
    assert detector.look() is None
    clock.step_wall(step_s)
    clock.advance(0.25)
    step = detector.look()
    assert step is not None
    assert (step.step_s, step.at_us) == (step_s, clock.now_us())
    clock.advance(1000)
    assert detector.look() is None


def test_a_clock_that_is_slewed_has_not_stepped() -> None:
    """Half a millisecond in each second is how a time server mends a clock."""
    clock = ManualClock()
    detector = StepDetector(clock)
    for _ in range(10_000):
        clock.step_wall(0.000125)
        clock.advance(0.25)
        assert detector.look() is None
