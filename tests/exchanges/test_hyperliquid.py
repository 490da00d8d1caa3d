"""Hyperliquid: golden frames, what emits nothing, what is refused, a real recording, and a feed over loopback."""

from __future__ import annotations

import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import MessageError, UnknownName
from collector.events import Acknowledged, BookSnapshot, Funding, Kline, OpenInterest, Rejected, Ticker, Trade
from collector.exchanges.base import Listing, Request, Subscription
from collector.exchanges.hyperliquid import Hyperliquid

RECEIVED = 1_737_918_844_167_767
HL = Hyperliquid(
    [Listing("BTC_USDC", "BTC", "BTC", "USDC"), Listing("HYPE_USDC-SPOT", "@107", "HYPE", "USDC")],
)

TRADE = {
    "coin": "BTC",
    "side": "A",
    "px": "69997.0",
    "sz": "0.38111",
    "time": 1730160006192,
    "hash": "0x40d169aa50ad8a32b44a04156eee0201d8002e5c6456b7c1ae175e381f73f9dd",
    "tid": 1016375172059570,
    "users": ["0xa", "0xb"],
}
BOOK = {
    "coin": "BTC",
    "time": 1730160007687,
    "levels": [[{"px": "98450.50", "sz": "2.5", "n": 3}], [{"px": "98451.00", "sz": "1.5", "n": 2}]],
}
CANDLE = {
    "t": 1681923600000, "T": 1681923659999, "s": "BTC", "i": "1m", "o": "29295.0", "c": "29258.0", "h": "29309.0",
    "l": "29250.0", "v": "0.98639", "n": 189,
}  # fmt: skip
TRADE_EVENT = Trade("BTC_USDC", 1730160006192000, "69997.0", "0.38111", "sell", "1016375172059570", RECEIVED)
BOOK_EVENT = BookSnapshot(
    "BTC_USDC", 1730160007687000, 1730160007687, [("98450.50", "2.5")], [("98451.00", "1.5")], RECEIVED
)
KLINE_EVENT = Kline(
    "BTC_USDC", "1m", 1681923600000000, "29295.0", "29309.0", "29250.0", "29258.0", "0.98639", None, 189, None, False,
    1681923600000000, RECEIVED,
)  # fmt: skip
ASKED = {"type": "trades", "coin": "BTC"}


CONTEXT = {
    "coin": "BTC",
    "ctx": {
        "funding": "0.00004863",
        "openInterest": "18617460.0",
        "prevDayPx": "0.20296",
        "dayNtlVlm": "7665220.55613",
        "premium": "0.00008521",
        "oraclePx": "0.1995",
        "markPx": "0.19963",
        "midPx": "0.19957",
        "impactPxs": ["0.199517", "0.199725"],
    },
}


def push(channel: str, data: object) -> bytes:
    return json.dumps({"channel": channel, "data": data}, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    ("frame", "event"),
    [
        (push("trades", [TRADE]), TRADE_EVENT),
        (push("l2Book", BOOK), BOOK_EVENT),
        (push("candle", CANDLE), KLINE_EVENT),
        (push("subscriptionResponse", {"method": "subscribe", "subscription": ASKED}), Acknowledged("trades:BTC")),
        (
            push("error", 'Invalid subscription {"type":"trades","coin":"FOO"}'),
            Rejected("trades:FOO", "", 'Invalid subscription {"type":"trades","coin":"FOO"}', "trades:FOO"),
        ),
        (push("error", 'Already subscribed: {"type":"trades","coin":"BTC"}'), Acknowledged("trades:BTC")),
        (push("error", "Error parsing JSON"), Rejected(None, "", "Error parsing JSON")),
        (
            push(
                "bbo", {"coin": "BTC", "time": 1750948919838, "bbo": [{"px": "0.97925", "sz": "4144.6", "n": 1}, None]}
            ),
            Ticker("BTC_USDC", 1750948919838000, "0.97925", "4144.6", None, None, None, RECEIVED),
        ),
        (
            push("activeAssetCtx", {"coin": "BTC", "ctx": {"funding": "-0.00004863", "markPx": "0.19963"}}),
            Funding("BTC_USDC", RECEIVED, "-0.00004863", None, "0.19963", None, RECEIVED),
        ),
    ],
)
def test_event(frame: bytes, event: object) -> None:
    """A frame is its event, as bytes and as text, whatever the order of its fields."""
    assert [event] == list(HL.parse(frame, RECEIVED))
    assert [event] == list(HL.parse(frame.decode(), RECEIVED))
    assert [event] == list(HL.parse(json.dumps(dict(reversed(json.loads(frame).items())), indent=1), RECEIVED))


