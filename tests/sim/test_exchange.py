"""The simulated exchange over real sockets: protocol, truth and faults, in a time that the test moves."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from websockets.asyncio.client import ClientConnection, connect
from websockets.exceptions import ConnectionClosed, InvalidStatus

from collector.clock import Clock, ManualClock
from collector.errors import UsageError
from collector.events import BookDelta
from collector.exchanges.sim import Sim
from collector.sim import dialect
from collector.sim.exchange import MAX_STREAMS, Options, SimulatedExchange, serve_exchange
from collector.sim.faults import Fault
from collector.sim.market import GENESIS_US, MINUTE_US

BEGAN_US = GENESIS_US + 700 * 86_400_000_000
CHANNEL = "btcusdt@aggTrade"


class Scene:
    """A running exchange, with a clock that the test moves and clients of its REST side."""

    def __init__(self, exchange: SimulatedExchange, clock: ManualClock, http: httpx.AsyncClient) -> None:
        self.exchange = exchange
        self.clock = clock
        self.http = http

    def pass_time(self, seconds: float) -> None:
        """Let time go by and everything of it be sent."""
        self.clock.advance(seconds)
        self.exchange.publish(self.clock.now_us())

    def connect(self, path: str = "/stream") -> connect:
        return connect(self.exchange.ws_url + path, proxy=None, compression=None, max_queue=None, close_timeout=0.1)

    async def get(self, path: str, **params: object) -> Any:
        answer = await self.http.get(path, params={name: str(value) for name, value in params.items()})
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def add_fault(self, **params: object) -> httpx.Response:
        return await self.http.post("/admin/faults", params={name: str(value) for name, value in params.items()})


@asynccontextmanager
async def scene(clock: Clock | None = None, **options: Any) -> AsyncIterator[Scene]:
    clock = clock or ManualClock(BEGAN_US)
    async with (
        serve_exchange(Options(**options), clock=clock) as exchange,
        httpx.AsyncClient(base_url=exchange.rest_url, trust_env=False) as http,
    ):
        yield Scene(exchange, clock, http)  # type: ignore[arg-type]


def play(act: Callable[[Scene], Awaitable[None]], **options: Any) -> None:
    async def main() -> None:
        async with asyncio.timeout(30), scene(**options) as stage:
            await act(stage)

    asyncio.run(main())


async def request(socket: ClientConnection, method: str, *channels: str, number: object = 1) -> Any:
    await socket.send(json.dumps({"method": method, "params": list(channels), "id": number}))
    return json.loads(await socket.recv())


async def messages(socket: ClientConnection, count: int) -> list[Any]:
    return [json.loads(await socket.recv()) for _ in range(count)]


async def until_closed(socket: ClientConnection) -> tuple[list[Any], int]:
    received = []
    try:
        while True:
            received.append(json.loads(await socket.recv()))
    except ConnectionClosed as error:
        return received, error.rcvd.code if error.rcvd else 1006


def test_channels_can_be_in_the_address() -> None:
    """A client gets the channels of its address: bare events on /ws, wrapped ones on /stream."""

    async def act(stage: Scene) -> None:
        async with stage.connect(f"/ws/{CHANNEL}") as bare, stage.connect(f"/stream?streams={CHANNEL}/x@y") as wrapped:
            await until(lambda: stage.exchange.status()["clients"] == 2)
            stage.pass_time(1)
            event = json.loads(await bare.recv())
            assert event["e"] == "aggTrade"
            assert json.loads(await wrapped.recv()) == {"stream": CHANNEL, "data": event}

    play(act)


async def until(done: Callable[[], bool]) -> None:
    while not done():
        await asyncio.sleep(0)


def test_requests_are_acknowledged() -> None:
    """Subscribing, listing and unsubscribing are answered with the id of the request."""

    async def act(stage: Scene) -> None:
        async with stage.connect() as socket:
            assert await request(socket, "SUBSCRIBE", CHANNEL, "ethusdt@trade") == {"result": None, "id": 1}
            assert await request(socket, "LIST_SUBSCRIPTIONS", number="a") == {
                "result": [CHANNEL, "ethusdt@trade"],
                "id": "a",
            }
            assert await request(socket, "UNSUBSCRIBE", CHANNEL, number=3) == {"result": None, "id": 3}
            stage.pass_time(1)
            assert {message["stream"] for message in await messages(socket, 5)} == {"ethusdt@trade"}
            assert await request_after(socket, "LIST_SUBSCRIPTIONS") == ["ethusdt@trade"]

    play(act)


async def request_after(socket: ClientConnection, method: str) -> Any:
    await socket.send(json.dumps({"method": method, "id": "after"}))
    while True:
        answer = json.loads(await socket.recv())
        if answer.get("id") == "after":
            return answer["result"]


@pytest.mark.parametrize("text", ["nonsense", "[]", '{"params":[]}', '{"method":"DANCE","id":1}', b"\xff", "[" * 9999])
def test_wrong_requests_are_refused(text: str | bytes) -> None:
    """A request that is none is answered with an error, and the connection goes on."""

    async def act(stage: Scene) -> None:
        async with stage.connect() as socket:
            await socket.send(text)
            assert json.loads(await socket.recv())["error"]["code"] in (2, 3)
            assert (await request(socket, "SUBSCRIBE", CHANNEL))["result"] is None

    play(act)


def test_unknown_channels_are_acknowledged_and_silent() -> None:
    """A channel that does not exist is acknowledged and never delivers, as with the real exchange."""

    async def act(stage: Scene) -> None:
        async with stage.connect() as socket:
            assert (await request(socket, "SUBSCRIBE", "nousdt@trade", "btcusdt@kline_7m", CHANNEL))["result"] is None
            stage.pass_time(1)
            assert {message["stream"] for message in await messages(socket, 5)} == {CHANNEL}

    play(act)


def test_what_is_sent_is_the_truth_and_is_remembered() -> None:
    """Trades go out without a hole, equal the market's truth page by page, and are in the record."""

    async def act(stage: Scene) -> None:
        async with stage.connect() as socket:
            await request(socket, "SUBSCRIBE", CHANNEL)
            stage.pass_time(4)
            trades = [message["data"] for message in await messages(socket, 100)]
        numbers = [trade["a"] for trade in trades]
        assert numbers == list(range(numbers[0], numbers[0] + 100))
        page = await stage.get("/admin/trades", symbol="BTC_USDT", limit=60)
        rest = await stage.get("/admin/trades", symbol="BTCUSDT", from_id=page["next"], limit=60)
        assert rest["next"] is None
        assert [*page["trades"], *rest["trades"]] == [
            [t["a"], t["p"], t["q"], t["f"], t["l"], t["T"], t["m"]] for t in trades
        ]
        await until(lambda: stage.exchange.status()["clients"] == 0)
        (record,) = (await stage.get("/admin/record"))["connections"]
        assert record["channels"][CHANNEL]["ids"] == [[numbers[0], numbers[-1]]]
        assert record["closed_us"] == stage.clock.now_us()

    play(act)


