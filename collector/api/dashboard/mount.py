"""One server, two applications: the API answers at once, the dashboard's is imported behind it.

Importing the dashboard's library takes 1.6 s of CPU, which a daemon that nobody looks at should not wait for, nor a
monitor that asks for its health.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable

from fastapi import FastAPI
from starlette.types import ASGIApp, Receive, Scope, Send

from collector.api.problems import send_problem

_API_PATHS = ("/api/", "/health", "/metrics")


class Switch:
    """Send requests to the API or to the dashboard, by their path.

    Args:
        make_dashboard: imports and builds the dashboard's application; called once, in a thread, when first needed.
            None where there is no dashboard.
    """

    def __init__(self, api: ASGIApp, make_dashboard: Callable[[], FastAPI] | None) -> None:
        self._api = api
        self._make_dashboard = make_dashboard
        self._dashboard: FastAPI | None = None
        self._turn = asyncio.Lock()
        self._open = contextlib.AsyncExitStack()
        self._failure = ""

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer a request, or pass it on."""
        if scope["type"] == "lifespan" or self._make_dashboard is None or scope["path"].startswith(_API_PATHS):
            await self._api(scope, receive, send)
            return
        dashboard = await self.prepare()
        if dashboard is None:
            if scope["type"] == "http":
                await send_problem(scope, receive, send, 503, self._failure, hint="The API works without it.")
            else:
                await send({"type": "websocket.close", "code": 1011})
            return
        await dashboard(scope, receive, send)

    async def prepare(self) -> FastAPI | None:
        """Return the dashboard's application, built now where that was not done yet; None where it cannot be."""
        if self._make_dashboard is None:
            return None
        async with self._turn:
            if self._dashboard is None and not self._failure:
                try:
                    built = await asyncio.to_thread(self._make_dashboard)
                except ImportError as error:
                    self._failure = f"The dashboard is not installed: {error}."
                    return None
                await self._open.enter_async_context(built.router.lifespan_context(built))
                self._dashboard = built
            return self._dashboard

    async def close(self) -> None:
        """End what the dashboard runs."""
        await self._open.aclose()
