"""Coinbase Exchange: golden frames, what emits nothing, what is refused, and the recording of 2021."""

from __future__ import annotations

import hashlib
import json
import re
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
    PastTrade,
    Rejected,
    ServerNotice,
    Ticker,
    Trade,
)
from collector.exchanges.base import Listing, Request, Subscription
from collector.exchanges.coinbase import Coinbase
from collector.feeds.orderbook import Book

RECEIVED = 1_618_677_819_000_000
RECORDING = "coinbase-exchange-20210417.rec.gz"
COINBASE = Coinbase([Listing("BTC_USD", "BTC-USD", "BTC", "USD"), Listing("SKL_BTC", "SKL-BTC", "SKL", "BTC")])

MATCH = {
    "type": "match",
    "trade_id": 280232,
    "maker_order_id": "2a0da34e-61f7-4c36-88e5-c9dd15927b16",
    "taker_order_id": "3c82abaa-c01e-4608-be59-6a1e69742891",
    "side": "sell",
    "size": "985",
    "price": "0.00001305",
    "product_id": "SKL-BTC",
    "sequence": 177100030,
    "time": "2021-04-17T16:43:37.089723Z",
}
SNAPSHOT = {
    "type": "snapshot",
    "product_id": "BTC-USD",
    "asks": [["14.8024", "12.77"]],
    "bids": [["14.7550", "1"], ["14.7", "2.0"]],
}
UPDATE = {
    "type": "l2update",
    "product_id": "BTC-USD",
    "changes": [["buy", "9202.70", "0.58667860"], ["sell", "9222.39", "0.00000000"]],
    "time": "2019-08-14T20:42:27.265Z",
}
HEARTBEAT = {
    "type": "heartbeat",
    "sequence": 90,
    "last_trade_id": 20,
    "product_id": "BTC-USD",
    "time": "2014-11-07T08:19:28.464459Z",
}

TRADE_EVENT = Trade("SKL_BTC", 1618677817089723, "0.00001305", "985", "buy", 280232, RECEIVED)
SNAPSHOT_EVENT = BookSnapshot("BTC_USD", 0, 0, [("14.7550", "1"), ("14.7", "2.0")], [("14.8024", "12.77")], RECEIVED)
UPDATE_EVENT = BookDelta(
    "BTC_USD",
    1565815347265000,
    1565815347265000,
    1565815347265000,
    None,
    [("9202.70", "0.58667860")],
    [("9222.39", "0.00000000")],
    RECEIVED,
)


QUOTES = {
    "type": "ticker",
    "sequence": 50978628538,
    "product_id": "BTC-USD",
    "price": "17165.16",
    "best_bid": "17165.15",
    "best_bid_size": "0.61540890",
    "best_ask": "17167.76",
    "best_ask_size": "0.18528568",
    "side": "sell",
    "time": "2022-12-01T00:00:00.122581Z",
    "trade_id": 463751434,
    "last_size": "0.05",
}


def encoded(message: Any) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    ("message", "event"),
    [
        (MATCH, TRADE_EVENT),
        ({**MATCH, "type": "last_match"}, PastTrade(TRADE_EVENT)),
        (SNAPSHOT, SNAPSHOT_EVENT),
        (UPDATE, UPDATE_EVENT),
        (HEARTBEAT, ServerNotice("heartbeat", 1415348368464459)),
        ({"type": "subscriptions", "channels": [{"name": "level2", "product_ids": []}]}, Acknowledged(None)),
        (
            {"type": "error", "message": "Failed to subscribe", "reason": "FOO-BAR is not a valid product"},
            Rejected(None, "", "Failed to subscribe: FOO-BAR is not a valid product"),
        ),
        ({"type": "error", "message": "Failed to subscribe"}, Rejected(None, "", "Failed to subscribe")),
    ],
)
class TestEvents:
    def test_frame(self, message: dict[str, Any], event: object) -> None:
        """A frame is its event."""
        assert [event] == list(COINBASE.parse(encoded(message), RECEIVED))
        assert [event] == list(COINBASE.parse(json.dumps(message, indent=1), RECEIVED))

    def test_field_order(self, message: dict[str, Any], event: object) -> None:
        """The order of fields means nothing."""
        assert [event] == list(COINBASE.parse(encoded(dict(reversed(message.items()))), RECEIVED))

    def test_missing_field(self, message: dict[str, Any], event: object) -> None:
        """An event that lacks a field that we need is refused, not guessed."""
        needed = {"trade_id", "side", "size", "price", "product_id", "time", "bids", "asks", "changes"}
        for name in needed & message.keys():
            with pytest.raises(MessageError):
                COINBASE.parse(encoded({key: value for key, value in message.items() if key != name}), RECEIVED)


