"""The tree of errors: sentences, hints, and whether trying again can help."""

from __future__ import annotations

import pytest

from collector import errors
from collector.errors import (
    CollectorError,
    ConnectionLost,
    DaemonRunning,
    ExchangeRefused,
    LogError,
    UnknownName,
    UsageError,
    nearest_names,
)

ALL = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, CollectorError)]


@pytest.mark.parametrize("kind", ALL)
def test_every_error_says_what_it_is(kind: type[CollectorError]) -> None:
    """The docstring of an error is a sentence, and the error is one of ours."""
    assert kind.__doc__
    assert kind.__doc__.split("\n")[0].endswith(".")


def test_an_error_reads_as_its_message_and_its_hint() -> None:
    """What a person sees is both, without a trailing blank where there is no hint."""
    assert str(CollectorError("It broke.", hint="Mend it.")) == "It broke. Mend it."
    assert str(CollectorError("It broke.")) == "It broke."


def test_an_unknown_name_names_the_nearest_ones() -> None:
    """A typo is answered with what was probably meant."""
    error = UnknownName("exchange", "binanse", ["binance", "sim"])
    assert (error.message, error.hint) == ("There is no exchange 'binanse'.", "Did you mean binance?")
    assert error.nearest == ["binance"]
    assert isinstance(error, UsageError)


def test_an_unknown_name_without_a_likeness_lists_the_known_ones() -> None:
    """Where nothing is near, the known names are given."""
    assert UnknownName("exchange", "zzz", ["binance", "sim"]).hint == "Known: binance, sim."


def test_an_unknown_name_can_bring_its_own_hint() -> None:
    """A hint that was given is kept."""
    assert UnknownName("exchange", "zzz", ["binance"], hint="Ask.").hint == "Ask."


@pytest.mark.parametrize(
    ("status", "retryable"), [(0, True), (418, True), (429, True), (500, True), (503, True), (400, False), (451, False)]
)
def test_a_refusal_is_retried_only_where_it_can_pass(status: int, retryable: bool) -> None:
    """Too many requests and server errors pass; a wrong request and a legal block don't."""
    assert ExchangeRefused("No.", status=status).retryable is retryable


def test_a_refusal_keeps_how_long_to_stay_away() -> None:
    """Retry-After is kept in seconds."""
    assert ExchangeRefused("No.", status=429, retry_after_s=7.5).retry_after_s == 7.5


def test_a_lost_connection_is_retried() -> None:
    """A connection that was lost can be opened again."""
    assert ConnectionLost("Gone.").retryable


@pytest.mark.parametrize("permanent", [True, False])
def test_a_log_error_is_retried_unless_it_cannot_pass(permanent: bool) -> None:
    """A full disk may get room; a read-only one does not."""
    assert LogError("Full.", permanent=permanent).retryable is not permanent


def test_the_holder_of_a_data_directory_is_named() -> None:
    """The pid of the running daemon is kept."""
    assert DaemonRunning("Busy.", pid=42).pid == 42


@pytest.mark.parametrize(
    ("name", "nearest"),
    [("btc_usd", ["BTC_USDT", "ETH_USDT"]), ("ETH_USDT", ["ETH_USDT", "BTC_USDT"]), ("", []), ("qqqq", [])],
)
def test_nearest_names_ignore_case_and_give_the_likest_first(name: str, nearest: list[str]) -> None:
    """The likest name comes first, spelled as it is known."""
    assert nearest_names(name, ["BTC_USDT", "ETH_USDT"]) == nearest
