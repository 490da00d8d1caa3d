"""CSV lines → ILP lines (the InfluxDB line protocol, as QuestDB reads it over HTTP). Pure.

The digits go from one text to the other untouched, without a detour through floats: QuestDB parses a decimal exactly.
A chunk of plain lines is turned column by column (about 0.6 µs a row); a chunk with anything unusual in it (a quote, a
space, a missing field) goes line by line, with escaping, and names the rows that no table could take.

A deep book's levels are also two arrays. Those are binary: ``=``, the mark of an array (14), the type of its elements
(10, a double), the number of dimensions, the length of each, the doubles. There is no way to write one as text.

Source of the syntax: https://questdb.com/docs/reference/api/ilp/overview/ (tags, then fields, then the timestamp); of
the arrays: QuestDB's own clients (protocol version 2), with which a test compares them.
"""

from __future__ import annotations

import csv
import re
import struct
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from collector.streams import Column, Kind, Stream

_CHUNK_BYTES = 16 * 1024  # a chunk's strings stay in the processor's cache: 0.55 µs a row against 1.3 at 500 kB

_PLAIN = bytes(sorted({ord("\n"), *range(0x21, 0x7F)} - set(b'"\\=')))
"""The bytes that need no escaping anywhere; the rest sends a chunk down the slow path."""

_NUMERIC = b"0123456789+-.eE,\n"
"""What a plain chunk of a deep book consists of: ``float`` reads words and underscores, too: no numbers."""

_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")

_VALID = {
    Kind.TIMESTAMP: re.compile(r"[0-9]{1,18}"),
    Kind.DOUBLE: re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?"),
    Kind.LONG: re.compile(r"-?[0-9]{1,19}"),
    Kind.BOOLEAN: re.compile(r"true|false"),
}

_ARRAY, _DOUBLE = 14, 10

_OPENING = {Kind.VARCHAR: '"'}
_CLOSING = {Kind.TIMESTAMP: "t", Kind.LONG: "i", Kind.VARCHAR: '"'}

_TAG_ESCAPES = str.maketrans({character: f"\\{character}" for character in " ,=\\"})
_STRING_ESCAPES = str.maketrans({character: f"\\{character}" for character in '"\\'})


class Refused(NamedTuple):
    """A CSV line that no table could take: its index among the lines given, and why."""

    line: int
    reason: str


@dataclass(slots=True)
class Encoded:
    """What some CSV lines became.

    ``kept`` lists the indices of the CSV lines that ``body`` holds, in its order; None means all of them. ``seqs`` and
    ``times`` bound the encoded rows (None where there are none); ``last_seq`` is the last ``seq`` that could be read.
    """

    body: bytes = b""
    rows: int = 0
    lines: int = 0
    kept: list[int] | None = None
    refused: list[Refused] = field(default_factory=list)
    seqs: tuple[int, int] | None = None
    times: tuple[int, int] | None = None
    last_seq: int | None = None

    def line_of(self, row: int) -> int:
        """Return the index of the CSV line that row ``row`` (from 0) of the body came from."""
        return row if self.kept is None else self.kept[row]


class _Part(NamedTuple):
    """How one CSV column is written: what stands before and after its value."""

    position: int
    kind: Kind
    before: str
    after: str


