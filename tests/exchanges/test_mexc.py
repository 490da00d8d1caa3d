"""MEXC: golden frames in protobuf, what emits nothing, what is refused."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import MessageError, UnknownName
from collector.events import Acknowledged, BookDelta, BookSnapshot, Kline, Rejected, Ticker, Trade
from collector.exchanges.base import Listing, Request, Subscription
from collector.exchanges.mexc import Mexc

RECEIVED = 1_736_409_765_100_000
SENT_MS = 1_736_409_765_052
MEXC = Mexc([Listing("BTC_USDT", "BTCUSDT", "BTC", "USDT"), Listing("ETH_USDT", "ETHUSDT", "ETH", "USDT")])

DEALS = "spot@public.aggre.deals.v3.api.pb@100ms@BTCUSDT"
DEPTH = "spot@public.aggre.depth.v3.api.pb@100ms@BTCUSDT"
KLINE = "spot@public.kline.v3.api.pb@BTCUSDT@Min1"

REFUSAL = "Not Subscribed successfully! [spot@public.aggre.deals.v3.api.pb@100ms@FOO]. Reason: Blocked!"


def varint(value: int) -> bytes:
    written = bytearray()
    while value > 127:
        written.append(value & 127 | 128)
        value >>= 7
    return bytes([*written, value])


BEST = "spot@public.aggre.bookTicker.v3.api.pb@100ms@BTCUSDT"


def fields(*pairs: tuple[int, int | str | bytes]) -> bytes:
    """Write a message."""
    parts = []
    for place, value in pairs:
        if isinstance(value, int):
            parts.append(varint(place << 3) + varint(value))
        else:
            data = value.encode() if isinstance(value, str) else value
            parts.append(varint(place << 3 | 2) + varint(len(data)) + data)
    return b"".join(parts)


def wrap(channel: str, place: int, body: bytes, native: str = "BTCUSDT") -> bytes:
    return fields((1, channel), (3, native), (4, "2fb942154ef44a4a"), (6, SENT_MS), (place, body))


def deal(
    name: str = "731579883561406466X0_731579883561406467X0",
    *,
    price: str = "93220.00",
    size: str = "0.04438243",
    kind: int = 2,
    time: int = 1736409765051,
) -> bytes:
    written: list[tuple[int, int | str | bytes]] = [(1, price), (2, size), (3, kind), (4, time)]
    return fields(*written, *([(5, name)] if name else []))


def deals(*rows: bytes, native: str = "BTCUSDT") -> bytes:
    body = fields(*((1, row) for row in rows), (2, "spot@public.aggre.deals.v3.api.pb@100ms"))
    return wrap(DEALS, 314, body, native)


def level(price: str, size: str) -> bytes:
    return fields((1, price), (2, size))


def depth(*pairs: tuple[int, int | str | bytes], first: str = "10589632359", last: str = "10589632360") -> bytes:
    event = (3, "spot@public.aggre.depth.v3.api.pb@100ms")
    return wrap(DEPTH, 313, fields(*pairs, event, (4, first), (5, last)))


def candle(interval: str = "Min1", start: int = 1736410500, opened: str = "92925") -> bytes:
    body = fields(
        (1, interval), (2, start), (3, opened), (4, "93158.47"), (5, "93158.48"), (6, "92800"),
        (7, "36.83803224"), (8, "3424811.05"), (9, start + 60),
    )  # fmt: skip
    return wrap(KLINE, 308, body)


TRADE_EVENT = Trade(
    "BTC_USDT",
    1736409765051000,
    "93220.00",
    "0.04438243",
    "sell",
    "731579883561406466X0_731579883561406467X0",
    RECEIVED,
)
ASK, BID, GONE = (1, level("92880.12", "456.78")), (2, level("92877.58", "123")), (2, level("92877.5", "0.00000000"))
ASKS, BIDS = [("92880.12", "456.78")], [("92877.58", "123"), ("92877.5", "0.00000000")]
DELTA_EVENT = BookDelta("BTC_USDT", SENT_MS * 1000, 10589632359, 10589632360, None, BIDS, ASKS, RECEIVED)


@pytest.mark.parametrize(
    ("payload", "events"),
    [
        (deals(deal()), [TRADE_EVENT]),
        (
            deals(deal(kind=1), deal("5", price="93221")),
            [
                Trade("BTC_USDT", 1736409765051000, "93220.00", "0.04438243", "buy", TRADE_EVENT.trade_id, RECEIVED),
                Trade("BTC_USDT", 1736409765051000, "93221", "0.04438243", "sell", 5, RECEIVED),
            ],
        ),
        (
            deals(deal(""), deal("")),
            [
                Trade("BTC_USDT", 1736409765051000, "93220.00", "0.04438243", "sell", f"1736409765051-{n}", RECEIVED)
                for n in (0, 1)
            ],
        ),
        (depth(ASK, BID, GONE), [DELTA_EVENT]),
        (depth(), [BookDelta("BTC_USDT", SENT_MS * 1000, 10589632359, 10589632360, None, [], [], RECEIVED)]),
        (
            candle(),
            [
                Kline(
                    "BTC_USDT", "1m", 1736410500000000, "92925", "93158.48", "92800", "93158.47", "36.83803224",
                    "3424811.05", None, None, False, SENT_MS * 1000, RECEIVED,
                )
            ],
        ),
        (b'{"id":0,"code":0,"msg":"spot@public.aggre.deals.v3.api.pb@100ms@BTCUSDT"}', [Acknowledged(None)]),
        (
            json.dumps({"id": 0, "code": 0, "msg": REFUSAL}).encode(),
            [Rejected(None, "0", REFUSAL, "spot@public.aggre.deals.v3.api.pb@FOO")],
        ),
        (b'{"id":0,"code":1,"msg":"error"}', [Rejected(None, "1", "error")]),
        (
            wrap(BEST, 315, fields((1, "93387.28"), (2, "3.73485"), (3, "93387.29"), (4, "7.669875"), (5, "36913293"))),
            [Ticker("BTC_USDT", SENT_MS * 1000, "93387.28", "3.73485", "93387.29", "7.669875", 36913293, RECEIVED)],
        ),
        (
            wrap(BEST, 315, fields((1, "93387.28"), (2, "3.73485"))),
            [Ticker("BTC_USDT", SENT_MS * 1000, "93387.28", "3.73485", None, None, None, RECEIVED)],
        ),
    ],
)  # fmt: skip
def test_frame(payload: bytes, events: list[object]) -> None:
    """A frame is its events."""
    assert events == list(MEXC.parse(payload, RECEIVED))


@pytest.mark.parametrize(
    "written",
    [
        [(3, "spot@public.aggre.depth.v3.api.pb@100ms"), ASK, BID, GONE, (4, "10589632359"), (5, "10589632360")],
        [BID, GONE, ASK, (5, "10589632360"), (4, "10589632359")],
        [BID, (9, 5), GONE, (9, b"\x12\x011"), ASK, (4, "10589632359"), (5, "10589632360")],
        [(1, fields((2, "456.78"), (1, "92880.12"))), BID, GONE, (4, "10589632359"), (5, "10589632360")],
        [(1, fields((1, "92880.12"), (2, "456.78"), (7, "later"))), BID, GONE, (4, "10589632359"), (5, "10589632360")],
    ],
)
def test_written_in_another_way(written: list[tuple[int, int | str | bytes]]) -> None:
    """Fields may be in any order and new ones among them: the quick reading leaves such a message to the whole one."""
    assert list(MEXC.parse(wrap(DEPTH, 313, fields(*written)), RECEIVED)) == [DELTA_EVENT]


def test_deal_written_in_another_way() -> None:
    """So may the fields of a deal."""
    row = fields((5, str(TRADE_EVENT.trade_id)), (4, 1736409765051), (3, 2), (2, "0.04438243"), (1, "93220.00"), (9, 1))
    assert list(MEXC.parse(deals(row), RECEIVED)) == [TRADE_EVENT]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([1, 2]),
            st.from_regex(r"[0-9]{1,60}(\.[0-9]{1,60})?", fullmatch=True),
            st.from_regex(r"[0-9]{1,20}(\.[0-9]{1,20})?", fullmatch=True),
        ),
        max_size=6,
    )
)
def test_levels(levels: list[tuple[int, str, str]]) -> None:
    """Levels of any length come back as they were written, quickly read or not."""
    [delta] = MEXC.parse(depth(*((side, level(price, size)) for side, price, size in levels)), RECEIVED)
    assert isinstance(delta, BookDelta)
    assert delta.asks == [(price, size) for side, price, size in levels if side == 1]
    assert delta.bids == [(price, size) for side, price, size in levels if side == 2]


@pytest.mark.parametrize(
    "payload",
    [
        b'{"id":0,"code":0,"msg":"PONG"}',
        deals(deal(), native="FOOUSDT"),
        deals(),
        wrap("spot@public.aggre.bookTicker.v3.api.pb@100ms@FOOUSDT", 315, fields((1, "1")), "FOOUSDT"),
        candle("Week1"),
        fields((1, DEALS)),
    ],
)
def test_silent(payload: bytes) -> None:
    """What we don't read, and symbols that nobody asked for, emit nothing."""
    assert list(MEXC.parse(payload, RECEIVED)) == []


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"not protobuf",
        "text",
        "{}x",
        b'{"id":[]}',
        fields((3, "BTCUSDT")),
        fields((1, 5)),
        deals(deal())[:-1],
        wrap(DEALS, 314, b"\x0a\x05ab"),
        fields((1, DEALS), (3, "BTCUSDT"), (314, 5)),
        deals(deal(kind=3)),
        deals(deal(price="1e5")),
        deals(deal(size="")),
        deals(deal(time=0)),
        deals(deal("a,b")),
        depth((1, level("x", "1"))),
        depth((2, level("1", ""))),
        depth((2, 5)),
        depth(first="2", last="1"),
        depth(first=""),
        candle(opened="?"),
    ],
)
def test_malformed(payload: bytes | str) -> None:
    """What the documentation does not allow is a MessageError, whatever it is."""
    with pytest.raises(MessageError):
        MEXC.parse(payload, RECEIVED)


