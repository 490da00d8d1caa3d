"""Gate's perpetuals: golden frames of today and of earlier years, what emits nothing, what is refused, and a feed."""

from __future__ import annotations

import asyncio
import contextlib
import json
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.server import ServerConnection, serve

from collector import config
from collector.clock import SystemClock
from collector.errors import MessageError, UnknownName
from collector.events import (
    Acknowledged,
    BookDelta,
    BookSnapshot,
    Funding,
    Kline,
    OpenInterest,
    Rejected,
    Ticker,
    Trade,
)
from collector.exchanges.base import Listing, Request, Subscription
from collector.exchanges.gate_linear import STREAMS, GateLinear
from collector.feeds.connection import Receiver, open_connection
from collector.feeds.feed import open_rest

RECEIVED = 1_774_443_183_500_000
LINEAR = GateLinear(
    [
        Listing("ETH_USDT", "ETH_USDT", "ETH", "USDT", contract_size="0.01"),
        Listing("BTC_USDT", "BTC_USDT", "BTC", "USDT", contract_size="0.0001"),
    ]
)

TRADE = {
    "size": "-0.25",
    "id": 1,
    "create_time": 1774443183,
    "create_time_ms": 1774443183399,
    "price": "2171.44",
    "contract": "ETH_USDT",
}
CHANGES = {
    "t": 1615366381417,
    "s": "BTC_USDT",
    "U": 2517661101,
    "u": 2517661113,
    "b": [{"p": "54672.1", "s": 0}, {"p": "54664.5", "s": 58794}],
    "a": [{"p": "54743.6", "s": "0.5"}],
}
QUOTE = {
    "t": 1648771200080,
    "u": 3502782378,
    "s": "BTC_USDT",
    "b": "45534.7",
    "B": 2500,
    "a": "45534.8",
    "A": "15227.5",
}
FIGURES = {
    "contract": "BTC_USDT",
    "last": "23160.2",
    "total_size": "153482780",
    "mark_price": "23175.64",
    "funding_rate": "-0.0001",
    "funding_rate_indicative": "0.0001",
    "index_price": "23173.35",
}
CANDLE = {"t": 1545129300, "v": 27525555, "c": "95.4", "h": "96.9", "l": "89.5", "o": "94.3", "n": "1m_BTC_USDT"}
DELTA = BookDelta(
    "BTC_USDT", 1615366381417000, 2517661101, 2517661113, None, [("54672.1", "0"), ("54664.5", "58794")],
    [("54743.6", "0.5")], RECEIVED,
)  # fmt: skip
TIME_US = 1677629168840000


def frame(channel: str, result: Any, **words: Any) -> bytes:
    message = {"time": 1677629168, "time_ms": 1677629168840, "channel": channel, "event": "update", "result": result}
    return json.dumps({**message, **words}, separators=(",", ":")).encode()


def trade(number: int, size: str, side: Any) -> Trade:
    return Trade("ETH_USDT", 1774443183399000, "2171.44", size, side, number, RECEIVED)


