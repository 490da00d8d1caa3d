"""The REST API: who is answered, health with its reasons, metrics, sessions, and errors that say what to do."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from collector.api.context import Turns
from collector.errors import UnknownName
from collector.events import Gap
from collector.session.gaps import GapLedger, Repair
from collector.session.rows import format_gap
from collector.status import SessionStatus, SymbolStatus
from collector.streams import GAPS

from .conftest import Application, daemon_status, store_session

SESSIONS = "/api/data-collection/sessions"


def test_a_daemon_that_is_well_answers_200(application: Application) -> None:
    """Ready, without reasons, and without a token: monitors have none."""
    answer = application.get("/health", headers={})
    assert answer.status_code == 200
    assert answer.json()["ready"] is True
    assert answer.json()["reasons"] == []


def test_a_daemon_that_is_not_well_answers_503_with_the_reasons(application: Application) -> None:
    """A monitor sees that, a person reads why."""
    application.status = daemon_status(stopping=True)
    answer = application.get("/health")
    assert answer.status_code == 503
    assert answer.json()["reasons"] == ["The daemon is stopping."]


def test_a_daemon_that_does_not_answer_is_not_live(application: Application) -> None:
    """The API's process outlives what it tells of."""
    application.status = None
    answer = application.get("/health")
    assert answer.status_code == 503
    assert answer.json()["live"] is False
    assert application.get("/metrics").status_code == 503


def test_the_metrics_are_prometheus_text(application: Application) -> None:
    """The page is what Prometheus reads."""
    answer = application.get("/metrics", headers={})
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "collector_uptime_seconds 5.0" in answer.text


@pytest.mark.parametrize("host", ["127.0.0.1:8780", "localhost", "LOCALHOST:1", "[::1]:8780"])
def test_loopback_names_are_answered(application: Application, host: str) -> None:
    """Whatever loopback is called."""
    assert application.get("/health", host=host).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "", "localhost.evil:80", "[", "127.0.0.1@evil"]
)
def test_another_host_is_refused(application: Application, host: str) -> None:
    """A web page that points a name of its own at loopback gets nothing (DNS rebinding)."""
    for path in ("/", "/health", "/metrics", SESSIONS):
        assert application.get(path, host=host).status_code == 421


@pytest.mark.parametrize(
    "headers", [{}, {"authorization": "Bearer wrong"}, {"authorization": "Basic dDp0"}, {"cookie": "collector_token=x"}]
)
@pytest.mark.parametrize("path", [SESSIONS, "/api/openapi.json", "/nothing"])
def test_without_the_token_nothing_is_told(application: Application, path: str, headers: dict[str, str]) -> None:
    """Every user of the machine reaches its loopback."""
    answer = application.get(path, headers=headers)
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert "collector dashboard --token" in answer.json()["hint"]


def test_a_browser_may_have_the_token_in_a_cookie(application: Application) -> None:
    """Which no script can read, and no other site sends."""
    assert application.get(SESSIONS, headers={"cookie": "a=b; collector_token=t0ken-of-the-test"}).status_code == 200


def test_another_sites_page_cannot_change_anything(application: Application) -> None:
    """Even where a browser would send the token along."""
    store_session(application.data_dir, "s1")
    headers = {"authorization": "Bearer t0ken-of-the-test", "origin": "http://evil.example"}
    answer = application.post(f"{SESSIONS}/s1/stop", headers=headers)
    assert answer.status_code == 403
    assert application.asked == []


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", ["/health", "/metrics", f"{SESSIONS}/s1"])
def test_reading_changes_nothing(application: Application, method: str, path: str) -> None:
    """What reads has no other method."""
    answer: httpx.Response = application.run(lambda client: client.request(method, path))
    assert answer.status_code == 405
    assert answer.headers["content-type"] == "application/problem+json"


