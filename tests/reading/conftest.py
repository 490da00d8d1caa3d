"""Sessions on disk and their rows in QuestDB, written without the parts that would write them in the product."""

from __future__ import annotations

import base64
import urllib.request
import uuid
from collections.abc import Callable, Iterable, Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

import collector
from collector.candles.aggregator import Aggregator, Candle
from collector.config import Config, Daemon, QuestDB
from collector.events import Trade
from collector.reading.table_reader import TableReader
from collector.session.manifest import FileRecord, Manifest, load_manifest, save_manifest
from collector.storage.cursor import Cursor, Position, SavedFile, save_cursor
from collector.storage.files import OperatingSystem
from collector.storage.ilp import Encoder
from collector.streams import GAPS, OHLCV, ORDERBOOK, PRICES, STREAMS, Stream

START_US = 1_700_006_400_000_000
EXCHANGE = "sim"


class SessionOnDisk:
    """A session's directory: rows are put into it as text, and sent to QuestDB from there."""

    def __init__(self, data_dir: Path, session_id: str, symbols: Sequence[str], state: str = "completed") -> None:
        self.session_id = session_id
        self.directory = data_dir / f"session_{session_id}"
        self.directory.mkdir(parents=True)
        self.symbols = list(symbols)
        self.save_manifest(state)

    def save_manifest(self, state: str) -> None:
        manifest = Manifest(
            self.session_id, EXCHANGE, self.symbols, ["prices", "orderbook"], created_us=START_US, state=state
        )
        save_manifest(self.directory, manifest, OperatingSystem())

    def path(self, stream: Stream, symbol: str | None = None) -> Path:
        folder = self.directory / symbol if symbol and stream.per_symbol else self.directory
        folder.mkdir(exist_ok=True)
        return folder / stream.file

    def append(self, stream: Stream, symbol: str | None, lines: Iterable[str]) -> None:
        path = self.path(stream, symbol)
        text = "" if path.exists() else stream.header
        with path.open("a") as file:
            file.write(text + "".join(line.rstrip("\n") + "\n" for line in lines))

    def lines(self, stream: Stream, symbol: str | None = None) -> list[str]:
        return self.path(stream, symbol).read_text().splitlines()[1:]

    def replace(self, stream: Stream, symbol: str | None, old: str, new: str) -> None:
        """Change a text that stands in the file exactly once."""
        path = self.path(stream, symbol)
        content = path.read_text()
        assert content.count(old) == 1, f"{old!r} stands {content.count(old)} times in {path.name}"
        path.write_text(content.replace(old, new))

    def write_market(self, symbol: str, minutes: int = 12, per_minute: int = 30, *, finish: bool = True) -> None:
        """Write some minutes of trades, a book and the candles that are true of them."""
        trades = [
            Trade(
                symbol,
                START_US + minute * 60_000_000 + n * 1_900_000,
                f"{100 + (minute * 7 + n * 3) % 13}.{n:02d}",
                f"0.{minute + 1:02d}{n + 1:03d}",
                "buy" if n % 3 else "sell",
                1000 + minute * per_minute + n,
                START_US,
                "ws",
                5 * n,
                5 * n + n % 4,
            )
            for minute in range(minutes)
            for n in range(per_minute)
        ]
        self.append(PRICES, symbol, [price_line(trade, seq) for seq, trade in enumerate(trades, 1)])
        self.append(OHLCV, symbol, [c.line(seq) for seq, c in enumerate(candles_of(symbol, trades, finish=finish), 1)])
        self.append(ORDERBOOK, symbol, [book_line(n) for n in range(1, 201)])

    def bodies(self) -> list[bytes]:
        """Return the ILP text of all files, one row per key in each."""
        found = []
        for stream in STREAMS.values():
            for symbol in self.symbols if stream.per_symbol else [None]:
                if self.path(stream, symbol).exists():
                    tags = {"session_id": self.session_id, "exchange": EXCHANGE}
                    tags |= {"symbol": symbol} if symbol else {}
                    content = "".join(line + "\n" for line in self.lines(stream, symbol)).encode()
                    found.append(Encoder(stream, tags).encode(content).body)
        return found


def price_line(trade: Trade, seq: int) -> str:
    quote = format(Decimal(trade.price) * Decimal(trade.volume), "f")
    first = "" if trade.first_raw_id is None else trade.first_raw_id
    last = "" if trade.last_raw_id is None else trade.last_raw_id
    return (
        f"{trade.timestamp_us},{trade.price},{trade.volume},{quote},{trade.side},{trade.trade_id},{seq},"
        f"{trade.received_us},{trade.source},{first},{last}"
    )


