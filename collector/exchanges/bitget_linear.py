"""Bitget's USDT perpetuals: the dialect of its spot market under another type of instrument.

Sources: those of ``bitget``, and frames of the real exchange. Sizes, volumes and open interest are in base currency.
Funding, mark price, index price and open interest come with the contract's ``ticker``, at the exchange's own pace;
``liquidation`` is one topic for the whole market, and leaves out all but the largest of each second and side.
"""

from __future__ import annotations

from collector.exchanges.bitget import STREAMS, Bitget


class BitgetLinear(Bitget):
    """Bitget's USDT-margined futures. Native spellings are ``BASEQUOTE``, with the month where one is delivered."""

    name = "bitget_linear"
    streams = (*STREAMS, "funding", "open_interest", "liquidations")

    _kind = "usdt-futures"
    _category = "USDT-FUTURES"
