"""OKX: golden frames, what emits nothing, what is refused, real recordings, and a feed over loopback."""

from __future__ import annotations

import json
import zlib
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
    Kline,
    Liquidation,
    OpenInterest,
    Rejected,
    ServerNotice,
    Ticker,
    Trade,
)
from collector.exchanges.base import Listing, Request, Subscription
from collector.exchanges.okx import Okx, OkxBookRule, checksum
from collector.feeds.orderbook import Book

RECEIVED = 1_786_538_760_300_000
NAMES = [
    "BTC_USD-UM-XPERP-310404",
    "BTC_USDT",
    "BTC_USDT-SWAP",
    "BTC_USD-220527",
    "UNI_USD-SWAP",
    "CRV_USDT",
    "ETC_ETH",
    "BSV_USDT",
]
OKX = Okx(Okx().parse_listing(Okx().write_listing(NAMES) or b""))

TRADE = {
    "instId": "BTC-USDT",
    "tradeId": "1040968613",
    "px": "64040.2",
    "sz": "0.00240857",
    "side": "buy",
    "ts": "1786538760218",
    "count": "2",
    "source": "0",
    "seqId": 79706765242,
}
SNAPSHOT = {
    "asks": [["8476.98", "415", "0", "13"], ["8477", "7", "0", "2"]],
    "bids": [["8476.97", "256", "0", "12"]],
    "ts": "1597026383085",
    "checksum": 0,
    "prevSeqId": -1,
    "seqId": 123456,
}
UPDATE = {**SNAPSHOT, "bids": [["8476.97", "0", "0", "0"]], "asks": [], "prevSeqId": 123456, "seqId": 123457}
CANDLE = ["1597026360000", "8533.02", "8553.74", "8527.17", "8548.26", "45247", "529.58", "5529.5858061", "1"]


RATE = {
    "fundingRate": "-0.0004270396398519",
    "fundingTime": "1785888000000",
    "instId": "BTC-USDT-SWAP",
    "instType": "SWAP",
    "nextFundingRate": "",
    "nextFundingTime": "1785916800000",
    "ts": "1785870855692",
}
CLOSED = {
    "details": [
        {
            "bkLoss": "0",
            "bkPx": "0.55205",
            "ccy": "",
            "posSide": "short",
            "side": "buy",
            "sz": "39",
            "ts": "1680173247614",
        }
    ],
    "instFamily": "BTC-USDT",
    "instId": "BTC-USDT-SWAP",
    "instType": "SWAP",
    "uly": "BTC-USDT",
}


def push(channel: str, *rows: object, native: str = "BTC-USDT", **others: object) -> bytes:
    message = {"arg": {"channel": channel, "instId": native}, **others, "data": rows}
    return json.dumps(message, separators=(",", ":")).encode()


TRADE_EVENT = Trade(
    "BTC_USDT",
    1786538760218000,
    "64040.2",
    "0.00240857",
    "buy",
    1040968613,
    RECEIVED,
    "ws",
    first_raw_id=1040968612,
    last_raw_id=1040968613,
)
SINGLE_EVENT = Trade("BTC_USDT", 1786538760218000, "64040.2", "0.00240857", "buy", 1040968613, RECEIVED)
SNAPSHOT_EVENT = BookSnapshot(
    "BTC_USDT", 1597026383085000, 123456, [("8476.97", "256")], [("8476.98", "415"), ("8477", "7")], RECEIVED
)
UPDATE_EVENT = BookDelta("BTC_USDT", 1597026383085000, 123457, 123457, 123456, [("8476.97", "0")], [], RECEIVED)
KLINE_EVENT = Kline(
    "BTC_USDT", "1m", 1597026360000000, "8533.02", "8553.74", "8527.17", "8548.26", "45247", "5529.5858061",
    None, None, True, 1597026360000000, RECEIVED,
)  # fmt: skip


