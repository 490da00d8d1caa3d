"""Export a session: to Parquet, CSV, Arrow, hftbacktest's arrays or nautilus_trader's catalogue, by symbol and day."""

from __future__ import annotations

import itertools
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec

from collector.errors import UsageError
from collector.reading.arrow import Table, extra
from collector.reading.export.hftbacktest import BookFromRaw, BookFromRows, Event, EventArrays
from collector.reading.export.nautilus import Catalog, decimals_of, write_catalog
from collector.reading.export.partitions import ExportFolder, put_in_place
from collector.reading.export.raw_books import RAW_FILE, BookEvent, has_raw_books, read_book_events
from collector.reading.export.tables import DAY_US, day_name, day_pieces, write_days, write_whole
from collector.reading.rows import Rows
from collector.reading.session_reader import SessionReader
from collector.session.manifest import MANIFEST_FILE
from collector.session.states import FINAL
from collector.storage.csv_log import symbol_folder
from collector.streams import GAPS, ORDERBOOK, PRICES, STREAMS

Form = Literal["parquet", "csv", "arrow", "hftbacktest", "nautilus"]
FORMS: tuple[Form, ...] = ("parquet", "csv", "arrow", "hftbacktest", "nautilus")

Progress = Callable[[str, int], None]
"""Told what is being written, and how many more rows of it were."""

Days = Iterator[tuple[int, Table]]


@dataclass(frozen=True, slots=True)
class Wanted:
    """What is to be exported; None means all. Times are microseconds; ``to_us`` is excluded."""

    form: Form
    symbols: tuple[str, ...] | None = None
    streams: tuple[str, ...] | None = None
    from_us: int | None = None
    to_us: int | None = None


class Report(msgspec.Struct, frozen=True):
    """What an export did. ``resumed`` partitions of an earlier run were left as they are."""

    session_id: str
    output: str
    format: str
    source: str
    partitions: int
    resumed: int
    rows: int
    bytes: int
    notes: dict[str, Any]


def export_session(session: SessionReader, wanted: Wanted, output: Path, progress: Progress) -> Report:
    """Write a session, or a part of it, into a folder; what an earlier run of the same export had done stays.

    Raises:
        UsageError: the folder has something else in it, or the session still runs.
        UnknownName: the session has no such symbol or stream.
        MissingExtra: the format's library is not installed.
        CollectorError: what reading the session raises.
    """
    if session.manifest.state not in FINAL:
        raise UsageError(
            f"Session {session.session_id} is {session.manifest.state}: it has no end yet.",
            hint="Stop it first, or read what there is with collector.open_session.",
        )
    task = _Export(session, wanted, ExportFolder(output, _asked(session, wanted)), progress)
    return task.run()


def _asked(session: SessionReader, wanted: Wanted) -> dict[str, Any]:
    rows = {f"{file.stream} {file.symbol or ''}".strip(): file.rows for file in session.manifest.files}
    return {
        "session_id": session.session_id,
        "format": wanted.form,
        "symbols": wanted.symbols,
        "streams": wanted.streams,
        "from_us": wanted.from_us,
        "to_us": wanted.to_us,
        "rows": rows,
    }


