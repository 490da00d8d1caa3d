"""The first, the second, … the n-th operation fails, until a run in which none does: once, and for good.

Of a whole session: start, flush, rotate, end, recover; then of its delivery, with the files and with the network.
"""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import pytest
from structlog.typing import FilteringBoundLogger

from collector.candles.clock import ExchangeClock
from collector.clock import ManualClock
from collector.config import Config, QuestDB
from collector.errors import CollectorError
from collector.events import Trade
from collector.feeds.status import FeedStatus
from collector.session.manifest import load_manifest
from collector.session.session import Session, create_manifest
from collector.session.states import mark_interrupted
from collector.storage.courier import Courier
from collector.storage.csv_log import Commit, CsvLog, Write
from collector.storage.failing_files import FailingFiles
from collector.storage.files import OperatingSystem
from collector.storage.memory_transport import FailingTransport, MemoryQuestDB, MemoryTransport
from collector.storage.outbox import Outbox
from collector.streams import PRICES

SYMBOL = "BTC_USDT"
START_US = 1_700_000_100_000_000
CONFIG = Config.model_validate(
    {
        "session": {"flush_interval_s": 0.002, "heartbeat_interval_s": 0.01},
        "daemon": {"stop_deadline_s": 0.05},
        "csv": {"rotate": "none", "rotate_bytes": 400},
    }
)


class Feed:
    """Gives some trades, flush after flush, and ends."""

    def __init__(self, session: Session, first_id: int, count: int) -> None:
        self.first_data = asyncio.Event()
        self.finished = asyncio.Event()
        self._session = session
        self._ids = range(first_id, first_id + count)

    async def run(self) -> None:
        self.first_data.set()
        for trade_id in self._ids:
            self._session.buffer.add_trade(
                Trade(SYMBOL, START_US + trade_id, "1.5", "2", "buy", trade_id, START_US, "ws")
            )
            if trade_id % 5 == 0:
                await asyncio.sleep(0.004)
        self.finished.set()

    async def stop(self) -> None: ...

    def status(self) -> FeedStatus:
        return FeedStatus("sim", [], [], 0, 0, 0.0)


