"""A feed: one exchange's subscriptions as events in a sink, kept up whatever happens.

All that decides is in ``backoff``, ``tracks``, ``orderbook`` and ``continuity``; connecting is ``link``'s. Here
messages find their tracks, and books get their snapshots.
"""

from __future__ import annotations

import asyncio
import itertools
import random as random_module
from collections.abc import Callable, Collection, Mapping, Sequence
from functools import partial

from structlog.typing import FilteringBoundLogger

from collector import config as configuration
from collector.clock import Clock
from collector.errors import CollectorError, MessageError
from collector.events import (
    Acknowledged,
    BookDelta,
    BookSnapshot,
    Event,
    Funding,
    Kline,
    Liquidation,
    MarketEvent,
    OffBookPrint,
    OpenInterest,
    PastTrade,
    Rejected,
    ServerNotice,
    Ticker,
    Trade,
)
from collector.exchanges.base import ConnectionPlan, Exchange, Subscription
from collector.feeds.allowance import Allowance
from collector.feeds.backoff import Backoff, judge, stay_away_s
from collector.feeds.connection import Receiver
from collector.feeds.latency import LatencyWindow
from collector.feeds.link import END_OF_RECORDING, Gate, Line, Link
from collector.feeds.poller import Poller
from collector.feeds.rest import Rest, fetch_listing
from collector.feeds.silence import Finding
from collector.feeds.sink import Recorder, ResumePoint, Sink
from collector.feeds.status import FeedStatus
from collector.feeds.tracks import BookTrack, KlineTrack, MarketTrack, Track, TradeTrack, create_track
from collector.streams import BOOK_LEVELS

__all__ = ["END_OF_RECORDING", "Feed", "ResumePoint", "fetch_listing"]

_SAMPLE_BYTES = 200
_STREAM_OF: dict[type, str] = {
    Funding: "funding", OpenInterest: "open_interest", Liquidation: "liquidations", Ticker: "tickers",
}  # fmt: skip
_COMPLAINT_INTERVAL_S = 10.0
_ON_ITS_WAY_S = 2.0
"""How late an event may be on a stream, and still not be missing."""
_SAME_MOMENT_US = 5_000_000
"""By how much a trade must be newer than a candle to be missing in it: candles come every few seconds."""
_NO_SUCH_SYMBOL = (400, 404)
_LISTING_INTERVAL_S = 600.0


