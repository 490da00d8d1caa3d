"""A report says what was compared, and names what differs."""

from __future__ import annotations

import msgspec

from collector.reading.report import MAX_DIFFERENCES, CandleReport, Difference, Findings, Report, StreamReport


def test_an_empty_report_agrees() -> None:
    """Nothing differs where nothing was collected."""
    report = Report("s1", "127.0.0.1:8812")
    assert report.agrees
    assert report.first_difference is None
    assert report.text() == "CSV and QuestDB (127.0.0.1:8812), candles and trades: equal."


def test_a_problem_alone_keeps_it_from_agreeing() -> None:
    """What could not be compared is not equal."""
    report = Report("s1", problems=["prices BTC_USDT: cannot be read."])
    assert not report.agrees
    assert "NOT EQUAL" in report.text()


def test_differences_are_counted_beyond_those_that_are_named() -> None:
    """Memory is bounded; the count is true."""
    findings = Findings()
    for seq in range(100):
        findings.add(Difference("missing", "prices", "A", seq))
    report = Report("s1", streams=[StreamReport(stream="prices", symbol="A", rows=100, findings=findings)])
    assert len(list(report.differences())) == MAX_DIFFERENCES
    assert "prices A: 100 rows: DIFFERENT (100)" in report.text()
    assert "… and 80 more." in report.text()


def test_findings_are_not_shared_between_parts() -> None:
    """Each part has a list of its own."""
    first = StreamReport(stream="prices")
    first.findings.add(Difference("missing", "prices", "A", 1))
    assert StreamReport(stream="prices").agrees
    assert CandleReport().agrees


def test_every_reason_has_its_sentence() -> None:
    """A person reads where, which row, which column, and both values."""
    difference = Difference("candle", "ohlcv", "A", 7, "volume", "1", "2", "1m 60000000")
    assert str(difference) == "ohlcv A 1m 60000000 seq 7: volume is 1 in the CSV, the trades say 2."
    assert str(Difference("extra", "gaps", "", None)) == "gaps: the row is in QuestDB and not in the CSV."
    empty = Difference("value", "prices", "A", 1, "price", "", "2.5")
    assert str(empty) == "prices A seq 1: price is empty in the CSV and 2.5 in QuestDB."


def test_a_report_goes_over_the_wire_and_back() -> None:
    """The daemon answers with it in JSON."""
    report = Report("s1", streams=[StreamReport(stream="prices", symbol="A", equal_rows=3, rejected=1)])
    report.streams[0].findings.add(Difference("missing", "prices", "A", 1))
    assert msgspec.json.decode(msgspec.json.encode(report), type=Report) == report


def test_what_is_accounted_for_is_shown() -> None:
    """Rows that QuestDB need not have are named by why."""
    part = StreamReport(stream="ohlcv", symbol="A", rows=9, equal_rows=4, replaced=2, rejected=1, expired=1, lost=3)
    candles = CandleReport(symbol="A", trades=5, candles=2, waiting=6)
    text = Report("s1", "here", [part], [candles]).text()
    assert "ohlcv A: 9 rows, 4 equal in QuestDB, 2 replaced, 1 rejected, 1 expired, 3 lost: equal" in text
    assert "candles A: 2 equal to 5 trades, 6 not due yet: equal" in text
