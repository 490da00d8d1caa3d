"""The session log: one CSV file per stream and symbol, appended in whole lines, durable when ``sync`` says so.

Everything here is called in one thread. A row exists once its line is in the file; the replicator may read a file up to
the offset of its last ``Commit``. ``seq`` numbers only grow, and a number that was once in a file is never used again:
where rows are found missing, the log goes on behind the highest number that anyone knows, and says which were lost.

A segment is a file whose ``seq`` count up by one. The live segment is ``prices.csv``; a closed one carries the ``seq``
of its first row (``prices.000000000001.csv``, ``….csv.gz`` compressed). A new segment begins when the log is told to,
when a disk error leaves the live one in doubt, and when someone else changed it.
"""

from __future__ import annotations

import contextlib
import errno
import itertools
import re
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal
from urllib.parse import quote

import msgspec

from collector.errors import LogError, UsageError
from collector.storage.files import NOT_REACHED_DISK, Files
from collector.storage.packing import SUFFIX, SegmentChanged, read_compressed, read_summary
from collector.streams import Stream

_PERMANENT = frozenset(
    {errno.EACCES, errno.EPERM, errno.EROFS, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG}
)
_CHUNK = 1 << 20
_MAX_DAMAGED_TAIL = 64 << 20  # a power loss can spoil what one flush wrote; more than that is something else
_MAX_NAME_BYTES = 200
_FREED_DESCRIPTORS = 16  # how many are given back when the process has none left
_RESERVED = re.compile(r"(CON|PRN|AUX|NUL|COM\d|LPT\d)", re.IGNORECASE)


def symbol_folder(symbol: str) -> str:
    """Return a symbol's folder name: the symbol itself where that is safe, other characters percent-encoded.

    Raises:
        UsageError: the symbol is empty, or too long for a file name.
    """
    name = quote(symbol, safe="").replace(".", "%2E").replace("~", "%7E")
    if _RESERVED.fullmatch(name):
        name = f"%{ord(name[0]):02X}{name[1:]}"
    if not name or len(name) > _MAX_NAME_BYTES:
        raise UsageError(f"A symbol of {len(symbol)} characters cannot name a folder: {symbol[:40]!r}.")
    return name


def closed_segments(names: Sequence[str], stream: Stream) -> list[tuple[int, str]]:
    """Return the closed segments of a stream among a folder's names, each with its first ``seq``, in order.

    Of one that is there both plain and compressed the plain one counts: compressing it had not come to its end.
    """
    stem = stream.file.removesuffix(".csv")
    pattern = re.compile(rf"{re.escape(stem)}\.(\d{{12,}})\.csv(\.gz)?")
    found: dict[int, str] = {}
    for name in sorted(names):  # "….csv" before "….csv.gz"
        match = pattern.fullmatch(name)
        if match:
            found.setdefault(int(match[1]), name)
    return sorted(found.items())


def closed_name(stream: Stream, first_seq: int) -> str:
    """Return the name of the closed segment that begins with a ``seq``."""
    return f"{stream.file.removesuffix('.csv')}.{first_seq:012d}.csv"


class StreamFile:
    """One stream's file of one symbol, as the log knows it.

    Args:
        path: the live segment.
        size: the live segment's last good byte; ``durable`` the last one that is safe from a power loss.
        rows: rows in all segments.
        next_seq: the number of the next row; ``first_seq`` of the live segment's first row (or of the one to come);
            ``durable_seq`` of the last durable row (one below the first where there is none).
        last_row: the last line without its newline; empty where there is none.
        first_row: the live segment's first row, likewise.
        lost: intervals of ``seq`` that were found missing when the file was opened.
    """

    __slots__ = (
        "durable", "durable_seq", "first_row", "first_seq", "inode", "last_row", "lost", "next_seq", "path", "reported",
        "rows", "size", "stream", "suspect", "symbol", "unsynced",
    )  # fmt: skip

    def __init__(self, stream: Stream, symbol: str | None, path: Path) -> None:
        self.stream = stream
        self.symbol = symbol
        self.path = path
        self.size = 0
        self.durable = 0
        self.rows = 0
        self.next_seq = 1
        self.first_seq = 1
        self.durable_seq = 0
        self.first_row = ""
        self.last_row = ""
        self.inode = 0
        self.lost: list[tuple[int, int]] = []
        self.suspect = False
        self.unsynced: list[bytes] = []
        self.reported = (0, 0)

    def __repr__(self) -> str:
        position = f"next_seq={self.next_seq} size={self.size} durable={self.durable}"
        return f"<StreamFile {self.path} rows={self.rows} {position}>"


