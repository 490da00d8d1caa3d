"""What goes from the command line to the daemon as arguments."""

from __future__ import annotations

import pytest

from collector.errors import UsageError
from collector.requests import ResyncRequest, SessionRequest, StartRequest, StopRequest, from_arguments, to_arguments


@pytest.mark.parametrize(
    "request_made",
    [
        StartRequest(exchange="sim", symbols=("BTC_USDT", "ETH_USDT"), duration_s=90.0, record_raw=False),
        StopRequest(every=True),
        SessionRequest(session="s1"),
        ResyncRequest(session="s1", from_seq=7),
    ],
)
def test_a_request_reads_as_what_it_was(request_made: StartRequest | StopRequest) -> None:
    """To arguments and back is the identity."""
    assert from_arguments(to_arguments(request_made), type(request_made)) == request_made


def test_what_was_left_out_does_not_travel() -> None:
    """A daemon that is older or newer fills in its own defaults."""
    assert to_arguments(StopRequest(sessions=("s1",))) == {"sessions": ("s1",)}


@pytest.mark.parametrize(
    "arguments", [{}, {"exchange": "sim"}, {"exchange": "sim", "symbols": ["A_B"], "simbols": 1}, {"exchange": 1}]
)
def test_wrong_arguments_are_a_sentence(arguments: dict[str, object]) -> None:
    """What is missing, unknown or of another type is told."""
    with pytest.raises(UsageError, match="arguments are wrong"):
        from_arguments(arguments, StartRequest)
