"""The daemon as a process: up, a second one refused, down; and what a person is told when it does not start."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from collector.cli.daemon import _complaint
from collector.control import ask
from collector.daemon_lock import lock_holder

BOUND_S = 60


@pytest.fixture
def place(tmp_path: Path, free_port: int) -> Iterator[Path]:
    """Give a folder with a configuration for CSV alone; a daemon that is left there is ended."""
    (tmp_path / "config.toml").write_text(
        f'[questdb]\nmode = "off"\n[api]\nenabled = false\n[sim]\nport = {free_port}\nrate = 200\n', encoding="utf-8"
    )
    yield tmp_path
    pid = lock_holder(tmp_path / "data")
    if pid:
        os.kill(pid, signal.SIGKILL)


def run(place: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "collector", *arguments],
        cwd=place,
        capture_output=True,
        text=True,
        timeout=BOUND_S,
        check=False,
    )


def test_up_detached_a_second_one_refused_and_down(place: Path) -> None:
    """The daemon answers once the command returns; one data directory has one daemon; down ends it."""
    up = run(place, "up", "--detach")
    assert up.returncode == 0, up.stderr
    pid = lock_holder(place / "data")
    assert f"pid {pid}" in up.stdout
    second = run(place, "up")
    assert second.returncode == 1
    assert f"error: A daemon (pid {pid}) already owns" in second.stderr
    assert "Traceback" not in second.stderr
    third = run(place, "up", "--detach")
    assert third.returncode == 1
    assert f"(pid {pid}) already owns" in third.stderr
    down = run(place, "down", "--json")
    assert json.loads(down.stdout) == {"stopped": True, "pid": pid}
    assert lock_holder(place / "data") is None


def test_start_without_a_daemon_starts_one(place: Path) -> None:
    """From nothing to a session of the simulated exchange, which stop completes."""
    started = run(place, "start", "--exchange", "sim", "--symbols", "BTC_USDT", "--json")
    assert started.returncode == 0, started.stderr
    assert "starting one in the background" in started.stderr
    session_id = json.loads(started.stdout)["session_id"]
    assert "-sim-" in session_id
    stopped = run(place, "stop", "--all", "--json")
    assert [one["state"] for one in json.loads(stopped.stdout)] == ["completed"]
    assert run(place, "down").returncode == 0


def test_a_typo_starts_no_daemon(place: Path) -> None:
    """What can be checked is checked before anything is started or written."""
    refused = run(place, "start", "--exchange", "sym", "--symbols", "BTC_USDT")
    assert refused.returncode == 2
    assert [path.name for path in place.iterdir()] == ["config.toml"]


def test_a_daemon_that_cannot_start_says_why(place: Path) -> None:
    """The reason comes from the daemon itself, not from its absence."""
    (place / "data").write_text("in the way", encoding="utf-8")
    up = run(place, "up", "--detach")
    assert up.returncode == 1
    assert up.stderr.startswith("error: The daemon did not start: ")
    assert "is a file" in up.stderr


def test_a_mistake_in_the_configuration_is_told_by_up_itself(place: Path) -> None:
    """Before anything is started."""
    (place / "config.toml").write_text("[daemn]\n", encoding="utf-8")
    up = run(place, "up", "--detach")
    assert (up.returncode, up.stderr.splitlines()[0]) == (2, "error: Unknown key 'daemn' in config.toml.")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_the_foreground_daemon_ends_cleanly_on_a_signal(place: Path, number: int) -> None:
    """As systemd and Ctrl-C do it: exit 0, readable lines on the terminal, JSON in the file."""
    with subprocess.Popen(
        [sys.executable, "-m", "collector", "up"], cwd=place, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        lines: list[str] = []
        ready = threading.Event()

        def read() -> None:
            assert process.stderr is not None
            for line in process.stderr:
                lines.append(line)
                if "daemon.ready" in line:
                    ready.set()

        reader = threading.Thread(target=read)
        reader.start()
        assert ready.wait(BOUND_S), lines
        assert ask(place / "data", "ping")["pid"] == process.pid
        process.send_signal(number)
        assert process.wait(BOUND_S) == 0
        reader.join(BOUND_S)
    assert not any(line.startswith("{") for line in lines)
    in_file = [json.loads(line) for line in (place / "logs" / "collector.log").read_text("utf-8").splitlines()]
    assert "daemon.ready" in [line["event"] for line in in_file]


def test_down_waits_until_the_daemon_has_gone(daemon: Any, collector: Callable[..., Any]) -> None:
    """The lock is free when the command returns."""
    outcome = collector("down", "--data-dir", daemon.data_dir)
    assert outcome.status == 0
    assert "has ended" in outcome.out
    assert lock_holder(daemon.data_dir) is None


@pytest.mark.parametrize(
    ("said", "complaint"),
    [
        (b"", "it said nothing."),
        (b"error: No.\nhint: Do.\n", "No. Do."),
        (b"x\n" * 100 + b"error: No.\n", "x No."),
    ],
)
def test_the_last_words_of_a_daemon_are_repeated(tmp_path: Path, said: bytes, complaint: str) -> None:
    """Without the words that mark them as an error."""
    (tmp_path / "daemon.out").write_bytes(said)
    assert _complaint(tmp_path) == complaint


def test_no_last_words_are_no_error(tmp_path: Path) -> None:
    """Nothing was written at all."""
    assert _complaint(tmp_path) == "it said nothing."
