"""Binance spot: golden frames, what emits nothing, what is refused, and what is asked for."""

from __future__ import annotations

import gzip
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
    Kline,
    OffBookPrint,
    Rejected,
    ServerNotice,
    Ticker,
    Trade,
)
from collector.exchanges.base import Listing, Request, Subscription
from collector.exchanges.binance import Binance, SpotBookRule, microseconds

RECEIVED = 1_723_161_254_340_863
SPOT = Binance([Listing("ETH_USDT", "ETHUSDT", "ETH", "USDT"), Listing("BTC_USDT", "BTCUSDT", "BTC", "USDT")])

TRADE = {
    "e": "trade",
    "E": 1723161255612,
    "s": "ETHUSDT",
    "t": 1520538925,
    "p": "2683.80000000",
    "q": "0.00200000",
    "T": 1723161255611,
    "m": True,
    "M": True,
}
AGG_TRADE = {
    "e": "aggTrade",
    "E": 1723161255612,
    "s": "ETHUSDT",
    "a": 5933014,
    "p": "2683.80000000",
    "q": "100",
    "f": 100,
    "l": 105,
    "T": 1723161255611,
    "m": False,
    "M": True,
}
DEPTH = {
    "e": "depthUpdate",
    "E": 1723161255308,
    "s": "ETHUSDT",
    "U": 35346513499,
    "u": 35346513505,
    "b": [["2683.80000000", "3.02920000"], ["2679.00000000", "0.00000000"]],
    "a": [["2683.81000000", "7"]],
}
KLINE = {
    "e": "kline",
    "E": 1638747660005,
    "s": "ETHUSDT",
    "k": {
        "t": 1638747600000,
        "T": 1638747659999,
        "s": "ETHUSDT",
        "i": "1m",
        "f": 100,
        "L": 200,
        "o": "0.0010",
        "c": "0.0020",
        "h": "0.0025",
        "l": "0.0009",
        "v": "1000",
        "n": 101,
        "x": True,
        "q": "1.0000",
        "V": "500",
        "Q": "0.500",
        "B": "123456",
    },
}
SHUTDOWN = {"e": "serverShutdown", "E": 1770123456789}

AGG_EVENT = Trade(
    "ETH_USDT",
    1723161255611000,
    "2683.80000000",
    "100",
    "buy",
    5933014,
    RECEIVED,
    "ws",
    first_raw_id=100,
    last_raw_id=105,
)
RAW_EVENT = Trade("ETH_USDT", 1723161255611000, "2683.80000000", "0.00200000", "sell", 1520538925, RECEIVED)
DELTA_EVENT = BookDelta(
    "ETH_USDT",
    1723161255308000,
    35346513499,
    35346513505,
    None,
    [("2683.80000000", "3.02920000"), ("2679.00000000", "0.00000000")],
    [("2683.81000000", "7")],
    RECEIVED,
)
KLINE_EVENT = Kline(
    "ETH_USDT",
    "1m",
    1638747600000000,
    "0.0010",
    "0.0025",
    "0.0009",
    "0.0020",
    "1000",
    "1.0000",
    101,
    "500",
    True,
    1638747660005000,
    RECEIVED,
)
SHUTDOWN_EVENT = ServerNotice("shutdown", 1770123456789000)


def encoded(message: Any) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


def combined(data: Any, stream: str = "ethusdt@any") -> bytes:
    return encoded({"stream": stream, "data": data})


@pytest.mark.parametrize(
    ("message", "event"),
    [
        (AGG_TRADE, AGG_EVENT),
        (TRADE, RAW_EVENT),
        (DEPTH, DELTA_EVENT),
        (KLINE, KLINE_EVENT),
        (SHUTDOWN, SHUTDOWN_EVENT),
    ],
)
class TestEvents:
    def test_combined_frame(self, message: dict[str, Any], event: object) -> None:
        """A frame of a combined stream is its event."""
        assert [event] == list(SPOT.parse(combined(message), RECEIVED))

    def test_raw_frame(self, message: dict[str, Any], event: object) -> None:
        """A frame without the wrapper is the same event."""
        assert [event] == list(SPOT.parse(encoded(message), RECEIVED))

    def test_text_frame(self, message: dict[str, Any], event: object) -> None:
        """Text is the same as its bytes, and white space means nothing."""
        assert [event] == list(SPOT.parse(combined(message).decode(), RECEIVED))
        assert [event] == list(SPOT.parse(json.dumps({"stream": "x", "data": message}, indent=1), RECEIVED))

    def test_field_order(self, message: dict[str, Any], event: object) -> None:
        """The order of fields means nothing."""
        reordered = {"data": dict(reversed(message.items())), "stream": "x"}
        assert [event] == list(SPOT.parse(encoded(reordered), RECEIVED))

    def test_missing_field(self, message: dict[str, Any], event: object) -> None:
        """An event that lacks a field that we need is refused, not guessed."""
        for name in {"s", "p", "U", "k"} & message.keys():
            with pytest.raises(MessageError):
                SPOT.parse(combined({key: value for key, value in message.items() if key != name}), RECEIVED)


