"""A session's CSV files, read back: all segments of a stream, in batches, whatever their length.

A last line without its newline is one that is still being written, or was torn by a crash: it is not a row. Files whose
columns are fewer (written by an earlier version) or more (by a later one) are read by the names in their header.
"""

from __future__ import annotations

import csv
import gzip
import re
import zlib
from collections.abc import Callable, Iterator, Sequence
from decimal import Decimal, localcontext
from pathlib import Path
from typing import IO
from urllib.parse import unquote

import msgspec

from collector.candles.aggregator import EXACT, Candle, Ticks
from collector.errors import LogError
from collector.events import Trade
from collector.feeds.continuity import merge_intervals
from collector.session.repair import Content, Found, Ids, holds
from collector.storage.csv_log import Released, symbol_folder
from collector.storage.segments import MAX_LINE_BYTES
from collector.streams import OHLCV, PRICES, Stream

_CHUNK_BYTES = 1 << 16  # its fields stay in the processor's cache: 0.4 µs a row against 0.95 at 2 MiB
_TAIL_BYTES = 1 << 18
DEFAULT_BATCH_ROWS = 20_000
"""The longest batch; most are of one chunk of the file, a few hundred rows."""

Row = list[str]


class Batch(msgspec.Struct, gc=False):
    """Rows of one segment, one after the other; ``first_line`` is the number of the first one's line (header: 1)."""

    path: Path
    first_line: int
    rows: list[Row]


def stream_folder(directory: Path, stream: Stream, symbol: str | None) -> Path:
    """Return the folder that holds a stream's files."""
    return directory / symbol_folder(symbol) if stream.per_symbol and symbol is not None else directory


def segments(directory: Path, stream: Stream, symbol: str | None = None) -> list[Path]:
    """Return the files of a stream that exist: closed segments by their first ``seq``, then the live one."""
    folder = stream_folder(directory, stream, symbol)
    stem = stream.file.removesuffix(".csv")
    pattern = re.compile(rf"{re.escape(stem)}\.(\d{{12,}})\.csv(\.gz)?")
    closed: dict[int, Path] = {}
    names = sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []
    for name in names:  # the plain file sorts before its compressed copy, and is the whole one of the two
        match = pattern.fullmatch(name)
        if match:
            closed.setdefault(int(match[1]), folder / name)
    live = folder / stream.file
    return [closed[seq] for seq in sorted(closed)] + ([live] if live.is_file() else [])


def symbols_in(directory: Path, stream: Stream) -> list[str]:
    """Return the symbols of a session that have files of a stream."""
    folders = sorted(path for path in directory.iterdir() if path.is_dir()) if directory.is_dir() else []
    return [symbol for symbol in (unquote(path.name) for path in folders) if segments(directory, stream, symbol)]


def read_batches(
    directory: Path,
    stream: Stream,
    symbol: str | None = None,
    *,
    until_seq: int | None = None,
    batch_rows: int = DEFAULT_BATCH_ROWS,
) -> Iterator[Batch]:
    """Read a stream's rows in file order, in constant memory; a missing stream gives nothing.

    Args:
        until_seq: the last row to read (a durable position of a running session); None reads to the end.

    Raises:
        LogError: a file cannot be read, is not of this stream, or has a line of another number of fields.
    """
    seq_index = stream.seq_index
    for path in segments(directory, stream, symbol):
        for batch in read_file(path, stream, batch_rows=batch_rows):
            if until_seq is not None and int(batch.rows[-1][seq_index] or 0) > until_seq:
                batch.rows = [row for row in batch.rows if int(row[seq_index] or 0) <= until_seq]
                if batch.rows:
                    yield batch
                return
            yield batch


def read_rows(
    directory: Path, stream: Stream, symbol: str | None = None, *, until_seq: int | None = None
) -> Iterator[Row]:
    """Read a stream's rows one by one; raises what ``read_batches`` raises."""
    for batch in read_batches(directory, stream, symbol, until_seq=until_seq):
        yield from batch.rows


