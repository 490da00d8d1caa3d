"""Run a strategy on candles with Backtesting.py: the same data and parameters give the same result, to the digit."""

from __future__ import annotations

import contextlib
import io
import itertools
import json
import math
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from collector.backtest.candles import WholeCandles
from collector.backtest.strategies import Strategy
from collector.errors import UsageError
from collector.reading.arrow import extra

_UNIT = 1e-8  # the smallest part of a coin that is bought, as most exchanges have it
_MAX_COMBINATIONS = 100_000
_STATISTICS = {
    "Return [%]": "return_pct", "Buy & Hold Return [%]": "buy_and_hold_return_pct",
    "Return (Ann.) [%]": "return_ann_pct",
    "Volatility (Ann.) [%]": "volatility_ann_pct", "Sharpe Ratio": "sharpe_ratio", "Sortino Ratio": "sortino_ratio",
    "Calmar Ratio": "calmar_ratio", "Max. Drawdown [%]": "max_drawdown_pct", "Avg. Drawdown [%]": "avg_drawdown_pct",
    "Exposure Time [%]": "exposure_time_pct", "Equity Final [$]": "equity_final", "Equity Peak [$]": "equity_peak",
    "Commissions [$]": "commissions", "# Trades": "trades", "Win Rate [%]": "win_rate_pct",
    "Best Trade [%]": "best_trade_pct", "Worst Trade [%]": "worst_trade_pct", "Avg. Trade [%]": "avg_trade_pct",
    "Profit Factor": "profit_factor", "Expectancy [%]": "expectancy_pct", "SQN": "sqn", "Kelly Criterion": "kelly",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Account:
    """What is traded with: ``commission`` is the share of each order's value, ``cash`` in quote currency."""

    cash: float = 10_000.0
    commission: float = 0.001


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a run gave. ``equity`` is the account's value after each candle (by microseconds); ``trades`` in order."""

    statistics: dict[str, float | None]
    equity: list[tuple[int, float]]
    trades: list[dict[str, Any]]
    parameters: dict[str, Any]
    tried: int = 1
    best_by: str = ""
    table: list[dict[str, Any]] = field(default_factory=list)
    """Where parameters were tried out: each combination with what it gave, best first."""


def run_strategy(data: WholeCandles, strategy: Strategy, account: Account, *, plot: Path | None = None) -> Outcome:
    """Run a strategy once.

    Args:
        plot: where to write the library's own interactive plot as one HTML file.

    Raises:
        UsageError: the strategy failed, with what it said.
    """
    statistics, machine = _run(data, strategy, account, strategy.parameters)
    if plot is not None:
        with _quiet():
            _plot(machine, plot)
    return _outcome(data, statistics, strategy.parameters)


def optimise(
    data: WholeCandles,
    strategy: Strategy,
    account: Account,
    ranges: Mapping[str, Sequence[Any]],
    *,
    by: str = "return_pct",
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> Outcome:
    """Run a strategy with every combination of parameters and return the best run.

    Equal results go to the combination that comes first, so that the answer is always the same.

    Raises:
        UsageError: there are too many combinations, ``by`` is no statistic, or the strategy failed.
    """
    if by not in _STATISTICS.values():
        raise UsageError(f"{by!r} is no statistic.", hint=f"One of {', '.join(_STATISTICS.values())}.")
    combinations = [dict(zip(ranges, values, strict=True)) for values in itertools.product(*ranges.values())]
    if len(combinations) > _MAX_COMBINATIONS:
        sentence = f"{len(combinations)} combinations are more than {_MAX_COMBINATIONS}."
        raise UsageError(sentence, hint="Use larger steps.")
    table = []
    for done, combination in enumerate(combinations, 1):
        statistics, _ = _run(data, strategy, account, {**strategy.parameters, **combination})
        values = _named(statistics)
        table.append({**combination, **{name: values[name] for name in (by, "trades", "max_drawdown_pct")}})
        progress(done, len(combinations))
    order = sorted(range(len(table)), key=lambda i: (-_rank(table[i][by]), i))
    best = {**strategy.parameters, **combinations[order[0]]}
    statistics, _ = _run(data, strategy, account, best)
    found = _outcome(data, statistics, best)
    return Outcome(found.statistics, found.equity, found.trades, best, len(table), by, [table[i] for i in order[:100]])


def _run(data: WholeCandles, strategy: Strategy, account: Account, parameters: Mapping[str, Any]) -> tuple[Any, Any]:
    library = extra("backtesting.lib")
    machine = library.FractionalBacktest(
        data.frame, strategy.kind, cash=account.cash, commission=account.commission, fractional_unit=_UNIT,
        exclusive_orders=True, finalize_trades=True,
    )  # fmt: skip
    try:
        with _quiet():
            return machine.run(**parameters), machine
    except Exception as error:
        raise UsageError(f"The strategy {strategy.name} failed: {type(error).__name__}: {error}.") from error


def _plot(machine: Any, path: Path) -> None:
    """Write the plot with everything in it: the library would have the page fetch its scripts from elsewhere."""
    settings = extra("bokeh.settings").settings
    before = settings.resources.get_value() if hasattr(settings.resources, "get_value") else None
    settings.resources = "inline"
    try:
        machine.plot(filename=str(path), open_browser=False)
    finally:
        if before is not None:
            settings.resources = before


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Keep the library's progress bars and warnings to itself."""
    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        yield


def _outcome(data: WholeCandles, statistics: Any, parameters: Mapping[str, Any]) -> Outcome:
    curve = statistics["_equity_curve"]["Equity"]
    equity = [(int(at.value // 1000), float(value)) for at, value in zip(data.frame.index, curve, strict=True)]
    trades = [
        {
            "size": float(row.Size), "entry_price": float(row.EntryPrice), "exit_price": float(row.ExitPrice),
            "entry_us": int(row.EntryTime.value // 1000), "exit_us": int(row.ExitTime.value // 1000),
            "profit": float(row.PnL), "return_pct": 100 * float(row.ReturnPct),
        }
        for row in statistics["_trades"].itertuples()
    ]  # fmt: skip
    return Outcome(_named(statistics), equity, trades, dict(parameters))


def _named(statistics: Any) -> dict[str, float | None]:
    """Return the statistics under names of our own; what is not a number is None."""
    found: dict[str, float | None] = {}
    for theirs, ours in _STATISTICS.items():
        value = float(statistics.get(theirs, math.nan))
        found[ours] = value if math.isfinite(value) else None
    return found


def _rank(value: float | None) -> float:
    return -math.inf if value is None else value


def parse_ranges(text: Mapping[str, str], strategy: Strategy) -> dict[str, list[Any]]:
    """Return the values to try of each parameter, from ``5:50:5`` (both ends included) or ``5,10,20``.

    Raises:
        UsageError: it is neither.
    """
    from collector.backtest.strategies import value_like

    found: dict[str, list[Any]] = {}
    for key, spelled in text.items():
        own = strategy.parameters[key]
        if ":" in spelled:
            parts = [value_like(own if isinstance(own, int) else 0.0, part, key) for part in spelled.split(":")]
            first, last, step = (*parts, 1)[:3]
            if step <= 0 or last < first:
                raise UsageError(f"{spelled!r} is no range for {key}.", hint="Write first:last:step, as 5:50:5.")
            count = int((last - first) / step + 1e-9) + 1
            found[key] = [first + i * step for i in range(count)]
        else:
            found[key] = [value_like(own, part, key) for part in spelled.split(",")]
    return found


def canonical(value: Any) -> str:
    """Return JSON that is the same text for the same values."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
