"""Two sessions against each other: what the trades say is computed here by hand as well."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from collector.config import Config
from collector.errors import UsageError
from collector.reading.comparison import Comparison, compare_sessions
from collector.reading.session_reader import SessionReader, open_session
from collector.session.manifest import FileRecord, Manifest, save_manifest
from collector.storage.files import OperatingSystem
from collector.streams import PRICES

T = 1_700_000_000_000_000
SECOND_US = 1_000_000

Trade = tuple[int, float, int, int]
"""Seconds after T, price, the exchange's number, latency in microseconds."""


def opened(
    data_dir: Path, session_id: str, trades: list[Trade], exchange: str = "binance", **fields: Any
) -> SessionReader:
    """Write a session of these trades; open it."""
    directory = data_dir / f"session_{session_id}"
    (directory / "BTC_USDT").mkdir(parents=True)
    lines = "".join(
        f"{T + at * SECOND_US},{price},1,{price},buy,{number},{seq},{T + at * SECOND_US + late},ws,,\n"
        for seq, (at, price, number, late) in enumerate(trades, 1)
    )
    (directory / "BTC_USDT" / "prices.csv").write_text(PRICES.header + lines, encoding="utf-8")
    record = FileRecord("prices", "BTC_USDT", "BTC_USDT/prices.csv", rows=len(trades), next_seq=len(trades) + 1)
    facts = {"started_us": T, "ended_us": T + 10_000 * SECOND_US, "files": [record], **fields}
    manifest = Manifest(
        session_id=session_id, exchange=exchange, symbols=["BTC_USDT"], data_types=["prices"], created_us=T,
        state="completed", **facts,
    )  # fmt: skip
    save_manifest(directory, manifest, OperatingSystem())
    config = Config.model_validate({"daemon": {"data_dir": str(data_dir)}, "questdb": {"mode": "off"}})
    return open_session(session_id, config=config)


def compared(left: SessionReader, right: SessionReader, **how: Any) -> Comparison:
    return compare_sessions(left, right, "BTC_USDT", **how)


def test_prices_and_latency_in_the_time_that_both_have(tmp_path: Path) -> None:
    """Steps in which only one traded do not count; of each step the last price does."""
    left = opened(
        tmp_path,
        "left",
        [(0, 90, 1, 0), (10, 100, 2, 1000), (11, 100, 3, 3000), (12, 102, 4, 5000), (20, 104, 6, 7000)],
    )
    right = opened(
        tmp_path,
        "right",
        [(10, 100, 2, 2000), (12, 100, 4, 4000), (13, 100, 5, 4000), (20, 100, 6, 9000), (30, 1, 7, 0)],
    )
    found = compared(left, right)
    assert (found.from_us, found.to_us) == (T + 10 * SECOND_US, T + 20 * SECOND_US)
    assert [(at - T, a, b) for at, a, b in found.points] == [
        (10 * SECOND_US, 100, 100), (12 * SECOND_US, 102, 100), (20 * SECOND_US, 104, 100),
    ]  # fmt: skip
    assert found.mean_bp == pytest.approx(200)
    assert found.mean_absolute_bp == pytest.approx(200)
    assert found.largest_bp == pytest.approx(400)
    assert found.largest_us == T + 20 * SECOND_US
    assert found.left.trades == 4
    assert found.left.latency is not None
    assert (found.left.latency.least_ms, found.left.latency.p99_ms, found.left.latency.trades) == (1, 7, 4)
    assert found.right.latency is not None
    assert found.right.latency.p50_ms == 4


def test_what_one_lacks_is_told_by_its_numbers(tmp_path: Path) -> None:
    """Between the first and last number of both; what only one of them was there for is no loss."""
    left = opened(tmp_path, "left", [(n, 100, n, 0) for n in range(50) if n not in (20, 21)])
    right = opened(tmp_path, "right", [(n, 100, n, 0) for n in range(10, 60) if n not in (30, 40)])
    found = compared(left, right)
    assert (found.left.lacking, found.right.lacking) == (2, 2)
    assert found.left.lacking_ids == ((20, T + 20 * SECOND_US), (21, T + 21 * SECOND_US))
    assert [number for number, _ in found.right.lacking_ids] == [30, 40]
    assert found.why_no_ids == ""


def test_trades_without_common_numbers_are_not_compared(tmp_path: Path) -> None:
    """And it is said why."""
    left = opened(tmp_path, "left", [(n, 100, n, 0) for n in range(9)])
    right = opened(tmp_path, "right", [(n, 100, n, 0) for n in range(9)], exchange="okx")
    found = compared(left, right)
    assert found.left.lacking is None
    assert "different markets" in found.why_no_ids
    bybit = [opened(tmp_path, name, [(n, 100, n, 0) for n in range(9)], exchange="bybit") for name in "ab"]
    assert "does not number" in compared(*bybit).why_no_ids


def test_a_longer_step_and_a_part_of_the_time(tmp_path: Path) -> None:
    """Both bound what is compared."""
    left = opened(tmp_path, "left", [(n, 100 + n, n, 0) for n in range(180)])
    right = opened(tmp_path, "right", [(n, 100, n, 0) for n in range(180)])
    minutes = compared(left, right, step="1m")
    # T is 20 s into a minute, so the first one ends after 40 s.
    assert [left_price for _, left_price, _ in minutes.points] == [139, 199, 259, 279]
    part = compared(left, right, start=T + 100 * SECOND_US, end=T + 103 * SECOND_US)
    assert part.left.trades == 3


def test_sessions_that_never_met_are_refused(tmp_path: Path) -> None:
    """Whether the manifests say so or the trades do; and one with more than memory should hold."""
    left = opened(tmp_path, "left", [(n, 100, n, 0) for n in range(9)])
    later = opened(tmp_path, "later", [(n + 100, 100, n, 0) for n in range(9)])
    with pytest.raises(UsageError, match="no time in common"):
        compared(left, later)
    other = opened(tmp_path, "other", [(500, 100, 1, 0)], started_us=T + 400 * SECOND_US)
    with pytest.raises(UsageError, match="no time in common"):
        compared(left, other)
    record = FileRecord("prices", "BTC_USDT", "BTC_USDT/prices.csv", rows=20_000_001, next_seq=20_000_002)
    large = opened(tmp_path, "large", [(0, 100, 1, 0)], files=[record])
    with pytest.raises(UsageError, match="too many"):
        compared(left, large)
