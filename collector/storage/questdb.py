"""QuestDB over HTTP: ILP lines to ``/write``, questions to ``/exec``. Blocking; for one thread only.

Only HTTP acknowledges what it got. One request is one transaction: all of its rows are accepted or none. An
acknowledgement is not "applied" and not "on disk": ``storage/checks.py`` looks after that.
"""

from __future__ import annotations

import base64
import http.client
import json
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlencode

from collector.config import QuestDB
from collector.errors import DatabaseMisconfigured, DatabaseUnavailable

_MIN_THROUGHPUT = 100 * 1024  # bytes/s: a large request may take so much longer than the timeout
_MAX_ANSWER_BYTES = 16 * 1024 * 1024
_MAX_REASON = 500


@dataclass(frozen=True, slots=True)
class Acknowledged:
    """The server took the whole request."""


@dataclass(frozen=True, slots=True)
class Maybe:
    """Nobody knows whether the rows arrived; sending the same rows again is right (dedup absorbs what did arrive).

    ``too_slow`` says that a smaller request may get through where this one did not.
    """

    reason: str
    too_slow: bool = False


@dataclass(frozen=True, slots=True)
class Rejected:
    """The server took nothing, because of this line (counted from 1; 0 where it does not say which)."""

    line: int
    reason: str


Outcome = Acknowledged | Maybe | Rejected
Row = dict[str, object]


class Transport(Protocol):
    """The one seam to the server, so that another protocol can be added."""

    def send(self, table: str, body: bytes, rows: int) -> Outcome: ...

    def query(self, sql: str) -> list[Row]: ...

    def version(self) -> tuple[int, ...]: ...

    def close(self) -> None: ...

    def abort(self) -> None: ...


