"""An application over a data directory, with a control socket that answers as a daemon does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

import httpx
import pytest
import structlog

from collector.api.app import create_app
from collector.config import Config
from collector.control_server import ControlServer
from collector.errors import UsageError
from collector.session.manifest import FileRecord, Manifest, save_manifest
from collector.status import DaemonStatus, QuestDBStatus
from collector.storage.files import OperatingSystem

TOKEN = "t0ken-of-the-test"
AUTHORISED = {"authorization": f"Bearer {TOKEN}"}


def daemon_status(**fields: Any) -> DaemonStatus:
    return DaemonStatus(
        version="1.2.3",
        pid=1,
        started_us=0,
        uptime_s=5.0,
        data_dir="d",
        log_file="l",
        questdb=QuestDBStatus(mode="embedded", state="LIVE"),
        **fields,
    )


def store_session(data_dir: Path, session_id: str, **fields: Any) -> Path:
    """Write a session's manifest; return its directory."""
    directory = data_dir / f"session_{session_id}"
    directory.mkdir(parents=True)
    facts: dict[str, Any] = {
        "exchange": "sim", "symbols": ["BTC_USDT"], "data_types": ["prices"], "state": "completed",
        "created_us": 1_000_000, "started_us": 1_000_000, "ended_us": 3_601_000_000,
        "files": [FileRecord("prices", "BTC_USDT", "BTC_USDT/prices.csv", rows=3)],
    }  # fmt: skip
    save_manifest(directory, Manifest(session_id=session_id, **{**facts, **fields}), OperatingSystem())
    return directory


Asking = Callable[[httpx.AsyncClient], Awaitable[Any]]


class Application:
    """The application of a data directory; the daemon's answers are what a test says they are."""

    def __init__(self, data_dir: Path) -> None:
        self.data_dir = data_dir
        self.config = Config.model_validate({"daemon": {"data_dir": str(data_dir)}, "questdb": {"mode": "off"}})
        self.status: DaemonStatus | None = daemon_status()
        self.answers: Mapping[str, Any] = {}
        self.asked: list[tuple[str, dict[str, Any]]] = []

    def run(self, asking: Asking, *, host: str = "127.0.0.1:8780", headers: Mapping[str, str] = AUTHORISED) -> Any:
        """Let a client ask the application, without a socket between; the daemon is behind a real one."""

        async def command(name: str, arguments: dict[str, Any]) -> Any:
            self.asked.append((name, arguments))
            answer = self.answers.get(name, UsageError(f"{name} was not expected"))
            if isinstance(answer, Exception):
                raise answer
            return answer

        async def scenario() -> Any:
            commands: dict[str, Any] = {"status": lambda _, __: _returned(self.status)}
            for name in ("start", "stop"):
                commands[name] = lambda arguments, _, name=name: command(name, arguments)
            control = ControlServer(self.data_dir, commands, log=structlog.get_logger())
            if self.status is not None:
                await control.start()
            transport = httpx.ASGITransport(app=create_app(self.config, token=TOKEN))
            async with httpx.AsyncClient(
                transport=transport, base_url="http://127.0.0.1", headers={"host": host, **headers}
            ) as client:
                try:
                    return await asking(client)
                finally:
                    await control.stop()

        return asyncio.run(scenario())

    def get(self, path: str, **how: Any) -> httpx.Response:
        answer: httpx.Response = self.run(lambda client: client.get(path), **how)
        return answer

    def post(self, path: str, body: Any = None, **how: Any) -> httpx.Response:
        answer: httpx.Response = self.run(lambda client: client.post(path, json=body), **how)
        return answer


async def _returned(value: Any) -> Any:
    return value


@pytest.fixture
def application(tmp_path: Path) -> Application:
    data_dir = tmp_path / "data"
    data_dir.mkdir()
    return Application(data_dir)
