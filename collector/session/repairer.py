"""The repairer: asks an exchange for the trades that a session's ledger says are missing, and has them recorded.

What to ask and what an answer means is decided in ``repair``; here requests are sent, within a share of the exchange's
budget, and what they brought goes through the session's buffer: to the CSV first, to the ledger behind it. Everything
that is to be done is in the ledger and in the log, so a repair that was cut off at any point is simply begun again.
"""

from __future__ import annotations

import asyncio
import random as random_module
from collections.abc import Callable, Iterable, Sequence
from typing import Protocol

from structlog.typing import FilteringBoundLogger

from collector.clock import Clock
from collector.config import Repair as Settings
from collector.errors import CollectorError, MessageError, UnknownName
from collector.events import Kline, Trade
from collector.exchanges.base import Exchange, Request
from collector.exchanges.candle_sources.base import CandleSource, HistoryCandle
from collector.exchanges.candle_sources.walk import walk
from collector.feeds.backoff import Backoff, judge, stay_away_s
from collector.feeds.continuity import merge_intervals
from collector.session.buffer import SessionBuffer
from collector.session.gaps import Entry, GapLedger, Repair
from collector.session.repair import (
    NO_NUMBERS,
    PAGE,
    Found,
    Ids,
    IdSearch,
    Tally,
    TimeSearch,
    covered,
    holds,
    is_numbered,
    repairable,
    subtract,
)
from collector.streams import PRICES

_MINUTE_US = 60_000_000
_CHUNK_TRADES = 10_000
"""How many trades are held before they are recorded."""
_ATTEMPTS = 3
"""How often an answer that cannot be read is asked for again."""


class Repaired(Protocol):
    """What the repairer needs of a session; ``session.Session`` is one."""

    ledger: GapLedger
    buffer: SessionBuffer

    async def flush(self) -> bool: ...

    def takes_rows(self) -> bool: ...


class Asked(Protocol):
    """What it needs of a REST client."""

    async def get(self, request: Request) -> bytes: ...


class Shared(Protocol):
    """What it needs of the exchange's allowance."""

    async def leave_room(self, weight: int, share: float) -> None: ...


class Watched(Protocol):
    """What it needs of the feed of a running session: trades may come by themselves while they are asked for."""

    def holes_in(self, symbol: str, first: int, last: int) -> list[tuple[int, int]]: ...

    def take_fetched(self, trade: Trade) -> bool: ...


LookUp = Callable[[str, Ids, "tuple[int, int] | None"], Found]
"""Say what the log has already: (symbol, ids, span of time); blocks, so it is called in a thread of its own."""

Tell = Callable[[Tally], None]


class Later(Exception):
    """The exchange cannot be asked now; ``delay_s`` says when to try again."""

    def __init__(self, delay_s: float, reason: str) -> None:
        super().__init__(reason)
        self.delay_s = delay_s


