"""The registry of streams: each is a CSV file and its QuestDB table.

The CSV writer, the replicator, the importer, the verifier, the reader, the test of the migrations and the documentation
all read this registry. A new data type is one entry here, one migration and one branch in a parser.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum


class Kind(Enum):
    """How a column is written in CSV, and its type in QuestDB. An empty CSV field is NULL (for BOOLEAN: false)."""

    TIMESTAMP = "TIMESTAMP"  # integer microseconds since the epoch, UTC
    SYMBOL = "SYMBOL"  # text of few distinct values
    VARCHAR = "VARCHAR"  # any text
    DOUBLE = "DOUBLE"  # decimal digits as the exchange wrote them
    LONG = "LONG"  # integer
    BOOLEAN = "BOOLEAN"  # true or false


@dataclass(frozen=True, slots=True)
class Column:
    """A column: its name in CSV, its kind, and its name in QuestDB where that differs."""

    name: str
    kind: Kind
    database_name: str = ""

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
    """

    name: str
    file: str
    table: str
    columns: tuple[Column, ...]
    keys: tuple[str, ...]
    per_symbol: bool = True
    keyed: bool = False

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
            *((column.in_database, column.kind) for column in self.columns[1:]),
        )


def _columns(*pairs: tuple[str, Kind] | tuple[str, Kind, str]) -> tuple[Column, ...]:
    return tuple(Column(*pair) for pair in pairs)


def _book_side(side: str, levels: int) -> list[tuple[str, Kind, str]]:
    return [
        column
        for n in range(1, levels + 1)
        for column in (
            (f"{side}_{n}", Kind.DOUBLE, f"{side}_price_{n}"),
            (f"{side}_qty_{n}", Kind.DOUBLE, f"{side}_qty_{n}"),
        )
    ]


BOOK_LEVELS = 3
"""How many levels of each side a row of ``orderbook.csv`` holds."""

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
    columns=_columns(
        ("timestamp", Kind.TIMESTAMP),
        *_book_side("bid", BOOK_LEVELS),
        *_book_side("ask", BOOK_LEVELS),
        ("update_id", Kind.LONG),
        ("seq", Kind.LONG),
        ("received_at", Kind.TIMESTAMP),
    ),
    keys=_TICK_KEYS,
)

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

STREAMS: dict[str, Stream] = {stream.name: stream for stream in (PRICES, ORDERBOOK, OHLCV, GAPS)}

DATA_TYPES = ("prices", "orderbook")
"""What a person can ask a session to collect; candles and the ledger come with it."""
