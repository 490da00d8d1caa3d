"""Past candles through a daemon that is killed: exactly the market's, none twice, each with its source."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import uvloop

from collector.errors import CollectorError
from collector.exchanges.candle_sources.intervals import DAY_US, HOUR_US
from collector.sim.history import HistoryFault, HistoryServer, Options, serve_history
from collector.sim.history_market import decimal_text
from trials.parts import wait_until

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


def ask_in_vain(collector: Any, **arguments: Any) -> threading.Thread:
    """Ask for a backfill from a thread: the daemon may be gone before it answers."""

    def work() -> None:
        with contextlib.suppress(CollectorError):
            collector.ask("backfill", **arguments)

    thread = threading.Thread(target=work, daemon=True)
    thread.start()
    return thread


def manifest_of(collector: Any, session_id: str) -> dict[str, Any]:
    content = (collector.data_dir / f"session_{session_id}" / "session.json").read_text()
    found: dict[str, Any] = json.loads(content)
    return found


def test_killed_three_times_it_ends_with_exactly_the_markets_candles(daemon: Any, questdb: Any) -> None:
    """Wherever it was cut off; the table has each candle once, and says what is held."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    chance = random.Random(seed)
    symbols = [f"KILL{n}_USDT" for n in range(6)]
    begin = NOW_US - 400 * DAY_US
    hole = (NOW_US - 300 * DAY_US, NOW_US - 297 * DAY_US)
    faults = [
        HistoryFault("503", source="binance_futures", times=0),
        HistoryFault("lie", source="binance", n=170),
        HistoryFault("hole", source="binance", from_us=hole[0], to_us=hole[1]),
    ]
    total = len(symbols) * 400 * 24
    with serving(symbols=symbols, faults=faults) as server:
        collector = daemon(configuration(server, ["binance_futures", "binance", "okx"]))
        collector.start()
        ask_in_vain(collector, from_us=begin, symbols=symbols)
        sessions = wait_until(lambda: collector.ask("status")["sessions"], "the run to begin")
        session_id = sessions[0]["session_id"]
        for share in sorted(chance.uniform(0.02, 0.8) for _ in range(3)):
            wait_until(
                lambda share=share: (
                    collector.session(session_id).get("rows", {}).get("market_data", 0) >= share * total
                ),
                f"{share:.0%} of the candles",
            )
            collector.kill()
            collector.start()
        wait_until(lambda: manifest_of(collector, session_id)["state"] == "completed", "the run to end")
        held = manifest_of(collector, session_id)["backfill"]["held"]
        assert set(held) == set(symbols)
        market = {symbol: expected(server, symbol, begin, NOW_US) for symbol in symbols}
    for symbol in symbols:
        rows = collector.rows(session_id, "market_data", symbol)
        starts = [int(row["timestamp"]) for row in rows]
        assert len(starts) == len(set(starts)) == len(market[symbol])
        for row in rows:
            start = int(row["timestamp"])
            digits = [row[name] for name in ("open", "high", "low", "close", "volume")]
            assert list(map(float, digits)) == list(map(float, market[symbol][start]))
            assert row["source"] == ("okx" if hole[0] <= start < hole[1] else "binance")
    report = collector.ask("verify", session=session_id)
    assert not report["problems"]
    assert [part for part in report["streams"] if part["findings"]["count"]] == []

    def told() -> list[Any]:
        with questdb.connect() as connection:
            return connection.rows(
                "SELECT symbol, total_records, is_complete FROM historical_data_range "
                "WHERE symbol LIKE 'KILL%%' ORDER BY symbol"
            )

    assert wait_until(lambda: told() if len(told()) == len(symbols) else None, "the ranges") == [
        (symbol, 400 * 24, True) for symbol in symbols
    ]
    with questdb.connect() as connection:
        counted = connection.rows(
            "SELECT count(), count_distinct(timestamp) FROM market_data_points WHERE symbol = 'KILL3_USDT'"
        )
        quality = connection.rows(
            "SELECT completeness_percentage, missing_records, has_gaps FROM data_quality WHERE symbol = 'KILL3_USDT'"
        )
    assert counted == [(400 * 24, 400 * 24)]
    assert quality == [(100.0, 0, False)]