def stream_in(directory: Path, stream: Stream, symbol: str | None = None) -> Stream:
    """Return a stream as its files have it: a book has the levels of the deepest of them; raises LogError as above."""
    if not stream.arrays:
        return stream
    headers = (_header_of(path) for path in segments(directory, stream, symbol))
    return max((stream.fitted(names) for names in headers if names), key=lambda found: found.levels, default=stream)


def _header_of(path: Path) -> list[str]:
    try:
        with open_segment(path) as file:
            line = file.readline(MAX_LINE_BYTES).decode()
    except (OSError, EOFError, UnicodeDecodeError, zlib.error) as error:
        raise LogError(f"{path} cannot be read: {error}.") from error
    return line.rstrip("\r\n").split(",") if line.endswith("\n") else []


def read_file(path: Path, stream: Stream, *, batch_rows: int = DEFAULT_BATCH_ROWS, offset: int = 0) -> Iterator[Batch]:
    """Read one segment, from the start of a line at ``offset`` on (lines then count from there).

    Raises:
        LogError: as ``read_batches``.
    """
    try:
        with open_segment(path) as file:
            header = file.readline(MAX_LINE_BYTES)
            if not header.endswith(b"\n"):
                return
            positions = _positions(path, header, stream)
            if offset > len(header):
                file.seek(offset)
            line = 2
            for rows in _split(path, _cut(file), len(header.split(b","))):
                for begin in range(0, len(rows), batch_rows):
                    part = rows[begin : begin + batch_rows]
                    yield Batch(path, line, part if positions is None else [_arrange(row, positions) for row in part])
                    line += len(part)
    except (OSError, EOFError, UnicodeDecodeError, csv.Error, zlib.error) as error:
        raise LogError(f"{path} cannot be read: {error}.") from error


def open_segment(path: Path) -> IO[bytes]:
    """Open a segment for reading bytes, compressed or not, or compressed since it was listed."""
    if path.suffix == ".gz":
        return gzip.open(path, "rb")  # type: ignore[return-value]
    try:
        return path.open("rb")
    except FileNotFoundError:
        packed = path.with_name(path.name + ".gz")
        if not packed.exists():
            raise
        return gzip.open(packed, "rb")  # type: ignore[return-value]


def _positions(path: Path, header: bytes, stream: Stream) -> list[int | None] | None:
    """Return where each of the stream's columns stands in the file; None where all stand as declared."""
    if header.decode() == stream.header:
        return None
    names = header.decode().rstrip("\r\n").split(",")
    if "seq" not in names or names[0] != stream.timestamp.name:
        raise LogError(
            f"{path} does not have the columns of {stream.name}.",
            hint="Older files are taken by `collector import PATH`.",
        )
    return [names.index(column.name) if column.name in names else None for column in stream.columns]


def _arrange(row: Row, positions: Sequence[int | None]) -> Row:
    """Put a row's fields in the stream's order; a column that the file lacks is empty."""
    return ["" if position is None else row[position] for position in positions]


def _cut(file: IO[bytes]) -> Iterator[bytes]:
    """Return a file's bytes in chunks that end with a newline; an unfinished last line is left out."""
    rest = b""
    while chunk := file.read(_CHUNK_BYTES):
        end = chunk.rfind(b"\n") + 1
        if end:
            yield rest + chunk[:end]
            rest = chunk[end:]
        elif len(rest) > MAX_LINE_BYTES:
            raise OSError(f"a line of more than {MAX_LINE_BYTES} bytes")
        else:
            rest += chunk


def _split(path: Path, chunks: Iterator[bytes], width: int) -> Iterator[list[Row]]:
    """Split chunks into fields; from the first quoted field on, the rest of the file goes through the csv module."""
    line = 2
    for chunk in chunks:
        if b'"' in chunk:
            yield from _split_quoted(path, chunk, chunks, width, line)
            return
        rows = [text.split(",") for text in chunk.decode().split("\n")]
        rows.pop()
        if set(map(len, rows)) != {width}:
            _refuse_width(path, rows, width, line)
        yield rows
        line += len(rows)


