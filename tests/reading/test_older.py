"""Older CSV files become sessions of ours."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import LogError, UsageError
from collector.reading.csv_rows import read_rows
from collector.reading.older import Conversion, convert_older, find_older, to_microseconds
from collector.reading.sessions import find_session
from collector.reading.verify import verify_session
from collector.storage.files import OperatingSystem
from collector.streams import OHLCV, ORDERBOOK, PRICES

NOW_US = 1_790_000_000_000_000
PRICES_HEADER = "timestamp,price,volume,quote_volume\n"


@pytest.fixture
def convert(tmp_path: Path) -> Callable[..., Conversion]:
    """Convert into one data directory."""

    def run(source: Path, **options: Any) -> Conversion:
        return convert_older(source, tmp_path / "data", files=OperatingSystem(), now_us=NOW_US, **options)

    return run


@pytest.fixture
def old(tmp_path: Path) -> Path:
    """Give a folder of an older session, with two symbols."""
    source = tmp_path / "session_20240101_120000"
    for symbol in ("BTC_USDT", "ETH_USDT"):
        folder = source / symbol
        folder.mkdir(parents=True)
        rows = [f"{1_704_103_200_000 + n * 700},{100 + n % 5}.50,0.{n + 1:03d},{n}.1\n" for n in range(300)]
        (folder / "prices.csv").write_text(PRICES_HEADER + "".join(rows))
    (source / "notes.csv").write_text("a,b\n1,2\n")
    return source


@given(st.integers(10**14, 4 * 10**15))
def test_times_are_told_apart_by_their_size(time_us: int) -> None:
    """Seconds with a fraction, milli-, micro- and nanoseconds of one moment are that moment."""
    assert to_microseconds(f"{time_us // 10**6}.{time_us % 10**6:06d}") == time_us
    assert to_microseconds(str(time_us // 1000)) == time_us // 1000 * 1000
    assert to_microseconds(str(time_us)) == time_us
    assert to_microseconds(str(time_us * 1000 + 999)) == time_us


@pytest.mark.parametrize("text", ["", "yesterday", "12", "1" * 25, "NaN"])
def test_what_is_no_time_is_refused(text: str) -> None:
    """A price in the first column is not taken for a moment of 1970."""
    with pytest.raises(ValueError, match="no time"):
        to_microseconds(text)


def test_a_folder_of_an_older_session_becomes_one_of_ours(
    old: Path, convert: Callable[..., Conversion], tmp_path: Path
) -> None:
    """Digits stay, times are microseconds, what nobody knows is empty, and the whole verifies."""
    conversion = convert(old)
    assert conversion.directory.name == "session_imported-20240101_120000"
    rows = list(read_rows(conversion.directory, PRICES, "BTC_USDT"))
    assert len(rows) == 300
    assert rows[1] == ["1704103200700000", "101.50", "0.002", "1.1", "", "", "2", "", "", "", ""]
    assert sum(conversion.rows.values()) == 600
    assert [Path(path).name for path in conversion.skipped] == ["notes.csv"]
    assert find_session(tmp_path / "data", "imported-20240101_120000").manifest.symbols == ["BTC_USDT", "ETH_USDT"]
    report = verify_session(conversion.directory, None)
    assert report.agrees, report.text()
    assert report.candles[0].candles > 5


def test_candles_of_older_trades_are_partial_and_have_no_taker(old: Path, convert: Callable[..., Conversion]) -> None:
    """What the files do not say is not made up."""
    conversion = convert(old)
    candles = list(read_rows(conversion.directory, OHLCV, "BTC_USDT"))
    assert {(row[9], row[13]) for row in candles} == {("", "partial")}


def test_converting_again_gives_what_is_there(old: Path, convert: Callable[..., Conversion]) -> None:
    """Twice is harmless."""
    first = convert(old)
    before = {path: path.stat().st_mtime_ns for path in first.directory.rglob("*")}
    assert convert(old).directory == first.directory
    assert {path: path.stat().st_mtime_ns for path in first.directory.rglob("*")} == before


def test_what_a_crash_left_is_begun_again(old: Path, convert: Callable[..., Conversion], tmp_path: Path) -> None:
    """A draft is no session, and does not stay in the way."""
    draft = tmp_path / "data" / ".importing_imported-20240101_120000" / "BTC_USDT"
    draft.mkdir(parents=True)
    (draft / "prices.csv").write_text("half")
    assert len(list(read_rows(convert(old).directory, PRICES, "BTC_USDT"))) == 300
    assert not draft.exists()


@pytest.mark.parametrize(
    "header",
    [
        "timestamp,bid_1,qty_1,bid_2,qty_2,ask_1,qty_1,ask_2,qty_2",
        "timestamp,bid_1,bid_qty_1,bid_2,bid_qty_2,ask_1,ask_qty_1,ask_2,ask_qty_2",
        "Timestamp,bid_price_1,qty_1,bid_price_2,qty_2,ask_price_1,qty_1,ask_price_2,qty_2",
    ],
)
def test_sizes_called_alike_on_both_sides_are_told_apart(
    tmp_path: Path, convert: Callable[..., Conversion], header: str
) -> None:
    """``qty_1`` after a bid is the bid's, after an ask the ask's."""
    folder = tmp_path / "BTC-USDT"
    folder.mkdir()
    (folder / "orderbook.csv").write_text(header + "\n1704103200.25,9,1,8,2,10,3,11,4\n")
    (row,) = read_rows(convert(folder).directory, ORDERBOOK, "BTC_USDT")
    assert row[:13] == ["1704103200250000", "9", "1", "8", "2", "", "", "10", "3", "11", "4", "", ""]


def test_sizes_in_groups_are_the_bids_then_the_asks(tmp_path: Path) -> None:
    """Where prices stand together, the order of the two ``qty_1`` decides; one alone is of both sides."""
    path = tmp_path / "orderbook.csv"
    path.write_text("timestamp,bid_1,ask_1,bid_2,qty_1,qty_1,qty_2\n")
    (found,), _ = find_older(path, symbol="X_Y")
    assert (found.positions["bid_qty_1"], found.positions["ask_qty_1"]) == (4, 5)
    assert (found.positions["bid_qty_2"], found.positions["ask_qty_2"]) == (6, 6)


def test_a_compressed_file_alone_is_taken_under_the_symbol_given(
    tmp_path: Path, convert: Callable[..., Conversion]
) -> None:
    """One file is enough."""
    path = tmp_path / "dump.csv.gz"
    with gzip.open(path, "wt") as file:
        file.write(PRICES_HEADER + "1704103200,5,1,5\n")
    conversion = convert(path, symbol="DOGE_USDT", session_id="old-doge")
    assert conversion.directory.name == "session_old-doge"
    assert [row[1] for row in read_rows(conversion.directory, PRICES, "DOGE_USDT")] == ["5"]


@pytest.mark.parametrize(
    ("line", "complaint"),
    [("1704103200,5\n", "2 fields"), ("1704103200,abc,1,1\n", "Line 3"), ("1704103200,inf,1,1\n", "no number"),
     ("soon,1,1,1\n", "no time")],
)  # fmt: skip
def test_a_line_that_is_not_what_the_header_says_is_named(
    tmp_path: Path, convert: Callable[..., Conversion], line: str, complaint: str
) -> None:
    """Nothing is passed over in silence, and no half session stays."""
    path = tmp_path / "BTC_USDT.csv"
    path.write_text(PRICES_HEADER + "1704103200,5,1,5\n" + line)
    with pytest.raises(LogError, match=complaint):
        convert(path)
    assert not list((tmp_path / "data").glob("session_*"))


def test_a_folder_without_anything_to_take_is_refused(tmp_path: Path, convert: Callable[..., Conversion]) -> None:
    """The error says what would be taken."""
    with pytest.raises(UsageError, match="nothing to import"):
        convert(tmp_path)


def test_a_folder_in_the_way_is_left_alone(old: Path, convert: Callable[..., Conversion], tmp_path: Path) -> None:
    """A directory of that name that is no session is somebody else's."""
    (tmp_path / "data" / "session_imported-20240101_120000").mkdir(parents=True)
    with pytest.raises(UsageError, match="no session"):
        convert(old)
