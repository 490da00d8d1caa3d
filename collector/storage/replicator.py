"""CSV → QuestDB: the one thread that delivers, and the doors to it for everybody else.

A hung server blocks this thread for seconds; nobody else notices. What others ask of it is posted, and done in the
thread in the order in which it was posted, so nothing in the thread is shared.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from collector.clock import Clock
from collector.config import QuestDB
from collector.errors import CollectorError
from collector.storage.batches import Lane
from collector.storage.courier import Courier
from collector.storage.delivery import Commit, EventLog, ReplicatorStatus, SessionDelivery, State
from collector.storage.dormant import End, FindFiles
from collector.storage.files import Files
from collector.storage.inspector import RepairTables
from collector.storage.outbox import LaneKey, Outbox
from collector.storage.questdb import HttpTransport, Transport
from collector.storage.survey import Span
from collector.streams import STREAMS, Stream

__all__ = ["Replicator", "ReplicatorStatus", "SessionDelivery", "State"]

_PUBLISH_INTERVAL_S = 0.1
_APPLIED_POLL_S = 0.02
_LAST_LOOK_S = 1.0


@dataclass(eq=False, slots=True)
class _Waiter:
    """Somebody who waits until rows are delivered; ``wanted`` None means all that is durable when the wait begins."""

    session_id: str
    wanted: dict[LaneKey, int] | None
    loop: asyncio.AbstractEventLoop
    future: asyncio.Future[bool]

    def answer(self, delivered: bool) -> None:
        """Wake the one who waits, in its own event loop."""

        def settle() -> None:
            if not self.future.done():
                self.future.set_result(delivered)

        try:
            self.loop.call_soon_threadsafe(settle)
        except RuntimeError:
            return  # its event loop has ended, and nobody waits any more


class Replicator:
    """Delivers committed rows of all sessions to QuestDB.

    Args:
        transport_factory: makes the connection, in the delivery thread; ``HttpTransport.from_config`` by default.
        repair_tables: makes missing tables again, called in the delivery thread; None for an external server.
    """

    def __init__(
        self,
        transport_factory: Callable[[], Transport] | None = None,
        *,
        config: QuestDB,
        files: Files,
        clock: Clock,
        log: EventLog,
        repair_tables: RepairTables | None = None,
        streams: Sequence[Stream] = tuple(STREAMS.values()),
    ) -> None:
        self._transport = (transport_factory or (lambda: HttpTransport.from_config(config)))()
        self._outbox = Outbox(files=files, clock=clock, log=log)
        self._courier = Courier(
            self._transport,
            self._outbox,
            config=config,
            clock=clock,
            log=log,
            repair_tables=repair_tables,
            streams=streams,
        )
        self._clock = clock
        self._log = log
        self._timeout_s = config.request_timeout_s
        self._posted: deque[Callable[[], None]] = deque()
        self._wake = threading.Condition()
        self._waiters: list[_Waiter] = []
        self._stop_at_s: float | None = None
        self._status = ReplicatorStatus()
        self._published_at_s = float("-inf")
        self._thread = threading.Thread(target=self._run, name="replicator", daemon=True)

    # From any thread

    def start(self) -> None:
        """Start the delivery thread."""
        self._thread.start()

    def stop(self, deadline_s: float) -> None:
        """Deliver what is durable, save the cursors and end the thread; blocks until then.

        A server that is down is not waited for; whatever it does, the thread ends soon after ``deadline_s``.
        """
        if self._thread.ident is None:
            return
        with self._wake:
            self._stop_at_s = self._clock.monotonic_s() + deadline_s
            self._wake.notify()
        self._thread.join(deadline_s + _LAST_LOOK_S)
        if self._thread.is_alive():
            self._transport.abort()
            self._thread.join(self._timeout_s + _LAST_LOOK_S)

    def add_session(
        self,
        session_id: str,
        exchange: str,
        directory: Path,
        files: Iterable[tuple[Stream, str | None, Path]] = (),
    ) -> None:
        """Begin with a session where its cursor says. What stands in the files in whole lines counts as durable.

        Args:
            files: stream, symbol (None for the session's own streams) and the path of the live segment.
        """
        files = list(files)
        self._post(lambda: self._outbox.add_session(session_id, exchange, directory))
        for stream, symbol, path in files:
            self.add_file(session_id, stream, symbol, path)

    def add_file(self, session_id: str, stream: Stream, symbol: str | None, path: Path) -> None:
        """Begin with one more file of a session; a file that a commit names need not be added."""

        def add() -> None:
            self._outbox.add_file(session_id, stream, symbol, path)
            self._courier.check_soon()

        self._post(add)

    def add_ended(self, session_id: str, exchange: str, directory: Path, ends: Iterable[End], files: FindFiles) -> None:
        """Begin with a session that is over; one that was delivered and found in the tables costs next to nothing.

        Args:
            ends: where each of its files ends.
            files: says which files there are, where they have to be looked at after all; called in the delivery thread.
        """
        ends = tuple(ends)

        def add() -> None:
            self._outbox.add_ended(session_id, exchange, directory, ends, files)
            if session_id in self._outbox.sessions:
                self._courier.check_soon()

        self._post(add)

    def over(self, session_id: str, files: FindFiles) -> None:
        """Take note that a session gets no more rows; ``files`` as for ``add_ended``."""
        self._post(lambda: self._outbox.over(session_id, files))

    def delivery(self, session_id: str) -> SessionDelivery | None:
        """Return how a session's delivery stands, as of a moment ago; None where nobody looks after it."""
        dormant = self._outbox.dormant.get(session_id)
        return dormant.delivery if dormant is not None else self._status.sessions.get(session_id)

    def remove_session(self, session_id: str) -> None:
        """Save a session's cursor and forget the session."""
        self._post(lambda: self._outbox.remove_session(session_id))

    def committed(self, session_id: str, commits: Sequence[Commit]) -> None:
        """Take note of what the log has made durable; returns at once."""
        commits = tuple(commits)
        self._post(lambda: self._outbox.commit(session_id, commits))

    def rewind(self, session_id: str, from_seq: int = 0, keys: Iterable[LaneKey] | None = None) -> None:
        """Send a session's rows again: of all its files, or of some, from this ``seq`` of each on."""
        chosen = list(keys) if keys is not None else None
        self._post(lambda: self._outbox.rewind(session_id, from_seq, chosen))

    def status(self) -> ReplicatorStatus:
        """Return how delivery stands, as of a moment ago."""
        return self._status

    async def wait_delivered(
        self, session_id: str, positions: Mapping[LaneKey, int] | None = None, timeout_s: float = 30
    ) -> bool:
        """Wait until a session's rows are acknowledged and visible in QuestDB (or refused); False after the timeout.

        Args:
            positions: the last ``seq`` per stream and symbol; None means everything that is durable now.
        """
        loop = asyncio.get_running_loop()
        wanted = dict(positions) if positions is not None else None
        waiter = _Waiter(session_id, wanted, loop, loop.create_future())
        self._post(lambda: self._waiters.append(waiter))
        try:
            async with asyncio.timeout(timeout_s):
                return await waiter.future
        except TimeoutError:
            return False
        finally:
            self._post(lambda: self._forget(waiter))

    async def held(self, session_id: str, spans: Sequence[Span], timeout_s: float = 30) -> set[LaneKey]:
        """Return, by stream and symbol, whose spans QuestDB has for certain; none where that cannot be asked now."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[set[LaneKey]] = loop.create_future()

        def settle(found: set[LaneKey]) -> None:
            if not future.done():
                future.set_result(found)

        def answer() -> None:
            found = self._courier.held(session_id, spans)
            with contextlib.suppress(RuntimeError):  # its event loop has ended, and nobody waits any more
                loop.call_soon_threadsafe(settle, found)

        self._post(answer)
        try:
            async with asyncio.timeout(timeout_s):
                return await future
        except TimeoutError:
            return set()

    def _post(self, action: Callable[[], None]) -> None:
        with self._wake:
            self._posted.append(action)
            self._wake.notify()

    # In the delivery thread

    def _run(self) -> None:
        while not self._is_over():
            busy = self._turn()
            self._publish(now=not busy)
            self._serve_waiters()
            if not busy:
                self._rest()
        self._end()

    def _turn(self) -> bool:
        try:
            if self._do_posted():
                self._publish(now=True)  # a request may block for seconds: meanwhile, what waits must show
            busy = self._courier.work()
            self._outbox.save_due()
        except Exception as error:  # noqa: BLE001 - whatever goes wrong here must never end delivery
            what = f"{type(error).__name__}: {error}"
            self._log.error("replicator.unexpected", reason=what, exc_info=True)
            self._courier.fail(CollectorError(f"Delivery met an error of its own ({what})."))
            return False
        return busy

    def _do_posted(self) -> bool:
        posted = bool(self._posted)
        while self._posted:
            self._posted.popleft()()
        return posted

    def _is_over(self) -> bool:
        if self._stop_at_s is None:
            return False
        if self._posted:
            return False
        return not self._courier.rows_wait() or self._clock.monotonic_s() >= self._stop_at_s

    def _rest(self) -> None:
        """Wait until something comes in or is due."""
        wait_s = self._courier.due_in_s()
        if self._waiters:
            wait_s = min(wait_s, _APPLIED_POLL_S)
        with self._wake:
            if not self._posted and self._stop_at_s is None:
                self._wake.wait(wait_s)

    def _end(self) -> None:
        """Look once more whether everything arrived, so that the next start has nothing to send again; save."""
        try:
            if self._courier.state in (State.LIVE, State.CATCHUP):
                self._courier.last_look(_LAST_LOOK_S)
        except Exception as error:  # noqa: BLE001 - the cursors are saved whatever happens
            self._log.error("replicator.unexpected", reason=f"{type(error).__name__}: {error}", exc_info=True)
        finally:
            self._outbox.save_due(all_now=True)
            self._transport.close()
            for lane in self._outbox.lanes():
                lane.reader.close()
            self._publish(now=True)
            for waiter in self._waiters:
                waiter.answer(False)

    def _publish(self, *, now: bool) -> None:
        time_s = self._clock.monotonic_s()
        if now or self._courier.state is not self._status.state or time_s - self._published_at_s > _PUBLISH_INTERVAL_S:
            self._published_at_s = time_s
            self._status = self._courier.status()

    # Those who wait

    def _serve_waiters(self) -> None:
        ready = [waiter for waiter in self._waiters if self._is_acknowledged(waiter)]
        if not ready:
            return
        tables = {STREAMS[stream].table for waiter in ready for stream, _ in waiter.wanted or ()}
        if not tables or self._courier.applied(sorted(tables)):
            self._publish(now=True)
            for waiter in ready:
                self._forget(waiter)
                waiter.answer(True)

    def _is_acknowledged(self, waiter: _Waiter) -> bool:
        session = self._outbox.sessions.get(waiter.session_id)
        if session is None:
            return waiter.session_id in self._outbox.dormant
        if waiter.wanted is None:
            waiter.wanted = {key: lane.reader.durable.last_seq for key, lane in session.lanes.items()}
        for key, seq in list(waiter.wanted.items()):
            lane = session.lanes.get(key)
            if lane is None or not self._has_reached(lane, seq):
                return False
        return True

    def _has_reached(self, lane: Lane, seq: int) -> bool:
        if lane.acknowledged.seq >= seq:
            return True
        waiting = self._outbox.waiting.get(lane.stream.table, {})
        return lane not in waiting and lane.reader.durable.last_seq >= seq

    def _forget(self, waiter: _Waiter) -> None:
        if waiter in self._waiters:
            self._waiters.remove(waiter)
