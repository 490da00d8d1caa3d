"""Sessions of history and what they share: one client, one turn, one place for what is known of them.

Part of the composition root: the daemon builds a ``HistoryRuns``, and a ``HistoryRun`` for each session of the kind.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from pathlib import Path
from typing import Any, Literal

import msgspec
from structlog.typing import FilteringBoundLogger

from collector.clock import Clock
from collector.collection import Collection, Parts
from collector.config import Config, QuestDB
from collector.control_server import Progress as Say
from collector.errors import CollectorError, UnknownName, UsageError
from collector.exchanges.candle_sources.base import CandleSource, SourceLimits, length_us
from collector.exchanges.candle_sources.coingecko import MARKETS_PAGE, CoingeckoCandles
from collector.exchanges.candle_sources.intervals import DAY_US, HOUR_US, bucket_from, bucket_start
from collector.exchanges.candle_sources.registry import DEFAULT_ORDER, SOURCES, create_source, source_class
from collector.exchanges.candle_sources.walk import walk
from collector.exchanges.registry import EXCHANGES, create_exchange
from collector.exchanges.selection import is_rule
from collector.feeds.allowance import Allowances, allowance_of
from collector.feeds.feed import fetch_listing, open_rest
from collector.history.backfill import Backfill, Outcome
from collector.history.client import HistoryClient
from collector.history.coins import CoinList, fetch_coins, load_coins, save_coins, symbol_rows
from collector.history.holdings import Holding, history_sessions, load_holdings
from collector.history.importing import Import, Options, symbols_of
from collector.history.schedule import Schedule
from collector.history.spans import intersect, length, subtract
from collector.history.tables import HistoryTables, LogRow, QualityRow, RangeRow
from collector.history_check import SymbolQuality, examine_symbol, points_of
from collector.history_schedule import Scheduler, Work, describe_schedule, load_runs
from collector.quality.candles import Point, SecondOpinion, compare
from collector.requests import BackfillRequest, CandleFileRequest, CoinsRequest, QualityRequest, StartRequest
from collector.session.manifest import Backfill as Plan
from collector.session.manifest import Manifest
from collector.session.names import new_session_id
from collector.session.session import FINAL, create_manifest
from collector.storage.files import Files
from collector.streams import history_stream

EXCHANGE = "history"
"""What stands in the column ``exchange`` of a session that asks many: the source of each row is in ``source``."""
_SOURCE = re.compile(r"[a-z][a-z0-9_.:-]{0,63}").fullmatch
_SAMPLE = 48
"""How many candles are compared with a second source's."""


class _PastRules:
    """What a session asks of its exchange's dialect, where there is none."""

    trade_ids_contiguous = False
    klines_open_at_previous_close = False


