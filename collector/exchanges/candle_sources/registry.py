"""The one place that lists the sources of candles by name."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module
from typing import Any

from collector.errors import UnknownName
from collector.exchanges.base import Listing
from collector.exchanges.candle_sources.base import CandleSource
from collector.exchanges.candle_sources.series import FundingPoint, OpenInterestPoint, SeriesSource

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

_FUNDING: dict[str, tuple[str, str]] = {
    "binance_futures": ("binance", "BinanceFuturesFunding"),
    "okx": ("okx", "OkxFunding"),
    "bybit_linear": ("bybit", "BybitLinearFunding"),
    "hyperliquid": ("hyperliquid", "HyperliquidFunding"),
}
_OPEN_INTEREST: dict[str, tuple[str, str]] = {
    "binance_futures": ("binance", "BinanceFuturesOpenInterest"),
    "okx": ("okx", "OkxOpenInterest"),
    "bybit_linear": ("bybit", "BybitLinearOpenInterest"),
}

SOURCES = tuple(_CLASSES)
"""Every source."""
DEFAULT_ORDER = ("binance_futures", "binance", "coingecko", "cryptocompare", "okx", "bybit")
"""The sources that are asked unless the configuration names others, first to last."""

FUNDING_SOURCES = tuple(_FUNDING)
"""Every source of funding rates."""
OPEN_INTEREST_SOURCES = tuple(_OPEN_INTEREST)
"""Every source of open interest."""


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


def create_funding_source(name: str, listings: Sequence[Listing] = ()) -> SeriesSource[FundingPoint]:
    """Build a source of funding rates; raise UnknownName with the nearest that publish them."""
    source: SeriesSource[FundingPoint] = _create("source of funding rates", _FUNDING, name, listings)
    return source


def create_open_interest_source(name: str, listings: Sequence[Listing] = ()) -> SeriesSource[OpenInterestPoint]:
    """Build a source of open interest; raise UnknownName with the nearest that publish it."""
    source: SeriesSource[OpenInterestPoint] = _create("source of open interest", _OPEN_INTEREST, name, listings)
    return source


def _create(kind: str, classes: dict[str, tuple[str, str]], name: str, listings: Sequence[Listing]) -> Any:
    if name not in classes:
        raise UnknownName(kind, name, list(classes))
    module, attribute = classes[name]
    return getattr(import_module(f"{_HERE}.{module}"), attribute)(listings)
