"""Query results out of QuestDB as Parquet, over HTTP: binary, so doubles and times come to the last bit."""

from __future__ import annotations

import base64
import http.client
from urllib.parse import urlencode

from collector.config import QuestDB
from collector.errors import DatabaseMisconfigured, DatabaseUnavailable

_MAGIC = b"PAR1"
_MAX_REASON = 300


def export_parquet(settings: QuestDB, query: str, *, timeout_s: float = 60) -> bytes:
    """Return a query's rows as the content of a Parquet file; for results that fit into memory.

    Args:
        settings: where QuestDB answers and as whom (``embedded.resolve_settings`` gives them).
        query: a SELECT of ours, never a person's text.
        timeout_s: how long the server may be silent, in seconds.

    Raises:
        DatabaseUnavailable: no answer, or not a whole one.
        DatabaseMisconfigured: the credentials or the query are refused, or the server is too old to export.
    """
    address = f"{settings.ilp_host}:{settings.ilp_port}"
    connection = http.client.HTTPConnection(settings.ilp_host, settings.ilp_port, timeout=timeout_s)
    parameters = {"query": query, "fmt": "parquet", "compression_codec": "lz4_raw"}
    try:
        connection.request("GET", "/exp?" + urlencode(parameters), headers=_headers(settings))
        answer = connection.getresponse()
        content = answer.read()
    except (OSError, http.client.HTTPException, ValueError) as error:
        what = f"{type(error).__name__}: {error}".rstrip(": ")
        raise DatabaseUnavailable(f"QuestDB at {address} did not answer ({what}).") from error
    finally:
        connection.close()
    if answer.status >= http.HTTPStatus.INTERNAL_SERVER_ERROR:
        raise DatabaseUnavailable(f"QuestDB at {address} answered HTTP {answer.status}.")
    if content[:4] != _MAGIC:
        said = " ".join(content[:_MAX_REASON].decode("utf-8", "replace").split())
        raise DatabaseMisconfigured(
            f"QuestDB at {address} exports no Parquet (HTTP {answer.status}: {said}).",
            hint="It needs QuestDB 9.2 or later, and the credentials of QUESTDB_HTTP_USER.",
        )
    if content[-4:] != _MAGIC:
        raise DatabaseUnavailable(f"QuestDB at {address} broke off in the middle of an answer.")
    return content


def _headers(settings: QuestDB) -> dict[str, str]:
    user = settings.http_user or settings.pg_user
    password = settings.http_password if settings.http_user else settings.pg_password
    token = base64.b64encode(f"{user}:{password.get_secret_value()}".encode()).decode()
    return {"User-Agent": "collector", "Authorization": f"Basic {token}"}
