"""The migrations: reading the files, and running them against a real server."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from collector.errors import DatabaseMisconfigured, MigrationError
from collector.storage.migrations import (
    Migration,
    MigrationRunner,
    Statement,
    check_build,
    declared_schema,
    final_tables,
    load_migrations,
    migrate,
    migrations_folder,
    parse_statement,
    repair_tables,
    split_statements,
)

ALL_TABLES = {
    "aggregated_ohlcv",
    "backtest_results",
    "collection_gaps",
    "data_collection_sessions",
    "indicators",
    "prices",
    "schema_migrations",
    "strategy_templates",
    "exchange_klines",
    "tick_funding",
    "tick_liquidations",
    "tick_open_interest",
    "tick_orderbook",
    "tick_prices",
    "tick_tickers",
    "market_data",
    "candles_1m",
    "historical_data_range",
    "data_quality",
    "data_collection_logs",
    "symbols",
    "market_data_points",
    "trades",
}
VIEWS = {"market_data_points", "trades"}

MIGRATIONS = load_migrations()
BROKEN = Statement("CREATE TABLE broken (", "ALTER", "indicators")


def tables(server) -> dict[str, str]:
    with server.connect() as connection:
        return dict(connection.rows("SELECT table_name, table_type FROM tables()"))


def shape(server, table: str):
    with server.connect() as connection:
        return MigrationRunner(connection).shape(table)


def run(server, migrations: list[Migration] | None = None) -> list[str]:
    with server.connect() as connection:
        return [str(migration) for migration in MigrationRunner(connection, migrations).run()]


def execute(server, *statements: str) -> None:
    with server.connect() as connection:
        for statement in statements:
            connection.run_text(statement)


def stopped_before(migration: Migration, position: int) -> Migration:
    """Return a migration that fails at a statement, as if the process had been killed there."""
    return replace(migration, statements=(*migration.statements[:position], BROKEN))


# Reading the files


def test_statements_are_split_outside_of_quotes_and_comments() -> None:
    """A semicolon in a string or a comment ends nothing, and comments are left out."""
    assert split_statements("-- one; two\nSELECT 'a;b--c', '';\n\nSELECT 4 - 2; -- end\n") == [
        "SELECT 'a;b--c', ''",
        "SELECT 4 - 2",
    ]


@pytest.mark.parametrize(
    ("text", "action", "table"),
    [
        ("CREATE TABLE IF NOT EXISTS a_1 (x INT)", "CREATE", "a_1"),
        ("create view V as (select 1)", "CREATE", "v"),
        ("CREATE MATERIALIZED VIEW m AS (SELECT 1)", "CREATE", "m"),
        ("ALTER TABLE t ADD COLUMN x INT", "ALTER", "t"),
        ("DROP TABLE IF EXISTS gone", "DROP", "gone"),
    ],
)
def test_each_statement_concerns_one_table(text: str, action: str, table: str) -> None:
    """What a statement does and to which table is read from its beginning."""
    statement = parse_statement(text)
    assert (statement.action, statement.table) == (action, table)


def test_a_migration_does_not_insert() -> None:
    """A statement that can't be run twice is refused when the file is read."""
    with pytest.raises(MigrationError, match="INSERT INTO t"):
        parse_statement("INSERT INTO t VALUES (1)")


def test_the_checksum_ignores_line_ends(tmp_path: Path) -> None:
    """A checkout with other line ends holds the same migration."""
    (tmp_path / "unix").mkdir()
    (tmp_path / "dos").mkdir()
    (tmp_path / "unix" / "001_a.sql").write_bytes(b"CREATE TABLE a (\n    x INT\n);\n")
    (tmp_path / "dos" / "001_a.sql").write_bytes(b"CREATE TABLE a (\r\n    x INT\r\n);\r\n")
    assert load_migrations(tmp_path / "unix") == load_migrations(tmp_path / "dos")


@pytest.mark.parametrize("names", [["002_b.sql"], ["001_a.sql", "001_b.sql"], ["a.sql"], []])
def test_numbers_begin_with_one_and_are_unique(tmp_path: Path, names: list[str]) -> None:
    """A missing first, a doubled or an unreadable number is an error; those in between may have gone elsewhere."""
    for name in names:
        (tmp_path / name).write_text("DROP TABLE x;")
    with pytest.raises(MigrationError):
        load_migrations(tmp_path)


def test_the_files_of_the_project_are_these() -> None:
    """The names and the order of the migrations, and the tables that stand after them."""
    assert [str(migration) for migration in MIGRATIONS[:4]] == [
        "001 initial_schema",
        "002 strategy_templates",
        "003 data_collection_schema",
        "004 market_streams",
    ]
    assert {*final_tables(MIGRATIONS), "schema_migrations"} >= ALL_TABLES - VIEWS


