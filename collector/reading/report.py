"""What ``verify`` found: counts per stream, and the differences by name."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import msgspec

MAX_DIFFERENCES = 20
"""How many differences of one stream are named; the rest are counted."""

Reason = Literal["value", "missing", "extra", "duplicate", "damaged", "jump", "product", "candle", "released"]

_SENTENCES: dict[Reason, str] = {
    "value": "{column} is {left} in the CSV and {right} in QuestDB",
    "missing": "the row is in the CSV and not in QuestDB",
    "extra": "the row is in QuestDB and not in the CSV",
    "duplicate": "the number is used twice",
    "damaged": "the row cannot be read: {left}",
    "jump": "rows {left} are missing, and the ledger does not say so",
    "product": "{column} is {left}, price times volume is {right}",
    "released": "of {left} rows that only QuestDB should have any more it has {right}",
    "candle": "{column} is {left} in the CSV, the trades say {right}",
}


class Difference(msgspec.Struct, frozen=True):
    """One thing that does not agree. ``row`` names what the row is where that helps (a candle's interval and start)."""

    reason: Reason
    stream: str
    symbol: str
    seq: int | None
    column: str = ""
    csv: str | None = None
    other: str | None = None
    row: str = ""

    def __str__(self) -> str:
        where = " ".join(part for part in (self.stream, self.symbol, self.row) if part)
        number = "" if self.seq is None else f" seq {self.seq}"
        sentence = _SENTENCES[self.reason].format(column=self.column, left=_shown(self.csv), right=_shown(self.other))
        return f"{where}{number}: {sentence}."


class Findings(msgspec.Struct):
    """The differences of one stream: the first ones by name, all of them counted."""

    count: int = 0
    named: list[Difference] = []

    def add(self, difference: Difference) -> None:
        self.count += 1
        if len(self.named) < MAX_DIFFERENCES:
            self.named.append(difference)


class Part(msgspec.Struct, kw_only=True):
    """What every part of a report has."""

    symbol: str = ""
    findings: Findings = msgspec.field(default_factory=Findings)

    @property
    def agrees(self) -> bool:
        return self.findings.count == 0


class StreamReport(Part, kw_only=True):
    """One stream of one symbol (empty where the stream is the session's).

    Args:
        rows: rows in the CSV, up to the position that was compared.
        equal_rows: rows that QuestDB has with every value equal; None where no database was asked.
        replaced: rows of a key that a later row of the CSV replaced, so that QuestDB need not have them.
        rejected: rows that QuestDB does not have and ``rejected.csv`` does.
        expired: rows that QuestDB dropped by the table's retention.
        lost: numbers that are in no file, and the ledger says so.
        released: rows that were deleted from the CSV because QuestDB has them, and that it has, by their number.
    """

    stream: str
    rows: int = 0
    equal_rows: int | None = None
    replaced: int = 0
    rejected: int = 0
    expired: int = 0
    lost: int = 0
    released: int = 0


class CandleReport(Part, kw_only=True):
    """One symbol's candles against its trades; ``waiting`` candles need not be written yet (the session still runs).

    Of ``released`` candles the trades, or some of them, are only in QuestDB any more; ``replaced`` ones are the
    exchange's own, or made of such, because their trades were not to be had.
    """

    trades: int = 0
    candles: int = 0
    waiting: int = 0
    released: int = 0
    replaced: int = 0


class Report(msgspec.Struct):
    """What came of verifying a session. ``database`` is the address that was asked; empty where none was.

    ``problems`` are what kept something from being compared, each a sentence.
    """

    session_id: str
    database: str = ""
    streams: list[StreamReport] = []
    candles: list[CandleReport] = []
    problems: list[str] = []
    seconds: float = 0.0

    @property
    def agrees(self) -> bool:
        """Say whether everything that was compared is equal, and nothing kept from being compared."""
        return not self.problems and all(part.agrees for part in self.parts())

    def differences(self) -> Iterator[Difference]:
        """Return the differences that are named, stream by stream."""
        for part in self.parts():
            yield from part.findings.named

    def parts(self) -> list[Part]:
        """Return every part of the report, streams first."""
        return [*self.streams, *self.candles]

    @property
    def first_difference(self) -> Difference | None:
        return next(self.differences(), None)

    def text(self) -> str:
        """Return the report for a person: a line per stream, then what does not agree."""
        lines = [_stream_line(part) for part in self.streams]
        lines += [_candle_line(part) for part in self.candles]
        lines += [str(difference) for difference in self.differences()]
        unnamed = sum(p.findings.count - len(p.findings.named) for p in self.parts())
        if unnamed:
            lines.append(f"… and {unnamed} more.")
        lines += self.problems
        where = f"CSV and QuestDB ({self.database})" if self.database else "CSV (no database was asked)"
        lines.append(f"{where}, candles and trades: {'equal' if self.agrees else 'NOT EQUAL'}.")
        return "\n".join(lines)


def _stream_line(part: StreamReport) -> str:
    words = [f"{part.rows} rows"]
    if part.equal_rows is not None:
        words.append(f"{part.equal_rows} equal in QuestDB")
    counts = {name: getattr(part, name) for name in ("replaced", "rejected", "expired", "lost", "released")}
    words += [f"{count} {name}" for name, count in counts.items() if count]
    return _line(part.stream, part.symbol, words, part.findings)


def _candle_line(part: CandleReport) -> str:
    words = [f"{part.candles} equal to {part.trades} trades"]
    if part.waiting:
        words.append(f"{part.waiting} not due yet")
    if part.released:
        words.append(f"{part.released} of released trades")
    if part.replaced:
        words.append(f"{part.replaced} the exchange's own")
    return _line("candles", part.symbol, words, part.findings)


def _line(what: str, symbol: str, words: list[str], findings: Findings) -> str:
    mark = f"DIFFERENT ({findings.count})" if findings.count else "equal"
    return f"{' '.join(filter(None, (what, symbol)))}: {', '.join(words)}: {mark}"


def _shown(value: str | None) -> str:
    return "empty" if value is None or value == "" else value
