"""The simulated servers as processes: they say when they listen, and end with whoever started them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

from collector.errors import CollectorError
from collector.feeds.recording import format_line
from collector.sim.child import Child, start_exchange, start_replay

FRAME = format_line(1, 1, "<", '{"stream":"btcusdt@aggTrade","data":{"n":1}}')


def status(child: Child) -> dict[str, object]:
    answer: dict[str, object] = httpx.get(f"{child.rest_url}/admin/status", trust_env=False).json()
    return answer


def test_the_exchange_runs_as_a_child() -> None:
    """The exchange listens with the symbols and the seed that were asked for, and ends when it is told to."""
    with start_exchange(symbols=["SOL_EUR"], seed=5, faults=["skip:n=3"]) as child:
        told = status(child)
        assert (told["symbols"], told["seed"]) == (["SOL_EUR"], 5)
        faults = httpx.get(f"{child.rest_url}/admin/faults", trust_env=False).json()
        assert [fault["kind"] for fault in faults["armed"]] == ["skip"]
    assert child.process.returncode == 0


def test_a_replay_runs_as_a_child(tmp_path: Path) -> None:
    """A replay server listens once it has looked through its recording, and says what that lacks."""
    path = tmp_path / "-raw.rec"
    path.write_bytes(FRAME)
    with start_replay(
        path, exchange="binance", symbols=["BTC_USDT"], speed="max", data_types=["prices", "orderbook"], again=True
    ) as child:
        assert status(child)["frames"] == 1
        assert child.ready["missing_channels"] == ["btcusdt@depth"]
    assert child.stop() == 0


def test_what_cannot_start_says_why(tmp_path: Path) -> None:
    """A server that cannot start is an error with its own words."""
    with pytest.raises(CollectorError, match="Did you mean skip"):
        start_exchange(faults=["skipp"])
    with pytest.raises(CollectorError, match="cannot be read"):
        start_replay(tmp_path / "none.rec", exchange="binance", symbols=["BTC_USDT"], raw_trades=True)


def test_what_takes_too_long_is_ended() -> None:
    """A server that says nothing in time is ended, and that is the error."""
    with pytest.raises(CollectorError, match="no word within"):
        start_exchange(timeout_s=0.000001)


def run(*arguments: str) -> subprocess.Popen[bytes]:
    return subprocess.Popen(
        [sys.executable, "-m", "collector.sim", *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )


def test_a_server_ends_when_its_parent_does() -> None:
    """A server that follows its parent ends when its standard input is closed; SIGTERM ends it cleanly, too."""
    for end in (lambda p: p.stdin.close(), lambda p: os.kill(p.pid, signal.SIGTERM)):
        with run("exchange", "--follow-parent") as process:
            assert process.stdout is not None
            ready = json.loads(process.stdout.readline())
            assert (ready["event"], ready["pid"]) == ("ready", process.pid)
            end(process)
            assert process.wait(20) == 0


def test_wrong_arguments_are_a_usage_error() -> None:
    """A wrong argument ends the process with 2."""
    with run("exchange", "--no-such-thing") as process:
        assert process.wait(20) == 2
