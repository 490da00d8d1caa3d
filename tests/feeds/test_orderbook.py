"""Local order books: levels, rows, gaps, and that nothing depends on when the snapshot came."""

from __future__ import annotations

import gzip
import json
import os
import random as random_module
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from random import Random

import pytest
from hypothesis import Phase, event, given, settings
from hypothesis import strategies as st

from collector.events import BookDelta, BookSnapshot, BookTop, Gap, Level
from collector.exchanges.base import Checksum, Listing
from collector.exchanges.binance import SpotBookRule
from collector.exchanges.binance_futures import FuturesBookRule
from collector.exchanges.registry import create_exchange
from collector.feeds.orderbook import Book, BookSide, BookSync

BUCKET = 100_000
SYMBOL = "BTC_USDT"


def snapshot(last_id: int, bids: Sequence[Level] = (), asks: Sequence[Level] = ()) -> BookSnapshot:
    return BookSnapshot(SYMBOL, 0, last_id, list(bids), list(asks), 0)


def delta(
    first: int,
    last: int,
    bids: Sequence[Level] = (),
    asks: Sequence[Level] = (),
    *,
    us: int | None = None,
    previous: int | None = None,
) -> BookDelta:
    """Return a change; its time is the last id's bucket where none is given."""
    return BookDelta(SYMBOL, last * BUCKET if us is None else us, first, last, previous, list(bids), list(asks), last)


def spot(**options: object) -> BookSync:
    return BookSync(SYMBOL, SpotBookRule(), **options)  # type: ignore[arg-type]


def feed(sync: BookSync, *messages: BookDelta | BookSnapshot | str) -> list[BookTop | Gap]:
    """Give a book its messages in order; a text is the cause of a disconnect."""
    out: list[BookTop | Gap] = []
    for message in messages:
        if isinstance(message, BookDelta):
            out += sync.on_delta(message)
        elif isinstance(message, BookSnapshot):
            out += sync.on_snapshot(message)
        else:
            sync.on_disconnect(message)  # type: ignore[arg-type]
    return out


def best_bids(rows: Sequence[BookTop | Gap]) -> list[tuple[int, str]]:
    return [(row.update_id, row.bids[0][0]) for row in rows if isinstance(row, BookTop)]


