"""Our closed candles against the exchange's."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from collector.candles.aggregator import Candle
from collector.candles.compare import FieldDifference, KlineCheck, compare
from collector.events import Kline

OURS = Candle(
    60_000_000, "1m", "1.0", "3", "0.5", "2", "10.00", "25.5", 7, "4", "100", "106", True, "full", "ws"
)  # fmt: skip
THEIRS = Kline("A", "1m", 60_000_000, "1.00000000", "3.0", "0.50", "2", "10", "25.50", 7, "4.0", True, 120_000_000, 0)


def ours(**changes: Any) -> Candle:
    return msgspec.structs.replace(OURS, **changes)


def theirs(**changes: Any) -> Kline:
    return msgspec.structs.replace(THEIRS, **changes)


def test_equal_numbers_are_equal_whatever_their_zeros() -> None:
    """1.0 is 1.00000000."""
    assert compare(OURS, THEIRS).verdict == "equal"


@pytest.mark.parametrize("field", ["open", "high", "low", "close", "volume", "quote_volume", "taker_buy_volume"])
def test_a_field_that_differs_is_named_with_both_values(field: str) -> None:
    """Nobody has to look for it."""
    result = compare(OURS, theirs(**{field: "9.9"}))
    assert result.verdict == "differs"
    assert result.differences == (FieldDifference(field, getattr(OURS, field), "9.9"),)


def test_counts_are_compared_unless_aggregation_hides_them() -> None:
    """Where aggregated trades do not say how many they stand for, the count says nothing."""
    assert compare(OURS, theirs(trades_count=8)).verdict == "differs"
    assert compare(OURS, theirs(trades_count=8), counts_raw=False).verdict == "equal"


@pytest.mark.parametrize("candle", [ours(coverage="gap"), ours(coverage="partial"), ours(is_closed=False)])
def test_a_candle_that_lacks_something_proves_nothing(candle: Candle) -> None:
    """It is not the exchange's fault, nor ours, that they differ."""
    assert compare(candle, theirs(volume="11")).verdict == "unknown"


def test_an_open_candle_of_the_exchange_proves_nothing() -> None:
    """It will still change."""
    assert compare(OURS, theirs(closed=False)).verdict == "unknown"


def test_what_the_exchange_does_not_publish_is_not_compared() -> None:
    """The rest is."""
    unpublished = {"quote_volume": None, "trades_count": None, "taker_buy_volume": None}
    assert compare(OURS, theirs(**unpublished)).verdict == "equal"
    assert compare(OURS, theirs(**unpublished, close="2.5")).verdict == "differs"


def test_no_candle_agrees_with_no_trades() -> None:
    """A quiet minute has a kline at the exchange and no row here."""
    assert compare(None, theirs(trades_count=0)).verdict == "equal"
    assert compare(None, THEIRS).verdict == "unknown"


def test_they_meet_whichever_comes_first() -> None:
    """The kline before our candle, our candle before the kline."""
    check = KlineCheck()
    assert check.add_kline(THEIRS) is None
    assert [result.verdict for result in check.add_candles([OURS])] == ["equal"]
    check = KlineCheck()
    assert check.add_candles([OURS]) == []
    result = check.add_kline(THEIRS)
    assert result is not None
    assert result.verdict == "equal"


def test_a_revision_is_compared_again() -> None:
    """A late trade that mends a candle mends the verdict."""
    check = KlineCheck()
    check.add_candles([ours(volume="9")])
    first = check.add_kline(THEIRS)
    assert first is not None
    assert first.verdict == "differs"
    assert [result.verdict for result in check.add_candles([ours(revision=1)])] == ["equal"]


def test_open_klines_are_passed_over() -> None:
    """An exchange pushes them twice a second."""
    check = KlineCheck()
    assert check.add_kline(theirs(closed=False)) is None
    assert check.add_candles([OURS]) == []


def test_what_waits_is_bounded() -> None:
    """An exchange that never sends its candles costs no memory."""
    check = KlineCheck(keep=3)
    check.add_candles([ours(timestamp_us=n) for n in range(100)])
    assert check.add_kline(theirs(start_us=5)) is None
    assert check.add_kline(theirs(start_us=99)) is not None
