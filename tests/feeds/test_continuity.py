"""Trade ids: duplicates stay out, and what is missing is named exactly."""

from __future__ import annotations

import gzip
import json
import os
from decimal import Decimal
from itertools import pairwise
from pathlib import Path
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.events import Gap, Trade
from collector.exchanges.base import Listing
from collector.exchanges.registry import create_exchange
from collector.feeds import continuity
from collector.feeds.continuity import TradeContinuity, merge_intervals


def trade(trade_id: int | str, timestamp_us: int | None = None) -> Trade:
    if timestamp_us is None:
        timestamp_us = int(trade_id) * 1000
    return Trade("BTC_USDT", timestamp_us, "1", "1", "buy", trade_id, 0)


def contiguous(last_id: int | None = None, **options: object) -> TradeContinuity:
    return TradeContinuity("BTC_USDT", contiguous=True, last_id=last_id, **options)  # type: ignore[arg-type]


def accepted(judge: TradeContinuity, *ids: int | str) -> list[int | str]:
    return [trade_id for trade_id in ids if judge.accept(trade(trade_id))]


def holes(gaps: list[Gap]) -> list[tuple[int | None, int | None]]:
    return [(gap.from_id, gap.to_id) for gap in gaps]


def past(judge: TradeContinuity, *ids: int | str) -> list[int | str]:
    return [trade_id for trade_id in ids if judge.accept_past(trade(trade_id))]


class TestPast:
    """Trades that the exchange repeats from before the subscription."""

    def test_fresh(self) -> None:
        """They are not recorded, and the next one must follow them."""
        judge = contiguous()
        assert past(judge, 3, 4, 5) == []
        assert accepted(judge, 6, 7) == [6, 7]
        assert judge.close() == []
        judge = contiguous()
        assert past(judge, 5) == []
        assert accepted(judge, 8) == [8]
        assert holes(judge.close()) == [(6, 7)]

    def test_fill(self) -> None:
        """After a lost connection, a restart or in a known hole, those that are missing are new."""
        judge = contiguous()
        accepted(judge, 5, 6)
        judge.interrupted("disconnect")
        assert past(judge, 5, 6, 8, 9) == [8, 9]
        assert accepted(judge, 10) == [10]
        assert [(gap.cause, gap.from_id, gap.to_id) for gap in judge.close()] == [("disconnect", 7, 7)]
        assert past(contiguous(4), 4, 5, 6) == [5, 6]
        assert past(contiguous(9, holes=[(3, 4)]), 3, 5) == [3]

    def test_nothing_but_past(self) -> None:
        """Where a connection is lost before the first trade, what was missed since is known all the same."""
        judge = contiguous()
        assert past(judge, 5) == []
        judge.interrupted("disconnect")
        assert past(judge, 5, 6) == [6]

    def test_unnumbered(self) -> None:
        """One that was seen shows that nothing is missing; otherwise what lies between is a gap."""
        judge = TradeContinuity("BTC_USDT", contiguous=False)
        assert past(judge, "1", "2") == []
        assert accepted(judge, "2", "3") == ["3"]
        judge.interrupted("disconnect")
        assert past(judge, "2", "3", "4") == ["4"]
        assert judge.due(0) == []
        judge.interrupted("disconnect")
        assert past(judge, "7", "8") == ["7", "8"]
        assert [(gap.cause, gap.from_us, gap.to_us) for gap in judge.due(0)] == [("disconnect", 4000, 7000)]

    def test_unnumbered_restart(self) -> None:
        """After a restart only times are known: what is later than the last row is new."""
        judge = TradeContinuity("BTC_USDT", contiguous=False, last_us=5000)
        assert past(judge, "4", "5", "6") == ["6"]


class TestAggregated:
    """A trade that has the id of the last raw one it stands for."""

    def one(self, first: int, last: int) -> Trade:
        made = trade(last)
        made.first_raw_id, made.last_raw_id = first, last
        return made

    def test_covers(self) -> None:
        """It covers the ids before its own; only what none covers is missing."""
        judge = contiguous()
        assert all(judge.accept(self.one(*ids)) for ids in ((5, 5), (6, 8), (9, 9), (12, 14)))
        assert holes(judge.close()) == [(10, 11)]

    def test_late(self) -> None:
        """One that comes late fills the hole whole."""
        judge = contiguous()
        assert all(judge.accept(self.one(*ids)) for ids in ((5, 5), (9, 9), (6, 8)))
        assert judge.close() == []

    def test_other_numbers(self) -> None:
        """Where aggregated trades have numbers of their own, the raw ones mean nothing here."""
        judge = contiguous()
        first, second = self.one(100, 105), self.one(106, 109)
        first.trade_id, second.trade_id = 7, 8
        assert judge.accept(first)
        assert judge.accept(second)
        assert judge.close() == []


