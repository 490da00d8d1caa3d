"""``verify`` proves equality, and names whatever is not equal."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable
from typing import Any

import pytest

from collector.config import QuestDB
from collector.errors import DatabaseUnavailable, ManifestError
from collector.reading.csv_rows import read_rows
from collector.reading.verify import verify_session
from collector.session.manifest import FileRecord, load_manifest, save_manifest
from collector.storage.files import OperatingSystem
from collector.storage.ilp import Encoder
from collector.streams import GAPS, OHLCV, ORDERBOOK, PRICES, book_stream

MakeSession = Callable[..., Any]


@pytest.fixture
def delivered(make_session: MakeSession, database: Any) -> Any:
    """Give a session whose rows are all in QuestDB."""
    session = make_session(["BTC_USDT", "ETH_USDT"])
    for symbol in session.symbols:
        session.write_market(symbol)
    database.send(*session.bodies())
    return session


def test_a_delivered_session_agrees(delivered: Any, database: Any) -> None:
    """Every row of every stream is compared, and every candle."""
    report = verify_session(delivered.directory, database.settings)
    assert report.agrees, report.text()
    counts = {(part.stream, part.symbol): (part.rows, part.equal_rows) for part in report.streams}
    assert counts["prices", "BTC_USDT"] == (360, 360)
    assert counts["orderbook", "ETH_USDT"] == (200, 200)
    assert counts["ohlcv", "BTC_USDT"][0] == counts["ohlcv", "BTC_USDT"][1] + 0
    assert [part.candles for part in report.candles] == [19, 19]
    assert "equal." in report.text()


@pytest.mark.parametrize(
    ("stream", "column", "pattern"),
    [
        (PRICES, "price", r"^(\d+,)(\d+\.\d\d)(,0\.03005,)"),
        (PRICES, "received_at", r"^(.*,33,)(\d+)(,ws)"),
        (PRICES, "trade_id", r"^(.*,buy,)(1050)(,)"),
        (PRICES, "last_raw_id", r"^(.*,33,\d+,ws,\d+,)(\d+)()$"),
        (ORDERBOOK, "bid_qty_1", r"^(\d+,[\d.]+,)(1\.77)(,)"),
        (ORDERBOOK, "update_id", r"^(.*,)(5123)(,123,)"),
        (OHLCV, "volume", r"^(\d+,1m,(?:[\d.]+,){4})([\d.]+)(,.*,3)$"),
    ],
)
def test_one_changed_digit_in_a_csv_is_found_and_named(
    delivered: Any, database: Any, stream: Any, column: str, pattern: str
) -> None:
    """Stream, symbol, row, column and both values are in the report."""
    lines = delivered.lines(stream, "BTC_USDT")
    line, match = next((line, match) for line in lines if (match := re.match(pattern, line)))
    old = match[2]
    new = old[:-1] + str((int(old[-1]) + 1) % 10)
    delivered.replace(stream, "BTC_USDT", line, line[: match.start(2)] + new + line[match.end(2) :])
    seq = int(line.split(",")[stream.seq_index])
    report = verify_session(delivered.directory, database.settings)
    assert not report.agrees
    found = [d for d in report.differences() if d.reason == "value"]
    assert [(d.stream, d.symbol, d.seq, d.column, d.csv) for d in found] == [
        (stream.name, "BTC_USDT", seq, column, new)
    ]
    assert found[0].other is not None
    assert float(found[0].other) == float(old)
    assert f"{stream.name} BTC_USDT seq {seq}: {column} is {new} in the CSV" in report.text()


def test_a_row_missing_in_questdb_is_found_and_named(make_session: MakeSession, database: Any) -> None:
    """A row that never arrived is named by its number."""
    session = make_session()
    session.write_market("BTC_USDT")
    bodies = [
        b"".join(line for line in body.splitlines(keepends=True) if b" seq=77i" not in line)
        for body in session.bodies()
    ]
    database.send(*bodies)
    report = verify_session(session.directory, database.settings)
    missing = [(d.stream, d.seq) for d in report.differences()]
    assert missing == [("prices", 77), ("orderbook", 77)]
    assert "prices BTC_USDT seq 77: the row is in the CSV and not in QuestDB." in report.text()


@pytest.mark.parametrize(
    ("change", "seq"),
    [
        pytest.param(lambda text: text.replace(" seq=50i", " seq=9999i"), 9999, id="a number behind the last"),
        pytest.param(lambda text: text.replace(" seq=50i", " seq=0i"), 0, id="a number before the first"),
        pytest.param(lambda text: re.sub(r" \d+$", " 1600000000000000", text), 50, id="another time, same number"),
        pytest.param(lambda text: re.sub(r"(\d)$", lambda m: str((int(m[1]) + 1) % 10), text), 50, id="beside"),
        pytest.param(lambda text: text.replace("exchange=sim", "exchange=other").replace("seq=50i", "seq=51i"), 51,
                     id="another exchange"),
    ],
)  # fmt: skip
def test_a_row_too_many_in_questdb_is_found_and_named(
    delivered: Any, database: Any, change: Callable[[str], str], seq: int
) -> None:
    """Wherever the stray row stands, in number or in time."""
    line = next(line for line in delivered.bodies()[0].decode().splitlines() if " seq=50i" in line)
    stray = change(line)
    if "exchange=other" in stray:
        stray = re.sub(r" \d+$", lambda m: f" {int(m[0]) + 1}", stray)
    database.send(stray.encode() + b"\n")
    report = verify_session(delivered.directory, database.settings)
    assert [(d.reason, d.stream, d.seq) for d in report.differences()] == [("extra", "prices", seq)]


class TestDeepBooks:
    """A book of five levels: three in columns, all of them in arrays."""

    @pytest.fixture
    def deep(self, make_session: MakeSession, database: Any) -> Any:
        """Give a delivered session; of every fourth row a side has two levels, of every tenth none."""
        session = make_session()
        stream = book_stream(5)
        for n in range(1, 101):
            bids = ["", ""] * 5 if n % 10 == 0 else [text for k in range(5) for text in (f"{90 - k}.{n:03d}", f"{k}.5")]
            asks = [text for k in range(5) for text in (("", "") if n % 4 == 0 and k > 1 else (f"{91 + k}.1", f"{n}"))]
            fields = [1_700_006_400_000_000 + n * 100_000, *bids, *asks, 5000 + n, n, n]
            session.append(stream, "BTC_USDT", [",".join(map(str, fields))])
        tags = {"session_id": session.session_id, "exchange": "sim", "symbol": "BTC_USDT"}
        content = "".join(line + "\n" for line in session.lines(stream, "BTC_USDT")).encode()
        session.body = Encoder(stream, tags).encode(content).body
        return session

    def test_every_level_is_compared(self, deep: Any, database: Any) -> None:
        """A delivered deep book agrees, whoever reads it by its header; three levels are what others see."""
        database.send(deep.body)
        report = verify_session(deep.directory, database.settings)
        assert report.agrees, report.text()
        assert [(p.rows, p.equal_rows) for p in report.streams if p.stream == "orderbook"] == [(100, 100)]
        assert len(next(read_rows(deep.directory, ORDERBOOK, "BTC_USDT"))) == len(ORDERBOOK.columns)

    @pytest.mark.parametrize(
        ("old", "new", "column"),
        [("86.033", "86.034", "bid_5"), (",95.1,33,", ",95.1,34,", "ask_qty_5"), ("88.033", "88.034", "bid_3")],
    )
    def test_one_changed_digit_of_any_level_is_named(
        self, deep: Any, database: Any, old: str, new: str, column: str
    ) -> None:
        """Of the levels beyond the third, too."""
        database.send(deep.body)
        line = deep.lines(ORDERBOOK, "BTC_USDT")[32]
        deep.replace(ORDERBOOK, "BTC_USDT", line, line.replace(old, new))
        report = verify_session(deep.directory, database.settings)
        assert [(d.reason, d.seq, d.column) for d in report.differences()] == [("value", 33, column)]

    def test_an_array_that_is_not_what_the_columns_are_is_named(self, deep: Any, database: Any) -> None:
        """And one that is missing, or has a level too many."""
        rows = list(split_rows(deep.body))
        rows[4] = rows[4].replace(struct.pack("<d", 90.005), struct.pack("<d", 91.005))
        rows[6] = re.sub(rb",asks==.*(?= \d+\n)", b"", rows[6], flags=re.DOTALL)
        more = struct.pack("<12d", 1, 2, 3, 4, 5, 6, 1, 2, 3, 4, 5, 6)
        rows[8] = re.sub(
            rb",asks==.*(?= \d+\n)",
            lambda _: b",asks==\x0e\x0a\x02" + struct.pack("<II", 2, 6) + more,
            rows[8],
            flags=re.DOTALL,
        )
        database.send(b"".join(rows))
        report = verify_session(deep.directory, database.settings)
        assert {(d.seq, d.column) for d in report.differences() if d.seq == 5} == {(5, "bid_1")}
        assert {d.seq for d in report.differences()} == {5, 7, 9}


def split_rows(body: bytes) -> list[bytes]:
    """Cut a body at the begin of each row: what stands in an array may be the end of a line."""
    begins = [match.start() for match in re.finditer(rb"tick_orderbook,", body)]
    return [body[begin:end] for begin, end in zip(begins, [*begins[1:], len(body)], strict=True)]


def test_rows_of_a_symbol_without_any_file_are_found(make_session: MakeSession, database: Any) -> None:
    """A file that is gone leaves its rows in QuestDB as too many."""
    session = make_session()
    session.write_market("BTC_USDT")
    database.send(*session.bodies())
    session.path(ORDERBOOK, "BTC_USDT").unlink()
    report = verify_session(session.directory, database.settings)
    part = next(part for part in report.streams if part.stream == "orderbook")
    assert part.findings.count == 200
    assert len(part.findings.named) == 20
    assert "and 180 more" in report.text()


def test_a_row_that_was_rejected_is_accounted_for(make_session: MakeSession, database: Any) -> None:
    """What stands in ``rejected.csv`` need not stand in QuestDB."""
    session = make_session()
    session.write_market("BTC_USDT")
    prices, *rest = session.bodies()
    database.send(*rest, b"".join(line for line in prices.splitlines(keepends=True) if b" seq=77i" not in line))
    line = session.lines(PRICES, "BTC_USDT")[76]
    (session.directory / "rejected.csv").write_text(
        f'stream,symbol,seq,reason,row\nprices,BTC_USDT,77,"bad, it says","{line}"\n'
    )
    report = verify_session(session.directory, database.settings)
    assert report.agrees, report.text()
    assert report.streams[0].rejected == 1


def test_a_revised_candle_needs_only_its_last_row(make_session: MakeSession, database: Any) -> None:
    """Rows that a later one of their key replaced are counted, not missed."""
    session = make_session()
    session.write_market("BTC_USDT")
    lines = session.lines(OHLCV, "BTC_USDT")
    fields = lines[0].split(",")
    fields[-2:] = ["1", str(len(lines) + 1)]
    session.append(OHLCV, "BTC_USDT", [",".join(fields)])
    database.send(*session.bodies())
    report = verify_session(session.directory, database.settings)
    assert report.agrees, report.text()
    assert [part.replaced for part in report.streams if part.stream == "ohlcv"] == [1]


def test_an_older_revision_in_questdb_is_found(make_session: MakeSession, database: Any) -> None:
    """The last row of a key must be the one that shows."""
    session = make_session()
    session.write_market("BTC_USDT")
    database.send(*session.bodies())
    lines = session.lines(OHLCV, "BTC_USDT")
    fields = lines[0].split(",")
    fields[-2:] = ["1", str(len(lines) + 1)]
    session.append(OHLCV, "BTC_USDT", [",".join(fields)])
    report = verify_session(session.directory, database.settings)
    assert [(d.reason, d.seq) for d in report.differences()] == [("missing", len(lines) + 1), ("extra", 1)]


def test_numbers_that_the_ledger_lost_are_accounted_for(
    make_session: MakeSession, database: Any, gap_line: Callable[..., str]
) -> None:
    """A jump in ``seq`` is a difference, unless the ledger has it."""
    session = make_session()
    session.append(ORDERBOOK, "BTC_USDT", [line for n in (1, 2, 6, 7) for line in [_book(n)]])
    database.send(*session.bodies())
    report = verify_session(session.directory, database.settings)
    assert [(d.reason, d.seq, d.csv) for d in report.differences()] == [("jump", 6, "3 to 5")]
    session.append(GAPS, None, [gap_line(1, "log_damaged", "orderbook", "BTC_USDT", (3, 5))])
    database.send(*session.bodies())
    report = verify_session(session.directory, database.settings)
    assert report.agrees, report.text()
    assert [part.lost for part in report.streams if part.stream == "orderbook"] == [3]


def test_a_number_that_is_used_twice_is_found(make_session: MakeSession) -> None:
    """The log never does it; whoever edited the file did."""
    session = make_session()
    session.append(ORDERBOOK, "BTC_USDT", [_book(1), _book(2), _book(2), _book(3)])
    report = verify_session(session.directory, None)
    assert [(d.reason, d.seq) for d in report.differences()] == [("duplicate", 2)]


def test_a_running_session_is_compared_up_to_its_positions(make_session: MakeSession, database: Any) -> None:
    """What was written behind the positions counts in neither store."""
    session = make_session(state="active")
    session.write_market("BTC_USDT", finish=False)
    written = {
        (stream.name, "BTC_USDT"): len(session.lines(stream, "BTC_USDT")) for stream in (PRICES, ORDERBOOK, OHLCV)
    }
    positions = {**written, ("prices", "BTC_USDT"): 350, ("orderbook", "BTC_USDT"): 150}
    database.send(*session.bodies())
    with session.path(PRICES, "BTC_USDT").open("a") as file:
        file.write("17000064")  # a line that is being written
    report = verify_session(session.directory, database.settings, positions=positions)
    assert report.agrees, report.text()
    counts = {part.stream: (part.rows, part.equal_rows) for part in report.streams}
    assert counts["prices"] == (350, 350)
    assert counts["orderbook"] == (150, 150)
    assert report.candles[0].waiting > 0


def test_a_running_session_may_have_replaced_a_key_meanwhile(make_session: MakeSession, database: Any) -> None:
    """A later revision in QuestDB, behind the position, is no loss of the earlier one."""
    session = make_session(state="active")
    session.write_market("BTC_USDT", finish=False)
    count = len(session.lines(OHLCV, "BTC_USDT"))
    fields = session.lines(OHLCV, "BTC_USDT")[0].split(",")
    fields[-2:] = ["1", str(count + 1)]
    session.append(OHLCV, "BTC_USDT", [",".join(fields)])
    database.send(*session.bodies())
    positions = {("prices", "BTC_USDT"): 360, ("orderbook", "BTC_USDT"): 200, ("ohlcv", "BTC_USDT"): count}
    report = verify_session(session.directory, database.settings, positions=positions)
    assert report.agrees, report.text()
    assert [part.replaced for part in report.streams if part.stream == "ohlcv"] == [1]


def test_candles_that_the_trades_do_not_bear_out_are_found(make_session: MakeSession) -> None:
    """A digit changed in a candle is found without any database, in the minute itself."""
    session = make_session()
    session.write_market("BTC_USDT")
    line = session.lines(OHLCV, "BTC_USDT")[0]
    fields = line.split(",")
    truth, fields[8] = fields[8], str(int(fields[8]) + 1)
    session.replace(OHLCV, "BTC_USDT", line, ",".join(fields))
    report = verify_session(session.directory, None)
    found = [(d.reason, d.seq, d.column, d.csv, d.other) for d in report.differences()]
    assert found == [("candle", 1, "trades_count", fields[8], truth)]
    assert not report.agrees


def test_a_candle_that_is_missing_or_too_many_is_found(make_session: MakeSession) -> None:
    """Every bucket with trades has its candle in a session that ended, and no other has one."""
    session = make_session()
    session.write_market("BTC_USDT")
    lines = session.lines(OHLCV, "BTC_USDT")
    stray = lines[0].split(",")
    stray[0] = str(int(stray[0]) - 60_000_000)
    session.path(OHLCV, "BTC_USDT").unlink()
    session.append(OHLCV, "BTC_USDT", [",".join(stray), *lines[1:]])
    report = verify_session(session.directory, None)
    assert [(d.row.split()[0], d.csv is None, d.other is None) for d in report.differences()] == [
        ("1m", False, True),
        ("1m", True, False),
    ]


def test_a_changed_quote_volume_is_found_beyond_a_doubles_precision(make_session: MakeSession) -> None:
    """Price times volume is exact, to the last digit."""
    session = make_session()
    session.append(PRICES, "BTC_USDT", ["1,1.000000000000000001,3,3.000000000000000004,buy,1,1,1,ws,,"])
    report = verify_session(session.directory, None)
    difference = next(report.differences())
    assert (difference.column, difference.seq, difference.other) == ("quote_volume", 1, "3.000000000000000003")


def test_a_damaged_line_is_a_problem_that_names_it(make_session: MakeSession) -> None:
    """A file that cannot be read keeps the rest from being said equal."""
    session = make_session()
    session.append(ORDERBOOK, "BTC_USDT", [_book(1), "1,2,3"])
    report = verify_session(session.directory, None)
    assert not report.agrees
    assert "Line 3" in report.problems[0]


def test_without_a_database_the_report_says_so(make_session: MakeSession) -> None:
    """Nobody takes a check of the files alone for the whole proof."""
    session = make_session()
    session.write_market("BTC_USDT")
    report = verify_session(session.directory, None)
    assert report.agrees
    assert "no database was asked" in report.text()
    assert report.streams[0].equal_rows is None


def test_a_directory_without_a_manifest_is_refused(tmp_path: Any) -> None:
    """There is nothing to verify."""
    with pytest.raises(ManifestError):
        verify_session(tmp_path, None)


def test_a_database_that_does_not_answer_is_said_so(make_session: MakeSession, free_port: int) -> None:
    """An error of the connection is not a report."""
    session = make_session()
    with pytest.raises(DatabaseUnavailable):
        verify_session(session.directory, QuestDB(pg_port=free_port))


def test_progress_is_told(make_session: MakeSession) -> None:
    """Whoever waits is told what is being read, and how far it is."""
    session = make_session()
    session.write_market("BTC_USDT")
    told: list[tuple[str, int]] = []
    verify_session(session.directory, None, progress=lambda what, rows: told.append((what, rows)))
    assert ("prices BTC_USDT", 360) in told
    assert ("candles BTC_USDT", 360) in told


def _book(n: int) -> str:
    return f"{1_700_006_400_000_000 + n},1,1,,,,,2,1,,,,,{n},{n},5"


def release(session: Any, symbol: str, last_seq: int) -> None:
    """Delete the first trades of a symbol from the CSV, as the collector does once QuestDB has them."""
    lines = session.lines(PRICES, symbol)
    gone = [line for line in lines if int(line.split(",")[6]) <= last_seq]
    session.path(PRICES, symbol).unlink()
    session.append(PRICES, symbol, lines[len(gone) :])
    times = [int(line.split(",")[0]) for line in gone]
    manifest = load_manifest(session.directory)
    record = FileRecord("prices", symbol, f"{symbol}/prices.csv", rows=len(lines), next_seq=len(lines) + 1)
    record.release(last_seq, len(gone), min(times), max(times))
    manifest.files = [record]
    save_manifest(session.directory, manifest, OperatingSystem())


def test_released_rows_are_counted_in_questdb(delivered: Any, database: Any) -> None:
    """They are no jump and no extra; candles of their minutes are said to be of released trades."""
    release(delivered, "BTC_USDT", 100)
    report = verify_session(delivered.directory, database.settings)
    assert report.agrees, report.text()
    part = next(part for part in report.streams if (part.stream, part.symbol) == ("prices", "BTC_USDT"))
    assert (part.rows, part.equal_rows, part.released) == (260, 260, 100)
    candles = next(part for part in report.candles if part.symbol == "BTC_USDT")
    assert candles.released > 0
    assert candles.released + candles.candles == 19
    assert "100 released" in report.text()
    assert verify_session(delivered.directory, None).agrees


def test_released_rows_that_questdb_lost_are_found(make_session: MakeSession, database: Any) -> None:
    """Nobody has them any more, and verify says so."""
    session = make_session()
    session.write_market("BTC_USDT")
    bodies = [
        b"".join(line for line in body.splitlines(keepends=True) if b" seq=77i" not in line)
        for body in session.bodies()
    ]
    database.send(bodies[0])
    release(session, "BTC_USDT", 100)
    report = verify_session(session.directory, database.settings)
    found = [d for d in report.differences() if d.stream == "prices"]
    assert [d.reason for d in found] == ["released"]
    assert "of 100 rows that only QuestDB should have any more it has 99" in str(found[0])
