"""The REST client against a real server: bounded, budgeted, and quiet while the exchange wants it so."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest

from collector.clock import ManualClock
from collector.errors import ConfigError, ConnectionLost, ExchangeRefused, MessageError, UsageError
from collector.exchanges.base import Limits, Request
from collector.exchanges.binance import Binance
from collector.exchanges.okx import Okx
from collector.feeds.allowance import Allowance
from collector.feeds.rest import Rest, fetch_listing, fetch_volumes


async def _unused(*_: Any) -> None:
    """Serve no websockets."""


def rest(url: str, clock: ManualClock | None = None, **changes: Any) -> Rest:
    clock = clock or ManualClock()
    limits = Limits(1024, 200, 5, 300, None, changes.pop("weight_per_min", 6000))
    allowance = Allowance(limits, clock, snapshots_per_s=4)
    options: dict[str, Any] = {"timeout_s": 5, "max_bytes": 1000, **changes}
    return Rest(url, clock=clock, allowance=allowance, **options)


def test_an_answer_is_its_body(bench: Any, run: Any) -> None:
    """Path and parameters are sent as given, and the body comes back."""

    async def scenario() -> None:
        async with bench.serving(_unused) as server, rest(server.rest_url + "/") as client:
            server.rest = lambda _: (200, {}, b'{"a": 1}')
            body = await client.get(Request("/api/v3/depth", {"symbol": "BTCUSDT", "limit": "5"}))
            assert body == b'{"a": 1}'
            assert server.requests == ["/api/v3/depth?symbol=BTCUSDT&limit=5"]
            assert (client.requests, client.refused) == (1, 0)

    run(scenario())


@pytest.mark.parametrize(("status", "retryable"), [(400, False), (404, False), (451, False), (500, True), (503, True)])
def test_an_error_status_is_a_refusal(bench: Any, run: Any, status: int, retryable: bool) -> None:
    """A refusal has the status, the exchange's words, and whether trying again can help; it bans nobody."""

    async def scenario() -> None:
        async with bench.serving(_unused) as server, rest(server.rest_url) as client:
            server.rest = lambda _: (status, {}, b'{"code":-1121,"msg":"Invalid symbol."}')
            with pytest.raises(ExchangeRefused, match="Invalid symbol") as caught:
                await client.get(Request("/x"))
            assert (caught.value.status, caught.value.retryable) == (status, retryable)
            assert client.banned_s == 0
            assert client.refused == 1

    run(scenario())


@pytest.mark.parametrize(
    ("status", "headers", "expected"),
    [(429, {"Retry-After": "30"}, 30), (418, {"Retry-After": "600"}, 600), (429, {}, 60), (418, {}, 120)],
)
def test_a_ban_is_obeyed_by_everybody(
    bench: Any, run: Any, status: int, headers: dict[str, str], expected: float
) -> None:
    """After 418 or 429 no request leaves this client until the ban has passed."""

    async def scenario() -> None:
        clock = ManualClock(monotonic_s=1000)
        async with bench.serving(_unused) as server, rest(server.rest_url, clock) as client:
            server.rest = lambda _: (status, headers, b"")
            with pytest.raises(ExchangeRefused):
                await client.get(Request("/first"))
            assert client.banned_s == pytest.approx(expected)
            clock.advance(expected - 1)
            with pytest.raises(ExchangeRefused) as caught:
                await client.get(Request("/too-early"))
            assert caught.value.retryable
            assert caught.value.retry_after_s == pytest.approx(1)
            clock.advance(1)
            server.rest = lambda _: (200, {}, b"ok")
            assert await client.get(Request("/late-enough")) == b"ok"
            assert server.requests == ["/first", "/late-enough"]

    run(scenario())


def test_a_ban_reaches_those_who_wait_for_the_budget(bench: Any, run: Any) -> None:
    """A request that waited for its turn while a ban came is not sent."""

    async def scenario() -> None:
        async with bench.serving(_unused) as server, rest(server.rest_url, weight_per_min=6000) as client:
            server.rest = lambda _: (418, {}, b"")
            async with asyncio.TaskGroup() as tasks:
                first = tasks.create_task(_refusal(client, Request("/first", weight=6000)))
                second = tasks.create_task(_refusal(client, Request("/second", weight=10)))
            assert first.result() == "answered"
            assert second.result() == "not sent"
            assert server.requests == ["/first"]

    run(scenario())


