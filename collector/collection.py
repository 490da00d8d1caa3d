"""One session with everything around it: exchange, feed, log, candles, delivery. Part of the composition root."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Container, Mapping, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Protocol

from structlog.typing import FilteringBoundLogger

from collector.candles.aggregator import Aggregator
from collector.candles.clock import ExchangeClock
from collector.clock import Clock, ClockStep
from collector.config import Config
from collector.describe import Rates, describe_session
from collector.errors import CollectorError, ConnectionLost, UsageError
from collector.events import Gap
from collector.exchanges.base import Exchange, Listing, Subscription
from collector.exchanges.candle_sources.base import CandleSource
from collector.exchanges.candle_sources.registry import SOURCES, create_source
from collector.exchanges.ccxt import LACKS, Ccxt, is_ccxt
from collector.exchanges.registry import create_exchange, known_exchange
from collector.exchanges.selection import choose_symbols, is_rule, parse_selector
from collector.feeds.allowance import Allowance, Allowances, allowance_of
from collector.feeds.ccxt_feed import CcxtClient, CcxtFeed
from collector.feeds.feed import Feed, fetch_listing, open_rest
from collector.feeds.recording import Recorder
from collector.feeds.rest import Rest, fetch_volumes
from collector.feeds.sink import ResumePoint
from collector.orders import check_offer, check_removal, choose_listings, subscriptions_of
from collector.reading.csv_rows import CsvHistory, look_up_trades, read_rows
from collector.requests import StartRequest
from collector.session.gaps import GapLedger
from collector.session.manifest import Manifest, load_manifest, public_url
from collector.session.repair import Tally
from collector.session.repairer import Repairer, Tell, plan_of
from collector.session.session import Session, SessionFeed, create_manifest
from collector.session.session import SessionStatus as Facts
from collector.status import SessionStatus
from collector.storage.csv_log import Commit, Released
from collector.storage.cursor import CursorUnreadable, load_cursor
from collector.storage.dormant import End
from collector.storage.files import Files
from collector.storage.replicator import Replicator
from collector.streams import GAPS, KLINES, ORDERBOOK, PRICES, Stream, stream_of

RAW_FILE = "raw.rec"

LogFiles = list[tuple[Stream, str | None, Path]]


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What a daemon's sessions share."""

    config: Config
    clock: Clock
    log: FilteringBoundLogger
    files: Files
    log_thread: Executor
    keeper_thread: Executor
    replicator: Replicator | None
    allowances: Allowances
    data_dir: Path
    on_status: Callable[[Facts], None]


class Rules(Protocol):
    """What a session asks of the dialect of its exchange."""

    @property
    def trade_ids_contiguous(self) -> bool: ...

    @property
    def klines_open_at_previous_close(self) -> bool: ...


