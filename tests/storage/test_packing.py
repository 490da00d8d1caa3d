"""A closed segment is compressed whole or not at all, and reads back as it was."""

from __future__ import annotations

import contextlib
import errno
import gzip
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.storage.csv_log import CsvLog, Write
from collector.storage.failing_files import FailingFiles
from collector.storage.files import OperatingSystem
from collector.storage.packing import SegmentChanged, Summary, compress_segment, read_compressed, read_summary
from collector.streams import PRICES

NAME = "prices.000000000001.csv"


def rows(first: int, last: int) -> bytes:
    return b"".join(f"17,1.5,2,3.0,buy,{seq + 100},{seq},18,ws,,\n".encode() for seq in range(first, last + 1))


def segment(folder: Path, count: int = 1000) -> Path:
    path = folder / NAME
    path.write_bytes(PRICES.header.encode() + rows(1, count))
    return path


def test_a_compressed_segment_takes_the_plain_one_s_place(tmp_path: Path) -> None:
    """Any gzip reader reads it; our own knows its rows without decompressing it."""
    path = segment(tmp_path)
    content = path.read_bytes()
    target = compress_segment(path, OperatingSystem(), max_rows=1000)
    assert [found.name for found in tmp_path.iterdir()] == [NAME + ".gz"]
    assert gzip.decompress(target.read_bytes()) == content
    assert b"".join(read_compressed(target, OperatingSystem())) == content
    assert read_summary(target, OperatingSystem()) == Summary(1000, "17,1.5,2,3.0,buy,1100,1000,18,ws,,")
    assert target.stat().st_mode & 0o777 == 0o640


@pytest.mark.parametrize("count", [0, 1, 30_000])
def test_a_segment_that_somebody_else_compressed_is_read_for_its_summary(tmp_path: Path, count: int) -> None:
    """It costs more, and gives the same."""
    path = segment(tmp_path, count)
    other = tmp_path / "other.csv.gz"
    other.write_bytes(gzip.compress(path.read_bytes()))
    expected = read_summary(compress_segment(path, OperatingSystem()), OperatingSystem())
    assert read_summary(other, OperatingSystem()) == expected
    assert expected.rows == count


def test_a_segment_that_is_not_whole_is_left(tmp_path: Path) -> None:
    """A torn last row, and rows that the next segment repeats, are for the log to cut first."""
    path = segment(tmp_path, 10)
    with pytest.raises(SegmentChanged, match="10 rows, of which 9"):
        compress_segment(path, OperatingSystem(), max_rows=9)
    with path.open("ab") as file:
        file.write(b"17,1.5")
    with pytest.raises(SegmentChanged, match="middle of a row"):
        compress_segment(path, OperatingSystem())
    assert [found.name for found in tmp_path.iterdir()] == [NAME]


@pytest.mark.parametrize("for_good", [False, True])
def test_whichever_operation_fails_the_rows_stay(tmp_path: Path, for_good: bool) -> None:
    """The n-th operation fails, until a run gets through: the log always reads every row once, and a retry succeeds."""
    for number in range(1, 200):
        folder = tmp_path / f"{number}" / "BTC_USDT"
        folder.mkdir(parents=True)
        content = segment(folder, 50).read_bytes()
        files = FailingFiles(OperatingSystem())
        files.fail_at(number, errno.EIO, for_good=for_good)
        with contextlib.suppress(OSError):
            compress_segment(folder / NAME, files, max_rows=50)
        if not files.failed:
            assert number > 10
            return
        files.heal()
        log = CsvLog(folder.parent, files=files)
        file = log.open(PRICES, "BTC_USDT")
        assert (file.rows, file.next_seq) == (50, 51)
        assert [int(row[PRICES.seq_index]) for row in log.rows(file)] == list(range(1, 51))
        log.close()
        if (folder / NAME).exists():
            compress_segment(folder / NAME, files, max_rows=50)
        assert gzip.decompress((folder / (NAME + ".gz")).read_bytes()) == content
    pytest.fail("it never got through")


@given(st.binary(max_size=300), st.booleans())
def test_any_bytes_have_a_summary_or_a_documented_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes, packed: bool
) -> None:
    """Whatever stands in the file, as it is and compressed."""
    path = tmp_path_factory.mktemp("any") / (NAME + ".gz")
    path.write_bytes(gzip.compress(content) if packed else content)
    try:
        summary = read_summary(path, OperatingSystem())
    except (OSError, SegmentChanged):
        return
    assert summary.rows == content.count(b"\n") - 1


def test_the_log_goes_on_behind_compressed_segments(tmp_path: Path) -> None:
    """Rows, numbers, the last row and its tail come from compressed segments as from plain ones."""
    files = OperatingSystem()
    log = CsvLog(tmp_path, files=files)
    file = log.open(PRICES, "BTC_USDT")
    for _ in range(3):
        log.append([Write(file, rows(file.next_seq, file.next_seq + 9), 10)])
        closed = log.rotate(file)
        assert closed is not None
        compress_segment(closed, files, max_rows=10)
    log.close()

    again = CsvLog(tmp_path, files=files)
    file = again.open(PRICES, "BTC_USDT")
    assert (file.rows, file.next_seq, file.last_row) == (30, 31, "17,1.5,2,3.0,buy,130,30,18,ws,,")
    assert [int(row[6]) for row in again.rows(file)] == list(range(1, 31))
    tail = again.tail_rows(file, lambda row: int(row[6]) > 25)
    assert [int(row[6]) for row in tail][-5:] == [26, 27, 28, 29, 30]
    again.close()
    assert file.lost == []


def test_a_compressed_segment_that_is_damaged_is_an_incident(tmp_path: Path) -> None:
    """Its rows count as lost; the others stay."""
    files = OperatingSystem()
    log = CsvLog(tmp_path, files=files)
    file = log.open(PRICES, "BTC_USDT")
    for _ in range(2):
        log.append([Write(file, rows(file.next_seq, file.next_seq + 9), 10)])
        log.rotate(file)
    log.close()
    (tmp_path / "BTC_USDT" / NAME).unlink()
    (tmp_path / "BTC_USDT" / (NAME + ".gz")).write_bytes(b"no gzip file at all")
    again = CsvLog(tmp_path, files=files)
    file = again.open(PRICES, "BTC_USDT")
    assert (file.rows, file.next_seq, file.lost) == (10, 21, [(1, 10)])
    assert [incident.kind for incident in again.take_incidents()] == ["damaged"]
    again.close()
