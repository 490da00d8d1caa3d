"""What an exchange's messages mean, in one form for all exchanges.

Times are integer microseconds since the epoch, UTC. Prices and sizes are the exchange's own digits, as text, untouched.
``received_us`` is the local wall clock at receipt; every other time is the exchange's. Symbols are ``BASE_QUOTE``.
The structs are not tracked by the garbage collector (``gc=False``): they hold only text, numbers and flat lists.
"""

from __future__ import annotations

from typing import Literal

import msgspec

Side = Literal["buy", "sell"]
Level = tuple[str, str]
"""A price and the size at it; size "0" (or any zero) deletes the level."""


class Trade(msgspec.Struct, gc=False):
    """One public trade. ``side`` is the taker's. ``trade_id`` is an int where the exchange numbers its trades.

    ``first_raw_id`` and ``last_raw_id`` bound the exchange's trades that an aggregated trade stands for.
    ``source`` is ``ws`` or ``rest``.
    """

    symbol: str
    timestamp_us: int
    price: str
    volume: str
    side: Side
    trade_id: int | str
    received_us: int
    source: str = "ws"
    first_raw_id: int | None = None
    last_raw_id: int | None = None


class PastTrade(msgspec.Struct, gc=False):
    """A trade that the exchange repeats from before the subscription, so that a client can go on from it.

    It is recorded only where it fills a known gap; whoever watches the ids counts its number as seen.
    """

    trade: Trade


class OffBookPrint(msgspec.Struct, gc=False):
    """A print that took a number of the exchange's trade ids and is no trade of the book (insurance fund, ADL).

    It is not recorded; whoever watches the ids counts its number as seen, so that it isn't taken for a lost trade.
    """

    symbol: str
    timestamp_us: int
    trade_id: int
    received_us: int


class BookDelta(msgspec.Struct, gc=False):
    """A change of the order book that covers the update ids ``first_id`` … ``last_id``.

    ``previous_id`` is the last id of the delta before this one, where the exchange says it (None otherwise).
    ``checksum`` is the exchange's own, of the best levels once this is applied; None where it is not to be checked.
    """

    symbol: str
    timestamp_us: int
    first_id: int
    last_id: int
    previous_id: int | None
    bids: list[Level]
    asks: list[Level]
    received_us: int
    checksum: int | None = None


class BookSnapshot(msgspec.Struct, gc=False):
    """The whole book (to a depth) as of update id ``last_id``. ``timestamp_us`` is 0 where the exchange gives no time.

    ``depth`` is how many levels of a side the exchange keeps a client told of: what falls behind them is forgotten
    without a word (None: it says when a level goes). ``checksum`` is the exchange's own, of the best levels.
    """

    symbol: str
    timestamp_us: int
    last_id: int
    bids: list[Level]
    asks: list[Level]
    received_us: int
    checksum: int | None = None
    depth: int | None = None


class BookTop(msgspec.Struct, gc=False):
    """A row of ``orderbook.csv``: the best levels (best first) as of the end of one 100 ms bucket of exchange time.

    ``timestamp_us`` is the exchange time of the last message that was applied in the bucket; ``update_id`` its last id.
    A side with fewer levels than asked is shorter.
    """

    symbol: str
    timestamp_us: int
    bids: list[Level]
    asks: list[Level]
    update_id: int
    received_us: int


class Kline(msgspec.Struct, gc=False):
    """The exchange's own candle. ``start_us`` is the start of its bucket; ``closed`` says that it is final.

    What the exchange does not publish is None.
    """

    symbol: str
    interval: str
    start_us: int
    open: str
    high: str
    low: str
    close: str
    volume: str
    quote_volume: str | None
    trades_count: int | None
    taker_buy_volume: str | None
    closed: bool
    timestamp_us: int
    received_us: int


class Funding(msgspec.Struct, gc=False):
    """What a perpetual contract's holders pay each other; what the exchange does not say in the message is None.

    ``funding_rate`` is a fraction for the whole funding interval (0.0001 is one basis point), predicted
    for ``next_funding_us``. Prices are of the contract's mark and of its underlying index.
    """

    symbol: str
    timestamp_us: int
    funding_rate: str | None
    next_funding_us: int | None
    mark_price: str | None
    index_price: str | None
    received_us: int
    source: str = "ws"


