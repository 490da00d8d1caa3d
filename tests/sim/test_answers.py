"""The simulated exchange's REST side, without a network."""

from __future__ import annotations

import asyncio
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from collector.sim import dialect
from collector.sim.answers import Answers, Reply, Weights
from collector.sim.faults import Fault
from collector.sim.market import GENESIS_US, INTERVALS_US, MINUTE_US, Instrument, Market

NOW_US = GENESIS_US + 500 * 86_400_000_000 + 34_567_890


@pytest.fixture
def market() -> Market:
    return Market(["BTC_USDT", "ETH_USDT"], rate=4)


@pytest.fixture
def instrument(market: Market) -> Instrument:
    return market.by_native["BTCUSDT"]


def reply(market: Market, path: str, fault: Fault | None = None, **params: object) -> Reply:
    texts = {name: str(value) for name, value in params.items()}
    return asyncio.run(Answers(market).answer(f"/api/v3/{path}", texts, NOW_US, fault))


def ask(market: Market, path: str, **params: object) -> Any:
    answer = reply(market, path, **params)
    assert answer.status == 200, answer.body
    return msgspec.json.decode(answer.body)


def refusal(market: Market, path: str, **params: object) -> tuple[int, int]:
    answer = reply(market, path, **params)
    return answer.status, msgspec.json.decode(answer.body)["code"]


