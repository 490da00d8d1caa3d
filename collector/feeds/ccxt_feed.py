"""A feed of an exchange that has no dialect here, through the library ccxt: trades, and the best levels of books.

ccxt connects, subscribes and parses; what comes out is taken as it is, and none of it is verified. It has no seam for
raw messages and no numbers to follow, so a reconnect is a gap by time. Each subscription is a task that waits for
ccxt; one that fails does not touch the others.
"""

from __future__ import annotations

import asyncio
import random as random_module
from collections.abc import Awaitable, Callable, Mapping, Sequence
from decimal import Decimal
from importlib import import_module
from importlib.util import find_spec
from typing import Any, Self
from urllib.parse import urlsplit

from structlog.typing import FilteringBoundLogger

from collector import config as configuration
from collector.clock import Clock
from collector.errors import CollectorError, ConnectionLost, ExchangeRefused, MessageError, UnknownName, UsageError
from collector.events import BookSnapshot, GapCause, Level, Trade
from collector.exchanges.base import Listing, Subscription
from collector.exchanges.ccxt import PREFIX, Ccxt
from collector.exchanges.decode import require_levels, require_price_and_size, trade_id
from collector.feeds.backoff import Backoff
from collector.feeds.sink import ResumePoint, Sink
from collector.feeds.status import ConnectionStatus, FeedStatus
from collector.feeds.tracks import BookTrack, TradeTrack

_TICK_S = 0.5
_KEPT_TRADES = 10_000
"""How many trades ccxt may hold for a symbol between two looks; it has 1,000 by default, and forgets what is more."""


def require_ccxt() -> None:
    """Raise UsageError where the library is not installed, with the command that installs it."""
    if find_spec("ccxt") is None:
        raise UsageError(
            "Exchanges of ccxt need the library ccxt, which is not installed.",
            hint="Install it with: pip install 'collector[ccxt]'",
        )


class CcxtClient:
    """A client of ccxt's, pointed where it is told to, with its errors as ours."""

    def __init__(self, facts: Ccxt, client: Any, errors: Any) -> None:
        self.facts = facts
        self._client = client
        self._errors = errors
        # What is refused for good; all else may pass: the network, time-outs, limits, maintenance.
        self._refusals = errors.BadRequest, errors.NotSupported, errors.ArgumentsRequired, errors.AuthenticationError
        self.requests = 0

    @classmethod
    async def open(
        cls,
        facts: Ccxt,
        settings: configuration.Feed,
        *,
        ws_url: str = "",
        rest_url: str = "",
        options: Mapping[str, Any] | None = None,
    ) -> Self:
        """Make a client; the library is imported in a thread, as that takes seconds.

        Args:
            ws_url, rest_url: take the place of scheme and host in all of the exchange's addresses.
            options: ccxt's own, for the exchange.

        Raises:
            UsageError: the library is not installed; UnknownName where it has no such exchange.
        """
        require_ccxt()
        library = await asyncio.to_thread(import_module, "ccxt.pro")
        errors = import_module("ccxt.base.errors")
        if facts.plain_name not in library.exchanges:
            names = [PREFIX + name for name in library.exchanges]
            raise UnknownName("exchange", facts.name, names)
        made = getattr(library, facts.plain_name)(
            {
                "enableRateLimit": True,
                "newUpdates": True,
                "timeout": round(settings.open_timeout_s * 1000),
                "options": {"tradesLimit": _KEPT_TRADES, **(options or {})},
                **({"wsProxy": settings.proxy, "httpsProxy": settings.proxy} if settings.proxy else {}),
            }
        )
        made.number = str  # keeps the digits of whatever the exchange sends as text
        made.urls["api"] = _pointed(made.urls["api"], ws_url, rest_url)
        return cls(facts, made, errors)

    async def close(self) -> None:
        """Close its connections."""
        await self._client.close()

    def offers(self, method: str) -> bool:
        """Say whether ccxt can do something with this exchange."""
        return bool(self._client.has.get(method))

    async def listing(self) -> list[Listing]:
        """Return the instruments: spot is ``BASE_QUOTE``, what is settled has that and its date behind it."""
        markets = await self.call(self._client.load_markets)
        return [
            Listing(_symbol(native), native, market["base"], market["quote"], market.get("active") is not False)
            for native, market in markets.items()
            if market.get("base") and market.get("quote")
        ]

    async def volumes(self) -> dict[str, Decimal]:
        """Return what was traded in 24 hours, in quote currency.

        Raises:
            UsageError: ccxt does not offer it for this exchange.
        """
        if not self.offers("fetchTickers"):
            raise UsageError(
                f"ccxt does not say what was traded on {self.facts.plain_name}, so there is no top:N.",
                hint="Name the symbols, or write all:USDT for all of a quote currency.",
            )
        tickers = await self.call(self._client.fetch_tickers)
        return {native: Decimal(str(ticker.get("quoteVolume") or 0)) for native, ticker in tickers.items()}

    async def call(self, method: Callable[..., Awaitable[Any]], *arguments: Any) -> Any:
        """Call a method of ccxt's; its errors become ours.

        Raises:
            ConnectionLost: it may be tried again.
            ExchangeRefused: the exchange or ccxt refused for good.
            MessageError: ccxt stumbled over what came.
        """
        try:
            return await method(*arguments)
        except self._refusals as error:
            raise ExchangeRefused(f"{self.facts.name}: {_words(error)}", status=400) from error
        except self._errors.BaseError as error:
            raise ConnectionLost(f"{self.facts.name}: {_words(error)}") from error
        except (
            ValueError,
            TypeError,
            KeyError,
            AttributeError,
            IndexError,
        ) as error:  # ccxt met what it did not expect
            raise MessageError(f"{self.facts.name}: {type(error).__name__}: {_words(error)}") from error

    async def trades(self, native: str) -> list[dict[str, Any]]:
        """Wait for trades of a market; return those that were not returned before."""
        found: list[dict[str, Any]] = await self.call(self._client.watch_trades, native)
        return found

    async def book(self, native: str) -> dict[str, Any]:
        """Wait for a change of a market's book; return all of it."""
        found: dict[str, Any] = await self.call(self._client.watch_order_book, native)
        return found

    def urls(self) -> list[str]:
        """Return the websocket addresses that are connected to."""
        return list(self._client.clients)


