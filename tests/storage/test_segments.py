"""Reading a stream's segments."""

from __future__ import annotations

import gzip
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.storage.cursor import START, Position
from collector.storage.segments import MAX_LINE_BYTES, Durable, LogDamaged, StreamReader, closed_segments
from collector.streams import PRICES, Column, Kind, Stream

TINY = Stream(
    "tiny", "tiny.csv", "tiny", (Column("timestamp", Kind.TIMESTAMP), Column("seq", Kind.LONG)), ("timestamp",)
)


def row(seq: int) -> str:
    return f"{1000 + seq},{seq}\n"


def write(path: Path, first: int, last: int) -> None:
    path.write_text(TINY.header + "".join(row(seq) for seq in range(first, last + 1)))


def read_all(reader: StreamReader, position: Position = START, max_bytes: int = 20) -> list[int]:
    """Read to the durable end as the courier does, and return the numbers."""
    found = []
    while (piece := reader.read(position, max_bytes)) is not None:
        seqs = [int(line.split(b",")[1]) for line in piece.content.split()]
        found += seqs
        position = Position(piece.segment, piece.offset + piece.length, seqs[-1] if seqs else position.seq)
    return found


@pytest.fixture
def live(tmp_path: Path) -> Path:
    return tmp_path / "tiny.csv"


def measured(live: Path) -> StreamReader:
    reader = StreamReader(TINY, live)
    reader.measure()
    return reader


def test_all_segments_are_read_in_order(live: Path) -> None:
    """Closed segments by their first ``seq``, plain before compressed ones of the same, then the live one."""
    write(live.with_name("tiny.000000000001.csv"), 1, 9)
    write(live.with_name("tiny.000000000010.csv"), 10, 19)
    live.with_name("tiny.000000000010.csv.gz").write_bytes(b"half written")
    write(live, 20, 29)
    live.with_name("other.000000000001.csv").write_text("no")

    assert [first for first, _ in closed_segments(live)] == [1, 10]
    assert read_all(measured(live)) == list(range(1, 30))


def test_a_torn_last_line_is_left(live: Path) -> None:
    """What has no newline yet is not durable."""
    write(live, 1, 5)
    with live.open("a") as file:
        file.write("1006,")
    reader = measured(live)
    assert reader.durable.last_seq == 5
    assert read_all(reader) == [1, 2, 3, 4, 5]


def test_a_commit_bounds_what_is_read_of_the_segment_that_it_names(live: Path) -> None:
    """A live segment of which nothing is known to be durable is not read, whatever is in it."""
    write(live, 1, 9)
    reader = StreamReader(TINY, live)
    assert read_all(reader) == []
    reader.extend(Durable(1, len(TINY.header + row(1) + row(2)), 2))
    assert read_all(reader) == [1, 2]

    live.rename(live.with_name("tiny.000000000001.csv"))
    write(live, 10, 12)
    position = Position(1, len(TINY.header + row(1) + row(2)), 2)
    assert read_all(reader, position) == []
    reader.extend(Durable(10, live.stat().st_size, 12))
    assert read_all(reader, position) == list(range(3, 13))


@settings(deadline=None, max_examples=50)  # it writes and reads files
@given(counts=st.lists(st.integers(1, 30), min_size=1, max_size=5), max_bytes=st.integers(1, 400), zipped=st.booleans())
def test_any_cut_into_segments_and_pieces_reads_the_same(
    tmp_path_factory: Any, counts: list[int], max_bytes: int, zipped: bool
) -> None:
    """However rows are spread over segments, and however little is read at once, each is read once and in order."""
    live = tmp_path_factory.mktemp("log") / "tiny.csv"
    first = 1
    for number, count in enumerate(counts):
        write(live, first, first + count - 1)
        if number < len(counts) - 1:
            closed = live.rename(live.with_name(f"tiny.{first:012d}.csv"))
            if zipped:
                closed.with_name(closed.name + ".gz").write_bytes(gzip.compress(closed.read_bytes()))
                closed.unlink()
        first += count
    reader = measured(live)

    assert read_all(reader, max_bytes=max_bytes) == list(range(1, first))
    for seq in range(1, first + 1):
        assert read_all(reader, reader.locate(seq), max_bytes=max_bytes) == list(range(seq, first))
    reader.close()


