"""Sessions of history and what they share: one client, one turn, one place for what is known of them.

Part of the composition root: the daemon builds a ``HistoryRuns``, and a ``HistoryRun`` for each session of the kind.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Literal

import msgspec
from structlog.typing import FilteringBoundLogger

from collector.clock import Clock
from collector.collection import Collection, Parts
from collector.config import Config, QuestDB
from collector.control_server import Progress as Say
from collector.errors import CollectorError, UsageError
from collector.exchanges.candle_sources.base import CandleSource, SourceLimits, length_us
from collector.exchanges.candle_sources.intervals import bucket_from, bucket_start
from collector.exchanges.candle_sources.registry import DEFAULT_ORDER, SOURCES, create_source, source_class
from collector.exchanges.selection import is_rule
from collector.history.backfill import Backfill, Outcome, Progress
from collector.history.client import HistoryClient
from collector.history.holdings import Holding, load_holdings
from collector.history.spans import intersect, length, subtract
from collector.history.tables import HistoryTables, LogRow, QualityRow, RangeRow
from collector.requests import BackfillRequest, StartRequest
from collector.session.manifest import Backfill as Plan
from collector.session.manifest import Manifest
from collector.session.names import new_session_id
from collector.session.session import create_manifest
from collector.streams import history_stream

EXCHANGE = "history"
"""What stands in the column ``exchange`` of a session that asks many: the source of each row is in ``source``."""
_DELIVERY_TIMEOUT_S = 600.0


class _PastRules:
    """What a session asks of its exchange's dialect, where there is none."""

    trade_ids_contiguous = False
    klines_open_at_previous_close = False


class HistoryRun(Collection):
    """One session of history: from its first question to the tables that say what is held now."""

    def __init__(self, manifest: Manifest, order: StartRequest, parts: Parts, runs: HistoryRuns) -> None:
        super().__init__(manifest, order, parts)
        self._runs = runs
        self._backfill: Backfill | None = None

    async def prepare(self) -> None:
        """Make or recover the session's files; nobody is asked anything yet."""
        self._session = self._make_session(_PastRules())
        await self._session.prepare()
        self._committed = {(file.stream.name, file.symbol): file.durable_seq for file in self._session.stream_files}
        self._feed = self._backfill = self._runs.make_backfill(self._session, self._parts)

    @property
    def backfill(self) -> Backfill:
        if self._backfill is None:
            raise UsageError("The session is not prepared yet.")
        return self._backfill

    async def run(self) -> None:
        """Run when no other one does, so that nothing is asked for twice, then keep what is known of its symbols."""
        async with self._runs.turn:
            await super().run()
            await self._runs.keep(self)


