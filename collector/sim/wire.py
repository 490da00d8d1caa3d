"""Frames as bytes, many in one write: a server of 50,000 messages in a second cannot afford one write for each.

``websockets`` opens and closes the connections and reads them; only what the server sends is framed here (RFC 6455,
5.2: frames of a server are not masked, and nothing is compressed).
"""

from __future__ import annotations

from functools import lru_cache

from websockets.asyncio.server import ServerConnection
from websockets.protocol import State

TEXT = 1
BINARY = 2


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
