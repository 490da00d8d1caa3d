"""The flusher makes rows durable in its order, waits out trouble, and names what it gives up."""

from __future__ import annotations

import asyncio
import errno
import threading
from collections.abc import Awaitable, Callable, Collection
from concurrent.futures import Executor
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import LogCapture
from structlog.typing import FilteringBoundLogger

from collector.candles.aggregator import Aggregator
from collector.candles.clock import ExchangeClock
from collector.clock import ManualClock
from collector.events import BookTop, Gap, Kline, Liquidation, Ticker, Trade
from collector.session.buffer import SessionBuffer
from collector.session.flusher import Flusher
from collector.session.gaps import GapLedger
from collector.storage.csv_log import Commit, CsvLog
from collector.storage.failing_files import FailingFiles
from collector.storage.files import OperatingSystem
from collector.streams import GAPS, LIQUIDATIONS, OHLCV, ORDERBOOK, PRICES, TICKERS

MINUTE_US = 60_000_000
START_US = 1_700_000_100_000_000  # the start of a minute, and of a quarter of an hour
SYMBOL = "BTC_USDT"


def trade(number: int, at_us: int | None = None, **changes: Any) -> Trade:
    fields: dict[str, Any] = {
        "symbol": SYMBOL, "timestamp_us": START_US + number * 1000 if at_us is None else at_us, "price": "10.5",
        "volume": "2", "side": "buy", "trade_id": number, "received_us": START_US,
    }  # fmt: skip
    return Trade(**{**fields, **changes})


def top(number: int, symbol: str = SYMBOL) -> BookTop:
    return BookTop(symbol, START_US + number, [("1", "2")] * 3, [("3", "4")] * 3, number, START_US)


class Bench:
    """A flusher with real parts around it, and what it told."""

    def __init__(
        self,
        directory: Path,
        files: FailingFiles,
        clock: ManualClock,
        executor: Executor,
        log: FilteringBoundLogger,
        *,
        max_rows: int = 1000,
        symbols: Collection[str] = (SYMBOL,),
        reserve_bytes: int = 0,
    ) -> None:
        self.files = files
        self.clock = clock
        self.buffer = SessionBuffer(max_rows)
        self.ledger = GapLedger()
        self.csv = CsvLog(directory, files=files)
        self.streams = {(GAPS.name, ""): self.csv.open(GAPS)}
        for symbol in symbols:
            for stream in (PRICES, ORDERBOOK, OHLCV):
                self.streams[stream.name, symbol] = self.csv.open(stream, symbol)
        self.commits: list[Commit] = []
        self.health: list[tuple[str, str]] = []
        self.interrupted: set[tuple[str, str]] = set()
        self.flusher = Flusher(
            buffer=self.buffer,
            csv_log=self.csv,
            files=self.streams,
            ledger=self.ledger,
            candles={symbol: Aggregator(symbol, grace_us=0) for symbol in symbols},
            exchange_time=ExchangeClock(),
            executor=executor,
            clock=clock,
            log=log,
            interval_s=0.01,
            on_commit=self.commits.extend,
            on_health=lambda health, reason: self.health.append((health, reason)),
            interrupted=lambda: self.interrupted,
            reserve_bytes=reserve_bytes,
        )

    def rows(self, stream: str, symbol: str = SYMBOL) -> list[dict[str, str]]:
        file = self.streams[stream, symbol]
        names = [column.name for column in file.stream.columns]
        return [dict(zip(names, row, strict=True)) for row in self.csv.rows(file)]

    def ids(self) -> list[int]:
        return [int(row["trade_id"]) for row in self.rows("prices")]

    def gaps(self) -> list[dict[str, str]]:
        return self.rows("gaps", "")

    def add(self, *events: Trade | BookTop) -> None:
        for event in events:
            if isinstance(event, Trade):
                self.buffer.add_trade(event)
            else:
                self.buffer.add_book(event)


MakeBench = Callable[..., Bench]


@pytest.fixture
def make_bench(
    tmp_path: Path, files: FailingFiles, clock: ManualClock, executor: Executor, log: FilteringBoundLogger
) -> MakeBench:
    def make(**options: Any) -> Bench:
        return Bench(tmp_path / "session_x", files, clock, executor, log, **options)

    return make


