"""Committed byte ranges of many files → one request's body for one table, and back from the answer to the files."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from collector.storage.cursor import START, Position
from collector.storage.ilp import Encoded, Encoder, Refused
from collector.storage.rejected import RejectedRow
from collector.storage.segments import LogDamaged, StreamReader
from collector.streams import Stream

_MAX_READ_BYTES = 8 * 1024 * 1024
_ROW_BYTES = 128  # of CSV, at most, for a guess how much to read; more rows than wanted are cut off
_EXPANSION = 4.0  # ILP bytes per CSV byte, at first; then as measured


@dataclass(slots=True)
class Window:
    """What was acknowledged since the last look into the table: enough to ask the table for exactly that."""

    rows: int = 0
    first_seq: int = 0
    last_seq: int = 0
    first_us: int = 0
    last_us: int = 0

    def add(self, encoded: Encoded) -> None:
        """Take note of rows that were acknowledged."""
        if encoded.seqs is None or encoded.times is None:
            return
        (first_seq, last_seq), (first_us, last_us) = encoded.seqs, encoded.times
        if self.rows:
            first_seq, first_us = min(first_seq, self.first_seq), min(first_us, self.first_us)
            last_seq, last_us = max(last_seq, self.last_seq), max(last_us, self.last_us)
        self.rows += encoded.rows
        self.first_seq, self.last_seq, self.first_us, self.last_us = first_seq, last_seq, first_us, last_us


@dataclass(frozen=True, slots=True)
class Sealed:
    """A window that gets no more rows: once the table has applied ``transaction``, it must hold them."""

    window: Window
    end: Position
    transaction: int


class Lane:
    """One stream's delivery: how far it is, what of it is being looked after.

    Args:
        path: the live segment's.
    """

    __slots__ = (
        "_encoders", "_expansion", "acknowledged", "exchange", "has_commits", "missing", "path", "problem", "reader",
        "retry_at_s", "sealed", "sent_seq", "session_id", "stream", "symbol", "verified", "window",
    )  # fmt: skip

    def __init__(self, session_id: str, exchange: str, stream: Stream, symbol: str | None, path: Path) -> None:
        self.session_id = session_id
        self.exchange = exchange
        self.stream = stream
        self.symbol = symbol
        self.path = path
        self.reader = StreamReader(stream, path)
        self.acknowledged = START
        self.verified = START
        self.window = Window()
        self.sealed: Sealed | None = None
        self.sent_seq = 0
        self.has_commits = False
        self.missing = 0
        self.problem = ""
        self.retry_at_s = 0.0
        self._encoders: dict[tuple[str, ...], Encoder] = {}
        self._expansion = _EXPANSION

    def __repr__(self) -> str:
        return f"<Lane {self.session_id} {self.stream.name} {self.symbol} at {self.acknowledged}>"

    @property
    def lag_rows(self) -> int:
        """Return how many durable rows are not acknowledged, by their numbers."""
        return max(0, self.reader.durable.last_seq - self.acknowledged.seq)

    def rewind(self, position: Position) -> None:
        """Send again from a position; what was seen in the table after it no longer counts."""
        self.acknowledged = position
        if position.seq < self.verified.seq or position.segment is None:
            self.verified = position
        self.window = Window()
        self.sealed = None

    def take(self, *, rows: int, body_bytes: int, oldest_us: int | None) -> Slice | None:
        """Read and encode the next lines, at most so many; None at the durable end.

        Raises:
            LogDamaged: the files do not fit the position, or their names cannot be sent.
            OSError: a file cannot be read.
        """
        size = min(int(body_bytes / self._expansion), rows * _ROW_BYTES, _MAX_READ_BYTES)
        piece = self.reader.read(self.acknowledged, max(size, 1024))
        if piece is None:
            return None
        encoder = self._encoder(piece.columns)
        if piece.refusal:
            encoded = Encoded(lines=1, kept=[], refused=[Refused(0, piece.refusal)])
            content, length = piece.content, piece.length
        else:
            content = _first_lines(piece.content, rows)
            encoded, length = encoder.encode(content, oldest_us=oldest_us), len(content)
            if encoded.rows:
                self._expansion = max(1.0, len(encoded.body) / length)
        seq = encoded.last_seq if encoded.last_seq is not None else self.acknowledged.seq
        end = Position(piece.segment, piece.offset + length, seq)
        return Slice(self, content, piece.offset, self.acknowledged, end, encoded, encoder, oldest_us)

    def _encoder(self, columns: tuple[str, ...]) -> Encoder:
        encoder = self._encoders.get(columns)
        if encoder is None:
            tags = {"session_id": self.session_id, "exchange": self.exchange}
            if self.stream.per_symbol and self.symbol is not None:
                tags["symbol"] = self.symbol
            try:
                encoder = self._encoders[columns] = Encoder(self.stream, tags, columns)
            except ValueError as error:
                raise LogDamaged(f"{self.path.name} cannot be sent: {error}") from error
        return encoder


@dataclass(slots=True)
class Slice:
    """Some whole lines of one lane as ILP: those that come after ``start``, and go from ``offset`` to ``end``.

    ``offset`` is a byte of the segment that ``end`` names, which may be a later one than ``start``'s.
    """

    lane: Lane
    content: bytes
    offset: int
    start: Position
    end: Position
    encoded: Encoded
    encoder: Encoder
    oldest_us: int | None

    def before(self, line: int) -> Slice | None:
        """Return the slice of the lines before this one (from 0); None where there are none."""
        if line == 0:
            return None
        content = _first_lines(self.content, line)
        encoded = self.encoder.encode(content, oldest_us=self.oldest_us)
        seq = encoded.last_seq if encoded.last_seq is not None else self.start.seq
        end = Position(self.end.segment, self.offset + len(content), seq)
        return Slice(self.lane, content, self.offset, self.start, end, encoded, self.encoder, self.oldest_us)

    def after(self, line: int) -> Position:
        """Return the position behind a line (from 0)."""
        content = _first_lines(self.content, line + 1)
        seq = self.encoder.encode(content).last_seq
        return Position(self.end.segment, self.offset + len(content), self.start.seq if seq is None else seq)

    def rejected(self, refusals: Sequence[Refused]) -> list[RejectedRow]:
        """Return the rows of ``rejected.csv`` for these lines, which are in order.

        Where a line's ``seq`` is not to be read it is the one after the line before it, as they count up by one.
        """
        reasons = dict(refusals)
        rows = []
        seq = self.start.seq
        for index, content in enumerate(self.content.split(b"\n") if reasons else ()):
            line = content.decode("utf-8", "backslashreplace")
            fields = self.encoder.fields_of(line)
            text = fields[self.encoder.seq_index] if fields is not None else ""
            seq = int(text) if text.isdecimal() else seq + 1
            if index in reasons:
                rows.append(RejectedRow(self.lane.stream.name, self.lane.symbol or "", str(seq), reasons[index], line))
                if len(rows) == len(reasons):
                    break
        return rows


@dataclass(slots=True)
class Batch:
    """One request: slices of lanes of one table, one slice a lane."""

    table: str
    slices: list[Slice] = field(default_factory=list)
    rows: int = 0

    def add(self, part: Slice) -> None:
        """Take a lane's slice."""
        self.slices.append(part)
        self.rows += part.encoded.rows

    @property
    def body(self) -> bytes:
        return b"".join([part.encoded.body for part in self.slices])

    def find(self, line: int) -> tuple[int, int]:
        """Return which slice, and which CSV line in it (from 0), a line of the body (from 1) came from."""
        row = line - 1
        for index, part in enumerate(self.slices):
            if row < part.encoded.rows:
                return index, part.encoded.line_of(row)
            row -= part.encoded.rows
        raise IndexError(line)

    def before(self, index: int, line: int) -> Batch:
        """Return the batch of everything before a line of a slice."""
        shorter = Batch(self.table)
        for part in self.slices[:index]:
            shorter.add(part)
        cut = self.slices[index].before(line)
        if cut is not None:
            shorter.add(cut)
        return shorter


def _first_lines(content: bytes, lines: int) -> bytes:
    if content.count(b"\n") <= lines:
        return content
    return content[: len(content) - len(content.split(b"\n", lines)[-1])]


def smallest_first(lanes: Iterable[Lane]) -> Sequence[Lane]:
    """Order lanes so that what just happened goes out before what has waited for long: small backlogs first."""
    return sorted(lanes, key=lambda lane: lane.lag_rows)
