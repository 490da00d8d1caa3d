"""Rules that choose symbols: what they stand for, and what is refused."""

from __future__ import annotations

from decimal import Decimal

import pytest

from collector.errors import UsageError
from collector.exchanges.base import Listing
from collector.exchanges.selection import DOLLARS, Selector, choose_symbols, is_rule, parse_selector

LISTINGS = [
    Listing("A_USDT", "AUSDT", "A", "USDT"),
    Listing("B_USDC", "BUSDC", "B", "USDC"),
    Listing("C_EUR", "CEUR", "C", "EUR"),
    Listing("D_USDT", "DUSDT", "D", "USDT"),
    Listing("OLD_USDT", "OLDUSDT", "OLD", "USDT", active=False),
]
VOLUMES = {"AUSDT": Decimal("5.5"), "BUSDC": Decimal(7), "CEUR": Decimal(1000), "OLDUSDT": Decimal(99)}


@pytest.mark.parametrize(
    ("text", "selector"),
    [
        ("top:50", Selector(50, DOLLARS)),
        (" TOP:1:eur ", Selector(1, ("EUR",))),
        ("all:USDT", Selector(None, ("USDT",))),
        ("BTC_USDT", None),
        ("TOP_USDT", None),
        ("ALL_USDT", None),
    ],
)
def test_a_rule_is_told_from_a_symbol(text: str, selector: Selector | None) -> None:
    """Coins may be called TOP and ALL: the colon makes the rule."""
    assert parse_selector(text) == selector
    assert is_rule(text) is (selector is not None)


@pytest.mark.parametrize(
    "text", ["top", "all", "top:", "top:0", "top:000", "top:x", "all:", "all:50:USDT", "top:-1", "top:5:"]
)
def test_a_misspelt_rule_is_refused(text: str) -> None:
    """What begins like a rule is never taken for a symbol."""
    with pytest.raises(UsageError, match="top:50"):
        parse_selector(text)


@pytest.mark.parametrize(
    ("symbols", "chosen"),
    [
        (["top:2"], ["B_USDC", "A_USDT"]),
        (["top:9"], ["B_USDC", "A_USDT", "D_USDT"]),
        (["top:1:EUR"], ["C_EUR"]),
        (["all:USDT"], ["A_USDT", "D_USDT"]),
        (["D_USDT", "top:2", "D_USDT"], ["D_USDT", "B_USDC", "A_USDT"]),
        (["UNKNOWN_USDT"], ["UNKNOWN_USDT"]),
    ],
)
def test_the_largest_that_are_traded_are_chosen(symbols: list[str], chosen: list[str]) -> None:
    """Volumes of dollars are compared with each other, and with no other currency's; what isn't traded is left out."""
    assert chosen == choose_symbols(symbols, LISTINGS, VOLUMES, limit=10, exchange="x")


def test_nothing_and_too_much_are_refused() -> None:
    """The error says which quote currencies there are, and which key sets the limit."""
    with pytest.raises(UsageError, match="EUR, USDC, USDT"):
        choose_symbols(["all:XYZ"], LISTINGS, VOLUMES, limit=10, exchange="x")
    with pytest.raises(UsageError, match=r"2 symbols on x, more than session\.max_symbols \(1\)"):
        choose_symbols(["all:USDT"], LISTINGS, VOLUMES, limit=1, exchange="x")
