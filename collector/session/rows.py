"""Events as lines of CSV: pure, and as fast as text can be made, because every row passes here.

A line never holds a quote or a comma inside a field, so that every reader may split at commas. Prices and sizes are the
exchange's own digits. ``quote_volume`` is the exact product, never rounded, never in scientific notation.
"""

from __future__ import annotations

import decimal
from collections.abc import Callable, Sequence
from decimal import Decimal
from functools import partial
from typing import Any, TypeVar

from msgspec.structs import astuple

from collector.events import BookTop, Funding, Kline, Level, Liquidation, OpenInterest, PastCandle, Ticker, Trade
from collector.session.gaps import Entry
from collector.streams import (
    BOOK_LEVELS,
    CANDLES_1M,
    FUNDING,
    KLINES,
    LIQUIDATIONS,
    MARKET_DATA,
    OPEN_INTEREST,
    ORDERBOOK,
    PRICES,
    TICKERS,
    Stream,
)

EXACT = decimal.Context(
    prec=2_000,
    Emax=999,
    Emin=-999,
    traps=[decimal.Inexact, decimal.InvalidOperation, decimal.Overflow, decimal.Underflow, decimal.FloatOperation],
)
"""Arithmetic that raises instead of rounding: no product of two prices in a message comes near these bounds."""

_Event = TypeVar("_Event")

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


def split_malformed(
    events: Sequence[_Event], format_rows: Callable[[Sequence[_Event], int], object]
) -> tuple[list[_Event], list[_Event]]:
    """Return the events that can be rows, and those that cannot; the slow way, for a batch that was refused."""
    good: list[_Event] = []
    malformed: list[_Event] = []
    for event in events:
        try:
            format_rows((event,), 1)
        except MalformedRow:
            malformed.append(event)
        else:
            good.append(event)
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


def format_funding(events: Sequence[Funding], first_seq: int) -> bytes:
    """Return the rows of ``funding.csv``; what the exchange did not say is an empty field.

    Raises:
        MalformedRow: a value would break its line, as for every format.
    """
    return _lines(
        FUNDING,
        [
            f"{e.timestamp_us},{e.funding_rate or ''},{_or_empty(e.next_funding_us)},{e.mark_price or ''},"
            f"{e.index_price or ''},{seq},{e.received_us},{e.source}\n"
            for seq, e in enumerate(events, first_seq)
        ],
    )


def format_open_interest(events: Sequence[OpenInterest], first_seq: int) -> bytes:
    """Return the rows of ``open_interest.csv``."""
    return _lines(
        OPEN_INTEREST,
        [
            f"{e.timestamp_us},{e.amount},{e.value or ''},{seq},{e.received_us},{e.source}\n"
            for seq, e in enumerate(events, first_seq)
        ],
    )


def format_liquidations(events: Sequence[Liquidation], first_seq: int) -> bytes:
    """Return the rows of ``liquidations.csv``."""
    return _lines(
        LIQUIDATIONS,
        [
            f"{e.timestamp_us},{e.price},{e.volume},{e.side},{seq},{e.received_us},{e.source}\n"
            for seq, e in enumerate(events, first_seq)
        ],
    )


def format_tickers(events: Sequence[Ticker], first_seq: int) -> bytes:
    """Return the rows of ``tickers.csv``; an empty side is empty fields."""
    return _lines(
        TICKERS,
        [
            f"{e.timestamp_us},{e.bid or ''},{e.bid_qty or ''},{e.ask or ''},{e.ask_qty or ''},"
            f"{_or_empty(e.update_id)},{seq},{e.received_us},{e.source}\n"
            for seq, e in enumerate(events, first_seq)
        ],
    )


def format_klines(events: Sequence[Kline], first_seq: int) -> bytes:
    """Return the rows of ``klines.csv``: the time is the start of the candle."""
    return _lines(
        KLINES,
        [
            f"{e.start_us},{e.interval},{e.open},{e.high},{e.low},{e.close},{e.volume},{e.quote_volume or ''},"
            f"{_or_empty(e.trades_count)},{e.taker_buy_volume or ''},{'true' if e.closed else 'false'},{seq},"
            f"{e.received_us}\n"
            for seq, e in enumerate(events, first_seq)
        ],
    )


def format_past_candles(events: Sequence[PastCandle], first_seq: int) -> bytes:
    """Return the rows of ``market_data.csv`` and of ``candles_1m.csv``: the time is the start of the candle."""
    return _lines(
        MARKET_DATA,
        [
            f"{e.timestamp_us},{e.asset_type},{e.timeframe},{e.open},{e.high},{e.low},{e.close},{e.volume or ''},"
            f"{e.quote_volume or ''},{_or_empty(e.trades_count)},{e.taker_buy_volume or ''},"
            f"{e.taker_buy_quote_volume or ''},{e.source},{e.received_us},{seq}\n"
            for seq, e in enumerate(events, first_seq)
        ],
    )


FORMATS: dict[str, Callable[[Sequence[Any], int], bytes]] = {
    ORDERBOOK.name: format_books,
    FUNDING.name: format_funding,
    OPEN_INTEREST.name: format_open_interest,
    LIQUIDATIONS.name: format_liquidations,
    TICKERS.name: format_tickers,
    KLINES.name: format_klines,
    MARKET_DATA.name: format_past_candles,
    CANDLES_1M.name: format_past_candles,
}
"""How the rows of each data type are made, but for trades, whose quote volumes are made with them."""


def format_of(stream: Stream) -> Callable[[Sequence[Any], int], bytes]:
    """Return what makes a stream's rows; those of a book have as many levels as the stream says."""
    if stream.name == ORDERBOOK.name and stream.levels != BOOK_LEVELS:
        return partial(format_books, levels=stream.levels)
    return FORMATS[stream.name]


_NUMBERED = frozenset({ORDERBOOK.name, TICKERS.name})


def identify(stream: str, event: Any) -> tuple[int, int | str]:
    """Return the time of an event's row and the exchange's number of it, "" where it has none."""
    if stream == KLINES.name:
        return event.start_us, ""
    if stream in _NUMBERED:
        return event.timestamp_us, "" if event.update_id is None else event.update_id
    return event.timestamp_us, ""


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


def _lines(stream: Stream, lines: list[str]) -> bytes:
    return _checked("".join(lines), len(lines), len(stream.columns) - 1)


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
