"""Funding rates and open interest of the past: exactly what was paid and held, none twice."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from collector.errors import CollectorError, MessageError, SourceRefused, UnknownName
from collector.exchanges.candle_sources.intervals import DAY_US, HOUR_US
from collector.exchanges.candle_sources.registry import (
    FUNDING_SOURCES,
    OPEN_INTEREST_SOURCES,
    create_funding_source,
    create_open_interest_source,
)
from collector.exchanges.candle_sources.series import FundingPoint, OpenInterestPoint, SeriesWalk, signed
from collector.sim.history import HistoryFault
from collector.sim.history_contracts import (
    FUNDING_US,
    funding_rate,
    funding_times,
    open_interest,
    open_interest_times,
)
from tests.exchanges.candle_sources.conftest import NOW_US

_FOLDER = os.environ.get("COLLECTOR_RECORDINGS", "")


def collect(bench: Any, server: Any, walk: SeriesWalk[Any]) -> list[Any]:
    points: list[Any] = []
    for _ in range(5_000):
        if walk.request is None:
            return sorted(points, key=lambda point: point.time_us)
        try:
            points += bench.ask(server, walk)
        except CollectorError:
            continue
    raise AssertionError("the walk does not end")


@pytest.mark.parametrize("faults", [(), ("500", "html", "missing_field", "duplicate"), ("lie",)])
@pytest.mark.parametrize("name", FUNDING_SOURCES)
def test_every_rate_comes_once(bench: Any, name: str, faults: tuple[str, ...]) -> None:
    """Whatever the order, the page, and what goes wrong on the way."""
    failures = [HistoryFault(kind, after=1, n=17) for kind in faults]  # type: ignore[arg-type]
    server = bench.serve(*failures)
    from_us = NOW_US - 80 * DAY_US
    walk = SeriesWalk(create_funding_source(name), "BTC_USDT", from_us, NOW_US, now_us=NOW_US)
    every_us = HOUR_US if name == "hyperliquid" else FUNDING_US
    times = funding_times(server.market, "BTC_USDT", from_us, NOW_US, every_us)
    points = collect(bench, server, walk)
    assert [point.time_us for point in points] == list(times)
    assert [point.rate for point in points] == [funding_rate(server.market, "BTC_USDT", time) for time in times]
    assert any(point.rate.startswith("-") for point in points)
    assert walk.covered_us == NOW_US
    page = (
        17 if "lie" in faults else {"binance_futures": 1000, "okx": 100, "bybit_linear": 200, "hyperliquid": 500}[name]
    )
    assert walk.requests <= -(-len(points) // page) + 1


@pytest.mark.parametrize("name", OPEN_INTEREST_SOURCES)
def test_all_open_interest_comes_once(bench: Any, name: str) -> None:
    """Also behind three days for which there is none."""
    server = bench.serve(HistoryFault("duplicate"))
    from_us = NOW_US - 4 * DAY_US
    walk = SeriesWalk(create_open_interest_source(name), "BTC_USDT", from_us, NOW_US, now_us=NOW_US)
    times = open_interest_times(server.market, "BTC_USDT", from_us, NOW_US)
    points = collect(bench, server, walk)
    expected = [(time, *open_interest(server.market, "BTC_USDT", time)) for time in times]
    if name == "bybit_linear":
        assert [(point.time_us, point.amount) for point in points] == [row[:2] for row in expected]
    else:
        assert [(point.time_us, point.amount, point.value) for point in points] == expected
    page = {"binance_futures": 500, "okx": 100, "bybit_linear": 200}[name]
    assert walk.requests == -(-(NOW_US - from_us) // (page * 300_000_000))


def test_what_lies_too_far_back_is_said(bench: Any) -> None:
    """Binance has a month of open interest, OKX three months of funding."""
    server = bench.serve()
    from_us = NOW_US - 100 * DAY_US
    for source in (create_open_interest_source("binance_futures"), create_funding_source("okx")):
        walk: SeriesWalk[Any] = SeriesWalk(source, "BTC_USDT", from_us, NOW_US, now_us=NOW_US)
        points = collect(bench, server, walk)
        (lost,) = walk.unreachable
        assert lost.from_us == from_us
        assert lost.to_us <= points[0].time_us
        assert "days" in lost.reason
    nothing: SeriesWalk[Any] = SeriesWalk(source, "BTC_USDT", from_us, from_us + 1, now_us=NOW_US)
    assert nothing.request is None
    assert nothing.feed(b"whatever") == []


def test_a_walk_goes_on_where_one_was_left(bench: Any) -> None:
    """Where the newest come first, nothing is covered until all is."""
    server = bench.serve()
    for name in ("hyperliquid", "bybit_linear"):
        from_us = NOW_US - 90 * DAY_US
        walk = SeriesWalk(create_funding_source(name), "BTC_USDT", from_us, NOW_US, now_us=NOW_US)
        first = bench.ask(server, walk)
        assert first
        assert walk.covered_us == (first[-1].time_us + 1 if name == "hyperliquid" else from_us)


def test_errors_are_told_apart(bench: Any) -> None:
    """An unknown contract, a name that publishes none, and nonsense."""
    server = bench.serve()
    for create, names in (
        (create_funding_source, FUNDING_SOURCES),
        (create_open_interest_source, OPEN_INTEREST_SOURCES),
    ):
        for name in names:
            source: Any = create(name)
            with pytest.raises(SourceRefused) as caught:
                bench.ask(server, SeriesWalk(source, "NOPE_USDT", 0, NOW_US, now_us=NOW_US))
            assert caught.value.reason == "unknown_symbol"
            for body in (b"7", b'{"code":"0","retCode":0}', b"[7]", b"x"):
                with pytest.raises((MessageError, SourceRefused)):
                    source.parse(body)
        with pytest.raises(UnknownName, match="kraken"):
            create("kraken")
    with pytest.raises(ValueError, match="is not a number"):
        signed("--1")
    assert create_funding_source("okx").native("BTC_USDT") == create_funding_source("okx").native("BTC_USDT-SWAP")


GOLDEN_FUNDING = {
    # "Get Funding Rate History", USD-M futures
    "binance_futures": (
        '[{"symbol":"BTCUSDT","fundingRate":"-0.03750000","fundingTime":1570608000000,"markPrice":"34287.54619963"}]',
        FundingPoint(1_570_608_000_000_000, "-0.03750000", "34287.54619963"),
    ),
    # "Get funding rate history"
    "okx": (
        (
            '{"code":"0","msg":"","data":[{"fundingRate":"0.0000746604960499","fundingTime":"1703059200000","instId":"BTC-U'
            'SD-SWAP","instType":"SWAP","method":"next_period","realizedRate":"0.0000746572360545"}]}'
        ),
        FundingPoint(1_703_059_200_000_000, "0.0000746572360545"),
    ),
    # "Get Funding Rate History"
    "bybit_linear": (
        (
            '{"retCode":0,"retMsg":"OK","result":{"category":"linear","list":[{"symbol":"ETHPERP","fundingRate":"0.0001",'
            '"fundingRateTimestamp":"1672041600000"}]},"retExtInfo":{},"time":1672051897447}'
        ),
        FundingPoint(1_672_041_600_000_000, "0.0001"),
    ),
    # "Retrieve historical funding rates"
    "hyperliquid": (
        '[{"coin":"ETH","fundingRate":"-0.00022196","premium":"-0.00052196","time":1683849600076}]',
        FundingPoint(1_683_849_600_076_000, "-0.00022196"),
    ),
}
GOLDEN_OPEN_INTEREST = {
    # "Open Interest Statistics"
    "binance_futures": (
        (
            '[{"symbol":"BTCUSDT","sumOpenInterest":"20403.63700000","sumOpenInterestValue":"150570784.07809979",'
            '"timestamp":"1583127900000"}]'
        ),
        OpenInterestPoint(1_583_127_900_000_000, "20403.63700000", "150570784.07809979"),
    ),
    # "Get contract open interest history"
    "okx": (
        '{"code":"0","data":[["1701417600000","731377.57500501","111","8888888"]],"msg":""}',
        OpenInterestPoint(1_701_417_600_000_000, "111", "8888888"),
    ),
    # "Get Open Interest"
    "bybit_linear": (
        (
            '{"retCode":0,"retMsg":"OK","result":{"symbol":"BTCUSD","category":"inverse","list":[{"openInterest":'
            '"461134384.00000000","timestamp":"1669571400000"}],"nextPageCursor":""},"time":1672053548579}'
        ),
        OpenInterestPoint(1_669_571_400_000_000, "461134384.00000000"),
    ),
}


@pytest.mark.parametrize("name", FUNDING_SOURCES)
def test_the_documented_funding_is_read(name: str) -> None:
    """Typed from each exchange's documentation."""
    body, point = GOLDEN_FUNDING[name]
    assert create_funding_source(name).parse(body.encode()) == [point]