class TestAgainstAReference:
    """The book beside a dictionary of decimals that knows everything, under any changes."""

    @settings(max_examples=30, phases=[Phase.explicit, Phase.reuse, Phase.generate])
    @given(st.integers(0, 2**32), st.integers(1, 8), st.sampled_from([40, 700, 1500]))
    def test_every_row_is_the_exchanges_book_as_far_as_it_is_known(self, seed: int, levels: int, depth: int) -> None:
        """Snapshots are truncated, the market walks away from them, and fresh ones come late, early or not at all.

        A row is never wrong at any place; it is shorter only while a fresh snapshot is wanted.
        """
        chance = Random(seed)
        market = Reference(chance)
        market.fill(2 * depth)
        most = max(levels, depth // chance.choice([1, 2, 20]))
        sync = spot(levels=levels, bucket_us=1, snapshot_depth=most)
        pending: list[BookSnapshot] = []
        feed(sync, snapshot(market.last_id, *market.best(most)))
        short = refreshed = 0
        for _ in range(60):
            change = market.step(drift=depth // 8)
            true = market.best(levels)
            feed(sync, change)
            assert not sync.needs_snapshot
            for found, expected in zip(sync.book.top(levels), true, strict=True):
                assert [(Decimal(p), Decimal(s)) for p, s in found] == [
                    (Decimal(p), Decimal(s)) for p, s in expected[: len(found)]
                ]
                assert len(found) == len(expected) or sync._since is not None
                short += len(found) < len(expected)
            if sync.wants_refresh and chance.random() < 0.4:
                if chance.random() < 0.5:
                    pending.append(snapshot(market.last_id, *market.best(most)))  # it will be older than some changes
                else:
                    ahead = [market.step(drift=0) for _ in range(chance.randrange(3))]
                    feed(sync, snapshot(market.last_id, *market.best(most)), *ahead)
            while pending and chance.random() < 0.7:
                feed(sync, pending.pop(0))
            refreshed += not sync.wants_refresh
        assert sync.refreshes <= 60
        event(f"short rows: {short > 0}, refreshes: {min(sync.refreshes, 3)}, was whole: {refreshed > 0}")

    def test_a_deep_book_is_the_same_however_it_is_kept(self) -> None:
        """Many changes near and far, deletions of what is packed away, other spellings of a price, and pruning."""
        seed = random_module.randrange(2**32)
        print(f"seed {seed}")
        chance = Random(seed)
        for sign in (1, -1):
            side = BookSide(sign)
            levels = [(f"{n}.5", f"{chance.randrange(1, 99)}") for n in range(1, 5001)]
            side.load(levels)
            model = {Decimal(price): Decimal(size) for price, size in levels}
            middle = 2500
            for turn in range(3000):
                price = middle + round(chance.gauss(0, 900)) if chance.random() < 0.3 else chance.randrange(1, 6000)
                text = f"{max(1, price)}.5" + "0" * chance.choice([0, 0, 0, 1, 9])
                size = chance.choice(["0", "0.00", "7", "0.1"])
                side.put([(text, size)])
                model[Decimal(text)] = Decimal(size)
                if turn % 10 == 0:
                    best = sorted((p for p in model if model[p]), reverse=sign > 0)
                    count = chance.choice([1, 3, 20, 600])
                    found = [(Decimal(p), Decimal(s)) for p, s in side.top(count)]
                    assert found == [(p, model[p]) for p in best[:count]]
                if turn % 100 == 0:
                    if turn % 500 == 0:
                        keep = max(200, len(best) - chance.randrange(300))
                        side.keep_best(keep)
                        model = {p: model[p] for p in best[:keep]}
                    for p in sorted((p for p in model if model[p]), reverse=sign > 0)[: chance.randrange(700)]:
                        side.put([(str(p), "0")])  # the market runs through the book
                        model[p] = Decimal(0)
                    if sum(map(bool, model.values())) < 1500:
                        side.load(levels)
                        model = {Decimal(price): Decimal(size) for price, size in levels}
                    assert len(side) == sum(map(bool, model.values()))


class Reference:
    """An exchange's book, in decimals, that tells all of its changes."""

    def __init__(self, chance: Random) -> None:
        self._chance = chance
        self.last_id = 100
        self.middle = 100_000
        self.bids: dict[int, int] = {}
        self.asks: dict[int, int] = {}

    def fill(self, depth: int) -> None:
        for n in range(1, depth + 1):
            self.bids[self.middle - n] = self._chance.randrange(1, 9)
            self.asks[self.middle + n] = self._chance.randrange(1, 9)

    def step(self, drift: int) -> BookDelta:
        """Move the middle, set some levels, delete what it passes over."""
        chance = self._chance
        self.middle += chance.randrange(-drift, drift + 1) if drift else 0
        sides = []
        for side, sign in ((self.bids, -1), (self.asks, 1)):
            changed = {price: 0 for price in side if sign * (price - self.middle) <= 0}
            for _ in range(chance.randrange(6)):
                price = self.middle + sign * int(1 + chance.expovariate(0.01))
                changed[price] = chance.choice([0, chance.randrange(1, 9)])
            for price, size in changed.items():
                if size:
                    side[price] = size
                else:
                    side.pop(price, None)
            sides.append([(str(Decimal(price).scaleb(-2)), str(size)) for price, size in changed.items()])
        first, self.last_id = self.last_id + 1, self.last_id + chance.randrange(1, 4)
        return delta(first, self.last_id, *sides)

    def best(self, count: int) -> tuple[list[Level], list[Level]]:
        return tuple(  # type: ignore[return-value]
            [(str(Decimal(price).scaleb(-2)), str(side[price])) for price in sorted(side, key=lambda p: s * p)[:count]]
            for side, s in ((self.bids, -1), (self.asks, 1))
        )


class TestBookSide:
    def test_top(self) -> None:
        """The best levels come best first, in the exchange's own digits."""
        bids, asks = BookSide(1), BookSide(-1)
        for side in (bids, asks):
            side.load([("9.5", "1"), ("10.25", "2.50"), ("0.75", "3")])
        assert bids.top(2) == [("10.25", "2.50"), ("9.5", "1")]
        assert asks.top(9) == [("0.75", "3"), ("9.5", "1"), ("10.25", "2.50")]

    def test_numbers(self) -> None:
        """Prices compare as numbers: other digits for the same price are the same level."""
        side = BookSide(1)
        side.load([("1.10", "1"), ("9", "1")])
        side.put([("1.1", "5.0"), ("9.00000000", "2")])
        assert side.top(3) == [("9.00000000", "2"), ("1.1", "5.0")]
        side.put([("1.1000", "0.000")])
        assert side.top(3) == [("9.00000000", "2")]

    def test_many_digits(self) -> None:
        """Prices that differ only beyond what a float holds are different levels."""
        side = BookSide(-1)
        side.load(
            [("1234567890.123456789012", "1"), ("1234567890.123456789013", "2"), ("1234567890.5000000000000", "3")]
        )
        side.put([("1234567890.123456789013", "0"), ("1234567890.5", "4")])
        assert side.top(3) == [("1234567890.123456789012", "1"), ("1234567890.5", "4")]

    @pytest.mark.parametrize("zero", ["0", "0.0", "0.00000000", "0." + "0" * 18])
    def test_zero_deletes(self, zero: str) -> None:
        """A size of zero, however written, deletes the level; the smallest size does not."""
        side = BookSide(1)
        side.load([("1", "1"), ("2", "0.00000001"), ("3", zero)])
        side.put([("1", zero), ("7", zero)])
        assert side.top(3) == [("2", "0.00000001")]
        assert len(side) == 1

    @pytest.mark.parametrize("sign", [1, -1])
    def test_keep_best(self, sign: int) -> None:
        """Only the best levels are kept, near or far, and the order stays."""
        side = BookSide(sign)
        side.load([(str(price), "1") for price in range(1, 400)])
        side.top(3)
        side.keep_best(300)
        assert len(side) == 300
        side.keep_best(5)
        best = [399, 398, 397, 396, 395] if sign > 0 else [1, 2, 3, 4, 5]
        assert [int(price) for price, _ in side.top(9)] == best
        side.put([("500" if sign > 0 else "0.5", "1")])
        side.keep_best(5)
        assert [price for price, _ in side.top(9)][1:] == [str(price) for price in best[:4]]

    def test_empty(self) -> None:
        """A side without levels has no best one."""
        side = BookSide(1)
        assert side.best() is None
        assert side.top(3) == []

    @given(
        st.lists(st.lists(st.tuples(st.integers(1, 400), st.integers(0, 2)), max_size=120), max_size=12),
        st.sampled_from([1, -1]),
    )
    def test_as_a_dictionary(self, batches: list[list[tuple[int, int]]], sign: int) -> None:
        """After any changes the levels are those of a dictionary of numbers, the best of them on top."""
        side = BookSide(sign)
        model: dict[Decimal, Level] = {}
        for batch in batches:
            changes = [(str(Decimal(price) / 8), str(size)) for price, size in batch]
            side.put(changes)
            for price, size in changes:
                if size == "0":
                    model.pop(Decimal(price), None)
                else:
                    model[Decimal(price)] = (price, size)
            ordered = [model[price] for price in sorted(model, reverse=sign > 0)]
            assert side.top(3) == ordered[:3]
            assert len(side) == len(model)
        assert side.top(1000) == [model[price] for price in sorted(model, reverse=sign > 0)]


class TestBook:
    def test_snapshot_and_change(self) -> None:
        """A change sets and deletes levels of what the snapshot said; a snapshot replaces all."""
        book = Book()
        book.load(snapshot(1, [("9", "1"), ("8", "1")], [("11", "1")]))
        book.apply(delta(2, 2, [("9", "0")], [("10.5", "2")]))
        assert book.top(3) == ([("8", "1")], [("10.5", "2"), ("11", "1")])
        assert len(book) == 3
        book.load(snapshot(3, [("5", "1")]))
        assert book.top(3) == ([("5", "1")], [])
        book.clear()
        assert len(book) == 0

    @pytest.mark.parametrize(("bid", "ask", "crossed"), [("9", "10", False), ("10", "10.0", True), ("11", "10", True)])
    def test_crossed(self, bid: str, ask: str, crossed: bool) -> None:
        """A book is crossed when somebody bids what somebody asks."""
        book = Book()
        book.load(snapshot(1, [(bid, "1")], [(ask, "1")]))
        assert book.crossed is crossed

    def test_one_side(self) -> None:
        """A book of one side is not crossed."""
        book = Book()
        book.load(snapshot(1, [("9", "1")]))
        assert not book.crossed


class TestRows:
    def test_one_row_a_bucket(self) -> None:
        """A row is the last state of a bucket, with the time and id of its last message, out when a later one comes."""
        sync = spot()
        rows = feed(
            sync,
            snapshot(10, [("9", "1")], [("11", "1")]),
            delta(11, 11, [("9", "2")], us=1_050_000),
            delta(12, 12, [("9", "3")], us=1_110_000),
            delta(13, 13, [("9", "4")], us=1_199_999),
        )
        assert rows == [BookTop(SYMBOL, 1_050_000, [("9", "2")], [("11", "1")], 11, 11)]
        assert sync.on_delta(delta(14, 14, us=1_200_000)) == [
            BookTop(SYMBOL, 1_199_999, [("9", "4")], [("11", "1")], 13, 13)
        ]

    def test_first_row(self) -> None:
        """The first row takes the time of the first change applied, whether it changed the best levels or not."""
        sync = spot()
        rows = feed(
            sync,
            snapshot(10, [("9", "1")], [("11", "1")]),
            delta(11, 11, us=1_010_000),
            delta(12, 12, [("9.5", "1")], us=1_090_000),
            delta(13, 13, us=1_100_000),
        )
        assert rows == [BookTop(SYMBOL, 1_010_000, [("9.5", "1"), ("9", "1")], [("11", "1")], 12, 12)]

    def test_only_changes(self) -> None:
        """A change below the levels of a row gives no row, nor one that is taken back within its bucket."""
        sync = spot(levels=1)
        rows = feed(
            sync,
            snapshot(10, [("9", "1")], [("11", "1")]),
            delta(11, 11),
            delta(12, 12, [("8", "1")]),
            delta(13, 13, [("9", "2")], us=1_300_000),
            delta(14, 14, [("9", "1")], us=1_350_000),
            delta(15, 15, [("9", "3")]),
        )
        assert best_bids(rows) == [(11, "9")]
        assert best_bids(sync.finish()) == [(15, "9")]
        assert sync.finish() == []

    def test_times_back_and_forth(self) -> None:
        """A message with a time before its bucket belongs to the open one; a row's time does not go back."""
        sync = spot()
        feed(sync, snapshot(10, [("9", "1")]), delta(11, 11), delta(12, 12, [("9", "2")], us=1_250_000))
        feed(sync, delta(13, 13, [("9", "3")], us=1_090_000))
        assert sync.finish() == [BookTop(SYMBOL, 1_250_000, [("9", "3")], [], 13, 13)]

    def test_shorter_sides(self) -> None:
        """A side with fewer levels is shorter, down to none."""
        sync = spot()
        feed(sync, snapshot(10, [("9", "1")]), delta(11, 11, [("9", "0")]))
        assert sync.finish() == [BookTop(SYMBOL, 1_100_000, [], [], 11, 11)]


class TestSync:
    def test_start(self) -> None:
        """A book needs a snapshot; changes wait for it, and what it has already is left out."""
        sync = spot()
        assert sync.needs_snapshot
        assert feed(sync, delta(9, 10, [("1", "1")]), delta(11, 12, [("9", "2")])) == []
        assert (sync.needs_snapshot, sync.waiting) == (True, 2)
        rows = feed(sync, snapshot(10, [("9", "1")]), delta(13, 13))
        assert best_bids(rows) == [(12, "9")]
        assert (sync.needs_snapshot, sync.waiting, sync.applied) == (False, 0, 2)

    def test_old_snapshot(self) -> None:
        """A snapshot older than the changes that wait is not enough, whether it came before or after them."""
        for messages in ((delta(20, 21), snapshot(10)), (snapshot(10), delta(20, 21))):
            sync = spot()
            assert feed(sync, *messages) == []
            assert sync.needs_snapshot
            assert best_bids(feed(sync, snapshot(20, [("9", "1")]), delta(22, 22))) == [(21, "9")]

    def test_unasked_snapshot(self) -> None:
        """A snapshot that nobody waits for changes nothing."""
        sync = spot()
        feed(sync, snapshot(10, [("9", "1")]), delta(11, 11), snapshot(50, [("5", "1")]))
        assert best_bids(sync.finish()) == [(11, "9")]

    def test_sequence_gap(self) -> None:
        """A break is a resync; the gap is reported when the book is whole, from the last change to the first one."""
        sync = spot()
        rows = feed(sync, snapshot(10, [("9", "1")]), delta(11, 12), delta(15, 16), delta(17, 18, [("7", "1")]))
        assert best_bids(rows) == [(12, "9")]
        assert sync.needs_snapshot
        rows = feed(sync, snapshot(16, [("8", "1")]))
        assert rows == [Gap(SYMBOL, "orderbook", "sequence", 1_200_000, 1_800_000, 13, 16)]
        assert best_bids(sync.finish()) == [(18, "8")]

    def test_disconnect(self) -> None:
        """A disconnect keeps the open row, drops the book, and is a gap with its cause, once the book is whole."""
        sync = spot()
        feed(sync, snapshot(10, [("9", "1")]), delta(11, 11), "disconnect", "stall")
        assert best_bids(sync.on_delta(delta(20, 20))) == [(11, "9")]
        assert sync.needs_snapshot
        [gap] = feed(sync, snapshot(19, [("8", "1")]))
        assert gap == Gap(SYMBOL, "orderbook", "disconnect", 1_100_000, 2_000_000, 12, 19)

    def test_disconnect_without_loss(self) -> None:
        """A disconnect in which no change was missed is no gap."""
        sync = spot()
        rows = feed(sync, snapshot(10), delta(11, 11), "disconnect", delta(12, 13), snapshot(11), delta(14, 14))
        assert [row for row in rows if isinstance(row, Gap)] == []

    def test_disconnect_before_data(self) -> None:
        """A disconnect before the book was ever whole is no gap of the book."""
        assert feed(spot(), delta(1, 1), "disconnect", snapshot(20), delta(21, 21)) == []

    def test_stop_in_a_gap(self) -> None:
        """A session that stops while the book is not whole has a gap with an open end."""
        sync = spot()
        feed(sync, snapshot(10, [("9", "1")]), delta(11, 11), "disconnect")
        [row, gap] = sync.finish()
        assert isinstance(row, BookTop)
        assert gap == Gap(SYMBOL, "orderbook", "disconnect", 1_100_000, None, 12, None)
        assert sync.finish() == []

    def test_futures_gap(self) -> None:
        """Where a change names the one before it, that bounds the gap."""
        sync = BookSync(SYMBOL, FuturesBookRule())
        rows = feed(
            sync,
            snapshot(100, [("9", "1")]),
            delta(95, 110, previous=90),
            delta(135, 140, previous=130),
            snapshot(130, [("9", "1")]),
        )
        assert rows[1:] == [Gap(SYMBOL, "orderbook", "sequence", 11_000_000, 14_000_000, 111, 130)]

    def test_crossed(self) -> None:
        """A crossed book shows that a change was missed: no row of it, a gap and a resync."""
        sync = spot()
        rows = feed(
            sync,
            snapshot(10, [("9", "1")], [("11", "1")]),
            delta(11, 11),
            delta(12, 12, [("12", "1")]),
            delta(13, 13),
        )
        assert best_bids(rows) == [(11, "9")]
        assert sync.needs_snapshot
        rows = feed(sync, snapshot(12, [("12", "1")], [("13", "1")]), delta(14, 14))
        assert isinstance(rows[0], Gap)
        assert (rows[0].from_id, rows[0].to_id, rows[0].detail) == (12, 12, "the book was crossed")
        assert best_bids(rows) == [(13, "12")]

    def test_crossed_snapshot(self) -> None:
        """A crossed snapshot is no book."""
        sync = spot()
        assert feed(sync, snapshot(10, [("9", "1")], [("8", "1")])) == []
        assert sync.needs_snapshot

    def test_repeated_change(self) -> None:
        """A change that comes twice is left out."""
        sync = spot()
        feed(sync, snapshot(10), delta(11, 11), delta(12, 12), delta(11, 11), delta(13, 13))
        assert (sync.applied, sync.needs_snapshot) == (3, False)

    def test_ids_went_back(self) -> None:
        """An old update id at a new time is an exchange that counts anew: a gap without ids, and a resync."""
        sync = spot()
        feed(sync, snapshot(1000), delta(1001, 1001, us=5_000_000), delta(3, 3, us=9_000_000))
        assert sync.needs_snapshot
        [gap] = feed(sync, snapshot(2), delta(4, 4, us=9_100_000))[:1]
        assert isinstance(gap, Gap)
        assert (gap.from_us, gap.to_us, gap.from_id, gap.to_id) == (5_000_000, 9_000_000, None, None)

    def test_bounded(self) -> None:
        """No more changes wait than the bound says; a snapshot from before the oldest is too old then."""
        sync = spot(max_buffered=2)
        feed(sync, *(delta(n, n) for n in range(11, 16)))
        assert sync.waiting == 2
        feed(sync, snapshot(10))
        assert (sync.needs_snapshot, sync.waiting) == (True, 2)
        feed(sync, snapshot(13))
        assert (sync.needs_snapshot, sync.applied) == (False, 2)


def pushed(
    last: int, bids: Sequence[Level] = (("9", "1"),), *, us: int | None = None, checksum: int | None = None
) -> BookSnapshot:
    time_us = last * BUCKET if us is None else us
    return BookSnapshot(SYMBOL, time_us, last, list(bids), [("11", "1")], last, checksum)


class TestPushed:
    """Snapshots that come on the stream itself."""

    def test_start(self) -> None:
        """With a time, a snapshot is a row; changes follow it."""
        sync = spot()
        out = sync.on_pushed_snapshot(pushed(5)) + feed(sync, delta(6, 6, [("10", "1")])) + sync.finish()
        assert best_bids(out) == [(5, "9"), (6, "10")]
        assert not sync.needs_snapshot

    def test_without_a_time(self) -> None:
        """Without one, the first change gives the row its time."""
        sync = spot()
        out = sync.on_pushed_snapshot(pushed(5, us=0)) + feed(sync, delta(6, 6, [("8", "1")])) + sync.finish()
        assert [(row.timestamp_us, row.update_id) for row in out if isinstance(row, BookTop)] == [(6 * BUCKET, 6)]

    def test_what_came_before_is_in_it(self) -> None:
        """Changes that waited for it are forgotten, whatever their ids."""
        sync = spot()
        feed(sync, delta(3, 4), delta(7, 8))
        assert best_bids(sync.on_pushed_snapshot(pushed(5)) + sync.finish()) == [(5, "9")]
        assert sync.waiting == 0

    def test_after_a_gap(self) -> None:
        """It ends the gap, which has the ids between."""
        sync = spot()
        out = sync.on_pushed_snapshot(pushed(5)) + feed(sync, delta(6, 6), delta(9, 9))
        assert sync.needs_snapshot
        out += sync.on_pushed_snapshot(pushed(20))
        [gap] = [row for row in out if isinstance(row, Gap)]
        assert (gap.cause, gap.from_id, gap.to_id, gap.from_us, gap.to_us) == (
            "sequence", 7, 19, 6 * BUCKET, 20 * BUCKET,
        )  # fmt: skip

    @pytest.mark.parametrize(("last", "gaps"), [(6, 0), (7, 0), (9, 1), (1, 1)])
    def test_unasked(self, last: int, gaps: int) -> None:
        """One that nobody asked for replaces the book; it is a gap unless its id is the last one or the next."""
        sync = spot()
        out = sync.on_pushed_snapshot(pushed(5)) + feed(sync, delta(6, 6, [("10", "1")]))
        out += sync.on_pushed_snapshot(pushed(last, [("8", "1")], us=20 * BUCKET)) + sync.finish()
        assert best_bids(out)[-1] == (last, "8")
        assert sum(isinstance(row, Gap) for row in out) == gaps

    def test_unnumbered(self) -> None:
        """Where nothing is numbered, one snapshot follows the other, and only a reason makes a gap, without ids."""
        sync = spot(numbered=False)
        out = [row for last in (5, 9, 13) for row in sync.on_pushed_snapshot(pushed(last, [(str(last), "1")]))]
        assert best_bids(out) == [(5, "5"), (9, "9")]
        sync.on_disconnect()
        out = sync.on_pushed_snapshot(pushed(20))
        assert [(gap.from_id, gap.to_id, gap.to_us) for gap in out if isinstance(gap, Gap)] == [
            (None, None, 20 * BUCKET)
        ]

    def test_checksum(self) -> None:
        """A book that is not the exchange's is dropped, back to the last row; so is a snapshot."""
        rule = Checksum(2, lambda bids, asks: len(bids) * 10 + len(asks))
        sync = spot(checksum=rule)
        wrong = delta(7, 7, [("8", "1"), ("7", "1")])
        wrong.checksum = 11
        out = sync.on_pushed_snapshot(pushed(5, checksum=11)) + feed(sync, delta(6, 6, [("10", "1")]), wrong)
        assert best_bids(out) == [(5, "9"), (6, "10")]
        assert sync.needs_snapshot
        assert sync.on_pushed_snapshot(pushed(8, checksum=99)) == []
        assert sync.needs_snapshot
        [gap] = [row for row in sync.on_pushed_snapshot(pushed(9, checksum=11)) if isinstance(row, Gap)]
        assert (gap.cause, gap.from_id, gap.to_id) == ("checksum", 7, 8)

    def test_depth(self) -> None:
        """Levels behind the depth that a snapshot tells are forgotten."""
        sync = spot()
        sync.on_pushed_snapshot(BookSnapshot(SYMBOL, 1, 5, [("9", "1"), ("8", "1")], [], 0, None, 2))
        feed(sync, delta(6, 6, [("10", "1")]), delta(7, 7, [("10", "0")]))
        assert sync.book.top(5) == ([("9", "1")], [])


class TestResume:
    def messages(self) -> list[BookDelta | BookSnapshot]:
        return [
            delta(10, 11, [("1", "1")]),
            snapshot(11, [("9", "1")]),
            *(delta(n, n, [("9", str(n))], us=n * 70_000) for n in range(12, 40)),
        ]

    def test_from_the_first_frame(self) -> None:
        """A replay that is gone on with from its start adds the rows that are missing, and no gap."""
        whole = spot()
        rows = [*feed(whole, *self.messages()), *whole.finish()]
        for written in range(1, len(rows)):
            last = rows[written - 1]
            assert isinstance(last, BookTop)
            sync = spot(after_update_id=last.update_id, after_us=last.timestamp_us)
            assert [*feed(sync, *self.messages()), *sync.finish()] == rows[written:]

    def test_missed_meanwhile(self) -> None:
        """What was missed while nobody listened is a gap with the cause restart."""
        sync = spot(after_update_id=5, after_us=500_000)
        [gap] = feed(sync, snapshot(10, [("9", "1")]), delta(11, 11))
        assert gap == Gap(SYMBOL, "orderbook", "restart", 500_000, 1_100_000, 6, 10)
        assert best_bids(sync.finish()) == [(11, "9")]

    def test_renumbered_meanwhile(self) -> None:
        """Rows of an exchange that counts anew are not taken for old ones."""
        sync = spot(after_update_id=5000, after_us=500_000)
        [gap] = feed(sync, snapshot(10, [("9", "1")]), delta(11, 11))
        assert isinstance(gap, Gap)
        assert (gap.cause, gap.from_id, gap.to_id) == ("restart", None, None)
        assert best_bids(sync.finish()) == [(11, "9")]


@st.composite
def streams(draw: st.DrawFn) -> tuple[list[BookDelta], list[BookSnapshot]]:
    """A true market's changes, some of them lost, and its snapshots at some update ids."""
    levels: dict[int, int] = {}
    deltas: list[BookDelta] = []
    snapshots: list[BookSnapshot] = []
    last, us = 0, 0
    for _ in range(draw(st.integers(3, 25))):
        first, last = last + 1, last + draw(st.integers(1, 3))
        us += draw(st.integers(0, 150_000))
        price, size = draw(st.integers(1, 6)), draw(st.integers(0, 2))
        levels[price] = size
        deltas.append(delta(first, last, [(str(price), str(size))], us=us))
        if draw(st.integers(0, 3)) == 0:
            snapshots.append(snapshot(last, [(str(p), str(q)) for p, q in levels.items() if q]))
    lost = draw(st.sets(st.integers(0, len(deltas) - 1), max_size=2))
    return [each for n, each in enumerate(deltas) if n not in lost], snapshots


@given(streams(), st.lists(st.integers(0, 4), min_size=10, max_size=10))
def test_snapshot_timing(stream: tuple[list[BookDelta], list[BookSnapshot]], delays: list[int]) -> None:
    """The rows and gaps are the same however late each snapshot's answer comes among the changes."""
    deltas, snapshots = stream

    def run(delays: Sequence[int]) -> list[BookTop | Gap]:
        sync = spot()
        out: list[BookTop | Gap] = []
        answers = iter(snapshots)
        answer, waits, pauses = next(answers, None), 0, list(delays)
        for each in deltas:
            out += sync.on_delta(each)
            waits -= 1
            while answer is not None and sync.needs_snapshot and waits <= 0 and sync.waiting:
                out += sync.on_snapshot(answer)
                answer = next(answers, None)
                waits = pauses.pop() if pauses else 0
        while answer is not None and sync.needs_snapshot:
            out += sync.on_snapshot(answer)
            answer = next(answers, None)
        return [*out, *sync.finish()]

    assert run(delays) == run([])


@pytest.mark.parametrize(
    ("name", "exchange_name"),
    [
        ("binance-spot-ETHUSDT-20240808", "binance"),
        ("binance-spot-20211012", "binance"),
        ("binance-futures-20210722", "binance_futures"),
    ],
)
@pytest.mark.parametrize("late", [0, 7])
def test_real_recording(name: str, exchange_name: str, late: int) -> None:
    """A real recording ends with the book that was worked out independently, without a gap, early or late."""
    folder = os.environ.get("COLLECTOR_RECORDINGS")
    if not folder:
        pytest.skip("COLLECTOR_RECORDINGS is not set: no recordings of real messages")
    truth = json.loads((Path(folder) / "expected.json").read_text())[f"{name}.rec.gz"]["symbols"]
    exchange = create_exchange(exchange_name, [Listing(native, native, "", "") for native in truth])
    books = {native: BookSync(native, exchange.book_rule()) for native in truth}
    rows: dict[str, list[BookTop | Gap]] = {native: [] for native in truth}
    answers: list[tuple[int, BookSnapshot]] = []
    with gzip.open(Path(folder) / f"{name}.rec.gz", "rt") as lines:
        for number, line in enumerate(lines):
            _, _, kind, payload = line.rstrip("\n").split(" ", 3)
            if kind == "GET" and "/depth?symbol=" in payload:
                _, url, body = payload.split(" ", 2)
                native = url.partition("symbol=")[2].partition("&")[0]
                answers.append((number + late, exchange.parse_snapshot(native, body.encode(), 0)))
            for event in exchange.parse(payload, 0) if kind == "<" else ():
                if isinstance(event, BookDelta):
                    rows[event.symbol] += books[event.symbol].on_delta(event)
            while answers and answers[0][0] <= number:
                _, answer = answers.pop(0)
                rows[answer.symbol] += books[answer.symbol].on_snapshot(answer)
    for native, facts in truth.items():
        counted = facts.get("depth") or facts["book"]
        rows[native] += books[native].finish()
        assert books[native].applied == counted["applied"]
        assert [row for row in rows[native] if isinstance(row, Gap)] == []
        final = facts.get("final_book") or {"bids": counted["bids_top"], "asks": counted["asks_top"]}
        sizes = final.get("levels") or [counted["n_bid_levels"], counted["n_ask_levels"]]
        assert [len(books[native].book.bids), len(books[native].book.asks)] == sizes
        for ours, theirs in zip(books[native].book.top(10), (final["bids"], final["asks"]), strict=True):
            assert _numbers(ours[: len(theirs)]) == _numbers(theirs)
        last = rows[native][-1]
        assert isinstance(last, BookTop)
        assert _numbers(last.bids) == _numbers(final["bids"][:3])
        assert _numbers(last.asks) == _numbers(final["asks"][:3])
        times = [row.timestamp_us for row in rows[native] if isinstance(row, BookTop)]
        assert len({us // BUCKET for us in times}) == len(times)


def _numbers(levels: Sequence[Sequence[str]]) -> list[tuple[Decimal, Decimal]]:
    return [(Decimal(price), Decimal(size)) for price, size in levels]
