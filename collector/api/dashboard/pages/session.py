"""One session, live: candles, book, trades, gaps, coverage, latency, connections."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

import msgspec
from nicegui import ui

from collector.api.context import Context, ledger_of
from collector.api.dashboard.charts import (
    candle_chart,
    coverage_chart,
    even_digits,
    gap_chart,
    latency_chart,
    newest_candles,
    quantiles_ms,
)
from collector.api.dashboard.shell import Tile, chip, frame, nothing, panel, trouble
from collector.api.routes.sessions import quality_of, stop, summary_of
from collector.errors import CollectorError, SessionNotFound
from collector.reading.coverage import hours_of
from collector.reading.sessions import StoredSession
from collector.reading.tail import Fields, last_rows
from collector.session.gaps import Entry
from collector.status import SessionStatus
from collector.streams import BOOK_LEVELS, OHLCV, ORDERBOOK, PRICES, STREAMS
from collector.wording import age_text, bytes_text, count_text, duration_text, rate_text, time_text

_EVERY_S = 1.0
_SLOWLY = 5  # ledger and coverage are looked at in every fifth turn
_INTERVALS = ["1m", "5m", "15m", "1h", "4h", "1d"]
_TRADES_SHOWN = 18
_TRADES_MEASURED = 500
_CANDLE_ROWS = 3_000
_SYMBOLS_SHOWN = 30
_OTHERS_SHOWN = 10
_OTHERS = {
    "funding": ("funding_rate", "next_funding", "mark_price", "index_price"),
    "open_interest": ("amount", "value"),
    "liquidations": ("side", "price", "volume"),
    "tickers": ("bid", "bid_qty", "ask", "ask_qty"),
    "klines": ("interval", "open", "high", "low", "close", "volume"),
}


class _Seen(msgspec.Struct):
    """What one look at the files found."""

    candles: list[Fields]
    trades: list[Fields]
    book: Fields | None
    others: dict[str, list[Fields]] = {}


def register(context: Context) -> None:
    """Make the page."""

    @ui.page("/session/{session_id}", response_timeout=20)
    async def page(session_id: str) -> None:
        try:
            stored = await asyncio.to_thread(context.index.find, session_id)
        except SessionNotFound as error:
            with frame("No such session"), panel("No such session"):
                nothing(error.message, hint=error.hint, icon="search_off")
                ui.link("All sessions", "/")
            return
        await _Session(context, stored).draw()


class _Session:
    """One visitor's page."""

    def __init__(self, context: Context, stored: StoredSession) -> None:
        self._context = context
        self._stored = stored
        self._turn = 0
        self._is_measured = False
        self._symbol = stored.manifest.symbols[0] if stored.manifest.symbols else ""
        self._interval = "1m"

    async def draw(self) -> None:
        manifest = self._stored.manifest
        with frame(manifest.session_id):
            with ui.row().classes("w-full items-center gap-3"):
                ui.label(manifest.session_id).classes("text-xl text-weight-bold").props("role=heading aria-level=1")
                self._state = ui.row()
                about = " · ".join(part for part in (manifest.exchange, manifest.label) if part)
                ui.label(about).classes("muted")
                ui.space()
                self._stop = ui.button("Stop", icon="stop", on_click=self._end).props("no-caps outline color=negative")
            self._reason = ui.label("").classes("text-negative")
            with ui.row().classes("w-full gap-3"):
                self._rows, self._rate, self._lag = Tile("Rows"), Tile("Rows per second"), Tile("QuestDB")
                self._gaps, self._latency, self._flush = Tile("Gaps"), Tile("Latency"), Tile("Flush")
                self._offset = Tile("Clock offset")
            with ui.row().classes("w-full gap-3 items-center"):
                ui.select(manifest.symbols, label="Symbol", with_input=True).props("dense outlined").style(
                    "min-width: 180px"
                ).bind_value(self, "_symbol").on_value_change(self._look)
                toggle = ui.toggle(_INTERVALS).props("dense no-caps unelevated toggle-color=primary")
                toggle.bind_value(self, "_interval").on_value_change(self._look)
                self._shown = ui.label("").classes("muted text-sm")
            with ui.element().classes("board"):
                with panel("Candles", note="grey: not whole"):
                    self._candles = ui.echart(candle_chart([])).classes("w-full").style("height: 380px")
                    self._candles.set_visibility(False)
                    with ui.column().classes("w-full justify-center").style("height: 380px") as self._no_candles:
                        nothing(
                            "No candle of this interval yet.",
                            hint="One is written when its time is over. Choose a shorter interval, or wait.",
                            icon="candlestick_chart",
                        )
                with panel("Order book"):
                    self._book = ui.column().classes("w-full gap-0")
                with panel("Last trades"):
                    self._trades = (
                        ui.table(rows=[], columns=_TRADE_COLUMNS, row_key="id")
                        .props("flat dense hide-pagination :rows-per-page-options='[0]'")
                        .classes("w-full tight")
                    )
                    self._trades.add_slot("body-cell-price", _PRICE_CELL)
            self._others = self._draw_others()
            with ui.element().classes("pair"):
                with panel("Gaps", note="each known hole, by its state"):
                    self._gap_chart = ui.echart({}).classes("w-full").style("height: 220px")
                    self._gap_table = (
                        ui.table(rows=[], columns=_GAP_COLUMNS, row_key="id", pagination=8)
                        .props("flat dense")
                        .classes("w-full")
                    )
                    with self._gap_table.add_slot("no-data"):
                        nothing("The ledger has no gap.", hint="Nothing is known to be missing.", icon="task_alt")
                with panel("Coverage", note="share of each hour that is in no gap"):
                    self._coverage = ui.echart({}).classes("w-full").style("height: 260px")
                with panel(
                    "Latency", note="receipt minus the exchange's stamp, ms; less than 0 where our clock is behind"
                ):
                    self._latency_chart = ui.echart(latency_chart([])).classes("w-full").style("height: 220px")
                with panel("Connections"):
                    self._links = (
                        ui.table(rows=[], columns=_LINK_COLUMNS, row_key="number")
                        .props("flat dense hide-pagination wrap-cells")
                        .classes("w-full")
                    )
                    with self._links.add_slot("no-data"):
                        nothing("No connection is open.", hint="The session is not running.", icon="link_off")
        await self._refresh()
        ui.timer(_EVERY_S, self._refresh, immediate=False)

    def _draw_others(self) -> dict[str, ui.table]:
        """Draw a table of the newest rows of each other data type that the session collects."""
        found: dict[str, ui.table] = {}
        kinds = [STREAMS[name] for name in self._stored.manifest.data_types if name in _OTHERS]
        if kinds:
            with ui.element().classes("pair"):
                for stream in kinds:
                    with panel(stream.name.replace("_", " ").capitalize(), note="newest first"):
                        columns = [_other_column(name) for name in ("timestamp", *_OTHERS[stream.name])]
                        table = ui.table(rows=[], columns=columns, row_key="id")
                        table.props("flat dense hide-pagination :rows-per-page-options='[0]'").classes("w-full tight")
                        with table.add_slot("no-data"):
                            nothing("Nothing came yet.", hint="What happens rarely comes rarely.")
                        found[stream.name] = table
        return found

    async def _refresh(self) -> None:
        running = (await self._context.running()).get(self._stored.session_id)
        try:
            self._stored = await asyncio.to_thread(self._context.index.find, self._stored.session_id)
        except SessionNotFound:
            self._reason.set_text("The session's folder is gone.")
            return
        self._show_facts(running)
        if running is not None or self._turn == 0:
            await self._look()
        if self._turn % _SLOWLY == 0 and (running is not None or self._turn == 0):
            await self._look_at_ledger(running)
        self._turn += 1

    def _show_facts(self, running: SessionStatus | None) -> None:
        summary = summary_of(self._stored, running)
        self._state.clear()
        with self._state:
            chip(summary.state)
        self._stop.set_visibility(running is not None)
        self._reason.set_text(summary.reason if summary.state in ("degraded", "failed", "interrupted") else "")
        rows = summary.rows
        self._rows.show(
            count_text(sum(rows.values())), ", ".join(f"{count_text(n)} {name}" for name, n in rows.items() if n)
        )
        warn = "#c77d0a"
        self._gaps.show(
            f"{summary.gaps_open} open", f"{summary.gaps} in the ledger", colour=warn if summary.gaps_open else ""
        )
        if running is None:
            ended = time_text(summary.ended_us or summary.heartbeat_us)
            for tile in (self._rate, self._lag, self._flush):
                tile.show("-", "not running")
            self._shown.set_text(f"from {time_text(summary.started_us)} to {ended}")
            return
        rate = sum(row.prices_per_s + row.orderbook_per_s for row in running.per_symbol)
        buffered = running.buffer
        self._rate.show(rate_text(rate), f"{buffered.pending} wait in memory, {buffered.dropped} dropped")
        if self._context.config.questdb.mode == "off":
            self._lag.show("off", "rows are in CSV only, as configured")
        else:
            self._lag.show(
                "level" if not running.lag_rows else f"{count_text(running.lag_rows)} behind",
                f"{count_text(running.delivered_rows)} delivered, {running.rejected_rows} rejected",
            )
        if running.flush_s is not None:
            longest = duration_text(running.flush_max_s)
            self._flush.show(
                f"{running.flush_s * 1000:.1f} ms", f"longest {longest}, {count_text(running.flushes)} flushes"
            )
        self._shown.set_text(f"since {time_text(summary.started_us)}")
        latency = running.latency
        self._is_measured = latency is not None
        if latency is not None:
            p95, p99 = latency.p95_us / 1000, latency.p99_us / 1000
            samples = count_text(latency.samples)
            self._latency.show(
                f"{latency.p50_us / 1000:.1f} ms", f"95 % under {p95:.1f}, 99 % under {p99:.1f}, of {samples}"
            )
            # The fastest message took at least no time at all: what is left of it is the clocks'.
            self._offset.show(f"{latency.minimum_us / 1000:.1f} ms", "at most ours ahead, by the fastest message")
        self._links.rows = [
            {
                "number": link.number, "state": link.state, "messages": count_text(link.messages),
                "bytes": bytes_text(link.bytes), "reconnects": link.reconnects, "malformed": link.malformed,
                "last": age_text(link.last_frame_age_s), "url": link.url, "error": link.last_error,
            }
            for link in running.links
        ]  # fmt: skip
        self._links.update()

    async def _look(self) -> None:
        seen = await asyncio.to_thread(self._read, self._symbol, self._interval)
        self._no_candles.set_visibility(not seen.candles)
        self._candles.set_visibility(bool(seen.candles))
        self._candles.options.clear()
        self._candles.options.update(candle_chart(seen.candles))
        self._candles.update()
        self._trades.rows = _trade_rows(seen.trades[-_TRADES_SHOWN:][::-1])
        self._trades.update()
        self._latency_chart.options.clear()
        self._latency_chart.options.update(latency_chart(seen.trades))
        self._latency_chart.update()
        measured = quantiles_ms(seen.trades)
        if measured and not self._is_measured:
            least, middle, most = measured
            self._latency.show(f"{middle:.1f} ms", f"least {least:.1f}, 99 % under {most:.1f}, of {len(seen.trades)}")
            self._offset.show(f"{least:.1f} ms", "at most, by the fastest trade")
        elif not measured:
            self._latency.show("-", "no trade yet")
        self._show_book(seen.book)
        for name, table in self._others.items():
            table.rows = [_other_row(name, row) for row in reversed(seen.others.get(name, []))]
            table.update()

    def _read(self, symbol: str, interval: str) -> _Seen:
        directory = self._stored.directory
        try:
            book = last_rows(directory, ORDERBOOK, symbol, 1)
            return _Seen(
                newest_candles(last_rows(directory, OHLCV, symbol, _CANDLE_ROWS), interval),
                last_rows(directory, PRICES, symbol, _TRADES_MEASURED),
                book[0] if book else None,
                {name: last_rows(directory, STREAMS[name], symbol, _OTHERS_SHOWN) for name in self._others},
            )
        except CollectorError:
            return _Seen([], [], None)

    def _show_book(self, book: Fields | None) -> None:
        self._book.clear()
        with self._book:
            if book is None:
                nothing("No order book yet.", icon="table_rows")
                return
            shown = _even_book(book)
            for number in range(BOOK_LEVELS, 0, -1):
                _book_line(shown, "ask", number, "#cf3b3b")
            spread = ""
            if book["bid_1"] and book["ask_1"]:
                bid, ask = float(book["bid_1"]), float(book["ask_1"])
                spread = f"spread {ask - bid:.6g} ({(ask - bid) / bid * 10_000:.3g} bp)" if bid else ""
            ui.label(spread).classes("muted text-xs q-py-xs")
            for number in range(1, BOOK_LEVELS + 1):
                _book_line(shown, "bid", number, "#1f9d61")
            ui.label(f"as of {time_text(int(book['timestamp']))}").classes("muted text-xs q-pt-sm")

    async def _look_at_ledger(self, running: SessionStatus | None) -> None:
        entries = await asyncio.to_thread(ledger_of, self._stored)
        quality = await asyncio.to_thread(quality_of, self._stored, running)
        symbols = self._stored.manifest.symbols[:_SYMBOLS_SHOWN]
        from_us, to_us = quality.from_us, max(quality.to_us, quality.from_us + 1_000_000)
        _replace(self._gap_chart, gap_chart(entries, symbols, from_us, to_us))
        _replace(self._coverage, coverage_chart(hours_of(entries, symbols, from_us, to_us), symbols))
        self._gap_table.rows = [_gap_row(entry) for entry in reversed(entries)]
        self._gap_table.update()

    async def _end(self) -> None:
        ui.notify("Stopping …")
        try:
            await stop(self._context, self._stored.session_id)
        except CollectorError as error:
            trouble(error.message, error.hint)
        else:
            ui.notify("The session has stopped.", type="positive")
        await self._refresh()


