"""Retention: planned in whole partitions, and set on a real server, which deletes what is older."""

from __future__ import annotations

from typing import Any

import pytest

from collector.errors import UsageError
from collector.storage.retention import TableSize, apply_retention, plan_retention, read_sizes
from trials.parts import wait_until


def size(table: str, partition_by: str, ttl_days: float = 0) -> TableSize:
    return TableSize(table=table, rows=0, bytes=0, partitions=0, partition_by=partition_by, ttl_days=ttl_days)


def test_only_what_differs_is_changed() -> None:
    """A table that nothing is said of is left alone."""
    sizes = [size("candles_1m", "DAY"), size("tick_prices", "DAY", 30), size("theirs", "DAY", 7)]
    changes = plan_retention(sizes, {"candles_1m": 180, "tick_prices": 30})
    assert [(change.table, change.statement) for change in changes] == [
        ("candles_1m", "ALTER TABLE candles_1m SET TTL 180 DAYS")
    ]
    assert [change.statement for change in plan_retention([size("tick_prices", "DAY", 30)], {"tick_prices": 0})] == [
        "ALTER TABLE tick_prices SET TTL 0 DAYS"
    ]


def test_a_ttl_is_whole_partitions() -> None:
    """Years of a table that has a partition a year."""
    assert plan_retention([size("market_data", "YEAR")], {"market_data": 730})[0].statement.endswith("TTL 2 YEARS")
    with pytest.raises(UsageError, match="not whole partitions"):
        plan_retention([size("market_data", "YEAR")], {"market_data": 100})


def test_the_server_deletes_what_is_older(questdb_server: Any) -> None:
    """And a second look finds nothing to change."""
    server = questdb_server()
    with server.connect() as connection:
        for day in ("2026-01-01", "2026-11-19", "2026-11-20"):
            connection.run_text(
                "INSERT INTO candles_1m (timestamp, session_id, symbol, timeframe, source, seq) "  # noqa: S608  (ours)
                f"VALUES ('{day}T00:00:00Z', 's', 'A', '1m', 'x', 1)"
            )
        wait_until(lambda: connection.count("candles_1m") == 3, "three rows")
        apply_retention(connection, plan_retention(read_sizes(connection), {"candles_1m": 180}))
        connection.run_text(
            "INSERT INTO candles_1m (timestamp, session_id, symbol, timeframe, source, seq) "
            "VALUES ('2026-11-20T00:01:00Z', 's', 'A', '1m', 'x', 2)"
        )
        wait_until(lambda: connection.rows("SELECT count() FROM candles_1m") == [(3,)], "the oldest to expire")
        assert str(connection.value("SELECT min(timestamp) FROM candles_1m")).startswith("2026-11-19")
        assert plan_retention(read_sizes(connection), {"candles_1m": 180}) == []
        found = {one.table: one for one in read_sizes(connection)}["candles_1m"]
        assert (found.ttl_days, found.partition_by) == (180, "DAY")
