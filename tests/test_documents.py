"""Documentation is tested: what it names exists, and what exists is in it."""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

import click
import pytest

from collector.cli.main import cli
from collector.config import ENVIRONMENT, Config
from collector.metrics import METRICS
from collector.streams import STREAMS

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
ARCHITECTURE = (ROOT / "ARCHITECTURE.md").read_text(encoding="utf-8")
DOCUMENTS = {"README.md": README, "ARCHITECTURE.md": ARCHITECTURE}
MIGRATIONS = sorted((ROOT / "database" / "questdb" / "migrations").glob("*.sql"))
EVERY = pytest.mark.parametrize("text", DOCUMENTS.values(), ids=list(DOCUMENTS))


def code(text: str) -> str:
    """Return what stands in backticks and in blocks of code."""
    fenced = re.findall(r"^```.*?\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    inline = re.findall(r"`([^`\n]+)`", re.sub(r"^```.*?^```", "", text, flags=re.DOTALL | re.MULTILINE))
    return "\n".join([*fenced, *inline])


def commands() -> dict[str, click.Command]:
    context = click.Context(cli)
    found: dict[str, click.Command] = {}
    for name in cli.list_commands(context):
        command = cli.get_command(context, name)
        assert command is not None
        found[name] = command
        if isinstance(command, click.Group):
            found |= {f"{name} {below}": subcommand for below, subcommand in command.commands.items()}
    return found


def test_every_command_is_in_the_readme() -> None:
    """A person finds each by reading."""
    described = code(README)
    assert [name for name in commands() if f"collector {name}" not in described] == []


@EVERY
def test_commands_and_options_in_the_documentation_exist(text: str) -> None:
    """What a person copies works."""
    known = commands()
    for line in re.findall(r"^\s*(?:\$ )?collector ([^\n|#]+)", code(text), re.MULTILINE):
        words = line.split()
        name = " ".join(words[:2]) if " ".join(words[:2]) in known else words[0]
        if name.startswith(("-", "…", "[")):
            continue
        assert name in known, line
        options = {
            option for parameter in known[name].params for option in (*parameter.opts, *parameter.secondary_opts)
        }
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]*", line):
            assert option in options | {"--help", "--version"}, line


@EVERY
def test_configuration_keys_in_the_documentation_exist(text: str) -> None:
    """A key is named as section.key."""
    sections = Config().model_dump()
    for section, key in re.findall(r"(?<![\w./])([a-z]+)\.([a-z_]+)(?![\w./(])", code(text)):
        if section in sections and section != "exchange" and key not in ("py", "csv", "toml", "md", "json", "sql"):
            assert key in sections[section], f"{section}.{key}"


def test_environment_variables_in_the_readme_are_those_that_there_are() -> None:
    """Each is described, and none that does not exist."""
    described = set(re.findall(r"\b(?:QUESTDB_(?:ILP|HTTP|PG)_[A-Z]+|USE_CSV_STORAGE|COLLECTOR_DATA_DIR)\b", README))
    assert described == set(ENVIRONMENT)


def test_every_metric_is_documented_and_every_documented_metric_exists() -> None:
    """METRICS.md says of each what /metrics says."""
    page = (ROOT / "METRICS.md").read_text(encoding="utf-8")
    rows = [line for line in page.splitlines() if line.startswith("| `collector_")]
    assert rows == [f"| `{m.name}` | {m.kind} | {', '.join(m.labels) or 'none'} | {m.help} |" for m in METRICS]
    others = set(re.findall(r"\bcollector_[a-z_]+[a-z]\b", code(README) + code(ARCHITECTURE)))
    assert others <= {metric.name for metric in METRICS}


def test_every_limit_is_a_key_with_a_counter() -> None:
    """METRICS.md says what happens at each and where it is counted: none is missing, none is made up."""
    rows = re.findall(
        r"^\| (`[a-z]+\.[^|]+) \| [^|]+ \| ([^|]+) \|$", (ROOT / "METRICS.md").read_text("utf-8"), re.MULTILINE
    )
    described = {key for keys, _ in rows for key in re.findall(r"`([a-z_.]+)`", keys)}
    counters = {name for _, names in rows for name in re.findall(r"`([a-z_]+)`", names)}
    keys = {f"{section}.{key}" for section, values in Config().model_dump().items() for key in values}
    limits = {key for key in keys if re.search(r"\.(max_|\w*_bytes$|\w*_max_(rows|bytes|records)$)", key)}
    assert limits <= described <= keys
    assert counters <= {metric.name for metric in METRICS}
    assert all(names for _, names in rows)


def test_every_table_is_documented() -> None:
    """The tables of streams and those that are none."""
    made = {
        name
        for path in MIGRATIONS
        for name in re.findall(
            r"CREATE TABLE (?:IF NOT EXISTS )?'?(\w+)", path.read_text(encoding="utf-8"), re.IGNORECASE
        )
    }
    dropped = {"strategy_signals", "system_metrics", "error_logs", "orders", "positions"}
    assert {stream.table for stream in STREAMS.values()} <= made
    assert [name for name in sorted(made - dropped) if name not in README + ARCHITECTURE] == []


def test_every_stream_is_documented_with_its_file() -> None:
    """A person who opens a session's folder knows what is what."""
    assert [stream.file for stream in STREAMS.values() if stream.file not in README + ARCHITECTURE] == []


@EVERY
def test_make_targets_in_the_documentation_exist(text: str) -> None:
    """And so do the files that it links to."""
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    assert set(re.findall(r"\bmake ([a-z]+)\b", code(text))) <= targets
    for link in re.findall(r"\]\((?!https?:|#)([^)#]+)", text):
        assert (ROOT / link).exists(), link


def test_the_changelog_has_the_version() -> None:
    """What is released is described."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["version"]
    changes = (ROOT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## \[?({re.escape(version)}|Unreleased)\]?", changes, re.MULTILINE)
