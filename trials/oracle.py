"""The judge: compare a session's CSV, QuestDB's tables and the exchange's own record, by code of its own.

Nothing of the product's reading, delivery or verification is used here: files are read with the standard library's
``csv``, tables over ``/exec``, and the truth is what the simulated exchange says it traded and sent.
"""

from __future__ import annotations

import csv
import hashlib
import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from pathlib import Path
from typing import Any

from trials.parts import Database, Exchange

Row = dict[str, str]
_PAGE = 50_000
_NAMED = 5
_MISSING_STATES = ("open", "unrecoverable")  # what a partial one lacks is in rows of its own


@dataclass(frozen=True)
class _Table:
    """A stream's table: which columns hold numbers, how each is called there, and what tells a row."""

    name: str
    numbers: dict[str, str]
    texts: dict[str, str]
    times: dict[str, str]
    key: tuple[str, ...]


def _same(*names: str) -> dict[str, str]:
    return {name: name for name in names}


_LEVELS = {f"{side}_{n}": f"{side}_price_{n}" for side in ("bid", "ask") for n in (1, 2, 3)}
TABLES = {
    "prices": _Table(
        "tick_prices",
        _same("price", "volume", "quote_volume", "seq", "first_raw_id", "last_raw_id"),
        _same("side", "trade_id", "source"),
        _same("timestamp", "received_at"),
        ("seq",),
    ),
    "orderbook": _Table(
        "tick_orderbook",
        {**_LEVELS, **_same(*(f"{side}_qty_{n}" for side in ("bid", "ask") for n in (1, 2, 3)), "update_id", "seq")},
        {},
        _same("timestamp", "received_at"),
        ("seq",),
    ),
    "ohlcv": _Table(
        "aggregated_ohlcv",
        _same("open", "high", "low", "close", "volume", "quote_volume", "trades_count", "taker_buy_volume")
        | _same("revision", "seq"),
        _same("interval", "first_trade_id", "last_trade_id", "coverage", "source"),
        _same("timestamp"),
        ("timestamp", "interval"),
    ),
    "gaps": _Table(
        "collection_gaps",
        _same("from_id", "to_id", "expected_rows", "repaired_rows", "revision", "seq"),
        _same("gap_id", "symbol", "stream", "cause", "state", "detail"),
        _same("detected_at", "from_time", "to_time"),
        ("gap_id",),
    ),
}


@dataclass
class Verdict:
    """What a comparison found. ``problems`` is empty where every promise was kept."""

    figures: dict[str, int] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)

    def count(self, name: str, number: int) -> None:
        """Add to a figure."""
        self.figures[name] = self.figures.get(name, 0) + number

    def demand(self, kept: object, problem: str) -> None:
        """Note a problem where something is not as it must be."""
        if not kept:
            self.problems.append(problem)


def files_of(directory: Path, stream: str, symbol: str = "") -> list[Path]:
    """Return a stream's files, closed segments first."""
    folder = directory / symbol if symbol else directory
    closed = [path for path in folder.glob(f"{stream}.*.csv") if re.fullmatch(rf"{stream}\.\d{{12,}}\.csv", path.name)]
    live = folder / f"{stream}.csv"
    return [*sorted(closed), *([live] if live.exists() else [])]


def read_rows(directory: Path, stream: str, symbol: str = "") -> Iterator[Row]:
    """Yield a stream's rows, of all segments."""
    for path in files_of(directory, stream, symbol):
        with path.open(newline="", encoding="utf-8") as file:
            yield from csv.DictReader(file)


def fingerprint(directory: Path) -> dict[str, tuple[int, str]]:
    """Return, per CSV file, how many bytes of whole lines it has and their hash: what must never change again."""
    found = {}
    for path in sorted(directory.rglob("*.csv")):
        content = path.read_bytes()
        content = content[: content.rfind(b"\n") + 1]
        found[str(path.relative_to(directory))] = (len(content), hashlib.sha256(content).hexdigest())
    return found


def changed_since(directory: Path, before: dict[str, tuple[int, str]]) -> list[str]:
    """Return the files that no longer begin with what they held then."""
    changed = []
    for name, (size, digest) in before.items():
        try:
            with (directory / name).open("rb") as file:
                content = file.read(size)
        except FileNotFoundError:
            content = b""
        if hashlib.sha256(content).hexdigest() != digest:
            changed.append(name)
    return changed


