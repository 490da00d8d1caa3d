"""What every dialect can be asked besides its streams: how subscriptions end, and what was traded last."""

from __future__ import annotations

import json

import pytest

from collector.errors import MessageError
from collector.exchanges.base import Listing, Subscription
from collector.exchanges.registry import EXCHANGES, create_exchange

LISTINGS = [Listing("BTC_USDT", "BTCUSDT", "BTC", "USDT")]
WANTED = [Subscription("prices", "BTC_USDT"), Subscription("orderbook", "BTC_USDT")]


@pytest.mark.parametrize("name", EXCHANGES)
def test_what_was_asked_for_can_be_ended(name: str) -> None:
    """Each channel that is asked for is named in a frame that ends it, with the exchange's own verb."""
    exchange = create_exchange(name, LISTINGS)
    asked = [frame for plan in exchange.plan(WANTED) for frame in plan.frames if '"heartbeats"' not in frame]
    ended = exchange.unsubscribe_frames(WANTED)
    assert len(ended) == len(asked)
    for before, after in zip(asked, ended, strict=True):
        changed = {key for key, value in json.loads(before).items() if json.loads(after)[key] != value}
        [key] = changed
        assert json.loads(after)[key].lower() == "un" + json.loads(before)[key].lower()


UNASKED = ("hyperliquid", "kucoin_linear")
"""Hyperliquid documents no request for its newest trade; of KuCoin's contracts no answer was found to test against."""


@pytest.mark.parametrize("name", [name for name in EXCHANGES if name not in UNASKED])
def test_the_newest_trade_can_be_asked_for(name: str) -> None:
    """An answer that is none is refused."""
    exchange = create_exchange(name, LISTINGS)
    request = exchange.newest_trade_request("BTC_USDT")
    assert request is not None
    assert "BTCUSDT" in (request.path + str(request.params))
    with pytest.raises(MessageError):
        exchange.parse_newest_trade_us("BTC_USDT", b'{"code": 1', 0)


@pytest.mark.parametrize(
    ("name", "body"),
    [
        (
            "binance",
            '[{"a":26129,"p":"0.01633102","q":"4.70443515","f":27781,"l":27781,"T":1498793709153,"m":true,"M":true}]',
        ),
        (
            "bybit",
            (
                '{"retCode":0,"retMsg":"OK","result":{"category":"spot","list":[{"execId":"2100000000007764263",'
                '"symbol":"BTCUSDT","price":"16618.49","size":"0.00012","side":"Buy","time":"1498793709153",'
                '"isBlockTrade":false}]},"retExtInfo":{},"time":1672052955758}'
            ),
        ),
        (
            "mexc",
            (
                '[{"id":null,"price":"23","qty":"0.478468","quoteQty":"11.004764","time":1498793709153,'
                '"isBuyerMaker":true,"isBestMatch":true}]'
            ),
        ),
    ],
)
def test_the_newest_trade_has_a_time(name: str, body: str) -> None:
    """Its time is what a silent stream is compared with, in microseconds; no trade at all has none."""
    exchange = create_exchange(name, LISTINGS)
    assert exchange.parse_newest_trade_us("BTC_USDT", body.encode(), 0) == 1_498_793_709_153_000
    empty = '{"retCode":0,"result":{"list":[]}}' if name == "bybit" else "[]"
    assert exchange.parse_newest_trade_us("BTC_USDT", empty.encode(), 0) is None


def test_a_look_at_a_book_is_cheap_where_a_whole_one_is_not() -> None:
    """Binance charges by depth."""
    exchange = create_exchange("binance", LISTINGS)
    assert exchange.book_probe_request("BTC_USDT").weight < exchange.snapshot_request("BTC_USDT").weight
