"""Longer candles from shorter ones, exactly: sums of decimals that raise instead of rounding."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Context, Decimal, Inexact, InvalidOperation, Overflow

import msgspec

from collector.exchanges.candle_sources.base import HistoryCandle
from collector.exchanges.candle_sources.intervals import INTERVALS_US, bucket_start

_EXACT = Context(prec=80, traps=[Inexact, InvalidOperation, Overflow])


class Folded(msgspec.Struct):
    """A candle made of shorter ones. ``missing`` are the starts of those that were not there, in microseconds."""

    candle: HistoryCandle
    missing: tuple[int, ...] = ()


def fold(candles: Iterable[HistoryCandle], interval: str, part: str) -> list[Folded]:
    """Fold candles of the interval ``part``, ascending, into those of a longer interval, ascending.

    A candle is closed where every part that was there is. A volume is None where a part's is.
    """
    buckets: dict[int, list[HistoryCandle]] = {}
    for candle in candles:
        buckets.setdefault(bucket_start(candle.start_us, interval), []).append(candle)
    step, length = INTERVALS_US[part], INTERVALS_US[interval]
    folded = []
    for start_us, parts in buckets.items():
        there = {candle.start_us for candle in parts}
        missing = tuple(start for start in range(start_us, start_us + length, step) if start not in there)
        folded.append(Folded(_one(start_us, parts), missing))
    return folded


def _one(start_us: int, parts: Sequence[HistoryCandle]) -> HistoryCandle:
    counts = [part.trades_count for part in parts]
    return HistoryCandle(
        start_us=start_us,
        open=parts[0].open,
        high=max((part.high for part in parts), key=Decimal),
        low=min((part.low for part in parts), key=Decimal),
        close=parts[-1].close,
        volume=_sum([part.volume for part in parts]),
        quote_volume=_sum([part.quote_volume for part in parts]),
        trades_count=None if None in counts else sum(count for count in counts if count is not None),
        taker_buy_volume=_sum([part.taker_buy_volume for part in parts]),
        taker_buy_quote_volume=_sum([part.taker_buy_quote_volume for part in parts]),
        closed=all(part.closed for part in parts),
    )


def _sum(texts: Sequence[str | None]) -> str | None:
    total = Decimal(0)
    for text in texts:
        if text is None:
            return None
        total = _EXACT.add(total, Decimal(text))
    return format(total, "f")
