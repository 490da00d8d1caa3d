"""An export's folder: what was asked, which partitions are done, and their checksums. An interrupted export goes on.

Each partition is written beside its place and renamed when it is whole and on the disk; then ``export.json`` names it.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from collector.errors import UsageError

INDEX_FILE = "export.json"
SUMS_FILE = "SHA256SUMS"
_SUFFIX = ".tmp"


class Partition(msgspec.Struct, frozen=True):
    """A file of the export: a group (a stream of a symbol) of one day (its start in microseconds, UTC)."""

    path: str
    group: str
    day_us: int
    rows: int
    bytes: int
    sha256: str


class Index(msgspec.Struct):
    """``export.json``. ``asked`` is what makes two runs the same export."""

    asked: dict[str, Any]
    source: str = ""
    complete: bool = False
    notes: dict[str, Any] = {}
    partitions: list[Partition] = []
    format_version: int = 1


class ExportFolder:
    """The folder of one export.

    Args:
        asked: what identifies the export: the session with its row counts, the format, symbols and bounds.

    Raises:
        UsageError: the folder has something else in it.
    """

    def __init__(self, path: Path, asked: dict[str, Any]) -> None:
        self.path = path
        self.resumed = 0
        """How many partitions an earlier run had done."""
        asked = msgspec.json.decode(msgspec.json.encode(asked))
        self.index = self._load(asked)

    def _load(self, asked: dict[str, Any]) -> Index:
        found = self.path / INDEX_FILE
        if not found.exists():
            if self.path.exists() and (not self.path.is_dir() or any(self.path.iterdir())):
                raise UsageError(f"{self.path} is not empty, and is no export.", hint="Give another folder: --output.")
            return Index(asked)
        try:
            index = msgspec.json.decode(found.read_bytes(), type=Index)
        except (OSError, msgspec.MsgspecError) as error:
            raise UsageError(f"{found} cannot be read: {error}.", hint="Give another folder: --output.") from error
        if index.asked != asked:
            raise UsageError(
                f"{self.path} holds another export: of another session, format, choice or state of the session.",
                hint="Delete it, or give another folder: --output.",
            )
        lost: dict[str, int] = {}
        for partition in index.partitions:
            if not self._stands(partition):
                lost[partition.group] = min(partition.day_us, lost.get(partition.group, partition.day_us))
        index.partitions = [p for p in index.partitions if p.group not in lost or p.day_us < lost[p.group]]
        index.complete = False
        self.resumed = len(index.partitions)
        return index

    def _stands(self, partition: Partition) -> bool:
        try:
            return (self.path / partition.path).stat().st_size == partition.bytes
        except OSError:
            return False

    def done(self, group: str) -> dict[int, Partition]:
        """Return a group's partitions that are done, by their days."""
        return {partition.day_us: partition for partition in self.index.partitions if partition.group == group}

    @contextlib.contextmanager
    def writing(self, name: str) -> Iterator[Path]:
        """Give the path to write a file at; it is put in its place, durably, when the block ends well."""
        place = self.path / name
        place.parent.mkdir(parents=True, exist_ok=True)
        temporary = place.with_name(place.name + _SUFFIX)
        try:
            yield temporary
            put_in_place(temporary, place)
        finally:
            temporary.unlink(missing_ok=True)

    def add(self, name: str, group: str, day_us: int, rows: int) -> None:
        """Note a partition that is in its place."""
        place = self.path / name
        with place.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
        self.index.partitions.append(Partition(name, group, day_us, rows, place.stat().st_size, digest))
        self.save()

    def save(self) -> None:
        """Put ``export.json`` in place."""
        with self.writing(INDEX_FILE) as path:
            path.write_bytes(msgspec.json.format(msgspec.json.encode(self.index), indent=2) + b"\n")

    def finish(self) -> None:
        """Write the checksums, as ``sha256sum --check`` takes them, and note that the export is complete."""
        self.index.partitions.sort(key=lambda partition: partition.path)
        with self.writing(SUMS_FILE) as path:
            lines = [f"{partition.sha256}  {partition.path}\n" for partition in self.index.partitions]
            path.write_text("".join(lines), encoding="utf-8")
        self.index.complete = True
        self.save()


def put_in_place(temporary: Path, place: Path) -> None:
    """Make a file durable and give it its name."""
    for path, move in ((temporary, True), (place.parent, False)):
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        if move:
            temporary.replace(place)
