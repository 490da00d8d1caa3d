"""What the sessions of history hold already: read from their manifests, or from their files where one was cut off."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path

from collector.exchanges.candle_sources.base import length_us
from collector.history.spans import Spans, of_starts, union
from collector.reading.csv_rows import read_batches, symbols_in
from collector.session.manifest import Manifest, find_sessions
from collector.session.names import session_directory
from collector.streams import history_stream

SourceSpans = dict[str, Spans]


class Holding:
    """One symbol's candles of one interval, over all sessions.

    Args:
        by_source: the spans of which each source's candles are held.
        empty: the spans in which nothing was traded, as two exchanges said.
    """

    __slots__ = ("by_source", "empty")

    def __init__(self, by_source: SourceSpans | None = None, empty: Spans | None = None) -> None:
        self.by_source = by_source or {}
        self.empty = empty or []

    def add(self, source: str, spans: Spans) -> None:
        """Take in that a source's candles of some spans are held."""
        self.by_source[source] = union(self.by_source.get(source, []), spans)

    @property
    def any(self) -> Spans:
        """The spans of which candles are held, whosever they are."""
        return union(*self.by_source.values())


def history_sessions(data_dir: Path, interval: str = "") -> list[Manifest]:
    """Return the sessions of history of an interval (of all where none is named), oldest first."""
    return [
        manifest
        for manifest in find_sessions(data_dir)[0]
        if manifest.kind == "history" and manifest.backfill is not None and interval in ("", manifest.backfill.interval)
    ]


def load_holdings(data_dir: Path, interval: str, symbols: Collection[str] | None = None) -> dict[str, Holding]:
    """Return, by symbol, what all sessions of history hold of an interval.

    Raises:
        LogError: the files of a session cannot be read.
    """
    found: dict[str, Holding] = {}
    for manifest in history_sessions(data_dir, interval):
        plan = manifest.backfill
        if plan is None:
            continue
        for symbol in {*manifest.symbols, *plan.held}:
            if symbols is not None and symbol not in symbols:
                continue
            holding = found.setdefault(symbol, Holding())
            holding.empty = union(holding.empty, plan.empty.get(symbol, []))
            held = plan.held.get(symbol, {})
            if manifest.state != "completed":
                held = spans_in(session_directory(data_dir, manifest.session_id), interval, symbol)
            for source, spans in held.items():
                holding.add(source, list(spans))
    return found


def spans_in(directory: Path, interval: str, symbol: str) -> SourceSpans:
    """Return, by source, the spans of the candles in a session's files of one symbol; raise LogError as above."""
    stream = history_stream(interval)
    names = [column.name for column in stream.columns]
    source_at, timeframe_at = names.index("source"), names.index("timeframe")
    length = length_us(interval)
    spans: SourceSpans = {}
    if symbol not in symbols_in(directory, stream):
        return spans
    for batch in read_batches(directory, stream, symbol):
        starts: dict[str, list[int]] = {}
        for row in batch.rows:
            if row[timeframe_at] == interval:
                starts.setdefault(row[source_at], []).append(int(row[0]))
        for source, found in starts.items():
            spans[source] = union(spans.get(source, []), of_starts(found, length))
    return spans