@pytest.mark.parametrize(
    ("frame", "event"),
    [
        (push("trades", TRADE), TRADE_EVENT),
        (push("trades-all", {name: TRADE[name] for name in TRADE if name != "count"}), SINGLE_EVENT),
        (push("books", SNAPSHOT, action="snapshot"), SNAPSHOT_EVENT),
        (push("books", UPDATE, action="update"), UPDATE_EVENT),
        (push("books-l2-tbt", UPDATE, action="update"), UPDATE_EVENT),
        (push("candle1m", CANDLE), KLINE_EVENT),
        (b'{"id":"1","event":"subscribe","arg":{"channel":"trades","instId":"BTC-USDT"}}', Acknowledged("1")),
        (b'{"event":"subscribe","arg":{"channel":"trades","instId":"BTC-USDT"}}', Acknowledged(None)),
        (
            b'{"id":"1512","event":"error","code":"60012","msg":"Invalid request","connId":"a4d3ae55"}',
            Rejected("1512", "60012", "Invalid request"),
        ),
        (
            b'{"id":"1","event":"error","code":"60018","msg":"channel:trades,instId:BTC-FOO does not exist"}',
            Rejected("1", "60018", "channel:trades,instId:BTC-FOO does not exist", "trades:BTC-FOO"),
        ),
        (
            b'{"event":"notice","code":"64008","msg":"The connection will soon be closed","connId":"a4d3ae55"}',
            ServerNotice("shutdown", 0, "The connection will soon be closed"),
        ),
    ],
)  # fmt: skip
class TestEvents:
    def test_frame(self, frame: bytes, event: object) -> None:
        """A frame is its event, as bytes and as text, with white space or without."""
        assert [event] == list(OKX.parse(frame, RECEIVED))
        assert [event] == list(OKX.parse(frame.decode(), RECEIVED))
        assert [event] == list(OKX.parse(json.dumps(json.loads(frame), indent=1), RECEIVED))

    def test_field_order(self, frame: bytes, event: object) -> None:
        """The order of fields means nothing."""
        assert [event] == list(OKX.parse(json.dumps(dict(reversed(json.loads(frame).items()))), RECEIVED))


@pytest.mark.parametrize(
    "frame",
    [
        b"pong",
        "pong",
        b"{}",
        b'{"event":"unsubscribe","arg":{"channel":"trades","instId":"BTC-USDT"},"connId":"a"}',
        b'{"event":"channel-conn-count","channel":"orders","connCount":"2","connId":"a"}',
        b'{"event":"notice","code":"1","msg":"?"}',
        push("tickers", {"instId": "BTC-USDT", "last": "9999.99", "ts": "1597026383085"}),
        push("books5", {"asks": [["1", "1", "0", "1"]], "bids": [], "ts": "1786541241006", "seqId": 5}),
        push("bbo-tbt", {"asks": [["1", "1", "0", "1"]], "bids": [], "ts": "1786541241006"}, native="DOGE-USDT"),
        push("funding-rate", {**RATE, "instId": "DOGE-USDT-SWAP"}, native="DOGE-USDT-SWAP"),
        push("index-tickers", {"instId": "DOGE-USDT", "idxPx": "1", "ts": "1"}, native="DOGE-USDT"),
        push("index-tickers", {"instId": "CRV-USDT", "idxPx": "1", "ts": "1"}, native="CRV-USDT"),
        push("liquidation-orders", {**CLOSED, "instId": "DOGE-USDT-SWAP"}),
        push("liquidation-orders", {**CLOSED, "details": []}),
        push("trades", {**TRADE, "instId": "DOGE-USDT"}, native="DOGE-USDT"),
        push("books", UPDATE, native="DOGE-USDT", action="update"),
        push("trades"),
    ],
)
def test_silent(frame: bytes | str) -> None:
    """What we don't read, and instruments that nobody asked for, emit nothing."""
    assert list(OKX.parse(frame, RECEIVED)) == []


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"5",
        b"null",
        b"\xff",
        "\ud800",
        b"[" * 100_000,
        push("trades", {**TRADE, "px": 5}),
        push("trades", {**TRADE, "px": "-1"}),
        push("trades", {**TRADE, "sz": "1e5"}),
        push("trades", {**TRADE, "sz": "."}),
        push("trades", {**TRADE, "side": "?"}),
        push("trades", {**TRADE, "ts": "9" * 19}),
        push("trades", {**TRADE, "ts": "x"}),
        push("trades", {**TRADE, "tradeId": "-1"}),
        push("trades", {**TRADE, "tradeId": "3", "count": "5"}),
        push("trades", CANDLE),
        push("books", UPDATE),
        push("books", {**UPDATE, "asks": [["1", "1"]]}, action="update"),
        push("books", {**UPDATE, "asks": [["x", "1", "0", "0"]]}, action="update"),
        push("books", {**UPDATE, "asks": None}, action="update"),
        push("books", {name: UPDATE[name] for name in UPDATE if name != "prevSeqId"}, action="update"),
        push("books", {**UPDATE, "ts": ""}, action="update"),
        push("books", CANDLE, action="update"),
        push("candle1m", ["1", "2"]),
        push("candle1m", [*CANDLE[:4], "?", *CANDLE[5:]]),
        push("candle1m", TRADE),
    ],
)
def test_malformed(frame: bytes | str) -> None:
    """What the documentation does not allow is a MessageError, whatever it is."""
    with pytest.raises(MessageError):
        OKX.parse(frame, RECEIVED)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=3), children, max_size=3),
    max_leaves=8,
)


