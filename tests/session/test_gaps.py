"""The ledger keeps what is missing, and what became of it."""

from __future__ import annotations

import pytest

from collector.events import Gap
from collector.session.gaps import Entry, GapLedger, Repair
from collector.session.rows import format_gap


def trades_gap(from_id: int | None = 5, to_id: int | None = 9, **changes: object) -> Gap:
    fields: dict[str, object] = {
        "symbol": "BTC_USDT", "stream": "prices", "cause": "disconnect", "from_us": 100, "to_us": 200,
        "from_id": from_id, "to_id": to_id, "expected_rows": 5,
    }  # fmt: skip
    return Gap(**{**fields, **changes})  # type: ignore[arg-type]


def rows_of(entries: list[Entry]) -> list[list[str]]:
    return [format_gap(entry, seq).decode().rstrip("\n").split(",") for seq, entry in enumerate(entries, 1)]


def test_a_gap_gets_an_id_and_the_time_of_its_detection() -> None:
    """Once, and is written once."""
    ledger = GapLedger()
    entry = ledger.record(trades_gap(), 1000)
    assert (entry.gap_id, entry.detected_us, entry.state, entry.revision) == ("g000001", 1000, "open", 0)
    assert ledger.record(trades_gap(), 1001).gap_id == "g000002"
    assert [e.gap_id for e in ledger.take_unwritten()] == ["g000001", "g000002"]
    assert ledger.take_unwritten() == []
    assert (len(ledger), ledger.open_count) == (2, 2)


def test_what_becomes_of_a_gap_is_a_revision_of_the_same_row() -> None:
    """Its id and its time of detection stay."""
    ledger = GapLedger()
    ledger.record(trades_gap(), 1000)
    ledger.take_unwritten()
    ledger.change("g000001", state="partial", repaired_rows=3, repaired_from="rest")
    ledger.change("g000001", state="repaired", repaired_rows=5)
    (entry,) = ledger.take_unwritten()
    assert (entry.gap_id, entry.detected_us, entry.revision) == ("g000001", 1000, 2)
    assert (entry.state, entry.repaired_rows, entry.repaired_from, ledger.open_count) == ("repaired", 5, "rest", 0)
    with pytest.raises(KeyError):
        ledger.change("g000009", state="repaired")


def test_a_gap_without_an_end_is_ended_by_the_next_one_like_it() -> None:
    """A silent subscription is entered when it is noticed, and again when data comes."""
    ledger = GapLedger()
    silent = trades_gap(None, None, cause="silent_subscription", to_us=None)
    ledger.record(silent, 1000)
    assert len(ledger.unfinished("BTC_USDT", "prices")) == 1
    ended = ledger.record(trades_gap(None, None, cause="silent_subscription", to_us=300, state="unrecoverable"), 1001)
    assert (ended.gap_id, ended.detected_us, ended.revision, ended.to_us) == ("g000001", 1000, 1, 300)
    assert (len(ledger), ledger.unfinished("BTC_USDT", "prices")) == (1, [])
    assert ledger.record(silent, 1002).gap_id == "g000002"


def test_a_ledger_reads_back_what_it_wrote() -> None:
    """The last revision counts, numbers go on, and rows that are no rows are passed over."""
    ledger = GapLedger()
    ledger.record(trades_gap(detail="a, b"), 1000)
    ledger.record(trades_gap(None, None, from_us=None, to_us=None, expected_rows=None), 1001)
    written = ledger.take_unwritten()
    ledger.change("g000001", state="repaired", repaired_rows=5)
    written += ledger.take_unwritten()
    again = GapLedger()
    again.load([*rows_of(written), ["nonsense"], ["x"] * 16])
    assert [(e.gap_id, e.state, e.detail) for e in again.entries()] == [
        ("g000001", "repaired", "a; b"),
        ("g000002", "open", ""),
    ]
    assert again.take_unwritten() == []
    assert again.record(trades_gap(), 2000).gap_id == "g000003"
    again.rewrite()
    assert len(again.take_unwritten()) == 3


def test_open_holes_are_the_ids_that_may_still_come() -> None:
    """Not what was repaired or given up, nor another stream's, nor the row numbers of a damaged file."""
    ledger = GapLedger()
    ledger.record(trades_gap(20, 29), 1)
    ledger.record(trades_gap(5, 9), 1)
    ledger.record(trades_gap(30, 39, state="unrecoverable"), 1)
    ledger.record(trades_gap(40, 49, cause="log_damaged"), 1)
    ledger.record(trades_gap(50, 59, stream="orderbook"), 1)
    ledger.record(trades_gap(60, 69, symbol="ETH_USDT"), 1)
    ledger.record(trades_gap(None, None), 1)
    repaired = ledger.record(trades_gap(70, 79), 1)
    ledger.change(repaired.gap_id, state="repaired")
    assert ledger.open_holes("BTC_USDT", "prices") == [(5, 9), (20, 29)]
    assert ledger.open_holes("SOL_USDT", "prices") == []


