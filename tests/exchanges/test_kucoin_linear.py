"""KuCoin's perpetuals: golden frames of 2024, what emits nothing, what is refused, REST, and a feed over loopback."""

from __future__ import annotations

import contextlib
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import MessageError, UnknownName
from collector.events import (
    Acknowledged,
    BookDelta,
    BookSnapshot,
    Funding,
    OpenInterest,
    Rejected,
    Ticker,
    Trade,
)
from collector.exchanges.base import Listing, Request, Subscription
from collector.exchanges.kucoin_linear import STREAMS, KucoinLinear

RECEIVED = 1_706_068_863_200_000
LINEAR = KucoinLinear([Listing("BTC_USDT", "XBTUSDTM", "BTC", "USDT"), Listing("SOL_USDT", "SOLUSDTM", "SOL", "USDT")])

MATCH = {
    "symbol": "XBTUSDTM",
    "sequence": 1728107666597,
    "side": "sell",
    "size": 1,
    "price": "39615",
    "takerOrderId": "139484352366002178",
    "tradeId": "1728107666597",
    "ts": 1706068863101000000,
}
BEST = {
    "symbol": "XBTUSDTM",
    "sequence": 1702237470700,
    "bestBidSize": 260,
    "bestBidPrice": "24.067",
    "bestAskPrice": "24.08",
    "bestAskSize": 250,
    "ts": 1705708800078000000,
}
MARKS = {"markPrice": 39610.11, "indexPrice": 39615, "granularity": 1000, "timestamp": 1706068801000}
CONTRACT = {
    "symbol": "XBTUSDTM",
    "baseCurrency": "XBT",
    "quoteCurrency": "USDT",
    "multiplier": 0.001,
    "isInverse": False,
    "expireDate": None,
    "status": "Open",
    "openInterest": "9295921",
    "turnoverOf24h": 5.94135187191124e8,
}


def push(topic: str, subject: str, data: Any, native: str = "XBTUSDTM") -> bytes:
    return json.dumps({"topic": f"{topic}:{native}", "type": "message", "subject": subject, "data": data}).encode()


def change(text: str, sequence: int = 8) -> bytes:
    data = {"sequence": sequence, "change": text, "timestamp": 1705708800009 + sequence * 200}
    return push("/contractMarket/level2", "level2", data)


def rate(text: str) -> bytes:
    frame = push("/contract/instrument", "funding.rate", {"granularity": 60000, "fundingRate": 0, "timestamp": 5})
    return frame.replace(b'"fundingRate": 0', f'"fundingRate": {text}'.encode())


def answered(data: Any) -> bytes:
    return json.dumps({"code": "200000", "data": data}).encode()


@pytest.mark.parametrize(
    ("payload", "event"),
    [
        (
            push("/contractMarket/execution", "match", MATCH),
            Trade("BTC_USDT", 1706068863101000, "39615", "1", "sell", 1728107666597, RECEIVED),
        ),
        (
            change("0.2166,sell,0"),
            BookDelta("BTC_USDT", 1705708801609000, 8, 8, None, [], [("0.2166", "0")], RECEIVED),
        ),
        (
            change("0.2353,buy,146"),
            BookDelta("BTC_USDT", 1705708801609000, 8, 8, None, [("0.2353", "146")], [], RECEIVED),
        ),
        (change("0,buy,0"), BookDelta("BTC_USDT", 1705708801609000, 8, 8, None, [], [], RECEIVED)),
        (
            push("/contractMarket/tickerV2", "tickerV2", BEST),
            Ticker("BTC_USDT", 1705708800078000, "24.067", "260", "24.08", "250", 1702237470700, RECEIVED),
        ),
        (
            push("/contractMarket/tickerV2", "tickerV2", {**BEST, "bestAskSize": 0}),
            Ticker("BTC_USDT", 1705708800078000, "24.067", "260", None, None, 1702237470700, RECEIVED),
        ),
        (
            push("/contract/instrument", "mark.index.price", MARKS),
            Funding("BTC_USDT", 1706068801000000, None, None, "39610.11", "39615", RECEIVED),
        ),
        (rate("3.2e-05"), Funding("BTC_USDT", 5000, "0.000032", None, None, None, RECEIVED)),
        (rate("-0.000105"), Funding("BTC_USDT", 5000, "-0.000105", None, None, None, RECEIVED)),
        (b'{"id":"3","type":"ack"}', Acknowledged("3")),
        (
            b'{"id":"3","type":"error","code":404,"data":"topic is not found"}',
            Rejected("3", "404", "topic is not found"),
        ),
    ],
)
def test_frame(payload: bytes, event: object) -> None:
    """A frame is its event, with the wire's own digits; exponents are written out."""
    assert [event] == list(LINEAR.parse(payload, RECEIVED))


