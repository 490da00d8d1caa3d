"""``collector run``: everything at once, watched live, from an empty machine to a proven session."""

from __future__ import annotations

import contextlib
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click

from collector.cli.options import EXCHANGE, SYMBOLS_OR_RULES, config_option, data_dir_option
from collector.cli.output import EXIT_FAILED
from collector.errors import CollectorError, ConnectionLost, DaemonNotRunning, ExchangeRefused
from collector.streams import ORDERBOOK, PRICES

if TYPE_CHECKING:
    from rich.console import RenderableType

    from collector.config import Config
    from collector.reading.report import Report
    from collector.status import DaemonStatus, SessionStatus

_DATA_TYPES = (PRICES.name, ORDERBOOK.name)
_REACH_TIMEOUT_S = 10.0
_DATA_TIMEOUT_S = 3.0
_DRAW_INTERVAL_S = 0.5
_PLAIN_INTERVAL_S = 5.0
_POLL_S = 0.1


@click.command()
@click.option("--exchange", type=EXCHANGE, default="binance", show_default=True, help="Exchange to collect from.")
@click.option(
    "--symbols", type=SYMBOLS_OR_RULES, default="BTC_USDT,ETH_USDT", show_default=True, help="Symbols to collect."
)
@click.option(
    "--seconds", type=click.FloatRange(min=0, min_open=True), metavar="N", help="End by itself after this many seconds."
)
@config_option
@data_dir_option
def run(
    *, exchange: str, symbols: tuple[str, ...], seconds: float | None, config_path: Path | None, data_dir: Path | None
) -> None:
    """Collect live and watch it: QuestDB, daemon and session in one, until Ctrl-C.

    Ctrl-C completes the session: everything is flushed, delivered and verified, and a summary is printed. Where the
    exchange cannot be reached within 10 s, the built-in simulated exchange takes its place, and says exchange=sim
    everywhere.

    \b
    Example:
      collector run
      collector run --exchange binance_futures --symbols BTC_USDT --seconds 60
    """
    import os

    from collector.config import load_config

    config = load_config(config_path, environment=os.environ, overrides={"daemon": {"data_dir": data_dir}})
    _prepare_questdb(config)
    with _interrupts_raised(), _daemon(config, config_path):
        folder = config.daemon.data_dir
        session = _begin(folder, exchange, symbols)
        with contextlib.suppress(KeyboardInterrupt):
            _watch(folder, session.session_id, seconds)
        agreed = _finish(folder, session.session_id)
    if not agreed:
        sys.exit(EXIT_FAILED)


def _prepare_questdb(config: Config) -> None:
    """Install, start and migrate QuestDB; without it the run goes on in CSV, and says so."""
    from collector.cli.db import run_migrations, server_to_migrate

    if config.questdb.mode == "off":
        click.echo('QuestDB is off (questdb.mode = "off"): collecting to CSV only.')
        return
    try:
        run_migrations(server_to_migrate(config), yes=True, where=config.questdb.mode)
    except CollectorError as error:
        click.echo(f"warning: QuestDB cannot be used now: {error}", err=True)
        click.echo("Collecting to CSV; the rows follow when QuestDB is there.", err=True)