def test_small_questions(market: Market) -> None:
    """Ping, time and the list of instruments are answered."""
    assert ask(market, "ping") == {}
    assert ask(market, "time") == {"serverTime": NOW_US // 1000}
    assert [listed["symbol"] for listed in ask(market, "exchangeInfo")["symbols"]] == ["BTCUSDT", "ETHUSDT"]


def test_depth_is_the_book(market: Market, instrument: Instrument) -> None:
    """The book is that of the last full 100 ms, as deep as asked for."""
    book = instrument.book(instrument.bucket_at(NOW_US) - 1)
    answer = ask(market, "depth", symbol="BTCUSDT", limit=7)
    assert answer["lastUpdateId"] == book.last_id
    assert len(answer["bids"]) == len(answer["asks"]) == 7
    assert answer["bids"][0] == [instrument.price_text(book.bids[0][0]), instrument.lot_text(book.bids[0][1])]


def test_a_stale_book_is_an_old_one(market: Market, instrument: Instrument) -> None:
    """A stale book is one of as many buckets ago as the fault says."""
    answer = msgspec.json.decode(reply(market, "depth", Fault(kind="stale", n=30), symbol="BTCUSDT").body)
    assert answer["lastUpdateId"] == instrument.last_update_id(instrument.bucket_at(NOW_US) - 31)


def test_trades_by_id(market: Market, instrument: Instrument) -> None:
    """Trades from an id on are given, as many as asked for, never more than a thousand, none of the future."""
    end = instrument.next_trade(NOW_US)
    rows = ask(market, "aggTrades", symbol="BTCUSDT", fromId=end - 3000, limit=5000)
    assert [row["a"] for row in rows] == list(range(end - 3000, end - 2000))
    assert rows == [dialect.trade_row(instrument, trade) for trade in instrument.trades(end - 3000, end - 2000)]
    assert [row["a"] for row in ask(market, "aggTrades", symbol="BTCUSDT", fromId=end - 2)] == [end - 2, end - 1]
    assert ask(market, "aggTrades", symbol="BTCUSDT", fromId=end + 5) == []


def test_trades_by_time(market: Market, instrument: Instrument) -> None:
    """Trades of a span of time are those with a time in it, both ends included."""
    first = instrument.next_trade(NOW_US - 60_000_000)
    trades = instrument.trades(first, first + 10)
    start, end = trades[2].time_us // 1000, trades[7].time_us // 1000
    rows = ask(market, "aggTrades", symbol="BTCUSDT", startTime=start, endTime=end)
    assert [row["a"] for row in rows] == [trade.id for trade in trades if start <= trade.time_us // 1000 <= end]


def test_the_latest_trades(market: Market, instrument: Instrument) -> None:
    """Without an id or a time, the latest are given."""
    end = instrument.next_trade(NOW_US)
    rows = ask(market, "aggTrades", symbol="BTCUSDT", limit=3)
    assert [row["a"] for row in rows] == [end - 3, end - 2, end - 1]


def test_candles_by_time(market: Market, instrument: Instrument) -> None:
    """Candles whose start is in a span are given, and are true of their trades."""
    start = NOW_US // MINUTE_US * MINUTE_US - 5 * MINUTE_US
    rows = ask(market, "klines", symbol="BTCUSDT", interval="1m", startTime=start // 1000 - 1, limit=3)
    assert [row[0] * 1000 for row in rows] == [start, start + MINUTE_US, start + 2 * MINUTE_US]
    fold = instrument.minute(start)
    assert fold is not None
    assert rows[0] == dialect.kline_row(instrument, (start, start + MINUTE_US), fold)


def test_the_latest_candles(market: Market) -> None:
    """Without a time, the latest are given; the last of them is under way."""
    length = INTERVALS_US["5m"]
    rows = ask(market, "klines", symbol="BTCUSDT", interval="5m", limit=2)
    last = NOW_US // length * length
    assert [row[0] * 1000 for row in rows] == [last - length, last]


def test_candles_of_before_the_market_do_not_exist(market: Market) -> None:
    """A span from 1970 on begins when the market did."""
    rows = ask(market, "klines", symbol="BTCUSDT", interval="1d", startTime=0, limit=1)
    assert rows[0][0] * 1000 == GENESIS_US


@pytest.mark.parametrize(
    ("path", "params", "expected"),
    [
        ("depth", {}, (400, -1102)),
        ("depth", {"symbol": "NOUSDT"}, (400, -1121)),
        ("depth", {"symbol": "BTCUSDT", "limit": "x"}, (400, -1100)),
        ("depth", {"symbol": "BTCUSDT", "limit": "²"}, (400, -1100)),
        ("aggTrades", {"symbol": "BTCUSDT", "fromId": "-1"}, (400, -1100)),
        ("aggTrades", {"symbol": "BTCUSDT", "startTime": 5, "endTime": 4}, (400, -1127)),
        ("klines", {"symbol": "BTCUSDT", "interval": "7m"}, (400, -1120)),
        ("nothing", {}, (404, -1)),
    ],
)
def test_wrong_questions_get_the_exchanges_codes(
    market: Market, path: str, params: dict[str, object], expected: tuple[int, int]
) -> None:
    """A wrong request is answered with the real exchange's status and code."""
    assert refusal(market, path, **params) == expected


@pytest.mark.parametrize(
    ("path", "params", "weight"),
    [
        ("depth", {}, 5),
        ("depth", {"limit": "500"}, 25),
        ("depth", {"limit": "1000"}, 50),
        ("depth", {"limit": "5000"}, 250),
        ("depth", {"limit": "9999"}, 250),
        ("depth", {"limit": "²"}, 5),
        ("klines", {}, 2),
        ("aggTrades", {}, 4),
        ("exchangeInfo", {}, 20),
        ("ping", {}, 1),
    ],
)
def test_requests_weigh_what_the_exchange_says(path: str, params: dict[str, str], weight: int) -> None:
    """Each request has the real exchange's weight."""
    assert Answers.weight(f"/api/v3/{path}", params) == weight


def test_weights_are_of_a_minute() -> None:
    """Beyond the limit requests are refused until the minute is over, and then are not."""
    weights = Weights(10)
    assert weights.charge(10, 60.0) is None
    refused = weights.charge(1, 61.5)
    assert refused is not None
    assert (refused.status, refused.retry_after_s) == (429, 59)
    assert weights.charge(1, 120.0) is None
    assert (weights.used, weights.refused) == (1, 1)


def test_who_goes_on_asking_is_banned() -> None:
    """Requests that go on during a refusal lead to a ban, which outlasts the minute."""
    weights = Weights(1, ban_s=300)
    assert weights.charge(1, 60.0) is None
    statuses = []
    for _ in range(12):
        refused = weights.charge(1, 61.0)
        assert refused is not None
        statuses.append(refused.status)
    assert statuses == [429] * 10 + [418] * 2
    banned = weights.charge(1, 121.0)
    assert banned is not None
    assert (banned.status, banned.retry_after_s) == (418, 240)
    assert weights.charge(1, 361.0) is None


def test_someone_can_be_sent_away() -> None:
    """A refusal on purpose lasts its time."""
    weights = Weights()
    weights.send_away(418, 70.0)
    refused = weights.charge(1, 65.0)
    assert refused is not None
    assert (refused.status, refused.retry_after_s) == (418, 5)
    assert weights.charge(1, 70.0) is None


def test_what_was_traded_in_a_day(market: Market, instrument: Instrument) -> None:
    """Each instrument has the last whole minute's volume, 1440 times."""
    rows = {row["symbol"]: row for row in ask(market, "ticker/24hr")}
    assert list(rows) == ["BTCUSDT", "ETHUSDT"]
    fold = instrument.minute(NOW_US // MINUTE_US * MINUTE_US - MINUTE_US)
    assert fold is not None
    assert Decimal(rows["BTCUSDT"]["quoteVolume"]) == 1440 * Decimal(instrument.quote_text(fold.quote))
    assert Decimal(rows["BTCUSDT"]["volume"]) == 1440 * Decimal(instrument.lot_text(fold.lots))
    assert rows["BTCUSDT"]["count"] == 1440 * fold.trades_count
