"""The master list of symbols: coins by market cap, asked for once a day and kept on disk."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import msgspec

from collector.errors import LogError
from collector.exchanges.candle_sources.coingecko import MARKETS_PAGE, Coin, CoingeckoCandles, ids_by_symbol
from collector.exchanges.candle_sources.intervals import DAY_US
from collector.history.client import HistoryClient
from collector.history.tables import SymbolRow
from collector.storage.files import Files

_FILE = Path("history") / "coins.json"
_STABLE = frozenset(
    {"USDT", "USDC", "DAI", "BUSD", "FDUSD", "TUSD", "USDE", "USDS", "USDD", "PYUSD", "GUSD", "USDP", "FRAX", "LUSD",
     "USD1", "USDG", "RLUSD", "USDY", "EURC", "EURT", "EURS", "XAUT", "PAXG"}
)  # fmt: skip
_WRAPPED = re.compile(r"\b(wrapped|bridged|staked|restaked|pegged|wormhole|binance-peg)\b", re.IGNORECASE)


class CoinList(msgspec.Struct):
    """Coins by rank, best first, each symbol once, and when they were asked for; ``ids`` names every coin."""

    fetched_us: int
    coins: list[Coin]
    ids: dict[str, str]

    def symbols(self, count: int, quote: str) -> list[str]:
        """Return the first so many tradable symbols: neither stablecoins nor what is wrapped."""
        chosen = [coin for coin in self.coins if not (is_stablecoin(coin) or is_wrapped(coin))]
        return [f"{coin.symbol}_{quote}" for coin in chosen[:count]]


def is_stablecoin(coin: Coin) -> bool:
    """Tell whether a coin stands for a currency or for gold, by its symbol, or by its name where that says dollars."""
    return coin.symbol in _STABLE or coin.symbol.startswith("USD") or " usd" in f" {coin.name.lower()}"


def is_wrapped(coin: Coin) -> bool:
    """Tell whether a coin stands for another one, as its name says."""
    return _WRAPPED.search(coin.name) is not None or coin.id.startswith(("wrapped-", "bridged-"))


def load_coins(data_dir: Path, now_us: int) -> CoinList | None:
    """Return the list on disk where it is not older than a day and can be read."""
    try:
        found = msgspec.json.decode((data_dir / _FILE).read_bytes(), type=CoinList)
    except (OSError, msgspec.MsgspecError):
        return None
    return found if 0 <= now_us - found.fetched_us < DAY_US else None


async def fetch_coins(client: HistoryClient, count: int, now_us: int) -> CoinList:
    """Ask for the first so many coins by market cap, and for the ids of all.

    Raises:
        SourceRefused, ConnectionLost, MessageError: the source does not answer.
    """
    source = CoingeckoCandles()
    ranked: list[Coin] = []
    for page in range(1, -(-count // MARKETS_PAGE) + 1):
        found = source.parse_coins(await client.get(source, source.markets_request(page)))
        ranked += found
        if len(found) < MARKETS_PAGE:
            break
    everything = source.parse_coins(await client.get(source, source.coins_request()))
    best: dict[str, Coin] = {}
    for coin in ranked:
        best.setdefault(coin.symbol, coin)
    ids = {**ids_by_symbol(everything), **{symbol: coin.id for symbol, coin in best.items()}}
    return CoinList(now_us, list(best.values()), ids)


def save_coins(data_dir: Path, coins: CoinList, files: Files) -> None:
    """Keep a list on disk; raise LogError where that fails."""
    path = data_dir / _FILE
    try:
        if not path.parent.is_dir():
            files.make_folder(path.parent)
        files.replace(path, msgspec.json.encode(coins))
    except OSError as error:
        raise LogError(f"{path} could not be written: {error.strerror or error}.") from error


def symbol_rows(coins: CoinList, quote: str, exchanges: dict[str, Sequence[str]]) -> list[SymbolRow]:
    """Return the rows of ``symbols``.

    Args:
        exchanges: who trades a symbol, as far as somebody was asked; a symbol is active where any does, and where
            nobody could be asked.
    """
    return [
        SymbolRow(
            symbol=(symbol := f"{coin.symbol}_{quote}"),
            base=coin.symbol,
            quote=quote,
            name=coin.name,
            coingecko_id=coin.id,
            market_cap_rank=coin.market_cap_rank,
            is_active=not exchanges or bool(exchanges.get(symbol)),
            is_stablecoin=is_stablecoin(coin),
            is_wrapped=is_wrapped(coin),
            exchanges=tuple(exchanges.get(symbol, ())),
            updated_us=coins.fetched_us,
        )
        for coin in coins.coins
    ]
