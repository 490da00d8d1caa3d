"""The end of a stream's files, and what is added to it: for whoever watches a session while it is collected.

Everything is read from CSV, so it works without a database, and shows a row half a second after it was received.
"""

from __future__ import annotations

import os
from pathlib import Path

from collector.reading.csv_rows import read_file, segments, stream_folder
from collector.storage.segments import MAX_LINE_BYTES
from collector.streams import Stream

_BLOCK_BYTES = 1 << 16
_POLL_MAX_BYTES = 8 << 20

Fields = dict[str, str]


def last_rows(directory: Path, stream: Stream, symbol: str | None, count: int) -> list[Fields]:
    """Return the last rows of a stream, oldest first, each by its columns' names; a torn last line is none.

    Raises:
        LogError: a closed segment cannot be read.
    """
    found: list[Fields] = []
    for path in reversed(segments(directory, stream, symbol)):
        missing = count - len(found)
        if missing <= 0:
            break
        found = _last_of(path, stream, missing) + found
    return found


def _last_of(path: Path, stream: Stream, count: int) -> list[Fields]:
    names = [column.name for column in stream.columns]
    if path.suffix == ".gz":
        rows: list[list[str]] = []
        for batch in read_file(path, stream):
            rows = (rows + batch.rows)[-count:]
        return [dict(zip(names, row, strict=False)) for row in rows]
    with path.open("rb") as file:
        header = file.readline(MAX_LINE_BYTES)
        names = header.decode().rstrip("\n").split(",")
        begin, end = len(header), os.fstat(file.fileno()).st_size
        content = b""
        # One line more than asked for: the first one of a block is most likely cut.
        while end > begin and content.count(b"\n") <= count:
            size = min(_BLOCK_BYTES, end - begin)
            end -= size
            file.seek(end)
            content = file.read(size) + content
    return _fields(names, content if end == begin else content.partition(b"\n")[2])[-count:]


class Follower:
    """Tell what has been added to a stream's files since it was asked last; begins at their present end."""

    def __init__(self, directory: Path, stream: Stream, symbol: str | None) -> None:
        self._directory = directory
        self._stream = stream
        self._symbol = symbol
        self._path = stream_folder(directory, stream, symbol) / stream.file
        self._names: list[str] = []
        self._inode = 0
        self._offset = 0
        self._last_seq = max((int(row["seq"] or 0) for row in last_rows(directory, stream, symbol, 1)), default=0)
        self.poll()

    def poll(self) -> list[Fields]:
        """Return the whole lines that came since; after a rotation the rest of the closed segment comes first."""
        try:
            with self._path.open("rb") as file:
                facts = os.fstat(file.fileno())
                if facts.st_ino != self._inode or facts.st_size < self._offset:
                    return self._begin_again(file.readline(MAX_LINE_BYTES), facts.st_ino)
                file.seek(self._offset)
                content = file.read(min(_POLL_MAX_BYTES, facts.st_size - self._offset))
        except FileNotFoundError:
            return []
        content = content[: content.rfind(b"\n") + 1]
        self._offset += len(content)
        return self._newer(_fields(self._names, content))

    def _begin_again(self, header: bytes, inode: int) -> list[Fields]:
        """Take a file that is new here: rows of it and of segments before it that were not told yet."""
        if not header.endswith(b"\n"):
            return []
        self._names = header.decode().rstrip("\n").split(",")
        self._inode, self._offset = inode, len(header)
        found: list[Fields] = []
        for path in reversed(segments(self._directory, self._stream, self._symbol)):
            if path == self._path:
                continue
            rows = _last_of(path, self._stream, 1)
            if not rows or int(rows[-1]["seq"] or 0) <= self._last_seq:
                break
            names = [column.name for column in self._stream.columns]
            of_segment = [
                dict(zip(names, row, strict=False)) for batch in read_file(path, self._stream) for row in batch.rows
            ]
            found = of_segment + found
        return self._newer(found) + self.poll()

    def _newer(self, rows: list[Fields]) -> list[Fields]:
        fresh = [row for row in rows if int(row["seq"] or 0) > self._last_seq]
        if fresh:
            self._last_seq = int(fresh[-1]["seq"])
        return fresh


def _fields(names: list[str], content: bytes) -> list[Fields]:
    lines = content.decode("utf-8", "replace").split("\n")[:-1]
    return [dict(zip(names, line.split(","), strict=False)) for line in lines if line.count(",") == len(names) - 1]
