"""Backtests in the browser: refused with its reason, run, looked at, held side by side."""

from __future__ import annotations

import pytest

from collector.backtest.results import list_results
from collector.events import Gap
from tests.backtest.conftest import T, closes, store

from .conftest import Browser, Dashboard, wait_until

HOLE = Gap("BTC_USDT", "prices", "disconnect", T + 8_000_000_000, T + 9_000_000_000, 10, 12, 3)


@pytest.fixture(scope="module")
def recorded(dashboard: Dashboard) -> tuple[str, str]:
    """Two sessions of candles that a test knows: a whole one, and one that lacks trades."""
    store(dashboard.data_dir, "whole", closes(400))
    store(dashboard.data_dir, "lacking", closes(400), gaps=[HOLE])
    return "whole", "lacking"


def symbol_is_known(browser: Browser) -> None:
    browser.wait_text("Run a backtest")
    wait_until(lambda: browser.found('[aria-label="Symbol"]').get_attribute("value") == "BTC_USDT", "the symbol")


def run(browser: Browser, strategy: str) -> str:
    """Run a strategy on the whole session; return the backtest's id."""
    browser.open("/backtests?session=whole")
    symbol_is_known(browser)
    browser.choose("Strategy", strategy)
    browser.press("button", "Run")
    browser.wait_text("Largest drawdown", "All that is known")
    return str(browser.driver.current_url.rsplit("/", 1)[1])


def test_a_backtest_is_run_and_held_against_another(browser: Browser, recorded: tuple[str, str]) -> None:
    """Statistics, curve, trades, the report; the result is the one that the command line would list."""
    browser.log_in()
    browser.open("/backtests")
    browser.wait_text("No backtest was run yet")
    browser.shot("backtests-empty")
    first = run(browser, "Breakout")
    browser.wait_text("Bought (UTC)", "whole", "buying and holding")
    browser.shot("backtest")
    kept = {one.backtest_id: one for one in list_results(browser.dashboard.data_dir)}
    assert kept[first].strategy == "breakout"
    assert f"{len(kept[first].trades)}\n" in browser.text
    assert run(browser, "Breakout") == first, "the same run has the same id"
    second = run(browser, "Buy and hold")
    assert browser.complaints() == []

    browser.open("/backtests")
    browser.wait_text(first, second)
    browser.press(".q-table thead .q-checkbox")
    browser.wait_text("profit factor", "exposure time %")
    browser.shot("backtests")
    assert browser.complaints() == []
    browser.driver.set_window_size(500, 1200)
    wait_until(lambda: browser.too_wide <= 0, "a page as wide as the window")
    browser.shot("backtests-narrow")
    browser.open(f"/backtest/{first}")
    browser.wait_text("Largest drawdown")
    wait_until(lambda: browser.too_wide <= 0, "a page as wide as the window")


def test_the_report_is_shown_and_reaches_nothing(browser: Browser, recorded: tuple[str, str]) -> None:
    """Its scripts draw the plot; they run as nobody's, so they read no cookie and ask no API."""
    browser.log_in()
    backtest = run(browser, "RSI reversal")
    link = browser.found("a", "Report with plot").get_attribute("href")
    assert link is not None
    browser.driver.get(link)
    browser.wait_text(backtest, "Combinations tried")
    frame = browser.found("iframe")
    browser.driver.switch_to.frame(frame)
    # The plot's parts are in shadow trees, one within the other.
    drawn = (
        "const inside = e => [...e.querySelectorAll('*')]"
        ".flatMap(c => [c, ...(c.shadowRoot ? inside(c.shadowRoot) : [])]);"
        "return inside(document).filter(c => c.tagName === 'CANVAS').length"
    )
    wait_until(lambda: browser.driver.execute_script(drawn), f"the plot: {browser.complaints()}")
    browser.driver.switch_to.default_content()
    browser.shot("backtest-report")
    assert browser.driver.execute_script("return self.origin") == "null"
    asked = browser.driver.execute_async_script(
        "const [done] = arguments; fetch('/api/data-collection/sessions').then(a => done(a.status), () => done('no'))"
    )
    assert asked == "no"


def test_a_session_that_lacks_trades_is_refused_with_the_reason(browser: Browser, recorded: tuple[str, str]) -> None:
    """Unless a person says that it shall be run all the same; then the result says where they are missing."""
    browser.log_in()
    browser.open("/backtests?session=lacking")
    symbol_is_known(browser)
    browser.press("button", "Run")
    browser.wait_text("lacks trades of BTC_USDT: 1 gaps are not repaired", "g000001, disconnect")
    browser.shot("backtests-refused")
    browser.press(".q-toggle", "though trades are missing")
    browser.press("button", "Run")
    browser.wait_text("Trades are missing in what this was run on", "g000001: disconnect")
    browser.open("/backtest/nothing-here")
    browser.wait_text("There is no backtest 'nothing-here'")