def test_the_market_goes_on_while_nobody_is_connected() -> None:
    """Trades that happened while a client was away are given by REST, between those it was sent."""

    async def act(stage: Scene) -> None:
        async with stage.connect() as socket:
            await request(socket, "SUBSCRIBE", CHANNEL)
            stage.pass_time(1)
            last = (await messages(socket, 25))[-1]["data"]["a"]
        stage.pass_time(3)
        async with stage.connect() as socket:
            await request(socket, "SUBSCRIBE", CHANNEL)
            stage.pass_time(1)
            first = json.loads(await socket.recv())["data"]["a"]
        assert first > last + 50
        rows = await stage.get("/api/v3/aggTrades", symbol="BTCUSDT", fromId=last + 1, limit=first - last - 1)
        assert [row["a"] for row in rows] == list(range(last + 1, first))

    play(act)


@pytest.mark.parametrize("channel", ["btcusdt@depth@100ms", "btcusdt@depth"])
def test_a_book_can_be_kept(channel: str) -> None:
    """A snapshot taken in the middle of the diffs goes on with them, by the exchange's own rule."""

    async def act(stage: Scene) -> None:
        dialect_of = Sim(Sim().parse_listing((await stage.http.get("/api/v3/exchangeInfo")).content))
        async with stage.connect() as socket:
            await request(socket, "SUBSCRIBE", channel)
            stage.pass_time(1.05)
            answer = await stage.http.get("/api/v3/depth", params={"symbol": "BTCUSDT", "limit": "5000"})
            stage.pass_time(2)
            rule = dialect_of.book_rule()
            rule.apply_snapshot(dialect_of.parse_snapshot("BTC_USDT", answer.content, 0))
            verdicts = []
            for _ in range(30 if "100ms" in channel else 3):
                (delta,) = dialect_of.parse(await socket.recv(decode=False), 0)
                assert isinstance(delta, BookDelta)
                verdicts.append(rule.judge(delta))
        assert verdicts[0] == "stale"
        assert verdicts[-1] == "apply"
        assert verdicts == sorted(verdicts, reverse=True)

    play(act)


