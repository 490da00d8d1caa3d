"""A session collects, ends in a state that says how, and goes on where it was broken off."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Awaitable, Callable
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import LogCapture
from structlog.typing import FilteringBoundLogger

from collector.candles.aggregator import Aggregator
from collector.candles.clock import ExchangeClock
from collector.clock import ManualClock
from collector.config import Config
from collector.errors import LogError, UsageError
from collector.events import BookTop, Gap, Trade
from collector.feeds.sink import ResumePoint
from collector.feeds.status import ConnectionStatus, FeedStatus, StreamStatus
from collector.reading.csv_rows import CsvHistory
from collector.session.manifest import Manifest, hash_file, load_manifest
from collector.session.session import Session, SessionStatus, create_manifest, interrupted_streams
from collector.session.states import mark_interrupted
from collector.storage.csv_log import Commit
from collector.storage.failing_files import FailingFiles
from collector.streams import ORDERBOOK, PRICES, book_stream

SYMBOL = "BTC_USDT"
START_US = 1_700_000_100_000_000
CONFIG = Config.model_validate(
    {
        "session": {"flush_interval_s": 0.005, "heartbeat_interval_s": 0.02},
        "daemon": {"stop_deadline_s": 5},
        "buffer": {"max_rows": 1000},
    }
)


def trade(number: int, **changes: Any) -> Trade:
    fields: dict[str, Any] = {
        "symbol": SYMBOL, "timestamp_us": START_US + number, "price": "1.5", "volume": "2", "side": "buy",
        "trade_id": number, "received_us": START_US + number,
    }  # fmt: skip
    return Trade(**{**fields, **changes})


def top(number: int) -> BookTop:
    return BookTop(SYMBOL, START_US + number, [("1", "2")], [("3", "4")], number, START_US)


class FakeFeed:
    """A feed that does what a test says, and stops when it is told to."""

    def __init__(self, script: Callable[[FakeFeed], Awaitable[None]] | None = None) -> None:
        self.first_data = asyncio.Event()
        self.finished = asyncio.Event()
        self.stopped = asyncio.Event()
        self.calls: list[str] = []
        self._script = script

    async def run(self) -> None:
        self.calls.append("run")
        if self._script is not None:
            await self._script(self)
        await self.stopped.wait()

    async def stop(self) -> None:
        self.calls.append("stop")
        self.stopped.set()

    def status(self) -> FeedStatus:
        return FeedStatus("sim", [], [], 0, 0, 0.0)


class Bench:
    """Makes sessions in one data directory, and keeps what they told."""

    def __init__(
        self, data_dir: Path, files: FailingFiles, clock: ManualClock, executor: Executor, log: FilteringBoundLogger
    ) -> None:
        self.data_dir = data_dir
        self.files = files
        self.clock = clock
        self.executor = executor
        self.log = log
        self.commits: list[Commit] = []
        self.told: list[SessionStatus] = []

    def manifest(self, **changes: Any) -> Manifest:
        fields: dict[str, Any] = {
            "session_id": "x", "exchange": "sim", "symbols": [SYMBOL], "data_types": ["prices", "orderbook"],
            "now_us": self.clock.now_us(), "config": CONFIG,
        }  # fmt: skip
        return create_manifest(**{**fields, **changes})

    def session(self, manifest: Manifest | None = None, **options: Any) -> Session:
        def candles(symbol: str, directory: Path, resumed: bool) -> Aggregator:
            history = CsvHistory(directory, symbol)
            aggregator = Aggregator(symbol, grace_us=0, history=history)
            if resumed:
                aggregator.rebuild(history)
            return aggregator

        defaults: dict[str, Any] = {
            "data_dir": self.data_dir, "config": CONFIG, "clock": self.clock, "files": self.files,
            "executor": self.executor, "log": self.log, "exchange_time": ExchangeClock(), "candles": candles,
            "on_commit": self.commits.extend, "on_status": self.told.append,
        }  # fmt: skip
        return Session(manifest or self.manifest(), **{**defaults, **options})

    def broken_off(self) -> Manifest:
        """Return the manifest of a session whose process ended, as the next one finds it."""
        manifest = load_manifest(self.data_dir / "session_x")
        assert mark_interrupted(manifest, self.clock.now_us())
        return manifest

    def states(self) -> list[str]:
        told = [status.state for status in self.told]
        return [state for state, before in zip(told, [None, *told], strict=False) if state != before]


@pytest.fixture
def bench(
    tmp_path: Path, files: FailingFiles, clock: ManualClock, executor: Executor, log: FilteringBoundLogger
) -> Bench:
    return Bench(tmp_path, files, clock, executor, log)


def run(work: Awaitable[Any]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(30):
            return await work

    return asyncio.run(bounded())


def rows(session: Session, stream: str, symbol: str = SYMBOL) -> list[list[str]]:
    return list(
        session.csv.rows(next(f for f in session.stream_files if (f.stream.name, f.symbol or "") == (stream, symbol)))
    )


def ids(session: Session) -> list[int]:
    return [int(row[5]) for row in rows(session, "prices")]


def gaps(session: Session) -> list[tuple[str, str, int | None, int | None]]:
    return [(entry.stream, entry.cause, entry.from_id, entry.to_id) for entry in session.ledger.entries()]


async def collect(bench: Bench, session: Session, script: Callable[[FakeFeed], Awaitable[None]]) -> FakeFeed:
    feed = FakeFeed(script)
    await session.prepare()
    await session.run(feed)
    return feed


class TestLife:
    def test_a_session_collects_until_it_is_stopped(self, bench: Bench, events: LogCapture) -> None:
        """Everything that was received is written, candles and hashes too, and the manifest says so."""
        session = bench.session()

        async def script(feed: FakeFeed) -> None:
            for number in range(10):
                session.buffer.add_trade(trade(number))
            session.buffer.add_book(top(1))
            feed.first_data.set()
            await asyncio.sleep(0)
            session.buffer.add_trade(trade(10))
            session.request_stop("a person stopped it")

        feed = run(collect(bench, session, script))
        assert feed.calls == ["run", "stop"]
        assert ids(session) == list(range(11))
        manifest = load_manifest(session.directory)
        assert (manifest.state, manifest.reason) == ("completed", "a person stopped it")
        assert bench.states()[-2:] == ["stopping", "completed"]
        assert (manifest.received, manifest.written, manifest.dropped) == (12, 12, 0)
        record = manifest.record("prices", SYMBOL)
        assert record is not None
        assert (record.path, record.rows, record.next_seq) == ("BTC_USDT/prices.csv", 11, 12)
        assert (record.first_id, record.last_id) == ("0", "10")
        assert record.hashes == {"prices.csv": hash_file(session.directory / "BTC_USDT" / "prices.csv")}
        assert {(row[1], row[12]) for row in rows(session, "ohlcv")} >= {("1m", "false"), ("1d", "false")}
        assert {commit.file.stream.name for commit in bench.commits} == {"prices", "orderbook", "ohlcv"}
        said = [entry["event"] for entry in events.entries]
        assert said[0] == "data_collection.session_initialized"
        assert said.count("data_collection.session_state_changed") == len(manifest.history) - 1

    def test_it_is_active_once_data_came(self, bench: Bench) -> None:
        """And is told at every heartbeat that it lives."""
        session = bench.session()

        async def script(feed: FakeFeed) -> None:
            feed.first_data.set()
            while len([s for s in bench.told if s.state == "active"]) < 3:
                await asyncio.sleep(0.001)
            assert load_manifest(session.directory).state == "active"
            session.request_stop()

        run(collect(bench, session, script))
        assert bench.states() == ["starting", "active", "stopping", "completed"]
        assert bench.told[-1].started_us == bench.clock.now_us()

    def test_its_duration_ends_it(self, bench: Bench) -> None:
        """By the time that passes, not by the wall clock."""

        async def script(feed: FakeFeed) -> None:
            bench.clock.step_wall(-3600)

        session = bench.session(bench.manifest(duration_s=0.01))
        run(collect(bench, session, script))
        assert (session.state, session.manifest.reason) == ("completed", "its duration is over")

    def test_the_end_of_its_feed_ends_it(self, bench: Bench) -> None:
        """As a replay's."""
        session = bench.session()

        async def script(feed: FakeFeed) -> None:
            session.buffer.add_trade(trade(1))
            feed.finished.set()
            feed.stopped.set()

        run(collect(bench, session, script))
        assert (session.state, session.manifest.reason) == ("completed", "the feed has ended")
        assert ids(session) == [1]

    def test_a_feed_that_fails_fails_the_session_with_its_rows_written(self, bench: Bench) -> None:
        """And raises nothing, because the others go on."""
        session = bench.session()

        async def script(feed: FakeFeed) -> None:
            session.buffer.add_trade(trade(1))
            raise RuntimeError("a bug")

        run(collect(bench, session, script))
        assert (session.state, session.manifest.reason) == ("failed", "The feed failed: a bug")
        assert ids(session) == [1]

    def test_a_feed_that_does_not_stop_is_cut_off(self, bench: Bench) -> None:
        """After the deadline; the session is complete all the same."""
        config = CONFIG.model_copy(update={"daemon": CONFIG.daemon.model_copy(update={"stop_deadline_s": 0.05})})
        session = bench.session(config=config)

        async def scenario() -> None:
            feed = FakeFeed()

            async def never() -> None:
                await asyncio.Event().wait()

            feed.stop = never  # type: ignore[method-assign]
            await session.prepare()
            session.buffer.add_trade(trade(1))
            session.request_stop()
            await session.run(feed)

        run(scenario())
        assert (session.state, ids(session)) == ("completed", [1])

    def test_a_cancelled_session_keeps_its_rows_and_is_found_interrupted(self, bench: Bench) -> None:
        """Whoever cancels it ends the process."""
        session = bench.session()

        async def scenario() -> None:
            await session.prepare()
            async with asyncio.TaskGroup() as tasks:
                running = tasks.create_task(session.run(FakeFeed()))
                await asyncio.sleep(0.01)
                session.buffer.add_trade(trade(1))
                running.cancel()

        run(scenario())
        assert ids(session) == [1]
        assert bench.broken_off().state == "interrupted"

    def test_a_listener_that_fails_does_not_end_it(self, bench: Bench) -> None:
        """It is said in the log."""

        def explode(_: SessionStatus) -> None:
            raise RuntimeError("a bug")

        session = bench.session(on_status=explode)

        async def script(feed: FakeFeed) -> None:
            session.request_stop()

        run(collect(bench, session, script))
        assert session.state == "completed"

    def test_nothing_is_written_over_another_session(self, bench: Bench) -> None:
        """An id that exists is refused."""
        run(bench.session().prepare())
        with pytest.raises(UsageError, match="exists already"):
            run(bench.session().prepare())

    def test_a_directory_that_cannot_be_made_is_a_clear_error(self, bench: Bench) -> None:
        """Before anything is collected."""
        bench.files.fail_next("make_folder", errno.EACCES)
        with pytest.raises(LogError, match="could not be made"):
            run(bench.session().prepare())

    def test_without_prices_there_are_no_candles(self, bench: Bench) -> None:
        """Nor their files."""
        session = bench.session(bench.manifest(data_types=["orderbook"]))
        run(session.prepare())
        assert sorted(path.name for path in (session.directory / SYMBOL).iterdir()) == ["orderbook.csv"]


