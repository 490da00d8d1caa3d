"""Which store has a session's rows: QuestDB when it has them whole, else the CSV; both where the CSV released some."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from collector.errors import LogError
from collector.reading.rows import Source, SourceName
from collector.reading.table_arrow import Held
from collector.reading.verify import rejected_seqs
from collector.session.manifest import FileRecord, Manifest
from collector.session.states import FINAL
from collector.storage.cursor import Cursor, CursorUnreadable, load_cursor
from collector.streams import Stream


@dataclass(frozen=True, slots=True)
class Plan:
    """From where one symbol's rows come: ``questdb``, ``csv``, or ``both`` (QuestDB's up to ``released_seq``)."""

    symbol: str | None
    name: SourceName
    released_seq: int = 0


def released_seq(manifest: Manifest, stream: Stream, symbol: str | None) -> int:
    """Return the last ``seq`` that was released from the CSV; 0 where nothing was."""
    record = manifest.record(stream.name, symbol)
    return record.released.last_seq if record is not None and record.released is not None else 0


def plan_of_csv(manifest: Manifest, stream: Stream, symbols: Sequence[str | None]) -> list[Plan]:
    """Return how to read the CSV, with QuestDB for what it has released."""
    plans = []
    for symbol in symbols:
        seq = released_seq(manifest, stream, symbol)
        plans.append(Plan(symbol, "both" if seq else "csv", seq))
    return plans


def lacking(
    manifest: Manifest, directory: Path, stream: Stream, symbols: Sequence[str | None], held: Mapping[str | None, Held]
) -> str:
    """Say why QuestDB does not have these symbols' rows whole; empty where it has them.

    It has them where the session has ended, all rows were acknowledged, and the table counts as many now as the files
    ever had; candles and gaps, of which a table holds fewer rows, count up to the cursor's verified position.
    """
    if manifest.state not in FINAL:
        return f"the session is {manifest.state}"
    try:
        cursor = load_cursor(directory, manifest.session_id)
        rejected = rejected_seqs(directory)
    except (CursorUnreadable, LogError) as error:
        return f"how far it was delivered is not known: {error}"
    if cursor is None:
        return "it was never delivered to QuestDB"
    for symbol in symbols:
        record = manifest.record(stream.name, symbol)
        name = " ".join(filter(None, (stream.name, symbol)))
        if rejected.get((stream.name, symbol or "")):
            return f"QuestDB refused rows of {name}"
        if record is not None and not _has_whole(record, stream, cursor, held.get(symbol, Held(0, 0))):
            return f"QuestDB does not have {name} whole"
    return ""


def _has_whole(record: FileRecord, stream: Stream, cursor: Cursor, held: Held) -> bool:
    saved = next((one for one in cursor.files if (one.stream, one.symbol) == (record.stream, record.symbol)), None)
    if saved is None:
        return record.rows == 0
    if stream.keyed:  # of a key, only the last row stands in the table: the number of the very last one must
        verified = saved.verified.seq
        return verified == held.last_seq and (record.rows == 0 or verified >= record.next_seq - 1)
    return held.rows == record.rows and saved.acknowledged.seq >= held.last_seq  # counted now, as a check would


def source_of(plans: Sequence[Plan], why: str) -> Source:
    """Return the one word for several plans."""
    names = {plan.name for plan in plans}
    name: SourceName = plans[0].name if len(names) == 1 else "both" if names else "csv"
    return Source(name, why)
