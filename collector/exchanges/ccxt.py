"""Exchanges that the library ccxt speaks to, ``ccxt:NAME``: what is known of them without asking it.

They have no dialect of ours: no golden frame, no recording and no rule of a book stands behind them, so all that is
collected from them is unverified, and says so.
"""

from __future__ import annotations

import re

from collector.errors import UnknownName
from collector.exchanges.base import BookRule, Checksum, Listing
from collector.exchanges.rules import InOrderRule

PREFIX = "ccxt:"
STREAMS = ("prices", "orderbook")
LACKS = (
    "trade ids are not followed, so what is missing is known by time alone",
    "nothing that was missed is asked for again",
    "books are the best levels of ccxt's own, whose numbers are floats, and are not checked",
    "raw messages are not seen",
)
"""What a session of such an exchange cannot promise, for its manifest and for people."""

_NAME = re.compile(r"[a-z][a-z0-9_]{1,40}").fullmatch


class Ccxt:
    """The facts about an exchange that ccxt speaks to, in the words of ``Exchange``.

    Args:
        name: with the prefix, ``ccxt:kraken``.

    Raises:
        UnknownName: it can't be the name of an exchange of ccxt; whether it is one, ccxt tells later.
    """

    ws_url = ""
    rest_url = ""
    streams = STREAMS
    trade_ids_contiguous = False
    klines_open_at_previous_close = False
    trade_ids_ordered = False
    deepest_book = 20
    snapshot_depth: int | None = None
    book_numbered = False
    book_checksum: Checksum | None = None

    def __init__(self, name: str) -> None:
        if not _NAME(name.removeprefix(PREFIX)):
            raise UnknownName("exchange", name, [], hint=f"Write {PREFIX} and ccxt's own name: {PREFIX}kraken.")
        self.name = name

    @property
    def plain_name(self) -> str:
        """ccxt's own name of the exchange."""
        return self.name.removeprefix(PREFIX)

    def offers(self, listing: Listing) -> tuple[str, ...]:  # noqa: ARG002  whether it is so, the exchange tells later
        """Return which streams an instrument has."""
        return self.streams

    def book_rule(self) -> BookRule:
        """Return the rule of books without numbers: their times say which is newer."""
        return InOrderRule()


def is_ccxt(name: str) -> bool:
    """Say whether an exchange's name means one of ccxt's."""
    return name.startswith(PREFIX)
