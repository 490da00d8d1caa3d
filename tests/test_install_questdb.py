"""The installer, run as a person runs it: a script with its own process, and a real server."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from collector.storage.embedded import EmbeddedServer
from collector.storage.migrations import load_migrations

SCRIPT = Path(__file__).resolve().parent.parent / "install_questdb.py"
MIGRATIONS = load_migrations()
COUNT = len(MIGRATIONS)
PENDING = [f"  {migration}" for migration in MIGRATIONS]
BOUND_S = 100


def install(*arguments: object, answer: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("QUESTDB_")}
    return subprocess.run(
        [sys.executable, str(SCRIPT), *map(str, arguments)],
        input=answer,
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        env={**inherited, **environment},
        check=False,
    )


def external(server) -> dict[str, str]:
    """Return the environment that names a server as an existing one."""
    return {
        "QUESTDB_PG_HOST": server.settings.pg_host,
        "QUESTDB_PG_PORT": str(server.settings.pg_port),
        "QUESTDB_PG_USER": server.settings.pg_user,
        "QUESTDB_PG_PASSWORD": server.settings.pg_password.get_secret_value(),
    }


@pytest.fixture
def embedded(tmp_path: Path, free_ports_of_two: tuple[int, int]):
    """Give the arguments for a fresh embedded server, and end it afterwards."""
    http_port, pg_port = free_ports_of_two
    config = tmp_path / "config.toml"
    config.write_text(f'[questdb]\nilp_port = {http_port}\npg_port = {pg_port}\nheap_max = "512m"\n')
    yield ("--config", config, "--data-dir", tmp_path / "data")
    EmbeddedServer(tmp_path / "data" / "questdb").stop()


def test_the_whole_way_of_an_embedded_server(embedded, tmp_path: Path) -> None:
    """Look, decline, accept, again, look: the same lines in the same order, and nothing without a yes."""
    looked = install("--check", *embedded)
    assert looked.returncode == 1
    assert "QuestDB 9.3.4 is not installed" in looked.stdout
    assert not (tmp_path / "data").exists()

    declined = install(*embedded, answer="n\n")
    lines = declined.stdout.splitlines()
    assert declined.returncode == 1, declined.stderr
    assert re.fullmatch(r"Connected to QuestDB 9\.3\.4 at 127\.0\.0\.1:\d+ \(embedded\)\.", lines[0])
    assert lines[1 : 4 + COUNT] == [
        "Migration table schema_migrations is ready.",
        f"Migrations: 0 applied, {COUNT} available.",
        "Pending:",
        *PENDING,
    ]
    assert lines[4 + COUNT].startswith("Execute these migrations? (y/N)")
    assert declined.stdout.endswith("Nothing was executed.\n")

    assert install(*embedded).returncode == 1, "no answer at all is a no"
    assert install("--check", *embedded).returncode == 1

    accepted = install(*embedded, answer="y\n")
    assert accepted.returncode == 0, accepted.stderr
    executed = re.findall(r"(\d{3} \w+): \d+ ms\n", accepted.stdout)
    assert [f"  {name}" for name in executed] == PENDING
    assert accepted.stdout.endswith(f"Done: the schema is up to date, {COUNT} migrations are applied.\n")

    again = install("--yes", *embedded)
    assert again.returncode == 0
    assert f"Migrations: {COUNT} applied, {COUNT} available.\nPending: none.\nDone" in again.stdout

    server = EmbeddedServer(tmp_path / "data" / "questdb")
    checked = install("--check", *embedded)
    assert checked.returncode == 0, checked.stdout
    server.stop()
    stopped = install("--check", *embedded)
    assert stopped.returncode == 1
    assert "It is not running" in stopped.stdout


def test_an_existing_server_is_migrated_and_nothing_installed(empty_questdb, tmp_path: Path) -> None:
    """The variables of the environment alone decide it."""
    done = install("--yes", "--data-dir", tmp_path / "data", **external(empty_questdb))
    assert done.returncode == 0, done.stderr
    assert f"127.0.0.1:{empty_questdb.settings.pg_port} (external)." in done.stdout
    assert not (tmp_path / "data").exists()
    with empty_questdb.connect() as connection:
        assert connection.value("SELECT count() FROM schema_migrations") == COUNT
    assert install("--check", "--external", **external(empty_questdb)).returncode == 0
    with empty_questdb.connect() as connection:
        connection.run_text("DROP TABLE tick_prices")
    checked = install("--check", **external(empty_questdb))
    assert checked.returncode == 1
    assert "Missing: tick_prices." in checked.stdout


def test_looking_changes_nothing(empty_questdb) -> None:
    """Not even the table of migrations is made."""
    looked = install("--check", **external(empty_questdb))
    assert looked.returncode == 1
    assert "Migration table schema_migrations is missing." in looked.stdout
    assert looked.stdout.splitlines()[-COUNT:] == PENDING
    with empty_questdb.connect() as connection:
        assert connection.rows("SELECT table_name FROM tables()") == []


def test_a_foreign_table_is_refused_by_name(empty_questdb) -> None:
    """Before the question, and before anything runs."""
    with empty_questdb.connect() as connection:
        connection.run_text("CREATE TABLE positions (x INT)")
    refused = install("--yes", **external(empty_questdb))
    assert refused.returncode == 1
    assert "the table positions" in refused.stderr
    assert "Traceback" not in refused.stderr
    with empty_questdb.connect() as connection:
        assert connection.rows("SELECT table_name FROM tables()") == [("positions",)]


def test_a_wrong_password_is_a_sentence(empty_questdb) -> None:
    """It names what to set."""
    refused = install("--yes", **{**external(empty_questdb), "QUESTDB_PG_PASSWORD": "wrong"})
    assert refused.returncode == 1
    assert refused.stderr.startswith("Error: QuestDB at 127.0.0.1")
    assert "QUESTDB_PG_PASSWORD" in refused.stderr


def test_nobody_there_is_a_sentence(free_port: int) -> None:
    """A refused connection ends the script with 1."""
    refused = install("--external", QUESTDB_PG_PORT=str(free_port))
    assert refused.returncode == 1
    assert refused.stderr == f"Error: QuestDB at 127.0.0.1:{free_port} cannot be reached: Connection refused.\n"


def test_the_port_of_ilp_over_tcp_is_explained() -> None:
    """Port 9009 acknowledges nothing."""
    refused = install("--yes", QUESTDB_ILP_PORT="9009")
    assert refused.returncode == 2
    assert "acknowledges nothing" in refused.stderr
    assert "9000" in refused.stderr


@pytest.mark.parametrize("arguments", [["--nonsense"], ["surplus"], ["--config", "/nowhere/config.toml"]])
def test_a_wrong_request_exits_2(arguments: list[str]) -> None:
    """Usage errors are told apart from failures."""
    assert install(*arguments).returncode == 2


def test_without_a_database_there_is_nothing_to_install(tmp_path: Path) -> None:
    """Mode off is said, not ignored."""
    config = tmp_path / "config.toml"
    config.write_text('[questdb]\nmode = "off"\n')
    refused = install("--yes", "--config", config)
    assert refused.returncode == 2
    assert "nothing to install" in refused.stderr
