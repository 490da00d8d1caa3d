"""Symbols come and go in a running session under load, and the others lose nothing; so with its connections."""

from __future__ import annotations

import csv
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from collector.errors import CollectorError
from collector.session.manifest import load_manifest
from trials.parts import wait_until

RATE = 2000
SYMBOLS = ["BTC_USDT", "ETH_USDT"]
LISTED = [*SYMBOLS, "SOL_USDT", "XRP_USDT"]


def rows(directory: Path, symbol: str) -> dict[int, tuple[str, str]]:
    """Return the trades of a session's file by id: price and volume."""
    with (directory / symbol / "prices.csv").open() as file:
        read = [(int(row["trade_id"]), (row["price"], row["volume"])) for row in csv.DictReader(file)]
    assert len({trade_id for trade_id, _ in read}) == len(read), f"{symbol} has trades twice"
    return dict(read)


def require_truth(exchange: Any, directory: Path, symbol: str) -> dict[int, tuple[str, str]]:
    """Compare a file with the exchange's own record, from its first to its last trade."""
    got = rows(directory, symbol)
    truth = exchange.traded(symbol, min(got), max(got))
    assert got == {trade_id: (row[1], row[2]) for trade_id, row in truth.items()}
    return got


def gaps(directory: Path) -> list[dict[str, str]]:
    with (directory / "gaps.csv").open() as file:
        return list(csv.DictReader(file))


def start(collector: Any, exchange: Any, **order: Any) -> str:
    collector.start()
    order = {"symbols": SYMBOLS, "exchange": "sim", **order}
    return str(collector.ask("start", ws_url=exchange.ws_url, rest_url=exchange.rest_url, **order)["session_id"])


def test_symbols_are_added_and_removed_under_load(daemon: Callable[..., Any], server: Callable[..., Any]) -> None:
    """One is added, one removed: the other is the exchange's record without a gap; a restart keeps the new list."""
    exchange = server("exchange", "--rate", str(RATE), "--symbols", ",".join(LISTED))
    collector = daemon()
    session_id = start(collector, exchange)
    directory = collector.data_dir / f"session_{session_id}"
    collector.wait_rows(session_id, "prices", RATE)
    with pytest.raises(CollectorError, match="DOGE_USDT"):
        collector.ask("symbols", session=session_id, add=["DOGE_USDT"])
    with pytest.raises(CollectorError, match="XRP_USDT"):
        collector.ask("symbols", session=session_id, remove=["XRP_USDT"])
    with pytest.raises(CollectorError, match="No symbol would be left"):
        collector.ask("symbols", session=session_id, remove=SYMBOLS)
    changed = collector.ask("symbols", session=session_id, add=["SOL_USDT"])
    assert changed["symbols"] == [*SYMBOLS, "SOL_USDT"]
    collector.wait_rows(session_id, "prices", 3 * RATE)
    changed = collector.ask("symbols", session=session_id, remove=["ETH_USDT"])
    assert changed["symbols"] == ["BTC_USDT", "SOL_USDT"]
    removed = rows(directory, "ETH_USDT")
    collector.wait_rows(session_id, "prices", 5 * RATE)
    status = collector.session(session_id)
    assert [link["reconnects"] for link in status["links"]] == [0]
    assert {row["symbol"]: row["state"] for row in status["per_symbol"]} == {"BTC_USDT": "live", "SOL_USDT": "live"}
    assert gaps(directory) == []
    assert rows(directory, "ETH_USDT") == removed, "a removed symbol's file went on"
    for symbol in LISTED[:3]:
        assert len(require_truth(exchange, directory, symbol)) > 100

    collector.kill()
    collector.start()
    collector.wait_state(session_id, "active")
    manifest = load_manifest(directory)
    assert (manifest.symbols, manifest.removed_symbols) == (["BTC_USDT", "SOL_USDT"], ["ETH_USDT"])
    assert manifest.record("prices", "ETH_USDT") is not None
    again = collector.ask("symbols", session=session_id, add=["ETH_USDT"])
    assert again["symbols"] == ["BTC_USDT", "SOL_USDT", "ETH_USDT"]
    collector.wait_rows(session_id, "prices", 7 * RATE)
    collector.ask("stop", sessions=[session_id])
    report = collector.ask("verify", session=session_id)
    assert report["problems"] == []
    assert all(part["findings"]["count"] == 0 for part in report["candles"])