@pytest.mark.parametrize(
    ("frame", "event"),
    [
        ('{"result":null,"id":1}', Acknowledged(1)),
        ('{"result":["ethusdt@trade"],"id":"a"}', Acknowledged("a")),
        ('{"error":{"code":2,"msg":"Invalid request"},"id":3}', Rejected(3, "2", "Invalid request")),
        ('{"code":3,"msg":"Invalid JSON: expected value"}', Rejected(None, "3", "Invalid JSON: expected value")),
        (
            '{"id":7,"status":400,"error":{"code":-1121,"msg":"Invalid symbol."}}',
            Rejected(7, "-1121", "Invalid symbol."),
        ),
        ('{"event":{"e":"serverShutdown","E":1770123456789}}', SHUTDOWN_EVENT),
    ],
)
def test_answer(frame: str, event: object) -> None:
    """Answers to requests, and notices in the wrapper of the WebSocket API, are events too."""
    assert [event] == list(SPOT.parse(frame, RECEIVED))


SPOT_TICKER = {"u": 400900217, "s": "ETHUSDT", "b": "25.35", "B": "31.21", "a": "25.36", "A": "40.66"}


@pytest.mark.parametrize("frame", [combined(SPOT_TICKER), encoded(SPOT_TICKER)])
def test_the_best_prices_of_spot_have_no_time_but_that_of_their_receipt(frame: bytes) -> None:
    """Source: "Individual Symbol Book Ticker Streams"; the frame says neither what it is nor when."""
    (ticker,) = SPOT.parse(frame, RECEIVED)
    assert ticker == Ticker("ETH_USDT", RECEIVED, "25.35", "31.21", "25.36", "40.66", 400900217, RECEIVED, timed=False)


def test_an_empty_side_is_none() -> None:
    """Nothing is bid: there is no best bid, and no price of 0."""
    (ticker,) = SPOT.parse(combined({**SPOT_TICKER, "b": "0.00000000", "B": "0.00000000"}), RECEIVED)
    assert isinstance(ticker, Ticker)
    assert (ticker.bid, ticker.bid_qty, ticker.ask) == (None, None, "25.36")


@pytest.mark.parametrize(
    "frame",
    [combined({**SPOT_TICKER, "b": "x"}), combined({**SPOT_TICKER, "u": "x"}), combined({**SPOT_TICKER, "B": None})],
)
def test_broken_best_prices_are_an_error(frame: bytes) -> None:
    """They are told apart from what we don't read."""
    with pytest.raises(MessageError):
        SPOT.parse(frame, RECEIVED)


