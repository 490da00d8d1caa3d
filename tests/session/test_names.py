"""A session's id names a directory inside the data directory, and nothing else."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import UsageError
from collector.session.names import check_session_id, new_session_id, session_directory


def test_an_id_tells_when_and_where() -> None:
    """In UTC, with four digits that keep two sessions of one second apart."""
    assert new_session_id(1_795_248_900_000_000, "binance", lambda: "7f3a") == "20261121-081500-binance-7f3a"
    assert new_session_id(0, "sim") != new_session_id(0, "sim") or new_session_id(0, "sim") != new_session_id(0, "sim")


@pytest.mark.parametrize("session_id", ["", "a" * 65, "../x", "a/b", "a b", "a\n", ".", "ä", "a\0"])
def test_other_ids_are_refused(session_id: str) -> None:
    """Before anything is written."""
    with pytest.raises(UsageError):
        check_session_id(session_id)


@given(st.text(max_size=70))
def test_whatever_the_id_the_directory_is_inside(session_id: str) -> None:
    """Or the id is refused."""
    root = Path("data")
    try:
        directory = session_directory(root, session_id)
    except UsageError:
        return
    assert directory.parent == root


def test_a_link_that_leads_out_is_refused(tmp_path: Path) -> None:
    """Someone may have put one there."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "session_x").symlink_to(tmp_path)
    with pytest.raises(UsageError, match="leads out"):
        session_directory(tmp_path / "data", "x")
