"""Every operation on files that the log's promises depend on, behind one object, so that a test can make the n-th fail.

The log, the cursor and the manifest go through a ``Files``; nothing else of theirs touches the file system.
"""

from __future__ import annotations

import ctypes
import errno
import os
import sys
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol, TypeVar

_SYNC_THREADS = 8  # 1,000 fdatasyncs take 180-340 ms one by one, 67-119 ms with eight threads

NOT_REACHED_DISK = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOENT, errno.EINTR})
"""Errors of opening a file for its sync: they say nothing about whether what was written to it is safe."""

_T = TypeVar("_T")


class Files(Protocol):
    """The file system as the log sees it. Every method may raise OSError."""

    def open_append(self, path: Path) -> int:
        """Open (or create, mode 0640) a file for appending and return its descriptor; a symbolic link is refused."""
        ...

    def close(self, fd: int) -> None: ...

    def write(self, fd: int, content: bytes | memoryview) -> int:
        """Write what goes in one call and return how many bytes went."""
        ...

    def read(self, fd: int, size: int, offset: int) -> bytes:
        """Read up to ``size`` bytes from an offset; fewer only at the end of the file."""
        ...

    def truncate(self, fd: int, size: int) -> None: ...

    def size(self, fd: int) -> int: ...

    def look(self, path: Path) -> tuple[int, int]:
        """Return the inode that the path names now, and its size; raise FileNotFoundError where there is none."""
        ...

    def names(self, folder: Path) -> list[str]:
        """Return the names in a folder, sorted; none where there is no such folder."""
        ...

    def free_bytes(self, folder: Path) -> int:
        """Return how much can still be written to the disk that a folder is on."""
        ...

    def sync(self, fds: Sequence[int]) -> None:
        """Make everything written to these descriptors durable, each by its own call, several at a time."""
        ...

    def sync_many(self, fds: Sequence[int], closed: Sequence[Path]) -> None:
        """Make everything written to these descriptors, and to these closed files and folders beside them, durable."""
        ...

    def replace(self, path: Path, content: bytes) -> None:
        """Put content in place of a file atomically and durably: temporary file, fsync, rename, fsync of the folder."""
        ...

    def rename(self, old: Path, new: Path) -> None:
        """Rename durably (with an fsync of the folder)."""
        ...

    def remove(self, path: Path) -> None:
        """Remove a file durably (with an fsync of the folder); one that is gone already is no error."""
        ...

    def make_folder(self, path: Path) -> None:
        """Make a folder (mode 0750) and its missing parents, durably."""
        ...


class OperatingSystem:
    """The real file system."""

    def __init__(self) -> None:
        self._syncfs = getattr(ctypes.CDLL(None, use_errno=True), "syncfs", None) if sys.platform == "linux" else None
        self._pool: ThreadPoolExecutor | None = None

    def open_append(self, path: Path) -> int:
        return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)

    def close(self, fd: int) -> None:
        os.close(fd)

    def write(self, fd: int, content: bytes | memoryview) -> int:
        return os.write(fd, content)

    def read(self, fd: int, size: int, offset: int) -> bytes:
        return os.pread(fd, size, offset)

    def truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def size(self, fd: int) -> int:
        return os.fstat(fd).st_size

    def look(self, path: Path) -> tuple[int, int]:
        found = path.lstat()
        return found.st_ino, found.st_size

    def names(self, folder: Path) -> list[str]:
        try:
            return sorted(entry.name for entry in folder.iterdir())
        except FileNotFoundError:
            return []

    def free_bytes(self, folder: Path) -> int:
        facts = os.statvfs(folder)
        return facts.f_bavail * facts.f_frsize

    def sync(self, fds: Sequence[int]) -> None:
        synchronise = getattr(os, "fdatasync", os.fsync)
        if len(fds) == 1:
            synchronise(fds[0])
        elif fds:
            self._in_threads(synchronise, fds)

    def sync_many(self, fds: Sequence[int], closed: Sequence[Path]) -> None:
        """Use one ``syncfs`` where many files are concerned and the system has it, else sync each, in parallel.

        ``syncfs`` also waits for what other programs wrote to the file system, so a few files are synced by themselves.
        """
        if self._syncfs is not None and fds and len(fds) + len(closed) > _SYNC_THREADS:
            if self._syncfs(fds[0]) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
            return
        self.sync(fds)
        if closed:
            self._in_threads(self._sync_path, closed)

    def replace(self, path: Path, content: bytes) -> None:
        temporary = path.with_name(path.name + ".tmp")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(fd, view) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        temporary.replace(path)
        self._sync_path(path.parent)

    def rename(self, old: Path, new: Path) -> None:
        old.rename(new)
        self._sync_path(new.parent)

    def remove(self, path: Path) -> None:
        path.unlink(missing_ok=True)
        self._sync_path(path.parent)

    def make_folder(self, path: Path) -> None:
        missing = [folder for folder in (path, *path.parents) if not folder.exists()]
        for folder in reversed(missing):
            folder.mkdir(mode=0o750, exist_ok=True)
            self._sync_path(folder.parent)

    def _in_threads(self, operation: Callable[[_T], None], subjects: Sequence[_T]) -> None:
        """Run an operation on each subject and wait for all, so that none still runs when an error is raised."""
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_SYNC_THREADS, thread_name_prefix="sync")
        errors = [future.exception() for future in [self._pool.submit(operation, subject) for subject in subjects]]
        found = [error for error in errors if error is not None]
        # An error of the disk says more than one of opening: the caller must not take it for harmless.
        found.sort(key=lambda error: getattr(error, "errno", None) in NOT_REACHED_DISK)
        if found:
            raise found[0]

    @staticmethod
    def _sync_path(path: Path) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
