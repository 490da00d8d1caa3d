"""The daemon's side of the control socket: a Unix socket that only its own user can open and is answered on."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import struct
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from structlog.typing import FilteringBoundLogger

from collector.config import Control
from collector.control import (
    REQUEST_MAX_BYTES,
    Answer,
    Refusal,
    Request,
    decode_request,
    encode_line,
    prepare_socket_path,
)
from collector.errors import CollectorError, UnknownName

Progress = Callable[[Any], None]
"""Sends a line of progress to whoever asked; it never blocks, and does nothing once they are gone."""

Command = Callable[[dict[str, Any], Progress], Awaitable[Any]]
"""Does what a command asks and returns its result: anything that JSON can say, structs included."""


class ControlServer:
    """Answer the command line over the data directory's Unix socket.

    A command that a client asked for runs to its end even when the client goes away: nothing is cancelled half-way.

    Args:
        data_dir: the data directory, whose lock the caller holds.
        commands: what can be asked, by name.
        log: where refused and failed requests are told.
        settings: how many may ask at once, and how long a request may take to come.

    ``refused_connections`` counts those that were not listened to (too many at once, or another user's);
    ``refused_commands`` the requests and commands that were answered with an error.
    """

    def __init__(
        self,
        data_dir: Path,
        commands: Mapping[str, Command],
        *,
        log: FilteringBoundLogger,
        settings: Control | None = None,
    ) -> None:
        self.refused_connections = 0
        self.refused_commands = 0
        self._settings = settings or Control()
        self._data_dir = data_dir
        self._commands = commands
        self._log = log
        self._server: asyncio.Server | None = None
        self._conversations: set[asyncio.Task[Any]] = set()
        self.path: Path | None = None

    async def start(self) -> None:
        """Listen; raise CollectorError where the socket cannot be made."""
        try:
            self.path = prepare_socket_path(self._data_dir)
            listening = _listen(self.path, self._settings.max_connections)
        except OSError as error:
            raise CollectorError(f"The control socket of {self._data_dir} cannot be made: {error}.") from error
        self._server = await asyncio.start_unix_server(self._converse, sock=listening, limit=REQUEST_MAX_BYTES)

    async def stop(self, *, deadline_s: float = 5) -> None:
        """Listen no longer, give running commands until the deadline to answer, then end them."""
        if self._server is not None:
            self._server.close()
        others = {task for task in self._conversations if task is not asyncio.current_task()}
        if others:
            _, late = await asyncio.wait(others, timeout=deadline_s)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        if self.path is not None:
            self.path.unlink(missing_ok=True)

    async def _converse(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        full = len(self._conversations) >= self._settings.max_connections
        if task is None or full or not self._is_own_user(writer):
            self.refused_connections += 1
            writer.close()
            return
        self._conversations.add(task)
        try:
            answer = await self._answer(reader, writer)
            self.refused_commands += answer.error is not None
            await self._send(writer, answer)
        finally:
            self._conversations.discard(task)
            writer.close()

    def _is_own_user(self, writer: asyncio.StreamWriter) -> bool:
        """Tell whether the peer runs as our user (or root); where the system cannot say, the socket's mode must do."""
        credentials = getattr(socket, "SO_PEERCRED", None)
        connection = writer.get_extra_info("socket")
        if credentials is None or connection is None:
            return True
        _, uid, _ = struct.unpack("3i", connection.getsockopt(socket.SOL_SOCKET, credentials, struct.calcsize("3i")))
        if uid in (0, os.geteuid()):
            return True
        self._log.warning("control.peer_refused", uid=uid)
        return False

    async def _answer(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> Answer:
        try:
            async with asyncio.timeout(self._settings.request_timeout_s):
                request = decode_request(await reader.readline())
        except TimeoutError:
            return _refused(CollectorError(f"No request came within {self._settings.request_timeout_s:g} s."))
        except ValueError:
            return _refused(CollectorError(f"A request is at most {REQUEST_MAX_BYTES} bytes."))
        except CollectorError as error:
            return _refused(error)
        except OSError as error:
            return _refused(CollectorError(f"The request could not be read: {error}."))
        return await self._run(request, writer)

    async def _run(self, request: Request, writer: asyncio.StreamWriter) -> Answer:
        def progress(line: Any) -> None:
            if not writer.is_closing():
                writer.write(encode_line(Answer(progress=line)))

        command = self._commands.get(request.command)
        if command is None:
            return _refused(UnknownName("daemon command", request.command, sorted(self._commands)))
        try:
            return Answer(result=await command(request.arguments, progress))
        except CollectorError as error:
            return _refused(error)
        except Exception as error:  # noqa: BLE001  # a fault in one command must not end the daemon
            self._log.exception("control.command_failed", command=request.command)
            sentence = f"The daemon failed on {request.command!r}: {type(error).__name__}: {error}."
            return _refused(CollectorError(sentence, hint="Its log has the whole story."))

    async def _send(self, writer: asyncio.StreamWriter, answer: Answer) -> None:
        with contextlib.suppress(OSError):  # whoever asked has gone
            writer.write(encode_line(answer))
            await writer.drain()


def _refused(error: CollectorError) -> Answer:
    return Answer(error=Refusal.of(error))


def _listen(path: Path, backlog: int) -> socket.socket:
    """Bind a socket of mode 0600; its folder is private, so nobody can open it before the mode is set."""
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(str(path))
        path.chmod(0o600)
        listening.listen(backlog)
        listening.setblocking(False)
    except OSError:
        listening.close()
        raise
    return listening
