"""Events become lines that any reader can split at commas, with every digit kept."""

from __future__ import annotations

from decimal import Decimal
from fractions import Fraction

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.events import BookTop, Funding, Kline, Liquidation, OpenInterest, Ticker, Trade
from collector.session.gaps import Entry
from collector.session.rows import (
    FORMATS,
    MalformedRow,
    digits_of,
    format_books,
    format_gap,
    format_trades,
    identify,
    plain,
    split_malformed,
)
from collector.streams import DATA_TYPES, GAPS, HISTORY_TYPES, ORDERBOOK, PRICES, STREAMS

NUMBERS = st.decimals(min_value=0, max_value=10**12, allow_nan=False, allow_infinity=False, places=12).map(str)


def trade(**changes: object) -> Trade:
    fields: dict[str, object] = {
        "symbol": "BTC_USDT",
        "timestamp_us": 1_700_000_000_000_000,
        "price": "60000.10",
        "volume": "0.00100",
        "side": "buy",
        "trade_id": 7,
        "received_us": 1_700_000_000_000_100,
    }
    return Trade(**{**fields, **changes})  # type: ignore[arg-type]


def top(bids: int, asks: int) -> BookTop:
    return BookTop(
        "BTC_USDT",
        1_700_000_000_000_000,
        [(f"{100 - n}.0", f"{n}.5") for n in range(bids)],
        [(f"{101 + n}.0", f"{n}.5") for n in range(asks)],
        42,
        1_700_000_000_000_100,
    )


def test_a_trade_is_a_line_with_the_columns_of_prices() -> None:
    """The exact product keeps its trailing zeros; raw ids are empty where the trade is one of its own."""
    content, quotes = format_trades([trade()], 5)
    assert content == b"1700000000000000,60000.10,0.00100,60.0001000,buy,7,5,1700000000000100,ws,,\n"
    assert quotes == [Decimal("60.0001000")]


def test_an_aggregated_trade_names_the_trades_that_it_stands_for() -> None:
    """Numbers count up with the rows."""
    content, _ = format_trades([trade(first_raw_id=1, last_raw_id=3, source="rest"), trade(side="sell")], 5)
    rows = [line.split(",") for line in content.decode().splitlines()]
    assert [row[PRICES.seq_index] for row in rows] == ["5", "6"]
    assert (rows[0][8:], rows[1][4], rows[1][8:]) == (["rest", "1", "3"], "sell", ["ws", "", ""])


def test_small_numbers_are_never_written_with_an_exponent() -> None:
    """The exchange's own digits stay as they were; the product has all of its own."""
    content, _ = format_trades([trade(price="0.00000001", volume="0.00000001")], 1)
    assert content.decode().split(",")[3] == "0.0000000000000001"
    content, _ = format_trades([trade(price="1E+2", volume="1E+3")], 1)
    assert content.decode().split(",")[1:4] == ["1E+2", "1E+3", "100000"]


@given(NUMBERS, NUMBERS)
def test_the_product_is_exact(price: str, volume: str) -> None:
    """For any digits that an exchange could send."""
    content, (quote,) = format_trades([trade(price=price, volume=volume)], 1)
    digits = content.decode().split(",")[3]
    assert "E" not in digits
    assert Fraction(digits) == Fraction(quote) == Fraction(price) * Fraction(volume)


@pytest.mark.parametrize(
    "changes",
    [
        {"price": "abc"},
        {"price": ""},
        {"price": "NaN"},
        {"price": "Infinity"},
        {"price": "1e400", "volume": "1e700"},
        {"price": "1" * 1500, "volume": "9" * 1500},
        {"trade_id": "1,2"},
        {"trade_id": 'a"b'},
        {"trade_id": "a\nb"},
        {"trade_id": "a\0b"},
        {"trade_id": "\ud800"},
    ],
)
def test_a_trade_that_cannot_be_a_line_is_refused_alone(changes: dict[str, object]) -> None:
    """The batch is refused, and then told apart."""
    good = trade()
    bad = trade(**changes)
    with pytest.raises(MalformedRow):
        format_trades([good, bad], 1)
    assert split_malformed([good, bad, good], format_trades) == ([good, good], [bad])


@given(st.text(max_size=30))
def test_any_text_as_a_trade_id_is_one_field_or_refused(text: str) -> None:
    """A line never breaks, and never gets a field more."""
    try:
        content, _ = format_trades([trade(trade_id=text)], 1)
    except MalformedRow:
        return
    assert content.count(b"\n") == 1
    assert content.decode().rstrip("\n").split(",")[5] == text.rstrip("\n")


