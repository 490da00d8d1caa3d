"""Funding rates and open interest of the simulated sources, by formula, each answered as its documentation says.

Written from those documents and not from the parsers. Rates are counted in millionths of a percent, amounts in
thousandths of the base currency; times are microseconds since the epoch.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any
from zlib import crc32

import msgspec

from collector.sim.history_answers import Answer, Dialect, Query, Refused
from collector.sim.history_market import DAY_US, HOUR_US, MINUTE_US, HistoryMarket, decimal_text

FUNDING_US = 8 * HOUR_US
OPEN_INTEREST_US = 5 * MINUTE_US
_RATE_UNIT = 10**8
_AMOUNT_UNIT = 1000


def funding_times(market: HistoryMarket, symbol: str, from_us: int, to_us: int, every_us: int = FUNDING_US) -> range:
    """Return when funding was paid in ``[from_us, to_us)``."""
    return _times(market, symbol, from_us, to_us, every_us)


def funding_rate(market: HistoryMarket, symbol: str, time_us: int) -> str:
    """Return the rate that was paid, of either sign."""
    count = crc32(f"{market.seed}/{symbol}/{time_us}".encode()) % 40_001 - 15_000
    return f"{'-' if count < 0 else ''}{decimal_text(abs(count), _RATE_UNIT)}"


def open_interest_times(market: HistoryMarket, symbol: str, from_us: int, to_us: int) -> range:
    """Return when open interest was noted in ``[from_us, to_us)``."""
    return _times(market, symbol, from_us, to_us, OPEN_INTEREST_US)


def open_interest(market: HistoryMarket, symbol: str, time_us: int) -> tuple[str, str]:
    """Return how much was held, in base and in quote currency."""
    count = 50_000_000 + crc32(f"{market.seed}/{symbol}/oi/{time_us}".encode()) % 1_000_000
    return decimal_text(count, _AMOUNT_UNIT), decimal_text(count * market.price(symbol, time_us), _AMOUNT_UNIT * 100)


def answer_about_contracts(dialect: Dialect, query: Query) -> Answer | None:
    """Answer a request for funding rates or open interest; None where it is for something else."""
    found = _ANSWERS.get((dialect.name, query.path))
    return None if found is None else found(dialect, query)


def _times(market: HistoryMarket, symbol: str, from_us: int, to_us: int, every_us: int) -> range:
    first = max(from_us, market.listed_us(symbol))
    return range(first + -first % every_us, to_us, every_us)


def _binance_symbol(dialect: Dialect, query: Query) -> str:
    return dialect.find(query.params.get("symbol"), lambda: Refused(400, {"code": -1121, "msg": "Invalid symbol."}))


def _milliseconds(query: Query, name: str, default_us: int) -> int:
    return int(query.params[name]) * 1000 if name in query.params else default_us


def _most(query: Query, default: int, limit: int) -> int:
    most = min(int(query.params.get("limit", str(default))), limit)
    return most if query.most is None else min(most, query.most)


def _binance_funding(dialect: Dialect, query: Query) -> Answer:
    """``GET /fapi/v1/fundingRate``: both bounds inclusive, ascending, 1000 at most; times are a little late."""
    symbol = _binance_symbol(dialect, query)
    start = _milliseconds(query, "startTime", 0)
    end = min(_milliseconds(query, "endTime", query.now_us), query.now_us)
    times = funding_times(dialect.market, symbol, start, end + 1)[: _most(query, 100, 1000)]
    rows: list[Any] = [
        {
            "symbol": dialect.native(symbol),
            "fundingRate": funding_rate(dialect.market, symbol, time),
            "fundingTime": time // 1000,
            "markPrice": decimal_text(dialect.market.price(symbol, time), 100) if time // FUNDING_US % 2 else "",
        }
        for time in times
    ]
    return Answer(200, rows, rows)


def _binance_open_interest(dialect: Dialect, query: Query) -> Answer:
    """``GET /futures/data/openInterestHist``: the latest 30 days; up to 500, the newest of what was asked for."""
    symbol = _binance_symbol(dialect, query)
    if query.params.get("period") != "5m":
        raise Refused(400, {"code": -1130, "msg": "parameter 'period' is invalid."})
    start = _milliseconds(query, "startTime", 0)
    if start < query.now_us - 30 * DAY_US:
        raise Refused(400, {"code": -1130, "msg": "parameter 'startTime' is invalid."})
    end = min(_milliseconds(query, "endTime", query.now_us), query.now_us)
    times = open_interest_times(dialect.market, symbol, start, end + 1)[-_most(query, 30, 500) :]
    rows: list[Any] = []
    for time in times:
        amount, value = open_interest(dialect.market, symbol, time)
        rows.append(
            {
                "symbol": dialect.native(symbol),
                "sumOpenInterest": amount,
                "sumOpenInterestValue": value,
                "timestamp": time // 1000,
            }
        )
    return Answer(200, rows, rows, oldest_cut=True)


def _okx_symbol(dialect: Dialect, query: Query) -> str:
    unknown = {"code": "51001", "msg": "Instrument ID does not exist", "data": []}
    native = query.params.get("instId", "")
    found = native.removesuffix("-SWAP") if native.endswith("-SWAP") else ""
    return dialect.find(found, lambda: Refused(200, unknown))


def _okx_funding(dialect: Dialect, query: Query) -> Answer:
    """``GET /api/v5/public/funding-rate-history``: three months, newest first, bounds exclusive, 100 at most."""
    symbol = _okx_symbol(dialect, query)
    after = min(_milliseconds(query, "after", query.now_us + 1), query.now_us + 1)
    before = max(_milliseconds(query, "before", -1000), query.now_us - 92 * DAY_US)
    times = funding_times(dialect.market, symbol, before + 1, after)[-_most(query, 100, 100) :]
    rows: list[Any] = [
        {
            "instType": "SWAP",
            "instId": query.params["instId"],
            "fundingRate": "0.0001",
            "realizedRate": funding_rate(dialect.market, symbol, time),
            "fundingTime": str(time // 1000),
            "method": "current_period",
        }
        for time in reversed(times)
    ]
    return Answer(200, {"code": "0", "msg": "", "data": rows}, rows, oldest_cut=True)


def _okx_open_interest(dialect: Dialect, query: Query) -> Answer:
    """``GET /api/v5/rubik/stat/contracts/open-interest-history``: the latest 1440, newest first, 100 at most."""
    symbol = _okx_symbol(dialect, query)
    end = min(_milliseconds(query, "end", query.now_us + 1), query.now_us + 1)
    begin = max(_milliseconds(query, "begin", -1000), query.now_us - 1440 * OPEN_INTEREST_US)
    times = open_interest_times(dialect.market, symbol, begin + 1, end)[-_most(query, 100, 100) :]
    rows: list[Any] = []
    for time in reversed(times):
        amount, value = open_interest(dialect.market, symbol, time)
        rows.append([str(time // 1000), "12345", amount, value])
    return Answer(200, {"code": "0", "msg": "", "data": rows}, rows, oldest_cut=True)


def _bybit_points(dialect: Dialect, query: Query, times_of: Callable[[HistoryMarket, str, int, int], range]) -> range:
    if "startTime" in query.params and "endTime" not in query.params:
        raise Refused(200, {"retCode": 10001, "retMsg": "endTime is required", "result": {}})
    symbol = _bybit_symbol(dialect, query)
    start = _milliseconds(query, "startTime", 0)
    end = min(_milliseconds(query, "endTime", query.now_us), query.now_us)
    return times_of(dialect.market, symbol, start, end + 1)[-_most(query, 50, 200) :]


def _bybit_symbol(dialect: Dialect, query: Query) -> str:
    unknown = {"retCode": 10001, "retMsg": "symbol invalid", "result": {}}
    return dialect.find(query.params.get("symbol"), lambda: Refused(200, unknown))


def _bybit_answer(query: Query, rows: list[Any]) -> Answer:
    result = {"category": "linear", "list": rows}
    return Answer(
        200, {"retCode": 0, "retMsg": "OK", "result": result, "time": query.now_us // 1000}, rows, oldest_cut=True
    )


def _bybit_funding(dialect: Dialect, query: Query) -> Answer:
    """``GET /v5/market/funding/history``: 200 at most, newest first; a start without an end is refused."""
    symbol = _bybit_symbol(dialect, query)
    rows: list[Any] = [
        {
            "symbol": dialect.native(symbol),
            "fundingRate": funding_rate(dialect.market, symbol, time),
            "fundingRateTimestamp": str(time // 1000),
        }
        for time in reversed(_bybit_points(dialect, query, funding_times))
    ]
    return _bybit_answer(query, rows)


def _bybit_open_interest(dialect: Dialect, query: Query) -> Answer:
    """``GET /v5/market/open-interest``: 200 at most, newest first."""
    symbol = _bybit_symbol(dialect, query)
    if query.params.get("intervalTime") != "5min":
        raise Refused(200, {"retCode": 10001, "retMsg": "Invalid intervalTime", "result": {}})
    rows: list[Any] = [
        {"openInterest": open_interest(dialect.market, symbol, time)[0], "timestamp": str(time // 1000)}
        for time in reversed(_bybit_points(dialect, query, open_interest_times))
    ]
    return _bybit_answer(query, rows)


def _hyperliquid_funding(dialect: Dialect, query: Query) -> Answer | None:
    """``POST /info`` of the type ``fundingHistory``: each hour, ascending, 500 at most."""
    try:
        asked = msgspec.json.decode(query.body)
        if asked["type"] != "fundingHistory":
            return None
        start_us, end_us = asked["startTime"] * 1000, min(asked["endTime"] * 1000, query.now_us)
    except (msgspec.MsgspecError, LookupError, TypeError):
        return None
    symbol = dialect.find(asked["coin"], lambda: Refused(500, None))
    times = funding_times(dialect.market, symbol, start_us, end_us + 1, HOUR_US)[: _most(query, 500, 500)]
    rows: list[Any] = [
        {
            "coin": asked["coin"],
            "fundingRate": funding_rate(dialect.market, symbol, time),
            "premium": "0.0001",
            "time": time // 1000,
        }
        for time in times
    ]
    return Answer(200, rows, rows)


_ANSWERS: Mapping[tuple[str, str], Callable[[Dialect, Query], Answer | None]] = {
    ("binance_futures", "/fapi/v1/fundingRate"): _binance_funding,
    ("binance_futures", "/futures/data/openInterestHist"): _binance_open_interest,
    ("okx", "/api/v5/public/funding-rate-history"): _okx_funding,
    ("okx", "/api/v5/rubik/stat/contracts/open-interest-history"): _okx_open_interest,
    ("bybit_linear", "/v5/market/funding/history"): _bybit_funding,
    ("bybit_linear", "/v5/market/open-interest"): _bybit_open_interest,
    ("hyperliquid", "/info"): _hyperliquid_funding,
}
