"""The transport to QuestDB's HTTP port."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from collector.errors import DatabaseMisconfigured, DatabaseUnavailable
from collector.sim.fault_proxy import Fault
from collector.storage.questdb import Acknowledged, HttpTransport, Maybe, Rejected, quoted

Make = Callable[..., Any]
GOOD = b"tick_prices,session_id=transport,exchange=sim,symbol=X seq=%di,price=1 1700000000000000\n"
BAD = b"tick_prices,session_id=transport,exchange=sim,symbol=X seq=1i,price=abc 1700000000000000\n"


@pytest.fixture
def open_transport(questdb: Any) -> Iterator[Make]:
    """Make transports with the server's settings changed as said; they are closed at the end."""
    made: list[HttpTransport] = []

    def make(port: int = 0, timeout_s: float = 5, **changes: Any) -> HttpTransport:
        settings = questdb.settings
        update = {"ilp_port": port or settings.ilp_port, "request_timeout_s": timeout_s, **changes}
        made.append(HttpTransport.from_config(settings.model_copy(update=update)))
        return made[-1]

    yield make
    for transport in made:
        transport.close()


@pytest.fixture
def transport(open_transport: Make) -> HttpTransport:
    """Give a transport straight to the server."""
    return open_transport()


def test_what_is_taken_is_acknowledged(transport: HttpTransport) -> None:
    """A good request is acknowledged, and so is the next on the same connection."""
    assert transport.send("tick_prices", GOOD % 1, 1) == Acknowledged()
    connection = transport._connection
    assert transport.send("tick_prices", GOOD % 2, 1) == Acknowledged()
    assert transport._connection is connection


@pytest.mark.parametrize("line", [1, 2, 500])
def test_a_rejection_names_the_line_from_one(transport: HttpTransport, line: int) -> None:
    """The server's ``line`` counts from 1 within the request, and nothing of the request is in the table."""
    body = b"".join(BAD if n == line else GOOD % (1000 + n) for n in range(1, 501))
    outcome = transport.send("tick_prices", body, 500)

    assert isinstance(outcome, Rejected)
    assert outcome.line == line
    assert "abc" in outcome.reason
    assert transport.query("select count() c from tick_prices where session_id = 'transport' and seq > 1000") == [
        {"c": 0}
    ]


def test_a_query_gives_rows_by_name(transport: HttpTransport) -> None:
    """Rows come as column name → value; a refused statement is an error that quotes it."""
    assert transport.query("select 1 one, 'x' two from long_sequence(2)") == [{"one": 1, "two": "x"}] * 2
    with pytest.raises(DatabaseMisconfigured, match="nonsense"):
        transport.query("nonsense")


def test_the_version_is_asked_of_the_settings(transport: HttpTransport) -> None:
    """The version comes as numbers."""
    assert transport.version() >= (9, 2)


def test_wrong_credentials_are_a_configuration_error(open_transport: Make) -> None:
    """A 401 names the address and what to set."""
    transport = open_transport(http_user="nobody")
    for ask in (lambda: transport.send("t", GOOD % 1, 1), lambda: transport.query("select 1")):
        with pytest.raises(DatabaseMisconfigured, match="credentials") as error:
            ask()
        assert "QUESTDB_HTTP_PASSWORD" in error.value.hint


def test_nobody_listening_is_maybe(free_port: int) -> None:
    """A refused connection decides nothing about the rows, and is an outage for a query."""
    transport = HttpTransport("127.0.0.1", free_port, timeout_s=1)
    assert isinstance(transport.send("t", GOOD % 1, 1), Maybe)
    with pytest.raises(DatabaseUnavailable, match=str(free_port)):
        transport.query("select 1")


@pytest.mark.parametrize(
    ("fault", "slow"),
    [
        (Fault("drop_response"), False),
        (Fault("reset"), False),
        (Fault("cut_request", after_bytes=100), False),
        (Fault("cut_response", after_bytes=12), False),
        (Fault("fake_status", status=500), False),
        (Fault("fake_status", status=429), False),
        (Fault("fake_status", status=200, body=b"hello"), False),
        (Fault("fake_status", status=400, body=b"hello"), False),
        (Fault("fake_status", status=400, body=b'{"line":1}'), False),
        (Fault("fake_status", status=413), True),
    ],
    ids=lambda value: f"{value.kind}-{value.status}" if isinstance(value, Fault) else "",
)
def test_every_failure_is_maybe(
    questdb: Any, open_transport: Make, fault_proxy: Make, fault: Fault, slow: bool
) -> None:
    """Whatever is not an acknowledgement or a rejection by QuestDB leaves it open, and the next request works."""
    proxy = fault_proxy(questdb.settings.ilp_port)
    transport = open_transport(proxy.port)
    proxy.arm(fault)
    outcome = transport.send("tick_prices", GOOD % 7, 1)

    assert isinstance(outcome, Maybe)
    assert outcome.too_slow is slow
    assert outcome.reason
    assert transport.send("tick_prices", GOOD % 7, 1) == Acknowledged()


@pytest.mark.parametrize("status", [401, 403, 404, 405, 301])
def test_what_repeating_cannot_help_is_a_configuration_error(
    questdb: Any, open_transport: Make, fault_proxy: Make, status: int
) -> None:
    """A status that only a person can change is no ``Maybe``."""
    proxy = fault_proxy(questdb.settings.ilp_port)
    transport = open_transport(proxy.port)
    proxy.arm(Fault("fake_status", status=status))
    with pytest.raises(DatabaseMisconfigured, match=str(status)) as error:
        transport.send("t", GOOD % 1, 1)
    assert error.value.hint


def test_a_black_hole_times_out(questdb: Any, open_transport: Make, fault_proxy: Make) -> None:
    """A server that is silent is given up, and a smaller request may do."""
    proxy = fault_proxy(questdb.settings.ilp_port)
    transport = open_transport(proxy.port, timeout_s=0.2)
    proxy.stall()
    outcome = transport.send("t", GOOD % 1, 1)
    assert isinstance(outcome, Maybe)
    assert outcome.too_slow


@pytest.mark.parametrize("answer", [b"", b"{}", b"[]", b"nothing", b'{"config":{"release.version":"x"}}', b"\xff"])
def test_what_is_no_questdb_is_named(questdb: Any, open_transport: Make, fault_proxy: Make, answer: bytes) -> None:
    """An answer without a version is a configuration error, whatever it is."""
    proxy = fault_proxy(questdb.settings.ilp_port)
    transport = open_transport(proxy.port)
    proxy.arm(Fault("fake_status", status=200, body=answer))
    with pytest.raises(DatabaseMisconfigured, match="no QuestDB"):
        transport.version()


@pytest.mark.parametrize("answer", [b"", b"{", b"[1]", b'{"columns":[{"name":"a"}],"dataset":[[1,2]]}'])
def test_an_answer_that_makes_no_sense_is_an_outage(
    questdb: Any, open_transport: Make, fault_proxy: Make, answer: bytes
) -> None:
    """A query's answer that is torn or something else is not believed."""
    proxy = fault_proxy(questdb.settings.ilp_port)
    transport = open_transport(proxy.port)
    proxy.arm(Fault("fake_status", status=200, body=answer))
    with pytest.raises(DatabaseUnavailable):
        transport.query("select 1")


def test_literals_are_quoted() -> None:
    """A quote in a value stays in the value."""
    assert quoted(["a", "b'c"]) == "'a', 'b''c'"
