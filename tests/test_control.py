"""The client's side of the control socket: where it is, what goes over it, and what a person is told."""

from __future__ import annotations

import socket
import stat
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.control import (
    ELSEWHERE,
    FOLDER,
    PATH_MAX_BYTES,
    REQUEST_MAX_BYTES,
    Refusal,
    Request,
    ask,
    decode_request,
    encode_line,
    prepare_socket_path,
    socket_path,
)
from collector.errors import (
    CollectorError,
    ConnectionLost,
    DaemonNotRunning,
    DaemonRunning,
    ExchangeRefused,
    UnknownName,
    UsageError,
)


@contextmanager
def answering(data_dir: Path, answer: bytes) -> Iterator[list[bytes]]:
    """Answer one request on the socket of a data directory with these bytes, and keep what was asked."""
    asked: list[bytes] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(prepare_socket_path(data_dir)))
        listening.listen(1)
        listening.settimeout(20)

        def serve() -> None:
            connection, _ = listening.accept()
            with connection:
                asked.append(connection.makefile("rb").readline())
                connection.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        yield asked
        thread.join(20)


def test_a_result_comes_back_as_json_reads(tmp_path: Path) -> None:
    """The request is one line, the result is what the daemon gave."""
    with answering(tmp_path, b'{"result":{"pid":7}}\n') as asked:
        assert ask(tmp_path, "ping", {"a": 1}) == {"pid": 7}
    assert asked == [b'{"command":"ping","arguments":{"a":1}}\n']


def test_a_result_of_nothing_is_a_result(tmp_path: Path) -> None:
    """None is an answer, too."""
    with answering(tmp_path, b'{"result":null}\n'):
        assert ask(tmp_path, "shutdown") is None


def test_progress_comes_before_the_result(tmp_path: Path) -> None:
    """Each line of progress is told as it comes."""
    said: list[object] = []
    with answering(tmp_path, b'{"progress":"one"}\n{"progress":2}\n{"result":3}\n'):
        assert ask(tmp_path, "verify", on_progress=said.append) == 3
    assert said == ["one", 2]


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (UsageError("No.", hint="Yes."), UsageError),
        (UnknownName("exchange", "x", ["y"]), UsageError),
        (ExchangeRefused("No.", status=451, hint="h"), ExchangeRefused),
        (ConnectionLost("Gone."), ConnectionLost),
        (DaemonRunning("Busy.", pid=1), CollectorError),
        (CollectorError("Broken."), CollectorError),
    ],
)
def test_a_refusal_is_the_same_kind_of_error_again(error: CollectorError, kind: type[CollectorError]) -> None:
    """Message and hint are kept; a kind that needs more than that becomes its parent."""
    again = Refusal.of(error).to_error()
    assert (type(again), again.message, again.hint) == (kind, error.message, error.hint)


@pytest.mark.parametrize("kind", ["", "Nothing", "nearest_names", "annotations", "KeyError"])
def test_a_refusal_of_a_kind_that_we_do_not_know_is_an_error_of_ours(kind: str) -> None:
    """A later daemon may know more errors than this client."""
    assert type(Refusal("No.", kind=kind).to_error()) is CollectorError


def test_a_refused_command_raises(tmp_path: Path) -> None:
    """The daemon's error is the client's error."""
    with (
        answering(tmp_path, b'{"error":{"message":"No.","hint":"Yes.","kind":"UsageError"}}\n'),
        pytest.raises(UsageError, match="No"),
    ):
        ask(tmp_path, "start")


def test_without_a_daemon_a_person_is_told_how_to_start_one(tmp_path: Path) -> None:
    """No socket and a stale socket are the same: nobody listens."""
    with pytest.raises(DaemonNotRunning, match="collector up"):
        ask(tmp_path, "ping")
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as stale:
        stale.bind(str(prepare_socket_path(tmp_path)))
    with pytest.raises(DaemonNotRunning):
        ask(tmp_path, "ping")


@pytest.mark.parametrize("answer", [b"", b'{"progress":1}\n', b'{"result":1}'])
def test_a_daemon_that_ends_before_it_answers_is_told(tmp_path: Path, answer: bytes) -> None:
    """An answer that was cut off is none."""
    with answering(tmp_path, answer), pytest.raises(CollectorError, match="ended before it answered"):
        ask(tmp_path, "ping")


def test_an_answer_that_is_not_ours_is_told(tmp_path: Path) -> None:
    """Something else that listens there is no daemon."""
    with answering(tmp_path, b"HTTP/1.1 400\r\n"), pytest.raises(CollectorError, match="broke"):
        ask(tmp_path, "ping")


def test_a_silent_daemon_is_given_up(tmp_path: Path) -> None:
    """The bound is on silence."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listening:
        listening.bind(str(prepare_socket_path(tmp_path)))
        listening.listen(1)
        with pytest.raises(CollectorError, match="has not answered"):
            ask(tmp_path, "ping", timeout_s=0.05)


def test_a_request_is_bounded(tmp_path: Path) -> None:
    """Nobody is sent more than it reads."""
    with pytest.raises(UsageError, match="at most"):
        ask(tmp_path, "start", {"label": "x" * REQUEST_MAX_BYTES})


def test_the_socket_stands_in_a_private_folder(tmp_path: Path) -> None:
    """Only the user may enter it, even where the folder stood open before."""
    (tmp_path / FOLDER).mkdir(mode=0o755)
    path = prepare_socket_path(tmp_path)
    assert path == socket_path(tmp_path) == tmp_path / FOLDER / "daemon.sock"
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


def test_a_path_too_long_for_a_socket_is_kept_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The data directory says where; the folder is private and new each time; a client finds it."""
    runtime = tmp_path / "r"
    runtime.mkdir()
    monkeypatch.setenv("XDG_RUNTIME_DIR", str(runtime))
    deep = tmp_path / ("d" * 60) / ("e" * 60)
    deep.mkdir(parents=True)
    path = prepare_socket_path(deep)
    assert path.is_relative_to(runtime)
    assert len(bytes(path)) <= PATH_MAX_BYTES
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    assert socket_path(deep) == path
    assert (deep / FOLDER / ELSEWHERE).read_text(encoding="utf-8").strip() == str(path)
    with answering(deep, b'{"result":1}\n'):
        assert ask(deep, "ping") == 1


@given(st.binary(max_size=200))
def test_any_line_is_a_request_or_an_error_of_ours(line: bytes) -> None:
    """Whatever comes over the socket, it is a request or a sentence."""
    try:
        assert isinstance(decode_request(line), Request)
    except CollectorError as error:
        assert error.message


@given(
    st.builds(
        Request,
        command=st.text(max_size=20),
        arguments=st.dictionaries(st.text(max_size=5), st.none() | st.integers(-(2**53), 2**53) | st.text(max_size=9)),
    )
)
def test_a_request_survives_the_way(request_made: Request) -> None:
    """What is encoded is one line, and reads as what it was."""
    line = encode_line(request_made)
    assert line.count(b"\n") == 1
    assert decode_request(line) == request_made


def test_the_client_needs_no_asyncio() -> None:
    """Asking must be quick, so nothing heavy is imported for it."""
    heavy = "{'asyncio', 'pydantic', 'structlog', 'fastapi', 'psycopg'}"
    code = f"import sys, collector.control, collector.status; print({heavy} & set(sys.modules))"
    answer = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert answer.stdout == "set()\n"
