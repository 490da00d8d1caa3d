"""The embedded server is started, migrated and brought back; a database that is not there stops nothing."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path
from typing import Any

import pytest
import structlog

from collector.config import Config, Daemon, QuestDB
from collector.errors import CollectorError, DatabaseUnavailable
from collector.storage.embedded import EmbeddedServer
from collector.storage.questdb import Maybe
from collector.storage.sql import connect
from collector.storage.supervision import DatabaseSupervisor, LateTransport


async def until(condition: Any) -> None:
    """Wait until something is so; the test's own bound ends the waiting."""
    while not condition():
        await asyncio.sleep(0.05)


def test_the_server_is_started_migrated_and_brought_back_when_it_dies(
    tmp_path: Path, free_ports_of_two: tuple[int, int]
) -> None:
    """kill -9 of the server costs some seconds without a database, and nobody has to do anything."""
    http_port, pg_port = free_ports_of_two
    config = Config(
        daemon=Daemon(data_dir=tmp_path),
        questdb=QuestDB(ilp_port=http_port, pg_port=pg_port, heap_max="256m"),
    )
    supervisor = DatabaseSupervisor(config, log=structlog.get_logger())

    async def main() -> None:
        async with asyncio.timeout(100), asyncio.TaskGroup() as tasks:
            tasks.create_task(supervisor.run())
            await until(lambda: supervisor.starts == 1)
            first = supervisor.pid
            assert first is not None
            with connect(supervisor.settings()) as connection:
                tables = {name for (name,) in connection.rows("SELECT table_name FROM tables()")}
            assert {"tick_prices", "tick_orderbook", "aggregated_ohlcv", "collection_gaps"} <= tables
            os.kill(first, signal.SIGKILL)
            await until(lambda: supervisor.starts == 2)
            assert supervisor.pid not in (None, first)
            await supervisor.stop(end_server=True)

    asyncio.run(main())
    assert not EmbeddedServer.from_config(config).running


def test_a_start_that_fails_is_a_reason_and_no_end(tmp_path: Path) -> None:
    """Collecting goes on in CSV while the server cannot be had; the reason is kept for whoever asks."""

    (tmp_path / "questdb").write_text("a file where a folder should be", encoding="utf-8")
    supervisor = DatabaseSupervisor(Config(daemon=Daemon(data_dir=tmp_path)), log=structlog.get_logger())

    async def main() -> None:
        async with asyncio.timeout(60), asyncio.TaskGroup() as tasks:
            tasks.create_task(supervisor.run())
            await supervisor.tried.wait()
            assert supervisor.reason
            with pytest.raises(DatabaseUnavailable):
                supervisor.settings()
            await supervisor.stop(end_server=True)

    asyncio.run(main())


def test_the_tables_of_an_external_server_are_left_to_its_owner() -> None:
    """The error names the command that makes them."""
    supervisor = DatabaseSupervisor(Config(questdb=QuestDB(mode="external")), log=structlog.get_logger())
    with pytest.raises(CollectorError, match="collector db migrate --repair"):
        supervisor.make_tables()


def test_a_transport_without_an_address_yet_says_maybe() -> None:
    """Before the server was installed, a row is neither delivered nor refused: it stays where it is."""

    def settings() -> QuestDB:
        raise DatabaseUnavailable("not yet")

    assert isinstance(LateTransport(settings).send("t", b"t a=1i 1\n", 1), Maybe)
    with pytest.raises(DatabaseUnavailable):
        LateTransport(settings).query("SELECT 1")


def test_a_transport_takes_the_settings_anew_after_a_failure(questdb: Any) -> None:
    """A server that was started again on another port, or with another password, is found without a restart."""
    wrong = questdb.settings.model_copy(update={"ilp_port": 1})
    given = [wrong, questdb.settings]
    transport = LateTransport(lambda: given.pop(0))
    with pytest.raises(DatabaseUnavailable):
        transport.query("SELECT 1 AS one")
    assert transport.query("SELECT 1 AS one") == [{"one": 1}]
    transport.close()
