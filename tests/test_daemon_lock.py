"""The lock of a data directory: one holder, named, gone with its process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from collector.daemon_lock import DaemonLock, lock_holder
from collector.errors import CollectorError, DaemonRunning

HOLD = """
import sys, time
from pathlib import Path
from collector.daemon_lock import DaemonLock
with DaemonLock(Path(sys.argv[1])):
    print("held", flush=True)
    sys.stdin.read()
"""


def holder(folder: Path) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def ended(process: subprocess.Popen[str]) -> None:
    process.communicate(timeout=20)


def test_nobody_holds_a_new_directory(tmp_path: Path) -> None:
    """A directory without a lock has no holder, one that does not exist neither."""
    assert lock_holder(tmp_path) is None
    assert lock_holder(tmp_path / "nothing") is None


def test_the_holder_is_known_while_it_holds(tmp_path: Path) -> None:
    """The pid can be read from outside, and is gone afterwards."""
    with DaemonLock(tmp_path / "new" / "data"):
        assert lock_holder(tmp_path / "new" / "data") == os.getpid()
    assert lock_holder(tmp_path / "new" / "data") is None


def test_a_second_daemon_is_refused_with_the_pid_of_the_first(tmp_path: Path) -> None:
    """The error names the process, and what to do."""
    process = holder(tmp_path)
    try:
        with pytest.raises(DaemonRunning, match=f"pid {process.pid}") as caught, DaemonLock(tmp_path):
            pass
        assert caught.value.pid == process.pid
        assert "collector down" in caught.value.hint
    finally:
        ended(process)


def test_a_killed_holder_leaves_the_directory_free(tmp_path: Path) -> None:
    """The lock ends with its process, however that ends; its stale pid is nobody's."""
    process = holder(tmp_path)
    process.send_signal(signal.SIGKILL)
    ended(process)
    assert (tmp_path / "daemon.lock").read_text(encoding="ascii").strip() == str(process.pid)
    assert lock_holder(tmp_path) is None
    with DaemonLock(tmp_path):
        assert lock_holder(tmp_path) == os.getpid()


def test_whoever_only_looks_does_not_keep_a_daemon_out(tmp_path: Path) -> None:
    """Looking takes the lock for an instant, which starting waits out."""
    for _ in range(50):
        with DaemonLock(tmp_path):
            assert lock_holder(tmp_path) == os.getpid()
        assert lock_holder(tmp_path) is None


def test_an_unusable_directory_is_a_sentence(tmp_path: Path) -> None:
    """A file where the directory should be is told with its path."""
    (tmp_path / "file").write_text("", encoding="ascii")
    with pytest.raises(CollectorError, match="cannot be used"), DaemonLock(tmp_path / "file" / "data"):
        pass


def test_a_link_in_place_of_the_lock_is_refused(tmp_path: Path) -> None:
    """The lock never writes through a symbolic link."""
    (tmp_path / "daemon.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CollectorError), DaemonLock(tmp_path):
        pass
    assert not (tmp_path / "elsewhere").exists()
