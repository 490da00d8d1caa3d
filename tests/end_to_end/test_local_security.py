"""What a daemon leaves on this machine is for its own user, and tells nobody a secret."""

from __future__ import annotations

import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

from collector.control import socket_path

PASSWORD = "a-very-secret-word-8d1f"


def modes(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): stat.S_IMODE(path.lstat().st_mode)
        for path in (folder, *folder.rglob("*"))
        if not path.is_symlink()
    }


def test_files_socket_and_secrets_are_private(daemon: Callable[..., Any], server: Callable[..., Any]) -> None:
    """Nothing is open to others whatever the shell's umask was; the password stands in no file, log or argument."""
    exchange = server("exchange", "--rate", "200", "--symbols", "BTC_USDT")
    collector = daemon("[session]\nrecord_raw = true\n", QUESTDB_PG_PASSWORD=PASSWORD, QUESTDB_HTTP_PASSWORD=PASSWORD)
    before = os.umask(0)
    try:
        collector.start()
    finally:
        os.umask(before)
    session_id = collector.ask(
        "start", exchange="sim", symbols=["BTC_USDT"], ws_url=exchange.ws_url, rest_url=exchange.rest_url
    )["session_id"]
    collector.wait_rows(session_id, "prices", 50)

    path = socket_path(collector.data_dir)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700
    arguments = Path(f"/proc/{collector.pid}/cmdline")
    if arguments.exists():
        assert PASSWORD.encode() not in arguments.read_bytes()
    status, shown = collector.ask("status"), collector.ask("show", session=session_id)
    assert PASSWORD not in repr((status, shown))
    collector.ask("stop", every=True)
    collector.terminate()

    for folder in (collector.data_dir, collector.data_dir.parent / "logs"):
        found = modes(folder)
        assert {name: oct(mode) for name, mode in found.items() if mode & 0o027} == {}
        for name in found:
            if (folder / name).is_file():
                assert PASSWORD.encode() not in (folder / name).read_bytes(), name
    assert PASSWORD not in collector.output()


def test_names_that_lead_elsewhere_are_refused(daemon: Callable[..., Any], server: Callable[..., Any]) -> None:
    """Neither a session's id nor a symbol reaches a path that it should not."""
    exchange = server("exchange", "--symbols", "BTC_USDT")
    collector = daemon()
    collector.start()
    before = modes(collector.data_dir.parent)
    urls = {"exchange": "sim", "ws_url": exchange.ws_url, "rest_url": exchange.rest_url}
    for session_id in ("../x", "a/b", "..", "x" * 65, "a b", "\0"):
        refused(collector, "start", symbols=["BTC_USDT"], session_id=session_id, **urls)
    for symbol in ("../../x", "/etc/passwd", "BTC_USDT' or '1'='1", "\0", "A" * 300):
        refused(collector, "start", symbols=[symbol], **urls)
    for command in ("show", "verify", "resync"):
        refused(collector, command, session="../data")
    assert set(modes(collector.data_dir.parent)) - set(before) <= {"output"}


def refused(collector: Any, command: str, **arguments: Any) -> None:
    from collector.errors import CollectorError

    try:
        collector.ask(command, **arguments)
    except CollectorError as error:
        assert "failed on" not in error.message, error
    else:
        raise AssertionError(f"{command} {arguments} was taken")
