"""What an exchange is to the rest of the project: one pure object that turns words into bytes and bytes into events.

Nothing here awaits, reads a clock or opens anything. Whoever does I/O asks an exchange what to send, and tells it what
came.
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal
from types import MappingProxyType
from typing import Literal, Protocol

import msgspec

from collector.errors import MessageError
from collector.events import BookDelta, BookSnapshot, Event, Level, Trade

_SUBSCRIBE_VERB = re.compile(r'"(subscribe|SUBSCRIBE|SUBSCRIPTION)"')
"""The word by which a frame asks for channels: what ends them is ``un`` and the same word, with every exchange here."""


def _ending_verb(found: re.Match[str]) -> str:
    verb = found[1]
    return f'"{"UN" if verb.isupper() else "un"}{verb}"'


class Subscription(msgspec.Struct, frozen=True):
    """One stream (a data type, ``streams.DATA_TYPES``) of one symbol, ``BASE_QUOTE``."""

    stream: str
    symbol: str


class Listing(msgspec.Struct, frozen=True):
    """An instrument as the exchange lists it; ``native`` is the exchange's own spelling. ``active``: it trades now.

    ``contract_size`` is set where sizes are numbers of contracts: what one is worth, of base currency or, where the
    contract is ``inverse``, of quote currency.
    """

    symbol: str
    native: str
    base: str
    quote: str
    active: bool = True
    contract_size: str = ""
    inverse: bool = False


class Request(msgspec.Struct, frozen=True):
    """A REST request relative to the exchange's REST address. ``weight`` is what the exchange charges for it."""

    path: str
    params: Mapping[str, str] = {}
    method: str = "GET"
    body: bytes | None = None
    weight: int = 1


class ConnectionPlan(msgspec.Struct, frozen=True):
    """One websocket connection: where, what to send once it is open, and what it then must deliver.

    ``path`` is appended to the websocket address. ``frames`` are sent in order, not faster than the limits allow.
    ``request_ids`` name, per frame, the id by which the exchange will acknowledge or reject it.
    """

    path: str
    frames: tuple[str, ...]
    subscriptions: tuple[Subscription, ...]
    request_ids: tuple[int | str, ...] = ()


class Limits(msgspec.Struct, frozen=True):
    """What an exchange allows, with the source of each figure in the exchange's file.

    Args:
        streams_per_connection: how many channels one connection may carry.
        streams_per_frame: how many channels one subscribe frame may name.
        frames_per_s: frames a client may send each second on one connection.
        connects_per_5_min: connections that may be opened in five minutes from one address.
        connection_life_s: after how long the exchange closes a connection; None where it never does.
        weight_per_min: the sum of REST weights allowed each minute from one address.
        ping_interval_s: how often the client must send ``ping_frame``; None where websocket pings do.
    """

    streams_per_connection: int
    streams_per_frame: int
    frames_per_s: float
    connects_per_5_min: int
    connection_life_s: float | None
    weight_per_min: int
    ping_interval_s: float | None = None


class BookRule(Protocol):
    """One symbol's rule of which delta follows which: told of snapshots and deltas, it judges and keeps the last id.

    Stateful and synchronous. ``apply_snapshot`` starts it over. ``judge`` returns ``apply``, ``stale`` (already in the
    snapshot) or ``gap`` (something between is missing: the book must be resynchronised), and moves on only on
    ``apply``.
    """

    last_id: int | None

    def apply_snapshot(self, snapshot: BookSnapshot) -> None: ...

    def judge(self, delta: BookDelta) -> str: ...


class Checksum(msgspec.Struct, frozen=True):
    """How an exchange sums up the best levels of a book, so that a client can tell that it has the same.

    Args:
        levels: how many of the best levels of each side it covers.
        of: takes up to so many bids and asks, best first, in the exchange's own digits.
    """

    levels: int
    of: Callable[[Sequence[Level], Sequence[Level]], int]


