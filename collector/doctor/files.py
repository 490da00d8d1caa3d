"""One session's files: manifest, segments, cursor, leftovers, permissions. Only mending a case writes anything."""

from __future__ import annotations

import contextlib
import stat
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from collector.clock import Clock
from collector.doctor.findings import Case, case
from collector.errors import CollectorError, LogError, ManifestError
from collector.exchanges.registry import known_exchange
from collector.reading.csv_rows import read_file, read_rows, segments, stream_in, symbols_in
from collector.session.flusher import gap_of_incident
from collector.session.gaps import GapLedger
from collector.session.manifest import (
    MANIFEST_FILE,
    FileRecord,
    Manifest,
    StateChange,
    hash_file,
    load_manifest,
    save_manifest,
)
from collector.session.rows import format_gap
from collector.session.states import FINAL, RUNNING
from collector.storage.csv_log import CsvLog, Incident, Write, closed_name
from collector.storage.cursor import CURSOR_FILE, Cursor, CursorUnreadable, load_cursor
from collector.storage.files import Files
from collector.streams import DATA_TYPES, GAPS, HISTORY_TYPES, ORDERBOOK, STREAMS, Stream

_PREFIX = "session_"
_TEMPORARY = (".tmp", ".next")
_OTHERS = stat.S_IRWXO | stat.S_IWGRP
_RESEND = "The cursor is set aside; the daemon then sends the session's rows again, which doubles nothing."
_TAIL_BYTES = 1 << 16


@dataclass(slots=True)
class StreamFacts:
    """What a stream's files hold, as they were read: ``jumps`` are missing numbers between rows."""

    stream: Stream
    symbol: str | None
    live: Path
    rows: int = 0
    first_seq: int = 0
    last_seq: int = 0
    last_segment_rows: int = 0
    torn_bytes: int = 0
    jumps: list[tuple[int, int]] = field(default_factory=list)
    unreadable: str = ""

    @property
    def subject(self) -> str:
        return " ".join(filter(None, (self.stream.name, self.symbol)))


