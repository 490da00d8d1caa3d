"""The composition root: everything is built here from the configuration, and runs in one task tree."""

from __future__ import annotations

import asyncio
import contextlib
import functools
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

import msgspec
from structlog.typing import FilteringBoundLogger

from collector.api.server import ApiServer
from collector.clock import Clock, ClockStep, StepDetector, SystemClock
from collector.collection import Collection, Parts, ends_of, facts_of, files_of, plan_repair
from collector.config import Config, warnings_of
from collector.control_server import Command, ControlServer, Progress
from collector.daemon_lock import DaemonLock
from collector.describe import describe_database, session_row
from collector.errors import CollectorError, DatabaseUnavailable, UnknownName, UsageError
from collector.exchanges.selection import is_rule
from collector.feeds.allowance import Allowances
from collector.history_run import HistoryRun, HistoryRuns
from collector.logs import dropped_records, get_log
from collector.orders import check_order
from collector.reading.older import convert_older
from collector.reading.sessions import find_session
from collector.reading.verify import verify_session
from collector.requests import (
    BackfillRequest,
    CandleFileRequest,
    CoinsRequest,
    QualityRequest,
    ReconnectRequest,
    RepairRequest,
    ResyncRequest,
    SessionRequest,
    StartRequest,
    StopRequest,
    SymbolsRequest,
    from_arguments,
)
from collector.session.manifest import MANIFEST_FILE, Manifest, load_manifest, save_manifest
from collector.session.repair import Tally
from collector.session.repairer import Tell
from collector.session.session import (
    FINAL,
    RUNNING,
    close_interrupted,
    mark_interrupted,
    new_session_id,
    session_directory,
)
from collector.simulated import SimulatedExchange
from collector.status import DaemonStatus, QuestDBStatus, SessionStatus
from collector.storage.dormant import FindFiles
from collector.storage.files import OperatingSystem
from collector.storage.replicator import Replicator
from collector.storage.session_replica import SessionReplica
from collector.storage.sessions import SessionRow, SessionRows
from collector.storage.supervision import DatabaseSupervisor, LateTransport
from collector.systemd import notify_stopping
from collector.upkeep import EndedSessions

_LOOP_BEAT_S = 0.25
_FINISHED_KEPT = 100
_ROW_CHECK_FACTOR = 3  # the sessions' rows are looked at in every third interval of the tables' checks
_SEND_AGAIN_TIMEOUT_S = 24 * 3600.0


async def run(config: Config, *, ready: Callable[[], None] | None = None) -> None:
    """Run the daemon until SIGTERM, SIGINT or ``down``; everything is flushed and, where possible, delivered then.

    Args:
        ready: called once commands are answered.

    Raises:
        DaemonRunning: another daemon owns the data directory.
        CollectorError: the data directory or the control socket cannot be used.
    """
    os.umask(0o027)
    with DaemonLock(config.daemon.data_dir):
        daemon = Daemon(config, clock=SystemClock(), log=get_log())
        await daemon.run(ready)


