"""The one place that lists the sources of candles by name."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from collector.errors import UnknownName
from collector.exchanges.base import Listing
from collector.exchanges.candle_sources.base import CandleSource

_HERE = "collector.exchanges.candle_sources"
_CLASSES: dict[str, tuple[str, str]] = {
    "binance_futures": ("binance", "BinanceFuturesCandles"),
    "binance": ("binance", "BinanceCandles"),
    "coingecko": ("coingecko", "CoingeckoCandles"),
    "cryptocompare": ("cryptocompare", "CryptocompareCandles"),
    "okx": ("okx", "OkxCandles"),
    "bybit": ("bybit", "BybitCandles"),
    "bybit_linear": ("bybit", "BybitLinearCandles"),
    "coinbase": ("coinbase", "CoinbaseCandles"),
    "coinbase_advanced": ("coinbase", "CoinbaseAdvancedCandles"),
    "kraken": ("kraken", "KrakenCandles"),
    "bitget": ("bitget", "BitgetCandles"),
    "kucoin": ("kucoin", "KucoinCandles"),
    "gate": ("gate", "GateCandles"),
    "mexc": ("mexc", "MexcCandles"),
    "hyperliquid": ("hyperliquid", "HyperliquidCandles"),
}

SOURCES = tuple(_CLASSES)
"""Every source."""
DEFAULT_ORDER = ("binance_futures", "binance", "coingecko", "cryptocompare", "okx", "bybit")
"""The sources that are asked unless the configuration names others, first to last."""


def source_class(name: str) -> type[CandleSource]:
    """Return a source's class, imported only now; raise UnknownName with the nearest names."""
    if name not in _CLASSES:
        raise UnknownName("source of candles", name, list(SOURCES))
    module, attribute = _CLASSES[name]
    found: type[CandleSource] = getattr(import_module(f"{_HERE}.{module}"), attribute)
    return found


def create_source(name: str, listings: Sequence[Listing] = ()) -> CandleSource:
    """Build a source; the listings, where there are any, say how it spells symbols."""
    return source_class(name)(listings)
