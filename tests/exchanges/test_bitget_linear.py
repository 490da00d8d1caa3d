"""Bitget's perpetuals: golden frames of what spot has not, and what emits nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from collector.errors import MessageError, UnknownName
from collector.events import BookSnapshot, Funding, Liquidation, OpenInterest, Ticker, Trade
from collector.exchanges.base import Listing, Request, Subscription
from collector.exchanges.bitget_linear import BitgetLinear

RECEIVED = 1_777_358_880_180_000
LINEAR = BitgetLinear([Listing("BTC_USDT", "BTCUSDT", "BTC", "USDT"), Listing("APE_USDT", "APEUSDT", "APE", "USDT")])

CONTRACT = {
    "highPrice24h": "77800.5",
    "lastPrice": "76631.2",
    "turnover24h": "5101050.26784",
    "bid1Price": "76631.2",
    "ask1Price": "76631.3",
    "indexPrice": "76660.1",
    "markPrice": "76631.2",
    "fundingRate": "-0.000034",
    "openInterest": "1411.1397",
    "nextFundingTime": "1777363200000",
}
LIQUIDATION = {"symbol": "APEUSDT", "side": "buy", "price": "0.1649", "amount": "13.70319", "ts": "1777358886549"}
TIME_US = 1777358881009000


def push(topic: str, *rows: dict[str, Any], action: str = "update", **argument: Any) -> bytes:
    arg = {"instType": "usdt-futures", "topic": topic, **argument}
    return json.dumps({"action": action, "arg": arg, "data": rows, "ts": TIME_US // 1000}).encode()


@pytest.mark.parametrize(
    ("payload", "events"),
    [
        (
            push("ticker", CONTRACT, symbol="BTCUSDT", action="snapshot"),
            [
                Funding("BTC_USDT", TIME_US, "-0.000034", 1777363200000000, "76631.2", "76660.1", RECEIVED),
                OpenInterest("BTC_USDT", TIME_US, "1411.1397", None, RECEIVED),
            ],
        ),
        (
            push("ticker", {"fundingRate": "0", "nextFundingTime": "0", "markPrice": "5"}, symbol="BTCUSDT"),
            [Funding("BTC_USDT", TIME_US, None, None, "5", None, RECEIVED)],
        ),
        (
            push("liquidation", LIQUIDATION, {**LIQUIDATION, "symbol": "FOOUSDT"}),
            [Liquidation("APE_USDT", 1777358886549000, "0.1649", "13.70319", "sell", RECEIVED)],
        ),
        (
            push("liquidation", {**LIQUIDATION, "side": "sell"}),
            [Liquidation("APE_USDT", 1777358886549000, "0.1649", "13.70319", "buy", RECEIVED)],
        ),
    ],
)
def test_frame(payload: bytes, events: list[object]) -> None:
    """A frame is its events; a position that was bought is closed by a sale."""
    assert events == list(LINEAR.parse(payload, RECEIVED))
    assert events == list(LINEAR.parse(json.dumps(dict(reversed(json.loads(payload).items()))), RECEIVED))


@pytest.mark.parametrize(
    "payload",
    [
        push("ticker", CONTRACT, symbol="FOOUSDT"),
        push("ticker", CONTRACT, symbol="BTCUSDT", instType="spot"),
        push("ticker", {"lastPrice": "1"}, symbol="BTCUSDT"),
        push("liquidation", LIQUIDATION, instType="usdc-futures"),
        push("liquidation"),
    ],
)
def test_silent(payload: bytes) -> None:
    """Other markets, and figures that did not come, emit nothing."""
    assert list(LINEAR.parse(payload, RECEIVED)) == []


@pytest.mark.parametrize(
    "payload",
    [
        push("ticker", {**CONTRACT, "fundingRate": "1e-5"}, symbol="BTCUSDT"),
        push("ticker", {**CONTRACT, "openInterest": "-1"}, symbol="BTCUSDT"),
        push("liquidation", {**LIQUIDATION, "price": ""}),
        push("liquidation", {**LIQUIDATION, "side": "up"}),
        push("liquidation", {"symbol": "APEUSDT", "price": "1", "amount": "1", "ts": "1"}),
    ],
)
def test_refused(payload: bytes) -> None:
    """What is no number, and a liquidation of no side, is an error."""
    with pytest.raises(MessageError):
        LINEAR.parse(payload, RECEIVED)


def test_plan() -> None:
    """Funding and open interest are one topic, and liquidations are one for all contracts."""
    streams = ("funding", "open_interest", "liquidations", "tickers")
    [plan] = LINEAR.plan([Subscription(stream, name) for name in ("BTC_USDT", "APE_USDT") for stream in streams])
    asked = [argument for frame in plan.frames for argument in json.loads(frame)["args"]]
    assert asked == [
        {"instType": "usdt-futures", "topic": "ticker", "symbol": "BTCUSDT"},
        {"instType": "usdt-futures", "topic": "liquidation"},
        {"instType": "usdt-futures", "topic": "books1", "symbol": "BTCUSDT"},
        {"instType": "usdt-futures", "topic": "ticker", "symbol": "APEUSDT"},
        {"instType": "usdt-futures", "topic": "books1", "symbol": "APEUSDT"},
    ]
    with pytest.raises(UnknownName):
        LINEAR.plan([Subscription("liquidations", "FOO_USDT")])
    assert LINEAR.listing_request() == Request("/api/v3/market/instruments", {"category": "USDT-FUTURES"})


def test_frames_with_expected(recordings: Path) -> None:
    """Frames of v3 mean what another library reads in them."""
    kinds = []
    for line in (recordings / "frames-with-expected.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["test"] != "map bitget-futures v3 messages":
            continue
        argument = row["message"]["arg"]
        natives = [argument["symbol"]] if "symbol" in argument else [entry["symbol"] for entry in row["expected"]]
        exchange = BitgetLinear([Listing(f"{native}_X", native, native, "X") for native in natives])
        for event, truth in zip(exchange.parse(json.dumps(row["message"]), 0), row["expected"], strict=True):
            kinds.append(type(event))
            if isinstance(event, Trade | Liquidation):
                assert (float(event.price), float(event.volume)) == (truth["price"], truth["amount"])
                assert event.side == truth["side"]
            elif isinstance(event, Ticker):
                assert (float(event.bid or 0), float(event.bid_qty or 0)) == (truth["bidPrice"], truth["bidAmount"])
                assert (float(event.ask or 0), float(event.ask_qty or 0)) == (truth["askPrice"], truth["askAmount"])
            elif isinstance(event, BookSnapshot):
                assert [float(price) for price, _ in event.bids] == [level["price"] for level in truth["bids"]]
    assert kinds == [Trade, BookSnapshot, Ticker, Liquidation, Liquidation]
