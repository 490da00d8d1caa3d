"""QuestDB: whether its tables are whole, and whether it has as many rows of the sessions as their files."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from collector.config import QuestDB
from collector.doctor.files import SessionFiles, StreamFacts
from collector.doctor.findings import Case, case
from collector.errors import CollectorError, UsageError
from collector.reading.verify import rejected_seqs
from collector.storage.checks import MIN_VERSION, find_faults, read_facts
from collector.storage.cursor import CURSOR_FILE
from collector.storage.files import Files
from collector.storage.migrations import repair_tables
from collector.storage.questdb import HttpTransport, Transport, quoted
from collector.storage.sql import connect
from collector.streams import STREAMS

Resend = Callable[[str], None]
"""Have a session's rows sent again: by the daemon, or at its next start."""


class DatabaseExamination:
    """Examine a server's tables, and count its rows of sessions.

    Args:
        settings: where it answers.
        ours: the server is the embedded one, whose tables are ours to make.
        resend: has a session's rows sent again.
    """

    def __init__(self, settings: QuestDB, *, resend: Resend) -> None:
        self._settings = settings
        self._resend = resend
        self._transport: Transport = HttpTransport.from_config(settings)
        self._broken: set[str] = set()

    @property
    def address(self) -> str:
        return f"{self._settings.ilp_host}:{self._settings.ilp_port}"

    def close(self) -> None:
        """Close the connection."""
        self._transport.close()

    def examine_tables(self) -> list[Case]:
        """Return what is wrong with the server and its tables; raises what the transport raises."""
        version = self._transport.version()
        cases = []
        if version < MIN_VERSION:
            found, least = (".".join(map(str, numbers)) for numbers in (version, MIN_VERSION))
            text = f"QuestDB {found} damages tables when rows are sent again."
            cases.append(case("server-old", self.address, text, f"Use QuestDB {least} or later."))
        faults = find_faults(read_facts(self._transport, list(STREAMS.values())), STREAMS.values())
        self._broken = set(faults)
        # A suspended table goes first: nothing can be altered before it applies what it took.
        for table, fault in sorted(faults.items(), key=lambda found: found[1].kind != "suspended"):
            mend: Callable[[], object]
            if fault.kind == "suspended":
                remedy, mend = "It is resumed.", self._resume(table)
            else:
                remedy, mend = "Missing tables are made again, columns and dedup keys are given back.", self._repair
            cases.append(case(f"table-{fault.kind}", table, fault.reason, remedy, mend=mend))
        return cases

    def _repair(self) -> None:
        repair_tables(self._settings)

    def _resume(self, table: str) -> Callable[[], None]:
        def resume() -> None:
            self._transport.query(f"alter table {table} resume wal")
            again = find_faults(read_facts(self._transport, list(STREAMS.values())), STREAMS.values())
            if again.get(table, None) is not None and again[table].kind == "suspended":
                raise UsageError(again[table].reason, hint=again[table].hint)

        return resume

    def examine_rows(self, session: SessionFiles) -> list[Case]:
        """Compare the counts of a session that does not run; raises what the transport raises."""
        if session.manifest is None:
            return []
        rejected = rejected_seqs(session.directory)
        fewer, more = [], []
        for facts in session.streams:
            if facts.unreadable or facts.stream.keyed or facts.stream.table in self._broken:
                continue
            expected = self._expected(session, facts, len(rejected.get((facts.stream.name, facts.symbol or ""), ())))
            found = self._count(session.session_id, facts)
            if found < expected:
                fewer.append(f"{facts.subject}: {expected - found} of {expected}")
            elif found > expected:
                more.append(f"{facts.subject}: {found - expected}")
        return list(self._judge(session, fewer, more))

    def _judge(self, session: SessionFiles, fewer: Sequence[str], more: Sequence[str]) -> list[Case]:
        cases = []
        if fewer:
            text = f"QuestDB lacks rows ({'; '.join(fewer)})."
            remedy = "They are sent again, which doubles nothing."
            session_id = session.session_id
            cases.append(case("rows-missing", session_id, text, remedy, mend=lambda: self._resend(session_id)))
        if more:
            text = f"QuestDB has rows that the files do not ({'; '.join(more)})."
            remedy = "`collector verify` names them; files put back from a copy would explain them."
            cases.append(case("rows-extra", session.session_id, text, remedy))
        return cases

    @staticmethod
    def _expected(session: SessionFiles, facts: StreamFacts, rejected: int) -> int:
        record = session.manifest.record(facts.stream.name, facts.symbol) if session.manifest else None
        released = record.released.rows if record is not None and record.released is not None else 0
        return facts.rows + released - rejected

    def _count(self, session_id: str, facts: StreamFacts) -> int:
        symbol = f" and symbol = {quoted([facts.symbol or ''])}" if facts.stream.per_symbol else ""
        query = f"select count() rows from {facts.stream.table} where session_id = {quoted([session_id])}{symbol}"  # noqa: S608 - the registry's names, the rest quoted
        return int(str(self._transport.query(query)[0]["rows"]))


def exchange_of_rows(settings: QuestDB, session_id: str) -> str:
    """Return the exchange that QuestDB's rows of a session name; empty where it has none or cannot be asked."""
    try:
        with connect(settings) as connection:
            for stream in STREAMS.values():
                if stream.per_symbol:
                    query = f"SELECT exchange FROM {stream.table} WHERE session_id = %s LIMIT 1"  # noqa: S608 - the registry's
                    found = connection.rows(query, session_id)
                    if found:
                        return str(found[0][0])
    except CollectorError:
        return ""
    return ""


def set_cursor_aside(directory: Path, files: Files) -> None:
    """Have the next daemon send a session's rows again: without a cursor it begins at the first one."""
    path = directory / CURSOR_FILE
    if path.exists():
        number = 1
        while (aside := path.with_name(f"{path.name}.damaged-{number}")).exists():
            number += 1
        files.rename(path, aside)
