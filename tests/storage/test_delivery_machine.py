"""Whatever happens in whatever order, the database's rows are among the CSV's, and after healing they are the same.

The log, the cursor, the outbox, the courier and the checks are the product's; the server is the one in memory, which a
test of its own compares with the real one. There are no threads: the machine decides when anything happens.
"""

from __future__ import annotations

import contextlib
import errno
import os
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, rule

from collector.clock import ManualClock
from collector.config import QuestDB
from collector.errors import LogError
from collector.storage.courier import Courier
from collector.storage.csv_log import CsvLog, Released, StreamFile, Write, closed_name, closed_segments
from collector.storage.cursor import CURSOR_FILE, CursorUnreadable, load_cursor
from collector.storage.failing_files import FailingFiles
from collector.storage.files import OperatingSystem
from collector.storage.memory_transport import FailingTransport, MemoryQuestDB, MemoryTransport
from collector.storage.outbox import Outbox
from collector.storage.packing import SegmentChanged, compress_segment
from collector.storage.survey import survey_segment
from collector.streams import OHLCV, PRICES, Stream

SYMBOL = "BTC_USDT"
SESSION = "machine"
STREAMS = (PRICES, OHLCV)
START_US = 1_700_000_000_000_000
MAX_TURNS = 400


class QuickFiles(OperatingSystem):
    """The file system without waiting for the disk: a crash is played, not had."""

    def sync(self, fds: Sequence[int]) -> None:
        """Do nothing."""

    @staticmethod
    def _sync_path(path: Path) -> None:
        """Do nothing, but miss what is not there."""
        path.stat()


class Silent:
    """A log that says nothing."""

    def debug(self, event: str, **facts: object) -> None: ...

    def info(self, event: str, **facts: object) -> None: ...

    def warning(self, event: str, **facts: object) -> None: ...

    def error(self, event: str, **facts: object) -> None: ...


