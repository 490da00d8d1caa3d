"""The sessions whose files are being delivered: their lanes, which of them have something to send, their cursors."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from collector.clock import Clock
from collector.errors import CollectorError
from collector.storage.batches import Lane
from collector.storage.cursor import (
    CURSOR_FILE,
    START,
    Cursor,
    CursorUnreadable,
    Position,
    SavedFile,
    ServerMark,
    load_cursor,
    save_cursor,
)
from collector.storage.delivery import Commit, EventLog, SessionDelivery
from collector.storage.dormant import Dormant, End, FindFiles, is_whole
from collector.storage.files import Files
from collector.storage.rejected import RejectedRows
from collector.storage.segments import Durable, LogDamaged
from collector.streams import Stream

_SAVE_INTERVAL_S = 1.0
_SAVE_SHARE = 20  # a cursor of thousands of files is saved less often: at most a twentieth of the time goes into it
_RETRY_S = 5.0  # a file that could not be read is tried again, at the next commit at the latest

LaneKey = tuple[str, str | None]
"""A stream's name and the symbol (None for the session's own streams)."""


class OutboxSession:
    """One session: its lanes by stream and symbol, what it remembers of the server, what was refused."""

    def __init__(self, session_id: str, exchange: str, directory: Path, files: Files) -> None:
        self.session_id = session_id
        self.exchange = exchange
        self.directory = directory
        self.lanes: dict[LaneKey, Lane] = {}
        self.rejected = RejectedRows(directory, files)
        self.rejected_rows = 0
        self.mark: ServerMark | None = None
        self.saved: dict[LaneKey, SavedFile] = {}
        self.unsaved = False
        self.save_at_s = 0.0
        self.tables: frozenset[str] = frozenset()

    def cursor(self) -> Cursor:
        """Return what is to be saved; files that are not open in this run keep what they had."""
        current = {
            key: SavedFile(lane.stream.name, lane.symbol, lane.acknowledged, lane.verified)
            for key, lane in self.lanes.items()
        }
        return Cursor(self.session_id, list({**self.saved, **current}.values()), self.mark)

    def delivery(self) -> SessionDelivery:
        """Return how the session stands."""
        lanes = self.lanes.values()
        return SessionDelivery(
            acknowledged_rows=sum(lane.acknowledged.seq for lane in lanes),
            lag_rows=sum(lane.lag_rows for lane in lanes),
            rejected_rows=self.rejected_rows,
        )


class Outbox:
    """All sessions. Used in the delivery thread only."""

    def __init__(self, *, files: Files, clock: Clock, log: EventLog) -> None:
        self.sessions: dict[str, OutboxSession] = {}
        self.waiting: dict[str, dict[Lane, None]] = {}
        self.dormant: dict[str, Dormant] = {}
        self._fresh: list[Dormant] = []
        self._over: dict[str, FindFiles] = {}
        self._files = files
        self._clock = clock
        self._log = log

    def lanes(self, table: str | None = None) -> Iterator[Lane]:
        """Yield every lane, or a table's."""
        for session in self.sessions.values():
            for lane in session.lanes.values():
                if table is None or lane.stream.table == table:
                    yield lane

    # What comes from outside

    def add_session(self, session_id: str, exchange: str, directory: Path) -> None:
        """Begin with a session, where its cursor says; twice is harmless."""
        if session_id in self.sessions:
            return
        self.dormant.pop(session_id, None)
        session = OutboxSession(session_id, exchange, directory, self._files)
        cursor = self._load_cursor(session_id, directory)
        if cursor is not None:
            session.mark = cursor.server
            session.saved = {(file.stream, file.symbol): file for file in cursor.files}
        try:
            session.rejected_rows = session.rejected.count()
        except OSError as error:
            self._log.warning("replicator.rejected_unreadable", session_id=session_id, reason=str(error))
        self.sessions[session_id] = session

    def _load_cursor(self, session_id: str, directory: Path) -> Cursor | None:
        try:
            return load_cursor(directory, session_id)
        except CursorUnreadable as error:
            self._log.warning("replicator.cursor_refused", session_id=session_id, reason=str(error))
            return None

    def add_ended(self, session_id: str, exchange: str, directory: Path, ends: Sequence[End], files: FindFiles) -> None:
        """Begin with a session that is over: where all of it was found in the tables, without opening any file."""
        if session_id in self.sessions or session_id in self.dormant:
            return
        cursor = self._load_cursor(session_id, directory)
        try:
            whole = cursor is not None and is_whole(directory, cursor, ends, CURSOR_FILE)
        except OSError:
            whole = False  # a file is gone: whoever reads it says so
        if cursor is None or cursor.server is None or not whole:
            self._begin_again(session_id, exchange, directory, files)
            return
        tables = frozenset(end.stream.table for end in ends if end.last_seq)
        delivery = SessionDelivery(acknowledged_rows=sum(file.acknowledged.seq for file in cursor.files))
        self._lay_down(Dormant(session_id, exchange, directory, cursor.server, tables, files, delivery))

    def over(self, session_id: str, files: FindFiles) -> None:
        """Take note that a session gets no more rows: it is laid down once all of them were found in the tables."""
        if session_id in self.sessions:
            self._over[session_id] = files

    def wake(self, session_id: str) -> None:
        """Look after a session again that was laid down; nothing where it was not."""
        dormant = self.dormant.pop(session_id, None)
        if dormant is not None:
            self._begin_again(session_id, dormant.exchange, dormant.directory, dormant.files)

    def _begin_again(self, session_id: str, exchange: str, directory: Path, files: FindFiles) -> None:
        self.add_session(session_id, exchange, directory)
        try:
            for stream, symbol, path in files():
                self.add_file(session_id, stream, symbol, path)
        except CollectorError as error:
            self._log.error("replicator.session_unreadable", session_id=session_id, reason=str(error))
        self._over[session_id] = files

    def lay_down(self) -> None:
        """Let go of the sessions that are over and of which every row was found in its table."""
        for session_id, files in list(self._over.items()):
            session = self.sessions.get(session_id)
            if session is None:
                del self._over[session_id]
            elif (
                session.mark is not None
                and session.lanes
                and all(self._is_done(lane) for lane in session.lanes.values())
            ):
                self._retire(session, session.mark, files)

    def take_fresh(self) -> list[Dormant]:
        """Return what was laid down since the last call and still is."""
        fresh, self._fresh = self._fresh, []
        return [dormant for dormant in fresh if self.dormant.get(dormant.session_id) is dormant]

    def _retire(self, session: OutboxSession, mark: ServerMark, files: FindFiles) -> None:
        for lane in session.lanes.values():
            if lane.verified != lane.acknowledged:  # what came last was refused, so nothing of it is to be found
                lane.verified, session.unsaved = lane.acknowledged, True
        if session.unsaved or not session.saved:
            self._save(session)
        if session.unsaved:
            return
        tables = session.tables | {lane.stream.table for lane in session.lanes.values() if lane.acknowledged.seq}
        self.remove_session(session.session_id)
        self._lay_down(
            Dormant(
                session.session_id, session.exchange, session.directory, mark, tables, files,
                session.delivery(),
            )
        )  # fmt: skip

    def _lay_down(self, dormant: Dormant) -> None:
        self.dormant[dormant.session_id] = dormant
        self._fresh.append(dormant)

    def _is_done(self, lane: Lane) -> bool:
        waiting = lane in self.waiting.get(lane.stream.table, {})
        return not (waiting or lane.problem or lane.sealed is not None or lane.window.rows)

    def add_file(self, session_id: str, stream: Stream, symbol: str | None, path: Path) -> None:
        """Begin with a file; what stands in it in whole lines counts as durable, unless commits say how far it is."""
        lane = self._lane(session_id, stream, symbol, path)
        if lane is not None:
            if not lane.has_commits:
                self._measure(lane)
            self.mark_waiting(lane)

    def commit(self, session_id: str, commits: Sequence[Commit]) -> None:
        """Take note of what became durable."""
        dormant = self.dormant.pop(session_id, None)
        if dormant is not None:  # its files are in motion: only what commits say of them is durable
            self.add_session(session_id, dormant.exchange, dormant.directory)
            self.sessions[session_id].tables = dormant.tables
            self._over[session_id] = dormant.files
        for commit in commits:
            lane = self._lane(session_id, commit.file.stream, commit.file.symbol, commit.file.path)
            if lane is not None:
                lane.reader.extend(Durable(commit.first_seq, commit.offset, commit.last_seq))
                lane.has_commits = True
                lane.retry_at_s = 0.0
                self.mark_waiting(lane)

    def remove_session(self, session_id: str) -> None:
        """Save a session's cursor and forget it."""
        self._over.pop(session_id, None)
        self.dormant.pop(session_id, None)
        session = self.sessions.pop(session_id, None)
        if session is None:
            return
        for lane in session.lanes.values():
            self.waiting.get(lane.stream.table, {}).pop(lane, None)
            lane.reader.close()
        self._save(session)

    def rewind(self, session_id: str, from_seq: int, keys: Iterable[LaneKey] | None) -> None:
        """Send a session's rows again from this ``seq`` of each file on."""
        self.wake(session_id)
        session = self.sessions.get(session_id)
        if session is None:
            return
        wanted = set(keys) if keys is not None else None
        for key, lane in session.lanes.items():
            if wanted is None or key in wanted:
                try:
                    position = lane.reader.locate(from_seq) if from_seq > 0 else START
                except (OSError, LogDamaged) as error:
                    self._log.warning("replicator.rewind_failed", path=str(lane.path), reason=str(error))
                    position = START
                if position.seq < lane.acknowledged.seq:
                    self.send_again(lane, position)

    def _lane(self, session_id: str, stream: Stream, symbol: str | None, path: Path) -> Lane | None:
        session = self.sessions.get(session_id)
        if session is None:
            return None
        key = (stream.name, symbol)
        lane = session.lanes.get(key)
        if lane is None:
            lane = session.lanes[key] = Lane(session_id, session.exchange, stream, symbol, path)
            saved = session.saved.get(key)
            if saved is not None and session.mark is not None:
                # What was acknowledged after the last look into the table is sent again: cheap, and nobody has to
                # remember across a restart what that look still had to find.
                lane.rewind(saved.verified)
                lane.verified = saved.verified
                lane.sent_seq = saved.acknowledged.seq
        return lane

    # What happens while delivering

    def mark_waiting(self, lane: Lane) -> None:
        """Take note that a lane may have something to send."""
        self.waiting.setdefault(lane.stream.table, {})[lane] = None

    def acknowledged(self, lane: Lane, position: Position) -> None:
        """Move a lane on."""
        lane.acknowledged = position
        durable = lane.reader.durable
        if position.segment == durable.first_seq and position.offset == durable.offset:
            self.waiting[lane.stream.table].pop(lane, None)
        self.sessions[lane.session_id].unsaved = True

    def send_again(self, lane: Lane, position: Position) -> None:
        """Move a lane back."""
        lane.rewind(position)
        self.mark_waiting(lane)
        self.sessions[lane.session_id].unsaved = True

    def damaged(self, lane: Lane, reason: str) -> None:
        """Begin a file that is not what the cursor says from its start; leave it for a while if that fails too."""
        self._log.error("replicator.log_damaged", path=str(lane.path), reason=reason, session_id=lane.session_id)
        if lane.acknowledged == START:
            self.unreadable(lane, reason)
            return
        self.send_again(lane, START)
        lane.verified = START
        self._measure(lane)

    def unreadable(self, lane: Lane, reason: str) -> None:
        """Leave a file for a while; say so once."""
        if lane.problem != reason:
            self._log.error("replicator.log_unreadable", path=str(lane.path), reason=reason, session_id=lane.session_id)
        lane.problem = reason
        lane.retry_at_s = self._clock.monotonic_s() + _RETRY_S

    def _measure(self, lane: Lane) -> None:
        try:
            lane.reader.measure()
        except (OSError, LogDamaged) as error:
            self.unreadable(lane, str(error))

    # Cursors

    def save_due(self, *, all_now: bool = False) -> None:
        """Save the cursors that changed, each at most once a second; a failure costs only that rows are sent again."""
        now = self._clock.monotonic_s()
        for session in self.sessions.values():
            if session.unsaved and (all_now or now >= session.save_at_s):
                self._save(session)

    def next_save_s(self) -> float | None:
        """Return when the next cursor is to be saved, by the monotonic clock."""
        return min((session.save_at_s for session in self.sessions.values() if session.unsaved), default=None)

    def _save(self, session: OutboxSession) -> None:
        begin = self._clock.monotonic_s()
        try:
            save_cursor(self._files, session.directory, session.cursor())
        except OSError as error:
            self._log.warning("replicator.cursor_not_saved", session_id=session.session_id, reason=str(error))
        else:
            session.unsaved = False
        end = self._clock.monotonic_s()
        session.save_at_s = end + max(_SAVE_INTERVAL_S, _SAVE_SHARE * (end - begin))
