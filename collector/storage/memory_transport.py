"""A QuestDB in memory, as far as delivery knows one: for tests that need thousands of servers, and to try things out.

It keeps what matters to the replicator: dedup keys, transactions that are accepted before they are applied, tables that
are dropped, made again, suspended or restored from a copy. It reads the ILP text and answers the questions that
``storage/checks.py`` and ``storage/survey.py`` ask, and no others. A test sends the same to it and to the real one.
"""

from __future__ import annotations

import copy
import re
import struct
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field

from collector.errors import DatabaseMisconfigured, DatabaseUnavailable
from collector.storage.questdb import Acknowledged, Maybe, Outcome, Rejected, Row
from collector.streams import STREAMS, Kind, Stream

Value = str | int | float | bool | tuple[tuple[float, ...], ...]
Key = tuple[object, ...]
Condition = Callable[[Row], bool]

_ILP_FIELD = re.compile(r'(?P<name>[a-z_0-9]+)=(?:"(?P<text>(?:[^"\\]|\\.)*)"|(?P<plain>[^, ]+))')
_ILP_LINE = re.compile(r"(?P<table>[a-z_0-9]+)(?P<tags>(?:,[a-z_0-9]+=(?:[^ ,\\]|\\.)+)*) (?P<rest>.+)")
_ILP_ARRAY = b"==\x0e\x0a\x02"
_ILP_TAG = re.compile(r",(?P<name>[a-z_0-9]+)=(?P<value>(?:[^ ,\\]|\\.)+)")
_TOKEN = re.compile(r"\s*(?:(?P<text>'(?:[^']|'')*')|(?P<word>[A-Za-z_0-9.-]+)|(?P<sign>[()]|>=|<=|=|>|<))")
_COUNT = re.compile(r"select (?P<what>.+?) from (?P<table>\w+) where (?P<where>.+)", re.DOTALL)


@dataclass
class MemoryTable:
    """A table: ``accepted`` transactions wait until they are applied; ``rows`` is what shows."""

    stream: Stream
    directory: str
    dedup: bool = True
    suspended: bool = False
    applied: int = 0
    accepted: list[list[Row]] = field(default_factory=list)
    rows: dict[Key, Row] = field(default_factory=dict)

    @property
    def transaction(self) -> int:
        return self.applied + len(self.accepted)

    def apply(self) -> None:
        """Make what was accepted show: with dedup keys the last row of a key counts."""
        if self.suspended:
            return
        while self.accepted:
            for row in self.accepted.pop(0):
                key: Key = tuple(row.get(name) for name in self.stream.keys) if self.dedup else (len(self.rows),)
                self.rows[key] = row
            self.applied += 1


