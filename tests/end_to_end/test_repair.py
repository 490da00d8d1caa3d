"""What was missed is fetched, recorded once and called repaired: with a daemon, kill -9 and an exchange's limits."""

from __future__ import annotations

import hashlib
import random
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest

from trials.parts import wait_until

SYMBOL = "BTC_USDT"
WEIGHT_PER_MIN = 6000
SNAPSHOT_WEIGHT = 250
"""Of a whole book, at the simulated exchange as at Binance."""


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


@pytest.mark.timeout(300)
def test_what_cannot_be_had_is_unrecoverable_and_its_minute_is_the_exchanges_own(
    daemon: Callable[..., Any], server: Callable[..., Any]
) -> None:
    """The ledger says that the trades are gone, and why; the candle is the kline, and every store agrees."""
    exchange = server("exchange", "--rate", "100", "--symbols", SYMBOL, "--without-trades")
    collector = daemon("[repair]\nenabled = true\nkline_delay_s = 3\n")
    collector.start()
    session_id = begin(collector, exchange, data_types=["prices"])
    collector.wait_rows(session_id, "prices", 200)
    exchange.post("/admin/faults?kind=skip&n=40&channel=*@aggTrade")
    wait_until(lambda: ledger(collector, session_id) and settled(collector, session_id), "the gap to be given up")
    (gap,) = ledger(collector, session_id).values()
    assert (gap["state"], int(gap["to_id"]) - int(gap["from_id"]) + 1) == ("unrecoverable", 40)
    assert "404" in gap["detail"]

    def kline() -> list[dict[str, str]]:
        return [row for row in collector.rows(session_id, "ohlcv", SYMBOL) if row["source"] == "kline"]

    found = wait_until(kline, "the minute to be the exchange's own", bound_s=150)
    minute = next(row for row in found if row["interval"] == "1m")
    start_ms = int(minute["timestamp"]) // 1000
    (truth,) = exchange.get(f"/api/v3/klines?symbol=BTCUSDT&interval=1m&startTime={start_ms}&limit=1")
    ours = [minute[name] for name in ("open", "high", "low", "close", "volume", "quote_volume")]
    assert [float(text) for text in ours] == [float(truth[at]) for at in (1, 2, 3, 4, 5, 7)]
    assert (int(minute["trades_count"]), minute["is_closed"]) == (truth[8], "true")
    (gap,) = ledger(collector, session_id).values()
    assert (gap["state"], gap["repaired_from"]) == ("unrecoverable", "kline")
    collector.ask("stop", every=True)
    equals_the_exchange(collector, session_id, exchange)
    assert agrees(collector, session_id) == []


def test_an_ended_session_is_repaired_on_demand(daemon: Callable[..., Any], server: Callable[..., Any]) -> None:
    """Its files are opened again: numbers go on, counts and hashes are those of the files, QuestDB has the rows."""
    exchange = server("exchange", "--rate", "400", "--symbols", "BTC_USDT,ETH_USDT")
    collector = daemon()
    collector.start()
    session_id = begin(collector, exchange, "BTC_USDT", "ETH_USDT")
    for native in ("btcusdt", "ethusdt"):
        rows = len(collector.rows(session_id, "prices", "BTC_USDT")) if native == "ethusdt" else 0
        collector.wait_rows(session_id, "prices", rows + 200)
        exchange.post(f"/admin/faults?kind=skip&n=30&channel={native}@aggTrade")
    wait_until(lambda: len(ledger(collector, session_id)) == 2, "two gaps")
    collector.ask("stop", every=True)
    missed = {symbol: missing(collector, session_id, symbol) for symbol in ("BTC_USDT", "ETH_USDT")}
    assert {symbol: len(ids) for symbol, ids in missed.items()} == {"BTC_USDT": 30, "ETH_USDT": 30}

    planned = collector.ask("repair", session=session_id, dry_run=True)["gaps"]
    assert [(gap["asked"], gap["got"], gap["state"]) for gap in planned] == [(30, 0, "open")] * 2
    assert {symbol: missing(collector, session_id, symbol) for symbol in missed} == missed

    before = collector.ask("show", session=session_id)["manifest"]
    (gap,) = collector.ask("repair", session=session_id, symbols=["BTC_USDT"])["gaps"]
    assert (gap["symbol"], gap["asked"], gap["got"], gap["missing"]) == ("BTC_USDT", 30, 30, 0)
    assert gap["state"] == "repaired"
    equals_the_exchange(collector, session_id, exchange, "BTC_USDT")
    assert missing(collector, session_id, "ETH_USDT") == missed["ETH_USDT"]

    collector.terminate()
    collector.start()
    (gap,) = collector.ask("repair", session=session_id)["gaps"]
    assert (gap["symbol"], gap["got"], gap["state"]) == ("ETH_USDT", 30, "repaired")
    assert collector.ask("repair", session=session_id)["gaps"] == []
    for symbol in missed:
        ids = equals_the_exchange(collector, session_id, exchange, symbol)
        assert ids == list(range(ids[0], ids[-1] + 1))
    manifest = collector.ask("show", session=session_id)["manifest"]
    assert (manifest["state"], manifest["history"]) == (before["state"], before["history"])
    assert manifest["written"] == before["written"] + 60
    assert manifest["open_gaps"] == 0
    for record in manifest["files"]:
        content = (collector.data_dir / f"session_{session_id}" / record["path"]).read_bytes()
        assert record["bytes"] == len(content)
        assert set(record["hashes"].values()) == {hashlib.sha256(content).hexdigest()}
    assert agrees(collector, session_id) == []


