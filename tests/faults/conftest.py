"""Real parts for the fault tests: a daemon, a simulated exchange and a QuestDB, each a process that may be hurt."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from trials.parts import Daemon, Database, Disk, Exchange

CONFIG = """
[session]
heartbeat_interval_s = 1
[feed]
backoff_initial_s = 0.1
backoff_cap_s = 1
snapshots_per_s = 20
[repair]
enabled = false
[questdb]
request_timeout_s = 2
check_interval_s = 1
retry_cap_s = 1
[csv]
"""


@pytest.fixture(scope="package")
def shared_database(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Database]:
    """Run one server for all tests here."""
    database = Database(tmp_path_factory.mktemp("data") / "questdb")
    yield database
    database.end()


@pytest.fixture
def database(shared_database: Database) -> Iterator[Database]:
    """Give the server, and put it right again afterwards, whatever a test did to it."""
    yield shared_database
    if shared_database.server.running:
        shared_database.thaw()
    else:
        shared_database.start()


@pytest.fixture
def exchange() -> Iterator[Callable[..., Exchange]]:
    """Start simulated exchanges; each is ended with the test."""
    started: list[Exchange] = []

    def start(*symbols: str, rate: float = 400, seed: int = 1) -> Exchange:
        started.append(Exchange(seed=seed, rate=rate, symbols=symbols or ("BTC_USDT",)))
        return started[-1]

    yield start
    for one in started:
        one.end()


@pytest.fixture
def daemon(tmp_path: Path, shared_database: Database) -> Iterator[Callable[..., Daemon]]:
    """Make daemons that deliver to the server; each is ended with the test."""
    made: list[Daemon] = []

    def make(*, data_dir: Path | None = None, feed: str = "", reserve_bytes: int = 0) -> Daemon:
        folder = tmp_path / f"daemon{len(made)}"
        config = CONFIG.replace("[feed]\n", f"[feed]\n{feed}") + f"reserve_bytes = {reserve_bytes}\n"
        environment = shared_database.environment()
        made.append(Daemon(folder, data_dir=data_dir or folder / "data", environment=environment, config=config))
        return made[-1]

    yield make
    for one in made:
        one.end()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Callable[[int], Disk]]:
    """Make disks that can be filled; the test is skipped where that is not allowed."""
    if not Disk.possible():
        pytest.skip("a disk of its own takes the super-user")
    made: list[Disk] = []

    def make(size_mb: int) -> Disk:
        made.append(Disk(tmp_path / f"disk{len(made)}", size_mb))
        return made[-1]

    yield make
    for one in made:
        one.end()