class HttpTransport:
    """One keep-alive connection to QuestDB's HTTP port.

    Args:
        timeout_s: how long the server may be silent; a large request gets the time that it takes at 100 kB/s on top.
    """

    def __init__(self, host: str, port: int, *, user: str = "", password: str = "", timeout_s: float = 5) -> None:
        self._host = host
        self._port = port
        self._timeout_s = timeout_s
        self._headers = {"User-Agent": "collector"}
        if user:
            token = base64.b64encode(f"{user}:{password}".encode()).decode()
            self._headers["Authorization"] = f"Basic {token}"
        self._connection: http.client.HTTPConnection | None = None

    @classmethod
    def from_config(cls, config: QuestDB) -> HttpTransport:
        """Make one as ``[questdb]`` says; the PG credentials count where no HTTP ones are given."""
        return cls(
            config.ilp_host,
            config.ilp_port,
            user=config.http_user or config.pg_user,
            password=(config.http_password if config.http_user else config.pg_password).get_secret_value(),
            timeout_s=config.request_timeout_s,
        )

    @property
    def address(self) -> str:
        """Return host and port, for messages."""
        return f"{self._host}:{self._port}"

    def send(self, table: str, body: bytes, rows: int) -> Outcome:  # noqa: ARG002 - other protocols need table and rows
        """Send whole ILP lines with timestamps in microseconds.

        Raises:
            DatabaseMisconfigured: what answers refuses the credentials, or is no QuestDB.
        """
        timeout_s = self._timeout_s + len(body) / _MIN_THROUGHPUT
        try:
            status, answer = self._request("POST", "/write?precision=u", body, timeout_s=timeout_s)
        except DatabaseUnavailable as error:
            return Maybe(error.message, too_slow=isinstance(error.__cause__, TimeoutError))
        if status == http.HTTPStatus.NO_CONTENT:
            return Acknowledged()
        if status == http.HTTPStatus.REQUEST_ENTITY_TOO_LARGE:
            return Maybe(self._refusal(status, answer), too_slow=True)
        if status == http.HTTPStatus.BAD_REQUEST:
            return _rejection(answer)
        self._refuse_configuration(status, answer)
        return Maybe(self._refusal(status, answer))

    def query(self, sql: str) -> list[Row]:
        """Ask ``/exec`` and return the rows, column name → value; a statement without a result gives none.

        Raises:
            DatabaseUnavailable: no answer, or not a whole one.
            DatabaseMisconfigured: the credentials are refused, or the statement is.
        """
        status, answer = self._request("GET", "/exec?" + urlencode({"query": sql}), timeout_s=self._timeout_s)
        if status == http.HTTPStatus.BAD_REQUEST:
            raise DatabaseMisconfigured(f"QuestDB at {self.address} refused {sql[:200]!r}: {_text(answer)}.")
        self._refuse_configuration(status, answer)
        try:
            parsed = json.loads(answer)
            names = [column["name"] for column in parsed.get("columns", ())]
            return [dict(zip(names, row, strict=True)) for row in parsed.get("dataset", ())]
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DatabaseUnavailable(self._refusal(status, answer)) from error

    def version(self) -> tuple[int, ...]:
        """Return the server's version as its ``/settings`` has it.

        Raises:
            DatabaseUnavailable: no answer.
            DatabaseMisconfigured: what answers is no QuestDB.
        """
        status, answer = self._request("GET", "/settings", timeout_s=self._timeout_s)
        if status >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
            raise DatabaseUnavailable(self._refusal(status, answer))
        try:
            release = json.loads(answer)["config"]["release.version"]
            return tuple(int(part) for part in release.split("-")[0].split("."))
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise DatabaseMisconfigured(
                f"What answers at {self.address} is no QuestDB (HTTP {status}, no version in /settings).",
                hint="Set QUESTDB_ILP_HOST and QUESTDB_ILP_PORT to its HTTP address.",
            ) from error

    def close(self) -> None:
        """Close the connection; the next request opens another."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def abort(self) -> None:
        """Break off the request that another thread is waiting for; it ends as a ``Maybe``."""
        connection = self._connection
        if connection is not None and connection.sock is not None:
            try:
                connection.sock.shutdown(socket.SHUT_RDWR)
            except OSError:
                return  # it is closed already

    def _request(self, method: str, path: str, body: bytes | None = None, *, timeout_s: float) -> tuple[int, bytes]:
        if self._connection is None:
            self._connection = http.client.HTTPConnection(self._host, self._port, timeout=self._timeout_s)
        try:
            if self._connection.sock is None:
                self._connection.connect()  # http.client turns Nagle's algorithm off itself
            self._connection.sock.settimeout(timeout_s)
            self._connection.request(method, path, body, self._headers)
            answer = self._connection.getresponse()
            content = answer.read(_MAX_ANSWER_BYTES + 1)
        except (OSError, http.client.HTTPException, ValueError) as error:
            self.close()
            what = f"{type(error).__name__}: {error}".rstrip(": ")
            raise DatabaseUnavailable(f"QuestDB at {self.address} did not answer ({what}).") from error
        if len(content) > _MAX_ANSWER_BYTES or not answer.isclosed():
            self.close()
        return answer.status, content

    def _refuse_configuration(self, status: int, answer: bytes) -> None:
        """Raise where no repetition of the request can help: credentials, address, a proxy's refusal."""
        if status in (http.HTTPStatus.UNAUTHORIZED, http.HTTPStatus.FORBIDDEN):
            raise DatabaseMisconfigured(
                f"QuestDB at {self.address} refuses the credentials (HTTP {status}).",
                hint="Set QUESTDB_HTTP_USER and QUESTDB_HTTP_PASSWORD.",
            )
        if status < http.HTTPStatus.INTERNAL_SERVER_ERROR and status not in _TRANSIENT:
            raise DatabaseMisconfigured(
                self._refusal(status, answer),
                hint="Set QUESTDB_ILP_HOST and QUESTDB_ILP_PORT to QuestDB's HTTP address.",
            )

    def _refusal(self, status: int, answer: bytes) -> str:
        return f"QuestDB at {self.address} answered HTTP {status}: {_text(answer)}."


_TRANSIENT = frozenset(
    {200, http.HTTPStatus.REQUEST_TIMEOUT, http.HTTPStatus.TOO_EARLY, http.HTTPStatus.TOO_MANY_REQUESTS}
)


def _rejection(answer: bytes) -> Rejected | Maybe:
    try:
        parsed = json.loads(answer)
        line, message = int(parsed.get("line", 0)), str(parsed["message"])
    except (ValueError, TypeError, KeyError, AttributeError):
        return Maybe(f"HTTP 400 that is not QuestDB's: {_text(answer)}")
    return Rejected(line, " ".join(message.split())[:_MAX_REASON])


def _text(answer: bytes) -> str:
    return " ".join(answer[:_MAX_REASON].decode("utf-8", "replace").split()).rstrip(".") or "nothing"


def quoted(values: Sequence[str]) -> str:
    """Return values as a list of SQL string literals."""
    return ", ".join("'" + value.replace("'", "''") + "'" for value in values)
