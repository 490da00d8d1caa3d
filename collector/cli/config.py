"""``collector config``: check the configuration file, or show what is in force."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import click

from collector.cli.options import config_option, data_dir_option, json_option


@click.group()
def config() -> None:
    """Check or show the configuration.

    \b
    Example:
      collector config check
      collector config show
    """


@config.command()
@config_option
@json_option
def check(*, config_path: Path | None, as_json: bool) -> None:
    """Look for mistakes in file and environment.

    An unknown key or exchange is an error that names the nearest one.

    \b
    Example:
      collector config check --config /etc/collector.toml
    """
    import os

    from collector.config import DEFAULT_FILE, load_config, warnings_of
    from collector.exchanges.registry import known_exchange

    loaded = load_config(config_path, environment=os.environ)
    for name in loaded.exchange:
        known_exchange(name)
    for warning in warnings_of(loaded):
        click.echo(f"warning: {warning}", err=True)
    if as_json:
        click.echo('{"ok": true}')
        return
    path = config_path or Path(DEFAULT_FILE)
    click.echo(f"{path}: no mistake found." if path.exists() else f"There is no {path}: the defaults are in force.")


@config.command()
@config_option
@data_dir_option
@json_option
def show(*, config_path: Path | None, data_dir: Path | None, as_json: bool) -> None:
    """Show every key with its value in force.

    Values come from the command line, the environment, the file, or are defaults; passwords are masked.

    \b
    Example:
      collector config show --json
    """
    import json
    import os

    from collector.config import load_config

    loaded = load_config(config_path, environment=os.environ, overrides={"daemon": {"data_dir": data_dir}})
    values = loaded.model_dump(mode="json")
    if as_json:
        click.echo(json.dumps(values))
        return
    for section, content in values.items():
        click.echo(f"\n[{section}]" if section != next(iter(values)) else f"[{section}]")
        for key, value in _flat(content):
            click.echo(f"{key} = {json.dumps(value, ensure_ascii=False)}")


def _flat(section: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in section.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value