@st.composite
def mutated_frames(draw: st.DrawFn) -> bytes:
    payload = bytearray(draw(st.sampled_from([deals(deal(), deal("5")), depth(ASK, BID, GONE), candle()])))
    for _ in range(draw(st.integers(1, 4))):
        payload[draw(st.integers(0, len(payload) - 1))] = draw(st.integers(0, 255))
    return bytes(payload[: draw(st.integers(0, len(payload)))]) if draw(st.booleans()) else bytes(payload)


@given(st.binary() | st.text() | mutated_frames())
def test_any_frame(payload: bytes | str) -> None:
    """Any frame gives events or a MessageError."""
    try:
        events = MEXC.parse(payload, RECEIVED)
    except MessageError:
        return
    for event in events:
        if isinstance(event, Trade):
            assert Decimal(event.price) >= 0
            assert Decimal(event.volume) >= 0
        elif isinstance(event, BookDelta):
            assert all(Decimal(text) >= 0 for level in event.bids + event.asks for text in level)
    assert MEXC.channel_of(payload) is None or isinstance(MEXC.channel_of(payload), str)


class TestListing:
    def test_names(self) -> None:
        """Symbols are BASE_QUOTE, active where they trade spot."""
        rows = [
            {"symbol": "OLDUSDT", "status": "2", "baseAsset": "OLD", "quoteAsset": "USDT"},
            {"symbol": "BTCUSDT", "status": "1", "baseAsset": "BTC", "quoteAsset": "USDT"},
            {"symbol": "A", "status": "1", "baseAsset": "A", "quoteAsset": "B", "isSpotTradingAllowed": False},
        ]
        listings = MEXC.parse_listing(json.dumps({"timezone": "CST", "symbols": rows}).encode())
        assert [(listing.symbol, listing.active) for listing in listings] == [
            ("BTC_USDT", True),
            ("OLD_USDT", False),
            ("A_B", False),
        ]
        assert MEXC.parse_listing(MEXC.write_listing(["BTC_USDT"]) or b"") == [
            Listing("BTC_USDT", "BTCUSDT", "BTC", "USDT")
        ]

    def test_refusal(self) -> None:
        """The exchange's own words are in the error."""
        with pytest.raises(MessageError, match=r"too many.*429"):
            MEXC.parse_listing(b'{"code":429,"msg":"too many"}')