def test_a_late_trade_is_taken_out_of_the_hole_that_was_entered_before_it() -> None:
    """And is missing again only where a later row says so."""
    ledger = GapLedger()
    ledger.record(trades_gap(20, 29), 1)
    ledger.record(trades_gap(24, 24, cause="sequence", state="repaired"), 2)
    ledger.record(trades_gap(20, 20, cause="sequence", state="repaired"), 2)
    assert ledger.open_holes("BTC_USDT", "prices") == [(21, 23), (25, 29)]
    ledger.record(trades_gap(24, 24, cause="restart"), 3)
    assert ledger.open_holes("BTC_USDT", "prices") == [(21, 23), (24, 24), (25, 29)]


def test_the_open_rows_of_the_ledger_are_exactly_what_is_still_missing() -> None:
    """A hole that a late trade splits becomes two rows; one that is filled to the last trade is repaired."""
    ledger = GapLedger()
    ledger.record(trades_gap(20, 29), 1)
    ledger.record(trades_gap(24, 24, cause="sequence", state="repaired"), 2)
    ledger.record(trades_gap(20, 23, cause="sequence", state="repaired"), 3)
    open_rows = [entry for entry in ledger.entries() if entry.state == "open"]
    assert [(entry.from_id, entry.to_id, entry.expected_rows) for entry in open_rows] == [(25, 29, 5)]
    ledger.record(trades_gap(25, 29, cause="sequence", state="repaired"), 4)
    assert ledger.open_count == 0
    reread = GapLedger()
    reread.load(rows_of(ledger.take_unwritten()))
    assert reread.entries() == ledger.entries()


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, True),
        ({"from_us": 210, "to_us": 290}, True),
        ({"from_us": 100, "to_us": 200}, True),
        ({"from_us": 100, "to_us": 199}, False),
        ({"from_us": 300, "to_us": 400}, False),
        ({"from_us": None, "to_us": 250}, True),
        ({"from_us": None, "to_us": 150}, False),
        ({"from_us": 250, "to_us": None}, True),
        ({"from_us": 350, "to_us": None}, False),
        ({"from_us": None, "to_us": None}, False),
        ({"stream": "orderbook"}, False),
        ({"symbol": "ETH_USDT"}, False),
    ],
)
def test_a_candle_overlaps_the_holes_in_its_time(changes: dict[str, object], expected: bool) -> None:
    """A bucket is [200, 300); a hole's bounds are the trades around it, or open."""
    ledger = GapLedger()
    ledger.record(trades_gap(**{"from_us": 100, "to_us": 400, **changes}), 1)
    assert ledger.overlaps("BTC_USDT", 200, 300) is expected


def test_a_repaired_hole_is_none() -> None:
    """A given-up one stays."""
    ledger = GapLedger()
    ledger.record(trades_gap(), 1)
    ledger.change("g000001", state="unrecoverable")
    assert ledger.overlaps("BTC_USDT", 150, 160)
    ledger.change("g000001", state="repaired")
    assert not ledger.overlaps("BTC_USDT", 150, 160)


def test_damage_that_is_entered_is_known() -> None:
    """So that it isn't entered again at each start, and the numbers stay used."""
    ledger = GapLedger()
    assert ledger.highest_lost_seq("BTC_USDT", "prices") == 0
    ledger.record(trades_gap(5, 9, cause="log_damaged"), 1)
    assert ledger.knows_damage("BTC_USDT", "prices", 6, 9)
    assert not ledger.knows_damage("BTC_USDT", "prices", 9, 10)
    assert not ledger.knows_damage("BTC_USDT", "orderbook", 6, 9)
    assert ledger.highest_lost_seq("BTC_USDT", "prices") == 9


def states(ledger: GapLedger) -> list[tuple[str, int | None, int | None, str, int]]:
    return [(e.gap_id, e.from_id, e.to_id, e.state, e.repaired_rows) for e in ledger.entries()]


def test_a_gap_whose_trades_have_all_come_is_repaired() -> None:
    """With its bounds, how many it was, and where they came from; the row says the same when it is read back."""
    ledger = GapLedger()
    ledger.record(trades_gap(20, 29), 1)
    (before,) = ledger.repair(Repair("BTC_USDT", got=[(20, 29)]))
    assert before.state == "open"
    assert states(ledger) == [("g000001", 20, 29, "repaired", 10)]
    assert (ledger.entries()[0].repaired_from, ledger.open_holes("BTC_USDT", "prices")) == ("rest", [])
    reread = GapLedger()
    reread.load(rows_of(ledger.take_unwritten()))
    assert reread.entries() == ledger.entries()


