"""A stream's rows out of QuestDB, in ranges, in the binary format: fast, and doubles to the last bit."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

from psycopg import sql

from collector.errors import DatabaseMisconfigured, DatabaseUnavailable
from collector.storage.sql import Connection, to_timestamp
from collector.streams import BOOK_LEVELS, Kind, Stream

_TTL_UNITS_US = {"HOUR": 3_600_000_000, "DAY": 86_400_000_000, "WEEK": 7 * 86_400_000_000}
_POLL_S = 0.05

Record = tuple[Any, ...]
"""A table's row in the order of the CSV's columns; times are integer microseconds, NULL is None."""


@dataclass(frozen=True, slots=True)
class Source:
    """Whose rows: what a stream's file says of all of its rows by where it stands."""

    session_id: str
    exchange: str
    symbol: str | None


class TableReader(Connection):
    """A connection that reads streams' tables; it raises what ``Connection`` raises."""

    def records(self, stream: Stream, source: Source, seqs: tuple[int, int], times: tuple[int, int]) -> list[Record]:
        """Return the rows with ``seq`` and timestamp in the given ranges (both ends included), by ``seq``."""
        query = sql.SQL("SELECT {} FROM {} WHERE {} AND {} >= %s AND {} <= %s AND seq >= %s AND seq <= %s").format(
            _columns(stream), sql.Identifier(stream.table), _whose(stream), *[sql.Identifier(stream.keys[0])] * 2
        )
        bounds = (to_timestamp(times[0]), to_timestamp(times[1]), *seqs)
        rows = self._fetch(query, (*_whose_values(stream, source), *bounds))
        if stream.array_sides:
            rows = [_with_levels(stream, row) for row in rows]
        index = stream.seq_index
        rows.sort(key=lambda row: row[index])
        return rows

    def count(self, stream: Stream, source: Source, until_seq: int | None) -> int:  # type: ignore[override]
        """Count the rows of a session's stream, up to a ``seq`` where one is given (rows without ``seq`` count too)."""
        query, values = self._of_session(sql.SQL("count()"), stream, source)
        if until_seq is not None:
            query += sql.SQL(" AND (seq <= %s OR seq = NULL)")
            values = (*values, until_seq)
        return int(self._fetch(query, values)[0][0])

    def positions(self, stream: Stream, source: Source, seqs: tuple[int, int]) -> list[tuple[int, int, str]]:
        """Return ``seq``, time and exchange of a session's rows in a range of ``seq``, wherever they stand in time."""
        what = sql.SQL("seq, {}::long, exchange").format(sql.Identifier(stream.keys[0]))
        query, values = self._of_session(what, stream, source)
        found = self._fetch(query + sql.SQL(" AND seq >= %s AND seq <= %s"), (*values, *seqs))
        return sorted((int(seq), int(at), str(exchange)) for seq, at, exchange in found)

    def unnumbered(self, stream: Stream, source: Source) -> int:
        """Count a session's rows that have no ``seq``."""
        query, values = self._of_session(sql.SQL("count()"), stream, source)
        return int(self._fetch(query + sql.SQL(" AND seq = NULL"), values)[0][0])

    def later_row_of_key(self, stream: Stream, source: Source, key: Record, seq: int) -> bool:
        """Say whether a keyed stream's table holds a later row of a key (as the CSV's columns that make it give it)."""
        names = key_columns(stream)
        query, values = self._of_session(sql.SQL("count()"), stream, source)
        for name, _ in names:
            query += sql.SQL(" AND {} = %s").format(sql.Identifier(name))
        bound = [to_timestamp(v) if k is Kind.TIMESTAMP else v for v, (_, k) in zip(key, names, strict=True)]
        return bool(self._fetch(query + sql.SQL(" AND seq > %s"), (*values, *bound, seq))[0][0])

    def ttl_us(self, stream: Stream) -> int:
        """Return how long the table keeps its rows, in microseconds; 0 where it keeps them for ever."""
        found = self.rows("SELECT ttlValue, ttlUnit FROM tables() WHERE table_name = %s", stream.table)
        if not found:
            raise DatabaseMisconfigured(
                f"QuestDB at {self.address} has no table {stream.table}.", hint="Run `collector db migrate --repair`."
            )
        value, unit = found[0]
        return int(value or 0) * _TTL_UNITS_US.get(str(unit), 30 * 86_400_000_000)

    def wait_applied(self, stream: Stream, timeout_s: float) -> None:
        """Wait until the table shows everything that the server had acknowledged when this was called.

        Raises:
            DatabaseUnavailable: it does not within the time, or the table is suspended.
        """
        target: int | None = None
        deadline = time.monotonic() + timeout_s
        while True:
            query = "SELECT writerTxn, sequencerTxn, suspended FROM wal_tables() WHERE name = %s"
            found = self.rows(query, stream.table)
            if not found:
                return
            written, sequenced, suspended = found[0]
            target = sequenced if target is None else target
            if suspended:
                raise DatabaseUnavailable(f"The table {stream.table} is suspended.", hint="See `collector db status`.")
            if written >= target:
                return
            if time.monotonic() > deadline:
                raise DatabaseUnavailable(f"{stream.table} did not apply its writes within {timeout_s:g} s.")
            time.sleep(_POLL_S)

    def _of_session(self, what: sql.Composable, stream: Stream, source: Source) -> tuple[sql.Composed, tuple[Any, ...]]:
        """Begin a query on all rows of a session's stream, of whichever exchange they say they are."""
        query = sql.SQL("SELECT {} FROM {} WHERE session_id = %s").format(what, sql.Identifier(stream.table))
        values: tuple[Any, ...] = (source.session_id,)
        if stream.per_symbol:
            query += sql.SQL(" AND symbol = %s")
            values = (*values, source.symbol)
        return query, values

    def _fetch(self, query: sql.Composed, values: tuple[Any, ...]) -> list[Record]:
        with self._bounded(), self._connection.cursor(binary=True) as cursor:
            return cursor.execute(query, values).fetchall()


