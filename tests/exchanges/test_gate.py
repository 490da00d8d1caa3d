"""Gate: golden frames, what emits nothing, what is refused, and the recording of 2021."""

from __future__ import annotations

import gzip
import json
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import MessageError, UnknownName
from collector.events import Acknowledged, BookDelta, BookSnapshot, Kline, Rejected, Ticker, Trade
from collector.exchanges.base import Listing, Request, Subscription
from collector.exchanges.gate import Gate

RECEIVED = 1_788_336_082_500_000
RECORDING = "gateio-2021.rec.gz"
GATE = Gate([Listing("BTC_USDT", "BTC_USDT", "BTC", "USDT"), Listing("GT_USDT", "GT_USDT", "GT", "USDT")])

TRADE = {
    "id": 309143071,
    "id_market": 2390902,
    "create_time": 1606292218,
    "create_time_ms": "1606292218213.4578",
    "side": "sell",
    "currency_pair": "GT_USDT",
    "amount": "16.4700000000",
    "price": "0.4705000000",
    "range": "2390902-2390902",
}
OLD_TRADE = {name: value for name, value in TRADE.items() if name not in ("id_market", "range")}
CHANGES = {
    "t": 1606294781123,
    "e": "depthUpdate",
    "E": 1606294781,
    "s": "BTC_USDT",
    "U": 48776301,
    "u": 48776306,
    "b": [["19137.74", "0.0001"], ["19088.37", "0"]],
    "a": [["19137.75", "0.6135"]],
}
FULL = {
    "t": 1754006460600,
    "full": True,
    "s": "ob.BTC_USDT.400",
    "u": 25847129996,
    "b": [["115576.7", "0.05"]],
    "a": [["115731.3", "0.68"]],
}
CANDLE = {
    "t": "1606292580",
    "v": "2362.32035",
    "c": "19128.1",
    "h": "19129.1",
    "l": "19127.1",
    "o": "19126.1",
    "n": "1m_BTC_USDT",
    "a": "3.8283",
    "w": True,
}


BEST = {
    "t": 1606293275123,
    "u": 48733182,
    "s": "BTC_USDT",
    "b": "19177.79",
    "B": "0.0003341504",
    "a": "19179.38",
    "A": "0.09",
}


def frame(channel: str, result: Any, **words: Any) -> bytes:
    message = {"time": 1606294781, "time_ms": 1606294781236, "channel": channel, "event": "update", "result": result}
    return json.dumps({**message, **words}, separators=(",", ":")).encode()


def trade(number: int | str, **words: Any) -> Trade:
    return Trade("GT_USDT", 1606292218213457, "0.4705000000", "16.4700000000", "sell", number, RECEIVED, "ws", **words)


def kline(volume: str, quote_volume: str | None) -> Kline:
    return Kline(
        "BTC_USDT", "1m", 1606292580000000, "19126.1", "19129.1", "19127.1", "19128.1", volume, quote_volume, None,
        None, False, 1606294781236000, RECEIVED,
    )  # fmt: skip


CHANGES_EVENT = BookDelta(
    "BTC_USDT",
    1606294781123000,
    48776301,
    48776306,
    None,
    [("19137.74", "0.0001"), ("19088.37", "0")],
    [("19137.75", "0.6135")],
    RECEIVED,
)