async def _refusal(client: Rest, request: Request) -> str:
    try:
        await client.get(request)
    except ExchangeRefused as error:
        return "not sent" if "wants no requests" in error.message else "answered"
    return "served"


def test_a_request_heavier_than_the_budget_is_sent_all_the_same(bench: Any, run: Any) -> None:
    """A weight beyond a whole minute's budget takes all of it, and no more."""

    async def scenario() -> None:
        async with bench.serving(_unused) as server, rest(server.rest_url, weight_per_min=10) as client:
            server.rest = lambda _: (200, {}, b"ok")
            assert await client.get(Request("/heavy", weight=5000)) == b"ok"

    run(scenario())


def test_a_body_that_is_too_long_is_not_read(bench: Any, run: Any) -> None:
    """An answer beyond the limit is refused, whether or not the server told its length."""

    async def scenario() -> None:
        async with bench.serving(_unused) as server, rest(server.rest_url) as client:
            server.rest = lambda _: (200, {}, b"x" * 1001)
            with pytest.raises(ConnectionLost, match="longer than 1000 bytes"):
                await client.get(Request("/bomb"))
            assert client.oversized == 1
            server.rest = lambda _: (200, {}, b"x" * 1000)
            assert len(await client.get(Request("/fits"))) == 1000

    run(scenario())


def test_redirects_are_refused(bench: Any, run: Any) -> None:
    """An exchange cannot send the client elsewhere."""

    async def scenario() -> None:
        async with bench.serving(_unused) as server, rest(server.rest_url) as client:
            server.rest = lambda _: (302, {"Location": "/elsewhere"}, b"")
            with pytest.raises(ExchangeRefused):
                await client.get(Request("/here"))
            assert server.requests == ["/here"]

    run(scenario())


def test_nobody_listens(run: Any) -> None:
    """A refused connection can be tried again."""

    async def scenario() -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            async with rest(f"http://127.0.0.1:{unused.getsockname()[1]}") as client:
                with pytest.raises(ConnectionLost) as caught:
                    await client.get(Request("/x"))
                assert caught.value.retryable

    run(scenario())


def test_a_server_that_says_nothing(run: Any) -> None:
    """Waiting ends with the timeout."""

    async def scenario() -> None:
        with socket.socket() as mute:
            mute.bind(("127.0.0.1", 0))
            mute.listen()
            async with rest(f"http://127.0.0.1:{mute.getsockname()[1]}", timeout_s=0.05) as client:
                with pytest.raises(ConnectionLost):
                    await client.get(Request("/x"))

    run(scenario())