@pytest.mark.timeout(400)
def test_a_hundred_disconnects_at_two_thousand_trades_a_second_cost_nothing(
    daemon: Callable[..., Any], server: Callable[..., Any]
) -> None:
    """With ids skipped, repeated and out of order besides: after repair the CSV is the exchange's own record."""
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    exchange = server("exchange", "--rate", "2000", "--symbols", SYMBOL)
    collector = daemon(
        "[repair]\nenabled = true\ninterval_s = 0.3\n[feed]\nbackoff_initial_s = 0.05\nbackoff_cap_s = 0.2\n"
        "reorder_grace_s = 0.3\n"
    )
    collector.start()
    session_id = begin(collector, exchange, data_types=["prices"])
    collector.wait_rows(session_id, "prices", 1000)
    held: list[tuple[int, int]] = []
    for number in range(100):
        if number % 10 == 3:
            exchange.post(f"/admin/faults?kind=skip&n={chance.randint(1, 60)}&channel=*@aggTrade")
        if number % 10 == 5:
            exchange.post(f"/admin/faults?kind=duplicate&n={chance.randint(1, 60)}&channel=*@aggTrade")
        if number % 10 == 7:
            exchange.post(f"/admin/faults?kind=reorder&n={chance.randint(1, 60)}&channel=*@aggTrade")
        exchange.post(f"/admin/faults?kind=drop&after={chance.randint(50, 500)}&channel=*@aggTrade")
        wait_until(lambda: not exchange.get("/admin/faults")["armed"], "the faults to happen")

    def connected() -> bool:
        (link,) = collector.session(session_id)["links"]
        return bool(link["state"] == "open" and link["reconnects"] == 100)

    def received() -> int:
        return sum(row["source"] == "ws" for row in collector.rows(session_id, "prices", SYMBOL))

    wait_until(connected, "the last connection")
    before = received()  # what is repaired meanwhile does not say that the last connection delivers
    wait_until(lambda: received() >= before + 2000, "trades of the last connection")
    wait_until(lambda: settled(collector, session_id), "all gaps to be repaired")
    collector.ask("stop", every=True)
    assert exchange.get("/admin/status")["faults_fired"]["drop"] == 100

    ids = equals_the_exchange(collector, session_id, exchange)
    assert ids == list(range(ids[0], ids[-1] + 1))
    entries = ledger(collector, session_id).values()
    assert {row["state"] for row in entries} == {"repaired"}
    held = sorted((int(row["from_id"]), int(row["to_id"])) for row in entries)
    assert len(held) >= 100
    rows_by_id = {int(row["trade_id"]): row for row in collector.rows(session_id, "prices", SYMBOL)}
    fetched = {number for number, row in rows_by_id.items() if row["source"] == "rest"}
    # Each row of the ledger is a hole with its true bounds: whatever is in it was fetched, and nothing beside it was.
    assert {number for first, last in held for number in range(first, last + 1)} == fetched
    assert sum(last - first + 1 for first, last in held) == len(fetched)
    sent = set().union(*exchange.sent_ids("btcusdt@aggTrade"))
    assert set(ids) - fetched <= sent
    refused = {name: count for name, count in exchange.get("/admin/status")["counts"].items() if "rest_4" in name}
    assert refused == {}
    assert agrees(collector, session_id) == []


