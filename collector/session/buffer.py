"""The session buffer: what a feed makes goes in, what a flush takes comes out; bounded, and counted.

At any moment ``received == written + pending + dropped``. Everything here is called in the event loop's thread.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Literal

from collector.events import BookTop, Gap, Kline, MarketEvent, Trade
from collector.session.gaps import Repair
from collector.session.rows import identify
from collector.streams import KLINES

_MAX_KLINES = 20_000
_CROWDED_SHARE = 8  # from an eighth of its bound on, a buffer is crowded


@dataclass(slots=True)
class Batch:
    """What a flush takes: events in the order of their arrival."""

    trades: list[Trade] = field(default_factory=list)
    books: list[BookTop] = field(default_factory=list)
    gaps: list[Gap] = field(default_factory=list)
    klines: list[Kline] = field(default_factory=list)
    """The exchange's final candles, for comparing ours with them."""
    others: dict[str, list[MarketEvent | Kline]] = field(default_factory=dict)
    """Per data type that is neither trades nor books: the events that shall be rows."""
    observed: dict[str, int] = field(default_factory=dict)
    """Per symbol, the newest exchange time that was seen since the swap before."""
    repairs: list[Repair] = field(default_factory=list)
    replacements: list[Kline] = field(default_factory=list)
    """The exchange's own minutes, for those whose trades are not to be had."""

    @property
    def rows(self) -> int:
        """Return how many rows of data types it will make."""
        return len(self.trades) + len(self.books) + sum(map(len, self.others.values()))


class _Run:
    """Rows of one symbol and stream that were dropped one after another."""

    __slots__ = ("count", "first_id", "first_us", "last_id", "last_us")

    def __init__(self, at_us: int, row_id: int | str) -> None:
        self.first_us = self.last_us = at_us
        self.first_id = self.last_id = row_id
        self.count = 1

    def extend(self, at_us: int, row_id: int | str) -> None:
        self.last_us = at_us
        self.last_id = row_id
        self.count += 1

    def gap(self, stream: str, symbol: str) -> Gap:
        numbered = isinstance(self.first_id, int) and isinstance(self.last_id, int)
        return Gap(
            symbol,
            stream,
            "overflow",
            self.first_us,
            self.last_us,
            self.first_id if numbered else None,  # type: ignore[arg-type]  # mypy does not follow ``numbered``
            self.last_id if numbered else None,  # type: ignore[arg-type]
            self.count,
            detail="the buffer was full",
        )


