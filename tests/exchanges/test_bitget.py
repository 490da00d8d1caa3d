"""Bitget: golden frames of v3 and trades of v2, what emits nothing, what is refused."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import MessageError, UnknownName
from collector.events import Acknowledged, BookDelta, BookSnapshot, Kline, PastTrade, Rejected, Ticker, Trade
from collector.exchanges.base import Listing, Request, Subscription
from collector.exchanges.bitget import Bitget

RECEIVED = 1_777_358_880_180_000
BITGET = Bitget([Listing("BTC_USDT", "BTCUSDT", "BTC", "USDT"), Listing("ETH_USDT", "ETHUSDT", "ETH", "USDT")])

TRADE = {
    "i": "1432912488536195072",
    "p": "76671.22",
    "v": "0.001367",
    "S": "sell",
    "T": "1777358880170",
    "L": "1432912488536195073",
    "isRPI": "no",
}
TRADE_V2 = {
    "ts": "1730332858796",
    "price": "72389.99",
    "size": "0.001373",
    "side": "buy",
    "tradeId": "1235671058980749319",
}
BOOK = {
    "a": [["76794.01", "1.049783"]],
    "b": [["76794", "0.062194"], ["76793", "0"]],
    "checksum": 0,
    "seq": 451275591390,
    "pseq": 0,
    "ts": "1777362656332",
}
CANDLE = {
    "start": "1755564480000",
    "open": "116286",
    "close": "116256.2",
    "high": "116310.2",
    "low": "116232.8",
    "volume": "39.7062",
    "turnover": "4616746.46654",
}


def push(topic: str, *rows: dict[str, Any], action: str = "update", **argument: Any) -> bytes:
    arg = {"instType": "spot", "topic": topic, "symbol": "BTCUSDT", **argument}
    return json.dumps({"action": action, "arg": arg, "data": rows, "ts": 1777358880172}, separators=(",", ":")).encode()


def push_v2(channel: str, *rows: dict[str, Any], action: str = "update") -> bytes:
    arg = {"instType": "SPOT", "channel": channel, "instId": "BTCUSDT"}
    return json.dumps({"action": action, "arg": arg, "data": rows, "ts": 1730332858805}).encode()


def trade(number: int = 1432912488536195072) -> Trade:
    return Trade("BTC_USDT", 1777358880170000, "76671.22", "0.001367", "sell", number, RECEIVED)


def kline(start_us: int) -> Kline:
    return Kline(
        "BTC_USDT", "1m", start_us, "116286", "116310.2", "116232.8", "116256.2", "39.7062", "4616746.46654", None,
        None, False, 1777358880172000, RECEIVED,
    )  # fmt: skip


TRADE_V2_EVENT = Trade("BTC_USDT", 1730332858796000, "72389.99", "0.001373", "buy", 1235671058980749319, RECEIVED)
BEST = {
    "a": [["76671.23", "0.41581"]],
    "b": [["76671.22", "0.531211"]],
    "checksum": 0,
    "seq": 451057506670,
    "pseq": 0,
    "ts": "1777358880105",
}
BIDS, ASKS = [("76794", "0.062194"), ("76793", "0")], [("76794.01", "1.049783")]
ERROR = {
    "event": "error",
    "arg": {"instType": "spot", "topic": "publicTrade", "symbol": "FOOUSDT"},
    "code": 30001,
    "msg": "symbol does not exist",
}


@pytest.mark.parametrize(
    ("payload", "events"),
    [
        (push("publicTrade", TRADE), [trade()]),
        (
            push("publicTrade", {**TRADE, "i": "1432912488536195073"}, TRADE),
            [trade(), trade(1432912488536195073)],
        ),
        (push("publicTrade", TRADE, action="snapshot"), [PastTrade(trade())]),
        (
            push("books", BOOK, action="snapshot"),
            [BookSnapshot("BTC_USDT", 1777362656332000, 451275591390, BIDS, ASKS, RECEIVED)],
        ),
        (
            push("books", {**BOOK, "seq": 451275591399, "pseq": 451275591390}),
            [BookDelta("BTC_USDT", 1777362656332000, 451275591399, 451275591399, 451275591390, BIDS, ASKS, RECEIVED)],
        ),
        (
            push("kline", CANDLE, {**CANDLE, "start": "1755564420000"}, action="snapshot", interval="1m"),
            [kline(1755564420000000), kline(1755564480000000)],
        ),
        (push_v2("trade", TRADE_V2), [TRADE_V2_EVENT]),
        (push_v2("trade", TRADE_V2, action="snapshot"), [PastTrade(TRADE_V2_EVENT)]),
        (
            push("books1", BEST, action="snapshot"),
            [
                Ticker(
                    "BTC_USDT", 1777358880105000, "76671.22", "0.531211", "76671.23", "0.41581", 451057506670, RECEIVED
                )
            ],
        ),
        (
            push("books1", {**BEST, "a": [], "b": [["1", "0"]]}, action="snapshot"),
            [Ticker("BTC_USDT", 1777358880105000, None, None, None, None, 451057506670, RECEIVED)],
        ),
        (json.dumps({"event": "subscribe", "arg": {"instType": "spot"}}).encode(), [Acknowledged(None)]),
        (json.dumps(ERROR).encode(), [Rejected(None, "30001", "symbol does not exist", "publicTrade:FOOUSDT")]),
        (b'{"event":"error","code":"30003","msg":"?"}', [Rejected(None, "30003", "?")]),
    ],
)
def test_frame(payload: bytes, events: list[object]) -> None:
    """A frame is its events, oldest first, whatever the order of its fields."""
    assert events == list(BITGET.parse(payload, RECEIVED))
    assert events == list(BITGET.parse(json.dumps(json.loads(payload), indent=1), RECEIVED))
    assert events == list(BITGET.parse(json.dumps(dict(reversed(json.loads(payload).items()))), RECEIVED))


@pytest.mark.parametrize(
    "payload",
    [
        b"pong",
        "pong",
        b'{"event":"login","code":0}',
        push("ticker", {"lastPrice": "1", "openPrice24h": "1"}),
        push("ticker", {"p": 5}),
        push("ticker", {"fundingRate": "0.0001", "openInterest": "5"}),
        push("liquidation", {"symbol": "BTCUSDT", "side": "buy", "price": "1", "amount": "1", "ts": "1"}),
        push("publicTrade", TRADE, symbol="FOOUSDT"),
        push("publicTrade", TRADE, instType="usdt-futures"),
        push_v2("books", {"asks": [], "bids": [["0.12306", "3326.85"]], "checksum": 1073441524, "ts": "1"}),
        push_v2("books15", {"asks": [], "bids": [], "checksum": 0, "ts": "1"}, action="snapshot"),
    ],
)
def test_silent(payload: bytes | str) -> None:
    """What we don't read, and markets that nobody asked for, emit nothing."""
    assert list(BITGET.parse(payload, RECEIVED)) == []


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"ping",
        b"5",
        b"{}",
        b"[]",
        b"\xff",
        "\ud800",
        b"[" * 100_000,
        b'{"event":5}',
        b'{"action":"update","arg":[],"data":[]}',
        push("publicTrade", TRADE, action="other"),
        push("publicTrade", {}),
        push("publicTrade", {**TRADE, "S": "Sell"}),
        push("publicTrade", {name: value for name, value in TRADE.items() if name != "S"}),
        push("publicTrade", {**TRADE, "p": "1e5"}),
        push("publicTrade", {**TRADE, "v": 5}),
        push("publicTrade", {**TRADE, "T": "soon"}),
        push("publicTrade", {**TRADE, "i": ""}),
        push("books", {**BOOK, "b": [["x", "1"]]}),
        push("books", {name: value for name, value in BOOK.items() if name != "a"}),
        push("books", {name: value for name, value in BOOK.items() if name != "seq"}),
        push("books", {**BOOK, "ts": ""}),
        push("kline", {**CANDLE, "open": "?"}, interval="1m"),
        push("kline", {**CANDLE, "start": "?"}, interval="1m"),
        push_v2("trade", {**TRADE_V2, "price": ""}),
        push_v2("trade", {name: value for name, value in TRADE_V2.items() if name != "side"}),
    ],
)
def test_malformed(payload: bytes | str) -> None:
    """What the documentation does not allow is a MessageError, whatever it is."""
    with pytest.raises(MessageError):
        BITGET.parse(payload, RECEIVED)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=3), children, max_size=3),
    max_leaves=8,
)


