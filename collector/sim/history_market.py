"""A market of years, by formula: any candle of any interval is worked out from its seed alone, and all agree.

An hour's open, close, extremes and sums have closed forms that its sixty minutes add up to, so years of hours cost
nothing. Prices are counted in ticks of 0.01, volumes in lots of 0.0001, so that every sum is exact. Times are
microseconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple
from zlib import crc32

MINUTE_US = 60_000_000
HOUR_US = 60 * MINUTE_US
DAY_US = 24 * HOUR_US
WEEK_US = 7 * DAY_US
LISTED_US = 1_546_300_800_000_000
"""When a symbol was listed, unless it is said (2019-01-01)."""
TICKS = 100
LOTS = 10_000

_MASK = 2**64 - 1
_MINUTES = 60
_WAVES = ((24, 900), (24 * 30, 9_000), (24 * 365, 60_000), (7, 150))
"""The price is a sum of triangles: a period in hours, and a height in ticks for each."""
_WIGGLE = tuple((abs(i % 12 - 6) - 6) * min(i, _MINUTES - i) // 6 for i in range(_MINUTES + 1))
"""What a minute's price is beside the straight line through its hour, in ticks; none at either end."""
_DEEPEST = -min(_WIGGLE)
_PRIME = 61  # the numbers (a * i + b) % 61 of an hour's minutes are all different: their sum is known
_SUM_OF_RESIDUES = _PRIME * (_PRIME - 1) // 2
_LEAST_LOTS = 1_000
_LEAST_TRADES = 20
_MAKER_LOTS = 700
_QUIET_EVERY = 7


class MarketCandle(NamedTuple):
    """A candle: prices in ticks, volumes in lots, quote volumes in ticks x lots."""

    start_us: int
    open: int
    high: int
    low: int
    close: int
    lots: int
    quote: int
    trades: int
    taker_lots: int
    taker_quote: int


class _Hour(NamedTuple):
    """What an hour's minutes are made from."""

    open: int
    close: int
    high: int
    low: int
    high_at: int
    low_at: int
    factor: int
    offset: int


