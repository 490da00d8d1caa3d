"""The commands about QuestDB, against the running server of the test run."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from collector.cli.db import console, db
from collector.storage.migrations import load_migrations


@pytest.fixture
def arguments(questdb, tmp_path: Path) -> list[str]:
    """Give the options that name the test run's server as the embedded one."""
    return options(questdb, tmp_path)


def options(server, folder: Path) -> list[str]:
    config = folder / "config.toml"
    config.write_text(f"[questdb]\nilp_port = {server.settings.ilp_port}\npg_port = {server.settings.pg_port}\n")
    return ["--config", str(config), "--data-dir", str(server.data_dir)]


@pytest.fixture(autouse=True)
def without_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    """Take away what would make the server an external one."""
    for name in ("QUESTDB_PG_HOST", "QUESTDB_ILP_HOST", "QUESTDB_PG_PORT", "QUESTDB_ILP_PORT"):
        monkeypatch.delenv(name, raising=False)


def run(command, *given: str, answer: str = "") -> Result:
    return CliRunner().invoke(command, list(given), input=answer)


def test_status_of_a_running_server(questdb, arguments: list[str]) -> None:
    """Addresses, process, version and migrations, for people and for programs."""
    facts = json.loads(run(db, "status", "--json", *arguments).stdout)
    assert facts["mode"] == "embedded"
    assert facts["pid"] == questdb.pid
    assert facts["answers"] is True
    assert facts["version"] == "9.3.4"
    assert len(facts["applied"]) == len(load_migrations())
    assert facts["pending"] == facts["missing_tables"] == []
    assert str(questdb.pid) in run(db, "status", *arguments).stdout


def test_status_of_nothing(tmp_path: Path) -> None:
    """A server that is not installed is a fact, not a failure."""
    shown = run(db, "status", "--json", "--data-dir", str(tmp_path))
    assert shown.exit_code == 0
    assert json.loads(shown.stdout) | {"root": "", "http_address": "", "pg_address": ""} == {
        "mode": "embedded",
        "installed": False,
        "pid": None,
        "root": "",
        "http_address": "",
        "pg_address": "",
        "answers": False,
    }


def test_status_of_an_external_server(questdb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free_port: int) -> None:
    """It is asked; where nobody answers, the reason is in the answer."""
    monkeypatch.setenv("QUESTDB_PG_HOST", "127.0.0.1")
    monkeypatch.setenv("QUESTDB_PG_PORT", str(free_port))
    facts = json.loads(run(db, "status", "--json").stdout)
    assert (facts["mode"], facts["answers"]) == ("external", False)
    assert "cannot be reached" in facts["error"]


def test_migrate_is_harmless_twice(arguments: list[str]) -> None:
    """With nothing pending it asks nothing."""
    done = run(db, "migrate", *arguments)
    assert done.exit_code == 0
    assert "Pending: none." in done.stdout
    assert "Execute" not in done.stdout


def test_repair_makes_a_dropped_table_again(empty_questdb, tmp_path: Path) -> None:
    """The command that the error about a missing table names."""
    arguments = options(empty_questdb, tmp_path)
    assert run(db, "migrate", *arguments, answer="y\n").exit_code == 0
    with empty_questdb.connect() as connection:
        connection.run_text("DROP TABLE tick_orderbook")
    assert json.loads(run(db, "status", "--json", *arguments).stdout)["missing_tables"] == ["tick_orderbook"]
    repaired = run(db, "migrate", "--repair", *arguments)
    assert repaired.exit_code == 0
    assert "Made again: tick_orderbook." in repaired.stdout
    assert "No table was missing." in run(db, "migrate", "--repair", *arguments).stdout


def test_migrate_without_a_yes_exits_1(empty_questdb, tmp_path: Path) -> None:
    """Declined is not done."""
    declined = run(db, "migrate", *options(empty_questdb, tmp_path), answer="\n")
    assert declined.exit_code == 1
    assert "Nothing was executed." in declined.stdout


def test_console_prints_address_and_credentials(questdb, arguments: list[str]) -> None:
    """As a notebook server does."""
    shown = run(console, *arguments).stdout
    assert f"{questdb.http_url}/index.html" in shown
    assert questdb.user in shown
    assert questdb.password in shown
    assert json.loads(run(console, "--json", *arguments).stdout)["password"] == questdb.password


def test_console_before_the_installation_names_the_command(tmp_path: Path) -> None:
    """There are no credentials yet."""
    refused = run(console, "--data-dir", str(tmp_path))
    assert refused.exit_code == 1
    assert "collector db install" in refused.output


@pytest.mark.parametrize("command", ["install", "start", "stop"])
def test_an_external_server_is_neither_installed_nor_stopped(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Somebody else runs it."""
    monkeypatch.setenv("QUESTDB_PG_HOST", "127.0.0.1")
    refused = run(db, command)
    assert refused.exit_code == 2
    assert "external" in refused.output


def test_start_stop_and_start(questdb_server, tmp_path: Path) -> None:
    """Each says what it did, and doing it twice is harmless."""
    server = questdb_server(migrated=False)
    arguments = options(server, tmp_path)
    assert "runs already" in run(db, "start", *arguments).stdout
    assert "has stopped" in run(db, "stop", *arguments).stdout
    assert "was not running" in run(db, "stop", *arguments).stdout
    assert "is installed in" in run(db, "install", *arguments).stdout
    assert "has started" in run(db, "start", *arguments).stdout


@pytest.mark.parametrize("command", sorted(db.commands))
def test_every_help_has_an_example(command: str) -> None:
    """What a person needs stands in --help."""
    shown = run(db, command, "--help")
    assert shown.exit_code == 0
    assert f"collector db {command}" in shown.stdout
