"""The feed through ccxt: the real library, over real sockets, at the simulated exchange and at one that misbehaves."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from decimal import Decimal
from typing import Any

import httpx
import msgspec
import pytest
import uvloop

from collector import config
from collector.clock import SystemClock
from collector.errors import ConnectionLost, ExchangeRefused, MessageError, UnknownName, UsageError
from collector.exchanges.base import Listing, Subscription
from collector.exchanges.ccxt import Ccxt
from collector.feeds import ccxt_feed
from collector.feeds.ccxt_feed import CcxtClient, CcxtFeed, require_ccxt

pytest.importorskip("ccxt")

SETTINGS = config.Feed(backoff_initial_s=0.05, backoff_cap_s=0.2, reorder_grace_s=0.2, first_data_timeout_s=3)
SPOT = {"fetchMarkets": {"types": ["spot"]}}
BTC, ETH = (Listing(f"{base}_USDT", f"{base}/USDT", base, "USDT") for base in ("BTC", "ETH"))


class _Ready(msgspec.Struct):
    ws_url: str
    rest_url: str


@asynccontextmanager
async def simulated(*arguments: str, port: int = 0) -> AsyncIterator[_Ready]:
    """A simulated exchange as a process of its own, which speaks Binance's dialect."""
    command = ("-m", "collector.sim", "exchange", "--port", str(port), "--rate", "40", "--follow-parent", *arguments)
    pipe = asyncio.subprocess.PIPE
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdin=pipe, stdout=pipe)
    assert process.stdout is not None
    assert process.stdin is not None
    try:
        yield msgspec.json.decode(await process.stdout.readline(), type=_Ready)
    finally:
        process.stdin.close()
        await process.wait()


async def opened(ready: _Ready) -> CcxtClient:
    facts = Ccxt("ccxt:binance")
    return await CcxtClient.open(facts, SETTINGS, ws_url=ready.ws_url, rest_url=ready.rest_url, options=SPOT)


def feed_of(client: CcxtClient, sink: Any, log: Any, *subscriptions: Subscription) -> CcxtFeed:
    listings = {"BTC_USDT": BTC, "ETH_USDT": ETH}
    named = [listings.get(asked.symbol, Listing(asked.symbol, "FOO/USDT", "FOO", "USDT")) for asked in subscriptions]
    return CcxtFeed(client, named, subscriptions, sink, config=SETTINGS, clock=SystemClock(), log=log, book_levels=3)


