"""What to ask an exchange for, so that known holes are filled, and what an answer's trades make of them. Pure.

A search is made for one symbol: of the ids that are missing (``IdSearch``), or of a span of time where nobody knows the
ids (``TimeSearch``). Whoever does I/O asks ``wanted`` what to request, and gives ``take`` the answer.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Literal

import msgspec

from collector.events import Trade
from collector.feeds.continuity import merge_intervals
from collector.session.gaps import Entry
from collector.session.resume import without
from collector.streams import PRICES

Ids = list[tuple[int, int]]
"""Inclusive intervals of ids, in order, none touching another."""

Content = tuple[int, Decimal, Decimal, str]
"""What a trade says beside its id: exchange time, price, volume and the taker's side."""

Paging = Literal["id", "time", "recent"]

PATIENCE = 3
"""How often an answer may bring nothing before what is missing counts as not to be had: REST lags behind the stream."""

NO_NUMBERS = "the exchange gives no trades from an id on without a key"
PAGE = 1000
"""How many trades are asked for at a time; an exchange that gives fewer says so by giving fewer."""

NO_NEIGHBOUR = "no trade beside it is known to ask from"
TOO_OLD = "the exchange gives no trades that are so old"
NOT_THERE = "the exchange has no trade of this number"


def repairable(entry: Entry, *, again: bool = False) -> bool:
    """Say whether a row of the ledger stands for trades to be asked for; ``again``: even for those given up before."""
    bounded = None not in (entry.from_id, entry.to_id) or None not in (entry.from_us, entry.to_us)
    states = ("open", "unrecoverable") if again else ("open",)
    return entry.stream == PRICES.name and entry.cause != "log_damaged" and bounded and entry.state in states


def is_numbered(entry: Entry) -> bool:
    """Say whether a row of the ledger names its trades by their ids."""
    return entry.from_id is not None and entry.to_id is not None


def subtract(intervals: Iterable[tuple[int, int]], others: Iterable[tuple[int, int]]) -> Ids:
    """Return what of some intervals no other one covers."""
    merged = merge_intervals(others)
    return [part for first, last in merge_intervals(intervals) for part in without(first, last, merged)]


def intersect(intervals: Iterable[tuple[int, int]], others: Iterable[tuple[int, int]]) -> Ids:
    """Return what intervals and others both cover."""
    intervals = merge_intervals(intervals)
    return subtract(intervals, subtract(intervals, others))


def count(intervals: Iterable[tuple[int, int]]) -> int:
    """Return how many ids some intervals have."""
    return sum(last - first + 1 for first, last in intervals)


def covered(trade: Trade) -> tuple[int, int] | None:
    """Return the ids that a trade stands for; None where it has no number.

    An aggregated trade that has the id of its last raw one stands for those before it, too.
    """
    if not isinstance(trade.trade_id, int):
        return None
    first = trade.first_raw_id if trade.last_raw_id == trade.trade_id else None
    return (trade.trade_id if first is None else min(first, trade.trade_id)), trade.trade_id


