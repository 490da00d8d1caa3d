"""The command that examines a data directory and its server, and mends what it can."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from collector.cli.options import SESSION, json_option, place_options
from collector.cli.output import EXIT_FAILED

if TYPE_CHECKING:
    from collector.config import Config, QuestDB


@click.command()
@click.argument("session", type=SESSION, required=False)
@click.option("--fix", is_flag=True, help="Mend what can be mended; what it would do is said without it.")
@click.option("--deep", is_flag=True, help="Read ended sessions' files again and compare their hashes.")
@json_option
@place_options
def doctor(
    *,
    session: str | None,
    fix: bool,
    deep: bool,
    as_json: bool,
    config_path: Path | None,
    data_dir: Path | None,
) -> None:
    """Examine a data directory and its QuestDB: what is wrong, and what to do about it.

    Works beside a running daemon (its running sessions are left in peace) and without one. Exit status 0 where nothing
    is wrong, or all was mended.

    \b
    Example:
      collector doctor
      collector doctor 20261121-081500-binance-7f3a --fix
    """
    from collector.config import load_config
    from collector.doctor.examination import Examination
    from collector.errors import UsageError

    config = load_config(config_path, environment=os.environ, overrides={"daemon": {"data_dir": data_dir}})
    folder = config.daemon.data_dir.resolve()
    if not folder.is_dir():
        raise UsageError(f"There is no data directory {folder}.", hint="Give it with --data-dir.")
    running, resend = _daemon(folder)
    settings, reason = _database(config)
    examination = Examination(
        folder,
        settings=settings,
        reason=reason,
        running=running,
        resend=resend,
        deep=deep,
        replicated=config.questdb.mode != "off",
    )
    diagnosis = examination.run(session, fix=fix)
    if as_json:
        from collector.cli.output import print_json

        print_json({"healthy": diagnosis.healthy, "diagnosis": diagnosis})
    else:
        click.echo(diagnosis.text())
    if not diagnosis.healthy:
        sys.exit(EXIT_FAILED)


def _daemon(data_dir: Path) -> tuple[list[str], Any]:
    """Return the sessions that a daemon runs, and how to have it send rows again; nothing where none runs."""
    from collector.control import ask
    from collector.errors import DaemonNotRunning
    from collector.requests import ResyncRequest, to_arguments

    try:
        sessions = ask(data_dir, "status")["sessions"]
    except DaemonNotRunning:
        return [], None
    running = [entry["session_id"] for entry in sessions if entry["state"] not in ("completed", "failed")]

    def resend(session_id: str) -> None:
        ask(data_dir, "resync", to_arguments(ResyncRequest(session=session_id)), timeout_s=None)

    return running, resend


def _database(config: Config) -> tuple[QuestDB | None, str]:
    """Return where QuestDB answers, or why it is not asked."""
    from collector.errors import CollectorError
    from collector.storage.embedded import EmbeddedServer, resolve_settings

    if config.questdb.mode == "off":
        return None, "off"
    if config.questdb.mode == "embedded" and not EmbeddedServer.from_config(config).status().running:
        return None, "the embedded QuestDB does not run (`collector db start` starts it)"
    try:
        return resolve_settings(config), ""
    except CollectorError as error:
        return None, str(error).rstrip(".")
