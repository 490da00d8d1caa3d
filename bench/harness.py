"""What every benchmark needs: a daemon as a process of its own, a load server as another, a real QuestDB, and figures.

CPU is that of the daemon's process alone, as the system accounts it (all of its threads; neither the load server nor
QuestDB, which are other processes). Where the machine has something else to do, CPU per trade stays comparable, and
wall-clock figures do not.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from collector.config import Config, load_config
from collector.control import ask
from collector.errors import CollectorError, DaemonNotRunning
from collector.storage.embedded import EmbeddedServer

PROJECT = Path(__file__).resolve().parent.parent
START_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 60.0
POLL_S = 0.1


@dataclass(frozen=True, slots=True)
class Figure:
    """One measured number, and what it is to be: at most, or at least, the target; None where there is no target."""

    name: str
    value: float
    unit: str
    target: float | None = None
    better: Literal["lower", "higher"] = "lower"
    note: str = ""

    @property
    def reached(self) -> bool | None:
        """Whether the target is reached; None without one."""
        if self.target is None:
            return None
        return self.value <= self.target if self.better == "lower" else self.value >= self.target


@dataclass(frozen=True, slots=True)
class Skipped:
    """A figure that could not be measured here, and why."""

    name: str
    reason: str


Result = Figure | Skipped


@dataclass(frozen=True, slots=True)
class Scale:
    """How long the benchmarks take: ``--quick`` is for trying them, and its figures are not to be quoted."""

    flood_trades: int = 500_000
    paced_s: float = 20.0
    sustained_s: float = 60.0
    latency_s: float = 20.0
    memory_s: float = 30.0
    runs: int = 3
    read_rows: int = 10_000_000
    api_clients: int = 50
    api_rows: int = 1_000_000


QUICK = Scale(
    flood_trades=100_000,
    paced_s=5.0,
    sustained_s=10.0,
    latency_s=6.0,
    memory_s=8.0,
    runs=1,
    read_rows=500_000,
    api_clients=10,
    api_rows=100_000,
)


def median(values: Sequence[float]) -> float:
    """Return the middle value; of an even number, the lower one of the two in the middle."""
    return sorted(values)[(len(values) - 1) // 2]


def percentile(values: Sequence[float], share: float) -> float:
    """Return the smallest value that so many (0 … 1) of all are not above."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


# Processes


def cpu_s(pid: int) -> float:
    """Return the CPU time of a process so far, in seconds: all of its threads, none of its children."""
    if sys.platform == "linux":
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
    shown = subprocess.run(["/bin/ps", "-o", "cputime=", "-p", str(pid)], capture_output=True, text=True, check=True)
    total = 0.0
    for part in shown.stdout.strip().replace("-", ":").split(":"):
        total = total * 60 + float(part)
    return total


