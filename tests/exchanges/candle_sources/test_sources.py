"""Each source's words: requests as documented, golden pages typed from the documentation, its traps, its errors."""

from __future__ import annotations

import json
from typing import Any

import pytest

from collector.errors import MessageError, SourceRefused, UnknownName
from collector.exchanges.base import Listing, Request
from collector.exchanges.candle_sources.base import HistoryCandle, text
from collector.exchanges.candle_sources.coingecko import CoingeckoCandles, ids_by_symbol
from collector.exchanges.candle_sources.intervals import (
    DAY_US,
    HOUR_US,
    INTERVALS_US,
    MINUTE_US,
    bucket_from,
    bucket_start,
)
from collector.exchanges.candle_sources.registry import DEFAULT_ORDER, SOURCES, create_source, source_class
from collector.exchanges.candle_sources.walk import part_of
from tests.exchanges.candle_sources.conftest import NOW_US, Bench

T = 1_700_006_400_000_000  # 2023-11-15, 00:00 UTC, a Wednesday


def asked(name: str, interval: str, from_us: int, to_us: int, *, now_us: int = T + DAY_US) -> Request:
    return Bench().source(name).request("BTC_USDT", interval, from_us, to_us, now_us=now_us)


GOLDEN: dict[str, tuple[str, str, HistoryCandle]] = {
    # "Kline/Candlestick data", binance-spot-api-docs
    "binance": (
        "1w",
        ('[[1498435200000,"0.01634790","0.80000000","0.01575800","0.01577100","148976.11427815",1499039999999,'
        '"2434.19055334",308,"1756.87402397","28.46694368","0"]]'),
        HistoryCandle(
            1_498_435_200_000_000, "0.01634790", "0.80000000", "0.01575800", "0.01577100", "148976.11427815",
            "2434.19055334", 308, "1756.87402397", "28.46694368",
        ),
    ),
    # "Kline/Candlestick Data", USD-M futures
    "binance_futures": (
        "1m",
        ('[[1607444700000,"18879.99","18900.00","18878.98","18896.13","492.363",1607444759999,"9302145.66080",1874,'
        '"385.983","7292402.33267","0"]]'),
        HistoryCandle(
            1_607_444_700_000_000, "18879.99", "18900.00", "18878.98", "18896.13", "492.363", "9302145.66080", 1874,
            "385.983", "7292402.33267",
        ),
    ),
    # "Coin OHLC Chart by ID": times are ends
    "coingecko": (
        "4h",
        "[[1709395200000,61942,62211,61721,61845]]",
        HistoryCandle(1_709_380_800_000_000, "61942", "62211", "61721", "61845"),
    ),
    # "Historical Hourly OHLCV"
    "cryptocompare": (
        "1h",
        ('{"Response":"Success","Message":"","HasWarning":false,"Type":100,"RateLimit":{},"Data":{"Aggregated":false,'
        '"TimeFrom":1674000000,"TimeTo":1674000000,"Data":[{"time":1674000000,"high":21224.16,"low":21103.75,'
        '"open":21132.28,"volumefrom":1545.51,"volumeto":32718385.6,"close":21190.7,"conversionType":"direct",'
        '"conversionSymbol":""}]}}'),
        HistoryCandle(
            1_674_000_000_000_000, "21132.28", "21224.16", "21103.75", "21190.7", "1545.51", "32718385.6"
        ),
    ),
    # "GET / Candlesticks"
    "okx": (
        "1m",
        ('{"code":"0","msg":"","data":[["1597026360000","3.721","3.743","3.677","3.708","8422410","22698348.04828491",'
        '"12698348.04828491","0"]]}'),
        HistoryCandle(
            1_597_026_360_000_000, "3.721", "3.743", "3.677", "3.708", "8422410", "12698348.04828491", closed=False
        ),
    ),
    # "Get Kline"
    "bybit": (
        "1m",
        ('{"retCode":0,"retMsg":"OK","result":{"symbol":"BTCUSDT","category":"spot","list":[["1670608800000","17071",'
        '"17073","17027","17055.5","268611","15.74462667"]]},"retExtInfo":{},"time":1672025956592}'),
        HistoryCandle(1_670_608_800_000_000, "17071", "17073", "17027", "17055.5", "268611", "15.74462667"),
    ),
    "bybit_linear": (
        "1m",
        ('{"retCode":0,"retMsg":"OK","result":{"symbol":"BTCUSDT","category":"linear","list":[["1670608800000",'
        '"17071","17073","17027","17055.5","268611","15.74462667"]]},"retExtInfo":{},"time":1672025956592}'),
        HistoryCandle(1_670_608_800_000_000, "17071", "17073", "17027", "17055.5", "268611", "15.74462667"),
    ),
    # "Get product candles", Exchange API: [time, low, high, open, close, volume]
    "coinbase": (
        "1m",
        "[[1415398740, 0.32, 4.2, 0.35, 4.1, 12.3]]",
        HistoryCandle(1_415_398_740_000_000, "0.35", "4.2", "0.32", "4.1", "12.3"),
    ),
    # "Get Public Product Candles", Advanced Trade API
    "coinbase_advanced": (
        "1h",
        ('{"candles":[{"start":"1639508400","low":"140.21","high":"140.30","open":"140.21","close":"140.25",'
        '"volume":"56437345"}]}'),
        HistoryCandle(1_639_508_400_000_000, "140.21", "140.30", "140.21", "140.25", "56437345"),
    ),
    # "Get OHLC Data": the last row is not committed
    "kraken": (
        "1m",
        ('{"error":[],"result":{"XXBTZUSD":[[1688671200,"30306.1","30306.2","30305.7","30305.7","30306.1","3.39243896",'
        '23],[1688671260,"30304.5","30304.5","30300.0","30300.0","30300.0","4.42996871",18]],"last":1688671200}}'),
        HistoryCandle(
            1_688_671_200_000_000, "30306.1", "30306.2", "30305.7", "30305.7", "3.39243896", trades_count=23
        ),
    ),
    # "Get Candlestick Data": [time, open, high, low, close, base volume, USDT volume, quote volume]
    "bitget": (
        "1m",
        ('{"code":"00000","msg":"success","requestTime":1695800278693,"data":[["1656604800000","37834.5","37849.5",'
        '"37773.5","37773.5","428.3462","16198849.1079","16198849.1079"]]}'),
        HistoryCandle(
            1_656_604_800_000_000, "37834.5", "37849.5", "37773.5", "37773.5", "428.3462", "16198849.1079"
        ),
    ),
    # "Get Klines": [time, open, close, high, low, volume, turnover]
    "kucoin": (
        "1m",
        ('{"code":"200000","data":[["1566789720","10411.5","10401.9","10411.5","10396.3","29.11357276",'
        '"302889.301529914"]]}'),
        HistoryCandle(
            1_566_789_720_000_000, "10411.5", "10411.5", "10396.3", "10401.9", "29.11357276", "302889.301529914"
        ),
    ),
    # "Market candlesticks": [time, quote volume, close, high, low, open, base volume, closed]
    "gate": (
        "15m",
        '[["1539852300","971519.677","0.0021724","0.0021922","0.0021724","0.0021737","447141023.4","true"]]',
        HistoryCandle(
            1_539_852_300_000_000, "0.0021737", "0.0021922", "0.0021724", "0.0021724", "447141023.4", "971519.677"
        ),
    ),
    # "Kline/Candlestick Data", spot v3
    "mexc": (
        "1m",
        '[[1640804880000,"47482.36","47482.36","47416.57","47436.1","3.550717",1640804940000,"168387.3"]]',
        HistoryCandle(
            1_640_804_880_000_000, "47482.36", "47482.36", "47416.57", "47436.1", "3.550717", "168387.3"
        ),
    ),
    # "Candle snapshot"
    "hyperliquid": (
        "15m",
        ('[{"T":1681924499999,"c":"29258.0","h":"29309.0","i":"15m","l":"29250.0","n":189,"o":"29295.0","s":"BTC",'
        '"t":1681923600000,"v":"0.98639"}]'),
        HistoryCandle(
            1_681_923_600_000_000, "29295.0", "29309.0", "29250.0", "29258.0", "0.98639", trades_count=189
        ),
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", SOURCES)
def test_the_documented_page_says_what_the_documentation_says(bench: Any, name: str) -> None:
    """A page typed from each source's own documentation, in its digits."""
    interval, body, candle = GOLDEN[name]
    request = asked(name, interval, T, T + INTERVALS_US[interval])
    page = bench.source(name).parse(body.encode(), interval, request)
    assert page.candles[0] == candle


# What is asked for


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("binance", {"startTime": "1700006400000", "endTime": "1700024399999", "limit": "1000"}),  # both inclusive
        ("okx", {"before": "1700006399999", "after": "1700024400000", "bar": "1H"}),  # both exclusive
        ("bybit", {"start": "1700006400000", "end": "1700024399999", "interval": "60", "category": "spot"}),
        ("bybit_linear", {"category": "linear"}),
        ("coinbase", {"start": "1700006400", "end": "1700020800", "granularity": "3600"}),  # both inclusive
        ("coinbase_advanced", {"start": "1700006400", "end": "1700020800", "granularity": "ONE_HOUR"}),
        ("kraken", {"since": "1700006399", "interval": "60", "pair": "XBTUSDT"}),  # exclusive, and a coin of its own
        ("kucoin", {"startAt": "1700006400", "endAt": "1700024400", "type": "1hour"}),  # the end is exclusive
        ("gate", {"from": "1700006400", "to": "1700020800", "interval": "1h"}),  # both inclusive
        ("mexc", {"startTime": "1700006400000", "endTime": "1700024400000", "interval": "60m", "limit": "500"}),
        ("cryptocompare", {"limit": "4", "toTs": "1700020800", "tryConversion": "false", "e": "CCCAGG"}),
        ("bitget", {"startTime": "1700006400000", "endTime": "1700024400000", "granularity": "1h"}),
    ],
)
def test_five_hours_are_asked_for_by_the_sources_own_bounds(name: str, expected: dict[str, str]) -> None:
    """Inclusive or exclusive, milliseconds or seconds, and with one more coming than is asked for."""
    params = dict(asked(name, "1h", T, T + 5 * HOUR_US).params)
    assert {key: params.get(key) for key in expected} == expected


