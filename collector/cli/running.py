"""The commands that change a session while it runs: ``symbols`` and ``reconnect``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from collector.cli.options import (
    SESSION,
    SYMBOLS,
    SYMBOLS_OR_RULES,
    WS_URL,
    data_dir_of,
    json_option,
    place_options,
)


@click.command()
@click.argument("session", type=SESSION)
@click.option("--add", type=SYMBOLS_OR_RULES, help="Collect these too: SOL_USDT,XRP_USDT, or top:20.")
@click.option("--remove", type=SYMBOLS, help="Collect these no more; their files stay.")
@json_option
@place_options
def symbols(
    *,
    session: str,
    add: tuple[str, ...] | None,
    remove: tuple[str, ...] | None,
    as_json: bool,
    config_path: Path | None,
    data_dir: Path | None,
) -> None:
    """Add symbols to a session that runs, or remove some; the others are not disturbed.

    What is added is checked with the exchange first. The session keeps its new symbols when it goes on after a restart.

    \b
    Example:
      collector symbols 20261121-081500-binance-7f3a --add SOL_USDT,XRP_USDT
      collector symbols 20261121-081500-binance-7f3a --remove ETH_USDT
    """
    from collector.cli.sessions import read_session
    from collector.control import ask
    from collector.requests import SymbolsRequest, to_arguments

    folder = data_dir_of(config_path, data_dir)
    request = SymbolsRequest(session=session, add=tuple(add or ()), remove=tuple(remove or ()))
    changed = read_session(ask(folder, "symbols", to_arguments(request), timeout_s=None, on_progress=_say(as_json)))
    if as_json:
        _print_json(changed)
        return
    click.echo(f"Session {changed.session_id} collects {', '.join(changed.symbols)}.")


@click.command()
@click.argument("session", type=SESSION)
@click.option("--ws-url", type=WS_URL, default="", help="Connect to this address from now on.")
@json_option
@place_options
def reconnect(*, session: str, ws_url: str, as_json: bool, config_path: Path | None, data_dir: Path | None) -> None:
    """Replace a session's connections without a gap: each gets a second one, which takes over once it delivers.

    \b
    Example:
      collector reconnect 20261121-081500-binance-7f3a
      collector reconnect 20261121-081500-binance-7f3a --ws-url wss://stream.binance.com:443
    """
    from collector.cli.sessions import read_session
    from collector.control import ask
    from collector.requests import ReconnectRequest, to_arguments

    folder = data_dir_of(config_path, data_dir)
    request = ReconnectRequest(session=session, ws_url=ws_url)
    changed = read_session(ask(folder, "reconnect", to_arguments(request), timeout_s=None, on_progress=_say(as_json)))
    if as_json:
        _print_json(changed)
        return
    for link in changed.links:
        click.echo(f"Connection {link.number} is {link.state}: {link.url}, replaced {link.rotations} times so far.")


def _say(as_json: bool) -> Any:
    return None if as_json else lambda line: click.echo(f"{line} …", err=True)


def _print_json(facts: Any) -> None:
    from collector.cli.output import print_json

    print_json(facts)
