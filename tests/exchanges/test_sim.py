"""The simulated exchange's dialect: Binance spot's, on loopback, under its own name."""

from __future__ import annotations

from urllib.parse import urlsplit

from collector.events import Trade
from collector.exchanges.base import Listing
from collector.exchanges.binance import Binance
from collector.exchanges.sim import Sim


def test_name() -> None:
    """Nothing that says sim can be taken for a market."""
    assert (Sim.name, Binance.name) == ("sim", "binance")


def test_loopback() -> None:
    """It is nowhere but on this machine."""
    assert {"127.0.0.1"} == {urlsplit(url).hostname for url in (Sim.ws_url, Sim.rest_url)}


def test_dialect() -> None:
    """It reads what Binance spot says."""
    sim = Sim([Listing("BTC_USDT", "BTCUSDT", "BTC", "USDT")])
    frame = '{"e":"trade","E":2,"s":"BTCUSDT","t":7,"p":"1.5","q":"2","T":1,"m":false}'
    assert [Trade("BTC_USDT", 1000, "1.5", "2", "buy", 7, 9)] == list(sim.parse(frame, 9))
