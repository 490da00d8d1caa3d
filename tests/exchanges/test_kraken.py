"""Kraken v2: golden frames, what emits nothing, what is refused, real checksums, and a feed over loopback."""

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
from collector.exchanges.kraken import STREAMS, Kraken, checksum

RECEIVED = 1_746_523_046_300_000
KRAKEN = Kraken(
    [
        Listing("BTC_USD", "BTC/USD", "BTC", "USD"),
        Listing("ETH_USD", "ETH/USD", "ETH", "USD"),
        Listing("AAPLX_USD", "AAPLx/USD", "AAPLx", "USD"),
    ]
)

# Written as text: the digits are what matters.
TRADE = (
    '{"symbol":"BTC/USD","side":"buy","price":105944.20,"qty":0.00027625,"ord_type":"limit","trade_id":10218208,'
    '"timestamp":"2023-10-06T17:35:55.440295Z"}'
)
BOOK = (
    '{"symbol":"ETH/USD","bids":[{"price":1797.10,"qty":0.80386470}],"asks":[{"price":1798,"qty":0.00000000}],'
    '"checksum":5,"timestamp":"2025-05-06T09:17:26.208075Z"}'
)
CANDLE = (
    '{"symbol":"BTC/USD","open":63301.6,"high":63301.60,"low":63297.7,"close":63297.7,"trades":27,"volume":0.04121249,'
    '"vwap":63298.2,"interval_begin":"2026-08-12T19:28:00.000000000Z","interval":1,'
    '"timestamp":"2026-08-12T19:29:00.000000Z"}'
)
TRADE_EVENT = Trade("BTC_USD", 1696613755440295, "105944.20", "0.00027625", "buy", 10218208, RECEIVED)
BIDS, ASKS = [("1797.10", "0.80386470")], [("1798", "0.00000000")]
KLINE_EVENT = Kline(
    "BTC_USD", "1m", 1786562880000000, "63301.6", "63301.60", "63297.7", "63297.7", "0.04121249", None,
    27, None, False, 1786562924084233, RECEIVED,
)  # fmt: skip


QUOTES = (
    '{"symbol":"BTC/USD","bid":63297.7,"bid_qty":5.45673101,"ask":63297.8,"ask_qty":0.36974422,"last":63297.8,'
    '"volume":1020.88391276,"vwap":63685.7,"low":63250,"high":64409.2,"change":0.7,"change_pct":0,"trades":47536,'
    '"timestamp":"2026-08-12T19:29:02.066592Z"}'
)


def push(channel: str, *rows: str, kind: str = "update", more: str = "") -> bytes:
    return f'{{"channel":"{channel}","type":"{kind}",{more}"data":[{",".join(rows)}]}}'.encode()


