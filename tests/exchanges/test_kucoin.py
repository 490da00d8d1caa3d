"""KuCoin: golden frames, what emits nothing, what is refused, its token, and the recording of 2021."""

from __future__ import annotations

import asyncio
import gzip
import json
import re
from decimal import Decimal
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.asyncio.server import ServerConnection, serve

from collector import config
from collector.clock import SystemClock
from collector.errors import MessageError, UnknownName
from collector.events import Acknowledged, BookDelta, BookSnapshot, Kline, Rejected, Ticker, Trade
from collector.exchanges.base import Listing, Request, Subscription
from collector.exchanges.kucoin import Kucoin
from collector.feeds.feed import END_OF_RECORDING, Feed

RECEIVED = 1_660_608_000_464_000
RECORDING = "kucoin-2021.rec.gz"
KUCOIN = Kucoin([Listing("BTC_USDT", "BTC-USDT", "BTC", "USDT"), Listing("LMR_BTC", "LMR-BTC", "LMR", "BTC")])

MATCH = {
    "makerOrderId": "62fabfc195e86000013e41cb",
    "price": "0.000001094",
    "sequence": "455391760226305",
    "side": "sell",
    "size": "12.9629",
    "symbol": "LMR-BTC",
    "takerOrderId": "62faddff90bdf400011fa69a",
    "time": "1660608000023000000",
    "tradeId": "455391760226305",
    "type": "match",
}
CHANGES = {
    "sequenceStart": 1636276324356,
    "symbol": "BTC-USDT",
    "changes": {"asks": [["0", "0", "1636276324356"]], "bids": [["12", "0.12", "1636276324357"]]},
    "sequenceEnd": 1636276324357,
    "time": 1660608000100,
}
CANDLE = {
    "symbol": "BTC-USDT",
    "candles": ["1589968800", "9786.9", "9740.8", "9806.1", "9732", "27.45649579", "268280.09830877"],
    "time": 1589970010253893337,
}


BEST = {
    "bestAsk": "0.9052",
    "bestAskSize": "404.3024",
    "bestBid": "0.9027",
    "bestBidSize": "202.2365",
    "price": "0.909",
    "sequence": "1653547330151",
    "size": "53.4976",
    "time": 1660608019966,
}


def push(topic: str, subject: str, data: Any) -> bytes:
    message = {"type": "message", "topic": topic, "subject": subject, "data": data}
    return json.dumps(message, separators=(",", ":")).encode()


def match(**words: Any) -> bytes:
    return push("/market/match:LMR-BTC", "trade.l3match", {**MATCH, **words})


def changes(**words: Any) -> bytes:
    return push("/market/level2:BTC-USDT", "trade.l2update", {**CHANGES, **words})


def candle(kind: str = "update", topic: str = "BTC-USDT_1min", **words: Any) -> bytes:
    return push(f"/market/candles:{topic}", f"trade.candles.{kind}", {**CANDLE, **words})


TRADE_EVENT = Trade("LMR_BTC", 1660608000023000, "0.000001094", "12.9629", "sell", 455391760226305, RECEIVED)
KLINE_EVENT = Kline(
    "BTC_USDT", "1m", 1589968800000000, "9786.9", "9806.1", "9732", "9740.8", "27.45649579", "268280.09830877",
    None, None, False, 1589970010253893, RECEIVED,
)  # fmt: skip


