"""What is exported is what was collected: read back by the libraries that it is for."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.ipc
import pyarrow.parquet as parquet
import pytest

import collector
from collector.config import Config, Daemon, QuestDB
from collector.errors import UnknownName, UsageError
from collector.reading.export.exporting import Form, Wanted, export_session
from collector.reading.export.partitions import ExportFolder
from collector.session.manifest import load_manifest, save_manifest
from collector.storage.files import OperatingSystem
from collector.streams import GAPS, ORDERBOOK, PRICES

DAY_US = 86_400_000_000
SYMBOLS = ("BTC_USDT", "ETH_USDT")


@pytest.fixture
def session(make_session: Callable[..., Any], record_files: Callable[[Any], None], gap_line: Callable[..., str]) -> Any:
    """Give a session of two symbols over three days."""
    session = make_session(SYMBOLS)
    for symbol in SYMBOLS:
        session.write_market(symbol)
        for stream in (PRICES, ORDERBOOK):
            lines = [line.split(",") for line in session.lines(stream, symbol)]
            received = [column.name for column in stream.columns].index("received_at")
            for n, fields in enumerate(lines):
                fields[0] = str(int(fields[0]) + n * 3 // len(lines) * DAY_US)
                fields[received] = str(int(fields[0]) + 1000 + n % 7 * 300)
            path = session.path(stream, symbol)
            path.write_text(stream.header + "".join(",".join(fields) + "\n" for fields in lines))
    session.append(GAPS, None, [gap_line(1, "sequence", "prices", "BTC_USDT", (5, 7))])
    record_files(session)
    return session


@pytest.fixture
def opened(session: Any) -> Any:
    return reader_of(session)


def reader_of(session: Any) -> Any:
    config = Config(daemon=Daemon(data_dir=session.directory.parent), questdb=QuestDB(mode="off"))
    return collector.open_session(session.session_id, config=config)


def run(reader: Any, form: Form, folder: Path, **wanted: Any) -> Any:
    return export_session(reader, Wanted(form, **wanted), folder, lambda *_: None)


def read_table(path: Path) -> Any:
    if path.suffix == ".parquet":
        return parquet.read_table(path)
    with pa.ipc.open_file(path) as file:
        return file.read_all()


@pytest.mark.parametrize("form", ["parquet", "arrow"])
def test_tables_are_those_of_the_session(opened: Any, tmp_path: Path, form: Form) -> None:
    """A file per stream, symbol and day: together they are all rows, in their order."""
    report = run(opened, form, tmp_path / "out")
    for name in ("prices", "orderbook", "ohlcv"):
        for symbol in SYMBOLS:
            files = sorted((tmp_path / "out" / name / symbol).iterdir())
            tables = [read_table(file) for file in files]
            assert pa.concat_tables(tables).equals(opened.stream(name, symbol).table())
            for file, table in zip(files, tables, strict=True):
                assert {str(at.date()) for at in table["timestamp"].to_pylist()} == {file.stem}
    assert read_table(tmp_path / "out" / f"gaps.{form}").equals(opened.gaps().table())
    assert len(list((tmp_path / "out" / "prices" / "BTC_USDT").iterdir())) == 3
    assert report.source == "csv"
    assert not list((tmp_path / "out").rglob("*.tmp"))


def test_checksums_are_those_that_sha256sum_checks(opened: Any, tmp_path: Path) -> None:
    """Of every file but themselves and the index."""
    run(opened, "parquet", tmp_path / "out")
    lines = (tmp_path / "out" / "SHA256SUMS").read_text().splitlines()
    named = {line[66:]: line[:64] for line in lines}
    files = {str(path.relative_to(tmp_path / "out")) for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert files - {"SHA256SUMS", "export.json"} == {*named}
    assert all(hashlib.sha256((tmp_path / "out" / name).read_bytes()).hexdigest() == named[name] for name in named)


def test_csv_keeps_the_exchanges_digits(opened: Any, session: Any, tmp_path: Path) -> None:
    """And times as integer microseconds, as the session's own files."""
    run(opened, "csv", tmp_path / "out", symbols=("ETH_USDT",), streams=("prices",))
    written: list[str] = []
    for path in sorted((tmp_path / "out" / "prices" / "ETH_USDT").iterdir()):
        header, *lines = path.read_text().splitlines()
        assert header == PRICES.header.strip().replace("timestamp,", "timestamp,symbol,")
        written += [line.replace(",ETH_USDT,", ",", 1) for line in lines]
    assert written == session.lines(PRICES, "ETH_USDT")
    assert not (tmp_path / "out" / "prices" / "BTC_USDT").exists()


