"""The commands about sessions, against a pretended daemon and against manifests on disk."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from collector.session.manifest import FileRecord, Manifest, StateChange


def stored(data_dir: Path, session_id: str, state: str, **fields: Any) -> None:
    """Put a session's manifest into a data directory."""
    manifest = Manifest(
        session_id=session_id,
        exchange="binance",
        symbols=["BTC_USDT"],
        data_types=["prices"],
        created_us=1_700_000_000_000_000,
        state=state,
        files=[FileRecord("prices", "BTC_USDT", "BTC_USDT/prices.csv", rows=10, hashes={"prices.csv": "ab" * 32})],
        history=[StateChange("starting", 1_700_000_000_000_000)],
        **fields,
    )
    folder = data_dir / f"session_{session_id}"
    folder.mkdir(parents=True)
    (folder / "session.json").write_bytes(msgspec.json.encode(manifest))


def test_start_asks_the_daemon_for_what_was_typed(daemon: Any, collector: Callable[..., Any]) -> None:
    """Symbols and durations arrive normalised; what was not given is left to the configuration."""
    outcome = collector(
        "start", "--exchange", "sim", "--symbols", "btc-usdt,ETH_USDT", "--duration", "1h30m", "--label", "try",
        "--id", "mine", "--trades", "raw", "--data-dir", daemon.data_dir,
    )  # fmt: skip
    assert outcome.status == 0, outcome
    command, arguments = daemon.asked[-1]
    assert command == "start"
    assert arguments == {
        "exchange": "sim",
        "symbols": ["BTC_USDT", "ETH_USDT"],
        "duration_s": 5400.0,
        "label": "try",
        "session_id": "mine",
        "raw_trades": True,
    }
    assert "Session mine is active on sim." in outcome.out


def test_start_prints_the_session_as_json(daemon: Any, collector: Callable[..., Any]) -> None:
    """A program learns the id."""
    outcome = collector("start", "--exchange", "sim", "--symbols", "A_B", "--json", "--data-dir", daemon.data_dir)
    assert json.loads(outcome.out)["session_id"] == "new"


def test_stop_ends_one_or_all(daemon: Any, collector: Callable[..., Any]) -> None:
    """And says what each has become."""
    outcome = collector("stop", "s1", "--data-dir", daemon.data_dir)
    assert "Session s1 is completed: 1,290 rows, 0 gaps." in outcome.out
    outcome = collector("stop", "--all", "--json", "--data-dir", daemon.data_dir)
    assert [session["state"] for session in json.loads(outcome.out)] == ["completed"]
    assert daemon.asked[-1] == ("stop", {"every": True})


def test_stopping_an_unknown_session_fails(daemon: Any, collector: Callable[..., Any]) -> None:
    """With the daemon's own sentence."""
    outcome = collector("stop", "s9", "--data-dir", daemon.data_dir)
    assert (outcome.status, outcome.err) == (2, "error: There is no session 's9'.\n")


def test_stopping_all_where_none_runs_is_done(daemon: Any, collector: Callable[..., Any]) -> None:
    """Nothing to do is no failure."""
    daemon.sessions.clear()
    assert "No session was running." in collector("stop", "--all", "--data-dir", daemon.data_dir).out


def test_sessions_lists_what_runs_and_what_is_stored(daemon: Any, collector: Callable[..., Any]) -> None:
    """The daemon's word counts for those that it runs, the manifest for the others."""
    stored(daemon.data_dir, "s1", "starting")
    stored(daemon.data_dir, "old", "completed")
    outcome = collector("sessions", "--json", "--data-dir", daemon.data_dir)
    states = {one["session_id"]: one["state"] for one in json.loads(outcome.out)["sessions"]}
    assert states == {"s1": "active", "old": "completed"}
    shown = collector("sessions", "--status", "completed", "--data-dir", daemon.data_dir).out
    assert "old" in shown
    assert "s1" not in shown


