"""What a server sent, to whom: the other side's memory, which a test holds a collection against."""

from __future__ import annotations

from bisect import bisect_left
from collections import defaultdict

import msgspec


class Intervals:
    """A set of ids as inclusive intervals that neither touch nor overlap, cheap where ids come in order."""

    __slots__ = ("_ends", "_starts")

    def __init__(self) -> None:
        self._starts: list[int] = []
        self._ends: list[int] = []

    def add(self, first: int, last: int) -> None:
        """Add the ids from ``first`` to ``last``."""
        starts, ends = self._starts, self._ends
        if ends and first == ends[-1] + 1:
            ends[-1] = last
            return
        low = bisect_left(ends, first - 1)
        high = low
        while high < len(starts) and starts[high] <= last + 1:
            first, last = min(first, starts[high]), max(last, ends[high])
            high += 1
        starts[low:high] = [first]
        ends[low:high] = [last]

    def pairs(self) -> list[tuple[int, int]]:
        """Return the intervals in order."""
        return list(zip(self._starts, self._ends, strict=True))

    def __len__(self) -> int:
        return len(self._starts)


class ChannelRecord:
    """One channel of one connection: how many messages, which ids, and what was kept back or repeated on purpose."""

    def __init__(self) -> None:
        self.messages = 0
        self.ids = Intervals()
        self.withheld: dict[str, Intervals] = defaultdict(Intervals)
        self.repeated = Intervals()

    def described(self) -> dict[str, object]:
        """Return it as a document."""
        return {
            "messages": self.messages,
            "ids": self.ids.pairs(),
            "withheld": {kind: ids.pairs() for kind, ids in self.withheld.items()},
            "repeated": self.repeated.pairs(),
        }


class ConnectionRecord(msgspec.Struct):
    """One connection: when (microseconds of the wall clock), what it asked for, what it was sent and how it ended."""

    number: int
    path: str
    opened_us: int
    closed_us: int | None = None
    ending: str = ""
    channels: dict[str, ChannelRecord] = msgspec.field(default_factory=dict)

    def described(self) -> dict[str, object]:
        """Return it as a document."""
        return {
            "connection": self.number,
            "path": self.path,
            "opened_us": self.opened_us,
            "closed_us": self.closed_us,
            "ending": self.ending,
            "channels": {name: channel.described() for name, channel in self.channels.items()},
        }
