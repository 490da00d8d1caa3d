"""Past candles that sources of history gave (``collector backfill``), as a strategy or an indicator takes them.

Where several sources have a candle, the one that comes first in ``history.sources`` counts.
"""

from __future__ import annotations

import itertools
from typing import Any

from collector.backtest.candles import CANDLE_COLUMNS, Hole, WholeCandles, framed, hash_of
from collector.config import Config
from collector.errors import UnknownName, UsageError
from collector.exchanges.candle_sources.base import length_us
from collector.exchanges.candle_sources.registry import DEFAULT_ORDER
from collector.reading.arrow import extra
from collector.reading.session_reader import SessionReader, sessions
from collector.reading.times import Time, to_us
from collector.streams import HISTORY_TYPES, history_stream


def history_candles(
    config: Config,
    symbol: str,
    interval: str,
    start: Time | None = None,
    end: Time | None = None,
    *,
    allow_gaps: bool = False,
) -> WholeCandles:
    """Return a symbol's past candles over all sessions of history; ``sources`` of the answer say whose they are.

    Args:
        allow_gaps: take them though buckets lack in which, as far as is known, something was traded.

    Raises:
        UnknownName: there is no such interval, or no such symbol among what is held.
        UsageError: candles lack and that is not allowed, or there are too few.
    """
    length = length_us(interval)
    bounds = to_us(start), to_us(end)
    frame, store, readers = held_candles(config, symbol, interval, *bounds)
    if len(frame) < 2:
        raise UsageError(
            f"There are {len(frame)} past candles of {symbol} in {interval} there: too few.",
            hint=f"Fetch them: collector backfill --from 2026-11-01 --interval {interval} --symbols {symbol}.",
        )
    holes = tuple(_holes(frame, readers, symbol, interval, length, bounds))
    if holes and not allow_gaps:
        count = sum(hole.rows or 0 for hole in holes)
        raise UsageError(
            f"{count} past candles of {symbol} in {interval} lack, in {len(holes)} places.",
            hint="Fetch them with `collector backfill`, or pass --allow-gaps and see them in the report.",
        )
    counts = frame["source"].value_counts().to_dict()
    sources = {name: int(counts[name]) for name in sorted(counts, key=lambda name: (-counts[name], name))}
    return WholeCandles(
        symbol, interval, framed(frame), hash_of(frame), store, 0, holes, "", sources
    )  # fmt: skip


def held_candles(
    config: Config, symbol: str, interval: str, from_us: int | None = None, before_us: int | None = None
) -> tuple[Any, str, list[SessionReader]]:
    """Return one candle per bucket with its source, the store that they are from, and the sessions that hold them.

    Raises:
        UnknownName: there is no such interval, or no such symbol among what is held.
    """
    length_us(interval)
    pandas = extra("pandas")
    stream = history_stream(interval).name
    known = [one for one in sessions(config=config) if _holds(one)]
    symbols = sorted({symbol for one in known for symbol in one.symbols})
    readers = [one for one in known if symbol in one.symbols]
    if not readers:
        raise UnknownName(
            "symbol in the history", symbol, symbols,
            hint="" if symbols else "Fetch past candles with `collector backfill`.",
        )  # fmt: skip
    order = [*(config.history.sources or DEFAULT_ORDER)]
    frames, stores = [], set()
    columns = [*CANDLE_COLUMNS, "timeframe", "source"]
    for number, reader in enumerate(readers):
        rows = reader.stream(stream, symbol, from_us, before_us, columns=columns)
        found = rows.pandas()
        found["session"] = number
        frames.append(found[found["timeframe"].astype(str) == interval])
        stores.add(rows.source)
    frame = pandas.concat(frames)
    frame["source"] = frame["source"].astype(str)
    frame["rank"] = [order.index(name) if name in order else len(order) for name in frame["source"]]
    # Of one source, what was fetched last counts.
    frame = frame.sort_values(["timestamp", "rank", "source", "session"], ascending=[True, True, True, False])
    chosen = frame.drop_duplicates("timestamp")[[*CANDLE_COLUMNS, "source"]]
    return chosen.reset_index(drop=True), stores.pop() if len(stores) == 1 else "both", readers


def _holds(reader: SessionReader) -> bool:
    manifest = reader.manifest
    return manifest.kind == "history" or bool({*manifest.data_types} & {*HISTORY_TYPES})


def _holes(
    frame: Any, readers: list[SessionReader], symbol: str, interval: str, length: int,
    bounds: tuple[int | None, int | None],
) -> list[Hole]:  # fmt: skip
    """Return the spans of buckets of which nothing is held, without those in which nothing was traded."""
    times = frame["timestamp"].astype("datetime64[us, UTC]").astype("int64").tolist()
    quiet = [
        span
        for one in readers
        if one.manifest.backfill is not None and one.manifest.backfill.interval == interval
        for span in one.manifest.backfill.empty.get(symbol, [])
    ]
    first = times[0] if bounds[0] is None else -(-bounds[0] // length) * length
    before = times[-1] + length if bounds[1] is None else -(-bounds[1] // length) * length
    edges = [first - length, *times, before]
    found = []
    for one, following in itertools.pairwise(edges):
        lacking = [
            at for at in range(one + length, following, length) if not any(begin <= at < end for begin, end in quiet)
        ]
        if lacking:
            found.append(Hole("", "missing", "open", lacking[0], lacking[-1] + length, len(lacking)))
    return found