@pytest.mark.timeout(300)
def test_a_repair_that_was_killed_is_gone_on_with(daemon: Callable[..., Any], server: Callable[..., Any]) -> None:
    """kill -9 while the first trades of a long gap have come and the rest have not: none is recorded twice."""
    exchange = server("exchange", "--rate", "1500", "--symbols", SYMBOL)
    collector = daemon("[repair]\nenabled = true\n")
    collector.start()
    session_id = begin(collector, exchange, data_types=["prices"])
    collector.wait_rows(session_id, "prices", 1000)
    last = int(collector.rows(session_id, "prices", SYMBOL)[-1]["trade_id"])
    collector.kill()
    wait_until(lambda: exchange.get("/admin/status")["published_us"], "the market")
    wait_until(lambda: len(exchange.traded(SYMBOL, last + 13_000, last + 13_001)) == 2, "a gap of 13,000 trades")
    exchange.post("/admin/faults?kind=slow&seconds=0.3&count=30&path=*aggTrades")
    collector.start()

    def fetched() -> int:
        return sum(row["source"] == "rest" for row in collector.rows(session_id, "prices", SYMBOL))

    wait_until(fetched, "the first trades to be fetched")
    collector.kill()
    known = len({row["trade_id"] for row in collector.rows(session_id, "prices", SYMBOL) if row["source"] == "rest"})
    assert known == fetched() == 10_000
    assert not settled(collector, session_id)
    collector.start()
    collector.wait_state(session_id, "active")
    wait_until(lambda: settled(collector, session_id), "the gap to be repaired", bound_s=120)
    collector.ask("stop", every=True)
    ids = equals_the_exchange(collector, session_id, exchange)
    assert ids == list(range(ids[0], ids[-1] + 1))
    assert {row["state"] for row in ledger(collector, session_id).values()} == {"repaired"}
    assert agrees(collector, session_id) == []


def test_an_exchange_that_wants_to_be_left_alone_is(daemon: Callable[..., Any], server: Callable[..., Any]) -> None:
    """After 429 and 418 not a request comes before the time is over; then the repair goes on where it was."""
    exchange = server("exchange", "--rate", "400", "--symbols", SYMBOL)
    collector = daemon("[repair]\nenabled = true\ninterval_s = 0.2\n")
    collector.start()
    session_id = begin(collector, exchange, data_types=["prices"])
    collector.wait_rows(session_id, "prices", 200)

    def count_repaired() -> int:
        return [row["state"] for row in ledger(collector, session_id).values()].count("repaired")

    def count_answers(status: str) -> int:
        return int(exchange.get("/admin/status")["counts"].get(status, 0))

    for number, (kind, status) in enumerate((("limit", "rest_429"), ("ban", "rest_418"))):
        exchange.post(f"/admin/faults?kind={kind}&seconds=4&path=*aggTrades")
        exchange.post("/admin/faults?kind=skip&n=25&channel=*@aggTrade")
        wait_until(partial(count_answers, status), status)
        asked = count_answers("rest_requests")
        wait_until(lambda before=number: count_repaired() > before, "the gap to be repaired")
        assert (count_answers(status), count_answers("rest_requests")) == (1, asked + 1)
    collector.ask("stop", every=True)
    ids = equals_the_exchange(collector, session_id, exchange)
    assert ids == list(range(ids[0], ids[-1] + 1))
    assert exchange.get("/admin/status")["refused"] == 2


def test_two_sessions_share_what_the_exchange_allows(daemon: Callable[..., Any], server: Callable[..., Any]) -> None:
    """Their books break again and again: the exchange counts no more than one of them may ask for."""
    symbols = ["BTC_USDT", "ETH_USDT", "SOL_USDT", "XRP_USDT"]
    exchange = server(
        "exchange",
        "--rate",
        "300",
        "--symbols",
        ",".join(symbols),
        "--fault",
        "skip:channel=*@depth@100ms,count=4000,n=1",
    )
    collector = daemon("[feed]\nsnapshots_per_s = 50\n")
    collector.start()
    began_s = time.monotonic()
    sessions = [begin(collector, exchange, *symbols, data_types=["orderbook"]) for _ in range(2)]

    def enough() -> dict[str, Any] | None:
        status: dict[str, Any] = exchange.get("/admin/status")
        return status if status["counts"].get("rest_requests", 0) >= 10 else None

    status = wait_until(enough, "requests for books", bound_s=120)
    took_s = time.monotonic() - began_s
    asked = [collector.session(session_id)["rest_requests"] for session_id in sessions]
    assert min(asked) > 0
    # A sixth of the minute's budget at once, and the rest evenly; two of them are for the list of symbols.
    spent = (status["counts"]["rest_requests"] - 2) * SNAPSHOT_WEIGHT
    assert spent <= WEIGHT_PER_MIN / 6 + WEIGHT_PER_MIN * 5 / 6 * took_s / 60
    assert status["refused"] == 0
    assert [count for name, count in status["counts"].items() if name.startswith("rest_4")] == []