_TRADE_COLUMNS: list[dict[str, Any]] = [
    {"name": "time", "label": "Time (UTC)", "field": "time", "align": "left"},
    {"name": "price", "label": "Price", "field": "price", "align": "right"},
    {"name": "volume", "label": "Volume", "field": "volume", "align": "right"},
]
_PRICE_CELL = """
<q-td :props="props" :style="{color: props.row.side == 'buy' ? '#1f9d61' : '#cf3b3b'}">{{ props.value }}
<span class="text-xs">{{ props.row.side == 'buy' ? '▲' : '▼' }}</span></q-td>
"""
_GAP_COLUMNS: list[dict[str, Any]] = [
    {"name": "id", "label": "Gap", "field": "id", "align": "left"},
    {"name": "where", "label": "Where", "field": "where", "align": "left"},
    {"name": "cause", "label": "Cause", "field": "cause", "align": "left"},
    {"name": "state", "label": "State", "field": "state", "align": "left"},
    {"name": "from", "label": "From (UTC)", "field": "from", "align": "left"},
    {"name": "lasted", "label": "For", "field": "lasted", "align": "right"},
    {"name": "rows", "label": "Rows", "field": "rows", "align": "right"},
]
_LINK_COLUMNS: list[dict[str, Any]] = [
    {"name": "state", "label": "State", "field": "state", "align": "left"},
    {"name": "url", "label": "Address", "field": "url", "align": "left", "style": "word-break: break-all"},
    {"name": "messages", "label": "Messages", "field": "messages", "align": "right"},
    {"name": "reconnects", "label": "Reconnects", "field": "reconnects", "align": "right"},
    {"name": "last", "label": "Last", "field": "last", "align": "right"},
    {"name": "error", "label": "Last error", "field": "error", "align": "left"},
]


