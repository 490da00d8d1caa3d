"""The daemon's side of the control socket: answers its own user, survives everybody."""

from __future__ import annotations

import asyncio
import socket
import stat
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
import structlog
from structlog.testing import capture_logs

from collector.config import Control
from collector.control import REQUEST_MAX_BYTES, ask
from collector.control_server import Command, ControlServer, Progress
from collector.errors import CollectorError, UnknownName, UsageError
from collector.status import BufferStatus

LIMIT_S = 20


async def ping(arguments: dict[str, Any], progress: Progress) -> Any:
    progress("thinking")
    return {"arguments": arguments, "buffer": BufferStatus(received=3)}


async def refuse(_: dict[str, Any], __: Progress) -> Any:
    raise UnknownName("exchange", "binanse", ["binance"])


async def crash(_: dict[str, Any], __: Progress) -> Any:
    raise ZeroDivisionError("division by zero")


@asynccontextmanager
async def serving(data_dir: Path, **commands: Command) -> AsyncIterator[ControlServer]:
    server = ControlServer(data_dir, {"ping": ping, **commands}, log=structlog.get_logger())
    await server.start()
    try:
        yield server
    finally:
        await server.stop(deadline_s=LIMIT_S)


def run(scenario: Callable[[], Awaitable[None]]) -> None:
    async def bounded() -> None:
        async with asyncio.timeout(LIMIT_S * 2):
            await scenario()

    asyncio.run(bounded())


async def asking(data_dir: Path, command: str, **arguments: Any) -> Any:
    return await asyncio.to_thread(ask, data_dir, command, arguments, timeout_s=LIMIT_S)


async def raw(path: Path, content: bytes) -> bytes:
    """Send bytes, end the sending, and return the whole answer."""
    reader, writer = await asyncio.open_unix_connection(str(path))
    writer.write(content)
    writer.write_eof()
    answer = await reader.read()
    writer.close()
    return answer


def test_a_command_is_answered_with_its_result(tmp_path: Path) -> None:
    """Arguments reach the command; structs come back as JSON."""

    async def scenario() -> None:
        async with serving(tmp_path):
            answer = await asking(tmp_path, "ping", a=1)
            assert answer["arguments"] == {"a": 1}
            assert answer["buffer"]["received"] == 3

    run(scenario)


def test_progress_is_sent_as_it_comes(tmp_path: Path) -> None:
    """A line of progress comes before the result, in the same conversation."""

    async def scenario() -> None:
        async with serving(tmp_path) as server:
            assert server.path is not None
            lines = (await raw(server.path, b'{"command":"ping"}\n')).splitlines()
            assert lines[0] == b'{"progress":"thinking"}'
            assert lines[1].startswith(b'{"result":')

    run(scenario)


def test_an_error_of_ours_reaches_the_client(tmp_path: Path) -> None:
    """The client raises what the command raised."""

    async def scenario() -> None:
        async with serving(tmp_path, refuse=refuse):
            with pytest.raises(UsageError, match="binanse") as caught:
                await asking(tmp_path, "refuse")
            assert caught.value.hint == "Did you mean binance?"

    run(scenario)


def test_a_fault_in_a_command_is_logged_and_the_daemon_lives_on(tmp_path: Path) -> None:
    """A bug in one command is told to whoever asked, and the next command is answered."""

    async def scenario() -> None:
        async with serving(tmp_path, crash=crash):
            with pytest.raises(CollectorError, match="ZeroDivisionError"):
                await asking(tmp_path, "crash")
            assert await asking(tmp_path, "ping")

    with capture_logs() as logs:
        run(scenario)
    assert [entry["event"] for entry in logs] == ["control.command_failed"]


def test_an_unknown_command_names_the_nearest(tmp_path: Path) -> None:
    """A newer client learns what this daemon can do."""

    async def scenario() -> None:
        async with serving(tmp_path):
            with pytest.raises(UsageError, match="pong"):
                await asking(tmp_path, "pong")

    run(scenario)


@pytest.mark.parametrize(
    "content",
    [b"", b"\n", b"hello\n", b"[]\n", b'{"command":1}\n', b'{"command":"ping","x":1}\n', b"\xff\xfe\n", b"{"],
)
def test_what_is_no_request_is_refused(tmp_path: Path, content: bytes) -> None:
    """Rubbish gets a sentence, and does no harm."""

    async def scenario() -> None:
        async with serving(tmp_path) as server:
            assert server.path is not None
            assert b'"error"' in await raw(server.path, content)
            assert await asking(tmp_path, "ping")

    run(scenario)


def test_a_request_without_end_is_refused(tmp_path: Path) -> None:
    """What is longer than the bound is not read to its end."""

    async def scenario() -> None:
        async with serving(tmp_path) as server:
            reader, writer = await asyncio.open_unix_connection(str(server.path))
            writer.write(b"x" * (REQUEST_MAX_BYTES * 3))
            assert b"at most" in await reader.readline()
            writer.close()

    run(scenario)


