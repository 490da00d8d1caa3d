"""A backtest reproduced to the digit on an empty machine, from the CSV and from its own QuestDB."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from collector.backtest.candles import WholeCandles, session_candles
from collector.backtest.results import BacktestResult, result_of, result_of_ticks
from collector.backtest.run import Account, run_strategy
from collector.backtest.strategies import load_strategy
from collector.backtest.tick_strategies import load_tick_strategy
from collector.backtest.ticks import Assumptions, run_ticks, session_ticks
from collector.config import Config, load_config
from collector.reading.session_reader import SessionReader, open_session

SYMBOL = "BTC_USDT"
NOW_US = 7
CASH = 100_000.0
LATENCY_US = 5_000

# Buys at whatever is offered after some seconds, and holds.
BUYER = """
def trade(hbt, recorder, tick_size, lot_size, seconds=3):
    hbt.elapse(seconds * 1_000_000_000)
    hbt.submit_buy_order(0, 1, 1.0, lot_size, 0, 1, False)
    while hbt.elapse(1_000_000_000) == 0:
        recorder.record(hbt)
"""


def configured(running: Any, **changes: Any) -> Config:
    overrides = {"daemon": {"data_dir": running.data_dir}, **changes}
    folder = running.data_dir.parent
    return load_config(folder / "config.toml", environment=running._environment, overrides=overrides)


def wait_delivered(session_id: str, config: Config) -> None:
    deadline = time.monotonic() + 60
    while open_session(session_id, config=config).source != "questdb":
        assert time.monotonic() < deadline, open_session(session_id, config=config).why
        time.sleep(0.2)


def run_all(reader: SessionReader, buyer: Path) -> list[BacktestResult]:
    """Run a strategy on candles of ticks and two on ticks; what says which store it was is left out."""
    account = Account(CASH, 0.0005)
    strategy = load_strategy("moving_average_cross", {"fast": "2", "slow": "4"})
    candles: WholeCandles = session_candles(reader, SYMBOL, "250ms")
    found = [result_of(candles, strategy, account, run_strategy(candles, strategy, account), NOW_US)]
    ticks = session_ticks(reader, SYMBOL)
    for name, assumed in (
        ("market_maker", Assumptions(queue="prob", maker_fee=0, taker_fee=0.0005)),
        (str(buyer), Assumptions(latency=f"{LATENCY_US}us", maker_fee=0, taker_fee=0)),
    ):
        function = load_tick_strategy(name, {})
        outcome = run_ticks(ticks, function, assumed, CASH)
        found.append(result_of_ticks(ticks, function, assumed, CASH, outcome, NOW_US))
    assert {one.source for one in found} == {reader.source}
    return [type(one)(**{**{f: getattr(one, f) for f in one.__struct_fields__}, "source": ""}) for one in found]


@pytest.mark.timeout(600)  # hftbacktest compiles what it runs
def test_a_recorded_session_gives_the_same_results_on_an_empty_machine(
    daemon: Callable[..., Any], server: Callable[..., Any], questdb_server: Callable[..., Any], tmp_path: Path
) -> None:
    """Recorded here, copied there and imported into another QuestDB: four stores, one result, hashes included.

    One of the fills is worked out by hand: a market order takes the best offer of the book at the time that it arrives.
    """
    buyer = tmp_path / "buyer.py"
    buyer.write_text(BUYER, encoding="utf-8")
    exchange = server("exchange", "--rate", "60", "--symbols", SYMBOL)
    here = daemon("[questdb]\ncheck_interval_s = 0.5\n")
    here.start()
    session_id = here.ask(
        "start", exchange="sim", symbols=[SYMBOL], data_types=["prices", "orderbook"], ws_url=exchange.ws_url,
        rest_url=exchange.rest_url,
    )["session_id"]  # fmt: skip
    here.wait_rows(session_id, "prices", 900)
    here.ask("stop", every=True)
    wait_delivered(session_id, configured(here))
    expected = run_all(open_session(session_id, config=configured(here)), buyer)
    here.terminate()
    off = {"questdb": {"mode": "off"}}
    here._environment = {name: value for name, value in here._environment.items() if "QUESTDB" not in name}
    from_csv = open_session(session_id, config=configured(here, **off))
    assert run_all(from_csv, buyer) == expected
    assert_bought_by_hand(from_csv, expected[2])
    assert expected[0].trades, "a strategy that never trades proves nothing"

    settings = questdb_server().settings
    there = daemon(
        "[questdb]\ncheck_interval_s = 0.5\n",
        QUESTDB_ILP_PORT=str(settings.ilp_port),
        QUESTDB_HTTP_PASSWORD=settings.http_password.get_secret_value(),
        QUESTDB_PG_PORT=str(settings.pg_port),
        QUESTDB_PG_PASSWORD=settings.pg_password.get_secret_value(),
    )
    there.start()
    name = f"session_{session_id}"
    shutil.copytree(here.data_dir / name, there.data_dir / name)
    shutil.rmtree(here.data_dir)
    there.ask("import", session=session_id)
    wait_delivered(session_id, configured(there))
    assert run_all(open_session(session_id, config=configured(there)), buyer) == expected
    assert run_all(open_session(session_id, config=configured(there), source="csv"), buyer) == expected


def assert_bought_by_hand(reader: SessionReader, result: BacktestResult) -> None:
    """Compare what the buyer paid with the recorded book."""
    books = reader.orderbook(SYMBOL).table().to_pylist()
    trades = reader.prices(SYMBOL, columns=["timestamp"]).table()["timestamp"].cast("int64").to_pylist()
    times = [round(row["timestamp"].timestamp() * 1e6) for row in books]
    arrives_us = min(times[0], trades[0]) + 3_000_000 + LATENCY_US
    standing = max(n for n, at in enumerate(times) if at <= arrives_us)
    (fill,) = result.trades
    lot = result.assumptions["lot_size"]
    assert fill["position"] == pytest.approx(lot)
    assert -fill["balance"] == pytest.approx(books[standing]["ask_price_1"] * lot)