@pytest.mark.parametrize(
    ("frame", "event"),
    [
        (push("trade", TRADE), TRADE_EVENT),
        (push("trade", TRADE, kind="snapshot"), PastTrade(TRADE_EVENT)),
        (
            push("book", BOOK),
            BookDelta(
                "ETH_USD", 1746523046208075, 1746523046208075, 1746523046208075, None, BIDS, ASKS, RECEIVED, 5
            ),
        ),
        (
            push("book", BOOK, kind="snapshot"),
            BookSnapshot("ETH_USD", 1746523046208075, 1746523046208075, BIDS, ASKS, RECEIVED, 5, 100),
        ),
        (
            push("book", BOOK.replace(',"timestamp":"2025-05-06T09:17:26.208075Z"', ""), kind="snapshot"),
            BookSnapshot("ETH_USD", 0, 0, BIDS, ASKS, RECEIVED, 5, 100),
        ),
        (push("ohlc", CANDLE, more='"timestamp":"2026-08-12T19:28:44.084233010Z",'), KLINE_EVENT),
        (b'{"channel":"heartbeat"}', ServerNotice("heartbeat", 0)),
        (
            b'{"method":"subscribe","result":{"channel":"trade","symbol":"BTC/USD"},"success":true,"req_id":4}',
            Acknowledged(4),
        ),
        (
            b'{"error":"Not supported FOO/BAR","method":"subscribe","req_id":5,"success":false,"symbol":"FOO/BAR"}',
            Rejected(5, "", "Not supported FOO/BAR", "book:FOO/BAR"),
        ),
        (
            b'{"error":"Not supported FOO/BAR","method":"subscribe","req_id":7,"success":false,"symbol":"FOO/BAR"}',
            Rejected(7, "", "Not supported FOO/BAR", "ticker:FOO/BAR"),
        ),
        (
            push("ticker", QUOTES),
            Ticker(
                "BTC_USD", 1786562942066592, "63297.7", "5.45673101", "63297.8", "0.36974422", None, RECEIVED
            ),
        ),
        (
            push("ticker", '{"symbol":"BTC/USD","bid":0,"bid_qty":0,"ask":63297.80,"ask_qty":1}', kind="snapshot"),
            Ticker("BTC_USD", RECEIVED, None, None, "63297.80", "1", None, RECEIVED, timed=False),
        ),
        (b'{"error":"Unsupported","method":"x","success":false}', Rejected(None, "", "Unsupported")),
    ],
)  # fmt: skip
def test_event(frame: bytes, event: object) -> None:
    """A frame is its event with the wire's own digits, as bytes and as text, whatever the order of its fields."""
    assert [event] == list(KRAKEN.parse(frame, RECEIVED))
    assert [event] == list(KRAKEN.parse(frame.decode(), RECEIVED))
    assert [event] == list(KRAKEN.parse(frame.decode().replace(",", " , "), RECEIVED))


def test_any_number() -> None:
    """An integer, an exponent and a text are numbers as well; digits are kept."""
    for wire, text in (("5", "5"), ("1e-8", "0.00000001"), ("1.50E2", "150"), ('"1.10"', "1.10")):
        [trade] = KRAKEN.parse(push("trade", TRADE.replace("0.00027625", wire)), RECEIVED)
        assert isinstance(trade, Trade)
        assert trade.volume == text
        [delta] = KRAKEN.parse(push("book", BOOK.replace("0.80386470", wire)), RECEIVED)
        assert isinstance(delta, BookDelta)
        assert delta.bids == [("1797.10", text)]


@pytest.mark.parametrize(
    "frame",
    [
        b"{}",
        b'{"channel":"status","type":"update","data":[{"system":"online","version":"2.0.10"}]}',
        b'{"method":"pong","req_id":42,"time_in":"2023-09-25T09:05:00.123456Z"}',
        b'{"method":"unsubscribe","result":{"channel":"trade","symbol":"BTC/USD"},"success":true}',
        push("ticker", QUOTES.replace("BTC/USD", "DOGE/USD")),
        push("level3", '{"symbol":"BTC/USD","checksum":0,"bids":[],"asks":[]}'),
        push("ohlc", CANDLE, kind="snapshot"),
        push("trade", TRADE.replace("BTC/USD", "DOGE/USD")),
        push("book", BOOK.replace("ETH/USD", "DOGE/USD")),
        push("ohlc", CANDLE.replace("BTC/USD", "DOGE/USD")),
        push("trade"),
    ],
)
def test_silent(frame: bytes) -> None:
    """What we don't read, history of candles, and pairs that nobody asked for, emit nothing."""
    assert list(KRAKEN.parse(frame, RECEIVED)) == []


