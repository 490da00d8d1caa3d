"""Strategies on ticks: fills that were worked out by hand, in the queue and with latency, and the same result again."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from collector.backtest.results import BacktestRows, find_result, result_of_ticks
from collector.backtest.tick_strategies import TICK_TEMPLATES, load_tick_strategy
from collector.backtest.ticks import Assumptions, TickEvents, run_ticks, session_ticks, settle
from collector.config import Config
from collector.errors import UnknownName, UsageError
from collector.events import Gap
from collector.reading.session_reader import SessionReader, open_session
from collector.session.gaps import GapLedger
from collector.session.manifest import FileRecord, Manifest, save_manifest
from collector.session.rows import format_gap
from collector.storage.files import OperatingSystem
from collector.streams import GAPS, ORDERBOOK, PRICES

from .test_indicators import invoke

pytest.importorskip("hftbacktest")

T = 1_700_000_000_000_000
SECOND_US = 1_000_000
RECEIVED_US = 2_000  # after the exchange's time
FREE = {"maker_fee": 0.0, "taker_fee": 0.0}
CASH = 10_000.0

# Buys one at the price at the second; records each second, and at the end.
BUYER = """
def trade(hbt, recorder, tick_size, lot_size, price=99.0, at=1, market=False):
    for _ in range(at):
        hbt.elapse(1_000_000_000)
    hbt.submit_buy_order(0, 1, price, 1.0, 0, 1 if market else 0, False)
    while hbt.elapse(1_000_000_000) == 0:
        recorder.record(hbt)
