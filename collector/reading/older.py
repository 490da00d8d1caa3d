"""Older CSV files turned into a session of ours, which the importer then replicates like any other.

Taken are: ``prices`` with four columns (``timestamp,price,volume,quote_volume``), order books whose sizes are called
``qty_1`` … on both sides, timestamps in seconds, milliseconds or microseconds. Digits stay as they are. What the files
do not say (side, ids, time of receipt) stays empty, and every candle made of them is ``partial``, because nobody knows
what is missing.
"""

from __future__ import annotations

import csv
import gzip
import re
import shutil
from collections.abc import Callable, Iterator, Mapping, Sequence
from decimal import Decimal, DecimalException
from pathlib import Path
from typing import TextIO

import msgspec

from collector.candles.aggregator import Aggregator, Candle
from collector.errors import LogError, ManifestError, UsageError
from collector.reading.csv_rows import CsvHistory, Row, to_ticks
from collector.session.manifest import FileRecord, Manifest, StateChange, hash_file, load_manifest, save_manifest
from collector.session.names import check_session_id, session_directory
from collector.storage.csv_log import CsvLog, StreamFile, Write
from collector.storage.files import Files
from collector.streams import OHLCV, ORDERBOOK, PRICES, Stream

_BATCH_ROWS = 10_000
_NEVER_FULL_US = 1 << 62
_GRACE_US = 2_000_000
_OLDEST_S = 10**8  # 1973 in seconds; from a thousand times more on, a number is taken for milliseconds, and so on
_LEVEL = re.compile(r"(?:(bid|ask)(?:_price)?_|(?:(bid|ask)_)?qty_)(\d+)")
_TIME_NAMES = ("timestamp", "time", "ts")
_SEPARATORS = str.maketrans({"/": "_", "-": "_"})


class OlderFile(msgspec.Struct, frozen=True):
    """A file that can be taken: what it holds, of which symbol, and where each of our columns stands in it."""

    path: Path
    stream: str
    symbol: str
    positions: Mapping[str, int]


class Conversion(msgspec.Struct, frozen=True):
    """What came of converting: the new session's directory, rows per file taken, and the files that were left."""

    directory: Path
    manifest: Manifest
    rows: dict[str, int]
    skipped: list[str]


def to_microseconds(text: str) -> int:
    """Turn a time in seconds (also with a fraction), milli-, micro- or nanoseconds into microseconds, by its size.

    Raises:
        ValueError: it is no time of this century.
    """
    try:
        value = Decimal(text)
    except DecimalException as error:
        raise ValueError(f"{text!r} is no time") from error
    if not value.is_finite() or not _OLDEST_S <= value < _OLDEST_S * 10**12:
        raise ValueError(f"{text!r} is no time of this century")
    exponent = 6 if value < _OLDEST_S * 10**3 else 3 if value < _OLDEST_S * 10**6 else 0
    return int(value.scaleb(exponent)) if value < _OLDEST_S * 10**9 else int(value) // 1000


def find_older(source: Path, *, symbol: str | None = None) -> tuple[list[OlderFile], list[Path]]:
    """Return the files that can be taken, and the other CSV files there.

    Args:
        source: a file, a folder of files, or a folder of folders that are named after their symbols.
        symbol: what the files are of, where no folder says it.

    Raises:
        UsageError: there is nothing that can be taken.
        LogError: a file cannot be read.
    """
    paths = (
        [source] if source.is_file() else sorted(p for p in source.rglob("*") if p.name.endswith((".csv", ".csv.gz")))
    )
    taken: list[OlderFile] = []
    left: list[Path] = []
    for path in paths:
        found = _recognise(path, symbol or _symbol_of(path))
        if found is None:
            left.append(path)
        else:
            taken.append(found)
    if not taken:
        raise UsageError(
            f"There is nothing to import in {source}.",
            hint="Give a file or a folder with prices.csv (timestamp,price,volume,quote_volume) or orderbook.csv.",
        )
    return taken, left


