"""The gate that all links pass: limits, bans, and an end to the waiting when the feed stops."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection

from collector.clock import ManualClock, SystemClock
from collector.exchanges.base import Limits
from collector.feeds.allowance import Allowance
from collector.feeds.link import Gate


def allowance(connects: int = 300, clock: Any = None) -> Allowance:
    return Allowance(Limits(1024, 200, 1000, connects, None, 60_000), clock or SystemClock(), snapshots_per_s=100)


def gate(connects: int = 300, clock: Any = None) -> Gate:
    return Gate(allowance(connects, clock))


def test_a_ban_only_grows() -> None:
    """The longest of several bans counts, and it passes with time."""
    clock = ManualClock(monotonic_s=50)
    closed = gate(clock=clock)
    assert closed.banned_s == 0
    closed.ban(10)
    closed.ban(3)
    assert closed.banned_s == 10
    clock.advance(4)
    assert closed.banned_s == pytest.approx(6)
    clock.advance(100)
    assert closed.banned_s == 0


def test_nobody_enters_during_a_ban(run: Any) -> None:
    """Entering waits until the ban has passed."""

    async def scenario() -> None:
        clock = SystemClock()
        closed = gate(clock=clock)
        begin_s = clock.monotonic_s()
        closed.ban(0.1)
        assert await closed.enter()
        assert clock.monotonic_s() - begin_s >= 0.1

    run(scenario())


@pytest.mark.parametrize("reason", ["ban", "limit", "delay"])
def test_a_stop_ends_every_wait(run: Any, reason: str) -> None:
    """Whatever a link waits for, it leaves when the feed stops."""

    async def scenario() -> None:
        closed = gate(1)
        if reason == "ban":
            closed.ban(3600)
        elif reason == "limit":
            await closed.allowance.connects.acquire()
        async with asyncio.TaskGroup() as tasks:
            waiting = tasks.create_task(closed.wait(3600) if reason == "delay" else closed.enter())
            await asyncio.sleep(0)
            closed.stopping.set()
        assert not waiting.result()
        assert not await closed.enter()

    run(scenario())


def test_connections_are_limited(bench: Any, words: Any, run: Any) -> None:
    """A server that closes at once is not connected to more often than the exchange allows."""

    async def behave(connection: ServerConnection, _: int) -> None:
        await words.subscribed(connection)
        await connection.close(1001)

    async def scenario() -> None:
        async with bench.serving(behave) as server:
            feed = bench.feed(
                server,
                allowance=allowance(18),  # three at once
                settings={"backoff_initial_s": 0.001, "backoff_cap_s": 0.001},
            )
            async with bench.running(feed):
                await bench.until(lambda: server.opened == 3 and feed.status().connections[0].state == "waiting")
                await asyncio.sleep(0.1)
            assert server.opened == 3

    run(scenario())


def test_a_ping_frame_is_sent_where_the_exchange_wants_one(
    bench: Any, words: Any, run: Any, loopback_exchange: type
) -> None:
    """An exchange that wants pings of its own kind gets them at its interval."""
    pings: list[str] = []

    class Pinged(loopback_exchange):  # type: ignore[misc]
        limits = Limits(1024, 200, 1000, 300, None, 60_000, ping_interval_s=0.02)

        def ping_frame(self) -> str:
            return "ping"

    async def behave(connection: ServerConnection, _: int) -> None:
        await words.subscribed(connection)
        while True:
            pings.append(str(await connection.recv()))

    async def scenario() -> None:
        async with bench.serving(behave) as server, bench.running(bench.feed(server, exchange_class=Pinged)):
            await bench.until(lambda: len(pings) >= 3)
        assert set(pings) == {"ping"}

    run(scenario())


def test_subscribe_frames_are_paced(bench: Any, words: Any, run: Any, loopback_exchange: type) -> None:
    """Frames are sent no faster than the exchange takes them."""
    times: list[float] = []

    class Slow(loopback_exchange):  # type: ignore[misc]
        limits = Limits(1024, 1, 20, 300, None, 60_000)

    async def behave(connection: ServerConnection, _: int) -> None:
        while True:
            await connection.recv()
            times.append(asyncio.get_running_loop().time())

    async def scenario() -> None:
        async with bench.serving(behave) as server:
            feed = bench.feed(server, "prices/BTC_USDT", "prices/ETH_USDT", "prices/BNB_USDT", exchange_class=Slow)
            async with bench.running(feed):
                await bench.until(lambda: len(times) == 3)
        # A lower bound only, and a generous one: the pace is the limiter's, the times are the server's.
        assert times[2] - times[0] >= 0.05

    run(scenario())


def test_a_quiet_market_is_reconnected_ever_more_rarely(bench: Any, words: Any, run: Any) -> None:
    """Each stall of a connection that brought nothing doubles the patience with the next."""

    async def behave(connection: ServerConnection, _: int) -> None:
        await words.subscribed(connection)
        await connection.wait_closed()

    async def scenario() -> None:
        settings = {"stall_timeout_s": 0.05, "first_data_timeout_s": 0.02}
        async with bench.serving(behave) as server, bench.running(bench.feed(server, settings=settings)) as feed:
            await bench.until(lambda: len(bench.log.named("feed.connection_stalled")) >= 3)
            assert feed.status().connections[0].reconnects >= 2
        limits = [stall["silent_s"] for stall in bench.log.named("feed.connection_stalled")]
        assert limits[:3] == [0.05, 0.1, 0.2]
        assert bench.log.named("feed.subscription_silent")
        assert {gap.cause for gap in bench.sink.gaps} == {"silent_subscription"}

    run(scenario())
