"""What QuestDB, and the way to it, can do to a daemon that collects."""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median

from trials.parts import Cadence, Daemon, Database, Disk, Exchange, TrialError, wait_until
from trials.sessions import begin, finish, let_grow, peak_bytes, write_session

MakeDaemon = Callable[..., Daemon]
MakeExchange = Callable[..., Exchange]
FLUSH_S = 0.5
SMALL_PAGES = (
    "QDB_CAIRO_WRITER_DATA_APPEND_PAGE_SIZE",
    "QDB_CAIRO_SYSTEM_WRITER_DATA_APPEND_PAGE_SIZE",
    "QDB_CAIRO_WRITER_DATA_INDEX_VALUE_APPEND_PAGE_SIZE",
    "QDB_CAIRO_O3_COLUMN_MEMORY_SIZE",
)


def test_01_questdb_is_down_at_the_start(database: Database, daemon: MakeDaemon, exchange: MakeExchange) -> None:
    """The daemon starts and collects, says so once, and delivers everything as soon as there is a server."""
    database.kill()
    collector, market = daemon(), exchange()
    collector.start()
    directory = begin(collector, market, "down-at-start")
    let_grow(collector, "down-at-start", 400)
    told = [event for event in collector.events() if event["event"] == "data_collection.db_persistence_disabled"]
    assert len(told) == 1
    assert told[0]["reason"]
    database.start()
    wait_until(lambda: collector.status()["questdb"]["state"] == "LIVE", "the replica to be live")
    assert finish(collector, database, market, directory).problems == []


def test_03_questdb_is_killed_again_and_again(database: Database, daemon: MakeDaemon, exchange: MakeExchange) -> None:
    """Three kills in the middle of deliveries cost neither a row nor a doubled one."""
    collector, market = daemon(), exchange("BTC_USDT", "ETH_USDT", rate=1000)
    collector.start()
    directory = begin(collector, market, "killed-often")
    for _ in range(3):
        acknowledged = collector.status()["questdb"]["acknowledged_rows"]
        wait_until(
            lambda seen=acknowledged: collector.status()["questdb"]["acknowledged_rows"] > seen, "rows to be taken"
        )
        database.kill()
        database.start()
    assert finish(collector, database, market, directory).problems == []


def test_04_a_database_that_hangs_delays_no_flush(
    database: Database, daemon: MakeDaemon, exchange: MakeExchange
) -> None:
    """While the server stands still with its sockets open, the CSV grows as before, and memory does not."""
    collector, market = daemon(), exchange(rate=1000)
    collector.start()
    directory = begin(collector, market, "hang")
    with Cadence(directory / "BTC_USDT" / "prices.csv") as cadence:
        time.sleep(6 * FLUSH_S)  # as it is without trouble, on this machine now
        calm_until = time.time_ns()
        memory = collector.resident_bytes()
        database.freeze()
        wait_until(lambda: collector.status()["questdb"]["state"] == "DOWN", "the hang to be noticed")
        let_grow(collector, "hang", 4000)
        grown = collector.resident_bytes() - memory
        database.thaw()
    calm, hung = cadence.between(0, calm_until), cadence.between(calm_until, time.time_ns())
    assert len(hung) >= 6
    assert median(hung) - median(calm) < 0.05
    assert max(hung) < max(2 * FLUSH_S, max(calm) + 0.05)  # a flush that waited for a request would take two seconds
    assert grown < 8_000_000
    assert finish(collector, database, market, directory).problems == []


def test_11_a_table_is_dropped_after_its_sessions_were_over(database: Database, daemon: MakeDaemon) -> None:
    """The next daemon opens no file of sessions that were delivered, until a table that lacks their rows shows up."""
    collector = daemon()
    directories = [write_session(collector.data_dir / f"session_over-{number}", 500) for number in range(3)]

    def rows() -> dict[str, int]:
        sql = "select session_id, count() from tick_prices where session_id ~ '^over-' group by session_id"
        return {str(name): int(count) for name, count in database.query(sql)}

    def opened() -> list[str]:
        links = (Path(f"/proc/{collector.pid}/fd")).iterdir()
        return [str(link.readlink()) for link in links if link.is_symlink() and "session_over-" in str(link.readlink())]

    whole = {f"over-{number}": 500 for number in range(3)}
    collector.start()
    wait_until(lambda: rows() == whole, "the rows")
    wait_until(lambda: not opened(), "the sessions to be laid down")
    assert collector.terminate() == 0
    read_ns = [(directory / "BTC_USDT" / "prices.csv").stat().st_atime_ns for directory in directories]
    collector.start()
    wait_until(lambda: collector.status()["questdb"]["state"] == "LIVE", "the replica to be live")
    assert collector.status()["questdb"]["acknowledged_rows"] == 0
    assert (opened(), collector.status()["questdb"]["lag_rows"]) == ([], 0)
    assert [(directory / "BTC_USDT" / "prices.csv").stat().st_atime_ns for directory in directories] == read_ns
    assert not collector.ask("verify", session="over-1")["problems"]

    database.query("drop table tick_prices")
    collector.run("db", "migrate", "--repair", "--yes")
    wait_until(lambda: rows() == whole, "the rows again")