@dataclass(slots=True)
class Write:
    """Whole lines for one file, numbered from its ``next_seq`` on; ``written`` says that they are in it."""

    file: StreamFile
    content: bytes
    rows: int
    written: bool = False


@dataclass(frozen=True, slots=True)
class Commit:
    """What is durable of one file: the live segment up to ``offset``, and every segment before it.

    ``first_seq`` tells which segment is live; ``rows`` counts the rows of all segments up to ``last_seq``.
    """

    file: StreamFile = field(repr=False)
    offset: int
    rows: int
    last_seq: int
    first_seq: int


@dataclass(frozen=True, slots=True)
class Incident:
    """Something that happened to a file and was dealt with.

    ``kind``: ``torn`` (an unfinished last line was cut), ``damaged`` (the file was deleted, replaced or shortened by
    someone else, or its tail was spoilt) or ``suspect`` (the disk failed to make it durable; its rows were written to a
    new segment). ``lost`` bounds the numbers of the rows that are gone, inclusively; None where there are none.
    """

    kind: Literal["torn", "damaged", "suspect"]
    file: StreamFile
    detail: str
    lost: tuple[int, int] | None = None


@dataclass(slots=True)
class _Scan:
    """What a segment holds: ``good`` is the offset behind its last whole row; 0 where even the header is not ours."""

    size: int
    good: int = 0
    rows: int = 0
    first_seq: int = 0
    last_seq: int = 0
    first_row: str = ""
    last_row: str = ""


class Released(msgspec.Struct, frozen=True):
    """Rows that were deleted from the CSV because QuestDB has them for certain: all up to a ``seq``.

    ``from_us`` and ``to_us`` are the least and the greatest exchange time among them, in microseconds.
    """

    last_seq: int = 0
    rows: int = 0
    from_us: int = 0
    to_us: int = 0


