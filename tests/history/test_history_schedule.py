"""The scheduler: driven by a clock of the test's own, one task at a time, made up once after a pause."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
import structlog

from collector.clock import ManualClock
from collector.errors import CollectorError
from collector.exchanges.candle_sources.intervals import DAY_US, HOUR_US, MINUTE_US
from collector.history_schedule import Scheduler, load_runs
from collector.storage.files import OperatingSystem

MIDNIGHT = 20_000 * DAY_US


class Over(Exception):
    """The test's time is over."""


def played(folder: Path, begin_us: int, end_us: int, *, failing: str = "") -> list[tuple[str, int]]:
    """Let a scheduler live from one time to another; return what it ran, and when."""
    clock = ManualClock(begin_us, 0)
    ran: list[tuple[str, int]] = []

    def work(name: str) -> Any:
        async def run() -> str:
            ran.append((name, clock.now_us()))
            if name == failing:
                raise CollectorError("Nobody answers.")
            return "done"

        return run

    async def sleep(seconds: float) -> None:
        clock.advance(seconds)
        if clock.now_us() >= end_us:
            raise Over

    async def scenario() -> None:
        names = ("hourly", "fill_gaps", "quality")
        scheduler = Scheduler(
            folder, {name: work(name) for name in names}, clock=clock, files=OperatingSystem(),
            log=structlog.get_logger(), sleep=sleep,
        )  # fmt: skip
        with pytest.raises(Over):
            await scheduler.run()

    asyncio.run(scenario())
    return ran


def test_a_day_has_its_runs_and_a_pause_is_made_up_once(tmp_path: Path) -> None:
    """The second life begins three days later, and knows what the first one did."""
    begin = MIDNIGHT + MINUTE_US
    first = played(tmp_path, begin, MIDNIGHT + DAY_US)
    assert [name for name, _ in first].count("hourly") == 24
    assert [at // MINUTE_US * MINUTE_US for name, at in first if name == "fill_gaps"] == [MIDNIGHT + 3 * HOUR_US]
    assert [name for name, _ in first].count("quality") == 3
    later = MIDNIGHT + 4 * DAY_US + 10 * HOUR_US + 30 * MINUTE_US
    assert [name for name, _ in played(tmp_path, later, later + 20 * MINUTE_US)] == ["hourly", "fill_gaps", "quality"]


def test_a_task_that_fails_is_told_and_the_others_go_on(tmp_path: Path) -> None:
    """Its next time comes as if nothing had been."""
    ran = played(tmp_path, MIDNIGHT + MINUTE_US, MIDNIGHT + 7 * HOUR_US, failing="hourly")
    assert [name for name, _ in ran].count("hourly") == 7
    runs = load_runs(tmp_path)
    assert (runs["hourly"].status, runs["hourly"].detail) == ("failed", "Nobody answers.")
    assert runs["quality"].status == "completed"
