"""A file system that fails where it is told to, for tests of everything that goes through ``Files``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from collector.storage.files import Files


class FailingFiles:
    """Pass every operation on to another file system, count it, and fail the chosen ones before they do anything.

    ``calls`` names the operations so far, in order; closing a descriptor and asking for room is never failed, and never
    counted. ``free`` is the room that there is said to be; None for the disk's own.
    """

    def __init__(self, inner: Files) -> None:
        self.calls: list[str] = []
        self.failed: list[str] = []
        self.free: int | None = None
        self._inner = inner
        self._planned: dict[str, list[int]] = {}
        self._at: tuple[int, int, bool] | None = None
        self._short: list[int] = []

    def fail_next(self, operation: str, number: int, times: int = 1) -> None:
        """Fail the next calls of an operation with an error number."""
        self._planned.setdefault(operation, []).extend([number] * times)

    def fail_at(self, call: int, number: int, *, for_good: bool = False) -> None:
        """Fail the n-th operation from now on (the first is 1), and with ``for_good`` every one after it."""
        self._at = (len(self.calls) + call, number, for_good)

    def shorten_next_write(self, size: int) -> None:
        """Have the next write take no more than so many bytes."""
        self._short.append(size)

    def heal(self) -> None:
        """Forget every failure that was planned."""
        self._planned.clear()
        self._short.clear()
        self._at = None

    def open_append(self, path: Path) -> int:
        self._count("open_append")
        return self._inner.open_append(path)

    def close(self, fd: int) -> None:
        self._inner.close(fd)

    def write(self, fd: int, content: bytes | memoryview) -> int:
        self._count("write")
        if self._short:
            content = memoryview(content)[: self._short.pop(0)]
        return self._inner.write(fd, content)

    def read(self, fd: int, size: int, offset: int) -> bytes:
        self._count("read")
        return self._inner.read(fd, size, offset)

    def truncate(self, fd: int, size: int) -> None:
        self._count("truncate")
        self._inner.truncate(fd, size)

    def size(self, fd: int) -> int:
        self._count("size")
        return self._inner.size(fd)

    def look(self, path: Path) -> tuple[int, int]:
        self._count("look")
        return self._inner.look(path)

    def names(self, folder: Path) -> list[str]:
        self._count("names")
        return self._inner.names(folder)

    def free_bytes(self, folder: Path) -> int:
        return self._inner.free_bytes(folder) if self.free is None else self.free

    def sync(self, fds: Sequence[int]) -> None:
        self._count("sync")
        self._inner.sync(fds)

    def sync_many(self, fds: Sequence[int], closed: Sequence[Path]) -> None:
        self._count("sync_many")
        self._inner.sync_many(fds, closed)

    def replace(self, path: Path, content: bytes) -> None:
        self._count("replace")
        self._inner.replace(path, content)

    def rename(self, old: Path, new: Path) -> None:
        self._count("rename")
        self._inner.rename(old, new)

    def remove(self, path: Path) -> None:
        self._count("remove")
        self._inner.remove(path)

    def make_folder(self, path: Path) -> None:
        self._count("make_folder")
        self._inner.make_folder(path)

    def _count(self, operation: str) -> None:
        self.calls.append(operation)
        number = 0
        if self._planned.get(operation):
            number = self._planned[operation].pop(0)
        elif self._at is not None:
            at, planned, for_good = self._at
            if len(self.calls) == at or (for_good and len(self.calls) > at):
                number = planned
        if number:
            self.failed.append(operation)
            raise OSError(number, os.strerror(number))
