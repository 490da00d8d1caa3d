"""``collector query``: the packaged questions, or any SQL that only reads."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click
from click.shell_completion import CompletionItem

from collector.cli.options import place_options
from collector.errors import CollectorError, UsageError

if TYPE_CHECKING:
    from collector.config import QuestDB
    from collector.reading.queries import Query, Result

_TABLE_ROWS = 1000
_BATCH_ROWS = 50_000
_BOOLEAN, _TIMESTAMP, _REALS, _INTEGERS = 16, (1114, 1184), (700, 701), (20, 21, 23)


class _QueryName(click.ParamType[Any]):
    """A packaged query's name, which the shell completes, or SQL."""

    name = "name|sql"

    def shell_complete(self, ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:  # noqa: ARG002  (the signature is click's)
        from collector.reading.queries import load_queries

        return [
            CompletionItem(name, help=query.meaning)
            for name, query in load_queries().items()
            if name.startswith(incomplete)
        ]


@click.command()
@click.argument("question", type=_QueryName(), metavar="NAME|SQL", required=False)
@click.option("--list", "as_list", is_flag=True, help="List the packaged queries with their parameters.")
@click.option("--param", "-p", "parameters", multiple=True, metavar="NAME=VALUE", help="Set a query's parameter.")
@click.option(
    "--format",
    "form",
    type=click.Choice(("table", "csv", "json", "parquet")),
    default="table",
    help="How to print the rows.  [default: table]",
)
@click.option("--output", type=click.Path(path_type=Path, dir_okay=False), help="Write to a file instead.")
@place_options
def query(
    *,
    question: str | None,
    as_list: bool,
    parameters: tuple[str, ...],
    form: str,
    output: Path | None,
    config_path: Path | None,
    data_dir: Path | None,
) -> None:
    """Ask QuestDB: a packaged question by its name, or SQL of your own. Nothing but reading is possible.

    The embedded server is asked as its user that may only read. Times are UTC.

    \b
    Example:
      collector query --list
      collector query spreads --param symbol=ETH_USDT --param interval=1h
      collector query "SELECT count() FROM tick_prices" --format json
    """
    from collector.reading.queries import QueryReader, load_queries, statement_of

    if as_list or question is None:
        _print_list(list(load_queries().values()))
        return
    statement = statement_of(question, _values(parameters))
    if form == "parquet" and output is None:
        raise UsageError("Parquet is written to a file.", hint="Give it with --output.")
    with QueryReader(_settings(config_path, data_dir)) as reader, reader.result(statement) as result:
        if output is None:
            _print(result, form)
        else:
            _write_file(result, form, output)


def _values(parameters: tuple[str, ...]) -> dict[str, str]:
    values = {}
    for parameter in parameters:
        name, equals, value = parameter.partition("=")
        if not equals:
            raise UsageError(f"{parameter!r} sets nothing.", hint="Write it as NAME=VALUE.")
        values[name.strip().removeprefix("@")] = value
    return values


def _settings(config_path: Path | None, data_dir: Path | None) -> QuestDB:
    from collector.config import load_config
    from collector.storage.embedded import resolve_settings

    config = load_config(config_path, environment=os.environ, overrides={"daemon": {"data_dir": data_dir}})
    if config.questdb.mode == "off":
        raise UsageError("There is no QuestDB to ask: questdb.mode is off.")
    return resolve_settings(config, read_only=True)


def _print_list(queries: list[Query]) -> None:
    for one in queries:
        click.echo(f"{one.name}: {one.meaning}")
        for parameter in one.parameters:
            click.echo(f"    {parameter.name} = {parameter.default}  {parameter.meaning}")


def _print(result: Result, form: str) -> None:
    """Write to standard output; end quietly where its reader has seen enough (``| head``)."""
    try:
        _write(result, form, sys.stdout)
        sys.stdout.flush()
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(0)


def _write_file(result: Result, form: str, path: Path) -> None:
    """Write to a file, which stands under its name only when it is whole."""
    temporary = path.with_name(path.name + ".tmp")
    try:
        if form == "parquet":
            _write_parquet(result, temporary)
        else:
            with temporary.open("w", encoding="utf-8", newline="") as file:
                _write(result, form, file)
        temporary.replace(path)
    except OSError as error:
        raise CollectorError(f"{path} could not be written: {error.strerror or error}.") from error
    finally:
        temporary.unlink(missing_ok=True)


def _write(result: Result, form: str, file: IO[str]) -> None:
    names = [name for name, _ in result.columns]
    if form == "csv":
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(names)
        writer.writerows(map(_text, result.rows))
    elif form == "json":
        _write_json(result.rows, names, file)
    else:
        _write_table(result.rows, result.columns, file)


def _write_json(rows: Iterator[tuple[Any, ...]], names: list[str], file: IO[str]) -> None:
    import msgspec

    separator = "[\n"
    for row in rows:
        fields = {
            name: _text([value])[0] if isinstance(value, datetime) else value
            for name, value in zip(names, row, strict=True)
        }
        file.write(separator + msgspec.json.encode(fields, enc_hook=str).decode())
        separator = ",\n"
    file.write("[]\n" if separator == "[\n" else "\n]\n")


def _write_table(rows: Iterator[tuple[Any, ...]], columns: list[tuple[str, int]], file: IO[str]) -> None:
    from rich.text import Text

    from collector.cli.output import plain_text, print_view
    from collector.cli.render import make_table

    table = make_table(*(f"{'>' if kind in (*_REALS, *_INTEGERS) else ''}{name}" for name, kind in columns))
    count = 0
    for row in rows:
        count += 1
        if count > _TABLE_ROWS:
            break
        table.add_row(*map(Text, _text(row)))
    if file is sys.stdout:
        print_view(table)
    else:
        file.write(plain_text(table) + "\n")
    if count > _TABLE_ROWS:
        click.echo(f"Only the first {_TABLE_ROWS:,} rows are shown; --format csv gives all.", err=True)


def _text(row: Any) -> list[str]:
    return [
        ""
        if value is None
        else f"{value.isoformat()}Z"
        if isinstance(value, datetime)
        else str(value).lower()
        if isinstance(value, bool)
        else str(value)
        for value in row
    ]


def _write_parquet(result: Result, path: Path) -> None:
    import itertools

    from collector.reading.arrow import extra

    pa, parquet = extra("pyarrow"), extra("pyarrow.parquet")
    kinds = {_BOOLEAN: pa.bool_(), **dict.fromkeys(_TIMESTAMP, pa.timestamp("us", tz="UTC"))}
    kinds |= {**dict.fromkeys(_REALS, pa.float64()), **dict.fromkeys(_INTEGERS, pa.int64())}
    schema = pa.schema([(name, kinds.get(kind, pa.string())) for name, kind in result.columns])
    with parquet.ParquetWriter(path, schema) as writer:
        while rows := list(itertools.islice(result.rows, _BATCH_ROWS)):
            columns = list(zip(*rows, strict=True))
            texts = [
                [None if value is None else str(value) for value in column] if field.type == pa.string() else column
                for column, field in zip(columns, schema, strict=True)
            ]
            arrays = [pa.array(column, field.type) for column, field in zip(texts, schema, strict=True)]
            writer.write_table(pa.Table.from_arrays(arrays, schema=schema))
