"""Who may ask: loopback's own names, pages of ours, and whoever holds the token.

A web page that a person visits can send requests to an open loopback port, under a name of its own (DNS rebinding) or
from its own origin; and every user of a machine reaches its loopback. So the ``Host`` must be loopback's, an ``Origin``
must be ours, and everything but health and metrics takes the token, which lies in a file that only its owner reads.
"""

from __future__ import annotations

import asyncio
import hmac
from collections.abc import Collection
from dataclasses import dataclass
from http.cookies import CookieError, SimpleCookie
from urllib.parse import parse_qs, urlsplit

from starlette.datastructures import Headers
from starlette.responses import HTMLResponse, RedirectResponse
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from collector.api.problems import send_problem

COOKIE = "collector_token"
OPEN_PATHS = frozenset({"/health", "/metrics"})
LOOPBACK = frozenset({"127.0.0.1", "::1", "localhost"})
_COOKIE_AGE_S = 30 * 86400
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

LOGIN_PAGE = """<!doctype html><html lang="en"><meta charset="utf-8"><title>collector</title>
<meta name="viewport" content="width=device-width, initial-scale=1">
<style>body{font:16px system-ui,sans-serif;background:#0d1117;color:#e6e9ee;display:grid;place-items:center;height:90vh}
form{background:#161b22;border:1px solid #2b323c;border-radius:10px;padding:28px;max-width:380px}
input,button{font:inherit;width:100%;box-sizing:border-box;padding:9px;margin-top:10px;border-radius:6px;
border:1px solid #3b4350;background:#0d1117;color:inherit}button{background:#3b6fd4;border:0;cursor:pointer}
p{color:#9aa4b2;line-height:1.45}code{color:#e6e9ee}</style>
<form method="get" action="/"><b>collector</b>
<p>This dashboard takes a key. <code>collector dashboard</code> prints an address that has it, and
<code>collector dashboard --token</code> the key alone.</p>
<label for="key">Key</label>
<input id="key" name="key" type="password" autocomplete="current-password" required autofocus>
<button>Open</button></form></html>
"""


@dataclass(slots=True)
class Refusals:
    """How many requests were refused because there was too much of something, since the process began."""

    connections: int = 0
    bodies: int = 0


class Guard:
    """The outermost layer: host, origin, token, size, time and number of requests.

    Args:
        token: what ``Authorization: Bearer`` must name; browsers have it in a cookie that scripts cannot read.
        max_body_bytes: how long a request's body may be.
        timeout_s: for how long a request may be sent; answers may stream for longer.
        max_connections: beyond so many open connections a request is answered with a 503.
        refusals: where is counted what was too much.

    ``connections`` are the server's, given once it was made.
    """

    def __init__(
        self,
        app: ASGIApp,
        *,
        token: str,
        hosts: frozenset[str] = frozenset(),
        max_body_bytes: int = 1_048_576,
        timeout_s: float = 30.0,
        max_connections: int = 256,
        refusals: Refusals | None = None,
    ) -> None:
        self.app = app
        self.connections: Collection[object] = ()
        self._max_connections = max_connections
        self._refusals = refusals or Refusals()
        self._token = token
        self._hosts = LOOPBACK | hosts
        self._max_body_bytes = max_body_bytes
        self._timeout_s = timeout_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, or refuse it."""
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        if len(self.connections) > self._max_connections:
            self._refusals.connections += 1
            await self._refuse(
                scope, receive, send, 503, f"More than {self._max_connections} connections are open.", ""
            )
            return
        headers = Headers(scope=scope)
        if scope["type"] == "http" and scope["method"] == "GET" and await self._let_in(scope, receive, send):
            return
        refusal = self._refusal(scope, headers)
        if refusal is not None and refusal[0] == 401 and "text/html" in headers.get("accept", ""):
            await HTMLResponse(LOGIN_PAGE, 401)(scope, receive, send)
            return
        if refusal is not None:
            await self._refuse(scope, receive, send, *refusal)
            return
        if scope["type"] == "websocket":
            await self.app(scope, receive, send)
            return
        length = headers.get("content-length", "0")
        if not length.isdecimal() or int(length) > self._max_body_bytes:
            self._refusals.bodies += 1
            await send_problem(scope, receive, send, 413, f"A request's body is at most {self._max_body_bytes} bytes.")
            return
        await self.app(scope, _Bounded(receive, self._max_body_bytes, self._timeout_s, self._refusals), send)

    async def _let_in(self, scope: Scope, receive: Receive, send: Send) -> bool:
        """Take the key of an address that a person opened into a cookie, and show the page without it."""
        query = parse_qs(scope["query_string"].decode("latin-1"))
        given = query.get("key", [""])[0]
        host = Headers(scope=scope).get("host", "")
        if scope["path"].startswith("/api/") or not given or _name_of(host) not in self._hosts:
            return False
        if not hmac.compare_digest(given.encode(), self._token.encode()):
            return False
        answer = RedirectResponse(scope["path"], 303)
        answer.set_cookie(COOKIE, self._token, httponly=True, samesite="strict", max_age=_COOKIE_AGE_S)
        await answer(scope, receive, send)
        return True

    def _refusal(self, scope: Scope, headers: Headers) -> tuple[int, str, str] | None:
        """Return status, sentence and hint where a request is not to be answered."""
        host = _name_of(headers.get("host", ""))
        if host not in self._hosts:
            return 421, "This server answers to loopback's names only.", "Use http://127.0.0.1 and its port."
        origin = headers.get("origin")
        changes = scope["type"] == "websocket" or scope["method"] not in _SAFE_METHODS
        if origin is not None and changes and urlsplit(origin).netloc.casefold() != headers["host"].casefold():
            return 403, "Requests of other sites' pages are refused.", ""
        if scope["path"] in OPEN_PATHS or self._is_known(headers):
            return None
        hint = "Send `Authorization: Bearer` with the token that `collector dashboard --token` prints."
        return 401, "This takes the API's token.", hint

    def _is_known(self, headers: Headers) -> bool:
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.casefold() != "bearer":
            given = _cookie(headers.get("cookie", ""))
        return hmac.compare_digest(given.strip().encode(), self._token.encode())

    async def _refuse(self, scope: Scope, receive: Receive, send: Send, status: int, detail: str, hint: str) -> None:
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": 1008, "reason": detail})
            return
        await send_problem(scope, receive, send, status, detail, hint=hint)


class _Bounded:
    """A request's body, as long and for as long as it may be."""

    def __init__(self, receive: Receive, max_bytes: int, timeout_s: float, refusals: Refusals) -> None:
        self._receive = receive
        self._refusals = refusals
        self._left = max_bytes
        self._timeout_s = timeout_s
        self._complete = False

    async def __call__(self) -> Message:
        if self._complete:  # only the end of the connection can come now, and it may take its time
            return await self._receive()
        try:
            async with asyncio.timeout(self._timeout_s):
                message = await self._receive()
        except TimeoutError:
            return {"type": "http.disconnect"}
        self._left -= len(message.get("body", b""))
        if self._left < 0:
            self._refusals.bodies += 1
            return {"type": "http.disconnect"}
        self._complete = not message.get("more_body", False)
        return message


def _name_of(host: str) -> str:
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:
        return ""


def _cookie(header: str) -> str:
    try:
        found = SimpleCookie(header).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found is not None else ""
