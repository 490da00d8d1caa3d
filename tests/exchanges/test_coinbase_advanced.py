"""Coinbase Advanced Trade: golden frames, what emits nothing, what is refused, examples of 2026."""

from __future__ import annotations

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
    PastTrade,
    Rejected,
    ServerNotice,
    Ticker,
    Trade,
)
from collector.exchanges.base import Listing, Request, Subscription
from collector.exchanges.coinbase_advanced import CoinbaseAdvanced

RECEIVED = 1_775_572_205_000_000
ADVANCED = CoinbaseAdvanced([Listing("BTC_USD", "BTC-USD", "BTC", "USD"), Listing("ETH_USD", "ETH-USD", "ETH", "USD")])

TRADE = {
    "trade_id": "995098700",
    "product_id": "BTC-USD",
    "price": "68900.50",
    "size": "0.00150000",
    "side": "BUY",
    "time": "2026-04-07T14:30:02.789012Z",
}
LEVELS = [
    {"side": "bid", "event_time": "1970-01-01T00:00:00Z", "price_level": "68900.00", "new_quantity": "1.5"},
    {"side": "offer", "event_time": "1970-01-01T00:00:00Z", "price_level": "68901.00", "new_quantity": "0"},
]
CANDLE = {
    "start": "1775521800",
    "high": "68950.00",
    "low": "68850.00",
    "open": "68900.00",
    "close": "68920.50",
    "volume": "42.15000000",
    "product_id": "BTC-USD",
}


QUOTES = {
    "type": "ticker",
    "product_id": "BTC-USD",
    "price": "68900.50",
    "volume_24_h": "15328.12345678",
    "best_bid": "68900.00",
    "best_bid_quantity": "1.50000000",
    "best_ask": "68901.00",
    "best_ask_quantity": "0.50000000",
}


def frame(channel: str, *events: dict[str, Any], **words: Any) -> bytes:
    message = {
        "channel": channel,
        "client_id": "",
        "timestamp": "2026-04-07T14:30:05.000000Z",
        "sequence_num": 3,
        "events": events,
        **words,
    }
    return json.dumps(message, separators=(",", ":")).encode()


def trades(kind: str, *rows: dict[str, Any]) -> bytes:
    return frame("market_trades", {"type": kind, "trades": rows})


def book(kind: str, updates: list[dict[str, Any]], native: str = "BTC-USD") -> bytes:
    return frame("l2_data", {"type": kind, "product_id": native, "updates": updates})


def kline(start_us: int) -> Kline:
    return Kline(
        "BTC_USD", "5m", start_us, "68900.00", "68950.00", "68850.00", "68920.50", "42.15000000", None, None, None,
        False, 1775572205000000, RECEIVED,
    )  # fmt: skip


TRADE_EVENT = Trade("BTC_USD", 1775572202789012, "68900.50", "0.00150000", "sell", 995098700, RECEIVED)
BIDS, ASKS = [("68900.00", "1.5")], [("68901.00", "0")]


@pytest.mark.parametrize(
    ("payload", "events"),
    [
        (trades("update", TRADE), [TRADE_EVENT]),
        (
            trades("update", {**TRADE, "trade_id": "995098701"}, TRADE),
            [TRADE_EVENT, Trade("BTC_USD", 1775572202789012, "68900.50", "0.00150000", "sell", 995098701, RECEIVED)],
        ),
        (trades("snapshot", TRADE), [PastTrade(TRADE_EVENT)]),
        (
            book("snapshot", LEVELS),
            [BookSnapshot("BTC_USD", 1775572205000000, 1775572205000000, BIDS, ASKS, RECEIVED)],
        ),
        (
            book("update", [LEVELS[0], {**LEVELS[1], "event_time": "2026-04-07T14:30:04.123456Z"}]),
            [BookDelta("BTC_USD", 1775572204123456, 1775572204123456, 1775572204123456, None, BIDS, ASKS, RECEIVED)],
        ),
        (
            frame("candles", {"type": "snapshot", "candles": [CANDLE, {**CANDLE, "start": "1775521500"}]}),
            [kline(1775521500000000), kline(1775521800000000)],
        ),
        (
            frame("heartbeats", {"current_time": "2026-04-07 14:30:10.000000000+00:00", "heartbeat_counter": 42}),
            [ServerNotice("heartbeat", 1775572205000000)],
        ),
        (frame("subscriptions", {"subscriptions": {"level2": ["BTC-USD"]}}), [Acknowledged(None)]),
        (
            frame("ticker", {"type": "snapshot", "tickers": [QUOTES]}),
            [Ticker("BTC_USD", 1775572205000000, "68900.00", "1.50000000", "68901.00", "0.50000000", None, RECEIVED)],
        ),
        (
            frame("ticker", {"type": "update", "tickers": [{**QUOTES, "best_ask": "", "best_ask_quantity": ""}]}),
            [Ticker("BTC_USD", 1775572205000000, "68900.00", "1.50000000", None, None, None, RECEIVED)],
        ),
        (b'{"type":"error","message":"authentication failure"}', [Rejected(None, "", "authentication failure")]),
    ],
)
def test_frame(payload: bytes, events: list[object]) -> None:
    """A frame is its events; the side is the taker's, the other than the one that is sent."""
    assert events == list(ADVANCED.parse(payload, RECEIVED))
    assert events == list(ADVANCED.parse(json.dumps(json.loads(payload), indent=1), RECEIVED))
    assert events == list(ADVANCED.parse(json.dumps(dict(reversed(json.loads(payload).items()))), RECEIVED))


