"""The words of Binance spot, as the simulated exchange speaks them (its pages "WebSocket Streams", "Market data")."""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from collector.sim.market import Book, Diff, Fold, Forced, Instrument, Mark, Print, decimal_text, first_raw_id, raw_lots

_BOOLEANS = ("false", "true")


def aggregated_trades(instrument: Instrument, prints: Sequence[Print]) -> list[str]:
    """Write the messages of ``@aggTrade``."""
    native = instrument.native
    price_text, lot_text = instrument.price_text, instrument.lot_text
    texts = []
    for trade_id, time_us, ticks, lots, maker in prints:
        time_ms = time_us // 1000
        texts.append(
            f'{{"e":"aggTrade","E":{time_ms},"s":"{native}","a":{trade_id},"p":"{price_text(ticks)}",'
            f'"q":"{lot_text(lots)}","f":{first_raw_id(trade_id)},"l":{first_raw_id(trade_id + 1) - 1},'
            f'"T":{time_ms},"m":{_BOOLEANS[maker]},"M":true}}'
        )
    return texts


def raw_trades(instrument: Instrument, prints: Sequence[Print]) -> list[str]:
    """Write the messages of ``@trade``: those that the aggregated ones stand for."""
    return [
        f'{{"e":"trade","E":{trade.time_us // 1000},"s":"{instrument.native}","t":{raw_id},'
        f'"p":"{instrument.price_text(trade.ticks)}","q":"{instrument.lot_text(lots)}","T":{trade.time_us // 1000},'
        f'"m":{_BOOLEANS[trade.maker]},"M":true}}'
        for trade in prints
        for raw_id, lots in enumerate(raw_lots(trade), first_raw_id(trade.id))
    ]


def depth_update(instrument: Instrument, diff: Diff, time_us: int) -> str:
    """Write a message of ``@depth``."""
    return (
        f'{{"e":"depthUpdate","E":{time_us // 1000},"s":"{instrument.native}","U":{diff.first_id},"u":{diff.last_id},'
        f'"b":{_levels(instrument, diff.bids)},"a":{_levels(instrument, diff.asks)}}}'
    )


def book_ticker(instrument: Instrument, book: Book) -> str:
    """Write a message of ``@bookTicker``, which has no time."""
    (bid, bid_lots), (ask, ask_lots) = book.bids[0], book.asks[0]
    return (
        f'{{"u":{book.last_id},"s":"{instrument.native}",'
        f'"b":"{instrument.price_text(bid)}","B":"{instrument.lot_text(bid_lots)}",'
        f'"a":"{instrument.price_text(ask)}","A":"{instrument.lot_text(ask_lots)}"}}'
    )


def mark_price(instrument: Instrument, mark: Mark, time_us: int) -> str:
    """Write a message of ``@markPrice@1s``, as USD-M futures send it."""
    native, price = instrument.native, instrument.price_text
    return (
        f'{{"e":"markPriceUpdate","E":{time_us // 1000},"s":"{native}","p":"{price(mark.mark_ticks)}",'
        f'"i":"{price(mark.index_ticks)}","P":"{price(mark.mark_ticks)}","r":"{rate_text(mark.rate)}",'
        f'"T":{mark.next_us // 1000}}}'
    )


def rate_text(rate: int) -> str:
    """Write a rate of so many hundred-millionths."""
    return f"{'-' if rate < 0 else ''}{decimal_text(abs(rate), 8)}"


def forced_order(instrument: Instrument, forced: Forced) -> str:
    """Write a message of ``@forceOrder``, as USD-M futures send it."""
    price, size = instrument.price_text(forced.ticks), instrument.lot_text(forced.lots)
    time_ms = forced.time_us // 1000
    return (
        f'{{"e":"forceOrder","E":{time_ms},"o":{{"s":"{instrument.native}","S":"{"SELL" if forced.sold else "BUY"}",'
        f'"o":"LIMIT","f":"IOC","q":"{size}","p":"{price}","ap":"{price}","X":"FILLED","l":"{size}","z":"{size}",'
        f'"T":{time_ms}}}}}'
    )


def open_interest(instrument: Instrument, lots: int, time_us: int) -> bytes:
    """Write the REST answer to ``openInterest``, as USD-M futures give it."""
    amount = instrument.lot_text(lots)
    return f'{{"openInterest":"{amount}","symbol":"{instrument.native}","time":{time_us // 1000}}}'.encode()


