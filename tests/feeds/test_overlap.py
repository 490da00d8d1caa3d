"""Make-before-break: a connection is replaced and nothing is missing, nothing twice, and nothing in the ledger."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
import uvloop
from websockets.asyncio.server import ServerConnection

from collector.clock import SystemClock
from collector.events import Acknowledged, BookDelta, BookSnapshot, Kline, Liquidation, Rejected, Trade
from collector.exchanges.base import Limits, Listing, Subscription
from collector.exchanges.bybit import Bybit
from collector.exchanges.coinbase import Coinbase
from collector.exchanges.sim import Sim
from collector.feeds.feed import Feed
from collector.feeds.overlap import Overlap, QuietMoment
from collector.feeds.sink import ResumePoint
from collector.feeds.tracks import BookTrack, create_track
from collector.sim.exchange import Options, SimulatedExchange, serve_exchange
from collector.sim.faults import Fault

SYMBOLS = ["BTC_USDT", "ETH_USDT", "SOL_USDT"]
LISTINGS = [Listing(symbol, symbol.replace("_", ""), *symbol.split("_")) for symbol in SYMBOLS]


class Mortal(Sim):
    """The simulated exchange, whose connections the client replaces after four and a half seconds."""

    limits = Limits(1024, 200, 4, 300, 5.0, 60_000)


def trade(number: int | str, *, symbol: str = "BTC_USDT", ms: int = 0) -> Trade:
    return Trade(symbol, 1_000_000 + ms * 1000, "1", "1", "buy", number, 0)


def delta(first: int, last: int, *, bid: str = "99") -> BookDelta:
    return BookDelta("BTC_USDT", last * 1_000_000, first, last, None, [(bid, str(last))], [], 0)


class TestQuietMoment:
    def test_outside_the_window_it_never_comes_and_at_its_end_always(self) -> None:
        """However quiet it is before, nothing happens; however loud at the end, it does."""
        moment = QuietMoment(100, 110)
        assert not any(moment.due(second, 0) for second in range(100))
        loud = QuietMoment(100, 110)
        assert not any(loud.due(second, second**3) for second in range(110))
        assert loud.due(110, 110**3)

    @pytest.mark.parametrize("seed", range(5))
    def test_a_quiet_spell_in_the_window_is_chosen(self, seed: int) -> None:
        """Of a market that is loud but for a spell, that spell is the moment."""
        random = Random(seed)
        spell = random.randrange(1030, 1080)
        moment = QuietMoment(1000, 1100)
        messages, chosen = 0, None
        for second in range(1101):
            messages += 1 if spell <= second < spell + 10 else random.randrange(900, 1100)
            # One span in the window may always be the quietest so far; the spell is quieter than all of them.
            if moment.due(second, messages):
                chosen = second
                break
        assert chosen is not None, f"seed {seed}"
        assert 1000 <= chosen <= spell + 12, f"seed {seed}"


class TestOverlap:
    def overlap(self, bench: Any, *streams: str, exchange: Any = None, numbered: bool = True) -> tuple[Overlap, list]:
        tracks = [
            create_track(
                Subscription(stream, "BTC_USDT"),
                bench.sink,
                exchange or Sim(LISTINGS),
                ResumePoint(),
                reorder_grace_s=1,
            )
            for stream in streams
        ]
        return Overlap(tracks, book_numbered=numbered, cause="rotation"), tracks

    def feed(self, overlap: Overlap, track: Any, events: Sequence[Any], *, newer: bool) -> list[Any]:
        """Pass trades through the overlap and the track's own ids, as a feed does."""
        new = []
        for event in overlap.merge(events, newer=newer):
            track.received += 1
            track.last = event
            if track.accept(event):
                new.append(event.trade_id)
        return new

    def test_it_is_ready_once_both_have_the_same_trade(self, bench: Any) -> None:
        """Contiguous ids: the new one may be ahead; the hole that this leaves is the old one's to fill."""
        overlap, [track] = self.overlap(bench, "prices")
        assert self.feed(overlap, track, [trade(1), trade(2)], newer=False) == [1, 2]
        assert overlap.verdict(1, 30, alive=True) == "wait"
        assert self.feed(overlap, track, [trade(5), trade(6)], newer=True) == [5, 6]
        track.due(0)
        track.due(100)
        assert bench.sink.gaps == []
        assert overlap.verdict(1, 30, alive=True) == "wait"
        assert self.feed(overlap, track, [trade(3), trade(4), trade(5)], newer=False) == [3, 4]
        assert overlap.verdict(1, 30, alive=True) == "ready"
        assert overlap.hand_over(ready=True, cause="rotation") == []
        track.due(200)
        assert bench.sink.gaps == []

    def test_what_neither_brings_is_a_hole_of_the_rotation(self, bench: Any) -> None:
        """A number that neither connection brought is in the ledger, with the cause rotation."""
        overlap, [track] = self.overlap(bench, "prices")
        self.feed(overlap, track, [trade(1)], newer=False)
        self.feed(overlap, track, [trade(4)], newer=True)
        overlap.hand_over(ready=True, cause="rotation")
        track.due(0)
        track.due(2)
        assert bench.sink.holes() == [("rotation", 2, 3)]

    def test_ids_that_are_only_text_tell_trades_apart(self, bench: Any) -> None:
        """Bybit's ids are names: exactly those that came on both are dropped, and a common one proves the overlap."""
        overlap, [track] = self.overlap(bench, "prices", exchange=Bybit(LISTINGS))
        assert self.feed(overlap, track, [trade("a"), trade("b")], newer=False) == ["a", "b"]
        assert self.feed(overlap, track, [trade("c"), trade("d")], newer=True) == ["c", "d"]
        assert overlap.verdict(1, 30, alive=True) == "wait"
        assert self.feed(overlap, track, [trade("c")], newer=False) == []
        assert overlap.verdict(1, 30, alive=True) == "ready"
        overlap.hand_over(ready=True, cause="rotation")
        assert self.feed_alone(track, [trade("d"), trade("e")]) == ["e"]
        assert bench.sink.gaps == []

    def feed_alone(self, track: Any, trades: Sequence[Trade]) -> list[Any]:
        return [each.trade_id for each in trades if track.accept(each)]

    def test_names_without_a_common_one_are_a_row(self, bench: Any) -> None:
        """Where no number can tell and the two have nothing in common, something may be missing between them."""
        overlap, [track] = self.overlap(bench, "prices", exchange=Bybit(LISTINGS))
        self.feed(overlap, track, [trade("c", ms=5)], newer=True)
        assert overlap.verdict(1, 30, alive=True) == "wait"
        assert overlap.verdict(20, 30, alive=True) == "ready"
        overlap.hand_over(ready=True, cause="rotation")
        assert [(gap.cause, gap.to_us) for gap in bench.sink.gaps] == [("rotation", 1_005_000)]

    def test_a_new_connection_that_is_deaf_is_not_taken(self, bench: Any) -> None:
        """What the old one delivers and the new one does not keeps the old one."""
        overlap, [track] = self.overlap(bench, "prices")
        overlap.merge([Acknowledged(1)], newer=True)
        assert overlap.acknowledged
        self.feed(overlap, track, [trade(1), trade(2)], newer=False)
        assert overlap.verdict(29, 30, alive=True) == "wait"
        assert overlap.verdict(30, 30, alive=True) == "deaf"
        assert overlap.lacking() == [track]

    def test_a_quiet_stream_needs_a_sign_of_life_only(self, bench: Any) -> None:
        """Where neither says anything the acknowledgement will do; a refusal never does."""
        overlap, _ = self.overlap(bench, "prices", "klines")
        assert overlap.verdict(1, 30, alive=True) == "wait"
        assert overlap.verdict(6, 30, alive=False) == "wait"
        assert overlap.verdict(6, 30, alive=True) == "ready"
        overlap.merge([Rejected(1, "2", "no")], newer=True)
        assert overlap.verdict(6, 30, alive=True) == "deaf"

    def test_an_ending_before_the_time_interrupts_what_was_not_handed_over(self, bench: Any) -> None:
        """The old connection went before the new one delivered a stream: that one may have missed something."""
        overlap, [prices, _] = self.overlap(bench, "prices", "klines")
        self.feed(overlap, prices, [trade(1)], newer=False)
        interrupted = overlap.hand_over(ready=False, cause="disconnect")
        assert {track.stream for track in interrupted} == {"prices", "klines"}
        assert self.feed_alone(prices, [trade(4)]) == [4]
        prices.due(0)
        prices.due(2)
        assert bench.sink.holes() == [("disconnect", 2, 3)]

    def test_what_has_no_id_is_told_apart_by_all_it_says(self, bench: Any) -> None:
        """The same liquidation twice on each connection is two; a candle's state that both push is one."""
        overlap, _ = self.overlap(bench, "klines")
        same = Liquidation("BTC_USDT", 1, "1", "2", "sell", 10)
        kline = Kline("BTC_USDT", "1m", 0, "1", "1", "1", "1", "1", None, None, None, False, 5, 6)
        old = overlap.merge([same, same, kline], newer=False)
        new = overlap.merge([same, same, same, kline], newer=True)
        assert (len(old), len(new)) == (3, 1)

    def test_a_book_goes_on_from_whoever_is_ahead(self, bench: Any) -> None:
        """Changes of the one that is ahead wait for the other; no snapshot is asked for, and no level is wrong."""
        overlap, [book] = self.overlap(bench, "orderbook")
        assert isinstance(book, BookTrack)
        book.take_delta(delta(1, 10))
        book.take_snapshot(BookSnapshot("BTC_USDT", 0, 5, [("98", "1")], [("101", "1")], 0))
        taken: list[BookDelta] = []
        for event, newer in [
            (delta(11, 20), False),
            (delta(31, 40), True),
            (delta(41, 50), True),
            (delta(21, 30), False),
            (delta(31, 40), False),
            (delta(51, 60), True),
        ]:
            for each in overlap.merge([event], newer=newer):
                taken.append(each)
                book.take_delta(each)
        assert len(taken) == 6
        assert book.synchronised
        assert overlap.verdict(1, 30, alive=True) == "ready"
        overlap.hand_over(ready=True, cause="rotation")
        assert book.sync.book.top(1)[0] == [("99", "60")]
        assert bench.sink.gaps == []

    def test_a_break_that_neither_mends_is_a_resynchronisation(self, bench: Any) -> None:
        """What is still ahead at the end of the overlap breaks the book, with the cause rotation."""
        overlap, [book] = self.overlap(bench, "orderbook")
        assert isinstance(book, BookTrack)
        book.take_delta(delta(1, 10))
        book.take_snapshot(BookSnapshot("BTC_USDT", 0, 5, [("98", "1")], [("101", "1")], 0))
        for each in overlap.merge([delta(31, 40)], newer=True):
            book.take_delta(each)
        assert book.synchronised
        overlap.hand_over(ready=True, cause="rotation")
        assert not book.synchronised
        book.take_snapshot(BookSnapshot("BTC_USDT", 0, 35, [("98", "1")], [("101", "1")], 0))
        assert [(gap.cause, gap.from_id, gap.to_id) for gap in bench.sink.gaps] == [("rotation", 11, 30)]

    def test_a_book_without_ids_stays_with_the_old_connection(self, bench: Any) -> None:
        """The new one's snapshot and changes are kept, and are the book once the old one has gone."""
        overlap, [book] = self.overlap(bench, "orderbook", exchange=Coinbase(LISTINGS), numbered=False)
        assert isinstance(book, BookTrack)
        book.take_pushed_snapshot(BookSnapshot("BTC_USDT", 1_000_000, 1_000_000, [("98", "1")], [("101", "1")], 0))
        snapshot = BookSnapshot("BTC_USDT", 2_000_000, 2_000_000, [("98", "2")], [("101", "2")], 0)
        change = BookDelta("BTC_USDT", 3_000_000, 3_000_000, 3_000_000, None, [("97", "3")], [], 0)
        assert overlap.merge([snapshot, change], newer=True) == []
        for each in overlap.merge([change], newer=False):
            book.take_delta(each)
        assert book.sync.book.top(2)[0] == [("98", "1"), ("97", "3")]
        assert overlap.verdict(1, 30, alive=True) == "ready"
        overlap.hand_over(ready=True, cause="rotation")
        assert book.sync.book.top(2)[0] == [("98", "2"), ("97", "3")]
        assert bench.sink.gaps == []


