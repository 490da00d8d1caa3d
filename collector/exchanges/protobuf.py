"""A reader of the protobuf wire format: what one dialect needs of it, without generated code or a native library.

Source: the page "Encoding" of the format's documentation. A message is a series of fields, each a tag (its number and
its wire type) and a value.
"""

from __future__ import annotations

from collector.errors import MessageError

_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5
_LONGEST_VARINT = 10

Value = int | bytes
"""What a field holds: a number (varints only), or the bytes of a text, of a message, or of a fixed-size number."""


def read_fields(data: bytes) -> list[tuple[int, Value]]:
    """Return a message's fields by number, in their order; a repeated field is in it more than once.

    Raises:
        MessageError: the bytes are no message.
    """
    fields: list[tuple[int, Value]] = []
    at, end = 0, len(data)
    try:
        while at < end:
            tag = data[at]
            at += 1
            if tag > 127:
                tag, at = _read_long(data, at, tag)
            kind = tag & 7
            if kind == _BYTES:
                size = data[at]
                at += 1
                if size > 127:
                    size, at = _read_long(data, at, size)
            elif kind == _VARINT:
                value = data[at]
                at += 1
                if value > 127:
                    value, at = _read_long(data, at, value)
                fields.append((tag >> 3, value))
                continue
            elif kind in (_FIXED64, _FIXED32):
                size = 8 if kind == _FIXED64 else 4
            else:
                raise MessageError(f"A protobuf field has the wire type {kind}.")
            stop = at + size
            if stop > end:
                raise MessageError("A protobuf message ends within a field.")
            fields.append((tag >> 3, data[at:stop]))
            at = stop
    except IndexError:
        raise MessageError("A protobuf message ends within a field.") from None
    return fields


def text(value: Value | None) -> str:
    """Return a field that is text; empty where the field is missing, as the format has it."""
    if value is None:
        return ""
    if not isinstance(value, bytes):
        raise MessageError("A protobuf field is a number where text belongs.")
    try:
        return value.decode()
    except UnicodeError as error:
        raise MessageError(f"A protobuf field is no text: {error}.") from error


def number(value: Value | None) -> int:
    """Return a field that is a number of at least 0; 0 where the field is missing, as the format has it."""
    if value is None:
        return 0
    if not isinstance(value, int) or value >= 2**63:
        raise MessageError("A protobuf field is no number of at least 0.")
    return value


def message(value: Value) -> bytes:
    """Return a field that is a message of its own."""
    if not isinstance(value, bytes):
        raise MessageError("A protobuf field is a number where a message belongs.")
    return value


def _read_long(data: bytes, at: int, low: int) -> tuple[int, int]:
    """Read on in a varint whose first byte is ``low``; return the number and where it ends."""
    value = low & 127
    shift = 7
    for byte in data[at : at + _LONGEST_VARINT - 1]:
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
    raise MessageError("A protobuf number does not end.")