@pytest.mark.parametrize(
    "frame",
    [
        b"",
        b"5",
        b"null",
        b"[]",
        b"\xff",
        "\ud800",
        b"[" * 100_000,
        b'{"channel":5}',
        b'{"method":5}',
        push("trade", TRADE, kind="?"),
        push("trade", TRADE.replace("105944.20", "-1.5")),
        push("trade", TRADE.replace("105944.20", "1e999")),
        push("trade", TRADE.replace("105944.20", "[]")),
        push("trade", TRADE.replace("105944.20", "true")),
        push("trade", TRADE.replace("105944.20", "null")),
        push("trade", TRADE.replace('"buy"', '"?"')),
        push("trade", TRADE.replace("10218208", "-1")),
        push("trade", TRADE.replace("440295Z", "440295")),
        push("book", BOOK.replace("0.80386470", "-0.5")),
        push("book", BOOK.replace("0.80386470", "{}")),
        push("book", BOOK.replace(',"timestamp":"2025-05-06T09:17:26.208075Z"', "")),
        push("book", BOOK.replace('"checksum":5,', "")),
        push("ohlc", CANDLE.replace("63301.60", '"?"')),
    ],
)
def test_malformed(frame: bytes | str) -> None:
    """What the documentation does not allow is a MessageError, whatever it is."""
    with pytest.raises(MessageError):
        KRAKEN.parse(frame, RECEIVED)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=3), children, max_size=3),
    max_leaves=8,
)


@st.composite
def mutated_frames(draw: st.DrawFn) -> bytes:
    channel, text = draw(st.sampled_from([("trade", TRADE), ("book", BOOK), ("ohlc", CANDLE)]))
    row = json.loads(text)
    for name in draw(st.lists(st.sampled_from(sorted(row)), max_size=3)):
        row[name] = draw(json_values)
    return push(channel, json.dumps(row), kind=draw(st.sampled_from(["snapshot", "update"])))