def _split_quoted(path: Path, chunk: bytes, chunks: Iterator[bytes], width: int, line: int) -> Iterator[list[Row]]:
    def lines() -> Iterator[str]:
        for part in (chunk, *chunks):
            yield from part.decode().splitlines(keepends=True)

    rows: list[Row] = []
    for row in csv.reader(lines(), strict=False):
        rows.append(row)
        if len(rows) == DEFAULT_BATCH_ROWS:
            _refuse_width(path, rows, width, line)
            yield rows
            line += len(rows)
            rows = []
    if rows:
        _refuse_width(path, rows, width, line)
        yield rows


def _refuse_width(path: Path, rows: Sequence[Row], width: int, first_line: int) -> None:
    for line, row in enumerate(rows, first_line):
        if len(row) != width:
            raise LogError(f"Line {line} of {path} has {len(row)} fields, its header {width}.")


# trades and candles out of rows


def to_trade(symbol: str, row: Sequence[str]) -> Trade:
    """Turn a row of ``prices.csv`` into the trade it stands for; raise ValueError where it is none."""
    return Trade(
        symbol,
        int(row[0]),
        row[1],
        row[2],
        row[4],  # type: ignore[arg-type]  # the log holds what the parser allowed
        row[5],
        int(row[7]) if row[7] else 0,
        row[8] or "ws",
        int(row[9]) if row[9] else None,
        int(row[10]) if row[10] else None,
    )


def to_ticks(symbol: str, rows: Sequence[Row]) -> Ticks:
    """Turn rows of ``prices.csv`` into what the aggregator folds; raise ValueError where one is no trade."""
    trades = [to_trade(symbol, row) for row in rows]
    with localcontext(EXACT):
        quotes = [Decimal(row[3]) if row[3] else Decimal(row[1]) * Decimal(row[2]) for row in rows]
    return Ticks(trades, [int(row[6]) for row in rows], quotes)


class CsvHistory:
    """One symbol's log as the candles' aggregator reads it back (``collector.candles.aggregator.History``).

    Reads from the end of the files backward, so that the cost is that of the time asked for, not of the session's age.

    Args:
        released: tells which trades were deleted from the log; None where all are there.
    """

    def __init__(self, directory: Path, symbol: str, *, released: Callable[[], Released | None] = lambda: None) -> None:
        self._directory = directory
        self._symbol = symbol
        self._released = released

    def whole_from_us(self) -> int:
        """Return the time from which on every trade is in the log: behind those that only QuestDB has any more."""
        released = self._released()
        return 0 if released is None else released.to_us + 1

    def first_timestamp_us(self) -> int | None:
        """Return the time of the first trade that was ever in the log; None where there is none."""
        released = self._released()
        if released is not None:
            return released.from_us
        batch = next(read_batches(self._directory, PRICES, self._symbol, batch_rows=1), None)
        return None if batch is None else int(batch.rows[0][0])

    def last_timestamp_us(self) -> int | None:
        """Return the time of the newest trade in the log; None where there is none."""
        newest: int | None = None
        for path in reversed(segments(self._directory, PRICES, self._symbol)):
            if path.suffix == ".gz":
                found = [newest] if newest is not None else []
                found += [int(row[0]) for batch in read_file(path, PRICES) for row in batch.rows]
                return max(found, default=None)
            for rows in _backward(path, PRICES):
                newest = max((int(row[0]) for row in rows), default=newest)
                if _witnesses(PRICES, rows):
                    return newest
        return newest

    def tail(self, from_us: int) -> Iterator[Ticks]:
        """Return, in file order, all trades at or after a time, those between them, and those shortly before them."""
        for rows in _rows_from(self._directory, PRICES, self._symbol, from_us):
            yield to_ticks(self._symbol, rows)

    def candles(self, from_us: int) -> Iterator[Candle]:
        """Return, in file order, all rows of buckets that start at or after a time, and others that stand near them."""
        for rows in _rows_from(self._directory, OHLCV, self._symbol, from_us):
            yield from map(Candle.from_row, rows)


def _witnesses(stream: Stream, rows: Sequence[Row]) -> list[int]:
    """Return the times of the rows that stand in the file in the order of their times, or nearly.

    Rows that a repair added are of any age, so they say nothing about what stands before them; neither do revisions,
    nor the candles of higher intervals, which are written when they end.
    """
    if stream is PRICES:
        return [int(row[0]) for row in rows if row[8] != "rest"]
    return [int(row[0]) for row in rows if row[1] == "1m" and row[14] == "ws" and row[15] == "0"]


