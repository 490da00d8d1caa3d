"""What a person asks for when a session shall start: checked and completed before anything is written."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from collector.config import Config
from collector.errors import UnknownName, UsageError
from collector.exchanges.base import Exchange, Listing, Subscription
from collector.exchanges.ccxt import Ccxt, is_ccxt
from collector.exchanges.registry import known_exchange
from collector.exchanges.selection import parse_selector
from collector.feeds.ccxt_feed import require_ccxt
from collector.requests import StartRequest
from collector.streams import ALL_DATA_TYPES, DATA_TYPES, MAX_BOOK_LEVELS


def check_order(order: StartRequest, config: Config) -> StartRequest:
    """Check a request for a new session and complete it from the configuration.

    Raises:
        UsageError: something is missing or impossible; UnknownName where a nearest name helps.
    """
    for symbol in order.symbols:
        parse_selector(symbol)
    dialect = known_exchange(order.exchange)
    if is_ccxt(order.exchange):
        require_ccxt()
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
    every = ALL_DATA_TYPES in data_types
    data_types = expand_data_types(data_types, dialect)
    for data_type in data_types:
        if data_type not in DATA_TYPES:
            raise UnknownName("data type", data_type, list(DATA_TYPES))
        if data_type not in dialect.streams:
            raise not_offered(data_type, order.exchange, dialect.streams)
    return msgspec.structs.replace(
        order,
        book_levels=levels,
        symbols=tuple(dict.fromkeys(order.symbols)),
        data_types=tuple(dict.fromkeys(data_types)),
        whatever_offered=order.whatever_offered or every,
    )


def expand_data_types(data_types: Sequence[str], dialect: type[Exchange] | Ccxt) -> tuple[str, ...]:
    """Return the data types with ``all`` replaced by those that an exchange offers."""
    if ALL_DATA_TYPES not in data_types:
        return tuple(data_types)
    return tuple(name for name in DATA_TYPES if name in dialect.streams)


def not_offered(data_type: str, of: str, offered: Sequence[str]) -> UsageError:
    """Return the error of a data type that an exchange, or one of its markets, does not have."""
    names = ", ".join(name for name in DATA_TYPES if name in offered)
    return UsageError(f"{of} does not offer {data_type}.", hint=f"It offers {names}.")


def check_offer(exchange: Exchange, listings: Sequence[Listing], data_types: Sequence[str]) -> None:
    """Raise UsageError where a symbol's market does not have a data type."""
    for listing in listings:
        offered = exchange.offers(listing)
        for data_type in data_types:
            if data_type not in offered:
                raise not_offered(data_type, f"{listing.symbol} on {exchange.name}", offered)


def choose_listings(
    exchange: Exchange | Ccxt, listings: Sequence[Listing], symbols: Sequence[str], *, going_on: bool = False
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


def check_removal(symbols: Sequence[str], add: Sequence[str], remove: Sequence[str]) -> None:
    """Check which symbols a running session shall collect no more.

    Raises:
        UsageError: nothing is asked for, or nothing would be left; UnknownName where it does not collect a symbol.
    """
    if not add and not remove:
        raise UsageError("Say which symbols to add or to remove.", hint="For example: --add SOL_USDT.")
    for symbol in remove:
        if symbol not in symbols:
            raise UnknownName("symbol of the session", symbol, list(symbols))
        if symbol in add:
            raise UsageError(f"{symbol} can't be both added and removed.")
    if not add and set(remove) >= set(symbols):
        raise UsageError("No symbol would be left.", hint="Stop the session instead.")


def subscriptions_of(
    listings: Sequence[Listing], data_types: Sequence[str], exchange: Exchange | Ccxt
) -> list[Subscription]:
    """Return what a feed must deliver: the data types and, beside prices, the exchange's own candles if it has any.

    What a symbol's market does not have is left out.
    """
    klines = ["klines"] if "prices" in data_types else []
    streams = dict.fromkeys([*data_types, *klines])
    offered = {listing.symbol: exchange.offers(listing) for listing in listings}
    return [Subscription(stream, symbol) for stream in streams for symbol in offered if stream in offered[symbol]]
