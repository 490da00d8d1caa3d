"""The client of history against a real server: it goes on through what passes, and says what does not."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest

from collector.clock import ManualClock, SystemClock
from collector.errors import ConnectionLost, MessageError, SourceRefused
from collector.exchanges.base import Limits
from collector.exchanges.candle_sources.base import SourceLimits
from collector.exchanges.candle_sources.intervals import DAY_US, HOUR_US
from collector.exchanges.candle_sources.registry import SOURCES, create_funding_source
from collector.exchanges.candle_sources.series import SeriesWalk
from collector.exchanges.candle_sources.walk import Walk, walk
from collector.feeds.allowance import Allowance
from collector.sim.history import HistoryFault

NOW_US = int(time.time() * 1e6) // HOUR_US * HOUR_US
EXCHANGES = [name for name in SOURCES if name not in ("coingecko", "cryptocompare")]


def hours(source: Any, count: int, *, symbol: str = "BTC_USDT") -> Walk:
    return walk(source, symbol, "1h", NOW_US - count * HOUR_US, NOW_US, now_us=NOW_US)


async def everything(client: Any, walked: Walk) -> list[int]:
    return [candle.start_us async for page in client.pages(walked) for candle in page]


def test_all_exchanges_give_the_same_hours_over_the_network(client_bench: Any, run: Any) -> None:
    """Paths, parameters, POSTs and encodings arrive as they are meant."""

    async def scenario() -> None:
        async with client_bench.serving() as server, client_bench.client(server) as client:
            for name in EXCHANGES:
                source = client_bench.source(name)
                assert await everything(client, hours(source, 400)) == list(
                    range(NOW_US - 400 * HOUR_US, NOW_US, HOUR_US)
                )
                assert client.requests(source) == server.records[name].requests > 0

    run(scenario())


@pytest.mark.parametrize("kind", ["500", "503", "html", "missing_field", "drop", "in_body", "429", "418"])
def test_what_passes_is_asked_again(client_bench: Any, run: Any, kind: str) -> None:
    """Each failure costs requests, and no candle."""

    async def scenario() -> None:
        fault = HistoryFault(kind, times=2, after=1, seconds=0)  # type: ignore[arg-type]
        async with client_bench.serving(faults=[fault]) as server, client_bench.client(server) as client:
            source = client_bench.source("okx")
            starts = await everything(client, hours(source, 900))
            assert starts == list(range(NOW_US - 900 * HOUR_US, NOW_US, HOUR_US))
            assert client.retries["okx"] >= 2
            assert len(client_bench.sleeps.seconds) == client.retries["okx"]

    # What is told in the body of a good answer makes the client stay away for a while of real time.
    client_bench.sleeps.waits = kind == "in_body"
    run(scenario())


def test_retry_after_is_obeyed_by_all_tasks(client_bench: Any, run: Any) -> None:
    """While one task was told to stay away, none of the process asks this address; others are asked."""

    async def scenario() -> None:
        clock = ManualClock(NOW_US, 1000)
        faults = [HistoryFault("429", source="bybit", seconds=20)]
        async with (
            client_bench.serving(faults=faults) as server,
            client_bench.client(server, clock=clock, attempts=1) as client,
        ):
            bybit = client_bench.source("bybit")
            with pytest.raises(SourceRefused) as caught:
                await client.step(hours(bybit, 5))
            assert (caught.value.reason, caught.value.retry_after_s) == ("rate_limit", 20)
            assert client.banned_s(bybit) == pytest.approx(20)
            with pytest.raises(SourceRefused, match="wants no requests"):
                await client.step(hours(bybit, 6))
            assert server.records["bybit"].requests == 1
            assert await client.step(hours(client_bench.source("gate"), 5))
            clock.advance(20)
            server.records["bybit"].away_until_us = 0
            assert await client.step(hours(bybit, 5))

    run(scenario())


def test_a_ban_longer_than_anybodys_patience_is_raised_at_once(client_bench: Any, run: Any) -> None:
    """So that another source can be asked meanwhile."""

    async def scenario() -> None:
        faults = [HistoryFault("418", seconds=3 * 86_400)]
        async with client_bench.serving(faults=faults) as server, client_bench.client(server) as client:
            with pytest.raises(SourceRefused) as caught:
                await client.step(hours(client_bench.source("binance"), 5))
            assert caught.value.retry_after_s == 3 * 86_400
            assert client_bench.sleeps.seconds == []

    run(scenario())


@pytest.mark.parametrize(
    ("kind", "error"),
    [("500", SourceRefused), ("html", SourceRefused), ("missing_field", MessageError), ("drop", ConnectionLost)],
)
def test_what_does_not_pass_is_raised_after_a_few_attempts(
    client_bench: Any, run: Any, kind: str, error: type[Exception]
) -> None:
    """The waits grow from one to the next."""

    async def scenario() -> None:
        fault = HistoryFault(kind, times=0)  # type: ignore[arg-type]
        async with (
            client_bench.serving(faults=[fault]) as server,
            client_bench.client(server, attempts=4, random=lambda: 0.0) as client,
        ):
            source = client_bench.source("okx")
            with pytest.raises(error):
                await client.step(hours(source, 5))
            assert server.records["okx"].requests == 4
            assert client_bench.sleeps.seconds == [1, 2, 4]

    run(scenario())


def test_an_unknown_symbol_is_not_asked_for_again(client_bench: Any, run: Any) -> None:
    """Only a change of ours would help."""

    async def scenario() -> None:
        async with client_bench.serving() as server, client_bench.client(server) as client:
            for name in EXCHANGES:
                with pytest.raises(SourceRefused) as caught:
                    await client.step(hours(client_bench.source(name), 5, symbol="NOPE_USDT"))
                assert (name, caught.value.reason) == (name, "unknown_symbol")
                assert server.records[name].requests == 1

    run(scenario())


def test_a_body_that_never_ends_is_left(client_bench: Any, run: Any) -> None:
    """It is cut off at the longest body that is read, and asked for again."""

    async def scenario() -> None:
        async with (
            client_bench.serving(faults=[HistoryFault("endless")]) as server,
            client_bench.client(server, max_bytes=200_000) as client,
        ):
            assert len(await client.step(hours(client_bench.source("okx"), 200))) == 200
            assert client.retries["okx"] == 1

    run(scenario())


def test_servers_that_count_never_have_to_refuse(client_bench: Any, run: Any) -> None:
    """Twenty tasks at once stay within a limit that the server holds them to."""

    async def scenario() -> None:
        async with (
            client_bench.serving(limits=True) as server,
            client_bench.client(server, limits={}, sleep=asyncio.sleep) as client,
        ):
            source = client_bench.source("kucoin")
            async with asyncio.TaskGroup() as tasks:
                for _ in range(20):
                    tasks.create_task(client.step(hours(source, 10)))
            coinbase = client_bench.source("coinbase")
            async with asyncio.TaskGroup() as tasks:
                for _ in range(20):
                    tasks.create_task(client.step(hours(coinbase, 10)))
            assert server.records["kucoin"].refused == server.records["coinbase"].refused == 0
            assert server.records["coinbase"].requests == 20

    run(scenario())


def test_the_pace_between_calls_is_kept(client_bench: Any, run: Any) -> None:
    """No two requests of one source come closer to each other than its pace."""

    async def scenario() -> None:
        limits = {"gate": SourceLimits(weight=1000, per_s=1, pace_s=0.05)}
        async with client_bench.serving() as server, client_bench.client(server, limits=limits) as client:
            source = client_bench.source("gate")
            started = asyncio.get_running_loop().time()
            async with asyncio.TaskGroup() as tasks:
                for _ in range(5):
                    tasks.create_task(client.step(hours(source, 5)))
            assert asyncio.get_running_loop().time() - started >= 4 * 0.05

    run(scenario())


def test_binances_own_count_makes_everybody_wait(client_bench: Any, run: Any) -> None:
    """What others at the same address have used counts too: near the limit the next minute is waited for."""

    async def scenario() -> None:
        clock = ManualClock(NOW_US + 45_000_000, 1000)
        waited: list[float] = []

        async def sleep(seconds: float) -> None:
            waited.append(seconds)
            clock.advance(seconds)

        limits = {"binance": SourceLimits(weight=6000, per_s=60, used_header="X-MBX-USED-WEIGHT-1M")}
        async with (
            client_bench.serving(clock=clock) as server,
            client_bench.client(server, clock=clock, limits=limits, sleep=sleep) as client,
        ):
            source = client_bench.source("binance")
            await client.step(hours(source, 5))
            assert waited == []
            server.records["binance"].used = 5_600
            await client.step(hours(source, 5))
            await client.step(hours(source, 5))
            assert waited == [pytest.approx(15)]

    run(scenario())


def test_live_feeds_and_history_share_bans(client_bench: Any, run: Any) -> None:
    """What one of them is told by an address, the other obeys."""

    async def scenario() -> None:
        clock = SystemClock()
        async with client_bench.serving(faults=[HistoryFault("418", seconds=600)]) as server:
            limits = Limits(1, 1, 1, 1, None, weight_per_min=1200)
            live = {server.rest_url("binance"): Allowance(limits, clock, snapshots_per_s=1)}
            async with client_bench.client(server, live=live) as client:
                source = client_bench.source("binance")
                with pytest.raises(SourceRefused):
                    await client.step(hours(source, 5))
                assert live[server.rest_url("binance")].rest_ban.remaining_s > 500

    run(scenario())


def test_candles_and_funding_have_budgets_of_their_own_and_one_ban(client_bench: Any, run: Any) -> None:
    """Where an exchange counts them apart; where it bans an address, it bans all of it."""

    async def scenario() -> None:
        async with client_bench.serving() as server, client_bench.client(server, limits={}) as client:
            candles, funding = client_bench.source("binance_futures"), create_funding_source("binance_futures")
            assert await client.step(hours(candles, 5))
            walked = SeriesWalk(funding, "BTC_USDT", NOW_US - 30 * DAY_US, NOW_US, now_us=NOW_US)
            assert len(await client.step(walked)) == 90
            assert client.requests(candles) == client.requests(funding) == 1
            server.faults.append(HistoryFault("418", seconds=600))
            with pytest.raises(SourceRefused):
                await client.step(hours(candles, 5))
            assert client.banned_s(funding) > 500

    run(scenario())


def test_a_cancelled_request_leaves_the_walk_where_it_was(client_bench: Any, run: Any) -> None:
    """A shutdown in the middle of an answer costs nothing but asking again."""

    async def scenario() -> None:
        faults = [HistoryFault("endless")]
        async with client_bench.serving(faults=faults) as server, client_bench.client(server) as client:
            walked = hours(client_bench.source("okx"), 200)
            before = walked.request
            with pytest.raises(TimeoutError):
                async with asyncio.timeout(0.2):
                    await client.step(walked)
            assert walked.request == before
            assert len(await client.step(walked)) == 200

    run(scenario())


def test_years_of_hours_cost_the_pages_that_they_fill(client_bench: Any, run: Any) -> None:
    """Six years of one symbol: 53 requests of a thousand."""

    async def scenario() -> None:
        async with client_bench.serving() as server, client_bench.client(server) as client:
            source = client_bench.source("binance")
            count = 6 * 365 * 24
            walked = walk(source, "BTC_USDT", "1h", NOW_US - count * HOUR_US, NOW_US, now_us=NOW_US)
            assert len(await everything(client, walked)) == count
            assert server.records["binance"].requests == -(-count // 1000)
            assert walked.covered_us == NOW_US - NOW_US % HOUR_US
            assert count * HOUR_US == 6 * 365 * DAY_US

    run(scenario())
