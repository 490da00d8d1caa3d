"""``collector replay``: a recording through a loopback server, into a session or for whoever connects."""

from __future__ import annotations

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
import msgspec

from collector.cli.options import (
    DATA_TYPES,
    DURATION,
    EXCHANGE,
    LABEL,
    SESSION,
    SPEED,
    SYMBOLS,
    data_dir_of,
    json_option,
    place_options,
)
from collector.cli.output import EXIT_FAILED
from collector.cli.sessions import ask_status, make_start_request, one_session, read_session, stop_one
from collector.errors import UsageError

if TYPE_CHECKING:
    from collector.requests import StartRequest
    from collector.sim.child import Child
    from collector.status import SessionStatus

_POLL_S = 0.2
_SAY_EVERY_S = 5.0


@click.command()
@click.argument("recording", type=click.Path(exists=True, dir_okay=False, path_type=Path), metavar="FILE")
@click.option("--exchange", type=EXCHANGE, help="The exchange that was recorded.")
@click.option("--symbols", type=SYMBOLS, help="Symbols of the recording, comma-separated: BTC_USDT,ETH_USDT.")
@click.option("--speed", type=SPEED, default="real", help="real, max, or a factor: 10x.  [default: real]")
@click.option(
    "--data-types",
    type=DATA_TYPES,
    help="prices,orderbook,… or all that the exchange offers.  [default: session.data_types]",
)
@click.option(
    "--duration", "duration_s", type=DURATION, help="Stop after 90s, 15m, 1h.  [default: the recording's end]"
)
@click.option("--label", type=LABEL, default="", help="A note of your own, kept with the session.")
@click.option("--id", "session_id", default="", help="The session's id.  [default: time, exchange and four digits]")
@click.option(
    "--trades",
    type=click.Choice(["aggregated", "raw"]),
    default="aggregated",
    show_default=True,
    help="Which trades it holds.",
)
@click.option(
    "--book-levels",
    type=click.IntRange(1, 1000),
    metavar="N",
    help="Levels of each side in a row of the order book.  [default: orderbook.levels]",
)
@click.option("--record-raw/--no-record-raw", default=None, help="Keep the raw messages of the replay too.")
@click.option("--session", "resume", type=SESSION, help="Go on with this interrupted session instead of a new one.")
@click.option("--serve", is_flag=True, help="Only serve the recording, for any client; Ctrl-C ends it.")
@click.option(
    "--port", type=click.IntRange(0, 65535), metavar="PORT", default=0, help="The server's port.  [default: a free one]"
)
@json_option
@place_options
def replay(
    *,
    recording: Path,
    speed: str,
    trades: str,
    resume: str | None,
    serve: bool,
    port: int,
    as_json: bool,
    config_path: Path | None,
    data_dir: Path | None,
    **order: Any,
) -> None:
    """Play a recording of raw messages into a new session, which ends when the recording ends.

    A loopback server plays it, so the session collects as it would from the exchange: same path, same files. At any
    speed the prices and the order book come out the same.

    \b
    Example:
      collector replay raw.rec --exchange binance --symbols ETH_USDT --speed max
      collector replay raw.rec --exchange binance --symbols ETH_USDT --serve --port 9443
    """
    folder = data_dir_of(config_path, data_dir)
    if resume is not None:
        asked = _what_was_asked(folder, resume)
    elif order["exchange"] is None or order["symbols"] is None:
        raise UsageError("Say whose recording it is: --exchange and --symbols.", hint="`collector replay --help`")
    else:
        asked = make_start_request(order, trades)
    server = _start_server(recording, asked, speed, port, config_path, serve=serve)
    try:
        if serve:
            _serve(server, as_json=as_json)
            return
        request = msgspec.structs.replace(
            asked, recording=recording.name, ws_url=server.ws_url, rest_url=server.rest_url
        )
        session = _collect(folder, config_path, request, quiet=as_json)
    finally:
        server.stop()
    _show_result(session, as_json=as_json)


def _what_was_asked(data_dir: Path, session_id: str) -> StartRequest:
    """Return the request to go on with an interrupted session, as its manifest has it."""
    from collector.reading.sessions import find_session
    from collector.requests import StartRequest

    manifest = find_session(data_dir, session_id).manifest
    return StartRequest(
        exchange=manifest.exchange,
        symbols=tuple(manifest.symbols),
        data_types=tuple(manifest.data_types),
        raw_trades=manifest.raw_trades,
        book_levels=manifest.book_levels,
        session_id=manifest.session_id,
        go_on=True,
    )


def _start_server(
    recording: Path, asked: StartRequest, speed: str, port: int, config_path: Path | None, *, serve: bool
) -> Child:
    import os

    from collector.config import load_config
    from collector.exchanges.registry import exchange_class
    from collector.orders import expand_data_types
    from collector.sim.child import start_replay

    data_types = asked.data_types
    if not data_types and not serve:
        data_types = tuple(load_config(config_path, environment=os.environ).session.data_types)
    data_types = expand_data_types(data_types, exchange_class(asked.exchange))
    if "prices" in data_types and "klines" not in data_types:
        data_types = (*data_types, "klines")  # a session takes the exchange's candles too, to compare its own with
    return start_replay(
        recording,
        exchange=asked.exchange,
        symbols=asked.symbols,
        speed=speed,
        data_types=data_types or None,
        raw_trades=asked.raw_trades,
        port=port,
        again=serve,
    )


def _serve(server: Child, *, as_json: bool) -> None:
    import json

    if as_json:
        click.echo(json.dumps({"ws_url": server.ws_url, "rest_url": server.rest_url, "port": server.port}))
    else:
        click.echo(f"The recording plays at {server.ws_url} and {server.rest_url}. Ctrl-C ends it.")
    try:
        while server.process.poll() is None:
            time.sleep(_POLL_S)
    except KeyboardInterrupt:
        return


def _collect(data_dir: Path, config_path: Path | None, request: StartRequest, *, quiet: bool) -> SessionStatus:
    """Start the session and wait for its end; Ctrl-C ends it early."""
    from collector.cli.daemon import ensure_daemon
    from collector.control import ask
    from collector.requests import to_arguments

    ensure_daemon(config_path, data_dir)
    session = read_session(ask(data_dir, "start", to_arguments(request), timeout_s=None))
    if not quiet:
        click.echo(f"Session {session.session_id} plays the recording. Files: {session.directory}", err=True)
    said_s = time.monotonic()
    try:
        while session.is_live:
            time.sleep(_POLL_S)
            session = one_session(data_dir, session.session_id, ask_status(data_dir))
            if not quiet and time.monotonic() - said_s > _SAY_EVERY_S:
                said_s = time.monotonic()
                click.echo(f"{sum(session.rows.values()):,} rows so far …", err=True)
    except KeyboardInterrupt:
        return stop_one(data_dir, session.session_id)
    return session


def _show_result(session: SessionStatus, *, as_json: bool) -> None:
    if as_json:
        from collector.cli.output import print_json

        print_json(session)
    else:
        rows = ", ".join(f"{count:,} {stream}" for stream, count in session.rows.items()) or "no"
        click.echo(f"Session {session.session_id} is {session.state}: {rows} rows, {session.gaps} gaps.")
        if session.reason:
            click.echo(f"Reason: {session.reason}")
        click.echo(f"Prove it with `collector verify {session.session_id}`.")
    if session.state != "completed":
        sys.exit(EXIT_FAILED)