def ids_in_ledger(directory: Path, symbol: str, stream: str = "prices") -> set[int]:
    """Return the ids that the ledger says are missing: the last revision of each gap, in the order of their numbers."""
    last = {row["gap_id"]: row for row in read_rows(directory, "gaps")}
    missing: set[int] = set()
    for row in sorted(last.values(), key=lambda row: int(row["gap_id"][1:])):
        if row["symbol"] != symbol or row["stream"] != stream or row["cause"] == "log_damaged" or not row["from_id"]:
            continue
        ids = range(int(row["from_id"]), int(row["to_id"]) + 1)
        if row["state"] in _MISSING_STATES:
            missing.update(ids)
        elif row["state"] == "repaired":
            missing.difference_update(ids)
    return missing


def judge_trades(directory: Path, symbol: str, exchange: Exchange, verdict: Verdict) -> None:
    """Hold a symbol's trades against what the exchange traded and sent: the ledger names exactly what is missing."""
    rows = list(read_rows(directory, "prices", symbol))
    ids = [int(row["trade_id"]) for row in rows]
    seqs = [int(row["seq"]) for row in rows]
    if not rows:
        verdict.problems.append(f"{symbol}: no trades at all")
        return
    have = set(ids)
    doubled = len(ids) - len(have)
    verdict.count("trades in CSV", len(ids))
    verdict.count("trades doubled in CSV", doubled)
    verdict.demand(not doubled, f"{symbol}: {doubled} trades are in the CSV twice")
    verdict.demand(seqs == list(range(1, len(seqs) + 1)), f"{symbol}: the numbers of the rows are not 1 … {len(seqs)}")
    truth = exchange.traded(symbol, min(ids), max(ids))
    sent = exchange.sent_ids(symbol)
    verdict.count("trades made meanwhile", len(truth))
    verdict.count("trades sent", len(sent & set(truth)))
    false = [row for row in rows if (row["price"], row["volume"]) != truth.get(int(row["trade_id"]), ("", "", 0))[:2]]
    verdict.demand(not false, f"{symbol}: {len(false)} trades are not the exchange's: {false[:2]}")
    absent = set(truth) - have
    named = ids_in_ledger(directory, symbol)
    verdict.count("trades missing", len(absent))
    verdict.count("of them sent", len(absent & sent))
    verdict.count("trades named by the ledger", len(named))
    unnamed, untrue = absent - named, named - absent
    verdict.demand(not unnamed, f"{symbol}: {len(unnamed)} missing trades are not in the ledger: {_some(unnamed)}")
    verdict.demand(not untrue, f"{symbol}: the ledger names {len(untrue)} that are not missing: {_some(untrue)}")


