"""Tell systemd how the daemon does (``Type=notify``); without systemd nothing happens."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket


def notify(state: str) -> bool:
    """Send a state (``READY=1``, ``STOPPING=1``, ``WATCHDOG=1``) and return whether anybody was told."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel, contextlib.suppress(OSError):
        channel.connect(address.replace("@", "\0", 1) if address.startswith("@") else address)
        channel.sendall(state.encode())
        return True
    return False


def notify_ready() -> None:
    """Say that commands are answered now."""
    notify("READY=1")


def notify_stopping() -> None:
    """Say that the daemon is ending."""
    notify("STOPPING=1")


def watchdog_interval_s() -> float | None:
    """Return how often systemd's watchdog wants to hear from us (half its limit), None where it does not."""
    limit_us = os.environ.get("WATCHDOG_USEC", "")
    meant = os.environ.get("WATCHDOG_PID", str(os.getpid())) == str(os.getpid())
    return int(limit_us) / 2_000_000 if meant and limit_us.isdigit() and int(limit_us) > 0 else None


async def keep_watchdog() -> None:
    """Tell the watchdog, as often as it wants, that the event loop still turns; runs until cancelled."""
    interval_s = watchdog_interval_s()
    while interval_s is not None:
        notify("WATCHDOG=1")
        await asyncio.sleep(interval_s)
