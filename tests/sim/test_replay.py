"""The replay server over real sockets: who gets which frames, when, and how it ends."""

from __future__ import annotations

import asyncio
import json
import os
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed

from collector.errors import RecordingError, UnknownName, UsageError
from collector.exchanges.hyperliquid import Hyperliquid
from collector.feeds.recording import answer_payload, format_line
from collector.sim import dialect
from collector.sim.replay import END_OF_RECORDING, Options, Replay, parse_speed, serve_replay

RECORDINGS = os.environ.get("COLLECTOR_RECORDINGS")
TRADES, BOOK = "btcusdt@aggTrade", "btcusdt@depth@100ms"


def opened(connection: int = 1, path: str = "/stream", ns: int = 1) -> bytes:
    return format_line(ns, connection, "+", f"wss://host:9443{path}")


def lost(connection: int = 1) -> bytes:
    return format_line(1, connection, "-", "bye")


def frame(number: int, stream: str = TRADES, connection: int = 1, kind: str = "<", ns: int = 1) -> bytes:
    return format_line(ns, connection, kind, json.dumps({"stream": stream, "data": {"n": number}}))


def frames(first: int, end: int, **where: Any) -> list[bytes]:
    return [frame(number, **where) for number in range(first, end)]


def answer(last_id: int, symbol: str = "BTCUSDT", path: str = "/api/v3/depth", ns: int = 1) -> bytes:
    body = json.dumps({"lastUpdateId": last_id, "bids": [], "asks": []}).encode()
    return format_line(ns, "http", "GET", answer_payload(200, f"https://host{path}?symbol={symbol}&limit=9", body))


class Scene:
    """A replay server and a client of its REST side."""

    def __init__(self, replay: Replay, http: httpx.AsyncClient) -> None:
        self.replay = replay
        self.http = http

    @asynccontextmanager
    async def client(self, *channels: str, path: str = "/stream") -> AsyncIterator[ClientConnection]:
        async with connect(self.replay.ws_url + path, proxy=None, compression=None, max_queue=None) as socket:
            if channels:
                await socket.send(json.dumps({"method": "SUBSCRIBE", "params": channels, "id": 7}))
                assert json.loads(await socket.recv()) == {"result": None, "id": 7}
            yield socket

    async def depth(self, symbol: str = "BTCUSDT") -> int:
        reply = await self.http.get("/api/v3/depth", params={"symbol": symbol, "limit": "5000"})
        assert reply.status_code == 200, reply.text
        return int(reply.json()["lastUpdateId"])


@asynccontextmanager
async def scene(path: Path, **options: Any) -> AsyncIterator[Scene]:
    chosen = {"exchange": "binance", "symbols": ["BTC_USDT"], "speed": None, "settle_s": 0.05, **options}
    async with (
        serve_replay(Options(path=path, **chosen)) as replay,
        httpx.AsyncClient(base_url=replay.rest_url, trust_env=False) as http,
    ):
        yield Scene(replay, http)


@pytest.fixture
def play(tmp_path: Path) -> Callable[..., None]:
    """Return a function that serves lines and lets a client act."""

    def start(act: Callable[[Scene], Awaitable[None]], *lines: bytes, name: str = "raw.rec", **options: Any) -> None:
        async def main() -> None:
            async with asyncio.timeout(30), scene(tmp_path / name, **options) as stage:
                await act(stage)

        (tmp_path / name).write_bytes(b"".join(lines))
        asyncio.run(main())

    return start


async def numbers(socket: ClientConnection, count: int) -> list[int]:
    return [json.loads(await socket.recv())["data"]["n"] for _ in range(count)]


async def until_end(socket: ClientConnection) -> tuple[list[int], int, str]:
    received: list[int] = []
    try:
        while True:
            received += await numbers(socket, 1)
    except ConnectionClosed as error:
        assert error.rcvd is not None
        return received, error.rcvd.code, error.rcvd.reason


def test_a_client_gets_its_channels_in_order_and_the_end(play: Callable[..., None]) -> None:
    """Frames of the channels asked for come in their order, no others, and then the end."""

    async def act(stage: Scene) -> None:
        async with stage.client(TRADES, BOOK) as socket:
            assert await until_end(socket) == ([0, 2, 3], 1000, END_OF_RECORDING)
        assert (stage.replay.state, stage.replay.sent) == ("ended", 3)
        await stage.replay.ended.wait()

    play(act, opened(), frame(0), frame(1, "ethusdt@aggTrade"), frame(2, BOOK), frame(3), lost())