class OpenInterest(msgspec.Struct, gc=False):
    """How much of a contract is held. ``amount`` is in the unit of the symbol's trades, ``value`` in quote currency."""

    symbol: str
    timestamp_us: int
    amount: str
    value: str | None
    received_us: int
    source: str = "ws"


class Liquidation(msgspec.Struct, gc=False):
    """A position that the exchange closed by force. ``side`` is the side of the order that closed it: ``sell`` closes a
    long. ``price`` is what the exchange gives: the order's (bankruptcy) price, or its average fill where it says so.
    """

    symbol: str
    timestamp_us: int
    price: str
    volume: str
    side: Side
    received_us: int
    source: str = "ws"


class Ticker(msgspec.Struct, gc=False):
    """The best bid and ask. An empty side is None. ``update_id`` is None where the exchange numbers no updates.

    ``timestamp_us`` is the exchange's; where the message has no time, it is ``received_us``, and ``timed`` is false.
    """

    symbol: str
    timestamp_us: int
    bid: str | None
    bid_qty: str | None
    ask: str | None
    ask_qty: str | None
    update_id: int | None
    received_us: int
    timed: bool = True
    source: str = "ws"


class PastCandle(msgspec.Struct, gc=False):
    """A closed candle as a source of history gave it, or a file held it; what was not said is None.

    Times are microseconds since the epoch: ``timestamp_us`` is the start of its bucket, ``received_us`` when we had it.
    ``volume`` is in base, ``quote_volume`` in quote currency; ``timeframe`` is its interval (``1h``).
    """

    symbol: str
    timestamp_us: int
    timeframe: str
    open: str
    high: str
    low: str
    close: str
    volume: str | None
    quote_volume: str | None
    trades_count: int | None
    taker_buy_volume: str | None
    taker_buy_quote_volume: str | None
    source: str
    received_us: int
    asset_type: str = "crypto"


class Acknowledged(msgspec.Struct, gc=False):
    """The exchange accepted the request of that id: this says nothing about whether it will deliver."""

    request_id: int | str | None


class Rejected(msgspec.Struct, gc=False):
    """The exchange refused the request of that id (or, with None, something that it does not name).

    ``channel`` is the one channel of the request that it concerns, as ``Exchange.channels_asked`` spells it; None
    where the exchange does not say: then it concerns them all.
    """

    request_id: int | str | None
    code: str
    message: str
    channel: str | None = None


class ServerNotice(msgspec.Struct, gc=False):
    """The exchange announces something about the connection itself: ``shutdown`` means that it will be closed soon."""

    kind: Literal["shutdown", "heartbeat"]
    timestamp_us: int
    detail: str = ""


Event = (
    Trade
    | PastTrade
    | OffBookPrint
    | BookDelta
    | BookSnapshot
    | Kline
    | Funding
    | OpenInterest
    | Liquidation
    | Ticker
    | Acknowledged
    | Rejected
    | ServerNotice
)

MarketEvent = Funding | OpenInterest | Liquidation | Ticker | PastCandle
"""What is known of a market beside its trades, its book and its live candles."""

GapCause = Literal[
    "disconnect", "sequence", "checksum", "stall", "silent_subscription", "overflow", "malformed", "rejected",
    "restart", "rotation", "exchange_maintenance", "log_damaged", "missing_at_source", "source_failed", "unreachable",
    "no_trades", "not_listed",
]  # fmt: skip
GapState = Literal["open", "repaired", "partial", "unrecoverable"]


class Gap(msgspec.Struct, gc=False):
    """A known hole in one stream of one symbol, as the one who noticed it describes it; the ledger gives it its id.

    Ids bound the missing rows inclusively; a bound that nobody knows is None. ``stream`` is a stream's name
    (``prices``, ``orderbook``). ``expected_rows`` is exact where the exchange numbers its rows, otherwise None.
    """

    symbol: str
    stream: str
    cause: GapCause
    from_us: int | None
    to_us: int | None
    from_id: int | None = None
    to_id: int | None = None
    expected_rows: int | None = None
    state: GapState = "open"
    detail: str = ""