def _rows_from(directory: Path, stream: Stream, symbol: str, from_us: int) -> Iterator[list[Row]]:
    """Return the rows from a stretch of only older ones on, which is searched backward, to the end."""
    begin: list[tuple[Path, int]] = []
    for path in reversed(segments(directory, stream, symbol)):
        offset, older = _search(path, stream, from_us)
        begin.append((path, offset))
        if older:
            break
    passing = True  # a compressed segment has no offsets: what only older rows stand in is passed over here
    for path, offset in reversed(begin):
        for batch in read_file(path, stream, offset=offset):
            passing = passing and path.suffix == ".gz" and all(int(row[0]) < from_us for row in batch.rows)
            if not passing:
                yield batch.rows


def _search(path: Path, stream: Stream, from_us: int) -> tuple[int, bool]:
    """Return the offset to read a segment from, and whether everything before it is older than the time."""
    if path.suffix == ".gz":
        first = next(read_file(path, stream), None)
        return 0, first is not None and _is_older(stream, first.rows, from_us)
    for rows, begin in _stretches(path, stream):
        if _is_older(stream, rows, from_us):
            return begin, True
    return 0, False


def _is_older(stream: Stream, rows: Sequence[Row], from_us: int) -> bool:
    """Say whether a stretch of rows, and so everything before it, is older than a time."""
    times = _witnesses(stream, rows)
    return bool(times) and max(times) < from_us and all(int(row[0]) < from_us for row in rows)


def _backward(path: Path, stream: Stream) -> Iterator[list[Row]]:
    for rows, _ in _stretches(path, stream):
        yield rows


def _stretches(path: Path, stream: Stream) -> Iterator[tuple[list[Row], int]]:
    """Return a plain segment's rows stretch by stretch from its end, each with its offset."""
    try:
        with path.open("rb") as file:
            header = file.readline()
            positions = _positions(path, header, stream) if header.endswith(b"\n") else None
            end, rest = _size(path), b""
            while end > len(header):
                begin = max(len(header), end - _TAIL_BYTES)
                file.seek(begin)
                content = file.read(end - begin) + rest
                cut = 0 if begin == len(header) else content.find(b"\n") + 1
                rest, content = content[:cut], content[cut : content.rfind(b"\n") + 1]
                rows = [line.split(",") for line in content.decode().split("\n")[:-1]]
                if rows:
                    yield rows if positions is None else [_arrange(row, positions) for row in rows], begin + cut
                end = begin
    except (OSError, UnicodeDecodeError) as error:
        raise LogError(f"{path} cannot be read: {error}.") from error


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError as error:
        raise LogError(f"{path} cannot be read: {error}.") from error


def look_up_trades(directory: Path, symbol: str, ids: Ids, span: tuple[int, int] | None) -> Found:
    """Say what a session's log has already of trades that are to be asked for.

    Args:
        ids: inclusive intervals of ids, in order.
        span: the exchange times between which they lie, where that is known; otherwise the whole log is read.

    Raises:
        LogError: a file cannot be read.
    """
    from_us, to_us = span if span is not None else (0, 0)
    present: list[tuple[int, int]] = []
    repaired: list[tuple[int, int]] = []
    between: dict[str, Content] = {}
    next_id: int | None = None
    for rows in _rows_from(directory, PRICES, symbol, from_us):
        for row in rows:
            at_us, trade_id = int(row[0]), row[5]
            number = int(trade_id) if trade_id.isdecimal() else None
            if not ids and from_us <= at_us <= to_us:
                between[trade_id] = at_us, Decimal(row[1]), Decimal(row[2]), row[4]
            elif not ids and number is not None and at_us > to_us:
                next_id = number if next_id is None else min(next_id, number)
            if ids and number is not None:
                first = int(row[9]) if row[9] and row[10] == trade_id else number
                if holds(ids, number) or holds(ids, first):
                    (repaired if row[8] == "rest" else present).append((min(first, number), number))
    return Found(merge_intervals(present), merge_intervals(repaired), between, next_id)