@pytest.mark.parametrize(
    "frame",
    [
        combined({**SPOT_TICKER, "s": "DOGEUSDT"}),
        encoded({**SPOT_TICKER, "s": "DOGEUSDT"}),
        combined({"e": "24hrTicker", "s": "ETHUSDT", "p": 5}),
        combined({"lastUpdateId": 1, "bids": [], "asks": []}),
        combined([{"e": "24hrMiniTicker"}]),
        encoded([{"e": "24hrMiniTicker"}]),
        encoded({}),
        combined({**TRADE, "s": "DOGEUSDT"}),
        combined({**AGG_TRADE, "s": "DOGEUSDT", "p": "nonsense"}),
        combined({**DEPTH, "s": "DOGEUSDT"}),
        combined({**KLINE, "s": "DOGEUSDT"}),
    ],
)
def test_silent(frame: bytes) -> None:
    """What we don't read, and symbols that nobody asked for, emit nothing."""
    assert tuple(SPOT.parse(frame, RECEIVED)) == ()


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"not json",
        b"5",
        b"null",
        b"\xff\xfe",
        "\ud800",
        combined(5),
        combined(None),
        combined({**TRADE, "p": 2683.8}),
        combined({**TRADE, "p": ""}),
        combined({**TRADE, "p": "."}),
        combined({**TRADE, "q": "1e5"}),
        combined({**TRADE, "q": "-1"}),
        combined({**TRADE, "q": "NaN"}),
        combined({**TRADE, "q": "1\n2"}),
        combined({**TRADE, "q": "\u0661"}),
        combined({**TRADE, "t": -1}),
        combined({**TRADE, "T": 2**63}),
        combined({**AGG_TRADE, "p": "1,5"}),
        combined({**AGG_TRADE, "q": "1.2.3"}),
        combined({**DEPTH, "b": [["1", "2", "3"]]}),
        combined({**DEPTH, "b": [["1"]]}),
        combined({**DEPTH, "b": [["1.2.3", "1"]]}),
        combined({**DEPTH, "b": [["", "1"]]}),
        combined({**DEPTH, "b": [["1", "."]]}),
        combined({**DEPTH, "b": [["1", "1."]]}),
        combined({**DEPTH, "a": [["1", "1,1"]]}),
        combined({**DEPTH, "a": [["x", "1"]], "decoy": [["1", "1"]]}),
        combined({**DEPTH, "a": [["\u0661", "1"]]}),
        combined({**DEPTH, "U": 9, "u": 8}),
        combined({**KLINE, "k": {**KLINE["k"], "o": "?"}}),  # type: ignore[dict-item]
        combined({"e": ["trade"]}),
        b"[" * 100_000,
        b'{"data":' * 100_000,
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
    message = dict(draw(st.sampled_from([TRADE, AGG_TRADE, DEPTH, KLINE, SHUTDOWN])))
    for name in draw(st.lists(st.sampled_from(sorted(message)), max_size=3)):
        message[name] = draw(json_values)
    wrapped = {"stream": draw(json_values), "data": message} if draw(st.booleans()) else message
    return json.dumps(wrapped).encode()


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
        elif isinstance(event, BookDelta):
            assert all(Decimal(text) >= 0 for level in event.bids + event.asks for text in level)
    assert SPOT.channel_of(frame) is None or isinstance(SPOT.channel_of(frame), str)


@given(st.lists(st.tuples(st.text('0123456789.,-e \\"[]', max_size=5), st.text("0123456789.", max_size=5)), max_size=4))
def test_levels_fast_and_slow(levels: list[tuple[str, str]]) -> None:
    """The quick test of a whole message lets nothing through that a look at each number would refuse."""
    frame = combined({**DEPTH, "b": levels, "a": []})
    wrong = [text for level in levels for text in level if not _plain(text)]
    if wrong:
        with pytest.raises(MessageError):
            SPOT.parse(frame, RECEIVED)
    else:
        assert levels == SPOT.parse(frame, RECEIVED)[0].bids  # type: ignore[union-attr]


def _plain(text: str) -> bool:
    whole, point, fraction = text.partition(".")
    return whole.isdigit() and (not point or fraction.isdigit())


class TestTimes:
    def test_milliseconds(self) -> None:
        """A time of 13 digits is in milliseconds."""
        assert microseconds(1723161255611) == 1723161255611000

    def test_microseconds(self) -> None:
        """A time of 16 digits is in microseconds, as timeUnit=MICROSECOND asks for."""
        frame = combined({**AGG_TRADE, "T": 1723161255611789})
        assert SPOT.parse(frame, RECEIVED)[0].timestamp_us == 1723161255611789  # type: ignore[union-attr]

    def test_spot_depth(self) -> None:
        """Spot's depth has the event time only."""
        assert SPOT.parse(encoded(DEPTH), RECEIVED)[0].timestamp_us == 1723161255308000  # type: ignore[union-attr]


