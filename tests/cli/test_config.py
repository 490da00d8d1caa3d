"""``collector config``: what is wrong, and what is in force."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest


@pytest.fixture(autouse=True)
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """Run each test in a folder of its own."""
    monkeypatch.chdir(tmp_path)
    yield tmp_path


def test_no_mistake_is_said(collector: Callable[..., Any], place: Path) -> None:
    """With a file and without one."""
    assert "the defaults are in force" in collector("config", "check").out
    (place / "config.toml").write_text("[daemon]\n", encoding="utf-8")
    assert collector("config", "check").out == "config.toml: no mistake found.\n"
    assert json.loads(collector("config", "check", "--json").out) == {"ok": True}


@pytest.mark.parametrize(
    ("text", "message"),
    [("[feed]\nopen_timeout = 1", "open_timeout_s"), ("[exchange.binanse]\nws_url = 'ws://x'", "binance")],
)
def test_a_mistake_is_named_with_the_nearest(
    text: str, message: str, collector: Callable[..., Any], place: Path
) -> None:
    """A key and an exchange that don't exist are wrong usage."""
    (place / "config.toml").write_text(text, encoding="utf-8")
    outcome = collector("config", "check")
    assert outcome.status == 2
    assert message in outcome.err


def test_what_is_asked_for_in_vain_is_a_warning(collector: Callable[..., Any], place: Path) -> None:
    """A spool that nobody empties; each of the two alone is nothing to say."""
    for text, warns in (
        ('[questdb]\nmode = "off"\n[csv]\nenabled = false\n', True),
        ('[questdb]\nmode = "off"\n', False),
        ("[csv]\nenabled = false\n", False),
    ):
        (place / "config.toml").write_text(text, encoding="utf-8")
        outcome = collector("config", "check")
        assert outcome.status == 0
        assert ("stay in CSV for ever" in outcome.err) is warns


def test_what_is_in_force_is_toml_again(
    collector: Callable[..., Any], place: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every key with its value, whatever set it; passwords masked."""
    (place / "config.toml").write_text("[csv]\nmax_open_files = 7\n", encoding="utf-8")
    monkeypatch.setenv("QUESTDB_PG_PASSWORD", "hunter2")
    shown = collector("config", "show", "--data-dir", "elsewhere").out
    assert "hunter2" not in shown
    values = tomllib.loads(shown)
    assert values["csv"]["max_open_files"] == 7
    assert values["daemon"]["data_dir"] == "elsewhere"
    assert values["questdb"]["mode"] == "external"
    assert json.loads(collector("config", "show", "--json").out)["csv"] == values["csv"]
