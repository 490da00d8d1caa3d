"""A person asks QuestDB, and gets rows in the form wanted."""

from __future__ import annotations

import csv
import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow.parquet as parquet
import pytest

SQL = "SELECT x, x * 0.5 half, x = 2 two, CASE WHEN x = 3 THEN NULL ELSE 'a,b' END word FROM long_sequence(3)"


@pytest.fixture
def config(questdb: Any, tmp_path: Path) -> Path:
    """Give the configuration of the run's own server."""
    http_port, pg_port = questdb.server.ports
    path = tmp_path / "config.toml"
    path.write_text(
        f'[daemon]\ndata_dir = "{questdb.data_dir}"\n[questdb]\nilp_port = {http_port}\npg_port = {pg_port}\n'
    )
    return path


def test_rows_come_in_every_form(collector: Callable[..., Any], config: Path, tmp_path: Path) -> None:
    """As a table, CSV, JSON or Parquet, printed or written."""
    ask = ("query", SQL, "--config", config, "--format")
    table = collector("query", SQL, "--config", config)
    assert table.status == 0
    assert table.out.split("\n")[0].split() == ["x", "half", "two", "word"]
    lines = list(csv.reader(collector(*ask, "csv").out.splitlines()))
    assert lines == [
        ["x", "half", "two", "word"],
        ["1", "0.5", "false", "a,b"],
        ["2", "1.0", "true", "a,b"],
        ["3", "1.5", "false", ""],
    ]
    rows = json.loads(collector(*ask, "json").out)
    assert rows[2] == {"x": 3, "half": 1.5, "two": False, "word": None}
    assert collector(*ask, "parquet", "--output", tmp_path / "x.parquet").status == 0
    assert parquet.read_table(tmp_path / "x.parquet").to_pylist() == rows
    assert collector(*ask, "json", "--output", tmp_path / "x.json").status == 0
    assert json.loads((tmp_path / "x.json").read_text()) == rows


def test_packaged_queries_are_listed_and_take_parameters(collector: Callable[..., Any], config: Path) -> None:
    """With what they mean; no row is no error."""
    listed = collector("query", "--list").out
    assert "biggest_trades: " in listed
    assert "    interval = 1m  the length of a bucket" in listed
    asked = collector("query", "vwap", "-p", "symbol=NO_SUCH", "--format", "json", "--config", config)
    assert (asked.status, json.loads(asked.out)) == (0, [])


def test_what_cannot_be_asked_is_said(collector: Callable[..., Any], config: Path) -> None:
    """Wrong usage is 2, and what the server refuses is 1."""
    assert collector("query", "DROP TABLE tick_prices", "--config", config).status == 2
    assert "Did you mean vwap" in collector("query", "vwapp", "--config", config).err
    assert collector("query", "vwap", "-p", "symbol", "--config", config).status == 2
    assert collector("query", "vwap", "--format", "parquet", "--config", config).status == 2
    refused = collector("query", "SELECT nothing FROM tick_prices", "--config", config)
    assert (refused.status, "Invalid column" in refused.err) == (1, True)


def test_a_reader_that_has_seen_enough_is_no_error(config: Path) -> None:
    """As with `| head -1`."""
    command = [
        sys.executable,
        "-m",
        "collector",
        "query",
        "SELECT x FROM long_sequence(2000000)",
        "--config",
        str(config),
    ]
    process = subprocess.Popen([*command, "--format", "csv"], stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    with process:
        assert process.stdout.readline() == b"x\n"
        process.stdout.close()
        assert (process.wait(60), process.stderr.read()) == (0, b"")
