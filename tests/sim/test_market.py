"""The simulated market: the same for the same seed, true to itself, and exact."""

from __future__ import annotations

import itertools
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.sim.market import (
    BUCKET_US,
    DEPTH,
    GENESIS_US,
    INTERVALS_US,
    MINUTE_US,
    Fold,
    Instrument,
    Market,
    Print,
    aggregated_id,
    decimal_text,
    first_raw_id,
    merge,
    raw_lots,
)

DAY_US = 86_400_000_000
NOW_US = GENESIS_US + 800 * DAY_US + 12_345_678
SYMBOLS = ["BTC_USDT", "ETH_USDT", "XRP_USDT", "FOO_EUR"]

moments = st.integers(GENESIS_US, GENESIS_US + 3_000 * DAY_US)


@pytest.fixture(scope="module")
def market() -> Market:
    return Market(SYMBOLS, seed=7, rate=100)


@pytest.fixture(params=SYMBOLS)
def instrument(market: Market, request: pytest.FixtureRequest) -> Instrument:
    return market.by_native[request.param.replace("_", "")]


def naive_fold(trades: list[Print]) -> Fold | None:
    """Fold trades the plain way."""
    if not trades:
        return None
    prices = [trade.ticks for trade in trades]
    taken = [trade for trade in trades if not trade.maker]
    return Fold(
        prices[0],
        max(prices),
        min(prices),
        prices[-1],
        sum(trade.lots for trade in trades),
        sum(trade.ticks * trade.lots for trade in trades),
        sum(trade.lots for trade in taken),
        sum(trade.ticks * trade.lots for trade in taken),
        trades[0].id,
        trades[-1].id,
    )


def test_the_same_seed_gives_the_same_market() -> None:
    """Two markets of one seed agree on every trade and book; another seed has others."""
    one, same, other = (Market(["BTC_USDT"], seed=seed, rate=10).by_native["BTCUSDT"] for seed in (1, 1, 2))
    first = one.next_trade(NOW_US)
    bucket = one.bucket_at(NOW_US)
    assert one.trades(first, first + 50) == same.trades(first, first + 50) != other.trades(first, first + 50)
    assert one.book(bucket) == same.book(bucket) != other.book(bucket)


def test_symbols_differ(market: Market) -> None:
    """Two symbols of one market do not move alike."""
    books = [instrument.book(instrument.bucket_at(NOW_US)).bids[:5] for instrument in market.by_native.values()]
    assert len({str(book) for book in books}) == len(SYMBOLS)


@given(moments)
def test_trades_do_not_depend_on_how_they_are_asked_for(market: Market, moment: int) -> None:
    """Any slice of the trades is the same trades."""
    instrument = market.by_native["BTCUSDT"]
    first = instrument.next_trade(moment)
    whole = instrument.trades(first, first + 20)
    assert [instrument.trades(n, n + 1)[0] for n in range(first, first + 20)] == whole
    assert [trade.id for trade in whole] == list(range(first, first + 20))


@given(moments, st.fractions(Fraction(1, 100), 100_000))
def test_the_next_trade_is_the_first_one_not_before(moment: int, rate: Fraction) -> None:
    """No trade is between a time and the trade that is next after it, at any rate."""
    instrument = Market(["BTC_USDT"], rate=float(rate)).by_native["BTCUSDT"]
    number = instrument.next_trade(moment)
    assert instrument.time_of(number) >= moment
    assert number == 0 or instrument.time_of(number - 1) < moment


def test_times_never_go_back_and_keep_the_rate(instrument: Instrument) -> None:
    """Trades come in the order of their ids, as many in a second as asked for."""
    first = instrument.next_trade(NOW_US)
    times = [trade.time_us for trade in instrument.trades(first, first + 2_500)]
    assert times == sorted(times)
    assert times == [instrument.time_of(number) for number in range(first, first + 2_500)]
    assert (times[-1] - times[0]) / 1e6 == pytest.approx(100, rel=0.01)


@given(st.integers(0, 10**12))
def test_raw_trades_are_shared_out_without_a_hole(number: int) -> None:
    """Raw ids go on where the last aggregated trade's end, and name it."""
    first, after = first_raw_id(number), first_raw_id(number + 1)
    assert after > first
    assert {aggregated_id(raw) for raw in range(first, after)} == {number}


@given(st.integers(0, 10**9), st.integers(3, 10**6))
def test_raw_sizes_add_up(number: int, lots: int) -> None:
    """An aggregated trade's size is the sum of its raw trades' sizes, none of which is nothing."""
    parts = raw_lots(Print(number, 0, 1, lots, True))
    assert sum(parts) == lots
    assert min(parts) > 0
    assert len(parts) == first_raw_id(number + 1) - first_raw_id(number)


@given(moments)
def test_trades_print_at_the_top_of_the_book(market: Market, moment: int) -> None:
    """A taker buys at the best ask and sells at the best bid of the book at the end of that 100 ms."""
    instrument = market.by_native["ETHUSDT"]
    first = instrument.next_trade(moment)
    for trade in instrument.trades(first, first + 10):
        book = instrument.book(instrument.bucket_at(trade.time_us))
        assert trade.ticks == (book.bids if trade.maker else book.asks)[0][0]


@given(moments)
def test_books_are_whole(market: Market, moment: int) -> None:
    """A book is sorted, not crossed, without empty levels, and deep."""
    instrument = market.by_native["XRPUSDT"]
    book = instrument.book(instrument.bucket_at(moment))
    bids, asks = [price for price, _ in book.bids], [price for price, _ in book.asks]
    assert bids == sorted(bids, reverse=True)
    assert asks == sorted(asks)
    assert 0 < bids[0] < asks[0]
    assert all(lots > 0 for _, lots in [*book.bids, *book.asks])
    assert DEPTH // 2 < len(bids) <= DEPTH


