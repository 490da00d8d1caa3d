"""The simulated servers as processes: ``python -m collector.sim exchange`` and ``python -m collector.sim replay``.

Each prints one line of JSON once it listens, with ``ws_url`` and ``rest_url``; it ends cleanly on SIGTERM.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys

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
@click.option("--follow-parent", is_flag=True, help="End when the standard input is closed.")
def exchange(
    port: int, seed: int, rate: float, symbols: str, faults: tuple[str, ...], weight_limit: int, follow_parent: bool
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
    )

    async def serve(stop: asyncio.Event) -> None:
        async with serve_exchange(options, port=port) as server:
            _announce("ready", ws_url=server.ws_url, rest_url=server.rest_url, port=server.port)
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
