"""Candles are exact, whatever the order and the grouping of their trades, and survive lateness and restarts."""

from __future__ import annotations

import gzip
import itertools
import json
import os
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from collector.candles.aggregator import EXACT, Aggregator, Candle, plain
from collector.candles.intervals import INTERVALS
from collector.events import Kline, Trade

DAY_US = 1_700_006_400_000_000
MINUTE_US = 60_000_000


def decimals(highest: int) -> st.SearchStrategy[str]:
    """Give decimal texts of differing lengths, with trailing zeros and tiny and huge ones among them."""
    return st.builds(
        lambda whole, places, digits: f"{whole}.{digits:0{places}d}"[: len(str(whole)) + 1 + places],
        st.integers(0, highest),
        st.integers(1, 18),
        st.integers(0, 10**18 - 1),
    )


@st.composite
def trade_lists(draw: st.DrawFn, *, span_s: int = 7200, text_ids: bool = False) -> list[Trade]:
    count = draw(st.integers(1, 30))
    # few distinct times, so that many trades share one
    times = draw(st.lists(st.integers(0, span_s), min_size=count, max_size=count))
    aggregated = draw(st.booleans())
    trades = []
    for number, second in enumerate(times):
        trades.append(
            Trade(
                "BTC_USDT",
                DAY_US + second * 1_000_000,
                draw(decimals(200_000)),
                draw(decimals(10**9)),
                draw(st.sampled_from(["buy", "sell"])),
                f"t{number}" if text_ids else number + 1,
                0,
                draw(st.sampled_from(["ws", "ws", "ws", "rest"])),
                number * 5 if aggregated else None,
                number * 5 + draw(st.integers(0, 4)) if aggregated else None,
            )
        )
    return trades


def quotes_of(trades: list[Trade]) -> list[Decimal]:
    return [EXACT.multiply(EXACT.create_decimal(t.price), EXACT.create_decimal(t.volume)) for t in trades]


def all_candles(aggregator: Aggregator) -> list[Candle]:
    aggregator.close_due(DAY_US - 1, lambda *_: False)
    return aggregator.open_candles()


@given(trade_lists(), st.data())
def test_any_partition_in_any_order_gives_the_same_digits(trades: list[Trade], data: st.DataObject) -> None:
    """Folding all at once equals folding a permutation cut anywhere, digit by digit."""
    together = Aggregator("BTC_USDT", grace_us=0, started_us=DAY_US)
    together.fold(trades, range(1, len(trades) + 1), quotes_of(trades))
    order = data.draw(st.permutations(range(len(trades))))
    apart = Aggregator("BTC_USDT", grace_us=0, started_us=DAY_US)
    while order:
        cut = data.draw(st.integers(1, len(order)))
        part, order = order[:cut], order[cut:]
        chosen = [trades[i] for i in part]
        apart.fold(chosen, [i + 1 for i in part], quotes_of(chosen))
    assert all_candles(together) == all_candles(apart)


@given(st.one_of(trade_lists(), trade_lists(text_ids=True)))
def test_every_candle_equals_the_oracle(
    run_candles: Callable[..., Any],
    expected_candles: Callable[..., Any],
    facts_of: Callable[..., Any],
    trades: list[Trade],
) -> None:
    """All intervals say what one says who has all trades at once."""
    run = run_candles()
    run.write(*trades)
    run.finish()
    assert expected_candles(run.log.rows) == {key: facts_of(candle) for key, candle in run.final.items()}


class Actions:
    """Steps of a session's life, as hypothesis draws them."""

    kinds = st.lists(
        st.tuples(
            st.sampled_from(["write", "write", "write", "close", "restart", "crash", "finish"]),
            st.integers(-3 * 3600, 120),
            st.integers(1, 4),
        ),
        min_size=3,
        max_size=25,
    )


