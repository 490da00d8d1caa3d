"""rejected.csv."""

from __future__ import annotations

import csv
import errno
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.storage.files import OperatingSystem
from collector.storage.rejected import REJECTED_FILE, RejectedRow, RejectedRows

ROW = RejectedRow("prices", "BTC_USDT", "7", 'a "reason", with all', "1,2,three")


def contents(directory: Path) -> list[list[str]]:
    with (directory / REJECTED_FILE).open(newline="") as file:
        return list(csv.reader(file))


def test_rows_are_appended_once(tmp_path: Path) -> None:
    """A row is written once, also by a process that starts anew; the first writes the header."""
    assert RejectedRows(tmp_path, OperatingSystem()).add([ROW, ROW]) == [ROW]
    again = RejectedRows(tmp_path, OperatingSystem())
    other = RejectedRow("prices", "ETH_USDT", "7", "x", "1,2,three")
    assert again.add([ROW, other]) == [other]
    assert again.count() == 2
    assert contents(tmp_path) == [
        ["stream", "symbol", "seq", "reason", "row"],
        ["prices", "BTC_USDT", "7", 'a "reason", with all', "1,2,three"],
        ["prices", "ETH_USDT", "7", "x", "1,2,three"],
    ]


def test_a_torn_last_line_is_cut(tmp_path: Path) -> None:
    """What a crash left unfinished is written again as a whole."""
    RejectedRows(tmp_path, OperatingSystem()).add([ROW])
    path = tmp_path / REJECTED_FILE
    content = path.read_bytes()
    for length in range(len(content)):
        path.write_bytes(content[:length])
        RejectedRows(tmp_path, OperatingSystem()).add([ROW])
        assert contents(tmp_path)[-1] == [ROW.stream, ROW.symbol, ROW.seq, ROW.reason, ROW.row]
        assert len(contents(tmp_path)) == 2


@settings(deadline=None, max_examples=50)  # it writes files
@given(text=st.text(max_size=60))
def test_any_text_stays_one_line(tmp_path_factory: pytest.TempPathFactory, text: str) -> None:
    """Whatever a row holds, it is one record, and is known again."""
    directory = tmp_path_factory.mktemp("session")
    row = RejectedRow("prices", "", "1", text, text)
    RejectedRows(directory, OperatingSystem()).add([row])
    assert (directory / REJECTED_FILE).read_bytes().count(b"\n") == 2
    assert RejectedRows(directory, OperatingSystem()).add([row]) == []


class FullDisk(OperatingSystem):
    """A disk that takes a few bytes and is full."""

    def write(self, fd: int, content: bytes | memoryview) -> int:
        if len(content) < 20:
            raise OSError(errno.ENOSPC, "No space left on device")
        return super().write(fd, bytes(content[:10]))


def test_a_full_disk_leaves_no_torn_line(tmp_path: Path) -> None:
    """A write that fails half way is taken back, and the row can be added when there is room."""
    rows = RejectedRows(tmp_path, FullDisk())
    with pytest.raises(OSError, match="No space"):
        rows.add([ROW])
    assert (tmp_path / REJECTED_FILE).read_bytes() == b""
    assert RejectedRows(tmp_path, OperatingSystem()).add([ROW]) == [ROW]
