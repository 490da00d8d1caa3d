"""What is known of each subscription: a track takes its events, passes them on, and notices what is missing.

Nothing here waits or reads a clock.
"""

from __future__ import annotations

import msgspec

from collector.events import BookDelta, BookSnapshot, BookTop, Gap, GapCause, GapState, Kline, OffBookPrint, Trade
from collector.exchanges.base import Exchange, Subscription
from collector.feeds.continuity import TradeContinuity
from collector.feeds.orderbook import BookSync
from collector.feeds.sink import ResumePoint, Sink
from collector.feeds.status import StreamStatus, TrackState
from collector.streams import BOOK_LEVELS

LATENCY_WEIGHT = 0.1
"""Of the newest sample in the mean latency; samples are taken at each tick, so the mean forgets in a few seconds."""


class Track:
    """One subscription: its counters, its last event, and whether it delivers at all.

    Args:
        recorded_us: exchange time of the last row that is recorded already.
        settle_s: how long after first data the holes that ids tell are all reported.
    """

    ledgered = True
    """Whether the stream is recorded, so that what it lacks is a row of the ledger."""
    unresolved: GapState = "unrecoverable"
    """What becomes of a gap that nothing more is known of: only trades can be asked for afterwards."""

    def __init__(
        self, subscription: Subscription, sink: Sink, *, recorded_us: int | None = None, settle_s: float = 0.0
    ) -> None:
        self.subscription = subscription
        self.symbol = subscription.symbol
        self.stream = subscription.stream
        self.sink = sink
        self.state: TrackState = "waiting"
        self.received = 0
        self.duplicates = 0
        self.gaps = 0
        self.last: Trade | BookDelta | BookSnapshot | Kline | None = None
        self.latency_us: int | None = None
        self.latency_mean_us: float | None = None
        self._sampled: object = None
        self._received_before = 0
        self._expected_since_s: float | None = None
        self._recorded_us = recorded_us
        # Why data stopped, until it comes again.
        self._lost: GapCause | None = None if recorded_us is None else "restart"
        # The gap that is open while nothing comes; where it ended, once something came; and when to enter that.
        self._silence: Gap | None = None
        self._resumed_us = 0
        self._settle_s = settle_s
        self._settled_s: float | None = None

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.symbol} {self.state} received={self.received}>"

    @property
    def delivers(self) -> bool:
        """Whether data came since the connection was opened."""
        return self.received > self._received_before

    @property
    def synchronised(self) -> bool | None:
        """Whether a local book is whole; None where there is no book."""
        return None

    def begin(self) -> None:
        """Note that a connection is about to be opened: whatever comes from now on is first data."""
        self._received_before = self.received
        self._expected_since_s = None
        if self.state == "live":
            self.state = "waiting"

    def expect(self, monotonic_s: float) -> None:
        """Note that the subscription was asked for: data is due from now on."""
        self._expected_since_s = monotonic_s

    def overdue(self, monotonic_s: float, timeout_s: float) -> bool:
        """Tell whether the first data did not come in time."""
        since = self._expected_since_s
        return self.state == "waiting" and not self.delivers and since is not None and monotonic_s - since >= timeout_s

    def call_silent(self, cause: GapCause, from_us: int, detail: str) -> None:
        """Open a gap that lasts until the first data; one that is open already goes on."""
        self.state = "rejected" if cause == "rejected" else "silent"
        if self._silence is None:
            self._open_silence(cause, from_us, detail)

    def call_lost(self) -> None:
        """Open the gap of a connection that does not come back: an outage is in the ledger while it lasts."""
        from_us = self.last.timestamp_us if self.last is not None else self._recorded_us
        if self._lost is not None and self._silence is None and from_us is not None:
            self._open_silence(self._lost, from_us, "not connected")

    def notice_data(self, monotonic_s: float) -> None:
        """Note the first event since subscribing: a gap that is open ends there, or where ids say so."""
        self.state = "live"
        self._lost = None
        if self._silence is not None and self.last is not None:
            self._resumed_us = self.last.timestamp_us
            self._settled_s = monotonic_s + self._settle_s

    def sample(self) -> int | None:
        """Measure latency at the newest event; return its exchange time where there was one since the last sample."""
        last = self.last
        if last is None or last is self._sampled:
            return None
        self._sampled = last
        self.latency_us = latency = last.received_us - last.timestamp_us
        mean = self.latency_mean_us
        self.latency_mean_us = float(latency) if mean is None else mean + LATENCY_WEIGHT * (latency - mean)
        return last.timestamp_us

    def add_gap(self, gap: Gap) -> None:
        """Count a gap and pass it on; where it is the open one, now with its end and its ids, that is over."""
        opened = self._silence
        if opened is not None and (gap.cause, gap.from_us) == (opened.cause, opened.from_us):
            self._silence = None
        else:
            self.gaps += 1
        self._pass_on(gap)

    def due(self, monotonic_s: float) -> None:
        """Report what has been missing for long enough."""
        if self._settled_s is not None and monotonic_s >= self._settled_s:
            self._settle()

    def interrupt(self, cause: GapCause) -> None:
        """Note that messages will be lost from now on, for this reason."""
        self._settle()
        self._lost = self._lost or cause

    def overlap(self, cause: GapCause | None) -> None:
        """Note that two connections deliver the subscription from now on, for this reason; None: one does again."""

    def finish(self, until_us: int) -> None:
        """Pass on what was held back, and report what is missing up to now: the feed stops."""
        self._settle()
        self.call_lost()
        self._close_silence(until_us, self.unresolved)

    def status(self, connection: int) -> StreamStatus:
        """Describe the track as it is now."""
        last = self.last
        return StreamStatus(
            symbol=self.symbol,
            stream=self.stream,
            connection=connection,
            state=self.state,
            received=self.received,
            duplicates=self.duplicates,
            gaps=self.gaps,
            last_event_us=last.timestamp_us if last is not None else None,
            last_received_us=last.received_us if last is not None else None,
            last_price=last.price if isinstance(last, Trade) else None,
            latency_us=self.latency_us,
            latency_mean_us=self.latency_mean_us,
            synchronised=self.synchronised,
        )

    def _open_silence(self, cause: GapCause, from_us: int, detail: str) -> None:
        gap = Gap(self.symbol, self.stream, cause, from_us, None, detail=detail)
        self.add_gap(gap)
        self._silence = gap

    def _close_silence(self, to_us: int, state: GapState) -> None:
        # The ledger knows the gap again by its symbol, stream, cause and begin.
        opened, self._silence = self._silence, None
        if opened is not None:
            self._pass_on(msgspec.structs.replace(opened, to_us=max(to_us, opened.from_us or 0), state=state))

    def _settle(self) -> None:
        if self._settled_s is not None:
            self._settled_s = None
            self._close_silence(self._resumed_us, self._state_after_silence())

    def _state_after_silence(self) -> GapState:
        return self.unresolved

    def _pass_on(self, gap: Gap) -> None:
        if self.ledgered:
            self.sink.add_gap(gap)


