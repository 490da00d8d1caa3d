"""Candles of any interval out of trades: ``SAMPLE BY`` in QuestDB, folded from the CSV, with the same result.

Buckets are aligned to the epoch, UTC. Open and close go by (exchange time, trade id, or ``seq`` where ids are no
numbers), as in the recorded candles. Prices are the trades' own; volumes are the exact sum of the trades' float64
values, rounded once, so neither the store nor the order of rows changes a digit. The recorded candles add decimals
instead: where both exist, they agree to about 15 significant digits.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime
from operator import itemgetter
from typing import Any

from psycopg import sql

from collector.reading.arrow import Schema, Table, extra
from collector.reading.exact_sums import LIMBS, Total, added, limbs_in_sql, limbs_of, value_of
from collector.reading.table_arrow import ResearchReader, Selection
from collector.storage.sql import to_microseconds
from collector.streams import PRICES, Column

COLUMNS: tuple[Column, ...] = tuple(
    column
    for column in PRICES.columns
    if column.name
    in ("timestamp", "price", "volume", "quote_volume", "side", "trade_id", "seq", "first_raw_id", "last_raw_id")
)
"""What of the trades candles are made of."""

_SUMS = ("volume", "quote", "buy")
_UNITS = (("d", 86_400_000_000), ("h", 3_600_000_000), ("m", 60_000_000), ("s", 1_000_000), ("T", 1_000))

Order = tuple[int, int]
End = tuple[Order, float, str]
"""A bucket's first or last trade: what orders it, its price and its id."""


@dataclass(slots=True)
class Bucket:
    """A candle that is being made."""

    first: End
    last: End
    high: float
    low: float
    trades: int
    unsided: int
    totals: list[Total]

    def add(self, other: Bucket) -> None:
        """Take in trades of the same bucket."""
        self.first = min(self.first, other.first)
        self.last = max(self.last, other.last)
        self.high = max(self.high, other.high)
        self.low = min(self.low, other.low)
        self.trades += other.trades
        self.unsided += other.unsided
        self.totals = [added(a, b) for a, b in zip(self.totals, other.totals, strict=True)]


def candle_schema() -> Schema:
    """Return the Arrow schema of candles: ``timestamp`` is a bucket's start; volumes in base currency."""
    pa = extra("pyarrow")
    number, text = pa.float64(), pa.string()
    fields = [("timestamp", pa.timestamp("us", tz="UTC")), ("symbol", text), ("interval", text)]
    fields += [(name, number) for name in ("open", "high", "low", "close", "volume", "quote_volume")]
    fields += [("trades_count", pa.int64()), ("taker_buy_volume", number)]
    return pa.schema([*fields, ("first_trade_id", text), ("last_trade_id", text)])


def candle_table(buckets: Iterable[tuple[int, Bucket]], symbol: str, interval: str) -> Table:
    """Return buckets, by their start, as a table."""
    rows = [_row(start, bucket, symbol, interval) for start, bucket in buckets]
    return extra("pyarrow").Table.from_pylist(rows, schema=candle_schema())


def _row(start: int, bucket: Bucket, symbol: str, interval: str) -> dict[str, Any]:
    volume, quote, buy = map(value_of, bucket.totals)
    return {
        "timestamp": start,
        "symbol": symbol,
        "interval": interval,
        "open": bucket.first[1],
        "high": bucket.high,
        "low": bucket.low,
        "close": bucket.last[1],
        "volume": volume,
        "quote_volume": quote,
        "trades_count": bucket.trades,
        "taker_buy_volume": None if bucket.unsided else buy,
        "first_trade_id": bucket.first[2],
        "last_trade_id": bucket.last[2],
    }


def _order(time_us: int, trade_id: str | None, seq: int) -> Order:
    numbered = trade_id is not None and trade_id.isascii() and trade_id.isdecimal()
    return time_us, int(trade_id) if numbered and trade_id else seq


# Out of trades


def fold(pieces: Iterable[Table], length_us: int) -> Iterator[tuple[int, Bucket]]:
    """Return candles of trades that come by time, a bucket at a time, each when the next one begins."""
    start, open_bucket = 0, None
    for piece in pieces:
        for begin, bucket in _fold_piece(piece, length_us):
            if open_bucket is not None and begin == start:
                open_bucket.add(bucket)
                continue
            if open_bucket is not None:
                yield start, open_bucket
            start, open_bucket = begin, bucket
    if open_bucket is not None:
        yield start, open_bucket


