"""Bybit spot: golden frames, what emits nothing, what is refused, real recordings, and a feed over loopback."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import MessageError, UnknownName
from collector.events import Acknowledged, BookDelta, BookSnapshot, Kline, Rejected, Ticker, Trade
from collector.exchanges.base import Listing, Request, Subscription
from collector.exchanges.bybit import Bybit

RECEIVED = 1_733_011_205_500_000
SPOT = Bybit([Listing("BTC_USDC", "BTCUSDC", "BTC", "USDC"), Listing("XRP_USDT", "XRPUSDT", "XRP", "USDT")])

TRADE = {
    "i": "2240000000041223438",
    "T": 1680688979998,
    "p": "28528.98",
    "v": "0.00433",
    "S": "Buy",
    "s": "BTCUSDC",
    "BT": False,
}
BOOK = {"s": "BTCUSDC", "b": [["28161.04", "0.177474"], ["28145.71", "0"]], "a": [], "u": 59438061, "seq": 4281282232}
CANDLE = {
    "start": 1672324800000,
    "end": 1672324859999,
    "interval": "1",
    "open": "16649.5",
    "close": "16677",
    "high": "16677",
    "low": "16608",
    "volume": "2.081",
    "turnover": "34666.4005",
    "confirm": False,
    "timestamp": 1672324988882,
}
TRADE_EVENT = Trade("BTC_USDC", 1680688979998000, "28528.98", "0.00433", "buy", "2240000000041223438", RECEIVED)
LEVELS = [("28161.04", "0.177474"), ("28145.71", "0")]
KLINE_EVENT = Kline(
    "BTC_USDC", "1m", 1672324800000000, "16649.5", "16677", "16608", "16677", "2.081", "34666.4005",
    None, None, False, 1672324988882000, RECEIVED,
)  # fmt: skip


def push(topic: str, data: object, **others: object) -> bytes:
    return json.dumps({"topic": topic, "ts": 1680652808085, **others, "data": data}, separators=(",", ":")).encode()


def book(**changes: object) -> bytes:
    kind = changes.pop("type", "delta")
    others = {"cts": changes.pop("cts")} if "cts" in changes else {}
    return push("orderbook.200.BTCUSDC", {**BOOK, **changes}, type=kind, **others)


@pytest.mark.parametrize(
    ("frame", "event"),
    [
        (push("publicTrade.BTCUSDC", [TRADE], type="snapshot"), TRADE_EVENT),
        (book(), BookDelta("BTC_USDC", 1680652808085000, 59438061, 59438061, None, LEVELS, [], RECEIVED)),
        (
            book(cts=1680652808080),
            BookDelta("BTC_USDC", 1680652808080000, 59438061, 59438061, None, LEVELS, [], RECEIVED),
        ),
        (book(type="snapshot"), BookSnapshot("BTC_USDC", 1680652808085000, 59438061, LEVELS, [], RECEIVED)),
        (push("kline.1.BTCUSDC", [CANDLE], type="snapshot"), KLINE_EVENT),
        (b'{"success":true,"ret_msg":"subscribe","conn_id":"c","req_id":"1","op":"subscribe"}', Acknowledged("1")),
        (b'{"success":true,"ret_msg":"","conn_id":"c","op":"subscribe"}', Acknowledged(None)),
        (
            b'{"success":false,"ret_msg":"Invalid topic: x","conn_id":"c","req_id":"2","op":"subscribe"}',
            Rejected("2", "", "Invalid topic: x"),
        ),
    ],
)  # fmt: skip
def test_event(frame: bytes, event: object) -> None:
    """A frame is its event, as bytes and as text, whatever the order of its fields."""
    assert [event] == list(SPOT.parse(frame, RECEIVED))
    assert [event] == list(SPOT.parse(frame.decode(), RECEIVED))
    assert [event] == list(SPOT.parse(json.dumps(dict(reversed(json.loads(frame).items())), indent=1), RECEIVED))


@pytest.mark.parametrize(
    "frame",
    [
        b"{}",
        b'{"success":true,"ret_msg":"pong","conn_id":"c","req_id":"","op":"ping"}',
        b'{"op":"pong","args":["1675418560633"],"conn_id":"c"}',
        b'{"success":true,"ret_msg":"","conn_id":"c","op":"unsubscribe"}',
        push("tickers.BTCUSDC", {"symbol": "BTCUSDC"}),
        push("orderbook.1.DOGEUSDT", {**BOOK, "s": "DOGEUSDT"}, type="snapshot"),
        push("orderbook.full.BTCUSDC", BOOK, type="delta"),
        push("allLiquidation.BTCUSDC", [{"T": 1, "s": "DOGEUSDT", "S": "Sell", "v": "1", "p": "2"}]),
        push("publicTrade.DOGEUSDT", [{**TRADE, "s": "DOGEUSDT"}]),
        push("orderbook.200.DOGEUSDT", {**BOOK, "s": "DOGEUSDT"}, type="delta"),
        push("kline.1.DOGEUSDT", [CANDLE]),
    ],
)
def test_silent(frame: bytes) -> None:
    """What we don't read, and instruments that nobody asked for, emit nothing."""
    assert list(SPOT.parse(frame, RECEIVED)) == []


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"5",
        b"null",
        b"\xff",
        "\ud800",
        b"[" * 100_000,
        push("publicTrade.BTCUSDC", TRADE),
        push("publicTrade.BTCUSDC", [{**TRADE, "p": 5}]),
        push("publicTrade.BTCUSDC", [{**TRADE, "p": "1e5"}]),
        push("publicTrade.BTCUSDC", [{**TRADE, "v": "-1"}]),
        push("publicTrade.BTCUSDC", [{**TRADE, "S": "?"}]),
        push("publicTrade.BTCUSDC", [{**TRADE, "i": "a,b"}]),
        push("publicTrade.BTCUSDC", [{**TRADE, "i": ""}]),
        push("publicTrade.BTCUSDC", [{**TRADE, "T": 2**60}]),
        book(type="?"),
        book(b=[["x", "1"]]),
        book(b=[["1"]]),
        book(u=-1),
        push("kline.1.BTCUSDC", [{**CANDLE, "open": "?"}]),
        push("kline.1.BTCUSDC", [{}]),
    ],
)
def test_malformed(frame: bytes | str) -> None:
    """What the documentation does not allow is a MessageError, whatever it is."""
    with pytest.raises(MessageError):
        SPOT.parse(frame, RECEIVED)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=3), children, max_size=3),
    max_leaves=8,
)


