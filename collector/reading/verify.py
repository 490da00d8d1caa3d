"""The proof that both stores agree, and the candles with the trades: for a session that ended, or that still runs."""

from __future__ import annotations

import csv
import time
from collections.abc import Mapping
from pathlib import Path

from collector.clock import Clock, SystemClock
from collector.config import QuestDB
from collector.errors import CollectorError, LogError
from collector.reading.candle_proof import CandleProof
from collector.reading.csv_rows import read_rows, stream_in, symbols_in
from collector.reading.replica_proof import Progress, ReplicaProof
from collector.reading.report import Report
from collector.reading.table_reader import Source, TableReader
from collector.session.gaps import GapLedger
from collector.session.manifest import Manifest, load_manifest
from collector.storage.csv_log import Released
from collector.storage.rejected import REJECTED_FILE
from collector.streams import GAPS, HISTORY_TYPES, OHLCV, PRICES, STREAMS, Stream

Positions = Mapping[tuple[str, str | None], int]
"""Per stream's name and symbol: the last durable ``seq`` that both stores are to be compared up to."""

_APPLY_TIMEOUT_S = 30.0
_MAX_RUNS = 3


def verify_session(
    directory: Path,
    sql_settings: QuestDB | None,
    *,
    positions: Positions | None = None,
    progress: Progress | None = None,
    clock: Clock | None = None,
) -> Report:
    """Compare a session's CSV with QuestDB, row by row and value by value, and its candles with its trades.

    Args:
        sql_settings: where QuestDB answers; None compares the CSV with itself only.
        positions: for a running session, how far both stores are complete (committed, and acknowledged).

    Raises:
        ManifestError: the directory has no readable manifest.
        DatabaseUnavailable, DatabaseMisconfigured: QuestDB could not be asked.
    """
    begun = time.monotonic()
    for _ in range(_MAX_RUNS):
        manifest = load_manifest(directory)
        verification = _Verification(directory, manifest, positions, progress, clock or SystemClock())
        if sql_settings is None:
            verification.run(None)
        else:
            with TableReader(sql_settings) as table:
                verification.report.database = table.address
                verification.run(table)
        if verification.report.agrees or _released(load_manifest(directory)) == _released(manifest):
            break  # otherwise files were deleted under it, on purpose: look again
    verification.report.seconds = time.monotonic() - begun
    return verification.report


class _Verification:
    """One run of ``verify``: what it goes through, and the report that it fills."""

    def __init__(
        self,
        directory: Path,
        manifest: Manifest,
        positions: Positions | None,
        progress: Progress | None,
        clock: Clock,
    ) -> None:
        self._directory = directory
        self._manifest = manifest
        self._positions = positions
        self._progress = progress
        self._clock = clock
        self._ledger = GapLedger()
        self._released = _released(manifest)
        self.report = Report(manifest.session_id)

    def run(self, table: TableReader | None) -> None:
        try:
            self._ledger.load(read_rows(self._directory, GAPS))
            rejected = rejected_seqs(self._directory)
        except LogError as error:
            self.report.problems.append(str(error))
            rejected = {}
        for stream in streams_of(self._manifest):
            kept_from_us = self._prepare(table, stream)
            for symbol in self._symbols_of(stream):
                self._compare(
                    stream, symbol, table, rejected.get((stream.name, symbol or ""), frozenset()), kept_from_us
                )
        for symbol in sorted({*symbols_in(self._directory, PRICES), *symbols_in(self._directory, OHLCV)}):
            self._prove_candles(symbol)

    def _prepare(self, table: TableReader | None, stream: Stream) -> int | None:
        """Wait for what was acknowledged to show, and return from when on the table keeps its rows."""
        if table is None:
            return None
        ttl_us = table.ttl_us(stream)
        table.wait_applied(stream, _APPLY_TIMEOUT_S)
        return self._clock.now_us() - ttl_us if ttl_us else None

    def _symbols_of(self, stream: Stream) -> list[str | None]:
        """Return the symbols to compare: those of the manifest too, because QuestDB may have rows where no file is."""
        if not stream.per_symbol:
            return [None]
        symbols: list[str | None] = []
        symbols += sorted({*self._manifest.symbols, *symbols_in(self._directory, stream)})
        return symbols

    def _compare(
        self,
        stream: Stream,
        symbol: str | None,
        table: TableReader | None,
        rejected: frozenset[int],
        kept_from_us: int | None,
    ) -> None:
        try:
            found = stream_in(self._directory, stream, symbol)
        except LogError as error:
            self._note(stream, symbol, error)
            found = stream
        proof = ReplicaProof(
            self._directory,
            found,
            Source(self._manifest.session_id, self._manifest.exchange, symbol),
            table=table,
            ledger=self._ledger,
            rejected=rejected,
            until_seq=self._until(stream, symbol),
            kept_from_us=kept_from_us,
            released=self._released.get((stream.name, symbol)),
            progress=self._progress,
        )
        try:
            proof.run()
        except (LogError, ValueError) as error:
            self._note(stream, symbol, error)
        self.report.streams.append(proof.report)

    def _prove_candles(self, symbol: str) -> None:
        released = self._released.get((PRICES.name, symbol))
        proof = CandleProof(
            self._directory,
            symbol,
            until_seqs=(self._until(PRICES, symbol), self._until(OHLCV, symbol)),
            released_until_us=released.to_us if released is not None else 0,
            ids_ordered=self._manifest.ids_ordered,
            ended=self._positions is None and self._manifest.state == "completed",
            progress=self._progress,
        )
        try:
            proof.run()
        except (LogError, ValueError, ArithmeticError) as error:
            self._note(OHLCV, symbol, error)
        self.report.candles.append(proof.report)

    def _until(self, stream: Stream, symbol: str | None) -> int | None:
        """Return the last row to compare; a file that a running session has no position of yet has none."""
        return None if self._positions is None else self._positions.get((stream.name, symbol), 0)

    def _note(self, stream: Stream, symbol: str | None, error: Exception) -> None:
        words = str(error) if isinstance(error, CollectorError) else f"A value cannot be read: {error!r}."
        self.report.problems.append(f"{' '.join(filter(None, (stream.name, symbol)))}: {words}")


def streams_of(manifest: Manifest) -> list[Stream]:
    """Return the streams that a session can have: those of history and the live ones never stand together."""
    past = manifest.kind == "history"
    return [one for one in STREAMS.values() if one is GAPS or (one.name in HISTORY_TYPES) == past]


def _released(manifest: Manifest) -> dict[tuple[str, str | None], Released]:
    return {(file.stream, file.symbol): file.released for file in manifest.files if file.released is not None}


def rejected_seqs(directory: Path) -> dict[tuple[str, str], frozenset[int]]:
    """Return the numbers of the rows that QuestDB refused, per stream and symbol."""
    path = directory / REJECTED_FILE
    found: dict[tuple[str, str], set[int]] = {}
    try:
        with path.open(encoding="utf-8", newline="") as file:
            for row in csv.DictReader(file):
                if row.get("stream") and (row.get("seq") or "").isdecimal():
                    found.setdefault((row["stream"], row["symbol"] or ""), set()).add(int(row["seq"]))
    except FileNotFoundError:
        return {}
    except (OSError, csv.Error, UnicodeDecodeError) as error:
        raise LogError(f"{path} cannot be read: {error}.") from error
    return {key: frozenset(seqs) for key, seqs in found.items()}
