"""The server in memory answers as the real one does, and fails as it is told to."""

from __future__ import annotations

import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from collector.errors import DatabaseMisconfigured, DatabaseUnavailable
from collector.storage.batches import Lane, Sealed, Window
from collector.storage.checks import find_faults, lanes_with_missing_rows, read_facts
from collector.storage.cursor import START
from collector.storage.ilp import Encoder
from collector.storage.memory_transport import FailingTransport, MemoryQuestDB, MemoryTransport, parse_line
from collector.storage.questdb import Acknowledged, HttpTransport, Maybe, Rejected
from collector.storage.survey import Span, spans_held
from collector.streams import GAPS, OHLCV, PRICES, STREAMS

START_US = 1_700_000_000_000_000


@pytest.fixture
def session_id() -> str:
    return f"memory-{uuid.uuid4().hex[:12]}"


@pytest.fixture(params=["memory", "questdb"])
def transport(request: pytest.FixtureRequest) -> Iterator[Any]:
    """Give the server in memory, then the real one: whatever is asked, both must answer alike."""
    if request.param == "memory":
        yield MemoryTransport(MemoryQuestDB())
        return
    real = HttpTransport.from_config(request.getfixturevalue("questdb").settings)
    yield real
    real.close()


def bodies(session_id: str) -> list[tuple[str, bytes]]:
    """Return rows of three streams, some of them twice, one candle and one gap in two revisions."""
    tags = {"session_id": session_id, "exchange": "si m", "symbol": "BTC_USDT"}
    prices = [f"{START_US + n},{n}.5,2,3.0,buy,{n},{n},{START_US},ws,," for n in range(1, 21)]
    candles = [f"{START_US},1m,1,2,0.5,{c},10,100,5,4,1,5,true,full,ws,{n},{n + 1}" for n, c in enumerate("123")]
    gaps = [
        f'{START_US},g1,BTC_USDT,prices,stall,1,2,3,4,2,0,{state},,"a, ""b"" \\ c",{n},{n + 1}'
        for n, state in enumerate(["open", "repaired"])
    ]
    found = []
    for stream, lines, of in ((PRICES, prices, tags), (OHLCV, candles, tags), (GAPS, gaps, {**tags, "symbol": ""})):
        own = {name: value for name, value in of.items() if value}
        for part in (lines, lines[len(lines) // 2 :]):
            encoded = Encoder(stream, own).encode("".join(line + "\n" for line in part).encode())
            found.append((stream.table, encoded.body))
    return found


def wait_applied(transport: Any) -> None:
    for _ in range(1000):
        tables = read_facts(transport, STREAMS.values()).tables.values()
        if all(table.applied >= table.transaction for table in tables):
            return
        time.sleep(0.01)
    pytest.fail("the tables do not apply what they took")


def lane(session_id: str, stream: Any, window: Window) -> Lane:
    made = Lane(session_id, "sim", stream, "BTC_USDT" if stream.per_symbol else None, Path(stream.file))
    made.sealed = Sealed(window, START, 0)
    return made


def test_both_hold_the_same_rows_after_the_same_lines(transport: Any, session_id: str) -> None:
    """Sent twice is there once; the last row of a key counts; what is missing is noticed by the same questions."""
    for table, body in bodies(session_id):
        assert isinstance(transport.send(table, body, 1), Acknowledged)
    wait_applied(transport)
    facts = read_facts(transport, STREAMS.values())
    assert find_faults(facts, STREAMS.values()) == {}
    assert len(facts.instance) > 0

    whole = Window(20, 1, 20, START_US + 1, START_US + 20)
    beyond = Window(21, 1, 21, START_US + 1, START_US + 21)
    assert lanes_with_missing_rows(transport, [lane(session_id, PRICES, whole)], None) == []
    assert len(lanes_with_missing_rows(transport, [lane(session_id, PRICES, beyond)], None)) == 1
    candle = Window(1, 3, 3, START_US, START_US)
    assert lanes_with_missing_rows(transport, [lane(session_id, OHLCV, candle)], None) == []
    later = Window(1, 4, 4, START_US, START_US)
    assert len(lanes_with_missing_rows(transport, [lane(session_id, OHLCV, later)], None)) == 1
    assert lanes_with_missing_rows(transport, [lane(session_id, GAPS, Window(1, 2, 2, START_US, START_US))], None) == []

    span = Span(PRICES, "BTC_USDT", 5, 25, 21, START_US, START_US + 25, 0)
    other = Span(PRICES, "ETH_USDT", 1, 25, 21, START_US, START_US + 25, 0)
    assert spans_held(transport, session_id, [span, other]) == [16, 0]


def test_a_line_that_is_none_is_refused_with_its_number(transport: Any, session_id: str) -> None:
    """And nothing of the request is kept."""
    table, body = bodies(session_id)[0]
    outcome = transport.send(table, body + b"tick_prices,session_id=x seq=abci 1\n", 21)
    assert isinstance(outcome, Rejected)
    assert outcome.line == 21
    wait_applied(transport)
    span = Span(PRICES, "BTC_USDT", 1, 25, 20, START_US, START_US + 25, 0)
    assert spans_held(transport, session_id, [span]) == [0]


def test_a_question_that_nobody_asks_is_refused() -> None:
    """Rather than answered wrongly."""
    with pytest.raises(DatabaseMisconfigured):
        MemoryTransport(MemoryQuestDB()).query("select 1")


def test_text_comes_back_as_it_was(session_id: str) -> None:
    """Escapes of tags and of strings are undone."""
    table, row = parse_line(bodies(session_id)[4][1].decode().splitlines()[0])
    assert (table, row["detail"], row["exchange"]) == ("collection_gaps", 'a, "b" \\ c', "si m")


def test_without_dedup_keys_rows_double(session_id: str) -> None:
    """The check can fail."""
    server = MemoryQuestDB()
    server.tables["tick_prices"].dedup = False
    for table, body in bodies(session_id)[:2]:
        MemoryTransport(server).send(table, body, 1)
    assert len(server.shown("tick_prices")) == 30
    server.make_tables()
    assert server.tables["tick_prices"].dedup


def test_what_happens_to_a_server(session_id: str) -> None:
    """Dropped, suspended, restarted with a loss, restored: as the checks see it."""
    server = MemoryQuestDB(applies_at_once=False)
    transport = MemoryTransport(server)
    copied = server.backup()
    table, body = bodies(session_id)[0]
    transport.send(table, body, 20)
    assert server.shown(table) == []
    server.apply()
    assert len(server.shown(table)) == 20
    server.suspend(table)
    assert find_faults(read_facts(transport, [PRICES]), [PRICES])[table].kind == "suspended"
    transport.send(table, body, 20)
    server.restart(lost=1)
    transport.query(f"alter table {table} resume wal")
    assert server.tables[table].transaction == 1
    server.drop(table)
    assert find_faults(read_facts(transport, [PRICES]), [PRICES])[table].kind == "missing"
    assert isinstance(transport.send(table, body, 20), Rejected)
    server.restore(copied)
    assert server.shown(table) == []
    server.up = False
    assert isinstance(transport.send(table, body, 20), Maybe)
    for ask in (transport.version, lambda: transport.query("select 1")):
        with pytest.raises(DatabaseUnavailable):
            ask()


@pytest.mark.parametrize(("for_good", "expected"), [(False, [0, 20, 20]), (True, [0, 0, 0])])
def test_the_nth_call_fails_once_or_for_good(session_id: str, for_good: bool, expected: list[int]) -> None:
    """Before anything is done; a healed one does not fail."""
    server = MemoryQuestDB()
    failing = FailingTransport(MemoryTransport(server))
    failing.fail_at(1, for_good=for_good)
    table, body = bodies(session_id)[0]
    shown = []
    for _ in range(3):
        failing.send(table, body, 20)
        shown.append(len(server.shown(table)))
    assert shown == expected
    failing.heal()
    assert isinstance(failing.send(table, body, 20), Acknowledged)


def test_a_lost_answer_comes_after_the_rows(session_id: str) -> None:
    """They are there, and nobody knows."""
    server = MemoryQuestDB()
    failing = FailingTransport(MemoryTransport(server))
    failing.fail_at(1, lost=True)
    table, body = bodies(session_id)[0]
    assert isinstance(failing.send(table, body, 20), Maybe)
    assert len(server.shown(table)) == 20
    failing.fail_at(1)
    with pytest.raises(DatabaseUnavailable):
        failing.version()
    assert failing.failed == ["send", "version"]
