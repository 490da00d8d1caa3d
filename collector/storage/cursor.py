"""How far each of a session's files has been delivered, in ``cursor.json`` beside them.

Losing the file costs only that rows are sent again, so whatever is wrong with it, the answer is to start at the
beginning. It is written after the acknowledgement, never before.
"""

from __future__ import annotations

import zlib
from pathlib import Path
from typing import Any

import msgspec

from collector.storage.files import Files

CURSOR_FILE = "cursor.json"
FORMAT_VERSION = 1
_MAX_BYTES = 64 * 1024 * 1024


class Position(msgspec.Struct, frozen=True):
    """A place between two rows of a stream, in all of its segments.

    Args:
        segment: the first ``seq`` of the segment; None before the first row of the first one.
        offset: bytes into the (uncompressed) segment.
        seq: the last ``seq`` before this place; 0 before the first row.
    """

    segment: int | None = None
    offset: int = 0
    seq: int = 0


START = Position()


class SavedTable(msgspec.Struct, frozen=True):
    """What a table looked like at the last check; another folder or a smaller transaction number is another past."""

    directory: str
    transaction: int


class ServerMark(msgspec.Struct, frozen=True):
    """What the server looked like at the last check: its database instance, its start, its tables."""

    instance: str
    started: str
    tables: dict[str, SavedTable]


class SavedFile(msgspec.Struct, frozen=True):
    """One file's cursor: what the server acknowledged, and what was found in its tables afterwards."""

    stream: str
    symbol: str | None
    acknowledged: Position
    verified: Position


class Cursor(msgspec.Struct, frozen=True):
    """A session's cursor as it stands on disk."""

    session_id: str
    files: list[SavedFile]
    server: ServerMark | None = None
    version: int = FORMAT_VERSION


class _Sealed(msgspec.Struct):
    crc: int
    cursor: msgspec.Raw


class CursorUnreadable(Exception):
    """The cursor cannot be used; the message says why. Never leaves the storage package."""


def encode_cursor(cursor: Cursor) -> bytes:
    """Return the file's content, with a checksum that any torn or altered byte breaks."""
    content = msgspec.json.encode(cursor)
    return msgspec.json.encode(_Sealed(zlib.crc32(content), msgspec.Raw(content))) + b"\n"


def decode_cursor(content: bytes, session_id: str) -> Cursor:
    """Read a cursor back.

    Raises:
        CursorUnreadable: it is torn, altered, of a later format, or another session's.
    """
    try:
        sealed = msgspec.json.decode(content, type=_Sealed)
        if zlib.crc32(bytes(sealed.cursor)) != sealed.crc:
            raise CursorUnreadable("its checksum is wrong")
        version: Any = msgspec.json.decode(sealed.cursor).get("version")
        if version != FORMAT_VERSION:
            raise CursorUnreadable(f"its format is {version}, not {FORMAT_VERSION}")
        cursor = msgspec.json.decode(sealed.cursor, type=Cursor)
    except (msgspec.MsgspecError, UnicodeDecodeError, AttributeError, RecursionError) as error:
        raise CursorUnreadable(f"it is damaged ({error})") from error
    if cursor.session_id != session_id:
        raise CursorUnreadable(f"it belongs to session {cursor.session_id[:64]!r}")
    return cursor


def load_cursor(directory: Path, session_id: str) -> Cursor | None:
    """Read a session's cursor; None where it has none yet.

    Raises:
        CursorUnreadable: it cannot be read, or cannot be used.
    """
    try:
        with (directory / CURSOR_FILE).open("rb") as file:
            content = file.read(_MAX_BYTES)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CursorUnreadable(str(error)) from error
    return decode_cursor(content, session_id)


def save_cursor(files: Files, directory: Path, cursor: Cursor) -> None:
    """Put the cursor in place atomically and durably. Raises OSError."""
    files.replace(directory / CURSOR_FILE, encode_cursor(cursor))
