"""What is refused before a session begins, and what an order is completed with."""

from __future__ import annotations

import pytest

from collector.config import Config
from collector.errors import UnknownName, UsageError
from collector.exchanges.base import Listing
from collector.exchanges.binance import Binance
from collector.exchanges.registry import create_exchange
from collector.orders import check_offer, check_order, choose_listings, subscriptions_of
from collector.requests import StartRequest
from collector.streams import DATA_TYPES

LISTINGS = [
    Listing("BTC_USDT", "BTCUSDT", "BTC", "USDT"),
    Listing("ETH_USDT", "ETHUSDT", "ETH", "USDT"),
    Listing("LUNA_USDT", "LUNAUSDT", "LUNA", "USDT", active=False),
]


def order(**changes: object) -> StartRequest:
    """Return an order that is right but for the changes."""
    return StartRequest(**{"exchange": "binance", "symbols": ("BTC_USDT",), **changes})  # type: ignore[arg-type]


def test_an_order_takes_its_data_types_from_the_configuration() -> None:
    """What a person leaves out is what config.toml says."""
    assert check_order(order(), Config()).data_types == ("prices", "orderbook")


def test_a_symbol_named_twice_is_collected_once() -> None:
    """Repetitions are dropped, and the order of the rest is kept."""
    assert check_order(order(symbols=("B_A", "A_B", "B_A")), Config()).symbols == ("B_A", "A_B")


@pytest.mark.parametrize(
    ("changes", "nearest"),
    [({"exchange": "binanse"}, "binance"), ({"data_types": ("price",)}, "prices")],
)
def test_a_misspelt_name_is_answered_with_the_nearest(changes: dict[str, object], nearest: str) -> None:
    """A typing error costs one look at the message."""
    with pytest.raises(UnknownName) as raised:
        check_order(order(**changes), Config())
    assert nearest in raised.value.nearest


@pytest.mark.parametrize("changes", [{"symbols": ()}, {"duration_s": 0.0}, {"duration_s": -5.0}])
def test_an_impossible_order_is_refused(changes: dict[str, object]) -> None:
    """Nothing to collect, or no time to collect it in, is an error and no empty session."""
    with pytest.raises(UsageError):
        check_order(order(**changes), Config())


def test_more_symbols_than_the_limit_are_refused_with_the_key_to_raise() -> None:
    """The limit is in the configuration, and the error says where."""
    config = Config(session={"max_symbols": 1})  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"session\.max_symbols"):
        check_order(order(symbols=("A_B", "C_D")), config)


def test_the_depth_of_books_is_what_was_asked_and_no_more_than_the_exchange_gives() -> None:
    """What config.toml says holds as far as it goes; what a person asks for is refused where it cannot be had."""
    config = Config(orderbook={"levels": 50})  # type: ignore[arg-type]
    assert check_order(order(), Config()).book_levels == 3
    assert check_order(order(), config).book_levels == 50
    assert check_order(order(book_levels=5), config).book_levels == 5
    assert check_order(order(exchange="hyperliquid"), config).book_levels == 20
    for changes in ({"exchange": "hyperliquid", "book_levels": 21}, {"book_levels": 0}, {"book_levels": 1001}):
        with pytest.raises(UsageError, match="levels of each side"):
            check_order(order(**changes), config)


def test_listings_come_in_the_order_asked() -> None:
    """The session's symbols keep the order of the command line."""
    chosen = choose_listings(create_exchange("binance"), LISTINGS, ["ETH_USDT", "BTC_USDT"])
    assert [listing.native for listing in chosen] == ["ETHUSDT", "BTCUSDT"]


def test_a_symbol_that_the_exchange_does_not_list_is_answered_with_the_nearest() -> None:
    """ETH_USTD is told apart from ETH_USDT before anything is written."""
    with pytest.raises(UnknownName) as raised:
        choose_listings(create_exchange("binance"), LISTINGS, ["ETH_USTD"])
    assert raised.value.nearest[0] == "ETH_USDT"


