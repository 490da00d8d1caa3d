"""The schema of QuestDB: numbered files that run once each, forward only, recorded in ``schema_migrations``.

QuestDB has one namespace and no transactions over statements. So nothing runs while a table of a name that we need is
not ours, and a migration that stopped half way can be run again: it is recorded as begun before its first statement.
"""

from __future__ import annotations

import hashlib
import re
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from collector.clock import Clock, SystemClock
from collector.config import QuestDB
from collector.errors import DatabaseMisconfigured, MigrationError
from collector.storage.sql import Column, Connection, connect, to_timestamp
from collector.streams import STREAMS

MIGRATIONS_TABLE = "schema_migrations"
MINIMUM_VERSION = (9, 2)

_MIGRATIONS_COLUMNS = ("version", "name", "checksum", "applied_at", "execution_ms")
_FILE_NAME = re.compile(r"(\d{3})_([a-z0-9_]+)\.sql")
_PART = re.compile(r"'(?:[^']|'')*'|--[^\n]*|;|[^';-]+|-")
_STATEMENT = re.compile(
    r"(CREATE|ALTER|DROP)\s+(?:TABLE|VIEW|MATERIALIZED\s+VIEW)\s+(?:IF\s+(?:NOT\s+)?EXISTS\s+)?([a-z][a-z0-9_]*)\b",
    re.IGNORECASE,
)
_VIEW = re.compile(r"CREATE\s+VIEW\s", re.IGNORECASE)
_ADD_COLUMN = re.compile(r"ALTER\s+TABLE\s+\w+\s+ADD\s+COLUMN\s+(\w+)\s", re.IGNORECASE)
_CREATED_COLUMNS = re.compile(r"CREATE\s+TABLE\s[^(]*\((.*?)\n\)", re.IGNORECASE | re.DOTALL)
_POLL_S = 0.02
_APPLY_TIMEOUT_S = 30.0


@dataclass(frozen=True, slots=True)
class Statement:
    """One statement of a migration, and the one table that it concerns."""

    text: str
    action: str  # CREATE, ALTER or DROP
    table: str

    @property
    def is_view(self) -> bool:
        """Tell whether it makes a view: a convenience, which never takes a foreign table's place."""
        return self.action == "CREATE" and _VIEW.match(self.text) is not None

    @property
    def added_column(self) -> str | None:
        found = _ADD_COLUMN.match(self.text)
        return found.group(1) if found else None

    @property
    def created_columns(self) -> tuple[str, ...]:
        """Return the names of the columns that a CREATE TABLE lists."""
        found = _CREATED_COLUMNS.match(self.text)
        return tuple(line.split()[0] for line in found.group(1).split(",") if line.strip()) if found else ()


@dataclass(frozen=True, slots=True)
class Migration:
    """A numbered file of statements; the checksum is that of its text, whatever its line ends."""

    version: int
    name: str
    checksum: str
    statements: tuple[Statement, ...]

    def __str__(self) -> str:
        return f"{self.version:03d} {self.name}"

    @property
    def created(self) -> tuple[str, ...]:
        return tuple(
            statement.table for statement in self.statements if statement.action == "CREATE" and not statement.is_view
        )

    @property
    def tables(self) -> tuple[str, ...]:
        return tuple(dict.fromkeys(statement.table for statement in self.statements))


@dataclass(frozen=True, slots=True)
class Record:
    """What ``schema_migrations`` says of a migration; ``finished`` False where it was begun and never ended."""

    version: int
    name: str
    checksum: str
    finished: bool


@dataclass(frozen=True, slots=True)
class TableShape:
    """A table as it is or should be: columns with their types in order, and the dedup keys."""

    columns: tuple[tuple[str, str], ...]
    keys: frozenset[str]


# Reading the files


def migrations_folder() -> Path:
    """Return where the migrations stand: beside the package in a checkout, inside of it in a wheel."""
    checkout = Path(__file__).resolve().parents[2] / "database" / "questdb" / "migrations"
    return checkout if checkout.is_dir() else Path(__file__).resolve().parent / "sql"


