"""A session through ccxt in a real daemon: its rows are proved like any other's, and it is marked as unverified."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from collector.errors import UsageError

pytest.importorskip("ccxt")


def test_a_session_through_ccxt_is_collected_and_marked(daemon: Callable[..., Any], server: Callable[..., Any]) -> None:
    """Rows come, are verified against QuestDB, and everything that tells of the session says that it is unverified."""
    exchange = server("exchange", "--port", "0", "--symbols", "BTC_USDT,ETH_USDT", "--rate", "50")
    collector = daemon('[exchange."ccxt:binance"]\noptions = { fetchMarkets = { types = ["spot"] } }\n')
    collector.start()
    order = {"exchange": "ccxt:binance", "ws_url": exchange.ws_url, "rest_url": exchange.rest_url}
    started = collector.ask("start", symbols=["all:USDT"], **order)
    session_id = started["session_id"]
    assert started["unverified"] is True
    assert set(started["symbols"]) == {"BTC_USDT", "ETH_USDT"}
    collector.wait_rows(session_id, "prices", 50)
    collector.wait_rows(session_id, "orderbook", 5)
    collector.ask("stop", sessions=[session_id])
    manifest = json.loads((collector.data_dir / f"session_{session_id}" / "session.json").read_text())
    assert manifest["exchange"] == "ccxt:binance"
    assert any("ids are not followed" in lack for lack in manifest["unverified"])
    report = collector.ask("verify", session=session_id)
    assert not [part for part in report["streams"] if part["findings"]["count"]]
    with pytest.raises(UsageError, match="raw messages"):
        collector.ask("start", symbols=["BTC_USDT"], record_raw=True, **order)
    with pytest.raises(UsageError, match="does not offer funding"):
        collector.ask("start", symbols=["BTC_USDT"], data_types=["funding"], **order)