def convert_older(
    source: Path,
    data_dir: Path,
    *,
    files: Files,
    now_us: int,
    session_id: str | None = None,
    exchange: str = "imported",
    symbol: str | None = None,
    progress: Callable[[str, int], None] | None = None,
) -> Conversion:
    """Make a session of older files; converting the same folder again gives the session that is there already.

    The session appears whole or not at all: it is written beside the others, and renamed when it is complete.

    Args:
        session_id: the new session's; by default ``imported-`` and the name of what is imported.

    Raises:
        UsageError: there is nothing that can be taken, or the id is none.
        LogError: a file cannot be read or written, or a line is not what its header says.
    """
    chosen = check_session_id(session_id or _default_id(source))
    directory = session_directory(data_dir, chosen)
    taken, left = find_older(source, symbol=symbol)
    skipped = [str(path) for path in left]
    if directory.exists():
        return Conversion(directory, _existing(directory), {}, skipped)
    draft = data_dir / f".importing_{chosen}"
    if draft.exists():
        shutil.rmtree(draft)
    _make(files, draft)
    try:
        log = CsvLog(draft, files=files)
        rows = _Writer(log, progress or (lambda *_: None)).write(taken)
        log.sync()
        log.close()
        manifest = _manifest(chosen, exchange, taken, now_us, source)
        manifest.files = [_record(draft, file) for file in log.streams.values()]
        manifest.written = manifest.received = sum(rows.values())
        save_manifest(draft, manifest, files)
        files.rename(draft, directory)
    except OSError as error:
        raise LogError(f"{draft} could not be written: {error.strerror or error}.") from error
    return Conversion(directory, manifest, rows, skipped)


def _default_id(source: Path) -> str:
    name = source.resolve().name.split(".")[0].removeprefix("session_")
    return ("imported-" + re.sub(r"[^A-Za-z0-9_-]", "-", name))[:64]


def _existing(directory: Path) -> Manifest:
    try:
        return load_manifest(directory)
    except ManifestError as error:
        raise UsageError(f"{directory} exists, and is no session.", hint="Give another id with --id.") from error


def _make(files: Files, directory: Path) -> None:
    try:
        files.make_folder(directory)
    except OSError as error:
        raise LogError(f"{directory} could not be made: {error.strerror or error}.") from error


def _manifest(session_id: str, exchange: str, taken: Sequence[OlderFile], now_us: int, source: Path) -> Manifest:
    return Manifest(
        session_id,
        exchange,
        sorted({file.symbol for file in taken}),
        sorted({file.stream for file in taken}, reverse=True),
        created_us=now_us,
        label=f"imported from {source.resolve().name}",
        state="completed",
        reason="imported",
        started_us=now_us,
        ended_us=now_us,
        history=[StateChange("completed", now_us, "imported")],
    )


def _record(directory: Path, file: StreamFile) -> FileRecord:
    record = FileRecord(file.stream.name, file.symbol, str(file.path.relative_to(directory)))
    record.rows, record.bytes, record.next_seq = file.rows, file.size, file.next_seq
    record.hashes = {file.path.name: hash_file(file.path)}
    return record


# what a file is


def _symbol_of(path: Path) -> str:
    """Return the symbol that a file's folder is named after; where it is named after a session, the file's own name."""
    folder = path.resolve().parent.name
    name = path.name.split(".")[0]
    stems = (PRICES.name, ORDERBOOK.name)
    return (folder if name in stems or name.startswith(stems) else name).upper().translate(_SEPARATORS)


def _recognise(path: Path, symbol: str) -> OlderFile | None:
    """Tell from a file's header what it holds; None where it is nothing that can be taken."""
    with _open(path) as file:
        header = [name.strip().lower() for name in next(csv.reader(file), [])]
    if not header or header[0] not in _TIME_NAMES or "interval" in header:
        return None
    if "price" in header and "volume" in header:
        positions = {c.name: header.index(c.name) for c in PRICES.columns if c.name in header} | {"timestamp": 0}
        return OlderFile(path, PRICES.name, symbol, positions)
    positions = _levels(header)
    return OlderFile(path, ORDERBOOK.name, symbol, {"timestamp": 0, **positions}) if "bid_1" in positions else None


def _levels(header: Sequence[str]) -> dict[str, int]:
    """Find the book's columns: a ``qty_n`` belongs to the price just before it.

    Where none stands there, the first ``qty_n`` is the bid's and the next the ask's; one alone is of both sides.
    """
    found: dict[str, int] = {}
    loose: dict[str, list[int]] = {}
    for position, name in enumerate(header):
        match = _LEVEL.fullmatch(name)
        if match is None:
            continue
        price_side, size_side, level = match.groups()
        before = _LEVEL.fullmatch(header[position - 1]) if position else None
        if price_side:
            found[f"{price_side}_{level}"] = position
        elif size_side:
            found[f"{size_side}_qty_{level}"] = position
        elif before is not None and before[1] and before[3] == level:
            found[f"{before[1]}_qty_{level}"] = position
        else:
            loose.setdefault(level, []).append(position)
    for level, positions in loose.items():
        found.setdefault(f"bid_qty_{level}", positions[0])
        found.setdefault(f"ask_qty_{level}", positions[-1])
    return found


