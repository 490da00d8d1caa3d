"""Rows out of QuestDB, exact, and not before they show."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from collector.errors import DatabaseMisconfigured, DatabaseUnavailable
from collector.reading.replica_proof import ReplicaProof
from collector.reading.table_reader import Source, TableReader
from collector.session.gaps import GapLedger
from collector.streams import GAPS, OHLCV, ORDERBOOK, PRICES

MakeSession = Callable[..., Any]
DAY_US = 86_400_000_000


def test_every_stream_reads_back_what_was_sent(
    make_session: MakeSession, database: Any, gap_line: Callable[..., str]
) -> None:
    """Columns come in the CSV's order, doubles to the last bit, NULL as None, times as microseconds."""
    session = make_session(["A/B"])
    session.append(PRICES, "A%2FB", [])
    session.path(PRICES, "A%2FB").unlink()
    session.symbols = ["AB"]
    session.append(PRICES, "AB", ["1700006400000001,0.1,12345678901234567890.123456789,1e-7,sell,t 1,1,5,ws,,9"])
    session.append(ORDERBOOK, "AB", ["1700006400000001,1,2,,,,,3,4,,,,,9,1,"])
    session.append(OHLCV, "AB", ["1700006400000000,1m,1,2,0.5,1,3,4,5,,,,true,full,ws,0,1"])
    session.append(GAPS, None, [gap_line(1, "stall", "prices", "AB", (3, 5))])
    database.send(*session.bodies())
    everything = ((0, 10), (0, 2_000_000_000_000_000))
    with TableReader(database.settings) as table:
        for stream in (PRICES, ORDERBOOK, OHLCV, GAPS):
            table.wait_applied(stream, 30)
        source = Source(session.session_id, "sim", "AB")
        (price,) = table.records(PRICES, source, *everything)
        assert price == (
            1700006400000001, 0.1, float("12345678901234567890.123456789"), 1e-7, "sell", "t 1", 1, 5, "ws", None, 9
        )  # fmt: skip
        (book,) = table.records(ORDERBOOK, source, *everything)
        assert book == (1700006400000001, 1.0, 2.0, *[None] * 4, 3.0, 4.0, *[None] * 4, 9, 1, None)
        (candle,) = table.records(OHLCV, source, *everything)
        assert candle[9:15] == (None, None, None, True, "full", "ws")
        (gap,) = table.records(GAPS, source, *everything)
        assert gap[1:5] == ("g000001", "AB", "prices", "stall")
        assert table.count(PRICES, source, None) == table.count(PRICES, source, 1) == 1
        assert table.count(PRICES, source, 0) == 0
        assert table.positions(PRICES, source, (0, 5)) == [(1, 1700006400000001, "sim")]
        assert table.unnumbered(PRICES, source) == 0
        assert table.ttl_us(PRICES) == 0


def test_rows_below_the_retention_are_accounted_for(make_session: MakeSession, database: Any) -> None:
    """What the table no longer keeps is expired, not missing; what it still keeps must be there."""
    session = make_session(["A"])
    now_us = 1_700_006_400_000_000
    lines = [f"{now_us - (10 - n) * DAY_US},1,2,2,buy,{n},{n},,ws,," for n in range(1, 10)]
    session.append(PRICES, "A", lines)
    (body,) = session.bodies()
    database.send(b"".join(body.splitlines(keepends=True)[4:8]))
    with TableReader(database.settings) as table:
        table.wait_applied(PRICES, 30)
        proof = ReplicaProof(
            session.directory,
            PRICES,
            Source(session.session_id, "sim", "A"),
            table=table,
            ledger=GapLedger(),
            kept_from_us=now_us - 6 * DAY_US + 1,
        )
        report = proof.run()
    assert (report.expired, report.equal_rows) == (4, 4)
    assert [(d.reason, d.seq) for d in report.findings.named] == [("missing", 9)]


def test_tables_in_trouble_are_said_so(questdb_server: Callable[..., Any]) -> None:
    """A suspended table shows no writes, a missing one none at all: neither is compared."""
    server = questdb_server()
    with TableReader(server.settings) as table:
        table.run("ALTER TABLE tick_prices SET TTL 2 WEEKS")
        table.wait_applied(PRICES, 30)
        assert table.ttl_us(PRICES) == 14 * DAY_US
        table.run("ALTER TABLE tick_prices SUSPEND WAL")
        with pytest.raises(DatabaseUnavailable, match="suspended"):
            table.wait_applied(PRICES, 30)
        table.run("DROP TABLE tick_orderbook")
        with pytest.raises(DatabaseMisconfigured, match=r"no table tick_orderbook.*migrate --repair"):
            table.ttl_us(ORDERBOOK)
