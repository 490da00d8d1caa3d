"""What is wrong with a data directory as a whole."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import pytest

from collector.control import FOLDER, SOCKET
from collector.daemon_lock import DaemonLock
from collector.doctor import directory
from collector.doctor.directory import LOCK, examine_directory
from collector.doctor.findings import mend_all


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    folder = tmp_path / "data"
    folder.mkdir(mode=0o750)
    return folder


def codes(data_dir: Path) -> list[str]:
    return [each.finding.code for each in examine_directory(data_dir)]


def left_socket(data_dir: Path) -> None:
    (data_dir / FOLDER).mkdir(mode=0o700)
    with socket.socket(socket.AF_UNIX) as listening:
        # The path may be too long for a socket, so it is bound from inside its folder.
        before = Path.cwd()
        os.chdir(data_dir / FOLDER)
        try:
            listening.bind(SOCKET)
        finally:
            os.chdir(before)


def readable_password(data_dir: Path) -> None:
    folder = data_dir / "questdb" / "conf"
    folder.mkdir(parents=True, mode=0o750)
    (folder / "password").write_text("secret")
    (folder / "password").chmod(0o644)


def open_control(data_dir: Path) -> None:
    (data_dir / FOLDER).mkdir(mode=0o755)


def test_a_directory_that_a_daemon_left_is_healthy(data_dir: Path) -> None:
    """An orderly end leaves an empty lock."""
    with DaemonLock(data_dir):
        pass
    assert codes(data_dir) == []


@pytest.mark.parametrize(
    ("damage", "code", "mended"),
    [
        pytest.param(lambda d: d.chmod(0o755), "permissions", True, id="readable by all"),
        pytest.param(open_control, "permissions", True, id="control folder"),
        pytest.param(readable_password, "permissions", True, id="password"),
        pytest.param(left_socket, "socket-stale", True, id="socket"),
        pytest.param(lambda d: (d / LOCK).write_text("12345\n"), "lock-stale", False, id="lock"),
        pytest.param(lambda d: (d / "session_..x").mkdir(mode=0o750), "name", False, id="name"),
        pytest.param(lambda d: (d / "session_x").symlink_to(d), "link", False, id="link"),
    ],
)
def test_each_thing_that_is_wrong_is_named(data_dir: Path, damage: Any, code: str, mended: bool) -> None:
    """And mended, where that does not take a person."""
    damage(data_dir)
    cases = examine_directory(data_dir)
    assert [each.finding.code for each in cases] == [code]
    mend_all(cases)
    assert codes(data_dir) == ([] if mended else [code])


def test_a_full_disk_is_named(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With what can be done about it."""
    monkeypatch.setattr(directory, "_LITTLE_SHARE", 2.0)
    assert codes(data_dir) == ["disk"]


def test_what_belongs_to_a_running_daemon_is_not_stale(data_dir: Path) -> None:
    """Its socket and its lock."""
    with DaemonLock(data_dir):
        left_socket(data_dir)
        assert codes(data_dir) == []
