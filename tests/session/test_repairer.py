"""Asking an exchange for what is missing: through the buffer, once each, and the ledger says what became of it."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import msgspec
import pytest

from collector.clock import ManualClock
from collector.config import Repair as Settings
from collector.errors import CollectorError, ConnectionLost, ExchangeRefused
from collector.events import Gap, Trade
from collector.exchanges.base import Listing, Request
from collector.exchanges.binance import Binance
from collector.feeds.continuity import TradeContinuity
from collector.session.buffer import SessionBuffer
from collector.session.gaps import GapLedger
from collector.session.repair import NO_NUMBERS, Found, Ids, Tally
from collector.session.repairer import Repairer, plan_of

SYMBOL = "BTC_USDT"
NOW_US = 1_700_000_000_000_000


class MemorySession:
    """A session in memory: a flush takes what is in the buffer, as the flusher does."""

    def __init__(self) -> None:
        self.ledger = GapLedger()
        self.buffer = SessionBuffer(1000)
        self.rows: list[Trade] = []
        self.open = True

    async def flush(self) -> bool:
        batch = self.buffer.swap()
        self.rows += batch.trades
        self.buffer.mark_written(batch.rows)
        for gap in batch.gaps:
            self.ledger.record(gap, NOW_US)
        for repair in batch.repairs:
            self.ledger.repair(repair)
        return self.open

    def takes_rows(self) -> bool:
        return self.open

    def ids(self) -> list[int | str]:
        return sorted(trade.trade_id for trade in self.rows)


class MemoryExchange:
    """An exchange's REST in memory: it has some ids, in pages, and may refuse."""

    def __init__(self, ids: Sequence[int], *, page: int = 4) -> None:
        self.ids = ids
        self.page = page
        self.asked: list[int] = []
        self.failures: list[CollectorError | bytes] = []
        self.before_answer: Callable[[], Awaitable[None]] | None = None
        self.room: list[tuple[int, float]] = []

    async def get(self, request: Request) -> bytes:
        self.asked.append(int(request.params["fromId"]))
        if self.failures:
            failure = self.failures.pop(0)
            if isinstance(failure, bytes):
                return failure
            raise failure
        if self.before_answer is not None:
            await self.before_answer()
        found = [number for number in self.ids if number >= self.asked[-1]][: self.page]
        return msgspec.json.encode(
            [{"a": n, "p": "1.5", "q": "2.0", "f": n, "l": n, "T": n, "m": True, "M": True} for n in found]
        )

    async def leave_room(self, weight: int, share: float) -> None:
        self.room.append((weight, share))


class Bench:
    """A repairer and everything around it."""

    def __init__(self, log: Any, exchange: MemoryExchange, **options: Any) -> None:
        self.session = MemorySession()
        self.exchange = exchange
        self.clock = ManualClock(NOW_US)
        self.continuity = TradeContinuity(SYMBOL, contiguous=True, last_id=9)
        self.continuity.accept(Trade(SYMBOL, NOW_US, "1", "1", "buy", 20, 0))
        for gap in self.continuity.close():
            self.session.ledger.record(gap, NOW_US)
        self.repairer = Repairer(
            self.session,
            Binance([Listing(SYMBOL, "BTCUSDT", "BTC", "USDT")]),
            exchange,
            allowance=exchange,
            feed=self,
            look_up=self.look_up,
            settings=Settings(interval_s=0.01),
            clock=self.clock,
            log=log,
            random=lambda: 0.5,
            **options,
        )

    def holes_in(self, _: str, first: int, last: int) -> list[tuple[int, int]]:
        return self.continuity.holes_in(first, last)

    def take_fetched(self, trade: Trade) -> bool:
        return self.continuity.take_fetched(trade)

    def look_up(self, _: str, ids: Ids, span: tuple[int, int] | None) -> Found:
        here = [(int(t.trade_id), int(t.trade_id)) for t in self.session.rows]
        return Found(repaired=[pair for pair in here if any(a <= pair[0] <= b for a, b in ids)])

    def states(self) -> list[tuple[str, int | None, int | None]]:
        return [(entry.state, entry.from_id, entry.to_id) for entry in self.session.ledger.entries()]

    def repair(self, **options: Any) -> list[Tally]:
        return asyncio.run(self.repairer.repair(**options))


@pytest.fixture
def make_bench(log: Any) -> Callable[..., Bench]:
    return lambda ids=range(100), **options: Bench(log, MemoryExchange(ids), **options)


def test_what_is_missing_is_fetched_page_by_page(make_bench: Callable[..., Bench]) -> None:
    """From the first missing id on, within a share of the budget; each row of the ledger is told of."""
    bench = make_bench()
    told: list[Tally] = []
    (tally,) = bench.repair(tell=told.append)
    assert bench.session.ids() == list(range(10, 20))
    assert {trade.source for trade in bench.session.rows} == {"rest"}
    assert bench.exchange.asked == [10, 14, 18]
    assert bench.exchange.room == [(4, 0.5)] * 3
    assert bench.states() == [("repaired", 10, 19)]
    assert (tally.asked, tally.got, tally.missing, tally.state) == (10, 10, 0, "repaired")
    assert told == [tally]
    assert bench.repair() == []


