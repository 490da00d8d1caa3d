"""What dialects share in reading words: plain numbers, times as text, answers that are none, full connections."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from itertools import chain
from typing import Annotated, TypeVar

import msgspec

from collector.errors import MessageError, UnknownName
from collector.events import Level
from collector.exchanges.base import Subscription

Natural = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]
"""An id or a time: it fits a LONG column."""

Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=2**63 // 1000 - 1)]
"""A time in milliseconds that fits a LONG column in microseconds."""

UNREADABLE = (msgspec.MsgspecError, UnicodeError, RecursionError)
"""What decoding of arbitrary bytes or text can raise."""

MINUTE_US = 60_000_000

T = TypeVar("T")

_LARGEST = 2**63 - 1
_DIGITS = b"0123456789"
_POINTS_AS_COMMAS = bytes.maketrans(b".", b",")
_SIGNS = (b".", b",")
_DECIMAL = re.compile(r"[0-9]+(?:\.[0-9]+)?").fullmatch
_SIGNED = re.compile(r"-?[0-9]+(?:\.[0-9]+)?").fullmatch
_PRICE_AND_SIZE = re.compile(r"[0-9]+(?:\.[0-9]+)? [0-9]+(?:\.[0-9]+)?").fullmatch
_NATURAL = re.compile(r"[0-9]{1,19}").fullmatch


def require_decimals(*texts: str) -> None:
    """Raise MessageError where a price or a size is not plain decimal digits: they go into CSV as they are."""
    for text in texts:
        if not _DECIMAL(text):
            raise MessageError(f"{text[:40]!r} is not a decimal number.")


def require_signed(*texts: str) -> None:
    """Raise MessageError where a rate or another number that may be negative is not plain decimal digits."""
    for text in texts:
        if not _SIGNED(text):
            raise MessageError(f"{text[:40]!r} is not a decimal number.")


def require_price_and_size(price: str, size: str) -> None:
    """Raise MessageError unless both are plain decimal digits; for trades, at half the cost of looking at each."""
    if not _PRICE_AND_SIZE(f"{price} {size}"):
        require_decimals(price, size)
        raise MessageError(f"{price[:40]!r} or {size[:40]!r} is not a decimal number.")


def require_levels(bids: Sequence[Level], asks: Sequence[Level]) -> None:
    """Raise MessageError unless all prices and sizes of both sides are plain decimal digits."""
    count = 2 * (len(bids) + len(asks))
    if count and not _are_plain(chain.from_iterable(chain(bids, asks)), count):
        require_decimals(*chain.from_iterable(chain(bids, asks)))


def require_all_decimals(texts: Sequence[str]) -> None:
    """Raise MessageError unless all of many texts are plain decimal digits."""
    if texts and not _are_plain(texts, len(texts)):
        require_decimals(*texts)


def _are_plain(texts: Iterable[str], count: int) -> bool:
    """Tell whether many texts are plain decimal digits; a doubt is a no.

    Joined by commas and without their digits, sound ones are nothing but commas and single points, and with their
    digits no two of these are neighbours; that is told in a third of the time of looking at each number.
    """
    joined = ",".join(texts).encode(errors="replace")
    shape = joined.translate(None, _DIGITS)
    return not (
        shape.translate(None, b".") != b"," * (count - 1)
        or b".." in shape
        or b",," in joined.translate(_POINTS_AS_COMMAS)
        or joined.startswith(_SIGNS)
        or joined.endswith(_SIGNS)
    )


def best(levels: Sequence[Level]) -> tuple[str | None, str | None]:
    """Return the first level's price and size; None for both where there is none, or where its size is zero."""
    if not levels or not levels[0][1].strip("0."):
        return None, None
    return levels[0]


def volume(text: str) -> Decimal:
    """Return a sum of money as text as a number, 0 for an empty text; raise MessageError where it is none."""
    try:
        number = Decimal(text or 0)
    except InvalidOperation as error:
        raise MessageError(f"{text[:40]!r} is not a volume.") from error
    if not number.is_finite():
        raise MessageError(f"{text[:40]!r} is not a volume.")
    return number


