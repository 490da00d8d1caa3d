"""Run the tasks of history when they are due, one after the other. Part of the composition root."""

from __future__ import annotations

import asyncio
from asyncio import sleep as real_sleep
from collections.abc import Awaitable, Callable, Mapping
from pathlib import Path

import msgspec
from structlog.typing import FilteringBoundLogger

from collector.clock import Clock
from collector.errors import CollectorError
from collector.history.schedule import Run, Schedule, Task
from collector.storage.files import Files

_FILE = Path("history") / "schedule.json"
_LONGEST_WAIT_S = 30.0
"""The wall clock may be set, and a machine may sleep: so long at most nobody looks at it."""

Work = Callable[[], Awaitable[str]]
"""Does what a task is for, and says in a few words what came of it; raises CollectorError."""


class ScheduledTask(msgspec.Struct, frozen=True, kw_only=True):
    """A task as ``collector schedule`` shows it. Times are microseconds since the epoch."""

    name: str
    summary: str
    next_us: int
    last_us: int | None
    finished_us: int | None
    status: str
    detail: str


class Scheduler:
    """Drive a schedule by a clock; what ran is kept on disk, so that a missed run is made up once after a restart."""

    def __init__(
        self,
        data_dir: Path,
        work: Mapping[str, Work],
        *,
        clock: Clock,
        files: Files,
        log: FilteringBoundLogger,
        sleep: Callable[[float], Awaitable[None]] = real_sleep,
    ) -> None:
        self.schedule = Schedule(load_runs(data_dir), clock.now_us())
        self._path = data_dir / _FILE
        self._work = work
        self._clock = clock
        self._files = files
        self._log = log
        self._sleep = sleep

    async def run(self) -> None:
        """Run what is due, as it becomes due, until cancelled."""
        await self._save()
        while True:
            due = self.schedule.due(self._clock.now_us())
            if due:
                await self._run(due[0])  # what is more important may have become due meanwhile
                continue
            wait_s = self.schedule.wait_us(self._clock.now_us()) / 1e6
            await self._sleep(min(max(wait_s, 0.001), _LONGEST_WAIT_S))

    async def _run(self, task: Task) -> None:
        self.schedule.begin(task, self._clock.now_us())
        await self._save()
        try:
            detail = await self._work[task.name]()
        except CollectorError as error:
            status, detail = "failed", str(error)
        except Exception as error:  # noqa: BLE001  (one task's bug leaves the schedule alone)
            self._log.error("history.bug", task=task.name, reason=repr(error), exc_info=error)
            status, detail = "failed", repr(error)
        else:
            status = "completed"
        self.schedule.end(task, self._clock.now_us(), status, detail)
        self._log.info("history.task_done", task=task.name, status=status, detail=detail)
        await self._save()

    async def _save(self) -> None:
        content = msgspec.json.encode(self.schedule.runs)
        try:
            await asyncio.to_thread(self._write, content)
        except OSError as error:
            self._log.warning("history.schedule_not_saved", reason=str(error))

    def _write(self, content: bytes) -> None:
        if not self._path.parent.is_dir():
            self._files.make_folder(self._path.parent)
        self._files.replace(self._path, content)


def load_runs(data_dir: Path) -> dict[str, Run]:
    """Return the last run of each task, as the file tells it; one that was under way then was cut off."""
    try:
        runs = msgspec.json.decode((data_dir / _FILE).read_bytes(), type=dict[str, Run])
    except (OSError, msgspec.MsgspecError):
        return {}
    for run in runs.values():
        if run.status == "running":
            run.status, run.detail = "interrupted", "the daemon ended meanwhile; its session goes on by itself"
    return runs


def describe_schedule(schedule: Schedule, now_us: int) -> list[ScheduledTask]:
    """Return every task with its last and its next run."""
    return [
        ScheduledTask(
            name=task.name,
            summary=task.summary,
            next_us=task.next_us(now_us) if task not in schedule.due(now_us) else now_us,
            last_us=schedule.runs[task.name].started_us,
            finished_us=schedule.runs[task.name].finished_us,
            status=schedule.runs[task.name].status,
            detail=schedule.runs[task.name].detail,
        )
        for task in schedule.tasks
    ]
