"""Backtests: one is ordered and run in a thread, earlier ones are listed and held side by side."""

from __future__ import annotations

import asyncio
from typing import Any

from nicegui import ui

from collector.api.context import Context
from collector.api.dashboard.charts import equity_chart, returns_chart
from collector.api.dashboard.shell import Tile, frame, nothing, panel, session_options
from collector.api.routes.backtests import find
from collector.backtest.job import Order, perform
from collector.backtest.results import BacktestResult, list_results
from collector.backtest.run import Account
from collector.backtest.strategies import TEMPLATES
from collector.candles.intervals import INTERVALS
from collector.errors import BacktestNotFound, CollectorError, SessionNotFound
from collector.wording import count_text, time_text

_TRADES_SHOWN = 15
_LARGE = 1e9
_COLUMNS: list[dict[str, Any]] = [
    {"name": "id", "label": "Backtest", "field": "id", "align": "left", "sortable": True},
    {"name": "session", "label": "On", "field": "session", "align": "left", "sortable": True},
    {"name": "parameters", "label": "Parameters", "field": "parameters", "align": "left"},
    {"name": "return", "label": "Return %", "field": "return", "align": "right", "sortable": True},
    {"name": "sharpe", "label": "Sharpe", "field": "sharpe", "align": "right", "sortable": True},
    {"name": "drawdown", "label": "Drawdown %", "field": "drawdown", "align": "right", "sortable": True},
    {"name": "trades", "label": "Trades", "field": "trades", "align": "right", "sortable": True},
    {"name": "run", "label": "Run (UTC)", "field": "run", "align": "left", "sortable": True},
]
_ID_CELL = """
<q-td :props="props"><a :href="'/backtest/' + props.value" class="text-primary text-weight-medium">{{ props.value }}</a>
</q-td>
"""
_NUMBER_CELL = """
<q-td :props="props">{{ props.value === null ? '-' : props.value.toLocaleString('en-US', {maximumFractionDigits: 3}) }}
</q-td>
"""
_SESSION_CELL = """
<q-td :props="props">{{ props.value }}<div class="muted text-xs">{{ props.row.symbol }}</div></q-td>
"""
_TRADE_COLUMNS: list[dict[str, Any]] = [
    {"name": "entry", "label": "Bought (UTC)", "field": "entry", "align": "left"},
    {"name": "exit", "label": "Sold (UTC)", "field": "exit", "align": "left"},
    {"name": "size", "label": "Size", "field": "size", "align": "right"},
    {"name": "entry_price", "label": "At", "field": "entry_price", "align": "right"},
    {"name": "exit_price", "label": "For", "field": "exit_price", "align": "right"},
    {"name": "profit", "label": "Profit", "field": "profit", "align": "right", "sortable": True},
    {"name": "return", "label": "Return %", "field": "return", "align": "right", "sortable": True},
]


def register(context: Context) -> None:
    """Make the pages."""
    turn = asyncio.Semaphore(1)  # the others wait: each takes a processor for itself

    @ui.page("/backtests", response_timeout=20)
    async def page(session: str = "") -> None:
        await _Backtests(context, turn, session).draw()

    @ui.page("/backtest/{backtest_id}", response_timeout=20)
    async def one(backtest_id: str) -> None:
        try:
            result = await asyncio.to_thread(find, context, backtest_id)
        except BacktestNotFound as error:
            with frame("No such backtest", here="/backtests"), panel("No such backtest"):
                nothing(error.message, hint=error.hint, icon="search_off")
                ui.link("All backtests", "/backtests")
            return
        _draw_result(result)


