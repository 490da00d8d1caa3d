"""Sessions are read back from QuestDB and from the CSV, with the same values, types and order."""

from __future__ import annotations

import gzip
import random
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest

import collector
from collector.config import Config, Daemon
from collector.errors import DatabaseUnavailable, LogError, SessionNotFound, UnknownName, UsageError
from collector.session.manifest import load_manifest, save_manifest
from collector.storage.csv_log import Released
from collector.storage.files import OperatingSystem
from collector.streams import GAPS, OHLCV, ORDERBOOK, PRICES

START_US = 1_700_006_400_000_000


@pytest.fixture
def delivered(make_session: Callable[..., Any], deliver: Callable[[Any], None], gap_line: Callable[..., str]) -> Any:
    """Give a session of two symbols that QuestDB has whole, with a ledger."""
    session = make_session(["BTC_USDT", "ETH_USDT"])
    for symbol in session.symbols:
        session.write_market(symbol)
    session.append(GAPS, None, [gap_line(1, "sequence", "prices", "BTC_USDT", (5, 7))])
    deliver(session)
    return session


@pytest.mark.parametrize("name", [PRICES.name, ORDERBOOK.name, OHLCV.name, GAPS.name])
def test_both_sources_give_the_same_table(delivered: Any, reading: Callable[..., Any], name: str) -> None:
    """Values, types, nulls and order are equal, whichever store they come from."""
    from_database = reading(delivered).stream(name)
    from_csv = reading(delivered, database=False).stream(name)
    assert (from_database.why, from_csv.why) == ("QuestDB has the session whole", "questdb.mode is off")
    assert (from_database.source, from_csv.source) == ("questdb", "csv")
    assert from_database.table().num_rows > 0
    assert from_database.table().schema == from_csv.table().schema == from_csv.schema
    assert from_database.table().equals(from_csv.table())
    for rows in (from_database, from_csv):
        batches = list(rows.batches(97))
        assert [batch.num_rows for batch in batches[:-1]] == [97] * (len(batches) - 1)
        assert pa.Table.from_batches(batches).equals(from_csv.table())


def test_values_are_those_of_the_file(delivered: Any, reading: Callable[..., Any]) -> None:
    """Each row is the CSV's, in its order; what is empty there is missing."""
    rows = reading(delivered).prices("BTC_USDT").table().to_pylist()
    lines = [line.split(",") for line in delivered.lines(PRICES, "BTC_USDT")]
    assert [row["price"] for row in rows] == [float(line[1]) for line in lines]
    assert [int(row["timestamp"].timestamp() * 1e6 + 0.5) for row in rows] == [int(line[0]) for line in lines]
    assert [row["seq"] for row in rows] == list(range(1, len(lines) + 1))
    assert {row["symbol"] for row in rows} == {"BTC_USDT"}
    book = reading(delivered).orderbook("BTC_USDT").table().to_pylist()
    assert [row["bid_price_3"] is None for row in book] == [n % 10 == 0 for n in range(1, 201)]


def test_exact_gives_the_exchanges_digits(delivered: Any, reading: Callable[..., Any]) -> None:
    """As text from the CSV, whatever QuestDB has."""
    rows = reading(delivered).prices("ETH_USDT", exact=True)
    assert rows.source == "csv"
    lines = [line.split(",") for line in delivered.lines(PRICES, "ETH_USDT")]
    assert rows.table()["volume"].to_pylist() == [line[2] for line in lines]
    assert sum(map(Decimal, rows.table()["quote_volume"].to_pylist())) == sum(Decimal(line[3]) for line in lines)


@pytest.mark.parametrize("source", ["questdb", "csv"])
def test_bounds_columns_and_symbols_are_kept_to(delivered: Any, reading: Callable[..., Any], source: str) -> None:
    """The start is included and the end is not, in any spelling of a time."""
    session = reading(delivered, source)
    start, end = START_US + 60_000_000, START_US + 120_000_000
    rows = session.prices("BTC_USDT", "2023-11-15T00:01:00Z", end, columns=["seq", "price"]).table()
    times = [int(line.split(",")[0]) for line in delivered.lines(PRICES, "BTC_USDT")]
    assert rows.schema.names == ["seq", "price"]
    assert rows["seq"].to_pylist() == [seq for seq, at in enumerate(times, 1) if start <= at < end]
    assert session.prices(["ETH_USDT"]).table()["symbol"].unique().to_pylist() == ["ETH_USDT"]
    assert session.prices().table()["symbol"].unique().to_pylist() == ["BTC_USDT", "ETH_USDT"]
    assert session.prices("BTC_USDT", end=START_US).table().num_rows == 0
    minutes = session.ohlcv("BTC_USDT", "1m").table()
    assert minutes["interval"].unique().to_pylist() == ["1m"]
    assert minutes.num_rows == 12


