"""Looking at processes and ports."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from collector.storage.processes import accepts, answers_http, command_line, port_holder, port_is_free, split_command

LOOPBACK = "127.0.0.1"


def test_a_folder_with_blanks_is_put_together_again() -> None:
    """`ps` joins a process's arguments with blanks."""
    assert split_command("/usr/bin/java -m a/b -d /Users/a b/questdb\n")[-2:] == ["-d", "/Users/a b/questdb"]
    assert split_command("sleep 10") == ["sleep", "10"]
    assert split_command("") == []


def test_a_process_that_is_gone_has_no_command_line() -> None:
    """Neither has one of which only the exit status is left."""
    child = subprocess.Popen([sys.executable, "-c", ""])
    os.waitid(os.P_PID, child.pid, os.WEXITED | os.WNOWAIT)
    assert command_line(child.pid) == []
    child.wait()
    assert command_line(child.pid) == []
    assert Path(command_line(os.getpid())[0]).name.startswith("python")


def test_a_free_port_is_free(free_port: int) -> None:
    """Nobody accepts there, and nobody holds it."""
    assert port_is_free(LOOPBACK, free_port)
    assert not accepts(LOOPBACK, free_port)
    assert not answers_http(LOOPBACK, free_port)
    assert port_holder(free_port) == "another process"


def test_a_listener_on_all_addresses_takes_the_port() -> None:
    """It is found, and named with its pid."""
    with socket.create_server(("", 0)) as listener:
        port = listener.getsockname()[1]
        assert not port_is_free(LOOPBACK, port)
        assert port_holder(port).endswith(f"(pid {os.getpid()})")


def test_a_bound_port_is_taken_before_anybody_listens() -> None:
    """A server that is about to start would lose it."""
    with socket.socket() as bound:
        bound.bind((LOOPBACK, 0))
        assert not port_is_free(LOOPBACK, bound.getsockname()[1])