class _Backtests:
    """One visitor's page."""

    def __init__(self, context: Context, turn: asyncio.Semaphore, session: str) -> None:
        self._context = context
        self._turn = turn
        self._asked = session
        self._results: dict[str, BacktestResult] = {}
        self._given: dict[str, ui.number] = {}
        self.step = ""
        self.share = 0.0

    async def draw(self) -> None:
        with frame("Backtests", here="/backtests"):
            with panel("Run a backtest", note="on whole candles only: the same data gives the same result"):
                with ui.row().classes("w-full items-start gap-3"):
                    self._session = ui.select([], label="Session", with_input=True, on_change=self._choose)
                    self._session.props("dense outlined").style("min-width: min(320px, 100%); flex: 2")
                    self._symbol = ui.select([], label="Symbol", with_input=True)
                    self._interval = ui.select(
                        list(INTERVALS), value="1m", label="Interval", new_value_mode="add-unique"
                    )
                    names = {name: template.title for name, template in TEMPLATES.items()}
                    self._strategy = ui.select(
                        names, label="Strategy", value=next(iter(names)), on_change=self._describe
                    )
                    for field in (self._symbol, self._interval, self._strategy):
                        field.props("dense outlined").style("min-width: 130px; flex: 1")
                self._about = ui.label("").classes("muted text-sm")
                with ui.row().classes("w-full items-center gap-3"):
                    self._parameters = ui.row().classes("gap-3")
                    self._cash = ui.number("Cash", value=10_000, min=0.01)
                    self._commission = ui.number("Commission %", value=0.1, min=0, max=50, step=0.01)
                    self._from = ui.input("From (UTC)", placeholder="all of it")
                    self._to = ui.input("To (UTC)", placeholder="2026-11-21T08:00")
                    for number in (self._cash, self._commission, self._from, self._to):
                        number.props("dense outlined").style("width: 150px")
                with ui.row().classes("w-full items-center gap-3"):
                    self._run = ui.button("Run", icon="play_arrow", on_click=self._begin).props("no-caps unelevated")
                    self._run.disable()  # until there is something to run on
                    self._allow = ui.switch("though trades are missing")
                    ui.space()
                    ui.label("Strategies of your own: collector backtest SESSION --strategy FILE.py").classes(
                        "muted text-xs"
                    )
                with ui.column().classes("w-full gap-1") as self._progress:
                    ui.linear_progress(show_value=False).bind_value_from(self, "share").props("instant-feedback")
                    ui.label("").classes("muted text-sm").bind_text_from(self, "step").props('role="status"')
                self._progress.set_visibility(False)
                self._refusal = ui.column().classes("w-full gap-0").props('role="alert"')
            with panel("Earlier ones", note="choose two or more to hold them side by side"):
                self._table = (
                    ui.table(
                        rows=[], columns=_COLUMNS, row_key="id", selection="multiple", on_select=self._compare,
                        pagination={"rowsPerPage": 15, "sortBy": "run", "descending": True},
                    )
                    .props("flat dense")
                    .classes("w-full")
                )  # fmt: skip
                self._table.add_slot("body-cell-id", _ID_CELL)
                self._table.add_slot("body-cell-session", _SESSION_CELL)
                for name in ("return", "sharpe", "drawdown", "trades"):
                    self._table.add_slot(f"body-cell-{name}", _NUMBER_CELL)
                with self._table.add_slot("no-data"):
                    nothing("No backtest was run yet.", hint="Choose a session and a strategy.", icon="science")
                self._compared = ui.column().classes("w-full gap-2")
        self._describe()
        await self._load_sessions()
        await self._load_results()

    async def _load_sessions(self) -> None:
        options = session_options(await asyncio.to_thread(self._context.index.list))
        first = self._asked if self._asked in options else next(iter(options), None)
        self._session.set_options(options, value=first)
        if first is None:
            self._about.set_text("There is no session with trades yet: start one on the first page.")

    async def _load_results(self) -> None:
        found = await asyncio.to_thread(list_results, self._context.config.daemon.data_dir)
        self._results = {one.backtest_id: one for one in found}
        self._table.rows = [_row(one) for one in found]
        self._table.update()

    async def _choose(self) -> None:
        if not self._session.value:
            return
        try:
            stored = await asyncio.to_thread(self._context.index.find, self._session.value)
        except SessionNotFound as error:
            self._refuse(error)
            return
        symbols = sorted(stored.manifest.symbols)
        self._symbol.set_options(symbols, value=symbols[0] if symbols else None)
        self._run.set_enabled(bool(symbols))
        self._refusal.clear()

    def _describe(self) -> None:
        template = TEMPLATES[self._strategy.value]
        self._about.set_text(template.description)
        self._parameters.clear()
        with self._parameters:
            self._given = {
                name: ui.number(name, value=value).props("dense outlined").style("width: 110px")
                for name, value in template.parameters.items()
            }

    async def _begin(self) -> None:
        self._refusal.clear()
        self._run.disable()
        self._progress.set_visibility(True)
        self.step, self.share = "Waiting for another backtest", 0.02
        try:
            order = self._order()
            async with self._turn:
                result = await asyncio.to_thread(perform, self._context.config, order, self._tell)
        except CollectorError as error:
            self._refuse(error)
        else:
            ui.navigate.to(f"/backtest/{result.backtest_id}")
        finally:
            self._progress.set_visibility(False)
            self._run.enable()

    def _order(self) -> Order:
        return Order(
            session_id=self._session.value or "",
            symbol=self._symbol.value or "",
            interval=self._interval.value or "1m",
            strategy=self._strategy.value,
            parameters={name: f"{field.value:g}" for name, field in self._given.items() if field.value is not None},
            start=self._from.value or None,
            end=self._to.value or None,
            account=Account(float(self._cash.value or 10_000), float(self._commission.value or 0) / 100),
            allow_gaps=bool(self._allow.value),
        )

    def _tell(self, step: str, share: float) -> None:
        """Say how far it is; from the thread that works, and shown when the page next looks."""
        self.step, self.share = step, share

    def _refuse(self, error: CollectorError) -> None:
        self._refusal.clear()
        with self._refusal:
            ui.label(error.message).classes("text-negative")
            hint = error.hint.replace("pass --allow-gaps", "switch “though trades are missing” on")
            ui.label(hint.replace("--interval", "interval")).classes("muted text-sm")

    def _compare(self) -> None:
        chosen = [self._results[row["id"]] for row in self._table.selected if row["id"] in self._results]
        self._compared.clear()
        if len(chosen) < 2:
            return
        columns: list[dict[str, Any]] = [{"name": "what", "label": "", "field": "what", "align": "left"}]
        columns += [
            {"name": f"n{number}", "label": one.backtest_id, "field": f"n{number}", "align": "right"}
            for number, one in enumerate(chosen)
        ]
        facts = {
            "parameters": [_parameters(one) for one in chosen],
            "data": [f"{one.symbol} {one.interval}, {one.data_hash[:12]}" for one in chosen],
            **{
                spoken(name): [_number(one.statistics.get(name)) for one in chosen] for name in chosen[0].statistics
            },
        }  # fmt: skip
        rows = [
            {"what": name, **{f"n{number}": value for number, value in enumerate(values)}}
            for name, values in facts.items()
        ]
        with self._compared:
            if len({one.data_hash for one in chosen}) > 1:
                ui.label("They were run on different data.").classes("text-warning")
            ui.echart(returns_chart(chosen)).classes("w-full").style("height: 300px")
            ui.table(rows=rows, columns=columns, row_key="what").props("flat dense hide-pagination").classes("w-full")


