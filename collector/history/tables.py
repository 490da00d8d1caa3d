"""The tables of history that are no stream: ranges, quality, logs and symbols, each written through this module.

A row stands for its key, so it is upserted. QuestDB wants the designated timestamp among the dedup keys: where the key
has no time of its own, it is the epoch in every row.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import LiteralString

import msgspec

from collector.config import QuestDB
from collector.storage.sql import connect, to_microseconds, to_timestamp

_KEY_TIME_US = 0


class RangeRow(msgspec.Struct, frozen=True, kw_only=True):
    """What is held of a symbol's candles of an interval: ``historical_data_range``.

    ``total_records`` counts each bucket once, whatever sources have it; ``is_complete``: nothing lacks between the
    first and the last of them but what nobody traded in.
    """

    symbol: str
    timeframe: str
    earliest_us: int
    latest_us: int
    total_records: int
    is_complete: bool
    updated_us: int


class QualityRow(msgspec.Struct, frozen=True, kw_only=True):
    """How good a symbol's candles of an interval are: ``data_quality``; ``detail`` are the parts of the score."""

    symbol: str
    timeframe: str
    completeness_percentage: float
    missing_records: int
    has_gaps: bool
    score: float
    detail: str
    checked_us: int


class LogRow(msgspec.Struct, frozen=True, kw_only=True):
    """One operation of any kind: ``data_collection_logs``. ``finished_us`` is None while it runs."""

    task_id: str
    task_name: str
    status: str
    started_us: int
    finished_us: int | None = None
    provider: str = ""
    symbols: int = 0
    records: int = 0
    retries: int = 0
    error: str = ""
    detail: str = ""


class SymbolRow(msgspec.Struct, frozen=True, kw_only=True):
    """A symbol of the master list: ``symbols``."""

    symbol: str
    base: str
    quote: str
    name: str
    coingecko_id: str
    market_cap_rank: int | None
    is_active: bool
    is_stablecoin: bool
    is_wrapped: bool
    exchanges: tuple[str, ...]
    updated_us: int


class HistoryTables:
    """Read and write these tables; every call opens a connection of its own and may block.

    Args:
        settings: gives QuestDB's address and credentials at each call, as an embedded server's may change.

    Each method raises DatabaseUnavailable where the server is gone, and DatabaseMisconfigured where it refuses.
    """

    def __init__(self, settings: Callable[[], QuestDB], *, query_timeout_s: float = 20) -> None:
        self._settings = settings
        self._query_timeout_s = query_timeout_s

    def put_ranges(self, rows: Sequence[RangeRow]) -> None:
        """Write rows of ``historical_data_range`` in place of those that stood."""
        self._put(
            "INSERT INTO historical_data_range (key_time, symbol, timeframe, earliest_date, latest_date, "
            "total_records, is_complete, updated_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s)",
            [
                (
                    to_timestamp(_KEY_TIME_US), row.symbol, row.timeframe, to_timestamp(row.earliest_us),
                    to_timestamp(row.latest_us), row.total_records, row.is_complete, to_timestamp(row.updated_us),
                )
                for row in rows
            ],
        )  # fmt: skip

    def put_quality(self, rows: Sequence[QualityRow]) -> None:
        """Write rows of ``data_quality`` in place of those that stood."""
        self._put(
            "INSERT INTO data_quality (key_time, symbol, timeframe, completeness_percentage, missing_records, "
            "has_gaps, score, detail, checked_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                (
                    to_timestamp(_KEY_TIME_US), row.symbol, row.timeframe, row.completeness_percentage,
                    row.missing_records, row.has_gaps, row.score, row.detail, to_timestamp(row.checked_us),
                )
                for row in rows
            ],
        )  # fmt: skip

    def put_logs(self, rows: Sequence[LogRow]) -> None:
        """Write rows of ``data_collection_logs``; a row of the same operation takes the place of the one before."""
        self._put(
            "INSERT INTO data_collection_logs (started_at, task_id, task_name, status, finished_at, duration, "
            "provider, symbols, records, retries, error, detail) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                (
                    to_timestamp(row.started_us), row.task_id, row.task_name, row.status,
                    to_timestamp(row.finished_us),
                    None if row.finished_us is None else (row.finished_us - row.started_us) / 1e6,
                    row.provider, row.symbols, row.records, row.retries, row.error or None, row.detail or None,
                )
                for row in rows
            ],
        )  # fmt: skip

    def put_symbols(self, rows: Sequence[SymbolRow]) -> None:
        """Write rows of ``symbols`` in place of those that stood."""
        self._put(
            "INSERT INTO symbols (key_time, symbol, base, quote, name, coingecko_id, market_cap_rank, is_active, "
            "is_stablecoin, is_wrapped, exchanges, updated_at) "
            "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
            [
                (
                    to_timestamp(_KEY_TIME_US), row.symbol, row.base, row.quote, row.name, row.coingecko_id,
                    row.market_cap_rank, row.is_active, row.is_stablecoin, row.is_wrapped, ",".join(row.exchanges),
                    to_timestamp(row.updated_us),
                )
                for row in rows
            ],
        )  # fmt: skip

    def logs(self, limit: int = 50) -> list[LogRow]:
        """Return the newest operations, newest first."""
        with connect(self._settings(), query_timeout_s=self._query_timeout_s) as connection:
            found = connection.rows(
                "SELECT task_id, task_name, status, started_at, finished_at, provider, symbols, records, retries, "
                "error, detail FROM data_collection_logs ORDER BY started_at DESC LIMIT %s",
                limit,
            )
        return [
            LogRow(
                task_id=row[0],
                task_name=row[1],
                status=row[2],
                started_us=to_microseconds(row[3]) or 0,
                finished_us=to_microseconds(row[4]),
                provider=row[5] or "",
                symbols=row[6] or 0,
                records=row[7] or 0,
                retries=row[8] or 0,
                error=row[9] or "",
                detail=row[10] or "",
            )
            for row in found
        ]

    def _put(self, statement: LiteralString, rows: Sequence[tuple[object, ...]]) -> None:
        if not rows:
            return
        with connect(self._settings(), query_timeout_s=self._query_timeout_s) as connection:
            for row in rows:
                connection.run(statement, *row)
