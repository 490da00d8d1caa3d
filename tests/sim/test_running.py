"""How a simulated server lives as a process."""

from __future__ import annotations

import asyncio
import os
import signal

import pytest

from collector.sim.running import run_until_stopped, task_group


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it(number: int) -> None:
    """SIGTERM and Ctrl-C end the server cleanly."""
    ended = []

    async def serve(stop: asyncio.Event) -> None:
        os.kill(os.getpid(), number)
        await stop.wait()
        ended.append(True)

    run_until_stopped(serve)
    assert ended == [True]


def test_an_error_of_the_block_is_itself() -> None:
    """An error in the block of a task group comes out as it is; its tasks have run to their end."""
    ended = asyncio.Event()

    async def main() -> None:
        async with task_group() as group:
            group.create_task(asyncio.sleep(0)).add_done_callback(lambda _: ended.set())
            raise LookupError("as it is")

    with pytest.raises(LookupError, match="as it is"):
        asyncio.run(main())
    assert ended.is_set()
