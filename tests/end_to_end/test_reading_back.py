"""A real session that was replayed is read back, with QuestDB and after it was stopped: the same trades and candles."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import collector
from collector.config import load_config
from collector.reading.export.exporting import Wanted, export_session

RECORDING = "binance-spot-ETHUSDT-20240808.rec.gz"
SYMBOL = "ETH_USDT"
TICK = 0.01


@pytest.mark.timeout(300)  # hftbacktest compiles what it runs
def test_a_replayed_session_is_the_same_from_both_stores(
    daemon: Callable[..., Any], server: Callable[..., Any], questdb_server: Callable[..., Any], recordings: Path,
    tmp_path: Path,
) -> None:  # fmt: skip
    """All 14,515 trades and their candles; what goes to hftbacktest ends with the exchange's own book."""
    database = questdb_server()
    settings = database.settings
    environment = {
        "QUESTDB_ILP_PORT": str(settings.ilp_port),
        "QUESTDB_HTTP_PASSWORD": settings.http_password.get_secret_value(),
        "QUESTDB_PG_PORT": str(settings.pg_port),
        "QUESTDB_PG_PASSWORD": settings.pg_password.get_secret_value(),
    }
    running = daemon("[questdb]\ncheck_interval_s = 0.5\n", **environment)
    running.start()
    replay = server(
        "replay", str(recordings / RECORDING), "--exchange", "binance", "--symbols", SYMBOL,
        "--speed", "max", "--trades", "raw", "--data-types", "prices,orderbook",
    )  # fmt: skip
    session_id = running.ask(
        "start", exchange="binance", symbols=[SYMBOL], raw_trades=True, record_raw=True,
        ws_url=replay.ws_url, rest_url=replay.rest_url, recording=RECORDING,
    )["session_id"]  # fmt: skip
    running.wait_state(session_id, "completed")
    config = load_config(
        running.data_dir.parent / "config.toml",
        environment=running._environment,
        overrides={"daemon": {"data_dir": running.data_dir}},
    )
    wait_for_source(session_id, config, "questdb")
    running.terminate()

    held = read_all(collector.open_session(session_id, config=config))
    database.server.stop()
    session = collector.open_session(session_id, config=config)
    kept = read_all(session)
    assert held.pop("source") == "questdb"
    assert kept.pop("source") == "csv"
    assert "cannot be reached" in session.prices().why
    assert {name: table.num_rows for name, table in kept.items()} == {name: t.num_rows for name, t in held.items()}
    assert [name for name in kept if not kept[name].equals(held[name])] == []

    truth = json.loads((recordings / "expected.json").read_text(encoding="utf-8"))[RECORDING]["symbols"]["ETHUSDT"]
    assert kept["prices"].num_rows == truth["trades"]["count"] == 14_515
    digits = session.prices(exact=True).table()
    assert sum(map(Decimal, digits["volume"].to_pylist())) == Decimal(truth["trades"]["sum_qty"])
    assert_candles(kept, truth["candles"]["1m"])
    assert_book(session, tmp_path / "out", truth.get("final_book") or truth["book"])


def wait_for_source(session_id: str, config: Any, name: str) -> None:
    deadline = time.monotonic() + 60
    while collector.open_session(session_id, config=config).source != name:
        assert time.monotonic() < deadline, collector.open_session(session_id, config=config).why
        time.sleep(0.2)


def read_all(session: Any) -> dict[str, Any]:
    tables = {name: session.stream(name).table() for name in ("prices", "orderbook", "ohlcv", "gaps")}
    made = {interval: session.candles(SYMBOL, interval).table() for interval in ("1m", "7m", "10s")}
    return {"source": session.source, **tables, **made}


def assert_candles(tables: dict[str, Any], truth: list[dict[str, Any]]) -> None:
    """Compare candles of trades with what is independently known, and with the recorded ones."""
    made = {int(row["timestamp"].timestamp() * 1000): row for row in tables["1m"].to_pylist()}
    recorded = {
        int(row["timestamp"].timestamp() * 1000): row for row in tables["ohlcv"].to_pylist() if row["interval"] == "1m"
    }
    assert {*made} == {*recorded}
    for known in truth:
        row = made[known["t"]]
        assert {name: row[name] for name in ("open", "high", "low", "close")} == {
            "open": float(known["o"]), "high": float(known["h"]), "low": float(known["l"]), "close": float(known["c"]),
        }  # fmt: skip
        assert row["trades_count"] == known["n"]
        assert row["volume"] == pytest.approx(float(known["v"]), rel=1e-14)
        assert row["open"] == recorded[known["t"]]["open"]
        assert row["close"] == recorded[known["t"]]["close"]


def assert_book(session: Any, folder: Path, truth: dict[str, Any]) -> None:
    """Have hftbacktest play the recorded changes of the book, and look at all levels that are known of its end."""
    from hftbacktest import BacktestAsset, HashMapMarketDepthBacktest

    report = export_session(session, Wanted("hftbacktest"), folder, lambda *_: None)
    assert report.notes["book"] == {SYMBOL: "raw.rec"}
    files = sorted((folder / SYMBOL).glob("*.npz"))
    assert len(files) == 2
    data = [np.load(path)["data"] for path in files]  # the library only points to them
    asset = (
        BacktestAsset().data(data).linear_asset(1.0).constant_order_latency(0, 0)
        .risk_adverse_queue_model().no_partial_fill_exchange().trading_value_fee_model(0, 0)
        .tick_size(TICK).lot_size(0.0001).last_trades_capacity(100_000)
    )  # fmt: skip
    backtest = HashMapMarketDepthBacktest([asset])
    try:
        seen = 0
        goes_on = True
        while goes_on:
            goes_on = backtest.elapse(3_600_000_000_000) == 0
            seen += len(backtest.last_trades(0))
            backtest.clear_last_trades(0)
        assert seen == 14_515
        depth = backtest.depth(0)
        for side, quantity in (("bid", depth.bid_qty_at_tick), ("ask", depth.ask_qty_at_tick)):
            levels = truth.get(f"{side}s") or truth[f"{side}s_top"]
            assert [quantity(round(float(price) / TICK)) for price, _ in levels] == [float(size) for _, size in levels]
    finally:
        backtest.close()
