"""One symbol's local order book: snapshot and changes in, rows of the best levels and gaps out.

Nothing here waits or reads a clock. What comes out depends on the messages and their order alone, not on when the
snapshot's answer came among them.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import deque
from collections.abc import Iterable
from copy import copy
from decimal import Decimal
from heapq import nlargest
from typing import cast

from collector.events import BookDelta, BookSnapshot, BookTop, Gap, GapCause, Level
from collector.exchanges.base import BookRule, Checksum
from collector.streams import BOOK_LEVELS

_ZERO = "0." + "0" * 60
"""Plain decimal digits are zero exactly where they sort before this: "0", "0.0", "0.00000000", but not "0.01"."""

IDS_WENT_BACK = "the exchange's update ids went back"
BEGAN_ANEW = "the exchange began its book anew"

_NEAR = 64
"""How many of the best levels a side keeps in order; measured best between 32 and 128."""

_HOT = 512
"""How many of the best levels a side keeps as objects; the levels behind them are one text until they are needed."""

_LOWEST = float("-inf")


class BookSide:
    """One side of a book.

    The best levels are in two dictionaries, their sizes by price text and their price texts by key; only the very best
    are kept in order (``near``: every key that is not below ``_floor``, best last), because only they are read. Most
    changes set a size at a price that is there, and cost one dictionary's lookup and store.

    A deep book's other levels (``_cold``: all keys below ``_edge``) are one text, and what changed among them since is
    a dictionary beside it: 30 bytes a level instead of 250, and they are hardly ever looked at.

    Prices compare as numbers. A key is the price as a float where 15 digits suffice, because then no two prices share
    one, and a Decimal otherwise; asks are negated, so that the greatest key is the best on both sides.

    Levels behind the last one of a truncated snapshot (``limited``) are not known but where they change, so they are
    none of the side's: what it holds are all levels that are not worse than that one.
    """

    __slots__ = ("_bound", "_changed", "_cold", "_edge", "_floor", "_sign", "_sizes", "_texts", "near")

    def __init__(self, sign: int) -> None:
        self._sign = sign
        self._sizes: dict[str, str] = {}
        self._texts: dict[float, str] = {}
        self.near: list[float] = []
        self._floor = _LOWEST
        self._cold = ""
        self._changed: dict[float, Level] = {}
        self._edge = _LOWEST
        self._bound = _LOWEST

    def __len__(self) -> int:
        return len(self._texts) + (len(self._cold_levels()) if self._cold or self._changed else 0)

    @property
    def limited(self) -> bool:
        """Whether there may be levels behind the last one that is known."""
        return self._bound > _LOWEST

    def load(self, levels: Iterable[Level], *, limited: bool = False) -> None:
        """Replace all levels.

        Args:
            limited: there may be levels behind the worst of these, which nobody told.
        """
        self._bound = _LOWEST
        levels = list(levels)
        if len(levels) <= 2 * _HOT and not limited:
            sign = self._sign
            texts = {sign * (float(p) if len(p) <= 15 else _number(p)): p for p, size in levels if size > _ZERO}
            if len(texts) == len(levels):  # each price once, in one spelling, and none deleted
                self._texts, self._sizes = texts, dict(levels)
                self._cold, self._changed, self._edge = "", {}, _LOWEST
                self.near, self._floor = [], float("inf")
                return
        by_key = self._by_key(levels)
        if limited and by_key:
            self._bound = min(by_key)
        self._arrange(by_key)

    def put(self, changes: Iterable[Level]) -> None:
        """Set the sizes at prices; a size of zero deletes the level. Both are plain decimal digits."""
        sizes = self._sizes
        texts = self._texts
        near = self.near
        floor = self._floor
        edge = self._edge
        sign = self._sign
        for price, size in changes:
            if size > _ZERO:
                if price in sizes:
                    sizes[price] = size
                    continue
                key = sign * (float(price) if len(price) <= 15 else _number(price))
                if key < edge:
                    if key >= self._bound:
                        self._changed[key] = (price, size)
                    continue
                other = texts.get(key)
                if other is not None:
                    del sizes[other]
                elif key >= floor:
                    insort(near, key)
                texts[key] = price
                sizes[price] = size
            else:
                key = sign * (float(price) if len(price) <= 15 else _number(price))
                other = texts.pop(key, None)
                if other is not None:
                    del sizes[other]
                    if key >= floor:
                        del near[bisect_left(near, key)]
                elif self._bound <= key < edge:
                    self._changed[key] = (price, size)
        if len(near) > 4 * _NEAR:
            self.near = near[-_NEAR:]
            self._floor = self.near[0]
        if len(texts) > 4 * _HOT or len(self._changed) > _HOT + len(self._cold) // 128:
            self._arrange(self._all())

    def keep_best(self, depth: int) -> None:
        """Forget the levels behind the ``depth`` best ones."""
        if self._cold or self._changed:
            levels = self._all()
            self._arrange({key: levels[key] for key in nlargest(depth, levels)})
            return
        texts = self._texts
        excess = len(texts) - depth
        if excess <= 0:
            return
        if self._floor > _LOWEST and depth <= 3 * _NEAR:
            self._order(len(texts))
        near = self.near
        if len(near) == len(texts):
            for key in near[:excess]:
                del self._sizes[texts.pop(key)]
            del near[:excess]
            return
        for key in sorted(texts)[:excess]:
            del self._sizes[texts.pop(key)]
            if key >= self._floor:
                del near[bisect_left(near, key)]

    def top(self, count: int) -> list[Level]:
        """Return up to ``count`` best levels, best first."""
        near = self.near
        if len(near) < count:
            self._fill(count)
            near = self.near
        texts = self._texts
        sizes = self._sizes
        return [(text := texts[key], sizes[text]) for key in near[: -count - 1 : -1]]

    def best(self) -> float | None:
        """Return the best level's key: its price, negated for asks; None where there is no level."""
        if not self.near:
            self._fill(1)
        return self.near[-1] if self.near else None

    def has(self, count: int) -> bool:
        """Whether the side is known to hold so many levels, or to be shorter; False where it may go on unknown."""
        return self._bound == _LOWEST or len(self._texts) >= count or len(self) >= count

    def _fill(self, count: int) -> None:
        """Have the ``count`` best levels in order, where there are so many."""
        if len(self._texts) < count and (self._cold or self._changed):
            self._arrange(self._all(), least=count)
        if len(self.near) < count and len(self.near) < len(self._texts):
            self._order(max(count, _NEAR))

    def _order(self, count: int) -> None:
        self.near = nlargest(count, self._texts)
        self.near.reverse()
        self._floor = self.near[0] if len(self._texts) > count else self._edge

    def _arrange(self, levels: dict[float, Level], *, least: int = 0) -> None:
        """Take these levels for all there are: the best as objects, the others as text where they are many."""
        hot = max(_HOT, 2 * least)
        self._cold, self._changed, self._edge = "", {}, self._bound
        if len(levels) > 2 * hot:
            order = sorted(levels, reverse=True)
            self._cold = ";".join([",".join(levels[key]) for key in order[hot:]])
            levels = {key: levels[key] for key in order[:hot]}
            self._edge = order[hot - 1]
        self._texts = {key: price for key, (price, _) in levels.items()}
        self._sizes = dict(levels.values())
        self.near = []
        self._floor = float("inf")  # nothing is near until it is asked for

    def _by_key(self, levels: Iterable[Level]) -> dict[float, Level]:
        sign = self._sign
        found = {sign * _number(level[0]): level for level in levels}
        return {key: level for key, level in found.items() if level[1] > _ZERO}

    def _cold_levels(self) -> dict[float, Level]:
        """Return the levels below the edge."""
        held: list[Level] = []
        for text in self._cold.split(";") if self._cold else ():
            price, _, size = text.partition(",")
            held.append((price, size))
        levels = self._by_key(held)
        levels.update(self._changed)
        return {key: level for key, level in levels.items() if level[1] > _ZERO}

    def _all(self) -> dict[float, Level]:
        levels = {key: (price, self._sizes[price]) for key, price in self._texts.items()}
        if self._cold or self._changed:
            levels.update(self._cold_levels())
        return levels