@pytest.mark.parametrize(
    "payload",
    [
        frame("ticker", {"type": "update", "tickers": [{**QUOTES, "product_id": "FOO-USD"}]}),
        frame("status", {"type": "snapshot", "products": []}),
        trades("update", {**TRADE, "product_id": "FOO-BAR", "price": "nonsense"}),
        trades("update"),
        book("update", LEVELS, "FOO-BAR"),
        frame("candles", {"type": "update", "candles": [{**CANDLE, "product_id": "FOO-BAR"}]}),
        frame("l2_data"),
    ],
)
def test_silent(payload: bytes) -> None:
    """What we don't read, and products that nobody asked for, emit nothing."""
    assert list(ADVANCED.parse(payload, RECEIVED)) == []


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"not json",
        b"5",
        b"{}",
        b"[]",
        b"\xff",
        "\ud800",
        b'{"channel":5}',
        b'{"type":"error","message":5}',
        b"[" * 100_000,
        frame("market_trades", {"type": "other", "trades": []}),
        frame("market_trades", {"type": "update"}),
        trades("update", {**TRADE, "side": "buy"}),
        trades("update", {**TRADE, "trade_id": "x"}),
        trades("update", {**TRADE, "trade_id": 5}),
        trades("update", {**TRADE, "price": "1e5"}),
        trades("update", {**TRADE, "time": "yesterday"}),
        book("update", [{**LEVELS[0], "side": "buy"}]),
        book("update", [{**LEVELS[0], "new_quantity": "-1"}]),
        book("update", [{**LEVELS[0], "event_time": "yesterday"}]),
        frame("candles", {"type": "update", "candles": [{**CANDLE, "open": ""}]}),
        frame("candles", {"type": "update", "candles": [{**CANDLE, "start": "-1"}]}),
        frame("heartbeats", timestamp="never"),
    ],
)
def test_malformed(payload: bytes | str) -> None:
    """What the documentation does not allow is a MessageError, whatever it is."""
    with pytest.raises(MessageError):
        ADVANCED.parse(payload, RECEIVED)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=3), children, max_size=3),
    max_leaves=8,
)


@st.composite
def mutated_frames(draw: st.DrawFn) -> bytes:
    channel, rows, row = draw(
        st.sampled_from(
            [("market_trades", "trades", TRADE), ("l2_data", "updates", LEVELS[0]), ("candles", "candles", CANDLE)]
        )
    )
    changed: dict[str, Any] = dict(row)
    for name in draw(st.lists(st.sampled_from(sorted(changed)), max_size=2)):
        changed[name] = draw(json_values)
    event: dict[str, Any] = {"type": "update", "product_id": "BTC-USD", rows: [changed]}
    for name in draw(st.lists(st.sampled_from(sorted(event)), max_size=1)):
        event[name] = draw(json_values)
    return frame(channel, event)


