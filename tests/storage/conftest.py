"""Fixtures for the tests of delivery: files that grow as the session log's do, a log that remembers, a fault proxy."""

from __future__ import annotations

import asyncio
import http.client
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

import pytest

from collector.clock import SystemClock
from collector.config import QuestDB
from collector.sim.fault_proxy import FaultProxy
from collector.storage.files import OperatingSystem
from collector.storage.questdb import HttpTransport
from collector.storage.replicator import Replicator
from collector.streams import PRICES, Stream

START_US = 1_700_000_000_000_000
WAIT_S = 30


@dataclass(frozen=True)
class WrittenFile:
    """What a commit names."""

    stream: Stream
    symbol: str | None
    path: Path


@dataclass(frozen=True)
class Committed:
    """What the log says after a sync."""

    file: WrittenFile
    offset: int
    rows: int
    last_seq: int
    first_seq: int


@dataclass
class GrowingFile:
    """A stream's file that a test lets grow, as the session log does; ``seq`` begins at 1."""

    stream: Stream
    symbol: str | None
    path: Path
    next_seq: int = 1
    first_seq: int = 1
    rows: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(self.stream.header)

    def append(self, *rows: str) -> Committed:
        """Append whole lines as they are; ``{seq}`` in a line becomes its number."""
        for row in rows:
            line = row.replace("{seq}", str(self.next_seq))
            self.next_seq += 1
            self.rows.append(line)
            with self.path.open("a") as file:
                file.write(line + "\n")
        return self.commit()

    def append_many(self, count: int) -> Committed:
        """Append so many rows of prices."""
        lines = [price_row(self.next_seq + i).replace("{seq}", str(self.next_seq + i)) for i in range(count)]
        self.next_seq += count
        self.rows += lines
        with self.path.open("a") as file:
            file.writelines(line + "\n" for line in lines)
        return self.commit()

    def commit(self) -> Committed:
        """Say that everything in the file is durable."""
        file = WrittenFile(self.stream, self.symbol, self.path)
        size = self.path.stat().st_size
        return Committed(file, size, len(self.rows), self.next_seq - 1, self.first_seq)

    def rotate(self) -> Path:
        """Close the live segment and begin another."""
        closed = self.path.with_name(f"{self.path.stem}.{self.first_seq:012d}.csv")
        self.path.rename(closed)
        self.path.write_text(self.stream.header)
        self.first_seq = self.next_seq
        return closed


def price_row(number: int, price: str = "", seq: str = "{seq}") -> str:
    """Return a row of ``prices.csv``; ``{seq}`` stands for its number."""
    stamp = START_US + number * 1000
    side = "buy" if number % 2 else "sell"
    price = price or f"{60000 + number % 1000}.{number % 100:02d}"
    return f"{stamp},{price},0.5,{number}.25,{side},{number},{seq},{stamp + 500},ws,,"


class Remembering:
    """A structured log that keeps its events."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str, dict[str, Any]]] = []

    def debug(self, event: str, **facts: object) -> None:
        self.events.append(("debug", event, facts))

    def info(self, event: str, **facts: object) -> None:
        self.events.append(("info", event, facts))

    def warning(self, event: str, **facts: object) -> None:
        self.events.append(("warning", event, facts))

    def error(self, event: str, **facts: object) -> None:
        self.events.append(("error", event, facts))

    def names(self, *, at_least: str = "info") -> list[str]:
        """Return the events' names, in order, without those below a level."""
        order = ["debug", "info", "warning", "error"]
        return [name for level, name, _ in self.events if order.index(level) >= order.index(at_least)]

    def facts(self, event: str) -> list[dict[str, Any]]:
        """Return what was said with an event."""
        return [facts for _, name, facts in self.events if name == event]


