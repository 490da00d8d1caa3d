"""Walk through a range page by page: pure objects that say what to ask next, and are fed the answers.

A range is bucket starts in ``[from_us, to_us)``. Every request names a span of at most a page, so that neither an empty
answer nor a short one is taken for the end: a span is covered once it was answered. Where an answer lacks the side that
a cut at a page's limit would cost, that side is asked for once more; a source whose pages turn out to be smaller than
documented is asked for smaller ones from then on.
"""

from __future__ import annotations

from typing import Protocol, TypeVar

from collector.errors import UnknownName
from collector.exchanges.base import Request
from collector.exchanges.candle_sources.base import CandleSource, HistoryCandle, HistorySource, Unreachable, length_us
from collector.exchanges.candle_sources.folding import fold
from collector.exchanges.candle_sources.intervals import INTERVALS_US, bucket_from, bucket_start

Row = TypeVar("Row")


class Pages(Protocol[Row]):
    """A walk over a range at one source, whatever it brings."""

    @property
    def source(self) -> HistorySource: ...

    @property
    def request(self) -> Request | None:
        """The next request; the same one until its answer was fed, and None once the range is covered."""
        ...

    @property
    def covered_us(self) -> int:
        """All of the range before this has been answered for: a new walk can go on from here."""
        ...

    @property
    def unreachable(self) -> list[Unreachable]:
        """What of the range the source cannot give."""
        ...

    def feed(self, body: bytes) -> list[Row]:
        """Take the answer to ``request``; return what it brought of the range: ascending, none seen before.

        Raises:
            SourceRefused, MessageError: it is an error or cannot be read. The walk stays where it is.
        """
        ...


class Walk(Pages[HistoryCandle], Protocol):
    """A walk over one symbol's candles."""

    symbol: str
    interval: str
    incomplete: dict[int, tuple[int, ...]]
    """The starts of folded candles of which parts were missing, with the starts of these."""


def walk(source: CandleSource, symbol: str, interval: str, from_us: int, to_us: int, *, now_us: int) -> Walk:
    """Return the walk over the buckets that start in ``[from_us, to_us)``, as far as they have begun.

    An interval that the source does not have is folded from the longest one that fits.

    Raises:
        UnknownName: there is no such interval, or the source cannot name such a symbol.
    """
    length_us(interval)
    source.native(symbol)
    if interval in source.intervals:
        return PageWalk(source, symbol, interval, from_us, to_us, now_us=now_us)
    return FoldedWalk(source, symbol, interval, from_us, to_us, now_us=now_us)


class PageWalk:
    """Walk over an interval that the source has."""

    def __init__(
        self, source: CandleSource, symbol: str, interval: str, from_us: int, to_us: int, *, now_us: int
    ) -> None:
        self._source = source
        self.symbol = symbol
        self.interval = interval
        self.incomplete: dict[int, tuple[int, ...]] = {}
        self.requests = 0
        """How many answers it was fed."""
        self._now_us = now_us
        self._length = INTERVALS_US[interval]
        self._page = source.page_size(interval)
        self._unreachable: list[Unreachable] = []
        self._next = bucket_from(max(from_us, 0), interval)
        self._end = min(bucket_from(max(to_us, 0), interval), bucket_start(now_us, interval) + self._length)
        reach = source.reach_us(interval, now_us)
        if reach is not None and (reach := bucket_from(reach, interval)) > self._next:
            self._give_up(self._next, min(reach, self._end))
            self._next = reach
        self._hole: tuple[int, int] | None = None
        """What the newest-first answer before may have cut off: it is asked for before the walk goes on."""
        self._cut_at: tuple[int, int] | None = None
        """The first bucket that an answer may have cut off, and how many candles that answer had."""
        self._request: Request | None = None

    @property
    def source(self) -> CandleSource:
        return self._source

    @property
    def request(self) -> Request | None:
        if self._request is None and (span := self._span()) is not None:
            self._request = self._source.request(self.symbol, self.interval, *span, now_us=self._now_us)
        return self._request

    @property
    def covered_us(self) -> int:
        return self._hole[0] if self._hole is not None else self._next

    @property
    def unreachable(self) -> list[Unreachable]:
        return list(self._unreachable)

    def feed(self, body: bytes) -> list[HistoryCandle]:
        span, request = self._span(), self.request
        if span is None or request is None:
            return []
        page = self._source.parse(body, self.interval, request)
        self.requests += 1
        self._request = None
        start, end = span
        if page.oldest_us is not None and page.oldest_us > start:
            self._give_up(start, min(page.oldest_us, end))
        candles = [candle for candle in page.candles if start <= candle.start_us < end]
        for candle in candles:
            candle.closed = candle.closed and candle.start_us + self._length <= self._now_us
        self._learn(candles, start, end)
        self._move(candles, start, end)
        return candles

    def _span(self) -> tuple[int, int] | None:
        """Return the bucket starts that the next request is for."""
        if self._hole is not None:
            start, end = self._hole
            return max(start, end - self._page_at(start) * self._length), end
        if self._next >= self._end:
            return None
        return self._next, min(self._next + self._page_at(self._next) * self._length, self._end)

    def _page_at(self, from_us: int) -> int:
        return min(self._page, self._source.page_at(self.interval, from_us, self._now_us))

    def _learn(self, candles: list[HistoryCandle], start: int, end: int) -> None:
        """Believe a source that its pages are smaller where asking again brought what an answer had cut off."""
        if self._cut_at is not None:
            missing, count = self._cut_at
            if start <= missing < end and any(candle.start_us == missing for candle in candles):
                self._page = max(1, min(self._page, count))
        self._cut_at = None

    def _move(self, candles: list[HistoryCandle], start: int, end: int) -> None:
        """Go on behind an answer, to the side that it may have cut off where there is one."""
        first = candles[0].start_us if candles else start
        bottom = start
        if self._hole is None:
            self._next = candles[-1].start_us + self._length if candles else end
        else:
            bottom, self._hole = self._hole[0], None
        if not self._source.newest_first:
            if self._next < end:
                self._cut_at = self._next, len(candles)
        else:
            if first > start:
                self._cut_at = first - self._length, len(candles)
            if first > bottom:
                self._hole = bottom, first

    def _give_up(self, from_us: int, to_us: int) -> None:
        if from_us < to_us:
            self._unreachable.append(Unreachable(from_us, to_us, self._source.reach_reason))


