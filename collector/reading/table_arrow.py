"""A session's rows out of QuestDB as Arrow, in portions of time: bounded memory, two requests at a time."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from collector.config import QuestDB
from collector.errors import DatabaseUnavailable
from collector.reading.arrow import Table, extra, schema_of
from collector.reading.parallel import in_order
from collector.storage.export import export_parquet
from collector.storage.sql import Connection, to_microseconds, to_timestamp
from collector.streams import Column, Stream

PORTION_ROWS = 250_000
_BUCKET_US = 60_000_000
_QUERY_TIMEOUT_S = 120.0


@dataclass(frozen=True, slots=True)
class Held:
    """What a table holds of one symbol of a session: how many rows, and the highest ``seq``."""

    rows: int
    last_seq: int


@dataclass(frozen=True, slots=True)
class Selection:
    """Which rows of a table: a session's, of one symbol (None: of all), in a span of time, up to a ``seq``.

    Times are microseconds; ``from_us`` is included, ``to_us`` is not; None is no bound.
    """

    stream: Stream
    session_id: str
    symbol: str | None
    from_us: int | None = None
    to_us: int | None = None
    until_seq: int | None = None

    def where(self) -> tuple[sql.Composed, tuple[Any, ...]]:
        """Return the condition and the values that it is bound to."""
        time = sql.Identifier(self.stream.keys[0])
        terms: list[sql.Composable] = [sql.SQL("session_id = %s")]
        values: list[Any] = [self.session_id]
        if self.stream.per_symbol and self.symbol is not None:
            terms.append(sql.SQL("symbol = %s"))
            values.append(self.symbol)
        for bound, operator in ((self.from_us, ">="), (self.to_us, "<")):
            if bound is not None:
                terms.append(sql.SQL(f"{{}} {operator} %s").format(time))
                values.append(to_timestamp(bound))
        if self.until_seq is not None:
            terms.append(sql.SQL("seq <= %s"))
            values.append(self.until_seq)
        return sql.SQL(" AND ").join(terms), tuple(values)

    def literal(self) -> str:
        """Return the condition as text, for ``/exp``, which binds nothing."""
        time = self.stream.keys[0]
        terms = [f"session_id = {_text(self.session_id)}"]
        if self.stream.per_symbol and self.symbol is not None:
            terms.append(f"symbol = {_text(self.symbol)}")
        terms += [f"{time} >= '{_iso(self.from_us)}'"] if self.from_us is not None else []
        terms += [f"{time} < '{_iso(self.to_us)}'"] if self.to_us is not None else []
        terms += [f"seq <= {self.until_seq}"] if self.until_seq is not None else []
        return " AND ".join(terms)


class ResearchReader(Connection):
    """A connection that asks what tables hold of a session; it raises what ``Connection`` raises."""

    def __init__(self, settings: QuestDB, *, connect_timeout_s: float = 3) -> None:
        super().__init__(settings, connect_timeout_s=connect_timeout_s, query_timeout_s=_QUERY_TIMEOUT_S)

    def held(self, stream: Stream, session_id: str) -> dict[str | None, Held]:
        """Return what a stream's table holds, by symbol (None for a stream of the whole session)."""
        symbol = sql.SQL("symbol, " if stream.per_symbol else "")
        query = sql.SQL("SELECT {}count(), max(seq) FROM {} WHERE session_id = %s").format(
            symbol, sql.Identifier(stream.table)
        )
        if stream.per_symbol:
            query += sql.SQL(" GROUP BY symbol")
        found = self.ask(query, (session_id,))
        return {row[0] if stream.per_symbol else None: Held(int(row[-2]), int(row[-1] or 0)) for row in found}

    def portions(self, selection: Selection, rows: int = PORTION_ROWS) -> list[tuple[Selection, int]]:
        """Cut a selection into spans of time of about so many rows, each with how many it has."""
        condition, values = selection.where()
        query = sql.SQL("SELECT {}, count() FROM {} WHERE {} SAMPLE BY 1m ALIGN TO CALENDAR").format(
            sql.Identifier(selection.stream.keys[0]), sql.Identifier(selection.stream.table), condition
        )
        found: list[tuple[Selection, int]] = []
        begin: int | None = None
        counted = 0
        buckets = [(to_microseconds(at) or 0, int(count)) for at, count in self.ask(query, values)]
        for n, (at, count) in enumerate(buckets):
            begin = at if begin is None else begin
            counted += count
            if counted >= rows or n == len(buckets) - 1:
                found.append((_within(selection, begin, at + _BUCKET_US), counted))
                begin, counted = None, 0
        return found

    def ask(self, query: sql.Composed, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        """Return the rows of a query that was composed of our own words and identifiers."""
        with self._bounded(), self._connection.cursor(binary=True) as cursor:
            return cursor.execute(query, values).fetchall()


def _within(selection: Selection, from_us: int, to_us: int) -> Selection:
    lower = from_us if selection.from_us is None else max(from_us, selection.from_us)
    upper = to_us if selection.to_us is None else min(to_us, selection.to_us)
    return Selection(selection.stream, selection.session_id, selection.symbol, lower, upper, selection.until_seq)


def read_portions(
    settings: QuestDB, portions: Sequence[tuple[Selection, int]], columns: Sequence[Column]
) -> Iterator[Table]:
    """Return portions of a table in their order, each by (time, ``seq``).

    Raises:
        DatabaseUnavailable: no answer, or other rows than were counted.
        DatabaseMisconfigured: the server exports no Parquet.
    """
    yield from in_order(lambda portion: _read(settings, *portion, columns), portions)


def _read(settings: QuestDB, selection: Selection, rows: int, columns: Sequence[Column]) -> Table:
    pa, parquet = extra("pyarrow"), extra("pyarrow.parquet")
    names = [column.in_database for column in columns]
    time = selection.stream.keys[0]
    asked = {column.in_database: _expression(column) for column in columns}
    asked |= {name: _name(name) for name in (time, "seq")}
    query = f"SELECT {', '.join(asked.values())} FROM {selection.stream.table} WHERE {selection.literal()}"  # noqa: S608  our own names
    content = export_parquet(settings, query)
    table = parquet.read_table(pa.BufferReader(content), use_threads=False)
    if table.num_rows != rows:
        raise DatabaseUnavailable(
            f"{selection.stream.table} gave {table.num_rows} rows where it had counted {rows}.",
            hint="It changed meanwhile; read again.",
        )
    return by_time_and_seq(table, time).select(names).cast(schema_of(columns))


def by_time_and_seq(table: Table, time: str) -> Table:
    """Return a table sorted by time and ``seq``; as it is where that is its order."""
    pa, numpy = extra("pyarrow"), extra("numpy")
    times, seqs = (table[name].cast("int64").to_numpy() for name in (time, "seq"))
    earlier, later = slice(None, -1), slice(1, None)
    disordered = (times[later] < times[earlier]) | ((times[later] == times[earlier]) & (seqs[later] < seqs[earlier]))
    return table.take(pa.array(numpy.lexsort((seqs, times)))) if disordered.any() else table


def _expression(column: Column) -> str:
    """Return what to select for a column; deep levels of a book are in its arrays: prices in row 1, sizes in row 2."""
    name = _name(column.in_database)
    if not column.only_in_array:
        return name
    side, what, level = column.in_database.split("_")
    return f"{side}s[{1 if what == 'price' else 2}, {level}] {name}"


def _name(column: str) -> str:
    return f'"{column}"'


def _text(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _iso(time_us: int | None) -> str:
    at = to_timestamp(time_us)
    return at.isoformat(timespec="microseconds") + "Z" if at is not None else ""
