"""The repository of sessions, against a real server."""

from __future__ import annotations

import time

import msgspec
import pytest

from collector.config import QuestDB
from collector.errors import DatabaseMisconfigured, DatabaseUnavailable
from collector.storage.sessions import SessionRow, SessionRows

WAIT_S = 20.0


def row(session_id: str, **changes) -> SessionRow:
    basis = SessionRow(
        session_id=session_id,
        status="active",
        exchange="sim",
        symbols=("BTC_USDT", "ETH_USDT"),
        data_types=("prices", "orderbook"),
        start_us=1_700_000_000_123_456,
        created_us=1_700_000_000_000_001,
    )
    return msgspec.structs.replace(basis, **changes)


def eventually(read, expected) -> object:
    """Ask again until the server has applied the row, at most ``WAIT_S``."""
    deadline = time.monotonic() + WAIT_S
    while (found := read()) != expected and time.monotonic() < deadline:
        time.sleep(0.02)
    return found


def test_a_session_reads_back_as_it_was_written(questdb) -> None:
    """Every field survives the way to the database and back, microseconds included."""
    rows = SessionRows(lambda: questdb.settings)
    written = row(
        "roundtrip",
        label="käse; drop table tick_prices",
        end_us=1_700_000_001_123_457,
        duration_s=1.5,
        records_collected=7,
        prices_count=4,
        orderbook_count=3,
        candles_count=2,
        gaps_count=1,
        errors_count=1,
        error="a 'quoted' reason",
        heartbeat_us=1_700_000_000_500_000,
    )
    rows.upsert(written)
    assert eventually(lambda: rows.get("roundtrip"), written) == written


def test_a_change_of_status_replaces_the_row(questdb) -> None:
    """A session is one row whatever happens to it, because its created_at never changes."""
    rows = SessionRows(lambda: questdb.settings)
    rows.upsert(row("upserted"))
    ended = row("upserted", status="completed", end_us=1_700_000_009_000_000)
    rows.upsert(ended)
    assert eventually(lambda: rows.get("upserted"), ended) == ended
    assert [found for found in rows.all() if found.session_id == "upserted"] == [ended]
    assert ended not in rows.all("active")
    assert ended in rows.all("completed")


def test_an_unknown_session_is_none(questdb) -> None:
    """Nothing is made up for a session that the database does not have."""
    assert SessionRows(lambda: questdb.settings).get("nobody") is None


def test_no_server_is_an_error_that_can_pass(free_port) -> None:
    """A refused connection is a DatabaseUnavailable, which the caller may try again."""
    settings = QuestDB(pg_port=free_port)
    with pytest.raises(DatabaseUnavailable, match="cannot be reached") as raised:
        SessionRows(lambda: settings).upsert(row("nowhere"))
    assert raised.value.retryable


def test_a_missing_table_is_misconfiguration(questdb_server) -> None:
    """A server without our tables refuses, and the error names the table."""
    empty = questdb_server(migrated=False)
    with pytest.raises(DatabaseMisconfigured, match="data_collection_sessions"):
        SessionRows(lambda: empty.settings).all()