def natural(text: str) -> int:
    """Return the number that digits as text are; raise MessageError where it is none that fits a LONG."""
    number = int(text) if _NATURAL(text) else _LARGEST + 1
    if number > _LARGEST:
        raise MessageError(f"{text[:40]!r} is not a natural number.")
    return number


def trade_id(text: str) -> int | str:
    """Return an id as a number where it is one, else as the text that it is; raise MessageError where that is none."""
    if _NATURAL(text) and (number := int(text)) <= _LARGEST and str(number) == text:
        return number
    if not text or not text.isascii() or not text.isprintable() or len(text) > 100 or "," in text or '"' in text:
        raise MessageError(f"{text[:40]!r} is not the id of a trade.")
    return text


def iso_us(time: datetime) -> int:
    """Return a decoded ISO time, UTC where it names no zone, in microseconds.

    It is 0 for one before 1970: some exchanges write the year 1 for none.
    """
    if time.tzinfo is None:
        time = time.replace(tzinfo=UTC)
    # A float has a resolution of a quarter of a microsecond until 2106, so rounding is exact.
    return max(0, round(time.timestamp() * 1e6))


def milliseconds_us(text: str) -> int:
    """Return milliseconds as text, with or without a fraction, in microseconds; raise MessageError for other text."""
    whole, _, fraction = text.partition(".")
    digits = whole + fraction
    if not (whole and len(whole) <= 16 and digits.isascii() and digits.isdecimal()):
        raise MessageError(f"{text[:40]!r} is not a time in milliseconds.")
    return int(f"{whole}{fraction}000"[: len(whole) + 3])


def read_answer(decoder: msgspec.json.Decoder[T], body: bytes, what: str, refusal: Callable[[bytes], str]) -> T:
    """Decode an answer of REST; raise MessageError with the exchange's own words where it is an error.

    Args:
        what: what was asked for, for a person.
        refusal: reads the exchange's words from the body of an error; what it cannot read is left to the decoder's.
    """
    try:
        return decoder.decode(body)
    except UNREADABLE as error:
        try:
            reason = refusal(body)
        except UNREADABLE:
            reason = ""
        raise MessageError(
            f"The answer to the request for {what} cannot be read: {reason or str(error).rstrip('.')}."
        ) from error


def document(frame: bytes | str) -> object:
    """Decode a frame that no type fits; raise MessageError where it is not JSON at all."""
    try:
        return msgspec.json.decode(frame)
    except UNREADABLE as error:
        raise MessageError(f"A frame is not JSON: {error}.") from error


def require_stream(stream: str, known: Sequence[str]) -> None:
    """Raise UnknownName where an exchange has no such data type, with the nearest that it has."""
    if stream not in known:
        raise UnknownName("data type", stream, list(known))


def pack(subscriptions: Iterable[Subscription], size: int) -> Iterator[list[Subscription]]:
    """Fill connections of ``size`` subscriptions one after the other; a symbol's streams stay together."""
    by_symbol: dict[str, list[Subscription]] = {}
    for subscription in subscriptions:
        by_symbol.setdefault(subscription.symbol, []).append(subscription)
    packed: list[Subscription] = []
    for group in by_symbol.values():
        if packed and len(packed) + len(group) > size:
            yield packed
            packed = []
        packed.extend(group)
    if packed:
        yield packed


def chunks(items: Sequence[T], size: int) -> list[Sequence[T]]:
    """Cut a sequence into parts of up to ``size``."""
    return [items[start : start + size] for start in range(0, len(items), size)]


def symbols_once(rows: Iterable[tuple[str, str]]) -> list[str]:
    """Return a symbol for each ``(plain symbol, native spelling)``: the first keeps it plain, others add the native."""
    taken: set[str] = set()
    symbols = []
    for plain, native in rows:
        symbols.append(f"{plain}-{native}" if plain in taken else plain)
        taken.add(plain)
    return symbols
