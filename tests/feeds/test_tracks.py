"""Tracks are told what comes and what time it is; they say what is missing, once, and where it ended."""

from __future__ import annotations

from typing import Any

import pytest

from collector.events import (
    BookDelta,
    BookSnapshot,
    Funding,
    Kline,
    Liquidation,
    OffBookPrint,
    OpenInterest,
    Ticker,
    Trade,
)
from collector.exchanges.base import Subscription
from collector.feeds.sink import ResumePoint
from collector.feeds.tracks import BookTrack, KlineTrack, MarketTrack, Track, TradeTrack, create_track

T0 = 1_700_000_000_000_000


def trade(number: int, us: int | None = None, received_us: int = T0) -> Trade:
    return Trade("BTC_USDT", T0 + number if us is None else us, "1.5", "1", "buy", number, received_us)


def delta(first: int, last: int) -> BookDelta:
    return BookDelta("BTC_USDT", T0 + last, first, last, None, [("1", str(last))], [("2", "1")], T0)


def snapshot(last: int, us: int = 0) -> BookSnapshot:
    return BookSnapshot("BTC_USDT", us, last, [("1", "2")], [("2", "2")], T0)


@pytest.fixture
def track_of(bench: Any, loopback_exchange: Any, words: Any) -> Any:
    def create(stream: str = "prices", resume: ResumePoint | None = None) -> Any:
        exchange = loopback_exchange(words.listings)
        return create_track(
            Subscription(stream, "BTC_USDT"), bench.sink, exchange, resume or ResumePoint(), reorder_grace_s=1
        )

    return create


def take(track: Any, *trades: Trade) -> None:
    """Do what the connection's receiver does."""
    for one in trades:
        track.received += 1
        track.last = one
        if track.accept(one):
            track.sink.add_trade(one)


@pytest.mark.parametrize(
    ("stream", "expected"), [("prices", TradeTrack), ("orderbook", BookTrack), ("klines", KlineTrack)]
)
def test_each_stream_has_its_track(track_of: Any, stream: str, expected: type[Track]) -> None:
    """The subscription's stream decides what takes its events."""
    assert type(track_of(stream)) is expected
    assert stream != "klines" or not track_of(stream).ledgered


def test_first_data_is_due_only_after_asking(track_of: Any) -> None:
    """Overdue counts from the subscription, ends with the first event, and begins anew with each connection."""
    track = track_of()
    track.begin()
    assert not track.overdue(1000, 10)
    track.expect(1000)
    assert not track.overdue(1009, 10)
    assert track.overdue(1010, 10)
    take(track, trade(1))
    assert not track.overdue(2000, 10)
    track.notice_data(2000)
    assert track.state == "live"
    track.begin()
    track.expect(3000)
    assert (track.state, track.overdue(3010, 10)) == ("waiting", True)


def test_silence_without_a_known_id_stays_open(bench: Any, track_of: Any) -> None:
    """Where nothing was known before, nobody can say that nothing was missed: the gap gets an end and stays open."""
    track = track_of()
    track.begin()
    track.call_silent("silent_subscription", T0, "no data")
    track.call_silent("silent_subscription", T0 + 5, "no data")
    take(track, trade(7))
    track.notice_data(100)
    track.due(101)
    assert len(bench.sink.gaps) == 1
    track.due(102)
    opened, closed = bench.sink.gaps
    assert (opened.from_us, opened.to_us, closed.from_us, closed.to_us) == (T0, None, T0, T0 + 7)
    assert closed.state == "open"
    assert track.gaps == 1


def test_silence_of_a_quiet_market_is_called_over(bench: Any, track_of: Any) -> None:
    """Where the ids go on after a silence, nothing was missed, and the gap is closed as repaired."""
    track = track_of()
    take(track, trade(1))
    track.notice_data(0)
    track.interrupt("rotation")
    track.begin()
    track.call_silent("silent_subscription", T0 + 3, "no data")
    take(track, trade(2))
    track.notice_data(10)
    track.due(12)
    assert [(gap.to_us, gap.state) for gap in bench.sink.gaps] == [(None, "open"), (T0 + 3, "repaired")]


def test_an_outage_is_closed_by_its_ids(bench: Any, track_of: Any) -> None:
    """The open gap of an outage and the hole that ids tell are one row of the ledger."""
    track = track_of()
    take(track, trade(1))
    track.notice_data(0)
    track.interrupt("stall")
    track.call_lost()
    track.call_lost()
    track.begin()
    take(track, trade(5))
    track.notice_data(10)
    for now_s in (10, 11, 12, 13):
        track.due(now_s)
    opened, closed = bench.sink.gaps
    assert (opened.cause, opened.from_us, opened.to_us) == ("stall", T0 + 1, None)
    assert (closed.cause, closed.from_us, closed.to_us, closed.from_id, closed.to_id) == ("stall", T0 + 1, T0 + 5, 2, 4)
    assert track.gaps == 1


