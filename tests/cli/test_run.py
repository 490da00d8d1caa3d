"""Everything in one command: to the simulated exchange where the real one cannot be reached, and cleanly to the end."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from collector.daemon_lock import lock_holder

BOUND_S = 100


@pytest.fixture
def place(tmp_path: Path, free_port: int) -> Path:
    """Give a folder whose configuration collects to CSV alone and knows an exchange that refuses connections."""
    (tmp_path / "config.toml").write_text(
        f'[questdb]\nmode = "off"\n[api]\nenabled = false\n[sim]\nport = {free_port}\nrate = 200\n'
        '[exchange.binance]\nws_url = "ws://127.0.0.1:1"\nrest_url = "http://127.0.0.1:1"\n',
        encoding="utf-8",
    )
    return tmp_path


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "collector", "run", *arguments]


def manifests(place: Path) -> list[dict[str, object]]:
    return [json.loads(path.read_text("utf-8")) for path in sorted((place / "data").glob("session_*/session.json"))]


def test_an_exchange_out_of_reach_is_replaced_by_the_simulated_one(place: Path) -> None:
    """Said in plain words, named in the id, the manifest and every line; completed and verified at the end; exit 0."""
    done = subprocess.run(
        command("--seconds", "2"), cwd=place, capture_output=True, text=True, timeout=BOUND_S, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "binance cannot be reached: " in done.stdout
    assert "exchange=sim, invented prices" in done.stdout
    [manifest] = manifests(place)
    assert manifest["exchange"] == "sim"
    assert "-sim-" in str(manifest["session_id"])
    assert manifest["state"] == "completed"
    assert "exchange=sim BTC_USDT" in done.stdout
    assert "Verify   CSV (no database was asked), candles and trades: equal." in done.stdout
    assert lock_holder(place / "data") is None


def ignore_sigint() -> None:
    """Be as a shell leaves what it starts in the background of a script."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_ctrl_c_completes_the_session(place: Path, number: int) -> None:
    """Flushed, verified, summarised; exit 0; no daemon stays behind; where SIGINT was ignored at the start, too."""
    with subprocess.Popen(
        command("--exchange", "sim"),
        cwd=place,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        preexec_fn=ignore_sigint,  # noqa: PLW1509 - pytest's process has no other threads that hold locks here
    ) as process:
        assert process.stdout is not None
        for line in process.stdout:
            if "live: price" in line:
                process.send_signal(number)
                break
        rest = process.stdout.read()
        assert process.wait(BOUND_S) == 0, rest
    assert "is completed" in rest
    assert "equal." in rest
    assert [manifest["state"] for manifest in manifests(place)] == ["completed"]
    assert lock_holder(place / "data") is None
