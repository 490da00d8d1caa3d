"""One symbol's trades by their ids: what was seen already stays out, and what is missing is known exactly.

Nothing here reads a clock: ``due`` is told the time, and a hole's age counts from the first ``due`` that sees it.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence

import msgspec

from collector.events import Gap, GapCause, Trade

RECENT_IDS = 20_000
"""How many ids are remembered where they don't count up by one."""

KNOWN_HOLES = 10_000
"""How many holes stay open for trades that come after their hole was reported; the oldest is closed beyond that."""

RENUMBERED_AFTER_US = 10_000_000
"""An old id on a trade that is newer than the last by this is no duplicate: the exchange counts anew."""


class _Hole(msgspec.Struct, gc=False):
    """Ids ``first`` … ``last`` did not come. ``noticed_s`` is the first ``due`` that saw it.

    ``counts`` is false for the ids before the very first trade: nobody says that they belong to the session, but one
    that comes late was not seen before either.
    """

    first: int
    last: int
    from_us: int | None
    to_us: int | None
    cause: GapCause
    counts: bool = True
    noticed_s: float | None = None


class TradeContinuity:
    """Judge one symbol's trades in the order in which they come.

    Args:
        contiguous: ids are integers that count up by one; otherwise any id is only compared with the recent ones.
        last_id: the highest id that is recorded already; a jump after it has the cause ``cause_on_first``.
        last_us: the exchange time of that trade, where it is known.
        holes: inclusive id intervals that are known to be missing: they aren't reported again, and a trade in one of
            them is accepted.
        reorder_grace_s: for how long a hole may be filled by late trades before it is reported.
    """

    def __init__(
        self,
        symbol: str,
        *,
        contiguous: bool,
        last_id: int | None = None,
        last_us: int | None = None,
        holes: Sequence[tuple[int, int]] = (),
        cause_on_first: GapCause = "restart",
        reorder_grace_s: float = 1.0,
    ) -> None:
        self.symbol = symbol
        self.overlap: GapCause | None = None
        """Why two connections deliver the trades: what one skips the other may bring, so no hole is reported yet."""
        self._contiguous = contiguous
        self._grace_s = reorder_grace_s
        # ``_next`` is the id that the hot path takes without a question; None sends the next trade the long way.
        # ``_expected`` is the same number as the long way knows it.
        self._next: int | None = None
        self._expected: int | None = None if last_id is None else last_id + 1
        self._last_us = last_us
        self._cause: GapCause | None = None if last_id is None else cause_on_first
        self._suspected: list[_Hole] = []
        self._known = [
            _Hole(first, last, None, None, "sequence", noticed_s=0.0) for first, last in merge_intervals(holes)
        ]
        self._ready: list[Gap] = []
        # No trade has come yet but from before the subscription.
        self._only_past = False
        self._recent: dict[int | str, None] = {}
        if last_id is not None and not contiguous:
            self._recent[last_id] = None

    def accept(self, trade: Trade) -> bool:
        """Return whether the trade is new; False where its id was seen already."""
        if trade.trade_id == self._next:
            self._next += 1
            self._last_us = trade.timestamp_us
            return True
        # An aggregated trade that has the id of its last raw one stands for those before it, too.
        first = trade.first_raw_id if trade.last_raw_id == trade.trade_id else None
        self._only_past = False
        return self._judge(trade.trade_id, trade.timestamp_us, first)

    def accept_past(self, trade: Trade) -> bool:
        """Return whether a trade that the exchange repeats from before the subscription fills a known gap.

        Such trades come oldest first. One that was seen already shows that nothing is missing between it and them.
        """
        if self._contiguous:
            if self._next is None and self._expected is None:
                self._only_past = True
            if not self._only_past or self._cause is not None:
                return self.accept(trade)
            self._judge(trade.trade_id, trade.timestamp_us)
            self._expected, self._next = self._next or self._expected, None
            return False
        seen = trade.trade_id in self._recent
        known_us = self._last_us
        if seen and self._cause is not None:
            self._cause = None
        if seen or known_us is None or trade.timestamp_us < known_us + (not self._recent):
            if known_us is None:
                self._recent[trade.trade_id] = None
            return False
        return self._judge(trade.trade_id, trade.timestamp_us)

    def knows(self, trade_id: int | str) -> bool:
        """Tell whether an id is not beyond those that were seen."""
        if not self._contiguous or not isinstance(trade_id, int):
            return trade_id in self._recent
        expected = self._next if self._next is not None else self._expected
        return expected is not None and trade_id < expected

    def follows(self, trade_id: int | str) -> bool:
        """Tell whether nothing is missing between an id and those that were seen."""
        if self._contiguous and isinstance(trade_id, int):
            return trade_id == (self._next if self._next is not None else self._expected) or self.knows(trade_id)
        return self.knows(trade_id)

    def holes_in(self, first: int, last: int) -> list[tuple[int, int]]:
        """Return which ids of an inclusive interval this waits for: a trade of theirs would be new."""
        holes = [*self._known, *self._suspected]
        parts = [(max(hole.first, first), min(hole.last, last)) for hole in holes]
        return merge_intervals(part for part in parts if part[0] <= part[1])

    def take_fetched(self, trade: Trade) -> bool:
        """Count a trade that was asked for as seen; return False where it came by itself meanwhile."""
        if self._contiguous and isinstance(trade.trade_id, int):
            first = trade.first_raw_id if trade.last_raw_id == trade.trade_id else None
            first = trade.trade_id if first is None or first > trade.trade_id else first
            ids = range(max(first, trade.trade_id - RECENT_IDS), trade.trade_id + 1)
            fills = [
                _fill(holes, raw_id, trade.timestamp_us) for raw_id in ids for holes in (self._suspected, self._known)
            ]
            return any(fills)
        if trade.trade_id in self._recent:
            return False
        self._recent[trade.trade_id] = None
        if len(self._recent) > RECENT_IDS:
            del self._recent[next(iter(self._recent))]
        return True

    def skip(self, trade_id: int, timestamp_us: int | None = None) -> None:
        """Count an id as seen that the exchange gave to something that is no trade of the book."""
        self._judge(trade_id, self._last_us if timestamp_us is None else timestamp_us)

    def interrupted(self, cause: GapCause) -> None:
        """Note why trades may be missing before the next one; the first reason stays until that one has come."""
        if self._next is not None:
            self._expected, self._next = self._next, None
        if self._cause is None:
            self._cause = cause

    def due(self, now_monotonic_s: float) -> list[Gap]:
        """Return the holes that late trades had their time to fill, each with its exact ids."""
        ready, self._ready = self._ready, []
        if not self._suspected or self.overlap is not None:
            return ready
        waiting: list[_Hole] = []
        for hole in self._suspected:
            if hole.noticed_s is None:
                hole.noticed_s = now_monotonic_s
            if now_monotonic_s - hole.noticed_s < self._grace_s:
                waiting.append(hole)
            elif hole.counts:
                ready.append(self._report(hole))
        self._suspected = waiting
        return ready

    def close(self) -> list[Gap]:
        """Return all holes now: nothing more will come on this connection."""
        ready, self._ready = self._ready, []
        ready.extend(self._report(hole) for hole in self._suspected if hole.counts)
        self._suspected = []
        return ready

    def _judge(self, trade_id: int | str, timestamp_us: int | None, first_id: int | None = None) -> bool:
        if not self._contiguous or not isinstance(trade_id, int):
            # An exchange that numbers its trades can send some without a number; their ids say no more than themselves.
            return self._judge_recent(trade_id, timestamp_us)
        expected = self._next if self._next is not None else self._expected
        first = trade_id if first_id is None or first_id > trade_id else first_id
        if expected is None:
            # Whether what came before was ours to have is unknown; a late one of them is new all the same.
            self._suspected.append(_Hole(0, first - 1, None, timestamp_us, "sequence", counts=False))
        elif first > expected:
            cause = self._cause or self.overlap or "sequence"
            self._suspected.append(_Hole(expected, first - 1, self._last_us, timestamp_us, cause))
        elif trade_id < expected:
            new = self._judge_late(trade_id, timestamp_us)
            # No more than a hole can hold are looked at, whatever a message says.
            for raw_id in range(max(first, trade_id - RECENT_IDS), trade_id) if new else ():
                _fill(self._suspected, raw_id, timestamp_us)
                _fill(self._known, raw_id, timestamp_us)
            return new
        self._advance(trade_id, timestamp_us)
        return True

    def _advance(self, trade_id: int, timestamp_us: int | None) -> None:
        self._next = self._expected = trade_id + 1
        self._cause = None
        if timestamp_us is not None:
            self._last_us = timestamp_us

    def _judge_late(self, trade_id: int, timestamp_us: int | None) -> bool:
        if _fill(self._suspected, trade_id, timestamp_us):
            return True
        if _fill(self._known, trade_id, timestamp_us):
            late = self._gap(
                "sequence", timestamp_us, timestamp_us, trade_id, trade_id, "came after its hole was reported"
            )
            late.state = "repaired"
            self._ready.append(late)
            return True
        if timestamp_us is None or self._last_us is None or timestamp_us < self._last_us + RENUMBERED_AFTER_US:
            return False
        self._ready.extend(self.close())
        self._ready.append(
            self._gap(
                self._cause or "sequence", self._last_us, timestamp_us, detail="the exchange's trade ids went back"
            )
        )
        self._known = []
        self._advance(trade_id, timestamp_us)
        return True

    def _judge_recent(self, trade_id: int | str, timestamp_us: int | None) -> bool:
        recent = self._recent
        if trade_id in recent:
            recent[trade_id] = recent.pop(trade_id)
            return False
        recent[trade_id] = None
        if len(recent) > RECENT_IDS:
            del recent[next(iter(recent))]
        if self._cause is not None:
            self._ready.append(self._gap(self._cause, self._last_us, timestamp_us))
            self._cause = None
        self._last_us = timestamp_us
        return True

    def _report(self, hole: _Hole) -> Gap:
        self._known.insert(bisect_right(self._known, hole.first, key=_first), hole)
        if len(self._known) > KNOWN_HOLES:
            del self._known[0]
        return self._gap(hole.cause, hole.from_us, hole.to_us, hole.first, hole.last)

    def _gap(
        self,
        cause: GapCause,
        from_us: int | None,
        to_us: int | None,
        from_id: int | None = None,
        to_id: int | None = None,
        detail: str = "",
    ) -> Gap:
        expected = None if from_id is None or to_id is None else to_id - from_id + 1
        return Gap(self.symbol, "prices", cause, from_us, to_us, from_id, to_id, expected, detail=detail)


def merge_intervals(intervals: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return inclusive intervals in order, those that overlap or touch made one; an empty one falls away."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(intervals):
        if last < first:
            continue
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return merged


def _first(hole: _Hole) -> int:
    return hole.first


def _fill(holes: list[_Hole], trade_id: int, timestamp_us: int | None) -> bool:
    """Take an id out of the hole that has it: the hole shrinks, falls in two or goes; return whether there was one."""
    at = bisect_right(holes, trade_id, key=_first) - 1
    if at < 0 or holes[at].last < trade_id:
        return False
    hole = holes[at]
    before = msgspec.structs.replace(hole, last=trade_id - 1, to_us=timestamp_us)
    # What lies between two trades that came is missing, even where the ids before the first are nobody's.
    after = msgspec.structs.replace(hole, first=trade_id + 1, from_us=timestamp_us, counts=True)
    holes[at : at + 1] = [part for part in (before, after) if part.first <= part.last]
    return True