class Book:
    """One local book, of any exchange."""

    __slots__ = ("asks", "bids")

    def __init__(self) -> None:
        self.bids = BookSide(1)
        self.asks = BookSide(-1)

    def __len__(self) -> int:
        return len(self.bids) + len(self.asks)

    def clear(self) -> None:
        """Forget all levels."""
        self.bids.load(())
        self.asks.load(())

    def load(self, snapshot: BookSnapshot, *, most: int | None = None) -> None:
        """Replace all levels by a snapshot's; a side with ``most`` levels may go on behind them."""
        for side, levels in ((self.bids, snapshot.bids), (self.asks, snapshot.asks)):
            side.load(levels, limited=most is not None and len(levels) >= most)

    def apply(self, delta: BookDelta) -> None:
        """Set and delete the levels that a delta names."""
        self.bids.put(delta.bids)
        self.asks.put(delta.asks)

    def keep_best(self, depth: int) -> None:
        """Forget the levels of each side behind the ``depth`` best ones."""
        self.bids.keep_best(depth)
        self.asks.keep_best(depth)

    def top(self, count: int) -> tuple[list[Level], list[Level]]:
        """Return up to ``count`` best bids and asks, best first, in the exchange's own digits."""
        return self.bids.top(count), self.asks.top(count)

    def certain(self, count: int) -> bool:
        """Whether the ``count`` best levels of both sides are known."""
        return self.bids.has(count) and self.asks.has(count)

    @property
    def crossed(self) -> bool:
        """Whether somebody bids as much as somebody asks: no matching engine leaves that, so a change was missed."""
        bids, asks = self.bids, self.asks
        bid = bids.near[-1] if bids.near else bids.best()
        ask = asks.near[-1] if asks.near else asks.best()
        return bid is not None and ask is not None and bid >= -ask


