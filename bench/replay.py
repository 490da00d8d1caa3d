"""A real recording at ``--speed max``, from the replay server to acknowledged rows: trades, order book and candles.

The recording is found by ``COLLECTOR_RECORDINGS`` (a folder); without it this is skipped.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

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
    rates: list[float] = []
    frames = 0
    rows: dict[str, int] = {}
    with place.daemon() as daemon:
        for _ in range(scale.runs):
            with start_replay(
                path,
                exchange="binance",
                symbols=[SYMBOL],
                speed="max",
                data_types=[*DATA_TYPES, "klines"],
                raw_trades=True,
            ) as server:
                before_s = daemon.cpu_s()
                addresses = (server.ws_url, server.rest_url)
                order: dict[str, Any] = {"data_types": DATA_TYPES, "raw_trades": True, "recording": path.name}
                session_id = daemon.start(*addresses, [SYMBOL], **order)
                status = daemon.wait_until_delivered(session_id, timeout_s=TIMEOUT_S)
                frames = sum(link["messages"] for link in status["links"])
                costs.append((daemon.cpu_s() - before_s) / frames * 1e6)
                rates.append(frames / ((status["ended_us"] - status["created_us"]) / 1e6))
                rows = status["rows"]
    note = f"{frames:,} frames: {rows['prices']:,} trades, {rows['orderbook']:,} book rows"
    return [
        Figure(name, median(costs), "µs CPU/frame", note=note),
        Figure(f"{name}: frames", median(rates), "frames/s", note="wall clock, with the snapshot's answer"),
    ]
