"""A session's order books as the exchange told them: every change, out of the raw recording, in its dialect."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, urlsplit

from collector.errors import MessageError
from collector.events import BookDelta, BookSnapshot
from collector.exchanges.base import BookRule, Exchange, Listing, Request
from collector.exchanges.registry import create_exchange
from collector.feeds.recording import Line, read_recording

RAW_FILE = "raw.rec"
_MAX_WAITING = 10_000

BookEvent = tuple[BookSnapshot | BookDelta, int]
"""What the book became, and when it was received, in nanoseconds since the epoch."""


@dataclass(slots=True)
class _Book:
    """One symbol's book while it is followed."""

    rule: BookRule
    waiting: deque[BookEvent]
    loaded: bool = False


def has_raw_books(directory: Path | None) -> bool:
    """Say whether a session has a raw recording."""
    return directory is not None and (directory / RAW_FILE).is_file()


def read_book_events(path: Path, exchange_name: str, symbols: list[str]) -> Iterator[tuple[str, BookEvent]]:
    """Return, for each symbol, snapshots and the changes that follow them without a hole, in the order of receipt.

    Raises:
        RecordingError: the recording cannot be read.
    """
    exchange: Exchange = create_exchange(exchange_name, _listings(path, exchange_name, symbols))
    books = {symbol: _Book(exchange.book_rule(), deque(maxlen=_MAX_WAITING)) for symbol in symbols}
    requests = {symbol: exchange.snapshot_request(symbol) for symbol in symbols} if exchange.book_needs_snapshot else {}
    for line in read_recording(path):
        if line.kind == "-" and not exchange.book_numbered:
            for one in books.values():
                one.loaded = False  # nothing tells what is missing, until the book is pushed anew
        for event in _events_of(line, exchange, requests):
            if (book := books.get(event.symbol)) is not None:
                yield from ((event.symbol, found) for found in _follow(book, event, line.received_ns))


def _follow(book: _Book, event: BookSnapshot | BookDelta, received_ns: int) -> Iterator[BookEvent]:
    if isinstance(event, BookSnapshot):
        book.rule.apply_snapshot(event)
        book.loaded = True
        yield event, received_ns
        waiting, book.waiting = book.waiting, deque(maxlen=_MAX_WAITING)
        for delta, _ in waiting:
            if isinstance(delta, BookDelta):
                yield from _follow(book, delta, received_ns)
    elif not book.loaded:
        book.waiting.append((event, received_ns))
    else:
        verdict = book.rule.judge(event)
        if verdict == "apply":
            yield event, received_ns
        elif verdict == "gap":
            book.loaded = False
            book.waiting.append((event, received_ns))


def _events_of(line: Line, exchange: Exchange, requests: Mapping[str, Request]) -> list[BookSnapshot | BookDelta]:
    received_us = line.received_ns // 1000
    try:
        if line.kind in ("<", "b"):
            found = exchange.parse(line.payload, received_us)
            return [event for event in found if isinstance(event, BookSnapshot | BookDelta)]
        if line.kind == "GET":
            status, url, body = (*line.payload.split(b" ", 2), b"", b"")[:3]
            address = url.decode("utf-8", "replace")
            symbol = next((symbol for symbol, request in requests.items() if _asks(address, request)), None)
            if symbol is not None and status == b"200":
                return [exchange.parse_snapshot(symbol, body, received_us)]
    except MessageError:
        return []  # the session counted it when it came
    return []


def _listings(path: Path, exchange_name: str, symbols: list[str]) -> list[Listing]:
    """Return how the exchange spells the symbols: by the list of instruments in the recording, or as in a replay."""
    exchange = create_exchange(exchange_name)
    wanted = urlsplit(exchange.listing_request().path).path
    for line in read_recording(path):
        if line.kind != "GET":
            continue
        _, url, body = (*line.payload.split(b" ", 2), b"", b"")[:3]
        if urlsplit(url.decode("utf-8", "replace")).path.endswith(wanted):
            try:
                found = [listing for listing in exchange.parse_listing(body) if listing.symbol in symbols]
            except MessageError:
                continue
            if found:
                return found
    written = exchange.write_listing(symbols)
    if written is not None:
        return exchange.parse_listing(written)
    pairs = [(symbol, *symbol.partition("_")[::2]) for symbol in symbols]
    return [Listing(symbol, base + quote, base, quote) for symbol, base, quote in pairs]


def _asks(url: str, request: Request) -> bool:
    """Say whether an address is a request's, at whatever host and of whatever depth."""
    parts = urlsplit(url)
    given = dict(parse_qsl(parts.query))
    return parts.path.endswith(request.path) and all(
        given.get(name) == value for name, value in request.params.items() if not value.isdecimal()
    )
