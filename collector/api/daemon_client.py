"""The daemon, as the API's process asks it: over its control socket, in threads, never for longer than told."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec

from collector.control import ask
from collector.status import DaemonStatus

_ASKED_AT_ONCE = 16


class DaemonClient:
    """Ask the daemon of a data directory.

    Args:
        timeout_s: how long it may be silent.
    """

    def __init__(self, data_dir: Path, *, timeout_s: float = 10.0) -> None:
        self.data_dir = data_dir
        self._timeout_s = timeout_s
        self._turns = asyncio.Semaphore(_ASKED_AT_ONCE)

    async def ask(self, command: str, timeout_s: float | None = None, **arguments: Any) -> Any:
        """Return a command's result, as JSON reads.

        Raises:
            DaemonNotRunning: nobody listens.
            CollectorError: what the daemon refused the command with, or it was silent for too long.
        """
        async with self._turns:
            return await asyncio.to_thread(
                ask, self.data_dir, command, arguments, timeout_s=timeout_s or self._timeout_s
            )

    async def status(self) -> DaemonStatus:
        """Return what the daemon says about itself now."""
        return msgspec.convert(await self.ask("status"), DaemonStatus, strict=False)