def test_only_the_last_revision_of_a_candle_counts(
    make_session: Callable[..., Any], reading: Callable[..., Any]
) -> None:
    """The file keeps them all."""
    session = make_session()
    session.write_market("BTC_USDT", minutes=1)
    line = session.lines(OHLCV, "BTC_USDT")[0].split(",")
    line[5], line[15], line[16] = "7.77", "1", "99"
    session.append(OHLCV, "BTC_USDT", [",".join(line)])
    table = reading(session, database=False).ohlcv("BTC_USDT", line[1]).table()
    assert (table["close"].to_pylist(), table["revision"].to_pylist()) == ([7.77], [1])


def test_frames_keep_whole_numbers_whole(delivered: Any, reading: Callable[..., Any]) -> None:
    """Where some are missing, too; and any library takes the rows as a stream."""
    rows = reading(delivered).prices("BTC_USDT")
    frame = rows.pandas()
    assert str(frame["timestamp"].dtype) == "datetime64[us, UTC]"
    assert (str(frame["first_raw_id"].dtype), str(frame["price"].dtype)) == ("Int64", "float64")
    assert rows.polars().height == len(frame) == len(rows)
    assert pa.table(rows).equals(rows.table())


def test_all_segments_count_and_no_torn_tail(
    make_session: Callable[..., Any], reading: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Closed ones, compressed ones, of older columns, in whatever blocks they are read."""
    monkeypatch.setattr("collector.reading.csv_arrow.BLOCK_BYTES", 1000)
    session = make_session()
    session.write_market("BTC_USDT")
    path = session.path(PRICES, "BTC_USDT")
    expected = reading(session, database=False).prices().table()
    header, *lines = path.read_text().splitlines(keepends=True)
    path.with_name("prices.000000000001.csv.gz").write_bytes(gzip.compress((header + "".join(lines[:100])).encode()))
    path.with_name("prices.000000000101.csv").write_text(header + "".join(lines[100:200]))
    path.write_text(header + "".join(lines[200:]) + lines[0][:20])
    assert reading(session, database=False).prices().table().equals(expected)
    assert pa.Table.from_batches(reading(session, database=False).prices().batches(50)).equals(expected)


def test_a_repair_that_stands_behind_later_trades_is_put_in_its_place(
    make_session: Callable[..., Any],
    deliver: Callable[[Any], None],
    reading: Callable[..., Any],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Rows come by time, and by number within one time, from both stores, at once and in batches."""
    monkeypatch.setattr("collector.reading.csv_arrow.BLOCK_BYTES", 2000)
    monkeypatch.setattr("collector.reading.table_arrow.PORTION_ROWS", 40)
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    session = make_session()
    session.write_market("BTC_USDT")
    path = session.path(PRICES, "BTC_USDT")
    header, *lines = path.read_text().splitlines()
    moved = lines[:40] + lines[70:200] + lines[40:70] + lines[200:]
    late = [chance.randrange(len(moved)) for _ in range(20)]
    moved = [line for n, line in enumerate(moved) if n not in late] + [moved[n] for n in sorted({*late})]
    numbered = []
    for seq, line in enumerate(moved, 1):
        fields = line.split(",")
        fields[0], fields[6] = str(int(fields[0]) // 4_000_000 * 4_000_000), str(seq)
        numbered.append(",".join(fields))
    path.write_text("\n".join([header, *numbered]) + "\n")
    deliver(session)
    order = sorted((int(line.split(",")[0]), int(line.split(",")[6])) for line in numbered)
    for source in ("questdb", "csv"):
        rows = reading(session, source).prices("BTC_USDT")
        assert rows.table()["seq"].to_pylist() == [seq for _, seq in order]
        assert pa.Table.from_batches(rows.batches(33)).equals(rows.table())


def test_the_csv_serves_where_questdb_lacks_something(
    delivered: Any,
    make_session: Callable[..., Any],
    reading: Callable[..., Any],
    record_files: Callable[[Any], None],
) -> None:
    """Never delivered, still running, or a row of it refused: and it says so."""
    assert reading(delivered).source == "questdb"
    manifest = load_manifest(delivered.directory)
    delivered.append(PRICES, "ETH_USDT", [delivered.lines(PRICES, "ETH_USDT")[-1].replace(",360,", ",361,")])
    next(file for file in manifest.files if (file.stream, file.symbol) == ("prices", "ETH_USDT")).rows += 1
    save_manifest(delivered.directory, manifest, OperatingSystem())
    rows = reading(delivered).prices()
    assert (rows.source, rows.why) == ("csv", "QuestDB does not have prices ETH_USDT whole")
    assert len(rows) == 721
    assert reading(delivered).prices("BTC_USDT").source == "questdb"
    assert reading(delivered).source == "csv"
    with pytest.raises(DatabaseUnavailable, match="ETH_USDT whole"):
        reading(delivered, "questdb").prices()
    running = make_session(state="active")
    running.write_market("BTC_USDT")
    assert reading(running).prices().why == "the session is active"
    never = make_session()
    never.write_market("BTC_USDT")
    record_files(never)
    (never.directory / "cursor.json").unlink()
    assert reading(never).prices().why == "it was never delivered to QuestDB"


def test_a_database_that_goes_away_costs_nothing(delivered: Any, reading: Callable[..., Any], free_port: int) -> None:
    """What was to come from QuestDB comes from the CSV."""
    session = reading(delivered)
    rows = session.prices()
    assert rows.source == "questdb"
    config = session._database._config
    gone = config.questdb.model_copy(update={"pg_port": free_port, "ilp_port": free_port})
    session._database._config = config.model_copy(update={"questdb": gone})
    assert len(rows) == 720
    assert rows.source == "csv"
    assert "cannot be reached" in rows.why


def test_released_rows_come_from_questdb(delivered: Any, reading: Callable[..., Any]) -> None:
    """The rest comes from the CSV, and all of it is in one order."""
    expected = reading(delivered).prices("BTC_USDT").table()
    path = delivered.path(PRICES, "BTC_USDT")
    header, *lines = path.read_text().splitlines(keepends=True)
    manifest = load_manifest(delivered.directory)
    record = manifest.record("prices", "BTC_USDT")
    assert record is not None
    record.released = Released(150, 150, START_US, int(lines[149].split(",")[0]))
    manifest.state = "active"
    save_manifest(delivered.directory, manifest, OperatingSystem())
    path.write_text(header + "".join(lines[140:]))  # whoever deletes them was interrupted
    rows = reading(delivered).prices("BTC_USDT")
    assert rows.source == "both"
    assert rows.table().equals(expected)
    assert pa.Table.from_batches(rows.batches(77)).equals(expected)
    with pytest.raises(LogError, match="released"):
        reading(delivered).prices("BTC_USDT", exact=True)
    with pytest.raises(DatabaseUnavailable):
        reading(delivered, database=False).prices("BTC_USDT").table()


def test_sessions_of_both_stores_are_listed_together(
    delivered: Any, make_session: Callable[..., Any], questdb: Any, tmp_path: Path
) -> None:
    """Those that only QuestDB has can be opened, too."""
    from collector.storage.sessions import SessionRow, SessionRows

    rows = SessionRows(lambda: questdb.settings)
    other = make_session(state="active")
    for one, directory in ((delivered, "here"), (other, "here")):
        assert directory
        rows.upsert(
            SessionRow(
                session_id=one.session_id, status="completed", exchange="sim", symbols=tuple(one.symbols),
                data_types=("prices",), created_us=START_US, prices_count=720,
            )
        )  # fmt: skip
    config = Config(
        daemon=Daemon(data_dir=tmp_path / "elsewhere"), questdb=questdb.settings.model_copy(update={"mode": "external"})
    )
    with pytest.raises(SessionNotFound):
        collector.open_session("nothing-of-that-name", config=config)
    found: list[str] = []
    for _ in range(200):
        found = [one.session_id for one in collector.sessions(config=config)]
        if {delivered.session_id, other.session_id} <= {*found}:
            break
    assert {delivered.session_id, other.session_id} <= {*found}
    session = collector.open_session(delivered.session_id, config=config)
    assert (session.directory, session.source) == (None, "questdb")
    assert (
        session.prices()
        .table()
        .equals(
            collector.open_session(
                delivered.directory.name.removeprefix("session_"), delivered.directory.parent, config=config
            )
            .prices()
            .table()
        )
    )
    with pytest.raises(UsageError, match="digits"):
        session.prices(exact=True)
    here = collector.sessions(delivered.directory.parent, config=config, symbol="ETH_USDT", state="completed")
    assert [one.session_id for one in here if one.directory] == [delivered.session_id]


def test_wrong_requests_name_what_there_is(delivered: Any, reading: Callable[..., Any]) -> None:
    """With the nearest names."""
    session = reading(delivered, database=False)
    with pytest.raises(UnknownName, match="BTC_USDT"):
        session.prices("BTC_USD")
    with pytest.raises(UnknownName, match="price"):
        session.prices(columns=["prise"])
    with pytest.raises(UnknownName, match="candles"):
        session.ohlcv("BTC_USDT", "7m")
    with pytest.raises(UnknownName, match="orderbook"):
        session.stream("order_book")
    with pytest.raises(UsageError, match="no time"):
        session.prices(start="yesterday")
    with pytest.raises(UsageError, match="at least one"):
        session.prices().batches(0)


def test_a_damaged_file_is_named(make_session: Callable[..., Any], reading: Callable[..., Any]) -> None:
    """And the database's error is not the reader's."""
    session = make_session()
    session.write_market("BTC_USDT")
    session.append(PRICES, "BTC_USDT", ["1,2,3"])
    with pytest.raises(LogError, match=r"prices\.csv cannot be read"):
        reading(session, database=False).prices().table()