def test_beyond_its_connections_it_listens_to_nobody(tmp_path: Path) -> None:
    """Those that wait for an answer get it; the others are closed, and counted."""

    async def scenario() -> None:
        release = asyncio.Event()

        async def wait(_: dict[str, Any], __: Progress) -> Any:
            await release.wait()
            return "done"

        settings = Control(max_connections=2)
        server = ControlServer(tmp_path, {"wait": wait}, log=structlog.get_logger(), settings=settings)
        await server.start()
        asked = [asyncio.create_task(asking(tmp_path, "wait")) for _ in range(2)]
        while len(server._conversations) < 2:
            await asyncio.sleep(0.01)
        reader, writer = await asyncio.open_unix_connection(str(server.path))
        assert await reader.read() == b""
        writer.close()
        assert server.refused_connections == 1
        release.set()
        assert await asyncio.gather(*asked) == ["done", "done"]
        await server.stop(deadline_s=LIMIT_S)

    run(scenario)


def test_a_request_that_does_not_come_is_refused_and_counted(tmp_path: Path) -> None:
    """A connection that says nothing is not kept for ever."""

    async def scenario() -> None:
        settings = Control(request_timeout_s=0.05)
        server = ControlServer(tmp_path, {}, log=structlog.get_logger(), settings=settings)
        await server.start()
        reader, writer = await asyncio.open_unix_connection(str(server.path))
        assert b"No request came within 0.05 s" in await reader.readline()
        writer.close()
        assert server.refused_commands == 1
        await server.stop(deadline_s=LIMIT_S)

    run(scenario)


def test_the_socket_is_for_its_user_alone(tmp_path: Path) -> None:
    """Mode 0600 in a folder of mode 0700."""

    async def scenario() -> None:
        async with serving(tmp_path) as server:
            assert server.path is not None
            assert stat.S_IMODE(server.path.stat().st_mode) == 0o600
            assert stat.S_IMODE(server.path.parent.stat().st_mode) == 0o700

    run(scenario)


def test_a_stale_socket_is_replaced_and_ours_is_removed(tmp_path: Path) -> None:
    """What a killed daemon left is no obstacle, and we leave nothing."""
    (tmp_path / "control").mkdir()
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stale:
        stale.bind(str(tmp_path / "control" / "daemon.sock"))

    async def scenario() -> None:
        async with serving(tmp_path):
            assert await asking(tmp_path, "ping")

    run(scenario)
    assert not (tmp_path / "control" / "daemon.sock").exists()


def test_several_are_answered_at_once(tmp_path: Path) -> None:
    """A command that takes its time holds up nobody."""
    gate = asyncio.Event()

    async def wait(_: dict[str, Any], __: Progress) -> Any:
        await gate.wait()
        return "done"

    async def scenario() -> None:
        async with serving(tmp_path, wait=wait), asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(asking(tmp_path, "wait"))
            assert await asking(tmp_path, "ping")
            gate.set()
            assert await waiting == "done"

    run(scenario)


def test_a_command_runs_to_its_end_when_its_client_goes_away(tmp_path: Path) -> None:
    """Nothing is cancelled half-way because somebody pressed Ctrl-C."""
    begun, gate, finished = asyncio.Event(), asyncio.Event(), asyncio.Event()

    async def work(_: dict[str, Any], progress: Progress) -> Any:
        begun.set()
        await gate.wait()
        for number in range(100):
            progress(number)
        finished.set()

    async def scenario() -> None:
        async with serving(tmp_path, work=work) as server:
            _, writer = await asyncio.open_unix_connection(str(server.path))
            writer.write(b'{"command":"work"}\n')
            await begun.wait()
            writer.transport.abort()
            gate.set()
            await finished.wait()

    run(scenario)


def test_stopping_waits_for_commands_that_run(tmp_path: Path) -> None:
    """Whoever asked still gets the answer; new connections are refused."""
    begun, gate = asyncio.Event(), asyncio.Event()

    async def work(_: dict[str, Any], __: Progress) -> Any:
        begun.set()
        await gate.wait()
        return "done"

    async def scenario() -> None:
        server = ControlServer(tmp_path, {"work": work}, log=structlog.get_logger())
        await server.start()
        async with asyncio.TaskGroup() as tasks:
            working = tasks.create_task(asking(tmp_path, "work"))
            await begun.wait()
            stopping = tasks.create_task(server.stop(deadline_s=LIMIT_S))
            await asyncio.sleep(0)
            gate.set()
            await stopping
            assert await working == "done"

    run(scenario)


def test_stopping_ends_what_takes_too_long(tmp_path: Path) -> None:
    """The deadline holds even where a command never ends."""
    begun = asyncio.Event()

    async def hang(_: dict[str, Any], __: Progress) -> Any:
        begun.set()
        await asyncio.Event().wait()

    async def scenario() -> None:
        server = ControlServer(tmp_path, {"hang": hang}, log=structlog.get_logger())
        await server.start()
        _, writer = await asyncio.open_unix_connection(str(server.path))
        writer.write(b'{"command":"hang"}\n')
        await begun.wait()
        await server.stop(deadline_s=0.01)
        writer.close()

    run(scenario)


def test_a_socket_that_cannot_be_made_is_a_sentence(tmp_path: Path) -> None:
    """A file where the folder should be is told."""
    (tmp_path / "control").write_text("", encoding="ascii")

    async def scenario() -> None:
        server = ControlServer(tmp_path, {}, log=structlog.get_logger())
        with pytest.raises(CollectorError, match="control socket"):
            await server.start()

    run(scenario)
