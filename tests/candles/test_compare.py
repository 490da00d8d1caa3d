"""Our closed candles against the exchange's."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from collector.candles.aggregator import Candle
from collector.candles.compare import DIFFERENCES_KEPT, CandleScore, FieldDifference, KlineCheck, compare
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
    check = KlineCheck(CandleScore("A"))
    assert check.add_kline(THEIRS) is None
    assert [result.verdict for result in check.add_candles([OURS])] == ["equal"]
    check = KlineCheck(CandleScore("A"))
    assert check.add_candles([OURS]) == []
    result = check.add_kline(THEIRS)
    assert result is not None
    assert result.verdict == "equal"


def test_a_revision_is_compared_again() -> None:
    """A late trade that mends a candle mends the verdict."""
    check = KlineCheck(CandleScore("A"))
    check.add_candles([ours(volume="9")])
    first = check.add_kline(THEIRS)
    assert first is not None
    assert first.verdict == "differs"
    assert [result.verdict for result in check.add_candles([ours(revision=1)])] == ["equal"]


def test_open_klines_are_passed_over() -> None:
    """An exchange pushes them twice a second."""
    check = KlineCheck(CandleScore("A"))
    assert check.add_kline(theirs(closed=False)) is None
    assert check.add_candles([OURS]) == []


def test_what_waits_is_bounded() -> None:
    """An exchange that never sends its candles costs no memory."""
    check = KlineCheck(CandleScore("A"), keep=3)
    check.add_candles([ours(timestamp_us=n) for n in range(100)])
    assert check.add_kline(theirs(start_us=5)) is None
    assert check.add_kline(theirs(start_us=99)) is not None


def minute(number: int, **changes: Any) -> Candle:
    return ours(timestamp_us=number * 60_000_000, **changes)


def kline(number: int, **changes: Any) -> Kline:
    return theirs(start_us=number * 60_000_000, **changes)


def test_the_score_counts_each_candle_once_as_its_last_revision_stands() -> None:
    """By interval, with a row for each that differs; one that a repair mends is a difference no more."""
    check = KlineCheck(CandleScore("A"))
    for number in (1, 2, 3):
        check.add_kline(kline(number))
    check.add_candles([minute(1), minute(2, volume="9"), minute(3, coverage="gap")])
    assert (check.score.compared, check.score.matching) == ({"1m": 2}, {"1m": 1})
    assert [(found.timestamp_us, found.differences) for found in check.score.differences] == [
        (120_000_000, (FieldDifference("volume", "9", "10"),))
    ]
    check.add_candles([minute(2, revision=1), minute(3, revision=1)])
    assert (check.score.compared, check.score.matching, check.score.differences) == ({"1m": 3}, {"1m": 3}, [])
    assert (check.score.total, check.score.equal) == (3, 3)


def test_all_differences_are_counted_and_the_newest_are_kept() -> None:
    """A session that goes wrong for days does not fill its manifest."""
    check = KlineCheck(CandleScore("A"))
    for number in range(DIFFERENCES_KEPT + 10):
        check.add_kline(kline(number))
        check.add_candles([minute(number, close="7")])
    assert (check.score.total, check.score.equal) == (DIFFERENCES_KEPT + 10, 0)
    assert [found.timestamp_us // 60_000_000 for found in check.score.differences] == list(range(10, 110))


def test_an_exchange_that_opens_at_the_previous_close_is_compared_by_that_rule() -> None:
    """Its open, and a high or low that is only that price, are no difference; any other open is one."""
    check = KlineCheck(CandleScore("A"), opens_at_previous_close=True)
    check.add_kline(kline(1, close="4.5"))
    assert [c.verdict for c in check.add_candles([minute(1, close="4.5")])] == ["equal"]
    check.add_kline(kline(2, open="4.5", high="4.5"))
    assert [c.verdict for c in check.add_candles([minute(2)])] == ["equal"]
    check.add_kline(kline(3, open="2.2"))
    (found,) = check.add_candles([minute(3)])
    assert found.differences == (FieldDifference("open", "1.0", "2.2"),)
    strict = KlineCheck(CandleScore("A"))
    strict.add_kline(kline(1, close="4.5"))
    strict.add_kline(kline(2, open="4.5", high="4.5"))
    strict.add_candles([minute(1, close="4.5"), minute(2)])
    assert (strict.score.total, strict.score.equal) == (2, 1)


def test_a_flat_candle_agrees_with_a_minute_in_which_nothing_came() -> None:
    """One with trades does not, unless a gap is known there: then nobody can say."""
    check = KlineCheck(CandleScore("A"))
    check.add_kline(kline(2, volume="0", trades_count=None))
    check.add_kline(kline(3, trades_count=0))
    check.add_kline(kline(4))
    check.add_kline(kline(5))
    check.add_candles([minute(1)])
    assert check.score.total == 0
    gap = range(5 * 60_000_000, 6 * 60_000_000)
    check.add_candles([minute(6)], lambda from_us, _to: from_us in gap)
    assert (check.score.total, check.score.equal) == (3, 2)
    assert [found.timestamp_us for found in check.score.differences] == [240_000_000]


def test_a_candle_that_is_the_exchanges_own_proves_nothing() -> None:
    """It would only be compared with itself."""
    assert compare(ours(source="kline"), THEIRS).verdict == "unknown"