def test_what_is_held_is_not_asked_for_again_and_gaps_are_filled(daemon: Any) -> None:
    """The second run asks nobody; a hole that is mended later is filled; one symbol's failure is its row."""
    begin = NOW_US - 20 * DAY_US
    hole = (NOW_US - 10 * DAY_US, NOW_US - 9 * DAY_US)
    fault = HistoryFault("hole", source="okx", from_us=hole[0], to_us=hole[1])
    with serving(symbols=["AAA_USDT", "BBB_USDT"], faults=[fault]) as server:
        collector = daemon(configuration(server, ["okx"]))
        collector.start()
        first = collector.ask("backfill", from_us=begin, symbols=["AAA_USDT", "NONE_USDT", "BBB_USDT"])
        assert (first["successful"], first["failed"], first["total_records"]) == (2, 1, 2 * 19 * 24)
        rows = {row["symbol"]: row for row in first["symbols"]}
        assert (rows["NONE_USDT"]["state"], rows["AAA_USDT"]["state"]) == ("failed", "partial")
        assert rows["AAA_USDT"]["missing"] == 24
        asked = server.records["okx"].requests
        server.faults.clear()
        again = collector.ask("backfill", task="fill_gaps", from_us=begin, symbols=["AAA_USDT", "BBB_USDT"])
        assert again["total_records"] == 2 * 24
        assert server.records["okx"].requests == asked + 2
        third = collector.ask("backfill", task="fill_gaps", from_us=begin, symbols=["AAA_USDT", "BBB_USDT"])
        assert third["session_id"] == again["session_id"]  # the month's
        assert server.records["okx"].requests == asked + 2
        assert [row["state"] for row in third["symbols"]] == ["complete", "complete"]
        found = collector.ask("quality", symbols=["AAA_USDT"])[0]
        assert (found["score"], found["completeness"], found["report"]["present"]) == (100.0, 100.0, 20 * 24)
        assert [task["name"] for task in collector.ask("schedule")["tasks"]] == ["hourly", "fill_gaps", "quality"]


def test_a_file_is_brought_in_once_with_its_bad_rows_named(daemon: Any, questdb: Any, tmp_path: Path) -> None:
    """A second time nothing is new; the rejects have row and reason."""
    hours = [NOW_US - n * HOUR_US for n in range(50, 0, -1)]
    lines = ["Date,open,high,low,close", *(f"{start // 1_000_000},2,3,1,2.50" for start in hours)]
    lines[7] = lines[7].replace(",3,", ",0.5,")
    lines.append("never,1,1,1,1")
    path = tmp_path / "hours.csv"
    path.write_text("\n".join(lines) + "\n")
    collector = daemon()
    collector.start()
    asked = {"path": str(path), "symbol": "AAPL_USD", "asset_type": "stock", "mapping": {"timestamp": "Date"}}
    first = collector.ask("import_candles", **asked)
    assert (first["total_records"], first["rejected"], first["passed_over"]) == (49, 2, 0)
    rejects = (collector.data_dir / f"session_{first['session_id']}" / "import_rejected.csv").read_text().splitlines()
    assert [line.split(",")[:2] for line in rejects[1:]] == [
        ["7", "open or close is outside of low and high"],
        ["51", "its timestamp is no time"],
    ]
    again = collector.ask("import_candles", **asked)
    assert (again["total_records"], again["passed_over"]) == (0, 49)
    with questdb.connect() as connection:
        query = "SELECT count(), count_distinct(timestamp), first(asset_type) FROM market_data_points WHERE symbol = %s"
        wait_until(
            lambda: connection.rows(query, "AAPL_USD") == [(49, 49, "stock")], "the candles to be in the database"
        )


def test_the_commands_show_what_was_done(daemon: Any, questdb: Any) -> None:
    """As a person types them, against the same daemon."""
    with serving(symbols=["CLI_USDT", "BTC_USDT"]) as server:
        extra = configuration(server, ["okx", "bybit"])
        extra += f'[exchange.coingecko]\nrest_url = "{server.rest_url("coingecko")}"\n'
        collector = daemon(extra)
        collector.start()
        folder = collector.data_dir.parent
        environment = {**os.environ, **collector._environment}

        def run(*words: str) -> str:
            done = subprocess.run(
                [sys.executable, "-m", "collector", *words, "--config", str(folder / "config.toml"),
                 "--data-dir", str(collector.data_dir)],
                cwd=folder, env=environment, capture_output=True, text=True, timeout=60, check=False,
            )  # fmt: skip
            assert done.returncode == 0, (words, done.stdout, done.stderr)
            return done.stdout

        begin = time.strftime("%Y-%m-%d", time.gmtime(NOW_US / 1e6 - 5 * 86_400))
        answer = json.loads(run("backfill", "--from", begin, "--symbols", "CLI_USDT", "--json"))
        assert (answer["successful"], answer["failed"]) == (1, 0)
        assert answer["sources_used"] == {"okx": answer["total_records"]}
        shown = run("backfill", "--from", begin, "--symbols", "CLI_USDT")
        assert "CLI_USDT" in shown
        assert "complete" in shown
        hourly = json.loads(run("backfill", "--hourly-only", "--max-coins", "2", "--json"))
        assert {row["symbol"] for row in hourly["symbols"]} == {"CLI_USDT", "BTC_USDT"}
        assert "session" in run("fill-gaps", "--days", "3", "--symbols", "CLI_USDT")
        quality = json.loads(run("quality", "CLI_USDT", "--compare", "--json"))[0]
        assert quality["score"] == 100
        assert (quality["opinion"]["compared"], quality["opinion"]["equal"]) == (48, 48)
        assert "100" in run("quality", "CLI_USDT")
        assert "hourly" in run("schedule")
        symbols = json.loads(run("history", "symbols", "--json"))["symbols"]
        assert [row["coingecko_id"] for row in symbols] == ["cli", "bitcoin"]
        assert "bitcoin" in run("history", "symbols")
        wait_until(lambda: "backfill" in run("logs"), "the log to show")
        assert "fill_gaps" in run("logs", "--stats")
        assert "market_data" in run("storage")
        assert "candles_1m" in run("retention", "show")
