"""Histories of contracts that are no candles, funding rates and open interest: their sources and their walk.

A walk asks either for one span after the other, each of which a page can hold, or, where rows come at no certain times,
for all that is left until an answer is empty: a short page is never taken for the end.
"""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Iterable, Sequence
from operator import attrgetter
from typing import Any, ClassVar, Generic, TypeVar

import msgspec

from collector.errors import MessageError
from collector.exchanges.base import Request
from collector.exchanges.candle_sources.base import UNREADABLE_FIELDS, HistorySource, Unreachable, text

_SIGNED = re.compile(r"-?[0-9]+(?:\.[0-9]+)?").fullmatch


class FundingPoint(msgspec.Struct, gc=False):
    """A funding rate that was paid at a time (microseconds), as a fraction of the position; digits as text."""

    time_us: int
    rate: str
    mark_price: str | None = None


class OpenInterestPoint(msgspec.Struct, gc=False):
    """How much of a contract was held at a time (microseconds): in base currency, and its value in quote currency."""

    time_us: int
    amount: str | None
    value: str | None = None


Point = TypeVar("Point", bound=FundingPoint | OpenInterestPoint)


class SeriesSource(HistorySource, Generic[Point]):
    """One source of points in time."""

    span_us: ClassVar[int | None] = None
    """The longest span that a page holds for certain; None where a page is cut at a number of rows alone."""
    reach_days: ClassVar[float | None] = None
    """How many days back it goes; None where it goes back to the beginning."""

    @abstractmethod
    def request(self, symbol: str, from_us: int, to_us: int) -> Request:
        """Return the request for the points in ``[from_us, to_us)``."""

    @abstractmethod
    def read(self, document: Any) -> Iterable[Point]:
        """Turn a decoded answer into points in any order; where a field is missing, let Python's own error out."""

    def parse(self, body: bytes) -> Sequence[Point]:
        """Read the answer to a request: ascending, each once.

        Raises:
            SourceRefused: it is an error in the source's own words, or a page of HTML.
            MessageError: it is no answer that the source's documentation allows.
        """
        document = self.document(body)
        try:
            points = {point.time_us: point for point in self.read(document)}
        except UNREADABLE_FIELDS as error:
            reason = f"{type(error).__name__}: {error}"[:200]
            raise MessageError(f"An answer of {self.name} cannot be read: {reason}.") from error
        return sorted(points.values(), key=attrgetter("time_us"))


class SeriesWalk(Generic[Point]):
    """Walk over the points of ``[from_us, to_us)``, as far as they are past."""

    def __init__(self, source: SeriesSource[Point], symbol: str, from_us: int, to_us: int, *, now_us: int) -> None:
        self.symbol = symbol
        self.requests = 0
        """How many answers it was fed."""
        self._source = source
        self._next = max(from_us, 0)
        self._end = self._last_us = min(to_us, now_us + 1)
        self._unreachable: list[Unreachable] = []
        source.native(symbol)
        if source.reach_days is not None and (reach := now_us - round(source.reach_days * 86_400e6)) > self._next:
            reason = f"{source.name} goes back {source.reach_days:g} days only."
            if self._next < min(reach, self._end):
                self._unreachable.append(Unreachable(self._next, min(reach, self._end), reason))
            self._next = reach
        self._first_us = self._next
        self._request: Request | None = None

    @property
    def source(self) -> SeriesSource[Point]:
        return self._source

    @property
    def request(self) -> Request | None:
        """The next request; the same one until its answer was fed, and None once the range is covered."""
        if self._request is None and self._next < self._end:
            self._request = self._source.request(self.symbol, *self._span())
        return self._request

    @property
    def covered_us(self) -> int:
        """All of the range before this has been answered for; where the newest come first, nothing is until all is."""
        if self._next >= self._end:
            return max(self._last_us, self._first_us)
        return self._next

    @property
    def unreachable(self) -> list[Unreachable]:
        """What of the range the source cannot give."""
        return list(self._unreachable)

    def feed(self, body: bytes) -> list[Point]:
        """Take the answer to ``request``; return what it brought of the range: ascending, none seen before.

        Raises:
            SourceRefused, MessageError: it is an error or cannot be read. The walk stays where it is.
        """
        if self.request is None:
            return []
        points = self._source.parse(body)
        start, end = self._span()
        self.requests += 1
        self._request = None
        fresh = [point for point in points if start <= point.time_us < end]
        if self._source.span_us is not None:
            self._next = end
        elif not fresh:
            self._next = self._end
        elif self._source.newest_first:
            self._end = fresh[0].time_us
        else:
            self._next = fresh[-1].time_us + 1
        return fresh

    def _span(self) -> tuple[int, int]:
        span = self._source.span_us
        return self._next, self._end if span is None else min(self._next + span, self._end)


def signed(value: object) -> str:
    """Return a number of a decoded answer, which may be negative, as plain digits; raise TypeError or ValueError."""
    digits = text(value)
    if not _SIGNED(digits):
        raise ValueError(f"{digits[:40]!r} is not a number")
    return digits