def test_empty_book() -> None:
    """A market that nobody trades in has an empty book."""
    [snapshot] = HL.parse(push("l2Book", {**BOOK, "levels": [[], []]}), RECEIVED)
    assert isinstance(snapshot, BookSnapshot)
    assert snapshot.bids == snapshot.asks == []


@pytest.mark.parametrize(
    "frame",
    [
        b'{"channel":"pong"}',
        push("allMids", {"mids": {"BTC": "80868.5"}}),
        push("bbo", {"coin": "FOO", "time": 1, "bbo": [None, None]}),
        push("activeAssetCtx", {"coin": "FOO", "ctx": {"funding": "1"}}),
        push("activeAssetCtx", {"coin": "BTC", "ctx": {}}),
        push("activeSpotAssetCtx", {"coin": "@107", "ctx": {"markPx": "1"}}),
        push("subscriptionResponse", {"method": "unsubscribe", "subscription": ASKED}),
        push("trades", []),
        push("trades", [{**TRADE, "coin": "FXS"}]),
        push("l2Book", {**BOOK, "coin": "FXS"}),
        push("candle", {**CANDLE, "s": "FXS"}),
    ],
)
def test_silent(frame: bytes) -> None:
    """What we don't read, and coins that nobody asked for, emit nothing."""
    assert list(HL.parse(frame, RECEIVED)) == []


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"{}",
        b"5",
        b"null",
        b"\xff",
        "\ud800",
        b"[" * 100_000,
        push("trades", TRADE),
        push("trades", [{**TRADE, "px": 5}]),
        push("trades", [{**TRADE, "px": "1e5"}]),
        push("trades", [{**TRADE, "sz": "-1"}]),
        push("trades", [{**TRADE, "side": "?"}]),
        push("trades", [{**TRADE, "tid": "5"}]),
        push("trades", [{**TRADE, "time": 2**60}]),
        push("l2Book", {**BOOK, "levels": [[]]}),
        push("l2Book", {**BOOK, "levels": [[{"px": "x", "sz": "1"}], []]}),
        push("candle", {**CANDLE, "o": "?"}),
        push("error", 5),
    ],
)
def test_malformed(frame: bytes | str) -> None:
    """What the documentation does not allow is a MessageError, whatever it is."""
    with pytest.raises(MessageError):
        HL.parse(frame, RECEIVED)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=3), children, max_size=3),
    max_leaves=8,
)


@st.composite
def mutated_frames(draw: st.DrawFn) -> bytes:
    channel, row = draw(st.sampled_from([("trades", TRADE), ("l2Book", BOOK), ("candle", CANDLE)]))
    changed = dict(row)
    for name in draw(st.lists(st.sampled_from(sorted(changed)), max_size=3)):
        changed[name] = draw(json_values)
    return push(channel, [changed] if channel == "trades" else changed)


