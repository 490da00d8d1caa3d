"""Holes that no ledger row names yet are found in the last rows."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from collector.session.resume import read_tail, without
from collector.streams import PRICES


def row(trade_id: int | str, received_us: int = 100) -> list[str]:
    fields = dict.fromkeys((column.name for column in PRICES.columns), "")
    fields |= {"timestamp": str(received_us - 1), "trade_id": str(trade_id), "received_at": str(received_us)}
    return list(fields.values())


def test_holes_between_ids_are_found_whatever_the_order() -> None:
    """With the times of the trades around them; the highest id need not be the last."""
    rows = [row(5), row(9, 110), row(6), row(8, 105)]
    assert read_tail(rows, settled_before_us=0) == (9, [(7, 7, 99, 104)], [])


def test_old_holes_are_passed_over() -> None:
    """They were entered long ago, or are ids that the exchange gave to something else."""
    rows = [row(1), row(3, 200), row(5, 300)]
    assert read_tail(rows, settled_before_us=250) == (5, [(4, 4, 199, 299)], [])


def test_trades_that_came_though_they_were_called_missing_are_found() -> None:
    """Each with its time; what is still missing is not among them."""
    rows = [row(1), row(6, 100), row(3, 110), row(5, 120), row(8, 130)]
    tail = read_tail(rows, settled_before_us=10**9, known=[(2, 5), (7, 7)])
    assert tail == (8, [], [(3, 109), (5, 119)])


def test_an_aggregated_trade_covers_its_raw_ones() -> None:
    """Where it has the id of the last of them, nothing is missing before it but what none covers."""
    aggregated = row(9)
    names = [column.name for column in PRICES.columns]
    aggregated[names.index("first_raw_id")], aggregated[names.index("last_raw_id")] = "7", "9"
    assert read_tail([row(5), aggregated], settled_before_us=0).holes == [(6, 6, 99, 99)]
    assert read_tail([row(6), aggregated], settled_before_us=0).holes == []


def test_ids_that_are_no_numbers_bound_nothing() -> None:
    """Nor do no rows."""
    assert read_tail([row("abc")], settled_before_us=0) == (None, [], [])
    assert read_tail([], settled_before_us=0) == (None, [], [])


INTERVALS = st.lists(st.tuples(st.integers(0, 30), st.integers(0, 5)).map(lambda p: (p[0], p[0] + p[1]))).map(sorted)


@given(st.integers(0, 30), st.integers(0, 10), INTERVALS)
def test_what_is_known_is_taken_out(first: int, length: int, known: list[tuple[int, int]]) -> None:
    """Number by number."""
    parts = without(first, first + length, known)
    covered = {number for begin, end in known for number in range(begin, end + 1)}
    expected = [number for number in range(first, first + length + 1) if number not in covered]
    assert [number for begin, end in parts for number in range(begin, end + 1)] == expected


def test_what_a_repair_added_fills_holes_and_bounds_none() -> None:
    """It is older than what it stands behind: the highest id is one that came by itself."""
    fetched = [row(number, 400) for number in (2, 3, 40)]
    for one in fetched:
        one[[column.name for column in PRICES.columns].index("source")] = "rest"
    tail = read_tail([row(1), row(6, 110), *fetched], settled_before_us=0, known=[(40, 41)])
    assert tail == (6, [(4, 5, 99, 109)], [(40, 399)])
