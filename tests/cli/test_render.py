"""What a person sees: numbers with their units, states, and tables that hold what was asked."""

from __future__ import annotations

import io
from typing import Any

import pytest
from rich.console import Console

from collector.cli import render
from collector.status import DaemonStatus, LinkStatus, QuestDBStatus, SessionStatus, SymbolStatus


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (None, "-"),
        (0, "0.0 s"),
        (4.25, "4.2 s"),
        (185.9, "3 m 05 s"),
        (7800, "2 h 10 m"),
        (442800, "5 d 03 h"),
        (59.94, "59.9 s"),
        (3600, "1 h 00 m"),
    ],
)
def test_a_length_of_time_is_shown_in_its_two_largest_units(seconds: float | None, text: str) -> None:
    """Short times have a digit after the point."""
    assert render.duration_text(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"),
    [(None, "-"), (0, "0 B"), (999, "999 B"), (1000, "1 kB"), (84_000_000, "84 MB"), (2e12, "2.0 TB")],
)
def test_bytes_are_shown_in_the_unit_that_suits_them(count: float | None, text: str) -> None:
    """Steps of a thousand."""
    assert render.bytes_text(count) == text


def test_times_are_utc_to_the_second() -> None:
    """And unknown ones a hyphen."""
    assert render.time_text(1_700_000_000_500_000) == "2023-11-14 22:13:20Z"
    assert render.time_text(None) == "-"


@pytest.mark.parametrize(("rate", "text"), [(0, "0.0"), (12.34, "12.3"), (1234.5, "1,234")])
def test_a_rate_has_a_digit_where_it_is_small(rate: float, text: str) -> None:
    """Large ones are whole."""
    assert render.rate_text(rate) == text


def test_an_age_says_ago() -> None:
    """Where there is one."""
    assert (render.age_text(0.3), render.age_text(None)) == ("0.3 s ago", "-")


def session(**fields: Any) -> SessionStatus:
    given: dict[str, Any] = {
        "session_id": "20261121-081500-sim-7f3a",
        "exchange": "sim",
        "state": "active",
        "symbols": ("BTC_USDT", "ETH_USDT"),
        "data_types": ("prices",),
        "directory": "data/session_x",
        "created_us": 1_700_000_000_000_000,
        "rows": {"prices": 1234567},
        "per_symbol": (SymbolStatus(symbol="BTC_USDT", state="live", last_price="60000.10", gaps=2, gaps_open=1),),
        "links": (LinkStatus(number=1, url="wss://x", state="open", since_us=0, last_error="was [closed]"),),
    }
    return SessionStatus(**{**given, **fields})


def daemon(*sessions: SessionStatus, **questdb: Any) -> DaemonStatus:
    return DaemonStatus(
        version="0.1",
        pid=7,
        started_us=0,
        uptime_s=61,
        data_dir="[data]",
        log_file="logs/collector.log",
        api_url="http://127.0.0.1:8780/",
        questdb=QuestDBStatus(**{"mode": "embedded", "state": "LIVE", **questdb}),
        sessions=sessions,
    )


def drawn(view: Any) -> str:
    screen = io.StringIO()
    Console(file=screen, width=200).print(view)
    return screen.getvalue()


def test_a_session_shows_its_symbols_connections_and_counts() -> None:
    """Price, gaps with those that are open, addresses, and text that looks like markup as it is."""
    shown = drawn(render.session_view(session(reason="disk full", duration_s=3600, label="[try]", flush_s=0.004)))
    for part in (
        "60000.10",
        "2 (1 open)",
        "1,234,567 prices",
        "was [closed]",
        "disk full",
        "for 1 h 00 m",
        "[try]",
        "4.0 ms",
    ):
        assert part in shown


def test_a_session_that_ended_says_when() -> None:
    """Instead of how long it shall last."""
    shown = drawn(render.session_view(session(ended_us=1_700_000_060_000_000, candles_compared=9, candles_different=1)))
    assert "ended 2023-11-14 22:14:20Z" in shown
    assert "9 compared with the exchange's, 1 different" in shown


def test_the_daemon_shows_its_replica_and_its_sessions() -> None:
    """State, lag and reason of the replica; a row per session."""
    shown = drawn(render.daemon_view(daemon(session(), state="DOWN", lag_rows=1500, lag_s=12.0, reason="refused")))
    for part in ("pid 7", "[data]", "DOWN, 1,500 rows (12.0 s) waiting, embedded: refused", "20261121-081500-sim-7f3a"):
        assert part in shown


def test_a_daemon_without_sessions_says_so() -> None:
    """No empty table."""
    shown = drawn(render.daemon_view(daemon(state="OFF", mode="off", reason="questdb.mode is off")))
    assert "No session runs." in shown
    assert "OFF: questdb.mode is off" in shown


def test_many_symbols_are_counted() -> None:
    """The list of sessions stays narrow."""
    shown = drawn(render.sessions_table([session(symbols=tuple(f"S{n}_USDT" for n in range(500)))]))
    assert "S2_USDT … 500 in all" in shown


def test_rejected_rows_are_shown() -> None:
    """Somebody must look at rejected.csv."""
    assert "3 rows rejected" in render.questdb_text(QuestDBStatus(mode="embedded", state="LIVE", rejected_rows=3)).plain


def test_plain_lines_name_the_exchange_in_each() -> None:
    """Nobody takes the simulated exchange for another."""
    lines = render.plain_lines(daemon(session()), session()).splitlines()
    assert lines[0].startswith("exchange=sim BTC_USDT live: price 60000.10")
    assert lines[-1].startswith("QuestDB LIVE, nothing waiting")


@pytest.mark.parametrize("terminal", [True, False])
def test_drawing_goes_on_until_nothing_is_seen(
    terminal: bool, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In place on a terminal, at the first interval; else as lines, at the second."""
    monkeypatch.setenv("FORCE_COLOR" if terminal else "NO_COLOR", "1")
    seen = iter(["one", "two", None])
    waited: list[float] = []
    render.draw_repeatedly(
        lambda: next(seen), draw=str, plain=lambda text: f"plain {text}", intervals_s=(0.5, 5.0), wait=waited.append
    )
    assert waited == ([0.5, 0.5] if terminal else [5.0, 5.0])
    out = capsys.readouterr().out
    assert ("plain two" in out) is not terminal
    assert "two" in out
