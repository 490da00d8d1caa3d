"""What dialects share: numbers are plain digits or refused, times are exact, connections are filled."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import MessageError, UnknownName
from collector.exchanges.base import Subscription
from collector.exchanges.decode import (
    chunks,
    document,
    iso_us,
    milliseconds_us,
    natural,
    pack,
    read_answer,
    require_decimals,
    require_levels,
    require_price_and_size,
    require_stream,
    symbols_once,
    trade_id,
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def plain(text: str) -> bool:
    whole, point, fraction = text.partition(".")
    return whole.isascii() and whole.isdigit() and (not point or (fraction.isascii() and fraction.isdigit()))


@given(
    st.lists(st.tuples(st.text('0123456789.,-e \\"[]٣', max_size=5), st.text("0123456789.", max_size=5)), max_size=4)
)
def test_levels_fast_and_slow(levels: list[tuple[str, str]]) -> None:
    """The look at a whole book lets nothing through that a look at each number would refuse, and refuses no more."""
    if all(plain(text) for level in levels for text in level):
        require_levels(levels, [])
        require_levels([], levels)
        return
    with pytest.raises(MessageError):
        require_levels(levels, [("1", "2")])
    with pytest.raises(MessageError):
        require_levels([], levels)


@pytest.mark.parametrize("text", ["", ".", "1.", ".1", "1e5", "-1", "+1", "NaN", "1,5", "1\n", "\u0661", " 1"])
def test_not_a_decimal(text: str) -> None:
    """What is not plain digits is refused."""
    with pytest.raises(MessageError):
        require_decimals("1.5", text)
    with pytest.raises(MessageError):
        require_price_and_size("1.5", text)
    with pytest.raises(MessageError):
        require_price_and_size(text, "1.5")


def test_decimals() -> None:
    """What is plain digits passes."""
    require_decimals("0", "1.50", "007")
    require_price_and_size("0", "1.50")


@pytest.mark.parametrize(("text", "number"), [("0", 0), ("007", 7), ("9223372036854775807", 2**63 - 1)])
def test_natural(text: str, number: int) -> None:
    """Digits are a number."""
    assert number == natural(text)


@pytest.mark.parametrize("text", ["", "-1", "1.0", "9223372036854775808", "\u0661", "1" * 5000])
def test_not_natural(text: str) -> None:
    """Anything that does not fit a LONG is refused."""
    with pytest.raises(MessageError):
        natural(text)


@pytest.mark.parametrize(
    ("text", "number"),
    [
        ("455391760226305", 455391760226305),
        ("6085c09769bc506996295e36", "6085c09769bc506996295e36"),
        ("007", "007"),
        ("99999999999999999999", "99999999999999999999"),
        ("731579883561406466X0_731579883561406467X0", "731579883561406466X0_731579883561406467X0"),
    ],
)
def test_trade_id(text: str, number: int | str) -> None:
    """An id is a number where nothing of its spelling is lost by that."""
    assert number == trade_id(text)


@pytest.mark.parametrize("text", ["", "a,b", 'a"b', "a\nb", "é", "x" * 101])
def test_not_a_trade_id(text: str) -> None:
    """What a CSV could not hold as it is, is no id."""
    with pytest.raises(MessageError):
        trade_id(text)


@given(st.integers(0, 4_102_444_800_000_000))
def test_iso_us(time_us: int) -> None:
    """Every microsecond up to the year 2100 is exact."""
    assert time_us == iso_us(EPOCH + timedelta(microseconds=time_us))


def test_no_time() -> None:
    """The year 1 is how some exchanges write no time."""
    assert iso_us(msgspec.json.decode(b'"0001-01-01T00:00:00.000000Z"', type=datetime)) == 0


def test_no_zone() -> None:
    """A time without a zone is UTC, wherever this runs."""
    assert iso_us(datetime(1970, 1, 2)) == 86_400_000_000  # noqa: DTZ001  that is the point


@pytest.mark.parametrize(
    ("text", "time_us"),
    [
        ("1682689046123.0", 1682689046123000),
        ("1619093543708.2642", 1619093543708264),
        ("1619093543708.9999", 1619093543708999),
        ("1619093543708", 1619093543708000),
        ("1.05", 1050),
    ],
)
def test_milliseconds(text: str, time_us: int) -> None:
    """A fraction is microseconds, and what is finer falls away."""
    assert time_us == milliseconds_us(text)


@pytest.mark.parametrize("text", ["", ".", ".5", "x", "-1", "1e3", "1.x", "1.234x", "\u0661", "1" * 17])
def test_no_milliseconds(text: str) -> None:
    """Other text is refused."""
    with pytest.raises(MessageError):
        milliseconds_us(text)


def test_answer() -> None:
    """An answer that is an error is refused with the exchange's own words."""
    decoder = msgspec.json.Decoder(list[int])
    assert read_answer(decoder, b"[1]", "x", lambda _: "") == [1]
    with pytest.raises(MessageError, match=r"the list.*no such pair"):
        read_answer(decoder, b"{}", "the list", lambda _: "no such pair")
    with pytest.raises(MessageError, match="Expected"):
        read_answer(decoder, b"{}", "the list", lambda body: str(msgspec.json.decode(b"")))


def test_document() -> None:
    """A frame that is no JSON is a MessageError."""
    assert document("[1]") == [1]
    for frame in (b"", b"\xff", "\ud800", b"[" * 100_000):
        with pytest.raises(MessageError):
            document(frame)


def test_streams() -> None:
    """A data type that the exchange has not is named with the nearest."""
    require_stream("prices", ("prices",))
    with pytest.raises(UnknownName, match="prices"):
        require_stream("price", ("prices",))


def test_pack() -> None:
    """A symbol's streams stay together, and a connection is no fuller than it may be."""
    wanted = [Subscription(stream, symbol) for stream in ("prices", "orderbook") for symbol in "ABC"]
    assert [[subscription.symbol for subscription in packed] for packed in pack(wanted, 4)] == [
        list("AABB"),
        list("CC"),
    ]
    assert list(pack([], 4)) == []


def test_chunks() -> None:
    """A sequence is cut into parts, the last one shorter."""
    assert chunks([1, 2, 3], 2) == [[1, 2], [3]]
    assert chunks([], 2) == []


def test_symbols_once() -> None:
    """No two instruments share a symbol."""
    assert symbols_once([("A_B", "AB1"), ("A_B", "AB2"), ("C_D", "CD")]) == ["A_B", "A_B-AB2", "C_D"]
