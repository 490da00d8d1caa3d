"""Telling systemd: a datagram where somebody listens, nothing where nobody does."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from collector import systemd


@pytest.fixture
def listener(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """Listen where systemd would."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as listening:
        listening.bind(str(tmp_path / "notify"))
        listening.settimeout(10)
        monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "notify"))
        yield listening


def test_the_states_reach_systemd(listener: socket.socket) -> None:
    """READY and STOPPING arrive as systemd spells them."""
    systemd.notify_ready()
    systemd.notify_stopping()
    assert [listener.recv(100), listener.recv(100)] == [b"READY=1", b"STOPPING=1"]


@pytest.mark.parametrize("address", ["", "relative", "/nobody/listens/here"])
def test_without_systemd_nothing_happens(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """No address, a wrong one or a dead one is no error."""
    monkeypatch.setenv("NOTIFY_SOCKET", address)
    assert systemd.notify("READY=1") is False


@pytest.mark.parametrize(
    ("limit_us", "pid", "interval_s"),
    [("30000000", "", 15.0), ("30000000", "own", 15.0), ("30000000", "1", None), ("", "", None), ("0", "", None)],
)
def test_the_watchdog_is_told_twice_in_its_limit(
    limit_us: str, pid: str, interval_s: float | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the limit, and only where this process is meant."""
    monkeypatch.setenv("WATCHDOG_USEC", limit_us)
    monkeypatch.delenv("WATCHDOG_PID", raising=False)
    if pid:
        monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "own" else pid)
    assert systemd.watchdog_interval_s() == interval_s


def test_the_watchdog_hears_from_the_event_loop(listener: socket.socket, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told again and again until cancelled."""
    monkeypatch.setenv("WATCHDOG_USEC", "2000")
    monkeypatch.delenv("WATCHDOG_PID", raising=False)

    async def keep() -> None:
        async with asyncio.TaskGroup() as tasks:
            keeping = tasks.create_task(systemd.keep_watchdog())
            for _ in range(3):
                assert await asyncio.to_thread(listener.recv, 100) == b"WATCHDOG=1"
            keeping.cancel()

    asyncio.run(keep())


def test_without_a_watchdog_keeping_it_ends_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """There is nothing to keep."""
    monkeypatch.delenv("WATCHDOG_USEC", raising=False)
    asyncio.run(asyncio.wait_for(systemd.keep_watchdog(), 10))