def feed_of(bench: Any, server: SimulatedExchange, exchange: Any = None, **changes: Any) -> Feed:
    exchange = exchange or Mortal(LISTINGS)
    return Feed(
        exchange,
        [Subscription(stream, symbol) for stream in ("prices", "orderbook", "klines") for symbol in SYMBOLS],
        bench.sink,
        config=bench.settings(**{"overlap_timeout_s": 20, "reorder_grace_s": 1, "snapshots_per_s": 100, **changes}),
        clock=SystemClock(),
        log=bench.log,
        ws_url=server.ws_url,
        rest_url=server.rest_url,
    )


def require_truth(bench: Any, server: SimulatedExchange) -> None:
    """Compare every trade with the market's own, and the last book rows with its books."""
    for symbol in SYMBOLS:
        instrument = server.market.by_native[symbol.replace("_", "")]
        got = [
            (each.trade_id, each.price, each.volume, each.side == "sell")
            for each in bench.sink.trades
            if each.symbol == symbol
        ]
        truth = [
            (each.id, instrument.price_text(each.ticks), instrument.lot_text(each.lots), each.maker)
            for each in instrument.trades(got[0][0], got[-1][0] + 1)
        ]
        assert sorted(got) == truth
        rows = [top for top in bench.sink.books if top.symbol == symbol]
        assert len(rows) > 10
        for row in rows[-10:]:
            bucket = instrument.bucket_at(row.timestamp_us)
            books = [instrument.book(near) for near in range(bucket - 3, bucket + 4)]
            book = next(each for each in books if each.last_id == row.update_id)
            assert row.bids == [
                (instrument.price_text(price), instrument.lot_text(lots)) for price, lots in book.bids[: len(row.bids)]
            ]


