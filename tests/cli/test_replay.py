"""``collector replay`` as a person types it; what it collects is proved by the tests of the replay server."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--exchange", "sim"], "--exchange and --symbols"),
        (["--symbols", "BTC_USDT"], "--exchange and --symbols"),
        (["--exchange", "sim", "--symbols", "BTC_USDT", "--speed", "fast"], "'fast' is no speed"),
        (["--session", "s9"], "There is no session 's9'"),
    ],
)
def test_what_is_missing_or_wrong_is_told(
    arguments: list[str], message: str, tmp_path: Path, collector: Callable[..., Any]
) -> None:
    """Before any server or daemon is started."""
    (tmp_path / "x.rec").write_text("", encoding="utf-8")
    outcome = collector("replay", tmp_path / "x.rec", *arguments, "--data-dir", tmp_path / "data")
    assert outcome.status == 2
    assert message in outcome.err


def test_a_file_that_is_no_recording_is_told(tmp_path: Path, collector: Callable[..., Any]) -> None:
    """By the server that looks through it, in a sentence."""
    (tmp_path / "x.rec").write_text("nonsense\n", encoding="utf-8")
    outcome = collector(
        "replay", tmp_path / "x.rec", "--exchange", "sim", "--symbols", "A_B", "--data-dir", tmp_path / "data"
    )
    assert outcome.status == 1
    assert outcome.err.startswith("error: The simulated server did not start: ")
    assert not (tmp_path / "data").exists()
