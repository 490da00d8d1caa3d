"""What a server remembers of what it sent."""

from __future__ import annotations

import itertools

from hypothesis import given
from hypothesis import strategies as st

from collector.sim.record import ChannelRecord, ConnectionRecord, Intervals

spans = st.tuples(st.integers(0, 60), st.integers(0, 8)).map(lambda pair: (pair[0], pair[0] + pair[1]))


@given(st.lists(spans, max_size=30))
def test_intervals_are_the_set_of_what_was_added(added: list[tuple[int, int]]) -> None:
    """The intervals hold exactly the ids that were added, in order, none touching the next."""
    intervals = Intervals()
    for first, last in added:
        intervals.add(first, last)
    pairs = intervals.pairs()
    assert {n for first, last in pairs for n in range(first, last + 1)} == {
        n for first, last in added for n in range(first, last + 1)
    }
    assert all(one[1] + 1 < other[0] for one, other in itertools.pairwise(pairs))
    assert len(intervals) == len(pairs)


def test_ids_in_order_are_one_interval() -> None:
    """Ids that follow each other stay one interval."""
    intervals = Intervals()
    for number in range(10, 20):
        intervals.add(number, number)
    assert intervals.pairs() == [(10, 19)]


def test_a_connection_is_told_as_a_document() -> None:
    """A connection's record has its channels with what was sent, withheld and repeated."""
    channel = ChannelRecord()
    channel.messages = 2
    channel.ids.add(1, 2)
    channel.withheld["skip"].add(3, 3)
    channel.repeated.add(1, 1)
    record = ConnectionRecord(4, "/stream", 1, channels={"a@trade": channel})
    assert record.described() == {
        "connection": 4,
        "path": "/stream",
        "opened_us": 1,
        "closed_us": None,
        "ending": "",
        "channels": {"a@trade": {"messages": 2, "ids": [(1, 2)], "withheld": {"skip": [(3, 3)]}, "repeated": [(1, 1)]}},
    }
