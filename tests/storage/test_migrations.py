"""The migrations, run against a real server."""

from __future__ import annotations

from collector.storage.migrations import MigrationRunner, declared_schema


def test_migrated_stream_tables_equal_the_declared_schema(questdb) -> None:
    """Every stream's table has the columns, types, order and dedup keys that the registry declares."""
    with questdb.connect() as connection:
        runner = MigrationRunner(connection)
        assert {table: runner.shape(table) for table in declared_schema()} == declared_schema()
