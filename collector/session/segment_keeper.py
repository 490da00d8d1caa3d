"""What becomes of closed segments: compressed, and deleted once QuestDB has their rows for certain and they may go.

The order makes a crash harmless: the table is asked, the manifest says durably what will be gone, then it is deleted. A
segment that the manifest names and that is still there is deleted when the session is opened again.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from pathlib import Path
from typing import TypeVar

from structlog.typing import FilteringBoundLogger

from collector.clock import Clock
from collector.config import Csv
from collector.errors import LogError
from collector.session.manifest import FileRecord, Manifest
from collector.session.rotation import KEPT_STREAMS, received_of
from collector.storage.csv_log import CsvLog, closed_name, closed_segments
from collector.storage.files import Files
from collector.storage.packing import SUFFIX, SegmentChanged, compress_segment
from collector.storage.survey import Span, survey_segment
from collector.streams import PRICES, Stream, stream_of

__all__ = ["Held", "SegmentKeeper", "apply_release"]

_DAY_US = 86_400_000_000
_SEGMENTS_A_TURN = 8
_HEADER_AND_ROW = 4096

Key = tuple[str, str | None]
Held = Callable[[str, Sequence[Span]], Awaitable[set[Key]]]
"""Say of which (stream, symbol) QuestDB has the span of a session for certain."""

_T = TypeVar("_T")


class SegmentKeeper:
    """Look after the closed segments of one session.

    Args:
        thread: where files are read and compressed: not the log's, because that takes seconds.
        held: asks QuestDB; None where there is none, and then nothing is ever deleted.
        note: makes durable in the manifest that these rows are about to be deleted.
    """

    def __init__(
        self,
        session_id: str,
        directory: Path,
        *,
        config: Csv,
        files: Files,
        clock: Clock,
        log: FilteringBoundLogger,
        thread: Executor,
        held: Held | None,
        note: Callable[[Sequence[Span]], Awaitable[None]],
    ) -> None:
        self.compressed = 0
        self.released_rows = 0
        self._session_id = session_id
        self._directory = directory
        self._config = config
        self._files = files
        self._clock = clock
        self._log = log
        self._thread = thread
        self._held = held
        self._note = note
        self._spans: dict[tuple[Path, int], Span] = {}
        self._told: set[Path] = set()

    @property
    def idle(self) -> bool:
        """Say whether the configuration leaves it nothing to do."""
        return not self._config.compress and not self._releases

    @property
    def _releases(self) -> bool:
        return self._held is not None and (self._config.keep_days > 0 or not self._config.enabled)

    async def tend(self, manifest: Manifest, *, ended: bool) -> None:
        """Do what is to be done now. An ended session's live segments may go, too."""
        if self._releases:
            if ended:
                await self._in_thread(lambda: self._close_live_segments(manifest))
            while await self._release(manifest, ended=ended):
                pass
        if self._config.compress:
            await self.compress(manifest)

    async def compress(self, manifest: Manifest) -> None:
        """Compress the closed segments that are not; what fails is told once, and tried again the next time."""
        for record in list(manifest.files):
            stream = stream_of(record.stream, manifest.book_levels)
            if stream is not None:
                await self._in_thread(lambda record=record, stream=stream: self._compress(record, stream))  # type: ignore[misc]

    # Releasing

    async def _release(self, manifest: Manifest, *, ended: bool) -> bool:
        """Delete the oldest segments that may go; return whether there may be more."""
        spans = await self._in_thread(lambda: self._candidates(manifest, ended=ended))
        if not spans or self._held is None:
            return False
        held = await self._held(self._session_id, spans)
        chosen = [span for span in spans if (span.stream.name, span.symbol) in held]
        if not chosen:
            return False
        try:
            await self._note(chosen)
            await self._in_thread(lambda: self._remove(manifest, chosen))
        except (LogError, OSError) as error:
            self._log.warning("data_collection.segments_not_released", reason=str(error))
            return False
        return len(chosen) == len(spans)

    def _candidates(self, manifest: Manifest, *, ended: bool) -> list[Span]:
        """Return, for each stream and symbol, the oldest closed segments that are old enough to go, as one span."""
        spans = []
        for record in manifest.files:
            stream = stream_of(record.stream, manifest.book_levels)
            if stream is not None and stream.name not in KEPT_STREAMS:
                span = self._oldest(stream, record, ended=ended)
                if span is not None:
                    spans.append(span)
        return spans

    def _oldest(self, stream: Stream, record: FileRecord, *, ended: bool) -> Span | None:
        live = self._directory / record.path
        found: Span | None = None
        for first, name, end in self._closed(live, stream)[:_SEGMENTS_A_TURN]:
            if end is None and not ended:
                break  # a restart must find the last row: it tells where the feed goes on
            span = self._survey(live, name, first, stream, record.symbol)
            if span is None or self._is_young(span, ended=ended) or (end is not None and span.last_seq >= end):
                break
            found = span if found is None else found.joined(span)
        return found

    def _survey(self, live: Path, name: str, first: int, stream: Stream, symbol: str | None) -> Span | None:
        span = self._spans.get((live, first))
        if span is None:
            try:
                span = survey_segment(live.with_name(name), stream, symbol, self._files)
            except (OSError, SegmentChanged) as error:
                self._tell_once(live.with_name(name), "data_collection.segment_unreadable", str(error))
            else:
                self._spans[live, first] = span
        return span

    def _is_young(self, span: Span, *, ended: bool) -> bool:
        age_us = self._clock.now_us() - span.received_us
        if self._config.enabled:
            return age_us < self._config.keep_days * _DAY_US
        return not ended and span.stream is PRICES and age_us < self._config.spool_keep_s * 1_000_000

    def _remove(self, manifest: Manifest, spans: Sequence[Span]) -> None:
        for span in spans:
            record = manifest.record(span.stream.name, span.symbol)
            if record is None:
                continue
            live = self._directory / record.path
            for first, _ in closed_segments(self._files.names(live.parent), span.stream):
                if span.first_seq <= first <= span.last_seq:
                    plain = live.with_name(closed_name(span.stream, first))
                    self._files.remove(plain.with_name(plain.name + SUFFIX))
                    self._files.remove(plain)
                    self._spans.pop((live, first), None)
            self.released_rows += span.rows
            self._log.debug("data_collection.rows_released", path=str(live), last_seq=span.last_seq, rows=span.rows)

    def _close_live_segments(self, manifest: Manifest) -> None:
        """Close the live segments of an ended session whose rows are old enough to go."""
        log = CsvLog(self._directory, files=self._files)
        try:
            for record in manifest.files:
                stream = stream_of(record.stream, manifest.book_levels)
                if stream is None or stream.name in KEPT_STREAMS or not (self._directory / record.path).exists():
                    continue
                file = log.open(stream, record.symbol, known_seq=record.next_seq - 1, released=record.released)
                received_us = received_of(file, file.last_row) or 0
                old = self._clock.now_us() - received_us >= self._config.keep_days * _DAY_US
                if file.next_seq > file.first_seq and (old or not self._config.enabled):
                    log.rotate(file)
        except LogError as error:
            self._tell_once(self._directory, "data_collection.file_not_rotated", str(error))
        finally:
            log.close()

    # Compressing

    def _compress(self, record: FileRecord, stream: Stream) -> None:
        live = self._directory / record.path
        for first, name, end in self._closed(live, stream):
            if name.endswith(SUFFIX):
                continue
            path = live.with_name(name)
            try:
                compress_segment(path, self._files, max_rows=None if end is None else end - first)
                self.compressed += 1
            except (OSError, SegmentChanged) as error:
                self._tell_once(path, "data_collection.segment_not_compressed", str(error))

    def _closed(self, live: Path, stream: Stream) -> list[tuple[int, str, int | None]]:
        """Return the closed segments: first ``seq``, name, and where the next one begins (None: nothing follows)."""
        try:
            closed = closed_segments(self._files.names(live.parent), stream)
        except OSError as error:
            self._tell_once(live.parent, "data_collection.segments_unreadable", str(error))
            return []
        begins: list[int | None] = [first for first, _ in closed[1:]]
        begins.append(self._first_seq(live, stream) if closed else None)
        return [(first, name, begin) for (first, name), begin in zip(closed, begins, strict=False)]

    def _first_seq(self, live: Path, stream: Stream) -> int | None:
        """Return the number of the live segment's first row; None where it has none."""
        try:
            self._files.look(live)
            fd = self._files.open_append(live)
        except OSError:
            return None
        try:
            lines = self._files.read(fd, _HEADER_AND_ROW, 0).split(b"\n")
            fields = lines[1].split(b",") if len(lines) > 2 else []
            return int(fields[stream.seq_index]) if len(fields) == len(stream.columns) else None
        except (OSError, ValueError):
            return None
        finally:
            self._files.close(fd)

    def _tell_once(self, path: Path, event: str, reason: str) -> None:
        if path not in self._told:
            self._told.add(path)
            self._log.warning(event, path=str(path), reason=reason)

    async def _in_thread(self, work: Callable[[], _T]) -> _T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)


def apply_release(manifest: Manifest, spans: Sequence[Span]) -> None:
    """Enter in a manifest what is about to be deleted; it is saved before that is done."""
    for span in spans:
        record = manifest.record(span.stream.name, span.symbol)
        if record is not None:
            record.release(span.last_seq, span.rows, span.from_us, span.to_us)