class TestContiguous:
    def test_in_order(self) -> None:
        """Trades in order are all new, and nothing is missing."""
        judge = contiguous()
        assert accepted(judge, 5, 6, 7) == [5, 6, 7]
        assert judge.close() == []

    def test_duplicates(self) -> None:
        """A trade that was seen is not new."""
        assert accepted(contiguous(), 5, 6, 5, 6, 7, 7) == [5, 6, 7]

    def test_hole(self) -> None:
        """A jump is a hole with exact ids, and the times of the trades around it."""
        judge = contiguous()
        assert accepted(judge, 5, 9) == [5, 9]
        assert judge.close() == [Gap("BTC_USDT", "prices", "sequence", 5000, 9000, 6, 8, 3)]
        assert judge.close() == []

    def test_late_trade_splits(self) -> None:
        """A late trade inside a hole is new, once, and splits the hole."""
        judge = contiguous()
        assert accepted(judge, 5, 10, 7, 7) == [5, 10, 7]
        assert judge.close() == [
            Gap("BTC_USDT", "prices", "sequence", 5000, 7000, 6, 6, 1),
            Gap("BTC_USDT", "prices", "sequence", 7000, 10000, 8, 9, 2),
        ]

    def test_reordered(self) -> None:
        """Trades that only come in another order leave no hole."""
        judge = contiguous()
        assert accepted(judge, 5, 8, 7, 6, 9, 4) == [5, 8, 7, 6, 9, 4]
        assert judge.close() == []

    def test_grace(self) -> None:
        """A hole is reported when late trades had their time, counted from the first look at it."""
        judge = contiguous()
        accepted(judge, 5, 7)
        assert judge.due(100.0) == []
        accepted(judge, 9)
        assert judge.due(100.9) == []
        assert holes(judge.due(101.0)) == [(6, 6)]
        assert holes(judge.due(101.9)) == [(8, 8)]
        assert judge.due(200.0) == []

    def test_after_the_report(self) -> None:
        """A trade that comes after its hole was reported is new, and the ledger learns of it."""
        judge = contiguous()
        accepted(judge, 5, 9)
        judge.close()
        assert accepted(judge, 7, 7) == [7]
        [late] = judge.due(0.0)
        assert (late.state, late.from_id, late.to_id, late.expected_rows) == ("repaired", 7, 7, 1)

    def test_before_the_first(self) -> None:
        """What comes late from before the first trade is new within the grace; nothing before both is missing."""
        judge = contiguous()
        assert accepted(judge, 100, 98, 98) == [100, 98]
        judge.due(0.0)
        assert holes(judge.due(2.0)) == [(99, 99)]
        assert accepted(judge, 97) == []

    def test_cause(self) -> None:
        """The jump after an interruption has its cause; one that lost nothing is forgotten."""
        judge = contiguous()
        accepted(judge, 5)
        judge.interrupted("disconnect")
        judge.interrupted("stall")
        accepted(judge, 8)
        judge.interrupted("stall")
        accepted(judge, 9, 11)
        assert [(gap.cause, gap.from_id) for gap in judge.close()] == [("disconnect", 6), ("sequence", 10)]

    def test_late_after_interruption(self) -> None:
        """A late trade after an interruption is judged as before it."""
        judge = contiguous()
        accepted(judge, 5, 7)
        judge.interrupted("disconnect")
        assert accepted(judge, 5, 6, 9) == [6, 9]
        assert [(gap.cause, gap.from_id, gap.to_id) for gap in judge.close()] == [("disconnect", 8, 8)]

    def test_skipped_number(self) -> None:
        """A number that the exchange gave to something else is not missing, in order or late."""
        judge = contiguous()
        accepted(judge, 5)
        judge.skip(6)
        accepted(judge, 7, 10)
        judge.skip(9, 9000)
        assert holes(judge.close()) == [(8, 8)]
        assert accepted(judge, 6) == []

    def test_renumbered(self) -> None:
        """An old id on a much later trade is no duplicate: the exchange counts anew, and that is a gap without ids."""
        judge = contiguous()
        assert judge.accept(trade(1000, 1_000_000))
        assert judge.due(0.0) + judge.due(2.0) == []
        assert not judge.accept(trade(1, 1_000_001))
        assert judge.accept(trade(1, 60_000_000))
        assert judge.accept(trade(2, 60_000_001))
        [gap] = judge.due(0.0)
        assert (gap.from_us, gap.to_us, gap.from_id, gap.to_id) == (1_000_000, 60_000_000, None, None)

    def test_text_id(self) -> None:
        """An id that is no number, where numbers are promised, is recorded rather than dropped."""
        judge = contiguous()
        assert judge.accept(trade("a", 5))
        assert accepted(judge, 5, 6) == [5, 6]
        assert judge.close() == []

    def test_known_holes_are_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """No more holes are kept open than the bound says; the oldest is closed."""
        monkeypatch.setattr(continuity, "KNOWN_HOLES", 2)
        judge = contiguous()
        accepted(judge, 1, 3, 5, 7)
        assert holes(judge.close()) == [(2, 2), (4, 4), (6, 6)]
        assert accepted(judge, 2, 4, 6) == [4, 6]


