"""A run of history: a feed whose events are past candles, asked for page by page and put into the session's buffer.

What is held already is not asked for again, so that a run which was killed is simply begun again. A symbol's failure is
its own; a source that fails is left alone for a while, and the next one is asked.
"""

from __future__ import annotations

import asyncio
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Literal, Protocol

import msgspec
from structlog.typing import FilteringBoundLogger

from collector.clock import Clock
from collector.errors import CollectorError, ConnectionLost, MessageError, SourceRefused, UnknownName
from collector.events import Gap, PastCandle
from collector.exchanges.candle_sources.base import CandleSource, HistoryCandle, length_us
from collector.exchanges.candle_sources.walk import Walk, part_of, walk
from collector.feeds.status import FeedStatus
from collector.history.client import HistoryClient
from collector.history.filling import Answered, Filling
from collector.history.holdings import Holding, load_holdings, spans_in
from collector.history.spans import Spans, holds, intersect, joined, length, of_starts, subtract, union
from collector.session.buffer import SessionBuffer
from collector.session.gaps import GapLedger
from collector.session.manifest import Backfill as Plan
from collector.session.manifest import Manifest
from collector.streams import history_stream

_TELL_S = 0.5
_LEAST_SHARE = 0.005
"""From so much of a run on, what is left of it can be estimated from what it has taken."""


class Recorded(Protocol):
    """What a run needs of its session; ``session.Session`` is one."""

    manifest: Manifest
    buffer: SessionBuffer
    ledger: GapLedger
    directory: Path

    async def flush(self) -> bool: ...

    async def save(self) -> None: ...

    def takes_rows(self) -> bool: ...


class SymbolReport(msgspec.Struct, kw_only=True):
    """What became of one symbol.

    Args:
        state: ``complete`` (every candle is held, or nothing was traded in it), ``partial``, or ``failed``: there is
            none, for the ``reason``.
        rows: how many candles this run recorded; ``sources`` says from where.
        held: how many candles of the range are held now, over all runs.
        missing: how many nobody gave; ``no_trades`` in how many nothing was traded.
        first_us, last_us: the starts of the first and the last candle that is held.
    """

    symbol: str
    state: Literal["complete", "partial", "failed"] = "failed"
    rows: int = 0
    sources: dict[str, int] = {}
    held: int = 0
    missing: int = 0
    no_trades: int = 0
    first_us: int | None = None
    last_us: int | None = None
    reason: str = ""


class Progress(msgspec.Struct, kw_only=True):
    """How far a run is; ``left_s`` is None until there is something to estimate it from."""

    session_id: str
    symbols_total: int
    symbols_done: int
    symbol: str
    source: str
    rows: int
    requests: int
    share: float
    left_s: float | None


class Outcome(msgspec.Struct, kw_only=True):
    """What became of a run: the shape of ``collector backfill --json``."""

    session_id: str
    task: str
    interval: str
    total_symbols: int
    successful: int
    failed: int
    total_records: int
    sources_used: dict[str, int]
    requests: dict[str, int]
    retries: int
    seconds: float
    symbols: list[SymbolReport]
    rejected: int = 0
    """Of an import: rows that are no candles; ``passed_over``: candles that were held already."""
    passed_over: int = 0


