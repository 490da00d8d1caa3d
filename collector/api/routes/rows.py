"""A session's rows: pages of JSON, or the whole as CSV, Arrow or Parquet, from QuestDB or from CSV, which it says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Query, Response
from fastapi.responses import StreamingResponse

from collector.api.context import Context, InContext
from collector.api.formats import MEDIA_TYPES, Format, format_of, page_json, stream_of
from collector.api.paging import cursor_of, position_of
from collector.candles.intervals import INTERVALS
from collector.errors import UnknownName, UsageError
from collector.reading.arrow import extra
from collector.reading.rows import Rows
from collector.reading.session_reader import SessionReader, open_session
from collector.streams import STREAMS

router = APIRouter(prefix="/api/data-collection", tags=["rows"])

PAGE_MAX = 10_000
_BATCH_ROWS = 50_000
_MAX_US = 2**62

Symbol = Annotated[str | None, Query(max_length=64, description="needed where the session has several")]
From = Annotated[int | None, Query(alias="from", ge=0, le=_MAX_US, description="exchange time, microseconds, included")]
To = Annotated[int | None, Query(ge=0, le=_MAX_US, description="exchange time, microseconds, not included")]
Limit = Annotated[int | None, Query(ge=1, description=f"rows; a JSON page has at most {PAGE_MAX}")]
Cursor = Annotated[str | None, Query(max_length=400, description="`next` of the JSON page before")]
Asked = Annotated[Format | None, Query(alias="format", description="otherwise by `Accept`, otherwise JSON")]
Accept = Annotated[str, Header(include_in_schema=False)]

_EXAMPLE = {
    "session_id": "20261121-081500-binance-7f3a", "stream": "prices", "source": "questdb", "next": None,
    "columns": ["timestamp", "price", "seq"], "rows": [[1795248900000000, 60123.45, 1]],
}  # fmt: skip
_PAGE_SCHEMA = {
    "type": "object",
    "required": ["session_id", "stream", "source", "why", "columns", "rows", "next"],
    "properties": {
        "session_id": {"type": "string"},
        "stream": {"type": "string"},
        "source": {"enum": ["questdb", "csv", "both"], "description": "where the rows come from"},
        "why": {"type": "string", "description": "why from there"},
        "columns": {"type": "array", "items": {"type": "string"}},
        "rows": {"type": "array", "items": {"type": "array"}},
        "next": {"type": ["string", "null"]},
    },
}
ANSWER: dict[int | str, dict[str, Any]] = {
    200: {
        "description": "rows, by exchange time and seq",
        "content": {
            "application/json": {"schema": _PAGE_SCHEMA, "example": _EXAMPLE},
            **{
                media.partition(";")[0]: {"schema": {"type": "string", "format": "binary"}}
                for name, media in MEDIA_TYPES.items()
                if name != "json"
            },
        },
    }
}


@router.get("/sessions/{session_id}/data", response_class=Response, responses=ANSWER)
async def rows(
    context: InContext,
    session_id: str,
    *,
    stream: Annotated[str, Query(max_length=64, description="a stream's name")] = "prices",
    symbol: Symbol = None,
    from_us: From = None,
    to: To = None,
    limit: Limit = None,
    cursor: Cursor = None,
    asked: Asked = None,
    accept: Accept = "",
) -> Response:
    """Give a stream's rows. Where rows come from (QuestDB, or CSV where it lacks them) stands in `X-Source`."""
    if stream not in STREAMS:
        raise UnknownName("stream", stream, list(STREAMS))

    def choose(reader: SessionReader, begin: int | None) -> Rows:
        # Rows of the ledger have no symbol of their own to be chosen by.
        return reader.stream(stream, symbol if STREAMS[stream].per_symbol else None, begin, to)

    return await _answer(context, session_id, stream, symbol, choose, from_us, limit, cursor, format_of(asked, accept))


@router.get("/sessions/{session_id}/ohlcv", response_class=Response, responses=ANSWER)
async def ohlcv(
    context: InContext,
    session_id: str,
    *,
    interval: Annotated[str, Query(max_length=8, pattern="^[1-9][0-9]{0,4}(ms|[smhd])$", examples=["1m"])] = "1m",
    symbol: Symbol = None,
    from_us: From = None,
    to: To = None,
    limit: Limit = None,
    cursor: Cursor = None,
    asked: Asked = None,
    accept: Accept = "",
) -> Response:
    """Give recorded candles, each in its last revision; other intervals are made of the trades."""

    def choose(reader: SessionReader, begin: int | None) -> Rows:
        if interval in INTERVALS:
            return reader.ohlcv(symbol, interval, begin, to)
        return reader.candles(symbol, interval, begin, to)

    form = format_of(asked, accept)
    return await _answer(context, session_id, "ohlcv", symbol, choose, from_us, limit, cursor, form)


