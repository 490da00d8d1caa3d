"""What an exchange's messages mean: plain values that keep the exchange's own digits."""

from __future__ import annotations

from typing import get_args

import msgspec
import pytest

from collector import events
from collector.events import BookTop, Event, Gap, GapCause, GapState, Trade

STRUCTS = [
    kind
    for kind in vars(events).values()
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct) and kind.__doc__
]


@pytest.mark.parametrize("kind", STRUCTS)
def test_events_are_not_tracked_by_the_garbage_collector(kind: type[msgspec.Struct]) -> None:
    """A buffer of half a million of them costs no collection."""
    assert kind.__struct_config__.gc is False


def test_a_trade_keeps_the_digits_as_they_came() -> None:
    """Prices are text, so that no float touches them."""
    trade = Trade("BTC_USDT", 1, "0.10000000", "1E-8", "buy", 7, 2)
    assert (trade.price, trade.volume, trade.source) == ("0.10000000", "1E-8", "ws")
    assert (trade.first_raw_id, trade.last_raw_id) == (None, None)


def test_a_gap_is_open_and_unbounded_until_it_is_known() -> None:
    """What nobody knows is None, and a gap begins open."""
    gap = Gap("BTC_USDT", "prices", "disconnect", None, None)
    assert (gap.state, gap.from_id, gap.to_id, gap.expected_rows) == ("open", None, None, None)


def test_the_causes_and_states_of_gaps_are_single_words() -> None:
    """They are symbols in QuestDB and words in the ledger."""
    for word in (*get_args(GapCause), *get_args(GapState)):
        assert word.replace("_", "").isalpha()
        assert word == word.lower()


def test_a_row_of_the_book_is_no_event_of_an_exchange() -> None:
    """Parsers give deltas and snapshots; the rows are made of the local book."""
    assert BookTop not in get_args(Event)
