"""Questions over PG wire: values, refusals, and a server that hangs."""

from __future__ import annotations

import os
import signal
import socket
import time
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.config import QuestDB
from collector.errors import DatabaseMisconfigured, DatabaseUnavailable
from collector.storage.sql import Column, connect, to_microseconds, to_timestamp

FAR_FUTURE_US = 9_000_000_000_000_000


@given(st.integers(min_value=-FAR_FUTURE_US, max_value=FAR_FUTURE_US))
def test_timestamps_survive_both_ways_exactly(time_us: int) -> None:
    """No microsecond is lost to a float."""
    assert to_microseconds(to_timestamp(time_us)) == time_us


def test_no_time_stays_no_time() -> None:
    """NULL is None in both directions."""
    assert to_timestamp(None) is None
    assert to_microseconds(None) is None


def test_a_timestamp_of_another_zone_is_turned_to_utc() -> None:
    """A driver that gives aware timestamps changes nothing."""
    aware = datetime(2026, 1, 1, 2, tzinfo=timezone(timedelta(hours=2)))
    assert to_microseconds(aware) == to_microseconds(aware.astimezone(UTC).replace(tzinfo=None))


def test_values_go_in_and_out_as_they_are(questdb) -> None:
    """Text, numbers, booleans, times and NULL, whatever they contain."""
    values = ("'; DROP TABLE prices; --", 2**62, 1.5, True, to_timestamp(1_700_000_000_123_457), None)
    with questdb.connect() as connection:
        row = connection.rows(
            "SELECT %s::varchar, %s::long, %s::double, %s::boolean, %s::timestamp, %s::varchar", *values
        )[0]
        assert row == values
        assert connection.value("SELECT count() FROM tables() WHERE table_name = 'prices'") == 1


@pytest.mark.parametrize("number", [1, 2**15, 2**31, 2**62])
def test_an_integer_of_any_size_is_a_long(questdb, number: int) -> None:
    """QuestDB refuses a smallint where it wants a time."""
    with questdb.connect() as connection:
        assert connection.rows("SELECT %s::long, timestamp FROM prices WHERE timestamp > %s", number, number) == []


def test_a_value_is_none_where_there_is_no_row(questdb) -> None:
    """An empty answer isn't an error."""
    with questdb.connect() as connection:
        assert connection.value("SELECT session_id FROM tick_prices WHERE session_id = %s", "nobody") is None


def test_columns_tell_types_and_keys(questdb) -> None:
    """What the migrations look at before each ALTER."""
    with questdb.connect() as connection:
        columns = connection.columns("prices")
        assert Column("timestamp", "TIMESTAMP", is_key=False) in columns
        assert Column("seq", "LONG", is_key=True) in connection.columns("tick_prices")
        with pytest.raises(DatabaseMisconfigured, match="table does not exist"):
            connection.columns("'); DROP TABLE prices; --")
        assert connection.count("prices") == 0


def test_a_refused_query_leaves_the_connection_whole(questdb) -> None:
    """A missing table is the caller's matter, not the connection's."""
    with questdb.connect() as connection:
        with pytest.raises(DatabaseMisconfigured, match=r"table does not exist \[table=nowhere\]") as raised:
            connection.rows("SELECT * FROM nowhere")
        assert not raised.value.retryable
        assert connection.value("SELECT 1") == 1


def test_a_percent_sign_in_a_statement_of_ours_stays_one(questdb) -> None:
    """Migrations aren't templates."""
    with questdb.connect() as connection:
        connection.run_text("SELECT 'a%s%' FROM long_sequence(1)")


def test_a_wrong_password_names_what_to_set(questdb) -> None:
    """The server's refusal is told apart from a server that is gone."""
    wrong = questdb.settings.model_copy(update={"pg_password": questdb.settings.pg_password.__class__("wrong")})
    with pytest.raises(DatabaseMisconfigured, match="QUESTDB_PG_PASSWORD"):
        connect(wrong)


def test_a_port_that_nobody_listens_on_can_be_tried_again(free_port: int) -> None:
    """A refused connection says so in one line."""
    with pytest.raises(DatabaseUnavailable, match=rf"127\.0\.0\.1:{free_port} cannot be reached: Connection refused"):
        connect(QuestDB(pg_port=free_port))


def test_a_listener_that_says_nothing_is_given_up() -> None:
    """A black hole blocks nobody for ever."""
    with socket.create_server(("127.0.0.1", 0)) as hole, pytest.raises(DatabaseUnavailable):
        connect(QuestDB(pg_port=hole.getsockname()[1]), connect_timeout_s=2)


def test_a_name_that_does_not_resolve_can_be_tried_again() -> None:
    """A broken resolver may recover."""
    with pytest.raises(DatabaseUnavailable):
        connect(QuestDB(pg_host="nowhere.invalid"))


def test_no_password_shows_in_an_error_or_a_repr(questdb) -> None:
    """Errors go to logs."""
    with questdb.connect() as connection:
        assert questdb.password not in repr(connection)
        with pytest.raises(DatabaseMisconfigured) as raised:
            connection.rows("SELECT * FROM nowhere")
        assert questdb.password not in str(raised.value)
    assert questdb.password not in repr(questdb.settings)


def test_the_reader_may_look_but_not_touch(questdb) -> None:
    """What only reads connects as a user that can't write."""
    with connect(questdb.server.settings(read_only=True)) as connection:
        assert connection.value("SELECT count() FROM prices") == 0
        for statement in ("DROP TABLE prices", "TRUNCATE TABLE prices", "INSERT INTO prices (timestamp) VALUES (0)"):
            with pytest.raises(DatabaseMisconfigured):
                connection.run_text(statement)


def test_a_query_to_a_server_that_hangs_is_given_up(questdb_server) -> None:
    """A stopped process keeps its sockets open; the query ends all the same, and the connection is closed."""
    server = questdb_server(migrated=False)
    with connect(server.settings, query_timeout_s=1) as connection:
        os.kill(server.pid, signal.SIGSTOP)
        try:
            started_s = time.monotonic()
            with pytest.raises(DatabaseUnavailable, match="did not answer within 1 s"):
                connection.rows("SELECT 1")
            assert connection.closed
            assert time.monotonic() - started_s < 60  # the bound, not a measurement
        finally:
            os.kill(server.pid, signal.SIGCONT)
    with connect(server.settings) as connection:
        assert connection.value("SELECT 1") == 1


def test_a_server_that_dies_is_unavailable(questdb_server) -> None:
    """The next query says so, and may be tried again on a new connection."""
    server = questdb_server(migrated=False)
    with connect(server.settings) as connection:
        server.server.stop()
        with pytest.raises(DatabaseUnavailable) as raised:
            connection.rows("SELECT 1")
    assert raised.value.retryable