@pytest.mark.parametrize("name", OPEN_INTEREST_SOURCES)
def test_the_documented_open_interest_is_read(name: str) -> None:
    """Typed from each exchange's documentation."""
    body, point = GOLDEN_OPEN_INTEREST[name]
    assert create_open_interest_source(name).parse(body.encode()) == [point]


@pytest.mark.skipif(not _FOLDER, reason="COLLECTOR_RECORDINGS names no folder of recordings")
def test_recorded_answers_are_what_they_hold() -> None:
    """Of three exchanges, ascending."""
    frames = Path(_FOLDER) / "single-frames"
    expected = {
        ("okx", "okx/http_get_funding_rate_history.json"): [
            (1_704_038_400_000_000, "-0.00002"),
            (1_704_067_200_000_000, "0.00015"),
        ],
        ("bybit_linear", "bybit/http_get_funding_history.json"): [
            (1_709_856_000_000_000, "0.00015"),
            (1_709_884_800_000_000, "0.0001"),
        ],
        ("hyperliquid", "hyperliquid/http_funding_history.json"): [
            (1_769_908_800_000_000, "0.0000125"),
            (1_769_912_400_000_000, "-0.0000081"),
            (1_769_916_000_000_000, "0.0000033"),
        ],
    }
    for (name, path), points in expected.items():
        read = create_funding_source(name).parse((frames / path).read_bytes())
        assert [(point.time_us, point.rate) for point in read] == points


@pytest.mark.skipif(not _FOLDER, reason="COLLECTOR_RECORDINGS names no folder of recordings")
def test_recorded_pages_of_a_real_exchange_are_what_they_hold() -> None:
    """Funding and open interest of Binance, as it answered."""
    import gzip

    document = gzip.decompress((Path(_FOLDER) / "rest" / "binance-http.json.gz").read_bytes())
    routes = json.loads(document)["routes"]
    seen = 0
    for exchange in routes["/fapi/v1/fundingRate"]["GET"]:
        if isinstance(exchange["data"], list):
            points = create_funding_source("binance_futures").parse(json.dumps(exchange["data"]).encode())
            rows = {row["fundingTime"] * 1000: row["fundingRate"] for row in exchange["data"]}
            assert {point.time_us: point.rate for point in points} == rows
            seen += len(rows)
    for exchange in routes["/futures/data/openInterestHist"]["GET"]:
        if isinstance(exchange["data"], list):
            held = create_open_interest_source("binance_futures").parse(json.dumps(exchange["data"]).encode())
            rows = {row["timestamp"] * 1000: row["sumOpenInterest"] for row in exchange["data"]}
            assert {point.time_us: point.amount for point in held} == rows
            seen += len(rows)
    assert seen > 10