def test_nothing_is_lost_before_anything_came(bench: Any, track_of: Any) -> None:
    """A connection that was never there has no gap: the session has not begun."""
    track = track_of()
    track.interrupt("disconnect")
    track.call_lost()
    track.finish(T0)
    assert bench.sink.gaps == []


def test_a_resumed_symbol_that_stays_silent_is_a_gap(bench: Any, track_of: Any) -> None:
    """A restart after which nothing came before the stop leaves its hole in the ledger."""
    track = track_of(resume=ResumePoint(last_trade_id=5, last_trade_us=T0))
    track.finish(T0 + 9)
    assert [(gap.cause, gap.from_us, gap.to_us, gap.state) for gap in bench.sink.gaps] == [
        ("restart", T0, None, "open"),
        ("restart", T0, T0 + 9, "open"),
    ]


def test_off_book_prints_fill_their_numbers(bench: Any, track_of: Any) -> None:
    """A number that the exchange gave to no trade is not missing."""
    track = track_of()
    take(track, trade(1))
    track.take_off_book(OffBookPrint("BTC_USDT", T0 + 2, 2, T0))
    take(track, trade(3))
    track.finish(T0)
    assert bench.sink.gaps == []
    assert bench.sink.ids() == [1, 3]
    assert track.received == 3


def test_latency_is_measured_at_new_events_only(track_of: Any) -> None:
    """The latency is receipt minus exchange time, negative where clocks differ, and its mean moves slowly."""
    track = track_of()
    assert track.sample() is None
    take(track, trade(1, T0, T0 - 1_000))
    assert track.sample() == T0
    assert track.sample() is None
    assert (track.latency_us, track.latency_mean_us) == (-1_000, -1_000)
    take(track, trade(2, T0 + 5, T0 + 5 + 9_000))
    assert track.sample() == T0 + 5
    assert (track.latency_us, track.latency_mean_us) == (9_000, pytest.approx(0))


def test_a_book_asks_while_changes_wait(bench: Any, track_of: Any) -> None:
    """A book wants a snapshot from its first change until one fits, and again after a disconnect's first change."""
    track = track_of("orderbook")
    assert not track.asked
    track.take_delta(delta(11, 12))
    assert track.asked
    assert not track.take_snapshot(snapshot(5)) or not track.synchronised
    track.take_delta(delta(13, 13))
    assert track.take_snapshot(snapshot(11))
    assert track.synchronised
    assert not track.asked
    track.interrupt("disconnect")
    assert not track.asked
    assert not track.synchronised
    track.take_delta(delta(20, 20))
    assert track.asked
    assert bench.sink.observed == {"BTC_USDT": T0 + 20}


def test_a_books_outage_is_closed_when_it_is_whole(bench: Any, track_of: Any) -> None:
    """The open gap of a lost connection ends with the first change of the book that is whole again."""
    track = track_of("orderbook")
    track.take_delta(delta(11, 11))
    track.take_snapshot(snapshot(10))
    track.notice_data(0)
    track.interrupt("disconnect")
    track.call_lost()
    track.begin()
    track.take_delta(delta(20, 20))
    track.notice_data(5)
    track.due(100)
    assert len(bench.sink.gaps) == 1
    track.take_snapshot(snapshot(19))
    track.due(101)
    opened, closed = bench.sink.gaps
    assert (opened.from_us, opened.to_us) == (T0 + 11, None)
    assert (closed.from_us, closed.to_us, closed.from_id, closed.to_id) == (T0 + 11, T0 + 20, 12, 19)
    track.finish(T0 + 30)
    assert [top.update_id for top in bench.sink.books] == [11, 20]


def test_a_pushed_snapshot_needs_no_rest(bench: Any, track_of: Any) -> None:
    """Where the stream itself brings the book, it is whole at once; a snapshot without a time moves no clock."""
    track = track_of("orderbook")
    track.take_pushed_snapshot(snapshot(10))
    assert track.synchronised
    assert (track.last, bench.sink.observed) == (None, {})
    track.interrupt("disconnect")
    track.take_pushed_snapshot(snapshot(10, T0))
    assert bench.sink.observed == {"BTC_USDT": T0}
    assert track.received == 2


