"""``collector backtest`` and ``collector backtests``: strategies on what was recorded, and what they gave."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from collector.cli.options import SESSION, data_dir_of, json_option, place_options
from collector.errors import UsageError

if TYPE_CHECKING:
    from collector.backtest.results import BacktestResult


def _pairs(given: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for one in given:
        key, equals, value = one.partition("=")
        if not equals or not key.strip():
            raise UsageError(f"{one!r} is no parameter.", hint="Write it as fast=10.")
        found[key.strip()] = value.strip()
    return found


@click.command()
@click.argument("session", type=SESSION, required=False)
@click.option(
    "--engine", type=click.Choice(("candles", "ticks")), default="candles", show_default=True, help="What it is run on."
)
@click.option("--strategy", help="A built-in one, or FILE.py.  [default: moving_average_cross; market_maker]")
@click.option("--symbol", help="Which symbol; needed where the session has several.")
@click.option("--interval", default="1m", show_default=True, help="The candles' length; any, as 90s or 4h.")
@click.option("--from", "start", help="Begin at this time (UTC), as 2026-11-21T08:00.")
@click.option("--to", "end", help="End before this time (UTC).")
@click.option("--param", "given", multiple=True, metavar="NAME=VALUE", help="A parameter of the strategy; repeatable.")
@click.option("--optimize", "tried", multiple=True, metavar="NAME=5:50:5", help="Values to try out; also 5,10,20.")
@click.option("--by", default="return_pct", show_default=True, help="The statistic that chooses the best combination.")
@click.option(
    "--cash",
    type=click.FloatRange(min=0, min_open=True),
    default=10_000.0,
    show_default=True,
    help="In quote currency.",
)
@click.option(
    "--commission", type=click.FloatRange(0, 0.5), default=0.001, show_default=True, help="Share of an order."
)
@click.option("--latency", default="recorded", show_default=True, help="Of orders (ticks): recorded, 5ms, or 5ms,8ms.")
@click.option("--queue", default="risk-adverse", show_default=True, help="Model of the queue (ticks), or prob[:POWER].")
@click.option("--maker-fee", type=click.FloatRange(-0.5, 0.5), help="(ticks)  [default: --commission]")
@click.option("--taker-fee", type=click.FloatRange(-0.5, 0.5), help="(ticks)  [default: --commission]")
@click.option("--tick-size", type=click.FloatRange(min=0), default=0.0, help="(ticks)  [default: by the digits]")
@click.option("--lot-size", type=click.FloatRange(min=0), default=0.0, help="(ticks)  [default: by the digits]")
@click.option("--allow-gaps", is_flag=True, help="Run it though trades are missing; the report shows where.")
@json_option
@place_options
def backtest(
    *,
    session: str | None,
    engine: str,
    strategy: str | None,
    symbol: str | None,
    interval: str,
    start: str | None,
    end: str | None,
    given: tuple[str, ...],
    tried: tuple[str, ...],
    by: str,
    cash: float,
    commission: float,
    latency: str,
    queue: str,
    maker_fee: float | None,
    taker_fee: float | None,
    tick_size: float,
    lot_size: float,
    allow_gaps: bool,
    as_json: bool,
    config_path: Path | None,
    data_dir: Path | None,
) -> None:
    """Run a strategy on what a session recorded, or on past candles, and write its result and a report with the plot.

    Only whole candles count: a session's partial first and last ones are left out, and a session that lacks trades is
    refused unless --allow-gaps. The same data and parameters give the same result, to the digit.

    Built-in strategies: moving_average_cross, rsi_reversal, breakout, buy_and_hold; on ticks: market_maker.

    With --engine ticks hftbacktest runs it on every trade and change of the book, with latency, queue and fees; a
    FILE.py then has a function trade(hbt, recorder, tick_size, lot_size, ...), whose other parameters have defaults.

    \b
    Example:
      collector backtest 20261121-081500-binance-7f3a --strategy moving_average_cross --param fast=5 --param slow=20
      collector backtest 20261121-081500-binance-7f3a --optimize fast=5:20:5 --optimize slow=30:60:10 --by sharpe_ratio
      collector backtest 20261121-081500-binance-7f3a --engine ticks --latency 5ms --maker-fee -0.0001
      collector backtest --symbol BTC_USDT --interval 1h --from 2026-10-01 --to 2026-11-01 --strategy breakout
    """  # fmt: skip
    from collector.backtest.candles import session_candles
    from collector.backtest.history_candles import history_candles
    from collector.backtest.job import keep
    from collector.backtest.report import write_report
    from collector.backtest.results import (
        REPORT_FILE,
        BacktestRows,
        put_quietly,
        result_of_ticks,
        save_result,
    )
    from collector.backtest.run import Account, optimise, parse_ranges, run_strategy
    from collector.backtest.strategies import load_strategy
    from collector.backtest.tick_strategies import load_tick_strategy
    from collector.backtest.ticks import Assumptions, check, run_ticks, session_ticks
    from collector.clock import SystemClock
    from collector.config import load_config
    from collector.reading.session_reader import open_session
    from collector.storage.embedded import resolve_settings

    config = load_config(config_path, environment=os.environ, overrides={"daemon": {"data_dir": data_dir}})
    if session is None and (symbol is None or engine == "ticks"):
        raise UsageError(
            "No session was named.", hint="Name one, or run on past candles: --symbol BTC_USDT --interval 1h."
        )
    reader = open_session(session, config=config) if session is not None else None
    chosen = symbol or _only(reader.symbols if reader else [])
    name = strategy or ("market_maker" if engine == "ticks" else "moving_average_cross")
    where = data_dir_of(config_path, data_dir)
    now_us = SystemClock().now_us()
    if engine == "ticks" and reader is not None:
        if tried:
            raise UsageError(
                "--optimize is for candles.", hint="Run each value on ticks, and see `collector backtests`."
            )
        function = load_tick_strategy(name, _pairs(given))
        assumed = Assumptions(
            latency=latency, queue=queue, tick_size=tick_size, lot_size=lot_size,
            maker_fee=commission if maker_fee is None else maker_fee,
            taker_fee=commission if taker_fee is None else taker_fee,
        )  # fmt: skip
        check(assumed)
        ticks = session_ticks(reader, chosen, start, end, allow_gaps=allow_gaps)
        result = result_of_ticks(ticks, function, assumed, cash, run_ticks(ticks, function, assumed, cash), now_us)
        folder = save_result(where, result)
        write_report(folder / REPORT_FILE, result, None)
    else:
        ranges = _pairs(tried)
        firsts = {key: value.split(":")[0].split(",")[0] for key, value in ranges.items()}
        loaded = load_strategy(name, {**firsts, **_pairs(given)})
        if reader is not None:
            data = session_candles(reader, chosen, interval, start, end, allow_gaps=allow_gaps)
        else:
            data = history_candles(config, chosen, interval, start, end, allow_gaps=allow_gaps)
        account = Account(cash, commission)
        if ranges:
            with _progress(as_json) as tell:
                outcome = optimise(data, loaded, account, parse_ranges(ranges, loaded), by=by, progress=tell)
        else:
            outcome = run_strategy(data, loaded, account)
        result, folder = keep(where, data, loaded, account, outcome, now_us)
    refusal = (
        "" if config.questdb.mode == "off" else put_quietly(BacktestRows(lambda: resolve_settings(config)), result)
    )
    if as_json:
        from collector.cli.output import print_json

        print_json({**_short(result), "report": str(folder / REPORT_FILE), "database": refusal or "written"})
        return
    _print_result(result, folder / REPORT_FILE)
    if refusal:
        click.echo(f"Not in QuestDB: {refusal}", err=True)


@click.command()
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--session", help="Only those on this session.")
@json_option
@place_options
def backtests(
    *, ids: tuple[str, ...], session: str | None, as_json: bool, config_path: Path | None, data_dir: Path | None
) -> None:
    """List the backtests of a data directory, newest first; with several ids, hold them side by side.

    \b
    Example:
      collector backtests
      collector backtests breakout-1f3a moving_average_cross-77b0
    """
    from collector.backtest.results import find_result, list_results

    where = data_dir_of(config_path, data_dir)
    found = [find_result(where, one) for one in ids] or list_results(where)
    found = [one for one in found if session in (None, one.session_id)]
    if as_json:
        from collector.cli.output import print_json

        print_json({"backtests": [_short(one) for one in found]})
        return
    if not found:
        click.echo("There is no backtest yet. Run one with `collector backtest SESSION`.")
        return
    from collector.cli.output import print_view
    from collector.cli.render import make_table
    from collector.wording import time_text

    if len(ids) > 1:
        print_view(_side_by_side(found))
        return
    table = make_table(
        "BACKTEST",
        "SESSION",
        "SYMBOL",
        "INTERVAL",
        "PARAMETERS",
        ">RETURN %",
        ">SHARPE",
        ">DRAWDOWN %",
        ">TRADES",
        "RUN",
    )
    for one in found:
        table.add_row(
            one.backtest_id, one.session_id or "history", one.symbol, one.interval, _parameters(one),
            *(_number(one.statistics.get(name)) for name in ("return_pct", "sharpe_ratio", "max_drawdown_pct")),
            str(one.trades_count), time_text(one.created_us),
        )  # fmt: skip
    print_view(table)


def _only(symbols: list[str]) -> str:
    if len(symbols) == 1:
        return symbols[0]
    raise UsageError("The session has several symbols.", hint=f"Choose one with --symbol: {', '.join(symbols[:10])}.")


def _progress(silent: bool) -> Any:
    import contextlib

    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    @contextlib.contextmanager
    def shown() -> Any:
        console = Console(stderr=True, quiet=silent)
        columns = (TextColumn("trying out"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Progress(*columns, console=console, transient=True) as bar:
            task = bar.add_task("", total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)

    return shown()


def _short(result: BacktestResult) -> dict[str, Any]:
    import msgspec

    fields: dict[str, Any] = msgspec.to_builtins(result)
    fields.pop("equity")
    fields["trades"] = result.trades_count
    return fields


def _print_result(result: BacktestResult, report: Path) -> None:
    from collector.cli.output import print_view
    from collector.cli.render import facts
    from collector.wording import count_text, time_text

    span = f"{time_text(result.from_us)} to {time_text(result.to_us)}"
    counted = f"{count_text(result.candles)} of {result.symbol} {result.interval} from {result.source}, {span}"
    left_out = [("Left out", f"{count_text(result.left_out)} candles that are not whole")]
    assumed = [("Assumed", ", ".join(f"{key}={value}" for key, value in result.assumptions.items()))]
    print_view(
        facts(
            [
                ("Backtest", result.backtest_id),
                ("Strategy", f"{result.strategy} ({_parameters(result)})"),
                ("Candles" if result.engine == "candles" else "Events", counted),
                *((f"From {name}", count_text(count)) for name, count in result.sources.items()),
                *(left_out if result.engine == "candles" else assumed),
                ("Gaps", f"{len(result.holes)} not repaired" if result.holes else "none"),
                *((name, _number(result.statistics.get(name))) for name in _SHOWN),
                ("Data", result.data_hash),
                ("Report", str(report)),
            ]
        )
    )  # fmt: skip


_SHOWN = (
    "return_pct",
    "buy_and_hold_return_pct",
    "sharpe_ratio",
    "max_drawdown_pct",
    "trades",
    "win_rate_pct",
    "equity_final",
)


def _side_by_side(found: list[BacktestResult]) -> Any:
    from collector.cli.render import make_table

    table = make_table("", *(f">{one.backtest_id}" for one in found))
    # Runs on ticks and on candles have some statistics of their own.
    names = dict.fromkeys(name for one in found for name in one.statistics)
    rows: list[tuple[str, list[str]]] = [
        ("parameters", [_parameters(one) for one in found]),
        ("session", [one.session_id or "history" for one in found]),
        ("data", [one.data_hash[:12] for one in found]),
        ("engine", [one.engine for one in found]),
        *((name, [_number(one.statistics.get(name)) for one in found]) for name in names),
    ]
    for name, values in rows:
        table.add_row(name, *values)
    return table


def _parameters(result: BacktestResult) -> str:
    return ", ".join(f"{key}={value}" for key, value in result.parameters.items()) or "-"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.4f}"