def test_one_recorded_address_reaches_a_client_that_splits(play: Callable[..., None]) -> None:
    """Frames recorded on one path reach the connections of a client that uses two."""

    async def act(stage: Scene) -> None:
        async with (
            stage.client(BOOK, path="/public/stream") as public,
            stage.client(TRADES, path="/market/stream") as market,
        ):
            assert (await until_end(public))[0] == [1]
            assert (await until_end(market))[0] == [0, 2]

    play(
        act,
        opened(),
        frame(0),
        frame(1, BOOK),
        frame(2),
        exchange="binance_futures",
        data_types=["prices", "orderbook"],
    )


def test_each_recorded_path_gets_its_own(play: Callable[..., None]) -> None:
    """Of two recorded paths each client path gets its own, even on the same channel; a third path gets both."""

    async def act(stage: Scene) -> None:
        async with (
            stage.client(TRADES, path="/a/stream") as a,
            stage.client(TRADES, path="/b/stream") as b,
            stage.client(TRADES, path="/c") as c,
        ):
            await stage.http.post("/admin/start")
            assert [(await until_end(socket))[0] for socket in (a, b, c)] == [[0, 2], [1], [0, 1, 2]]

    lines = frame(0, connection=1), frame(1, connection=2), frame(2, connection=1)
    play(act, opened(1, "/a/stream?x=y"), opened(2, "/b/stream/"), *lines, settle_s=60)


def test_nothing_is_lost_while_a_client_is_still_subscribing(play: Callable[..., None]) -> None:
    """Where it is known what the client will ask for, the play begins when it has, and not before."""

    async def act(stage: Scene) -> None:
        async with stage.client(TRADES) as socket:
            await asyncio.sleep(0.2)
            assert stage.replay.state == "waiting"
            await socket.send(json.dumps({"method": "SUBSCRIBE", "params": [BOOK], "id": 8}))
            await socket.recv()
            assert (await until_end(socket))[0] == [0, 1]

    play(act, opened(), frame(0), frame(1, BOOK), data_types=["prices", "orderbook"], settle_s=60)


def test_a_client_of_another_mind_is_played_to_after_a_silence(play: Callable[..., None]) -> None:
    """A client that never asks for all that was expected gets what it asked for, after a while."""

    async def act(stage: Scene) -> None:
        async with stage.client(TRADES) as socket:
            assert (await until_end(socket))[0] == [0]

    play(act, opened(), frame(0), frame(1, BOOK), data_types=["prices", "orderbook"], settle_s=0.01)


def test_channels_can_be_in_the_address(play: Callable[..., None]) -> None:
    """A client that asks by its address is played to."""

    async def act(stage: Scene) -> None:
        async with stage.client(path=f"/stream?streams={TRADES}") as socket:
            assert (await until_end(socket))[0] == [0]

    play(act, opened(), frame(0), frame(1, BOOK))


def test_the_frames_after_an_answer_wait_for_its_request(play: Callable[..., None]) -> None:
    """Frames before a recorded answer come, those after it when it was asked for; the answer is that of its place."""

    async def act(stage: Scene) -> None:
        async with stage.client(TRADES) as socket:
            assert await numbers(socket, 2) == [0, 1]
            for last_id, first in ((10, 2), (20, 4)):
                assert await stage.depth() == last_id
                assert await numbers(socket, 2) == [first, first + 1]
            assert await stage.depth() == 20  # it stays available
            assert (await until_end(socket))[1] == 1000

    lines = *frames(0, 2), answer(10), *frames(2, 4), answer(20, ns=99_000_000_000), *frames(4, 6)
    play(act, opened(), *lines, answer_wait_s=60)


def test_an_answer_that_was_asked_for_before_holds_nothing_up(play: Callable[..., None]) -> None:
    """An answer can be had before the frames are there, and they don't wait then."""

    async def act(stage: Scene) -> None:
        assert await stage.depth() == 10
        async with stage.client(TRADES) as socket:
            assert (await until_end(socket))[0] == [0, 1]

    play(act, opened(), frame(0), answer(10), frame(1), answer_wait_s=60)


