"""Whether a silent stream is a quiet market or a deaf subscription: suspicion only, no clock and no I/O.

A stream's rate is learnt from itself. One that is silent for much longer than that lets expect is suspected, more
slowly where its siblings have become quieter, too; then the exchange is asked whether anything has happened at all,
and only a stream that was told nothing of what has happened is called silent. Each check that finds the market quiet
doubles the patience with the next.
"""

from __future__ import annotations

from collections.abc import Iterable
from math import exp
from statistics import median
from typing import Literal

Finding = Literal["missed", "quiet", "refused", "unknown"]
"""What the exchange says of a silent stream: something happened that it did not bring; nothing has; it does not know
the symbol (any more); nobody can tell."""

WATCHED = frozenset({"prices", "orderbook", "klines"})
"""The streams of which an exchange can be asked whether they miss something; steady ones are watched besides."""

CEILING_S = 1800.0
"""The longest patience with a stream: half an hour."""

_LONG_S = 600.0
_SHORT_S = 15.0
_PRIOR_S = 30.0
"""How much silence every stream is thought to have had before it began: one event at once is no rate yet."""
_EVENTS_MISSED = 20
"""How many events must be missing for a suspicion: that a steady stream has none by chance is one in 500 million."""
_MAX_RATE = 10.0
_MIN_RATE = _EVENTS_MISSED / CEILING_S
_LEAST_ACTIVITY = 0.1


class _Average:
    """Events in a second, averaged exponentially."""

    __slots__ = ("_events", "_seconds", "_span_s")

    def __init__(self, span_s: float, prior_s: float) -> None:
        self._span_s = span_s
        self._events = 0.0
        self._seconds = prior_s

    def add(self, events: int, seconds: float) -> None:
        kept = exp(-seconds / self._span_s)
        self._events = self._events * kept + events
        self._seconds = self._seconds * kept + seconds

    @property
    def rate(self) -> float:
        return self._events / self._seconds if self._seconds > 0 else 0.0


class SilenceModel:
    """One stream: what it is expected to bring, and for how long it has not.

    Args:
        floor_s: the least patience, in seconds.
    """

    def __init__(self, *, floor_s: float) -> None:
        self.checks = 0
        """How often it was checked since its last event."""
        self._misses = 0
        self._floor_s = floor_s
        self._long = _Average(_LONG_S, _PRIOR_S)
        self._short = _Average(_SHORT_S, 0.0)
        self._expected_rate = 0.0
        self._noted_s: float | None = None
        self._received = 0
        self._since_s = 0.0
        self._not_before_s = 0.0

    def begin(self, now_s: float) -> None:
        """Note that data is due from now on: a subscription was asked for."""
        self._since_s = now_s
        self._not_before_s = max(self._not_before_s, now_s)
        self.checks = 0

    def note(self, now_s: float, received: int) -> None:
        """Learn from how many events have come in all."""
        if self._noted_s is None:
            self._noted_s, self._received, self._since_s = now_s, received, max(self._since_s, now_s)
            return
        seconds, events = now_s - self._noted_s, received - self._received
        if seconds <= 0:
            return
        self._noted_s, self._received = now_s, received
        self._long.add(events, seconds)
        self._short.add(events, seconds)
        if events:
            self._expected_rate = min(max(self._long.rate, _MIN_RATE), _MAX_RATE)
            self._since_s = now_s
            self.checks = self._misses = 0
            self._not_before_s = now_s

    def silent_s(self, now_s: float) -> float:
        """Return for how long nothing has come."""
        return now_s - self._since_s

    def patience_s(self, activity: float = 1.0) -> float:
        """Return how long a silence is not suspected.

        Args:
            activity: how busy the siblings are now, as a share of what they usually are.
        """
        if not self._expected_rate:
            return self._floor_s
        usual_s = _EVENTS_MISSED / self._expected_rate / max(activity, _LEAST_ACTIVITY)
        return min(max(usual_s, self._floor_s), CEILING_S)

    def suspicious(self, now_s: float, activity: float = 1.0) -> bool:
        """Tell whether the stream has been silent for too long, and nobody has just looked."""
        return self.silent_s(now_s) >= self.patience_s(activity) and now_s >= self._not_before_s

    def checked(self, now_s: float) -> None:
        """Note that a check found nothing wrong, or could not tell: the next one is twice as far away."""
        self.checks += 1
        self._not_before_s = now_s + min(self.patience_s() * 2.0 ** min(self.checks, 10), CEILING_S)

    def missed(self, now_s: float) -> None:
        """Note that it was asked for again: where that doesn't help, the next time is twice as far away."""
        self._misses += 1
        self._since_s = now_s
        self._not_before_s = now_s + min(self._floor_s * 2.0 ** min(self._misses - 1, 10), CEILING_S)

    @property
    def activity(self) -> float | None:
        """How busy the stream is now, as a share of what it usually is; None where it is too slow to tell."""
        if self._expected_rate < 1 / _SHORT_S:
            return None
        return min(1.0, self._short.rate / self._expected_rate)


def activity_of(models: Iterable[SilenceModel]) -> float:
    """Return how busy a connection's streams are now, as a share of what they usually are; 1 where nobody can tell."""
    known = [activity for model in models if (activity := model.activity) is not None]
    return median(known) if known else 1.0
