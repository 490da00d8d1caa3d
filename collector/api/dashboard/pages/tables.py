"""Every table of QuestDB: filtered, sorted, a page at a time, and taken away as CSV."""

from __future__ import annotations

import asyncio
import csv
import io
from collections.abc import Sequence
from datetime import datetime
from typing import Any

from nicegui import ui

from collector.api.context import Context
from collector.api.dashboard.shell import frame, nothing, panel, trouble
from collector.errors import CollectorError
from collector.reading.session_reader import Database
from collector.reading.tables import EXPORT_MAX, OPERATORS, Condition, Page, TableBrowser
from collector.storage.sql import Column
from collector.wording import count_text

_ROWS_CHOICE = [25, 50, 100, 250]
_NUMBERS = ("DOUBLE", "FLOAT", "LONG", "INT", "SHORT", "BYTE")
_WITHOUT_VALUE = ("empty", "not empty")
_CELL = """
<q-td :props="props"><span v-if="props.value === null" class="muted" aria-label="empty">∅</span>
<span v-else class="cell" :title="props.value">{{ props.value }}</span></q-td>
"""


def register(context: Context) -> None:
    """Make the page."""

    @ui.page("/tables", response_timeout=20)
    async def page(table: str = "") -> None:
        await _Tables(context, table).draw()


class _Tables:
    """One visitor's page."""

    def __init__(self, context: Context, table: str) -> None:
        self._database = Database(context.config)
        self._asked = table
        self._columns: list[Column] = []
        self._conditions: list[_Line] = []

    async def draw(self) -> None:
        with frame("Tables", here="/tables"), panel("Tables", note="reading only"):
            with ui.row().classes("w-full items-center gap-3"):
                self._choice = ui.select([], label="Table", with_input=True, on_change=self._choose)
                self._choice.props("dense outlined").style("min-width: 240px; flex: 1")
                self._add = ui.button("Add a filter", icon="filter_alt", on_click=self._add_condition)
                self._add.props("no-caps flat")
                self._export = ui.button("Export CSV", icon="download", on_click=self._download)
                self._export.props("no-caps outline")
                self._reload = ui.button("Reload", icon="refresh", on_click=self._load).props("no-caps flat")
            self._filters = ui.column().classes("w-full gap-1")
            self._count = ui.label("").classes("muted text-sm").props('role="status"')
            self._busy = ui.linear_progress(show_value=False).props("indeterminate").style("height: 3px")
            self._table = (
                ui.table(rows=[], columns=[], row_key="key", pagination={"rowsPerPage": _ROWS_CHOICE[0]})
                .props(f":rows-per-page-options='{_ROWS_CHOICE}' flat dense binary-state-sort")
                .classes("w-full")
            )
            self._table.add_slot("body-cell", _CELL)
            self._table.on("request", self._turn)
            with self._table.add_slot("no-data"):
                nothing("No row fits.", hint="The table is empty, or a filter leaves nothing.")
            self._trouble = ui.column().classes("w-full")
        await self._load_names()

    async def _load_names(self) -> None:
        try:
            names = await asyncio.to_thread(self._ask, TableBrowser.tables)
        except CollectorError as error:
            self._refuse(error)
            return
        first = next((name for name in (self._asked, "tick_prices") if name in names), names[0] if names else None)
        if self._asked and self._asked not in names:
            trouble(f"There is no table {self._asked!r}.")
        self._choice.set_options(names, value=first)  # which calls _choose
        if first is None:
            self._busy.set_visibility(False)

    async def _choose(self) -> None:
        if not self._choice.value:
            return
        try:
            self._columns = await asyncio.to_thread(self._ask, lambda one: one.columns_of(self._choice.value))
        except CollectorError as error:
            self._refuse(error)
            return
        self._conditions = []
        self._filters.clear()
        times = [column.name for column in self._columns if column.type.upper().startswith("TIMESTAMP")]
        self._table.columns = [_column(column, str(number)) for number, column in enumerate(self._columns)]
        self._table.pagination = {
            **self._table.pagination, "page": 1, "sortBy": times[0] if times else None, "descending": True,
            "rowsNumber": 0,
        }  # fmt: skip
        await self._load()

    async def _turn(self, event: Any) -> None:
        self._table.pagination = {**self._table.pagination, **event.args["pagination"]}
        await self._load(keep_page=True)

    async def _load(self, *_: Any, keep_page: bool = False) -> None:
        if not self._choice.value:
            await self._load_names()
            return
        shown = self._table.pagination
        page_number = int(shown.get("page") or 1) if keep_page else 1
        per_page = int(shown.get("rowsPerPage") or _ROWS_CHOICE[0])
        self._busy.set_visibility(True)
        try:
            page = await asyncio.to_thread(
                self._ask,
                lambda one: one.page(
                    self._choice.value,
                    self._chosen(),
                    limit=per_page,
                    offset=(page_number - 1) * per_page,
                    **self._order(),
                ),
            )
        except CollectorError as error:
            self._refuse(error)
            return
        self._trouble.clear()
        self._table.set_visibility(True)
        self._busy.set_visibility(False)
        self._table.rows = [
            {"key": number, **{str(i): text_of(value) for i, value in enumerate(row)}}
            for number, row in enumerate(page.rows)
        ]
        self._table.pagination = {**shown, "page": page_number, "rowsNumber": page.total}
        self._table.update()
        self._count.set_text(
            f"{count_text(page.total)} rows fit" if self._conditions else f"{count_text(page.total)} rows"
        )

    async def _download(self) -> None:
        if not self._choice.value:
            return
        self._busy.set_visibility(True)
        try:
            page = await asyncio.to_thread(
                self._ask, lambda one: one.every(self._choice.value, self._chosen(), **self._order())
            )
            content = await asyncio.to_thread(csv_of, page)
        except CollectorError as error:
            self._refuse(error)
            return
        self._busy.set_visibility(False)
        ui.download.content(content, f"{self._choice.value}.csv", "text/csv")
        if page.total > len(page.rows):
            ui.notify(
                f"The first {count_text(EXPORT_MAX)} of {count_text(page.total)} rows; "
                "`collector export` and `collector query` have no such limit.",
                type="warning", timeout=12_000,
            )  # fmt: skip

    def _ask(self, question: Any) -> Any:
        """Ask over a connection of its own; blocking."""
        with TableBrowser(self._database.settings(read_only=True)) as browser:
            return question(browser)

    def _order(self) -> dict[str, Any]:
        shown = self._table.pagination
        number = shown.get("sortBy")
        return {"sort": self._name_of(number), "descending": bool(shown.get("descending"))}

    def _name_of(self, sort_by: str | None) -> str:
        return sort_by if sort_by in {column.name for column in self._columns} else ""

    def _chosen(self) -> list[Condition]:
        return [line.condition() for line in self._conditions if line.is_complete]

    def _refuse(self, error: CollectorError) -> None:
        """Show what is wrong in place of rows; a filter that does not fit leaves the rows as they are."""
        self._busy.set_visibility(False)
        if self._table.rows and self._choice.value and self._conditions:
            trouble(error.message, error.hint)
            return
        self._table.set_visibility(False)
        self._count.set_text("")
        self._trouble.clear()
        with self._trouble:
            nothing(
                error.message, hint=error.hint or "What was collected is in the CSV all the same.", icon="cloud_off"
            )

    def _add_condition(self) -> None:
        if self._columns:
            with self._filters:
                self._conditions.append(_Line([column.name for column in self._columns], self._load, self._remove))

    async def _remove(self, line: _Line) -> None:
        self._conditions.remove(line)
        await self._load()


