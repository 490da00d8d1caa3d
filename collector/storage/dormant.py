"""Sessions that are over and delivered: what is kept of one so that it costs nothing, and when it is needed again.

Of a session whose rows were all found in their tables nothing is open and no file is read. What the server looked like
then is kept, because a table that was made again, or is an older copy, lacks its rows too.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from collector.storage.cursor import Cursor, ServerMark
from collector.storage.delivery import SessionDelivery
from collector.streams import Stream

LogFile = tuple[Stream, str | None, Path]
"""A stream, the symbol (None for the session's own streams), and the path of the live segment."""

FindFiles = Callable[[], Sequence[LogFile]]
"""Say which files a session has, when somebody wants to know; raises CollectorError."""


@dataclass(frozen=True, slots=True)
class End:
    """Where one file of a session that is over ends: its last ``seq``, 0 where it never had a row."""

    stream: Stream
    symbol: str | None
    path: Path
    last_seq: int


@dataclass(frozen=True, slots=True)
class Dormant:
    """A session that is over and delivered: ``tables`` hold its rows, ``mark`` is the server seen with them."""

    session_id: str
    exchange: str
    directory: Path
    mark: ServerMark
    tables: frozenset[str]
    files: FindFiles
    delivery: SessionDelivery


def is_whole(directory: Path, cursor: Cursor, ends: Iterable[End], cursor_file: str) -> bool:
    """Tell whether a cursor says of every file that its last row was found in its table; raises OSError.

    A file that was written to after the cursor is looked at anew, whoever did that.
    """
    verified = {(file.stream, file.symbol): file.verified.seq for file in cursor.files}
    saved_ns = (directory / cursor_file).stat().st_mtime_ns
    for end in ends:
        if verified.get((end.stream.name, end.symbol), 0) < end.last_seq:
            return False
        if end.last_seq and end.path.stat().st_mtime_ns > saved_ns:
            return False
    return True
