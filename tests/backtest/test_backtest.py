"""Strategies on recorded candles: only whole ones, no silent holes, and the same result each time."""

from __future__ import annotations

import json
import os
import random
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from collector.backtest.candles import session_candles
from collector.backtest.indicators import KINDS, Candle, Incremental, computed
from collector.backtest.results import BacktestRows, find_result, result_of, save_result
from collector.backtest.run import Account, optimise, parse_ranges, run_strategy
from collector.backtest.strategies import TEMPLATES, load_strategy
from collector.backtest.tick_strategies import TICK_TEMPLATES
from collector.cli.main import cli
from collector.errors import UnknownName, UsageError
from collector.events import Gap

from .conftest import MINUTE_US, Opener, T, closes

ACCOUNT = Account()
HOLE = Gap("BTC_USDT", "prices", "disconnect", T + 5 * MINUTE_US, T + 6 * MINUTE_US, 1, 500, 500)


def test_only_whole_candles_count(session: Opener) -> None:
    """The session's first and last are partial, and a strategy that trades on them trades on what never was."""
    data = session_candles(session(), "BTC_USDT")
    assert (len(data.frame), data.left_out, data.source) == (398, 2, "csv")
    assert (data.from_us, data.to_us) == (T + MINUTE_US, T + 398 * MINUTE_US)
    assert list(data.frame["Close"]) == closes(400)[1:-1]


@pytest.mark.parametrize("state", ["open", "partial", "unrecoverable"])
def test_a_session_that_lacks_trades_is_refused(session: Opener, state: Any) -> None:
    """Unless that is allowed; then the holes come along."""
    gap = Gap(*[getattr(HOLE, name) for name in HOLE.__struct_fields__[:8]], state)
    reader = session(gaps=[gap])
    with pytest.raises(UsageError, match="1 gaps are not repaired") as refused:
        session_candles(reader, "BTC_USDT")
    assert "--allow-gaps" in refused.value.hint
    (hole,) = session_candles(reader, "BTC_USDT", allow_gaps=True).holes
    assert (hole.from_us, hole.to_us, hole.rows, hole.state) == (HOLE.from_us, HOLE.to_us, 500, state)
    later = session_candles(reader, "BTC_USDT", start=T + 20 * MINUTE_US)
    assert later.holes == ()


def test_a_repaired_gap_is_none(session: Opener) -> None:
    """What is there again is not missing."""
    gap = Gap(*[getattr(HOLE, name) for name in HOLE.__struct_fields__[:8]], "repaired")
    assert session_candles(session(gaps=[gap]), "BTC_USDT").holes == ()


@pytest.mark.parametrize("name", sorted(TEMPLATES))
def test_the_same_data_and_parameters_give_the_same_result(session: Opener, tmp_path: Path, name: str) -> None:
    """To the digit, also from a copy of the session in another folder."""
    data = session_candles(session(), "BTC_USDT")
    copy = tmp_path / "elsewhere"
    shutil.copytree(tmp_path / "data", copy)
    from collector.config import Config
    from collector.reading.session_reader import open_session

    config = Config.model_validate({"daemon": {"data_dir": str(copy)}, "questdb": {"mode": "off"}})
    again = session_candles(open_session("s1", config=config), "BTC_USDT")
    assert again.data_hash == data.data_hash
    strategy = load_strategy(name, {})
    first, second = run_strategy(data, strategy, ACCOUNT), run_strategy(again, strategy, ACCOUNT)
    assert (first.statistics, first.equity, first.trades) == (second.statistics, second.equity, second.trades)
    assert first.trades, "a strategy that never trades proves nothing"
    ids = {
        result_of(one, strategy, ACCOUNT, outcome, 5).backtest_id for one, outcome in ((data, first), (again, second))
    }
    assert len(ids) == 1
    other = result_of(data, strategy, Account(commission=0.002), first, 5)
    assert other.backtest_id not in ids


