"""The gap ledger: what a session lacks, why, and what became of it.

A gap gets its id and its time of detection once; whatever changes later is a new revision of the same row, and the last
revision counts.
"""

from __future__ import annotations

import threading
from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from collector.events import Gap, GapCause, GapState
from collector.session.resume import without
from collector.streams import GAPS

_FIELDS = len(GAPS.columns)
_MISSING_STATES = ("open", "unrecoverable")


class Entry(msgspec.Struct, frozen=True, gc=False):
    """A row of ``gaps.csv`` without its ``seq``. Times are microseconds; bounds are inclusive, None where unknown."""

    detected_us: int
    gap_id: str
    symbol: str
    stream: str
    cause: GapCause
    from_us: int | None
    to_us: int | None
    from_id: int | None
    to_id: int | None
    expected_rows: int | None
    repaired_rows: int = 0
    state: GapState = "open"
    repaired_from: str = ""
    detail: str = ""
    revision: int = 0


class Repair(msgspec.Struct, gc=False):
    """What came of asking for one symbol's missing trades; whoever sends it has sent the trades before it.

    By ids: ``got`` are those whose trades are recorded now, ``present`` those that had been recorded without a repair,
    ``given_up`` those that are not to be had. ``times`` are exchange times of trades beside them, by id. Without ids,
    ``gap_id`` names the row, ``rows`` how many trades it was, and ``lost`` the spans of time that are not to be had.
    With the ``source`` "kline" the candles of that row's minutes are the exchange's own now; its trades stay missing.
    """

    symbol: str
    got: list[tuple[int, int]] = []
    present: list[tuple[int, int]] = []
    given_up: list[tuple[int, int]] = []
    times: dict[int, int] = {}
    gap_id: str = ""
    rows: int = 0
    lost: list[tuple[int, int]] = []
    reason: str = ""
    source: str = "rest"


