"""Binance USD-M futures: where they differ from spot."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from collector.errors import UnknownName
from collector.events import BookDelta, BookSnapshot, OffBookPrint, Trade
from collector.exchanges.base import Listing, Request, Subscription
from collector.exchanges.binance_futures import BinanceFutures, FuturesBookRule

RECEIVED = 1_626_992_741_000_000
FUTURES = BinanceFutures([Listing("ETH_USDT", "ETHUSDT", "ETH", "USDT")])
TRADE = {
    "e": "trade",
    "E": 1596034530241,
    "T": 1596034530235,
    "s": "ETHUSDT",
    "t": 73701056,
    "p": "2366.55",
    "q": "0.070",
    "X": "MARKET",
    "m": True,
}
DEPTH = {
    "e": "depthUpdate",
    "E": 1626992741203,
    "T": 1626992741156,
    "s": "ETHUSDT",
    "U": 157,
    "u": 160,
    "pu": 149,
    "b": [["1.00600", "14217"]],
    "a": [["1.01300", "0"]],
}


def parse(message: dict[str, Any]) -> list[object]:
    return list(FUTURES.parse(json.dumps({"stream": "x", "data": message}), RECEIVED))


def test_trade() -> None:
    """A trade has the matching engine's time."""
    assert [Trade("ETH_USDT", 1596034530235000, "2366.55", "0.070", "sell", 73701056, RECEIVED)] == parse(TRADE)


@pytest.mark.parametrize("order_type", ["INSURANCE_FUND", "ADL", "NA"])
def test_off_book(order_type: str) -> None:
    """A print that no order of the book took part in is no trade, but its number is seen."""
    assert [OffBookPrint("ETH_USDT", 1596034530235000, 73701056, RECEIVED)] == parse({**TRADE, "X": order_type})


def test_depth() -> None:
    """A change of the book has the matching engine's time, as trades have, and the id before it."""
    assert [
        BookDelta("ETH_USDT", 1626992741156000, 157, 160, 149, [("1.00600", "14217")], [("1.01300", "0")], RECEIVED)
    ] == parse(DEPTH)


def test_listing() -> None:
    """A perpetual is BASE_QUOTE, a dated contract has its date in the symbol, and all can be file names."""
    rows = [
        ("BTCUSDT", "PERPETUAL", "TRADING"),
        ("BTCUSDT_260327", "CURRENT_QUARTER", "TRADING"),
        ("BTCSTUSDT", "", "PENDING_TRADING"),
    ]
    body = {
        "symbols": [
            {
                "symbol": native,
                "contractType": kind,
                "status": status,
                "baseAsset": native[:-4][:3],
                "quoteAsset": "USDT",
            }
            for native, kind, status in rows
        ]
    }
    listings = FUTURES.parse_listing(json.dumps(body).encode())
    assert [listing.symbol for listing in listings] == ["BTC_USDT", "BTC_USDT-260327", "BTC_USDT-BTCSTUSDT"]
    assert [listing.active for listing in listings] == [True, True, False]


def test_real_listing(recordings: Path) -> None:
    """The exchange's own answer is read whole: its dated contracts are symbols of their own."""
    with gzip.open(recordings / "binance-futures-20210722.rec.gz", "rt") as lines:
        answer = next(line for line in lines if "/fapi/v1/exchangeInfo" in line).split(" ", 5)[5]
    symbols = [listing.symbol for listing in FUTURES.parse_listing(answer.encode())]
    assert len(set(symbols)) == 122
    assert {"BTC_USDT", "BTC_USDT-210924", "ETH_USDT", "ETH_USDT-210924"} <= set(symbols)


class TestPlan:
    def test_split(self) -> None:
        """The book is on /public, aggregated trades and candles are on /market."""
        plans = FUTURES.plan([Subscription(stream, "ETH_USDT") for stream in ("prices", "orderbook", "klines")])
        assert {plan.path: json.loads(plan.frames[0])["params"] for plan in plans} == {
            "/market/stream": ["ethusdt@aggTrade", "ethusdt@kline_1m"],
            "/public/stream": ["ethusdt@depth@100ms"],
        }

    def test_raw_trades(self) -> None:
        """Raw trades are on /public."""
        [plan] = FUTURES.plan([Subscription("prices", "ETH_USDT")], raw_trades=True)
        assert (plan.path, json.loads(plan.frames[0])["params"]) == ("/public/stream", ["ethusdt@trade"])

    def test_many(self) -> None:
        """No connection has more than 200 streams."""
        listings = [Listing(f"A{n}_USDT", f"A{n}USDT", f"A{n}", "USDT") for n in range(201)]
        plans = BinanceFutures(listings).plan([Subscription("prices", listing.symbol) for listing in listings])
        assert [len(plan.subscriptions) for plan in plans] == [200, 1]

    def test_unknown_stream(self) -> None:
        """A wrong data type is named."""
        with pytest.raises(UnknownName):
            FUTURES.plan([Subscription("funding", "ETH_USDT")])


