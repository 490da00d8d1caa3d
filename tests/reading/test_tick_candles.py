"""Candles made of trades are the same from both stores, and true."""

from __future__ import annotations

import math
import random
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from collector.errors import UsageError
from collector.reading.exact_sums import limbs_of, value_of
from collector.reading.times import interval_us
from collector.streams import PRICES

INTERVALS = ["250ms", "7s", "90s", "1m", "7m", "4h", "1d", "1w"]


def true_candles(rows: list[dict[str, Any]], length_us: int) -> dict[int, dict[str, Any]]:
    """Work candles out one trade after the other."""
    buckets: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        at = round(row["timestamp"].timestamp() * 1_000_000)
        buckets.setdefault(at // length_us * length_us, []).append(row)
    found = {}
    for start, trades in buckets.items():
        ordered = sorted(trades, key=lambda row: (row["timestamp"], int(row["trade_id"])))
        found[start] = {
            "open": ordered[0]["price"],
            "high": max(row["price"] for row in trades),
            "low": min(row["price"] for row in trades),
            "close": ordered[-1]["price"],
            "volume": math.fsum(row["volume"] for row in trades),
            "quote_volume": math.fsum(row["quote_volume"] for row in trades),
            "trades_count": sum(row["last_raw_id"] - row["first_raw_id"] + 1 for row in trades),
            "taker_buy_volume": math.fsum(row["volume"] for row in trades if row["side"] == "buy"),
            "first_trade_id": ordered[0]["trade_id"],
            "last_trade_id": ordered[-1]["trade_id"],
        }
    return found


def write_ties(session: Any, symbol: str) -> None:
    """Write trades of which many share a time, in another order than their ids', with long digits."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    lines = []
    for seq in range(1, 1201):
        at = 1_700_006_400_000_000 + seq // 7 * 350_000
        price, volume = f"{chance.uniform(0.5, 70000):.8f}", f"{chance.lognormvariate(0, 4):.9f}"
        quote = f"{float(price) * float(volume):.12f}"
        trade_id = 10_000 + (seq // 7 * 7 + chance.randrange(7)) * 1000 + seq
        raw = chance.randrange(1000)
        lines.append(
            f"{at},{price},{volume},{quote},{chance.choice(('buy', 'sell'))},{trade_id},{seq},{at},ws,"
            f"{raw},{raw + chance.randrange(4)}"
        )
    session.append(PRICES, symbol, lines)


@pytest.mark.parametrize("interval", INTERVALS)
def test_both_stores_make_the_same_candles_and_they_are_true(
    tied: Any, reading: Callable[..., Any], interval: str
) -> None:
    """To the last bit, of trades whose sums no float adds exactly."""
    from_database, from_csv = (reading(tied, source).candles(None, interval) for source in ("questdb", "csv"))
    assert (from_database.source, from_csv.source) == ("questdb", "csv")
    assert from_database.table().equals(from_csv.table())
    for symbol in tied.symbols:
        rows = reading(tied, "csv").prices(symbol).table().to_pylist()
        truth = true_candles(rows, interval_us(interval))
        made = [row for row in from_csv.table().to_pylist() if row["symbol"] == symbol]
        assert [round(row["timestamp"].timestamp() * 1_000_000) for row in made] == sorted(truth)
        for row, start in zip(made, sorted(truth), strict=True):
            assert {name: row[name] for name in truth[start]} == truth[start]


@pytest.fixture
def tied(make_session: Callable[..., Any], deliver: Callable[[Any], None]) -> Any:
    session = make_session(["BTC_USDT", "ETH_USDT"])
    for symbol in session.symbols:
        write_ties(session, symbol)
    deliver(session)
    return session


def test_bounds_cut_candles(tied: Any, reading: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """What is outside of them is not counted, whichever store counts, and in whatever pieces trades come."""
    monkeypatch.setattr("collector.reading.csv_arrow.BLOCK_BYTES", 3000)
    start, end = 1_700_006_410_000_000, 1_700_006_433_500_000
    tables = [reading(tied, source).candles("BTC_USDT", "7s", start, end).table() for source in ("questdb", "csv")]
    assert tables[0].equals(tables[1])
    trades = reading(tied, "csv").prices("BTC_USDT", start, end).table().to_pylist()
    assert sum(tables[0]["trades_count"].to_pylist()) == sum(t["last_raw_id"] - t["first_raw_id"] + 1 for t in trades)


def test_candles_of_trades_agree_with_the_recorded_ones(
    make_session: Callable[..., Any], reading: Callable[..., Any]
) -> None:
    """Prices, counts and ids exactly; sums to the precision of their float64."""
    session = make_session()
    session.write_market("BTC_USDT")
    reader = reading(session, database=False)
    for interval in ("1m", "5m", "1h"):
        made, recorded = reader.candles("BTC_USDT", interval).table(), reader.ohlcv("BTC_USDT", interval).table()
        for name in ("timestamp", "open", "high", "low", "close", "trades_count", "first_trade_id", "last_trade_id"):
            assert made[name].to_pylist() == recorded[name].to_pylist()
        for name in ("volume", "quote_volume", "taker_buy_volume"):
            assert made[name].to_pylist() == pytest.approx(recorded[name].to_pylist(), rel=1e-15)


def test_sums_are_exact() -> None:
    """They are what fractions give, whatever the magnitudes."""
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    values = [chance.lognormvariate(0, 6) for _ in range(5000)] + [2.0**-30, 1e15, 0.1, 0.2, 0.0]
    parts = [int(part.sum()) for part in limbs_of(np.array(values))]
    truth = sum(map(Fraction, values), Fraction(0))
    assert value_of((parts[0], parts[1], parts[2], parts[3])) == float(truth) == math.fsum(values)


@pytest.mark.parametrize("text", ["", "0m", "1", "m", "1y", "-1m", "1.5h"])
def test_what_is_no_interval_is_refused(tied: Any, reading: Callable[..., Any], text: str) -> None:
    """With how to write one."""
    with pytest.raises(UsageError, match="no interval"):
        reading(tied, "csv").candles("BTC_USDT", text)
