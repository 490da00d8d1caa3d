"""The commands about sessions: start, stop, sessions, status, show."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from collector.cli.options import (
    DATA_TYPES,
    DURATION,
    EXCHANGE,
    LABEL,
    REST_URL,
    SESSION,
    SYMBOLS_OR_RULES,
    WS_URL,
    data_dir_of,
    json_option,
    place_options,
)
from collector.errors import DaemonNotRunning, UsageError

if TYPE_CHECKING:
    from collector.requests import StartRequest
    from collector.session.manifest import Manifest
    from collector.status import DaemonStatus, SessionStatus

_STATES = ("starting", "active", "degraded", "stopping", "completed", "failed", "interrupted")
_WATCH_INTERVAL_S = 1.0
_WATCH_PLAIN_INTERVAL_S = 5.0


@click.command()
@click.option("--exchange", type=EXCHANGE, required=True, help="Exchange: binance, …; sim is the simulated one.")
@click.option(
    "--symbols",
    type=SYMBOLS_OR_RULES,
    required=True,
    help="Comma-separated: BTC_USDT,ETH_USDT; top:50 or top:50:EUR by 24 h volume; all:USDT.",
)
@click.option(
    "--data-types",
    type=DATA_TYPES,
    help="prices,orderbook,… or all that the exchange offers.  [default: session.data_types]",
)
@click.option("--duration", "duration_s", type=DURATION, help="Stop after 90s, 15m, 1h, 2d.  [default: never]")
@click.option("--label", type=LABEL, default="", help="A note of your own, kept with the session.")
@click.option("--id", "session_id", default="", help="The session's id.  [default: time, exchange and four digits]")
@click.option(
    "--trades",
    type=click.Choice(["aggregated", "raw"]),
    default="aggregated",
    show_default=True,
    help="Which trades to collect.",
)
@click.option(
    "--book-levels",
    type=click.IntRange(1, 1000),
    metavar="N",
    help="Levels of each side in a row of the order book.  [default: orderbook.levels]",
)
@click.option("--record-raw/--no-record-raw", default=None, help="Keep the raw messages too, for `collector replay`.")
@click.option("--ws-url", type=WS_URL, default="", help="Websocket address in place of the exchange's own.")
@click.option("--rest-url", type=REST_URL, default="", help="REST address in place of the exchange's own.")
@json_option
@place_options
def start(
    *, trades: str, as_json: bool, config_path: Path | None, data_dir: Path | None, **order: Any
) -> None:  # the order's fields are the daemon's to check
    """Start a session; without a running daemon, one is started in the background.

    The symbols are checked with the exchange before anything is written. The command returns once the session has
    begun; `collector status --watch` shows what it collects, and `collector stop` ends it.

    \b
    Example:
      collector start --exchange binance --symbols BTC_USDT,ETH_USDT --duration 1h
      collector start --exchange sim --symbols BTC_USDT --data-types prices --label "first try"
    """
    from collector.cli.daemon import ensure_daemon
    from collector.control import ask
    from collector.requests import to_arguments

    folder = data_dir_of(config_path, data_dir)
    if order["session_id"]:
        from collector.session.names import check_session_id

        check_session_id(order["session_id"])
    request = make_start_request(order, trades)
    ensure_daemon(config_path, folder)
    session = read_session(ask(folder, "start", to_arguments(request), timeout_s=None))
    if as_json:
        _print_json(session)
        return
    click.echo(f"Session {session.session_id} is {session.state} on {session.exchange}.")
    click.echo(f"Files: {session.directory}")
    click.echo(f"Watch it with `collector status {session.session_id} --watch`.")


@click.command()
@click.argument("session", type=SESSION, required=False)
@click.option("--all", "every", is_flag=True, help="Stop every session that runs.")
@json_option
@place_options
def stop(*, session: str | None, every: bool, as_json: bool, config_path: Path | None, data_dir: Path | None) -> None:
    """Stop a session: its last rows are flushed and delivered, and it is completed.

    \b
    Example:
      collector stop 20261121-081500-binance-7f3a
      collector stop --all
    """
    from collector.control import ask
    from collector.requests import StopRequest, to_arguments

    if bool(session) == every:
        raise UsageError("Say which session to stop, or --all.", hint="`collector sessions` lists them.")
    folder = data_dir_of(config_path, data_dir)
    request = to_arguments(StopRequest(sessions=(session,) if session else (), every=every))
    progress = None if as_json else _say
    stopped = [read_session(item) for item in ask(folder, "stop", request, timeout_s=None, on_progress=progress)]
    if as_json:
        _print_json(stopped)
        return
    for item in stopped:
        click.echo(f"Session {item.session_id} is {item.state}: {sum(item.rows.values()):,} rows, {item.gaps} gaps.")
    if not stopped:
        click.echo("No session was running.")


@click.command()
@click.option("--status", "state", type=click.Choice(_STATES), help="Only those in this state.")
@json_option
@place_options
def sessions(*, state: str | None, as_json: bool, config_path: Path | None, data_dir: Path | None) -> None:
    """List the sessions of the data directory, oldest first; works without a daemon too.

    \b
    Example:
      collector sessions --status active
      collector sessions --json
    """
    folder = data_dir_of(config_path, data_dir)
    found, problems = all_sessions(folder)
    found = [session for session in found if state in (None, session.state)]
    if as_json:
        _print_json({"sessions": found, "problems": problems})
        return
    if found:
        from collector.cli.output import print_view
        from collector.cli.render import sessions_table

        print_view(sessions_table(found))
    else:
        click.echo(f"There is no {f'{state} ' if state else ''}session in {folder}.")
    for problem in problems:
        click.echo(f"warning: {problem}", err=True)


@click.command()
@click.argument("session", type=SESSION, required=False)
@click.option("--watch", is_flag=True, help="Keep showing it, until Ctrl-C or the session's end.")
@json_option
@place_options
def status(*, session: str | None, watch: bool, as_json: bool, config_path: Path | None, data_dir: Path | None) -> None:
    """Show what the daemon is doing, or one session: prices, rows per second, age of the last event, gaps.

    \b
    Example:
      collector status
      collector status 20261121-081500-binance-7f3a --watch
    """
    folder = data_dir_of(config_path, data_dir)
    if watch:
        _watch(folder, session, as_json=as_json)
        return
    daemon = ask_status(folder)
    if daemon is None and session is None:
        raise DaemonNotRunning(
            f"No daemon runs for the data directory {folder}.", hint="Start one with `collector up --detach`."
        )
    shown = daemon if daemon is not None and session is None else one_session(folder, session or "", daemon)
    if as_json:
        _print_json(shown)
    else:
        from collector.cli.output import print_view

        print_view(_view(shown, daemon))


@click.command()
@click.argument("session", type=SESSION)
@json_option
@place_options
def show(*, session: str, as_json: bool, config_path: Path | None, data_dir: Path | None) -> None:
    """Show all that is known of a session: its manifest, its files, its states and why; works without a daemon too.

    \b
    Example:
      collector show 20261121-081500-binance-7f3a
    """
    from collector.reading.sessions import find_session

    folder = data_dir_of(config_path, data_dir)
    stored = find_session(folder, session)
    live = next((one for one in _live_sessions(ask_status(folder)) if one.session_id == stored.session_id), None)
    if as_json:
        _print_json({"manifest": stored.manifest, "status": live, "directory": str(stored.directory)})
        return
    from collector.cli.output import print_view
    from collector.cli.render_session import manifest_view

    print_view(manifest_view(stored.manifest, live or stored_status(stored.manifest, stored.directory)))


# What other commands use too


def make_start_request(order: Mapping[str, Any], trades: str) -> StartRequest:
    """Return the request that a command's options mean; an option that was not given is left to the configuration."""
    from collector.requests import StartRequest

    given = {key: value for key, value in order.items() if value is not None}
    return StartRequest(**given, raw_trades=trades == "raw")


