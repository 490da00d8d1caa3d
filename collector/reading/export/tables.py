"""Exports as tables: Parquet, CSV and Arrow, a file per stream, symbol and day, written batch by batch."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Protocol

from collector.reading.arrow import Schema, Table, extra
from collector.reading.export.partitions import ExportFolder
from collector.reading.rows import Rows

DAY_US = 86_400_000_000

SUFFIXES = {"parquet": "parquet", "csv": "csv", "arrow": "arrow"}


class Writer(Protocol):
    """What writes tables to one file."""

    def write(self, table: Table) -> None: ...

    def close(self) -> None: ...


def day_pieces(rows: Rows) -> Iterator[tuple[int, Table]]:
    """Return rows that come by time as tables that lie within a day each (UTC), with its start in microseconds."""
    pa, numpy = extra("pyarrow"), extra("numpy")
    for batch in rows.batches():
        table = pa.Table.from_batches([batch])
        days = table.column(0).cast("int64").to_numpy() // DAY_US
        edges = [0, *(numpy.flatnonzero(numpy.diff(days)) + 1).tolist(), len(days)]
        for begin, end in itertools.pairwise(edges):
            yield int(days[begin]) * DAY_US, table.slice(begin, end - begin)


def day_name(day_us: int) -> str:
    """Return a day as ``2026-11-21``."""
    return str(extra("numpy").datetime64(day_us // DAY_US, "D"))


def write_days(folder: ExportFolder, rows: Rows, name: str, group: str, form: str, tell: Callable[[int], None]) -> None:
    """Write rows as one file per day; a file stands under its name when its day is over.

    Args:
        name: the folder below the export's; ``group`` is what ``export.json`` calls it.
        tell: told how many rows were written.
    """
    pieces = day_pieces(rows)
    piece = next(pieces, None)
    while piece is not None:
        day_us, count = piece[0], 0
        file = f"{name}/{day_name(day_us)}.{SUFFIXES[form]}"
        with folder.writing(file) as path:
            writer = _writer(form, path, rows.schema)
            try:
                while piece is not None and piece[0] == day_us:
                    writer.write(piece[1])
                    count += piece[1].num_rows
                    tell(piece[1].num_rows)
                    piece = next(pieces, None)
            finally:
                writer.close()
        folder.add(file, group, day_us, count)


def write_whole(folder: ExportFolder, table: Table, file: str, group: str, form: str) -> None:
    """Write a table that is not cut into days."""
    with folder.writing(file) as path:
        writer = _writer(form, path, table.schema)
        try:
            writer.write(table)
        finally:
            writer.close()
    folder.add(file, group, 0, table.num_rows)


def _writer(form: str, path: Path, schema: Schema) -> Writer:
    if form == "parquet":
        parquet: Writer = extra("pyarrow.parquet").ParquetWriter(path, schema, compression="zstd")
        return parquet
    if form == "arrow":
        arrow: Writer = extra("pyarrow").ipc.new_file(path, schema)
        return arrow
    return _CsvWriter(path, schema)


class _CsvWriter:
    """CSV as the session's own: times are integer microseconds, and what is missing is empty."""

    def __init__(self, path: Path, schema: Schema) -> None:
        pa, csv = extra("pyarrow"), extra("pyarrow.csv")
        fields = [
            pa.field(field.name, pa.int64() if pa.types.is_timestamp(field.type) else field.type) for field in schema
        ]
        self._schema = pa.schema(fields)
        self._file = path.open("wb")
        self._file.write((",".join(schema.names) + "\n").encode())
        self._plain, self._quoted = (
            csv.WriteOptions(include_header=False, quoting_style=style) for style in ("none", "needed")
        )

    def write(self, table: Table) -> None:
        pa, csv = extra("pyarrow"), extra("pyarrow.csv")
        plain = pa.BufferOutputStream()
        try:
            csv.write_csv(table.cast(self._schema), plain, self._plain)
        except pa.ArrowInvalid:  # a text has a comma or a quote: none that the collector writes does
            csv.write_csv(table.cast(self._schema), self._file, self._quoted)
        else:
            self._file.write(plain.getvalue())

    def close(self) -> None:
        self._file.close()
