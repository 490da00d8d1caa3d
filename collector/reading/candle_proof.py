"""Candles against their trades, worked out twice: again by the aggregator, and by an oracle of its own.

Goes through a session in windows of two weeks of exchange time, so that memory is bounded however long the session.
"""

from __future__ import annotations

from collections.abc import Sequence
from decimal import Decimal, localcontext
from pathlib import Path

import msgspec

from collector.candles.aggregator import EXACT, Aggregator, Candle, plain
from collector.candles.intervals import INTERVALS, MINUTE_US
from collector.reading.csv_rows import DEFAULT_BATCH_ROWS, Row, read_batches, to_ticks
from collector.reading.replica_proof import Progress
from collector.reading.report import CandleReport, Difference
from collector.streams import OHLCV, PRICES

_WINDOW_US = 14 * INTERVALS["1d"]
_NEVER_US = 1 << 60
_SLACK_US = 10_000_000  # grace and flush: what ended this shortly before the last trade may not be written yet
_TEXTS = ("open", "close", "volume", "quote_volume", "trades_count", "taker_buy_volume", "first_trade_id",
          "last_trade_id", "source")  # fmt: skip

Key = tuple[str, int]


class CandleProof:
    """Compare one symbol's candles (the last row of each) with its trades.

    Args:
        until_seqs: the last rows of ``prices`` and ``ohlcv`` to look at; None for all of them.
        ended: the session wrote its open candles, so that none may be missing.
        ids_ordered: as the aggregator takes it.
        released_until_us: trades up to this exchange time may be in QuestDB only; 0 where all are in the CSV.
    """

    def __init__(
        self,
        directory: Path,
        symbol: str,
        *,
        until_seqs: tuple[int | None, int | None] = (None, None),
        ended: bool = True,
        ids_ordered: bool = True,
        released_until_us: int = 0,
        progress: Progress | None = None,
    ) -> None:
        self._directory = directory
        self._symbol = symbol
        self._until_prices, self._until_candles = until_seqs
        self._ended = ended
        self._ids_ordered = ids_ordered
        self._released_until_us = released_until_us
        self._progress = progress or (lambda *_: None)
        self._last_us = 0
        self.report = CandleReport(symbol=symbol)

    def run(self) -> CandleReport:
        """Compare everything; raise LogError where a file cannot be read."""
        for window in sorted(self._survey_trades() | self._survey_candles()):
            self._prove_window(window)
        return self.report

    def _survey_trades(self) -> set[int]:
        """Look at every trade once: its own product, and the window that it falls in."""
        found: set[int] = set()
        for batch in read_batches(self._directory, PRICES, self._symbol, until_seq=self._until_prices):
            times = [int(row[0]) for row in batch.rows]
            self._last_us = max(self._last_us, *times)
            self.report.trades += len(times)
            self._check_quotes(batch.rows)
            first, last = min(times) // _WINDOW_US, max(times) // _WINDOW_US
            found.update((first,) if first == last else {time // _WINDOW_US for time in times})
        return found

    def _survey_candles(self) -> set[int]:
        found: set[int] = set()
        for batch in read_batches(self._directory, OHLCV, self._symbol, until_seq=self._until_candles):
            found.update(int(row[0]) // _WINDOW_US for row in batch.rows)
        return found

    def _prove_window(self, window: int) -> None:
        again = Aggregator(self._symbol, grace_us=0, keep_us=_NEVER_US, ids_ordered=self._ids_ordered)
        oracle = Oracle(ids_ordered=self._ids_ordered)
        folded = told = 0
        for batch in read_batches(self._directory, PRICES, self._symbol, until_seq=self._until_prices):
            rows = [row for row in batch.rows if int(row[0]) // _WINDOW_US == window]
            if rows:
                ticks = to_ticks(self._symbol, rows)
                again.fold(ticks.trades, ticks.seqs, ticks.quotes)
                oracle.add(rows)
            folded += len(rows)
            if folded - told >= DEFAULT_BATCH_ROWS:
                told = folded
                self._progress(f"candles {self._symbol}", told)
        self._progress(f"candles {self._symbol}", folded)
        remade = {candle.key: candle for candle in again.open_candles()}
        self._compare(self._written(window), remade, oracle.candles())

    def _written(self, window: int) -> dict[Key, tuple[Candle, int]]:
        """Return the last row of each candle that starts in the window, with its number."""
        found: dict[Key, tuple[Candle, int]] = {}
        for batch in read_batches(self._directory, OHLCV, self._symbol, until_seq=self._until_candles):
            for row in batch.rows:
                if int(row[0]) // _WINDOW_US == window:
                    candle = Candle.from_row(row)
                    found[candle.key] = (candle, int(row[-1]))
        return found

    def _compare(
        self, written: dict[Key, tuple[Candle, int]], remade: dict[Key, Candle], oracle: dict[Key, dict[str, str]]
    ) -> None:
        for key in sorted(written.keys() | remade.keys(), key=lambda key: (INTERVALS.get(key[0], 0), key[1])):
            interval, start = key
            candle, seq = written.get(key, (None, None))
            if start <= self._released_until_us and (candle is not None or key in remade):
                self.report.released += candle is not None
                continue
            if candle is not None and candle.source == "kline":
                # The exchange's own minute, or made of one: its trades are not to be had, so they prove nothing.
                self.report.replaced += 1
                continue
            unfinished = not self._ended and start + INTERVALS.get(interval, 0) + _SLACK_US > self._last_us
            if unfinished and (candle is None or not candle.is_closed):
                self.report.waiting += 1
            elif candle is None:
                self._add(key, None, "candle", None, remade[key].close)
            elif key not in remade:
                self._add(key, seq, "candle", candle.close, None)
            else:
                self._compare_one(candle, seq, remade[key], oracle.get(key, {}))

    def _compare_one(self, candle: Candle, seq: int | None, remade: Candle, oracle: dict[str, str]) -> None:
        before = self.report.findings.count
        for column in (*_TEXTS, "high", "low"):
            ours = str(getattr(candle, column))
            for truth in (str(getattr(remade, column)), oracle.get(column)):
                if not _same(ours, truth, as_text=column in _TEXTS):
                    self._add(candle.key, seq, column, ours, truth)
                    break
        self.report.candles += self.report.findings.count == before

    def _check_quotes(self, rows: Sequence[Row]) -> None:
        """Find trades whose quote volume is not exactly price times volume; imported ones (of no side) may round."""
        with localcontext(EXACT):
            for row in rows:
                if row[3] and row[4] and Decimal(row[3]) != Decimal(row[1]) * Decimal(row[2]):
                    truth = plain(Decimal(row[1]) * Decimal(row[2]))
                    difference = Difference(
                        "product", PRICES.name, self._symbol, int(row[6]), "quote_volume", row[3], truth
                    )
                    self.report.findings.add(difference)

    def _add(self, key: Key, seq: int | None, column: str, csv: str | None, truth: str | None) -> None:
        row = f"{key[0]} {key[1]}"
        self.report.findings.add(Difference("candle", OHLCV.name, self._symbol, seq, column, csv, truth, row))


def _same(ours: str, truth: str | None, *, as_text: bool) -> bool:
    """Compare digit by digit, or as numbers where several texts of one number may stand."""
    if ours == truth:
        return True
    if as_text or truth is None:
        return False
    return Decimal(ours) == Decimal(truth)


class _Sums(msgspec.Struct):
    """What the oracle keeps of a minute, or of a higher bucket; trades are ordered by (time, order)."""

    first: tuple[int, int]
    last: tuple[int, int]
    open: str
    close: str
    first_id: str
    last_id: str
    high: Decimal
    low: Decimal
    volume: Decimal = Decimal(0)
    quote: Decimal = Decimal(0)
    buy: Decimal = Decimal(0)
    count: int = 0
    source: str = "ws"
    sided: bool = True


class Oracle:
    """Work candles out in the plainest way, one trade after the other, from the fields of the CSV."""

    def __init__(self, *, ids_ordered: bool = True) -> None:
        self._ids_ordered = ids_ordered
        self._minutes: dict[int, _Sums] = {}

    def add(self, rows: Sequence[Row]) -> None:
        """Take in rows of ``prices.csv``."""
        with localcontext(EXACT):
            for row in rows:
                self._add_trade(row)

    def _add_trade(self, row: Row) -> None:
        time, price, volume, trade_id = int(row[0]), Decimal(row[1]), Decimal(row[2]), row[5]
        numbered = self._ids_ordered and trade_id.isascii() and trade_id.isdecimal()
        order = (time, int(trade_id) if numbered else int(row[6]))
        minute = time // MINUTE_US
        sums = self._minutes.get(minute)
        if sums is None:
            sums = _Sums(order, order, row[1], row[1], trade_id, trade_id, price, price)
            self._minutes[minute] = sums
        if order < sums.first:
            sums.first, sums.open, sums.first_id = order, row[1], trade_id
        if order > sums.last:
            sums.last, sums.close, sums.last_id = order, row[1], trade_id
        sums.high = max(sums.high, price)
        sums.low = min(sums.low, price)
        sums.volume += volume
        sums.quote += Decimal(row[3]) if row[3] else price * volume  # the column itself is proved row by row
        if row[4] == "buy":
            sums.buy += volume
        sums.sided = sums.sided and row[4] in ("buy", "sell")
        sums.count += int(row[10]) - int(row[9]) + 1 if row[9] and row[10] else 1
        if row[8] == "rest":
            sums.source = "rest"

    def candles(self) -> dict[Key, dict[str, str]]:
        """Return every candle of every interval, each field as the CSV would have it."""
        found: dict[Key, dict[str, str]] = {}
        with localcontext(EXACT):
            for interval, length in INTERVALS.items():
                buckets: dict[int, _Sums] = {}
                for minute, sums in self._minutes.items():
                    start = minute * MINUTE_US // length * length
                    known = buckets.get(start)
                    buckets[start] = msgspec.structs.replace(sums) if known is None else _both(known, sums)
                found.update(((interval, start), _fields(sums)) for start, sums in buckets.items())
        return found


def _both(a: _Sums, b: _Sums) -> _Sums:
    earlier = a if a.first < b.first else b
    later = a if a.last > b.last else b
    return _Sums(
        first=earlier.first,
        last=later.last,
        open=earlier.open,
        close=later.close,
        first_id=earlier.first_id,
        last_id=later.last_id,
        high=max(a.high, b.high),
        low=min(a.low, b.low),
        volume=a.volume + b.volume,
        quote=a.quote + b.quote,
        buy=a.buy + b.buy,
        count=a.count + b.count,
        source="rest" if "rest" in (a.source, b.source) else "ws",
        sided=a.sided and b.sided,
    )


def _fields(sums: _Sums) -> dict[str, str]:
    return {
        "open": sums.open,
        "high": plain(sums.high),
        "low": plain(sums.low),
        "close": sums.close,
        "volume": plain(sums.volume),
        "quote_volume": plain(sums.quote),
        "trades_count": str(sums.count),
        "taker_buy_volume": plain(sums.buy) if sums.sided else "",
        "first_trade_id": sums.first_id,
        "last_trade_id": sums.last_id,
        "source": sums.source,
    }
