"""Pages: a cursor is opaque to whoever passes it back, and says where the last page ended."""

from __future__ import annotations

import base64
import binascii
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import msgspec

from collector.errors import UsageError

Row = TypeVar("Row")


def cursor_of(position: Any) -> str:
    """Return the cursor that stands for a position: numbers and text, in a list."""
    return base64.urlsafe_b64encode(msgspec.json.encode(position)).decode().rstrip("=")


def position_of(cursor: str, kind: type[Row]) -> Row:
    """Return the position that a cursor stands for; raise UsageError where it is none of ours."""
    try:
        raw = base64.urlsafe_b64decode(cursor.encode("ascii") + b"=" * (-len(cursor) % 4))
        return msgspec.json.decode(raw, type=kind)
    except (msgspec.MsgspecError, ValueError, binascii.Error) as error:
        raise UsageError("The cursor is none that this server gave.", hint="Begin without one.") from error


def page_of(rows: Sequence[Row], key: Callable[[Row], Any], after: Any, limit: int) -> tuple[list[Row], str | None]:
    """Return the rows behind a position (rows are in the order of their descending or ascending keys, each its own).

    Args:
        key: gives what tells a row from the others, as JSON would have it.
        after: the key of the last row of the page before; None for the first page. One that is gone begins anew.
    """
    begin = 0
    if after is not None:
        begin = next((i + 1 for i, row in enumerate(rows) if key(row) == after), 0)
    chosen = list(rows[begin : begin + limit])
    more = begin + limit < len(rows)
    return chosen, cursor_of(key(chosen[-1])) if more and chosen else None