class Daemon:
    """All sessions of one data directory, their database, and the doors to them."""

    def __init__(self, config: Config, *, clock: Clock, log: FilteringBoundLogger) -> None:
        self.config = config
        self._clock = clock
        self._log = log
        self._data_dir = config.daemon.data_dir.resolve()
        self._files = OperatingSystem()
        self._log_thread = ThreadPoolExecutor(1, thread_name_prefix="log")
        self._keeper_thread = ThreadPoolExecutor(1, thread_name_prefix="keeper")
        self._database = DatabaseSupervisor(config, log=log)
        self._allowances: Allowances = {}
        self._history = HistoryRuns(
            config,
            clock=clock,
            log=log,
            begin=self._begin_history,
            settings=self._database.settings,
            data_dir=self._data_dir,
            files=self._files,
            live=self._allowances,
        )
        self._replicator = self._make_replicator()
        self._session_rows: SessionReplica | None = None
        self._mending: set[str] = set()
        self._simulated = SimulatedExchange(config.sim, log=log)
        self._control = ControlServer(self._data_dir, self._commands(), log=log, settings=config.control)
        self._ended = self._ended_sessions()
        self._collections: dict[str, Collection] = {}
        self._tasks: asyncio.TaskGroup | None = None
        self._api: ApiServer | None = None
        self._stopping = asyncio.Event()
        self._stop_reason = ""
        self._leaving = False
        self._stop_database = False
        self._started_us = clock.now_us()
        self._started_s = clock.monotonic_s()
        self._loop_lag_s = 0.0
        self._clock_steps = 0
        self._last_clock_step: ClockStep | None = None
        self._delivering = False

    # Life

    async def run(self, ready: Callable[[], None] | None = None) -> None:
        """Run until asked to stop; see ``run`` of this module."""
        self._stop_on_signals()
        for warning in warnings_of(self.config):
            self._log.warning("daemon.configuration", reason=warning)
        control = self._control
        try:
            async with asyncio.TaskGroup() as tasks:
                self._tasks = tasks
                await control.start()
                self._start_delivery(tasks)
                beat = tasks.create_task(self._measure_loop())
                schedule = tasks.create_task(self._history.keep_schedule()) if self.config.history.enabled else None
                await self._start_api(tasks)
                await self._take_up_sessions()
                tasks.create_task(self._ended.run(self._stopping))
                self._log.info("daemon.ready", pid=os.getpid(), data_dir=str(self._data_dir))
                if ready is not None:
                    ready()
                await self._stopping.wait()
                self._log.info("daemon.stopping", reason=self._stop_reason)
                notify_stopping()
                await self._drain()
                await control.stop()
                beat.cancel()
                if schedule is not None:
                    schedule.cancel()
                if self._api is not None:
                    await self._api.stop()
        finally:
            await self._simulated.stop()
            await self._history.close()
            self._keeper_thread.shutdown(wait=True)
            self._log_thread.shutdown(wait=True)
            self._log.info("daemon.stopped")

    def request_stop(self, reason: str, *, leave: bool = False) -> None:
        """Have the daemon end; a second request changes nothing.

        Args:
            leave: sessions are not completed, but left to the next daemon, which goes on with them.
        """
        if not self._stopping.is_set():
            self._stop_reason = reason
            self._leaving = leave
            self._stopping.set()

    def _stop_on_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            # Somebody who embeds the daemon in a thread handles signals himself.
            with contextlib.suppress(ValueError, RuntimeError, NotImplementedError):
                leave = number == signal.SIGTERM and self.config.daemon.on_sigterm == "leave"
                stop = functools.partial(self.request_stop, signal.Signals(number).name, leave=leave)
                loop.add_signal_handler(number, stop)

    def _make_replicator(self) -> Replicator | None:
        if self._database.mode == "off":
            self._log.warning("data_collection.db_persistence_disabled", reason="questdb.mode is off")
            return None
        return Replicator(
            lambda: LateTransport(self._database.settings),
            config=self.config.questdb,
            files=self._files,
            clock=self._clock,
            log=self._log,
            repair_tables=self._repair_tables if self._database.mode == "embedded" else None,
        )

    def _repair_tables(self) -> None:
        made = self._database.make_tables()
        self._log.warning("questdb.tables_made_again", tables=made)

    def _start_delivery(self, tasks: asyncio.TaskGroup) -> None:
        if self._replicator is None:
            return
        self._session_rows = SessionReplica(SessionRows(self._database.settings), log=self._log)
        tasks.create_task(self._database.run())
        tasks.create_task(self._start_replicator(self._replicator))
        tasks.create_task(self._session_rows.run())
        check_interval_s = _ROW_CHECK_FACTOR * self.config.questdb.check_interval_s
        tasks.create_task(self._session_rows.check(self._ended_ids, self._ended_row, check_interval_s))

    async def _start_replicator(self, replicator: Replicator) -> None:
        """Begin to deliver once it is known whether there is a server; what is committed meanwhile waits."""
        await self._database.tried.wait()
        replicator.start()
        self._delivering = True

    async def _start_api(self, tasks: asyncio.TaskGroup) -> None:
        if not self.config.api.enabled:
            return
        server = ApiServer(self.config, log=self._log)
        if await server.start(tasks):
            self._api = server

    async def _drain(self) -> None:
        """Stop the sessions, then delivery, then the database, within the deadline."""
        deadline_s = self._clock.monotonic_s() + self.config.daemon.stop_deadline_s
        for collection in self._collections.values():
            past = collection.manifest.kind == "history"  # what is not asked for yet is left to the next daemon
            collection.session.request_stop(self._stop_reason, leave=self._leaving or past)
        running = [collection.ended.wait() for collection in self._collections.values()]
        await asyncio.gather(*running)
        left_s = max(1.0, deadline_s - self._clock.monotonic_s())
        if self._replicator is not None and self._delivering:
            await asyncio.to_thread(self._replicator.stop, left_s)
        if self._session_rows is not None:
            await self._session_rows.stop(min(left_s, 5.0))
        await self._database.stop(end_server=self._stop_database)

    async def _measure_loop(self) -> None:
        """Measure how late the event loop's timer runs, and sample the rates once a second."""
        turn = 0
        detector = StepDetector(self._clock)
        while True:
            before_s = self._clock.monotonic_s()
            await asyncio.sleep(_LOOP_BEAT_S)
            self._loop_lag_s = max(0.0, self._clock.monotonic_s() - before_s - _LOOP_BEAT_S)
            step = detector.look()
            if step is not None:
                self._note_clock_step(step)
            turn += 1
            if turn % 4 == 0:
                for collection in self._collections.values():
                    collection.sample_rates()

    def _note_clock_step(self, step: ClockStep) -> None:
        self._clock_steps += 1
        self._last_clock_step = step
        self._log.warning("daemon.clock_stepped", step_s=step.step_s, at_us=step.at_us)
        for collection in self._collections.values():
            collection.note_clock_step(step)

    # Sessions

    async def _take_up_sessions(self) -> None:
        """Resume or close what an earlier daemon left behind, and deliver what it had not delivered."""
        for path in sorted(self._data_dir.glob("session_*/session.json")):
            try:
                manifest = await asyncio.to_thread(load_manifest, path.parent)
                await self._take_up(path.parent, manifest)
            except CollectorError as error:
                self._log.error("data_collection.session_not_taken_up", path=str(path.parent), reason=str(error))

    def _ended_sessions(self) -> EndedSessions:
        return EndedSessions(
            self._data_dir,
            config=self.config.csv,
            files=self._files,
            clock=self._clock,
            log=self._log,
            thread=self._keeper_thread,
            held=self._replicator.held if self._replicator is not None else None,
            is_running=lambda session_id: session_id in self._running_ids() | self._mending,
        )

    def _running_ids(self) -> set[str]:
        return {key for key, collection in self._collections.items() if not collection.ended.is_set()}

    async def _take_up(self, directory: Path, manifest: Manifest) -> None:
        if manifest.state in RUNNING or manifest.state == "interrupted":
            now_us = self._clock.now_us()
            mark_interrupted(manifest, now_us)
            closed = close_interrupted(manifest, now_us, policy=self.config.daemon.interrupted)
            save_manifest(directory, manifest, self._files)
            self._log.warning("data_collection.session_interrupted", session=manifest.session_id, closed=closed)
            if not closed and not manifest.recording:
                self._resume_soon(manifest)
                return
        if manifest.state in FINAL and self._replicator is not None:
            self._replicator.add_ended(
                manifest.session_id, manifest.exchange, directory, ends_of(directory, manifest), _finder(directory)
            )
        else:
            self._deliver(directory, manifest)

    def _deliver(self, directory: Path, manifest: Manifest) -> None:
        """Have a session that is not running delivered: what its cursor lacks, whoever wrote it."""
        if self._replicator is not None:
            self._replicator.add_session(
                manifest.session_id, manifest.exchange, directory, files_of(directory, manifest)
            )
            if manifest.state in FINAL:
                self._replicator.over(manifest.session_id, _finder(directory))

    def _resume_soon(self, manifest: Manifest) -> None:
        if self._tasks is not None:
            self._tasks.create_task(self._resume(manifest))

    async def _resume(self, manifest: Manifest) -> None:
        """Have an interrupted session go on, as soon as its exchange can be asked."""
        order = StartRequest(exchange=manifest.exchange, symbols=tuple(manifest.symbols), go_on=True)
        delay_s = 1.0
        while not self._stopping.is_set():
            try:
                await self._begin(manifest, order)
            except CollectorError as error:
                self._log.warning("data_collection.session_not_resumed", session=manifest.session_id, reason=str(error))
                if not error.retryable:
                    self._deliver(self._data_dir / f"session_{manifest.session_id}", manifest)
                    return
            except OSError as error:  # no descriptor is left, for one: that passes
                self._log.warning("data_collection.session_not_resumed", session=manifest.session_id, reason=str(error))
            else:
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(delay_s):
                    await self._stopping.wait()
            delay_s = min(2 * delay_s, self.config.feed.backoff_cap_s)

    async def _begin(self, manifest: Manifest, order: StartRequest) -> Collection:
        """Prepare a session and have it run; its own task takes it from there."""
        if self._tasks is None or self._stopping.is_set():
            raise CollectorError("The daemon is stopping.", hint="Start it again, then the session.")
        if self._simulated.is_meant(manifest, order.ws_url or self._configured_url(manifest.exchange)):
            ws_url, rest_url = await self._simulated.ensure(
                [symbol for symbol in manifest.symbols if not is_rule(symbol)]
            )
            order = msgspec.structs.replace(order, ws_url=ws_url, rest_url=rest_url)
        parts = self._parts()
        collection = (
            HistoryRun(manifest, order, parts, self._history)
            if manifest.kind == "history"
            else Collection(manifest, order, parts)
        )
        await collection.prepare()
        self._forget_finished()
        self._collections[manifest.session_id] = collection
        if self._replicator is not None:
            self._replicator.add_session(
                manifest.session_id, manifest.exchange, collection.session.directory, collection.log_files()
            )
        self._tasks.create_task(self._run(collection))
        return collection

    async def _run(self, collection: Collection) -> None:
        await collection.run()
        session = collection.session
        if collection.manifest.kind != "history":
            await self._history.log_session(collection.manifest)
        if self._replicator is not None and session.state in FINAL:
            self._replicator.over(session.session_id, _finder(session.directory))

    def _configured_url(self, exchange: str) -> str:
        endpoint = self.config.exchange.get(exchange)
        return endpoint.ws_url if endpoint else ""

    def _parts(self) -> Parts:
        return Parts(
            config=self.config,
            clock=self._clock,
            log=self._log,
            files=self._files,
            log_thread=self._log_thread,
            keeper_thread=self._keeper_thread,
            replicator=self._replicator,
            allowances=self._allowances,
            data_dir=self._data_dir,
            on_status=self._replicate_status,
        )

    def _ended_ids(self) -> list[str]:
        running = self._running_ids()
        names = (path.parent.name.removeprefix("session_") for path in self._data_dir.glob("session_*/session.json"))
        return [name for name in names if name not in running]

    def _ended_row(self, session_id: str) -> SessionRow | None:
        try:
            return session_row(facts_of(load_manifest(session_directory(self._data_dir, session_id))))
        except CollectorError:
            return None

    def _replicate_status(self, facts: Any) -> None:
        if self._session_rows is not None:
            self._session_rows.put(session_row(facts))

    def _forget_finished(self) -> None:
        finished = [key for key, collection in self._collections.items() if collection.ended.is_set()]
        for session_id in finished[:-_FINISHED_KEPT]:
            del self._collections[session_id]

    def _find(self, session_id: str) -> Collection:
        collection = self._collections.get(session_id)
        if collection is None or collection.ended.is_set():
            self._existing(session_id)
            raise UsageError(f"Session {session_id} is not running.", hint=f"See `collector show {session_id}`.")
        return collection

    # Commands

    def _commands(self) -> Mapping[str, Command]:
        return {
            "ping": self._ping,
            "start": self._start,
            "stop": self._stop,
            "symbols": self._change_symbols,
            "reconnect": self._reconnect,
            "sessions": self._sessions,
            "status": self._status,
            "show": self._show,
            "verify": self._verify,
            "import": self._import,
            "resync": self._resync,
            "repair": self._repair,
            "backfill": self._backfill,
            "import_candles": self._import_candles,
            "quality": self._quality,
            "coins": self._coins,
            "schedule": self._schedule,
            "shutdown": self._shutdown,
        }

    async def _ping(self, _: dict[str, Any], __: Progress) -> Any:
        return {"pid": os.getpid(), "version": version("collector")}

    async def _start(self, arguments: dict[str, Any], progress: Progress) -> Any:
        order = from_arguments(arguments, StartRequest)
        if order.go_on:
            manifest = self._interrupted(order.session_id)
        else:
            order = check_order(order, self.config)
            session_id = order.session_id or new_session_id(self._clock.now_us(), order.exchange)
            if session_directory(self._data_dir, session_id).exists():
                raise UsageError(f"There is a session {session_id} already.", hint="Choose another --id.")
            manifest = Collection.describe(order, session_id, self.config, self._clock.now_us())
        progress(f"asking {order.exchange} for its instruments")
        collection = await self._begin(manifest, order)
        return collection.status()

    def _interrupted(self, session_id: str) -> Manifest:
        _, directory = self._existing(session_id)
        manifest = load_manifest(directory)
        if manifest.state != "interrupted":
            raise UsageError(
                f"Session {session_id} is {manifest.state}: only an interrupted one can go on.",
                hint="Start a new session.",
            )
        return manifest

    async def _stop(self, arguments: dict[str, Any], progress: Progress) -> Any:
        request = from_arguments(arguments, StopRequest)
        running = [collection for collection in self._collections.values() if not collection.ended.is_set()]
        chosen = running if request.every else [self._find(session_id) for session_id in request.sessions]
        for collection in chosen:
            collection.session.request_stop("stopped by a person")
        for collection in chosen:
            progress(f"stopping {collection.session.session_id}")
            await collection.ended.wait()
            progress(f"delivering {collection.session.session_id}")
            await self._wait_delivered(collection.session.session_id)
        return [collection.status() for collection in chosen]

    async def _change_symbols(self, arguments: dict[str, Any], progress: Progress) -> Any:
        request = from_arguments(arguments, SymbolsRequest)
        collection = self._find(request.session)
        if request.add:
            progress("asking the exchange for its instruments")
        await collection.change_symbols(request.add, request.remove)
        return collection.status()

    async def _reconnect(self, arguments: dict[str, Any], progress: Progress) -> Any:
        request = from_arguments(arguments, ReconnectRequest)
        collection = self._find(request.session)
        progress("opening a second connection for each")
        await collection.reconnect(request.ws_url)
        return collection.status()

    async def _wait_delivered(self, session_id: str, positions: Mapping[Any, int] | None = None) -> bool:
        if self._replicator is None or self._replicator.status().state.value in ("down", "failed"):
            return False
        return await self._replicator.wait_delivered(session_id, positions, self.config.daemon.stop_deadline_s)

    async def _sessions(self, _: dict[str, Any], __: Progress) -> Any:
        return [collection.status() for collection in self._collections.values()]

    async def _status(self, _: dict[str, Any], __: Progress) -> Any:
        return self.status()

    async def _show(self, arguments: dict[str, Any], _: Progress) -> Any:
        session_id, directory = self._existing(from_arguments(arguments, SessionRequest).session)
        collection = self._collections.get(session_id)
        if collection is not None and not collection.ended.is_set():
            await collection.session.save()  # so that a running session's counts are those of now
        return {
            "manifest": load_manifest(directory) if collection is None else collection.session.manifest,
            "status": collection.status() if collection is not None else None,
        }

    def _existing(self, session_id: str) -> tuple[str, Path]:
        """Return a session's id and directory; raise SessionNotFound where there is none."""
        directory = session_directory(self._data_dir, session_id)
        if not directory.is_dir():
            find_session(self._data_dir, session_id)  # names the nearest
        return session_id, directory

    async def _verify(self, arguments: dict[str, Any], progress: Progress) -> Any:
        session_id, directory = self._existing(from_arguments(arguments, SessionRequest).session)
        collection = self._collections.get(session_id)
        positions = collection.positions() if collection is not None and not collection.ended.is_set() else None
        settings = None
        if self._replicator is not None:
            progress("waiting until QuestDB has what is durable")
            await self._wait_delivered(session_id, positions)
            settings = self._database.settings()
        loop = asyncio.get_running_loop()

        def tell(part: str, rows: int) -> None:
            loop.call_soon_threadsafe(progress, f"{part}: {rows} rows")

        return await asyncio.to_thread(verify_session, directory, settings, positions=positions, progress=tell)

    async def _import(self, arguments: dict[str, Any], progress: Progress) -> Any:
        request = from_arguments(arguments, SessionRequest)
        return await self._send_again(ResyncRequest(session=request.session), progress)

    async def _resync(self, arguments: dict[str, Any], progress: Progress) -> Any:
        return await self._send_again(from_arguments(arguments, ResyncRequest), progress)

    async def _repair(self, arguments: dict[str, Any], progress: Progress) -> Any:
        request = from_arguments(arguments, RepairRequest)
        session_id, directory = self._existing(request.session)
        manifest = load_manifest(directory)
        recorded = [*manifest.symbols, *manifest.removed_symbols]
        for symbol in request.symbols:
            if symbol not in recorded:
                raise UnknownName(f"symbol in session {session_id}", symbol, recorded)
        if request.dry_run:
            return {"session_id": session_id, "gaps": plan_repair(directory, request.symbols)}

        def tell(tally: Tally) -> None:
            missing = "" if tally.asked is None else f" of {tally.asked}"
            progress(f"{tally.symbol} {tally.gap_id}: {tally.got}{missing} trades, {tally.state}")

        collection = self._collections.get(session_id)
        if collection is not None and not collection.ended.is_set():
            tallies = await collection.repair(request.symbols, tell)
        else:
            tallies = await self._mend(manifest, request.symbols, tell, progress)
        return {"session_id": session_id, "gaps": tallies}

    async def _backfill(self, arguments: dict[str, Any], progress: Progress) -> Any:
        request = from_arguments(arguments, BackfillRequest)
        return await self._history.backfill(request, progress)

    async def _import_candles(self, arguments: dict[str, Any], progress: Progress) -> Any:
        return await self._history.import_candles(from_arguments(arguments, CandleFileRequest), progress)

    async def _quality(self, arguments: dict[str, Any], progress: Progress) -> Any:
        return await self._history.quality(from_arguments(arguments, QualityRequest), progress)

    async def _coins(self, arguments: dict[str, Any], _: Progress) -> Any:
        return await self._history.master_list(from_arguments(arguments, CoinsRequest))

    async def _schedule(self, _: dict[str, Any], __: Progress) -> Any:
        return self._history.schedule()

    async def _begin_history(self, manifest: Manifest) -> HistoryRun:
        """Prepare a session of history and have it run."""
        order = StartRequest(exchange=manifest.exchange, symbols=tuple(manifest.symbols), go_on=True)
        collection = await self._begin(manifest, order)
        if not isinstance(collection, HistoryRun):
            raise UsageError(f"Session {manifest.session_id} is not one of history.")
        return collection

    async def _mend(self, manifest: Manifest, symbols: Sequence[str], tell: Tell, progress: Progress) -> list[Tally]:
        """Repair a session that has ended; nobody else may have its files open meanwhile."""
        session_id = manifest.session_id
        if manifest.state not in FINAL:
            raise UsageError(
                f"Session {session_id} is {manifest.state}: it can't be repaired before it goes on, or has ended.",
                hint="Try again in a minute.",
            )
        if session_id in self._mending:
            raise UsageError(f"Session {session_id} is being repaired already.", hint="Wait for it to end.")
        order = StartRequest(exchange=manifest.exchange, symbols=tuple(manifest.symbols), go_on=True)
        if self._simulated.is_meant(manifest, self._configured_url(manifest.exchange)):
            ws_url, rest_url = await self._simulated.ensure(manifest.symbols)
            order = msgspec.structs.replace(order, ws_url=ws_url, rest_url=rest_url)
        self._mending.add(session_id)
        try:
            progress(f"asking {manifest.exchange} for its instruments")
            return await Collection(manifest, order, self._parts()).mend(symbols, tell)
        finally:
            self._mending.discard(session_id)

    async def _send_again(self, request: ResyncRequest, progress: Progress) -> Any:
        if self._replicator is None:
            raise CollectorError("There is no database to send rows to.", hint="Set questdb.mode in config.toml.")
        session_id, directory = await self._importable(request.session, progress)
        manifest = load_manifest(directory)
        if session_id not in self._collections:
            self._deliver(directory, manifest)
            self._replicate_status(facts_of(manifest))
        self._replicator.rewind(session_id, request.from_seq)
        progress("sending the session's rows again")
        delivered = await self._replicator.wait_delivered(session_id, None, _SEND_AGAIN_TIMEOUT_S)
        if not delivered:
            status = self._replicator.status()
            raise DatabaseUnavailable(
                f"Not all rows have reached QuestDB: {status.reason or status.state.value}.",
                hint="They are sent as soon as it takes them; `collector status` shows how far it is.",
            )
        facts = self._replicator.delivery(session_id)
        return {
            "session_id": session_id,
            "rows": facts.acknowledged_rows if facts else 0,
            "rejected_rows": facts.rejected_rows if facts else 0,
        }

    async def _importable(self, session: str, progress: Progress) -> tuple[str, Path]:
        """Return id and directory of a session by its id, or by the path of its directory wherever that is.

        A directory of older files becomes a session of this data directory first.
        """
        if "/" not in session:
            return self._existing(session)
        loop = asyncio.get_running_loop()

        def tell(part: str, rows: int) -> None:
            loop.call_soon_threadsafe(progress, f"{part}: {rows} rows taken")

        return await asyncio.to_thread(self._find_or_convert, Path(session), tell)

    def _find_or_convert(self, path: Path, progress: Callable[[str, int], None]) -> tuple[str, Path]:
        if path.is_dir() and not (path / MANIFEST_FILE).exists():
            now_us = self._clock.now_us()
            conversion = convert_older(path, self._data_dir, files=self._files, now_us=now_us, progress=progress)
            return conversion.manifest.session_id, conversion.directory
        found = find_session(self._data_dir, str(path))
        return found.session_id, found.directory

    async def _shutdown(self, _: dict[str, Any], __: Progress) -> Any:
        self._stop_database = True
        self.request_stop("stopped by a person")
        return {"pid": os.getpid(), "deadline_s": self.config.daemon.stop_deadline_s}

    # Status

    def status(self) -> DaemonStatus:
        """Describe the daemon as it is now."""
        usage = resource.getrusage(resource.RUSAGE_SELF)
        log_file = self.config.daemon.log_dir.resolve() / "collector.log"
        return DaemonStatus(
            version=version("collector"),
            pid=os.getpid(),
            started_us=self._started_us,
            uptime_s=self._clock.monotonic_s() - self._started_s,
            data_dir=str(self._data_dir),
            log_file=str(log_file),
            questdb=self._describe_database(),
            api_url=self._api.url if self._api is not None else "",
            csv_enabled=self.config.csv.enabled,
            stopping=self._stopping.is_set(),
            memory_bytes=_resident_bytes(),
            cpu_s=usage.ru_utime + usage.ru_stime,
            loop_lag_s=self._loop_lag_s,
            clock_steps=self._clock_steps,
            last_clock_step=self._last_clock_step,
            disk_free_bytes=shutil.disk_usage(self._data_dir).free,
            open_files=_open_files(),
            open_files_max=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
            control_refused_connections=self._control.refused_connections,
            control_refused_commands=self._control.refused_commands,
            log_dropped_records=dropped_records(),
            ended_compressed_files=self._ended.compressed,
            ended_released_rows=self._ended.released_rows,
            sessions=tuple(self._session_statuses()),
        )

    def _session_statuses(self) -> list[SessionStatus]:
        return [collection.status() for collection in self._collections.values()]

    def _describe_database(self) -> QuestDBStatus:
        return describe_database(
            mode=self._database.mode,
            reason=self._database.reason,
            replicator=self._replicator.status() if self._replicator is not None else None,
            console_url=self._database.console_url,
            pg_address=self._database.pg_address,
            pid=self._database.pid,
            version=self._database.version,
            starting=not self._database.starts and self._database.mode == "embedded" and not self._database.reason,
            now_us=self._clock.now_us(),
        )


def _finder(directory: Path) -> FindFiles:
    """Return what says which files a session has, by its manifest at that time."""
    return lambda: files_of(directory, load_manifest(directory))


def _open_files() -> int | None:
    """Return how many descriptors this process has; None where the system does not say."""
    for folder in ("/proc/self/fd", "/dev/fd"):
        with contextlib.suppress(OSError):
            return sum(1 for _ in Path(folder).iterdir()) - 1  # the one that reads the folder
    return None


def _resident_bytes() -> int:
    """Return the resident memory of this process now; its maximum where the system does not say."""
    try:
        pages = int(Path("/proc/self/statm").read_text(encoding="ascii").split()[1])
    except (OSError, ValueError, IndexError):
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        return peak if sys.platform == "darwin" else peak * 1024
    return pages * resource.getpagesize()