def test_gate_is_never_given_a_limit_with_a_span() -> None:
    """``from`` and ``to`` conflict with ``limit``."""
    assert "limit" not in asked("gate", "1h", T, T + HOUR_US).params


def test_hyperliquid_is_asked_by_post_and_charged_by_candles() -> None:
    """Twenty, and one more for each sixty candles."""
    request = asked("hyperliquid", "1h", T, T + 600 * HOUR_US)
    assert (request.method, request.path, request.weight) == ("POST", "/info", 30)
    assert json.loads(request.body or b"")["req"] == {
        "coin": "BTC", "interval": "1h", "startTime": T // 1000, "endTime": (T + 600 * HOUR_US) // 1000 - 1,
    }  # fmt: skip


def test_binance_futures_pages_cost_five() -> None:
    """A limit of 500 to 1000 is charged five; more would be ten for half as much again."""
    request = asked("binance_futures", "1h", T, T + HOUR_US)
    assert (request.path, request.weight, request.params["limit"]) == ("/fapi/v1/klines", 5, "1000")


@pytest.mark.parametrize("interval", ["6h", "12h", "1d", "1w"])
@pytest.mark.parametrize("name", ["okx", "bitget"])
def test_long_bars_are_asked_for_in_utc(name: str, interval: str) -> None:
    """Without the suffix a day would begin at UTC+8."""
    params = asked(name, interval, T, T + INTERVALS_US[interval]).params
    assert params["bar" if name == "okx" else "granularity"].endswith("utc")