@pytest.mark.parametrize(
    ("line", "options"),
    [
        (answer(10), {"answer_wait_s": 0.05}),
        (answer(10, "ETHUSDT"), {}),
        (answer(10), {"data_types": ["prices"]}),
        (answer(10, path="/api/v3/exchangeInfo"), {}),
    ],
)
def test_an_answer_that_nobody_wants_is_not_waited_for(
    play: Callable[..., None], line: bytes, options: dict[str, Any]
) -> None:
    """Frames wait their time at most, and not at all for what the client will not ask for."""

    async def act(stage: Scene) -> None:
        async with stage.client(TRADES) as socket:
            assert (await until_end(socket))[0] == [0, 1]

    play(act, opened(), frame(0), line, frame(1), **{"answer_wait_s": 60, **options})


def test_unrecorded_requests_are_not_answered(play: Callable[..., None]) -> None:
    """A request of another path or symbol is answered with 404."""

    async def act(stage: Scene) -> None:
        assert (await stage.http.get("/api/v3/depth", params={"symbol": "ETHUSDT"})).status_code == 404
        assert (await stage.http.get("/api/v3/klines", params={"symbol": "BTCUSDT"})).status_code == 404

    play(act, opened(), frame(0), answer(10))


def test_the_list_of_instruments_is_made_where_it_is_not_recorded(play: Callable[..., None]) -> None:
    """Without a recorded list there is one of the symbols that were asked for."""

    async def act(stage: Scene) -> None:
        listings = stage.replay.exchange.parse_listing((await stage.http.get("/api/v3/exchangeInfo")).content)
        assert [listing.symbol for listing in listings] == ["BTC_USDT"]

    play(act, opened(), frame(0))


@pytest.mark.parametrize(
    ("recorded", "expected"), [(["BTC_USDT", "X_Y"], ["BTC_USDT", "X_Y"]), (["X_Y"], ["BTC_USDT"])]
)
def test_a_recorded_list_is_given_if_it_has_all(
    play: Callable[..., None], recorded: list[str], expected: list[str]
) -> None:
    """A recorded list of instruments is given as it is, unless it lacks a symbol that is asked for."""

    async def act(stage: Scene) -> None:
        listings = stage.replay.exchange.parse_listing((await stage.http.get("/api/v3/exchangeInfo")).content)
        assert [listing.symbol for listing in listings] == expected

    body = dialect.exchange_info(recorded, 0)
    line = format_line(1, "http", "GET", answer_payload(200, "https://host/api/v3/exchangeInfo", body))
    play(act, line, opened(), frame(0))


def test_recorded_acknowledgements_are_left_out(play: Callable[..., None]) -> None:
    """A client gets the acknowledgement of its own request, not the recorded ones, nor anything of no meaning."""

    async def act(stage: Scene) -> None:
        async with stage.client(TRADES) as socket:
            assert (await until_end(socket))[0] == [0]

    play(act, opened(), format_line(1, 1, "<", '{"result":null,"id":1}'), format_line(1, 1, "<", "{}"), frame(0))


def test_broken_frames_and_announcements_are_played(play: Callable[..., None]) -> None:
    """What nobody can read, and what concerns the connection, comes as it was recorded; binary frames stay binary."""

    async def act(stage: Scene) -> None:
        async with stage.client(TRADES) as socket:
            received = [await socket.recv() for _ in range(3)]
        assert received == [
            '{"stream":"btc',
            '{"e":"serverShutdown","E":5}',
            b'{"stream":"btcusdt@aggTrade","data":{"n":1}}',
        ]

    binary = format_line(1, 1, "b", b'{"stream":"btcusdt@aggTrade","data":{"n":1}}')
    broken, notice = (format_line(1, 1, "<", text) for text in ('{"stream":"btc', '{"e":"serverShutdown","E":5}'))
    play(act, opened(), broken, notice, binary)


def test_a_recorded_disconnect_ends_the_client_and_waits_for_it(play: Callable[..., None]) -> None:
    """Where the recording was disconnected the client is, after all frames before; those after it wait for it."""

    async def act(stage: Scene) -> None:
        async with stage.client(TRADES) as socket:
            received, code, _ = await until_end(socket)
            assert (received, code) == ([0, 1], 1001)
        await asyncio.sleep(0.1)
        async with stage.client(TRADES) as socket:
            assert await until_end(socket) == ([2, 3], 1000, END_OF_RECORDING)

    play(act, opened(), *frames(0, 2), lost(), opened(), *frames(2, 4), lost(), data_types=["prices"])


