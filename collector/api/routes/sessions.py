"""Sessions: the list, one of them, its gaps and quality; starting and stopping."""

from __future__ import annotations

import asyncio
import time
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query

from collector.api.context import Context, InContext, ledger_of
from collector.api.models import (
    Exchanges,
    GapPage,
    GapRow,
    HourQuality,
    Quality,
    SessionDetail,
    SessionPage,
    SessionSummary,
    StartOrder,
    State,
    SymbolList,
    SymbolQuality,
)
from collector.api.paging import page_of, position_of
from collector.exchanges.registry import EXCHANGES, exchange_class
from collector.reading.coverage import coverage_of, hours_of
from collector.reading.sessions import StoredSession
from collector.requests import StartRequest, StopRequest, to_arguments
from collector.status import SessionStatus

router = APIRouter(prefix="/api/data-collection", tags=["sessions"])

PAGE_MAX = 500
MAX_US = 2**63 - 1
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 120.0

Limit = Annotated[int, Query(ge=1, le=PAGE_MAX, description="rows of a page")]
Cursor = Annotated[str | None, Query(max_length=400, description="`next` of the page before")]
Time = Annotated[int | None, Query(ge=0, le=MAX_US, description="microseconds since the epoch, UTC")]


@router.get("/sessions", response_model=SessionPage)
async def sessions(
    context: InContext,
    *,
    state: State | None = None,
    exchange: Annotated[str | None, Query(max_length=64)] = None,
    symbol: Annotated[str | None, Query(max_length=64)] = None,
    search: Annotated[str | None, Query(max_length=200, description="part of the id or the label")] = None,
    created_from: Time = None,
    created_to: Time = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> SessionPage:
    """List the sessions of the data directory, running or not, newest first."""
    running = await context.running()
    stored = await asyncio.to_thread(context.index.list)
    needle = search.casefold() if search else ""
    chosen = [
        summary
        for summary in (summary_of(one, running.get(one.session_id)) for one in stored)
        if (state is None or summary.state == state)
        and (exchange is None or summary.exchange == exchange)
        and (symbol is None or symbol in summary.symbols)
        and (not needle or needle in summary.session_id.casefold() or needle in summary.label.casefold())
        and (created_from is None or summary.created_us >= created_from)
        and (created_to is None or summary.created_us < created_to)
    ]
    after = position_of(cursor, tuple[int, str]) if cursor else None
    page, following = page_of(chosen, lambda one: (one.created_us, one.session_id), after, limit)
    return SessionPage(sessions=page, total=len(chosen), next=following)


@router.get("/sessions/{session_id}", response_model=SessionDetail)
async def session(context: InContext, session_id: str) -> SessionDetail:
    """Show all that is known of a session: its manifest, and what the daemon says of it."""
    stored = await _find(context, session_id)
    running = (await context.running()).get(session_id)
    manifest: dict[str, Any] = msgspec.to_builtins(stored.manifest)
    return SessionDetail(
        summary=summary_of(stored, running),
        manifest=manifest,
        status=msgspec.to_builtins(running) if running else None,
    )


@router.get("/sessions/{session_id}/gaps", response_model=GapPage)
async def gaps(
    context: InContext,
    session_id: str,
    *,
    symbol: Annotated[str | None, Query(max_length=64)] = None,
    stream: Annotated[str | None, Query(max_length=64)] = None,
    only_open: bool = False,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> GapPage:
    """List the known holes of a session, in the order of their detection."""
    stored = await _find(context, session_id)
    entries = [
        entry
        for entry in await asyncio.to_thread(ledger_of, stored)
        if (symbol is None or entry.symbol == symbol)
        and (stream is None or entry.stream == stream)
        and (not only_open or entry.state == "open")
    ]
    after = position_of(cursor, str) if cursor else None
    page, following = page_of(entries, lambda entry: entry.gap_id, after, limit)
    rows = [GapRow(**msgspec.structs.asdict(entry)) for entry in page]
    return GapPage(gaps=rows, total=len(entries), next=following)


@router.get("/sessions/{session_id}/quality", response_model=Quality)
async def quality(context: InContext, session_id: str) -> Quality:
    """Tell how whole a session is: coverage by symbol and by hour, lost rows, candles against the exchange's own."""
    stored = await _find(context, session_id)
    running = (await context.running()).get(session_id)
    return await asyncio.to_thread(quality_of, stored, running)


@router.post("/sessions", response_model=SessionSummary, status_code=201)
async def start(context: InContext, order: StartOrder) -> SessionSummary:
    """Start a session; the answer comes once the exchange has confirmed the symbols."""
    request = StartRequest(
        exchange=order.exchange,
        symbols=tuple(order.symbols),
        data_types=tuple(order.data_types),
        duration_s=order.duration_s,
        label=order.label,
        session_id=order.session_id,
        raw_trades=order.raw_trades,
        record_raw=order.record_raw,
        reach_timeout_s=_START_TIMEOUT_S / 2,
    )
    answer = await context.daemon.ask("start", _START_TIMEOUT_S, **to_arguments(request))
    status = msgspec.convert(answer, SessionStatus, strict=False)
    return summary_of(await _find(context, status.session_id), status)


@router.post("/sessions/{session_id}/stop", response_model=SessionSummary)
async def stop(context: InContext, session_id: str) -> SessionSummary:
    """Stop a session; the answer comes once its last rows are durable."""
    await _find(context, session_id)
    await context.daemon.ask("stop", _STOP_TIMEOUT_S, **to_arguments(StopRequest(sessions=(session_id,))))
    return summary_of(await _find(context, session_id), None)


@router.get("/exchanges", response_model=Exchanges, tags=["reference"])
async def exchanges() -> Exchanges:
    """List the exchanges that can be collected from, with what each offers."""
    return Exchanges(exchanges=await asyncio.to_thread(_describe_exchanges))


@router.get("/symbols", response_model=SymbolList, tags=["reference"])
async def symbols(context: InContext, exchange: Annotated[str | None, Query(max_length=64)] = None) -> SymbolList:
    """List the symbols that sessions of the data directory have, by exchange."""
    counts: dict[tuple[str, str], int] = {}
    for one in await asyncio.to_thread(context.index.list):
        if exchange is None or one.manifest.exchange == exchange:
            for symbol in one.manifest.symbols:
                key = (symbol, one.manifest.exchange)
                counts[key] = counts.get(key, 0) + 1
    rows = [{"symbol": symbol, "exchange": name, "sessions": n} for (symbol, name), n in sorted(counts.items())]
    return SymbolList(symbols=rows)


def summary_of(stored: StoredSession, running: SessionStatus | None) -> SessionSummary:
    """Return a session's row of the list; what runs is newer than what its manifest says."""
    manifest = stored.manifest
    rows: dict[str, int] = {}
    for record in manifest.files:
        rows[record.stream] = rows.get(record.stream, 0) + record.rows
    return SessionSummary(
        session_id=manifest.session_id,
        exchange=manifest.exchange,
        state=running.state if running else manifest.state,  # type: ignore[arg-type]  # pydantic checks it
        reason=running.reason if running else manifest.reason,
        label=manifest.label,
        kind="replay" if manifest.recording else manifest.kind,  # type: ignore[arg-type]  # the three there are
        symbols=manifest.symbols,
        data_types=manifest.data_types,
        created_us=manifest.created_us,
        started_us=manifest.started_us,
        ended_us=manifest.ended_us,
        heartbeat_us=manifest.heartbeat_us,
        rows=running.rows if running else rows,
        gaps=running.gaps if running else manifest.gaps,
        gaps_open=running.gaps_open if running else manifest.open_gaps,
        live=running is not None,
    )


def quality_of(stored: StoredSession, running: SessionStatus | None) -> Quality:
    """Work out a session's quality from its ledger; blocking."""
    manifest = stored.manifest
    entries = ledger_of(stored)
    from_us = manifest.started_us or manifest.created_us
    to_us = manifest.ended_us or (time.time_ns() // 1000 if running else manifest.heartbeat_us or from_us)
    return Quality(
        session_id=manifest.session_id,
        from_us=from_us,
        to_us=max(from_us, to_us),
        symbols=[
            SymbolQuality(**msgspec.structs.asdict(one))
            for one in coverage_of(entries, manifest.symbols, from_us, to_us)
        ],
        hours=[
            HourQuality(**msgspec.structs.asdict(one)) for one in hours_of(entries, manifest.symbols, from_us, to_us)
        ],
        dropped=running.buffer.dropped if running else manifest.dropped,
        errors=running.errors if running else manifest.errors,
        candles={"compared": running.candles_compared, "different": running.candles_different} if running else {},
    )


async def _find(context: Context, session_id: str) -> StoredSession:
    return await asyncio.to_thread(context.index.find, session_id)


def _describe_exchanges() -> list[dict[str, Any]]:
    found = []
    for name in EXCHANGES:
        dialect = exchange_class(name)
        found.append(
            {"name": name, "streams": list(dialect.streams), "trade_ids_contiguous": dialect.trade_ids_contiguous}
        )
    return found