@settings(max_examples=200, deadline=None)
@given(Actions.kinds, st.sampled_from([0, MINUTE_US, 15 * MINUTE_US, 10_000 * MINUTE_US]), st.data())
def test_lateness_closing_and_restarts_change_nothing_in_the_end(
    run_candles: Callable[..., Any],
    expected_candles: Callable[..., Any],
    facts_of: Callable[..., Any],
    actions: list[tuple[str, int, int]],
    keep_us: int,
    data: st.DataObject,
) -> None:
    """However late trades come, and wherever the process ends, the last rows per key equal the oracle's."""
    run = run_candles(keep_us=keep_us)
    now_s = 4 * 3600.0
    number = 0
    for kind, shift, count in actions:
        if kind == "write":
            trades = []
            for _ in range(count):
                number += 1
                second = max(0.0, now_s + (shift if shift < 0 else data.draw(st.integers(0, 90))))
                volume = data.draw(decimals(100))
                trades.append(
                    Trade("BTC_USDT", DAY_US + int(second * 1e6), str(100 + number), volume, "buy", number, 0)
                )
                now_s = max(now_s, second)
            run.write(*trades)
        elif kind == "close":
            now_s += max(0, shift)
            run.close(now_s)
        elif kind == "finish":
            run.finish()
            run = run.restarted(keep_us=keep_us)
        elif kind == "restart":
            run = run.restarted(keep_us=keep_us)
        else:
            # killed in the middle of the last append to ohlcv.csv: some of the last rows are not there
            written = len(run.log.lines)
            run.close(now_s)
            del run.log.lines[data.draw(st.integers(written, len(run.log.lines))) :]
            run = run.restarted(keep_us=keep_us)
    run.close(now_s)
    run.finish()
    assert expected_candles(run.log.rows) == {key: facts_of(candle) for key, candle in run.final.items()}
    for key in run.final:
        rows = [candle for candle in run.log.lines if candle.key == key]
        assert list(range(len(rows))) == [candle.revision for candle in rows]
        assert all(not before.same_as(after) for before, after in itertools.pairwise(rows))


def test_a_bucket_closes_when_exchange_time_passes_its_end_and_the_grace(
    run_candles: Callable[..., Any], trade_at: Callable[..., Trade]
) -> None:
    """A minute stays open during the grace, closes at its end, and is written once."""
    run = run_candles(grace_us=2_000_000)
    run.write(trade_at(5))
    assert run.close(61.9) == []
    assert [candle.interval for candle in run.close(62)] == ["1m"]
    assert run.close(63) == []
    assert [candle.interval for candle in run.close(302)] == ["5m"]


def test_exchange_time_that_goes_backward_reopens_nothing(
    run_candles: Callable[..., Any], trade_at: Callable[..., Trade]
) -> None:
    """A candle that closed stays closed."""
    run = run_candles()
    run.write(trade_at(5))
    run.close(62)
    assert run.close(10) == []