def test_a_recorder_that_died_was_disconnected(play: Callable[..., None]) -> None:
    """A connection that is opened again without having ended was lost in between."""

    async def act(stage: Scene) -> None:
        async with stage.client(TRADES) as socket:
            assert (await until_end(socket))[:2] == ([0], 1001)
        async with stage.client(TRADES) as socket:
            assert (await until_end(socket))[0] == [1]

    play(act, opened(), frame(0), opened(), frame(1), data_types=["prices"])


def test_only_the_clients_of_a_lost_connection_end(play: Callable[..., None]) -> None:
    """A client of other channels goes on while one is disconnected and comes back."""

    async def act(stage: Scene) -> None:
        async with stage.client(BOOK) as book:
            async with stage.client(TRADES) as trades:
                assert (await until_end(trades))[:2] == ([0], 1001)
            assert await numbers(book, 1) == [1]
            async with stage.client(TRADES) as trades:
                assert (await until_end(trades))[0] == [2]
            assert (await until_end(book))[0] == [3]

    lines = opened(1), opened(2), frame(0, connection=1), lost(1), frame(1, BOOK, connection=2)
    more = opened(1), frame(2, connection=1), frame(3, BOOK, connection=2)
    play(act, *lines, *more, data_types=["prices", "orderbook"])


def test_a_connection_that_another_replaced_is_not_missed(play: Callable[..., None]) -> None:
    """Where a second recorded connection has the channels already, the end of the first one disconnects nobody."""

    async def act(stage: Scene) -> None:
        async with stage.client(TRADES) as socket:
            assert (await until_end(socket))[:2] == ([0, 1, 1, 2], 1000)

    lines = opened(1), frame(0), opened(2), frame(1), frame(1, connection=2), lost(1), frame(2, connection=2)
    play(act, *lines)


def test_frames_wait_for_a_client_that_went_by_itself(play: Callable[..., None]) -> None:
    """A client that is gone and comes back goes on where the frames are; nothing passes meanwhile."""

    async def act(stage: Scene) -> None:
        async with stage.client(TRADES) as socket:
            assert await numbers(socket, 1) == [0]
        assert await stage.depth() == 10
        await until(lambda: bool(stage.replay.status()["waiting_for"]))
        async with stage.client(TRADES) as socket:
            assert (await until_end(socket))[0] == [1, 2]

    play(act, opened(), frame(0), answer(10), *frames(1, 3), answer_wait_s=60)


def test_others_wait_only_so_long_for_a_client_that_went(play: Callable[..., None]) -> None:
    """Frames of a channel whose only client does not come back are not waited with for ever."""

    async def act(stage: Scene) -> None:
        async with stage.client(BOOK) as book:
            async with stage.client(TRADES) as trades:
                assert await numbers(trades, 1) == [0]
            await until(lambda: stage.replay.status()["clients"] == 1)
            assert await stage.depth() == 10
            assert (await until_end(book))[0] == [2]

    lines = opened(), frame(0), answer(10), frame(1), frame(2, BOOK)
    play(act, *lines, answer_wait_s=60, return_wait_s=0.05)


async def until(done: Callable[[], bool]) -> None:
    while not done():
        await asyncio.sleep(0.01)


def test_who_comes_after_the_end_is_told(play: Callable[..., None]) -> None:
    """A client that connects after the end is told at once."""

    async def act(stage: Scene) -> None:
        async with stage.client(TRADES) as socket:
            await until_end(socket)
        async with connect(stage.replay.ws_url + "/stream", proxy=None) as socket:
            assert await until_end(socket) == ([], 1000, END_OF_RECORDING)

    play(act, opened(), frame(0))


def test_a_recording_can_be_served_again(play: Callable[..., None]) -> None:
    """A server for anyone plays from the first frame for each client, with its answers, in step."""

    async def act(stage: Scene) -> None:
        for _ in range(3):
            async with stage.client(TRADES) as socket:
                assert await numbers(socket, 1) == [0]
                assert await stage.depth() == 10
                assert (await until_end(socket))[:2] == ([1], 1000)
            await until(lambda: stage.replay.state == "waiting")

    play(act, opened(), frame(0), answer(10), frame(1), again=True, answer_wait_s=60)


