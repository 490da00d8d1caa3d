"""A backtest from its order to its folder: read, run, keep, draw; each step is told to whoever waits."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from collector.backtest.candles import WholeCandles, session_candles
from collector.backtest.report import write_report
from collector.backtest.results import (
    REPORT_FILE,
    BacktestResult,
    BacktestRows,
    put_quietly,
    result_of,
    save_result,
)
from collector.backtest.run import Account, Outcome, run_strategy
from collector.backtest.strategies import Strategy, load_strategy
from collector.clock import SystemClock
from collector.config import Config
from collector.reading.session_reader import open_session
from collector.storage.embedded import resolve_settings

Tell = Callable[[str, float], None]
"""Takes what is done now, and how much of the whole is behind it (0 to 1)."""


@dataclass(frozen=True, slots=True)
class Order:
    """What is run on what. ``parameters`` are text, as a person writes them; times ISO 8601 or None."""

    session_id: str
    symbol: str
    interval: str = "1m"
    strategy: str = "moving_average_cross"
    parameters: Mapping[str, str] = field(default_factory=dict)
    start: str | None = None
    end: str | None = None
    account: Account = field(default_factory=Account)
    allow_gaps: bool = False


def perform(config: Config, order: Order, tell: Tell = lambda _step, _share: None) -> BacktestResult:
    """Run an order and keep its result with its report; its row goes to QuestDB where there is one. Blocking.

    Raises:
        UsageError: trades are missing and that is not allowed, there are too few candles, or the strategy failed.
        SessionNotFound, UnknownName: what is named does not exist.
    """
    strategy = load_strategy(order.strategy, order.parameters)
    tell("Reading the candles", 0.1)
    reader = open_session(order.session_id, config=config)
    data = session_candles(
        reader, order.symbol, order.interval, order.start, order.end, allow_gaps=order.allow_gaps
    )  # fmt: skip
    tell(f"Running {order.strategy} on {len(data.frame)} candles", 0.4)
    outcome = run_strategy(data, strategy, order.account)
    tell("Drawing the report", 0.7)
    result, _ = keep(config.daemon.data_dir, data, strategy, order.account, outcome, SystemClock().now_us())
    tell("Keeping the result", 0.95)
    if config.questdb.mode != "off":
        put_quietly(BacktestRows(lambda: resolve_settings(config)), result)
    return result


def keep(
    data_dir: Path, data: WholeCandles, strategy: Strategy, account: Account, outcome: Outcome, now_us: int
) -> tuple[BacktestResult, Path]:
    """Write a run's result and its report, with the plot of the parameters that it ended with; return its folder."""
    result = result_of(data, strategy, account, outcome, now_us)
    folder = save_result(data_dir, result)
    plot = folder / "plot.html"
    run_strategy(data, replace(strategy, parameters=outcome.parameters), account, plot=plot)
    write_report(folder / REPORT_FILE, result, plot)
    return result, folder