class CcxtFeed:
    """Collect trades and books through ccxt into a sink until told to stop.

    Args:
        client: is closed with the feed.
        listings: the markets concerned.
        resume: per symbol, where its recording ended.
    """

    def __init__(
        self,
        client: CcxtClient,
        listings: Sequence[Listing],
        subscriptions: Sequence[Subscription],
        sink: Sink,
        *,
        config: configuration.Feed,
        clock: Clock,
        log: FilteringBoundLogger,
        book_levels: int,
        resume: Mapping[str, ResumePoint] | None = None,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        self.first_data = asyncio.Event()
        self.finished = asyncio.Event()
        self._client = client
        self._natives = {listing.symbol: listing.native for listing in listings}
        self._sink = sink
        self._settings = config
        self._clock = clock
        self._log: FilteringBoundLogger = log.bind(exchange=client.facts.name)
        self._levels = book_levels
        self._random = random
        self._tracks: list[TradeTrack | BookTrack] = [
            self._track(asked, (resume or {}).get(asked.symbol, ResumePoint())) for asked in subscriptions
        ]
        self._stopping = asyncio.Event()
        self._ended = asyncio.Event()
        self._running = False
        self._began_us = clock.now_us()
        self._reconnects = self._messages = self._malformed = 0
        self._last_error = ""
        self._last_s: float | None = None

    def _track(self, asked: Subscription, resume: ResumePoint) -> TradeTrack | BookTrack:
        if asked.stream == "prices":
            grace_s = self._settings.reorder_grace_s
            return TradeTrack(asked, self._sink, contiguous=False, resume=resume, reorder_grace_s=grace_s)
        return BookTrack(asked, self._sink, exchange=self._client.facts, resume=resume, levels=self._levels)

    async def run(self) -> None:
        """Watch every subscription until ``stop()``; then all is in the sink."""
        self._running = True
        try:
            async with asyncio.TaskGroup() as tasks:
                watching = [tasks.create_task(self._watch(track)) for track in self._tracks]
                watching.append(tasks.create_task(self._look_after_tracks()))
                await self._stopping.wait()
                for task in watching:
                    task.cancel()
        finally:
            until_us = self._clock.now_us()
            for track in self._tracks:
                track.finish(until_us)
            await self._client.close()
            self._ended.set()

    async def stop(self) -> None:
        """End; return when what was received is passed on."""
        self._stopping.set()
        if self._running:
            await self._ended.wait()

    def status(self) -> FeedStatus:
        """Describe the feed as it is now; all of ccxt's connections are described as one."""
        delivering = any(track.delivers for track in self._tracks)
        age_s = None if self._last_s is None else self._clock.monotonic_s() - self._last_s
        connection = ConnectionStatus(
            number=1,
            url=", ".join(self._client.urls()),
            state="closed" if self._ended.is_set() else "open" if delivering else "connecting",
            since_us=self._began_us,
            reconnects=self._reconnects,
            messages=self._messages,
            bytes=0,
            malformed=self._malformed,
            last_frame_age_s=age_s,
            last_error=self._last_error,
        )
        return FeedStatus(
            exchange=self._client.facts.name,
            connections=[connection],
            streams=[track.status(1) for track in self._tracks],
            rest_requests=self._client.requests,
            rest_refused=0,
            banned_s=0.0,
        )

    async def _watch(self, track: TradeTrack | BookTrack) -> None:
        """Pass on what ccxt says of one subscription; begin again after an outage, and end where it is refused."""
        backoff = Backoff(
            initial_s=self._settings.backoff_initial_s, cap_s=self._settings.backoff_cap_s, random=self._random
        )
        native = self._natives[track.symbol]
        while True:
            track.begin()
            track.expect(self._clock.monotonic_s())
            asked_us = self._clock.now_us()
            try:
                while True:
                    if isinstance(track, TradeTrack):
                        self._take_trades(track, await self._client.trades(native), asked_us)
                    else:
                        self._take_book(track, await self._client.book(native))
                    backoff.reset()
                    self._last_s = self._clock.monotonic_s()
            except CollectorError as error:
                self._last_error = str(error)
                if not error.retryable and not isinstance(error, MessageError):
                    self._log.error(
                        "feed.subscription_rejected", symbol=track.symbol, stream=track.stream, reason=str(error)
                    )
                    track.call_silent("rejected", self._clock.now_us(), str(error))
                    return
                cause: GapCause = "malformed" if isinstance(error, MessageError) else "disconnect"
                self._malformed += cause == "malformed"
                self._reconnects += 1
                self._log.warning(
                    "feed.ccxt_interrupted", symbol=track.symbol, stream=track.stream, reason=str(error), cause=cause
                )
                track.interrupt(cause)
            await asyncio.sleep(backoff.delay_s())

    def _take_trades(self, track: TradeTrack, rows: list[dict[str, Any]], asked_us: int) -> None:
        received_us = self._clock.now_us()
        for place, row in enumerate(rows):
            self._messages += 1
            trade = _trade(row, track.symbol, place, received_us)
            if not track.delivers and trade.timestamp_us < asked_us:
                if track.take_past(trade):
                    track.last = trade
                    self._sink.add_trade(trade)
                continue
            track.received += 1
            track.last = trade
            if track.accept(trade):
                self._sink.add_trade(trade)
            else:
                track.duplicates += 1

    def _take_book(self, track: BookTrack, book: dict[str, Any]) -> None:
        received_us = self._clock.now_us()
        self._messages += 1
        time_us = round((book.get("timestamp") or 0) * 1000) or received_us
        depth = self._client.facts.deepest_book
        bids, asks = _levels(book["bids"][:depth]), _levels(book["asks"][:depth])
        require_levels(bids, asks)
        track.take_pushed_snapshot(BookSnapshot(track.symbol, time_us, time_us, bids, asks, received_us))

    async def _look_after_tracks(self) -> None:
        """Report gaps, silence and latency, twice a second."""
        while True:
            await asyncio.sleep(_TICK_S)
            now_s = self._clock.monotonic_s()
            for track in self._tracks:
                track.due(now_s)
                newest_us = track.sample()
                if newest_us is not None:
                    self.first_data.set()
                    self._sink.observe(track.symbol, newest_us)
                if track.state == "live":
                    continue
                if track.delivers:
                    track.notice_data(now_s)
                elif track.overdue(now_s, self._settings.first_data_timeout_s):
                    track.call_silent("silent_subscription", self._clock.now_us(), "no data since the subscription")


def _trade(row: Mapping[str, Any], symbol: str, place: int, received_us: int) -> Trade:
    """Read a trade of ccxt's; raise MessageError where it lacks what a trade has."""
    price, volume, side, time_ms = (row.get(name) for name in ("price", "amount", "side", "timestamp"))
    if side not in ("buy", "sell") or not isinstance(time_ms, int) or price is None or volume is None:
        raise MessageError(f"A trade of {symbol} has no price, size, side or time.")
    price, volume = _plain(price), _plain(volume)
    require_price_and_size(price, volume)
    name = row.get("id")
    # Some exchanges give trades no id: the place in what came together tells trades of one time apart.
    number = trade_id(str(name)) if name else f"{time_ms}-{place}"
    return Trade(symbol, time_ms * 1000, price, volume, side, number, received_us)


def _levels(side: Sequence[Sequence[Any]]) -> list[Level]:
    return [(_plain(level[0]), _plain(level[1])) for level in side]


def _plain(number: object) -> str:
    """Return a number of ccxt's as plain digits: text is as the exchange wrote it, a float is its shortest decimal."""
    text = str(number)
    return format(Decimal(text), "f") if "e" in text or "E" in text else text.removesuffix(".0")


def _symbol(native: str) -> str:
    """Return ``BTC_USDT`` for ``BTC/USDT``, ``BTC_USDT-USDT-260327`` for ``BTC/USDT:USDT-260327``."""
    return native.replace("/", "_", 1).replace(":", "-", 1).upper()


def _words(error: BaseException) -> str:
    return " ".join(str(error).split())[:300]


def _pointed(urls: Any, ws_url: str, rest_url: str) -> Any:
    """Return addresses with another scheme and host, as far as one is given; their paths stay."""
    if isinstance(urls, dict):
        return {name: _pointed(url, ws_url, rest_url) for name, url in urls.items()}
    if not isinstance(urls, str):
        return urls
    parts = urlsplit(urls)
    base = ws_url if parts.scheme in ("ws", "wss") else rest_url
    return base.rstrip("/") + parts.path if base else urls