def resident_mb(pid: int, *, peak: bool = False) -> float:
    """Return the resident memory of a process, in MB; its peak where the system tells it."""
    if sys.platform == "linux":
        wanted = "VmHWM:" if peak else "VmRSS:"
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith(wanted):
                return int(line.split()[1]) / 1000
    shown = subprocess.run(["/bin/ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=True)
    return int(shown.stdout) / 1000


def free_ports(count: int) -> list[int]:
    """Ask the system for ports that are free now."""
    with contextlib.ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


def keep_to_core(core: int) -> bool:
    """Keep this process, and the children it starts from now on, to one core; False where the system cannot."""
    if not hasattr(os, "sched_setaffinity"):
        return False
    os.sched_setaffinity(0, {core})
    return True


@contextlib.contextmanager
def pinned(core: int | None) -> Iterator[bool]:
    """Keep children that are started meanwhile to one core (None: to none); tell whether it worked."""
    if core is None or not hasattr(os, "sched_setaffinity"):
        yield False
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {core})
    try:
        yield True
    finally:
        os.sched_setaffinity(0, before)


@contextlib.contextmanager
def server_process(module: str, *arguments: str, core: int | None = None) -> Iterator[dict[str, Any]]:
    """Run a server that prints one line of JSON about itself (its port), and end it."""
    with pinned(core):
        process = subprocess.Popen(
            [sys.executable, "-m", module, *arguments],
            cwd=PROJECT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    with process:
        try:
            if process.stdout is None:
                raise RuntimeError(f"{module} has no output")
            line = process.stdout.readline()
            if not line:
                raise RuntimeError(f"{module} has ended before it served")
            yield {**json.loads(line), "pid": process.pid}
        finally:
            process.terminate()


@contextlib.contextmanager
def load_server(count: int, *, symbols: int = 1, rate: float = 0, core: int | None = None) -> Iterator[tuple[str, str]]:
    """Run ``bench.blast``; yield its websocket and REST addresses."""
    arguments = ["--count", str(count), "--symbols", str(symbols), "--rate", str(rate)]
    with server_process("bench.blast", *arguments, core=core) as facts:
        yield f"ws://127.0.0.1:{facts['port']}", f"http://127.0.0.1:{facts['port']}"


def symbol_names(count: int) -> list[str]:
    """Return the symbols of the load server as the project writes them."""
    return [f"S{n:04d}_USDT" for n in range(count)]


# The daemon


@dataclass(slots=True)
class Place:
    """A data directory of its own with a QuestDB of its own, on ports that the system chose."""

    folder: Path
    config_path: Path = field(init=False)
    config: Config = field(init=False)

    def __post_init__(self) -> None:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.config_path = self.folder / "config.toml"
        http_port, pg_port, api_port, sim_port = free_ports(4)
        self.config_path.write_text(
            f'[daemon]\ndata_dir = "{self.folder}"\nlog_dir = "{self.folder / "logs"}"\n'
            f"[questdb]\nilp_port = {http_port}\npg_port = {pg_port}\n"
            f"[api]\nport = {api_port}\n[sim]\nport = {sim_port}\n",
            encoding="utf-8",
        )
        self.config = load_config(self.config_path)

    @property
    def database(self) -> EmbeddedServer:
        """Return the place's QuestDB."""
        return EmbeddedServer.from_config(self.config)

    def forget_sessions(self) -> None:
        """Remove what earlier daemons recorded, so that the next one has nothing to take up."""
        for directory in self.folder.glob("session_*"):
            shutil.rmtree(directory)

    @contextlib.contextmanager
    def daemon(self, *, core: int | None = None) -> Iterator[DaemonProcess]:
        """Run a daemon with the default configuration (ports aside), as ``collector up`` does; end it afterwards."""
        self.forget_sessions()
        log = (self.folder / "daemon.out").open("wb")
        with log, pinned(core):
            process = subprocess.Popen(
                [sys.executable, "-m", "collector", "up", "--background", "--config", str(self.config_path)],
                cwd=PROJECT,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={key: value for key, value in os.environ.items() if not key.startswith(("QUESTDB_", "COLLECTOR_"))},
            )
        daemon = DaemonProcess(self, process)
        try:
            daemon.wait_until_live()
            yield daemon
        finally:
            daemon.end()

    def close(self) -> None:
        """End the QuestDB and remove everything."""
        with contextlib.suppress(CollectorError):
            self.database.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


@dataclass(slots=True)
class DaemonProcess:
    """A running daemon, as the benchmarks see it: over its control socket, and from outside."""

    place: Place
    process: subprocess.Popen[bytes]

    @property
    def pid(self) -> int:
        return self.process.pid

    def cpu_s(self) -> float:
        """Return the CPU time that the process has used, in seconds."""
        return cpu_s(self.pid)

    def ask(self, command: str, arguments: dict[str, Any] | None = None, *, timeout_s: float = 60) -> Any:
        """Ask the daemon, as the command line does."""
        return ask(self.place.folder, command, arguments, timeout_s=timeout_s)

    def wait_until_live(self) -> None:
        """Wait until it answers and its QuestDB takes rows."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while time.monotonic() < deadline:
            if self.process.poll() is not None:
                output = (self.place.folder / "daemon.out").read_text(errors="replace")
                raise RuntimeError(f"the daemon ended while starting: {output[-2000:]}")
            with contextlib.suppress(DaemonNotRunning):
                if self.ask("status")["questdb"]["state"] == "LIVE":
                    return
            time.sleep(POLL_S)
        raise RuntimeError(f"the daemon was not live within {START_TIMEOUT_S:g} s")

    def start(self, ws_url: str, rest_url: str, symbols: Sequence[str], **order: Any) -> str:
        """Start a session that collects trades from an address; return its id."""
        arguments = {
            "exchange": "binance",
            "symbols": list(symbols),
            "data_types": ["prices"],
            "ws_url": ws_url,
            "rest_url": rest_url,
            "recording": "bench",
            **order,
        }
        return str(self.ask("start", arguments)["session_id"])

    def session(self, session_id: str) -> dict[str, Any]:
        """Return a session's status."""
        found: dict[str, Any] = next(
            session for session in self.ask("status")["sessions"] if session["session_id"] == session_id
        )
        return found

    def wait_until_delivered(self, session_id: str, *, timeout_s: float, poll_s: float = 0.25) -> dict[str, Any]:
        """Wait until a session has ended and QuestDB has acknowledged all of its rows; return its status.

        Raises:
            RuntimeError: the session failed, or it took too long.
        """
        deadline = time.monotonic() + timeout_s
        while time.monotonic() < deadline:
            status = self.session(session_id)
            if status["state"] == "failed":
                raise RuntimeError(f"the session failed: {status['reason']}")
            if status["state"] == "completed" and status["delivered_rows"] >= sum(status["rows"].values()):
                return status
            time.sleep(poll_s)
        raise RuntimeError(f"the session was not done within {timeout_s:g} s")

    def wait_until_done(
        self, session_id: str, trades: int, *, timeout_s: float, poll_s: float = 0.25
    ) -> dict[str, Any]:
        """Wait as ``wait_until_delivered`` and look whether exactly the trades that were sent are there.

        Raises:
            RuntimeError: it lost, dropped or refused something, or as above.
        """
        status = self.wait_until_delivered(session_id, timeout_s=timeout_s, poll_s=poll_s)
        written, dropped = status["rows"]["prices"], status["buffer"]["dropped"]
        if written != trades or dropped or status["gaps"] or status["rejected_rows"] or status["errors"]:
            raise RuntimeError(
                f"{trades} trades were sent and {written} written: dropped {dropped}, gaps {status['gaps']},"
                f" rejected {status['rejected_rows']}, errors {status['errors']}"
            )
        return status

    def end(self) -> None:
        """End the daemon and wait for it; its QuestDB goes on."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
