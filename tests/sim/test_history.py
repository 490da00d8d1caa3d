"""The simulated sources as servers: their limits, their faults, what they say about themselves."""

from __future__ import annotations

import json
from typing import Any

import httpx
import pytest

from collector.clock import ManualClock
from collector.errors import CollectorError, UsageError
from collector.sim.child import start_history
from collector.sim.history import KINDS, HistoryFault, HistoryServer, Options, parse_fault
from collector.sim.history_answers import DIALECTS, Refused
from collector.sim.history_market import DAY_US, HOUR_US

NOW_US = 1_700_000_000_000_000
GATE = "/gate/api/v4/spot/candlesticks?currency_pair=BTC_USDT"
KLINES = "/binance/api/v3/klines?symbol=BTCUSDT&interval=1h"


def server(*faults: HistoryFault, **options: Any) -> HistoryServer:
    return HistoryServer(Options(faults=faults, **options), ManualClock(NOW_US))


def rows(reply: Any) -> list[Any]:
    found: list[Any] = json.loads(reply.body)
    return found


def test_it_runs_as_a_child() -> None:
    """All sources under one address; faults come and go while it runs; it ends when it is told to."""
    with start_history(
        symbols=["SOL_EUR"], quiet=["SOL_EUR"], faults=["500:source=okx"], limits=False, remember=True
    ) as child:
        assert set(child.ready["addresses"]) == {dialect.name for dialect in DIALECTS}
        with httpx.Client(base_url=child.rest_url, trust_env=False) as client:
            okx = "/okx/api/v5/market/candles?instId=SOL-EUR&bar=1H"
            assert client.get(okx).status_code == 500
            assert len(client.get(okx).json()["data"]) == 100
            assert client.post("/admin/faults", content=b"503:source=okx,times=0").status_code == 200
            assert client.post("/admin/faults", content=b"fire").status_code == 400
            assert [client.get(okx).status_code for _ in range(3)] == [503] * 3
            assert client.delete("/admin/faults").json() == []
            assert client.get(okx).status_code == 200
            told = client.get("/admin/status").json()["okx"]
            assert (told["requests"], told["faults"]) == (6, {"500": 1, "503": 3})
            assert client.get("/nobody/x").status_code == client.get("/admin/x").status_code == 404
            headers = client.get("/binance/api/v3/klines?symbol=SOLEUR&interval=1h").headers
            assert headers["X-MBX-USED-WEIGHT-1M"] == "2"
    with pytest.raises(CollectorError, match="is no fault"):
        start_history(faults=["fire"])


def test_more_than_a_source_allows_is_refused_until_its_window_is_over() -> None:
    """With Retry-After, and for those who go on asking as well."""
    history = server()
    clock: Any = history._clock
    replies = [history.answer("GET", "/coinbase/products/BTC-USDT/candles?granularity=60", b"") for _ in range(12)]
    assert [reply.status for reply in replies] == [200] * 10 + [429] * 2
    assert int(replies[-1].headers["Retry-After"]) >= 1
    clock.advance(1)
    assert history.answer("GET", "/coinbase/products/BTC-USDT/candles?granularity=60", b"").status == 200
    assert history.records["coinbase"].refused == 2
    unlimited = server(limits=False)
    assert all(unlimited.answer("GET", KLINES + "&limit=1", b"").status == 200 for _ in range(3100))


@pytest.mark.parametrize("name", [dialect.name for dialect in DIALECTS])
def test_every_source_refuses_in_its_own_words(name: str) -> None:
    """A path that it does not have, and too many requests."""
    dialect = next(dialect for dialect in DIALECTS if dialect.name == name)(server().market)
    history = server()
    reply = history.answer("GET", f"/{name}/nowhere", b"")
    assert reply.status >= 400 or b"rror" in reply.body
    assert dialect.too_many().status in (200, 429)
    history.records[name].away_until_us = NOW_US + 5_000_000
    history.records[name].away_status = 418
    assert history.answer("GET", f"/{name}/nowhere", b"").status == 418