class MemoryQuestDB:
    """The server: it goes on while those who talk to it come and go.

    Args:
        applies_at_once: whether what is accepted shows before the answer; otherwise when ``apply`` is called, or asked.
    """

    def __init__(self, streams: Iterable[Stream] = tuple(STREAMS.values()), *, applies_at_once: bool = True) -> None:
        self.applies_at_once = applies_at_once
        self.up = True
        self.instance = "memory-1"
        self.starts = 1
        self.tables: dict[str, MemoryTable] = {}
        self._streams = {stream.table: stream for stream in streams}
        self._made = 0
        self.make_tables()

    def make_tables(self) -> None:
        """Make the tables that are missing, and give dedup keys back."""
        for name, stream in self._streams.items():
            if name not in self.tables:
                self._made += 1
                self.tables[name] = MemoryTable(stream, f"{name}~{self._made}")
            self.tables[name].dedup = True

    def drop(self, table: str) -> None:
        """Forget a table and its rows."""
        self.tables.pop(table, None)

    def suspend(self, table: str) -> None:
        """Have a table accept and not apply, as after a full disk."""
        self.tables[table].suspended = True

    def apply(self) -> None:
        """Apply everything that tables accepted."""
        for table in self.tables.values():
            table.apply()

    def restart(self, *, lost: int = 0) -> None:
        """Start again; the last ``lost`` transactions of each table that did not show yet are gone."""
        self.starts += 1
        self.up = True
        for table in self.tables.values():
            if lost:
                del table.accepted[-lost:]

    def backup(self) -> dict[str, MemoryTable]:
        """Return a copy of all tables."""
        return copy.deepcopy(self.tables)

    def restore(self, tables: dict[str, MemoryTable]) -> None:
        """Put a copy in the place of the tables."""
        self.tables = copy.deepcopy(tables)
        self.starts += 1

    def shown(self, table: str) -> list[Row]:
        """Return a table's rows as they show, by their number."""
        found = self.tables[table].rows.values() if table in self.tables else ()
        return sorted(found, key=lambda row: int(str(row["seq"])))

    def accept(self, body: bytes) -> Outcome:
        """Take lines as one transaction per table: all of them, or none and which one is to blame."""
        parsed: dict[str, list[Row]] = {}
        for number, line in enumerate(split_lines(body), 1):
            try:
                table, row = parse_line(line)
            except ValueError as error:
                return Rejected(number, str(error))
            if table not in self.tables:
                return Rejected(number, f"table does not exist: {table}")
            parsed.setdefault(table, []).append(row)
        for name, rows in parsed.items():
            self.tables[name].accepted.append(rows)
            if self.applies_at_once:
                self.tables[name].apply()
        return Acknowledged()

    def answer(self, sql: str) -> list[Row]:
        """Answer a question of the checks; raise DatabaseMisconfigured for any other."""
        if "current_data_id()" in sql:
            return [{"instance": self.instance, "started": f"start-{self.starts}"}]
        if sql.startswith("alter table") and sql.endswith("resume wal"):
            table = self.tables[sql.split()[2]]
            table.suspended = False
            table.apply()
            return []
        if "from tables()" in sql:
            return [self._describe(name, table) for name, table in self.tables.items() if f"'{name}'" in sql]
        if "table_columns(" in sql:
            return self._columns(self.tables[sql.split("'")[1]])
        found = _COUNT.fullmatch(sql)
        if found is None or found["table"] not in self.tables:
            raise DatabaseMisconfigured(f"This is no question that the memory answers: {sql[:200]!r}.")
        return self._count(self.tables[found["table"]], found["what"], parse_condition(found["where"]))

    def _describe(self, name: str, table: MemoryTable) -> Row:
        return {
            "table_name": name, "directoryName": table.directory, "dedup": table.dedup,
            "table_suspended": table.suspended, "ttlValue": 0, "ttlUnit": "HOUR", "suspended": table.suspended,
            "sequencerTxn": table.transaction, "writerTxn": table.applied,
            "errorTag": "DISK FULL" if table.suspended else "", "errorMessage": "",
        }  # fmt: skip

    def _columns(self, table: MemoryTable) -> list[Row]:
        keys = table.stream.keys if table.dedup else ()
        columns = table.stream.table_columns
        return [{"column": name, "type": kind.value, "upsertKey": name in keys} for name, kind in columns]

    def _count(self, table: MemoryTable, what: str, condition: Condition) -> list[Row]:
        if not self.applies_at_once:
            table.apply()
        chosen = [row for row in table.rows.values() if condition(row)]
        if not what.startswith(("symbol", "null symbol")):
            return [{"rows": len(chosen)}]
        groups: dict[object, list[int]] = {}
        for row in chosen:
            symbol = None if what.startswith("null") else row.get("symbol")
            groups.setdefault(symbol, []).append(int(str(row["seq"])))
        return [{"symbol": symbol, "rows": len(seqs), "last": max(seqs)} for symbol, seqs in groups.items()]


class MemoryTransport:
    """A connection to a server in memory; it fails where the server is down."""

    def __init__(self, server: MemoryQuestDB) -> None:
        self._server = server

    def send(self, table: str, body: bytes, rows: int) -> Outcome:  # noqa: ARG002 - the protocol's
        """Send lines as ``HttpTransport.send`` does."""
        return self._server.accept(body) if self._server.up else Maybe("The server is down.")

    def query(self, sql: str) -> list[Row]:
        """Ask as ``HttpTransport.query`` does."""
        if not self._server.up:
            raise DatabaseUnavailable("The server is down.")
        return self._server.answer(sql)

    def version(self) -> tuple[int, ...]:
        """Return a version that is new enough."""
        if not self._server.up:
            raise DatabaseUnavailable("The server is down.")
        return (9, 3, 4)

    def close(self) -> None:
        """Do nothing: there is no connection."""

    def abort(self) -> None:
        """Do nothing: nothing ever waits."""