@pytest.mark.parametrize("step", [1, 10])
def test_diffs_lead_from_book_to_book(instrument: Instrument, step: int) -> None:
    """A snapshot with all diffs applied is the book of every later moment; ids go on without a hole."""
    bucket = instrument.bucket_at(NOW_US)
    book = instrument.book(bucket)
    bids, asks, last_id = dict(book.bids), dict(book.asks), book.last_id
    for before in range(bucket, bucket + 60 * step, step):
        diff = instrument.diff(before, before + step)
        assert diff.first_id == last_id + 1
        last_id = diff.last_id
        for side, changes in ((bids, diff.bids), (asks, diff.asks)):
            assert changes
            for price, lots in changes:
                side[price] = lots
                if not lots:
                    del side[price]
        whole = instrument.book(before + step)
        assert (bids, asks, last_id) == (dict(whole.bids), dict(whole.asks), whole.last_id)


def test_the_book_moves(instrument: Instrument) -> None:
    """The top of the book changes in most of the 100 ms."""
    bucket = instrument.bucket_at(NOW_US)
    tops = [instrument.book(number).bids[:3] for number in range(bucket, bucket + 50)]
    assert sum(one != other for one, other in itertools.pairwise(tops)) > 40


def test_minutes_are_true_of_their_trades(instrument: Instrument) -> None:
    """A minute's candle is what its trades make."""
    start = NOW_US // MINUTE_US * MINUTE_US
    trades = instrument.trades(instrument.next_trade(start), instrument.next_trade(start + MINUTE_US))
    assert instrument.minute(start) == naive_fold(trades)
    assert instrument.minute(start) == naive_fold(trades)  # from memory


def test_an_unfinished_minute_is_true_so_far(instrument: Instrument) -> None:
    """A candle that is asked for before its end has the trades until then."""
    start = NOW_US // MINUTE_US * MINUTE_US
    trades = instrument.trades(instrument.next_trade(start), instrument.next_trade(start + 7_000_000))
    assert instrument.minute(start, start + 7_000_000) == naive_fold(trades)


@pytest.mark.parametrize("began", [0, 20_000_000])
def test_live_minutes_are_the_same(began: int) -> None:
    """Trades folded as they happen give the candles that working them out gives, even begun within a minute."""
    live, plain = (Market(["BTC_USDT"], rate=20).by_native["BTCUSDT"] for _ in range(2))
    start = NOW_US // MINUTE_US * MINUTE_US
    moment = start + began
    while moment < start + 3 * MINUTE_US:
        live.fold_live(live.trades(live.next_trade(moment), live.next_trade(moment + 5_000_000)))
        moment += 5_000_000
        current = (moment - 1) // MINUTE_US * MINUTE_US
        for _ in range(2):
            assert live.minute(current, moment) == plain.minute(current, moment)
    for minute in range(2):
        assert live.minute(start + minute * MINUTE_US) == plain.minute(start + minute * MINUTE_US)


def test_a_candle_that_was_given_does_not_change() -> None:
    """A live candle is a copy: what happens afterwards does not reach it."""
    instrument = Market(["BTC_USDT"], rate=20).by_native["BTCUSDT"]
    start = NOW_US // MINUTE_US * MINUTE_US
    half, end = instrument.next_trade(start + MINUTE_US // 2), instrument.next_trade(start + MINUTE_US)
    instrument.fold_live(instrument.trades(instrument.next_trade(start), half))
    given_out = instrument.minute(start, start + MINUTE_US // 2)
    assert given_out is not None
    count = given_out.trades_count
    instrument.fold_live(instrument.trades(half, end))
    assert given_out.trades_count == count


@settings(max_examples=10)
@given(moments, st.sampled_from(["5m", "15m", "1h"]))
def test_longer_candles_are_true_of_their_trades(moment: int, interval: str) -> None:
    """A candle of any interval is what its trades make."""
    instrument = Market(["BTC_USDT"], rate=0.5).by_native["BTCUSDT"]
    length = INTERVALS_US[interval]
    start = moment // length * length
    trades = instrument.trades(instrument.next_trade(start), instrument.next_trade(start + length))
    assert instrument.candle(start, length, start + length) == naive_fold(trades)


def test_a_quiet_minute_has_no_candle() -> None:
    """Where nothing was traded there is no candle."""
    instrument = Market(["BTC_USDT"], rate=0.005).by_native["BTCUSDT"]
    start = NOW_US // MINUTE_US * MINUTE_US
    assert [instrument.minute(start + n * MINUTE_US) for n in range(4)].count(None) >= 2
    assert merge([]) is None


@given(st.integers(0, 10**15), st.integers(0, 8))
def test_numbers_are_exact(count: int, digits: int) -> None:
    """A number's text is its value, with eight decimals."""
    text = decimal_text(count, digits)
    assert Decimal(text) == Decimal(count).scaleb(-digits)
    assert len(text.partition(".")[2]) == 8


def test_quote_volume_is_exact(instrument: Instrument) -> None:
    """A candle's quote volume is the sum of price x size, to the digit."""
    first = instrument.next_trade(NOW_US)
    trades = instrument.trades(first, first + 100)
    total = sum(Decimal(instrument.price_text(t.ticks)) * Decimal(instrument.lot_text(t.lots)) for t in trades)
    assert Decimal(instrument.quote_text(sum(t.ticks * t.lots for t in trades))) == total


def test_buckets_divide_minutes() -> None:
    """A minute ends with a bucket, so that a closed candle comes with the last of them."""
    assert MINUTE_US % BUCKET_US == 0
    assert GENESIS_US % DAY_US == 0