@st.composite
def mutated_frames(draw: st.DrawFn) -> bytes:
    channel, row = draw(st.sampled_from([("trades", TRADE), ("books", UPDATE), ("books", SNAPSHOT)]))
    changed = dict(row)
    for name in draw(st.lists(st.sampled_from(sorted(changed)), max_size=3)):
        changed[name] = draw(json_values)
    return push(channel, changed, action=draw(st.sampled_from(["snapshot", "update", ""])))


@given(st.binary() | st.text() | mutated_frames() | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_frame(frame: bytes | str) -> None:
    """Any frame gives events or a MessageError, and every number in an event is one."""
    try:
        events = OKX.parse(frame, RECEIVED)
    except MessageError:
        return
    for event in events:
        if isinstance(event, Trade):
            assert Decimal(event.price) >= 0
            assert Decimal(event.volume) >= 0
            assert event.timestamp_us < 2**63
        elif isinstance(event, BookDelta | BookSnapshot):
            assert all(Decimal(text) >= 0 for level in event.bids + event.asks for text in level)
    assert OKX.channel_of(frame) is None or isinstance(OKX.channel_of(frame), str)


class TestListing:
    def test_names(self) -> None:
        """Pairs, swaps and futures have distinct symbols, active where they are live."""
        rows = [
            {"instId": "BTC-USDT", "instType": "SPOT", "baseCcy": "BTC", "quoteCcy": "USDT", "state": "live"},
            {"instId": "BTC-USDT-SWAP", "instType": "SWAP", "baseCcy": "", "quoteCcy": "", "state": "suspend"},
            {"instId": "BTC-USD-260327", "instType": "FUTURES", "state": "live"},
            {"instId": "BTC-USD_UM_XPERP-310404", "instType": "FUTURES", "state": "live"},
            {"instId": "BTC-USD-241217-92000-C", "instType": "OPTION", "state": "live"},
        ]
        listings = OKX.parse_listing(json.dumps({"code": "0", "msg": "", "data": rows}).encode())
        assert {
            "BTC_USDT": Listing("BTC_USDT", "BTC-USDT", "BTC", "USDT", True),
            "BTC_USDT-SWAP": Listing("BTC_USDT-SWAP", "BTC-USDT-SWAP", "BTC", "USDT", False),
            "BTC_USD-260327": Listing("BTC_USD-260327", "BTC-USD-260327", "BTC", "USD", True),
            "BTC_USD-UM-XPERP-310404": Listing(
                "BTC_USD-UM-XPERP-310404", "BTC-USD_UM_XPERP-310404", "BTC", "USD", True
            ),
        } == {listing.symbol: listing for listing in listings}

    def test_pages(self) -> None:
        """Each type of instrument is a request of its own."""
        request = OKX.listing_request()
        types = []
        while request is not None:
            types.append(request.params["instType"])
            request = OKX.next_listing_request(request, b"")  # type: ignore[assignment]
        assert types == ["SPOT", "SWAP", "FUTURES"]

    def test_written(self) -> None:
        """What is written for a replay reads as the same symbols."""
        assert {listing.symbol for listing in OKX.parse_listing(OKX.write_listing(NAMES) or b"")} == set(NAMES)
        assert OKX.native_of["BTC_USD-UM-XPERP-310404"] == "BTC-USD_UM_XPERP-310404"

    @pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"code":"0","data":5}'])
    def test_not_a_listing(self, body: bytes) -> None:
        """Any other answer is refused."""
        with pytest.raises(MessageError):
            OKX.parse_listing(body)

    def test_refusal(self) -> None:
        """The exchange's own words are in the error."""
        with pytest.raises(MessageError, match=r"Too Many Requests.*50011"):
            OKX.parse_listing(b'{"code":"50011","msg":"Too Many Requests","data":[]}')

    def test_real_answers(self, recorded: Any) -> None:
        """The exchange's own answers of 2022 are read whole, each symbol distinct."""
        listings = [
            listing
            for kind in ("SPOT", "SWAP", "FUTURES")
            for listing in OKX.parse_listing(recorded.answer("okx-20220513.rec.gz", f"instType={kind}"))
        ]
        assert len(listings) == len({listing.symbol for listing in listings}) > 500
        assert Listing("UNI_USD-SWAP", "UNI-USD-SWAP", "UNI", "USD", True, "10", inverse=True) in listings


