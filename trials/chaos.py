"""Break everything for a while, by a seed; then heal, drain, and hold all three records against each other.

    python -m trials.chaos --seed 1 --seconds 60

The feed (a simulated exchange), the daemon and QuestDB are processes; QuestDB is reached through a proxy that loses and
forges. ``--without-dedup`` takes the tables' dedup keys away, and keeps the daemon from noticing: then the run must
fail, which shows that the judge can. The exit code is 0 where every promise was kept.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import resource
import shutil
import signal
import sys
import tempfile
import threading
import time
import traceback
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

from collector.errors import CollectorError
from collector.sim.fault_proxy import Fault, FaultProxy
from collector.streams import PRICES
from trials.oracle import Verdict, changed_since, fingerprint, judge_book, judge_replica, judge_trades
from trials.parts import PROJECT, Daemon, Database, Disk, Exchange, TrialError, wait_until
from trials.schedule import KINDS, Step, make_schedule

SYMBOLS = ("BTC_USDT", "ETH_USDT")
DRAIN_BOUND_S = 60.0
_DISK_MB = 384
_ROOM_BYTES = 2048
_RECEIVED = [column.name for column in PRICES.columns].index("received_at")
_AFTER_S = 4.0
_REQUEST_BOUND_S = 90.0  # daemon, database or both may be down when a fault waits for the next request
CONFIG = """
[session]
heartbeat_interval_s = 2
[feed]
open_timeout_s = 3
ping_interval_s = 1
ping_timeout_s = 3
first_data_timeout_s = 3
stall_timeout_s = 2
backoff_initial_s = 0.1
backoff_cap_s = 2
snapshot_timeout_s = 3
snapshots_per_s = 20
max_message_bytes = 1048576
[questdb]
request_timeout_s = 2
check_interval_s = 2
retry_cap_s = 1
[csv]
max_open_files = 6
reserve_bytes = 0
"""
# A limit on descriptors is only felt by a log that closes and opens files: six open ones for its seven.


class Chaos:
    """One run."""

    def __init__(self, seed: int, seconds: float, *, rate: float, dedup: bool, folder: Path) -> None:
        self.seed, self.seconds, self.rate, self.dedup = seed, seconds, rate, dedup
        self.verdict = Verdict()
        self.fired: Counter[str] = Counter()
        self.figures: dict[str, Any] = {}
        self.timeline: list[tuple[float, float, str, str]] = []
        self._folder = folder
        self._disk = Disk(folder / "disk", _DISK_MB) if Disk.possible() else None
        data_dir = folder / "disk" / "data" if self._disk else folder / "data"
        without = {"drop table", "restore database", "back up database"} if not dedup else set()
        if self._disk is None:
            print("no small disk can be made here (that takes root): 'disk full' is left out")
            without.add("disk full")
        self._without = frozenset(without)
        self.schedule = make_schedule(seed, seconds, rate=rate, without=self._without)
        self._database = Database(folder / "questdb")
        self._proxy = FaultProxy(self._database.http_port).__enter__()
        self._exchange = Exchange(seed=seed, rate=rate, symbols=SYMBOLS)
        command = ("-m", "collector") if dedup else ("-m", "trials.blind")
        environment = self._database.environment(self._proxy.port)
        # What is missed is fetched again with even seeds; with odd ones the ledger has to name all of it.
        config = CONFIG + f"[repair]\nenabled = {str(seed % 2 == 0).lower()}\n"
        self._daemon = Daemon(
            folder / "daemon", data_dir=data_dir, environment=environment, config=config, command=command
        )
        self._session_id = f"chaos-{seed}"
        self._session = data_dir / f"session_{self._session_id}"
        self._flushed: list[tuple[str, dict[str, tuple[int, str]]]] = []
        self._backup: Path | None = None
        self._errors: list[str] = []
        self._over = threading.Event()
        self._ages_s: list[float] = []

    # The run

    def run(self) -> None:
        """Collect, break, heal, drain, judge."""
        if not self.dedup:
            for table in ("tick_prices", "tick_orderbook"):
                self._database.query(f"alter table {table} dedup disable")
        self._daemon.start()
        self._daemon.ask(
            "start", exchange="sim", symbols=list(SYMBOLS), session_id=self._session_id,
            ws_url=self._exchange.ws_url, rest_url=self._exchange.rest_url,
        )  # fmt: skip
        self._daemon.wait_rows(self._session_id, "prices", 100)
        self.figures["memory before (MB)"] = round(self._daemon.resident_bytes() / 1e6, 1)
        self._break_everything()
        self._heal()
        self._drain()
        self._stop()
        self._judge()

    def _break_everything(self) -> None:
        begun = time.monotonic()
        threads = [
            threading.Thread(target=self._act, args=(actor, begun), name=actor, daemon=True)
            for actor in ("daemon", "database", "network", "feed")
        ]
        for thread in threads:
            thread.start()
        bound_s = 3 * self.seconds + 120
        for thread in threads:
            thread.join(max(1.0, begun + bound_s - time.monotonic()))
            if thread.is_alive() and not self._over.is_set():
                self._over.set()
                raise TrialError(f"the faults of {thread.name} were not done after {bound_s:g} s")
        self.figures["seconds of faults"] = round(time.monotonic() - begun, 1)
        if self._errors:
            raise TrialError("; ".join(self._errors))

    def _act(self, actor: str, begun: float) -> None:
        for step in self.schedule:
            if step.actor != actor:
                continue
            if self._over.wait(max(0.0, begun + step.at_s - time.monotonic())):
                return
            started_s = time.monotonic() - begun
            try:
                self._do(step)
                self.timeline.append((round(started_s, 2), round(time.monotonic() - begun, 2), actor, step.kind))
            except Exception:  # noqa: BLE001 - the run says what went wrong and fails
                self._errors.append(f"{step.kind}: {traceback.format_exc()}")
                self._over.set()
                return

    def _do(self, step: Step) -> None:
        if step.actor == "feed":
            self._exchange.arm(step.kind, **step.parameters)
        elif step.actor == "network":
            self._disturb_network(step)
        else:
            actions: dict[str, Callable[[Step], None]] = {
                "kill daemon": self._kill_daemon,
                "freeze daemon": self._freeze_daemon,
                "disk full": self._fill_disk,
                "file size limit": self._limit_file_size,
                "no descriptors": self._take_descriptors,
                "kill database": self._kill_database,
                "freeze database": self._freeze_database,
                "suspend table": self._suspend_table,
                "drop table": self._drop_table,
                "back up database": self._back_up_database,
                "restore database": self._restore_database,
            }
            actions[step.kind](step)

    def _hold(self, step: Step) -> None:
        self._over.wait(step.hold_s)

    # Faults of the daemon and of its disk

    def _kill_daemon(self, step: Step) -> None:
        killed_us = time.time_ns() // 1000
        self._daemon.kill()
        self._flushed.append((f"{step.at_s:g} s", fingerprint(self._session)))
        newest = max((int(line.split(",")[_RECEIVED]) for line in self._last_lines()), default=killed_us)
        self._ages_s.append((killed_us - newest) / 1e6)
        self._hold(step)
        self._daemon.start()
        self._daemon.wait_state(self._session_id, "active", "degraded", bound_s=120)
        self.fired["kill daemon"] += 1

    def _last_lines(self) -> list[str]:
        lines = []
        for symbol in SYMBOLS:
            with (self._session / symbol / "prices.csv").open("rb") as file:
                file.seek(0, 2)
                file.seek(max(0, file.tell() - 4096))
                content = file.read()
            lines += [line.decode() for line in content[: content.rfind(b"\n")].rsplit(b"\n", 1)[-1:]]
        return [line for line in lines if line[:1].isdigit()]

    def _freeze_daemon(self, step: Step) -> None:
        self._daemon.freeze()
        self._hold(step)
        self._daemon.thaw()
        self.fired["freeze daemon"] += 1

    def _fill_disk(self, step: Step) -> None:
        if self._disk is None:
            return
        self._disk.fill(_ROOM_BYTES)
        self._hold(step)
        wait_until(lambda: self._daemon.session(self._session_id).get("state") == "degraded", "degraded", 30)
        self._disk.empty()
        self.fired["disk full"] += 1

    def _limit_file_size(self, step: Step) -> None:
        largest = max(path.stat().st_size for path in self._session.rglob("prices.csv"))
        before = self._daemon.limit(resource.RLIMIT_FSIZE, largest + _ROOM_BYTES)
        self._hold(step)
        wait_until(lambda: self._daemon.session(self._session_id).get("state") == "degraded", "degraded", 30)
        self._daemon.limit(resource.RLIMIT_FSIZE, before)
        self.fired["file size limit"] += 1

    def _take_descriptors(self, step: Step) -> None:
        before = self._daemon.limit(resource.RLIMIT_NOFILE, self._daemon.open_files() - 2)
        self._hold(step)
        self._daemon.limit(resource.RLIMIT_NOFILE, before)
        self.fired["no descriptors"] += 1

    # Faults of the database

    def _kill_database(self, step: Step) -> None:
        self._database.kill()
        self._hold(step)
        self._database.start()
        self.fired["kill database"] += 1

    def _freeze_database(self, step: Step) -> None:
        self._database.freeze()
        self._hold(step)
        self._database.thaw()
        self.fired["freeze database"] += 1

    def _suspend_table(self, step: Step) -> None:
        self._database.suspend(step.parameters["table"])
        self._hold(step)
        self.fired["suspend table"] += 1

    def _drop_table(self, step: Step) -> None:
        self._database.query(f"drop table {step.parameters['table']}")
        self._hold(step)
        self._daemon.run("db", "migrate", "--repair", "--yes")
        self.fired["drop table"] += 1

    def _back_up_database(self, step: Step) -> None:
        self._database.kill()
        self._backup = self._folder / "backup"
        self._database.copy(self._backup)
        self._hold(step)
        self._database.start()
        self.fired["back up database"] += 1

    def _restore_database(self, step: Step) -> None:
        if self._backup is None:
            raise TrialError("there is no copy to restore")
        self._database.kill()
        self._database.restore(self._backup)
        self._hold(step)
        self._database.start()
        self.fired["restore database"] += 1

    # Faults of the way to it

    def _disturb_network(self, step: Step) -> None:
        proxy, kind, parameters = self._proxy, step.kind, step.parameters
        if kind in ("black hole", "refused connections"):
            if kind == "black hole":
                proxy.stall()
            else:
                proxy.refuse()
            self._hold(step)
            proxy.heal()
        elif kind == "lost answer":
            proxy.arm(Fault("drop_response", b"/write"))
        elif kind == "cut request":
            proxy.arm(Fault("cut_request", b"/write", after_bytes=parameters["after_bytes"]))
        elif kind == "cut answer":
            proxy.arm(Fault("cut_response", b"", after_bytes=parameters["after_bytes"]))
        elif kind == "reset":
            proxy.arm(Fault("reset", b""))
        else:
            status = int(kind.removeprefix("false "))
            proxy.arm(Fault("fake_status", b"", status=status, body=b"no"), parameters["times"])
        if kind not in ("black hole", "refused connections"):
            # One is armed at a time, so that what happened can be told by what is no longer armed.
            with contextlib.suppress(TrialError):
                wait_until(lambda: not proxy.armed or self._over.is_set(), "a request", _REQUEST_BOUND_S)
            if not proxy.armed:
                self.fired[kind] += 1
        else:
            self.fired[kind] += 1

    # Afterwards

    def _heal(self) -> None:
        self._exchange.heal()
        self._proxy.heal()
        if self._disk is not None:
            self._disk.empty()
        if not self._database.server.running:
            self._database.start()
        if not self._daemon.running:
            self._daemon.start()
        for kind, count in self._exchange.fired().items():
            self.fired[kind] += count

    def _drain(self) -> None:
        """Wait, not too long, until the session goes on by itself and the backlog is gone."""
        begun = time.monotonic()
        self._daemon.wait_state(self._session_id, "active", bound_s=DRAIN_BOUND_S)
        status = self._daemon.status()
        self.figures["rows behind at the end of the faults"] = status.get("questdb", {}).get("lag_rows")
        if not self.dedup:  # rows that were sent twice are not to be made good
            for table in ("tick_prices", "tick_orderbook"):
                self._database.query(f"alter table {table} dedup disable")

        def drained() -> bool:
            database = self._daemon.status().get("questdb", {})
            return bool(database.get("state") == "LIVE" and database.get("lag_rows", self.rate) < self.rate)

        wait_until(drained, f"the backlog to be gone ({self._daemon.status().get('questdb')})", DRAIN_BOUND_S)
        self.figures["seconds until drained"] = round(time.monotonic() - begun, 1)
        rows = self._daemon.session(self._session_id)["rows"]["prices"]
        self._daemon.wait_rows(self._session_id, "prices", rows + round(_AFTER_S * self.rate * 0.5), DRAIN_BOUND_S)

    def _stop(self) -> None:
        self.figures["memory after (MB)"] = round(self._daemon.resident_bytes() / 1e6, 1)
        self._daemon.ask("stop", every=True, timeout_s=120)
        session = self._daemon.session(self._session_id)
        self.verdict.demand(session["state"] == "completed", f"the session is {session['state']}: {session['reason']}")
        buffer = session["buffer"]
        accounted = buffer["written"] + buffer["pending"] + buffer["dropped"]
        self.verdict.demand(buffer["received"] == accounted, f"the buffer lost count: {buffer}")
        self._daemon.wait_delivered(DRAIN_BOUND_S)
        report = self._daemon.ask("verify", session=self._session_id, timeout_s=300)
        parts = [*report["streams"], *report["candles"]]
        found = [*report["problems"], *(part["findings"] for part in parts if part["findings"]["count"])]
        self.verdict.demand(not found, f"collector verify: {found[:3]}")
        code = self._daemon.terminate(120)
        self.verdict.demand(code == 0, f"the daemon ended with {code}: {self._daemon.output()[-500:]}")

    def _judge(self) -> None:
        self._database.wait_applied()
        for symbol in SYMBOLS:
            judge_trades(self._session, symbol, self._exchange, self.verdict)
            judge_book(self._session, symbol, self._exchange, self.seed, self.rate, self.verdict)
        judge_replica(self._database, self._session, self._session_id, SYMBOLS, self.verdict)
        lost_flushed = 0
        for when, before in self._flushed:
            changed = changed_since(self._session, before)
            lost_flushed += len(changed)
            self.verdict.demand(not changed, f"what was flushed at {when} is not the beginning of {changed} any more")
        self.verdict.count("flushed files changed after a kill", lost_flushed)
        if self._ages_s:
            self.figures["age of the newest flushed row at a kill (s, median and worst)"] = [
                round(sorted(self._ages_s)[len(self._ages_s) // 2], 3),
                round(max(self._ages_s), 3),
            ]
        wanted = {kind.name for kind in KINDS} - self._without
        silent = sorted(kind for kind in wanted if not self.fired[kind])
        self.verdict.demand(not silent, f"these faults never happened: {', '.join(silent)}")
        events = Counter(str(event.get("event")) for event in self._daemon.events())
        self.figures["events"] = dict(sorted(events.items()))
        bad = ("replicator.unexpected", "feed.bug", "data_collection.session_error", "data_collection.candles_failed")
        for name in (*bad, "replicator.rows_not_kept", "replicator.log_damaged", "data_collection.rows_lost"):
            self.verdict.demand(not events[name], f"{events[name]} times {name} in the log: {self._first(name)}")

    def _first(self, name: str) -> str:
        return json.dumps(next((event for event in self._daemon.events() if event.get("event") == name), {}))[:2000]

    def end(self) -> None:
        """End everything that was started."""
        self._over.set()
        for part in (self._daemon.end, self._exchange.end, self._proxy.close, self._database.end):
            with contextlib.suppress(Exception):
                part()
        if self._disk is not None:
            self._disk.end()

    def keep_evidence(self, destination: Path) -> None:
        """Copy the session's files and the daemon's log to where a person can look at them."""
        shutil.rmtree(destination, ignore_errors=True)
        with contextlib.suppress(OSError):
            shutil.copytree(self._session, destination / "session")
        with contextlib.suppress(OSError):
            shutil.copytree(self._daemon.folder, destination / "daemon", ignore=shutil.ignore_patterns("*.sock"))


def run_seed(
    seed: int, seconds: float, *, rate: float, dedup: bool, results: Path, keep: bool = False
) -> dict[str, Any]:
    """Run one seed in a folder of its own; return the report, which is also written beside the others."""
    manner = "" if dedup else ", without dedup keys"
    print(f"chaos: seed {seed}, {seconds:g} s, {rate:g} messages/s{manner}", flush=True)
    folder = Path(tempfile.mkdtemp(prefix="collector-chaos-"))
    begun = time.monotonic()
    chaos = None
    problem = ""
    try:
        chaos = Chaos(seed, seconds, rate=rate, dedup=dedup, folder=folder)
        chaos.run()
    except (TrialError, CollectorError, OSError) as error:
        problem = f"{type(error).__name__}: {error}"
    finally:
        if chaos is not None:
            if keep or problem or chaos.verdict.problems:
                chaos.keep_evidence(results / f"evidence-{seed}")
            chaos.end()
        shutil.rmtree(folder, ignore_errors=True)
    report: dict[str, Any] = {"seed": seed, "seconds": seconds, "rate": rate, "dedup": dedup, "kept": False}
    if chaos is not None:
        problems = [*chaos.verdict.problems, *([problem] if problem else [])]
        report |= {
            "kept": not problems,
            "problems": problems,
            "figures": chaos.verdict.figures | chaos.figures,
            "fired": dict(sorted(chaos.fired.items())),
            "timeline": sorted(chaos.timeline),
            "took_s": round(time.monotonic() - begun, 1),
        }
    else:
        report["problems"] = [problem]
    results.mkdir(parents=True, exist_ok=True)
    (results / f"seed-{seed}{'' if dedup else '-without-dedup'}.json").write_text(json.dumps(report, indent=2) + "\n")
    return report


def describe(report: dict[str, Any]) -> str:
    """Write a report for a person."""
    lines = [f"  {name}: {value}" for name, value in report.get("figures", {}).items() if name != "events"]
    fired = report.get("fired", {})
    lines.append(f"  faults: {sum(fired.values())} ({', '.join(f'{kind} {count}' for kind, count in fired.items())})")
    lines += [f"  BROKEN: {problem}" for problem in report["problems"]]
    lines.append(f"  seed {report['seed']}: {'kept' if report['kept'] else 'BROKEN'} in {report.get('took_s', 0)} s")
    return "\n".join(lines)


def main() -> int:
    """Run the seeds that were asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seed", type=int, default=1, help="the first seed")
    parser.add_argument("--seeds", type=int, default=1, help="how many seeds, one after another")
    parser.add_argument("--seconds", type=float, default=60, help="for how long faults happen")
    parser.add_argument("--rate", type=float, default=2000, help="messages in a second, over both symbols")
    parser.add_argument("--without-dedup", action="store_true", help="take the dedup keys away: the run must fail")
    parser.add_argument("--results", type=Path, default=PROJECT / "build" / "chaos", help="where reports are written")
    parser.add_argument("--keep", action="store_true", help="keep files and log beside the report, broken or not")
    parser.add_argument("--schedule", action="store_true", help="print what would happen, and end")
    arguments = parser.parse_args()
    if arguments.schedule:
        for step in make_schedule(arguments.seed, arguments.seconds, rate=arguments.rate):
            print(f"{step.at_s:8.3f} s  {step.actor:9} {step.kind:18} {step.hold_s or '':<6} {step.parameters or ''}")
        return 0
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that everything that was started is ended
    broken = []
    for seed in range(arguments.seed, arguments.seed + arguments.seeds):
        report = run_seed(
            seed,
            arguments.seconds,
            rate=arguments.rate,
            dedup=not arguments.without_dedup,
            results=arguments.results,
            keep=arguments.keep,
        )
        print(describe(report), flush=True)
        if not report["kept"]:
            broken.append(seed)
    if broken:
        print(f"promises were broken with seeds {broken}; repeat with --seed {broken[0]}", flush=True)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
