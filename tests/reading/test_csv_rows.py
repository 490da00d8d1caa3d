"""A session's CSV files are read back whole, in order, and not beyond what is there."""

from __future__ import annotations

import gzip
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from collector.candles.aggregator import Aggregator, Candle
from collector.errors import LogError
from collector.events import Trade
from collector.reading.csv_rows import (
    CsvHistory,
    look_up_trades,
    read_batches,
    read_rows,
    segments,
    stream_folder,
    symbols_in,
    to_ticks,
)
from collector.session.repair import content_of
from collector.session.rows import format_trades
from collector.streams import GAPS, OHLCV, ORDERBOOK, PRICES

MINUTE_US = 60_000_000
START_US = 1_700_006_400_000_000


def price(seq: int, time_us: int | None = None, source: str = "ws") -> str:
    at = START_US + seq * 1000 if time_us is None else time_us
    return f"{at},100.{seq:02d},2,{2 * (10000 + seq) / 100:.2f},buy,{seq + 7},{seq},{at + 3},{source},,\n"


def put(path: Path, lines: Sequence[str], header: str = PRICES.header) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    content = header + "".join(lines)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(content.encode()))
    else:
        path.write_text(content)


def seqs(directory: Path, **options: Any) -> list[int]:
    return [int(row[6]) for row in read_rows(directory, PRICES, "BTC_USDT", **options)]


def test_all_segments_are_read_in_order_then_the_live_file(tmp_path: Path) -> None:
    """Closed segments by their first number, compressed or not; of a plain one and its copy only one counts."""
    folder = tmp_path / "BTC_USDT"
    put(folder / "prices.csv", [price(n) for n in (7, 8)])
    put(folder / "prices.000000000004.csv.gz", [price(n) for n in (4, 5, 6)])
    put(folder / "prices.000000000001.csv", [price(n) for n in (1, 2, 3)])
    put(folder / "prices.000000000001.csv.gz", [price(1)])
    put(folder / "prices.old.csv", [price(99)])
    assert seqs(tmp_path) == [1, 2, 3, 4, 5, 6, 7, 8]
    assert [path.name for path in segments(tmp_path, PRICES, "BTC_USDT")] == [
        "prices.000000000001.csv", "prices.000000000004.csv.gz", "prices.csv",
    ]  # fmt: skip


def test_a_torn_tail_is_no_row(tmp_path: Path) -> None:
    """A line without its newline is still being written."""
    put(tmp_path / "BTC_USDT" / "prices.csv", [price(1), price(2)[:-1]])
    assert seqs(tmp_path) == [1]


@pytest.mark.parametrize("content", ["", PRICES.header[:-1], PRICES.header])
def test_a_file_that_holds_no_row_gives_none(tmp_path: Path, content: str) -> None:
    """Empty, torn in its header, or with nothing but it."""
    folder = tmp_path / "BTC_USDT"
    folder.mkdir()
    (folder / "prices.csv").write_text(content)
    assert seqs(tmp_path) == []


def test_a_stream_that_is_not_there_gives_none(tmp_path: Path) -> None:
    """Neither a missing folder nor a missing file is an error."""
    assert list(read_batches(tmp_path / "none", PRICES, "BTC_USDT")) == []
    assert symbols_in(tmp_path / "none", PRICES) == []


def test_reading_stops_at_a_durable_number(tmp_path: Path) -> None:
    """Rows behind the position are not looked at, in whichever segment it stands."""
    put(tmp_path / "BTC_USDT" / "prices.000000000001.csv", [price(n) for n in range(1, 11)])
    put(tmp_path / "BTC_USDT" / "prices.csv", [price(n) for n in range(11, 21)])
    assert seqs(tmp_path, until_seq=4) == [1, 2, 3, 4]
    assert seqs(tmp_path, until_seq=12) == list(range(1, 13))
    assert seqs(tmp_path, until_seq=0) == []
    assert seqs(tmp_path, until_seq=99) == list(range(1, 21))


