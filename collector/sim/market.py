"""A random market that is a function of its seed: any trade, book and candle of any moment can be worked out again.

Nothing is remembered, so REST can tell what happened while nobody was connected, or before the process began; a test
can hold a collection of an hour against the truth. Times are microseconds since the epoch; prices are counted in ticks,
sizes in lots, so that every sum is exact.
"""

from __future__ import annotations

import random
from bisect import bisect_right
from collections.abc import Sequence
from copy import copy
from fractions import Fraction
from functools import cached_property
from itertools import accumulate
from typing import NamedTuple
from zlib import crc32

import msgspec

GENESIS_US = 1_704_067_200_000_000
"""When every simulated market opened (2024-01-01): trade ids count from there, so they are of a real size."""
BUCKET_US = 100_000
"""The book changes once in each 100 ms."""
SECOND_US = 1_000_000
MINUTE_US = 60_000_000
FUNDING_US = 480 * MINUTE_US
"""Funding is paid every eight hours."""
INTERVALS_US = {
    name: minutes * MINUTE_US
    for name, minutes in {"1m": 1, "5m": 5, "15m": 15, "1h": 60, "4h": 240, "1d": 1440}.items()
}
DEPTH = 500
"""Levels of the book on each side."""

_IDS_PER_BUCKET = 50
_FORCED_EVERY = 20  # buckets from one forced order to the next, on average
_DECIMALS = 8  # Binance writes all numbers with eight
_NEAR = 5  # levels whose size changes in every bucket
_LIFE = 64  # buckets that the size of another level lasts
_RAW_COUNTS = (1, 2, 1, 3, 1, 1, 2, 2)
"""How many raw trades an aggregated one stands for, by its id modulo eight."""
_RAW_BEFORE = (0, *accumulate(_RAW_COUNTS))
_RAW_PER_TURN = _RAW_BEFORE[-1]
_OCTAVES = ((4, 3), (40, 20), (400, 100), (4_000, 800), (40_000, 5_000), (400_000, 30_000))
"""The price is a sum of waves: a period in buckets, and an amplitude in ticks for each."""
_KNOWN_PRICES = {"BTC": 60_000.0, "ETH": 3_000.0, "BNB": 600.0, "SOL": 150.0, "XRP": 0.5, "ADA": 0.4, "DOGE": 0.1}
_MAX_MINUTES = 4_000


class Print(NamedTuple):
    """An aggregated trade. ``maker``: the buyer was the maker, so the taker sold."""

    id: int
    time_us: int
    ticks: int
    lots: int
    maker: bool


class Book(NamedTuple):
    """The book as of the end of a bucket, best levels first, sizes in lots."""

    last_id: int
    bids: list[tuple[int, int]]
    asks: list[tuple[int, int]]


class Diff(NamedTuple):
    """What turns the book of one bucket into that of a later one; a size of 0 deletes the level."""

    first_id: int
    last_id: int
    bids: list[tuple[int, int]]
    asks: list[tuple[int, int]]


class Mark(NamedTuple):
    """What a contract's holders pay: prices in ticks, the rate in hundred-millionths, and when it is paid next."""

    time_us: int
    mark_ticks: int
    index_ticks: int
    rate: int
    next_us: int


class Forced(NamedTuple):
    """A position that was closed by force; ``sold``: it was a long one."""

    time_us: int
    ticks: int
    lots: int
    sold: bool


class Fold(msgspec.Struct):
    """A candle: prices in ticks, volumes in lots, quote volumes in ticks x lots, ids of aggregated trades."""

    open: int
    high: int
    low: int
    close: int
    lots: int
    quote: int
    taker_lots: int
    taker_quote: int
    first_id: int
    last_id: int

    @property
    def first_raw_id(self) -> int:
        return first_raw_id(self.first_id)

    @property
    def last_raw_id(self) -> int:
        return first_raw_id(self.last_id + 1) - 1

    @property
    def trades_count(self) -> int:
        """How many raw trades it stands for: that is what an exchange counts."""
        return self.last_raw_id - self.first_raw_id + 1


def first_raw_id(trade_id: int) -> int:
    """Return the id of the first raw trade that an aggregated one stands for."""
    turns, rest = divmod(trade_id, len(_RAW_COUNTS))
    return turns * _RAW_PER_TURN + _RAW_BEFORE[rest]


def aggregated_id(raw_id: int) -> int:
    """Return the id of the aggregated trade that a raw one belongs to."""
    turns, rest = divmod(raw_id, _RAW_PER_TURN)
    return turns * len(_RAW_COUNTS) + bisect_right(_RAW_BEFORE, rest) - 1