async def _answer(
    context: Context,
    session_id: str,
    stream: str,
    symbol: str | None,
    choose: Any,
    from_us: int | None,
    limit: int | None,
    cursor: str | None,
    form: Format,
) -> Response:
    after = position_of(cursor, tuple[int, int]) if cursor else None
    if after is not None and form != "json":
        raise UsageError("Only pages of JSON have cursors.", hint="A stream is complete: leave `cursor` out.")
    if form == "json" and (limit or 0) > PAGE_MAX:
        raise UsageError(f"A JSON page has at most {PAGE_MAX} rows.", hint="Follow `next`, or ask for CSV or Arrow.")
    begin = after[0] if after is not None else from_us
    rows = await asyncio.to_thread(_prepare, context, session_id, stream, symbol, choose, begin, form)
    headers: dict[str, str] = {"X-Source": rows.source}
    if form == "json":
        head = {"session_id": session_id, "stream": stream}
        async with context.streams:
            body = await asyncio.to_thread(_page, head, rows, after, limit or 1000)
        return Response(body, media_type=MEDIA_TYPES["json"], headers=headers)
    pieces = stream_of(form, _limited(rows.batches(_BATCH_ROWS), limit), rows.schema)
    suffix = "arrows" if form == "arrow" else form
    name = "_".join(part for part in (session_id, symbol, stream) if part)
    headers["Content-Disposition"] = f'attachment; filename="{name}.{suffix}"'
    return StreamingResponse(_streamed(context, pieces), media_type=MEDIA_TYPES[form], headers=headers)


def _prepare(
    context: Context, session_id: str, stream: str, symbol: str | None, choose: Any, begin: int | None, form: Format
) -> Rows:
    context.index.find(session_id)
    reader = open_session(session_id, config=context.config)
    if form == "json" and symbol is None and STREAMS[stream].per_symbol and len(reader.symbols) > 1:
        raise UsageError(
            "A JSON page is of one symbol, and the session has several.",
            hint=f"Choose one: {', '.join(reader.symbols[:10])}.",
        )
    rows: Rows = choose(reader, begin)
    return rows


def _page(head: dict[str, Any], rows: Rows, after: tuple[int, int] | None, limit: int) -> bytes:
    """Return a page of the rows behind a position (time and number of the last row before it)."""
    pa, compute = extra("pyarrow"), extra("pyarrow.compute")
    chosen: list[Any] = []
    count = 0
    for batch in rows.batches(_BATCH_ROWS):
        if after is not None:
            at, seq = _columns(batch)
            mask = compute.or_(
                compute.greater(at, after[0]),
                compute.and_(compute.equal(at, after[0]), compute.greater(seq, after[1])),
            )
            batch = batch.filter(mask)  # noqa: PLW2901  (the same rows, less those that were given before)
        chosen.append(batch.slice(0, limit + 1 - count))
        count += chosen[-1].num_rows
        if count > limit:
            break
    table = pa.Table.from_batches(chosen, rows.schema)
    page = table.slice(0, limit).combine_chunks()
    following = None
    if count > limit:
        last = page.slice(page.num_rows - 1).to_batches()[0]
        at, seq = _columns(last)
        following = cursor_of([at[0].as_py(), seq[0].as_py()])
    batches = page.to_batches()
    return page_json(
        {**head, "source": rows.source, "why": rows.why, "next": following},
        batches[0] if batches else None,
        rows.schema,
    )


def _columns(batch: Any) -> tuple[Any, Any]:
    """Return the columns that rows are ordered by: time and number; candles have one row per time and no number."""
    pa = extra("pyarrow")
    at = batch.column(0).cast(pa.int64())
    index = batch.schema.get_field_index("seq")
    return at, batch.column(index) if index >= 0 else pa.array([0] * batch.num_rows, pa.int64())


def _limited(batches: Iterator[Any], limit: int | None) -> Iterator[Any]:
    left = limit
    for batch in batches:
        if left is None:
            yield batch
            continue
        if left <= 0:
            return
        yield batch.slice(0, left)
        left -= batch.num_rows


async def _streamed(context: Context, pieces: Iterator[bytes]) -> AsyncIterator[bytes]:
    """Pass a stream on piece by piece, each made in a thread when the client has taken the one before."""
    async with context.streams:
        while (piece := await asyncio.to_thread(next, pieces, None)) is not None:
            if piece:
                yield piece