class Encoder:
    """Encode the lines of one CSV file.

    Args:
        stream: what the file holds; a book's depth is that of the file's header.
        tags: the columns that the file's place says (``session_id``, ``exchange``, ``symbol``), in the table's order.
        columns: the names in the file's header where they differ from the stream's (an older or newer file); columns
            that the stream does not know are left out.
    """

    def __init__(self, stream: Stream, tags: Mapping[str, str], columns: Sequence[str] | None = None) -> None:
        names = list(columns) if columns is not None else [column.name for column in stream.columns]
        stream = stream.fitted(names)
        known = {column.name: column for column in stream.columns}
        positions = {name: index for index, name in enumerate(names) if name in known}
        for required in (stream.timestamp.name, "seq"):
            if required not in positions:
                raise ValueError(f"the header has no column {required!r}")
        self._stream = stream
        self._fields = len(names)
        self._time_index = positions[stream.timestamp.name]
        self.seq_index = positions["seq"]
        self._prefix = stream.table + "".join(f",{name}={escape_tag(value)}" for name, value in tags.items())
        written = [(index, known[name]) for name, index in positions.items()]
        self._checked_kinds = [(index, column.kind) for index, column in written]
        self._parts = self._order([(index, column) for index, column in written if not column.only_in_array])
        self._arrays = [
            _Array(f",{name}=".encode(), _level_positions(stream, side, positions)) for name, side in stream.array_sides
        ]
        self._key_indices = [
            positions[column.name] for column in stream.columns if column.in_database in stream.keys
        ]  # the keys that are not in the file are the file's own tags, equal on every line

    def _order(self, columns: Sequence[tuple[int, Column]]) -> list[_Part]:
        """Return the parts in ILP's order: tags, ``seq`` (never empty, so it begins the fields), the other fields."""
        rest = [(index, column) for index, column in columns if index not in (self._time_index, self.seq_index)]
        tags = [_Part(i, c.kind, f",{c.in_database}=", "") for i, c in rest if c.kind is Kind.SYMBOL]
        fields = [
            _Part(i, c.kind, f",{c.in_database}={_OPENING.get(c.kind, '')}", _CLOSING.get(c.kind, ""))
            for i, c in rest
            if c.kind is not Kind.SYMBOL
        ]
        return [*tags, _Part(self.seq_index, Kind.LONG, " seq=", "i"), *fields]

    def encode(self, content: bytes, *, oldest_us: int | None = None) -> Encoded:
        """Encode whole CSV lines, each with its newline.

        In a keyed stream only the last line of each key is encoded. Rows older than ``oldest_us`` are left out (they
        are below the table's retention).
        """
        if self._stream.keyed:
            return self._encode_lines(content, oldest_us)
        pieces = [self._encode_chunk(chunk, oldest_us) for chunk in _chunks(content)]
        return pieces[0] if len(pieces) == 1 else _joined(pieces)

    def fields_of(self, line: str) -> list[str] | None:
        """Return a line's fields; None where there are not as many as there should be."""
        fields = _fields_of(line)
        return fields if len(fields) == self._fields else None

    def _encode_chunk(self, chunk: bytes, oldest_us: int | None) -> Encoded:
        if not chunk.translate(None, _NUMERIC if self._arrays else _PLAIN):
            encoded = self._encode_columns(chunk)
            if encoded is not None and (oldest_us is None or (encoded.times or (0, 0))[0] >= oldest_us):
                return encoded
        return self._encode_lines(chunk, oldest_us)

    def _encode_columns(self, chunk: bytes) -> Encoded | None:
        """Encode a chunk of plain lines column by column; None where a line is not as it should be."""
        fields = chunk.replace(b"\n", b",\n,").decode("ascii").split(",")
        fields.pop()
        stride = self._fields + 1
        ends = fields[self._fields :: stride]
        rows = len(ends)
        if len(fields) != rows * stride or ends.count("\n") != rows:
            return None
        stamps = fields[self._time_index :: stride]
        seqs = fields[self.seq_index :: stride]
        try:
            times = list(map(int, stamps))
            first, last = int(seqs[0]), int(seqs[-1])
        except ValueError:
            return None
        has_empty = chunk.startswith(b",") or b",," in chunk or b",\n" in chunk
        if has_empty and "" in seqs:
            return None
        literals, columns = self._columns(fields, stride, has_empty)
        if self._arrays:
            try:
                self._add_arrays(fields, stride, literals, columns)
            except ValueError:
                return None
        columns.append(stamps)
        text = _interleave(literals, columns, ends)
        # The tags of the file may be any text; with arrays in it, each character stands for a byte.
        body = text.encode("latin-1") if self._arrays else text.encode()
        return Encoded(body, rows, rows, None, [], (first, last), (min(times), max(times)), last)

    def _columns(self, fields: list[str], stride: int, has_empty: bool) -> tuple[list[str], list[list[str]]]:
        """Return the constant text before each column and the columns' values; an empty field is left out."""
        literals: list[str] = []
        columns: list[list[str]] = []
        between = self._prefix.encode().decode("latin-1") if self._arrays else self._prefix
        for index, _, before, after in self._parts:
            values = fields[index::stride]
            if has_empty and "" in values:
                if not any(values):
                    continue
                values = [f"{before}{value}{after}" if value else "" for value in values]
                literals.append(between)
                between = ""
            else:
                literals.append(between + before)
                between = after
            columns.append(values)
        literals.append(between + " ")
        return literals, columns

    def _add_arrays(self, fields: list[str], stride: int, literals: list[str], columns: list[list[str]]) -> None:
        """Put the arrays behind the last column; raise ValueError where a level is none."""
        literals[-1] = literals[-1][:-1]  # the space before the time
        for array in self._arrays:
            first, last = array.positions[0], array.positions[-1] + 1
            rows = range(0, len(fields), stride)
            columns.append([array.encode(fields[row + first : row + last]).decode("latin-1") for row in rows])
            literals.append("")
        literals[-1] = " "

    def _encode_lines(self, content: bytes, oldest_us: int | None) -> Encoded:
        """Encode line by line, with escaping, naming the lines that cannot be encoded."""
        lines = content.split(b"\n")
        lines.pop()
        result = Encoded(lines=len(lines))
        encoded: dict[object, tuple[int, bytes, int, int]] = {}
        for index, line in enumerate(lines):
            try:
                fields = self._checked(line)
                row = self._line(fields)
            except ValueError as error:
                result.refused.append(Refused(index, str(error)))
                continue
            stamp, seq = int(fields[self._time_index]), int(fields[self.seq_index])
            result.last_seq = seq
            key = tuple(fields[i] for i in self._key_indices) if self._stream.keyed else index
            encoded.pop(key, None)  # the last line of a key counts, and stands where the last one stood
            if oldest_us is None or stamp >= oldest_us:
                encoded[key] = (index, row, stamp, seq)
        rows = list(encoded.values())
        result.body = b"".join([row[1] for row in rows])
        result.rows = len(rows)
        result.kept = [row[0] for row in rows]
        if rows:
            result.seqs = (min(row[3] for row in rows), max(row[3] for row in rows))
            result.times = (min(row[2] for row in rows), max(row[2] for row in rows))
        return result

    def _checked(self, line: bytes) -> list[str]:
        """Return a line's fields; raise ValueError with the reason where no table could take them."""
        try:
            text = line.decode("utf-8")
        except UnicodeDecodeError:
            raise ValueError("not UTF-8") from None
        if _CONTROL.search(text):
            raise ValueError("a control character")
        fields = _fields_of(text)
        if len(fields) != self._fields:
            raise ValueError(f"{len(fields)} fields instead of {self._fields}")
        if not fields[self._time_index] or not fields[self.seq_index]:
            raise ValueError("no timestamp or no seq")
        if not _VALID[Kind.TIMESTAMP].fullmatch(fields[self._time_index]):
            raise ValueError(f"{fields[self._time_index][:100]!r} is no TIMESTAMP")
        for index, kind in self._checked_kinds:
            valid = _VALID.get(kind)
            if fields[index] and valid and not valid.fullmatch(fields[index]):
                raise ValueError(f"{fields[index][:100]!r} is no {kind.value}")
        return fields

    def _line(self, fields: Sequence[str]) -> bytes:
        """Write one line; raise ValueError where the levels of a side are not whole."""
        pieces = [self._prefix]
        for index, kind, before, after in self._parts:
            value = fields[index]
            if value:
                escapes = {Kind.SYMBOL: _TAG_ESCAPES, Kind.VARCHAR: _STRING_ESCAPES}.get(kind)
                pieces += (before, value.translate(escapes) if escapes else value, after)
        arrays = b"".join([array.encode([fields[i] for i in array.positions]) for array in self._arrays])
        return "".join(pieces).encode() + arrays + f" {fields[self._time_index]}\n".encode()