class SessionBuffer:
    """Take a session's events until the next flush.

    Rows are ``pending`` from their arrival until they are durable (``written``) or given up (``failed``). Once
    ``max_rows`` are pending, newer ones are dropped, counted, and named by a gap for each symbol and stream.

    Args:
        max_rows: how many rows of data types may be pending.
        klines: which of the exchange's candles are rows: none, the final ones, or every state of them.
    """

    def __init__(self, max_rows: int, *, klines: Literal["none", "closed", "all"] = "none") -> None:
        self.max_rows = max_rows
        self.received = 0
        self.written = 0
        self.dropped = 0
        self.klines_dropped = 0
        self._crowded_from = max_rows // _CROWDED_SHARE
        self._ceiling = max_rows  # how many may have been received before the next one is dropped
        self._trades: list[Trade] = []
        self._books: list[BookTop] = []
        self._gaps: list[Gap] = []
        self._klines: deque[Kline] = deque(maxlen=_MAX_KLINES)
        self._repairs: list[Repair] = []
        self._replacements: list[Kline] = []
        self._recorded_klines = klines
        self._others: dict[str, list[MarketEvent | Kline]] = {}
        self._others_count = 0
        self._in_flight = 0
        self._runs: dict[tuple[str, str], _Run] = {}
        self._observed: dict[str, int] = {}

    @property
    def pending(self) -> int:
        """Return how many rows are neither written nor given up."""
        return len(self._trades) + len(self._books) + self._others_count + self._in_flight

    def is_crowded(self) -> bool:
        """Return whether rows come faster than they are written: an eighth of the bound is pending."""
        return self.received - self.written - self.dropped > self._crowded_from

    @property
    def full(self) -> bool:
        return self.received >= self._ceiling

    # What the feed calls

    def add_trade(self, trade: Trade) -> None:
        """Take a trade, or drop it where the buffer is full."""
        self.received += 1
        if self.received > self._ceiling:
            self._drop("prices", trade.symbol, trade.timestamp_us, trade.trade_id)
        else:
            self._trades.append(trade)

    def add_book(self, top: BookTop) -> None:
        """Take a state of a book, or drop it where the buffer is full."""
        self.received += 1
        if self.received > self._ceiling:
            self._drop("orderbook", top.symbol, top.timestamp_us, top.update_id)
        else:
            self._books.append(top)

    def add_event(self, stream: str, event: MarketEvent | Kline) -> None:
        """Take an event of another data type, or drop it where the buffer is full."""
        self.received += 1
        if self.received > self._ceiling:
            at_us, row_id = identify(stream, event)
            self._drop(stream, event.symbol, at_us, row_id)
            return
        self._others_count += 1
        of_stream = self._others.get(stream)
        if of_stream is None:
            self._others[stream] = [event]
        else:
            of_stream.append(event)

    def add_gap(self, gap: Gap) -> None:
        """Take a gap; gaps are never dropped, because each stands for rows that were."""
        self._gaps.append(gap)

    def add_kline(self, kline: Kline) -> None:
        """Take the exchange's own candle, to be compared once it is final (the newest are kept), and as a row."""
        if self._recorded_klines == "all" or (kline.closed and self._recorded_klines == "closed"):
            self.add_event(KLINES.name, kline)
        if kline.closed:
            self.klines_dropped += len(self._klines) == _MAX_KLINES
            self._klines.append(kline)

    def add_repair(self, repair: Repair) -> None:
        """Take what came of a repair; its trades have been added before it."""
        self._repairs.append(repair)

    def add_replacement(self, kline: Kline) -> None:
        """Take the exchange's own minute in place of one whose trades are not to be had."""
        self._replacements.append(kline)

    def observe(self, symbol: str, timestamp_us: int) -> None:
        """Learn an exchange time of a symbol; the newest one is in the next batch."""
        if timestamp_us > self._observed.get(symbol, 0):
            self._observed[symbol] = timestamp_us

    # What the flusher calls

    def swap(self) -> Batch:
        """Take out what has come; its rows stay pending until ``written`` or ``failed`` is told of them."""
        batch = Batch(self._trades, self._books, self._gaps, list(self._klines), self._others, self._observed)
        self._trades, self._books, self._gaps, self._others, self._observed = [], [], [], {}, {}
        self._others_count = 0
        self._klines.clear()
        batch.repairs, self._repairs = self._repairs, []
        batch.replacements, self._replacements = self._replacements, []
        self._in_flight += batch.rows
        return batch

    def mark_written(self, rows: int) -> None:
        """Count rows that are durable now."""
        self.written += rows
        self._release(rows)

    def mark_failed(self, rows: int) -> None:
        """Count rows that were taken out and will never be written; whoever gives them up reports the gap."""
        self.dropped += rows
        self._release(rows)

    def end_runs(self) -> None:
        """Report what has been dropped so far, whether or not there is room again: the session ends."""
        self._gaps.extend(run.gap(stream, symbol) for (stream, symbol), run in self._runs.items())
        self._runs.clear()

    def _release(self, rows: int) -> None:
        if rows <= 0:
            return
        self._in_flight -= rows
        self._ceiling += rows
        # From the first drop until here nothing was taken, so each run is of rows that followed one another.
        if self._runs:
            self.end_runs()

    def _drop(self, stream: str, symbol: str, at_us: int, row_id: int | str) -> None:
        self.dropped += 1
        self._ceiling += 1
        run = self._runs.get((stream, symbol))
        if run is None:
            self._runs[stream, symbol] = _Run(at_us, row_id)
        else:
            run.extend(at_us, row_id)
