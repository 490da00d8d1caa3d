"""What a source of historical candles is to the rest of the project: one pure object, words in and candles out.

Nothing here awaits, reads a clock or opens anything: whoever does I/O asks a walk what to send, and feeds it what came.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal
from typing import Any, ClassVar, Literal

import msgspec

from collector.errors import MessageError, SourceRefused, UnknownName
from collector.exchanges.base import Listing, Request
from collector.exchanges.candle_sources.intervals import INTERVALS_US, bucket_start
from collector.exchanges.decode import UNREADABLE, require_all_decimals

SECOND_US = 1_000_000
_LARGEST_US = 2**63 - 1
_EXCERPT_CHARS = 300

UNREADABLE_FIELDS = (LookupError, TypeError, ValueError, AttributeError, ArithmeticError)
"""What reading fields of an arbitrary document can raise."""

_decode = msgspec.json.Decoder(float_hook=str).decode


class HistoryCandle(msgspec.Struct, gc=False):
    """A candle as a source gave it, digits as text; what it does not publish is None.

    ``start_us`` is the start of its bucket, in microseconds since the epoch; ``volume`` is in base currency,
    ``quote_volume`` in quote currency; ``closed`` says that it is final.
    """

    start_us: int
    open: str
    high: str
    low: str
    close: str
    volume: str | None = None
    quote_volume: str | None = None
    trades_count: int | None = None
    taker_buy_volume: str | None = None
    taker_buy_quote_volume: str | None = None
    closed: bool = True


class CandlePage(msgspec.Struct):
    """One answer: its candles ascending, each once.

    Args:
        oldest_us: the start of the oldest candle that the source can give at all, where the answer tells; None else.
    """

    candles: Sequence[HistoryCandle]
    oldest_us: int | None = None


class Unreachable(msgspec.Struct, frozen=True):
    """A part of what was asked for that a source cannot give: bucket starts in ``[from_us, to_us)``, and why."""

    from_us: int
    to_us: int
    reason: str


class SourceLimits(msgspec.Struct, frozen=True):
    """What a source allows one address.

    Args:
        weight: the sum of request weights in each ``per_s`` seconds.
        pace_s: the least time from one request to the next, in seconds; 0 where the budget alone counts.
        used_header: the answer's header that says how much of the minute's weight has been used; empty for none.
    """

    weight: int
    per_s: float
    pace_s: float = 0.0
    used_header: str = ""


class HistorySource(ABC):
    """One source of anything historical: where it is, what it allows, how it spells symbols and words its errors.

    Args:
        listings: the instruments by which symbols become the source's own spelling; without one, a rule does.
    """

    name: ClassVar[str]
    """What stands in the rows' ``source``."""
    kind: ClassVar[Literal["exchange", "aggregator"]] = "exchange"
    """Whether its figures are one exchange's own, or worked out over many."""
    rest_url: ClassVar[str]
    limits: ClassVar[SourceLimits]
    newest_first: ClassVar[bool] = False
    """Whether a span of more than a page is answered with its newest rows (otherwise with its oldest)."""
    codes: ClassVar[Mapping[str, str]] = {}
    """The source's error codes, each with the reason that it stands for (see SourceRefused)."""

    def __init__(self, listings: Sequence[Listing] = ()) -> None:
        self._native_of = {listing.symbol: listing.native for listing in listings}

    def native(self, symbol: str) -> str:
        """Return the source's own spelling of ``BASE_QUOTE``; raise UnknownName where it cannot have one."""
        return self._native_of.get(symbol) or self.native_by_rule(symbol)

    @abstractmethod
    def native_by_rule(self, symbol: str) -> str:
        """Spell a symbol that no listing names."""

    def refusal_in(self, document: Any) -> tuple[str, str] | None:  # noqa: ARG002  for sources that override it
        """Return the code and the words of an answer that is an error; None where it is none."""
        return None

    def refusal(
        self, status: int, body: bytes, retry_after_s: float | None = None, *, words: str = ""
    ) -> SourceRefused:
        """Return the error that an answer with a status other than 2xx is, told apart by status and code.

        Args:
            words: what to say where the answer has none.
        """
        try:
            refused = self._refused(self._json(body, status), status)
        except SourceRefused as error:
            refused = error
        except MessageError:
            refused = None
        if refused is None:
            excerpt = body[:_EXCERPT_CHARS].decode("utf-8", "replace")
            refused = self._as_error(status, "", excerpt or words or f"HTTP status {status}")
        refused.retry_after_s = retry_after_s
        return refused

    def document(self, body: bytes) -> Any:
        """Decode an answer; numbers with a fraction come as text, as they were written.

        Raises:
            SourceRefused: it is an error in the source's own words, or a page of HTML.
            MessageError: it is not JSON.
        """
        document = self._json(body, 200)
        if (refused := self._refused(document, 200)) is not None:
            raise refused
        return document

    def _json(self, body: bytes, status: int) -> Any:
        try:
            return _decode(body)
        except UNREADABLE as error:
            if body.lstrip()[:1] == b"<":
                raise SourceRefused(
                    f"{self.name} answered with a page of HTML instead of JSON (HTTP status {status}).",
                    reason="rate_limit" if status in (418, 429) else "outage",
                    status=status,
                ) from error
            raise MessageError(f"An answer of {self.name} is not JSON: {error}.") from error

    def _refused(self, document: Any, status: int) -> SourceRefused | None:
        try:
            told = self.refusal_in(document)
        except UNREADABLE_FIELDS:
            told = None  # whatever it is, it is no error as the source words them
        return None if told is None else self._as_error(status, *told)

    def _as_error(self, status: int, code: str, words: str) -> SourceRefused:
        reason = self.codes.get(code, "")
        if status in (418, 429):
            reason = "rate_limit"
        elif not reason:
            reason = "outage" if status >= 500 else "unknown_symbol" if status == 404 else "refused"
        named = f" (code {code})" if code else ""
        return SourceRefused(
            f"{self.name} refused: {words[:_EXCERPT_CHARS].rstrip('.')}{named}.", reason=reason, status=status
        )


