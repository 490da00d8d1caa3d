"""What a daemon says about itself, and when it is not well."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from collector.status import (
    BufferStatus,
    DaemonStatus,
    QuestDBStatus,
    SessionStatus,
    SymbolStatus,
    unready_reasons,
)


def daemon(*sessions: SessionStatus, state: str = "LIVE", stopping: bool = False) -> DaemonStatus:
    return DaemonStatus(
        version="1",
        pid=1,
        started_us=0,
        uptime_s=1.0,
        data_dir="d",
        log_file="l",
        questdb=QuestDBStatus(mode="embedded", state=state, reason="because"),  # type: ignore[arg-type]
        sessions=sessions,
        stopping=stopping,
    )


def session(state: str = "active", **fields: Any) -> SessionStatus:
    return SessionStatus(
        session_id="s1",
        exchange="sim",
        state=state,  # type: ignore[arg-type]
        symbols=("BTC_USDT",),
        data_types=("prices",),
        directory="x",
        created_us=0,
        **fields,
    )


def test_a_daemon_that_does_what_it_shall_is_ready() -> None:
    """Nothing is wrong: no reason."""
    assert unready_reasons(daemon(session(), session("completed"))) == []


@pytest.mark.parametrize("state", ["DOWN", "CATCHUP", "STARTING", "OFF"])
def test_a_database_that_is_down_is_no_reason(state: str) -> None:
    """Rows go to CSV and reach it later."""
    assert unready_reasons(daemon(session(), state=state)) == []


@pytest.mark.parametrize(
    ("status", "reason"),
    [
        (daemon(stopping=True), "The daemon is stopping."),
        (daemon(session("degraded", reason="disk full")), "Session s1 is degraded: disk full"),
        (daemon(session("failed")), "Session s1 is failed: no reason known"),
        (daemon(state="FAILED"), "QuestDB is FAILED: because"),
        (daemon(state="SUSPENDED"), "QuestDB is SUSPENDED: because"),
        (
            daemon(session(per_symbol=(SymbolStatus(symbol="BTC_USDT", state="silent"), SymbolStatus(symbol="E_U")))),
            "Session s1 gets nothing of BTC_USDT.",
        ),
    ],
)
def test_each_trouble_is_a_sentence(status: DaemonStatus, reason: str) -> None:
    """A person reads what is wrong and where."""
    assert unready_reasons(status) == [reason]


def test_a_session_that_ended_is_not_blamed_for_silence() -> None:
    """Silence counts only while a session runs."""
    ended = session("completed", per_symbol=(SymbolStatus(symbol="BTC_USDT", state="silent"),))
    assert unready_reasons(daemon(ended)) == []
    assert not ended.is_live


def test_a_status_survives_the_way_over_the_socket() -> None:
    """JSON and back is the same; a field that a later daemon adds is ignored."""
    status = daemon(session(rows={"prices": 3}, buffer=BufferStatus(received=3, written=3)))
    fields = msgspec.json.decode(msgspec.json.encode(status))
    assert msgspec.convert({**fields, "later": 1}, DaemonStatus) == status