class TestPlan:
    def test_paths(self) -> None:
        """Trades and books are on the public path, candles on the business path."""
        asked = [Subscription(stream, "BTC_USDT-SWAP") for stream in ("prices", "orderbook", "klines")]
        public, business = OKX.plan(asked)
        assert (public.path, business.path) == ("/ws/v5/public", "/ws/v5/business")
        assert json.loads(public.frames[0]) == {
            "id": "1",
            "op": "subscribe",
            "args": [
                {"channel": "trades", "instId": "BTC-USDT-SWAP"},
                {"channel": "books", "instId": "BTC-USDT-SWAP"},
            ],
        }
        assert json.loads(business.frames[0])["args"] == [{"channel": "candle1m", "instId": "BTC-USDT-SWAP"}]
        assert (public.request_ids, business.request_ids) == (("1",), ("1",))

    def test_raw_trades(self) -> None:
        """Single trades are another channel on the business path."""
        [plan] = OKX.plan([Subscription("prices", "BTC_USDT")], raw_trades=True)
        assert plan.path == "/ws/v5/business"
        assert json.loads(plan.frames[0])["args"][0]["channel"] == "trades-all"

    def test_many(self) -> None:
        """Few books are on one connection, and a symbol's streams stay together."""
        listings = OKX.parse_listing(OKX.write_listing([f"A{n}_USDT" for n in range(100)]) or b"")
        asked = [Subscription(stream, listing.symbol) for stream in ("prices", "orderbook") for listing in listings]
        plans = Okx(listings).plan(asked)
        assert [len(plan.subscriptions) for plan in plans] == [60, 60, 60, 20]
        assert set(asked) == {subscription for plan in plans for subscription in plan.subscriptions}

    def test_unknown_names(self) -> None:
        """A wrong symbol or data type is named."""
        with pytest.raises(UnknownName, match="BTC_EUR"):
            OKX.plan([Subscription("prices", "BTC_EUR")])
        with pytest.raises(UnknownName, match="fundings"):
            OKX.plan([Subscription("fundings", "BTC_USDT")])

    def test_channels(self) -> None:
        """What is asked for is spelled as what comes, whatever the depth of the book."""
        [plan] = OKX.plan([Subscription("prices", "BTC_USDT"), Subscription("orderbook", "BTC_USDT")])
        asked = OKX.channels_asked(plan.path, plan.frames[0])
        assert list(asked) == ["trades:BTC-USDT", "books:BTC-USDT"]
        assert OKX.channel_of(push("trades", TRADE)) == asked[0]
        assert OKX.channel_of(push("books-l2-tbt", UPDATE)) == asked[1]
        assert OKX.channel_of(b'{"event":"subscribe","arg":{"channel":"trades","instId":"BTC-USDT"}}') is None
        assert OKX.channel_of(b"pong") is None
        assert list(OKX.channels_asked(plan.path, "ping")) == []
        assert list(OKX.channels_asked(plan.path, None)) == []

    def test_answers(self) -> None:
        """Pings and requests are answered as the exchange would."""
        assert OKX.acknowledgement(OKX.ping_frame() or "") == "pong"
        [plan] = OKX.plan([Subscription("prices", "BTC_USDT")])
        assert [Acknowledged("1")] == list(OKX.parse(OKX.acknowledgement(plan.frames[0]) or "", RECEIVED))
        assert OKX.acknowledgement("{}") is None


class TestRest:
    def test_trades(self) -> None:
        """Single trades are asked for by id without a key, and come in order."""
        request = Request(
            "/api/v5/market/history-trades",
            {"instId": "BTC-USDT", "type": "1", "after": "734864432", "limit": "100"},
        )
        assert request == OKX.trades_request("BTC_USDT", 734864332, 500)
        rows = [
            {"instId": "BTC-USDT", "side": "sell", "sz": "0.1", "px": "9.5", "tradeId": "6", "ts": "1747087163557"},
            {"instId": "BTC-USDT", "side": "buy", "sz": "0.2", "px": "9.4", "tradeId": "5", "ts": "1747087161666"},
        ]
        body = json.dumps({"code": "0", "msg": "", "data": rows}).encode()
        assert [
            Trade("BTC_USDT", 1747087161666000, "9.4", "0.2", "buy", 5, RECEIVED, "rest"),
            Trade("BTC_USDT", 1747087163557000, "9.5", "0.1", "sell", 6, RECEIVED, "rest"),
        ] == OKX.parse_trades("BTC_USDT", body, RECEIVED)

    def test_snapshot(self) -> None:
        """A book of REST is read, though the stream brings its own."""
        assert OKX.snapshot_request("BTC_USDT").params == {"instId": "BTC-USDT", "sz": "400"}
        body = json.dumps({"code": "0", "msg": "", "data": [SNAPSHOT]}).encode()
        assert OKX.parse_snapshot("BTC_USDT", body, RECEIVED) == SNAPSHOT_EVENT
        for wrong in (b"", b'{"code":"0","data":[]}', b'{"code":"51001","msg":"?","data":[]}'):
            with pytest.raises(MessageError):
                OKX.parse_snapshot("BTC_USDT", wrong, RECEIVED)