class TestRest:
    def test_requests(self) -> None:
        """Paths, depth and weights are the futures' own."""
        assert Request("/fapi/v1/exchangeInfo", weight=1) == FUTURES.listing_request()
        assert Request("/fapi/v1/depth", {"symbol": "ETHUSDT", "limit": "1000"}, weight=20) == FUTURES.snapshot_request(
            "ETH_USDT"
        )
        request = FUTURES.trades_request("ETH_USDT", 5, 10)
        assert Request("/fapi/v1/aggTrades", {"symbol": "ETHUSDT", "fromId": "5", "limit": "10"}, weight=20) == request

    def test_snapshot(self) -> None:
        """A snapshot has the matching engine's time."""
        body = b'{"lastUpdateId":7,"E":1626992741264,"T":1626992741261,"bids":[["7.6110","6"]],"asks":[]}'
        snapshot = BookSnapshot("ETH_USDT", 1626992741261000, 7, [("7.6110", "6")], [], RECEIVED)
        assert snapshot == FUTURES.parse_snapshot("ETH_USDT", body, RECEIVED)


def delta(previous: int | None, first: int, last: int) -> BookDelta:
    return BookDelta("ETH_USDT", 0, first, last, previous, [], [], 0)


def started(last_id: int) -> FuturesBookRule:
    rule = FuturesBookRule()
    rule.apply_snapshot(BookSnapshot("ETH_USDT", 0, last_id, [], [], 0))
    return rule


class TestRule:
    def test_without_snapshot(self) -> None:
        """Without a snapshot nothing follows anything."""
        assert FuturesBookRule().judge(delta(1, 2, 3)) == "gap"

    def test_spans_snapshot(self) -> None:
        """Drop what ends before the snapshot; the first spans it; then each names the one before it."""
        rule = started(100)
        verdicts = [
            rule.judge(delta(*ids))
            for ids in ((80, 85, 99), (99, 100, 110), (110, 115, 120), (120, 125, 130), (131, 135, 140))
        ]
        assert verdicts == ["stale", "apply", "apply", "apply", "gap"]
        assert rule.last_id == 130

    @pytest.mark.parametrize(("previous", "first", "last"), [(100, 105, 110), (95, 105, 110), (95, 98, 100)])
    def test_first(self, previous: int, first: int, last: int) -> None:
        """The first may name the snapshot itself, lie around it, or end with it."""
        assert started(100).judge(delta(previous, first, last)) == "apply"

    def test_first_too_late(self) -> None:
        """A first one that names another after the snapshot leaves a gap."""
        assert started(100).judge(delta(101, 105, 110)) == "gap"

    def test_repeated(self) -> None:
        """A delta that comes twice is stale."""
        rule = started(100)
        assert [rule.judge(delta(100, 105, 110)), rule.judge(delta(100, 105, 110))] == ["apply", "stale"]

    def test_new_snapshot(self) -> None:
        """A new snapshot starts it over."""
        rule = started(100)
        rule.judge(delta(100, 105, 110))
        rule.apply_snapshot(BookSnapshot("ETH_USDT", 0, 200, [], [], 0))
        assert [rule.judge(delta(150, 155, 160)), rule.judge(delta(190, 195, 205))] == ["stale", "apply"]


def test_real_frames(recordings: Path) -> None:
    """Every frame of a real recording is read, as many of each kind as another collector counted."""
    listings = [Listing(name, name, name, "USDT") for name in ("SUSHIUSDT", "AKROUSDT", "KEEPUSDT", "CTKUSDT")]
    futures = BinanceFutures(listings)
    kinds: Counter[str] = Counter()
    with gzip.open(recordings / "binance-futures-20210722.rec.gz", "rt") as lines:
        for line in lines:
            _, _, kind, payload = line.rstrip("\n").split(" ", 3)
            if kind == "<":
                kinds.update(type(event).__name__ for event in futures.parse(payload, RECEIVED))
    assert dict(kinds) == {"Trade": 91, "BookDelta": 764, "Kline": 67}
