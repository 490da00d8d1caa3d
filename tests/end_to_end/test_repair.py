"""What was missed is fetched, recorded once and called repaired: with a daemon, kill -9 and an exchange's limits."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from trials.parts import wait_until

SYMBOL = "BTC_USDT"


def ledger(collector: Any, session_id: str) -> dict[str, dict[str, str]]:
    """Return the last revision of each gap of trades."""
    rows = {row["gap_id"]: row for row in collector.rows(session_id, "gaps")}
    return {gap_id: row for gap_id, row in rows.items() if row["stream"] == "prices"}


def missing(collector: Any, session_id: str, symbol: str = SYMBOL) -> set[int]:
    """Return the ids that the ledger calls missing."""
    return {
        number
        for row in ledger(collector, session_id).values()
        if row["symbol"] == symbol and row["state"] in ("open", "unrecoverable")
        for number in range(int(row["from_id"]), int(row["to_id"]) + 1)
    }


def settled(collector: Any, session_id: str) -> bool:
    return all(row["state"] != "open" for row in ledger(collector, session_id).values())


def agrees(collector: Any, session_id: str) -> list[Any]:
    report = collector.ask("verify", session=session_id)
    parts = [*report["streams"], *report["candles"]]
    return [*report["problems"], *(part["findings"] for part in parts if part["findings"]["count"])]


def begin(collector: Any, exchange: Any, *symbols: str, **arguments: Any) -> str:
    started = collector.ask(
        "start", exchange="sim", symbols=symbols or [SYMBOL], ws_url=exchange.ws_url, rest_url=exchange.rest_url,
        **arguments,
    )  # fmt: skip
    session_id: str = started["session_id"]
    return session_id


def equals_the_exchange(collector: Any, session_id: str, exchange: Any, symbol: str = SYMBOL) -> list[int]:
    """Return the ids in the CSV, once each row was held against what the exchange traded."""
    rows = collector.rows(session_id, "prices", symbol)
    ids = sorted(int(row["trade_id"]) for row in rows)
    truth = exchange.traded(symbol, ids[0], ids[-1])
    assert len(set(ids)) == len(ids)
    assert set(truth) - set(ids) == missing(collector, session_id, symbol)
    assert [row for row in rows if (row["price"], row["volume"]) != tuple(truth[int(row["trade_id"])][1:3])] == []
    assert [int(row["seq"]) for row in rows] == list(range(1, len(rows) + 1))
    return ids


def test_what_a_killed_daemon_missed_is_fetched_when_it_is_back(
    daemon: Callable[..., Any], server: Callable[..., Any]
) -> None:
    """After kill -9 and a while of nothing, the CSV is the exchange's own record, and the ledger says repaired."""
    exchange = server("exchange", "--rate", "400", "--symbols", SYMBOL)
    collector = daemon("[repair]\nenabled = true\n")
    collector.start()
    session_id = begin(collector, exchange)
    collector.wait_rows(session_id, "prices", 800)
    collector.kill()
    before = len(collector.rows(session_id, "prices", SYMBOL))
    collector.start()
    collector.wait_state(session_id, "active")
    collector.wait_rows(session_id, "prices", before + 800)
    wait_until(lambda: ledger(collector, session_id) and settled(collector, session_id), "the gap to be repaired")
    collector.ask("stop", every=True)
    ids = equals_the_exchange(collector, session_id, exchange)
    assert ids == list(range(ids[0], ids[-1] + 1))
    (gap,) = ledger(collector, session_id).values()
    assert (gap["cause"], gap["state"], gap["repaired_from"]) == ("restart", "repaired", "rest")
    assert int(gap["repaired_rows"]) == int(gap["to_id"]) - int(gap["from_id"]) + 1 == int(gap["expected_rows"])
    fetched = [row for row in collector.rows(session_id, "prices", SYMBOL) if row["source"] == "rest"]
    assert sorted(int(row["trade_id"]) for row in fetched) == list(range(int(gap["from_id"]), int(gap["to_id"]) + 1))
    assert agrees(collector, session_id) == []
