"""The registry of streams: each is a CSV file and its QuestDB table.

The CSV writer, the replicator, the importer, the verifier, the reader, the test of the migrations and the documentation
all read this registry. A new data type is one entry here, one migration, a format in ``session/rows.py`` and one branch
in a parser.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from enum import Enum
from functools import cache


class Kind(Enum):
    """How a column is written in CSV, and its type in QuestDB. An empty CSV field is NULL (for BOOLEAN: false)."""

    TIMESTAMP = "TIMESTAMP"  # integer microseconds since the epoch, UTC
    SYMBOL = "SYMBOL"  # text of few distinct values
    VARCHAR = "VARCHAR"  # any text
    DOUBLE = "DOUBLE"  # decimal digits as the exchange wrote them
    DOUBLES = "DOUBLE[][]"  # only in QuestDB: the prices and the sizes of one side of a book, best first
    LONG = "LONG"  # integer
    BOOLEAN = "BOOLEAN"  # true or false


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its name in CSV, its kind, and its name in QuestDB where that differs.

    ``only_in_array``: the table has no column for it, its value is in an array of the row.
    """

    name: str
    kind: Kind
    database_name: str = ""
    only_in_array: bool = False

    @property
    def in_database(self) -> str:
        return self.database_name or self.name


@dataclass(frozen=True, slots=True)
class Stream:
    """A CSV file and its table.

    Args:
        name: the word for it everywhere (``--data-types``, the ledger, metrics).
        file: the CSV file's name.
        table: the QuestDB table.
        columns: the CSV's columns in order; the first is the designated timestamp, and one of them is ``seq``.
        keys: the table's DEDUP UPSERT KEYS, as database columns.
        per_symbol: the file stands in the symbol's folder (otherwise in the session's, and ``symbol`` is a CSV column).
        keyed: the last row of a key counts (candles, gaps), so rows of one key must reach the table in file order.
        arrays: the table's columns of arrays, each with the side of the book whose levels it holds.
        levels: how many levels of each side the CSV has; arrays are written where it is more than the table's own.
    """

    name: str
    file: str
    table: str
    columns: tuple[Column, ...]
    keys: tuple[str, ...]
    per_symbol: bool = True
    keyed: bool = False
    arrays: tuple[tuple[str, str], ...] = ()
    levels: int = 0

    @property
    def header(self) -> str:
        """Return the CSV's first line, with its newline."""
        return ",".join(column.name for column in self.columns) + "\n"

    @property
    def timestamp(self) -> Column:
        return self.columns[0]

    @property
    def seq_index(self) -> int:
        """Return the position of ``seq`` among the CSV's columns."""
        return next(i for i, column in enumerate(self.columns) if column.name == "seq")

    @property
    def table_columns(self) -> tuple[tuple[str, Kind], ...]:
        """Return the table's columns in order: the timestamp, where the row comes from, then the rest of the CSV's."""
        source = [("session_id", Kind.SYMBOL), ("exchange", Kind.SYMBOL)]
        if self.per_symbol:
            source.append(("symbol", Kind.SYMBOL))
        return (
            (self.timestamp.in_database, Kind.TIMESTAMP),
            *source,
            *((column.in_database, column.kind) for column in self.columns[1:] if not column.only_in_array),
            *((name, Kind.DOUBLES) for name, _ in self.arrays),
        )

    @property
    def array_sides(self) -> tuple[tuple[str, str], ...]:
        """Return the arrays that are written for rows of this depth: none where the table's columns hold all levels."""
        return self.arrays if self.levels > BOOK_LEVELS else ()

    def fitted(self, columns: Sequence[str]) -> Stream:
        """Return the stream as a file with this header has it: a book's file has as many levels as its session."""
        if not self.arrays:
            return self
        levels = 0
        while f"bid_{levels + 1}" in columns:
            levels += 1
        return book_stream(levels) if levels else self


def _columns(*pairs: tuple[str, Kind] | tuple[str, Kind, str] | tuple[str, Kind, str, bool]) -> tuple[Column, ...]:
    return tuple(Column(*pair) for pair in pairs)


def _book_side(side: str, levels: int) -> list[tuple[str, Kind, str, bool]]:
    return [
        column
        for n in range(1, levels + 1)
        for column in (
            (f"{side}_{n}", Kind.DOUBLE, f"{side}_price_{n}", n > BOOK_LEVELS),
            (f"{side}_qty_{n}", Kind.DOUBLE, f"{side}_qty_{n}", n > BOOK_LEVELS),
        )
    ]


BOOK_LEVELS = 3
"""How many levels of each side ``tick_orderbook`` has columns for, and a row of ``orderbook.csv`` holds by default."""

