"""Walks over the simulated sources: exactly the market's candles, none twice, in as few requests as the pages force."""

from __future__ import annotations

import random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.errors import UnknownName
from collector.exchanges.candle_sources.intervals import DAY_US, HOUR_US, INTERVALS_US, MINUTE_US, bucket_start
from collector.exchanges.candle_sources.registry import SOURCES
from collector.exchanges.candle_sources.walk import PageWalk, walk
from collector.sim.history import HistoryFault
from collector.sim.history_market import LISTED_US
from tests.exchanges.candle_sources.conftest import NOW_US, Bench

EXCHANGES = [name for name in SOURCES if name not in ("coingecko", "cryptocompare")]
DEEP = [name for name in EXCHANGES if name not in ("kraken", "gate", "hyperliquid")]
"""Those that go back to the listing."""
PASSING = ("429", "418", "500", "503", "in_body", "html", "missing_field", "short", "duplicate", "drop")


@pytest.mark.parametrize("interval", ["1m", "30m", "1h", "4h", "1d", "1w"])
@pytest.mark.parametrize("name", EXCHANGES)
def test_every_exchange_gives_the_same_closed_candles(bench: Any, name: str, interval: str) -> None:
    """One market, whoever is asked, and whether the interval is its own or folded; weeks begin on Mondays."""
    server = bench.serve()
    length = INTERVALS_US[interval]
    to_us = bucket_start(NOW_US, interval)
    from_us = to_us - (90 if length < DAY_US else 20) * length
    candles = bench.collect(server, bench.walk(name, interval, from_us, to_us))
    assert bench.same(candles) == bench.same(bench.expected(server, name, interval, from_us, to_us))
    assert all(candle.closed for candle in candles)


@pytest.mark.parametrize(
    ("name", "interval"), [("cryptocompare", "1h"), ("cryptocompare", "1m"), ("coingecko", "4h"), ("coingecko", "30m")]
)
def test_aggregators_give_their_index_of_the_market(bench: Any, name: str, interval: str) -> None:
    """They say themselves that they are aggregators, and what they tell is no exchange's candle."""
    server = bench.serve()
    to_us = bucket_start(NOW_US, interval)
    from_us = to_us - 40 * INTERVALS_US[interval]
    walk = bench.walk(name, interval, from_us, to_us)
    assert walk.source.kind == "aggregator"
    assert bench.same(bench.collect(server, walk)) == bench.same(bench.expected(server, name, interval, from_us, to_us))


