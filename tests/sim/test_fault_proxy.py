"""The fault proxy: what it does to requests, and that it counts what it did."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from collector.sim.fault_proxy import Fault, FaultProxy

LOST = (http.client.HTTPException, ConnectionError, TimeoutError)


class Echo(BaseHTTPRequestHandler):
    """Answers a POST with what it got, and a GET in chunks; remembers what it got."""

    protocol_version = "HTTP/1.1"
    received: list[bytes]

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        self.received.append(body)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self) -> None:
        self.received.append(b"")
        self.send_response(200)
        self.send_header("Transfer-Encoding", "chunked")
        self.end_headers()
        self.wfile.write(b"5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n")

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing."""


@pytest.fixture
def received() -> list[bytes]:
    return []


@pytest.fixture
def proxy(received: list[bytes]) -> Iterator[FaultProxy]:
    handler = type("Echo", (Echo,), {"received": received})
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    try:
        with FaultProxy(server.server_address[1]) as running:
            yield running
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


@pytest.fixture
def ask(proxy: FaultProxy) -> Iterator[Callable[..., bytes]]:
    """Send requests on one connection, opened anew where it broke."""
    connection = http.client.HTTPConnection("127.0.0.1", proxy.port, timeout=0.5)

    def send(body: bytes | None = None) -> bytes:
        try:
            connection.request("GET" if body is None else "POST", "/x", body)
            answer = connection.getresponse()
            return str(answer.status).encode() + b" " + answer.read()
        except LOST:
            connection.close()
            raise

    yield send
    connection.close()


def test_without_faults_everything_passes(proxy: FaultProxy, ask: Callable[..., bytes]) -> None:
    """Requests and answers pass unchanged, with lengths and in chunks, on one connection."""
    assert ask(b"a" * 100_000) == b"200 " + b"a" * 100_000
    assert ask() == b"200 hello world"
    assert proxy.requests == 2


@pytest.mark.parametrize(
    ("fault", "seen"),
    [
        (Fault("drop_response"), True),
        (Fault("cut_response", after_bytes=5), True),
        (Fault("reset"), False),
        (Fault("cut_request", after_bytes=50), False),
    ],
    ids=lambda value: value.kind if isinstance(value, Fault) else "",
)
def test_a_fault_happens_once(
    proxy: FaultProxy, ask: Callable[..., bytes], received: list[bytes], fault: Fault, seen: bool
) -> None:
    """The client loses the answer, the server saw the request or not; the next request passes."""
    proxy.arm(fault)
    with pytest.raises(LOST):
        ask(b"b" * 1000)
    assert (received == [b"b" * 1000]) is seen
    assert proxy.fired == {fault.kind: 1}
    assert ask(b"c") == b"200 c"


def test_a_false_status_keeps_the_connection(
    proxy: FaultProxy, ask: Callable[..., bytes], received: list[bytes]
) -> None:
    """The server sees nothing of a request that gets a false answer."""
    proxy.arm(Fault("fake_status", b"POST", status=503, body=b"no"), times=2)
    assert ask() == b"200 hello world"
    assert [ask(b"d"), ask(b"d"), ask(b"d")] == [b"503 no", b"503 no", b"200 d"]
    assert received == [b"", b"d"]


def test_a_stall_ends_when_it_is_healed(proxy: FaultProxy, ask: Callable[..., bytes]) -> None:
    """Nothing passes, and nobody is told, until it heals."""
    proxy.stall()
    with pytest.raises(TimeoutError):
        ask(b"e")
    proxy.heal()
    assert ask(b"f") == b"200 f"


def test_it_refuses_until_it_is_healed(proxy: FaultProxy, ask: Callable[..., bytes]) -> None:
    """Every connection breaks, open ones too."""
    assert ask(b"g") == b"200 g"
    proxy.refuse()
    for _ in range(2):
        with pytest.raises(LOST):
            ask(b"h")
    proxy.heal()
    assert ask(b"i") == b"200 i"


def test_a_throttle_is_counted(proxy: FaultProxy, ask: Callable[..., bytes]) -> None:
    """A throttled request arrives whole."""
    proxy.throttle(10_000_000)
    assert ask(b"j" * 1000) == b"200 " + b"j" * 1000
    assert proxy.fired == {"throttle": 1}
