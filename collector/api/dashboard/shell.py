"""What all pages share: the frame with its navigation, and how states, facts and troubles look."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from nicegui import ui

from collector.reading.sessions import StoredSession
from collector.status import DaemonStatus
from collector.wording import count_text, duration_text

STATE_COLOURS = {
    "active": "positive", "live": "positive", "open": "positive", "LIVE": "positive", "completed": "primary",
    "starting": "info", "stopping": "info", "STARTING": "info", "CATCHUP": "info", "waiting": "info",
    "connecting": "info", "degraded": "warning", "interrupted": "warning", "DOWN": "warning", "silent": "warning",
    "failed": "negative", "FAILED": "negative", "SUSPENDED": "negative", "rejected": "negative", "OFF": "grey",
}  # fmt: skip

_PAGES = (
    ("Sessions", "/", "dashboard"),
    ("History", "/history", "history"),
    ("Tables", "/tables", "table_chart"),
    ("Compare", "/compare", "compare_arrows"),
    ("Backtests", "/backtests", "science"),
    ("Events", "/events", "receipt_long"),
)

_STYLE = """
:root { --panel: #ffffff; --ground: #f4f5f7; --line: #e2e5ea; --muted: #5f6b7a; }
.body--dark { --panel: #161b22; --ground: #0d1117; --line: #2b323c; --muted: #9aa4b2; }
body { background: var(--ground); font-feature-settings: "tnum"; }
.panel { background: var(--panel); border: 1px solid var(--line); border-radius: 10px; padding: 14px 16px; }
.muted { color: var(--muted); }
.tile .value { font-size: 1.35rem; font-weight: 600; line-height: 1.2; }
.q-table th { font-weight: 600; color: var(--muted); }
.nicegui-content { padding: 0; }
.board { display: grid; gap: 16px; width: 100%;
  grid-template-columns: minmax(0, 2.4fr) minmax(210px, .8fr) minmax(270px, 1fr); }
.pair { display: grid; gap: 16px; width: 100%; grid-template-columns: repeat(auto-fit, minmax(min(440px, 100%), 1fr)); }
.board > *, .pair > * { min-width: 0; }
@media (max-width: 1150px) { .board { grid-template-columns: 1fr 1fr; } .board > :first-child { grid-column: span 2; } }
@media (max-width: 720px) {
  .board { grid-template-columns: minmax(0, 1fr); } .board > :first-child { grid-column: span 1; }
}
a:focus-visible, button:focus-visible, .q-btn:focus-visible { outline: 2px solid #3b82f6; outline-offset: 2px; }
@media (max-width: 820px) { .nav .q-btn__content { font-size: 0; } .nav .q-icon { font-size: 24px; margin: 0; } }
.tight th, .tight td { padding: 2px 5px !important; }
.cell { display: inline-block; max-width: 340px; overflow: hidden; text-overflow: ellipsis; vertical-align: bottom; }
.skip { position: absolute; left: -999px; } .skip:focus { left: 8px; top: 8px; z-index: 9999; }
"""


@contextmanager
def frame(title: str, *, here: str = "") -> Iterator[None]:
    """Draw the frame of a page around its content.

    Args:
        here: the address that the navigation marks.
    """
    ui.page_title(f"{title} · collector")
    ui.add_css(_STYLE)
    ui.colors(primary="#3b6fd4", positive="#1f9d61", warning="#c77d0a", negative="#cf3b3b", info="#2b8fb3")
    ui.html('<a class="skip" href="#content">Skip to the content</a>', sanitize=False)
    with ui.header().classes("items-center q-px-md").style("background: #10151d; min-height: 52px"):
        ui.link("collector", "/").classes("text-white text-weight-bold no-underline text-lg")
        with ui.row().classes("gap-1 q-ml-md").props('role="navigation" aria-label="Pages"'):
            for name, address, icon in _PAGES:
                # An address, so that it opens in another tab as well, and without the page's connection.
                button = ui.button(name, icon=icon).props(f'flat dense no-caps href="{address}" aria-label="{name}"')
                button.classes("text-white q-px-sm nav")
                if address == here:
                    button.style("background: #ffffff22").props('aria-current="page"')
        ui.space()
        dark = ui.dark_mode(None)
        ui.button(icon="contrast", on_click=lambda: dark.set_value(not dark.value)).props(
            'flat dense round aria-label="Light or dark"'
        ).classes("text-white")
    with ui.column().classes("w-full q-pa-md gap-4").props('id="content"').style("max-width: 1500px; margin: 0 auto"):
        yield


def chip(state: str) -> ui.badge:
    """Draw a state in its colour."""
    return ui.badge(state, color=STATE_COLOURS.get(state, "grey")).classes("q-px-sm q-py-xs")


def session_options(stored: Iterable[StoredSession]) -> dict[str, str]:
    """Return sessions that have trades as options to choose from: their ids, with exchange and label."""
    return {
        one.session_id: " · ".join(part for part in (one.session_id, one.manifest.exchange, one.manifest.label) if part)
        for one in stored
        if "prices" in one.manifest.data_types
    }


class Tile:
    """A fact that is looked at often: a name, a large value, and a line beneath it."""

    def __init__(self, name: str) -> None:
        with ui.column().classes("panel tile gap-0").style("min-width: 150px; flex: 1; align-self: stretch"):
            ui.label(name).classes("muted text-xs")
            self._value = ui.label("-").classes("value")
            self._note = ui.label("").classes("muted text-xs")
            self._link = ui.link("", "", new_tab=True).classes("text-xs text-primary")
            self._link.set_visibility(False)

    def lead(self, text: str, address: str) -> None:
        """Put an address beneath, which opens beside the page; none where it is empty."""
        self._link.set_text(text)
        self._link.props["href"] = address
        self._link.update()
        self._link.set_visibility(bool(address))

    def show(self, value: str, note: str = "", *, colour: str = "") -> None:
        """Say what it is now."""
        self._value.set_text(value)
        self._note.set_text(note)
        self._value.style(f"color: {colour or 'inherit'}")


@contextmanager
def panel(title: str, *, note: str = "") -> Iterator[ui.column]:
    """Draw a panel with a heading around its content."""
    with ui.column().classes("panel w-full gap-2") as column:
        with ui.row().classes("items-baseline gap-2"):
            ui.label(title).classes("text-weight-bold")
            if note:
                ui.label(note).classes("muted text-xs")
        yield column


def nothing(sentence: str, *, hint: str = "", icon: str = "inbox") -> None:
    """Draw what stands where there is nothing to show."""
    with ui.column().classes("items-center w-full q-pa-lg gap-1"):
        ui.icon(icon, size="2rem").classes("muted")
        ui.label(sentence).classes("text-weight-medium")
        if hint:
            ui.label(hint).classes("muted text-sm")


def trouble(sentence: str, hint: str = "") -> None:
    """Tell a person that something went wrong, and what to do."""
    ui.notify(f"{sentence} {hint}".strip(), type="negative", multi_line=True, close_button="Close", timeout=12_000)


def questdb_sentence(status: DaemonStatus | None) -> tuple[str, str]:
    """Return QuestDB's state, and a line that says what it means."""
    if status is None:
        return "-", "no daemon answers"
    questdb = status.questdb
    if questdb.state == "OFF":
        return "OFF", "rows are in CSV only, as configured"
    if questdb.state == "LIVE" and not questdb.lag_rows:
        return "LIVE", "it has every row"
    lag = f"{count_text(questdb.lag_rows)} rows behind, {duration_text(questdb.lag_s)}"
    return questdb.state, f"{lag}. {questdb.reason}".strip()