def test_timed_snapshot() -> None:
    """A snapshot that says its time has it."""
    [snapshot] = COINBASE.parse(encoded({**SNAPSHOT, "time": "2019-08-14T20:42:27.265Z"}), RECEIVED)
    assert isinstance(snapshot, BookSnapshot)
    assert snapshot.timestamp_us == 1565815347265000


def test_no_time() -> None:
    """A change of the year 1 has the time of receipt."""
    [delta] = COINBASE.parse(encoded({**UPDATE, "time": "0001-01-01T00:00:00.000000Z"}), RECEIVED)
    assert isinstance(delta, BookDelta)
    assert delta.timestamp_us == RECEIVED


@pytest.mark.parametrize(
    "frame",
    [
        encoded({**QUOTES, "product_id": "FOO-USD"}),
        encoded({"type": "status", "products": []}),
        encoded({"type": "received", "product_id": "BTC-USD"}),
        encoded({**MATCH, "product_id": "FOO-BAR"}),
        encoded({**MATCH, "product_id": "FOO-BAR", "price": "nonsense"}),
        encoded({**UPDATE, "product_id": "FOO-BAR"}),
        encoded({**SNAPSHOT, "product_id": "FOO-BAR"}),
        encoded({**HEARTBEAT, "product_id": "FOO-BAR"}),
    ],
)
def test_silent(frame: bytes) -> None:
    """What we don't read, and products that nobody asked for, emit nothing."""
    assert tuple(COINBASE.parse(frame, RECEIVED)) == ()


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"not json",
        b"5",
        b"null",
        b"{}",
        b"[]",
        b"\xff",
        "\ud800",
        b'{"type":5}',
        b'{"type":["match"]}',
        b"[" * 100_000,
        encoded({**MATCH, "side": "BUY"}),
        encoded({**MATCH, "price": 5}),
        encoded({**MATCH, "price": "1e5"}),
        encoded({**MATCH, "size": "-1"}),
        encoded({**MATCH, "trade_id": -1}),
        encoded({**MATCH, "trade_id": "1"}),
        encoded({**MATCH, "time": "yesterday"}),
        encoded({**UPDATE, "changes": [["buy", "1"]]}),
        encoded({**UPDATE, "changes": [["both", "1", "1"]]}),
        encoded({**UPDATE, "changes": [["buy", "x", "1"]]}),
        encoded({**SNAPSHOT, "bids": [["1", ""]]}),
    ],
)
def test_malformed(frame: bytes | str) -> None:
    """What the documentation does not allow is a MessageError, whatever it is."""
    with pytest.raises(MessageError):
        COINBASE.parse(frame, RECEIVED)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=3), children, max_size=3),
    max_leaves=8,
)


@st.composite
def mutated_frames(draw: st.DrawFn) -> bytes:
    message: dict[str, Any] = dict(draw(st.sampled_from([MATCH, SNAPSHOT, UPDATE, HEARTBEAT])))
    for name in draw(st.lists(st.sampled_from(sorted(message)), max_size=3)):
        message[name] = draw(json_values)
    return encoded(message)


@given(st.binary() | st.text() | mutated_frames() | json_values.map(encoded))
def test_any_frame(frame: bytes | str) -> None:
    """Any frame gives events or a MessageError."""
    try:
        events = COINBASE.parse(frame, RECEIVED)
    except MessageError:
        return
    for event in events:
        if isinstance(event, Trade):
            assert Decimal(event.price) >= 0
            assert Decimal(event.volume) >= 0
        elif isinstance(event, BookDelta | BookSnapshot):
            assert all(Decimal(text) >= 0 for level in event.bids + event.asks for text in level)
    assert COINBASE.channel_of(frame) is None or isinstance(COINBASE.channel_of(frame), str)


