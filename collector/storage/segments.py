"""Read one stream's rows in file order, over all of its segments, from any position, in bounded pieces.

The live segment is ``prices.csv``; closed ones are ``prices.<first seq, 12 digits>.csv``, or ``….csv.gz`` compressed.
Only what a commit called durable is read of the live segment; a closed one is durable as a whole. A segment is known by
the ``seq`` of its first row, not by its inode: it keeps that when it is renamed, compressed or copied.
"""

from __future__ import annotations

import csv
import gzip
import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

from collector.storage.cursor import START, Position
from collector.streams import Stream

MAX_LINE_BYTES = 1024 * 1024
_SCAN_BYTES = 1024 * 1024
_MAX_HEADER_BYTES = 64 * 1024
_TAIL_BYTES = 64 * 1024
_KEPT_OF_LONG_LINE = 1024


class LogDamaged(Exception):
    """The files are not what the position says; the message says how. Never leaves the storage package."""


class _Moved(Exception):
    """Another file stands where the segment stood: it was rotated, compressed or replaced."""


@dataclass(frozen=True, slots=True)
class Durable:
    """How far a stream may be read: the live segment (by its first ``seq``) up to ``offset``, and all before it."""

    first_seq: int | None
    offset: int
    last_seq: int


@dataclass(frozen=True, slots=True)
class Piece:
    """Whole lines of one segment. ``refusal`` says why the one line in it is no row; ``length`` is what it takes."""

    content: bytes
    segment: int
    offset: int
    length: int
    columns: tuple[str, ...]
    refusal: str = ""


@dataclass(slots=True)
class _Segment:
    path: Path
    first_seq: int | None  # None: it has no rows yet
    live: bool
    inode: int
    header: int
    columns: tuple[str, ...]