def test_batches_say_where_they_stand(tmp_path: Path) -> None:
    """A batch is never longer than asked, and names its first line."""
    put(tmp_path / "BTC_USDT" / "prices.csv", [price(n) for n in range(1, 8)])
    batches = list(read_batches(tmp_path, PRICES, "BTC_USDT", batch_rows=3))
    assert [(batch.first_line, len(batch.rows)) for batch in batches] == [(2, 3), (5, 3), (8, 1)]


def test_fewer_or_more_columns_are_read_by_name(tmp_path: Path) -> None:
    """A file of an earlier or later version of ours has the columns that it has."""
    put(tmp_path / "A" / "prices.csv", ["1,5,2,10,7,x\n"], "timestamp,price,volume,quote_volume,seq,later\n")
    assert list(read_rows(tmp_path, PRICES, "A")) == [["1", "5", "2", "10", "", "", "7", "", "", "", ""]]


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    """The hint names the importer, which takes older files."""
    put(tmp_path / "A" / "prices.csv", ["1,2,3,4\n"], "timestamp,price,volume,quote_volume\n")
    with pytest.raises(LogError, match="collector import"):
        list(read_rows(tmp_path, PRICES, "A"))


def test_a_line_of_another_width_is_named(tmp_path: Path) -> None:
    """The error says which line of which file."""
    put(tmp_path / "BTC_USDT" / "prices.csv", [price(1), "1,2,3\n", price(3)])
    with pytest.raises(LogError, match=r"Line 3 of .*prices\.csv has 3 fields, its header 11"):
        seqs(tmp_path)


@pytest.mark.parametrize("content", [b"\xff\xfe\n", b"\x1f\x8bnot gzip at all"])
def test_bytes_that_are_no_text_are_an_error_that_names_the_file(tmp_path: Path, content: bytes) -> None:
    """Whatever stands in a file, the answer is rows or a LogError."""
    folder = tmp_path / "BTC_USDT"
    folder.mkdir()
    (folder / "prices.000000000001.csv.gz").write_bytes(content)
    (folder / "prices.csv").write_bytes(PRICES.header.encode() + content)
    with pytest.raises(LogError, match="prices"):
        seqs(tmp_path)


def test_quoted_fields_may_hold_commas(tmp_path: Path) -> None:
    """The ledger's detail is text; from the first quote on the csv module reads."""
    plain = f"{START_US},g1,A,prices,stall,,,,,,0,open,,calm,0,1\n"
    quoted = f'{START_US},g2,A,prices,stall,,,,,,0,open,,"a, ""b""",0,2\n'
    put(tmp_path / "gaps.csv", [plain, quoted, plain], GAPS.header)
    assert [row[13] for row in read_rows(tmp_path, GAPS)] == ["calm", 'a, "b"', "calm"]


def test_symbols_are_the_names_of_their_folders(tmp_path: Path) -> None:
    """Names that are unsafe as folders are found under their own names; folders without the stream are not."""
    put(stream_folder(tmp_path, PRICES, "A/B.C") / "prices.csv", [])
    put(stream_folder(tmp_path, PRICES, "BTC_USDT") / "orderbook.csv", [], ORDERBOOK.header)
    assert symbols_in(tmp_path, PRICES) == ["A/B.C"]