class Exchange(ABC):
    """One exchange's dialect, websocket and REST together, for one session's symbols.

    Args:
        listings: the instruments concerned, so that native spellings can be mapped both ways.
    """

    name: str
    ws_url: str
    """The exchange's own websocket address; config and command line may replace it."""
    headers: Mapping[str, str] = MappingProxyType({})
    """What a client says besides, when it opens a websocket and when it asks REST."""
    rest_url: str
    limits: Limits
    streams: tuple[str, ...] = ("prices", "orderbook", "klines")
    """The data types that can be had: subscribed to or, those of ``polled_streams``, asked for over REST."""
    polled_streams: tuple[str, ...] = ()
    """Those of ``streams`` that no websocket channel delivers: ``plan`` never sees them, ``poll_requests`` does."""
    quiet_streams: frozenset[str] = frozenset({"liquidations"})
    """Those that say something only when something happens, maybe not for hours: their silence is no fault."""
    steady_streams: frozenset[str] = frozenset()
    """Those that come at a steady pace whatever the market does: their silence alone says that they are lost."""
    trade_ids_contiguous: bool
    """Whether trade ids of the default trade channel count up by one, so that a jump is a hole."""
    trade_ids_ordered: bool = True
    """Whether of two trades at the same time the one with the lower numeric id came first; where not, arrival tells."""
    book_needs_snapshot: bool = True
    """Whether the book starts from a REST snapshot (otherwise the stream itself delivers one)."""
    book_numbered: bool = True
    """Whether book messages have ids; where not, their times stand for ids, which only tell the order."""
    snapshot_depth: int | None = None
    """Levels of each side that a REST snapshot has at most; None where it has all, or the stream itself brings it."""
    deepest_book: int = 1000
    """How many levels of each side a row can have: what a book keeps for certain while the market moves."""
    book_checksum: Checksum | None = None
    """How to check a book against the checksums that its messages carry; None where they carry none."""
    first_trades_past: bool = False
    """Whether the first message of trades after subscribing holds trades from before, without saying so."""
    trades_paging: Literal["id", "time", "recent"] = "id"
    """How trades can be asked for again: from an id on, from a time on, or only the newest ones."""
    candle_source: str = ""
    """The source of historical candles whose words the exchange's REST speaks; empty for the one of its own name."""
    klines_open_at_previous_close: bool = False
    """Whether its candles open at the close before them, and not at their first trade."""
    klines_say_closed: bool = True
    """Whether a kline says that it is final; where not, it is once the next one has begun."""

    def __init__(self, listings: Sequence[Listing] = ()) -> None:
        self.symbol_of = {listing.native: listing.symbol for listing in listings}
        self.native_of = {listing.symbol: listing.native for listing in listings}
        self.listing_of = {listing.symbol: listing for listing in listings}

    def admit(self, listings: Sequence[Listing]) -> None:
        """Speak of these instruments, too, from now on."""
        for listing in listings:
            self.symbol_of[listing.native] = listing.symbol
            self.native_of[listing.symbol] = listing.native
            self.listing_of[listing.symbol] = listing

    @abstractmethod
    def listing_request(self) -> Request:
        """Return the request for the exchange's list of instruments."""

    @abstractmethod
    def parse_listing(self, body: bytes) -> list[Listing]:
        """Read the answer to ``listing_request``; raise MessageError where it is not one."""

    def next_listing_request(self, request: Request, body: bytes) -> Request | None:  # noqa: ARG002  most have one page
        """Return the request for what an answer to a listing request leaves out; None where that was all."""
        return None

    def write_listing(self, symbols: Sequence[str]) -> bytes | None:  # noqa: ARG002  for dialects that override it
        """Return what the exchange would answer if it listed these symbols alone, for a replay; None: as Binance."""
        return None

    def offers(self, listing: Listing) -> tuple[str, ...]:  # noqa: ARG002  for dialects of several kinds of markets
        """Return which of ``streams`` an instrument has: spot has no funding, a dated contract neither."""
        return self.streams

    @abstractmethod
    def plan(self, subscriptions: Sequence[Subscription], *, raw_trades: bool = False) -> list[ConnectionPlan]:
        """Spread subscriptions over as few connections as the limits allow, a symbol's streams of a kind together."""

    def renewal_frames(self, subscription: Subscription) -> Sequence[str]:  # noqa: ARG002  where books come from REST
        """Return what to send to have a subscription's book pushed whole again, where the stream delivers snapshots."""
        return ()

    @abstractmethod
    def parse(self, frame: bytes | str, received_us: int) -> Sequence[Event]:
        """Turn one websocket frame into events, in its order; an empty sequence where it means nothing to us.

        Raises:
            MessageError: the frame is not what the exchange's documentation allows.
        """

    @abstractmethod
    def snapshot_request(self, symbol: str) -> Request:
        """Return the request for the order book of a symbol, as deep as the exchange gives it."""

    @abstractmethod
    def parse_snapshot(self, symbol: str, body: bytes, received_us: int) -> BookSnapshot:
        """Read the answer to ``snapshot_request``; raise MessageError where it is not one."""

    @abstractmethod
    def book_rule(self) -> BookRule:
        """Return a fresh rule for one symbol's book."""

    @abstractmethod
    def trades_request(
        self, symbol: str, from_id: int, limit: int, *, raw_trades: bool = False, from_us: int | None = None
    ) -> Request | None:
        """Return the request for up to ``limit`` trades from an id on; None where that takes a key, or can't be had.

        Args:
            from_us: the exchange time of the trade before it, for exchanges that are asked by time.
        """

    @abstractmethod
    def parse_trades(self, symbol: str, body: bytes, received_us: int) -> list[Trade]:
        """Read the answer to ``trades_request``; the trades have ``source="rest"``."""

    def volumes_request(self) -> Request | None:
        """Return the request for what all instruments traded in the last 24 hours; None where that isn't offered."""
        return None

    def next_volumes_request(self, request: Request, body: bytes) -> Request | None:  # noqa: ARG002  most have one page
        """Return the request for what an answer to a request for volumes leaves out; None where that was all."""
        return None

    def parse_volumes(self, body: bytes) -> dict[str, Decimal]:  # noqa: ARG002  for dialects that override it
        """Read the answer to ``volumes_request``: per native spelling, the volume in quote currency.

        Raises:
            MessageError: it is not one.
        """
        raise MessageError(f"{self.name} is not asked for volumes.")

    def poll_requests(self, subscriptions: Sequence[Subscription]) -> Sequence[Request]:  # noqa: ARG002  few need it
        """Return what to ask again and again for subscriptions of ``polled_streams``; one answer may serve several."""
        return ()

    def parse_poll(
        self,
        request: Request,
        body: bytes,  # noqa: ARG002  for dialects that override it
        received_us: int,  # noqa: ARG002
    ) -> Sequence[Event]:
        """Read the answer to one of ``poll_requests``; the events have ``source="rest"``.

        Events of symbols that nobody subscribed to are passed over by whoever asked.

        Raises:
            MessageError: it is none.
        """
        raise MessageError(f"{self.name} is not asked for {request.path}.")

    def newest_trade_request(self, symbol: str) -> Request | None:  # noqa: ARG002  for dialects that override it
        """Return the request for a symbol's newest trade, whatever it costs least; None where REST does not tell.

        It is asked before a silent stream is called deaf.
        """
        return None

    def parse_newest_trade_us(self, symbol: str, body: bytes, received_us: int) -> int | None:
        """Read the time of the newest trade from an answer to that request; None where there is no trade.

        Raises:
            MessageError: it is not one.
        """
        return max((trade.timestamp_us for trade in self.parse_trades(symbol, body, received_us)), default=None)

    def book_probe_request(self, symbol: str) -> Request:
        """Return the cheapest request whose answer ``parse_snapshot`` reads, to see whether a book has changed."""
        return self.snapshot_request(symbol)

    def unsubscribe_frames(self, subscriptions: Sequence[Subscription], *, raw_trades: bool = False) -> Sequence[str]:
        """Return what to send so that subscriptions end; empty where that can't be, and events are ignored then."""
        return [
            _SUBSCRIBE_VERB.sub(_ending_verb, frame, count=1)
            for plan in self.plan(subscriptions, raw_trades=raw_trades)
            for frame in plan.frames
        ]

    def current_path(self, path: str) -> str:
        """Return the path that a request would have today whose answer was recorded under another one, for a replay."""
        return path

    def connection_request(self) -> Request | None:
        """Return what to ask of REST before each connection, where that tells the address; None where it is known.

        It is not asked where a user gave another websocket address: that one is used as it is.
        """
        return None

    def address_from(self, body: bytes) -> str:  # noqa: ARG002  for dialects that override it
        """Read the whole address to connect to, with whatever token it takes, from an answer to that request.

        Raises:
            MessageError: it is not one.
        """
        raise MessageError(f"{self.name} is not asked where to connect.")

    def stamp(self, frame: str, now_us: int) -> str:  # noqa: ARG002  for dialects that override it
        """Return a frame as it is to be sent now: some exchanges want the time in it."""
        return frame

    def ping_frame(self) -> str | None:
        """Return the text frame that keeps a connection alive; None where websocket pings do."""
        return None

    @abstractmethod
    def channel_of(self, frame: bytes | str) -> str | None:
        """Name the channel that a recorded frame came on, as ``channels_asked`` spells it; None for acks and so on."""

    @abstractmethod
    def channels_asked(self, path: str, frame: str | None) -> Sequence[str]:
        """Name the channels that a client asks for by connecting to a path (``frame`` None) or by sending a frame.

        This and ``channel_of`` are what the replay server filters a recording by.
        """

    @abstractmethod
    def acknowledgement(self, frame: str) -> str | None:
        """Return the frame by which the exchange would acknowledge a client's frame; None where it would not."""