def test_binance_keeps_to_its_bounds() -> None:
    """Both inclusive; 500 rows by default and 1000 at most, from the start or up to the end."""
    history = server()
    start = NOW_US // HOUR_US * HOUR_US // 1000 - 3_600_000 * 2000
    hour = 3_600_000
    found = rows(history.answer("GET", f"{KLINES}&startTime={start}&endTime={start + 2 * hour}", b""))
    assert [row[0] for row in found] == [start, start + hour, start + 2 * hour]
    assert found[0][6] == start + hour - 1
    assert len(rows(history.answer("GET", f"{KLINES}&startTime={start}", b""))) == 500
    assert rows(history.answer("GET", f"{KLINES}&startTime={start}&limit=5000", b""))[-1][0] == start + 999 * hour
    assert len(rows(history.answer("GET", KLINES, b""))) == 500
    assert history.answer("GET", "/binance/api/v3/klines?symbol=BTCUSDT&interval=7m", b"").status == 400


@pytest.mark.parametrize(
    ("target", "words"),
    [
        ("/coinbase/products/BTC-USDT/candles?granularity=3600&start=1690000000&end=1699000000", b"exceeds 300"),
        ("/coinbase/products/BTC-USDT/candles?granularity=14400", b"Unsupported granularity"),
        (f"{GATE}&interval=1h&from=1690000000&limit=5", b"conflicts"),
        (
            f"{GATE}&interval=1m&from=1690000000&to=1690001000",
            b"too long",
        ),
        (
            f"{GATE}&interval=1h&from=1690000000&to=1699000000",
            b"too broad",
        ),
        (f"{GATE}&interval=9h", b"Invalid interval"),
        ("/cryptocompare/data/v2/histominute?fsym=BTC&tsym=USDT&limit=60&toTs=1690000000", b"last 7 days"),
        ("/cryptocompare/data/v2/histohour?fsym=BTC&tsym=USDT&limit=0", b"limit param"),
        ("/cryptocompare/data/v2/histohour?fsym=BTC&tsym=XYZ&limit=5&tryConversion=false", b"does not exist"),
        ("/coingecko/api/v3/coins/bitcoin/ohlc?vs_currency=usd&days=2", b"Invalid days"),
        ("/coingecko/api/v3/coins/bitcoin/ohlc?vs_currency=usdt&days=7", b"invalid vs_currency"),
        ("/okx/api/v5/market/candles?instId=BTC-USDT&bar=1hour", b"bar error"),
        ("/bybit/v5/market/kline?symbol=BTCUSDT&interval=60", b"category"),
        ("/kraken/0/public/OHLC?pair=XBTUSDT&interval=7", b"Invalid arguments"),
        ("/bitget/api/v2/spot/market/history-candles?symbol=BTCUSDT&granularity=1h", b"endTime"),
        ("/bitget/api/v2/spot/market/candles?symbol=BTCUSDT&granularity=60", b"verification failed"),
        ("/kucoin/api/v1/market/candles?symbol=BTC-USDT&type=60m", b"not supported"),
        ("/mexc/api/v3/klines?symbol=BTCUSDT&interval=1h", b"Invalid interval"),
        ("/coinbase_advanced/api/v3/brokerage/market/products/BTC-USDT/candles?granularity=FOUR_HOUR", b"invalid"),
        (
            (
                "/coinbase_advanced/api/v3/brokerage/market/products/BTC-USDT/candles"
                "?granularity=ONE_HOUR&start=1690000000&end=1699000000"
            ),
            b"less than 350",
        ),
        ("/hyperliquid/info", b"deserialize"),
    ],
)
def test_what_the_documentation_forbids_is_refused(target: str, words: bytes) -> None:
    """Spans that are too long or too old, and words that a source does not know."""
    assert words in server().answer("GET", target, b"").body