class TestListing:
    def test_names(self) -> None:
        """Symbols are BASE_QUOTE, active where they are online and not disabled."""
        rows = [
            {"id": "OLD-USD", "base_currency": "OLD", "quote_currency": "USD", "status": "delisted"},
            {
                "id": "OFF-USD", "base_currency": "OFF", "quote_currency": "USD", "status": "online",
                "trading_disabled": True,
            },
            {"id": "BTC-USD", "base_currency": "BTC", "quote_currency": "USD", "status": "online", "x": 1},
        ]  # fmt: skip
        assert COINBASE.parse_listing(encoded(rows)) == [
            Listing("BTC_USD", "BTC-USD", "BTC", "USD", True),
            Listing("OLD_USD", "OLD-USD", "OLD", "USD", False),
            Listing("OFF_USD", "OFF-USD", "OFF", "USD", False),
        ]
        assert COINBASE.listing_request() == Request("/products")

    def test_written(self) -> None:
        """A list made for a replay is read like the exchange's."""
        assert COINBASE.parse_listing(COINBASE.write_listing(["BTC_USD"]) or b"") == [
            Listing("BTC_USD", "BTC-USD", "BTC", "USD")
        ]

    def test_refusal(self) -> None:
        """The exchange's own words are in the error."""
        with pytest.raises(MessageError, match="rate limit"):
            COINBASE.parse_listing(b'{"message":"Public rate limit exceeded"}')

    def test_real_answer(self, recorded: Any) -> None:
        """The exchange's own answer is read whole, each symbol distinct."""
        listings = COINBASE.parse_listing(recorded.answer(RECORDING, "/products"))
        assert len(listings) == len({listing.symbol for listing in listings}) > 100
        assert Listing("SKL_EUR", "SKL-EUR", "SKL", "EUR") in listings


class TestPlan:
    def test_frames(self) -> None:
        """Each channel is asked for in a frame; a product's heartbeat once."""
        asked = [
            Subscription("prices", "BTC_USD"),
            Subscription("orderbook", "BTC_USD"),
            Subscription("orderbook", "SKL_BTC"),
        ]
        [plan] = COINBASE.plan(asked)
        assert plan.subscriptions == tuple(asked)
        assert [json.loads(frame) for frame in plan.frames] == [
            {"type": "subscribe", "product_ids": ["BTC-USD"], "channels": ["matches", "heartbeat"]},
            {"type": "subscribe", "product_ids": ["BTC-USD"], "channels": ["level2_batch"]},
            {"type": "subscribe", "product_ids": ["SKL-BTC"], "channels": ["level2_batch", "heartbeat"]},
        ]

    def test_many(self) -> None:
        """Beyond what one connection carries another is opened; no frame names more than a hundred products."""
        symbols = [f"A{number}_USD" for number in range(250)]
        exchange = Coinbase(COINBASE.parse_listing(COINBASE.write_listing(symbols) or b""))
        plans = exchange.plan([Subscription("prices", symbol) for symbol in symbols])
        assert [len(plan.subscriptions) for plan in plans] == [200, 50]
        assert all(len(json.loads(frame)["product_ids"]) <= 100 for plan in plans for frame in plan.frames)

    def test_renewal(self) -> None:
        """A book is pushed whole again when it is subscribed to again."""
        frames = COINBASE.renewal_frames(Subscription("orderbook", "BTC_USD"))
        assert [json.loads(frame)["type"] for frame in frames] == ["unsubscribe", "subscribe"]
        assert list(COINBASE.channels_asked("/", frames[1])) == ["level2:BTC-USD"]

    def test_unknown_names(self) -> None:
        """A wrong symbol or data type is named; there are no klines."""
        with pytest.raises(UnknownName, match="BTC_USD"):
            COINBASE.plan([Subscription("prices", "BTC_USDT")])
        with pytest.raises(UnknownName, match="klines"):
            COINBASE.plan([Subscription("klines", "BTC_USD")])


