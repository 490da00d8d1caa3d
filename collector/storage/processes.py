"""Processes and ports of this machine, by /proc where there is one, otherwise by what the system has for it (macOS)."""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

_PROBE_TIMEOUT_S = 2.0


def command_line(pid: int) -> list[str]:
    """Return the arguments of a running process; empty where there is none (or only its exit status is left)."""
    if sys.platform == "linux":
        try:
            raw = Path(f"/proc/{pid}/cmdline").read_bytes()
        except OSError:
            return []
        return [os.fsdecode(argument) for argument in raw.split(b"\0")[:-1]]
    # `ps` joins the arguments with blanks; a folder with blanks in its name is put together again after `-d`.
    return split_command(_output_of("ps", "-ww", "-o", "command=", "-p", str(pid)))


def all_commands() -> Iterator[tuple[int, list[str]]]:
    """Give each running process that can be seen, with its arguments."""
    if sys.platform == "linux":
        for entry in Path("/proc").iterdir():
            if entry.name.isdigit() and (command := command_line(int(entry.name))):
                yield int(entry.name), command
        return
    for line in _output_of("ps", "-axww", "-o", "pid=,command=").splitlines():
        pid, _, command_text = line.strip().partition(" ")
        if pid.isdigit():
            yield int(pid), split_command(command_text)


def split_command(line: str) -> list[str]:
    """Take apart a server's command line as ``ps`` prints it: what follows `` -d `` is one argument."""
    before, separator, folder = line.strip().partition(" -d ")
    return [*before.split(), "-d", folder] if separator else before.split()


def reap(pid: int) -> None:
    """Take the exit status of an ended child, so that it doesn't stay as a zombie; it may be no child of ours."""
    with contextlib.suppress(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def answers_http(host: str, port: int) -> bool:
    """Tell whether a QuestDB answers there, without credentials."""
    connection = http.client.HTTPConnection(host, port, timeout=_PROBE_TIMEOUT_S)
    try:
        connection.request("GET", "/ping")
        return connection.getresponse().status in (200, 204)
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def accepts(host: str, port: int) -> bool:
    """Tell whether somebody takes connections there."""
    try:
        socket.create_connection((host, port), timeout=_PROBE_TIMEOUT_S).close()
    except OSError:
        return False
    return True


def port_is_free(host: str, port: int) -> bool:
    """Tell whether the port can be bound and nobody listens on all addresses, whom macOS would let us shadow."""
    if accepts(host, port):
        return False
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError:
            return False
    return True


def port_holder(port: int) -> str:
    """Name the process that listens on a port, as far as this user may see it."""
    pid = _listening_pid_from_proc(port) if sys.platform == "linux" else _listening_pid_from_lsof(port)
    if pid is None:
        return "another process"
    command = command_line(pid)
    name = Path(command[0]).name if command else "process"
    return f"{name} (pid {pid})"


def _listening_pid_from_proc(port: int) -> int | None:
    inodes = set()
    for table in ("/proc/net/tcp", "/proc/net/tcp6"):
        with contextlib.suppress(OSError):
            for line in Path(table).read_text(encoding="ascii").splitlines()[1:]:
                fields = line.split()
                if fields[3] == "0A" and int(fields[1].rpartition(":")[2], 16) == port:  # 0A: LISTEN
                    inodes.add(f"socket:[{fields[9]}]")
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            for descriptor in (process / "fd").iterdir():
                with contextlib.suppress(OSError):
                    if str(descriptor.readlink()) in inodes:
                        return int(process.name)
    return None


def _listening_pid_from_lsof(port: int) -> int | None:
    first = _output_of("lsof", "-nP", f"-iTCP:{port}", "-sTCP:LISTEN", "-t").split()
    return int(first[0]) if first else None


def _output_of(program: str, *arguments: str) -> str:
    """Return what a program of the system prints, nothing where it is missing or hangs."""
    path = shutil.which(program)
    if path is None:
        return ""
    try:
        answer = subprocess.run([path, *arguments], capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return answer.stdout