@contextlib.contextmanager
def _interrupts_raised() -> Iterator[None]:
    """Have SIGTERM end the run as Ctrl-C does, and Ctrl-C too where a script started us with SIGINT ignored."""

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    before = {number: signal.signal(number, interrupt) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _daemon(config: Config, config_path: Path | None) -> Iterator[None]:
    """Use the daemon that runs, or have one for as long as the run takes."""
    from collector.cli.daemon import end_daemon, spawn, wait_until_up
    from collector.control import ask

    folder, log_dir = config.daemon.data_dir, config.daemon.log_dir
    try:
        ask(folder, "ping", timeout_s=10)
    except DaemonNotRunning:
        process = spawn(config_path, folder, log_dir)
    else:
        click.echo("A daemon runs already: the session joins it.")
        yield
        return
    try:
        wait_until_up(process, folder, log_dir)
        yield
        end_daemon(folder)
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait()


def _begin(folder: Path, exchange: str, symbols: tuple[str, ...]) -> SessionStatus:
    """Start the session, against the simulated exchange where the wanted one cannot be reached."""
    if exchange != "sim":
        try:
            return _start_and_await_data(folder, exchange, symbols)
        except (ConnectionLost, ExchangeRefused) as error:
            click.echo(f"{exchange} cannot be reached: {error.message}")
            click.echo("Collecting from the built-in simulated exchange instead: exchange=sim, invented prices.")
    return _start(folder, "sim", symbols)


def _start(data_dir: Path, exchange: str, symbols: tuple[str, ...]) -> SessionStatus:
    from collector.cli.sessions import read_session
    from collector.control import ask
    from collector.requests import StartRequest, to_arguments

    request = StartRequest(
        exchange=exchange,
        symbols=symbols,
        data_types=_DATA_TYPES,
        reach_timeout_s=_REACH_TIMEOUT_S if exchange != "sim" else None,
    )
    session = read_session(ask(data_dir, "start", to_arguments(request), timeout_s=None))
    click.echo(f"Session {session.session_id} has begun: exchange={exchange}, {', '.join(symbols)}.")
    return session


def _start_and_await_data(data_dir: Path, exchange: str, symbols: tuple[str, ...]) -> SessionStatus:
    """Start a session; where nothing comes in time, stop it and raise ConnectionLost."""
    from collector.cli.sessions import ask_status, one_session, stop_one

    deadline_s = time.monotonic() + _REACH_TIMEOUT_S
    click.echo(f"Reaching {exchange} …")
    session = _start(data_dir, exchange, symbols)
    deadline_s = max(deadline_s, time.monotonic() + _DATA_TIMEOUT_S)
    while time.monotonic() < deadline_s:
        session = one_session(data_dir, session.session_id, ask_status(data_dir))
        if any(session.rows.values()) or not session.is_live:
            return session
        time.sleep(_POLL_S)
    stop_one(data_dir, session.session_id)
    raise ConnectionLost(f"it has sent nothing for {_REACH_TIMEOUT_S:g} s; session {session.session_id} is stopped.")


def _watch(data_dir: Path, session_id: str, seconds: float | None) -> None:
    """Show the session until Ctrl-C, until the time is over, or until it ends by itself."""
    from collector.cli.render import draw_repeatedly, plain_lines
    from collector.cli.sessions import ask_status

    until_s = None if seconds is None else time.monotonic() + seconds

    def look() -> tuple[DaemonStatus, SessionStatus] | None:
        daemon = ask_status(data_dir)
        if daemon is None:
            raise CollectorError("The daemon has ended.", hint="Its log says why.")
        session = next((one for one in daemon.sessions if one.session_id == session_id), None)
        if session is None or not session.is_live or (until_s is not None and time.monotonic() >= until_s):
            return None
        return daemon, session

    def wait(interval_s: float) -> None:
        left_s = interval_s if until_s is None else min(interval_s, until_s - time.monotonic())
        time.sleep(max(0.0, left_s))

    draw_repeatedly(
        look,
        draw=lambda seen: _view(*seen),
        plain=lambda seen: plain_lines(*seen),
        intervals_s=(_DRAW_INTERVAL_S, _PLAIN_INTERVAL_S),
        wait=wait,
    )


def _view(daemon: DaemonStatus, session: SessionStatus) -> RenderableType:
    from rich.console import Group
    from rich.text import Text

    from collector.cli.render import facts, questdb_text, state_text, symbols_table
    from collector.wording import count_text, duration_text

    age_s = time.time() - (session.started_us or session.created_us) / 1_000_000
    title = Text(f"{session.session_id}  exchange={session.exchange}  ", style="bold").append(state_text(session.state))
    if session.reason:
        title.append(f": {session.reason}", style="default")
    if session.exchange == "sim":
        title.append("  SIMULATED: invented prices", style="bold yellow")
    return Group(
        title,
        symbols_table(session.per_symbol),
        facts(
            [
                ("QuestDB", questdb_text(daemon.questdb)),
                ("Candles", f"{count_text(session.candles_closed)} closed"),
                ("Gaps", f"{count_text(session.gaps)}, {count_text(session.gaps_open)} open"),
                ("Running", f"for {duration_text(age_s)}; Ctrl-C completes the session"),
                ("Open", "  ".join(_addresses(daemon)) or "-"),
                ("Files", session.directory),
            ]
        ),
        Text(),
    )


def _addresses(daemon: DaemonStatus) -> list[str]:
    api = daemon.api_url.rstrip("/")
    return [
        url
        for url in (daemon.questdb.console_url, f"{api}/health" if api else "", f"{api}/metrics" if api else "")
        if url
    ]


def _finish(data_dir: Path, session_id: str) -> bool:
    """Complete the session, deliver and verify it, print the summary; return whether all is well."""
    from collector.cli.sessions import ask_status, one_session, stop_one
    from collector.cli.verify import verify_anywhere

    session = one_session(data_dir, session_id, ask_status(data_dir))
    if session.is_live:
        click.echo("Completing the session: flushing, delivering, verifying …")
        session = stop_one(data_dir, session_id)
    report: Report | None = None
    problem = ""
    try:
        report = verify_anywhere(data_dir, session_id, quiet=True)
    except CollectorError as error:
        problem = str(error)
    _summarise(session, report, problem)
    return session.state == "completed" and report is not None and report.agrees


def _summarise(session: SessionStatus, report: Report | None, problem: str) -> None:
    rows = ", ".join(f"{count:,} {stream}" for stream, count in session.rows.items()) or "none"
    click.echo(f"Session  {session.session_id} (exchange={session.exchange}) is {session.state}")
    if session.reason and session.state != "completed":
        click.echo(f"Reason   {session.reason}")
    click.echo(f"Rows     {rows}")
    click.echo(f"Gaps     {session.gaps} in the ledger, {session.gaps_open} open")
    click.echo(f"Dropped  {session.buffer.dropped}")
    verdict = problem if report is None else report.text().splitlines()[-1]
    click.echo(f"Verify   {verdict}")
    if report is not None and report.first_difference is not None:
        click.echo(f"         {report.first_difference}")
    click.echo(f"Files    {session.directory}")
    click.echo(f"More     collector show {session.session_id}   collector console")
