"""The QuestDB server that we install, start, adopt and end ourselves: one background process per data directory.

Everything of it stands in one folder (mode 0700): the jar, its configuration, the generated passwords, the log and the
database. A later start needs no network.
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import secrets
import shutil
import signal
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import SecretStr

from collector.config import Config, QuestDB
from collector.errors import InstallError
from collector.storage.java import find_java
from collector.storage.processes import (
    accepts,
    all_commands,
    answers_http,
    command_line,
    port_holder,
    port_is_free,
    reap,
)

VERSION = "9.3.4"
COORDINATES = f"org.questdb:questdb:{VERSION}"
SHA256 = "939bc53ab22f93dbaa6545143a6e7c536d4904c07b7f2d381e8eef10436be062"

ADMINISTRATOR = "collector"
READER = "reader"

_MAIN_CLASS = "io.questdb/io.questdb.ServerMain"
_LOOPBACK = "127.0.0.1"
_POLL_S = 0.05
_LETTING_GO_S = 2.0

_SERVER_CONF = """\
# Written by collector at every start: edits are lost. Passwords stand in the files beside this one.
config.validation.strict=true
http.bind.to={host}:{http_port}
http.user={administrator}
http.min.enabled=false
pg.net.bind.to={host}:{pg_port}
pg.user={administrator}
pg.readonly.user.enabled=true
pg.readonly.user={reader}
line.tcp.enabled=false
line.udp.enabled=false
line.auto.create.new.tables=false
line.auto.create.new.columns=false
line.log.message.on.error=false
cairo.commit.mode=sync
telemetry.enabled=false
"""

_LOG_CONF = """\
# Written by collector at every start: a log of bounded size.
writers=file
w.file.class=io.questdb.log.LogRollingFileWriter
w.file.location=${log.dir}/questdb.log.${date:yyyyMMdd}
w.file.level=ERROR,CRITICAL,ADVISORY
w.file.rollEvery=day
w.file.rollSize=16m
w.file.sizeLimit=128m
"""


@dataclass(frozen=True, slots=True)
class Credentials:
    """The generated passwords of a server: one for HTTP and PG wire, one for the user that may only read."""

    password: SecretStr
    reader_password: SecretStr


@dataclass(frozen=True, slots=True)
class ServerStatus:
    """What is known of the server's process now; ``pid`` None where none of ours runs."""

    installed: bool
    pid: int | None
    http_address: str
    pg_address: str
    root: Path
    version: str = VERSION

    @property
    def running(self) -> bool:
        return self.pid is not None