def test_buy_and_hold_earns_what_the_price_does(session: Opener) -> None:
    """Worked out by hand: bought at the third candle's open, sold at the last one's, a commission on both."""
    data = session_candles(session(), "BTC_USDT")
    outcome = run_strategy(data, load_strategy("buy_and_hold", {}), Account(cash=10_000, commission=0.001))
    (trade,) = outcome.trades
    opened, closed = data.frame["Open"].iloc[2], data.frame["Open"].iloc[-1]
    assert trade["entry_price"] == pytest.approx(opened, rel=1e-9)
    size = trade["size"]
    assert size * opened * 1.001 == pytest.approx(10_000, rel=1e-6)
    expected = 10_000 + size * (closed - opened) - 0.001 * size * (opened + closed)
    assert outcome.statistics["equity_final"] == pytest.approx(expected, rel=1e-6)


def test_the_best_combination_is_found_and_equal_ones_go_to_the_first(session: Opener) -> None:
    """By trying all of them by hand."""
    data = session_candles(session(), "BTC_USDT")
    strategy = load_strategy("moving_average_cross", {})
    ranges = parse_ranges({"fast": "4:12:4", "slow": "20,30"}, strategy)
    assert ranges == {"fast": [4, 8, 12], "slow": [20, 30]}
    told: list[tuple[int, int]] = []
    best = optimise(data, strategy, ACCOUNT, ranges, progress=lambda done, total: told.append((done, total)))
    assert told == [(n, 6) for n in range(1, 7)]
    by_hand = {}
    for fast in ranges["fast"]:
        for slow in ranges["slow"]:
            one = load_strategy("moving_average_cross", {"fast": str(fast), "slow": str(slow)})
            by_hand[fast, slow] = run_strategy(data, one, ACCOUNT).statistics["return_pct"] or 0
    assert (best.parameters["fast"], best.parameters["slow"]) == max(by_hand, key=lambda key: by_hand[key])
    assert best.statistics["return_pct"] == max(by_hand.values())
    assert [row["return_pct"] for row in best.table] == sorted(by_hand.values(), reverse=True)


def test_what_cannot_be_run_says_what_to_do(session: Opener, tmp_path: Path) -> None:
    """Names with the nearest ones, files with what is wrong in them."""
    with pytest.raises(UnknownName, match="breakout"):
        load_strategy("brakeout", {})
    with pytest.raises(UnknownName, match="fast"):
        load_strategy("moving_average_cross", {"fats": "3"})
    with pytest.raises(UsageError, match="10 by default"):
        load_strategy("moving_average_cross", {"fast": "many"})
    with pytest.raises(UsageError, match="too few"):
        session_candles(session("short", closes(3)), "BTC_USDT")
    file = tmp_path / "mine.py"
    for code, sentence in (
        ("x =", "failed while it was read"), ("x = 1", "it has none"),
        ("from backtesting import Strategy\nclass A(Strategy): pass\nclass B(Strategy): pass", "it has A, B"),
    ):  # fmt: skip
        file.write_text(code, encoding="utf-8")
        with pytest.raises(UsageError, match=sentence):
            load_strategy(str(file), {})
    with pytest.raises(UsageError, match="cannot be read"):
        load_strategy(str(tmp_path / "absent.py"), {})


def test_indicators_are_the_same_candle_by_candle(session: Opener) -> None:
    """And nothing of the future is in them: what comes later changes nothing that was said."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    generator = random.Random(seed)
    prices = [100 + generator.gauss(0, 3) for _ in range(120)]
    candles = [Candle(p, p + 1, p - 1, p + 0.25, 5 + n % 3) for n, p in enumerate(prices)]
    for name in KINDS:
        whole = list(computed(name, candles))
        indicator = Incremental(name)
        assert [indicator.add(candle) for candle in candles[:80]] == whole[:80], name
        assert any(value is not None for value in whole[-1])
        assert len(whole[-1]) == len(indicator.value_names)
    average = [row[0] for row in computed("sma", candles, period=5)]
    assert average[:4] == [None] * 4
    assert average[4] == pytest.approx(sum(p + 0.25 for p in prices[:5]) / 5)


STRATEGY = """
from backtesting import Strategy

