"""What an exchange, and the way to it, can do to a daemon that collects; more of it is proved in ``tests/feeds``."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from http import HTTPStatus

import pytest
from websockets.asyncio.server import ServerConnection, serve
from websockets.datastructures import Headers
from websockets.http11 import Request, Response

from collector.errors import CollectorError
from trials.oracle import read_rows
from trials.parts import PROJECT, Daemon, Database, Exchange, wait_until
from trials.sessions import begin, finish, let_grow, peak_bytes

MakeDaemon = Callable[..., Daemon]
MakeExchange = Callable[..., Exchange]
BOMB_CHARACTERS = 100_000_000


class Bomber:
    """An exchange that answers a subscription with a few kilobytes that inflate to a hundred megabytes."""

    def __init__(self) -> None:
        self.port = 0
        self.connections = 0
        self._started = threading.Event()
        self._over = asyncio.Event()
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=lambda: self._loop.run_until_complete(self._serve()), daemon=True)

    def start(self) -> None:
        self._thread.start()
        assert self._started.wait(30)

    def end(self) -> None:
        self._loop.call_soon_threadsafe(self._over.set)
        self._thread.join(30)
        self._loop.close()

    async def _serve(self) -> None:
        async with serve(self._talk, "127.0.0.1", 0, process_request=self._answer, compression="deflate") as server:
            self.port = next(iter(server.sockets)).getsockname()[1]
            self._started.set()
            await self._over.wait()

    def _answer(self, _: ServerConnection, request: Request) -> Response | None:
        if "/exchangeInfo" not in request.path:
            return None
        listed = {"symbol": "BTCUSDT", "status": "TRADING", "baseAsset": "BTC", "quoteAsset": "USDT"}
        body = json.dumps({"symbols": [listed]}).encode()
        headers = Headers({"Content-Type": "application/json", "Content-Length": str(len(body)), "Connection": "close"})
        return Response(HTTPStatus.OK, "OK", headers, body)

    async def _talk(self, connection: ServerConnection) -> None:
        self.connections += 1
        await connection.send("x" * BOMB_CHARACTERS)
        await connection.wait_closed()


@pytest.fixture
def bomber() -> Iterator[Bomber]:
    """Serve a bomb."""
    server = Bomber()
    server.start()
    yield server
    server.end()


def test_35_what_a_broken_feed_misses_is_named_exactly(
    database: Database, daemon: MakeDaemon, exchange: MakeExchange
) -> None:
    """Skipped, repeated, reordered and torn messages, and a drop: the ledger has the missing ids, and no other."""
    collector, market = daemon(), exchange("BTC_USDT", "ETH_USDT", rate=1000)
    collector.start()
    directory = begin(collector, market, "broken-feed")
    for kind, parameters in (
        ("skip", {"n": 17, "channel": "*@aggTrade"}),
        ("duplicate", {"n": 50, "channel": "*@aggTrade"}),
        ("reorder", {"n": 9, "channel": "*@aggTrade"}),
        ("reorder", {"n": 900, "channel": "btcusdt@aggTrade"}),
        ("malformed", {"n": 3, "channel": "*@aggTrade"}),
        ("skip", {"n": 4, "channel": "*@depth*"}),
        ("drop", {}),
    ):
        market.arm(kind, **parameters)
        wait_until(lambda: not market.ask("/admin/faults")["armed"], f"{kind} to happen")
        let_grow(collector, "broken-feed", 200)
    let_grow(collector, "broken-feed", 2000)
    verdict = finish(collector, database, market, directory)
    assert verdict.problems == []
    assert verdict.figures["trades missing"] >= 17 + 3


def test_39_a_small_message_that_inflates_to_a_huge_one(daemon: MakeDaemon, bomber: Bomber) -> None:
    """It is refused before it is in memory; the daemon connects again, and says why."""
    collector = daemon(feed="compression = true\nmax_message_bytes = 1048576\n")
    collector.start()
    before = peak_bytes(collector.pid)
    collector.ask(
        "start", exchange="binance", symbols=["BTC_USDT"], session_id="bomb", data_types=["prices"],
        ws_url=f"ws://127.0.0.1:{bomber.port}", rest_url=f"http://127.0.0.1:{bomber.port}",
    )  # fmt: skip
    wait_until(lambda: bomber.connections >= 2, "it to connect again")
    assert peak_bytes(collector.pid) - before < 40_000_000
    closings = [event["how"] for event in collector.events() if event["event"] == "feed.connection_closed"]
    assert any("1009" in how for how in closings)
    assert collector.session("bomb")["state"] in ("starting", "active")


def test_40_a_burst_that_is_faster_than_we_are(database: Database, daemon: MakeDaemon) -> None:
    """A hundred thousand messages as fast as loopback carries them: each is a row, none is dropped."""
    count = 100_000
    collector = daemon()
    collector.start()
    with subprocess.Popen(
        [sys.executable, "-m", "bench.blast", "--count", str(count)], cwd=PROJECT, stdout=subprocess.PIPE
    ) as blast:
        try:
            assert blast.stdout is not None
            port = json.loads(blast.stdout.readline())["port"]
            collector.ask(
                "start", exchange="binance", symbols=["S0000_USDT"], session_id="burst", data_types=["prices"],
                ws_url=f"ws://127.0.0.1:{port}", rest_url=f"http://127.0.0.1:{port}", recording="burst",
            )  # fmt: skip
            collector.wait_state("burst", "completed")
        finally:
            blast.terminate()
    status = collector.session("burst")
    assert (status["rows"]["prices"], status["buffer"]["dropped"], status["gaps"]) == (count, 0, 0)
    collector.wait_delivered()
    database.wait_applied()
    found = database.query("select count(), count_distinct(seq) from tick_prices where session_id = 'burst'")
    assert found == [[count, count]]
    ids = [int(row["trade_id"]) for row in read_rows(collector.data_dir / "session_burst", "prices", "S0000_USDT")]
    assert ids == list(range(ids[0], ids[0] + count))


def test_41_a_name_that_does_not_resolve(database: Database, daemon: MakeDaemon, exchange: MakeExchange) -> None:
    """The session that needs it is refused with a sentence; the others don't notice."""
    collector, market = daemon(), exchange()
    collector.start()
    directory = begin(collector, market, "resolves")
    with pytest.raises(CollectorError, match=r"nowhere\.invalid|did not answer"):
        collector.ask(
            "start", exchange="binance", symbols=["BTC_USDT"], session_id="unresolved", reach_timeout_s=5.0,
            ws_url="ws://nowhere.invalid:9", rest_url="http://nowhere.invalid:9",
        )  # fmt: skip
    let_grow(collector, "resolves")
    assert not (collector.data_dir / "session_unresolved").exists()
    assert finish(collector, database, market, directory).problems == []
