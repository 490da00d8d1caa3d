"""``collector export``: a session for other tools."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from collector.cli.options import SESSION, SYMBOLS, json_option, place_options

if TYPE_CHECKING:
    from collector.reading.session_reader import SessionReader

_FORMATS = ("parquet", "csv", "arrow", "hftbacktest", "nautilus")


@click.command()
@click.argument("session", type=SESSION, metavar="SESSION|PATH")
@click.option("--format", "form", type=click.Choice(_FORMATS), default="parquet", help="What for.  [default: parquet]")
@click.option("--symbols", type=SYMBOLS, help="Only these symbols.  [default: all of the session]")
@click.option("--streams", help="Only these streams, comma-separated: prices, orderbook, ohlcv, …  [default: all]")
@click.option("--from", "start", metavar="TIME", help="The first exchange time, included, UTC.")
@click.option("--to", "end", metavar="TIME", help="The exchange time before which it ends, UTC.")
@click.option(
    "--output", type=click.Path(path_type=Path, file_okay=False), help="Folder.  [default: export-SESSION-FORMAT]"
)
@json_option
@place_options
def export(
    *,
    session: str,
    form: Any,
    symbols: tuple[str, ...] | None,
    streams: str | None,
    start: str | None,
    end: str | None,
    output: Path | None,
    as_json: bool,
    config_path: Path | None,
    data_dir: Path | None,
) -> None:
    """Export an ended session: a file per stream, symbol and day (UTC), with checksums in SHA256SUMS.

    An export that was interrupted goes on where it stopped. The data directory is only read. hftbacktest gets one event
    array per symbol and day, with every change of the book where the session recorded raw messages; nautilus gets a
    ParquetDataCatalog.

    \b
    Example:
      collector export 20261121-081500-binance-7f3a --format parquet --output btc
      collector export 20261121-081500-binance-7f3a --symbols BTC_USDT --from 2026-11-21 --to 2026-11-22 --format csv
      collector export 20261121-081500-binance-7f3a --format hftbacktest
    """
    from collector.config import load_config
    from collector.reading.export.exporting import Wanted, export_session
    from collector.reading.session_reader import open_session
    from collector.reading.times import to_us

    config = load_config(config_path, environment=os.environ, overrides={"daemon": {"data_dir": data_dir}})
    reader = open_session(session, config=config)
    names = (
        None if streams is None else tuple(dict.fromkeys(name.strip() for name in streams.split(",") if name.strip()))
    )
    wanted = Wanted(form, symbols, names, to_us(start), to_us(end))
    folder = output or Path(f"export-{reader.session_id}-{form}")
    with _progress(reader, quiet=as_json) as tell:
        report = export_session(reader, wanted, folder, tell)
    if as_json:
        from collector.cli.output import print_json

        print_json(report)
        return
    resumed = f" ({report.resumed:,} were done already)" if report.resumed else ""
    click.echo(f"{report.output}: {report.partitions:,} files{resumed}, {report.rows:,} rows, {report.bytes:,} bytes.")
    click.echo(f"From {report.source}. Check it with: cd {report.output} && sha256sum --check SHA256SUMS")


@contextmanager
def _progress(session: SessionReader, *, quiet: bool) -> Iterator[Callable[[str, int], None]]:
    """Show a bar per stream and symbol on a terminal, a line each otherwise."""
    if quiet or not sys.stderr.isatty():
        told: set[str] = set()

        def say(what: str, rows: int) -> None:  # noqa: ARG001  a pipe gets no counters
            if not quiet and what not in told:
                told.add(what)
                click.echo(f"{what} …", err=True)

        yield say
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    totals = {f"{file.stream} {file.symbol or ''}".strip(): file.rows for file in session.manifest.files}
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True)) as bars:
        tasks: dict[str, Any] = {}

        def show(what: str, rows: int) -> None:
            if what not in tasks:
                tasks[what] = bars.add_task(what, total=totals.get(what))
            bars.advance(tasks[what], rows)

        yield show
