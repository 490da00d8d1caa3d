"""Messages as each exchange writes them: a trade, a book to begin with, and changes of forty levels.

The fields, their order and their digits are those of the exchanges' documentation and of recordings; prices walk.
"""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from collector.events import BookDelta, BookSnapshot, Level
from collector.exchanges.base import Exchange, Listing
from collector.exchanges.registry import create_exchange
from collector.feeds.orderbook import Book

BASE_MS = 1_786_538_760_000
LEVELS = 40
START_DEPTH = 1000
_SPREAD = 400
_MIDDLE = 6_403_000


@dataclass
class Market:
    """A book that is changed at random: each step moves the middle by a tick at most, and sets twenty levels a side.

    Prices have two digits behind the point. A fifth of the levels is deleted; what the middle passes over is, too.
    """

    chance: random.Random
    middle: int = _MIDDLE
    bids: dict[int, str] = field(default_factory=dict)
    asks: dict[int, str] = field(default_factory=dict)

    def begin(self, depth: int) -> tuple[list[Level], list[Level]]:
        """Fill both sides; return them, best first."""
        self.bids = {self.middle - n: self._size() for n in range(1, depth + 1)}
        self.asks = {self.middle + n: self._size() for n in range(1, depth + 1)}
        return [_level(item) for item in self.bids.items()], [_level(item) for item in self.asks.items()]

    def step(self) -> tuple[list[Level], list[Level]]:
        """Return the changes of both sides."""
        self.middle += self.chance.choice((-1, 0, 0, 1))
        return self._side(self.bids, -1), self._side(self.asks, 1)

    def _side(self, side: dict[int, str], sign: int) -> list[Level]:
        changes = {
            price: "0"
            for price in range(self.middle - sign * 2, self.middle + sign, sign)
            if side.pop(price, None) is not None
        }
        while len(changes) < LEVELS // 2:
            distance = min(_SPREAD, 1 + int(self.chance.expovariate(0.02)))
            price = self.middle + sign * distance
            if price in side and self.chance.random() < 0.2:
                del side[price]
                changes[price] = "0"
            else:
                changes[price] = side[price] = self._size()
        return [_level(item) for item in changes.items()]

    def _size(self) -> str:
        return f"{self.chance.randrange(1, 500_000_000) / 1e8:.8f}"


def _level(item: tuple[int, str]) -> Level:
    price, size = item
    return f"{price // 100}.{price % 100:02d}", size


@dataclass(frozen=True)
class Dialect:
    """What to measure an exchange with.

    Args:
        book: a snapshot to begin with: as the stream pushes it, or as REST answers (``rest``).
        changes: messages of forty levels each, one after the other.
    """

    exchange: Exchange
    trades: list[bytes]
    book: bytes
    changes: list[bytes]
    rest: bool


def dialect(name: str, count: int) -> Dialect:
    """Return so many trades and changes of an exchange."""
    exchange = create_exchange(name, [Listing("BTC_USDT", _NATIVES.get(name, "BTCUSDT"), "BTC", "USDT")])
    market = Market(random.Random(1))
    depth = 100 if name == "kraken" else START_DEPTH
    begin, change, trade = _WRITERS[name]
    bids, asks = market.begin(depth)
    book = _Summed(exchange, bids, asks, depth)
    return Dialect(
        exchange,
        [trade(n) for n in range(count)],
        begin(bids, asks, book),
        [change(n, *book.changed(*market.step()), book) for n in range(1, count + 1)],
        exchange.book_needs_snapshot,
    )


class _Summed:
    """The exchange's own book, for those that send a checksum of it."""

    def __init__(self, exchange: Exchange, bids: list[Level], asks: list[Level], depth: int) -> None:
        self._rule = exchange.book_checksum if exchange.name == "kraken" else None
        self._depth = depth
        self._book = Book()
        self._book.load(BookSnapshot("", 0, 0, bids, asks, 0))

    def changed(self, bids: list[Level], asks: list[Level]) -> tuple[list[Level], list[Level]]:
        self._book.apply(BookDelta("", 0, 0, 0, None, bids, asks, 0))
        self._book.keep_best(self._depth)
        return bids, asks

    @property
    def checksum(self) -> int:
        return 0 if self._rule is None else self._rule.of(*self._book.top(self._rule.levels))