class GapLedger:
    """All gaps of a session. Written in the log's thread, read and updated from any."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._entries: dict[str, Entry] = {}
        self._unwritten: dict[str, Entry] = {}
        self._unfinished: dict[tuple[str, str, str, int], str] = {}
        self._of_symbol: dict[str, set[str]] = {}
        self._next_number = 1

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def open_count(self) -> int:
        """Return how many gaps are neither repaired nor given up."""
        with self._lock:
            return sum(entry.state == "open" for entry in self._entries.values())

    def entries(self) -> list[Entry]:
        """Return every gap as it now stands, in the order of detection."""
        with self._lock:
            return list(self._entries.values())

    def load(self, rows: Iterable[Sequence[str]]) -> None:
        """Take in the rows of ``gaps.csv``; ones that cannot be read are passed over, because the rest still counts."""
        for row in rows:
            entry = _parse(row)
            if entry is not None:
                self._keep(entry)

    def record(self, gap: Gap, detected_us: int) -> Entry:
        """Enter a gap, or its end where it was entered while it still went on; return its row.

        A repaired one (a trade that came after its hole had been entered) is taken out of the open one that names its
        ids, so that the open ids are exactly the missing ones.
        """
        with self._lock:
            whole = self._carve(gap)
            if whole is not None:
                return whole
            key = (gap.symbol, gap.stream, gap.cause, gap.from_us or 0)
            begun = self._unfinished.get(key)
            if begun is not None and gap.to_us is not None:
                entry = msgspec.structs.replace(
                    self._entries[begun],
                    to_us=gap.to_us,
                    from_id=gap.from_id,
                    to_id=gap.to_id,
                    expected_rows=gap.expected_rows,
                    state=gap.state,
                    detail=gap.detail,
                    revision=self._entries[begun].revision + 1,
                )
            else:
                entry = Entry(
                    detected_us,
                    f"g{self._next_number:06d}",
                    gap.symbol,
                    gap.stream,
                    gap.cause,
                    gap.from_us,
                    gap.to_us,
                    gap.from_id,
                    gap.to_id,
                    gap.expected_rows,
                    state=gap.state,
                    detail=gap.detail,
                )
            return self._put(entry)

    def _carve(self, gap: Gap) -> Entry | None:
        """Take a repaired gap's ids out of the open gap that holds them; return that gap where they were all of it."""
        first, last = gap.from_id, gap.to_id
        if gap.state != "repaired" or first is None or last is None:
            return None
        for entry in self._entries_of(gap.symbol):
            if (
                entry.stream == gap.stream
                and entry.state in _MISSING_STATES
                and entry.cause != "log_damaged"
                and entry.from_id is not None
                and entry.to_id is not None
                and entry.from_id <= first
                and last <= entry.to_id
            ):
                return self._take_out(entry, first, last)
        return None

    def _take_out(self, entry: Entry, first: int, last: int) -> Entry | None:
        left = (entry.from_id or 0, first - 1)
        right = (last + 1, entry.to_id or 0)
        parts = [part for part in (left, right) if part[0] <= part[1]]
        revision = entry.revision + 1
        if not parts:
            rows = last - first + 1
            return self._put(msgspec.structs.replace(entry, state="repaired", repaired_rows=rows, revision=revision))
        self._put(_bounded(entry, *parts[0], revision=revision))
        for part in parts[1:]:
            self._put(_bounded(entry, *part, gap_id=f"g{self._next_number:06d}", revision=0))
        return None

    def _put(self, entry: Entry) -> Entry:
        self._keep(entry)
        self._unwritten[entry.gap_id] = entry
        return entry

    def change(
        self,
        gap_id: str,
        *,
        state: GapState,
        to_us: int | None = None,
        repaired_rows: int | None = None,
        repaired_from: str | None = None,
        detail: str | None = None,
    ) -> Entry:
        """Enter what became of a gap, as its next revision; what is None stays as it was.

        Raises:
            KeyError: there is no gap of that id.
        """
        with self._lock:
            old = self._entries[gap_id]
            entry = msgspec.structs.replace(
                old,
                state=state,
                to_us=old.to_us if to_us is None else to_us,
                repaired_rows=old.repaired_rows if repaired_rows is None else repaired_rows,
                repaired_from=old.repaired_from if repaired_from is None else repaired_from,
                detail=old.detail if detail is None else detail,
                revision=old.revision + 1,
            )
            return self._put(entry)

    def repair(self, repair: Repair) -> list[Entry]:
        """Enter what came of asking for missing trades; return the rows as they stood before it.

        A row whose trades are all there now is ``repaired``. Where some are, it is ``partial`` and keeps its bounds,
        and what is still missing gets rows of its own: ``open`` where it may still be had, ``unrecoverable`` where not.
        One that nothing came of is ``unrecoverable`` with its bounds.
        """
        with self._lock:
            if repair.gap_id:
                entry = self._entries.get(repair.gap_id)
                concerned = [entry] if entry is not None and entry.state in _MISSING_STATES else []
                for entry in concerned:
                    self._repair_span(entry, repair)
                return concerned
            concerned = self._numbered_gaps(repair)
            for entry in concerned:
                self._repair_ids(entry, repair)
            self._complete_partial(repair.symbol)
            return concerned

    def _numbered_gaps(self, repair: Repair) -> list[Entry]:
        spans = [*repair.got, *repair.present, *repair.given_up]
        return [
            entry
            for entry in sorted(self._entries_of(repair.symbol), key=_number_of)
            if entry.stream == "prices"
            and entry.state in _MISSING_STATES
            and entry.cause != "log_damaged"
            and entry.from_id is not None
            and entry.to_id is not None
            and any(first <= entry.to_id and entry.from_id <= last for first, last in spans)
        ]

    def _repair_ids(self, entry: Entry, repair: Repair) -> None:
        bounds = (entry.from_id or 0, entry.to_id or 0)
        rest = without(*bounds, sorted([*repair.got, *repair.present]))
        not_got = sum(last - first + 1 for first, last in without(*bounds, sorted(repair.got)))
        rows = entry.repaired_rows + bounds[1] - bounds[0] + 1 - not_got
        changed: dict[str, Any] = {
            "repaired_rows": rows,
            "repaired_from": repair.source if rows else entry.repaired_from,
        }
        if not rest:
            self._revise(entry, state="repaired", detail=entry.detail if entry.state == "open" else "", **changed)
            return
        lost = [part for first, last in rest for part in _within(first, last, repair.given_up)]
        if rest == [bounds]:
            if lost == rest and entry.state != "unrecoverable":
                self._revise(entry, state="unrecoverable", detail=repair.reason)
                return
            if not lost or entry.state == "unrecoverable":
                return
        self._revise(entry, state="partial", **changed)
        for first, last in sorted([*lost, *(part for span in rest for part in without(*span, lost))]):
            given_up = entry.state == "unrecoverable" or (first, last) in lost
            child = _bounded(entry, first, last, gap_id=f"g{self._next_number:06d}", revision=0)
            self._put(
                msgspec.structs.replace(
                    child,
                    from_us=repair.times.get(first - 1, entry.from_us),
                    to_us=repair.times.get(last + 1, entry.to_us),
                    state="unrecoverable" if given_up else "open",
                    repaired_rows=0,
                    repaired_from="",
                    detail=f"of {entry.gap_id}" + (f": {repair.reason}" if given_up and repair.reason else ""),
                )
            )

    def _repair_span(self, entry: Entry, repair: Repair) -> None:
        if repair.source == "kline":
            self._revise(entry, repaired_from="kline")
            return
        rows = entry.repaired_rows + repair.rows
        source = repair.source if rows else entry.repaired_from
        if not repair.lost:
            self._revise(entry, state="repaired", repaired_rows=rows, repaired_from=source)
            return
        whole = len(repair.lost) == 1 and repair.lost[0] == (entry.from_us, entry.to_us)
        if whole and not rows:
            if entry.state != "unrecoverable":
                self._revise(entry, state="unrecoverable", detail=repair.reason)
            return
        self._revise(entry, state="partial", repaired_rows=rows, repaired_from=source)
        for from_us, to_us in repair.lost:
            self._put(
                msgspec.structs.replace(
                    entry,
                    gap_id=f"g{self._next_number:06d}",
                    from_us=from_us,
                    to_us=to_us,
                    expected_rows=None,
                    state="unrecoverable",
                    repaired_rows=0,
                    repaired_from="",
                    detail=f"of {entry.gap_id}: {repair.reason}",
                    revision=0,
                )
            )

    def _complete_partial(self, symbol: str) -> None:
        """Call a gap repaired once all that it lacked has come."""
        entries = self._entries_of(symbol)
        missing = [entry for entry in entries if entry.state in _MISSING_STATES and entry.from_id is not None]
        for entry in entries:
            if entry.state == "partial" and entry.from_id is not None and entry.to_id is not None:
                first, last = entry.from_id, entry.to_id
                inside = [one for one in missing if one.stream == entry.stream and one.cause == entry.cause]
                if not any((one.from_id or 0) <= last and first <= (one.to_id or 0) for one in inside):
                    rows = entry.expected_rows or entry.repaired_rows
                    self._revise(entry, state="repaired", repaired_rows=rows)

    def _revise(self, entry: Entry, **changes: Any) -> Entry:
        return self._put(msgspec.structs.replace(entry, revision=entry.revision + 1, **changes))

    def unfinished(self, symbol: str, stream: str) -> list[Entry]:
        """Return the gaps of a symbol's stream that had a begin but no end yet."""
        with self._lock:
            return [
                self._entries[gap_id]
                for (of_symbol, of_stream, _, _), gap_id in self._unfinished.items()
                if of_symbol == symbol and of_stream == stream
            ]

    def take_unwritten(self) -> list[Entry]:
        """Return the revisions that are in no file yet; whoever takes them writes them."""
        with self._lock:
            entries, self._unwritten = list(self._unwritten.values()), {}
            return entries

    def rewrite(self) -> None:
        """Have every gap written again, because the file that held them was damaged; the same rows twice do no harm."""
        with self._lock:
            self._unwritten = dict(self._entries)

    def open_holes(self, symbol: str, stream: str) -> list[tuple[int, int]]:
        """Return the inclusive intervals of ids that are known to be missing and may still come.

        A trade that came after its hole was entered is a row of its own, and is taken out of the holes before it: one
        that is sent once more must not be taken for new.
        """
        holes: list[tuple[int, int]] = []
        with self._lock:
            for entry in sorted(self._entries_of(symbol), key=_number_of):
                # The ids of a damaged file are row numbers of ours.
                if entry.stream != stream or entry.cause == "log_damaged" or None in (entry.from_id, entry.to_id):
                    continue
                ids = (entry.from_id or 0, entry.to_id or 0)
                if entry.state == "open":
                    holes.append(ids)
                elif entry.state == "repaired":
                    holes = [part for first, last in holes for part in without(first, last, [ids])]
        return sorted(holes)

    def missing_ids(self, symbol: str, stream: str) -> list[tuple[int, int]]:
        """Return the inclusive intervals of ids that are missing, whether or not they may still come."""
        with self._lock:
            return sorted(
                (entry.from_id, entry.to_id)
                for entry in self._entries_of(symbol)
                if entry.stream == stream
                and entry.state in _MISSING_STATES
                and entry.cause != "log_damaged"
                and entry.from_id is not None
                and entry.to_id is not None
            )

    def overlaps(self, symbol: str, from_us: int, to_us: int) -> bool:
        """Say whether trades of a symbol are known to be missing in [from_us, to_us)."""
        with self._lock:
            return any(
                entry.stream == "prices"
                and entry.state not in ("repaired", "partial")  # what a partial one still lacks is in rows of its own
                and entry.repaired_from != "kline"  # its candles are whole, though its trades are not
                and (entry.from_us is not None or entry.to_us is not None)
                and (entry.from_us is None or entry.from_us < to_us)
                and (entry.to_us is None or entry.to_us >= from_us)
                for entry in self._entries_of(symbol)
            )

    def knows_damage(self, symbol: str, stream: str, from_seq: int, to_seq: int) -> bool:
        """Say whether the loss of these row numbers is in the ledger already."""
        with self._lock:
            return any(
                entry.cause == "log_damaged"
                and entry.stream == stream
                and entry.from_id is not None
                and entry.to_id is not None
                and entry.from_id <= from_seq
                and to_seq <= entry.to_id
                for entry in self._entries_of(symbol)
            )

    def highest_lost_seq(self, symbol: str, stream: str) -> int:
        """Return the highest row number of a file that is known to be lost; 0 where there is none."""
        with self._lock:
            return max(
                (
                    entry.to_id or 0
                    for entry in self._entries_of(symbol)
                    if entry.cause == "log_damaged" and entry.stream == stream
                ),
                default=0,
            )

    def _entries_of(self, symbol: str) -> list[Entry]:
        return [self._entries[gap_id] for gap_id in self._of_symbol.get(symbol, ())]

    def _keep(self, entry: Entry) -> None:
        self._entries[entry.gap_id] = entry
        self._of_symbol.setdefault(entry.symbol, set()).add(entry.gap_id)
        if entry.gap_id[1:].isdigit():
            self._next_number = max(self._next_number, int(entry.gap_id[1:]) + 1)
        key = (entry.symbol, entry.stream, entry.cause, entry.from_us or 0)
        if entry.to_us is None and entry.from_us is not None:
            self._unfinished[key] = entry.gap_id
        elif self._unfinished.get(key) == entry.gap_id:
            del self._unfinished[key]


