"""What reading gives: rows that are fetched when they are wanted, as Arrow, polars or pandas, or batch by batch."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Literal

from collector.errors import UsageError
from collector.reading.arrow import Schema, Table, extra, to_pandas

SourceName = Literal["questdb", "csv", "both"]

DEFAULT_BATCH_ROWS = 100_000


@dataclass(frozen=True, slots=True)
class Source:
    """Where rows come from, and why from there; ``both`` where the CSV has given rows up that QuestDB has."""

    name: SourceName
    why: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True, slots=True)
class Reader:
    """How rows are fetched: all at once, or as an iterator of tables that hold little each."""

    whole: Callable[[], tuple[Table, Source]]
    pieces: Callable[[], Iterator[Table]]


class Rows:
    """Rows of a session, in one form or another; nothing is read before it is asked for.

    Attributes:
        schema: the Arrow schema. Timestamps are microseconds UTC; prices are in quote currency, sizes in base currency
            (contracts where the exchange trades in contracts), both float64 unless the digits were asked for.
    """

    def __init__(self, schema: Schema, source: Source, reader: Reader) -> None:
        self.schema = schema
        self._source = source
        self._reader = reader
        self._table: Table | None = None

    def __repr__(self) -> str:
        return f"Rows({', '.join(self.schema.names)}; from {self.source})"

    def __len__(self) -> int:
        return int(self.table().num_rows)

    def __arrow_c_stream__(self, requested_schema: object | None = None) -> object:
        """Give the rows to any library that takes Arrow streams, batch by batch."""
        pa = extra("pyarrow")
        reader = pa.RecordBatchReader.from_batches(self.schema, self.batches())
        return reader.__arrow_c_stream__(requested_schema)

    @property
    def source(self) -> SourceName:
        """Return ``questdb``, ``csv`` or ``both``."""
        return self._source.name

    @property
    def why(self) -> str:
        """Return why the rows come from there, in words."""
        return self._source.why

    def table(self) -> Table:
        """Return the rows as ``pyarrow.Table``; the second call gives the same one.

        Raises:
            LogError: a file cannot be read.
            DatabaseUnavailable, DatabaseMisconfigured: QuestDB has rows that the CSV lacks, and cannot be asked.
        """
        if self._table is None:
            self._table, self._source = self._reader.whole()
        return self._table

    def polars(self) -> Any:
        """Return the rows as ``polars.DataFrame``; raises what ``table`` raises."""
        return extra("polars").from_arrow(self.table())

    def pandas(self) -> Any:
        """Return the rows as ``pandas.DataFrame``; raises what ``table`` raises.

        Integers are ``Int64`` (whole even where some are missing), text is ``string[pyarrow]``.
        """
        return to_pandas(self.table())

    def batches(self, size: int = DEFAULT_BATCH_ROWS) -> Iterator[Any]:
        """Return the rows as ``pyarrow.RecordBatch``, in memory that does not grow with their number.

        Args:
            size: how many rows a batch has; only the last one has fewer.
        """
        if size < 1:
            raise UsageError("A batch has at least one row.")
        return self._batches(size)

    def _batches(self, size: int) -> Iterator[Any]:
        pa = extra("pyarrow")
        waiting: list[Table] = []
        count = 0
        for piece in self._reader.pieces():
            waiting.append(piece)
            count += piece.num_rows
            while count >= size:
                joined = pa.concat_tables(waiting)
                yield _one_batch(joined.slice(0, size))
                waiting = [joined.slice(size)]
                count -= size
        if count:
            yield _one_batch(pa.concat_tables(waiting))


def _one_batch(table: Table) -> Any:
    return table.combine_chunks().to_batches()[0]