class TestResume:
    def test_goes_on(self) -> None:
        """What is recorded already stays out; the next one leaves no hole."""
        judge = contiguous(10, holes=[(6, 7)])
        assert accepted(judge, 9, 10, 11) == [11]
        assert judge.close() == []

    def test_missed_meanwhile(self) -> None:
        """What was missed while nobody listened is a hole with the cause restart, from the last row's time."""
        judge = contiguous(10, last_us=9500)
        judge.interrupted("disconnect")
        accepted(judge, 15)
        assert judge.close() == [Gap("BTC_USDT", "prices", "restart", 9500, 15000, 11, 14, 4)]

    def test_known_holes(self) -> None:
        """A trade in a known hole is new, once; the rest of the hole is not reported again."""
        judge = contiguous(10, holes=[(7, 8), (3, 5), (5, 6)])
        assert accepted(judge, 2, 3, 3, 6, 8, 9) == [3, 6, 8]
        assert [gap.state for gap in judge.close()] == ["repaired"] * 3

    def test_renumbered_meanwhile(self) -> None:
        """An exchange that counts anew after a restart is recorded, with a gap without ids."""
        judge = contiguous(1000, last_us=1_000_000)
        assert judge.accept(trade(1, 60_000_000))
        [gap] = judge.close()
        assert (gap.cause, gap.from_us, gap.from_id) == ("restart", 1_000_000, None)


class TestNotContiguous:
    def test_duplicates(self) -> None:
        """Ids that don't count are compared with the recent ones; a jump means nothing."""
        judge = TradeContinuity("BTC_USDT", contiguous=False)
        assert [judge.accept(trade(trade_id, 0)) for trade_id in ("b", "a", "b", 7, 900, 7)] == [
            True,
            True,
            False,
            True,
            True,
            False,
        ]
        assert judge.close() == []

    def test_bounded(self, monkeypatch: pytest.MonkeyPatch) -> None:
        """The oldest id is forgotten beyond the bound; one that came again is not the oldest."""
        monkeypatch.setattr(continuity, "RECENT_IDS", 2)
        judge = TradeContinuity("BTC_USDT", contiguous=False)
        assert [judge.accept(trade(trade_id, 0)) for trade_id in ("a", "b", "a", "c", "a", "b")] == [
            True,
            True,
            False,
            True,
            False,
            True,
        ]

    def test_interruption(self) -> None:
        """Without numbers nobody knows what an interruption lost: its times are the gap."""
        judge = TradeContinuity("BTC_USDT", contiguous=False)
        judge.accept(trade("a", 5))
        judge.interrupted("disconnect")
        judge.accept(trade("b", 9))
        assert judge.due(0.0) == [Gap("BTC_USDT", "prices", "disconnect", 5, 9)]

    def test_resume(self) -> None:
        """The last recorded id is known."""
        assert not TradeContinuity("BTC_USDT", contiguous=False, last_id=7).accept(trade(7))


@given(
    st.sets(st.integers(1, 60), min_size=1),
    st.randoms(use_true_random=False),
    st.lists(st.integers(0, 59), max_size=30),
    st.booleans(),
)
def test_any_order(sent: set[int], random: Random, repeated: list[int], resumed: bool) -> None:
    """For any order, losses and repetitions: what is new is what was sent, what is missing is the rest, exactly."""
    judge = contiguous(0) if resumed else contiguous()
    order = sorted(sent)
    order += [order[index % len(order)] for index in repeated]
    random.shuffle(order)
    assert set(accepted(judge, *order)) == sent
    assert len(accepted(judge, *order)) == 0
    gaps = judge.close()
    missing = {number for gap in gaps for number in range(gap.from_id or 0, (gap.to_id or 0) + 1)}
    assert missing == set(range(1 if resumed else min(sent), max(sent) + 1)) - sent
    assert sum(gap.expected_rows or 0 for gap in gaps) == len(missing)