class TestRest:
    def test_snapshot(self) -> None:
        """The whole book can be asked for."""
        assert COINBASE.snapshot_request("BTC_USD") == Request("/products/BTC-USD/book", {"level": "2"})
        body = encoded({"bids": [["1.0", "2", 3]], "asks": [["4", "5.0", 1]], "sequence": 13051505638})
        assert COINBASE.parse_snapshot("BTC_USD", body, RECEIVED) == BookSnapshot(
            "BTC_USD", 0, 0, [("1.0", "2")], [("4", "5.0")], RECEIVED
        )
        with pytest.raises(MessageError, match="NotFound"):
            COINBASE.parse_snapshot("BTC_USD", b'{"message":"NotFound"}', RECEIVED)

    def test_trades(self) -> None:
        """Trades are asked for by what is older than an id, and come newest first."""
        assert COINBASE.trades_request("BTC_USD", 100, 50) == Request(
            "/products/BTC-USD/trades", {"after": "150", "limit": "50"}
        )
        assert COINBASE.trades_request("BTC_USD", 100, 9999) == Request(
            "/products/BTC-USD/trades", {"after": "1100", "limit": "1000"}
        )
        row = {name: MATCH[name] for name in ("time", "trade_id", "price", "size", "side")}
        body = encoded([{**row, "trade_id": 280233}, row])
        first, second = COINBASE.parse_trades("SKL_BTC", body, RECEIVED)
        assert (first.trade_id, second.trade_id, first.side, first.source) == (280232, 280233, "buy", "rest")
        with pytest.raises(MessageError):
            COINBASE.parse_trades("SKL_BTC", encoded([{**row, "price": "x"}]), RECEIVED)


class TestChannels:
    def test_channels(self) -> None:
        """A recorded frame and a client's frame name a channel alike, level 2 in batches or not."""
        for message, channel in (
            (MATCH, "matches:SKL-BTC"),
            ({**MATCH, "type": "last_match"}, "matches:SKL-BTC"),
            (UPDATE, "level2:BTC-USD"),
            (SNAPSHOT, "level2:BTC-USD"),
            (HEARTBEAT, "heartbeat:BTC-USD"),
            ({"type": "subscriptions", "channels": []}, None),
        ):
            assert COINBASE.channel_of(encoded(message)) == channel
        for name in ("level2", "level2_batch"):
            frame = json.dumps({"type": "subscribe", "product_ids": ["BTC-USD"], "channels": [name]})
            assert list(COINBASE.channels_asked("/", frame)) == ["level2:BTC-USD"]
        assert COINBASE.channel_of(b"broken") is None

    def test_acknowledgement(self) -> None:
        """A client's frame is accepted in the exchange's words."""
        [plan] = COINBASE.plan([Subscription("prices", "BTC_USD")])
        answer = COINBASE.acknowledgement(plan.frames[0])
        assert answer is not None
        assert list(COINBASE.parse(answer, RECEIVED)) == [Acknowledged(None)]

    @pytest.mark.parametrize("frame", ["", "ping", "[]", '{"type":5}', '{"type":"unknown"}'])
    def test_not_asked(self, frame: str) -> None:
        """Any other frame asks for nothing and is not acknowledged."""
        assert list(COINBASE.channels_asked("/", frame)) == []
        assert COINBASE.acknowledgement(frame) is None
        assert list(COINBASE.channels_asked("/", None)) == []


def plain(text: str) -> str:
    digits = format(Decimal(text), "f")
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def digest(book: Book) -> str:
    """Sum up a book as the recording's truth does: all levels, best first, in plain digits."""
    sides = ("|".join(f"{plain(price)}:{plain(size)}" for price, size in side) for side in book.top(len(book)))
    return hashlib.sha256("#".join(sides).encode()).hexdigest()