class DeliveryMachine(RuleBasedStateMachine):
    """The process may end at any time; the disk, the network and the server may fail at any time."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = Path(tempfile.mkdtemp(prefix="machine-"))
        self.files = FailingFiles(QuickFiles())
        self.clock = ManualClock()
        self.content = 0
        self.released = Released()
        self.released_rows: dict[int, str] = {}
        self.backup: Any = None

    @initialize(applies_at_once=st.booleans(), batch_max_rows=st.sampled_from([3, 50_000]))
    def begin(self, applies_at_once: bool, batch_max_rows: int) -> None:
        self.server = MemoryQuestDB(applies_at_once=applies_at_once)
        self.config = QuestDB(batch_max_rows=batch_max_rows, check_interval_s=10)
        self.start()

    def start(self) -> None:
        """Begin as a daemon does: recover the files, then deliver what the cursor lacks."""
        self.log = CsvLog(self.directory, files=self.files, max_open_files=1)
        known: dict[str, int] = {}
        with contextlib.suppress(CursorUnreadable):
            cursor = load_cursor(self.directory, SESSION)
            known = {file.stream: file.acknowledged.seq for file in cursor.files} if cursor else {}
        self.open: dict[str, StreamFile] = {}
        for stream in STREAMS:
            released = self.released if stream is PRICES else None
            self.open[stream.name] = self.log.open(
                stream, SYMBOL, known_seq=known.get(stream.name, 0), released=released
            )
        self.log.sync()
        self.transport = FailingTransport(MemoryTransport(self.server))
        self.outbox = Outbox(files=self.files, clock=self.clock, log=Silent())
        self.courier = Courier(
            self.transport,  # type: ignore[arg-type]
            self.outbox,
            config=self.config,
            clock=self.clock,
            log=Silent(),
            repair_tables=self.server.make_tables,
            jitter=lambda _low, _high: 0.0,
        )
        self.outbox.add_session(SESSION, "sim", self.directory)
        for stream in STREAMS:
            self.outbox.add_file(SESSION, stream, SYMBOL, self.open[stream.name].path)

    # The log

    def line(self, stream: Stream, seq: int) -> str:
        self.content += 1
        if stream is PRICES:
            return f"{START_US + seq},{self.content},2,2,buy,{seq},{seq},{START_US},ws,,\n"
        minute = START_US + self.content % 3 * 60_000_000  # a few keys, so that rows replace each other
        return f"{minute},1m,1,1,1,{self.content},1,1,1,1,a,b,true,full,ws,{seq},{seq}\n"

    @rule(rows=st.integers(1, 7), stream=st.sampled_from(STREAMS))
    def append(self, rows: int, stream: Stream) -> None:
        file = self.open[stream.name]
        lines = "".join(self.line(stream, file.next_seq + n) for n in range(rows))
        with contextlib.suppress(LogError):
            self.log.append([Write(file, lines.encode(), rows)])

    @rule(rows=st.integers(1, 5), stream=st.sampled_from(STREAMS), settled=st.booleans())
    def collect(self, rows: int, stream: Stream, settled: bool) -> None:
        """Go on as on any good day; ``settled`` until the tables were looked at twice."""
        self.append(rows, stream)
        self.flush()
        self.deliver(3)
        for _ in range(2 * settled):
            self.check()

    @rule()
    def flush(self) -> None:
        with contextlib.suppress(LogError):
            self.outbox.commit(SESSION, self.log.sync())

    @rule(stream=st.sampled_from(STREAMS))
    def rotate(self, stream: Stream) -> None:
        with contextlib.suppress(LogError):
            self.log.rotate(self.open[stream.name])

    @rule()
    def compress(self) -> None:
        folder = self.open[PRICES.name].path.parent
        for _, name in closed_segments(self.files.names(folder), PRICES):
            if not name.endswith(".gz"):
                with contextlib.suppress(OSError, SegmentChanged):
                    compress_segment(folder / name, self.files)
                return

    @rule()
    def rotate_and_release(self) -> None:
        self.collect(3, PRICES, settled=True)
        self.rotate(PRICES)
        self.collect(1, PRICES, settled=True)
        self.release()

    @rule()
    def release(self) -> None:
        """Delete the oldest closed segment where the server has it for certain, as the keeper does."""
        folder = self.open[PRICES.name].path.parent
        closed = closed_segments(self.files.names(folder), PRICES)
        if not closed:
            return
        first, name = closed[0]
        span = survey_segment(folder / name, PRICES, SYMBOL, self.files)
        following = closed[1][0] if len(closed) > 1 else self.open[PRICES.name].first_seq
        if span.last_seq >= following or (PRICES.name, SYMBOL) not in self.courier.held(SESSION, [span]):
            return
        self.released_rows.update({seq: row for seq, row in self.rows(PRICES).items() if seq <= span.last_seq})
        self.released = Released(span.last_seq, self.released.rows + span.rows)
        plain = folder / closed_name(PRICES, first)
        self.files.remove(plain.with_name(plain.name + ".gz"))
        self.files.remove(plain)

    @rule(operation=st.integers(1, 6), number=st.sampled_from([errno.EIO, errno.ENOSPC]))
    def fail_a_file_operation(self, operation: int, number: int) -> None:
        self.files.fail_at(operation, number)
        self.append(2, PRICES)
        self.flush()
        self.files.heal()

    # Delivery

    @rule(turns=st.integers(1, 5))
    def deliver(self, turns: int) -> None:
        for _ in range(turns):
            self.courier.work()
            self.clock.advance(0.5)

    @rule(call=st.integers(1, 12), lost=st.booleans())
    def fail_a_call(self, call: int, lost: bool) -> None:
        self.transport.fail_at(call, lost=lost)
        self.deliver(2)
        self.transport.heal()

    def check(self) -> None:
        """Let the interval between two checks pass."""
        self.clock.advance(11)
        self.courier.work()

    @rule()
    def save_cursor(self) -> None:
        self.outbox.save_due(all_now=True)

    @rule(rows=st.integers(1, 3))
    def go_on(self, rows: int) -> None:
        """Have a good day with both streams: as often as everything else, so that there is something to harm."""
        for stream in STREAMS:
            self.collect(rows, stream, settled=True)

    @rule(from_seq=st.integers(0, 40))
    def rewind(self, from_seq: int) -> None:
        self.outbox.rewind(SESSION, from_seq, None)

    # The process

    @rule(torn=st.binary(max_size=40))
    def crash(self, torn: bytes) -> None:
        """End without tidying up, in the middle of a write; what the system took is there."""
        self.log.close()
        with self.open[PRICES.name].path.open("ab") as file:
            file.write(torn.replace(b"\n", b"x"))
        self.start()

    @rule()
    def lose_power(self) -> None:
        """End, and lose what was not durable."""
        self.log.close()
        for file in self.open.values():
            if file.path.stat().st_size > file.durable and not file.suspect:
                os.truncate(file.path, file.durable)
        self.start()

    @rule(keep=st.integers(0, 200))
    def tear_the_cursor(self, keep: int) -> None:
        path = self.directory / CURSOR_FILE
        if path.exists():
            os.truncate(path, min(keep, path.stat().st_size))

    # The server

    @rule(
        kind=st.sampled_from(["down", "restart", "drop", "suspend", "copy", "restore"]),
        stream=st.sampled_from(STREAMS),
        lost=st.integers(0, 3),
    )
    def harm_the_server(self, kind: str, stream: Stream, lost: int) -> None:
        """What takes rows away is left out once only the server has them: nothing could bring those back."""
        server, harmless = self.server, not self.released.rows
        if kind == "down":
            server.up = False
        elif kind == "restart":
            server.restart(lost=lost if harmless else 0)
        elif kind == "suspend" and stream.table in server.tables:
            server.suspend(stream.table)
        elif kind == "copy":
            self.backup = server.backup()
        elif kind == "drop" and harmless:
            server.drop(stream.table)
        elif kind == "restore" and harmless and self.backup is not None:
            server.restore(self.backup)

    @rule()
    def start_the_server(self) -> None:
        self.server.up = True

    # What must hold

    def rows(self, stream: Stream) -> dict[int, str]:
        """Return what the CSV holds, by number: the field that makes each row unlike any other."""
        place = 1 if stream is PRICES else 5
        file = self.open[stream.name]
        return {int(row[stream.seq_index]): row[place] for row in self.log.rows(file)}

    def shown(self, stream: Stream) -> dict[int, str]:
        column = "price" if stream is PRICES else "close"
        shown = self.server.shown(stream.table)
        assert len({row["seq"] for row in shown}) == len(shown)
        return {int(str(row["seq"])): f"{row[column]:g}" for row in shown}

    @invariant()
    def the_database_is_a_part_of_the_csv(self) -> None:
        if not hasattr(self, "server"):
            return
        for stream in STREAMS:
            known = self.rows(stream) | (self.released_rows if stream is PRICES else {})
            shown = self.shown(stream)
            assert shown.items() <= known.items(), {seq: row for seq, row in shown.items() if known.get(seq) != row}

    def teardown(self) -> None:
        try:
            if hasattr(self, "server"):
                self.heal()
        finally:
            self.log.close()
            shutil.rmtree(self.directory)

    def heal(self) -> None:
        """Mend everything: within some turns both are the same."""
        self.files.heal()
        self.transport.heal()
        self.server.up = True
        self.flush()
        quiet = 0
        for _ in range(MAX_TURNS):
            self.clock.advance(11)  # so that each turn looks after the tables first
            self.courier.work()
            self.server.apply()
            waiting = any(self.outbox.waiting.values()) or any(lane.sealed for lane in self.outbox.lanes())
            quiet = 0 if waiting else quiet + 1
            if quiet == 3:
                break
        assert self.shown(PRICES) == self.rows(PRICES) | self.released_rows
        last: dict[str, tuple[int, str]] = {}
        for row in self.log.rows(self.open[OHLCV.name]):
            last[row[0]] = (int(row[OHLCV.seq_index]), row[5])
        assert self.shown(OHLCV) == dict(last.values())


DeliveryMachine.TestCase.settings = settings(
    max_examples=60, stateful_step_count=60, deadline=None, suppress_health_check=list(HealthCheck)
)
test_whatever_happens_both_are_the_same_after_healing = DeliveryMachine.TestCase