class TestPlan:
    def test_frames(self) -> None:
        """A connection carries thirty subscriptions, asked for in one frame."""
        asked = [Subscription(stream, "BTC_USDT") for stream in ("prices", "orderbook", "klines")]
        [plan] = MEXC.plan(asked)
        assert plan.path == "/ws"
        assert [json.loads(frame) for frame in plan.frames] == [
            {"method": "SUBSCRIPTION", "params": [DEALS, DEPTH, KLINE]}
        ]
        exchange = Mexc(MEXC.parse_listing(MEXC.write_listing([f"A{number}_USDT" for number in range(40)]) or b""))
        plans = exchange.plan([Subscription("prices", f"A{number}_USDT") for number in range(40)])
        assert [len(one.subscriptions) for one in plans] == [30, 10]

    def test_unknown_names(self) -> None:
        """A wrong symbol or data type is named, with the nearest one."""
        with pytest.raises(UnknownName, match="BTC_USDT"):
            MEXC.plan([Subscription("prices", "BTC_USD")])
        with pytest.raises(UnknownName, match="prices"):
            MEXC.plan([Subscription("price", "BTC_USDT")])


class TestRest:
    def test_snapshot(self) -> None:
        """The book is asked for at its full depth."""
        assert MEXC.snapshot_request("BTC_USDT") == Request("/api/v3/depth", {"symbol": "BTCUSDT", "limit": "5000"})
        body = b'{"lastUpdateId":5,"bids":[["1.1","1"]],"asks":[["1.2","3"]],"timestamp":1736409765052}'
        assert MEXC.parse_snapshot("BTC_USDT", body, RECEIVED) == BookSnapshot(
            "BTC_USDT", 1736409765052000, 5, [("1.1", "1")], [("1.2", "3")], RECEIVED
        )
        with pytest.raises(MessageError, match="Invalid symbol"):
            MEXC.parse_snapshot("BTC_USDT", b'{"code":-1121,"msg":"Invalid symbol."}', RECEIVED)

    def test_no_trades(self) -> None:
        """Trades of REST have no ids."""
        assert MEXC.trades_request("BTC_USDT", 5, 10) is None
        with pytest.raises(MessageError):
            MEXC.parse_trades("BTC_USDT", b"[]", RECEIVED)


