"""What the tests of the command line share: a way to run a command, and a daemon that only pretends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import structlog

from collector.cli.main import main
from collector.control_server import ControlServer, Progress
from collector.daemon_lock import DaemonLock
from collector.errors import SessionNotFound
from collector.status import BufferStatus, DaemonStatus, QuestDBStatus, SessionStatus, SymbolStatus


@dataclass(frozen=True)
class Outcome:
    """What a command printed, and how it ended."""

    status: int
    out: str
    err: str


@pytest.fixture
def collector(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., Outcome]:
    """Run a command in this process, as a person would type it."""
    monkeypatch.setenv("COLUMNS", "200")

    def run(*arguments: object) -> Outcome:
        with pytest.raises(SystemExit) as ended:
            main([str(argument) for argument in arguments])
        printed = capsys.readouterr()
        code = ended.value.code
        return Outcome(code if isinstance(code, int) else 0, printed.out, printed.err)

    return run


def a_session(session_id: str = "s1", state: str = "active", **fields: Any) -> SessionStatus:
    return SessionStatus(
        session_id=session_id,
        exchange="sim",
        state=state,  # type: ignore[arg-type]
        symbols=("BTC_USDT",),
        data_types=("prices", "orderbook"),
        directory=f"data/session_{session_id}",
        created_us=1_700_000_000_000_000,
        started_us=1_700_000_000_000_000,
        rows={"prices": 1234, "orderbook": 56},
        buffer=BufferStatus(received=1290, written=1290),
        per_symbol=(SymbolStatus(symbol="BTC_USDT", state="live", last_price="60000.10", prices_per_s=12.5),),
        **fields,
    )


@dataclass
class PretendedDaemon:
    """A daemon that holds the lock, answers the socket and keeps what it was asked."""

    data_dir: Path
    sessions: dict[str, SessionStatus] = field(default_factory=dict)
    asked: list[tuple[str, dict[str, Any]]] = field(default_factory=list)
    answers: dict[str, Any] = field(default_factory=dict)
    ended: asyncio.Event = field(default_factory=asyncio.Event)

    def status(self) -> DaemonStatus:
        return DaemonStatus(
            version="0",
            pid=1,
            started_us=0,
            uptime_s=61.0,
            data_dir=str(self.data_dir),
            log_file="logs/collector.log",
            questdb=QuestDBStatus(mode="embedded", state="LIVE", console_url="http://127.0.0.1:9000"),
            sessions=tuple(self.sessions.values()),
        )

    async def answer(self, command: str, arguments: dict[str, Any], progress: Progress) -> Any:
        self.asked.append((command, arguments))
        if command in self.answers:
            progress("working")
            return self.answers[command]
        if command == "status":
            return self.status()
        if command == "start":
            return a_session(arguments.get("session_id") or "new")
        if command == "stop":
            names = list(self.sessions) if arguments.get("every") else arguments["sessions"]
            if missing := [name for name in names if name not in self.sessions]:
                raise SessionNotFound(f"There is no session {missing[0]!r}.")
            for name in names:
                self.sessions[name] = a_session(name, "completed")
            return [self.sessions[name] for name in names]
        if command == "shutdown":
            self.ended.set()
        return {"pid": 1, "version": "0"}

    async def run(self, ready: threading.Event) -> None:
        names = ("ping", "start", "stop", "status", "verify", "import", "resync", "shutdown")

        def command(name: str) -> Callable[[dict[str, Any], Progress], Any]:
            return lambda arguments, progress: self.answer(name, arguments, progress)

        server = ControlServer(self.data_dir, {name: command(name) for name in names}, log=structlog.get_logger())
        with DaemonLock(self.data_dir):
            await server.start()
            ready.set()
            await self.ended.wait()
            await server.stop()


@pytest.fixture
def daemon(tmp_path: Path) -> Iterator[PretendedDaemon]:
    """Let a pretended daemon own a data directory, with one session that runs."""
    pretended = PretendedDaemon(tmp_path / "data", {"s1": a_session()})
    ready = threading.Event()
    with asyncio.Runner() as runner:
        loop = runner.get_loop()
        thread = threading.Thread(target=lambda: loop.run_until_complete(pretended.run(ready)))
        thread.start()
        assert ready.wait(20)
        yield pretended
        loop.call_soon_threadsafe(pretended.ended.set)
        thread.join(20)