def book_line(n: int) -> str:
    """Make a row of the book; every tenth lacks the third level."""
    third = ",," if n % 10 == 0 else f",{99 - n / 1000:.3f},3"
    return (
        f"{START_US + n * 100_000},{100 - n / 1000:.3f},1.{n},{99.5 - n / 1000:.3f},2{third},"
        f"{101 + n / 1000:.3f},1,{102 + n / 1000:.3f},2{third},{5000 + n},{n},{START_US + n}"
    )


def candles_of(symbol: str, trades: Sequence[Trade], *, finish: bool = True) -> list[Candle]:
    aggregator = Aggregator(symbol, grace_us=2_000_000)
    rows = []
    for seq, trade in enumerate(trades, 1):
        aggregator.fold([trade], [seq], [Decimal(trade.price) * Decimal(trade.volume)])
        rows += aggregator.close_due(trade.timestamp_us, lambda *_: False)
    return rows + (aggregator.finish(lambda *_: False) if finish else [])


class Database:
    """What a test does to QuestDB: send lines, and wait until they show."""

    def __init__(self, questdb: Any) -> None:
        self._questdb = questdb
        self.settings = questdb.settings

    def send(self, *bodies: bytes) -> None:
        credentials = base64.b64encode(f"{self._questdb.user}:{self._questdb.password}".encode()).decode()
        for body in bodies:
            request = urllib.request.Request(
                f"{self._questdb.http_url}/write?precision=u", body, {"Authorization": f"Basic {credentials}"}
            )
            with urllib.request.urlopen(request, timeout=30) as answer:
                assert answer.status in (200, 204)


@pytest.fixture
def make_session(tmp_path: Path) -> Callable[..., SessionOnDisk]:
    """Make sessions in one data directory, each with an id of its own."""

    def make(
        symbols: Sequence[str] = ("BTC_USDT",), *, state: str = "completed", session_id: str = ""
    ) -> SessionOnDisk:
        return SessionOnDisk(tmp_path / "data", session_id or f"t-{uuid.uuid4().hex[:12]}", symbols, state)

    return make


@pytest.fixture
def database(questdb: Any) -> Database:
    """Give the run's server."""
    return Database(questdb)


@pytest.fixture
def gap_line() -> Callable[..., str]:
    """Give the maker of ledger rows."""

    def make(seq: int, cause: str, stream: str, symbol: str, ids: tuple[int, int], gap_id: str = "g000001") -> str:
        fields = [
            START_US,
            gap_id,
            symbol,
            stream,
            cause,
            "",
            "",
            *ids,
            ids[1] - ids[0] + 1,
            0,
            "open",
            "",
            "x",
            0,
            seq,
        ]
        assert len(fields) == len(GAPS.columns)
        return ",".join(map(str, fields))

    return make


def write_records(session: SessionOnDisk) -> None:
    """Write the manifest's files and a cursor that says that everything was delivered and found."""
    manifest = load_manifest(session.directory)
    saved = []
    for stream in STREAMS.values():
        for symbol in session.symbols if stream.per_symbol else [None]:
            if session.path(stream, symbol).exists():
                lines = session.lines(stream, symbol)
                seq = max((int(line.split(",")[stream.seq_index]) for line in lines), default=0)
                record = FileRecord(stream.name, symbol, f"{symbol}/{stream.file}", len(lines), next_seq=seq + 1)
                manifest.files.append(record)
                saved.append(SavedFile(stream.name, symbol, Position(1, 0, seq), Position(1, 0, seq)))
    save_manifest(session.directory, manifest, OperatingSystem())
    save_cursor(OperatingSystem(), session.directory, Cursor(session.session_id, saved))


@pytest.fixture
def reading(questdb: Any) -> Callable[..., Any]:
    """Open a session of a test, beside the run's server."""

    def open_it(session: Any, source: str = "auto", *, database: bool = True) -> Any:
        external = questdb.settings.model_copy(update={"mode": "external"})
        config = Config(
            daemon=Daemon(data_dir=session.directory.parent), questdb=external if database else QuestDB(mode="off")
        )
        return collector.open_session(session.session_id, config=config, source=source)  # type: ignore[arg-type]

    return open_it


@pytest.fixture
def record_files() -> Callable[[SessionOnDisk], None]:
    """Write the manifest's files and a cursor that says that everything was delivered and found."""
    return write_records


@pytest.fixture
def deliver(database: Database) -> Callable[[SessionOnDisk], None]:
    """Bring a session to QuestDB whole."""

    def send(session: SessionOnDisk) -> None:
        write_records(session)
        database.send(*session.bodies())
        with TableReader(database.settings) as table:
            for stream in STREAMS.values():
                table.wait_applied(stream, 30)

    return send
