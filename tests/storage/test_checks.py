"""What follows from the server's answers."""

from __future__ import annotations

from dataclasses import replace

import pytest

from collector.storage.checks import (
    Rewind,
    ServerFacts,
    TableFacts,
    find_faults,
    mark_of,
    oldest_kept_us,
    rewind_of,
)
from collector.streams import PRICES

WHOLE = TableFacts(
    directory="tick_prices~6",
    dedup=True,
    suspended=False,
    error="",
    transaction=50,
    applied=50,
    ttl_us=0,
    columns={name: kind.value for name, kind in PRICES.table_columns},
    keys=frozenset(PRICES.keys),
)
FACTS = ServerFacts("db-1", "monday", {"tick_prices": WHOLE})


def with_table(**changes: object) -> ServerFacts:
    return replace(FACTS, tables={"tick_prices": replace(WHOLE, **changes)})


def test_a_whole_table_has_no_fault() -> None:
    """Nothing is wrong with a table as declared, further columns included."""
    assert find_faults(FACTS, [PRICES]) == {}
    assert find_faults(with_table(columns={**WHOLE.columns, "more": "LONG"}), [PRICES]) == {}


@pytest.mark.parametrize(
    ("facts", "kind", "named"),
    [
        (replace(FACTS, tables={}), "missing", "tick_prices"),
        (with_table(dedup=False), "dedup", "seq"),
        (with_table(keys=frozenset({"timestamp"})), "dedup", "seq"),
        (with_table(columns={**WHOLE.columns, "price": "LONG"}), "columns", "price"),
        (with_table(suspended=True, error="DISK FULL"), "suspended", "DISK FULL"),
    ],
)
def test_a_fault_says_what_and_what_to_do(facts: ServerFacts, kind: str, named: str) -> None:
    """A fault names the table or the column, and a person's next step."""
    fault = find_faults(facts, [PRICES])["tick_prices"]
    assert fault.kind == kind
    assert named in fault.reason
    assert fault.hint


@pytest.mark.parametrize(
    ("now", "expected"),
    [
        (FACTS, Rewind.NONE),
        (with_table(transaction=90), Rewind.NONE),
        (replace(FACTS, started="tuesday"), Rewind.TO_VERIFIED),
        (with_table(transaction=49), Rewind.TO_START),
        (with_table(directory="tick_prices~12"), Rewind.TO_START),
        (replace(FACTS, instance="db-2"), Rewind.TO_START),
        (replace(FACTS, tables={}), Rewind.NONE),
    ],
)
def test_how_far_to_go_back(now: ServerFacts, expected: Rewind) -> None:
    """A restart goes back to what was verified; another past of the table, to the start."""
    assert rewind_of(mark_of(FACTS), now, "tick_prices")[0] is expected


def test_a_table_that_was_not_there_before_gets_everything() -> None:
    """A table that was missing at the last look is a new one."""
    before = mark_of(replace(FACTS, tables={}))
    assert rewind_of(before, FACTS, "tick_prices")[0] is Rewind.TO_START


def test_retention_bounds_what_is_sent() -> None:
    """A table with a TTL keeps nothing older than that; one without keeps everything."""
    assert oldest_kept_us(WHOLE, 1000) is None
    assert oldest_kept_us(replace(WHOLE, ttl_us=300), 1000) == 700