@given(st.binary() | st.text() | mutated_frames() | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_frame(payload: bytes | str) -> None:
    """Any frame gives events or a MessageError."""
    try:
        events = ADVANCED.parse(payload, RECEIVED)
    except MessageError:
        return
    for event in events:
        if isinstance(event, Trade):
            assert Decimal(event.price) >= 0
            assert Decimal(event.volume) >= 0
        elif isinstance(event, BookDelta):
            assert all(Decimal(text) >= 0 for level in event.bids + event.asks for text in level)
    assert ADVANCED.channel_of(payload) is None or isinstance(ADVANCED.channel_of(payload), str)


class TestListing:
    def test_names(self) -> None:
        """Symbols are BASE_QUOTE; an alias is not active, because its messages name another product."""
        rows = [
            {"product_id": "BTC-USDC", "base_currency_id": "BTC", "quote_currency_id": "USDC", "alias": "BTC-USD"},
            {"product_id": "BTC-USD", "base_currency_id": "BTC", "quote_currency_id": "USD", "status": "online"},
            {"product_id": "OFF-USD", "base_currency_id": "OFF", "quote_currency_id": "USD", "is_disabled": True},
        ]
        body = json.dumps({"products": rows, "num_products": 3}).encode()
        assert [(listing.symbol, listing.active) for listing in ADVANCED.parse_listing(body)] == [
            ("BTC_USD", True),
            ("BTC_USDC", False),
            ("OFF_USD", False),
        ]

    def test_written(self) -> None:
        """A list made for a replay is read like the exchange's."""
        assert ADVANCED.parse_listing(ADVANCED.write_listing(["BTC_USD"]) or b"") == [
            Listing("BTC_USD", "BTC-USD", "BTC", "USD")
        ]

    def test_refusal(self) -> None:
        """The exchange's own words are in the error."""
        with pytest.raises(MessageError, match="too many"):
            ADVANCED.parse_listing(b'{"error":"PERMISSION","message":"too many"}')


class TestPlan:
    def test_frames(self) -> None:
        """Each channel is asked for in a frame of its own; one frame keeps the connection alive."""
        asked = [Subscription(stream, "BTC_USD") for stream in ("prices", "orderbook", "klines")]
        [plan] = ADVANCED.plan([*asked, Subscription("prices", "ETH_USD")])
        assert [json.loads(text) for text in plan.frames] == [
            {"type": "subscribe", "channel": "heartbeats"},
            {"type": "subscribe", "channel": "market_trades", "product_ids": ["BTC-USD", "ETH-USD"]},
            {"type": "subscribe", "channel": "level2", "product_ids": ["BTC-USD"]},
            {"type": "subscribe", "channel": "candles", "product_ids": ["BTC-USD"]},
        ]

    def test_renewal(self) -> None:
        """A book is pushed whole again when it is subscribed to again."""
        frames = ADVANCED.renewal_frames(Subscription("orderbook", "BTC_USD"))
        assert [json.loads(text)["type"] for text in frames] == ["unsubscribe", "subscribe"]

    def test_unknown_names(self) -> None:
        """A wrong symbol or data type is named, with the nearest one."""
        with pytest.raises(UnknownName, match="BTC_USD"):
            ADVANCED.plan([Subscription("prices", "BTC_USDT")])
        with pytest.raises(UnknownName, match="prices"):
            ADVANCED.plan([Subscription("price", "BTC_USD")])


class TestRest:
    def test_examples(self, recordings: Path) -> None:
        """Answers of 2026 are read: a trade that sold, by its maker, at the best ask was bought."""
        folder = recordings / "single-frames" / "coinbase"
        found = ADVANCED.parse_trades("BTC_USD", (folder / "http_ticker.json").read_bytes(), RECEIVED)
        assert [(trade.trade_id, trade.side, trade.source) for trade in found] == [
            (995098661, "sell", "rest"),
            (995098662, "buy", "rest"),
            (995098663, "buy", "rest"),
        ]
        snapshot = ADVANCED.parse_snapshot("BTC_USD", (folder / "http_product_book.json").read_bytes(), RECEIVED)
        assert (snapshot.bids[0], snapshot.asks[0]) == (("68923.66", "0.17189468"), ("68923.67", "0.16987193"))
        assert snapshot.timestamp_us == 1775521739662782

    def test_requests(self) -> None:
        """REST is asked without a key."""
        assert ADVANCED.trades_request("BTC_USD", 5, 10) == Request(
            "/api/v3/brokerage/market/products/BTC-USD/ticker", {"limit": "1000"}
        )
        assert ADVANCED.snapshot_request("BTC_USD").params == {"product_id": "BTC-USD"}
        with pytest.raises(MessageError):
            ADVANCED.parse_snapshot("BTC_USD", b"{}", RECEIVED)


class TestChannels:
    def test_channels(self) -> None:
        """A recorded frame and a client's frame name a channel alike."""
        for payload, channel in (
            (trades("update", TRADE), "market_trades:BTC-USD"),
            (book("update", LEVELS), "level2:BTC-USD"),
            (frame("candles", {"type": "update", "candles": [CANDLE]}), "candles:BTC-USD"),
            (frame("heartbeats", {"heartbeat_counter": 1}), None),
            (frame("subscriptions", {"subscriptions": {}}), None),
            (frame("market_trades", {"type": "update", "trades": [5]}), None),
            (b"broken", None),
        ):
            assert ADVANCED.channel_of(payload) == channel
        [plan] = ADVANCED.plan([Subscription("orderbook", "BTC_USD")])
        assert [list(ADVANCED.channels_asked("/", text)) for text in plan.frames] == [[], ["level2:BTC-USD"]]
        answer = ADVANCED.acknowledgement(plan.frames[1])
        assert answer is not None
        assert list(ADVANCED.parse(answer, RECEIVED)) == [Acknowledged(None)]

    @pytest.mark.parametrize("text", ["", "ping", "[]", '{"type":5}', '{"type":"unknown"}'])
    def test_not_asked(self, text: str) -> None:
        """Any other frame asks for nothing and is not acknowledged."""
        assert list(ADVANCED.channels_asked("/", text)) == []
        assert ADVANCED.acknowledgement(text) is None


class TestFeed:
    def test_all(self, play: Any) -> None:
        """Trades after the subscription, the book and finished candles come through; nothing is a gap."""
        asked = [Subscription(stream, "BTC_USD") for stream in ("prices", "orderbook", "klines")]
        script = [
            trades("snapshot", {**TRADE, "trade_id": "9"}),
            book("snapshot", LEVELS),
            frame("heartbeats", {"heartbeat_counter": 1}),
            trades("update", {**TRADE, "trade_id": "11"}, {**TRADE, "trade_id": "10"}),
            book("update", [{**LEVELS[1], "new_quantity": "2", "event_time": "2026-04-07T14:30:06Z"}]),
            frame("candles", {"type": "update", "candles": [CANDLE]}),
            frame("candles", {"type": "update", "candles": [{**CANDLE, "start": "1775522100"}]}),
        ]
        collected = play(ADVANCED, asked, script)
        assert [trade.trade_id for trade in collected.trades] == [10, 11]
        assert (collected.books[-1].bids, collected.books[-1].asks) == (BIDS, [("68901.00", "2")])
        assert [candle.start_us for candle in collected.klines if candle.closed] == [1775521800000000]
        assert collected.gaps == []

    def test_hole(self, play: Any) -> None:
        """Trades that the first push repeats fill what a lost connection cost."""
        script = [
            trades("snapshot", {**TRADE, "trade_id": "1"}),
            trades("update", {**TRADE, "trade_id": "2"}),
            "disconnect",
            trades("snapshot", *({**TRADE, "trade_id": str(number)} for number in (6, 5, 4))),
            trades("update", {**TRADE, "trade_id": "7"}),
        ]
        collected = play(ADVANCED, [Subscription("prices", "BTC_USD")], script)
        assert [trade.trade_id for trade in collected.trades] == [2, 4, 5, 6, 7]
        assert [(gap.cause, gap.from_id, gap.to_id) for gap in collected.gaps] == [("disconnect", 3, 3)]


def test_single_frames(recordings: Path) -> None:
    """Examples of the documentation of 2026 are read."""
    folder = recordings / "single-frames" / "coinbase"
    read = {path.stem: list(ADVANCED.parse(path.read_bytes(), 0)) for path in folder.glob("ws_*.json")}
    assert [
        (trade.trade_id, trade.side, trade.price, trade.volume, trade.timestamp_us)
        for trade in read["ws_market_trades"]
        if isinstance(trade, Trade)
    ] == [
        (995098700, "sell", "68900.50", "0.00150000", 1775572202789012),
        (995098701, "buy", "68900.00", "0.05000000", 1775572202800000),
    ]
    assert {name: type(events[0]).__name__ for name, events in read.items() if events} == {
        "ws_candles": "Kline",
        "ws_heartbeats": "ServerNotice",
        "ws_l2_data_snapshot": "BookSnapshot",
        "ws_l2_data_update": "BookDelta",
        "ws_market_trades": "Trade",
        "ws_subscriptions": "Acknowledged",
        "ws_ticker": "Ticker",
    }


def test_volumes() -> None:
    """What was traded in 24 hours is read in quote currency, by native spelling; a refusal is said in its words."""
    assert ADVANCED.volumes_request() == ADVANCED.listing_request()
    row = {"product_id": "BTC-USD", "base_currency_id": "BTC", "quote_currency_id": "USD"}
    body = json.dumps({"products": [{**row, "approximate_quote_24h_volume": "1908432"}]}).encode()
    assert ADVANCED.parse_volumes(body) == {"BTC-USD": Decimal(1908432)}
    with pytest.raises(MessageError, match="too many"):
        ADVANCED.parse_volumes(b'{"error":"PERMISSION","message":"too many"}')
