"""Feeds against a loopback exchange: whatever happens to the connection, what is in the sink is exact."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest
from websockets.asyncio.server import ServerConnection

from collector.exchanges.base import Limits
from collector.exchanges.binance import Binance
from collector.feeds.feed import ResumePoint


async def _unused(*_: Any) -> None:
    """Serve no websockets."""


async def _stay(connection: ServerConnection) -> None:
    await connection.wait_closed()


def test_trades_arrive_in_order_and_a_recording_ends_the_feed(bench: Any, words: Any, run: Any) -> None:
    """Every trade is in the sink when the server ends the replay, and run() returns by itself."""

    async def behave(connection: ServerConnection, _: int) -> None:
        assert await words.subscribed(connection) == ["btcusdt@aggTrade"]
        await words.send_trades(connection, range(1, 501))
        await words.end_recording(connection)

    async def scenario() -> None:
        async with bench.serving(behave) as server:
            feed = bench.feed(server)
            await feed.run()
        assert feed.finished.is_set()
        assert feed.first_data.is_set()
        assert bench.sink.ids() == list(range(1, 501))
        assert bench.sink.gaps == []
        assert bench.sink.observed["BTC_USDT"] == words.t0_us + 500_000
        assert feed.status().connections[0].state == "closed"

    run(scenario())


def test_a_reconnect_reports_exactly_what_was_missed(bench: Any, words: Any, run: Any) -> None:
    """Trades of before and after a disconnect are both there, repeats are not, and the ledger has the ids between."""

    async def behave(connection: ServerConnection, number: int) -> None:
        await words.subscribed(connection)
        if number == 0:
            await words.send_trades(connection, [1, 2, 3])
            await connection.close(1001, "maintenance")
        else:
            await words.send_trades(connection, [2, 3, 8, 9])
            await _stay(connection)

    async def scenario() -> None:
        async with bench.serving(behave) as server, bench.running(bench.feed(server)) as feed:
            await bench.until(lambda: bench.sink.gaps)
            status = feed.status()
            assert status.connections[0].reconnects == 1
            assert "maintenance" in status.connections[0].last_error
            assert (status.streams[0].received, status.streams[0].duplicates) == (7, 2)
        assert bench.sink.ids() == [1, 2, 3, 8, 9]
        gap = bench.sink.gaps[0]
        assert (gap.cause, gap.from_id, gap.to_id, gap.expected_rows) == ("disconnect", 4, 7, 4)
        assert (gap.from_us, gap.to_us) == (words.t0_us + 3_000, words.t0_us + 8_000)
        assert len(bench.sink.gaps) == 1

    run(scenario())


def test_a_reconnect_that_lost_nothing_is_no_gap(bench: Any, words: Any, run: Any) -> None:
    """Where the ids go on, nothing was lost and nothing is reported."""

    async def behave(connection: ServerConnection, number: int) -> None:
        await words.subscribed(connection)
        await words.send_trades(connection, [1, 2] if number == 0 else [3, 4])
        await (connection.close(1000) if number == 0 else _stay(connection))

    async def scenario() -> None:
        async with bench.serving(behave) as server, bench.running(bench.feed(server)):
            await bench.until(lambda: bench.sink.ids() == [1, 2, 3, 4])
        assert bench.sink.gaps == []

    run(scenario())


def test_resuming_drops_the_known_and_reports_the_missing(bench: Any, words: Any, run: Any) -> None:
    """A feed goes on from a resume point: recorded ids stay out, holes are filled, new ones are told."""

    async def behave(connection: ServerConnection, _: int) -> None:
        await words.subscribed(connection)
        await words.send_trades(connection, [5, 6, 7, 10, 14])
        await words.end_recording(connection)

    async def scenario() -> None:
        async with bench.serving(behave) as server:
            resume = {"BTC_USDT": ResumePoint(last_trade_id=10, holes=((6, 6),), last_trade_us=words.t0_us)}
            await bench.feed(server, resume=resume).run()
        assert bench.sink.ids() == [6, 14]
        assert sorted(bench.sink.holes()) == [("restart", 11, 13), ("sequence", 6, 6)]
        assert {gap.from_id: (gap.state, gap.from_us) for gap in bench.sink.gaps} == {
            6: ("repaired", words.t0_us + 6_000),
            11: ("open", words.t0_us),
        }

    run(scenario())


def test_a_deaf_connection_is_replaced(bench: Any, words: Any, run: Any) -> None:
    """A server that answers pings and sends nothing is left after the stall timeout, with cause stall."""

    async def behave(connection: ServerConnection, number: int) -> None:
        await words.subscribed(connection)
        await words.send_trades(connection, [1] if number == 0 else [5])
        await _stay(connection)

    async def scenario() -> None:
        settings = {"stall_timeout_s": 0.15, "ping_interval_s": 0.02, "ping_timeout_s": 5}
        async with bench.serving(behave) as server, bench.running(bench.feed(server, settings=settings)):
            await bench.until(lambda: bench.sink.gaps)
        assert bench.sink.holes()[0] == ("stall", 2, 4)
        assert bench.log.named("feed.connection_stalled")

    run(scenario())


def test_dead_tcp_is_replaced(bench: Any, words: Any, run: Any) -> None:
    """A peer that does not even answer pings is left after the ping timeout."""

    async def behave(connection: ServerConnection, number: int) -> None:
        await words.subscribed(connection)
        await words.send_trades(connection, [1] if number == 0 else [3])
        if number == 0:
            connection.transport.pause_reading()
        await _stay(connection)

    async def scenario() -> None:
        settings = {"ping_interval_s": 0.05, "ping_timeout_s": 0.1, "close_timeout_s": 0.05}
        async with bench.serving(behave) as server, bench.running(bench.feed(server, settings=settings)):
            await bench.until(lambda: bench.sink.gaps)
            server.server.close()
        assert bench.sink.holes() == [("disconnect", 2, 2)]

    run(scenario())


def test_unreadable_messages_cost_only_themselves(bench: Any, words: Any, run: Any) -> None:
    """Garbage is counted and the connection goes on; a hole it leaves is blamed on it where it names its symbol."""

    async def behave(connection: ServerConnection, _: int) -> None:
        await words.subscribed(connection)
        await words.send_trades(connection, [1])
        await connection.send("{nonsense")
        await connection.send(b"\xff\xfe")
        await words.send_trades(connection, [2])
        await connection.send(words.trade(3).replace('"100.5"', "null"))
        await words.send_trades(connection, [4])
        await words.end_recording(connection)

    async def scenario() -> None:
        async with bench.serving(behave) as server:
            feed = bench.feed(server)
            await feed.run()
            assert server.opened == 1
        assert bench.sink.ids() == [1, 2, 4]
        assert bench.sink.holes() == [("malformed", 3, 3)]
        assert feed.status().connections[0].malformed == 3
        complaints = bench.log.named("feed.message_malformed")
        assert len(complaints) == 1
        assert complaints[0]["sample"] == "{nonsense"

    run(scenario())


def test_an_oversized_message_costs_a_reconnect(bench: Any, words: Any, run: Any) -> None:
    """A message beyond the limit ends the connection with 1009, and the next one goes on."""

    async def behave(connection: ServerConnection, number: int) -> None:
        await words.subscribed(connection)
        await words.send_trades(connection, [1] if number == 0 else [2])
        if number == 0:
            await connection.send("x" * 5000)
        await _stay(connection)

    async def scenario() -> None:
        async with bench.serving(behave) as server:
            feed = bench.feed(server, settings={"max_message_bytes": 2000})
            async with bench.running(feed):
                await bench.until(lambda: bench.sink.ids() == [1, 2])
                assert "1009" in feed.status().connections[0].last_error
                assert feed.status().connections[0].oversized == 1
        assert bench.sink.gaps == []

    run(scenario())


def test_a_bug_is_logged_and_costs_one_reconnect(bench: Any, words: Any, run: Any) -> None:
    """What a sink or a parser raises by mistake restarts that connection, and the feed lives."""
    add_trade = bench.sink.add_trade

    def add_or_fail(trade: Any) -> None:
        if trade.trade_id == 2:
            bench.sink.add_trade = add_trade
            raise KeyError(trade.trade_id)
        add_trade(trade)

    bench.sink.add_trade = add_or_fail

    async def behave(connection: ServerConnection, number: int) -> None:
        await words.subscribed(connection)
        await words.send_trades(connection, [1, 2] if number == 0 else [3, 5])
        await _stay(connection)

    async def scenario() -> None:
        async with bench.serving(behave) as server, bench.running(bench.feed(server)):
            await bench.until(lambda: len(bench.log.named("feed.bug")) >= 2 or 5 in bench.sink.ids())
        assert isinstance(bench.log.named("feed.bug")[0]["exc_info"], KeyError)

    run(scenario())


def test_refused_handshakes_are_waited_out(bench: Any, words: Any, run: Any) -> None:
    """After a 429 nobody connects before its Retry-After has passed, and the feed comes through in the end."""

    async def behave(connection: ServerConnection, _: int) -> None:
        await words.subscribed(connection)
        await words.send_trades(connection, [1])
        await _stay(connection)

    async def scenario() -> None:
        async with bench.serving(behave) as server:
            server.refuse = [(429, {"Retry-After": "0.4"}, b""), (418, {"Retry-After": "0.2"}, b""), (503, {}, b"")]
            async with bench.running(bench.feed(server)) as feed:
                await bench.until(lambda: feed.status().connections[0].last_error)
                assert "429" in feed.status().connections[0].last_error
                assert feed.status().banned_s > 0
                await bench.until(lambda: bench.sink.ids() == [1])
            first, second, third, _ = server.handshakes
            assert second - first >= 0.4
            assert third - second >= 0.2

    run(scenario())


def test_nobody_listens_for_a_while(bench: Any, words: Any, run: Any) -> None:
    """An exchange that cannot be reached is tried until it can."""

    async def behave(connection: ServerConnection, _: int) -> None:
        await words.subscribed(connection)
        await words.send_trades(connection, [1])
        await _stay(connection)

    async def scenario() -> None:
        async with bench.serving(behave) as gone:
            address = gone.ws_url
        async with bench.serving(behave) as server:
            feed = bench.feed(server, ws_url=address)
            async with bench.running(feed):
                await bench.until(lambda: len(bench.log.named("feed.connection_failed")) >= 2)
                assert "cannot be reached" in feed.status().connections[0].last_error
                assert not feed.first_data.is_set()

    run(scenario())


def test_shutdown_notice_is_followed_at_once(bench: Any, words: Any, run: Any) -> None:
    """An announced shutdown is answered by a reconnect without a delay, and named in the ledger."""

    async def behave(connection: ServerConnection, number: int) -> None:
        await words.subscribed(connection)
        await words.send_trades(connection, [1] if number == 0 else [3])
        if number == 0:
            await connection.send(json.dumps({"e": "serverShutdown", "E": 1_723_000_000_000}))
        await _stay(connection)

    async def scenario() -> None:
        settings = {"backoff_initial_s": 60, "backoff_cap_s": 60}
        async with bench.serving(behave) as server, bench.running(bench.feed(server, settings=settings)):
            await bench.until(lambda: bench.sink.gaps)
        assert bench.sink.holes() == [("exchange_maintenance", 2, 2)]

    run(scenario())


def test_a_connection_is_replaced_before_its_life_ends(
    bench: Any, words: Any, run: Any, loopback_exchange: type
) -> None:
    """Where the exchange ends connections after a while, ours is replaced before, with cause rotation."""

    class Mortal(loopback_exchange):  # type: ignore[misc]
        limits = Limits(1024, 200, 1000, 300, 0.3, 60_000)

    async def behave(connection: ServerConnection, number: int) -> None:
        await words.subscribed(connection)
        await words.send_trades(connection, [1] if number == 0 else [number + 2])
        await _stay(connection)

    async def scenario() -> None:
        async with bench.serving(behave) as server, bench.running(bench.feed(server, exchange_class=Mortal)):
            await bench.until(lambda: bench.sink.gaps)
        assert bench.sink.holes()[0] == ("rotation", 2, 2)

    run(scenario())


def test_a_silent_subscription_is_told_once_and_keeps_the_connection(bench: Any, words: Any, run: Any) -> None:
    """A stream without data is a warning and an open gap until its first event; the others are not disturbed."""
    speak = asyncio.Event()

    async def behave(connection: ServerConnection, _: int) -> None:
        await words.subscribed(connection)
        await words.send_trades(connection, [1])
        await speak.wait()
        await connection.send(words.trade(7, native="ETHUSDT", ms=50_000))
        await _stay(connection)

    async def scenario() -> None:
        async with bench.serving(behave) as server:
            feed = bench.feed(server, "prices/BTC_USDT", "prices/ETH_USDT", settings={"first_data_timeout_s": 0.1})
            async with bench.running(feed):
                await bench.until(lambda: bench.sink.gaps)
                states = {stream.symbol: stream.state for stream in feed.status().streams}
                assert states == {"BTC_USDT": "live", "ETH_USDT": "silent"}
                speak.set()
                await bench.until(lambda: len(bench.sink.gaps) == 2)
                assert {stream.state for stream in feed.status().streams} == {"live"}
            assert server.opened == 1
        opened, closed = bench.sink.gaps
        assert (opened.symbol, opened.stream, opened.cause, opened.to_us) == (
            "ETH_USDT", "prices", "silent_subscription", None,
        )  # fmt: skip
        assert closed.from_us == opened.from_us
        assert closed.to_us == words.t0_us + 50_000_000
        assert len(bench.log.named("feed.subscription_silent")) == 1

    run(scenario())


def test_a_rejected_subscription_leaves_the_others_alone(
    bench: Any, words: Any, run: Any, loopback_exchange: type
) -> None:
    """The symbols of a refused frame are marked and in the ledger; the rest is collected."""

    class OneChannelPerFrame(loopback_exchange):  # type: ignore[misc]
        limits = Limits(1024, 1, 1000, 300, None, 60_000)

    async def behave(connection: ServerConnection, _: int) -> None:
        for number in range(2):
            asked = json.loads(await connection.recv())
            if number == 0:
                await connection.send(json.dumps({"id": asked["id"], "error": {"code": 2, "msg": "Invalid request"}}))
            else:
                await connection.send(json.dumps({"result": None, "id": asked["id"]}))
        await connection.send(words.trade(1, native="ETHUSDT"))
        await _stay(connection)

    async def scenario() -> None:
        async with bench.serving(behave) as server:
            feed = bench.feed(server, "prices/BTC_USDT", "prices/ETH_USDT", exchange_class=OneChannelPerFrame)
            async with bench.running(feed):
                await bench.until(lambda: bench.sink.gaps and bench.sink.trades)
                states = {stream.symbol: stream.state for stream in feed.status().streams}
                await bench.until(lambda: feed.status().streams[1].state == "live")
                assert states["BTC_USDT"] == "rejected"
            assert server.opened == 1
        opened, closed = bench.sink.gaps
        assert (opened.symbol, opened.cause, opened.to_us) == ("BTC_USDT", "rejected", None)
        assert (closed.from_us, closed.state) == (opened.from_us, "open")
        assert closed.to_us is not None
        assert "Invalid request" in bench.sink.gaps[0].detail
        assert bench.log.named("feed.subscription_rejected")[0]["symbols"] == ["BTC_USDT"]

    run(scenario())


def test_subscriptions_refused_together_are_asked_for_one_by_one(bench: Any, words: Any, run: Any) -> None:
    """One bad symbol in a frame costs only itself: the others are subscribed to by themselves."""
    asked: list[list[str]] = []

    async def behave(connection: ServerConnection, _: int) -> None:
        while len(asked) < 4:
            frame = json.loads(await connection.recv())
            asked.append(frame["params"])
            refused = any(channel.startswith("ethusdt") for channel in frame["params"])
            answer = {"error": {"code": 2, "msg": "no such symbol"}} if refused else {"result": None}
            await connection.send(json.dumps({"id": frame["id"], **answer}))
        await connection.send(words.trade(1))
        await connection.send(words.trade(1, native="BNBUSDT"))
        await _stay(connection)

    async def scenario() -> None:
        async with bench.serving(behave) as server:
            feed = bench.feed(server, "prices/BTC_USDT", "prices/ETH_USDT", "prices/BNB_USDT")
            async with bench.running(feed):
                await bench.until(lambda: [stream.state for stream in feed.status().streams].count("live") == 2)
                assert [stream.state for stream in feed.status().streams] == ["live", "rejected", "live"]
            assert server.opened == 1
        assert [len(channels) for channels in asked] == [3, 1, 1, 1]
        assert {gap.symbol for gap in bench.sink.gaps} == {"ETH_USDT"}

    run(scenario())


def test_an_outage_is_in_the_ledger_while_it_lasts(bench: Any, words: Any, run: Any) -> None:
    """A connection that doesn't come back opens a gap with no end; the ids close that very gap later."""

    async def behave(connection: ServerConnection, number: int) -> None:
        await words.subscribed(connection)
        await words.send_trades(connection, [1, 2] if number == 0 else [6])
        if number == 0:
            server.refuse = [(503, {}, b"")] * 1000
            connection.transport.abort()
        await _stay(connection)

    async def scenario() -> None:
        nonlocal server
        async with (
            bench.serving(behave) as server,
            bench.running(bench.feed(server, settings={"first_data_timeout_s": 0.3})),
        ):
            await bench.until(lambda: bench.sink.gaps)
            server.refuse = []
            await bench.until(lambda: len(bench.sink.gaps) == 2)
        opened, closed = bench.sink.gaps
        assert (opened.cause, opened.from_us, opened.to_us) == ("disconnect", words.t0_us + 2_000, None)
        assert (closed.cause, closed.from_us, closed.to_us) == ("disconnect", words.t0_us + 2_000, words.t0_us + 6_000)
        assert (closed.from_id, closed.to_id) == (3, 5)

    server: Any = None
    run(scenario())


