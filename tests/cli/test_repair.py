"""The repair that a person asks for, as it is shown; what it does is proved in tests/end_to_end."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from collector.cli import daemon
from collector.cli.repair import repair

GAP = {
    "gap_id": "g000001", "symbol": "BTC_USDT", "cause": "disconnect", "from_us": 1_700_000_000_000_000,
    "to_us": 1_700_000_001_000_000, "asked": 1200, "got": 1100, "missing": 100, "state": "partial",
    "reason": "of g000001: too old",
}  # fmt: skip


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """Answer as a daemon would, and keep what it was asked."""
    seen: list[Any] = []

    def answer(_: Path, command: str, arguments: dict[str, Any], **more: Any) -> Any:
        seen.append((command, arguments))
        if more["on_progress"] is not None:
            more["on_progress"]("BTC_USDT g000001: 1100 of 1200 trades, partial")
        return {"session_id": "one", "gaps": [] if arguments.get("symbols") == ("ETH_USDT",) else [GAP]}

    monkeypatch.setattr(daemon, "ensure_daemon", lambda *_: None)
    monkeypatch.setattr("collector.control.ask", answer)
    return seen


def shown(*arguments: str) -> str:
    result = CliRunner().invoke(repair, [*arguments, "--data-dir", "data"], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_each_gap_is_a_row_with_what_was_asked_got_and_still_misses(asked: list[Any]) -> None:
    """And its state, and why."""
    text = shown("one", "--symbol", "BTC_USDT")
    for words in ("g000001", "1,200", "1,100", "100", "partial", "too old", "1100 of 1200 trades, partial"):
        assert words in text
    assert asked == [("repair", {"session": "one", "symbols": ("BTC_USDT",)})]


def test_a_dry_run_shows_what_would_be_asked_for(asked: list[Any]) -> None:
    """Nothing was got yet, so nothing is said of it."""
    text = shown("one", "--dry-run")
    assert "1,200" in text
    assert "GOT" not in text
    assert asked == [("repair", {"session": "one", "dry_run": True})]


def test_json_and_nothing_to_do(asked: list[Any]) -> None:
    """A script gets the answer as it is, a person a sentence."""
    assert json.loads(shown("one", "--json"))["gaps"] == [GAP]
    assert "no gap" in shown("one", "--symbol", "ETH_USDT")
    assert len(asked) == 2
