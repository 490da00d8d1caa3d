"""Recorded REST answers parse to the candles that they hold."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from collector.exchanges.base import Request
from collector.exchanges.candle_sources.base import HistoryCandle
from collector.exchanges.candle_sources.intervals import INTERVALS_US
from collector.exchanges.candle_sources.registry import create_source

_FOLDER = os.environ.get("COLLECTOR_RECORDINGS", "")
RECORDINGS = Path(_FOLDER)
pytestmark = pytest.mark.skipif(not _FOLDER, reason="COLLECTOR_RECORDINGS names no folder of recordings")


def single(path: str) -> bytes:
    return (RECORDINGS / "single-frames" / path).read_bytes()


def test_recorded_pages_of_klines_are_what_they_hold() -> None:
    """Each page of Binance's spot and futures klines, column by column."""
    routes = json.loads(gzip.decompress((RECORDINGS / "rest" / "binance-http.json.gz").read_bytes()))["routes"]
    seen = 0
    for route, name in (("/api/v3/klines", "binance"), ("/fapi/v1/klines", "binance_futures")):
        for exchange in routes[route]["GET"]:
            rows, query = exchange["data"], dict(part.split("=") for part in exchange["queryString"].split("&"))
            if not isinstance(rows, list) or query.get("interval") not in INTERVALS_US:
                continue
            request = Request(route, query)
            page = create_source(name).parse(json.dumps(rows).encode(), query["interval"], request)
            assert len(page.candles) == len(rows)
            for row, candle in zip(sorted(rows), page.candles, strict=True):
                assert [candle.start_us // 1000, candle.open, candle.high, candle.low, candle.close] == row[:5]
                assert [candle.volume, candle.quote_volume, candle.trades_count] == [row[5], row[7], row[8]]
                assert [candle.taker_buy_volume, candle.taker_buy_quote_volume] == row[9:11]
                seen += 1
    assert seen > 100


FRAMES: list[tuple[str, str, str, dict[str, str], list[tuple[Any, ...]]]] = [
    (
        "okx",
        "okx/http_get_candlesticks_full.json",
        "1m",
        {"instId": "BTC-USDT-SWAP"},
        [
            (1_747_093_980_000_000, "102806", "102820.5", "102783.1", "102806.1", "71.6404", "7364701.57952"),
            (1_747_094_040_000_000, "102806.1", "102820.4", "102806.1", "102820.4", "10.4037", "1069603.34883"),
        ],
    ),
    (
        "okx",
        "okx/http_get_candlesticks.json",
        "1m",
        {"instId": "BTC-USDT"},
        [
            (1_625_097_600_000_000, "33528.6", "33870.0", "33528.6", "33783.9", "778.838", "0"),
            (1_625_097_660_000_000, "33783.9", "33783.9", "33782.1", "33782.1", "0.123", "0"),
        ],
    ),
    (
        "coinbase_advanced",
        "coinbase/http_candles.json",
        "1h",
        {},
        [
            (1_712_188_800_000_000, "65984.18", "66387.77", "65857.35", "66314.59", "358.74851052", None),
            (1_712_192_400_000_000, "66312.4", "66331.99", "66055.14", "66181.6", "355.82896243", None),
        ],
    ),
    (
        "binance",
        "binance/klines_response.json",
        "1d",
        {},
        [
            (1_499_040_000_000_000, "0.01634790", "0.80000000", "0.01575800", "0.01577100", "148976.11427815",
             "2434.19055334"),
        ],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "path", "interval", "params", "expected"), FRAMES)
def test_single_answers_are_what_they_hold(
    name: str, path: str, interval: str, params: dict[str, str], expected: list[tuple[Any, ...]]
) -> None:
    """Ascending, whatever their own order."""
    page = create_source(name).parse(single(path), interval, Request("/", params))
    assert [_numbers(candle) for candle in page.candles] == expected


def test_bybits_answer_is_what_it_holds() -> None:
    """Its one row begins in the middle of a minute, as no candle of an exchange does: read as it is, and refused."""
    source = create_source("bybit_linear")
    document = json.loads(single("bybit/http_get_klines_linear.json"))
    (candle,) = source.read(document, "1m", Request("/"))
    assert _numbers(candle) == (1_709_891_679_000_000, "27450", "27460", "27440", "27455", "123.45", "3390000")
    aligned = json.dumps(document).replace("1709891679000", "1709891640000").encode()
    (candle,) = source.parse(aligned, "1m", Request("/")).candles
    assert candle.start_us == 1_709_891_640_000_000


def _numbers(candle: HistoryCandle) -> tuple[Any, ...]:
    return candle.start_us, candle.open, candle.high, candle.low, candle.close, candle.volume, candle.quote_volume
