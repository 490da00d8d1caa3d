"""Past candles over REST, from a real QuestDB: what is held, how good it is, and the candles in pages."""

from __future__ import annotations

from typing import Any

import pytest

from collector.history.tables import HistoryTables, LogRow, QualityRow, RangeRow
from collector.storage.sql import to_timestamp

from .conftest import Application

HISTORY = "/api/data-collection/history"
HOUR_US = 3_600_000_000
T = 1_700_000_000_000_000 // HOUR_US * HOUR_US
SYMBOL = "HELD_USDT"


@pytest.fixture
def filled(application: Application, questdb: Any) -> Application:
    """An application whose QuestDB has seven candles, one of them from two sources."""
    tables = HistoryTables(lambda: questdb.settings)
    tables.put_ranges(
        [RangeRow(symbol=SYMBOL, timeframe="1h", earliest_us=T, latest_us=T + 5 * HOUR_US, total_records=6,
                  is_complete=True, updated_us=T)]
    )  # fmt: skip
    tables.put_quality(
        [QualityRow(symbol=SYMBOL, timeframe="1h", completeness_percentage=100, missing_records=0, has_gaps=False,
                    score=99.5, detail="{}", checked_us=T)]
    )  # fmt: skip
    tables.put_logs([LogRow(task_id="t1", task_name="backfill", status="done", started_us=T, finished_us=T + 1)])
    rows = [(n, "binance") for n in range(6)] + [(2, "okx")]
    with questdb.connect() as connection:
        for n, source in rows:
            connection.run(
                "INSERT INTO market_data (timestamp, session_id, exchange, symbol, asset_type, timeframe, open, high, "
                "low, close, volume, source, seq) VALUES (%s, 'h', 'x', %s, 'spot', '1h', %s, %s, %s, %s, 1, %s, %s)",
                to_timestamp(T + n * HOUR_US), SYMBOL, 1.0, 2.0, 0.5, float(n), source, n,
            )  # fmt: skip
        for table in ("market_data", "historical_data_range", "data_quality", "data_collection_logs"):
            connection.run_text(f"SELECT wait_wal_table('{table}')")
    application.config = questdb.config.model_copy(
        update={"daemon": questdb.config.daemon.model_copy(update={"data_dir": questdb.data_dir})}
    )
    return application


def test_what_is_held_and_how_good_it_is(filled: Application) -> None:
    """A row each, with the times in microseconds."""
    ranges = [row for row in filled.get(f"{HISTORY}/overview").json()["rows"] if row["symbol"] == SYMBOL]
    assert [(row["timeframe"], row["earliest_us"], row["total_records"]) for row in ranges] == [("1h", T, 6)]
    quality = [row for row in filled.get(f"{HISTORY}/quality").json()["rows"] if row["symbol"] == SYMBOL]
    assert [(row["score"], row["missing_records"]) for row in quality] == [(99.5, 0)]
    logs = filled.get(f"{HISTORY}/logs?limit=500").json()["rows"]
    assert ("t1", "backfill", "done") in [(row["task_id"], row["task_name"], row["status"]) for row in logs]


@pytest.mark.parametrize("limit", [1, 2, 3, 7, 100])
def test_candles_come_in_pages_each_once(filled: Application, limit: int) -> None:
    """Also where a page ends between two sources of one bucket; bounds hold over all pages."""
    found: list[tuple[int, str]] = []
    path = f"{HISTORY}/candles?symbol={SYMBOL}&interval=1h&limit={limit}"
    cursor = ""
    while True:
        page = filled.get(path + cursor).json()
        place = page["columns"].index("source")
        found += [(row[0], row[place]) for row in page["rows"]]
        if page["next"] is None:
            break
        cursor = f"&cursor={page['next']}"
    expected = sorted([(T + n * HOUR_US, "binance") for n in range(6)] + [(T + 2 * HOUR_US, "okx")])
    assert found == expected
    part = filled.get(f"{path}&from={T + HOUR_US}&to={T + 2 * HOUR_US}").json()
    assert [row[0] for row in part["rows"]] == [T + HOUR_US]


def test_without_a_database_it_is_said(application: Application) -> None:
    """As a problem that tells to come back."""
    answer = application.get(f"{HISTORY}/overview")
    assert answer.status_code == 503
    assert "questdb.mode is off" in answer.json()["detail"]
    assert application.get(f"{HISTORY}/candles?symbol=X&cursor=bm9uc2Vuc2U").status_code == 422
