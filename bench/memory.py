"""Resident memory of a daemon that collects 500 symbols' trades, with candles, delivery and the API served.

``peak`` is the most it ever held; what the same daemon holds before any session is told beside it, because most of it
is imported code.
"""

from __future__ import annotations

import time

from bench.harness import Figure, Place, Result, Scale, load_server, resident_mb, symbol_names

SYMBOLS = 500
RATE = 5000
TARGET_MB = 200.0


def measure(place: Place, scale: Scale) -> list[Result]:
    """Read what the system says of a fresh process, before, while and after it collects."""
    count = round(RATE * scale.memory_s)
    with place.daemon() as daemon, load_server(count, symbols=SYMBOLS, rate=RATE) as (ws_url, rest_url):
        idle_mb = resident_mb(daemon.pid)
        session_id = daemon.start(ws_url, rest_url, symbol_names(SYMBOLS))
        time.sleep(scale.memory_s / 2)
        used_mb = resident_mb(daemon.pid)
        daemon.wait_until_done(session_id, count, timeout_s=scale.memory_s + 60, poll_s=1)
        peak_mb = resident_mb(daemon.pid, peak=True)
    return [
        Figure(f"memory: peak with {SYMBOLS} symbols at {RATE:,} trades/s", peak_mb, "MB", TARGET_MB),
        Figure(f"memory: while it collects {SYMBOLS} symbols", used_mb, "MB"),
        Figure("memory: before any session", idle_mb, "MB"),
    ]
