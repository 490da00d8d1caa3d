"""The judge finds what is wrong: a judge that finds nothing proves nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from collector.streams import GAPS
from trials.oracle import Verdict, changed_since, fingerprint, ids_in_ledger, judge_trades, read_rows
from trials.sessions import write_session

ROWS = 200


class Market:
    """What ``judge_trades`` asks of an exchange, for the session that ``write_session`` writes."""

    symbols = ("BTC_USDT",)

    def __init__(self, directory: Path, more: int = 0) -> None:
        rows = list(read_rows(directory, "prices", "BTC_USDT"))
        self._truth = {int(row["trade_id"]): (row["price"], row["volume"], 0) for row in rows}
        self._truth |= dict.fromkeys(range(ROWS + 1, ROWS + 1 + more), ("1", "1", 0))

    def traded(self, symbol: str, first_id: int, last_id: int) -> dict[int, tuple[str, str, int]]:
        return {number: trade for number, trade in self._truth.items() if first_id <= number <= last_id}

    def sent_ids(self, symbol: str) -> set[int]:
        return set(self._truth)


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    """Write a whole session."""
    return write_session(tmp_path / "session_judged", ROWS)


def judge(directory: Path, market: Any) -> list[str]:
    verdict = Verdict()
    judge_trades(directory, "BTC_USDT", market, verdict)
    return verdict.problems


def change(directory: Path, edit: Any) -> None:
    path = directory / "BTC_USDT" / "prices.csv"
    lines = path.read_text().splitlines(keepends=True)
    path.write_text("".join(edit(lines)))


def write_ledger(directory: Path, *gaps: tuple[str, int, int, str]) -> None:
    """Write a ledger of gap id, first and last missing trade, state."""
    lines = [
        f"1,{gap_id},BTC_USDT,prices,sequence,1,2,{first},{last},{last - first + 1},0,{state},,,0,{seq}\n"
        for seq, (gap_id, first, last, state) in enumerate(gaps, 1)
    ]
    (directory / "gaps.csv").write_text(GAPS.header + "".join(lines))


def test_a_whole_session_is_found_whole(directory: Path) -> None:
    """With or without an empty ledger."""
    assert judge(directory, Market(directory)) == []
    write_ledger(directory)
    assert judge(directory, Market(directory)) == []


def test_a_trade_that_is_there_twice_is_found(directory: Path) -> None:
    """By its id, whatever its row's number."""
    market = Market(directory)
    change(directory, lambda lines: [*lines, lines[50].replace(",50,50,", f",50,{ROWS + 1},", 1)])
    assert any("twice" in problem for problem in judge(directory, market))


def test_a_missing_trade_must_be_in_the_ledger(directory: Path) -> None:
    """And nothing else may be."""
    market = Market(directory)
    change(directory, lambda lines: [*lines[:100], *lines[101:]])
    write_ledger(directory)
    assert any("1 missing trades are not in the ledger: 100" in problem for problem in judge(directory, market))
    write_ledger(directory, ("g000001", 100, 101, "open"))
    assert any("names 1 that are not missing: 101" in problem for problem in judge(directory, market))


def test_a_changed_digit_is_found(directory: Path) -> None:
    """It is not the exchange's."""
    market = Market(directory)
    change(directory, lambda lines: [*lines[:10], lines[10].replace(",0.5,", ",0.6,"), *lines[11:]])
    assert any("not the exchange's" in problem for problem in judge(directory, market))


def test_the_ledger_is_read_in_the_order_of_its_gaps(directory: Path) -> None:
    """A trade that came late is not missing; one that is missing again is."""
    write_ledger(directory, ("g000001", 5, 9, "open"), ("g000002", 7, 7, "repaired"))
    assert ids_in_ledger(directory, "BTC_USDT") == {5, 6, 8, 9}
    write_ledger(directory, ("g000001", 5, 9, "open"), ("g000002", 7, 7, "repaired"), ("g000003", 7, 7, "open"))
    assert ids_in_ledger(directory, "BTC_USDT") == {5, 6, 7, 8, 9}
    write_ledger(directory, ("g000001", 5, 9, "open"), ("g000001", 5, 9, "repaired"))
    assert ids_in_ledger(directory, "BTC_USDT") == set()


def test_a_file_that_lost_its_beginning_is_found(directory: Path) -> None:
    """Rows may only be added."""
    before = fingerprint(directory)
    change(directory, lambda lines: [*lines, "one more\n"])
    assert changed_since(directory, before) == []
    change(directory, lambda lines: [lines[0], *lines[2:]])
    assert changed_since(directory, before) == ["BTC_USDT/prices.csv"]
    (directory / "BTC_USDT" / "prices.csv").unlink()
    assert changed_since(directory, before) == ["BTC_USDT/prices.csv"]