@pytest.mark.parametrize(
    "payload",
    [
        push("/contractMarket/execution", "match", MATCH, "FOOUSDTM"),
        push("/contractMarket/limitCandle", "candle.stick", {"symbol": "XBTUSDTM"}, "XBTUSDTM_1min"),
        push("/contract/announcement", "funding.begin", {"symbol": "XBTUSDTM"}),
        b'{"id":"1","type":"pong"}',
        b'{"id":"1","type":"welcome"}',
    ],
)
def test_silent(payload: bytes) -> None:
    """What we don't read, and contracts that nobody asked for, emit nothing."""
    assert list(LINEAR.parse(payload, RECEIVED)) == []


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        push("/contractMarket/execution", "match", {**MATCH, "size": -1}),
        push("/contractMarket/execution", "match", {**MATCH, "side": "up"}),
        push("/contractMarket/execution", "match", {**MATCH, "size": [1]}),
        change("0.2,buy"),
        change("0.2,up,1"),
        change("x,buy,1"),
        push("/contract/instrument", "mark.index.price", {**MARKS, "markPrice": None}),
        push("/contract/instrument", "mark.index.price", {**MARKS, "markPrice": -5.5}),
        rate('"x"'),
    ],
)
def test_refused(payload: bytes) -> None:
    """What the documentation does not allow is an error."""
    with pytest.raises(MessageError):
        LINEAR.parse(payload, RECEIVED)


@given(st.binary() | st.text())
def test_any_frame(payload: bytes | str) -> None:
    """Any bytes are events or a MessageError."""
    with contextlib.suppress(MessageError):
        LINEAR.parse(payload, RECEIVED)


def test_plan() -> None:
    """Each topic is asked for with many contracts at once; open interest is not asked for there."""
    [plan] = LINEAR.plan([Subscription(stream, name) for name in ("BTC_USDT", "SOL_USDT") for stream in STREAMS])
    topics = [json.loads(frame)["topic"] for frame in plan.frames]
    assert topics == [
        "/contractMarket/execution:XBTUSDTM,SOLUSDTM",
        "/contractMarket/level2:XBTUSDTM,SOLUSDTM",
        "/contractMarket/tickerV2:XBTUSDTM,SOLUSDTM",
        "/contract/instrument:XBTUSDTM,SOLUSDTM",
    ]
    assert LINEAR.channel_of(change("0.2,buy,1")) in LINEAR.channels_asked("/", plan.frames[1])
    with pytest.raises(UnknownName):
        LINEAR.plan([Subscription("klines", "BTC_USDT")])


