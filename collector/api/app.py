"""The REST application: routes behind a guard, and errors as problem details. It opens nothing by itself."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import version

from fastapi import FastAPI

from collector.api.context import Context, Turns
from collector.api.daemon_client import DaemonClient
from collector.api.dashboard.mount import Switch
from collector.api.index import SessionIndex
from collector.api.problems import RESPONSES, answer_with_problems
from collector.api.routes import backtests, health, history, live, rows, sessions
from collector.api.security import Guard
from collector.config import Config

_DESCRIPTION = """
Sessions, their rows, candles and gaps, over loopback.

Every request takes `Authorization: Bearer TOKEN` (`collector dashboard --token` prints it), except `/health` and
`/metrics`. Times are microseconds since the epoch, UTC. Errors are RFC 9457 problem details with a `hint`.
"""


def create_app(config: Config, *, token: str) -> Guard:
    """Build the application of a data directory.

    Args:
        token: what a request must name to be answered.
    """
    data_dir = config.daemon.data_dir.resolve()
    app = FastAPI(
        title="collector",
        version=version("collector"),
        description=_DESCRIPTION,
        docs_url=None,  # its page would fetch scripts from elsewhere
        redoc_url=None,
        openapi_url="/api/openapi.json",
        responses=RESPONSES,
    )
    app.state.context = context = Context(
        config=config,
        daemon=DaemonClient(data_dir),
        index=SessionIndex(data_dir),
        streams=Turns(config.api.max_streams),
    )
    answer_with_problems(app)
    app.include_router(health.router)
    app.include_router(sessions.router)
    app.include_router(live.router)
    app.include_router(rows.router)
    app.include_router(backtests.router)
    app.include_router(history.router)
    return Guard(
        Switch(app, _dashboard_of(context) if config.api.dashboard else None),
        token=token,
        max_body_bytes=config.api.max_body_bytes,
        timeout_s=config.api.request_timeout_s,
        max_connections=config.api.max_connections,
        refusals=app.state.context.refusals,
    )


def _dashboard_of(context: Context) -> Callable[[], FastAPI]:
    def make() -> FastAPI:
        from collector.api.dashboard.application import create_dashboard

        return create_dashboard(context)

    return make
