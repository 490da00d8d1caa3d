"""What trials and fault tests do with sessions: begin one, let it grow, end and judge it, or write one that ended."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from collector.config import Config
from collector.session.manifest import FileRecord, save_manifest
from collector.session.session import create_manifest
from collector.storage.files import OperatingSystem
from collector.streams import PRICES
from trials.oracle import Verdict, judge_replica, judge_trades
from trials.parts import BOUND_S, Daemon, Database, Exchange, TrialError

_STOP_BOUND_S = 300.0
START_US = 1_700_000_000_000_000


def begin(daemon: Daemon, exchange: Exchange, session_id: str, rows: int = 200) -> Path:
    """Start a session, wait until it has collected so many trades, and return its directory."""
    daemon.ask(
        "start", exchange="sim", symbols=list(exchange.symbols), session_id=session_id,
        ws_url=exchange.ws_url, rest_url=exchange.rest_url,
    )  # fmt: skip
    daemon.wait_rows(session_id, "prices", rows)
    return daemon.data_dir / f"session_{session_id}"


def let_grow(daemon: Daemon, session_id: str, rows: int = 200, bound_s: float = BOUND_S) -> None:
    """Wait until a session has collected so many trades more."""
    before = daemon.session(session_id)["rows"]["prices"]
    daemon.wait_rows(session_id, "prices", before + rows, bound_s)


def finish(daemon: Daemon, database: Database, exchange: Exchange, directory: Path) -> Verdict:
    """Stop everything in order, wait until it is delivered, and judge what is left."""
    daemon.ask("stop", every=True, timeout_s=_STOP_BOUND_S)  # a long session's files are hashed at its end
    daemon.wait_delivered()
    database.wait_applied()
    verdict = Verdict()
    for symbol in exchange.symbols:
        judge_trades(directory, symbol, exchange, verdict)
    judge_replica(database, directory, directory.name.removeprefix("session_"), exchange.symbols, verdict)
    return verdict


def write_session(directory: Path, rows: int = 0, *, times_us: Sequence[int] | None = None) -> Path:
    """Write a session of one symbol's trades, as another daemon would have left it; return its directory.

    Args:
        times_us: the times of its trades; one each millisecond by default.
    """
    (directory / "BTC_USDT").mkdir(parents=True)
    times_us = times_us if times_us is not None else range(START_US, START_US + rows * 1000, 1000)
    with (directory / "BTC_USDT" / "prices.csv").open("w", encoding="utf-8") as file:
        file.write(PRICES.header)
        for seq, at_us in enumerate(times_us, 1):
            side = "buy" if seq % 2 else "sell"
            price, quote = f"{60_000 + seq % 1000}.{seq % 90 + 10}", f"{30_000 + seq % 500}.250"
            file.write(f"{at_us},{price},0.5,{quote},{side},{seq},{seq},{max(at_us, 0)},ws,{seq},{seq}\n")
    manifest = create_manifest(
        session_id=directory.name.removeprefix("session_"),
        exchange="sim",
        symbols=("BTC_USDT",),
        data_types=("prices",),
        now_us=START_US,
        config=Config(),
    )
    manifest.state = "completed"
    count = len(times_us)
    manifest.files.append(FileRecord("prices", "BTC_USDT", "BTC_USDT/prices.csv", count, next_seq=count + 1))
    save_manifest(directory, manifest, OperatingSystem())
    return directory


def cpu_s(pid: int) -> float:
    """Return the CPU seconds that a process has used; raise TrialError where the system does not tell."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    except OSError as error:
        raise TrialError("this system does not tell a process's CPU time") from error
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def peak_bytes(pid: int) -> int:
    """Return the most memory that a process ever had resident; raise TrialError where the system does not tell."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines()
        return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM:"))
    except (OSError, StopIteration) as error:
        raise TrialError("this system does not tell the peak of a process's memory") from error
