"""Whether QuestDB still holds what it acknowledged: what is asked, and what follows from the answers.

An acknowledgement is neither "applied" nor "on disk". A table can be suspended, dropped, made again without its dedup
keys, or be an older copy from a backup, and the server goes on acknowledging. All of it is asked over ``/exec``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Literal

from collector.storage.batches import Lane, Window
from collector.storage.cursor import SavedTable, ServerMark
from collector.storage.questdb import Row, Transport, quoted
from collector.streams import Stream

MIN_VERSION = (9, 2)
"""Older servers damage tables when identical rows are sent again (questdb#6359, #6360)."""

_LANES_PER_QUERY = 100  # a condition each: about 16 kB of URL
_DAY_US = 86_400_000_000
_TTL_US = {"HOUR": 3_600_000_000, "DAY": _DAY_US, "WEEK": 7 * _DAY_US, "MONTH": 28 * _DAY_US, "YEAR": 365 * _DAY_US}
_REPAIR_HINT = "Run `collector db migrate --repair`."

FaultKind = Literal["missing", "dedup", "columns", "suspended"]


@dataclass(frozen=True, slots=True)
class Fault:
    """Why a table must not be written to now."""

    kind: FaultKind
    reason: str
    hint: str


@dataclass(frozen=True, slots=True)
class TableFacts:
    """A table as the server describes it: ``transaction`` is the last one accepted, ``applied`` the last visible."""

    directory: str
    dedup: bool
    suspended: bool
    error: str
    transaction: int
    applied: int
    ttl_us: int
    columns: Mapping[str, str]
    keys: frozenset[str]


@dataclass(frozen=True, slots=True)
class ServerFacts:
    """The server at one moment: its database instance, when it started, the tables that exist."""

    instance: str
    started: str
    tables: Mapping[str, TableFacts]


class Rewind(IntEnum):
    """How far a lane has to go back."""

    NONE = 0
    TO_VERIFIED = 1
    TO_START = 2


def read_facts(transport: Transport, streams: Iterable[Stream]) -> ServerFacts:
    """Ask the server. Raises DatabaseUnavailable and DatabaseMisconfigured."""
    identity = transport.query("select current_data_id() instance, pg_postmaster_start_time() started")[0]
    names = quoted([stream.table for stream in streams])
    rows = transport.query(
        "select t.table_name, t.directoryName, t.dedup, t.table_suspended, t.ttlValue, t.ttlUnit, w.suspended,"  # noqa: S608 - the registry's names, quoted
        " w.sequencerTxn, w.writerTxn, w.errorTag, w.errorMessage"
        f" from tables() t left join wal_tables() w on w.name = t.table_name where t.table_name in ({names})"
    )
    tables = {}
    for row in rows:
        name = str(row["table_name"])
        columns = transport.query(f"select * from table_columns({quoted([name])})")  # noqa: S608 - quoted
        tables[name] = _table_facts(row, columns)
    return ServerFacts(str(identity["instance"]), str(identity["started"]), tables)


def _table_facts(row: Row, columns: Sequence[Row]) -> TableFacts:
    problem = " ".join(str(row[name]) for name in ("errorTag", "errorMessage") if row[name])
    return TableFacts(
        directory=str(row["directoryName"]),
        dedup=bool(row["dedup"]),
        suspended=bool(row["table_suspended"]) or bool(row["suspended"]),
        error=problem,
        transaction=_integer(row["sequencerTxn"]),
        applied=_integer(row["writerTxn"]),
        ttl_us=_integer(row["ttlValue"]) * _TTL_US.get(str(row["ttlUnit"]), 0),
        columns={str(column["column"]): str(column["type"]) for column in columns},
        keys=frozenset(str(column["column"]) for column in columns if column["upsertKey"]),
    )


def _integer(value: object) -> int:
    return value if isinstance(value, int) else 0


def find_faults(facts: ServerFacts, streams: Iterable[Stream]) -> dict[str, Fault]:
    """Return, per table, why it must not be written to."""
    faults = {stream.table: _fault(facts.tables.get(stream.table), stream) for stream in streams}
    return {table: fault for table, fault in faults.items() if fault is not None}


def _fault(table: TableFacts | None, stream: Stream) -> Fault | None:
    name = stream.table
    if table is None:
        return Fault("missing", f"The table {name} does not exist.", _REPAIR_HINT)
    wrong = [column for column, kind in stream.table_columns if table.columns.get(column) != kind.value]
    if wrong:
        reason = f"The table {name} lacks columns, or has them of another type: {', '.join(wrong)}."
        return Fault("columns", reason, "Run `collector db migrate`.")
    if not table.dedup or table.keys != frozenset(stream.keys):
        reason = f"The table {name} does not have the dedup keys {', '.join(stream.keys)}."
        return Fault("dedup", reason, _REPAIR_HINT)
    if table.suspended:
        reason = f"The table {name} is suspended: {table.error or 'without a reason'}."
        return Fault("suspended", reason, "Make room or remove the cause; it is resumed by itself.")
    return None


def mark_of(facts: ServerFacts) -> ServerMark:
    """Return what to remember of the server until the next check."""
    tables = {name: SavedTable(table.directory, table.transaction) for name, table in facts.tables.items()}
    return ServerMark(facts.instance, facts.started, tables)


def rewind_of(mark: ServerMark, facts: ServerFacts, table: str) -> tuple[Rewind, str]:
    """Return how far a table's lanes have to go back since the last check, and why."""
    if mark.instance != facts.instance:
        return Rewind.TO_START, "another database"
    before, now = mark.tables.get(table), facts.tables.get(table)
    if now is not None:
        if before is None or before.directory != now.directory:
            return Rewind.TO_START, "the table was made again"
        if now.transaction < before.transaction:
            return Rewind.TO_START, "the table is an older one"
    if mark.started != facts.started:
        return Rewind.TO_VERIFIED, "the server was restarted"
    return Rewind.NONE, ""


def oldest_kept_us(table: TableFacts, now_us: int) -> int | None:
    """Return the time before which a table keeps nothing; None where it keeps everything."""
    return now_us - table.ttl_us if table.ttl_us else None


def lanes_with_missing_rows(transport: Transport, lanes: Sequence[Lane], oldest_us: int | None) -> list[Lane]:
    """Return the lanes of one session and stream whose sealed rows are not all in the table.

    Of tick streams each row is counted; of keyed ones the last row must be there (earlier ones may be replaced).
    Rows that retention may have taken meanwhile are not asked for.
    """
    bound_us = 0 if oldest_us is None else oldest_us + _DAY_US  # a TTL drops whole partitions, a day here
    asked = [lane for lane in lanes if lane.sealed is not None and lane.sealed.window.first_us >= bound_us]
    missing = []
    for begin in range(0, len(asked), _LANES_PER_QUERY):
        part = asked[begin : begin + _LANES_PER_QUERY]
        found = {row["symbol"]: row for row in transport.query(_count_query(part))}
        missing += [lane for lane in part if not _holds(lane, found.get(lane.symbol))]
    return missing


def _count_query(lanes: Sequence[Lane]) -> str:
    stream, windows = lanes[0].stream, [lane.sealed.window for lane in lanes if lane.sealed is not None]
    time = stream.timestamp.in_database
    symbol = "symbol" if stream.per_symbol else "null symbol"
    conditions = [_condition(lane, window) for lane, window in zip(lanes, windows, strict=True)]
    return (
        f"select {symbol}, count() rows, max(seq) last from {stream.table}"  # noqa: S608 - names are the registry's
        f" where {time} >= {min(window.first_us for window in windows)}"
        f" and {time} <= {max(window.last_us for window in windows)}"
        f" and session_id = {quoted([lanes[0].session_id])} and ({' or '.join(conditions)})"
    )


def _condition(lane: Lane, window: Window) -> str:
    terms = [f"seq >= {window.first_seq}"]
    if not lane.stream.keyed:  # a keyed row may have been replaced by a later one meanwhile
        terms.append(f"seq <= {window.last_seq}")
    if lane.stream.per_symbol:
        terms.append(f"symbol = {quoted([lane.symbol or ''])}")
    return f"({' and '.join(terms)})"


def _holds(lane: Lane, found: Row | None) -> bool:
    if lane.sealed is None:
        return True
    if found is None:
        return lane.sealed.window.rows == 0
    if lane.stream.keyed:
        return _integer(found["last"]) >= lane.sealed.window.last_seq
    return _integer(found["rows"]) >= lane.sealed.window.rows
