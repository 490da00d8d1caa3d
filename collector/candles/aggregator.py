"""Candles from trades, exact whatever the grouping: one symbol of one session.

Trades fold only into 1m buckets; 5m … 1d fold from 1m candles. Whatever a candle holds is independent of the order in
which its trades arrive and of how they are cut into batches: sums are exact decimals, open and close belong to the
first and last trade by (exchange time, trade id or ``seq``), high and low are compared as numbers.

What is kept in memory is bounded: open buckets, and closed ones until ``keep_us`` of exchange time after their end. A
trade later than that makes its minute *stale*: at the next ``close_due`` the minute is read again from the log
(``History``), and the candles above it are folded again from 1m rows. Without a history such trades are counted in
``too_late``, and the candles stay as they were.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from decimal import Context, Decimal, DivisionByZero, Inexact, InvalidOperation, Overflow, localcontext
from typing import Literal, Protocol

import msgspec

from collector.candles.intervals import HIGHER, INTERVALS, MINUTE_US
from collector.events import Kline, Trade

EXACT = Context(prec=500, traps=[Inexact, InvalidOperation, Overflow, DivisionByZero])
"""The arithmetic of sums and quote volumes: a result that would have to be rounded is an error, never a lost digit."""

DEFAULT_KEEP_US = 15 * MINUTE_US

Coverage = Literal["full", "partial", "gap"]
GapTest = Callable[[int, int], bool]
"""Say whether a known hole of the symbol's trades overlaps [from_us, to_us)."""

_ZERO = Decimal(0)
_NEVER = 1 << 62


def plain(number: Decimal) -> str:
    """Write a decimal without exponent and without changing its value or its trailing zeros."""
    return format(number, "f")


class Candle(msgspec.Struct, frozen=True, gc=False):
    """A row of ``ohlcv.csv`` without its ``seq``. ``timestamp_us`` is the bucket's start.

    ``taker_buy_volume`` is empty where a trade does not say its side. ``coverage`` is ``full``, ``partial`` (the
    session's first or last) or ``gap``; ``source`` is ``rest`` as soon as one of its trades came from there, and
    ``kline`` where the exchange's own minute stands for trades that are not to be had. ``quote_volume`` is empty, and
    ``trades_count`` what is known, where that minute does not say them.
    ``revision`` counts the rows of one key, from 0.
    """

    timestamp_us: int
    interval: str
    open: str
    high: str
    low: str
    close: str
    volume: str
    quote_volume: str
    trades_count: int
    taker_buy_volume: str
    first_trade_id: str
    last_trade_id: str
    is_closed: bool
    coverage: str
    source: str
    revision: int = 0

    @property
    def key(self) -> tuple[str, int]:
        """Return what the candle is: its interval and its start."""
        return self.interval, self.timestamp_us

    def line(self, seq: int) -> str:
        """Return the CSV line, with its newline."""
        return (
            f"{self.timestamp_us},{self.interval},{self.open},{self.high},{self.low},{self.close},{self.volume},"
            f"{self.quote_volume},{self.trades_count},{self.taker_buy_volume},{self.first_trade_id},"
            f"{self.last_trade_id},{'true' if self.is_closed else 'false'},{self.coverage},{self.source},"
            f"{self.revision},{seq}\n"
        )

    @classmethod
    def from_row(cls, row: Sequence[str]) -> Candle:
        """Read the fields of a CSV line (``seq`` may be missing); raise ValueError where they are not a candle's."""
        if len(row) not in (16, 17):
            raise ValueError(f"A candle has 17 fields, this row has {len(row)}.")
        return cls(
            timestamp_us=int(row[0]),
            interval=row[1],
            open=row[2],
            high=row[3],
            low=row[4],
            close=row[5],
            volume=row[6],
            quote_volume=row[7],
            trades_count=int(row[8]),
            taker_buy_volume=row[9],
            first_trade_id=row[10],
            last_trade_id=row[11],
            is_closed=row[12] == "true",
            coverage=row[13],
            source=row[14],
            revision=int(row[15]),
        )

    def same_as(self, other: Candle) -> bool:
        """Say whether all but the revision is equal, digit by digit."""
        return self == msgspec.structs.replace(other, revision=self.revision)