class TestTrouble:
    def test_a_full_disk_degrades_it_until_there_is_room(self, bench: Bench) -> None:
        """It recovers by itself."""
        session = bench.session()

        async def script(feed: FakeFeed) -> None:
            feed.first_data.set()
            await _until(lambda: session.state == "active")
            bench.files.fail_at(1, errno.ENOSPC, for_good=True)
            session.buffer.add_trade(trade(1))
            await _until(lambda: session.state == "degraded")
            assert "No space" in session.status().reason
            bench.files.heal()
            await _until(lambda: session.state == "active")
            session.request_stop()

        run(collect(bench, session, script))
        assert bench.states() == ["starting", "active", "degraded", "active", "stopping", "completed"]
        assert ids(session) == [1]

    def test_an_error_that_cannot_pass_fails_it_with_the_reason(self, bench: Bench) -> None:
        """What was lost is in the manifest too, because the ledger may be unwritable."""
        session = bench.session()

        async def script(feed: FakeFeed) -> None:
            feed.first_data.set()
            await _until(lambda: session.state == "active")
            bench.files.fail_next("write", errno.EROFS, times=100)
            session.buffer.add_trade(trade(7))

        run(collect(bench, session, script))
        manifest = load_manifest(session.directory)
        assert manifest.state == "failed"
        assert "Read-only" in manifest.reason
        assert "ids 7 to 7" in manifest.lost[0]
        assert (manifest.received, manifest.written, manifest.dropped) == (1, 0, 1)