@given(st.binary() | st.text() | mutated_frames() | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_frame(frame: bytes | str) -> None:
    """Any frame gives events or a MessageError, and every number in an event is one."""
    try:
        events = HL.parse(frame, RECEIVED)
    except MessageError:
        return
    for event in events:
        if isinstance(event, Trade):
            assert Decimal(event.price) >= 0
            assert Decimal(event.volume) >= 0
        elif isinstance(event, BookSnapshot):
            assert all(Decimal(text) >= 0 for level in event.bids + event.asks for text in level)
    assert HL.channel_of(frame) is None or isinstance(HL.channel_of(frame), str)


class TestListing:
    def test_perpetuals(self) -> None:
        """A coin's perpetual is quoted in USDC; one that was delisted does not trade."""
        body = b'{"universe":[{"name":"BTC","szDecimals":5,"maxLeverage":40},{"name":"kPEPE","isDelisted":true}]}'
        assert [
            Listing("BTC_USDC", "BTC", "BTC", "USDC", True),
            Listing("KPEPE_USDC", "kPEPE", "kPEPE", "USDC", False),
        ] == HL.parse_listing(body)

    def test_spot(self) -> None:
        """Pairs of spot, most of them numbered, have symbols of their own."""
        body = json.dumps(
            {
                "universe": [
                    {"name": "PURR/USDC", "tokens": [1, 0], "index": 0},
                    {"name": "@107", "tokens": [150, 0], "index": 107},
                    {"name": "@9", "tokens": [77, 0], "index": 9},
                ],
                "tokens": [
                    {"name": "USDC", "index": 0},
                    {"name": "PURR", "index": 1},
                    {"name": "HYPE", "index": 150},
                ],
            }
        ).encode()
        assert [
            Listing("PURR_USDC-SPOT", "PURR/USDC", "PURR", "USDC"),
            Listing("HYPE_USDC-SPOT", "@107", "HYPE", "USDC"),
        ] == HL.parse_listing(body)

    def test_pages(self) -> None:
        """Perpetuals and spot are two requests."""
        first = HL.listing_request()
        second = HL.next_listing_request(first, b"")
        assert second is not None
        assert (first.method, first.path, first.body) == ("POST", "/info", b'{"type":"meta"}')
        assert second.body == b'{"type":"spotMeta"}'
        assert HL.next_listing_request(second, b"") is None

    @pytest.mark.parametrize("names", [["BTC_USDC", "ETH_USDC"], ["PURR_USDC-SPOT", "HYPE_USDC-SPOT"]])
    def test_written(self, names: list[str]) -> None:
        """What is written for a replay reads as the same symbols."""
        assert [listing.symbol for listing in HL.parse_listing(HL.write_listing(names) or b"")] == names

    @pytest.mark.parametrize("body", [b"", b"<html>", b"[]", b'{"universe":5}', b'{"universe":[5]}', b'"Too many"'])
    def test_not_a_listing(self, body: bytes) -> None:
        """Any other answer is refused."""
        with pytest.raises(MessageError):
            HL.parse_listing(body)


class TestPlan:
    def test_frames(self) -> None:
        """Each stream is a frame of its own, and what it asks for is its id."""
        [plan] = HL.plan([Subscription(stream, "HYPE_USDC-SPOT") for stream in ("prices", "orderbook", "klines")])
        assert plan.path == "/ws"
        assert plan.request_ids == ("trades:@107", "l2Book:@107", "candle:@107:1m")
        assert [json.loads(frame)["subscription"] for frame in plan.frames] == [
            {"type": "trades", "coin": "@107"},
            {"type": "l2Book", "coin": "@107"},
            {"type": "candle", "coin": "@107", "interval": "1m"},
        ]
        assert tuple(name for frame in plan.frames for name in HL.channels_asked("/ws", frame)) == plan.request_ids
        for frame, number in zip(plan.frames, plan.request_ids, strict=True):
            assert [Acknowledged(number)] == list(HL.parse(HL.acknowledgement(frame) or "", 0))

    def test_channels(self) -> None:
        """A recorded frame tells its channel."""
        assert HL.channel_of(push("trades", [TRADE])) == "trades:BTC"
        assert HL.channel_of(push("l2Book", BOOK)) == "l2Book:BTC"
        assert HL.channel_of(push("candle", CANDLE)) == "candle:BTC:1m"
        assert HL.channel_of(push("trades", [])) is None
        assert HL.channel_of(b'{"channel":"pong"}') is None
        assert list(HL.channels_asked("/ws", HL.ping_frame())) == []
        assert HL.acknowledgement(HL.ping_frame() or "") == '{"channel":"pong"}'
        assert HL.acknowledgement("?") is None

    def test_unknown_names(self) -> None:
        """A wrong symbol or data type is named."""
        with pytest.raises(UnknownName, match="BTC_EUR"):
            HL.plan([Subscription("prices", "BTC_EUR")])
        with pytest.raises(UnknownName, match="liquidations"):
            HL.plan([Subscription("liquidations", "BTC_USDC")])

    def test_offer(self) -> None:
        """Pairs of spot have neither funding nor open interest."""
        assert HL.offers(Listing("BTC_USDC", "BTC", "BTC", "USDC")) == HL.streams
        spot = HL.offers(Listing("HYPE_USDC-SPOT", "@107", "HYPE", "USDC"))
        assert set(HL.streams) - set(spot) == {"funding", "open_interest"}

    def test_shared_channel(self) -> None:
        """Funding and open interest come on one channel, which is asked for once."""
        [plan] = HL.plan([Subscription(stream, "BTC_USDC") for stream in ("tickers", "funding", "open_interest")])
        assert plan.request_ids == ("bbo:BTC", "activeAssetCtx:BTC")
        assert HL.channel_of(push("activeAssetCtx", CONTEXT)) == "activeAssetCtx:BTC"


class TestRest:
    def test_snapshot(self, recordings: Path) -> None:
        """A book of REST is read, though the stream brings its own."""
        assert HL.snapshot_request("BTC_USDC").body == b'{"type":"l2Book","coin":"BTC"}'
        body = (recordings / "single-frames/hyperliquid/http_l2_book_btc.json").read_bytes()
        snapshot = HL.parse_snapshot("BTC_USDC", body, 0)
        assert (snapshot.timestamp_us, snapshot.asks[0]) == (1761786491067000, ("110428.0", "3.72573"))

    def test_no_trades(self) -> None:
        """Trades that were missed can't be had."""
        assert HL.trades_request("BTC_USDC", 1, 10) is None
        with pytest.raises(MessageError):
            HL.parse_trades("BTC_USDC", b"", 0)


class TestFeed:
    def test_real_recording(self, recorded: Any, recordings: Path, play: Any) -> None:
        """All but the 30 trades of the first push are recorded, and the last book is the exchange's."""
        truth = json.loads((recordings / "expected.json").read_text())["hyperliquid-BTC-20250126.rec.gz"]
        frames = [frame for _, frame in recorded.frames("hyperliquid-BTC-20250126.rec.gz")]
        asked = [Subscription(stream, "BTC_USDC") for stream in ("prices", "orderbook")]
        collected = play(HL, asked, frames)
        rows = truth["trades_with_the_history_of_the_first_push"]
        all_trades = [event for frame in frames for event in HL.parse(frame, 0) if isinstance(event, Trade)]
        assert len(all_trades) == rows["rows"] == len({trade.trade_id for trade in all_trades})
        assert sum(Decimal(trade.volume) for trade in all_trades) == Decimal(rows["sum_qty"])
        assert sum(trade.side == "buy" for trade in all_trades) == rows["buys"]
        assert [trade.trade_id for trade in collected.trades] == [trade.trade_id for trade in all_trades[30:]]
        final = truth["symbols"]["BTC/USDC"]["final_book"]
        assert [list(level) for level in collected.books[-1].bids[:1]] == final["bids"]
        assert [list(level) for level in collected.books[-1].asks[:1]] == final["asks"]
        assert collected.gaps == []

    def test_reconnect(self, play: Any) -> None:
        """Where the first push after a lost connection reaches back far enough, it fills the hole."""
        rows = [{**TRADE, "tid": n, "time": 1730160006000 + n} for n in range(6)]
        script = [
            push("trades", rows[:1]),
            push("trades", rows[1:2]),
            "disconnect",
            push("trades", rows[1:4]),
            push("trades", rows[4:]),
        ]
        collected = play(HL, [Subscription("prices", "BTC_USDC")], script)
        assert [trade.trade_id for trade in collected.trades] == ["1", "2", "3", "4", "5"]
        assert collected.gaps == []

    def test_long_outage(self, play: Any) -> None:
        """Where the history does not reach back, what lies between is a gap up to its first trade."""
        rows = [{**TRADE, "tid": n, "time": 1730160006000 + n} for n in range(9)]
        script = [
            push("trades", rows[:1]),
            push("trades", rows[1:2]),
            "disconnect",
            push("trades", rows[5:7]),
            push("trades", rows[7:]),
        ]
        collected = play(HL, [Subscription("prices", "BTC_USDC")], script)
        assert [trade.trade_id for trade in collected.trades] == ["1", "5", "6", "7", "8"]
        assert [(gap.cause, gap.from_us, gap.to_us) for gap in collected.gaps] == [
            ("disconnect", 1730160006001000, 1730160006005000)
        ]

    def test_book_after_reconnect(self, play: Any) -> None:
        """A book is whole with its first message; what went on without us is a gap of times."""
        later = {**BOOK, "time": BOOK["time"] + 60_000, "levels": [[{"px": "1.5", "sz": "2"}], []]}  # type: ignore[operator]
        script = [push("l2Book", BOOK), "disconnect", push("l2Book", later)]
        collected = play(HL, [Subscription("orderbook", "BTC_USDC")], script)
        assert [row.bids[0][0] for row in collected.books] == ["98450.50", "1.5"]
        assert [(gap.cause, gap.from_us, gap.to_us, gap.from_id) for gap in collected.gaps] == [
            ("disconnect", 1730160007687000, 1730160067687000, None)
        ]


def test_frames_with_expected(recordings: Path) -> None:
    """Frames of another library's tests are read, with the side that its mapper gives them."""
    kinds = []
    for line in (recordings / "frames-with-expected.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["exchange"] != "hyperliquid":
            continue
        data = row["message"]["data"]
        coin = (data[0] if isinstance(data, list) else data)["coin"]
        events = Hyperliquid([Listing("A_B", coin, "A", "B")]).parse(json.dumps(row["message"]), 0)
        kinds.append({type(event).__name__ for event in events})
        for event, source in zip(events, data if isinstance(data, list) else [data], strict=False):
            if isinstance(event, Trade):
                assert event.side == ("buy" if source["side"] == "B" else "sell")
    assert kinds == [{"Trade"}, {"Trade"}, {"BookSnapshot"}, {"Funding", "OpenInterest"}, {"Ticker"}]


def test_context() -> None:
    """A perpetual's figures are its funding and its open interest, as of their receipt."""
    assert list(HL.parse(push("activeAssetCtx", CONTEXT), RECEIVED)) == [
        Funding("BTC_USDC", RECEIVED, "0.00004863", None, "0.19963", "0.1995", RECEIVED),
        OpenInterest("BTC_USDC", RECEIVED, "18617460.0", None, RECEIVED),
    ]
    with pytest.raises(MessageError, match="decimal"):
        HL.parse(push("activeAssetCtx", {"coin": "BTC", "ctx": {"funding": "1e-5"}}), RECEIVED)


def test_volumes() -> None:
    """Perpetuals' figures are in the order of their names; those of spot name their pair; there may be more."""
    request = HL.volumes_request()
    assert request == Request("/info", method="POST", body=b'{"type":"metaAndAssetCtxs"}', weight=20)
    body = json.dumps([{"universe": [{"name": "BTC"}, {"name": "ETH"}]}, [{"dayNtlVlm": "5.5"}, {"dayNtlVlm": "7"}]])
    assert HL.parse_volumes(body.encode()) == {"BTC": Decimal("5.5"), "ETH": Decimal(7)}
    request = HL.next_volumes_request(request, body.encode())
    assert request is not None
    assert request.body == b'{"type":"spotMetaAndAssetCtxs"}'
    rows = [{"coin": "@7", "dayNtlVlm": "1"}, {"coin": "@107", "dayNtlVlm": "2"}]
    spot = json.dumps([{"universe": [{"name": "@107", "tokens": [1, 0]}], "tokens": []}, rows]).encode()
    assert HL.parse_volumes(spot) == {"@7": Decimal(1), "@107": Decimal(2)}
    assert HL.next_volumes_request(request, spot) is None
    with pytest.raises(MessageError, match="volumes"):
        HL.parse_volumes(b'"Failed to deserialize"')


def test_a_refused_perpetual_is_refused_in_both_streams_of_its_channel(play: Any) -> None:
    """Funding and open interest come on one channel: where it is refused both are, and the other coin's go on."""
    asked = [Subscription(stream, name) for name in ("BTC_USDC", "ETH_USDC") for stream in ("funding", "open_interest")]
    exchange = Hyperliquid([Listing("BTC_USDC", "BTC", "BTC", "USDC"), Listing("ETH_USDC", "ETH", "ETH", "USDC")])
    refusal = push("error", 'Invalid subscription {"type":"activeAssetCtx","coin":"ETH"}')
    collected = play(exchange, asked, [refusal, push("activeAssetCtx", CONTEXT)])
    assert {(gap.symbol, gap.stream, gap.cause) for gap in collected.gaps} == {
        ("ETH_USDC", "funding", "rejected"),
        ("ETH_USDC", "open_interest", "rejected"),
    }
    assert {stream: [event.symbol for event in events] for stream, events in collected.events.items()} == {
        "funding": ["BTC_USDC"],
        "open_interest": ["BTC_USDC"],
    }
