"""Many exports at once: the server takes few at a time, and everybody gets the rows all the same."""

from __future__ import annotations

import http.server
import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any, ClassVar

import pytest
from pydantic import SecretStr

from collector.config import QuestDB
from collector.errors import DatabaseUnavailable
from collector.storage.export import export_parquet


def test_more_readers_than_the_server_has_workers(questdb: Any) -> None:
    """Twelve at once, of a server that has two; each gets the same."""
    query = "SELECT x, rnd_double() FROM long_sequence(200000)"
    with ThreadPoolExecutor(12) as pool:
        found = list(pool.map(lambda _: export_parquet(questdb.settings, query), range(12)))
    assert all(content[:4] == content[-4:] == b"PAR1" for content in found)


class _Busy(http.server.BaseHTTPRequestHandler):
    """A server whose workers belong to somebody else, until it has refused so often."""

    refusals: ClassVar[int] = 0

    def do_GET(self) -> None:
        cls = type(self)
        busy = cls.refusals > 0
        cls.refusals -= 1
        content = b"exceeded connection limit" if busy else b"PAR1 PAR1"
        self.send_response(429 if busy else 200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


@pytest.mark.parametrize("refusals", [3, 1_000_000])
def test_a_busy_server_is_asked_again(refusals: int) -> None:
    """Until it has a turn for us, or the time is over, and then it is said what it was."""
    _Busy.refusals = refusals
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), _Busy) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        settings = QuestDB(ilp_port=server.server_port, http_user="u", http_password=SecretStr("p"))
        if refusals < 10:
            assert export_parquet(settings, "SELECT 1") == b"PAR1 PAR1"
        else:
            with pytest.raises(DatabaseUnavailable, match="busy with other exports"):
                export_parquet(settings, "SELECT 1", timeout_s=0.5)
        server.shutdown()
