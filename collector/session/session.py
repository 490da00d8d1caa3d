"""A session: one collection run, from its first file to its hashes.

``states`` decides what may follow what; ``Session`` does it. A session owns its directory, its buffer, its log, its
ledger and its manifest, and nothing outside of them.
"""

from __future__ import annotations

import asyncio
import platform
from collections.abc import Awaitable, Callable, Collection, Mapping, Sequence
from concurrent.futures import Executor
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Literal, Protocol, TypeVar

import msgspec
from structlog.typing import FilteringBoundLogger

from collector.candles.compare import CandleScore
from collector.clock import Clock, ClockStep
from collector.config import Config
from collector.errors import CollectorError, LogError, UsageError
from collector.events import Gap
from collector.feeds.sink import ResumePoint
from collector.feeds.status import FeedStatus
from collector.session.buffer import SessionBuffer
from collector.session.flusher import (
    CandleBuilder,
    ExchangeTime,
    Flusher,
    FlushStatistics,
    Health,
    gap_of_incident,
    report_incident,
)
from collector.session.gaps import GapLedger
from collector.session.manifest import (
    FileRecord,
    Manifest,
    StateChange,
    hash_file,
    public_config,
    public_url,
    save_manifest,
)
from collector.session.names import check_session_id, new_session_id, session_directory
from collector.session.resume import SETTLED_US, TAIL_US, position, read_tail, without
from collector.session.rotation import RotationRule
from collector.session.segment_keeper import Held, SegmentKeeper, apply_release
from collector.session.states import FINAL, RUNNING, State, close_interrupted, mark_interrupted, next_state
from collector.storage.csv_log import Commit, CsvLog, StreamFile, closed_segments
from collector.storage.files import Files
from collector.storage.survey import Span
from collector.streams import (
    BOOK_LEVELS,
    DATA_TYPES,
    GAPS,
    HISTORY_TYPES,
    KLINES,
    OHLCV,
    ORDERBOOK,
    PRICES,
    Stream,
    stream_of,
)

__all__ = [
    "FINAL",
    "RUNNING",
    "Session",
    "SessionFeed",
    "SessionStatus",
    "check_session_id",
    "close_interrupted",
    "create_manifest",
    "mark_interrupted",
    "new_session_id",
    "session_directory",
]

_T = TypeVar("_T")

_CLOCK_STEPS_KEPT = 1000


class SessionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """A session as it is now. Times are microseconds since the epoch; None where it has not come to that yet."""

    session_id: str
    exchange: str
    symbols: tuple[str, ...]
    data_types: tuple[str, ...]
    label: str
    state: State
    reason: str
    created_us: int
    started_us: int | None
    ended_us: int | None
    heartbeat_us: int
    duration_s: float | None
    received: int
    written: int
    pending: int
    dropped: int
    prices_count: int
    orderbook_count: int
    candles_count: int
    other_counts: Mapping[str, int] = {}
    """Rows of the session's data types that are neither trades nor books."""
    gaps_count: int
    open_gaps: int
    errors_count: int
    flushes: int
    last_flush_s: float
    longest_flush_s: float
    candle_scores: Sequence[CandleScore] = ()
    rotations: int = 0
    compressed_files: int = 0
    released_rows: int = 0
    open_files: int = 0
    files_closed_early: int = 0


class SessionFeed(Protocol):
    """What a session needs of its feed; ``feeds.feed.Feed`` is one."""

    first_data: asyncio.Event
    finished: asyncio.Event

    async def run(self) -> None: ...

    async def stop(self) -> None: ...

    def status(self) -> FeedStatus: ...


CandleFactory = Callable[[str, Path, bool], CandleBuilder]
"""Make a symbol's aggregator: (symbol, session directory, whether to take up what is in it); in the log's thread."""


