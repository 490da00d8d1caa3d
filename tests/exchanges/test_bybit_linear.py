"""Bybit's linear contracts: what differs from spot."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from collector.errors import MessageError
from collector.events import Funding, Liquidation, OpenInterest, Trade
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


RECEIVED = 1_733_011_205_500_000
MARKET = {
    "symbol": "BTCUSDT",
    "lastPrice": "17216.00",
    "markPrice": "17217.33",
    "indexPrice": "17227.36",
    "openInterest": "68744.761",
    "openInterestValue": "1183601235.91",
    "nextFundingTime": "1673280000000",
    "fundingRate": "-0.000212",
    "bid1Price": "17215.50",
    "ask1Price": "17216.00",
}
FUNDING = Funding("BTC_USDT", 1673272861686000, "-0.000212", 1673280000000000, "17217.33", "17227.36", RECEIVED)
INTEREST = OpenInterest("BTC_USDT", 1673272861686000, "68744.761", "1183601235.91", RECEIVED)


def market(
    kind: str, data: dict[str, Any], *, sequence: int = 5, native: str = "BTCUSDT", ts: int = 1673272861686
) -> str:
    message = {"topic": f"tickers.{native}", "type": kind, "data": data, "cs": sequence, "ts": ts}
    return json.dumps(message)


def closed(**changes: object) -> str:
    row = {"T": 1, "s": "BTCUSDT", "S": "Buy", "v": "1", "p": "1", **changes}
    return json.dumps({"topic": "allLiquidation.BTCUSDT", "data": [row]})


def parse(*frames: str) -> list[object]:
    """Read frames one after the other, from the beginning."""
    exchange = BybitLinear(BybitLinear().parse_listing(BybitLinear().write_listing(NAMES) or b""))
    return [event for frame in frames for event in exchange.parse(frame, RECEIVED)]


def test_a_snapshot_of_the_market() -> None:
    """Funding and open interest come together."""
    assert parse(market("snapshot", MARKET)) == [FUNDING, INTEREST]


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"markPrice": "17300.1"}, [Funding("BTC_USDT", 1, "-0.000212", 1673280000000000, "17300.1", "17227.36", 1)]),
        ({"fundingRate": "0.0001"}, [Funding("BTC_USDT", 1, "0.0001", 1673280000000000, "17217.33", "17227.36", 1)]),
        ({"openInterest": "5"}, [OpenInterest("BTC_USDT", 1, "5", "1183601235.91", 1)]),
        ({"lastPrice": "17000", "bid1Price": "16999"}, []),
        ({"symbol": "BTCUSDT"}, []),
    ],
)
def test_a_change_is_merged_into_what_is_known(changes: dict[str, str], expected: list[Any]) -> None:
    """A message of changes has only what changed; the row has all of the part that changed, and nothing else comes."""
    for event in expected:
        event.timestamp_us, event.received_us = 1673272862000000, RECEIVED
    found = parse(market("snapshot", MARKET), market("delta", changes, sequence=6, ts=1673272862000))
    assert found[2:] == expected


def test_changes_that_are_behind_emit_nothing() -> None:
    """Two connections deliver while one takes over: what is known does not go back."""
    changes = {"markPrice": "1.5"}
    assert parse(market("snapshot", MARKET), market("delta", changes, sequence=4)) == [FUNDING, INTEREST]
    assert len(parse(market("snapshot", MARKET), market("delta", changes, sequence=5))) == 3


def test_changes_before_a_snapshot_and_other_symbols_emit_nothing() -> None:
    """There is nothing to merge them into."""
    assert parse(market("delta", MARKET), market("snapshot", MARKET, native="DOGEUSDT")) == []


def test_a_dated_contract_has_no_funding() -> None:
    """Empty texts are nothing, not zero."""
    events = parse(market("snapshot", {**MARKET, "fundingRate": "", "nextFundingTime": ""}, native="BTCUSDT-27MAR26"))
    assert isinstance(events[0], Funding)
    assert (events[0].symbol, events[0].funding_rate, events[0].next_funding_us) == ("BTC_USDT-27MAR26", None, None)


@pytest.mark.parametrize(("position", "side"), [("Sell", "buy"), ("Buy", "sell")])
def test_a_liquidation_has_the_side_of_the_order_that_closed_it(position: str, side: str) -> None:
    """Source: "All Liquidation": ``S`` is the position's side, and ``Buy`` means that a long one was liquidated."""
    rows = [
        {"T": 1740480207110, "s": "BTCUSDT", "S": position, "v": "2846", "p": "0.02456"},
        {"T": 1740480207111, "s": "DOGEUSDT", "S": position, "v": "1", "p": "1"},
    ]
    (found,) = parse(json.dumps({"topic": "allLiquidation.BTCUSDT", "type": "snapshot", "ts": 1, "data": rows}))
    assert isinstance(found, Liquidation)
    assert (found.price, found.volume, found.side) == ("0.02456", "2846", side)
    assert found.timestamp_us == 1740480207110000


