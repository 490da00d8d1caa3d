"""Fetch a session's rows from where a plan says they are, and bring them into one order, whatever the store."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from collector.candles.intervals import INTERVALS
from collector.config import QuestDB
from collector.errors import DatabaseMisconfigured, DatabaseUnavailable, InstallError
from collector.reading.arrow import Schema, Table, extra, result_columns, schema_of
from collector.reading.csv_arrow import CsvBlocks
from collector.reading.holdings import Plan, source_of
from collector.reading.rows import Source
from collector.reading.table_arrow import ResearchReader, Selection, read_portions
from collector.reading.tick_candles import COLUMNS, candle_schema, candle_table, fold, sample
from collector.reading.time_order import in_time_order, least_times
from collector.streams import PRICES, Column, Stream

DATABASE_ERRORS = (DatabaseUnavailable, DatabaseMisconfigured, InstallError)

Span = tuple[int | None, int | None]
"""From a time (included) to a time (excluded), in microseconds; None is no bound."""


@dataclass(frozen=True, slots=True)
class Where:
    """Where a session's rows are: its directory (None: only in QuestDB), and how to ask QuestDB."""

    session_id: str
    directory: Path | None
    settings: Callable[[], QuestDB]


class _Part(Protocol):
    """Rows of one symbol in one store, as blocks in the order of ``seq`` or of time; can be gone through twice."""

    def tables(self, columns: Sequence[Column]) -> Iterator[Table]: ...

    def least(self) -> list[int]: ...

    def close(self) -> None: ...


class _Fetching:
    """What any reading does with its plans: one after the other, and the CSV instead where QuestDB fails."""

    _schema: Schema

    def _of_symbol(self, plan: Plan, *, bounded: bool) -> Iterator[Table]:
        raise NotImplementedError

    def whole(
        self, plans: Sequence[Plan], source: Source, alternative: Callable[[], list[Plan]] | None = None
    ) -> tuple[Table, Source]:
        """Return everything at once, and where it came from.

        Args:
            alternative: how to read the CSV instead, where QuestDB fails meanwhile; None: it alone has the rows.
        """
        try:
            return self._collect(plans), source
        except DATABASE_ERRORS as error:
            if alternative is None:
                raise
            others = alternative()
            return self._collect(others), source_of(others, error.message.rstrip("."))

    def pieces(self, plans: Sequence[Plan]) -> Iterator[Table]:
        """Return the rows in their order, in tables of bounded size (candles and gaps: in one)."""
        for plan in plans:
            yield from self._of_symbol(plan, bounded=True)

    def _collect(self, plans: Sequence[Plan]) -> Table:
        tables = [table for plan in plans for table in self._of_symbol(plan, bounded=False)]
        return extra("pyarrow").concat_tables(tables) if tables else self._schema.empty_table()