class TestListing:
    def test_names(self) -> None:
        """Symbols are BASE_QUOTE, active where they trade."""
        body = encoded(
            {
                "symbols": [
                    {"symbol": "ETHBTC", "status": "BREAK", "baseAsset": "ETH", "quoteAsset": "BTC", "filters": [1]},
                    {"symbol": "BTCUSDT", "status": "TRADING", "baseAsset": "BTC", "quoteAsset": "USDT"},
                ]
            }
        )
        assert [
            Listing("BTC_USDT", "BTCUSDT", "BTC", "USDT", True),
            Listing("ETH_BTC", "ETHBTC", "ETH", "BTC", False),
        ] == SPOT.parse_listing(body)

    def test_no_two_alike(self) -> None:
        """Two instruments of one pair get two symbols, and the one that trades has the plain one."""
        rows = [
            {"symbol": native, "status": status, "baseAsset": "A", "quoteAsset": "B"}
            for native, status in (("AB1", "BREAK"), ("AB2", "TRADING"))
        ]
        assert {listing.native: listing.symbol for listing in SPOT.parse_listing(encoded({"symbols": rows}))} == {
            "AB2": "A_B",
            "AB1": "A_B-AB1",
        }

    @pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"symbols":5}', b'{"code":-1003,"msg":"Too many"}'])
    def test_not_a_listing(self, body: bytes) -> None:
        """Any other answer is refused."""
        with pytest.raises(MessageError):
            SPOT.parse_listing(body)

    def test_request(self) -> None:
        """All instruments are asked for at once."""
        assert Request("/api/v3/exchangeInfo", weight=20) == SPOT.listing_request()

    def test_real_answer(self, recordings: Path) -> None:
        """The exchange's own answer is read whole, each symbol distinct."""
        listings = SPOT.parse_listing(_recorded_answer(recordings / "binance-spot-20211012.rec.gz", "/exchangeInfo"))
        assert 1695 == len(listings) == len({listing.symbol for listing in listings})
        assert sum(listing.active for listing in listings) == 1262
        assert Listing("NKN_USDT", "NKNUSDT", "NKN", "USDT") in listings


def _recorded_answer(path: Path, part: str) -> bytes:
    with gzip.open(path, "rt") as lines:
        for line in lines:
            _, _, kind, payload = line.rstrip("\n").split(" ", 3)
            if kind == "GET" and part in payload.split(" ", 2)[1]:
                return payload.split(" ", 2)[2].encode()
    raise AssertionError(f"{path} has no answer to {part}")


class TestPlan:
    def test_one_frame(self) -> None:
        """A few streams are asked for on one connection by one frame with an id."""
        subscriptions = [Subscription(stream, "ETH_USDT") for stream in ("prices", "orderbook", "klines")]
        [plan] = SPOT.plan(subscriptions)
        assert plan.path == "/stream"
        assert tuple(subscriptions) == plan.subscriptions
        assert plan.request_ids == (1,)
        assert json.loads(plan.frames[0]) == {
            "method": "SUBSCRIBE",
            "params": ["ethusdt@aggTrade", "ethusdt@depth@100ms", "ethusdt@kline_1m"],
            "id": 1,
        }

    def test_raw_trades(self) -> None:
        """Raw trades are another channel."""
        [plan] = SPOT.plan([Subscription("prices", "ETH_USDT")], raw_trades=True)
        assert json.loads(plan.frames[0])["params"] == ["ethusdt@trade"]

    def test_many(self) -> None:
        """Beyond 1,024 streams another connection is opened; a symbol's streams stay on one."""
        listings = [Listing(f"A{n}_USDT", f"A{n}USDT", f"A{n}", "USDT") for n in range(600)]
        subscriptions = [
            Subscription(stream, listing.symbol) for stream in ("prices", "orderbook") for listing in listings
        ]
        plans = Binance(listings).plan(subscriptions)
        assert [len(plan.subscriptions) for plan in plans] == [1024, 176]
        assert set(subscriptions) == {subscription for plan in plans for subscription in plan.subscriptions}
        first, second = ({subscription.symbol for subscription in plan.subscriptions} for plan in plans)
        assert not first & second
        for plan in plans:
            asked = [name for frame in plan.frames for name in json.loads(frame)["params"]]
            assert len(plan.subscriptions) == len(set(asked))
            assert all(len(json.loads(frame)["params"]) <= 200 for frame in plan.frames)
            assert list(plan.request_ids) == [json.loads(frame)["id"] for frame in plan.frames]

    def test_nothing(self) -> None:
        """Nothing asked, nothing opened."""
        assert SPOT.plan([]) == []

    def test_unknown_names(self) -> None:
        """A wrong symbol or data type is named, with the nearest one."""
        with pytest.raises(UnknownName, match="ETH_USDT"):
            SPOT.plan([Subscription("prices", "ETH_USD")])
        with pytest.raises(UnknownName, match="prices"):
            SPOT.plan([Subscription("price", "ETH_USDT")])


