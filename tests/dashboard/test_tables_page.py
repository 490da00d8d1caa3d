"""Any table of QuestDB in the browser: filtered, sorted, turned, taken away as CSV; and when QuestDB is not there."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from selenium.webdriver.common.keys import Keys

from .conftest import Browser, Stored, wait_until


def column(browser: Browser, number: int) -> list[str]:
    script = (
        "return [...document.querySelectorAll('.q-table tbody tr')]"
        f".filter(r => r.children.length > {number}).map(r => r.children[{number}].innerText)"
    )
    return list(browser.driver.execute_script(script))


def head(browser: Browser) -> list[str]:
    script = "return [...document.querySelectorAll('.q-table thead th')].map(c => c.innerText.trim())"
    return [name.split("\n")[-1] if "\n" in name else name for name in browser.driver.execute_script(script)]


def place(browser: Browser, name: str) -> int:
    return next(number for number, text in enumerate(head(browser)) if name in text)


def test_a_table_is_filtered_sorted_and_turned(looking: Browser, two_sessions: tuple[str, str]) -> None:
    """Two filters at once, each row once over the pages, newest first unless asked otherwise."""
    first, _ = two_sessions
    looking.open("/tables?table=tick_prices")
    looking.wait_text("rows", "trade_id", "BTC_USDT")
    times = column(looking, 0)
    assert times == sorted(times, reverse=True)
    looking.shot("tables")

    looking.press("button", "Add a filter")
    looking.choose("Column", "session_id")
    looking.write('[aria-label="Value"]', first + Keys.ENTER)
    looking.wait_text("rows fit")
    wait_until(lambda: set(column(looking, place(looking, "session_id"))) == {first}, "one session's rows")
    looking.press(".q-table th.sortable", "seq")
    wait_until(lambda: column(looking, place(looking, "seq"))[:2] == ["1", "1"], "the order by seq")
    before = column(looking, place(looking, "trade_id"))
    looking.press('.q-table__bottom button[aria-label="Next page"]')
    wait_until(lambda: column(looking, place(looking, "trade_id")) not in ([], before), "the next page")
    assert int(column(looking, place(looking, "seq"))[0]) == 13
    looking.shot("tables-filtered")
    assert looking.complaints() == []


def test_what_is_shown_is_taken_away(
    looking: Browser, stored: Stored, two_sessions: tuple[str, str], tmp_path: Path
) -> None:
    """The file has all rows that fit, not only the page."""
    looking.driver.execute_cdp_cmd("Browser.setDownloadBehavior", {"behavior": "allow", "downloadPath": str(tmp_path)})
    looking.open("/tables?table=tick_prices")
    looking.wait_text("trade_id", "BTC_USDT")
    looking.press("button", "Export CSV")
    path = tmp_path / "tick_prices.csv"
    wait_until(path.exists, "the file")
    rows = list(csv.DictReader(io.StringIO(path.read_text(encoding="utf-8"))))
    assert len(rows) == stored.rows_of("tick_prices")
    assert {row["session_id"] for row in rows} == set(two_sessions)


def test_what_does_not_fit_is_explained(looking: Browser, two_sessions: tuple[str, str]) -> None:
    """A value that is no number; nothing that fits; a table that does not exist."""
    looking.open("/tables?table=tick_prices")
    looking.wait_text("trade_id", "BTC_USDT")
    looking.press("button", "Add a filter")
    looking.choose("Column", "price")
    looking.write('[aria-label="Value"]', "many" + Keys.ENTER)
    looking.wait_text("is no number")
    looking.write('[aria-label="Value"]', "-1" + Keys.ENTER)
    looking.wait_text("No row fits")
    looking.shot("tables-empty")
    looking.press('[aria-label="Remove the filter"]')
    looking.wait_text("BTC_USDT")
    looking.open("/tables?table=tick_pricez")
    looking.wait_text("There is no table 'tick_pricez'")


def test_a_narrow_window_scrolls_the_table_and_not_the_page(looking: Browser, two_sessions: tuple[str, str]) -> None:
    """At 500 pixels."""
    looking.driver.set_window_size(500, 1000)
    looking.open("/tables?table=tick_prices")
    looking.wait_text("BTC_USDT")
    looking.shot("tables-narrow")
    assert looking.too_wide <= 0


def test_without_a_database_it_is_said(looking: Browser, stored: Stored, two_sessions: tuple[str, str]) -> None:
    """QuestDB is stopped under the page, and started again: sessions can be read all the while."""
    first, _ = two_sessions
    stored.questdb.stop()
    try:
        looking.open("/tables")
        looking.wait_text("cannot be reached", "in the CSV all the same")
        looking.shot("tables-down")
        looking.open("/")
        looking.wait_text("DOWN", first)
        looking.shot("sessions-down")
        looking.open(f"/session/{first}")
        looking.wait_text("Order book", "spread", "Last trades")
        looking.shot("session-down")
    finally:
        stored.questdb.start()
    looking.open("/tables")
    looking.wait_text("trade_id")
    assert looking.driver.execute_script("return document.title") == "Tables · collector"
