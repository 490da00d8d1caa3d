"""What a trial is made of: daemon, exchange and QuestDB as processes, a disk that can be full, limits of a process.

Everything listens on loopback, on ports that the system chose, and lives in a folder of its own. Only processes that
were started here are ever ended, by their pid.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import random
import resource
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any, Self, TypeVar

from collector.control import ask
from collector.errors import CollectorError, InstallError
from collector.sim.child import Child, start_exchange
from collector.storage.embedded import EmbeddedServer
from collector.storage.migrations import migrate

PROJECT = Path(__file__).resolve().parent.parent
BOUND_S = 60.0
_START_ATTEMPTS = 5
_POLL_S = 0.02
_PAGE_BYTES = 4096
_PORTS = (20_000, 32_000)  # below what Linux (from 32,768 on) and macOS (from 49,152 on) choose from
Found = TypeVar("Found")


class TrialError(Exception):
    """The trial itself could not go on; what it tried is in the message."""


def wait_until(condition: Callable[[], Found], what: str, bound_s: float = BOUND_S, poll_s: float = _POLL_S) -> Found:
    """Return what a condition gives as soon as it is true; raise TrialError after the bound."""
    deadline = time.monotonic() + bound_s
    while True:
        if found := condition():
            return found
        if time.monotonic() > deadline:
            raise TrialError(f"waited {bound_s:g} s in vain for {what}")
        time.sleep(poll_s)


def free_ports(count: int) -> list[int]:
    """Return ports that are free now, and that the system gives to nobody's outgoing connections.

    A server that is killed and started again needs its port back: one of the system's choosing may be the near end of
    somebody's connection by then, even of the client that tries to reach the dead server.
    """
    found: set[int] = set()
    while len(found) < count:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", random.SystemRandom().randrange(*_PORTS)))
            found.add(probe.getsockname()[1])
    return sorted(found)


class Exchange:
    """The simulated exchange as a process, with its faults and its own record of what it sent."""

    def __init__(self, *, seed: int, rate: float, symbols: tuple[str, ...]) -> None:
        self.symbols = symbols
        self._child: Child = start_exchange(seed=seed, rate=rate, symbols=symbols)
        self.pid = self._child.pid
        self.ws_url, self.rest_url = self._child.ws_url, self._child.rest_url

    def ask(self, path: str, method: str = "GET") -> Any:
        """Ask beside the exchange's protocol."""
        request = urllib.request.Request(self.rest_url + path, method=method)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.load(answer)

    def arm(self, kind: str, **parameters: Any) -> None:
        """Let a fault happen."""
        self.ask("/admin/faults?" + urllib.parse.urlencode({"kind": kind, **parameters}), "POST")

    def heal(self) -> None:
        """Let no fault happen any more."""
        self.ask("/admin/faults", "DELETE")

    def fired(self) -> dict[str, int]:
        """Return how often each kind of fault has happened."""
        counts: dict[str, int] = self.ask("/admin/faults")["fired"]
        return counts

    def traded(self, symbol: str, first_id: int, last_id: int) -> dict[int, tuple[str, str, int]]:
        """Return the market's own trades, whoever was connected: price, size and time in milliseconds by id."""
        found: dict[int, tuple[str, str, int]] = {}
        next_id: int | None = first_id
        while next_id is not None and next_id <= last_id:
            page = self.ask(f"/admin/trades?symbol={symbol}&from_id={next_id}&limit=10000")
            found.update({row[0]: (row[1], row[2], row[5]) for row in page["trades"] if row[0] <= last_id})
            next_id = page["next"]
        return found

    def record(self) -> list[dict[str, Any]]:
        """Return, per connection, what was sent on it."""
        pages: list[dict[str, Any]] = []
        after: int | None = 0
        while after is not None:
            page = self.ask(f"/admin/record?after={after}")
            pages += page["connections"]
            after = page["next"]
        return pages

    def sent_ids(self, symbol: str, channel: str = "aggTrade") -> set[int]:
        """Return the ids of a symbol's channel that were sent on any connection."""
        name = f"{symbol.replace('_', '').lower()}@{channel}"
        return {
            number
            for connection in self.record()
            for first, last in connection["channels"].get(name, {"ids": []})["ids"]
            for number in range(first, last + 1)
        }

    def end(self) -> None:
        """End the process."""
        self._child.stop()


