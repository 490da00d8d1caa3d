"""Closed segments, compressed: made atomically and proved before the plain file goes, and read back through ``Files``.

A compressed segment is an ordinary gzip file. The comment in its header tells how many rows it holds and which row is
the last, so that a session with a year of segments can be opened without decompressing any of them.
"""

from __future__ import annotations

import errno
import gzip
import io
import re
import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from collector.storage.files import Files

SUFFIX = ".gz"
TEMPORARY_SUFFIX = ".tmp"
_LEVEL = 1  # 129 MB/s and a third of the size; level 6 takes five times as long for a tenth less
_CHUNK = 1 << 20
_MAX_COMMENT = 1 << 16
_HEADER = struct.Struct("<4BL2B")
_TRAILER = struct.Struct("<LL")
_HAS_COMMENT = 0x10
_COMMENT = re.compile(rb"collector rows=([0-9]{1,18}) last=([^\0]*)")


@dataclass(frozen=True, slots=True)
class Summary:
    """What a segment holds: how many rows, and its last row without the newline; empty where there is none."""

    rows: int
    last_row: str


class SegmentChanged(Exception):
    """A closed segment is not what it should be, so it is left as it is; the message says what is wrong."""


def compress_segment(path: Path, files: Files, *, max_rows: int | None = None) -> Path:
    """Put a compressed copy in the place of a closed segment, and return its path.

    A crash leaves the plain file, or both (then the plain one counts, and it is done again), or the copy alone.

    Args:
        max_rows: what the segment may hold at most, where the next one begins behind it.

    Raises:
        OSError: a file cannot be read or written; the plain one is still there.
        SegmentChanged: it ends in the middle of a row, or holds rows that the next segment repeats.
    """
    target = path.with_name(path.name + SUFFIX)
    temporary = target.with_name(target.name + TEMPORARY_SUFFIX)
    source = files.open_append(path)
    try:
        summary = _summarise(_pieces(files, source), path.name)
        if max_rows is not None and summary.rows > max_rows:
            raise SegmentChanged(f"{path.name} holds {summary.rows} rows, of which {max_rows} are its own")
        packed = files.open_append(temporary)
        try:
            files.truncate(packed, 0)
            _pack(files, source, packed, summary)
            files.sync([packed])
            _prove(files, source, packed, path.name)
        finally:
            files.close(packed)
    finally:
        files.close(source)
    files.rename(temporary, target)
    files.remove(path)
    return target


def read_summary(path: Path, files: Files) -> Summary:
    """Return what a compressed segment holds: from its header, or by reading it where somebody else compressed it.

    Raises:
        OSError: it cannot be read, or is no gzip file.
        SegmentChanged: it ends in the middle of a row.
    """
    fd = files.open_append(path)
    try:
        comment = _comment_of(files.read(fd, _MAX_COMMENT, 0))
    finally:
        files.close(fd)
    if comment is not None:
        return comment
    return _summarise(read_compressed(path, files), path.name)


def read_compressed(path: Path, files: Files) -> Iterator[bytes]:
    """Return the content of a compressed segment, piece by piece. Raises OSError, also where it is damaged."""
    fd = files.open_append(path)
    try:
        with gzip.GzipFile(fileobj=io.BufferedReader(_Bytes(files, fd), _CHUNK), mode="rb") as file:
            while piece := file.read(_CHUNK):
                yield piece
    except (EOFError, zlib.error) as error:
        raise OSError(f"{path.name} cannot be decompressed: {error}") from error
    finally:
        files.close(fd)


class _Bytes(io.RawIOBase):
    """A descriptor's bytes from the beginning on, as the standard library wants to read them."""

    def __init__(self, files: Files, fd: int) -> None:
        self._files = files
        self._fd = fd
        self._at = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:  # type: ignore[override]
        content = self._files.read(self._fd, len(buffer), self._at)
        buffer[: len(content)] = content
        self._at += len(content)
        return len(content)


def _pieces(files: Files, fd: int) -> Iterator[bytes]:
    at = 0
    while piece := files.read(fd, _CHUNK, at):
        yield piece
        at += len(piece)


def _summarise(pieces: Iterator[bytes], name: str) -> Summary:
    lines, tail = 0, b""
    for piece in pieces:
        lines += piece.count(b"\n")
        cut = (tail + piece).rfind(b"\n", 0, -1) + 1
        tail = (tail + piece)[cut:]
        if len(tail) > _CHUNK:
            raise SegmentChanged(f"{name} has a line of more than a mebibyte")
    if not tail.endswith(b"\n"):
        raise SegmentChanged(f"{name} ends in the middle of a row")
    return Summary(lines - 1, tail[:-1].decode("utf-8", "replace") if lines > 1 else "")


def _pack(files: Files, source: int, packed: int, summary: Summary) -> None:
    comment = f"collector rows={summary.rows} last={summary.last_row}".encode().replace(b"\0", b"")[: _MAX_COMMENT // 2]
    _write(files, packed, _HEADER.pack(0x1F, 0x8B, zlib.DEFLATED, _HAS_COMMENT, 0, 4, 255) + comment + b"\0")
    compressor = zlib.compressobj(_LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS)
    size = crc = 0
    for piece in _pieces(files, source):
        size, crc = size + len(piece), zlib.crc32(piece, crc)
        _write(files, packed, compressor.compress(piece))
    _write(files, packed, compressor.flush() + _TRAILER.pack(crc, size & 0xFFFFFFFF))


def _prove(files: Files, source: int, packed: int, name: str) -> None:
    """Read the copy back: only what gives the same bytes may replace the original."""
    plain = io.BufferedReader(_Bytes(files, source), _CHUNK)
    try:
        with gzip.GzipFile(fileobj=io.BufferedReader(_Bytes(files, packed), _CHUNK), mode="rb") as copy:
            while piece := copy.read(_CHUNK):
                if plain.read(len(piece)) != piece:
                    raise OSError(f"the compressed copy of {name} differs from it")
    except (EOFError, zlib.error) as error:
        raise OSError(f"the compressed copy of {name} cannot be read: {error}") from error
    if plain.read(1):
        raise OSError(f"the compressed copy of {name} is shorter than it")


def _write(files: Files, fd: int, content: bytes) -> None:
    view = memoryview(content)
    while view:
        count = files.write(fd, view)
        if count <= 0:
            raise OSError(errno.ENOSPC, "nothing of the copy was taken")
        view = view[count:]


def _comment_of(beginning: bytes) -> Summary | None:
    if len(beginning) < _HEADER.size or beginning[:2] != b"\x1f\x8b" or beginning[3] != _HAS_COMMENT:
        return None
    found = _COMMENT.match(beginning, _HEADER.size)
    if found is None or beginning[found.end() : found.end() + 1] != b"\0":
        return None
    return Summary(int(found[1]), found[2].decode("utf-8", "replace"))