class HistoryRuns:
    """What all sessions of history share.

    Args:
        begin: prepares a session by its manifest and has it run.
        settings: where QuestDB is.
    """

    def __init__(
        self,
        config: Config,
        *,
        clock: Clock,
        log: FilteringBoundLogger,
        begin: Callable[[Manifest], Awaitable[HistoryRun]],
        settings: Callable[[], QuestDB],
    ) -> None:
        self.turn = asyncio.Lock()
        self.tables = HistoryTables(settings)
        self._config = config
        self._clock = clock
        self._log = log
        self._begin = begin
        self._client: HistoryClient | None = None
        self._running: dict[tuple[Any, ...], HistoryRun] = {}

    async def close(self) -> None:
        """Close the connections to sources."""
        if self._client is not None:
            await self._client.close()

    @property
    def client(self) -> HistoryClient:
        """The one client of the process."""
        if self._client is None:
            history = self._config.history
            self._client = HistoryClient(
                clock=self._clock,
                addresses={name: one.rest_url for name, one in self._config.exchange.items() if one.rest_url},
                limits={
                    name: SourceLimits(
                        one.weight, one.per_s, pace_s=one.pace_s, used_header=source_class(name).limits.used_header
                    )
                    for name, one in history.limits.items()
                },
                attempts=history.attempts,
                timeout_s=self._config.feed.snapshot_timeout_s,
                max_bytes=self._config.feed.rest_max_bytes,
                proxy=self._config.feed.proxy,
            )
        return self._client

    def make_backfill(self, session: Any, parts: Parts) -> Backfill:
        """Return the feed of a session of history."""
        plan = session.manifest.backfill
        return Backfill(
            session,
            self.client,
            [self._source(name) for name in plan.sources],
            data_dir=parts.data_dir,
            kinds=source_kinds(),
            clock=self._clock,
            log=parts.log.bind(session=session.manifest.session_id),
            max_concurrent=self._config.history.parallel_symbols,
            source_pause_s=self._config.history.source_pause_s,
        )

    @staticmethod
    def _source(name: str) -> CandleSource:
        return create_source(name)

    # What a person asks for

    async def backfill(self, request: BackfillRequest, say: Say) -> Outcome:
        """Run a session of history to its end, or follow the one that was asked the same; return what became of it.

        Raises:
            UsageError, UnknownName: there is nothing like that to ask for.
        """
        symbols = await self._symbols(request)
        manifest = self.describe(request, symbols)
        plan = manifest.backfill
        if plan is None:
            raise UsageError("There is nothing to collect.")
        key = (plan.interval, plan.from_us, tuple(plan.sources), tuple(symbols))
        run = self._running.get(key)
        if run is None:
            run = await self._begin(manifest)
            self._running[key] = run
        else:
            say({"follows": run.manifest.session_id})
        before = run.backfill.tell

        def tell(progress: Progress) -> None:
            before(progress)
            say(progress)

        run.backfill.tell = tell
        try:
            await run.ended.wait()
            async with self.turn:  # what is known of its symbols is kept by then
                outcome = run.backfill.outcome()
        finally:
            self._running.pop(key, None)
        if run.session.state == "failed":
            raise CollectorError(
                f"Session {run.manifest.session_id} failed: {run.manifest.reason}",
                hint="What it recorded until then is kept; the same command goes on behind it.",
            )
        return outcome

    def describe(self, request: BackfillRequest, symbols: Sequence[str]) -> Manifest:
        """Return the manifest of the session that a request asks for; raise UsageError where it makes no sense."""
        now_us = self._clock.now_us()
        interval = request.interval
        bucket_us = length_us(interval)
        sources = list(request.sources or self._config.history.sources or DEFAULT_ORDER)
        for name in sources:
            source_class(name)
        end_us = bucket_start(now_us, interval) if request.to_us is None else min(request.to_us, now_us)
        span = bucket_from(max(0, request.from_us), interval), bucket_start(end_us, interval)
        if span[1] - span[0] < bucket_us:
            raise UsageError(f"There is no closed {interval} candle in that range.", hint="Give an earlier --from.")
        manifest = create_manifest(
            session_id=new_session_id(now_us, EXCHANGE),
            exchange=EXCHANGE,
            symbols=symbols,
            data_types=[history_stream(interval).name],
            now_us=now_us,
            config=self._config,
            label=request.task,
        )
        manifest.kind = "history"
        manifest.backfill = Plan(task=request.task, interval=interval, from_us=span[0], to_us=span[1], sources=sources)
        return manifest

    async def _symbols(self, request: BackfillRequest) -> list[str]:
        for symbol in request.symbols:
            if is_rule(symbol):
                raise UsageError(f"{symbol!r} is no symbol.", hint="Write symbols as BASE_QUOTE, or give --max-coins.")
        symbols = list(dict.fromkeys(request.symbols))
        if not symbols:
            raise UsageError("No symbol was given.", hint="For example: --symbols BTC_USDT,ETH_USDT.")
        return symbols

    # What is known afterwards

    async def keep(self, run: HistoryRun) -> None:
        """Write what is held of a run's symbols now, and the run itself, where there is a database."""
        if self._config.questdb.mode == "off":
            return
        try:
            await self._keep(run)
        except CollectorError as error:
            self._log.warning("history.tables_not_written", session=run.manifest.session_id, reason=str(error))

    async def _keep(self, run: HistoryRun) -> None:
        manifest = run.manifest
        plan = manifest.backfill
        if plan is None:
            return
        data_dir = run.session.directory.parent
        holdings = await asyncio.to_thread(load_holdings, data_dir, plan.interval, set(manifest.symbols))
        now_us = self._clock.now_us()
        ranges = ranges_of(holdings, plan.interval, now_us)
        quality = completeness_of(holdings, plan.interval, now_us)
        outcome = run.backfill.outcome()
        log = LogRow(
            task_id=manifest.session_id,
            task_name=plan.task,
            status=manifest.state,
            started_us=manifest.created_us,
            finished_us=manifest.ended_us or now_us,
            provider=",".join(outcome.sources_used),
            symbols=outcome.total_symbols,
            records=outcome.total_records,
            retries=outcome.retries,
            error="; ".join(f"{symbol}: {reason}" for symbol, reason in list(plan.failed.items())[:10]),
            detail=msgspec.json.encode({"interval": plan.interval, "requests": outcome.requests}).decode(),
        )

        def write() -> None:
            self.tables.put_ranges(ranges)
            self.tables.put_quality(quality)
            self.tables.put_logs([log])

        await asyncio.to_thread(write)


def source_kinds() -> dict[str, Literal["exchange", "aggregator"]]:
    """Return, of every source of candles, whether it is an exchange or an aggregator."""
    return {name: source_class(name).kind for name in SOURCES}


def ranges_of(holdings: Mapping[str, Holding], interval: str, now_us: int) -> list[RangeRow]:
    """Return the rows of ``historical_data_range`` of some symbols."""
    bucket_us = length_us(interval)
    rows = []
    for symbol, holding in holdings.items():
        held = holding.any
        if held:
            whole = [(held[0][0], held[-1][1])]
            rows.append(
                RangeRow(
                    symbol=symbol,
                    timeframe=interval,
                    earliest_us=held[0][0],
                    latest_us=held[-1][1] - bucket_us,
                    total_records=length(held) // bucket_us,
                    is_complete=not subtract(subtract(whole, held), holding.empty),
                    updated_us=now_us,
                )
            )
    return rows


def completeness_of(holdings: Mapping[str, Holding], interval: str, now_us: int) -> list[QualityRow]:
    """Return the rows of ``data_quality`` of some symbols, by their completeness alone."""
    bucket_us = length_us(interval)
    rows = []
    for symbol, holding in holdings.items():
        held = holding.any
        if not held:
            continue
        whole = [(held[0][0], held[-1][1])]
        missing = length(subtract(subtract(whole, held), holding.empty)) // bucket_us
        expected = (length(whole) - length(intersect(whole, holding.empty))) // bucket_us
        share = 100.0 * (expected - missing) / expected if expected else 0.0
        rows.append(
            QualityRow(
                symbol=symbol,
                timeframe=interval,
                completeness_percentage=round(share, 4),
                missing_records=missing,
                has_gaps=missing > 0,
                score=round(share, 2),
                detail=msgspec.json.encode({"completeness": round(share, 4)}).decode(),
                checked_us=now_us,
            )
        )
    return rows