class TradeTrack(Track):
    """A symbol's trades. The connection's receiver calls ``accept`` and the sink itself: this path is the hot one."""

    unresolved = "open"

    def __init__(
        self, subscription: Subscription, sink: Sink, *, contiguous: bool, resume: ResumePoint, reorder_grace_s: float
    ) -> None:
        super().__init__(subscription, sink, recorded_us=resume.last_trade_us, settle_s=2 * reorder_grace_s)
        self._contiguous = contiguous
        # Whether an id from before the silence is known, so that ids tell what is missing.
        self._numbered = contiguous and resume.last_trade_id is not None
        self.continuity = TradeContinuity(
            self.symbol,
            contiguous=contiguous,
            last_id=resume.last_trade_id,
            last_us=resume.last_trade_us,
            holes=resume.holes,
            reorder_grace_s=reorder_grace_s,
        )
        self.accept = self.continuity.accept

    @property
    def numbered(self) -> bool:
        """Whether ids tell what is missing, and how many."""
        return self._contiguous

    def overlap(self, cause: GapCause | None) -> None:
        self.continuity.overlap = cause

    def take_past(self, trade: Trade) -> bool:
        """Judge a trade from before the subscription; return whether it fills a gap, so that it is to be recorded."""
        self.received += 1
        return self.continuity.accept_past(trade)

    def take_off_book(self, event: OffBookPrint) -> None:
        """Count the number of a print that is not recorded as seen."""
        self.received += 1
        self.continuity.skip(event.trade_id, event.timestamp_us)

    def blame(self, cause: GapCause) -> None:
        """Name the reason of the next hole, where there is one."""
        self.continuity.interrupted(cause)

    def due(self, monotonic_s: float) -> None:
        self._report(self.continuity.due(monotonic_s))
        super().due(monotonic_s)

    def interrupt(self, cause: GapCause) -> None:
        self._report(self.continuity.close())
        self.continuity.interrupted(cause)
        self._numbered = self._numbered or (self._contiguous and self.last is not None)
        super().interrupt(cause)

    def finish(self, until_us: int) -> None:
        self._report(self.continuity.close())
        super().finish(until_us)

    def _report(self, gaps: list[Gap]) -> None:
        for gap in gaps:
            self.add_gap(gap)

    def _state_after_silence(self) -> GapState:
        # Ids tell exactly what is missing, in rows of their own; without them this row is all that is known.
        return "repaired" if self._numbered else self.unresolved


