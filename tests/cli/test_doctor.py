"""``collector doctor``: what it says, what it mends, and its exit status."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from collector.session.manifest import Manifest, save_manifest
from collector.storage.files import OperatingSystem


@pytest.fixture
def place(tmp_path: Path) -> tuple[str, ...]:
    """Give the options of a configuration without a database, and a data directory with one session."""
    config = tmp_path / "config.toml"
    config.write_text('[questdb]\nmode = "off"\n')
    directory = tmp_path / "data" / "session_s1"
    directory.mkdir(parents=True, mode=0o750)
    for folder in (directory, directory.parent):
        folder.chmod(0o750)
    save_manifest(directory, Manifest("s1", "sim", ["A_B"], ["prices"], 1, state="completed"), OperatingSystem())
    (directory / "session.json").chmod(0o640)
    return ("--config", str(config), "--data-dir", str(tmp_path / "data"))


def test_a_healthy_directory_is_done(place: tuple[str, ...], collector: Callable[..., Any]) -> None:
    """Exit 0, and a sentence."""
    outcome = collector("doctor", *place)
    assert outcome.status == 0, outcome.out
    assert "1 sessions examined; database: off.\nNothing is wrong." in outcome.out


def test_what_is_wrong_is_said_and_mended_only_when_asked(
    place: tuple[str, ...], collector: Callable[..., Any], tmp_path: Path
) -> None:
    """Exit 1 with what would be done; with --fix it is done, exit 0."""
    left = tmp_path / "data" / "session_s1" / "session.json.tmp"
    left.touch(mode=0o640)
    outcome = collector("doctor", "s1", *place)
    assert outcome.status == 1
    assert "problem  s1: session.json.tmp was never finished.\n         --fix: It is deleted." in outcome.out
    assert left.exists()
    outcome = collector("doctor", "--fix", *place)
    assert outcome.status == 0, outcome.out
    assert "mended   s1: session.json.tmp was never finished." in outcome.out
    assert not left.exists()


def test_json_has_every_finding(place: tuple[str, ...], collector: Callable[..., Any], tmp_path: Path) -> None:
    """For programs: its code, and whether it can be mended."""
    (tmp_path / "data" / "session_s1").chmod(0o777)
    outcome = collector("doctor", "--json", *place)
    facts = json.loads(outcome.out)
    assert (outcome.status, facts["healthy"]) == (1, False)
    assert [(f["code"], f["fixable"], f["fixed"]) for f in facts["diagnosis"]["findings"]] == [
        ("permissions", True, False)
    ]


def test_a_session_or_a_directory_that_is_not_there_is_wrong_usage(
    place: tuple[str, ...], collector: Callable[..., Any], tmp_path: Path
) -> None:
    """Exit 2."""
    assert collector("doctor", "s2", *place).status == 2
    assert collector("doctor", "--data-dir", tmp_path / "none").status == 2


def test_a_running_session_is_left_in_peace(daemon: Any, collector: Callable[..., Any], tmp_path: Path) -> None:
    """The daemon says which ones it runs."""
    config = tmp_path / "config.toml"
    config.write_text('[questdb]\nmode = "off"\n')
    directory = daemon.data_dir / "session_s1"
    directory.mkdir(mode=0o750)
    daemon.data_dir.chmod(0o750)
    directory.chmod(0o750)
    save_manifest(directory, Manifest("s1", "sim", ["A_B"], ["prices"], 1, state="active"), OperatingSystem())
    (directory / "session.json").chmod(0o640)
    (directory / "session.json.tmp").touch(mode=0o640)
    outcome = collector("doctor", "--config", config, "--data-dir", daemon.data_dir)
    assert outcome.status == 0, outcome.out