def test_a_recording_that_was_left_is_served_from_its_beginning(play: Callable[..., None]) -> None:
    """A server for anyone begins anew when its client has gone in the middle and does not come back."""

    async def act(stage: Scene) -> None:
        async with stage.client(TRADES) as socket:
            assert await numbers(socket, 1) == [0]
        assert await stage.depth() == 10
        await until(lambda: stage.replay.state == "waiting")
        async with stage.client(TRADES) as socket:
            assert await numbers(socket, 1) == [0]

    play(act, opened(), frame(0), answer(10), frame(1), again=True, answer_wait_s=60, return_wait_s=0.05)


def test_nobody_is_sent_more_than_it_reads(play: Callable[..., None]) -> None:
    """A client that does not read holds the play up, and in the end has everything."""

    async def act(stage: Scene) -> None:
        async with connect(stage.replay.ws_url + "/stream", proxy=None, compression=None, max_queue=1) as socket:
            await socket.send(json.dumps({"method": "SUBSCRIBE", "params": [TRADES], "id": 7}))
            await socket.recv()
            await until(lambda: stage.replay.sent > 0)
            await asyncio.sleep(0.2)
            assert stage.replay.sent < 3000
            assert (await until_end(socket))[0] == list(range(3000))

    padded = [
        format_line(1, 1, "<", json.dumps({"stream": TRADES, "data": {"n": n}, "pad": "x" * 10_000}))
        for n in range(3000)
    ]
    play(act, opened(), *padded)


def test_recorded_time_is_kept_at_a_factor(play: Callable[..., None]) -> None:
    """At a speed, frames come in recorded time divided by it, also where the recorder's clock went back."""

    async def act(stage: Scene) -> None:
        loop = asyncio.get_running_loop()
        async with stage.client(TRADES) as socket:
            assert await numbers(socket, 1) == [0]
            began = loop.time()
            assert (await until_end(socket))[0] == [1, 2]
            assert loop.time() - began > 0.09

    play(act, opened(ns=1), frame(0, ns=1), frame(1, ns=100_000_000_000), frame(2, ns=50_000_000_000), speed=1000.0)


def test_hftbacktest_files_are_played(play: Callable[..., None]) -> None:
    """Lines of time and frame are played, with the snapshot among them as the answer to its request."""

    async def act(stage: Scene) -> None:
        async with stage.client(TRADES) as socket:
            assert await numbers(socket, 1) == [0]
            assert await stage.depth() == 10
            assert (await until_end(socket))[0] == [1]

    lines = [
        b'1 {"stream":"btcusdt@aggTrade","data":{"n":0}}\n',
        b'2 {"lastUpdateId":10,"bids":[],"asks":[]}\n',
        b'3 {"stream":"btcusdt@aggTrade","data":{"n":1}}\n',
    ]
    play(act, *lines, name="btcusdt_20240808", answer_wait_s=60)


def test_what_the_recording_lacks_is_told(play: Callable[..., None]) -> None:
    """Channels that the collector will ask for and the recording does not have are named."""

    async def act(stage: Scene) -> None:
        assert stage.replay.missing == ["btcusdt@depth", "btcusdt@kline_1m"]

    play(act, opened(), frame(0), data_types=["prices", "orderbook", "klines"])


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ({"symbols": ["ETH_USDT"]}, UsageError),
        ({"symbols": ["BTCUSDT"]}, UnknownName),
        ({"exchange": "binanse"}, UnknownName),
        ({"path": Path("/nowhere/at/all.rec")}, RecordingError),
    ],
)
def test_what_cannot_be_played_is_an_error(tmp_path: Path, options: dict[str, Any], error: type[Exception]) -> None:
    """A symbol that the recording lacks, an unknown exchange, a missing file: errors before anything is served."""
    path = tmp_path / "raw.rec"
    path.write_bytes(opened() + frame(0))
    chosen: dict[str, Any] = {"path": path, "exchange": "binance", "symbols": ["BTC_USDT"], **options}

    async def main() -> None:
        async with serve_replay(Options(**chosen)):
            pass

    with pytest.raises(error):
        asyncio.run(main())