class Database:
    """A real QuestDB as a process that can be killed, frozen, rolled back and asked without the project's client."""

    def __init__(
        self,
        root: Path,
        *,
        heap_max: str = "512m",
        start_timeout_s: float = 120,
        extra_environment: Mapping[str, str] | None = None,
    ) -> None:
        for attempt in range(_START_ATTEMPTS):
            http_port, pg_port = free_ports(2)
            self.server = EmbeddedServer(
                root,
                http_port=http_port,
                pg_port=pg_port,
                heap_max=heap_max,
                start_timeout_s=start_timeout_s,
                extra_environment={"QDB_DEV_MODE_ENABLED": "true", **(extra_environment or {})},
            )
            self.server.install()
            try:
                self.server.start()
            except InstallError:
                self.server.stop()
                if attempt == _START_ATTEMPTS - 1:
                    raise
            else:
                break
        self.http_port, self.pg_port = http_port, pg_port
        self.settings = self.server.settings()
        migrate(self.settings)

    @property
    def pid(self) -> int:
        """The server's process; raise TrialError where it does not run."""
        pid = self.server.status().pid
        if pid is None:
            raise TrialError("QuestDB does not run")
        return pid

    def environment(self, http_port: int | None = None) -> dict[str, str]:
        """Return the variables by which a daemon finds the server, over a proxy where its port is given."""
        password = self.settings.http_password.get_secret_value()
        return {
            "QUESTDB_ILP_HOST": "127.0.0.1",
            "QUESTDB_ILP_PORT": str(http_port or self.http_port),
            "QUESTDB_HTTP_USER": self.settings.http_user,
            "QUESTDB_HTTP_PASSWORD": password,
            "QUESTDB_PG_HOST": "127.0.0.1",
            "QUESTDB_PG_PORT": str(self.pg_port),
            "QUESTDB_PG_USER": self.settings.pg_user,
            "QUESTDB_PG_PASSWORD": password,
        }

    def kill(self) -> None:
        """End the server as a power cut would."""
        pid = self.pid
        os.kill(pid, signal.SIGKILL)
        wait_until(lambda: not self.server.running, "QuestDB to be dead")

    def start(self) -> None:
        """Start the server again; it recovers by itself."""
        self.server.start()

    def freeze(self) -> None:
        """Let the server stand still with all its sockets open."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let the server go on."""
        os.kill(self.pid, signal.SIGCONT)

    def copy(self, destination: Path) -> None:
        """Copy the folder of a server that does not run, as a cold backup does."""
        shutil.rmtree(destination, ignore_errors=True)
        shutil.copytree(self.server.root / "db", destination)

    def restore(self, source: Path) -> None:
        """Put an older copy in place of the folder of a server that does not run."""
        shutil.rmtree(self.server.root / "db")
        shutil.copytree(source, self.server.root / "db")

    def query(self, sql: str, timeout_s: float = 60) -> list[list[Any]]:
        """Ask over ``/exec`` and return the rows; raises OSError where the server does not answer."""
        password = self.settings.http_password.get_secret_value()
        token = base64.b64encode(f"{self.settings.http_user}:{password}".encode()).decode()
        url = f"http://127.0.0.1:{self.http_port}/exec?" + urllib.parse.urlencode({"query": sql})
        request = urllib.request.Request(url, headers={"Authorization": f"Basic {token}"})
        try:
            with urllib.request.urlopen(request, timeout=timeout_s) as answer:
                content = json.load(answer)
        except urllib.error.HTTPError as error:
            raise TrialError(f"QuestDB refused {sql!r}: {error.read()[:300]!r}") from error
        rows: list[list[Any]] = content.get("dataset", [])
        return rows

    def suspend(self, table: str) -> None:
        """Suspend a table's WAL, as a full disk of the server does."""
        self.query(f"alter table {table} suspend wal with 28, 'no space left'")

    def wait_applied(self, bound_s: float = BOUND_S) -> None:
        """Wait until everything that was accepted is visible."""
        sql = "select count() from wal_tables() where sequencerTxn > writerTxn"
        wait_until(lambda: self.query(sql) == [[0]], "QuestDB to apply what it took", bound_s)

    def end(self) -> None:
        """End the server, frozen or not."""
        with contextlib.suppress(TrialError, ProcessLookupError):
            self.thaw()
        with contextlib.suppress(CollectorError):
            self.server.stop()