def test_bounds_and_choices_are_kept_to(opened: Any, tmp_path: Path) -> None:
    """And what does not exist is refused before anything is written."""
    start = opened.prices("BTC_USDT").table()["timestamp"].cast("int64").to_pylist()[150]
    report = run(opened, "parquet", tmp_path / "out", symbols=("BTC_USDT",), streams=("prices",), from_us=start)
    tables = [parquet.read_table(path) for path in sorted((tmp_path / "out" / "prices" / "BTC_USDT").iterdir())]
    assert pa.concat_tables(tables).equals(opened.prices("BTC_USDT", start).table())
    assert report.rows == 210
    with pytest.raises(UnknownName):
        run(opened, "parquet", tmp_path / "other", symbols=("BTC_EUR",))
    with pytest.raises(UnknownName):
        run(opened, "parquet", tmp_path / "third", streams=("trades",))


def test_an_interrupted_export_goes_on(opened: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is done stays as it is, and the result is that of an undisturbed one."""
    whole = tmp_path / "whole"
    run(opened, "parquet", whole)

    class Killed(BaseException):
        """As Ctrl-C."""

    done = 0
    add = ExportFolder.add

    def die(folder: ExportFolder, *arguments: Any) -> None:
        nonlocal done
        done += 1
        if done % 4 == 0:
            raise Killed
        add(folder, *arguments)

    out = tmp_path / "out"
    attempts = 0
    with monkeypatch.context() as patched:
        patched.setattr(ExportFolder, "add", die)
        while attempts < 30:
            attempts += 1
            try:
                report = run(opened, "parquet", out)
            except Killed:
                kept = {path: path.stat().st_mtime_ns for path in out.rglob("2*.parquet")}
                assert not json.loads((out / "export.json").read_text())["complete"]
                assert not (out / "SHA256SUMS").exists()
            else:
                break
    assert attempts > 3
    assert report.resumed > 0
    assert kept
    index = json.loads((out / "export.json").read_text())
    assert index["complete"]
    assert (out / "SHA256SUMS").read_text() == (whole / "SHA256SUMS").read_text()
    assert run(opened, "parquet", out).resumed == len(index["partitions"])


def test_a_partition_that_was_damaged_is_written_again(opened: Any, tmp_path: Path) -> None:
    """One of another size, or none, is not done."""
    run(opened, "parquet", tmp_path / "out", streams=("prices",))
    sums = (tmp_path / "out" / "SHA256SUMS").read_text()
    first = min((tmp_path / "out" / "prices" / "ETH_USDT").iterdir())
    first.write_bytes(b"torn")
    report = run(opened, "parquet", tmp_path / "out", streams=("prices",))
    assert 0 < report.resumed < report.partitions
    assert (tmp_path / "out" / "SHA256SUMS").read_text() == sums


def test_another_export_is_not_mixed_in(opened: Any, session: Any, tmp_path: Path) -> None:
    """Neither into a folder of something else, nor into that of other rows; and a running session has no end."""
    run(opened, "parquet", tmp_path / "out")
    with pytest.raises(UsageError, match="another export"):
        run(opened, "csv", tmp_path / "out")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.tex").write_text("x")
    with pytest.raises(UsageError, match="not empty"):
        run(opened, "parquet", tmp_path / "mine")
    manifest = load_manifest(session.directory)
    manifest.state = "active"
    save_manifest(session.directory, manifest, OperatingSystem())
    with pytest.raises(UsageError, match="active"):
        run(reader_of(session), "parquet", tmp_path / "new")


def test_a_directory_that_is_mounted_read_only_can_be_exported(session: Any, tmp_path: Path) -> None:
    """Nothing in it is written, looked by a process of its own; the command line says where it went."""
    for path in (*session.directory.rglob("*"), session.directory, session.directory.parent):
        path.chmod(0o555 if path.is_dir() else 0o444)
    before = {path: path.stat().st_mtime_ns for path in session.directory.parent.rglob("*")}
    places = ["--data-dir", str(session.directory.parent), "--output", str(tmp_path / "out")]
    try:
        done = subprocess.run(
            [sys.executable, "-m", "collector", "export", session.session_id, *places, "--json"],
            cwd=tmp_path, capture_output=True, text=True, check=False, env={**os.environ, "QUESTDB_PG_PORT": "1"},
        )  # fmt: skip
        assert (done.returncode, done.stderr) == (0, "")
        assert json.loads(done.stdout)["rows"] > 700
        assert {path: path.stat().st_mtime_ns for path in session.directory.parent.rglob("*")} == before
    finally:
        for path in (session.directory.parent, *session.directory.parent.rglob("*")):
            path.chmod(0o755 if path.is_dir() else 0o644)


def test_nautilus_trader_reads_its_catalogue(opened: Any, tmp_path: Path) -> None:
    """Every trade and every whole quote, with both times, to the digit."""
    from nautilus_trader.model.data import QuoteTick, TradeTick
    from nautilus_trader.model.enums import AggressorSide
    from nautilus_trader.persistence.catalog import ParquetDataCatalog

    run(opened, "nautilus", tmp_path / "out")
    catalog = ParquetDataCatalog(str(tmp_path / "out"))
    assert sorted(str(instrument.id) for instrument in catalog.instruments()) == ["BTC_USDT.SIM", "ETH_USDT.SIM"]
    for symbol in SYMBOLS:
        trades = catalog.query(TradeTick, [f"{symbol}.SIM"])
        rows = opened.prices(symbol, exact=True).table().to_pylist()
        rows.sort(key=lambda row: row["received_at"])
        assert [t.trade_id.value for t in trades] == [row["trade_id"] for row in rows]
        assert [(t.price.as_decimal(), t.size.as_decimal()) for t in trades] == [
            (Decimal(row["price"]), Decimal(row["volume"])) for row in rows
        ]
        assert [t.aggressor_side == AggressorSide.BUYER for t in trades] == [row["side"] == "buy" for row in rows]
        assert [(t.ts_event, t.ts_init) for t in trades] == [(ns(r["timestamp"]), ns(r["received_at"])) for r in rows]
        quotes = catalog.query(QuoteTick, [f"{symbol}.SIM"])
        books = sorted(opened.orderbook(symbol).table().to_pylist(), key=lambda row: row["received_at"])
        assert [(q.bid_price.as_double(), q.ask_price.as_double(), q.bid_size.as_double()) for q in quotes] == [
            (b["bid_price_1"], b["ask_price_1"], b["bid_qty_1"]) for b in books
        ]


def ns(at: Any) -> int:
    return round(at.timestamp() * 1_000_000) * 1000


Seen = tuple[int, float, float]


def play(files: list[Path], tick_size: float = 0.001) -> tuple[list[Seen], tuple[float, ...]]:
    """Have hftbacktest play event arrays: the trades that a strategy sees, and the best prices at the end."""
    from hftbacktest import BacktestAsset, HashMapMarketDepthBacktest
    from hftbacktest.types import TRADE_EVENT

    data = [np.load(path)["data"] for path in files]
    asset = (
        BacktestAsset().data(data).linear_asset(1.0).constant_order_latency(0, 0).no_partial_fill_exchange()
        .trading_value_fee_model(0, 0).risk_adverse_queue_model()
        .tick_size(tick_size).lot_size(0.00001).last_trades_capacity(100_000)
    )  # fmt: skip
    backtest = HashMapMarketDepthBacktest([asset])
    seen: list[Seen] = []
    goes_on = True
    try:
        while goes_on:
            goes_on = backtest.elapse(3_600_000_000_000) == 0
            trades = backtest.last_trades(0)
            assert all(trade["ev"] & 0xFF == TRADE_EVENT for trade in trades)
            seen += [(int(trade["exch_ts"]), float(trade["px"]), float(trade["qty"])) for trade in trades]
            backtest.clear_last_trades(0)
        depth = backtest.depth(0)
        return seen, (depth.best_bid, depth.best_bid_qty, depth.best_ask, depth.best_ask_qty)
    finally:
        backtest.close()


def test_hftbacktest_plays_its_arrays(opened: Any, tmp_path: Path) -> None:
    """It sees every trade with the exchange's time, and ends with the last book."""
    from hftbacktest.data import validate_event_order

    run(opened, "hftbacktest", tmp_path / "out", symbols=("BTC_USDT",))
    files = sorted((tmp_path / "out" / "BTC_USDT").glob("*.npz"))
    assert len(files) == 3
    for path in files:
        validate_event_order(np.load(path)["data"])
    seen, best = play(files)
    rows = opened.prices("BTC_USDT").table().to_pylist()
    assert sorted(seen) == sorted((ns(row["timestamp"]), row["price"], row["volume"]) for row in rows)
    last = opened.orderbook("BTC_USDT").table().to_pylist()[-1]
    assert best == pytest.approx(tuple(last[name] for name in ("bid_price_1", "bid_qty_1", "ask_price_1", "ask_qty_1")))


def test_a_clock_that_was_behind_is_shifted(session: Any, tmp_path: Path) -> None:
    """By as little as makes no receipt earlier than the exchange's time, the same for all days."""
    path = session.path(PRICES, "BTC_USDT")
    lines = [line.split(",") for line in session.lines(PRICES, "BTC_USDT")]
    for fields in lines:
        fields[7] = str(int(fields[7]) - 2_001_000)
    path.write_text(PRICES.header + "".join(",".join(fields) + "\n" for fields in lines))
    report = run(reader_of(session), "hftbacktest", tmp_path / "out", symbols=("BTC_USDT",))
    assert report.notes == {"book": {"BTC_USDT": "orderbook"}, "local_shift_ns": 2_000_000_000}
    for file in (tmp_path / "out" / "BTC_USDT").glob("*.npz"):
        events = np.load(file)["data"]
        assert (events["local_ts"] >= events["exch_ts"]).all()