class Session:
    """Run one session.

    Life: ``prepare`` (files, ledger, manifest), then a feed is made that writes into ``buffer`` and begins at
    ``resume_points()``, then ``run(feed)``.

    Args:
        manifest: new (``create_manifest``) or, for one that goes on, loaded.
        data_dir: the session's directory is made in it.
        executor: one thread, in which everything that blocks is done; a daemon's sessions may share it.
        candles: makes a symbol's aggregator; None for none.
        exchange_time: the exchange's clock, for this session alone.
        klines_open_at_previous_close: the exchange's own candles do, and are compared with ours by that rule.
        numbered_trades: trade ids count up by one in the file, so that a jump is a hole.
        keeper_thread: one thread for what takes seconds (compressing, reading closed files); without it both are left.
        held: says of which rows QuestDB has for certain; None where nothing may ever be deleted.
        known_seq: the highest ``seq`` of a stream and symbol that cursor or database know; 0 where none does.
        on_commit: is told what became durable, in the event loop's thread.
        on_status: is told at every change of state and every heartbeat; must not block.
    """

    def __init__(
        self,
        manifest: Manifest,
        *,
        data_dir: Path,
        config: Config,
        clock: Clock,
        files: Files,
        executor: Executor,
        log: FilteringBoundLogger,
        exchange_time: ExchangeTime,
        candles: CandleFactory | None = None,
        numbered_trades: bool = True,
        klines_open_at_previous_close: bool = False,
        keeper_thread: Executor | None = None,
        held: Held | None = None,
        known_seq: Callable[[Stream, str | None], int] = lambda _stream, _symbol: 0,
        on_commit: Callable[[Sequence[Commit]], None] = lambda _commits: None,
        on_status: Callable[[SessionStatus], None] = lambda _status: None,
    ) -> None:
        self.manifest = manifest
        self.directory = session_directory(data_dir, manifest.session_id)
        self.buffer = SessionBuffer(config.buffer.max_rows, klines=_recorded_klines(manifest, config))
        self.ledger = GapLedger()
        self.csv = CsvLog(self.directory, files=files, max_open_files=config.csv.max_open_files)
        self._config = config
        self._clock = clock
        self._storage = files
        self._executor = executor
        self._log = log.bind(session=manifest.session_id, exchange=manifest.exchange)
        self._exchange_time = exchange_time
        self._make_candles = candles
        self._numbered = numbered_trades
        self._klines_open_at_previous_close = klines_open_at_previous_close
        self._known_seq = known_seq
        self._on_commit = on_commit
        self._on_status = on_status
        self._reopened = manifest.state in FINAL
        self._resumed = manifest.state == "interrupted" or self._reopened
        self._streams: dict[tuple[str, str], StreamFile] = {}
        self._points: dict[str, ResumePoint] = {}
        self._keeper = self._make_keeper(keeper_thread, held) if keeper_thread is not None else None
        self._flusher: Flusher | None = None
        self._feed: SessionFeed | None = None
        self._end = asyncio.Event()
        self._ended = asyncio.Event()
        self._failure = ""
        self._stop_reason = ""
        self._leaving = False
        self._had_data = False
        self._written_before = 0
        self._dropped_before = manifest.dropped
        self._errors_before = manifest.errors

    @property
    def session_id(self) -> str:
        return self.manifest.session_id

    @property
    def state(self) -> State:
        return self.manifest.state  # type: ignore[return-value]  # only ``_enter`` writes it

    @property
    def stream_files(self) -> list[StreamFile]:
        """Return the session's files, once it is prepared."""
        return list(self._streams.values())

    # Beginning

    async def prepare(self) -> None:
        """Make or recover the session's files, read its ledger and what its feed must know to go on.

        Raises:
            LogError: the directory or a file cannot be made, or is damaged.
        """
        try:
            builders = await self._in_log_thread(self._prepare)
        except CollectorError:
            await self._in_log_thread(self.csv.close)
            raise
        self._flusher = Flusher(
            buffer=self.buffer,
            csv_log=self.csv,
            files=self._streams,
            ledger=self.ledger,
            candles=builders,
            exchange_time=self._exchange_time,
            executor=self._executor,
            clock=self._clock,
            log=self._log,
            interval_s=self._config.session.flush_interval_s,
            on_commit=self._on_commit,
            on_health=self._take_health,
            interrupted=self._interrupted_streams,
            rotation=RotationRule.from_config(self._config.csv),
            klines_open_at_previous_close=self._klines_open_at_previous_close,
            scores=self.manifest.candle_scores,
            reserve_bytes=self._config.csv.reserve_bytes,
        )
        if self._reopened:
            self._log.info("data_collection.session_reopened", state=self.state)
            return
        if self._resumed:
            self._expect_resumption(self._flusher)
            self._enter("starting", "goes on after an interruption")
        else:
            self.manifest.history.append(StateChange("starting", self._clock.now_us()))
        await self._save_manifest()
        self._log.info(
            "data_collection.session_initialized",
            directory=str(self.directory),
            symbols=len(self.manifest.symbols),
            data_types=self.manifest.data_types,
            resumed=self._resumed,
        )
        self._tell()

    def resume_points(self) -> dict[str, ResumePoint]:
        """Return, per symbol, where its recording ended; empty for a new session."""
        return dict(self._points)

    def _prepare(self) -> dict[str, CandleBuilder]:
        self._make_directory()
        self._open(GAPS, None)
        self.ledger.load(self.csv.rows(self._streams[GAPS.name, ""]))
        levels = self.manifest.book_levels
        wanted = [stream for name in self.manifest.data_types if (stream := stream_of(name, levels)) is not None]
        if PRICES in wanted:
            wanted.append(OHLCV)
        for symbol in (*self.manifest.symbols, *self.manifest.removed_symbols):
            for stream in wanted:
                self._open(stream, symbol)
        self._note_incidents()
        self._written_before = sum(self._count(name) for name in (*DATA_TYPES, *HISTORY_TYPES))
        if self._resumed and not self._reopened:
            self._points = {symbol: self._resume_point(symbol) for symbol in self.manifest.symbols}
        if self._make_candles is None or PRICES not in wanted:
            return {}
        # Those of removed symbols are closed as long as the session runs; what is mended afterwards is counted in them.
        folded = [*self.manifest.symbols, *(self.manifest.removed_symbols if self._reopened else ())]
        return {symbol: self._make_candles(symbol, self.directory, self._resumed) for symbol in folded}

    def _make_directory(self) -> None:
        try:
            if not self._resumed and self._storage.names(self.directory):
                raise UsageError(f"{self.directory} exists already.", hint="Choose another --id.")
            self._storage.make_folder(self.directory)
        except OSError as error:
            raise LogError(f"{self.directory} could not be made: {error.strerror or error}.", permanent=True) from error

    async def add_symbols(self, symbols: Sequence[str]) -> dict[str, ResumePoint]:
        """Have files for more symbols, and keep them in the manifest; return where each one's recording ended.

        Raises:
            LogError: a file cannot be made, or is damaged; the session goes on without the symbols.
        """
        flusher = self._prepared()
        opened, builders, points = await self._in_log_thread(lambda: self._open_more(symbols))
        self._points.update(points)
        flusher.admit(opened, builders)
        manifest = self.manifest
        manifest.symbols = [*manifest.symbols, *symbols]
        manifest.removed_symbols = [symbol for symbol in manifest.removed_symbols if symbol not in symbols]
        await self._try_to_save_manifest()
        self._log.info("data_collection.symbols_added", symbols=list(symbols))
        self._tell()
        return points

    async def remove_symbols(self, symbols: Collection[str]) -> None:
        """Write what is known of some symbols, close their candles and files, and keep that in the manifest.

        Their feed must have ended before; the files stay.
        """
        flusher = self._prepared()
        await flusher.flush()
        await flusher.retire(symbols)
        manifest = self.manifest
        manifest.symbols = [symbol for symbol in manifest.symbols if symbol not in symbols]
        manifest.removed_symbols = [*manifest.removed_symbols, *symbols]
        await self._try_to_save_manifest()
        self._log.info("data_collection.symbols_removed", symbols=sorted(symbols))
        self._tell()

    def _open_more(
        self, symbols: Sequence[str]
    ) -> tuple[dict[tuple[str, str], StreamFile], dict[str, CandleBuilder], dict[str, ResumePoint]]:
        levels = self.manifest.book_levels
        wanted = [stream for name in self.manifest.data_types if (stream := stream_of(name, levels)) is not None]
        if PRICES in wanted:
            wanted.append(OHLCV)
        streams = dict(self._streams)  # replaced and not changed: others may be reading it
        for symbol in symbols:
            for stream in wanted:
                if (stream.name, symbol) not in streams:
                    self._open(stream, symbol, streams)
        self._streams = streams
        self._note_incidents()
        points = {symbol: self._resume_point(symbol) for symbol in symbols}
        opened = {key: file for key, file in streams.items() if key[1] in symbols}
        builders: dict[str, CandleBuilder] = {}
        if self._make_candles is not None and PRICES in wanted:
            for symbol in symbols:
                builders[symbol] = self._make_candles(symbol, self.directory, opened[PRICES.name, symbol].rows > 0)
        return opened, builders, points

    def _open(self, stream: Stream, symbol: str | None, into: dict[tuple[str, str], StreamFile] | None = None) -> None:
        record = self.manifest.record(stream.name, symbol)
        known = max(
            self._known_seq(stream, symbol),
            record.next_seq - 1 if record is not None else 0,
            self.ledger.highest_lost_seq(symbol or "", stream.name),
        )
        released = record.released if record is not None else None
        file = self.csv.open(stream, symbol, known_seq=known, released=released)
        (self._streams if into is None else into)[stream.name, symbol or ""] = file
        for first, last in file.lost:
            self._enter_loss(file, first, last)

    def _enter_loss(self, file: StreamFile, first: int, last: int) -> None:
        symbol, stream = file.symbol or "", file.stream.name
        if not self.ledger.knows_damage(symbol, stream, first, last):
            self._log.error("data_collection.rows_lost", path=str(file.path), first_seq=first, last_seq=last)
            detail = f"rows {first} to {last} were in {file.path.name} once and are gone"
            gap = Gap(symbol, stream, "log_damaged", None, None, first, last, last - first + 1, "unrecoverable", detail)
            self.ledger.record(gap, self._clock.now_us())

    def _note_incidents(self) -> None:
        for incident in self.csv.take_incidents():
            report_incident(self._log, incident)
            gap = gap_of_incident(incident)
            if gap is not None:
                self.ledger.record(gap, self._clock.now_us())

    def _resume_point(self, symbol: str) -> ResumePoint:
        prices = self._streams.get((PRICES.name, symbol))
        book = self._streams.get((ORDERBOOK.name, symbol))
        last_trade_id = self._find_last_trade(symbol, prices) if prices is not None and prices.rows else None
        last_update_id: int | None = None
        if book is not None and book.last_row:
            last_update_id = int(book.last_row.split(",")[position(book.stream, "update_id")])
        times = [self._last_us(file) for file in (prices, book)]
        others = {
            name: at_us
            for name in DATA_TYPES
            if name not in (PRICES.name, ORDERBOOK.name)
            and (at_us := self._last_us(self._streams.get((name, symbol)))) is not None
        }
        return ResumePoint(
            last_trade_id=last_trade_id,
            holes=tuple(self.ledger.open_holes(symbol, PRICES.name)),
            last_trade_us=times[0],
            last_update_id=last_update_id,
            last_book_us=times[1],
            last_event_us=max((at_us for at_us in (*times, *others.values()) if at_us is not None), default=None),
            last_other_us=others,
        )

    def _find_last_trade(self, symbol: str, prices: StreamFile) -> int | None:
        """Return the highest trade id; enter what the ledger lacks of what the last rows tell.

        Holes that were still waiting for late trades when all ended, and trades that came after their hole was entered.
        """
        if not self._numbered:
            return None
        received, source = position(PRICES, "received_at"), position(PRICES, "source")
        newest = self._last_live_row(prices)
        last_received = int(newest[received] or 0) if newest is not None else 0
        rows = self.csv.tail_rows(
            prices, lambda row: row[source] == "rest" or int(row[received] or 0) >= last_received - TAIL_US
        )
        known = self.ledger.missing_ids(symbol, PRICES.name)
        tail = read_tail(rows, settled_before_us=last_received - SETTLED_US, known=known)
        for trade_id, at_us in tail.arrived:
            late = Gap(
                symbol, PRICES.name, "restart", at_us, at_us, trade_id, trade_id, 1, "repaired",
                "came after its hole was reported",
            )  # fmt: skip
            self.ledger.record(late, self._clock.now_us())
        for first, last, from_us, to_us in tail.holes:
            for part in without(first, last, known):
                gap = Gap(
                    symbol, PRICES.name, "restart", from_us, to_us, part[0], part[1], part[1] - part[0] + 1,
                    detail="still awaited when the session was interrupted",
                )  # fmt: skip
                self.ledger.record(gap, self._clock.now_us())
        return tail.highest

    def _last_live_row(self, file: StreamFile) -> list[str] | None:
        """Return the last row that came by itself: what a repair added behind it is older."""
        if file.stream is not PRICES or not file.last_row:
            return file.last_row.split(",") if file.last_row else None
        source = position(PRICES, "source")
        last = file.last_row.split(",")
        if last[source] != "rest":
            return last
        rows = self.csv.tail_rows(file, lambda row: row[source] == "rest")
        return next((row for row in reversed(rows) if row[source] != "rest"), None)

    def _last_us(self, file: StreamFile | None) -> int | None:
        """Return the time of a file's last row that came by itself; None where there is none."""
        row = self._last_live_row(file) if file is not None else None
        return int(row[0]) if row is not None else None

    def _expect_resumption(self, flusher: Flusher) -> None:
        for (stream, symbol), file in self._streams.items():
            if symbol and symbol not in self._points:
                continue  # it was removed from the session
            last_us = self._points[symbol].last_trade_us if stream == PRICES.name else self._last_us(file)
            if stream in DATA_TYPES and last_us is not None:
                # Only trades without ids are unknown to the feed: it reports what all others lack.
                numbered = stream != PRICES.name or self._points[symbol].last_trade_id is not None
                flusher.expect_resumption(symbol, stream, last_us, numbered=numbered)

    # Running

    async def run(self, feed: SessionFeed) -> None:
        """Collect from a feed until the session is stopped, its time is over, the feed ends or the log fails.

        The session's state says how it ended; nothing that is only this session's trouble is raised.
        """
        flusher = self._prepared()
        self._feed = feed
        try:
            async with asyncio.TaskGroup() as tasks:
                collecting = tasks.create_task(self._guarded(feed.run, "feed"))
                tasks.create_task(self._guarded(flusher.run, "flusher"))
                tasks.create_task(self._await_first_data(feed))
                tasks.create_task(self._await_end_of_feed(feed))
                tasks.create_task(self._await_duration())
                tasks.create_task(self._beat())
                tasks.create_task(self._keep_segments())
                await self._end.wait()
                self._enter("stopping", self._failure or self._stop_reason)
                await self._stop_feed(feed, collecting)
                if self._leaving and not self._failure:
                    await self._leave(flusher)
                else:
                    await self._finish(flusher)
                self._ended.set()
        except asyncio.CancelledError:
            # Whoever cancels a session ends the process: it will be found interrupted, with all its rows.
            await asyncio.shield(self._finish_rows(flusher))
            raise
        finally:
            self._ended.set()
            await asyncio.shield(self._in_log_thread(self.csv.close))

    async def mend(self, work: Callable[[], Awaitable[None]]) -> None:
        """Have an ended session's files added to by some work, which puts its rows into the buffer.

        Numbers go on where they ended, the state stays, and the manifest gets the new counts and hashes.

        Raises:
            LogError: not all rows could be written.
        """
        flusher = self._prepared()
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(flusher.run())
                try:
                    await work()
                finally:
                    self._end.set()
                    whole = await self._finish_rows(flusher)
            await self._in_log_thread(self._hash_files)
            await self._save_manifest()
            self._tell()
        finally:
            await asyncio.shield(self._in_log_thread(self.csv.close))
        if not whole:
            raise LogError(f"Not all that was fetched for {self.session_id} could be written.")

    async def flush(self) -> bool:
        """Write what is in the buffer now; return whether everything that came before is in the log."""
        flusher = self._prepared()
        if self._end.is_set():
            return False
        await flusher.flush()
        return flusher.health == "ok"

    def takes_rows(self) -> bool:
        """Say whether rows that are put into the buffer now will be written: not once the session is ending."""
        return not self._end.is_set() and self._prepared().health != "failed"

    def request_stop(self, reason: str = "", *, leave: bool = False) -> None:
        """Have the session end: everything that was received is written first. A second request changes nothing.

        Args:
            leave: it is not over: the next daemon goes on with it.
        """
        if not self._end.is_set():
            self._stop_reason = reason
            self._leaving = leave
            self._end.set()

    def note_clock_step(self, step: ClockStep) -> None:
        """Keep in the manifest that the wall clock was set: receipts before and after it can't be compared."""
        self.manifest.clock_steps = [*self.manifest.clock_steps, step][-_CLOCK_STEPS_KEPT:]

    def _prepared(self) -> Flusher:
        if self._flusher is None:
            raise CollectorError("A session must be prepared before it runs.")
        return self._flusher

    async def _guarded(self, work: Callable[[], Awaitable[None]], what: str) -> None:
        """Turn a task's error into the end of this session, and of no other."""
        try:
            await work()
        except Exception as error:  # noqa: BLE001  (one session's bug must not end the others)
            self._log.error("data_collection.session_error", reason=repr(error), exc_info=error)
            self._failure = self._failure or f"The {what} failed: {error or type(error).__name__}"
        self.request_stop(f"the {what} has ended")

    async def _await_first_data(self, feed: SessionFeed) -> None:
        await _first_of(feed.first_data, self._end)
        if feed.first_data.is_set():
            self._had_data = True
            if self.manifest.started_us is None:
                self.manifest.started_us = self._clock.now_us()
            if self.state == "starting":
                self._enter("active")
                await self._try_to_save_manifest()

    async def _await_end_of_feed(self, feed: SessionFeed) -> None:
        await _first_of(feed.finished, self._end)
        if feed.finished.is_set():
            self.request_stop("the feed has ended")

    async def _await_duration(self) -> None:
        if self.manifest.duration_s is None:
            return
        left_s = self.manifest.duration_s
        if self._resumed:
            since_us = self.manifest.created_us if self.manifest.started_us is None else self.manifest.started_us
            left_s -= (self._clock.now_us() - since_us) / 1_000_000
        try:
            async with asyncio.timeout(max(0.0, left_s)):
                await self._end.wait()
        except TimeoutError:
            self.request_stop("its duration is over")

    async def _beat(self) -> None:
        """Save the manifest and tell the status, at every interval until the end."""
        while not self._ended.is_set():
            try:
                async with asyncio.timeout(self._config.session.heartbeat_interval_s):
                    await self._ended.wait()
            except TimeoutError:
                await self._try_to_save_manifest()
                self._tell()

    def _make_keeper(self, thread: Executor, held: Held | None) -> SegmentKeeper | None:
        keeper = SegmentKeeper(
            self.manifest.session_id,
            self.directory,
            config=self._config.csv,
            files=self._storage,
            clock=self._clock,
            log=self._log,
            thread=thread,
            held=held,
            note=self._note_release,
        )
        return None if keeper.idle else keeper

    async def _keep_segments(self) -> None:
        """Compress closed segments, and delete those that may go, at every interval until the session ends."""
        while self._keeper is not None and not self._end.is_set():
            try:
                async with asyncio.timeout(self._config.csv.upkeep_interval_s):
                    await self._end.wait()
            except TimeoutError:
                keeper = self._keeper
                await self._guarded_upkeep(lambda keeper=keeper: keeper.tend(self.manifest, ended=False))  # type: ignore[misc]

    async def _guarded_upkeep(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception as error:  # noqa: BLE001  (whatever is wrong with old segments, collecting goes on)
            self._log.error("data_collection.upkeep_failed", reason=repr(error), exc_info=error)

    async def _note_release(self, spans: Sequence[Span]) -> None:
        def note() -> None:
            apply_release(self.manifest, spans)
            self._save_in_log_thread()

        await self._in_log_thread(note)

    async def _stop_feed(self, feed: SessionFeed, collecting: asyncio.Task[None]) -> None:
        """Have the feed pass on what it has; one that does not end in time is cut off."""
        try:
            async with asyncio.timeout(self._config.daemon.stop_deadline_s):
                await feed.stop()
                await asyncio.wait([collecting])
        except TimeoutError:
            self._log.error("data_collection.feed_did_not_stop", waited_s=self._config.daemon.stop_deadline_s)
            collecting.cancel()
        except Exception as error:  # noqa: BLE001  (whatever a feed's end brings, the rows are written)
            self._log.error("data_collection.session_error", reason=repr(error), exc_info=error)
            self._failure = self._failure or f"The feed could not be stopped: {error or type(error).__name__}"
            collecting.cancel()

    async def _finish(self, flusher: Flusher) -> None:
        if not await self._finish_rows(flusher) and not self._failure:
            self._failure = "Not all rows could be written."
        self.manifest.ended_us = self._clock.now_us()
        if self._failure:
            self._enter("failed", self._failure)
        else:
            self._enter("completed", self._stop_reason)
        await self._try_to_save_manifest()
        # The state is safe by now: compressing and hashing a long session's files takes a while.
        if not self._config.csv.enabled and not self._failure:
            await self._in_log_thread(flusher.rotate_all)
        if self._keeper is not None and self._config.csv.compress:
            keeper = self._keeper
            await self._guarded_upkeep(lambda: keeper.compress(self.manifest))
        try:
            await self._in_log_thread(self._hash_files)
        except (LogError, OSError) as error:
            self._log.warning("data_collection.files_not_hashed", reason=str(error))
        await self._try_to_save_manifest()
        self._tell()

    async def _leave(self, flusher: Flusher) -> None:
        """Stop working on a session that the next daemon goes on with: as after a crash, but with every row."""
        if await self._finish_rows(flusher, over=False):
            self._enter("interrupted", self._stop_reason)
        else:
            self.manifest.ended_us = self._clock.now_us()
            self._enter("failed", self._failure or "Not all rows could be written.")
        await self._try_to_save_manifest()
        self._tell()

    async def _finish_rows(self, flusher: Flusher, *, over: bool = True) -> bool:
        try:
            return await flusher.finish(self._config.daemon.stop_deadline_s, over=over)
        except Exception as error:  # noqa: BLE001  (the session's end is told whatever happens)
            self._log.error("data_collection.session_error", reason=repr(error), exc_info=error)
            return False

    def _take_health(self, health: Health, reason: str) -> None:
        if health in ("degraded", "scarce"):
            if health == "scarce":
                self._log.warning("data_collection.disk_space_low", reason=reason)
            else:
                self._log.error("data_collection.csv_write_failed", reason=reason)
            if self.state in ("starting", "active"):
                self._enter("degraded", reason)
            elif self.state == "degraded":
                self.manifest.reason = reason
        elif health == "ok":
            self._log.info("data_collection.csv_write_recovered")
            if self.state == "degraded":
                self._enter("active" if self._had_data else "starting", "the log can be written again")
        else:
            self._log.critical("data_collection.csv_write_given_up", reason=reason)
            self._failure = reason
            self.manifest.lost += [_describe(gap) for gap in self._prepared().lost]
            self._end.set()

    def _interrupted_streams(self) -> Collection[tuple[str, str]]:
        return interrupted_streams(self._feed.status()) if self._feed is not None else ()

    # Telling

    def _enter(self, state: State, reason: str = "") -> None:
        before = self.state
        self.manifest.state = next_state(before, state)
        self.manifest.reason = reason
        self.manifest.history.append(StateChange(state, self._clock.now_us(), reason))
        write = self._log.error if state in ("failed", "degraded") else self._log.info
        write("data_collection.session_state_changed", before=before, state=state, reason=reason)
        if state != "starting":
            self._tell()

    def _tell(self) -> None:
        try:
            self._on_status(self.status())
        except Exception as error:  # noqa: BLE001  (whoever listens must not end the session)
            self._log.error("data_collection.status_not_taken", reason=repr(error))

    def status(self) -> SessionStatus:
        """Describe the session as it is now."""
        manifest = self.manifest
        statistics = self._flusher.statistics if self._flusher is not None else FlushStatistics()
        return SessionStatus(
            session_id=manifest.session_id,
            exchange=manifest.exchange,
            symbols=tuple(manifest.symbols),
            data_types=tuple(manifest.data_types),
            label=manifest.label,
            state=self.state,
            reason=manifest.reason,
            created_us=manifest.created_us,
            started_us=manifest.started_us,
            ended_us=manifest.ended_us,
            heartbeat_us=self._clock.now_us(),
            duration_s=manifest.duration_s,
            received=self._written_before + self._dropped_before + self.buffer.received,
            written=self._written_before + self.buffer.written,
            pending=self.buffer.pending,
            dropped=self._dropped_before + self.buffer.dropped,
            prices_count=self._count(PRICES.name),
            orderbook_count=self._count(ORDERBOOK.name),
            candles_count=self._count(OHLCV.name),
            other_counts={
                name: self._count(name) for name in manifest.data_types if name not in (PRICES.name, ORDERBOOK.name)
            },
            gaps_count=len(self.ledger),
            open_gaps=self.ledger.open_count,
            errors_count=self._errors_before + statistics.errors,
            flushes=statistics.flushes,
            last_flush_s=statistics.last_duration_s,
            longest_flush_s=statistics.longest_s,
            candle_scores=self._flusher.scores if self._flusher is not None else manifest.candle_scores,
            rotations=statistics.rotations,
            compressed_files=self._keeper.compressed if self._keeper is not None else 0,
            released_rows=sum(record.released.rows for record in manifest.files if record.released is not None),
            open_files=self.csv.open_files,
            files_closed_early=self.csv.closed_early,
        )

    def _count(self, stream: str) -> int:
        return sum(file.rows for file in self._streams.values() if file.stream.name == stream)

    async def save(self) -> None:
        """Bring the manifest up to now, and save it; what cannot be saved is logged."""
        await self._try_to_save_manifest()

    async def _save_manifest(self) -> None:
        status = self.status()
        manifest = self.manifest
        manifest.heartbeat_us = status.heartbeat_us
        manifest.received, manifest.written = status.received, status.written
        manifest.dropped, manifest.errors = status.dropped, status.errors_count
        manifest.candle_scores = list(status.candle_scores)
        manifest.gaps, manifest.open_gaps = status.gaps_count, status.open_gaps
        await self._in_log_thread(self._save_in_log_thread)

    def _save_in_log_thread(self) -> None:
        self.manifest.files = [self._describe_file(file) for file in self._streams.values()]
        save_manifest(self.directory, self.manifest, self._storage)

    async def _try_to_save_manifest(self) -> None:
        try:
            await self._save_manifest()
        except LogError as error:
            self._log.error("data_collection.manifest_not_saved", reason=str(error))

    def _describe_file(self, file: StreamFile) -> FileRecord:
        known = self.manifest.record(file.stream.name, file.symbol)
        record = FileRecord(file.stream.name, file.symbol, str(file.path.relative_to(self.directory)))
        record.rows, record.bytes, record.next_seq = file.rows, file.size, file.next_seq
        record.hashes = known.hashes if known is not None else {}
        record.released = known.released if known is not None else None
        name = _ID_COLUMNS.get(file.stream.name)
        if name is not None and file.last_row:
            column = position(file.stream, name)
            record.last_id = file.last_row.split(",")[column]
            if known is not None and known.first_id:
                record.first_id = known.first_id
            else:
                first = next(self.csv.rows(file), None)
                record.first_id = first[column] if first is not None else ""
        return record

    def _hash_files(self) -> None:
        for file in self._streams.values():
            folder = file.path.parent
            names = [name for _, name in closed_segments(self._storage.names(folder), file.stream)]
            record = self.manifest.record(file.stream.name, file.symbol)
            if record is not None:
                names.append(file.path.name)
                record.hashes = {name.removesuffix(".gz"): hash_file(folder / name) for name in names}

    async def _in_log_thread(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._executor, work)


def interrupted_streams(status: FeedStatus) -> set[tuple[str, str]]:
    """Return the (symbol, stream) of trades that a feed does not deliver now: their exchange time cannot be told."""
    down = {connection.number for connection in status.connections if connection.state != "open"}
    return {
        (stream.symbol, stream.stream)
        for stream in status.streams
        if stream.stream == PRICES.name and (stream.connection in down or stream.state != "live")
    }


def create_manifest(
    *,
    session_id: str,
    exchange: str,
    symbols: Sequence[str],
    data_types: Sequence[str],
    now_us: int,
    config: Config,
    label: str = "",
    raw_trades: bool = False,
    book_levels: int = BOOK_LEVELS,
    ids_ordered: bool = True,
    duration_s: float | None = None,
    endpoints: Mapping[str, str] | None = None,
) -> Manifest:
    """Return the manifest of a session that is about to begin."""
    return Manifest(
        session_id=check_session_id(session_id),
        exchange=exchange,
        symbols=list(symbols),
        data_types=list(data_types),
        created_us=now_us,
        label=label,
        raw_trades=raw_trades,
        book_levels=book_levels,
        ids_ordered=ids_ordered,
        duration_s=duration_s,
        endpoints={name: public_url(url) for name, url in (endpoints or {}).items()},
        versions=_versions(),
        config=public_config(config),
    )


def _recorded_klines(manifest: Manifest, config: Config) -> Literal["none", "closed", "all"]:
    if KLINES.name not in manifest.data_types:
        return "none"
    return "all" if config.session.record_open_klines else "closed"


_ID_COLUMNS = {PRICES.name: "trade_id", ORDERBOOK.name: "update_id"}


def _describe(gap: Gap) -> str:
    ids = f", ids {gap.from_id} to {gap.to_id}" if gap.from_id is not None else ""
    return f"{gap.symbol} {gap.stream}: {gap.expected_rows} rows from {gap.from_us} to {gap.to_us}{ids}: {gap.detail}"


def _versions() -> dict[str, str]:
    versions = {"python": platform.python_version(), "system": platform.platform(terse=True)}
    for package in ("collector", "websockets", "msgspec", "uvloop"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            continue
    return versions


async def _first_of(*events: asyncio.Event) -> None:
    """Wait until one of some events is set."""
    async with asyncio.TaskGroup() as tasks:
        waits = [tasks.create_task(event.wait()) for event in events]
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
        for wait in waits:
            wait.cancel()
