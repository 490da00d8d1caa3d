"""``collector gaps``: what is missing, and why."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from collector.cli.options import SESSION, data_dir_of, json_option, place_options

if TYPE_CHECKING:
    from rich.table import Table

    from collector.session.gaps import Entry

_OPEN = ("open",)  # what a partial one still lacks is in rows of its own


@click.command()
@click.argument("session", type=SESSION, required=False)
@click.option("--open", "only_open", is_flag=True, help="Only what is still missing.")
@json_option
@place_options
def gaps(
    *, session: str | None, only_open: bool, as_json: bool, config_path: Path | None, data_dir: Path | None
) -> None:
    """List the known holes of a session, or of all: what is missing, from when to when, which ids, and why.

    It reads the ledgers in the data directory (gaps.csv), so it works without a daemon and without a database. A
    session without an entry claims to have no hole; `collector verify` holds it to that where rows are numbered.

    \b
    Example:
      collector gaps 20261121-081500-binance-7f3a
      collector gaps --open --json
    """
    found = [
        (session_id, entry)
        for session_id, entry in _all_entries(data_dir_of(config_path, data_dir), session)
        if not only_open or entry.state in _OPEN
    ]
    if as_json:
        from collector.cli.output import print_json

        print_json({"gaps": [_fields(session_id, entry) for session_id, entry in found]})
        return
    if not found:
        click.echo(f"No {'open ' if only_open else ''}gap is in the ledger{f' of {session}' if session else ''}.")
        return
    from collector.cli.output import print_view

    print_view(_table(found))


def _all_entries(data_dir: Path, session: str | None) -> list[tuple[str, Entry]]:
    from collector.reading.csv_rows import read_rows
    from collector.reading.sessions import find_session, list_sessions
    from collector.session.gaps import GapLedger
    from collector.streams import GAPS

    stored = [find_session(data_dir, session)] if session else list_sessions(data_dir)[0]
    entries: list[tuple[str, Entry]] = []
    for one in stored:
        ledger = GapLedger()
        ledger.load(read_rows(one.directory, GAPS))
        entries += [(one.session_id, entry) for entry in ledger.entries()]
    return entries


def _fields(session_id: str, entry: Entry) -> dict[str, Any]:
    import msgspec

    return {"session_id": session_id, **msgspec.structs.asdict(entry)}


def _table(found: list[tuple[str, Entry]]) -> Table:
    from collector.cli.render import make_table, state_text
    from collector.wording import count_text, time_text

    table = make_table("SESSION", "GAP", "SYMBOL", "STREAM", "CAUSE", "STATE", "FROM", "TO", "IDS", ">ROWS", "DETAIL")
    for session_id, entry in found:
        ids = "-" if entry.from_id is None else f"{entry.from_id} to {entry.to_id}"
        rows = "-" if entry.expected_rows is None else count_text(entry.expected_rows)
        table.add_row(
            session_id, entry.gap_id, entry.symbol, entry.stream, entry.cause, state_text(entry.state),
            time_text(entry.from_us), time_text(entry.to_us), ids, rows, entry.detail or "-",
        )  # fmt: skip
    return table