@pytest.mark.parametrize(
    ("payload", "event"),
    [
        (match(), TRADE_EVENT),
        (
            match(tradeId="6085c09769bc506996295e36", side="buy"),
            Trade("LMR_BTC", 1660608000023000, "0.000001094", "12.9629", "buy", "6085c09769bc506996295e36", RECEIVED),
        ),
        (
            changes(),
            BookDelta("BTC_USDT", 1660608000100000, 1636276324356, 1636276324357, None, [("12", "0.12")], [], RECEIVED),
        ),
        (
            changes(time=0),
            BookDelta("BTC_USDT", RECEIVED, 1636276324356, 1636276324357, None, [("12", "0.12")], [], RECEIVED),
        ),
        (candle(), KLINE_EVENT),
        (candle("add"), KLINE_EVENT),
        (b'{"id":"1","type":"ack"}', Acknowledged("1")),
        (
            b'{"id":"2","type":"error","code":404,"data":"topic /market/match:FOO is not found"}',
            Rejected("2", "404", "topic /market/match:FOO is not found"),
        ),
        (
            push("/market/ticker:BTC-USDT", "trade.ticker", BEST),
            Ticker("BTC_USDT", 1660608019966000, "0.9027", "202.2365", "0.9052", "404.3024", 1653547330151, RECEIVED),
        ),
        (
            push("/market/ticker:BTC-USDT", "trade.ticker", {**BEST, "time": 0, "bestAskSize": "0"}),
            Ticker("BTC_USDT", RECEIVED, "0.9027", "202.2365", None, None, 1653547330151, RECEIVED, timed=False),
        ),
    ],
)
def test_frame(payload: bytes, event: object) -> None:
    """A frame is its event, whatever the order of its fields."""
    assert [event] == list(KUCOIN.parse(payload, RECEIVED))
    assert [event] == list(KUCOIN.parse(json.dumps(json.loads(payload), indent=1), RECEIVED))
    assert [event] == list(KUCOIN.parse(json.dumps(dict(reversed(json.loads(payload).items()))), RECEIVED))


@pytest.mark.parametrize(
    "payload",
    [
        b'{"id":"hQvf8jkno","type":"welcome"}',
        b'{"id":"1545910590801","type":"pong"}',
        push("/market/ticker:FOO-USDT", "trade.ticker", BEST),
        match(symbol="FOO-BAR", price="nonsense"),
        changes(symbol="FOO-BAR"),
        candle(symbol="FOO-BAR"),
        candle(topic="BTC-USDT_3min"),
    ],
)
def test_silent(payload: bytes) -> None:
    """What we don't read, and symbols that nobody asked for, emit nothing."""
    assert list(KUCOIN.parse(payload, RECEIVED)) == []


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
        b"[" * 100_000,
        b'{"type":"ack","id":[]}',
        push("/market/match:LMR-BTC", "trade.l3match", {}),
        push("/market/match:LMR-BTC", "trade.l3match", None),
        match(side="Buy"),
        match(price="1e5"),
        match(size=5),
        match(time="soon"),
        match(tradeId="a,b"),
        changes(sequenceStart=1636276324358),
        changes(sequenceStart=None),
        changes(changes={"asks": [], "bids": [["x", "1", "1"]]}),
        changes(changes={"asks": [], "bids": [["1", "1"]]}),
        changes(changes={"asks": []}),
        candle(candles=["1589968800"]),
        candle(candles=["soon", "1", "1", "1", "1", "1", "1"]),
        candle(candles=["1589968800", "?", "1", "1", "1", "1", "1"]),
    ],
)
def test_malformed(payload: bytes | str) -> None:
    """What the documentation does not allow is a MessageError, whatever it is."""
    with pytest.raises(MessageError):
        KUCOIN.parse(payload, RECEIVED)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda children: st.lists(children, max_size=3) | st.dictionaries(st.text(max_size=3), children, max_size=3),
    max_leaves=8,
)


@st.composite
def mutated_frames(draw: st.DrawFn) -> bytes:
    row, write = draw(st.sampled_from([(MATCH, match), (CHANGES, changes), (CANDLE, candle)]))
    words = {name: draw(json_values) for name in draw(st.lists(st.sampled_from(sorted(row)), max_size=3))}
    payload: bytes = write(**words)  # type: ignore[operator]
    return payload


