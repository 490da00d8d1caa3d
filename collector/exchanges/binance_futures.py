"""Binance USD-M futures: spot's words with two websocket paths, its own book rule, limits and contracts.

Since 2026-04-23 a stream is served on its category's path alone (``/public``: depth, bookTicker; ``/market``: aggTrade,
kline, markPrice, forceOrder); the old path without one still connects and acknowledges, and then delivers nothing of
``/market``. Open interest has no channel: it is asked for over REST.
"""

from __future__ import annotations

from collector.events import BookDelta, BookSnapshot
from collector.exchanges.base import BookRule, Limits
from collector.exchanges.binance import STREAMS, Binance
from collector.exchanges.decode import require_stream


class FuturesBookRule:
    """Futures' rule: drop ``u < L``; the first needs ``pu <= L <= u``; then each ``pu`` is the ``u`` before it.

    Source: "How to manage a local order book correctly". It asks ``U <= L <= u`` of the first, and live streams may
    begin with ``pu == L`` instead. ``pu <= L <= u`` holds for both and is what makes the step sound: the delta has all
    changes after ``pu``, the snapshot all up to ``L``.
    """

    __slots__ = ("_started", "last_id")

    def __init__(self) -> None:
        self.last_id: int | None = None
        self._started = False

    def apply_snapshot(self, snapshot: BookSnapshot) -> None:
        self.last_id = snapshot.last_id
        self._started = False

    def judge(self, delta: BookDelta) -> str:
        last = self.last_id
        if last is None:
            return "gap"
        previous = delta.previous_id if delta.previous_id is not None else delta.first_id - 1
        if self._started:
            if previous != last:
                return "stale" if delta.last_id <= last else "gap"
        else:
            if delta.last_id < last:
                return "stale"
            if previous > last:
                return "gap"
            self._started = True
        self.last_id = delta.last_id
        return "apply"


class BinanceFutures(Binance):
    """Binance USD-M futures: perpetual contracts are ``BASE_QUOTE``, dated ones ``BASE_QUOTE-YYMMDD``."""

    name = "binance_futures"
    ws_url = "wss://fstream.binance.com"
    rest_url = "https://fapi.binance.com"
    limits = Limits(
        streams_per_connection=200,  # the documentation has said 1024 and 200; large clients keep to 200
        streams_per_frame=100,
        frames_per_s=5,  # 10 are allowed, and our pongs count among them
        connects_per_5_min=300,
        connection_life_s=24 * 3600,
        weight_per_min=2400,
    )

    streams = (*STREAMS, "funding", "open_interest", "liquidations")
    polled_streams = ("open_interest",)
    steady_streams = frozenset({"funding"})  # a mark price each second

    _api = "/fapi/v1"
    snapshot_depth = 1000
    deepest_book = 500
    _depth_limit = "1000"
    _depth_weight = 20
    _trades_weight = 20
    _volumes_weight = 40
    _listing_weight = 1

    def book_rule(self) -> BookRule:
        return FuturesBookRule()

    def _path(self, stream: str, raw_trades: bool) -> str:
        require_stream(stream, self.streams)
        # Raw trades are undocumented here. Two collectors in production and one measurement get them on /public, one
        # library asks on /market, another calls them silenced. A feed that hears nothing reports it; aggTrade is safe.
        public = stream in ("orderbook", "tickers") or (stream == "prices" and raw_trades)
        return "/public/stream" if public else "/market/stream"
