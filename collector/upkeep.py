"""The files of sessions that have ended: compressed, and deleted when they may go. Part of the composition root."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import TypeVar

from structlog.typing import FilteringBoundLogger

from collector.clock import Clock
from collector.config import Csv
from collector.errors import CollectorError
from collector.session.manifest import Manifest, load_manifest, save_manifest
from collector.session.segment_keeper import Held, SegmentKeeper, apply_release
from collector.session.states import FINAL
from collector.storage.files import Files
from collector.storage.survey import Span

_PATIENCE = 6  # ended sessions are looked at so much less often than running ones: nothing is urgent with them

_T = TypeVar("_T")


class EndedSessions:
    """Look after a data directory's ended sessions, at intervals.

    Args:
        thread: where files are read and written; manifests of ended sessions are nobody else's.
        is_running: says whether a session of an id is run now, and so looked after by itself.

    ``compressed`` counts files, ``released_rows`` rows that were deleted, since the start.
    """

    def __init__(
        self,
        data_dir: Path,
        *,
        config: Csv,
        files: Files,
        clock: Clock,
        log: FilteringBoundLogger,
        thread: Executor,
        held: Held | None,
        is_running: Callable[[str], bool],
    ) -> None:
        self.compressed = 0
        self.released_rows = 0
        self._data_dir = data_dir
        self._config = config
        self._files = files
        self._clock = clock
        self._log = log
        self._thread = thread
        self._held = held
        self._is_running = is_running

    async def run(self, stopping: asyncio.Event) -> None:
        """Look after them until asked to stop; returns at once where the configuration wants nothing done."""
        idle = not self._config.compress and (
            self._held is None or (self._config.enabled and not self._config.keep_days)
        )
        while not (idle or stopping.is_set()):
            await self.tend_all(stopping)
            try:
                async with asyncio.timeout(_PATIENCE * self._config.upkeep_interval_s):
                    await stopping.wait()
            except TimeoutError:
                continue

    async def tend_all(self, stopping: asyncio.Event) -> None:
        """Look once at each of them; what goes wrong with one is told and leaves the others alone."""
        for directory in await self._in_thread(lambda: sorted(self._data_dir.glob("session_*"))):
            if stopping.is_set():
                return
            try:
                await self._tend(directory)
            except (CollectorError, OSError) as error:
                self._log.debug("data_collection.upkeep_failed", path=str(directory), reason=str(error))

    async def _tend(self, directory: Path) -> None:
        manifest = await self._in_thread(lambda: load_manifest(directory))
        if manifest.state not in FINAL or self._is_running(manifest.session_id):
            return
        keeper = SegmentKeeper(
            manifest.session_id,
            directory,
            config=self._config,
            files=self._files,
            clock=self._clock,
            log=self._log,
            thread=self._thread,
            held=self._held,
            note=lambda spans: self._note(directory, manifest, spans),
        )
        try:
            await keeper.tend(manifest, ended=True)
        finally:
            self.compressed += keeper.compressed
            self.released_rows += keeper.released_rows

    async def _note(self, directory: Path, manifest: Manifest, spans: Sequence[Span]) -> None:
        apply_release(manifest, spans)
        await self._in_thread(lambda: save_manifest(directory, manifest, self._files))

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
