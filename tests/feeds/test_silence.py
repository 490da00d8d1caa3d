"""Silence: a quiet market is left alone; a deaf subscription is found and asked for again, and its hole is told."""

from __future__ import annotations

import asyncio
import json
import time
from itertools import pairwise
from random import Random
from typing import Any

import pytest
import uvloop

from collector.clock import SystemClock
from collector.exchanges.base import Limits, Listing, Subscription
from collector.exchanges.bybit import Bybit
from collector.exchanges.sim import Sim
from collector.feeds.feed import Feed
from collector.feeds.silence import CEILING_S, SilenceModel, activity_of
from collector.sim.exchange import Options, SimulatedExchange, serve_exchange
from collector.sim.faults import Fault

SYMBOLS = ["BTC_USDT", "ETH_USDT", "SOL_USDT"]
LISTINGS = [Listing(symbol, symbol.replace("_", ""), *symbol.split("_")) for symbol in SYMBOLS]
FLOOR_S = 10.0


def learnt(rate: float, seconds: int, *, seed: int = 0, floor_s: float = FLOOR_S) -> tuple[SilenceModel, int]:
    """Return a model that has seen a stream of so many events a second, and how many these were."""
    random, model, received = Random(seed), SilenceModel(floor_s=floor_s), 0
    model.begin(0)
    for second in range(seconds + 1):
        model.note(second, received)
        received += int(rate) + (random.random() < rate % 1)
    model.note(seconds + 0.5, received)
    return model, received


@pytest.mark.parametrize(("rate", "least_s", "most_s"), [(1000, 10, 10), (5, 10, 10), (1, 15, 25), (0.1, 150, 400)])
def test_patience_follows_from_the_stream_itself(rate: float, least_s: float, most_s: float) -> None:
    """A loud stream is suspected after the floor, a slow one after twenty of its events are missing."""
    model, _ = learnt(rate, 3600)
    assert least_s <= model.patience_s() <= most_s


def test_patience_is_bounded() -> None:
    """One event in an hour is waited for half an hour, and not for ever; nothing at all, for the floor."""
    model, _ = learnt(0.0003, 20_000, seed=3)
    assert model.patience_s() <= CEILING_S
    assert SilenceModel(floor_s=7).patience_s() == 7


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("rate", [0.02, 0.2, 3])
def test_a_steady_stream_is_hardly_ever_suspected(seed: int, rate: float) -> None:
    """Two hours of a Poisson stream, whatever its rate: at most the beginning is looked at."""
    random, model, received = Random(seed), SilenceModel(floor_s=FLOOR_S), 0
    model.begin(0)
    due, suspected = random.expovariate(rate), 0
    for second in range(7200):
        while due <= second:
            received, due = received + 1, due + random.expovariate(rate)
        model.note(second, received)
        if model.suspicious(second):
            model.checked(second)
            suspected += second > 1800
    assert suspected <= 1, f"seed {seed}: suspected {suspected} times"


def test_half_an_hour_of_a_quiet_market_costs_few_looks_and_no_alarm() -> None:
    """A market that falls silent for 30 minutes is looked at ever more rarely; the next event resets that."""
    model, received = learnt(2, 3600)
    looks = []
    for second in range(3601, 3600 + 1800):
        model.note(second, received)
        if model.suspicious(second):
            looks.append(second)
            model.checked(second)
    assert 1 <= len(looks) <= 8
    waits = [later - earlier for earlier, later in pairwise(looks)]
    assert waits == sorted(waits)
    model.note(5500, received + 1)
    assert model.checks == 0
    assert not model.suspicious(5501)


def test_siblings_that_have_become_quieter_lengthen_the_patience() -> None:
    """Where the others bring a fifth of what they usually do, the patience is five times as long."""
    models = []
    for seed in range(3):
        model, received = learnt(10, 3600, seed=seed)
        for second in range(3601, 3700):
            received += 2
            model.note(second, received)
        models.append(model)
    activity = activity_of(models)
    assert 0.15 <= activity <= 0.35
    slow, _ = learnt(0.5, 3600)
    assert slow.patience_s(activity) == pytest.approx(slow.patience_s() / activity, rel=0.01)
    assert activity_of([]) == 1


def feed_of(bench: Any, server: SimulatedExchange, *streams: str, exchange: Any = None, **changes: Any) -> Feed:
    settings = {"overlap_timeout_s": 10, "reorder_grace_s": 0.3, "snapshots_per_s": 100, **changes}
    return Feed(
        exchange or Sim(LISTINGS),
        [Subscription(stream, symbol) for stream in streams for symbol in SYMBOLS],
        bench.sink,
        config=bench.settings(**settings),
        clock=SystemClock(),
        log=bench.log,
        ws_url=server.ws_url,
        rest_url=server.rest_url,
    )