def load_migrations(folder: Path | None = None) -> list[Migration]:
    """Read every migration, in order of its number.

    Raises:
        MigrationError: a file's name or a statement cannot be read, or two files have the same number.
    """
    chosen = folder or migrations_folder()
    migrations = [_load(path) for path in sorted(chosen.glob("*.sql"))]
    numbers = [migration.version for migration in migrations]
    if not numbers or numbers[0] != 1 or len(set(numbers)) < len(numbers):
        raise MigrationError(f"The migrations in {chosen} do not begin with 001, or share a number: {numbers}.")
    return migrations


def _load(path: Path) -> Migration:
    found = _FILE_NAME.fullmatch(path.name)
    if found is None:
        raise MigrationError(f"The migration {path} is not named like 001_name.sql.")
    text = path.read_text(encoding="utf-8").replace("\r\n", "\n")
    statements = tuple(parse_statement(statement) for statement in split_statements(text))
    return Migration(int(found.group(1)), found.group(2), hashlib.sha256(text.encode()).hexdigest(), statements)


def split_statements(text: str) -> list[str]:
    """Split a file at its semicolons, outside of quotes, without the comments."""
    statements = [""]
    for part in _PART.findall(text):
        if part == ";":
            statements.append("")
        elif not part.startswith("--"):
            statements[-1] += part
    return [statement.strip() for statement in statements if statement.strip()]


def parse_statement(text: str) -> Statement:
    """Find what a statement does to which table; raise MigrationError where it is none that can be run again."""
    found = _STATEMENT.match(text)
    if found is None:
        raise MigrationError(f"A migration only creates, alters and drops tables and views; this does not: {text[:80]}")
    return Statement(text, found.group(1).upper(), found.group(2).lower())


def final_tables(migrations: Iterable[Migration]) -> tuple[str, ...]:
    """Return the tables that stand after these migrations, without the views."""
    standing: dict[str, None] = {}
    for migration in migrations:
        for statement in migration.statements:
            if statement.action == "CREATE" and not statement.is_view:
                standing[statement.table] = None
            elif statement.action == "DROP":
                standing.pop(statement.table, None)
    return tuple(standing)


def declared_schema() -> dict[str, TableShape]:
    """Return the streams' tables as ``collector.streams`` declares them."""
    return {
        stream.table: TableShape(
            tuple((name, kind.value) for name, kind in stream.table_columns), frozenset(stream.keys)
        )
        for stream in STREAMS.values()
    }


# Running them


