"""The flusher: every half second, what the buffer holds becomes durable rows, candles and ledger entries.

Everything that blocks happens in one thread, the log's, which an executor of one worker stands for; the event loop only
swaps the buffer and counts. The order within a flush is fixed: trades and book rows, candles folded from exactly those
trades that are in the file, candle rows, ledger rows, one sync, and then the word to the replicator.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass, field
from decimal import Decimal
from functools import partial
from typing import Literal, Protocol, TypeVar

import msgspec
from structlog.typing import FilteringBoundLogger

from collector.candles.aggregator import Candle, GapTest
from collector.candles.compare import CandleScore, Comparison, KlineCheck
from collector.clock import Clock
from collector.errors import LogError
from collector.events import BookTop, Gap, Kline, MarketEvent, Trade
from collector.session.buffer import Batch, SessionBuffer
from collector.session.gaps import Entry, GapLedger, Repair
from collector.session.rotation import KEPT_STREAMS, NO_ROTATION, RotationRule
from collector.session.rows import MalformedRow, format_gap, format_of, format_trades, identify, split_malformed
from collector.storage.csv_log import Commit, CsvLog, Incident, StreamFile, Write
from collector.streams import DATA_TYPES, GAPS, HISTORY_TYPES, OHLCV, ORDERBOOK, PRICES

Health = Literal["ok", "scarce", "degraded", "failed"]
"""``scarce``: everything is written, but the disk has less room than it should; ``degraded``: rows wait in memory."""

_T = TypeVar("_T")

_COUNTED = frozenset((*DATA_TYPES, *HISTORY_TYPES))
"""Streams whose rows a buffer counts: what comes from the exchange, and not what is made of it."""

_ROTATION_BUDGET_S = 0.03  # of a thousand files that are due at midnight, some are closed behind each flush
_ROTATION_LOOK_S = 1.0
_SPACE_LOOK_S = 1.0


class CandleBuilder(Protocol):
    """What the flusher asks of a symbol's aggregator; called in the log's thread."""

    def fold(self, trades: Sequence[Trade], seqs: Sequence[int], quotes: Sequence[Decimal]) -> None: ...

    def close_due(self, exchange_now_us: int, gaps: GapTest) -> list[Candle]: ...

    def finish(self, gaps: GapTest) -> list[Candle]: ...

    def revise(self, from_us: int, to_us: int) -> None: ...

    def replace(self, klines: Iterable[Kline]) -> None: ...

    def restore(self, from_us: int, to_us: int) -> None: ...


class ExchangeTime(Protocol):
    """What the flusher asks of the exchange's clock; called in the event loop's thread."""

    def observe(self, symbol: str, timestamp_us: int, monotonic_s: float) -> None: ...

    def freeze(self, symbol: str, stream: str, monotonic_s: float) -> None: ...

    def thaw(self, symbol: str, stream: str) -> None: ...

    def now_us(self, symbol: str, monotonic_s: float) -> int | None: ...


@dataclass(slots=True)
class _Ticks:
    """Trades as they are about to stand in the file."""

    trades: list[Trade]
    first_seq: int
    quotes: list[Decimal]


@dataclass(slots=True)
class _Pending:
    """Lines of one file that are not in it yet, and what they were made of."""

    file: StreamFile
    parts: list[bytes] = field(default_factory=list)
    rows: int = 0
    ticks: list[_Ticks] = field(default_factory=list)
    others: list[BookTop | MarketEvent | Kline] = field(default_factory=list)

    @property
    def next_seq(self) -> int:
        return self.file.next_seq + self.rows

    def add(self, content: bytes, rows: int) -> None:
        self.parts.append(content)
        self.rows += rows


@dataclass(slots=True)
class _Outcome:
    """What one flush did. ``refused`` rows could not be lines at all."""

    commits: list[Commit] = field(default_factory=list)
    durable: int = 0
    refused: int = 0
    error: LogError | None = None


@dataclass(slots=True)
class FlushStatistics:
    """Counters since the session was begun or resumed; durations in seconds, of the whole flush."""

    flushes: int = 0
    errors: int = 0
    rotations: int = 0
    last_duration_s: float = 0.0
    longest_s: float = 0.0


class Flusher:
    """Move a session's events from its buffer to its log.

    Args:
        files: the file of each stream and symbol; ``gaps`` has the symbol "".
        candles: the aggregator of each symbol; none where no candles are wanted.
        interrupted: tells which (symbol, stream) deliver nothing now, so that their exchange time stands still.
        klines_open_at_previous_close: by the exchange's rule, and not at their first trade.
        scores: of an earlier part of the session, to go on counting from.
        rotation: when a live file is closed for a new one.
        reserve_bytes: below so much free disk the health is ``scarce``.
        on_commit: is told what became durable; called in the event loop's thread.
        on_health: is told when writing goes wrong, fails for good, or goes on (``reason`` is empty then).
    """

    def __init__(
        self,
        *,
        buffer: SessionBuffer,
        csv_log: CsvLog,
        files: Mapping[tuple[str, str], StreamFile],
        ledger: GapLedger,
        candles: dict[str, CandleBuilder],
        exchange_time: ExchangeTime,
        executor: Executor,
        clock: Clock,
        log: FilteringBoundLogger,
        interval_s: float,
        on_commit: Callable[[Sequence[Commit]], None],
        on_health: Callable[[Health, str], None],
        interrupted: Callable[[], Collection[tuple[str, str]]] = frozenset,
        counts_raw: bool = True,
        klines_open_at_previous_close: bool = False,
        scores: Sequence[CandleScore] = (),
        rotation: RotationRule = NO_ROTATION,
        reserve_bytes: int = 0,
    ) -> None:
        self.health: Health = "ok"
        self.statistics = FlushStatistics()
        self.lost: list[Gap] = []
        """Rows that were given up; in the ledger too, as far as that could be written."""
        self._buffer = buffer
        self._csv = csv_log
        self._files = files
        self._ledger = ledger
        self._candles = candles
        self._exchange_time = exchange_time
        self._executor = executor
        self._clock = clock
        self._log = log
        self._interval_s = interval_s
        self._on_commit = on_commit
        self._on_health = on_health
        self._interrupted = interrupted
        self._rotation = rotation
        self._rotation_at_s = 0.0
        self._reserve_bytes = reserve_bytes
        self._space_at_s = 0.0
        self._frozen: set[tuple[str, str]] = set()
        self._pending: dict[StreamFile, _Pending] = {}
        self._unsynced_rows = 0
        self._paused_us: dict[tuple[str, str], int] = {}
        self._resumed: dict[tuple[str, str], int] = {}
        self._repairs: list[Repair] = []
        self._new_check = partial(
            KlineCheck, counts_raw=counts_raw, opens_at_previous_close=klines_open_at_previous_close
        )
        known = {score.symbol: score for score in scores}
        self._checks = {symbol: self._new_check(known.get(symbol) or CandleScore(symbol)) for symbol in candles}
        self._stopping = asyncio.Event()
        self._turn = asyncio.Lock()
        self._cancelled: asyncio.CancelledError | None = None

    @property
    def scores(self) -> list[CandleScore]:
        """Return how each symbol's candles compare with the exchange's own, of those that could be compared."""
        return [check.score for check in self._checks.values() if check.score.total]

    def expect_resumption(self, symbol: str, stream: str, last_us: int, *, numbered: bool) -> None:
        """Learn when a resumed session's stream paused.

        Args:
            numbered: the feed reports what is missing by its ids; otherwise the hole is entered here, by its times.
        """
        self._paused_us[symbol, stream] = last_us
        if not numbered:
            self._resumed[symbol, stream] = last_us

    def admit(self, files: Mapping[tuple[str, str], StreamFile], candles: Mapping[str, CandleBuilder]) -> None:
        """Take rows of more symbols from now on."""
        # Replaced and not changed: the log's thread may be reading them.
        self._files = {**self._files, **files}
        self._candles = {**self._candles, **candles}
        fresh = [symbol for symbol in candles if symbol not in self._checks]
        self._checks = {**self._checks, **{symbol: self._new_check(CandleScore(symbol)) for symbol in fresh}}

    async def retire(self, symbols: Collection[str]) -> None:
        """Close the candles and the files of symbols that are not collected any more; what is written stays."""
        async with self._turn:
            candles = {symbol: self._candles[symbol] for symbol in symbols if symbol in self._candles}
            self._candles = {symbol: builder for symbol, builder in self._candles.items() if symbol not in symbols}
            outcome = await self._in_log_thread(lambda: self._finish_symbols(candles, symbols))
            if outcome.commits:
                self._on_commit(outcome.commits)
            await self._judge(outcome.error)

    async def run(self) -> None:
        """Flush at every interval until ``stop``; a slow flush delays the next one, and they never overlap."""
        due_s = self._clock.monotonic_s() + self._interval_s
        while not self._stopping.is_set() and self.health != "failed":
            try:
                async with asyncio.timeout(max(0.0, due_s - self._clock.monotonic_s())):
                    await self._stopping.wait()
            except TimeoutError:
                await self.flush()
                due_s = max(due_s + self._interval_s, self._clock.monotonic_s())

    def stop(self) -> None:
        """End ``run`` after the flush that is under way; ``finish`` writes the rest."""
        self._stopping.set()

    async def flush(self) -> None:
        """Make what is in the buffer durable, or keep it for the next try."""
        async with self._turn:
            await self._flush(final=False)
        self._answer_cancellation()

    async def finish(self, deadline_s: float, *, over: bool = True) -> bool:
        """Write everything, open candles too; where that fails until a deadline, give the rest up and say what it was.

        Args:
            deadline_s: for how long a failing write is tried again.
            over: False where the session is only left: then open candles stay open.

        Returns:
            Whether every row is durable.
        """
        self.stop()
        async with self._turn:
            if self.health == "failed":
                return False
            started_s = self._clock.monotonic_s()
            await self._flush(final=over, last=True)
            while self.health == "degraded" and self._clock.monotonic_s() - started_s < deadline_s:
                await asyncio.sleep(min(self._interval_s, deadline_s))
                await self._flush(final=over, last=True)
            if self.health == "degraded":
                await self._fail("The log could not be written before the session had to end.")
        self._answer_cancellation()
        return self.health in ("ok", "scarce")

    async def _flush(self, *, final: bool, last: bool = False) -> None:
        if self.health == "failed":
            return
        started_s = self._clock.monotonic_s()
        batch = self._buffer.swap()
        times = self._exchange_times(batch, started_s)
        outcome = await self._in_log_thread(lambda: self._write(batch, times, final=final))
        self._buffer.mark_failed(outcome.refused)
        self._buffer.mark_written(outcome.durable)
        self.statistics.flushes += 1
        self.statistics.last_duration_s = took_s = self._clock.monotonic_s() - started_s
        self.statistics.longest_s = max(self.statistics.longest_s, took_s)
        if outcome.commits:
            self._on_commit(outcome.commits)
        await self._judge(outcome.error)
        if self._reserve_bytes and not last and started_s >= self._space_at_s and self.health in ("ok", "scarce"):
            self._space_at_s = started_s + _SPACE_LOOK_S
            await self._look_at_space()
        if not (last or outcome.error or self._rotation.never) and started_s >= self._rotation_at_s:
            await self._in_log_thread(lambda: self._rotate(self._clock.now_us()))

    async def _judge(self, error: LogError | None) -> None:
        if error is None:
            if self.health == "degraded":
                self.health = "ok"
                self._on_health("ok", "")
            return
        self.statistics.errors += 1
        if error.permanent:
            await self._fail(str(error))
        elif self._buffer.full:
            await self._fail(f"{error} {self._buffer.max_rows} rows waited in memory, and no more may.")
        elif self.health in ("ok", "scarce"):
            self.health = "degraded"
            self._on_health("degraded", str(error))

    async def _look_at_space(self) -> None:
        """Say it before the disk is full, while there is time to make room; rows are written on meanwhile."""
        try:
            free = await self._in_log_thread(self._csv.free_bytes)
        except LogError:
            return  # the next write tells what is wrong
        health: Health = "scarce" if free < self._reserve_bytes else "ok"
        if health != self.health:
            self.health = health
            reason = f"The disk has {free:,} bytes left, fewer than csv.reserve_bytes ({self._reserve_bytes:,})."
            self._on_health(health, reason if health == "scarce" else "")

    async def _fail(self, reason: str) -> None:
        """Give up what could not be written, name it in the ledger, and say that it is over."""
        self._buffer.end_runs()
        batch = self._buffer.swap()
        outcome = await self._in_log_thread(lambda: self._give_up(batch, reason))
        self._buffer.mark_written(outcome.durable)
        self._buffer.mark_failed(self._buffer.pending)
        if outcome.commits:
            self._on_commit(outcome.commits)
        self.health = "failed"
        self._on_health("failed", reason)

    async def _in_log_thread(self, work: Callable[[], _T]) -> _T:
        """Run blocking work to its end, even where the caller is cancelled meanwhile: that is answered afterwards."""
        future = asyncio.get_running_loop().run_in_executor(self._executor, work)
        while True:
            try:
                return await asyncio.shield(future)
            except asyncio.CancelledError as error:
                if future.done():
                    raise
                self._cancelled = error

    def _answer_cancellation(self) -> None:
        error, self._cancelled = self._cancelled, None
        if error is not None:
            raise error

    def _exchange_times(self, batch: Batch, now_s: float) -> dict[str, int]:
        """Return each symbol's exchange time as of the swap: every trade before it is in this batch or in the log."""
        for symbol, newest_us in batch.observed.items():
            self._exchange_time.observe(symbol, newest_us, now_s)
        interrupted = set(self._interrupted())
        for symbol, stream in interrupted - self._frozen:
            self._exchange_time.freeze(symbol, stream, now_s)
        for symbol, stream in self._frozen - interrupted:
            self._exchange_time.thaw(symbol, stream)
        self._frozen = interrupted
        times = {symbol: self._exchange_time.now_us(symbol, now_s) for symbol in self._candles}
        return {symbol: at_us for symbol, at_us in times.items() if at_us is not None}

    # From here on, everything is called in the log's thread.

    def _write(self, batch: Batch, times: Mapping[str, int], *, final: bool) -> _Outcome:
        outcome = _Outcome()
        self._format(batch, outcome)
        try:
            self._append(_COUNTED, outcome)
            self._enter_repairs(batch, outcome)
            self._make_candles(times, final=final and not self._waits(PRICES.name))
            self._compare(batch)
            self._append((OHLCV.name,), outcome)
            self._note_incidents()
            self._format_gaps()
            self._append((GAPS.name,), outcome)
        finally:
            self._sync(outcome)
        return outcome

    def _enter_repairs(self, batch: Batch, outcome: _Outcome) -> None:
        """Enter what came of repairs once their trades are on the disk: the ledger never promises a row that is not."""
        self._replace_minutes(batch.replacements)
        self._repairs += batch.repairs
        if not self._repairs:
            return
        self._sync(outcome)
        waiting = [] if outcome.error is None else self._repairs
        for repair in self._repairs:
            if repair not in waiting and self._waits(PRICES.name, repair.symbol):
                waiting.append(repair)
        entered = [repair for repair in self._repairs if repair not in waiting]
        self._repairs = waiting
        for repair in entered:
            for entry in self._ledger.repair(repair):
                self._restore(entry)
                self._look_again(entry.symbol, entry.from_us, entry.to_us)

    def _replace_minutes(self, klines: Sequence[Kline]) -> None:
        for kline in klines:
            builder = self._candles.get(kline.symbol)
            try:
                if builder is not None:
                    builder.replace([kline])
            except Exception as error:  # noqa: BLE001  (whatever is wrong with its candles, the ticks go on)
                self._give_up_candles(kline.symbol, error)

    def _restore(self, before: Entry) -> None:
        """Have minutes made from trades again that the exchange's own had stood for, once those trades have come."""
        builder = self._candles.get(before.symbol)
        if builder is None or before.repaired_from != "kline" or before.from_us is None or before.to_us is None:
            return
        if not self._ledger.overlaps(before.symbol, before.from_us, before.to_us + 1):
            builder.restore(before.from_us, before.to_us + 1)

    def _format(self, batch: Batch, outcome: _Outcome) -> None:
        """Turn a batch into lines behind those that wait already."""
        trades: dict[str, list[Trade]] = {}
        for trade in batch.trades:
            group = trades.get(trade.symbol)
            if group is None:
                trades[trade.symbol] = [trade]
            else:
                group.append(trade)
        for symbol, of_symbol in trades.items():
            self._format_trades(symbol, of_symbol, outcome)
        self._format_others(ORDERBOOK.name, batch.books, outcome)
        for stream, events in batch.others.items():
            self._format_others(stream, events, outcome)
        for gap in batch.gaps:
            self._record(gap)

    def _format_trades(self, symbol: str, trades: list[Trade], outcome: _Outcome) -> None:
        pending = self._pending_of(PRICES.name, symbol)
        first_seq = pending.next_seq
        try:
            content, quotes = format_trades(trades, first_seq)
        except MalformedRow as error:
            trades, refused = split_malformed(trades, format_trades)
            self._refuse(PRICES.name, symbol, [(trade.timestamp_us, trade.trade_id) for trade in refused], error)
            outcome.refused += len(refused)
            if not trades:
                return
            content, quotes = format_trades(trades, first_seq)
        if self._resumed:
            first = next((trade for trade in trades if trade.source != "rest"), None)
            if first is not None:
                self._note_resumption(symbol, PRICES.name, first.timestamp_us)
        pending.add(content, len(trades))
        pending.ticks.append(_Ticks(trades, first_seq, quotes))

    def _format_others(self, stream: str, events: Sequence[BookTop | MarketEvent | Kline], outcome: _Outcome) -> None:
        """Turn what is no trade into lines; what cannot be one is refused, and the rest goes on."""
        by_symbol: dict[str, list[BookTop | MarketEvent | Kline]] = {}
        for event in events:
            by_symbol.setdefault(event.symbol, []).append(event)
        for symbol, rows in by_symbol.items():
            good = rows
            pending = self._pending_of(stream, symbol)
            format_rows = format_of(pending.file.stream)
            try:
                content = format_rows(rows, pending.next_seq)
            except MalformedRow as error:
                good, refused = split_malformed(rows, format_rows)
                self._refuse(stream, symbol, [identify(stream, event) for event in refused], error)
                outcome.refused += len(refused)
                if not good:
                    continue
                content = format_rows(good, pending.next_seq)
            if self._resumed:
                self._note_resumption(symbol, stream, identify(stream, good[0])[0])
            pending.add(content, len(good))
            pending.others.extend(good)

    def _refuse(self, stream: str, symbol: str, rows: Sequence[tuple[int, int | str]], error: MalformedRow) -> None:
        self.statistics.errors += 1
        self._log.error("data_collection.rows_refused", stream=stream, symbol=symbol, rows=len(rows), reason=str(error))
        self._record(_gap_of(stream, symbol, "malformed", rows, str(error)))

    def _note_resumption(self, symbol: str, stream: str, first_us: int) -> None:
        """Enter what the pause of a resumed session cost a stream, now that its next row tells the end."""
        last_us = self._resumed.pop((symbol, stream), None)
        if last_us is not None:
            self._record(Gap(symbol, stream, "restart", last_us, first_us, detail="the session was interrupted"))

    def _pending_of(self, stream: str, symbol: str) -> _Pending:
        file = self._files[stream, symbol]
        pending = self._pending.get(file)
        if pending is None:
            pending = self._pending[file] = _Pending(file)
        return pending

    def _waits(self, stream: str, symbol: str | None = None) -> bool:
        return any(
            file.stream.name == stream and (symbol is None or file.symbol == symbol) and pending.rows
            for file, pending in self._pending.items()
        )

    def _append(self, streams: Collection[str], outcome: _Outcome) -> None:
        """Append what waits for the files of some streams; what went in is folded and forgotten, the rest waits on."""
        chosen = [pending for file, pending in self._pending.items() if file.stream.name in streams and pending.rows]
        if not chosen:
            return
        writes = []
        for pending in chosen:
            if len(pending.parts) > 1:
                pending.parts = [b"".join(pending.parts)]
            writes.append(Write(pending.file, pending.parts[0], pending.rows))
        try:
            self._csv.append(writes)
        except LogError as error:
            outcome.error = _worse(outcome.error, error)
        for pending, write in zip(chosen, writes, strict=True):
            if write.written:
                del self._pending[pending.file]
                if pending.file.stream.name in _COUNTED:
                    self._unsynced_rows += pending.rows
                if pending.ticks and pending.file.symbol is not None:
                    self._fold(pending.file.symbol, pending.ticks)

    def _fold(self, symbol: str, ticks: Sequence[_Ticks]) -> None:
        builder = self._candles.get(symbol)
        if builder is None:
            return
        try:
            for part in ticks:
                seqs = range(part.first_seq, part.first_seq + len(part.trades))
                builder.fold(part.trades, seqs, part.quotes)
        except Exception as error:  # noqa: BLE001  (whatever is wrong with its candles, the ticks go on)
            self._give_up_candles(symbol, error)

    def _make_candles(self, times: Mapping[str, int], *, final: bool) -> None:
        """Put the rows of candles that are due behind those that wait; not while trades of the symbol wait."""
        waiting = {file.symbol for file, pending in self._pending.items() if file.stream is PRICES and pending.rows}
        for symbol, builder in list(self._candles.items()):
            if symbol in waiting:
                continue
            try:
                rows = builder.close_due(times[symbol], self._gap_test(symbol)) if symbol in times else []
                if final:
                    rows += builder.finish(self._gap_test(symbol))
            except Exception as error:  # noqa: BLE001  (as above)
                self._give_up_candles(symbol, error)
                continue
            self._add_candles(symbol, rows)

    def _add_candles(self, symbol: str, rows: list[Candle]) -> None:
        if rows:
            pending = self._pending_of(OHLCV.name, symbol)
            first_seq = pending.next_seq
            lines = [candle.line(seq) for seq, candle in enumerate(rows, first_seq)]
            pending.add("".join(lines).encode(), len(lines))
            self._tell_differences(self._checks[symbol].add_candles(rows, self._gap_test(symbol)))

    def _finish_symbols(self, candles: Mapping[str, CandleBuilder], symbols: Collection[str]) -> _Outcome:
        """Write the open candles of symbols, and close their files."""
        outcome = _Outcome()
        try:
            for symbol, builder in candles.items():
                try:
                    self._add_candles(symbol, builder.finish(self._gap_test(symbol)))
                except Exception as error:  # noqa: BLE001  (whatever is wrong with its candles, its ticks are written)
                    self._log.error("data_collection.candles_failed", symbol=symbol, reason=repr(error))
            self._append((OHLCV.name,), outcome)
            self._format_gaps()
            self._append((GAPS.name,), outcome)
        finally:
            self._sync(outcome)
        if outcome.error is None:
            for file in self._files.values():
                if file.symbol in symbols:
                    self._csv.close_file(file)
        return outcome

    def _give_up_candles(self, symbol: str, error: Exception) -> None:
        del self._candles[symbol]
        self.statistics.errors += 1
        self._log.error("data_collection.candles_failed", symbol=symbol, reason=repr(error), exc_info=error)

    def _gap_test(self, symbol: str) -> GapTest:
        return lambda from_us, to_us: self._ledger.overlaps(symbol, from_us, to_us)

    def _compare(self, batch: Batch) -> None:
        for kline in batch.klines:
            check = self._checks.get(kline.symbol)
            comparison = check.add_kline(kline) if check is not None else None
            if comparison is not None:
                self._tell_differences([comparison])

    def _tell_differences(self, comparisons: Sequence[Comparison]) -> None:
        for comparison in comparisons:
            if comparison.verdict == "differs":
                self._log.warning(
                    "data_collection.candle_differs",
                    symbol=comparison.symbol,
                    interval=comparison.interval,
                    timestamp=comparison.timestamp_us,
                    fields={found.field: (found.ours, found.theirs) for found in comparison.differences},
                )

    def _record(self, gap: Gap) -> Entry:
        """Enter a gap in the ledger; candles that it falls into are looked at again."""
        if gap.cause == "restart" and gap.from_us is None:
            gap = msgspec.structs.replace(gap, from_us=self._paused_us.get((gap.symbol, gap.stream)))
        entry = self._ledger.record(gap, self._clock.now_us())
        if gap.stream == PRICES.name:
            self._look_again(gap.symbol, gap.from_us, gap.to_us)
        return entry

    def _look_again(self, symbol: str, from_us: int | None, to_us: int | None) -> None:
        """Have the candles of a span of trades made again: its gaps are others now."""
        builder = self._candles.get(symbol)
        from_us = from_us if from_us is not None else to_us
        if builder is None or from_us is None:
            return
        try:
            builder.revise(from_us, (to_us if to_us is not None else from_us) + 1)
        except Exception as error:  # noqa: BLE001  (as above)
            self._give_up_candles(symbol, error)

    def _note_incidents(self) -> None:
        for incident in self._csv.take_incidents():
            report_incident(self._log, incident)
            if incident.file.stream is GAPS:
                self._ledger.rewrite()
            gap = gap_of_incident(incident)
            if gap is not None:
                self._record(gap)

    def _format_gaps(self) -> None:
        entries = self._ledger.take_unwritten()
        if entries:
            pending = self._pending_of(GAPS.name, "")
            for entry in entries:
                pending.add(format_gap(entry, pending.next_seq), 1)

    def _sync(self, outcome: _Outcome) -> None:
        try:
            outcome.commits += self._csv.sync()
        except LogError as error:
            outcome.error = _worse(outcome.error, error)
        else:
            outcome.durable += self._unsynced_rows
            self._unsynced_rows = 0

    def _rotate(self, now_us: int) -> None:
        """Close the files that are due, as many as fit between two flushes; the rest follow behind the next ones."""
        begun_s = self._clock.monotonic_s()
        for file in self._rotation.due(self._files.values(), now_us):
            if not self._close_segment(file) or self._clock.monotonic_s() - begun_s > _ROTATION_BUDGET_S:
                return
        self._rotation_at_s = begun_s + _ROTATION_LOOK_S

    def _close_segment(self, file: StreamFile) -> bool:
        try:
            closed = self._csv.rotate(file)
        except LogError as error:
            self.statistics.errors += 1
            self._log.warning("data_collection.file_not_rotated", path=str(file.path), reason=str(error))
            self._rotation_at_s = self._clock.monotonic_s() + _ROTATION_LOOK_S
            return False
        if closed is not None:
            self.statistics.rotations += 1
            self._log.debug("data_collection.file_rotated", path=str(closed), next_seq=file.next_seq)
        return True

    def rotate_all(self) -> None:
        """Close every file of ticks, for a spool whose session has ended; called in the log's thread."""
        for file in self._files.values():
            if file.stream.name not in KEPT_STREAMS:
                self._close_segment(file)

    def _give_up(self, batch: Batch, reason: str) -> _Outcome:
        """Name every row that will not be written, and write at least the ledger where that is possible."""
        outcome = _Outcome()
        self._format(batch, outcome)
        self._sync(outcome)
        self.lost = [gap for gap in map(_lost_rows, self._pending.values(), [reason] * len(self._pending)) if gap]
        self.lost += [gap for gap in batch.gaps if gap.cause == "overflow"]
        self.lost += [gap for file in self._files.values() if (gap := _undurable_rows(file, reason))]
        for file in list(self._pending):
            if file.stream is not GAPS:
                del self._pending[file]
        self._unsynced_rows = 0
        for gap in self.lost:
            if gap not in batch.gaps:
                self._record(gap)
        self._note_incidents()
        self._format_gaps()
        self._append((GAPS.name,), outcome)
        ledger = _Outcome()
        self._sync(ledger)
        outcome.commits += ledger.commits
        return outcome


