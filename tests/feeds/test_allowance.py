"""What an exchange allows one address is shared by all who ask it from there."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest
import uvloop

from collector import config
from collector.clock import ManualClock, SystemClock
from collector.exchanges.base import Limits, Listing, Request, Subscription
from collector.exchanges.binance import Binance
from collector.feeds.allowance import Allowance, Allowances, Ban, allowance_of, limiter
from collector.feeds.feed import Feed, open_rest
from collector.sim.exchange import Options, serve_exchange
from collector.sim.faults import Fault

SYMBOLS = [f"{base}_USDT" for base in ("AAA", "BBB", "CCC", "DDD")]
LISTINGS = [Listing(symbol, symbol.replace("_", ""), *symbol.split("_")) for symbol in SYMBOLS]
WEIGHT_PER_MIN = 3000
Until = Callable[[Callable[[], object]], Coroutine[Any, Any, None]]


class Tight(Binance):
    """Binance with a budget that a storm of gaps would soon use up: twelve whole books a minute."""

    limits = Limits(1024, 200, 1000, 300, None, WEIGHT_PER_MIN)


def test_a_ban_only_grows() -> None:
    """The longest of several bans counts, and it passes with time."""
    clock = ManualClock(monotonic_s=50)
    ban = Ban(clock)
    ban.extend(10)
    ban.extend(3)
    assert ban.remaining_s == 10
    clock.advance(11)
    assert ban.remaining_s == 0


@pytest.mark.parametrize("limit", [1, 5, 60, 300, 6000])
def test_no_window_has_more_than_the_limit(limit: int) -> None:
    """What may go at once and what comes back in a whole window are together no more than the limit."""
    bucket = limiter(limit, 60)
    at_once, later = bucket.max_rate, bucket.max_rate * 60 / bucket.time_period
    assert at_once + later <= limit + (limit == 1)
    assert at_once >= 1


def test_an_allowance_belongs_to_an_address() -> None:
    """Whoever asks the same address shares one; another address has its own."""
    known: Allowances = {}
    clock = ManualClock()

    def of(url: str) -> Allowance:
        return allowance_of(known, Binance(), clock, rest_url=url, snapshots_per_s=4)

    assert of("") is of("https://api.binance.com/")
    assert of("") is not of("http://127.0.0.1:1")
    assert len(known) == 2


def test_a_storm_of_gaps_in_two_sessions_earns_no_ban(bench: Any) -> None:
    """Each book breaks again and again in two feeds of one exchange; the exchange counts less than it allows."""

    async def scenario() -> None:
        faults = [Fault(kind="skip", channel="*@depth@100ms", count=400, n=1)]
        options = Options(symbols=SYMBOLS, rate=200, faults=faults, weight_per_min=WEIGHT_PER_MIN)
        async with asyncio.timeout(40), serve_exchange(options) as server:
            clock = SystemClock()
            known: Allowances = {}
            feeds = [_feed(bench, server.ws_url, server.rest_url, known, clock) for _ in range(2)]
            async with bench.running(feeds[0]), bench.running(feeds[1]):
                await bench.until(lambda: server.counts["rest_requests"] >= 5)
                await asyncio.sleep(3)
                assert sum(feed.status().rest_requests for feed in feeds) == server.counts["rest_requests"]
            assert server.weights.refused == 0
            assert server.counts["rest_429"] == server.counts["rest_418"] == 0
            # 500 at once, and then 2,500 a minute.
            assert server.counts["rest_requests"] * 250 <= WEIGHT_PER_MIN

    uvloop.run(scenario())


@pytest.mark.parametrize("kind", ["limit", "ban"])
def test_all_sessions_obey_what_one_is_told(bench: Any, kind: str) -> None:
    """After one session's 429 or 418, no session of that exchange sends a request before Retry-After has passed."""

    async def scenario() -> None:
        faults = [Fault(kind=kind, seconds=3600)]  # type: ignore[arg-type]  # of the two kinds above
        async with asyncio.timeout(20), serve_exchange(Options(symbols=SYMBOLS, faults=faults)) as server:
            clock = SystemClock()
            known: Allowances = {}
            settings: config.Feed = bench.settings()
            exchange = Tight(LISTINGS)
            allowance = allowance_of(known, exchange, clock, rest_url=server.rest_url, snapshots_per_s=100)
            first, second = (
                open_rest(exchange, settings, clock, rest_url=server.rest_url, allowance=allowance) for _ in range(2)
            )
            async with first, second:
                for rest in (first, second, second):
                    with pytest.raises(Exception, match=r"418|429|wants no requests"):
                        await rest.get(Request("/api/v3/time"))
                assert (first.requests, second.requests) == (1, 0)
                assert second.banned_s > 3000
            feed = _feed(bench, server.ws_url, server.rest_url, known, clock)
            async with bench.running(feed):
                await bench.until(lambda: feed.status().streams[0].received >= 3)
            assert server.counts["rest_requests"] == 1

    uvloop.run(scenario())


def _feed(bench: Any, ws_url: str, rest_url: str, known: Allowances, clock: SystemClock) -> Feed:
    exchange = Tight(LISTINGS)
    return Feed(
        exchange,
        [Subscription("orderbook", symbol) for symbol in SYMBOLS],
        bench.sink,
        config=bench.settings(snapshots_per_s=50),
        clock=clock,
        log=bench.log,
        ws_url=ws_url,
        rest_url=rest_url,
        allowance=allowance_of(known, exchange, clock, rest_url=rest_url, snapshots_per_s=50),
    )
