"""How the command line shows facts and errors: for a person, or as JSON for a program."""

from __future__ import annotations

import sys
from typing import Any, NamedTuple

import click

from collector.errors import CollectorError, UsageError

EXIT_FAILED = 1
EXIT_USAGE = 2
_PIPE_WIDTH = 400


class Shown(NamedTuple):
    """An error as it is shown, and the exit status that belongs to it."""

    message: str
    hint: str
    kind: str
    exit_status: int


def describe(error: Exception) -> Shown:
    """Return what to show for any error; one of ours that click's wraps is shown itself."""
    cause = error.__cause__ if isinstance(error, click.ClickException) else error
    if isinstance(cause, CollectorError):
        status = EXIT_USAGE if isinstance(cause, UsageError) else EXIT_FAILED
        return Shown(cause.message, cause.hint, type(cause).__name__, status)
    if isinstance(error, click.UsageError):
        command = error.ctx.command_path if error.ctx else "collector"
        return Shown(error.format_message(), f"`{command} --help` says more.", "UsageError", EXIT_USAGE)
    if isinstance(error, click.ClickException):
        return Shown(error.format_message(), "", type(error).__name__, error.exit_code)
    return Shown(
        f"{type(error).__name__}: {error}",
        "This is a fault in collector itself; with COLLECTOR_DEBUG=1 it prints where.",
        type(error).__name__,
        EXIT_FAILED,
    )


def print_json(facts: Any) -> None:
    """Print facts (structs included) as one line of JSON."""
    import msgspec

    click.echo(msgspec.json.encode(facts, enc_hook=str).decode())


def print_view(view: Any) -> None:
    """Print something that rich can draw; into a pipe it is drawn as wide as it wants, without colours or padding."""
    from rich.console import Console

    if sys.stdout.isatty():
        Console(highlight=False).print(view)
    else:
        click.echo(plain_text(view))


def plain_text(view: Any) -> str:
    """Return something that rich can draw as text, as wide as it wants, without blanks at the ends of lines."""
    import io

    from rich.console import Console

    page = io.StringIO()
    Console(file=page, highlight=False, width=_PIPE_WIDTH, soft_wrap=True).print(view)
    return "\n".join(line.rstrip() for line in page.getvalue().rstrip("\n").split("\n"))
