"""Backtests that were run: the list, one of them, and its report."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

import msgspec
from fastapi import APIRouter, Query
from fastapi.responses import HTMLResponse

from collector.api.context import Context, InContext
from collector.api.models import BacktestPage
from collector.api.paging import page_of, position_of
from collector.api.routes.sessions import Cursor, Limit
from collector.backtest.results import REPORT_FILE, BacktestResult, folder_of, list_results
from collector.errors import BacktestNotFound, nearest_names

router = APIRouter(prefix="/api/data-collection", tags=["backtests"])

# A report has the scripts of its plot in it. In a sandbox they are nobody's: they reach neither the token nor the API.
REPORT_POLICY = (
    "sandbox allow-scripts; default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; "
    "style-src 'unsafe-inline'; img-src data: blob:; frame-ancestors 'self'"
)


@router.get("/backtests", response_model=BacktestPage)
async def backtests(
    context: InContext,
    *,
    session: Annotated[str | None, Query(max_length=200, description="only those on this session")] = None,
    limit: Limit = 100,
    cursor: Cursor = None,
) -> BacktestPage:
    """List the backtests of the data directory, newest first, without their curves and trades."""
    found = await asyncio.to_thread(list_results, context.config.daemon.data_dir)
    chosen = [one for one in found if session in (None, one.session_id)]
    after = position_of(cursor, tuple[int, str]) if cursor else None
    page, following = page_of(chosen, lambda one: (one.created_us, one.backtest_id), after, limit)
    return BacktestPage(backtests=[_short(one) for one in page], total=len(chosen), next=following)


@router.get("/backtests/{backtest_id}")
async def backtest(context: InContext, backtest_id: str) -> dict[str, Any]:
    """Show a backtest with its equity curve and its trades."""
    found: dict[str, Any] = msgspec.to_builtins(await asyncio.to_thread(find, context, backtest_id))
    return found


@router.get(
    "/backtests/{backtest_id}/report",
    response_class=HTMLResponse,
    responses={200: {"description": "a page that needs nothing else", "content": {"text/html": {}}}},
)
async def report(context: InContext, backtest_id: str) -> HTMLResponse:
    """Give the report with the plot, under a policy of its own."""
    found = await asyncio.to_thread(find, context, backtest_id)
    path = folder_of(context.config.daemon.data_dir, found.backtest_id) / REPORT_FILE
    try:
        content = await asyncio.to_thread(path.read_bytes)
    except OSError as error:
        raise BacktestNotFound(
            f"The report of {found.backtest_id} cannot be read: {error.strerror or error}.", hint="Run it again."
        ) from error
    headers = {"Content-Security-Policy": REPORT_POLICY, "X-Content-Type-Options": "nosniff"}
    return HTMLResponse(content, headers=headers)


def find(context: Context, backtest_id: str) -> BacktestResult:
    """Return a run by its whole id; blocking. Raises BacktestNotFound."""
    known = {one.backtest_id: one for one in list_results(context.config.daemon.data_dir)}
    if backtest_id not in known:
        nearest = nearest_names(backtest_id, list(known))
        hint = f"Did you mean {' or '.join(nearest)}?" if nearest else "See the list of backtests."
        raise BacktestNotFound(f"There is no backtest {backtest_id[:80]!r}.", hint=hint)
    return known[backtest_id]


def _short(result: BacktestResult) -> dict[str, Any]:
    fields: dict[str, Any] = msgspec.to_builtins(result)
    for name in ("equity", "table"):
        fields.pop(name)
    return {**fields, "trades": len(result.trades)}