Change = Callable[[int, list[Level], list[Level], _Summed], bytes]
Begin = Callable[[list[Level], list[Level], _Summed], bytes]

_NATIVES = {
    "okx": "BTC-USDT",
    "coinbase": "BTC-USDT",
    "coinbase_advanced": "BTC-USDT",
    "kraken": "BTC/USDT",
    "gate": "BTC_USDT",
    "kucoin": "BTC-USDT",
    "hyperliquid": "BTC",
}
_SIZE = "0.00240857"


def _text(message: object) -> bytes:
    return json.dumps(message, separators=(",", ":")).encode()


def _price(n: int) -> str:
    return f"{(_MIDDLE + n % 97) / 100:.2f}"


def _iso(n: int, digits: int = 6) -> str:
    return f"2026-08-12T19:{n // 60 % 60:02d}:{n % 60:02d}.{'123456789'[:digits]}Z"


# Binance and those that write like it


def _binance_trade(n: int) -> bytes:
    return _text(
        {
            "stream": "btcusdt@aggTrade",
            "data": {
                "e": "aggTrade", "E": BASE_MS + n, "s": "BTCUSDT", "a": 3_000_000_000 + n, "p": _price(n) + "000000",
                "q": _SIZE, "f": 5_000_000_000 + 2 * n, "l": 5_000_000_001 + 2 * n, "T": BASE_MS + n, "m": n % 2 == 0,
                "M": True,
            },
        }
    )  # fmt: skip


def _long(levels: list[Level]) -> list[list[str]]:
    return [[price + "000000", size if "." in size else "0.00000000"] for price, size in levels]


def _binance_book(bids: list[Level], asks: list[Level], _: _Summed) -> bytes:
    return _text({"lastUpdateId": 0, "bids": _long(bids), "asks": _long(asks)})


def _binance_change(n: int, bids: list[Level], asks: list[Level], _: _Summed) -> bytes:
    change = {
        "e": "depthUpdate", "E": BASE_MS + 100 * n, "s": "BTCUSDT", "U": 10 * n - 9, "u": 10 * n, "b": _long(bids),
        "a": _long(asks),
    }  # fmt: skip
    return _text({"stream": "btcusdt@depth@100ms", "data": change})


def _futures_change(n: int, bids: list[Level], asks: list[Level], _: _Summed) -> bytes:
    at = BASE_MS + 100 * n
    change = {
        "e": "depthUpdate", "E": at, "T": at - 3, "s": "BTCUSDT", "U": 10 * n - 9, "u": 10 * n, "pu": 10 * n - 10,
        "b": bids, "a": asks,
    }  # fmt: skip
    return _text({"stream": "btcusdt@depth@100ms", "data": change})


# OKX, Bybit, Bitget


def _okx(channel: str, row: object, **words: object) -> bytes:
    return _text({"arg": {"channel": channel, "instId": "BTC-USDT"}, **words, "data": [row]})


def _okx_trade(n: int) -> bytes:
    row = {
        "instId": "BTC-USDT", "tradeId": str(1_040_968_613 + n), "px": _price(n), "sz": _SIZE, "side": "buy",
        "ts": str(BASE_MS + n), "count": "1", "source": "0", "seqId": 79_706_765_242 + n,
    }  # fmt: skip
    return _okx("trades", row)


def _okx_side(levels: list[Level]) -> list[list[str]]:
    return [[price, size, "0", "7"] for price, size in levels]


def _okx_book(bids: list[Level], asks: list[Level], _: _Summed) -> bytes:
    row = {"asks": _okx_side(asks), "bids": _okx_side(bids), "ts": str(BASE_MS), "checksum": 0}
    return _okx("books", {**row, "seqId": 10, "prevSeqId": -1}, action="snapshot")


def _okx_change(n: int, bids: list[Level], asks: list[Level], _: _Summed) -> bytes:
    row = {"asks": _okx_side(asks), "bids": _okx_side(bids), "ts": str(BASE_MS + 100 * n), "checksum": 0}
    return _okx("books", {**row, "seqId": 10 + n, "prevSeqId": 9 + n}, action="update")


