"""Logging: readable on a terminal, JSON in a rotated file, no secret in either."""

from __future__ import annotations

import io
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from collector.logs import MASK, Logs, dropped_records, get_log, mask


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self) -> bool:
        return True


def fail(message: str) -> None:
    raise RuntimeError(message)


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "collector.log").read_text(encoding="utf-8").splitlines()]


def test_the_file_has_one_json_object_per_line(tmp_path: Path) -> None:
    """Event, level, time and facts are keys."""
    with Logs(folder=tmp_path):
        get_log(session="s1").info("data_collection.session_initialized", symbols=["BTC_USDT"])
    [line] = lines_of(tmp_path)
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "data_collection.session_initialized",
        "level": "info",
        "session": "s1",
        "symbols": ["BTC_USDT"],
    }


def test_the_terminal_gets_a_readable_line() -> None:
    """A person reads the event and its facts; a pipe gets no colours."""
    pipe = io.StringIO()
    with Logs(terminal=pipe):
        get_log().warning("feed.connection_closed", reason="timeout")
    assert "feed.connection_closed" in pipe.getvalue()
    assert "reason=timeout" in pipe.getvalue()
    assert "\x1b[" not in pipe.getvalue()


def test_only_a_terminal_gets_colours() -> None:
    """Colours are for terminals."""
    terminal = Terminal()
    with Logs(terminal=terminal):
        get_log().info("daemon.ready")
    assert "\x1b[" in terminal.getvalue()


@pytest.mark.parametrize(("level", "events"), [("debug", ["a", "b"]), ("info", ["b"]), ("error", [])])
def test_events_below_the_level_are_not_written(tmp_path: Path, level: str, events: list[str]) -> None:
    """The level is the lowest that is written."""
    with Logs(level=level, folder=tmp_path):
        get_log().debug("a")
        get_log().info("b")
    assert [line["event"] for line in lines_of(tmp_path)] == events


def test_libraries_are_heard_from_warning_on(tmp_path: Path) -> None:
    """What websockets, uvicorn and httpx say by the standard library's logging goes the same way."""
    with Logs(level="debug", folder=tmp_path):
        logging.getLogger("websockets.client").info("chatter")
        logging.getLogger("uvicorn.error").warning("port %d is slow", 80)
    [line] = lines_of(tmp_path)
    assert (line["event"], line["logger"], line["level"]) == ("port 80 is slow", "uvicorn.error", "warning")


def test_the_file_is_rotated_by_size(tmp_path: Path) -> None:
    """Old lines go to numbered files, of which so many are kept."""
    with Logs(folder=tmp_path, max_bytes=1000, backup_count=2):
        for number in range(100):
            get_log().info("tick", number=number)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["collector.log", "collector.log.1", "collector.log.2"]
    assert all(path.stat().st_size <= 1000 for path in tmp_path.iterdir())


def test_an_exception_is_told_with_its_traceback_and_without_its_secrets(tmp_path: Path) -> None:
    """A driver's error may quote a conf string."""
    with Logs(folder=tmp_path):
        try:
            fail("cannot connect to http::addr=h:9000;username=u;password=hunter2;")
        except RuntimeError:
            get_log().exception("replicator.failed")
    [line] = lines_of(tmp_path)
    assert "RuntimeError" in line["exception"]
    assert "hunter2" not in json.dumps(line)


def test_an_exception_of_a_library_hides_its_secrets_too(tmp_path: Path) -> None:
    """The standard library's records pass the same mask."""
    with Logs(folder=tmp_path):
        try:
            fail("token=abcdef123456")
        except RuntimeError:
            logging.getLogger("httpx").exception("request with Authorization: Basic dXNlcjpwYXNz failed")
    assert "abcdef123456" not in (tmp_path / "collector.log").read_text(encoding="utf-8")
    assert "dXNlcjpwYXNz" not in (tmp_path / "collector.log").read_text(encoding="utf-8")


def test_a_value_that_json_does_not_know_is_written_as_text(tmp_path: Path) -> None:
    """A path or an error among the facts is no error of its own."""
    with Logs(folder=tmp_path):
        get_log().info("x", path=Path("/a"), error=ValueError("no"))
    [line] = lines_of(tmp_path)
    assert (line["path"], line["error"]) == ("/a", "no")


@pytest.mark.parametrize(
    "key", ["password", "pg_password", "PASSWORD", "token", "api_key", "apikey", "Authorization", "cookie", "secret"]
)
def test_the_value_of_a_telling_key_is_masked(tmp_path: Path, key: str) -> None:
    """Whatever stands under a key like that is nobody's business."""
    with Logs(folder=tmp_path):
        get_log().info("x", **{key: "hunter2", "nested": {key: ["hunter2"]}})
    [line] = lines_of(tmp_path)
    assert line[key] == MASK
    assert line["nested"] == {key: MASK}


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        ("http::addr=h:9000;username=u;password=hunter2;retry=0", "http::addr=h:9000;username=u;password=***;retry=0"),
        ("postgres://admin:hunter2@127.0.0.1:8812/qdb", "postgres://admin:***@127.0.0.1:8812/qdb"),
        ("host=h password='hunter 2' dbname=qdb", "host=h password=*** dbname=qdb"),
        ('{"password": "hunter2", "user": "u"}', '{"password": ***, "user": "u"}'),
        ("Authorization: Basic aHVudGVyMg==", "Authorization: ***"),
        ("sent Bearer abcdefgh.ijkl-mnop", "sent Bearer ***"),
        ("https://x/y?token=abc&z=1", "https://x/y?token=***&z=1"),
        ("nothing to hide: price=1", "nothing to hide: price=1"),
        (["password=a b", ("token: t",)], ["password=*** b", ["token: ***"]]),
        (17, 17),
        (None, None),
        (ValueError("secret=s"), "secret=***"),
    ],
)
def test_telling_parts_of_any_text_are_masked(text: Any, masked: Any) -> None:
    """Conf strings, headers, addresses and dumps lose their secrets and keep the rest."""
    assert mask(text) == masked


def test_what_the_queue_cannot_take_is_counted(tmp_path: Path) -> None:
    """A stalled disk costs lines, not the event loop; how many is known."""
    logs = Logs(folder=tmp_path)
    front = logs._front
    record = logging.LogRecord("x", logging.INFO, "f", 1, "m", None, None)
    for _ in range(front.queue.maxsize + 3):
        front.enqueue(record)
    assert logs.dropped == 3


def test_what_the_process_s_logging_dropped_is_known(tmp_path: Path) -> None:
    """Of the one that is entered; nothing where none is."""
    before = dropped_records()
    with Logs(folder=tmp_path, queue_max_records=1) as logs:
        logs._front.dropped += 2
        assert dropped_records() == before + 2
    assert dropped_records() == before


def test_leaving_writes_everything_and_leaves_no_trace(tmp_path: Path) -> None:
    """All that was said is in the file, and the process's logging is as it was."""
    handlers = list(logging.getLogger().handlers)
    with Logs(folder=tmp_path) as logs:
        for number in range(500):
            get_log().info("tick", number=number)
    assert [line["number"] for line in lines_of(tmp_path)] == list(range(500))
    assert logging.getLogger().handlers == handlers
    assert logs.file == tmp_path / "collector.log"