def test_a_trade_that_comes_by_itself_meanwhile_is_recorded_once(make_bench: Callable[..., Bench]) -> None:
    """The feed took it out of the hole, so the fetched one is passed over, and the ledger is right all the same."""
    bench = make_bench()

    async def arrive() -> None:
        late = Trade(SYMBOL, 12_000, "1.5", "2.0", "buy", 12, 0)
        if bench.continuity.accept(late):
            bench.session.buffer.add_trade(late)
            for gap in bench.continuity.due(1e9):
                bench.session.buffer.add_gap(gap)

    bench.exchange.before_answer = arrive
    bench.repair()
    assert bench.session.ids() == list(range(10, 20))
    assert [trade.source for trade in bench.session.rows if trade.trade_id == 12] == ["ws"]
    assert {state for state, _, _ in bench.states()} == {"repaired"}
    assert not bench.continuity.accept(Trade(SYMBOL, 13_000, "1", "1", "buy", 13, 0))


def test_what_the_log_has_already_is_not_asked_for(make_bench: Callable[..., Bench]) -> None:
    """A repair that was cut off after its rows were written, and before the ledger said so, is gone on with."""
    bench = make_bench()
    bench.session.rows = [Trade(SYMBOL, n, "1", "1", "buy", n, 0, "rest") for n in range(10, 17)]
    bench.repair()
    assert bench.exchange.asked == [17]
    assert bench.session.ids() == list(range(10, 20))
    assert bench.states() == [("repaired", 10, 19)]


def test_what_the_exchange_does_not_have_is_given_up_exactly(make_bench: Callable[..., Bench]) -> None:
    """The rest is recorded; the missing id is a row of its own."""
    bench = make_bench([number for number in range(100) if number != 15])
    (tally,) = bench.repair()
    assert bench.states() == [("partial", 10, 19), ("unrecoverable", 15, 15)]
    assert (tally.got, tally.missing, tally.state) == (9, 1, "partial")


def test_raw_trades_that_want_a_key_are_unrecoverable(make_bench: Callable[..., Bench]) -> None:
    """Nothing is asked, and the ledger says why."""
    bench = make_bench(raw_trades=True)
    (tally,) = bench.repair()
    assert (bench.exchange.asked, bench.states()) == ([], [("unrecoverable", 10, 19)])
    assert (tally.missing, tally.reason) == (10, NO_NUMBERS)


def test_an_exchange_that_refuses_for_good_is_believed(make_bench: Callable[..., Bench]) -> None:
    """With its own words in the ledger; on demand it is asked once more."""
    bench = make_bench()
    bench.exchange.failures = [ExchangeRefused("no such page", status=404)]
    (tally,) = bench.repair()
    assert bench.states() == [("unrecoverable", 10, 19)]
    assert "no such page" in tally.reason
    (tally,) = bench.repair()
    assert (tally.state, bench.session.ids()) == ("repaired", list(range(10, 20)))


@pytest.mark.parametrize("failure", [ConnectionLost("gone"), ExchangeRefused("enough", status=429, retry_after_s=9)])
def test_an_exchange_that_cannot_be_asked_now_leaves_the_gap_open(
    make_bench: Callable[..., Bench], failure: CollectorError
) -> None:
    """What was found until then is recorded; a person is told that it was in vain."""
    bench = make_bench()
    bench.exchange.failures = [failure]
    with pytest.raises(CollectorError, match="could not be asked for"):
        bench.repair()
    assert bench.states() == [("open", 10, 19)]
    assert [tally.gap_id for tally in plan_of(bench.session.ledger, [])] == ["g000001"]


def test_by_itself_it_waits_as_long_as_it_is_told_to(make_bench: Callable[..., Bench]) -> None:
    """And then repairs what has become missing, until it is cancelled."""
    bench = make_bench()
    bench.exchange.failures = [ExchangeRefused("enough", status=429, retry_after_s=30)]

    async def watch() -> None:
        running = asyncio.ensure_future(bench.repairer.run())
        while not bench.exchange.asked:
            await asyncio.sleep(0.01)
        bench.clock.advance(29)
        for _ in range(20):
            await asyncio.sleep(0.01)
        assert len(bench.exchange.asked) == 1
        bench.clock.advance(5)
        while bench.states() != [("repaired", 10, 19)]:
            await asyncio.sleep(0.01)
        running.cancel()
        await asyncio.wait([running])

    asyncio.run(asyncio.wait_for(watch(), 30))


def test_an_answer_that_cannot_be_read_is_asked_for_again(make_bench: Callable[..., Bench]) -> None:
    """It may have been cut off."""
    bench = make_bench()
    bench.exchange.failures = [b"[{", b"<html>"]
    bench.repair()
    assert bench.states() == [("repaired", 10, 19)]


def test_a_session_that_is_ending_takes_nothing_more(make_bench: Callable[..., Bench]) -> None:
    """What would no longer be written is not put into the buffer, and stays missing."""
    bench = make_bench()

    async def end() -> None:
        bench.session.open = False

    bench.exchange.before_answer = end
    bench.repair()
    assert (bench.session.rows, bench.states()) == ([], [("open", 10, 19)])


def test_gaps_of_other_symbols_and_old_ones_are_left_alone(make_bench: Callable[..., Bench]) -> None:
    """On demand the symbol is chosen; by itself a gap is repaired within a week."""
    bench = make_bench()
    assert bench.repair(symbols=["ETH_USDT"]) == []
    bench.session.ledger.record(Gap(SYMBOL, "orderbook", "disconnect", 1, 2, 10, 19, 10), NOW_US)
    assert len(plan_of(bench.session.ledger, [SYMBOL])) == 1

    async def look() -> None:
        running = asyncio.ensure_future(bench.repairer.run())
        await asyncio.sleep(0.1)
        running.cancel()
        await asyncio.wait([running])

    bench.clock.advance(8 * 86_400)
    asyncio.run(look())
    assert bench.exchange.asked == []
