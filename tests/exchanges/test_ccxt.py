"""What is known of exchanges of ccxt's without ccxt."""

from __future__ import annotations

import pytest

from collector.errors import UnknownName
from collector.exchanges.base import Listing
from collector.exchanges.ccxt import Ccxt, is_ccxt
from collector.exchanges.registry import known_exchange


def test_names() -> None:
    """The prefix tells them from ours, and the rest is ccxt's own name."""
    found = known_exchange("ccxt:kraken")
    assert isinstance(found, Ccxt)
    assert (found.name, found.plain_name) == ("ccxt:kraken", "kraken")
    assert is_ccxt("ccxt:kraken")
    assert not is_ccxt("kraken")
    assert known_exchange("kraken").name == "kraken"
    with pytest.raises(UnknownName):
        known_exchange("ccxt")


@pytest.mark.parametrize("name", ["ccxt:", "ccxt:../x", "ccxt:Kraken", "ccxt:a b", "ccxt:__import__"])
def test_no_name(name: str) -> None:
    """What can't be a name of ccxt's is refused before anything is imported by it."""
    with pytest.raises(UnknownName, match="ccxt:kraken"):
        known_exchange(name)


def test_promises() -> None:
    """Nothing is promised that is not known: no numbers, no checksum, trades and books only."""
    facts = Ccxt("ccxt:kraken")
    assert not facts.trade_ids_contiguous
    assert facts.book_checksum is None
    assert facts.offers(Listing("A_B", "A/B", "A", "B")) == ("prices", "orderbook")
    assert facts.book_rule().last_id is None