class Ticks(msgspec.Struct, gc=False):
    """Trades as they stand in the log: with their ``seq`` and their exact quote volumes, position by position."""

    trades: Sequence[Trade]
    seqs: Sequence[int]
    quotes: Sequence[Decimal]


class History(Protocol):
    """One symbol's log, as the aggregator reads it back after a restart or for a trade that came very late."""

    def first_timestamp_us(self) -> int | None:
        """Return the time of the first trade in the log; None where there is none."""
        ...

    def last_timestamp_us(self) -> int | None:
        """Return the time of the newest trade in the log; None where there is none."""
        ...

    def whole_from_us(self) -> int:
        """Return the time from which on the log has every trade that was ever in it; the earlier ones were deleted."""
        ...

    def tail(self, from_us: int) -> Iterable[Ticks]:
        """Return, in file order, all trades at or after a time, those between them, and those shortly before them.

        The last are what a flush wrote before a crash kept its candles from being written.
        """
        ...

    def candles(self, from_us: int) -> Iterable[Candle]:
        """Return, in file order, all rows of buckets that start at or after a time, and others that stand near them."""
        ...


class _Bucket:
    """What one bucket's trades add up to.

    ``first`` and ``last`` are (time, order, price, trade id): of the trade itself in a minute, of its minute (with the
    minute's start as time) in a higher interval.
    """

    __slots__ = (
        "buy", "changed", "closed", "count", "emitted", "first", "high",
        "last", "low", "quote", "quoted", "sided", "source", "start", "volume",
    )  # fmt: skip

    def __init__(self, start: int) -> None:
        self.start = start
        self.volume = self.quote = self.buy = _ZERO
        self.count = 0
        self.first: tuple[int, int, str, str] = (_NEVER, 0, "", "")
        self.last: tuple[int, int, str, str] = (-1, 0, "", "")
        self.high: tuple[Decimal, str] | None = None
        self.low: tuple[Decimal, str] | None = None
        self.source = "ws"
        self.sided = True
        self.quoted = True
        self.closed = False
        self.changed = False
        self.emitted: Candle | None = None

    def add(self, other: _Bucket) -> None:
        """Merge a bucket of the same minute."""
        self._add_totals(other)
        self.first = min(self.first, other.first)
        self.last = max(self.last, other.last)

    def absorb(self, minute: _Bucket, delta: _Bucket) -> None:
        """Take what is new of a minute (``delta``) into a higher interval's bucket; ``minute`` is as it now stands."""
        self._add_totals(delta)
        if minute.start <= self.first[0]:
            self.first = (minute.start, 0, minute.first[2], minute.first[3])
        if minute.start >= self.last[0]:
            self.last = (minute.start, 0, minute.last[2], minute.last[3])

    def _add_totals(self, other: _Bucket) -> None:
        self.volume += other.volume
        self.quote += other.quote
        self.buy += other.buy
        self.count += other.count
        if self.high is None or (other.high is not None and other.high > self.high):
            self.high = other.high
        if self.low is None or (other.low is not None and other.low < self.low):
            self.low = other.low
        if other.source != "ws" and self.source != "kline":
            self.source = other.source
        self.sided = self.sided and other.sided
        self.quoted = self.quoted and other.quoted

    def copy(self) -> _Bucket:
        twin = _Bucket(self.start)
        for name in self.__slots__:
            setattr(twin, name, getattr(self, name))
        return twin

    def candle(self, interval: str, coverage: str) -> Candle:
        """Return the candle with the revision that its next row would have."""
        return Candle(
            timestamp_us=self.start,
            interval=interval,
            open=self.first[2],
            high=self.high[1] if self.high else "",
            low=self.low[1] if self.low else "",
            close=self.last[2],
            volume=plain(self.volume),
            quote_volume=plain(self.quote) if self.quoted else "",
            trades_count=self.count,
            taker_buy_volume=plain(self.buy) if self.sided else "",
            first_trade_id=self.first[3],
            last_trade_id=self.last[3],
            is_closed=self.closed,
            coverage=coverage,
            source=self.source,
            revision=0 if self.emitted is None else self.emitted.revision + 1,
        )