def test_a_position_survives_renaming_compressing_and_copying(live: Path) -> None:
    """A segment is known by its first ``seq``."""
    write(live, 1, 9)
    position = measured(live).locate(5)
    closed = live.rename(live.with_name("tiny.000000000001.csv"))
    write(live, 10, 12)
    assert read_all(measured(live), position) == list(range(5, 13))
    closed.with_name(closed.name + ".gz").write_bytes(gzip.compress(closed.read_bytes()))
    closed.unlink()
    reader = measured(live)
    assert read_all(reader, position) == list(range(5, 13))
    reader.close()


def test_a_segment_that_was_deleted_is_passed_over(live: Path) -> None:
    """Reading goes on with the first row behind the position that still exists."""
    write(live, 10, 12)
    assert read_all(measured(live), Position(1, 50, 7)) == [10, 11, 12]


@pytest.mark.parametrize(
    "change",
    [
        lambda live: write(live, 1, 3),
        lambda live: live.write_text(live.read_text().replace("1005,5", "10055,")),
        lambda live: live.write_text("something,else\n1,1\n"),
        lambda live: live.unlink(),
        lambda live: live.write_text(TINY.header),
    ],
    ids=["shorter", "altered", "foreign", "gone", "emptied"],
)
def test_files_that_do_not_fit_the_position_are_named(live: Path, change: Callable[[Path], Any]) -> None:
    """A file that was cut, changed or replaced under the position is damage, not silence."""
    write(live, 1, 9)
    reader = measured(live)
    position = reader.locate(6)
    change(live)
    fresh = StreamReader(TINY, live)
    fresh.extend(reader.durable)
    with pytest.raises(LogDamaged):
        fresh.read(position, 100)


def test_a_damaged_compressed_segment_is_named(live: Path) -> None:
    """A closed segment that cannot be decompressed is damage."""
    live.with_name("tiny.000000000001.csv.gz").write_bytes(gzip.compress(TINY.header.encode() * 1000)[:60])
    write(live, 10, 12)
    reader = measured(live)
    with pytest.raises(LogDamaged, match="decompressed"):
        reader.read(START, 100)


def test_a_line_without_end_is_one_refused_piece(live: Path) -> None:
    """A line that is longer than any row is passed over as a whole, and said to be."""
    with live.open("w") as file:
        file.write(TINY.header + row(1) + "x" * (3 * MAX_LINE_BYTES) + "\n" + row(3))
    reader = measured(live)
    first = reader.read(START, 100)
    assert first is not None
    second = reader.read(Position(first.segment, first.offset + first.length, 1), 100)
    assert second is not None
    assert (second.length, len(second.content) < 2000) == (3 * MAX_LINE_BYTES + 1, True)
    assert "bytes" in second.refusal
    third = reader.read(Position(1, second.offset + second.length, 1), 100)
    assert third is not None
    assert third.content == row(3).encode()


def test_the_backlog_is_counted_over_segments(live: Path) -> None:
    """Bytes behind a position: the rest of its segment and all of the later ones."""
    closed = live.with_name("tiny.000000000001.csv")
    write(closed, 1, 9)
    write(live, 10, 12)
    reader = measured(live)
    assert reader.backlog_bytes(START) == closed.stat().st_size + live.stat().st_size
    assert reader.backlog_bytes(reader.locate(10)) == live.stat().st_size - len(TINY.header)


def test_a_stream_that_does_not_exist_yet_has_nothing(tmp_path: Path) -> None:
    """Before the first row there is nothing to read and nothing wrong."""
    reader = StreamReader(PRICES, tmp_path / "none" / "prices.csv")
    reader.measure()
    assert reader.read(START, 100) is None
    assert reader.locate(5) == START