@pytest.mark.parametrize("bids", range(5))
@pytest.mark.parametrize("asks", range(5))
def test_a_book_row_always_has_all_columns(bids: int, asks: int) -> None:
    """Missing levels are empty, further ones are left out."""
    row = format_books([top(bids, asks)], 9).decode().rstrip("\n").split(",")
    assert len(row) == len(ORDERBOOK.columns)
    expected = [field for n in range(min(bids, 3)) for field in (f"{100 - n}.0", f"{n}.5")]
    assert row[1:7] == expected + [""] * (6 - len(expected))
    assert row[7:13][: 2 * min(asks, 3)] == [f for n in range(min(asks, 3)) for f in (f"{101 + n}.0", f"{n}.5")]
    assert row[13:] == ["42", "9", "1700000000000100"]


def test_a_level_that_would_break_its_line_is_refused() -> None:
    """Whatever the exchange sent."""
    broken = top(3, 3)
    broken.bids[0] = ("1,5", "1")
    with pytest.raises(MalformedRow):
        format_books([broken], 1)


def test_a_gap_is_a_line_without_quotes() -> None:
    """Commas and line ends of its detail are replaced, unknown bounds are empty."""
    entry = Entry(1, "g000001", "BTC_USDT", "prices", "overflow", 2, None, 3, None, 4, detail='a,b\n"c"')
    row = format_gap(entry, 8).decode()
    assert row == "1,g000001,BTC_USDT,prices,overflow,2,,3,,4,0,open,,a;b 'c',0,8\n"
    assert len(row.split(",")) == len(GAPS.columns)


@given(st.text())
def test_plain_text_never_breaks_a_line(text: str) -> None:
    """Nor does it change its length."""
    assert not set(plain(text)) & set(',"\n\r\0')
    assert len(plain(text)) == len(text)


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**20), max_value=10**20))
def test_digits_are_all_digits(value: Decimal) -> None:
    """And the same number."""
    assert "E" not in digits_of(value)
    assert Decimal(digits_of(value)) == value


MARKET = [
    (
        "funding",
        Funding("BTC_USDT", 5, "-0.0001", 7, "60000.10", "60000", 9),
        "5,-0.0001,7,60000.10,60000,1,9,ws",
        "",
    ),
    ("funding", Funding("BTC_USDT", 5, None, None, "60000.10", None, 9), "5,,,60000.10,,1,9,ws", ""),
    ("open_interest", OpenInterest("BTC_USDT", 5, "12.50", "7", 9), "5,12.50,7,1,9,ws", ""),
    ("open_interest", OpenInterest("BTC_USDT", 5, "12.50", None, 9, "rest"), "5,12.50,,1,9,rest", ""),
    ("liquidations", Liquidation("BTC_USDT", 5, "1.5", "2", "sell", 9), "5,1.5,2,sell,1,9,ws", ""),
    ("tickers", Ticker("BTC_USDT", 5, "1.5", "2", None, None, 44, 9), "5,1.5,2,,,44,1,9,ws", 44),
    ("tickers", Ticker("BTC_USDT", 5, "1.5", "2", "3", "4", None, 9), "5,1.5,2,3,4,,1,9,ws", ""),
    (
        "klines",
        Kline("BTC_USDT", "1m", 5, "1", "3", "0.5", "2", "9", "18", 4, "5", True, 8, 9),
        "5,1m,1,3,0.5,2,9,18,4,5,true,1,9",
        "",
    ),
    (
        "klines",
        Kline("BTC_USDT", "1m", 5, "1", "3", "0.5", "2", "9", None, None, None, False, 8, 9),
        "5,1m,1,3,0.5,2,9,,,,false,1,9",
        "",
    ),
]


@pytest.mark.parametrize(("stream", "event", "line", "number"), MARKET)
def test_other_data_types_are_lines_with_the_columns_of_their_streams(
    stream: str, event: object, line: str, number: int | str
) -> None:
    """Digits stay as they are, and what the exchange did not say is an empty field."""
    assert FORMATS[stream]([event], 1) == f"{line}\n".encode()
    assert line.count(",") == STREAMS[stream].header.count(",")
    assert identify(stream, event) == (5, number)
    twice = FORMATS[stream]([event, event], 1).decode().splitlines()
    position = STREAMS[stream].seq_index
    assert [row.split(",")[position] for row in twice] == ["1", "2"]


@pytest.mark.parametrize(("stream", "event", "line", "number"), MARKET)
def test_a_value_that_would_break_its_line_is_refused(stream: str, event: object, line: str, number: int | str) -> None:
    """Whatever a parser let through, a file holds whole lines."""
    texts = [name for name in event.__struct_fields__ if isinstance(getattr(event, name), str) and name != "symbol"]  # type: ignore[attr-defined]
    assert texts
    for name in texts:
        for broken in ("1,5", "1\n5", '"1"', "\ud800"):
            changed = msgspec.structs.replace(event, **{name: broken})  # type: ignore[type-var]
            with pytest.raises(MalformedRow):
                FORMATS[stream]([event, changed], 1)
            assert split_malformed([event, changed], FORMATS[stream]) == ([event], [changed])


def test_every_data_type_has_a_format() -> None:
    """A stream is one entry of the registry and one format."""
    assert {*FORMATS, PRICES.name} == {*DATA_TYPES, *HISTORY_TYPES}