def test_13_the_disk_of_the_database_is_full(
    daemon: MakeDaemon, exchange: MakeExchange, small_disk: Callable[[int], Disk], tmp_path: Path
) -> None:
    """The server refuses, suspends tables or dies; the CSV goes on, and once there is room the tables are whole."""
    disk = small_disk(512)
    small_pages = dict.fromkeys(SMALL_PAGES, "262144")  # instead of 16 MB for each column of each table
    own = Database(disk.folder / "questdb", extra_environment=small_pages)
    collector = Daemon(tmp_path / "own", data_dir=tmp_path / "own-data", environment=own.environment())
    try:
        market = exchange("BTC_USDT", rate=2000)
        collector.start()
        directory = begin(collector, market, "db-disk-full")
        disk.fill()

        def hurt() -> bool:
            return not own.server.running or collector.status()["questdb"]["state"] != "LIVE"

        wait_until(hurt, "the full disk to be felt", 90)
        let_grow(collector, "db-disk-full", 2000)
        disk.empty()

        def whole() -> bool:
            if not own.server.running:  # a full disk can end the Java process, at once or a while later
                own.start()
            return bool(collector.status()["questdb"]["state"] == "LIVE")

        wait_until(whole, "the replica to be live", 90)
        assert finish(collector, own, market, directory).problems == []
    finally:
        collector.end()
        own.end()


def test_12_the_database_loses_rows_that_it_took(
    database: Database, daemon: MakeDaemon, exchange: MakeExchange
) -> None:
    """Files of a table's log of accepted rows are gone: it is led past them, and gets those rows again from the CSV."""
    collector, market = daemon(), exchange(rate=1000)
    collector.start()
    directory = begin(collector, market, "lost-log")
    collector.wait_delivered()

    def is_told() -> bool:
        return any(event["event"] == "replicator.lost_transactions_skipped" for event in collector.events())

    def accepted() -> bool:
        return database.query("select writerTxn + 1 < sequencerTxn from wal_tables() where name = 'tick_prices'") == [
            [True]
        ]

    for _ in range(5):  # the daemon resumes it at its next look, which may come first
        database.suspend("tick_prices")
        with contextlib.suppress(TrialError):
            wait_until(accepted, "rows that are accepted and not applied", bound_s=5)
        database.kill()
        for events in (database.server.root / "db").glob("tick_prices~*/wal*/*/_event*"):
            events.unlink()
        database.start()
        let_grow(collector, "lost-log", 2000)
        if is_told():
            break
    assert is_told()
    assert finish(collector, database, market, directory).problems == []


def test_14_the_database_is_restored_from_an_old_backup(
    database: Database, daemon: MakeDaemon, exchange: MakeExchange, tmp_path: Path
) -> None:
    """A cold copy of an earlier moment in place of the tables: what it lacks is sent again without being asked."""
    collector, market = daemon(), exchange(rate=1000)
    collector.start()
    directory = begin(collector, market, "old-backup")
    collector.wait_delivered()
    database.kill()
    database.copy(tmp_path / "backup")
    database.start()
    let_grow(collector, "old-backup", 3000)
    wait_until(lambda: collector.status()["questdb"]["lag_rows"] < 1000, "the rows to be delivered")
    database.kill()
    database.restore(tmp_path / "backup")
    database.start()
    wait_until(lambda: collector.status()["questdb"]["resent_rows"] > 1000, "the rows to be sent again")
    assert finish(collector, database, market, directory).problems == []


def test_18_a_backlog_costs_no_memory(database: Database, daemon: MakeDaemon, tmp_path: Path) -> None:
    """Half a million rows of a session from elsewhere are delivered in memory that does not grow with them."""
    collector = daemon()
    rows = 500_000
    collector.start()
    written = write_session(tmp_path / "session_backlog", rows)
    collector.ask("import", session=str(written), timeout_s=100)
    first_peak = peak_bytes(collector.pid)
    again = write_session(tmp_path / "session_backlog2", 2 * rows)
    collector.ask("import", session=str(again), timeout_s=100)
    assert peak_bytes(collector.pid) - first_peak < 20_000_000
    database.wait_applied()
    found = database.query(
        "select session_id, count(), count_distinct(seq), min(seq), max(seq) from tick_prices"
        " where session_id in ('backlog', 'backlog2') order by session_id"
    )
    assert found == [["backlog", rows, rows, 1, rows], ["backlog2", 2 * rows, 2 * rows, 1, 2 * rows]]


def test_28_sigterm_during_an_outage(database: Database, daemon: MakeDaemon, exchange: MakeExchange) -> None:
    """A server that hangs does not keep the daemon: it ends in time with 0, and its successor delivers the rest."""
    collector, market = daemon(), exchange()
    collector.start()
    directory = begin(collector, market, "sigterm")
    database.freeze()
    let_grow(collector, "sigterm", 800)
    begun = time.monotonic()
    assert collector.terminate(60) == os.EX_OK
    assert time.monotonic() - begun < 45  # the deadline is 30 s, and nothing waits for ever
    database.thaw()
    collector.start()
    collector.wait_delivered()
    assert finish(collector, database, market, directory).problems == []


def test_30_times_that_no_clock_shows(database: Database, daemon: MakeDaemon, tmp_path: Path) -> None:
    """Rows of 1970, 2262 and before the epoch stay in the CSV; what the server refuses is put aside, nothing else."""
    collector = daemon()
    collector.start()
    times = [1_700_000_000_000_000, 0, 1, -5, 9_214_646_400_000_000, 2**63 - 1, 1_700_000_000_000_001]
    directory = write_session(tmp_path / "session_times", times_us=times)
    answer = collector.ask("import", session=str(directory), timeout_s=60)
    database.wait_applied()
    (count,) = database.query("select count() from tick_prices where session_id = 'times'")[0]
    refused = (directory / "rejected.csv").read_text().splitlines()[1:] if answer["rejected_rows"] else []
    assert count + len(refused) == len(times)
    assert len(refused) == answer["rejected_rows"]
    assert count >= 4
    wait_until(lambda: collector.status()["questdb"]["state"] == "LIVE", "the replica to be live")
