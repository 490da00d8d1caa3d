"""50,000 trades a second for a minute, with the daemon on one core, and nothing dropped.

The daemon is kept to core 0, the load server to the others where there are any; QuestDB is kept nowhere. What is
dropped, missing or refused makes the benchmark fail instead of giving a figure.
"""

from __future__ import annotations

import os

from bench.harness import Figure, Place, Result, Scale, load_server, symbol_names

RATE = 50_000
SYMBOLS = 10
TIMEOUT_MARGIN_S = 60.0
MAX_LATE = 1.02  # the load server may be so much behind its beat until the rate does not count as sustained


def measure(place: Place, scale: Scale) -> list[Result]:
    """Send for a minute; look how long the daemon needs beyond it, and how much of its core."""
    count = round(RATE * scale.sustained_s)
    server_core = 1 if (os.cpu_count() or 1) > 1 else None
    with (
        place.daemon(core=0) as daemon,
        load_server(count, symbols=SYMBOLS, rate=RATE, core=server_core) as (ws_url, rest_url),
    ):
        before_s = daemon.cpu_s()
        session_id = daemon.start(ws_url, rest_url, symbol_names(SYMBOLS))
        status = daemon.wait_until_done(session_id, count, timeout_s=scale.sustained_s + TIMEOUT_MARGIN_S, poll_s=1)
        used_s = daemon.cpu_s() - before_s
    lasted_s = (status["ended_us"] - status["created_us"]) / 1e6
    rate = count / lasted_s
    return [
        Figure(
            f"sustained for {scale.sustained_s:g} s on one core, nothing dropped",
            rate,
            "trades/s",
            RATE / MAX_LATE,
            "higher",
            note=f"sent at {RATE:,}/s",
        ),
        Figure("sustained: share of the core", used_s / lasted_s * 100, "%"),
        Figure("sustained: the longest flush", status["flush_max_s"], "s"),
    ]
