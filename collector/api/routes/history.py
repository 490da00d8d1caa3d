"""Past candles: what is held, how good it is, the candles themselves, and what was done to have them."""

from __future__ import annotations

import asyncio
from functools import partial
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query

from collector.api.context import Context, InContext
from collector.api.models import HistoryCandles, HistoryRows
from collector.api.paging import cursor_of, position_of
from collector.api.routes.sessions import Cursor
from collector.history.held import CANDLE_COLUMNS, HeldHistory
from collector.reading.session_reader import Database

router = APIRouter(prefix="/api/data-collection/history", tags=["history"])

PAGE_MAX = 10_000
_MAX_US = 4_102_444_800_000_000  # 2100: QuestDB's times end later, Python's do not
Name = Annotated[str, Query(min_length=1, max_length=64, examples=["BTC_USDT"])]
Interval = Annotated[str, Query(min_length=1, max_length=8, examples=["1h"])]
_Position = Annotated[int, msgspec.Meta(ge=0, le=_MAX_US)]


@router.get("/overview", response_model=HistoryRows)
async def overview(context: InContext) -> HistoryRows:
    """List what is held of each symbol and interval, from when to when, and whether anything lacks between."""
    return await _rows(held(context).ranges)


@router.get("/quality", response_model=HistoryRows)
async def quality(context: InContext) -> HistoryRows:
    """List how good each symbol's candles were when that was last examined."""
    return await _rows(held(context).quality)


@router.get("/logs", response_model=HistoryRows)
async def logs(context: InContext, *, limit: Annotated[int, Query(ge=1, le=500)] = 50) -> HistoryRows:
    """List the newest operations, newest first, with what became of them."""
    return await _rows(partial(held(context).logs, limit))


@router.get("/candles", response_model=HistoryCandles)
async def candles(
    context: InContext,
    *,
    symbol: Name,
    interval: Interval = "1h",
    from_us: Annotated[int, Query(alias="from", ge=0, le=_MAX_US, description="microseconds, included")] = 0,
    to: Annotated[int | None, Query(ge=0, le=_MAX_US, description="microseconds, not included")] = None,
    limit: Annotated[int, Query(ge=1, le=PAGE_MAX)] = 1000,
    cursor: Cursor = None,
) -> HistoryCandles:
    """Give past candles by time, each with its source; where several sources have a bucket, all of them are given."""
    begin, skip = position_of(cursor, tuple[_Position, _Position]) if cursor else (from_us, 0)
    # One row more than asked for tells whether there is another page.
    found = await asyncio.to_thread(
        held(context).candles, symbol, interval, begin, to, skip=skip, limit=limit + 1
    )  # fmt: skip
    page, following = found[:limit], None
    if len(found) > limit:
        last_us = page[-1][0]
        given = sum(row[0] == last_us for row in page) + (skip if last_us == begin else 0)
        following = cursor_of([last_us, given])
    return HistoryCandles(symbol=symbol, interval=interval, columns=list(CANDLE_COLUMNS), rows=page, next=following)


def held(context: Context) -> HeldHistory:
    """Return what asks QuestDB for history, as the user that may only read."""
    return HeldHistory(partial(Database(context.config).settings, read_only=True))


async def _rows(ask: Any) -> HistoryRows:
    return HistoryRows(rows=msgspec.to_builtins(await asyncio.to_thread(ask)))