class IdSearch:
    """Look for one symbol's missing ids, lowest first.

    ``found`` are the trades that fill them, ``missing`` what is still looked for, ``given_up`` what is not to be had,
    with ``reason``.

    Args:
        missing: the ids to look for.
        hints: exchange times at which some of them are missing, by the first id: for exchanges that are asked by time.
    """

    def __init__(self, paging: Paging, missing: Iterable[tuple[int, int]], hints: Sequence[tuple[int, int]]) -> None:
        self.missing = merge_intervals(missing)
        self.found: list[Trade] = []
        self.given_up: Ids = []
        self.reason = ""
        self._paging = paging
        self._hints = sorted(hints)
        self._passed_us: int | None = None
        self._patience = PATIENCE

    @property
    def wanted(self) -> tuple[int, int | None] | None:
        """Return the id to ask from, with the time to ask from; None where nothing is looked for any more."""
        if not self.missing:
            return None
        first = self.missing[0][0]
        before = [at_us for hint, at_us in self._hints if hint <= first] or [at_us for _, at_us in self._hints[:1]]
        times = [at_us for at_us in (*before[-1:], self._passed_us) if at_us is not None]
        return first, max(times, default=None)

    def take(self, trades: Iterable[Trade]) -> bool:
        """Judge an answer to what was wanted; return False where it brought nothing, so that it is better to wait."""
        if not self.missing:
            return True
        numbered = sorted(
            ((span, trade) for trade in trades if (span := covered(trade)) is not None), key=lambda pair: pair[0][1]
        )
        asked = self.missing[0][0]
        last = numbered[-1][0][1] if numbered else -1
        moved = False
        if self._paging == "time" and numbered:
            newest_us = numbered[-1][1].timestamp_us
            moved = newest_us > (self._passed_us or 0)
            self._passed_us = newest_us
        if self._paging == "recent" and numbered:
            first = min(span[0] for span, _ in numbered)
            self._give_up([(0, first - 1)], TOO_OLD)
        if last < asked:
            return moved or self._lose_patience()
        self._patience = PATIENCE
        got = self._keep(numbered)
        # Whatever lies before the last trade of an answer and is not in it was never a trade.
        self._give_up(subtract([(asked, last)], got), NOT_THERE)
        return True

    def give_up(self, reason: str) -> None:
        """Look for nothing any more."""
        self._give_up(self.missing, reason)

    def _keep(self, numbered: Sequence[tuple[tuple[int, int], Trade]]) -> Ids:
        got: Ids = []
        for span, trade in numbered:
            if intersect([span], self.missing):
                self.found.append(trade)
                got.append(span)
                self.missing = subtract(self.missing, [span])
        return got

    def _lose_patience(self) -> bool:
        self._patience -= 1
        if self._patience <= 0:
            self.give_up(TOO_OLD)
        return False

    def _give_up(self, intervals: Iterable[tuple[int, int]], reason: str) -> None:
        lost = intersect(self.missing, intervals)
        if lost:
            self.reason = reason
            self.given_up = merge_intervals([*self.given_up, *lost])
            self.missing = subtract(self.missing, lost)


