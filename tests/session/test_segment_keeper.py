"""Closed segments are compressed, and deleted only when QuestDB has them, they may go, and the manifest says so."""

from __future__ import annotations

import asyncio
import errno
from collections.abc import Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import LogCapture
from structlog.typing import FilteringBoundLogger

from collector.clock import ManualClock
from collector.config import Csv
from collector.session.manifest import FileRecord, Manifest
from collector.session.segment_keeper import SegmentKeeper, apply_release
from collector.storage.csv_log import CsvLog, Released, Write
from collector.storage.failing_files import FailingFiles
from collector.storage.survey import Span
from collector.streams import ORDERBOOK, PRICES

SYMBOL = "BTC_USDT"
DAY_S = 86_400


class Bench:
    """A session's directory with closed segments, and a keeper whose QuestDB a test plays."""

    def __init__(
        self, directory: Path, files: FailingFiles, clock: ManualClock, log: FilteringBoundLogger, thread: Executor
    ) -> None:
        self.directory = directory
        self.files = files
        self.clock = clock
        self.csv = CsvLog(directory, files=files)
        self.file = self.csv.open(PRICES, SYMBOL)
        self.manifest = Manifest("x", "sim", [SYMBOL], ["prices"], 1)
        self.manifest.files = [FileRecord("prices", SYMBOL, f"{SYMBOL}/prices.csv")]
        self.held = True
        self.noted: list[Sequence[Span]] = []
        self._log = log
        self._thread = thread

    def add(self, rows: int = 10, *, rotate: bool = True) -> None:
        first, now_us = self.file.next_seq, self.clock.now_us()
        lines = [f"{now_us + n},1,2,2,buy,{n},{n},{now_us},ws,,\n" for n in range(first, first + rows)]
        self.csv.append([Write(self.file, "".join(lines).encode(), rows)])
        self.csv.sync()
        if rotate:
            self.csv.rotate(self.file)

    def tend(self, config: Csv, *, ended: bool = False, database: bool = True) -> SegmentKeeper:
        async def held(_session: str, spans: Sequence[Span]) -> set[tuple[str, str | None]]:
            return {(span.stream.name, span.symbol) for span in spans} if self.held else set()

        async def note(spans: Sequence[Span]) -> None:
            self.noted.append(spans)
            assert self.names(), "it is noted before anything is deleted"
            apply_release(self.manifest, spans)

        keeper = SegmentKeeper(
            "x", self.directory, config=config, files=self.files, clock=self.clock, log=self._log,
            thread=self._thread, held=held if database else None, note=note,
        )  # fmt: skip
        asyncio.run(keeper.tend(self.manifest, ended=ended))
        return keeper

    def names(self) -> list[str]:
        return [name for name in self.files.names(self.directory / SYMBOL) if name != "prices.csv"]

    def reopened(self) -> Any:
        self.csv.close()
        record = self.manifest.files[0]
        log = CsvLog(self.directory, files=self.files)
        file = log.open(PRICES, SYMBOL, released=record.released)
        log.close()
        return file


@pytest.fixture
def bench(
    tmp_path: Path, files: FailingFiles, clock: ManualClock, log: FilteringBoundLogger, executor: Executor
) -> Bench:
    return Bench(tmp_path / "session_x", files, clock, log, executor)


class TestCompressing:
    def test_closed_segments_are_compressed_and_the_live_one_stays(self, bench: Bench) -> None:
        """Nothing is deleted where nothing says so."""
        bench.add()
        bench.add()
        bench.add(3, rotate=False)
        keeper = bench.tend(Csv(compress=True))
        assert keeper.compressed == 2
        assert bench.names() == ["prices.000000000001.csv.gz", "prices.000000000011.csv.gz"]
        assert bench.reopened().rows == 23

    def test_a_segment_that_cannot_be_compressed_is_told_once(self, bench: Bench, events: LogCapture) -> None:
        """And tried again each time."""
        bench.add()
        bench.files.fail_next("sync", errno.ENOSPC, times=2)
        config = Csv(compress=True)
        bench.tend(config)
        assert bench.names() == ["prices.000000000001.csv", "prices.000000000001.csv.gz.tmp"]
        bench.tend(config)
        bench.tend(config)
        assert bench.names() == ["prices.000000000001.csv.gz"]
        assert [e["event"] for e in events.entries].count("data_collection.segment_not_compressed") == 2  # two keepers


