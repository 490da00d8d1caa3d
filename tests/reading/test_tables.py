"""Any table a page at a time, against the real server; what a person writes is a value and nothing else."""

from __future__ import annotations

from typing import Any

import pytest

from collector.errors import CollectorError, DatabaseMisconfigured, UnknownName, UsageError
from collector.reading.session_reader import Database
from collector.reading.tables import OPERATORS, Condition, TableBrowser

TABLE = "browsed"


@pytest.fixture(scope="module")
def browser(questdb: Any) -> Any:
    with questdb.connect() as connection:
        connection.run_text(
            f"CREATE TABLE {TABLE} (at TIMESTAMP, name SYMBOL, note VARCHAR, amount DOUBLE, n LONG, good BOOLEAN) "
            "TIMESTAMP(at) PARTITION BY DAY WAL"
        )
        for n in range(25):
            note = None if n == 7 else f"it's % {n}_x"
            at = f"2026-01-{n + 1:02}T00:00:00.000000Z"
            connection.run(
                "INSERT INTO browsed VALUES (%s, %s, %s, %s, %s, %s)", at, f"s{n % 3}", note, n / 2, n, n % 2 == 0
            )
        connection.rows("SELECT wait_wal_table('browsed')")
    with TableBrowser(questdb.settings) as browser:
        yield browser


def numbers(browser: TableBrowser, *conditions: Condition, **how: Any) -> list[int]:
    return [row[4] for row in browser.page(TABLE, conditions, **how).rows]


def test_pages_follow_each_other(browser: TableBrowser) -> None:
    """Each row once, in the order that was asked for, with the number of all."""
    page = browser.page(TABLE, limit=10)
    assert [column.name for column in page.columns] == ["at", "name", "note", "amount", "n", "good"]
    assert (len(page.rows), page.total) == (10, 25)
    found = [n for offset in (0, 10, 20) for n in numbers(browser, sort="n", descending=True, limit=10, offset=offset)]
    assert found == list(range(24, -1, -1))
    assert TABLE in browser.tables()


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        (Condition("name", "=", "s1"), [1, 4, 7, 10, 13, 16, 19, 22]),
        (Condition("n", "<", "3"), [0, 1, 2]),
        (Condition("amount", ">=", "11.5"), [23, 24]),
        (Condition("at", ">", "2026-01-23"), [23, 24]),
        (Condition("at", "<=", "2026-01-02T01:00:00+01:00"), [0, 1]),
        (Condition("note", "contains", "% 1_"), [1]),
        (Condition("note", "contains", "'"), [n for n in range(25) if n != 7]),
        (Condition("note", "empty"), [7]),
        (Condition("good", "=", "false"), list(range(1, 25, 2))),
        (Condition("note", "=", "x' OR 1=1 --"), []),
    ],
)
def test_conditions(browser: TableBrowser, condition: Condition, expected: list[int]) -> None:
    """Text, numbers, times and truth, and quotes and percent signs as they are."""
    assert numbers(browser, condition, limit=100) == expected
    assert browser.page(TABLE, [condition]).total == len(expected)


def test_what_does_not_fit_is_said(browser: TableBrowser) -> None:
    """Tables and columns with the nearest names, values with what they ought to be."""
    with pytest.raises(UnknownName, match=TABLE):
        browser.page("brosed")
    with pytest.raises(UnknownName, match="amount"):
        browser.page(TABLE, sort="amuont")
    with pytest.raises(UsageError, match="no number"):
        browser.page(TABLE, [Condition("n", "=", "many")])
    with pytest.raises(UsageError, match="no time"):
        browser.page(TABLE, [Condition("at", "<", "yesterday")])
    with pytest.raises(UsageError, match="no text"):
        browser.page(TABLE, [Condition("n", "contains", "1")])


def test_any_operator_on_any_column_is_an_answer_or_a_sentence(browser: TableBrowser) -> None:
    """Never an error of the driver's."""
    for operator in OPERATORS:
        for column in ("at", "name", "note", "amount", "n", "good"):
            for value in ("1", "2026-01-01", "", "it's", "\\", '";drop table browsed;'):
                try:
                    browser.page(TABLE, [Condition(column, operator, value)])
                except CollectorError as error:
                    assert error.message
    assert browser.page(TABLE).total == 25


def test_all_rows_that_fit_are_given_to_an_export(browser: TableBrowser) -> None:
    """Not only a page of them, in the order asked for."""
    page = browser.every(TABLE, [Condition("n", ">=", "5")], sort="n", descending=True)
    assert [row[4] for row in page.rows] == list(range(24, 4, -1))
    assert page.total == 20


def test_whoever_looks_cannot_write(questdb: Any) -> None:
    """The dashboard asks as the user that may only read."""
    with TableBrowser(Database(questdb.config).settings(read_only=True)) as reader:
        assert "tick_prices" in reader.tables()
        with pytest.raises(DatabaseMisconfigured):
            reader.run_text("CREATE TABLE never (n LONG)")
        assert "never" not in reader.tables()