def gap_of_incident(incident: Incident) -> Gap | None:
    """Return what a damaged file lost, as a gap whose ids are the row numbers; None where it lost nothing."""
    if incident.lost is None:
        return None
    first, last = incident.lost
    return Gap(
        incident.file.symbol or "",
        incident.file.stream.name,
        "log_damaged",
        None,
        None,
        first,
        last,
        last - first + 1,
        state="unrecoverable",
        detail=f"{incident.detail}; rows {first} to {last} are gone",
    )


def report_incident(log: FilteringBoundLogger, incident: Incident) -> None:
    """Say in the log what happened to a file."""
    write = log.warning if incident.kind == "torn" else log.error
    file = incident.file
    write(f"data_collection.file_{incident.kind}", path=str(file.path), reason=incident.detail, lost=incident.lost)


def _lost_rows(pending: _Pending, reason: str) -> Gap | None:
    """Return what is lost with the lines that wait for a file; None for candles, which the trades make again."""
    rows: list[tuple[int, int | str]] = [(t.timestamp_us, t.trade_id) for part in pending.ticks for t in part.trades]
    stream = pending.file.stream.name
    rows += [identify(stream, event) for event in pending.others]
    if not rows:
        return None
    return _gap_of(stream, pending.file.symbol or "", "overflow", rows, reason)


def _undurable_rows(file: StreamFile, reason: str) -> Gap | None:
    """Return the rows that are in a file and may not be on the disk."""
    first, last = file.durable_seq + 1, file.next_seq - 1
    if file.stream.name not in _COUNTED or last < first:
        return None
    detail = f"rows {first} to {last} may not be on the disk: {reason}"
    return Gap(
        file.symbol or "", file.stream.name, "log_damaged", None, None, first, last, last - first + 1, detail=detail
    )


def _gap_of(
    stream: str,
    symbol: str,
    cause: Literal["overflow", "malformed"],
    rows: Sequence[tuple[int, int | str]],
    detail: str,
) -> Gap:
    times = [at_us for at_us, _ in rows]
    ids = [row_id for _, row_id in rows if isinstance(row_id, int)]
    return Gap(
        symbol,
        stream,
        cause,
        min(times),
        max(times),
        min(ids, default=None),
        max(ids, default=None),
        len(rows),
        detail=detail,
    )


def _worse(first: LogError | None, second: LogError) -> LogError:
    return second if first is None or (second.permanent and not first.permanent) else first
