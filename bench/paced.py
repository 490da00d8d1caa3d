"""What a trade costs where wake-ups cost more than work: single messages at an even 2,000 a second.

Counted is all CPU of the daemon while the messages flow, from a few seconds after the start on: flushes, candles,
delivery, heartbeats, checks and watching QuestDB are in it.
"""

from __future__ import annotations

import time

from bench.harness import Figure, Place, Result, Scale, load_server, median, symbol_names

RATE = 2000
TARGET_US = 85.0
WARM_UP_S = 3.0


def measure(place: Place, scale: Scale) -> list[Result]:
    """Watch a steady stream through some intervals of equal length."""
    costs: list[float] = []
    with place.daemon() as daemon:
        total_s = WARM_UP_S + scale.runs * scale.paced_s
        with load_server(round((total_s + 2) * RATE), rate=RATE) as (ws_url, rest_url):
            session_id = daemon.start(ws_url, rest_url, symbol_names(1))
            time.sleep(WARM_UP_S)
            for _ in range(scale.runs):
                rows, before_s = daemon.session(session_id)["buffer"]["received"], daemon.cpu_s()
                time.sleep(scale.paced_s)
                used_s = daemon.cpu_s() - before_s
                costs.append(used_s / (daemon.session(session_id)["buffer"]["received"] - rows) * 1e6)
            daemon.wait_until_done(session_id, round((total_s + 2) * RATE), timeout_s=60)
    return [Figure(f"paced: single messages at {RATE:,}/s", median(costs), "µs CPU/trade", TARGET_US)]