def test_a_stop_while_disconnected_leaves_the_rest_as_a_gap(bench: Any, words: Any, run: Any) -> None:
    """What was missed between the last connection and the stop is in the ledger, with both ends."""

    async def behave(connection: ServerConnection, number: int) -> None:
        await words.subscribed(connection)
        await words.send_trades(connection, [1])
        server.refuse = [(503, {}, b"")] * 1000
        connection.transport.abort()

    async def scenario() -> None:
        nonlocal server
        async with bench.serving(behave) as server, bench.running(bench.feed(server)):
            await bench.until(lambda: len(server.handshakes) > 1)
        closed = bench.sink.gaps[-1]
        assert (closed.cause, closed.from_us, closed.state) == ("disconnect", words.t0_us + 1_000, "open")
        assert closed.to_us is not None
        assert closed.to_us >= words.t0_us + 1_000

    server: Any = None
    run(scenario())


def test_a_stop_does_not_wait_for_a_handshake(bench: Any, run: Any) -> None:
    """A server that accepts and says nothing doesn't hold up a stop."""

    async def scenario() -> None:
        with socket.socket() as mute:
            mute.bind(("127.0.0.1", 0))
            mute.listen()
            async with bench.serving(_unused) as server:
                url = f"ws://127.0.0.1:{mute.getsockname()[1]}"
                feed = bench.feed(server, ws_url=url, settings={"open_timeout_s": 3600})
                async with bench.running(feed):
                    await bench.until(lambda: feed.status().connections[0].state == "connecting")

    run(scenario())


