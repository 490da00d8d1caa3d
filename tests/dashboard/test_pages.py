"""The dashboard as a person sees it, with nothing from the internet."""

from __future__ import annotations

import pytest
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement

from .conftest import Browser, Dashboard, wait_until

ORDER = {"exchange": "sim", "symbols": ["BTC_USDT", "ETH_USDT"]}


@pytest.fixture(scope="module")
def session(dashboard: Dashboard) -> str:
    """A session that collects."""
    session_id = str(dashboard.ask("start", **ORDER, label="seen by a browser")["session_id"])
    wait_until(lambda: dashboard.ask("status")["sessions"][0]["rows"]["prices"] > 200, "some trades")
    return session_id


def test_without_its_key_nobody_sees_anything(browser: Browser) -> None:
    """A page that asks for it; a wrong one leads back to it, the right one in."""
    browser.open("/")
    browser.wait_text("This dashboard takes a key")
    browser.shot("login")
    field = browser.driver.find_element(By.ID, "key")
    field.send_keys("wrong", Keys.ENTER)
    browser.wait_text("This dashboard takes a key")
    browser.driver.find_element(By.ID, "key").send_keys(browser.dashboard.key, Keys.ENTER)
    browser.wait_text("Rows per second")
    assert "key=" not in browser.driver.current_url


def test_the_sessions(browser: Browser, session: str) -> None:
    """What runs, how fast, and what is missing; nothing is asked of the internet."""
    browser.log_in()
    browser.wait_text(session, "active", "seen by a browser", "BTC_USDT, ETH_USDT", "0 / 0")
    browser.shot("sessions")
    assert browser.complaints() == []


def test_one_session_live(browser: Browser, session: str) -> None:
    """Rows grow while one looks; book, trades, connections and coverage are there."""
    browser.log_in()
    browser.open(f"/session/{session}")
    browser.wait_text("Order book", "spread", "Last trades", "The ledger has no gap", "Connections", "ws://127.0.0.1")
    before = browser.text
    wait_until(lambda: browser.text != before, "newer rows")
    browser.shot("session")
    script = "return [...document.querySelectorAll('.tight .q-table__middle')].map(t => t.scrollWidth - t.clientWidth)"
    assert browser.driver.execute_script(script) == [0], "the last trades scroll sideways"
    browser.driver.set_window_size(500, 1400)
    browser.wait_text("Order book")
    width = browser.driver.execute_script("return document.documentElement.scrollWidth - window.innerWidth")
    browser.shot("session-narrow")
    assert width <= 1, "a narrow window scrolls sideways"
    assert browser.complaints() == []


def test_events_and_what_is_not_there(browser: Browser, session: str) -> None:
    """The log, newest first; a session that does not exist is said to."""
    browser.log_in()
    browser.open("/events")
    browser.wait_text("data_collection.session_state_changed", session)
    browser.shot("events")
    browser.open("/session/nothing-here")
    browser.wait_text("There is no session 'nothing-here'.")
    browser.shot("session-missing")


def test_a_session_is_started_and_stopped_by_hand(browser: Browser, session: str) -> None:
    """A wrong symbol is explained; a right one starts; stopping is asked about first."""
    browser.log_in()
    driver = browser.driver

    def found(selector: str, text: str = "") -> WebElement:
        def look() -> WebElement | None:
            elements = driver.find_elements(By.CSS_SELECTOR, selector)
            return next((one for one in elements if one.is_displayed() and text.upper() in one.text.upper()), None)

        element: WebElement = wait_until(look, f"{selector} {text}")
        return element

    def press(selector: str, text: str = "") -> None:
        driver.execute_script("arguments[0].click()", found(selector, text))

    def write(label: str, text: str) -> None:
        field = found(f'.q-dialog [aria-label="{label}"]')
        field.send_keys(Keys.CONTROL, "a")
        field.send_keys(text)

    press("button", "Start a session")
    write("Exchange", "sim")
    press(".q-menu .q-item", "sim")
    write("Symbols", "BTC_USDX")
    press(".q-dialog button", "Start")
    browser.wait_text("There is no symbol on sim 'BTC_USDX'", "Did you mean")
    browser.shot("start")
    write("Symbols", "ETH_USDT")
    press(".q-dialog button", "Start")
    browser.wait_text("has started")
    assert len([one for one in browser.dashboard.ask("status")["sessions"] if one["state"] == "active"]) == 2
    newest = browser.dashboard.ask("status")["sessions"][-1]["session_id"]
    press(f'[aria-label="Stop {newest}"]')
    browser.wait_text("it cannot be continued")
    press(".q-dialog button", "Stop it")
    browser.wait_text("has stopped")
    states = {one["session_id"]: one["state"] for one in browser.dashboard.ask("status")["sessions"]}
    assert states[newest] == "completed"
    assert states[session] == "active"
