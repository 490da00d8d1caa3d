"""The embedded server: installing, starting, adopting, ending, and what it leaves open."""

from __future__ import annotations

import base64
import http.client
import json
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
from pydantic import SecretStr

from collector.config import Config, QuestDB, load_config
from collector.errors import DatabaseMisconfigured, InstallError
from collector.storage.embedded import ADMINISTRATOR, EmbeddedServer, resolve_settings
from collector.storage.processes import command_line
from collector.storage.sql import connect, to_timestamp


def ask(server, path: str, *, signed: bool = True, method: str = "GET", body: str | None = None) -> int:
    connection = http.client.HTTPConnection(server.settings.ilp_host, server.settings.ilp_port, timeout=10)
    credentials = base64.b64encode(f"{server.user}:{server.password}".encode()).decode()
    connection.request(method, path, body, {"Authorization": f"Basic {credentials}"} if signed else {})
    try:
        return connection.getresponse().status
    finally:
        connection.close()


def same_server(server: EmbeddedServer) -> EmbeddedServer:
    """Return the same server as another process would describe it."""
    return EmbeddedServer(server.root, http_port=server.ports[0], pg_port=server.ports[1], heap_max="512m")


# Without a server


def test_a_jar_of_another_hash_is_refused(tmp_path: Path) -> None:
    """What was fetched is what was pinned, or nothing is installed."""
    server = EmbeddedServer(tmp_path / "questdb", fetch_jar=lambda path: path.write_bytes(b"forged") and None)
    with pytest.raises(InstallError, match="not the pinned one"):
        server.install()
    assert not server.installed
    assert not list(server.root.glob("*.jar")) + list(server.root.glob("*.incoming"))


def test_a_fetch_that_fails_leaves_nothing(tmp_path: Path) -> None:
    """The next try starts afresh."""

    def fail(path: Path) -> None:
        path.write_bytes(b"half")
        raise InstallError("no network")

    server = EmbeddedServer(tmp_path / "questdb", fetch_jar=fail)
    with pytest.raises(InstallError, match="no network"):
        server.install()
    assert not list(server.root.glob("*.incoming"))
    assert server.problems()[0].startswith("QuestDB 9.3.4 is not installed")


def test_a_server_that_is_not_installed_is_not_started(tmp_path: Path) -> None:
    """The message names the command that installs it."""
    server = EmbeddedServer(tmp_path / "questdb")
    with pytest.raises(InstallError, match="collector db install"):
        server.start()
    with pytest.raises(InstallError, match="collector db install"):
        _ = server.credentials
    assert not server.stop()
    assert not server.running


def test_a_folder_that_cannot_be_made_is_an_error(tmp_path: Path) -> None:
    """A file in the folder's place, for one."""
    (tmp_path / "questdb").write_text("")
    with pytest.raises(InstallError, match="cannot be installed"):
        EmbeddedServer(tmp_path / "questdb").install()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"pid": "x"}', '{"pid": 1}'])
def test_a_damaged_pid_file_is_no_server(tmp_path: Path, content: str) -> None:
    """A file torn by a crash is read as nothing."""
    (tmp_path / "server.json").write_text(content)
    assert not EmbeddedServer(tmp_path).running


def test_a_reused_pid_is_neither_adopted_nor_killed(tmp_path: Path) -> None:
    """After a reboot the number may be anybody's."""
    stranger = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        record = {"pid": stranger.pid, "http_port": 1, "pg_port": 2}
        (tmp_path / "server.json").write_text(json.dumps(record))
        server = EmbeddedServer(tmp_path)
        assert not server.running
        assert server.ports == (9000, 8812)
        assert not server.stop()
        assert stranger.poll() is None
        assert not (tmp_path / "server.json").exists()
    finally:
        stranger.communicate(b"\n")


