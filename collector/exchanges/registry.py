"""The one place that lists the exchanges by name."""

from __future__ import annotations

from collections.abc import Sequence
from importlib import import_module

from collector.errors import UnknownName
from collector.exchanges.base import Exchange, Listing
from collector.exchanges.ccxt import Ccxt, is_ccxt

_CLASSES: dict[str, tuple[str, str]] = {
    "binance": ("collector.exchanges.binance", "Binance"),
    "binance_coinm": ("collector.exchanges.binance_coinm", "BinanceCoinM"),
    "binance_futures": ("collector.exchanges.binance_futures", "BinanceFutures"),
    "bitget": ("collector.exchanges.bitget", "Bitget"),
    "bitget_linear": ("collector.exchanges.bitget_linear", "BitgetLinear"),
    "bybit": ("collector.exchanges.bybit", "Bybit"),
    "bybit_linear": ("collector.exchanges.bybit_linear", "BybitLinear"),
    "coinbase": ("collector.exchanges.coinbase", "Coinbase"),
    "coinbase_advanced": ("collector.exchanges.coinbase_advanced", "CoinbaseAdvanced"),
    "gate": ("collector.exchanges.gate", "Gate"),
    "gate_linear": ("collector.exchanges.gate_linear", "GateLinear"),
    "hyperliquid": ("collector.exchanges.hyperliquid", "Hyperliquid"),
    "kraken": ("collector.exchanges.kraken", "Kraken"),
    "kucoin": ("collector.exchanges.kucoin", "Kucoin"),
    "kucoin_linear": ("collector.exchanges.kucoin_linear", "KucoinLinear"),
    "mexc": ("collector.exchanges.mexc", "Mexc"),
    "okx": ("collector.exchanges.okx", "Okx"),
    "sim": ("collector.exchanges.sim", "Sim"),
}

EXCHANGES = tuple(_CLASSES)


def exchange_class(name: str) -> type[Exchange]:
    """Return an exchange's class, imported only now; raise UnknownName with the nearest names."""
    if name not in _CLASSES:
        raise UnknownName("exchange", name, list(EXCHANGES))
    module, attribute = _CLASSES[name]
    found: type[Exchange] = getattr(import_module(module), attribute)
    return found


def known_exchange(name: str) -> type[Exchange] | Ccxt:
    """Return what is known of an exchange of ours or, as ``ccxt:NAME``, of ccxt's; raise UnknownName otherwise."""
    return Ccxt(name) if is_ccxt(name) else exchange_class(name)


def create_exchange(name: str, listings: Sequence[Listing] = ()) -> Exchange:
    """Build an exchange's dialect for a session's instruments."""
    return exchange_class(name)(listings)
