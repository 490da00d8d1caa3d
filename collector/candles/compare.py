"""The exchange's own closed candles against ours."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Literal

import msgspec

from collector.candles.aggregator import Candle
from collector.events import Kline

_NUMBERS = ("open", "high", "low", "close", "volume", "quote_volume", "taker_buy_volume")


class FieldDifference(msgspec.Struct, frozen=True):
    """A field that differs, as each side wrote it."""

    field: str
    ours: str
    theirs: str


class Comparison(msgspec.Struct, frozen=True):
    """What came of comparing one candle: ``unknown`` where ours does not cover the whole bucket, or is not closed."""

    symbol: str
    interval: str
    timestamp_us: int
    verdict: Literal["equal", "differs", "unknown"]
    differences: tuple[FieldDifference, ...] = ()


def compare(candle: Candle | None, kline: Kline, *, counts_raw: bool = True) -> Comparison:
    """Compare the exchange's closed candle with ours of the same bucket, as numbers.

    Args:
        candle: ours; None where we have none, which agrees with a candle of no trades, and otherwise says nothing.
        counts_raw: our ``trades_count`` counts what the exchange counts (False where aggregated trades hide how many).
    """
    if candle is None:
        return _result(kline, "equal" if kline.closed and kline.trades_count == 0 else "unknown")
    if not (kline.closed and candle.is_closed and candle.coverage == "full"):
        return _result(kline, "unknown")
    fields = (*_NUMBERS, "trades_count") if counts_raw else _NUMBERS
    published = [field for field in fields if getattr(kline, field) is not None]
    pairs = [(field, str(getattr(candle, field)), str(getattr(kline, field))) for field in published]
    differing = tuple(FieldDifference(*pair) for pair in pairs if Decimal(pair[1]) != Decimal(pair[2]))
    return _result(kline, "differs" if differing else "equal", differing)


def _result(
    kline: Kline,
    verdict: Literal["equal", "differs", "unknown"],
    differing: tuple[FieldDifference, ...] = (),
) -> Comparison:
    return Comparison(kline.symbol, kline.interval, kline.start_us, verdict, differing)


class KlineCheck:
    """Bring one symbol's candles and the exchange's together, whichever comes first; a revision is compared again.

    Args:
        keep: how many of each are kept to wait for the other.
    """

    def __init__(self, *, keep: int = 64, counts_raw: bool = True) -> None:
        self._keep = keep
        self._counts_raw = counts_raw
        self._klines: dict[tuple[str, int], Kline] = {}
        self._candles: dict[tuple[str, int], Candle] = {}

    def add_kline(self, kline: Kline) -> Comparison | None:
        """Take the exchange's candle; return the comparison if ours is there already. An open one is passed over."""
        if not kline.closed:
            return None
        key = (kline.interval, kline.start_us)
        self._klines[key] = kline
        _shorten(self._klines, self._keep)
        ours = self._candles.get(key)
        return None if ours is None else compare(ours, kline, counts_raw=self._counts_raw)

    def add_candles(self, candles: Sequence[Candle]) -> list[Comparison]:
        """Take our candles as they close or are revised; return the comparisons with those that the exchange sent."""
        found = []
        for candle in candles:
            self._candles[candle.key] = candle
            kline = self._klines.get(candle.key)
            if kline is not None:
                found.append(compare(candle, kline, counts_raw=self._counts_raw))
        _shorten(self._candles, self._keep)
        return found


def _shorten(kept: dict[tuple[str, int], Kline] | dict[tuple[str, int], Candle], limit: int) -> None:
    while len(kept) > limit:
        del kept[next(iter(kept))]
