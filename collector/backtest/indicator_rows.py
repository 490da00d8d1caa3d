"""Indicators of a session's candles, and the table ``indicators`` that keeps them.

The library is fed from the session's first whole candle on each time (about 20 µs a candle and indicator), because a
saved state could disagree with candles that were revised since. What the table holds already is compared, and only rows
that are new or differ are written: a second run goes on where the first ended, and after a revision it writes from the
first revised candle on.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, LiteralString, NamedTuple

from collector.backtest.candles import covered_candles
from collector.backtest.history_candles import held_candles
from collector.backtest.indicators import Candle, Incremental
from collector.backtest.run import canonical
from collector.config import Config, QuestDB
from collector.errors import DatabaseMisconfigured, DatabaseUnavailable
from collector.reading.session_reader import SessionReader
from collector.storage.ilp import escape_tag
from collector.storage.questdb import Acknowledged, HttpTransport, Rejected
from collector.storage.sql import connect, to_microseconds

_TABLE = "indicators"
_STORED: LiteralString = "SELECT timestamp, name, value FROM indicators WHERE symbol = %s AND interval = %s"
_BATCH_ROWS = 20_000
_ATTEMPTS = 3
_WAIT_S = 30.0
_POLL_S = 0.02


class IndicatorValue(NamedTuple):
    """A row of ``indicators``: the candle's start in microseconds, UTC; ``name`` carries the parameters."""

    time_us: int
    name: str
    value: float
    parameters: str


@dataclass(frozen=True, slots=True)
class IndicatorSeries:
    """The indicators of one symbol's candles; of past ones the session is empty.

    ``source`` says where the candles are from: questdb, csv or both.
    """

    session_id: str
    symbol: str
    interval: str
    candles: int
    source: str
    names: tuple[str, ...]
    values: list[IndicatorValue]


@dataclass(frozen=True, slots=True)
class Written:
    """What a run changed in the table: rows that are new, that differ, and whose candle is not whole any more."""

    new: int = 0
    changed: int = 0
    withdrawn: int = 0


def session_indicators(
    reader: SessionReader, symbol: str, interval: str, wanted: Mapping[str, Mapping[str, float]]
) -> IndicatorSeries:
    """Compute indicators of a session's closed candles of full coverage, each from its own and earlier candles only.

    Args:
        wanted: the indicators by their names, with parameters in place of defaults.

    Raises:
        UnknownName: there is no such symbol, recorded interval, indicator or parameter.
        UsageError: a parameter has no such value.
    """
    frame, source = covered_candles(reader, symbol, interval)
    return _series(frame, source, reader.session_id, (symbol, interval), wanted)


def history_indicators(
    config: Config, symbol: str, interval: str, wanted: Mapping[str, Mapping[str, float]]
) -> IndicatorSeries:
    """Compute indicators of a symbol's past candles over all sessions of history; its rows have no session.

    Raises:
        UnknownName: there is no such interval, symbol, indicator or parameter.
        UsageError: a parameter has no such value.
    """
    frame, source, _ = held_candles(config, symbol, interval)
    return _series(frame, source, "", (symbol, interval), wanted)


def _series(
    frame: Any, source: str, session_id: str, of: tuple[str, str], wanted: Mapping[str, Mapping[str, float]]
) -> IndicatorSeries:
    indicators = [Incremental(name, **parameters) for name, parameters in wanted.items()]
    names = tuple(name for one in indicators for name in one.column_names)
    values = list(_values(_candles(frame), indicators))
    return IndicatorSeries(session_id, *of, len(frame), source, names, values)


def _candles(frame: Any) -> Iterable[Candle]:
    times = frame["timestamp"].astype("datetime64[us, UTC]").astype("int64").tolist()
    columns = [frame[name].astype("float64").tolist() for name in ("open", "high", "low", "close", "volume")]
    return (Candle(o, h, low, c, v, at) for at, o, h, low, c, v in zip(times, *columns, strict=True))


