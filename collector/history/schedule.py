"""When the tasks of history are due: pure, in UTC, driven by a clock that the caller reads.

Of the times that passed while nobody looked only the last one counts: a run that was missed is made up once.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from collector.exchanges.candle_sources.intervals import DAY_US, HOUR_US, MINUTE_US


class Task(msgspec.Struct, frozen=True):
    """A task that is due every ``period_us`` of UTC, ``offset_us`` after the period's start."""

    name: str
    period_us: int
    offset_us: int
    summary: str

    def last_us(self, now_us: int) -> int:
        """Return when it was due the last time."""
        return now_us - (now_us - self.offset_us) % self.period_us

    def next_us(self, now_us: int) -> int:
        """Return when it is due the next time, after now."""
        return self.last_us(now_us) + self.period_us


TASKS = (
    Task("hourly", HOUR_US, 5 * MINUTE_US, "every hour at minute 5: the hour before, of all symbols"),
    Task("fill_gaps", DAY_US, 3 * HOUR_US, "daily at 03:00 UTC: what is missing of the last 30 days"),
    Task("quality", 6 * HOUR_US, 0, "every 6 hours: whether what is held is whole and plausible"),
)
"""In the order of their priority, where several are due."""


class Run(msgspec.Struct):
    """The last run of a task: for which due time, when, and what became of it (``never`` where there was none)."""

    due_us: int
    started_us: int | None = None
    finished_us: int | None = None
    status: str = "never"
    detail: str = ""


class Schedule:
    """Which tasks are due.

    Args:
        runs: the last run of each task, as an earlier process left them; a task without one begins with its next time.
    """

    def __init__(self, runs: dict[str, Run], now_us: int, tasks: Sequence[Task] = TASKS) -> None:
        self.tasks = tuple(tasks)
        self.runs = {task.name: runs.get(task.name) or Run(task.last_us(now_us)) for task in tasks}

    def due(self, now_us: int) -> list[Task]:
        """Return what is to be run now, the most important first."""
        return [task for task in self.tasks if task.last_us(now_us) > self.runs[task.name].due_us]

    def wait_us(self, now_us: int) -> int:
        """Return in how many microseconds something will be due."""
        return min(task.next_us(now_us) for task in self.tasks) - now_us

    def begin(self, task: Task, now_us: int) -> None:
        """Take note that a task runs for the time that it was due last."""
        self.runs[task.name] = Run(task.last_us(now_us), now_us, None, "running")

    def end(self, task: Task, now_us: int, status: str, detail: str = "") -> None:
        """Take note of what became of it."""
        run = self.runs[task.name]
        self.runs[task.name] = Run(run.due_us, run.started_us, now_us, status, detail)