def key_columns(stream: Stream) -> list[tuple[str, Kind]]:
    """Return the columns of the CSV that make a row's key, by their names in the table, in the CSV's order."""
    return [(column.in_database, column.kind) for column in stream.columns if column.in_database in stream.keys]


def _columns(stream: Stream) -> sql.Composable:
    """Name the table's columns in the CSV's order, times as integers, and behind them the arrays."""
    plain = [column for column in stream.columns if not column.only_in_array]
    return sql.SQL(", ").join(
        [
            sql.SQL("{}::long" if column.kind is Kind.TIMESTAMP else "{}").format(sql.Identifier(column.in_database))
            for column in plain
        ]
        + [sql.Identifier(name) for name, _ in stream.array_sides]
    )


def _with_levels(stream: Stream, row: Record) -> Record:
    """Return a deep book's row in the order of the CSV's columns, the levels from the arrays.

    Where a column of a level and the array tell different values, or an array has more levels than a row of the CSV,
    that value is the pair of both, which equals no number.
    """
    width = 2 * stream.levels
    plain = list(row[: -len(stream.array_sides)])
    levels: list[Any] = []
    for array, at in zip(row[-len(stream.array_sides) :], (1, 1 + 2 * BOOK_LEVELS), strict=True):
        pairs = zip(*array, strict=False) if array else ()
        side: list[Any] = [value for pair in pairs for value in pair]
        excess = side[width:]
        side = side[:width] + [None] * (width - len(side))
        columns = plain[at : at + 2 * BOOK_LEVELS]
        side[: len(columns)] = [
            value if value == column else (column, value) for value, column in zip(side, columns, strict=False)
        ]
        if excess:
            side[-1] = (side[-1], *excess)
        levels += side
    return (plain[0], *levels, *plain[1 + 4 * BOOK_LEVELS :])


def _whose(stream: Stream) -> sql.Composable:
    symbol = " AND symbol = %s" if stream.per_symbol else ""
    return sql.SQL(f"session_id = %s{symbol} AND exchange = %s")


def _whose_values(stream: Stream, source: Source) -> tuple[Any, ...]:
    symbol = (source.symbol,) if stream.per_symbol else ()
    return (source.session_id, *symbol, source.exchange)