def delta(previous: int | None, last: int) -> BookDelta:
    return BookDelta("BTC_USDT", 0, last, last, previous, [], [], 0)


class TestRule:
    def test_chain(self) -> None:
        """The documentation's example: an update, no update, a reset after maintenance, an update."""
        rule = OkxBookRule()
        assert rule.judge(delta(5, 10)) == "gap"
        rule.apply_snapshot(BookSnapshot("BTC_USDT", 0, 10, [], [], 0))
        ids = [(10, 15), (15, 15), (15, 3), (3, 5)]
        assert [rule.judge(delta(*pair)) for pair in ids] == ["apply"] * 4
        assert [rule.judge(delta(*pair)) for pair in [(6, 7), (3, 5), (3, 9)]] == ["gap", "stale", "gap"]
        assert rule.last_id == 5

    def test_unnumbered(self) -> None:
        """Messages without ids follow each other as they come."""
        rule = OkxBookRule()
        rule.apply_snapshot(BookSnapshot("BTC_USDT", 0, 10, [], [], 0))
        assert [rule.judge(delta(None, last)) for last in (11, 11, 12)] == ["apply"] * 3


def test_checksum() -> None:
    """The checksum is of bids and asks in turn, the longer side alone at the end, and signed."""
    text = b"3366.1:7:3366.8:9:3366:6"
    assert checksum([("3366.1", "7"), ("3366", "6")], [("3366.8", "9")]) == zlib.crc32(text) - (
        2**32 if zlib.crc32(text) >= 2**31 else 0
    )
    assert checksum([], []) == 0


