"""The commands about QuestDB itself: ``collector db …`` and ``collector console``."""

from __future__ import annotations

import functools
import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from collector.cli.output import EXIT_FAILED, EXIT_USAGE
from collector.config import Config, QuestDB, load_config
from collector.errors import CollectorError, ConfigError, UsageError
from collector.storage.embedded import VERSION, EmbeddedServer, ServerStatus, resolve_settings

if TYPE_CHECKING:
    from collector.storage.migrations import MigrationRunner


class Failure(click.ClickException):
    """Show an error of ours as its sentence and its hint, and exit 1."""

    exit_code = EXIT_FAILED


class WrongRequest(Failure):
    """Show an error in the request or the configuration, and exit 2."""

    exit_code = EXIT_USAGE


def failure(error: CollectorError) -> Failure:
    """Return what click shows for an error, with the exit status that belongs to it."""
    return WrongRequest(str(error)) if isinstance(error, UsageError) else Failure(str(error))


def configured(command: Callable[..., None]) -> Callable[..., None]:
    """Give a command ``--config`` and ``--data-dir``, pass it the configuration, and show errors as sentences."""

    @click.option("--config", "config_path", type=click.Path(path_type=Path), help="The configuration file.")
    @click.option("--data-dir", type=click.Path(path_type=Path), help="The data directory (daemon.data_dir).")
    @functools.wraps(command)
    def run(*, config_path: Path | None, data_dir: Path | None, **options: Any) -> None:
        try:
            overrides = {"daemon": {"data_dir": data_dir}}
            command(load_config(config_path, environment=os.environ, overrides=overrides), **options)
        except CollectorError as error:
            raise failure(error) from error

    return run


@click.group()
def db() -> None:
    """Install, start, stop and migrate QuestDB.

    Example: collector db migrate --yes
    """


@db.command()
@configured
def install(config: Config) -> None:
    """Fetch the embedded QuestDB and write its configuration; harmless twice.

    Example: collector db install
    """
    server = _embedded(config)
    _install(server)
    click.echo(f"QuestDB {VERSION} is installed in {server.root}.")


@db.command()
@configured
def start(config: Config) -> None:
    """Start the embedded QuestDB in the background, installing it where it is missing.

    Example: collector db start
    """
    server = _embedded(config)
    started = _start(server)
    status = server.status()
    click.echo(f"QuestDB {'has started' if started else 'runs already'} (pid {status.pid}): {_addresses(status)}.")


@db.command()
@configured
def stop(config: Config) -> None:
    """End the embedded QuestDB.

    Example: collector db stop
    """
    click.echo("QuestDB has stopped." if _embedded(config).stop() else "QuestDB was not running.")


@db.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@configured
def status(config: Config, *, as_json: bool) -> None:
    """Show where QuestDB is, whether it answers, and which migrations it has.

    Example: collector db status --json
    """
    facts = database_status(config)
    if as_json:
        click.echo(json.dumps(facts))
        return
    for name, value in facts.items():
        shown = ", ".join(value) if isinstance(value, list) else value
        click.echo(f"{name.replace('_', ' '):<12} {'-' if shown in (None, '') else shown}")


@db.command()
@click.option("--yes", is_flag=True, help="Don't ask before running them.")
@click.option("--repair", is_flag=True, help="Make missing tables again, and give tables their columns and keys back.")
@configured
def migrate(config: Config, *, yes: bool, repair: bool) -> None:
    """Run the pending migrations, on the embedded server or on the configured external one.

    Example: collector db migrate --yes

    Example, after a table was dropped: collector db migrate --repair
    """
    if not run_migrations(server_to_migrate(config), yes=yes, repair=repair, where=config.questdb.mode):
        sys.exit(EXIT_FAILED)


@click.command()
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
@configured
def console(config: Config, *, as_json: bool) -> None:
    """Print the address of QuestDB's web console and the credentials to sign in with.

    Example: collector console
    """
    settings = _settings(config)
    facts = {
        "address": f"http://{settings.ilp_host}:{settings.ilp_port}/index.html",
        "user": settings.http_user,
        "password": settings.http_password.get_secret_value(),
        "pg_address": f"{settings.pg_host}:{settings.pg_port}",
        "pg_user": settings.pg_user,
        "pg_password": settings.pg_password.get_secret_value(),
        "pg_database": settings.pg_database,
    }
    if as_json:
        click.echo(json.dumps(facts))
        return
    click.echo(f"Console    {facts['address']}")
    click.echo(f"User       {facts['user']}")
    click.echo(f"Password   {facts['password']}")
    click.echo(f"PG wire    {facts['pg_address']}, database {facts['pg_database']}, user {facts['pg_user']}")
    if config.questdb.mode == "embedded" and not EmbeddedServer.from_config(config).running:
        click.echo("QuestDB is not running: `collector db start` starts it.", err=True)


