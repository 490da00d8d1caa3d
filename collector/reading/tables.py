"""Any table of QuestDB, a page at a time: filtered, sorted, counted. Only reading, as the user that may only read."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from psycopg import sql

from collector.errors import UnknownName, UsageError
from collector.reading.times import to_us
from collector.storage.sql import Column, Connection

PAGE_MAX = 1_000
EXPORT_MAX = 100_000
Operator = Literal["=", "!=", "<", "<=", ">", ">=", "contains", "empty", "not empty"]
OPERATORS: tuple[Operator, ...] = ("=", "!=", "<", "<=", ">", ">=", "contains", "empty", "not empty")
_TEXTS = ("SYMBOL", "VARCHAR", "STRING")
_UNITS_PER_US = {"TIMESTAMP": 1, "TIMESTAMP_NS": 1000, "DATE": 0.001}
_COMPARISONS = {
    "=": sql.SQL(" = "), "!=": sql.SQL(" != "), "<": sql.SQL(" < "), "<=": sql.SQL(" <= "), ">": sql.SQL(" > "),
    ">=": sql.SQL(" >= "),
}  # fmt: skip
_NUMBERS = ("DOUBLE", "FLOAT", "LONG", "INT", "SHORT", "BYTE")


@dataclass(frozen=True, slots=True)
class Condition:
    """What rows must be: a column, an operator, and what a person wrote."""

    column: str
    operator: Operator
    value: str = ""


@dataclass(frozen=True, slots=True)
class Page:
    """Some rows of a table, and how many there are in all that fit."""

    columns: list[Column]
    rows: list[tuple[Any, ...]]
    total: int


class TableBrowser(Connection):
    """A connection that looks at tables; raises what ``Connection`` raises."""

    def tables(self) -> list[str]:
        """Return the names of the tables and views, in their order, without the server's own."""
        names = [str(row[0]) for row in self.rows("SELECT table_name FROM tables() ORDER BY table_name")]
        return [name for name in names if not name.startswith(("sys.", "telemetry", "_"))]

    def page(
        self,
        table: str,
        conditions: Sequence[Condition] = (),
        *,
        sort: str = "",
        descending: bool = False,
        limit: int = 100,
        offset: int = 0,
    ) -> Page:
        """Return a page of a table.

        Args:
            sort: the column to sort by; empty takes the order of the table.
            limit: rows of a page, ``PAGE_MAX`` at most.

        Raises:
            UnknownName: there is no such table or column.
            UsageError: a value does not fit its column.
        """
        return self._page(table, conditions, sort, descending, min(limit, PAGE_MAX), offset)

    def every(
        self, table: str, conditions: Sequence[Condition] = (), *, sort: str = "", descending: bool = False
    ) -> Page:
        """Return all rows that fit, ``EXPORT_MAX`` at most; ``total`` counts them all. Otherwise as ``page``."""
        return self._page(table, conditions, sort, descending, EXPORT_MAX, 0)

    def _page(
        self, table: str, conditions: Sequence[Condition], sort: str, descending: bool, limit: int, offset: int
    ) -> Page:
        columns = self.columns_of(table)
        kinds = {column.name: column.type.upper() for column in columns}
        for name in (sort, *(one.column for one in conditions)):
            if name and name not in kinds:
                raise UnknownName(f"column of {table}", name, list(kinds))
        parts = [_condition(one, kinds[one.column]) for one in conditions]
        where = sql.Composed([])
        if parts:
            where = sql.Composed([sql.SQL(" WHERE "), sql.SQL(" AND ").join([part for part, _ in parts])])
        values = [value for _, given in parts for value in given]
        order = sql.Composed([])
        if sort:
            direction = sql.SQL(" DESC") if descending else sql.SQL(" ASC")
            order = sql.Composed([sql.SQL(" ORDER BY "), sql.Identifier(sort), direction])
        begin = max(0, offset)
        end = begin + max(1, limit)
        bounds = sql.SQL(" LIMIT {}, {}").format(sql.Literal(begin), sql.Literal(end))
        rows = self._ask(sql.SQL("SELECT * FROM {}").format(sql.Identifier(table)) + where + order + bounds, values)
        ((total,),) = self._ask(sql.SQL("SELECT count() FROM {}").format(sql.Identifier(table)) + where, values)
        return Page(columns, rows, int(total))

    def columns_of(self, table: str) -> list[Column]:
        """Return a table's columns; raise UnknownName where there is no such table."""
        known = self.tables()
        if table not in known:
            raise UnknownName("table", table, known)
        return self.columns(table)

    def _ask(self, query: sql.Composed, values: Sequence[Any]) -> list[tuple[Any, ...]]:
        with self._bounded(), self._connection.cursor() as cursor:
            return cursor.execute(query, values).fetchall()


def _condition(condition: Condition, kind: str) -> tuple[sql.Composed, list[Any]]:
    column = sql.Identifier(condition.column)
    if condition.operator == "empty":
        return sql.SQL("{} IS NULL").format(column), []
    if condition.operator == "not empty":
        return sql.SQL("{} IS NOT NULL").format(column), []
    value = condition.value.strip()
    if condition.operator == "contains":
        if kind not in _TEXTS:
            raise UsageError(f"{condition.column} is no text.", hint="Compare it with = or <.")
        # Whatever a person writes is text to be found, not a pattern.
        return sql.SQL("position({}, %s) > 0").format(column), [value]
    comparison = sql.Composed([column, _COMPARISONS[condition.operator]])
    if kind in _UNITS_PER_US:
        return comparison + sql.SQL("%s"), [int((to_us(value) or 0) * _UNITS_PER_US[kind])]
    if kind in _NUMBERS:
        return comparison + sql.SQL("cast(%s AS DOUBLE)"), [_number(condition.column, value)]
    if kind == "BOOLEAN":
        return comparison + sql.SQL("%s"), [value.casefold() in ("true", "1", "yes")]
    return comparison + sql.SQL("%s"), [value]


def _number(column: str, text: str) -> float:
    try:
        return float(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is no number, and {column} holds numbers.") from error