def stop_one(data_dir: Path, session_id: str) -> SessionStatus:
    """Stop a session and return what it then is."""
    from collector.control import ask
    from collector.requests import StopRequest, to_arguments

    stopped = ask(data_dir, "stop", to_arguments(StopRequest(sessions=(session_id,))), timeout_s=None)
    return read_session(stopped[0])


def read_session(answer: Any) -> SessionStatus:
    """Return a session's status as the daemon's answer has it."""
    import msgspec

    from collector.status import SessionStatus

    return msgspec.convert(answer, SessionStatus)


def ask_status(data_dir: Path) -> DaemonStatus | None:
    """Return the daemon's status, None where none runs."""
    import msgspec

    from collector.control import ask
    from collector.status import DaemonStatus

    try:
        return msgspec.convert(ask(data_dir, "status", timeout_s=10), DaemonStatus)
    except DaemonNotRunning:
        return None


def all_sessions(data_dir: Path) -> tuple[list[SessionStatus], list[str]]:
    """Return every session of a data directory, as the daemon knows it or else as its manifest does, oldest first."""
    from collector.reading.sessions import list_sessions

    live = {session.session_id: session for session in _live_sessions(ask_status(data_dir))}
    stored, problems = list_sessions(data_dir)
    return [live.get(one.session_id) or stored_status(one.manifest, one.directory) for one in stored], problems


