"""Fixtures for all tests: a real QuestDB server that the test run starts itself, on ports that the system chose."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest
from hypothesis import settings

from collector.config import Config, Daemon, QuestDB
from collector.errors import InstallError
from collector.storage.embedded import EmbeddedServer
from collector.storage.migrations import migrate
from collector.storage.sql import Connection, connect

START_ATTEMPTS = 5

# No deadline: how long an example takes says something about the machine, and a failure prints how to have it again.
settings.register_profile("collector", deadline=None, print_blob=True)
settings.load_profile("collector")


@dataclass(frozen=True)
class RunningQuestDB:
    """A migrated server that runs, with everything that a test needs to talk to it."""

    server: EmbeddedServer
    settings: QuestDB

    @property
    def root(self) -> Path:
        return self.server.root

    @property
    def data_dir(self) -> Path:
        """The data directory whose embedded server this is."""
        return self.root.parent

    @property
    def config(self) -> Config:
        """The configuration of a collector with this data directory."""
        http_port, pg_port = self.server.ports
        return Config(
            daemon=Daemon(data_dir=self.data_dir, log_dir=self.data_dir / "logs"),
            questdb=QuestDB(ilp_port=http_port, pg_port=pg_port, heap_max="512m"),
        )

    @property
    def http_url(self) -> str:
        return f"http://{self.settings.ilp_host}:{self.settings.ilp_port}"

    @property
    def user(self) -> str:
        return self.settings.http_user

    @property
    def password(self) -> str:
        return self.settings.http_password.get_secret_value()

    @property
    def pid(self) -> int | None:
        return self.server.status().pid

    def connect(self) -> Connection:
        """Open a connection of PG wire as the administrator."""
        return connect(self.settings)


def free_ports(count: int) -> list[int]:
    """Ask the system for ports that are free now; another process may take one before it is used."""
    sockets = [socket.socket() for _ in range(count)]
    try:
        for probe in sockets:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in sockets]
    finally:
        for probe in sockets:
            probe.close()


def started_server(root: Path, extra_environment: Mapping[str, str] | None = None) -> EmbeddedServer:
    """Install and start a server of its own in a folder, on other ports where somebody was faster."""
    for attempt in range(START_ATTEMPTS):
        http_port, pg_port = free_ports(2)
        server = EmbeddedServer(
            root,
            http_port=http_port,
            pg_port=pg_port,
            heap_max="512m",
            extra_environment={"QDB_DEV_MODE_ENABLED": "true", **(extra_environment or {})},
        )
        server.install()
        try:
            server.start()
        except InstallError:
            server.stop()
            if attempt == START_ATTEMPTS - 1:
                raise
        else:
            return server
    raise AssertionError("unreachable")


@pytest.fixture
def free_port() -> int:
    """Give a port of loopback on which nobody listens."""
    return free_ports(1)[0]


@pytest.fixture
def free_ports_of_two() -> tuple[int, int]:
    """Give two ports of loopback on which nobody listens."""
    first, second = free_ports(2)
    return first, second


@pytest.fixture(scope="session")
def questdb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningQuestDB]:
    """Run one migrated server for all tests that don't kill or alter it; tests keep apart by their session ids."""
    server = started_server(tmp_path_factory.mktemp("data") / "questdb")
    try:
        settings = server.settings()
        migrate(settings)
        yield RunningQuestDB(server, settings)
    finally:
        server.stop()


@pytest.fixture(scope="module")
def unmigrated_questdb(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningQuestDB]:
    """Run one server for a module's tests of the schema itself."""
    server = started_server(tmp_path_factory.mktemp("data") / "questdb")
    try:
        yield RunningQuestDB(server, server.settings())
    finally:
        server.stop()


@pytest.fixture
def empty_questdb(unmigrated_questdb: RunningQuestDB) -> RunningQuestDB:
    """Give the module's server without any table or view."""
    with unmigrated_questdb.connect() as connection:
        for name, kind in connection.rows("SELECT table_name, table_type FROM tables() ORDER BY table_type DESC"):
            connection.run_text(f"DROP {'VIEW' if kind == 'V' else 'TABLE'} {name}")
    return unmigrated_questdb


@pytest.fixture
def questdb_server(tmp_path: Path) -> Iterator[Callable[..., RunningQuestDB]]:
    """Make servers that a test may kill, stop, fill or alter; each call starts another one."""
    servers: list[EmbeddedServer] = []

    def make(*, migrated: bool = True, extra_environment: Mapping[str, str] | None = None) -> RunningQuestDB:
        server = started_server(tmp_path / f"data-{len(servers)}" / "questdb", extra_environment)
        servers.append(server)
        settings = server.settings()
        if migrated:
            migrate(settings)
        return RunningQuestDB(server, settings)

    yield make
    for server in servers:
        server.stop()