@pytest.mark.parametrize(
    "frame",
    [
        market("snapshot", {**MARKET, "markPrice": "x"}),
        market("snapshot", {**MARKET, "fundingRate": "1e-5"}),
        market("snapshot", {**MARKET, "nextFundingTime": "soon"}),
        market("?", MARKET),
        json.dumps(
            {"topic": "allLiquidation.BTCUSDT", "data": [{"T": 1, "s": "BTCUSDT", "S": "?", "v": "1", "p": "1"}]}
        ),
        json.dumps(
            {"topic": "allLiquidation.BTCUSDT", "data": [{"T": 1, "s": "BTCUSDT", "S": "Buy", "v": "", "p": "1"}]}
        ),
    ],
)
def test_what_is_none_of_these_is_an_error(frame: str) -> None:
    """A value that would break a row never becomes one."""
    with pytest.raises(MessageError):
        parse(frame)


def test_a_topic_that_serves_two_streams_is_asked_for_once() -> None:
    """Funding and open interest are of ``tickers``; best prices of the book of one level."""
    (plan,) = LINEAR.plan([Subscription(stream, "BTC_USDT") for stream in LINEAR.streams])
    assert [topic for frame in plan.frames for topic in json.loads(frame)["args"]] == [
        "publicTrade.BTCUSDT", "orderbook.200.BTCUSDT", "kline.1.BTCUSDT", "orderbook.1.BTCUSDT",
        "tickers.BTCUSDT", "allLiquidation.BTCUSDT",
    ]  # fmt: skip
    assert len(plan.subscriptions) == len(LINEAR.streams)


def test_examples_of_the_market(recordings: Path) -> None:
    """The documentation's frames are read."""
    folder = recordings / "single-frames/bybit"
    assert parse((folder / "ws_ticker_linear.json").read_text()) == [FUNDING, INTEREST]


def test_markets_with_expected(recordings: Path) -> None:
    """Another library reads the same from the same frames."""
    compared = 0
    for line in (recordings / "frames-with-expected.jsonl").read_text().splitlines():
        record = json.loads(line)
        message = record["message"]
        topic = message.get("topic", "") if isinstance(message, dict) else ""
        if record["exchange"] != "bybit" or topic != "tickers.BTCUSDT":
            continue
        (expected,) = [one for one in record["expected"] if one["type"] == "derivative_ticker"]
        funding, interest = parse(json.dumps(message))
        assert isinstance(funding, Funding)
        assert isinstance(interest, OpenInterest)
        assert float(funding.funding_rate or "x") == expected["fundingRate"]
        assert float(funding.mark_price or "x") == expected["markPrice"]
        assert float(funding.index_price or "x") == expected["indexPrice"]
        assert float(interest.amount) == expected["openInterest"]
        compared += 1
    assert compared >= 1