def _bucket_of_row(candle: Candle) -> _Bucket:
    """Return a 1m candle's row as a bucket that a higher interval can absorb."""
    bucket = _Bucket(candle.timestamp_us)
    bucket.volume = Decimal(candle.volume)
    bucket.quote = Decimal(candle.quote_volume or 0)
    bucket.quoted = candle.quote_volume != ""
    bucket.buy = Decimal(candle.taker_buy_volume or 0)
    bucket.sided = candle.taker_buy_volume != ""
    bucket.count = candle.trades_count
    bucket.first = (candle.timestamp_us, 0, candle.open, candle.first_trade_id)
    bucket.last = (candle.timestamp_us, 0, candle.close, candle.last_trade_id)
    bucket.high = (Decimal(candle.high), candle.high)
    bucket.low = (Decimal(candle.low), candle.low)
    bucket.source = candle.source
    bucket.closed = candle.is_closed
    bucket.emitted = candle
    return bucket


def _bucket_of_kline(kline: Kline, own: _Bucket | None) -> _Bucket:
    """Return the exchange's own minute as a bucket; what it does not say is taken from our own trades in it."""
    bucket = _Bucket(kline.start_us)
    bucket.volume = Decimal(kline.volume)
    bucket.quoted, bucket.sided = kline.quote_volume is not None, kline.taker_buy_volume is not None
    bucket.quote, bucket.buy = Decimal(kline.quote_volume or 0), Decimal(kline.taker_buy_volume or 0)
    bucket.count = kline.trades_count if kline.trades_count is not None else own.count if own is not None else 0
    bucket.first = (kline.start_us, 0, kline.open, own.first[3] if own is not None else "")
    bucket.last = (kline.start_us, 0, kline.close, own.last[3] if own is not None else "")
    bucket.high, bucket.low = (Decimal(kline.high), kline.high), (Decimal(kline.low), kline.low)
    bucket.source = "kline"
    return bucket