class BookTrack(Track):
    """A symbol's order book.

    ``fetching``: somebody is asking for a snapshot. ``asked``: deltas wait for one on this connection.
    ``renewed_s``: when the stream was asked last to push a snapshot; ``renewed``: it has pushed one since;
    ``renewals``: how often it was asked on this connection, besides subscribing.
    """

    def __init__(
        self,
        subscription: Subscription,
        sink: Sink,
        *,
        exchange: Exchange,
        resume: ResumePoint,
        levels: int = BOOK_LEVELS,
    ) -> None:
        super().__init__(subscription, sink, recorded_us=resume.last_book_us)
        self.sync = BookSync(
            self.symbol,
            exchange.book_rule(),
            levels=levels,
            after_update_id=resume.last_update_id,
            after_us=resume.last_book_us,
            checksum=exchange.book_checksum,
            numbered=exchange.book_numbered,
        )
        self.renewed_s = float("-inf")
        self.renewed = False
        self.renewals = 0
        self.fetching = False
        self.asked = False

    @property
    def synchronised(self) -> bool:
        return not self.sync.needs_snapshot

    def take_delta(self, delta: BookDelta) -> None:
        """Apply a change, or keep it until the snapshot has come."""
        self.received += 1
        self.last = delta
        self._emit(self.sync.on_delta(delta))
        self.sink.observe(self.symbol, delta.timestamp_us)
        self.asked = self.sync.needs_snapshot

    def take_snapshot(self, snapshot: BookSnapshot) -> bool:
        """Apply a snapshot; return whether the book is whole now, and not still older than the changes that wait."""
        self._emit(self.sync.on_snapshot(snapshot))
        self.asked = self.sync.needs_snapshot
        return not self.asked

    def take_pushed_snapshot(self, snapshot: BookSnapshot) -> None:
        """Apply a snapshot that came on the stream itself."""
        self.received += 1
        self._emit(self.sync.on_pushed_snapshot(snapshot))
        self.asked = self.sync.needs_snapshot
        self.renewed = True
        if snapshot.timestamp_us:
            self.last = snapshot
            self.sink.observe(self.symbol, snapshot.timestamp_us)

    def overlap(self, cause: GapCause | None) -> None:
        if cause is not None:
            self.sync.begin_overlap(cause)
        else:
            self._emit(self.sync.end_overlap())
            self.asked = self.sync.needs_snapshot and (self.asked or self.sync.waiting > 0)

    def due(self, monotonic_s: float) -> None:
        # The hole is reported, with its ids, when the book is whole again.
        if self.synchronised:
            super().due(monotonic_s)

    def interrupt(self, cause: GapCause) -> None:
        self.asked = False
        self.sync.on_disconnect(cause)
        super().interrupt(cause)

    def finish(self, until_us: int) -> None:
        self._emit(self.sync.finish())
        super().finish(until_us)

    def _emit(self, rows: list[BookTop | Gap]) -> None:
        for row in rows:
            if type(row) is BookTop:
                self.sink.add_book(row)
            elif type(row) is Gap:
                self.add_gap(row)


class KlineTrack(Track):
    """A symbol's candles as the exchange makes them: ours are compared with them, and they are no file of a session."""

    ledgered = False

    def __init__(self, subscription: Subscription, sink: Sink, *, say_closed: bool = True) -> None:
        super().__init__(subscription, sink)
        self._say_closed = say_closed
        self._open: Kline | None = None

    def take(self, kline: Kline) -> None:
        """Pass a candle on; where the exchange never calls one closed, it is once a later one has begun."""
        self.received += 1
        self.last = kline
        if not self._say_closed:
            before, self._open = self._open, kline
            if before is not None and before.start_us < kline.start_us:
                self.sink.add_kline(msgspec.structs.replace(before, closed=True))
        self.sink.add_kline(kline)
        self.sink.observe(self.symbol, kline.timestamp_us)


def create_track(
    subscription: Subscription,
    sink: Sink,
    exchange: Exchange,
    resume: ResumePoint,
    *,
    reorder_grace_s: float,
    book_levels: int = BOOK_LEVELS,
) -> TradeTrack | BookTrack | KlineTrack:
    """Return the track for a subscription's stream."""
    if subscription.stream == "prices":
        return TradeTrack(
            subscription,
            sink,
            contiguous=exchange.trade_ids_contiguous,
            resume=resume,
            reorder_grace_s=reorder_grace_s,
        )
    if subscription.stream == "orderbook":
        return BookTrack(subscription, sink, exchange=exchange, resume=resume, levels=book_levels)
    return KlineTrack(subscription, sink, say_closed=exchange.klines_say_closed)
