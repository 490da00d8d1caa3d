"""The command line's root: it names the commands and shows errors; each command is imported when it is used.

Only click is imported here, so that ``--help``, completion and the commands that only ask answer at once.
"""

# ruff: noqa: ARG002  (the signatures are click's)

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from importlib import import_module
from typing import NamedTuple, NoReturn

import click

EXIT_INTERRUPTED = 130


class Entry(NamedTuple):
    """Where a command is, and the line that the list of commands shows for it."""

    place: str
    summary: str


SECTIONS: dict[str, dict[str, Entry]] = {
    "Collect": {
        "run": Entry("collector.cli.run:run", "Collect live and watch it, until Ctrl-C: all in one."),
        "up": Entry("collector.cli.daemon:up", "Run the daemon."),
        "down": Entry("collector.cli.daemon:down", "End the daemon and the embedded QuestDB cleanly."),
        "start": Entry("collector.cli.sessions:start", "Start a session."),
        "stop": Entry("collector.cli.sessions:stop", "Stop sessions."),
        "symbols": Entry("collector.cli.running:symbols", "Add symbols to a running session, or remove some."),
        "reconnect": Entry("collector.cli.running:reconnect", "Replace a session's connections without a gap."),
    },
    "Look back": {
        "backfill": Entry("collector.cli.history:backfill", "Collect past candles from many sources."),
        "fill-gaps": Entry("collector.cli.history:fill_gaps", "Ask again for past candles that are missing."),
        "quality": Entry("collector.cli.history:quality", "Say how whole and plausible past candles are."),
        "history": Entry("collector.cli.history:history", "List symbols by market cap."),
        "schedule": Entry("collector.cli.history:schedule", "Show what is collected by schedule."),
        "logs": Entry("collector.cli.history:logs", "List operations, with rates and durations."),
    },
    "Look": {
        "status": Entry("collector.cli.sessions:status", "Show what the daemon, or one session, is doing."),
        "sessions": Entry("collector.cli.sessions:sessions", "List the sessions."),
        "show": Entry("collector.cli.sessions:show", "Show all that is known of a session."),
        "gaps": Entry("collector.cli.gaps:gaps", "List what is missing, and why."),
        "dashboard": Entry("collector.cli.dashboard:dashboard", "Print the dashboard's and the API's address."),
        "export": Entry("collector.cli.export:export", "Write a session as Parquet, CSV, Arrow or for backtesters."),
        "query": Entry("collector.cli.query:query", "Ask QuestDB: a packaged question, or SQL."),
        "console": Entry("collector.cli.db:console", "Print QuestDB's address and credentials."),
    },
    "Use": {
        "backtest": Entry("collector.cli.backtest:backtest", "Run a strategy on a session's candles or ticks."),
        "backtests": Entry("collector.cli.backtest:backtests", "List backtests, or hold them side by side."),
        "indicators": Entry("collector.cli.indicators:indicators", "Compute indicators of a session's candles."),
    },
    "Keep": {
        "storage": Entry("collector.cli.storage:storage", "Show rows, bytes and partitions of every table."),
        "retention": Entry("collector.cli.storage:retention", "Show or set how long tables keep their rows."),
    },
    "Prove": {
        "verify": Entry("collector.cli.verify:verify", "Prove that CSV, QuestDB and candles agree."),
        "import": Entry("collector.cli.verify:import_session", "Send a session's CSV to QuestDB again."),
        "doctor": Entry("collector.cli.doctor:doctor", "Say what is wrong with data and server, and mend it."),
        "resync": Entry("collector.cli.verify:resync", "Send a session's rows to QuestDB again, from a row on."),
        "repair": Entry("collector.cli.repair:repair", "Ask the exchange again for what a session missed."),
    },
    "Try": {
        "sim": Entry("collector.cli.sim:sim", "Run the built-in simulated exchange."),
        "replay": Entry("collector.cli.replay:replay", "Play a recording into a new session."),
    },
    "Set up": {
        "db": Entry("collector.cli.db:db", "Install, start, stop and migrate QuestDB."),
        "config": Entry("collector.cli.config:config", "Check or show the configuration."),
    },
}
"""Every command, in the order in which a person meets them."""

_COMMANDS = {name: entry for section in SECTIONS.values() for name, entry in section.items()}


class LazyGroup(click.Group):
    """A group that imports a command's module when the command is used."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(_COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        entry = _COMMANDS.get(cmd_name)
        if entry is None:
            return None
        module, _, attribute = entry.place.partition(":")
        command = getattr(import_module(module), attribute)
        return command if isinstance(command, click.Command) else None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in _COMMANDS and not args[0].startswith("-"):
            from collector.errors import UnknownName

            raise UnknownName("command", args[0], list(_COMMANDS))
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, section in SECTIONS.items():
            with formatter.section(title):
                formatter.write_dl([(name, entry.summary) for name, entry in section.items()], col_max=12)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[click.shell_completion.CompletionItem]:
        """Complete commands from the list, without importing any."""
        items = [
            click.shell_completion.CompletionItem(name, help=entry.summary)
            for name, entry in _COMMANDS.items()
            if name.startswith(incomplete)
        ]
        return items + click.Command.shell_complete(self, ctx, incomplete)


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.version_option(package_name="collector", message="%(prog)s %(version)s")
def cli() -> None:
    """Collect exchanges' ticks: to CSV first, then to QuestDB, with every hole written down.

    \b
    From nothing to live ticks:
      collector run
    Step by step:
      collector start --exchange binance --symbols BTC_USDT,ETH_USDT
      collector status --watch
      collector stop --all

    \b
    Each command has its own --help, with an example.
    Exit status: 0 done, 1 failed, 2 wrong usage.
    Completion: eval "$(_COLLECTOR_COMPLETE=bash_source collector)"   (or zsh_source, fish_source)
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit; errors are shown as a sentence and a hint, never as a traceback."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        status = cli.main(given, prog_name="collector", standalone_mode=False)
    except click.Abort:
        click.echo("Interrupted.", err=True)
        sys.exit(EXIT_INTERRUPTED)
    except Exception as error:  # noqa: BLE001  # the last place that can turn an error into a sentence
        sys.exit(_show(error, as_json=_wants_json(given)))
    sys.exit(status if isinstance(status, int) else 0)


def _wants_json(arguments: Sequence[str]) -> bool:
    own = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--json" in own


def _show(error: Exception, *, as_json: bool) -> int:
    """Print an error and return the exit status that belongs to it."""
    from collector.cli.output import Shown, describe

    if os.environ.get("COLLECTOR_DEBUG"):
        import traceback

        traceback.print_exception(error)
    shown: Shown = describe(error)
    if as_json:
        import json

        click.echo(json.dumps({"error": {"message": shown.message, "hint": shown.hint, "kind": shown.kind}}))
    else:
        click.echo(f"error: {shown.message}", err=True)
        if shown.hint:
            click.echo(f"hint: {shown.hint}", err=True)
    return shown.exit_status
