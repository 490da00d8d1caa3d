"""The API's process: a real child on a real port, kept up by whoever daemon it belongs to."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
from pathlib import Path

import httpx
import structlog
from structlog.testing import capture_logs

from collector.api.server import ApiServer
from collector.api.token import ensure_token, token_path
from collector.config import Config

BOUND_S = 60


def configured(folder: Path, port: int) -> Config:
    return Config.model_validate(
        {"daemon": {"data_dir": str(folder)}, "questdb": {"mode": "off"}, "api": {"port": port}}
    )


def test_it_answers_until_it_is_stopped_and_comes_back_when_it_dies(tmp_path: Path, free_port: int) -> None:
    """A request that comes while no child runs waits for the next one."""

    async def scenario() -> int:
        server = ApiServer(configured(tmp_path, free_port), log=structlog.get_logger())
        async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as tasks:
            assert await server.start(tasks)
            await server.ready.wait()
            async with httpx.AsyncClient(trust_env=False, timeout=BOUND_S) as client:
                answer = await client.get(f"{server.url}health")
                assert answer.json()["live"] is False  # there is a server, and no daemon behind it
                assert "server" not in answer.headers
                first = server.pid
                assert first is not None
                os.kill(first, signal.SIGKILL)
                while server.pid in (first, None):
                    await asyncio.sleep(0.01)
                assert (await client.get(f"{server.url}health")).status_code == 503
            assert server.restarts == 1
            last = server.pid
            await server.stop()
        assert last is not None
        return last

    assert not Path(f"/proc/{asyncio.run(scenario())}").exists()
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", free_port)) != 0


def test_beyond_its_connections_it_answers_with_a_503(tmp_path: Path, free_port: int) -> None:
    """Room that is given back is used again."""

    async def scenario() -> None:
        config = configured(tmp_path, free_port)
        config = config.model_copy(update={"api": config.api.model_copy(update={"max_connections": 2})})
        server = ApiServer(config, log=structlog.get_logger())
        async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as tasks:
            assert await server.start(tasks)
            await server.ready.wait()
            idle = [await asyncio.open_connection("127.0.0.1", free_port) for _ in range(2)]
            async with httpx.AsyncClient(trust_env=False, timeout=BOUND_S) as client:
                url = f"{server.url}api/openapi.json"
                headers = {"authorization": f"Bearer {ensure_token(tmp_path)}"}
                while (answer := await client.get(url, headers=headers)).status_code == 200:
                    await asyncio.sleep(0.01)  # until the child has accepted the others
                assert answer.json()["detail"] == "More than 2 connections are open."
                idle.pop()[1].close()
                while (await client.get(url, headers=headers)).status_code != 200:
                    await asyncio.sleep(0.01)
            idle.pop()[1].close()
            await server.stop()

    asyncio.run(scenario())


def test_a_port_that_is_taken_is_a_warning(tmp_path: Path) -> None:
    """Collecting does not depend on the API."""

    async def scenario(port: int) -> None:
        server = ApiServer(configured(tmp_path, port), log=structlog.get_logger())
        async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as tasks:
            assert not await server.start(tasks)
            await server.stop()

    with socket.socket() as taken, capture_logs() as logs:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        asyncio.run(scenario(taken.getsockname()[1]))
    assert [line["event"] for line in logs] == ["api.not_served"]


def test_the_token_is_made_once_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    """256 bits in a file of mode 0600, in a folder of mode 0700."""
    token = ensure_token(tmp_path)
    assert len(token) >= 43
    assert ensure_token(tmp_path) == token
    assert token_path(tmp_path).stat().st_mode & 0o777 == 0o600
    assert token_path(tmp_path).parent.stat().st_mode & 0o777 == 0o700
