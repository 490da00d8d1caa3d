"""The root of the command line: lazy, and with errors that a person can use."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import click
import pytest

from collector.cli.main import SECTIONS, cli, main

HEAVY = ("pydantic", "fastapi", "psycopg", "websockets", "structlog", "httpx", "uvicorn", "prometheus_client")


def every_command() -> Iterator[tuple[str, click.Command]]:
    context = click.Context(cli)
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        yield name, command
        if isinstance(command, click.Group):
            for below, subcommand in command.commands.items():
                yield f"{name} {below}", subcommand


COMMANDS = dict(every_command())


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_explains_itself_with_an_example(name: str, collector: Callable[..., Any]) -> None:
    """--help says what it does, shows an example that begins with the command, and explains every option."""
    outcome = collector(*name.split(), "--help")
    assert outcome.status == 0
    assert "Example" in outcome.out
    assert f"collector {name}" in outcome.out.split("Example", 1)[1]
    unexplained = [p.name for p in COMMANDS[name].params if isinstance(p, click.Option) and not (p.help or p.hidden)]
    assert unexplained == []


def test_the_list_of_commands_is_what_there_is(collector: Callable[..., Any]) -> None:
    """Every command stands in it with a summary that ends like a sentence."""
    listed = collector("--help").out
    for section in SECTIONS.values():
        for name, entry in section.items():
            assert f"  {name} " in listed
            assert entry.summary.endswith(".")


def test_the_commands_that_print_facts_can_print_json() -> None:
    """A program reads what a person reads."""
    facts = {"start", "stop", "status", "sessions", "show", "verify", "import", "console", "db status", "config show"}
    missing = [name for name in facts if "as_json" not in {parameter.name for parameter in COMMANDS[name].params}]
    assert missing == []


@pytest.mark.parametrize(
    ("arguments", "status", "message", "hint"),
    [
        (["strat"], 2, "There is no command 'strat'.", "start"),
        (["start"], 2, "Missing option '--exchange'", "collector start --help"),
        (["start", "--exchange", "binanse", "--symbols", "A_B"], 2, "There is no exchange 'binanse'.", "binance"),
        (["start", "--exchange", "sim", "--symbols", "BTCUSDT"], 2, "'BTCUSDT' is no symbol.", "BTC_USDT"),
        (["start", "--exchange", "sim", "--symbols", "A_B", "--data-types", "price"], 2, "'price'", "prices"),
        (["start", "--exchange", "sim", "--symbols", "A_B", "--duration", "1 hour"], 2, "no duration", "90s"),
        (["start", "--exchange", "sim", "--symbols", "A_B", "--ws-url", "http://x"], 2, "no address", "ws://"),
        (["start", "--exchange", "sim", "--symbols", "A_B", "--id", "a/b"], 2, "no session id", "letters"),
        (["stop"], 2, "which session", "collector sessions"),
        (["stop", "s1", "--all"], 2, "which session", "collector sessions"),
        (["replay", "nothing.rec"], 2, "does not exist", "collector replay --help"),
        (["status"], 1, "No daemon runs", "collector up"),
        (["status", "s9"], 2, "There is no session 's9'", ""),
        (["down"], 1, "No daemon runs", ""),
    ],
)
def test_an_error_is_a_sentence_and_a_hint(
    arguments: list[str],
    status: int,
    message: str,
    hint: str,
    collector: Callable[..., Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Exit 2 for a wrong request, 1 for a failure; no traceback; nothing is written."""
    monkeypatch.chdir(tmp_path)
    outcome = collector(*arguments)
    assert outcome.status == status
    first, *rest = outcome.err.splitlines()
    assert first.startswith("error: ")
    assert message in first
    assert hint in "".join(line.removeprefix("hint: ") for line in rest)
    assert outcome.out == ""
    assert list(tmp_path.iterdir()) == []


def test_with_json_errors_are_json(collector: Callable[..., Any], tmp_path: Path) -> None:
    """A program gets the error where it expects the facts."""
    outcome = collector("status", "--json", "--data-dir", tmp_path)
    assert outcome.status == 1
    assert json.loads(outcome.out)["error"]["kind"] == "DaemonNotRunning"
    assert outcome.err == ""


def test_a_fault_of_ours_is_said_to_be_one(
    collector: Callable[..., Any], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Not a traceback, but how to get one."""
    monkeypatch.setattr("collector.control.ask", lambda *_, **__: 1 / 0)
    outcome = collector("status", "--data-dir", tmp_path)
    assert outcome.status == 1
    assert "ZeroDivisionError" in outcome.err
    assert "COLLECTOR_DEBUG" in outcome.err
    assert "Traceback" not in outcome.err
    monkeypatch.setenv("COLLECTOR_DEBUG", "1")
    assert "Traceback" in collector("status", "--data-dir", tmp_path).err


def test_an_interrupted_command_says_so(collector: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C ends with the status that shells expect."""

    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("collector.control.ask", interrupt)
    assert collector("status").status == 130


def test_the_version_is_printed(collector: Callable[..., Any]) -> None:
    """As the package has it."""
    assert collector("--version").out.startswith("collector ")


@pytest.mark.parametrize("arguments", [["--help"], ["status"], ["down"], ["start", "--help"]])
def test_commands_that_only_ask_import_nothing_heavy(arguments: list[str], tmp_path: Path) -> None:
    """What they import decides how fast they answer."""
    code = (
        "import sys\nfrom collector.cli.main import main\n"
        f"try:\n    main({arguments!r})\nexcept SystemExit:\n    pass\n"
        f"print('imported', [name for name in {HEAVY!r} if name in sys.modules])"
    )
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=tmp_path)
    assert answer.stdout.splitlines()[-1] == "imported []"


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ("collector sta", {"start", "status"}),
        ("collector start --exchange bin", {"binance", "binance_coinm", "binance_futures"}),
        ("collector start --symbols BTC_USDT,ETH", {"BTC_USDT,ETH_USDT"}),
        ("collector start --data-types prices,o", {"prices,open_interest", "prices,orderbook"}),
        ("collector show s", {"s1", "s2"}),
        ("collector verify s2", {"s2"}),
    ],
)
def test_the_shell_completes(
    words: str, expected: set[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Commands, exchanges, data types and session ids complete, the last of several too."""
    for name in ("s1", "s2"):
        (tmp_path / "data" / f"session_{name}").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("_COLLECTOR_COMPLETE", "bash_complete")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split()) - 1))
    with pytest.raises(SystemExit):
        main([])
    completed = {line.partition(",")[2] for line in capsys.readouterr().out.splitlines()}
    assert completed == expected
