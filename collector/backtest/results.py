"""What backtests gave: a folder each under ``backtests`` in the data directory, and rows of ``backtest_results``."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from collector.backtest.candles import Hole, WholeCandles
from collector.backtest.run import Account, Outcome, canonical
from collector.backtest.strategies import TEMPLATES, Strategy
from collector.backtest.tick_strategies import TICK_TEMPLATES, TickStrategy
from collector.backtest.ticks import Assumptions, TickEvents, settle
from collector.config import QuestDB
from collector.errors import CollectorError, UsageError, nearest_names
from collector.storage.sql import connect, to_timestamp

TICKS = "ticks"
FOLDER = "backtests"
RESULT_FILE = "result.json"
REPORT_FILE = "report.html"
_EQUITY_POINTS = 500  # of the curve in the table; the file has all
_EPOCH_US = 1_700_000_000_000_000  # created_at of the built-in templates: it never changes, so that they are upserts


class BacktestResult(msgspec.Struct, frozen=True, kw_only=True):
    """A run with all that it takes to repeat it. Times are microseconds since the epoch, UTC."""

    backtest_id: str
    created_us: int
    strategy: str
    parameters: dict[str, Any]
    symbol: str
    interval: str
    session_id: str
    from_us: int
    to_us: int
    candles: int
    left_out: int
    source: str
    data_hash: str
    code_hash: str
    cash: float
    commission: float
    statistics: dict[str, float | None]
    equity: list[tuple[int, float]]
    trades: list[dict[str, Any]]
    holes: list[Hole] = []
    tried: int = 1
    best_by: str = ""
    table: list[dict[str, Any]] = []
    engine: str = "candles"
    """``candles`` (Backtesting.py) or ``ticks`` (hftbacktest, where ``candles`` counts events)."""
    assumptions: dict[str, Any] = {}
    """What a run on ticks assumes of the exchange, with the steps of price and size that it took."""
    sources: dict[str, int] = {}
    """Of a run on history, how many candles each source gave."""

    @property
    def trades_count(self) -> int:
        return int(self.statistics.get("trades") or 0)


def result_of(
    data: WholeCandles, strategy: Strategy, account: Account, outcome: Outcome, now_us: int
) -> BacktestResult:
    """Put together a run; its id is made of what went into it, so the same run has the same id."""
    account_told = [account.cash, account.commission]
    told = canonical([data.data_hash, data.symbol, data.interval, strategy.code_hash, outcome.parameters, account_told])
    return BacktestResult(
        backtest_id=f"{strategy.name[:24]}-{hashlib.sha256(told.encode()).hexdigest()[:12]}",
        created_us=now_us,
        strategy=strategy.name,
        parameters=outcome.parameters,
        symbol=data.symbol,
        interval=data.interval,
        session_id=data.session_id,
        from_us=data.from_us,
        to_us=data.to_us,
        candles=len(data.frame),
        left_out=data.left_out,
        source=data.source,
        data_hash=data.data_hash,
        code_hash=strategy.code_hash,
        cash=account.cash,
        commission=account.commission,
        statistics=outcome.statistics,
        equity=outcome.equity,
        trades=outcome.trades,
        holes=list(data.holes),
        tried=outcome.tried,
        best_by=outcome.best_by,
        table=outcome.table,
        sources=data.sources,
    )


def result_of_ticks(
    data: TickEvents, strategy: TickStrategy, assumed: Assumptions, cash: float, outcome: Outcome, now_us: int
) -> BacktestResult:
    """Put together a run on ticks; its id is made the same way."""
    assumptions = {**msgspec.to_builtins(settle(data, assumed)), "book": data.book}
    told = canonical([data.data_hash, data.symbol, strategy.code_hash, outcome.parameters, assumptions, cash])
    return BacktestResult(
        backtest_id=f"{strategy.name[:24]}-{hashlib.sha256(told.encode()).hexdigest()[:12]}",
        created_us=now_us,
        strategy=strategy.name,
        parameters=outcome.parameters,
        symbol=data.symbol,
        interval=TICKS,
        session_id=data.session_id,
        from_us=data.from_us,
        to_us=data.to_us,
        candles=data.events,
        left_out=0,
        source=data.source,
        data_hash=data.data_hash,
        code_hash=strategy.code_hash,
        cash=cash,
        commission=assumed.taker_fee,
        statistics=outcome.statistics,
        equity=outcome.equity,
        trades=outcome.trades,
        holes=list(data.holes),
        engine=TICKS,
        assumptions=assumptions,
    )


def folder_of(data_dir: Path, backtest_id: str) -> Path:
    """Return the folder of a run."""
    return data_dir / FOLDER / backtest_id


def save_result(data_dir: Path, result: BacktestResult) -> Path:
    """Write a run's result in place of an earlier one of the same id; return its folder."""
    folder = folder_of(data_dir, result.backtest_id)
    folder.mkdir(parents=True, exist_ok=True)
    new = folder / f"{RESULT_FILE}.tmp"
    new.write_bytes(msgspec.json.format(msgspec.json.encode(result), indent=1) + b"\n")
    new.replace(folder / RESULT_FILE)
    return folder