@dataclass
class Delivery:
    """A replicator under test, and one session whose files a test lets grow."""

    settings: QuestDB
    directory: Path
    session_id: str
    log: Remembering
    repair: Callable[[], None] | None = None
    files: dict[tuple[str, str | None], GrowingFile] = field(default_factory=dict)
    replicator: Replicator | None = None
    dead: list[Replicator] = field(default_factory=list)

    def file(self, stream: Stream = PRICES, symbol: str | None = "BTC_USDT") -> GrowingFile:
        """Return a stream's file, made when it is first asked for."""
        symbol = symbol if stream.per_symbol else None
        key = (stream.name, symbol)
        if key not in self.files:
            folder = self.directory / symbol if symbol else self.directory
            self.files[key] = GrowingFile(stream, symbol, folder / stream.file)
        return self.files[key]

    def start(self, port: int | None = None) -> Replicator:
        """Start a replicator and give it the session with the files that exist."""
        settings = self.settings if port is None else self.settings.model_copy(update={"ilp_port": port})
        replicator = Replicator(
            config=settings, files=OperatingSystem(), clock=SystemClock(), log=self.log, repair_tables=self.repair
        )
        self.replicator = replicator
        replicator.start()
        named = [(file.stream, file.symbol, file.path) for file in self.files.values()]
        replicator.add_session(self.session_id, "sim", self.directory, named)
        return replicator

    def stop(self) -> None:
        """Stop the replicator as the daemon does."""
        if self.replicator is not None:
            self.replicator.stop(10)
            self.dead.append(self.replicator)
            self.replicator = None

    def commit(self, *commits: Committed) -> None:
        """Tell the replicator what became durable."""
        assert self.replicator is not None
        self.replicator.committed(self.session_id, commits)

    def delivered(self, timeout_s: float = WAIT_S) -> bool:
        """Wait until everything is delivered."""
        assert self.replicator is not None
        return asyncio.run(self.replicator.wait_delivered(self.session_id, timeout_s=timeout_s))

    def query(self, sql: str) -> list[list[Any]]:
        """Ask the server, not through the product's code."""
        return ask(self.settings, sql)

    def select(self, columns: str, table: str, order: str = "") -> list[list[Any]]:
        """Ask for the session's rows of a table."""
        return self.query(f"select {columns} from {table} where session_id = '{self.session_id}' {order}")  # noqa: S608

    def wait_applied(self, table: str) -> None:
        """Wait until everything that a table took is visible."""
        lag = f"select sequencerTxn - writerTxn from wal_tables() where name = '{table}'"  # noqa: S608
        for _ in range(2000):
            if self.query(lag) == [[0]]:
                return
        raise AssertionError(f"{table} does not apply what it took")

    def sequence(self, stream: Stream = PRICES) -> list[int]:
        """Return the session's ``seq`` in a table, in order."""
        return [row[0] for row in self.select("seq", stream.table, "order by seq")]


def ask(settings: QuestDB, sql: str) -> list[list[Any]]:
    """Ask QuestDB over HTTP and return the rows."""
    user, password = settings.http_user, settings.http_password.get_secret_value()
    transport = HttpTransport(settings.ilp_host, settings.ilp_port, user=user, password=password)
    connection = http.client.HTTPConnection(settings.ilp_host, settings.ilp_port, timeout=20)
    try:
        connection.request("GET", "/exec?" + urlencode({"query": sql}), headers=transport._headers)
        answer = json.loads(connection.getresponse().read())
    finally:
        connection.close()
    assert "error" not in answer, answer
    return answer.get("dataset", [])


@pytest.fixture
def event_log() -> Remembering:
    """Give a log that keeps its events."""
    return Remembering()


@pytest.fixture
def make_delivery(tmp_path: Path, event_log: Remembering) -> Iterator[Callable[..., Delivery]]:
    """Make deliveries to a server; what they started is stopped at the end."""
    made: list[Delivery] = []

    def make(settings: QuestDB, *, repair: Callable[[], None] | None = None, **changes: object) -> Delivery:
        quick = {"check_interval_s": 0.3, "retry_initial_s": 0.02, "retry_cap_s": 0.2, "request_timeout_s": 5} | changes
        session_id = f"{tmp_path.name}-{len(made)}"
        directory = tmp_path / f"session_{session_id}"
        directory.mkdir()
        made.append(Delivery(settings.model_copy(update=quick), directory, session_id, event_log, repair))
        return made[-1]

    yield make
    for delivery in made:
        delivery.stop()


@pytest.fixture
def fault_proxy() -> Iterator[Callable[[int], FaultProxy]]:
    """Make proxies in front of a port of loopback."""
    made: list[FaultProxy] = []

    def make(port: int) -> FaultProxy:
        made.append(FaultProxy(port).__enter__())
        return made[-1]

    yield make
    for proxy in made:
        proxy.close()


@pytest.fixture
def rows() -> type[Rows]:
    """Give the rows of the streams, as text."""
    return Rows


class Rows:
    """Rows of the streams as the log writes them; ``{seq}`` stands for the number."""

    @staticmethod
    def price(number: int, price: str = "", seq: str = "{seq}") -> str:
        """Return a row of ``prices.csv``."""
        return price_row(number, price, seq)

    @staticmethod
    def candle(minute: int, close: str, revision: int = 0) -> str:
        """Return a row of ``ohlcv.csv``."""
        start = START_US + minute * 60_000_000
        return f"{start},1m,1,2,0.5,{close},10,100,5,4,1,5,true,full,trades,{revision},{{seq}}"

    @staticmethod
    def gap(number: int, detail: str, state: str = "open") -> str:
        """Return a row of ``gaps.csv``, quoted where it must be."""
        quoted = '"' + detail.replace('"', '""') + '"' if set(detail) & set(',"') else detail
        detected = START_US + number
        where = f"BTC_USDT,prices,disconnect,{detected - 5},{detected},1,2"
        return f"{detected},gap-{number},{where},2,0,{state},,{quoted},0,{{seq}}"
