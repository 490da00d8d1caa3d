"""Rules of books: what is stale, what applies, what is a gap."""

from __future__ import annotations

import pytest

from collector.events import BookDelta, BookSnapshot
from collector.exchanges.base import BookRule
from collector.exchanges.rules import ChainedRule, ContiguousRule, InOrderRule


def delta(first: int, last: int, previous: int | None = None) -> BookDelta:
    return BookDelta("A_B", 0, first, last, previous, [], [], 0)


def snapshot(last: int) -> BookSnapshot:
    return BookSnapshot("A_B", 0, last, [], [], 0)


@pytest.mark.parametrize("rule", [InOrderRule(), ContiguousRule(), ChainedRule()])
def test_without_a_snapshot(rule: BookRule) -> None:
    """Before a snapshot nothing applies."""
    assert rule.judge(delta(1, 2, 0)) == "gap"
    assert rule.last_id is None


def test_in_order() -> None:
    """Without numbers every change applies, whatever its time."""
    rule = InOrderRule()
    rule.apply_snapshot(snapshot(0))
    assert [rule.judge(delta(time, time)) for time in (5, 5, 3)] == ["apply", "apply", "apply"]
    assert rule.last_id == 3


def test_contiguous() -> None:
    """Drop what the snapshot has; the first may overlap it; each next begins where the last ended."""
    rule = ContiguousRule()
    rule.apply_snapshot(snapshot(100))
    verdicts = [rule.judge(delta(*ids)) for ids in ((95, 100), (98, 103), (104, 104), (106, 107), (105, 106))]
    assert verdicts == ["stale", "apply", "apply", "gap", "apply"]
    assert rule.last_id == 106


def test_chained() -> None:
    """Each change names the one before it; one that names a later one leaves a gap, and so does one that names none."""
    rule = ChainedRule()
    rule.apply_snapshot(snapshot(100))
    changes = [(100, 90), (120, 95), (150, 120), (180, 170), (160, None), (190, 150)]
    verdicts = [rule.judge(delta(last, last, previous)) for last, previous in changes]
    assert verdicts == ["stale", "apply", "apply", "gap", "gap", "apply"]
    assert rule.last_id == 190