class _Line:
    """One filter: a column, an operator and a value, which counts once it is complete."""

    def __init__(self, columns: Sequence[str], changed: Any, removed: Any) -> None:
        with ui.row().classes("w-full items-center gap-2") as self._row:
            self._column = ui.select(list(columns), value=columns[0], label="Column", with_input=True)
            self._operator = ui.select(list(OPERATORS), value="=", label="Is")
            self._value = ui.input("Value").props("dense outlined").style("min-width: 140px; flex: 1")
            for one in (self._column, self._operator):
                one.props("dense outlined").style("min-width: 120px")
                one.on_value_change(changed)
            self._value.on("keydown.enter", changed).on("blur", changed)
            self._value.bind_visibility_from(
                self._operator, "value", backward=lambda operator: operator not in _WITHOUT_VALUE
            )

            async def remove() -> None:
                self._row.delete()
                await removed(self)

            ui.button(icon="close", on_click=remove).props('flat dense round aria-label="Remove the filter"')

    @property
    def is_complete(self) -> bool:
        return bool(self._column.value) and (self._operator.value in _WITHOUT_VALUE or bool(self._value.value))

    def condition(self) -> Condition:
        return Condition(self._column.value, self._operator.value, self._value.value or "")


def text_of(value: Any) -> str | None:
    """Return a value as a cell shows it: times in full, as UTC; None stays None."""
    if value is None:
        return None
    if isinstance(value, datetime):
        return f"{value:%Y-%m-%d %H:%M:%S.%f}"
    return str(value)


def csv_of(page: Page) -> bytes:
    """Return a page as CSV, with the names of the columns; empty cells are what is NULL."""
    sink = io.StringIO()
    writer = csv.writer(sink, lineterminator="\n")
    writer.writerow([column.name for column in page.columns])
    writer.writerows([[text_of(value) for value in row] for row in page.rows])
    return sink.getvalue().encode()


def _column(column: Column, field: str) -> dict[str, Any]:
    is_number = column.type.upper() in _NUMBERS
    return {
        "name": column.name, "label": column.name, "field": field, "sortable": "[" not in column.type,
        "align": "right" if is_number else "left",
    }  # fmt: skip
