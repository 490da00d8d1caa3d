"""Two sessions side by side: the time both have, their prices, their latency, and trades that one of them lacks."""

from __future__ import annotations

import asyncio
from typing import Any

from nicegui import ui

from collector.api.context import Context
from collector.api.dashboard.charts import comparison_chart
from collector.api.dashboard.shell import Tile, frame, nothing, panel, session_options
from collector.errors import CollectorError, SessionNotFound
from collector.reading.comparison import Comparison, Side, compare_sessions
from collector.reading.session_reader import open_session
from collector.wording import count_text, duration_text, time_text

_STEPS = ["1s", "10s", "1m", "1h"]
_SIDE_COLUMNS: list[dict[str, Any]] = [
    {"name": "what", "label": "", "field": "what", "align": "left"},
    {"name": "left", "label": "", "field": "left", "align": "right"},
    {"name": "right", "label": "", "field": "right", "align": "right"},
]
_ID_COLUMNS: list[dict[str, Any]] = [
    {"name": "where", "label": "Missing in", "field": "where", "align": "left"},
    {"name": "id", "label": "Trade", "field": "id", "align": "right", "sortable": True},
    {"name": "at", "label": "Time (UTC)", "field": "at", "align": "left"},
]


def register(context: Context) -> None:
    """Make the page."""

    @ui.page("/compare", response_timeout=20)
    async def page(left: str = "", right: str = "", symbol: str = "") -> None:
        await _Compare(context).draw(left, right, symbol)


class _Compare:
    """One visitor's page."""

    def __init__(self, context: Context) -> None:
        self._context = context

    async def draw(self, left: str, right: str, symbol: str) -> None:
        with frame("Compare", here="/compare"):
            with panel("Compare two sessions", note="their trades, in the time that both have"):
                with ui.row().classes("w-full items-center gap-3"):
                    self._left = ui.select([], label="Session", with_input=True, on_change=self._choose)
                    self._right = ui.select([], label="Other session", with_input=True, on_change=self._choose)
                    for field in (self._left, self._right):
                        field.props("dense outlined").style("min-width: min(280px, 100%); flex: 2")
                with ui.row().classes("w-full items-center gap-3"):
                    self._symbol = ui.select([], label="Symbol", with_input=True, on_change=self._follow)
                    self._other_symbol = ui.select([], label="Symbol in the other", with_input=True)
                    self._step = ui.select(_STEPS, value="1s", label="Step")
                    self._from = ui.input("From (UTC)", placeholder="all that both have")
                    self._to = ui.input("To (UTC)", placeholder="2026-11-21T08:00")
                    for item in (self._symbol, self._other_symbol, self._step, self._from, self._to):
                        item.props("dense outlined").style("min-width: 130px; flex: 1")
                    self._run = ui.button("Compare", icon="compare_arrows", on_click=self._begin)
                    self._run.props("no-caps unelevated")
                self._busy = ui.linear_progress(show_value=False).props("indeterminate").style("height: 3px")
                self._busy.set_visibility(False)
                self._refusal = ui.column().classes("w-full gap-0").props('role="alert"')
            self._result = ui.column().classes("w-full gap-4")
            with self._result, panel("Result"):
                nothing("Nothing is compared yet.", hint="Choose two sessions that overlap.", icon="compare_arrows")
        await self._load(left, right)
        if symbol in self._symbol.options:
            self._symbol.set_value(symbol)
        if left and right:
            ui.timer(0, self._begin, once=True)  # a page is shown before it compares

    async def _load(self, left: str, right: str) -> None:
        options = session_options(await asyncio.to_thread(self._context.index.list))
        newest = [*options, None, None]
        self._left.set_options(options, value=left if left in options else newest[0])
        self._right.set_options(options, value=right if right in options else newest[1] or newest[0])
        self._run.set_enabled(bool(options))
        await self._choose()

    async def _choose(self) -> None:
        symbols = [await self._symbols_of(field.value) for field in (self._left, self._right)]
        for field, own, other in (
            (self._symbol, symbols[0], symbols[1]), (self._other_symbol, symbols[1], symbols[0]),
        ):  # fmt: skip
            common = [one for one in own if one in other]
            kept = field.value if field.value in own else next(iter(common or own), None)
            field.set_options(own, value=kept)

    def _follow(self) -> None:
        """Take the same symbol in the other session, where it has it."""
        if self._symbol.value in self._other_symbol.options:
            self._other_symbol.set_value(self._symbol.value)

    async def _symbols_of(self, session_id: str | None) -> list[str]:
        if not session_id:
            return []
        try:
            stored = await asyncio.to_thread(self._context.index.find, session_id)
        except SessionNotFound:
            return []
        return sorted(stored.manifest.symbols)

    async def _begin(self) -> None:
        self._refusal.clear()
        self._run.disable()
        self._busy.set_visibility(True)
        try:
            found = await asyncio.to_thread(self._compare)
        except CollectorError as error:
            self._result.clear()
            with self._refusal:
                ui.label(error.message).classes("text-negative")
                ui.label(error.hint).classes("muted text-sm")
        else:
            self._result.clear()
            with self._result:
                _draw(found)
        finally:
            self._busy.set_visibility(False)
            self._run.enable()

    def _compare(self) -> Comparison:
        left, right = (
            open_session(field.value or "", config=self._context.config) for field in (self._left, self._right)
        )
        return compare_sessions(
            left, right, self._symbol.value or "", self._other_symbol.value or None, self._from.value or None,
            self._to.value or None, step=self._step.value,
        )  # fmt: skip