def test_rotations_under_load_lose_nothing(bench: Any) -> None:
    """At 2,000 trades a second three rotations leave the exchange's own record, no gap and no snapshot."""

    async def scenario() -> None:
        options = Options(symbols=SYMBOLS, rate=2000, connection_life_s=30)
        async with asyncio.timeout(60), serve_exchange(options) as server:
            feed = feed_of(bench, server)
            async with bench.running(feed):
                await bench.until(lambda: feed.status().connections[0].rotations >= 3)
                await asyncio.sleep(1)
                status = feed.status()
            assert bench.sink.gaps == []
            assert (status.connections[0].reconnects, status.connections[0].rotations >= 3) == (0, True)
            assert server.counts["connections"] == 1 + status.connections[0].rotations
            assert status.rest_requests == len(SYMBOLS), "a book was fetched anew"
            assert sum(stream.duplicates for stream in status.streams) > 0, "the two never overlapped"
            assert [link.ending for link in server._records] == [""] * len(server._records)
            require_truth(bench, server)

    uvloop.run(scenario())


def test_an_announced_shutdown_is_followed_without_a_gap(bench: Any) -> None:
    """serverShutdown, and five seconds later the end: by then the successor has everything."""

    async def scenario() -> None:
        async with asyncio.timeout(60), serve_exchange(Options(symbols=SYMBOLS, rate=500)) as server:
            feed = feed_of(bench, server, Sim(LISTINGS))
            async with bench.running(feed):
                await bench.until(lambda: len(bench.sink.books) > 30)
                server.faults.add(Fault(kind="shutdown", connection=1, seconds=5))
                await bench.until(lambda: feed.status().connections[0].rotations == 1)
                before = len(bench.sink.trades)
                await bench.until(lambda: len(bench.sink.trades) > before + 500)
            assert bench.sink.gaps == []
            assert feed.status().connections[0].reconnects == 0
            require_truth(bench, server)

    uvloop.run(scenario())


