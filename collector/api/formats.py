"""Rows as an answer: JSON pages, or CSV, Arrow and Parquet as streams in constant memory."""

from __future__ import annotations

import io
from collections.abc import Iterable, Iterator
from typing import Any, Literal

import msgspec

from collector.reading.arrow import extra

Format = Literal["json", "csv", "arrow", "parquet"]

MEDIA_TYPES: dict[Format, str] = {
    "json": "application/json",
    "csv": "text/csv; charset=utf-8",
    "arrow": "application/vnd.apache.arrow.stream",
    "parquet": "application/vnd.apache.parquet",
}
_FORMAT_OF: dict[str, Format] = {media.partition(";")[0]: name for name, media in MEDIA_TYPES.items()}
_ROW_GROUP_BYTES = 1 << 20


def format_of(asked: Format | None, accept: str) -> Format:
    """Return the format that a request wants: the parameter's, else the first known one of ``Accept``, else JSON."""
    if asked is not None:
        return asked
    for part in accept.split(","):
        found = _FORMAT_OF.get(part.partition(";")[0].strip())
        if found is not None:
            return found
    return "json"


def plain(batch: Any) -> Any:
    """Return a record batch with its times as integers (microseconds), which every reader of text takes."""
    pa, compute = extra("pyarrow"), extra("pyarrow.compute")
    columns, fields = [], []
    for field, column in zip(batch.schema, batch.columns, strict=True):
        is_time = pa.types.is_timestamp(field.type)
        columns.append(compute.cast(column, pa.int64()) if is_time else column)
        fields.append(pa.field(field.name, pa.int64() if is_time else field.type))
    return pa.RecordBatch.from_arrays(columns, schema=pa.schema(fields))


def page_json(head: dict[str, Any], batch: Any | None, schema: Any) -> bytes:
    """Return a page: ``columns`` and ``rows`` (a list of lists), beside what ``head`` says."""
    rows = [] if batch is None else list(map(list, zip(*plain(batch).to_pydict().values(), strict=True)))
    return msgspec.json.encode({**head, "columns": list(schema.names), "rows": rows})


def stream_of(form: Format, batches: Iterable[Any], schema: Any) -> Iterator[bytes]:
    """Return rows as CSV, Arrow (IPC stream) or Parquet, piece by piece."""
    if form == "csv":
        return _csv(batches, schema)
    return _arrow(batches, schema) if form == "arrow" else _parquet(batches, schema)


def _csv(batches: Iterable[Any], schema: Any) -> Iterator[bytes]:
    writer = extra("pyarrow.csv")
    yield ",".join(schema.names).encode() + b"\n"
    options = writer.WriteOptions(include_header=False, quoting_style="needed")
    for batch in batches:
        sink = io.BytesIO()
        writer.write_csv(plain(batch), sink, options)
        yield sink.getvalue()


def _arrow(batches: Iterable[Any], schema: Any) -> Iterator[bytes]:
    pa = extra("pyarrow")
    sink = _Drain()
    with pa.ipc.new_stream(pa.PythonFile(sink, "w"), schema) as writer:
        for batch in batches:
            writer.write_batch(batch)
            yield sink.take()
    yield sink.take()


def _parquet(batches: Iterable[Any], schema: Any) -> Iterator[bytes]:
    parquet = extra("pyarrow.parquet")
    sink = _Drain()
    with parquet.ParquetWriter(extra("pyarrow").PythonFile(sink, "w"), schema, compression="zstd") as writer:
        for batch in batches:
            writer.write_batch(batch)
            yield sink.take()
    yield sink.take()


class _Drain(io.RawIOBase):
    """A file that is emptied as it is written; it only goes forwards."""

    def __init__(self) -> None:
        super().__init__()
        self._parts: list[bytes] = []
        self._position = 0

    def writable(self) -> bool:
        """Say that it is written to."""
        return True

    def write(self, content: Any) -> int:
        """Keep a piece until it is taken."""
        piece = bytes(content)
        self._parts.append(piece)
        self._position += len(piece)
        return len(piece)

    def tell(self) -> int:
        """Return how much was written."""
        return self._position

    def take(self) -> bytes:
        """Return what was written since it was taken last."""
        taken = b"".join(self._parts)
        self._parts.clear()
        return taken