def test_without_a_daemon_a_session_that_ran_is_interrupted(tmp_path: Path, collector: Callable[..., Any]) -> None:
    """Active in the manifest and run by nobody: it was interrupted."""
    stored(tmp_path, "s1", "active")
    [session] = json.loads(collector("sessions", "--json", "--data-dir", tmp_path).out)["sessions"]
    assert (session["state"], session["rows"]) == ("interrupted", {"prices": 10})
    assert "interrupted: no daemon runs it" in collector("status", "s1", "--data-dir", tmp_path).out


def test_a_manifest_that_cannot_be_read_is_a_warning(tmp_path: Path, collector: Callable[..., Any]) -> None:
    """The other sessions are listed all the same."""
    stored(tmp_path, "s1", "completed")
    stored(tmp_path, "s2", "completed")
    (tmp_path / "session_s2" / "session.json").write_text("{", encoding="utf-8")
    outcome = collector("sessions", "--data-dir", tmp_path)
    assert outcome.status == 0
    assert "s1" in outcome.out
    assert outcome.err.startswith("warning: ")


def test_an_empty_data_directory_has_no_sessions(tmp_path: Path, collector: Callable[..., Any]) -> None:
    """Said in a sentence."""
    assert "There is no session in" in collector("sessions", "--data-dir", tmp_path).out
    outcome = collector("sessions", "--status", "failed", "--data-dir", tmp_path)
    assert outcome.out.startswith("There is no failed session in")


def test_status_shows_the_daemon_or_a_session(daemon: Any, collector: Callable[..., Any]) -> None:
    """All that somebody wants to see at a glance."""
    whole = collector("status", "--data-dir", daemon.data_dir).out
    assert "up 1 m 01 s" in whole
    assert "http://127.0.0.1:9000" in whole
    one = collector("status", "s1", "--data-dir", daemon.data_dir).out
    assert "60000.10" in one
    assert json.loads(collector("status", "s1", "--json", "--data-dir", daemon.data_dir).out)["session_id"] == "s1"
    assert json.loads(collector("status", "--json", "--data-dir", daemon.data_dir).out)["pid"] == 1


def test_watching_ends_with_the_session(daemon: Any, collector: Callable[..., Any]) -> None:
    """One that has ended is shown once."""
    collector("stop", "s1", "--data-dir", daemon.data_dir)
    outcome = collector("status", "s1", "--watch", "--json", "--data-dir", daemon.data_dir)
    assert outcome.status == 0
    assert [json.loads(line)["state"] for line in outcome.out.splitlines()] == ["completed"]


def test_watching_ends_with_ctrl_c(daemon: Any, collector: Callable[..., Any], monkeypatch: Any) -> None:
    """Which is how a person ends it: no failure."""

    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("time.sleep", interrupt)
    outcome = collector("status", "--watch", "--data-dir", daemon.data_dir)
    assert outcome.status == 0
    assert "s1" in outcome.out


def test_show_tells_a_sessions_whole_story(tmp_path: Path, collector: Callable[..., Any]) -> None:
    """Manifest, states, files with their hashes, and what was lost."""
    stored(tmp_path, "s1", "failed", reason="disk full", lost=["3 rows of prices"], endpoints={"ws": "wss://x"})
    shown = collector("show", "s1", "--data-dir", tmp_path).out
    for part in ("failed: disk full", "BTC_USDT/prices.csv", "abababababab", "Lost: 3 rows of prices", "ws wss://x"):
        assert part in shown
    assert json.loads(collector("show", "s1", "--json", "--data-dir", tmp_path).out)["manifest"]["state"] == "failed"


def test_an_unknown_session_is_answered_with_the_nearest(tmp_path: Path, collector: Callable[..., Any]) -> None:
    """Exit 2, and the id that was probably meant."""
    stored(tmp_path, "20261121-081500-binance-7f3a", "completed")
    outcome = collector("show", "20261121-081500-binance-7f3b", "--data-dir", tmp_path)
    assert outcome.status == 2
    assert "Did you mean 20261121-081500-binance-7f3a?" in outcome.err
