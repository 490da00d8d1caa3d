"""Binance USD-M futures: where they differ from spot."""

from __future__ import annotations

import gzip
import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from collector.errors import MessageError, UnknownName
from collector.events import BookDelta, BookSnapshot, Funding, Liquidation, OffBookPrint, OpenInterest, Ticker, Trade
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


MARK_PRICE = {
    "e": "markPriceUpdate",
    "E": 1562305380000,
    "s": "ETHUSDT",
    "p": "11794.15000000",
    "i": "11784.62659091",
    "P": "11784.25641265",
    "r": "-0.00038167",
    "T": 1562306400000,
    "st": 1,
}
FORCED = {
    "e": "forceOrder",
    "E": 1568014460893,
    "o": {
        "s": "ETHUSDT",
        "S": "SELL",
        "o": "LIMIT",
        "f": "IOC",
        "q": "0.014",
        "p": "9910.00000000",
        "ap": "9910.12345678",
        "X": "FILLED",
        "l": "0.010",
        "z": "0.012",
        "T": 1568014460890,
    },
}
BOOK_TICKER = {
    "e": "bookTicker",
    "u": 400900217,
    "E": 1568014460893,
    "T": 1568014460891,
    "s": "ETHUSDT",
    "b": "25.35190000",
    "B": "31.21000000",
    "a": "25.36520000",
    "A": "40.66000000",
    "st": 1,
    "ps": "ETHUSDT",
}


def test_mark_price() -> None:
    """The funding rate may be negative; its time is when it is paid."""
    assert [
        Funding(
            "ETH_USDT", 1562305380000000, "-0.00038167", 1562306400000000, "11794.15000000", "11784.62659091", RECEIVED
        )
    ] == parse(MARK_PRICE)


def test_a_dated_contract_has_a_mark_price_and_no_funding() -> None:
    """What is not said is None, and no rate of 0."""
    (funding,) = parse({**MARK_PRICE, "r": "", "T": 0})
    assert isinstance(funding, Funding)
    assert (funding.funding_rate, funding.next_funding_us, funding.mark_price) == (None, None, "11794.15000000")


def test_an_older_mark_price_has_no_index() -> None:
    """Recordings of 2019 lack it."""
    (funding,) = parse({name: value for name, value in MARK_PRICE.items() if name != "i"})
    assert isinstance(funding, Funding)
    assert funding.index_price is None


def test_forced_order() -> None:
    """The side is that of the order that closed the position; the size what was filled of it."""
    assert [Liquidation("ETH_USDT", 1568014460890000, "9910.00000000", "0.012", "sell", RECEIVED)] == parse(FORCED)


def test_book_ticker() -> None:
    """Futures say when it was, by the matching engine's clock."""
    assert [
        Ticker(
            "ETH_USDT",
            1568014460891000,
            "25.35190000",
            "31.21000000",
            "25.36520000",
            "40.66000000",
            400900217,
            RECEIVED,
        )
    ] == parse(BOOK_TICKER)


@pytest.mark.parametrize(
    "message",
    [
        {**MARK_PRICE, "p": "x"},
        {**MARK_PRICE, "r": "1e-5"},
        {**FORCED, "o": {**FORCED["o"], "S": "HOLD"}},  # type: ignore[dict-item]
        {**FORCED, "o": {**FORCED["o"], "p": ""}},  # type: ignore[dict-item]
        {**FORCED, "o": None},
        {**BOOK_TICKER, "b": "1,5"},
    ],
)
def test_what_is_none_of_these_is_an_error(message: dict[str, Any]) -> None:
    """A value that would break a row never becomes one."""
    with pytest.raises(MessageError):
        parse(message)


@pytest.mark.parametrize(
    "message",
    [
        {**MARK_PRICE, "s": "DOGEUSDT"},
        {**FORCED, "o": {**FORCED["o"], "s": "DOGEUSDT"}},  # type: ignore[dict-item]
        {**BOOK_TICKER, "s": "DOGEUSDT"},
    ],
)
def test_symbols_that_nobody_asked_for_emit_nothing(message: dict[str, Any]) -> None:
    """As in a recording of more than is collected."""
    assert parse(message) == []


def test_open_interest_is_asked_for() -> None:
    """It has no channel; the answer is one contract's."""
    (request,) = FUTURES.poll_requests([Subscription("open_interest", "ETH_USDT"), Subscription("funding", "ETH_USDT")])
    assert request == Request("/fapi/v1/openInterest", {"symbol": "ETHUSDT"})
    body = b'{"openInterest":"10659.509","symbol":"ETHUSDT","time":1589437530011}'
    assert [OpenInterest("ETH_USDT", 1589437530011000, "10659.509", None, RECEIVED, "rest")] == list(
        FUTURES.parse_poll(request, body, RECEIVED)
    )
    assert list(FUTURES.parse_poll(request, body.replace(b"ETH", b"BTC"), RECEIVED)) == []
    with pytest.raises(MessageError, match="Invalid symbol"):
        FUTURES.parse_poll(request, b'{"code":-1121,"msg":"Invalid symbol."}', RECEIVED)


def test_each_stream_is_asked_for_on_its_own_path() -> None:
    """One category a connection: the other one is acknowledged and never delivered."""
    wanted = [Subscription(stream, "ETH_USDT") for stream in FUTURES.streams if stream != "open_interest"]
    asked = {plan.path: plan.frames for plan in FUTURES.plan(wanted)}
    assert [json.loads(frame)["params"] for frame in asked["/public/stream"]] == [
        ["ethusdt@depth@100ms", "ethusdt@bookTicker"]
    ]
    assert [json.loads(frame)["params"] for frame in asked["/market/stream"]] == [
        ["ethusdt@aggTrade", "ethusdt@kline_1m", "ethusdt@markPrice@1s", "ethusdt@forceOrder"]
    ]
    for message, channel in ((MARK_PRICE, "markPrice"), (FORCED, "forceOrder"), (BOOK_TICKER, "bookTicker")):
        assert FUTURES.channel_of(json.dumps(message)) == f"ethusdt@{channel}"
    assert FUTURES.channels_asked("/market/stream?streams=ethusdt@markPrice@1s", None) == ["ethusdt@markPrice"]


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
            FUTURES.plan([Subscription("fundings", "ETH_USDT")])


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
    assert dict(kinds) == {"Trade": 91, "BookDelta": 764, "Kline": 67, "Ticker": 613}
