"""Rules of which change of a book follows which, for the dialects whose exchanges share one."""

from __future__ import annotations

from collector.events import BookDelta, BookSnapshot


class InOrderRule:
    """Nothing numbers the messages: after the snapshot each one applies, in the order it came in."""

    __slots__ = ("last_id",)

    def __init__(self) -> None:
        self.last_id: int | None = None

    def apply_snapshot(self, snapshot: BookSnapshot) -> None:
        self.last_id = snapshot.last_id

    def judge(self, delta: BookDelta) -> str:
        if self.last_id is None:
            return "gap"
        self.last_id = delta.last_id
        return "apply"


class ContiguousRule:
    """Ids count up by one: a change is stale up to the last id, and a gap where it begins after the next.

    One that overlaps repeats changes that are applied already and brings new ones: sizes are absolute, so nothing is
    missing.
    """

    __slots__ = ("last_id",)

    def __init__(self) -> None:
        self.last_id: int | None = None

    def apply_snapshot(self, snapshot: BookSnapshot) -> None:
        self.last_id = snapshot.last_id

    def judge(self, delta: BookDelta) -> str:
        last = self.last_id
        if last is None:
            return "gap"
        if delta.last_id <= last:
            return "stale"
        if delta.first_id > last + 1:
            return "gap"
        self.last_id = delta.last_id
        return "apply"


class ChainedRule:
    """Each change names the id of the one before it, and that must be the last one's (ids may jump).

    A change whose ``previous_id`` is older but that ends later overlaps the snapshot: nothing is missing.
    """

    __slots__ = ("last_id",)

    def __init__(self) -> None:
        self.last_id: int | None = None

    def apply_snapshot(self, snapshot: BookSnapshot) -> None:
        self.last_id = snapshot.last_id

    def judge(self, delta: BookDelta) -> str:
        last = self.last_id
        if last is None:
            return "gap"
        if delta.last_id <= last:
            return "stale"
        if delta.previous_id is None or delta.previous_id > last:
            return "gap"
        self.last_id = delta.last_id
        return "apply"
