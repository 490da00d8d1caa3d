"""Binance COIN-M futures: where they differ from USD-M."""

from __future__ import annotations

import json
from typing import Any

from collector.events import BookDelta, Funding, Kline, OpenInterest, Trade
from collector.exchanges.base import Listing, Request, Subscription
from collector.exchanges.binance_coinm import BinanceCoinM

RECEIVED = 1_626_992_741_000_000
PERPETUAL = Listing("BTC_USD", "BTCUSD_PERP", "BTC", "USD", contract_size="100", inverse=True)
DATED = Listing("ETH_USD-260327", "ETHUSD_260327", "ETH", "USD", contract_size="10", inverse=True)
COINM = BinanceCoinM([PERPETUAL, DATED])


def parse(message: dict[str, Any]) -> list[object]:
    return list(COINM.parse(json.dumps({"stream": "x", "data": message}), RECEIVED))


def test_listing() -> None:
    """A contract's size is in the listing; a status has another name than elsewhere."""
    rows = [
        ("BTCUSD_PERP", "BTC", "TRADING", 100),
        ("ETHUSD_260327", "ETH", "TRADING", 10),
        ("ADAUSD_PERP", "ADA", "PENDING_TRADING", 10),
    ]
    body = {
        "symbols": [
            {"symbol": native, "contractStatus": status, "contractSize": size, "baseAsset": base, "quoteAsset": "USD"}
            for native, base, status, size in rows
        ]
    }
    listings = COINM.parse_listing(json.dumps(body).encode())
    assert listings[:2] == [PERPETUAL, DATED]
    assert [(listing.symbol, listing.active) for listing in listings[2:]] == [("ADA_USD", False)]


def test_a_replay_lists_contracts_as_the_exchange_does() -> None:
    """A recording without a listing is played with one that reads back as the same."""
    body = COINM.write_listing(["BTC_USD", "ETH_USD-260327"])
    assert body is not None
    assert COINM.parse_listing(body) == [PERPETUAL, DATED]


def test_sizes_are_contracts() -> None:
    """They are passed on as the exchange wrote them."""
    message = {
        "e": "aggTrade", "E": 1591261134288, "a": 424951, "s": "BTCUSD_PERP", "p": "9643.5", "q": "2", "f": 606073,
        "l": 606073, "T": 1591261134199, "m": False,
    }  # fmt: skip
    assert [Trade("BTC_USD", 1591261134199000, "9643.5", "2", "buy", 424951, RECEIVED, "ws", 606073, 606073)] == parse(
        message
    )


def test_a_change_of_the_book_names_the_one_before_it() -> None:
    """The rule is that of USD-M."""
    message = {
        "e": "depthUpdate", "E": 1591270260907, "T": 1591270260891, "s": "BTCUSD_PERP", "ps": "BTCUSD",
        "U": 17285681, "u": 17285702, "pu": 17285675, "b": [["9517.6", "10"]], "a": [["9518.5", "45"]],
    }  # fmt: skip
    (delta,) = parse(message)
    assert isinstance(delta, BookDelta)
    assert (delta.symbol, delta.previous_id, delta.timestamp_us) == ("BTC_USD", 17285675, 1591270260891000)


def test_candles_count_contracts() -> None:
    """Their second volume is in coins, and none in quote currency."""
    message = {
        "e": "kline", "E": 1591261542539, "s": "BTCUSD_PERP",
        "k": {
            "t": 1591261500000, "T": 1591261559999, "s": "BTCUSD_PERP", "i": "1m", "f": 606400, "L": 606430,
            "o": "9638.9", "c": "9639.8", "h": "9639.8", "l": "9638.6", "v": "156", "n": 31, "x": False,
            "q": "1.61836886", "V": "73", "Q": "0.75731156", "B": "0",
        },
    }  # fmt: skip
    (kline,) = parse(message)
    assert isinstance(kline, Kline)
    assert (kline.volume, kline.quote_volume, kline.taker_buy_volume, kline.trades_count) == ("156", None, "73", 31)


def test_mark_prices() -> None:
    """A dated contract has no funding."""
    message = {
        "e": "markPriceUpdate", "E": 1596095725000, "s": "ETHUSD_260327", "p": "10934.62615417",
        "P": "10962.17178236", "i": "10933.62615417", "r": "", "T": 0,
    }  # fmt: skip
    assert [
        Funding("ETH_USD-260327", 1596095725000000, None, None, "10934.62615417", "10933.62615417", RECEIVED)
    ] == parse(message)


def test_open_interest_is_asked_for_at_its_own_address() -> None:
    """In contracts."""
    (request,) = COINM.poll_requests([Subscription("open_interest", "BTC_USD")])
    assert request == Request("/dapi/v1/openInterest", {"symbol": "BTCUSD_PERP"})
    body = (
        b'{"symbol":"BTCUSD_PERP","pair":"BTCUSD","openInterest":"15004","contractType":"PERPETUAL",'
        b'"time":1591261042378}'
    )
    assert [OpenInterest("BTC_USD", 1591261042378000, "15004", None, RECEIVED, "rest")] == list(
        COINM.parse_poll(request, body, RECEIVED)
    )


def test_all_streams_are_on_one_path() -> None:
    """Unlike USD-M's, these addresses were not split."""
    wanted = [Subscription(stream, "BTC_USD") for stream in COINM.streams if stream != "open_interest"]
    (plan,) = COINM.plan(wanted)
    assert plan.path == "/stream"
    assert [json.loads(frame)["params"] for frame in plan.frames] == [
        [
            "btcusd_perp@aggTrade", "btcusd_perp@depth@100ms", "btcusd_perp@kline_1m", "btcusd_perp@bookTicker",
            "btcusd_perp@markPrice@1s", "btcusd_perp@forceOrder",
        ]
    ]  # fmt: skip