def test_rest() -> None:
    """Contracts, books, volumes and open interest are read from REST; only perpetuals of USDT are listed."""
    rows = [
        CONTRACT,
        {**CONTRACT, "symbol": "OLDUSDTM", "baseCurrency": "OLD", "status": "Closed"},
        {**CONTRACT, "symbol": "XBTUSDM", "quoteCurrency": "USD", "isInverse": True},
        {**CONTRACT, "symbol": "XBTMZ26", "expireDate": 1798185600000},
    ]
    assert LINEAR.parse_listing(answered(rows)) == [
        Listing("BTC_USDT", "XBTUSDTM", "BTC", "USDT", True, "0.001"),
        Listing("OLD_USDT", "OLDUSDTM", "OLD", "USDT", False, "0.001"),
    ]
    assert LINEAR.parse_listing(LINEAR.write_listing(["BTC_USDT"]) or b"")[0].native == "XBTUSDTM"
    assert LINEAR.snapshot_request("BTC_USDT") == Request("/api/v1/level2/snapshot", {"symbol": "XBTUSDTM"}, weight=6)
    body = answered({"sequence": 7, "bids": [[0.21557, 30]], "asks": [[1e-05, 62]], "ts": 1705881600412000000})
    assert LINEAR.parse_snapshot("BTC_USDT", body, RECEIVED) == BookSnapshot(
        "BTC_USDT", 1705881600412000, 7, [("0.21557", "30")], [("0.00001", "62")], RECEIVED
    )
    assert LINEAR.parse_volumes(answered([CONTRACT])) == {"XBTUSDTM": Decimal("594135187.191124")}
    [request] = LINEAR.poll_requests([Subscription("open_interest", "BTC_USDT"), Subscription("funding", "BTC_USDT")])
    assert list(LINEAR.parse_poll(request, answered(rows), RECEIVED)) == [
        OpenInterest("BTC_USDT", RECEIVED, "9295921", None, RECEIVED, "rest")
    ]
    assert LINEAR.poll_requests([Subscription("funding", "BTC_USDT")]) == ()
    assert LINEAR.trades_request("BTC_USDT", 1, 1) is None
    with pytest.raises(MessageError, match="429000"):
        LINEAR.parse_listing(b'{"code":"429000","msg":"Too Many Requests"}')


def test_feed(play: Any) -> None:
    """Trades, book, quotes and funding come through a feed; a jump of the sequence is a gap."""
    body = answered({"sequence": 7, "bids": [[0.2, 30]], "asks": [[0.3, 62]], "ts": 1705708800009000000})
    script = [
        change("0.21,buy,5", 8),
        push("/contractMarket/execution", "match", MATCH),
        push("/contractMarket/tickerV2", "tickerV2", BEST),
        push("/contract/instrument", "mark.index.price", MARKS),
        change("0.3,sell,0", 9),
    ]
    asked = [Subscription(stream, "BTC_USDT") for stream in ("prices", "orderbook", "tickers", "funding")]
    collected = play(LINEAR, asked, script, answer=lambda path: body if "level2" in path else None)
    assert [one.trade_id for one in collected.trades] == [1728107666597]
    assert (collected.books[-1].bids, collected.books[-1].asks) == ([("0.21", "5"), ("0.2", "30")], [])
    assert {stream: len(events) for stream, events in collected.events.items()} == {"tickers": 1, "funding": 1}
    assert collected.gaps == []


def test_frames_with_expected(recordings: Path) -> None:
    """Frames of 2024 mean what another library reads in them."""
    kinds: list[type] = []
    for line in (recordings / "frames-with-expected.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["exchange"] != "kucoin-futures" or row["message"].get("generated"):
            continue
        native = row["message"]["topic"].rpartition(":")[2]
        truth = row["expected"][0] if row["expected"] else {}
        for event in KucoinLinear([Listing("A_B", native, "A", "B")]).parse(json.dumps(row["message"]), 0):
            kinds.append(type(event))
            if isinstance(event, Trade):
                assert (float(event.price), float(event.volume)) == (truth["price"], truth["amount"])
                assert (event.side, str(event.trade_id)) == (truth["side"], truth["id"])
            elif isinstance(event, Ticker):
                assert (float(event.bid or 0), float(event.bid_qty or 0)) == (truth["bidPrice"], truth["bidAmount"])
                assert (float(event.ask or 0), float(event.ask_qty or 0)) == (truth["askPrice"], truth["askAmount"])
            elif isinstance(event, Funding) and event.funding_rate is not None:
                assert float(event.funding_rate) == truth["fundingRate"]
            elif isinstance(event, Funding):
                assert float(event.mark_price or 0) == truth["markPrice"]
    assert kinds == [Trade, BookDelta, Ticker, Trade, Funding, Funding, Funding]
