"""Every operation on files that the log's promises depend on, behind one object, so that a test can make the n-th fail.

The log, the cursor and the manifest go through a ``Files``; nothing else of theirs touches the file system.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Protocol

_SYNC_THREADS = 8  # 1,000 fdatasyncs take 180-340 ms one by one, 67-119 ms with eight threads


class Files(Protocol):
    """The file system as the log sees it. Every method may raise OSError."""

    def open_append(self, path: Path) -> int:
        """Open (or create, mode 0640) a file for appending and return its descriptor."""
        ...

    def close(self, fd: int) -> None: ...

    def write(self, fd: int, content: bytes) -> int:
        """Write what goes in one call and return how many bytes went."""
        ...

    def truncate(self, fd: int, size: int) -> None: ...

    def size(self, fd: int) -> int: ...

    def inode(self, path: Path) -> int:
        """Return the inode that the path names now; raise FileNotFoundError where there is none."""
        ...

    def sync(self, fds: Sequence[int]) -> None:
        """Make everything written to these descriptors durable."""
        ...

    def replace(self, path: Path, content: bytes) -> None:
        """Put content in place of a file atomically and durably: temporary file, fsync, rename, fsync of the folder."""
        ...

    def rename(self, old: Path, new: Path) -> None:
        """Rename durably (with an fsync of the folder)."""
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
        return os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o640)

    def close(self, fd: int) -> None:
        os.close(fd)

    def write(self, fd: int, content: bytes) -> int:
        return os.write(fd, content)

    def truncate(self, fd: int, size: int) -> None:
        os.ftruncate(fd, size)

    def size(self, fd: int) -> int:
        return os.fstat(fd).st_size

    def inode(self, path: Path) -> int:
        return path.stat().st_ino

    def sync(self, fds: Sequence[int]) -> None:
        """Use one ``syncfs`` where many files are concerned and the system has it, else ``fdatasync`` in parallel."""
        if not fds:
            return
        if len(fds) > 1 and self._syncfs is not None:
            if self._syncfs(fds[0]) != 0:
                number = ctypes.get_errno()
                raise OSError(number, os.strerror(number))
            return
        synchronise = getattr(os, "fdatasync", os.fsync)
        if len(fds) == 1:
            synchronise(fds[0])
            return
        if self._pool is None:
            self._pool = ThreadPoolExecutor(_SYNC_THREADS, thread_name_prefix="sync")
        list(self._pool.map(synchronise, fds))

    def replace(self, path: Path, content: bytes) -> None:
        temporary = path.with_name(path.name + ".tmp")
        fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o640)
        try:
            view = memoryview(content)
            while view:
                view = view[os.write(fd, view) :]
            os.fsync(fd)
        finally:
            os.close(fd)
        temporary.replace(path)
        self._sync_folder(path.parent)

    def rename(self, old: Path, new: Path) -> None:
        old.rename(new)
        self._sync_folder(new.parent)

    def make_folder(self, path: Path) -> None:
        path.mkdir(mode=0o750, parents=True, exist_ok=True)
        self._sync_folder(path.parent)

    @staticmethod
    def _sync_folder(path: Path) -> None:
        fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            os.fsync(fd)
        finally:
            os.close(fd)
