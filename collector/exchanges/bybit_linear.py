"""Bybit's linear contracts: spot's words on another path, sizes in the base currency.

Perpetual contracts are ``BASE_QUOTE``, dated ones have their day: ``BTCUSDT-27MAR26`` is ``BTC_USDT-27MAR26``. A
perpetual of USDC, ``BTCPERP``, is ``BTC_USDC``.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from collector.exchanges.bybit import STREAMS, Bybit


class BybitLinear(Bybit):
    """Bybit's USDT and USDC contracts."""

    name = "bybit_linear"
    streams = (*STREAMS, "funding", "open_interest", "liquidations")

    _category = "linear"
    _recent_trades = "1000"

    def write_listing(self, symbols: Sequence[str]) -> bytes | None:
        rows = []
        for symbol in symbols:
            base, _, rest = symbol.partition("_")
            quote, dash, delivery = rest.partition("-")
            if quote == "USDC":
                native = f"{base}-{delivery}" if dash else f"{base}PERP"
            else:
                native = f"{base}{quote}{dash}{delivery}"
            rows.append({"symbol": native, "baseCoin": base, "quoteCoin": quote})
        return msgspec.json.encode({"retCode": 0, "retMsg": "OK", "result": {"nextPageCursor": "", "list": rows}})
