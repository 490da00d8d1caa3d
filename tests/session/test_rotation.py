"""When a live segment is due for closing."""

from __future__ import annotations

from pathlib import Path

import pytest

from collector.config import Csv
from collector.session.rotation import NO_ROTATION, RotationRule
from collector.storage.csv_log import StreamFile
from collector.streams import GAPS, OHLCV, ORDERBOOK, PRICES, Stream

DAY_US = 86_400_000_000
MIDNIGHT_US = 20_000 * DAY_US


def file(stream: Stream, symbol: str | None, received_us: int = 0, rows: int = 1, size: int = 100) -> StreamFile:
    made = StreamFile(stream, symbol, Path(stream.file))
    made.next_seq += rows
    made.size = size
    fields = ["1"] * len(stream.columns)
    for index, column in enumerate(stream.columns):
        if column.name == "received_at":
            fields[index] = str(received_us)
    made.first_row = ",".join(fields) if rows else ""
    return made


def test_a_day_is_one_of_receipt_and_ends_at_midnight_utc() -> None:
    """A segment that was begun before midnight is due from midnight on, and not before."""
    rule = RotationRule(daily=True)
    prices = file(PRICES, "A", MIDNIGHT_US - 1)
    assert rule.due([prices], MIDNIGHT_US - 1) == []
    assert rule.due([prices], MIDNIGHT_US) == [prices]
    assert rule.due([file(PRICES, "A", MIDNIGHT_US)], MIDNIGHT_US + DAY_US - 1) == []


def test_candles_follow_the_ticks_of_their_symbol_and_the_ledger_stays() -> None:
    """The times of candles are the exchange's, which in a replay are long ago."""
    rule = RotationRule(daily=True)
    old, candles = file(ORDERBOOK, "A", MIDNIGHT_US - 1), file(OHLCV, "A")
    files = [file(GAPS, None), old, candles, file(OHLCV, "B"), file(PRICES, "B", MIDNIGHT_US)]
    assert rule.due(files, MIDNIGHT_US) == [old, candles]


def test_a_segment_without_rows_is_never_due() -> None:
    """Whatever its size is said to be."""
    rule = RotationRule(daily=True, max_bytes=1, max_age_us=1)
    assert rule.due([file(PRICES, "A", 0, rows=0)], MIDNIGHT_US) == []


def test_size_and_age() -> None:
    """Any file by its size; files that say when their rows were received, by that."""
    rule = RotationRule(max_bytes=1000, max_age_us=60)
    large, old, young = file(GAPS, None, size=1000), file(PRICES, "A", 40), file(PRICES, "B", 41)
    assert rule.due([large, old, young, file(OHLCV, "A")], 100) == [large, old]


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (Csv(), RotationRule(daily=True)),
        (Csv(rotate="none"), NO_ROTATION),
        (Csv(rotate="none", rotate_bytes=5), RotationRule(max_bytes=5)),
        (Csv(enabled=False, spool_rotate_s=2), RotationRule(daily=True, max_bytes=16 << 20, max_age_us=2_000_000)),
        (Csv(enabled=False, rotate_bytes=7), RotationRule(daily=True, max_bytes=7, max_age_us=60_000_000)),
    ],
)
def test_the_rule_is_what_the_configuration_says(config: Csv, expected: RotationRule) -> None:
    """A spool is closed by size and by age, too."""
    assert RotationRule.from_config(config) == expected
    assert RotationRule.from_config(config).never == (expected == NO_ROTATION)