def test_days_begin_at_utc_8_unless_they_are_asked_for_in_utc() -> None:
    """A client that forgets the suffix gets candles of other days."""
    history = server()
    for bar, hour in (("1D", 16), ("1Dutc", 0)):
        reply = history.answer("GET", f"/okx/api/v5/market/candles?instId=BTC-USDT&bar={bar}", b"")
        assert int(rows(reply)["data"][0][0]) * 1000 % DAY_US == hour * HOUR_US  # type: ignore[call-overload]


def test_without_trades_cryptocompare_converts_or_is_flat() -> None:
    """Conversion makes a pair of what is none, and looks like any other; an hour without trades is a flat line."""
    closed = (NOW_US - 5 * HOUR_US, NOW_US - 2 * HOUR_US)
    history = server(closed_us=[closed])
    reply = history.answer("GET", "/cryptocompare/data/v2/histohour?fsym=BTC&tsym=XYZ&limit=10", b"")
    found = json.loads(reply.body)["Data"]["Data"]
    assert len(found) == 11
    flat = [row for row in found if row["volumefrom"] == 0]
    assert flat
    assert all(row["open"] == row["high"] == row["low"] == row["close"] > 0 for row in flat)


def test_faults_are_read_from_words() -> None:
    """Each kind with its parameters; anything else is an error that names the kinds."""
    assert parse_fault("429:source=okx,seconds=2.5,times=3") == HistoryFault("429", "okx", times=3, seconds=2.5)
    assert parse_fault("hole:from_us=5,to_us=7") == HistoryFault("hole", from_us=5, to_us=7)
    for words in ("fire", "429:source", "lie:n=many", "html:colour=1"):
        if words in ("429:source", "html:colour=1"):
            assert parse_fault(words).kind in KINDS
            continue
        with pytest.raises(UsageError, match="no fault"):
            parse_fault(words)


def test_pages_are_spoiled_where_they_are_told_to() -> None:
    """Short at the end that a cut costs, whichever way round; twice the last; without a field."""
    target = "/okx/api/v5/market/candles?instId=BTC-USDT&bar=1H&limit=5"
    whole = json.loads(server().answer("GET", target, b"").body)["data"]
    assert json.loads(server(HistoryFault("short")).answer("GET", target, b"").body)["data"] == whole[:-1]
    assert json.loads(server(HistoryFault("duplicate")).answer("GET", target, b"").body)["data"] == [*whole, whole[-1]]
    spoiled = json.loads(server(HistoryFault("missing_field")).answer("GET", target, b"").body)["data"]
    assert spoiled == [*whole[:-1], whole[-1][:2]]
    ascending = rows(server().answer("GET", KLINES, b""))
    assert rows(server(HistoryFault("short")).answer("GET", KLINES, b"")) == ascending[:-1]
    one = json.loads(server(HistoryFault("short")).answer("GET", target[:-1] + "1", b"").body)["data"]
    assert len(one) == 1
    later = server(HistoryFault("500", "okx", after=2))
    assert [later.answer("GET", target, b"").status for _ in range(4)] == [200, 200, 500, 200]
    assert later.answer("GET", KLINES, b"").status == 200


def test_what_was_asked_before_may_be_remembered() -> None:
    """The same bytes, and never where something is to go wrong."""
    history = server(remember=True)
    first = history.answer("GET", KLINES, b"")
    assert history.answer("GET", KLINES, b"") is first
    assert history.answer("GET", f"{KLINES}&limit=5", b"").body != first.body
    history.faults.append(HistoryFault("500"))
    assert history.answer("GET", KLINES, b"").status == 500
    assert history.answer("GET", KLINES, b"").body == first.body
    assert history.records["binance"].requests == 5
    forgetful = server()
    assert forgetful.answer("GET", KLINES, b"") is not forgetful.answer("GET", KLINES, b"")


def test_a_refusal_carries_its_answer() -> None:
    """As dialects raise it."""
    assert Refused(418, {"a": 1}).answer.status == 418
