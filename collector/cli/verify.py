"""The commands that prove and mend the replica: verify, import, resync."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from collector.cli.options import SESSION, data_dir_of, json_option, place_options
from collector.cli.output import EXIT_FAILED
from collector.errors import DaemonNotRunning

if TYPE_CHECKING:
    import msgspec

    from collector.config import QuestDB
    from collector.reading.report import Report


@click.command()
@click.argument("session", type=SESSION)
@json_option
@place_options
def verify(*, session: str, as_json: bool, config_path: Path | None, data_dir: Path | None) -> None:
    """Prove that a session's CSV and QuestDB hold the same rows, value by value, and that its candles fit its trades.

    Works while the session runs, and without a daemon. Exit status 0 only when all agree; otherwise the first rows
    that differ are named.

    \b
    Example:
      collector verify 20261121-081500-binance-7f3a
    """
    folder = data_dir_of(config_path, data_dir)
    report = verify_anywhere(folder, session, config_path, quiet=as_json)
    if as_json:
        from collector.cli.output import print_json

        print_json({"agrees": report.agrees, "report": report})
    else:
        click.echo(report.text())
    if not report.agrees:
        sys.exit(EXIT_FAILED)


@click.command("import")
@click.argument("session", type=SESSION, metavar="SESSION|PATH")
@json_option
@place_options
def import_session(*, session: str, as_json: bool, config_path: Path | None, data_dir: Path | None) -> None:
    """Send a session's CSV to QuestDB again, all of it; doing it twice changes nothing.

    A PATH is a session's directory, wherever it is.

    \b
    Example:
      collector import 20261121-081500-binance-7f3a
      collector import /backup/session_20261121-081500-binance-7f3a
    """
    from collector.requests import SessionRequest

    folder = data_dir_of(config_path, data_dir)
    _send_again(folder, config_path, "import", SessionRequest(session=_id_or_path(folder, session)), as_json=as_json)


@click.command()
@click.argument("session", type=SESSION)
@click.option(
    "--from", "from_seq", type=click.IntRange(min=0), metavar="SEQ", default=0, help="The first row.  [default: 0]"
)
@json_option
@place_options
def resync(*, session: str, from_seq: int, as_json: bool, config_path: Path | None, data_dir: Path | None) -> None:
    """Send a session's rows to QuestDB again from a seq on; harmless at any time.

    \b
    Example:
      collector resync 20261121-081500-binance-7f3a --from 120000
    """
    from collector.requests import ResyncRequest

    folder = data_dir_of(config_path, data_dir)
    request = ResyncRequest(session=session, from_seq=from_seq)
    _send_again(folder, config_path, "resync", request, as_json=as_json)


def verify_anywhere(data_dir: Path, session: str, config_path: Path | None = None, *, quiet: bool = False) -> Report:
    """Verify a session through the daemon, or here where none runs.

    Raises:
        SessionNotFound: there is none of that id.
        CollectorError: QuestDB cannot be asked.
    """
    import msgspec

    from collector.control import ask
    from collector.reading.report import Report
    from collector.requests import SessionRequest, to_arguments

    arguments = to_arguments(SessionRequest(session=session))
    try:
        answer = ask(data_dir, "verify", arguments, timeout_s=None, on_progress=None if quiet else _say)
    except DaemonNotRunning:
        return _verify_here(data_dir, session, config_path)
    return msgspec.convert(answer, Report)


def _verify_here(data_dir: Path, session: str, config_path: Path | None) -> Report:
    """Verify without a daemon; an embedded QuestDB that is not running is started for as long as it takes."""
    import contextlib
    import os

    from collector.config import load_config
    from collector.reading.sessions import find_session
    from collector.reading.verify import verify_session
    from collector.storage.embedded import EmbeddedServer, resolve_settings

    stored = find_session(data_dir, session)
    config = load_config(config_path, environment=os.environ, overrides={"daemon": {"data_dir": data_dir}})
    with contextlib.ExitStack() as afterwards:
        settings: QuestDB | None = None
        if config.questdb.mode == "embedded":
            server = EmbeddedServer.from_config(config)
            if server.start():
                afterwards.callback(server.stop)
        if config.questdb.mode != "off":
            settings = resolve_settings(config)
        return verify_session(stored.directory, settings)


def _id_or_path(data_dir: Path, name: str) -> str:
    """Return an id as it is and a path as an absolute one, because the daemon has another working directory."""
    if (data_dir / f"session_{name}").is_dir() or not Path(name).is_dir():
        return name
    return str(Path(name).resolve())


def _send_again(
    data_dir: Path, config_path: Path | None, command: str, request: msgspec.Struct, *, as_json: bool
) -> None:
    from collector.cli.daemon import ensure_daemon
    from collector.control import ask
    from collector.requests import to_arguments

    ensure_daemon(config_path, data_dir)
    progress = None if as_json else _say
    answer = ask(data_dir, command, to_arguments(request), timeout_s=None, on_progress=progress)
    if as_json:
        from collector.cli.output import print_json

        print_json(answer)
        return
    rejected = f", {answer['rejected_rows']:,} rejected" if answer["rejected_rows"] else ""
    click.echo(f"QuestDB has all rows of {answer['session_id']}: {answer['rows']:,} acknowledged{rejected}.")


def _say(line: Any) -> None:
    click.echo(f"{line} …", err=True)
