"""A symbol's day as files of nautilus_trader's ParquetDataCatalog: trade ticks, and quote ticks of the best prices.

``ts_event`` is the exchange's time, ``ts_init`` when it was received (the exchange's time where that is not known),
by which the ticks of a file are sorted. Instruments are currency pairs ``BTC_USDT.VENUE`` with as many decimals as the
data has; fees, limits and margins are not known to the collector, and are nautilus_trader's defaults.
"""

from __future__ import annotations

from importlib import import_module
from pathlib import Path
from typing import Any

from collector.reading.arrow import Table, extra

_MAX_DECIMALS = 16


def decimals_of(values: Any, least: int = 0) -> int:
    """Return how many decimals a numpy array's values have at most, and at least so many; 16 where they have more."""
    np = extra("numpy")
    known = values[~np.isnan(values)]
    decimals = least
    while decimals < _MAX_DECIMALS and (np.round(known, decimals) != known).any():
        decimals += 1
    return decimals


class Catalog:
    """Write ticks of one symbol into a folder that ParquetDataCatalog reads.

    Args:
        decimals: of prices, and of sizes.

    Raises:
        MissingExtra: nautilus_trader is not installed.
    """

    def __init__(self, exchange: str, symbol: str, decimals: tuple[int, int]) -> None:
        extra("nautilus_trader")
        self._np = extra("numpy")
        self._data = import_module("nautilus_trader.model.data")
        identifiers = import_module("nautilus_trader.model.identifiers")
        self._symbol = identifiers.Symbol(symbol)
        self.id = identifiers.InstrumentId(self._symbol, identifiers.Venue(exchange.upper()))
        self._decimals = decimals

    def instrument(self) -> Any:
        """Return the instrument."""
        instruments = import_module("nautilus_trader.model.instruments")
        objects = import_module("nautilus_trader.model.objects")
        base, _, quote = str(self._symbol).partition("-")[0].partition("_")
        price, size = self._decimals
        return instruments.CurrencyPair(
            instrument_id=self.id,
            raw_symbol=self._symbol,
            base_currency=objects.Currency.from_str(base),
            quote_currency=objects.Currency.from_str(quote),
            price_precision=price,
            size_precision=size,
            price_increment=objects.Price(10**-price, price),
            size_increment=objects.Quantity(10**-size, size),
            ts_event=0,
            ts_init=0,
        )

    def trades(self, table: Table) -> list[Any]:
        """Return trades as ``TradeTick``, by ``ts_init``."""
        np, pc = self._np, extra("pyarrow.compute")
        table, events, inits = self._by_receipt(table)
        sides = np.where(
            pc.equal(pc.fill_null(table["side"], ""), "buy").to_numpy(),
            1,
            np.where(pc.equal(pc.fill_null(table["side"], ""), "sell").to_numpy(), 2, 0),
        ).astype("uint8")
        ticks: list[Any] = self._data.TradeTick.from_raw_arrays_to_list(
            self.id,
            *self._decimals,
            table["price"].to_numpy().copy(),
            table["volume"].to_numpy().copy(),
            sides,
            table["trade_id"].to_pylist(),
            events,
            inits,
        )
        return ticks

    def quotes(self, table: Table) -> list[Any]:
        """Return the best bids and asks as ``QuoteTick``, by ``ts_init``; rows that lack a side are left out."""
        pc = extra("pyarrow.compute")
        names = ("bid_price_1", "ask_price_1", "bid_qty_1", "ask_qty_1")
        for name in names:
            table = table.filter(pc.is_valid(table[name]))
        table, events, inits = self._by_receipt(table)
        ticks: list[Any] = self._data.QuoteTick.from_raw_arrays_to_list(
            self.id, *self._decimals, *(table[name].to_numpy().copy() for name in names), events, inits
        )
        return ticks

    def _by_receipt(self, table: Table) -> tuple[Table, Any, Any]:
        np, pa = self._np, extra("pyarrow")
        times = table["timestamp"].cast("int64").to_numpy()
        received = extra("pyarrow.compute").fill_null(table["received_at"].cast("int64"), 0).to_numpy()
        inits = np.where(received > 0, received, times)
        order = np.argsort(inits, kind="stable")
        stamps = ((values[order] * 1000).astype("uint64") for values in (times, inits))
        return (table.take(pa.array(order)).combine_chunks(), *stamps)


def write_catalog(folder: Path, data: list[Any]) -> list[Path]:
    """Write objects into a catalogue of their own, and return its files."""
    catalog = import_module("nautilus_trader.persistence.catalog").ParquetDataCatalog(str(folder))
    catalog.write_data(data, skip_disjoint_check=True)
    return sorted(path for path in folder.rglob("*.parquet") if path.is_file())