def _draw_result(result: BacktestResult) -> None:
    statistics = result.statistics
    with frame(result.backtest_id, here="/backtests"):
        with ui.row().classes("w-full items-center gap-3"):
            ui.label(result.backtest_id).classes("text-xl text-weight-bold").props("role=heading aria-level=1")
            ui.label(f"{result.symbol} {result.interval} · {_parameters(result)}").classes("muted")
            ui.space()
            report = ui.button("Report with plot", icon="open_in_new").props("no-caps outline target=_blank")
            report.props(f'href="/api/data-collection/backtests/{result.backtest_id}/report"')
        if result.holes:
            with ui.column().classes("panel w-full gap-1").style("border-color: #c77d0a"):
                ui.label("Trades are missing in what this was run on.").classes("text-warning text-weight-bold")
                for hole in result.holes[:20]:
                    rows = "?" if hole.rows is None else count_text(hole.rows)
                    span = f"{time_text(hole.from_us)} to {time_text(hole.to_us)}"
                    ui.label(f"{hole.gap_id}: {hole.cause}, {hole.state}, {span}, {rows} trades").classes("text-sm")
        with ui.row().classes("w-full gap-3"):
            gained = statistics.get("return_pct")
            colour = "" if gained is None else "#1f9d61" if gained >= 0 else "#cf3b3b"
            Tile("Return").show(
                f"{_number(gained)} %", _against(statistics.get("buy_and_hold_return_pct")), colour=colour
            )
            Tile("Equity").show(_number(statistics.get("equity_final")), f"of {_number(result.cash)}")
            Tile("Largest drawdown").show(f"{_number(statistics.get('max_drawdown_pct'))} %")
            Tile("Sharpe").show(_number(statistics.get("sharpe_ratio")))
            Tile("Trades").show(str(len(result.trades)), f"{_number(statistics.get('win_rate_pct'))} % won")
        with panel("Equity", note=f"{time_text(result.from_us)} to {time_text(result.to_us)}"):
            ui.echart(equity_chart(result)).classes("w-full").style("height: 380px")
        with ui.element().classes("pair"):
            with panel("Trades"):
                table = ui.table(
                    rows=[_trade_row(number, trade) for number, trade in enumerate(result.trades)],
                    columns=_TRADE_COLUMNS, row_key="id", pagination=_TRADES_SHOWN,
                ).props("flat dense").classes("w-full")  # fmt: skip
                with table.add_slot("no-data"):
                    nothing("The strategy did not trade.", icon="hourglass_empty")
            with panel("All that is known"):
                facts = {
                    "session": result.session_id or "history",
                    "candles": f"{count_text(result.candles)} from {result.source}, {result.left_out} left out",
                    "commission": f"{100 * result.commission:g} %",
                    "data": result.data_hash,
                    "code": result.code_hash,
                    **{spoken(name): _number(value) for name, value in statistics.items()},
                }
                with ui.element().style("display: grid; grid-template-columns: auto 1fr; gap: 2px 16px"):
                    for name, value in facts.items():
                        ui.label(name).classes("muted")
                        ui.label(value).style("word-break: break-all")


