"""The candles that a strategy is run on: whole ones only, with a hash that tells whether two runs had the same."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from typing import Any

from collector.candles.intervals import INTERVALS
from collector.errors import UsageError
from collector.reading.arrow import extra
from collector.reading.session_reader import SessionReader
from collector.reading.times import Time, to_us

MISSING_STATES = ("open", "partial", "unrecoverable")
CANDLE_COLUMNS = ("timestamp", "open", "high", "low", "close", "volume")


@dataclass(frozen=True, slots=True)
class Hole:
    """A gap in the trades of the symbol that nothing has repaired; times are microseconds, None where unknown."""

    gap_id: str
    cause: str
    state: str
    from_us: int | None
    to_us: int | None
    rows: int | None


@dataclass(frozen=True, slots=True)
class WholeCandles:
    """Candles in the form that Backtesting.py takes, and where they are from.

    Args:
        frame: Open, High, Low, Close, Volume as float64, by the start of the candle (UTC).
        data_hash: SHA-256 over the candles' values: equal hashes mean equal candles, whatever store they came from.
        source: ``questdb``, ``csv`` or ``both``.
        left_out: candles that are not whole (a session's first and last, ones that never closed).
        holes: gaps in the trades that are not repaired.
        sources: of past candles, how many each source of history gave.
    """

    symbol: str
    interval: str
    frame: Any
    data_hash: str
    source: str
    left_out: int
    holes: tuple[Hole, ...]
    session_id: str = ""
    sources: dict[str, int] = field(default_factory=dict)

    @property
    def from_us(self) -> int:
        return int(self.frame.index[0].value // 1000)

    @property
    def to_us(self) -> int:
        return int(self.frame.index[-1].value // 1000)


def session_candles(
    reader: SessionReader,
    symbol: str,
    interval: str = "1m",
    start: Time | None = None,
    end: Time | None = None,
    *,
    allow_gaps: bool = False,
) -> WholeCandles:
    """Return the whole candles of a session's symbol.

    Recorded intervals are read from the candles of the session, each in its last revision, and only closed ones with
    full coverage count; other intervals are made of the trades, without the first and the last bucket.

    Args:
        allow_gaps: take a session with open gaps, and candles that gaps fall into, too.

    Raises:
        UsageError: gaps are not repaired and they are not allowed, or there are too few candles.
        UnknownName: the session has no such symbol.
    """
    holes = open_holes(reader, symbol, to_us(start), to_us(end))
    if holes and not allow_gaps:
        first = holes[0]
        raise UsageError(
            f"Session {reader.session_id} lacks trades of {symbol}: {len(holes)} gaps are not repaired "
            f"(the first: {first.gap_id}, {first.cause}).",
            hint="Repair it with `collector repair`, or pass --allow-gaps and see them in the report.",
        )
    if interval in INTERVALS:
        rows = reader.ohlcv(symbol, interval, start, end)
        frame = rows.pandas()
        covered = {"full", "gap"} if allow_gaps else {"full"}
        whole = frame["is_closed"].astype(bool) & frame["coverage"].astype(str).isin(covered)
    else:
        rows = reader.candles(symbol, interval, start, end)
        frame = rows.pandas()
        whole = frame["timestamp"].notna()
        whole.iloc[[0, -1] if len(whole) else []] = False
    chosen = frame.loc[whole, list(CANDLE_COLUMNS)].sort_values("timestamp")
    if len(chosen) < 2:
        raise UsageError(
            f"Session {reader.session_id} has {len(chosen)} whole candles of {symbol} in {interval}: too few.",
            hint="Choose a shorter --interval, or a longer session.",
        )
    return WholeCandles(
        symbol, interval, framed(chosen), hash_of(chosen), rows.source, int(len(frame) - len(chosen)), holes,
        reader.session_id,
    )  # fmt: skip


def covered_candles(reader: SessionReader, symbol: str, interval: str) -> tuple[Any, str]:
    """Return the candles that are closed and lack no trade, in their last revision, and where they are from.

    Other than ``session_candles`` it takes a session with gaps: the candles that those fall into are left out.

    Raises:
        UnknownName: the session has no such symbol, or no candles of this interval are recorded.
    """
    rows = reader.ohlcv(symbol, interval)
    frame = rows.pandas()
    whole = frame["is_closed"].astype(bool) & (frame["coverage"].astype(str) == "full")
    return frame.loc[whole, list(CANDLE_COLUMNS)].sort_values("timestamp"), rows.source


def open_holes(
    reader: SessionReader,
    symbol: str,
    from_us: int | None = None,
    to_us_: int | None = None,
    *,
    streams: tuple[str, ...] = ("prices",),
) -> tuple[Hole, ...]:
    """Return the gaps in a symbol's trades (or other streams) that nothing has repaired, within the times given."""
    table = reader.gaps().table().to_pylist()
    found = []
    for row in table:
        if row["symbol"] != symbol or row["stream"] not in streams or row["state"] not in MISSING_STATES:
            continue
        begin, end = _us(row["from_time"]), _us(row["to_time"])
        before = to_us_ is not None and begin is not None and begin >= to_us_
        behind = from_us is not None and end is not None and end < from_us
        if not (before or behind):
            found.append(Hole(row["gap_id"], row["cause"], row["state"], begin, end, row["expected_rows"]))
    return tuple(found)


def hash_of(frame: Any) -> str:
    """Return the SHA-256 of candles: times in microseconds and values as IEEE doubles, little-endian, row by row."""
    numpy = extra("numpy")
    digest = hashlib.sha256()
    times = frame["timestamp"].astype("datetime64[us, UTC]").astype("int64").to_numpy().astype("<i8")
    values = frame[list(CANDLE_COLUMNS[1:])].to_numpy(dtype="<f8")
    for part in (times, numpy.ascontiguousarray(values)):
        digest.update(part.tobytes())
    return digest.hexdigest()


def framed(frame: Any) -> Any:
    """Return candles with the names and the index that Backtesting.py wants."""
    index = frame["timestamp"].astype("datetime64[us, UTC]").dt.tz_localize(None).astype("datetime64[ns]")
    renamed = frame[list(CANDLE_COLUMNS[1:])].astype("float64").rename(columns=str.capitalize)
    renamed.index = extra("pandas").DatetimeIndex(index, name="time")
    return renamed


def _us(value: Any) -> int | None:
    return None if value is None else to_us(value)