@pytest.fixture
def bench(make_bench: MakeBench) -> Bench:
    return make_bench()


def run(work: Awaitable[Any]) -> Any:
    async def bounded() -> Any:
        async with asyncio.timeout(30):
            return await work

    return asyncio.run(bounded())


class TestFlushing:
    def test_rows_become_durable_and_are_committed(self, bench: Bench) -> None:
        """Each with its number; the replicator learns of it afterwards."""
        bench.add(trade(1), top(5), trade(2), trade(3))
        run(bench.flusher.flush())
        assert bench.ids() == [1, 2, 3]
        assert [row["seq"] for row in bench.rows("prices")] == ["1", "2", "3"]
        assert [(row["update_id"], row["bid_1"]) for row in bench.rows("orderbook")] == [("5", "1")]
        assert {(c.file.stream.name, c.last_seq) for c in bench.commits} == {("prices", 3), ("orderbook", 1)}
        assert (bench.buffer.written, bench.buffer.pending, bench.health) == (4, 0, [])

    def test_a_candle_closes_with_the_trades_that_are_written(self, bench: Bench) -> None:
        """When the exchange's time passes its end."""
        bench.add(trade(1), trade(2, START_US + MINUTE_US))
        bench.buffer.observe(SYMBOL, START_US + MINUTE_US)
        run(bench.flusher.flush())
        (row,) = bench.rows("ohlcv")
        assert (row["timestamp"], row["interval"], row["trades_count"]) == (str(START_US), "1m", "1")
        assert (Decimal(row["quote_volume"]), row["is_closed"], row["seq"]) == (Decimal(21), "true", "1")

    def test_exchange_time_goes_on_between_events_but_not_while_interrupted(self, bench: Bench) -> None:
        """A quiet market closes its candles; a disconnect closes none."""
        bench.add(trade(1))
        bench.buffer.observe(SYMBOL, START_US)
        run(bench.flusher.flush())
        bench.interrupted = {(SYMBOL, "prices")}
        run(bench.flusher.flush())
        bench.clock.advance(61)
        run(bench.flusher.flush())
        assert bench.rows("ohlcv") == []
        bench.interrupted = set()
        run(bench.flusher.flush())
        assert [row["interval"] for row in bench.rows("ohlcv")] == ["1m"]

    def test_a_gap_is_a_row_of_the_ledger_and_revises_its_candle(self, bench: Bench) -> None:
        """Also where the candle was written before anyone knew."""
        bench.add(trade(1), trade(2, START_US + MINUTE_US))
        bench.buffer.observe(SYMBOL, START_US + MINUTE_US)
        run(bench.flusher.flush())
        bench.buffer.add_gap(Gap(SYMBOL, "prices", "sequence", START_US + 5, START_US + 9, 7, 8, 2))
        run(bench.flusher.flush())
        run(bench.flusher.flush())
        (gap,) = bench.gaps()
        assert (gap["gap_id"], gap["from_id"], gap["to_id"], gap["state"]) == ("g000001", "7", "8", "open")
        assert gap["detected_at"] == str(bench.clock.now_us())
        revisions = [(row["revision"], row["coverage"]) for row in bench.rows("ohlcv")]
        assert [revision for revision, _ in revisions] == ["0", "1"]
        assert revisions[1][1] == "gap"

    def test_the_exchange_s_own_candles_are_compared_with_ours(
        self, bench: Bench, events: LogCapture, make_bench: MakeBench
    ) -> None:
        """Before or after ours close; what differs is said."""
        bench.add(trade(1, START_US - 1))
        bench.add(trade(2), trade(3, START_US + MINUTE_US))
        bench.buffer.observe(SYMBOL, START_US + MINUTE_US)
        for volume in ("2", "3"):
            bench.buffer.add_kline(
                Kline(SYMBOL, "1m", START_US, "10.5", "10.5", "10.5", "10.5", volume, "21", 1, "2", True, 1, 1)
            )
            run(bench.flusher.flush())
        (score,) = bench.flusher.scores
        assert (score.compared, score.matching) == ({"1m": 1}, {"1m": 0})
        assert [found.differences[0].field for found in score.differences] == ["volume"]
        (said,) = [e for e in events.entries if e["event"] == "data_collection.candle_differs"]
        assert said["fields"] == {"volume": ("2", "3")}

    def test_other_data_types_go_to_their_files(self, bench: Bench) -> None:
        """Counted like trades; one that cannot be a row costs no other, and is named."""
        for stream in (LIQUIDATIONS, TICKERS):
            bench.streams[stream.name, SYMBOL] = bench.csv.open(stream, SYMBOL)
        good = Liquidation(SYMBOL, 7, "1.5", "2", "sell", 9)
        bench.buffer.add_event("liquidations", good)
        bench.buffer.add_event("liquidations", Liquidation(SYMBOL, 8, "1,5", "2", "sell", 9))
        bench.buffer.add_event("liquidations", good)
        bench.buffer.add_event("tickers", Ticker(SYMBOL, 7, "1", "1", None, None, 5, 9))
        run(bench.flusher.flush())
        assert list(bench.csv.rows(bench.streams["liquidations", SYMBOL])) == [
            ["7", "1.5", "2", "sell", str(seq), "9", "ws"] for seq in (1, 2)
        ]
        assert list(bench.csv.rows(bench.streams["tickers", SYMBOL])) == [["7", "1", "1", "", "", "5", "1", "9", "ws"]]
        buffer = bench.buffer
        assert (buffer.received, buffer.written, buffer.dropped, buffer.pending) == (4, 3, 1, 0)
        (gap,) = bench.gaps()
        assert (gap["stream"], gap["cause"], gap["from_time"], gap["expected_rows"]) == (
            "liquidations", "malformed", "8", "1",
        )  # fmt: skip

    def test_a_trade_that_cannot_be_a_row_costs_no_other(self, bench: Bench) -> None:
        """It is dropped, counted and named."""
        bench.add(trade(1), trade(2, price="oops"), trade(3), top(4), BookTop(SYMBOL, 1, [("1,0", "1")], [], 5, 1))
        run(bench.flusher.flush())
        assert bench.ids() == [1, 3]
        assert bench.buffer.received == 5
        assert (bench.buffer.written, bench.buffer.dropped, bench.buffer.pending) == (3, 2, 0)
        assert {(g["stream"], g["cause"], g["from_id"], g["expected_rows"]) for g in bench.gaps()} == {
            ("prices", "malformed", "2", "1"),
            ("orderbook", "malformed", "5", "1"),
        }

    def test_an_overflow_is_in_the_ledger(self, make_bench: MakeBench) -> None:
        """A burst that the buffer could not take does not end the session."""
        bench = make_bench(max_rows=2)
        bench.add(*(trade(number) for number in range(5)))
        run(bench.flusher.flush())
        run(bench.flusher.flush())
        assert bench.ids() == [0, 1]
        (gap,) = bench.gaps()
        assert (gap["cause"], gap["from_id"], gap["to_id"], gap["expected_rows"]) == ("overflow", "2", "4", "3")
        assert bench.health == []

    def test_a_resumed_stream_enters_its_pause(self, bench: Bench) -> None:
        """By its times where nothing else is known, and once; where ids are known, the feed's gap gets the time."""
        bench.flusher.expect_resumption(SYMBOL, "orderbook", START_US - 7, numbered=False)
        bench.flusher.expect_resumption(SYMBOL, "prices", START_US - 9, numbered=True)
        bench.buffer.add_gap(Gap(SYMBOL, "prices", "restart", None, START_US, 1, 4, 4))
        bench.add(top(3), top(4), trade(5))
        run(bench.flusher.flush())
        bench.add(top(5))
        run(bench.flusher.flush())
        assert {(g["stream"], g["cause"], g["from_time"], g["to_time"], g["from_id"]) for g in bench.gaps()} == {
            ("orderbook", "restart", str(START_US - 7), str(START_US + 3), ""),
            ("prices", "restart", str(START_US - 9), str(START_US), "1"),
        }
        assert len(bench.gaps()) == 2

    def test_broken_candles_leave_the_ticks_alone(self, bench: Bench, events: LogCapture) -> None:
        """A bug in them is said once, and collecting goes on."""

        def explode(*_: object) -> None:
            raise RuntimeError("a bug")

        bench.flusher._candles[SYMBOL].fold = explode  # type: ignore[method-assign]
        for number in (1, 2):
            bench.add(trade(number))
            run(bench.flusher.flush())
        assert bench.ids() == [1, 2]
        assert [e["event"] for e in events.entries] == ["data_collection.candles_failed"]
        assert bench.flusher.statistics.errors == 1

    def test_run_flushes_until_it_is_stopped_and_finish_writes_the_rest(self, bench: Bench) -> None:
        """Open candles too, as what they are."""

        async def scenario() -> bool:
            bench.add(trade(1))
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(bench.flusher.run())
                while not bench.commits:
                    await asyncio.sleep(0.001)
                    bench.clock.advance(0.001)
                bench.flusher.stop()
            bench.add(trade(2))
            return await bench.flusher.finish(1)

        assert run(scenario())
        assert bench.ids() == [1, 2]
        assert {(row["interval"], row["is_closed"], row["trades_count"]) for row in bench.rows("ohlcv")} == {
            (interval, "false", "2") for interval in ("1m", "5m", "15m", "1h", "4h", "1d")
        }


