"""The exchange's own closed candles against ours."""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal
from typing import Literal

import msgspec

from collector.candles.aggregator import Candle, GapTest
from collector.candles.intervals import INTERVALS, MINUTE_US
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


DIFFERENCES_KEPT = 100
"""How many differences of a symbol are kept as rows; all are counted."""


class CandleScore(msgspec.Struct):
    """How many of one symbol's candles match the exchange's own, by interval, and the newest that don't.

    ``compared`` counts candles that are closed and whole on both sides, each once, as its last revision stands.
    """

    symbol: str
    compared: dict[str, int] = {}
    matching: dict[str, int] = {}
    differences: list[Comparison] = []

    @property
    def total(self) -> int:
        """Return how many were compared."""
        return sum(tuple(self.compared.values()))

    @property
    def equal(self) -> int:
        """Return how many of them match."""
        return sum(tuple(self.matching.values()))

    def count(self, comparison: Comparison, weight: int = 1) -> None:
        """Count a comparison, or (with the weight -1) take it back because it was made again."""
        if comparison.verdict == "unknown":
            return
        interval = comparison.interval
        self.compared[interval] = self.compared.get(interval, 0) + weight
        if comparison.verdict == "equal":
            self.matching[interval] = self.matching.get(interval, 0) + weight
            return
        key = comparison.interval, comparison.timestamp_us
        kept = [known for known in self.differences if (known.interval, known.timestamp_us) != key]
        self.differences = [*kept, *([comparison] if weight > 0 else [])][-DIFFERENCES_KEPT:]


def compare(candle: Candle | None, kline: Kline, *, counts_raw: bool = True, opens_at: str | None = None) -> Comparison:
    """Compare the exchange's closed candle with ours of the same bucket, as numbers.

    Args:
        candle: ours; None where we have none, which agrees with a candle of no trades, and otherwise says nothing.
        counts_raw: our ``trades_count`` counts what the exchange counts (False where aggregated trades hide how many).
        opens_at: the close before it, where the exchange opens a candle there and not at its first trade; high and low
            may be that price then.
    """
    if candle is None:
        return _result(kline, "equal" if kline.closed and is_flat(kline) else "unknown")
    if not (kline.closed and candle.is_closed and candle.coverage == "full") or candle.source == "kline":
        return _result(kline, "unknown")
    fields = (*_NUMBERS, "trades_count") if counts_raw else _NUMBERS
    published = [field for field in fields if getattr(kline, field) is not None]
    values = {field: str(getattr(candle, field)) for field in published}
    if opens_at is not None and Decimal(kline.open) == Decimal(opens_at):
        values["open"] = opens_at
        values["high"] = max(values["high"], opens_at, key=Decimal)
        values["low"] = min(values["low"], opens_at, key=Decimal)
    pairs = [(field, ours, str(getattr(kline, field))) for field, ours in values.items() if ours]
    differing = tuple(FieldDifference(*pair) for pair in pairs if Decimal(pair[1]) != Decimal(pair[2]))
    return _result(kline, "differs" if differing else "equal", differing)


def is_flat(kline: Kline) -> bool:
    """Say whether an exchange's candle stands for a bucket in which nothing was traded."""
    return kline.trades_count == 0 or Decimal(kline.volume) == 0


def _result(
    kline: Kline,
    verdict: Literal["equal", "differs", "unknown"],
    differing: tuple[FieldDifference, ...] = (),
) -> Comparison:
    return Comparison(kline.symbol, kline.interval, kline.start_us, verdict, differing)


class KlineCheck:
    """Bring one symbol's candles and the exchange's together, whichever comes first; a revision is compared again.

    A bucket for which we have no candle is judged once we have a later one: it agrees with a flat candle of the
    exchange (or with none), and differs where the exchange says that there were trades; unless a gap explains that.

    Args:
        score: what is counted; it goes on from what it says.
        keep: how many of each are kept to wait for the other.
        opens_at_previous_close: the exchange's candles open at the close before them.
    """

    def __init__(
        self,
        score: CandleScore,
        *,
        keep: int = 64,
        counts_raw: bool = True,
        opens_at_previous_close: bool = False,
    ) -> None:
        self.score = score
        self._keep = keep
        self._counts_raw = counts_raw
        self._previous = opens_at_previous_close
        self._klines: dict[tuple[str, int], Kline] = {}
        self._candles: dict[tuple[str, int], Candle] = {}
        self._judged: dict[tuple[str, int], Comparison] = {}
        self._since: dict[str, int] = {}

    def add_kline(self, kline: Kline) -> Comparison | None:
        """Take the exchange's candle; return the comparison if ours is there already. An open one is passed over."""
        if not kline.closed:
            return None
        key = (kline.interval, kline.start_us)
        self._klines[key] = kline
        _shorten(self._klines, self._keep)
        ours = self._candles.get(key)
        return None if ours is None else self._judge(ours, kline)

    def add_candles(self, candles: Sequence[Candle], gaps: GapTest = lambda _from, _to: False) -> list[Comparison]:
        """Take our candles as they close or are revised; return the comparisons with those that the exchange sent.

        Args:
            gaps: says whether trades are known to be missing in a span: then a bucket without a candle proves nothing.
        """
        found = []
        for candle in candles:
            self._candles[candle.key] = candle
            self._since.setdefault(candle.interval, candle.timestamp_us)
            kline = self._klines.get(candle.key)
            if kline is not None:
                found.append(self._judge(candle, kline))
        _shorten(self._candles, self._keep)
        for interval in {candle.interval for candle in candles if candle.is_closed}:
            newest = max(candle.timestamp_us for candle in candles if candle.interval == interval)
            found += self._judge_empty(interval, newest, gaps)
        return found

    def _judge_empty(self, interval: str, before_us: int, gaps: GapTest) -> list[Comparison]:
        found = []
        for key, kline in self._klines.items():
            inside = key[0] == interval and self._since[interval] < key[1] < before_us
            if not inside or key in self._candles or key in self._judged:
                continue
            if gaps(key[1], key[1] + INTERVALS.get(interval, MINUTE_US)):
                continue
            if is_flat(kline):
                found.append(self._note(_result(kline, "equal")))
            else:
                missing = FieldDifference("volume", "", kline.volume)
                found.append(self._note(_result(kline, "differs", (missing,))))
        return found

    def _judge(self, candle: Candle, kline: Kline) -> Comparison:
        opens_at = self._close_before(kline) if self._previous else None
        return self._note(compare(candle, kline, counts_raw=self._counts_raw, opens_at=opens_at))

    def _close_before(self, kline: Kline) -> str:
        """Return where a candle must open that opens at the close before it; its own open where nobody knows that."""
        key = kline.interval, kline.start_us - INTERVALS.get(kline.interval, MINUTE_US)
        known = self._klines.get(key) or self._candles.get(key)
        return known.close if known is not None else kline.open

    def _note(self, comparison: Comparison) -> Comparison:
        key = comparison.interval, comparison.timestamp_us
        before = self._judged.pop(key, None)
        if before is not None:
            self.score.count(before, -1)
        self._judged[key] = comparison
        self.score.count(comparison)
        while len(self._judged) > 4 * self._keep:
            del self._judged[next(iter(self._judged))]
        return comparison


def _shorten(kept: dict[tuple[str, int], Kline] | dict[tuple[str, int], Candle], limit: int) -> None:
    while len(kept) > limit:
        del kept[next(iter(kept))]
