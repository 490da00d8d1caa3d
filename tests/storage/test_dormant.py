"""Sessions that are over and delivered cost nothing, until their tables are not those that had their rows."""

from __future__ import annotations

import os
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from collector.clock import ManualClock
from collector.config import QuestDB
from collector.errors import ManifestError
from collector.storage.courier import Courier
from collector.storage.csv_log import CsvLog, Write
from collector.storage.cursor import CURSOR_FILE, load_cursor, save_cursor
from collector.storage.dormant import End
from collector.storage.files import OperatingSystem
from collector.storage.memory_transport import MemoryQuestDB, MemoryTransport
from collector.storage.outbox import Outbox
from collector.storage.survey import survey_segment
from collector.streams import ORDERBOOK, PRICES

SYMBOL = "BTC_USDT"
START_US = 1_700_000_000_000_000
ROWS = 3
SESSIONS = 1000


class Silent:
    def debug(self, event: str, **facts: object) -> None: ...

    info = warning = error = debug


class QuickFiles(OperatingSystem):
    """The file system without waiting for the disk: a thousand sessions would take a minute."""

    def sync(self, fds: Sequence[int]) -> None: ...

    def replace(self, path: Path, content: bytes) -> None:
        path.write_bytes(content)

    @staticmethod
    def _sync_path(path: Path) -> None: ...


class Process:
    """A process that delivers what a data directory holds, with a server in memory."""

    def __init__(self, folder: Path, server: MemoryQuestDB) -> None:
        self.folder = folder
        self.server = server
        self.clock = ManualClock()
        self.asked: list[str] = []
        self.outbox = Outbox(files=QuickFiles(), clock=self.clock, log=Silent())
        self.courier = Courier(
            MemoryTransport(server),
            self.outbox,
            config=QuestDB(check_interval_s=10),
            clock=self.clock,
            log=Silent(),
            repair_tables=server.make_tables,
        )

    def path(self, session_id: str) -> Path:
        return self.folder / f"session_{session_id}" / SYMBOL / PRICES.file

    def files(self, session_id: str) -> Callable[[], Any]:
        def find() -> Any:
            self.asked.append(session_id)
            return [(PRICES, SYMBOL, self.path(session_id))]

        return find

    def add_ended(self, session_id: str, last_seq: int = ROWS) -> None:
        self.outbox.add_ended(
            session_id,
            "sim",
            self.folder / f"session_{session_id}",
            [End(PRICES, SYMBOL, self.path(session_id), last_seq)],
            self.files(session_id),
        )

    def work(self, turns: int = 6) -> None:
        for _ in range(turns):
            self.courier.work()
            self.outbox.save_due()
            self.clock.advance(11)

    def shown(self) -> dict[str, int]:
        """Return how many rows of each session the table shows."""
        found: dict[str, int] = {}
        for row in self.server.shown(PRICES.table):
            found[str(row["session_id"])] = found.get(str(row["session_id"]), 0) + 1
        return found


def write_session(folder: Path, session_id: str, rows: int = ROWS) -> None:
    log = CsvLog(folder / f"session_{session_id}", files=QuickFiles())
    file = log.open(PRICES, SYMBOL)
    lines = [f"{START_US + n},1,2,2,buy,{n},{n},{START_US},ws,,\n" for n in range(file.next_seq, file.next_seq + rows)]
    log.append([Write(file, "".join(lines).encode(), rows)])
    log.sync()
    log.close()


@pytest.fixture
def delivered(tmp_path: Path) -> Process:
    """Give a process that has delivered one session that is over, and laid it down."""
    write_session(tmp_path, "a")
    process = Process(tmp_path, MemoryQuestDB())
    process.add_ended("a")
    assert list(process.outbox.sessions) == ["a"]
    process.work()
    assert process.shown() == {"a": ROWS}
    assert (list(process.outbox.sessions), list(process.outbox.dormant)) == ([], ["a"])
    assert process.courier.status().sessions == {}
    return process


def again(process: Process) -> Process:
    """Begin anew, as the next daemon does; the server stayed."""
    return Process(process.folder, process.server)


def test_a_delivered_session_is_not_opened_by_the_next_process(delivered: Process) -> None:
    """Neither its files nor its manifest; what it had is known."""
    process = again(delivered)
    process.add_ended("a")
    process.work()
    assert (list(process.outbox.sessions), process.asked) == ([], [])
    assert process.outbox.dormant["a"].delivery.acknowledged_rows == ROWS
    assert process.server.shown(PRICES.table) != []


@pytest.mark.parametrize("harm", ["drop", "restore", "replace"])
def test_a_table_that_lacks_its_rows_wakes_it(delivered: Process, harm: str) -> None:
    """Made again, an older copy, or another database: everything is sent again, and it is laid down again."""
    empty = MemoryQuestDB()
    empty.make_tables()
    for process in (delivered, again(delivered)):
        process.add_ended("a")
        process.work(2)
        if harm == "drop":
            process.server.drop(PRICES.table)
        elif harm == "restore":
            process.server.restore(empty.backup())
        else:
            process.server.__dict__.update(MemoryQuestDB().__dict__)
        process.work()
        assert process.shown() == {"a": ROWS}
        assert list(process.outbox.dormant) == ["a"]
        assert process.asked[-1:] == ["a"]