class Aggregator:
    """Build one symbol's candles from the trades that were written to the log.

    Not thread-safe: everything is called in the log's thread.

    Args:
        grace_us: how much exchange time passes after a bucket's end before it closes.
        started_us: the exchange time from which on the session saw everything; None takes the first trade's.
        keep_us: how long after its end a closed bucket stays in memory for late trades.
        ids_ordered: numeric trade ids say which of two trades at the same time came first; otherwise ``seq`` does.
        history: the symbol's log, for trades that come later than ``keep_us``.
    """

    def __init__(
        self,
        symbol: str,
        *,
        grace_us: int,
        started_us: int | None = None,
        keep_us: int = DEFAULT_KEEP_US,
        ids_ordered: bool = True,
        history: History | None = None,
    ) -> None:
        self.symbol = symbol
        self.grace_us = grace_us
        self.started_us = started_us
        self.keep_us = keep_us
        self.too_late = 0
        """Trades that came after their minute had left memory, without a history that still has all of it."""
        self._ids_ordered = ids_ordered
        self._history = history
        self._now_us = -_NEVER
        self._forgotten_until_us = -_NEVER
        """Minutes that end at or before this are no longer in memory."""
        self._minutes: dict[int, _Bucket] = {}
        self._spans: dict[str, dict[int, _Bucket]] = {interval: {} for interval in HIGHER}
        self._stale: set[int] = set()
        self._klines: dict[int, Kline] = {}
        self._restored: set[int] = set()
        self._next_due_us = _NEVER
        self._changed = False

    def fold(self, trades: Sequence[Trade], seqs: Sequence[int], quotes: Sequence[Decimal]) -> None:
        """Take in trades that were just written, with their ``seq`` and exact quote volumes, position by position."""
        if not trades:
            return
        if self.started_us is None:
            self.started_us = trades[0].timestamp_us
        with localcontext(EXACT):
            for bucket in self._by_minute(trades, seqs, quotes):
                self._merge(bucket)

    def close_due(self, exchange_now_us: int, gaps: GapTest) -> list[Candle]:
        """Return the candles that closed by now and the new revisions of closed ones: 1m first, each interval by time.

        Args:
            exchange_now_us: the symbol's exchange time (``ExchangeClock``); one that goes backward counts as standing.
        """
        self._now_us = max(self._now_us, exchange_now_us)
        limit = self._now_us - self.grace_us
        if limit < self._next_due_us and not self._changed and not self._stale:
            return []
        with localcontext(EXACT):
            self._recall()
            self._close_minutes(limit)
            rows = self._emit(gaps, limit)
        self._forget()
        self._next_due_us = self._find_next_due()
        return rows

    def finish(self, gaps: GapTest) -> list[Candle]:
        """Return what a stopped session has yet to write: revisions, and its open candles with ``is_closed=false``."""
        rows = self.close_due(self._now_us, gaps)
        with localcontext(EXACT):
            for interval, buckets in self._open_buckets():
                for start in sorted(buckets):
                    bucket = buckets[start]
                    coverage = "gap" if gaps(start, start + INTERVALS[interval]) else "partial"
                    self._add_row(rows, bucket, bucket.candle(interval, coverage), self._keeper(interval, start))
        return rows

    def revise(self, from_us: int, to_us: int) -> None:
        """Look again at the closed candles that overlap [from_us, to_us): their gaps changed or were repaired.

        The next ``close_due`` returns those that came out different.
        """
        for interval, buckets in self._all_buckets():
            length = INTERVALS[interval]
            for start, bucket in buckets.items():
                if bucket.closed and start < to_us and start + length > from_us:
                    bucket.changed = self._changed = True
        first = max(from_us, self.started_us if self.started_us is not None else from_us)
        until = min(to_us, self._forgotten_until_us)
        if self._history is not None:
            self._stale.update(range(first - first % MINUTE_US, until, MINUTE_US))

    def replace(self, klines: Iterable[Kline]) -> None:
        """Put the exchange's own closed minutes in place of those whose trades are not to be had.

        One in which nothing was traded makes no candle. What is later said of such a minute by trades is passed over,
        until ``restore``.
        """
        if self._history is None:
            return
        for kline in klines:
            if kline.closed and kline.interval == "1m" and Decimal(kline.volume) > 0:
                self._klines[kline.start_us] = kline
                self._restored.discard(kline.start_us)
                self._stale.add(kline.start_us)

    def restore(self, from_us: int, to_us: int) -> None:
        """Make the minutes that overlap [from_us, to_us) from their trades again: they have all come after all."""
        if self._history is not None:
            minutes = range(from_us - from_us % MINUTE_US, to_us, MINUTE_US)
            self._restored.update(minutes)
            self._stale.update(minutes)
            for start in minutes:
                self._klines.pop(start, None)

    def open_candles(self) -> list[Candle]:
        """Return the candles that are still open, as they stand, for whoever watches."""
        with localcontext(EXACT):
            return [
                buckets[start].candle(interval, "partial")
                for interval, buckets in self._open_buckets()
                for start in sorted(buckets)
            ]

    def rebuild(self, history: History) -> None:
        """Take up where the log ends: open candles again, closed ones known, revisions going on.

        Candles whose rows are missing or differ from what the trades say come out of the next ``close_due``.
        """
        self._history = history
        last = history.last_timestamp_us()
        if last is None:
            return
        if self.started_us is None:
            self.started_us = history.first_timestamp_us()
        lines, recent = self._find_recent(history, last)
        rows = {candle.key: candle for candle in lines}
        closed_until = max((c.timestamp_us + INTERVALS[c.interval] for c in lines if c.is_closed), default=recent)
        self._now_us = max(last, closed_until + self.grace_us)
        self._forgotten_until_us = recent
        whole_from_us = history.whole_from_us()
        with localcontext(EXACT):
            for ticks in history.tail(recent):
                for bucket in self._by_minute(ticks.trades, ticks.seqs, ticks.quotes):
                    if bucket.start >= whole_from_us:
                        self._merge(bucket)
            for start in list(self._minutes):
                row = rows.get(("1m", start))
                if row is not None and row.source == "kline":
                    self._minutes[start] = _bucket_of_row(row)
                self._know(self._minutes[start], row)
            self._refold(rows, {recent, *self._minutes})
        self._stale.update(start for start in _last_written_minutes(lines) if start not in self._minutes)
        self._changed = True
        self._next_due_us = -_NEVER

    def _find_recent(self, history: History, last: int) -> tuple[list[Candle], int]:
        """Return the candle rows to know, and the minute from which on trades are read again.

        That is ``keep_us`` before the end, or where the closed candles end, or the first that was left open.
        """
        day_us = INTERVALS["1d"]
        floor = last - self.keep_us - self.grace_us
        loaded_from = floor - floor % day_us
        while True:
            lines = list(history.candles(loaded_from))
            final = {candle.key: candle for candle in lines if candle.interval == "1m"}.values()
            begin = self.started_us if self.started_us is not None else last
            closed_until = max((c.timestamp_us + MINUTE_US for c in final if c.is_closed), default=begin)
            recent = min([floor, closed_until, *(c.timestamp_us for c in final if not c.is_closed)])
            recent -= recent % MINUTE_US
            if recent >= loaded_from:
                return lines, recent
            loaded_from = recent - recent % day_us

    # how trades become buckets

    def _by_minute(self, trades: Sequence[Trade], seqs: Sequence[int], quotes: Sequence[Decimal]) -> Iterator[_Bucket]:
        """Sum up trades per minute; most batches are of one minute, and then grouping costs nothing per trade."""
        times = [trade.timestamp_us for trade in trades]
        start = min(times) // MINUTE_US * MINUTE_US
        if max(times) < start + MINUTE_US:
            yield self._sum_up(start, trades, times, seqs, quotes)
            return
        positions: dict[int, list[int]] = {}
        for position, time in enumerate(times):
            positions.setdefault(time - time % MINUTE_US, []).append(position)
        for start, chosen in positions.items():
            yield self._sum_up(
                start,
                [trades[i] for i in chosen],
                [times[i] for i in chosen],
                [seqs[i] for i in chosen],
                [quotes[i] for i in chosen],
            )

    def _sum_up(
        self, start: int, trades: Sequence[Trade], times: list[int], seqs: Sequence[int], quotes: Sequence[Decimal]
    ) -> _Bucket:
        bucket = _Bucket(start)
        volumes = [Decimal(trade.volume) for trade in trades]
        bucket.volume = sum(volumes, _ZERO)
        sides: list[str] = [trade.side for trade in trades]
        bucket.buy = sum([v for v, side in zip(volumes, sides, strict=True) if side == "buy"], _ZERO)
        bucket.sided = sides.count("buy") + sides.count("sell") == len(sides)
        bucket.quote = sum(quotes, _ZERO)
        bucket.count = _count_raw(trades)
        bucket.high, bucket.low = _extremes([trade.price for trade in trades])
        bucket.first = self._end(min, trades, times, seqs)
        bucket.last = self._end(max, trades, times, seqs)
        if "rest" in {trade.source for trade in trades}:
            bucket.source = "rest"
        return bucket

    def _end(
        self,
        choose: Callable[..., int],
        trades: Sequence[Trade],
        times: list[int],
        seqs: Sequence[int],
    ) -> tuple[int, int, str, str]:
        """Return the first (``choose`` min) or last (max) trade; only trades of the same time are compared by order."""
        time: int = choose(times)
        found = times.index(time)
        if times.count(time) > 1:
            same = [position for position, other in enumerate(times) if other == time]
            found = choose(same, key=lambda position: self._order(trades[position], seqs[position]))
        trade = trades[found]
        return time, self._order(trade, seqs[found]), trade.price, str(trade.trade_id)

    def _order(self, trade: Trade, seq: int) -> int:
        """Return what orders trades of the same time: a text of digits counts as the number that the log gives back."""
        if not self._ids_ordered:
            return seq
        trade_id = trade.trade_id
        if isinstance(trade_id, int):
            return trade_id
        return int(trade_id) if trade_id.isascii() and trade_id.isdecimal() else seq

    # how buckets become candles

    def _merge(self, delta: _Bucket) -> None:
        known = self._minutes.get(delta.start)
        if known is None:
            if delta.start + MINUTE_US <= self._forgotten_until_us:
                self._remember_stale(delta)
                return
            self._minutes[delta.start] = delta
            self._next_due_us = min(self._next_due_us, delta.start + MINUTE_US)
            return
        if known.source == "kline":
            return
        known.add(delta)
        if not known.closed:
            return
        known.changed = self._changed = True
        for interval, length in HIGHER.items():
            span = self._spans[interval][delta.start - delta.start % length]
            span.absorb(known, delta)
            span.changed = True

    def _remember_stale(self, delta: _Bucket) -> None:
        if self._history is None:
            self.too_late += delta.count
        else:
            self._stale.add(delta.start)

    def _close_minutes(self, limit: int) -> None:
        for start in sorted(s for s, b in self._minutes.items() if not b.closed and s + MINUTE_US <= limit):
            minute = self._minutes[start]
            minute.closed = minute.changed = True
            for interval, length in HIGHER.items():
                spans = self._spans[interval]
                beginning = start - start % length
                if beginning not in spans:
                    spans[beginning] = _Bucket(beginning)
                spans[beginning].absorb(minute, minute)
                spans[beginning].changed = True

    def _emit(self, gaps: GapTest, limit: int) -> list[Candle]:
        rows: list[Candle] = []
        for interval, buckets in self._all_buckets():
            length = INTERVALS[interval]
            for start in sorted(s for s, b in buckets.items() if b.changed or not b.closed):
                bucket = buckets[start]
                bucket.closed = bucket.closed or start + length <= limit
                if (
                    bucket.closed and bucket.changed and bucket.high is not None
                ):  # its minutes may still be open after a crash
                    candle = bucket.candle(interval, self._coverage(start, length, gaps))
                    self._add_row(rows, bucket, candle, bucket)
                    bucket.changed = False
        self._changed = False
        return rows

    @staticmethod
    def _add_row(rows: list[Candle], bucket: _Bucket, candle: Candle, keeper: _Bucket) -> None:
        """Append a candle unless its last row says the same already; ``keeper`` remembers it as the last row."""
        if bucket.emitted is not None and bucket.emitted.same_as(candle):
            return
        keeper.emitted = candle
        rows.append(candle)

    def _coverage(self, start: int, length: int, gaps: GapTest) -> Coverage:
        if gaps(start, start + length):
            return "gap"
        return "partial" if self.started_us is not None and self.started_us > start else "full"

    def _all_buckets(self) -> list[tuple[str, dict[int, _Bucket]]]:
        return [("1m", self._minutes), *self._spans.items()]

    def _keeper(self, interval: str, start: int) -> _Bucket:
        """Return the bucket that remembers the last row; a higher one may not exist before its first minute closes."""
        if interval == "1m":
            return self._minutes[start]
        return self._spans[interval].setdefault(start, _Bucket(start))

    def _open_buckets(self) -> Iterator[tuple[str, dict[int, _Bucket]]]:
        """Return, per interval, the open buckets: higher ones as copies that hold their open minutes too."""
        minutes = {start: bucket for start, bucket in self._minutes.items() if not bucket.closed}
        yield "1m", minutes
        for interval, length in HIGHER.items():
            buckets = {start: span.copy() for start, span in self._spans[interval].items() if not span.closed}
            for start in sorted(minutes):
                beginning = start - start % length
                if beginning not in buckets:
                    kept = self._spans[interval].get(beginning)
                    buckets[beginning] = kept.copy() if kept is not None else _Bucket(beginning)
                    buckets[beginning].closed = False
                buckets[beginning].absorb(minutes[start], minutes[start])
            yield interval, buckets

    def _forget(self) -> None:
        """Let go of what closed longer ago than ``keep_us``."""
        edge = self._now_us - self.keep_us
        for interval, buckets in self._all_buckets():
            length = INTERVALS[interval]
            for start in [s for s, b in buckets.items() if b.closed and s + length <= edge]:
                del buckets[start]
        self._forgotten_until_us = max(self._forgotten_until_us, edge)

    def _find_next_due(self) -> int:
        ends = (
            start + INTERVALS[interval]
            for interval, buckets in self._all_buckets()
            for start, bucket in buckets.items()
            if not bucket.closed
        )
        return min(ends, default=_NEVER)

    # how the log gives back what is no longer in memory

    def _recall(self) -> None:
        """Read the stale minutes again from the log, and fold again what stands above them."""
        if not self._stale or self._history is None:
            return
        whole_from_us = self._history.whole_from_us()
        stale = {start for start in self._stale if start >= whole_from_us or start in self._klines}
        self._stale = set()
        if not stale:
            return
        day_us = INTERVALS["1d"]
        first = min(stale)
        rows = {candle.key: candle for candle in self._history.candles(first - first % day_us)}
        found: dict[int, _Bucket] = {}
        for ticks in self._history.tail(first):
            for bucket in self._by_minute(ticks.trades, ticks.seqs, ticks.quotes):
                if bucket.start in stale:
                    found.setdefault(bucket.start, _Bucket(bucket.start)).add(bucket)
        for start in sorted(stale):
            self._take_exchanges_own(start, rows.get(("1m", start)), found)
        for start, bucket in found.items():
            self._know(bucket, rows.get(("1m", start)))
            bucket.closed = bucket.changed = True
            self._minutes[start] = bucket
        self._refold(rows, set(found))

    def _take_exchanges_own(self, start: int, row: Candle | None, found: dict[int, _Bucket]) -> None:
        """Put the exchange's own minute in place of what the trades say, where that was asked for or written before."""
        kline = self._klines.pop(start, None)
        if kline is not None:
            found[start] = _bucket_of_kline(kline, found.get(start))
        elif start in self._restored:
            self._restored.discard(start)
        elif row is not None and row.source == "kline":
            found[start] = _bucket_of_row(row)

    @staticmethod
    def _know(bucket: _Bucket, row: Candle | None) -> None:
        """Tell a bucket which row of it was written last."""
        if row is not None:
            bucket.emitted = row
            bucket.closed = bucket.changed = row.is_closed

    def _refold(self, rows: dict[tuple[str, int], Candle], starts: set[int]) -> None:
        """Fold what stands above some minutes again from 1m candles: those in memory, else their closed rows."""
        closed = (candle for candle in rows.values() if candle.interval == "1m" and candle.is_closed)
        minutes = {candle.timestamp_us: _bucket_of_row(candle) for candle in closed}
        minutes.update((start, bucket) for start, bucket in self._minutes.items() if bucket.closed)
        for interval, length in HIGHER.items():
            wanted = {start - start % length for start in starts}
            for start in wanted:
                self._spans[interval].pop(start, None)
            for minute in (minutes[start] for start in sorted(minutes) if start - start % length in wanted):
                beginning = minute.start - minute.start % length
                span = self._spans[interval].setdefault(beginning, _Bucket(beginning))
                span.absorb(minute, minute)
            for start in wanted:
                row = rows.get((interval, start))
                if row is not None or start in self._spans[interval]:
                    span = self._spans[interval].setdefault(start, _Bucket(start))
                    self._know(span, row)
                    span.changed = True


