"""The rows that QuestDB refused, in ``rejected.csv`` of the session, each once, with the reason."""

from __future__ import annotations

import csv
import io
import zlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from collector.storage.files import Files

REJECTED_FILE = "rejected.csv"
_HEADER = "stream,symbol,seq,reason,row\n"
_CHUNK = 1 << 20


@dataclass(frozen=True, slots=True)
class RejectedRow:
    """A line that no table took: where it stands, why, and the line itself (shortened where it is very long)."""

    stream: str
    symbol: str
    seq: str
    reason: str
    row: str

    @property
    def identity(self) -> tuple[str, str, str, int]:
        return self.stream, self.symbol, self.seq, zlib.crc32(_one_line(self.row).encode("utf-8", "backslashreplace"))


class RejectedRows:
    """One session's ``rejected.csv``; it is read when the first row is to be added, and made only then.

    A row that is in the file already (the process ended between writing it and saving the cursor) is not added again.
    """

    def __init__(self, directory: Path, files: Files) -> None:
        self._path = directory / REJECTED_FILE
        self._files = files
        self._known: set[tuple[str, str, str, int]] | None = None

    def add(self, rows: Iterable[RejectedRow]) -> list[RejectedRow]:
        """Append the rows that are not in the file yet, durably, and return them. Raises OSError."""
        if self._known is None:
            self._known = self._load()
        new = {row.identity: row for row in rows if row.identity not in self._known}
        if new:
            self._append(new.values())
            self._known.update(new)
        return list(new.values())

    def count(self) -> int:
        """Return how many rows the file holds. Raises OSError."""
        if self._known is None:
            self._known = self._load()
        return len(self._known)

    def count_between(self, stream: str, symbol: str | None, first_seq: int, last_seq: int) -> int:
        """Return how many rows of a stream are in the file, of those with these numbers. Raises OSError."""
        if self._known is None:
            self._known = self._load()
        numbers = {
            int(seq) for of_stream, of_symbol, seq, _ in self._known
            if of_stream == stream and of_symbol == (symbol or "") and seq.isdecimal()
        }  # fmt: skip
        return sum(first_seq <= number <= last_seq for number in numbers)

    def _append(self, rows: Iterable[RejectedRow]) -> None:
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\n")
        writer.writerows((row.stream, row.symbol, row.seq, _one_line(row.reason), _one_line(row.row)) for row in rows)
        fd = self._files.open_append(self._path)
        try:
            size = self._files.size(fd)
            content = (text.getvalue() if size else _HEADER + text.getvalue()).encode("utf-8", "backslashreplace")
            try:
                self._write(fd, content)
            except OSError:
                self._files.truncate(fd, size)
                raise
            self._files.sync([fd])
        finally:
            self._files.close(fd)

    def _write(self, fd: int, content: bytes) -> None:
        view = memoryview(content)
        while view:
            view = view[self._files.write(fd, view) :]

    def _load(self) -> set[tuple[str, str, str, int]]:
        """Read the file, and cut a last line that was never finished."""
        try:
            self._files.look(self._path)
        except FileNotFoundError:
            return set()
        fd = self._files.open_append(self._path)
        try:
            size = self._files.size(fd)
            end = 0
            known = set()
            for line in self._lines(fd):
                if not line.endswith(b"\n"):
                    break
                end += len(line)
                fields = _fields_of(line)
                if len(fields) == len(_HEADER.split(",")) and end > len(_HEADER):
                    known.add(RejectedRow(*fields).identity)
            if end < size:
                self._files.truncate(fd, end)
            return known
        finally:
            self._files.close(fd)

    def _lines(self, fd: int) -> Iterator[bytes]:
        offset, rest = 0, b""
        while content := self._files.read(fd, _CHUNK, offset):
            offset += len(content)
            lines = (rest + content).split(b"\n")
            rest = lines.pop()
            yield from (line + b"\n" for line in lines)
        if rest:
            yield rest


def _fields_of(line: bytes) -> list[str]:
    try:
        return next(csv.reader((line.decode("utf-8", "replace").rstrip("\n"),)), [])
    except csv.Error:
        return []  # somebody else wrote it: it is none of our rows


def _one_line(text: str) -> str:
    return text.replace("\r", "\\r").replace("\n", "\\n").replace("\0", "\\0")