class FailingTransport:
    """Pass everything on to another transport, count it, and fail the chosen calls.

    ``lost`` fails a call after it was done, as an answer that is lost does; otherwise it fails before.
    """

    def __init__(self, inner: MemoryTransport) -> None:
        self.calls: list[str] = []
        self.failed: list[str] = []
        self._inner = inner
        self._at: tuple[int, bool, bool] | None = None

    def fail_at(self, call: int, *, for_good: bool = False, lost: bool = False) -> None:
        """Fail the n-th call from now on (the first is 1), and with ``for_good`` every one after it."""
        self._at = (len(self.calls) + call, for_good, lost)

    def heal(self) -> None:
        """Forget what was planned."""
        self._at = None

    def send(self, table: str, body: bytes, rows: int) -> Outcome:
        """Send, or fail as a connection does: nobody knows what arrived."""
        failing = self._count("send")
        if failing and not self._lost:
            return Maybe("The connection broke.")
        outcome = self._inner.send(table, body, rows)
        return Maybe("The answer was lost.") if failing else outcome

    def query(self, sql: str) -> list[Row]:
        """Ask, or fail."""
        if self._count("query"):
            raise DatabaseUnavailable("The connection broke.")
        return self._inner.query(sql)

    def version(self) -> tuple[int, ...]:
        """Return the version, or fail."""
        if self._count("version"):
            raise DatabaseUnavailable("The connection broke.")
        return self._inner.version()

    def close(self) -> None:
        """Close what is behind."""
        self._inner.close()

    def abort(self) -> None:
        """Break off what is behind."""
        self._inner.abort()

    @property
    def _lost(self) -> bool:
        return self._at is not None and self._at[2]

    def _count(self, call: str) -> bool:
        self.calls.append(call)
        if self._at is None:
            return False
        at, for_good, _ = self._at
        failing = len(self.calls) == at or (for_good and len(self.calls) > at)
        if failing:
            self.failed.append(call)
        return failing


def split_lines(body: bytes) -> Iterator[str]:
    """Return a body's lines as text; an array, whose bytes may be those of a line's end, becomes its numbers."""
    line, at = "", 0
    while at < len(body):
        end = body.index(b"\n", at)
        mark = body.find(_ILP_ARRAY, at, end + 2)  # its fourth byte is that of a line's end
        if mark < 0:
            yield line + body[at:end].decode()
            line, at = "", end + 1
            continue
        start = mark + len(_ILP_ARRAY)
        rows, columns = struct.unpack_from("<II", body, start)
        values = struct.unpack_from(f"<{rows * columns}d", body, start + 8)
        line += body[at:mark].decode() + "=" + ";".join([str(columns), *map(repr, values)])
        at = start + 8 + 8 * len(values)


def parse_line(line: str) -> tuple[str, Row]:
    """Return the table and the row of an ILP line; raise ValueError where it is none."""
    found = _ILP_LINE.fullmatch(line)
    if found is None:
        raise ValueError("this is no ILP line")
    fields, _, stamp = found["rest"].rpartition(" ")
    stream = next((stream for stream in STREAMS.values() if stream.table == found["table"]), None)
    if stream is None:
        raise ValueError(f"table does not exist: {found['table']}")
    row: Row = {stream.timestamp.in_database: int(stamp)}
    row.update((tag["name"], _unescaped(tag["value"])) for tag in _ILP_TAG.finditer(found["tags"]))
    kinds = dict(stream.table_columns)
    for match in _ILP_FIELD.finditer(fields):
        row[match["name"]] = _value(match, kinds.get(match["name"]))
    return found["table"], row


def _value(match: re.Match[str], kind: Kind | None) -> Value:
    if kind is None:
        raise ValueError(f"there is no column {match['name']}")
    if match["text"] is not None:
        return _unescaped(match["text"])
    plain = match["plain"]
    if kind is Kind.BOOLEAN:
        return plain == "true"
    if kind is Kind.DOUBLES:
        columns, *numbers = plain.split(";")
        return tuple(
            tuple(map(float, numbers[begin : begin + int(columns)])) for begin in range(0, len(numbers), int(columns))
        )
    if kind is Kind.DOUBLE:
        return float(plain)
    return int(plain.rstrip("it"))


def _unescaped(text: str) -> str:
    return re.sub(r"\\(.)", r"\1", text)


def parse_condition(text: str) -> Condition:
    """Turn a WHERE clause of comparisons, ``and``, ``or`` and parentheses into a test of rows."""
    tokens = iter([*_tokens(text), ""])
    state = [next(tokens)]

    def advance() -> str:
        token = state[0]
        state[0] = next(tokens, "")
        return token

    def either() -> Condition:
        parts = [both()]
        while state[0] == "or":
            advance()
            parts.append(both())
        return lambda row: any(part(row) for part in parts)

    def both() -> Condition:
        parts = [atom()]
        while state[0] == "and":
            advance()
            parts.append(atom())
        return lambda row: all(part(row) for part in parts)

    def atom() -> Condition:
        if state[0] == "(":
            advance()
            inner = either()
            advance()
            return inner
        name, sign, literal = advance(), advance(), advance()
        value: object = literal[1:-1].replace("''", "'") if literal.startswith("'") else int(literal)
        return lambda row: _compare(row.get(name), sign, value)

    return either()


def _tokens(text: str) -> Iterator[str]:
    return (match[0].strip() for match in _TOKEN.finditer(text))


def _compare(found: object, sign: str, value: object) -> bool:
    if sign == "=":
        return found == value
    if not isinstance(found, int) or not isinstance(value, int):
        return False
    return {">=": found >= value, "<=": found <= value, ">": found > value, "<": found < value}[sign]