class TestRest:
    def test_snapshot(self) -> None:
        """The book is asked for at its full depth, and has no time on spot."""
        assert Request("/api/v3/depth", {"symbol": "ETHUSDT", "limit": "5000"}, weight=250) == SPOT.snapshot_request(
            "ETH_USDT"
        )
        body = encoded({"lastUpdateId": 1027024, "bids": [["4.0", "431.0"]], "asks": [["4.2", "12.0"]]})
        assert BookSnapshot(
            "ETH_USDT", 0, 1027024, [("4.0", "431.0")], [("4.2", "12.0")], RECEIVED
        ) == SPOT.parse_snapshot("ETH_USDT", body, RECEIVED)

    @pytest.mark.parametrize(
        "body", [b"", b"[]", b'{"lastUpdateId":1}', b'{"lastUpdateId":1,"bids":[["x","1"]],"asks":[]}']
    )
    def test_not_a_snapshot(self, body: bytes) -> None:
        """Any other answer is refused."""
        with pytest.raises(MessageError):
            SPOT.parse_snapshot("ETH_USDT", body, RECEIVED)

    def test_refusal(self) -> None:
        """The exchange's own words are in the error."""
        with pytest.raises(MessageError, match=r"Invalid symbol.*-1121"):
            SPOT.parse_snapshot("ETH_USDT", b'{"code":-1121,"msg":"Invalid symbol."}', RECEIVED)

    def test_trades(self) -> None:
        """Aggregated trades are asked for by id, no more than the exchange gives; raw ones would need a key."""
        request = SPOT.trades_request("ETH_USDT", 5, 9999)
        assert Request("/api/v3/aggTrades", {"symbol": "ETHUSDT", "fromId": "5", "limit": "1000"}, weight=4) == request
        assert SPOT.trades_request("ETH_USDT", 5, 10, raw_trades=True) is None

    def test_trades_answer(self) -> None:
        """What REST answers is what the websocket would have said, but for its source."""
        row = {name: AGG_TRADE[name] for name in ("a", "p", "q", "f", "l", "T", "m", "M")}
        [trade] = SPOT.parse_trades("ETH_USDT", encoded([row]), RECEIVED)
        assert trade.source == "rest"
        trade.source = "ws"
        assert trade == AGG_EVENT
        with pytest.raises(MessageError):
            SPOT.parse_trades("ETH_USDT", encoded([{**row, "p": "x"}]), RECEIVED)


class TestChannels:
    @pytest.mark.parametrize(
        ("frame", "channel"),
        [
            (combined(TRADE, "ethusdt@trade"), "ethusdt@trade"),
            (combined(DEPTH, "ethusdt@depth@100ms"), "ethusdt@depth"),
            (combined(DEPTH, "ethusdt@depth"), "ethusdt@depth"),
            (combined({}, "ethusdt@depth20@100ms"), "ethusdt@depth20@100ms"),
            (encoded(TRADE), "ethusdt@trade"),
            (encoded(AGG_TRADE), "ethusdt@aggTrade"),
            (encoded(DEPTH), "ethusdt@depth"),
            (encoded(KLINE), "ethusdt@kline_1m"),
            (encoded({"u": 4, "s": "ETHUSDT", "b": "2", "B": "3", "a": "2", "A": "4"}), "ethusdt@bookTicker"),
            (b'{"result":null,"id":1}', None),
            (b"broken", None),
        ],
    )
    def test_channel_of(self, frame: bytes, channel: str | None) -> None:
        """A recorded frame tells its channel, wrapped or not."""
        assert channel == SPOT.channel_of(frame)

    def test_asked_by_path(self) -> None:
        """A client asks by the path that it connects to."""
        assert list(SPOT.channels_asked("/stream?streams=ethusdt@aggTrade/btcusdt%40depth%40100ms", None)) == [
            "ethusdt@aggTrade",
            "btcusdt@depth",
        ]
        assert list(SPOT.channels_asked("/ws/ethusdt@trade", None)) == ["ethusdt@trade"]
        assert list(SPOT.channels_asked("/stream", None)) == []

    def test_asked_by_frame(self) -> None:
        """A client asks by a frame, and is told that it was heard."""
        [plan] = SPOT.plan([Subscription("orderbook", "ETH_USDT")])
        assert list(SPOT.channels_asked("/stream", plan.frames[0])) == ["ethusdt@depth"]
        acknowledgement = SPOT.acknowledgement(plan.frames[0])
        assert acknowledgement is not None
        assert [Acknowledged(1)] == list(SPOT.parse(acknowledgement, RECEIVED))

    @pytest.mark.parametrize("frame", ["", "ping", "[]", '{"method":"LIST_SUBSCRIPTIONS","id":3}', '{"method":5}'])
    def test_not_asked(self, frame: str) -> None:
        """Any other frame asks for nothing and is not acknowledged."""
        assert list(SPOT.channels_asked("/stream", frame)) == []
        assert SPOT.acknowledgement(frame) is None