class CsvLog:
    """One session's directory of CSV files.

    Args:
        directory: the session's; symbols get folders in it.
        max_open_files: how many descriptors are kept; there can be more files than that.
    """

    def __init__(self, directory: Path, *, files: Files, max_open_files: int = 256) -> None:
        self.directory = directory
        self.streams: dict[tuple[str, str | None], StreamFile] = {}
        self.closed_early = 0
        self._files = files
        self._max_open_files = max(1, max_open_files)
        self._open: OrderedDict[StreamFile, int] = OrderedDict()
        self._dirty: dict[StreamFile, None] = {}
        self._new_folders: dict[Path, None] = {}
        self._incidents: list[Incident] = []

    # Opening and recovering

    def open(
        self,
        stream: Stream,
        symbol: str | None = None,
        *,
        known_seq: int = 0,
        released: Released | None = None,
    ) -> StreamFile:
        """Open a file, created with its header or recovered: torn lines cut, rows counted, numbers learnt.

        Args:
            known_seq: the highest ``seq`` that anyone else knows of (manifest, cursor, database); numbers up to it that
                are not in the file are ``lost``, and are not used again.
            released: what was deleted on purpose; a segment of it that is still there is deleted now.

        Raises:
            LogError: the file cannot be opened, or is damaged beyond what a crash can do.
        """
        if (stream.name, symbol) in self.streams:
            return self.streams[stream.name, symbol]
        folder = self.directory / symbol_folder(symbol) if symbol else self.directory
        file = StreamFile(stream, symbol, folder / stream.file)
        with _translated(file.path, "opened"):
            if not self._files.names(folder):
                self._files.make_folder(folder)
            self._recover(file, released or Released())
            self._skip_to(file, known_seq)
        self.streams[stream.name, symbol] = file
        return file

    def _recover(self, file: StreamFile, released: Released) -> None:
        segments = closed_segments(self._files.names(file.path.parent), file.stream)
        scan = self._open_live(file)
        file.rows, file.next_seq = released.rows, released.last_seq + 1
        if segments:
            self._learn_closed(file, segments, scan.first_seq, released.last_seq)
        if scan.rows:
            file.first_row = scan.first_row
            if scan.first_seq > file.next_seq:
                file.lost.append((file.next_seq, scan.first_seq - 1))
            file.rows += scan.rows
            file.first_seq, file.next_seq, file.last_row = scan.first_seq, scan.last_seq + 1, scan.last_row
        else:
            file.first_seq = file.next_seq
        # What an earlier process left can't be written again from memory: the first sync makes sure of it.
        file.durable, file.durable_seq = file.size, file.next_seq - 1
        self._mark_dirty(file)

    def _open_live(self, file: StreamFile) -> _Scan:
        """Open the live segment and put it in order: a header, then whole rows."""
        header = file.stream.header.encode()
        fd = self._descriptor(file)
        scan = self._scan(fd, file)
        if scan.size == 0 or (scan.good == 0 and header.startswith(self._files.read(fd, len(header) + 1, 0))):
            self._files.truncate(fd, 0)
            self._write_whole(fd, header)
            self._new_folders[file.path.parent] = None
            scan.good = len(header)
        elif scan.good == 0:
            self._drop_descriptor(file)
            self._set_aside(file, "its header is not ours")
            return self._open_live(file)
        elif scan.good < scan.size:
            self._files.truncate(fd, scan.good)
            detail = f"an unfinished last line of {scan.size - scan.good} bytes was cut"
            self._incidents.append(Incident("torn", file, detail))
        file.size = scan.good
        file.inode = self._files.look(file.path)[0]
        return scan

    def _learn_closed(
        self, file: StreamFile, segments: Sequence[tuple[int, str]], live_first_seq: int, released_seq: int
    ) -> None:
        """Take rows and numbers from the closed segments, and delete those that were released."""
        ends = [*(first for first, _ in segments[1:]), live_first_seq]
        previous_last = released_seq
        for (first, name), end in zip(segments, ends, strict=True):
            path = file.path.with_name(name)
            scan = self._scan_compressed(path, file) if name.endswith(SUFFIX) else self._scan_closed(path, file, end)
            if scan.last_seq <= released_seq and first <= released_seq:
                self._files.remove(path)
                continue
            if first > previous_last + 1:
                file.lost.append((previous_last + 1, first - 1))
            previous_last = max(previous_last, scan.last_seq, first - 1)
            file.rows += max(0, scan.last_seq - first + 1)
            file.next_seq = previous_last + 1
            file.last_row = scan.last_row or file.last_row

    def _scan_closed(self, path: Path, file: StreamFile, end: int) -> _Scan:
        """Look through a closed segment's end; where the next one (which begins with ``end``) repeats it, cut it."""
        fd = self._files.open_append(path)
        try:
            scan = self._scan(fd, file, tail_only=True)
            if end and scan.last_seq >= end:
                self._files.truncate(fd, self._offset_behind(fd, scan, end - 1))
                scan.last_seq = end - 1
            elif 0 < scan.good < scan.size:
                self._files.truncate(fd, scan.good)
            return scan
        finally:
            self._files.close(fd)

    def _scan_compressed(self, path: Path, file: StreamFile) -> _Scan:
        """Learn what a compressed segment holds; one that cannot be read is named, and its rows are missing."""
        scan = _Scan(size=0)
        try:
            scan.last_row = read_summary(path, self._files).last_row
        except (OSError, SegmentChanged) as error:
            self._incidents.append(Incident("damaged", file, f"{path.name} cannot be read: {error}"))
        if scan.last_row:
            scan.last_seq = _seq_of(scan.last_row, file.stream)
        return scan

    def _skip_to(self, file: StreamFile, known_seq: int) -> None:
        """Leave out numbers that someone else knows of; what follows is a new segment."""
        if known_seq < file.next_seq:
            return
        file.lost.append((file.next_seq, known_seq))
        if file.first_seq < file.next_seq:
            self._close_segment(file, keep=file.size)
        file.next_seq = file.first_seq = known_seq + 1
        file.durable_seq = known_seq

    def _scan(self, fd: int, file: StreamFile, *, tail_only: bool = False) -> _Scan:
        """Look through a segment; ``tail_only`` counts its rows from its first and last number instead."""
        header = file.stream.header.encode()
        scan = _Scan(size=self._files.size(fd))
        if self._files.read(fd, len(header), 0) != header:
            return scan
        scan.good = len(header)
        self._find_last_row(fd, file, scan)
        if not scan.last_row:
            return scan
        scan.last_seq = _seq_of(scan.last_row, file.stream)
        first_row = self._files.read(fd, _CHUNK, len(header)).partition(b"\n")[0].decode("utf-8", "replace")
        scan.first_seq = _seq_of(first_row, file.stream)
        scan.first_row = first_row
        scan.rows = scan.last_seq - scan.first_seq + 1
        if not tail_only:
            counted = self._count_lines(fd, len(header), scan.good)
            if counted != scan.rows:
                self._find_jumps(fd, file, scan, counted)
        return scan

    def _find_jumps(self, fd: int, file: StreamFile, scan: _Scan, counted: int) -> None:
        """Name the numbers that are missing in the middle of a segment, where someone took lines out."""
        previous = scan.first_seq - 1
        lost = []
        for row in self._read_rows(fd, len(file.stream.header.encode()), scan.good):
            text = row[file.stream.seq_index] if len(row) == len(file.stream.columns) else ""
            seq = int(text) if _is_number(text.encode()) else 0
            if seq > previous + 1:
                lost.append((previous + 1, seq - 1))
            previous = max(previous, seq)
        file.lost.extend(lost)
        scan.rows = counted
        detail = f"{file.path.name} holds {counted} rows numbered {scan.first_seq} to {scan.last_seq}"
        self._incidents.append(Incident("damaged", file, detail))

    def _find_last_row(self, fd: int, file: StreamFile, scan: _Scan) -> None:
        """Set ``good`` and ``last_row``: the last whole line that is a row, going back over what a crash spoilt."""
        body = scan.good
        end = scan.size
        while end > body:
            if scan.size - end > _MAX_DAMAGED_TAIL:
                raise LogError(
                    f"The last {_MAX_DAMAGED_TAIL >> 20} MiB of {file.path} hold no row.",
                    permanent=True,
                    hint="Put the file back from a copy, or move it away and start a new session.",
                )
            start = max(body, end - _CHUNK)
            tail = self._files.read(fd, end - start, start)
            unread = len(tail)
            while (newline := tail.rfind(b"\n", 0, unread)) >= 0:
                line_start = tail.rfind(b"\n", 0, newline) + 1
                if line_start == 0 and start > body:
                    break  # the line begins in the chunk before this one
                if _is_row(tail[line_start:newline], file.stream):
                    scan.good = start + newline + 1
                    scan.last_row = tail[line_start:newline].decode("utf-8", "replace")
                    return
                unread = line_start
            # A chunk of a mebibyte without the start of a line is nothing of ours, as is one without an end of line.
            end = start + newline + 1 if 0 <= newline < len(tail) - 1 or unread < len(tail) else start

    def _count_lines(self, fd: int, start: int, end: int) -> int:
        return sum(self._files.read(fd, min(_CHUNK, end - at), at).count(b"\n") for at in range(start, end, _CHUNK))

    def _offset_behind(self, fd: int, scan: _Scan, seq: int) -> int:
        """Return the offset behind the row of a number, or behind the header where all rows are later."""
        skip = max(0, seq - scan.first_seq + 1) + 1  # the header is a line too
        at = 0
        while skip and at < scan.good:
            chunk = self._files.read(fd, _CHUNK, at)
            lines = chunk.count(b"\n")
            if lines <= skip:
                skip -= lines
                at += len(chunk) if skip else chunk.rfind(b"\n") + 1
                continue
            position = -1
            for _ in range(skip):
                position = chunk.find(b"\n", position + 1)
            return at + position + 1
        return min(at, scan.good)

    # Appending

    def append(self, writes: Sequence[Write]) -> None:
        """Append to each file once, whole lines or nothing; writes that went in are marked ``written``.

        Raises:
            LogError: at least one file could not be written; it was cut back to its last good row.
        """
        failure: LogError | None = None
        for write in writes:
            try:
                with _translated(write.file.path, "written"):
                    self._append(write)
            except LogError as error:
                if failure is None or (error.permanent and not failure.permanent):
                    failure = error
        if failure is not None:
            raise failure

    def _append(self, write: Write) -> None:
        file = write.file
        if file.suspect:
            self._leave_suspect(file)
        fd = self._checked(file)
        try:
            self._write_whole(fd, write.content)
        except OSError:
            # Where even this fails, the next append sees the size and cuts first.
            with contextlib.suppress(OSError):
                self._files.truncate(fd, file.size)
            raise
        content = write.content
        if file.first_seq == file.next_seq:
            file.first_row = content[: content.find(b"\n")].decode()
        file.size += len(content)
        file.next_seq += write.rows
        file.rows += write.rows
        file.last_row = content[content.rfind(b"\n", 0, -1) + 1 : -1].decode()
        file.unsynced.append(content)
        self._mark_dirty(file)
        write.written = True

    def _write_whole(self, fd: int, content: bytes) -> None:
        view = memoryview(content)
        while view:
            count = self._files.write(fd, view)
            if count <= 0:
                raise OSError(errno.ENOSPC, "nothing of the rows was taken")
            view = view[count:]

    def _checked(self, file: StreamFile) -> int:
        """Return the live segment's descriptor, after looking whether it is still the file that we left."""
        try:
            inode, size = self._files.look(file.path)
        except FileNotFoundError:
            self._begin_after_damage(file, "was deleted", kept_seq=file.first_seq - 1, keep=0)
            return self._descriptor(file)
        if inode != file.inode:
            self._judge_replaced(file)
        elif size < file.size:
            self._judge_changed(file, "was shortened")
        elif size > file.size:
            self._files.truncate(self._descriptor(file), file.size)
        return self._descriptor(file)

    def _judge_replaced(self, file: StreamFile) -> None:
        self._drop_descriptor(file)
        self._judge_changed(file, "was replaced")

    def _judge_changed(self, file: StreamFile, what: str) -> None:
        """Keep what the changed file still holds of our rows as a closed segment, and begin a new one."""
        fd = self._descriptor(file)
        try:
            scan = self._scan(fd, file)
        except LogError:
            scan = _Scan(size=0)
        if scan.rows and scan.first_seq == file.first_seq and scan.last_seq < file.next_seq:
            kept_seq = min(scan.last_seq, file.durable_seq)
            keep = scan.good if kept_seq == scan.last_seq else self._offset_behind(fd, scan, kept_seq)
            self._begin_after_damage(file, what, kept_seq=kept_seq, keep=keep)
        else:
            self._drop_descriptor(file)
            if scan.good == 0 or scan.rows:
                self._set_aside(file, what, report=False)
            self._begin_after_damage(file, what, kept_seq=file.first_seq - 1, keep=0)

    def _begin_after_damage(self, file: StreamFile, what: str, *, kept_seq: int, keep: int) -> None:
        durable_seq = file.durable_seq
        self._close_segment(file, keep=keep if kept_seq >= file.first_seq else 0, kept_seq=kept_seq)
        lost = (kept_seq + 1, durable_seq) if durable_seq > kept_seq else None
        if lost:
            file.rows -= lost[1] - lost[0] + 1
        self._incidents.append(Incident("damaged", file, f"{file.path.name} {what} by someone else", lost))

    def _set_aside(self, file: StreamFile, what: str, *, report: bool = True) -> None:
        names = set(self._files.names(file.path.parent))
        number = next(n for n in range(1, len(names) + 2) if f"{file.path.name}.damaged-{n}" not in names)
        aside = file.path.with_name(f"{file.path.name}.damaged-{number}")
        self._files.rename(file.path, aside)
        if report:
            self._incidents.append(Incident("damaged", file, f"{file.path.name} was set aside as {aside.name}: {what}"))

    # Segments

    def rotate(self, file: StreamFile) -> Path | None:
        """Close the live segment and begin a new one; return the closed one's path, None where there was no row in it.

        Raises:
            LogError: what was appended could not be made durable, or the file could not be renamed.
        """
        with _translated(file.path, "rotated"):
            if file.suspect:
                self._leave_suspect(file)
            fd = self._checked(file)
            if file.first_seq == file.next_seq:
                return None
            closed = file.path.with_name(closed_name(file.stream, file.first_seq))
            if file in self._dirty:
                try:
                    self._files.sync([fd])
                except OSError:
                    file.suspect = True
                    raise
                self._settle(file)
            self._close_segment(file, keep=file.size)
        return closed

    def _close_segment(self, file: StreamFile, *, keep: int, kept_seq: int | None = None) -> None:
        """Close the live segment behind its first ``keep`` bytes; begin a new one with the rows not durable yet.

        Every step can be repeated after a failure: the new segment is complete on disk before the old one is moved, and
        what the old one then still holds beyond ``keep`` is cut at the next start, because the new one repeats it.
        """
        self._drop_descriptor(file)
        header = file.stream.header.encode()
        content = header + b"".join(file.unsynced)
        following = file.path.with_name(file.path.name + ".next")
        self._files.make_folder(file.path.parent)
        self._files.replace(following, content)
        if keep > len(header) and self._exists(file.path):
            with contextlib.suppress(OSError):
                self._cut(file.path, keep)
            self._files.rename(file.path, file.path.with_name(closed_name(file.stream, file.first_seq)))
            file.first_seq = (file.durable_seq if kept_seq is None else kept_seq) + 1
        self._files.rename(following, file.path)
        file.first_seq = file.durable_seq + 1
        file.first_row = content[len(header) :].partition(b"\n")[0].decode()
        file.size = len(content)
        file.inode = self._files.look(file.path)[0]
        self._settle(file)

    def _leave_suspect(self, file: StreamFile) -> None:
        """Go on in a new segment: after a failed sync the system may drop pages and call the next sync a success."""
        self._close_segment(file, keep=file.durable)
        file.suspect = False
        self._incidents.append(Incident("suspect", file, "the disk failed to keep it; its last rows were written anew"))

    def _cut(self, path: Path, size: int) -> None:
        fd = self._files.open_append(path)
        try:
            if self._files.size(fd) > size:
                self._files.truncate(fd, size)
        finally:
            self._files.close(fd)

    def _exists(self, path: Path) -> bool:
        try:
            self._files.look(path)
        except FileNotFoundError:
            return False
        return True

    def free_bytes(self) -> int:
        """Return how much room the log's disk has; raise LogError where the system does not say."""
        with _translated(self.directory, "looked at"):
            return self._files.free_bytes(self.directory)

    # Durability

    def sync(self) -> list[Commit]:
        """Make what was appended durable and return a commit for each file that grew.

        A file that the disk fails to keep is given up for a new segment, with the rows that were not durable yet.

        Raises:
            LogError: rows are in no durable file yet; calling again tries again. Commits are not lost by this.
        """
        if self._dirty:
            self._sync_dirty()
        failure: LogError | None = None
        for file in [file for file in self._dirty if file.suspect]:
            try:
                with _translated(file.path, "made durable"):
                    self._leave_suspect(file)
            except LogError as error:
                failure = failure or error
        if failure is not None:
            raise failure
        return self._take_commits()

    def _sync_dirty(self) -> None:
        dirty = [file for file in self._dirty if not file.suspect]
        fds = [self._open[file] for file in dirty if file in self._open]
        closed = [file.path for file in dirty if file not in self._open]
        try:
            self._files.sync_many(fds, [*closed, *self._new_folders])
        except OSError as error:
            if error.errno in NOT_REACHED_DISK:
                with _translated(self.directory, "made durable"):
                    if error.errno == errno.ENOENT:
                        for file in dirty:
                            self._checked(file)
                    raise
            # Which of them failed cannot be asked again: a repeated sync reports success for pages that were dropped.
            for file in dirty:
                file.suspect = True
            return
        self._new_folders.clear()
        for file in dirty:
            self._settle(file)

    def _settle(self, file: StreamFile) -> None:
        file.durable = file.size
        file.durable_seq = file.next_seq - 1
        file.unsynced.clear()
        self._dirty.pop(file, None)

    def _take_commits(self) -> list[Commit]:
        commits = []
        for file in self.streams.values():
            position = (file.durable_seq, file.first_seq)
            if position == file.reported or file in self._dirty:
                continue
            if file.durable_seq > file.reported[0]:
                commits.append(Commit(file, file.durable, file.rows, file.durable_seq, file.first_seq))
            file.reported = position
        return commits

    def take_incidents(self) -> list[Incident]:
        """Return what happened to files since the last call."""
        incidents, self._incidents = self._incidents, []
        return incidents

    # Reading

    def rows(self, file: StreamFile) -> Iterator[list[str]]:
        """Read a file's rows as lists of fields, all segments in order, up to what was appended.

        Raises:
            LogError: a segment cannot be read.
        """
        for name in self._segments(file):
            path = file.path.with_name(name)
            with _translated(path, "read"):
                if name.endswith(SUFFIX):
                    yield from itertools.islice(_rows_in(read_compressed(path, self._files)), 1, None)
                    continue
                fd = self._files.open_append(path)
                try:
                    end = file.size if path == file.path else self._files.size(fd)
                    yield from self._read_rows(fd, len(file.stream.header.encode()), end)
                finally:
                    self._files.close(fd)

    def tail_rows(self, file: StreamFile, wanted: Callable[[list[str]], bool]) -> list[list[str]]:
        """Read a file's last rows, back to a stretch whose first row is not ``wanted`` any more; in file order.

        Raises:
            LogError: a segment cannot be read.
        """
        rows: list[list[str]] = []
        for name in reversed(self._segments(file)):
            path = file.path.with_name(name)
            with _translated(path, "read"):
                if name.endswith(SUFFIX):
                    rows = _tail_in(read_compressed(path, self._files), wanted) + rows
                    if rows and not wanted(rows[0]):
                        break
                    continue
                fd = self._files.open_append(path)
                try:
                    end = file.size if path == file.path else self._files.size(fd)
                    rows = self._tail_of(fd, len(file.stream.header.encode()), end, wanted) + rows
                finally:
                    self._files.close(fd)
            if rows and not wanted(rows[0]):
                break
        return rows

    def _segments(self, file: StreamFile) -> list[str]:
        """Return the names of a file's segments, the live one last."""
        with _translated(file.path, "read"):
            closed = closed_segments(self._files.names(file.path.parent), file.stream)
        return [*(name for _, name in closed), file.path.name]

    def _tail_of(self, fd: int, start: int, end: int, wanted: Callable[[list[str]], bool]) -> list[list[str]]:
        rows: list[list[str]] = []
        rest = b""
        while end > start:
            begin = max(start, end - _CHUNK)
            content = self._files.read(fd, end - begin, begin) + rest
            cut = 0 if begin == start else content.find(b"\n") + 1
            rest = content[:cut]
            lines = content[cut:].decode("utf-8", "replace").split("\n")
            rows = [line.split(",") for line in lines if line] + rows
            end = begin
            if rows and not wanted(rows[0]):
                break
        return rows

    def _read_rows(self, fd: int, start: int, end: int) -> Iterator[list[str]]:
        return _rows_in(self._files.read(fd, min(_CHUNK, end - at), at) for at in range(start, end, _CHUNK))

    # Descriptors

    @property
    def open_files(self) -> int:
        """Return how many descriptors are kept now; ``closed_early`` counts those that had to make room."""
        return len(self._open)

    def _descriptor(self, file: StreamFile) -> int:
        fd = self._open.get(file)
        if fd is not None:
            self._open.move_to_end(file)
            return fd
        while len(self._open) >= self._max_open_files:
            self._drop_descriptor(next(iter(self._open)))
            self.closed_early += 1
        try:
            fd = self._files.open_append(file.path)
        except OSError as error:
            if error.errno not in (errno.EMFILE, errno.ENFILE) or not self._open:
                raise
            for _ in range(min(_FREED_DESCRIPTORS, len(self._open))):
                self._drop_descriptor(next(iter(self._open)))
                self.closed_early += 1
            fd = self._files.open_append(file.path)
        self._open[file] = fd
        return fd

    def _drop_descriptor(self, file: StreamFile) -> None:
        fd = self._open.pop(file, None)
        if fd is not None:
            with contextlib.suppress(OSError):
                self._files.close(fd)

    def _mark_dirty(self, file: StreamFile) -> None:
        self._dirty[file] = None

    def close_file(self, file: StreamFile) -> None:
        """Close a file's descriptor; writing to it opens it again."""
        self._drop_descriptor(file)

    def close(self) -> None:
        """Close every descriptor; what was not synced stays as it is."""
        for file in list(self._open):
            self._drop_descriptor(file)