class Repairer:
    """Repair one session's trades.

    Args:
        allowance: the exchange's, of which repairs take a share.
        feed: of the running session; None where it has ended, so that nothing comes by itself.
        look_up: reads what the log has already.
        candles: where the exchange's own minutes are had; None where they aren't.
        resting: says of a symbol that its gaps have to wait: a running session that does not collect it any more has
            closed its candles, which must count what is fetched.
        random: returns floats in [0, 1), for the jitter of delays.
    """

    def __init__(
        self,
        session: Repaired,
        exchange: Exchange,
        rest: Asked,
        *,
        allowance: Shared,
        feed: Watched | None,
        look_up: LookUp,
        settings: Settings,
        clock: Clock,
        log: FilteringBoundLogger,
        raw_trades: bool = False,
        candles: CandleSource | None = None,
        resting: Callable[[str], bool] = lambda _: False,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        self.repaired_rows = 0
        self.requests = 0
        self._session = session
        self._exchange = exchange
        self._rest = rest
        self._allowance = allowance
        self._feed = feed
        self._look_up = look_up
        self._settings = settings
        self._clock = clock
        self._log = log
        self._raw_trades = raw_trades
        self._candles = candles
        self._resting = resting
        self._random = random
        self._turn = asyncio.Lock()
        self._places = asyncio.Semaphore(settings.max_concurrent)
        self._waiting: dict[str, tuple[float, Backoff]] = {}
        self._no_candles: set[str] = set()

    def admit(self, candles: CandleSource | None) -> None:
        """Have the minutes of more symbols, too: the session collects them from now on."""
        self._candles = candles

    async def run(self) -> None:
        """Repair whatever the ledger says is missing, as it appears, until cancelled."""
        while True:
            try:
                if self._settings.enabled:
                    await self._repair_due()
            except Exception as error:  # noqa: BLE001  (a bug here must not end the collecting)
                self._log.error("repair.bug", reason=repr(error), exc_info=error)
            await asyncio.sleep(self._settings.interval_s)

    async def repair(self, symbols: Sequence[str] = (), *, tell: Tell = lambda _: None) -> list[Tally]:
        """Repair all that is missing of some symbols (or of all), now; return what became of each row of the ledger.

        Args:
            tell: is told of each row as soon as its symbol is done.

        Raises:
            ExchangeRefused, ConnectionLost: the exchange cannot be asked now; what was found until then is recorded.
        """
        wanted = self._wanted(symbols, again=True)
        tallies: list[Tally] = []
        failure: CollectorError | None = None
        async with self._turn:
            for symbol, entries in _by_symbol(wanted).items():
                try:
                    await self._repair_symbol(symbol, entries)
                except Later as later:
                    failure = failure or CollectorError(
                        f"{symbol} could not be asked for: {later}.", hint="Try again later."
                    )
                    await self._session.flush()
                await self._fill_candles(symbol, again=True)
                for entry in entries:
                    tallies.append(self._judged(entry))
                    tell(tallies[-1])
        if failure is not None and not any(tally.got for tally in tallies):
            raise failure
        return tallies

    # What is to be done

    async def _repair_due(self) -> None:
        now_s = self._clock.monotonic_s()
        by_symbol = _by_symbol(self._wanted((), again=False))
        due = {
            symbol: entries
            for symbol, entries in by_symbol.items()
            if symbol not in self._waiting or self._waiting[symbol][0] <= now_s
        }
        async with self._turn, asyncio.TaskGroup() as tasks:
            for symbol, entries in due.items():
                tasks.create_task(self._repair_in_turn(symbol, entries))
        for symbol in self._replaceable():
            if symbol not in self._waiting or self._waiting[symbol][0] <= now_s:
                await self._fill_candles(symbol)

    async def _repair_in_turn(self, symbol: str, entries: Sequence[Entry]) -> None:
        async with self._places:
            try:
                await self._repair_symbol(symbol, entries)
            except Later as later:
                self._postpone(symbol, later)
            except Exception as error:  # noqa: BLE001  (one symbol's trouble leaves the others alone)
                self._log.error("repair.bug", symbol=symbol, reason=repr(error), exc_info=error)
                self._postpone(symbol, Later(self._settings.backoff_cap_s, repr(error)))
            else:
                self._waiting.pop(symbol, None)

    def _postpone(self, symbol: str, later: Later) -> None:
        _, backoff = self._waiting.get(symbol, (0.0, self._backoff()))
        delay_s = max(later.delay_s, backoff.delay_s())
        self._waiting[symbol] = self._clock.monotonic_s() + delay_s, backoff
        self._log.warning("repair.postponed", symbol=symbol, reason=str(later), retry_in_s=round(delay_s, 1))

    def _backoff(self) -> Backoff:
        return Backoff(initial_s=1.0, cap_s=self._settings.backoff_cap_s, random=self._random)

    def _wanted(self, symbols: Sequence[str], *, again: bool) -> list[Entry]:
        """Return the rows of the ledger to work on, the oldest first."""
        oldest_us = 0 if again else self._clock.now_us() - round(self._settings.max_age_s * 1e6)
        return [
            entry
            for entry in _rows_to_repair(self._session.ledger, symbols, again=again)
            if (entry.to_us or entry.detected_us) >= oldest_us and not self._resting(entry.symbol)
        ]

    # Trades

    async def _repair_symbol(self, symbol: str, entries: Sequence[Entry]) -> None:
        numbered = [entry for entry in entries if is_numbered(entry)]
        if numbered:
            await self._repair_ids(symbol, numbered)
        for entry in entries:
            if not is_numbered(entry):
                await self._repair_span(symbol, entry)
        await self._session.flush()

    async def _repair_ids(self, symbol: str, entries: Sequence[Entry]) -> None:
        ids = merge_intervals((entry.from_id or 0, entry.to_id or 0) for entry in entries)
        # In this order: what the feed waits for, what it passed on before that, and what of it is in the log. A trade
        # that comes by itself is then either in the log or noticed when the fetched ones are handed over.
        awaited = self._awaited(symbol, ids)
        if not await self._session.flush():
            raise Later(self._settings.interval_s, "the log cannot be written now")
        times = [at_us for entry in entries for at_us in (entry.from_us, entry.to_us) if at_us is not None]
        span = (min(times), max(times)) if times else None
        found = await asyncio.to_thread(self._look_up, symbol, ids, span)
        hints = [(entry.from_id or 0, _hint_us(entry)) for entry in entries]
        known = [*found.present, *found.repaired]
        search = IdSearch(self._exchange.trades_paging, subtract(ids, known), hints)
        try:
            while (asked := search.wanted) is not None:
                await self._ask(symbol, asked, search)
                if len(search.found) >= _CHUNK_TRADES:
                    await self._hand_over_ids(symbol, search, awaited, found)
        finally:
            await self._hand_over_ids(symbol, search, awaited, found)

    def _awaited(self, symbol: str, ids: Ids) -> Ids:
        if self._feed is None:
            return []
        return merge_intervals(hole for first, last in ids for hole in self._feed.holes_in(symbol, first, last))

    async def _hand_over_ids(self, symbol: str, search: IdSearch, awaited: Ids, known: Found) -> None:
        if not (search.found or search.given_up or known.repaired or known.present):
            return
        await self._await_room()
        if not self._session.takes_rows() or self._resting(symbol):
            search.found, search.given_up = [], []
            return
        # From here on nothing is awaited: what comes by itself comes before, or after.
        got: Ids = list(known.repaired)
        times: dict[int, int] = {}
        for trade in search.found:
            span = covered(trade)
            if span is None:
                continue
            times[span[0]] = times[span[1]] = trade.timestamp_us
            if self._feed is not None and holds(awaited, span[1]) and not self._feed.take_fetched(trade):
                continue
            self._session.buffer.add_trade(trade)
            got.append(span)
        got = merge_intervals(got)
        edges = {at for first, last in search.given_up + search.missing for at in (first - 1, last + 1)}
        self._session.buffer.add_repair(
            Repair(
                symbol,
                got=got,
                present=known.present,
                given_up=search.given_up,
                times={number: at_us for number, at_us in times.items() if number in edges},
                reason=search.reason,
            )
        )
        self.repaired_rows += len(search.found)
        self._log.info(
            "repair.trades_recorded", symbol=symbol, rows=len(search.found), given_up=search.given_up[:5],
            reason=search.reason,
        )  # fmt: skip
        search.found, search.given_up = [], []

    async def _repair_span(self, symbol: str, entry: Entry) -> None:
        from_us, to_us = entry.from_us or 0, entry.to_us or 0
        if not await self._session.flush():
            raise Later(self._settings.interval_s, "the log cannot be written now")
        found = await asyncio.to_thread(self._look_up, symbol, [], (from_us, to_us))
        search = TimeSearch(
            self._exchange.trades_paging,
            from_us,
            to_us,
            found.between.keys(),
            found.next_id,
            contents=None if self._exchange.trade_ids_contiguous else found.between,
        )
        while (asked := search.wanted) is not None:
            await self._ask(symbol, asked, search)
        await self._await_room()
        if not self._session.takes_rows() or self._resting(symbol):
            return
        rows = 0
        for trade in search.found:
            if self._feed is None or self._exchange.trade_ids_contiguous or self._feed.take_fetched(trade):
                self._session.buffer.add_trade(trade)
                rows += 1
        repair = Repair(symbol, gap_id=entry.gap_id, rows=rows, lost=search.lost, reason=search.reason)
        self._session.buffer.add_repair(repair)
        self.repaired_rows += rows
        self._log.info("repair.trades_recorded", symbol=symbol, gap=entry.gap_id, rows=rows, lost=search.lost)

    async def _ask(self, symbol: str, asked: tuple[int, int | None], search: IdSearch | TimeSearch) -> None:
        """Ask for one page and have it judged; wait where it brought nothing."""
        try:
            request = self._exchange.trades_request(
                symbol, asked[0], PAGE, raw_trades=self._raw_trades, from_us=asked[1]
            )
        except UnknownName as error:
            search.give_up(f"the exchange lists it no more: {error.message}")
            return
        if request is None:
            search.give_up(NO_NUMBERS)
            return
        backoff = self._backoff()
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                body = await self._get(request)
                trades = self._exchange.parse_trades(symbol, body, self._clock.now_us())
            except MessageError as error:
                if attempt == _ATTEMPTS:
                    search.give_up(f"the exchange's answer cannot be read: {error.message}")
                    return
                await asyncio.sleep(backoff.delay_s())
            except CollectorError as error:
                if error.retryable:
                    raise Later(stay_away_s(error) or backoff.delay_s(judge(error)), error.message) from error
                search.give_up(f"the exchange refuses: {error.message}")
                return
            else:
                break
        if not search.take(trades):
            await asyncio.sleep(self._settings.interval_s)

    async def _get(self, request: Request) -> bytes:
        await self._allowance.leave_room(request.weight, self._settings.budget_share)
        self.requests += 1
        return await self._rest.get(request)

    async def _await_room(self) -> None:
        """Let the rows of the running feed go first."""
        while self._session.buffer.is_crowded() and self._session.takes_rows():  # noqa: ASYNC110  see below
            await asyncio.sleep(0.1)  # nobody tells when there is room again

    # Candles of what cannot be had

    def _replaceable(self) -> list[str]:
        return sorted({entry.symbol for entry in self._session.ledger.entries() if self._lacks_candles(entry)})

    def _lacks_candles(self, entry: Entry, *, again: bool = False) -> bool:
        """Say whether a gap of trades that are not to be had has closed minutes that the exchange can tell."""
        return (
            self._candles is not None
            and entry.stream == PRICES.name
            and entry.cause != "log_damaged"
            and entry.state == "unrecoverable"
            and entry.repaired_from != "kline"
            and entry.from_us is not None
            and entry.to_us is not None
            and not self._resting(entry.symbol)
            and (again or entry.gap_id not in self._no_candles)
            and self._clock.now_us() >= _minute(entry.to_us) + _MINUTE_US + round(self._settings.kline_delay_s * 1e6)
        )

    async def _fill_candles(self, symbol: str, *, again: bool = False) -> None:
        """Take the exchange's own minutes for those whose trades are not to be had."""
        for entry in sorted(self._session.ledger.entries(), key=_age):
            if entry.symbol != symbol or not self._lacks_candles(entry, again=again):
                continue
            try:
                klines = await self._ask_klines(symbol, _minute(entry.from_us or 0), _minute(entry.to_us or 0))
            except Later as later:
                self._postpone(symbol, later)
                return
            except CollectorError as error:
                self._no_candles.add(entry.gap_id)
                self._log.warning("repair.no_candles", symbol=symbol, gap=entry.gap_id, reason=str(error))
                continue
            if not self._session.takes_rows() or self._resting(symbol):
                return
            for kline in klines:
                self._session.buffer.add_replacement(kline)
            self._session.buffer.add_repair(Repair(symbol, gap_id=entry.gap_id, source="kline"))
            self._log.info("repair.candles_replaced", symbol=symbol, gap=entry.gap_id, minutes=len(klines))
        await self._session.flush()

    async def _ask_klines(self, symbol: str, first_us: int, last_us: int) -> list[Kline]:
        if self._candles is None:
            return []
        now_us = self._clock.now_us()
        steps = walk(self._candles, symbol, "1m", first_us, last_us + _MINUTE_US, now_us=now_us)
        klines: list[Kline] = []
        while (request := steps.request) is not None:
            try:
                body = await self._get(request)
            except CollectorError as error:
                if error.retryable:
                    raise Later(stay_away_s(error) or 1.0, error.message) from error
                raise
            klines += [_kline(symbol, candle, now_us) for candle in steps.feed(body) if candle.closed]
        return klines

    def _judged(self, before: Entry) -> Tally:
        tally = _tally(before)
        after = {entry.gap_id: entry for entry in self._session.ledger.entries()}
        entry = after.get(before.gap_id, before)
        parts = [
            one for one in after.values() if one.detail.startswith(f"of {entry.gap_id}") and one.state != "repaired"
        ]
        tally.state = entry.state
        tally.got = entry.repaired_rows - before.repaired_rows
        tally.reason = entry.detail if entry.state == "unrecoverable" else next((part.detail for part in parts), "")
        if tally.asked is not None:
            missing = [entry] if entry.state in ("open", "unrecoverable") else parts
            tally.missing = 0 if entry.state == "repaired" else sum(one.expected_rows or 0 for one in missing)
        return tally


def plan_of(ledger: GapLedger, symbols: Sequence[str]) -> list[Tally]:
    """Return what a repair on demand would ask for, of some symbols or (empty) of all."""
    return [_tally(entry) for entry in _rows_to_repair(ledger, symbols, again=True)]


def _rows_to_repair(ledger: GapLedger, symbols: Sequence[str], *, again: bool) -> list[Entry]:
    """Return the rows of the ledger to work on, the oldest gaps first."""
    found = [
        entry
        for entry in ledger.entries()
        if repairable(entry, again=again) and (not symbols or entry.symbol in symbols)
    ]
    return sorted(found, key=_age)


def _tally(entry: Entry) -> Tally:
    numbered = is_numbered(entry)
    asked = (entry.to_id or 0) - (entry.from_id or 0) + 1 if numbered else None
    return Tally(
        gap_id=entry.gap_id,
        symbol=entry.symbol,
        cause=entry.cause,
        from_us=entry.from_us,
        to_us=entry.to_us,
        asked=asked,
        missing=asked,
        state=entry.state,
        reason=entry.detail,
    )


def _by_symbol(entries: Iterable[Entry]) -> dict[str, list[Entry]]:
    found: dict[str, list[Entry]] = {}
    for entry in entries:
        found.setdefault(entry.symbol, []).append(entry)
    return found


def _age(entry: Entry) -> tuple[int, str]:
    return entry.from_us or entry.to_us or entry.detected_us, entry.gap_id


def _hint_us(entry: Entry) -> int:
    """Return a time at which a gap may begin, for exchanges that are asked by time."""
    if entry.from_us is not None:
        return entry.from_us
    return (entry.to_us or entry.detected_us) - 10 * _MINUTE_US


def _minute(at_us: int) -> int:
    return at_us - at_us % _MINUTE_US


def _kline(symbol: str, candle: HistoryCandle, received_us: int) -> Kline:
    return Kline(
        symbol=symbol,
        interval="1m",
        start_us=candle.start_us,
        open=candle.open,
        high=candle.high,
        low=candle.low,
        close=candle.close,
        volume=candle.volume or "0",
        quote_volume=candle.quote_volume,
        trades_count=candle.trades_count,
        taker_buy_volume=candle.taker_buy_volume,
        closed=True,
        timestamp_us=candle.start_us + _MINUTE_US,
        received_us=received_us,
    )
