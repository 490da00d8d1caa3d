"""What is known of each subscription: a track takes its events, passes them on, and notices what is missing.

Nothing here waits or reads a clock.
"""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from collector.events import (
    BookDelta,
    BookSnapshot,
    BookTop,
    Gap,
    GapCause,
    GapState,
    Kline,
    MarketEvent,
    OffBookPrint,
    Ticker,
    Trade,
)
from collector.exchanges.base import Exchange, Subscription
from collector.exchanges.ccxt import Ccxt
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
    quiet = False
    """Whether silence says nothing: the stream only speaks when something happens."""
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
        self.last: Trade | BookDelta | BookSnapshot | Kline | MarketEvent | None = None
        self.latency_us: int | None = None
        self.latency_mean_us: float | None = None
        self._sampled: object = None
        self._received_before = 0
        self.expected_since_s: float | None = None
        """When the subscription was last asked for, on a clock that never steps."""
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

    @property
    def refreshes(self) -> int:
        """How often a book needed another snapshot to be known deep enough; 0 where there is no book."""
        return 0

    def begin(self) -> None:
        """Note that a connection is about to be opened: whatever comes from now on is first data."""
        self._received_before = self.received
        self.expected_since_s = None
        if self.state == "live":
            self.state = "waiting"

    def expect(self, monotonic_s: float) -> None:
        """Note that the subscription was asked for: data is due from now on."""
        self.expected_since_s = monotonic_s

    def miss(self, cause: GapCause, from_us: int, detail: str, monotonic_s: float) -> None:
        """Open the gap of a subscription that is deaf, and expect its first data anew."""
        if self.last is not None or self._recorded_us is not None:
            self.interrupt(cause)
        self.begin()
        self.expect(monotonic_s)
        self.call_silent(cause, from_us, detail)

    def overdue(self, monotonic_s: float, timeout_s: float) -> bool:
        """Tell whether the first data did not come in time."""
        since = self.expected_since_s
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
            refreshes=self.refreshes,
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
        exchange: Exchange | Ccxt,
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
            snapshot_depth=exchange.snapshot_depth,
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

    @property
    def refreshes(self) -> int:
        return self.sync.refreshes

    def take_delta(self, delta: BookDelta) -> None:
        """Apply a change, or keep it until the snapshot has come."""
        self.received += 1
        self.last = delta
        self._emit(self.sync.on_delta(delta))
        self.sink.observe(self.symbol, delta.timestamp_us)
        self.asked = self.sync.needs_snapshot or self.sync.wants_refresh

    def take_snapshot(self, snapshot: BookSnapshot) -> bool:
        """Apply a snapshot; return whether the book is whole now, and not still older than the changes that wait."""
        self._emit(self.sync.on_snapshot(snapshot))
        self.asked = self.sync.needs_snapshot or self.sync.wants_refresh
        return not self.asked

    def take_pushed_snapshot(self, snapshot: BookSnapshot) -> None:
        """Apply a snapshot that came on the stream itself."""
        self.received += 1
        self._emit(self.sync.on_pushed_snapshot(snapshot))
        self.asked = self.sync.needs_snapshot or self.sync.wants_refresh
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
    """A symbol's candles of a minute as the exchange makes them: ours are compared with them.

    Args:
        recorded: they are a file of the session too, so that what it lacks is a gap.
    """

    def __init__(
        self,
        subscription: Subscription,
        sink: Sink,
        *,
        say_closed: bool = True,
        recorded: bool = False,
        recorded_us: int | None = None,
    ) -> None:
        super().__init__(subscription, sink, recorded_us=recorded_us if recorded else None)
        self.ledgered = recorded
        self._say_closed = say_closed
        self._open: Kline | None = None
        # Which candle must come first once data comes again, and why it might be missing.
        self._due_us: int | None = None if recorded_us is None else recorded_us + _MINUTE_US
        self._broken: GapCause | None = self._lost

    def take(self, kline: Kline) -> None:
        """Pass a candle on; where the exchange never calls one closed, it is once a later one has begun."""
        self.received += 1
        self.last = kline
        if self._broken is not None:
            self._report(self._broken, kline.start_us)
        if not self._say_closed:
            before, self._open = self._open, kline
            if before is not None and before.start_us < kline.start_us:
                self.sink.add_kline(msgspec.structs.replace(before, closed=True))
        self._due_us = kline.start_us + (_MINUTE_US if kline.closed else 0)
        self.sink.add_kline(kline)
        self.sink.observe(self.symbol, kline.timestamp_us)

    def interrupt(self, cause: GapCause) -> None:
        if self._due_us is not None:
            self._broken = self._broken or cause
            # Where no exchange says that a candle is final, the one that was open is lost with what closes it.
            self._open = None
        super().interrupt(cause)

    def overdue(self, monotonic_s: float, timeout_s: float) -> bool:
        # Without a trade there may be no candle either.
        return super().overdue(monotonic_s, max(timeout_s, _PATIENCE_S) if self.ledgered else timeout_s)

    def call_lost(self) -> None:
        """Wait with the ledger: an outage within one minute costs no candle."""

    def finish(self, until_us: int) -> None:
        if self._broken is not None:
            self._report(self._broken, until_us // _MINUTE_US * _MINUTE_US)
        super().finish(until_us)

    def _report(self, cause: GapCause, start_us: int) -> None:
        """Name the candles that began and ended while nothing came; one that is still open is pushed again."""
        due_us, self._broken = self._due_us, None
        if due_us is not None and start_us > due_us:
            missing = (start_us - due_us) // _MINUTE_US
            detail = "the times are the starts of the missing candles"
            self.add_gap(
                Gap(
                    self.symbol,
                    self.stream,
                    cause,
                    due_us,
                    start_us - _MINUTE_US,
                    expected_rows=missing,
                    state=self.unresolved,
                    detail=detail,
                )
            )


class MarketTrack(Track):
    """Another data type of a symbol: funding, open interest, liquidations, best bid and ask.

    Nothing numbers their rows, so that every interruption is a hole with bounds in time: the last event before it and
    the first after. Where the stream is a quiet one, they are what was last heard on the connection, and when
    it was subscribed to again.

    Args:
        quiet: silence says nothing.
        now_us: estimates the exchange's clock.
        heard_us: tells the newest exchange time that the connection has brought; None where nothing was timed.
    """

    def __init__(
        self,
        subscription: Subscription,
        sink: Sink,
        *,
        quiet: bool = False,
        resume: ResumePoint | None = None,
        now_us: Callable[[], int],
        heard_us: Callable[[Track], int | None] = lambda _track: None,
    ) -> None:
        resume = resume or ResumePoint()
        recorded_us = resume.last_event_us if quiet else resume.last_other_us.get(subscription.stream)
        super().__init__(subscription, sink, recorded_us=recorded_us)
        self.quiet = quiet
        self._now_us = now_us
        self._heard_us = heard_us
        self._broken: tuple[GapCause, int] | None = None if recorded_us is None else ("restart", recorded_us)
        self._subscribed_us: int | None = None

    def take(self, event: MarketEvent) -> None:
        """Pass an event on; what an answer of REST repeats is none."""
        self.received += 1
        last = self.last
        if event.source == "rest" and last is not None and _same(last, event):
            self.duplicates += 1
            return
        if self._broken is not None:
            self._report(event.timestamp_us)
        self.last = event
        self.sink.add_event(self.stream, event)

    def sample(self) -> int | None:
        last = self.last
        if type(last) is Ticker and not last.timed:
            return None  # its time is our own clock's
        return super().sample()

    def begin(self) -> None:
        super().begin()
        self._subscribed_us = None

    def expect(self, monotonic_s: float) -> None:
        super().expect(monotonic_s)
        self._subscribed_us = self._now_us()

    def overdue(self, monotonic_s: float, timeout_s: float) -> bool:
        return not self.quiet and super().overdue(monotonic_s, timeout_s)

    def due(self, monotonic_s: float) -> None:
        since_s = self.expected_since_s
        if self.quiet and self.state == "waiting" and since_s is not None and monotonic_s - since_s >= _ACCEPTED_S:
            # It was not refused: whatever happens from now on will be told.
            self.state = "live"
            self._lost = None
            if self._broken is not None:
                self._report(self._now_us())
        super().due(monotonic_s)

    def call_lost(self) -> None:
        if self._broken is not None and self._lost is not None and self._silence is None:
            self._open_silence(self._lost, self._broken[1], "not connected")

    def interrupt(self, cause: GapCause) -> None:
        if self._broken is None:
            from_us = self._last_known_us()
            if from_us is not None:
                self._broken = (cause, from_us)
        super().interrupt(cause)

    def _last_known_us(self) -> int | None:
        """Return until when the stream is known to be whole; None where it never was."""
        last_us = self.last.timestamp_us if self.last is not None else None
        if not self.quiet:
            return last_us
        known = [at_us for at_us in (last_us, self._heard_us(self), self._subscribed_us) if at_us is not None]
        return max(known, default=None)

    def _report(self, until_us: int) -> None:
        if self._broken is None:
            return
        (cause, from_us), self._broken = self._broken, None
        self.add_gap(Gap(self.symbol, self.stream, cause, from_us, max(from_us, until_us), state=self.unresolved))


_MINUTE_US = 60_000_000
"""The length of the candles that are subscribed to."""

_PATIENCE_S = 120.0
"""How long a first candle may take before that is a gap."""

_ACCEPTED_S = 2.0
"""After how long without a refusal a subscription counts as accepted."""


def _same(first: object, second: MarketEvent) -> bool:
    """Say whether two events say the same, whenever they came."""
    return type(first) is type(second) and msgspec.structs.replace(second, received_us=first.received_us) == first


def create_track(
    subscription: Subscription,
    sink: Sink,
    exchange: Exchange,
    resume: ResumePoint,
    *,
    reorder_grace_s: float,
    book_levels: int = BOOK_LEVELS,
    now_us: Callable[[], int] = lambda: 0,
    heard_us: Callable[[Track], int | None] = lambda _track: None,
    records_klines: bool = False,
) -> TradeTrack | BookTrack | KlineTrack | MarketTrack:
    """Return the track for a subscription's stream."""
    stream = subscription.stream
    if stream == "prices":
        return TradeTrack(
            subscription,
            sink,
            contiguous=exchange.trade_ids_contiguous,
            resume=resume,
            reorder_grace_s=reorder_grace_s,
        )
    if stream == "orderbook":
        return BookTrack(subscription, sink, exchange=exchange, resume=resume, levels=book_levels)
    if stream == "klines":
        return KlineTrack(
            subscription,
            sink,
            say_closed=exchange.klines_say_closed,
            recorded=records_klines,
            recorded_us=resume.last_other_us.get(stream),
        )
    return MarketTrack(
        subscription,
        sink,
        quiet=stream in exchange.quiet_streams,
        resume=resume,
        now_us=now_us,
        heard_us=heard_us,
    )