_HALF_A_LEVEL = "a level lacks its price or its size"


class _Array:
    """How the levels of one side are written as an array of prices and one of sizes.

    Args:
        before: what stands before its value.
        positions: of the CSV columns, price and size in turn, one after the other.
    """

    __slots__ = ("_before", "_packers", "positions")

    def __init__(self, before: bytes, positions: list[int]) -> None:
        self._before = before
        self._packers: dict[int, tuple[bytes, struct.Struct]] = {}
        self.positions = positions

    def encode(self, values: list[str]) -> bytes:
        """Return the field; nothing where the side has no level.

        Raises:
            ValueError: a level lacks its price or its size, or there is one behind one that is missing.
        """
        if not values[-1]:
            count = values.index("")
            if count % 2 or any(values[count:]):
                raise ValueError(_HALF_A_LEVEL)
            values = values[:count]
        if not values:
            return b""
        levels = len(values) // 2
        packer = self._packers.get(levels)
        if packer is None:
            head = self._before + struct.pack("<BBBBII", 0x3D, _ARRAY, _DOUBLE, 2, 2, levels)
            packer = self._packers[levels] = (head, struct.Struct(f"<{2 * levels}d"))
        head, body = packer
        try:
            return head + body.pack(*map(float, values[0::2]), *map(float, values[1::2]))
        except ValueError:
            raise ValueError(_HALF_A_LEVEL) from None


