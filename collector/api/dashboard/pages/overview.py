"""The first page: the daemon, its database, and every session, with starting and stopping."""

from __future__ import annotations

import asyncio
from typing import Any

from nicegui import ui

from collector.api.context import Context
from collector.api.dashboard.shell import STATE_COLOURS, Tile, frame, nothing, panel, questdb_sentence, trouble
from collector.api.models import SessionSummary, StartOrder
from collector.api.routes.sessions import start, stop, summary_of
from collector.errors import CollectorError
from collector.exchanges.registry import EXCHANGES
from collector.status import DaemonStatus, SessionStatus
from collector.streams import DATA_TYPES
from collector.wording import bytes_text, count_text, duration_text, rate_text, time_text

_EVERY_S = 2.0
_SYMBOLS_SHOWN = 3

_COLUMNS: list[dict[str, Any]] = [
    {"name": "state", "label": "State", "field": "state", "align": "left", "sortable": True},
    {"name": "session", "label": "Session", "field": "id", "align": "left", "sortable": True},
    {"name": "symbols", "label": "Symbols", "field": "symbols", "align": "left"},
    {"name": "started", "label": "Started (UTC)", "field": "started", "align": "left", "sortable": True},
    {"name": "lasted", "label": "For", "field": "lasted", "align": "right"},
    {"name": "prices", "label": "Trades", "field": "prices", "align": "right", "sortable": True},
    {"name": "orderbook", "label": "Books", "field": "orderbook", "align": "right", "sortable": True},
    {"name": "rate", "label": "Rows/s", "field": "rate", "align": "right", "sortable": True},
    {"name": "lag", "label": "Lag", "field": "lag", "align": "right", "sortable": True},
    {"name": "gaps", "label": "Gaps open / all", "field": "gaps", "align": "right", "sortable": True},
    {"name": "act", "label": "", "field": "id", "align": "right"},
]
_STATE_CELL = """
<q-td :props="props"><q-badge :color="props.row.colour" class="q-px-sm q-py-xs">{{ props.row.state }}</q-badge>
<q-tooltip v-if="props.row.reason">{{ props.row.reason }}</q-tooltip></q-td>
"""
_SESSION_CELL = """
<q-td :props="props">
<a :href="'/session/' + props.row.id" class="text-primary text-weight-medium">{{ props.row.id }}</a>
<div class="muted text-xs">{{ props.row.exchange }}<span v-if="props.row.label"> · {{ props.row.label }}</span></div>
</q-td>
"""
_NUMBER_CELL = '<q-td :props="props">{{ props.value.toLocaleString("en-US") }}</q-td>'
_GAPS_CELL = """
<q-td :props="props">
<span :class="props.row.gaps_open ? 'text-warning text-weight-bold' : ''">{{ props.row.gaps_open }}</span>
 / {{ props.row.gaps }}</q-td>
"""
_ACT_CELL = """
<q-td :props="props"><q-btn v-if="props.row.live" flat dense no-caps color="negative" icon="stop" label="Stop"
 :aria-label="'Stop ' + props.row.id" @click="() => $parent.$emit('stop', props.row.id)" /></q-td>
"""


def register(context: Context) -> None:
    """Make the page."""

    @ui.page("/", response_timeout=20)
    async def page() -> None:
        await _Overview(context).draw()


