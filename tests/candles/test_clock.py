"""Exchange time is estimated, never guessed."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from collector.candles.clock import ExchangeClock

YEARS_AGO_US = 1_400_000_000_000_000


def test_before_the_first_event_nobody_knows() -> None:
    """A symbol that was never heard of has no time, and freezing it changes nothing."""
    clock = ExchangeClock()
    clock.freeze("A", "prices", 0.0)
    clock.thaw("A", "prices")
    assert clock.now_us("A", 5.0) is None


def test_between_events_time_goes_on_by_the_monotonic_clock() -> None:
    """A recording of years ago runs in its own time."""
    clock = ExchangeClock()
    clock.observe("A", YEARS_AGO_US, 100.0)
    assert clock.now_us("A", 100.0) == YEARS_AGO_US
    assert clock.now_us("A", 102.5) == YEARS_AGO_US + 2_500_000


def test_symbols_have_times_of_their_own() -> None:
    """One symbol's events say nothing of another's."""
    clock = ExchangeClock()
    clock.observe("A", 10_000_000, 0.0)
    clock.observe("B", 99_000_000, 0.0)
    assert clock.now_us("A", 1.0) == 11_000_000


def test_an_older_event_is_no_news() -> None:
    """What arrives out of order moves nothing."""
    clock = ExchangeClock()
    clock.observe("A", 10_000_000, 0.0)
    clock.observe("A", 4_000_000, 5.0)
    assert clock.now_us("A", 5.0) == 15_000_000


def test_an_event_behind_the_estimate_does_not_turn_it_back() -> None:
    """The estimate waits until the events have caught up."""
    clock = ExchangeClock()
    clock.observe("A", 10_000_000, 0.0)
    assert clock.now_us("A", 8.0) == 18_000_000
    clock.observe("A", 12_000_000, 8.0)
    assert clock.now_us("A", 9.0) == 18_000_000
    assert clock.now_us("A", 16.0) == 20_000_000


def test_time_stands_while_a_stream_is_interrupted() -> None:
    """Neither silence nor another stream's events close a candle; all streams must be back."""
    clock = ExchangeClock()
    clock.observe("A", 10_000_000, 0.0)
    clock.freeze("A", "prices", 3.0)
    clock.freeze("A", "orderbook", 4.0)
    assert clock.now_us("A", 500.0) == 13_000_000
    clock.thaw("A", "prices")
    clock.observe("A", 400_000_000, 400.0)
    assert clock.now_us("A", 500.0) == 13_000_000
    clock.thaw("A", "orderbook")
    assert clock.now_us("A", 401.0) == 401_000_000


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["observe", "freeze", "thaw", "wait"]),
            st.integers(0, 10**9),
            st.floats(0, 50, allow_nan=False),
        ),
        max_size=40,
    )
)
def test_it_never_goes_backward(steps: list[tuple[str, int, float]]) -> None:
    """Whatever happens in whatever order."""
    clock = ExchangeClock()
    clock.observe("A", 0, 0.0)
    at, before = 0.0, 0
    for step, number, seconds in steps:
        at += seconds
        if step == "observe":
            clock.observe("A", number, at)
        elif step == "freeze":
            clock.freeze("A", "prices", at)
        elif step == "thaw":
            clock.thaw("A", "prices")
        now = clock.now_us("A", at)
        assert now is not None
        assert now >= before
        before = now