@pytest.mark.parametrize(
    ("payload", "events"),
    [
        (
            frame("futures.trades", [TRADE, {**TRADE, "id": 2, "size": 3}]),
            [trade(1, "0.25", "sell"), trade(2, "3", "buy")],
        ),
        (
            frame("futures.trades", [{name: TRADE[name] for name in TRADE if name != "create_time_ms"}]),
            [Trade("ETH_USDT", 1774443183000000, "2171.44", "0.25", "sell", 1, RECEIVED)],
        ),
        (frame("futures.order_book_update", CHANGES), [DELTA]),
        (
            frame("futures.order_book_update", {**CHANGES, "full": True}),
            [BookSnapshot("BTC_USDT", 1615366381417000, 2517661113, DELTA.bids, DELTA.asks, RECEIVED)],
        ),
        (
            frame("futures.book_ticker", QUOTE),
            [Ticker("BTC_USDT", 1648771200080000, "45534.7", "2500", "45534.8", "15227.5", 3502782378, RECEIVED)],
        ),
        (
            frame("futures.book_ticker", {**QUOTE, "t": 0, "a": "", "A": 0}),
            [Ticker("BTC_USDT", RECEIVED, "45534.7", "2500", None, None, 3502782378, RECEIVED, timed=False)],
        ),
        (
            frame("futures.tickers", [FIGURES]),
            [
                Funding("BTC_USDT", TIME_US, "-0.0001", None, "23175.64", "23173.35", RECEIVED),
                OpenInterest("BTC_USDT", TIME_US, "153482780", None, RECEIVED),
            ],
        ),
        (
            frame("futures.candlesticks", [CANDLE]),
            [
                Kline(
                    "BTC_USDT", "1m", 1545129300000000, "94.3", "96.9", "89.5", "95.4", "27525555", None, None, None,
                    False, TIME_US, RECEIVED,
                )
            ],
        ),
        (frame("futures.trades", {"status": "success"}, event="subscribe", id=3), [Acknowledged(3)]),
        (
            frame("futures.trades", None, event="subscribe", id=3, error={"code": 2, "message": "unknown contract"}),
            [Rejected(3, "2", "unknown contract")],
        ),
    ],
)  # fmt: skip
def test_frame(payload: bytes, events: list[object]) -> None:
    """A frame is its events; a size is positive, and its sign the taker's side."""
    assert events == list(LINEAR.parse(payload, RECEIVED))
    assert events == list(LINEAR.parse(json.dumps(dict(reversed(json.loads(payload).items())), indent=1), RECEIVED))


@pytest.mark.parametrize(
    "payload",
    [
        frame("futures.trades", [{**TRADE, "contract": "FOO_USDT"}]),
        frame("futures.order_book_update", {**CHANGES, "s": "FOO_USDT"}),
        frame("futures.book_ticker", {**QUOTE, "s": "FOO_USDT"}),
        frame("futures.tickers", [{**FIGURES, "contract": "FOO_USDT"}]),
        frame("futures.candlesticks", [{**CANDLE, "n": "1m_FOO_USDT"}]),
        frame("futures.trades", [TRADE], event="all"),
        frame("futures.public_liquidates", [{"contract": "BTC_USDT", "price": "1", "size": "-2"}]),
        frame("futures.order_book", {"contract": "ETH_USDT", "asks": [], "bids": []}, event="all"),
        frame("futures.pong", None, event=""),
    ],
)
def test_silent(payload: bytes) -> None:
    """What we don't read, and contracts that nobody asked for, emit nothing."""
    assert list(LINEAR.parse(payload, RECEIVED)) == []


@pytest.mark.parametrize(
    "payload",
    [
        b"",
        b"[]",
        frame("futures.trades", [{**TRADE, "size": "x"}]),
        frame("futures.trades", [{**TRADE, "price": "-1"}]),
        frame("futures.trades", {}),
        frame("futures.order_book_update", {**CHANGES, "u": 1}),
        frame("futures.order_book_update", {**CHANGES, "b": [{"p": "1", "s": -1}]}),
        frame("futures.tickers", [{**FIGURES, "funding_rate": "1e-5"}]),
        frame("futures.tickers", [{**FIGURES, "total_size": "-1"}]),
        frame("futures.candlesticks", [{**CANDLE, "o": ""}]),
    ],
)
def test_refused(payload: bytes) -> None:
    """What the documentation does not allow is an error."""
    with pytest.raises(MessageError):
        LINEAR.parse(payload, RECEIVED)


@given(st.binary() | st.text())
def test_any_frame(payload: bytes | str) -> None:
    """Any bytes are events or a MessageError."""
    with contextlib.suppress(MessageError):
        LINEAR.parse(payload, RECEIVED)