class MigrationRunner:
    """Bring one server's schema up to date over one connection.

    Args:
        connection: as a user that may make tables.
        migrations: the files' content; by default the project's.
        clock: what ``applied_at`` and ``execution_ms`` are taken from.
    """

    def __init__(
        self, connection: Connection, migrations: Sequence[Migration] | None = None, *, clock: Clock | None = None
    ) -> None:
        self.left_alone: list[str] = []
        """Why a view was not made, a sentence each: a table has its name, or the server is too old."""
        self._connection = connection
        self.migrations = list(migrations) if migrations is not None else load_migrations()
        self._clock = clock or SystemClock()

    def server_version(self) -> str:
        """Return the server's version, as ``9.3.4``.

        Raises:
            DatabaseMisconfigured: it is older than 9.2, or no QuestDB.
        """
        return check_build(str(self._connection.value("SELECT build()")))

    def refuse_foreign_tables(self) -> None:
        """Raise MigrationError, naming them, where tables or views of names that we need are not ours.

        Ours is what a migration makes that ``schema_migrations`` records as begun. Ask this before anything runs.
        """
        existing = self._existing()
        recorded = self._records() if MIGRATIONS_TABLE in existing else {}
        needed = {
            table for migration in self.migrations if migration.version not in recorded for table in migration.created
        }
        foreign = sorted(needed & set(existing))
        if foreign:
            kinds = ", ".join(f"{_KINDS.get(existing[name], 'table')} {name}" for name in foreign)
            raise MigrationError(
                f"QuestDB at {self._connection.address} has already: {kinds}. {MIGRATIONS_TABLE} does not record "
                f"{'it' if len(foreign) == 1 else 'them'} as ours.",
                hint="QuestDB has one namespace: rename what is there, or use a server of its own.",
            )

    def prepare(self) -> None:
        """Make ``schema_migrations`` where it is missing. It is no WAL table, because those don't read their writes."""
        self._connection.run(
            "CREATE TABLE IF NOT EXISTS schema_migrations "
            "(version INT, name VARCHAR, checksum VARCHAR, applied_at TIMESTAMP, execution_ms LONG)"
        )

    @property
    def prepared(self) -> bool:
        return MIGRATIONS_TABLE in self._existing()

    def missing_tables(self) -> list[str]:
        """Return the tables that the applied migrations made and that are gone."""
        existing = self._existing()
        return [table for table in final_tables(self.applied()) if table not in existing]

    def applied(self) -> list[Migration]:
        """Return the migrations that have run.

        Raises:
            MigrationError: one was edited or renamed since, or is not known here.
        """
        known = {migration.version: migration for migration in self.migrations}
        finished = [record for record in self._recorded().values() if record.finished]
        for record in finished:
            _refuse_edited(record, known.get(record.version))
        return [known[record.version] for record in sorted(finished, key=lambda record: record.version)]

    def pending(self) -> list[Migration]:
        """Return the migrations still to run, in order; one that stopped half way is among them."""
        done = {migration.version for migration in self.applied()}
        return [migration for migration in self.migrations if migration.version not in done]

    def run(self, report: Callable[[Migration, int], None] | None = None) -> list[Migration]:
        """Run what is pending; ``report`` is told each migration and its milliseconds.

        Raises:
            MigrationError: a table of our names is not ours, or one to be dropped holds rows; nothing more was run.
        """
        self.refuse_foreign_tables()
        self.prepare()
        done = []
        for migration in self.pending():
            milliseconds = self._apply(migration)
            done.append(migration)
            if report is not None:
                report(migration, milliseconds)
        return done

    def repair(self) -> list[str]:
        """Resume suspended tables, run what is pending, make missing tables again, give columns and keys back.

        Returns:
            The names of the tables that were made or altered.
        """
        before = set(self._existing())
        expected = final_tables(self.migrations)
        self._resume(expected)
        self.run()
        missing = [table for table in expected if table not in self._existing()]
        for table in missing:
            self._make_again(table)
        self._make_views()
        altered = [table for table, shape in declared_schema().items() if self._restore(table, shape)]
        changed = {*altered, *(table for table in expected if table not in before)}
        return [table for table in expected if table in changed]

    def shape(self, table: str) -> TableShape:
        """Return a table as it is now."""
        columns = self._connection.columns(table)
        return TableShape(
            tuple((column.name, column.type) for column in columns),
            frozenset(column.name for column in columns if column.is_key),
        )

    def _apply(self, migration: Migration) -> int:
        started_s = self._clock.monotonic_s()
        self._refuse_drops(migration)
        self._record_begun(migration)
        for statement in migration.statements:
            self._run(statement)
        self._await_applied(migration.tables)
        milliseconds = round((self._clock.monotonic_s() - started_s) * 1000)
        self._connection.run(
            "UPDATE schema_migrations SET applied_at = %s, execution_ms = %s WHERE version = %s",
            to_timestamp(self._clock.now_us()),
            milliseconds,
            migration.version,
        )
        return milliseconds

    def _record_begun(self, migration: Migration) -> None:
        """Claim the migration's tables before the first is made; a half-run one may have been corrected since."""
        if migration.version in self._records():
            self._connection.run(
                "UPDATE schema_migrations SET name = %s, checksum = %s WHERE version = %s",
                migration.name,
                migration.checksum,
                migration.version,
            )
            return
        self._connection.run(
            "INSERT INTO schema_migrations (version, name, checksum) VALUES (%s, %s, %s)",
            migration.version,
            migration.name,
            migration.checksum,
        )

    def _make_views(self) -> None:
        for migration in self.migrations:
            for statement in migration.statements:
                if statement.is_view:
                    self._run_view(statement)

    def _run_view(self, statement: Statement) -> None:
        """Make a view, or say why not: nothing depends on it, so that it stops no migration."""
        kind = self._existing().get(statement.table)
        if kind == "V":
            return
        if kind is not None:
            what = "a table" if kind == "T" else "a materialised view"
            self.left_alone.append(f"There is {what} {statement.table} already: the view of that name is not made.")
            return
        try:
            self._connection.run_text(statement.text)
        except DatabaseMisconfigured as error:
            self.left_alone.append(f"The view {statement.table} is not made: {error.message}")

    def _run(self, statement: Statement) -> None:
        if statement.is_view:
            self._run_view(statement)
            return
        if statement.added_column is not None:
            # `ADD COLUMN IF NOT EXISTS` of an existing column is an error on 9.3.4, and what a WAL table says of its
            # columns is what has been applied.
            self._await_applied([statement.table])
            if statement.added_column in {column.name for column in self._connection.columns(statement.table)}:
                return
        try:
            self._connection.run_text(statement.text)
        except DatabaseMisconfigured as error:
            raise MigrationError(
                f"{error.message} The statement: {' '.join(statement.text.split())[:200]}",
                hint="Nothing of what ran is lost: run the migrations again once the cause is gone.",
            ) from error

    def _refuse_drops(self, migration: Migration) -> None:
        existing = self._existing()
        for statement in migration.statements:
            if statement.action == "DROP" and statement.table in existing:
                self._refuse_drop(migration, statement.table)

    def _refuse_drop(self, migration: Migration, table: str) -> None:
        """Raise MigrationError unless an earlier migration made the table and it holds no row."""
        made = [
            statement.created_columns
            for earlier in self.migrations
            if earlier.version < migration.version
            for statement in earlier.statements
            if statement.action == "CREATE" and statement.table == table
        ]
        if tuple(column.name for column in self._connection.columns(table)) not in made:
            raise MigrationError(
                f"Migration {migration} would drop the table {table}, which has other columns than ours had.",
                hint=f"Rename it (RENAME TABLE {table} TO …), then run the migrations again.",
            )
        self._await_applied([table])
        rows = self._connection.count(table)
        if rows:
            raise MigrationError(
                f"Migration {migration} would drop the table {table}, which holds {rows} rows.",
                hint=f"Keep them under another name (RENAME TABLE {table} TO …), then run the migrations again.",
            )

    def _make_again(self, table: str) -> None:
        for migration in self.migrations:
            for statement in migration.statements:
                if statement.table == table and statement.action != "DROP":
                    self._run(statement)
        self._await_applied([table])

    def _restore(self, table: str, shape: TableShape) -> bool:
        """Give a table that somebody changed or made by hand its columns and keys back; return whether it needed it."""
        self._await_applied([table])
        found = self.shape(table)
        types = dict(found.columns)
        wrong = [name for name, kind in shape.columns if types.get(name, kind) != kind]
        if wrong or not self._is_wal(table):
            what = f"the column {wrong[0]} is {types[wrong[0]]}" if wrong else "it is no WAL table"
            raise MigrationError(
                f"The table {table} is not as declared: {what}.",
                hint=f"Rename it (RENAME TABLE {table} TO …), then run `collector db migrate --repair`.",
            )
        missing = [(name, kind) for name, kind in shape.columns if name not in types]
        for name, kind in missing:
            self._connection.run_text(f'ALTER TABLE {table} ADD COLUMN "{name}" {kind}')
        if missing or found.keys != shape.keys:
            ordered = [name for name, _ in shape.columns if name in shape.keys]
            self._connection.run_text(f"ALTER TABLE {table} DEDUP ENABLE UPSERT KEYS({', '.join(ordered)})")
            self._await_applied([table])
            return True
        return False

    def _resume(self, tables: Iterable[str]) -> None:
        """Have suspended tables go on where they stopped; one whose cause is not gone is suspended again at once."""
        names = set(tables)
        for name, suspended in self._connection.rows("SELECT name, suspended FROM wal_tables()"):
            if suspended and name in names:
                self._connection.run_text(f"ALTER TABLE {name} RESUME WAL")

    def _existing(self) -> dict[str, str]:
        """Return every table and view, in lower case (QuestDB ignores it), with its type: T, V or M."""
        return {
            str(name).lower(): str(kind)
            for name, kind in self._connection.rows("SELECT table_name, table_type FROM tables()")
        }

    def _is_wal(self, table: str) -> bool:
        return bool(self._connection.value("SELECT walEnabled FROM tables() WHERE table_name = %s", table))

    def _recorded(self) -> dict[int, Record]:
        return self._records() if MIGRATIONS_TABLE in self._existing() else {}

    def _records(self) -> dict[int, Record]:
        columns: Sequence[Column] = self._connection.columns(MIGRATIONS_TABLE)
        if not {column.name for column in columns}.issuperset(_MIGRATIONS_COLUMNS) or self._is_wal(MIGRATIONS_TABLE):
            raise MigrationError(
                f"QuestDB at {self._connection.address} has a table {MIGRATIONS_TABLE} that is not ours.",
                hint="QuestDB has one namespace: rename what is there, or use a server of its own.",
            )
        rows = self._connection.rows(
            "SELECT version, name, checksum, applied_at FROM schema_migrations ORDER BY version, applied_at"
        )
        return {row[0]: _record(row) for row in rows}

    def _await_applied(self, tables: Iterable[str]) -> None:
        """Wait until what was written and altered in WAL tables shows; raise MigrationError where it never will."""
        names = set(tables)
        deadline_s = time.monotonic() + _APPLY_TIMEOUT_S
        while True:
            state = {
                row[0]: row[1:]
                for row in self._connection.rows("SELECT name, suspended, writerTxn, sequencerTxn FROM wal_tables()")
                if row[0] in names
            }
            if suspended := sorted(name for name, (stopped, _, _) in state.items() if stopped):
                raise MigrationError(
                    f"The table {suspended[0]} is suspended: QuestDB applies nothing to it.",
                    hint=f"Look at wal_tables() for the cause, then ALTER TABLE {suspended[0]} RESUME WAL.",
                )
            waiting = sorted(name for name, (_, written, sequenced) in state.items() if written < sequenced)
            if not waiting:
                return
            if time.monotonic() > deadline_s:
                raise MigrationError(f"The table {waiting[0]} has not applied its writes for {_APPLY_TIMEOUT_S:g} s.")
            time.sleep(_POLL_S)


