"""When to try again: decisions only, no waiting, no clock, and a random source that is given.

A feed never gives up. What differs is how soon it tries: a lost connection at once and then ever more slowly, a refusal
that only a person's change can end at the slowest pace, and never before the exchange's Retry-After has passed.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import Enum
from math import isfinite

from collector.errors import CollectorError, ExchangeRefused

RETRY_AFTER_MAX_S = 3 * 86_400.0
"""The longest stay-away that is believed: the longest bans that an exchange documents last three days."""

BAN_DEFAULT_S = {418: 120.0, 429: 60.0}
"""How long to stay away where the exchange says too often (429) or banned (418) without saying how long."""


class Verdict(Enum):
    """What a failure means for the next attempt."""

    RETRY = "retry"
    """Passing by itself: try again soon, then ever more slowly."""
    REFUSED = "refused"
    """Only a change of somebody's ends it: go on trying, at the slowest pace."""
    BUG = "bug"
    """Ours: log it with its traceback, then as RETRY."""


def judge(error: BaseException) -> Verdict:
    """Tell whether a failure passes by itself, needs a person, or is a mistake in this program."""
    if not isinstance(error, CollectorError):
        return Verdict.BUG
    return Verdict.RETRY if error.retryable else Verdict.REFUSED


def stay_away_s(error: BaseException) -> float | None:
    """Return for how many seconds an exchange wants no request from this address; None where it does not mind."""
    if not isinstance(error, ExchangeRefused):
        return None
    if error.retry_after_s is not None:
        return error.retry_after_s
    return BAN_DEFAULT_S.get(error.status)


def parse_retry_after(value: str | None, now_us: int) -> float | None:
    """Read a Retry-After header: seconds or an HTTP date, as seconds from now, bounded; None where it says nothing.

    Source: RFC 9110, section 10.2.3.
    """
    if value is None or not value.strip():
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            moment = parsedate_to_datetime(value)
        except ValueError:
            return None
        # "-0000" (a zone that nobody knows) gives a naive time, which is UTC by RFC 5322.
        moment = moment if moment.tzinfo is not None else moment.replace(tzinfo=UTC)
        seconds = (moment - datetime.fromtimestamp(now_us / 1e6, UTC)).total_seconds()
    if not isfinite(seconds):
        return None
    return min(max(seconds, 0.0), RETRY_AFTER_MAX_S)


class Backoff:
    """Delays that double from ``initial_s`` to ``cap_s``, each shortened at random by up to half of it.

    The jitter keeps connections that were lost together from coming back together.

    Args:
        initial_s: the first delay, before the jitter.
        cap_s: the longest delay, before a Retry-After.
        random: returns floats in [0, 1).
    """

    def __init__(self, *, initial_s: float, cap_s: float, random: Callable[[], float]) -> None:
        self._initial_s = initial_s
        self._cap_s = max(initial_s, cap_s)
        self._random = random
        self._next_s = initial_s

    def reset(self) -> None:
        """Begin again with the shortest delay: the connection has proved good."""
        self._next_s = self._initial_s

    def delay_s(self, verdict: Verdict = Verdict.RETRY, stay_away_s: float | None = None) -> float:
        """Return how long to wait before the next attempt, in seconds, and lengthen the one after it."""
        if verdict is Verdict.REFUSED:
            self._next_s = self._cap_s
        delay = self._next_s * (1 - self._random() / 2)
        self._next_s = min(self._next_s * 2, self._cap_s)
        # After a ban everybody would come back in the same instant, so the jitter goes on top of it.
        return delay if stay_away_s is None else max(delay, stay_away_s * (1 + self._random() / 10))


def stall_limit_s(stall_timeout_s: float, fruitless: int) -> float:
    """Return how long a connection may be silent before it is opened anew, in seconds.

    The limit doubles, up to eightfold, with each reconnect in a row that brought nothing either: then it is the market
    that is quiet, and not the connection that is deaf.
    """
    return stall_timeout_s * float(2 ** min(fruitless, 3))


def rotation_s(connection_life_s: float, random: float) -> float:
    """Return after how many seconds to replace a connection that the exchange ends after ``connection_life_s``.

    Between 90 and 95 % of its life, so that connections that were opened together are not replaced together.
    """
    return connection_life_s * (0.9 + random * 0.05)