class _Export:
    """One run of an export."""

    def __init__(self, session: SessionReader, wanted: Wanted, folder: ExportFolder, progress: Progress) -> None:
        self._session = session
        self._wanted = wanted
        self._folder = folder
        self._progress = progress
        self._symbols = list(wanted.symbols) if wanted.symbols is not None else session.symbols
        self._sources: set[str] = set()

    def run(self) -> Report:
        self._session.prices(self._symbols, columns=["seq"])  # refuses a symbol that it does not have
        self._folder.save()
        if self._wanted.form == "hftbacktest":
            self._write_arrays()
        elif self._wanted.form == "nautilus":
            self._write_catalog()
        else:
            self._write_tables()
        self._write_manifest()
        index = self._folder.index
        index.source = index.source if not self._sources else "+".join(sorted(self._sources))
        self._folder.finish()
        return Report(
            self._session.session_id,
            str(self._folder.path),
            self._wanted.form,
            index.source,
            len(index.partitions),
            self._folder.resumed,
            sum(partition.rows for partition in index.partitions),
            sum(partition.bytes for partition in index.partitions),
            index.notes,
        )

    def _write_manifest(self) -> None:
        if self._folder.done(MANIFEST_FILE):
            return
        with self._folder.writing(MANIFEST_FILE) as path:
            path.write_bytes(msgspec.json.format(msgspec.json.encode(self._session.manifest), indent=2) + b"\n")
        self._folder.add(MANIFEST_FILE, MANIFEST_FILE, 0, 0)

    def _rows(self, stream: str, symbol: str, group: str) -> Rows:
        """Return the rows of the days that are not done yet; days are done in their order."""
        done = self._folder.done(group)
        start = max([day + DAY_US for day in done], default=self._wanted.from_us)
        if self._wanted.from_us is not None and start is not None:
            start = max(start, self._wanted.from_us)
        exact = self._wanted.form == "csv" and self._has_digits(stream, symbol)
        rows = self._session.stream(stream, symbol, start, self._wanted.to_us, exact=exact)
        self._sources.add(rows.source)
        return rows

    def _has_digits(self, stream: str, symbol: str) -> bool:
        record = self._session.manifest.record(stream, symbol)
        return self._session.directory is not None and (record is None or record.released is None)

    def _tell(self, what: str) -> Callable[[int], None]:
        return lambda rows: self._progress(what, rows)

    # Tables

    def _write_tables(self) -> None:
        names = self._wanted.streams if self._wanted.streams is not None else tuple(STREAMS)
        for name in names:
            self._session.stream(name)  # refuses one that there is not
        for name in (name for name in names if STREAMS[name].per_symbol):
            for symbol in self._symbols:
                group = f"{name}/{symbol_folder(symbol)}"
                rows = self._rows(name, symbol, group)
                write_days(self._folder, rows, group, group, self._wanted.form, self._tell(f"{name} {symbol}"))
        if GAPS.name in names and not self._folder.done(GAPS.name):
            table = self._session.gaps(self._wanted.from_us, self._wanted.to_us).table()
            write_whole(self._folder, table, f"{GAPS.name}.{self._wanted.form}", GAPS.name, self._wanted.form)

    # hftbacktest

    def _write_arrays(self) -> None:
        extra("hftbacktest")
        shift_ns = self._local_shift_ns()
        followed: dict[str, str] = {}
        self._folder.index.notes |= {"book": followed, "local_shift_ns": shift_ns}
        for symbol in self._symbols:
            arrays = EventArrays(shift_ns)
            group = symbol_folder(symbol)
            trades = _whole_days(day_pieces(self._rows(PRICES.name, symbol, group)))
            books = self._raw_days(symbol, arrays)
            first = next(books, None)
            followed[symbol] = RAW_FILE if first is not None else ORDERBOOK.name
            books = itertools.chain([first], books) if first else self._row_days(symbol, group, arrays)
            for day_us, day_trades, events in _side_by_side(trades, books):
                if day_us in self._folder.done(group) or not self._in_days(day_us):
                    continue
                file = f"{group}/{day_name(day_us)}.npz"
                with self._folder.writing(file) as path:
                    count = arrays.write(path, day_trades, events or [])
                self._folder.add(file, group, day_us, count)
                self._progress(f"hftbacktest {symbol}", count)

    def _in_days(self, day_us: int) -> bool:
        """Say whether a day overlaps the bounds."""
        after = self._wanted.from_us is None or day_us + DAY_US > self._wanted.from_us
        return after and (self._wanted.to_us is None or day_us < self._wanted.to_us)

    def _local_shift_ns(self) -> int:
        """Return by how much our clock was behind the exchange's at least, over the whole session, in nanoseconds."""
        pc = extra("pyarrow.compute")
        least = 0
        for stream, columns in (
            (PRICES, ["timestamp", "received_at", "source"]),
            (ORDERBOOK, ["timestamp", "received_at"]),
        ):
            for batch in self._session.stream(stream.name, self._symbols, columns=columns).batches():
                received = batch["received_at"].cast("int64")
                keep = pc.greater(received, 0)
                if stream is PRICES:
                    keep = pc.and_(keep, pc.not_equal(pc.fill_null(batch["source"], ""), "rest"))
                found = pc.min(pc.subtract(received, batch["timestamp"].cast("int64")).filter(keep)).as_py()
                least = min(least, found if found is not None else 0)
        return -least * 1000

    def _row_days(self, symbol: str, group: str, arrays: EventArrays) -> Iterator[tuple[int, list[Event]]]:
        rows = self._rows(ORDERBOOK.name, symbol, group)
        book = BookFromRows(arrays, self._session.manifest.book_levels)
        for day_us, table in _whole_days(day_pieces(rows)):
            yield day_us, list(book.events(table))

    def _raw_days(self, symbol: str, arrays: EventArrays) -> Iterator[tuple[int, list[Event]]]:
        if self._session.directory is None or not has_raw_books(self._session.directory):
            return
        book = BookFromRaw(arrays)
        path = self._session.directory / RAW_FILE
        found = _timed(event for _, event in read_book_events(path, self._session.manifest.exchange, [symbol]))
        for day_us, group in itertools.groupby(found, key=_day_of):
            events: list[Event] = []
            for number, one in enumerate(group):
                made = list(book.events(number == 0, one))
                events += [event for event in made if self._in_bounds(event[1] // 1000)]
            yield day_us, events

    def _in_bounds(self, time_us: int) -> bool:
        after = self._wanted.from_us is None or time_us >= self._wanted.from_us
        return after and (self._wanted.to_us is None or time_us < self._wanted.to_us)

    # nautilus_trader

    def _write_catalog(self) -> None:
        extra("nautilus_trader")
        for symbol in self._symbols:
            catalog = Catalog(self._session.manifest.exchange, symbol, self._decimals(symbol))
            if not self._folder.done(f"instrument/{symbol}"):
                self._write_ticks([catalog.instrument()], f"instrument/{symbol}", 0)
            for stream, make in ((PRICES, catalog.trades), (ORDERBOOK, catalog.quotes)):
                group = f"{stream.name}/{symbol}"
                for day_us, table in _whole_days(day_pieces(self._rows(stream.name, symbol, group))):
                    ticks = make(table)
                    if ticks:
                        self._write_ticks(ticks, group, day_us)
                    self._progress(f"{stream.name} {symbol}", table.num_rows)

    def _write_ticks(self, ticks: list[Any], group: str, day_us: int) -> None:
        """Have the library write a day beside the export, and put its one file in its place."""
        with tempfile.TemporaryDirectory(dir=self._folder.path) as temporary:
            for file in write_catalog(Path(temporary), ticks):
                name = str(file.relative_to(temporary))
                place = self._folder.path / name
                place.parent.mkdir(parents=True, exist_ok=True)
                moved = place.with_name(place.name + ".tmp")
                shutil.move(file, moved)
                put_in_place(moved, place)
                self._folder.add(name, group, day_us, len(ticks))

    def _decimals(self, symbol: str) -> tuple[int, int]:
        """Return how many decimals prices and sizes have, over the whole session."""
        price = size = 0
        for stream, prices, sizes in (
            (PRICES.name, ["price"], ["volume"]),
            (ORDERBOOK.name, ["bid_price_1", "ask_price_1"], ["bid_qty_1", "ask_qty_1"]),
        ):
            for batch in self._session.stream(stream, symbol, columns=[*prices, *sizes]).batches():
                for name in prices:
                    price = decimals_of(batch[name].to_numpy(zero_copy_only=False), price)
                for name in sizes:
                    size = decimals_of(batch[name].to_numpy(zero_copy_only=False), size)
        return price, size


def _timed(events: Iterable[BookEvent]) -> Iterator[BookEvent]:
    """Give snapshots that have no time the exchange's time of the first change that follows them, as the rows do."""
    waiting: list[BookEvent] = []
    for event, received_ns in events:
        if not event.timestamp_us:
            waiting.append((event, received_ns))
            continue
        for one, one_received_ns in waiting:
            yield msgspec.structs.replace(one, timestamp_us=event.timestamp_us), one_received_ns
        waiting.clear()
        yield event, received_ns
    # Nothing followed, so nothing tells when it was but our own clock.
    yield from waiting


def _day_of(found: BookEvent) -> int:
    event, received_ns = found
    return (event.timestamp_us or received_ns // 1000) // DAY_US * DAY_US


def _whole_days(pieces: Days) -> Days:
    """Return each day's pieces as one table."""
    for day_us, group in itertools.groupby(pieces, key=lambda piece: piece[0]):
        yield day_us, extra("pyarrow").concat_tables([table for _, table in group])


def _side_by_side(
    trades: Days, books: Iterator[tuple[int, list[Event]]]
) -> Iterator[tuple[int, Table | None, list[Event] | None]]:
    """Return days with what there is of each."""
    trade, book = next(trades, None), next(books, None)
    while trade is not None or book is not None:
        day_us = min(found[0] for found in (trade, book) if found is not None)
        yield (
            day_us,
            trade[1] if trade is not None and trade[0] == day_us else None,
            book[1] if book is not None and book[0] == day_us else None,
        )
        trade = next(trades, None) if trade is not None and trade[0] == day_us else trade
        book = next(books, None) if book is not None and book[0] == day_us else book


__all__: Sequence[str] = ("FORMS", "Form", "Report", "Wanted", "export_session")