def test_a_successor_that_is_deaf_is_given_up_and_the_next_one_taken(bench: Any) -> None:
    """The second connection lacks a symbol's trades: the first goes on, and a third one takes over."""

    async def scenario() -> None:
        options = Options(symbols=SYMBOLS, rate=300, faults=[])
        async with asyncio.timeout(60), serve_exchange(options) as server:
            feed = feed_of(bench, server, Sim(LISTINGS), overlap_timeout_s=2)
            async with bench.running(feed):
                await bench.until(lambda: len(bench.sink.books) > 30)
                server.faults.add(Fault(kind="silent", channel="ethusdt@aggTrade"))
                assert not await feed.replace_connections()
                assert bench.log.named("feed.successor_given_up")[0]["lacking"] == ["ETH_USDT"]
                assert await feed.replace_connections()
                await bench.until(lambda: server.status()["clients"] == 1)
            assert bench.sink.gaps == []
            require_truth(bench, server)

    uvloop.run(scenario())


def test_connections_move_to_another_address_without_a_gap(bench: Any, words: Any, run: Any) -> None:
    """A planned change of the endpoint: both deliver for a moment, then only the new address does."""

    async def old(connection: ServerConnection, _: int) -> None:
        await words.subscribed(connection)
        for number in range(1, 10_000):
            await connection.send(words.trade(number))
            await asyncio.sleep(0.002)

    async def new(connection: ServerConnection, _: int) -> None:
        await words.subscribed(connection)
        first = int(bench.sink.ids()[-1])
        for number in range(first - 5, 20_000):
            await connection.send(words.trade(number))
            await asyncio.sleep(0.001)

    async def scenario() -> None:
        async with bench.serving(old) as before, bench.serving(new) as after, bench.running(bench.feed(before)) as feed:
            await bench.until(lambda: len(bench.sink.trades) > 100)
            assert await feed.replace_connections(after.ws_url)
            await bench.until(lambda: len(bench.sink.trades) > 1000)
            assert feed.status().connections[0].url.startswith(after.ws_url)
        assert bench.sink.gaps == []
        assert sorted(bench.sink.ids()) == list(range(1, len(bench.sink.ids()) + 1))

    run(scenario())