def judge_book(directory: Path, symbol: str, exchange: Exchange, seed: int, rate: float, verdict: Verdict) -> None:
    """Hold each state of the book against the market's: it is a function of its seed and can be worked out again."""
    from collector.sim.market import GENESIS_US, Market

    market = Market(exchange.symbols, seed=seed, rate=rate)
    instrument = market.by_native[symbol.replace("_", "")]
    rows = list(read_rows(directory, "orderbook", symbol))
    seqs = [int(row["seq"]) for row in rows]
    verdict.count("states of the book in CSV", len(rows))
    verdict.demand(seqs == list(range(1, len(seqs) + 1)), f"{symbol}: the numbers of the book's rows are not 1 … n")
    ids = [int(row["update_id"]) for row in rows]
    twice = len(ids) - len(set(ids))
    verdict.demand(not twice, f"{symbol}: {twice} states of the book are there twice")

    def top(update_id: int) -> list[tuple[str, str]]:
        book = instrument.book(update_id // 50 - 1)
        levels = [*book.bids[:3], *book.asks[:3]]
        return [(instrument.price_text(price), instrument.lot_text(size)) for price, size in levels]

    names = [f"{side}_{{}}{n}" for side in ("bid", "ask") for n in (1, 2, 3)]
    wrong = [
        row
        for row in rows
        if [(row[name.format("")], row[name.format("qty_")]) for name in names] != top(int(row["update_id"]))
    ]
    verdict.demand(not wrong, f"{symbol}: {len(wrong)} states of the book are not the market's: {wrong[:2]}")
    last = {row["gap_id"]: row for row in read_rows(directory, "gaps")}
    spans = [
        (int(gap["from_time"] or 0), int(gap["to_time"] or 2**62))
        for gap in last.values()
        if gap["symbol"] == symbol and gap["stream"] == "orderbook"
    ]
    unexplained = 0
    for before, after in pairwise(rows):
        first, end = int(before["update_id"]) + 50, int(after["update_id"])
        if end - first > 0:
            known = top(int(before["update_id"]))
            for update_id in range(first, end, 50):
                time_us = GENESIS_US + update_id // 50 * 100_000
                now = top(update_id)
                if now != known and not any(begin <= time_us <= stop for begin, stop in spans):
                    unexplained += 1
                known = now
    verdict.demand(not unexplained, f"{symbol}: {unexplained} changes of the book are neither recorded nor in a gap")


def judge_replica(
    database: Database, directory: Path, session_id: str, symbols: tuple[str, ...], verdict: Verdict
) -> None:
    """Compare every row and value of the CSV with QuestDB's."""
    rejected = list(read_rows(directory, "rejected"))
    verdict.demand(not rejected, f"{len(rejected)} rows were refused by QuestDB: {rejected[:1]}")
    for stream, table in TABLES.items():
        for symbol in symbols if stream != "gaps" else ("",):
            wanted = _expected(directory, stream, symbol, table)
            _compare(database, stream, symbol, session_id, wanted, verdict)


def _expected(directory: Path, stream: str, symbol: str, table: _Table) -> dict[tuple[str, ...], Row]:
    return {tuple(row[name] for name in table.key): row for row in read_rows(directory, stream, symbol)}


def _compare(
    database: Database,
    stream: str,
    symbol: str,
    session_id: str,
    wanted: dict[tuple[str, ...], Row],
    verdict: Verdict,
) -> None:
    table = TABLES[stream]
    what = f"{stream} {symbol}".strip()
    columns = [*table.times.items(), *table.numbers.items(), *table.texts.items()]
    chosen = ", ".join(f"{name}::long {name}" if name in table.times else there for name, there in columns)
    where = f"session_id = '{session_id}'" + (f" and symbol = '{symbol}'" if symbol else "")
    found = 0
    doubled = 0
    wrong: list[str] = []
    extra: list[tuple[str, ...]] = []
    seen: set[tuple[str, ...]] = set()
    while True:
        sql = f"select {chosen} from {table.name} where {where} order by seq limit {found}, {found + _PAGE}"  # noqa: S608
        page = database.query(sql)
        for values in page:
            row = dict(zip((name for name, _ in columns), values, strict=True))
            key = tuple(_text(row[name]) for name in table.key)
            doubled += key in seen
            seen.add(key)
            expected = wanted.get(key)
            if expected is None:
                extra.append(key)
            elif bad := [name for name in row if not _equal(row[name], expected[name])]:
                wrong.append(f"{key} {', '.join(f'{name}: {expected[name]!r} is {row[name]!r}' for name in bad)}")
        found += len(page)
        if len(page) < _PAGE:
            break
    lost = [key for key in wanted if key not in seen]
    verdict.count("rows in CSV (last of each key)", len(wanted))
    verdict.count("rows in QuestDB", found)
    verdict.count("rows lost in QuestDB", len(lost))
    verdict.count("rows doubled in QuestDB", doubled)
    verdict.demand(not lost, f"{what}: {len(lost)} rows are not in QuestDB: {lost[:_NAMED]}")
    verdict.demand(not doubled, f"{what}: {doubled} rows are in QuestDB more than once")
    verdict.demand(not extra, f"{what}: QuestDB has {len(extra)} rows that are not in the CSV: {extra[:_NAMED]}")
    verdict.demand(not wrong, f"{what}: {len(wrong)} rows differ: {wrong[:_NAMED]}")


def _text(value: Any) -> str:
    return "" if value is None else str(value)


def _equal(value: Any, text: str) -> bool:
    if value is None or text == "":
        return value in (None, "") and text == ""
    if isinstance(value, bool):
        return str(value).lower() == text
    if isinstance(value, float) or (isinstance(value, int) and "." in text):
        return float(value) == float(text)
    return str(value) == text


def _some(numbers: set[int]) -> str:
    """Write ids as intervals, the first few."""
    spans: list[list[int]] = []
    for number in sorted(numbers):
        if spans and number == spans[-1][1] + 1:
            spans[-1][1] = number
        else:
            spans.append([number, number])
    words = [f"{first}…{last}" if first < last else str(first) for first, last in spans[:_NAMED]]
    return ", ".join(words) + (f" and {len(spans) - _NAMED} spans more" if len(spans) > _NAMED else "")
