"""``collector sim``: the simulated exchange in the foreground."""

from __future__ import annotations

import click

from collector.cli.options import SYMBOLS


@click.command()
@click.option("--port", type=click.IntRange(0, 65535), help="Port of websocket and REST; 0 lets the system choose.")
@click.option("--seed", type=int, help="What the market is made of: the same seed gives the same trades.")
@click.option("--rate", type=click.FloatRange(min=0, min_open=True), help="Messages in a second, over all symbols.")
@click.option("--symbols", type=SYMBOLS, help="Symbols, comma-separated: BTC_USDT,ETH_USDT.")
@click.option("--fault", "faults", multiple=True, metavar="KIND[:KEY=VALUE,…]", help="A fault, as often as wanted.")
@click.option("--config", "config_path", type=click.Path(dir_okay=False), help="The configuration file.")
@click.option("--json", "as_json", is_flag=True, help="Print the addresses as JSON.")
def sim(
    port: int | None,
    seed: int | None,
    rate: float | None,
    symbols: tuple[str, ...] | None,
    faults: tuple[str, ...],
    config_path: str | None,
    as_json: bool,
) -> None:
    """Run the built-in simulated exchange until Ctrl-C.

    It speaks Binance spot's protocol, on websocket and REST, with a random market that depends on nothing but the seed.
    What is collected from it says exchange=sim everywhere. Faults can be had at the start and while it runs:

    \b
    Example:
      collector sim --rate 1000 --fault drop:after=5000
      curl -X POST 'http://127.0.0.1:8765/admin/faults?kind=stall&seconds=5&channel=*@aggTrade'
      curl http://127.0.0.1:8765/admin/status
    """
    import asyncio
    import json
    import os
    from pathlib import Path

    from collector.config import load_config
    from collector.sim.exchange import Options, SimulatedExchange, serve_exchange
    from collector.sim.faults import parse_fault
    from collector.sim.running import run_until_stopped

    chosen = {"port": port or None, "seed": seed, "rate": rate, "symbols": symbols}
    settings = load_config(
        Path(config_path) if config_path else None, environment=os.environ, overrides={"sim": chosen}
    ).sim
    options = Options(
        symbols=settings.symbols,
        seed=settings.seed,
        rate=settings.rate,
        faults=[parse_fault(text) for text in (*settings.faults, *faults)],
    )

    def announce(server: SimulatedExchange) -> None:
        if as_json:
            click.echo(json.dumps({"ws_url": server.ws_url, "rest_url": server.rest_url, "port": server.port}))
            return
        click.echo(f"Simulated exchange (exchange=sim): {server.ws_url} and {server.rest_url}")
        click.echo(f"{', '.join(options.symbols)}; {options.rate:g} messages/s; seed {options.seed}. Ctrl-C ends it.")

    async def serve(stop: asyncio.Event) -> None:
        async with serve_exchange(options, port=0 if port == 0 else settings.port) as server:
            announce(server)
            await stop.wait()

    run_until_stopped(serve)
