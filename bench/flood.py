"""What a trade costs from the socket to an acknowledged row in QuestDB, candles included, as fast as it is taken.

The load server sends 210-byte ``aggTrade`` frames of one symbol without a pause. Counted is the daemon's CPU from the
order to start the session until QuestDB has acknowledged its last row, whatever the daemon does meanwhile.
"""

from __future__ import annotations

from bench.harness import Figure, Place, Result, Scale, load_server, median, symbol_names

TARGET_US = 12.0
TIMEOUT_S = 300.0


def measure(place: Place, scale: Scale) -> list[Result]:
    """Run the flood several times through one daemon, a session each; the first is for warming up."""
    costs: list[float] = []
    rates: list[float] = []
    with place.daemon() as daemon:
        for _ in range(scale.runs + 1):
            with load_server(scale.flood_trades) as (ws_url, rest_url):
                before_s = daemon.cpu_s()
                session_id = daemon.start(ws_url, rest_url, symbol_names(1))
                status = daemon.wait_until_done(session_id, scale.flood_trades, timeout_s=TIMEOUT_S)
                costs.append((daemon.cpu_s() - before_s) / scale.flood_trades * 1e6)
                rates.append(scale.flood_trades / ((status["ended_us"] - status["created_us"]) / 1e6))
    return [
        Figure("flood: socket to CSV and QuestDB, with candles", median(costs[1:]), "µs CPU/trade", TARGET_US),
        Figure(
            "flood: trades taken, beside QuestDB and the load server", median(rates[1:]), "trades/s", note="wall clock"
        ),
    ]
