"""Two sessions of the same market held against each other: time, prices, latency, and trades that one of them lacks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from collector.errors import UsageError
from collector.exchanges.registry import EXCHANGES, exchange_class
from collector.reading.arrow import extra
from collector.reading.session_reader import SessionReader
from collector.reading.times import Time, interval_us, to_us

TRADES_MAX = 20_000_000
"""How many trades of a session are compared at once, so that memory stays bounded (some 60 bytes each)."""

_SHOWN_IDS = 200
_COLUMNS = ("timestamp", "price", "trade_id", "received_at", "source")


@dataclass(frozen=True, slots=True)
class Latency:
    """Receipt minus the exchange's stamp of trades that came over a websocket, in milliseconds."""

    least_ms: float
    p50_ms: float
    p95_ms: float
    p99_ms: float
    trades: int


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two, within the time that both have: its trades, and what the other lacks of them.

    ``lacking`` counts the trades that the other has and this one lacks, by the exchange's numbers; None where they
    cannot be told apart by numbers. ``lacking_ids`` are the first of them, with their times (microseconds).
    """

    session_id: str
    exchange: str
    symbol: str
    source: str
    trades: int
    latency: Latency | None
    lacking: int | None
    lacking_ids: tuple[tuple[int, int], ...] = ()


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two sessions over the time that both have trades of, ``from_us`` to ``to_us`` (both included).

    ``points`` are the last prices of each step in which both traded: its start (microseconds), left, right. Differences
    are left minus right in basis points of the right, over all such steps.
    """

    left: Side
    right: Side
    from_us: int
    to_us: int
    step_us: int
    points: list[tuple[int, float, float]]
    mean_bp: float | None
    mean_absolute_bp: float | None
    largest_bp: float | None
    largest_us: int | None
    why_no_ids: str


def compare_sessions(
    left: SessionReader,
    right: SessionReader,
    left_symbol: str,
    right_symbol: str | None = None,
    start: Time | None = None,
    end: Time | None = None,
    *,
    step: str = "1s",
) -> Comparison:
    """Compare two sessions' trades.

    Args:
        right_symbol: where the other exchange calls it otherwise; None takes the same name.
        step: the length of time whose last prices are compared, as 1s or 1m.

    Raises:
        UsageError: they have no time in common, or too many trades in it.
        UnknownName: a session has no such symbol.
        MissingExtra: polars is not installed.
    """
    polars = extra("polars")
    step_us = interval_us(step)
    right_symbol = right_symbol or left_symbol
    bounds = _common(left, right, to_us(start), to_us(end))
    frames, sources = [], []
    for reader, symbol in ((left, left_symbol), (right, right_symbol)):
        if start is None and end is None:
            _refuse_too_many(reader, symbol)
        rows = reader.prices(symbol, *bounds, columns=_COLUMNS)
        frame = rows.polars().with_columns(
            polars.col("timestamp").dt.epoch("us").alias("at"), polars.col("received_at").dt.epoch("us").alias("got")
        )
        frames.append(frame)
        sources.append(rows.source)
    if any(frame.is_empty() for frame in frames):
        raise UsageError(
            f"{left.session_id} and {right.session_id} have no time in common in which both traded {left_symbol}.",
            hint="Choose sessions that overlap.",
        )
    from_us = max(int(frame["at"].min()) for frame in frames)
    until_us = min(int(frame["at"].max()) for frame in frames)
    if from_us > until_us:
        raise UsageError(
            f"{left.session_id} and {right.session_id} have no time in common in which both traded {left_symbol}.",
            hint="Choose sessions that overlap.",
        )
    why = _why_no_ids(left, right, left_symbol, right_symbol)
    lacking = (None, None) if why else _lacking(polars, frames)
    within = [frame.filter(polars.col("at").is_between(from_us, until_us)) for frame in frames]
    points, differences = _differences(polars, within, step_us)
    sides = [
        Side(
            reader.session_id, reader.manifest.exchange, symbol, source, frame.height, _latency(polars, frame),
            None if missing is None else missing[0], () if missing is None else missing[1],
        )
        for reader, symbol, source, frame, missing in zip(
            (left, right), (left_symbol, right_symbol), sources, within, lacking, strict=True
        )
    ]  # fmt: skip
    return Comparison(sides[0], sides[1], from_us, until_us, step_us, points, *differences, why)