MAX_BOOK_LEVELS = 1000
"""How many levels of each side a row can hold at most: a line of CSV stays below 64 kB."""


def _book_columns(levels: int) -> tuple[Column, ...]:
    return _columns(
        ("timestamp", Kind.TIMESTAMP),
        *_book_side("bid", levels),
        *_book_side("ask", levels),
        ("update_id", Kind.LONG),
        ("seq", Kind.LONG),
        ("received_at", Kind.TIMESTAMP),
    )


_TICK_KEYS = ("timestamp", "session_id", "symbol", "seq")

PRICES = Stream(
    name="prices",
    file="prices.csv",
    table="tick_prices",
    columns=_columns(
        ("timestamp", Kind.TIMESTAMP),
        ("price", Kind.DOUBLE),
        ("volume", Kind.DOUBLE),
        ("quote_volume", Kind.DOUBLE),
        ("side", Kind.SYMBOL),
        ("trade_id", Kind.VARCHAR),
        ("seq", Kind.LONG),
        ("received_at", Kind.TIMESTAMP),
        ("source", Kind.SYMBOL),
        ("first_raw_id", Kind.LONG),
        ("last_raw_id", Kind.LONG),
    ),
    keys=_TICK_KEYS,
)

ORDERBOOK = Stream(
    name="orderbook",
    file="orderbook.csv",
    table="tick_orderbook",
    columns=_book_columns(BOOK_LEVELS),
    keys=_TICK_KEYS,
    arrays=(("bids", "bid"), ("asks", "ask")),
    levels=BOOK_LEVELS,
)


@cache
def book_stream(levels: int) -> Stream:
    """Return the order book's stream with so many levels of each side in its CSV; its table is the same for all."""
    if levels == BOOK_LEVELS:
        return ORDERBOOK
    return replace(ORDERBOOK, columns=_book_columns(levels), levels=levels)


OHLCV = Stream(
    name="ohlcv",
    file="ohlcv.csv",
    table="aggregated_ohlcv",
    columns=_columns(
        ("timestamp", Kind.TIMESTAMP),
        ("interval", Kind.SYMBOL),
        ("open", Kind.DOUBLE),
        ("high", Kind.DOUBLE),
        ("low", Kind.DOUBLE),
        ("close", Kind.DOUBLE),
        ("volume", Kind.DOUBLE),
        ("quote_volume", Kind.DOUBLE),
        ("trades_count", Kind.LONG),
        ("taker_buy_volume", Kind.DOUBLE),
        ("first_trade_id", Kind.VARCHAR),
        ("last_trade_id", Kind.VARCHAR),
        ("is_closed", Kind.BOOLEAN),
        ("coverage", Kind.SYMBOL),
        ("source", Kind.SYMBOL),
        ("revision", Kind.LONG),
        ("seq", Kind.LONG),
    ),
    keys=("timestamp", "session_id", "symbol", "interval"),
    keyed=True,
)

GAPS = Stream(
    name="gaps",
    file="gaps.csv",
    table="collection_gaps",
    columns=_columns(
        ("detected_at", Kind.TIMESTAMP),
        ("gap_id", Kind.VARCHAR),
        ("symbol", Kind.SYMBOL),
        ("stream", Kind.SYMBOL),
        ("cause", Kind.SYMBOL),
        ("from_time", Kind.TIMESTAMP),
        ("to_time", Kind.TIMESTAMP),
        ("from_id", Kind.LONG),
        ("to_id", Kind.LONG),
        ("expected_rows", Kind.LONG),
        ("repaired_rows", Kind.LONG),
        ("state", Kind.SYMBOL),
        ("repaired_from", Kind.SYMBOL),
        ("detail", Kind.VARCHAR),
        ("revision", Kind.LONG),
        ("seq", Kind.LONG),
    ),
    keys=("detected_at", "session_id", "gap_id"),
    per_symbol=False,
    keyed=True,
)

_RECEIPT = (("seq", Kind.LONG), ("received_at", Kind.TIMESTAMP), ("source", Kind.SYMBOL))

FUNDING = Stream(
    name="funding",
    file="funding.csv",
    table="tick_funding",
    columns=_columns(
        ("timestamp", Kind.TIMESTAMP),
        ("funding_rate", Kind.DOUBLE),
        ("next_funding", Kind.TIMESTAMP),
        ("mark_price", Kind.DOUBLE),
        ("index_price", Kind.DOUBLE),
        *_RECEIPT,
    ),
    keys=_TICK_KEYS,
)

