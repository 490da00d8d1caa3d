"""A link: the place of one websocket connection in a feed. Connections fill it one by one; it outlives them."""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Coroutine, Iterable, Sequence
from contextlib import nullcontext, suppress

from aiolimiter import AsyncLimiter
from structlog.typing import FilteringBoundLogger

from collector import config
from collector.clock import Clock
from collector.errors import CollectorError, ConnectionLost
from collector.events import GapCause
from collector.exchanges.base import ConnectionPlan, Exchange, Subscription
from collector.feeds.allowance import Allowance
from collector.feeds.backoff import Backoff, Verdict, judge, rotation_s, stall_limit_s, stay_away_s
from collector.feeds.connection import Connection, Ending, Receiver, open_connection
from collector.feeds.overlap import Overlap, QuietMoment
from collector.feeds.silence import WATCHED, Finding, SilenceModel, activity_of
from collector.feeds.sink import Recorder
from collector.feeds.status import ConnectionStatus, LinkState
from collector.feeds.tracks import BookTrack, Track

END_OF_RECORDING = "end of recording"
"""The close reason (with code 1000) by which a replay server says that nothing more will come."""

_TOO_BIG = 1009
"""The code with which a connection is closed whose message is longer than ``feed.max_message_bytes`` (RFC 6455)."""

_TICK_S = 0.25
_FIRST_TICK_S = 0.02
_RENEWAL_PAUSE_S = 1.0
"""How long a book that was pushed whole is not asked for again: one that breaks at once would otherwise earn a ban."""

_TOO_LATE_S = 0.03
"""The share of a connection's life before its end in which its successor has to be ready."""

_WATCH_S = 1.0
"""How often the streams' silence is looked at."""
_PROBES = 2
"""How many silent streams of a connection are checked at the same time."""
_UNKNOWN_CHECKS = 2
"""After how many checks that could not tell a subscription that never delivered is called silent all the same."""

_PLANNED: frozenset[GapCause] = frozenset({"rotation", "exchange_maintenance"})
"""Causes that say nothing against the next connection: it is opened at once."""


class Gate:
    """What every link of a feed passes before it connects: the exchange's limit, its ban, and whether to go on at all.

    Args:
        allowance: the limit of connection attempts and the ban, shared by all feeds of an exchange.
    """

    def __init__(self, allowance: Allowance) -> None:
        self.stopping = asyncio.Event()
        self.allowance = allowance

    @property
    def banned_s(self) -> float:
        """For how many more seconds the exchange wants no connection."""
        return self.allowance.connect_ban.remaining_s

    def ban(self, seconds: float) -> None:
        """Keep all links away for so long."""
        self.allowance.connect_ban.extend(seconds)

    async def wait(self, seconds: float) -> None:
        """Return after so long, and after a ban, or as soon as the feed stops."""
        while not self.stopping.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(max(seconds, self.banned_s)):
                    await self.stopping.wait()
            seconds = 0.0
            if self.banned_s <= 0:
                return

    async def enter(self) -> bool:
        """Wait for a turn to connect; return False where the feed stops."""
        await self.wait(0.0)
        # Looked at in turns, because waiting for the limiter itself could not be ended by a stop.
        while not self.stopping.is_set() and not self.allowance.connects.has_capacity():
            await self.wait(_TICK_S)
        if self.stopping.is_set():
            return False
        await self.allowance.connects.acquire()
        return True


class Line:
    """One websocket connection of a link, from its opening to its end.

    ``overlap`` is set while another one delivers the same; ``newer`` says that this is the successor. ``begun`` holds
    the symbols whose first trades have come.
    """

    __slots__ = (
        "asked", "begun", "bytes", "connection", "last_frame_s", "messages", "messages_seen", "newer", "number",
        "opened_s", "overlap", "pace", "pinged_s", "settled", "subscribed_s",
    )  # fmt: skip

    def __init__(self, number: int, pace: AsyncLimiter, *, newer: bool = False) -> None:
        self.number = number
        self.pace = pace
        self.newer = newer
        self.messages = 0
        self.bytes = 0
        self.begun: set[str] = set()
        self.asked: frozenset[Track] = frozenset()
        self.overlap: Overlap | None = None
        self.connection: Connection | None = None
        self.opened_s = 0.0
        self.subscribed_s: float | None = None
        self.pinged_s = 0.0
        self.messages_seen = 0
        self.last_frame_s: float | None = None
        self.settled = asyncio.Event()

    @property
    def slowed(self) -> int:
        """How often reading paused because too many rows waited."""
        return self.connection.slowed if self.connection is not None else 0

    @property
    def open_connection(self) -> Connection:
        """The connection; only asked for once there is one."""
        if self.connection is None:
            raise CollectorError("The connection is not open yet.")
        return self.connection


