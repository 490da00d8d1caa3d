"""Rotation with real parts: closed files, compressed or deleted, under kill -9, and still everything is proved."""

from __future__ import annotations

import csv
import gzip
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from collector.session.manifest import load_manifest
from collector.storage.segments import closed_segments

RATE = 2000
SYMBOLS = ["BTC_USDT", "ETH_USDT"]
ROTATE = """
[csv]
rotate_bytes = 20_000
upkeep_interval_s = 0.2
"""
SPOOL = """
[questdb]
check_interval_s = 0.3
[csv]
enabled = false
spool_rotate_bytes = 20_000
spool_rotate_s = 0.5
spool_keep_s = 1
upkeep_interval_s = 0.2
"""


def findings(report: dict[str, Any]) -> list[Any]:
    """Return everything that a verification found."""
    parts = [*report["streams"], *report["candles"]]
    return [*report["problems"], *(part["findings"] for part in parts if part["findings"]["count"])]


def start(collector: Any, exchange: Any) -> str:
    collector.start()
    started = collector.ask(
        "start", exchange="sim", symbols=SYMBOLS, ws_url=exchange.ws_url, rest_url=exchange.rest_url
    )
    return str(started["session_id"])


def prices(directory: Path, symbol: str) -> list[dict[str, str]]:
    """Return the trades of all segments, as a person would read them."""
    live = directory / symbol / "prices.csv"
    rows: list[dict[str, str]] = []
    for path in [*(path for _, path in closed_segments(live)), live]:
        with gzip.open(path, "rt") if path.suffix == ".gz" else path.open() as file:
            rows += list(csv.DictReader(file))
    return rows


def closed(directory: Path, symbol: str) -> list[str]:
    return [path.name for _, path in closed_segments(directory / symbol / "prices.csv")]


def until(collector: Any, condition: Callable[[], bool], rows: int, session_id: str) -> None:
    """Let the session go on until something holds."""
    while not condition():
        rows += RATE // 4
        collector.wait_rows(session_id, "prices", rows)


@pytest.mark.parametrize("compress", [False, True])
def test_a_rotated_session_is_proved_over_all_its_segments_after_a_kill(
    daemon: Callable[..., Any], server: Callable[..., Any], compress: bool
) -> None:
    """Numbers go on over segments and restarts; verify, import and the hashes take all of them."""
    exchange = server("exchange", "--rate", str(RATE), "--symbols", ",".join(SYMBOLS))
    collector = daemon(ROTATE + f"compress = {str(compress).lower()}\n")
    session_id = start(collector, exchange)
    directory = collector.data_dir / f"session_{session_id}"
    until(collector, lambda: len(closed(directory, "BTC_USDT")) >= 5, RATE, session_id)
    assert findings(collector.ask("verify", session=session_id)) == []
    collector.kill()
    collector.start()
    collector.wait_state(session_id, "active")
    before = len(closed(directory, "BTC_USDT"))
    until(collector, lambda: len(closed(directory, "BTC_USDT")) >= before + 3, RATE, session_id)
    collector.ask("stop", every=True)

    for symbol in SYMBOLS:
        rows = prices(directory, symbol)
        assert [int(row["seq"]) for row in rows] == list(range(1, len(rows) + 1))
        ids = [int(row["trade_id"]) for row in rows]
        assert len(set(ids)) == len(ids)
        record = load_manifest(directory).record("prices", symbol)
        assert record is not None
        assert record.rows == len(rows)
        assert len(record.hashes) == len(closed(directory, symbol)) + 1
        if compress:
            assert all(name.endswith(".csv.gz") for name in closed(directory, symbol))
    assert findings(collector.ask("verify", session=session_id)) == []
    collector.ask("import", session=session_id)
    assert findings(collector.ask("verify", session=session_id)) == []


def test_a_spool_keeps_only_what_questdb_may_lack(daemon: Callable[..., Any], server: Callable[..., Any]) -> None:
    """Without CSV storage, closed files go once QuestDB has them; a killed daemon goes on, and all rows are proved."""
    exchange = server("exchange", "--rate", str(RATE), "--symbols", ",".join(SYMBOLS))
    collector = daemon(SPOOL)
    session_id = start(collector, exchange)
    directory = collector.data_dir / f"session_{session_id}"

    def released(symbol: str) -> int:
        record = load_manifest(directory).record("prices", symbol)
        return record.released.rows if record is not None and record.released is not None else 0

    until(collector, lambda: min(map(released, SYMBOLS)) > 0, RATE, session_id)
    report = collector.ask("verify", session=session_id)
    assert findings(report) == []
    assert any(part["released"] for part in report["streams"] if part["stream"] == "prices")
    collector.kill()
    collector.start()
    collector.wait_state(session_id, "active")
    before = {symbol: released(symbol) for symbol in SYMBOLS}
    until(collector, lambda: all(released(s) > before[s] for s in SYMBOLS), RATE, session_id)
    collector.ask("stop", every=True)
    report = collector.ask("verify", session=session_id)
    assert findings(report) == []

    for symbol in SYMBOLS:
        record = load_manifest(directory).record("prices", symbol)
        assert record is not None
        total = sum(part["rows"] + part["released"] for part in report["streams"]
                    if (part["stream"], part["symbol"]) == ("prices", symbol))  # fmt: skip
        lost = sum(part["lost"] for part in report["streams"] if (part["stream"], part["symbol"]) == ("prices", symbol))
        assert total + lost == record.next_seq - 1
        assert record.rows == total


def test_without_csv_an_ended_session_leaves_no_tick_behind(
    daemon: Callable[..., Any], server: Callable[..., Any]
) -> None:
    """The ledger, the candles and the manifest stay; the ticks are in QuestDB alone, and counted there."""
    exchange = server("exchange", "--rate", str(RATE), "--symbols", ",".join(SYMBOLS))
    collector = daemon(SPOOL)
    session_id = start(collector, exchange)
    directory = collector.data_dir / f"session_{session_id}"
    collector.wait_rows(session_id, "prices", RATE)
    collector.ask("stop", every=True)

    def empty() -> bool:
        return not any(closed(directory, symbol) or prices(directory, symbol) for symbol in SYMBOLS)

    deadline = time.monotonic() + 60
    while not empty():
        assert time.monotonic() < deadline, list(directory.rglob("*"))
        time.sleep(0.1)
    report = collector.ask("verify", session=session_id)
    assert findings(report) == []
    parts = {(part["stream"], part["symbol"]): part for part in report["streams"]}
    for symbol in SYMBOLS:
        record = load_manifest(directory).record("prices", symbol)
        assert record is not None
        assert parts["prices", symbol]["released"] == record.rows > 0
        assert (directory / symbol / "ohlcv.csv").read_text().count("\n") > 1