def test_klines_leave_no_gaps(bench: Any, track_of: Any) -> None:
    """Candles of the exchange are compared with ours; what they lack is no hole of the recording."""
    track = track_of("klines")
    track.call_silent("silent_subscription", T0, "no data")
    track.take(Kline("BTC_USDT", "1m", T0, "1", "1", "1", "1", "1", "1", 1, "1", True, T0 + 1, T0 + 2))
    track.notice_data(1)
    track.finish(T0)
    assert bench.sink.gaps == []
    assert len(bench.sink.klines) == 1


def test_a_status_tells_the_last_event(track_of: Any) -> None:
    """The status has the last price and times, and a book says whether it is whole."""
    track = track_of()
    take(track, trade(3))
    status = track.status(2)
    assert (status.connection, status.last_price, status.last_event_us, status.received) == (2, "1.5", T0 + 3, 1)
    assert status.synchronised is None
    assert track_of("orderbook").status(1).synchronised is False
    assert "TradeTrack" in repr(track)


SECOND_US = 1_000_000


def funding(second: int) -> Funding:
    return Funding("BTC_USDT", T0 + second * SECOND_US, "0.0001", None, "1.5", None, T0)


def liquidation(second: int) -> Liquidation:
    return Liquidation("BTC_USDT", T0 + second * SECOND_US, "1.5", "2", "sell", T0)


class Market:
    """A track of another data type, and what it is told of the time."""

    def __init__(self, sink: Any, stream: str, resume: ResumePoint | None = None) -> None:
        self.now_us = T0
        self.heard_us: int | None = None
        self.track = MarketTrack(
            Subscription(stream, "BTC_USDT"),
            sink,
            quiet=stream == "liquidations",
            resume=resume,
            now_us=lambda: self.now_us,
            heard_us=lambda _track: self.heard_us,
        )


@pytest.fixture
def market(bench: Any) -> Any:
    return lambda stream, resume=None: Market(bench.sink, stream, resume)


def holes(bench: Any) -> list[tuple[str, int | None, int | None, str]]:
    """Return the gaps as cause, bounds in seconds, and state."""

    def seconds(at_us: int | None) -> int | None:
        return None if at_us is None else (at_us - T0) // SECOND_US

    return [(gap.cause, seconds(gap.from_us), seconds(gap.to_us), gap.state) for gap in bench.sink.gaps]


def test_an_interruption_of_the_market_is_a_hole_from_event_to_event(bench: Any, market: Any) -> None:
    """Nothing numbers the rows: the last one before and the first one after are its bounds."""
    track = market("funding").track
    track.take(funding(1))
    track.interrupt("disconnect")
    track.begin()
    track.interrupt("stall")
    track.take(funding(5))
    track.take(funding(6))
    assert [event.timestamp_us for event in bench.sink.events["funding"]] == [
        funding(n).timestamp_us for n in (1, 5, 6)
    ]
    assert holes(bench) == [("disconnect", 1, 5, "unrecoverable")]


def test_a_long_outage_of_the_market_is_one_row_that_gets_its_end(bench: Any, market: Any) -> None:
    """It is in the ledger while it lasts."""
    track = market("funding").track
    track.take(funding(1))
    track.notice_data(0)
    track.interrupt("disconnect")
    track.call_lost()
    track.begin()
    track.take(funding(60))
    track.notice_data(10)
    track.due(20)
    track.finish(T0 + 100 * SECOND_US)
    assert holes(bench) == [("disconnect", 1, None, "open"), ("disconnect", 1, 60, "unrecoverable")]
    assert track.gaps == 1


def test_an_outage_of_the_market_that_does_not_end_is_closed_with_the_feed(bench: Any, market: Any) -> None:
    """Up to then nothing came."""
    track = market("funding").track
    track.take(funding(1))
    track.interrupt("disconnect")
    track.finish(T0 + 9 * SECOND_US)
    assert holes(bench)[-1] == ("disconnect", 1, 9, "unrecoverable")


def test_a_resumed_session_lacks_the_market_since_its_last_row(bench: Any, market: Any) -> None:
    """A quiet stream has no row for hours: it lacks what was since any stream's last one."""
    resume = ResumePoint(last_event_us=T0 + 3 * SECOND_US, last_other_us={"funding": T0 + 2 * SECOND_US})
    market("funding", resume).track.take(funding(8))
    market("liquidations", resume).track.take(liquidation(9))
    assert holes(bench) == [("restart", 2, 8, "unrecoverable"), ("restart", 3, 9, "unrecoverable")]