def test_what_did_not_come_is_a_row_of_its_own() -> None:
    """The partial one keeps its bounds; the ids that are still missing are exactly those of the other rows."""
    ledger = GapLedger()
    ledger.record(trades_gap(20, 29), 1)
    times = {22: 122, 25: 125, 27: 127}
    repair = Repair("BTC_USDT", got=[(20, 22), (25, 27)], given_up=[(23, 24)], times=times, reason="gone")
    ledger.repair(repair)
    assert states(ledger) == [
        ("g000001", 20, 29, "partial", 6),
        ("g000002", 23, 24, "unrecoverable", 0),
        ("g000003", 28, 29, "open", 0),
    ]
    _, gone, still = ledger.entries()
    assert (gone.from_us, gone.to_us, gone.expected_rows, gone.detail) == (122, 125, 2, "of g000001: gone")
    assert (still.from_us, still.to_us, still.detail) == (127, 200, "of g000001")
    assert ledger.open_holes("BTC_USDT", "prices") == [(28, 29)]
    assert ledger.missing_ids("BTC_USDT", "prices") == [(23, 24), (28, 29)]
    assert ledger.open_count == 1
    ledger.repair(Repair("BTC_USDT", got=[(28, 29)]))
    assert [state[3] for state in states(ledger)] == ["partial", "unrecoverable", "repaired"]
    ledger.repair(Repair("BTC_USDT", got=[(23, 24)]))
    assert [state[3:] for state in states(ledger)] == [("repaired", 5), ("repaired", 2), ("repaired", 2)]


def test_a_gap_that_nothing_came_of_is_unrecoverable() -> None:
    """Whole, with the reason; asking in vain once more changes nothing."""
    ledger = GapLedger()
    ledger.record(trades_gap(20, 29), 1)
    ledger.repair(Repair("BTC_USDT", given_up=[(20, 29)], reason="no key"))
    ledger.repair(Repair("BTC_USDT", given_up=[(20, 29)], reason="no key"))
    (entry,) = ledger.entries()
    assert (entry.state, entry.detail, entry.revision) == ("unrecoverable", "no key", 1)


def test_what_was_in_the_log_already_is_not_missing() -> None:
    """A gap names the bounds of rows that were dropped; some between them may have been written."""
    ledger = GapLedger()
    ledger.record(trades_gap(20, 29), 1)
    ledger.repair(Repair("BTC_USDT", got=[(20, 24)], present=[(25, 29)]))
    assert states(ledger) == [("g000001", 20, 29, "repaired", 5)]


def test_a_repair_concerns_its_symbol_and_its_ids_alone() -> None:
    """One answer may fill several gaps, and leaves the others."""
    ledger = GapLedger()
    for bounds in ((20, 24), (30, 34), (40, 44)):
        ledger.record(trades_gap(*bounds), 1)
    ledger.record(trades_gap(20, 24, symbol="ETH_USDT"), 1)
    ledger.record(trades_gap(20, 24, cause="log_damaged"), 1)
    ledger.repair(Repair("BTC_USDT", got=[(20, 34)]))
    assert [entry.state for entry in ledger.entries()] == ["repaired", "repaired", "open", "open", "open"]


def test_a_gap_without_ids_is_repaired_by_its_span() -> None:
    """Whole, in part with what is lost as a row, or not at all."""
    ledger = GapLedger()
    for _ in range(3):
        ledger.record(trades_gap(None, None, expected_rows=None), 1)
    ledger.repair(Repair("BTC_USDT", gap_id="g000001", rows=7))
    ledger.repair(Repair("BTC_USDT", gap_id="g000002", rows=3, lost=[(100, 150)], reason="too old"))
    ledger.repair(Repair("BTC_USDT", gap_id="g000003", lost=[(100, 200)], reason="too old"))
    ledger.repair(Repair("BTC_USDT", gap_id="g999999", rows=1))
    assert [(e.state, e.repaired_rows, e.from_us, e.to_us) for e in ledger.entries()] == [
        ("repaired", 7, 100, 200),
        ("partial", 3, 100, 200),
        ("unrecoverable", 0, 100, 200),
        ("unrecoverable", 0, 100, 150),
    ]


def test_candles_of_the_exchange_make_a_gap_whole_without_its_trades() -> None:
    """The trades stay missing; the minutes are known."""
    ledger = GapLedger()
    ledger.record(trades_gap(20, 29, state="unrecoverable"), 1)
    assert ledger.overlaps("BTC_USDT", 0, 1000)
    ledger.repair(Repair("BTC_USDT", gap_id="g000001", source="kline"))
    (entry,) = ledger.entries()
    assert (entry.state, entry.repaired_from, entry.repaired_rows) == ("unrecoverable", "kline", 0)
    assert not ledger.overlaps("BTC_USDT", 0, 1000)