@pytest.mark.parametrize("channel", ["ethusdt@aggTrade", "ethusdt@depth@100ms"])
def test_a_subscription_that_never_delivers_is_found_within_thirty_seconds(bench: Any, channel: str) -> None:
    """Acknowledged and silent, with the times of the configuration: found, told, and asked for again."""
    stream = "prices" if channel.endswith("aggTrade") else "orderbook"

    async def scenario() -> None:
        options = Options(symbols=SYMBOLS, rate=20, faults=[Fault(kind="silent", channel=channel)])
        async with serve_exchange(options) as server:
            feed = feed_of(bench, server, "prices", "orderbook")
            assert feed._settings.first_data_timeout_s == FLOOR_S
            async with asyncio.timeout(45), bench.running(feed):
                async with asyncio.timeout(30):
                    await bench.until(lambda: bench.sink.gaps)
                await bench.until(lambda: all(each.state == "live" for each in feed.status().streams))
                await bench.until(lambda: bench.sink.gaps[-1].to_us is not None)
            assert server.counts["connections"] == 1, "the others had to be interrupted"
        assert {(gap.symbol, gap.stream, gap.cause) for gap in bench.sink.gaps} == {
            ("ETH_USDT", stream, "silent_subscription")
        }

    uvloop.run(scenario())


def test_mark_prices_that_never_come_are_asked_for_again(bench: Any) -> None:
    """They come each second whatever the market does: no answer of REST is needed to know that they are lost."""

    async def scenario() -> None:
        options = Options(symbols=SYMBOLS, rate=20, faults=[Fault(kind="silent", channel="ethusdt@markPrice@1s")])
        async with asyncio.timeout(45), serve_exchange(options) as server:
            feed = feed_of(bench, server, "prices", "funding", "liquidations", first_data_timeout_s=2.5)
            async with bench.running(feed):
                await bench.until(lambda: {e.symbol for e in bench.sink.events.get("funding", ())} == set(SYMBOLS))
                await bench.until(lambda: bench.sink.gaps[-1].to_us is not None)
                await bench.until(lambda: all(each.state == "live" for each in feed.status().streams))
            assert server.counts["connections"] == 1
        assert {(gap.symbol, gap.stream, gap.cause) for gap in bench.sink.gaps} == {
            ("ETH_USDT", "funding", "silent_subscription")
        }

    uvloop.run(scenario())


def test_best_prices_that_stop_are_asked_for_again_where_they_come_steadily(bench: Any, run: Any) -> None:
    """Bybit repeats them when nothing changes: one symbol's stop, REST is not asked, and the other's go on."""
    listings = [Listing(symbol, symbol.replace("_", ""), *symbol.split("_")) for symbol in SYMBOLS[:2]]
    topics = [f"orderbook.1.{listing.native}" for listing in listings]
    asked: list[dict[str, Any]] = []

    async def behave(connection: Any, _: int) -> None:
        told = dict.fromkeys(topics, 0)
        deaf = False

        async def listen() -> None:
            nonlocal deaf
            async for frame in connection:
                request = json.loads(frame)
                asked.append(request)
                answer = {"success": True, "ret_msg": "", "req_id": request.get("req_id", ""), "op": request["op"]}
                await connection.send(json.dumps(answer))
                deaf = deaf and request["op"] != "subscribe"

        listening = asyncio.create_task(listen())
        try:
            while True:
                for topic in topics:
                    if topic == topics[0] or not deaf:
                        told[topic] += 1
                        deaf = deaf or (topic == topics[1] and told[topic] == 300)
                        await connection.send(best(topic, told[topic]))
                await asyncio.sleep(0.005)
        finally:
            listening.cancel()

    def best(topic: str, number: int) -> str:
        data = {"s": topic.rpartition(".")[2], "b": [["100.5", str(number)]], "a": [["100.6", "1"]], "u": number}
        now_ms = round(time.time() * 1000)
        return json.dumps({"topic": topic, "type": "snapshot", "ts": now_ms, "cts": now_ms, "data": data})

    async def scenario() -> None:
        async with bench.serving(behave) as server:
            feed = Feed(
                Bybit(listings), [Subscription("tickers", listing.symbol) for listing in listings], bench.sink,
                config=bench.settings(first_data_timeout_s=1.5), clock=SystemClock(), log=bench.log,
                ws_url=server.ws_url, rest_url=server.rest_url,
            )  # fmt: skip
            async with bench.running(feed):
                await bench.until(lambda: bench.log.named("feed.stream_stalled"))
                await bench.until(lambda: bench.sink.gaps[-1].to_us is not None)
                assert server.opened == 1
        assert {(gap.symbol, gap.stream, gap.cause) for gap in bench.sink.gaps} == {("ETH_USDT", "tickers", "stall")}
        again = [(request["op"], request["args"]) for request in asked if request["op"] != "ping"][-2:]
        assert again == [("unsubscribe", [topics[1]]), ("subscribe", [topics[1]])]

    run(scenario())


