"""One daemon owns one data directory: a lock that ends with its holder, however that ends, and names it."""

from __future__ import annotations

import contextlib
import fcntl
import os
import time
from pathlib import Path
from types import TracebackType
from typing import Self

from collector.errors import CollectorError, DaemonRunning

_NAME = "daemon.lock"
_PATIENCE_S = 0.5  # whoever only looks holds the lock for an instant
_POLL_S = 0.02


class DaemonLock:
    """The lock of a data directory; entering takes it, leaving releases it.

    Raises:
        DaemonRunning: another process holds it; ``pid`` says which.
        CollectorError: the data directory cannot be written.
    """

    def __init__(self, data_dir: Path) -> None:
        self.path = data_dir / _NAME
        self._fd: int | None = None

    def __enter__(self) -> Self:
        self._fd = self._open()
        deadline = time.monotonic() + _PATIENCE_S
        while not _locked(self._fd, fcntl.LOCK_EX):
            if time.monotonic() > deadline:
                pid = _read_pid(self._fd)
                self._release()
                raise DaemonRunning(
                    f"A daemon (pid {pid or 'unknown'}) already owns the data directory {self.path.parent}.",
                    pid=pid,
                    hint="Use it, or end it with `collector down`; --data-dir names another directory.",
                )
            time.sleep(_POLL_S)
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, f"{os.getpid()}\n".encode("ascii"), 0)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._fd is not None:
            os.ftruncate(self._fd, 0)
        self._release()

    def _open(self) -> int:
        try:
            self.path.parent.mkdir(mode=0o750, parents=True, exist_ok=True)
            return os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        except OSError as error:
            raise CollectorError(
                f"The data directory {self.path.parent} cannot be used: {error.strerror}.",
                hint="Give another one with --data-dir or daemon.data_dir.",
            ) from error

    def _release(self) -> None:
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def lock_holder(data_dir: Path) -> int | None:
    """Return the pid of the daemon that owns a data directory (0 where it is unknown), None where none does."""
    try:
        fd = os.open(data_dir / _NAME, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
    except OSError:
        return None
    try:
        return None if _locked(fd, fcntl.LOCK_SH) else _read_pid(fd)
    finally:
        os.close(fd)


def _locked(fd: int, kind: int) -> bool:
    with contextlib.suppress(BlockingIOError):
        fcntl.flock(fd, kind | fcntl.LOCK_NB)
        return True
    return False


def _read_pid(fd: int) -> int:
    content = os.pread(fd, 32, 0).strip()
    return int(content) if content.isdigit() else 0