@given(st.binary() | st.text() | mutated_frames() | json_values.map(lambda value: json.dumps(value).encode()))
def test_any_frame(payload: bytes | str) -> None:
    """Any frame gives events or a MessageError."""
    try:
        events = KUCOIN.parse(payload, RECEIVED)
    except MessageError:
        return
    for event in events:
        if isinstance(event, Trade):
            assert Decimal(event.price) >= 0
            assert Decimal(event.volume) >= 0
        elif isinstance(event, BookDelta):
            assert all(Decimal(text) >= 0 for level in event.bids + event.asks for text in level)
    assert KUCOIN.channel_of(payload) is None or isinstance(KUCOIN.channel_of(payload), str)


def answered(data: Any) -> bytes:
    return json.dumps({"code": "200000", "data": data}).encode()


class TestToken:
    def test_request(self) -> None:
        """A token is asked for by a POST."""
        request = KUCOIN.connection_request()
        assert request is not None
        assert (request.path, request.method) == ("/api/v1/bullet-public", "POST")

    def test_address(self) -> None:
        """The address is the first server's, with the token."""
        server = {"endpoint": "wss://ws-api-spot.kucoin.com/", "protocol": "websocket", "pingInterval": 18000}
        body = answered({"token": "2neA==.b/c", "instanceServers": [server]})
        assert KUCOIN.address_from(body) == "wss://ws-api-spot.kucoin.com/?token=2neA%3D%3D.b%2Fc"

    @pytest.mark.parametrize(
        "body",
        [
            b"",
            b"{}",
            b'{"code":"400100","msg":"no"}',
            answered({"token": "x", "instanceServers": []}),
            answered({"token": "x", "instanceServers": [{"endpoint": "https://elsewhere"}]}),
        ],
    )
    def test_no_address(self, body: bytes) -> None:
        """Any other answer is refused."""
        with pytest.raises(MessageError):
            KUCOIN.address_from(body)


class TestListing:
    def test_names(self) -> None:
        """Symbols are BASE_QUOTE, by today's names of the currencies; active where they trade."""
        rows = [
            {"symbol": "OLD-USDT", "baseCurrency": "OLD", "quoteCurrency": "USDT", "enableTrading": False},
            {"symbol": "BCHSV-USDT", "baseCurrency": "BSV", "quoteCurrency": "USDT", "enableTrading": True},
        ]
        assert KUCOIN.parse_listing(answered(rows)) == [
            Listing("BSV_USDT", "BCHSV-USDT", "BSV", "USDT", True),
            Listing("OLD_USDT", "OLD-USDT", "OLD", "USDT", False),
        ]
        assert KUCOIN.parse_listing(KUCOIN.write_listing(["BTC_USDT"]) or b"") == [
            Listing("BTC_USDT", "BTC-USDT", "BTC", "USDT")
        ]

    def test_refusal(self) -> None:
        """The exchange's own words are in the error."""
        with pytest.raises(MessageError, match=r"Too Many Requests.*429000"):
            KUCOIN.parse_listing(b'{"code":"429000","msg":"Too Many Requests"}')

    def test_real_answer(self, recorded: Any) -> None:
        """The exchange's own answer is read whole, each symbol distinct."""
        listings = KUCOIN.parse_listing(recorded.answer(RECORDING, "/symbols"))
        assert len(listings) == len({listing.symbol for listing in listings}) == 634


class TestPlan:
    def test_frames(self) -> None:
        """Many symbols are asked for at once, candles one by one; each frame has an id."""
        asked = [Subscription(stream, "BTC_USDT") for stream in ("prices", "orderbook", "klines")]
        [plan] = KUCOIN.plan([*asked, Subscription("prices", "LMR_BTC")])
        assert plan.request_ids == ("1", "2", "3")
        assert [(row["id"], row["topic"]) for row in map(json.loads, plan.frames)] == [
            ("1", "/market/match:BTC-USDT,LMR-BTC"),
            ("2", "/market/level2:BTC-USDT"),
            ("3", "/market/candles:BTC-USDT_1min"),
        ]
        assert json.loads(KUCOIN.ping_frame() or "")["type"] == "ping"

    def test_unknown_names(self) -> None:
        """A wrong symbol or data type is named, with the nearest one."""
        with pytest.raises(UnknownName, match="BTC_USDT"):
            KUCOIN.plan([Subscription("prices", "BTC_USD")])
        with pytest.raises(UnknownName, match="prices"):
            KUCOIN.plan([Subscription("price", "BTC_USDT")])