@given(st.lists(st.tuples(st.integers(0, 30), st.integers(0, 30))))
def test_merge_intervals(intervals: list[tuple[int, int]]) -> None:
    """Merged intervals cover what the given ones cover, in order, and never touch."""
    merged = merge_intervals(intervals)
    assert {n for first, last in intervals for n in range(first, last + 1)} == {
        n for first, last in merged for n in range(first, last + 1)
    }
    assert all(before[1] + 1 < after[0] for before, after in pairwise(merged))


@pytest.mark.parametrize(
    ("name", "exchange_name"),
    [
        ("binance-spot-ETHUSDT-20240808", "binance"),
        ("binance-spot-20211012", "binance"),
        ("binance-futures-20210722", "binance_futures"),
    ],
)
def test_real_recording(name: str, exchange_name: str) -> None:
    """A real recording has exactly the trades that were counted independently, and no hole."""
    folder = os.environ.get("COLLECTOR_RECORDINGS")
    if not folder:
        pytest.skip("COLLECTOR_RECORDINGS is not set: no recordings of real messages")
    truth = json.loads((Path(folder) / "expected.json").read_text())[f"{name}.rec.gz"]["symbols"]
    exchange = create_exchange(exchange_name, [Listing(native, native, "", "") for native in truth])
    judges = {native: TradeContinuity(native, contiguous=exchange.trade_ids_contiguous) for native in truth}
    trades: dict[str, list[Trade]] = {native: [] for native in truth}
    with gzip.open(Path(folder) / f"{name}.rec.gz", "rt") as lines:
        for line in lines:
            _, _, kind, payload = line.rstrip("\n").split(" ", 3)
            for event in exchange.parse(payload, 0) if kind == "<" else ():
                if isinstance(event, Trade) and judges[event.symbol].accept(event):
                    trades[event.symbol].append(event)
    for native, facts in truth.items():
        expected = facts["trades"]
        ours = trades[native]
        assert judges[native].close() == []
        assert len(ours) == expected["count"]
        if ours:
            assert [ours[0].trade_id, ours[-1].trade_id] == [expected["first_id"], expected["last_id"]]
            assert sum(Decimal(each.volume) for each in ours) == Decimal(expected["sum_qty"])
            notional = sum(Decimal(each.price) * Decimal(each.volume) for each in ours)
            assert notional == Decimal(expected["sum_notional"])


class TestFetched:
    """Trades that were asked for, while they may still come by themselves."""

    def test_each_is_recorded_once_whichever_way_it_comes_first(self) -> None:
        """By itself before: it is not new when it is fetched; fetched before: it is a duplicate when it comes."""
        judge = contiguous(last_id=1)
        accepted(judge, 2, 8)
        assert judge.holes_in(0, 100) == [(3, 7)]
        judge.close()
        assert judge.holes_in(4, 5) == [(4, 5)]
        assert accepted(judge, 4) == [4]
        assert [judge.take_fetched(trade(number)) for number in (3, 4, 5, 5)] == [True, False, True, False]
        assert accepted(judge, 3, 5, 6) == [6]
        assert judge.holes_in(0, 100) == [(7, 7)]

    def test_an_aggregated_trade_fills_what_it_stands_for(self) -> None:
        """All the raw ids that it covers."""
        judge = contiguous(last_id=1, holes=[(5, 9)])
        assert judge.take_fetched(Trade("A", 1, "1", "1", "buy", 8, 0, "rest", 5, 8))
        assert judge.holes_in(0, 100) == [(9, 9)]

    def test_ids_that_do_not_count_are_compared_with_the_recent_ones(self) -> None:
        """Nothing is known of holes; the reason of the next gap stays what it was."""
        judge = TradeContinuity("A", contiguous=False)
        judge.accept(trade("a", 1))
        judge.interrupted("disconnect")
        assert judge.holes_in(0, 100) == []
        assert [judge.take_fetched(trade(name, 2)) for name in ("a", "b", "b")] == [False, True, False]
        assert not judge.accept(trade("b", 2))
        judge.accept(trade("c", 3))
        assert [gap.cause for gap in judge.close()] == ["disconnect"]
