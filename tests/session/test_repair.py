"""What to ask for, and what an answer means."""

from __future__ import annotations

import random
from collections.abc import Iterable

import pytest

from collector.events import Trade
from collector.session.gaps import Entry
from collector.session.repair import (
    NO_NEIGHBOUR,
    NOT_THERE,
    PATIENCE,
    TOO_OLD,
    IdSearch,
    TimeSearch,
    content_of,
    count,
    covered,
    holds,
    intersect,
    repairable,
    subtract,
)


def trade(trade_id: int | str, at_us: int | None = None, **more: int) -> Trade:
    time_us = at_us if at_us is not None else int(trade_id) * 10
    return Trade("A", time_us, "1", "2", "buy", trade_id, 9, "rest", **more)


def trades(ids: Iterable[int]) -> list[Trade]:
    return [trade(number) for number in ids]


def ids(found: Iterable[Trade]) -> list[int | str]:
    return [one.trade_id for one in found]


def entry(**changes: object) -> Entry:
    fields: dict[str, object] = {
        "detected_us": 1, "gap_id": "g1", "symbol": "A", "stream": "prices", "cause": "disconnect", "from_us": 1,
        "to_us": 2, "from_id": 5, "to_id": 9, "expected_rows": 5, **changes,
    }  # fmt: skip
    return Entry(**fields)  # type: ignore[arg-type]


def test_intervals() -> None:
    """What is left, what is in both, how many, and whether one is in them."""
    assert subtract([(1, 10), (20, 30)], [(3, 4), (8, 22)]) == [(1, 2), (5, 7), (23, 30)]
    assert intersect([(1, 10), (20, 30)], [(3, 4), (8, 22)]) == [(3, 4), (8, 10), (20, 22)]
    assert count([(1, 2), (5, 7)]) == 5
    assert [number for number in range(10) if holds([(1, 2), (5, 7)], number)] == [1, 2, 5, 6, 7]
    assert not holds([], 1)


@pytest.mark.parametrize(
    ("changes", "once", "again"),
    [
        ({}, True, True),
        ({"from_id": None, "to_id": None}, True, True),
        ({"from_us": None, "to_us": None}, True, True),
        ({"from_id": None, "to_id": None, "to_us": None}, False, False),
        ({"state": "unrecoverable"}, False, True),
        ({"state": "repaired"}, False, False),
        ({"state": "partial"}, False, False),
        ({"stream": "orderbook"}, False, False),
        ({"cause": "log_damaged"}, False, False),
    ],
)
def test_what_can_be_asked_for(changes: dict[str, object], once: bool, again: bool) -> None:
    """Trades that are bounded; those given up before only on demand; never rows of a damaged file."""
    assert repairable(entry(**changes)) == once
    assert repairable(entry(**changes), again=True) == again


def test_an_aggregated_trade_stands_for_the_raw_ones_before_it() -> None:
    """Where it has the id of its last one."""
    assert covered(trade(9, first_raw_id=5, last_raw_id=9)) == (5, 9)
    assert covered(trade(9, first_raw_id=105, last_raw_id=107)) == (9, 9)
    assert covered(trade("x", 1)) is None