class CandleSource(HistorySource):
    """One source of candles."""

    intervals: ClassVar[Mapping[str, str]]
    """The intervals that it has, each with the source's own word for it; others are folded from these."""

    @abstractmethod
    def page_size(self, interval: str) -> int:
        """Return how many candles one answer can hold."""

    def page_at(self, interval: str, from_us: int, now_us: int) -> int:  # noqa: ARG002  for sources that override it
        """Return how many candles an answer can hold whose first one starts at a time."""
        return self.page_size(interval)

    @abstractmethod
    def request(self, symbol: str, interval: str, from_us: int, to_us: int, *, now_us: int) -> Request:
        """Return the request for the candles that start in ``[from_us, to_us)``: whole buckets, a page at most.

        Args:
            interval: one of ``intervals``.
            now_us: the present, for sources that have different interfaces for old and new candles.
        """

    @abstractmethod
    def read(self, document: Any, interval: str, request: Request) -> Iterable[HistoryCandle]:
        """Turn a decoded answer into candles in any order; where a field is missing, let Python's own error out."""

    def reach_us(self, interval: str, now_us: int) -> int | None:  # noqa: ARG002  most go back to the beginning
        """Return the earliest bucket start that can be had now; None where there is no such limit."""
        return None

    @property
    def reach_reason(self) -> str:
        """Say why older candles cannot be had."""
        return f"{self.name} does not give candles that are older."

    def oldest_in(self, document: Any, candles: Sequence[HistoryCandle]) -> int | None:  # noqa: ARG002
        """Return the oldest start that the source can give, where an answer tells; None else."""
        return None

    def parse(self, body: bytes, interval: str, request: Request) -> CandlePage:
        """Read the answer to a request.

        Raises:
            SourceRefused: it is an error in the source's own words, or a page of HTML.
            MessageError: it is no answer that the source's documentation allows.
        """
        document = self.document(body)
        try:
            candles = {candle.start_us: candle for candle in self.read(document, interval, request)}
            ordered = [candles[start] for start in sorted(candles)]
            oldest_us = self.oldest_in(document, ordered)
        except UNREADABLE_FIELDS as error:
            reason = f"{type(error).__name__}: {error}"[:200]
            raise MessageError(f"An answer of {self.name} with candles cannot be read: {reason}.") from error
        _require_sound(ordered, interval, self.name)
        return CandlePage(ordered, oldest_us)


def split(symbol: str) -> tuple[str, str]:
    """Return base and quote of ``BASE_QUOTE``; raise UnknownName where it is not written so."""
    base, _, quote = symbol.partition("_")
    if not base or not quote:
        raise UnknownName("symbol", symbol, [], hint="Write symbols as BASE_QUOTE, for example BTC_USDT.")
    return base, quote


def text(value: object) -> str:
    """Return a number of a decoded answer as plain decimal digits; raise TypeError or ValueError for anything else.

    A number may come as JSON's number or as text; an exponent is written out, without changing the value.
    """
    if type(value) is not str and type(value) is not int:
        raise TypeError(f"{str(value)[:40]!r} is not a number")
    digits = str(value)
    if "e" in digits or "E" in digits:
        number = Decimal(digits)
        if not number.is_finite() or abs(number.adjusted()) > 40:
            raise ValueError(f"{digits[:40]!r} is not a number")
        digits = format(number, "f")
    return digits


def time_us(value: object, unit_us: int) -> int:
    """Return a time of an answer, in units of so many microseconds, as microseconds.

    Raises:
        TypeError, ValueError: it is none.
    """
    if type(value) is not str and type(value) is not int:
        raise TypeError(f"{str(value)[:40]!r} is not a time")
    number = int(value) * unit_us
    if not 0 <= number <= _LARGEST_US:
        raise ValueError(f"{str(value)[:40]!r} is not a time")
    return number


def _require_sound(candles: Sequence[HistoryCandle], interval: str, source: str) -> None:
    """Raise MessageError where a candle's numbers are none, or its bucket does not start where buckets do."""
    digits: list[str] = []
    for candle in candles:
        if candle.start_us != bucket_start(candle.start_us, interval):
            raise MessageError(f"A {interval} candle of {source} starts at {candle.start_us} µs, where no bucket does.")
        digits += (candle.open, candle.high, candle.low, candle.close)
        sums = candle.volume, candle.quote_volume, candle.taker_buy_volume, candle.taker_buy_quote_volume
        digits += [one for one in sums if one is not None]
    require_all_decimals(digits)


def length_us(interval: str) -> int:
    """Return an interval's length in microseconds; raise UnknownName where there is no such interval."""
    if interval not in INTERVALS_US:
        raise UnknownName("interval", interval, list(INTERVALS_US))
    return INTERVALS_US[interval]
