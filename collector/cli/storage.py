"""``collector storage`` and ``collector retention``: what tables take, and for how long they keep it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from collector.cli.options import json_option, place_options

if TYPE_CHECKING:
    from collector.storage.retention import TableSize, TtlChange


@click.command()
@json_option
@place_options
def storage(*, as_json: bool, config_path: Path | None, data_dir: Path | None) -> None:
    """Show rows, bytes and partitions of every table.

    \b
    Example:
      collector storage
    """
    sizes, _ = _look(config_path, data_dir)
    from collector.cli.output import print_json, print_view

    if as_json:
        print_json(sizes)
        return
    from collector.cli.render import make_table
    from collector.wording import count_text

    table = make_table("TABLE", ">ROWS", ">BYTES", ">PARTITIONS", "PARTITIONED BY", "KEPT")
    for size in sizes:
        table.add_row(
            size.table, count_text(size.rows), count_text(size.bytes), count_text(size.partitions),
            size.partition_by.lower(), _days(size.ttl_days),
        )  # fmt: skip
    print_view(table)


@click.group()
def retention() -> None:
    """Say how long tables keep their rows; the CSV files have keys of their own in [csv].

    \b
    Example:
      collector retention show
    """


@retention.command("show")
@json_option
@place_options
def show(*, as_json: bool, config_path: Path | None, data_dir: Path | None) -> None:
    """Show how long tables keep their rows, and what [retention] would change.

    \b
    Example:
      collector retention show
    """
    sizes, changes = _look(config_path, data_dir)
    from collector.cli.output import print_json, print_view

    if as_json:
        print_json({"tables": sizes, "changes": changes})
        return
    from collector.cli.render import make_table

    wanted = {change.table: change.wanted_days for change in changes}
    table = make_table("TABLE", "KEPT", "TO BE KEPT")
    for size in sorted(sizes, key=lambda size: size.table):
        if size.ttl_days or size.table in wanted:
            table.add_row(size.table, _days(size.ttl_days), _days(wanted.get(size.table, size.ttl_days)))
    print_view(table)
    click.echo("`collector retention apply` changes it." if changes else "It is as [retention] says.")


@retention.command("apply")
@click.option("--yes", is_flag=True, help="Don't ask: rows that are older are deleted from QuestDB.")
@place_options
def apply(*, yes: bool, config_path: Path | None, data_dir: Path | None) -> None:
    """Have QuestDB keep rows as long as [retention] says; older ones are deleted there, and stay in CSV.

    \b
    Example:
      collector retention apply --yes
    """
    from collector.cli.history import database_of
    from collector.storage.retention import apply_retention
    from collector.storage.sql import connect

    _, changes = _look(config_path, data_dir)
    for change in changes:
        click.echo(f"{change.table}: {_days(change.now_days)} → {_days(change.wanted_days)}")
    if not changes:
        click.echo("It is as [retention] says.")
        return
    if not yes and not click.confirm("Change that?"):
        click.echo("Nothing was changed.")
        return
    with connect(database_of(config_path, data_dir, read_only=False)) as connection:
        apply_retention(connection, changes)
    click.echo("Done.")


def _look(config_path: Path | None, data_dir: Path | None) -> tuple[list[TableSize], list[TtlChange]]:
    import os

    from collector.cli.history import database_of
    from collector.config import load_config
    from collector.storage.retention import plan_retention, read_sizes
    from collector.storage.sql import connect

    config = load_config(config_path, environment=os.environ, overrides={"daemon": {"data_dir": data_dir}})
    wanted = {key.removesuffix("_days"): days for key, days in config.retention.model_dump().items()}
    with connect(database_of(config_path, data_dir, read_only=False)) as connection:
        sizes = read_sizes(connection)
    return sizes, plan_retention(sizes, wanted)


def _days(days: float) -> str:
    return f"{days:g} days" if days else "for ever"
