"""A real recording at ``--speed max``, from the replay server to acknowledged rows: trades, order book and candles.

The recording is found by ``COLLECTOR_RECORDINGS`` (a folder); without it this is skipped.
"""

from __future__ import annotations

import os
from pathlib import Path

from bench.harness import Figure, Place, Result, Scale, Skipped, median
from collector.sim.child import start_replay

RECORDING = "binance-spot-ETHUSDT-20240808.rec.gz"
SYMBOL = "ETH_USDT"
DATA_TYPES = ("prices", "orderbook")
TIMEOUT_S = 120.0


def measure(place: Place, scale: Scale) -> list[Result]:
    """Play the recording several times through one daemon."""
    name = "replay of ETHUSDT at max speed"
    folder = os.environ.get("COLLECTOR_RECORDINGS", "")
    path = Path(folder) / RECORDING
    if not folder or not path.is_file():
        return [Skipped(name, f"COLLECTOR_RECORDINGS names no folder with {RECORDING}")]
    costs: list[float] = []
    durations: list[float] = []
    frames = 0
    with place.daemon() as daemon:
        for _ in range(scale.runs):
            with start_replay(
                path, exchange="binance", symbols=[SYMBOL], speed="max", data_types=[*DATA_TYPES, "klines"], raw_trades=True
            ) as server:
                frames = server.ready["frames"]
                before_s = daemon.cpu_s()
                session_id = daemon.start(
                    server.ws_url, server.rest_url, [SYMBOL], data_types=DATA_TYPES, raw_trades=True, recording=path.name
                )
                status = daemon.wait_until_delivered(session_id, timeout_s=TIMEOUT_S)
                costs.append((daemon.cpu_s() - before_s) / frames * 1e6)
                durations.append((status["ended_us"] - status["started_us"]) / 1e6)
    rows = status["rows"]
    note = f"{frames:,} frames: {rows['prices']:,} trades, {rows['orderbook']:,} book rows"
    return [
        Figure(name, median(costs), "µs CPU/frame", note=note),
        Figure(f"{name}: frames", frames / median(durations), "frames/s", note="wall clock"),
    ]
