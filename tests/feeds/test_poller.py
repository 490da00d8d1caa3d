"""What no channel delivers is asked for, evenly and within the exchange's limit; what does not come is a hole."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection

from collector.clock import SystemClock
from collector.exchanges.base import Listing, Request, Subscription
from collector.exchanges.binance_futures import BinanceFutures
from collector.feeds.feed import Feed
from collector.feeds.poller import poll_interval_s

LISTINGS = [Listing("BTC_USDT", "BTCUSDT", "BTC", "USDT"), Listing("ETH_USDT", "ETHUSDT", "ETH", "USDT")]
WANTED = [Subscription("open_interest", listing.symbol) for listing in LISTINGS]


class Answers:
    """An exchange's REST: each answer is newer than the one before; some are refused."""

    def __init__(self, *, refuse: Sequence[int] = ()) -> None:
        self.asked: list[str] = []
        self._refuse = refuse

    def __call__(self, path: str) -> tuple[int, dict[str, str], bytes]:
        self.asked.append(path)
        number = len(self.asked)
        if number in self._refuse:
            return 500, {}, b"{}"
        native = "ETHUSDT" if "ETHUSDT" in path else "BTCUSDT"
        return 200, {}, b'{"openInterest":"%d.5","symbol":"%s","time":%d}' % (number, native.encode(), 1000 + number)


async def silent(connection: ServerConnection, _number: int) -> None:
    await connection.wait_closed()


def feed_of(bench: Any, server: Any, **settings: Any) -> Feed:
    return Feed(
        BinanceFutures(LISTINGS),
        WANTED,
        bench.sink,
        config=bench.settings(**settings),
        clock=SystemClock(),
        log=bench.log,
        ws_url=server.ws_url,
        rest_url=server.rest_url,
    )


async def until(condition: Any) -> None:
    while not condition():
        await asyncio.sleep(0.01)


def test_a_feed_of_polled_streams_alone_needs_no_connection(bench: Any, run: Any) -> None:
    """Every symbol is asked for, again and again, until the feed stops."""

    async def scenario() -> None:
        async with bench.serving(silent) as server:
            server.rest = answers = Answers()
            feed = feed_of(bench, server, poll_interval_s=0.05)
            running = asyncio.create_task(feed.run())
            await until(lambda: len(bench.sink.events.get("open_interest", ())) >= 6)
            assert {stream.state for stream in feed.status().streams} == {"live"}
            assert feed.first_data.is_set()
            await feed.stop()
            await running
            assert server.opened == 0
            assert {path.partition("?")[0] for path in answers.asked} == {"/fapi/v1/openInterest"}
        rows = bench.sink.events["open_interest"]
        assert {row.symbol for row in rows} == {"BTC_USDT", "ETH_USDT"}
        assert all(row.source == "rest" for row in rows)
        assert bench.sink.gaps == []

    run(scenario())


def test_an_answer_that_does_not_come_is_a_hole_of_that_symbol(bench: Any, run: Any) -> None:
    """From the answer before it to the next one; it is said once, and the others go on."""

    async def scenario() -> None:
        async with bench.serving(silent) as server:
            server.rest = Answers(refuse=[5])
            feed = feed_of(bench, server, poll_interval_s=0.05)
            running = asyncio.create_task(feed.run())
            await until(lambda: len(bench.sink.events.get("open_interest", ())) >= 10)
            await feed.stop()
            await running
        (gap,) = bench.sink.gaps
        rows = [row for row in bench.sink.events["open_interest"] if row.symbol == gap.symbol]
        times = [row.timestamp_us for row in rows]
        assert (gap.stream, gap.cause, gap.state) == ("open_interest", "disconnect", "unrecoverable")
        assert times.index(gap.to_us) == times.index(gap.from_us) + 1
        assert len(bench.log.named("feed.poll_failed")) == 1

    run(scenario())


@pytest.mark.parametrize(
    ("requests", "weight", "interval_s"),
    [(1, 1, 10), (100, 1, 10), (500, 1, 50), (1, 100, 10), (10, 100, 100)],
)
def test_polling_takes_a_quarter_of_the_limit_at_most(requests: int, weight: int, interval_s: float) -> None:
    """Snapshots and repairs need the rest; so many symbols are asked for less often than wanted."""
    asked = [Request("/x", weight=weight)] * requests
    assert poll_interval_s(10, asked, 2400) == interval_s


def test_without_anything_to_poll_nothing_is_asked(bench: Any, run: Any) -> None:
    """As most feeds are."""

    async def scenario() -> None:
        async with bench.serving(silent) as server:
            server.rest = answers = Answers()
            feed = Feed(
                BinanceFutures(LISTINGS), [Subscription("prices", "BTC_USDT")], bench.sink, config=bench.settings(),
                clock=SystemClock(), log=bench.log, ws_url=server.ws_url, rest_url=server.rest_url,
            )  # fmt: skip
            running = asyncio.create_task(feed.run())
            await until(lambda: server.opened)
            await feed.stop()
            await running
            assert answers.asked == []

    run(scenario())