def one_session(data_dir: Path, session_id: str, daemon: DaemonStatus | None) -> SessionStatus:
    """Return a session's status; raise SessionNotFound with the nearest ids."""
    for session in _live_sessions(daemon):
        if session.session_id == session_id:
            return session
    from collector.reading.sessions import find_session

    stored = find_session(data_dir, session_id)
    return stored_status(stored.manifest, stored.directory)


def stored_status(manifest: Manifest, directory: Path) -> SessionStatus:
    """Return the status of a session that no daemon runs, as its manifest has it; a running one was interrupted."""
    from collector.status import LIVE_STATES, BufferStatus, SessionStatus

    interrupted = manifest.state in LIVE_STATES
    rows: dict[str, int] = {}
    for file in manifest.files:
        rows[file.stream] = rows.get(file.stream, 0) + file.rows
    return SessionStatus(
        session_id=manifest.session_id,
        exchange=manifest.exchange,
        state="interrupted" if interrupted else manifest.state,  # type: ignore[arg-type]  # the manifest's are the same
        symbols=tuple(manifest.symbols),
        data_types=tuple(manifest.data_types),
        directory=str(directory),
        created_us=manifest.created_us,
        label=manifest.label,
        reason="no daemon runs it" if interrupted else manifest.reason,
        started_us=manifest.started_us,
        ended_us=manifest.ended_us,
        duration_s=manifest.duration_s,
        rows=rows,
        gaps=manifest.gaps,
        gaps_open=manifest.open_gaps,
        errors=manifest.errors,
        buffer=BufferStatus(received=manifest.received, written=manifest.written, dropped=manifest.dropped),
    )


def _live_sessions(daemon: DaemonStatus | None) -> tuple[SessionStatus, ...]:
    return daemon.sessions if daemon else ()


def _watch(data_dir: Path, session_id: str | None, *, as_json: bool) -> None:
    """Show a status until Ctrl-C, or until the session or the daemon has ended."""
    import time

    from collector.cli.render import draw_repeatedly

    ended = False

    def look() -> tuple[DaemonStatus | SessionStatus, DaemonStatus | None] | None:
        nonlocal ended
        daemon = ask_status(data_dir)
        if ended or (daemon is None and session_id is None):
            return None
        if daemon is not None and session_id is None:
            return daemon, daemon
        session = one_session(data_dir, session_id or "", daemon)
        ended = not session.is_live
        return session, daemon

    try:
        if not as_json:
            intervals_s = (_WATCH_INTERVAL_S, _WATCH_PLAIN_INTERVAL_S)
            draw_repeatedly(look, draw=lambda seen: _view(*seen), intervals_s=intervals_s, wait=time.sleep)
            return
        while (seen := look()) is not None:
            _print_json(seen[0])
            time.sleep(_WATCH_INTERVAL_S)
    except KeyboardInterrupt:
        return


def _view(shown: DaemonStatus | SessionStatus, daemon: DaemonStatus | None) -> Any:
    from collector.cli.render import daemon_view, session_view
    from collector.status import SessionStatus

    if isinstance(shown, SessionStatus):
        return session_view(shown, daemon.questdb if daemon else None)
    return daemon_view(shown)


def _print_json(facts: Any) -> None:
    from collector.cli.output import print_json

    print_json(facts)


def _say(line: Any) -> None:
    click.echo(f"{line} …", err=True)
