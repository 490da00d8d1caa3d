"""What a closed segment holds, and whether QuestDB holds the same: asked before a segment is deleted for good."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from collector.storage.files import Files
from collector.storage.packing import SUFFIX, SegmentChanged, read_compressed
from collector.storage.questdb import Transport, quoted
from collector.streams import Stream

_CHUNK = 1 << 18
_SPANS_PER_QUERY = 100
_MAX_LINE_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Span:
    """Consecutive rows of a stream: their numbers, how many, and between which exchange times they lie (inclusive)."""

    stream: Stream
    symbol: str | None
    first_seq: int
    last_seq: int
    rows: int
    from_us: int
    to_us: int
    received_us: int

    def joined(self, later: Span) -> Span:
        """Return the rows of both."""
        return Span(
            self.stream,
            self.symbol,
            self.first_seq,
            later.last_seq,
            self.rows + later.rows,
            min(self.from_us, later.from_us),
            max(self.to_us, later.to_us),
            max(self.received_us, later.received_us),
        )


def survey_segment(path: Path, stream: Stream, symbol: str | None, files: Files) -> Span:
    """Read a closed segment once.

    Raises:
        OSError: it cannot be read.
        SegmentChanged: it holds no rows, or something that is no row of the stream.
    """
    pieces = read_compressed(path, files) if path.name.endswith(SUFFIX) else _plain(path, files)
    received = next((i for i, column in enumerate(stream.columns) if column.name == "received_at"), 0)
    rows, from_us, to_us = 0, 1 << 62, 0
    first = last = b""
    try:
        for lines in _lines(pieces):
            times = [int(line[: line.index(b",")]) for line in lines]
            from_us, to_us = min(from_us, *times), max(to_us, *times)
            first, last = first or lines[0], lines[-1]
            rows += len(lines)
        return Span(
            stream,
            symbol,
            int(first.split(b",")[stream.seq_index]),
            int(last.split(b",")[stream.seq_index]),
            rows,
            from_us,
            to_us,
            int(last.split(b",")[received]),
        )
    except (ValueError, IndexError) as error:
        raise SegmentChanged(f"{path.name} is no whole segment of {stream.name}") from error


def spans_held(transport: Transport, session_id: str, spans: Sequence[Span]) -> list[int]:
    """Return, for each span of one stream, how many of its rows the table shows.

    Raises DatabaseUnavailable and DatabaseMisconfigured.
    """
    counts: list[int] = []
    for begin in range(0, len(spans), _SPANS_PER_QUERY):
        part = spans[begin : begin + _SPANS_PER_QUERY]
        found = {row["symbol"]: row["rows"] for row in transport.query(_question(session_id, part))}
        counts += [int(str(found.get(span.symbol, 0))) for span in part]
    return counts


def _question(session_id: str, spans: Sequence[Span]) -> str:
    stream = spans[0].stream
    time = stream.timestamp.in_database
    symbol = "symbol" if stream.per_symbol else "null symbol"
    conditions = [_condition(span) for span in spans]
    return (
        f"select {symbol}, count() rows from {stream.table}"  # noqa: S608 - the registry's names, the rest quoted
        f" where {time} >= {min(span.from_us for span in spans)} and {time} <= {max(span.to_us for span in spans)}"
        f" and session_id = {quoted([session_id])} and ({' or '.join(conditions)})"
    )


def _condition(span: Span) -> str:
    terms = [f"seq >= {span.first_seq}", f"seq <= {span.last_seq}"]
    if span.stream.per_symbol:
        terms.append(f"symbol = {quoted([span.symbol or ''])}")
    return f"({' and '.join(terms)})"


def _plain(path: Path, files: Files) -> Iterator[bytes]:
    fd = files.open_append(path)
    try:
        at = 0
        while piece := files.read(fd, _CHUNK, at):
            yield piece
            at += len(piece)
    finally:
        files.close(fd)


def _lines(pieces: Iterator[bytes]) -> Iterator[list[bytes]]:
    """Return whole lines behind the header; an unfinished last one makes the segment no whole one."""
    rest, header = b"", True
    for piece in pieces:
        *lines, rest = (rest + piece).split(b"\n")
        if len(rest) > _MAX_LINE_BYTES:
            raise ValueError("a line is too long")
        if header and lines:
            header = False
            del lines[0]
        if lines:
            yield lines
    if rest:
        raise ValueError("it ends in the middle of a row")