def _bybit_trade(n: int) -> bytes:
    row = {
        "i": str(2_240_000_000_041_223_438 + n), "T": BASE_MS + n, "p": _price(n), "v": _SIZE, "S": "Buy",
        "s": "BTCUSDT", "BT": False,
    }  # fmt: skip
    return _text({"topic": "publicTrade.BTCUSDT", "ts": BASE_MS + n, "type": "snapshot", "data": [row]})


def _bybit_levels(kind: str, n: int, bids: list[Level], asks: list[Level]) -> bytes:
    at = BASE_MS + 100 * n
    data = {"s": "BTCUSDT", "b": bids, "a": asks, "u": 59_438_061 + n, "seq": 4_281_282_232 + n}
    return _text({"topic": "orderbook.200.BTCUSDT", "ts": at, "type": kind, "data": data, "cts": at - 2})


def _bitget(topic: str, action: str, row: object, n: int) -> bytes:
    arg = {"instType": "spot", "topic": topic, "symbol": "BTCUSDT"}
    return _text({"action": action, "arg": arg, "data": [row], "ts": BASE_MS + n})


def _bitget_trade(n: int) -> bytes:
    row = {"p": _price(n), "v": _SIZE, "S": "sell", "T": str(BASE_MS + n), "i": str(1_432_912_488_536_195_072 + n)}
    return _bitget("publicTrade", "update", row, n)


def _bitget_levels(action: str, n: int, bids: list[Level], asks: list[Level]) -> bytes:
    row = {"a": asks, "b": bids, "checksum": 0, "seq": 451_275_591_390 + n, "pseq": 451_275_591_389 + n if n else 0}
    return _bitget("books", action, {**row, "ts": str(BASE_MS + 100 * n)}, 100 * n)


# Coinbase, Kraken


def _coinbase_trade(n: int) -> bytes:
    return _text(
        {
            "type": "match", "trade_id": 280_232_000 + n, "maker_order_id": "2a0da34e-61f7-4c36-88e5-c9dd15927b16",
            "taker_order_id": "3c82abaa-c01e-4608-be59-6a1e69742891", "side": "sell", "size": _SIZE,
            "price": _price(n), "product_id": "BTC-USDT", "sequence": 177_100_030 + n, "time": _iso(n),
        }
    )  # fmt: skip


def _coinbase_book(bids: list[Level], asks: list[Level], _: _Summed) -> bytes:
    return _text({"type": "snapshot", "product_id": "BTC-USDT", "asks": asks, "bids": bids})


def _coinbase_change(n: int, bids: list[Level], asks: list[Level], _: _Summed) -> bytes:
    changes = [["buy", *level] for level in bids] + [["sell", *level] for level in asks]
    return _text({"type": "l2update", "product_id": "BTC-USDT", "changes": changes, "time": _iso(n)})


def _advanced(channel: str, event: object, n: int) -> bytes:
    envelope = {"channel": channel, "client_id": "", "timestamp": _iso(n, 9), "sequence_num": n}
    return _text({**envelope, "events": [event]})


def _advanced_trade(n: int) -> bytes:
    row = {
        "product_id": "BTC-USDT", "trade_id": str(995_098_700 + n), "price": _price(n), "size": _SIZE,
        "time": _iso(n), "side": "BUY",
    }  # fmt: skip
    return _advanced("market_trades", {"type": "update", "trades": [row]}, n)


def _advanced_levels(kind: str, n: int, bids: list[Level], asks: list[Level]) -> bytes:
    updates = [
        {"side": side, "event_time": _iso(n), "price_level": price, "new_quantity": size}
        for side, levels in (("bid", bids), ("offer", asks))
        for price, size in levels
    ]
    return _advanced("l2_data", {"type": kind, "product_id": "BTC-USDT", "updates": updates}, n)


def _kraken_trade(n: int) -> bytes:
    row = (
        f'{{"symbol":"BTC/USDT","side":"buy","price":{_price(n)},"qty":{_SIZE},"ord_type":"limit",'
        f'"trade_id":{10_218_208 + n},"timestamp":"{_iso(n)}"}}'
    )
    return f'{{"channel":"trade","type":"update","data":[{row}]}}'.encode()


