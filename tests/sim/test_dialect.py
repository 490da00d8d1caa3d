"""The simulated exchange's words: the parser of the real exchange's messages reads them as what happened."""

from __future__ import annotations

from decimal import Decimal

import pytest

from collector.events import Funding, Kline, Liquidation, OpenInterest, Ticker, Trade
from collector.exchanges.base import Subscription
from collector.exchanges.binance_futures import BinanceFutures
from collector.exchanges.sim import Sim
from collector.sim import dialect
from collector.sim.market import GENESIS_US, MINUTE_US, SECOND_US, Instrument, Market, first_raw_id

NOW_US = GENESIS_US + 500 * 86_400_000_000 + 34_567_890


@pytest.fixture
def instrument() -> Instrument:
    return Market(["BTC_USDT"], rate=20).by_native["BTCUSDT"]


@pytest.fixture
def exchange() -> Sim:
    return Sim(Sim().parse_listing(dialect.exchange_info(["BTC_USDT"], NOW_US)))


def test_aggregated_trades_are_read(instrument: Instrument, exchange: Sim) -> None:
    """Each aggregated trade is read with its id, time, digits, taker's side and raw ids."""
    first = instrument.next_trade(NOW_US)
    prints = instrument.trades(first, first + 20)
    for trade, text in zip(prints, dialect.aggregated_trades(instrument, prints), strict=True):
        assert list(exchange.parse(text, 5)) == [
            Trade(
                "BTC_USDT",
                trade.time_us // 1000 * 1000,
                instrument.price_text(trade.ticks),
                instrument.lot_text(trade.lots),
                "sell" if trade.maker else "buy",
                trade.id,
                5,
                "ws",
                first_raw_id(trade.id),
                first_raw_id(trade.id + 1) - 1,
            )
        ]


def test_raw_trades_are_read(instrument: Instrument, exchange: Sim) -> None:
    """Raw trades go on without a hole, over aggregated ones."""
    first = instrument.next_trade(NOW_US)
    texts = dialect.raw_trades(instrument, instrument.trades(first, first + 20))
    trades = [event for text in texts for event in exchange.parse(text, 5)]
    assert [trade.trade_id for trade in trades if isinstance(trade, Trade)] == list(
        range(first_raw_id(first), first_raw_id(first + 20))
    )


def test_the_book_is_read(instrument: Instrument, exchange: Sim) -> None:
    """A snapshot with a diff applied by the exchange's own rule is the next book."""
    bucket = instrument.bucket_at(NOW_US)
    body = dialect.depth_answer(instrument, instrument.book(bucket), 5000)
    snapshot = exchange.parse_snapshot("BTC_USDT", body, 5)
    (delta,) = exchange.parse(dialect.depth_update(instrument, instrument.diff(bucket, bucket + 1), NOW_US).encode(), 6)
    rule = exchange.book_rule()
    rule.apply_snapshot(snapshot)
    assert rule.judge(delta) == "apply"  # type: ignore[arg-type]
    assert rule.last_id == instrument.book(bucket + 1).last_id
    assert delta.timestamp_us == NOW_US // 1000 * 1000  # type: ignore[union-attr]


@pytest.mark.parametrize(("seconds", "closed"), [(30, False), (60, True)])
def test_candles_are_read(instrument: Instrument, exchange: Sim, seconds: int, closed: bool) -> None:
    """A candle is read with its digits, and is closed once its time is over."""
    start = NOW_US // MINUTE_US * MINUTE_US
    now = start + seconds * 1_000_000
    fold = instrument.candle(start, MINUTE_US, now)
    assert fold is not None
    (candle,) = exchange.parse(dialect.kline(instrument, "1m", (start, start + MINUTE_US), fold, now), 5)
    assert isinstance(candle, Kline)
    assert (candle.start_us, candle.closed, candle.trades_count) == (start, closed, fold.trades_count)
    assert candle.open == instrument.price_text(fold.open)
    assert candle.quote_volume == instrument.quote_text(fold.quote)


def test_the_best_prices_are_read(instrument: Instrument, exchange: Sim) -> None:
    """They have the number of their update, and no time."""
    book = instrument.book(instrument.bucket_at(NOW_US))
    text = dialect.book_ticker(instrument, book)
    (ticker,) = exchange.parse(text, 5)
    assert isinstance(ticker, Ticker)
    assert (ticker.update_id, ticker.timestamp_us, ticker.timed) == (book.last_id, 5, False)
    assert (ticker.bid, ticker.ask_qty) == (
        instrument.price_text(book.bids[0][0]),
        instrument.lot_text(book.asks[0][1]),
    )
    assert exchange.channel_of(text) == "btcusdt@bookTicker"


def test_the_mark_price_is_read(instrument: Instrument, exchange: Sim) -> None:
    """Rates are of both signs, and written without an exponent."""
    rates = set()
    for second in range(20):
        mark = instrument.mark(NOW_US + second * SECOND_US)
        text = dialect.mark_price(instrument, mark, mark.time_us)
        (funding,) = exchange.parse(text, 5)
        assert isinstance(funding, Funding)
        assert funding.timestamp_us == mark.time_us
        assert Decimal(funding.funding_rate or "x") == Decimal(mark.rate) / 10**8
        assert (funding.mark_price, funding.index_price, funding.next_funding_us) == (
            instrument.price_text(mark.mark_ticks),
            instrument.price_text(mark.index_ticks),
            mark.next_us,
        )
        assert exchange.channel_of(text) == "btcusdt@markPrice"
        rates.add(mark.rate < 0)
    assert rates == {True, False}


def test_a_forced_order_is_read(instrument: Instrument, exchange: Sim) -> None:
    """Most buckets have none; some sell and some buy."""
    first = instrument.bucket_at(NOW_US)
    forced = [found for bucket in range(first, first + 1000) if (found := instrument.forced(bucket)) is not None]
    assert 10 < len(forced) < 200
    sides = set()
    for one in forced:
        (liquidation,) = exchange.parse(dialect.forced_order(instrument, one), 5)
        assert isinstance(liquidation, Liquidation)
        assert (liquidation.timestamp_us, liquidation.side) == (one.time_us, "sell" if one.sold else "buy")
        assert liquidation.volume == instrument.lot_text(one.lots)
        sides.add(liquidation.side)
    assert sides == {"buy", "sell"}


def test_open_interest_is_read(instrument: Instrument, exchange: Sim) -> None:
    """It is asked for over REST."""
    (request,) = exchange.poll_requests([Subscription("open_interest", "BTC_USDT")])
    body = dialect.open_interest(instrument, instrument.open_interest(NOW_US), NOW_US)
    (found,) = exchange.parse_poll(request, body, 5)
    assert isinstance(found, OpenInterest)
    assert (found.timestamp_us, found.source) == (NOW_US // 1000 * 1000, "rest")
    assert found.amount == instrument.lot_text(instrument.open_interest(NOW_US))


def test_the_list_of_instruments_is_read() -> None:
    """The list of instruments is read by spot and by futures, with dated contracts."""
    listings = BinanceFutures().parse_listing(dialect.exchange_info(["BTC_USDT", "BTC_USDT-260327"], NOW_US))
    assert [(listing.symbol, listing.native, listing.active) for listing in listings] == [
        ("BTC_USDT", "BTCUSDT", True),
        ("BTC_USDT-260327", "BTCUSDT_260327", True),
    ]


def test_the_announcement_is_read(exchange: Sim) -> None:
    """The announced end of a connection is read as such."""
    (notice,) = exchange.parse(dialect.shutdown_notice(NOW_US), 5)
    assert notice.kind == "shutdown"  # type: ignore[union-attr]
