"""The REST API's server: real sockets on loopback, inside somebody else's event loop."""

from __future__ import annotations

import asyncio
import socket

import httpx
import structlog
from structlog.testing import capture_logs

from collector.api.server import ApiServer
from collector.config import Api
from collector.status import DaemonStatus, QuestDBStatus

BOUND_S = 30


def status() -> DaemonStatus:
    return DaemonStatus(
        version="1",
        pid=1,
        started_us=0,
        uptime_s=5.0,
        data_dir="d",
        log_file="l",
        questdb=QuestDBStatus(mode="off", state="OFF"),
    )


def test_it_answers_until_it_is_stopped(free_port: int) -> None:
    """Over a real socket; the task group ends once it has stopped."""

    async def scenario() -> None:
        server = ApiServer(Api(port=free_port), status, log=structlog.get_logger())
        async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as tasks:
            assert await server.start(tasks)
            async with httpx.AsyncClient(trust_env=False) as client:
                answer = await client.get(f"http://127.0.0.1:{free_port}/health")
            assert answer.json()["ready"] is True
            assert "server" not in answer.headers
            await server.stop()

    asyncio.run(scenario())
    with socket.socket() as probe:
        assert probe.connect_ex(("127.0.0.1", free_port)) != 0


def test_a_port_that_is_taken_is_a_warning() -> None:
    """Collecting does not depend on the API."""

    async def scenario(port: int) -> None:
        server = ApiServer(Api(port=port), status, log=structlog.get_logger())
        async with asyncio.timeout(BOUND_S), asyncio.TaskGroup() as tasks:
            assert not await server.start(tasks)
            await server.stop()

    with socket.socket() as taken, capture_logs() as logs:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        asyncio.run(scenario(taken.getsockname()[1]))
    assert [entry["log_level"] for entry in logs] == ["warning"]