class TestFeed:
    def test_real_recording(self, recorded: Any, recordings: Path, play: Any) -> None:
        """Every trade and the last book of the recording of 2022 come out, and all 290 checksums agree."""
        truth = json.loads((recordings / "expected.json").read_text())["okx-20220513.rec.gz"]["symbols"]
        symbols = {native: native.replace("-", "_", 1) for native in truth}
        asked = [Subscription(stream, symbol) for symbol in symbols.values() for stream in ("prices", "orderbook")]
        frames = [frame for _, frame in recorded.frames("okx-20220513.rec.gz") if b'"event"' not in frame]
        exchange = Okx(OKX.parse_listing(OKX.write_listing(list(symbols.values())) or b""))
        collected = play(exchange, asked, frames)
        assert collected.gaps == []
        for native, symbol in symbols.items():
            trades = [trade for trade in collected.trades if trade.symbol == symbol]
            expected = truth[native]["trades"]
            assert len(trades) == expected["count"]
            assert (trades[0].trade_id, trades[-1].trade_id) == (int(expected["first_id"]), int(expected["last_id"]))
            assert sum(Decimal(trade.volume) for trade in trades) == Decimal(expected["sum_qty"])
            assert sum(trade.side == "buy" for trade in trades) == expected["taker_buy"]
            last = [row for row in collected.books if row.symbol == symbol][-1]
            book = truth[native]["book"]
            assert [list(level) for level in last.bids] == book["bids_top"][:3]
            assert [list(level) for level in last.asks] == book["asks_top"][:3]

    def test_wrong_checksum(self, recorded: Any, play: Any) -> None:
        """A change that is lost shows in the next checksum: the book is asked for again, and the hole is a gap."""
        books = [
            frame for _, frame in recorded.frames("okx-20220513.rec.gz") if b'"books","instId":"BTC-USDT"},"a' in frame
        ]
        book = Book()
        for frame in books[:10]:
            [event] = OKX.parse(frame, 0)
            book.load(event) if isinstance(event, BookSnapshot) else book.apply(event)  # type: ignore[arg-type]
        [last] = json.loads(books[9])["data"]
        bids, asks = ([[*level, "0", "1"] for level in side] for side in book.top(400))
        whole = {"bids": bids, "asks": asks, "ts": last["ts"], "checksum": last["checksum"]}
        later = push("books", whole, action="snapshot")
        script = [*books[:4], *books[5:8], "asked again", later, *books[10:]]
        exchange = Okx(OKX.parse_listing(OKX.write_listing(["BTC_USDT"]) or b""))
        collected = play(exchange, [Subscription("orderbook", "BTC_USDT")], script)
        assert [gap.cause for gap in collected.gaps] == ["checksum"]
        assert [json.loads(frame)["op"] for frame in collected.asked] == ["subscribe", "unsubscribe", "subscribe"]

    def test_broken_chain(self, play: Any) -> None:
        """A broken chain is a gap with its ids; only that book is asked for again."""
        script = [
            push("books", SNAPSHOT, action="snapshot"),
            push("books", UPDATE, action="update"),
            push("books", {**UPDATE, "prevSeqId": 123460, "seqId": 123461, "ts": "1597026383285"}, action="update"),
            "asked again",
            push("books", {**SNAPSHOT, "seqId": 123470, "ts": "1597026384085"}, action="snapshot"),
            push("books", {**UPDATE, "prevSeqId": 123470, "seqId": 123472, "ts": "1597026384185"}, action="update"),
        ]
        collected = play(OKX, [Subscription("orderbook", "BTC_USDT")], script)
        [gap] = collected.gaps
        assert (gap.cause, gap.from_id, gap.to_id) == ("sequence", 123458, 123469)
        assert [row.update_id for row in collected.books] == [123457, 123470, 123472]

    def test_aggregated_ids(self, play: Any) -> None:
        """An aggregated trade covers the ids that it stands for: only what none covers is missing."""
        rows = [("10", "1"), ("13", "3"), ("14", "1"), ("17", "2")]
        script = [push("trades", {**TRADE, "tradeId": last, "count": count}) for last, count in rows]
        collected = play(OKX, [Subscription("prices", "BTC_USDT")], script)
        assert [trade.trade_id for trade in collected.trades] == [10, 13, 14, 17]
        assert [(gap.from_id, gap.to_id) for gap in collected.gaps] == [(15, 15)]

    def test_candles(self, play: Any) -> None:
        """Candles come on their own connection."""
        collected = play(OKX, [Subscription("klines", "BTC_USDT")], [push("candle1m", CANDLE)])
        assert [kline.close for kline in collected.klines] == ["8548.26"]


def test_frames_with_expected(recordings: Path) -> None:
    """Frames of today's API mean what another library reads in them: side, price, size and time."""
    compared = 0
    for line in (recordings / "frames-with-expected.jsonl").read_text().splitlines():
        row = json.loads(line)
        argument = row["message"].get("arg") if isinstance(row["message"], dict) else None
        if (
            not row["exchange"].startswith("okex")
            or not argument
            or argument["channel"] not in ("trades", "trades-all")
        ):
            continue
        exchange = Okx([Listing("A_B", argument["instId"], "A", "B")])
        for trade, truth in zip(exchange.parse(json.dumps(row["message"]), 0), row["expected"], strict=True):
            assert isinstance(trade, Trade)
            assert (float(trade.price), float(trade.volume), trade.side) == (
                truth["price"],
                truth["amount"],
                truth["side"],
            )
            assert str(trade.trade_id) == truth["id"]
            compared += 1
    assert compared >= 2