class Collection:
    """Run one session as an order says, from asking the exchange for its instruments to the last delivered row."""

    def __init__(self, manifest: Manifest, order: StartRequest, parts: Parts) -> None:
        self.ended = asyncio.Event()
        self._manifest = manifest
        self._order = order
        self._parts = parts
        self._rates = Rates()
        self._rest: Rest | None = None
        self._feed: SessionFeed | None = None
        self._exchange: Exchange | None = None
        self._changing = asyncio.Lock()
        self._leaving: frozenset[str] = frozenset()
        self._recorder: Recorder | None = None
        self._session: Session | None = None
        self._repairer: Repairer | None = None
        self._committed: dict[tuple[str, str | None], int] = {}

    @staticmethod
    def describe(order: StartRequest, session_id: str, config: Config, now_us: int) -> Manifest:
        """Return the manifest of the session that an order asks for."""
        endpoint = config.exchange.get(order.exchange)
        dialect = known_exchange(order.exchange)
        manifest = create_manifest(
            session_id=session_id,
            exchange=order.exchange,
            symbols=order.symbols,
            data_types=order.data_types,
            now_us=now_us,
            config=config,
            label=order.label,
            raw_trades=order.raw_trades,
            book_levels=config.orderbook.levels if order.book_levels is None else order.book_levels,
            ids_ordered=dialect.trade_ids_ordered,
            duration_s=order.duration_s,
            endpoints={
                "ws": order.ws_url or (endpoint.ws_url if endpoint else "") or dialect.ws_url,
                "rest": order.rest_url or (endpoint.rest_url if endpoint else "") or dialect.rest_url,
            },
        )
        manifest.recording = order.recording
        manifest.kind = "replay" if order.recording else "live"
        manifest.unverified = list(LACKS) if is_ccxt(order.exchange) else []
        manifest.record_raw = config.session.record_raw if order.record_raw is None else order.record_raw
        return manifest

    @property
    def manifest(self) -> Manifest:
        return self._manifest

    @property
    def session(self) -> Session:
        if self._session is None:
            raise UsageError("The session is not prepared yet.")
        return self._session

    async def prepare(self) -> None:
        """Check the symbols with the exchange, then make the session's files and its feed.

        Raises:
            ConnectionLost, ExchangeRefused: the exchange could not be asked; nothing was written.
            UnknownName, UsageError: it does not list a symbol, or does not trade it; nothing was written.
            LogError: the session's files cannot be made.
        """
        manifest, parts = self._manifest, self._parts
        settings = parts.config.feed
        ws_url, rest_url = self._addresses()
        if is_ccxt(manifest.exchange):
            await self._prepare_ccxt(ws_url, rest_url)
            return
        dialect = create_exchange(manifest.exchange)
        allowance = allowance_of(
            parts.allowances, dialect, parts.clock, rest_url=rest_url, snapshots_per_s=settings.snapshots_per_s
        )
        self._rest = open_rest(dialect, settings, parts.clock, rest_url=rest_url, allowance=allowance)
        try:
            listed = await self._ask_listing(dialect)
            rest = self._rest
            await self._resolve_symbols(listed, lambda: fetch_volumes(create_exchange(manifest.exchange, listed), rest))
            listings = choose_listings(dialect, listed, manifest.symbols, going_on=self._order.go_on)
            exchange = create_exchange(manifest.exchange, listings)
            if not (self._order.whatever_offered or self._order.go_on):
                check_offer(exchange, listings, manifest.data_types)
            manifest.contracts |= {
                listing.symbol: f"{listing.contract_size} {listing.quote if listing.inverse else listing.base}"
                for listing in listings
                if listing.contract_size
            }
            if self._order.ws_url or self._order.rest_url:
                manifest.endpoints = {"ws": public_url(ws_url), "rest": public_url(rest_url)}
            self._session = self._make_session(exchange)
            await self._session.prepare()
            files = self._session.stream_files
            self._committed = {(file.stream.name, file.symbol): file.durable_seq for file in files}
            if manifest.record_raw:
                self._recorder = Recorder(self._session.directory / RAW_FILE)
                await self._rest.close()
                self._rest = open_rest(
                    exchange, settings, parts.clock, rest_url=rest_url, recorder=self._recorder, allowance=allowance
                )
        except BaseException:
            await self._rest.close()
            raise
        self._exchange = exchange
        self._give_up_vanished(exchange.name, exchange.native_of)
        self._feed = feed = Feed(
            exchange,
            self._subscriptions(exchange, listings),
            self._session.buffer,
            config=settings,
            clock=parts.clock,
            log=parts.log.bind(session=manifest.session_id),
            ws_url=ws_url,
            rest_url=rest_url,
            raw_trades=manifest.raw_trades,
            book_levels=manifest.book_levels,
            resume=self._session.resume_points(),
            recorder=self._recorder,
            rest=self._rest,
            allowance=allowance,
            records_klines=KLINES.name in manifest.data_types,
            check_silence=not manifest.recording,
        )

        self._repairer = self._make_repairer(exchange, listings, allowance, feed)

    async def _prepare_ccxt(self, ws_url: str, rest_url: str) -> None:
        """Prepare a session of an exchange that ccxt speaks to: the same steps, with ccxt in place of a dialect."""
        manifest, parts = self._manifest, self._parts
        settings = parts.config.feed
        facts = Ccxt(manifest.exchange)
        if manifest.record_raw:
            raise UsageError("ccxt shows no raw messages, so they cannot be recorded.", hint="Leave --record-raw out.")
        endpoint = parts.config.exchange.get(manifest.exchange)
        client = await CcxtClient.open(
            facts, settings, ws_url=ws_url, rest_url=rest_url, options=endpoint.options if endpoint else None
        )
        try:
            listed = await self._within_reach(client.listing(), facts.name)
            await self._resolve_symbols(listed, client.volumes)
            listings = choose_listings(facts, listed, manifest.symbols, going_on=self._order.go_on)
            if self._order.ws_url or self._order.rest_url:
                manifest.endpoints = {"ws": public_url(ws_url), "rest": public_url(rest_url)}
            self._session = self._make_session(facts)
            await self._session.prepare()
            self._committed = {(file.stream.name, file.symbol): file.durable_seq for file in self._session.stream_files}
        except BaseException:
            await client.close()
            raise
        symbols = [listing.symbol for listing in listings]
        self._give_up_vanished(facts.name, symbols)
        self._feed = CcxtFeed(
            client,
            listings,
            subscriptions_of(listings, manifest.data_types, facts),
            self._session.buffer,
            config=settings,
            clock=parts.clock,
            log=parts.log.bind(session=manifest.session_id),
            book_levels=manifest.book_levels,
            resume=self._session.resume_points(),
        )

    def _make_repairer(
        self, exchange: Exchange, listings: Sequence[Listing], allowance: Allowance, feed: Feed | None = None
    ) -> Repairer:
        if self._rest is None:
            raise UsageError("The exchange can't be asked before its addresses are known.")
        directory = self.session.directory
        return Repairer(
            self.session,
            exchange,
            self._rest,
            allowance=allowance,
            feed=feed,
            look_up=lambda symbol, ids, span: look_up_trades(directory, symbol, ids, span),
            settings=self._parts.config.repair,
            clock=self._parts.clock,
            log=self._parts.log.bind(session=self._manifest.session_id),
            raw_trades=self._manifest.raw_trades,
            candles=candle_source_of(exchange, listings),
            resting=lambda symbol: (
                feed is not None and (symbol in self._leaving or symbol in self._manifest.removed_symbols)
            ),
        )

    def _give_up_vanished(self, exchange: str, traded: Container[str]) -> None:
        """Say in the ledger what a session that goes on can't collect any more; its other symbols are."""
        points = self.session.resume_points()
        for symbol in self._manifest.symbols:
            if symbol in traded:
                continue
            point = points.get(symbol, ResumePoint())
            for stream in self._manifest.data_types:
                since_us = {PRICES.name: point.last_trade_us, ORDERBOOK.name: point.last_book_us}.get(
                    stream, point.last_other_us.get(stream)
                )
                detail = f"{exchange} does not trade {symbol} any more."
                gap = Gap(symbol, stream, "rejected", since_us or point.last_event_us, None, detail=detail)
                self.session.buffer.add_gap(gap)
            self._parts.log.warning("data_collection.symbol_vanished", symbol=symbol, exchange=exchange)

    async def _resolve_symbols(
        self, listed: Sequence[Listing], ask_volumes: Callable[[], Awaitable[dict[str, Decimal]]]
    ) -> None:
        """Put the symbols in place of the rules that stand for them; the manifest keeps what was found."""
        manifest = self._manifest
        if not any(map(is_rule, manifest.symbols)):
            return
        volumes: dict[str, Decimal] = {}
        if any(selector and selector.count is not None for selector in map(parse_selector, manifest.symbols)):
            volumes = await ask_volumes()
        manifest.symbols = choose_symbols(
            manifest.symbols,
            listed,
            volumes,
            limit=self._parts.config.session.max_symbols,
            exchange=manifest.exchange,
        )

    def _subscriptions(self, exchange: Exchange, listings: Sequence[Listing]) -> list[Subscription]:
        """Return what the feed shall deliver; a replay has no answers to what is asked for at an interval."""
        wanted = subscriptions_of(listings, self._manifest.data_types, exchange)
        if not self._manifest.recording:
            return wanted
        return [one for one in wanted if one.stream not in exchange.polled_streams]

    async def _ask_listing(self, dialect: Exchange) -> list[Listing]:
        if self._rest is None:
            return []
        return await self._within_reach(fetch_listing(dialect, self._rest), dialect.name)

    async def _within_reach(self, asking: Awaitable[list[Listing]], exchange: str) -> list[Listing]:
        try:
            async with asyncio.timeout(self._order.reach_timeout_s):
                return await asking
        except TimeoutError as error:
            raise ConnectionLost(
                f"{exchange} did not answer within {self._order.reach_timeout_s:g} s.",
                hint="Check the network, or try --exchange sim.",
            ) from error

    def _addresses(self) -> tuple[str, str]:
        """Return the websocket and REST address: the order's, the configuration's, or the exchange's own."""
        endpoint = self._parts.config.exchange.get(self._manifest.exchange)
        known = self._manifest.endpoints
        ws_url = self._order.ws_url or (endpoint.ws_url if endpoint else "") or known.get("ws", "")
        rest_url = self._order.rest_url or (endpoint.rest_url if endpoint else "") or known.get("rest", "")
        return ws_url, rest_url

    def _make_session(self, exchange: Rules) -> Session:
        parts, manifest = self._parts, self._manifest
        grace_us = round(parts.config.candles.grace_s * 1_000_000)

        def released_of(symbol: str) -> Released | None:
            record = manifest.record(PRICES.name, symbol)
            return record.released if record is not None else None

        def make_candles(symbol: str, directory: Path, resumed: bool) -> Aggregator:
            history = CsvHistory(directory, symbol, released=lambda: released_of(symbol))
            aggregator = Aggregator(symbol, grace_us=grace_us, history=history, ids_ordered=manifest.ids_ordered)
            if resumed:
                aggregator.rebuild(history)
            return aggregator

        known = self._acknowledged_seqs()
        return Session(
            manifest,
            data_dir=parts.data_dir,
            config=parts.config,
            clock=parts.clock,
            files=parts.files,
            executor=parts.log_thread,
            log=parts.log,
            exchange_time=ExchangeClock(),
            candles=make_candles,
            numbered_trades=exchange.trade_ids_contiguous,
            klines_open_at_previous_close=exchange.klines_open_at_previous_close,
            keeper_thread=parts.keeper_thread,
            held=parts.replicator.held if parts.replicator is not None else None,
            known_seq=lambda stream, symbol: known.get((stream.name, symbol), 0),
            on_commit=self._take_commits,
            on_status=parts.on_status,
        )

    def _acknowledged_seqs(self) -> Mapping[tuple[str, str | None], int]:
        """Return, per stream and symbol, the highest number that QuestDB is known to have."""
        directory = self._parts.data_dir / f"session_{self._manifest.session_id}"
        try:
            cursor = load_cursor(directory, self._manifest.session_id)
        except CursorUnreadable:
            return {}
        return {(file.stream, file.symbol): file.acknowledged.seq for file in cursor.files} if cursor else {}

    async def run(self) -> None:
        """Collect until the session ends; whatever happens is the session's state."""
        try:
            if self._feed is not None:
                async with asyncio.TaskGroup() as tasks:
                    repairing = tasks.create_task(self._repair_meanwhile())
                    await self.session.run(self._feed)
                    repairing.cancel()
        except Exception as error:
            # One session's bug must not end the daemon.
            self._parts.log.exception("data_collection.session_error", reason=repr(error))
        finally:
            if self._rest is not None:
                await self._rest.close()
            if self._recorder is not None:
                await asyncio.to_thread(self._recorder.close)
            self.ended.set()

    async def _repair_meanwhile(self) -> None:
        """Repair what the ledger says is missing, until cancelled: what is not begun by then is begun again later."""
        if self._repairer is not None and not self._manifest.recording:
            await self._repairer.run()

    def _require_repairable(self) -> None:
        if self._manifest.kind == "history":
            raise UsageError("Past candles are not repaired.", hint="`collector fill-gaps` asks for what is missing.")
        if self._manifest.recording:
            raise UsageError("What a recording lacks can't be asked for.", hint="Only live sessions are repaired.")
        if is_ccxt(self._manifest.exchange):
            raise UsageError("What was missed through ccxt can't be asked for again.", hint="See the ledger.")

    async def repair(self, symbols: Sequence[str], tell: Tell) -> list[Tally]:
        """Repair what is missing now, while the session runs.

        Raises:
            CollectorError: the exchange does not answer.
        """
        self._require_repairable()
        if self._repairer is None:
            raise UsageError("The session is not prepared yet.")
        if resting := sorted(set(symbols) & set(self._manifest.removed_symbols)):
            raise UsageError(
                f"{', '.join(resting)}: not collected any more.", hint="It can be repaired once the session has ended."
            )
        return await self._repairer.repair(symbols, tell=tell)

    async def mend(self, symbols: Sequence[str], tell: Tell) -> list[Tally]:
        """Repair what is missing in a session that has ended: its files are opened again, and closed.

        Raises:
            CollectorError: the exchange does not answer, or the files can't be written.
        """
        self._require_repairable()
        manifest, parts = self._manifest, self._parts
        settings = parts.config.feed
        _, rest_url = self._addresses()
        dialect = create_exchange(manifest.exchange)
        allowance = allowance_of(
            parts.allowances, dialect, parts.clock, rest_url=rest_url, snapshots_per_s=settings.snapshots_per_s
        )
        self._rest = open_rest(dialect, settings, parts.clock, rest_url=rest_url, allowance=allowance)
        tallies: list[Tally] = []
        try:
            listed = await self._ask_listing(dialect)
            recorded = {*manifest.symbols, *manifest.removed_symbols}
            listings = [listing for listing in listed if listing.symbol in recorded]
            exchange = create_exchange(manifest.exchange, listings)
            self._session = self._make_session(exchange)
            await self._session.prepare()
            repairer = self._make_repairer(exchange, listings, allowance)

            async def work() -> None:
                tallies.extend(await repairer.repair(symbols, tell=tell))

            directory = self._session.directory
            if parts.replicator is not None:
                parts.replicator.add_session(manifest.session_id, manifest.exchange, directory, self.log_files())
            await self._session.mend(work)
            if parts.replicator is not None:
                parts.replicator.over(manifest.session_id, lambda: files_of(directory, load_manifest(directory)))
        finally:
            await self._rest.close()
        return tallies

    async def change_symbols(self, add: Sequence[str], remove: Sequence[str]) -> None:
        """Collect more symbols from now on, and some no more; the others are not disturbed.

        Raises:
            UsageError, UnknownName: a symbol can't be added or removed; nothing was changed.
            ConnectionLost, ExchangeRefused: the exchange could not be asked for its list; nothing was changed.
            LogError: the files of the new symbols can't be made; the session goes on without them.
        """
        feed, manifest = self._feed, self._manifest
        if not isinstance(feed, Feed) or self._rest is None or self._exchange is None or manifest.recording:
            raise UsageError("The symbols of this session can't be changed.", hint="Start another session beside it.")
        if self._changing.locked():
            raise UsageError("The symbols of this session are being changed already.", hint="Try again in a moment.")
        async with self._changing:
            check_removal(manifest.symbols, add, remove)
            exchange = self._exchange
            listings = await self._listings_to_add(exchange, self._rest, add, remove)
            new = [listing.symbol for listing in listings]
            if new:
                exchange.admit(listings)
                if self._repairer is not None:
                    self._repairer.admit(candle_source_of(exchange, list(exchange.listing_of.values())))
                points = await self.session.add_symbols(new)
                feed.add(subscriptions_of(listings, manifest.data_types, exchange), points)
            if remove:
                self._leaving = frozenset(remove)
                try:
                    feed.remove(remove)
                    await self.session.remove_symbols(remove)
                finally:
                    self._leaving = frozenset()

    async def _listings_to_add(
        self, exchange: Exchange, rest: Rest, add: Sequence[str], remove: Sequence[str]
    ) -> list[Listing]:
        """Return the listings of what shall be added and is not collected yet; rules stand for what they find now."""
        if not add:
            return []
        manifest = self._manifest
        listed = await self._ask_listing(exchange)
        limit = self._parts.config.session.max_symbols
        wanted: Sequence[str] = add
        if any(map(is_rule, add)):
            volumes: dict[str, Decimal] = {}
            if any(selector and selector.count is not None for selector in map(parse_selector, add)):
                volumes = await fetch_volumes(create_exchange(manifest.exchange, listed), rest)
            wanted = choose_symbols(add, listed, volumes, limit=limit, exchange=manifest.exchange)
        new = [symbol for symbol in dict.fromkeys(wanted) if symbol not in manifest.symbols]
        total = len(manifest.symbols) - len(remove) + len(new)
        if total > limit:
            raise UsageError(f"{total} symbols are more than session.max_symbols ({limit}).")
        listings = choose_listings(exchange, listed, new)
        check_offer(exchange, listings, manifest.data_types)
        return listings

    async def reconnect(self, ws_url: str) -> None:
        """Replace the session's connections by new ones without a gap; raise CollectorError where that failed."""
        if not isinstance(self._feed, Feed) or self._manifest.recording:
            raise UsageError("The connections of this session can't be replaced.")
        replaced = await self._feed.replace_connections(ws_url)
        if ws_url:
            self._manifest.endpoints = {**self._manifest.endpoints, "ws": public_url(ws_url)}
            await self.session.save()
        if not replaced:
            raise CollectorError(
                "Not every connection could be replaced: those stay as they are.",
                hint="The log says why; they are replaced when they end, at the latest.",
            )

    def note_clock_step(self, step: ClockStep) -> None:
        """Take notice that the wall clock was set."""
        if self._session is not None and not self.ended.is_set():
            self._session.note_clock_step(step)
        if isinstance(self._feed, Feed):
            self._feed.clock_was_set()

    def sample_rates(self) -> None:
        """Take a sample of the rows, for the rates."""
        self._rates.sample(self._parts.clock.monotonic_s(), self._file_rows())

    def log_files(self) -> LogFiles:
        """Return the session's files, as the replicator wants to know them."""
        return [(file.stream, file.symbol, file.path) for file in self.session.stream_files]

    def positions(self) -> dict[tuple[str, str | None], int]:
        """Return, per stream and symbol, the number of the last durable row, all as of one flush."""
        return dict(self._committed)

    def _take_commits(self, commits: Sequence[Commit]) -> None:
        for commit in commits:
            self._committed[commit.file.stream.name, commit.file.symbol] = commit.last_seq
        if self._parts.replicator is not None:
            self._parts.replicator.committed(self._manifest.session_id, commits)

    def status(self) -> SessionStatus:
        """Describe the session as it is now."""
        replicator = self._parts.replicator
        session_id = self._manifest.session_id
        return describe_session(
            self.session.status(),
            directory=self.session.directory,
            feed=self._feed.status() if self._feed is not None else None,
            delivery=replicator.delivery(session_id) if replicator is not None else None,
            file_rows=self._file_rows(),
            gaps=self.session.ledger.entries(),
            rates=self._rates,
            now_us=self._parts.clock.now_us(),
            repaired_rows=self._repairer.repaired_rows if self._repairer is not None else 0,
            repair_requests=self._repairer.requests if self._repairer is not None else 0,
        )

    def _file_rows(self) -> dict[tuple[str, str], int]:
        return {(file.stream.name, file.symbol or ""): file.rows for file in self.session.stream_files}