def _last_written_minutes(lines: Sequence[Candle]) -> list[int]:
    """Return the 1m candles of the last append, perhaps of some before: the rows above them may be torn off."""
    ranks = {interval: rank for rank, interval in enumerate(INTERVALS)}
    found: list[int] = []
    highest = len(ranks)
    for candle in reversed(lines):
        if ranks[candle.interval] > highest:
            break
        highest = ranks[candle.interval]
        if highest == 0:
            found.append(candle.timestamp_us)
    return found


def _count_raw(trades: Sequence[Trade]) -> int:
    """Count the exchange's own trades: an aggregated one stands for all from ``first_raw_id`` to ``last_raw_id``."""
    firsts = [trade.first_raw_id for trade in trades]
    lasts = [trade.last_raw_id for trade in trades]
    unknown = firsts.count(None)
    if unknown == len(firsts):
        return unknown
    if not unknown and None not in lasts:
        return sum(lasts) - sum(firsts) + len(firsts)  # type: ignore[arg-type]  # there is no None in them
    return sum(
        1 if first is None or last is None else last - first + 1 for first, last in zip(firsts, lasts, strict=True)
    )


def _extremes(prices: Sequence[str]) -> tuple[tuple[Decimal, str], tuple[Decimal, str]]:
    """Return the highest and the lowest price, as number and text."""
    texts = list(dict.fromkeys(prices))  # in the order of memory, which a set would not keep: a fifth faster
    numbers = list(map(Decimal, texts))
    highest, lowest = max(numbers), min(numbers)
    return (
        (highest, max([text for text, number in zip(texts, numbers, strict=True) if number == highest])),
        (lowest, min([text for text, number in zip(texts, numbers, strict=True) if number == lowest])),
    )
