"""Faults: each happens when it should, as often as it should, and is counted."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import UnknownName, UsageError
from collector.sim.faults import GARBAGE, KINDS, Fault, Faults, Outcome, Sent, fault_from, parse_fault

CHANNEL = "btcusdt@aggTrade"


def messages(first: int, end: int) -> list[Sent]:
    return [Sent(number, f'{{"a":{number}}}') for number in range(first, end)]


def send(faults: Faults, first: int, end: int, *, now_s: float = 0, connection: int = 1) -> Outcome:
    return faults.on_messages(connection, CHANNEL, messages(first, end), now_s)


def ids(sent: Sequence[Sent]) -> list[int]:
    return [message.id for message in sent]


def test_without_faults_everything_goes_out() -> None:
    """With nothing armed, messages go as they are and need no look."""
    faults = Faults()
    assert faults.quiet
    assert send(faults, 0, 3) == Outcome(messages(0, 3))


def test_skip_withholds_ids() -> None:
    """Ids are skipped after as many messages as asked, across batches, and counted once."""
    faults = Faults([Fault(kind="skip", after=2, n=3)])
    assert not faults.quiet
    one, two = send(faults, 0, 3), send(faults, 3, 8)
    assert (ids(one.out), one.withheld) == ([0, 1], [("skip", 2)])
    assert (ids(two.out), two.withheld) == ([5, 6, 7], [("skip", 3), ("skip", 4)])
    assert faults.fired == {"skip": 1}
    assert faults.quiet


def test_duplicate_repeats_ids() -> None:
    """Messages are sent twice, in order, twice over."""
    faults = Faults([Fault(kind="duplicate", n=2, count=2)])
    outcome = send(faults, 0, 5)
    assert ids(outcome.out) == [0, 1, 0, 1, 2, 3, 2, 3, 4]
    assert outcome.repeated == [0, 1, 2, 3]
    assert faults.fired == {"duplicate": 2}


def test_reorder_turns_messages_round() -> None:
    """Messages change places."""
    faults = Faults([Fault(kind="reorder", n=1)])
    assert ids(send(faults, 0, 4).out) == [1, 0, 2, 3]
    assert faults.fired == {"reorder": 1}


def test_reorder_waits_for_enough_messages() -> None:
    """Where messages come one by one, they are kept back until there are enough to turn round."""
    faults = Faults([Fault(kind="reorder", n=2)])
    assert [ids(send(faults, n, n + 1).out) for n in range(4)] == [[], [], [2, 1, 0], [3]]
    assert faults.fired == {"reorder": 1}
    assert faults.quiet


def test_messages_kept_back_are_not_lost_when_faults_are_cleared() -> None:
    """What waited to be turned round goes out once nothing is armed any more."""
    faults = Faults([Fault(kind="reorder", n=5)])
    send(faults, 0, 2)
    faults.clear()
    assert not faults.quiet
    assert ids(send(faults, 2, 3).out) == [0, 1, 2]
    assert faults.quiet


def test_malformed_replaces_a_message() -> None:
    """A malformed message is half of one, and its id counts as withheld."""
    outcome = send(Faults([Fault(kind="malformed", after=1)]), 0, 3)
    assert ids(outcome.out) == [0, GARBAGE, 2]
    assert outcome.out[1].text == '{"a'
    assert outcome.withheld == [("malformed", 1)]


def test_oversized_replaces_a_message() -> None:
    """An oversized message is as large as asked, and its id counts as withheld."""
    outcome = send(Faults([Fault(kind="oversized", size=1000)]), 0, 2)
    assert ids(outcome.out) == [GARBAGE, 1]
    assert len(outcome.out[0].text) > 1000
    assert outcome.withheld == [("oversized", 0)]


@pytest.mark.parametrize("kind", ["drop", "close"])
def test_endings_withhold_what_comes_after(kind: str) -> None:
    """A connection ends after the messages before the fault, and without those after it."""
    outcome = send(Faults([fault_from({"kind": kind, "after": "2"})]), 0, 4)
    assert ids(outcome.out) == [0, 1]
    assert outcome.withheld == [(kind, 2), (kind, 3)]
    assert outcome.ending is not None
    assert outcome.ending.kind == kind


def test_shutdown_is_announced_while_messages_go_on() -> None:
    """An announced end withholds nothing: messages go on until then."""
    outcome = send(Faults([Fault(kind="shutdown")]), 0, 4)
    assert ids(outcome.out) == [0, 1, 2, 3]
    assert outcome.ending is not None


def test_a_stall_lasts_its_time() -> None:
    """A stalled channel is silent for that long, and then goes on with later ids."""
    faults = Faults([Fault(kind="stall", seconds=5, after=1)])
    assert ids(send(faults, 0, 3, now_s=10).out) == [0]
    assert send(faults, 3, 5, now_s=14.9).withheld == [("stall", 3), ("stall", 4)]
    assert ids(send(faults, 5, 6, now_s=15).out) == [5]
    assert faults.quiet
    assert faults.fired == {"stall": 1}


def test_a_stall_is_for_those_whom_it_fits() -> None:
    """A stall of one connection leaves the others alone."""
    faults = Faults([Fault(kind="stall", seconds=5, connection=2)])
    assert ids(send(faults, 0, 2, connection=1).out) == [0, 1]
    assert ids(send(faults, 0, 2, connection=2).out) == []


def test_a_channel_pattern_chooses() -> None:
    """A fault of another channel does not happen."""
    faults = Faults([Fault(kind="skip", channel="*@depth@100ms")])
    assert ids(send(faults, 0, 2).out) == [0, 1]
    assert faults.on_messages(1, "btcusdt@depth@100ms", messages(0, 2), 0).withheld == [("skip", 0)]


def test_faults_of_other_occasions_do_not_concern_messages() -> None:
    """A fault of REST leaves messages quiet."""
    assert Faults([Fault(kind="limit"), Fault(kind="reject"), Fault(kind="refuse")]).quiet


def test_subscriptions_are_rejected_or_silent() -> None:
    """A channel that is asked for is rejected, then silent, then has nothing the matter."""
    faults = Faults([Fault(kind="reject"), Fault(kind="silent", channel="*@aggTrade")])
    assert [faults.on_subscription(1, CHANNEL) for _ in range(3)] == ["reject", "silent", None]
    assert faults.on_subscription(1, "btcusdt@trade") is None


def test_websockets_are_refused() -> None:
    """The opening of a websocket is refused as often as asked."""
    faults = Faults([Fault(kind="refuse", count=2, status=503)])
    assert [bool(faults.on_opening()) for _ in range(3)] == [True, True, False]


@pytest.mark.parametrize("kind", ["slow", "stale", "fail", "limit", "ban"])
def test_requests_meet_faults_by_path(kind: str) -> None:
    """A fault of REST happens to the requests of its path."""
    faults = Faults([fault_from({"kind": kind, "path": "*/depth"})])
    assert faults.on_request("/api/v3/time") is None
    fault = faults.on_request("/api/v3/depth")
    assert fault is not None
    assert fault.kind == kind
    assert faults.on_request("/api/v3/depth") is None


def test_what_is_armed_is_told_with_what_is_left() -> None:
    """The list of armed faults has how often each will still happen."""
    faults = Faults([Fault(kind="skip", count=3)])
    faults.add(Fault(kind="drop"))
    send(faults, 0, 1)
    assert [(fault.kind, fault.count) for fault in faults.armed()] == [("skip", 2), ("drop", 1)]
    faults.clear()
    assert faults.armed() == []
    assert faults.fired == {"skip": 1}


kinds = st.sampled_from(
    ["stall", "skip", "duplicate", "reorder", "malformed", "oversized", "deaf", "drop", "close", "shutdown"]
)
some = st.builds(
    lambda kind, after, count, n: Fault(kind=kind, after=after, count=count, n=n, size=10, seconds=3),
    kinds,
    st.integers(0, 5),
    st.integers(1, 3),
    st.integers(1, 4),
)


@given(st.lists(some, max_size=4), st.lists(st.integers(0, 6), min_size=1, max_size=8))
def test_every_message_is_sent_or_withheld(faults: list[Fault], batches: list[int]) -> None:
    """Whatever happens, each id goes out, is withheld, or is kept back to be turned round; and is not both."""
    server = Faults(faults)
    out: list[int] = []
    withheld: list[int] = []
    repeated: list[int] = []
    number = 0
    for turn, size in enumerate(batches):
        outcome = send(server, number, number + size, now_s=turn)
        number += size
        out += [message.id for message in outcome.out if message.id != GARBAGE]
        withheld += [number for _, number in outcome.withheld]
        repeated += outcome.repeated
    server.clear()
    out += [message.id for message in send(server, 0, 0).out]
    assert sorted(out) == sorted([*(set(range(number)) - set(withheld)), *repeated])
    assert len(withheld) == len(set(withheld))
    assert all(server.fired[fault.kind] <= sum(f.count for f in faults if f.kind == fault.kind) for fault in faults)


def test_faults_are_read_from_text() -> None:
    """The command line's way of writing a fault gives the fault."""
    assert parse_fault("drop") == Fault(kind="drop")
    assert parse_fault("stall:channel=*@aggTrade,seconds=2.5,count=3") == Fault(
        kind="stall", channel="*@aggTrade", seconds=2.5, count=3
    )


def test_unknown_names_are_told_with_the_nearest() -> None:
    """A misspelt kind or parameter is an error with the nearest names."""
    with pytest.raises(UnknownName, match="duplicate"):
        parse_fault("duplicat")
    with pytest.raises(UnknownName, match="seconds"):
        parse_fault("stall:second=3")


@pytest.mark.parametrize("text", ["skip:n=0", "skip:n=x", "skip:count=0", "stall:seconds=-1", "fail:status=99"])
def test_impossible_values_are_errors(text: str) -> None:
    """A value out of its range is an error."""
    with pytest.raises(UsageError):
        parse_fault(text)


@given(st.text(max_size=40))
def test_any_text_is_a_fault_or_an_error(text: str) -> None:
    """Any text is a fault or a usage error."""
    with contextlib.suppress(UsageError):
        assert parse_fault(text).kind in KINDS