class Task(_Fetching):
    """One reading: which columns of which rows.

    Args:
        columns: what is returned; what ordering needs beside is read, too.
        span: which times.
        interval: of candles, only these; None: all.
    """

    def __init__(
        self,
        where: Where,
        stream: Stream,
        columns: Sequence[Column],
        span: Span = (None, None),
        *,
        exact: bool = False,
        interval: str | None = None,
    ) -> None:
        self._where = where
        self._stream = stream
        self._span = span
        self._exact = exact
        self._interval = interval
        self._schema = schema_of(columns, exact=exact)
        needed = [column for column in result_columns(stream) if self._is_needed(column)]
        self._read = [*needed, *(column for column in columns if column not in needed)]

    def _is_needed(self, column: Column) -> bool:
        if column is self._stream.timestamp:
            return True
        return self._stream.keyed and (column.in_database in self._stream.keys or column.name == "seq")

    def _of_symbol(self, plan: Plan, *, bounded: bool) -> Iterator[Table]:
        with contextlib.ExitStack() as stack:
            parts = self._parts(plan)
            for part in parts:
                stack.callback(part.close)
            tables = (table for part in parts for table in part.tables(self._read))
            if self._stream.keyed:
                ordered = iter(self._last_revisions(list(tables)))
            elif bounded:
                ordered = in_time_order(tables, [time for part in parts for time in part.least()])
            else:
                loaded = [self._in_span(table) for table in tables]
                ordered = in_time_order(loaded, least_times(loaded))
            for table in ordered:
                found = self._in_span(table).select(self._schema.names)
                if found.num_rows:
                    yield found

    def _parts(self, plan: Plan) -> list[_Part]:
        parts: list[_Part] = []
        if plan.name != "csv":
            until = plan.released_seq if plan.name == "both" else None
            selection = Selection(self._stream, self._where.session_id, plan.symbol, *self._span, until)
            if self._stream.keyed:  # the last revision decides, so the bounds of time come afterwards
                selection = Selection(self._stream, self._where.session_id, plan.symbol)
            parts.append(_TablePart(self._where.settings(), selection))
        if plan.name != "questdb" and self._where.directory is not None:
            parts.append(_CsvPart(self._where.directory, self._stream, plan, exact=self._exact))
        return parts

    def _in_span(self, table: Table) -> Table:
        """Leave out what is outside of the bounds."""
        pa, pc = extra("pyarrow"), extra("pyarrow.compute")
        for bound, keeps in ((self._span[0], pc.greater_equal), (self._span[1], pc.less)):
            if bound is not None:
                table = table.filter(keeps(table.column(0), pa.scalar(bound, pa.timestamp("us", tz="UTC"))))
        return table

    def _last_revisions(self, tables: list[Table]) -> list[Table]:
        """Return, of each key, its last row: by time, then by the interval's length, then by ``seq``."""
        pa, pc, numpy = extra("pyarrow"), extra("pyarrow.compute"), extra("numpy")
        if not tables:
            return []
        joined = pa.concat_tables(tables)
        if self._interval is not None:
            joined = joined.filter(pc.equal(joined["interval"], self._interval))
        keys = [name for name in joined.schema.names if name in self._stream.keys]
        numbered = joined.select(keys).append_column("row", pa.array(numpy.arange(joined.num_rows)))
        last = numbered.group_by(keys, use_threads=False).aggregate([("row", "max")])["row_max"]
        found = joined.take(last)
        seqs, times = (found.column(name).cast("int64").to_numpy() for name in ("seq", keys[0]))
        lengths = numpy.zeros(found.num_rows, dtype="int64")
        if "interval" in found.schema.names:
            lengths = numpy.array([INTERVALS.get(name, 0) for name in found["interval"].to_pylist()], dtype="int64")
        return [found.take(pa.array(numpy.lexsort((seqs, lengths, times))))]


class CandleTask(_Fetching):
    """Candles made of trades: by QuestDB where it has them all, folded otherwise."""

    def __init__(self, where: Where, span: Span, interval: str, length_us: int) -> None:
        self._where = where
        self._span = span
        self._interval = interval
        self._length_us = length_us
        self._schema = candle_schema()
        self._trades = Task(where, PRICES, COLUMNS, span)

    def _of_symbol(self, plan: Plan, *, bounded: bool) -> Iterator[Table]:  # noqa: ARG002  a candle is small
        symbol = plan.symbol or ""
        if plan.name == "questdb":
            selection = Selection(PRICES, self._where.session_id, symbol, *self._span)
            with ResearchReader(self._where.settings()) as reader:
                buckets = list(sample(reader, selection, self._length_us))
        else:
            buckets = list(fold(self._trades.pieces([plan]), self._length_us))
        yield candle_table(buckets, symbol, self._interval)


class _CsvPart:
    """One symbol's rows in the CSV, behind those that were released."""

    def __init__(self, directory: Path, stream: Stream, plan: Plan, *, exact: bool) -> None:
        self._stream = stream
        self._exact = exact
        self._blocks = CsvBlocks(directory, stream, plan.symbol, after_seq=plan.released_seq)

    def tables(self, columns: Sequence[Column]) -> Iterator[Table]:
        return self._blocks.tables(columns, exact=self._exact)

    def least(self) -> list[int]:
        return least_times(self._blocks.tables([self._stream.timestamp]))

    def close(self) -> None:
        self._blocks.close()


class _TablePart:
    """One symbol's rows in QuestDB."""

    def __init__(self, settings: QuestDB, selection: Selection) -> None:
        self._settings = settings
        with ResearchReader(settings) as reader:
            self._portions = reader.portions(selection)

    def tables(self, columns: Sequence[Column]) -> Iterator[Table]:
        return read_portions(self._settings, self._portions, columns)

    def least(self) -> list[int]:
        return [portion.from_us or 0 for portion, _ in self._portions]

    def close(self) -> None:
        """Nothing is held."""
