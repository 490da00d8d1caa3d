"""Binance COIN-M futures: USD-M's words on one websocket path, contracts in place of coins.

Sources: the exchange's pages "Websocket Market Streams" and "Market Data Endpoints" of COIN-M futures.

Perpetual contracts (``BTCUSD_PERP``) are ``BTC_USD``, dated ones (``BTCUSD_260327``) ``BTC_USD-260327``. Every size is
a number of contracts, and a contract is worth a fixed sum of quote currency (100 USD for BTC, 10 USD for all others),
as the listing says, and the manifest keeps it. ``quote_volume`` is price times contracts here too, exactly, and no
sum of money: that is contracts times the contract's size. The exchange's candles count volumes in contracts too; their
second volume is in coins, and is left out.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from collector.events import Event, Kline
from collector.exchanges.base import Limits
from collector.exchanges.binance_futures import BinanceFutures
from collector.exchanges.decode import require_stream

_SIZES = {"BTC": 100}
_SIZE = 10


class BinanceCoinM(BinanceFutures):
    """Binance's coin-margined contracts."""

    name = "binance_coinm"
    ws_url = "wss://dstream.binance.com"
    rest_url = "https://dapi.binance.com"
    limits = Limits(
        streams_per_connection=200,
        streams_per_frame=100,
        frames_per_s=5,  # 10 are allowed, and our pongs count among them
        connects_per_5_min=300,
        connection_life_s=24 * 3600,
        weight_per_min=2400,  # shared with USD-M from one address
    )

    _api = "/dapi/v1"

    def parse(self, frame: bytes | str, received_us: int) -> Sequence[Event]:
        events = super().parse(frame, received_us)
        if events and type(events[0]) is Kline:
            return [msgspec.structs.replace(event, quote_volume=None) for event in events]
        return events

    def write_listing(self, symbols: Sequence[str]) -> bytes | None:
        rows = []
        for symbol in symbols:
            base, _, rest = symbol.partition("_")
            quote, _, delivery = rest.partition("-")
            rows.append(
                {
                    "symbol": f"{base}{quote}_{delivery or 'PERP'}",
                    "contractStatus": "TRADING",
                    "contractSize": _SIZES.get(base, _SIZE),
                    "baseAsset": base,
                    "quoteAsset": quote,
                }
            )
        return msgspec.json.encode({"symbols": rows})

    def _path(self, stream: str, raw_trades: bool) -> str:  # noqa: ARG002  one path serves all
        require_stream(stream, self.streams)
        return "/stream"
