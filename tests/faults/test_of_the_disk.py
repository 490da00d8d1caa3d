"""What the disk, the system's limits and a sudden end can do to a daemon that collects."""

from __future__ import annotations

import random
import resource
import time
from collections.abc import Callable
from pathlib import Path

from trials.oracle import changed_since, fingerprint, read_rows
from trials.parts import Daemon, Database, Disk, Exchange, wait_until
from trials.sessions import begin, finish, let_grow

MakeDaemon = Callable[..., Daemon]
MakeExchange = Callable[..., Exchange]


def test_19_the_daemon_is_killed_anywhere(database: Database, daemon: MakeDaemon, exchange: MakeExchange) -> None:
    """Kills at any moment: what was in the files stays their beginning, and the ledger names the rest."""
    seed = random.randrange(10**6)
    print(f"seed {seed}")
    chance = random.Random(seed)
    collector, market = daemon(), exchange("BTC_USDT", "ETH_USDT", rate=1000)
    collector.start()
    directory = begin(collector, market, "killed")
    for _ in range(5):
        time.sleep(chance.uniform(0.0, 1.2))  # the moment is what is tried here
        collector.kill()
        before = fingerprint(directory)
        collector.start()
        collector.wait_state("killed", "active")
        assert changed_since(directory, before) == []
    let_grow(collector, "killed", 500)
    verdict = finish(collector, database, market, directory)
    assert verdict.problems == []
    assert verdict.figures["trades missing"] > 0


def test_23_the_disk_is_full(
    database: Database, daemon: MakeDaemon, exchange: MakeExchange, small_disk: Callable[[int], Disk]
) -> None:
    """Rows wait in memory, the database gets none that the CSV lacks, and all go in once there is room."""
    disk = small_disk(64)
    collector, market = daemon(data_dir=disk.folder / "data"), exchange(rate=1000)
    collector.start()
    directory = begin(collector, market, "disk-full")
    disk.fill()
    wait_until(lambda: collector.session("disk-full")["buffer"]["pending"] > 2000, "rows to wait")
    status = collector.session("disk-full")
    assert status["state"] == "degraded"
    assert "No space left" in status["reason"]
    in_files = sum(1 for _ in read_rows(directory, "prices", "BTC_USDT"))
    (delivered,) = database.query("select count() from tick_prices where session_id = 'disk-full'")[0]
    assert delivered <= in_files
    disk.empty()
    collector.wait_state("disk-full", "active")
    verdict = finish(collector, database, market, directory)
    assert verdict.problems == []
    assert verdict.figures["trades missing"] == 0


def test_23_the_disk_is_nearly_full(
    database: Database, daemon: MakeDaemon, exchange: MakeExchange, small_disk: Callable[[int], Disk]
) -> None:
    """It is said before a row has to wait, rows go on to be written, and it is over once there is room."""
    disk = small_disk(64)
    collector, market = daemon(data_dir=disk.folder / "data", reserve_bytes=20_000_000), exchange(rate=1000)
    collector.start()
    directory = begin(collector, market, "nearly-full")
    disk.fill(leave_bytes=10_000_000)
    collector.wait_state("nearly-full", "degraded")
    assert "csv.reserve_bytes (20,000,000)" in collector.session("nearly-full")["reason"]
    let_grow(collector, "nearly-full", 1000)
    assert collector.session("nearly-full")["state"] == "degraded"
    disk.empty()
    collector.wait_state("nearly-full", "active")
    verdict = finish(collector, database, market, directory)
    assert verdict.problems == []
    assert verdict.figures["trades missing"] == 0


def test_23_a_file_may_not_grow(database: Database, daemon: MakeDaemon, exchange: MakeExchange) -> None:
    """A write that the system cuts short (a limit of the file's size) leaves no torn line and loses nothing."""
    collector, market = daemon(), exchange(rate=1000)
    collector.start()
    directory = begin(collector, market, "file-limit")
    path = directory / "BTC_USDT" / "prices.csv"
    before = collector.limit(resource.RLIMIT_FSIZE, path.stat().st_size + 1000)
    collector.wait_state("file-limit", "degraded")
    assert path.read_bytes().endswith(b"\n")
    collector.limit(resource.RLIMIT_FSIZE, before)
    collector.wait_state("file-limit", "active")
    verdict = finish(collector, database, market, directory)
    assert verdict.problems == []
    assert verdict.figures["trades missing"] == 0


def test_25_a_file_is_deleted_under_us(database: Database, daemon: MakeDaemon, exchange: MakeExchange) -> None:
    """The rows that are gone are named by their numbers, which are not used again; collecting goes on in a new file."""
    collector, market = daemon(), exchange()
    collector.start()
    directory = begin(collector, market, "deleted")
    (directory / "BTC_USDT" / "prices.csv").unlink()

    def damage() -> list[dict[str, str]]:
        return [row for row in read_rows(directory, "gaps") if row["cause"] == "log_damaged"]

    wait_until(damage, "the loss to be in the ledger")
    let_grow(collector, "deleted", 400)
    (gap,) = damage()
    assert (gap["stream"], gap["from_id"], gap["state"]) == ("prices", "1", "unrecoverable")
    first = next(read_rows(directory, "prices", "BTC_USDT"))
    assert int(first["seq"]) == int(gap["to_id"]) + 1
    assert collector.session("deleted")["state"] == "active"
    collector.ask("stop", every=True)
    collector.wait_delivered()
    (last,) = database.query("select max(seq) from tick_prices where session_id = 'deleted'")[0]
    assert last == sum(1 for _ in read_rows(directory, "prices", "BTC_USDT")) + int(gap["to_id"])


def test_26_no_descriptors_are_left(database: Database, daemon: MakeDaemon, exchange: MakeExchange) -> None:
    """Without a free descriptor neither exchange nor database can be reached again: it waits, and does not spin."""
    collector, market = daemon(), exchange()
    collector.start()
    directory = begin(collector, market, "descriptors")
    before = collector.limit(resource.RLIMIT_NOFILE, open_files := collector.open_files())
    market.arm("drop", after=100)
    used, begun = cpu_s(collector.pid), time.monotonic()
    for spare in (0, 1, 2, 3, -3):  # what fails differs with how many are left
        collector.limit(resource.RLIMIT_NOFILE, open_files + spare)
        time.sleep(1.2)  # more than a heartbeat
    assert (cpu_s(collector.pid) - used) / (time.monotonic() - begun) < 0.5
    collector.limit(resource.RLIMIT_NOFILE, before)
    wait_until(lambda: market.ask("/admin/status")["clients"] > 0, "the exchange to be reached again")
    let_grow(collector, "descriptors")
    verdict = finish(collector, database, market, directory)
    assert verdict.problems == []


def cpu_s(pid: int) -> float:
    """Return the CPU time that a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text(encoding="ascii").rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / 100


def test_27_a_second_daemon_on_one_directory(daemon: MakeDaemon, tmp_path: Path) -> None:
    """It ends at once, names the one that holds the directory, and leaves it alone."""
    first = daemon(data_dir=tmp_path / "shared")
    second = daemon(data_dir=tmp_path / "shared")
    first.start()
    second.start(wait=False)
    wait_until(lambda: not second.running, "the second one to end")
    assert str(first.pid) in second.output()
    assert first.answers()
