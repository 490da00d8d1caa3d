"""Frames as bytes, many in one write: a server of 50,000 messages in a second cannot afford one write for each.

``websockets`` opens and closes the connections and reads them; only what the server sends is framed here (RFC 6455,
5.2: frames of a server are not masked, and nothing is compressed).
"""

from __future__ import annotations

import re
from functools import lru_cache

from websockets.asyncio.server import ServerConnection
from websockets.protocol import State

TEXT = 1
BINARY = 2

_MAX_HEAD_BYTES = 64 * 1024
_CONTENT_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *([0-9]{1,9}) *(?=\r|$)").search
_CONTENT_LINE = re.compile(rb"(?i)\r\ncontent-length:[^\r]*").sub


@lru_cache(65_536)
def header(opcode: int, size: int) -> bytes:
    """Return what goes before a whole message of that many bytes."""
    first = 0x80 | opcode
    if size < 126:
        return bytes((first, size))
    if size < 65_536:
        return bytes((first, 126)) + size.to_bytes(2, "big")
    return bytes((first, 127)) + size.to_bytes(8, "big")


@lru_cache(65_536)
def text_header(size: int) -> str:
    """Return the header of a text message as text: one character a byte, to be encoded as Latin-1."""
    return header(TEXT, size).decode("latin-1")


class AnyRequest(ServerConnection):
    """A connection that also takes a request with a body, such as a POST; the body is not looked at.

    The library reads none, and ends the connection.
    """

    _head: bytes | None = b""
    _body_bytes = 0

    def data_received(self, data: bytes) -> None:
        if self._head is None:
            skipped = min(self._body_bytes, len(data))
            self._body_bytes -= skipped
            if skipped < len(data):
                super().data_received(data[skipped:])
            return
        self._head += data
        if not self._head.startswith((b"POST ", b"POST "[: len(self._head)])):
            whole, self._head = self._head, None
            super().data_received(whole)
        elif (end := self._head.find(b"\r\n\r\n")) >= 0:
            head, body = self._head[:end], self._head[end + 4 :]
            self._head = None
            length = _CONTENT_LENGTH(head)
            self._body_bytes = max(0, (int(length[1]) if length else 0) - len(body))
            super().data_received(_CONTENT_LINE(b"", head) + b"\r\n\r\n")
        elif len(self._head) > _MAX_HEAD_BYTES:
            abort(self)


def is_open(connection: ServerConnection) -> bool:
    """Say whether messages can still be written."""
    return connection.protocol.state is State.OPEN and not connection.transport.is_closing()


def write(connection: ServerConnection, frames: bytes) -> None:
    """Write whole frames, whatever waits before them already; nothing where the connection is closing."""
    if frames and is_open(connection):
        connection.transport.write(frames)


def backlog(connection: ServerConnection) -> int:
    """Return how many bytes wait for the client to read."""
    return connection.transport.get_write_buffer_size()


def abort(connection: ServerConnection) -> None:
    """End a connection without a word, as a broken line does."""
    connection.transport.abort()