@given(st.binary() | st.text() | mutated_frames() | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_frame(frame: bytes | str) -> None:
    """Any frame gives events or a MessageError, and every number in an event is one."""
    try:
        events = KRAKEN.parse(frame, RECEIVED)
    except MessageError:
        return
    for event in events:
        if isinstance(event, Trade):
            assert Decimal(event.price) >= 0
            assert Decimal(event.volume) >= 0
        elif isinstance(event, BookDelta | BookSnapshot):
            assert all(Decimal(text) >= 0 for level in event.bids + event.asks for text in level)
    assert KRAKEN.channel_of(frame) is None or isinstance(KRAKEN.channel_of(frame), str)


class TestChecksum:
    def test_documented(self) -> None:
        """Asks come first, then bids; the point and leading zeros are left out."""
        import zlib

        assert checksum([("0.05", "0.00000500")], [("45285.2", "0.00100000")]) == zlib.crc32(b"4528521000005500")

    def test_real(self, recorded: Any, recordings: Path) -> None:
        """Both checksums of the recording are those of the text as sent."""
        truth = json.loads((recordings / "expected.json").read_text())["kraken-v2-ETHUSD-book10-20250506.rec.gz"]
        frames = [frame for _, frame in recorded.frames("kraken-v2-ETHUSD-book10-20250506.rec.gz")]
        [snapshot] = KRAKEN.parse(frames[1], 0)
        [update] = KRAKEN.parse(frames[2], 0)
        assert isinstance(snapshot, BookSnapshot)
        assert isinstance(update, BookDelta)
        assert [snapshot.checksum, update.checksum] == truth["checksums"]
        assert checksum(snapshot.bids[:10], snapshot.asks[:10]) == snapshot.checksum
        assert snapshot.depth == 10


class TestListing:
    def test_names(self) -> None:
        """XBT is BTC and XDG is DOGE, symbols are capitals; a pair without a name of the websocket is none."""
        pairs = {
            "XXBTZUSD": {"altname": "XBTUSD", "wsname": "XBT/USD", "status": "online"},
            "XDGEUR": {"altname": "XDGEUR", "wsname": "XDG/EUR", "status": "cancel_only"},
            "AAPLxUSD": {"altname": "AAPLxUSD", "wsname": "AAPLx/USD", "status": "online"},
            "XBTUSD.d": {"altname": "XBTUSD.d"},
        }
        assert [
            Listing("BTC_USD", "BTC/USD", "BTC", "USD", True),
            Listing("AAPLX_USD", "AAPLx/USD", "AAPLx", "USD", True),
            Listing("DOGE_EUR", "DOGE/EUR", "DOGE", "EUR", False),
        ] == KRAKEN.parse_listing(json.dumps({"error": [], "result": pairs}).encode())

    def test_written(self) -> None:
        """What is written for a replay reads as the same symbols."""
        names = ["BTC_USD", "DOGE_EUR"]
        assert [listing.symbol for listing in KRAKEN.parse_listing(KRAKEN.write_listing(names) or b"")] == names

    def test_refusal(self) -> None:
        """The exchange's own words are in the error, and any other answer is refused."""
        with pytest.raises(MessageError, match="EGeneral:Too many requests"):
            KRAKEN.parse_listing(b'{"error":["EGeneral:Too many requests"]}')
        for body in (b"", b"<html>", b"[]", b'{"error":[],"result":5}'):
            with pytest.raises(MessageError):
                KRAKEN.parse_listing(body)


class TestPlan:
    def test_frames(self) -> None:
        """Each channel is asked for by a frame with an id of its own, books with their depth."""
        [plan] = KRAKEN.plan([Subscription(stream, "BTC_USD") for stream in STREAMS])
        assert plan.path == "/v2"
        assert plan.request_ids == (4, 5, 6, 7)
        assert [json.loads(frame)["params"] for frame in plan.frames] == [
            {"channel": "trade", "symbol": ["BTC/USD"], "snapshot": True},
            {"channel": "book", "symbol": ["BTC/USD"], "depth": 100, "snapshot": True},
            {"channel": "ohlc", "symbol": ["BTC/USD"], "interval": 1, "snapshot": False},
            {"channel": "ticker", "symbol": ["BTC/USD"], "event_trigger": "bbo", "snapshot": True},
        ]
        assert [list(KRAKEN.channels_asked("/v2", frame)) for frame in plan.frames] == [
            ["trade:BTC/USD"],
            ["book:BTC/USD"],
            ["ohlc_1:BTC/USD"],
            ["ticker:BTC/USD"],
        ]
        assert KRAKEN.channel_of(push("ohlc", CANDLE)) == "ohlc_1:BTC/USD"
        assert KRAKEN.channel_of(push("book", BOOK)) == "book:ETH/USD"
        assert KRAKEN.channel_of(b'{"channel":"heartbeat"}') is None
        assert list(KRAKEN.channels_asked("/v2", "?")) == []

    def test_unknown_names(self) -> None:
        """A wrong symbol or data type is named."""
        with pytest.raises(UnknownName, match="BTC_EUR"):
            KRAKEN.plan([Subscription("prices", "BTC_EUR")])
        with pytest.raises(UnknownName, match="funding"):
            KRAKEN.plan([Subscription("funding", "BTC_USD")])

    def test_answers(self) -> None:
        """Pings and requests are answered as the exchange would."""
        assert list(KRAKEN.parse(KRAKEN.acknowledgement(KRAKEN.ping_frame() or "") or "", 0)) == []
        [plan] = KRAKEN.plan([Subscription("prices", "BTC_USD")])
        assert [Acknowledged(4)] == list(KRAKEN.parse(KRAKEN.acknowledgement(plan.frames[0]) or "", 0))
        assert KRAKEN.acknowledgement("?") is None


class TestRest:
    def test_trades(self) -> None:
        """Trades are asked for by the time of the one before, and have the websocket's ids."""
        request = Request("/0/public/Trades", {"pair": "XBTUSD", "since": "1688669597827735000", "count": "1000"})
        assert request == KRAKEN.trades_request("BTC_USD", 5, 9999, from_us=1688669597827736)
        assert KRAKEN.trades_request("BTC_USD", 5, 9999) is None
        body = (
            b'{"error":[],"result":{"XXBTZUSD":[["30243.40000","0.34507674",1688669597.8277369,"b","m","",61044952],'
            b'["30243.30000","0.00376960",1688669598,"s","l","",61044953]],"last":"1688671969993150842"}}'
        )
        assert [
            Trade("BTC_USD", 1688669597827736, "30243.40000", "0.34507674", "buy", 61044952, RECEIVED, "rest"),
            Trade("BTC_USD", 1688669598000000, "30243.30000", "0.00376960", "sell", 61044953, RECEIVED, "rest"),
        ] == KRAKEN.parse_trades("BTC_USD", body, RECEIVED)
        with pytest.raises(MessageError, match="Unknown asset pair"):
            KRAKEN.parse_trades("BTC_USD", b'{"error":["EQuery:Unknown asset pair"]}', 0)

    def test_snapshot(self, recordings: Path) -> None:
        """A book of REST is read, though the stream brings its own."""
        assert KRAKEN.snapshot_request("BTC_USD").params == {"pair": "XBTUSD", "count": "500"}
        body = (recordings / "single-frames/kraken/http_order_book.json").read_bytes()
        assert KRAKEN.parse_snapshot("BTC_USD", body, 0).bids[0] == ("105944.20000", "0.002")


def book_push(bids: dict[str, str], asks: dict[str, str], second: int, *, kind: str = "update", crc: int = 0) -> bytes:
    sides = [",".join(f'{{"price":{price},"qty":{size}}}' for price, size in side.items()) for side in (bids, asks)]
    return push(
        "book",
        f'{{"symbol":"ETH/USD","bids":[{sides[0]}],"asks":[{sides[1]}],"checksum":{crc},'
        f'"timestamp":"2025-05-06T09:17:{second:02}.000000Z"}}',
        kind=kind,
    )


class TestFeed:
    def test_real_recording(self, recorded: Any, play: Any) -> None:
        """The recorded book is checked and collected; its snapshot has no time, so the change gives the row's."""
        frames = [frame for _, frame in recorded.frames("kraken-v2-ETHUSD-book10-20250506.rec.gz")]
        collected = play(KRAKEN, [Subscription("orderbook", "ETH_USD")], frames[1:])
        [row] = collected.books
        assert collected.gaps == []
        assert row.timestamp_us == 1746523046208075
        assert row.asks == [("1797.25", "1.40355852"), ("1797.28", "10.82400000"), ("1797.30", "139.09783403")]

    def test_wrong_checksum(self, play: Any) -> None:
        """A book of another checksum is asked for again; its hole is a gap without ids."""
        whole = {"10.0": "1.0"}, {"11.0": "1.0"}
        crc = checksum([("10.0", "1.0")], [("11.0", "1.0")])
        changed = checksum([("10.0", "2.0")], [("11.0", "1.0")])
        script = [
            book_push(*whole, 1, kind="snapshot", crc=crc),
            book_push({"10.0": "2.0"}, {}, 2, crc=changed),
            book_push({"10.0": "3.0"}, {}, 3, crc=1),
            "asked again",
            book_push(*whole, 5, kind="snapshot", crc=crc),
            book_push({"10.0": "2.0"}, {}, 6, crc=changed),
        ]
        collected = play(KRAKEN, [Subscription("orderbook", "ETH_USD")], script)
        [gap] = collected.gaps
        assert (gap.cause, gap.from_id, gap.to_id) == ("checksum", None, None)
        assert (gap.from_us, gap.to_us) == (1746523022000000, 1746523025000000)
        assert [json.loads(frame)["method"] for frame in collected.asked] == ["subscribe", "unsubscribe", "subscribe"]
        assert [row.bids[0][1] for row in collected.books] == ["1.0", "2.0", "1.0", "2.0"]

    def test_truncated(self, play: Any) -> None:
        """Levels that fall behind the depth are forgotten: the exchange does not say when they change."""
        bids = {f"{100 - n}.0": "1.0" for n in range(10)}
        levels = list(bids.items())
        whole, better = checksum(levels, []), checksum([("101.0", "1.0"), *levels[:9]], [])
        script = [
            book_push(bids, {}, 1, kind="snapshot", crc=whole),
            book_push({"101.0": "1.0"}, {}, 2, crc=better),
            # 91 fell out with that change, was never deleted, and is no level any more.
            book_push({"101.0": "0.0", "90.0": "1.0"}, {}, 3, crc=checksum([*levels[:9], ("90.0", "1.0")], [])),
        ]
        assert play(KRAKEN, [Subscription("orderbook", "ETH_USD")], script).gaps == []

    def test_past_trades(self, play: Any) -> None:
        """What came before the subscription is recorded only where it fills the hole of a lost connection."""

        def numbered(number: int) -> str:
            return TRADE.replace("10218208", str(number))

        script = [
            push("trade", numbered(6), numbered(5), kind="snapshot"),
            push("trade", numbered(7)),
            "disconnect",
            push("trade", numbered(9), numbered(8), numbered(7), kind="snapshot"),
            push("trade", numbered(10)),
            push("trade", numbered(12)),
        ]
        collected = play(KRAKEN, [Subscription("prices", "BTC_USD")], script)
        assert [trade.trade_id for trade in collected.trades] == [7, 8, 9, 10, 12]
        assert [(gap.cause, gap.from_id, gap.to_id) for gap in collected.gaps] == [("sequence", 11, 11)]

    def test_candles(self, play: Any) -> None:
        """A candle is closed once the next one begins."""
        later = CANDLE.replace("19:28:00", "19:29:00")
        script = [push("ohlc", row) for row in (CANDLE, CANDLE, later)]
        collected = play(KRAKEN, [Subscription("klines", "BTC_USD")], script)
        assert [(kline.start_us % 3_600_000_000 // 60_000_000, kline.closed) for kline in collected.klines] == [
            (28, False),
            (28, False),
            (28, True),
            (29, False),
        ]


def test_frames_of_2026(recordings: Path) -> None:
    """Frames recorded in 2026, and those of another library's tests, are read or emit nothing."""
    for line in (recordings / "frames-2026.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["exchange"] == "KRAKEN" and row["dir"] == "recv":
            KRAKEN.parse(json.dumps(row["frame"]), 0)
    events = [
        event
        for line in (recordings / "frames-with-expected.jsonl").read_text().splitlines()
        if (row := json.loads(line))["test"] == "map kraken v2 messages"
        for event in KRAKEN.parse(json.dumps(row["message"]), 0)
    ]
    assert [type(event) for event in events] == [PastTrade, BookSnapshot, Ticker]


def test_single_frames(recordings: Path) -> None:
    """Examples of the documentation are read."""
    folder = recordings / "single-frames" / "kraken"
    trades = KRAKEN.parse((folder / "ws_trade_update.json").read_bytes(), 0)
    assert [(trade.side, trade.price, trade.volume, trade.timestamp_us) for trade in trades] == [  # type: ignore[union-attr]
        ("buy", "105944.20", "0.00027625", 1696613755440295),
        ("sell", "105910.50", "0.00012460", 1696613756123456),
    ]
    for name in ("ws_book_snapshot", "ws_book_update", "ws_ohlc_update"):
        assert len(KRAKEN.parse((folder / f"{name}.json").read_bytes(), 0)) == 1
    [quotes] = KRAKEN.parse((folder / "ws_ticker_snapshot.json").read_bytes(), 0)
    assert quotes == Ticker("BTC_USD", 1671960659123456, "105944.20", "2.5", "105944.30", "3.2", None, 0)
    for name in ("ws_pong", "ws_l3_snapshot"):
        assert list(KRAKEN.parse((folder / f"{name}.json").read_bytes(), 0)) == []


def test_volumes() -> None:
    """What was traded is the volume at the average price of 24 hours; old names have letters before their parts."""
    assert KRAKEN.volumes_request() == Request("/0/public/Ticker")
    day = {"v": ["1", "2"], "p": ["10", "20.5"], "t": [1, 2]}
    body = json.dumps({"error": [], "result": {"XXBTZUSD": day, "ETHUSD": {**day, "v": ["0", "1"]}, "X": day}})
    assert KRAKEN.parse_volumes(body.encode()) == {"BTC/USD": Decimal(41), "ETH/USD": Decimal("20.5")}
    with pytest.raises(MessageError, match="EGeneral"):
        KRAKEN.parse_volumes(b'{"error":["EGeneral:Too many requests"]}')