"""


def store(data_dir: Path, session_id: str, seconds: int = 30, gaps: Any = ()) -> SessionReader:
    """Write a session: 5 bid at 99, 5 offered at 101, and each second somebody sells 2 at 99, half a second in.

    At second 20 the offer moves to 103. What is 5 deep stays 5 deep: what was sold is bid again.
    """
    directory = data_dir / f"session_{session_id}"
    folder = directory / "BTC_USDT"
    folder.mkdir(parents=True)
    books, trades = [], []
    for n in range(seconds):
        at, ask = T + n * SECOND_US, 101 if n < 20 else 103
        books.append(
            f"{at},99,5,98,7,97.5,{n + 1},{ask},5,{ask + 1},7,{ask + 2},9,{n + 1},{n + 1},{at + RECEIVED_US}\n"
        )
        at += SECOND_US // 2
        trades.append(f"{at},99,2,198,sell,{n + 1},{n + 1},{at + RECEIVED_US},ws,,\n")
    (folder / "orderbook.csv").write_text(ORDERBOOK.header + "".join(books), encoding="utf-8")
    (folder / "prices.csv").write_text(PRICES.header + "".join(trades), encoding="utf-8")
    ledger = GapLedger()
    entries = [ledger.record(gap, T) for gap in gaps]
    (directory / "gaps.csv").write_bytes(
        GAPS.header.encode() + b"".join(format_gap(entry, seq) for seq, entry in enumerate(entries, 1))
    )
    manifest = Manifest(
        session_id=session_id, exchange="sim", symbols=["BTC_USDT"], data_types=["prices", "orderbook"], created_us=T,
        started_us=T, ended_us=T + seconds * SECOND_US, state="completed",
        files=[
            FileRecord(name, "BTC_USDT", f"BTC_USDT/{name}.csv", rows=seconds, next_seq=seconds + 1)
            for name in ("prices", "orderbook")
        ],
    )  # fmt: skip
    save_manifest(directory, manifest, OperatingSystem())
    return opened(data_dir, session_id)


def opened(data_dir: Path, session_id: str) -> SessionReader:
    config = Config.model_validate({"daemon": {"data_dir": str(data_dir)}, "questdb": {"mode": "off"}})
    return open_session(session_id, config=config)


@pytest.fixture
def ticks(tmp_path: Path) -> TickEvents:
    return session_ticks(store(tmp_path / "data", "t1"), "BTC_USDT")


@pytest.fixture
def buyer(tmp_path: Path) -> str:
    path = tmp_path / "buyer.py"
    path.write_text(BUYER, encoding="utf-8")
    return str(path)


def filled_at(data: TickEvents, strategy: str, given: dict[str, str], **assumed: Any) -> tuple[float | None, float]:
    """Return the second whose record first shows the fill (None: never), and what was paid without fees."""
    loaded = load_tick_strategy(strategy, given)
    outcome = run_ticks(data, loaded, Assumptions(**{**FREE, **assumed}), CASH)
    if not outcome.trades:
        return None, 0.0
    (fill,) = outcome.trades
    assert (fill["fills"], fill["position"]) == (1, 1.0)
    return (fill["at_us"] - T) / SECOND_US, -fill["balance"]


def test_steps_and_events_are_what_was_recorded(ticks: TickEvents) -> None:
    """The digits say the steps; there is one event for each trade."""
    assert (ticks.tick_size, ticks.lot_size, ticks.book, ticks.source) == (0.1, 1.0, "orderbook", "csv")
    kinds = [int(event["ev"]) & 0xFF for array in ticks.arrays for event in array]
    assert kinds.count(2) == 30
    assert ticks.from_us == T + RECEIVED_US
    assert settle(ticks, Assumptions(lot_size=0.5)).lot_size == 0.5


def test_an_order_waits_in_the_queue(ticks: TickEvents, buyer: str) -> None:
    """Five are ahead of it when it comes, at 1 s: the sales at 1.5, 2.5 and 3.5 s are 2 each, and the third reaches it.

    Behind what was sold others bid anew, and at a price where nobody sells nothing is filled. The fill
    of 3.5 s shows at the record of 4 s; the clock begins with the first event at the exchange.
    """
    assert filled_at(ticks, buyer, {}, latency="1ms") == (4.0, 99.0)
    assert filled_at(ticks, buyer, {"at": "7"}, latency="1ms") == (10.0, 99.0)
    assert filled_at(ticks, buyer, {"price": "98"}, latency="1ms") == (None, 0.0)


def test_latency_decides_which_price_is_met(ticks: TickEvents, buyer: str) -> None:
    """Sent at 19 s for whatever is offered: 101 until 20 s, 103 from then on; what was recorded took 2 ms each way."""
    sent = {"at": "19", "market": "true"}
    assert filled_at(ticks, buyer, sent)[1] == 101.0
    assert filled_at(ticks, buyer, sent, latency="990ms,1ms")[1] == 101.0
    assert filled_at(ticks, buyer, sent, latency="1001ms,1ms")[1] == 103.0
    # The answer of an order that was filled at 19.002 s comes 1.5 s later, or 2 ms: in other records.
    assert filled_at(ticks, buyer, sent, latency="2ms,1500ms")[0] == 21.0
    assert filled_at(ticks, buyer, sent)[0] == 20.0


def test_fees_and_statistics_are_those_of_the_fills(ticks: TickEvents, buyer: str) -> None:
    """Bought at 99 as a maker, worth 101 in the middle at the end; a taker pays the other fee on 101."""
    fees = Assumptions(latency="1ms", maker_fee=-0.0001, taker_fee=0.0005)
    statistics = run_ticks(ticks, load_tick_strategy(buyer, {}), fees, CASH).statistics
    assert statistics["commissions"] == pytest.approx(-0.0099)
    assert statistics["equity_final"] == pytest.approx(CASH - 99 + 101 + 0.0099)
    assert (statistics["trades"], statistics["position_final"], statistics["trading_value"]) == (1, 1, 99)
    statistics = run_ticks(ticks, load_tick_strategy(buyer, {"market": "true"}), fees, CASH).statistics
    assert statistics["commissions"] == pytest.approx(0.0505)
    # Worth 100 in the middle as soon as it is bought at 101, and 101 in the end.
    assert statistics["equity_final"] == pytest.approx(CASH - 0.0505)
    assert statistics["max_drawdown_pct"] == pytest.approx(-100 * 1.0505 / CASH)


def test_a_market_maker_gives_the_same_result_again(tmp_path: Path, ticks: TickEvents) -> None:
    """From the same ticks in another folder, too; and with another assumption it is another run."""
    again = session_ticks(store(tmp_path / "elsewhere", "t1"), "BTC_USDT")
    assert again.data_hash == ticks.data_hash
    strategy = load_tick_strategy("market_maker", {"half_spread": "0.009", "step_ms": "250"})
    assumed = Assumptions(latency="recorded", queue="prob:2", **FREE)
    first, second = run_ticks(ticks, strategy, assumed, CASH), run_ticks(again, strategy, assumed, CASH)
    assert (first.statistics, first.equity, first.trades) == (second.statistics, second.equity, second.trades)
    assert first.trades, "a strategy that is never filled proves nothing"
    assert abs(first.trades[-1]["position"]) <= 5
    ids = {
        result_of_ticks(data, strategy, one, CASH, first, 7).backtest_id
        for data, one in ((ticks, assumed), (again, assumed), (ticks, Assumptions(queue="prob:3", **FREE)))
    }
    assert len(ids) == 2


def test_a_run_on_ticks_is_a_row(ticks: TickEvents, buyer: str, questdb: Any) -> None:
    """As one on candles is; what it has no number for is NULL."""
    strategy = load_tick_strategy(buyer, {})
    outcome = run_ticks(ticks, strategy, Assumptions(**FREE), CASH)
    result = result_of_ticks(ticks, strategy, Assumptions(**FREE), CASH, outcome, T)
    BacktestRows(lambda: questdb.settings).put(result)
    with questdb.connect() as connection:
        connection.rows("SELECT wait_wal_table('backtest_results')")
        found = connection.rows(
            "SELECT interval, data_hash, trades_count, final_capital, win_rate FROM backtest_results "
            "WHERE backtest_id = %s", result.backtest_id,
        )  # fmt: skip
    assert found == [("ticks", ticks.data_hash, 1, CASH + 2, None)]


def test_what_lacks_books_or_trades_is_refused(tmp_path: Path) -> None:
    """Unless that is allowed."""
    gap = Gap("BTC_USDT", "orderbook", "sequence", T + 5 * SECOND_US, T + 6 * SECOND_US, None, None, None)
    reader = store(tmp_path / "data", "t2", gaps=[gap])
    with pytest.raises(UsageError, match="1 gaps are not repaired"):
        session_ticks(reader, "BTC_USDT")
    assert len(session_ticks(reader, "BTC_USDT", allow_gaps=True).holes) == 1


def test_what_cannot_be_run_says_what_to_do(ticks: TickEvents, buyer: str, tmp_path: Path) -> None:
    """Names with the nearest ones; functions that take something else; what the strategy says itself."""
    with pytest.raises(UnknownName, match="brake"):
        load_tick_strategy("brake", {})
    with pytest.raises(UnknownName, match="prise"):
        load_tick_strategy(buyer, {"prise": "3"})
    file = tmp_path / "mine.py"
    for code, sentence in (
        ("x = 1", "has no function trade"), ("def trade(hbt): pass", "must begin with"), ("x =", "failed while"),
        ("def trade(hbt, recorder, tick_size, lot_size, a): pass", "needs a number"),
    ):  # fmt: skip
        file.write_text(code, encoding="utf-8")
        with pytest.raises(UsageError, match=sentence):
            load_tick_strategy(str(file), {})
    file.write_text("def trade(hbt, recorder, tick_size, lot_size): raise ValueError('no idea')", encoding="utf-8")
    with pytest.raises(UsageError, match="mine failed: ValueError: no idea"):
        run_ticks(ticks, load_tick_strategy(str(file), {}), Assumptions(), CASH)


def test_the_command_runs_on_ticks(tmp_path: Path, buyer: str) -> None:
    """The result with its assumptions, a report that needs nothing else, and a place among the backtests."""
    store(tmp_path / "data", "t1")
    run = ("backtest", "t1", "--engine", "ticks", "--strategy", buyer, "--latency", "1ms", "--commission", "0")
    answer = invoke(tmp_path, *run, "--json")
    assert answer.exit_code == 0, answer.output
    facts = json.loads(answer.stdout)
    assert (facts["engine"], facts["interval"], facts["trades"]) == ("ticks", "ticks", 1)
    assert facts["assumptions"] == {
        "latency": "1ms", "queue": "risk-adverse", "maker_fee": 0.0, "taker_fee": 0.0, "tick_size": 0.1,
        "lot_size": 1.0, "book": "orderbook",
    }  # fmt: skip
    assert facts["statistics"]["equity_final"] == CASH + 2
    report = Path(facts["report"]).read_text(encoding="utf-8")
    assert facts["data_hash"] in report
    assert "risk-adverse" in report
    assert "<polyline" in report
    assert find_result(tmp_path / "data", facts["backtest_id"]).trades[0]["position"] == 1.0
    listed = json.loads(invoke(tmp_path, "backtests", "--json").stdout)["backtests"]
    assert [one["backtest_id"] for one in listed] == [facts["backtest_id"]]
    assert "Assumed" in invoke(tmp_path, *run).stdout
    other = json.loads(invoke(tmp_path, *run, "--cash", "5000", "--json").stdout)
    both = invoke(tmp_path, "backtests", facts["backtest_id"], other["backtest_id"]).stdout
    assert "trading_value" in both
    assert "5,002.0000" in both
    for wrong, sentence in (
        (("--latency", "5"), "no latency"), (("--queue", "fifo"), "no model"), (("--optimize", "at=1:3"), "candles"),
    ):  # fmt: skip
        refused = invoke(tmp_path, *run, *wrong)
        assert isinstance(refused.exception, UsageError)
        assert sentence in str(refused.exception)
    assert set(TICK_TEMPLATES) == {"market_maker"}
