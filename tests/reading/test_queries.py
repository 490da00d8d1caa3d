"""Each packaged query runs on a real server, and gives what is worked out from the files without it."""

from __future__ import annotations

import uuid
from bisect import bisect_right
from collections import defaultdict
from collections.abc import Callable, Iterator
from statistics import fmean
from typing import Any

import pytest

from collector.errors import DatabaseMisconfigured, UnknownName, UsageError
from collector.history.tables import HistoryTables, LogRow, QualityRow
from collector.reading.queries import QueryReader, load_queries, refuse_changes, statement_of
from collector.storage.sessions import SessionRow, SessionRows
from collector.storage.sql import to_microseconds, to_timestamp
from collector.streams import GAPS, KLINES, OHLCV, ORDERBOOK, PRICES, Stream
from trials.parts import wait_until

MINUTE = 60_000_000
HOUR = 60 * MINUTE
Row = dict[str, Any]
Ask = Callable[..., list[Row]]


def rows_of(session: Any, stream: Stream, symbol: str | None = None) -> list[Row]:
    """Return the lines of a file by the columns' names in the database, numbers as float."""
    found = []
    for line in session.lines(stream, symbol):
        row: Row = {}
        for column, text in zip(stream.columns, line.split(","), strict=True):
            kind = column.kind.value
            row[column.in_database] = (
                None
                if text == ""
                else float(text)
                if kind == "DOUBLE"
                else int(text)
                if kind in ("LONG", "TIMESTAMP")
                else text
            )
        found.append(row)
    return found