def test_sessions_come_newest_first_and_in_pages(application: Application) -> None:
    """Each once, in whatever pages they are read; filters hold in all of them."""
    for number in range(7):
        store_session(
            application.data_dir,
            f"s{number}",
            created_us=number,
            exchange="okx" if number % 2 else "sim",
            label=f"n{number}",
        )

    async def pages(client: httpx.AsyncClient) -> list[str]:
        found, cursor = [], None
        while True:
            query = {"limit": "2"} | ({"cursor": cursor} if cursor else {})
            page = (await client.get(SESSIONS, params=query)).json()
            assert page["total"] == 7
            found += [one["session_id"] for one in page["sessions"]]
            cursor = page["next"]
            if cursor is None:
                return found

    assert application.run(pages) == ["s6", "s5", "s4", "s3", "s2", "s1", "s0"]
    chosen = application.get(f"{SESSIONS}?exchange=okx&search=N3").json()
    assert [one["session_id"] for one in chosen["sessions"]] == ["s3"]
    assert application.get(f"{SESSIONS}?cursor=bm9uc2Vuc2U").status_code == 422


def test_what_runs_is_told_by_the_daemon(application: Application) -> None:
    """Its manifest is older than what the daemon says now."""
    store_session(application.data_dir, "s1", state="active", ended_us=None)
    running = SessionStatus(
        session_id="s1", exchange="sim", state="degraded", reason="the disk is full", symbols=("BTC_USDT",),
        data_types=("prices",), directory="d", created_us=1_000_000, rows={"prices": 99},
        per_symbol=(SymbolStatus(symbol="BTC_USDT"),),
    )  # fmt: skip
    application.status = daemon_status(sessions=(running,))
    found = application.get(f"{SESSIONS}/s1").json()
    assert found["summary"]["state"] == "degraded"
    assert found["summary"]["rows"] == {"prices": 99}
    assert found["status"]["reason"] == "the disk is full"
    assert found["manifest"]["state"] == "active"


@pytest.mark.parametrize("session_id", ["s2", "..", "%2e%2e%2fetc", "a%00b", "x" * 300])
def test_a_session_that_is_not_there_is_404_with_a_hint(application: Application, session_id: str) -> None:
    """Whatever the id looks like, nothing outside the data directory is read."""
    store_session(application.data_dir, "s1")
    answer = application.get(f"{SESSIONS}/{session_id}/quality")
    assert answer.status_code == 404
    if session_id == "s2":
        assert answer.json()["hint"] == "Did you mean s1?"


def test_gaps_and_quality_say_what_the_ledger_says(application: Application) -> None:
    """Half an hour of an hour is missing, in a hole of 500 trades of which 100 were repaired."""
    directory = store_session(application.data_dir, "s1", created_us=0, started_us=0, ended_us=3_600_000_000)
    ledger = GapLedger()
    ledger.record(Gap("BTC_USDT", "prices", "disconnect", 0, 1_800_000_000, 1, 500, 500), 5)
    ledger.repair(Repair("BTC_USDT", got=[(1, 100)]))
    rows = [format_gap(entry, seq) for seq, entry in enumerate(ledger.entries(), 1)]
    (directory / "gaps.csv").write_bytes(GAPS.header.encode() + b"".join(rows))
    gaps = application.get(f"{SESSIONS}/s1/gaps?only_open=true").json()
    assert gaps["total"] == 1
    assert (gaps["gaps"][0]["from_id"], gaps["gaps"][0]["to_id"], gaps["gaps"][0]["state"]) == (101, 500, "open")
    quality = application.get(f"{SESSIONS}/s1/quality").json()
    (symbol,) = quality["symbols"]
    assert symbol["coverage"] == 0.5
    assert symbol["missing_rows"] == 400
    assert symbol["causes"] == {"disconnect": 1}
    assert [(hour["hour_us"], hour["coverage"]) for hour in quality["hours"]] == [(0, 0.5)]


