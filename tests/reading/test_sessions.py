"""Sessions are found by their manifests."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from collector.errors import ManifestError, SessionNotFound
from collector.reading.sessions import find_session, list_sessions

MakeSession = Callable[..., Any]


def test_sessions_are_listed_oldest_first_and_unreadable_ones_named(make_session: MakeSession, tmp_path: Path) -> None:
    """A damaged manifest hides no other session."""
    for name in ("b", "a"):
        make_session(session_id=name)
    damaged = make_session(session_id="c")
    (damaged.directory / "session.json").write_text("{")
    (tmp_path / "data" / "session_file").write_text("no directory")
    found, problems = list_sessions(tmp_path / "data")
    assert [session.session_id for session in found] == ["a", "b"]
    assert len(problems) == 1
    assert "session_c" in problems[0]


def test_an_absent_data_directory_has_no_sessions(tmp_path: Path) -> None:
    """Nothing was collected yet."""
    assert list_sessions(tmp_path / "none") == ([], [])


def test_a_session_is_found_by_id_by_folder_and_by_path(make_session: MakeSession, tmp_path: Path) -> None:
    """All three are what a person has at hand."""
    session = make_session(session_id="s1")
    for name in ("s1", "session_s1", str(session.directory)):
        assert find_session(tmp_path / "data", name).session_id == "s1"


def test_a_misspelt_id_names_the_nearest(make_session: MakeSession, tmp_path: Path) -> None:
    """The error says what was probably meant."""
    make_session(session_id="20261121-081500-binance-7f3a")
    with pytest.raises(SessionNotFound, match="20261121-081500-binance-7f3a"):
        find_session(tmp_path / "data", "20261121-081500-binance-7f3b")


@pytest.mark.parametrize("name", ["", ".", "..", "../data/session_s1x"])
def test_an_id_leads_nowhere_else(make_session: MakeSession, tmp_path: Path, name: str) -> None:
    """An id with a path in it finds nothing in the data directory's name."""
    make_session(session_id="s1")
    with pytest.raises(SessionNotFound):
        find_session(tmp_path / "data", name)


def test_a_damaged_manifest_is_said_to_be(make_session: MakeSession, tmp_path: Path) -> None:
    """It is not taken for a session that does not exist."""
    session = make_session(session_id="s1")
    (session.directory / "session.json").write_text("[]")
    with pytest.raises(ManifestError):
        find_session(tmp_path / "data", "s1")