class TestChannels:
    def test_channels(self) -> None:
        """A recorded frame and a client's frame name a channel alike, whatever its speed."""
        [plan] = MEXC.plan([Subscription(stream, "BTC_USDT") for stream in ("prices", "orderbook", "klines")])
        asked = list(MEXC.channels_asked("/ws", plan.frames[0]))
        assert asked == [MEXC.channel_of(payload) for payload in (deals(deal()), depth(ASK), candle())]
        quick = wrap(DEALS.replace("100ms", "10ms"), 314, fields((1, deal())))
        assert MEXC.channel_of(quick) == asked[0] == "spot@public.aggre.deals.v3.api.pb@BTCUSDT"
        assert MEXC.channel_of(b'{"id":0,"code":0,"msg":"PONG"}') is None
        assert MEXC.channel_of(b"broken") is None

    def test_acknowledgement(self) -> None:
        """A client's frame is accepted, and its ping answered, in the exchange's words."""
        [plan] = MEXC.plan([Subscription("prices", "BTC_USDT")])
        answer = MEXC.acknowledgement(plan.frames[0])
        assert answer is not None
        assert list(MEXC.parse(answer, RECEIVED)) == [Acknowledged(None)]
        pong = MEXC.acknowledgement(MEXC.ping_frame() or "")
        assert pong is not None
        assert list(MEXC.parse(pong, RECEIVED)) == []

    @pytest.mark.parametrize("text", ["", "ping", "[]", '{"method":5}', '{"method":"OTHER"}'])
    def test_not_asked(self, text: str) -> None:
        """Any other frame asks for nothing and is not acknowledged."""
        assert list(MEXC.channels_asked("/ws", text)) == []
        assert MEXC.acknowledgement(text) is None


