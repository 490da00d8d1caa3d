"""The simulated exchange as a child of the daemon: started when a session needs it and none answers."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Sequence

import httpx
import msgspec
from structlog.typing import FilteringBoundLogger

from collector import config
from collector.errors import CollectorError
from collector.exchanges.sim import Sim
from collector.session.manifest import Manifest

_START_TIMEOUT_S = 20.0
_PROBE_TIMEOUT_S = 1.0
_STOP_TIMEOUT_S = 5.0


class _Ready(msgspec.Struct):
    ws_url: str
    rest_url: str


class SimulatedExchange:
    """Find or start the simulated exchange at the configured port; one that we started ends with us."""

    def __init__(self, settings: config.Sim, *, log: FilteringBoundLogger) -> None:
        self._settings = settings
        self._log = log
        self._child: asyncio.subprocess.Process | None = None
        self._lock = asyncio.Lock()

    def is_meant(self, manifest: Manifest, ws_url: str) -> bool:
        """Say whether a session is to collect from the simulated exchange of ours, not from one at another address."""
        ours = (Sim.ws_url, f"ws://127.0.0.1:{self._settings.port}")
        return manifest.exchange == Sim.name and (ws_url or manifest.endpoints.get("ws", "")) in ("", *ours)

    async def ensure(self, symbols: Sequence[str]) -> tuple[str, str]:
        """Return websocket and REST address of a simulated exchange that lists the configured symbols and these.

        Raises:
            CollectorError: it could not be started.
        """
        async with self._lock:
            rest_url = f"http://127.0.0.1:{self._settings.port}"
            if await self._answers(rest_url):
                return f"ws://127.0.0.1:{self._settings.port}", rest_url
            ready = await self._start(symbols)
            return ready.ws_url, ready.rest_url

    async def _answers(self, rest_url: str) -> bool:
        async with httpx.AsyncClient(timeout=_PROBE_TIMEOUT_S, trust_env=False) as client:
            try:
                return (await client.get(f"{rest_url}/api/v3/ping")).status_code == httpx.codes.OK
            except httpx.HTTPError:
                return False

    async def _start(self, symbols: Sequence[str]) -> _Ready:
        settings = self._settings
        arguments = [
            "--port", str(settings.port), "--seed", str(settings.seed), "--rate", str(settings.rate),
            "--symbols", ",".join(dict.fromkeys([*settings.symbols, *symbols])), "--follow-parent",
            *(part for fault in settings.faults for part in ("--fault", fault)),
        ]  # fmt: skip
        self._child = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "collector.sim", "exchange", *arguments,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
            start_new_session=True,
        )  # fmt: skip
        line = b""
        try:
            async with asyncio.timeout(_START_TIMEOUT_S):
                line = await _stream(self._child.stdout).readline()
            ready = msgspec.json.decode(line, type=_Ready)
        except (TimeoutError, msgspec.MsgspecError) as error:
            said = await self._complaint(line)
            raise CollectorError(
                f"The simulated exchange could not be started on port {settings.port}{said}.",
                hint="Choose another port with sim.port in config.toml.",
            ) from error
        self._log.info("sim.started", pid=self._child.pid, ws_url=ready.ws_url)
        return ready

    async def _complaint(self, line: bytes) -> str:
        """End a child that did not start and return what it said (its errors go where its output goes)."""
        child = self._child
        await self.stop()
        rest = await child.stdout.read(2000) if child is not None and child.stdout is not None else b""
        said = (line + rest).decode("utf-8", "replace").strip()
        return f": {said}" if said else ""

    async def stop(self) -> None:
        """End the child, where there is one."""
        child, self._child = self._child, None
        if child is None or child.returncode is not None:
            return
        child.terminate()
        try:
            async with asyncio.timeout(_STOP_TIMEOUT_S):
                await child.wait()
        except TimeoutError:
            child.kill()
            await child.wait()


def _stream(stream: asyncio.StreamReader | None) -> asyncio.StreamReader:
    if stream is None:
        raise CollectorError("The simulated exchange has no output.")
    return stream