class TestRest:
    def test_snapshot(self) -> None:
        """A hundred levels are what is had without a key."""
        request = KUCOIN.snapshot_request("BTC_USDT")
        assert request == Request("/api/v1/market/orderbook/level2_100", {"symbol": "BTC-USDT"}, weight=4)
        body = answered({"sequence": "5", "time": 1660608003710, "bids": [["1.1", "1"]], "asks": [["1.2", "3"]]})
        assert KUCOIN.parse_snapshot("BTC_USDT", body, RECEIVED) == BookSnapshot(
            "BTC_USDT", 1660608003710000, 5, [("1.1", "1")], [("1.2", "3")], RECEIVED
        )
        with pytest.raises(MessageError):
            KUCOIN.parse_snapshot("BTC_USDT", b'{"code":"400100","msg":"no"}', RECEIVED)

    def test_older_paths(self) -> None:
        """Answers recorded under the paths of 2021 serve the requests of today."""
        assert KUCOIN.current_path("/api/v1/symbols") == KUCOIN.listing_request().path
        assert KUCOIN.current_path("/api/v3/market/orderbook/level2") == KUCOIN.snapshot_request("BTC_USDT").path
        assert KUCOIN.current_path("/api/v1/other") == "/api/v1/other"

    def test_trades(self) -> None:
        """The newest trades have the sequence for an id."""
        request = KUCOIN.trades_request("BTC_USDT", 5, 10)
        assert request is not None
        assert request.params == {"symbol": "BTC-USDT"}
        row = {"sequence": "9", "price": "1.5", "size": "2", "side": "sell", "time": 1545904567062140823}
        new, old = {**row, "sequence": "10", "time": 1545904567062140824000 // 1000 + 1000}, row
        trades = KUCOIN.parse_trades("BTC_USDT", answered([new, old]), RECEIVED)
        assert [(trade.trade_id, trade.source) for trade in trades] == [(9, "rest"), (10, "rest")]
        assert trades[0].timestamp_us == 1545904567062140


class TestChannels:
    def test_channels(self) -> None:
        """A recorded frame and a client's frame name a channel alike."""
        plans = KUCOIN.plan(
            [
                Subscription("prices", "LMR_BTC"),
                Subscription("orderbook", "BTC_USDT"),
                Subscription("klines", "BTC_USDT"),
            ]
        )
        asked = [name for text in plans[0].frames for name in KUCOIN.channels_asked("/endpoint", text)]
        assert asked == [KUCOIN.channel_of(payload) for payload in (match(), changes(), candle())]
        assert KUCOIN.channel_of(b'{"id":"1","type":"ack"}') is None
        assert KUCOIN.channel_of(b"broken") is None

    def test_acknowledgement(self) -> None:
        """A client's frame is accepted, and its ping answered, in the exchange's words."""
        [plan] = KUCOIN.plan([Subscription("prices", "BTC_USDT")])
        answer = KUCOIN.acknowledgement(plan.frames[0])
        assert answer is not None
        assert list(KUCOIN.parse(answer, RECEIVED)) == [Acknowledged("1")]
        pong = KUCOIN.acknowledgement(KUCOIN.ping_frame() or "")
        assert pong is not None
        assert list(KUCOIN.parse(pong, RECEIVED)) == []

    @pytest.mark.parametrize("text", ["", "ping", "[]", '{"type":5}', '{"type":"openTunnel"}'])
    def test_not_asked(self, text: str) -> None:
        """Any other frame asks for nothing and is not acknowledged."""
        assert list(KUCOIN.channels_asked("/", text)) == []
        assert KUCOIN.acknowledgement(text) is None


def recorded_books(path: Path) -> dict[str, bytes]:
    """Return the answers to requests for books, by symbol."""
    books: dict[str, bytes] = {}
    with gzip.open(path, "rt") as lines:
        for line in lines:
            _, _, kind, payload = line.rstrip("\n").split(" ", 3)
            if kind == "GET" and "level2" in payload.split(" ", 2)[1]:
                _, url, body = payload.split(" ", 2)
                books[parse_qs(urlsplit(url).query)["symbol"][0]] = body.encode()
    return books


class TestFeed:
    def test_real_recording(self, recorded: Any, recordings: Path, play: Any) -> None:
        """All trades and candles come through; books begin with their snapshots and lose nothing."""
        books = recorded_books(recordings / RECORDING)
        listings = KUCOIN.parse_listing(recorded.answer(RECORDING, "/symbols"))
        exchange = Kucoin(listings)
        frames = [frame for _, frame in recorded.frames(RECORDING) if b'"message"' in frame]
        topics = {exchange.channel_of(frame) for frame in frames}
        natives = {str(topic).partition(":")[2].partition("_")[0] for topic in topics}
        asked = [
            Subscription(stream, exchange.symbol_of[native])
            for native in sorted(natives)
            for stream in ("prices", "klines", "orderbook")
            if stream != "orderbook" or native in books
        ]

        def answer(path: str) -> bytes | None:
            return books.get(parse_qs(urlsplit(path).query).get("symbol", [""])[0])

        collected = play(exchange, asked, frames, answer=answer)
        counted = json.loads((recordings / "expected.json").read_text())[RECORDING][
            "callbacks_counted_by_another_collector"
        ]
        assert len(collected.trades) == counted["trades"]
        assert len({trade.trade_id for trade in collected.trades}) == counted["trades"]
        assert sum(not candle.closed for candle in collected.klines) == counted["candles"]
        assert collected.gaps == []
        applied = repeated = 0
        parsed = [event for frame in frames for event in exchange.parse(frame, 0)]
        for native, body in books.items():
            symbol = exchange.symbol_of[native]
            snapshot = exchange.parse_snapshot(symbol, body, 0)
            sides: tuple[dict[str, str], dict[str, str]] = (dict(snapshot.bids), dict(snapshot.asks))
            deltas = [
                event
                for event in parsed
                if isinstance(event, BookDelta) and event.symbol == symbol and event.last_id > snapshot.last_id
            ]
            applied += len(deltas)
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
            # The other collector also applies the change that the snapshot ends with.
            repeated += any(
                isinstance(event, BookDelta) and event.symbol == symbol and event.last_id == snapshot.last_id
                for event in parsed
            )
        assert applied + repeated + len(books) == counted["l2_book"]

    def test_token(self) -> None:
        """Each connection is opened with a token of its own, which REST gives."""
        paths: list[str] = []
        requests: list[str] = []

        async def talk(connection: ServerConnection) -> None:
            paths.append(connection.request.path if connection.request else "")
            await connection.send('{"id":"a","type":"welcome"}')
            asked = json.loads(await connection.recv())
            await connection.send(json.dumps({"id": asked["id"], "type": "ack"}))
            await connection.send(match(tradeId=str(len(paths))).decode())
            if len(paths) > 1:
                await connection.close(1000, END_OF_RECORDING)
            else:
                await connection.close(1001, "")

        async def scenario() -> list[Trade]:
            trades: list[Trade] = []

            class Sink:
                def is_crowded(self) -> bool:
                    return False

                def add_trade(self, trade: Trade) -> None:
                    trades.append(trade)

                def __getattr__(self, name: str) -> Any:
                    return lambda *_: None

            class Log:
                def bind(self, **_: object) -> Log:
                    return self

                def __getattr__(self, name: str) -> Any:
                    return lambda *_, **__: None

            async with serve(talk, "127.0.0.1", 0) as server:
                endpoint = f"ws://127.0.0.1:{server.sockets[0].getsockname()[1]}/endpoint"

                async def give_token(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
                    head = await reader.readuntil(b"\r\n\r\n")
                    requests.append(head.split(b"\r\n")[0].decode())
                    token = f"T{len(requests)}"
                    body = answered({"token": token, "instanceServers": [{"endpoint": endpoint}]})
                    head = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % len(body)
                    writer.write(head + body)
                    await writer.drain()
                    writer.close()

                rest = await asyncio.start_server(give_token, "127.0.0.1", 0)
                async with asyncio.timeout(20), rest:
                    feed = Feed(
                        KUCOIN,
                        [Subscription("prices", "LMR_BTC")],
                        Sink(),
                        config=config.Feed(backoff_initial_s=0.02, backoff_cap_s=0.2, reorder_grace_s=0.1),
                        clock=SystemClock(),
                        log=Log(),  # type: ignore[arg-type]
                        rest_url=f"http://127.0.0.1:{rest.sockets[0].getsockname()[1]}",
                    )
                    await feed.run()
            return trades

        assert [trade.trade_id for trade in asyncio.run(scenario())] == [1, 2]
        assert paths == ["/endpoint?token=T1", "/endpoint?token=T2"]
        assert requests == ["POST /api/v1/bullet-public HTTP/1.1"] * 2


def test_frames_with_expected(recordings: Path) -> None:
    """Frames mean what another library reads in them: the taker's side, price, size and time."""
    compared = 0
    for line in (recordings / "frames-with-expected.jsonl").read_text().splitlines():
        row = json.loads(line)
        if row["exchange"] != "kucoin" or row["message"].get("generated"):
            continue
        native = row["message"].get("topic", ":").partition(":")[2]
        events = Kucoin([Listing("A_B", native, "A", "B")]).parse(json.dumps(row["message"]), 0)
        for trade in events:
            if isinstance(trade, Trade):
                [truth] = row["expected"]
                assert (float(trade.price), float(trade.volume)) == (truth["price"], truth["amount"])
                assert (trade.side, str(trade.trade_id)) == (truth["side"], truth["id"])
                assert trade.timestamp_us == 1660608000023000
                compared += 1
    assert compared == 1


def test_volumes() -> None:
    """What was traded in 24 hours is read in quote currency, by native spelling; a refusal is said in its words."""
    assert KUCOIN.volumes_request() == Request("/api/v1/market/allTickers", weight=15)
    body = answered(
        {"time": 1, "ticker": [{"symbol": "BTC-USDT", "volValue": "12.5"}, {"symbol": "A-B", "volValue": None}]}
    )
    assert KUCOIN.parse_volumes(body) == {"BTC-USDT": Decimal("12.5"), "A-B": 0}
    with pytest.raises(MessageError, match="429000"):
        KUCOIN.parse_volumes(b'{"code":"429000","msg":"Too Many Requests"}')


def test_recorded_quotes(recorded: Any) -> None:
    """Every quote of the recording is read; bids are below asks, and numbers and times never go back."""
    frames = [frame for _, frame in recorded.frames(RECORDING) if b'"trade.ticker"' in frame]
    natives = {
        found[1].decode() for frame in frames if (found := re.search(rb'"topic":"/market/ticker:([^"]+)"', frame))
    }
    exchange = Kucoin([Listing(native.replace("-", "_"), native, *native.split("-")) for native in natives])
    quotes: dict[str, list[Ticker]] = {}
    for frame in frames:
        for event in exchange.parse(frame, RECEIVED):
            assert isinstance(event, Ticker)
            quotes.setdefault(event.symbol, []).append(event)
    assert sum(map(len, quotes.values())) == 830
    for of_symbol in quotes.values():
        assert all(Decimal(one.bid or 0) < Decimal(one.ask or "Infinity") for one in of_symbol)
        order = [(one.update_id or 0, one.timestamp_us) for one in of_symbol]
        assert order == sorted(order)
