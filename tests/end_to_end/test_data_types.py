"""Every data type at once, with real parts: from the exchange to CSV, to QuestDB and to the proof."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from collector.streams import DATA_TYPES

SYMBOL = "BTC_USDT"
MARKET = ("funding", "open_interest", "liquidations", "tickers")
SETTINGS = """
[session]
record_open_klines = true
[feed]
poll_interval_s = 0.5
backoff_initial_s = 1.0
"""


def findings(report: dict[str, Any]) -> list[Any]:
    """Return everything that a verification found."""
    parts = [*report["streams"], *report["candles"]]
    return [*report["problems"], *(part["findings"] for part in parts if part["findings"]["count"])]


def wait_for_all(collector: Any, session_id: str, more: int = 0) -> None:
    """Wait until every data type has rows, and so many more than it has now."""
    rows = collector.session(session_id).get("rows", {})
    for stream in DATA_TYPES:
        collector.wait_rows(session_id, stream, rows.get(stream, 0) + max(1, more))


def truths(exchange: Any, rows: dict[str, list[dict[str, str]]]) -> dict[str, dict[int, tuple[str, ...]]]:
    """Return what happened in the market while there was a session, by its time in milliseconds."""
    times = [int(row["timestamp"]) for name in MARKET for row in rows[name]]
    first, last = min(times) - 2_000_000, max(times) + 2_000_000
    found: dict[str, dict[int, tuple[str, ...]]] = {"funding": {}, "liquidations": {}, "open_interest": {}}
    page = exchange.get(f"/admin/market?symbol={SYMBOL}&from_us={first}&to_us={last}")
    for stream, of_stream in found.items():
        of_stream.update({row[0]: tuple(map(str, row[1:])) for row in page[stream]})
    return found


@pytest.fixture
def collected(
    daemon: Callable[..., Any], server: Callable[..., Any]
) -> tuple[Any, Any, str, dict[str, list[dict[str, str]]]]:
    """A session of all data types that lost its connection, an answer, and its daemon, each once."""
    exchange = server("exchange", "--rate", "50", "--symbols", SYMBOL)
    collector = daemon(SETTINGS)
    collector.start()
    started = collector.ask(
        "start", exchange="sim", symbols=[SYMBOL], data_types=["all"], ws_url=exchange.ws_url,
        rest_url=exchange.rest_url,
    )  # fmt: skip
    session_id = str(started["session_id"])
    assert started["data_types"] == list(DATA_TYPES)
    wait_for_all(collector, session_id)
    exchange.post("/admin/faults?kind=drop")
    exchange.post("/admin/faults?kind=fail&path=/api/v3/openInterest")
    wait_for_all(collector, session_id, more=3)
    collector.kill()
    collector.start()
    collector.wait_state(session_id, "active")
    wait_for_all(collector, session_id, more=3)
    collector.ask("stop", every=True)
    return exchange, collector, session_id, {
        name: collector.rows(session_id, name, SYMBOL) for name in DATA_TYPES
    }  # fmt: skip


def test_every_data_type_is_what_the_exchange_says_and_both_stores_agree(
    collected: tuple[Any, Any, str, dict[str, list[dict[str, str]]]],
) -> None:
    """Rows equal the exchange's own record; what it sent is in the files; a hole is a row with its bounds; and verify
    finds nothing, whatever broke.
    """
    exchange, collector, session_id, rows = collected
    truth = truths(exchange, rows)
    for stream, of_stream in rows.items():
        assert [int(row["seq"]) for row in of_stream] == list(range(1, len(of_stream) + 1)), stream
    for row in rows["funding"]:
        mark, index, rate, next_ms = truth["funding"][int(row["timestamp"]) // 1000]
        assert (row["mark_price"], row["index_price"], row["funding_rate"]) == (mark, index, rate)
        assert int(row["next_funding"]) == int(next_ms) * 1000
    for row in rows["liquidations"]:
        assert truth["liquidations"][int(row["timestamp"]) // 1000] == (row["price"], row["volume"], row["side"])
    for row in rows["open_interest"]:
        assert truth["open_interest"][int(row["timestamp"]) // 1000] == (row["amount"],)
        assert row["source"] == "rest"
    for row in rows["tickers"]:
        assert float(row["bid"]) < float(row["ask"])
    for row in rows["klines"]:
        assert float(row["low"]) <= float(row["open"]) <= float(row["high"])

    missing = {
        "funding": sorted(at_ms * 1000 for at_ms in truth["funding"]),
        "liquidations": sorted(at_ms * 1000 for at_ms in truth["liquidations"]),
    }
    gaps = collector.rows(session_id, "gaps")
    for stream, times in missing.items():
        have = {int(row["timestamp"]) for row in rows[stream]}
        bounds = [
            (int(gap["from_time"]), int(gap["to_time"])) for gap in gaps if gap["stream"] == stream and gap["to_time"]
        ]
        first = min(int(row["timestamp"]) for row in rows["funding"])
        last = max(int(row["timestamp"]) for row in rows["funding"])
        for at_us in times:
            if first < at_us < last and at_us not in have:
                assert any(begin <= at_us <= end for begin, end in bounds), (stream, at_us, bounds)
    causes = {stream: {gap["cause"] for gap in gaps if gap["stream"] == stream} for stream in MARKET}
    assert all(found == {"disconnect", "restart"} for found in causes.values()), causes

    report = collector.ask("verify", session=session_id)
    assert findings(report) == []
    compared = {stream["stream"]: stream["equal_rows"] for stream in report["streams"] if stream["stream"] in MARKET}
    assert compared == {name: len(rows[name]) for name in MARKET}
