"""The status is what the stages say, put together without loss."""

from __future__ import annotations

from pathlib import Path

import pytest

from collector.candles.compare import CandleScore, Comparison, FieldDifference
from collector.candles.intervals import INTERVALS
from collector.describe import Rates, describe_database, describe_session, session_row
from collector.feeds.status import ConnectionStatus, FeedStatus, StreamStatus
from collector.session.session import SessionStatus as Facts
from collector.storage.delivery import ReplicatorStatus, SessionDelivery, State

NOW_US = 1_700_000_100_000_000


SCORE = CandleScore(
    "BTC_USDT",
    {"1m": 5},
    {"1m": 4},
    [Comparison("BTC_USDT", "1m", 60, "differs", (FieldDifference("close", "1", "2"),))],
)


def facts(**changes: object) -> Facts:
    """Return what a session says of itself."""
    given: dict[str, object] = {
        "session_id": "one", "exchange": "sim", "symbols": ("BTC_USDT",), "data_types": ("prices", "orderbook"),
        "label": "", "state": "active", "reason": "", "created_us": NOW_US - 60_000_000,
        "started_us": NOW_US - 59_000_000, "ended_us": None, "heartbeat_us": NOW_US, "duration_s": None,
        "received": 10, "written": 7, "pending": 2, "dropped": 1, "prices_count": 5, "orderbook_count": 2,
        "candles_count": 1, "gaps_count": 0, "open_gaps": 0, "errors_count": 0, "flushes": 3, "last_flush_s": 0.01,
        "longest_flush_s": 0.02, "candle_scores": [SCORE], **changes,
    }  # fmt: skip
    return Facts(**given)  # type: ignore[arg-type]


def stream(name: str, **changes: object) -> StreamStatus:
    """Return what a feed says of one subscription."""
    given: dict[str, object] = {
        "symbol": "BTC_USDT", "stream": name, "connection": 1, "state": "live", "received": 5, "duplicates": 1,
        "gaps": 0, "last_event_us": NOW_US - 2_000_000, "last_received_us": NOW_US - 1_500_000,
        "last_price": "61234.50" if name == "prices" else None, "latency_us": -1_270_000, "latency_mean_us": -1.0,
        "synchronised": True if name == "orderbook" else None, **changes,
    }  # fmt: skip
    return StreamStatus(**given)  # type: ignore[arg-type]


def described(*streams: StreamStatus, **changes: object):
    connection = ConnectionStatus(1, "ws://x", "open", NOW_US, 0, 9, 900, 0, 0.1, "")
    return describe_session(
        facts(**changes),
        directory=Path("data/session_one"),
        feed=FeedStatus("sim", [connection], list(streams), 1, 0, 0.0),
        delivery=SessionDelivery(acknowledged_rows=6, lag_rows=1, rejected_rows=0),
        file_rows={("prices", "BTC_USDT"): 5, ("orderbook", "BTC_USDT"): 2, ("ohlcv", "BTC_USDT"): 1},
        gaps=[],
        rates=Rates(),
        now_us=NOW_US,
    )


def test_received_is_written_plus_pending_plus_dropped() -> None:
    """The buffer's counters arrive as they are, so that their sum can be checked from outside."""
    buffer = described(stream("prices")).buffer
    assert buffer.received == buffer.written + buffer.pending + buffer.dropped == 10


def test_candles_that_could_not_be_compared_count_neither_way() -> None:
    """A score is of what was compared: unknown is not equal."""
    status = described(stream("prices"))
    assert (status.candles_compared, status.candles_different) == (5, 1)
    row = status.per_symbol[0]
    assert (row.symbol, row.candles_compared, row.candles_matching) == ("BTC_USDT", {"1m": 5}, {"1m": 4})
    (different,) = status.candle_differences
    assert (different.timestamp_us, different.fields) == (60, {"close": ("1", "2")})


def test_an_events_age_is_counted_from_its_receipt() -> None:
    """The exchange's clock and ours need not agree: with a skewed one, ages would be negative."""
    row = described(stream("prices"), stream("orderbook", last_received_us=NOW_US - 500_000)).per_symbol[0]
    assert row.last_event_age_s == pytest.approx(0.5)
    assert row.latency_us == -1_270_000


@pytest.mark.parametrize(
    ("prices", "book", "state"),
    [
        ("live", "live", "live"),
        ("live", "silent", "silent"),
        ("waiting", "live", "waiting"),
        ("silent", "rejected", "rejected"),
    ],
)
def test_a_symbol_is_in_the_worst_state_of_its_streams(prices: str, book: str, state: str) -> None:
    """One deaf subscription is not hidden behind another that delivers."""
    row = described(stream("prices", state=prices), stream("orderbook", state=book)).per_symbol[0]
    assert row.state == state


def test_a_rate_is_measured_over_the_window_and_not_since_the_start() -> None:
    """After a pause the rate falls to what is coming now."""
    rates = Rates()
    assert rates.per_s("prices", "A_B") == 0.0
    for second in range(30):
        rates.sample(float(second), {("prices", "A_B"): 100 * min(second, 10)})
    assert rates.per_s("prices", "A_B") == 0.0
    rates.sample(30.0, {("prices", "A_B"): 1500})
    assert rates.per_s("prices", "A_B") == pytest.approx(500 / 11, rel=0.15)


def test_a_database_that_is_still_starting_is_not_called_down() -> None:
    """In the seconds of a first start nothing is wrong yet."""
    common = {"mode": "embedded", "reason": "", "console_url": "", "pg_address": "", "pid": None, "now_us": NOW_US}
    down = ReplicatorStatus(state=State.DOWN, reason="refused")
    assert describe_database(replicator=down, starting=True, **common).state == "STARTING"  # type: ignore[arg-type]
    assert describe_database(replicator=down, starting=False, **common).state == "DOWN"  # type: ignore[arg-type]
    assert describe_database(replicator=None, starting=False, **common).state == "OFF"  # type: ignore[arg-type]


def test_the_sessions_row_counts_the_time_since_the_first_data() -> None:
    """A duration that runs from the start of waiting would flatter a session that waited long."""
    row = session_row(facts())
    assert row.duration_s == pytest.approx(59.0)
    assert row.records_collected == row.prices_count + row.orderbook_count
    assert row.error == ""
    assert session_row(facts(state="failed", reason="disk")).error == "disk"


def test_the_intervals_that_the_status_counts_are_the_aggregators() -> None:
    """Whoever reads candles_closed counts rows of all of these intervals."""
    assert list(INTERVALS) == ["1m", "5m", "15m", "1h", "4h", "1d"]
