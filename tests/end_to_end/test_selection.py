"""Symbols that are chosen by a rule when a session starts, on the simulated exchange and through a real daemon."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from collector.errors import UsageError

SYMBOLS = ("BTC_USDT", "ETH_USDT", "SOL_USDT", "ETH_BTC")


def test_rules_become_symbols_that_the_manifest_keeps(daemon: Callable[..., Any], server: Callable[..., Any]) -> None:
    """``top:2`` is the two of the largest volume in dollars, ``all:USDT`` is all of USDT; too many are refused."""
    exchange = server("exchange", "--port", "0", "--symbols", ",".join(SYMBOLS), "--rate", "50")
    collector = daemon("[session]\nmax_symbols = 2")
    collector.start()
    addresses = {"exchange": "sim", "ws_url": exchange.ws_url, "rest_url": exchange.rest_url}
    volumes = {
        row["symbol"]: float(row["quoteVolume"])
        for row in httpx.get(f"{exchange.rest_url}/api/v3/ticker/24hr", trust_env=False).json()
    }
    dollars = sorted((name for name in volumes if name.endswith("USDT")), key=lambda name: -volumes[name])
    started = collector.ask("start", symbols=["top:2"], **addresses)
    assert [symbol.replace("_", "") for symbol in started["symbols"]] == dollars[:2]
    directory = collector.data_dir / f"session_{started['session_id']}"
    assert json.loads((directory / "session.json").read_text())["symbols"] == list(started["symbols"])
    collector.ask("stop", sessions=[started["session_id"]])
    with pytest.raises(UsageError, match=r"3 symbols on sim, more than session\.max_symbols"):
        collector.ask("start", symbols=["all:USDT"], **addresses)
    with pytest.raises(UsageError, match="quote currencies BTC, USDT"):
        collector.ask("start", symbols=["all:EUR"], **addresses)
    only = collector.ask("start", symbols=["all:BTC"], **addresses)
    assert list(only["symbols"]) == ["ETH_BTC"]
