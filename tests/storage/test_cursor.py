"""The cursor on disk."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.storage.cursor import (
    CURSOR_FILE,
    Cursor,
    CursorUnreadable,
    Position,
    SavedFile,
    SavedTable,
    ServerMark,
    decode_cursor,
    encode_cursor,
    load_cursor,
    save_cursor,
)
from collector.storage.files import OperatingSystem

CURSOR = Cursor(
    "session-1",
    [
        SavedFile("prices", "BTC_USDT", Position(1, 5000, 60), Position(1, 4000, 50)),
        SavedFile("gaps", None, Position(), Position()),
    ],
    ServerMark("id", "2026-01-01", {"tick_prices": SavedTable("tick_prices~6", 17)}),
)


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    """A cursor comes back as it was saved."""
    save_cursor(OperatingSystem(), tmp_path, CURSOR)
    assert load_cursor(tmp_path, "session-1") == CURSOR


def test_a_session_without_a_cursor_has_none(tmp_path: Path) -> None:
    """A missing file is no error: nothing was delivered yet."""
    assert load_cursor(tmp_path, "session-1") is None


def test_another_sessions_cursor_is_refused() -> None:
    """A cursor that was copied from elsewhere says nothing about this session's files."""
    with pytest.raises(CursorUnreadable, match="belongs to session 'session-1'"):
        decode_cursor(encode_cursor(CURSOR), "session-2")


def test_a_later_format_is_refused() -> None:
    """A cursor of a format that is not known yet is not guessed at."""
    later = Cursor("session-1", [], None, version=99)
    with pytest.raises(CursorUnreadable, match="format"):
        decode_cursor(encode_cursor(later), "session-1")


def test_a_cursor_that_is_torn_anywhere_is_refused() -> None:
    """Every prefix that lacks more than the last newline is refused."""
    content = encode_cursor(CURSOR)
    for length in range(len(content) - 1):
        with pytest.raises(CursorUnreadable):
            decode_cursor(content[:length], "session-1")


@given(position=st.integers(0, len(encode_cursor(CURSOR)) - 2), bit=st.integers(0, 7))
def test_a_flipped_bit_never_moves_a_cursor(position: int, bit: int) -> None:
    """With any bit flipped the cursor is refused, or says the same."""
    content = bytearray(encode_cursor(CURSOR))
    content[position] ^= 1 << bit
    with contextlib.suppress(CursorUnreadable):
        assert decode_cursor(bytes(content), "session-1") == CURSOR


@given(st.binary(max_size=200))
def test_any_bytes_are_a_cursor_or_refused(content: bytes) -> None:
    """Nothing but the documented error comes out of garbage."""
    with pytest.raises(CursorUnreadable):
        decode_cursor(content, "session-1")


def test_a_folder_in_its_place_is_refused(tmp_path: Path) -> None:
    """What cannot be read is refused, not raised."""
    (tmp_path / CURSOR_FILE).mkdir()
    with pytest.raises(CursorUnreadable):
        load_cursor(tmp_path, "session-1")
