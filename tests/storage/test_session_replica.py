"""The sessions' rows follow the sessions, whatever the database does meanwhile."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
import structlog

from collector.errors import DatabaseUnavailable
from collector.storage import session_replica
from collector.storage.session_replica import SessionReplica
from collector.storage.sessions import SessionRow, SessionRows


def row(session_id: str, status: str = "active", written: int = 0) -> SessionRow:
    """Return a session's row."""
    return SessionRow(
        session_id=session_id, status=status, exchange="sim", symbols=("A_B",), data_types=("prices",),
        created_us=1_700_000_000_000_000, prices_count=written,
    )  # fmt: skip


class Table:
    """What the database would have: the newest row per session; refuses as often as it is told to."""

    def __init__(self, refusals: int = 0) -> None:
        self.rows: dict[str, SessionRow] = {}
        self.refusals = refusals
        self.calls = 0

    def upsert(self, given: SessionRow) -> None:
        self.calls += 1
        if self.refusals:
            self.refusals -= 1
            raise DatabaseUnavailable("The server is away.")
        self.rows[given.session_id] = given


def run(table: Any, act: Any) -> None:
    async def main() -> None:
        replica = SessionReplica(table, log=structlog.get_logger())
        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            tasks.create_task(replica.run())
            await act(replica)
            await replica.stop(10)

    asyncio.run(main())


def test_the_newest_row_of_a_session_is_what_arrives() -> None:
    """Rows that were overtaken need not be written, and never overwrite a later one."""
    table = Table()

    async def act(replica: SessionReplica) -> None:
        for count in range(50):
            replica.put(row("a", written=count))
        replica.put(row("b", "completed"))

    run(table, act)
    assert table.rows["a"].prices_count == 49
    assert table.rows["b"].status == "completed"
    assert table.calls < 50


def test_a_row_waits_while_the_database_is_away(monkeypatch: Any) -> None:
    """A refusal costs a session nothing but time."""
    monkeypatch.setattr(session_replica, "_RETRY_S", 0.01)
    table = Table(refusals=3)

    async def act(replica: SessionReplica) -> None:
        replica.put(row("a"))
        while "a" not in table.rows:
            await asyncio.sleep(0.01)

    run(table, act)
    assert table.calls == 4


def test_rows_reach_the_real_table(questdb: Any) -> None:
    """A change of status replaces the row: there is one per session."""
    rows = SessionRows(lambda: questdb.settings)

    async def act(replica: SessionReplica) -> None:
        replica.put(row("replica-test"))

    run(rows, act)

    async def end(replica: SessionReplica) -> None:
        replica.put(row("replica-test", "completed", written=7))

    run(rows, end)

    async def read() -> list[SessionRow]:
        async with asyncio.timeout(30):
            while True:
                found = [r for r in await asyncio.to_thread(rows.all) if r.session_id == "replica-test"]
                if found and found[0].status == "completed":
                    return found
                await asyncio.sleep(0.02)

    found = asyncio.run(read())
    assert [(r.status, r.prices_count) for r in found] == [("completed", 7)]


@pytest.mark.parametrize("error", [OSError(24, "Too many open files"), ZeroDivisionError("a bug")], ids=repr)
def test_an_error_that_nobody_expected_ends_nothing(error: Exception, monkeypatch: pytest.MonkeyPatch) -> None:
    """A row about a session is tried again like any other; collecting does not notice."""
    monkeypatch.setattr(session_replica, "_RETRY_S", 0.01)

    class Broken(Table):
        def upsert(self, given: SessionRow) -> None:
            if self.calls < 2:
                self.calls += 1
                raise error
            super().upsert(given)

    table = Broken()

    async def act(replica: SessionReplica) -> None:
        replica.put(row("a"))
        while "a" not in table.rows:
            await asyncio.sleep(0.005)

    run(table, act)
    assert table.calls == 3


def test_rows_of_ended_sessions_come_back(questdb: Any) -> None:
    """Whatever the table has lost of them is written again, once; what a manifest cannot tell is left alone."""
    rows = SessionRows(lambda: questdb.settings)
    kept = {name: row(f"lost-{name}", "completed") for name in ("a", "b")}
    rows.upsert(row("lost-b", "active"))
    asked: list[str] = []

    def row_of(session_id: str) -> SessionRow | None:
        asked.append(session_id)
        return {one.session_id: one for one in kept.values()}.get(session_id)

    async def act(replica: SessionReplica) -> None:
        async with asyncio.timeout(30), asyncio.TaskGroup() as tasks:
            ids = [*(one.session_id for one in kept.values()), "unreadable"]
            checking = tasks.create_task(replica.check(lambda: ids, row_of, 0.05))
            while [getattr(rows.get(one), "status", "") for one in ids] != ["completed", "completed", ""]:
                await asyncio.sleep(0.05)
            asked.clear()
            while asked.count("unreadable") < 3:
                await asyncio.sleep(0.05)
            checking.cancel()

    run(rows, act)
    assert "lost-a" not in asked
    assert "lost-b" not in asked