class Link:
    """Keep one connection of a plan up, whatever happens, and know how it does.

    Args:
        number: names the connection in logs, recordings and statuses.
        url: where to connect, as it is shown.
        find_address: tells the address with whatever token it takes; None where ``url`` is all.
        probe: asks the exchange whether a silent stream misses something; None: nobody can tell.
        next_number: names a successor, which is open together with the connection that it replaces.
        tracks: the subscriptions that the connection carries.
        exchange_now_us: estimates the exchange's clock.
        observed: is told of a track's newest exchange time at each tick.
        snapshot_pace: the limit of snapshots, shared by all books of a feed; None where nothing is limited.
    """

    def __init__(
        self,
        number: int,
        url: str,
        plan: ConnectionPlan,
        tracks: Sequence[Track],
        *,
        exchange: Exchange,
        settings: config.Feed,
        clock: Clock,
        log: FilteringBoundLogger,
        gate: Gate,
        exchange_now_us: Callable[[], int],
        observed: Callable[[Track, int], None],
        raw_trades: bool,
        recorder: Recorder | None,
        random: Callable[[], float],
        snapshot_pace: AsyncLimiter | None = None,
        find_address: Callable[[], Awaitable[str]] | None = None,
        next_number: Callable[[], int] = lambda: 0,
        probe: Callable[[Track], Awaitable[Finding]] | None = None,
    ) -> None:
        self.number = number
        self.url = url
        self.plan = plan
        self.tracks: Sequence[Track] = tuple(tracks)
        self.retired = False
        """It has no subscription any more, and is not to be opened again."""
        self.malformed = 0
        self.oversized = 0
        self.finished = False
        self.asking: Track | None = None
        self._exchange = exchange
        self._settings = settings
        self._clock = clock
        self._log = log.bind(connection=number)
        self._gate = gate
        self._exchange_now_us = exchange_now_us
        self._observed = observed
        self._raw_trades = raw_trades
        self._recorder = recorder
        self._random = random
        self._backoff = Backoff(initial_s=settings.backoff_initial_s, cap_s=settings.backoff_cap_s, random=random)
        self._receiver: Callable[[Line], Receiver] | None = None
        self._next_number = next_number
        self._lines: list[Line] = []
        self._earlier_messages = 0
        self._earlier_bytes = 0
        self._quiet: QuietMoment | None = None
        self._successor: Line | None = None
        self._raising: asyncio.Task[None] | None = None
        self._errands: asyncio.TaskGroup | None = None
        self._raise_at_s = float("-inf")
        self._replace_because: GapCause | None = None
        self._replaced: list[asyncio.Future[bool]] = []
        self._ready = False
        self._rotations = 0
        self._earlier_slowed = 0
        self._probe = probe
        self._probes: dict[Track | None, asyncio.Task[None]] = {}
        self._models: dict[Track, SilenceModel] = {}
        self._model(tracks)
        self._ended_subscriptions: list[Subscription] = []
        self._watched_at_s = 0.0
        self._quiet_until_s = 0.0
        self._resubscribed: set[Track] = set()
        self._unsubscribe_first: set[Track] = set()
        self._wake = asyncio.Event()
        self._opening: asyncio.Timeout | None = None
        self._refused: deque[Track] = deque()
        self._snapshot_pace = snapshot_pace
        self._find_address = find_address
        self._renewals: deque[BookTrack] = deque()
        self._impatient: set[BookTrack] = set()
        self._asked_s = 0.0
        self._state: LinkState = "waiting"
        self._since_us = clock.now_us()
        self._connections = 0
        self._failures = 0
        self._fruitless = 0
        self._last_error = ""
        self._cause: GapCause | None = None
        self._planned_s = float("-inf")
        self._lost_s: float | None = None
        self._opened_s = 0.0
        self._messages_before = 0
        self._last_frame_s: float | None = None

    def __repr__(self) -> str:
        return f"<Link {self.number} {self._state} {self.url} messages={self.messages}>"

    @property
    def messages(self) -> int:
        """How many messages all its connections brought."""
        return self._earlier_messages + sum(line.messages for line in self._lines)

    @property
    def bytes(self) -> int:
        """How many bytes these were."""
        return self._earlier_bytes + sum(line.bytes for line in self._lines)

    @property
    def delivers(self) -> bool:
        """Whether the present connection has brought an event of any subscription."""
        return any(track.delivers for track in self.tracks)

    def leave(self, cause: GapCause) -> None:
        """Have the connection closed and another one opened, for this reason."""
        self._cause = self._cause or cause
        self._wake.set()

    def replace(self, cause: GapCause) -> None:
        """Have the connection replaced without a gap, at once: a second one is opened first.

        Args:
            cause: what the ledger says where something is missed nevertheless.
        """
        self._replace_because = self._replace_because or cause
        self._raise_at_s = float("-inf")
        self._wake.set()

    async def replaced(self) -> bool:
        """Have the connection replaced without a gap; return whether it was, once it was or has failed."""
        if self._state != "open":
            # It is being opened anyhow, at the address that is the right one now.
            return True
        result: asyncio.Future[bool] = asyncio.get_running_loop().create_future()
        self._replaced.append(result)
        self.replace("rotation")
        return await result

    def move(self, url: str) -> None:
        """Open the next connections at another address, as it is shown."""
        self.url = url
        self._find_address = None

    def add(self, tracks: Sequence[Track], plan: ConnectionPlan) -> None:
        """Carry more subscriptions: they are asked for one by one, and the others are not disturbed.

        Args:
            plan: of all subscriptions, for the next connection.
        """
        self.tracks = (*self.tracks, *tracks)
        self.plan = plan
        self._model(tracks)
        for track in tracks:
            track.begin()
        if self._state == "open":
            self.ask_singly(tracks)

    def drop(self, tracks: Collection[Track], plan: ConnectionPlan | None) -> None:
        """Carry some subscriptions no more: they are ended, and what still comes of them is ignored.

        Args:
            plan: of those that are left, for the next connection; None where none is, and it is closed for good.
        """
        self.tracks = tuple(track for track in self.tracks if track not in tracks)
        for track in tracks:
            self._models.pop(track, None)
            self._resubscribed.discard(track)
            self._unsubscribe_first.discard(track)
            if isinstance(track, BookTrack):
                self._impatient.discard(track)
        self._refused = deque(track for track in self._refused if track not in tracks)
        self._renewals = deque(book for book in self._renewals if book not in tracks)
        if plan is None:
            self.retired = True
            self.stop()
            return
        self.plan = plan
        self._ended_subscriptions += [track.subscription for track in tracks]
        self._wake.set()

    def _model(self, tracks: Sequence[Track]) -> None:
        if self._probe is not None:
            for track in tracks:
                if track.stream in WATCHED or track.stream in self._exchange.steady_streams:
                    self._models[track] = SilenceModel(floor_s=self._settings.first_data_timeout_s)

    def wake(self) -> None:
        """Have the link look at its state now, and not at its next tick."""
        self._wake.set()

    def stop(self) -> None:
        """Have the link see that the feed stops, also while it waits for a server's handshake."""
        self._wake.set()
        if self._opening is not None:
            self._opening.reschedule(0)

    def ask_singly(self, tracks: Iterable[Track]) -> None:
        """Have subscriptions that were refused together asked for one by one, so that a bad one costs only itself."""
        self._refused.extend(tracks)
        self._wake.set()

    def renew(self, book: BookTrack) -> None:
        """Have a book pushed whole again by the stream itself, unless it was asked for a moment ago."""
        patience_s = self._settings.snapshot_timeout_s
        if book.renewed:
            patience_s = _RENEWAL_PAUSE_S if book.renewals else 0.0
        now_s = self._clock.monotonic_s()
        if now_s - book.renewed_s < patience_s:
            self._impatient.add(book)
            return
        self._impatient.discard(book)
        if not book.asked:
            return
        book.renewed_s, book.renewed = now_s, False
        book.renewals += 1
        self._renewals.append(book)
        self._wake.set()

    def answered(self) -> None:
        """Note that the exchange accepted or refused what was asked for last."""
        self.asking = None
        self._wake.set()

    async def keep(self, receiver: Callable[[Line], Receiver]) -> None:
        """Open connections one after the other until the feed stops, or a replay ends.

        Args:
            receiver: makes the functions that a connection calls.
        """
        self._receiver = receiver
        async with asyncio.TaskGroup() as self._errands:
            try:
                while not self.retired and await self._gate.enter():
                    delay_s = await self._attempt()
                    if self.finished or self.retired or self._gate.stopping.is_set():
                        break
                    self._enter("waiting")
                    await self._gate.wait(delay_s)
            finally:
                self._answer_replaced(False)
        self._enter("closed")

    def status(self) -> ConnectionStatus:
        """Describe the connection as it is now."""
        last_s = self._last_frame_s
        return ConnectionStatus(
            number=self.number,
            url=self.url,
            state=self._state,
            since_us=self._since_us,
            reconnects=max(0, self._connections - 1),
            rotations=self._rotations,
            messages=self.messages,
            bytes=self.bytes,
            malformed=self.malformed,
            last_frame_age_s=None if last_s is None else self._clock.monotonic_s() - last_s,
            last_error=self._last_error,
            oversized=self.oversized,
            slowed=self._earlier_slowed + sum(line.slowed for line in self._lines),
        )

    def look_at_tracks(self) -> None:
        """Report holes, silent subscriptions, exchange times and latencies, as of now."""
        now_s = self._clock.monotonic_s()
        for line in self._lines:
            if line.messages != line.messages_seen:
                line.messages_seen = line.messages
                line.last_frame_s = self._last_frame_s = now_s
        for track in self.tracks:
            track.due(now_s)
            newest_us = track.sample()
            if newest_us is not None:
                self._observed(track, newest_us)
            if track.state != "live":
                self._look_for_first_data(track, now_s)
        if now_s - self._watched_at_s >= min(_WATCH_S, self._settings.first_data_timeout_s / 4):
            self._watched_at_s = now_s
            self._watch(now_s)

    def _look_for_a_reason_to_leave(self, line: Line) -> None:
        """Have the connection left where it is deaf: nothing comes, and the exchange does not say that nothing is."""
        now_s = self._clock.monotonic_s()
        limit_s = stall_limit_s(self._settings.stall_timeout_s, self._fruitless)
        if all(track.quiet for track in self.tracks):
            limit_s = float("inf")  # nothing need come; pings tell whether the connection is alive
        if now_s - max(line.opened_s, line.last_frame_s or 0.0) < limit_s or now_s < self._quiet_until_s:
            return
        if self._probe is None or not self._models:
            self._leave_deaf(limit_s)
        elif None not in self._probes:
            busiest = max(self._models, key=lambda track: track.received)
            self._start_probe(None, self._judge_connection(busiest, limit_s))

    def _leave_deaf(self, silent_s: float) -> None:
        self._log.warning("feed.connection_stalled", silent_s=silent_s)
        for track in self.tracks:
            if track.state == "waiting" and not track.delivers and track.expected_since_s is not None:
                self._call_silent(track, "unknown")
        self.leave("stall")

    async def _judge_connection(self, track: Track, silent_s: float) -> None:
        messages = self.messages
        verdict = await self._ask(track)
        if self.messages != messages:
            return
        if verdict == "quiet":
            self._quiet_until_s = self._clock.monotonic_s() + silent_s
        else:
            self._leave_deaf(silent_s)

    # Silence of single streams

    def _watch(self, now_s: float) -> None:
        """Learn what each stream brings, and have those checked that are silent for too long."""
        for track, model in self._models.items():
            model.note(now_s, track.received)
            if track in self._resubscribed and track.delivers:
                self._resubscribed.discard(track)
        if self._state != "open" or self._successor is not None or self._raising is not None:
            return
        if now_s - max(self._opened_s, self._last_frame_s or 0.0) >= self._settings.stall_timeout_s:
            return  # the whole connection is silent: that is looked at by itself
        activity: float | None = None
        for track, model in self._models.items():
            if track.state == "rejected" or track.expected_since_s is None or track in self._probes:
                continue
            if len(self._probes) >= _PROBES or not model.suspicious(now_s):
                continue
            if activity is None:
                activity = activity_of(model for model in self._models.values() if not model.suspicious(now_s))
            if model.suspicious(now_s, activity):
                self._start_probe(track, self._judge_stream(track, model))

    def _call_silent(self, track: Track, finding: Finding) -> None:
        """Enter that a stream is deaf: from its last event on, or from its subscription where there was none."""
        now_s = self._clock.monotonic_s()
        spoke = track.delivers and track.last is not None
        silent_s = now_s - (track.expected_since_s or now_s)
        from_us = self._exchange_now_us() - round(silent_s * 1e6)
        if track.last is not None:
            from_us = track.last.timestamp_us
        if (model := self._models.get(track)) is not None:
            silent_s = model.silent_s(now_s)
        if track.state != "silent":  # once for each silence, however often it is looked at
            self._log.warning(
                "feed.stream_stalled" if spoke else "feed.subscription_silent",
                symbol=track.symbol,
                stream=track.stream,
                silent_s=round(silent_s, 1),
                others_deliver=self.delivers,
                checked=finding,
            )
        detail = "the exchange has more" if finding == "missed" else "no data since the subscription"
        track.miss("stall" if spoke else "silent_subscription", from_us, detail, now_s)

    def _start_probe(self, track: Track | None, work: Coroutine[None, None, None]) -> None:
        if self._errands is None:
            work.close()
            return
        task = self._probes[track] = self._errands.create_task(self._guarded(work))
        task.add_done_callback(lambda _: self._probes.pop(track, None))

    async def _guarded(self, work: Coroutine[None, None, None]) -> None:
        """Do a check whose failure costs nothing but the check."""
        try:
            await work
        except Exception as error:  # noqa: BLE001 - the connection goes on; the bug is logged as one
            self._log.error("feed.bug", error=repr(error), exc_info=error)

    async def _ask(self, track: Track) -> Finding:
        if self._probe is None:
            return "unknown"
        try:
            return await self._probe(track)
        except Exception as error:  # noqa: BLE001 - a bug costs one check, not the process; it is logged as one
            self._log.error("feed.bug", error=repr(error), exc_info=error)
            return "unknown"

    async def _judge_stream(self, track: Track, model: SilenceModel) -> None:
        received, since_s = track.received, track.expected_since_s
        verdict = await self._ask(track)
        now_s = self._clock.monotonic_s()
        if track.received != received or track.expected_since_s != since_s or since_s is None:
            return
        model.checked(now_s)
        if verdict == "quiet":
            return
        if verdict == "unknown" and (track.delivers or model.checks < _UNKNOWN_CHECKS):
            return
        if verdict == "refused":
            track.call_silent("rejected", self._exchange_now_us(), "the exchange does not know the symbol any more")
            self._log.error("feed.symbol_refused", symbol=track.symbol, stream=track.stream)
            return
        self._call_silent(track, verdict)
        model.missed(now_s)
        if track in self._resubscribed:
            self._resubscribed.discard(track)
            self.replace("stall")
        else:
            self._resubscribed.add(track)
            self._unsubscribe_first.add(track)
            self.ask_singly([track])

    async def _attempt(self) -> float:
        """Open a connection and stay with it to its end; return how long to wait before the next one, in seconds."""
        self._cause = None
        self._opened_s = self._clock.monotonic_s()
        try:
            ending = await self._serve()
        except CollectorError as error:
            return self._failed(error)
        except Exception as error:  # noqa: BLE001 - a bug costs a reconnect, not the process; it is logged as one
            return self._failed(error)
        finally:
            self._forget_lines()
        return 0.0 if ending is None else self._ended(ending)

    async def _serve(self) -> Ending | None:
        """Open a connection and stay with it and its successors; return how the last ended, None before the first."""
        self._enter("connecting")
        self.asking = None
        self._refused.clear()
        self._renewals.clear()
        self._impatient.clear()
        self._messages_before = self.messages
        for track in self.tracks:
            track.begin()
        self._wake.clear()
        line: Line | None = self._new_line(self.number)
        if line is None or not await self._open(line):
            return None
        self._connections += 1
        self._enter("open")
        self._begin_life(line)
        try:
            await self._subscribe(line)
            now_s = self._clock.monotonic_s()
            for track in self.tracks:
                self._expect(track, now_s)
        except BaseException:
            await self._close(line)
            raise
        while True:
            try:
                await self._stay(line)
            except ConnectionLost:
                self._wake.set()  # it ended while something was sent; how it ended is looked at now
            except BaseException:
                await self._cancel_successor()
                await self._close(line)
                raise
            successor = await self._close(line)
            connection = line.open_connection
            if connection.failure is not None and successor is None:
                raise connection.failure
            if connection.failure is not None:
                self._log.error("feed.bug", error=repr(connection.failure), exc_info=connection.failure)
            if successor is None:
                return connection.ending
            line = successor

    def _new_line(self, number: int, *, newer: bool = False) -> Line:
        line = Line(number, AsyncLimiter(1, 1 / self._exchange.limits.frames_per_s), newer=newer)
        self._lines.append(line)
        return line

    def _forget_lines(self) -> None:
        for line in tuple(self._lines):
            self._forget(line)

    def _forget(self, line: Line) -> None:
        if line in self._lines:
            self._lines.remove(line)
            self._earlier_messages += line.messages
            self._earlier_bytes += line.bytes
            self._earlier_slowed += line.slowed

    async def _open(self, line: Line) -> bool:
        """Open a connection; return whether it is, and not the feed that stopped before."""
        if self._receiver is None:
            return False
        try:
            async with asyncio.timeout(None) as opening:
                if not line.newer:
                    self._opening = opening
                address = self.url if self._find_address is None else await self._find_address()
                line.connection = await open_connection(
                    address,
                    self._receiver(line),
                    settings=self._settings,
                    now_us=self._clock.now_us,
                    headers=self._exchange.headers,
                )
        except TimeoutError:
            return False
        finally:
            if not line.newer:
                self._opening = None
        line.opened_s = line.pinged_s = self._clock.monotonic_s()
        self._log.info("feed.connection_opened", url=self.url, subscriptions=len(self.tracks), successor=line.newer)
        self._record(line, "+", self.url)
        return True

    def _begin_life(self, line: Line) -> None:
        """Let a connection be the one that counts."""
        self._opened_s = line.opened_s
        life_s = self._exchange.limits.connection_life_s
        self._quiet = None
        if life_s is not None:
            begin_s = line.opened_s + rotation_s(life_s, self._random())
            self._quiet = QuietMoment(begin_s, line.opened_s + life_s * (1 - _TOO_LATE_S))

    async def _subscribe(self, line: Line) -> None:
        line.asked = frozenset(self.tracks)
        for frame in self.plan.frames:
            await self._send(line, frame)
        line.subscribed_s = self._clock.monotonic_s()

    def _expect(self, track: Track, now_s: float) -> None:
        track.expect(now_s)
        if (model := self._models.get(track)) is not None:
            model.begin(now_s)
        if isinstance(track, BookTrack):
            track.renewed_s, track.renewed, track.renewals = now_s, False, 0

    async def _send(self, line: Line, frame: str) -> None:
        await line.pace.acquire()
        frame = self._exchange.stamp(frame, self._clock.now_us())
        self._record(line, ">", frame)
        await line.open_connection.send(frame)

    async def _stay(self, line: Line) -> None:
        """Wait for a reason to leave, with a look at all clocks at each tick. Messages don't pass through here."""
        connection = line.open_connection
        while connection.ending is None and self._cause is None and not self._stops:
            with suppress(TimeoutError):
                async with asyncio.timeout(self._tick_s()):
                    await self._wake.wait()
            self._wake.clear()
            self.look_at_tracks()
            self._look_for_a_reason_to_leave(line)
            if self._look_after_successor(line):
                return
            now_s = self._clock.monotonic_s()
            for each in tuple(self._lines):
                await self._ping(each, now_s)
            if self._ended_subscriptions:
                await self._end_subscriptions(line)
            for book in tuple(self._impatient):
                self.renew(book)
            if self._renewals:
                await self._renew_one(line)
            if self._refused and (self.asking is None or now_s - self._asked_s >= self._settings.open_timeout_s):
                self.asking = self._refused.popleft()
                self._asked_s = now_s
                await self._ask_for(line, self.asking)

    @property
    def _stops(self) -> bool:
        return self.retired or self._gate.stopping.is_set()

    async def _end_subscriptions(self, line: Line) -> None:
        ended, self._ended_subscriptions = self._ended_subscriptions, []
        for frame in self._exchange.unsubscribe_frames(ended, raw_trades=self._raw_trades):
            await self._send(line, frame)

    async def _ask_for(self, line: Line, track: Track) -> None:
        if track in self._unsubscribe_first:
            self._unsubscribe_first.discard(track)
            for frame in self._exchange.unsubscribe_frames([track.subscription], raw_trades=self._raw_trades):
                await self._send(line, frame)
        for plan in self._exchange.plan([track.subscription], raw_trades=self._raw_trades):
            for frame in plan.frames:
                await self._send(line, frame)
        self._expect(track, self._clock.monotonic_s())

    async def _ping(self, line: Line, now_s: float) -> None:
        ping_s = self._exchange.limits.ping_interval_s
        ping = self._exchange.ping_frame()
        if ping is None or ping_s is None or line.subscribed_s is None or now_s - line.pinged_s < ping_s:
            return
        line.pinged_s = now_s
        try:
            await self._send(line, ping)
        except ConnectionLost:
            if not line.newer:
                raise

    # Make-before-break

    def _look_after_successor(self, line: Line) -> bool:
        """Have a successor opened when it is time for one; return whether it may take over now."""
        now_s = self._clock.monotonic_s()
        due = self._quiet is not None and self._quiet.due(now_s, line.messages)
        if self._raising is None:
            if (due or self._replace_because is not None) and now_s >= self._raise_at_s and self._errands is not None:
                self._replace_because = self._replace_because or "rotation"
                self._raising = self._errands.create_task(self._raise_successor(line))
                self._raising.add_done_callback(lambda _: self._wake.set())
            return False
        if self._raising.done():
            self._raising = None
            return False
        successor = self._successor
        if successor is None or successor.overlap is None or successor.subscribed_s is None:
            return False
        waited_s = now_s - successor.subscribed_s
        alive = successor.overlap.acknowledged or successor.messages > 0
        verdict = successor.overlap.verdict(waited_s, self._settings.overlap_timeout_s, alive=alive)
        if successor.open_connection.ending is not None:
            successor.overlap.refused = successor.overlap.refused or "it was closed"
            verdict = "deaf"
        if verdict == "deaf":
            self._log.warning(
                "feed.successor_given_up",
                reason=successor.overlap.refused or "it does not deliver what the old connection does",
                lacking=sorted({track.symbol for track in successor.overlap.lacking()})[:20],
                waited_s=round(waited_s, 1),
            )
            successor.settled.set()
            self._successor = None
        self._ready = verdict == "ready"
        return self._ready

    async def _raise_successor(self, line: Line) -> None:
        """Open a second connection and have it deliver the same; stay until it has taken over or is given up."""
        successor: Line | None = None
        try:
            # Where the exchange is about to end the connection there is no time to wait for others.
            alone = nullcontext() if self._replace_because == "exchange_maintenance" else self._gate.allowance.doubling
            async with alone:
                if not await self._gate.enter() or line.open_connection.ending is not None:
                    return
                successor = self._new_line(self._next_number(), newer=True)
                overlap = Overlap(
                    self.tracks,
                    book_numbered=self._exchange.book_numbered,
                    cause=self._replace_because or "rotation",
                )
                line.overlap = successor.overlap = overlap
                if await self._open(successor):
                    await self._subscribe(successor)
                    overlap.forget_old()
                    self._successor = successor
                    self._wake.set()
                    await successor.settled.wait()
        except CollectorError as error:
            away_s = stay_away_s(error)
            if away_s is not None:
                self._gate.ban(away_s)
            self._log.warning("feed.successor_failed", reason=str(error))
        except Exception as error:  # noqa: BLE001 - a bug costs this successor; the connection that is there goes on
            self._log.error("feed.bug", error=repr(error), exc_info=error)
        finally:
            if successor is None or successor.newer:
                # It did not take over.
                self._raise_at_s = self._clock.monotonic_s() + self._settings.overlap_timeout_s
                if self._replace_because == "rotation":
                    self._replace_because = None
                self._answer_replaced(False)
                await self._give_up(line, successor)

    async def _give_up(self, line: Line, successor: Line | None) -> None:
        if successor is None:
            return
        if successor.connection is not None:
            await successor.connection.close()
            self._record(successor, "-", "given up")
        if line.overlap is not None:
            line.overlap.give_up()
            line.overlap = None
        successor.overlap = None
        self._forget(successor)

    def _take_over(self, line: Line, successor: Line) -> None:
        """Let the successor go on alone; the old connection has ended."""
        overlap = successor.overlap
        line.overlap = successor.overlap = None
        ready, self._ready = self._ready, False
        cause = self._cause or self._replace_because or ("rotation" if ready else "disconnect")
        if overlap is not None:
            for track in overlap.hand_over(ready=ready, cause=cause):
                track.begin()
        successor.newer = False
        self._successor = None
        self._rotations += 1
        self._begin_life(successor)
        now_s = self._clock.monotonic_s()
        late = [track for track in self.tracks if track not in successor.asked]
        for track in late:
            # It was added while the successor was already open.
            track.interrupt(cause)
            track.begin()
        self.ask_singly(late)
        self._ended_subscriptions += [track.subscription for track in successor.asked if track not in self.tracks]
        for track in self.tracks:
            if not track.delivers:
                self._expect(track, now_s)
        self._log.info(
            "feed.connection_replaced",
            cause=cause,
            lived_s=round(now_s - line.opened_s, 1),
            overlapped_s=round(now_s - successor.opened_s, 3),
        )
        self._replace_because = None
        self._raise_at_s = float("-inf")
        self._cause = None
        self._answer_replaced(True)
        successor.settled.set()

    def _answer_replaced(self, succeeded: bool) -> None:
        waiting, self._replaced = self._replaced, []
        for future in waiting:
            if not future.done():
                future.set_result(succeeded)

    async def _renew_one(self, line: Line) -> None:
        if self._snapshot_pace is not None:
            if not self._snapshot_pace.has_capacity():
                return
            await self._snapshot_pace.acquire()
        book = self._renewals.popleft()
        if book.asked:
            self._log.info("feed.book_renewed", symbol=book.symbol)
            for frame in self._exchange.renewal_frames(book.subscription):
                await self._send(line, frame)
        if self._renewals:
            self._wake.set()

    async def _close(self, line: Line) -> Line | None:
        """Close a connection; return the successor that has taken over from it."""
        connection = line.open_connection
        await connection.close()
        # What came since the last tick counts for its connection.
        self.look_at_tracks()
        ending = connection.ending
        self.oversized += ending is not None and ending.ours and ending.code == _TOO_BIG
        sentence = ending.sentence if ending is not None else "closed"
        self._record(line, "-", sentence)
        stopping = self._stops
        self.finished = (
            ending is not None and not ending.ours and ending.code == 1000 and ending.reason == END_OF_RECORDING
        )
        successor = self._successor
        usable = (
            successor is not None
            and successor.overlap is not None
            and not successor.overlap.refused
            and successor.open_connection.ending is None
        )
        if successor is not None and usable and not stopping and not self.finished:
            self._take_over(line, successor)
            self._forget(line)
            return successor
        await self._cancel_successor()
        await self._cancel_probes()
        if not self.finished and not stopping:
            for track in self.tracks:
                track.interrupt(self._cause or self._replace_because or "disconnect")
        return None

    async def _cancel_probes(self) -> None:
        probes = list(self._probes.values())
        for probe in probes:
            probe.cancel()
        if probes:
            await asyncio.wait(probes)

    async def _cancel_successor(self) -> None:
        raising, self._raising, self._successor = self._raising, None, None
        if raising is not None:
            raising.cancel()
            with suppress(asyncio.CancelledError):
                await raising

    def _ended(self, ending: Ending) -> float:
        """Judge a connection that was open and has ended; return the delay before the next one."""
        self._cause = self._cause or self._replace_because
        self._replace_because = None
        self._answer_replaced(False)
        self._raise_at_s = float("-inf")
        sentence = ending.sentence
        lived_s = self._clock.monotonic_s() - self._opened_s
        report = self._log.info if self.finished or self._gate.stopping.is_set() else self._log.warning
        report(
            "feed.connection_closed",
            cause=self._cause or ("finished" if self.finished else "disconnect"),
            how=sentence,
            lived_s=round(lived_s, 1),
            messages=self.messages - self._messages_before,
        )
        self._last_error = sentence
        if self._lost_s is None:
            self._lost_s = self._clock.monotonic_s()
        self._fruitless = 0 if self.delivers else self._fruitless + (self._cause == "stall")
        if self.delivers and lived_s >= self._settings.backoff_cap_s:
            self._backoff.reset()
        now_s = self._clock.monotonic_s()
        if self._cause in _PLANNED and self.delivers and now_s - self._planned_s >= self._settings.backoff_cap_s:
            self._planned_s = now_s
            return 0.0
        delay_s = self._backoff.delay_s()
        self._give_up_waiting(delay_s)
        return delay_s

    def _failed(self, error: Exception) -> float:
        """Log a failed attempt, or a bug; return the delay before the next attempt."""
        verdict = judge(error)
        away_s = stay_away_s(error)
        if away_s is not None:
            self._gate.ban(away_s)
        delay_s = self._backoff.delay_s(verdict, away_s)
        self._give_up_waiting(delay_s)
        self._failures += 1
        self._last_error = str(error) or type(error).__name__
        if verdict is Verdict.BUG:
            self._log.error("feed.bug", error=repr(error), retry_in_s=round(delay_s, 1), exc_info=error)
        elif self._failures & (self._failures - 1) == 0:
            # The 1st, 2nd, 4th, 8th …: an exchange that is away for a day doesn't fill the log.
            self._log.warning(
                "feed.connection_failed", reason=str(error), attempt=self._failures, retry_in_s=round(delay_s, 1)
            )
        return delay_s

    def _give_up_waiting(self, delay_s: float) -> None:
        """Have an outage entered in the ledger once it has lasted, or is going to last, as long as silence may."""
        now_s = self._clock.monotonic_s()
        if self._lost_s is not None and now_s + delay_s - self._lost_s >= self._settings.first_data_timeout_s:
            for track in self.tracks:
                track.call_lost()

    def _look_for_first_data(self, track: Track, now_s: float) -> None:
        if track.delivers:
            self._lost_s = None
            track.notice_data(now_s)
        elif track in self._models:
            return
        elif track.overdue(now_s, self._settings.first_data_timeout_s):
            self._log.warning(
                "feed.subscription_silent",
                symbol=track.symbol,
                stream=track.stream,
                timeout_s=self._settings.first_data_timeout_s,
                others_deliver=self.delivers,
            )
            track.call_silent("silent_subscription", self._exchange_now_us(), "no data since the subscription")

    def _tick_s(self) -> float:
        since_s = self._clock.monotonic_s() - self._opened_s
        if since_s < self._settings.first_data_timeout_s and not self.delivers:
            return _FIRST_TICK_S
        return min(_TICK_S, self._settings.stall_timeout_s / 4, self._settings.reorder_grace_s / 2)

    def _enter(self, state: LinkState) -> None:
        self._state = state
        self._since_us = self._clock.now_us()

    def _record(self, line: Line, kind: str, payload: str) -> None:
        if self._recorder is not None:
            self._recorder.frame(self._clock.now_us() * 1000, line.number, kind, payload)
