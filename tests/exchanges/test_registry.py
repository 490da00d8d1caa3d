"""The registry: what is listed can be made, and what is not is named with the nearest."""

from __future__ import annotations

import pytest

from collector.errors import UnknownName
from collector.exchanges.base import Exchange, Listing
from collector.exchanges.registry import EXCHANGES, create_exchange, exchange_class


@pytest.mark.parametrize("name", EXCHANGES)
def test_every_exchange(name: str) -> None:
    """Every exchange is a whole one, knows its name, and maps its symbols both ways."""
    exchange = create_exchange(name, [Listing("BTC_USDT", "BTCUSDT", "BTC", "USDT")])
    assert isinstance(exchange, Exchange)
    assert name == exchange.name
    assert exchange.symbol_of[exchange.native_of["BTC_USDT"]] == "BTC_USDT"
    assert exchange.ws_url.startswith(("ws://", "wss://"))
    assert exchange.rest_url.startswith(("http://", "https://"))
    assert exchange.ping_frame() is None or exchange.limits.ping_interval_s


@pytest.mark.parametrize("name", EXCHANGES)
def test_limits(name: str) -> None:
    """Limits let something through."""
    limits = exchange_class(name).limits
    assert 0 < limits.streams_per_frame <= limits.streams_per_connection
    assert limits.frames_per_s > 0
    assert limits.weight_per_min > 0


def test_unknown() -> None:
    """A misspelt exchange is refused with the nearest names."""
    with pytest.raises(UnknownName, match="binance"):
        create_exchange("binanse")