class Mine(Strategy):
    every = 7
    def init(self): pass
    def next(self):
        if len(self.data) % self.every == 0:
            self.position.close() if self.position else self.buy()
"""


def invoke(folder: Path, *arguments: str) -> Result:
    environment = {name: None for name in os.environ if name.startswith("QUESTDB_")}
    config = folder / "config.toml"
    config.write_text('[questdb]\nmode = "off"\n', encoding="utf-8")
    place = ("--config", str(config), "--data-dir", str(folder / "data"))
    return CliRunner().invoke(cli, [*arguments, *place], env=environment)


@pytest.mark.usefixtures("session")
def test_the_command_writes_a_report_that_needs_nothing_else(session: Opener, tmp_path: Path) -> None:
    """A strategy of one's own, its parameter, the result as JSON, the list, and two side by side."""
    session(gaps=[HOLE])
    file = tmp_path / "mine.py"
    file.write_text(STRATEGY, encoding="utf-8")
    refused = invoke(tmp_path, "backtest", "s1", "--strategy", str(file))
    assert isinstance(refused.exception, UsageError)
    assert "--allow-gaps" in str(refused.exception)
    run = ("backtest", "s1", "--strategy", str(file), "--param", "every=9", "--allow-gaps", "--json")
    answer = invoke(tmp_path, *run)
    assert answer.exit_code == 0, answer.output
    facts = json.loads(answer.stdout)
    assert facts["parameters"] == {"every": 9}
    assert facts["trades"] > 3
    report = Path(facts["report"]).read_text(encoding="utf-8")
    assert "Trades are missing" in report
    assert "g000001" in report
    assert facts["data_hash"] in report
    assert "plx.gif" not in report, "whoever opens the report is counted elsewhere"
    assert re.search(r"(?:<|&lt;)(?:script|link)[^>]{0,99}(?:src|href)=.{0,6}http", report) is None, (
        "it needs the internet"
    )
    assert "default-src 'none'" in report
    again = json.loads(invoke(tmp_path, *run).stdout)
    assert {**again, "created_us": 0} == {**facts, "created_us": 0}
    assert invoke(tmp_path, "backtest", "s1", "--strategy", "buy_and_hold", "--allow-gaps").exit_code == 0
    listed = json.loads(invoke(tmp_path, "backtests", "--json").stdout)["backtests"]
    assert {one["strategy"] for one in listed} == {"mine", "buy_and_hold"}
    both = invoke(tmp_path, "backtests", *(one["backtest_id"] for one in listed))
    assert "sharpe_ratio" in both.stdout


def test_results_and_templates_are_rows(session: Opener, tmp_path: Path, questdb: Any) -> None:
    """The statistics and the curve as JSON; the built-in strategies once, however often they are written."""
    data = session_candles(session(), "BTC_USDT")
    strategy = load_strategy("breakout", {"window": "15"})
    result = result_of(data, strategy, ACCOUNT, run_strategy(data, strategy, ACCOUNT), T)
    save_result(tmp_path / "data", result)
    assert find_result(tmp_path / "data", result.backtest_id[:14]) == result
    rows = BacktestRows(lambda: questdb.settings)
    rows.put(result)
    rows.put(result)
    with questdb.connect() as connection:
        connection.rows("SELECT wait_wal_table('backtest_results')")
        connection.rows("SELECT wait_wal_table('strategy_templates')")
        found = connection.rows(
            "SELECT session_id, interval, data_hash, total_return, parameters, equity_curve FROM backtest_results "
            "WHERE backtest_id = %s", result.backtest_id,
        )  # fmt: skip
        templates = connection.rows("SELECT name, parameters FROM strategy_templates ORDER BY created_at")
    ((session_id, interval, data_hash, total_return, parameters, curve),) = found
    assert (session_id, interval, data_hash) == ("s1", "1m", data.data_hash)
    assert total_return == result.statistics["return_pct"]
    assert json.loads(parameters)["window"] == 15
    assert json.loads(curve)[0] == list(result.equity[0])
    known = [*TEMPLATES.values(), *TICK_TEMPLATES.values()]
    assert [name for name, _ in templates] == [template.title for template in known]