@st.composite
def mutated_frames(draw: st.DrawFn) -> bytes:
    topic, row = draw(
        st.sampled_from([("publicTrade", TRADE), ("books", BOOK), ("kline", CANDLE), ("trade", TRADE_V2)])
    )
    changed: dict[str, Any] = dict(row)
    for name in draw(st.lists(st.sampled_from(sorted(changed)), max_size=3)):
        changed[name] = draw(json_values)
    return push_v2(topic, changed) if topic == "trade" else push(topic, changed, interval="1m")


@given(st.binary() | st.text() | mutated_frames() | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_frame(payload: bytes | str) -> None:
    """Any frame gives events or a MessageError."""
    try:
        events = BITGET.parse(payload, RECEIVED)
    except MessageError:
        return
    for event in events:
        if isinstance(event, Trade):
            assert Decimal(event.price) >= 0
            assert Decimal(event.volume) >= 0
        elif isinstance(event, BookDelta):
            assert all(Decimal(text) >= 0 for level in event.bids + event.asks for text in level)
    assert BITGET.channel_of(payload) is None or isinstance(BITGET.channel_of(payload), str)


def answered(data: Any) -> bytes:
    return json.dumps({"code": "00000", "msg": "success", "data": data}).encode()


class TestListing:
    def test_names(self) -> None:
        """Symbols are BASE_QUOTE, active where they are online."""
        rows = [
            {"symbol": "OLDUSDT", "category": "SPOT", "baseCoin": "OLD", "quoteCoin": "USDT", "status": "offline"},
            {"symbol": "BTCUSDT", "category": "SPOT", "baseCoin": "BTC", "quoteCoin": "USDT", "status": "online"},
        ]
        assert BITGET.parse_listing(answered(rows)) == [
            Listing("BTC_USDT", "BTCUSDT", "BTC", "USDT", True),
            Listing("OLD_USDT", "OLDUSDT", "OLD", "USDT", False),
        ]
        assert BITGET.parse_listing(BITGET.write_listing(["BTC_USDT"]) or b"") == [
            Listing("BTC_USDT", "BTCUSDT", "BTC", "USDT")
        ]
        assert BITGET.listing_request() == Request("/api/v3/market/instruments", {"category": "SPOT"})

    def test_refusal(self) -> None:
        """The exchange's own words are in the error."""
        with pytest.raises(MessageError, match=r"too many.*429"):
            BITGET.parse_listing(b'{"code":"429","msg":"too many"}')


class TestPlan:
    def test_frames(self) -> None:
        """A frame asks for up to five channels, each an argument."""
        asked = [Subscription(stream, name) for name in ("BTC_USDT", "ETH_USDT") for stream in ("prices", "orderbook")]
        [plan] = BITGET.plan([*asked, Subscription("klines", "BTC_USDT"), Subscription("klines", "ETH_USDT")])
        assert plan.path == "/v3/ws/public"
        frames = [json.loads(frame) for frame in plan.frames]
        assert [len(frame["args"]) for frame in frames] == [5, 1]
        assert frames[0]["args"][:3] == [
            {"instType": "spot", "topic": "publicTrade", "symbol": "BTCUSDT"},
            {"instType": "spot", "topic": "books", "symbol": "BTCUSDT"},
            {"instType": "spot", "topic": "kline", "symbol": "BTCUSDT", "interval": "1m"},
        ]
        assert BITGET.ping_frame() == "ping"

    def test_renewal(self) -> None:
        """A book is pushed whole again when it is subscribed to again."""
        frames = BITGET.renewal_frames(Subscription("orderbook", "BTC_USDT"))
        assert [json.loads(frame)["op"] for frame in frames] == ["unsubscribe", "subscribe"]

    def test_unknown_names(self) -> None:
        """A wrong symbol or data type is named, with the nearest one."""
        with pytest.raises(UnknownName, match="BTC_USDT"):
            BITGET.plan([Subscription("prices", "BTC_USD")])
        with pytest.raises(UnknownName, match="prices"):
            BITGET.plan([Subscription("price", "BTC_USDT")])


class TestRest:
    def test_snapshot(self) -> None:
        """A book of REST has no number."""
        assert BITGET.snapshot_request("BTC_USDT").params == {"category": "SPOT", "symbol": "BTCUSDT", "limit": "200"}
        body = answered({"a": [["1.2", "3"]], "b": [["1.1", "1"]], "ts": "1777362656332"})
        assert BITGET.parse_snapshot("BTC_USDT", body, RECEIVED) == BookSnapshot(
            "BTC_USDT", 1777362656332000, 0, [("1.1", "1")], [("1.2", "3")], RECEIVED
        )
        with pytest.raises(MessageError, match="40034"):
            BITGET.parse_snapshot("BTC_USDT", b'{"code":"40034","msg":"Parameter does not exist"}', RECEIVED)

    def test_trades(self) -> None:
        """The newest trades come newest first."""
        request = BITGET.trades_request("BTC_USDT", 5, 10)
        assert request == Request("/api/v3/market/fills", {"category": "SPOT", "symbol": "BTCUSDT", "limit": "100"})
        row = {"execId": "5", "price": "1.5", "size": "2", "side": "sell", "ts": "1777362656332"}
        trades = BITGET.parse_trades("BTC_USDT", answered([{**row, "execId": "10"}, row]), RECEIVED)
        assert [(trade.trade_id, trade.source, trade.side) for trade in trades] == [
            (5, "rest", "sell"),
            (10, "rest", "sell"),
        ]


class TestChannels:
    def test_channels(self) -> None:
        """A recorded frame and a client's frame name a channel alike."""
        [plan] = BITGET.plan([Subscription(stream, "BTC_USDT") for stream in ("prices", "orderbook", "klines")])
        payloads = [push("publicTrade", TRADE), push("books", BOOK), push("kline", CANDLE, interval="1m")]
        assert list(BITGET.channels_asked("/", plan.frames[0])) == [BITGET.channel_of(payload) for payload in payloads]
        assert BITGET.channel_of(push_v2("trade", TRADE_V2)) == "trade:BTCUSDT"
        assert BITGET.channel_of(json.dumps(ERROR)) is None
        assert BITGET.channel_of(b"pong") is None

    def test_acknowledgement(self) -> None:
        """A client's frame is accepted, and its ping answered, in the exchange's words."""
        [plan] = BITGET.plan([Subscription("prices", "BTC_USDT")])
        answer = BITGET.acknowledgement(plan.frames[0])
        assert answer is not None
        assert list(BITGET.parse(answer, RECEIVED)) == [Acknowledged(None)]
        assert BITGET.acknowledgement("ping") == "pong"

    @pytest.mark.parametrize("text", ["", "[]", '{"op":5}', '{"op":"login"}'])
    def test_not_asked(self, text: str) -> None:
        """Any other frame asks for nothing and is not acknowledged."""
        assert list(BITGET.channels_asked("/", text)) == []
        assert BITGET.acknowledgement(text) is None


class TestFeed:
    def test_all(self, play: Any) -> None:
        """Trades after the subscription, the book and finished candles come through; nothing is a gap."""
        asked = [Subscription(stream, "BTC_USDT") for stream in ("prices", "orderbook", "klines")]
        later = {**BOOK, "a": [["76794.01", "2"]], "seq": 451275591399, "pseq": 451275591390, "ts": "1777362656532"}
        script = [
            push("publicTrade", {**TRADE, "i": "1"}, action="snapshot"),
            push("books", BOOK, action="snapshot"),
            push("publicTrade", {**TRADE, "i": "9"}, {**TRADE, "i": "5"}),
            push("books", later),
            push("kline", CANDLE, interval="1m"),
            push("kline", {**CANDLE, "start": "1755564540000"}, interval="1m"),
        ]
        collected = play(BITGET, asked, script)
        assert [trade.trade_id for trade in collected.trades] == [5, 9]
        assert (collected.books[-1].bids, collected.books[-1].asks) == ([BIDS[0]], [("76794.01", "2")])
        assert [candle.start_us for candle in collected.klines if candle.closed] == [1755564480000000]
        assert collected.gaps == []

    def test_broken_chain(self, play: Any) -> None:
        """A change that does not name the last one is a gap, and the book is asked for again."""
        change = {**BOOK, "seq": 451275591399, "pseq": 451275591390}
        lost = {**BOOK, "seq": 451275591420, "pseq": 451275591410, "ts": "1777362656532"}
        whole = {**BOOK, "seq": 451275591430, "ts": "1777362656632"}
        script = [
            push("books", BOOK, action="snapshot"),
            push("books", change),
            push("books", lost),
            "asked again",
            push("books", whole, action="snapshot"),
        ]
        collected = play(BITGET, [Subscription("orderbook", "BTC_USDT")], script)
        [gap] = collected.gaps
        assert (gap.cause, gap.from_id, gap.to_id) == ("sequence", 451275591400, 451275591429)


def test_frames_with_expected(recordings: Path) -> None:
    """Frames of v3, and trades of v2, mean what another library reads in them."""
    compared = 0
    for line in (recordings / "frames-with-expected.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["exchange"] != "bitget":
            continue
        argument = row["message"]["arg"]
        exchange = Bitget([Listing("A_B", argument.get("symbol") or argument["instId"], "A", "B")])
        for event in exchange.parse(json.dumps(row["message"]), 0):
            if isinstance(event, Trade):
                [truth] = row["expected"]
                assert (float(event.price), float(event.volume)) == (truth["price"], truth["amount"])
                assert (event.side, str(event.trade_id)) == (truth["side"], truth["id"])
                compared += 1
            elif isinstance(event, BookSnapshot):
                [truth] = row["expected"]
                for levels, expected in ((event.bids, truth["bids"]), (event.asks, truth["asks"])):
                    assert [[float(text) for text in level] for level in levels] == [
                        [level["price"], level["amount"]] for level in expected
                    ]
                compared += 1
            elif isinstance(event, PastTrade):
                assert row["expected"] == []
                compared += 1
            elif isinstance(event, Ticker):
                [truth] = row["expected"]
                assert (float(event.bid or 0), float(event.ask or 0)) == (truth["bidPrice"], truth["askPrice"])
                compared += 1
    assert compared == 5


def test_volumes() -> None:
    """What was traded in 24 hours is read in quote currency, by native spelling; a refusal is said in its words."""
    assert BITGET.volumes_request() == Request("/api/v3/market/tickers", {"category": "SPOT"})
    body = answered([{"symbol": "BTCUSDT", "turnover24h": "5101050.26784"}, {"symbol": "OLDUSDT", "turnover24h": ""}])
    assert BITGET.parse_volumes(body) == {"BTCUSDT": Decimal("5101050.26784"), "OLDUSDT": 0}
    for wrong in (answered([{"symbol": "A", "turnover24h": "x"}]), answered([{"symbol": "A", "turnover24h": "NaN"}])):
        with pytest.raises(MessageError, match="volume"):
            BITGET.parse_volumes(wrong)
    with pytest.raises(MessageError, match="too many"):
        BITGET.parse_volumes(b'{"code":"429","msg":"too many"}')