class SlowFiles(FailingFiles):
    """A disk whose writes wait until they are let through."""

    def __init__(self) -> None:
        super().__init__(OperatingSystem())
        self.slow = False
        self.entered = threading.Event()
        self.gate = threading.Event()
        self.threads: set[str] = set()

    def write(self, fd: int, content: bytes | memoryview) -> int:
        if self.slow:
            self.threads.add(threading.current_thread().name)
            self.entered.set()
            self.gate.wait(20)
        return super().write(fd, content)


class TestTheThread:
    @pytest.fixture
    def files(self) -> FailingFiles:
        return SlowFiles()

    @pytest.fixture
    def slow(self, bench: Bench) -> SlowFiles:
        assert isinstance(bench.files, SlowFiles)
        bench.files.slow = True
        return bench.files

    def test_the_event_loop_goes_on_while_the_disk_is_slow(self, bench: Bench, slow: SlowFiles) -> None:
        """Everything that blocks is done in the log's thread."""

        async def scenario() -> None:
            bench.add(trade(1))
            async with asyncio.TaskGroup() as tasks:
                flushing = tasks.create_task(bench.flusher.flush())
                await asyncio.to_thread(slow.entered.wait, 20)
                for number in range(2, 50):
                    bench.add(trade(number))
                    await asyncio.sleep(0)
                assert not flushing.done()
                slow.gate.set()
            await bench.flusher.flush()

        run(scenario())
        assert slow.threads == {"log_0"}
        assert bench.ids() == list(range(1, 50))

    def test_a_cancelled_flush_is_finished_first(self, bench: Bench, slow: SlowFiles) -> None:
        """Nothing is cancelled in the middle of a write; the cancellation is answered afterwards."""

        async def scenario() -> None:
            bench.add(trade(1))
            async with asyncio.TaskGroup() as tasks:
                flushing = tasks.create_task(bench.flusher.flush())
                await asyncio.to_thread(slow.entered.wait, 20)
                flushing.cancel()
                await asyncio.sleep(0)
                slow.gate.set()
                with pytest.raises(asyncio.CancelledError):
                    await flushing

        run(scenario())
        assert (bench.ids(), bench.buffer.written, bench.buffer.pending) == ([1], 1, 0)


