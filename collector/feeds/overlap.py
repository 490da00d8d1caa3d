"""Make-before-break: when to open a connection's successor, and when it may take over. No clock and no I/O.

While both connections of a link are open, every event passes an ``Overlap``. Nothing is counted twice and nothing falls
between: trades are told apart by their ids (contiguous ones by the number, others exactly by the text of the id), book
changes by their update ids, so that the book goes on from whichever connection is ahead. A book whose messages have no
ids stays with the old connection, and what the new one says of it is kept until the old one has gone. Everything else
(candles, tickers, funding, liquidations) is told apart by all that it says.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Sequence
from typing import Any, Literal

import msgspec

from collector.events import (
    Acknowledged,
    BookDelta,
    BookSnapshot,
    Event,
    Gap,
    GapCause,
    OffBookPrint,
    PastTrade,
    Rejected,
    ServerNotice,
    Trade,
)
from collector.feeds.tracks import BookTrack, Track, TradeTrack

Verdict = Literal["wait", "ready", "deaf"]
"""``deaf``: the new connection does not deliver what the old one does, so it must not replace it."""

_KEPT_MESSAGES = 10_000
_KEPT_EVENTS = 20_000
_SPANS = 400
_SETTLE_S = 5.0


class QuietMoment:
    """Choose when to open a successor: at a moment that is quiet for this connection, before a deadline.

    The messages of each span are counted from the first call on. Within the window, the moment has come when the last
    span had no more messages than a share of all spans, and that share grows from none to all with the window: early on
    only the quietest moment will do, at the end any.

    Args:
        begin_s, end_s: the window, on the clock of ``due``'s ``now_s``.
    """

    def __init__(self, begin_s: float, end_s: float) -> None:
        self._begin_s = begin_s
        self._end_s = max(begin_s, end_s)
        self._span_s = min(10.0, max(0.25, (self._end_s - begin_s) / 50))
        self._spans: deque[int] = deque(maxlen=_SPANS)
        self._since_s: float | None = None
        self._messages = 0

    def due(self, now_s: float, messages: int) -> bool:
        """Say whether now is the moment; ``messages`` counts all that the connection ever brought."""
        if self._since_s is None:
            self._since_s, self._messages = now_s, messages
        fresh = now_s - self._since_s >= self._span_s
        if fresh:
            self._spans.append(messages - self._messages)
            self._since_s, self._messages = now_s, messages
        if now_s >= self._end_s:
            return True
        if now_s < self._begin_s or not fresh:
            return False
        share = (now_s - self._begin_s) / (self._end_s - self._begin_s)
        limit = sorted(self._spans)[min(len(self._spans) - 1, int(share * len(self._spans)))]
        return self._spans[-1] <= limit


class _Seen:
    """What both connections said of one track since they were both open."""

    __slots__ = ("before_us", "joined", "kept", "new", "new_first_us", "old", "track")

    def __init__(self, track: Track) -> None:
        self.track = track
        self.old = 0
        self.new = 0
        self.joined = False
        self.before_us = track.last.timestamp_us if track.last is not None else None
        self.new_first_us: int | None = None
        # A book without ids: what the new connection said of it, from its last snapshot on.
        self.kept: list[BookSnapshot | BookDelta] = []


class Overlap:
    """Merge what two connections of the same subscriptions deliver, and say when the new one may go on alone."""

    def __init__(self, tracks: Sequence[Track], *, book_numbered: bool, cause: GapCause) -> None:
        self.acknowledged = False
        self.refused = ""
        self._numbered = book_numbered
        self._seen = {(track.stream, track.symbol): _Seen(track) for track in tracks}
        self._accepted: dict[Any, int] = {}
        self._said: tuple[Counter[Any], Counter[Any]] = (Counter(), Counter())
        for track in tracks:
            track.overlap(cause)

    def merge(self, events: Sequence[Event], *, newer: bool) -> list[Event]:
        """Return those of a connection's events that are to be taken now."""
        merged: list[Event] = []
        for event in events:
            if isinstance(event, Trade | PastTrade | OffBookPrint):
                self._note_trade(event.trade if isinstance(event, PastTrade) else event, newer=newer)
            elif isinstance(event, BookDelta | BookSnapshot):
                if not self._take_book(event, newer=newer):
                    continue
            elif isinstance(event, Acknowledged | Rejected | ServerNotice):
                if newer:
                    self._note_answer(event)
                    continue
            elif not self._is_new(event, newer=newer):
                continue
            merged.append(event)
        return merged

    def forget_old(self) -> None:
        """Count the old connection's events from now on: the new one has its subscriptions."""
        for seen in self._seen.values():
            seen.old = 0

    def verdict(self, waited_s: float, timeout_s: float, *, alive: bool) -> Verdict:
        """Say whether the new connection may go on alone.

        It may once it delivers every stream that the old one delivers, without a break between the two. A stream of
        which the old one says nothing is quiet: the acknowledgement and a sign of life (``alive``) stand for it.

        Args:
            waited_s: for how long the new connection has had its subscriptions.
            timeout_s: after how long one that lacks a stream of the old one is given up.
        """
        if self.refused:
            return "deaf"
        open_ones = [seen for seen in self._seen.values() if not self._is_joined(seen)]
        if not open_ones:
            return "ready"
        if waited_s >= min(_SETTLE_S, timeout_s / 3) and alive and not any(seen.old for seen in open_ones):
            return "ready"
        if waited_s < timeout_s:
            return "wait"
        return "deaf" if any(seen.old and not seen.new for seen in open_ones) or not alive else "ready"

    def lacking(self) -> list[Track]:
        """Return the tracks that the old connection delivers and the new one does not."""
        return [seen.track for seen in self._seen.values() if seen.old and not seen.new]

    def give_up(self) -> None:
        """Have the old connection go on alone."""
        for seen in self._seen.values():
            seen.track.overlap(None)

    def hand_over(self, *, ready: bool, cause: GapCause) -> list[Track]:
        """Have the new connection go on alone; return the tracks that may have missed something meanwhile.

        Args:
            ready: the verdict said so; otherwise the old connection ended before.
            cause: what the ledger is to say where something was missed.
        """
        interrupted = []
        for seen in self._seen.values():
            track = seen.track
            if isinstance(track, BookTrack):
                for event in seen.kept:
                    if isinstance(event, BookDelta):
                        track.take_delta(event)
                    else:
                        track.take_pushed_snapshot(event)
            if isinstance(track, TradeTrack) and not track.numbered and seen.new and not seen.joined:
                # The two have no trade in common, and no number says that none is missing between them.
                track.add_gap(Gap(track.symbol, track.stream, cause, seen.before_us, seen.new_first_us))
            track.overlap(None)
            if not ready and not seen.new:
                track.interrupt(cause)
                interrupted.append(track)
        return interrupted

    def _note_trade(self, trade: Trade | OffBookPrint, *, newer: bool) -> None:
        seen = self._seen.get(("prices", trade.symbol))
        if seen is None or not isinstance(seen.track, TradeTrack):
            return
        if newer:
            seen.new += 1
            seen.joined = seen.joined or seen.track.continuity.follows(trade.trade_id)
            if seen.new_first_us is None:
                seen.new_first_us = trade.timestamp_us
        else:
            seen.old += 1
            seen.joined = seen.joined or (seen.new > 0 and seen.track.continuity.knows(trade.trade_id))

    def _take_book(self, event: BookDelta | BookSnapshot, *, newer: bool) -> bool:
        seen = self._seen.get(("orderbook", event.symbol))
        if seen is None or not isinstance(seen.track, BookTrack):
            return True
        if not newer:
            seen.old += 1
            return True
        seen.new += 1
        if self._numbered:
            # A snapshot of the new connection is only needed where the book is not whole: the ids go on.
            return isinstance(event, BookDelta) or not seen.track.synchronised
        if isinstance(event, BookSnapshot):
            seen.kept = [event]
        elif seen.kept and len(seen.kept) < _KEPT_MESSAGES:
            seen.kept.append(event)
        elif seen.kept:
            self.refused = f"more than {_KEPT_MESSAGES} messages of {event.symbol}'s book had to wait"
        return False

    def _note_answer(self, event: Event) -> None:
        if isinstance(event, Acknowledged):
            self.acknowledged = True
        elif isinstance(event, Rejected):
            self.refused = f"{event.message} (code {event.code})"
        elif isinstance(event, ServerNotice) and event.kind == "shutdown":
            self.refused = "it is going to be closed, too"

    def _is_new(self, event: Any, *, newer: bool) -> bool:
        """Tell whether nobody has said this yet: the n-th time on one connection is the n-th on the other, too."""
        stream = _STREAMS.get(type(event).__name__, "")
        seen = self._seen.get((stream, event.symbol))
        if seen is not None:
            seen.new += newer
            seen.old += not newer
        said = self._said[newer]
        ours = {"received_us": 0}
        if getattr(event, "timed", True) is False:
            ours["timestamp_us"] = 0  # its time is that of its receipt
        key = msgspec.structs.astuple(msgspec.structs.replace(event, **ours))
        said[key] += 1
        if said[key] <= self._accepted.get(key, 0):
            return False
        self._accepted[key] = said[key]
        if len(self._accepted) > _KEPT_EVENTS:
            oldest = next(iter(self._accepted))
            del self._accepted[oldest]
            for counts in self._said:
                counts.pop(oldest, None)
        return True

    def _is_joined(self, seen: _Seen) -> bool:
        track = seen.track
        if isinstance(track, TradeTrack):
            return seen.joined
        if isinstance(track, BookTrack):
            if not self._numbered:
                return bool(seen.kept)
            return seen.new > 0 and track.synchronised and not track.sync.ahead
        return seen.new > 0


_STREAMS = {
    "Kline": "klines",
    "Funding": "funding",
    "OpenInterest": "open_interest",
    "Liquidation": "liquidations",
    "Ticker": "tickers",
}
"""Which stream an event is of, by its type's name."""