def run(work: Awaitable[Any]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(30):
            return await work

    return asyncio.run(bounded())


def whole_rows(directory: Path) -> list[tuple[int, int]]:
    """Return number and trade id of every row, as the next start finds them."""
    log = CsvLog(directory, files=OperatingSystem())
    file = log.open(PRICES, SYMBOL)
    rows = [(int(row[6]), int(row[5])) for row in log.rows(file)]
    log.close()
    return rows


@pytest.mark.parametrize(("for_good", "step"), [(False, 1), (True, 23)])
def test_whichever_file_operation_fails_a_session_s_rows_are_there_once_or_named(
    tmp_path: Path, executor: Executor, clock: ManualClock, log: FilteringBoundLogger, for_good: bool, step: int
) -> None:
    """Start, flush, rotate, end; then the same session is recovered and goes on, healed."""

    async def live(files: FailingFiles, directory: Path, manifest: Any, first_id: int) -> tuple[Session, list[Commit]]:
        commits: list[Commit] = []
        session = Session(
            manifest, data_dir=directory, config=CONFIG, clock=clock, files=files, executor=executor, log=log,
            exchange_time=ExchangeClock(), on_commit=commits.extend,
        )  # fmt: skip
        await session.prepare()
        await session.run(Feed(session, first_id, 20))  # type: ignore[arg-type]
        return session, commits

    for number in range(1, 600, step):
        folder = tmp_path / f"{number}"
        folder.mkdir()
        files = FailingFiles(OperatingSystem())
        files.fail_at(number, errno.EIO, for_good=for_good)
        manifest = create_manifest(
            session_id="x", exchange="sim", symbols=[SYMBOL], data_types=["prices"], now_us=START_US, config=CONFIG
        )
        session, commits = None, []
        try:
            session, commits = run(live(files, folder, manifest, 1))
        except CollectorError:
            assert files.failed  # it could not begin, and said so
        failed = bool(files.failed)
        files.heal()
        directory = folder / "session_x"
        rows = whole_rows(directory) if directory.is_dir() else []
        assert len(set(rows)) == len(rows) == len({seq for seq, _ in rows}) == len({trade for _, trade in rows})
        committed = max((commit.last_seq for commit in commits if commit.file.stream is PRICES), default=0)
        assert set(range(1, committed + 1)) <= {seq for seq, _ in rows}
        if session is not None and session.state == "completed":
            assert [trade for _, trade in rows] == list(range(1, 21))
        elif session is not None:
            assert session.state == "failed"
            assert session.manifest.reason
        if not failed:
            assert number > 30
            return
        if (directory / "session.json").exists():
            again = load_manifest(directory)
            again.state = "active"
            assert mark_interrupted(again, clock.now_us())
            goes_on, _ = run(live(files, folder, again, 101))
            assert goes_on.state == "completed", goes_on.manifest.reason
            after = whole_rows(directory)
            assert after[: len(rows)] == rows
            assert [trade for _, trade in after[len(rows) :]] == list(range(101, 121))
    pytest.fail("there was no run without a failure")


class Silent:
    def debug(self, event: str, **facts: object) -> None: ...

    info = warning = error = debug


def deliverer(directory: Path, transport: Any, files: Any, clock: ManualClock) -> tuple[Outbox, Courier]:
    """Begin to deliver a directory, as a new process does."""
    outbox = Outbox(files=files, clock=clock, log=Silent())
    config = QuestDB(batch_max_rows=4, check_interval_s=10)
    courier = Courier(transport, outbox, config=config, clock=clock, log=Silent())
    outbox.add_session("x", "sim", directory)
    outbox.add_file("x", PRICES, SYMBOL, directory / SYMBOL / "prices.csv")
    return outbox, courier


@pytest.mark.parametrize("for_good", [False, True])
@pytest.mark.parametrize("what", ["files", "network", "answers"])
def test_whichever_operation_of_delivery_fails_every_row_arrives_once(
    tmp_path: Path, what: str, for_good: bool
) -> None:
    """A failure for good lasts until it is mended; then everything arrives, and nothing twice."""
    directory = tmp_path / "session_x"
    csv = CsvLog(directory, files=OperatingSystem())
    file = csv.open(PRICES, SYMBOL)
    for _ in range(3):
        lines = [
            f"{START_US + n},1.5,2,3.0,buy,{n},{n},{START_US},ws,,\n" for n in range(file.next_seq, file.next_seq + 10)
        ]
        csv.append([Write(file, "".join(lines).encode(), 10)])
        csv.rotate(file)
    csv.close()

    for number in range(1, 500):
        (directory / "cursor.json").unlink(missing_ok=True)
        server, clock = MemoryQuestDB(), ManualClock()
        transport, files = FailingTransport(MemoryTransport(server)), FailingFiles(OperatingSystem())
        if what == "files":
            files.fail_at(number, errno.EIO, for_good=for_good)
        else:
            transport.fail_at(number, for_good=for_good, lost=what == "answers")

        outbox, courier = deliverer(directory, transport, files, clock)
        for turn in range(40):
            if turn == 10:
                outbox.save_due(all_now=True)
                outbox, courier = deliverer(directory, transport, files, clock)  # with any cursor
            if turn == 20:
                transport.heal()
                files.heal()
            courier.work()
            outbox.save_due()
            clock.advance(31)
            seqs = [int(str(row["seq"])) for row in server.shown("tick_prices")]
            assert set(seqs) <= set(range(1, 31))
        assert seqs == list(range(1, 31)), number
        if not (transport.failed or files.failed):
            return
    pytest.fail("there was no run without a failure")
