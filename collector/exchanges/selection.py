"""Symbols that are chosen by a rule when a session starts: ``top:50``, ``top:50:EUR``, ``all:USDT``."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from decimal import Decimal

import msgspec

from collector.errors import UsageError
from collector.exchanges.base import Listing

DOLLARS = ("USD", "USDT", "USDC", "FDUSD", "USDE", "USD1", "TUSD", "BUSD", "DAI", "PYUSD", "RLUSD", "USDG")
"""Quote currencies of one value, so that volumes in them can be compared without a rate."""

_FORM = re.compile(r"(?:TOP:([0-9]{1,5})(?::([A-Z0-9]{2,12}))?|ALL:([A-Z0-9]{2,12}))").fullmatch
_BEGINNING = re.compile(r"(?:TOP|ALL)(?::|$)").match


class Selector(msgspec.Struct, frozen=True):
    """A rule: the ``count`` symbols of the largest 24 h volume, or all (None), that are quoted in one of ``quotes``."""

    count: int | None
    quotes: tuple[str, ...]

    def choose(self, listings: Sequence[Listing], volumes: Mapping[str, Decimal]) -> list[str]:
        """Return the symbols of listings that are traded now: by volume, largest first, or in the exchange's order.

        What has no volume comes last, in the order of names.
        """
        fitting = [listing for listing in listings if listing.active and listing.quote.upper() in self.quotes]
        if self.count is None:
            return [listing.symbol for listing in fitting]
        fitting.sort(key=lambda listing: (-volumes.get(listing.native, Decimal(0)), listing.symbol))
        return [listing.symbol for listing in fitting[: self.count]]


def parse_selector(text: str) -> Selector | None:
    """Read a rule in any case; return None where a text is not one but a symbol.

    Raises:
        UsageError: it begins like a rule, and is none.
    """
    plain = text.strip().upper()
    found = _FORM(plain)
    if found and found[1] != "0" * len(found[1] or ""):
        count, quote, every = found.groups()
        if every:
            return Selector(None, (every,))
        return Selector(int(count), (quote,) if quote else DOLLARS)
    if found or _BEGINNING(plain):
        raise UsageError(f"{text.strip()!r} chooses no symbols.", hint="Write top:50, top:50:EUR or all:USDT.")
    return None


def is_rule(text: str) -> bool:
    """Say whether a text is a rule and not a symbol."""
    return _BEGINNING(text.strip().upper()) is not None


def choose_symbols(
    symbols: Sequence[str], listings: Sequence[Listing], volumes: Mapping[str, Decimal], *, limit: int, exchange: str
) -> list[str]:
    """Return the symbols that symbols and rules stand for, each once, in their order.

    Args:
        volumes: per native spelling, what was traded in 24 hours, in quote currency.
        limit: how many a session may have.

    Raises:
        UsageError: a rule fits nothing that the exchange trades now, or too much.
    """
    chosen: dict[str, None] = {}
    for text in symbols:
        selector = parse_selector(text)
        found = [text] if selector is None else selector.choose(listings, volumes)
        if not found:
            quotes = sorted({listing.quote for listing in listings if listing.active})
            raise UsageError(
                f"{exchange} trades nothing that {text} stands for.",
                hint=f"It has the quote currencies {', '.join(quotes[:20])}.",
            )
        chosen.update(dict.fromkeys(found))
    if len(chosen) > limit:
        asked = ", ".join(symbols)[:60]
        raise UsageError(
            f"{asked} stands for {len(chosen)} symbols on {exchange}, more than session.max_symbols ({limit}).",
            hint=f"Write top:{limit}, or raise it in config.toml.",
        )
    return list(chosen)