def test_okx_has_old_candles_on_another_path() -> None:
    """The path of recent ones has the latest 1440 only."""
    now_us = T + 3000 * HOUR_US
    assert asked("okx", "1h", T, T + HOUR_US, now_us=now_us).path == "/api/v5/market/history-candles"
    assert asked("okx", "1h", now_us - 1000 * HOUR_US, now_us, now_us=now_us).path == "/api/v5/market/candles"
    assert asked("okx", "1h", T, T + HOUR_US, now_us=now_us).weight == 2


def test_okx_volumes_of_swaps_are_in_coins_and_not_in_contracts(bench: Any) -> None:
    """Of a contract the sixth column counts contracts, and the seventh coins."""
    body = b'{"code":"0","msg":"","data":[["1597026360000","3.721","3.743","3.677","3.708","84","22.5","83.4","1"]]}'
    swap = bench.source("okx").parse(body, "1m", Request("/x", {"instId": "BTC-USDT-SWAP"}))
    spot = bench.source("okx").parse(body, "1m", Request("/x", {"instId": "BTC-USDT"}))
    assert (swap.candles[0].volume, spot.candles[0].volume) == ("22.5", "84")


@pytest.mark.parametrize(("interval", "days"), [("1m", 30), ("30m", 30), ("1h", 60), ("4h", 240), ("1d", 240)])
def test_bitget_changes_its_interface_where_recent_candles_end(bench: Any, interval: str, days: int) -> None:
    """Recent ones come 1000 at a time, old ones 200, with an end alone."""
    source = bench.source("bitget")
    now_us = T + 1000 * DAY_US
    for from_us, recent in ((now_us - (days - 2) * DAY_US, True), (now_us - (days + 1) * DAY_US, False)):
        request = source.request("BTC_USDT", interval, from_us, from_us + INTERVALS_US[interval], now_us=now_us)
        assert request.path.endswith("/candles") is recent
        assert ("startTime" in request.params) is recent
        assert source.page_at(interval, from_us, now_us) == (1000 if recent else 200)