def test_a_minute_without_trades_gives_no_row(run_candles: Callable[..., Any], trade_at: Callable[..., Trade]) -> None:
    """Silence makes no candle."""
    run = run_candles()
    run.write(trade_at(5), trade_at(185))
    assert [(c.timestamp_us - DAY_US) // 1_000_000 for c in run.close(299) if c.interval == "1m"] == [0, 180]


def test_a_late_trade_revises_its_candle_and_the_closed_ones_above(
    run_candles: Callable[..., Any], trade_at: Callable[..., Trade]
) -> None:
    """Same key, next revision, for the minute and for every higher candle that had closed by then."""
    run = run_candles()
    run.write(trade_at(5, "100", trade_id=1))
    first = run.close(302)
    assert [(c.interval, c.revision) for c in first] == [("1m", 0), ("5m", 0)]
    run.write(trade_at(1, "90", "2", trade_id=2))
    revised = run.close(302.5)
    assert [(c.interval, c.revision) for c in revised] == [("1m", 1), ("5m", 1)]
    assert {("90", "90", "100", "3", 2)} == {(c.open, c.low, c.close, c.volume, c.trades_count) for c in revised}
    assert [(c.interval, c.open) for c in run.close(902)] == [("15m", "90")]


def test_a_late_trade_in_an_empty_minute_makes_its_candle(
    run_candles: Callable[..., Any], trade_at: Callable[..., Trade]
) -> None:
    """A minute whose only trade is late begins at revision 0, closed."""
    run = run_candles()
    run.write(trade_at(5), trade_at(130))
    run.close(182)
    run.write(trade_at(70))
    assert [(c.interval, c.revision, c.is_closed) for c in run.close(183)] == [("1m", 0, True)]


def test_a_trade_later_than_memory_is_folded_from_the_log(
    run_candles: Callable[..., Any], trade_at: Callable[..., Trade]
) -> None:
    """Beyond ``keep_us`` the minute is read again, and the open day above it takes it in too."""
    run = run_candles(keep_us=60_000_000)
    run.write(trade_at(5, "100", "1"))
    run.close(62)
    run.write(trade_at(7200, "101", "1"))
    run.close(7300)
    assert len([b for b in run.aggregator._minutes.values() if b.closed]) == 1
    run.write(trade_at(6, "99", "0.5", source="rest"))
    revised = run.close(7300)
    assert [(c.interval, c.revision) for c in revised] == [("1m", 1), ("5m", 1), ("15m", 1), ("1h", 1)]
    assert {("100", "99", "1.5", "rest")} == {(c.open, c.close, c.volume, c.source) for c in revised}
    run.finish()
    assert [c.volume for c in run.log.lines if c.interval == "1d"] == ["2.5"]


def test_a_trade_later_than_memory_without_a_log_is_counted(
    run_candles: Callable[..., Any], trade_at: Callable[..., Trade]
) -> None:
    """Nothing is invented: the candle stays as it was, and the counter says so."""
    run = run_candles(log=False, keep_us=0)
    run.write(trade_at(5))
    run.close(62)
    run.write(trade_at(6), trade_at(7))
    assert run.close(63) == []
    assert run.aggregator.too_late == 2


def test_memory_is_bounded_by_what_is_kept(run_candles: Callable[..., Any], trade_at: Callable[..., Trade]) -> None:
    """A day of minutes leaves the last fifteen and the open buckets in memory."""
    run = run_candles()
    for minute in range(1440):
        run.write(trade_at(minute * 60 + 1))
        run.close(minute * 60 + 2)
    assert len(run.aggregator._minutes) <= 17
    assert sum(len(spans) for spans in run.aggregator._spans.values()) <= 30


def test_the_first_candle_of_a_session_is_partial(
    run_candles: Callable[..., Any], trade_at: Callable[..., Trade]
) -> None:
    """What began before the session did is not all there; the next one is."""
    run = run_candles(started_us=DAY_US + 3_000_000)
    run.write(trade_at(5), trade_at(65))
    assert [c.coverage for c in run.close(122) if c.interval == "1m"] == ["partial", "full"]


def test_a_session_that_started_on_the_boundary_is_full(
    run_candles: Callable[..., Any], trade_at: Callable[..., Trade]
) -> None:
    """Seen from its first microsecond on, a bucket is whole."""
    run = run_candles(started_us=DAY_US)
    run.write(trade_at(5))
    assert [c.coverage for c in run.close(62)] == ["full"]


def test_a_gap_shows_in_every_candle_it_touches(
    run_candles: Callable[..., Any], trade_at: Callable[..., Trade]
) -> None:
    """Minutes beside the gap are full; the gap's own minute and all above it are not."""
    run = run_candles(started_us=DAY_US)
    run.gaps = [(DAY_US + 70_000_000, DAY_US + 80_000_000)]
    run.write(trade_at(5), trade_at(65), trade_at(125))
    assert [(c.interval, c.coverage) for c in run.close(302)] == [
        ("1m", "full"),
        ("1m", "gap"),
        ("1m", "full"),
        ("5m", "gap"),
    ]


def test_a_repaired_gap_revises_coverage(run_candles: Callable[..., Any], trade_at: Callable[..., Trade]) -> None:
    """After a repair without any trade the candles say full, in a next revision, and others are left alone."""
    run = run_candles(started_us=DAY_US)
    run.gaps = [(DAY_US + 10_000_000, DAY_US + 20_000_000)]
    run.write(trade_at(5), trade_at(65))
    run.close(302)
    run.gaps.clear()
    run.aggregator.revise(DAY_US + 10_000_000, DAY_US + 20_000_000)
    assert [(c.interval, c.revision, c.coverage) for c in run.close(303)] == [("1m", 1, "full"), ("5m", 1, "full")]
    run.aggregator.revise(DAY_US, DAY_US + 300_000_000)
    assert run.close(304) == []


def test_a_gap_repaired_long_after_is_revised_from_the_log(
    run_candles: Callable[..., Any], trade_at: Callable[..., Trade]
) -> None:
    """Candles that left memory are revised too."""
    run = run_candles(started_us=DAY_US, keep_us=0)
    run.gaps = [(DAY_US + 10_000_000, DAY_US + 20_000_000)]
    run.write(trade_at(5), trade_at(65))
    run.close(7200)
    run.gaps.clear()
    run.aggregator.revise(DAY_US + 10_000_000, DAY_US + 20_000_000)
    assert [c.interval for c in run.close(7201) if c.coverage == "full"] == ["1m", "5m", "15m", "1h"]


def test_a_stopped_session_writes_its_open_candles(
    run_candles: Callable[..., Any], trade_at: Callable[..., Trade]
) -> None:
    """They are partial and not closed; asked twice, nothing is written twice."""
    run = run_candles(started_us=DAY_US)
    run.write(trade_at(5))
    rows = run.finish()
    assert list(INTERVALS) == [c.interval for c in rows]
    assert {(False, "partial", 0)} == {(c.is_closed, c.coverage, c.revision) for c in rows}
    assert run.finish() == []


def test_a_resumed_session_closes_what_it_left_open(
    run_candles: Callable[..., Any], trade_at: Callable[..., Trade]
) -> None:
    """The closed row of a key that was written open is its next revision."""
    run = run_candles(started_us=DAY_US)
    run.write(trade_at(5, "100", trade_id=1))
    run.finish()
    again = run.restarted(started_us=DAY_US)
    again.write(trade_at(30, "110", trade_id=2))
    assert [(c.interval, c.revision, c.is_closed, c.open, c.close) for c in again.close(62)] == [
        ("1m", 1, True, "100", "110")
    ]


def test_a_restart_writes_nothing_again(run_candles: Callable[..., Any], trade_at: Callable[..., Trade]) -> None:
    """What stands in the log as it should is not written a second time."""
    run = run_candles()
    for minute in range(90):
        run.write(trade_at(minute * 60 + 1), trade_at(minute * 60 + 40))
        run.close(minute * 60 + 41)
    again = run.restarted()
    assert again.close(89 * 60 + 42) == []


def test_a_restarted_session_ends_as_an_uninterrupted_one(
    run_candles: Callable[..., Any], trade_at: Callable[..., Trade]
) -> None:
    """Every last row per key is the same, coverage included, wherever the restart falls."""
    trades = [trade_at(11 * n, str(100 + n % 7), f"0.{n:03d}", trade_id=n) for n in range(1, 600)]
    whole = run_candles()
    for n, trade in enumerate(trades, 1):
        whole.write(trade)
        whole.close(11 * n)
    whole.finish()
    for cut in (1, 50, 333, 598):
        run = run_candles()
        for n, trade in enumerate(trades, 1):
            run.write(trade)
            run.close(11 * n)
            if n == cut:
                run = run.restarted()
        run.finish()
        assert whole.final == run.final


def test_a_rebuild_without_any_row_starts_afresh(
    run_candles: Callable[..., Any], trade_at: Callable[..., Trade]
) -> None:
    """An empty log is no error."""
    run = run_candles().restarted()
    run.write(trade_at(5))
    assert len(run.close(62)) == 1


def test_lost_candle_rows_are_made_again(run_candles: Callable[..., Any], trade_at: Callable[..., Trade]) -> None:
    """Where ``ohlcv.csv`` is gone, a restart makes all candles again from the trades."""
    run = run_candles(keep_us=0)
    for minute in range(200):
        run.write(trade_at(minute * 60 + 1))
        run.close(minute * 60 + 2)
    before = run.final
    run.log.lines.clear()
    again = run.restarted(keep_us=0)
    again.close(199 * 60 + 2)
    assert before == again.final


def test_ids_order_trades_of_the_same_time(run_candles: Callable[..., Any], trade_at: Callable[..., Trade]) -> None:
    """Open and close do not depend on arrival, and a text of digits orders as the number that it is."""
    run = run_candles()
    run.write(trade_at(5, "1", trade_id="10"), trade_at(5, "2", trade_id="9"), trade_at(5, "3", trade_id="11"))
    candle = run.close(62)[0]
    assert (candle.open, candle.close, candle.first_trade_id, candle.last_trade_id) == ("2", "3", "9", "11")


def test_ids_without_an_order_leave_it_to_seq(run_candles: Callable[..., Any], trade_at: Callable[..., Trade]) -> None:
    """Where numbers are no order (or ids are text), the log's own numbers are."""
    run = run_candles(ids_ordered=False)
    run.write(trade_at(5, "1", trade_id=10), trade_at(5, "2", trade_id=9))
    assert (run.close(62)[0].open, run.log.lines[0].close) == ("1", "2")


def test_aggregated_trades_count_what_they_stand_for(
    run_candles: Callable[..., Any], trade_at: Callable[..., Trade]
) -> None:
    """An aggregated trade counts its raw ones; one without raw ids counts as one."""
    run = run_candles()
    run.write(trade_at(1, first_raw_id=10, last_raw_id=14), trade_at(2, first_raw_id=15, last_raw_id=15), trade_at(3))
    assert run.close(62)[0].trades_count == 7


def test_prices_are_compared_as_numbers(run_candles: Callable[..., Any], trade_at: Callable[..., Trade]) -> None:
    """9.5 is below 10, and 1e1 is no text to be sorted."""
    run = run_candles()
    run.write(trade_at(1, "9.5"), trade_at(2, "10"), trade_at(3, "0.00000001"))
    assert (run.close(62)[0].high, run.log.lines[0].low) == ("10", "0.00000001")


def test_sums_have_no_exponent_and_lose_no_digit(
    run_candles: Callable[..., Any], trade_at: Callable[..., Trade]
) -> None:
    """Tiny and huge sizes add up to all of their digits."""
    run = run_candles()
    run.write(trade_at(1, "1", "1E-18"), trade_at(2, "1", "123456789012345678901234567890"))
    assert run.close(62)[0].volume == "123456789012345678901234567890.000000000000000001"
    assert plain(Decimal("1E+3")) == "1000"


def test_a_fold_of_nothing_changes_nothing(run_candles: Callable[..., Any]) -> None:
    """An empty flush is no start of the session."""
    run = run_candles()
    run.write()
    assert run.aggregator.started_us is None
    assert run.finish() == []


def test_a_candle_reads_back_what_it_wrote(run_candles: Callable[..., Any], trade_at: Callable[..., Trade]) -> None:
    """Line and row are inverse, with and without the seq; anything else is refused."""
    run = run_candles()
    run.write(trade_at(1, trade_id=7))
    candle = run.close(62)[0]
    fields = candle.line(9).rstrip("\n").split(",")
    assert fields[-1] == "9"
    assert candle == Candle.from_row(fields) == Candle.from_row(fields[:-1])
    with pytest.raises(ValueError, match="17 fields"):
        Candle.from_row(fields[:5])


def test_same_as_looks_past_the_revision_alone(run_candles: Callable[..., Any], trade_at: Callable[..., Trade]) -> None:
    """Two rows that differ in anything else are not the same."""
    run = run_candles()
    run.write(trade_at(1))
    candle = run.close(62)[0]
    assert candle.same_as(msgspec.structs.replace(candle, revision=5))
    assert not candle.same_as(msgspec.structs.replace(candle, volume="2"))


@pytest.mark.skipif(
    "COLLECTOR_RECORDINGS" not in os.environ, reason="COLLECTOR_RECORDINGS names no folder of recordings"
)
def test_a_recorded_market_gives_the_candles_that_are_known_to_be_true(run_candles: Callable[..., Any]) -> None:
    """Every complete candle of ETHUSDT on 2024-08-08, over midnight, equals the independently worked out one."""
    folder = Path(os.environ["COLLECTOR_RECORDINGS"])
    name = "binance-spot-ETHUSDT-20240808.rec.gz"
    truth = json.loads((folder / "expected.json").read_text())[name]["symbols"]["ETHUSDT"]["candles"]
    trades = []
    with gzip.open(folder / name, "rt") as file:
        for line in file:
            _, _, kind, payload = line.split(" ", 3)
            if kind == "<" and '"e":"trade"' in payload:
                message = json.loads(payload)
                event = message.get("data", message)
                side = "sell" if event["m"] else "buy"
                trades.append(
                    Trade("ETH_USDT", event["T"] * 1000, event["p"], event["q"], side, event["t"], event["E"] * 1000)
                )
    assert len(trades) == 14_515
    run = run_candles()
    for begin in range(0, len(trades), 37):
        part = trades[begin : begin + 37]
        run.write(*part)
        run.close((part[-1].timestamp_us - DAY_US) / 1e6)
    run.finish()
    compared = 0
    for interval in set(INTERVALS) & set(truth):
        for known in truth[interval]:
            ours = run.final[interval, known["t"] * 1000]
            theirs = [known[field] for field in ("o", "h", "l", "c", "v", "qv", "taker_buy_v")]
            fields = (ours.open, ours.high, ours.low, ours.close, ours.volume, ours.quote_volume, ours.taker_buy_volume)
            assert list(map(Decimal, theirs)) == list(map(Decimal, fields))
            assert known["n"] == ours.trades_count
            assert not known["complete"] or (ours.is_closed and ours.coverage == "full")
            compared += known["complete"]
    assert compared > 10


def kline_at(second: float, *, volume: str = "9", **more: Any) -> Kline:
    start_us = DAY_US + round(second * 1_000_000)
    fields: dict[str, Any] = {
        "open": "1", "high": "200", "low": "0.5", "close": "2", "quote_volume": "90", "trades_count": 7,
        "taker_buy_volume": "4", **more,
    }  # fmt: skip
    return Kline(
        symbol="BTC_USDT", interval="1m", start_us=start_us, volume=volume, closed=True, timestamp_us=start_us,
        received_us=start_us, **fields,
    )  # fmt: skip


def test_the_exchanges_own_minute_stands_for_trades_that_are_not_to_be_had(
    run_candles: Callable[..., Any], trade_at: Callable[..., Trade]
) -> None:
    """It takes the place of what the trades say, and the higher candles are folded from it."""
    run = run_candles(started_us=DAY_US)
    run.write(trade_at(1, "100"), trade_at(61, "50"), trade_at(121, "70"), trade_at(301, "80"))
    run.gaps.append((DAY_US + 62_000_000, DAY_US + 90_000_000))
    run.close(310)
    run.aggregator.replace([kline_at(60), kline_at(180, volume="0")])
    run.gaps.clear()
    rows = {candle.key: candle for candle in run.close(311)}
    minute, higher = rows["1m", DAY_US + 60_000_000], rows["5m", DAY_US]
    assert (minute.open, minute.high, minute.low, minute.close) == ("1", "200", "0.5", "2")
    assert (minute.volume, minute.quote_volume, minute.trades_count, minute.taker_buy_volume) == ("9", "90", 7, "4")
    assert (minute.source, minute.coverage, minute.revision) == ("kline", "full", 1)
    assert (higher.source, higher.volume, higher.high, higher.low, higher.close) == ("kline", "11", "200", "0.5", "70")
    assert ("1m", DAY_US + 180_000_000) not in rows


def test_trades_do_not_count_in_a_minute_that_is_the_exchanges_own_until_all_have_come(
    run_candles: Callable[..., Any], trade_at: Callable[..., Trade]
) -> None:
    """Not before nor after a restart; then it is made from them again."""
    run = run_candles(started_us=DAY_US)
    run.write(trade_at(1), trade_at(61, "50"), trade_at(121))
    run.close(130)
    run.aggregator.replace([kline_at(60)])
    assert [candle.source for candle in run.close(131) if candle.interval == "1m"] == ["kline"]
    run.write(trade_at(62, "60"))
    assert [candle for candle in run.close(132) if candle.interval == "1m"] == []
    again = run_candles(history=run.log, started_us=DAY_US)
    again.aggregator.rebuild(run.log)
    assert [candle for candle in again.close(133) if candle.source != "kline"] == []
    again.aggregator.revise(DAY_US + 60_000_000, DAY_US + 61_000_000)
    assert again.close(134) == []
    again.aggregator.restore(DAY_US + 60_000_000, DAY_US + 61_000_000)
    (minute,) = [candle for candle in again.close(135) if candle.interval == "1m"]
    assert (minute.source, minute.volume, minute.close, minute.trades_count) == ("ws", "2", "60", 2)


def test_an_exchange_that_publishes_no_quote_volume_leaves_it_empty(
    run_candles: Callable[..., Any], trade_at: Callable[..., Trade]
) -> None:
    """Also in the candles above, and read back from the log."""
    run = run_candles(started_us=DAY_US)
    run.write(trade_at(1), trade_at(301))
    run.close(310)
    run.aggregator.replace([kline_at(0, quote_volume=None, trades_count=None, taker_buy_volume=None)])
    rows = {candle.key: candle for candle in run.close(311)}
    for interval in ("1m", "5m"):
        found = rows[interval, DAY_US]
        assert (found.quote_volume, found.taker_buy_volume, found.trades_count) == ("", "", 1)
        assert Candle.from_row(found.line(1).rstrip("\n").split(",")) == found
