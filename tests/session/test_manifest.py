"""The manifest survives crashes and versions, and tells no secret."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.config import Config, QuestDB
from collector.errors import LogError, ManifestError
from collector.session import manifest as manifests
from collector.session.manifest import (
    FileRecord,
    Manifest,
    StateChange,
    decode_manifest,
    find_sessions,
    hash_file,
    load_manifest,
    public_config,
    public_url,
    save_manifest,
)
from collector.storage.failing_files import FailingFiles
from collector.storage.files import OperatingSystem


def example(session_id: str = "x", created_us: int = 1) -> Manifest:
    return Manifest(session_id, "sim", ["BTC_USDT"], ["prices"], created_us)


def test_a_manifest_reads_back_as_it_was_written(tmp_path: Path) -> None:
    """With everything in it."""
    manifest = example()
    manifest.history.append(StateChange("starting", 1, "because"))
    manifest.files.append(FileRecord("prices", "BTC_USDT", "BTC_USDT/prices.csv", 3, hashes={"prices.csv": "ab"}))
    manifest.files.append(FileRecord("gaps", None, "gaps.csv"))
    save_manifest(tmp_path, manifest, OperatingSystem())
    assert load_manifest(tmp_path) == manifest
    assert manifest.record("gaps", None) is manifest.files[1]
    assert manifest.record("gaps", "BTC_USDT") is None


def test_one_that_was_half_written_means_nothing(tmp_path: Path) -> None:
    """The temporary file beside it is passed over, and written over."""
    save_manifest(tmp_path, example("old"), OperatingSystem())
    (tmp_path / "session.json.tmp").write_bytes(b'{"session_id": "ne')
    assert load_manifest(tmp_path).session_id == "old"
    save_manifest(tmp_path, example("new"), OperatingSystem())
    assert load_manifest(tmp_path).session_id == "new"
    assert not (tmp_path / "session.json.tmp").exists()


def test_a_failed_save_leaves_the_old_one(tmp_path: Path) -> None:
    """And says why."""
    files = FailingFiles(OperatingSystem())
    save_manifest(tmp_path, example("old"), files)
    files.fail_next("replace", errno.ENOSPC)
    with pytest.raises(LogError, match="space"):
        save_manifest(tmp_path, example("new"), files)
    assert load_manifest(tmp_path).session_id == "old"


def test_a_missing_one_is_an_error_that_names_it(tmp_path: Path) -> None:
    """As is a folder in its place."""
    with pytest.raises(ManifestError, match=r"session\.json"):
        load_manifest(tmp_path)
    (tmp_path / "session.json").mkdir()
    with pytest.raises(ManifestError):
        load_manifest(tmp_path)


def test_a_later_format_is_refused() -> None:
    """With a hint."""
    with pytest.raises(ManifestError, match="newer"):
        decode_manifest(b'{"format_version": 99}', Path("session.json"))
    with pytest.raises(ManifestError, match="nothing can read"):
        decode_manifest(b'{"format_version": 0}', Path("session.json"))


def test_an_older_format_is_upgraded_step_by_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each version has the function that makes the next one of it."""

    def from_zero(fields: dict[str, Any]) -> dict[str, Any]:
        return {**fields, "exchange": fields.pop("venue")}

    monkeypatch.setitem(manifests.UPGRADES, 0, from_zero)
    old = {"session_id": "x", "venue": "sim", "symbols": [], "data_types": [], "created_us": 1}
    manifest = decode_manifest(msgspec.json.encode(old), Path("session.json"))
    assert (manifest.exchange, manifest.format_version) == ("sim", 1)


@given(st.binary(max_size=200) | st.recursive(st.none() | st.integers(), st.lists).map(msgspec.json.encode))
def test_any_bytes_are_a_manifest_or_a_documented_error(content: bytes) -> None:
    """A damaged file ends no daemon."""
    with pytest.raises(ManifestError):
        decode_manifest(content, Path("session.json"))


@given(st.data())
def test_a_torn_manifest_is_a_documented_error(data: st.DataObject) -> None:
    """Wherever it was torn."""
    content = msgspec.json.encode(example())
    with pytest.raises(ManifestError):
        decode_manifest(content[: data.draw(st.integers(0, len(content) - 1))], Path("session.json"))


def test_sessions_are_found_oldest_first(tmp_path: Path) -> None:
    """One that cannot be read hides no other."""
    for session_id, created_us in (("a", 2), ("b", 1)):
        (tmp_path / f"session_{session_id}").mkdir()
        save_manifest(tmp_path / f"session_{session_id}", example(session_id, created_us), OperatingSystem())
    (tmp_path / "session_c").mkdir()
    found, errors = find_sessions(tmp_path)
    assert ([m.session_id for m in found], len(errors)) == (["b", "a"], 1)
    assert find_sessions(tmp_path / "none") == ([], [])


def test_no_secret_is_in_a_manifest() -> None:
    """Neither a password of the configuration nor credentials in an address."""
    config = Config(questdb=QuestDB.model_validate({"pg_password": "hunter2", "http_password": "hunter3"}))
    text = str(public_config(config))
    assert "hunter" not in text
    assert "password" not in text
    assert "pg_user" in text
    assert public_url("wss://user:hunter2@host:9443/ws?key=hunter3") == "wss://host:9443/ws"


def test_a_file_is_hashed(tmp_path: Path) -> None:
    """One that is gone is a documented error."""
    (tmp_path / "x").write_bytes(b"abc")
    assert hash_file(tmp_path / "x").startswith("ba7816bf")
    with pytest.raises(LogError):
        hash_file(tmp_path / "y")
