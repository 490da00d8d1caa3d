"""The API's process: ``python -m collector.api FD``, with the configuration as JSON in its standard input.

It ends when its standard input does: with the daemon that started it.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import sys
from collections.abc import Iterator

import uvicorn

from collector.api.app import create_app
from collector.api.dashboard.mount import Switch
from collector.api.security import Guard
from collector.api.token import ensure_token
from collector.config import Config

_KEEP_ALIVE_S = 5
_STOP_TIMEOUT_S = 3
_WARM_UP_AFTER_S = 3.0
_NICENESS = 10  # whoever reads waits rather than the daemon that collects


class _Server(uvicorn.Server):
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to the parent, whose end is ours."""
        yield


async def _serve(config: Config, listening: socket.socket) -> None:
    app = create_app(config, token=ensure_token(config.daemon.data_dir))
    server = _Server(
        uvicorn.Config(
            app,
            access_log=False,
            log_level="warning",
            lifespan="off",
            timeout_keep_alive=_KEEP_ALIVE_S,
            timeout_graceful_shutdown=_STOP_TIMEOUT_S,
            server_header=False,
        )
    )
    app.connections = server.server_state.connections
    loop = asyncio.get_running_loop()
    watch = loop.run_in_executor(None, sys.stdin.buffer.read)
    watch.add_done_callback(lambda _: setattr(server, "should_exit", True))
    print("ready", flush=True)
    async with asyncio.TaskGroup() as tasks:
        warming = tasks.create_task(_warm_up(app))
        await server.serve(sockets=[listening])
        warming.cancel()
    if isinstance(app.app, Switch):
        await app.app.close()


async def _warm_up(app: Guard) -> None:
    """Have the dashboard ready before its first visitor, once the start's own work is done."""
    await asyncio.sleep(_WARM_UP_AFTER_S)
    if isinstance(app.app, Switch):
        await app.app.prepare()


def main() -> None:
    """Serve until the parent goes."""
    os.umask(0o027)
    os.nice(_NICENESS)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    config = Config.model_validate_json(sys.stdin.buffer.readline())
    listening = socket.socket(fileno=int(sys.argv[1]))
    with contextlib.suppress(ImportError):
        import uvloop

        asyncio.set_event_loop_policy(uvloop.EventLoopPolicy())
    asyncio.run(_serve(config, listening))


if __name__ == "__main__":
    main()
