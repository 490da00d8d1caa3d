"""Delays and verdicts are pure: the same failure, history and random number give the same decision."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import format_datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import ConfigError, ConnectionLost, ExchangeRefused, MessageError
from collector.feeds.backoff import (
    RETRY_AFTER_MAX_S,
    Backoff,
    Verdict,
    judge,
    parse_retry_after,
    rotation_s,
    stall_limit_s,
    stay_away_s,
)

NOW_US = 1_700_000_000_000_000


def backoff(random: float = 0.0) -> Backoff:
    return Backoff(initial_s=0.5, cap_s=30, random=lambda: random)


def test_delays_double_up_to_the_cap() -> None:
    """Each failure doubles the delay until the cap, which is never exceeded."""
    delays = backoff()
    assert [delays.delay_s() for _ in range(9)] == [0.5, 1, 2, 4, 8, 16, 30, 30, 30]


def test_reset_begins_again() -> None:
    """A connection that proved good makes the next delay the shortest again."""
    delays = backoff()
    for _ in range(5):
        delays.delay_s()
    delays.reset()
    assert delays.delay_s() == 0.5


@given(random=st.floats(0, 1, exclude_max=True), failures=st.integers(0, 40))
def test_jitter_shortens_by_at_most_half(random: float, failures: int) -> None:
    """The jitter keeps a delay between half of it and all of it."""
    plain, jittered = backoff(), backoff(random)
    for _ in range(failures):
        plain.delay_s()
        jittered.delay_s()
    full = plain.delay_s()
    assert full / 2 <= jittered.delay_s() <= full


def test_refusal_goes_to_the_cap_at_once() -> None:
    """What only a person's change can end is tried at the slowest pace, but for ever."""
    delays = backoff()
    assert [delays.delay_s(Verdict.REFUSED) for _ in range(3)] == [30, 30, 30]


def test_retry_after_is_a_lower_bound() -> None:
    """The exchange's Retry-After is waited for, and the delay where that is longer."""
    delays = backoff()
    assert delays.delay_s(stay_away_s=7) == 7
    assert delays.delay_s(stay_away_s=0) == 1


def test_jitter_of_a_ban_only_lengthens_it() -> None:
    """Nobody comes back before a ban is over, and not all at once after it."""
    assert 100 < backoff(0.5).delay_s(stay_away_s=100) <= 110


@pytest.mark.parametrize(
    ("verdict", "error"),
    [
        (Verdict.RETRY, ConnectionLost("gone")),
        (Verdict.RETRY, ExchangeRefused("busy", status=429)),
        (Verdict.RETRY, ExchangeRefused("banned", status=418)),
        (Verdict.RETRY, ExchangeRefused("broken", status=503)),
        (Verdict.REFUSED, ExchangeRefused("no such address", status=404)),
        (Verdict.REFUSED, ExchangeRefused("not in your country", status=451)),
        (Verdict.REFUSED, ConfigError("no address")),
        (Verdict.REFUSED, MessageError("not what it should be")),
        (Verdict.BUG, ValueError("ours")),
        (Verdict.BUG, TimeoutError()),
    ],
)
def test_verdicts(verdict: Verdict, error: Exception) -> None:
    """Only what passes by itself is retried soon, and what is no error of ours is a bug."""
    assert judge(error) is verdict


@pytest.mark.parametrize(
    ("expected", "error"),
    [
        (None, ConnectionLost("gone")),
        (None, ExchangeRefused("broken", status=503)),
        (5, ExchangeRefused("broken", status=503, retry_after_s=5)),
        (0, ExchangeRefused("busy", status=429, retry_after_s=0)),
        (60, ExchangeRefused("busy", status=429)),
        (120, ExchangeRefused("banned", status=418)),
    ],
)
def test_how_long_to_stay_away(expected: float | None, error: Exception) -> None:
    """A ban without a duration is taken to last, and Retry-After counts with any status."""
    assert stay_away_s(error) == expected


@pytest.mark.parametrize(
    ("expected", "value"),
    [
        (None, None),
        (None, ""),
        (None, "  "),
        (None, "soon"),
        (None, "nan"),
        (None, "inf"),
        (0, "-3"),
        (12, "12"),
        (1.5, " 1.5 "),
        (RETRY_AFTER_MAX_S, "9999999999"),
        (None, "Fri, 99 Nov 2023 99:99:99 GMT"),
    ],
)
def test_retry_after_as_seconds(expected: float | None, value: str | None) -> None:
    """Seconds are read and bounded; nonsense says nothing."""
    assert parse_retry_after(value, NOW_US) == expected


@pytest.mark.parametrize("zone", ["GMT", "-0000"])
def test_retry_after_as_a_date(zone: str) -> None:
    """A date is read as the time until then, a past one as none."""
    later = format_datetime(datetime.fromtimestamp(NOW_US / 1e6 + 90, UTC)).replace("+0000", zone)
    assert parse_retry_after(later, NOW_US) == 90
    assert parse_retry_after(later, NOW_US + 200_000_000) == 0


@given(st.text(max_size=60))
def test_any_retry_after_is_bounded(value: str) -> None:
    """Whatever a server writes, the wait is none or within the bound."""
    seconds = parse_retry_after(value, NOW_US)
    assert seconds is None or 0 <= seconds <= RETRY_AFTER_MAX_S


def test_stall_limit_grows_with_fruitless_reconnects() -> None:
    """A quiet market is asked ever more rarely, up to eightfold."""
    assert [stall_limit_s(60, fruitless) for fruitless in (0, 1, 2, 3, 4, 100)] == [60, 120, 240, 480, 480, 480]


@given(st.floats(0, 1, exclude_max=True))
def test_rotation_is_before_the_end_of_life(random: float) -> None:
    """A connection is replaced between 90 and 95 % of its life."""
    assert 0.9 * 86_400 <= rotation_s(86_400, random) <= 0.95 * 86_400 + 1e-6