class TestTrouble:
    def test_rows_wait_while_the_disk_is_full_and_go_in_by_themselves(self, bench: Bench) -> None:
        """The session is told when it begins and when it is over; nothing is lost, doubled or out of order."""
        bench.files.fail_at(1, errno.ENOSPC, for_good=True)
        for number in range(1, 4):
            bench.add(trade(number), top(number))
            run(bench.flusher.flush())
        assert [health for health, _ in bench.health] == ["degraded"]
        assert "No space" in bench.health[0][1]
        assert (bench.buffer.written, bench.buffer.pending, bench.buffer.dropped) == (0, 6, 0)
        bench.files.heal()
        bench.add(trade(4))
        run(bench.flusher.flush())
        assert bench.ids() == [1, 2, 3, 4]
        assert [row["seq"] for row in bench.rows("prices")] == ["1", "2", "3", "4"]
        assert bench.health[1:] == [("ok", "")]
        assert (bench.buffer.written, bench.buffer.pending, bench.gaps()) == (7, 0, [])

    def test_little_room_is_said_while_rows_are_written_on(self, make_bench: MakeBench) -> None:
        """Once, with the figures; and that there is room again."""
        bench = make_bench(reserve_bytes=1000)
        for free, number in ((5000, 1), (999, 2), (10, 3), (1000, 4), (999, 5)):
            bench.files.free = free
            bench.add(trade(number))
            run(bench.flusher.flush())
            bench.clock.advance(2)
        assert bench.ids() == [1, 2, 3, 4, 5]
        low = "The disk has 999 bytes left, fewer than csv.reserve_bytes (1,000)."
        assert bench.health == [("scarce", low), ("ok", ""), ("scarce", low)]
        assert run(bench.flusher.finish(1)) is True

    def test_a_disk_that_is_full_after_all_is_said_too(self, make_bench: MakeBench) -> None:
        """Little room, none, some again: one word for each."""
        bench = make_bench(reserve_bytes=1000)
        bench.files.free = 10
        bench.add(trade(1))
        run(bench.flusher.flush())
        bench.files.fail_next("write", errno.ENOSPC)
        bench.add(trade(2))
        run(bench.flusher.flush())
        assert bench.ids() == [1]
        bench.clock.advance(2)
        run(bench.flusher.flush())
        assert bench.ids() == [1, 2]
        assert [health for health, _ in bench.health] == ["scarce", "degraded", "ok", "scarce"]

    def test_one_symbol_s_trouble_does_not_stop_another_s(self, make_bench: MakeBench) -> None:
        """Files that can be written are written."""
        bench = make_bench(symbols=("BTC_USDT", "ETH_USDT"))
        run(bench.flusher.flush())
        bench.add(trade(1), trade(1, symbol="ETH_USDT"))
        bench.files.fail_next("write", errno.EIO)
        run(bench.flusher.flush())
        assert [row["trade_id"] for row in bench.rows("prices", "ETH_USDT")] == ["1"]
        assert bench.ids() == []
        run(bench.flusher.flush())
        assert bench.ids() == [1]

    def test_no_candle_counts_a_trade_that_is_not_in_the_file(self, bench: Bench) -> None:
        """Nor closes before it is."""
        run(bench.flusher.flush())
        bench.add(trade(1), trade(2, START_US + MINUTE_US))
        bench.buffer.observe(SYMBOL, START_US + 2 * MINUTE_US)
        bench.files.fail_next("write", errno.ENOSPC)
        run(bench.flusher.flush())
        assert (bench.ids(), bench.rows("ohlcv")) == ([], [])
        run(bench.flusher.flush())
        assert [row["trades_count"] for row in bench.rows("ohlcv")] == ["1", "1"]

    def test_an_error_that_cannot_pass_ends_it_and_names_what_is_lost(self, bench: Bench) -> None:
        """In the ledger where that can be written, and for whoever asks."""
        run(bench.flusher.flush())
        bench.add(trade(1))
        run(bench.flusher.flush())
        bench.add(*(trade(number) for number in range(2, 6)), top(9))
        bench.files.fail_next("write", errno.EACCES, times=2)
        run(bench.flusher.flush())
        assert bench.flusher.health == "failed"
        assert [health for health, _ in bench.health] == ["failed"]
        assert bench.ids() == [1]
        assert {(g["stream"], g["cause"], g["from_id"], g["to_id"], g["expected_rows"]) for g in bench.gaps()} == {
            ("prices", "overflow", "2", "5", "4"),
            ("orderbook", "overflow", "9", "9", "1"),
        }
        assert [gap.expected_rows for gap in bench.flusher.lost] == [4, 1]
        assert (bench.buffer.written, bench.buffer.dropped, bench.buffer.pending) == (1, 5, 0)
        run(bench.flusher.flush())
        assert run(bench.flusher.finish(1)) is False

    def test_it_fails_when_no_more_rows_may_wait(self, make_bench: MakeBench) -> None:
        """The bound is the buffer's; rows that were dropped at it are named too."""
        bench = make_bench(max_rows=5)
        bench.files.fail_at(1, errno.ENOSPC, for_good=True)
        bench.add(trade(1), trade(2), trade(3))
        run(bench.flusher.flush())
        bench.add(*(trade(number) for number in range(4, 8)))
        bench.files.heal()
        bench.files.fail_next("look", errno.ENOSPC)
        run(bench.flusher.flush())
        assert [health for health, _ in bench.health] == ["degraded", "failed"]
        assert "5 rows waited" in bench.health[1][1]
        assert bench.ids() == []
        assert sorted((g["from_id"], g["to_id"], g["expected_rows"]) for g in bench.gaps()) == [
            ("1", "5", "5"),
            ("6", "7", "2"),
        ]
        assert (bench.buffer.received, bench.buffer.dropped, bench.buffer.pending) == (7, 7, 0)

    def test_the_last_flush_is_tried_again_until_the_deadline(
        self, bench: Bench, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Then what is left is given up."""
        bench.add(trade(1))
        bench.files.fail_at(1, errno.ENOSPC, for_good=True)
        tried = 0
        append = bench.csv.append

        def count(writes: Any) -> None:
            nonlocal tried
            tried += 1
            clock.advance(0.4)
            append(writes)

        monkeypatch.setattr(bench.csv, "append", count)
        assert run(bench.flusher.finish(1)) is False
        assert tried > 2
        assert [health for health, _ in bench.health] == ["degraded", "failed"]
        assert [(gap.from_id, gap.to_id) for gap in bench.flusher.lost] == [(1, 1)]

    def test_a_file_deleted_under_us_is_in_the_ledger(self, bench: Bench, events: LogCapture) -> None:
        """With the numbers of its rows, and collecting goes on in a new one."""
        bench.add(trade(1), trade(2))
        run(bench.flusher.flush())
        bench.streams["prices", SYMBOL].path.unlink()
        bench.add(trade(3))
        run(bench.flusher.flush())
        (gap,) = bench.gaps()
        assert (gap["cause"], gap["from_id"], gap["to_id"], gap["state"]) == ("log_damaged", "1", "2", "unrecoverable")
        assert [(row["trade_id"], row["seq"]) for row in bench.rows("prices")] == [("3", "3")]
        assert [e["event"] for e in events.entries] == ["data_collection.file_damaged"]

    def test_a_ledger_deleted_under_us_is_written_again(self, bench: Bench) -> None:
        """All of it is in memory."""
        for number in (1, 2):
            bench.buffer.add_gap(Gap(SYMBOL, "prices", "stall", number, number))
            run(bench.flusher.flush())
            if number == 1:
                bench.streams["gaps", ""].path.unlink()
        run(bench.flusher.flush())
        assert {gap["gap_id"] for gap in bench.gaps()} == {"g000001", "g000002", "g000003"}

    @pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EMFILE])
    def test_whichever_operation_fails_once_every_row_is_there_once(
        self, tmp_path: Path, clock: ManualClock, executor: Executor, log: FilteringBoundLogger, number: int
    ) -> None:
        """The first, the second, … the n-th, until a run in which none does; candles agree with the trades."""
        for call in range(1, 300):
            files = FailingFiles(OperatingSystem())
            bench = Bench(tmp_path / f"{call}", files, clock, executor, log)
            files.fail_at(call, number)
            for step in range(4):
                first = 10 * step
                bench.add(*(trade(n, START_US + step * MINUTE_US + n) for n in range(first, first + 10)), top(step))
                bench.buffer.observe(SYMBOL, START_US + step * MINUTE_US + first)
                run(bench.flusher.flush())
            assert run(bench.flusher.finish(10))
            failed = bool(files.failed)
            files.heal()
            assert bench.ids() == list(range(40)), call
            assert len(bench.rows("orderbook")) == 4
            minutes = {row["timestamp"]: row["trades_count"] for row in bench.rows("ohlcv") if row["interval"] == "1m"}
            assert list(minutes.values()) == ["10"] * 4, call
            assert (bench.buffer.written, bench.buffer.dropped, bench.buffer.pending) == (44, 0, 0)
            last = {c.file.stream.name: c.last_seq for c in bench.commits}
            assert (last["prices"], last["orderbook"]) == (40, 4)
            assert [h for h, _ in bench.health] in ([], ["degraded", "ok"]), (call, bench.health)
            bench.csv.close()
            if not failed:
                return
        raise AssertionError("there was no run without a failure")