class Backfill:
    """Fill the range that a session's plan names; ``session.SessionFeed`` is what it is to its session.

    Args:
        sources: in the order in which they are asked; their ``native`` may raise UnknownName.
        kinds: of every source by name, whether it is an exchange or an aggregator.
        max_concurrent: how many symbols are asked for at once.
        source_pause_s: for how long a source that fails is left alone.
        tell: is told how far the run is, now and then.
        told: is told of each symbol that is done, with what is held of it.
    """

    def __init__(
        self,
        session: Recorded,
        client: HistoryClient,
        sources: Sequence[CandleSource],
        *,
        data_dir: Path,
        kinds: Mapping[str, Literal["exchange", "aggregator"]],
        clock: Clock,
        log: FilteringBoundLogger,
        max_concurrent: int = 4,
        source_pause_s: float = 300,
        tell: Callable[[Progress], None] = lambda _: None,
        told: Callable[[SymbolReport, Holding], None] = lambda _, __: None,
    ) -> None:
        plan = session.manifest.backfill
        if plan is None:
            raise CollectorError(f"Session {session.manifest.session_id} is not one of history.")
        self.first_data = asyncio.Event()
        self.finished = asyncio.Event()
        self.reports: dict[str, SymbolReport] = {}
        self.plan: Plan = plan
        self.tell = tell
        self._told = told
        self._session = session
        self._client = client
        self._sources = list(sources)
        self._data_dir = data_dir
        self._kinds = kinds
        self._clock = clock
        self._log = log
        self._max_concurrent = max_concurrent
        self._pause_s = source_pause_s
        self._stream = history_stream(plan.interval).name
        self._bucket_us = length_us(plan.interval)
        self._stopping = False
        self._aside: dict[str, tuple[float, str]] = {}
        self._own: dict[str, dict[str, Spans]] = {}
        self._requests: Counter[str] = Counter(plan.requests)
        self._begun_s = clock.monotonic_s()
        self._told_s = 0.0
        self._total_us = 0
        self._covered_us = 0
        self._new_rows = 0

    # A session's feed

    async def run(self) -> None:
        """Fill symbol by symbol, in order, until all are done or it is stopped."""
        self.first_data.set()
        plan, symbols = self.plan, list(self._session.manifest.symbols)
        try:
            holdings = await asyncio.to_thread(load_holdings, self._data_dir, plan.interval, set(symbols))
            self._own = await asyncio.to_thread(self._read_own, symbols)
            self._total_us = sum(
                length(subtract([self._range], holdings[symbol].any if symbol in holdings else []))
                for symbol in symbols
            )
            waiting = deque(symbols)
            async with asyncio.TaskGroup() as tasks:
                for _ in range(min(self._max_concurrent, len(waiting))):
                    tasks.create_task(self._work(waiting, holdings))
        finally:
            plan.held = {
                symbol: {name: list(spans) for name, spans in own.items()} for symbol, own in self._own.items()
            }
            plan.requests = dict(self._requests)
            self.finished.set()

    async def stop(self) -> None:
        """Have it end behind the pages that are under way."""
        self._stopping = True

    def status(self) -> FeedStatus:
        """Describe it as feeds are described."""
        return FeedStatus(
            exchange=self._session.manifest.exchange,
            connections=[],
            streams=[],
            rest_requests=sum(self._requests.values()),
            rest_refused=sum(self._client.retries.values()),
            banned_s=max((self._client.banned_s(source) for source in self._sources), default=0.0),
        )

    def outcome(self) -> Outcome:
        """Return what has become of the run so far."""
        manifest, plan = self._session.manifest, self.plan
        used: Counter[str] = Counter()
        for own in self._own.values():
            used.update({name: length(spans) // self._bucket_us for name, spans in own.items()})
        reports = [self.reports[symbol] for symbol in manifest.symbols if symbol in self.reports]
        failed = sum(report.state == "failed" for report in reports)
        return Outcome(
            session_id=manifest.session_id,
            task=plan.task,
            interval=plan.interval,
            total_symbols=len(manifest.symbols),
            successful=len(reports) - failed,
            failed=failed,
            total_records=sum(used.values()),
            sources_used={name: used[name] for name in sorted(used, key=used.__getitem__, reverse=True) if used[name]},
            requests=dict(self._requests),
            retries=sum(self._client.retries.values()),
            seconds=round(self._clock.monotonic_s() - self._begun_s, 3),
            symbols=reports,
        )

    # Symbols

    @property
    def _over(self) -> bool:
        """Whether it is to end, or its session takes no rows any more."""
        return self._stopping or not self._session.takes_rows()

    @property
    def _range(self) -> tuple[int, int]:
        return self.plan.from_us, self.plan.to_us

    def _read_own(self, symbols: Iterable[str]) -> dict[str, dict[str, Spans]]:
        """Return what this session's files hold already, where it goes on."""
        directory = self._session.directory
        return {symbol: spans_in(directory, self.plan.interval, symbol) for symbol in symbols}

    async def _work(self, waiting: deque[str], holdings: Mapping[str, Holding]) -> None:
        while waiting and not self._over:
            symbol = waiting.popleft()
            holding = holdings.get(symbol) or Holding()
            try:
                report = await self._fill(symbol, holding)
            except CollectorError as error:
                report = SymbolReport(symbol=symbol, reason=error.message)
            except Exception as error:  # noqa: BLE001  (one symbol's trouble leaves the others alone)
                self._log.error("history.bug", symbol=symbol, reason=repr(error), exc_info=error)
                report = SymbolReport(symbol=symbol, reason=repr(error))
            if self._over and report.state != "complete":
                return
            await self._settle(report, holding)

    async def _settle(self, report: SymbolReport, holding: Holding) -> None:
        plan, symbol = self.plan, report.symbol
        self.reports[symbol] = report
        await self._session.flush()
        if symbol not in plan.done:
            plan.done.append(symbol)
        if report.state == "failed":
            plan.failed[symbol] = report.reason
        if holding.empty:
            plan.empty[symbol] = intersect([self._range], holding.empty)
        self._log.info("history.symbol_done", **msgspec.structs.asdict(report))
        self._told(report, holding)
        self._say(symbol, "", always=True)

    async def _fill(self, symbol: str, holding: Holding) -> SymbolReport:
        now_us = self._clock.now_us()
        order = [source.name for source in self._sources]
        filling = Filling(symbol, self._range, self._bucket_us, holding, kinds=self._kinds, order=order, now_us=now_us)
        refusals: list[str] = []
        for source in self._sources:
            wanted = filling.to_ask(source.name)
            if not wanted or self._over:
                continue
            answered = await self._ask(source, symbol, wanted, holding, now_us)
            filling.take(answered)
            if answered.failure:
                refusals.append(f"{source.name}: {answered.failure}")
        if not self._over:
            self._enter_gaps(filling.gaps(self._stream))
        return self._report(symbol, filling, holding, refusals)

    def _report(self, symbol: str, filling: Filling, holding: Holding, refusals: Sequence[str]) -> SymbolReport:
        held = intersect([self._range], holding.any)
        first_us = filling.first_us()
        missing = filling.missing if first_us is None else intersect(filling.missing, [(first_us, self.plan.to_us)])
        report = SymbolReport(
            symbol=symbol,
            held=filling.count(held),
            missing=filling.count(missing),
            no_trades=filling.count(filling.finish()) if first_us is not None else 0,
            sources={
                name: length(spans) // self._bucket_us for name, spans in self._own.get(symbol, {}).items() if spans
            },
            first_us=held[0][0] if held else None,
            last_us=held[-1][1] - self._bucket_us if held else None,
        )
        report.rows = sum(report.sources.values())
        report.state = "failed" if not held and missing else "partial" if missing else "complete"
        if report.state != "complete":
            report.reason = " ".join(refusals) or "No source has it."
        return report

    def _enter_gaps(self, gaps: Iterable[Gap]) -> None:
        """Put into the ledger what it does not say yet: a run that goes on finds the same again."""
        known = {(entry.symbol, entry.cause, entry.from_us, entry.to_us) for entry in self._session.ledger.entries()}
        for gap in gaps:
            if (gap.symbol, gap.cause, gap.from_us, gap.to_us) not in known:
                self._session.buffer.add_gap(gap)

    # Sources

    async def _ask(self, source: CandleSource, symbol: str, wanted: Spans, holding: Holding, now_us: int) -> Answered:
        answered = Answered(source.name, wanted)
        until_s, reason = self._aside.get(source.name, (0.0, ""))
        if until_s > self._clock.monotonic_s():
            answered.failure = reason
            return answered
        interval = self.plan.interval
        try:
            source.native(symbol)
            asked_in = interval if interval in source.intervals else part_of(source, interval)
        except UnknownName as error:
            answered.failure, answered.unlisted = error.message, True
            return answered
        within_us = source.page_size(asked_in) * length_us(asked_in)
        for span in joined(wanted, within_us):
            walked = walk(source, symbol, interval, *span, now_us=now_us)
            try:
                await self._walk(walked, symbol, wanted, holding, answered)
            except (SourceRefused, ConnectionLost, MessageError) as error:
                answered.failure = error.message
                answered.unlisted = isinstance(error, SourceRefused) and error.reason == "unknown_symbol"
                if not answered.unlisted and not isinstance(error, MessageError):
                    self._aside[source.name] = self._clock.monotonic_s() + self._pause_s, error.message
                    self._log.warning("history.source_failed", source=source.name, symbol=symbol, reason=error.message)
            finally:
                self._note(answered, walked, span)
            if answered.failure or self._over:
                break
        return answered

    @staticmethod
    def _note(answered: Answered, walked: Walk, span: tuple[int, int]) -> None:
        covered = span[1] if walked.request is None else min(max(walked.covered_us, span[0]), span[1])
        answered.covered = union(answered.covered, [(span[0], covered)])
        answered.unreachable += walked.unreachable

    async def _walk(self, walked: Walk, symbol: str, wanted: Spans, holding: Holding, answered: Answered) -> None:
        """Ask page by page; what comes is in the buffer before the next page is asked for."""
        source, own = walked.source.name, self._own.setdefault(symbol, {})
        at = walked.covered_us
        while walked.request is not None and not self._over:
            candles = await self._client.step(walked)
            self._requests[source] += 1
            starts = self._record(symbol, source, candles, wanted, walked.incomplete)
            spans = of_starts(starts, self._bucket_us)
            answered.got = union(answered.got, spans)
            own[source] = union(own.get(source, []), spans)
            holding.add(source, spans)
            self._covered_us += max(0, min(walked.covered_us, self.plan.to_us) - at) if walked.request else 0
            at = max(at, walked.covered_us)
            self._say(symbol, source)
            while self._session.buffer.is_crowded() and self._session.takes_rows():
                await self._session.flush()

    def _record(
        self,
        symbol: str,
        source: str,
        candles: Sequence[HistoryCandle],
        wanted: Spans,
        incomplete: Mapping[int, object],
    ) -> list[int]:
        """Put the closed and whole candles that are wanted into the buffer; return their starts."""
        if not candles:
            return []
        add, stream, interval = self._session.buffer.add_event, self._stream, self.plan.interval
        received_us = self._clock.now_us()
        whole = any(first <= candles[0].start_us and candles[-1].start_us < before for first, before in wanted)
        starts: list[int] = []
        for c in candles:
            start = c.start_us
            if not c.closed or start in incomplete or not (whole or holds(wanted, start)):
                continue
            starts.append(start)
            add(
                stream,
                PastCandle(
                    symbol, start, interval, c.open, c.high, c.low, c.close, c.volume, c.quote_volume, c.trades_count,
                    c.taker_buy_volume, c.taker_buy_quote_volume, source, received_us,
                ),
            )  # fmt: skip
        self._new_rows += len(starts)
        return starts

    # Telling

    def _say(self, symbol: str, source: str, *, always: bool = False) -> None:
        now_s = self._clock.monotonic_s()
        if not always and now_s - self._told_s < _TELL_S:
            return
        self._told_s = now_s
        symbols = self._session.manifest.symbols
        share = min(1.0, self._covered_us / self._total_us) if self._total_us else 1.0
        if len(self.reports) == len(symbols):
            share = 1.0
        took_s = now_s - self._begun_s
        left_s = took_s * (1 - share) / share if share >= _LEAST_SHARE else None
        self.tell(
            Progress(
                session_id=self._session.manifest.session_id,
                symbols_total=len(symbols),
                symbols_done=len(self.reports),
                symbol=symbol,
                source=source,
                rows=self._new_rows,
                requests=sum(self._requests.values()),
                share=round(share, 4),
                left_s=None if left_s is None else round(left_s, 1),
            )
        )
