"""The metrics: every one documented by its help, and read from the status."""

from __future__ import annotations

import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from collector.metrics import METRICS, exposition
from collector.status import (
    BufferStatus,
    DaemonStatus,
    LinkStatus,
    QuestDBStatus,
    SessionStatus,
    SymbolStatus,
)

STATUS = DaemonStatus(
    version="1",
    pid=1,
    started_us=0,
    uptime_s=12.5,
    data_dir="d",
    log_file="l",
    memory_bytes=80_000_000,
    disk_free_bytes=7,
    questdb=QuestDBStatus(mode="embedded", state="CATCHUP", lag_rows=5, resent_rows=2, requests=11, rewinds=1),
    open_files=40,
    open_files_max=1024,
    log_dropped_records=9,
    control_refused_connections=3,
    control_refused_commands=4,
    api_refused_connections=5,
    api_refused_bodies=6,
    api_delayed_streams=12,
    ended_compressed_files=7,
    ended_released_rows=8,
    sessions=(
        SessionStatus(
            session_id="s1",
            exchange="sim",
            state="active",
            symbols=("BTC_USDT",),
            data_types=("prices",),
            directory="x",
            created_us=0,
            rows={"prices": 10, "ohlcv": 1},
            flush_s=0.002,
            rotations=21,
            compressed_files=22,
            released_rows=23,
            csv_open_files=24,
            csv_files_closed_early=25,
            rest_requests=26,
            rest_refused=27,
            rest_oversized=28,
            repaired_rows=29,
            repair_requests=30,
            candles_compared=34,
            candles_different=33,
            buffer=BufferStatus(received=12, written=10, pending=1, dropped=1),
            per_symbol=(SymbolStatus(symbol="BTC_USDT", last_event_age_s=0.3, gaps=1), SymbolStatus(symbol="ETH_USDT")),
            links=(
                LinkStatus(number=1, url="ws://x", state="open", since_us=0, reconnects=3, oversized=31, slowed=32),
            ),
        ),
    ),
)


def samples(status: DaemonStatus = STATUS) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    text = exposition(lambda: status).decode()
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


SESSION = (("exchange", "sim"), ("session", "s1"))


@pytest.mark.parametrize(
    ("name", "labels", "value"),
    [
        ("collector_ready", (), 1.0),
        ("collector_uptime_seconds", (), 12.5),
        ("collector_rows_total", (*SESSION, ("stream", "prices")), 10.0),
        ("collector_session_state", (*SESSION, ("state", "active")), 1.0),
        ("collector_buffer_dropped_rows_total", SESSION, 1.0),
        ("collector_symbol_last_event_age_seconds", (*SESSION, ("symbol", "BTC_USDT")), 0.3),
        ("collector_connection_reconnects_total", (("connection", "1"), *SESSION), 3.0),
        ("collector_connection_open", (("connection", "1"), *SESSION), 1.0),
        ("collector_replica_state", (("state", "CATCHUP"),), 1.0),
        ("collector_replica_lag_rows", (), 5.0),
        ("collector_replica_requests_total", (), 11.0),
        ("collector_replica_rewinds_total", (), 1.0),
        ("collector_open_files", (), 40.0),
        ("collector_open_files_max", (), 1024.0),
        ("collector_log_dropped_records_total", (), 9.0),
        ("collector_control_refused_connections_total", (), 3.0),
        ("collector_control_refused_commands_total", (), 4.0),
        ("collector_api_refused_connections_total", (), 5.0),
        ("collector_api_refused_bodies_total", (), 6.0),
        ("collector_api_delayed_streams_total", (), 12.0),
        ("collector_ended_compressed_files_total", (), 7.0),
        ("collector_ended_released_rows_total", (), 8.0),
        ("collector_csv_rotations_total", SESSION, 21.0),
        ("collector_csv_compressed_files_total", SESSION, 22.0),
        ("collector_csv_released_rows_total", SESSION, 23.0),
        ("collector_csv_open_files", SESSION, 24.0),
        ("collector_csv_files_closed_early_total", SESSION, 25.0),
        ("collector_rest_requests_total", SESSION, 26.0),
        ("collector_rest_refused_total", SESSION, 27.0),
        ("collector_repair_rows_total", SESSION, 29.0),
        ("collector_repair_requests_total", SESSION, 30.0),
        ("collector_candles_compared", SESSION, 34.0),
        ("collector_candles_different", SESSION, 33.0),
        ("collector_rest_oversized_total", SESSION, 28.0),
        ("collector_connection_oversized_total", (("connection", "1"), *SESSION), 31.0),
        ("collector_connection_slowed_total", (("connection", "1"), *SESSION), 32.0),
    ],
)
def test_a_metric_says_what_the_status_says(name: str, labels: tuple[tuple[str, str], ...], value: float) -> None:
    """Each value comes from the status, under its labels."""
    assert samples()[name, labels] == value


def test_the_buffer_adds_up_on_the_metrics_page() -> None:
    """received = written + pending + dropped can be checked from outside."""
    found = samples()
    received, written, dropped = (
        found[f"collector_buffer_{word}_rows_total", SESSION] for word in ("received", "written", "dropped")
    )
    assert received == written + dropped + found["collector_buffer_pending_rows", SESSION]


def test_what_is_not_known_is_not_shown() -> None:
    """A symbol without an event has no age."""
    labels = (*SESSION, ("symbol", "ETH_USDT"))
    assert ("collector_symbol_last_event_age_seconds", labels) not in samples()


@pytest.mark.parametrize("metric", METRICS, ids=[metric.name for metric in METRICS])
def test_a_metric_is_named_and_explained_as_prometheus_wants(metric: object) -> None:
    """Counters end in _total, units are base units, the help is a sentence."""
    name, kind, text = metric.name, metric.kind, metric.help  # type: ignore[attr-defined]
    assert re.fullmatch(r"collector_[a-z_]+", name)
    assert name.endswith("_total") is (kind == "counter")
    assert text.endswith(".")
    assert not re.search(r"_(ms|us|kb|mb)(_|$)", name)


def test_no_metric_occurs_twice() -> None:
    """A name means one thing."""
    names = [metric.name for metric in METRICS]
    assert len(set(names)) == len(names)
