"""CSV against QuestDB: one stream of one symbol, value by value."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from operator import itemgetter
from pathlib import Path
from typing import Any

from collector.reading.csv_rows import Batch, Row, read_batches
from collector.reading.report import Difference, StreamReport
from collector.reading.table_reader import Record, Source, TableReader, key_columns
from collector.session.gaps import GapLedger
from collector.storage.csv_log import Released
from collector.streams import Kind, Stream

_PORTION_ROWS = 20_000
_SLICE_ROWS = 500

Progress = Callable[[str, int], None]
"""Told what is being read, and how many rows of it were."""


def _truth(text: str) -> bool:
    if text not in ("true", "false", ""):
        raise ValueError(f"{text!r} is neither true nor false")
    return text == "true"


_READ: dict[Kind, Callable[[str], Any]] = {
    Kind.TIMESTAMP: int,
    Kind.LONG: int,
    Kind.DOUBLE: float,
    Kind.SYMBOL: str,
    Kind.VARCHAR: str,
    Kind.BOOLEAN: _truth,
}


class ReplicaProof:
    """Compare one stream's rows with its table.

    Args:
        table: where QuestDB's rows come from; None compares the CSV with itself only (its numbers, its ledger).
        rejected: the ``seq`` of the rows that ``rejected.csv`` holds of this stream.
        until_seq: the last row to compare; None compares all (the session has ended).
        kept_from_us: rows older than this may be gone by the table's retention.
        released: which rows were deleted from the CSV on purpose.
    """

    def __init__(
        self,
        directory: Path,
        stream: Stream,
        source: Source,
        *,
        table: TableReader | None,
        ledger: GapLedger,
        rejected: frozenset[int] = frozenset(),
        until_seq: int | None = None,
        kept_from_us: int | None = None,
        released: Released | None = None,
        progress: Progress | None = None,
    ) -> None:
        self._directory = directory
        self._stream = stream
        self._source = source
        self._table = table
        self._ledger = ledger
        self._rejected = rejected
        self._until_seq = until_seq
        self._kept_from_us = kept_from_us
        self._released = released or Released()
        self._released_here = 0
        """Rows of the released ones that the CSV still has: whoever deletes them was interrupted, or is at it."""
        self._progress = progress or (lambda *_: None)
        self._key = itemgetter(*(i for i, c in enumerate(stream.columns) if c.in_database in stream.keys))
        self._last_of_key: dict[Any, int] | None = None
        self._seen = 0
        """Rows of QuestDB that were met beside the CSV's."""
        self.report = StreamReport(stream=stream.name, symbol=source.symbol or "")

    def run(self) -> StreamReport:
        """Compare everything; raise LogError where a file cannot be read, and what the connection raises."""
        report = self.report
        report.equal_rows = None if self._table is None else 0
        self._last_of_key = self._last_rows() if self._stream.keyed else None
        previous = None
        for rows in self._portions():
            previous = self._check_numbers(rows, previous)
            report.rows += len(rows)
            self._released_here += self._count_released(rows)
            if self._table is not None:
                wanted = self._wanted(rows)
                report.replaced += len(rows) - len(wanted)
                self._compare(wanted)
            self._progress(f"{self._stream.name} {self._source.symbol or ''}".rstrip(), report.rows)
        self._account_released()
        # fewer than were met is no difference: a running session replaces rows of a key meanwhile
        if self._table is not None and self._table.count(self._stream, self._source, self._until_seq) > self._seen:
            self._name_extras()
        return report

    def _batches(self) -> Iterator[Batch]:
        return read_batches(self._directory, self._stream, self._source.symbol, until_seq=self._until_seq)

    def _portions(self) -> Iterator[list[Row]]:
        """Return the rows in portions that are worth a query each."""
        portion: list[Row] = []
        for batch in self._batches():
            portion += batch.rows
            if len(portion) >= _PORTION_ROWS:
                yield portion
                portion = []
        if portion:
            yield portion

    def _add(self, reason: Any, seq: int | None, *, column: str = "", csv: Any = None, other: Any = None) -> None:
        left, right = (None if value is None else str(value) for value in (csv, other))
        symbol = self._source.symbol or ""
        self.report.findings.add(Difference(reason, self._stream.name, symbol, seq, column, left, right))

    # the CSV in itself

    def _check_numbers(self, rows: Sequence[Row], previous: int | None) -> int | None:
        """Find numbers that are used twice, and those that are missing without being in the ledger."""
        index = self._stream.seq_index
        seqs = [int(row[index]) for row in rows]
        if previous is not None and seqs == list(range(previous + 1, previous + 1 + len(seqs))):
            return seqs[-1]
        for seq in seqs:
            if previous is not None and seq <= previous:
                self._add("duplicate", seq)
                continue
            if seq != (previous or 0) + 1:
                self._check_jump((previous or 0) + 1, seq - 1)
            previous = seq
        return previous

    def _count_released(self, rows: Sequence[Row]) -> int:
        last = self._released.last_seq
        index = self._stream.seq_index
        return sum(int(row[index]) <= last for row in rows) if last and int(rows[0][index]) <= last else 0

    def _account_released(self) -> None:
        """Count the rows that only QuestDB has any more: they can be proved by their numbers alone."""
        released, report = self._released, self.report
        expected = released.rows - self._released_here
        if self._table is None or not released.last_seq:
            report.released = expected
            return
        rejected = sum(seq <= released.last_seq for seq in self._rejected) if not self._released_here else 0
        held = self._table.count(self._stream, self._source, released.last_seq) - self._released_here
        self._seen += held
        report.released, report.rejected = held, report.rejected + rejected
        if held + rejected < expected and self._kept_from_us is not None and released.from_us < self._kept_from_us:
            report.expired += expected - held - rejected
        elif held + rejected != expected:
            self._add("released", None, csv=expected - rejected, other=held)

    def _check_jump(self, first: int, last: int) -> None:
        first = max(first, self._released.last_seq + 1)
        if first > last:
            return
        if self._ledger.knows_damage(self._source.symbol or "", self._stream.name, first, last):
            self.report.lost += last - first + 1
        else:
            self._add("jump", last + 1, csv=f"{first} to {last}")

    def _last_rows(self) -> dict[Any, int]:
        """Return the number of each key's last row; what is kept grows with the keys, not with the rows."""
        last: dict[Any, int] = {}
        index = self._stream.seq_index
        for batch in self._batches():
            for row in batch.rows:
                last[self._key(row)] = int(row[index])
        return last

    def _wanted(self, rows: Sequence[Row]) -> Sequence[Row]:
        """Return the rows that QuestDB should have: of a key, the last one."""
        if self._last_of_key is None:
            return rows
        index = self._stream.seq_index
        return [row for row in rows if self._last_of_key[self._key(row)] == int(row[index])]

    # the CSV beside the table

    def _compare(self, rows: Sequence[Row]) -> None:
        if not rows or self._table is None:
            return
        index = self._stream.seq_index
        seqs = [int(row[index]) for row in rows]
        times = [int(row[0]) for row in rows]
        bounds = (min(seqs), max(seqs)), (min(times), max(times))
        records = self._table.records(self._stream, self._source, *bounds)
        self._seen += len(records)
        if len(records) == len(rows) and self._all_equal(rows, records):
            self.report.equal_rows = (self.report.equal_rows or 0) + len(rows)
            return
        self._compare_one_by_one(rows, records)

    def _all_equal(self, rows: Sequence[Row], records: Sequence[Record]) -> bool:
        """Compare column by column, in slices that stay in the processor's cache."""
        try:
            for begin in range(0, len(rows), _SLICE_ROWS):
                texts = zip(*rows[begin : begin + _SLICE_ROWS], strict=True)
                values = zip(*records[begin : begin + _SLICE_ROWS], strict=True)
                for column, ours, theirs in zip(self._stream.columns, texts, values, strict=True):
                    if tuple(_read_column(column.kind, ours)) != theirs:
                        return False
        except ValueError:
            return False
        return True

    def _compare_one_by_one(self, rows: Sequence[Row], records: Sequence[Record]) -> None:
        index = self._stream.seq_index
        remaining: dict[int, list[Record]] = {}
        for found in records:
            remaining.setdefault(found[index], []).append(found)
        for row in rows:
            seq = int(row[index])
            candidates = remaining.get(seq, [])
            record: Record | None = next((r for r in candidates if str(r[0]) == row[0]), None)
            if record is None:
                self._account_missing(row, seq)
                continue
            candidates.remove(record)
            if self._row_equal(row, record, seq):
                self.report.equal_rows = (self.report.equal_rows or 0) + 1
        for seq in sorted(remaining):
            for _ in remaining[seq]:
                self._add("extra", seq)

    def _row_equal(self, row: Row, record: Record, seq: int) -> bool:
        equal = True
        for column, text, value in zip(self._stream.columns, row, record, strict=True):
            try:
                same = next(iter(_read_column(column.kind, (text,)))) == value
            except ValueError:
                same = False
            if not same:
                equal = False
                self._add("value", seq, column=column.name, csv=text, other=value)
        return equal

    def _account_missing(self, row: Row, seq: int) -> None:
        if seq in self._rejected:
            self.report.rejected += 1
        elif self._kept_from_us is not None and int(row[0]) < self._kept_from_us:
            self.report.expired += 1
        elif self._was_replaced(row, seq):
            self.report.replaced += 1
        else:
            self._add("missing", seq)

    def _was_replaced(self, row: Row, seq: int) -> bool:
        """Say whether a running session wrote a later row of the key, behind the position that is compared."""
        if not self._stream.keyed or self._until_seq is None or self._table is None:
            return False
        names = [name for name, _ in key_columns(self._stream)]
        key = tuple(
            next(iter(_read_column(column.kind, (text,))))
            for column, text in zip(self._stream.columns, row, strict=True)
            if column.in_database in names
        )
        return self._table.later_row_of_key(self._stream, self._source, key, seq)

    # what only the table has

    def _name_extras(self) -> None:
        """Name the rows of QuestDB that stand where the CSV has none: other times, other numbers, no number."""
        if self._table is None:
            return
        index = self._stream.seq_index
        named = {(d.seq, d.reason) for d in self.report.findings.named}
        before = 0
        for rows in self._portions():
            known = {(int(row[index]), int(row[0])) for row in self._wanted(rows)}
            last = int(rows[-1][index])
            self._name_strangers((before, last), known, named)
            before = last + 1
        if self._until_seq is None or before <= self._until_seq:
            end = (1 << 62) if self._until_seq is None else self._until_seq
            self._name_strangers((before, end), set(), named)
        self._name_strangers((-(1 << 62), -1), set(), named)
        for _ in range(self._table.unnumbered(self._stream, self._source)):
            self._add("extra", None)
        if not self.report.findings.count:  # two rows of one number and time, where the table has no dedup keys
            self._add("extra", None)

    def _name_strangers(self, seqs: tuple[int, int], known: set[tuple[int, int]], named: set[Any]) -> None:
        if self._table is None:
            return
        for seq, time_us, exchange in self._table.positions(self._stream, self._source, seqs):
            stranger = (seq, time_us) not in known or exchange != self._source.exchange
            if 0 < seq <= self._released.last_seq and (seq, time_us) not in known:
                continue  # counted with the released ones
            if stranger and (seq, "extra") not in named:
                self._add("extra", seq)


def _read_column(kind: Kind, texts: Sequence[str]) -> Iterator[Any]:
    """Turn a column's texts into what QuestDB gives for them; raise ValueError where one has no such value."""
    if kind is Kind.BOOLEAN:
        return map(_truth, texts)
    if "" in texts:
        read = _READ[kind]
        return (read(text) if text else None for text in texts)
    return map(_READ[kind], texts)
