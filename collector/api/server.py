"""The API from the daemon's side: a child that serves the port, so that whoever reads never delays a flush.

The daemon itself listens, so the port is known (and taken) before the child runs, and connections wait while a child
that died is started again.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import sys
from typing import Any

from pydantic import SecretStr
from structlog.typing import FilteringBoundLogger

from collector.api.token import ensure_token
from collector.config import Config

_BACKLOG = 128
_START_TIMEOUT_S = 60.0
_STOP_TIMEOUT_S = 5.0
_RETRY_FIRST_S = 0.5
_RETRY_CAP_S = 30.0


class ApiServer:
    """Keep the API's process up.

    Args:
        config: the whole configuration; it reaches the child over a pipe, because it holds passwords.
    """

    def __init__(self, config: Config, *, log: FilteringBoundLogger) -> None:
        self._config = config
        self._log = log
        self._socket: socket.socket | None = None
        self._child: asyncio.subprocess.Process | None = None
        self._stopping = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self.ready = asyncio.Event()
        """Set once a child has answered that it serves."""
        self.restarts = 0
        self.url = ""

    @property
    def pid(self) -> int | None:
        """Return the child's process, None where none runs."""
        return self._child.pid if self._child is not None and self._child.returncode is None else None

    async def start(self, tasks: asyncio.TaskGroup) -> bool:
        """Listen; return False, with a warning, where the port is taken: collecting does not depend on it."""
        settings = self._config.api
        try:
            ensure_token(self._config.daemon.data_dir)  # before anybody is told that there is a server
            self._socket = _listen(settings.host, settings.port)
        except OSError as error:
            self._log.warning(
                "api.not_served", host=settings.host, port=settings.port, reason=str(error),
                hint="Set api.port in config.toml.",
            )  # fmt: skip
            return False
        host = f"[{settings.host}]" if ":" in settings.host else settings.host
        self.url = f"http://{host}:{self._socket.getsockname()[1]}/"
        self._task = tasks.create_task(self._keep(self._socket))
        return True

    async def stop(self) -> None:
        """Listen no longer; answers under way are given a few seconds."""
        self._stopping.set()
        if self._task is not None:
            await asyncio.wait([self._task])
        if self._socket is not None:
            self._socket.close()

    async def _keep(self, listening: socket.socket) -> None:
        delay_s = _RETRY_FIRST_S
        while not self._stopping.is_set():
            begun_s = asyncio.get_running_loop().time()
            try:
                reason = await self._run(listening)
            except OSError as error:  # no process or descriptor is left: that passes
                reason = str(error)
            self.ready.clear()
            if self._stopping.is_set():
                return
            lived_s = asyncio.get_running_loop().time() - begun_s
            delay_s = _RETRY_FIRST_S if lived_s > _RETRY_CAP_S else min(2 * delay_s, _RETRY_CAP_S)
            self.restarts += 1
            self._log.error("api.process_ended", reason=reason, retry_in_s=delay_s)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._stopping.wait()

    async def _run(self, listening: socket.socket) -> str:
        """Run a child to its end; return why it ended."""
        self._child = child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "collector.api", str(listening.fileno()),
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            pass_fds=[listening.fileno()], start_new_session=True,
        )  # fmt: skip
        if child.stdin is None or child.stdout is None:
            return "it has no pipes"
        said = b""
        try:
            child.stdin.write(_revealed(self._config) + b"\n")
            with contextlib.suppress(OSError):
                await child.stdin.drain()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_START_TIMEOUT_S):
                    said = await child.stdout.readline()
            if said.strip() == b"ready":
                self._log.info("api.serving", url=self.url, pid=child.pid)
                self.ready.set()
                async with asyncio.TaskGroup() as tasks:
                    reading = tasks.create_task(_last_words(child.stdout))
                    stopping = tasks.create_task(self._stopping.wait())
                    await asyncio.wait([reading, stopping], return_when=asyncio.FIRST_COMPLETED)
                    stopping.cancel()
                    await self._end(child)
                said = reading.result()
        finally:
            await self._end(child)
        return said.decode("utf-8", "replace").strip()[-500:] or f"exit status {child.returncode}"

    async def _end(self, child: asyncio.subprocess.Process) -> None:
        """Close the child's standard input, which ends it; kill it where it does not."""
        if child.stdin is not None:
            child.stdin.close()
        try:
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await child.wait()
        except TimeoutError:
            child.kill()
            await child.wait()


async def _last_words(stream: asyncio.StreamReader) -> bytes:
    """Read what a child says until it ends; only the end is kept."""
    kept = b""
    while part := await stream.read(65536):
        kept = (kept + part)[-4000:]
    return kept


def _revealed(config: Config) -> bytes:
    """Return the configuration as JSON with its secrets: it goes to our own child, over a pipe."""

    def reveal(value: Any) -> Any:
        if isinstance(value, dict):
            return {key: reveal(one) for key, one in value.items()}
        return value.get_secret_value() if isinstance(value, SecretStr) else value

    import msgspec

    return msgspec.json.encode(reveal(config.model_dump()), enc_hook=os.fspath)


def _listen(host: str, port: int) -> socket.socket:
    listening = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_STREAM)
    try:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host, port))
        listening.listen(_BACKLOG)
        listening.setblocking(False)
    except OSError:
        listening.close()
        raise
    return listening
