"""Backtests over REST: the list in pages, one with its curve, and its report under a policy of its own."""

from __future__ import annotations

from collector.backtest.job import Order, perform
from tests.backtest.conftest import closes, store

from .conftest import Application

BACKTESTS = "/api/data-collection/backtests"


def test_what_was_run_is_listed_shown_and_reported(application: Application) -> None:
    """Newest first; the list without curves, one with all of it, the report as a page that may do nothing else."""
    store(application.data_dir, "s1", closes(200))
    told: list[str] = []
    results = [
        perform(application.config, Order("s1", "BTC_USDT", strategy=name), lambda step, _: told.append(step))
        for name in ("breakout", "buy_and_hold")
    ]
    assert told[:2] == ["Reading the candles", "Running breakout on 198 candles"]
    page = application.get(f"{BACKTESTS}?limit=1").json()
    assert [one["backtest_id"] for one in page["backtests"]] == [results[1].backtest_id]
    assert "equity" not in page["backtests"][0]
    rest = application.get(f"{BACKTESTS}?limit=1&cursor={page['next']}").json()
    assert [one["backtest_id"] for one in rest["backtests"]] == [results[0].backtest_id]
    assert (rest["total"], rest["next"]) == (2, None)
    assert application.get(f"{BACKTESTS}?session=other").json()["total"] == 0
    whole = application.get(f"{BACKTESTS}/{results[0].backtest_id}").json()
    assert whole["statistics"] == results[0].statistics
    assert len(whole["equity"]) == 198
    report = application.get(f"{BACKTESTS}/{results[0].backtest_id}/report")
    assert report.headers["content-type"].startswith("text/html")
    assert report.headers["content-security-policy"].startswith("sandbox allow-scripts; default-src 'none'")
    assert results[0].data_hash in report.text


def test_what_is_not_there_is_said(application: Application) -> None:
    """With the nearest ids; without the token nothing is told."""
    store(application.data_dir, "s1", closes(60))
    result = perform(application.config, Order("s1", "BTC_USDT", strategy="buy_and_hold"))
    answer = application.get(f"{BACKTESTS}/{result.backtest_id[:-1]}x")
    assert answer.status_code == 404
    assert result.backtest_id in answer.json()["hint"]
    assert application.get(f"{BACKTESTS}/..%2f..%2fx/report").status_code == 404
    (application.data_dir / "backtests" / result.backtest_id / "report.html").unlink()
    gone = application.get(f"{BACKTESTS}/{result.backtest_id}/report")
    assert (gone.status_code, gone.json()["hint"]) == (404, "Run it again.")
    assert application.get(f"{BACKTESTS}/{result.backtest_id}/report", headers={}).status_code == 401