def test_a_restart_of_the_server_wakes_nobody(delivered: Process) -> None:
    """What was found in the tables stays found."""
    asked = len(delivered.asked)
    delivered.server.restart(lost=0)
    delivered.work()
    assert len(delivered.asked) == asked


def test_an_operator_s_rewind_wakes_it(delivered: Process) -> None:
    """Its rows are sent again, once."""
    delivered.outbox.rewind("a", 0, None)
    delivered.work()
    assert delivered.courier.status().resent_rows == ROWS
    assert list(delivered.outbox.dormant) == ["a"]


def test_rows_that_come_after_all_are_delivered(delivered: Process) -> None:
    """Repairs of a session that is over: only what a commit says of its file is durable."""
    log = CsvLog(delivered.folder / "session_a", files=QuickFiles())
    file = log.open(PRICES, SYMBOL)
    log.sync()
    line = f"{START_US + 9},1,2,2,buy,9,{ROWS + 1},{START_US},ws,,\n"
    log.append([Write(file, line.encode(), 1)])
    delivered.outbox.commit("a", [])
    delivered.work()
    assert delivered.shown() == {"a": ROWS}
    delivered.outbox.commit("a", log.sync())
    delivered.work()
    assert delivered.shown() == {"a": ROWS + 1}
    assert delivered.outbox.dormant["a"].tables == {PRICES.table}
    log.close()


def test_what_it_has_can_still_be_asked(delivered: Process) -> None:
    """For deleting old segments."""
    span = survey_segment(delivered.path("a"), PRICES, SYMBOL, QuickFiles())
    assert delivered.courier.held("a", [span]) == {(PRICES.name, SYMBOL)}
    delivered.work()
    assert list(delivered.outbox.dormant) == ["a"]


@pytest.mark.parametrize("change", ["rows", "cursor", "no cursor", "touched", "no file", "another stream"])
def test_what_is_not_certainly_whole_is_looked_at(delivered: Process, change: str) -> None:
    """More rows than the cursor knows of, a cursor that cannot be used, a file written to since."""
    directory = delivered.folder / "session_a"
    process = again(delivered)
    last_seq = ROWS
    if change == "rows":
        write_session(delivered.folder, "a", 2)
        last_seq += 2
    elif change == "cursor":
        (directory / CURSOR_FILE).write_bytes(b"{}")
    elif change == "no cursor":
        (directory / CURSOR_FILE).unlink()
    elif change == "touched":
        os.utime(process.path("a"))
        os.utime(directory / CURSOR_FILE, ns=(0, 0))
    elif change == "no file":
        process.path("a").unlink()
    if change == "another stream":
        ends = [End(ORDERBOOK, SYMBOL, process.path("a"), 1)]
        process.outbox.add_ended("a", "sim", directory, ends, process.files("a"))
    else:
        process.add_ended("a", last_seq)
    assert list(process.outbox.sessions) == ["a"]
    process.work()
    assert process.shown() == {"a": last_seq}


def test_a_manifest_that_cannot_be_read_is_said_and_leaves_the_others_alone(delivered: Process) -> None:
    """The session stays looked after, without files, until somebody mends it."""

    def broken() -> Any:
        raise ManifestError("The manifest is damaged.")

    process = again(delivered)
    process.outbox.add_ended("b", "sim", process.folder / "session_b", [], broken)
    process.add_ended("a")
    process.work()
    assert (list(process.outbox.sessions), list(process.outbox.dormant)) == (["b"], ["a"])


def test_a_thousand_delivered_sessions_cost_next_to_nothing(delivered: Process) -> None:
    """No file of theirs is opened, little is remembered; and a table that was dropped is filled with all their rows."""
    cursor = load_cursor(delivered.folder / "session_a", "a")
    assert cursor is not None
    server = delivered.server
    names = [f"s{number}" for number in range(SESSIONS)]
    for name in names:
        write_session(delivered.folder, name)
        copied = type(cursor)(name, cursor.files, cursor.server)
        save_cursor(QuickFiles(), delivered.folder / f"session_{name}", copied)
    process = Process(delivered.folder, server)
    tracemalloc.start()
    for name in names:
        process.add_ended(name)
    process.work(2)
    used_bytes, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert process.asked == []
    assert (len(process.outbox.dormant), len(process.outbox.sessions)) == (SESSIONS, 0)
    assert list(process.outbox.lanes()) == []
    assert process.courier.status().requests == 0
    assert used_bytes < SESSIONS * 8192

    server.drop(PRICES.table)
    process.work(12)
    assert process.shown() == dict.fromkeys(names, ROWS)
    assert (len(process.outbox.dormant), len(process.outbox.sessions)) == (SESSIONS, 0)