class TimeSearch:
    """Look for the trades of one symbol in a span of exchange time whose ids nobody knows.

    ``found`` are those that were not known; ``done`` says that there is nothing more to ask; ``lost`` are the parts of
    the span that are not to be had, with ``reason``.

    Where trades are asked for by id, the answers are gone through backward from the first trade after the span.

    Args:
        seen: ids that are recorded already, of the trades in the span.
        next_id: the lowest id that is recorded of the trades after the span.
        contents: what those trades say, by their ids, where nobody vouches that REST spells an id as the stream does:
            as long as no answer has a recorded id, a trade that says the same as a recorded one is that one. Each
            recorded trade stands for one, so of two alike of which one is recorded the other is found.
    """

    def __init__(
        self,
        paging: Paging,
        from_us: int,
        to_us: int,
        seen: Collection[int | str],
        next_id: int | None = None,
        contents: Mapping[str, Content] | None = None,
    ) -> None:
        self.found: list[Trade] = []
        self.lost: list[tuple[int, int]] = []
        self.reason = ""
        self.done = False
        self._paging = paging
        self._from_us = from_us
        self._to_us = to_us
        self._seen = {str(known) for known in seen}
        self._contents = dict(contents or {})
        self._unmatched = Counter(self._contents.values())
        self._asked_us = from_us
        self._next_id = next_id
        self._patience = PATIENCE
        if paging == "id" and next_id is None:
            self.give_up(NO_NEIGHBOUR)

    @property
    def wanted(self) -> tuple[int, int | None] | None:
        """Return the id to ask from (0 where none is known) and the time; None where all is known."""
        if self.done:
            return None
        return max(0, (self._next_id or 0) - PAGE), self._asked_us

    def take(self, trades: Sequence[Trade]) -> bool:
        """Judge an answer; return False where it brought nothing, so that it is better to wait."""
        if self._paging == "id":
            return self._take_backward(trades)
        self._recognise(trades)
        times = [trade.timestamp_us for trade in trades]
        begins = min(times, default=None)
        if self._paging == "recent" and begins is not None and not self._reaches_back(trades, begins):
            # What is before the oldest trade of the answer is gone.
            self.lost = [(self._from_us, min(begins, self._to_us))]
            self.reason = TOO_OLD
        self._keep(trades)
        ends = max(times, default=self._asked_us)
        if ends > self._to_us or (ends == self._to_us and self._paging == "recent"):
            self.done = True
            return True
        moved = self._paging == "time" and ends > self._asked_us
        if moved:
            self._asked_us, self._patience = ends, PATIENCE
            return True
        self._patience -= 1
        if self._patience <= 0:
            self._end_early(ends)
        return False

    def give_up(self, reason: str) -> None:
        """Look for nothing any more."""
        if not self.done:
            self.lost = [(self._from_us, self._to_us)]
            self.reason = reason
            self.done = True

    def _recognise(self, trades: Sequence[Trade]) -> None:
        """Take trades that are recorded under other ids for seen."""
        if any(str(trade.trade_id) in self._contents for trade in trades):
            self._unmatched.clear()  # the ids are the stream's
        for trade in trades:
            name, content = str(trade.trade_id), content_of(trade)
            if name not in self._seen and self._unmatched[content] > 0:
                self._unmatched[content] -= 1
                self._seen.add(name)

    def _keep(self, trades: Iterable[Trade]) -> None:
        for trade in trades:
            name = str(trade.trade_id)
            if self._from_us <= trade.timestamp_us <= self._to_us and name not in self._seen:
                self._seen.add(name)
                self.found.append(trade)

    def _take_backward(self, trades: Sequence[Trade]) -> bool:
        before = [
            trade for trade in trades if isinstance(trade.trade_id, int) and trade.trade_id < (self._next_id or 0)
        ]
        if not before:
            self._patience -= 1
            if self._patience <= 0:
                self.give_up(TOO_OLD)
            return False
        self._keep(before)
        asked = max(0, (self._next_id or 0) - PAGE)
        self.done = min(trade.timestamp_us for trade in before) < self._from_us or asked == 0
        self._next_id = asked
        return True

    def _end_early(self, ends: int) -> None:
        self.done = True
        if ends < self._to_us:
            self.lost.append((max(ends, self._from_us), self._to_us))
            self.reason = self.reason or TOO_OLD

    def _reaches_back(self, trades: Sequence[Trade], begins: int) -> bool:
        if begins < self._from_us:
            return True
        return any(trade.timestamp_us == self._from_us and str(trade.trade_id) in self._seen for trade in trades)


def content_of(trade: Trade) -> Content:
    """Return what a trade says beside its id, comparable however its numbers are written."""
    return trade.timestamp_us, Decimal(trade.price), Decimal(trade.volume), trade.side or ""


class Found(msgspec.Struct, frozen=True):
    """What a session's log has already of ids that are to be repaired, and which of it an earlier repair brought."""

    present: Ids = []
    repaired: Ids = []
    between: Mapping[str, Content] = {}
    """By its id, what each trade between the two times that were asked for says."""
    next_id: int | None = None
    """The lowest number of a trade after them."""


def holds(intervals: Sequence[tuple[int, int]], number: int) -> bool:
    """Say whether intervals (in order, none touching another) have a number."""
    at = bisect_right(intervals, number, key=lambda interval: interval[0]) - 1
    return at >= 0 and number <= intervals[at][1]


class Tally(msgspec.Struct, kw_only=True):
    """What one repair did for one row of the ledger, for whoever asked for it.

    ``asked`` and ``missing`` are None where nobody knows the number. ``state`` is the row's afterwards.
    """

    gap_id: str
    symbol: str
    cause: str
    from_us: int | None
    to_us: int | None
    asked: int | None
    got: int = 0
    missing: int | None = None
    state: str = "open"
    reason: str = ""
