"""What the routes share: the daemon, the sessions on disk, and the limits."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from typing import Annotated, Literal

from fastapi import Depends, Request

from collector.api.daemon_client import DaemonClient
from collector.api.index import SessionIndex
from collector.api.security import Refusals
from collector.config import Config
from collector.errors import CollectorError
from collector.reading.csv_rows import read_rows
from collector.reading.sessions import StoredSession
from collector.session.gaps import Entry, GapLedger
from collector.status import DaemonStatus, SessionStatus
from collector.streams import GAPS


class Turns(asyncio.Semaphore):
    """So many at once; ``delayed`` counts those that had to wait."""

    delayed = 0

    async def acquire(self) -> Literal[True]:
        """Take a turn, when there is one."""
        self.delayed += self.locked()
        return await super().acquire()


@dataclass(frozen=True, slots=True)
class Context:
    """One per application."""

    config: Config
    daemon: DaemonClient
    index: SessionIndex
    streams: Turns
    """How many answers may stream rows at once; the others wait."""
    refusals: Refusals = field(default_factory=Refusals)

    async def status(self) -> DaemonStatus | None:
        """Return what the daemon says, None where none runs: what is on disk can be read all the same."""
        try:
            return await self.daemon.status()
        except CollectorError:
            return None

    async def running(self) -> dict[str, SessionStatus]:
        """Return the sessions that a daemon runs now, by id."""
        status = await self.status()
        return {one.session_id: one for one in status.sessions if one.is_live} if status else {}


def ledger_of(session: StoredSession) -> list[Entry]:
    """Return a session's gaps as they stand in its ledger's file; blocking."""
    ledger = GapLedger()
    ledger.load(read_rows(session.directory, GAPS))
    return ledger.entries()


def _context(request: Request) -> Context:
    context: Context = request.app.state.context
    return context


InContext = Annotated[Context, Depends(_context)]