class TestById:
    def test_pages_are_asked_for_from_the_first_missing_id(self) -> None:
        """What an answer holds besides is passed over; ids between the holes are not asked for."""
        search = IdSearch("id", [(100, 103), (500, 501)], [(100, 7)])
        assert search.wanted == (100, 7)
        assert search.take(trades(range(100, 102)))
        assert search.wanted == (102, 7)
        assert search.take(trades(range(102, 110)))
        assert search.wanted == (500, 7)
        assert search.take(trades(range(500, 600)))
        assert search.wanted is None
        assert ids(search.found) == [100, 101, 102, 103, 500, 501]
        assert search.given_up == []

    def test_an_id_that_the_exchange_passes_over_is_given_up_at_once(self) -> None:
        """It never was a trade: nobody will have it."""
        search = IdSearch("id", [(10, 14)], [])
        search.take(trades([10, 11, 13, 14, 15]))
        assert (search.wanted, search.given_up, search.reason) == (None, [(12, 12)], NOT_THERE)

    def test_an_answer_without_any_is_asked_for_again_before_it_is_believed(self) -> None:
        """REST lags behind the stream; what is too old is empty every time."""
        search = IdSearch("id", [(10, 14)], [])
        assert [search.take([]) for _ in range(PATIENCE - 1)] == [False] * (PATIENCE - 1)
        assert search.take(trades([10, 11]))
        assert search.missing == [(12, 14)]
        for _ in range(PATIENCE):
            assert not search.take(trades([3, 4]))
        assert (search.wanted, search.given_up, search.reason) == (None, [(12, 14)], TOO_OLD)

    def test_a_repeated_trade_is_found_once(self) -> None:
        """An exchange may repeat itself, within an answer and between them."""
        search = IdSearch("id", [(10, 12)], [])
        search.take([*trades([10, 10, 11]), *trades([11])])
        search.take(trades([11, 12, 12]))
        assert ids(search.found) == [10, 11, 12]

    def test_by_time_it_goes_on_from_the_last_trade(self) -> None:
        """Also where a whole answer lies before the hole; one that brings nothing newer ends it."""
        search = IdSearch("time", [(100, 101)], [(100, 500)])
        assert search.wanted == (100, 500)
        assert search.take(trades([60, 70]))
        assert search.wanted == (100, 700)
        assert search.take(trades([70, 100]))
        assert search.wanted == (101, 1000)
        for _ in range(PATIENCE):
            search.take(trades([100]))
        assert (ids(search.found), search.given_up) == ([100], [(101, 101)])

    def test_of_the_newest_only_what_is_before_the_oldest_is_gone(self) -> None:
        """And what is newer than the newest may still come."""
        search = IdSearch("recent", [(10, 12), (18, 22)], [])
        assert search.take(trades([11, 12, 13, 18, 19]))
        assert (search.given_up, search.reason, search.missing) == ([(10, 10)], TOO_OLD, [(20, 22)])
        assert search.take(trades([19, 20, 21, 22]))
        assert ids(search.found) == [11, 12, 18, 19, 20, 21, 22]
        assert search.wanted is None

    def test_giving_up_keeps_what_was_found(self) -> None:
        """An exchange that refuses in the middle has given what it gave."""
        search = IdSearch("id", [(1, 5)], [])
        search.take(trades([1, 2]))
        search.give_up("no")
        assert (ids(search.found), search.given_up, search.reason, search.wanted) == ([1, 2], [(3, 5)], "no", None)

    def test_any_exchange_and_any_holes(self) -> None:
        """Found and given up are the holes, each id once, whatever the pages are and the exchange lacks."""
        seed = random.randrange(2**32)
        print(f"seed {seed}")
        chance = random.Random(seed)
        for _ in range(200):
            last = chance.randint(20, 300)
            lacks = set(chance.sample(range(last), chance.randint(0, 10)))
            has = [number for number in range(last) if number not in lacks]
            holes = [(at, at + chance.randint(0, 9)) for at in range(0, last - 10, chance.randint(11, 60))]
            paging = chance.choice(["id", "time"])
            size = chance.randint(3, 40)
            search = IdSearch(paging, holes, [(first, first * 10 - 10) for first, _ in holes])
            for _ in range(1000):
                wanted = search.wanted
                if wanted is None:
                    break
                begin = wanted[0] if paging == "id" else (wanted[1] or 0) // 10
                search.take(trades([number for number in has if number >= begin][:size]))
            expected = {number for first, end in holes for number in range(first, end + 1)}
            got = [int(number) for number in ids(search.found)]
            gone = {number for first, end in search.given_up for number in range(first, end + 1)}
            assert (len(got), set(got) | gone, set(got) & gone) == (len(set(got)), expected, set())
            assert gone == expected & lacks