def _draw(found: Comparison) -> None:
    with ui.row().classes("w-full gap-3"):
        length_s = (found.to_us - found.from_us) / 1e6
        Tile("Both have").show(duration_text(length_s), f"from {time_text(found.from_us)}")
        if found.mean_bp is None or found.largest_bp is None:
            Tile("Price difference").show("-", "no step in which both traded")
        else:
            Tile("Price difference").show(f"{found.mean_bp:.3f} bp", f"{found.mean_absolute_bp:.3f} without sign")
            Tile("Largest").show(f"{found.largest_bp:.3f} bp", f"at {time_text(found.largest_us)}")
        for side in (found.left, found.right):
            lacking = "-" if side.lacking is None else count_text(side.lacking)
            Tile("Trades missing").show(lacking, f"in {side.session_id}", colour="#c77d0a" if side.lacking else "")
    with panel("Prices", note="the last of each step, above; left less right in basis points, below"):
        if found.points:
            ui.echart(comparison_chart(found)).classes("w-full").style("height: 380px")
        else:
            nothing("There is no step in which both traded.", hint="Choose a longer step.")
    with ui.element().classes("pair"):
        with panel("Side by side"):
            columns = [dict(column) for column in _SIDE_COLUMNS]
            columns[1]["label"], columns[2]["label"] = found.left.session_id, found.right.session_id
            names = list(_facts(found.left))
            values = [list(_facts(side).values()) for side in (found.left, found.right)]
            rows = [
                {"what": name, "left": left, "right": right}
                for name, left, right in zip(names, *values, strict=True)
            ]  # fmt: skip
            table = ui.table(rows=rows, columns=columns, row_key="what")
            table.props("flat dense hide-pagination wrap-cells :rows-per-page-options='[0]'").classes("w-full")
        with panel("Trades that one lacks", note="by the exchange's numbers, from the first to the last of both"):
            if found.why_no_ids:
                nothing(f"Not compared: {found.why_no_ids}.", icon="tag")
                return
            missing = [
                {"key": f"{side.session_id}/{number}", "where": side.session_id, "id": number, "at": time_text(at_us)}
                for side in (found.left, found.right)
                for number, at_us in side.lacking_ids
            ]
            ids = ui.table(rows=missing, columns=_ID_COLUMNS, row_key="key", pagination=10).props("flat dense")
            with ids.classes("w-full").add_slot("no-data"):
                nothing("Neither lacks a trade that the other has.", icon="task_alt")


def _facts(side: Side) -> dict[str, str]:
    latency = side.latency
    return {
        "exchange": side.exchange,
        "symbol": side.symbol,
        "read from": side.source,
        "trades": count_text(side.trades),
        "latency, least": _ms(latency.least_ms if latency else None),
        "latency, half under": _ms(latency.p50_ms if latency else None),
        "latency, 95 % under": _ms(latency.p95_ms if latency else None),
        "latency, 99 % under": _ms(latency.p99_ms if latency else None),
        "trades missing": "-" if side.lacking is None else count_text(side.lacking),
    }


def _ms(value: float | None) -> str:
    return "-" if value is None else f"{value:,.1f} ms"
