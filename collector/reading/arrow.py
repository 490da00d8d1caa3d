"""Streams as Arrow tables: their schema, and the library that is an optional extra."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from collector.errors import MissingExtra, UnknownName
from collector.streams import Column, Kind, Stream

Table = Any
"""A ``pyarrow.Table``; the library has no types of its own."""

Schema = Any
"""A ``pyarrow.Schema``."""

_MODULES_OF_EXTRAS = {
    "pyarrow": "research",
    "pyarrow.compute": "research",
    "pyarrow.csv": "research",
    "pyarrow.feather": "research",
    "pyarrow.parquet": "research",
    "numpy": "research",
    "pandas": "research",
    "polars": "research",
    "hftbacktest": "hftbacktest",
    "hftbacktest.data": "hftbacktest",
    "hftbacktest.stats": "hftbacktest",
    "numba": "hftbacktest",
    "backtesting": "backtest",
    "backtesting.lib": "backtest",
    "bokeh.settings": "backtest",
    "talipp.indicators": "backtest",
    "talipp.ohlcv": "backtest",
    "nautilus_trader": "nautilus",
}


def extra(module: str) -> Any:
    """Import a module that comes with an optional extra; raise MissingExtra where it is not installed."""
    try:
        return import_module(module)
    except ImportError as error:
        name = _MODULES_OF_EXTRAS[module]
        raise MissingExtra(
            f"{module.partition('.')[0]} is not installed.", hint=f"Install it: pip install 'collector[{name}]'."
        ) from error


def result_columns(stream: Stream) -> list[Column]:
    """Return a stream's columns as they are read: the timestamp, ``symbol``, then the rest in the CSV's order."""
    if not stream.per_symbol:
        return list(stream.columns)
    return [stream.timestamp, Column("symbol", Kind.SYMBOL), *stream.columns[1:]]


def chosen_columns(stream: Stream, names: Sequence[str] | None) -> list[Column]:
    """Return the columns asked for, by their names in the table, in the order asked; None: all of them.

    Raises:
        UnknownName: the stream has no such column.
    """
    known = {column.in_database: column for column in result_columns(stream)}
    if names is None:
        return list(known.values())
    for name in names:
        if name not in known:
            raise UnknownName(f"column of {stream.name}", name, list(known))
    return [known[name] for name in names]


def schema_of(columns: Sequence[Column], *, exact: bool = False) -> Schema:
    """Return the Arrow schema: timestamps in microseconds UTC, prices and sizes as float64, ``exact`` as text."""
    pa = extra("pyarrow")
    types = {
        Kind.TIMESTAMP: pa.timestamp("us", tz="UTC"),
        Kind.SYMBOL: pa.string(),
        Kind.VARCHAR: pa.string(),
        Kind.DOUBLE: pa.string() if exact else pa.float64(),
        Kind.LONG: pa.int64(),
        Kind.BOOLEAN: pa.bool_(),
    }
    return pa.schema([pa.field(column.in_database, types[column.kind]) for column in columns])


def to_pandas(table: Table) -> Any:
    """Return a table as ``pandas.DataFrame``: integers stay integers where some are missing, text is Arrow's."""
    pa, pandas = extra("pyarrow"), extra("pandas")
    types = {pa.int64(): pandas.Int64Dtype(), pa.string(): pandas.StringDtype("pyarrow")}
    return table.to_pandas(types_mapper=types.get)