_KINDS = {"T": "the table", "V": "the view", "M": "the materialised view"}


def check_build(build: str) -> str:
    """Return the version in what ``build()`` answers; raise DatabaseMisconfigured for one that loses rows."""
    if "Enterprise" in build:  # numbered on its own; every Enterprise version of today stands on 9.2 or later
        return build.partition("QuestDB ")[2].partition(",")[0]
    found = re.search(r"QuestDB (\d+)\.(\d+)([.\w-]*)", build)
    if found is None:
        raise DatabaseMisconfigured(f"This is no QuestDB that names its version: {build[:100]!r}.")
    version = f"{found.group(1)}.{found.group(2)}{found.group(3)}"
    if (int(found.group(1)), int(found.group(2))) < MINIMUM_VERSION:
        raise DatabaseMisconfigured(
            f"QuestDB {version} is too old: before 9.2 it damages stored rows when equal ones are sent again to a "
            "table with dedup keys, which is how rows are delivered here.",
            hint="Update the server to 9.2 or later.",
        )
    return version


def migrate(settings: QuestDB) -> list[Migration]:
    """Run a server's pending migrations without asking; return those that ran."""
    with connect(settings) as connection:
        runner = MigrationRunner(connection)
        runner.server_version()
        return runner.run()


def repair_tables(settings: QuestDB) -> list[str]:
    """Make a server's missing tables again, with pending migrations before; return the tables made or altered."""
    with connect(settings) as connection:
        runner = MigrationRunner(connection)
        runner.server_version()
        return runner.repair()


def _record(row: tuple[Any, ...]) -> Record:
    version, name, checksum, applied_at = row
    return Record(version, name, checksum, finished=applied_at is not None)


def _refuse_edited(record: Record, migration: Migration | None) -> None:
    label = f"{record.version:03d}_{record.name}.sql"
    if migration is None:
        raise MigrationError(
            f"Migration {label} has run on this server, but is not among the files here.",
            hint="Update collector: the database is newer than this program.",
        )
    if migration.checksum != record.checksum or migration.name != record.name:
        raise MigrationError(
            f"Migration {label} has run on this server and was edited since.",
            hint="Put the file back as it was, and write the change as a new migration.",
        )
