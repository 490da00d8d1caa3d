"""The schedule: driven by a clock through two days in which the local zone changes to summer time."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from datetime import UTC, datetime

import pytest

from collector.exchanges.candle_sources.intervals import DAY_US, HOUR_US, MINUTE_US
from collector.history.schedule import TASKS, Run, Schedule

BEGIN = round(datetime(2026, 3, 28, 12, 30, tzinfo=UTC).timestamp()) * 1_000_000
HOURLY, FILL, QUALITY = TASKS


@pytest.fixture
def local_zone() -> Iterator[None]:
    """Set a local zone whose clocks go forward in the night of 2026-03-29, at 01:00 UTC."""
    before = os.environ.get("TZ")
    os.environ["TZ"] = "Europe/Berlin"
    time.tzset()
    yield
    if before is None:
        del os.environ["TZ"]
    else:
        os.environ["TZ"] = before
    time.tzset()


def play(schedule: Schedule, begin: int, end: int, step: int = MINUTE_US) -> list[tuple[str, int]]:
    """Let a clock pass in steps; return what ran, and when."""
    ran = []
    for now in range(begin, end, step):
        while due := schedule.due(now):
            schedule.begin(due[0], now)
            schedule.end(due[0], now, "completed")
            ran.append((due[0].name, now))
    return ran


@pytest.mark.usefixtures("local_zone")
def test_in_two_days_with_a_change_of_the_local_clock_each_runs_exactly_when_it_should() -> None:
    """Times are UTC's: no hour is left out and none comes twice."""
    ran = play(Schedule({}, BEGIN), BEGIN, BEGIN + 2 * DAY_US)
    hours = [now for name, now in ran if name == "hourly"]
    assert hours == [BEGIN + 35 * MINUTE_US + n * HOUR_US for n in range(48)]
    midnight = BEGIN - 12 * HOUR_US - 30 * MINUTE_US
    assert [now for name, now in ran if name == "fill_gaps"] == [midnight + n * DAY_US + 3 * HOUR_US for n in (1, 2)]
    assert [now for name, now in ran if name == "quality"] == [midnight + n * 6 * HOUR_US for n in range(3, 11)]


def test_what_was_missed_is_made_up_once() -> None:
    """However long nobody looked, and in the order of importance."""
    schedule = Schedule({}, BEGIN)
    assert [name for name, _ in play(schedule, BEGIN + 5 * DAY_US, BEGIN + 5 * DAY_US + 1)] == [
        "hourly", "fill_gaps", "quality",
    ]  # fmt: skip
    later = Schedule(dict(schedule.runs), BEGIN + 6 * DAY_US)
    assert [task.name for task in later.due(BEGIN + 6 * DAY_US)] == ["hourly", "fill_gaps", "quality"]


def test_a_schedule_without_a_past_begins_with_the_next_time() -> None:
    """A new installation does not run everything at once."""
    assert Schedule({}, BEGIN).due(BEGIN) == []
    assert Schedule({"hourly": Run(BEGIN - 3 * HOUR_US)}, BEGIN).due(BEGIN) == [HOURLY]


@pytest.mark.parametrize("task", TASKS, ids=[task.name for task in TASKS])
def test_the_last_and_the_next_time_are_a_period_apart_around_now(task) -> None:
    """Exactly at its time a task is due."""
    for now in range(BEGIN, BEGIN + DAY_US, 7 * MINUTE_US):
        assert task.last_us(now) <= now < task.next_us(now) == task.last_us(now) + task.period_us
        assert task.last_us(task.next_us(now)) == task.next_us(now)