class HistoryRun(Collection):
    """One session of history: from its first question to the tables that say what is held now."""

    def __init__(self, manifest: Manifest, order: StartRequest, parts: Parts, runs: HistoryRuns) -> None:
        super().__init__(manifest, order, parts)
        self._runs = runs
        self._backfill: Backfill | Import | None = None

    async def prepare(self) -> None:
        """Make or recover the session's files; nobody is asked anything yet."""
        self._session = self._make_session(_PastRules())
        await self._session.prepare()
        self._committed = {(file.stream.name, file.symbol): file.durable_seq for file in self._session.stream_files}
        self._feed = self._backfill = self._runs.make_backfill(self._session, self._parts)

    @property
    def backfill(self) -> Backfill | Import:
        if self._backfill is None:
            raise UsageError("The session is not prepared yet.")
        return self._backfill

    async def run(self) -> None:
        """Run when no other one does, so that nothing is asked for twice, then keep what is known of its symbols."""
        try:
            async with self._runs.turn:
                if self.session.state in FINAL:
                    await self._go_on()
                else:
                    await super().run()
                await self._runs.keep(self)
        finally:
            self.ended.set()

    async def _go_on(self) -> None:
        """Add to a session that is over already."""
        try:
            await self.session.mend(self.backfill.run)
        except Exception as error:
            # One session's trouble must not end the daemon.
            self._parts.log.exception("data_collection.session_error", reason=repr(error))


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
        data_dir: Path,
        files: Files,
        live: Allowances,
    ) -> None:
        self.scheduler: Scheduler | None = None
        self._data_dir = data_dir
        self._files = files
        self._live = live
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
                live=self._live,
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

    def make_backfill(self, session: Any, parts: Parts) -> Backfill | Import:
        """Return the feed of a session of history."""
        plan = session.manifest.backfill
        if plan.file:
            options = msgspec.convert(plan.file, Options)
            return Import(session, options, data_dir=parts.data_dir, clock=self._clock)
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

    def _source(self, name: str) -> CandleSource:
        source = create_source(name)
        if isinstance(source, CoingeckoCandles) and (coins := load_coins(self._data_dir, self._clock.now_us())):
            source.ids.update(coins.ids)
        return source

    # What a person asks for

    async def backfill(self, request: BackfillRequest, say: Say) -> Outcome:
        """Run a session of history to its end, or follow the one that was asked the same; return what became of it.

        Raises:
            UsageError, UnknownName: there is nothing like that to ask for.
        """
        symbols = await self._symbols(request)
        manifest = await asyncio.to_thread(self._reopened, self.describe(request, symbols))
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
        try:
            return await self._follow(run, say)
        finally:
            self._running.pop(key, None)

    async def import_candles(self, request: CandleFileRequest, say: Say) -> Outcome:
        """Bring in the candles of a file as a session of history; return what became of it.

        Raises:
            UsageError, UnknownName: the file cannot be read, or there is no such interval.
        """
        now_us = self._clock.now_us()
        length_us(request.interval)
        if not _SOURCE(request.source) or request.source in SOURCES:
            raise UsageError(f"{request.source!r} cannot be the source of a file.", hint="Use another plain word.")
        options = Options(
            path=request.path, mapping=request.mapping, symbol=request.symbol, source=request.source,
            asset_type=request.asset_type,
        )  # fmt: skip
        say("reading which symbols there are")
        symbols, rows = await asyncio.to_thread(symbols_of, options)
        if not symbols:
            raise UsageError(f"{request.path} names no symbol in {rows} rows.", hint="Give --symbol, or --map symbol=…")
        manifest = self._new_manifest("import", request.interval, symbols, now_us)
        manifest.backfill = Plan(
            task="import", interval=request.interval, from_us=0, to_us=now_us, sources=[request.source],
            file=msgspec.to_builtins(options),
        )  # fmt: skip
        return await self._follow(await self._begin(manifest), say)

    async def _follow(self, run: HistoryRun, say: Say) -> Outcome:
        before = run.backfill.tell

        def tell(progress: Any) -> None:
            before(progress)
            say(progress)

        run.backfill.tell = tell
        await run.ended.wait()
        outcome = run.backfill.outcome()
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
        manifest = self._new_manifest(request.task, interval, symbols, now_us)
        manifest.backfill = Plan(task=request.task, interval=interval, from_us=span[0], to_us=span[1], sources=sources)
        return manifest

    def _new_manifest(self, task: str, interval: str, symbols: Sequence[str], now_us: int) -> Manifest:
        manifest = create_manifest(
            session_id=new_session_id(now_us, EXCHANGE),
            exchange=EXCHANGE,
            symbols=symbols,
            data_types=[history_stream(interval).name],
            now_us=now_us,
            config=self._config,
            label=task,
        )
        manifest.kind = "history"
        return manifest

    async def _symbols(self, request: BackfillRequest) -> list[str]:
        for symbol in request.symbols:
            if is_rule(symbol):
                raise UsageError(f"{symbol!r} is no symbol.", hint="Write symbols as BASE_QUOTE, or give --max-coins.")
        symbols = list(dict.fromkeys(request.symbols))
        if not symbols and request.max_coins is None:
            symbols = list(self._config.history.symbols)
        if not symbols and request.max_coins is None and request.task != "backfill":
            symbols = sorted(await asyncio.to_thread(load_holdings, self._data_dir, request.interval))
        if not symbols:
            count = request.max_coins or self._config.history.default_coins
            symbols = (await self.coins(count)).symbols(count, self._config.history.quote)
        if not symbols:
            raise UsageError("No symbol was given.", hint="For example: --symbols BTC_USDT,ETH_USDT.")
        return symbols

    def _reopened(self, manifest: Manifest) -> Manifest:
        """Return the month's session of a scheduled task, made to go on, where there is one; else the new one.

        Otherwise a session would be made every hour.
        """
        wanted = manifest.backfill
        if wanted is None or wanted.task == "backfill":
            return manifest
        month = _month_of(manifest.created_us)
        for found in reversed(history_sessions(self._data_dir, wanted.interval)):
            plan = found.backfill
            if (
                plan is not None
                and found.state == "completed"
                and (plan.task, plan.sources, found.symbols) == (wanted.task, wanted.sources, manifest.symbols)
                and _month_of(found.created_us) == month
            ):
                plan.from_us, plan.to_us = min(plan.from_us, wanted.from_us), wanted.to_us
                plan.done, plan.failed = [], {}
                return found
        return manifest

    # Coins, quality, schedule

    async def coins(self, count: int, *, refresh: bool = False) -> CoinList:
        """Return the coins by market cap, from the disk where they are not older than a day.

        Raises:
            SourceRefused, ConnectionLost, MessageError: the source does not answer.
        """
        now_us = self._clock.now_us()
        known = await asyncio.to_thread(load_coins, self._data_dir, now_us)
        if known is not None and not refresh and len(known.coins) >= min(count, MARKETS_PAGE):
            return known
        found = await fetch_coins(self.client, max(count, MARKETS_PAGE), now_us)
        await asyncio.to_thread(save_coins, self._data_dir, found, self._files)
        return found

    async def master_list(self, request: CoinsRequest) -> dict[str, Any]:
        """Return the rows of ``symbols``, written to the database where they were asked for anew."""
        count = request.count or self._config.history.default_coins
        found = await self.coins(count, refresh=request.refresh)
        traded: dict[str, list[str]] = {}
        silent: dict[str, str] = {}
        if request.refresh:
            traded, silent = await self._traded()
        rows = symbol_rows(found, self._config.history.quote, {name: tuple(by) for name, by in traded.items()})
        if request.refresh and self._config.questdb.mode != "off":
            await asyncio.to_thread(self.tables.put_symbols, rows)
        return {"fetched_us": found.fetched_us, "not_asked": silent, "symbols": rows[:count]}

    async def _traded(self) -> tuple[dict[str, list[str]], dict[str, str]]:
        """Ask the exchanges among the sources what they trade; return that by symbol, and who did not answer."""
        traded: dict[str, list[str]] = {}
        silent: dict[str, str] = {}
        settings = self._config.feed
        for name in self._config.history.sources or DEFAULT_ORDER:
            if name not in EXCHANGES:
                continue
            dialect = create_exchange(name)
            endpoint = self._config.exchange.get(name)
            rest_url = endpoint.rest_url if endpoint else ""
            allowance = allowance_of(
                self._live, dialect, self._clock, rest_url=rest_url, snapshots_per_s=settings.snapshots_per_s
            )
            rest = open_rest(dialect, settings, self._clock, rest_url=rest_url, allowance=allowance)
            try:
                async with asyncio.timeout(settings.snapshot_timeout_s):
                    for listing in await fetch_listing(dialect, rest):
                        traded.setdefault(listing.symbol, []).append(name)
            except TimeoutError:
                silent[name] = "it did not answer in time"
            except CollectorError as error:
                silent[name] = error.message
            finally:
                await rest.close()
        return traded, silent

    async def quality(self, request: QualityRequest, say: Say = lambda _: None) -> list[SymbolQuality]:
        """Examine symbols, and keep what was found in ``data_quality``.

        Raises:
            UnknownName: nothing of a symbol is held.
        """
        interval = request.interval
        started_us = self._clock.now_us()
        holdings = await asyncio.to_thread(load_holdings, self._data_dir, interval)
        for symbol in request.symbols:
            if symbol not in holdings:
                raise UnknownName(f"symbol with {interval} candles", symbol, sorted(holdings))
        order = list(self._config.history.sources or DEFAULT_ORDER)
        found: list[SymbolQuality] = []
        for symbol in request.symbols or sorted(holdings):
            say(f"examining {symbol}")
            one = await asyncio.to_thread(examine_symbol, self._data_dir, interval, symbol, holdings[symbol], order)
            if one is None:
                continue
            if request.compare:
                one.opinion = await self._second_opinion(interval, symbol, holdings[symbol], order)
            found.append(one)
        now_us = self._clock.now_us()
        flawed = sum(one.score < 100 for one in found)
        log = LogRow(
            task_id=f"quality-{started_us}", task_name="quality", status="completed", started_us=started_us,
            finished_us=now_us, symbols=len(found), records=sum(one.report.present for one in found),
            detail=f"{flawed} of {len(found)} symbols below 100",
        )  # fmt: skip

        def write() -> None:
            self.tables.put_quality([one.row(now_us) for one in found])
            self.tables.put_logs([log])

        await self._try_to_write(write)
        return found

    async def _second_opinion(
        self, interval: str, symbol: str, holding: Holding, order: Sequence[str]
    ) -> SecondOpinion | None:
        """Compare the newest candles of the source that gave most with those of the next exchange that answers."""
        shares = {name: length(spans) for name, spans in holding.by_source.items() if spans}
        if not shares:
            return None
        main = max(shares, key=shares.__getitem__)
        end_us = holding.by_source[main][-1][1]
        begin_us = max(holding.by_source[main][-1][0], end_us - _SAMPLE * length_us(interval))
        points = await asyncio.to_thread(lambda: list(points_of(self._data_dir, interval, symbol, [main])))
        sample = [point for point in points if begin_us <= point.start_us < end_us]
        kinds = source_kinds()
        for name in order:
            if name == main or kinds[name] != "exchange":
                continue
            try:
                walked = walk(self._source(name), symbol, interval, begin_us, end_us, now_us=self._clock.now_us())
                candles = [candle async for page in self.client.pages(walked) for candle in page]
            except CollectorError:
                continue
            theirs = [
                Point(c.start_us, Decimal(c.open), Decimal(c.high), Decimal(c.low), Decimal(c.close)) for c in candles
            ]
            if theirs:
                return compare(sample, theirs, (main, name))
        return None

    async def log_session(self, manifest: Manifest) -> None:
        """Keep in the log of operations how a live session or a replay ended."""
        row = LogRow(
            task_id=manifest.session_id,
            task_name=manifest.kind,
            status=manifest.state,
            started_us=manifest.created_us,
            finished_us=manifest.ended_us,
            provider=manifest.exchange,
            symbols=len(manifest.symbols),
            records=manifest.written,
            error=manifest.reason if manifest.state == "failed" else "",
        )
        await self._try_to_write(lambda: self.tables.put_logs([row]))

    async def keep_schedule(self) -> None:
        """Run the tasks of history by schedule, until cancelled."""
        work: dict[str, Work] = {
            "hourly": lambda: self._scheduled("hourly", HOUR_US),
            "fill_gaps": lambda: self._scheduled("fill_gaps", 30 * DAY_US),
            "quality": self._scheduled_quality,
        }
        self.scheduler = Scheduler(self._data_dir, work, clock=self._clock, files=self._files, log=self._log)
        await self.scheduler.run()

    def schedule(self) -> dict[str, Any]:
        """Return the tasks with their last and next runs; they run only where ``history.enabled`` says so."""
        now_us = self._clock.now_us()
        schedule = self.scheduler.schedule if self.scheduler else Schedule(load_runs(self._data_dir), now_us)
        return {"enabled": self._config.history.enabled, "tasks": describe_schedule(schedule, now_us)}

    async def _scheduled(self, task: str, span_us: int) -> str:
        now_us = self._clock.now_us()
        begin_us = bucket_start(now_us, "1h") - span_us
        outcome = await self.backfill(BackfillRequest(task=task, from_us=begin_us), lambda _: None)
        used = ", ".join(f"{name} {rows}" for name, rows in outcome.sources_used.items())
        return f"{outcome.successful} of {outcome.total_symbols} symbols, held by source: {used or 'none'}"

    async def _scheduled_quality(self) -> str:
        found = await self.quality(QualityRequest())
        flawed = [one.symbol for one in found if one.score < 100]
        return f"{len(found)} symbols, {len(flawed)} below 100{': ' if flawed else ''}{', '.join(flawed[:10])}"

    # What is known afterwards

    async def keep(self, run: HistoryRun) -> None:
        """Write what is held of a run's symbols now, and the run itself, where there is a database."""
        if self._config.questdb.mode == "off":
            return
        try:
            await self._keep(run)
        except CollectorError as error:
            self._log.warning("history.tables_not_written", session=run.manifest.session_id, reason=str(error))

    async def _try_to_write(self, write: Callable[[], None]) -> None:
        """Write to the tables where there is a database; where it is away, the log says so."""
        if self._config.questdb.mode == "off":
            return
        try:
            await asyncio.to_thread(write)
        except CollectorError as error:
            self._log.warning("history.tables_not_written", reason=str(error))

    async def _keep(self, run: HistoryRun) -> None:
        manifest = run.manifest
        plan = manifest.backfill
        if plan is None:
            return
        holdings = await asyncio.to_thread(load_holdings, self._data_dir, plan.interval, set(manifest.symbols))
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


def _month_of(time_us: int) -> str:
    return f"{datetime.fromtimestamp(time_us / 1e6, UTC):%Y-%m}"


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