def _values(candles: Iterable[Candle], indicators: list[Incremental]) -> Iterable[IndicatorValue]:
    told = [canonical(one.parameters) for one in indicators]
    for candle in candles:
        for one, parameters in zip(indicators, told, strict=True):
            for name, value in zip(one.column_names, one.add(candle), strict=True):
                if value is not None and math.isfinite(value):
                    yield IndicatorValue(candle.start_us, name, float(value), parameters)


class IndicatorRows:
    """Read and write ``indicators``; every call opens a connection of its own and may block.

    Args:
        settings: gives QuestDB's address and credentials.
    """

    def __init__(self, settings: Callable[[], QuestDB]) -> None:
        self._settings = settings

    def stored(self, series: IndicatorSeries) -> dict[tuple[int, str], float | None]:
        """Return what the table has of a series, by the candle's start and the name; a withdrawn value is None.

        Raises:
            DatabaseUnavailable, DatabaseMisconfigured: the table cannot be read.
        """
        with connect(self._settings()) as connection:
            self._wait_applied(connection)
            of = (series.symbol, series.interval)
            rows = (
                connection.rows(f"{_STORED} AND session_id = %s", *of, series.session_id)
                if series.session_id
                else connection.rows(f"{_STORED} AND session_id IS NULL", *of)
            )
        return {
            (to_microseconds(timestamp) or 0, name): value for timestamp, name, value in rows if name in series.names
        }

    def put(self, series: IndicatorSeries) -> Written:
        """Write what is new or differs; a value whose candle is not whole any more becomes NULL.

        Raises:
            DatabaseUnavailable: the server is gone; what was written stays, and the next run writes the rest.
            DatabaseMisconfigured: it refuses the rows.
        """
        before = self.stored(series)
        now = {(row.time_us, row.name): row for row in series.values}
        new = [row for key, row in now.items() if key not in before]
        changed = [row for key, row in now.items() if key in before and before[key] != row.value]
        gone = [key for key, value in before.items() if value is not None and key not in now]
        lines = [_line(series, row.time_us, row.name, row.value, row.parameters) for row in (*changed, *new)]
        lines += [_line(series, time_us, name, None, "") for time_us, name in gone]
        self._send(sorted(lines, key=lambda line: int(line.rpartition(b" ")[2])))
        return Written(len(new), len(changed), len(gone))

    def _send(self, lines: list[bytes]) -> None:
        transport = HttpTransport.from_config(self._settings())
        try:
            for begin in range(0, len(lines), _BATCH_ROWS):
                batch = lines[begin : begin + _BATCH_ROWS]
                for attempt in range(1, _ATTEMPTS + 1):
                    outcome = transport.send(_TABLE, b"".join(line + b"\n" for line in batch), len(batch))
                    if isinstance(outcome, Acknowledged):
                        break
                    if isinstance(outcome, Rejected):
                        raise DatabaseMisconfigured(f"QuestDB refuses rows of {_TABLE}: {outcome.reason}")
                    if attempt == _ATTEMPTS:
                        raise DatabaseUnavailable(f"Indicators could not be written: {outcome.reason}")
        finally:
            transport.close()

    def _wait_applied(self, connection: Any) -> None:
        """Wait until the table shows what an earlier run wrote: what does not show yet would be written again."""
        deadline = time.monotonic() + _WAIT_S
        while time.monotonic() < deadline:
            found = connection.rows("SELECT sequencerTxn - writerTxn FROM wal_tables() WHERE name = %s", _TABLE)
            if not found or found[0][0] <= 0:
                return
            time.sleep(_POLL_S)
        raise DatabaseUnavailable(f"{_TABLE} did not apply its writes within {_WAIT_S:g} s.")


def _line(series: IndicatorSeries, time_us: int, name: str, value: float | None, parameters: str) -> bytes:
    tags = {"symbol": series.symbol, "interval": series.interval, "name": name}
    tags |= {"session_id": series.session_id} if series.session_id else {}
    prefix = _TABLE + "".join(f",{key}={escape_tag(text)}" for key, text in tags.items())
    quoted = parameters.replace("\\", "\\\\").replace('"', '\\"')
    number = "" if value is None else f"value={value!r},"
    return f'{prefix} {number}parameters="{quoted}" {time_us}'.encode()