@pytest.mark.parametrize(
    ("payload", "event"),
    [
        (frame("spot.trades", TRADE), trade(2390902)),
        (
            frame("spot.trades", {**TRADE, "range": "2390900-2390902"}),
            trade(2390902, first_raw_id=2390900, last_raw_id=2390902),
        ),
        (frame("spot.trades", OLD_TRADE), trade("309143071")),
        (frame("spot.order_book_update", CHANGES), CHANGES_EVENT),
        (frame("spot.obu", {**CHANGES, "s": "ob.BTC_USDT.400"}), CHANGES_EVENT),
        (
            frame("spot.obu", FULL),
            BookSnapshot(
                "BTC_USDT",
                1754006460600000,
                25847129996,
                [("115576.7", "0.05")],
                [("115731.3", "0.68")],
                RECEIVED,
            ),
        ),
        (frame("spot.candlesticks", CANDLE), kline("3.8283", "2362.32035")),
        (
            frame("spot.candlesticks", {name: value for name, value in CANDLE.items() if name not in "aw"}),
            kline("2362.32035", None),
        ),
        (frame("spot.trades", {"status": "success"}, event="subscribe", id=7, error=None), Acknowledged(7)),
        (frame("spot.trades", {"status": "success"}, event="subscribe"), Acknowledged(None)),
        (
            frame("spot.trades", None, event="subscribe", id=7, error={"code": 2, "message": "unknown currency pair"}),
            Rejected(7, "2", "unknown currency pair"),
        ),
        (
            frame("spot.book_ticker", BEST),
            Ticker("BTC_USDT", 1606293275123000, "19177.79", "0.0003341504", "19179.38", "0.09", 48733182, RECEIVED),
        ),
        (
            frame("spot.book_ticker", {**BEST, "b": "", "B": ""}),
            Ticker("BTC_USDT", 1606293275123000, None, None, "19179.38", "0.09", 48733182, RECEIVED),
        ),
    ],
)
def test_frame(payload: bytes, event: object) -> None:
    """A frame is its event, whatever the order of its fields."""
    assert [event] == list(GATE.parse(payload, RECEIVED))
    assert [event] == list(GATE.parse(json.dumps(json.loads(payload), indent=1), RECEIVED))
    assert [event] == list(GATE.parse(json.dumps(dict(reversed(json.loads(payload).items()))), RECEIVED))


@pytest.mark.parametrize(
    "payload",
    [
        frame("spot.tickers", {"currency_pair": "BTC_USDT", "last": "1"}),
        frame("spot.book_ticker", {**BEST, "s": "FOO_USDT"}),
        frame("spot.pong", None, event=""),
        frame("spot.trades", {"status": "success"}, event="unknown"),
        frame("spot.trades", {**TRADE, "currency_pair": "FOO_BAR", "price": "nonsense"}),
        frame("spot.order_book_update", {**CHANGES, "s": "FOO_BAR"}),
        frame("spot.candlesticks", {**CANDLE, "n": "1m_FOO_BAR"}),
    ],
)
def test_silent(payload: bytes) -> None:
    """What we don't read, and markets that nobody asked for, emit nothing."""
    assert list(GATE.parse(payload, RECEIVED)) == []


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"not json",
        b"5",
        b"[]",
        b"\xff",
        "\ud800",
        b'{"channel":5,"event":"update"}',
        b'{"event":"subscribe"}',
        b"[" * 100_000,
        frame("spot.trades", {"status": "success"}),
        frame("spot.trades", {**TRADE, "side": "Sell"}),
        frame("spot.trades", {**TRADE, "price": "1e5"}),
        frame("spot.trades", {**TRADE, "price": 5}),
        frame("spot.trades", {**TRADE, "create_time_ms": "x"}),
        frame("spot.trades", {**TRADE, "range": "5-x"}),
        frame("spot.trades", {**TRADE, "id_market": -1}),
        frame("spot.order_book_update", {**CHANGES, "U": 48776307}),
        frame("spot.order_book_update", {name: value for name, value in CHANGES.items() if name != "U"}),
        frame("spot.order_book_update", {**CHANGES, "b": [["x", "1"]]}),
        frame("spot.order_book_update", {**CHANGES, "b": [["1"]]}),
        frame("spot.candlesticks", {**CANDLE, "o": "?"}),
        frame("spot.candlesticks", {**CANDLE, "t": "soon"}),
    ],
)
def test_malformed(payload: bytes | str) -> None:
    """What the documentation does not allow is a MessageError, whatever it is."""
    with pytest.raises(MessageError):
        GATE.parse(payload, RECEIVED)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=3), children, max_size=3),
    max_leaves=8,
)


@st.composite
def mutated_frames(draw: st.DrawFn) -> bytes:
    channel, result = draw(
        st.sampled_from(
            [
                ("spot.trades", TRADE),
                ("spot.order_book_update", CHANGES),
                ("spot.obu", FULL),
                ("spot.candlesticks", CANDLE),
            ]
        )
    )
    changed: dict[str, Any] = dict(result)
    for name in draw(st.lists(st.sampled_from(sorted(changed)), max_size=3)):
        changed[name] = draw(json_values)
    return frame(channel, changed)


