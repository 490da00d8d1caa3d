"""The table of collection sessions: one row per session, upserted as it goes on.

The row is a replica of the session's manifest. Its designated timestamp is ``created_at``, which never changes, so that
a change of status replaces the row (``DEDUP UPSERT KEYS(created_at, session_id)``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import LiteralString

import msgspec

from collector.config import QuestDB
from collector.storage.sql import Row, connect, to_microseconds, to_timestamp


class SessionRow(msgspec.Struct, frozen=True, kw_only=True):
    """A session as the database knows it. Times are microseconds since the epoch, UTC; None where not known yet."""

    session_id: str
    status: str
    exchange: str
    symbols: tuple[str, ...]
    data_types: tuple[str, ...]
    label: str = ""
    start_us: int | None = None
    end_us: int | None = None
    duration_s: float | None = None
    records_collected: int = 0
    prices_count: int = 0
    orderbook_count: int = 0
    candles_count: int = 0
    gaps_count: int = 0
    errors_count: int = 0
    error: str = ""
    created_us: int
    heartbeat_us: int | None = None


class SessionRows:
    """Read and write ``data_collection_sessions``; every call opens a connection of its own and may block.

    Args:
        settings: gives QuestDB's address and credentials at each call, as an embedded server's may change.
        query_timeout_s: how long each query may take.
    """

    def __init__(self, settings: Callable[[], QuestDB], *, query_timeout_s: float = 5) -> None:
        self._settings = settings
        self._query_timeout_s = query_timeout_s

    def upsert(self, row: SessionRow) -> None:
        """Write a session's row in place of the one that stood; it shows once the server has applied it (some ms).

        Raises:
            DatabaseUnavailable: the server is gone or did not answer in time; the row may have been written.
            DatabaseMisconfigured: the table is missing, or the credentials are wrong.
        """
        with connect(self._settings(), query_timeout_s=self._query_timeout_s) as connection:
            connection.run(
                "INSERT INTO data_collection_sessions (session_id, status, exchange, symbols, data_types, label, "
                "start_time, end_time, duration_seconds, records_collected, prices_count, orderbook_count, "
                "candles_count, gaps_count, errors_count, error, created_at, heartbeat_at) "
                "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                row.session_id,
                row.status,
                row.exchange,
                ",".join(row.symbols),
                ",".join(row.data_types),
                row.label or None,
                to_timestamp(row.start_us),
                to_timestamp(row.end_us),
                row.duration_s,
                row.records_collected,
                row.prices_count,
                row.orderbook_count,
                row.candles_count,
                row.gaps_count,
                row.errors_count,
                row.error or None,
                to_timestamp(row.created_us),
                to_timestamp(row.heartbeat_us),
            )

    def get(self, session_id: str) -> SessionRow | None:
        """Return a session's row, None where the database has none; raises what ``upsert`` raises."""
        found = self._rows(_SELECT + " WHERE session_id = %s", session_id)
        return found[0] if found else None

    def statuses(self) -> dict[str, str]:
        """Return the status of each session that the table has, by its id; raises what ``upsert`` raises."""
        with connect(self._settings(), query_timeout_s=self._query_timeout_s) as connection:
            return {
                row[0]: row[1] for row in connection.rows("SELECT session_id, status FROM data_collection_sessions")
            }

    def all(self, status: str | None = None) -> list[SessionRow]:
        """Return the sessions, oldest first, of one status where it is given; raises what ``upsert`` raises."""
        if status is None:
            return self._rows(_SELECT + " ORDER BY created_at")
        return self._rows(_SELECT + " WHERE status = %s ORDER BY created_at", status)

    def _rows(self, query: LiteralString, *parameters: object) -> list[SessionRow]:
        with connect(self._settings(), query_timeout_s=self._query_timeout_s) as connection:
            return [_session_row(row) for row in connection.rows(query, *parameters)]


_SELECT: LiteralString = (
    "SELECT session_id, status, exchange, symbols, data_types, label, start_time, end_time, duration_seconds, "
    "records_collected, prices_count, orderbook_count, candles_count, gaps_count, errors_count, error, created_at, "
    "heartbeat_at FROM data_collection_sessions"
)


def _session_row(row: Row) -> SessionRow:
    created_us = to_microseconds(row[16])
    return SessionRow(
        session_id=row[0],
        status=row[1],
        exchange=row[2],
        symbols=_split(row[3]),
        data_types=_split(row[4]),
        label=row[5] or "",
        start_us=to_microseconds(row[6]),
        end_us=to_microseconds(row[7]),
        duration_s=row[8],
        records_collected=row[9] or 0,
        prices_count=row[10] or 0,
        orderbook_count=row[11] or 0,
        candles_count=row[12] or 0,
        gaps_count=row[13] or 0,
        errors_count=row[14] or 0,
        error=row[15] or "",
        created_us=created_us or 0,
        heartbeat_us=to_microseconds(row[17]),
    )


def _split(text: str | None) -> tuple[str, ...]:
    return tuple(text.split(",")) if text else ()