def test_external_credentials_over_http_are_those_of_pg_wire_by_default() -> None:
    """Unless the environment gives others."""
    both = load_config(environment={"QUESTDB_PG_HOST": "db", "QUESTDB_PG_USER": "u", "QUESTDB_PG_PASSWORD": "p"})
    settings = resolve_settings(both)
    assert (settings.http_user, settings.http_password) == ("u", SecretStr("p"))
    other = Config(questdb=QuestDB(mode="external", http_user="h", http_password=SecretStr("w")))
    assert resolve_settings(other).http_user == "h"


# With one


def test_what_is_private_is_private(questdb) -> None:
    """The folder, the passwords and the configuration are their owner's alone."""
    assert stat.S_IMODE(questdb.root.stat().st_mode) == 0o700
    for name in ("password", "reader_password", "server.conf"):
        assert stat.S_IMODE((questdb.root / "conf" / name).stat().st_mode) == 0o600
    assert questdb.server.problems() == []


def test_no_password_shows_in_arguments_or_logs(questdb) -> None:
    """Everybody on the machine may read a process's arguments."""
    credentials = questdb.server.credentials
    secrets = [credentials.password.get_secret_value(), credentials.reader_password.get_secret_value()]
    assert secrets[0] != secrets[1]
    arguments = " ".join(command_line(questdb.pid))
    logs = " ".join(path.read_text(errors="replace") for path in (questdb.root / "log").iterdir())
    assert arguments
    assert not [secret for secret in secrets if secret in arguments or secret in logs]
    assert secrets[0] not in repr(questdb.server) + repr(credentials) + repr(questdb.server.status())


def test_every_door_wants_the_password(questdb) -> None:
    """Any web page that a person visits could otherwise drop tables on loopback."""
    drop = "/exec?query=drop%20table%20prices"
    assert ask(questdb, drop, signed=False) == 401
    assert ask(questdb, "/write", signed=False, method="POST", body="prices price=1.0\n") == 401
    assert ask(questdb, "/exec?query=select%201") == 200
    for user, password in (("admin", "quest"), ("user", "quest"), (ADMINISTRATOR, "quest")):
        default = questdb.settings.model_copy(update={"pg_user": user, "pg_password": SecretStr(password)})
        with pytest.raises(DatabaseMisconfigured):
            connect(default)


def test_lines_make_neither_tables_nor_columns(questdb) -> None:
    """Automatic tables would come without dedup."""
    assert ask(questdb, "/write", method="POST", body="made_by_itself x=1.0\n") == 400
    assert ask(questdb, "/write", method="POST", body="prices other=1.0\n") == 400


