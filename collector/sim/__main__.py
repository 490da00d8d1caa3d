"""The simulated servers as processes: ``python -m collector.sim`` with ``exchange``, ``replay`` or ``history``.

Each prints one line of JSON once it listens, with ``ws_url`` and ``rest_url``; it ends cleanly on SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from pathlib import Path

import click

from collector.errors import CollectorError
from collector.sim.running import run_until_stopped


def _announce(event: str, **facts: object) -> None:
    print(json.dumps({"event": event, "pid": os.getpid(), **facts}), flush=True)


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",") if name.strip()]


@click.group()
def main() -> None:
    """Run a simulated server as a child process."""


@main.command()
@click.option("--port", default=0, help="Port to listen on; 0 lets the system choose.")
@click.option("--seed", default=1, help="What the market is made of.")
@click.option("--rate", default=50.0, help="Messages (aggregated trades) in a second, over all symbols.")
@click.option("--symbols", default="BTC_USDT,ETH_USDT", help="Symbols, comma-separated.")
@click.option("--fault", "faults", multiple=True, help="A fault: kind:key=value,key=value.")
@click.option("--weight-limit", default=6000, help="REST weight allowed in a minute.")
@click.option("--without-trades", is_flag=True, help="REST gives no trades, so that nothing missed can be had.")
@click.option("--connection-life", default=0.0, help="Seconds after which a connection is ended; 0 for never.")
@click.option("--follow-parent", is_flag=True, help="End when the standard input is closed.")
def exchange(
    port: int,
    seed: int,
    rate: float,
    symbols: str,
    faults: tuple[str, ...],
    weight_limit: int,
    without_trades: bool,
    connection_life: float,
    follow_parent: bool,
) -> None:
    """Serve the simulated exchange."""
    from collector.sim.exchange import Options, serve_exchange
    from collector.sim.faults import parse_fault

    options = Options(
        symbols=_names(symbols),
        seed=seed,
        rate=rate,
        faults=[parse_fault(text) for text in faults],
        weight_per_min=weight_limit,
        gives_trades=not without_trades,
        connection_life_s=connection_life or None,
    )

    async def serve(stop: asyncio.Event) -> None:
        async with serve_exchange(options, port=port) as server:
            _announce("ready", ws_url=server.ws_url, rest_url=server.rest_url, port=server.port)
            await stop.wait()

    run_until_stopped(serve, follow_parent=follow_parent)


@main.command()
@click.argument("path", type=click.Path(path_type=Path))
@click.option("--exchange", "exchange_name", required=True, help="Whose messages they are.")
@click.option("--symbols", required=True, help="Symbols, comma-separated.")
@click.option("--speed", default="real", help="real, max, or a factor such as 10x.")
@click.option("--data-types", help="What the client will subscribe to, comma-separated.")
@click.option(
    "--trades", type=click.Choice(["default", "raw"]), default="default", help="Which trades it will ask for."
)
@click.option("--port", default=0, help="Port to listen on; 0 lets the system choose.")
@click.option("--again", is_flag=True, help="Begin from the first frame again once all clients have gone.")
@click.option("--follow-parent", is_flag=True, help="End when the standard input is closed.")
def replay(
    path: Path,
    exchange_name: str,
    symbols: str,
    speed: str,
    data_types: str | None,
    trades: str,
    port: int,
    again: bool,
    follow_parent: bool,
) -> None:
    """Serve a recording."""
    from collector.sim.replay import Options, parse_speed, serve_replay

    options = Options(
        path=path,
        exchange=exchange_name,
        symbols=_names(symbols),
        speed=parse_speed(speed),
        data_types=_names(data_types) if data_types else None,
        raw_trades=trades == "raw",
        again=again,
    )

    async def serve(stop: asyncio.Event) -> None:
        async with serve_replay(options, port=port) as server:
            facts = {"frames": server.script.frames, "missing_channels": server.missing}
            _announce("ready", ws_url=server.ws_url, rest_url=server.rest_url, port=server.port, **facts)
            await stop.wait()

    run_until_stopped(serve, follow_parent=follow_parent)


@main.command()
@click.option("--port", default=0, help="Port to listen on; 0 lets the system choose.")
@click.option("--seed", default=1, help="What the market is made of.")
@click.option("--symbols", default="BTC_USDT,ETH_USDT", help="Symbols, comma-separated.")
@click.option("--quiet", default="", help="Symbols that are not traded in each minute, comma-separated.")
@click.option("--fault", "faults", multiple=True, help="A fault: kind:key=value,key=value.")
@click.option("--no-limits", is_flag=True, help="Refuse no request for being too many.")
@click.option("--remember", is_flag=True, help="Answer what was asked before with the same bytes, for measurements.")
@click.option("--follow-parent", is_flag=True, help="End when the standard input is closed.")
def history(
    port: int,
    seed: int,
    symbols: str,
    quiet: str,
    faults: tuple[str, ...],
    no_limits: bool,
    remember: bool,
    follow_parent: bool,
) -> None:
    """Serve the simulated sources of history."""
    from collector.sim.history import Options, parse_fault, serve_history

    options = Options(
        symbols=_names(symbols),
        seed=seed,
        quiet=_names(quiet),
        faults=[parse_fault(text) for text in faults],
        limits=not no_limits,
        remember=remember,
    )

    async def serve(stop: asyncio.Event) -> None:
        async with serve_history(options, port=port) as server:
            facts = {"addresses": server.addresses}
            _announce("ready", ws_url="", rest_url=server.url, port=server.port, **facts)
            await stop.wait()

    run_until_stopped(serve, follow_parent=follow_parent)


if __name__ == "__main__":
    try:
        main.main(standalone_mode=False)
    except CollectorError as error:
        print(error, file=sys.stderr)
        sys.exit(1)
    except (click.UsageError, click.Abort) as error:
        print(error, file=sys.stderr)
        sys.exit(2)
