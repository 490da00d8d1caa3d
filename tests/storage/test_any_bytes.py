"""Whatever bytes stand in a session's files, each reader of them gives a result or a documented error, and ends."""

from __future__ import annotations

import contextlib
import gzip
import tracemalloc
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collector.clock import ManualClock
from collector.doctor.files import SessionFiles
from collector.errors import LogError
from collector.reading.csv_rows import read_rows
from collector.storage.csv_log import CsvLog, Write
from collector.storage.cursor import START, Position
from collector.storage.files import OperatingSystem
from collector.storage.packing import SegmentChanged
from collector.storage.rejected import RejectedRow, RejectedRows
from collector.storage.segments import LogDamaged, StreamReader
from collector.storage.survey import survey_segment
from collector.streams import PRICES

SYMBOL = "BTC_USDT"
ROW = b"1700000000000000,1.5,2,3.0,buy,1,%d,1700000000000001,ws,,\n"
HEADER = PRICES.header.encode()

pieces = st.one_of(
    st.binary(max_size=60),
    st.sampled_from([HEADER, b"\n", b",", b"\0" * 9, b'"', b"\xff", ROW % 1, ROW % 2, ROW % 3, ROW % 10**19]),
    st.integers(0, 40).map(lambda seq: ROW % seq),
)
contents = st.lists(pieces, max_size=8).map(b"".join) | st.lists(pieces, max_size=8).map(lambda p: HEADER + b"".join(p))
any_bytes = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


def session(factory: pytest.TempPathFactory, live: bytes, closed: bytes, packed: bytes) -> Path:
    directory = factory.mktemp("any") / "session_x"
    folder = directory / SYMBOL
    folder.mkdir(parents=True)
    (folder / "prices.csv").write_bytes(live)
    (folder / "prices.000000000001.csv").write_bytes(closed)
    (folder / "prices.000000000004.csv.gz").write_bytes(packed)
    return directory


@any_bytes
@given(contents, contents, contents | contents.map(gzip.compress))
def test_every_reader_of_segments(
    tmp_path_factory: pytest.TempPathFactory, live: bytes, closed: bytes, packed: bytes
) -> None:
    """The delivery's, the proof's, the keeper's and the doctor's; then the log goes on behind what it can use."""
    directory = session(tmp_path_factory, live, closed, packed)
    files = OperatingSystem()
    try:
        reader = StreamReader(PRICES, directory / SYMBOL / "prices.csv")
        reader.measure()
        position = START
        for _ in range(100):
            piece = reader.read(position, 64)
            if piece is None:
                break
            assert piece.length > 0
            position = Position(piece.segment, piece.offset + piece.length, position.seq)
        else:
            pytest.fail("it never came to an end")
        reader.close()
    except (LogDamaged, OSError):
        reader.close()
    with contextlib.suppress(LogError):
        assert all(len(row) == len(PRICES.columns) for row in read_rows(directory, PRICES, SYMBOL))
    for path in (directory / SYMBOL).glob("prices.0*"):
        try:
            assert survey_segment(path, PRICES, SYMBOL, files).rows > 0
        except (OSError, SegmentChanged):
            continue
    SessionFiles(directory, files=files, clock=ManualClock()).examine()
    log = CsvLog(directory, files=files)
    try:
        file = log.open(PRICES, SYMBOL)
        first = file.next_seq
        log.append([Write(file, ROW % first, 1)])
        log.sync()
        assert file.next_seq == first + 1
    except LogError:
        pass
    finally:
        log.close()


@any_bytes
@given(contents)
def test_the_rejected_rows(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Adding goes on behind whatever stands there."""
    directory = tmp_path_factory.mktemp("any")
    (directory / "rejected.csv").write_bytes(content)
    rejected = RejectedRows(directory, OperatingSystem())
    before = rejected.count()
    assert rejected.add([RejectedRow("prices", SYMBOL, "77", "a test", "row")])
    assert RejectedRows(directory, OperatingSystem()).count() <= before + 1


def test_a_line_without_end_takes_no_memory(tmp_path: Path) -> None:
    """Two hundred megabytes that compress to nothing are refused after the first few."""
    directory = tmp_path / "session_x"
    (directory / SYMBOL).mkdir(parents=True)
    with gzip.open(directory / SYMBOL / "prices.000000000001.csv.gz", "wb") as file:
        file.write(HEADER)
        for _ in range(200):
            file.write(b"1" * 1_000_000)
    tracemalloc.start()
    try:
        with pytest.raises(LogError, match="a line of more than"):
            list(read_rows(directory, PRICES, SYMBOL))
        path = directory / SYMBOL / "prices.000000000001.csv.gz"
        with pytest.raises((OSError, SegmentChanged)):
            survey_segment(path, PRICES, SYMBOL, OperatingSystem())
        assert tracemalloc.get_traced_memory()[1] < 32_000_000
    finally:
        tracemalloc.stop()
