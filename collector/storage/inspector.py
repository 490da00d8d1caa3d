"""Look after the server at each reconnect and every few seconds: repair, resume, rewind, verify."""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Sequence

from collector.clock import Clock
from collector.errors import CollectorError, DatabaseMisconfigured
from collector.storage.batches import Lane, Sealed, Window
from collector.storage.checks import (
    MIN_VERSION,
    Fault,
    Rewind,
    ServerFacts,
    TableFacts,
    find_faults,
    lanes_with_missing_rows,
    mark_of,
    oldest_kept_us,
    read_facts,
    rewind_of,
)
from collector.storage.cursor import START, ServerMark
from collector.storage.delivery import EventLog
from collector.storage.outbox import Outbox
from collector.storage.questdb import Transport
from collector.streams import Stream

_RESUME_WAIT_S = 1.0
_RESUME_POLL_S = 0.05
_LOST_LOG = re.compile(r"cannot read WAL event file|wal\d+.*does not exist|does not exist.*wal\d+").search
"""What a table says whose log of accepted rows has lost files: it can never apply them."""
_MAX_RESENDS = 3  # of the same rows that the table does not show; then a person has to look

RepairTables = Callable[[], None]
"""Makes the declared tables whole: missing ones are created, lost dedup keys enabled. Raises CollectorError."""