def test_it_listens_on_loopback_alone_and_only_on_its_two_ports(questdb) -> None:
    """No ILP over TCP, no health port, nothing on other addresses."""
    if sys.platform != "linux":
        pytest.skip("the sockets of a process are read from /proc")
    inodes = {str(path.readlink()) for path in Path(f"/proc/{questdb.pid}/fd").iterdir() if path.is_symlink()}
    listening = set()
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/{questdb.pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in inodes:
                address, _, port = fields[1].rpartition(":")
                listening.add((address, int(port, 16)))
    assert listening == {("0100007F", questdb.settings.ilp_port), ("0100007F", questdb.settings.pg_port)}


def test_rows_are_committed_to_the_disk(questdb) -> None:
    """The default of QuestDB acknowledges what a crash of the machine loses."""
    with questdb.connect() as connection:
        rows = {row[0]: row[2] for row in connection.rows("SHOW PARAMETERS")}
    assert rows["cairo.commit.mode"] == "sync"
    assert rows["telemetry.enabled"] == rows["line.tcp.enabled"] == "false"


def test_a_running_server_is_adopted(questdb) -> None:
    """Whoever comes second finds it, by its pid file, and starts none."""
    other = same_server(questdb.server)
    assert other.status().pid == questdb.pid
    assert not other.install()
    assert not other.start()
    assert other.status().pid == questdb.pid
    elsewhere = EmbeddedServer(questdb.root, http_port=1, pg_port=2)
    assert elsewhere.settings().ilp_port == questdb.settings.ilp_port


def test_a_taken_port_names_its_holder_and_what_to_set(questdb_server, free_port: int) -> None:
    """A foreign server on our port is left alone."""
    server = questdb_server(migrated=False).server
    server.stop()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        for ports, key in (((port, free_port), "questdb.ilp_port"), ((free_port, port), "questdb.pg_port")):
            blocked = EmbeddedServer(server.root, http_port=ports[0], pg_port=ports[1])
            with pytest.raises(InstallError, match=rf"Port {port} .* \(pid {os.getpid()}\).*{key}"):
                blocked.start()
            assert not blocked.running


def test_it_starts_again_after_a_kill_with_everything_in_place(questdb_server) -> None:
    """Rows that were acknowledged survive, and so do the passwords."""
    running = questdb_server()
    password = running.password
    with running.connect() as connection:
        connection.run("INSERT INTO prices (timestamp, symbol, price) VALUES (%s, 'BTC_USDT', 1.5)", to_timestamp(1))
        while not connection.count("prices"):  # a WAL table shows its rows a moment later; pytest bounds the wait
            time.sleep(0.01)
    os.kill(running.pid, signal.SIGKILL)
    os.waitpid(running.server._read_pid_file()["pid"], 0)
    assert not running.server.running
    assert running.server.start()
    assert running.password == password == running.server.settings().http_password.get_secret_value()
    with running.connect() as connection:
        assert connection.count("prices") == 1


def test_it_starts_at_once_after_a_kill_with_clients(questdb_server) -> None:
    """The system takes a moment to close the sockets of a killed process: that is no stranger on our port."""
    server = questdb_server().server
    clients = [socket.create_connection(("127.0.0.1", server.ports[0])) for _ in range(20)]
    os.kill(server.status().pid, signal.SIGKILL)
    try:
        while server.running:
            time.sleep(0.001)
        assert server.start()
    finally:
        for client in clients:
            client.close()


def test_a_stopped_process_is_ended_by_force(questdb_server) -> None:
    """One that doesn't react to SIGTERM gets SIGKILL once its time is over."""
    running = questdb_server(migrated=False)
    pid = running.pid
    os.kill(pid, signal.SIGSTOP)
    impatient = EmbeddedServer(running.root, stop_timeout_s=0.5)
    assert impatient.stop()
    assert command_line(pid) == []
    assert not impatient.stop()


def test_two_that_start_it_at_once_start_one(questdb_server) -> None:
    """The daemon and the command line may come at the same moment."""
    first = questdb_server(migrated=False).server
    first.stop()
    servers = [same_server(first), same_server(first)]
    outcomes: list[bool] = []
    threads = [threading.Thread(target=lambda server=server: outcomes.append(server.start())) for server in servers]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=60)
    assert sorted(outcomes) == [False, True]
    assert servers[0].status().pid == servers[1].status().pid


def test_a_server_whose_folder_was_deleted_under_it_is_named(questdb_server) -> None:
    """Two on one folder delete each other's files: accepted rows are gone before they are applied."""
    running = questdb_server(migrated=False)
    orphan = running.pid
    shutil.rmtree(running.root)
    fresh = same_server(running.server)
    fresh.install()
    try:
        with pytest.raises(InstallError, match=rf"pid {orphan}.*kill {orphan}"):
            fresh.start()
    finally:
        os.kill(orphan, signal.SIGKILL)
        os.waitpid(orphan, 0)
    assert fresh.start()


def test_a_start_that_fails_says_why(questdb_server) -> None:
    """The server's own last words are in the error."""
    server = questdb_server(migrated=False).server
    server.stop()
    broken = EmbeddedServer(server.root, http_port=server.ports[0], pg_port=server.ports[1], heap_max="1k")
    with pytest.raises(InstallError, match=r"ended while starting: .*heap"):
        broken.start()
    assert not broken.running
