"""The buffer conserves counts, and names what it drops."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from collector.events import BookTop, Gap, Kline, Liquidation, Ticker, Trade
from collector.session.buffer import SessionBuffer

SYMBOLS = ("BTC_USDT", "ETH_USDT")
LIMIT = 7


def trade(symbol: str, trade_id: int | str, at_us: int = 1) -> Trade:
    return Trade(symbol, at_us, "1", "1", "buy", trade_id, 1)


def top(symbol: str, update_id: int) -> BookTop:
    return BookTop(symbol, update_id, [], [], update_id, 1)


def kline(closed: bool) -> Kline:
    return Kline("BTC_USDT", "1m", 0, "1", "1", "1", "1", "1", "1", 1, "1", closed, 1, 1)


def test_what_goes_in_comes_out_in_order() -> None:
    """Once, and it stays pending until someone says what became of it."""
    buffer = SessionBuffer(10)
    trades = [trade("BTC_USDT", n) for n in range(3)]
    for event in trades:
        buffer.add_trade(event)
    buffer.add_book(top("BTC_USDT", 5))
    batch = buffer.swap()
    assert (batch.trades, [t.update_id for t in batch.books], batch.rows) == (trades, [5], 4)
    assert (buffer.pending, buffer.swap().rows) == (4, 0)
    buffer.mark_written(3)
    buffer.mark_failed(1)
    assert (buffer.received, buffer.written, buffer.pending, buffer.dropped) == (4, 3, 0, 1)


def test_a_buffer_is_crowded_long_before_it_is_full() -> None:
    """From an eighth of its bound on, until what was taken is durable."""
    buffer = SessionBuffer(16)
    for number in range(2):
        buffer.add_trade(trade("BTC_USDT", number))
    assert not buffer.is_crowded()
    buffer.add_trade(trade("BTC_USDT", 2))
    buffer.swap()
    assert buffer.is_crowded()
    buffer.mark_written(1)
    assert not buffer.is_crowded()


def test_a_full_buffer_drops_the_newest_and_names_them() -> None:
    """One gap for each run of a symbol and stream, with the exact ids, once there is room again."""
    buffer = SessionBuffer(2)
    for number in range(5):
        buffer.add_trade(trade("BTC_USDT", 100 + number, at_us=number))
    buffer.add_trade(trade("ETH_USDT", 7, at_us=9))
    buffer.add_book(top("BTC_USDT", 50))
    assert buffer.full
    batch = buffer.swap()
    assert ([t.trade_id for t in batch.trades], batch.gaps) == ([100, 101], [])
    buffer.add_trade(trade("BTC_USDT", 105, at_us=5))
    buffer.mark_written(2)
    assert buffer.swap().gaps == [
        Gap("BTC_USDT", "prices", "overflow", 2, 5, 102, 105, 4, detail="the buffer was full"),
        Gap("ETH_USDT", "prices", "overflow", 9, 9, 7, 7, 1, detail="the buffer was full"),
        Gap("BTC_USDT", "orderbook", "overflow", 50, 50, 50, 50, 1, detail="the buffer was full"),
    ]
    buffer.add_trade(trade("BTC_USDT", 106))
    assert [t.trade_id for t in buffer.swap().trades] == [106]


def test_trades_without_numbers_are_named_by_their_times() -> None:
    """Their ids bound nothing."""
    buffer = SessionBuffer(1)
    for number, name in enumerate("abc"):
        buffer.add_trade(trade("BTC_USDT", name, at_us=number))
    buffer.end_runs()
    (gap,) = buffer.swap().gaps
    assert (gap.from_us, gap.to_us, gap.from_id, gap.to_id, gap.expected_rows) == (1, 2, None, None, 2)


def test_gaps_pass_through() -> None:
    """Also where the buffer is full."""
    buffer = SessionBuffer(1)
    buffer.add_trade(trade("BTC_USDT", 1))
    gap = Gap("BTC_USDT", "prices", "stall", 1, 2)
    buffer.add_gap(gap)
    assert buffer.swap().gaps == [gap]


def test_only_final_candles_of_the_exchange_are_kept() -> None:
    """And not more than can be compared."""
    buffer = SessionBuffer(1)
    buffer.add_kline(kline(closed=False))
    for _ in range(20_001):
        buffer.add_kline(kline(closed=True))
    assert len(buffer.swap().klines) == 20_000
    assert buffer.klines_dropped == 1


def test_the_newest_exchange_time_is_in_the_batch() -> None:
    """Whatever order the times came in, and once."""
    buffer = SessionBuffer(1)
    for at_us in (5, 9, 7):
        buffer.observe("BTC_USDT", at_us)
    assert buffer.swap().observed == {"BTC_USDT": 9}
    assert buffer.swap().observed == {}


def test_candles_are_rows_where_they_are_recorded() -> None:
    """Final ones, or each state of them; and they are compared, whether or not they are rows."""
    for recorded, rows in (("none", 0), ("closed", 1), ("all", 2)):
        buffer = SessionBuffer(10, klines=recorded)  # type: ignore[arg-type]
        buffer.add_kline(kline(closed=False))
        buffer.add_kline(kline(closed=True))
        batch = buffer.swap()
        assert (len(batch.others.get("klines", ())), batch.rows, buffer.received) == (rows, rows, rows)
        assert len(batch.klines) == 1


def test_dropped_rows_of_other_data_types_are_named() -> None:
    """Per symbol and stream, with the numbers of the updates where there are any."""
    buffer = SessionBuffer(1)
    for number in range(4):
        buffer.add_event("tickers", Ticker("BTC_USDT", 5 + number, "1", "1", "2", "1", 70 + number, 9))
        buffer.add_event("liquidations", Liquidation("BTC_USDT", 5 + number, "1", "1", "buy", 9))
    buffer.end_runs()
    found = {
        gap.stream: (gap.cause, gap.from_us, gap.to_us, gap.from_id, gap.to_id, gap.expected_rows)
        for gap in buffer.swap().gaps
    }
    assert found == {
        "tickers": ("overflow", 6, 8, 71, 73, 3),
        "liquidations": ("overflow", 5, 8, None, None, 4),
    }


class Buffered(RuleBasedStateMachine):
    """Any interleaving of adding, swapping, writing and giving up."""

    def __init__(self) -> None:
        super().__init__()
        self.buffer = SessionBuffer(LIMIT)
        self.in_flight = 0
        self.next_id = dict.fromkeys(SYMBOLS, 0)
        self.added = 0
        self.others = 0
        self.taken: dict[str, list[int]] = {symbol: [] for symbol in SYMBOLS}
        self.gaps: list[Gap] = []

    @rule(symbol=st.sampled_from(SYMBOLS), count=st.integers(1, 10))
    def add(self, symbol: str, count: int) -> None:
        for _ in range(count):
            self.buffer.add_trade(trade(symbol, self.next_id[symbol]))
            self.next_id[symbol] += 1
            self.added += 1

    @rule(symbol=st.sampled_from(SYMBOLS), count=st.integers(1, 10))
    def add_others(self, symbol: str, count: int) -> None:
        for _ in range(count):
            self.buffer.add_event("liquidations", Liquidation(symbol, 5, "1", "1", "buy", 9))
            self.added += 1
            self.others += 1

    @rule()
    def swap(self) -> None:
        batch = self.buffer.swap()
        self.in_flight += batch.rows
        self.gaps += [gap for gap in batch.gaps if gap.stream == "prices"]
        self.others -= sum(map(len, batch.others.values()))
        self.others -= sum(gap.expected_rows or 0 for gap in batch.gaps if gap.stream != "prices")
        for event in batch.trades:
            self.taken[event.symbol].append(int(event.trade_id))

    @rule(data=st.data())
    def write(self, data: st.DataObject) -> None:
        rows = data.draw(st.integers(0, self.in_flight))
        self.in_flight -= rows
        self.buffer.mark_written(rows)

    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        rows = data.draw(st.integers(0, self.in_flight))
        self.in_flight -= rows
        self.buffer.mark_failed(rows)

    @invariant()
    def conserves_rows(self) -> None:
        buffer = self.buffer
        assert buffer.received == self.added == buffer.written + buffer.pending + buffer.dropped
        assert 0 <= buffer.pending <= LIMIT

    def teardown(self) -> None:
        """What was taken and what the gaps name are together everything, each once."""
        self.buffer.end_runs()
        self.swap()
        assert self.others == 0
        for symbol in SYMBOLS:
            named = [i for gap in self.gaps if gap.symbol == symbol for i in range(gap.from_id, gap.to_id + 1)]  # type: ignore[arg-type, operator]
            assert sorted(named + self.taken[symbol]) == list(range(self.next_id[symbol]))
            assert all(
                gap.expected_rows == gap.to_id - gap.from_id + 1  # type: ignore[operator]
                for gap in self.gaps
            )


TestBuffered = Buffered.TestCase
TestBuffered.settings = settings(deadline=None)