def test_stop_passes_on_all_that_was_received(bench: Any, words: Any, run: Any) -> None:
    """What arrived before stop() is in the sink when it returns: trades, the last book row, the open holes."""

    async def behave(connection: ServerConnection, _: int) -> None:
        await words.subscribed(connection)
        await words.send_trades(connection, [*range(1, 100), 105])
        for number in range(11, 20):
            await connection.send(words.depth(number, number))
        await _stay(connection)

    async def scenario() -> None:
        async with bench.serving(behave) as server:
            server.rest = lambda _: words.snapshot(10)
            feed = bench.feed(server, "prices/BTC_USDT", "orderbook/BTC_USDT", settings={"reorder_grace_s": 60})
            async with bench.running(feed):
                await bench.until(lambda: feed.status().streams[1].synchronised)
                await bench.until(lambda: feed.status().streams[1].received == 9)
                assert bench.sink.books == []
                assert bench.sink.gaps == []
        assert bench.sink.ids() == [*range(1, 100), 105]
        assert bench.sink.holes() == [("sequence", 100, 104)]
        assert [top.update_id for top in bench.sink.books] == [19]
        assert bench.sink.books[0].bids[0] == ("100", "19.0")

    run(scenario())


def test_stop_before_anything_was_reached(bench: Any, run: Any) -> None:
    """A feed that waits for its next attempt stops at once, and one that never ran too."""

    async def behave(connection: ServerConnection, _: int) -> None:
        await _stay(connection)

    async def scenario() -> None:
        gone_url = "ws://127.0.0.1:9"
        async with bench.serving(behave) as server:
            feed = bench.feed(server, ws_url=gone_url, settings={"backoff_initial_s": 60, "backoff_cap_s": 60})
            async with bench.running(feed):
                await bench.until(lambda: bench.log.named("feed.connection_failed"))
            await bench.feed(server).stop()

    run(scenario())