def _open(path: Path) -> TextIO:
    try:
        if path.suffix == ".gz":
            return gzip.open(path, "rt", encoding="utf-8", newline="")
        return path.open(encoding="utf-8-sig", newline="")
    except OSError as error:
        raise LogError(f"{path} cannot be read: {error.strerror or error}.") from error


# writing the session


class _Writer:
    """Write what was recognised into a log, and the candles of its trades."""

    def __init__(self, log: CsvLog, progress: Callable[[str, int], None]) -> None:
        self._log = log
        self._progress = progress
        self._aggregators: dict[str, Aggregator] = {}
        self._newest_us: dict[str, int] = {}

    def write(self, taken: Sequence[OlderFile]) -> dict[str, int]:
        """Write all files; return how many rows each gave."""
        counts: dict[str, int] = {}
        for file in taken:
            stream = PRICES if file.stream == PRICES.name else ORDERBOOK
            counts[str(file.path)] = 0
            for rows in _converted(file, stream):
                self._append(stream, file.symbol, rows)
                counts[str(file.path)] += len(rows)
                self._progress(file.path.name, counts[str(file.path)])
        for symbol, aggregator in self._aggregators.items():
            self._append_candles(symbol, aggregator.finish(lambda *_: False))
        return counts

    def _append(self, stream: Stream, symbol: str, rows: list[Row]) -> None:
        target = self._log.open(stream, symbol)
        for seq, row in enumerate(rows, target.next_seq):
            row[stream.seq_index] = str(seq)
        self._write(target, [",".join(row) + "\n" for row in rows])
        if stream is PRICES:
            self._fold(symbol, rows)

    def _fold(self, symbol: str, rows: Sequence[Row]) -> None:
        aggregator = self._aggregators.get(symbol)
        if aggregator is None:
            history = CsvHistory(self._log.directory, symbol)
            aggregator = Aggregator(symbol, grace_us=_GRACE_US, started_us=_NEVER_FULL_US, history=history)
            self._aggregators[symbol] = aggregator
        ticks = to_ticks(symbol, rows)
        aggregator.fold(ticks.trades, ticks.seqs, ticks.quotes)
        newest = max(self._newest_us.get(symbol, 0), *(trade.timestamp_us for trade in ticks.trades))
        self._newest_us[symbol] = newest
        self._append_candles(symbol, aggregator.close_due(newest, lambda *_: False))

    def _append_candles(self, symbol: str, candles: Sequence[Candle]) -> None:
        if candles:
            target = self._log.open(OHLCV, symbol)
            self._write(target, [candle.line(seq) for seq, candle in enumerate(candles, target.next_seq)])

    def _write(self, target: StreamFile, lines: Sequence[str]) -> None:
        self._log.append([Write(target, "".join(lines).encode(), len(lines))])


def _converted(file: OlderFile, stream: Stream) -> Iterator[list[Row]]:
    """Return a file's rows in our columns, in batches; ``seq`` is still empty."""
    sources = [file.positions.get(column.name) for column in stream.columns]
    sources[stream.seq_index] = None
    batch: list[Row] = []
    line = 1
    try:
        with _open(file.path) as text:
            reader = csv.reader(text)
            width = len(next(reader, []))
            for fields in reader:
                line = reader.line_num
                if fields:
                    batch.append(_convert_row(fields, width, sources, stream))
                if len(batch) == _BATCH_ROWS:
                    yield batch
                    batch = []
    except (ValueError, DecimalException, csv.Error) as error:
        raise LogError(f"Line {line} of {file.path} cannot be taken: {error}.") from error
    except (OSError, EOFError) as error:
        raise LogError(f"{file.path} cannot be read: {error}.") from error
    if batch:
        yield batch


def _convert_row(fields: Sequence[str], width: int, sources: Sequence[int | None], stream: Stream) -> Row:
    if len(fields) != width:
        raise ValueError(f"{len(fields)} fields, the header has {width}")
    row = ["" if source is None else fields[source].strip() for source in sources]
    row[0] = str(to_microseconds(row[0]))
    if stream is PRICES and not (Decimal(row[1]).is_finite() and Decimal(row[2]).is_finite()):
        raise ValueError(f"{row[1]!r} or {row[2]!r} is no number")
    return row
