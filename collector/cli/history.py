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

_INTERVALS = ("1m", "3m", "5m", "15m", "30m", "1h", "2h", "4h", "6h", "12h", "1d", "1w")


@click.command()
@click.option("--start-year", type=click.IntRange(2009, 2100), help="From the first of January of this year on.")
@click.option(
    "--from", "begin", metavar="TIME", default="", help="From this time on: 2024-01-31 or 2024-01-31T12:00 (UTC)."
)
@click.option("--to", "end", metavar="TIME", default="", help="Up to this time; without it, up to now.")
@click.option("--interval", type=click.Choice(_INTERVALS), default="1h", show_default=True, help="Of the candles.")
@click.option("--symbols", type=SYMBOLS, default="", help="BTC_USDT,ETH_USDT; without them the first by market cap.")
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
    symbols: tuple[str, ...],
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