class TestFeed:
    def test_all(self, play: Any) -> None:
        """Trades, the book from its snapshot and finished candles come through binary frames; nothing is a gap."""
        asked = [Subscription(stream, "BTC_USDT") for stream in ("prices", "orderbook", "klines")]
        book = b'{"lastUpdateId":100,"bids":[["1.1","1"]],"asks":[["1.2","3"]],"timestamp":1}'
        script = [
            deals(deal("1"), deal("2")),
            depth((1, level("1.2", "9")), first="99", last="100"),
            depth((1, level("1.2", "4")), first="100", last="101"),
            deals(deal("2"), deal("7")),
            depth((2, level("1.15", "5")), first="102", last="102"),
            candle(),
            candle(start=1736410560),
        ]
        collected = play(MEXC, asked, script, binary=True, answer=lambda _: book)
        assert [trade.trade_id for trade in collected.trades] == [1, 2, 7]
        assert collected.books[-1].bids == [("1.15", "5"), ("1.1", "1")]
        assert collected.books[-1].asks == [("1.2", "4")]
        assert [candle.start_us for candle in collected.klines if candle.closed] == [1736410500000000]
        assert collected.gaps == []

    def test_lost_change(self, play: Any) -> None:
        """A jump of the versions is a gap of the book, which is asked for again."""
        answers = iter(
            f'{{"lastUpdateId":{number},"bids":[["1.1","1"]],"asks":[["1.2","3"]],"timestamp":1}}'.encode()
            for number in (100, 105)
        )
        script = [
            depth((1, level("1.2", "4")), first="101", last="101"),
            depth((1, level("1.2", "5")), first="105", last="105"),
            depth((1, level("1.2", "6")), first="106", last="106"),
        ]
        collected = play(
            MEXC, [Subscription("orderbook", "BTC_USDT")], script, binary=True, answer=lambda _: next(answers, None)
        )
        assert [(gap.cause, gap.from_id, gap.to_id) for gap in collected.gaps] == [("sequence", 102, 105)]
        assert collected.books[-1].asks == [("1.2", "6")]


def test_volumes() -> None:
    """What was traded in 24 hours is read in quote currency, by native spelling; a refusal is said in its words."""
    assert MEXC.volumes_request() == Request("/api/v3/ticker/24hr", weight=40)
    body = json.dumps([{"symbol": "BTCUSDT", "quoteVolume": "7.5"}, {"symbol": "AB", "quoteVolume": None}]).encode()
    assert MEXC.parse_volumes(body) == {"BTCUSDT": Decimal("7.5"), "AB": 0}
    with pytest.raises(MessageError, match="429"):
        MEXC.parse_volumes(b'{"code":429,"msg":"too many"}')
