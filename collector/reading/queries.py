"""Questions in SQL: the packaged ones with their parameters, and what may be asked at all.

A packaged query runs in QuestDB's console as it is: its parameters are variables that it declares, each with a default.
"""

from __future__ import annotations

import contextlib
import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from collector.config import QuestDB
from collector.errors import UnknownName, UsageError
from collector.storage.sql import Connection

_DECLARED = re.compile(r"^\s*@(\w+) := ('(?:[^']|'')*'|[^\s,]+)(,?)\s*-- (.*)$", re.MULTILINE)
_NUMBER = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,18})?")
_INTERVAL = re.compile(r"[1-9][0-9]{0,5}[UTsmhdwMy]")
_TOKEN = re.compile(r"""'(?:[^']|'')*'|"[^"]*"|--[^\n]*|/\*.*?\*/|\w+|;|\S""", re.DOTALL)
_READING = ("select", "with", "show", "explain", "declare")
_CHANGING = frozenset(
    [
        "insert",
        "update",
        "delete",
        "alter",
        "drop",
        "create",
        "truncate",
        "rename",
        "copy",
        "vacuum",
        "reindex",
        "repair",
        "refresh",
        "grant",
        "revoke",
        "cancel",
        "checkpoint",
        "snapshot",
        "begin",
        "commit",
        "rollback",
        "set",
        "into",
        "reload_config",
        "flush_query_cache",
        "hydrate_table_metadata",
        "simulate_crash",
        "simulate_warnings",
    ]
)


@dataclass(frozen=True, slots=True)
class Parameter:
    """A variable of a query: its default as SQL has it, and what it means."""

    name: str
    default: str
    meaning: str


@dataclass(frozen=True, slots=True)
class Query:
    """A packaged query."""

    name: str
    text: str
    meaning: str
    parameters: tuple[Parameter, ...] = field(default=())

    def filled(self, values: Mapping[str, str]) -> str:
        """Return the SQL with values in place of defaults.

        Raises:
            UnknownName: the query has no such parameter.
            UsageError: a value is not of the default's kind.
        """
        known = {parameter.name for parameter in self.parameters}
        for name in values:
            if name not in known:
                raise UnknownName(f"parameter of query {self.name}", name, sorted(known))

        def replaced(found: re.Match[str]) -> str:
            name, default = found[1], found[2]
            if name not in values:
                return found[0]
            return found[0].replace(f":= {default}", f":= {_literal(name, default, values[name])}", 1)

        return _DECLARED.sub(replaced, self.text)


def _literal(name: str, default: str, value: str) -> str:
    """Return a value as SQL, of the kind of the parameter's default."""
    if default.startswith("'"):
        if not value.isprintable():
            raise UsageError(f"The value of {name} has characters that cannot be printed.")
        return "'" + value.replace("'", "''") + "'"
    kind, pattern = ("an interval, as 30s or 5m", _INTERVAL) if default[-1].isalpha() else ("a number", _NUMBER)
    if not pattern.fullmatch(value):
        raise UsageError(f"{value!r} is no value of {name}.", hint=f"It is {kind}.")
    return value


def queries_folder() -> Path:
    """Return where the packaged queries are: in a checkout beside the migrations, otherwise in the package."""
    checkout = Path(__file__).resolve().parents[2] / "database" / "questdb" / "queries"
    return checkout if checkout.is_dir() else Path(__file__).resolve().parent / "sql"


def load_queries() -> dict[str, Query]:
    """Return the packaged queries by name."""
    return {path.stem: _load(path) for path in sorted(queries_folder().glob("*.sql"))}


def _load(path: Path) -> Query:
    text = path.read_text(encoding="utf-8")
    comment = []
    for line in text.splitlines():
        if not line.startswith("--"):
            break
        comment.append(line.removeprefix("--").strip())
    parameters = tuple(Parameter(found[1], found[2], found[4].strip()) for found in _DECLARED.finditer(text))
    return Query(path.stem, text, " ".join(comment), parameters)


def statement_of(name_or_sql: str, values: Mapping[str, str] | None = None) -> str:
    """Return the one statement that is meant: a packaged query's, filled, or a person's own.

    Raises:
        UnknownName: it is neither, or it has no such parameter.
        UsageError: it would do anything but read.
    """
    queries = load_queries()
    if name_or_sql in queries:
        return refuse_changes(queries[name_or_sql].filled(values or {}))
    if " " not in name_or_sql.strip():
        raise UnknownName("query", name_or_sql, list(queries))
    if values:
        raise UsageError("Parameters belong to packaged queries.", hint="Write the values into the SQL.")
    return refuse_changes(name_or_sql)


def refuse_changes(text: str) -> str:
    """Return a statement that only reads, without the semicolon at its end; raise UsageError for any other.

    A server of somebody's own may have no user that can only read, so that this is what keeps it unchanged: one
    statement, which begins with SELECT, WITH, DECLARE, SHOW or EXPLAIN, and no word that changes anything outside of
    quotes.
    """
    tokens = [token for token in _TOKEN.findall(text) if not token.startswith(("--", "/*"))]
    while tokens and tokens[-1] == ";":
        tokens.pop()
    if not tokens:
        raise UsageError("There is nothing to ask.")
    if ";" in tokens:
        raise UsageError("Only one statement can be asked at a time.")
    words = [token.lower() for token in tokens if token[0] not in "'\""]
    if not words or words[0] not in _READING:
        raise UsageError(f"{tokens[0]} does more than read.", hint="Begin with SELECT, WITH, DECLARE, SHOW or EXPLAIN.")
    changing = next((word for word in words if word in _CHANGING), None)
    if changing is not None:
        raise UsageError(
            f"{changing.upper()} does more than read.", hint=f'If it is a column\'s name, write it as "{changing}".'
        )
    return text.strip().rstrip(";").rstrip()


@dataclass(frozen=True, slots=True)
class Result:
    """A query's columns, each with PostgreSQL's number of its type, and its rows as they come."""

    columns: list[tuple[str, int]]
    rows: Iterator[tuple[Any, ...]]


class QueryReader(Connection):
    """A connection that runs one statement that ``refuse_changes`` let through; raises what ``Connection`` raises."""

    def __init__(self, settings: QuestDB, *, timeout_s: float = 300) -> None:
        super().__init__(settings, query_timeout_s=timeout_s)

    @contextlib.contextmanager
    def result(self, statement: str) -> Iterator[Result]:
        """Run a statement and give its rows one by one, in constant memory."""
        with self._bounded(), self._connection.cursor() as cursor:
            rows = cursor.stream(refuse_changes(statement).encode())
            first = next(rows, None)
            columns = [(column.name, column.type_code) for column in cursor.description or ()]
            yield Result(columns, rows if first is None else itertools.chain([first], rows))