class FoldedWalk:
    """Walk over an interval that the source does not have, by a shorter one of its own."""

    def __init__(
        self, source: CandleSource, symbol: str, interval: str, from_us: int, to_us: int, *, now_us: int
    ) -> None:
        self._source = source
        self.symbol = symbol
        self.interval = interval
        self.incomplete: dict[int, tuple[int, ...]] = {}
        self._now_us = now_us
        self._length = INTERVALS_US[interval]
        start, end = bucket_from(max(from_us, 0), interval), bucket_from(max(to_us, 0), interval)
        self.part = part_of(source, interval)
        self._parts = PageWalk(source, symbol, self.part, start, end, now_us=now_us)
        self._waiting: dict[int, HistoryCandle] = {}

    @property
    def source(self) -> CandleSource:
        return self._source

    @property
    def request(self) -> Request | None:
        return self._parts.request

    @property
    def requests(self) -> int:
        return self._parts.requests

    @property
    def covered_us(self) -> int:
        return bucket_start(self._parts.covered_us, self.interval)

    @property
    def unreachable(self) -> list[Unreachable]:
        """Candles of which a part cannot be had: half of one would look like a whole one."""
        return [
            Unreachable(bucket_start(span.from_us, self.interval), bucket_from(span.to_us, self.interval), span.reason)
            for span in self._parts.unreachable
        ]

    def feed(self, body: bytes) -> list[HistoryCandle]:
        for candle in self._parts.feed(body):
            self._waiting[candle.start_us] = candle
        done_us = self._parts.covered_us if self.request is not None else self._now_us + self._length
        ready = sorted(start for start in self._waiting if bucket_start(start, self.interval) + self._length <= done_us)
        parts = [self._waiting.pop(start) for start in ready]
        lost = self.unreachable
        candles = []
        for folded in fold(parts, self.interval, self.part):
            candle = folded.candle
            if any(span.from_us <= candle.start_us < span.to_us for span in lost):
                continue
            candle.closed = candle.closed and candle.start_us + self._length <= self._now_us
            if folded.missing:
                self.incomplete[candle.start_us] = folded.missing
            candles.append(candle)
        return candles


def part_of(source: CandleSource, interval: str) -> str:
    """Return the longest interval of a source's own that an interval can be folded from.

    Raises:
        UnknownName: the source has none that is short enough.
    """
    length = INTERVALS_US[interval]
    fitting = [name for name in source.intervals if INTERVALS_US[name] < length and not length % INTERVALS_US[name]]
    if not fitting:
        raise UnknownName("interval", interval, list(source.intervals), hint=f"{source.name} has none to fold it from.")
    return max(fitting, key=INTERVALS_US.__getitem__)
