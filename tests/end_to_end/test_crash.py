"""kill -9 of the daemon: what was flushed is there once, and the ledger names exactly what is not."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from collector.session.manifest import load_manifest

RATE = 400
FLUSH_S = 0.5
ETHUSDT_2024 = "binance-spot-ETHUSDT-20240808.rec.gz"


def missing_ids(daemon: Any, session_id: str, symbol: str) -> set[int]:
    """Return the ids that the ledger names as missing trades of a symbol."""
    last: dict[str, dict[str, str]] = {}
    for row in daemon.rows(session_id, "gaps"):
        last[row["gap_id"]] = row
    missing: set[int] = set()
    for row in last.values():
        if row["symbol"] == symbol and row["stream"] == "prices" and row["state"] in ("open", "partial"):
            missing |= set(range(int(row["from_id"]), int(row["to_id"]) + 1))
    return missing


def findings(report: dict[str, Any]) -> list[Any]:
    """Return everything that a verification found."""
    parts = [*report["streams"], *report["candles"]]
    return [*report["problems"], *(part["findings"] for part in parts if part["findings"]["count"])]


def test_a_killed_daemon_doubles_nothing_and_names_what_it_missed(
    daemon: Callable[..., Any], server: Callable[..., Any]
) -> None:
    """After kill -9 in the middle of a session, the missing ids are those of the ledger, and no others."""
    exchange = server("exchange", "--rate", str(RATE), "--symbols", "BTC_USDT,ETH_USDT")
    collector = daemon()
    collector.start()
    started = collector.ask(
        "start",
        exchange="sim",
        symbols=["BTC_USDT", "ETH_USDT"],
        ws_url=exchange.ws_url,
        rest_url=exchange.rest_url,
    )
    session_id = started["session_id"]
    collector.wait_rows(session_id, "prices", 3 * RATE)
    collector.kill()
    before = {symbol: len(collector.rows(session_id, "prices", symbol)) for symbol in ("BTC_USDT", "ETH_USDT")}

    collector.start()
    collector.wait_state(session_id, "active")
    collector.wait_rows(session_id, "prices", sum(before.values()) + 2 * RATE)
    collector.ask("stop", every=True)

    for symbol in before:
        ids = [int(row["trade_id"]) for row in collector.rows(session_id, "prices", symbol)]
        seqs = [int(row["seq"]) for row in collector.rows(session_id, "prices", symbol)]
        assert len(set(ids)) == len(ids)
        assert seqs == list(range(1, len(seqs) + 1))
        truth = exchange.traded(symbol, min(ids), max(ids))
        absent = set(truth) - set(ids)
        assert absent == missing_ids(collector, session_id, symbol)
        assert absent
        # Of what reached the killed daemon, at most what one flush interval holds is gone (and what one flush took).
        reached = exchange.sent_ids(f"{symbol.replace('_', '').lower()}@aggTrade")[0]
        assert len(reached & absent) <= 2 * FLUSH_S * RATE
        for row in collector.rows(session_id, "prices", symbol):
            assert (row["price"], row["volume"]) == tuple(truth[int(row["trade_id"])][1:3])
    assert findings(collector.ask("verify", session=session_id)) == []


def test_a_killed_replay_goes_on_from_the_first_frame_without_a_row_twice(
    daemon: Callable[..., Any], server: Callable[..., Any], recordings: Path
) -> None:
    """A replay that was killed and gone on with gives the files of one that was not, the times of receipt aside."""
    symbols, whole_id, broken_id = ["ETH_USDT"], "whole", "broken"
    collector = daemon("[session]\nflush_interval_s = 0.1\n")
    collector.start()

    def play(session_id: str, speed: str, **arguments: Any) -> Any:
        replay = server(
            "replay", str(recordings / ETHUSDT_2024), "--exchange", "binance", "--symbols", "ETH_USDT",
            "--speed", speed, "--trades", "raw", "--data-types", "prices,orderbook,klines",
        )  # fmt: skip
        return collector.ask(
            "start", exchange="binance", symbols=symbols, session_id=session_id, raw_trades=True,
            ws_url=replay.ws_url, rest_url=replay.rest_url, recording=ETHUSDT_2024, **arguments,
        )  # fmt: skip

    play(whole_id, "max")
    collector.wait_state(whole_id, "completed")
    play(broken_id, "150x")
    collector.wait_rows(broken_id, "prices", 4000)
    collector.kill()
    assert 4000 <= len(collector.rows(broken_id, "prices", "ETH_USDT")) < 14515

    collector.start()
    assert collector.ask("show", session=broken_id)["manifest"]["state"] == "interrupted"
    play(broken_id, "max", go_on=True)
    collector.wait_state(broken_id, "completed")

    def columns(session_id: str, stream: str) -> list[dict[str, str]]:
        return [
            {name: value for name, value in row.items() if name != "received_at"}
            for row in collector.rows(session_id, stream, "ETH_USDT")
        ]

    assert len(columns(whole_id, "prices")) == 14515
    assert columns(broken_id, "prices") == columns(whole_id, "prices")
    assert columns(broken_id, "orderbook") == columns(whole_id, "orderbook")
    for session_id in (whole_id, broken_id):
        assert findings(collector.ask("verify", session=session_id)) == []

    def candles(session_id: str) -> dict[tuple[str, str], tuple[str, ...]]:
        names = ("open", "high", "low", "close", "volume", "quote_volume", "trades_count", "taker_buy_volume")
        rows = collector.rows(session_id, "ohlcv", "ETH_USDT")
        return {(row["interval"], row["timestamp"]): tuple(row[name] for name in names) for row in rows}

    assert candles(broken_id) == candles(whole_id)


def test_sigterm_drains_and_completes_the_sessions(daemon: Callable[..., Any], server: Callable[..., Any]) -> None:
    """An orderly end writes everything that was received, says completed, and exits with 0."""
    exchange = server("exchange", "--rate", str(RATE), "--symbols", "BTC_USDT")
    collector = daemon()
    collector.start()
    session_id = collector.ask(
        "start", exchange="sim", symbols=["BTC_USDT"], ws_url=exchange.ws_url, rest_url=exchange.rest_url
    )["session_id"]
    collector.wait_rows(session_id, "prices", RATE)
    assert collector.terminate() == os.EX_OK
    collector.start()
    manifest = collector.ask("show", session=session_id)["manifest"]
    assert manifest["state"] == "completed"
    assert manifest["received"] == manifest["written"]
    assert manifest["gaps"] == 0
    ids = [int(row["trade_id"]) for row in collector.rows(session_id, "prices", "BTC_USDT")]
    assert ids == list(range(ids[0], ids[-1] + 1))
    assert findings(collector.ask("verify", session=session_id)) == []


@pytest.mark.parametrize("damage", ["digit", "missing", "extra"])
def test_verify_names_one_changed_digit_one_missing_row_and_one_too_many(
    daemon: Callable[..., Any], server: Callable[..., Any], questdb: Any, damage: str
) -> None:
    """Whatever does not agree, verify finds it and says which row it is."""
    exchange = server("exchange", "--rate", str(RATE), "--symbols", "BTC_USDT")
    collector = daemon()
    collector.start()
    session_id = collector.ask(
        "start", exchange="sim", symbols=["BTC_USDT"], ws_url=exchange.ws_url, rest_url=exchange.rest_url
    )["session_id"]
    collector.wait_rows(session_id, "prices", RATE)
    collector.ask("stop", every=True)
    assert findings(collector.ask("verify", session=session_id)) == []
    path = collector.data_dir / f"session_{session_id}" / "BTC_USDT" / "prices.csv"
    lines = path.read_text(encoding="utf-8").splitlines(keepends=True)
    with questdb.connect() as connection:
        if damage == "digit":
            fields = lines[100].split(",")
            fields[2] = fields[2][:-1] + ("1" if fields[2][-1] != "1" else "2")
            lines[100] = ",".join(fields)
            path.write_text("".join(lines), encoding="utf-8")
        elif damage == "extra":
            connection.run(
                "INSERT INTO tick_prices (timestamp, session_id, exchange, symbol, price, volume, seq) "
                "VALUES (cast(1700000000000000 as timestamp), %s, 'sim', 'BTC_USDT', 1.0, 1.0, 99999999)",
                session_id,
            )
        else:
            # QuestDB has no DELETE: a row that the CSV has and the database lacks is one that nobody sent.
            fields = lines[-1].rstrip("\n").split(",")
            fields[5], fields[6] = str(int(fields[5]) + 1), str(int(fields[6]) + 1)
            path.write_text("".join([*lines, ",".join(fields) + "\n"]), encoding="utf-8")
    named = [entry for finding in findings(collector.ask("verify", session=session_id)) for entry in finding["named"]]
    wanted = {"digit": 100, "extra": 99999999, "missing": len(lines)}[damage]
    assert wanted in {entry["seq"] for entry in named if entry["stream"] == "prices"}


def test_a_session_that_sigterm_leaves_is_gone_on_with_by_the_next_daemon(
    daemon: Callable[..., Any], server: Callable[..., Any]
) -> None:
    """No row that was received is lost, the pause is in the ledger by its ids, and candles go on where they were."""
    exchange = server("exchange", "--rate", str(RATE), "--symbols", "BTC_USDT")
    collector = daemon('[daemon]\non_sigterm = "leave"\n')
    collector.start()
    started = collector.ask(
        "start", exchange="sim", symbols=["BTC_USDT"], ws_url=exchange.ws_url, rest_url=exchange.rest_url
    )
    session_id = started["session_id"]
    collector.wait_rows(session_id, "prices", 2 * RATE)
    assert collector.terminate() == 0
    directory = collector.data_dir / f"session_{session_id}"
    left = load_manifest(directory)
    assert (left.state, left.reason, left.ended_us) == ("interrupted", "SIGTERM", None)
    assert collector.rows(session_id, "ohlcv", "BTC_USDT") == []
    before = collector.rows(session_id, "prices", "BTC_USDT")
    kept = {int(row["trade_id"]) for row in before}
    unread = exchange.sent_ids("btcusdt@aggTrade")[0] - kept
    assert all(number > max(kept) for number in unread)  # what was on its way when the connection was closed

    collector.start()
    collector.wait_state(session_id, "active")
    collector.wait_rows(session_id, "prices", len(before) + RATE)
    collector.ask("stop", every=True)
    rows = collector.rows(session_id, "prices", "BTC_USDT")
    assert [int(row["seq"]) for row in rows] == list(range(1, len(rows) + 1))
    ids = [int(row["trade_id"]) for row in rows]
    assert set(exchange.traded("BTC_USDT", min(ids), max(ids))) - set(ids) == missing_ids(
        collector, session_id, "BTC_USDT"
    )
    assert load_manifest(directory).state == "completed"
    assert findings(collector.ask("verify", session=session_id)) == []
