"""What a person asks for when a session shall start: checked and completed before anything is written."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from collector.config import Config
from collector.errors import UnknownName, UsageError
from collector.exchanges.base import Exchange, Listing, Subscription
from collector.exchanges.registry import exchange_class
from collector.exchanges.selection import parse_selector
from collector.requests import StartRequest
from collector.streams import DATA_TYPES, MAX_BOOK_LEVELS


def check_order(order: StartRequest, config: Config) -> StartRequest:
    """Check a request for a new session and complete it from the configuration.

    Raises:
        UsageError: something is missing or impossible; UnknownName where a nearest name helps.
    """
    for symbol in order.symbols:
        parse_selector(symbol)
    dialect = exchange_class(order.exchange)
    if not order.symbols:
        raise UsageError("A session needs symbols.", hint="For example: --symbols BTC_USDT,ETH_USDT.")
    if len(order.symbols) > config.session.max_symbols:
        raise UsageError(
            f"{len(order.symbols)} symbols are more than session.max_symbols ({config.session.max_symbols}).",
            hint="Raise it in config.toml, or start several sessions.",
        )
    if order.duration_s is not None and order.duration_s <= 0:
        raise UsageError("A session's duration must be longer than nothing.")
    deepest = min(MAX_BOOK_LEVELS, dialect.deepest_book)
    levels = min(config.orderbook.levels, deepest) if order.book_levels is None else order.book_levels
    if not 1 <= levels <= deepest:
        raise UsageError(
            f"A row of the order book of {order.exchange} can hold 1 to {deepest} levels of each side, not {levels}.",
            hint="Give another --book-levels.",
        )
    data_types = order.data_types or tuple(config.session.data_types)
    for data_type in data_types:
        if data_type not in DATA_TYPES:
            raise UnknownName("data type", data_type, list(DATA_TYPES))
    return msgspec.structs.replace(
        order,
        book_levels=levels,
        symbols=tuple(dict.fromkeys(order.symbols)),
        data_types=tuple(dict.fromkeys(data_types)),
    )


def choose_listings(
    exchange: Exchange, listings: Sequence[Listing], symbols: Sequence[str], *, going_on: bool = False
) -> list[Listing]:
    """Return the listings of the symbols, in their order.

    Args:
        going_on: the session has these symbols already: those that are no longer traded are left out, as long as
            there is another one.

    Raises:
        UnknownName: the exchange does not list one of them; the nearest that it lists are named.
        UsageError: one of them is listed, but not traded now.
    """
    by_symbol = {listing.symbol: listing for listing in listings}
    if going_on and (left := [found for name in symbols if (found := by_symbol.get(name)) and found.active]):
        return left
    chosen = []
    for symbol in symbols:
        listing = by_symbol.get(symbol)
        if listing is None:
            raise UnknownName(f"symbol on {exchange.name}", symbol, sorted(by_symbol))
        if not listing.active:
            raise UsageError(f"{symbol} is listed on {exchange.name}, but not traded now.")
        chosen.append(listing)
    return chosen


def subscriptions_of(symbols: Sequence[str], data_types: Sequence[str], exchange: Exchange) -> list[Subscription]:
    """Return what a feed must deliver: the data types and, beside prices, the exchange's own candles if it has any."""
    klines = ["klines"] if "prices" in data_types and "klines" in exchange.streams else []
    streams = [*data_types, *klines]
    return [Subscription(stream, symbol) for stream in streams for symbol in symbols]