@pytest.mark.parametrize(
    ("name", "interval", "part"),
    [("coinbase", "4h", "1h"), ("coinbase", "30m", "15m"), ("coinbase_advanced", "4h", "2h"), ("coinbase", "2h", "1h"),
     ("kraken", "1w", "1d"), ("kucoin", "1w", "1d"), ("mexc", "12h", "4h"), ("hyperliquid", "6h", "2h"),
     ("gate", "3m", "1m"), ("cryptocompare", "4h", "1h"), ("bitget", "2h", "1h")],
)  # fmt: skip
def test_what_a_source_does_not_have_is_folded(bench: Any, name: str, interval: str, part: str) -> None:
    """There is no 4h and no 30m at Coinbase; weeks whose beginning nobody documents are made of days."""
    source = bench.source(name)
    assert interval not in source.intervals
    assert part_of(source, interval) == part


def test_symbols_are_spelled_by_rule_or_by_listing(bench: Any) -> None:
    """A listing wins; without one the rule of the source does."""
    spelled = {name: bench.source(name).native("BTC_USDT") for name in SOURCES}
    assert spelled == {
        "binance": "BTCUSDT", "binance_futures": "BTCUSDT", "coingecko": "bitcoin", "cryptocompare": "BTC/USDT",
        "okx": "BTC-USDT", "bybit": "BTCUSDT", "bybit_linear": "BTCUSDT", "coinbase": "BTC-USDT",
        "coinbase_advanced": "BTC-USDT", "kraken": "XBTUSDT", "bitget": "BTCUSDT", "kucoin": "BTC-USDT",
        "gate": "BTC_USDT", "mexc": "BTCUSDT", "hyperliquid": "BTC",
    }  # fmt: skip
    listed = create_source("okx", [Listing("PEPE_USDT", "1000PEPE-USDT", "PEPE", "USDT")])
    assert listed.native("PEPE_USDT") == "1000PEPE-USDT"
    assert create_source("binance_futures").native("BTC_USDT-260327") == "BTCUSDT_260327"
    assert create_source("okx").native("BTC_USDT-SWAP") == "BTC-USDT-SWAP"
    with pytest.raises(UnknownName, match="BTCUSDT"):
        create_source("okx").native("BTCUSDT")