def test_a_refused_successor_costs_nothing(bench: Any, words: Any, run: Any) -> None:
    """Where the exchange refuses the second connection the first one goes on, and nobody asks at once again."""

    async def behave(connection: ServerConnection, number: int) -> None:
        await words.subscribed(connection)
        if number == 0:
            await words.send_trades(connection, [1, 2])
            await connection.send(json.dumps({"e": "serverShutdown", "E": 1}))
            await asyncio.sleep(0.5)
            await words.send_trades(connection, [3])
        await connection.wait_closed()

    async def scenario() -> None:
        async with bench.serving(behave) as server:
            feed = bench.feed(server)
            async with bench.running(feed):
                await bench.until(lambda: bench.sink.ids() == [1, 2])
                server.refuse = [(503, {}, b"")] * 100
                await bench.until(lambda: bench.sink.ids() == [1, 2, 3])
                assert len(server.handshakes) <= 3
                assert feed.status().connections[0].state == "open"
        assert bench.sink.gaps == []

    run(scenario())


def test_a_connection_that_reaches_its_age_is_ended(bench: Any) -> None:
    """The simulated exchange ends what nobody replaced in time, and the feed comes back by itself."""

    async def scenario() -> None:
        options = Options(symbols=SYMBOLS, rate=100, connection_life_s=1)
        async with asyncio.timeout(30), serve_exchange(options) as server:
            feed = feed_of(bench, server, Sim(LISTINGS))
            async with bench.running(feed):
                await bench.until(lambda: feed.status().connections[0].reconnects >= 1)
                assert "too old" in feed.status().connections[0].last_error
            assert server._records[0].ending == "age"

    uvloop.run(scenario())
