"""``collector repair``: ask the exchange again for what a session missed."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from collector.cli.options import SESSION, data_dir_of, json_option, place_options

if TYPE_CHECKING:
    from rich.table import Table


@click.command()
@click.argument("session", type=SESSION)
@click.option("--symbol", "symbols", multiple=True, metavar="BASE_QUOTE", help="Only this symbol; may be repeated.")
@click.option("--dry-run", is_flag=True, help="Show what would be asked for, and ask nothing.")
@json_option
@place_options
def repair(
    *,
    session: str,
    symbols: tuple[str, ...],
    dry_run: bool,
    as_json: bool,
    config_path: Path | None,
    data_dir: Path | None,
) -> None:
    """Ask the exchange for the trades that a session's ledger says are missing, and record them.

    A running session does that by itself; this does it now, and for a session that has ended too: its files go on where
    they ended, and QuestDB gets the new rows. What the exchange has refused before is asked for once more.

    \b
    Example:
      collector repair 20261121-081500-binance-7f3a --dry-run
      collector repair 20261121-081500-binance-7f3a --symbol BTC_USDT
    """
    from collector.cli.daemon import ensure_daemon
    from collector.control import ask
    from collector.requests import RepairRequest, to_arguments

    folder = data_dir_of(config_path, data_dir)
    request = RepairRequest(session=session, symbols=symbols, dry_run=dry_run)
    ensure_daemon(config_path, folder)
    answer = ask(folder, "repair", to_arguments(request), timeout_s=None, on_progress=None if as_json else _say)
    if as_json:
        from collector.cli.output import print_json

        print_json(answer)
        return
    if not answer["gaps"]:
        click.echo(f"Session {answer['session_id']} has no gap that can be asked for.")
        return
    from collector.cli.output import print_view

    print_view(_table(answer["gaps"], dry_run=dry_run))


def _table(gaps: list[dict[str, Any]], *, dry_run: bool) -> Table:
    from collector.cli.render import make_table, state_text
    from collector.wording import count_text, time_text

    columns = ["GAP", "SYMBOL", "CAUSE", "FROM", "TO", ">ASKED"]
    table = make_table(*columns, *(["STATE"] if dry_run else [">GOT", ">STILL MISSING", "STATE", "REASON"]))
    for gap in gaps:
        numbers = ["-" if gap[name] is None else count_text(gap[name]) for name in ("asked", "got", "missing")]
        rest = [state_text(gap["state"])] if dry_run else [*numbers[1:], state_text(gap["state"]), gap["reason"] or "-"]
        table.add_row(
            gap["gap_id"], gap["symbol"], gap["cause"], time_text(gap["from_us"]), time_text(gap["to_us"]),
            numbers[0], *rest,
        )  # fmt: skip
    return table


def _say(line: Any) -> None:
    click.echo(f"{line} …", err=True)