class EmbeddedServer:
    """The QuestDB server of one folder.

    Args:
        root: the server's folder; made where it is missing.
        http_port: the port of ILP over HTTP and of the console, on loopback.
        pg_port: the port of PG wire, on loopback.
        heap_max: the largest Java heap, as ``512m`` or ``1g``.
        start_timeout_s: how long a start may take until the server answers.
        stop_timeout_s: how long SIGTERM has until SIGKILL follows.
        extra_environment: further ``QDB_…`` variables for the server (tests use the developer mode).
        fetch_jar: puts the jar at a path; the default fetches it by its Maven coordinates.
    """

    def __init__(
        self,
        root: Path,
        *,
        http_port: int = 9000,
        pg_port: int = 8812,
        heap_max: str = "1g",
        start_timeout_s: float = 60,
        stop_timeout_s: float = 20,
        extra_environment: Mapping[str, str] | None = None,
        fetch_jar: Callable[[Path], None] | None = None,
    ) -> None:
        self.root = root.resolve()
        self._http_port = http_port
        self._pg_port = pg_port
        self._heap_max = heap_max
        self._start_timeout_s = start_timeout_s
        self._stop_timeout_s = stop_timeout_s
        self._extra_environment = dict(extra_environment or {})
        self._fetch_jar = fetch_jar or fetch_jar_by_coordinates

    @classmethod
    def from_config(cls, config: Config) -> EmbeddedServer:
        """Describe the server that a configuration with ``questdb.mode = "embedded"`` means."""
        return cls(
            config.daemon.data_dir / "questdb",
            http_port=config.questdb.ilp_port,
            pg_port=config.questdb.pg_port,
            heap_max=config.questdb.heap_max,
            start_timeout_s=config.questdb.start_timeout_s,
        )

    def __repr__(self) -> str:
        return f"EmbeddedServer({str(self.root)!r}, http_port={self._http_port}, pg_port={self._pg_port})"

    @property
    def jar(self) -> Path:
        return self.root / f"questdb-{VERSION}.jar"

    @property
    def installed(self) -> bool:
        """Tell whether the jar, the passwords and their folder stand; the jar's hash is checked by ``install``."""
        return self.jar.is_file() and self._password_file.is_file() and self._reader_password_file.is_file()

    @property
    def _conf(self) -> Path:
        return self.root / "conf"

    @property
    def _log(self) -> Path:
        return self.root / "log"

    @property
    def _pid_file(self) -> Path:
        return self.root / "server.json"

    @property
    def _password_file(self) -> Path:
        return self._conf / "password"

    @property
    def _reader_password_file(self) -> Path:
        return self._conf / "reader_password"

    @property
    def credentials(self) -> Credentials:
        """Return the generated passwords; raise InstallError before the server is installed."""
        try:
            return Credentials(
                SecretStr(self._password_file.read_text(encoding="ascii").strip()),
                SecretStr(self._reader_password_file.read_text(encoding="ascii").strip()),
            )
        except OSError as error:
            raise InstallError(
                f"The passwords of the embedded QuestDB in {self.root} cannot be read: {error.strerror}.",
                hint="Run `collector db install`.",
            ) from error

    # Installing

    def install(self) -> bool:
        """Fetch the jar, check its hash, find Java, generate passwords; return False where all of it stood already.

        Raises:
            InstallError: the jar cannot be fetched or has another hash, there is no Java, the folder cannot be written.
        """
        find_java()
        try:
            self._make_folders()
            with self._locked():
                fetched = self._install_jar()
                generated = [_generate_password(path) for path in (self._password_file, self._reader_password_file)]
        except OSError as error:
            raise InstallError(f"The embedded QuestDB cannot be installed in {self.root}: {error}.") from error
        return fetched or any(generated)

    def problems(self) -> list[str]:
        """Return what keeps this installation from being whole, one sentence each; changes nothing."""
        found = []
        if not self.jar.is_file():
            found.append(f"QuestDB {VERSION} is not installed in {self.root}.")
        elif _sha256(self.jar) != SHA256:
            found.append(f"{self.jar} is not the pinned one: its SHA-256 differs.")
        for path in (self._password_file, self._reader_password_file):
            if not path.is_file():
                found.append(f"The password file {path} is missing.")
            elif path.stat().st_mode & 0o077:
                found.append(f"The password file {path} can be read by others.")
        try:
            find_java()
        except InstallError as error:
            found.append(str(error))
        return found

    def _make_folders(self) -> None:
        for folder in (self.root, self._conf, self._log, self.root / "tmp"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        self.root.chmod(0o700)

    def _install_jar(self) -> bool:
        if self.jar.is_file() and _sha256(self.jar) == SHA256:
            return False
        incoming = self.jar.with_suffix(".incoming")
        try:
            self._fetch_jar(incoming)
            found = _sha256(incoming)
            if found != SHA256:
                raise InstallError(
                    f"The fetched {COORDINATES} is not the pinned one: its SHA-256 is {found}, expected {SHA256}.",
                    hint="Nothing was installed; find out what answered for the Maven repository.",
                )
            incoming.replace(self.jar)
        finally:
            incoming.unlink(missing_ok=True)
        return True

    # Running

    def start(self) -> bool:
        """Start the server in the background and wait until it answers; return False where it ran already (adopted).

        Raises:
            InstallError: it is not installed, a port is taken by another process, or it ended or hung while starting.
        """
        if not self.installed:
            raise InstallError(
                f"The embedded QuestDB is not installed in {self.root}.", hint="Run `collector db install`."
            )
        with self._locked():
            if (pid := self._running_pid()) is not None:
                self._wait_until_ready(pid)
                return False
            self._refuse_orphan()
            self._refuse_taken_ports()
            self._make_folders()
            self._write_configuration()
            pid = self._spawn()
            self._write_pid_file(pid)
            self._wait_until_ready(pid)
        return True

    def stop(self) -> bool:
        """End the server: SIGTERM, then SIGKILL once the bound has passed; return False where none of ours ran."""
        if not self.root.is_dir():
            return False
        with self._locked():
            pid = self._running_pid()
            if pid is None:
                self._pid_file.unlink(missing_ok=True)
                return False
            for number, bound_s in ((signal.SIGTERM, self._stop_timeout_s), (signal.SIGKILL, 10.0)):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(pid, number)
                if self._wait_until_gone(pid, bound_s):
                    self._pid_file.unlink(missing_ok=True)
                    return True
        raise InstallError(f"The embedded QuestDB (pid {pid}) does not end.")

    def status(self) -> ServerStatus:
        """Look whether it is installed and runs; answers at once and asks the server nothing."""
        http_port, pg_port = self.ports
        return ServerStatus(
            installed=self.installed,
            pid=self._running_pid(),
            http_address=f"{_LOOPBACK}:{http_port}",
            pg_address=f"{_LOOPBACK}:{pg_port}",
            root=self.root,
        )

    @property
    def running(self) -> bool:
        """Tell whether a process of ours runs; it may still be starting, or hang."""
        return self._running_pid() is not None

    @property
    def ports(self) -> tuple[int, int]:
        """Return the HTTP and PG ports: those that it was started with where it runs, otherwise the configured ones."""
        record = self._read_pid_file()
        if record and self._running_pid() is not None:
            return int(record["http_port"]), int(record["pg_port"])
        return self._http_port, self._pg_port

    def settings(self, base: QuestDB | None = None, *, read_only: bool = False) -> QuestDB:
        """Return ``base`` with this server's addresses and credentials; ``read_only`` as the user that may only read.

        Over HTTP there is no user that may only read, so ``read_only`` concerns PG wire alone.
        """
        credentials = self.credentials
        http_port, pg_port = self.ports
        return (base or QuestDB()).model_copy(
            update={
                "ilp_host": _LOOPBACK,
                "ilp_port": http_port,
                "http_user": ADMINISTRATOR,
                "http_password": credentials.password,
                "pg_host": _LOOPBACK,
                "pg_port": pg_port,
                "pg_user": READER if read_only else ADMINISTRATOR,
                "pg_password": credentials.reader_password if read_only else credentials.password,
                "pg_database": "qdb",
            }
        )

    @contextlib.contextmanager
    def _locked(self) -> Iterator[None]:
        """Let one process at a time install, start or stop this server."""
        with (self.root / "lock").open("w") as lock:
            deadline = time.monotonic() + self._start_timeout_s + self._stop_timeout_s
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError as error:
                    if time.monotonic() > deadline:
                        raise InstallError(f"Another process has been starting or stopping {self.root}.") from error
                    time.sleep(_POLL_S)
            yield

    def _write_configuration(self) -> None:
        content = _SERVER_CONF.format(
            host=_LOOPBACK,
            http_port=self._http_port,
            pg_port=self._pg_port,
            administrator=ADMINISTRATOR,
            reader=READER,
        )
        _write_private(self._conf / "server.conf", content)
        _write_private(self._conf / "log.conf", _LOG_CONF)

    def _environment(self) -> dict[str, str]:
        """Give the server what a process needs, and never the secrets or ``QDB_…`` settings of ours."""
        kept = {name: os.environ[name] for name in ("PATH", "HOME", "LANG", "LC_ALL", "TZ") if name in os.environ}
        return {
            **kept,
            "QDB_HTTP_PASSWORD_FILE": str(self._password_file),
            "QDB_PG_PASSWORD_FILE": str(self._password_file),
            "QDB_PG_READONLY_PASSWORD_FILE": str(self._reader_password_file),
            **self._extra_environment,
        }

    def _command(self) -> list[str]:
        return [
            str(find_java()),
            f"-Xmx{self._heap_max}",
            "-XX:+UseParallelGC",
            "-XX:+ExitOnOutOfMemoryError",
            f"-XX:ErrorFile={self._log}/crash-%p.log",
            f"-Djava.io.tmpdir={self.root / 'tmp'}",
            "-p",
            str(self.jar),
            "-m",
            _MAIN_CLASS,
            "-d",
            str(self.root),
        ]

    def _spawn(self) -> int:
        """Start the process in a session of its own, so that neither Ctrl-C nor our end reaches it."""
        shutil.rmtree(self.root / "tmp", ignore_errors=True)  # native libraries that a killed server left
        (self.root / "tmp").mkdir(mode=0o700)
        command = self._command()
        output = os.open(self._log / "start.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
        try:
            return os.posix_spawn(
                command[0],
                command,
                self._environment(),
                file_actions=[
                    (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
                    (os.POSIX_SPAWN_DUP2, output, 1),
                    (os.POSIX_SPAWN_DUP2, output, 2),
                ],
                setsid=True,
            )
        except OSError as error:
            raise InstallError(f"The embedded QuestDB cannot be started: {error}.") from error
        finally:
            os.close(output)

    def _write_pid_file(self, pid: int) -> None:
        record = {"pid": pid, "http_port": self._http_port, "pg_port": self._pg_port, "version": VERSION}
        _write_private(self._pid_file, json.dumps(record) + "\n")

    def _read_pid_file(self) -> dict[str, Any] | None:
        try:
            record = json.loads(self._pid_file.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return None
        complete = isinstance(record, dict) and all(
            isinstance(record.get(key), int) for key in ("pid", "http_port", "pg_port")
        )
        return record if complete else None

    def _running_pid(self) -> int | None:
        """Return the pid in the pid file if it is this folder's server, and not a stranger with its number."""
        record = self._read_pid_file()
        if record is None:
            return None
        pid: int = record["pid"]
        reap(pid)
        command = command_line(pid)
        ours = _MAIN_CLASS in command and command[-1] == str(self.root)
        return pid if ours else None

    def _wait_until_gone(self, pid: int, bound_s: float) -> bool:
        deadline = time.monotonic() + bound_s
        while self._running_pid() == pid:
            if time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def _wait_until_ready(self, pid: int) -> None:
        http_port, pg_port = self.ports
        deadline = time.monotonic() + self._start_timeout_s
        answers = False
        while not answers:
            answers = answers_http(_LOOPBACK, http_port) and accepts(_LOOPBACK, pg_port)
            if self._running_pid() != pid:  # asked after the answer: a stranger on our port may have given it
                raise InstallError(
                    f"The embedded QuestDB ended while starting: {self._last_output()}",
                    hint=f"Its log is in {self._log}.",
                )
            if not answers and time.monotonic() > deadline:
                raise InstallError(
                    f"The embedded QuestDB (pid {pid}) does not answer after {self._start_timeout_s:g} s.",
                    hint=f"Its log is in {self._log}; `collector db stop` ends it.",
                )
            if not answers:
                time.sleep(_POLL_S)

    def _last_output(self) -> str:
        try:
            lines = (self._log / "start.log").read_text(encoding="utf-8", errors="replace").strip().splitlines()
        except OSError:
            return "it said nothing."
        return " / ".join(lines[-3:])[:500] if lines else "it said nothing."

    def _becomes_free(self, port: int) -> bool:
        """Tell whether a port is free; a server of ours that was killed just now may still be letting go of it."""
        deadline = time.monotonic() + _LETTING_GO_S
        while not port_is_free(_LOOPBACK, port):
            if self._read_pid_file() is None or time.monotonic() > deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def _refuse_orphan(self) -> None:
        """Refuse to start beside a server of this folder that the pid file does not know.

        It runs on when the folder is deleted under it, and would delete the new server's files as left-overs: accepted
        rows are gone then before they are applied ("cannot read WAL event file").
        """
        for pid, command in all_commands():
            if _MAIN_CLASS in command and command[-1] == str(self.root):
                raise InstallError(
                    f"Another QuestDB (pid {pid}) runs in {self.root}, whose files were deleted under it.",
                    hint=f"End it (kill {pid}) and try again: it would delete the new server's files.",
                )

    def _refuse_taken_ports(self) -> None:
        for key, port in (("questdb.ilp_port", self._http_port), ("questdb.pg_port", self._pg_port)):
            if not self._becomes_free(port):
                raise InstallError(
                    f"Port {port} of the embedded QuestDB is taken by {port_holder(port)}.",
                    hint=f"End that process, or set {key} in config.toml to a free port.",
                )


def resolve_settings(config: Config, *, read_only: bool = False) -> QuestDB:
    """Return where QuestDB answers and as whom to ask it: the embedded server's own, or the configured external ones.

    Raises:
        InstallError: the mode is embedded and the server is not installed.
    """
    if config.questdb.mode == "embedded":
        return EmbeddedServer.from_config(config).settings(config.questdb, read_only=read_only)
    external = config.questdb
    if external.http_user:
        return external
    return external.model_copy(update={"http_user": external.pg_user, "http_password": external.pg_password})


def fetch_jar_by_coordinates(destination: Path) -> None:
    """Fetch the server's jar by its Maven coordinates; raise InstallError where that fails."""
    import jgo

    with tempfile.TemporaryDirectory(dir=destination.parent) as cache:
        try:
            environment = jgo.build(COORDINATES, cache_dir=Path(cache))
        except Exception as error:  # jgo raises what its HTTP client and its resolver raise
            raise InstallError(
                f"{COORDINATES} cannot be fetched: {error}.",
                hint="Check the network; nothing else of the installation needs it.",
            ) from error
        jars = sorted(Path(environment.path).rglob(f"questdb-{VERSION}.jar"))
        if not jars:
            raise InstallError(f"{COORDINATES} was fetched, but holds no questdb-{VERSION}.jar.")
        shutil.copyfile(jars[0], destination)


def _generate_password(path: Path) -> bool:
    if path.is_file() and path.stat().st_size > 0:
        path.chmod(0o600)
        return False
    _write_private(path, secrets.token_urlsafe(32))
    return True


def _write_private(path: Path, content: str) -> None:
    """Put content in place of a file that only its owner may read."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.unlink(missing_ok=True)
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w", encoding="utf-8") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    temporary.replace(path)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
