"""Frames as bytes: what another implementation reads of them."""

from __future__ import annotations

import pytest
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.uri import parse_uri

from collector.sim import wire


@pytest.mark.parametrize("size", [0, 1, 125, 126, 127, 65_535, 65_536, 200_000])
@pytest.mark.parametrize("opcode", [wire.TEXT, wire.BINARY])
def test_frames_are_read_as_they_were_meant(size: int, opcode: int) -> None:
    """The websocket library reads two frames in one piece of bytes as two messages of their size and kind."""
    protocol = ClientProtocol(parse_uri("ws://127.0.0.1/"), state=State.OPEN, max_size=None)
    payload = b"x" * size
    protocol.receive_data((wire.header(opcode, size) + payload) * 2)
    frames = protocol.events_received()
    assert [(frame.opcode, bytes(frame.data)) for frame in frames if isinstance(frame, Frame)] == [
        (Opcode(opcode), payload)
    ] * 2


@pytest.mark.parametrize("size", [0, 125, 126, 65_536])
def test_headers_as_text_are_the_same_bytes(size: int) -> None:
    """A header as text becomes the same bytes."""
    assert wire.text_header(size).encode("latin-1") == wire.header(wire.TEXT, size)