def _rows_in(pieces: Iterable[bytes]) -> Iterator[list[str]]:
    """Split content that comes in pieces into rows; a header is one of them, an unfinished last line is none."""
    rest = b""
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        for line in lines:
            yield line.decode("utf-8", "replace").split(",")


def _tail_in(pieces: Iterable[bytes], wanted: Callable[[list[str]], bool]) -> list[list[str]]:
    """Return a compressed segment's rows from the last stretch on that is not wanted; it can only be read forward."""
    rows: list[list[str]] = []
    rest = b""
    header = True
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        found = [line.decode("utf-8", "replace").split(",") for line in lines[header:]]
        header = header and not lines
        if found and not wanted(found[0]):
            rows.clear()
        rows += found
    return rows


def _is_row(line: bytes, stream: Stream) -> bool:
    fields = line.split(b",")
    return (
        len(fields) == len(stream.columns)
        and _is_number(fields[0])
        and _is_number(fields[stream.seq_index])
        and b"\0" not in line
    )


def _is_number(text: bytes) -> bool:
    return text.isdigit() and len(text) <= 20


def _seq_of(row: str, stream: Stream) -> int:
    fields = row.split(",")
    if len(fields) <= stream.seq_index or not _is_number(fields[stream.seq_index].encode()):
        raise LogError(f"A first row of {stream.file} is not a row: {row[:80]!r}.", permanent=True)
    return int(fields[stream.seq_index])


@contextlib.contextmanager
def _translated(path: Path, done: str) -> Iterator[None]:
    """Turn the system's error into a LogError that names the file and says whether waiting can help."""
    try:
        yield
    except OSError as error:
        raise _log_error(path, done, error) from error


def _log_error(path: Path, done: str, error: OSError) -> LogError:
    permanent = error.errno in _PERMANENT
    hint = ""
    if error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
        hint = "Make room; collecting goes on by itself."
    elif permanent:
        hint = "Give the collector the right to write there."
    return LogError(f"{path} could not be {done}: {error.strerror or error}.", permanent=permanent, hint=hint)