class TestByTime:
    def test_what_the_newest_reach_is_all_there_is(self) -> None:
        """Those that are recorded are passed over; an answer that begins before the span has all of it."""
        search = TimeSearch("recent", 100, 200, ["a", "d"])
        answer = [trade("z", 90), trade("a", 100), trade("b", 150), trade("c", 150), trade("d", 200), trade("e", 210)]
        assert search.take(answer)
        assert (ids(search.found), search.lost, search.wanted) == (["b", "c"], [], None)

    def test_what_is_before_the_oldest_is_lost(self) -> None:
        """From the gap's begin to the first trade that could be had."""
        search = TimeSearch("recent", 100, 200, ["a"])
        search.take([trade("b", 150), trade("e", 210)])
        assert (ids(search.found), search.lost, search.reason) == (["b"], [(100, 150)], TOO_OLD)

    def test_an_answer_that_begins_where_the_gap_does_must_hold_the_trade_before_it(self) -> None:
        """Otherwise others of the same moment may be cut off."""
        search = TimeSearch("recent", 100, 200, ["a"])
        search.take([trade("a", 100), trade("e", 210)])
        assert search.lost == []
        search = TimeSearch("recent", 100, 200, ["a"])
        search.take([trade("b", 100), trade("e", 210)])
        assert search.lost == [(100, 100)]

    def test_one_that_ends_too_early_is_asked_for_again(self) -> None:
        """REST lags; what never comes is lost."""
        search = TimeSearch("recent", 100, 200, [])
        for _ in range(PATIENCE):
            assert search.wanted is not None
            assert not search.take([trade("a", 90), trade("b", 150)])
        assert (search.wanted, ids(search.found), search.lost) == (None, ["b"], [(150, 200)])

    def test_ids_that_rest_spells_otherwise_cost_no_trade_twice(self) -> None:
        """As many as are recorded of those that say the same are passed over, however often they are asked for."""
        recorded = {"a": trade("a", 100), "b": trade("b", 150), "c": trade("c", 150), "d": trade("d", 200)}
        contents = {name: content_of(one) for name, one in recorded.items()}
        search = TimeSearch("recent", 100, 200, contents.keys(), contents=contents)
        answer = [trade(f"rest-{number}", at_us) for number, at_us in enumerate((90, 100, 150, 150, 150, 170, 200))]
        for one in answer:
            one.price = "1.00"  # written in another way
        assert not search.take(answer[:-1])
        assert search.take(answer)
        assert (ids(search.found), search.lost) == (["rest-4", "rest-5"], [])

    def test_ids_that_are_the_streams_decide_alone(self) -> None:
        """Then another trade of the same moment, price, size and side is another one."""
        contents = {"a": content_of(trade("a", 100)), "cut": content_of(trade("cut", 150))}
        search = TimeSearch("recent", 100, 200, contents.keys(), contents=contents)
        assert search.take([trade("a", 100), trade("b", 150), trade("e", 210)])
        assert ids(search.found) == ["b"]

    def test_by_time_it_goes_on_until_the_span_is_over(self) -> None:
        """Each answer is asked for from the last trade of the one before."""
        search = TimeSearch("time", 100, 200, [])
        assert search.wanted == (0, 100)
        assert search.take([trade(1, 110), trade(2, 150)])
        assert search.wanted == (0, 150)
        assert search.take([trade(2, 150), trade(3, 200), trade(4, 201)])
        assert (ids(search.found), search.lost, search.wanted) == ([1, 2, 3], [], None)

    def test_by_id_it_goes_backward_from_the_first_known_one(self) -> None:
        """A subscription that never delivered leaves a span of which nobody knows the ids."""
        search = TimeSearch("id", 500, 30_000, ["3000"], next_id=3001)
        assert search.wanted == (2001, 500)
        assert search.take(trades(range(2001, 3001)))
        assert search.take(trades(range(1001, 2001)))
        assert search.take(trades(range(1, 1001)))
        assert search.wanted is None
        assert sorted(ids(search.found)) == list(range(50, 3000))
        assert TimeSearch("id", 1, 2, []).reason == NO_NEIGHBOUR