class Daemon:
    """``collector up`` as a process.

    Args:
        folder: where its configuration, its log and its output are.
        data_dir: where its sessions are; another disk, perhaps.
        command: how it is started; ``collector up`` unless a trial needs another one.
    """

    def __init__(
        self,
        folder: Path,
        *,
        data_dir: Path,
        environment: Mapping[str, str],
        config: str = "",
        command: tuple[str, ...] = ("-m", "collector"),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.data_dir = folder, data_dir
        self._command = command
        self._environment = {
            **{name: value for name, value in os.environ.items() if not name.startswith(("QUESTDB_", "COLLECTOR_"))},
            **environment,
            "COLLECTOR_DEBUG": "1",  # a daemon that ends by a fault of its own says where
        }
        self._config = folder / "config.toml"
        self._place = ("--config", str(self._config), "--data-dir", str(data_dir))
        self._config.write_text(f'[api]\nenabled = false\n[daemon]\nlog_dir = "{folder / "logs"}"\n{config}')
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The process; raise TrialError where it does not run."""
        if self._process is None or self._process.poll() is not None:
            raise TrialError(f"the daemon does not run: {self.output()[-1500:]}")
        return self._process.pid

    @property
    def running(self) -> bool:
        return self._process is not None and self._process.poll() is None

    def start(self, *, wait: bool = True, limits: Mapping[int, tuple[int, int]] | None = None) -> None:
        """Start it, under limits of its own where some are given; wait until it answers."""

        def limit() -> None:
            for kind, values in (limits or {}).items():
                resource.setrlimit(kind, values)

        with (self.folder / "output").open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, *self._command, "up", "--background", *self._place],
                cwd=PROJECT,
                env=self._environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=limit if limits else None,  # noqa: PLW1509 - no other thread of ours holds a lock that it needs
            )
        if wait:
            wait_until(self.answers, "the daemon to answer")

    def answers(self) -> bool:
        """Tell whether it answers; raise TrialError where it has ended."""
        _ = self.pid
        with contextlib.suppress(CollectorError, OSError):
            return bool(ask(self.data_dir, "ping", timeout_s=5))
        return False

    def output(self) -> str:
        """Return what it wrote on its output."""
        try:
            return (self.folder / "output").read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            return ""

    def events(self) -> Iterator[dict[str, Any]]:
        """Yield what is in its log."""
        for path in sorted((self.folder / "logs").glob("collector.log*"), reverse=True):
            for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
                with contextlib.suppress(ValueError):
                    yield json.loads(line)

    def ask(self, command: str, *, timeout_s: float = BOUND_S, **arguments: Any) -> Any:
        """Ask it as the command line does."""
        return ask(self.data_dir, command, arguments, timeout_s=timeout_s)

    def status(self) -> dict[str, Any]:
        """Return its status; empty where it does not answer now."""
        with contextlib.suppress(CollectorError, OSError):
            found: dict[str, Any] = ask(self.data_dir, "status", timeout_s=5)
            return found
        return {}

    def session(self, session_id: str) -> dict[str, Any]:
        """Return a session's status; empty as long as the daemon does not run it."""
        sessions = self.status().get("sessions", [])
        return next((session for session in sessions if session["session_id"] == session_id), {})

    def wait_state(self, session_id: str, *states: str, bound_s: float = BOUND_S) -> dict[str, Any]:
        """Wait until a session is in one of the states; return its status."""

        def reached() -> dict[str, Any] | None:
            session = self.session(session_id)
            return session if session.get("state") in states else None

        found = wait_until(reached, f"{session_id} to be {' or '.join(states)}", bound_s)
        return found or {}

    def wait_rows(self, session_id: str, stream: str, rows: int, bound_s: float = BOUND_S) -> None:
        """Wait until a session has so many durable rows of a stream."""
        wait_until(
            lambda: self.session(session_id).get("rows", {}).get(stream, 0) >= rows, f"{rows} rows of {stream}", bound_s
        )

    def wait_delivered(self, bound_s: float = BOUND_S) -> None:
        """Wait until everything durable is acknowledged and the replica is live."""

        def delivered() -> bool:
            status = self.status()
            database = status.get("questdb", {})
            behind = [s for s in status.get("sessions", []) if s["delivered_rows"] < sum(s["rows"].values())]
            return bool(database.get("state") == "LIVE" and database.get("lag_rows") == 0 and not behind)

        wait_until(delivered, f"delivery: {self.status().get('questdb')}", bound_s, poll_s=0.1)

    def run(self, *arguments: str) -> str:
        """Run one command of the command line with this daemon's configuration; return what it printed."""
        done = subprocess.run(
            [sys.executable, "-m", "collector", *arguments, "--config", str(self._config)],
            cwd=PROJECT, env=self._environment, capture_output=True, text=True, timeout=BOUND_S, check=False,
        )  # fmt: skip
        if done.returncode:
            raise TrialError(f"{' '.join(arguments)}: {done.stdout}{done.stderr}")
        return done.stdout

    def kill(self) -> None:
        """End it as a power cut would: nothing is tidied up."""
        if self._process is not None:
            self._process.kill()
            self._process.wait(timeout=BOUND_S)

    def freeze(self) -> None:
        """Let it stand still."""
        os.kill(self.pid, signal.SIGSTOP)

    def thaw(self) -> None:
        """Let it go on."""
        os.kill(self.pid, signal.SIGCONT)

    def terminate(self, bound_s: float = BOUND_S) -> int:
        """Ask it to end; return its exit code."""
        if self._process is None:
            raise TrialError("the daemon was never started")
        self._process.terminate()
        return self._process.wait(timeout=bound_s)

    def limit(self, kind: int, value: int) -> int:
        """Set a soft limit of the running process, as ``prlimit`` does; return the one before."""
        soft, hard = resource.prlimit(self.pid, kind)
        resource.prlimit(self.pid, kind, (value if hard == resource.RLIM_INFINITY else min(value, hard), hard))
        return soft

    def open_files(self) -> int:
        """Return how many descriptors the process has open."""
        return sum(1 for _ in Path(f"/proc/{self.pid}/fd").iterdir())

    def resident_bytes(self) -> int:
        """Return the resident memory of the process now."""
        pages = int(Path(f"/proc/{self.pid}/statm").read_text(encoding="ascii").split()[1])
        return pages * resource.getpagesize()

    def end(self) -> None:
        """End it, frozen or not."""
        if self.running:
            self.thaw()
            self.kill()


class Disk:
    """A small disk of its own (tmpfs), which can be filled up; only the super-user can make one.

    Args:
        folder: where it is mounted; made.
    """

    def __init__(self, folder: Path, size_mb: int) -> None:
        self.folder = folder
        self._ballast = folder / "ballast"
        folder.mkdir(parents=True)
        command = ["mount", "-t", "tmpfs", "-o", f"size={size_mb}m,mode=0750", "tmpfs", str(folder)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            raise TrialError(f"no disk of its own could be made: {done.stderr.strip()}")

    @staticmethod
    def possible() -> bool:
        """Tell whether this process may mount."""
        return sys.platform == "linux" and os.geteuid() == 0 and shutil.which("mount") is not None

    def fill(self, leave_bytes: int = 0) -> None:
        """Leave no more room than that, and a page; others may be writing meanwhile."""
        with self._ballast.open("ab") as file:
            while (free := shutil.disk_usage(self.folder).free - leave_bytes) >= _PAGE_BYTES:
                with contextlib.suppress(OSError):  # someone was faster: look again
                    os.posix_fallocate(file.fileno(), file.tell(), free // _PAGE_BYTES * _PAGE_BYTES)
                    file.seek(0, os.SEEK_END)

    def empty(self) -> None:
        """Give the room back."""
        self._ballast.unlink(missing_ok=True)

    def end(self) -> None:
        """Unmount it."""
        for _ in range(20):
            if subprocess.run(["umount", str(self.folder)], capture_output=True, check=False).returncode == 0:
                return
            time.sleep(0.2)
        subprocess.run(["umount", "-l", str(self.folder)], capture_output=True, check=False)


class Cadence:
    """Watches from outside when a file grows; a thread, from ``with`` to its end.

    ``intervals_s`` are the seconds between two times at which the file was written to.
    """

    def __init__(self, path: Path, poll_s: float = 0.005) -> None:
        self.path = path
        self.times_ns: list[int] = []
        self._poll_s = poll_s
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(self._poll_s):
            with contextlib.suppress(OSError):
                written_ns = self.path.stat().st_mtime_ns
                if not self.times_ns or written_ns != self.times_ns[-1]:
                    self.times_ns.append(written_ns)

    @property
    def intervals_s(self) -> list[float]:
        """Return the intervals; a flush of several writes is one."""
        return self.between(0, time.time_ns())

    def between(self, first_ns: int, last_ns: int) -> list[float]:
        """Return the intervals that begin in a span of time."""
        times = [at_ns for at_ns in self.times_ns if first_ns <= at_ns <= last_ns]
        return [(b - a) / 1e9 for a, b in pairwise(times) if b - a > 20_000_000]
