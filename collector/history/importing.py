"""Candles out of files that somebody has: CSV, JSON or Parquet, with a mapping of their columns.

A row that is no candle goes to ``import_rejected.csv`` of the session, with its line and the reason; the rest goes on.
"""

from __future__ import annotations

import asyncio
import csv
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from decimal import Decimal, InvalidOperation
from itertools import islice
from pathlib import Path
from typing import Any

import msgspec

from collector.clock import Clock
from collector.errors import UsageError
from collector.events import PastCandle
from collector.exchanges.candle_sources.base import length_us, text
from collector.exchanges.candle_sources.intervals import bucket_start
from collector.feeds.status import FeedStatus
from collector.history.backfill import Outcome, Recorded, SymbolReport
from collector.history.holdings import Holding, load_holdings, spans_in
from collector.history.spans import Spans, holds, length, of_starts, union
from collector.session.manifest import Backfill as Plan
from collector.streams import history_stream

REJECTS_FILE = "import_rejected.csv"
FIELDS = (
    "timestamp", "symbol", "open", "high", "low", "close", "volume", "quote_volume", "trades_count",
    "taker_buy_volume", "taker_buy_quote_volume",
)  # fmt: skip
"""What a file can say of a candle; only the time and the four prices must be there, and the symbol in it or beside."""
_BATCH = 10_000
_KEPT_TEXT = 200


class Options(msgspec.Struct, frozen=True, kw_only=True):
    """How a file is to be read.

    Args:
        path: a ``.csv``, ``.json`` (a list, or one object a line) or ``.parquet`` file.
        mapping: the file's column for a field, where it has another name.
        symbol: of all rows, where the file does not say it.
        source: what the rows' ``source`` is to be.
        asset_type: of the symbols.
    """

    path: str
    mapping: dict[str, str] = {}
    symbol: str = ""
    source: str = "import"
    asset_type: str = "crypto"


class BadRow(ValueError):
    """A row is no candle; the message says why."""