def test_trades_and_books_come_through(bench: Any) -> None:
    """Trades have the exchange's ids, digits and side; books have their best levels; nothing is a gap."""

    async def scenario() -> None:
        async with simulated("--symbols", "BTC_USDT,ETH_USDT") as ready:
            client = await opened(ready)
            assert await client.listing() == [BTC, ETH]
            assert set(await client.volumes()) == {"BTC/USDT", "ETH/USDT"}
            asked = [
                Subscription(stream, name) for stream in ("prices", "orderbook") for name in ("BTC_USDT", "ETH_USDT")
            ]
            feed = feed_of(client, bench.sink, bench.log, *asked)
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(feed.run())
                await _until(lambda: len(bench.sink.trades) >= 60 and len(bench.sink.books) >= 10)
                await feed.first_data.wait()
                status = feed.status()
                await feed.stop()
            assert {trade.symbol for trade in bench.sink.trades} == {"BTC_USDT", "ETH_USDT"}
            assert bench.sink.gaps == []
            assert [stream.state for stream in status.streams] == ["live"] * 4
            assert status.connections[0].url.startswith(ready.ws_url)
            trade = bench.sink.trades[-1]
            page = f"{ready.rest_url}/api/v3/aggTrades"
            params = {"symbol": trade.symbol.replace("_", ""), "startTime": trade.timestamp_us // 1000, "limit": 50}
            async with httpx.AsyncClient(trust_env=False) as http:
                rows = (await http.get(page, params=params)).json()
            # ccxt subscribes to single trades: an aggregated one stands for those from f to l.
            [row] = [row for row in rows if row["f"] <= int(trade.trade_id) <= row["l"]]
            assert (trade.price, trade.side) == (row["p"], "sell" if row["m"] else "buy")
            assert trade.timestamp_us == row["T"] * 1000
            top = bench.sink.books[-1]
            assert len(top.bids) == len(top.asks) == 3
            assert Decimal(top.bids[0][0]) < Decimal(top.asks[0][0])

    _run(scenario())


def test_an_outage_is_a_gap_and_the_feed_goes_on(bench: Any) -> None:
    """When the exchange goes and comes back, both streams have a gap of it, and deliver again."""

    async def scenario() -> None:
        async with simulated("--symbols", "BTC_USDT") as ready:
            client = await opened(ready)
            asked = [Subscription(stream, "BTC_USDT") for stream in ("prices", "orderbook")]
            feed = feed_of(client, bench.sink, bench.log, *asked)
            running = asyncio.ensure_future(feed.run())
            await _until(lambda: len(bench.sink.trades) >= 5 and bench.sink.books)
        port = int(ready.ws_url.rpartition(":")[2])
        await _until(lambda: feed.status().connections[0].reconnects >= 2)
        before = len(bench.sink.trades), len(bench.sink.books)
        async with simulated("--symbols", "BTC_USDT", port=port):
            await _until(lambda: len(bench.sink.trades) > before[0] + 5 and len(bench.sink.books) > before[1] + 5)
            await _until(lambda: {gap.stream for gap in bench.sink.gaps} == {"prices", "orderbook"})
            await feed.stop()
        await running
        assert {gap.cause for gap in bench.sink.gaps} == {"disconnect"}
        ids = [trade.trade_id for trade in bench.sink.trades]
        assert len(ids) == len(set(ids))

    _run(scenario())


def test_a_refused_symbol_is_its_own_state(bench: Any) -> None:
    """ccxt knows no such market: that subscription is rejected, with a gap, and the other one delivers."""

    async def scenario() -> None:
        async with simulated("--symbols", "BTC_USDT") as ready:
            feed = feed_of(
                await opened(ready),
                bench.sink,
                bench.log,
                Subscription("prices", "FOO_USDT"),
                Subscription("prices", "BTC_USDT"),
            )
            running = asyncio.ensure_future(feed.run())
            await _until(lambda: len(bench.sink.trades) >= 5)
            await _until(lambda: feed.status().streams[1].state == "live")
            assert [stream.state for stream in feed.status().streams] == ["rejected", "live"]
            await feed.stop()
            await running
            assert {(gap.symbol, gap.cause) for gap in bench.sink.gaps} == {("FOO_USDT", "rejected")}

    _run(scenario())


def test_what_ccxt_cannot_do_is_an_error_with_a_hint(monkeypatch: pytest.MonkeyPatch) -> None:
    """An unknown exchange is answered with the nearest; without the library, the command that installs it is named."""

    async def scenario() -> None:
        with pytest.raises(UnknownName, match="ccxt:kraken"):
            await CcxtClient.open(Ccxt("ccxt:krakem"), SETTINGS)
        monkeypatch.setattr(ccxt_feed, "find_spec", lambda _: None)
        with pytest.raises(UsageError, match=r"pip install 'collector\[ccxt\]'"):
            await CcxtClient.open(Ccxt("ccxt:kraken"), SETTINGS)
        with pytest.raises(UsageError):
            require_ccxt()

    _run(scenario())


def test_errors_of_ccxt_become_ours() -> None:
    """A refusal is one for good, the network's failure passes, and what ccxt stumbles over is malformed."""

    async def scenario() -> None:
        client = await CcxtClient.open(Ccxt("ccxt:binance"), SETTINGS, rest_url="http://127.0.0.1:9", options=SPOT)
        errors = client._errors

        async def fail(error: Exception) -> None:
            raise error

        try:
            for error, ours in (
                (errors.BadSymbol("x"), ExchangeRefused),
                (errors.AuthenticationError("x"), ExchangeRefused),
                (errors.ExchangeError("x"), ConnectionLost),
                (errors.RateLimitExceeded("x"), ConnectionLost),
                (KeyError("x"), MessageError),
            ):
                with pytest.raises(ours):
                    await client.call(fail, error)
            with pytest.raises(ConnectionLost):
                await client.listing()
        finally:
            await client.close()

    _run(scenario())


@pytest.mark.parametrize(
    "changes",
    [
        {"side": None},
        {"price": None},
        {"amount": "x"},
        {"timestamp": None},
        {"side": "up"},
        {"price": "-1"},
        {"id": "a,b"},
    ],
)
def test_a_trade_that_lacks_something_is_malformed(changes: dict[str, Any]) -> None:
    """What a row of prices.csv needs is there, or it is an error."""
    row = {"price": "1.50", "amount": "2", "side": "buy", "timestamp": 1, "id": "7"}
    assert ccxt_feed._trade(row, "A_B", 0, 5).price == "1.50"
    assert ccxt_feed._trade({**row, "id": None}, "A_B", 3, 5).trade_id == "1-3"
    with pytest.raises(MessageError):
        ccxt_feed._trade({**row, **changes}, "A_B", 0, 5)


def test_numbers_are_plain_digits() -> None:
    """Text is as the exchange wrote it; floats lose their exponent, and a zero that stands for nothing."""
    assert [ccxt_feed._plain(number) for number in ("1.50", 60023.0, 1e-8, 0.1, 5)] == [
        "1.50", "60023", "0.00000001", "0.1", "5",
    ]  # fmt: skip
    assert ccxt_feed._symbol("BTC/USDT:USDT-260327") == "BTC_USDT-USDT-260327"


def _run(scenario: Coroutine[Any, Any, None]) -> None:
    """Run a scenario; importing ccxt alone takes seconds."""

    async def bounded() -> None:
        async with asyncio.timeout(120):
            await scenario

    uvloop.run(bounded())


async def _until(condition: Any) -> None:
    async with asyncio.timeout(30):
        while not condition():
            await asyncio.sleep(0.05)
