"""The built-in simulated exchange: Binance spot's dialect, with the contracts' streams, under a name of its own.

It is on loopback, and everything that is collected from it says ``exchange=sim``, so that nobody takes it for a market.
"""

from __future__ import annotations

from collector.exchanges.binance import STREAMS, Binance


class Sim(Binance):
    """Binance's protocol as ``collector sim`` serves it."""

    name = "sim"
    ws_url = "ws://127.0.0.1:8765"
    rest_url = "http://127.0.0.1:8765"
    streams = (*STREAMS, "funding", "open_interest", "liquidations")
    polled_streams = ("open_interest",)
    steady_streams = frozenset({"funding"})
    candle_source = "binance"
