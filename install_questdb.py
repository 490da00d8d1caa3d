"""Install the embedded QuestDB, start it and run the migrations; or migrate an existing server.

With one of QUESTDB_ILP_*, QUESTDB_HTTP_* or QUESTDB_PG_* in the environment, or with --external, nothing is installed.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

try:
    import click

    from collector.cli.db import failure, run_migrations, server_to_migrate, show_pending
    from collector.cli.output import EXIT_FAILED
    from collector.config import Config, load_config
    from collector.errors import CollectorError, ConfigError
    from collector.storage.embedded import VERSION, EmbeddedServer, resolve_settings
except ModuleNotFoundError as error:
    sys.exit(f"The dependencies are not installed ({error}): run `make run`, or `pip install -r requirements.lock`.")

_CONNECTION_VARIABLES = ("QUESTDB_ILP_", "QUESTDB_HTTP_", "QUESTDB_PG_")


@click.command(help=__doc__, epilog="Example: python install_questdb.py --yes")
@click.option("--yes", is_flag=True, help="Don't ask before running the migrations.")
@click.option("--check", is_flag=True, help="Only look: exit 0 where all is installed and migrated, otherwise 1.")
@click.option("--external", is_flag=True, help="Migrate the server that config.toml or the environment names.")
@click.option("--config", "config_path", type=click.Path(path_type=Path), help="The configuration file.")
@click.option("--data-dir", type=click.Path(path_type=Path), help="The data directory (daemon.data_dir).")
def main(*, yes: bool, check: bool, external: bool, config_path: Path | None, data_dir: Path | None) -> None:
    """Do what the module's docstring says; exit 0 done, 1 failed or refused, 2 usage."""
    try:
        config = _load(config_path, data_dir, external=external)
        done = _check(config) if check else _install(config, yes=yes)
    except CollectorError as error:
        raise failure(error) from error
    if not done:
        sys.exit(EXIT_FAILED)


def _load(config_path: Path | None, data_dir: Path | None, *, external: bool) -> Config:
    named = any(value and name.startswith(_CONNECTION_VARIABLES) for name, value in os.environ.items())
    mode = "external" if external or named else None
    overrides: dict[str, dict[str, Any]] = {"questdb": {"mode": mode}, "daemon": {"data_dir": data_dir}}
    config = load_config(config_path, environment=os.environ, overrides=overrides)
    if config.questdb.mode == "off":
        raise ConfigError('questdb.mode is "off": there is nothing to install.', hint='Set it to "embedded".')
    return config


def _install(config: Config, *, yes: bool) -> bool:
    if config.questdb.mode == "embedded":
        EmbeddedServer.from_config(config).install()
    return run_migrations(server_to_migrate(config), yes=yes, where=config.questdb.mode)


def _check(config: Config) -> bool:
    """Print what is there and what is missing; change nothing."""
    from collector.storage.migrations import MigrationRunner
    from collector.storage.sql import connect

    if config.questdb.mode == "embedded":
        server = EmbeddedServer.from_config(config)
        problems = server.problems()
        for problem in problems:
            click.echo(problem)
        if problems:
            return False
        click.echo(f"QuestDB {VERSION} is installed in {server.root}.")
        if not server.running:
            click.echo("It is not running: `collector db start` starts it.")
            return False
    with connect(resolve_settings(config)) as connection:
        runner = MigrationRunner(connection)
        click.echo(f"Connected to QuestDB {runner.server_version()} at {connection.address} ({config.questdb.mode}).")
        runner.refuse_foreign_tables()
        click.echo(f"Migration table schema_migrations is {'ready' if runner.prepared else 'missing'}.")
        pending = show_pending(runner)
        missing = runner.missing_tables()
        if missing:
            click.echo(f"Missing: {', '.join(missing)}. `collector db migrate --repair` makes them again.")
        return not (pending or missing)


if __name__ == "__main__":
    main()
