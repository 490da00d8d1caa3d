"""A symbol's day as hftbacktest's event array: trades and the book, with exchange and local times in nanoseconds.

The book comes from the raw recording where the session has one (every change of every level), otherwise from the rows
of ``orderbook`` (their levels only; what falls behind the last one counts as gone). Each day begins with the whole
book, so that a day can be loaded by itself. A repaired trade, which was received much later, gets the day's median
latency.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from collector.events import BookSnapshot
from collector.feeds.orderbook import Book
from collector.reading.arrow import Table, extra
from collector.reading.export.raw_books import BookEvent

_BID, _ASK = 0, 1

Event = tuple[int, int, int, float, float]
"""What it is (hftbacktest's flags), the exchange's time and ours in nanoseconds, price and size."""


class EventArrays:
    """Make event arrays, with hftbacktest's own tools.

    Args:
        shift_ns: what is added to every local time: hftbacktest takes no receipt before the exchange's time, which a
            clock that is behind gives.

    Raises:
        MissingExtra: hftbacktest is not installed.
    """

    def __init__(self, shift_ns: int = 0) -> None:
        library, self._np = extra("hftbacktest"), extra("numpy")
        self._library = library
        self._sides = (library.BUY_EVENT, library.SELL_EVENT)
        self._shift_ns = shift_ns

    def write(self, path: Path, trades: Table | None, books: Iterable[Event]) -> int:
        """Write a day's array to a file (``.npz``, under the key ``data``), and return its length."""
        np, data = self._np, extra("hftbacktest.data")
        parts = [self._array(books)] + ([self._trades(trades)] if trades is not None else [])
        events = np.concatenate(parts)
        events["local_ts"] = np.maximum(events["local_ts"] + self._shift_ns, events["exch_ts"])
        events = events[np.argsort(events["local_ts"], kind="stable")]
        if len(events):
            by_exchange, by_receipt = (np.argsort(events[name], kind="stable") for name in ("exch_ts", "local_ts"))
            events = data.correct_event_order(events, by_exchange, by_receipt)
            data.validate_event_order(events)
        with path.open("wb") as file:
            np.savez_compressed(file, data=events)
        return len(events)

    def _array(self, events: Iterable[Event]) -> Any:
        dtype = self._library.types.event_dtype
        rows = [(*event, 0, 0, 0.0) for event in events]
        return self._np.array(rows, dtype=dtype) if rows else self._np.zeros(0, dtype)

    def _trades(self, table: Table) -> Any:
        np, pc = self._np, extra("pyarrow.compute")
        array = np.zeros(table.num_rows, self._library.types.event_dtype)
        times = table["timestamp"].cast("int64").to_numpy()
        received = pc.fill_null(table["received_at"].cast("int64"), 0).to_numpy()
        live = (received > 0) & pc.not_equal(pc.fill_null(table["source"], ""), "rest").to_numpy()
        latency = int(np.median((received - times)[live])) if live.any() else 0
        bought = pc.equal(pc.fill_null(table["side"], ""), "buy").to_numpy()
        array["ev"] = self._library.TRADE_EVENT | np.where(bought, *self._sides)
        array["exch_ts"] = times * 1000
        array["local_ts"] = np.where(live, received, times + latency) * 1000
        array["px"], array["qty"] = table["price"].to_numpy(), table["volume"].to_numpy()
        return array

    # The book

    def whole_book(self, book: Book, exchange_ns: int, local_ns: int) -> Iterator[Event]:
        """Return what puts a whole book in place of the one that stood."""
        for side, levels in zip(self._sides, book.top(len(book)), strict=True):
            yield self._library.DEPTH_CLEAR_EVENT | side, exchange_ns, local_ns, float("nan"), 0.0  # the whole side
            for price, size in levels:
                flag = self._library.DEPTH_SNAPSHOT_EVENT | side
                yield flag, exchange_ns, local_ns, float(price), float(size)

    def change(self, side: int, price: float, size: float, exchange_ns: int, local_ns: int) -> Event:
        """Return a level's new size; 0 deletes it."""
        return self._library.DEPTH_EVENT | self._sides[side], exchange_ns, local_ns, price, size


class BookFromRows:
    """Events out of rows of ``orderbook``: what changed among the best levels from one row to the next."""

    def __init__(self, arrays: EventArrays, levels: int) -> None:
        self._arrays = arrays
        self._levels = levels

    def events(self, table: Table) -> Iterator[Event]:
        """Return a day's events, the first row as the whole book."""
        columns = table.to_pydict()
        times = table["timestamp"].cast("int64").to_pylist()
        received = table["received_at"].cast("int64").to_pylist()
        names = [
            (f"{side}_price_{n}", f"{side}_qty_{n}") for side in ("bid", "ask") for n in range(1, self._levels + 1)
        ]
        values = [(columns[price], columns[size]) for price, size in names]
        before: tuple[dict[float, float], dict[float, float]] = ({}, {})
        for row, (time_us, received_us) in enumerate(zip(times, received, strict=True)):
            stamps = time_us * 1000, (received_us or time_us) * 1000
            now: tuple[dict[float, float], dict[float, float]] = ({}, {})
            for n, (prices, sizes) in enumerate(values):
                if prices[row] is not None:
                    now[n // self._levels][prices[row]] = sizes[row]
            if row == 0:
                book = Book()
                texts = ([(repr(price), repr(size)) for price, size in side.items()] for side in now)
                bids, asks = texts
                book.load(BookSnapshot("", time_us, 0, bids, asks, received_us or time_us))
                yield from self._arrays.whole_book(book, *stamps)
            else:
                for side in (_BID, _ASK):
                    for price in before[side].keys() - now[side].keys():
                        yield self._arrays.change(side, price, 0.0, *stamps)
                    for price, size in now[side].items():
                        if before[side].get(price) != size:
                            yield self._arrays.change(side, price, size, *stamps)
            before = now


class BookFromRaw:
    """Events out of the exchange's own changes, which are followed from day to day."""

    def __init__(self, arrays: EventArrays) -> None:
        self._arrays = arrays
        self._book = Book()
        self._loaded = False

    def events(self, day_begins: bool, found: BookEvent) -> Iterator[Event]:
        """Return the events of one message; where a day begins with it, after the whole book before it."""
        event, received_ns = found
        exchange_ns = event.timestamp_us * 1000 or received_ns
        if isinstance(event, BookSnapshot):
            self._book.load(event)
            self._loaded = True
            yield from self._arrays.whole_book(self._book, exchange_ns, received_ns)
            return
        if day_begins and self._loaded:
            yield from self._arrays.whole_book(self._book, exchange_ns, received_ns)
        self._book.apply(event)
        for side, levels in ((_BID, event.bids), (_ASK, event.asks)):
            for price, size in levels:
                yield self._arrays.change(side, float(price), float(size), exchange_ns, received_ns)