# How it is read


def test_numbers_keep_their_digits() -> None:
    """JSON's numbers are text before anything can round them; exponents are written out."""
    assert [text(value) for value in ("1.10", 3, "1e-7", "2.5E+3")] == ["1.10", "3", "0.0000001", "2500"]
    for nonsense in (None, True, 1.5, [], "1e99", "Infinity"):
        with pytest.raises((TypeError, ValueError)) if nonsense != "Infinity" else pytest.raises(MessageError):
            digits = text(nonsense)
            Bench().source("mexc").parse(
                json.dumps([[0, digits, "1", "1", "1", "1", 0, "1"]]).encode(), "1m", Request("")
            )


def test_cryptocompare_zeros_are_no_candles(bench: Any) -> None:
    """What lies before the first trade comes as zeros, and is left out."""
    server = bench.serve(listed_us={"BTC_USDT": NOW_US // HOUR_US * HOUR_US - 5 * HOUR_US})
    walk = bench.walk("cryptocompare", "1h", NOW_US - 20 * HOUR_US, NOW_US)
    assert len(bench.collect(server, walk)) == 6


def test_coingeckos_candle_under_way_is_left_out(bench: Any) -> None:
    """It ends whenever the list was made, which is where no bucket does."""
    page = bench.source("coingecko").parse(
        b"[[1709395200000,1,2,0.5,1.5],[1709396123000,1,2,0.5,1.5]]", "4h", asked("coingecko", "4h", T, T + 4 * HOUR_US)
    )
    assert len(page.candles) == 1
    assert page.candles[0].volume is None


@pytest.mark.parametrize(("days_ago", "asked_for"), [(5, "7"), (8, "14"), (20, "30")])
def test_coingecko_is_asked_for_days_that_it_allows(days_ago: int, asked_for: str) -> None:
    """The number of days chooses the granularity, and only a few are taken."""
    request = asked("coingecko", "4h", T, T + HOUR_US, now_us=T + days_ago * DAY_US)
    assert request.params == {"vs_currency": "usd", "days": asked_for, "precision": "full"}
    assert asked("coingecko", "30m", T, T + HOUR_US, now_us=T + DAY_US // 2).params["days"] == "1"


def test_coingecko_ids_are_those_of_the_largest_coin_of_a_symbol(bench: Any) -> None:
    """Symbols are not unique: bridged coins and jokes use them too, and the ranks tell which is meant."""
    server, source = bench.serve(), bench.source("coingecko")
    listed = source.parse_coins(server.answer("GET", "/coingecko/api/v3/coins/list", b"").body)
    page = source.markets_request(1)
    ranked = source.parse_coins(server.answer("GET", f"/coingecko{page.path}?per_page=250&page=1", b"").body)
    assert ids_by_symbol([*ranked, *listed]) == {"BTC": "bitcoin", "ETH": "ethereum"}
    assert ids_by_symbol([*listed, *ranked]) == {"BTC": "bitcoin", "ETH": "ethereum"}
    assert source.coins_request().path == "/api/v3/coins/list"
    assert CoingeckoCandles(ids={"BTC": "bitcoin"}).native("BTC_USDT") == "bitcoin"
    with pytest.raises(UnknownName, match="DOGE"):
        source.native("DOGE_USDT")
    with pytest.raises(MessageError):
        source.parse_coins(b'[{"id": 1}]')


def test_kraken_says_how_far_it_goes_back(bench: Any) -> None:
    """A full answer begins where Kraken's memory does; a shorter one has all there was."""
    rows = [[1688671200 + 60 * number, "1", "1", "1", "1", "1", "1", 1] for number in range(720)]
    body = json.dumps({"error": [], "result": {"XXBTZUSD": rows, "last": 0}}).encode()
    request = asked("kraken", "1m", T, T + MINUTE_US)
    assert bench.source("kraken").parse(body, "1m", request).oldest_us == 1_688_671_200_000_000
    body = json.dumps({"error": [], "result": {"XXBTZUSD": rows[:5], "last": 0}}).encode()
    page = bench.source("kraken").parse(body, "1m", request)
    assert page.oldest_us is None
    assert [candle.closed for candle in page.candles] == [True, True, True, True, False]
    with pytest.raises(MessageError, match="2 pairs"):
        bench.source("kraken").parse(b'{"error":[],"result":{"A":[],"B":[],"last":0}}', "1m", request)


def test_weeks_begin_on_mondays() -> None:
    """The epoch was a Thursday."""
    assert bucket_start(T, "1w") == 1_699_833_600_000_000  # 2023-11-13
    assert bucket_from(T, "1w") == 1_699_833_600_000_000 + 7 * DAY_US
    assert bucket_from(T, "1d") == bucket_start(T, "1d") == T


# Errors


REFUSALS = [
    ("binance", 400, '{"code":-1121,"msg":"Invalid symbol."}', "unknown_symbol"),
    ("binance", 429, '{"code":-1003,"msg":"Too many requests."}', "rate_limit"),
    ("binance", 418, "", "rate_limit"),
    ("binance", 403, "<html>blocked</html>", "outage"),
    ("binance", 400, '{"code":-1120,"msg":"Invalid interval."}', "refused"),
    ("binance_futures", 503, '{"code":-1001,"msg":"Internal error"}', "outage"),
    ("okx", 429, '{"code":"50011","msg":"Too Many Requests"}', "rate_limit"),
    ("bybit", 403, "access too frequent", "rate_limit"),
    ("coinbase", 404, '{"message":"NotFound"}', "unknown_symbol"),
    ("coinbase", 429, '{"message":"Public rate limit exceeded"}', "rate_limit"),
    ("coinbase_advanced", 404, '{"error":"NOT_FOUND","message":"x"}', "unknown_symbol"),
    ("bitget", 400, '{"code":"40034","msg":"Parameter does not exist"}', "unknown_symbol"),
    ("kucoin", 429, '{"code":"429000","msg":"Too Many Requests"}', "rate_limit"),
    ("gate", 400, '{"label":"INVALID_CURRENCY_PAIR","message":"x"}', "unknown_symbol"),
    ("mexc", 400, '{"code":-1121,"msg":"Invalid symbol."}', "unknown_symbol"),
    ("hyperliquid", 500, "null", "unknown_symbol"),
    ("hyperliquid", 502, "<html></html>", "outage"),
    ("coingecko", 404, '{"error":"coin not found"}', "unknown_symbol"),
    ("coingecko", 429, '{"status":{"error_code":429,"error_message":"slow down"}}', "rate_limit"),
]


@pytest.mark.parametrize(("name", "status", "body", "reason"), REFUSALS)
def test_refusals_are_told_apart(bench: Any, name: str, status: int, body: str, reason: str) -> None:
    """Too many requests, an unknown symbol, an outage, and what only a change of ours can end."""
    error = bench.source(name).refusal(status, body.encode(), words="no words")
    assert (error.reason, error.status) == (reason, status)
    assert error.retryable is (reason in ("rate_limit", "outage"))
    assert name in error.message


REFUSALS_WITH_STATUS_200 = [
    ("okx", '{"code":"51001","msg":"Instrument ID does not exist","data":[]}', "unknown_symbol"),
    ("okx", '{"code":"50011","msg":"Too Many Requests","data":[]}', "rate_limit"),
    ("okx", '{"code":"50026","msg":"System error","data":[]}', "outage"),
    ("bybit", '{"retCode":10006,"retMsg":"Too many visits","result":{}}', "rate_limit"),
    ("bybit", '{"retCode":10001,"retMsg":"Not supported symbols","result":{}}', "unknown_symbol"),
    ("bybit", '{"retCode":10001,"retMsg":"Invalid period!","result":{}}', "refused"),
    ("kraken", '{"error":["EQuery:Unknown asset pair"]}', "unknown_symbol"),
    ("kraken", '{"error":["EGeneral:Too many requests"]}', "rate_limit"),
    ("kraken", '{"error":["EService:Unavailable"]}', "outage"),
    ("kucoin", '{"code":"400100","msg":"This pair is not provided at present"}', "unknown_symbol"),
    ("cryptocompare", '{"Response":"Error","Message":"over your rate limit","Type":99,"Data":{}}', "rate_limit"),
    (
        "cryptocompare",
        '{"Response":"Error","Message":"CCCAGG market does not exist for this coin pair (X-Y)","Type":2,"Data":{}}',
        "unknown_symbol",
    ),
]


@pytest.mark.parametrize(("name", "body", "reason"), REFUSALS_WITH_STATUS_200)
def test_refusals_in_the_body_of_a_good_answer_are_told_apart(bench: Any, name: str, body: str, reason: str) -> None:
    """Some sources say no with a status of 200."""
    with pytest.raises(SourceRefused) as caught:
        bench.source(name).parse(body.encode(), "1h", asked(name, "1h", T, T + HOUR_US))
    assert caught.value.reason == reason


@pytest.mark.parametrize("name", SOURCES)
def test_anything_else_is_an_error_and_no_surprise(bench: Any, name: str) -> None:
    """HTML is an outage; a missing field, another type, half an answer and nonsense cannot be read."""
    source, interval = bench.source(name), GOLDEN[name][0]
    request = asked(name, interval, T, T + INTERVALS_US[interval])
    with pytest.raises(SourceRefused, match="HTML") as caught:
        source.parse(b" <!DOCTYPE html>", interval, request)
    assert caught.value.reason == "outage"
    body = GOLDEN[name][1]
    wrong = [body[: len(body) // 2], "", "7", '"x"', "[[]]", "[7]", '[["a","b","c","d","e","f","g","h","i","j","k"]]']
    wrong += ['{"a":[]}', "[" * 10_000]
    for text_ in wrong:
        with pytest.raises((MessageError, SourceRefused)):
            source.parse(text_.encode(), interval, request)


def test_a_candle_where_no_bucket_starts_is_refused(bench: Any) -> None:
    """An exchange whose days began elsewhere would be believed otherwise."""
    body = b'{"code":"0","msg":"","data":[["1597017600001","3","3","3","3","8","2","1","1"]]}'
    with pytest.raises(MessageError, match="no bucket"):
        bench.source("okx").parse(body, "1m", asked("okx", "1m", T, T + MINUTE_US))


# The registry


def test_the_default_order_is_what_users_read() -> None:
    """Futures, spot, the aggregators, then others; all of them exist."""
    assert DEFAULT_ORDER == ("binance_futures", "binance", "coingecko", "cryptocompare", "okx", "bybit")
    assert set(DEFAULT_ORDER) <= set(SOURCES)
    assert [source_class(name).name for name in SOURCES] == list(SOURCES)
    with pytest.raises(UnknownName, match="binanse") as caught:
        create_source("binanse")
    assert "binance" in caught.value.nearest