def _level_positions(stream: Stream, side: str, positions: Mapping[str, int]) -> list[int]:
    names = [f"{side}_{what}{n}" for n in range(1, stream.levels + 1) for what in ("", "qty_")]
    if any(name not in positions for name in names):
        raise ValueError(f"the header lacks levels of the {side}s")
    found = [positions[name] for name in names]
    if found != list(range(found[0], found[0] + len(found))):
        raise ValueError(f"the levels of the {side}s do not stand one after the other")
    return found


def escape_tag(value: str) -> str:
    """Return a symbol's value as ILP writes it.

    Raises:
        ValueError: it is empty, or holds a character that ILP has no way to write.
    """
    if not value or _CONTROL.search(value):
        raise ValueError(f"{value!r} cannot be a tag")
    return value.translate(_TAG_ESCAPES)


def _fields_of(text: str) -> list[str]:
    if '"' not in text:
        return text.split(",")
    try:
        return next(csv.reader((text,)), [""])
    except csv.Error:
        return [""]


def _interleave(literals: list[str], columns: list[list[str]], ends: list[str]) -> str:
    """Join constant, value, constant, value, … newline, row by row."""
    rows, stride = len(ends), 2 * len(columns) + 1
    pieces: list[str] = [""] * (stride * rows)
    for place, (literal, values) in enumerate(zip(literals, columns, strict=True)):
        pieces[2 * place :: stride] = [literal] * rows
        pieces[2 * place + 1 :: stride] = values
    pieces[stride - 1 :: stride] = ends
    return "".join(pieces)


def _chunks(content: bytes) -> list[bytes]:
    """Cut at line ends into chunks of about 16 kB (a longer line makes a longer chunk)."""
    if len(content) <= _CHUNK_BYTES:
        return [content]
    chunks = []
    start = 0
    while start < len(content):
        end = content.rfind(b"\n", start, start + _CHUNK_BYTES) + 1 or content.find(b"\n", start) + 1
        chunks.append(content[start:end])
        start = end
    return chunks


def _joined(pieces: Sequence[Encoded]) -> Encoded:
    whole = Encoded(body=b"".join([piece.body for piece in pieces]))
    if any(piece.kept is not None for piece in pieces):
        whole.kept = []
    for piece in pieces:
        if whole.kept is not None:
            kept = range(piece.rows) if piece.kept is None else piece.kept
            whole.kept.extend([whole.lines + index for index in kept])
        whole.refused.extend([Refused(whole.lines + line, reason) for line, reason in piece.refused])
        whole.rows += piece.rows
        whole.lines += piece.lines
        whole.last_seq = piece.last_seq if piece.last_seq is not None else whole.last_seq
    whole.seqs = _bounds([piece.seqs for piece in pieces])
    whole.times = _bounds([piece.times for piece in pieces])
    return whole


def _bounds(pairs: Sequence[tuple[int, int] | None]) -> tuple[int, int] | None:
    present = [pair for pair in pairs if pair is not None]
    if not present:
        return None
    return min(pair[0] for pair in present), max(pair[1] for pair in present)
