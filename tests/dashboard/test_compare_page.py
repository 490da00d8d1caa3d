"""Two sessions side by side in the browser."""

from __future__ import annotations

from .conftest import Browser, wait_until


def test_two_sessions_are_compared(looking: Browser, two_sessions: tuple[str, str]) -> None:
    """They heard the same trades at the same time: no difference, and none that one lacks."""
    first, second = two_sessions
    looking.open("/compare")
    looking.wait_text("Nothing is compared yet")
    looking.shot("compare-empty")
    looking.open(f"/compare?left={first}&right={second}&symbol=ETH_USDT")
    looking.wait_text("0.000 bp", "latency, 99 % under", "Neither lacks a trade that the other has", "questdb")
    looking.shot("compare")
    looking.driver.set_window_size(500, 1200)
    wait_until(lambda: looking.too_wide <= 0, "a page as wide as the window")
    looking.shot("compare-narrow")
    assert looking.complaints() == []


def test_what_cannot_be_compared_is_explained(looking: Browser, two_sessions: tuple[str, str]) -> None:
    """Times that are none, and times in which nothing was traded."""
    first, second = two_sessions
    looking.open(f"/compare?left={first}&right={second}")
    looking.wait_text("Neither lacks")
    looking.write('[aria-label="From (UTC)"]', "yesterday")
    looking.press("button", "Compare")
    looking.wait_text("'yesterday' is no time")
    looking.write('[aria-label="From (UTC)"]', "2031-01-01")
    looking.press("button", "Compare")
    looking.wait_text("no time in common")
