"""Past candles and what is known of them, as QuestDB has it; only reading."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from collector.config import QuestDB
from collector.history.tables import HistoryTables, LogRow, QualityRow, RangeRow
from collector.storage.sql import connect, to_microseconds, to_timestamp

CANDLE_COLUMNS = (
    "timestamp", "open", "high", "low", "close", "volume", "quote_volume", "trades_count", "source", "session_id",
)  # fmt: skip


class HeldHistory:
    """Ask for what is held; every call opens a connection of its own and may block.

    Args:
        settings: gives QuestDB's address and credentials, as the user that may only read.

    Each method raises DatabaseUnavailable where the server is gone, and DatabaseMisconfigured where it refuses.
    """

    def __init__(self, settings: Callable[[], QuestDB]) -> None:
        self._settings = settings

    def ranges(self) -> list[RangeRow]:
        """Return what is held of each symbol and interval, by their names."""
        with connect(self._settings()) as connection:
            found = connection.rows(
                "SELECT symbol, timeframe, earliest_date, latest_date, total_records, is_complete, updated_at "
                "FROM historical_data_range ORDER BY symbol, timeframe"
            )
        return [
            RangeRow(
                symbol=row[0], timeframe=row[1], earliest_us=to_microseconds(row[2]) or 0,
                latest_us=to_microseconds(row[3]) or 0, total_records=row[4] or 0, is_complete=bool(row[5]),
                updated_us=to_microseconds(row[6]) or 0,
            )
            for row in found
        ]  # fmt: skip

    def quality(self) -> list[QualityRow]:
        """Return how good each symbol's candles are, by symbol and interval."""
        with connect(self._settings()) as connection:
            found = connection.rows(
                "SELECT symbol, timeframe, completeness_percentage, missing_records, has_gaps, score, detail, "
                "checked_at FROM data_quality ORDER BY symbol, timeframe"
            )
        return [
            QualityRow(
                symbol=row[0], timeframe=row[1], completeness_percentage=row[2] or 0.0, missing_records=row[3] or 0,
                has_gaps=bool(row[4]), score=row[5] or 0.0, detail=row[6] or "",
                checked_us=to_microseconds(row[7]) or 0,
            )
            for row in found
        ]  # fmt: skip

    def logs(self, limit: int) -> list[LogRow]:
        """Return the newest operations, newest first."""
        return HistoryTables(self._settings).logs(limit)

    def candles(
        self, symbol: str, timeframe: str, from_us: int, to_us: int | None, *, skip: int, limit: int
    ) -> list[list[Any]]:
        """Return candles of every source, by time, source and session: values of ``CANDLE_COLUMNS``, times in µs.

        Args:
            skip: how many of the first are left out, as they were given before.
        """
        end = to_timestamp(to_us) if to_us is not None else to_timestamp(_FAR_US)
        with connect(self._settings()) as connection:
            found = connection.rows(
                "SELECT timestamp, open, high, low, close, volume, quote_volume, trades_count, source, session_id "
                "FROM market_data_points WHERE symbol = %s AND timeframe = %s AND timestamp >= %s AND timestamp < %s "
                "ORDER BY timestamp, source, session_id LIMIT %s, %s",
                symbol, timeframe, to_timestamp(from_us), end, skip, skip + limit,
            )  # fmt: skip
        return [[to_microseconds(row[0]), *row[1:]] for row in found]


_FAR_US = 4_102_444_800_000_000  # 2100
