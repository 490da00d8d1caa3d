"""Recordings: the raw messages of a collection run, one line each, as they came and went.

A line is ``<received_ns> <connection> <kind> <payload>``:

=========  ======================================================================================
``+``      connected to this URL
``-``      disconnected, with the reason
``>``      a text frame that the client sent
``<``      a text frame received
``b``      a binary frame received, in base64; also a text frame with a line break, which no line can hold as it is
``GET``    (or another method; connection ``http``) ``<status> <url> <body on one line>``
=========  ======================================================================================

hftbacktest's ``<received_ns> <frame>`` lines are read too. Files may be plain or gzip. A last line that was torn by a
crash is left out by the reader and cut by the writer.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import os
import threading
import zlib
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import msgspec

from collector.errors import RecordingError

MAX_LINE_BYTES = 64 * 1024 * 1024
"""The longest line that is read: an exchangeInfo of today has 12 MB."""

_GZIP_MAGIC = b"\x1f\x8b"
_MARKS = frozenset({"+", "-", ">", "<", "b"})
_METHODS = frozenset({"GET", "POST"})
_HFTBACKTEST_CONNECTION = "1"
_MAX_NS = 2**63 - 1
_TAIL_BYTES = 1024 * 1024


class Lines(Protocol):
    """An open file that gives lines of bytes, no longer than asked."""

    def readline(self, size: int, /) -> bytes: ...


class Line(msgspec.Struct, frozen=True, gc=False):
    """One line: its number in the file (from 1), when, on which connection, what kind, and the bytes themselves.

    The payload of ``b`` is decoded already. ``bare`` marks an hftbacktest line, which names neither connection nor
    kind.
    """

    number: int
    received_ns: int
    connection: str
    kind: str
    payload: bytes
    bare: bool = False


class Answer(msgspec.Struct, frozen=True):
    """A recorded answer of REST."""

    status: int
    url: str
    body: bytes


def read_recording(path: Path, *, max_line_bytes: int = MAX_LINE_BYTES) -> Iterator[Line]:
    """Read a recording line by line, in constant memory.

    Raises:
        RecordingError: the file cannot be opened, or a line of it cannot be read (the message has its number).
    """
    try:
        with path.open("rb") as file:
            unpacked: Lines = file
            if file.peek(2)[:2] == _GZIP_MAGIC:
                unpacked = gzip.GzipFile(fileobj=file)
            yield from read_lines(unpacked, path.name, max_line_bytes=max_line_bytes)
    except OSError as error:
        raise RecordingError(f"The recording {path} cannot be read: {error}.") from error


def read_lines(file: Lines, name: str, *, max_line_bytes: int = MAX_LINE_BYTES) -> Iterator[Line]:
    """Read the lines of an open file; ``name`` is for the messages of errors."""
    number = 0
    while True:
        number += 1
        try:
            raw = file.readline(max_line_bytes + 1)
        except EOFError:  # gzip was cut off: whoever wrote it was killed
            return
        except (OSError, zlib.error) as error:
            raise RecordingError(f"Line {number} of the recording {name} cannot be read: {error}.") from error
        if not raw:
            return
        if len(raw) > max_line_bytes:
            raise RecordingError(f"Line {number} of the recording {name} is longer than {max_line_bytes} bytes.")
        whole = raw.endswith(b"\n")
        stripped = raw.rstrip(b"\r\n")
        if not stripped:
            continue
        try:
            line = parse_line(stripped, number)
        except RecordingError as error:
            if not whole:
                return
            raise RecordingError(f"The recording {name} cannot be read: {error.message}") from error
        if whole or _is_complete(line):
            yield line


def parse_line(raw: bytes, number: int = 1) -> Line:
    """Read one line without its line break; raise RecordingError where it is none."""
    stamp, _, rest = raw.partition(b" ")
    received_ns = _nanoseconds(stamp, number)
    if rest[:1] in (b"{", b"["):
        return Line(number, received_ns, _HFTBACKTEST_CONNECTION, "<", rest, True)
    fields = rest.split(b" ", 2)
    if len(fields) < 2 or not fields[0]:
        raise RecordingError(f"Line {number} is not '<received_ns> <connection> <kind> <payload>'.")
    payload = fields[2] if len(fields) == 3 else b""
    try:
        connection, kind = fields[0].decode(), fields[1].decode()
    except UnicodeDecodeError as error:
        raise RecordingError(f"Line {number} names a connection or a kind that is no text.") from error
    if kind == "b":
        payload = _binary(payload, number)
    elif kind not in _MARKS and kind not in _METHODS:
        raise RecordingError(f"Line {number} is of the unknown kind {kind[:20]!r}.")
    return Line(number, received_ns, connection, kind, payload)


def parse_answer(line: Line) -> Answer:
    """Read the payload of a ``GET`` line; raise RecordingError where it is none."""
    fields = line.payload.split(b" ", 2)
    if len(fields) < 2 or not fields[0].isdigit() or len(fields[0]) != 3:
        raise RecordingError(f"Line {line.number} is not '<status> <url> <body>'.")
    url = fields[1].decode(errors="replace")
    return Answer(int(fields[0]), url, fields[2] if len(fields) == 3 else b"")


def answer_payload(status: int, url: str, body: bytes) -> bytes:
    """Return the payload of a ``GET`` line; line breaks in the body (JSON, where they mean nothing) become blanks."""
    flat = body.translate(_BREAKS_TO_BLANKS) if b"\n" in body or b"\r" in body else body
    return b"%d %s %s" % (status, url.encode(), flat)


def format_line(received_ns: int, connection: int | str, kind: str, payload: bytes | str) -> bytes:
    """Return a line with its line break. A text frame that contains one becomes ``b``, which holds any bytes."""
    content = payload.encode() if isinstance(payload, str) else payload
    name = str(connection)
    if not name.isalnum():
        name = "_".join(name.split()) or "_"
    if kind == "<" and (b"\n" in content or b"\r" in content):
        kind = "b"
    if kind == "b":
        content = base64.b64encode(content)
    elif b"\n" in content or b"\r" in content:
        content = content.translate(_BREAKS_TO_BLANKS)
    return b"%d %s %s %s\n" % (received_ns, name.encode(), kind.encode(), content)


class Recorder:
    """Append lines to a recording, from a thread of its own; ``frame`` only remembers.

    What cannot be written within ``max_pending_bytes`` is dropped and counted in ``dropped``; ``error`` is the last
    reason. After a failed write nothing is lost as long as there is room: it is tried again at the next flush.
    """

    def __init__(self, path: Path, *, flush_interval_s: float = 0.5, max_pending_bytes: int = 64 * 1024 * 1024) -> None:
        self.path = path
        self.written = 0
        self.dropped = 0
        self.error: OSError | None = None
        self._max_pending_bytes = max_pending_bytes
        self._flush_interval_s = flush_interval_s
        self._pending: deque[bytes] = deque()
        self._pending_bytes = 0
        self._lock = threading.Lock()
        self._fd = _open_to_append(path)
        self._size = os.fstat(self._fd).st_size
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="recorder", daemon=True)
        self._thread.start()

    def frame(self, received_ns: int, connection: int | str, kind: str, payload: bytes | str) -> None:
        """Remember one line; it is in the file after the next flush."""
        line = format_line(received_ns, connection, kind, payload)
        if self._pending_bytes + len(line) > self._max_pending_bytes:
            self.dropped += 1
            return
        with self._lock:
            self._pending_bytes += len(line)
            self._pending.append(line)

    def flush(self) -> None:
        """Write what is remembered now; an error is kept in ``error``, and the lines wait for the next time."""
        with self._lock:
            lines = list(self._pending)
        if not lines:
            return
        content = b"".join(lines)
        try:
            self._append(content)
        except OSError as error:
            self.error = error
            return
        self.error = None
        with self._lock:
            for _ in lines:
                self._pending.popleft()
            self._pending_bytes -= len(content)
        self.written += len(lines)

    def close(self) -> None:
        """Write the rest and close the file."""
        if self._stopping.is_set():
            return
        self._stopping.set()
        self._thread.join()
        self.flush()
        os.close(self._fd)

    def _run(self) -> None:
        while not self._stopping.wait(self._flush_interval_s):
            self.flush()

    def _append(self, content: bytes) -> None:
        view = memoryview(content)
        try:
            while view:
                view = view[os.write(self._fd, view) :]
        except OSError:
            os.ftruncate(self._fd, self._size)  # a line is written whole or not at all
            raise
        self._size += len(content)


_BREAKS_TO_BLANKS = bytes.maketrans(b"\r\n", b"  ")


def _nanoseconds(stamp: bytes, number: int) -> int:
    if not stamp.isdigit() or len(stamp) > 19 or int(stamp) > _MAX_NS:
        raise RecordingError(f"Line {number} does not begin with a time in nanoseconds.")
    return int(stamp)


def _binary(payload: bytes, number: int) -> bytes:
    try:
        return base64.b64decode(payload, validate=True)
    except binascii.Error as error:
        raise RecordingError(f"Line {number} has a binary frame that is not base64: {error}.") from error


def _is_complete(line: Line) -> bool:
    """Say whether a line without a line break is whole for all that can be known: its payload ends where JSON does."""
    if line.kind not in ("<", "GET", "POST"):
        return False
    text = line.payload.split(b" ", 2)[-1] if line.kind != "<" else line.payload
    if not text.startswith((b"{", b"[")):
        return False
    try:
        msgspec.json.decode(text)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return False
    return True


def _open_to_append(path: Path) -> int:
    """Open a recording for appending, without the torn last line that a crash left in it."""
    fd = os.open(path, os.O_RDWR | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o640)
    size = os.fstat(fd).st_size
    end = size
    while end > 0:
        start = max(0, end - _TAIL_BYTES)
        last = os.pread(fd, end - start, start).rfind(b"\n")
        if last >= 0:
            end = start + last + 1
            break
        end = start
    if end != size:
        os.ftruncate(fd, end)
    return fd
