"""Errors as RFC 9457 problem details: one sentence, what to do, and a status that says whose fault it is."""

from __future__ import annotations

from http import HTTPStatus
from typing import Any

import msgspec
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException
from starlette.types import Receive, Scope, Send

from collector import errors
from collector.errors import CollectorError

PROBLEM_TYPE = "application/problem+json"

# The first that fits counts: subclasses stand before their parents.
_STATUS: tuple[tuple[type[CollectorError], int], ...] = (
    (errors.SessionNotFound, 404),
    (errors.BacktestNotFound, 404),
    (errors.UsageError, 422),
    (errors.DaemonNotRunning, 503),
    (errors.DatabaseUnavailable, 503),
    (errors.DatabaseMisconfigured, 503),
    (errors.ExchangeRefused, 502),
    (errors.ConnectionLost, 502),
)


class Problem(BaseModel):
    """What every error answer holds (RFC 9457)."""

    type: str = Field("about:blank", examples=["about:blank"])
    title: str = Field(examples=["Not Found"])
    status: int = Field(examples=[404])
    detail: str = Field("", examples=["There is no session 'x' in data."])
    hint: str = Field("", examples=["See `collector sessions`."])


def problem(
    status: int, detail: str = "", *, hint: str = "", headers: dict[str, str] | None = None, **more: Any
) -> Response:
    """Return an error answer. ``more`` are members of its own that a kind of problem has."""
    body = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "hint": hint,
        **more,
    }
    return Response(msgspec.json.encode(body), status, headers, media_type=PROBLEM_TYPE)


def problem_of(error: CollectorError) -> Response:
    """Return the answer for an error of ours."""
    status = next((status for kind, status in _STATUS if isinstance(error, kind)), 500)
    headers = {"Retry-After": "5"} if status == HTTPStatus.SERVICE_UNAVAILABLE else None
    return problem(status, error.message, hint=error.hint, headers=headers)


async def send_problem(scope: Scope, receive: Receive, send: Send, status: int, detail: str, *, hint: str = "") -> None:
    """Answer with a problem from below the application (a middleware)."""
    headers = {"WWW-Authenticate": "Bearer"} if status == HTTPStatus.UNAUTHORIZED else None
    await problem(status, detail, hint=hint, headers=headers)(scope, receive, send)


def answer_with_problems(app: FastAPI) -> None:
    """Have every error of an application answered as a problem."""

    @app.exception_handler(CollectorError)
    async def ours(_: Request, error: CollectorError) -> Response:
        return problem_of(error)

    @app.exception_handler(HTTPException)
    async def of_the_framework(_: Request, error: HTTPException) -> Response:
        detail = error.detail if error.detail != HTTPStatus(error.status_code).phrase else ""
        return problem(error.status_code, detail, headers=dict(error.headers or {}))

    @app.exception_handler(RequestValidationError)
    async def wrong_request(_: Request, error: RequestValidationError) -> Response:
        found = [{"where": ".".join(map(str, one["loc"])), "what": str(one["msg"])} for one in error.errors()]
        first = found[0] if found else {"where": "request", "what": "cannot be read"}
        return problem(
            422, f"{first['where']}: {first['what']}.", hint="The OpenAPI document says what is taken.", errors=found
        )

    @app.exception_handler(Exception)
    async def ours_by_mistake(_: Request, error: Exception) -> Response:
        return problem(500, f"The server failed: {type(error).__name__}.", hint="Its log has the whole story.")


RESPONSES: dict[int | str, dict[str, Any]] = {
    status: {
        "description": HTTPStatus(status).phrase,
        "content": {PROBLEM_TYPE: {"schema": Problem.model_json_schema()}},
    }
    for status in (400, 401, 403, 404, 405, 413, 421, 422, 429, 500, 502, 503)
}
"""What every route may answer besides its result, for the OpenAPI document."""