def test_an_added_column_is_one_a_statement() -> None:
    """Two columns in one ALTER are an error on 9.3.4."""
    added = [statement.text for migration in MIGRATIONS for statement in migration.statements if statement.added_column]
    assert added
    assert not [text for text in added if "," in text]


@pytest.mark.parametrize(
    ("build", "version"),
    [
        ("Build Information: QuestDB 9.3.4, JDK 24.0.2, Commit Hash 9ea3", "9.3.4"),
        ("Build Information: QuestDB 9.2, JDK 17", "9.2"),
        ("Build Information: QuestDB 10.0.1-SNAPSHOT, JDK 25", "10.0.1-SNAPSHOT"),
        ("Build Information: QuestDB Enterprise 3.1.0, JDK 17", "Enterprise 3.1.0"),
    ],
)
def test_a_recent_server_is_taken(build: str, version: str) -> None:
    """Version 9.2 and later, and Enterprise."""
    assert check_build(build) == version


@pytest.mark.parametrize("version", ["9.1.1", "8.3.3", "9.0.0"])
def test_an_old_server_is_refused_with_the_reason(version: str) -> None:
    """Before 9.2, sending equal rows again damages what is stored."""
    with pytest.raises(DatabaseMisconfigured, match=rf"QuestDB {version} is too old: before 9\.2 it damages"):
        check_build(f"Build Information: QuestDB {version}, JDK 17")


def test_what_is_no_questdb_is_refused() -> None:
    """An answer without a version is not taken for a good one."""
    with pytest.raises(DatabaseMisconfigured, match="no QuestDB"):
        check_build("PostgreSQL 16.3")


# Running them


def test_an_empty_server_gets_exactly_these_tables(empty_questdb) -> None:
    """The whole way, and a second run finds nothing to do."""
    assert run(empty_questdb) == [str(migration) for migration in MIGRATIONS]
    assert set(tables(empty_questdb)) == ALL_TABLES
    assert run(empty_questdb) == []


def test_the_migrated_stream_tables_equal_the_declared_schema(questdb) -> None:
    """Every stream's table has the columns, types, order and dedup keys that the registry declares."""
    with questdb.connect() as connection:
        runner = MigrationRunner(connection)
        assert {table: runner.shape(table) for table in declared_schema()} == declared_schema()


def test_the_stream_tables_are_wal_with_dedup_and_ticks_are_partitioned_by_day(questdb) -> None:
    """Without WAL and dedup a resent row would double; a day is what retention drops."""
    with questdb.connect() as connection:
        rows = connection.rows("SELECT table_name, walEnabled, dedup, partitionBy FROM tables()")
    found = {name: (wal, dedup, partition) for name, wal, dedup, partition in rows}
    assert {found[table][:2] for table in declared_schema()} == {(True, True)}
    assert found["tick_prices"][2] == found["tick_orderbook"][2] == "DAY"
    assert found["schema_migrations"] == (False, False, "NONE")


def test_the_session_joins_the_keys_of_indicators_and_backtest_results(questdb) -> None:
    """Two sessions may compute the same indicator for the same moment."""
    for table in ("indicators", "backtest_results"):
        assert "session_id" in shape(questdb, table).keys
        assert "session_id" in dict(shape(questdb, table).columns)


def test_each_migration_is_recorded_with_checksum_time_and_duration(empty_questdb) -> None:
    """What ran can be asked for afterwards."""
    run(empty_questdb)
    with empty_questdb.connect() as connection:
        rows = connection.rows("SELECT version, name, checksum, applied_at, execution_ms FROM schema_migrations")
    assert [row[:3] for row in rows] == [(m.version, m.name, m.checksum) for m in MIGRATIONS]
    assert all(applied_at is not None and milliseconds >= 0 for *_, applied_at, milliseconds in rows)


@pytest.mark.parametrize("table", ["orders", "tick_prices", "Data_Collection_Sessions"])
def test_a_foreign_table_of_our_name_is_refused_by_name(empty_questdb, table: str) -> None:
    """Nothing runs, nothing is made, and the message names the table."""
    execute(empty_questdb, f"CREATE TABLE {table} (x INT)")
    with pytest.raises(MigrationError, match=f"the table {table.lower()}"):
        run(empty_questdb)
    assert set(tables(empty_questdb)) == {table}