def test_a_port_in_use_is_an_error(play: Callable[..., None], tmp_path: Path) -> None:
    """A port that is taken is an error in words."""

    async def act(stage: Scene) -> None:
        options = Options(path=tmp_path / "raw.rec", exchange="binance", symbols=["BTC_USDT"])
        with pytest.raises(UsageError, match="cannot listen"):
            async with serve_replay(options, port=stage.replay.port):
                pass

    play(act, opened(), frame(0))


@pytest.mark.parametrize(("text", "speed"), [("real", 1.0), ("max", None), ("10x", 10.0), ("0.5", 0.5)])
def test_speeds_are_read(text: str, speed: float | None) -> None:
    """A speed is real, max or a factor."""
    assert parse_speed(text) == speed


@pytest.mark.parametrize("text", ["", "fast", "0", "-1x", "nan", "inf"])
def test_what_is_no_speed_is_an_error(text: str) -> None:
    """Anything else is an error that says what can be said."""
    with pytest.raises(UsageError, match="real, max"):
        parse_speed(text)


@pytest.mark.skipif(not RECORDINGS, reason="COLLECTOR_RECORDINGS is not set")
@pytest.mark.parametrize(
    ("name", "exchange", "symbols", "raw_trades", "expected"),
    [
        (
            "binance-spot-ETHUSDT-20240808",
            "binance",
            ["ETH_USDT"],
            True,
            {"ethusdt@trade": 14515, "ethusdt@depth@100ms": 6470},
        ),
        (
            "binance-spot-20211012",
            "binance",
            ["NKN_USDT", "LRC_BTC"],
            False,
            {"nknusdt@aggTrade": 1, "lrcbtc@aggTrade": 1},
        ),
        (
            "binance-futures-20210722",
            "binance_futures",
            ["SUSHI_USDT", "AKRO_USDT", "KEEP_USDT", "CTK_USDT"],
            False,
            {"sushiusdt@aggTrade": 40, "akrousdt@aggTrade": 8, "sushiusdt@depth@100ms": 255},
        ),
    ],
)
def test_real_recordings_are_played(
    name: str, exchange: str, symbols: list[str], raw_trades: bool, expected: dict[str, int]
) -> None:
    """Real recordings reach a client that asks as the collector does, complete, with their snapshots."""
    received: Counter[str] = Counter()
    data_types = ["prices", "orderbook"]

    async def collect(stage: Scene, path: str, asked: tuple[str, ...]) -> None:
        async with connect(stage.replay.ws_url + path, proxy=None, max_queue=None) as socket:
            for text in asked:
                await socket.send(text)
            try:
                async for message in socket:
                    received[json.loads(message).get("stream", "acknowledged")] += 1
            except ConnectionClosed as error:
                assert error.rcvd is not None
                assert error.rcvd.reason == END_OF_RECORDING

    async def main() -> None:
        path = Path(str(RECORDINGS)) / f"{name}.rec.gz"
        options = {"exchange": exchange, "symbols": symbols, "data_types": data_types, "raw_trades": raw_trades}
        async with asyncio.timeout(60), scene(path, **options, settle_s=30) as stage:
            dialect_of = stage.replay.exchange
            for symbol in symbols:
                request = dialect_of.snapshot_request(symbol)
                reply = await stage.http.get(request.path, params=dict(request.params))
                assert dialect_of.parse_snapshot(symbol, reply.content, 0).bids
            subscriptions = stage.replay.subscriptions()
            async with asyncio.TaskGroup() as group:
                for plan in dialect_of.plan(subscriptions, raw_trades=raw_trades):
                    group.create_task(collect(stage, plan.path, plan.frames))

    asyncio.run(main())
    assert {channel: received[channel] for channel in expected} == expected


def test_instruments_are_listed_in_the_exchanges_own_words(play: Callable[..., None]) -> None:
    """A recording without a list of instruments is given one; a request may have a body."""

    async def act(stage: Scene) -> None:
        for size in (15, 100_000):
            reply = await stage.http.post("/info", content=b" " * size)
            assert [listing.symbol for listing in Hyperliquid().parse_listing(reply.content)] == ["BTC_USDC"]

    book = json.dumps({"channel": "l2Book", "data": {"coin": "BTC", "time": 1, "levels": [[], []]}})
    line = format_line(1, 1, "<", book)
    play(act, opened(path="/ws"), line, exchange="hyperliquid", symbols=["BTC_USDC"])
