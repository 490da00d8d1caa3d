"""Serve the REST application inside the daemon's event loop, on loopback."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Callable, Iterator

import uvicorn
from structlog.typing import FilteringBoundLogger

from collector.api.app import create_app
from collector.config import Api
from collector.status import DaemonStatus

_KEEP_ALIVE_S = 5
_MAX_CONNECTIONS = 128
_STOP_TIMEOUT_S = 3


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the daemon, which has its own order of stopping."""
        yield


class ApiServer:
    """The HTTP door of a daemon.

    Args:
        status: describes the daemon as it is when it is called.
    """

    def __init__(self, settings: Api, status: Callable[[], DaemonStatus], *, log: FilteringBoundLogger) -> None:
        self._settings = settings
        self._status = status
        self._log = log
        self._server: _Server | None = None
        self._task: asyncio.Task[None] | None = None
        self.url = ""

    async def start(self, tasks: asyncio.TaskGroup) -> bool:
        """Listen; return False, with a warning, where the port is taken: collecting does not depend on it."""
        try:
            listening = _listen(self._settings.host, self._settings.port)
        except OSError as error:
            self._log.warning(
                "api.not_served", host=self._settings.host, port=self._settings.port, reason=str(error),
                hint="Set api.port in config.toml.",
            )  # fmt: skip
            return False
        self.url = f"http://{self._settings.host}:{listening.getsockname()[1]}/"
        self._server = _Server(
            uvicorn.Config(
                create_app(self._status),
                access_log=False,
                log_config=None,
                lifespan="off",
                timeout_keep_alive=_KEEP_ALIVE_S,
                timeout_graceful_shutdown=_STOP_TIMEOUT_S,
                limit_concurrency=_MAX_CONNECTIONS,
                server_header=False,
            )
        )
        self._task = tasks.create_task(self._server.serve(sockets=[listening]))
        return True

    async def stop(self) -> None:
        """Listen no longer; answers under way are given a few seconds."""
        if self._server is not None and self._task is not None:
            self._server.should_exit = True
            await asyncio.wait([self._task])


def _listen(host: str, port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.setblocking(False)
    except OSError:
        listening.close()
        raise
    return listening