def test_rows_become_the_trades_they_were(tmp_path: Path) -> None:
    """Every field comes back; a missing quote volume is worked out."""
    put(tmp_path / "X" / "prices.csv", ["5,1.50,2,,sell,77,1,6,rest,10,12\n", "6,1,3,3.0,buy,t9,2,,,,\n"])
    ticks = to_ticks("X", list(read_rows(tmp_path, PRICES, "X")))
    first, second = ticks.trades
    assert (first.price, first.side, first.trade_id, first.source, first.last_raw_id) == (
        "1.50",
        "sell",
        "77",
        "rest",
        12,
    )
    assert (second.received_us, second.source, second.first_raw_id) == (0, "ws", None)
    assert list(map(str, ticks.quotes)) == ["3.00", "3.0"]
    assert ticks.seqs == [1, 2]


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(st.binary(max_size=400), st.booleans())
def test_any_bytes_give_rows_or_a_log_error(tmp_path: Path, content: bytes, with_header: bool) -> None:
    """Nothing else ever leaves the reader."""
    folder = tmp_path / "BTC_USDT"
    folder.mkdir(exist_ok=True)
    (folder / "prices.csv").write_bytes((PRICES.header.encode() if with_header else b"") + content)
    try:
        rows = list(read_rows(tmp_path, PRICES, "BTC_USDT"))
    except LogError:
        return
    assert all(len(row) == len(PRICES.columns) for row in rows)