def test_plan() -> None:
    """Funding and open interest are one channel; trades, quotes and figures are asked for many at once."""
    asked = [Subscription(stream, name) for name in ("ETH_USDT", "BTC_USDT") for stream in STREAMS]
    [plan] = LINEAR.plan(asked)
    assert plan.path == "/v4/ws/usdt"
    assert [(row["channel"], row["payload"]) for row in map(json.loads, plan.frames)] == [
        ("futures.trades", ["ETH_USDT", "BTC_USDT"]),
        ("futures.book_ticker", ["ETH_USDT", "BTC_USDT"]),
        ("futures.tickers", ["ETH_USDT", "BTC_USDT"]),
        ("futures.order_book_update", ["ETH_USDT", "100ms", "100"]),
        ("futures.candlesticks", ["1m", "ETH_USDT"]),
        ("futures.order_book_update", ["BTC_USDT", "100ms", "100"]),
        ("futures.candlesticks", ["1m", "BTC_USDT"]),
    ]
    channels = {name for text in plan.frames for name in LINEAR.channels_asked(plan.path, text)}
    for payload in (
        frame("futures.trades", [TRADE]),
        frame("futures.order_book_update", CHANGES),
        frame("futures.book_ticker", QUOTE),
        frame("futures.tickers", [FIGURES]),
        frame("futures.candlesticks", [CANDLE]),
    ):
        assert LINEAR.channel_of(payload) in channels
    assert LINEAR.channel_of(frame("futures.trades", [])) is None
    with pytest.raises(UnknownName):
        LINEAR.plan([Subscription("liquidations", "BTC_USDT")])


def test_rest() -> None:
    """Contracts are listed with what one is worth; books and trades of REST are in contracts, too."""
    rows = [
        {"name": "BTC_USDT", "quanto_multiplier": "0.0001", "in_delisting": False, "status": "trading"},
        {"name": "OLD_USDT", "quanto_multiplier": "0", "in_delisting": True},
    ]
    assert LINEAR.parse_listing(json.dumps(rows).encode()) == [
        Listing("BTC_USDT", "BTC_USDT", "BTC", "USDT", True, "0.0001"),
        Listing("OLD_USDT", "OLD_USDT", "OLD", "USDT", False),
    ]
    assert LINEAR.parse_listing(LINEAR.write_listing(["BTC_USDT"]) or b"")[0].symbol == "BTC_USDT"
    params = {"contract": "BTC_USDT", "limit": "100", "with_id": "true"}
    assert LINEAR.snapshot_request("BTC_USDT") == Request("/api/v4/futures/usdt/order_book", params)
    body = (
        b'{"id":7,"current":1634350208.745,"update":1634350208.7,"asks":[{"s":"2.5","p":"3"}],"bids":[{"s":1,"p":"2"}]}'
    )
    assert LINEAR.parse_snapshot("BTC_USDT", body, RECEIVED) == BookSnapshot(
        "BTC_USDT", 1634350208700000, 7, [("2", "1")], [("3", "2.5")], RECEIVED
    )
    row = {"id": 2, "size": -3, "price": "96.4", "contract": "ETH_USDT", "create_time": 1634673380}
    body = json.dumps([{**row, "create_time_ms": "1634673380.182"}, {**row, "id": 1, "size": "2.5"}]).encode()
    assert LINEAR.parse_trades("ETH_USDT", body, RECEIVED) == [
        Trade("ETH_USDT", 1634673380000000, "96.4", "2.5", "buy", 1, RECEIVED, "rest"),
        Trade("ETH_USDT", 1634673380182000, "96.4", "3", "sell", 2, RECEIVED, "rest"),
    ]
    body = json.dumps([{"contract": "BTC_USDT", "volume_24h_quote": "360157621"}]).encode()
    assert LINEAR.parse_volumes(body) == {"BTC_USDT": Decimal(360157621)}
    with pytest.raises(MessageError, match="slow down"):
        LINEAR.parse_listing(b'{"label":"TOO_MANY_REQUESTS","message":"slow down"}')


