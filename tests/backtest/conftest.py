"""Sessions whose candles a test knows, as files that the reader reads."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from collector.config import Config
from collector.reading.session_reader import SessionReader, open_session
from collector.session.gaps import GapLedger
from collector.session.manifest import FileRecord, Manifest, save_manifest
from collector.session.rows import format_gap
from collector.storage.files import OperatingSystem
from collector.streams import GAPS, OHLCV

T = 1_700_000_040_000_000
MINUTE_US = 60_000_000


def closes(count: int) -> list[float]:
    """Prices that rise and fall, so that every strategy has something to do."""
    return [round(100 + 0.02 * n + 6 * math.sin(n / 9) + 2 * math.sin(n / 2.3), 2) for n in range(count)]


def store(data_dir: Path, session_id: str, prices: list[float], *, partial: bool = True, gaps: Any = ()) -> Path:
    """Write a session of one symbol with a 1m candle per price; the first and last are not whole."""
    directory = data_dir / f"session_{session_id}"
    folder = directory / "BTC_USDT"
    folder.mkdir(parents=True)
    lines = []
    before = prices[0]
    for n, price in enumerate(prices):
        edge = partial and n in (0, len(prices) - 1)
        high, low = max(before, price) + 0.5, min(before, price) - 0.5
        lines.append(
            f"{T + n * MINUTE_US},1m,{before},{high},{low},{price},7,700,4,3,{n},{n},"
            f"{'false' if edge and n else 'true'},{'partial' if edge else 'full'},trades,0,{n + 1}\n"
        )
        before = price
    (folder / "ohlcv.csv").write_text(OHLCV.header + "".join(lines), encoding="utf-8")
    ledger = GapLedger()
    entries = [ledger.record(gap, T) for gap in gaps]
    (directory / "gaps.csv").write_bytes(
        GAPS.header.encode() + b"".join(format_gap(entry, seq) for seq, entry in enumerate(entries, 1))
    )
    manifest = Manifest(
        session_id=session_id, exchange="sim", symbols=["BTC_USDT"], data_types=["prices"], created_us=T, started_us=T,
        ended_us=T + len(prices) * MINUTE_US, state="completed",
        files=[FileRecord("ohlcv", "BTC_USDT", "BTC_USDT/ohlcv.csv", rows=len(prices), next_seq=len(prices) + 1)],
    )  # fmt: skip
    save_manifest(directory, manifest, OperatingSystem())
    return directory


Opener = Callable[..., SessionReader]


@pytest.fixture
def session(tmp_path: Path) -> Opener:
    """Store a session and open it."""

    def make(session_id: str = "s1", prices: list[float] | None = None, **how: Any) -> SessionReader:
        store(tmp_path / "data", session_id, prices or closes(400), **how)
        config = Config.model_validate({"daemon": {"data_dir": str(tmp_path / "data")}, "questdb": {"mode": "off"}})
        return open_session(session_id, config=config)

    return make