def buckets(rows: list[Row], length: int) -> Iterator[tuple[int, list[Row]]]:
    found = defaultdict(list)
    for row in rows:
        found[row["timestamp"] // length * length].append(row)
    yield from sorted(found.items())


@pytest.fixture
def symbols() -> tuple[str, str]:
    """Two symbols that no other test uses, for queries that go over all sessions."""
    tag = uuid.uuid4().hex[:8].upper()
    return f"A{tag}_USDT", f"B{tag}_USDT"


@pytest.fixture
def market(make_session: Callable[..., Any], deliver: Callable[[Any], None], symbols: tuple[str, str]) -> Any:
    """Give a delivered session of two symbols, the second of which has its own prices."""
    session = make_session(symbols)
    for symbol in symbols:
        session.write_market(symbol)
    lines = session.lines(PRICES, symbols[1])
    path = session.path(PRICES, symbols[1])
    shifted = []
    for n, line in enumerate(lines):
        fields = line.split(",")
        fields[0] = str(int(fields[0]) + 700_000)
        fields[1] = f"{float(fields[1]) + n % 5 / 10:.2f}"
        fields[7] = str(int(fields[0]) + (n * 37) % 1_500_000 - 200_000)
        fields[8] = "rest" if n % 50 == 0 else "ws"
        shifted.append(",".join(fields))
    path.write_text("\n".join([PRICES.header.strip(), *shifted]) + "\n")
    deliver(session)
    return session


@pytest.fixture
def ask(questdb: Any) -> Ask:
    """Ask a packaged query as the user that may only read."""
    settings = questdb.server.settings(questdb.settings, read_only=True)

    def run(question: str, **values: object) -> list[Row]:
        # `from` cannot be a keyword
        statement = statement_of(question, {name.rstrip("_"): str(value) for name, value in values.items()})
        with QueryReader(settings) as reader, reader.result(statement) as result:
            names = [name for name, _ in result.columns]
            found = [dict(zip(names, row, strict=True)) for row in result.rows]
        for row in found:
            if "timestamp" in row:
                row["timestamp"] = to_microseconds(row["timestamp"])
        return found

    return run


def test_every_query_says_what_it_answers_and_what_its_parameters_mean() -> None:
    """And every one of the questions is there, with a test of its own below."""
    queries = load_queries()
    asked = {name.removeprefix("test_query_") for name in globals() if name.startswith("test_query_")}
    assert set(queries) == asked
    assert all(query.meaning and query.parameters for query in queries.values())
    assert all(parameter.meaning for query in queries.values() for parameter in query.parameters)


def test_query_sessions(ask: Ask, questdb: Any, market: Any) -> None:
    """A row per session, newest first."""
    rows = SessionRows(lambda: questdb.settings)
    mine = f"q{uuid.uuid4().hex[:10]}"
    for n, state in enumerate(("completed", "failed")):
        rows.upsert(
            SessionRow(
                session_id=f"{mine}-{n}", status=state, exchange=mine, symbols=("A_B",), data_types=("prices",),
                created_us=1_700_000_000_000_000 + n, prices_count=7 + n,
            )
        )  # fmt: skip
    found: list[Row] = []
    for _ in range(500):
        found = ask("sessions", exchange=mine)
        if len(found) == 2:
            break
    assert [(row["session_id"], row["prices_count"]) for row in found] == [(f"{mine}-1", 8), (f"{mine}-0", 7)]
    assert [row["session_id"] for row in ask("sessions", exchange=mine, status="failed")] == [f"{mine}-1"]
    assert len(ask("sessions", exchange=mine, rows=1)) == 1


def test_query_coverage(ask: Ask, market: Any, symbols: tuple[str, str]) -> None:
    """Trades per hour, and the minutes that had one."""
    expected = sorted(
        (start, market.session_id, symbol, len(rows), len({row["timestamp"] // MINUTE for row in rows}))
        for symbol in symbols
        for start, rows in buckets(rows_of(market, PRICES, symbol), HOUR)
    )
    found = ask("coverage", session=market.session_id)
    assert [tuple(row.values()) for row in found] == expected


def test_query_spreads(ask: Ask, market: Any, symbols: tuple[str, str]) -> None:
    """Average, least and most, in quote currency and basis points."""
    found = ask("spreads", symbol=symbols[0], interval="5s")
    expected = list(buckets(rows_of(market, ORDERBOOK, symbols[0]), 5_000_000))
    assert [row["timestamp"] for row in found] == [start for start, _ in expected]
    for row, (_, books) in zip(found, expected, strict=True):
        spreads = [book["ask_price_1"] - book["bid_price_1"] for book in books]
        points = [
            spread / ((book["ask_price_1"] + book["bid_price_1"]) / 2) * 10000
            for spread, book in zip(spreads, books, strict=True)
        ]
        assert row["spread"] == pytest.approx(fmean(spreads))
        assert (row["spread_bp"], row["least_bp"], row["most_bp"]) == pytest.approx(
            (fmean(points), min(points), max(points))
        )
        assert row["book_rows"] == len(books)


def test_query_vwap(ask: Ask, market: Any, symbols: tuple[str, str]) -> None:
    """What was paid over what was got."""
    found = ask("vwap", symbol=symbols[0], interval="3m")
    expected = list(buckets(rows_of(market, PRICES, symbols[0]), 3 * MINUTE))
    assert [(row["timestamp"], row["trades"]) for row in found] == [(start, len(rows)) for start, rows in expected]
    for row, (_, trades) in zip(found, expected, strict=True):
        volume = sum(trade["volume"] for trade in trades)
        paid = sum(trade["price"] * trade["volume"] for trade in trades)
        assert (row["vwap"], row["volume"]) == pytest.approx((paid / volume, volume))


def test_query_volume_profile(ask: Ask, market: Any, symbols: tuple[str, str]) -> None:
    """Volume per step of price."""
    steps = defaultdict(list)
    for row in rows_of(market, PRICES, symbols[0]):
        steps[row["price"] // 2 * 2].append(row)
    found = ask("volume_profile", symbol=symbols[0], step="2.0")
    assert [(row["price_from"], row["trades"]) for row in found] == [(at, len(steps[at])) for at in sorted(steps)]
    for row in found:
        trades = steps[row["price_from"]]
        bought = sum(trade["volume"] for trade in trades if trade["side"] == "buy")
        assert (row["volume"], row["taker_buy_volume"]) == pytest.approx((sum(t["volume"] for t in trades), bought))


def test_query_candles(ask: Ask, market: Any, symbols: tuple[str, str]) -> None:
    """Of an interval that nobody records."""
    found = ask("candles", symbol=symbols[0], interval="7m")
    for row, (start, trades) in zip(found, buckets(rows_of(market, PRICES, symbols[0]), 7 * MINUTE), strict=True):
        prices = [trade["price"] for trade in trades]
        assert (row["timestamp"], row["open"], row["high"], row["low"], row["close"]) == (
            start, prices[0], max(prices), min(prices), prices[-1],
        )  # fmt: skip
        assert row["volume"] == pytest.approx(sum(trade["volume"] for trade in trades))
        assert row["trades_count"] == sum(t["last_raw_id"] - t["first_raw_id"] + 1 for t in trades)


def test_query_candles_against_exchange(
    ask: Ask, make_session: Callable[..., Any], deliver: Callable[[Any], None]
) -> None:
    """Only the candle of which the exchange says something else, and only whole and closed ones."""
    session = make_session()
    session.write_market("BTC_USDT")
    ours = [line.split(",") for line in session.lines(OHLCV, "BTC_USDT")]
    names = [column.name for column in OHLCV.columns]
    lines = []
    for seq, fields in enumerate(ours, 1):
        row = dict(zip(names, fields, strict=True)) | {"seq": str(seq), "received_at": fields[0], "source": "ws"}
        if seq in (3, 4):
            row["high"] = "999.5"
        lines.append(",".join(row.get(column.name, "") for column in KLINES.columns))
    session.append(KLINES, "BTC_USDT", lines)
    deliver(session)
    whole = [dict(zip(names, ours[n], strict=True)) for n in (2, 3)]
    expected = sorted((int(row["timestamp"]), row["interval"]) for row in whole if row["coverage"] == "full")
    assert expected
    found = ask("candles_against_exchange", session=session.session_id)
    assert [(row["timestamp"], row["interval"]) for row in found] == expected
    assert {row["exchange_high"] for row in found} == {999.5}


def test_query_latency(ask: Ask, market: Any, symbols: tuple[str, str]) -> None:
    """Negative where our clock was behind, and without what REST repaired."""
    trades = [row for row in rows_of(market, PRICES, symbols[1]) if row["source"] != "rest"]
    found = ask("latency", symbol=symbols[1], session=market.session_id, interval="4m")
    for row, (start, part) in zip(found, buckets(trades, 4 * MINUTE), strict=True):
        delays = [(trade["received_at"] - trade["timestamp"]) / 1000 for trade in part]
        assert (row["timestamp"], row["least_ms"], row["most_ms"]) == (start, min(delays), max(delays))
        assert row["average_ms"] == pytest.approx(fmean(delays))
        assert (row["above_1s"], row["trades"]) == (sum(delay > 1000 for delay in delays), len(delays))
    assert min(row["least_ms"] for row in found) < 0


def test_query_gaps(
    ask: Ask, make_session: Callable[..., Any], deliver: Callable[[Any], None], gap_line: Callable[..., str]
) -> None:
    """The ledger, each entry once."""
    session = make_session()
    lines = [gap_line(n, "sequence", "prices", "BTC_USDT", (n, n + 2), f"g00000{n}") for n in (1, 2)]
    session.append(GAPS, None, lines)
    deliver(session)
    found = ask("gaps", session=session.session_id, state="open")
    assert [(row["gap_id"], row["from_id"], row["to_id"], row["expected_rows"]) for row in found] == [
        ("g000001", 1, 3, 3),
        ("g000002", 2, 4, 3),
    ]
    assert ask("gaps", session=session.session_id, state="repaired") == []


def test_query_cross_exchange(ask: Ask, market: Any, symbols: tuple[str, str]) -> None:
    """Each trade of the first beside the last one of the second that was not later."""
    first, second = (rows_of(market, PRICES, symbol) for symbol in symbols)
    times = [row["timestamp"] for row in second]
    pairs = []
    for row in first:
        at = bisect_right(times, row["timestamp"])
        if at:
            pairs.append(row | {"difference": row["price"] - second[at - 1]["price"], "of": second[at - 1]["price"]})
    found = ask("cross_exchange", first="sim", second="sim", symbol=symbols[0], other_symbol=symbols[1], interval="2m")
    for row, (start, part) in zip(found, buckets(pairs, 2 * MINUTE), strict=True):
        points = [pair["difference"] / pair["of"] * 10000 for pair in part]
        assert (row["timestamp"], row["trades"]) == (start, len(part))
        assert row["difference"] == pytest.approx(fmean(pair["difference"] for pair in part))
        assert (row["average_bp"], row["least_bp"], row["most_bp"]) == pytest.approx(
            (fmean(points), min(points), max(points))
        )


def test_query_biggest_trades(ask: Ask, market: Any, symbols: tuple[str, str]) -> None:
    """By what was paid."""
    trades = sorted(rows_of(market, PRICES, symbols[0]), key=lambda row: -row["quote_volume"])
    found = ask("biggest_trades", symbol=symbols[0], rows=5)
    assert [row["trade_id"] for row in found] == [trade["trade_id"] for trade in trades[:5]]
    assert [row["paid"] for row in found] == [trade["quote_volume"] for trade in trades[:5]]


def test_query_book_imbalance(ask: Ask, market: Any, symbols: tuple[str, str]) -> None:
    """Levels that are missing count as nothing."""
    found = ask("book_imbalance", symbol=symbols[0], interval="4s")
    for row, (start, books) in zip(found, buckets(rows_of(market, ORDERBOOK, symbols[0]), 4_000_000), strict=True):
        sides = [[sum(book[f"{side}_qty_{n}"] or 0 for n in (1, 2, 3)) for side in ("bid", "ask")] for book in books]
        assert (row["timestamp"], row["book_rows"]) == (start, len(books))
        assert row["imbalance"] == pytest.approx(fmean((bid - ask) / (bid + ask) for bid, ask in sides))


@pytest.fixture
def operations(questdb: Any) -> str:
    """Keep four operations of a task that no other test has; return its name."""
    task = f"task_{uuid.uuid4().hex[:8]}"
    rows = [
        LogRow(
            task_id=f"{task}-{n}", task_name=task, status="failed" if n == 3 else "completed",
            started_us=1_700_000_000_000_000 + n * MINUTE,
            finished_us=1_700_000_000_000_000 + n * (MINUTE + 1_000_000),
            provider="okx", symbols=2, records=10 * n, retries=n, error="it was down" if n == 3 else "",
        )
        for n in range(4)
    ]  # fmt: skip
    HistoryTables(lambda: questdb.settings).put_logs(rows)
    return task


def told(ask: Ask, question: str, **values: object) -> list[Row]:
    """Ask until the table shows what was written."""
    return wait_until(lambda: ask(question, **values), f"an answer to {question}")


def test_query_operations(ask: Ask, operations: str) -> None:
    """Counts, success and durations by task and provider."""
    found = wait_until(
        lambda: [row for row in ask("operations", task=operations) if row["runs"] == 4], "all operations"
    )
    assert len(found) == 1
    row = found[0]
    assert (row["provider"], row["success_percent"], row["records"], row["retries"]) == ("okx", 75.0, 60, 6)
    assert (row["p50_seconds"], row["longest_seconds"]) == (pytest.approx(1.0, abs=0.01), 3.0)


def test_query_operation_errors(ask: Ask, operations: str) -> None:
    """Only what went wrong."""
    found = told(ask, "operation_errors", task=operations)
    assert [(row["error"], row["status"]) for row in found] == [("it was down", "failed")]


def test_query_history(ask: Ask, questdb: Any, symbols: tuple[str, str]) -> None:
    """What is held by source, with what the last examination said."""
    with questdb.connect() as connection:
        for hour, source in ((0, "okx"), (1, "okx"), (2, "bybit")):
            connection.run(
                "INSERT INTO market_data (timestamp, session_id, symbol, timeframe, source, seq) "
                "VALUES (%s, 'q', %s, '1h', %s, %s)",
                to_timestamp(hour * HOUR), symbols[0], source, hour + 1,
            )  # fmt: skip
    HistoryTables(lambda: questdb.settings).put_quality(
        [
            QualityRow(
                symbol=symbols[0], timeframe="1h", completeness_percentage=75.0, missing_records=1, has_gaps=True,
                score=74.5, detail="{}", checked_us=HOUR,
            )
        ]
    )  # fmt: skip
    found = wait_until(
        lambda: rows if len(rows := ask("history", symbol=symbols[0])) == 2 and rows[0]["score"] else None, "both"
    )
    assert [(row["source"], row["candles"], row["score"], row["missing_records"]) for row in found] == [
        ("okx", 2, 74.5, 1),
        ("bybit", 1, 74.5, 1),
    ]


def test_bounds_of_time_are_kept_to(ask: Ask, market: Any, symbols: tuple[str, str]) -> None:
    """The start is included, the end is not."""
    found = ask("vwap", symbol=symbols[0], from_="2023-11-15T00:02:00Z", to="2023-11-15T00:04:00Z")
    assert [row["timestamp"] for row in found] == [1_700_006_520_000_000, 1_700_006_580_000_000]


def test_values_stay_values() -> None:
    """Whatever a person writes, it is one literal of the default's kind."""
    vwap = load_queries()["vwap"]
    assert "@symbol := 'x''; DROP TABLE t'" in vwap.filled({"symbol": "x'; DROP TABLE t"})
    with pytest.raises(UsageError, match="interval"):
        vwap.filled({"interval": "1m; DROP TABLE t"})
    with pytest.raises(UnknownName, match="symbol"):
        vwap.filled({"symbl": "x"})
    with pytest.raises(UsageError, match="step"):
        load_queries()["volume_profile"].filled({"step": "1e"})
    with pytest.raises(UnknownName, match="vwap"):
        statement_of("vwapp")
    with pytest.raises(UsageError, match="packaged"):
        statement_of("SELECT 1 FROM x", {"a": "b"})


@pytest.mark.parametrize(
    "text",
    [
        "DROP TABLE tick_prices", "INSERT INTO t VALUES (1)", "SELECT 1; DROP TABLE t", "", " ; ", "-- nothing",
        "WITH x AS (SELECT 1) UPDATE t SET a = 1", "/* SELECT */ TRUNCATE TABLE t", "explain update t set a = 1",
        "SELECT reload_config()", "COPY t FROM 'x'", "(SELECT 1)", "ALTER TABLE t DROP COLUMN x",
    ],
)  # fmt: skip
def test_what_does_more_than_read_is_refused(text: str) -> None:
    """Before it reaches any server."""
    with pytest.raises(UsageError):
        refuse_changes(text)


@pytest.mark.parametrize(
    "text",
    [
        "SELECT 1;", "select 'drop table t; --' x", 'SELECT "update" FROM t', "SHOW TABLES", "EXPLAIN SELECT 1",
        "WITH x AS (SELECT 1 a) SELECT * FROM x -- delete", "DECLARE @a := 1 SELECT @a", "SELECT update_id FROM t",
    ],
)  # fmt: skip
def test_what_reads_is_let_through(text: str) -> None:
    """Without its semicolon."""
    assert refuse_changes(text) == text.rstrip(";")


def test_the_embedded_servers_reader_cannot_change_anything(questdb: Any) -> None:
    """Even where our own check had missed a word."""
    settings = questdb.server.settings(questdb.settings, read_only=True)
    with QueryReader(settings) as reader, pytest.raises(DatabaseMisconfigured, match="denied"):
        reader.run_text("INSERT INTO tick_prices (timestamp, symbol) VALUES (0, 'X')")