class SessionFiles:
    """Examine one session's directory.

    Args:
        running: a daemon runs the session now, so its files are in motion and only what stands still is looked at.
        deep: compare the files of an ended session with the hashes in its manifest, too.
        exchange_of: tells whose a session's rows are where its manifest is lost; empty where nobody knows.
    """

    def __init__(
        self,
        directory: Path,
        *,
        files: Files,
        clock: Clock,
        running: bool = False,
        deep: bool = False,
        replicated: bool = True,
        exchange_of: Callable[[str], str] = lambda _session_id: "",
    ) -> None:
        self.directory = directory
        self.session_id = directory.name.removeprefix(_PREFIX)
        self.manifest: Manifest | None = None
        self.streams: list[StreamFacts] = []
        self._files = files
        self._clock = clock
        self._running = running
        self._deep = deep
        self._replicated = replicated
        self._exchange_of = exchange_of

    def examine(self) -> list[Case]:
        """Return what is wrong, in the order in which it has to be mended."""
        cases = list(self._leftovers())
        cases += self._permissions()
        cases += self._manifest()
        if self.manifest is None:
            return cases
        self.streams = [self._read(stream, symbol) for stream, symbol in self._known(self.manifest)]
        for facts in self.streams:
            cases += self._segments(facts, self.manifest)
        cases += self._cursor()
        cases += self._state(self.manifest)
        return cases

    def _case(
        self, code: str, problem: str, remedy: str = "", *, note: bool = False, mend: Callable[[], object] | None = None
    ) -> Case:
        weight = "note" if note else "problem"
        return case(code, self.session_id, problem, remedy, weight=weight, mend=mend)  # type: ignore[arg-type]

    # Leftovers and permissions

    def _leftovers(self) -> Iterator[Case]:
        paths = sorted(path for path in self.directory.rglob("*") if path.is_file() and not path.is_symlink())
        for path in paths:
            name = path.relative_to(self.directory).as_posix()
            if path.suffix in _TEMPORARY and not self._running:
                mend = self._removal(path)
                yield self._case("leftover", f"{name} was never finished.", "It is deleted.", mend=mend)
            elif path.suffix == ".gz" and path.with_suffix("").exists() and not self._running:
                mend = self._removal(path)
                yield self._case("leftover", f"{name} is beside the plain file.", "The copy is deleted.", mend=mend)
            elif ".damaged-" in path.name:
                text = f"{name} was set aside because it was not what it should be."
                yield self._case("set-aside", text, "Look at it, and delete it.", note=True)

    def _removal(self, path: Path) -> Callable[[], None]:
        return lambda: self._files.remove(path)

    def _permissions(self) -> Iterator[Case]:
        open_paths = [path for path in (self.directory, *sorted(self.directory.rglob("*"))) if _is_too_open(path)]
        if open_paths:
            first = open_paths[0].relative_to(self.directory.parent)
            text = f"{len(open_paths)} files or folders can be read by others or written by the group, as {first}."
            yield self._case("permissions", text, "Their modes become 0640 and 0750.", mend=lambda: _close(open_paths))

    # Manifest

    def _manifest(self) -> Iterator[Case]:
        try:
            self.manifest = load_manifest(self.directory)
        except ManifestError as error:
            missing = not (self.directory / MANIFEST_FILE).exists()
            code = "manifest-missing" if missing else "manifest-damaged"
            if not any(symbols_in(self.directory, stream) for stream in STREAMS.values() if stream.per_symbol):
                text = f"{error.message} There are no rows either."
                yield self._case(code, text, "Delete the folder.")
                return
            remedy = "It is made again from the files; what they don't tell (label, configuration, history) is gone."
            yield self._case(code, error.message, remedy, mend=self._rebuild_manifest)

    def _rebuild_manifest(self) -> None:
        path = self.directory / MANIFEST_FILE
        if path.exists():
            self._files.rename(path, _aside(path))
        exchange = self._exchange_of(self.session_id)
        manifest = rebuilt_manifest(self.directory, self._clock.now_us(), exchange=exchange)
        save_manifest(self.directory, manifest, self._files)

    def _state(self, manifest: Manifest) -> Iterator[Case]:
        if not self._running and (manifest.state in RUNNING or manifest.state == "interrupted"):
            text = f"It was {manifest.state} when its daemon ended."
            yield self._case("interrupted", text, "The next daemon resumes or closes it.", note=True)

    # Segments

    def _known(self, manifest: Manifest) -> list[tuple[Stream, str | None]]:
        found: list[tuple[Stream, str | None]] = [(GAPS, None)]
        for stream in STREAMS.values():
            if not stream.per_symbol:
                continue
            recorded = {file.symbol for file in manifest.files if file.stream == stream.name and file.symbol}
            found += [(stream, symbol) for symbol in sorted(recorded | set(symbols_in(self.directory, stream)))]
        return found

    def _read(self, stream: Stream, symbol: str | None) -> StreamFacts:
        paths = segments(self.directory, stream, symbol)
        record = self.manifest.record(stream.name, symbol) if self.manifest else None
        live = self.directory / record.path if record else (paths[-1] if paths else self.directory / stream.file)
        facts = StreamFacts(stream, symbol, live)
        index = stream.seq_index
        previous = record.released.last_seq if record and record.released else 0
        try:
            for path in paths:
                facts.last_segment_rows = 0
                for batch in read_file(path, stream):
                    seqs = [int(row[index]) for row in batch.rows]
                    facts.last_segment_rows += len(seqs)
                    facts.first_seq = facts.first_seq or seqs[0]
                    facts.rows += len(seqs)
                    if seqs != list(range(previous + 1, previous + 1 + len(seqs))):
                        facts.jumps += jumps(previous, seqs)
                    previous = max(previous, seqs[-1])
                facts.torn_bytes = _torn_bytes(path)
            facts.last_seq = previous
        except (LogError, ValueError) as error:
            facts.unreadable = str(error)
        return facts

    def _segments(self, facts: StreamFacts, manifest: Manifest) -> Iterator[Case]:
        record = manifest.record(facts.stream.name, facts.symbol)
        if facts.unreadable:
            text = f"{facts.subject} cannot be read: {facts.unreadable}"
            yield self._case("unreadable", text, "Put the file back from a copy.")
            return
        if self._running:
            return
        if facts.torn_bytes:
            text = f"{facts.subject} ends with {facts.torn_bytes} bytes that are no whole row."
            yield self._case("torn-tail", text, "They are cut.", mend=lambda: self._recover(facts, record))
        yield from self._losses(facts, record)
        if manifest.state in FINAL and record is not None:
            yield from self._record(facts, record, manifest)

    def _losses(self, facts: StreamFacts, record: FileRecord | None) -> Iterator[Case]:
        ledger = self._ledger()
        lost = [*facts.jumps]
        if record is not None and record.next_seq - 1 > facts.last_seq:
            lost.append((facts.last_seq + 1, record.next_seq - 1))
        symbol = facts.symbol or ""
        unknown = [gap for gap in lost if not ledger.knows_damage(symbol, facts.stream.name, *gap)]
        if unknown:
            count = sum(last - first + 1 for first, last in unknown)
            shown = ", ".join(f"{first} to {last}" for first, last in unknown[:3])
            text = f"{facts.subject} lacks {count} rows that were in it once ({shown}), and the ledger does not say so."
            remedy = "They are entered in the ledger as lost. A copy of the file, put back before, would save them."
            yield self._case("rows-lost", text, remedy, mend=lambda: self._enter_losses(facts, unknown))

    def _record(self, facts: StreamFacts, record: FileRecord, manifest: Manifest) -> Iterator[Case]:
        released = record.released.rows if record.released else 0
        if record.rows != facts.rows + released:
            text = f"The manifest counts {record.rows} rows of {facts.subject}, its files hold {facts.rows + released}."
            yield self._case("counts", text, "The manifest is corrected.", mend=lambda: self._correct(facts))
        if self._deep and record.hashes:
            yield from self._hashes(facts, record, manifest)

    def _hashes(self, facts: StreamFacts, record: FileRecord, manifest: Manifest) -> Iterator[Case]:
        for path in segments(self.directory, facts.stream, facts.symbol):
            name = path.name.removesuffix(".gz")
            if name in record.hashes and hash_file(path) != record.hashes[name]:
                text = f"{facts.subject}: {path.name} is not what it was when the session ended ({manifest.state})."
                yield self._case("hash", text, "Put the file back from a copy; `collector verify` names what differs.")

    def _recover(self, facts: StreamFacts, record: FileRecord | None) -> None:
        """Open the file as the next start of the session would: whatever is torn is cut."""
        log = CsvLog(self.directory, files=self._files)
        try:
            log.open(facts.stream, facts.symbol, released=record.released if record else None)
            log.sync()
        finally:
            log.close()

    def _ledger(self) -> GapLedger:
        ledger = GapLedger()
        try:
            ledger.load(read_rows(self.directory, GAPS))
        except LogError:
            return GapLedger()  # it has a finding of its own
        return ledger

    def _enter_losses(self, facts: StreamFacts, lost: Sequence[tuple[int, int]]) -> None:
        log = CsvLog(self.directory, files=self._files)
        try:
            file = log.open(GAPS)
            ledger = GapLedger()
            ledger.load(log.rows(file))
            concerned = CsvLog(self.directory, files=self._files)
            subject = concerned.open(facts.stream, facts.symbol)
            concerned.close()
            for first, last in lost:
                gap = gap_of_incident(Incident("damaged", subject, "found by collector doctor", (first, last)))
                if gap is not None:
                    ledger.record(gap, self._clock.now_us())
            lines = [format_gap(entry, file.next_seq + n) for n, entry in enumerate(ledger.take_unwritten())]
            log.append([Write(file, b"".join(lines), len(lines))])
            log.sync()
        finally:
            log.close()

    def _correct(self, facts: StreamFacts) -> None:
        manifest = load_manifest(self.directory)
        record = manifest.record(facts.stream.name, facts.symbol)
        if record is not None:
            record.rows = facts.rows + (record.released.rows if record.released else 0)
            record.next_seq = max(record.next_seq, facts.last_seq + 1)
            save_manifest(self.directory, manifest, self._files)

    # Cursor

    def _cursor(self) -> Iterator[Case]:
        if not self._replicated or self._running:
            return
        path = self.directory / CURSOR_FILE
        try:
            cursor = load_cursor(self.directory, self.session_id)
        except CursorUnreadable as error:
            text = f"{CURSOR_FILE} cannot be used: {error}."
            yield self._case("cursor-unreadable", text, _RESEND, mend=lambda: self._set_aside(path))
            return
        rows = sum(facts.rows for facts in self.streams)
        if cursor is None:
            if rows:
                text = f"There is no {CURSOR_FILE}: nothing says how far QuestDB is."
                yield self._case("cursor-missing", text, "The daemon sends the session's rows again.", note=True)
            return
        ahead = [facts.subject for facts in self.streams if self._is_ahead(cursor, facts)]
        if ahead:
            text = f"QuestDB acknowledged rows that {', '.join(ahead)} does not hold: the file was cut or replaced."
            yield self._case("cursor-ahead", text, _RESEND, mend=lambda: self._set_aside(path))

    def _is_ahead(self, cursor: Cursor, facts: StreamFacts) -> bool:
        saved = next((f for f in cursor.files if (f.stream, f.symbol) == (facts.stream.name, facts.symbol)), None)
        if saved is None or facts.unreadable:
            return False
        if saved.acknowledged.seq > facts.last_seq:
            return True
        live = facts.live
        if saved.acknowledged.segment is None or not live.exists():
            return False
        closed = live.with_name(closed_name(facts.stream, saved.acknowledged.segment))
        in_live = not closed.exists() and not closed.with_name(closed.name + ".gz").exists() and facts.last_segment_rows
        return bool(in_live) and saved.acknowledged.offset > live.stat().st_size

    def _set_aside(self, path: Path) -> None:
        self._files.rename(path, _aside(path))