def test_candles_close_as_rest_says() -> None:
    """A candle is pushed while it is under way, and once closed, with the digits that REST gives."""

    async def act(stage: Scene) -> None:
        async with stage.connect() as socket:
            await request(socket, "SUBSCRIBE", "btcusdt@kline_1m", "btcusdt@kline_5m", "btcusdt@bookTicker")
            stage.pass_time(61)
            candles = [m["data"]["k"] for m in await messages(socket, 660) if "kline_1m" in m["stream"]]
        assert [candle["x"] for candle in candles] == [False] * 29 + [True]
        rows = await stage.get("/api/v3/klines", symbol="BTCUSDT", interval="1m", startTime=BEGAN_US // 1000, limit=1)
        last = candles[-1]
        assert [last[name] for name in "tohlcvTqnVQ"] == rows[0][:-1]

    play(act)


def test_time_moves_by_itself() -> None:
    """With the machine's clock, messages come without anyone's doing."""

    async def main() -> None:
        async with (
            asyncio.timeout(30),
            serve_exchange(Options(rate=1000)) as exchange,
            connect(f"{exchange.ws_url}/ws/{CHANNEL}", proxy=None, close_timeout=0.1) as socket,
        ):
            numbers = [message["a"] for message in await messages(socket, 200)]
            assert numbers == list(range(numbers[0], numbers[0] + 200))

    asyncio.run(main())


def test_many_symbols_are_served() -> None:
    """Hundreds of symbols are published side by side."""

    async def main() -> None:
        symbols = [f"C{number}_USDT" for number in range(300)]
        async with (
            asyncio.timeout(30),
            serve_exchange(Options(rate=3000, symbols=symbols)) as exchange,
            connect(exchange.ws_url + "/stream", proxy=None, close_timeout=0.1) as socket,
        ):
            await request(socket, "SUBSCRIBE", *(f"c{number}usdt@aggTrade" for number in range(300)))
            heard = set()
            while len(heard) < 300:
                heard.add(json.loads(await socket.recv())["stream"])

    asyncio.run(main())


# Faults


def test_a_connection_is_dropped() -> None:
    """A dropped connection ends without a close frame; a new one goes on."""

    async def act(stage: Scene) -> None:
        assert (await stage.add_fault(kind="drop", after=3, channel="*@aggTrade")).status_code == 200
        async with stage.connect() as socket:
            await request(socket, "SUBSCRIBE", CHANNEL)
            stage.pass_time(1)
            _, code = await until_closed(socket)
            assert code == 1006
        async with stage.connect() as socket:
            await request(socket, "SUBSCRIBE", CHANNEL)
            stage.pass_time(1)
            await messages(socket, 25)
        assert (await stage.get("/admin/faults"))["fired"] == {"drop": 1}
        records = (await stage.get("/admin/record"))["connections"]
        assert [record["ending"] for record in records] == ["drop", ""]

    play(act)


def test_a_connection_is_closed_with_a_code() -> None:
    """A closed connection ends with the code of the fault, after what was sent before."""

    async def act(stage: Scene) -> None:
        async with stage.connect() as socket:
            await request(socket, "SUBSCRIBE", CHANNEL)
            stage.pass_time(1)
            received, code = await until_closed(socket)
            assert (len(received), code) == (3, 1012)

    play(act, faults=[Fault(kind="close", after=3, status=1012)])


def test_a_stalled_connection_still_answers_pings() -> None:
    """A stalled connection is silent and answers pings; afterwards later ids come, and the record has the hole."""

    async def act(stage: Scene) -> None:
        async with stage.connect() as socket:
            await request(socket, "SUBSCRIBE", CHANNEL)
            stage.pass_time(1)
            stage.pass_time(4.5)
            await (await socket.ping())
            stage.pass_time(1)
            numbers = [message["data"]["a"] for message in await messages(socket, 12)]
        assert numbers[10] > numbers[9] + 100
        (record,) = (await stage.get("/admin/record"))["connections"]
        assert record["channels"][CHANNEL]["withheld"] == {"stall": [[numbers[9] + 1, numbers[10] - 1]]}

    play(act, faults=[Fault(kind="stall", seconds=5, after=10)])


def test_a_sequence_is_skipped_in_the_book() -> None:
    """A skipped diff leaves a hole in the update ids, which the record tells."""

    async def act(stage: Scene) -> None:
        async with stage.connect() as socket:
            await request(socket, "SUBSCRIBE", "btcusdt@depth@100ms")
            stage.pass_time(1)
            diffs = [message["data"] for message in await messages(socket, 9)]
        assert diffs[3]["U"] == diffs[2]["u"] + 51
        record = (await stage.get("/admin/record"))["connections"][0]["channels"]["btcusdt@depth@100ms"]
        assert record["withheld"] == {"skip": [[diffs[2]["u"] + 1, diffs[2]["u"] + 50]]}

    play(act, faults=[Fault(kind="skip", after=3)])


def test_trades_are_repeated_and_turned_round() -> None:
    """Trades come twice, and in another order, and the record has each id once and what was repeated."""

    async def act(stage: Scene) -> None:
        async with stage.connect() as socket:
            await request(socket, "SUBSCRIBE", CHANNEL)
            stage.pass_time(1)
            numbers = [message["data"]["a"] for message in await messages(socket, 27)]
        first = numbers[0]
        assert [number - first for number in numbers[:10]] == [0, 1, 0, 1, 3, 2, 4, 5, 6, 7]
        record = (await stage.get("/admin/record"))["connections"][0]["channels"][CHANNEL]
        assert record["ids"] == [[first, first + 24]]
        assert record["repeated"] == [[first, first + 1]]

    play(act, faults=[Fault(kind="duplicate", n=2), Fault(kind="reorder", after=1)])


def test_messages_are_malformed_and_oversized() -> None:
    """A message is half a message; another is larger than the client takes, which ends the connection."""

    async def act(stage: Scene) -> None:
        async with stage.connect() as socket:
            await request(socket, "SUBSCRIBE", CHANNEL)
            stage.pass_time(1)
            with pytest.raises(json.JSONDecodeError):
                await messages(socket, 25)
            with pytest.raises(ConnectionClosed) as error:
                await messages(socket, 25)
            assert error.value.sent is not None
            assert error.value.sent.code == 1009

    play(act, faults=[Fault(kind="malformed", after=2), Fault(kind="oversized", after=4, size=2**21)])


def test_the_end_is_announced() -> None:
    """The server announces its end and closes afterwards, with messages in between."""

    async def act(stage: Scene) -> None:
        async with stage.connect() as socket:
            await request(socket, "SUBSCRIBE", CHANNEL)
            stage.pass_time(1)
            received, code = await until_closed(socket)
        assert code == 1001
        assert [m["e"] for m in received if "e" in m] == ["serverShutdown"]
        assert len(received) == 26

    play(act, faults=[Fault(kind="shutdown", seconds=0.01)])


def test_an_opening_is_refused() -> None:
    """A websocket is refused with the status of the fault."""

    async def act(stage: Scene) -> None:
        with pytest.raises(InvalidStatus) as error:
            await stage.connect().__aenter__()
        assert error.value.response.status_code == 503
        async with stage.connect():
            pass

    play(act, faults=[Fault(kind="refuse", status=503)])


def test_a_subscription_is_rejected() -> None:
    """A rejected subscription is answered with an error, and nothing is sent."""

    async def act(stage: Scene) -> None:
        async with stage.connect() as socket:
            assert (await request(socket, "SUBSCRIBE", CHANNEL))["error"]["code"] == 2
            assert (await request(socket, "LIST_SUBSCRIPTIONS"))["result"] == []

    play(act, faults=[Fault(kind="reject")])


def test_a_channel_is_acknowledged_but_silent() -> None:
    """A silent channel is acknowledged and never delivers; the others do."""

    async def act(stage: Scene) -> None:
        async with stage.connect() as socket:
            assert (await request(socket, "SUBSCRIBE", CHANNEL, "ethusdt@aggTrade"))["result"] is None
            stage.pass_time(1)
            assert {message["stream"] for message in await messages(socket, 25)} == {"ethusdt@aggTrade"}

    play(act, faults=[Fault(kind="silent", channel=CHANNEL)])


@pytest.mark.parametrize(("kind", "status"), [("limit", 429), ("ban", 418)])
def test_requests_are_sent_away(kind: str, status: int) -> None:
    """A request is answered with 429 or 418 and when to come back; then it is answered."""

    async def act(stage: Scene) -> None:
        await stage.add_fault(kind=kind, seconds=7, path="*/depth")
        answer = await stage.http.get("/api/v3/depth", params={"symbol": "BTCUSDT"})
        assert (answer.status_code, answer.headers["Retry-After"]) == (status, "7")
        assert (await stage.http.get("/api/v3/ping")).status_code == status
        stage.clock.advance(7)
        assert (await stage.http.get("/api/v3/ping")).status_code == 200

    play(act)


def test_weights_are_counted() -> None:
    """Weights are told in the header, and too many of them are refused."""

    async def act(stage: Scene) -> None:
        answer = await stage.http.get("/api/v3/depth", params={"symbol": "BTCUSDT", "limit": "500"})
        assert answer.headers["X-MBX-USED-WEIGHT-1M"] == "25"
        answer = await stage.http.get("/api/v3/depth", params={"symbol": "BTCUSDT", "limit": "500"})
        assert (answer.status_code, answer.headers["Retry-After"]) == (429, "60")
        status = await stage.get("/admin/status")
        assert (status["weight_used"], status["refused"], status["counts"]["rest_429"]) == (25, 1, 1)

    play(act, weight_per_min=40)


def test_answers_fail_and_are_slow() -> None:
    """A request fails with the status of the fault; another takes its time and is answered."""

    async def act(stage: Scene) -> None:
        assert (await stage.http.get("/api/v3/ping")).status_code == 503
        assert (await stage.http.get("/api/v3/ping")).status_code == 200
        assert stage.exchange.faults.fired == {"fail": 1, "slow": 1}

    play(act, faults=[Fault(kind="fail", status=503), Fault(kind="slow", after=1, seconds=0.01)])


def test_a_slow_answer_does_not_hold_up_the_end() -> None:
    """The server ends while an answer is still slow on purpose."""

    async def act(stage: Scene) -> None:
        async def ask() -> None:
            with pytest.raises(httpx.TransportError):
                await stage.http.get("/api/v3/ping", timeout=0.2)

        await ask()

    play(act, faults=[Fault(kind="slow", seconds=3600)])


# Beside the protocol


def test_faults_are_administered() -> None:
    """Faults are added, listed and taken away; a wrong one is refused with the nearest name."""

    async def act(stage: Scene) -> None:
        await stage.add_fault(kind="skip", n=3, channel="*@depth*")
        listed = await stage.get("/admin/faults")
        assert [(fault["kind"], fault["n"]) for fault in listed["armed"]] == [("skip", 3)]
        wrong = await stage.add_fault(kind="skipp")
        assert (wrong.status_code, "skip" in wrong.json()["error"]) == (400, True)
        assert (await stage.http.delete("/admin/faults")).json()["armed"] == []
        assert (await stage.http.request("PATCH", "/admin/faults")).status_code == 400

    play(act)


def test_the_record_comes_in_pages() -> None:
    """The record of connections is told in pages, in order."""

    async def act(stage: Scene) -> None:
        for _ in range(3):
            async with stage.connect():
                pass
        page = await stage.get("/admin/record", limit=2)
        assert [record["connection"] for record in page["connections"]] == [1, 2]
        rest = await stage.get("/admin/record", after=page["next"])
        assert [record["connection"] for record in rest["connections"]] == [3]
        assert rest["next"] is None

    play(act)


@pytest.mark.parametrize(
    ("path", "status"),
    [
        ("/admin/nothing", 404),
        ("/admin/record?after=x", 400),
        ("/admin/trades?symbol=NO_USDT", 400),
        ("/admin/trades", 400),
        ("/elsewhere", 404),
        ("/stream", 426),
    ],
)
def test_wrong_addresses_are_errors(path: str, status: int) -> None:
    """What does not exist is an error and no end."""

    async def act(stage: Scene) -> None:
        assert (await stage.http.get(path)).status_code == status

    play(act)


def test_too_many_requests_end_a_connection() -> None:
    """A client that asks more than five times in a second is closed with 1008."""

    async def act(stage: Scene) -> None:
        async with stage.connect() as socket:
            for _ in range(6):
                await socket.send('{"method":"LIST_SUBSCRIPTIONS","id":1}')
            received, code = await until_closed(socket)
            assert (len(received), code) == (5, 1008)

    play(act)


def test_too_many_streams_end_a_connection() -> None:
    """A client that asks for more than 1,024 streams is closed with 1008."""

    async def act(stage: Scene) -> None:
        async with stage.connect() as socket:
            await socket.send(
                json.dumps({"method": "SUBSCRIBE", "params": [f"c{n}@trade" for n in range(MAX_STREAMS + 1)], "id": 1})
            )
            assert (await until_closed(socket))[1] == 1008

    play(act)


def test_a_client_that_does_not_read_is_dropped() -> None:
    """What waits for a client is bounded: who reads too slowly is dropped, and counted."""

    async def act(stage: Scene) -> None:
        async with connect(stage.exchange.ws_url + "/stream", proxy=None, max_queue=1, close_timeout=0.1) as socket:
            await request(socket, "SUBSCRIBE", CHANNEL)
            while stage.exchange.status()["clients"]:
                stage.pass_time(10)
                await asyncio.sleep(0)
        assert stage.exchange.counts["slow_clients_dropped"] == 1

    play(act, max_backlog_bytes=100_000, rate=20_000)


def test_a_port_in_use_is_an_error() -> None:
    """A port that is taken is an error in words."""

    async def act(stage: Scene) -> None:
        with pytest.raises(UsageError, match="cannot listen"):
            async with serve_exchange(port=stage.exchange.port):
                pass

    play(act)


def test_errors_of_the_block_come_out_as_they_are() -> None:
    """An error in the block that the server lives for is not wrapped in a group."""

    async def act(stage: Scene) -> None:
        raise LookupError(stage.exchange.ws_url)

    with pytest.raises(LookupError, match="ws://127"):
        play(act)


def test_the_listing_is_of_the_symbols() -> None:
    """The list of instruments has the symbols that are simulated."""

    async def act(stage: Scene) -> None:
        listings = Sim().parse_listing((await stage.http.get("/api/v3/exchangeInfo")).content)
        assert [listing.symbol for listing in listings] == ["SOL_EUR"]
        assert dialect.exchange_info(["SOL_EUR"], BEGAN_US)

    play(act, symbols=["SOL_EUR"])


def test_a_minute_is_of_sixty_seconds() -> None:
    """The test's own beginning is that of a minute, on which the tests of candles rely."""
    assert BEGAN_US % MINUTE_US == 0