def delta(first: int, last: int) -> BookDelta:
    return BookDelta("ETH_USDT", 0, first, last, None, [], [], 0)


class TestRule:
    def test_sequence(self) -> None:
        """Drop what the snapshot has; the first may overlap it; each next begins where the last ended."""
        rule = SpotBookRule()
        assert rule.judge(delta(1, 2)) == "gap"
        rule.apply_snapshot(BookSnapshot("ETH_USDT", 0, 100, [], [], 0))
        verdicts = [
            rule.judge(delta(*ids)) for ids in ((90, 99), (95, 100), (98, 103), (104, 104), (106, 107), (105, 106))
        ]
        assert verdicts == ["stale", "stale", "apply", "apply", "gap", "apply"]
        assert rule.last_id == 106

    def test_follows_at_once(self) -> None:
        """The first may begin right after the snapshot, but not later."""
        rule = SpotBookRule()
        rule.apply_snapshot(BookSnapshot("ETH_USDT", 0, 100, [], [], 0))
        assert rule.judge(delta(102, 103)) == "gap"
        assert rule.judge(delta(101, 103)) == "apply"


def test_real_frames(recordings: Path) -> None:
    """Every frame of a real recording is read: 14,515 trades with exact sums, 6,470 changes of the book."""
    truth = json.loads((recordings / "expected.json").read_text())["binance-spot-ETHUSDT-20240808.rec.gz"]
    trades: list[Trade] = []
    deltas = 0
    with gzip.open(recordings / "binance-spot-ETHUSDT-20240808.rec.gz", "rt") as lines:
        for line in lines:
            received_ns, _, kind, payload = line.rstrip("\n").split(" ", 3)
            if kind == "<":
                for event in SPOT.parse(payload, int(received_ns) // 1000):
                    assert not isinstance(event, OffBookPrint)
                    if isinstance(event, Trade):
                        trades.append(event)
                    deltas += isinstance(event, BookDelta)
    expected = truth["symbols"]["ETHUSDT"]["trades"]
    assert expected["count"] == len(trades)
    assert list(range(expected["first_id"], expected["last_id"] + 1)) == [trade.trade_id for trade in trades]
    assert Decimal(expected["sum_qty"]) == sum(Decimal(trade.volume) for trade in trades)
    assert expected["buyer_maker_true"] == sum(trade.side == "sell" for trade in trades)
    assert truth["symbols"]["ETHUSDT"]["message_counts"]["depth@100ms"] == deltas


def test_volumes() -> None:
    """What was traded in 24 hours is read in quote currency; for contracts of coins from coins and average price."""
    assert SPOT.volumes_request() == Request("/api/v3/ticker/24hr", weight=80)
    rows = [
        {"symbol": "BTCUSDT", "quoteVolume": "15.30000000", "weightedAvgPrice": "0.29628482"},
        {"symbol": "BTCUSD_PERP", "volume": "3", "baseVolume": "2", "weightedAvgPrice": "40000.5"},
    ]
    expected = {"BTCUSDT": Decimal("15.3"), "BTCUSD_PERP": Decimal(80001)}
    assert SPOT.parse_volumes(json.dumps(rows).encode()) == expected
    with pytest.raises(MessageError, match="-1003"):
        SPOT.parse_volumes(b'{"code":-1003,"msg":"Too many requests"}')