def _within(first: int, last: int, others: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    """Return the parts of an inclusive interval that others cover."""
    parts = [(max(first, begin), min(last, end)) for begin, end in sorted(others)]
    return [part for part in parts if part[0] <= part[1]]


def _bounded(entry: Entry, first: int, last: int, *, gap_id: str = "", revision: int) -> Entry:
    """Return an entry with other ids, and the rows that these stand for."""
    return msgspec.structs.replace(
        entry,
        gap_id=gap_id or entry.gap_id,
        from_id=first,
        to_id=last,
        expected_rows=last - first + 1,
        revision=revision,
    )


def _parse(row: Sequence[str]) -> Entry | None:
    if len(row) != _FIELDS:
        return None
    try:
        return Entry(
            int(row[0]),
            row[1],
            row[2],
            row[3],
            row[4],  # type: ignore[arg-type]  # the ledger reads what it wrote
            _number(row[5]),
            _number(row[6]),
            _number(row[7]),
            _number(row[8]),
            _number(row[9]),
            int(row[10]),
            row[11],  # type: ignore[arg-type]
            row[12],
            row[13],
            int(row[14]),
        )
    except ValueError:
        return None


def _number_of(entry: Entry) -> tuple[int, str]:
    return len(entry.gap_id), entry.gap_id


def _number(text: str) -> int | None:
    return int(text) if text else None
