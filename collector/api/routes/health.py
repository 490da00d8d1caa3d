"""``/health`` and ``/metrics``: for monitors, without a token, and true even when the daemon hangs."""

from __future__ import annotations

from typing import Any

import msgspec
from fastapi import APIRouter, Response
from fastapi.responses import JSONResponse

from collector.api.context import InContext
from collector.api.models import Health
from collector.api.problems import problem
from collector.errors import CollectorError
from collector.metrics import exposition
from collector.status import unready_reasons

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"
_PATIENCE_S = 5.0

router = APIRouter(tags=["monitoring"])


@router.get("/health", response_model=Health, responses={503: {"model": Health, "description": "not ready"}})
async def health(context: InContext) -> Response:
    """Tell whether the daemon does what it was asked to do: 200, or 503 with the reasons."""
    try:
        now = await context.daemon.status()
    except CollectorError as error:
        reasons = [error.message]
        return JSONResponse(Health(live=False, ready=False, reasons=reasons).model_dump(), status_code=503)
    reasons = unready_reasons(now)
    facts: dict[str, Any] = {
        "live": True,
        "ready": not reasons,
        "reasons": reasons,
        "version": now.version,
        "uptime_s": now.uptime_s,
        "questdb": now.questdb.state,
        "lag_rows": now.questdb.lag_rows,
        "sessions": {session.session_id: session.state for session in now.sessions},
    }
    return JSONResponse(facts, status_code=503 if reasons else 200)


@router.get("/metrics", response_class=Response, responses={200: {"content": {"text/plain": {}}}})
async def metrics(context: InContext) -> Response:
    """Give the metrics in Prometheus' text format; 503 where the daemon does not answer, so that `up` is 0."""
    try:
        now = await context.daemon.status()
    except CollectorError as error:
        return problem(503, error.message, hint=error.hint)
    refusals = context.refusals
    now = msgspec.structs.replace(
        now,
        api_refused_connections=refusals.connections,
        api_refused_bodies=refusals.bodies,
        api_delayed_streams=context.streams.delayed,
    )
    return Response(exposition(lambda: now), media_type=METRICS_TYPE)
