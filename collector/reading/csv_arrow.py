"""A session's CSV files as Arrow, block by block: parsed in as many threads as there are cores, in bounded memory.

What counts is read as everywhere else: all segments, compressed ones too, and no last line that has no newline yet.
"""

from __future__ import annotations

import gzip
import os
import zlib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import IO, Any

from collector.errors import LogError
from collector.reading.arrow import Table, extra, schema_of
from collector.reading.csv_rows import open_segment, segments
from collector.reading.parallel import in_order
from collector.storage.segments import MAX_LINE_BYTES
from collector.streams import Column, Kind, Stream

BLOCK_BYTES = 1 << 23


class CsvBlocks:
    """One symbol's rows of a stream, as they stood in the files when this was made; may be gone through again.

    Args:
        symbol: None for a stream of the whole session.
        after_seq: rows up to this number are left out (QuestDB gives them).

    Raises:
        LogError: a file cannot be opened, or is not of this stream.
    """

    def __init__(self, directory: Path, stream: Stream, symbol: str | None, *, after_seq: int = 0) -> None:
        self._stream = stream
        self._symbol = symbol
        self._after_seq = after_seq
        self._segments: list[_Segment] = []
        try:
            for path in segments(directory, stream, symbol):
                self._segments.append(_Segment(path, stream))
        except LogError:
            self.close()
            raise

    def close(self) -> None:
        """Let go of the files."""
        for segment in self._segments:
            segment.close()

    def tables(self, columns: Sequence[Column], *, exact: bool = False) -> Iterator[Table]:
        """Return the rows as one table a block, in the files' order; raise LogError where one cannot be read."""
        yield from in_order(
            lambda piece: self._parse(*piece, columns, exact=exact),
            ((segment, block) for segment in self._segments if segment.names for block in segment.blocks()),
        )

    def _parse(self, segment: _Segment, block: bytes, columns: Sequence[Column], *, exact: bool) -> Table:
        pa, pc, csv = extra("pyarrow"), extra("pyarrow.compute"), extra("pyarrow.csv")
        filtered = bool(self._after_seq) and not any(column.name == "seq" for column in columns)
        wanted = [column for column in columns if column.name != "symbol" or not self._stream.per_symbol]
        if filtered:
            wanted.append(Column("seq", Kind.LONG))
        types = {column.name: _csv_type(pa, column.kind, exact=exact) for column in wanted}
        try:
            table = csv.read_csv(
                pa.BufferReader(block),
                read_options=csv.ReadOptions(use_threads=False, block_size=len(block) + 1, column_names=segment.names),
                parse_options=csv.ParseOptions(quote_char='"' if b'"' in block else False, ignore_empty_lines=False),
                convert_options=csv.ConvertOptions(
                    column_types=types,
                    include_columns=list(types),
                    include_missing_columns=True,
                    null_values=[""],
                    strings_can_be_null=True,
                    true_values=["true"],
                    false_values=["false"],
                ),
            )
        except pa.ArrowInvalid as error:
            raise LogError(f"{segment.path} cannot be read: {error}.") from error
        if self._after_seq:
            table = table.filter(pc.greater(table["seq"], self._after_seq))
        return self._arrange(table, columns, exact=exact)

    def _arrange(self, table: Table, columns: Sequence[Column], *, exact: bool) -> Table:
        pa, pc = extra("pyarrow"), extra("pyarrow.compute")
        schema = schema_of(columns, exact=exact)
        arrays = []
        for column, field in zip(columns, schema, strict=True):
            if column.name == "symbol" and self._stream.per_symbol:
                arrays.append(pa.repeat(pa.scalar(self._symbol, pa.string()), table.num_rows))
            elif column.kind is Kind.BOOLEAN:
                arrays.append(pc.fill_null(table[column.name], False))  # as the database has it
            else:
                arrays.append(table[column.name].cast(field.type))
        return pa.table(arrays, schema=schema)


class _Segment:
    """One file. The live one is held open: it may be renamed and compressed while it is read."""

    def __init__(self, path: Path, stream: Stream) -> None:
        self.path = path
        self._live: IO[bytes] | None = None
        self._size: int | None = None
        try:
            file = open_segment(path)
            header = file.readline(MAX_LINE_BYTES)
            if isinstance(file, gzip.GzipFile):
                file.close()
            else:
                self._size = os.fstat(file.fileno()).st_size
                if path.name == stream.file:
                    self._live = file
                else:
                    file.close()
        except (OSError, EOFError, zlib.error) as error:
            raise LogError(f"{path} cannot be read: {error}.") from error
        self._begin = len(header)
        self.names = _names(path, header, stream)

    def close(self) -> None:
        if self._live is not None:
            self._live.close()

    def blocks(self) -> Iterator[bytes]:
        """Return whole lines, as they stood when this was made; what a crash or a write leaves unfinished is no line.

        Raises:
            LogError: the file cannot be read.
        """
        try:
            if self._live is not None:
                yield from _cut(self._live, self._begin, self._size)
                return
            with open_segment(self.path) as file:
                yield from _cut(file, self._begin, self._size)
        except (OSError, EOFError, zlib.error) as error:
            raise LogError(f"{self.path} cannot be read: {error}.") from error


def _cut(file: IO[bytes], begin: int, size: int | None) -> Iterator[bytes]:
    """Return a file's bytes from an offset up to a size, in blocks that end with a newline."""
    file.seek(begin)
    left = None if size is None else size - begin
    rest = b""
    while chunk := file.read(BLOCK_BYTES if left is None else min(BLOCK_BYTES, left)):
        left = None if left is None else left - len(chunk)
        end = chunk.rfind(b"\n") + 1
        if end:
            yield rest + chunk[:end] if rest else chunk[:end]
            rest = chunk[end:]
        elif len(rest) > MAX_LINE_BYTES:
            raise OSError(f"a line of more than {MAX_LINE_BYTES} bytes")
        else:
            rest += chunk


def _names(path: Path, header: bytes, stream: Stream) -> list[str]:
    """Return the file's own columns; none where not even the header is whole."""
    if not header.endswith(b"\n"):
        return []
    names = header.decode("utf-8", "replace").rstrip("\r\n").split(",")
    if "seq" not in names or names[0] != stream.timestamp.name:
        raise LogError(
            f"{path} does not have the columns of {stream.name}.",
            hint="Older files are taken by `collector import PATH`.",
        )
    return names


def _csv_type(pa: Any, kind: Kind, *, exact: bool) -> Any:
    if kind in (Kind.TIMESTAMP, Kind.LONG):
        return pa.int64()
    if kind is Kind.DOUBLE:
        return pa.string() if exact else pa.float64()
    return pa.bool_() if kind is Kind.BOOLEAN else pa.string()