def read_file(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Yield each row with its number, the first is 1.

    Raises:
        UsageError: the file cannot be read, or is of no known kind.
    """
    try:
        if path.suffix == ".csv":
            yield from _csv_rows(path)
        elif path.suffix in (".json", ".jsonl", ".ndjson"):
            yield from _json_rows(path)
        elif path.suffix == ".parquet":
            yield from _parquet_rows(path)
        else:
            raise UsageError(f"{path.name} is of no known kind.", hint="Use a .csv, .json or .parquet file.")
    except (OSError, UnicodeDecodeError, csv.Error, msgspec.DecodeError) as error:
        raise UsageError(f"{path} cannot be read: {error}.") from error


def _csv_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        yield from enumerate(csv.DictReader(file), 1)


def _json_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    decode = msgspec.json.Decoder(float_hook=str).decode
    with path.open("rb") as file:
        first = file.read(64).lstrip()[:1]
        file.seek(0)
        rows = decode(file.read()) if first == b"[" else (decode(line) for line in file if line.strip())
        for number, row in enumerate(rows, 1):
            yield number, row if isinstance(row, dict) else {}


def _parquet_rows(path: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    try:
        from pyarrow import ArrowException
        from pyarrow.parquet import ParquetFile
    except ImportError as error:
        raise UsageError("Reading Parquet needs pyarrow.", hint="Install collector[research].") from error
    try:
        number = 0
        for batch in ParquetFile(path).iter_batches(batch_size=_BATCH):
            for row in batch.to_pylist():
                number += 1
                yield number, {name: repr(value) if isinstance(value, float) else value for name, value in row.items()}
    except ArrowException as error:
        raise UsageError(f"{path} cannot be read: {error}.") from error


def to_candle(row: Mapping[str, Any], options: Options, interval: str, now_us: int) -> PastCandle:
    """Turn a file's row into a candle; raise BadRow where it is none."""
    found = {field: row.get(options.mapping.get(field, field)) for field in FIELDS}
    symbol = str(found["symbol"] or options.symbol or "")
    if not symbol:
        raise BadRow("it names no symbol")
    start_us = _time_us(found["timestamp"])
    if start_us != bucket_start(start_us, interval):
        raise BadRow(f"no {interval} candle starts at its time")
    if start_us + length_us(interval) > now_us:
        raise BadRow("it has not ended yet")
    opened, highest, lowest, closed = (_number(found[name], name) for name in ("open", "high", "low", "close"))
    o, high, low, close = map(Decimal, (opened, highest, lowest, closed))
    if min(o, high, low, close) <= 0:
        raise BadRow("a price is not above zero")
    if not low <= min(o, close) <= max(o, close) <= high:
        raise BadRow("open or close is outside of low and high")
    sums = {
        name: None if found[name] in (None, "") else _number(found[name], name)
        for name in ("volume", "quote_volume", "taker_buy_volume", "taker_buy_quote_volume")
    }
    if any(value is not None and Decimal(value) < 0 for value in sums.values()):
        raise BadRow("a volume is below zero")
    trades = found["trades_count"]
    return PastCandle(
        symbol, start_us, interval, opened, highest, lowest, closed, sums["volume"], sums["quote_volume"],
        None if trades in (None, "") else int(Decimal(_number(trades, "trades_count"))),
        sums["taker_buy_volume"], sums["taker_buy_quote_volume"], options.source, now_us, options.asset_type,
    )  # fmt: skip


def _number(value: Any, name: str) -> str:
    try:
        digits = text(value if isinstance(value, str | int) else str(value)).strip()
        if not Decimal(digits).is_finite():
            raise BadRow(f"{name} is no number")
    except (TypeError, ValueError, InvalidOperation) as error:
        raise BadRow(f"{name} is no number") from error
    return digits


def _time_us(value: Any) -> int:
    """Return a time in microseconds: a number in any unit from seconds to nanoseconds, or text as ISO 8601 (UTC)."""
    if isinstance(value, datetime):
        return _at(value)
    try:
        number = int(str(value))
    except ValueError:
        try:
            return _at(datetime.fromisoformat(str(value)))
        except ValueError as error:
            raise BadRow("its timestamp is no time") from error
    if number <= 0:
        raise BadRow("its timestamp is no time")
    if number > 1e17:
        return number // 1_000
    return number if number > 1e14 else number * (1_000 if number > 1e11 else 1_000_000)


def _at(value: datetime) -> int:
    aware = value if value.tzinfo else value.replace(tzinfo=UTC)
    return round(aware.timestamp() * 1_000_000)


def symbols_of(options: Options) -> tuple[list[str], int]:
    """Return the symbols that a file names, and how many rows it has; raises what ``read_file`` raises."""
    column = options.mapping.get("symbol", "symbol")
    found: dict[str, None] = {}
    count = 0
    for number, row in read_file(Path(options.path)):
        count = number
        if symbol := str(row.get(column) or options.symbol or ""):
            found[symbol] = None
    return list(found), count


class Import:
    """Bring a file's candles into a session; ``session.SessionFeed`` is what it is to its session.

    What is held of the source already is passed over, so that one which was cut off is simply begun again.
    """

    def __init__(self, session: Recorded, options: Options, *, data_dir: Path, clock: Clock) -> None:
        plan = session.manifest.backfill
        if plan is None:
            raise UsageError("This session is not one of history.")
        self.first_data = asyncio.Event()
        self.finished = asyncio.Event()
        self.plan: Plan = plan
        self.tell: Callable[[Any], None] = lambda _: None
        self.rejected = 0
        self.passed_over = 0
        self._options = options
        self._session = session
        self._data_dir = data_dir
        self._clock = clock
        self._stopping = False
        self._own: dict[str, Spans] = {}
        self._rows: Counter[str] = Counter()
        self._begun_s = clock.monotonic_s()

    async def run(self) -> None:
        """Read the file from its beginning to its end, or until it is stopped."""
        self.first_data.set()
        options, plan, symbols = self._options, self.plan, self._session.manifest.symbols
        stream = history_stream(plan.interval).name
        try:
            holdings = await asyncio.to_thread(load_holdings, self._data_dir, plan.interval, set(symbols))
            for symbol in symbols:
                own = await asyncio.to_thread(spans_in, self._session.directory, plan.interval, symbol)
                self._own[symbol] = own.get(options.source, [])
            rows = read_file(Path(options.path))
            while not self._stopping and self._session.takes_rows():
                batch, rejects, last = await asyncio.to_thread(self._read, rows)
                if not last:
                    break
                await asyncio.to_thread(self._reject, rejects)
                self._take(batch, stream, holdings)
                self.tell(f"{last:,} rows read")
                while self._session.buffer.is_crowded() and self._session.takes_rows():
                    await self._session.flush()
            await self._session.flush()
        finally:
            plan.held = {symbol: {options.source: list(spans)} for symbol, spans in self._own.items() if spans}
            self.finished.set()

    async def stop(self) -> None:
        """Have it end behind the rows that are being read."""
        self._stopping = True

    def status(self) -> FeedStatus:
        """Describe it as feeds are described."""
        return FeedStatus("history", [], [], 0, 0, 0.0)

    def outcome(self) -> Outcome:
        """Return what has become of it so far."""
        bucket_us = length_us(self.plan.interval)
        reports = [
            SymbolReport(
                symbol=symbol, state="complete", rows=self._rows[symbol],
                sources={self._options.source: length(spans) // bucket_us}, held=length(spans) // bucket_us,
                first_us=spans[0][0] if spans else None, last_us=spans[-1][1] - bucket_us if spans else None,
            )
            for symbol, spans in self._own.items()
        ]  # fmt: skip
        total = sum(self._rows.values())
        return Outcome(
            session_id=self._session.manifest.session_id, task="import", interval=self.plan.interval,
            total_symbols=len(reports), successful=len(reports), failed=0, total_records=total,
            sources_used={self._options.source: total} if total else {}, requests={}, retries=0,
            seconds=round(self._clock.monotonic_s() - self._begun_s, 3), symbols=reports, rejected=self.rejected,
            passed_over=self.passed_over,
        )  # fmt: skip

    def _read(
        self, rows: Iterator[tuple[int, Mapping[str, Any]]]
    ) -> tuple[list[PastCandle], list[tuple[int, str, str]], int]:
        now_us, last = self._clock.now_us(), 0
        candles: list[PastCandle] = []
        rejects: list[tuple[int, str, str]] = []
        for number, row in islice(rows, _BATCH):
            last = number
            try:
                candles.append(to_candle(row, self._options, self.plan.interval, now_us))
            except BadRow as error:
                rejects.append((number, str(error), str(dict(row))[:_KEPT_TEXT]))
        return candles, rejects, last

    def _reject(self, rejects: list[tuple[int, str, str]]) -> None:
        if not rejects:
            return
        path = self._session.directory / REJECTS_FILE
        fresh = not path.exists() or not self.rejected
        with path.open("w" if fresh else "a", newline="", encoding="utf-8") as file:
            writer = csv.writer(file)
            if fresh:
                writer.writerow(("row", "reason", "content"))
            writer.writerows(rejects)
        self.rejected += len(rejects)

    def _take(self, batch: list[PastCandle], stream: str, holdings: Mapping[str, Holding]) -> None:
        bucket_us, source = length_us(self.plan.interval), self._options.source
        starts: dict[str, set[int]] = {}
        for candle in batch:
            symbol, start = candle.symbol, candle.timestamp_us
            known = holdings[symbol].by_source.get(source, []) if symbol in holdings else []
            fresh = starts.setdefault(symbol, set())
            if holds(known, start) or holds(self._own.get(symbol, []), start) or start in fresh:
                self.passed_over += 1
                continue
            fresh.add(start)
            self._rows[symbol] += 1
            self._session.buffer.add_event(stream, candle)
        for symbol, found in starts.items():
            self._own[symbol] = union(self._own.get(symbol, []), of_starts(found, bucket_us))
