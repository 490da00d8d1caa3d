"""500 symbols at once, as fast as they are taken: what a trade costs, and how long a flush of 500 files lasts."""

from __future__ import annotations

from bench.harness import Figure, Place, Result, Scale, load_server, median, resident_mb, symbol_names

SYMBOLS = 500
TIMEOUT_S = 300.0


def measure(place: Place, scale: Scale) -> list[Result]:
    """Run the flood over 500 symbols several times through one daemon."""
    costs: list[float] = []
    flushes: list[float] = []
    with place.daemon() as daemon:
        for _ in range(scale.runs):
            with load_server(scale.flood_trades, symbols=SYMBOLS) as (ws_url, rest_url):
                before_s = daemon.cpu_s()
                session_id = daemon.start(ws_url, rest_url, symbol_names(SYMBOLS))
                status = daemon.wait_until_done(session_id, scale.flood_trades, timeout_s=TIMEOUT_S, poll_s=0.5)
                costs.append((daemon.cpu_s() - before_s) / scale.flood_trades * 1e6)
                flushes.append(status["flush_max_s"])
        peak_mb = resident_mb(daemon.pid, peak=True)
    return [
        Figure(f"{SYMBOLS} symbols at once: socket to CSV and QuestDB", median(costs), "µs CPU/trade"),
        Figure(f"{SYMBOLS} symbols at once: the longest flush", median(flushes), "s", note="wall clock"),
        Figure(f"{SYMBOLS} symbols at once: peak memory in the flood", peak_mb, "MB"),
    ]