@st.composite
def mutated_frames(draw: st.DrawFn) -> bytes:
    topic, row = draw(st.sampled_from([("publicTrade.BTCUSDC", TRADE), ("orderbook.200.BTCUSDC", BOOK)]))
    changed = dict(row)
    for name in draw(st.lists(st.sampled_from(sorted(changed)), max_size=3)):
        changed[name] = draw(json_values)
    return push(topic, [changed] if topic[0] == "p" else changed, type=draw(st.sampled_from(["snapshot", "delta"])))


@given(st.binary() | st.text() | mutated_frames() | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_frame(frame: bytes | str) -> None:
    """Any frame gives events or a MessageError, and every number in an event is one."""
    try:
        events = SPOT.parse(frame, RECEIVED)
    except MessageError:
        return
    for event in events:
        if isinstance(event, Trade):
            assert Decimal(event.price) >= 0
            assert Decimal(event.volume) >= 0
        elif isinstance(event, BookDelta | BookSnapshot):
            assert all(Decimal(text) >= 0 for level in event.bids + event.asks for text in level)
    assert SPOT.channel_of(frame) is None or isinstance(SPOT.channel_of(frame), str)


class TestListing:
    def test_names(self) -> None:
        """Symbols are BASE_QUOTE, active where they trade."""
        rows = [
            {"symbol": "BTCUSDT", "baseCoin": "BTC", "quoteCoin": "USDT", "status": "Trading"},
            {"symbol": "ETHUSDT", "baseCoin": "ETH", "quoteCoin": "USDT", "status": "PreLaunch"},
        ]
        body = json.dumps({"retCode": 0, "result": {"list": rows}}).encode()
        assert [
            Listing("BTC_USDT", "BTCUSDT", "BTC", "USDT", True),
            Listing("ETH_USDT", "ETHUSDT", "ETH", "USDT", False),
        ] == SPOT.parse_listing(body)

    def test_pages(self) -> None:
        """A cursor asks for the next page."""
        first = SPOT.listing_request()
        assert Request("/v5/market/instruments-info", {"category": "spot", "limit": "1000"}) == first
        body = b'{"retCode":0,"result":{"list":[],"nextPageCursor":"abc"}}'
        following = SPOT.next_listing_request(first, body)
        assert following is not None
        assert following.params == {"category": "spot", "limit": "1000", "cursor": "abc"}
        assert SPOT.next_listing_request(following, b'{"retCode":0,"result":{"list":[],"nextPageCursor":""}}') is None

    def test_written(self) -> None:
        """What is written for a replay reads as the same symbols."""
        names = ["BTC_USDT", "XRP_USDC"]
        assert [listing.symbol for listing in SPOT.parse_listing(SPOT.write_listing(names) or b"")] == names

    def test_refusal(self) -> None:
        """The exchange's own words are in the error, and any other answer is refused."""
        with pytest.raises(MessageError, match=r"Too many visits.*10006"):
            SPOT.parse_listing(b'{"retCode":10006,"retMsg":"Too many visits","result":{}}')
        for body in (b"", b"<html>", b"[]", b'{"retCode":0,"result":5}'):
            with pytest.raises(MessageError):
                SPOT.parse_listing(body)

    def test_examples(self, recordings: Path) -> None:
        """The documentation's example is read."""
        listings = SPOT.parse_listing((recordings / "single-frames/bybit/http_get_instruments_spot.json").read_bytes())
        assert [listing.symbol for listing in listings][:2] == ["BTC_USDT", "ETH_USDT"]


class TestPlan:
    def test_frames(self) -> None:
        """Ten topics are asked for by one frame with an id."""
        listings = [Listing(f"A{n}_USDT", f"A{n}USDT", f"A{n}", "USDT") for n in range(8)]
        asked = [Subscription(stream, listing.symbol) for stream in ("prices", "orderbook") for listing in listings]
        [plan] = Bybit(listings).plan(asked)
        assert plan.path == "/v5/public/spot"
        assert plan.request_ids == ("1", "2")
        assert [len(json.loads(frame)["args"]) for frame in plan.frames] == [10, 6]
        assert json.loads(plan.frames[0])["args"][:2] == ["publicTrade.A0USDT", "orderbook.200.A0USDT"]

    def test_unknown_names(self) -> None:
        """A wrong symbol or data type is named."""
        with pytest.raises(UnknownName, match="BTC_EUR"):
            SPOT.plan([Subscription("prices", "BTC_EUR")])
        with pytest.raises(UnknownName, match="funding"):
            SPOT.plan([Subscription("funding", "BTC_USDC")])

    def test_channels(self) -> None:
        """What is asked for is spelled as what comes, whatever the depth of the book."""
        [plan] = SPOT.plan([Subscription(stream, "BTC_USDC") for stream in ("prices", "orderbook", "klines")])
        asked = list(SPOT.channels_asked(plan.path, plan.frames[0]))
        assert asked == ["publicTrade.BTCUSDC", "orderbook.BTCUSDC", "kline.1.BTCUSDC"]
        assert SPOT.channel_of(push("orderbook.500.BTCUSDC", BOOK)) == asked[1]
        assert SPOT.channel_of(push("orderbook.1.BTCUSDC", BOOK)) == "orderbook.1.BTCUSDC"
        assert SPOT.channel_of(b'{"op":"pong"}') is None
        assert list(SPOT.channels_asked(plan.path, '{"op":"ping"}')) == []

    def test_answers(self) -> None:
        """Pings and requests are answered as the exchange would."""
        pong = SPOT.acknowledgement(SPOT.ping_frame() or "") or ""
        assert list(SPOT.parse(pong, RECEIVED)) == []
        [plan] = SPOT.plan([Subscription("prices", "BTC_USDC")])
        assert [Acknowledged("1")] == list(SPOT.parse(SPOT.acknowledgement(plan.frames[0]) or "", RECEIVED))
        assert SPOT.acknowledgement("?") is None


class TestRest:
    def test_snapshot(self, recordings: Path) -> None:
        """A book of REST is read, though the stream brings its own."""
        exchange = Bybit([Listing("BTC_USDT", "BTCUSDT", "BTC", "USDT")])
        request = exchange.snapshot_request("BTC_USDT")
        assert request.params == {"category": "spot", "symbol": "BTCUSDT", "limit": "200"}
        body = (recordings / "single-frames/bybit/http_get_orderbook.json").read_bytes()
        snapshot = exchange.parse_snapshot("BTC_USDT", body, RECEIVED)
        assert (snapshot.last_id, snapshot.bids[0]) == (1234567, ("27450.50", "1.500"))

    def test_the_newest_trades_can_be_had(self) -> None:
        """Oldest first, with the ids of the websocket; what is before them is gone (the documentation's example)."""
        request = SPOT.trades_request("BTC_USDC", 1, 10)
        assert request is not None
        assert (request.path, request.params["category"], request.params["limit"]) == (
            "/v5/market/recent-trade", "spot", "60",
        )  # fmt: skip
        rows = [
            {"execId": "2100000000007764264", "symbol": "BTCUSDC", "price": "16618.5", "size": "1", "side": "Sell",
             "time": "1672052955759", "isBlockTrade": False},
            {"execId": "2100000000007764263", "symbol": "BTCUSDC", "price": "16618.49", "size": "0.00012",
             "side": "Buy", "time": "1672052955758", "isBlockTrade": False},
        ]  # fmt: skip
        body = json.dumps({"retCode": 0, "retMsg": "OK", "result": {"category": "spot", "list": rows}}).encode()
        assert SPOT.parse_trades("BTC_USDC", body, 7) == [
            Trade("BTC_USDC", 1672052955758000, "16618.49", "0.00012", "buy", "2100000000007764263", 7, "rest"),
            Trade("BTC_USDC", 1672052955759000, "16618.5", "1", "sell", "2100000000007764264", 7, "rest"),
        ]
        for broken in (b"", b'{"retCode":10001,"retMsg":"params error","result":{}}', body.replace(b"2100", b'21"')):
            with pytest.raises(MessageError):
                SPOT.parse_trades("BTC_USDC", broken, 0)


class TestFeed:
    def test_real_recording(self, recorded: Any, recordings: Path, play: Any) -> None:
        """The recorded book of 500 levels ends as it should, with no gap."""
        truth = json.loads((recordings / "expected.json").read_text())["bybit-XRPUSDT-orderbook500-20241201.rec.gz"]
        expected = truth["symbols"]["XRPUSDT"]["book"]
        frames = [frame for _, frame in recorded.frames("bybit-XRPUSDT-orderbook500-20241201.rec.gz")]
        collected = play(SPOT, [Subscription("orderbook", "XRP_USDT")], frames)
        last = collected.books[-1]
        assert collected.gaps == []
        assert [list(level) for level in last.bids[:1]] == expected["bids_top"]
        assert [list(level) for level in last.asks[:1]] == expected["asks_top"]
        assert last.update_id == expected["final_u"]

    def test_lost_change(self, recorded: Any, play: Any) -> None:
        """A missing update id is a gap with that id, and the book is asked for again."""
        frames = [frame for _, frame in recorded.frames("bybit-XRPUSDT-orderbook500-20241201.rec.gz")]
        ids = [json.loads(frame)["data"]["u"] for frame in frames]
        whole = json.loads(frames[0])
        whole["data"]["u"] = ids[10]
        whole["cts"] = json.loads(frames[10])["cts"]
        script = [*frames[:5], *frames[6:8], "asked again", json.dumps(whole)]
        collected = play(SPOT, [Subscription("orderbook", "XRP_USDT")], script)
        [gap] = collected.gaps
        assert (gap.cause, gap.from_id, gap.to_id) == ("sequence", ids[5], ids[10] - 1)
        assert [json.loads(frame)["op"] for frame in collected.asked] == ["subscribe", "unsubscribe", "subscribe"]

    def test_restart(self, play: Any) -> None:
        """A snapshot with the id 1 overwrites the book, and what went before it may lack something: a gap."""
        script = [
            book(type="snapshot", u=100, b=[["10", "1"]], a=[["11", "1"]]),
            book(u=101, b=[["10", "2"]]),
            book(type="snapshot", u=1, b=[["10", "3"]], a=[["11", "1"]], cts=1680652808385),
            book(u=2, b=[["10", "4"]], cts=1680652808585),
        ]
        collected = play(SPOT, [Subscription("orderbook", "BTC_USDC")], script)
        assert [(gap.cause, gap.from_id) for gap in collected.gaps] == [("sequence", None)]
        assert [row.bids[0][1] for row in collected.books] == ["2", "3", "4"]
        assert len(collected.asked) == 1

    def test_trades(self, play: Any) -> None:
        """Trades are collected once each; what a lost connection may have cost is a gap."""
        frames = [push("publicTrade.BTCUSDC", [{**TRADE, "i": str(n), "T": 1680688979998 + n}]) for n in range(4)]
        collected = play(
            SPOT, [Subscription("prices", "BTC_USDC")], [*frames[:2], "disconnect", frames[1], *frames[3:]]
        )
        assert [trade.trade_id for trade in collected.trades] == ["0", "1", "3"]
        assert [(gap.cause, gap.from_id) for gap in collected.gaps] == [("disconnect", None)]


def test_frames_with_expected(recordings: Path) -> None:
    """Trades of today's API mean what another library reads in them: side, price, size and time."""
    compared = 0
    for line in (recordings / "frames-with-expected.jsonl").read_text().splitlines():
        row = json.loads(line)
        topic = row["message"].get("topic", "") if isinstance(row["message"], dict) else ""
        if not row["exchange"].startswith("bybit") or not topic.startswith("publicTrade"):
            continue
        exchange = Bybit([Listing("A_B", row["message"]["data"][0]["s"], "A", "B")])
        for trade, truth in zip(exchange.parse(json.dumps(row["message"]), 0), row["expected"], strict=True):
            assert isinstance(trade, Trade)
            assert (float(trade.price), float(trade.volume)) == (truth["price"], truth["amount"])
            assert (trade.side, trade.trade_id) == (truth["side"], truth["id"])
            compared += 1
    assert compared > 2


def test_single_frames(recordings: Path) -> None:
    """Examples of the documentation are read: acknowledgement, failure, candle."""
    folder = recordings / "single-frames" / "bybit"
    read = {path.stem: list(SPOT.parse(path.read_bytes(), 0)) for path in folder.glob("ws_*.json")}
    assert read["ws_subscription_ack"] == [Acknowledged("sub-orderbook-1")]
    assert read["ws_subscription_failure"] == [Rejected(None, "", "Invalid topic: invalid.topic.BTCUSDT")]
    assert read["ws_orderbook_snapshot"] == read["ws_ticker_linear"] == []
    exchange = Bybit([Listing("BTC_USDT", "BTCUSDT", "BTC", "USDT")])
    [kline] = exchange.parse((folder / "ws_kline.json").read_bytes(), 0)
    assert isinstance(kline, Kline)
    assert (kline.interval, kline.close, kline.closed) == ("5m", "16677", False)
    [trade] = exchange.parse((folder / "ws_public_trade.json").read_bytes(), 0)
    assert isinstance(trade, Trade)
    assert (trade.side, trade.price, trade.volume, trade.timestamp_us) == (
        "buy", "27451.00", "0.010", 1709891679000000,
    )  # fmt: skip


def test_volumes() -> None:
    """What was traded in 24 hours is read in quote currency, by native spelling; a refusal is said in its words."""
    assert SPOT.volumes_request() == Request("/v5/market/tickers", {"category": "spot"})
    rows = [{"symbol": "BTCUSDT", "turnover24h": "2352.94950046", "volume24h": "0.12"}]
    body = json.dumps({"retCode": 0, "retMsg": "OK", "result": {"category": "spot", "list": rows}}).encode()
    assert SPOT.parse_volumes(body) == {"BTCUSDT": Decimal("2352.94950046")}
    with pytest.raises(MessageError, match="10006"):
        SPOT.parse_volumes(b'{"retCode":10006,"retMsg":"Too many visits!"}')


TOP = {"s": "BTCUSDC", "b": [["28552.00", "0.047"]], "a": [["28552.10", "25.433"]], "u": 7003305, "seq": 50193540681}


def top(kind: str, **changes: object) -> bytes:
    return push("orderbook.1.BTCUSDC", {**TOP, **changes}, type=kind)


def tops(*frames: bytes) -> list[tuple[str | None, str | None, str | None, str | None]]:
    """Read frames one after the other; return the best prices after each that said something."""
    exchange = Bybit([Listing("BTC_USDC", "BTCUSDC", "BTC", "USDC")])
    events = [event for frame in frames for event in exchange.parse(frame, RECEIVED)]
    return [(e.bid, e.bid_qty, e.ask, e.ask_qty) for e in events if isinstance(e, Ticker)]


def test_the_best_prices_are_the_book_of_one_level() -> None:
    """A snapshot says both sides, with the number of the update."""
    (event,) = SPOT.parse(top("snapshot"), RECEIVED)
    assert event == Ticker("BTC_USDC", 1680652808085000, "28552.00", "0.047", "28552.10", "25.433", 7003305, RECEIVED)


def test_changes_of_the_best_prices_are_merged() -> None:
    """A change says one side; the other stays. A level that went leaves its side empty until there is another."""
    assert tops(
        top("snapshot"),
        top("delta", b=[["28165.07", "0.166754"]], a=[]),
        top("delta", b=[], a=[["28552.10", "0"]]),
        top("delta", b=[["28165.07", "0"], ["28165.06", "2"]], a=[["28170", "1"]]),
        top("delta", b=[["28100", "0"]], a=[]),
        top("snapshot", b=[]),
    ) == [
        ("28552.00", "0.047", "28552.10", "25.433"),
        ("28165.07", "0.166754", "28552.10", "25.433"),
        ("28165.07", "0.166754", None, None),
        ("28165.06", "2", "28170", "1"),
        ("28165.06", "2", "28170", "1"),
        (None, None, "28552.10", "25.433"),
    ]


def test_changes_of_what_was_never_told_emit_nothing() -> None:
    """The snapshot comes first."""
    assert tops(top("delta")) == []


def test_broken_best_prices_are_an_error() -> None:
    """They never become a row."""
    for frame in (top("snapshot", b=[["x", "1"]]), top("?"), top("snapshot", u="x")):
        with pytest.raises(MessageError):
            SPOT.parse(frame, RECEIVED)
