"""The commands of history: ``backfill`` and what keeps past candles whole."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from collector.cli.options import SYMBOLS, data_dir_of, json_option, place_options
from collector.errors import UsageError

if TYPE_CHECKING:
    from rich.table import Table

    from collector.config import QuestDB

_INTERVALS = ("1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "12h", "1d", "1w")


@click.command()
@click.option("--start-year", type=click.IntRange(2009, 2100), help="From the first of January of this year on.")
@click.option(
    "--from", "begin", metavar="TIME", default="", help="From this time on: 2024-01-31 or 2024-01-31T12:00 (UTC)."
)
@click.option("--to", "end", metavar="TIME", default="", help="Up to this time; without it, up to now.")
@click.option("--interval", type=click.Choice(_INTERVALS), default="1h", show_default=True, help="Of the candles.")
@click.option("--symbols", type=SYMBOLS, help="BTC_USDT,ETH_USDT; without them the first by market cap.")
@click.option("--max-coins", type=click.IntRange(1, 5000), help="How many, where no symbols are named.")
@click.option("--hourly-only", is_flag=True, help="Only the newest closed hour.")
@click.option("--sources", default="", metavar="NAMES", help="Whom to ask, first to last, in place of history.sources.")
@json_option
@place_options
def backfill(
    *,
    start_year: int | None,
    begin: str,
    end: str,
    interval: str,
    symbols: tuple[str, ...] | None,
    max_coins: int | None,
    hourly_only: bool,
    sources: str,
    as_json: bool,
    config_path: Path | None,
    data_dir: Path | None,
) -> None:
    """Collect past candles: each from the first source that has it, none that is held already.

    It can be ended at any point: the daemon goes on with it by itself, and the same command asks only for what is
    missing. Every row says its source; what nobody has is in the session's ledger.

    \b
    Example:
      collector backfill --start-year 2020 --symbols BTC_USDT,ETH_USDT
      collector backfill --from 2026-11-01 --interval 1m --symbols BTC_USDT --sources binance,okx
    """
    from collector.requests import BackfillRequest

    if sum(map(bool, (start_year, begin, hourly_only))) > 1:
        raise UsageError("--start-year, --from and --hourly-only exclude each other.")
    if hourly_only:
        interval, from_us = "1h", _now_us() - 2 * 3_600_000_000
    else:
        from_us = _year_us(start_year or 2020) if not begin else parse_time(begin)
    request = BackfillRequest(
        from_us=from_us,
        to_us=parse_time(end) if end else None,
        task="hourly" if hourly_only else "backfill",
        interval=interval,
        symbols=tuple(symbols or ()),
        max_coins=max_coins,
        sources=tuple(name.strip() for name in sources.split(",") if name.strip()),
    )
    _run(request, as_json, config_path, data_dir)


def _run(request: Any, as_json: bool, config_path: Path | None, data_dir: Path | None) -> None:
    from collector.cli.daemon import ensure_daemon
    from collector.control import ask
    from collector.requests import to_arguments

    folder = data_dir_of(config_path, data_dir)
    ensure_daemon(config_path, folder)
    say = None if as_json else _Teller()
    answer = ask(folder, "backfill", to_arguments(request), timeout_s=None, on_progress=say)
    if as_json:
        from collector.cli.output import print_json

        print_json(answer)
    else:
        from collector.cli.output import print_view

        print_view(_table(answer))
        click.echo(_summary(answer))
    if answer["failed"] and not answer["successful"]:
        raise SystemExit(1)


class _Teller:
    """Say how far a run is, a line at a time: it may be watched over a slow line, or written to a file."""

    def __call__(self, line: Any) -> None:
        if not isinstance(line, dict):
            click.echo(f"{line} …", err=True)
        elif "follows" in line:
            click.echo(f"session {line['follows']} does that already: following it …", err=True)
        else:
            left = "" if line["left_s"] is None else f", about {_duration(line['left_s'])} left"
            source = f" from {line['source']}" if line["source"] else ""
            click.echo(
                f"{line['symbols_done']}/{line['symbols_total']} symbols, {line['share']:.1%}: {line['symbol']}{source}"
                f", {line['rows']:,} candles, {line['requests']:,} requests{left}",
                err=True,
            )


def _table(answer: dict[str, Any]) -> Table:
    from collector.cli.render import make_table
    from collector.wording import count_text, time_text

    table = make_table("SYMBOL", "STATE", ">NEW", ">HELD", ">MISSING", ">NO TRADES", "FROM", "TO", "SOURCES", "REASON")
    for row in answer["symbols"]:
        sources = ", ".join(f"{name} {count_text(rows)}" for name, rows in row["sources"].items()) or "-"
        table.add_row(
            row["symbol"], row["state"], count_text(row["rows"]), count_text(row["held"]), count_text(row["missing"]),
            count_text(row["no_trades"]), time_text(row["first_us"]), time_text(row["last_us"]), sources,
            row["reason"] or "-",
        )  # fmt: skip
    return table


def _summary(answer: dict[str, Any]) -> str:
    used = ", ".join(f"{name} {rows:,}" for name, rows in answer["sources_used"].items()) or "none"
    return (
        f"{answer['successful']} of {answer['total_symbols']} symbols, {answer['failed']} failed; "
        f"{answer['total_records']:,} candles in {_duration(answer['seconds'])} (session {answer['session_id']}); "
        f"sources: {used}."
    )


def _duration(seconds: float) -> str:
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours} h {minutes} min"
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def parse_time(text: str) -> int:
    """Return a time that a person wrote, UTC where it names no zone, in microseconds; raise UsageError else."""
    try:
        at = datetime.fromisoformat(text)
    except ValueError as error:
        raise UsageError(f"{text!r} is no time.", hint="Write it like 2024-01-31 or 2024-01-31T12:00.") from error
    at = at if at.tzinfo is not None else at.replace(tzinfo=UTC)
    return round(at.timestamp()) * 1_000_000


def _year_us(year: int) -> int:
    return round(datetime(year, 1, 1, tzinfo=UTC).timestamp()) * 1_000_000


def _now_us() -> int:
    return round(datetime.now(UTC).timestamp() * 1_000_000)


@click.command("fill-gaps")
@click.option("--days", type=click.IntRange(1, 36500), default=30, show_default=True, help="How far back.")
@click.option("--interval", type=click.Choice(_INTERVALS), default="1h", show_default=True, help="Of the candles.")
@click.option("--symbols", type=SYMBOLS, help="Only these; without them all that are held.")
@json_option
@place_options
def fill_gaps(
    *,
    days: int,
    interval: str,
    symbols: tuple[str, ...] | None,
    as_json: bool,
    config_path: Path | None,
    data_dir: Path | None,
) -> None:
    """Ask every source again for the past candles that are missing of the last days.

    \b
    Example:
      collector fill-gaps
      collector fill-gaps --days 365 --symbols BTC_USDT
    """
    from collector.requests import BackfillRequest

    from_us = _now_us() - days * 86_400_000_000
    request = BackfillRequest(from_us=from_us, task="fill_gaps", interval=interval, symbols=tuple(symbols or ()))
    _run(request, as_json, config_path, data_dir)


@click.command()
@click.argument("symbols", nargs=-1)
@click.option("--interval", type=click.Choice(_INTERVALS), default="1h", show_default=True, help="Of the candles.")
@click.option("--compare", is_flag=True, help="Compare the newest candles with a second source's.")
@json_option
@place_options
def quality(
    *,
    symbols: tuple[str, ...],
    interval: str,
    compare: bool,
    as_json: bool,
    config_path: Path | None,
    data_dir: Path | None,
) -> None:
    """Say how whole and how plausible the past candles are, with all that is taken off the score.

    \b
    Example:
      collector quality
      collector quality BTC_USDT --interval 1d --compare
    """
    from collector.requests import QualityRequest

    request = QualityRequest(symbols=symbols, interval=interval, compare=compare)
    found = _ask("quality", request, config_path, data_dir, None if as_json else _Teller())
    if as_json:
        _print_json(found)
        return
    if not found:
        click.echo(f"There are no {interval} candles yet: `collector backfill` collects some.")
        return
    from collector.cli.output import print_view
    from collector.cli.render import make_table
    from collector.wording import count_text

    columns = ["SYMBOL", ">SCORE", ">COMPLETE", ">CANDLES", ">MISSING", "TAKEN OFF", "BY SOURCE", "SECOND SOURCE"]
    table = make_table(*columns)
    for one in found:
        report, opinion = one["report"], one["opinion"]
        parts = ", ".join(f"{name} {share:g} %" for name, share in one["parts"].items() if share) or "-"
        sources = ", ".join(f"{name} {share:g} %" for name, share in one["by_source"].items())
        told = "-"
        if opinion:
            equal = f"{opinion['equal']} of {opinion['compared']} equal"
            told = f"{opinion['second']}: {equal}, {opinion['largest']:g} % apart"
        table.add_row(
            one["symbol"], f"{one['score']:g}", f"{one['completeness']:.4g} %", count_text(report["present"]),
            count_text(report["missing"]), parts, sources, told,
        )  # fmt: skip
    print_view(table)


@click.command()
@json_option
@place_options
def schedule(*, as_json: bool, config_path: Path | None, data_dir: Path | None) -> None:
    """Show what is collected by schedule: when it ran last, what came of it, and when it runs next.

    \b
    Example:
      collector schedule
    """
    found = _ask("schedule", None, config_path, data_dir, None)
    if as_json:
        _print_json(found)
        return
    from collector.cli.output import print_view
    from collector.cli.render import make_table
    from collector.wording import time_text

    table = make_table("TASK", "WHEN", "LAST RUN", "RESULT", "NEXT RUN", "DETAIL")
    for task in found["tasks"]:
        following = time_text(task["next_us"]) if found["enabled"] else "never"
        table.add_row(
            task["name"], task["summary"], time_text(task["last_us"]), task["status"], following, task["detail"] or "-"
        )
    print_view(table)
    if not found["enabled"]:
        click.echo("The schedule is off: set history.enabled in config.toml.")


@click.command()
@click.option("--stats", is_flag=True, help="Success rates, durations and errors, by task and provider.")
@click.option("--limit", type=click.IntRange(1, 10_000), default=20, show_default=True, help="How many operations.")
@json_option
@place_options
def logs(*, stats: bool, limit: int, as_json: bool, config_path: Path | None, data_dir: Path | None) -> None:
    """List the newest operations, live sessions too: when, how long, how many rows, and what went wrong.

    \b
    Example:
      collector logs --stats
    """
    from collector.cli.output import print_view
    from collector.cli.render import make_table
    from collector.history.logbook import summarise
    from collector.history.tables import HistoryTables
    from collector.wording import count_text, time_text

    settings = database_of(config_path, data_dir)
    rows = HistoryTables(lambda: settings).logs(100_000 if stats else limit)
    if stats:
        found = summarise(rows)
        if as_json:
            _print_json(found)
            return
        table = make_table("TASK", "PROVIDER", ">RUNS", ">SUCCESS", ">P50", ">P95", ">MAX", ">ROWS", "LAST ERROR")
        for one in found:
            table.add_row(
                one.task_name, one.provider or "-", count_text(one.runs), f"{one.success_rate:.1%}",
                _duration(one.p50_s), _duration(one.p95_s), _duration(one.max_s), count_text(one.records),
                one.last_error or "-",
            )  # fmt: skip
        print_view(table)
        return
    if as_json:
        _print_json(rows)
        return
    table = make_table("STARTED", "TASK", "STATUS", ">TOOK", "PROVIDER", ">SYMBOLS", ">ROWS", ">RETRIES", "ERROR")
    for row in rows:
        took = "-" if row.finished_us is None else _duration((row.finished_us - row.started_us) / 1e6)
        table.add_row(
            time_text(row.started_us), row.task_name, row.status, took, row.provider or "-", count_text(row.symbols),
            count_text(row.records), count_text(row.retries), row.error or "-",
        )  # fmt: skip
    print_view(table)


@click.group()
def history() -> None:
    """Look after the list of symbols, and bring in candles that you have.

    \b
    Example:
      collector history symbols --count 50
    """


@history.command("symbols")
@click.option("--refresh", is_flag=True, help="Ask for the list anew, and the exchanges what they trade.")
@click.option("--count", type=click.IntRange(1, 5000), help="How many; without it history.default_coins.")
@json_option
@place_options
def history_symbols(
    *, refresh: bool, count: int | None, as_json: bool, config_path: Path | None, data_dir: Path | None
) -> None:
    """List the symbols by market cap, stablecoins and wrapped coins marked; they are kept for a day.

    \b
    Example:
      collector history symbols --refresh
    """
    from collector.requests import CoinsRequest

    found = _ask("coins", CoinsRequest(count=count, refresh=refresh), config_path, data_dir, None)
    if as_json:
        _print_json(found)
        return
    from collector.cli.output import print_view
    from collector.cli.render import make_table

    table = make_table(">RANK", "SYMBOL", "NAME", "ID", "KIND", "TRADED ON")
    for row in found["symbols"]:
        kind = "stablecoin" if row["is_stablecoin"] else "wrapped" if row["is_wrapped"] else "-"
        rank = "-" if row["market_cap_rank"] is None else str(row["market_cap_rank"])
        table.add_row(rank, row["symbol"], row["name"], row["coingecko_id"], kind, ", ".join(row["exchanges"]) or "-")
    print_view(table)
    for name, reason in found["not_asked"].items():
        click.echo(f"{name} could not be asked what it trades: {reason}", err=True)


@history.command("import")
@click.argument("path", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--interval", type=click.Choice(_INTERVALS), default="1h", show_default=True, help="Of the candles.")
@click.option(
    "--map", "mapping", multiple=True, metavar="FIELD=COLUMN", help="A column of another name; may be repeated."
)
@click.option("--symbol", default="", help="Of all rows, where the file does not say it.")
@click.option("--source", default="import", show_default=True, help="What the rows' source is to be.")
@click.option("--asset-type", default="crypto", show_default=True, help="What the symbols are: stock, forex, …")
@json_option
@place_options
def import_file(
    *,
    path: Path,
    interval: str,
    mapping: tuple[str, ...],
    symbol: str,
    source: str,
    asset_type: str,
    as_json: bool,
    config_path: Path | None,
    data_dir: Path | None,
) -> None:
    """Bring in candles of a CSV, JSON or Parquet file; what is no candle goes to a file of rejects, with the reason.

    Fields: timestamp, symbol, open, high, low, close, volume, quote_volume, trades_count, taker_buy_volume,
    taker_buy_quote_volume. Only the time and the prices must be there.

    \b
    Example:
      collector history import hours.csv --symbol AAPL_USD --asset-type stock --map timestamp=Date --map open=Open
    """
    from collector.requests import CandleFileRequest

    pairs = dict(one.partition("=")[::2] for one in mapping)
    if not all(pairs.values()):
        raise UsageError("--map is written as FIELD=COLUMN, for example --map timestamp=Date.")
    request = CandleFileRequest(
        path=str(path.resolve()), interval=interval, mapping=pairs, symbol=symbol, source=source, asset_type=asset_type
    )
    answer = _ask("import_candles", request, config_path, data_dir, None if as_json else _Teller())
    if as_json:
        _print_json(answer)
        return
    click.echo(
        f"{answer['total_records']:,} candles of {answer['total_symbols']} symbols (session {answer['session_id']}); "
        f"{answer['passed_over']:,} were there already, {answer['rejected']:,} rows are no candles."
    )
    if answer["rejected"]:
        click.echo("The session's import_rejected.csv says why.")


def _ask(command: str, request: Any, config_path: Path | None, data_dir: Path | None, say: Any) -> Any:
    from collector.cli.daemon import ensure_daemon
    from collector.control import ask
    from collector.requests import to_arguments

    folder = data_dir_of(config_path, data_dir)
    ensure_daemon(config_path, folder)
    arguments = {} if request is None else to_arguments(request)
    return ask(folder, command, arguments, timeout_s=None, on_progress=say)


def _print_json(facts: Any) -> None:
    from collector.cli.output import print_json

    print_json(facts)


def database_of(config_path: Path | None, data_dir: Path | None, *, read_only: bool = True) -> QuestDB:
    """Return where QuestDB is and how to get in; raise UsageError where there is none."""
    import os

    from collector.config import load_config
    from collector.storage.embedded import resolve_settings

    config = load_config(config_path, environment=os.environ, overrides={"daemon": {"data_dir": data_dir}})
    if config.questdb.mode == "off":
        raise UsageError("There is no QuestDB to ask: questdb.mode is off.")
    return resolve_settings(config, read_only=read_only)
