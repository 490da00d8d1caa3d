"""A market by formula: every interval agrees with its minutes, and holes are holes."""

from __future__ import annotations

import itertools
import random

import pytest

from collector.sim.history_market import (
    DAY_US,
    HOUR_US,
    LISTED_US,
    MINUTE_US,
    WEEK_US,
    HistoryMarket,
    MarketCandle,
    decimal_text,
)


def folded(market: HistoryMarket, symbol: str, start_us: int, length_us: int) -> MarketCandle:
    """Fold minutes one by one, in no other way than by the definition of a candle."""
    minutes = [
        minute
        for at in range(start_us, start_us + length_us, MINUTE_US)
        if (minute := market.candle(symbol, at, MINUTE_US)) is not None
    ]
    return MarketCandle(
        start_us,
        minutes[0].open,
        max(minute.high for minute in minutes),
        min(minute.low for minute in minutes),
        minutes[-1].close,
        *(sum(minute[column] for minute in minutes) for column in range(5, 10)),  # type: ignore[arg-type]
    )


@pytest.mark.parametrize("length_us", [5 * MINUTE_US, HOUR_US, 4 * HOUR_US, DAY_US])
@pytest.mark.parametrize("symbol", ["BTC_USDT", "QUIET_USDT"])
def test_a_candle_is_the_fold_of_its_minutes(symbol: str, length_us: int) -> None:
    """In closed form or minute by minute, also across maintenance and the listing."""
    seed = random.SystemRandom().randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    closed = (LISTED_US + 40 * DAY_US + 1234 * MINUTE_US, LISTED_US + 40 * DAY_US + 2345 * MINUTE_US)
    market = HistoryMarket(["BTC_USDT", "QUIET_USDT"], seed=seed, quiet=["QUIET_USDT"], closed_us=[closed])
    days = [0, 40, *(chance.randrange(2500) for _ in range(4))]
    for day in days:
        start = LISTED_US + day * DAY_US
        assert market.candle(symbol, start, length_us) == folded(market, symbol, start, length_us)


def test_prices_are_sound() -> None:
    """High and low are the extremes, the next open is the last close, and nothing is negative."""
    market = HistoryMarket(["BTC_USDT"])
    minutes = market.candles("BTC_USDT", MINUTE_US, LISTED_US, LISTED_US + DAY_US, 2**62)
    assert len(minutes) == 1440
    for minute, after in itertools.pairwise(minutes):
        assert 0 < minute.low <= min(minute.open, minute.close) <= max(minute.open, minute.close) <= minute.high
        assert after.open == minute.close
        assert 0 < minute.taker_lots < minute.lots
    assert len({minute.high for minute in minutes}) > 300


def test_the_same_seed_is_the_same_market() -> None:
    """And another one is another; symbols differ, too."""
    one, same, other = HistoryMarket(["A_B", "C_D"]), HistoryMarket(["A_B", "C_D"]), HistoryMarket(["A_B"], seed=2)
    start = LISTED_US + 1000 * HOUR_US
    assert one.candle("A_B", start, HOUR_US) == same.candle("A_B", start, HOUR_US)
    assert one.candle("A_B", start, HOUR_US) != other.candle("A_B", start, HOUR_US)
    assert one.candle("A_B", start, HOUR_US) != one.candle("C_D", start, HOUR_US)


def test_nothing_is_traded_before_the_listing_nor_in_maintenance() -> None:
    """A candle of which a part lies there is made of the rest; there is none where all of it does."""
    closed = (LISTED_US + 10 * HOUR_US, LISTED_US + 12 * HOUR_US + 30 * MINUTE_US)
    market = HistoryMarket(["A_B"], listed_us={"A_B": LISTED_US + 30 * MINUTE_US}, closed_us=[closed])
    assert market.listed_us("A_B") == LISTED_US + 30 * MINUTE_US
    hours = market.candles("A_B", HOUR_US, LISTED_US - DAY_US, LISTED_US + 15 * HOUR_US, 2**62)
    assert [(hour.start_us - LISTED_US) // HOUR_US for hour in hours] == [*range(10), 12, 13, 14]
    assert hours[0].lots < hours[1].lots / 1.5


def test_the_candle_under_way_has_come_as_far_as_now() -> None:
    """Later minutes are not in it, and later candles are not there."""
    market = HistoryMarket(["A_B"])
    now_us = LISTED_US + 5 * HOUR_US + 10 * MINUTE_US
    last = market.candles("A_B", HOUR_US, LISTED_US, LISTED_US + DAY_US, now_us)[-1]
    assert last.start_us == LISTED_US + 5 * HOUR_US
    assert last.close == market.price("A_B", now_us + MINUTE_US)


def test_weeks_begin_on_mondays_and_days_may_be_shifted() -> None:
    """Some exchanges' days begin at UTC+8 unless they are asked otherwise."""
    market = HistoryMarket(["A_B"])
    week = market.candles("A_B", WEEK_US, LISTED_US + 10 * DAY_US, LISTED_US + 20 * DAY_US, 2**62)[0]
    assert (week.start_us // DAY_US + 3) % 7 == 0
    day = market.shifted("A_B", DAY_US, LISTED_US + DAY_US, LISTED_US + 2 * DAY_US, 2**62, -8 * HOUR_US)[0]
    assert day.start_us % DAY_US == 16 * HOUR_US


@pytest.mark.parametrize(
    ("count", "unit", "expected"),
    [(12_345, 100, "123.45"), (12_300, 100, "123"), (12_340, 100, "123.4"), (5, 10_000, "0.0005")],
)
def test_decimals_are_exact(count: int, unit: int, expected: str) -> None:
    """Without zeros at the end, as most exchanges write them."""
    assert decimal_text(count, unit) == expected