def test_decimal_sizes_are_asked_for() -> None:
    """Without the header sizes would be whole numbers; it is sent with the handshake and with each request."""
    heard: list[str | None] = []

    async def handle(connection: ServerConnection) -> None:
        heard.append(connection.request.headers.get("X-Gate-Size-Decimal") if connection.request else None)
        await connection.wait_closed()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode().lower()
        heard.append("1" if "x-gate-size-decimal: 1\r\n" in head else None)
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n[]")
        await writer.drain()
        writer.close()

    async def scenario() -> None:
        settings, clock = config.Feed(), SystemClock()
        async with serve(handle, "127.0.0.1", 0) as server, asyncio.timeout(20):
            port = server.sockets[0].getsockname()[1]
            receiver = Receiver(text=lambda _: None, binary=lambda _: None, ended=lambda: None, crowded=lambda: False)
            connection = await open_connection(
                f"ws://127.0.0.1:{port}", receiver, settings=settings, now_us=clock.now_us, headers=LINEAR.headers
            )
            await connection.close()
            plain = await asyncio.start_server(answer, "127.0.0.1", 0)
            rest = open_rest(LINEAR, settings, clock, rest_url=f"http://127.0.0.1:{plain.sockets[0].getsockname()[1]}")
            assert await rest.get(LINEAR.listing_request()) == b"[]"
            await rest.close()
            plain.close()

    asyncio.run(scenario())
    assert heard == ["1", "1"]


class TestFeed:
    def test_all(self, play: Any) -> None:
        """All that one contract has comes through a feed; nothing is a gap."""
        snapshot = {
            "id": 2517661100,
            "update": 1615366381.3,
            "asks": [{"s": 1, "p": "54800"}],
            "bids": [{"s": 9, "p": "54672.1"}],
        }
        script = [
            frame("futures.order_book_update", CHANGES),
            frame("futures.trades", [{**TRADE, "contract": "BTC_USDT"}]),
            frame("futures.book_ticker", QUOTE),
            frame("futures.tickers", [FIGURES]),
            frame(
                "futures.order_book_update", {**CHANGES, "U": 2517661114, "u": 2517661114, "t": 1615366381617, "b": []}
            ),
            frame("futures.candlesticks", [CANDLE]),
            frame("futures.candlesticks", [{**CANDLE, "t": 1545129360}]),
        ]
        asked = [Subscription(stream, "BTC_USDT") for stream in STREAMS]
        collected = play(
            LINEAR, asked, script, answer=lambda path: json.dumps(snapshot).encode() if "order_book" in path else None
        )
        assert [(one.volume, one.side) for one in collected.trades] == [("0.25", "sell")]
        assert collected.books[-1].bids == [("54664.5", "58794")]
        assert collected.books[-1].asks == [("54743.6", "0.5"), ("54800", "1")]
        assert {stream: len(events) for stream, events in collected.events.items()} == {
            "tickers": 1,
            "funding": 1,
            "open_interest": 1,
        }
        assert [one.start_us for one in collected.klines if one.closed] == [1545129300000000]
        assert collected.gaps == []


def test_frames_with_expected(recordings: Path) -> None:
    """Frames of 2020 to 2026 mean what another library reads in them; books without numbers emit nothing."""
    kinds: list[type] = []
    for line in (recordings / "frames-with-expected.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["exchange"] != "gate-io-futures" or not row["expected"]:
            continue
        native = row["expected"][0]["symbol"]
        events = list(GateLinear([Listing("A_B", native, "A", "B")]).parse(json.dumps(row["message"]), 0))
        kinds += [type(event) for event in events]
        truth = row["expected"][0]
        for event, wanted in zip(events, row["expected"], strict=False):
            if isinstance(event, Trade):
                assert (float(event.price), float(event.volume)) == (wanted["price"], wanted["amount"])
                assert (event.side, str(event.trade_id)) == (wanted["side"], wanted["id"])
            elif isinstance(event, Ticker):
                assert (float(event.bid or 0), float(event.bid_qty or 0)) == (truth["bidPrice"], truth["bidAmount"])
                assert (float(event.ask or 0), float(event.ask_qty or 0)) == (truth["askPrice"], truth["askAmount"])
        for event in events:
            if isinstance(event, Funding):
                assert (float(event.funding_rate or 0), float(event.mark_price or 0)) == (
                    truth["fundingRate"],
                    truth["markPrice"],
                )
            elif isinstance(event, OpenInterest):
                assert float(event.amount) == truth["openInterest"]
    assert kinds.count(Trade) == 5
    assert kinds.count(Funding) == kinds.count(OpenInterest) == 3
    assert kinds.count(Ticker) == 1
    assert len(kinds) == 12