def test_a_session_is_started_and_stopped_by_the_daemon(application: Application) -> None:
    """What is asked goes over the control socket; the answer is the session's row."""
    store_session(application.data_dir, "new", state="active")
    status = SessionStatus(
        session_id="new", exchange="sim", state="active", symbols=("BTC_USDT",), data_types=("prices",), directory="d",
        created_us=1_000_000,
    )  # fmt: skip
    application.answers = {"start": status, "stop": [status]}
    answer = application.post(SESSIONS, {"exchange": "sim", "symbols": ["BTC_USDT"], "duration_s": 60})
    assert answer.status_code == 201
    assert answer.json()["session_id"] == "new"
    assert application.post(f"{SESSIONS}/new/stop").status_code == 200
    (started, arguments), (stopped, who) = application.asked
    assert (started, arguments["symbols"], arguments["duration_s"]) == ("start", ["BTC_USDT"], 60)
    assert (stopped, who) == ("stop", {"sessions": ["new"]})


@pytest.mark.parametrize(
    "order",
    [
        {}, {"exchange": "sim"}, {"exchange": "sim", "symbols": []}, {"exchange": "sim", "symbols": ["A_B"], "more": 1},
        {"exchange": "sim", "symbols": ["A_B"], "duration_s": -1},
        {"exchange": "sim", "symbols": ["A_B"], "session_id": "../x"},
        [1], "x", None,
    ],
)  # fmt: skip
def test_a_wrong_order_is_refused_before_the_daemon_hears_of_it(application: Application, order: Any) -> None:
    """With what is wrong about it."""
    answer = application.post(SESSIONS, order)
    assert answer.status_code == 422
    assert answer.json()["errors"]
    assert application.asked == []


def test_what_the_daemon_refuses_is_a_problem_with_its_hint(application: Application) -> None:
    """The nearest name, as on the command line."""
    application.answers = {"start": UnknownName("symbol on sim", "BTC_USD", ["BTC_USDT"])}
    answer = application.post(SESSIONS, {"exchange": "sim", "symbols": ["BTC_USD"]})
    assert answer.status_code == 422
    assert "BTC_USDT" in answer.json()["hint"]


def test_without_a_daemon_reading_goes_on_and_starting_says_what_to_do(application: Application) -> None:
    """What is on disk needs no daemon."""
    store_session(application.data_dir, "s1")
    application.status = None
    assert application.get(SESSIONS).json()["total"] == 1
    answer = application.post(SESSIONS, {"exchange": "sim", "symbols": ["BTC_USDT"]})
    assert answer.status_code == 503
    assert "collector up" in answer.json()["hint"]


def test_a_body_that_is_too_long_is_refused(application: Application) -> None:
    """With or without saying how long it is."""
    long = b"x" * (application.config.api.max_body_bytes + 1)

    async def chunks() -> Any:
        for _ in range(20):
            yield long[:100_000]

    async def post_and_count(client: httpx.AsyncClient) -> tuple[int, str]:
        status = (await client.post(SESSIONS, content=long)).status_code
        await client.post(SESSIONS, content=chunks())
        return status, (await client.get("/metrics")).text

    status, metrics = application.run(post_and_count)
    assert status == 413
    assert "collector_api_refused_bodies_total 2.0" in metrics
    answer = application.run(lambda client: client.post(SESSIONS, content=chunks()))
    assert answer.status_code in (400, 422)
    assert application.asked == []


def test_the_openapi_document_names_every_route(application: Application) -> None:
    """With the errors that each may answer."""
    document = application.get("/api/openapi.json").json()
    assert {SESSIONS, f"{SESSIONS}/{{session_id}}/stop", "/health"} <= set(document["paths"])
    assert "application/problem+json" in document["paths"][SESSIONS]["get"]["responses"]["422"]["content"]


def test_answers_that_have_to_wait_for_their_turn_are_counted() -> None:
    """The first takes its turn at once."""

    async def scenario() -> None:
        turns = Turns(1)
        async with turns:
            waiting = asyncio.ensure_future(turns.acquire())
            await asyncio.sleep(0)
            assert (turns.delayed, waiting.done()) == (1, False)
        await waiting

    asyncio.run(scenario())