class _Overview:
    """One visitor's page."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._chosen_state = "all"

    async def draw(self) -> None:
        with frame("Sessions", here="/"):
            with ui.row().classes("w-full gap-3"):
                self._daemon, self._questdb = Tile("Daemon"), Tile("QuestDB")
                self._running, self._rate, self._disk = Tile("Running sessions"), Tile("Rows per second"), Tile("Disk")
            with panel("Sessions"):
                with ui.row().classes("w-full items-center gap-3"):
                    self._search = (
                        ui.input(placeholder="Search id, exchange, symbol, label")
                        .props('dense outlined clearable aria-label="Search"')
                        .style("min-width: 260px; flex: 1")
                    )
                    ui.select(
                        ["all", "active", "degraded", "completed", "failed", "interrupted"], value="all", label="State"
                    ).props("dense outlined").style("min-width: 130px").bind_value(self, "_chosen_state")
                    ui.button("Start a session", icon="play_arrow", on_click=self._open_start).props(
                        "no-caps unelevated"
                    )
                self._table = (
                    ui.table(
                        rows=[],
                        columns=_COLUMNS,
                        row_key="id",
                        pagination={"rowsPerPage": 25, "sortBy": "started", "descending": True},
                    )
                    .props("flat dense")
                    .classes("w-full")
                )
                for name, cell in (
                    ("state", _STATE_CELL), ("session", _SESSION_CELL), ("prices", _NUMBER_CELL),
                    ("orderbook", _NUMBER_CELL), ("lag", _NUMBER_CELL), ("gaps", _GAPS_CELL), ("act", _ACT_CELL),
                ):  # fmt: skip
                    self._table.add_slot(f"body-cell-{name}", cell)
                self._table.on("stop", self._ask_to_stop)
                self._search.bind_value_to(self._table, "filter")
                with self._table.add_slot("no-data"):
                    nothing("There is no session to show.", hint="Start one, or choose another state.")
        await self._refresh()
        ui.timer(_EVERY_S, self._refresh, immediate=False)

    async def _refresh(self) -> None:
        status = await self._context.status()
        self._show_daemon(status)
        running = {one.session_id: one for one in status.sessions if one.is_live} if status else {}
        rows = await asyncio.to_thread(self._rows, running)
        if rows != self._table.rows:
            self._table.rows = rows
            self._table.update()

    def _rows(self, running: dict[str, SessionStatus]) -> list[dict[str, Any]]:
        found = []
        for stored in self._context.index.list():
            status = running.get(stored.session_id)
            summary = summary_of(stored, status)
            if self._chosen_state in ("all", summary.state):
                found.append(_row(summary, status))
        return found

    def _show_daemon(self, status: DaemonStatus | None) -> None:
        if status is None:
            self._daemon.show("not running", "start it with `collector up`", colour="#c77d0a")
        else:
            memory = bytes_text(status.memory_bytes)
            self._daemon.show(duration_text(status.uptime_s), f"{memory}, loop {status.loop_lag_s * 1000:.1f} ms late")
        state, sentence = questdb_sentence(status)
        colour = {"LIVE": "#1f9d61", "OFF": "", "-": ""}.get(state, "#c77d0a")
        self._questdb.show(state, sentence, colour=colour)
        self._questdb.lead("Open its console", status.questdb.console_url if status and state != "DOWN" else "")
        sessions = [one for one in status.sessions if one.is_live] if status else []
        degraded = sum(one.state == "degraded" for one in sessions)
        self._running.show(str(len(sessions)), f"{degraded} degraded" if degraded else "")
        rate = sum(_rate_of(one) for one in sessions)
        self._rate.show(rate_text(rate), f"{count_text(sum(sum(one.rows.values()) for one in sessions))} rows")
        self._disk.show(bytes_text(status.disk_free_bytes) if status else "-", "free")

    async def _ask_to_stop(self, event: Any) -> None:
        session_id = str(event.args)
        with ui.dialog() as dialog, ui.card():
            ui.label(f"Stop {session_id}?").classes("text-weight-bold")
            ui.label("What it has is flushed, delivered and closed; it cannot be continued afterwards.").classes(
                "muted"
            )
            with ui.row().classes("w-full justify-end"):
                ui.button("Keep it", on_click=lambda: dialog.submit(False)).props("flat no-caps")
                ui.button("Stop it", on_click=lambda: dialog.submit(True)).props("no-caps unelevated color=negative")
        if await dialog:
            ui.notify(f"Stopping {session_id} …")
            try:
                await stop(self._context, session_id)
            except CollectorError as error:
                trouble(error.message, error.hint)
            else:
                ui.notify(f"{session_id} has stopped.", type="positive")
            await self._refresh()

    def _open_start(self) -> None:
        with ui.dialog() as dialog, ui.card().style("min-width: min(480px, 90vw)"):
            ui.label("Start a session").classes("text-lg text-weight-bold")
            exchange = ui.select(list(EXCHANGES), value=EXCHANGES[0], label="Exchange", with_input=True).classes(
                "w-full"
            )
            symbols = ui.input("Symbols", placeholder="BTC_USDT, ETH_USDT", value="BTC_USDT").classes("w-full")
            types = (
                ui.select(list(DATA_TYPES), value=["prices", "orderbook"], label="Data types", multiple=True)
                .classes("w-full")
                .props("use-chips")
            )
            hours = ui.number("Stop after (hours)", placeholder="until it is stopped", min=0).classes("w-full")
            label = ui.input("Label").classes("w-full")
            with ui.row().classes("w-full justify-end items-center"):
                busy = ui.spinner()
                busy.visible = False
                ui.button("Cancel", on_click=dialog.close).props("flat no-caps")

                async def begin() -> None:
                    asked = [part.strip().upper() for part in (symbols.value or "").split(",") if part.strip()]
                    busy.visible = True
                    try:
                        order = StartOrder(
                            exchange=exchange.value,
                            symbols=asked,
                            data_types=types.value,
                            duration_s=hours.value * 3600 if hours.value else None,
                            label=label.value or "",
                            session_id="",
                        )
                        begun = await start(self._context, order)
                    except CollectorError as error:
                        trouble(error.message, error.hint)
                    except ValueError:
                        trouble("A session needs at least one symbol.", "Write them as BTC_USDT, ETH_USDT.")
                    else:
                        dialog.close()
                        ui.notify(f"{begun.session_id} has started.", type="positive")
                        await self._refresh()
                    finally:
                        busy.visible = False

                ui.button("Start", on_click=begin).props("no-caps unelevated")
        dialog.open()


def _rate_of(status: SessionStatus) -> float:
    return sum(row.prices_per_s + row.orderbook_per_s for row in status.per_symbol)


def _row(summary: SessionSummary, status: SessionStatus | None) -> dict[str, Any]:
    symbols = ", ".join(summary.symbols[:3]) + (
        f" and {len(summary.symbols) - 3} more" if len(summary.symbols) > 3 else ""
    )
    ended_us = summary.ended_us or summary.heartbeat_us
    lasted_s = (ended_us - summary.started_us) / 1e6 if summary.started_us and ended_us else None
    return {
        "id": summary.session_id,
        "exchange": summary.exchange,
        "label": summary.label,
        "state": summary.state,
        "colour": STATE_COLOURS.get(summary.state, "grey"),
        "reason": summary.reason,
        "symbols": symbols,
        "started": time_text(summary.started_us or summary.created_us).removesuffix("Z"),
        "lasted": duration_text(lasted_s),
        "prices": summary.rows.get("prices", 0),
        "orderbook": summary.rows.get("orderbook", 0),
        "rate": round(_rate_of(status), 1) if status else 0,
        "lag": status.lag_rows if status else 0,
        "gaps": summary.gaps,
        "gaps_open": summary.gaps_open,
        "live": summary.live,
    }