def _common(
    left: SessionReader, right: SessionReader, from_us: int | None, to_us_: int | None
) -> tuple[int | None, int | None]:
    """Return the time that both manifests know of and that was asked for."""
    starts = [one.manifest.started_us or one.manifest.created_us for one in (left, right)]
    ends = [one.manifest.ended_us for one in (left, right)]
    # Exchange time may be before ours; a second more costs nothing, as the trades' own times decide.
    begin = max(starts) - 60_000_000 if from_us is None else from_us
    known = [end + 60_000_000 for end in ends if end is not None]
    return begin, (min(known) if known else None) if to_us_ is None else to_us_


def _refuse_too_many(reader: SessionReader, symbol: str) -> None:
    rows = sum(one.rows for one in reader.manifest.files if one.stream == "prices" and one.symbol == symbol)
    if rows > TRADES_MAX:
        raise UsageError(
            f"{reader.session_id} has {rows:,} trades of {symbol}: too many to be compared at once.",
            hint="Choose a part of the time.",
        )


def _why_no_ids(left: SessionReader, right: SessionReader, left_symbol: str, right_symbol: str) -> str:
    name = left.manifest.exchange
    if name != right.manifest.exchange or left_symbol != right_symbol:
        return "they are of different markets, so their trades have nothing in common"
    if name not in EXCHANGES or not exchange_class(name).trade_ids_contiguous:
        return f"{name} does not number its trades without holes"
    return ""


def _lacking(polars: Any, frames: list[Any]) -> tuple[Any, Any]:
    """Return for each side how many trades only the other has, and the first of them, between the numbers of both."""
    numbered = [
        frame.select(polars.col("trade_id").cast(polars.Int64, strict=False).alias("id"), "at")
        .drop_nulls()
        .unique("id")
        for frame in frames
    ]
    if any(frame.is_empty() for frame in numbered):
        return None, None
    first = max(int(frame["id"].min()) for frame in numbered)
    last = min(int(frame["id"].max()) for frame in numbered)
    left, right = (frame.filter(polars.col("id").is_between(first, last)) for frame in numbered)
    found = []
    for own, other in ((left, right), (right, left)):
        only = other.join(own, on="id", how="anti").sort("id")
        found.append((only.height, tuple(only.head(_SHOWN_IDS).rows())))
    return found[0], found[1]


def _differences(
    polars: Any, frames: list[Any], step_us: int
) -> tuple[list[tuple[int, float, float]], tuple[float | None, float | None, float | None, int | None]]:
    left, right = (
        frame.group_by(((polars.col("at") // step_us) * step_us).alias("bin"), maintain_order=True).agg(
            polars.col("price").last()
        )
        for frame in frames
    )
    both = left.join(right, on="bin", how="inner", suffix="_right").sort("bin")
    if both.is_empty():
        return [], (None, None, None, None)
    both = both.with_columns(((polars.col("price") / polars.col("price_right") - 1) * 10_000).alias("bp"))
    place = int(both["bp"].abs().arg_max())
    figures = (
        float(both["bp"].mean()), float(both["bp"].abs().mean()), float(both["bp"][place]), int(both["bin"][place]),
    )  # fmt: skip
    return both.select("bin", "price", "price_right").rows(), figures


def _latency(polars: Any, frame: Any) -> Latency | None:
    received = frame.filter((polars.col("source") == "ws") & polars.col("got").is_not_null())
    if received.is_empty():
        return None
    took = (received["got"] - received["at"]) / 1000
    p50, p95, p99 = (float(took.quantile(share, "nearest")) for share in (0.5, 0.95, 0.99))
    return Latency(float(took.min()), p50, p95, p99, received.height)
