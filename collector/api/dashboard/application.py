"""The dashboard's application: its look, and every page's address."""

from __future__ import annotations

from fastapi import FastAPI
from nicegui import ui

from collector.api.context import Context
from collector.api.dashboard.pages import backtests, compare, events, history, overview, session, tables

_RECONNECT_S = 10.0


def create_dashboard(context: Context) -> FastAPI:
    """Build the application; at most once in a process, because the library's pages are the process's."""
    app = FastAPI(docs_url=None, redoc_url=None, openapi_url=None)
    for page in (overview, session, history, tables, compare, backtests, events):
        page.register(context)
    ui.run_with(
        app,
        title="collector",
        favicon="📈",
        dark=None,
        reconnect_timeout=_RECONNECT_S,
        show_welcome_message=False,
    )
    return app