def plan_repair(directory: Path, symbols: Sequence[str]) -> list[Tally]:
    """Return what a repair of a session would ask for; raise LogError where its ledger cannot be read."""
    ledger = GapLedger()
    ledger.load(read_rows(directory, GAPS))
    return plan_of(ledger, symbols)


def candle_source_of(exchange: Exchange, listings: Sequence[Listing]) -> CandleSource | None:
    """Return the source of an exchange's own minutes; None where it publishes none."""
    name = exchange.candle_source or exchange.name
    return create_source(name, listings) if name in SOURCES else None


def files_of(directory: Path, manifest: Manifest) -> LogFiles:
    """Return the files of a session that does not run, as its manifest lists them."""
    return [
        (stream, record.symbol, directory / record.path)
        for record in manifest.files
        if (stream := stream_of(record.stream, manifest.book_levels)) is not None
    ]


def ends_of(directory: Path, manifest: Manifest) -> list[End]:
    """Return where the files of a session that is over end, by its manifest."""
    return [
        End(stream, record.symbol, directory / record.path, record.next_seq - 1)
        for record in manifest.files
        if (stream := stream_of(record.stream, manifest.book_levels)) is not None
    ]


def facts_of(manifest: Manifest) -> Facts:
    """Return the status of a session that does not run, as its manifest tells it."""
    rows: dict[str, int] = {}
    for record in manifest.files:
        rows[record.stream] = rows.get(record.stream, 0) + record.rows
    facts: dict[str, Any] = {
        name: getattr(manifest, name)
        for name in (
            "session_id", "exchange", "label", "state", "reason", "created_us", "started_us", "ended_us", "duration_s",
            "received", "written", "dropped",
        )
    }  # fmt: skip
    return Facts(
        **facts,
        symbols=tuple(manifest.symbols),
        data_types=tuple(manifest.data_types),
        heartbeat_us=manifest.heartbeat_us or manifest.created_us,
        pending=0,
        prices_count=rows.get("prices", 0),
        orderbook_count=rows.get("orderbook", 0),
        candles_count=rows.get("ohlcv", 0),
        other_counts={name: rows.get(name, 0) for name in manifest.data_types if name not in ("prices", "orderbook")},
        gaps_count=manifest.gaps,
        open_gaps=manifest.open_gaps,
        errors_count=manifest.errors,
        flushes=0,
        last_flush_s=0.0,
        longest_flush_s=0.0,
        candle_scores=manifest.candle_scores,
    )
