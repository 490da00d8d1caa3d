"""A person sees what is missing, in words and as JSON."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from collector.cli.gaps import gaps
from collector.config import Config
from collector.events import Gap
from collector.session.gaps import GapLedger
from collector.session.manifest import save_manifest
from collector.session.rows import format_gap
from collector.session.session import create_manifest
from collector.storage.files import OperatingSystem
from collector.streams import GAPS


@pytest.fixture
def data_dir(tmp_path: Path) -> Path:
    """A data directory with one session whose ledger has an open and a repaired gap."""
    directory = tmp_path / "session_one"
    directory.mkdir()
    manifest = create_manifest(
        session_id="one", exchange="sim", symbols=["BTC_USDT"], data_types=["prices"], now_us=1, config=Config()
    )
    save_manifest(directory, manifest, OperatingSystem())
    ledger = GapLedger()
    ledger.record(Gap("BTC_USDT", "prices", "disconnect", 1_700_000_000_000_000, 1_700_000_001_000_000, 10, 14, 5), 1)
    ledger.record(Gap("BTC_USDT", "prices", "sequence", 1, 2, 20, 20, 1, state="repaired"), 2)
    lines = [format_gap(entry, seq).decode() for seq, entry in enumerate(ledger.entries(), 1)]
    (directory / GAPS.file).write_text(GAPS.header + "".join(lines), encoding="utf-8")
    return tmp_path


def shown(data_dir: Path, *arguments: str) -> str:
    """Run the command and return what it prints."""
    result = CliRunner().invoke(gaps, [*arguments, "--data-dir", str(data_dir)], catch_exceptions=False)
    assert result.exit_code == 0
    return result.output


def test_every_gap_is_a_line_with_its_cause_and_its_ids(data_dir: Path) -> None:
    """Who reads the table knows what to ask the exchange for."""
    text = shown(data_dir)
    assert "10 to 14" in text
    assert "disconnect" in text
    assert "repaired" in text
    assert "2023-11-14 22:13:20Z" in text


def test_only_what_is_still_missing_on_request(data_dir: Path) -> None:
    """A repaired hole is none."""
    found = json.loads(shown(data_dir, "one", "--open", "--json"))["gaps"]
    assert [(gap["session_id"], gap["from_id"], gap["to_id"], gap["state"]) for gap in found] == [
        ("one", 10, 14, "open")
    ]


def test_no_gap_is_said_in_words(tmp_path: Path) -> None:
    """An empty answer is an answer."""
    assert "No gap" in shown(tmp_path)
