"""The log of events, newest first."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import msgspec
from nicegui import ui

from collector.api.context import Context
from collector.api.dashboard.shell import frame, nothing, panel

_EVERY_S = 2.0
_TAIL_BYTES = 400_000
_COLOURS = {"error": "negative", "critical": "negative", "warning": "warning", "info": "info", "debug": "grey"}
_COLUMNS: list[dict[str, Any]] = [
    {"name": "time", "label": "Time (UTC)", "field": "time", "align": "left"},
    {"name": "level", "label": "Level", "field": "level", "align": "left"},
    {"name": "event", "label": "Event", "field": "event", "align": "left"},
    {"name": "detail", "label": "Detail", "field": "detail", "align": "left",
     "style": "white-space: normal; word-break: break-word"},
]  # fmt: skip
_LEVEL_CELL = '<q-td :props="props"><q-badge :color="props.row.colour">{{ props.value }}</q-badge></q-td>'


def register(context: Context) -> None:
    """Make the page."""

    @ui.page("/events", response_timeout=20)
    async def page() -> None:
        shown = {"level": "all"}
        path = context.config.daemon.log_dir.resolve() / "collector.log"
        with frame("Events", here="/events"), panel("Events", note=str(path)):
            with ui.row().classes("w-full items-center gap-3"):
                search = ui.input(placeholder="Search").props('dense outlined clearable aria-label="Search"')
                search.style("min-width: 240px; flex: 1")
                ui.select(["all", "warning", "error"], label="Level").props("dense outlined").style(
                    "min-width: 130px"
                ).bind_value(shown, "level")
            table = ui.table(rows=[], columns=_COLUMNS, row_key="key", pagination={"rowsPerPage": 50})
            table.props("flat dense wrap-cells").classes("w-full")
            table.add_slot("body-cell-level", _LEVEL_CELL)
            search.bind_value_to(table, "filter")
            with table.add_slot("no-data"):
                nothing("No event to show.")

        async def refresh() -> None:
            rows = await asyncio.to_thread(read_events, path, shown["level"])
            if rows != table.rows:
                table.rows = rows
                table.update()

        await refresh()
        ui.timer(_EVERY_S, refresh, immediate=False)


def read_events(path: Path, level: str = "all") -> list[dict[str, Any]]:
    """Return the end of the log as rows, newest first; lines that are none of ours are shown as they are."""
    try:
        with path.open("rb") as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - _TAIL_BYTES))
            lines = file.read().decode("utf-8", "replace").splitlines()
    except OSError:
        return []
    found = []
    for number, line in enumerate(lines[1:] if size > _TAIL_BYTES else lines):
        try:
            fields = msgspec.json.decode(line, type=dict[str, Any])
        except msgspec.MsgspecError:
            fields = {"event": line, "level": "info"}
        shown = str(fields.pop("level", "info"))
        if level != "all" and _COLOURS.get(shown) not in ("negative", *(["warning"] if level == "warning" else [])):
            continue
        at = str(fields.pop("timestamp", "")).replace("T", " ").removesuffix("Z")
        event = str(fields.pop("event", ""))
        detail = ", ".join(f"{name}={value}" for name, value in fields.items())
        found.append(
            {
                "key": number,
                "time": at,
                "level": shown,
                "colour": _COLOURS.get(shown, "grey"),
                "event": event,
                "detail": detail,
            }
        )
    return found[::-1]