def _fold_piece(table: Table, length_us: int) -> Iterator[tuple[int, Bucket]]:
    numpy, pc = extra("numpy"), extra("pyarrow.compute")
    times = table["timestamp"].cast("int64").to_numpy()
    starts = times // length_us * length_us
    edges = numpy.flatnonzero(numpy.diff(starts, prepend=starts[0] - 1))
    ends = numpy.append(edges[1:], len(times))
    prices, volumes = (table[name].to_numpy() for name in ("price", "volume"))
    quotes = pc.coalesce(table["quote_volume"], pc.multiply(table["price"], table["volume"])).to_numpy()
    sides = pc.fill_null(table["side"], "")
    raw = pc.subtract(table["last_raw_id"], table["first_raw_id"])
    summed = [
        *(part for values in (volumes, quotes) for part in limbs_of(values)),
        *limbs_of(numpy.where(pc.equal(sides, "buy").to_numpy(), volumes, 0.0)),
        pc.add(pc.fill_null(raw, 0), 1).to_numpy(),
        (~pc.is_in(sides, extra("pyarrow").array(["buy", "sell"])).to_numpy()).astype("int64"),
    ]
    sums = [numpy.add.reduceat(values, edges).tolist() for values in summed]
    highs, lows = numpy.maximum.reduceat(prices, edges), numpy.minimum.reduceat(prices, edges)
    firsts, lasts = _ends(table, times, edges, ends)
    for n, begin in enumerate(edges.tolist()):
        totals: list[Total] = [
            (sums[at][n], sums[at + 1][n], sums[at + 2][n], sums[at + 3][n])
            for at in range(0, len(_SUMS) * LIMBS, LIMBS)
        ]
        count, unsided = sums[-2][n], sums[-1][n]
        yield (
            int(starts[begin]),
            Bucket(firsts[n], lasts[n], float(highs[n]), float(lows[n]), count, unsided, totals),
        )


def _ends(table: Table, times: Any, edges: Any, ends: Any) -> tuple[list[End], list[End]]:
    """Return the first and the last trade of each bucket; of one time, ids decide."""
    numpy, pa = extra("numpy"), extra("pyarrow")
    stops = numpy.searchsorted(times, times[edges], side="right")
    begins = numpy.searchsorted(times, times[ends - 1], side="left")
    spans = [*zip(edges.tolist(), stops.tolist(), strict=True), *zip(begins.tolist(), ends.tolist(), strict=True)]
    rows = [row for begin, end in spans for row in range(begin, end)]
    chosen = table.select(["price", "trade_id", "seq"]).take(pa.array(rows, pa.int64())).to_pydict()
    found: list[End] = [
        (_order(int(times[row]), trade_id, seq), price, trade_id)
        for row, price, trade_id, seq in zip(rows, chosen["price"], chosen["trade_id"], chosen["seq"], strict=True)
    ]
    firsts: list[End] = []
    lasts: list[End] = []
    at = 0
    for n, (begin, end) in enumerate(spans):
        among = found[at : at + end - begin]
        at += end - begin
        (firsts if n < len(edges) else lasts).append(min(among) if n < len(edges) else max(among))
    return firsts, lasts


# Out of QuestDB


def sample(reader: ResearchReader, selection: Selection, length_us: int) -> Iterator[tuple[int, Bucket]]:
    """Return candles that QuestDB makes of a selection of trades, by their start."""
    condition, values = selection.where()
    every = sql.SQL(_unit(length_us))
    limbs = [
        *limbs_in_sql("volume", "volume"),
        *limbs_in_sql("coalesce(quote_volume, price * volume)", "quote"),
        *limbs_in_sql("CASE WHEN side = 'buy' THEN volume ELSE 0.0 END", "buy"),
    ]
    sums = sql.SQL(", ").join(sql.SQL("sum({}) {}").format(sql.SQL(text), sql.Identifier(name)) for name, text in limbs)
    query = sql.SQL(
        "SELECT timestamp, max(price) high, min(price) low,"
        " sum(coalesce(last_raw_id - first_raw_id, 0) + 1) trades,"
        " sum(CASE WHEN side IN ('buy', 'sell') THEN 0 ELSE 1 END) unsided,"
        " min(timestamp) first_at, max(timestamp) last_at, {}"
        " FROM tick_prices WHERE {} SAMPLE BY {} ALIGN TO CALENDAR"
    ).format(sums, condition, every)
    rows = sorted(reader.ask(query, values), key=itemgetter(0))
    ends = _ends_in_database(reader, selection, every) if rows else {}
    for start, high, low, trades, unsided, first_at, last_at, *parts in rows:
        totals: list[Total] = [
            (parts[at], parts[at + 1], parts[at + 2], parts[at + 3]) for at in range(0, len(parts), LIMBS)
        ]
        first, last = min(ends[first_at]), max(ends[last_at])
        yield to_microseconds(start) or 0, Bucket(first, last, high, low, int(trades), int(unsided), totals)


def _ends_in_database(reader: ResearchReader, selection: Selection, every: sql.SQL) -> dict[datetime, list[End]]:
    """Return all trades of the times at which a bucket begins or ends: ``first()`` does not say which of several."""
    condition, values = selection.where()
    query = sql.SQL(
        "WITH b AS (SELECT timestamp, min(timestamp) first_at, max(timestamp) last_at FROM tick_prices WHERE {}"
        " SAMPLE BY {} ALIGN TO CALENDAR), e AS (SELECT first_at at FROM b UNION SELECT last_at at FROM b)"
        " SELECT t.timestamp, t.price, t.trade_id, t.seq"
        " FROM (SELECT timestamp, price, trade_id, seq FROM tick_prices WHERE {}) t JOIN e ON t.timestamp = e.at"
    ).format(condition, every, condition)
    found: dict[datetime, list[End]] = {}
    for at, price, trade_id, seq in reader.ask(query, (*values, *values)):
        found.setdefault(at, []).append((_order(to_microseconds(at) or 0, trade_id, seq), price, trade_id))
    return found


def _unit(length_us: int) -> str:
    """Return an interval as ``SAMPLE BY`` takes it."""
    unit, scale = next((unit, scale) for unit, scale in _UNITS if length_us % scale == 0)
    return f"{length_us // scale}{unit}"
