"""Examine what sessions of history hold, symbol by symbol, from their files. Part of the composition root."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from pathlib import Path

import msgspec

from collector.exchanges.candle_sources.base import length_us
from collector.history.holdings import Holding, history_sessions
from collector.history.spans import Spans, subtract
from collector.history.tables import QualityRow
from collector.quality.candles import Point, Report, SecondOpinion, examine
from collector.reading.csv_rows import read_batches, symbols_in
from collector.session.names import session_directory
from collector.streams import history_stream


class SymbolQuality(msgspec.Struct, kw_only=True):
    """How good one symbol's candles of one interval are, over all sources and by each.

    ``kept_from_us`` is from when on the database keeps them (None: all); what retention removed is still in the files.
    """

    symbol: str
    interval: str
    score: float
    completeness: float
    parts: dict[str, float]
    report: Report
    by_source: dict[str, float]
    opinion: SecondOpinion | None = None
    kept_from_us: int | None = None

    def row(self, now_us: int) -> QualityRow:
        """Return its row of ``data_quality``."""
        detail: dict[str, object] = {"parts": self.parts, "by_source": self.by_source}
        detail["missing_ranges"] = self.report.missing_ranges[:20]
        if self.opinion is not None:
            detail["second_source"] = self.opinion
        return QualityRow(
            symbol=self.symbol,
            timeframe=self.interval,
            completeness_percentage=round(self.completeness, 4),
            missing_records=self.report.missing,
            has_gaps=self.report.missing > 0,
            score=self.score,
            detail=msgspec.json.encode(detail).decode(),
            checked_us=now_us,
        )


def examine_symbol(
    data_dir: Path, interval: str, symbol: str, holding: Holding, order: Sequence[str]
) -> SymbolQuality | None:
    """Examine a symbol's candles, of each bucket the one that comes first in the order; None where there are none.

    Raises:
        LogError: a file cannot be read.
    """
    bucket_us = length_us(interval)
    held = holding.any
    if not held:
        return None
    whole = [(held[0][0], held[-1][1])]
    missing = subtract(subtract(whole, held), holding.empty)
    report = examine(points_of(data_dir, interval, symbol, order), bucket_us, missing=missing)
    return SymbolQuality(
        symbol=symbol,
        interval=interval,
        score=report.score,
        completeness=report.completeness,
        parts=report.parts,
        report=report,
        by_source=_by_source(holding.by_source, whole, holding.empty),
    )


def _by_source(by_source: Mapping[str, Spans], whole: Spans, empty: Spans) -> dict[str, float]:
    expected = sum(before - first for first, before in subtract(whole, empty))
    return {
        name: round(100.0 * sum(before - first for first, before in spans) / expected, 4) if expected else 0.0
        for name, spans in sorted(by_source.items())
    }


def points_of(data_dir: Path, interval: str, symbol: str, order: Sequence[str]) -> Iterator[Point]:
    """Yield a symbol's candles by time, of each bucket and session that of the source which comes first."""
    rank = {name: place for place, name in enumerate(order)}
    files = [
        _sorted_rows(data_dir, manifest.session_id, interval, symbol, rank)
        for manifest in history_sessions(data_dir, interval)
        if symbol in manifest.symbols
    ]
    last: tuple[int, int] | None = None
    for start_us, place, point in heapq.merge(*files, key=lambda row: row[:2]):
        if last is not None and start_us == last[0] and place != last[1]:
            continue  # of another source, which comes later in the order
        last = start_us, place
        yield point


def _sorted_rows(
    data_dir: Path, session_id: str, interval: str, symbol: str, rank: Mapping[str, int]
) -> list[tuple[int, int, Point]]:
    directory = session_directory(data_dir, session_id)
    stream = history_stream(interval)
    names = [column.name for column in stream.columns]
    timeframe, source, volume = (names.index(name) for name in ("timeframe", "source", "volume"))
    prices = [names.index(name) for name in ("open", "high", "low", "close")]
    found: dict[tuple[int, str], tuple[int, int, Point]] = {}
    if symbol not in symbols_in(directory, stream):
        return []
    for batch in read_batches(directory, stream, symbol):
        for row in batch.rows:
            if row[timeframe] == interval:
                start_us = int(row[0])
                o, high, low, close = (_number(row[at]) for at in prices)
                point = Point(start_us, o, high, low, close, _number(row[volume]) if row[volume] else None)
                # a later row of the same key is the one that counts
                found[start_us, row[source]] = (start_us, rank.get(row[source], len(rank)), point)
    return sorted(found.values(), key=lambda row: row[:2])


def _number(digits: str) -> Decimal:
    try:
        return Decimal(digits)
    except InvalidOperation:
        return Decimal(0)  # no price: counted as one that is not positive