OPEN_INTEREST = Stream(
    name="open_interest",
    file="open_interest.csv",
    table="tick_open_interest",
    columns=_columns(
        ("timestamp", Kind.TIMESTAMP),
        ("amount", Kind.DOUBLE),
        ("value", Kind.DOUBLE),
        *_RECEIPT,
    ),
    keys=_TICK_KEYS,
)

LIQUIDATIONS = Stream(
    name="liquidations",
    file="liquidations.csv",
    table="tick_liquidations",
    columns=_columns(
        ("timestamp", Kind.TIMESTAMP),
        ("price", Kind.DOUBLE),
        ("volume", Kind.DOUBLE),
        ("side", Kind.SYMBOL),
        *_RECEIPT,
    ),
    keys=_TICK_KEYS,
)

TICKERS = Stream(
    name="tickers",
    file="tickers.csv",
    table="tick_tickers",
    columns=_columns(
        ("timestamp", Kind.TIMESTAMP),
        ("bid", Kind.DOUBLE),
        ("bid_qty", Kind.DOUBLE),
        ("ask", Kind.DOUBLE),
        ("ask_qty", Kind.DOUBLE),
        ("update_id", Kind.LONG),
        *_RECEIPT,
    ),
    keys=_TICK_KEYS,
)

KLINES = Stream(
    name="klines",
    file="klines.csv",
    table="exchange_klines",
    columns=_columns(
        ("timestamp", Kind.TIMESTAMP),
        ("interval", Kind.SYMBOL),
        ("open", Kind.DOUBLE),
        ("high", Kind.DOUBLE),
        ("low", Kind.DOUBLE),
        ("close", Kind.DOUBLE),
        ("volume", Kind.DOUBLE),
        ("quote_volume", Kind.DOUBLE),
        ("trades_count", Kind.LONG),
        ("taker_buy_volume", Kind.DOUBLE),
        ("is_closed", Kind.BOOLEAN),
        ("seq", Kind.LONG),
        ("received_at", Kind.TIMESTAMP),
    ),
    keys=("timestamp", "session_id", "symbol", "interval"),
    keyed=True,
)

_PAST_CANDLES = _columns(
    ("timestamp", Kind.TIMESTAMP),
    ("asset_type", Kind.SYMBOL),
    ("timeframe", Kind.SYMBOL),
    ("open", Kind.DOUBLE),
    ("high", Kind.DOUBLE),
    ("low", Kind.DOUBLE),
    ("close", Kind.DOUBLE),
    ("volume", Kind.DOUBLE),
    ("quote_volume", Kind.DOUBLE),
    ("trades_count", Kind.LONG),
    ("taker_buy_volume", Kind.DOUBLE),
    ("taker_buy_quote_volume", Kind.DOUBLE),
    ("source", Kind.SYMBOL),
    ("created_at", Kind.TIMESTAMP),
    ("seq", Kind.LONG),
)
_PAST_KEYS = ("timestamp", "session_id", "symbol", "timeframe", "source")

MARKET_DATA = Stream(
    name="market_data",
    file="market_data.csv",
    table="market_data",
    columns=_PAST_CANDLES,
    keys=_PAST_KEYS,
    keyed=True,
)

CANDLES_1M = Stream(
    name="candles_1m",
    file="candles_1m.csv",
    table="candles_1m",
    columns=_PAST_CANDLES,
    keys=_PAST_KEYS,
    keyed=True,
)

STREAMS: dict[str, Stream] = {
    stream.name: stream
    for stream in (
        PRICES, ORDERBOOK, OHLCV, GAPS, FUNDING, OPEN_INTEREST, LIQUIDATIONS, TICKERS, KLINES, MARKET_DATA, CANDLES_1M,
    )
}  # fmt: skip


def stream_of(name: str, book_levels: int = BOOK_LEVELS) -> Stream | None:
    """Return a session's stream by its name, the book with the session's levels; None where there is no such stream."""
    return book_stream(book_levels) if name == ORDERBOOK.name else STREAMS.get(name)


DATA_TYPES = ("prices", "orderbook", "funding", "open_interest", "liquidations", "tickers", "klines")
"""What a person can ask a session to collect; candles and the ledger come with it."""

HISTORY_TYPES = (MARKET_DATA.name, CANDLES_1M.name)
"""The streams of sessions of the kind ``history``: candles that sources of history gave or a file held."""


def history_stream(interval: str) -> Stream:
    """Return the stream that holds past candles of an interval: those shorter than an hour are with the minutes."""
    return CANDLES_1M if interval.endswith("m") else MARKET_DATA


ALL_DATA_TYPES = "all"
"""The word for every data type that the exchange offers."""
