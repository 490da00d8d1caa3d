"""The database from the daemon's side: installed, started, migrated, watched and ended last; or somebody else's.

Collecting never waits for any of this. Everything that blocks happens in a thread of its own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from structlog.typing import FilteringBoundLogger

from collector.config import Config, QuestDB
from collector.errors import CollectorError, DatabaseMisconfigured, DatabaseUnavailable
from collector.storage.embedded import VERSION, EmbeddedServer, resolve_settings
from collector.storage.migrations import migrate, repair_tables
from collector.storage.questdb import HttpTransport, Maybe, Outcome, Row

_WATCH_INTERVAL_S = 1.0
_RETRY_FIRST_S = 1.0
_RETRY_CAP_S = 30.0

T = TypeVar("T")


class LateTransport:
    """A transport to a server whose address and credentials may not be known yet, or change when it is started again.

    Args:
        settings: returns them as they are now; raises DatabaseUnavailable while there are none.
    """

    def __init__(self, settings: Callable[[], QuestDB]) -> None:
        self._settings = settings
        self._inner: HttpTransport | None = None

    def send(self, table: str, body: bytes, rows: int) -> Outcome:
        """Send ILP lines as ``HttpTransport.send``."""
        try:
            outcome = self._open().send(table, body, rows)
        except DatabaseUnavailable as error:
            return Maybe(error.message)
        except DatabaseMisconfigured:
            self.close()
            raise
        if isinstance(outcome, Maybe):
            self.close()
        return outcome

    def query(self, sql: str) -> list[Row]:
        """Ask as ``HttpTransport.query``."""
        return self._ask(lambda transport: transport.query(sql))

    def version(self) -> tuple[int, ...]:
        """Return the server's version as ``HttpTransport.version``."""
        return self._ask(lambda transport: transport.version())

    def close(self) -> None:
        """Close the connection; the next call takes the settings anew."""
        inner, self._inner = self._inner, None
        if inner is not None:
            inner.close()

    def abort(self) -> None:
        """Break off whatever the delivery thread waits for."""
        inner = self._inner
        if inner is not None:
            inner.abort()

    def _ask(self, question: Callable[[HttpTransport], T]) -> T:
        try:
            return question(self._open())
        except (DatabaseUnavailable, DatabaseMisconfigured):
            self.close()
            raise

    def _open(self) -> HttpTransport:
        if self._inner is None:
            self._inner = HttpTransport.from_config(self._settings())
        return self._inner


class DatabaseSupervisor:
    """Keep the embedded server up, or only know the external one's address.

    ``reason`` says why the server is not to be had; empty where it is, or is being started.
    """

    def __init__(self, config: Config, *, log: FilteringBoundLogger) -> None:
        self.mode = config.questdb.mode
        self.reason = ""
        self.starts = 0
        self.tried = asyncio.Event()
        """Set once it is known whether there is a server: before that, its absence is no news."""
        self._config = config
        self._log = log
        self._server = EmbeddedServer.from_config(config) if self.mode == "embedded" else None
        self._stopping = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="database")

    @property
    def pid(self) -> int | None:
        """Return the embedded server's process, None where none of ours runs."""
        return self._server.status().pid if self._server else None

    @property
    def version(self) -> str:
        """Return the embedded server's version; empty where the server is somebody else's."""
        return VERSION if self._server else ""

    @property
    def console_url(self) -> str:
        """Return the web console's address; empty where there is no database."""
        if self.mode == "off":
            return ""
        if self._server is not None:
            return f"http://{self._server.status().http_address}/"
        return f"http://{self._config.questdb.ilp_host}:{self._config.questdb.ilp_port}/"

    @property
    def pg_address(self) -> str:
        """Return host and port of PG wire; empty where there is no database."""
        if self.mode == "off":
            return ""
        if self._server is not None:
            return self._server.status().pg_address
        return f"{self._config.questdb.pg_host}:{self._config.questdb.pg_port}"

    def settings(self) -> QuestDB:
        """Return address and credentials as they are now.

        Raises:
            DatabaseUnavailable: there is no server to be asked (yet).
        """
        if self.mode == "off":
            raise DatabaseUnavailable("The configuration wants no database (questdb.mode = off).")
        try:
            return resolve_settings(self._config)
        except CollectorError as error:
            raise DatabaseUnavailable(self.reason or error.message, hint=error.hint) from error

    def make_tables(self) -> list[str]:
        """Make missing tables of the embedded server again; an external one's are its owner's.

        Raises:
            CollectorError: the server is external, or refuses.
        """
        if self._server is None:
            raise CollectorError(
                "A table of the external QuestDB is missing.", hint="Run `collector db migrate --repair`."
            )
        return repair_tables(self.settings())

    async def run(self) -> None:
        """Keep the embedded server up until ``stop``; returns at once where there is none of ours."""
        if self._server is None:
            self.tried.set()
            return
        delay_s = _RETRY_FIRST_S
        while not self._stopping.is_set():
            try:
                await self._in_thread(self._ensure)
                delay_s = _RETRY_FIRST_S
                self.tried.set()
                await self._wait(_WATCH_INTERVAL_S)
            except (CollectorError, OSError) as error:
                self._note_failure(error)
                self.tried.set()
                await self._wait(delay_s)
                delay_s = min(2 * delay_s, _RETRY_CAP_S)

    def _note_failure(self, error: CollectorError | OSError) -> None:
        """Keep why there is no server, and say it where it is news; OSError: no descriptor is left, for one."""
        if isinstance(error, OSError):
            error = CollectorError(f"The embedded QuestDB cannot be looked after: {error}.")
        if str(error) != self.reason:
            self._log.warning("questdb.start_failed", reason=error.message, hint=error.hint)
        self.reason = str(error)

    async def stop(self, *, end_server: bool) -> None:
        """Watch no longer; with ``end_server``, end the embedded server too."""
        self._stopping.set()
        self.tried.set()
        if end_server and self._server is not None:
            try:
                await self._in_thread(self._server.stop)
            except CollectorError as error:
                self._log.error("questdb.stop_failed", reason=str(error))
        self._thread.shutdown(wait=False)

    def _ensure(self) -> None:
        server = self._server
        if server is None or (server.running and self.starts):
            return
        restarted = bool(self.starts)
        installed = server.install()
        if installed:
            self._log.info("questdb.installed", root=str(server.root))
        started = server.start()
        for migration in migrate(server.settings(self._config.questdb)):
            self._log.info("questdb.migrated", migration=str(migration))
        self.starts += 1
        self.reason = ""
        event = "questdb.restarted" if restarted else "questdb.started" if started else "questdb.adopted"
        self._log.info(event, http=server.status().http_address, pid=server.status().pid)

    async def _wait(self, seconds: float) -> None:
        try:
            async with asyncio.timeout(seconds):
                await self._stopping.wait()
        except TimeoutError:
            pass

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)
