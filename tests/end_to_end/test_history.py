"""Past candles through a daemon that is killed: exactly the market's, none twice, each with its source."""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import uvloop

from collector.exchanges.candle_sources.intervals import DAY_US, HOUR_US
from collector.sim.history import HistoryFault, HistoryServer, Options, serve_history
from collector.sim.history_market import decimal_text

NOW_US = int(time.time() * 1e6) // HOUR_US * HOUR_US
SOURCES = ["binance_futures", "binance", "okx", "bybit", "kucoin"]


@contextmanager
def serving(**options: Any) -> Iterator[HistoryServer]:
    """Serve the simulated sources from a thread with a loop of its own."""
    ready, end = threading.Event(), threading.Event()
    found: list[HistoryServer] = []

    async def serve() -> None:
        async with serve_history(Options(**{"limits": False, **options})) as server:
            found.append(server)
            ready.set()
            while not end.is_set():
                await asyncio.sleep(0.02)

    thread = threading.Thread(target=lambda: uvloop.run(serve()), daemon=True)
    thread.start()
    assert ready.wait(20)
    try:
        yield found[0]
    finally:
        end.set()
        thread.join(20)


def configuration(server: HistoryServer, sources: list[str] = SOURCES, **changes: Any) -> str:
    """Return what a daemon's configuration says of the simulated sources: their addresses, and that nobody waits."""
    lines = ["[history]", f"sources = {json.dumps(sources)}", "attempts = 2", "source_pause_s = 300"]
    lines += [f"{key} = {json.dumps(value)}" for key, value in changes.items()]
    for name in sources:
        lines += [f"[history.limits.{name}]", "weight = 1000000", "per_s = 1"]
        lines += [f"[exchange.{name}]", f'rest_url = "{server.rest_url(name)}"']
    return "\n".join(lines) + "\n"


def expected(server: HistoryServer, symbol: str, from_us: int, to_us: int) -> dict[int, tuple[str, ...]]:
    """Return the simulated market's own hours, as digits."""
    found = {}
    for candle in server.market.candles(symbol, HOUR_US, from_us, to_us, NOW_US):
        prices = tuple(decimal_text(value, 100) for value in (candle.open, candle.high, candle.low, candle.close))
        found[candle.start_us] = (*prices, decimal_text(candle.lots, 10_000))
    return found


def test_a_backfill_has_exactly_the_markets_candles_and_says_where_from(daemon: Any, questdb: Any) -> None:
    """One source is down, one has smaller pages than it says, one lacks three days."""
    symbols = ["BTC_USDT", "ETH_USDT"]
    hole = (NOW_US - 40 * DAY_US, NOW_US - 37 * DAY_US)
    faults = [
        HistoryFault("503", source="binance_futures", times=0),
        HistoryFault("hole", source="binance", from_us=hole[0], to_us=hole[1]),
        HistoryFault("lie", source="okx", n=37),
    ]
    begin = NOW_US - 90 * DAY_US
    with serving(symbols=symbols, faults=faults) as server:
        collector = daemon(configuration(server))
        collector.start()
        answer = collector.ask("backfill", from_us=begin, symbols=symbols)
    assert (answer["total_symbols"], answer["successful"], answer["failed"]) == (2, 2, 0)
    assert answer["sources_used"] == {"binance": 2 * 87 * 24, "okx": 2 * 72}
    assert answer["total_records"] == 2 * 90 * 24
    for symbol in symbols:
        rows = collector.rows(answer["session_id"], "market_data", symbol)
        market = expected(server, symbol, begin, NOW_US)
        assert len(rows) == len(market)
        for row in rows:
            digits = [row[name] for name in ("open", "high", "low", "close", "volume")]
            assert list(map(float, digits)) == list(map(float, market[int(row["timestamp"])]))
            assert row["source"] == ("okx" if hole[0] <= int(row["timestamp"]) < hole[1] else "binance")
    ledger = collector.rows(answer["session_id"], "gaps")
    assert {(row["cause"], row["state"]) for row in ledger} == {
        ("source_failed", "repaired"),
        ("missing_at_source", "repaired"),
    }
    report = collector.ask("verify", session=answer["session_id"])
    assert not report["problems"]
    equal = {(part["stream"], part["symbol"]): part["equal_rows"] for part in report["streams"]}
    assert equal["market_data", "BTC_USDT"] == equal["market_data", "ETH_USDT"] == 90 * 24
    with questdb.connect() as connection:
        told = connection.rows(
            "SELECT symbol, total_records, is_complete FROM historical_data_range WHERE symbol = %s", "BTC_USDT"
        )
    assert told == [("BTC_USDT", 90 * 24, True)]
