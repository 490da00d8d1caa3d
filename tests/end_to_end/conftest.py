"""A daemon as a process of its own, a simulated exchange and a replay server as others: what a person would run."""

from __future__ import annotations

import csv
import json
import os
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from collector.control import ask
from collector.errors import DaemonNotRunning

BOUND_S = 60.0


def wait_until(condition: Callable[[], Any], what: str, bound_s: float = BOUND_S) -> Any:
    """Return what a condition gives as soon as it is true; fail after the bound."""
    deadline = time.monotonic() + bound_s
    while time.monotonic() < deadline:
        if found := condition():
            return found
        time.sleep(0.05)
    pytest.fail(f"waited {bound_s:g} s in vain: {what}")


class Server:
    """A simulated server as a child: its addresses, and what it remembers."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "collector.sim", *arguments, "--follow-parent"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert self.process.stdout is not None
        ready = json.loads(self.process.stdout.readline())
        self.ws_url: str = ready["ws_url"]
        self.rest_url: str = ready["rest_url"]

    def get(self, path: str) -> Any:
        with urllib.request.urlopen(self.rest_url + path, timeout=30) as answer:
            return json.load(answer)

    def post(self, path: str) -> Any:
        request = urllib.request.Request(self.rest_url + path, method="POST")
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def traded(self, symbol: str, first_id: int, last_id: int) -> dict[int, list[Any]]:
        """Return the market's own trades by id, whoever was connected."""
        found: dict[int, list[Any]] = {}
        next_id: int | None = first_id
        while next_id is not None and next_id <= last_id:
            page = self.get(f"/admin/trades?symbol={symbol}&from_id={next_id}&limit=1000")
            found.update({row[0]: row for row in page["trades"] if row[0] <= last_id})
            next_id = page["next"]
        return found

    def sent_ids(self, channel: str) -> list[set[int]]:
        """Return, per connection, the ids that were sent on a channel."""
        pages, after = [], 0
        while after is not None:
            page = self.get(f"/admin/record?after={after}")
            pages += page["connections"]
            after = page["next"]
        return [
            {number for first, last in connection["channels"][channel]["ids"] for number in range(first, last + 1)}
            for connection in pages
            if channel in connection["channels"]
        ]

    def end(self) -> None:
        if self.process.stdin is not None:
            self.process.stdin.close()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self.process.wait(timeout=BOUND_S)


def _with_repair_off(config: str) -> str:
    """Leave what is missing missing, for the tests that look at it; those of repair say that they want it."""
    return config if "[repair]" in config else f"{config}\n[repair]\nenabled = false\n"


class DaemonProcess:
    """``collector up`` in a folder of its own, against the test run's QuestDB as an external server."""

    def __init__(self, folder: Path, environment: dict[str, str], extra: str = "") -> None:
        self.data_dir = folder / "data"
        self._folder = folder
        self._environment = environment
        self._process: subprocess.Popen[bytes] | None = None
        self._config = folder / "config.toml"
        self._config.write_text(_with_repair_off(f"[api]\nenabled = false\n{extra}"), encoding="utf-8")

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    def start(self) -> None:
        output = (self._folder / "output").open("ab")
        self._process = subprocess.Popen(
            [sys.executable, "-m", "collector", "up", "--config", str(self._config), "--data-dir", str(self.data_dir)],
            cwd=self._folder,
            env=self._environment,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        output.close()
        wait_until(self._answers, f"the daemon: {self.output()[-2000:]}")

    def _answers(self) -> bool:
        assert self._process is not None
        if self._process.poll() is not None:
            pytest.fail(f"the daemon ended: {self.output()[-3000:]}")
        try:
            return bool(ask(self.data_dir, "ping"))
        except DaemonNotRunning:
            return False

    def output(self) -> str:
        return (self._folder / "output").read_text(encoding="utf-8", errors="replace")

    def ask(self, command: str, **arguments: Any) -> Any:
        return ask(self.data_dir, command, arguments, timeout_s=BOUND_S)

    def session(self, session_id: str) -> dict[str, Any]:
        """Return a session's status; empty as long as the daemon does not run it (it is resumed in its own time)."""
        sessions = self.ask("status")["sessions"]
        return next((session for session in sessions if session["session_id"] == session_id), {})

    def wait_state(self, session_id: str, *states: str, bound_s: float = BOUND_S) -> dict[str, Any]:
        def reached() -> dict[str, Any] | None:
            session = self.session(session_id)
            return session if session.get("state") in states else None

        found: dict[str, Any] = wait_until(reached, f"{session_id} to be {states}", bound_s)
        return found

    def wait_rows(self, session_id: str, stream: str, rows: int) -> None:
        wait_until(lambda: self.session(session_id).get("rows", {}).get(stream, 0) >= rows, f"{rows} rows of {stream}")

    def kill(self) -> None:
        """End it as a power cut would: nothing of it runs any more, and nothing is tidied up."""
        self._signal(signal.SIGKILL)

    def terminate(self) -> int:
        return self._signal(signal.SIGTERM)

    def _signal(self, number: int) -> int:
        assert self._process is not None
        self._process.send_signal(number)
        return self._process.wait(timeout=BOUND_S)

    def end(self) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()

    def rows(self, session_id: str, stream: str, symbol: str = "") -> list[dict[str, str]]:
        """Return the rows of a file as a person would read them."""
        path = self.data_dir / f"session_{session_id}" / symbol / f"{stream}.csv"
        with path.open(newline="", encoding="utf-8") as file:
            return list(csv.DictReader(file))


@pytest.fixture
def daemon(tmp_path: Path, questdb: Any) -> Iterator[Callable[..., DaemonProcess]]:
    """Make daemons that deliver to the test run's server; each is ended with the test."""
    made: list[DaemonProcess] = []

    def make(extra: str = "", **environment: str) -> DaemonProcess:
        folder = tmp_path / f"daemon{len(made)}"
        folder.mkdir()
        settings = questdb.settings
        made.append(
            DaemonProcess(
                folder,
                {
                    **{name: value for name, value in os.environ.items() if not name.startswith("QUESTDB_")},
                    "QUESTDB_ILP_HOST": settings.ilp_host,
                    "QUESTDB_ILP_PORT": str(settings.ilp_port),
                    "QUESTDB_HTTP_USER": settings.http_user,
                    "QUESTDB_HTTP_PASSWORD": settings.http_password.get_secret_value(),
                    "QUESTDB_PG_HOST": settings.pg_host,
                    "QUESTDB_PG_PORT": str(settings.pg_port),
                    "QUESTDB_PG_USER": settings.pg_user,
                    "QUESTDB_PG_PASSWORD": settings.pg_password.get_secret_value(),
                    **environment,
                },
                extra,
            )
        )
        return made[-1]

    yield make
    for one in made:
        one.end()


@pytest.fixture
def server() -> Iterator[Callable[..., Server]]:
    """Start simulated servers; each is ended with the test."""
    started: list[Server] = []

    def start(*arguments: str) -> Server:
        started.append(Server(*arguments))
        return started[-1]

    yield start
    for one in started:
        one.end()


@pytest.fixture
def recordings() -> Path:
    """Return the folder of real recordings; the test is skipped where there is none."""
    folder = os.environ.get("COLLECTOR_RECORDINGS")
    if not folder:
        pytest.skip("COLLECTOR_RECORDINGS is not set: real recordings are not part of the repository")
    return Path(folder)
