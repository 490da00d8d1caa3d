"""How long tables keep their rows, as QuestDB's own TTL, and what tables take. A TTL is whole partitions."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from collector.errors import UsageError
from collector.storage.sql import Connection

_UNIT_DAYS = {"HOUR": 1 / 24, "DAY": 1.0, "WEEK": 7.0, "MONTH": 30.0, "YEAR": 365.0}
_PARTITION_DAYS = {"HOUR": 1 / 24, "DAY": 1, "WEEK": 7, "MONTH": 30, "YEAR": 365}


class TableSize(msgspec.Struct, frozen=True, kw_only=True):
    """What a table takes on the server's disk; ``ttl_days`` is 0 where rows are kept for ever."""

    table: str
    rows: int
    bytes: int
    partitions: int
    partition_by: str
    ttl_days: float


class TtlChange(msgspec.Struct, frozen=True, kw_only=True):
    """A table's TTL as it is and as it should be, in days; 0 keeps rows for ever."""

    table: str
    now_days: float
    wanted_days: int
    statement: str


def read_sizes(connection: Connection) -> list[TableSize]:
    """Return what every table of the server takes, the largest first; raises what ``Connection.rows`` raises."""
    ttl = {
        str(name): (value or 0) * _UNIT_DAYS.get(str(unit), 0)
        for name, value, unit in connection.rows("SELECT table_name, ttlValue, ttlUnit FROM tables()")
    }
    found = [
        TableSize(
            table=name,
            rows=rows or 0,
            bytes=size or 0,
            partitions=count or 0,
            partition_by=by,
            ttl_days=ttl.get(name, 0),
        )
        for name, by, count, rows, size in connection.rows(
            "SELECT tableName, partitionBy, partitionCount, rowCount, diskSize FROM table_storage()"
        )
        if by != "N/A"
    ]
    return sorted(found, key=lambda size: (-size.bytes, size.table))


def plan_retention(sizes: list[TableSize], wanted_days: Mapping[str, int]) -> list[TtlChange]:
    """Return what is to be changed so that tables keep their rows for so many days.

    Raises:
        UsageError: a number of days is not a whole number of the table's partitions.
    """
    changes = []
    for size in sizes:
        days = wanted_days.get(size.table)
        if days is None or days == size.ttl_days:
            continue
        partition = _PARTITION_DAYS.get(size.partition_by, 0)
        if not partition:
            raise UsageError(f"The table {size.table} has no partitions, so that nothing of it can expire.")
        if days % partition:
            raise UsageError(
                f"{days} days of {size.table} are not whole partitions: it has one per {size.partition_by.lower()}.",
                hint=f"Use a multiple of {partition:g} days.",
            )
        count, unit = (days // round(partition), size.partition_by) if partition >= 1 else (days, "DAY")
        statement = f"ALTER TABLE {size.table} SET TTL {count} {unit}S"
        changes.append(TtlChange(table=size.table, now_days=size.ttl_days, wanted_days=days, statement=statement))
    return changes


def apply_retention(connection: Connection, changes: list[TtlChange]) -> None:
    """Have the tables keep their rows as planned; the server deletes older partitions. Raises as above."""
    for change in changes:
        connection.run_text(change.statement)