def test_a_symbol_that_is_not_traded_now_is_refused() -> None:
    """A delisted symbol would be a session that is silent for ever."""
    with pytest.raises(UsageError, match="not traded"):
        choose_listings(create_exchange("binance"), LISTINGS, ["LUNA_USDT"])


def test_prices_bring_the_exchanges_own_candles_with_them() -> None:
    """Klines are subscribed to, to be compared with ours; a session of books alone does without."""
    both = ["prices", "orderbook"]
    listing = LISTINGS[:1]
    assert [s.stream for s in subscriptions_of(listing, both, create_exchange("binance"))] == [*both, "klines"]
    assert [s.stream for s in subscriptions_of(listing, both, create_exchange("coinbase"))] == both
    assert [s.stream for s in subscriptions_of(listing, ["orderbook"], create_exchange("binance"))] == ["orderbook"]
    recorded = subscriptions_of(listing, ["klines", "prices"], create_exchange("binance"))
    assert [s.stream for s in recorded] == ["klines", "prices"]


def test_a_data_type_that_the_exchange_does_not_offer_is_refused_with_what_it_offers() -> None:
    """Spot has no funding: that is said before a session begins."""
    with pytest.raises(UsageError, match="binance does not offer funding") as raised:
        check_order(order(data_types=("prices", "funding")), Config())
    assert raised.value.hint is not None
    assert "prices, orderbook" in raised.value.hint


def test_all_is_every_data_type_that_the_exchange_offers() -> None:
    """And what one of its markets does not have is then left out there."""
    checked = check_order(order(data_types=("all",)), Config())
    offered = create_exchange("binance").streams
    assert checked.data_types == tuple(name for name in DATA_TYPES if name in offered)
    assert checked.whatever_offered
    assert not check_order(order(), Config()).whatever_offered


class Mixed(Binance):
    """An exchange with a market of spot and one of contracts."""

    streams = ("prices", "orderbook", "klines", "funding")

    def offers(self, listing: Listing) -> tuple[str, ...]:
        return self.streams if listing.symbol.endswith("-SWAP") else self.streams[:3]


def test_a_market_without_a_data_type_is_named() -> None:
    """Where one exchange has several kinds of markets, each symbol is looked at."""
    swap = Listing("BTC_USDT-SWAP", "BTCSWAP", "BTC", "USDT")
    exchange = Mixed([*LISTINGS[:1], swap])
    check_offer(exchange, [swap], ["prices", "funding"])
    with pytest.raises(UsageError, match="BTC_USDT on binance does not offer funding"):
        check_offer(exchange, [swap, LISTINGS[0]], ["prices", "funding"])
    wanted = subscriptions_of([swap, LISTINGS[0]], ["prices", "funding"], exchange)
    assert [(s.stream, s.symbol) for s in wanted if s.stream == "funding"] == [("funding", "BTC_USDT-SWAP")]


def test_a_misspelt_rule_is_refused_before_anything_is_asked() -> None:
    """A rule is checked as early as a symbol."""
    with pytest.raises(UsageError, match="top:50"):
        check_order(order(symbols=("top:many",)), Config())
    assert check_order(order(symbols=("top:5",)), Config()).symbols == ("top:5",)


def test_a_session_that_goes_on_leaves_out_what_is_no_longer_traded() -> None:
    """A delisted symbol does not keep the others from going on; where none is left, that is said."""
    exchange = create_exchange("binance")
    symbols = ["LUNA_USDT", "ETH_USDT", "GONE_USDT"]
    assert choose_listings(exchange, LISTINGS, symbols, going_on=True) == [LISTINGS[1]]
    with pytest.raises(UsageError, match="LUNA_USDT"):
        choose_listings(exchange, LISTINGS, ["LUNA_USDT"], going_on=True)