def test_frames_of_2026(recordings: Path) -> None:
    """Frames recorded in 2026 are read; what is no trade and no deep book emits nothing."""
    trades = []
    for line in (recordings / "frames-2026.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["exchange"] == "OKX" and row["dir"] == "recv":
            trades += [event for event in OKX.parse(json.dumps(row["frame"]), 0) if isinstance(event, Trade)]
    assert [(trade.trade_id, trade.first_raw_id) for trade in trades] == [
        (1040968613, 1040968612),
        (1040968614, 1040968614),
    ]


def test_single_frames(recordings: Path) -> None:
    """Examples of the documentation are read."""
    folder = recordings / "single-frames" / "okx"
    exchange = Okx(OKX.parse_listing((folder / "http_get_instruments_spot.json").read_bytes()))
    [trade] = exchange.parse((folder / "ws_trades.json").read_bytes(), 0)
    assert isinstance(trade, Trade)
    assert (trade.side, trade.price, trade.volume, trade.timestamp_us) == (
        "buy", "42219.9", "0.12060306", 1630048897897000,
    )  # fmt: skip
    [snapshot] = OKX.parse((folder / "ws_books_snapshot.json").read_bytes(), 0)
    [update] = OKX.parse((folder / "ws_books_update.json").read_bytes(), 0)
    assert isinstance(snapshot, BookSnapshot)
    assert isinstance(update, BookDelta)
    assert update.previous_id == snapshot.last_id
    assert [trade.trade_id for trade in OKX.parse_trades("X_Y", (folder / "http_get_trades.json").read_bytes(), 0)] == [
        734864332,
        734864333,
    ]


def test_volumes() -> None:
    """Each type of instrument is asked for; contracts' volumes are in base currency, and are valued by their price."""
    request = OKX.volumes_request()
    types = []
    while request is not None:
        types.append(request.params["instType"])
        request = OKX.next_volumes_request(request, b"")
    assert types == ["SPOT", "SWAP", "FUTURES"]
    rows = [
        {"instType": "SPOT", "instId": "BTC-USDT", "last": "9999.99", "volCcy24h": "5000", "vol24h": "0.5"},
        {"instType": "SWAP", "instId": "BTC-USDT-SWAP", "last": "10.5", "volCcy24h": "2", "vol24h": "200"},
    ]
    body = json.dumps({"code": "0", "msg": "", "data": rows}).encode()
    assert OKX.parse_volumes(body) == {"BTC-USDT": Decimal(5000), "BTC-USDT-SWAP": Decimal(21)}
    with pytest.raises(MessageError, match="50011"):
        OKX.parse_volumes(b'{"code":"50011","msg":"Too Many Requests","data":[]}')


SWAP = "BTC-USDT-SWAP"


def read(frame: bytes) -> list[object]:
    return list(OKX.parse(frame, RECEIVED))


@pytest.mark.parametrize(
    ("frame", "event"),
    [
        (
            push("funding-rate", RATE, native=SWAP),
            Funding(
                "BTC_USDT-SWAP", 1785870855692000, "-0.0004270396398519", 1785888000000000, None, None, RECEIVED
            ),
        ),
        (
            push("mark-price", {"instId": SWAP, "markPx": "2.1729", "ts": "1640131259180"}, native=SWAP),
            Funding("BTC_USDT-SWAP", 1640131259180000, None, None, "2.1729", None, RECEIVED),
        ),
        (
            push("open-interest", {"instId": SWAP, "oi": "36", "oiUsd": "9", "ts": "1640183217591"}, native=SWAP),
            OpenInterest("BTC_USDT-SWAP", 1640183217591000, "36", None, RECEIVED),
        ),
        (
            push("open-interest", {"instId": "UNI-USD-SWAP", "oi": "36", "oiUsd": "360", "ts": "1640183217591"}),
            OpenInterest("UNI_USD-SWAP", 1640183217591000, "36", "360", RECEIVED),
        ),
        (
            push("bbo-tbt", {"asks": [["38632.4", "727", "0", "22"]], "bids": [["38632.3", "990", "0", "22"]],
                 "ts": "1651761120004", "seqId": 7}, native=SWAP),
            Ticker("BTC_USDT-SWAP", 1651761120004000, "38632.3", "990", "38632.4", "727", 7, RECEIVED),
        ),
        (
            push("bbo-tbt", {"asks": [["1", "1", "0", "1"]], "bids": [], "ts": "1786541241006"}),
            Ticker("BTC_USDT", 1786541241006000, None, None, "1", "1", None, RECEIVED),
        ),
        (
            push("liquidation-orders", CLOSED),
            Liquidation("BTC_USDT-SWAP", 1680173247614000, "0.55205", "39", "buy", RECEIVED),
        ),
    ],
)  # fmt: skip
def test_market(frame: bytes, event: object) -> None:
    """What is not said in a message is None."""
    assert read(frame) == [event]


def test_an_index_is_of_every_contract_of_its_pair() -> None:
    """Its id is that of the pair, which a listing of contracts alone does not hold."""
    exchange = Okx([listing for symbol, listing in OKX.listing_of.items() if "-" in symbol])
    frame = push("index-tickers", {"instId": "BTC-USD", "idxPx": "64280", "ts": "1785870855692"}, native="BTC-USD")
    events = list(exchange.parse(frame, RECEIVED))
    assert {(e.symbol, e.index_price) for e in events if isinstance(e, Funding)} == {
        ("BTC_USD-UM-XPERP-310404", "64280"),
        ("BTC_USD-220527", "64280"),
    }


@pytest.mark.parametrize(
    "frame",
    [
        push("funding-rate", {**RATE, "fundingRate": "x"}, native=SWAP),
        push("funding-rate", {"ts": 5, "checksum": "?"}, native=SWAP),
        push("mark-price", {"instId": SWAP, "ts": "1"}, native=SWAP),
        push("open-interest", {"instId": SWAP, "oi": "-1", "ts": "1"}, native=SWAP),
        push("index-tickers", {"instId": "BTC-USDT", "idxPx": "", "ts": "1"}),
        push("liquidation-orders", {**CLOSED, "details": [{**CLOSED["details"][0], "side": "?"}]}),  # type: ignore[dict-item]
        push("bbo-tbt", {"asks": [["x", "1", "0", "1"]], "bids": [], "ts": "1"}),
        push("bbo-tbt", {"asks": [], "ts": "1"}),
    ],
)
def test_a_broken_market_is_an_error(frame: bytes) -> None:
    """A value that would break a row never becomes one."""
    with pytest.raises(MessageError):
        read(frame)


def test_markets_are_asked_for_by_what_they_share() -> None:
    """Forced orders come for all contracts of a type, an index for all of a pair: each is asked for once."""
    symbols = ("BTC_USDT-SWAP", "BTC_USD-UM-XPERP-310404")
    wanted = [
        Subscription(stream, symbol) for stream in ("funding", "liquidations") for symbol in (*symbols, symbols[0])
    ]
    (plan,) = OKX.plan([*wanted, Subscription("liquidations", "UNI_USD-SWAP")])
    arguments = [argument for frame in plan.frames for argument in json.loads(frame)["args"]]
    assert plan.path == "/ws/v5/public"
    assert [argument for argument in arguments if argument["channel"] == "liquidation-orders"] == [
        {"channel": "liquidation-orders", "instType": "SWAP"},
        {"channel": "liquidation-orders", "instType": "FUTURES"},
    ]
    assert {argument["instId"] for argument in arguments if argument["channel"] == "index-tickers"} == {
        "BTC-USDT", "BTC-USD"
    }  # fmt: skip
    frame = json.dumps({"arg": {"channel": "liquidation-orders", "instType": "SWAP"}, "data": [CLOSED]})
    assert OKX.channel_of(frame) == "liquidation-orders:SWAP"
    assert "liquidation-orders:SWAP" in OKX.channels_asked(plan.path, plan.frames[0])


def test_what_a_market_has_depends_on_its_kind() -> None:
    """Spot has neither funding nor open interest, a dated contract no funding; one without an end has all."""
    offers = {symbol: OKX.offers(listing) for symbol, listing in OKX.listing_of.items()}
    assert offers["BTC_USDT"] == ("prices", "orderbook", "klines", "tickers")
    assert "funding" not in offers["BTC_USD-220527"]
    assert "liquidations" in offers["BTC_USD-220527"]
    assert offers["BTC_USDT-SWAP"] == offers["BTC_USD-UM-XPERP-310404"] == OKX.streams


def test_markets_with_expected(recordings: Path) -> None:
    """Another library reads the same from the same frames."""
    compared = 0
    for line in (recordings / "frames-with-expected.jsonl").read_text().splitlines():
        record = json.loads(line)
        message = record["message"]
        channel = message.get("arg", {}).get("channel", "") if isinstance(message, dict) else ""
        if (
            channel not in ("funding-rate", "mark-price", "bbo-tbt", "liquidation-orders")
            or "spread" in record["exchange"]
        ):
            continue
        native = message["data"][0].get("instId") or message["arg"].get("instId", "")
        if native.count("-") > 3 or native.endswith(("-C", "-P")):
            continue  # an option
        exchange = Okx([Listing("A_B", native, "A", "B")])
        (event,) = exchange.parse(json.dumps(message), RECEIVED)
        (expected,) = record["expected"]
        if isinstance(event, Liquidation):
            assert (float(event.price), float(event.volume), event.side) == (
                expected["price"], expected["amount"], expected["side"]
            )  # fmt: skip
        elif isinstance(event, Ticker):
            assert (float(event.bid or "x"), float(event.ask or "x")) == (expected["bidPrice"], expected["askPrice"])
            assert (float(event.bid_qty or "x"), float(event.ask_qty or "x")) == (
                expected["bidAmount"], expected["askAmount"]
            )  # fmt: skip
        else:
            assert isinstance(event, Funding)
            if event.funding_rate is not None:
                assert float(event.funding_rate) == expected["fundingRate"]
            if event.mark_price is not None:
                assert float(event.mark_price) == expected["markPrice"]
        compared += 1
    assert compared >= 6
