"""When a live segment is closed for a new one: pure.

A day is one of receipt, by the first row that the segment holds: so the rule needs no memory and survives a restart.
Candles have no time of receipt (in a replay their time is long ago), so a symbol's candles follow its ticks.
"""

from __future__ import annotations

from collections.abc import Iterable

import msgspec

from collector.config import Csv
from collector.session.resume import position
from collector.storage.csv_log import StreamFile
from collector.streams import GAPS, HISTORY_TYPES, KLINES, OHLCV

_DAY_US = 86_400_000_000


class RotationRule(msgspec.Struct, frozen=True):
    """What makes a segment due; 0 means never.

    Args:
        daily: its first row was received on an earlier day (UTC) than today.
        max_bytes: it has grown to so many.
        max_age_us: its first row was received so long ago.
    """

    daily: bool = False
    max_bytes: int = 0
    max_age_us: int = 0

    @classmethod
    def from_config(cls, config: Csv) -> RotationRule:
        """Return the rule of ``[csv]``: a spool is closed often, whatever else is said."""
        if config.enabled:
            return cls(daily=config.rotate == "daily", max_bytes=config.rotate_bytes)
        sizes = [size for size in (config.rotate_bytes, config.spool_rotate_bytes) if size]
        return cls(
            daily=config.rotate == "daily", max_bytes=min(sizes), max_age_us=round(config.spool_rotate_s * 1_000_000)
        )

    @property
    def never(self) -> bool:
        return not (self.daily or self.max_bytes or self.max_age_us)

    def due(self, files: Iterable[StreamFile], now_us: int) -> list[StreamFile]:
        """Return the files whose live segment is to be closed; one without rows never is.

        The ledger and the candles of a spool are never deleted, so age alone does not close them.
        """
        filled = [file for file in files if file.next_seq > file.first_seq]
        chosen = {file: None for file in filled if self.max_bytes and file.size >= self.max_bytes}
        new_day: set[str] = set()
        for file in filled:
            received_us = received_of(file, file.first_row)
            if received_us is None:
                continue
            if self.daily and received_us // _DAY_US < now_us // _DAY_US:
                new_day.add(file.symbol or "")
            elif file.stream.name not in KEPT_STREAMS and self.max_age_us and received_us + self.max_age_us <= now_us:
                chosen[file] = None
        chosen.update((file, None) for file in filled if file.stream is not GAPS and (file.symbol or "") in new_day)
        return list(chosen)


NO_ROTATION = RotationRule()


def received_of(file: StreamFile, row: str) -> int | None:
    """Return when a row of a file was received, in microseconds; None where the row does not say."""
    if not row or not any(column.name == "received_at" for column in file.stream.columns):
        return None
    text = row.split(",")[position(file.stream, "received_at")]
    return int(text) if text.isdigit() else None


KEPT_STREAMS = frozenset({GAPS.name, OHLCV.name, KLINES.name, *HISTORY_TYPES})
"""Never deleted: the ledger says what is missing, and candles cannot be made again without their trades."""
