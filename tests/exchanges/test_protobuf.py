"""The wire format of protobuf: what is written is read, and anything else is a MessageError."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import MessageError
from collector.exchanges.protobuf import message, number, read_fields, text


def varint(value: int) -> bytes:
    written = bytearray()
    while value > 127:
        written.append(value & 127 | 128)
        value >>= 7
    return bytes([*written, value])


def write(fields: list[tuple[int, int | bytes]]) -> bytes:
    """Write fields, independently of the reader."""
    parts = []
    for place, value in fields:
        if isinstance(value, int):
            parts.append(varint(place << 3) + varint(value))
        else:
            parts.append(varint(place << 3 | 2) + varint(len(value)) + value)
    return b"".join(parts)


numbers = st.integers(0, 2**64 - 1)


@given(st.lists(st.tuples(st.integers(1, 2**29 - 1), numbers | st.binary(max_size=300)), max_size=8))
def test_what_is_written_is_read(fields: list[tuple[int, int | bytes]]) -> None:
    """Fields come back with their numbers and values, in their order."""
    assert read_fields(write(fields)) == fields


def test_fixed_sizes() -> None:
    """Numbers of a fixed size are passed over as bytes."""
    assert read_fields(b"\x09" + b"12345678" + b"\x15" + b"1234") == [(1, b"12345678"), (2, b"1234")]


@given(st.binary(max_size=60))
def test_any_bytes(data: bytes) -> None:
    """Any bytes are fields or a MessageError."""
    try:
        fields = read_fields(data)
    except MessageError:
        return
    assert all(isinstance(value, int | bytes) for _, value in fields)


@pytest.mark.parametrize(
    "data",
    [b"\x0a", b"\x0a\x05abc", b"\x08", b"\x08\x80", b"\x08" + b"\x80" * 11, b"\x09\x01", b"\x0b", b"\x0a\xff", b"\x80"],
)
def test_malformed(data: bytes) -> None:
    """A message that ends within a field, or has a kind of field that is none, is refused."""
    with pytest.raises(MessageError):
        read_fields(data)


def test_values() -> None:
    """A missing field is empty or 0; one of the wrong kind is refused."""
    assert (text(None), text(b"BTC"), number(None), number(5), message(b"x")) == ("", "BTC", 0, 5, b"x")
    for read, value in ((text, 5), (text, b"\xff"), (number, b"5"), (number, 2**63), (message, 5)):
        with pytest.raises(MessageError):
            read(value)  # type: ignore[operator]