class Feed:
    """Collect an exchange's subscriptions into a sink until told to stop.

    Args:
        exchange: the dialect, made for the session's instruments.
        subscriptions: what to collect.
        sink: is called for each event, in the order of the messages.
        config: timeouts, limits and delays.
        ws_url, rest_url: addresses; empty for the exchange's own.
        raw_trades: subscribe to single trades instead of aggregated ones.
        book_levels: how many levels of each side a row of the order book has.
        resume: per symbol, where its recording ended.
        recorder: keeps raw messages; None costs nothing.
        rest: the client to ask the exchange with; None makes one of the feed's own.
        allowance: shares the exchange's limits with other feeds of the same exchange; None: nobody else asks it.
        records_klines: the exchange's candles are rows of the session, too.
        check_silence: ask the exchange whether a silent stream misses something; a recording can't be asked.
        random: returns floats in [0, 1), for the jitter of delays.
    """

    def __init__(
        self,
        exchange: Exchange,
        subscriptions: Sequence[Subscription],
        sink: Sink,
        *,
        config: configuration.Feed,
        clock: Clock,
        log: FilteringBoundLogger,
        ws_url: str = "",
        rest_url: str = "",
        raw_trades: bool = False,
        book_levels: int = BOOK_LEVELS,
        resume: Mapping[str, ResumePoint] | None = None,
        recorder: Recorder | None = None,
        rest: Rest | None = None,
        allowance: Allowance | None = None,
        records_klines: bool = False,
        check_silence: bool = True,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        self.first_data = asyncio.Event()
        self.finished = asyncio.Event()
        self._exchange = exchange
        self._settings = config
        self._clock = clock
        self._sink = sink
        self._log: FilteringBoundLogger = log.bind(exchange=exchange.name)
        self._raw_trades = raw_trades
        self._check_silence = check_silence
        self._book_levels = book_levels
        self._recorder = recorder
        self._random = random
        self._owns_rest = rest is None
        allowance = allowance or Allowance(exchange.limits, clock, snapshots_per_s=config.snapshots_per_s)
        self._rest = rest or open_rest(
            exchange, config, clock, rest_url=rest_url, recorder=recorder, allowance=allowance
        )
        self._gate = Gate(allowance)
        self._snapshot_pace = allowance.snapshots
        self._trades: dict[str, TradeTrack] = {}
        self._books: dict[str, BookTrack] = {}
        self._klines: dict[str, KlineTrack] = {}
        self._market: dict[tuple[str, str], MarketTrack] = {}
        self._records_klines = records_klines
        self._tracks: dict[Subscription, Track] = {}
        for subscription in subscriptions:
            self._add_track(subscription, (resume or {}).get(subscription.symbol, ResumePoint()))
        polled = [one for one in subscriptions if one.stream in exchange.polled_streams]
        plans = exchange.plan([one for one in subscriptions if one not in set(polled)], raw_trades=raw_trades)
        self._address = (ws_url or exchange.ws_url).rstrip("/")
        self._address_given = self._address != exchange.ws_url.rstrip("/")
        self._numbers = itertools.count(len(plans) + 1)
        self._links = [self._create_link(number, plan) for number, plan in enumerate(plans, 1)]
        self._keeping: set[asyncio.Task[None]] = set()
        self._poller = self._create_poller()
        self._tasks: asyncio.TaskGroup | None = None
        self._running = False
        self._ended = asyncio.Event()
        self._fetches: set[asyncio.Task[None]] = set()
        self._owners: dict[str, list[Track]] | None = None
        self._latency = LatencyWindow()
        self._traded: frozenset[str] = frozenset()
        self._listed_s = float("-inf")
        self._newest_us: int | None = None
        self._newest_s = 0.0
        self._complained_s = float("-inf")
        self._complained_malformed = 0

    async def run(self) -> None:
        """Keep the connections up until ``stop()``, or until the end of a replay; then all is in the sink."""
        self._running = True
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                for link in self._links:
                    self._keep(link)
                polling = tasks.create_task(self._poller.run())
                while keeping := [task for task in self._keeping if not task.done()]:
                    await asyncio.wait(keeping)
                if not self._keeping:
                    await polling
                self._poller.stop()
                if not self._gate.stopping.is_set():
                    await self._settle_books()
                    self.finished.set()
                for fetch in self._fetches:
                    fetch.cancel()
        finally:
            self._tasks = None
            until_us = self._exchange_now_us()
            for track in self._tracks.values():
                track.finish(until_us)
            if self._owns_rest:
                await self._rest.close()
            self._ended.set()

    async def stop(self) -> None:
        """Close the connections; return when ``run()`` has passed on everything that was received."""
        self._gate.stopping.set()
        for link in self._links:
            link.stop()
        if self._running:
            await self._ended.wait()

    async def replace_connections(self, ws_url: str = "") -> bool:
        """Replace every connection by a new one without a gap; return whether all were.

        Args:
            ws_url: the address to connect to from now on; empty keeps the present one.
        """
        if ws_url:
            self._address, self._address_given = ws_url.rstrip("/"), True
            for link in self._links:
                link.move(self._address + link.plan.path)
        results = await asyncio.gather(*(link.replaced() for link in self._links))
        return all(results)

    def add(self, subscriptions: Sequence[Subscription], resume: Mapping[str, ResumePoint]) -> None:
        """Collect more from now on, over the connections that there are as far as their limits allow.

        Args:
            resume: per symbol, where its recording ended, if there is one already.
        """
        new = [one for one in subscriptions if one not in self._tracks]
        for subscription in new:
            self._add_track(subscription, resume.get(subscription.symbol, ResumePoint()))
        polled = set(self._exchange.polled_streams)
        for plan in self._exchange.plan([one for one in new if one.stream not in polled], raw_trades=self._raw_trades):
            self._carry(plan)
        if any(one.stream in polled for one in new):
            self._poll_anew()
        self._owners = None

    def remove(self, symbols: Collection[str]) -> None:
        """Collect nothing more of some symbols; the others are not disturbed."""
        gone = [track for subscription, track in self._tracks.items() if subscription.symbol in symbols]
        for link in tuple(self._links):
            leaving = {track for track in gone if track in link.tracks}
            if leaving:
                left = [track.subscription for track in link.tracks if track not in leaving]
                plans = self._exchange.plan(left, raw_trades=self._raw_trades)
                link.drop(leaving, plans[0] if plans else None)
                if link.retired:
                    self._links.remove(link)
        until_us = self._exchange_now_us()
        for track in gone:
            del self._tracks[track.subscription]
            if isinstance(track, BookTrack):
                track.asked = False
            track.finish(until_us)
        for kind in (self._trades, self._books, self._klines):
            for symbol in symbols:
                kind.pop(symbol, None)
        for key in [key for key in self._market if key[1] in symbols]:
            del self._market[key]
        if any(track in self._poller.tracks for track in gone):
            self._poll_anew()
        self._owners = None

    def _carry(self, plan: ConnectionPlan) -> None:
        """Have subscriptions carried by a connection that has room for them, or else by a new one."""
        tracks = [self._tracks[subscription] for subscription in plan.subscriptions]
        for link in self._links:
            known = [track.subscription for track in link.tracks]
            together = self._exchange.plan([*known, *plan.subscriptions], raw_trades=self._raw_trades)
            if len(together) == 1 and together[0].path == link.plan.path:
                link.add(tracks, together[0])
                return
        link = self._create_link(next(self._numbers), plan)
        self._links.append(link)
        self._keep(link)

    def _keep(self, link: Link) -> None:
        if self._tasks is not None:
            self._keeping.add(self._tasks.create_task(link.keep(partial(self._receiver, link))))

    def _create_poller(self) -> Poller:
        polled = self._exchange.polled_streams
        return Poller(
            self._exchange,
            [one for one in self._tracks.values() if one.stream in polled and isinstance(one, MarketTrack)],
            rest=self._rest,
            settings=self._settings,
            clock=self._clock,
            log=self._log,
            gate=self._gate,
            take=self._take_market,
            observed=self._observed,
        )

    def _poll_anew(self) -> None:
        self._poller.stop()
        self._poller = self._create_poller()
        if self._tasks is not None:
            self._tasks.create_task(self._poller.run())

    def clock_was_set(self) -> None:
        """Forget what the latencies were: our clock was set."""
        self._latency.clear()

    def status(self) -> FeedStatus:
        """Describe the feed as it is now."""
        return FeedStatus(
            exchange=self._exchange.name,
            connections=[link.status() for link in self._links],
            streams=[track.status(link.number) for link in self._links for track in link.tracks]
            + [track.status(0) for track in self._poller.tracks],
            rest_requests=self._rest.requests,
            rest_refused=self._rest.refused,
            banned_s=max(self._rest.banned_s, self._gate.banned_s),
            latency=self._latency.status(),
            rest_oversized=self._rest.oversized,
        )

    def holes_in(self, symbol: str, first: int, last: int) -> list[tuple[int, int]]:
        """Return which ids of an inclusive interval a symbol's trades are still waited for with."""
        track = self._trades.get(symbol)
        return track.continuity.holes_in(first, last) if track is not None else []

    def take_fetched(self, trade: Trade) -> bool:
        """Count a trade that was asked for as seen, so that it is not recorded twice; False where it came meanwhile."""
        track = self._trades.get(trade.symbol)
        return track is None or track.continuity.take_fetched(trade)

    def _add_track(self, subscription: Subscription, resume: ResumePoint) -> None:
        track = create_track(
            subscription,
            self._sink,
            self._exchange,
            resume,
            reorder_grace_s=self._settings.reorder_grace_s,
            book_levels=self._book_levels,
            now_us=self._exchange_now_us,
            heard_us=self._heard_us,
            records_klines=self._records_klines,
        )
        self._tracks[subscription] = track
        if isinstance(track, TradeTrack):
            self._trades[track.symbol] = track
        elif isinstance(track, BookTrack):
            self._books[track.symbol] = track
        elif isinstance(track, MarketTrack):
            self._market[track.stream, track.symbol] = track
        else:
            self._klines[track.symbol] = track

    def _create_link(self, number: int, plan: ConnectionPlan) -> Link:
        return Link(
            number,
            self._address + plan.path,
            plan,
            [self._tracks[subscription] for subscription in plan.subscriptions],
            exchange=self._exchange,
            settings=self._settings,
            clock=self._clock,
            log=self._log,
            gate=self._gate,
            exchange_now_us=self._exchange_now_us,
            observed=self._observed,
            raw_trades=self._raw_trades,
            recorder=self._recorder,
            random=self._random,
            snapshot_pace=self._snapshot_pace,
            next_number=self._numbers.__next__,
            probe=self._probe if self._check_silence else None,
            find_address=None
            if self._address_given or self._exchange.connection_request() is None
            else self._find_address,
        )

    async def _find_address(self) -> str:
        request = self._exchange.connection_request()
        if request is None:
            return self._exchange.ws_url
        return self._exchange.address_from(await self._rest.get(request))

    def _receiver(self, link: Link, line: Line) -> Receiver:
        """Return the functions that a connection calls. ``take`` runs for every message: lookups are done before."""
        now_us = self._clock.now_us
        parse: Callable[[bytes, int], Sequence[Event]] = self._exchange.parse
        if self._exchange.first_trades_past:
            parse = partial(self._parse_marking_past, line.begun)
        trades = self._trades
        add_trade = self._sink.add_trade
        take_other = self._take_other

        def take(payload: bytes) -> None:
            received_us = now_us()
            line.messages += 1
            line.bytes += len(payload)
            try:
                events = parse(payload, received_us)
            except MessageError as error:
                self._malformed(link, payload, error)
                return
            if line.overlap is not None:
                events = line.overlap.merge(events, newer=line.newer)
            for event in events:
                if type(event) is Trade:
                    track = trades.get(event.symbol)
                    if track is not None:
                        track.received += 1
                        track.last = event
                        if track.accept(event):
                            add_trade(event)
                        else:
                            track.duplicates += 1
                else:
                    take_other(link, event)

        if self._recorder is None:
            return Receiver(text=take, binary=take, ended=link.wake, crowded=self._sink.is_crowded)
        record = self._recorder.frame

        def take_recorded(kind: str) -> Callable[[bytes], None]:
            def take_and_record(payload: bytes) -> None:
                record(now_us() * 1000, line.number, kind, payload)
                take(payload)

            return take_and_record

        take_text, take_binary = take_recorded("<"), take_recorded("b")
        return Receiver(text=take_text, binary=take_binary, ended=link.wake, crowded=self._sink.is_crowded)

    def _parse_marking_past(self, begun: set[str], payload: bytes, received_us: int) -> Sequence[Event]:
        """Read a message; mark trades as past in the first message of a symbol's trades on a connection."""
        events = self._exchange.parse(payload, received_us)
        if events and type(events[0]) is Trade:
            first = {event.symbol for event in events if type(event) is Trade and event.symbol not in begun}
            if first:
                begun |= first
                return [
                    PastTrade(event) if type(event) is Trade and event.symbol in first else event for event in events
                ]
        return events

    def _take_other(self, link: Link, event: Event) -> None:
        if isinstance(event, BookDelta):
            book = self._books.get(event.symbol)
            if book is not None:
                book.take_delta(event)
                if book.asked and not book.fetching:
                    self._ask_for_snapshot(link, book)
        elif type(event) in _STREAM_OF:
            self._take_market(event)
        elif isinstance(event, PastTrade):
            track = self._trades.get(event.trade.symbol)
            if track is not None and track.take_past(event.trade):
                track.last = event.trade
                self._sink.add_trade(event.trade)
        elif isinstance(event, Kline):
            if (candles := self._klines.get(event.symbol)) is not None:
                candles.take(event)
        elif isinstance(event, BookSnapshot):
            if (book := self._books.get(event.symbol)) is not None:
                book.take_pushed_snapshot(event)
                if book.asked:
                    self._ask_for_snapshot(link, book)
        elif isinstance(event, OffBookPrint):
            if (track := self._trades.get(event.symbol)) is not None:
                track.take_off_book(event)
        elif isinstance(event, Acknowledged):
            if link.asking is not None:
                link.answered()
        elif isinstance(event, Rejected):
            self._rejected(link, event)
        elif isinstance(event, ServerNotice) and event.kind == "shutdown":
            self._log.info("feed.server_shutdown_announced", connection=link.number, detail=event.detail)
            link.replace("exchange_maintenance")

    def _take_market(self, event: Event) -> None:
        if isinstance(event, MarketEvent):
            track = self._market.get((_STREAM_OF[type(event)], event.symbol))
            if track is not None:
                track.take(event)

    def _malformed(self, link: Link, payload: bytes, error: MessageError) -> None:
        """Count a message that cannot be read; say so now and then; blame it for the hole where it names its symbol."""
        link.malformed += 1
        self._complained_malformed += 1
        track = self._owner(payload)
        if isinstance(track, TradeTrack):
            track.blame("malformed")
        now_s = self._clock.monotonic_s()
        if now_s - self._complained_s >= _COMPLAINT_INTERVAL_S:
            self._complained_s = now_s
            self._log.warning(
                "feed.message_malformed",
                connection=link.number,
                reason=error.message,
                sample=payload[:_SAMPLE_BYTES].decode("utf-8", "backslashreplace"),
                symbol=track.symbol if track is not None else None,
                count=self._complained_malformed,
            )
            self._complained_malformed = 0

    def _rejected(self, link: Link, event: Rejected) -> None:
        """Mark the subscription that was refused; several that were refused together are asked for one by one."""
        tracks: list[Track] = []
        if link.asking is not None:
            tracks = [link.asking]
            link.answered()
        elif event.channel is not None:
            tracks = self._channel_owners().get(event.channel, [])
        elif event.request_id in link.plan.request_ids:
            frame = link.plan.frames[link.plan.request_ids.index(event.request_id)]
            owners = self._channel_owners()
            asked = self._exchange.channels_asked(link.plan.path, frame)
            tracks = list({id(track): track for name in asked for track in owners.get(name, ())}.values())
        elif event.request_id is None and not link.plan.request_ids:
            # The exchange numbers no requests: it may mean any that has brought nothing.
            tracks = [track for track in link.tracks if not track.delivers and track.state != "rejected"]
        self._log.error(
            "feed.subscription_rejected",
            connection=link.number,
            code=event.code,
            reason=event.message,
            symbols=sorted({track.symbol for track in tracks})[:20],
        )
        if len(tracks) > 1 and event.channel is None:
            link.ask_singly(tracks)
            return
        for track in tracks:
            if not track.delivers:
                track.call_silent("rejected", self._exchange_now_us(), f"{event.message} (code {event.code})")

    def _owner(self, payload: bytes) -> Track | None:
        channel = self._exchange.channel_of(payload)
        owners = [] if channel is None else self._channel_owners().get(channel, [])
        return owners[0] if owners else None

    def _channel_owners(self) -> dict[str, list[Track]]:
        """Return which tracks each channel feeds; worked out only when something goes wrong."""
        if self._owners is None:
            self._owners = {}
            for subscription, track in self._tracks.items():
                if subscription.stream in self._exchange.polled_streams:
                    continue
                for plan in self._exchange.plan([subscription], raw_trades=self._raw_trades):
                    for frame in (None, *plan.frames):
                        for channel in self._exchange.channels_asked(plan.path, frame):
                            self._owners.setdefault(channel, []).append(track)
        return self._owners

    def _observed(self, track: Track, newest_us: int) -> None:
        if not self.first_data.is_set():
            self.first_data.set()
        self._sink.observe(track.symbol, newest_us)
        if track.latency_us is not None:
            self._latency.add(track.latency_us)
        if self._newest_us is None or newest_us >= self._newest_us:
            self._newest_us = newest_us
            self._newest_s = self._clock.monotonic_s()

    def _heard_us(self, track: Track) -> int | None:
        """Return the newest exchange time that the connections of a track have brought."""
        known = [one.last for link in self._links if track in link.tracks for one in link.tracks]
        times = [last.timestamp_us for last in known if last is not None and getattr(last, "timed", True)]
        return max(times, default=None)

    def _exchange_now_us(self) -> int:
        """Estimate the exchange's clock: its newest time plus the time since; ours where there was none yet."""
        if self._newest_us is None:
            return self._clock.now_us()
        return self._newest_us + round((self._clock.monotonic_s() - self._newest_s) * 1e6)

    async def _probe(self, track: Track) -> Finding:
        """Ask the exchange whether a silent stream misses something; what is only on its way does not count."""
        received = track.received
        try:
            missed = await self._misses(track)
        except CollectorError as error:
            self._log.info("feed.silence_not_checked", symbol=track.symbol, stream=track.stream, reason=str(error))
            refusal = isinstance(error, MessageError) or getattr(error, "status", 0) in _NO_SUCH_SYMBOL
            return "refused" if refusal and not await self._is_traded(track.symbol) else "unknown"
        if missed:
            await self._gate.wait(min(_ON_ITS_WAY_S, self._settings.first_data_timeout_s / 4))
        if missed is None:
            return "unknown"
        return "missed" if missed and track.received == received else "quiet"

    async def _is_traded(self, symbol: str) -> bool:
        """Return whether the exchange's list has a symbol among those that are traded; it is asked now and then."""
        now_s = self._clock.monotonic_s()
        if now_s - self._listed_s >= _LISTING_INTERVAL_S:
            self._listed_s = now_s
            try:
                listed = await fetch_listing(self._exchange, self._rest)
            except CollectorError:
                return True
            self._traded = frozenset(listing.symbol for listing in listed if listing.active)
        return not self._traded or symbol in self._traded

    async def _misses(self, track: Track) -> bool | None:
        """Return whether the exchange has something that a stream did not bring; None where nobody can tell."""
        if track.stream in self._exchange.steady_streams:
            return True
        if track.stream == "orderbook":
            return await self._misses_changes(track)
        since_us = self._since_us(track)
        if track.stream != "prices":
            trades = self._trades.get(track.symbol)
            if trades is not None and trades.last is not None:
                return trades.state == "live" and trades.last.timestamp_us > since_us + _SAME_MOMENT_US
        request = self._exchange.newest_trade_request(track.symbol)
        if request is None:
            return None
        body = await self._rest.get(request)
        newest_us = self._exchange.parse_newest_trade_us(track.symbol, body, self._clock.now_us())
        return newest_us is not None and newest_us > since_us

    async def _misses_changes(self, track: Track) -> bool | None:
        """Compare the ids of a book and of the exchange's; where there is none of ours, of its book a moment ago."""
        if not self._exchange.book_numbered:
            return None
        known = track.last.last_id if isinstance(track.last, BookDelta | BookSnapshot) else None
        if known is None and not self._exchange.book_needs_snapshot:
            return True  # subscribing alone brings a book
        if known is None:
            known = await self._newest_update(track.symbol)
            await self._gate.wait(min(_ON_ITS_WAY_S, self._settings.first_data_timeout_s / 4))
        newest = await self._newest_update(track.symbol)
        return newest > known if newest and known else None

    async def _newest_update(self, symbol: str) -> int:
        body = await self._rest.get(self._exchange.book_probe_request(symbol))
        return self._exchange.parse_snapshot(symbol, body, self._clock.now_us()).last_id

    def _since_us(self, track: Track) -> int:
        """Return the exchange's time from which on something would be missing."""
        if track.last is not None:
            return track.last.timestamp_us
        since_s = track.expected_since_s or self._clock.monotonic_s()
        return self._exchange_now_us() - round((self._clock.monotonic_s() - since_s) * 1e6)

    def _ask_for_snapshot(self, link: Link, book: BookTrack) -> None:
        if self._exchange.book_needs_snapshot:
            self._fetch(book)
        else:
            link.renew(book)

    def _fetch(self, book: BookTrack) -> None:
        if self._tasks is None or self._gate.stopping.is_set():
            return
        book.fetching = True
        fetch = self._tasks.create_task(self._fetch_book(book))
        self._fetches.add(fetch)
        fetch.add_done_callback(self._fetches.discard)

    async def _fetch_book(self, book: BookTrack) -> None:
        """Ask for snapshots until the book is whole, or its connection is lost; its changes wait meanwhile."""
        backoff = Backoff(
            initial_s=self._settings.backoff_initial_s, cap_s=self._settings.backoff_cap_s, random=self._random
        )
        attempt = 0
        try:
            while book.asked and not self._gate.stopping.is_set():
                attempt += 1
                delay_s = await self._try_snapshot(book, backoff, attempt)
                if delay_s is None:
                    return
                await self._gate.wait(delay_s)
        except Exception as error:  # noqa: BLE001 - a bug costs one book its snapshot, which the next change asks for again
            self._log.error("feed.bug", symbol=book.symbol, error=repr(error), exc_info=error)
        finally:
            book.fetching = False

    async def _try_snapshot(self, book: BookTrack, backoff: Backoff, attempt: int) -> float | None:
        """Fetch one snapshot; return None where the book is whole, else the seconds to wait before the next one."""
        request = self._exchange.snapshot_request(book.symbol)
        try:
            await self._snapshot_pace.acquire()
            body = await self._rest.get(request)
            snapshot = self._exchange.parse_snapshot(book.symbol, body, self._clock.now_us())
        except CollectorError as error:
            delay_s = backoff.delay_s(judge(error), stay_away_s(error))
            if attempt & (attempt - 1) == 0:
                self._log.warning(
                    "feed.snapshot_failed",
                    symbol=book.symbol,
                    reason=str(error),
                    attempt=attempt,
                    retry_in_s=round(delay_s, 1),
                )
            return delay_s
        if not book.asked:
            # The connection was lost meanwhile: this snapshot is older than whatever the next one will bring.
            return None
        if book.take_snapshot(snapshot):
            self._log.info("feed.book_synchronised", symbol=book.symbol, update_id=snapshot.last_id, attempts=attempt)
            return None
        self._log.info("feed.snapshot_stale", symbol=book.symbol, update_id=snapshot.last_id, attempt=attempt)
        return backoff.delay_s()

    async def _settle_books(self) -> None:
        """Let the snapshots come that were asked for before a replay ended."""
        if self._fetches:
            await asyncio.wait(self._fetches, timeout=self._settings.snapshot_timeout_s)


def open_rest(
    exchange: Exchange,
    settings: configuration.Feed,
    clock: Clock,
    *,
    rest_url: str = "",
    recorder: Recorder | None = None,
    allowance: Allowance | None = None,
) -> Rest:
    """Return the REST client for an exchange, as the configuration says; whoever opens it closes it."""
    return Rest(
        rest_url or exchange.rest_url,
        allowance=allowance or Allowance(exchange.limits, clock, snapshots_per_s=settings.snapshots_per_s),
        timeout_s=settings.snapshot_timeout_s,
        max_bytes=settings.rest_max_bytes,
        clock=clock,
        proxy=settings.proxy,
        recorder=recorder,
        headers=exchange.headers,
    )
