"""verify, import and resync: through the daemon where one runs, and what their exit status says."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from collector.reading.report import Difference, Report, StreamReport

ADDRESS = "127.0.0.1:8812"
EQUAL = Report(
    session_id="s1", database="127.0.0.1:8812", streams=[StreamReport(stream="prices", rows=3, equal_rows=3)]
)


def different() -> Report:
    part = StreamReport(stream="prices", symbol="BTC_USDT", rows=3, equal_rows=2)
    part.findings.add(Difference("value", "prices", "BTC_USDT", 2, "price", "1.1", "1.2"))
    return Report(session_id="s1", database=ADDRESS, streams=[part])


def test_verify_is_done_only_when_all_agree(daemon: Any, collector: Callable[..., Any]) -> None:
    """Exit 0 and "equal", or exit 1 and the row that differs."""
    daemon.answers["verify"] = msgspec.to_builtins(EQUAL)
    outcome = collector("verify", "s1", "--data-dir", daemon.data_dir)
    assert (outcome.status, daemon.asked[-1]) == (0, ("verify", {"session": "s1"}))
    assert outcome.out.endswith("equal.\n")
    daemon.answers["verify"] = msgspec.to_builtins(different())
    outcome = collector("verify", "s1", "--data-dir", daemon.data_dir)
    assert outcome.status == 1
    assert "prices BTC_USDT seq 2: price is 1.1 in the CSV and 1.2 in QuestDB." in outcome.out


def test_verify_as_json_says_whether_they_agree(daemon: Any, collector: Callable[..., Any]) -> None:
    """And the exit status is the same."""
    daemon.answers["verify"] = msgspec.to_builtins(different())
    outcome = collector("verify", "s1", "--json", "--data-dir", daemon.data_dir)
    assert outcome.status == 1
    assert json.loads(outcome.out)["agrees"] is False


def test_verify_without_a_daemon_needs_a_session(tmp_path: Path, collector: Callable[..., Any]) -> None:
    """An unknown one is a wrong request."""
    outcome = collector("verify", "s1", "--data-dir", tmp_path)
    assert outcome.status == 2
    assert "There is no session 's1'" in outcome.err


@pytest.mark.parametrize(
    ("arguments", "asked"),
    [
        (["import", "s1"], ("import", {"session": "s1"})),
        (["resync", "s1"], ("resync", {"session": "s1"})),
        (["resync", "s1", "--from", "7"], ("resync", {"session": "s1", "from_seq": 7})),
    ],
)
def test_rows_are_sent_again(
    arguments: list[str], asked: tuple[str, dict[str, Any]], daemon: Any, collector: Callable[..., Any]
) -> None:
    """By the daemon's own replicator, and it says how many."""
    daemon.answers[asked[0]] = {"session_id": "s1", "rows": 1234, "rejected_rows": 1}
    outcome = collector(*arguments, "--data-dir", daemon.data_dir)
    assert (outcome.status, daemon.asked[-1]) == (0, asked)
    assert outcome.out == "QuestDB has all rows of s1: 1,234 acknowledged, 1 rejected.\n"
    assert "working …" in outcome.err
    assert json.loads(collector(*arguments, "--json", "--data-dir", daemon.data_dir).out)["rows"] == 1234


def test_a_path_is_imported_wherever_it_is(
    daemon: Any, collector: Callable[..., Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The daemon has another working directory, so it gets the whole path."""
    (tmp_path / "backup" / "session_s7").mkdir(parents=True)
    monkeypatch.chdir(tmp_path)
    daemon.answers["import"] = {"session_id": "s7", "rows": 0, "rejected_rows": 0}
    collector("import", "backup/session_s7", "--data-dir", daemon.data_dir)
    assert daemon.asked[-1] == ("import", {"session": str(tmp_path / "backup" / "session_s7")})
