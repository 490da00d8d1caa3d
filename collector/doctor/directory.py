"""The data directory itself: its lock and socket, its permissions, its disk, the folders that are no sessions."""

from __future__ import annotations

import os
import shutil
import stat
from collections.abc import Callable, Iterator
from pathlib import Path

from collector.control import FOLDER, SOCKET
from collector.daemon_lock import lock_holder
from collector.doctor.findings import Case, case
from collector.errors import UsageError
from collector.session.names import check_session_id

LOCK = "daemon.lock"
LITTLE_BYTES = 2 << 30
_LITTLE_SHARE = 0.02


def examine_directory(data_dir: Path) -> list[Case]:
    """Return what is wrong with a data directory, whatever its sessions are like."""
    cases = list(_permissions(data_dir))
    cases += _private_files(data_dir)
    cases += _space(data_dir)
    if lock_holder(data_dir) is None:
        cases += _stale(data_dir)
    cases += _strangers(data_dir)
    return cases


def _permissions(data_dir: Path) -> Iterator[Case]:
    mode = stat.S_IMODE(data_dir.stat().st_mode)
    if mode & (stat.S_IRWXO | stat.S_IWGRP):
        text = f"The data directory has the mode {mode:04o}: others can look into it, or its group can write."
        yield case(
            "permissions", str(data_dir), text, "Its mode becomes 0750.", mend=lambda: data_dir.chmod(mode & 0o750)
        )
    if data_dir.stat().st_uid != os.geteuid():
        text = "The data directory belongs to another user."
        yield case("owner", str(data_dir), text, "Run the collector as that user, or give the directory to this one.")


def _private_files(data_dir: Path) -> Iterator[Case]:
    folder = data_dir / FOLDER
    if folder.is_dir() and stat.S_IMODE(folder.stat().st_mode) & 0o077:
        text = "The control socket's folder is open to others."
        yield case("permissions", str(folder), text, "Its mode becomes 0700.", mend=lambda: folder.chmod(0o700))
    for path in sorted((data_dir / "questdb" / "conf").glob("*password*")):
        if path.is_file() and stat.S_IMODE(path.stat().st_mode) & 0o077:
            text = "A password can be read by others."
            yield case("permissions", str(path), text, "Its mode becomes 0600.", mend=_chmod(path, 0o600))


def _chmod(path: Path, mode: int) -> Callable[[], None]:
    return lambda: path.chmod(mode)


def _space(data_dir: Path) -> Iterator[Case]:
    usage = shutil.disk_usage(data_dir)
    if usage.free < min(LITTLE_BYTES, usage.total * _LITTLE_SHARE * 5) or usage.free < usage.total * _LITTLE_SHARE:
        text = f"Only {usage.free / 1e9:.1f} of {usage.total / 1e9:.1f} GB are free."
        yield case("disk", str(data_dir), text, "Make room, or set csv.compress and csv.keep_days.")


def _stale(data_dir: Path) -> Iterator[Case]:
    lock = data_dir / LOCK
    if lock.is_file() and lock.stat().st_size:
        text = "The lock names a daemon that ended without tidying up."
        yield case("lock-stale", str(lock), text, "Nothing: the lock itself is free.", weight="note")
    socket = data_dir / FOLDER / SOCKET
    if socket.is_socket():
        text = "A control socket is left of a daemon that is gone."
        yield case("socket-stale", str(socket), text, "It is deleted.", mend=lambda: socket.unlink(missing_ok=True))


def _strangers(data_dir: Path) -> Iterator[Case]:
    for path in sorted(data_dir.glob("session_*")):
        try:
            check_session_id(path.name.removeprefix("session_"))
        except UsageError:
            yield case("name", path.name, "This is no session's folder: no session can have that id.", "Move it away.")
        if path.is_symlink():
            text = "A session's folder is a symbolic link."
            yield case("link", path.name, text, "Put the folder itself in its place.")