@given(st.binary() | st.text() | mutated_frames() | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_frame(payload: bytes | str) -> None:
    """Any frame gives events or a MessageError."""
    try:
        events = GATE.parse(payload, RECEIVED)
    except MessageError:
        return
    for event in events:
        if isinstance(event, Trade):
            assert Decimal(event.price) >= 0
            assert Decimal(event.volume) >= 0
        elif isinstance(event, BookDelta | BookSnapshot):
            assert all(Decimal(text) >= 0 for level in event.bids + event.asks for text in level)
    assert GATE.channel_of(payload) is None or isinstance(GATE.channel_of(payload), str)


class TestListing:
    def test_names(self) -> None:
        """Symbols are BASE_QUOTE, active where they are tradable."""
        rows = [
            {"id": "OLD_USDT", "base": "OLD", "quote": "USDT", "trade_status": "untradable"},
            {"id": "BTC_USDT", "base": "BTC", "quote": "USDT", "trade_status": "tradable"},
        ]
        assert GATE.parse_listing(json.dumps(rows).encode()) == [
            Listing("BTC_USDT", "BTC_USDT", "BTC", "USDT", True),
            Listing("OLD_USDT", "OLD_USDT", "OLD", "USDT", False),
        ]
        assert GATE.parse_listing(GATE.write_listing(["BTC_USDT"]) or b"") == [
            Listing("BTC_USDT", "BTC_USDT", "BTC", "USDT")
        ]

    def test_refusal(self) -> None:
        """The exchange's own words are in the error."""
        with pytest.raises(MessageError, match=r"too fast.*TOO_FAST"):
            GATE.parse_listing(b'{"label":"TOO_FAST","message":"too fast"}')

    def test_real_answer(self, recorded: Any) -> None:
        """The exchange's own answer is read whole, each symbol distinct."""
        listings = GATE.parse_listing(recorded.answer(RECORDING, "/currency_pairs"))
        assert len(listings) == len({listing.symbol for listing in listings}) == 1458


class TestPlan:
    def test_frames(self) -> None:
        """Trades of many markets are asked for at once, the rest one by one; each frame has an id."""
        asked = [Subscription(stream, "BTC_USDT") for stream in ("prices", "orderbook", "klines")]
        [plan] = GATE.plan([*asked, Subscription("prices", "GT_USDT")])
        assert plan.path == "/ws/v4/"
        assert plan.request_ids == (1, 2, 3)
        assert [(row["id"], row["channel"], row["payload"]) for row in map(json.loads, plan.frames)] == [
            (1, "spot.trades", ["BTC_USDT", "GT_USDT"]),
            (2, "spot.order_book_update", ["BTC_USDT", "100ms"]),
            (3, "spot.candlesticks", ["1m", "BTC_USDT"]),
        ]

    def test_stamp(self) -> None:
        """A frame carries the time at which it is sent."""
        [plan] = GATE.plan([Subscription("prices", "BTC_USDT")])
        assert json.loads(GATE.stamp(plan.frames[0], RECEIVED))["time"] == 1788336082

    def test_unknown_names(self) -> None:
        """A wrong symbol or data type is named, with the nearest one."""
        with pytest.raises(UnknownName, match="BTC_USDT"):
            GATE.plan([Subscription("prices", "BTC_USD")])
        with pytest.raises(UnknownName, match="prices"):
            GATE.plan([Subscription("price", "BTC_USDT")])


class TestRest:
    def test_snapshot(self) -> None:
        """The book is asked for with its number."""
        assert GATE.snapshot_request("BTC_USDT") == Request(
            "/api/v4/spot/order_book", {"currency_pair": "BTC_USDT", "limit": "100", "with_id": "true"}
        )
        body = b'{"id":5,"current":1623898993123,"update":1623898993121,"asks":[["1.2","3"]],"bids":[["1.1","1"]]}'
        assert GATE.parse_snapshot("BTC_USDT", body, RECEIVED) == BookSnapshot(
            "BTC_USDT", 1623898993121000, 5, [("1.1", "1")], [("1.2", "3")], RECEIVED
        )
        with pytest.raises(MessageError, match="no pair"):
            GATE.parse_snapshot("BTC_USDT", b'{"label":"X","message":"no pair"}', RECEIVED)

    def test_trades(self) -> None:
        """The newest trades come newest first, with their number within the market."""
        assert GATE.trades_request("BTC_USDT", 5, 10) == Request(
            "/api/v4/spot/trades", {"currency_pair": "BTC_USDT", "limit": "1000"}
        )
        row = {
            "id": "1232893232",
            "create_time_ms": "1548000000123.456",
            "side": "buy",
            "amount": "0.15",
            "price": "0.03",
        }
        body = json.dumps([{**row, "sequence_id": "588018"}, row]).encode()
        old, new = GATE.parse_trades("BTC_USDT", body, RECEIVED)
        assert (old.trade_id, new.trade_id, new.timestamp_us) == ("1232893232", 588018, 1548000000123456)
        assert new.source == "rest"


class TestChannels:
    def test_channels(self) -> None:
        """A recorded frame and a client's frame name a channel alike."""
        plans = GATE.plan([Subscription(stream, "BTC_USDT") for stream in ("prices", "orderbook", "klines")])
        asked = [name for text in plans[0].frames for name in GATE.channels_asked("/", text)]
        payloads = [
            frame("spot.trades", {**TRADE, "currency_pair": "BTC_USDT"}),
            frame("spot.order_book_update", CHANGES),
            frame("spot.candlesticks", CANDLE),
        ]
        assert asked == [GATE.channel_of(payload) for payload in payloads]
        assert GATE.channel_of(frame("spot.obu", FULL)) == "spot.obu:BTC_USDT"
        assert list(
            GATE.channels_asked("/", '{"channel":"spot.obu","event":"subscribe","payload":["ob.BTC_USDT.400"]}')
        ) == ["spot.obu:BTC_USDT"]
        assert GATE.channel_of(frame("spot.trades", {"status": "success"}, event="subscribe")) is None
        assert GATE.channel_of(b"broken") is None

    def test_acknowledgement(self) -> None:
        """A client's frame is accepted in the exchange's words."""
        [plan] = GATE.plan([Subscription("prices", "BTC_USDT")])
        answer = GATE.acknowledgement(plan.frames[0])
        assert answer is not None
        assert list(GATE.parse(answer, RECEIVED)) == [Acknowledged(1)]

    @pytest.mark.parametrize("text", ["", "ping", "[]", '{"channel":5}', '{"channel":"spot.ping"}'])
    def test_not_asked(self, text: str) -> None:
        """Any other frame asks for nothing and is not acknowledged."""
        assert list(GATE.channels_asked("/", text)) == []
        assert GATE.acknowledgement(text) is None


def recorded_books(path: Path) -> dict[str, bytes]:
    """Return the answers to requests for books, by market."""
    books: dict[str, bytes] = {}
    with gzip.open(path, "rt") as lines:
        for line in lines:
            _, _, kind, payload = line.rstrip("\n").split(" ", 3)
            if kind == "GET" and "order_book" in payload.split(" ", 2)[1]:
                _, url, body = payload.split(" ", 2)
                books[parse_qs(urlsplit(url).query)["currency_pair"][0]] = body.encode()
    return books


class TestFeed:
    def test_real_recording(self, recorded: Any, recordings: Path, play: Any) -> None:
        """All trades and candles come through; books begin with their snapshots and lose nothing."""
        books = recorded_books(recordings / RECORDING)
        exchange = Gate(GATE.parse_listing(GATE.write_listing(sorted(books)) or b""))
        asked = [Subscription(stream, symbol) for symbol in books for stream in ("prices", "orderbook", "klines")]
        frames = [frame for _, frame in recorded.frames(RECORDING) if b'"update"' in frame]

        def answer(path: str) -> bytes | None:
            return books.get(parse_qs(urlsplit(path).query).get("currency_pair", [""])[0])

        collected = play(exchange, asked, frames, answer=answer)
        truth = json.loads((recordings / "expected.json").read_text())[RECORDING]
        counted = truth["callbacks_counted_by_another_collector"]
        assert len(collected.trades) == counted["trades"]
        assert sum(not candle.closed for candle in collected.klines) == counted["candles"]
        assert collected.gaps == []
        parsed = [event for frame in frames for event in exchange.parse(frame, 0)]
        applied = 0
        for symbol, body in books.items():
            snapshot = exchange.parse_snapshot(symbol, body, 0)
            deltas = [
                event
                for event in parsed
                if isinstance(event, BookDelta) and event.symbol == symbol and event.last_id > snapshot.last_id
            ]
            applied += len(deltas)
            sides: tuple[dict[str, str], dict[str, str]] = (dict(snapshot.bids), dict(snapshot.asks))
            for delta in deltas:
                for side, levels in zip(sides, (delta.bids, delta.asks), strict=True):
                    side.update(levels)
            wanted = [
                sorted(
                    ((price, size) for price, size in side.items() if Decimal(size)),
                    key=lambda level, sign=sign: sign * Decimal(level[0]),  # type: ignore[misc]
                )[:3]
                for side, sign in zip(sides, (-1, 1), strict=True)
            ]
            rows = [row for row in collected.books if row.symbol == symbol]
            assert bool(rows) == bool(deltas)
            if rows:
                assert [list(rows[-1].bids), list(rows[-1].asks)] == wanted
        assert applied + len(books) == counted["l2_book"]

    def test_hole(self, play: Any) -> None:
        """A number of the market that did not come is a gap; one message can stand for several."""
        frames = [
            frame("spot.trades", {**TRADE, "id_market": last, "range": f"{first}-{last}"})
            for first, last in ((1, 1), (2, 4), (6, 6))
        ]
        collected = play(GATE, [Subscription("prices", "GT_USDT")], frames)
        assert [row.trade_id for row in collected.trades] == [1, 4, 6]
        assert [(gap.cause, gap.from_id, gap.to_id) for gap in collected.gaps] == [("sequence", 5, 5)]
        assert all(json.loads(text)["time"] > 0 for text in collected.asked)

    def test_repeated(self, play: Any) -> None:
        """A trade without a number is collected once, and says nothing of holes."""
        frames = [frame("spot.trades", {**OLD_TRADE, "id": number}) for number in (5, 5, 900)]
        collected = play(GATE, [Subscription("prices", "GT_USDT")], frames)
        assert [row.trade_id for row in collected.trades] == ["5", "900"]
        assert collected.gaps == []


def test_frames_with_expected(recordings: Path) -> None:
    """Frames of the API v4 mean what another library reads in them; those of older ones emit nothing."""
    compared = 0
    for line in (recordings / "frames-with-expected.jsonl").read_text().splitlines():
        row = json.loads(line)
        message = row["message"]
        if row["exchange"] != "gate-io" or message.get("event") != "update":
            continue
        result = message["result"]
        native = result.get("currency_pair") or result["s"].split(".")[1]
        [event] = Gate([Listing("A_B", native, "A", "B")]).parse(json.dumps(message), 0)
        [truth] = row["expected"]
        compared += 1
        if isinstance(event, Trade):
            assert (float(event.price), float(event.volume)) == (truth["price"], truth["amount"])
            assert (event.side, str(event.trade_id)) == (truth["side"], truth["id"])
            assert event.timestamp_us == 1682689046123000
        else:
            assert isinstance(event, BookDelta)
            for levels, expected in ((event.bids, truth["bids"]), (event.asks, truth["asks"])):
                assert [[float(text) for text in level] for level in levels] == [
                    [level["price"], level["amount"]] for level in expected
                ]
            assert event.timestamp_us == 1754006460600000
    assert compared == 2


def test_volumes() -> None:
    """What was traded in 24 hours is read in quote currency, by native spelling; a refusal is said in its words."""
    assert GATE.volumes_request() == Request("/api/v4/spot/tickers")
    body = json.dumps([{"currency_pair": "BTC_USDT", "quote_volume": "51"}, {"currency_pair": "A_B"}]).encode()
    assert GATE.parse_volumes(body) == {"BTC_USDT": Decimal(51), "A_B": 0}
    with pytest.raises(MessageError, match="TOO_MANY"):
        GATE.parse_volumes(b'{"label":"TOO_MANY_REQUESTS","message":"slow down"}')