class TestResuming:
    def _record(self, bench: Bench, *events: Trade | BookTop | Gap) -> Session:
        """Write some rows, and break off as a killed process does."""
        session = bench.session()

        async def scenario() -> None:
            await session.prepare()
            assert session.resume_points() == {}
            for event in events:
                if isinstance(event, Trade):
                    session.buffer.add_trade(event)
                elif isinstance(event, Gap):
                    session.buffer.add_gap(event)
                else:
                    session.buffer.add_book(event)
            assert session._flusher is not None
            await session._flusher.flush()
            session.csv.close()

        run(scenario())
        return session

    def test_it_goes_on_behind_its_last_rows(self, bench: Bench) -> None:
        """The feed learns where; numbers and counts go on; the candles are whole."""
        self._record(bench, trade(1), trade(2), top(8))
        session = bench.session(bench.broken_off())

        async def script(feed: FakeFeed) -> None:
            session.buffer.add_gap(Gap(SYMBOL, "prices", "restart", None, START_US + 5, 3, 4, 2))
            session.buffer.add_trade(trade(5))
            session.request_stop()

        run(collect(bench, session, script))
        assert session.resume_points() == {
            SYMBOL: ResumePoint(
                last_trade_id=2,
                last_trade_us=START_US + 2,
                last_update_id=8,
                last_book_us=START_US + 8,
                last_event_us=START_US + 8,
            )
        }
        assert [(row[5], row[PRICES.seq_index]) for row in rows(session, "prices")] == [
            ("1", "1"), ("2", "2"), ("5", "3"),
        ]  # fmt: skip
        (entry,) = session.ledger.entries()
        assert (entry.cause, entry.from_us, entry.to_us, entry.from_id, entry.to_id) == (
            "restart", START_US + 2, START_US + 5, 3, 4,
        )  # fmt: skip
        minutes = [row for row in rows(session, "ohlcv") if row[1] == "1m"]
        assert (minutes[-1][8], minutes[-1][13]) == ("3", "gap")
        status = session.status()
        assert (status.received, status.written, status.prices_count, status.state) == (4, 4, 3, "completed")
        assert [change.state for change in session.manifest.history] == [
            "starting", "interrupted", "starting", "stopping", "completed",
        ]  # fmt: skip

    def test_holes_that_were_still_awaited_are_entered(self, bench: Bench) -> None:
        """And what the ledger knows is not entered again; the feed is told of both."""
        known = Gap(SYMBOL, "prices", "sequence", 1, 2, 2, 3, 2)
        self._record(bench, trade(1), known, trade(4), trade(9), trade(7))
        session = bench.session(bench.broken_off())
        run(session.prepare())
        assert gaps(session) == [("prices", "sequence", 2, 3), ("prices", "restart", 5, 6), ("prices", "restart", 8, 8)]
        assert session.resume_points()[SYMBOL].last_trade_id == 9
        assert session.resume_points()[SYMBOL].holes == ((2, 3), (5, 6), (8, 8))

    def test_a_late_trade_whose_row_in_the_ledger_was_lost_is_entered(self, bench: Bench) -> None:
        """A crash came between the trade's line and the ledger's: the trade is there, so it is not missing."""
        known = Gap(SYMBOL, "prices", "sequence", 1, 5, 2, 4, 3)
        self._record(bench, trade(1), known, trade(5), trade(3))
        session = bench.session(bench.broken_off())
        run(session.prepare())
        assert [(*gap, entry.state) for gap, entry in zip(gaps(session), session.ledger.entries(), strict=True)] == [
            ("prices", "sequence", 2, 2, "open"),
            ("prices", "sequence", 4, 4, "open"),
            ("prices", "restart", 3, 3, "repaired"),
        ]
        assert session.resume_points()[SYMBOL].holes == ((2, 2), (4, 4))

    def test_a_session_keeps_its_depth(self, bench: Bench) -> None:
        """Ten levels in the CSV, before and after it was broken off, whatever the configuration says meanwhile."""
        depth = [(f"{9 - n}", f"{n}.5") for n in range(9)]
        state = BookTop(SYMBOL, START_US + 8, depth, [("10", "1")], 8, START_US)
        session = bench.session(bench.manifest(book_levels=10))

        async def scenario() -> None:
            await session.prepare()
            session.buffer.add_book(state)
            assert session._flusher is not None
            await session._flusher.flush()
            await session.save()
            session.csv.close()

        run(scenario())
        manifest = bench.broken_off()
        assert manifest.book_levels == 10
        again = bench.session(manifest)

        async def script(feed: FakeFeed) -> None:
            again.buffer.add_book(BookTop(SYMBOL, START_US + 200_000, depth, [], 9, START_US))
            again.request_stop()

        run(collect(bench, again, script))
        assert again.resume_points()[SYMBOL].last_update_id == 8
        lines = (again.directory / SYMBOL / "orderbook.csv").read_text().splitlines()
        assert lines[0] == book_stream(10).header.strip()
        levels = ",".join(f"{price},{size}" for price, size in depth)
        assert lines[1:] == [
            f"{START_US + 8},{levels},,,10,1{',,' * 9},8,1,{START_US}",
            f"{START_US + 200_000},{levels},,{',,' * 10},9,2,{START_US}",
        ]
        record = again.manifest.record("orderbook", SYMBOL)
        assert record is not None
        assert (record.first_id, record.last_id, record.rows) == ("8", "9", 2)

    def test_without_numbers_the_pause_is_entered_by_its_times(self, bench: Bench) -> None:
        """When the next row comes."""
        self._record(bench, trade(1, trade_id="abc"))
        session = bench.session(bench.broken_off(), numbered_trades=False)

        async def script(feed: FakeFeed) -> None:
            session.buffer.add_trade(trade(9, trade_id="def"))
            session.request_stop()

        run(collect(bench, session, script))
        assert session.resume_points()[SYMBOL].last_trade_id is None
        (entry,) = session.ledger.entries()
        assert (entry.cause, entry.from_us, entry.to_us, entry.from_id) == ("restart", START_US + 1, START_US + 9, None)

    def test_lost_numbers_are_a_row_of_the_ledger_and_stay_unused(self, bench: Bench) -> None:
        """Whoever knows the highest: the manifest, the cursor or the database; entered once."""
        before = self._record(bench, trade(1), trade(2), trade(3))
        path = before.directory / SYMBOL / "prices.csv"
        path.write_bytes(b"".join(path.read_bytes().splitlines(keepends=True)[:2]))
        for _ in range(2):
            session = bench.session(bench.broken_off(), known_seq=lambda stream, _: 3 if stream is PRICES else 0)
            run(session.prepare())
            assert gaps(session) == [("prices", "log_damaged", 2, 3)]
            assert next(f for f in session.stream_files if f.stream is PRICES).next_seq == 4
            assert session.resume_points()[SYMBOL].last_trade_id == 1
            assert session._flusher is not None
            run(session._flusher.flush())
            session.csv.close()
        assert next(f for f in session.stream_files if f.stream is ORDERBOOK).next_seq == 1

    def test_a_session_without_rows_begins_anew(self, bench: Bench) -> None:
        """It was broken off before anything came."""
        self._record(bench)
        session = bench.session(bench.broken_off())
        run(session.prepare())
        assert session.resume_points() == {SYMBOL: ResumePoint()}
        assert session.state == "starting"


def test_streams_on_a_closed_connection_or_without_data_are_interrupted() -> None:
    """Only those of trades: candles are made of them."""

    def connection(number: int, state: Any) -> ConnectionStatus:
        return ConnectionStatus(number, "", state, 0, 0, 0, 0, 0, None, "")

    def stream(symbol: str, name: str, on: int, state: Any) -> StreamStatus:
        return StreamStatus(symbol, name, on, state, 0, 0, 0, None, None, None, None, None, None)

    status = FeedStatus(
        "sim",
        [connection(1, "open"), connection(2, "waiting")],
        [
            stream("A", "prices", 1, "live"),
            stream("B", "prices", 2, "live"),
            stream("C", "prices", 1, "silent"),
            stream("D", "orderbook", 2, "live"),
        ],
        0,
        0,
        0.0,
    )
    assert interrupted_streams(status) == {("B", "prices"), ("C", "prices")}


async def _until(condition: Callable[[], bool]) -> None:
    while not condition():
        await asyncio.sleep(0.001)
