"""``collector up`` and ``collector down``: the daemon as a process."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import click

from collector.cli.options import config_option, data_dir_of, data_dir_option, json_option, place_options
from collector.errors import CollectorError, DaemonNotRunning

if TYPE_CHECKING:
    from collector.config import Config

_POLL_S = 0.05
_START_TIMEOUT_S = 120.0
_STOP_MARGIN_S = 30.0
_COMPLAINT_BYTES = 8192


@click.command()
@click.option("--detach", is_flag=True, help="Run it in the background; return once it answers.")
@click.option("--background", is_flag=True, hidden=True, help="Log to the file alone.")
@config_option
@data_dir_option
def up(*, detach: bool, background: bool, config_path: Path | None, data_dir: Path | None) -> None:
    """Run the daemon, in the foreground until Ctrl-C or `collector down`.

    It starts QuestDB where the configuration wants an embedded one, goes on with the sessions that were interrupted,
    and waits for commands. As a systemd service: Type=notify, ExecStart=collector up.

    \b
    Example:
      collector up --detach
      collector up --config /etc/collector.toml --data-dir /var/lib/collector
    """
    from collector.config import load_config

    config = load_config(config_path, environment=_environment(), overrides={"daemon": {"data_dir": data_dir}})
    if detach:
        pid = start_detached(config_path, config.daemon.data_dir, config.daemon.log_dir)
        click.echo(f"The daemon runs (pid {pid}). Log: {config.daemon.log_dir / 'collector.log'}")
        return
    _serve(config, on_terminal=not background)


@click.command()
@click.option(
    "--timeout",
    "timeout_s",
    type=click.FloatRange(min=1),
    metavar="SECONDS",
    help="How long to wait.  [default: its own limit]",
)
@json_option
@place_options
def down(*, timeout_s: float | None, as_json: bool, config_path: Path | None, data_dir: Path | None) -> None:
    """End the daemon: sessions are stopped and delivered, then QuestDB ends.

    \b
    Example:
      collector down
    """
    from collector.daemon_lock import lock_holder

    folder = data_dir_of(config_path, data_dir)
    pid = lock_holder(folder)
    if pid is None:
        raise DaemonNotRunning(f"No daemon runs for the data directory {folder}.")
    end_daemon(folder, timeout_s)
    if as_json:
        from collector.cli.output import print_json

        print_json({"stopped": True, "pid": pid})
    else:
        click.echo(f"The daemon (pid {pid}) has ended.")


def start_detached(config_path: Path | None, data_dir: Path, log_dir: Path) -> int:
    """Start a daemon in the background, wait until it answers, and return its pid.

    Raises:
        CollectorError: it ended, or did not answer in time; what it said last is the message.
    """
    return wait_until_up(spawn(config_path, data_dir, log_dir), data_dir, log_dir)


def spawn(config_path: Path | None, data_dir: Path, log_dir: Path) -> subprocess.Popen[bytes]:
    """Start a daemon as a child with a terminal session of its own, so that Ctrl-C here is not for it."""
    import os

    command = [sys.executable, "-m", "collector", "up", "--background", "--data-dir", str(data_dir)]
    if config_path is not None:
        command += ["--config", str(config_path)]
    with _open_output(log_dir) as output:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            env={key: value for key, value in os.environ.items() if not key.startswith("_COLLECTOR")},
        )


def wait_until_up(process: subprocess.Popen[bytes], data_dir: Path, log_dir: Path) -> int:
    """Wait until the daemon answers; return its pid. Raises what ``start_detached`` raises."""
    deadline = time.monotonic() + _START_TIMEOUT_S
    while time.monotonic() < deadline:
        if process.poll() is not None:
            raise CollectorError(
                f"The daemon did not start: {_complaint(log_dir)}", hint=f"Its log is {log_dir / 'collector.log'}."
            )
        # Another daemon may own the data directory and answer: ours then ends by itself, and says so.
        if _answering_pid(data_dir) == process.pid:
            return process.pid
        time.sleep(_POLL_S)
    process.terminate()
    raise CollectorError(
        f"The daemon has not answered for {_START_TIMEOUT_S:g} s.", hint=f"Its log is {log_dir / 'collector.log'}."
    )


def _answering_pid(data_dir: Path) -> int | None:
    from collector.control import ask

    try:
        answer: Any = ask(data_dir, "ping", timeout_s=5)
    except DaemonNotRunning:
        return None
    return answer.get("pid") if isinstance(answer, dict) else None


def ensure_daemon(config_path: Path | None, data_dir: Path) -> None:
    """See to it that a daemon runs for a data directory, starting one in the background where none does."""
    from collector.control import ask

    try:
        ask(data_dir, "ping", timeout_s=10)
    except DaemonNotRunning:
        from collector.config import load_config

        config = load_config(config_path, environment=_environment(), overrides={"daemon": {"data_dir": data_dir}})
        click.echo("No daemon runs: starting one in the background (`collector down` ends it).", err=True)
        start_detached(config_path, data_dir, config.daemon.log_dir)


def end_daemon(data_dir: Path, timeout_s: float | None = None) -> None:
    """Ask the daemon to end and wait until it has.

    Raises:
        CollectorError: it has not ended in time.
    """
    from collector.control import ask
    from collector.daemon_lock import lock_holder

    answer: Any = ask(data_dir, "shutdown", timeout_s=30)
    own_limit_s = answer.get("deadline_s") if isinstance(answer, dict) else None
    bound_s = timeout_s or (own_limit_s or 30) + _STOP_MARGIN_S
    deadline = time.monotonic() + bound_s
    while (pid := lock_holder(data_dir)) is not None:
        if time.monotonic() > deadline:
            raise CollectorError(
                f"The daemon (pid {pid}) has not ended within {bound_s:g} s.", hint="Its log says why."
            )
        time.sleep(_POLL_S)


def _serve(config: Config, *, on_terminal: bool) -> None:
    import asyncio

    from collector.logs import Logs

    if sys.platform == "win32":
        raise CollectorError("The daemon runs on Linux and macOS.", hint="On Windows, use WSL.")
    import uvloop

    logs = Logs(
        level=config.logging.level,
        terminal=sys.stderr if on_terminal else None,
        folder=config.daemon.log_dir,
        max_bytes=config.logging.max_bytes,
        backup_count=config.logging.backup_count,
        queue_max_records=config.logging.queue_max_records,
    )
    with logs, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_run_watched(config))


async def _run_watched(config: Config) -> None:
    """Run the daemon, and let systemd's watchdog know that the event loop turns."""
    import asyncio

    from collector import systemd
    from collector.daemon import run

    try:
        async with asyncio.TaskGroup() as tasks:
            watching = tasks.create_task(systemd.keep_watchdog())
            try:
                await run(config, ready=systemd.notify_ready)
            finally:
                watching.cancel()
    except* CollectorError as group:
        raise group.exceptions[0] from None


def _open_output(log_dir: Path) -> IO[bytes]:
    try:
        log_dir.mkdir(mode=0o750, parents=True, exist_ok=True)
        return (log_dir / "daemon.out").open("wb")
    except OSError as error:
        raise CollectorError(
            f"The log directory {log_dir} cannot be written: {error.strerror}.", hint="Set daemon.log_dir."
        ) from error


def _complaint(log_dir: Path) -> str:
    """Return what a daemon that did not start said last."""
    try:
        said = (log_dir / "daemon.out").read_bytes()[-_COMPLAINT_BYTES:].decode(errors="replace").strip()
    except OSError:
        said = ""
    lines = [line.removeprefix("error: ").removeprefix("hint: ") for line in said.splitlines()[-2:]]
    return " ".join(lines) or "it said nothing."


def _environment() -> dict[str, str]:
    import os

    return dict(os.environ)
