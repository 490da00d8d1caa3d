"""The REST API: for now whether the daemon is well, and its metrics. It changes nothing and listens on loopback."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import urlsplit

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse, PlainTextResponse

from collector.metrics import exposition
from collector.status import DaemonStatus, unready_reasons

METRICS_TYPE = "text/plain; version=0.0.4; charset=utf-8"


def create_app(status: Callable[[], DaemonStatus], *, hosts: tuple[str, ...] = ()) -> FastAPI:
    """Build the application.

    Args:
        status: describes the daemon; called for each request, in the event loop.
        hosts: names that a request's ``Host`` may have, beside loopback's own; any other is refused, so that no web
            page that a person visits can reach the API under a name of its own (DNS rebinding).
    """
    app = FastAPI(title="collector", docs_url=None, redoc_url=None, openapi_url=None)
    allowed = {"127.0.0.1", "::1", "localhost", *hosts}

    @app.middleware("http")
    async def refuse_foreign_hosts(request: Request, proceed: Callable[[Request], Awaitable[Response]]) -> Response:
        if _host_of(request.headers.get("host", "")) not in allowed:
            return PlainTextResponse("Unknown host.\n", status_code=421)
        return await proceed(request)

    @app.get("/")
    async def index() -> dict[str, Any]:
        """Name what can be asked."""
        return {"name": "collector", "version": status().version, "paths": ["/health", "/metrics"]}

    @app.get("/health")
    async def health() -> JSONResponse:
        """Tell whether the daemon does what it was asked to do: 200, or 503 with the reasons."""
        now = status()
        reasons = unready_reasons(now)
        facts = {
            "ready": not reasons,
            "reasons": reasons,
            "version": now.version,
            "uptime_s": now.uptime_s,
            "questdb": now.questdb.state,
            "lag_rows": now.questdb.lag_rows,
            "sessions": {session.session_id: session.state for session in now.sessions},
        }
        return JSONResponse(facts, status_code=503 if reasons else 200)

    @app.get("/metrics")
    async def metrics() -> Response:
        """Give the metrics in Prometheus' text format."""
        return Response(exposition(status), media_type=METRICS_TYPE)

    return app


def _host_of(header: str) -> str:
    try:
        return urlsplit(f"//{header}").hostname or ""
    except ValueError:
        return ""
