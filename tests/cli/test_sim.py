"""``collector sim`` as a person runs it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import httpx
import pytest


def run(*arguments: str, folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "collector", "sim", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=folder,
    )


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_serves_until_it_is_ended(tmp_path: Path, number: int) -> None:
    """It prints its addresses, serves what was asked for, and ends cleanly on Ctrl-C and SIGTERM."""
    arguments = "--port", "0", "--symbols", "sol-eur", "--seed", "9", "--fault", "skip:n=2", "--json"
    with run(*arguments, folder=tmp_path) as process:
        assert process.stdout is not None
        address = json.loads(process.stdout.readline())
        status = httpx.get(f"{address['rest_url']}/admin/status", trust_env=False).json()
        assert (status["exchange"], status["symbols"], status["seed"]) == ("sim", ["SOL_EUR"], 9)
        process.send_signal(number)
        assert process.wait(20) == 0


def test_it_says_what_it_is(tmp_path: Path) -> None:
    """In words, its first line says that it is simulated; faults of the configuration are armed, too."""
    (tmp_path / "config.toml").write_text('[sim]\nfaults = ["drop:after=9"]\nrate = 7\n')
    with run("--port", "0", folder=tmp_path) as process:
        assert process.stdout is not None
        first, second = process.stdout.readline(), process.stdout.readline()
        assert "exchange=sim" in first
        assert "7 messages/s" in second
        rest_url = first.split()[-1]
        faults = httpx.get(f"{rest_url}/admin/faults", trust_env=False).json()
        assert [fault["kind"] for fault in faults["armed"]] == ["drop"]
        process.terminate()
        assert process.wait(20) == 0


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--fault", "dorp"), "drop"),
        (("--symbols", "BTCUSDT"), "BTC_USDT"),
        (("--rate", "0"), "rate"),
        (("--config", "none.toml"), "none.toml"),
    ],
)
def test_wrong_usage_is_said_in_a_sentence(tmp_path: Path, arguments: tuple[str, ...], said: str) -> None:
    """A wrong option is wrong usage, with what was meant."""
    with run(*arguments, folder=tmp_path) as process:
        _, complaint = process.communicate(timeout=20)
        assert process.returncode == 2
        assert said in complaint
        assert "Traceback" not in complaint