def test_a_quiet_stream_is_whole_while_its_connection_was_and_again_once_accepted(bench: Any, market: Any) -> None:
    """Its own events say nothing of when it broke: what was heard last on the connection does."""
    quiet = market("liquidations")
    track = quiet.track
    track.begin()
    track.expect(0)
    assert not track.overdue(1000, 10)
    track.take(liquidation(1))
    quiet.heard_us = T0 + 50 * SECOND_US
    track.interrupt("disconnect")
    track.begin()
    quiet.now_us = T0 + 58 * SECOND_US
    track.expect(100)
    track.due(101)
    assert (track.state, holes(bench)) == ("waiting", [])
    quiet.now_us = T0 + 60 * SECOND_US
    track.due(102)
    assert (track.state, holes(bench)) == ("live", [("disconnect", 50, 60, "unrecoverable")])


def test_a_refused_quiet_stream_is_not_called_live(market: Any) -> None:
    """Nothing will be told."""
    track = market("liquidations").track
    track.begin()
    track.expect(0)
    track.call_silent("rejected", T0, "no such channel")
    track.due(100)
    assert track.state == "rejected"


def test_what_an_answer_repeats_is_no_row(bench: Any, market: Any) -> None:
    """An exchange that is asked more often than it counts says the same again; over a websocket that is a new event."""
    track = market("open_interest").track
    for received in (1, 2):
        track.take(OpenInterest("BTC_USDT", T0, "5", None, received, "rest"))
    track.take(OpenInterest("BTC_USDT", T0 + 1, "5", None, 3, "rest"))
    assert (len(bench.sink.events["open_interest"]), track.duplicates, track.received) == (2, 1, 3)
    other = market("funding").track
    other.take(funding(1))
    other.take(funding(1))
    assert len(bench.sink.events["funding"]) == 2


def test_a_time_of_ours_is_not_the_exchanges(market: Any) -> None:
    """Best prices without a time must not move the exchange's clock."""
    track = market("tickers").track
    track.take(Ticker("BTC_USDT", T0, "1", "1", "2", "1", 5, T0, timed=False))
    assert track.sample() is None
    track.take(Ticker("BTC_USDT", T0 + 5, "1", "1", "2", "1", 6, T0 + 9))
    assert (track.sample(), track.latency_us) == (T0 + 5, 4)


def candle(minute: int, *, closed: bool) -> Kline:
    start_us = T0 // 60_000_000 * 60_000_000 + minute * 60_000_000
    return Kline("BTC_USDT", "1m", start_us, "1", "1", "1", "1", "1", "1", 1, "1", closed, start_us + 1, T0)


@pytest.mark.parametrize(
    ("before", "after", "missing"),
    [
        ((1, False), (1, False), None),
        ((1, True), (2, False), None),
        ((1, False), (2, False), (1, 1, 1)),
        ((1, True), (5, False), (2, 4, 3)),
    ],
)
def test_recorded_candles_lack_those_that_ended_unseen(
    bench: Any, before: tuple[int, bool], after: tuple[int, bool], missing: tuple[int, int, int] | None
) -> None:
    """An outage within a minute costs none; the bounds are the starts of the first and the last one that is missing."""
    track = KlineTrack(Subscription("klines", "BTC_USDT"), bench.sink, recorded=True)
    track.take(candle(before[0], closed=before[1]))
    track.interrupt("disconnect")
    track.call_lost()
    track.begin()
    track.take(candle(after[0], closed=after[1]))
    found = [(gap.from_us, gap.to_us, gap.expected_rows) for gap in bench.sink.gaps]
    assert found == (
        []
        if missing is None
        else [(candle(missing[0], closed=True).start_us, candle(missing[1], closed=True).start_us, missing[2])]
    )


def test_candles_that_are_only_compared_have_no_holes(bench: Any) -> None:
    """They are no file of the session."""
    track = KlineTrack(Subscription("klines", "BTC_USDT"), bench.sink)
    track.take(candle(1, closed=True))
    track.interrupt("disconnect")
    track.take(candle(5, closed=True))
    track.finish(T0)
    assert bench.sink.gaps == []


def test_a_resumed_session_lacks_the_candles_since_its_last_row(bench: Any) -> None:
    """The last row is a final candle: the next minute's is due."""
    last_us = candle(1, closed=True).start_us
    track = KlineTrack(Subscription("klines", "BTC_USDT"), bench.sink, recorded=True, recorded_us=last_us)
    track.take(candle(4, closed=False))
    (gap,) = bench.sink.gaps
    assert (gap.cause, gap.expected_rows, gap.from_us) == ("restart", 2, candle(2, closed=True).start_us)