class TestRecording:
    def test_books(self, recorded: Any, recordings: Path) -> None:
        """Every level of every book is as it should be after the last message."""
        truth = json.loads((recordings / "expected.json").read_text())[RECORDING]["symbols"]
        exchange = Coinbase(COINBASE.parse_listing(recorded.answer(RECORDING, "/products")))
        books: dict[str, Book] = {}
        for received_us, frame in recorded.frames(RECORDING):
            for event in exchange.parse(frame, received_us):
                if isinstance(event, BookSnapshot):
                    books.setdefault(event.symbol, Book()).load(event)
                elif isinstance(event, BookDelta):
                    books[event.symbol].apply(event)
                    assert not books[event.symbol].crossed
        for native, expected in truth.items():
            book = books[native.replace("-", "_")]
            assert len(book.bids) == expected["book"]["n_bid_levels"]
            assert len(book.asks) == expected["book"]["n_ask_levels"]
            assert digest(book) == expected["book"]["book_sha256"]

    def test_feed(self, recorded: Any, recordings: Path, play: Any) -> None:
        """Through a feed and a real websocket come all trades after the subscription, and the last books; no gap."""
        truth = json.loads((recordings / "expected.json").read_text())[RECORDING]["symbols"]
        symbols = {native: native.replace("-", "_") for native in truth}
        asked = [Subscription(stream, symbol) for symbol in symbols.values() for stream in ("prices", "orderbook")]
        exchange = Coinbase(COINBASE.parse_listing(COINBASE.write_listing(list(symbols.values())) or b""))
        frames = [frame for _, frame in recorded.frames(RECORDING)]
        collected = play(exchange, asked, frames)
        assert collected.gaps == []
        for native, symbol in symbols.items():
            expected = truth[native]["trades"]
            trades = [trade for trade in collected.trades if trade.symbol == symbol]
            assert len(trades) == expected["count"]
            if trades:
                ids = list(range(expected["first_id"], expected["last_id"] + 1))
                assert [trade.trade_id for trade in trades] == ids
                assert sum(Decimal(trade.volume) for trade in trades) == Decimal(expected["sum_qty"])
                assert sum(trade.side == "buy" for trade in trades) == expected["taker_buy"]
                assert trades[0].timestamp_us // 1000 == expected["first_ts_ms"]
                assert trades[-1].timestamp_us // 1000 == expected["last_ts_ms"]
            last = [row for row in collected.books if row.symbol == symbol][-1]
            book = truth[native]["book"]
            for side, levels in ((last.bids, book["bids_top"]), (last.asks, book["asks_top"])):
                assert [[plain(price), plain(size)] for price, size in side] == levels[:3]


class TestFeed:
    def test_last_match(self, play: Any) -> None:
        """After a disconnect the last match tells what is missing, and is recorded where it is."""
        trades = [encoded({**MATCH, "trade_id": number}) for number in range(10)]
        past = encoded({**MATCH, "type": "last_match", "trade_id": 6})
        first = encoded({**MATCH, "type": "last_match", "trade_id": 0})
        script = [first, trades[1], trades[2], "disconnect", past, trades[7]]
        collected = play(COINBASE, [Subscription("prices", "SKL_BTC")], script)
        assert [trade.trade_id for trade in collected.trades] == [1, 2, 6, 7]
        assert [(gap.cause, gap.from_id, gap.to_id) for gap in collected.gaps] == [("disconnect", 3, 5)]

    def test_book_after_a_disconnect(self, play: Any) -> None:
        """A lost connection is a gap of the book without ids, because there are none."""
        update = {**UPDATE, "changes": [["buy", "14.7550", "3"]]}
        later = {**update, "time": "2019-08-14T20:42:29.265Z"}
        script = [encoded(SNAPSHOT), encoded(update), "disconnect", encoded(SNAPSHOT), encoded(later)]
        collected = play(COINBASE, [Subscription("orderbook", "BTC_USD")], script)
        [gap] = collected.gaps
        assert (gap.cause, gap.stream, gap.from_id, gap.to_id) == ("disconnect", "orderbook", None, None)
        assert (gap.from_us, gap.to_us) == (1565815347265000, 1565815349265000)

    def test_refused_product(self, play: Any) -> None:
        """A refusal that names no request is of what brought nothing: asked for singly, it costs one product."""
        refusal = json.dumps({"type": "error", "message": "Failed to subscribe", "reason": "SKL-BTC is not valid"})
        asked = [Subscription("prices", "BTC_USD"), Subscription("prices", "SKL_BTC")]
        collected = play(COINBASE, asked, [refusal, "asked again", encoded({**MATCH, "product_id": "BTC-USD"})])
        assert [trade.symbol for trade in collected.trades] == ["BTC_USD"]
        assert len(collected.asked) >= 2