class BookSync:
    """Keep one symbol's book in step with the exchange, and emit what ``orderbook.csv`` and the ledger need of it.

    Within the prices of the snapshot the book stays exact however far the market moves, because changes name every
    price that changes. Behind the last level of a truncated snapshot nothing is known but what changes, so those levels
    are none of the book's: a row never shows a level where one between could be missing. Where fewer levels than a row
    has are left within the known prices, ``wants_refresh`` asks for another snapshot; it is put under the changes that
    came since, so nothing is missed meanwhile, and rows are shorter until then. A crossed book is a gap.

    Around a gap a bucket can have two rows: the last state before it is written when the gap is noticed.

    Args:
        rule: the exchange's rule of which delta follows which.
        levels: how many levels of each side a row has.
        bucket_us: rows are the last state of each such span of exchange time in which one of the levels changed.
        max_buffered: how many deltas wait for a snapshot; beyond that the oldest go, and a later snapshot is needed.
        after_update_id: rows up to this update id are in the file already; what is missing after it is a gap.
        after_us: the exchange time of the last row in the file, where it is known.
        checksum: how to check the book against the checksums that its messages carry.
        snapshot_depth: levels of a side that a snapshot has at most; None where it has all.
        numbered: messages have ids; otherwise their times stand for ids, and a gap has no ids as its bounds.
    """

    def __init__(
        self,
        symbol: str,
        rule: BookRule,
        *,
        levels: int = BOOK_LEVELS,
        bucket_us: int = 100_000,
        max_buffered: int = 10_000,
        after_update_id: int | None = None,
        after_us: int | None = None,
        checksum: Checksum | None = None,
        snapshot_depth: int | None = None,
        numbered: bool = True,
    ) -> None:
        self.symbol = symbol
        self.book = Book()
        self.applied = 0
        """How many deltas were applied."""
        self.refreshes = 0
        """How often the market had moved so far that another snapshot was needed to know enough levels."""
        self._snapshot_depth = snapshot_depth
        # What was applied since a fresh snapshot was wanted; None where none is.
        self._since: deque[BookDelta] | None = None
        self._fresh: BookSnapshot | None = None
        self._max_buffered = max_buffered
        self._rule = rule
        self._levels = levels
        self._bucket_us = bucket_us
        self._checksum = checksum
        self._numbered = numbered
        self._depth: int | None = None
        self._waiting: deque[BookDelta] = deque(maxlen=max_buffered)
        self._max_ahead = max_buffered
        self._after_update_id = after_update_id
        # A snapshot is loaded; a delta has followed it.
        self._loaded = False
        self._in_step = False
        # The last delta that was applied before a hole, and why it opened; the hole is reported when the book is whole.
        self._last_id = after_update_id
        self._last_us = after_us
        self._after_us = after_us
        # The last delta whose bucket is closed: a crossed book takes back what came after it.
        self._closed_id = after_update_id
        self._closed_us = after_us
        self._cause: GapCause | None = None if after_update_id is None else "restart"
        self._detail = ""
        # The row of the bucket that is still open, as far as it is known: its bucket, time, update id and receipt.
        self._bucket: int | None = None
        self._row_us = 0
        self._row_id = 0
        self._row_received_us = 0
        self._row_top: tuple[list[Level], list[Level]] | None = None
        self._held: list[BookTop | Gap] = []
        # While two connections deliver the book: changes of the one that is ahead wait for the other to catch up.
        self._overlap: GapCause | None = None
        self.ahead: list[BookDelta] = []

    @property
    def needs_snapshot(self) -> bool:
        """Whether the book is not whole: at the start, after a gap, or because the last snapshot was too old."""
        return not self._loaded

    @property
    def wants_refresh(self) -> bool:
        """Whether the book is whole, but known to fewer levels than a row has: a fresh snapshot tells more."""
        return self._since is not None and self._fresh is None

    @property
    def waiting(self) -> int:
        """Return how many deltas wait for a snapshot: one that is asked for before the first is mostly too old."""
        return len(self._waiting)

    def on_delta(self, delta: BookDelta) -> list[BookTop | Gap]:
        """Take a change; return the rows and gaps that are certain now."""
        out = self._take_held()
        if self._loaded:
            self._step(delta, out)
        else:
            self._waiting.append(delta)
        return out

    def on_snapshot(self, snapshot: BookSnapshot) -> list[BookTop | Gap]:
        """Take a snapshot and the changes that waited for it.

        One that is older than those changes leaves ``needs_snapshot`` (or ``wants_refresh``) true; one that nobody
        waits for is ignored.
        """
        out = self._take_held()
        if self._loaded:
            if self._since is not None:
                self._fresh = snapshot
                self._refresh(self._since)
            return out
        self._load(snapshot)
        self._in_step = False
        while self._waiting and self._loaded:
            self._step(self._waiting.popleft(), out)
        return out

    def on_pushed_snapshot(self, snapshot: BookSnapshot) -> list[BookTop | Gap]:
        """Take a snapshot that came on the stream itself: whatever came before it is in it, or was replaced by it.

        With a time of its own it is the book of that time, as after a change; otherwise the first change gives one.
        """
        out = self._take_held()
        self._waiting.clear()
        if self._in_step and self._numbered and self._last_id not in (snapshot.last_id, snapshot.last_id - 1):
            self._close_bucket(out)
            self._drop("sequence", BEGAN_ANEW)
        timed = snapshot.timestamp_us > 0
        if timed:
            self._leave_bucket(snapshot.timestamp_us, out)
        self._load(snapshot)
        if not self._loaded or not timed:
            self._in_step = False
            return out
        if not self._in_step or self._cause is not None:
            self._in_step = True
            self._report_hole(snapshot.last_id - 1, snapshot.last_id, snapshot.timestamp_us, out)
        self._note_row(snapshot.timestamp_us, snapshot.last_id, snapshot.received_us)
        return out

    def on_disconnect(self, cause: GapCause = "disconnect", detail: str = "") -> None:
        """Drop the book: changes will be missing. The next delta starts a resync, and that reports the gap."""
        self._close_bucket(self._held)
        self._drop(cause, detail)
        self._waiting.clear()
        self.ahead.clear()

    def begin_overlap(self, cause: GapCause) -> None:
        """Note that two connections deliver the changes from now on, for this reason, each in its own order."""
        self._overlap = cause

    def end_overlap(self) -> list[BookTop | Gap]:
        """Take what is still ahead: nobody else will bring what is missing before it."""
        out = self._take_held()
        ahead, self.ahead = self.ahead, []
        for delta in ahead:
            verdict = self._rule.judge(delta) if self._loaded else ""
            if verdict == "apply":
                self._apply(delta, out)
            elif verdict == "gap":
                self._resync(delta, out, "", self._overlap or "sequence")
            elif not verdict:
                self._waiting.append(delta)
        self._overlap = None
        return out

    def finish(self) -> list[BookTop | Gap]:
        """Return what was held back, and the gap of a book that is not whole: the session stops."""
        out = self._take_held()
        self._close_bucket(out)
        cause, self._cause = self._cause, None
        if cause is not None and self._last_id is not None:
            out.append(self._gap(cause, None, self._last_id + 1 if self._numbered else None, None, self._detail))
        return out

    def _take_held(self) -> list[BookTop | Gap]:
        held, self._held = self._held, []
        return held

    def _step(self, delta: BookDelta, out: list[BookTop | Gap]) -> None:
        verdict = self._rule.judge(delta)
        if verdict == "apply":
            self._apply(delta, out)
            if self.ahead:
                self._catch_up(out)
        elif verdict == "gap":
            if self._overlap is not None and self._in_step and len(self.ahead) < self._max_ahead:
                self.ahead.append(delta)
            else:
                self._resync(delta, out, "")
        elif self._overlap is not None:
            return
        elif self._in_step and self._last_us is not None and delta.timestamp_us > self._last_us:
            # An old update id at a new time repeats nothing: the exchange counts from a lower number.
            self._resync(delta, out, IDS_WENT_BACK)

    def _catch_up(self, out: list[BookTop | Gap]) -> None:
        """Apply what waited for the change that has just been applied."""
        ahead, self.ahead = self.ahead, []
        for delta in ahead:
            verdict = self._rule.judge(delta) if self._loaded else "gap"
            if verdict == "apply":
                self._apply(delta, out)
            elif verdict == "gap":
                self.ahead.append(delta)

    def _refresh(self, since: Iterable[BookDelta]) -> None:
        """Put a fresh snapshot under the changes that came since it was wanted, once they have reached it.

        Then the book is that of the same moment, and known to more levels. A snapshot older than those changes is of
        no use, and another one is wanted.
        """
        snapshot, reached = self._fresh, self._rule.last_id
        if snapshot is None or reached is None or snapshot.last_id > reached:
            return
        self._fresh = None
        rule = copy(self._rule)
        rule.apply_snapshot(snapshot)
        book = Book()
        book.load(snapshot, most=self._snapshot_depth)
        for delta in since:
            verdict = rule.judge(delta)
            if verdict == "gap":
                return
            if verdict == "apply":
                book.apply(delta)
        if rule.last_id == reached and not book.crossed:
            self._rule, self.book, self._since = rule, book, None

    def _load(self, snapshot: BookSnapshot) -> None:
        self._rule.apply_snapshot(snapshot)
        self.book.load(snapshot, most=self._snapshot_depth)
        self._since = self._fresh = None
        self._depth = snapshot.depth
        self._loaded = True
        if not self._sound(snapshot.checksum, "a crossed snapshot"):
            self._in_step = False

    def _apply(self, delta: BookDelta, out: list[BookTop | Gap]) -> None:
        self._leave_bucket(delta.timestamp_us, out)
        self.book.apply(delta)
        if self._depth is not None:
            self.book.keep_best(self._depth)
        self.applied += 1
        if not self._sound(delta.checksum, "the book was crossed"):
            return
        if not self._in_step:
            self._in_step = True
            previous = delta.first_id - 1 if delta.previous_id is None else delta.previous_id
            self._report_hole(previous, delta.last_id, delta.timestamp_us, out)
        self._note_row(delta.timestamp_us, delta.last_id, delta.received_us)
        if self._snapshot_depth is not None:
            if self._since is not None:
                self._since.append(delta)
                if len(self._since) > self._max_buffered:
                    self._since.clear()  # no snapshot fits under what would be left: one for those to come is wanted
                    self._fresh = None
                self._refresh(self._since)
            elif not self.book.certain(self._levels):
                self._since = deque()
                self.refreshes += 1

    def _sound(self, checksum: int | None, crossed: str) -> bool:
        """Return whether the book can be the exchange's; one that can't is dropped, back to the last closed bucket."""
        cause: GapCause = "sequence"
        detail = crossed
        if not self.book.crossed:
            rule = self._checksum
            if checksum is None or rule is None or rule.of(*self.book.top(rule.levels)) == checksum:
                return True
            cause, detail = "checksum", ""
        self._bucket = None
        self._last_id, self._last_us = self._closed_id, self._closed_us
        self._drop(cause, detail)
        return False

    def _leave_bucket(self, timestamp_us: int, out: list[BookTop | Gap]) -> None:
        if self._bucket is not None and timestamp_us // self._bucket_us > self._bucket:
            self._close_bucket(out)

    def _note_row(self, timestamp_us: int, update_id: int, received_us: int) -> None:
        """Note the message that the row of the open bucket is of, as far as it is known."""
        self._last_id = update_id
        self._last_us = timestamp_us
        if self._bucket is None:
            self._bucket = timestamp_us // self._bucket_us
            self._row_us = timestamp_us
        elif self._row_top is not None:
            self._row_us = max(self._row_us, timestamp_us)
        self._row_id = update_id
        self._row_received_us = received_us

    def _resync(self, delta: BookDelta, out: list[BookTop | Gap], detail: str, cause: GapCause = "sequence") -> None:
        """Start over from the delta that did not fit: it and those after it wait for a new snapshot.

        Where no delta has followed the snapshot yet, the snapshot was too old, and nothing was lost by that.
        """
        self._close_bucket(out)
        self._drop(cause if self._in_step else None, detail)
        self._waiting.appendleft(delta)

    def _drop(self, cause: GapCause | None, detail: str) -> None:
        """Forget the book; a cause is kept from the first reason until the book is whole again."""
        self.book.clear()
        self._since = self._fresh = None
        self._loaded = False
        self._in_step = False
        if self._cause is None and self._last_id is not None:
            self._cause = cause
            self._detail = detail

    def _report_hole(self, last_missing: int, last_id: int, timestamp_us: int, out: list[BookTop | Gap]) -> None:
        """Report what was missed before the first message of a book that is whole again; nothing where nothing was.

        Args:
            last_missing: the id before that message; ``last_id`` and ``timestamp_us`` are its own.
        """
        cause, self._cause = self._cause, None
        detail, self._detail = self._detail, ""
        if cause is None or self._last_id is None:
            return
        if not self._numbered:
            if timestamp_us > (self._last_us or 0):
                out.append(self._gap(cause, timestamp_us, None, None, detail))
        elif last_missing > self._last_id:
            out.append(self._gap(cause, timestamp_us, self._last_id + 1, last_missing, detail))
        elif detail or (last_id <= self._last_id and timestamp_us > (self._last_us or timestamp_us)):
            # The ids went back: they bound nothing.
            out.append(self._gap(cause, timestamp_us, None, None, detail or IDS_WENT_BACK))

    def _gap(self, cause: GapCause, to_us: int | None, from_id: int | None, to_id: int | None, detail: str) -> Gap:
        return Gap(self.symbol, "orderbook", cause, self._last_us, to_us, from_id, to_id, detail=detail)

    def _close_bucket(self, out: list[BookTop | Gap]) -> None:
        """Emit the row of the open bucket where one of its levels differs from the last row's."""
        if self._bucket is None:
            return
        self._bucket = None
        self._closed_id, self._closed_us = self._last_id, self._last_us
        top = self.book.top(self._levels)
        if top == self._row_top:
            return
        self._row_top = top
        if self._recorded():
            return
        bids, asks = top
        out.append(BookTop(self.symbol, self._row_us, bids, asks, self._row_id, self._row_received_us))

    def _recorded(self) -> bool:
        """Whether the row is in the file already. An old update id at a later time is a renumbered exchange's."""
        if self._after_update_id is None or self._row_id > self._after_update_id:
            return False
        return self._after_us is None or self._row_us <= self._after_us


def _number(price: str) -> float:
    """Return a number that is greater for a greater price and equal only for an equal one."""
    if len(price) <= 15:
        return float(price)
    plain = price.rstrip("0").rstrip(".") if "." in price else price
    if len(plain) <= 15:
        return float(plain)
    # Decimals compare and hash with floats exactly.
    return cast("float", Decimal(plain))
