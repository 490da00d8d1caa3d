"""The command line's side of the control socket: where it is, what goes over it, and a client without asyncio.

A request is one JSON line ``{"command", "arguments"}``; the answer is any number of ``{"progress": …}`` lines and then
one ``{"result": …}`` or ``{"error": {"message", "hint", "kind"}}``. The daemon's side is in ``control_server``.
"""

from __future__ import annotations

import contextlib
import os
import socket
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec

from collector import errors
from collector.errors import CollectorError, DaemonNotRunning

FOLDER = "control"
SOCKET = "daemon.sock"
ELSEWHERE = "elsewhere"
"""The file in the data directory's control folder that names the socket where its own path is too long for one."""

PATH_MAX_BYTES = 103 if sys.platform == "darwin" else 107
"""How long the path of a Unix socket may be: ``sun_path`` of the system, without its closing zero."""

REQUEST_MAX_BYTES = 64 * 1024
ANSWER_MAX_BYTES = 64 * 1024 * 1024


class Request(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a client asks."""

    command: str
    arguments: dict[str, Any] = {}


class Refusal(msgspec.Struct, frozen=True):
    """An error as it goes over the socket; ``kind`` is its class in ``errors``."""

    message: str
    hint: str = ""
    kind: str = "CollectorError"

    @classmethod
    def of(cls, error: CollectorError) -> Refusal:
        """Describe an error."""
        return cls(error.message, error.hint, type(error).__name__)

    def to_error(self) -> CollectorError:
        """Return the error again, as the nearest kind that a sentence and a hint are enough for."""
        found = getattr(errors, self.kind, None)
        if isinstance(found, type) and issubclass(found, CollectorError):
            for kind in found.__mro__:
                with contextlib.suppress(TypeError):  # it takes more than goes over the socket: its parent will do
                    return _made(kind, self.message, self.hint)
        return CollectorError(self.message, hint=self.hint)


def _made(kind: Callable[..., Any], message: str, hint: str) -> CollectorError:
    error = kind(message, hint=hint)
    if not isinstance(error, CollectorError):
        raise TypeError
    return error


class Answer(msgspec.Struct, frozen=True, omit_defaults=True):
    """One line of an answer; the first that is no progress is the last."""

    progress: Any = None
    result: Any = msgspec.UNSET
    error: Refusal | None = None


_encoder = msgspec.json.Encoder()
_answers = msgspec.json.Decoder(Answer)
_requests = msgspec.json.Decoder(Request)


def encode_line(line: Request | Answer) -> bytes:
    """Return a line of the protocol."""
    return _encoder.encode(line) + b"\n"


def decode_request(line: bytes) -> Request:
    """Read a request; raise CollectorError where it is not one."""
    try:
        return _requests.decode(line)
    except msgspec.MsgspecError as error:
        raise CollectorError(f"This is no request: {error}.") from error


def socket_path(data_dir: Path) -> Path:
    """Return where the daemon of a data directory listens (or would listen)."""
    folder = data_dir.resolve() / FOLDER
    with contextlib.suppress(OSError):
        return Path((folder / ELSEWHERE).read_text(encoding="utf-8").strip())
    return folder / SOCKET


def prepare_socket_path(data_dir: Path) -> Path:
    """Make the private folder (0700) for the socket and return the socket's path; only the lock's holder may call it.

    Where the data directory's path is too long for a socket, a private folder under ``XDG_RUNTIME_DIR`` (or the
    system's temporary folder) takes it, and a file in the data directory says where.
    """
    folder = data_dir.resolve() / FOLDER
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder.chmod(0o700)
    path, elsewhere = folder / SOCKET, folder / ELSEWHERE
    elsewhere.unlink(missing_ok=True)
    if len(os.fsencode(path)) > PATH_MAX_BYTES:
        path = Path(tempfile.mkdtemp(prefix="collector-", dir=os.environ.get("XDG_RUNTIME_DIR") or None)) / SOCKET
        elsewhere.write_text(f"{path}\n", encoding="utf-8")
    path.unlink(missing_ok=True)
    return path


def ask(
    data_dir: Path,
    command: str,
    arguments: dict[str, Any] | None = None,
    *,
    timeout_s: float | None = 10,
    on_progress: Callable[[Any], None] | None = None,
) -> Any:
    """Ask the daemon of a data directory and return its result, as JSON reads.

    Args:
        timeout_s: how long the daemon may be silent; None waits for ever.
        on_progress: called with each progress line before the result.

    Raises:
        DaemonNotRunning: nobody listens.
        CollectorError: what the daemon refused the command with, or it was silent for too long.
    """
    request = encode_line(Request(command, arguments or {}))
    if len(request) > REQUEST_MAX_BYTES:
        raise errors.UsageError(f"A request to the daemon is at most {REQUEST_MAX_BYTES} bytes; this one is longer.")
    with _connected(data_dir, timeout_s) as connection:
        try:
            connection.sendall(request)
            for line in _lines(connection):
                answer = _answers.decode(line)
                if answer.error is not None:
                    raise answer.error.to_error()
                if answer.result is not msgspec.UNSET:
                    return answer.result
                if on_progress is not None:
                    on_progress(answer.progress)
        except TimeoutError as error:
            raise CollectorError(
                f"The daemon of {data_dir} has not answered for {timeout_s:g} s.", hint="Its log may say why."
            ) from error
        except (OSError, msgspec.MsgspecError) as error:
            raise CollectorError(f"The conversation with the daemon of {data_dir} broke: {error}.") from error
    raise CollectorError(
        f"The daemon of {data_dir} ended before it answered.", hint="Its log in daemon.log_dir may say why."
    )


@contextlib.contextmanager
def _connected(data_dir: Path, timeout_s: float | None) -> Iterator[socket.socket]:
    path = socket_path(data_dir)
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
        connection.settimeout(timeout_s)
        try:
            connection.connect(str(path))
        except PermissionError as error:
            raise CollectorError(
                f"The daemon of {data_dir} belongs to another user.", hint="Run this command as that user."
            ) from error
        except OSError as error:
            raise DaemonNotRunning(
                f"No daemon runs for the data directory {data_dir}.", hint="Start one with `collector up --detach`."
            ) from error
        yield connection


def _lines(connection: socket.socket) -> Iterator[bytes]:
    pending = b""
    while True:
        received = connection.recv(65536)
        if not received:
            return
        *lines, pending = (pending + received).split(b"\n")
        yield from lines
        if len(pending) > ANSWER_MAX_BYTES:
            raise OSError(f"a line of its answer is longer than {ANSWER_MAX_BYTES} bytes")
