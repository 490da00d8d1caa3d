"""Carry committed rows from the outbox to QuestDB, in file order, until each is acknowledged or refused.

One turn of ``work`` looks after the server when that is due, then sends one batch per table. Nothing here waits: the
caller does, for ``due_in_s``. Every failure counts as "maybe delivered"; what is sent again is read from the CSV again.
"""

from __future__ import annotations

import random
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from collector.clock import Clock
from collector.config import QuestDB
from collector.errors import CollectorError, DatabaseMisconfigured, DatabaseUnavailable
from collector.storage.batches import Batch, Lane, Slice, smallest_first
from collector.storage.delivery import EventLog, ReplicatorStatus, State
from collector.storage.ilp import Refused
from collector.storage.inspector import Inspector, RepairTables
from collector.storage.outbox import LaneKey, Outbox, OutboxSession
from collector.storage.questdb import Acknowledged, Outcome, Rejected, Transport
from collector.storage.segments import LogDamaged
from collector.storage.survey import Span, spans_held
from collector.streams import STREAMS, Stream

_MIN_BATCH_ROWS = 64  # a batch with a refused row, or a slow one, makes the next ones smaller, down to this
_MIN_BATCH_BYTES = 4096
_BLAME_TABLE_S = 1.0  # a row is only blamed where its table was found whole so recently
_TABLE_TO_BLAME = re.compile(r"table does not exist|creating new (?:tables|columns) is disabled")
_LOGGED_REJECTIONS = 10  # of a session at warning level; the rest at debug: rejected.csv has them all
_BYTES_INTERVAL_S = 0.5
_CHECK_AGAIN_S = 0.2  # where somebody waits for rows that do not appear, the tables are looked after sooner
_APPLIED_POLL_S = 0.01


@dataclass(slots=True)
class _Counters:
    sent: int = 0
    resent: int = 0
    acknowledged: int = 0
    rejected: int = 0
    requests: int = 0
    failures: int = 0