def spoken(name: str) -> str:
    """Return a statistic's name as a person reads it."""
    return name.replace("_pct", " %").replace("_", " ")


def _against(value: float | None) -> str:
    return "" if value is None else f"buying and holding: {_number(value)} %"


def _number(value: float | None) -> str:
    if value is None:
        return "-"
    # A minute's gain, taken as a year's, has digits that nobody reads.
    return f"{value:.3g}" if abs(value) >= _LARGE else f"{value:,.4f}".rstrip("0").rstrip(".")


def _parameters(result: BacktestResult) -> str:
    return ", ".join(f"{key} = {value}" for key, value in result.parameters.items()) or "no parameters"


def _row(result: BacktestResult) -> dict[str, Any]:
    statistics = result.statistics
    return {
        "id": result.backtest_id,
        "session": result.session_id or "history",
        "symbol": f"{result.symbol} {result.interval}",
        "parameters": _parameters(result),
        "return": statistics.get("return_pct"),
        "sharpe": statistics.get("sharpe_ratio"),
        "drawdown": statistics.get("max_drawdown_pct"),
        "trades": len(result.trades),
        "run": time_text(result.created_us).removesuffix("Z"),
    }


def _trade_row(number: int, trade: dict[str, Any]) -> dict[str, Any]:
    return {
        "id": number,
        "entry": time_text(trade["entry_us"]).removesuffix("Z"),
        "exit": time_text(trade["exit_us"]).removesuffix("Z"),
        "size": f"{trade['size']:.6g}",
        "entry_price": _number(trade["entry_price"]),
        "exit_price": _number(trade["exit_price"]),
        "profit": _number(trade["profit"]),
        "return": _number(trade["return_pct"]),
    }