def test_a_book_is_whole_after_failed_and_stale_snapshots(bench: Any, words: Any, run: Any) -> None:
    """Snapshots are asked for until one fits the changes that wait for it; the rows are as if the first had fitted."""

    async def behave(connection: ServerConnection, _: int) -> None:
        await words.subscribed(connection)
        for number in range(11, 31):
            await connection.send(words.depth(number, number, ms=number * 100))
        await _stay(connection)

    async def scenario() -> None:
        async with bench.serving(behave) as server:
            answers = [(503, {}, b"busy"), (200, {}, b"nonsense"), words.snapshot(5), words.snapshot(15)]
            server.rest = lambda _: answers.pop(0)
            async with bench.running(bench.feed(server, "orderbook/BTC_USDT")) as feed:
                await bench.until(lambda: feed.status().streams[0].synchronised)
                await bench.until(lambda: len(bench.sink.books) == 14)
            assert len(server.requests) == 4
            assert all("BTCUSDT" in path for path in server.requests)
        assert [top.update_id for top in bench.sink.books] == list(range(16, 31))
        assert bench.log.named("feed.snapshot_stale")[0]["update_id"] == 5
        assert bench.sink.gaps == []

    run(scenario())


def test_a_book_that_the_market_leaves_is_asked_for_again(
    bench: Any, words: Any, run: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two levels a side are fewer than a row has: other snapshots come under the changes, without a gap, counted."""
    monkeypatch.setattr(Binance, "snapshot_depth", 2)

    async def behave(connection: ServerConnection, _: int) -> None:
        await words.subscribed(connection)
        for number in range(11, 400):
            # The third level behind the snapshot's two is not known, and neither is what is set there.
            await connection.send(words.depth(number, number, ms=number * 100, bid="50"))
            await asyncio.sleep(0.005)
        await _stay(connection)

    async def scenario() -> None:
        async with bench.serving(behave) as server:
            answers = 0

            def answer(_: str) -> Any:
                nonlocal answers
                answers += 1
                return words.snapshot(10 if answers == 1 else 10 + 8 * answers)

            server.rest = answer
            async with bench.running(bench.feed(server, "orderbook/BTC_USDT")) as feed:
                await bench.until(lambda: answers >= 3)
                assert feed.status().streams[0].synchronised
                assert feed.status().streams[0].refreshes >= 1
        assert bench.sink.gaps == []
        assert all(price != "50" for top in bench.sink.books for price, _ in top.bids)

    run(scenario())


def test_only_the_broken_book_is_fetched_again(bench: Any, words: Any, run: Any) -> None:
    """A break in one symbol's sequence is its gap and its resync; the other book goes on."""

    async def behave(connection: ServerConnection, _: int) -> None:
        await words.subscribed(connection)
        for number in (11, 12):
            await connection.send(words.depth(number, number, ms=number * 100))
            await connection.send(words.depth(number, number, ms=number * 100, native="ETHUSDT"))
        await ready.wait()
        for number in (20, 21):
            await connection.send(words.depth(number, number, ms=number * 100))
        await connection.send(words.depth(13, 13, ms=1300, native="ETHUSDT"))
        await _stay(connection)

    async def scenario() -> None:
        async with bench.serving(behave) as server:
            last = {"BTCUSDT": 10, "ETHUSDT": 10}
            server.rest = lambda path: words.snapshot(last["BTCUSDT" if "BTCUSDT" in path else "ETHUSDT"])
            feed = bench.feed(server, "orderbook/BTC_USDT", "orderbook/ETH_USDT")
            async with bench.running(feed):
                await bench.until(lambda: all(stream.synchronised for stream in feed.status().streams))
                last["BTCUSDT"] = 20
                ready.set()
                await bench.until(lambda: bench.sink.gaps)
            assert sum("ETHUSDT" in path for path in server.requests) == 1
        assert [(gap.symbol, gap.stream, gap.cause, gap.from_id) for gap in bench.sink.gaps] == [
            ("BTC_USDT", "orderbook", "sequence", 13)
        ]

    ready = asyncio.Event()
    run(scenario())


def test_a_lost_connection_leaves_a_gap_in_the_book(bench: Any, words: Any, run: Any) -> None:
    """After a reconnect the book is fetched again, and the hole between is reported with both ends."""

    async def behave(connection: ServerConnection, number: int) -> None:
        await words.subscribed(connection)
        first = 11 if number == 0 else 31
        for update in range(first, first + 3):
            await connection.send(words.depth(update, update, ms=update * 100))
        if number == 0:
            await synchronised.wait()
            connection.transport.abort()
        await _stay(connection)

    async def scenario() -> None:
        async with bench.serving(behave) as server:
            server.rest = lambda _: words.snapshot(10 if server.opened == 1 else 30)
            async with bench.running(bench.feed(server, "orderbook/BTC_USDT")) as feed:
                await bench.until(lambda: feed.status().streams[0].synchronised)
                synchronised.set()
                await bench.until(lambda: bench.sink.gaps)
        gap = bench.sink.gaps[0]
        assert (gap.cause, gap.from_id, gap.to_id) == ("disconnect", 14, 30)
        assert (gap.from_us, gap.to_us) == (words.t0_us + 1_300_000, words.t0_us + 3_100_000)
        assert [top.update_id for top in bench.sink.books] == [11, 12, 13, 31, 32, 33]

    synchronised = asyncio.Event()
    run(scenario())


def test_a_slow_snapshot_holds_up_nobody_and_is_waited_for_at_the_end(bench: Any, words: Any, run: Any) -> None:
    """Trades flow while a snapshot is under way, and a replay that ends meanwhile still gets its book."""
    asked = asyncio.Event()

    async def slow(_: str) -> Any:
        asked.set()
        await bench.until(lambda: len(bench.sink.trades) == 50)
        return words.snapshot(10)

    async def behave(connection: ServerConnection, _: int) -> None:
        await words.subscribed(connection)
        await connection.send(words.depth(11, 11))
        await asked.wait()
        await words.send_trades(connection, range(1, 51))
        await words.end_recording(connection)

    async def scenario() -> None:
        async with bench.serving(behave) as server:
            server.rest = slow
            await bench.feed(server, "prices/BTC_USDT", "orderbook/BTC_USDT").run()
        assert [top.update_id for top in bench.sink.books] == [11]

    run(scenario())


def test_klines_are_passed_on(bench: Any, words: Any, run: Any) -> None:
    """The exchange's candles go to the sink, and are no matter for the ledger."""
    candle = {
        "t": 1_723_000_000_000, "T": 1_723_000_059_999, "s": "BTCUSDT", "i": "1m", "f": 1, "L": 2, "o": "1.0",
        "c": "2.0", "h": "3.0", "l": "0.5", "v": "9.0", "n": 2, "x": True, "q": "18.0", "V": "4.0", "Q": "8.0",
    }  # fmt: skip

    async def behave(connection: ServerConnection, _: int) -> None:
        assert await words.subscribed(connection) == ["btcusdt@kline_1m"]
        body = {"e": "kline", "E": 1_723_000_060_000, "s": "BTCUSDT", "k": candle}
        await connection.send(json.dumps({"stream": "btcusdt@kline_1m", "data": body}))
        await words.end_recording(connection)

    async def scenario() -> None:
        async with bench.serving(behave) as server:
            await bench.feed(server, "klines/BTC_USDT").run()
        assert [(kline.symbol, kline.close, kline.closed) for kline in bench.sink.klines] == [("BTC_USDT", "2.0", True)]
        assert bench.sink.observed == {"BTC_USDT": 1_723_000_060_000_000}

    run(scenario())


def test_everything_raw_is_recorded(bench: Any, words: Any, run: Any) -> None:
    """A recorder gets the connection's life, both directions, binary frames and REST answers, in their order."""
    lines: list[tuple[int | str, str, bytes | str]] = []

    class Keeper:
        def frame(self, received_ns: int, connection: int | str, kind: str, payload: bytes | str) -> None:
            assert received_ns > 10**18
            lines.append((connection, kind, payload))

    async def behave(connection: ServerConnection, _: int) -> None:
        await words.subscribed(connection)
        await connection.send(words.depth(11, 11))
        await bench.until(lambda: [line for line in lines if line[1] == "GET"])
        await connection.send(b"\x01")
        await words.end_recording(connection)

    async def scenario() -> None:
        async with bench.serving(behave) as server:
            server.rest = lambda _: words.snapshot(10)
            await bench.feed(server, "orderbook/BTC_USDT", recorder=Keeper()).run()
            assert lines[0] == (1, "+", server.ws_url + "/stream")
        assert [kind for _, kind, _ in lines] == ["+", ">", "<", "<", "GET", "b", "-"]
        assert lines[3][2] == words.depth(11, 11).encode()
        assert str(lines[4][0]) == "http"
        assert bytes(lines[4][2]).startswith(b"200 http://127.0.0.1")

    run(scenario())


def test_many_messages_share_few_connections(bench: Any, words: Any, run: Any, loopback_exchange: type) -> None:
    """Subscriptions are spread over connections, and the end of a replay is the end of all of them."""

    class Narrow(loopback_exchange):  # type: ignore[misc]
        limits = Limits(1, 200, 1000, 300, None, 60_000)

    async def behave(connection: ServerConnection, _: int) -> None:
        channel = (await words.subscribed(connection))[0]
        await connection.send(words.trade(1, native=channel.partition("@")[0].upper()))
        await words.end_recording(connection)

    async def scenario() -> None:
        async with bench.serving(behave) as server:
            feed = bench.feed(server, "prices/BTC_USDT", "prices/ETH_USDT", exchange_class=Narrow)
            await feed.run()
            assert server.opened == 2
        assert sorted(trade.symbol for trade in bench.sink.trades) == ["BTC_USDT", "ETH_USDT"]
        assert [stream.connection for stream in feed.status().streams] == [1, 2]

    run(scenario())


@pytest.mark.parametrize("wanted", [(), ("prices/BTC_USDT",)])
def test_status_before_and_after(bench: Any, words: Any, run: Any, wanted: tuple[str, ...]) -> None:
    """A status can be asked for at any time; the latency is receipt minus exchange time, whatever the clocks."""

    async def behave(connection: ServerConnection, _: int) -> None:
        await words.subscribed(connection)
        await connection.send(words.trade(1, ms=10**12))
        await words.end_recording(connection)

    async def scenario() -> None:
        async with bench.serving(behave) as server:
            feed = bench.feed(server, *wanted)
            before = feed.status()
            assert before.connections[0].last_frame_age_s is None
            assert before.streams[0].last_event_us is None
            await feed.run()
            after = feed.status().streams[0]
            assert after.last_price == "100.5"
            assert after.latency_us is not None
            assert after.latency_us < 0
            assert after.latency_mean_us == after.latency_us

    run(scenario())