def list_results(data_dir: Path) -> list[BacktestResult]:
    """Return every run that can be read, newest first."""
    found = []
    for path in (data_dir / FOLDER).glob(f"*/{RESULT_FILE}"):
        try:
            found.append(msgspec.json.decode(path.read_bytes(), type=BacktestResult))
        except (OSError, msgspec.MsgspecError):
            continue
    return sorted(found, key=lambda one: (one.created_us, one.backtest_id), reverse=True)


def find_result(data_dir: Path, backtest_id: str) -> BacktestResult:
    """Return a run by its id, or by the beginning of it that no other has.

    Raises:
        UsageError: there is none, or several begin like this.
    """
    known = list_results(data_dir)
    found = [one for one in known if one.backtest_id == backtest_id] or [
        one for one in known if one.backtest_id.startswith(backtest_id)
    ]
    if len(found) == 1:
        return found[0]
    if found:
        raise UsageError(f"{len(found)} backtests begin with {backtest_id!r}.", hint="Write more of the id.")
    nearest = nearest_names(backtest_id, [one.backtest_id for one in known])
    hint = f"Did you mean {' or '.join(nearest)}?" if nearest else "See `collector backtests`."
    raise UsageError(f"There is no backtest {backtest_id!r}.", hint=hint)


class BacktestRows:
    """Write ``backtest_results`` and ``strategy_templates``; every call opens a connection of its own and may block.

    Args:
        settings: gives QuestDB's address and credentials.
    """

    def __init__(self, settings: Callable[[], QuestDB]) -> None:
        self._settings = settings

    def put(self, result: BacktestResult) -> None:
        """Write a run's row, and those of the built-in strategies.

        Raises:
            DatabaseUnavailable, DatabaseMisconfigured: it could not be written; the result's file stays.
        """
        step = max(1, len(result.equity) // _EQUITY_POINTS)
        statistics = result.statistics
        with connect(self._settings()) as connection:
            connection.run(
                "INSERT INTO backtest_results (timestamp, backtest_id, strategy, symbol, start_time, end_time, "
                "initial_capital, final_capital, total_return, sharpe_ratio, max_drawdown, win_rate, trades_count, "
                "parameters, session_id, interval, data_hash, code_hash, commission, statistics, equity_curve) "
                "VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s, %s)",
                to_timestamp(result.created_us),
                result.backtest_id,
                result.strategy,
                result.symbol,
                to_timestamp(result.from_us),
                to_timestamp(result.to_us),
                result.cash,
                statistics["equity_final"],
                statistics["return_pct"],
                statistics["sharpe_ratio"],
                statistics["max_drawdown_pct"],
                statistics["win_rate_pct"],
                result.trades_count,
                canonical(result.parameters),
                result.session_id or None,
                result.interval,
                result.data_hash,
                result.code_hash,
                result.commission,
                canonical(statistics),
                canonical(result.equity[::step]),
            )
            for number, template in enumerate((*TEMPLATES.values(), *TICK_TEMPLATES.values())):
                connection.run(
                    "INSERT INTO strategy_templates (created_at, template_id, name, description, strategy, parameters, "
                    "version, is_active, updated_at) VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s)",
                    to_timestamp(_EPOCH_US + number),
                    template.name,
                    template.title,
                    template.description,
                    template.name,
                    canonical(dict(template.parameters)),
                    template.version,
                    True,
                    to_timestamp(_EPOCH_US + number),
                )


def put_quietly(rows: BacktestRows, result: BacktestResult) -> str:
    """Write a run's row where there is a database; return why not, in words, and an empty text where it was."""
    try:
        rows.put(result)
    except CollectorError as error:
        return str(error)
    return ""