_TYPES = (*DATA_TYPES, *HISTORY_TYPES)


def jumps(previous: int, seqs: Sequence[int]) -> list[tuple[int, int]]:
    """Return the numbers that are missing between rows, behind a previous one, as inclusive intervals."""
    found = []
    for seq in seqs:
        if seq > previous + 1:
            found.append((previous + 1, seq - 1))
        previous = max(previous, seq)
    return found


def rebuilt_manifest(directory: Path, now_us: int, *, exchange: str = "") -> Manifest:
    """Return a manifest made from a session's files alone; the session counts as failed, because nobody knows more.

    Args:
        exchange: whose rows they are; the session id tells where nothing is given.
    """
    session_id = directory.name.removeprefix(_PREFIX)
    symbols = sorted({symbol for name in _TYPES for symbol in symbols_in(directory, STREAMS[name])})
    data_types = [name for name in _TYPES if symbols_in(directory, STREAMS[name])]
    levels = [stream_in(directory, ORDERBOOK, symbol).levels for symbol in symbols_in(directory, ORDERBOOK)]
    reason = "its manifest was lost, and made again from its files"
    created_us = _earliest_us(directory, symbols, now_us)
    manifest = Manifest(
        session_id, exchange or exchange_in(session_id), symbols, data_types, created_us, state="failed", reason=reason,
        started_us=created_us, ended_us=now_us, history=[StateChange("failed", now_us, reason)],
        book_levels=max(levels, default=ORDERBOOK.levels),
    )  # fmt: skip
    with contextlib.suppress(CollectorError):  # an exchange that nobody knows any more
        manifest.ids_ordered = known_exchange(manifest.exchange).trade_ids_ordered
    for stream in STREAMS.values():
        for symbol in symbols_in(directory, stream) if stream.per_symbol else [None]:
            paths = segments(directory, stream, symbol)
            if paths:
                live = paths[-1].with_name(stream.file)
                record = FileRecord(stream.name, symbol, live.relative_to(directory).as_posix())
                for path in paths:
                    for batch in read_file(path, stream):
                        record.rows += len(batch.rows)
                        record.next_seq = max(record.next_seq, int(batch.rows[-1][stream.seq_index]) + 1)
                manifest.files.append(record)
    manifest.written = manifest.received = sum(file.rows for file in manifest.files if file.stream in _TYPES)
    return manifest


