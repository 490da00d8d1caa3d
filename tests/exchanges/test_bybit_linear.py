"""Bybit's linear contracts: what differs from spot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from collector.events import Trade
from collector.exchanges.base import Listing, Subscription
from collector.exchanges.bybit_linear import BybitLinear

NAMES = ["BTC_USDT", "ETH_USDC", "BTC_USDT-27MAR26", "BTC_USDC-27MAR26"]
LINEAR = BybitLinear(BybitLinear().parse_listing(BybitLinear().write_listing(NAMES) or b""))


def test_names() -> None:
    """Perpetual contracts are BASE_QUOTE, dated ones have their day."""
    assert LINEAR.native_of == {
        "BTC_USDT": "BTCUSDT",
        "ETH_USDC": "ETHPERP",
        "BTC_USDT-27MAR26": "BTCUSDT-27MAR26",
        "BTC_USDC-27MAR26": "BTC-27MAR26",
    }


def test_examples(recordings: Path) -> None:
    """The documentation's example is read."""
    body = (recordings / "single-frames/bybit/http_get_instruments_linear.json").read_bytes()
    assert Listing("BTC_USDT", "BTCUSDT", "BTC", "USDT", True) in LINEAR.parse_listing(body)


def test_path() -> None:
    """Contracts have a path and a category of their own."""
    [plan] = LINEAR.plan([Subscription("prices", "BTC_USDT")])
    assert plan.path == "/v5/public/linear"
    assert LINEAR.listing_request().params["category"] == "linear"


def test_feed(play: Any) -> None:
    """Trades come through; their ids are text."""
    row = {"T": 1709891679000, "s": "BTCUSDT", "S": "Sell", "v": "0.010", "p": "27451.00", "BT": False}
    trade_id = "9dc75fca-4bdd-4773-9f78-6f5d7ab2a110"
    message = {"topic": "publicTrade.BTCUSDT", "type": "snapshot", "ts": 1, "data": [{**row, "i": trade_id}]}
    collected = play(LINEAR, [Subscription("prices", "BTC_USDT")], [json.dumps(message)])
    [trade] = collected.trades
    assert isinstance(trade, Trade)
    assert (trade.side, trade.price, trade.trade_id) == ("sell", "27451.00", trade_id)