def test_frames_with_expected(recordings: Path) -> None:
    """Frames mean what another library reads in them: the taker's side, price, size and time."""
    compared = 0
    for line in (recordings / "frames-with-expected.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["exchange"] != "coinbase":
            continue
        exchange = Coinbase([Listing("A_B", row["message"]["product_id"], "A", "B")])
        received = 1_567_296_001_275_000
        for event in exchange.parse(json.dumps(row["message"]), received):
            [truth] = row["expected"]
            compared += 1
            if isinstance(event, Trade):
                assert (float(event.price), float(event.volume)) == (truth["price"], truth["amount"])
                assert (event.side, str(event.trade_id)) == (truth["side"], truth["id"])
                assert event.timestamp_us == 1_564_617_603_816_000
            elif isinstance(event, Ticker):
                assert (float(event.bid or 0), float(event.ask or 0)) == (truth["bidPrice"], truth["askPrice"])
                assert float(event.bid_qty or 0) == (truth["bidAmount"] or 0)
            else:
                assert isinstance(event, BookDelta)
                assert [[float(text) for text in level] for level in event.bids] == [
                    [level["price"], level["amount"]] for level in truth["bids"]
                ]
    assert compared == 5


@pytest.mark.parametrize(
    ("message", "event"),
    [
        (
            QUOTES,
            Ticker(
                "BTC_USD", 1669852800122581, "17165.15", "0.61540890", "17167.76", "0.18528568", 50978628538, RECEIVED
            ),
        ),
        (
            {name: value for name, value in QUOTES.items() if not name.endswith("_size")},
            Ticker("BTC_USD", 1669852800122581, "17165.15", None, "17167.76", None, 50978628538, RECEIVED),
        ),
        (
            {**QUOTES, "best_bid": "0", "best_bid_size": "0.00000000"},
            Ticker("BTC_USD", 1669852800122581, None, None, "17167.76", "0.18528568", 50978628538, RECEIVED),
        ),
    ],
)
def test_ticker(message: dict[str, Any], event: Ticker) -> None:
    """The best bid and ask come with each match; old messages have no sizes, and an empty side has the price 0."""
    assert [event] == list(COINBASE.parse(encoded(message), RECEIVED))
    for name in ("best_bid", "best_ask", "time", "sequence"):
        with pytest.raises(MessageError):
            COINBASE.parse(encoded({**message, name: None}), RECEIVED)


def test_volumes() -> None:
    """What was traded in 24 hours is read in quote currency, by native spelling; a refusal is said in its words."""
    assert COINBASE.volumes_request() == Request("/products/stats")
    day = {"open": "1", "high": "3", "low": "1", "last": "2.5", "volume": "4"}
    body = encoded({"BTC-USD": {"stats_30day": {"volume": "9"}, "stats_24hour": day}, "OLD-USD": {"stats_24hour": {}}})
    assert COINBASE.parse_volumes(body) == {"BTC-USD": Decimal(10), "OLD-USD": 0}
    with pytest.raises(MessageError, match="too many"):
        COINBASE.parse_volumes(b'{"message":"too many"}')


def test_recorded_quotes(recorded: Any) -> None:
    """Every quote of the recording is read; bids are below asks, and numbers and times never go back."""
    frames = [frame for _, frame in recorded.frames(RECORDING) if b'"type":"ticker"' in frame]
    natives = {found[1].decode() for frame in frames if (found := re.search(rb'"product_id":"([^"]+)"', frame))}
    exchange = Coinbase([Listing(native.replace("-", "_"), native, *native.split("-")) for native in natives])
    quotes: dict[str, list[Ticker]] = {}
    for frame in frames:
        for event in exchange.parse(frame, RECEIVED):
            assert isinstance(event, Ticker)
            quotes.setdefault(event.symbol, []).append(event)
    assert sum(map(len, quotes.values())) == 107
    for of_symbol in quotes.values():
        assert all(Decimal(one.bid or 0) < Decimal(one.ask or "Infinity") for one in of_symbol)
        order = [(one.update_id or 0, one.timestamp_us) for one in of_symbol]
        assert order == sorted(order)
