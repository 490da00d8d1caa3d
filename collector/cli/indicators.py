"""``collector indicators``: indicators of what was recorded, into the table or onto the screen."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from collector.cli.options import SESSION, SYMBOLS, place_options
from collector.errors import CollectorError, UnknownName, UsageError

if TYPE_CHECKING:
    from collector.backtest.indicator_rows import IndicatorRows, IndicatorSeries


@click.command()
@click.argument("session", type=SESSION, required=False)
@click.option("--symbol", "symbols", type=SYMBOLS, help="Only these symbols.  [default: all of the session]")
@click.option("--interval", default="1m", show_default=True, help="The candles' length: 1m, 5m, 15m, 1h, 4h, 1d.")
@click.option("--names", help="Which, comma-separated: sma, ema, rsi, macd, bollinger, atr, vwap.  [default: all]")
@click.option("--param", "given", multiple=True, metavar="NAME.PARAMETER=VALUE", help="As sma.period=50; repeatable.")
@click.option("--format", "form", type=click.Choice(("table", "csv", "json")), help="Print the values, too.")
@place_options
def indicators(
    *,
    session: str | None,
    symbols: tuple[str, ...] | None,
    interval: str,
    names: str | None,
    given: tuple[str, ...],
    form: str | None,
    config_path: Path | None,
    data_dir: Path | None,
) -> None:
    """Compute indicators of a session's candles and keep them in QuestDB's table `indicators`.

    Without a session, those of the past candles of --symbol. Only closed candles that lack no trade count, and each
    value is made of its own and earlier candles. Run it again, also while the session runs: what is new or was revised
    is written, the rest stays. A row's name carries the parameters, as sma(20) or macd_signal(12,26,9). VWAP begins
    anew each day (UTC). Without QuestDB they are printed.

    \b
    Example:
      collector indicators 20261121-081500-binance-7f3a --interval 5m
      collector indicators 20261121-081500-binance-7f3a --names sma,rsi --param sma.period=50 --format csv
      collector indicators --symbol BTC_USDT --interval 1h --names macd
    """
    from collector.backtest.indicator_rows import IndicatorRows, history_indicators, session_indicators
    from collector.config import load_config
    from collector.reading.session_reader import open_session
    from collector.storage.embedded import resolve_settings

    wanted = wanted_indicators(names, given)
    config = load_config(config_path, environment=os.environ, overrides={"daemon": {"data_dir": data_dir}})
    compute: Callable[[str], IndicatorSeries]
    if session is None:
        if symbols is None:
            raise UsageError("No session was named.", hint="Name one, or take past candles: --symbol BTC_USDT.")
        compute = partial(history_indicators, config, interval=interval, wanted=wanted)
    else:
        reader = open_session(session, config=config)
        for symbol in symbols or ():
            reader.ohlcv(symbol)  # refuses one that the session does not have, before anything is written
        symbols = symbols or tuple(reader.symbols)
        compute = partial(session_indicators, reader, interval=interval, wanted=wanted)
    rows = None if config.questdb.mode == "off" else IndicatorRows(lambda: resolve_settings(config))
    refusal = "questdb.mode is off." if rows is None else ""
    found = []
    for symbol in symbols:
        series = compute(symbol)
        found.append(series)
        refusal = refusal or _keep(rows, series)
    if refusal:
        click.echo(f"Not in QuestDB: {refusal}", err=True)
    if form or refusal:
        _print(found, form or "table")


def wanted_indicators(names: str | None, given: tuple[str, ...]) -> dict[str, dict[str, float]]:
    """Return which indicators are meant, with the parameters given.

    Raises:
        UnknownName: there is no such indicator.
        UsageError: a parameter is not written as ``sma.period=20``, or is of an indicator that was not asked for.
    """
    from collector.backtest.indicators import KINDS

    chosen = list(KINDS) if names is None else [name.strip().lower() for name in names.split(",") if name.strip()]
    for name in chosen:
        if name not in KINDS:
            raise UnknownName("indicator", name, list(KINDS))
    if not chosen:
        raise UsageError("No indicator was named.", hint=f"One of {', '.join(KINDS)}.")
    wanted: dict[str, dict[str, float]] = {name: {} for name in chosen}
    for one in given:
        key, _, value = one.partition("=")
        name, _, parameter = key.strip().partition(".")
        try:
            number = float(value)
        except ValueError as error:
            raise UsageError(f"{one!r} is no parameter.", hint="Write it as sma.period=20.") from error
        if name not in wanted:
            raise UsageError(f"{one!r}: {name} is not among what is computed.", hint=f"That is {', '.join(wanted)}.")
        wanted[name][parameter] = number
    return wanted


def _keep(rows: IndicatorRows | None, series: IndicatorSeries) -> str:
    """Write a series and say what was; return why not, in words, and an empty text where it was."""
    if rows is None:
        return ""
    try:
        written = rows.put(series)
    except CollectorError as error:
        return str(error)
    withdrawn = f", {written.withdrawn:,} withdrawn" if written.withdrawn else ""
    click.echo(
        f"{series.symbol} {series.interval}: {series.candles:,} candles from {series.source}, "
        f"{len(series.values):,} values: {written.new:,} new, {written.changed:,} changed{withdrawn}.",
        err=True,
    )
    return ""


def _print(found: list[IndicatorSeries], form: str) -> None:
    records = [
        (value.time_us, series.symbol, series.interval, value.name, value.value, value.parameters)
        for series in found
        for value in series.values
    ]
    names = ("timestamp", "symbol", "interval", "name", "value", "parameters")
    if form == "json":
        from collector.cli.output import print_json

        print_json({"indicators": [_record(names, record) for record in records]})
    elif form == "csv":
        import csv
        import io

        page = io.StringIO()
        writer = csv.writer(page, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(records)
        click.echo(page.getvalue(), nl=False)
    else:
        _print_table(records)


def _record(names: tuple[str, ...], record: tuple[Any, ...]) -> dict[str, Any]:
    import json

    fields = dict(zip(names, record, strict=True))
    return {**fields, "parameters": json.loads(fields["parameters"])}


def _print_table(records: list[tuple[Any, ...]]) -> None:
    from collector.cli.output import print_view
    from collector.cli.render import make_table
    from collector.wording import time_text

    table = make_table("TIME", "SYMBOL", "INTERVAL", "NAME", ">VALUE")
    for time_us, symbol, interval, name, value, _ in records:
        table.add_row(time_text(time_us), symbol, interval, name, f"{value:,.8g}")
    print_view(table)