def exchange_in(session_id: str) -> str:
    """Return the exchange that a generated session id names (``20261121-081500-binance-7f3a``); else ``unknown``."""
    parts = session_id.split("-")
    return parts[2] if len(parts) == 4 and parts[0].isdigit() and parts[1].isdigit() else "unknown"


def _earliest_us(directory: Path, symbols: Sequence[str], default_us: int) -> int:
    times = []
    for symbol in symbols:
        for name in _TYPES:
            stream = STREAMS[name]
            row = next(iter(read_rows(directory, stream, symbol)), None)
            if row is not None:
                times.append(int(row[0]))
    return min(times, default=default_us)


def _torn_bytes(path: Path) -> int:
    """Return how many bytes follow the last whole line of a plain segment."""
    if path.suffix == ".gz":
        return 0
    with path.open("rb") as file:
        size = file.seek(0, 2)
        start = max(0, size - _TAIL_BYTES)
        file.seek(start)
        tail = file.read()
    return len(tail) - tail.rfind(b"\n") - 1


def _is_too_open(path: Path) -> bool:
    return not path.is_symlink() and bool(path.stat().st_mode & _OTHERS)


def _close(paths: Sequence[Path]) -> None:
    for path in paths:
        path.chmod(0o750 if path.is_dir() else path.stat().st_mode & 0o640)


def _aside(path: Path) -> Path:
    """Return a name beside a file that is free."""
    number = 1
    while (found := path.with_name(f"{path.name}.damaged-{number}")).exists():
        number += 1
    return found