def _trade_rows(rows: Sequence[Fields]) -> list[dict[str, Any]]:
    prices, volumes = even_digits([row["price"] for row in rows]), even_digits([row["volume"] for row in rows])
    return [
        {"id": row["seq"], "time": _clock(row), "price": price, "volume": volume, "side": row["side"]}
        for row, price, volume in zip(rows, prices, volumes, strict=True)
    ]


def _clock(row: Fields) -> str:
    at_us = int(row["timestamp"])
    return f"{time_text(at_us)[11:19]}.{at_us % 1_000_000 // 1000:03}"


def _other_column(name: str) -> dict[str, Any]:
    label = "Time (UTC)" if name == "timestamp" else name.replace("_", " ").capitalize()
    return {"name": name, "label": label, "field": name, "align": "left" if name in ("timestamp", "side") else "right"}


def _other_row(name: str, row: Fields) -> dict[str, Any]:
    shown: dict[str, Any] = {column: row.get(column) or "-" for column in _OTHERS[name]}
    if row.get("next_funding"):
        shown["next_funding"] = time_text(int(row["next_funding"]))[5:16]
    return {**shown, "id": row["seq"], "timestamp": time_text(int(row["timestamp"]))[5:19]}


def _gap_row(entry: Entry) -> dict[str, Any]:
    known = entry.from_us is not None and entry.to_us is not None
    lasted_s = (entry.to_us - entry.from_us) / 1e6 if known else None  # type: ignore[operator]  # both are known
    return {
        "id": entry.gap_id,
        "where": f"{entry.symbol} {entry.stream}".strip(),
        "cause": entry.cause,
        "state": entry.state,
        "from": time_text(entry.from_us).removesuffix("Z"),
        "lasted": duration_text(lasted_s),
        "rows": "?" if entry.expected_rows is None else count_text(entry.expected_rows),
    }


def _even_book(book: Fields) -> Fields:
    """Return a book's levels with as many digits as its prices, or its sizes, need."""
    shown: Fields = {}
    for kind in ("", "_qty"):
        names = [f"{side}{kind}_{number}" for side in ("bid", "ask") for number in range(1, BOOK_LEVELS + 1)]
        known = [name for name in names if book[name]]
        shown |= dict.fromkeys(names, "") | dict(zip(known, even_digits([book[name] for name in known]), strict=True))
    return shown


def _book_line(book: Fields, side: str, number: int, colour: str) -> None:
    with ui.row().classes("w-full no-wrap justify-between"):
        ui.label(book[f"{side}_{number}"] or "-").style(f"color: {colour}")
        ui.label(book[f"{side}_qty_{number}"] or "-")


def _replace(chart: ui.echart, options: dict[str, Any]) -> None:
    chart.options.clear()
    chart.options.update(options)
    chart.update()