# What the commands share with install_questdb.py


def server_to_migrate(config: Config) -> QuestDB:
    """Return where to migrate; the embedded server is installed and started first where it is not."""
    if config.questdb.mode == "embedded":
        _start(_embedded(config))
    return _settings(config)


def run_migrations(settings: QuestDB, *, yes: bool, where: str, repair: bool = False) -> bool:
    """Say what is pending, ask, and run it; return False where the person said no.

    Raises:
        CollectorError: the server doesn't answer, is too old, has tables of our names, or a migration fails.
    """
    from collector.storage.migrations import MigrationRunner
    from collector.storage.sql import connect

    with connect(settings) as connection:
        runner = MigrationRunner(connection)
        click.echo(f"Connected to QuestDB {runner.server_version()} at {connection.address} ({where}).")
        runner.refuse_foreign_tables()
        runner.prepare()
        click.echo("Migration table schema_migrations is ready.")
        pending = show_pending(runner)
        if pending and not (yes or _confirmed("Execute these migrations? (y/N) ")):
            click.echo("Nothing was executed.")
            return False
        runner.run(lambda migration, milliseconds: click.echo(f"{migration}: {milliseconds} ms"))
        for told in runner.left_alone:
            click.echo(told)
        if repair:
            made = runner.repair()
            click.echo(f"Made again: {', '.join(made)}." if made else "No table was missing.")
        click.echo(f"Done: the schema is up to date, {len(runner.migrations)} migrations are applied.")
    return True


def show_pending(runner: MigrationRunner) -> bool:
    """Print how many migrations are applied and available and which are pending; return whether any is."""
    pending = runner.pending()
    click.echo(f"Migrations: {len(runner.migrations) - len(pending)} applied, {len(runner.migrations)} available.")
    click.echo("Pending:" if pending else "Pending: none.")
    for migration in pending:
        click.echo(f"  {migration}")
    return bool(pending)


def database_status(config: Config) -> dict[str, Any]:
    """Return what ``db status`` prints: mode, addresses, process, version, migrations, and what is wrong."""
    mode = config.questdb.mode
    facts: dict[str, Any] = {"mode": mode}
    if mode == "off":
        return facts
    if mode == "embedded":
        process = EmbeddedServer.from_config(config).status()
        facts |= {"installed": process.installed, "pid": process.pid, "root": str(process.root)}
        facts |= {"http_address": process.http_address, "pg_address": process.pg_address}
        if not process.running:
            return {**facts, "answers": False}
    else:
        facts["http_address"] = f"{config.questdb.ilp_host}:{config.questdb.ilp_port}"
        facts["pg_address"] = f"{config.questdb.pg_host}:{config.questdb.pg_port}"
    return facts | _ask_server(resolve_settings(config))


def _ask_server(settings: QuestDB) -> dict[str, Any]:
    from collector.storage.migrations import MigrationRunner
    from collector.storage.sql import connect

    try:
        with connect(settings, query_timeout_s=5) as connection:
            runner = MigrationRunner(connection)
            facts: dict[str, Any] = {"answers": True, "version": runner.server_version()}
            facts["applied"] = [str(migration) for migration in runner.applied()]
            facts["pending"] = [str(migration) for migration in runner.pending()]
            facts["missing_tables"] = runner.missing_tables()
            return facts
    except CollectorError as error:
        return {"answers": not error.retryable, "error": str(error)}


def _settings(config: Config) -> QuestDB:
    if config.questdb.mode == "off":
        raise ConfigError('questdb.mode is "off": there is no QuestDB.', hint='Set it to "embedded" or "external".')
    return resolve_settings(config)


def _embedded(config: Config) -> EmbeddedServer:
    if config.questdb.mode != "embedded":
        raise ConfigError(
            f'questdb.mode is "{config.questdb.mode}": there is no embedded QuestDB to install, start or stop.',
            hint="Only `collector db status` and `collector db migrate` concern an external server.",
        )
    return EmbeddedServer.from_config(config)


def _install(server: EmbeddedServer) -> None:
    if not server.installed:
        click.echo(f"Installing QuestDB {VERSION} in {server.root} …", err=True)
    server.install()


def _start(server: EmbeddedServer) -> bool:
    if server.running:
        return server.start()
    _install(server)
    click.echo("Starting QuestDB …", err=True)
    return server.start()


def _addresses(status: ServerStatus) -> str:
    return f"console and ILP at {status.http_address}, PG wire at {status.pg_address}"


def _confirmed(question: str) -> bool:
    """Ask a person; no answer at all (no terminal, an empty line) means no."""
    click.echo(question, nl=False)
    answer = sys.stdin.readline()
    if not answer.endswith("\n"):
        click.echo()
    return answer.strip().lower() in ("y", "yes")