def test_a_foreign_view_of_our_name_is_refused(empty_questdb) -> None:
    """Views share the namespace with tables."""
    execute(empty_questdb, "CREATE TABLE theirs (x INT)", "CREATE VIEW positions AS (SELECT * FROM theirs)")
    with pytest.raises(MigrationError, match="the view positions"):
        run(empty_questdb)
    assert set(tables(empty_questdb)) == {"theirs", "positions"}


def test_a_foreign_table_in_a_views_place_is_left_alone_and_named(empty_questdb) -> None:
    """A view of ours is a convenience: nothing stops for it, and nobody's rows are touched."""
    execute(empty_questdb, "CREATE TABLE trades (x INT)", "INSERT INTO trades VALUES (7)")
    with empty_questdb.connect() as connection:
        runner = MigrationRunner(connection)
        runner.run()
        assert runner.left_alone == ["There is a table trades already: the view of that name is not made."]
        assert connection.rows("SELECT x FROM trades") == [(7,)]
        assert connection.rows("SELECT count() FROM market_data_points") == [(0,)]
    assert set(tables(empty_questdb)) == ALL_TABLES


def test_several_foreign_tables_are_named_together(empty_questdb) -> None:
    """A person needs to see all of them at once."""
    execute(empty_questdb, "CREATE TABLE prices (x INT)", "CREATE TABLE orders (x INT)")
    with pytest.raises(MigrationError, match="the table orders, the table prices"):
        run(empty_questdb)


def test_a_foreign_schema_migrations_is_refused(empty_questdb) -> None:
    """Another tool's table of migrations is not written into."""
    execute(empty_questdb, "CREATE TABLE schema_migrations (id INT, dirty BOOLEAN)")
    with pytest.raises(MigrationError, match="schema_migrations that is not ours"):
        run(empty_questdb)
    assert set(tables(empty_questdb)) == {"schema_migrations"}


def test_tables_of_other_names_are_left_alone(empty_questdb) -> None:
    """A server may hold other things."""
    execute(empty_questdb, "CREATE TABLE theirs (x INT)")
    run(empty_questdb)
    assert set(tables(empty_questdb)) == ALL_TABLES | {"theirs"}


def test_an_edited_migration_is_refused_by_name(empty_questdb) -> None:
    """What has run is not changed afterwards."""
    run(empty_questdb)
    edited = [MIGRATIONS[0], replace(MIGRATIONS[1], checksum="0" * 64), *MIGRATIONS[2:]]
    with pytest.raises(MigrationError, match=r"002_strategy_templates\.sql .* was edited since"):
        run(empty_questdb, edited)


def test_a_renamed_migration_is_refused_by_name(empty_questdb) -> None:
    """A number stands for one migration."""
    run(empty_questdb)
    renamed = [replace(MIGRATIONS[0], name="other"), *MIGRATIONS[1:]]
    with pytest.raises(MigrationError, match=r"001_initial_schema\.sql"):
        run(empty_questdb, renamed)


def test_a_newer_database_is_refused(empty_questdb) -> None:
    """An older program doesn't touch a schema that it doesn't know."""
    run(empty_questdb)
    with pytest.raises(MigrationError, match=r"003_data_collection_schema\.sql .* newer than this program"):
        run(empty_questdb, MIGRATIONS[:2])


@pytest.mark.parametrize("number", range(len(MIGRATIONS)))
def test_a_migration_stopped_at_any_statement_can_be_run_again(empty_questdb, number: int) -> None:
    """Wherever it stopped, the next run ends with the whole schema."""
    for position in range(len(MIGRATIONS[number].statements) + 1):
        with empty_questdb.connect() as connection:
            for name in sorted(tables(empty_questdb), key=lambda name: name not in VIEWS):
                connection.run_text(f"DROP {'VIEW' if name in VIEWS else 'TABLE'} {name}")
        halfway = [*MIGRATIONS[:number], stopped_before(MIGRATIONS[number], position)]
        with pytest.raises(MigrationError, match="run the migrations again"):
            run(empty_questdb, halfway)
        assert run(empty_questdb) == [str(migration) for migration in MIGRATIONS[number:]]
        assert set(tables(empty_questdb)) == ALL_TABLES
        assert {table: shape(empty_questdb, table) for table in declared_schema()} == declared_schema()
        assert "session_id" in shape(empty_questdb, "indicators").keys


def test_a_legacy_table_with_rows_is_not_dropped(empty_questdb) -> None:
    """It stops before its first statement and says so; renamed, the table survives and the migration runs."""
    run(empty_questdb, MIGRATIONS[:2])
    execute(empty_questdb, "INSERT INTO orders (timestamp, order_id) VALUES (0, 'kept')")
    with pytest.raises(MigrationError, match="drop the table orders, which holds 1 rows"):
        run(empty_questdb)
    assert "tick_prices" not in tables(empty_questdb)
    execute(empty_questdb, "RENAME TABLE orders TO orders_kept")
    assert run(empty_questdb) == [str(migration) for migration in MIGRATIONS[2:]]
    assert set(tables(empty_questdb)) == ALL_TABLES | {"orders_kept"}


