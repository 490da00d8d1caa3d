"""Events as lines of CSV: pure, and as fast as text can be made, because every row passes here.

A line never holds a quote or a comma inside a field, so that every reader may split at commas. Prices and sizes are the
exchange's own digits. ``quote_volume`` is the exact product, never rounded, never in scientific notation.
"""

from __future__ import annotations

import decimal
from collections.abc import Sequence
from decimal import Decimal
from functools import partial

from msgspec.structs import astuple

from collector.events import BookTop, Level, Trade
from collector.session.gaps import Entry
from collector.streams import BOOK_LEVELS, PRICES

EXACT = decimal.Context(
    prec=2_000,
    Emax=999,
    Emin=-999,
    traps=[decimal.Inexact, decimal.InvalidOperation, decimal.Overflow, decimal.Underflow, decimal.FloatOperation],
)
"""Arithmetic that raises instead of rounding: no product of two prices in a message comes near these bounds."""

_FORBIDDEN = '"\r\0'
_is_finite = Decimal.is_finite
_PRICE_COMMAS = len(PRICES.columns) - 1
_TEXT = str.maketrans({",": ";", '"': "'", "\n": " ", "\r": " ", "\0": " "})


class MalformedRow(ValueError):
    """A value of an event cannot be a field of CSV: no number, or text that would break the line."""


def format_trades(trades: Sequence[Trade], first_seq: int) -> tuple[bytes, list[Decimal]]:
    """Return the rows of ``prices.csv`` for trades of one symbol, and the exact ``quote_volume`` of each.

    Raises:
        MalformedRow: at least one of them cannot be a row; ``split_malformed`` tells which.
    """
    lines: list[str] = []
    quotes: list[Decimal] = []
    add_line = lines.append
    add_quote = quotes.append
    number = Decimal
    seq = first_seq
    price = volume = ""
    try:
        with decimal.localcontext(EXACT):
            for _, at, price, volume, side, trade_id, received, source, first, last in map(astuple, trades):
                quote = number(price) * number(volume)
                digits = str(quote)
                if "E" in digits:
                    digits = format(quote, "f")
                add_quote(quote)
                if first is None:
                    first = last = ""  # noqa: PLW2901  (two names more would cost more than the line saves)
                add_line(f"{at},{price},{volume},{digits},{side},{trade_id},{seq},{received},{source},{first},{last}\n")
                seq += 1
    except decimal.DecimalException as error:
        raise MalformedRow(f"{price!r} x {volume!r} is no product of two numbers") from error
    if not all(map(_is_finite, quotes)):
        raise MalformedRow("a price or a size is no finite number")
    return _checked("".join(lines), len(lines), _PRICE_COMMAS), quotes


def split_malformed(trades: Sequence[Trade]) -> tuple[list[Trade], list[Trade]]:
    """Return the trades that can be rows, and those that cannot; the slow way, for a batch that was refused."""
    good: list[Trade] = []
    malformed: list[Trade] = []
    for trade in trades:
        try:
            format_trades((trade,), 1)
        except MalformedRow:
            malformed.append(trade)
        else:
            good.append(trade)
    return good, malformed


def format_books(tops: Sequence[BookTop], first_seq: int, levels: int = BOOK_LEVELS) -> bytes:
    """Return the rows of ``orderbook.csv`` for states of one symbol's book; missing levels are empty fields.

    Args:
        levels: how many of each side a row has.

    Raises:
        MalformedRow: a level's text would break the line.
    """
    side = _three if levels == BOOK_LEVELS else partial(_side, levels=levels)
    lines = [
        f"{top.timestamp_us},{side(top.bids)},{side(top.asks)},{top.update_id},{seq},{top.received_us}\n"
        for seq, top in enumerate(tops, first_seq)
    ]
    return _checked("".join(lines), len(lines), 4 * levels + 3)


def format_gap(entry: Entry, seq: int) -> bytes:
    """Return a row of ``gaps.csv``; commas, quotes and line ends of ``detail`` are replaced."""
    fields = (
        entry.detected_us, entry.gap_id, plain(entry.symbol), entry.stream, entry.cause, _or_empty(entry.from_us),
        _or_empty(entry.to_us), _or_empty(entry.from_id), _or_empty(entry.to_id), _or_empty(entry.expected_rows),
        entry.repaired_rows, entry.state, plain(entry.repaired_from), plain(entry.detail), entry.revision, seq,
    )  # fmt: skip
    return (",".join(map(str, fields)) + "\n").encode()


def plain(text: str) -> str:
    """Return text that can stand in a CSV field as it is."""
    return text.translate(_TEXT)


def digits_of(value: Decimal) -> str:
    """Return all digits of a decimal, never in scientific notation."""
    digits = str(value)
    return format(value, "f") if "E" in digits else digits


def _three(levels: Sequence[Level]) -> str:
    if len(levels) == 3:  # the common case, without a loop
        (p1, q1), (p2, q2), (p3, q3) = levels
        return f"{p1},{q1},{p2},{q2},{p3},{q3}"
    return _side(levels, BOOK_LEVELS)


def _side(shown: Sequence[Level], levels: int) -> str:
    shown = shown[:levels]
    text = ",".join([",".join(level) for level in shown])
    missing = levels - len(shown)
    return text + "," * (2 * missing - (not shown)) if missing else text


def _checked(text: str, rows: int, commas: int) -> bytes:
    """Encode lines after three counts that no well-formed batch fails: they cost nothing beside making the lines."""
    if text.count("\n") != rows or text.count(",") != rows * commas or any(sign in text for sign in _FORBIDDEN):
        raise MalformedRow("a value would break its line")
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise MalformedRow("a value is no text") from error


def _or_empty(value: int | None) -> int | str:
    return "" if value is None else value