def test_a_server_that_says_little(run: Any) -> None:
    """An answer that comes byte by byte is given up as a whole."""

    async def drip(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
        while not left.is_set():
            writer.write(b"x")
            await asyncio.sleep(0.01)
        writer.transport.abort()
        gone.set()

    async def scenario() -> None:
        async with await asyncio.start_server(drip, "127.0.0.1", 0) as server:
            port = server.sockets[0].getsockname()[1]
            async with rest(f"http://127.0.0.1:{port}", timeout_s=0.05) as client:
                with pytest.raises(ConnectionLost, match="did not answer"):
                    await client.get(Request("/x"))
            left.set()
            await gone.wait()

    left, gone = asyncio.Event(), asyncio.Event()
    run(scenario())


def test_proxies_of_the_environment_are_not_used(bench: Any, run: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only a configured proxy is used, whatever the environment says."""
    for name in ("http_proxy", "all_proxy", "HTTP_PROXY", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")

    async def scenario() -> None:
        async with bench.serving(_unused) as server:
            server.rest = lambda _: (200, {}, b"ok")
            async with rest(server.rest_url) as client:
                assert await client.get(Request("/x")) == b"ok"
            async with rest(server.rest_url, proxy="http://127.0.0.1:1") as client:
                with pytest.raises(ConnectionLost):
                    await client.get(Request("/x"))

    run(scenario())


def test_wrong_addresses(run: Any) -> None:
    """An address that is none is the configuration's fault."""

    async def scenario() -> None:
        with pytest.raises(ConfigError):
            rest("http://127.0.0.1", proxy="nonsense")
        async with rest("http://127.0.0.1:port") as client:
            with pytest.raises(ConfigError):
                await client.get(Request("/x"))
        async with rest("ftp://127.0.0.1") as client:
            with pytest.raises(ConfigError):
                await client.get(Request("/x"))

    run(scenario())


def test_answers_are_recorded_on_one_line(bench: Any, run: Any) -> None:
    """A recorder gets status, address and body of every answer, refusals included, without line breaks."""
    lines: list[tuple[int, int | str, str, bytes | str]] = []

    class Keeper:
        def frame(self, received_ns: int, connection: int | str, kind: str, payload: bytes | str) -> None:
            lines.append((received_ns, connection, kind, payload))

    async def scenario() -> None:
        clock = ManualClock(now_us=5)
        async with bench.serving(_unused) as server, rest(server.rest_url, clock, recorder=Keeper()) as client:
            server.rest = lambda _: (200, {}, b'{"a":\r\n1}')
            await client.get(Request("/depth", {"symbol": "BTCUSDT"}))
            address = f"{server.rest_url}/depth?symbol=BTCUSDT"
            server.rest = lambda _: (503, {}, b"")
            with pytest.raises(ExchangeRefused):
                await client.get(Request("/depth"))
        assert lines[0] == (5000, "http", "GET", f'200 {address} {{"a":  1}}'.encode())
        assert bytes(lines[1][3]).startswith(b"503 ")

    run(scenario())


def test_a_listing_is_fetched_and_read(bench: Any, run: Any) -> None:
    """The exchange's instruments come as listings; an answer that is none is a MessageError."""

    async def scenario() -> None:
        async with bench.serving(_unused) as server, rest(server.rest_url) as client:
            entry = {"symbol": "BTCUSDT", "status": "TRADING", "baseAsset": "BTC", "quoteAsset": "USDT"}
            server.rest = lambda _: (200, {}, json.dumps({"symbols": [entry]}).encode())
            assert [listing.symbol for listing in await fetch_listing(Binance(), client)] == ["BTC_USDT"]
            server.rest = lambda _: (200, {}, b"<html>")
            with pytest.raises(MessageError):
                await fetch_listing(Binance(), client)

    run(scenario())


def test_a_listing_of_several_pages_is_one(bench: Any, run: Any) -> None:
    """Each page is asked for in turn, and an instrument that is named twice is one."""

    async def scenario() -> None:
        async with bench.serving(_unused) as server, rest(server.rest_url, max_bytes=10_000) as client:
            exchange = Okx()
            body = exchange.write_listing(["BTC_USDT", "BTC_USDT-SWAP"]) or b""
            server.rest = lambda _: (200, {}, body)
            assert [listing.symbol for listing in await fetch_listing(exchange, client)] == [
                "BTC_USDT",
                "BTC_USDT-SWAP",
            ]
            assert [path.partition("instType=")[2] for path in server.requests] == ["SPOT", "SWAP", "FUTURES"]

    run(scenario())


def test_volumes_of_several_pages_are_one(bench: Any, run: Any) -> None:
    """Each page is asked for in turn; an exchange that gives no volumes says so, with what to do."""

    async def scenario() -> None:
        async with bench.serving(_unused) as server, rest(server.rest_url, max_bytes=10_000) as client:
            row = {"instType": "SPOT", "instId": "BTC-USDT", "volCcy24h": "5"}
            body = json.dumps({"code": "0", "msg": "", "data": [row]}).encode()
            server.rest = lambda _: (200, {}, body)
            assert await fetch_volumes(Okx(), client) == {"BTC-USDT": 5}
            assert [path.partition("instType=")[2] for path in server.requests] == ["SPOT", "SWAP", "FUTURES"]
            silent = Okx()
            silent.volumes_request = lambda: None  # type: ignore[method-assign]
            with pytest.raises(UsageError, match="all:USDT"):
                await fetch_volumes(silent, client)

    run(scenario())