@pytest.mark.parametrize("kind", ["deaf", "stall"])
def test_a_stream_that_falls_deaf_is_found_and_its_hole_is_exact(bench: Any, kind: str) -> None:
    """Others deliver, one symbol's trades don't any more: a row from its last trade on, with exactly the missing ids.

    Asking for it again helps where only the subscription was lost; where the connection itself withholds the channel,
    another connection takes over, and the others lose nothing by either.
    """

    async def scenario() -> None:
        async with asyncio.timeout(60), serve_exchange(Options(symbols=SYMBOLS, rate=60)) as server:
            feed = feed_of(bench, server, "prices", first_data_timeout_s=1.5)
            async with bench.running(feed):
                await bench.until(lambda: len(bench.sink.ids("ETH_USDT")) > 40)
                server.faults.add(Fault(kind=kind, channel="ethusdt@aggTrade", connection=1, seconds=3600))  # type: ignore[arg-type]
                await bench.until(lambda: bench.log.named("feed.stream_stalled"))
                before = len(bench.sink.ids("ETH_USDT"))
                await bench.until(lambda: len(bench.sink.ids("ETH_USDT")) > before + 20)
                await bench.until(lambda: any(gap.from_id for gap in bench.sink.gaps))
                await asyncio.sleep(1)
            assert feed.status().connections[0].rotations == (kind == "stall")
        ids = bench.sink.ids("ETH_USDT")
        missing = sorted(set(range(ids[0], ids[-1] + 1)) - set(ids))
        assert missing == list(range(missing[0], missing[-1] + 1))
        opened, closed = bench.sink.gaps[0], bench.sink.gaps[-1]
        assert {(gap.symbol, gap.cause) for gap in bench.sink.gaps} == {("ETH_USDT", "stall")}
        assert (opened.from_us, opened.to_us) == (closed.from_us, None)
        assert (closed.from_id, closed.to_id, closed.expected_rows) == (missing[0], missing[-1], len(missing))

    uvloop.run(scenario())


def test_a_quiet_market_raises_no_alarm(bench: Any) -> None:
    """Scaled: patience of 0.3 s and a market of one trade in many seconds; it is looked at, and left alone.

    Without klines, which are pushed every two seconds: they would be late by such a patience.
    """

    class Patient(Sim):
        limits = Limits(1024, 200, 4, 300, None, 60_000)

    async def scenario() -> None:
        async with asyncio.timeout(30), serve_exchange(Options(symbols=SYMBOLS, rate=0.05)) as server:
            settings = {"first_data_timeout_s": 0.3, "stall_timeout_s": 0.6}
            feed = feed_of(bench, server, "prices", exchange=Patient(LISTINGS), **settings)
            async with bench.running(feed):
                await asyncio.sleep(9)  # thirty times the patience
                status = feed.status()
            assert server.counts["rest_requests"] >= len(SYMBOLS), "nobody looked"
            assert server.counts["connections"] == 1
            assert {stream.state for stream in status.streams} <= {"waiting", "live"}
        assert bench.sink.gaps == []
        assert not [event for level, event, _ in bench.log.events if level in ("warning", "error")]

    uvloop.run(scenario())


def test_a_symbol_that_was_delisted_is_its_own_state(bench: Any, words: Any, run: Any) -> None:
    """One symbol falls silent, REST refuses it, and it has gone from the list: rejected; the other goes on."""

    async def behave(connection: Any, _: int) -> None:
        await words.subscribed(connection)
        await connection.send(words.trade(7, native="ETHUSDT"))
        for number in range(1, 100_000):
            await connection.send(words.trade(number))
            await asyncio.sleep(0.005)

    def rest(path: str) -> tuple[int, dict[str, str], bytes]:
        if "exchangeInfo" in path:
            listed = b'{"symbols":[{"symbol":"BTCUSDT","status":"TRADING","baseAsset":"BTC","quoteAsset":"USDT"}]}'
            return 200, {}, listed
        return 400, {}, b'{"code":-1121,"msg":"Invalid symbol."}'

    async def scenario() -> None:
        async with bench.serving(behave) as server:
            server.rest = rest
            settings = {"first_data_timeout_s": 0.3}
            feed = bench.feed(server, "prices/BTC_USDT", "prices/ETH_USDT", settings=settings)
            async with bench.running(feed):
                await bench.until(lambda: feed.status().streams[1].state == "rejected")
                before = len(bench.sink.ids())
                await bench.until(lambda: len(bench.sink.ids()) > before + 50)
                assert feed.status().streams[0].state == "live"
                assert server.opened == 1
        assert {(gap.symbol, gap.cause) for gap in bench.sink.gaps} == {("ETH_USDT", "rejected")}

    run(scenario())


def test_asking_again_in_vain_becomes_rarer() -> None:
    """A subscription that stays deaf whatever is done is not asked for ever more often."""
    model = SilenceModel(floor_s=FLOOR_S)
    model.begin(0)
    asked = []
    for second in range(4000):
        model.note(second, 0)
        if model.suspicious(second):
            asked.append(second)
            model.missed(second)
            model.begin(second)  # as when a successor takes over
    waits = [later - earlier for earlier, later in pairwise(asked)]
    assert waits == sorted(waits)
    assert len(asked) <= 10
