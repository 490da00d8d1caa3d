"""Whoever reads never delays a flush: clients that stream rows while a session collects; and how long pages take.

Clients are threads of this process, which is neither the daemon nor the API's. The longest flush is the daemon's own
figure (``flush_max_s``), once before the clients came and once with them.
"""

from __future__ import annotations

import http.client
import threading
import time
from dataclasses import dataclass

import pyarrow as pa

from bench.harness import DaemonProcess, Figure, Place, Result, Scale, load_server, percentile, symbol_names
from collector.api.token import token_path
from collector.session.manifest import FileRecord, Manifest, save_manifest
from collector.storage.files import OperatingSystem
from collector.storage.sql import connect

RATE = 5_000
SYMBOLS = 5
FLUSH_TARGET_S = 0.1
PAGE_TARGET_S = 0.5
SESSIONS = 200
PAGES = ("/", "/session/{id}", "/tables", "/tables?table=tick_prices", "/compare", "/backtests", "/events")
TIMEOUT_S = 600.0
_CHUNK = 1 << 18
_QUIET_S = 10.0
_PAGE_RUNS = 7


@dataclass(slots=True)
class Client:
    """One that streams a session as Arrow and counts what it gets."""

    address: tuple[str, int]
    token: str
    path: str
    rows: int = 0
    bytes: int = 0
    failure: str = ""

    def run(self) -> None:
        """Read to the end; each batch is looked at and forgotten."""
        try:
            connection = http.client.HTTPConnection(*self.address, timeout=TIMEOUT_S)
            connection.request("GET", self.path, headers={"Authorization": f"Bearer {self.token}"})
            answer = connection.getresponse()
            if answer.status != http.client.OK:
                self.failure = f"{answer.status} {answer.read(500)!r}"
                return
            for batch in pa.ipc.open_stream(_Counted(answer, self)):
                self.rows += batch.num_rows
        except (OSError, http.client.HTTPException, pa.ArrowException) as error:
            self.failure = f"{type(error).__name__}: {error}"


class _Counted:
    """An answer's body as a file, with its bytes counted."""

    closed = False

    def __init__(self, answer: http.client.HTTPResponse, client: Client) -> None:
        self._answer = answer
        self._client = client

    def read(self, size: int = _CHUNK) -> bytes:
        """Return the next bytes."""
        content = self._answer.read(size)
        self._client.bytes += len(content)
        return content


def measure(place: Place, scale: Scale) -> list[Result]:
    """Record what is read, collect beside it, let the clients come, and look at the pages."""
    address = (place.config.api.host, place.config.api.port)
    with place.daemon() as daemon:
        with load_server(scale.api_rows, symbols=1) as (ws_url, rest_url):
            read = daemon.start(ws_url, rest_url, symbol_names(1))
            daemon.wait_until_done(read, scale.api_rows, timeout_s=TIMEOUT_S)
        token = token_path(place.folder).read_text(encoding="ascii").strip()
        path = f"/api/data-collection/sessions/{read}/data?stream=prices&format=arrow"
        results = _streaming(daemon, [Client(address, token, path) for _ in range(scale.api_clients)], scale)
        results += _pages(place, address, token, read, scale)
    return results


def _streaming(daemon: DaemonProcess, clients: list[Client], scale: Scale) -> list[Result]:
    count = round(RATE * TIMEOUT_S)  # it is stopped when the clients have gone
    with load_server(count, symbols=SYMBOLS, rate=RATE) as (ws_url, rest_url):
        session_id = daemon.start(ws_url, rest_url, symbol_names(SYMBOLS))
        time.sleep(_QUIET_S)
        quiet = daemon.session(session_id)
        threads = [threading.Thread(target=client.run) for client in clients]
        begun_s = time.monotonic()
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        took_s = time.monotonic() - begun_s
        loaded = daemon.session(session_id)
        daemon.ask("stop", {"sessions": [session_id]}, timeout_s=TIMEOUT_S)
    failed = [client.failure for client in clients if client.failure]
    if failed:
        raise RuntimeError(f"{len(failed)} of {len(clients)} clients failed: {failed[0]}")
    wrong = [client.rows for client in clients if client.rows != scale.api_rows]
    if wrong or loaded["buffer"]["dropped"] or loaded["gaps"]:
        raise RuntimeError(
            f"clients got {wrong[:3]} rows; dropped {loaded['buffer']['dropped']}, gaps {loaded['gaps']}"
        )
    collected = loaded["rows"]["prices"] - quiet["rows"]["prices"]
    name = f"{len(clients)} clients stream {scale.api_rows:,} rows each"
    return [
        Figure(f"{name}: the longest flush beside them", loaded["flush_max_s"], "s", FLUSH_TARGET_S),
        Figure("the longest flush before they came", quiet["flush_max_s"], "s"),
        Figure(f"{name}: together", len(clients) * scale.api_rows / took_s, "rows/s"),
        Figure(f"{name}: collected beside them", collected / took_s, "rows/s", 0.95 * RATE, "higher"),
    ]


def _pages(place: Place, address: tuple[str, int], token: str, session_id: str, scale: Scale) -> list[Result]:
    for number in range(SESSIONS):
        _store(place, f"page-{number:04d}")
    missing = scale.read_rows - scale.api_rows
    with connect(place.database.settings(), query_timeout_s=TIMEOUT_S) as connection:
        connection.run_text(
            "INSERT INTO tick_prices (timestamp, session_id, exchange, symbol, price, volume, seq) "  # noqa: S608
            "SELECT timestamp_sequence(1700000000000000, 10000), 'page-0000', 'binance', 'BTC_USDT', "
            f"100 + rnd_double(), rnd_double(), x FROM long_sequence({max(1, missing)})"
        )
        connection.rows("SELECT wait_wal_table('tick_prices')")
        rows = connection.count("tick_prices")
    found: list[Result] = []
    for page in PAGES:
        took = []
        for _ in range(_PAGE_RUNS + 1):
            connection_ = http.client.HTTPConnection(*address, timeout=60)
            begun_s = time.monotonic()
            connection_.request("GET", page.format(id=session_id), headers={"Cookie": f"collector_token={token}"})
            answer = connection_.getresponse()
            answer.read()
            took.append(time.monotonic() - begun_s)
            connection_.close()
            if answer.status != http.client.OK:
                raise RuntimeError(f"{page} answers {answer.status}")
        # The first look at a page imports what it needs.
        slowest = percentile(took[1:], 1.0)
        note = f"slowest of {_PAGE_RUNS}; {SESSIONS} sessions, {rows:,} rows"
        found.append(Figure(f"page {page}", slowest, "s", PAGE_TARGET_S, note=note))
    return found


def _store(place: Place, session_id: str) -> None:
    directory = place.folder / f"session_{session_id}"
    directory.mkdir(exist_ok=True)
    symbols = symbol_names(20)
    manifest = Manifest(
        session_id=session_id, exchange="binance", symbols=symbols, data_types=["prices", "orderbook"],
        created_us=1_700_000_000_000_000, started_us=1_700_000_000_000_000, ended_us=1_700_000_600_000_000,
        state="completed",
        files=[FileRecord("prices", symbol, f"{symbol}/prices.csv", rows=1000) for symbol in symbols],
    )  # fmt: skip
    save_manifest(directory, manifest, OperatingSystem())
