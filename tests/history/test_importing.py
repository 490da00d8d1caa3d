"""Candles out of files: what a row must be to be one, and what is said of the others."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from collector.errors import UsageError
from collector.history.importing import BadRow, Options, read_file, symbols_of, to_candle

START = 1_700_002_800
NOW_US = 1_800_000_000_000_000
ROW: dict[str, Any] = {"timestamp": START, "symbol": "A_B", "open": "2", "high": "3.10", "low": "1", "close": "2.5"}


def candle(**changes: Any) -> Any:
    return to_candle({**ROW, **changes}, Options(path=""), "1h", NOW_US)


@pytest.mark.parametrize(
    "time",
    [
        START, str(START), START * 1000, START * 1_000_000, START * 1_000_000_000, "2023-11-14T23:00:00",
        "2023-11-15T00:00:00+01:00", datetime(2023, 11, 14, 23, tzinfo=UTC),
    ],
)  # fmt: skip
def test_a_time_may_be_written_in_any_usual_way(time: Any) -> None:
    """Seconds to nanoseconds, or text, UTC where it names no zone."""
    assert candle(timestamp=time).timestamp_us == START * 1_000_000


def test_digits_stay_as_they_are() -> None:
    """What is not said is None."""
    found = candle(volume="7.000", trades_count=5)
    assert (found.high, found.volume, found.trades_count, found.quote_volume) == ("3.10", "7.000", 5, None)
    assert (found.source, found.asset_type, found.timeframe) == ("import", "crypto", "1h")


@pytest.mark.parametrize(
    ("reason", "changes"),
    [
        ("names no symbol", {"symbol": ""}),
        ("is no time", {"timestamp": "yesterday"}),
        ("is no time", {"timestamp": None}),
        ("no 1h candle starts", {"timestamp": START + 60}),
        ("not ended yet", {"timestamp": NOW_US // 3_600_000_000 * 3_600}),
        ("open is no number", {"open": "much"}),
        ("close is no number", {"close": None}),
        ("high is no number", {"high": "NaN"}),
        ("above zero", {"low": "0"}),
        ("outside", {"close": "9"}),
        ("outside", {"low": "2.2"}),
        ("below zero", {"volume": "-1"}),
        ("volume is no number", {"volume": "lots"}),
    ],
)
def test_what_is_no_candle_is_refused_with_the_reason(reason: str, changes: dict[str, Any]) -> None:
    """One row's trouble, and of no other."""
    with pytest.raises(BadRow, match=reason):
        candle(**changes)


def test_a_mapping_and_a_symbol_beside_the_file_are_used() -> None:
    """As files of brokers are written."""
    options = Options(path="", mapping={"timestamp": "Date", "open": "Open"}, symbol="AAPL_USD", asset_type="stock")
    row = {"Date": "2023-11-14T23:00", "Open": 2, "high": 3, "low": 1, "close": 2}
    found = to_candle(row, options, "1h", NOW_US)
    assert (found.symbol, found.asset_type, found.open) == ("AAPL_USD", "stock", "2")


def test_csv_json_lines_and_parquet_hold_the_same(tmp_path: Path) -> None:
    """Whatever the kind, the rows are these."""
    arrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [{**ROW, "timestamp": START + 3600 * n, "symbol": f"S{n % 2}_B"} for n in range(5)]
    names = list(ROW)
    lines = [",".join(names), *(",".join(str(row[name]) for name in names) for row in rows)]
    (tmp_path / "a.csv").write_text("\n".join(lines) + "\n")
    (tmp_path / "b.json").write_text(json.dumps(rows))
    (tmp_path / "c.json").write_text("\n".join(map(json.dumps, rows)))
    parquet.write_table(arrow.Table.from_pylist(rows), tmp_path / "d.parquet")
    expected = [to_candle(row, Options(path=""), "1h", NOW_US) for row in rows]
    for name in ("a.csv", "b.json", "c.json", "d.parquet"):
        options = Options(path=str(tmp_path / name))
        assert [to_candle(row, options, "1h", NOW_US) for _, row in read_file(tmp_path / name)] == expected
        assert symbols_of(options) == (["S0_B", "S1_B"], 5)


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    """With what it may be."""
    (tmp_path / "x.txt").write_text("")
    (tmp_path / "broken.json").write_text('[{"a":')
    for name, reason in (("x.txt", "no known kind"), ("broken.json", "cannot be read"), ("none.csv", "cannot be read")):
        with pytest.raises(UsageError, match=reason):
            list(read_file(tmp_path / name))
