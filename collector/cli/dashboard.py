"""``collector dashboard``: where the dashboard and the REST API are, and what opens them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from collector.cli.options import data_dir_of, json_option, place_options


@click.command()
@click.option("--token", "only_token", is_flag=True, help="Print the API's token alone, for scripts.")
@click.option("--open", "opens", is_flag=True, help="Open the dashboard in the browser.")
@json_option
@place_options
def dashboard(*, only_token: bool, opens: bool, as_json: bool, config_path: Path | None, data_dir: Path | None) -> None:
    """Print the dashboard's address, with the key that logs a browser in, and the API's.

    The key is the API's token: whoever has it can start and stop sessions. It lies in the data directory's control
    folder, readable by you alone.

    \b
    Example:
      collector dashboard --open
      curl -H "Authorization: Bearer $(collector dashboard --token)" http://127.0.0.1:8780/api/data-collection/sessions
    """
    from collector.api.token import ensure_token
    from collector.control import ask
    from collector.errors import CollectorError

    where = data_dir_of(config_path, data_dir)
    if only_token:
        click.echo(ensure_token(where))
        return
    url = str(ask(where, "status").get("api_url") or "")
    if not url:
        raise CollectorError("The daemon serves no API.", hint="Set api.enabled in config.toml, or another api.port.")
    facts: dict[str, Any] = {
        "dashboard": f"{url}?key={ensure_token(where)}",
        "api": f"{url}api/data-collection/",
        "openapi": f"{url}api/openapi.json",
    }
    if as_json:
        from collector.cli.output import print_json

        print_json(facts)
    else:
        for name, address in facts.items():
            click.echo(f"{name:<10} {address}")
    if opens:
        click.launch(facts["dashboard"])