def raw_lots(trade: Print) -> list[int]:
    """Return the sizes of the raw trades that an aggregated one stands for, in lots; they add up to its own."""
    count = _RAW_COUNTS[trade.id % len(_RAW_COUNTS)]
    share, rest = divmod(trade.lots, count)
    return [share + rest, *[share] * (count - 1)]


def merge(folds: Sequence[Fold]) -> Fold | None:
    """Fold candles that follow each other into one; None where there are none."""
    if not folds:
        return None
    return Fold(
        folds[0].open,
        max(fold.high for fold in folds),
        min(fold.low for fold in folds),
        folds[-1].close,
        sum(fold.lots for fold in folds),
        sum(fold.quote for fold in folds),
        sum(fold.taker_lots for fold in folds),
        sum(fold.taker_quote for fold in folds),
        folds[0].first_id,
        folds[-1].last_id,
    )


class _Noise:
    """Numbers that look random and depend on nothing but the seed and their place."""

    def __init__(self, seed: int) -> None:
        generator = random.Random(seed)  # noqa: S311 - a market that can be repeated, not a secret
        # Two tables of coprime lengths repeat only after their product: 4 * 10^9 numbers.
        self.first = tuple(generator.getrandbits(32) for _ in range(65_521))
        self.second = tuple(generator.getrandbits(32) for _ in range(65_519))

    def at(self, place: int) -> int:
        return self.first[place % 65_521] ^ self.second[place % 65_519]