def kline(instrument: Instrument, interval: str, span_us: tuple[int, int], fold: Fold, time_us: int) -> str:
    """Write a message of ``@kline_…``; it is closed once ``time_us`` has reached the end of its span."""
    start_us, end_us = span_us
    o, h, low, c, volume, quote, taker, taker_quote = _numbers(instrument, fold)
    return (
        f'{{"e":"kline","E":{time_us // 1000},"s":"{instrument.native}","k":{{"t":{start_us // 1000},'
        f'"T":{end_us // 1000 - 1},"s":"{instrument.native}","i":"{interval}","f":{fold.first_raw_id},'
        f'"L":{fold.last_raw_id},"o":"{o}","c":"{c}","h":"{h}","l":"{low}","v":"{volume}","n":{fold.trades_count},'
        f'"x":{_BOOLEANS[time_us >= end_us]},"q":"{quote}","V":"{taker}","Q":"{taker_quote}","B":"0"}}}}'
    )


def kline_row(instrument: Instrument, span_us: tuple[int, int], fold: Fold) -> list[object]:
    """Return a row of the REST answer to ``klines``."""
    start_us, end_us = span_us
    o, h, low, c, volume, quote, taker, taker_quote = _numbers(instrument, fold)
    times = start_us // 1000, end_us // 1000 - 1
    return [times[0], o, h, low, c, volume, times[1], quote, fold.trades_count, taker, taker_quote, "0"]


def day_row(instrument: Instrument, fold: Fold | None, times: int) -> dict[str, object]:
    """Return a row of the REST answer to ``ticker/24hr``, for what was traded in a span, so many times."""
    row: dict[str, object] = {"symbol": instrument.native, "volume": "0", "quoteVolume": "0", "count": 0}
    if fold is None:
        return row
    volume, quote = instrument.lot_text(fold.lots * times), instrument.quote_text(fold.quote * times)
    return {**row, "volume": volume, "quoteVolume": quote, "count": fold.trades_count * times}


def trade_row(instrument: Instrument, trade: Print) -> dict[str, object]:
    """Return a row of the REST answer to ``aggTrades``."""
    return {
        "a": trade.id,
        "p": instrument.price_text(trade.ticks),
        "q": instrument.lot_text(trade.lots),
        "f": first_raw_id(trade.id),
        "l": first_raw_id(trade.id + 1) - 1,
        "T": trade.time_us // 1000,
        "m": trade.maker,
        "M": True,
    }


def depth_answer(instrument: Instrument, book: Book, limit: int) -> bytes:
    """Write the REST answer to ``depth``."""
    bids, asks = _levels(instrument, book.bids[:limit]), _levels(instrument, book.asks[:limit])
    return f'{{"lastUpdateId":{book.last_id},"bids":{bids},"asks":{asks}}}'.encode()


def exchange_info(symbols: Sequence[str], time_us: int) -> bytes:
    """Write the REST answer to ``exchangeInfo`` for symbols ``BASE_QUOTE``; it is one of USD-M futures, too."""
    return msgspec.json.encode(
        {
            "timezone": "UTC",
            "serverTime": time_us // 1000,
            "rateLimits": [
                {"rateLimitType": "REQUEST_WEIGHT", "interval": "MINUTE", "intervalNum": 1, "limit": 6000},
            ],
            "exchangeFilters": [],
            "symbols": [_listed(symbol) for symbol in symbols],
        }
    )


def shutdown_notice(time_us: int) -> str:
    """Write the message that announces the end of a connection."""
    return f'{{"e":"serverShutdown","E":{time_us // 1000}}}'


def error(code: int, message: str) -> bytes:
    """Write the body of an error of REST."""
    return msgspec.json.encode({"code": code, "msg": message})


def _listed(symbol: str) -> dict[str, object]:
    base, _, quote = symbol.partition("_")
    quote, _, delivery = quote.partition("-")  # a dated contract is BTC_USDT-260327 with us, BTCUSDT_260327 there
    return {
        "symbol": f"{base}{quote}_{delivery}" if delivery else f"{base}{quote}",
        "status": "TRADING",
        **({"contractType": "CURRENT_QUARTER"} if delivery else {}),  # who sees one takes it for a contract
        "baseAsset": base,
        "baseAssetPrecision": 8,
        "quoteAsset": quote,
        "quoteAssetPrecision": 8,
        "isSpotTradingAllowed": True,
        "filters": [],
    }


def _levels(instrument: Instrument, levels: Sequence[tuple[int, int]]) -> str:
    price_text, lot_text = instrument.price_text, instrument.lot_text
    return "[" + ",".join([f'["{price_text(price)}","{lot_text(lots)}"]' for price, lots in levels]) + "]"


def _numbers(instrument: Instrument, fold: Fold) -> tuple[str, str, str, str, str, str, str, str]:
    price_text, lot_text, quote_text = instrument.price_text, instrument.lot_text, instrument.quote_text
    return (
        price_text(fold.open),
        price_text(fold.high),
        price_text(fold.low),
        price_text(fold.close),
        lot_text(fold.lots),
        quote_text(fold.quote),
        lot_text(fold.taker_lots),
        quote_text(fold.taker_quote),
    )
