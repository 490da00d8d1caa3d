"""Past candles in the browser; every page in dark and in a narrow window."""

from __future__ import annotations

from collector.history.tables import HistoryTables, LogRow, QualityRow, RangeRow
from collector.storage.sql import connect, to_timestamp

from .conftest import Browser, Stored, wait_until

HOUR_US = 3_600_000_000
T = 1_700_000_000_000_000 // HOUR_US * HOUR_US
DARK = "return document.body.classList.contains('body--dark')"
PAGES = ("/", "/history", "/tables", "/compare", "/backtests", "/events")


def test_past_candles(looking: Browser, stored: Stored) -> None:
    """Nothing at first; then what is held, how good it is, and its chart."""
    looking.open("/history")
    # What other tests had done stands among the operations already: they share the server.
    looking.wait_text("No past candles are held", "Operations")
    looking.shot("history-empty")
    settings = stored.questdb.settings()
    tables = HistoryTables(lambda: settings)
    last_us = T + 99 * HOUR_US
    tables.put_ranges(
        [RangeRow(symbol="BTC_USDT", timeframe="1h", earliest_us=T, latest_us=last_us, total_records=100,
                  is_complete=False, updated_us=T)]
    )  # fmt: skip
    tables.put_quality(
        [QualityRow(symbol="BTC_USDT", timeframe="1h", completeness_percentage=97, missing_records=3, has_gaps=True,
                    score=96.5, detail="{}", checked_us=T)]
    )  # fmt: skip
    tables.put_logs([LogRow(task_id="t", task_name="backfill", status="done", started_us=T, finished_us=T + HOUR_US)])
    with connect(settings) as connection:
        connection.run(
            "INSERT INTO market_data (timestamp, session_id, exchange, symbol, asset_type, timeframe, open, high, low, "
            "close, volume, source, seq) SELECT timestamp_sequence(%s, 3600000000L), 'h', 'x', 'BTC_USDT', 'spot', "
            "'1h', 100 + x, 103 + x, 98 + x, 101 + x, x, 'binance', x FROM long_sequence(100)",
            to_timestamp(T),
        )
        for table in ("market_data", "historical_data_range", "data_quality", "data_collection_logs"):
            connection.run_text(f"SELECT wait_wal_table('{table}')")
    looking.open("/history")
    looking.wait_text("BTC_USDT", "100", "96.5", "backfill", "1 h 00 m")
    looking.press(".q-table tbody .q-checkbox")
    looking.wait_text("BTC_USDT 1h")
    wait_until(lambda: looking.driver.execute_script("return document.querySelectorAll('canvas').length"), "the chart")
    looking.shot("history")
    assert looking.complaints() == []


def test_every_page_is_as_wide_as_its_window(looking: Browser, two_sessions: tuple[str, str]) -> None:
    """At 500 pixels, and dark: its ground is dark and its text is light."""
    first, _ = two_sessions
    looking.driver.set_window_size(500, 1100)
    for page in (*PAGES, f"/session/{first}"):
        looking.open(page)
        looking.press('[aria-label="Light or dark"]')
        wait_until(lambda: looking.driver.execute_script(DARK), "the dark")
        wait_until(lambda: looking.too_wide <= 0, f"{page} as wide as the window")
        looking.shot(f"dark-{page.strip('/').partition('/')[0] or 'sessions'}")
    looking.driver.set_window_size(1400, 1200)


def test_pages_are_reached_with_the_keyboard(looking: Browser) -> None:
    """The skip link first, then the pages; each says where it is."""
    looking.open("/")
    looking.wait_text("Sessions")
    script = "document.querySelector('[aria-label=\"Tables\"]').focus(); return document.activeElement.tagName"
    assert looking.driver.execute_script(script) == "A"
    looking.driver.switch_to.active_element.send_keys("\ue007")
    looking.wait_text("Export CSV")
    assert looking.driver.current_url.endswith("/tables")
    assert looking.driver.execute_script("return document.querySelector('[aria-current=page]').innerText").endswith(
        "Tables"
    )