class TestReleasing:
    def test_old_segments_go_once_questdb_has_them(self, bench: Bench) -> None:
        """What is younger than keep_days stays; numbers and counts go on."""
        bench.add()
        bench.clock.advance(2 * DAY_S)
        bench.add()
        bench.add(5, rotate=False)
        bench.held = False
        config = Csv(keep_days=1, compress=True)
        bench.tend(config)
        assert len(bench.names()) == 2
        bench.held = True
        assert bench.tend(config).released_rows == 10
        assert bench.names() == ["prices.000000000011.csv.gz"]
        record = bench.manifest.files[0]
        assert record.released is not None
        assert (record.released.last_seq, record.released.rows) == (10, 10)
        file = bench.reopened()
        assert (file.rows, file.next_seq, file.lost) == (25, 26, [])

    def test_without_a_database_nothing_is_ever_deleted(self, bench: Bench) -> None:
        """Whatever the configuration says."""
        bench.add()
        bench.clock.advance(9 * DAY_S)
        assert bench.tend(Csv(keep_days=1), database=False).idle
        assert bench.tend(Csv(enabled=False), database=False).idle
        assert len(bench.names()) == 1

    def test_the_last_row_stays_while_the_session_runs(self, bench: Bench) -> None:
        """A restart must find it: it tells where the feed goes on."""
        bench.add()
        bench.add()
        bench.clock.advance(9 * DAY_S)
        bench.tend(Csv(keep_days=1))
        assert bench.names() == ["prices.000000000011.csv"]
        assert bench.reopened().last_row.split(",")[6] == "20"
        bench.tend(Csv(keep_days=1), ended=True)
        assert bench.names() == []
        file = bench.reopened()
        assert (file.rows, file.next_seq, file.lost) == (20, 21, [])

    def test_an_ended_session_s_live_segment_goes_too(self, bench: Bench) -> None:
        """It is closed first, so that the file with the header stays."""
        bench.add(7, rotate=False)
        bench.csv.close()
        bench.manifest.files[0].next_seq = 8
        bench.clock.advance(DAY_S / 2)
        bench.tend(Csv(keep_days=1), ended=True)
        assert (bench.directory / SYMBOL / "prices.csv").read_text().count("\n") == 8
        bench.clock.advance(DAY_S)
        bench.tend(Csv(keep_days=1), ended=True)
        assert bench.names() == []
        assert (bench.directory / SYMBOL / "prices.csv").read_text() == PRICES.header

    def test_a_spool_keeps_trades_for_the_open_candles(self, bench: Bench) -> None:
        """For the time that is configured."""
        config = Csv(enabled=False, spool_keep_s=60)
        bench.add()
        bench.add(1, rotate=False)
        bench.tend(config)
        assert len(bench.names()) == 1
        bench.clock.advance(60)
        bench.tend(config)
        assert bench.names() == []

    def test_a_segment_whose_end_the_next_one_repeats_waits(self, bench: Bench) -> None:
        """Otherwise the next one's rows would count as deleted, too."""
        bench.add()
        bench.add(1, rotate=False)
        path = bench.directory / SYMBOL / "prices.000000000001.csv"
        with path.open("ab") as file:
            file.write(b"1,1,2,2,buy,11,11,1,ws,,\n")
        bench.clock.advance(9 * DAY_S)
        bench.tend(Csv(keep_days=1, compress=True))
        assert bench.names() == ["prices.000000000001.csv"]
        file = bench.reopened()
        assert (file.rows, file.next_seq) == (11, 12)

    @pytest.mark.parametrize("for_good", [False, True])
    def test_whichever_operation_fails_no_row_is_gone_that_is_not_noted(
        self, tmp_path: Path, clock: ManualClock, log: FilteringBoundLogger, executor: Executor, for_good: bool
    ) -> None:
        """The n-th operation fails, until all go through; then the log opens, and what is not released is there."""
        for number in range(1, 400):
            files = FailingFiles(_system())
            bench = Bench(tmp_path / f"session_{number}", files, clock, log, executor)
            bench.add()
            bench.add()
            bench.add(3, rotate=False)
            clock.advance(9 * DAY_S)
            before = len(files.failed)
            files.fail_at(number, errno.EIO, for_good=for_good)
            bench.tend(Csv(keep_days=1, compress=True))
            failed = len(files.failed) > before
            files.heal()
            file = bench.reopened()
            released = bench.manifest.files[0].released or Released()
            assert (file.rows, file.next_seq, file.lost) == (23, 24, [])
            again = CsvLog(bench.directory, files=files)
            opened = again.open(PRICES, SYMBOL, released=released)
            assert [int(row[6]) for row in again.rows(opened)] == list(range(released.last_seq + 1, 24))
            again.close()
            bench.tend(Csv(keep_days=1, compress=True))
            assert [name for name in bench.names() if not name.endswith(".tmp")] == []
            if not failed:
                return
        pytest.fail("it never got through")


def _system() -> Any:
    from collector.storage.files import OperatingSystem

    return OperatingSystem()


def test_only_ticks_are_released(bench: Bench) -> None:
    """The ledger says what is missing, and candles cannot be made again without their trades."""
    from collector.session.rotation import KEPT_STREAMS

    assert {"gaps", "ohlcv", "klines", "market_data", "candles_1m"} == KEPT_STREAMS
    assert ORDERBOOK.name not in KEPT_STREAMS
