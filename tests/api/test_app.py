"""The REST API: health with its reasons, metrics, and nobody from elsewhere."""

from __future__ import annotations

import asyncio
from typing import Any

import httpx
import pytest

from collector.api.app import create_app
from collector.status import DaemonStatus, QuestDBStatus


def status(**fields: Any) -> DaemonStatus:
    return DaemonStatus(
        version="1.2.3",
        pid=1,
        started_us=0,
        uptime_s=5.0,
        data_dir="d",
        log_file="l",
        questdb=QuestDBStatus(mode="embedded", state="LIVE"),
        **fields,
    )


def get(
    path: str, now: DaemonStatus | None = None, *, host: str = "127.0.0.1:8780", method: str = "GET"
) -> httpx.Response:
    """Ask the application itself, without a socket between."""

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(app=create_app(lambda: now or status()))
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.request(method, path, headers={"host": host})

    return asyncio.run(ask())


def test_a_daemon_that_is_well_answers_200() -> None:
    """Ready, without reasons."""
    answer = get("/health")
    assert answer.status_code == 200
    assert answer.json()["ready"] is True
    assert answer.json()["reasons"] == []


def test_a_daemon_that_is_not_well_answers_503_with_the_reasons() -> None:
    """A monitor sees that, a person reads why."""
    answer = get("/health", status(stopping=True))
    assert answer.status_code == 503
    assert answer.json()["reasons"] == ["The daemon is stopping."]


def test_the_metrics_are_prometheus_text() -> None:
    """The page is what Prometheus reads."""
    answer = get("/metrics")
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "collector_uptime_seconds 5.0" in answer.text


def test_the_root_names_the_paths() -> None:
    """Somebody who opens the address learns what there is."""
    assert get("/").json()["paths"] == ["/health", "/metrics"]


@pytest.mark.parametrize("host", ["127.0.0.1:8780", "localhost", "LOCALHOST:1", "[::1]:8780"])
def test_loopback_names_are_answered(host: str) -> None:
    """Whatever loopback is called."""
    assert get("/health", host=host).status_code == 200


@pytest.mark.parametrize(
    "host", ["evil.example", "127.0.0.1.evil.example", "", "localhost.evil:80", "[", "127.0.0.1@evil"]
)
def test_another_host_is_refused(host: str) -> None:
    """A web page that points a name of its own at loopback gets nothing (DNS rebinding)."""
    for path in ("/", "/health", "/metrics", "/nothing"):
        assert get(path, host=host).status_code == 421


@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH"])
@pytest.mark.parametrize("path", ["/", "/health", "/metrics"])
def test_nothing_can_be_changed(method: str, path: str) -> None:
    """There is only reading."""
    assert get(path, method=method).status_code == 405


@pytest.mark.parametrize("path", ["/docs", "/openapi.json", "/../etc/passwd", "/metrics/x"])
def test_nothing_else_is_served(path: str) -> None:
    """No documentation that fetches scripts from elsewhere, no files."""
    assert get(path).status_code == 404