class HistoryMarket:
    """The market of all symbols.

    Args:
        listed_us: when symbols were listed that were not at ``LISTED_US``; there is nothing before.
        closed_us: spans in which nothing was traded at all: maintenance.
        quiet: symbols of which in one minute of seven nothing is traded.
    """

    def __init__(
        self,
        symbols: Sequence[str],
        *,
        seed: int = 1,
        listed_us: Mapping[str, int] | None = None,
        closed_us: Sequence[tuple[int, int]] = (),
        quiet: Sequence[str] = (),
    ) -> None:
        self.symbols = tuple(symbols)
        self.seed = seed
        self.quiet = frozenset(quiet)
        self._listed_us = {symbol: (listed_us or {}).get(symbol, LISTED_US) for symbol in symbols}
        self._closed_us = tuple(closed_us)
        self._places = {symbol: crc32(f"{seed}/{symbol}".encode()) for symbol in symbols}

    def listed_us(self, symbol: str) -> int:
        """Return when a symbol was listed; its first minute starts there."""
        return self._listed_us[symbol]

    def price(self, symbol: str, start_us: int) -> int:
        """Return the price at the start of a minute, in ticks, traded or not."""
        hour = start_us // HOUR_US
        return self._minute_price(self._hour(symbol, hour), start_us // MINUTE_US % _MINUTES)

    def candle(self, symbol: str, start_us: int, length_us: int, until_us: int | None = None) -> MarketCandle | None:
        """Return a candle; None where nothing was traded in it.

        Args:
            until_us: leave out the minutes that start then or later: the candle is under way.
        """
        end_us = start_us + length_us if until_us is None else min(start_us + length_us, until_us)
        parts: list[MarketCandle] = []
        at = start_us
        while at < end_us:
            whole = at % HOUR_US == 0 and at + HOUR_US <= end_us and self._is_whole(symbol, at)
            part = self._whole_hour(symbol, at) if whole else self._minute(symbol, at)
            if part is not None:
                parts.append(part)
            at += HOUR_US if whole else MINUTE_US
        return _merge(start_us, parts)

    def candles(self, symbol: str, length_us: int, from_us: int, to_us: int, now_us: int) -> list[MarketCandle]:
        """Return the candles whose bucket starts in ``[from_us, to_us)`` and has begun by now; weeks are Mondays'."""
        offset = 4 * DAY_US if length_us == WEEK_US else 0
        return self.shifted(symbol, length_us, from_us, to_us, now_us, offset)

    def shifted(
        self, symbol: str, length_us: int, from_us: int, to_us: int, now_us: int, offset_us: int
    ) -> list[MarketCandle]:
        """Return candles whose buckets start so much later than those that are aligned to the epoch."""
        first = max(from_us, self._listed_us[symbol] - length_us)
        start = first + (offset_us - first) % length_us
        found = []
        for at in range(start, min(to_us, now_us + 1), length_us):
            candle = self.candle(symbol, at, length_us, now_us + 1)
            if candle is not None:
                found.append(candle)
        return found

    def _is_whole(self, symbol: str, hour_us: int) -> bool:
        """Tell whether something is traded in each minute of an hour."""
        if symbol in self.quiet or hour_us < self._listed_us[symbol]:
            return False
        return not any(start < hour_us + HOUR_US and hour_us < end for start, end in self._closed_us)

    def _whole_hour(self, symbol: str, start_us: int) -> MarketCandle:
        hour = self._hour(symbol, start_us // HOUR_US)
        # One of the sixty-one residues does not occur among sixty minutes.
        rest = _SUM_OF_RESIDUES - (hour.factor * _MINUTES + hour.offset) % _PRIME
        lots, trades = _LEAST_LOTS * _MINUTES + rest, _LEAST_TRADES * _MINUTES + rest
        taker = lots - _MAKER_LOTS * _MINUTES
        return MarketCandle(
            start_us, hour.open, hour.high, hour.low, hour.close, lots, lots * hour.open, trades, taker,
            taker * hour.open,
        )  # fmt: skip

    def _minute(self, symbol: str, start_us: int) -> MarketCandle | None:
        if start_us < self._listed_us[symbol] or any(start <= start_us < end for start, end in self._closed_us):
            return None
        number = start_us // MINUTE_US
        if symbol in self.quiet and number % _QUIET_EVERY == 3:
            return None
        hour = self._hour(symbol, start_us // HOUR_US)
        i = number % _MINUTES
        o, close = self._minute_price(hour, i), self._minute_price(hour, i + 1)
        high = hour.high if i == hour.high_at else max(o, close) + 1
        low = hour.low if i == hour.low_at else min(o, close) - 1
        residue = (hour.factor * i + hour.offset) % _PRIME
        lots = _LEAST_LOTS + residue
        taker = lots - _MAKER_LOTS
        return MarketCandle(
            start_us, o, high, low, close, lots, lots * hour.open, _LEAST_TRADES + residue, taker, taker * hour.open
        )

    @staticmethod
    def _minute_price(hour: _Hour, i: int) -> int:
        return hour.open + (hour.close - hour.open) * i // _MINUTES + _WIGGLE[i]

    def _hour(self, symbol: str, number: int) -> _Hour:
        place = self._places[symbol]
        noise = _noise(place * 1_000_003 + number)
        o, close = self._boundary(place, number), self._boundary(place, number + 1)
        high = max(o, close) + 2 + (noise & 63)
        low = min(o, close) - _DEEPEST - 2 - (noise >> 6 & 63)
        return _Hour(
            o, close, high, low, (noise >> 12) % _MINUTES, (noise >> 20) % _MINUTES, (noise >> 28) % (_PRIME - 1) + 1,
            (noise >> 36) % _PRIME,
        )  # fmt: skip

    @staticmethod
    def _boundary(place: int, number: int) -> int:
        """Return the price at the start of an hour, in ticks."""
        price = 100_000 + place % 1_000_000
        for period, height in _WAVES:
            at = (number + place) % period
            price += min(at, period - at) * 2 * height // period
        return price + (_noise(place ^ number * 7_919) & 127)


def decimal_text(count: int, unit: int) -> str:
    """Write ``count`` units of ``1/unit`` (a power of ten) as a decimal, without zeros at its end."""
    digits = len(str(unit)) - 1
    whole, fraction = divmod(count, unit)
    return f"{whole}.{fraction:0{digits}d}".rstrip("0").rstrip(".") if fraction else str(whole)


def _merge(start_us: int, parts: Sequence[MarketCandle]) -> MarketCandle | None:
    if not parts:
        return None
    if len(parts) == 1:
        return parts[0]._replace(start_us=start_us)
    _, opens, highs, lows, closes, lots, quotes, trades, taker_lots, taker_quotes = zip(*parts, strict=True)
    return MarketCandle(
        start_us, opens[0], max(highs), min(lows), closes[-1], sum(lots), sum(quotes), sum(trades), sum(taker_lots),
        sum(taker_quotes),
    )  # fmt: skip


def _noise(number: int) -> int:
    """Return 64 bits that depend on every bit of a number (splitmix64)."""
    number = number * 0x9E3779B97F4A7C15 & _MASK
    number = (number ^ number >> 30) * 0xBF58476D1CE4E5B9 & _MASK
    number = (number ^ number >> 27) * 0x94D049BB133111EB & _MASK
    return number ^ number >> 31
