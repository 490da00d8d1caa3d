"""How a simulated server lives as a process: until a signal, or until its parent is gone."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress

if sys.platform == "win32":  # pragma: no cover - there it runs through WSL
    from asyncio import new_event_loop
else:
    from uvloop import new_event_loop


@asynccontextmanager
async def task_group() -> AsyncIterator[asyncio.TaskGroup]:
    """Open a TaskGroup from which an error of the block itself comes out as it is, and not in a group.

    The block must have ended its tasks when it fails.
    """
    failure: Exception | None = None
    async with asyncio.TaskGroup() as group:
        try:
            yield group
        except Exception as error:  # noqa: BLE001 - raised again below
            failure = error
    if failure is not None:
        raise failure


def run_until_stopped(serve: Callable[[asyncio.Event], Awaitable[None]], *, follow_parent: bool = False) -> None:
    """Run a server that ends when the event it is given is set.

    Args:
        serve: the server.
        follow_parent: end when the standard input is closed, which it is as soon as the parent has died.
    """

    async def main() -> None:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, stop.set)
        if follow_parent:
            threading.Thread(target=_wait_for_end, args=(loop, stop), daemon=True).start()
        await serve(stop)

    with asyncio.Runner(loop_factory=new_event_loop) as runner:
        runner.run(main())


def _wait_for_end(loop: asyncio.AbstractEventLoop, stop: asyncio.Event) -> None:
    # A standard input that cannot be read is one that is closed; a loop that is closed has ended by itself.
    with suppress(OSError, ValueError):
        while os.read(sys.stdin.fileno(), 4096):
            pass
    with suppress(RuntimeError):
        loop.call_soon_threadsafe(stop.set)
