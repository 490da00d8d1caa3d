"""What a feed and the session that owns it say to each other: where events go, and where a feed begins."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import msgspec

from collector.events import BookTop, Gap, Kline, MarketEvent, Trade


class Sink(Protocol):
    """Take what a feed makes of its messages; synchronous, and never waiting, because the feed calls it per message."""

    def add_trade(self, trade: Trade) -> None: ...

    def add_book(self, top: BookTop) -> None: ...

    def add_event(self, stream: str, event: MarketEvent) -> None: ...

    def add_gap(self, gap: Gap) -> None: ...

    def add_kline(self, kline: Kline) -> None: ...

    def is_crowded(self) -> bool:
        """Return whether so many rows wait that it is better to let the next ones wait on the wire."""
        ...

    def observe(self, symbol: str, timestamp_us: int) -> None:
        """Learn an exchange time that was seen on any stream of the symbol; times may come out of order."""
        ...


class Recorder(Protocol):
    """Keep raw messages as they came and went.

    ``kind`` is ``+`` (connected; the payload is the URL), ``-`` (disconnected; the reason), ``>`` (text sent), ``<``
    (text received), ``b`` (binary received) or ``GET`` (connection ``http``; the payload is ``<status> <url> <body>``).
    """

    def frame(self, received_ns: int, connection: int | str, kind: str, payload: bytes | str) -> None: ...


class ResumePoint(msgspec.Struct, frozen=True):
    """Where a symbol's recording ended, so that a feed goes on from there and reports what is missing between.

    Args:
        last_trade_id: the highest id in prices.csv; None where there is none, or the exchange does not number trades.
        holes: inclusive id intervals below it that are known to be missing.
        last_trade_us: exchange time of that trade.
        last_update_id: of the last row in orderbook.csv.
        last_book_us: exchange time of that row.
        last_event_us: exchange time of the last row of any stream.
        last_other_us: exchange time of the last row of each stream that is neither trades nor books.
    """

    last_trade_id: int | None = None
    holes: tuple[tuple[int, int], ...] = ()
    last_trade_us: int | None = None
    last_update_id: int | None = None
    last_book_us: int | None = None
    last_event_us: int | None = None
    last_other_us: Mapping[str, int] = {}
