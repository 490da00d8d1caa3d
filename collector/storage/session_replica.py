"""Keep the rows of ``data_collection_sessions`` up with the sessions, whenever the database can be reached."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor

from structlog.typing import FilteringBoundLogger

from collector.errors import CollectorError
from collector.storage.sessions import SessionRow, SessionRows

_RETRY_S = 5.0
FINAL = ("completed", "failed")


class SessionReplica:
    """Write the newest row of each session, in a thread of its own; rows wait while the database is away.

    One row per session waits at most: the newest says all that an older one would have.
    """

    def __init__(self, rows: SessionRows, *, log: FilteringBoundLogger) -> None:
        self.failures = 0
        self._rows = rows
        self._log = log
        self._waiting: dict[str, SessionRow] = {}
        self._known: set[str] = set()
        self._wake = asyncio.Event()
        self._idle = asyncio.Event()
        self._idle.set()
        self._stopping = False
        self._ending = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="sessions")

    def put(self, row: SessionRow) -> None:
        """Have a row written in place of the one that stands."""
        self._waiting[row.session_id] = row
        self._idle.clear()
        self._wake.set()

    async def run(self) -> None:
        """Write rows as they come until ``stop``."""
        while not self._stopping:
            await self._wake.wait()
            self._wake.clear()
            if not await self._write_waiting() and not self._stopping:
                try:
                    async with asyncio.timeout(_RETRY_S):
                        await self._wake.wait()
                except TimeoutError:
                    self._wake.set()

    async def check(
        self, ended: Callable[[], Iterable[str]], row_of: Callable[[str], SessionRow | None], interval_s: float
    ) -> None:
        """Put back what the table has lost of sessions that have ended: it was dropped, or restored from a backup.

        Args:
            ended: the ids of those that do not run.
            row_of: a session's row as its manifest says it is, None where that cannot be read; may block.
            interval_s: seconds between two looks; the first one is at once.
        """
        loop = asyncio.get_running_loop()
        while not self._stopping:
            try:
                found = await loop.run_in_executor(self._thread, self._rows.statuses)
                for session_id in ended():
                    if found.get(session_id) not in FINAL:
                        row = await asyncio.to_thread(row_of, session_id)
                        if row is not None and row.status != found.get(session_id):
                            self.put(row)
            except (CollectorError, RuntimeError, OSError) as error:  # RuntimeError: the thread has been shut down
                self._log.debug("data_collection.session_rows_not_checked", reason=str(error))
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(interval_s):
                    await self._ending.wait()

    async def stop(self, deadline_s: float) -> None:
        """Write what waits, within a deadline, and end."""
        try:
            async with asyncio.timeout(deadline_s):
                if self._waiting and not self.failures:
                    await self._idle.wait()
        except TimeoutError:
            self._log.warning("data_collection.session_rows_not_written", sessions=sorted(self._waiting))
        self._stopping = True
        self._ending.set()
        self._wake.set()
        self._thread.shutdown(wait=False)

    async def _write_waiting(self) -> bool:
        loop = asyncio.get_running_loop()
        while self._waiting:
            session_id = next(iter(self._waiting))
            row = self._waiting.pop(session_id)
            try:
                await loop.run_in_executor(self._thread, self._rows.upsert, row)
            except CollectorError as error:
                self._waiting.setdefault(session_id, row)
                self.failures += 1
                if self.failures == 1:
                    self._log.debug("data_collection.session_row_waits", session=session_id, reason=str(error))
                return False
            except Exception as error:  # noqa: BLE001  (a row about a session must never end collecting it)
                self._waiting.setdefault(session_id, row)
                self.failures += 1
                if self.failures == 1:
                    self._log.error("data_collection.session_row_failed", session=session_id, exc_info=error)
                return False
            self.failures = 0
            if session_id not in self._known:
                self._known.add(session_id)
                self._log.info("data_collection.db_session_created", session=session_id)
        self._idle.set()
        return True