class Courier:
    """Delivers what is in an outbox through one transport. For one thread.

    Args:
        repair_tables: makes missing tables again; None where that is not ours to do (an external server).
        jitter: returns a number between its two arguments, for back-off.
    """

    def __init__(
        self,
        transport: Transport,
        outbox: Outbox,
        *,
        config: QuestDB,
        clock: Clock,
        log: EventLog,
        repair_tables: RepairTables | None = None,
        streams: Sequence[Stream] = tuple(STREAMS.values()),
        jitter: Callable[[float, float], float] = random.uniform,
    ) -> None:
        self.outbox = outbox
        self.state = State.CATCHUP
        self.reason = ""
        self.hint = ""
        self._transport = transport
        self._config = config
        self._clock = clock
        self._log = log
        self._jitter = jitter
        self._inspector = Inspector(transport, outbox, streams, clock=clock, log=log, repair_tables=repair_tables)
        self._limits: dict[str, int] = {}
        self._counters = _Counters()
        self._connected = False
        self._ever_connected = False
        self._announced = False
        self._catching_up = True
        self._failures_in_a_row = 0
        self._retry_at_s = 0.0
        self._check_at_s = 0.0
        self._suspected_at_s = float("-inf")
        self._checked_at_s = float("-inf")
        self._caught_up_at_s = clock.monotonic_s()
        self._last_acknowledged_us: int | None = None
        self._lag_bytes = 0
        self._lag_bytes_at_s = float("-inf")

    # Turns

    def work(self) -> bool:
        """Do what is due; return whether there is more to do at once."""
        if self._clock.monotonic_s() < self._retry_at_s:
            return False
        try:
            if not self._connected or self._clock.monotonic_s() >= self._check_at_s:
                self._inspect()
            return self._deliver()
        except DatabaseUnavailable as error:
            self._fail(State.DOWN, error)
        except DatabaseMisconfigured as error:
            self._fail(State.FAILED, error)
        except OSError as error:  # rejected.csv could not be written: nothing moves on without it
            self._fail(State.FAILED, CollectorError(f"The session's files cannot be written: {error}."))
        return False

    def due_in_s(self) -> float:
        """Return how long nothing is to be done unless something new comes in, in seconds."""
        times = [self._check_at_s if self._connected else self._retry_at_s]
        save_at_s = self.outbox.next_save_s()
        if save_at_s is not None:
            times.append(save_at_s)
        times += [lane.retry_at_s for lane in self._unreadable()]
        return max(0.0, max(self._retry_at_s, min(times)) - self._clock.monotonic_s())

    def check_soon(self) -> None:
        """Look after the server at the next turn, whenever the last time was."""
        self._check_at_s = 0.0

    def rows_wait(self) -> bool:
        """Tell whether rows wait that could be sent now."""
        return self._connected and bool(self._sendable())

    def applied(self, tables: Sequence[str]) -> bool:
        """Tell whether everything that these tables acknowledged is visible in them; False where nobody knows."""
        if not self._connected:
            return False
        try:
            applied = self._inspector.applied(tables)
        except (DatabaseUnavailable, DatabaseMisconfigured):
            applied = False
            self._connected = False
        if not applied and self._clock.monotonic_s() - self._checked_at_s >= _CHECK_AGAIN_S:
            self.check_soon()
        return applied

    def last_look(self, bound_s: float) -> None:
        """Before the end: let the tables apply what they took, for so long at most, and count it."""
        deadline = self._clock.monotonic_s() + bound_s
        tables = sorted({lane.stream.table for lane in self.outbox.lanes()})
        try:
            self._inspect()
            while not self._inspector.applied(tables) and self._clock.monotonic_s() < deadline:
                time.sleep(_APPLIED_POLL_S)
            self._inspect()
        except (DatabaseUnavailable, DatabaseMisconfigured) as error:
            self._log.debug("replicator.last_look_failed", reason=error.message)

    def held(self, session_id: str, spans: Sequence[Span]) -> set[LaneKey]:
        """Return whose spans QuestDB has for certain: verified, and every row shown by its table now, or refused."""
        if not self._connected:
            return set()
        self.outbox.wake(session_id)
        session = self.outbox.sessions.get(session_id)
        if session is None:
            return set()
        found: set[LaneKey] = set()
        try:
            for stream in {span.stream.name: span.stream for span in spans}.values():
                asked = [span for span in spans if span.stream is stream and self._is_verified(session, span)]
                if stream.table in self._inspector.faults or not asked:
                    continue
                for span, rows in zip(asked, spans_held(self._transport, session_id, asked), strict=True):
                    refused = session.rejected.count_between(stream.name, span.symbol, span.first_seq, span.last_seq)
                    if rows + refused >= span.rows:
                        found.add((stream.name, span.symbol))
        except (DatabaseUnavailable, DatabaseMisconfigured, OSError) as error:
            self._log.debug("replicator.spans_not_asked", session_id=session_id, reason=str(error))
            self._connected = not isinstance(error, DatabaseUnavailable)
        return found

    @staticmethod
    def _is_verified(session: OutboxSession, span: Span) -> bool:
        lane = session.lanes.get((span.stream.name, span.symbol))
        return lane is not None and lane.verified.seq >= span.last_seq

    def fail(self, error: CollectorError) -> None:
        """Take note that a turn ended in a way that nobody expected; go on after a while."""
        self._fail(State.FAILED, error)

    def status(self) -> ReplicatorStatus:
        """Return how delivery stands."""
        now = self._clock.monotonic_s()
        waiting = [lane for lanes in self.outbox.waiting.values() for lane in lanes]
        if now - self._lag_bytes_at_s >= _BYTES_INTERVAL_S or not waiting:
            self._lag_bytes = sum(_backlog_bytes(lane) for lane in waiting)
            self._lag_bytes_at_s = now
        problems = {table: fault.reason for table, fault in self._inspector.faults.items()}
        problems |= {str(lane.path): lane.problem for lane in self._unreadable()}
        counters = self._counters
        return ReplicatorStatus(
            state=self.state,
            reason=self.reason,
            hint=self.hint,
            lag_rows=sum(lane.lag_rows for lane in waiting),
            lag_bytes=self._lag_bytes,
            lag_seconds=now - self._caught_up_at_s if waiting else 0.0,
            sent_rows=counters.sent,
            resent_rows=counters.resent,
            acknowledged_rows=counters.acknowledged,
            rejected_rows=counters.rejected,
            requests=counters.requests,
            failures=counters.failures,
            rewinds=self._inspector.rewinds,
            last_acknowledged_us=self._last_acknowledged_us,
            sessions={name: session.delivery() for name, session in self.outbox.sessions.items()},
            problems=problems,
        )

    # The server

    def _inspect(self) -> None:
        self._inspector.inspect(reconnected=not self._connected)
        now = self._clock.monotonic_s()
        self._catching_up = self._catching_up or not self._connected
        self._connected = self._ever_connected = True
        if not self._sendable():  # a server that answers may refuse rows all the same, on a full disk for one
            self._failures_in_a_row = 0
        self._checked_at_s = now
        self._check_at_s = now + self._config.check_interval_s
        self._settle()

    def _fail(self, state: State, error: CollectorError) -> None:
        self._transport.close()
        self._connected = False
        self._counters.failures += 1
        config = self._config
        ceiling = min(config.retry_cap_s, config.retry_initial_s * 2 ** min(self._failures_in_a_row, 30))
        floor = 0.0
        if state is State.FAILED:  # a person is needed: slowly, but go on
            floor, ceiling = config.retry_cap_s / 2, config.retry_cap_s
        self._failures_in_a_row += 1
        self._retry_at_s = self._clock.monotonic_s() + self._jitter(floor, ceiling)
        self._enter(state, error.message, error.hint)

    def _settle(self) -> None:
        """Choose the state of a server that answers."""
        faults = self._inspector.faults
        sendable, unreadable = self._sendable(), self._unreadable()
        if not sendable:
            self._catching_up = bool(unreadable)
            if not any(self.outbox.waiting.values()):
                self._caught_up_at_s = self._clock.monotonic_s()
        elif not self._catching_up:
            self._catching_up = sum(lane.lag_rows for lane in sendable) > 2 * self._config.batch_max_rows
        if faults:
            fault = min(faults.values(), key=lambda fault: fault.kind == "suspended")
            self._enter(State.SUSPENDED if fault.kind == "suspended" else State.FAILED, fault.reason, fault.hint)
        elif not self._failures_in_a_row:  # otherwise it is not over until rows are taken again
            problem = unreadable[0].problem if unreadable else ""
            self._enter(State.CATCHUP if self._catching_up else State.LIVE, problem)

    def _enter(self, state: State, reason: str = "", hint: str = "") -> None:
        """Go to a state, with one event in the log where it is another one."""
        changed = state is not self.state or not self._announced
        self.state, self.reason, self.hint = state, reason, hint
        if not changed:
            return
        self._announced = True
        facts: dict[str, object] = {"reason": reason, "hint": hint} if reason else {}
        if not self._ever_connected:
            self._log.warning("data_collection.db_persistence_disabled", state=state.value, **facts)
        elif state is State.FAILED:
            self._log.error("replicator.failed", **facts)
        elif state in (State.DOWN, State.SUSPENDED):
            self._log.warning(f"replicator.{state.value}", **facts)
        else:
            self._log.info(f"replicator.{state.value}", lag_rows=sum(lane.lag_rows for lane in self._sendable()))

    # Sending

    def _sendable(self) -> list[Lane]:
        faults = self._inspector.faults
        waiting = self.outbox.waiting.items()
        return [lane for table, lanes in waiting if table not in faults for lane in lanes if not lane.problem]

    def _unreadable(self) -> list[Lane]:
        return [lane for lanes in self.outbox.waiting.values() for lane in lanes if lane.problem]

    def _deliver(self) -> bool:
        faults = self._inspector.faults
        tables = [table for table, lanes in self.outbox.waiting.items() if lanes and table not in faults]
        progress = [self._deliver_table(table) for table in tables]
        self._settle()
        return any(progress)

    def _deliver_table(self, table: str) -> bool:
        batch = self._gather(table)
        return bool(batch.slices) and self._send(batch)

    def _gather(self, table: str) -> Batch:
        """Take the next rows of the table's lanes: small backlogs first, so that what just happened is not late."""
        batch = Batch(table)
        limit = self._limit(table)
        room = self._config.batch_max_bytes
        oldest_us = self._inspector.oldest_us.get(table)
        now = self._clock.monotonic_s()
        for lane in smallest_first(self.outbox.waiting[table]):
            if batch.rows >= limit or room < _MIN_BATCH_BYTES:
                break
            if lane.retry_at_s > now:
                continue
            part = self._take(lane, rows=limit - batch.rows, body_bytes=room, oldest_us=oldest_us)
            if part is not None:
                batch.add(part)
                room -= len(part.encoded.body)
        return batch

    def _take(self, lane: Lane, *, rows: int, body_bytes: int, oldest_us: int | None) -> Slice | None:
        try:
            part = lane.take(rows=rows, body_bytes=body_bytes, oldest_us=oldest_us)
        except LogDamaged as error:
            self.outbox.damaged(lane, str(error))
            return None
        except OSError as error:
            self.outbox.unreadable(lane, str(error))
            return None
        lane.problem, lane.retry_at_s = "", 0.0
        if part is None:
            self.outbox.waiting[lane.stream.table].pop(lane, None)
        return part

    def _send(self, batch: Batch) -> bool:
        """Send a batch and act on the answer; True where it, or a part of it, is done with."""
        if not batch.rows:
            self._done(batch)
            return True
        outcome = self._post(batch)
        if isinstance(outcome, Acknowledged):
            self._done(batch)
            self._limits[batch.table] = min(self._config.batch_max_rows, 2 * self._limit(batch.table))
            return True
        if isinstance(outcome, Rejected):
            return self._refused(batch, outcome)
        if outcome.too_slow:
            self._limits[batch.table] = max(_MIN_BATCH_ROWS, batch.rows // 2)
        raise DatabaseUnavailable(outcome.reason)

    def _post(self, batch: Batch) -> Outcome:
        counters = self._counters
        counters.requests += 1
        counters.sent += batch.rows
        for part in batch.slices:
            lane = part.lane
            counters.resent += max(0, min(part.end.seq, lane.sent_seq) - part.start.seq)
            lane.sent_seq = max(lane.sent_seq, part.end.seq)
        return self._transport.send(batch.table, batch.body, batch.rows)

    def _done(self, batch: Batch) -> None:
        """Move the lanes behind what was acknowledged, the refused rows in ``rejected.csv`` first."""
        for part in batch.slices:
            if part.encoded.refused:
                self._reject(part, part.encoded.refused)
        for part in batch.slices:
            part.lane.window.add(part.encoded)
            self.outbox.acknowledged(part.lane, part.end)
        self._failures_in_a_row = 0
        self._counters.acknowledged += batch.rows
        self._last_acknowledged_us = self._clock.now_us()
        self._log.debug("data_collection.db_write_success", table=batch.table, rows=batch.rows, files=len(batch.slices))

    def _limit(self, table: str) -> int:
        return self._limits.get(table, self._config.batch_max_rows)

    # Rows that the server refuses

    def _refused(self, batch: Batch, outcome: Rejected) -> bool:
        """Blame the table first, then the line: send what is before it, put the row aside, go on behind it."""
        if self._clock.monotonic_s() - self._suspected_at_s >= _BLAME_TABLE_S:
            self._suspected_at_s = self._clock.monotonic_s()
            self._inspect()
            return True  # try again, where the table is whole or was made so; otherwise the table is left out
        if _TABLE_TO_BLAME.search(outcome.reason):
            raise DatabaseUnavailable(outcome.reason)
        if not 1 <= outcome.line <= batch.rows and batch.rows > 1:
            self._limits[batch.table] = batch.rows // 2  # the answer names no line: halve until one row is left
            return True
        index, line = batch.find(outcome.line if batch.rows > 1 else 1)
        self._limits[batch.table] = max(_MIN_BATCH_ROWS, outcome.line)
        part = batch.slices[index]
        before = batch.before(index, line)
        if before.slices and not self._send(before):
            return False
        expected = before.slices[-1].end if line else part.start
        if part.lane.acknowledged == expected:
            self._failures_in_a_row = 0
            self._reject(part, [Refused(line, outcome.reason)])
            self.outbox.acknowledged(part.lane, part.after(line))
        return True

    def _reject(self, part: Slice, refusals: Sequence[Refused]) -> None:
        session = self.outbox.sessions[part.lane.session_id]
        for row in session.rejected.add(part.rejected(refusals)):
            session.rejected_rows += 1
            self._counters.rejected += 1
            say = self._log.warning if session.rejected_rows <= _LOGGED_REJECTIONS else self._log.debug
            say(
                "replicator.row_rejected",
                session_id=session.session_id,
                stream=row.stream,
                symbol=row.symbol,
                seq=row.seq,
                reason=row.reason,
            )


def _backlog_bytes(lane: Lane) -> int:
    try:
        return lane.reader.backlog_bytes(lane.acknowledged)
    except OSError:
        return 0