class Inspector:
    """Keeps the tables' faults, and moves lanes back where the server no longer holds what it acknowledged."""

    def __init__(
        self,
        transport: Transport,
        outbox: Outbox,
        streams: Sequence[Stream],
        *,
        clock: Clock,
        log: EventLog,
        repair_tables: RepairTables | None,
    ) -> None:
        self.faults: dict[str, Fault] = {}
        self.oldest_us: dict[str, int | None] = {}
        self.rewinds = 0
        self._directories: dict[str, str] = {}
        self._seen: ServerMark | None = None
        self._transport = transport
        self._outbox = outbox
        self._streams = streams
        self._clock = clock
        self._log = log
        self._repair_tables = repair_tables

    def inspect(self, *, reconnected: bool) -> None:
        """Look once. Raises DatabaseUnavailable and DatabaseMisconfigured."""
        if reconnected:
            self._refuse_old_server()
        facts = read_facts(self._transport, self._streams)
        faults = find_faults(facts, self._streams)
        if self._repair_tables is not None and any(fault.kind != "suspended" for fault in faults.values()):
            facts, faults = self._repair(self._repair_tables, faults)
        suspended = [table for table, fault in faults.items() if fault.kind == "suspended"]
        if suspended:
            facts = self._skip_lost(self._resume(suspended))
            faults = find_faults(facts, self._streams)
        resumed = [table for table in suspended if table not in faults]
        now_us = self._clock.now_us()
        self.oldest_us = {name: oldest_kept_us(table, now_us) for name, table in facts.tables.items()}
        self.faults = faults
        self._leave_stale_connection(facts)
        self._wake_sessions(facts)
        self._rewind(facts, resumed)
        self._verify(facts)
        self._seal(facts)
        self._outbox.lay_down()

    def applied(self, tables: Iterable[str]) -> bool:
        """Tell whether everything that these tables took is visible in them; False too where they are not the same.

        Raises as ``inspect``.
        """
        streams = [stream for stream in self._streams if stream.table in set(tables)]
        facts = read_facts(self._transport, streams)
        if find_faults(facts, streams) or self._has_changed(facts, streams):
            return False
        return all(table.applied >= table.transaction for table in facts.tables.values())

    def _has_changed(self, facts: ServerFacts, streams: Iterable[Stream]) -> bool:
        """Tell whether a look now would move lanes back: for a moment, a dropped table goes on acknowledging."""
        return any(
            rewind_of(session.mark, facts, stream.table)[0] is not Rewind.NONE
            for session in self._outbox.sessions.values()
            if session.mark is not None
            for stream in streams
        )

    def _leave_stale_connection(self, facts: ServerFacts) -> None:
        """Connect anew where a table is another one than at the last look.

        The server remembers tables per connection: on the old one it would go on acknowledging rows for the table that
        was dropped, and they would be nowhere.
        """
        directories = {name: table.directory for name, table in facts.tables.items()}
        if self._directories != directories:
            self._transport.close()
        self._directories = directories

    def _wake_sessions(self, facts: ServerFacts) -> None:
        """Look after sessions again that were over, where their tables are not those that had their rows."""
        seen, self._seen = self._seen, mark_of(facts)
        unchanged = seen is not None and seen.instance == facts.instance and seen.tables.keys() == facts.tables.keys()
        if seen is not None and unchanged:
            unchanged = all(
                table.directory == seen.tables[name].directory and table.transaction >= seen.tables[name].transaction
                for name, table in facts.tables.items()
            )
        fresh = self._outbox.take_fresh()
        for dormant in fresh if unchanged else list(self._outbox.dormant.values()):
            if any(rewind_of(dormant.mark, facts, table)[0] is Rewind.TO_START for table in dormant.tables):
                self._outbox.wake(dormant.session_id)

    def _refuse_old_server(self) -> None:
        version = self._transport.version()
        if version < MIN_VERSION:
            found, least = (".".join(map(str, numbers)) for numbers in (version, MIN_VERSION))
            raise DatabaseMisconfigured(
                f"QuestDB {found} damages tables when rows are sent again.", hint=f"Use QuestDB {least} or later."
            )

    def _repair(self, repair: RepairTables, faults: dict[str, Fault]) -> tuple[ServerFacts, dict[str, Fault]]:
        broken = sorted(table for table, fault in faults.items() if fault.kind != "suspended")
        try:
            repair()
        except CollectorError as error:
            self._log.error("replicator.repair_failed", tables=broken, reason=error.message, hint=error.hint)
        else:
            self._log.warning("replicator.tables_repaired", tables=broken)
        facts = read_facts(self._transport, self._streams)
        return facts, find_faults(facts, self._streams)

    def _resume(self, tables: Sequence[str]) -> ServerFacts:
        """Resume WAL apply; the server says OK even when it suspends the table again at once, so look a while."""
        for table in tables:
            self._transport.query(f"alter table {table} resume wal")
        return self._settle_down(tables)

    def _skip_lost(self, facts: ServerFacts) -> ServerFacts:
        """Have tables go on behind transactions whose files are gone from the server's disk.

        Their rows were acknowledged and are not in the table, so they lie behind the verified position: all of them
        are sent again. As little as possible is skipped at first, since what is not ours is not sent again.
        """
        known = {stream.table for stream in self._streams}
        step = 1
        while lost := [name for name, table in facts.tables.items() if name in known and _has_lost_log(table)]:
            for name in lost:
                table = facts.tables[name]
                goes_on = min(table.applied + step, table.transaction) + 1
                self._transport.query(f"alter table {name} resume wal from txn {goes_on}")
                self._log.warning(
                    "replicator.lost_transactions_skipped", table=name, from_transaction=table.applied + 1,
                    to_transaction=goes_on - 1, reason=table.error,
                )  # fmt: skip
            if step > max(facts.tables[name].transaction - facts.tables[name].applied for name in lost):
                return self._settle_down(lost)
            step *= 2
            facts = self._settle_down(lost)
        return facts

    def _settle_down(self, tables: Sequence[str]) -> ServerFacts:
        deadline = self._clock.monotonic_s() + _RESUME_WAIT_S
        while True:
            facts = read_facts(self._transport, self._streams)
            found = [facts.tables[table] for table in tables if table in facts.tables]
            clear = all(table.suspended or table.applied >= table.transaction for table in found)
            if clear or self._clock.monotonic_s() >= deadline:
                return facts
            time.sleep(_RESUME_POLL_S)

    def _rewind(self, facts: ServerFacts, resumed: Sequence[str]) -> None:
        mark = mark_of(facts)
        moved: dict[tuple[str, str], int] = {}
        for session in self._outbox.sessions.values():
            for lane in session.lanes.values():
                table = lane.stream.table
                rewind, reason = rewind_of(session.mark, facts, table) if session.mark else (Rewind.NONE, "")
                if table in resumed:
                    rewind, reason = max((rewind, reason), (Rewind.TO_VERIFIED, "the table was resumed"))
                if rewind is not Rewind.NONE and lane.acknowledged != START:
                    self._outbox.send_again(lane, START if rewind is Rewind.TO_START else lane.verified)
                    moved[table, reason] = moved.get((table, reason), 0) + 1
            session.unsaved = session.unsaved or session.mark != mark
            session.mark = mark
        for (table, reason), files in moved.items():
            self.rewinds += 1
            self._log.warning("replicator.rewound", table=table, reason=reason, files=files)

    def _verify(self, facts: ServerFacts) -> None:
        """Count, in the tables that have applied them, the rows that were sealed at an earlier look."""
        groups: dict[tuple[str, str], list[Lane]] = {}
        for lane in self._outbox.lanes():
            table = facts.tables.get(lane.stream.table)
            if lane.sealed is None or table is None or lane.stream.table in self.faults:
                continue
            if table.applied >= lane.sealed.transaction:
                groups.setdefault((lane.session_id, lane.stream.name), []).append(lane)
        for lanes in groups.values():
            oldest_us = self.oldest_us.get(lanes[0].stream.table)
            missing = set(lanes_with_missing_rows(self._transport, lanes, oldest_us))
            for lane in lanes:
                self._settle(lane, missing=lane in missing)

    def _settle(self, lane: Lane, *, missing: bool) -> None:
        sealed = lane.sealed
        if sealed is None:
            return
        if missing and lane.missing < _MAX_RESENDS:
            lane.missing += 1
            self.rewinds += 1
            self._log.warning(
                "replicator.rows_missing",
                path=str(lane.path),
                from_seq=sealed.window.first_seq,
                to_seq=sealed.window.last_seq,
            )
            self._outbox.send_again(lane, lane.verified)
            return
        if missing:
            self._log.error(
                "replicator.rows_not_kept",
                path=str(lane.path),
                from_seq=sealed.window.first_seq,
                to_seq=sealed.window.last_seq,
                hint="Run `collector verify` for this session.",
            )
        lane.missing = 0
        lane.verified = sealed.end
        lane.sealed = None

    def _seal(self, facts: ServerFacts) -> None:
        for lane in self._outbox.lanes():
            table = facts.tables.get(lane.stream.table)
            if table is None or lane.sealed is not None:
                continue
            if lane.window.rows:
                lane.sealed = Sealed(lane.window, lane.acknowledged, table.transaction)
                lane.window = Window()


def _has_lost_log(table: TableFacts) -> bool:
    return table.suspended and table.applied < table.transaction and _LOST_LOG(table.error) is not None
