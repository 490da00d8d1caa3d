"""Every route against the API's own OpenAPI document, with whatever schemathesis can think of.

What it thinks of is the same in each run; the daemon behind the API refuses to start or stop anything.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Iterator
from typing import Any

import pytest
import schemathesis
import structlog
from hypothesis import HealthCheck, given, settings
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_schema_conformance,
    status_code_conformance,
)

from collector.api.server import ApiServer
from collector.api.token import ensure_token
from collector.config import Config
from collector.control_server import ControlServer
from collector.errors import UsageError
from collector.session.manifest import FileRecord
from collector.streams import PRICES

from .conftest import daemon_status, store_session

BOUND_S = 120
EXAMPLES = 30
WITHOUT_DATABASE = "/api/data-collection/history/"  # there is none here, and a 503 says so, as the document does
CHECKS = (not_a_server_error, status_code_conformance, content_type_conformance, response_schema_conformance)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, str]]:
    """Run the API's process, and a control socket that answers as a daemon does; return address and token."""
    data_dir = tmp_path_factory.mktemp("served") / "data"
    data_dir.mkdir()
    directory = store_session(
        data_dir, "s1", files=[FileRecord("prices", "BTC_USDT", "BTC_USDT/prices.csv", rows=2, next_seq=3)]
    )
    (directory / "BTC_USDT").mkdir()
    lines = "".join(f"{n},1.5,2,3,buy,{n},{n},{n},ws,,\n" for n in (1, 2))
    (directory / "BTC_USDT" / "prices.csv").write_text(PRICES.header + lines, encoding="utf-8")
    config = Config.model_validate(
        {"daemon": {"data_dir": str(data_dir)}, "questdb": {"mode": "off"}, "api": {"port": _free_port()}}
    )
    ready, done = threading.Event(), threading.Event()
    found: list[str] = []

    async def refuse(_: object, __: object) -> None:
        raise UsageError("Nothing is started or stopped here.")

    async def status(_: object, __: object) -> object:
        return daemon_status()

    async def serve() -> None:
        control = ControlServer(
            data_dir, {"status": status, "start": refuse, "stop": refuse}, log=structlog.get_logger()
        )
        await control.start()
        server = ApiServer(config, log=structlog.get_logger())
        async with asyncio.TaskGroup() as tasks:
            await server.start(tasks)
            await server.ready.wait()
            found.append(server.url)
            ready.set()
            await asyncio.to_thread(done.wait)
            await server.stop()
        await control.stop()

    thread = threading.Thread(target=asyncio.run, args=(serve(),))
    thread.start()
    assert ready.wait(BOUND_S)
    yield found[0].rstrip("/"), ensure_token(data_dir)
    done.set()
    thread.join(BOUND_S)


def _free_port() -> int:
    import socket

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


@pytest.mark.parametrize("method", ["GET", "POST"])
def test_every_answer_is_as_the_document_says(served: tuple[str, str], method: str) -> None:
    """No server error, no status, type or body that is not in the document."""
    url, token = served
    headers = {"Authorization": f"Bearer {token}"}
    schema = schemathesis.openapi.from_url(f"{url}/api/openapi.json", headers=headers)
    tried = []
    for result in schema.get_all_operations():
        operation = result.ok()
        if operation.method.upper() == method:
            tried.append(operation.label)

            @given(case=operation.as_strategy())
            @settings(max_examples=EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck), derandomize=True)
            def ask(case: Any) -> None:
                if len(repr(case.query)) % 2 and "session_id" in (case.path_parameters or {}):
                    case.path_parameters["session_id"] = "s1"  # half of the questions are of a session that there is
                checks = list(CHECKS[1:] if case.path.startswith(WITHOUT_DATABASE) else CHECKS)
                case.call_and_validate(base_url=url, headers=headers, checks=checks, timeout=BOUND_S)

            ask()
    assert f"{method} /api/data-collection/sessions" in tried
