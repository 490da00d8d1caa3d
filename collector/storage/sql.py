"""Questions and statements to QuestDB over PG wire: bound in time, and with bind parameters only.

A connection is disposable: after a failure of the connection it is closed, and the caller opens another. A query to a
server that hangs would block for ever (``connect_timeout`` covers only the connecting), so a timer shuts its socket.
"""

from __future__ import annotations

import contextlib
import os
import socket
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from types import TracebackType
from typing import Any, LiteralString, Self

import psycopg
from psycopg import sql as compose
from psycopg.types.numeric import Int8Dumper

from collector.config import QuestDB
from collector.errors import CollectorError, DatabaseMisconfigured, DatabaseUnavailable

CONNECT_TIMEOUT_S = 5.0
QUERY_TIMEOUT_S = 30.0

_GRACE_S = 2.0  # the server's own timeout comes first, and keeps the connection whole
_EPOCH = datetime(1970, 1, 1)  # noqa: DTZ001 - PG wire's timestamps are naive, and UTC
_MICROSECOND = timedelta(microseconds=1)

Row = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Column:
    """A column of a table: its type as QuestDB names it, and whether it is one of the dedup keys."""

    name: str
    type: str
    is_key: bool


class Connection:
    """One connection to QuestDB, in autocommit mode, for one thread.

    Args:
        settings: where QuestDB answers and as whom (``embedded.resolve_settings`` gives them).
        connect_timeout_s: how long connecting may take, per address of the host (2 s at least, says libpq).
        query_timeout_s: how long each query may take.

    Raises:
        DatabaseUnavailable: nobody answers there in time.
        DatabaseMisconfigured: the user or the password is refused.
    """

    def __init__(
        self,
        settings: QuestDB,
        *,
        connect_timeout_s: float = CONNECT_TIMEOUT_S,
        query_timeout_s: float = QUERY_TIMEOUT_S,
    ) -> None:
        self.address = f"{settings.pg_host}:{settings.pg_port}"
        self._query_timeout_s = query_timeout_s
        self._timed_out = False
        try:
            self._connection = psycopg.connect(
                host=settings.pg_host,
                port=settings.pg_port,
                user=settings.pg_user,
                password=settings.pg_password.get_secret_value(),
                dbname=settings.pg_database,
                autocommit=True,
                prepare_threshold=None,
                connect_timeout=max(2, round(connect_timeout_s)),
                sslmode="disable",  # QuestDB's PG wire has no TLS
                gssencmode="disable",
                options=f"-c statement_timeout={round(query_timeout_s * 1000)}",
            )
        except psycopg.Error as error:
            raise self._explain(error) from error
        except OSError as error:  # no descriptor is left, for one
            raise DatabaseUnavailable(f"QuestDB at {self.address} cannot be reached: {error}.") from error
        # psycopg sends a small integer as a smallint, which QuestDB neither takes for a TIMESTAMP nor compares with it.
        self._connection.adapters.register_dumper(int, Int8Dumper)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"Connection({self.address!r}, {'closed' if self.closed else 'open'})"

    @property
    def closed(self) -> bool:
        return self._connection.closed

    def close(self) -> None:
        self._connection.close()

    def rows(self, query: LiteralString, *parameters: object) -> list[Row]:
        """Return a query's rows; values come in as ``%s`` and never as text of the query.

        Raises:
            DatabaseUnavailable: the server is gone or did not answer in time.
            DatabaseMisconfigured: the server refused the query (there is no such table, no permission).
        """
        with self._bounded(), self._connection.cursor() as cursor:
            cursor.execute(query, parameters or None)
            return cursor.fetchall() if cursor.description else []

    def value(self, query: LiteralString, *parameters: object) -> Any:
        """Return the first column of a query's first row; None where there is no row."""
        rows = self.rows(query, *parameters)
        return rows[0][0] if rows else None

    def run(self, statement: LiteralString, *parameters: object) -> None:
        """Run a statement that gives no rows; raises what ``rows`` raises."""
        self.rows(statement, *parameters)

    def run_text(self, statement: str) -> None:
        """Run one statement out of a file of ours, or made from the registry of streams; never with a person's text.

        It goes as a prepared statement, so that a percent sign in it stays one.
        """
        with self._bounded(), self._connection.cursor() as cursor:
            cursor.execute(statement.encode(), prepare=True)

    def columns(self, table: str) -> list[Column]:
        """Return a table's columns in order, as far as its writes have been applied."""
        # The name cannot be a parameter: QuestDB wants a constant there.
        query = compose.SQL('SELECT "column", type, upsertKey FROM table_columns({})').format(compose.Literal(table))
        with self._bounded(), self._connection.cursor() as cursor:
            return [Column(*row) for row in cursor.execute(query).fetchall()]

    def count(self, table: str) -> int:
        """Return how many rows of a table show."""
        query = compose.SQL("SELECT count() FROM {}").format(compose.Identifier(table))
        with self._bounded(), self._connection.cursor() as cursor:
            row = cursor.execute(query).fetchone()
        return int(row[0]) if row else 0

    @contextlib.contextmanager
    def _bounded(self) -> Iterator[None]:
        timer = threading.Timer(self._query_timeout_s + _GRACE_S, self._give_up)
        timer.daemon = True
        timer.start()
        try:
            yield
        except psycopg.Error as error:
            raise self._explain(error) from error
        except OSError as error:
            raise DatabaseUnavailable(f"QuestDB at {self.address} cannot be asked: {error}.") from error
        finally:
            timer.cancel()

    def _give_up(self) -> None:
        """Shut the socket down under a query that hangs, which then fails as if the server had gone away."""
        self._timed_out = True
        with contextlib.suppress(OSError, psycopg.Error):
            duplicate = socket.socket(fileno=os.dup(self._connection.fileno()))
            with contextlib.closing(duplicate):
                duplicate.shutdown(socket.SHUT_RDWR)

    def _explain(self, error: psycopg.Error) -> CollectorError:
        # Only an answer of the server itself carries a diagnosis; QuestDB's SQLSTATE is 00000 for everything.
        reason = (error.diag.message_primary or str(error) or type(error).__name__).strip()
        reason = reason.splitlines()[0].removeprefix("ERROR:").strip()
        if self._timed_out:
            return DatabaseUnavailable(f"QuestDB at {self.address} did not answer within {self._query_timeout_s:g} s.")
        if "invalid username/password" in reason:
            return DatabaseMisconfigured(
                f"QuestDB at {self.address} refuses the user or the password.",
                hint="Set QUESTDB_PG_USER and QUESTDB_PG_PASSWORD.",
            )
        if isinstance(error, psycopg.OperationalError):
            short = reason.rpartition(" failed: ")[2].removeprefix("connection failed: ")
            return DatabaseUnavailable(f"QuestDB at {self.address} cannot be reached: {short}.")
        return DatabaseMisconfigured(f"QuestDB at {self.address} refuses: {reason}.")


def connect(
    settings: QuestDB, *, connect_timeout_s: float = CONNECT_TIMEOUT_S, query_timeout_s: float = QUERY_TIMEOUT_S
) -> Connection:
    """Open a disposable connection; close it after use (it is a context manager)."""
    return Connection(settings, connect_timeout_s=connect_timeout_s, query_timeout_s=query_timeout_s)


def to_timestamp(time_us: int | None) -> datetime | None:
    """Turn microseconds since the epoch into what PG wire takes for a TIMESTAMP: naive, UTC."""
    return None if time_us is None else _EPOCH + timedelta(microseconds=time_us)


def to_microseconds(timestamp: datetime | None) -> int | None:
    """Turn a TIMESTAMP as PG wire gives it (naive, UTC) into microseconds since the epoch, exactly."""
    if timestamp is None:
        return None
    naive = timestamp.astimezone(UTC).replace(tzinfo=None) if timestamp.tzinfo else timestamp
    return (naive - _EPOCH) // _MICROSECOND
