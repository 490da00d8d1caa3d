"""Recordings: what is written is what is read, and any bytes are lines or an error that names the line."""

from __future__ import annotations

import gzip
import io
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import RecordingError
from collector.feeds.recording import (
    Line,
    Recorder,
    answer_payload,
    format_line,
    parse_answer,
    parse_line,
    read_lines,
    read_recording,
)

TEXTS = st.text(st.characters(codec="utf-8"), max_size=60)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "raw.rec"


def read(content: bytes) -> list[Line]:
    return list(read_lines(io.BytesIO(content), "raw.rec"))


@given(st.integers(0, 2**63 - 1), st.integers(0, 999), TEXTS)
def test_a_text_frame_comes_back(received_ns: int, connection: int, text: str) -> None:
    """A text frame is read as it was written; with a line break in it, as a binary frame of the same bytes."""
    (line,) = read(format_line(received_ns, connection, "<", text))
    broken = "\n" in text or "\r" in text
    assert (line.received_ns, line.connection, line.kind) == (received_ns, str(connection), "b" if broken else "<")
    assert line.payload == text.encode()


@given(st.binary(max_size=60))
def test_a_binary_frame_comes_back(content: bytes) -> None:
    """A binary frame is read as it was written, whatever its bytes."""
    (line,) = read(format_line(1, 1, "b", content))
    assert (line.kind, line.payload) == ("b", content)


@given(st.lists(st.tuples(st.sampled_from("+-><b"), TEXTS), max_size=8))
def test_lines_keep_their_order_and_count(frames: list[tuple[str, str]]) -> None:
    """Each frame written is one line read, in order."""
    lines = read(b"".join(format_line(n, 1, kind, text) for n, (kind, text) in enumerate(frames)))
    assert [line.received_ns for line in lines] == list(range(len(frames)))
    assert [line.number for line in lines] == list(range(1, len(frames) + 1))


@given(st.binary(max_size=200))
def test_any_bytes_are_lines_or_an_error(content: bytes) -> None:
    """Any bytes give lines, or a RecordingError with the line's number."""
    try:
        lines = read(content)
    except RecordingError as error:
        assert "ine " in str(error)
    else:
        assert len(lines) <= content.count(b"\n") + 1


@given(st.binary(max_size=200))
def test_any_file_is_lines_or_an_error(tmp_path_factory: pytest.TempPathFactory, content: bytes) -> None:
    """Any bytes behind gzip's mark give lines, or a RecordingError."""
    path = tmp_path_factory.mktemp("any") / "raw.rec.gz"
    path.write_bytes(b"\x1f\x8b" + content)
    try:
        list(read_recording(path))
    except RecordingError as error:
        assert "raw.rec.gz" in str(error)


@pytest.mark.parametrize(
    "raw",
    [
        b"12x 1 < {}",
        b"-12 1 < {}",
        b"99999999999999999999 1 < {}",
        b"12",
        b"12 1",
        b"12  < {}",
        b"12 1 ? {}",
        b"12 1 \xff {}",
        b"12 1 b !!!",
    ],
)
def test_a_line_that_is_none_is_an_error(raw: bytes) -> None:
    """A line without a time, a connection or a known kind is refused."""
    with pytest.raises(RecordingError, match="Line 7"):
        parse_line(raw, 7)


def test_an_error_in_the_middle_names_file_and_line() -> None:
    """A broken line that is not the last is an error with the file's name and the line's number."""
    with pytest.raises(RecordingError, match=r"raw\.rec.*Line 2"):
        read(b"1 1 < {}\nnonsense\n3 1 < {}\n")


@pytest.mark.parametrize("tail", [b'2 1 < {"a":', b"2 1", b"2", b"2 1 b AAA", b"2 1 < pon", b"2 1 + ws://ho"])
def test_a_torn_last_line_is_left_out(tail: bytes) -> None:
    """A last line without a line break is left out unless its payload is whole JSON."""
    assert [line.received_ns for line in read(b"1 1 < {}\n" + tail)] == [1]


@pytest.mark.parametrize("tail", [b'2 1 < {"a":1}', b'2 {"a":1}', b'2 http GET 200 http://h/p {"a":1}'])
def test_a_last_line_of_whole_json_needs_no_line_break(tail: bytes) -> None:
    """A last line without a line break counts where its payload is whole JSON."""
    assert [line.received_ns for line in read(b"1 1 < {}\n" + tail)] == [1, 2]


def test_carriage_returns_and_blank_lines_do_not_matter() -> None:
    """Files that passed an editor of another system are read alike."""
    assert [line.payload for line in read(b'1 1 < {"a":1}\r\n\r\n2 1 < {}\r\n')] == [b'{"a":1}', b"{}"]


def test_hftbacktest_lines_are_read() -> None:
    """A line of a time and a frame is a text frame received, marked as bare."""
    (line,) = read(b'1723161254024619568 {"stream":"ethusdt@trade","data":{}}\n')
    assert (line.kind, line.bare, line.received_ns) == ("<", True, 1723161254024619568)
    assert line.payload == b'{"stream":"ethusdt@trade","data":{}}'


def test_a_long_line_is_an_error() -> None:
    """A line past the bound is an error instead of memory."""
    with pytest.raises(RecordingError, match="longer than 50 bytes"):
        list(read_lines(io.BytesIO(b"1 1 < " + b"x" * 100 + b"\n"), "raw.rec", max_line_bytes=50))


