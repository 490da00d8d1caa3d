"""Past candles: what is held, how good it is, what was done to have it, and a chart of each."""

from __future__ import annotations

import asyncio
from typing import Any

from nicegui import ui

from collector.api.context import Context
from collector.api.dashboard.charts import past_candle_chart
from collector.api.dashboard.shell import frame, nothing, panel
from collector.api.routes.history import held
from collector.errors import CollectorError
from collector.history.tables import LogRow, QualityRow, RangeRow
from collector.wording import count_text, duration_text, time_text

_LOGS_SHOWN = 50
_CANDLES_SHOWN = 1_000
_RANGE_COLUMNS: list[dict[str, Any]] = [
    {"name": "symbol", "label": "Symbol", "field": "symbol", "align": "left", "sortable": True},
    {"name": "interval", "label": "Interval", "field": "interval", "align": "left", "sortable": True},
    {"name": "first", "label": "From (UTC)", "field": "first", "align": "left", "sortable": True},
    {"name": "last", "label": "To (UTC)", "field": "last", "align": "left", "sortable": True},
    {"name": "records", "label": "Candles", "field": "records", "align": "right", "sortable": True},
    {"name": "missing", "label": "Missing", "field": "missing", "align": "right", "sortable": True},
    {"name": "score", "label": "Score", "field": "score", "align": "right", "sortable": True},
]
_LOG_COLUMNS: list[dict[str, Any]] = [
    {"name": "started", "label": "Started (UTC)", "field": "started", "align": "left"},
    {"name": "task", "label": "Operation", "field": "task", "align": "left"},
    {"name": "status", "label": "State", "field": "status", "align": "left"},
    {"name": "took", "label": "For", "field": "took", "align": "right"},
    {"name": "records", "label": "Candles", "field": "records", "align": "right"},
    {"name": "error", "label": "Error", "field": "error", "align": "left"},
]


def register(context: Context) -> None:
    """Make the page."""

    @ui.page("/history", response_timeout=20)
    async def page() -> None:
        await _History(context).draw()


class _History:
    """One visitor's page."""

    def __init__(self, context: Context) -> None:
        self._held = held(context)

    async def draw(self) -> None:
        with frame("History", here="/history"):
            try:
                ranges, quality, logs = await asyncio.to_thread(
                    lambda: (self._held.ranges(), self._held.quality(), self._held.logs(_LOGS_SHOWN))
                )
            except CollectorError as error:
                with panel("Past candles"):
                    nothing(error.message, hint=error.hint or "They are in the CSV all the same.", icon="cloud_off")
                return
            with panel("Past candles", note="a row is opened as a chart"):
                search = ui.input(placeholder="Search a symbol").props('dense outlined clearable aria-label="Search"')
                table = ui.table(
                    rows=_range_rows(ranges, quality), columns=_RANGE_COLUMNS, row_key="key", pagination=15,
                    selection="single", on_select=lambda event: self._show(event.selection),
                ).props("flat dense").classes("w-full")  # fmt: skip
                search.bind_value_to(table, "filter")
                with table.add_slot("no-data"):
                    nothing(
                        "No past candles are held.",
                        hint="collector backfill --start-year 2024 --symbols BTC_USDT fetches them.",
                        icon="history",
                    )
                self._chart = ui.column().classes("w-full")
            with panel("Operations", note="newest first"):
                done = ui.table(rows=_log_rows(logs), columns=_LOG_COLUMNS, row_key="key", pagination=10)
                done.props("flat dense wrap-cells").classes("w-full")
                with done.add_slot("no-data"):
                    nothing("Nothing was done yet.", icon="receipt_long")

    async def _show(self, selection: list[dict[str, Any]]) -> None:
        self._chart.clear()
        if not selection:
            return
        row = selection[0]
        span_us = row["last_us"] - row["first_us"]
        # The newest ones: as much of the time as holds about so many candles.
        share = min(1.0, _CANDLES_SHOWN / max(1, row["count"]))
        begin = row["last_us"] - max(round(span_us * share), 0)
        try:
            found = await asyncio.to_thread(
                self._held.candles, row["symbol"], row["interval"], begin, None, skip=0, limit=2 * _CANDLES_SHOWN
            )
        except CollectorError as error:
            with self._chart:
                nothing(error.message, hint=error.hint, icon="cloud_off")
            return
        with self._chart:
            ui.label(f"{row['symbol']} {row['interval']}").classes("text-weight-bold")
            ui.echart(past_candle_chart(found)).classes("w-full").style("height: 380px")


def _range_rows(ranges: list[RangeRow], quality: list[QualityRow]) -> list[dict[str, Any]]:
    examined = {(one.symbol, one.timeframe): one for one in quality}
    found = []
    for one in ranges:
        known = examined.get((one.symbol, one.timeframe))
        found.append(
            {
                "key": f"{one.symbol} {one.timeframe}", "symbol": one.symbol, "interval": one.timeframe,
                "first": time_text(one.earliest_us).removesuffix("Z"), "first_us": one.earliest_us,
                "last": time_text(one.latest_us).removesuffix("Z"), "last_us": one.latest_us,
                "records": count_text(one.total_records), "count": one.total_records,
                "missing": "-" if known is None else count_text(known.missing_records),
                "score": "-" if known is None else f"{known.score:.1f}",
            }
        )  # fmt: skip
    return found


def _log_rows(logs: list[LogRow]) -> list[dict[str, Any]]:
    return [
        {
            "key": f"{one.started_us} {one.task_id}", "started": time_text(one.started_us).removesuffix("Z"),
            "task": one.task_name, "status": one.status,
            "took": duration_text((one.finished_us - one.started_us) / 1e6 if one.finished_us else None),
            "records": count_text(one.records), "error": one.error or "-",
        }
        for one in logs
    ]  # fmt: skip