class StreamReader:
    """One stream's segments.

    Args:
        path: the live segment's.
    """

    def __init__(self, stream: Stream, path: Path) -> None:
        self.stream = stream
        self.path = path
        self.durable = Durable(None, 0, 0)
        self._current: _Segment | None = None
        self._gzip: tuple[Path, gzip.GzipFile] | None = None

    def extend(self, durable: Durable) -> None:
        """Take note that more is durable, perhaps in another live segment than before."""
        if durable.first_seq != self.durable.first_seq:
            self._current = None
        self.durable = durable

    def measure(self) -> None:
        """Take the files as they stand for durable, up to the last whole line. Raises OSError and LogDamaged."""
        self._current = None
        live = self._live_segment()
        if live is not None and live.first_seq is not None:
            self.durable = Durable(live.first_seq, *self._last_row(live))
            return
        closed = closed_segments(self.path)
        self.durable = Durable(None, 0, closed[-1][0] if closed else 0)

    def read(self, position: Position, max_bytes: int) -> Piece | None:
        """Return the next lines after a position, about ``max_bytes``; None at the durable end.

        Raises:
            LogDamaged: the position does not fit the files.
            OSError: a file cannot be read.
        """
        try:
            return self._read(position, max_bytes)
        except (_Moved, FileNotFoundError):
            self._current = None  # rotated or compressed just now: look again
        try:
            return self._read(position, max_bytes)
        except _Moved as error:
            raise LogDamaged(str(error)) from error

    def _read(self, position: Position, max_bytes: int) -> Piece | None:
        segment = self._current
        if segment is None or segment.first_seq != position.segment:
            segment, position = self._resolve(position)
        while segment is not None and segment.first_seq is not None:
            offset = position.offset if position.segment == segment.first_seq else segment.header
            piece = self._read_lines(segment, offset, max_bytes)
            if piece is not None or (segment.live and segment.first_seq == self.durable.first_seq):
                self._current = segment
                return piece
            segment = None if segment.live else self._following(segment.first_seq)
        self._refuse_lost_segment(position)
        return None

    def _refuse_lost_segment(self, position: Position) -> None:
        """Raise where the segment that a commit named as durable is not there, or has no rows."""
        first_seq, last_seq = self.durable.first_seq, self.durable.last_seq
        if first_seq is None or last_seq < first_seq or last_seq <= position.seq:
            return
        if self._segment_of(first_seq, closed_segments(self.path)) is None:
            raise LogDamaged(f"{self.path.name} with the rows {first_seq} to {last_seq} is gone")

    def locate(self, seq: int) -> Position:
        """Return the position before the first row of at least this ``seq``. Raises OSError and LogDamaged."""
        chosen: _Segment | None = None
        for first_seq, path in closed_segments(self.path):
            if chosen is None or first_seq <= seq:
                chosen = self._open_segment(path, live=False)
        live = self._live_segment()
        if live is not None and live.first_seq is not None and (chosen is None or live.first_seq <= seq):
            chosen = live
        return START if chosen is None else self._scan(chosen, seq)

    def backlog_bytes(self, position: Position) -> int:
        """Return about how many durable bytes come after a position (compressed ones as they are)."""
        if position.segment is not None and position.segment == self.durable.first_seq:
            return max(0, self.durable.offset - position.offset)
        total = self.durable.offset
        for first_seq, path in closed_segments(self.path):
            if position.segment is None or first_seq > position.segment:
                total += path.stat().st_size
            elif first_seq == position.segment:
                total += max(0, path.stat().st_size - position.offset)
        return total

    def close(self) -> None:
        """Close the compressed segment that is open, if one is."""
        if self._gzip is not None:
            self._gzip[1].close()
            self._gzip = None

    # Which segment

    def _resolve(self, position: Position) -> tuple[_Segment | None, Position]:
        """Find the segment of a position, and check that the row before the position is the one it names."""
        self._current = None
        closed = closed_segments(self.path)
        if position.segment is None:
            return (self._open_segment(closed[0][1], live=False) if closed else self._live_segment()), position
        segment = self._segment_of(position.segment, closed)
        if segment is not None:
            self._check_row_before(segment, position)
            return segment, position
        moved = self.locate(position.seq + 1)  # its segment was deleted, or joined with another
        if moved.segment is None:
            if self.durable.last_seq <= position.seq:
                return None, position  # all of it was deleted once it was delivered
            raise LogDamaged(f"{self.path.name} has no rows left")
        return self._segment_of(moved.segment, closed), moved

    def _segment_of(self, first_seq: int, closed: list[tuple[int, Path]]) -> _Segment | None:
        path = dict(closed).get(first_seq)
        if path is not None:
            return self._open_segment(path, live=False)
        live = self._live_segment()
        return live if live is not None and live.first_seq == first_seq else None

    def _live_segment(self) -> _Segment | None:
        return self._open_segment(self.path, live=True) if self.path.exists() else None

    def _following(self, first_seq: int) -> _Segment | None:
        self.close()
        for found, path in closed_segments(self.path):
            if found > first_seq:
                return self._open_segment(path, live=False)
        live = self._live_segment()
        return live if live is not None and (live.first_seq or first_seq + 1) > first_seq else None

    def _open_segment(self, path: Path, *, live: bool) -> _Segment:
        beginning = self._bytes_at(path, 0, _MAX_HEADER_BYTES)
        header = beginning.find(b"\n") + 1
        inode = path.stat().st_ino
        if not header:
            return _Segment(path, None, live, inode, 0, ())
        columns = tuple(beginning[: header - 1].decode("utf-8", "replace").split(","))
        if self.stream.timestamp.name not in columns or "seq" not in columns:
            raise LogDamaged(f"{path.name} does not begin with a header of {self.stream.name}")
        segment = _Segment(path, None, live, inode, header, columns)
        rows = beginning[header:].split(b"\n")[:-1]
        if rows or len(beginning) == _MAX_HEADER_BYTES:
            readable = (seq for row in rows if (seq := self._seq_of(row, columns)) is not None)
            segment.first_seq = next(readable, 0) if live else _first_seq_of(path)
        return segment

    # Bytes and lines

    def _read_lines(self, segment: _Segment, offset: int, max_bytes: int) -> Piece | None:
        limit = None
        if segment.live:
            limit = self.durable.offset if self.durable.first_seq == segment.first_seq else 0
            if limit and offset > limit:
                raise LogDamaged(f"{segment.path.name} ends at byte {limit}, before the {offset} that were delivered")
            if offset >= limit:
                return None
        size = max_bytes
        while True:
            wanted = size if limit is None else min(size, limit - offset)
            content = self._bytes_at(segment.path, offset, wanted, segment.inode)
            if not content and limit is not None:
                raise LogDamaged(f"{segment.path.name} lacks what was durable in it from byte {offset} on")
            end = content.rfind(b"\n") + 1
            if end or len(content) < size or size >= MAX_LINE_BYTES:
                break
            size = min(size * 4, MAX_LINE_BYTES)
        if segment.first_seq is None:
            return None
        if end:
            return Piece(content[:end], segment.first_seq, offset, end, segment.columns)
        if len(content) < size:
            return None  # the rest of a line that was never finished
        length = self._line_length(segment.path, offset)
        cut = content[:_KEPT_OF_LONG_LINE] + b"\n"
        reason = f"a line of {length} bytes (more than {MAX_LINE_BYTES})"
        return Piece(cut, segment.first_seq, offset, length, segment.columns, reason)

    def _line_length(self, path: Path, offset: int) -> int:
        length = 0
        while content := self._bytes_at(path, offset + length, _SCAN_BYTES):
            end = content.find(b"\n") + 1
            if end:
                return length + end
            length += len(content)
        return length

    def _bytes_at(self, path: Path, offset: int, size: int, inode: int | None = None) -> bytes:
        if path.suffix == ".gz":
            return self._decompressed(path, offset, size)
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        try:
            if inode is not None and os.fstat(fd).st_ino != inode:
                raise _Moved(f"{path.name} was replaced")
            return os.pread(fd, size, offset)
        finally:
            os.close(fd)

    def _decompressed(self, path: Path, offset: int, size: int) -> bytes:
        if self._gzip is None or self._gzip[0] != path:
            self.close()
            self._gzip = (path, gzip.GzipFile(path, "rb"))
        try:
            self._gzip[1].seek(offset)  # backwards it begins again, forwards it goes on
            return self._gzip[1].read(size)
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            self.close()
            raise LogDamaged(f"{path.name} cannot be decompressed: {error}") from error

    def _seq_of(self, line: bytes, columns: tuple[str, ...]) -> int | None:
        text = line.decode("utf-8", "replace")
        try:
            fields = next(csv.reader((text,)), [""]) if '"' in text else text.split(",")
            return int(fields[columns.index("seq")])
        except (IndexError, ValueError, csv.Error):
            return None

    def _check_row_before(self, segment: _Segment, position: Position) -> None:
        if position.offset == segment.header:
            return
        start = max(0, position.offset - _TAIL_BYTES)
        tail = self._bytes_at(segment.path, start, position.offset - start)
        if len(tail) < position.offset - start:
            raise LogDamaged(f"{segment.path.name} is shorter than the cursor's {position.offset} bytes")
        line = tail[tail.rfind(b"\n", 0, len(tail) - 1) + 1 :]
        if not line.endswith(b"\n") or self._seq_of(line[:-1], segment.columns) != position.seq:
            raise LogDamaged(f"{segment.path.name} does not have row {position.seq} where the cursor says")

    def _last_row(self, segment: _Segment) -> tuple[int, int]:
        """Return the offset behind the last whole line of a plain segment, and the last ``seq`` that can be read."""
        start = size = segment.path.stat().st_size
        tail = b""
        while start > segment.header and len(tail) <= MAX_LINE_BYTES:
            end, start = start, max(segment.header, start - _TAIL_BYTES)
            tail = self._bytes_at(segment.path, start, end - start) + tail
            lines = tail[: tail.rfind(b"\n") + 1].split(b"\n")[:-1]
            for line in reversed(lines[1:] if start > segment.header else lines):
                seq = self._seq_of(line, segment.columns)
                if seq is not None:
                    return size - (len(tail) - tail.rfind(b"\n") - 1), seq
        return max(segment.header, size - (len(tail) - tail.rfind(b"\n") - 1)), segment.first_seq or 0

    def _scan(self, segment: _Segment, seq: int) -> Position:
        """Walk through a segment to its first row of at least this ``seq``, or to its end."""
        first = segment.first_seq or 0
        offset, last = segment.header, first - 1
        while content := self._bytes_at(segment.path, offset, _SCAN_BYTES):
            content = content[: content.rfind(b"\n") + 1]
            if not content:
                break
            final = self._seq_of(content[content.rfind(b"\n", 0, len(content) - 1) + 1 : -1], segment.columns)
            if final is not None and final < seq:
                offset, last = offset + len(content), final
                continue
            for line in content.split(b"\n")[:-1]:
                found = self._seq_of(line, segment.columns)
                if found is not None and found >= seq:
                    return Position(first, offset, last)
                offset, last = offset + len(line) + 1, last if found is None else found
        return Position(first, offset, last)


def closed_segments(live: Path) -> list[tuple[int, Path]]:
    """Return a live segment's closed ones beside it, each with its first ``seq``, in order.

    Where one exists both plain and compressed, the plain one counts: the other may be half written.
    """
    pattern = re.compile(rf"{re.escape(live.stem)}\.([0-9]{{12,}})\.csv(\.gz)?")
    try:
        names = sorted(entry.name for entry in live.parent.iterdir())
    except FileNotFoundError:
        return []
    found: dict[int, Path] = {}
    for name in names:  # "….csv" sorts before "….csv.gz"
        match = pattern.fullmatch(name)
        if match:
            found.setdefault(int(match[1]), live.with_name(name))
    return sorted(found.items())


def _first_seq_of(path: Path) -> int:
    return int(path.name.removesuffix(".gz").removesuffix(".csv").rsplit(".", 1)[1])