def test_a_table_in_a_legacy_tables_place_is_not_dropped(empty_questdb) -> None:
    """A table that somebody else put there under the same name isn't ours to drop, empty or not."""
    run(empty_questdb, MIGRATIONS[:2])
    execute(empty_questdb, "DROP TABLE positions", "CREATE TABLE positions (x INT)")
    with pytest.raises(MigrationError, match="the table positions, which has other columns"):
        run(empty_questdb)
    assert "positions" in tables(empty_questdb)


def test_a_suspended_table_stops_the_run_with_its_name(empty_questdb) -> None:
    """Rows may wait in it unseen, so it isn't taken for empty."""
    run(empty_questdb, MIGRATIONS[:2])
    execute(empty_questdb, "ALTER TABLE orders SUSPEND WAL")
    with pytest.raises(MigrationError, match="orders is suspended"):
        run(empty_questdb)
    assert "orders" in tables(empty_questdb)


# Repairing


def test_a_whole_schema_needs_no_repair(empty_questdb) -> None:
    """Repairing is harmless."""
    migrate(empty_questdb.settings)
    assert repair_tables(empty_questdb.settings) == []


def test_repair_makes_missing_tables_again_as_they_were(empty_questdb) -> None:
    """Streams' tables and the others, with what later migrations added to them; dropped ones stay dropped."""
    migrate(empty_questdb.settings)
    names = ["indicators", "data_collection_sessions", "tick_prices"]
    before = {name: shape(empty_questdb, name) for name in names}
    execute(empty_questdb, *(f"DROP TABLE {name}" for name in names))
    with empty_questdb.connect() as connection:
        assert sorted(MigrationRunner(connection).missing_tables()) == sorted(names)
    assert repair_tables(empty_questdb.settings) == names
    assert {name: shape(empty_questdb, name) for name in names} == before
    assert set(tables(empty_questdb)) == ALL_TABLES


def test_repair_of_an_empty_server_makes_everything(empty_questdb) -> None:
    """A database folder that was deleted comes back whole."""
    assert set(repair_tables(empty_questdb.settings)) == ALL_TABLES - VIEWS - {"schema_migrations"}


def test_repair_resumes_a_suspended_table(empty_questdb) -> None:
    """What it took meanwhile shows, and a table that was dropped besides is made again."""
    migrate(empty_questdb.settings)
    execute(empty_questdb, "ALTER TABLE tick_prices SUSPEND WAL", "DROP TABLE collection_gaps")
    assert repair_tables(empty_questdb.settings) == ["collection_gaps"]
    with empty_questdb.connect() as connection:
        assert connection.value("SELECT suspended FROM wal_tables() WHERE name = %s", "tick_prices") is False


def test_repair_gives_keys_and_columns_back(empty_questdb) -> None:
    """A table recreated without dedup would double every resent row."""
    migrate(empty_questdb.settings)
    execute(
        empty_questdb,
        "ALTER TABLE tick_prices DEDUP DISABLE",
        "ALTER TABLE collection_gaps DROP COLUMN detail",
    )
    assert sorted(repair_tables(empty_questdb.settings)) == ["collection_gaps", "tick_prices"]
    declared = declared_schema()
    assert shape(empty_questdb, "tick_prices") == declared["tick_prices"]
    assert set(shape(empty_questdb, "collection_gaps").columns) == set(declared["collection_gaps"].columns)


@pytest.mark.parametrize(
    "statement",
    [
        "CREATE TABLE tick_prices (timestamp TIMESTAMP, price DOUBLE) TIMESTAMP(timestamp) PARTITION BY DAY BYPASS WAL",
        "CREATE TABLE tick_prices (timestamp TIMESTAMP, price LONG) TIMESTAMP(timestamp) PARTITION BY DAY WAL",
    ],
)
def test_a_table_that_cannot_be_repaired_is_named(empty_questdb, statement: str) -> None:
    """A table of our name without WAL, or with a column of another type, needs a person."""
    migrate(empty_questdb.settings)
    execute(empty_questdb, "DROP TABLE tick_prices", statement)
    with pytest.raises(MigrationError, match="tick_prices is not as declared"):
        repair_tables(empty_questdb.settings)


def test_the_folder_of_migrations_stands_in_the_checkout() -> None:
    """The files that people read are the files that run."""
    assert migrations_folder().parts[-3:] == ("database", "questdb", "migrations")