class TestHistory:
    """The aggregator's view of a symbol's log."""

    @pytest.fixture
    def history(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., CsvHistory]:
        """Make histories that are searched in stretches of a few rows, so that small files have many."""
        monkeypatch.setattr("collector.reading.csv_rows._TAIL_BYTES", 400)

        def make(*files: tuple[str, Sequence[str]], header: str = PRICES.header) -> CsvHistory:
            for name, lines in files:
                put(tmp_path / "BTC_USDT" / name, lines, header)
            return CsvHistory(tmp_path, "BTC_USDT")

        return make

    @staticmethod
    def found(history: CsvHistory, from_us: int) -> list[int]:
        return [seq for ticks in history.tail(from_us) for seq in ticks.seqs]

    def test_an_empty_log_has_no_times(self, history: Callable[..., CsvHistory]) -> None:
        """None is the answer, not zero."""
        empty = history()
        assert empty.first_timestamp_us() is None
        assert empty.last_timestamp_us() is None
        assert self.found(empty, 0) == []

    def test_first_and_last_time(self, history: Callable[..., CsvHistory]) -> None:
        """The newest trade is not always the last one."""
        log = history(
            ("prices.000000000001.csv.gz", [price(n) for n in range(1, 40)]),
            ("prices.csv", [price(40, START_US + 10), price(41, START_US + 9)]),
        )
        assert log.first_timestamp_us() == START_US + 1000
        assert log.last_timestamp_us() == START_US + 10

    @pytest.mark.parametrize("wanted", [1, 2, 55, 99, 100])
    def test_the_tail_has_everything_from_a_time_on(self, history: Callable[..., CsvHistory], wanted: int) -> None:
        """Over segments, without reading what is much older."""
        log = history(
            ("prices.000000000001.csv.gz", [price(n) for n in range(1, 31)]),
            ("prices.000000000031.csv", [price(n) for n in range(31, 71)]),
            ("prices.csv", [price(n) for n in range(71, 101)]),
        )
        found = self.found(log, START_US + wanted * 1000)
        assert found == list(range(found[0], 101))
        assert max(1, wanted - 40) <= found[0] <= wanted

    def test_the_tail_looks_past_what_a_repair_added(self, history: Callable[..., CsvHistory]) -> None:
        """Rows from REST are of any age: a long stretch of old ones hides no newer trade before it."""
        recent = [price(n, START_US + MINUTE_US * 60 + n) for n in range(1, 21)]
        repaired = [price(n, START_US + n, "rest") for n in range(21, 121)]
        log = history(("prices.csv", recent + repaired))
        assert self.found(log, START_US + MINUTE_US * 60) == list(range(1, 121))
        assert log.last_timestamp_us() == START_US + MINUTE_US * 60 + 20

    def test_candles_are_found_behind_revisions_of_old_ones(self, history: Callable[..., CsvHistory]) -> None:
        """Neither revisions nor long intervals are taken for the end of the search."""

        def row(seq: int, minute: int, interval: str = "1m", revision: int = 0) -> str:
            start = START_US + minute * MINUTE_US
            return Candle(
                start, interval, "1", "1", "1", "1", "1", "1", 1, "1", "a", "b", True, "full", "ws", revision
            ).line(seq)

        lines = [row(n, n) for n in range(1, 61)]
        lines += [row(n, n - 60, revision=1) for n in range(61, 100)] + [row(n, 0, "1d", n) for n in range(100, 130)]
        log = history(("ohlcv.csv", lines), header=OHLCV.header)
        found = [candle.timestamp_us for candle in log.candles(START_US + 50 * MINUTE_US)]
        assert set(range(50, 61)) <= {(time - START_US) // MINUTE_US for time in found}
        assert len(found) < len(lines)

    def test_a_file_that_cannot_be_read_is_an_error(self, history: Callable[..., CsvHistory]) -> None:
        """Bytes that are no text do not pass for an end."""
        log = history(("prices.csv", [price(1)]))
        path = segments(log._directory, PRICES, "BTC_USDT")[0]
        path.write_bytes(path.read_bytes() + b"\xff\n")
        with pytest.raises(LogError):
            log.last_timestamp_us()

    def test_candles_are_taken_up_from_the_files(self, tmp_path: Path, history: Callable[..., CsvHistory]) -> None:
        """A process that finds the files ends with the candles of one that never stopped."""
        trades = [price(n, START_US + n * 7_000_000, "rest" if n % 50 == 0 else "ws") for n in range(1, 400)]

        def run(restart_after: int | None) -> dict[tuple[str, int], Candle]:
            folder = tmp_path / str(restart_after) / "BTC_USDT"
            put(folder / "prices.csv", [])
            put(folder / "ohlcv.csv", [], OHLCV.header)
            log = CsvHistory(folder.parent, "BTC_USDT")
            aggregator = Aggregator("BTC_USDT", grace_us=2_000_000, history=log)
            final: dict[tuple[str, int], Candle] = {}
            for n, line in enumerate(trades, 1):
                with (folder / "prices.csv").open("a") as file:
                    file.write(line)
                ticks = to_ticks("BTC_USDT", [line.rstrip().split(",")])
                aggregator.fold(ticks.trades, ticks.seqs, ticks.quotes)
                rows = aggregator.close_due(START_US + n * 7_000_000, lambda *_: False)
                rows += aggregator.finish(lambda *_: False) if n == len(trades) else []
                with (folder / "ohlcv.csv").open("a") as file:
                    file.writelines(candle.line(1) for candle in rows)
                final.update((candle.key, candle) for candle in rows)
                if n == restart_after:
                    aggregator = Aggregator("BTC_USDT", grace_us=2_000_000, history=log)
                    aggregator.rebuild(log)
            return final

        assert run(None) == run(1) == run(150) == run(398)


def test_what_the_log_has_of_missing_trades_is_looked_up(make_session: Callable[..., Any]) -> None:
    """By id: which came by themselves and which a repair brought. By time: all ids of the span, and the next one."""
    session = make_session(symbols=["BTC_USDT"])
    lines = [
        Trade("BTC_USDT", number * 1_000_000, "1", "2", "buy", number, 1, source)
        for number, source in ((1, "ws"), (2, "ws"), (9, "ws"), (10, "ws"), (4, "rest"), (5, "rest"))
    ]
    session.append(PRICES, "BTC_USDT", format_trades(lines, 1)[0].decode().splitlines())
    found = look_up_trades(session.directory, "BTC_USDT", [(2, 6), (10, 12)], (1_000_000, 12_000_000))
    assert (found.present, found.repaired) == ([(2, 2), (10, 10)], [(4, 5)])
    found = look_up_trades(session.directory, "BTC_USDT", [], (2_000_000, 8_500_000))
    assert (found.between.keys(), found.next_id) == ({"2", "4", "5"}, 9)
    assert found.between["4"] == content_of(lines[4])
