"""Start a simulated server as a child process that ends with whoever started it."""

from __future__ import annotations

import json
import select
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from collector.errors import CollectorError


class Child:
    """A simulated server in a process of its own; leave the block, or call ``stop``, to end it.

    It also ends by itself when this process dies: it watches its standard input. ``ready`` is all it said when it
    listened: a replay's ``frames``, and ``missing_channels``, which the client will ask for and it does not have.
    """

    def __init__(self, process: subprocess.Popen[bytes], ready: dict[str, Any]) -> None:
        self.process = process
        self.pid = process.pid
        self.ws_url: str = ready["ws_url"]
        self.rest_url: str = ready["rest_url"]
        self.port: int = ready["port"]
        self.ready = ready

    def stop(self, timeout_s: float = 5) -> int:
        """End the process and return its exit code."""
        # The pipe is closed afterwards: a signal that comes while it ends for that reason would kill it.
        self.process.terminate()
        try:
            return self.process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait(timeout_s)
        finally:
            for pipe in (self.process.stdin, self.process.stdout):
                if pipe:
                    pipe.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def start_exchange(
    *,
    port: int = 0,
    seed: int = 1,
    rate: float = 50,
    symbols: Sequence[str] = ("BTC_USDT", "ETH_USDT"),
    faults: Sequence[str] = (),
    timeout_s: float = 20,
) -> Child:
    """Start the simulated exchange and wait until it listens.

    Raises:
        CollectorError: it did not start; the message is its own.
    """
    arguments = ["exchange", f"--port={port}", f"--seed={seed}", f"--rate={rate}", f"--symbols={','.join(symbols)}"]
    return _start([*arguments, *(f"--fault={fault}" for fault in faults)], timeout_s)


def start_replay(
    path: Path,
    *,
    exchange: str,
    symbols: Sequence[str],
    speed: str = "real",
    data_types: Sequence[str] | None = None,
    raw_trades: bool = False,
    port: int = 0,
    again: bool = False,
    timeout_s: float = 120,
) -> Child:
    """Start a replay server and wait until it listens: it looks through the whole recording before.

    Args:
        data_types: all that the session subscribes to (``klines`` too, where it does), so that it begins when it has.
        again: play from the first frame again for the next client once all have gone.

    Raises:
        CollectorError: it did not start; the message is its own.
    """
    arguments = ["replay", f"--exchange={exchange}", f"--symbols={','.join(symbols)}", f"--speed={speed}"]
    arguments += [f"--port={port}", *(["--again"] if again else []), *(["--trades=raw"] if raw_trades else [])]
    if data_types is not None:
        arguments.append(f"--data-types={','.join(data_types)}")
    return _start([*arguments, "--", str(path)], timeout_s)


def start_history(
    *,
    port: int = 0,
    seed: int = 1,
    symbols: Sequence[str] = ("BTC_USDT", "ETH_USDT"),
    quiet: Sequence[str] = (),
    faults: Sequence[str] = (),
    limits: bool = True,
    remember: bool = False,
    timeout_s: float = 20,
) -> Child:
    """Start the simulated sources of history and wait until they listen; ``ready["addresses"]`` has each one's.

    Raises:
        CollectorError: they did not start; the message is their own.
    """
    arguments = ["history", f"--port={port}", f"--seed={seed}", f"--symbols={','.join(symbols)}"]
    arguments += [f"--quiet={','.join(quiet)}", *([] if limits else ["--no-limits"])]
    arguments += ["--remember"] if remember else []
    return _start([*arguments, *(f"--fault={fault}" for fault in faults)], timeout_s)


def _start(arguments: Sequence[str], timeout_s: float) -> Child:
    with tempfile.TemporaryFile() as complaint:
        process = subprocess.Popen(
            [sys.executable, "-m", "collector.sim", arguments[0], "--follow-parent", *arguments[1:]],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaint,
            start_new_session=True,  # Ctrl-C in the terminal is for the parent, which ends this when it is done
        )
        line = _first_line(process.stdout, timeout_s) if process.stdout else b""
        if line:
            return Child(process, json.loads(line))
        process.kill()
        process.communicate()
        complaint.seek(0)
        reason = complaint.read().decode(errors="replace").strip().rpartition("\n")[2]
        raise CollectorError(f"The simulated server did not start: {reason or f'no word within {timeout_s:g} s'}")


def _first_line(pipe: IO[bytes], timeout_s: float) -> bytes:
    """Read the first line, or nothing where the process ends or takes too long."""
    deadline = time.monotonic() + timeout_s
    while (left := deadline - time.monotonic()) > 0:
        if select.select([pipe], [], [], left)[0]:
            return pipe.readline()
    return b""