def test_connections_are_replaced_by_hand_under_load(daemon: Callable[..., Any], server: Callable[..., Any]) -> None:
    """Twice in a running session: the CSV is the exchange's own record, and the ledger is empty."""
    exchange = server("exchange", "--rate", str(RATE), "--symbols", ",".join(LISTED))
    collector = daemon()
    session_id = start(collector, exchange)
    directory = collector.data_dir / f"session_{session_id}"
    collector.wait_rows(session_id, "prices", RATE)
    for turn in (1, 2):
        changed = collector.ask("reconnect", session=session_id, ws_url=exchange.ws_url)
        assert [(link["rotations"], link["reconnects"]) for link in changed["links"]] == [(turn, 0)]
    collector.wait_rows(session_id, "prices", 4 * RATE)
    collector.ask("stop", sessions=[session_id])
    assert gaps(directory) == []
    for symbol in SYMBOLS:
        require_truth(exchange, directory, symbol)


def test_a_symbol_that_is_refused_is_its_own_state(daemon: Callable[..., Any], server: Callable[..., Any]) -> None:
    """The exchange refuses one of three: it says so, the ledger too, and the others are complete."""
    exchange = server("exchange", "--rate", "300", "--symbols", ",".join(LISTED))
    collector = daemon()
    session_id = start(collector, exchange)
    directory = collector.data_dir / f"session_{session_id}"
    collector.wait_rows(session_id, "prices", 100)
    exchange.post("/admin/faults?kind=reject&channel=solusdt@*&count=3")
    collector.ask("symbols", session=session_id, add=["SOL_USDT"])
    collector.wait_rows(session_id, "prices", 1500)
    status = collector.session(session_id)
    assert {row["symbol"]: row["state"] for row in status["per_symbol"]} == {
        "BTC_USDT": "live",
        "ETH_USDT": "live",
        "SOL_USDT": "rejected",
    }
    collector.ask("stop", sessions=[session_id])
    assert {(row["symbol"], row["cause"]) for row in gaps(directory)} == {("SOL_USDT", "rejected")}
    for symbol in SYMBOLS:
        require_truth(exchange, directory, symbol)


def gap_states(directory: Path) -> dict[str, str]:
    """Return each gap's last state."""
    return {row["gap_id"]: row["state"] for row in gaps(directory)}


def test_a_symbol_that_was_added_is_repaired_like_the_others(
    daemon: Callable[..., Any], server: Callable[..., Any]
) -> None:
    """What it missed is fetched and counted by its candles; what is open when it is removed waits for the end."""
    exchange = server("exchange", "--rate", "600", "--symbols", ",".join(LISTED))
    collector = daemon("[repair]\nenabled = true\ninterval_s = 0.3\n")
    session_id = start(collector, exchange, data_types=["prices"])
    directory = collector.data_dir / f"session_{session_id}"
    collector.wait_rows(session_id, "prices", 300)
    collector.ask("symbols", session=session_id, add=["SOL_USDT"])
    wait_until(lambda: len(rows(directory, "SOL_USDT")) > 50, "the new symbol's trades")
    exchange.post("/admin/faults?kind=skip&n=40&channel=solusdt@aggTrade")
    wait_until(lambda: list(gap_states(directory).values()) == ["repaired"], "the new symbol's gap to be repaired")
    require_truth(exchange, directory, "SOL_USDT")

    exchange.post("/admin/faults?kind=limit&seconds=4&path=*aggTrades")
    exchange.post("/admin/faults?kind=skip&n=30&channel=solusdt@aggTrade")
    wait_until(lambda: "open" in gap_states(directory).values(), "another gap")
    collector.ask("symbols", session=session_id, remove=["SOL_USDT"])
    exchange.post("/admin/faults?kind=skip&n=20&channel=btcusdt@aggTrade")
    # Later than the other one, which would have its turn first.
    wait_until(lambda: sorted(gap_states(directory).values()) == ["open", "repaired", "repaired"], "the other's repair")
    with pytest.raises(CollectorError, match="SOL_USDT: not collected any more"):
        collector.ask("repair", session=session_id, symbols=["SOL_USDT"])
    collector.ask("stop", sessions=[session_id])
    (mended,) = collector.ask("repair", session=session_id, symbols=["SOL_USDT"])["gaps"]
    assert (mended["symbol"], mended["got"], mended["state"]) == ("SOL_USDT", 30, "repaired")
    for symbol in LISTED[:3]:
        require_truth(exchange, directory, symbol)
    report = collector.ask("verify", session=session_id)
    assert report["problems"] == []
    assert [part["symbol"] for part in report["candles"] if part["findings"]["count"]] == []
