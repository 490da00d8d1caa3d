"""Query results out of QuestDB as Parquet, over HTTP: binary, so doubles and times come to the last bit."""

from __future__ import annotations

import base64
import http.client
import random
import threading
import time
from urllib.parse import urlencode

from collector.config import QuestDB
from collector.errors import DatabaseMisconfigured, DatabaseUnavailable

_MAGIC = b"PAR1"
_MAX_REASON = 300
_AT_ONCE = threading.BoundedSemaphore(2)
_BUSY_S = (0.02, 0.2)


def export_parquet(settings: QuestDB, query: str, *, timeout_s: float = 60) -> bytes:
    """Return a query's rows as the content of a Parquet file; for results that fit into memory.

    Args:
        settings: where QuestDB answers and as whom (``embedded.resolve_settings`` gives them).
        query: a SELECT of ours, never a person's text.
        timeout_s: how long the server may be silent, or busy with others' exports, in seconds.

    A server refuses more exports at a time than it has workers for (two, where it has two cores) with HTTP 429: this
    process asks for no more than two, and waits for a turn where others have them.

    Raises:
        DatabaseUnavailable: no answer, not a whole one, or no turn in time.
        DatabaseMisconfigured: the credentials or the query are refused, or the server is too old to export.
    """
    address = f"{settings.ilp_host}:{settings.ilp_port}"
    deadline_s = time.monotonic() + timeout_s
    while True:
        with _AT_ONCE:
            status, content = _ask(settings, query, timeout_s)
        if status != http.HTTPStatus.TOO_MANY_REQUESTS:
            break
        if time.monotonic() > deadline_s:
            raise DatabaseUnavailable(f"QuestDB at {address} was busy with other exports for {timeout_s:g} s.")
        time.sleep(random.uniform(*_BUSY_S))  # noqa: S311  (only so that those who wait do not ask together)
    if status >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
        raise DatabaseUnavailable(f"QuestDB at {address} answered HTTP {status}.")
    if content[:4] != _MAGIC:
        said = " ".join(content[:_MAX_REASON].decode("utf-8", "replace").split())
        raise DatabaseMisconfigured(
            f"QuestDB at {address} exports no Parquet (HTTP {status}: {said}).",
            hint="It needs QuestDB 9.2 or later, and the credentials of QUESTDB_HTTP_USER.",
        )
    if content[-4:] != _MAGIC:
        raise DatabaseUnavailable(f"QuestDB at {address} broke off in the middle of an answer.")
    return content


def _ask(settings: QuestDB, query: str, timeout_s: float) -> tuple[int, bytes]:
    """Return an answer's status and content."""
    connection = http.client.HTTPConnection(settings.ilp_host, settings.ilp_port, timeout=timeout_s)
    parameters = {"query": query, "fmt": "parquet", "compression_codec": "lz4_raw"}
    try:
        connection.request("GET", "/exp?" + urlencode(parameters), headers=_headers(settings))
        answer = connection.getresponse()
        return answer.status, answer.read()
    except (OSError, http.client.HTTPException, ValueError) as error:
        what = f"{type(error).__name__}: {error}".rstrip(": ")
        address = f"{settings.ilp_host}:{settings.ilp_port}"
        raise DatabaseUnavailable(f"QuestDB at {address} did not answer ({what}).") from error
    finally:
        connection.close()


def _headers(settings: QuestDB) -> dict[str, str]:
    user = settings.http_user or settings.pg_user
    password = settings.http_password if settings.http_user else settings.pg_password
    token = base64.b64encode(f"{user}:{password.get_secret_value()}".encode()).decode()
    return {"User-Agent": "collector", "Authorization": f"Basic {token}"}