@pytest.mark.parametrize("name", SOURCES)
def test_requests_are_no_more_than_the_pages_force(bench: Any, name: str) -> None:
    """A range of candles without holes takes the pages that it fills, and no request to learn that it is over."""
    server = bench.serve()
    source = bench.source(name)
    interval = "4h" if name == "coingecko" else "1h"
    length = INTERVALS_US[interval]
    to_us = bucket_start(NOW_US, interval)
    page = source.page_size(interval)
    count = min(3 * page + 1, (to_us - (source.reach_us(interval, to_us) or LISTED_US)) // length - 1)
    walk = bench.walk(name, interval, to_us - count * length, to_us)
    assert isinstance(walk, PageWalk)
    assert len(bench.collect(server, walk)) == count
    if name == "bitget":
        recent = min(count, 59 * 24)
        most = -(-recent // 1000) + -(-(count - recent) // 200) + 1
        assert walk.requests <= most
    else:
        assert walk.requests == -(-count // page)


@settings(max_examples=80)
@given(
    name=st.sampled_from(DEEP),
    interval=st.sampled_from(["1m", "5m", "1h", "4h"]),
    back=st.integers(1, 4000),
    count=st.integers(0, 2500),
    unaligned=st.integers(0, MINUTE_US * 60),
    lie=st.sampled_from([None, 7, 100, 299]),
    quiet=st.booleans(),
    hole=st.tuples(st.integers(0, 4000), st.integers(0, 1500)),
    seed=st.integers(0, 2**32),
)
def test_any_range_page_and_failure_gives_exactly_the_markets_candles(
    name: str, interval: str, back: int, count: int, unaligned: int, lie: int | None, quiet: bool,
    hole: tuple[int, int], seed: int,
) -> None:  # fmt: skip
    """None is missing, none comes twice, and the requests stay within what pages, edges and failures force."""
    bench, length = Bench(), INTERVALS_US[interval]
    # A source that lies takes a request for so few candles, and quiet minutes are worked out one by one.
    count = min(count, 150 if lie == 7 else 2500, 20_000 * MINUTE_US // length if quiet else 2500)
    chance = random.Random(seed)
    from_us = NOW_US - back * length - unaligned
    to_us = min(from_us + count * length, NOW_US)
    hole_us = from_us + hole[0] * length, from_us + (hole[0] + hole[1]) * length
    faults = [HistoryFault("hole", from_us=hole_us[0], to_us=hole_us[1])]
    if lie is not None:
        faults.append(HistoryFault("lie", n=lie))
    failures = chance.choices(PASSING, k=3)
    faults += [HistoryFault(kind, after=chance.randrange(4), seconds=0) for kind in failures]  # type: ignore[arg-type]
    server = bench.serve(*faults, quiet=("BTC_USDT",) if quiet else ())
    page_walk = bench.walk(name, interval, from_us, to_us)
    candles = bench.collect(server, page_walk)
    whole = bench.expected(server, name, interval, from_us, to_us)
    there = [candle for candle in whole if not hole_us[0] <= candle.start_us < hole_us[1]]
    got = sorted(candles, key=lambda candle: candle.start_us)
    if interval not in page_walk.source.intervals:
        # Of a candle that is folded a part may be missing: then the walk says so.
        there = [candle for candle in whole if candle.start_us + length <= hole_us[0] or candle.start_us >= hole_us[1]]
        got = [candle for candle in got if candle.start_us in {whole.start_us for whole in there}]
        assert not page_walk.incomplete.keys() - {candle.start_us for candle in candles}
    assert bench.same(got) == bench.same(there)
    starts = [candle.start_us for candle in candles]
    assert len(starts) == len(set(starts))
    assert page_walk.request is None
    part = page_walk.part if hasattr(page_walk, "part") else interval
    rows = count * length // INTERVALS_US[part] + 2
    page = min(page_walk.source.page_size(part), 200 if name == "bitget" else 10**9, lie or 10**9)
    full_page = min(page_walk.source.page_size(part), 200 if name == "bitget" else 10**9)
    # Each page may have its edge confirmed once; a source that lies is found out by one page and its rest.
    most = -(-rows // page) + 2 * (-(-rows // full_page)) + -(-full_page // page) + len(failures) + 2
    if not quiet:
        assert page_walk.requests <= most


@pytest.mark.parametrize("name", DEEP)
def test_an_empty_middle_is_not_the_end(bench: Any, name: str) -> None:
    """Pages without a single candle lie between others, and the walk goes on behind them."""
    start = bucket_start(NOW_US - 300 * DAY_US, "1h")
    hole = HistoryFault("hole", from_us=start + 400 * HOUR_US, to_us=start + 4_500 * HOUR_US)
    server = bench.serve(hole)
    candles = bench.collect(server, bench.walk(name, "1h", start, start + 5_000 * HOUR_US))
    starts = sorted((candle.start_us - start) // HOUR_US for candle in candles)
    assert starts == [*range(400), *range(4_500, 5_000)]


@pytest.mark.parametrize("name", DEEP)
def test_a_smaller_page_than_documented_is_found_out(bench: Any, name: str) -> None:
    """After the first page that was cut, no more candles are asked for than come, and none is lost."""
    server = bench.serve(HistoryFault("lie", n=50))
    start = bucket_start(NOW_US - 300 * DAY_US, "1h")
    walk = bench.walk(name, "1h", start, start + 1_000 * HOUR_US)
    assert len(bench.collect(server, walk)) == 1_000
    assert walk.requests <= 1_000 // 50 + 2


@pytest.mark.parametrize(
    ("name", "interval", "kept"),
    [("kraken", "1h", 720), ("hyperliquid", "1h", 5_000), ("gate", "1h", 9_970), ("cryptocompare", "1m", 10_078)],
)
def test_what_a_source_no_longer_has_is_said(bench: Any, name: str, interval: str, kept: int) -> None:
    """Of a range that goes back too far the rest comes, and the part that cannot be had is named with its reason."""
    server = bench.serve()
    length = INTERVALS_US[interval]
    current = bucket_start(NOW_US, interval)
    from_us = current - 12_000 * length
    walk = bench.walk(name, interval, from_us, current)
    candles = bench.collect(server, walk)
    assert len(candles) == pytest.approx(kept, abs=3)
    (lost,) = walk.unreachable
    assert (lost.from_us, lost.to_us) == (from_us, candles[0].start_us)
    assert name in lost.reason
    assert [candle.start_us for candle in candles] == list(range(candles[0].start_us, current, length))


def test_nothing_is_folded_from_a_part_of_its_parts(bench: Any) -> None:
    """Where the older hours of a bucket cannot be had, the bucket cannot be had either."""
    server = bench.serve()
    walk = bench.walk("kraken", "2h", NOW_US - 800 * HOUR_US, NOW_US)
    candles = bench.collect(server, walk)
    assert walk.unreachable[0].to_us == candles[0].start_us
    expected = bench.expected(server, "kraken", "2h", candles[0].start_us, NOW_US)
    assert bench.same(candles) == bench.same(expected)
    assert [candle.closed for candle in candles[-2:]] == [True, False]


def test_a_folded_candle_that_lacks_parts_is_named(bench: Any) -> None:
    """Four hours of which one is missing are folded from three, and the walk says which one it was."""
    start = bucket_start(NOW_US - 30 * DAY_US, "4h")
    server = bench.serve(HistoryFault("hole", from_us=start + 5 * HOUR_US, to_us=start + 6 * HOUR_US))
    walk = bench.walk("coinbase", "4h", start, start + 12 * HOUR_US)
    assert len(bench.collect(server, walk)) == 3
    assert walk.incomplete == {start + 4 * HOUR_US: (start + 5 * HOUR_US,)}


def test_a_walk_can_go_on_where_another_one_was_left(bench: Any) -> None:
    """``covered_us`` is where a new walk begins: together they bring everything once."""
    server = bench.serve()
    start = bucket_start(NOW_US - 100 * DAY_US, "4h")
    end = start + 1_800 * HOUR_US
    for name in ("okx", "coinbase"):
        for interval in ("1h", "4h"):
            first = bench.walk(name, interval, start, end)
            candles = [*bench.ask(server, first), *bench.ask(server, first)]
            candles = [candle for candle in candles if candle.start_us < first.covered_us]
            candles += bench.collect(server, bench.walk(name, interval, first.covered_us, end))
            starts = [candle.start_us for candle in candles]
            assert starts == list(range(start, end, INTERVALS_US[interval]))


def test_an_answer_that_cannot_be_read_leaves_the_walk_where_it_is(bench: Any) -> None:
    """The same request is asked again, and its good answer counts."""
    server = bench.serve(HistoryFault("missing_field", source="okx"))
    walk = bench.walk("okx", "1h", NOW_US - 10 * HOUR_US, NOW_US)
    request = walk.request
    with pytest.raises(Exception, match="cannot be read"):
        bench.ask(server, walk)
    assert walk.request == request
    assert len(bench.ask(server, walk)) == 10


def test_the_candle_under_way_is_not_closed(bench: Any) -> None:
    """Whether a source says so or not, a bucket that is not over is not closed."""
    server = bench.serve()
    for name in EXCHANGES:
        candles = bench.collect(server, bench.walk(name, "1h", NOW_US - 3 * HOUR_US, NOW_US + DAY_US))
        assert [candle.closed for candle in candles] == [True, True, True, False][-len(candles) :], name


def test_an_empty_range_asks_nothing(bench: Any) -> None:
    """Nor does one that lies in the future."""
    assert bench.walk("okx", "1h", NOW_US, NOW_US).request is None
    assert bench.walk("okx", "1h", NOW_US + DAY_US, NOW_US + 2 * DAY_US).request is None
    walk = bench.walk("okx", "1h", NOW_US, NOW_US)
    assert walk.feed(b"whatever") == []


def test_unknown_names_are_told() -> None:
    """An interval that nobody has, one that a source has nothing for, a symbol that is none."""
    bench = Bench()
    for name, symbol, interval in (("okx", "BTC_USDT", "7m"), ("coingecko", "BTC_USDT", "1m"), ("okx", "BTC", "1h")):
        with pytest.raises(UnknownName):
            walk(bench.source(name), symbol, interval, 0, NOW_US, now_us=NOW_US)