def test_a_missing_file_is_an_error(path: Path) -> None:
    """A file that is not there is a RecordingError with its path."""
    with pytest.raises(RecordingError, match=str(path)):
        list(read_recording(path))


def test_gzip_members_are_read_one_after_the_other(path: Path) -> None:
    """A file of several gzip members is one recording."""
    path.write_bytes(gzip.compress(b"1 1 < {}\n") + gzip.compress(b"2 1 < {}\n"))
    assert [line.received_ns for line in read_recording(path)] == [1, 2]


def test_gzip_that_was_cut_off_gives_its_whole_lines(path: Path) -> None:
    """A gzip file whose writer was killed gives the lines that are whole."""
    content = b"".join(b'%d 1 < {"n":%d}\n' % (n, n * n) for n in range(20_000))
    packed = gzip.compress(content)
    path.write_bytes(packed[: len(packed) // 2])
    lines = list(read_recording(path))
    assert len(lines) > 5_000
    assert [line.received_ns for line in lines] == list(range(len(lines)))


def test_gzip_that_is_damaged_is_an_error(path: Path) -> None:
    """A gzip file with a changed byte is an error, not a shorter recording."""
    packed = bytearray(gzip.compress(os.urandom(2000).hex().encode() + b"\n"))
    packed[-6] ^= 0xFF
    path.write_bytes(bytes(packed))
    with pytest.raises(RecordingError):
        list(read_recording(path))


def test_an_answer_is_read() -> None:
    """A GET line gives status, address and body, with line breaks of the body as blanks."""
    payload = answer_payload(200, "https://host/api/v3/depth?symbol=X", b'{\n"a": 1}')
    answer = parse_answer(read(format_line(5, "http", "GET", payload))[0])
    assert (answer.status, answer.url) == (200, "https://host/api/v3/depth?symbol=X")
    assert answer.body == b'{ "a": 1}'


@pytest.mark.parametrize("payload", ["", "200", "2000 u {}", "abc u {}"])
def test_an_answer_that_is_none_is_an_error(payload: str) -> None:
    """A GET line without a status and an address is refused."""
    with pytest.raises(RecordingError, match="Line 1"):
        parse_answer(read(format_line(5, "http", "GET", payload))[0])


def test_the_recorder_writes_what_it_was_told(path: Path) -> None:
    """A closed recorder has written every line, readable in order."""
    recorder = Recorder(path, flush_interval_s=3600)
    recorder.frame(1, 1, "+", "ws://127.0.0.1:1/stream")
    recorder.frame(2, "a b", "<", '{"n":1}')
    recorder.frame(3, 1, "b", b"\x00\n")
    recorder.close()
    recorder.close()
    lines = list(read_recording(path))
    assert [(line.connection, line.kind, line.payload) for line in lines] == [
        ("1", "+", b"ws://127.0.0.1:1/stream"),
        ("a_b", "<", b'{"n":1}'),
        ("1", "b", b"\x00\n"),
    ]
    assert (recorder.written, recorder.dropped) == (3, 0)


def test_the_recorder_writes_from_its_own_thread(path: Path) -> None:
    """Lines get into the file without anyone flushing."""
    recorder = Recorder(path, flush_interval_s=0.01)
    recorder.frame(1, 1, "<", "{}")
    try:
        while not path.read_bytes():  # bounded by the suite's time limit for a test
            pass
    finally:
        recorder.close()


def test_the_recorder_goes_on_after_a_torn_line(path: Path) -> None:
    """A recorder that opens a file with a torn last line cuts it before it appends."""
    path.write_bytes(b'1 1 < {}\n2 1 < {"tor')
    recorder = Recorder(path)
    recorder.frame(3, 1, "<", "{}")
    recorder.close()
    assert [line.received_ns for line in read_recording(path)] == [1, 3]


def test_the_recorder_cuts_a_torn_line_longer_than_what_it_reads_at_once(path: Path) -> None:
    """A torn line of megabytes is cut, too; a file of nothing else becomes empty."""
    path.write_bytes(b"1 1 < {}\n2 1 < " + b"x" * 3_000_000)
    Recorder(path).close()
    assert path.read_bytes() == b"1 1 < {}\n"
    path.write_bytes(b"x" * 3_000_000)
    Recorder(path).close()
    assert path.read_bytes() == b""


def test_the_recorder_is_bounded(path: Path) -> None:
    """Lines past the bound are dropped and counted."""
    recorder = Recorder(path, flush_interval_s=3600, max_pending_bytes=100)
    for n in range(10):
        recorder.frame(n, 1, "<", "x" * 30)
    recorder.close()
    assert (recorder.written, recorder.dropped) == (2, 8)
    assert len(list(read_recording(path))) == 2


def test_a_failed_write_is_tried_again(path: Path) -> None:
    """Lines that could not be written wait, and are written once it works again."""
    recorder = Recorder(path, flush_interval_s=3600)
    working = recorder._fd
    recorder._fd = os.open(path, os.O_RDONLY)
    recorder.frame(1, 1, "<", "{}")
    recorder.flush()
    assert recorder.error is not None
    os.close(recorder._fd)
    recorder._fd = working
    recorder.close()
    assert recorder.error is None
    assert [line.received_ns for line in read_recording(path)] == [1]
