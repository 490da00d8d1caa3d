"""Ended sessions are looked after, running ones are not touched, and one that is broken leaves the others alone."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import structlog

from collector.clock import ManualClock
from collector.config import Csv
from collector.session.manifest import FileRecord, Manifest, load_manifest, save_manifest
from collector.storage.csv_log import CsvLog, Write
from collector.storage.files import OperatingSystem
from collector.storage.survey import Span
from collector.streams import PRICES
from collector.upkeep import EndedSessions

SYMBOL = "BTC_USDT"


def session(data_dir: Path, session_id: str, state: str) -> Path:
    directory = data_dir / f"session_{session_id}"
    log = CsvLog(directory, files=OperatingSystem())
    file = log.open(PRICES, SYMBOL)
    log.append([Write(file, b"".join(b"1,1,2,2,buy,%d,%d,1,ws,,\n" % (n, n) for n in range(1, 11)), 10)])
    log.sync()
    log.close()
    manifest = Manifest(session_id, "sim", [SYMBOL], ["prices"], 1, state=state)
    manifest.files = [FileRecord("prices", SYMBOL, f"{SYMBOL}/prices.csv", rows=10, next_seq=11)]
    manifest.files[0].hashes = {"prices.csv": "x"}
    save_manifest(directory, manifest, OperatingSystem())
    return directory


def tend(data_dir: Path, config: Csv, running: Sequence[str] = ()) -> None:
    async def held(_session: str, spans: Sequence[Span]) -> set[tuple[str, str | None]]:
        return {(span.stream.name, span.symbol) for span in spans}

    async def go(thread: Any) -> None:
        await EndedSessions(
            data_dir, config=config, files=OperatingSystem(), clock=ManualClock(), log=structlog.get_logger(),
            thread=thread, held=held, is_running=lambda session_id: session_id in running,
        ).tend_all(asyncio.Event())  # fmt: skip

    with ThreadPoolExecutor(1) as thread:
        asyncio.run(go(thread))


@pytest.mark.parametrize("config", [Csv(keep_days=1), Csv(enabled=False)])
def test_an_ended_session_s_ticks_go_and_its_manifest_says_so(tmp_path: Path, config: Csv) -> None:
    """Durably, with how many and up to which."""
    directory = session(tmp_path, "a", "completed")
    (tmp_path / "session_broken").mkdir()
    tend(tmp_path, config)
    assert (directory / SYMBOL / "prices.csv").read_text() == PRICES.header
    record = load_manifest(directory).files[0]
    assert record.released is not None
    assert (record.released.rows, record.released.last_seq, record.rows) == (10, 10, 10)


@pytest.mark.parametrize("state", ["active", "interrupted"])
def test_other_sessions_are_not_touched(tmp_path: Path, state: str) -> None:
    """Those that run, and those that may go on."""
    directory = session(tmp_path, "a", state)
    before = (directory / SYMBOL / "prices.csv").read_text()
    tend(tmp_path, Csv(keep_days=1))
    assert (directory / SYMBOL / "prices.csv").read_text() == before
    ended = session(tmp_path, "b", "completed")
    tend(tmp_path, Csv(keep_days=1), running=["b"])
    assert load_manifest(ended).files[0].released is None


def test_it_ends_at_once_where_nothing_is_to_be_done(tmp_path: Path) -> None:
    """The default keeps everything as it is."""

    async def go(thread: Any) -> None:
        async with asyncio.timeout(10):
            await EndedSessions(
                tmp_path, config=Csv(), files=OperatingSystem(), clock=ManualClock(), log=structlog.get_logger(),
                thread=thread, held=None, is_running=lambda _: False,
            ).run(asyncio.Event())  # fmt: skip

    with ThreadPoolExecutor(1) as thread:
        asyncio.run(go(thread))