def _kraken_levels(kind: str, n: int, bids: list[Level], asks: list[Level], book: _Summed) -> bytes:
    sides = [
        ",".join(f'{{"price":{price},"qty":{size if "." in size else "0.00000000"}}}' for price, size in levels)
        for levels in (bids, asks)
    ]
    row = (
        f'{{"symbol":"BTC/USDT","bids":[{sides[0]}],"asks":[{sides[1]}],"checksum":{book.checksum},'
        f'"timestamp":"{_iso(n)}"}}'
    )
    return f'{{"channel":"book","type":"{kind}","data":[{row}]}}'.encode()


# Gate, KuCoin, Hyperliquid, MEXC


def _gate(channel: str, result: object, n: int) -> bytes:
    at = BASE_MS + n
    return _text({"time": at // 1000, "time_ms": at, "channel": channel, "event": "update", "result": result})


def _gate_trade(n: int) -> bytes:
    number = 309_143_071 + n
    row = {
        "id": number, "id_market": number, "create_time": (BASE_MS + n) // 1000, "create_time_ms": f"{BASE_MS + n}.457",
        "side": "sell", "currency_pair": "BTC_USDT", "amount": _SIZE, "price": _price(n), "range": f"{number}-{number}",
    }  # fmt: skip
    return _gate("spot.trades", row, n)


def _gate_book(bids: list[Level], asks: list[Level], _: _Summed) -> bytes:
    return _text({"id": 0, "current": BASE_MS, "update": BASE_MS, "asks": asks, "bids": bids})


def _gate_change(n: int, bids: list[Level], asks: list[Level], _: _Summed) -> bytes:
    at = BASE_MS + 100 * n
    words = {"t": at, "e": "depthUpdate", "E": at // 1000, "s": "BTC_USDT", "U": 10 * n - 9, "u": 10 * n}
    return _gate("spot.order_book_update", {**words, "b": bids, "a": asks}, 100 * n)


def _kucoin(topic: str, subject: str, data: object) -> bytes:
    return _text({"type": "message", "topic": f"/market/{topic}:BTC-USDT", "subject": subject, "data": data})


def _kucoin_trade(n: int) -> bytes:
    number = str(455_391_760_226_305 + n)
    data = {
        "makerOrderId": "62fabfc195e86000013e41cb", "price": _price(n), "sequence": number, "side": "sell",
        "size": _SIZE, "symbol": "BTC-USDT", "takerOrderId": "62faddff90bdf400011fa69a",
        "time": str((BASE_MS + n) * 1_000_000), "tradeId": number, "type": "match",
    }  # fmt: skip
    return _kucoin("match", "trade.l3match", data)


def _kucoin_book(bids: list[Level], asks: list[Level], _: _Summed) -> bytes:
    data = {"time": BASE_MS, "sequence": "0", "bids": bids, "asks": asks}
    return _text({"code": "200000", "data": data})


def _kucoin_change(n: int, bids: list[Level], asks: list[Level], _: _Summed) -> bytes:
    first = LEVELS * (n - 1) + 1
    sides = [
        [[price, size, str(first + at)] for at, (price, size) in enumerate(levels, begin)]
        for levels, begin in ((asks, 0), (bids, len(asks)))
    ]
    data = {
        "changes": {"asks": sides[0], "bids": sides[1]}, "sequenceEnd": LEVELS * n, "sequenceStart": first,
        "symbol": "BTC-USDT", "time": BASE_MS + 100 * n,
    }  # fmt: skip
    return _kucoin("level2", "trade.l2update", data)


def _hyperliquid_trade(n: int) -> bytes:
    row = {
        "coin": "BTC", "side": "A", "px": _price(n), "sz": _SIZE, "time": BASE_MS + n,
        "hash": "0x40d169aa50ad8a32b44a04156eee0201d8002e5c6456b7c1ae175e381f73f9dd", "tid": 1_016_375_172_059_570 + n,
        "users": ["0x31ca8395cf837de08b24da3f660e77761dfb974b", "0x8af700ba841f30e0a3fcb0ee4c4a9d223e1efa05"],
    }  # fmt: skip
    return _text({"channel": "trades", "data": [row]})


class _Twenty:
    """Hyperliquid sends the twenty best levels of both sides each time."""

    def __init__(self) -> None:
        self._market = Market(random.Random(2))
        self._market.begin(200)

    def message(self, n: int) -> bytes:
        market = self._market
        market.step()
        sides = (sorted(market.bids.items(), reverse=True), sorted(market.asks.items()))
        rows = [[{"px": _level(item)[0], "sz": item[1], "n": 3} for item in side[: LEVELS // 2]] for side in sides]
        return _text({"channel": "l2Book", "data": {"coin": "BTC", "time": BASE_MS + 100 * n, "levels": rows}})


_TWENTY = _Twenty()


def _varint(value: int) -> bytes:
    written = bytearray()
    while value > 127:
        written.append(value & 127 | 128)
        value >>= 7
    return bytes([*written, value])


def _fields(pairs: Sequence[tuple[int, int | str | bytes]]) -> bytes:
    parts = []
    for place, value in pairs:
        if isinstance(value, int):
            parts.append(_varint(place << 3) + _varint(value))
        else:
            data = value.encode() if isinstance(value, str) else value
            parts.append(_varint(place << 3 | 2) + _varint(len(data)) + data)
    return b"".join(parts)


def _mexc(channel: str, place: int, body: bytes, n: int) -> bytes:
    name = f"spot@public.aggre.{channel}.v3.api.pb@100ms@BTCUSDT"
    return _fields([(1, name), (3, "BTCUSDT"), (6, BASE_MS + n), (place, body)])


def _mexc_trade(n: int) -> bytes:
    name = f"{731_579_883_561_406_466 + n}X0_{731_579_883_561_406_467 + n}X0"
    row = _fields([(1, _price(n)), (2, _SIZE), (3, 2), (4, BASE_MS + n), (5, name)])
    return _mexc("deals", 314, _fields([(1, row), (2, "spot@public.aggre.deals.v3.api.pb@100ms")]), n)


def _mexc_book(bids: list[Level], asks: list[Level], _: _Summed) -> bytes:
    return _text({"lastUpdateId": 0, "bids": bids, "asks": asks, "timestamp": BASE_MS})


def _mexc_change(n: int, bids: list[Level], asks: list[Level], _: _Summed) -> bytes:
    levels = [
        (place, _fields([(1, price), (2, size)])) for place, side in ((1, asks), (2, bids)) for price, size in side
    ]
    versions = [(3, "spot@public.aggre.depth.v3.api.pb@100ms"), (4, str(10 * n - 9)), (5, str(10 * n))]
    return _mexc("depth", 313, _fields([*levels, *versions]), 100 * n)


_WRITERS: dict[str, tuple[Begin, Change, Callable[[int], bytes]]] = {
    "binance": (_binance_book, _binance_change, _binance_trade),
    "binance_futures": (_binance_book, _futures_change, _binance_trade),
    "okx": (_okx_book, _okx_change, _okx_trade),
    "bybit": (
        lambda bids, asks, _: _bybit_levels("snapshot", 0, bids, asks),
        lambda n, bids, asks, _: _bybit_levels("delta", n, bids, asks),
        _bybit_trade,
    ),
    "coinbase": (_coinbase_book, _coinbase_change, _coinbase_trade),
    "coinbase_advanced": (
        lambda bids, asks, _: _advanced_levels("snapshot", 0, bids, asks),
        lambda n, bids, asks, _: _advanced_levels("update", n, bids, asks),
        _advanced_trade,
    ),
    "kraken": (
        lambda bids, asks, book: _kraken_levels("snapshot", 0, bids, asks, book),
        lambda n, bids, asks, book: _kraken_levels("update", n, bids, asks, book),
        _kraken_trade,
    ),
    "mexc": (_mexc_book, _mexc_change, _mexc_trade),
    "bitget": (
        lambda bids, asks, _: _bitget_levels("snapshot", 0, bids, asks),
        lambda n, bids, asks, _: _bitget_levels("update", n, bids, asks),
        _bitget_trade,
    ),
    "kucoin": (_kucoin_book, _kucoin_change, _kucoin_trade),
    "gate": (_gate_book, _gate_change, _gate_trade),
    "hyperliquid": (
        lambda _bids, _asks, _: _TWENTY.message(0),
        lambda n, _bids, _asks, _: _TWENTY.message(n),
        _hyperliquid_trade,
    ),
}

DIALECTS = tuple(_WRITERS)
"""The exchanges that there are messages of; those with the same words as another are measured with it."""
