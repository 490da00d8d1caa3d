"""A session on disk as a daemon leaves it: made by the log itself, with a manifest and a cursor."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from pathlib import Path

import pytest

from collector.session.manifest import FileRecord, Manifest, hash_file, save_manifest
from collector.storage.csv_log import CsvLog, Write
from collector.storage.cursor import Cursor, Position, SavedFile, save_cursor
from collector.storage.files import OperatingSystem
from collector.storage.ilp import Encoder
from collector.streams import GAPS, PRICES

SYMBOL = "BTC_USDT"
START_US = 1_700_000_000_000_000


def price_lines(first: int, last: int) -> bytes:
    return b"".join(
        f"{START_US + n},1.5,2,3.0,buy,{n + 100},{n},{START_US + n + 5},ws,,\n".encode() for n in range(first, last + 1)
    )


class Patient:
    """A session of one symbol with two closed segments and a live one, ten rows each."""

    def __init__(self, data_dir: Path, state: str = "completed") -> None:
        self.data_dir = data_dir
        self.session_id = f"20261121-081500-sim-{uuid.uuid4().hex[:8]}"
        self.directory = data_dir / f"session_{self.session_id}"
        self.folder = self.directory / SYMBOL
        self.live = self.folder / "prices.csv"
        files = OperatingSystem()
        log = CsvLog(self.directory, files=files)
        log.open(GAPS)
        file = log.open(PRICES, SYMBOL)
        for number in range(3):
            log.append([Write(file, price_lines(file.next_seq, file.next_seq + 9), 10)])
            if number < 2:
                log.rotate(file)
        log.sync()
        log.close()
        self.manifest = Manifest(
            self.session_id, "sim", [SYMBOL], ["prices"], START_US, state=state,
            files=[
                FileRecord("gaps", None, "gaps.csv"),
                FileRecord("prices", SYMBOL, f"{SYMBOL}/prices.csv", rows=30, next_seq=31),
            ],
        )  # fmt: skip
        for path in self.folder.glob("prices*"):
            self.manifest.files[1].hashes[path.name] = hash_file(path)
        self.save()
        end = Position(21, self.live.stat().st_size, 30)
        saved = [SavedFile("prices", SYMBOL, end, end)]
        save_cursor(files, self.directory, Cursor(self.session_id, saved))
        for path in (data_dir, *data_dir.rglob("*")):
            path.chmod(0o750 if path.is_dir() else 0o640)

    def save(self) -> None:
        save_manifest(self.directory, self.manifest, OperatingSystem())
        (self.directory / "session.json").chmod(0o640)

    def body(self) -> bytes:
        """Return all rows as ILP."""
        tags = {"session_id": self.session_id, "exchange": "sim", "symbol": SYMBOL}
        return Encoder(PRICES, tags).encode(price_lines(1, 30)).body


@pytest.fixture
def make_patient(tmp_path: Path) -> Callable[..., Patient]:
    """Make sessions in one data directory."""

    def make(state: str = "completed") -> Patient:
        return Patient(tmp_path / "data", state)

    return make


@pytest.fixture
def patient(make_patient: Callable[..., Patient]) -> Patient:
    """Give a session that nothing is wrong with."""
    return make_patient()