class Instrument:
    """One symbol's market.

    Args:
        symbol: ``BASE_QUOTE``.
        trades_per_s: aggregated trades in a second, on average and evenly.
    """

    def __init__(self, symbol: str, noise: _Noise, trades_per_s: Fraction) -> None:
        self.symbol = symbol
        self.base, _, self.quote = symbol.partition("_")
        self.native = f"{self.base}{self.quote}"
        self._noise = noise
        self._place = crc32(symbol.encode())
        period_us = Fraction(1_000_000) / trades_per_s
        self._period = period_us.numerator, period_us.denominator
        price = _KNOWN_PRICES.get(self.base) or 10.0 ** (self._place % 5) * (1 + self._place % 8)
        self.price_digits = 2 if price >= 100 else 4 if price >= 1 else 6
        self.lot_digits = 5 if price >= 10_000 else 4 if price >= 100 else 2 if price >= 1 else 0
        self._start_ticks = round(price * 10**self.price_digits)
        self._price_texts: dict[int, str] = {}
        self._lot_texts: dict[int, str] = {}
        self._top = (-1, 0, 0)
        self._lattices: dict[int, tuple[int, int, int]] = {}
        self._minutes: dict[int, Fold] = {}
        self._live: tuple[int, int, Fold | None] = (0, 0, None)

    # Numbers as text

    def price_text(self, ticks: int) -> str:
        """Write a price as the exchange does."""
        text = self._price_texts.get(ticks)
        if text is None:
            text = _remember(self._price_texts, ticks, decimal_text(ticks, self.price_digits))
        return text

    def lot_text(self, lots: int) -> str:
        """Write a size as the exchange does."""
        text = self._lot_texts.get(lots)
        if text is None:
            text = _remember(self._lot_texts, lots, decimal_text(lots, self.lot_digits))
        return text

    def quote_text(self, amount: int) -> str:
        """Write a sum of ticks x lots as the exchange does."""
        return decimal_text(amount, self.price_digits + self.lot_digits)

    # Trades

    def time_of(self, trade_id: int) -> int:
        """Return when a trade happens; times never go back."""
        numerator, denominator = self._period
        slot = trade_id * numerator // denominator
        room = numerator // denominator
        return GENESIS_US + slot + (self._noise.at(self._place + trade_id) % room if room else 0)

    def next_trade(self, time_us: int) -> int:
        """Return the id of the first trade at a time or after it."""
        numerator, denominator = self._period
        trade_id = max(0, (time_us - GENESIS_US) * denominator // numerator - 1)
        while self.time_of(trade_id) < time_us:
            trade_id += 1
        return trade_id

    def trades(self, first: int, end: int) -> list[Print]:
        """Return the trades with ids from ``first`` to before ``end``."""
        numerator, denominator = self._period
        room = numerator // denominator or 1
        table, other = self._noise.first, self._noise.second
        bucket, bid, ask = self._top
        prints = []
        for trade_id in range(first, end):
            place = self._place + trade_id
            noise = table[place % 65_521] ^ other[place % 65_519]
            since = trade_id * numerator // denominator + noise % room
            if since // BUCKET_US != bucket:
                bucket = since // BUCKET_US
                bid, ask = self.top(bucket)
            maker = noise & 0x10000 == 0
            lots = (noise >> 17) % 2_000 + 3
            prints.append(Print(trade_id, GENESIS_US + since, bid if maker else ask, lots, maker))
        return prints

    # The book

    @staticmethod
    def bucket_at(time_us: int) -> int:
        """Return the number of the bucket that a time is in."""
        return (time_us - GENESIS_US) // BUCKET_US

    @staticmethod
    def last_update_id(bucket: int) -> int:
        """Return the update id of the book at the end of a bucket."""
        return (bucket + 1) * _IDS_PER_BUCKET

    def top(self, bucket: int) -> tuple[int, int]:
        """Return the best bid and the best ask during a bucket, in ticks; trades print at them."""
        known, bid, ask = self._top
        if known != bucket:
            bid = self._start_ticks + sum(self._wave(bucket, *octave) for octave in self._octaves)
            ask = bid + (1, 1, 1, 2, 1, 3, 1, 1)[self._noise.at(self._place * 7 + bucket) % 8]
            self._top = bucket, bid, ask
        return bid, ask

    def book(self, bucket: int) -> Book:
        """Return the whole book as of the end of a bucket."""
        bid, ask = self.top(bucket)
        bids = [(price, self._size(price, bid - price, bucket)) for price in range(bid, bid - DEPTH, -1)]
        asks = [(price, self._size(price, price - ask, bucket)) for price in range(ask, ask + DEPTH)]
        return Book(
            self.last_update_id(bucket),
            [level for level in bids if level[1]],
            [level for level in asks if level[1]],
        )

    def diff(self, before: int, after: int) -> Diff:
        """Return what changed from the end of one bucket to the end of a later one."""
        old_bid, old_ask = self.top(before)
        new_bid, new_ask = self.top(after)
        bids = []
        for price in self._touched(old_bid, new_bid, -1, before, after):
            size = self._size(price, new_bid - price, after)
            if size != self._size(price, old_bid - price, before):
                bids.append((price, size))
        asks = []
        for price in self._touched(old_ask, new_ask, 1, before, after):
            size = self._size(price, price - new_ask, after)
            if size != self._size(price, price - old_ask, before):
                asks.append((price, size))
        return Diff(self.last_update_id(before) + 1, self.last_update_id(after), bids, asks)

    @cached_property
    def _octaves(self) -> list[tuple[int, int]]:
        """Keep the waves within a tenth of the price, which so stays positive."""
        return [(period, amplitude) for period, amplitude in _OCTAVES if amplitude * 20 < self._start_ticks]

    def _wave(self, bucket: int, period: int, amplitude: int) -> int:
        lattice, rest = divmod(bucket, period)
        known, left, right = self._lattices.get(period, (-1, 0, 0))
        if known != lattice:
            place = self._place + period * 1_009
            left = self._noise.at(place + lattice) % (2 * amplitude) - amplitude
            right = self._noise.at(place + lattice + 1) % (2 * amplitude) - amplitude
            self._lattices[period] = lattice, left, right
        return left + (right - left) * rest // period

    def _size(self, price: int, distance: int, bucket: int) -> int:
        """Return the size of a level, in lots; ``distance`` is how many ticks it is behind the best one."""
        if not 0 <= distance < DEPTH:
            return 0
        if distance < _NEAR:
            noise = self._noise.at(self._place + price * 31 + bucket * 17)
        else:
            noise = self._noise.at(self._place + price * 31 + (bucket + price) // _LIFE * 13)
        if distance and noise % 4 == 0:
            return 0
        return (noise >> 8) % 50_000 + 1

    @staticmethod
    def _touched(old: int, new: int, outward: int, before: int, after: int) -> list[int]:
        """Return the prices of one side that can differ, best first: near ones, far ends, sizes that came of age."""
        span = range(min(old, new) - DEPTH, max(old, new) + DEPTH + 1)
        low, high = min(old, new), max(old, new)
        touched = set(range(low - _NEAR, high + _NEAR + 1))
        touched.update(range(low + outward * (DEPTH - 1) - 1, high + outward * (DEPTH - 1) + 2))
        for bucket in range(before + 1, after + 1):
            touched.update(range(span.start + (-bucket - span.start) % _LIFE, span.stop, _LIFE))
        return sorted(touched, reverse=outward < 0)

    # What a contract has beside its trades and its book

    def mark(self, time_us: int) -> Mark:
        """Return the mark price and the funding as of the beginning of a second."""
        second = time_us // SECOND_US
        noise = self._noise.at(self._place * 3 + second)
        bid, _ = self.top(self.bucket_at(second * SECOND_US) - 1)
        rate = (noise >> 8) % 20_001 - 10_000
        next_us = (time_us // FUNDING_US + 1) * FUNDING_US
        return Mark(second * SECOND_US, bid + noise % 3, max(1, bid - noise % 5), rate, next_us)

    def open_interest(self, time_us: int) -> int:
        """Return how much is held during a second, in lots."""
        return 10_000_000 + self._noise.at(self._place * 5 + time_us // SECOND_US) % 1_000_000

    def forced(self, bucket: int) -> Forced | None:
        """Return the position that was closed by force at the end of a bucket; in most there is none."""
        noise = self._noise.at(self._place * 11 + bucket)
        if noise % _FORCED_EVERY:
            return None
        bid, ask = self.top(bucket)
        sold = noise & 0x10000 == 0
        time_us = GENESIS_US + (bucket + 1) * BUCKET_US
        return Forced(time_us, bid if sold else ask, (noise >> 17) % 5_000 + 1, sold)

    # Candles

    def fold_live(self, trades: Sequence[Print]) -> None:
        """Fold trades into their minutes as they happen, so that a candle asked for later costs nothing."""
        minute, live_from, fold = self._live
        for trade in trades:
            start = trade.time_us // MINUTE_US * MINUTE_US
            if start != minute:
                self._keep_live()
                minute, live_from, fold = start, trade.id, None
            fold = _fold_one(fold, trade)
            self._live = minute, live_from, fold

    def minute(self, start_us: int, end_us: int | None = None) -> Fold | None:
        """Return the candle of a minute, up to ``end_us`` where it is not over; None where nothing was traded."""
        known = self._minutes.get(start_us)
        if known is not None and end_us is None:
            return known
        live_minute, live_from, live = self._live
        first = self.next_trade(start_us)
        end = self.next_trade(start_us + MINUTE_US if end_us is None else end_us)
        if live is not None and live_minute == start_us and live.last_id == end - 1:
            if live_from > first:  # the minute was under way when this process began
                head = self._fold(first, live_from)
                live = merge([live] if head is None else [head, live])
                self._live = live_minute, first, live
            return copy(live)
        fold = self._fold(first, end)
        if fold is not None and end_us is None:
            self._remember_minute(start_us, fold)
        return fold

    def candle(self, start_us: int, interval_us: int, now_us: int) -> Fold | None:
        """Return the candle of any interval, as far as it has come by now."""
        minutes = range(start_us, min(start_us + interval_us, now_us), MINUTE_US)
        folds = [self.minute(start, None if start + MINUTE_US <= now_us else now_us) for start in minutes]
        return merge([fold for fold in folds if fold is not None])

    def _fold(self, first: int, end: int) -> Fold | None:
        fold = None
        for start in range(first, end, 10_000):
            for trade in self.trades(start, min(end, start + 10_000)):
                fold = _fold_one(fold, trade)
        return fold

    def _keep_live(self) -> None:
        """Remember the live minute, which is over, if it was seen from its first trade."""
        minute, live_from, fold = self._live
        if fold is not None and live_from == self.next_trade(minute):
            self._remember_minute(minute, fold)

    def _remember_minute(self, start_us: int, fold: Fold) -> None:
        if len(self._minutes) >= _MAX_MINUTES:
            del self._minutes[next(iter(self._minutes))]
        self._minutes[start_us] = fold


class Market:
    """The market of all symbols.

    Args:
        rate: aggregated trades in a second, over all symbols, shared evenly.
    """

    def __init__(self, symbols: Sequence[str], *, seed: int = 1, rate: float = 50) -> None:
        noise = _Noise(seed)
        share = Fraction(rate).limit_denominator(1_000_000) / max(1, len(symbols))
        self.seed = seed
        self.rate = rate
        instruments = [Instrument(symbol, noise, share) for symbol in symbols]
        self.by_native = {instrument.native: instrument for instrument in instruments}


def decimal_text(count: int, digits: int) -> str:
    """Write ``count`` units of ``10**-digits`` with eight decimals."""
    whole, fraction = divmod(count, 10**digits)
    return f"{whole}.{fraction * 10 ** (_DECIMALS - digits):0{_DECIMALS}d}"


def _remember(texts: dict[int, str], key: int, text: str) -> str:
    if len(texts) > 65_536:
        texts.clear()
    texts[key] = text
    return text


def _fold_one(fold: Fold | None, trade: Print) -> Fold:
    trade_id, _, ticks, lots, maker = trade
    quote = ticks * lots
    if fold is None:
        taker = (0, 0) if maker else (lots, quote)
        return Fold(ticks, ticks, ticks, ticks, lots, quote, *taker, trade_id, trade_id)
    if ticks > fold.high:
        fold.high = ticks
    elif ticks < fold.low:
        fold.low = ticks
    fold.close = ticks
    fold.lots += lots
    fold.quote += quote
    if not maker:
        fold.taker_lots += lots
        fold.taker_quote += quote
    fold.last_id = trade_id
    return fold
