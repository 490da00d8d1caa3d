"""What a person sees of statuses: lines and tables that rich draws, live or once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Literal, TypeVar

import click
from rich import box
from rich.console import Group, RenderableType
from rich.markup import escape
from rich.table import Table
from rich.text import Text

from collector.cli.output import plain_text
from collector.status import CandleDifference, DaemonStatus, QuestDBStatus, SessionStatus, SymbolStatus
from collector.wording import age_text, bytes_text, count_text, duration_text, rate_text, time_text

_DIFFERENCES_SHOWN = 10
_STATE_STYLES = {
    "active": "green", "live": "green", "open": "green", "LIVE": "green", "completed": "green",
    "starting": "cyan", "stopping": "cyan", "STARTING": "cyan", "CATCHUP": "cyan",
    "waiting": "cyan", "connecting": "cyan",
    "degraded": "yellow", "interrupted": "yellow", "DOWN": "yellow", "silent": "yellow",
    "failed": "red", "FAILED": "red", "SUSPENDED": "red", "rejected": "red",
}  # fmt: skip


def state_text(state: str) -> Text:
    """Return a state in its colour."""
    return Text(state, style=_STATE_STYLES.get(state, ""))


def facts(pairs: Iterable[tuple[str, RenderableType]]) -> Table:
    """Return facts as two columns: what, and what it is."""
    grid = Table.grid(padding=(0, 2))
    grid.add_column(style="bold", no_wrap=True)
    grid.add_column()
    for name, fact in pairs:
        grid.add_row(name, escape(fact) if isinstance(fact, str) else fact)
    return grid


def daemon_view(status: DaemonStatus) -> RenderableType:
    """Return the whole daemon: itself, its replica, and its sessions."""
    about = (
        f"pid {status.pid}, version {status.version}, up {duration_text(status.uptime_s)}, "
        f"{bytes_text(status.memory_bytes)} of memory{', STOPPING' if status.stopping else ''}"
    )
    parts: list[RenderableType] = [
        facts(
            [
                ("Daemon", about),
                ("Data", f"{status.data_dir} ({bytes_text(status.disk_free_bytes)} free)"),
                ("Log", status.log_file),
                ("QuestDB", questdb_text(status.questdb)),
                ("API", status.api_url or "off"),
            ]
        ),
        Text(),
    ]
    parts.append(sessions_table(status.sessions) if status.sessions else Text("No session runs."))
    return Group(*parts)


def questdb_text(questdb: QuestDBStatus) -> Text:
    """Return the replica in a line: state, how far behind, where."""
    text = state_text(questdb.state)
    if questdb.state != "OFF":
        text.append(f", {lag_text(questdb)}", style="default")
        text.append(f", {questdb.mode}{' ' + questdb.version if questdb.version else ''}", style="default")
        if questdb.console_url:
            text.append(f", {questdb.console_url}", style="default")
    if questdb.rejected_rows:
        text.append(f", {count_text(questdb.rejected_rows)} rows rejected", style="yellow")
    if questdb.reason:
        text.append(f": {questdb.reason}", style="default")
    return text


def lag_text(questdb: QuestDBStatus) -> str:
    """Return how far the replica is behind the CSV."""
    if not questdb.lag_rows:
        return "nothing waiting"
    return f"{count_text(questdb.lag_rows)} rows ({duration_text(questdb.lag_s)}) waiting"


def sessions_table(sessions: Sequence[SessionStatus]) -> Table:
    """Return a row per session."""
    table = make_table("SESSION", "STATE", "EXCHANGE", "SYMBOLS", "STARTED", ">ROWS", ">GAPS", "LABEL")
    for session in sessions:
        table.add_row(
            Text(session.session_id),
            state_text(session.state),
            _exchange_text(session),
            _some(session.symbols),
            time_text(session.started_us or session.created_us),
            count_text(sum(session.rows.values())),
            _gaps(session.gaps, session.gaps_open),
            Text(session.label),
        )
    return table


def _exchange_text(session: SessionStatus) -> str:
    return f"{session.exchange} (unverified)" if session.unverified else session.exchange


def session_view(session: SessionStatus, questdb: QuestDBStatus | None = None) -> RenderableType:
    """Return one session: its state, its counts, a row per symbol and per connection."""
    pairs: list[tuple[str, RenderableType]] = [
        ("Session", session.session_id + (f" ({session.label})" if session.label else "")),
        ("State", _state_and_reason(session)),
        ("Exchange", _exchange_text(session)),
        ("Started", f"{time_text(session.started_us)}{_until(session)}"),
        ("Rows", ", ".join(f"{count_text(rows)} {stream}" for stream, rows in session.rows.items()) or "none yet"),
        ("Buffer", _buffer_text(session)),
    ]
    if session.candles_compared:
        compared = f"{count_text(session.candles_compared)} compared with the exchange's"
        pairs.append(("Candles", f"{compared}, {count_text(session.candles_different)} different"))
    if session.latency is not None:
        latency = session.latency
        values_us = (latency.p50_us, latency.p95_us, latency.p99_us, latency.minimum_us)
        middle, late, latest, least = (f"{value_us / 1000:,.1f}" for value_us in values_us)
        pairs.append(("Latency", f"{middle} ms (95%: {late}, 99%: {latest}, least: {least})"))
    if questdb is not None:
        pairs.append(("QuestDB", questdb_text(questdb)))
    pairs.append(("Files", session.directory))
    parts: list[RenderableType] = [facts(pairs), Text(), symbols_table(session.per_symbol)]
    if session.candle_differences:
        parts += [Text(), _differences_table(session.candle_differences)]
    if session.links:
        parts += [Text(), _links_table(session)]
    return Group(*parts)


def symbols_table(rows: Sequence[SymbolStatus]) -> Table:
    """Return a row per symbol: what it last cost, how much comes, how long ago, what is missing."""
    table = make_table(
        "SYMBOL", "STATE", ">LAST PRICE", ">TRADES/S", ">BOOK/S", ">LAST EVENT", ">TRADES", ">BOOK ROWS",
        ">CANDLES", ">MATCH", ">GAPS",
    )  # fmt: skip
    for row in rows:
        table.add_row(
            row.symbol,
            state_text(row.state),
            row.last_price or "-",
            rate_text(row.prices_per_s),
            rate_text(row.orderbook_per_s),
            age_text(row.last_event_age_s),
            count_text(row.prices),
            count_text(row.orderbook),
            count_text(row.candles_closed),
            _match_text(row),
            _gaps(row.gaps, row.gaps_open),
        )
    return table


def _match_text(row: SymbolStatus) -> str:
    """Return how many candles match the exchange's own, of how many that were compared."""
    compared, matching = sum(row.candles_compared.values()), sum(row.candles_matching.values())
    return f"{count_text(matching)}/{count_text(compared)}" if compared else "-"


def _differences_table(differences: Sequence[CandleDifference]) -> Table:
    table = make_table("CANDLE THAT DIFFERS", "INTERVAL", "TIME", "OURS", "EXCHANGE'S")
    for found in differences[-_DIFFERENCES_SHOWN:]:
        ours, theirs = (", ".join(f"{name} {pair[at] or '-'}" for name, pair in found.fields.items()) for at in (0, 1))
        table.add_row(found.symbol, found.interval, time_text(found.timestamp_us), ours, theirs)
    return table


def _links_table(session: SessionStatus) -> Table:
    table = make_table(
        "CONNECTION", "STATE", ">SINCE", ">MESSAGES", ">RECEIVED", ">RECONNECTS", ">LAST MESSAGE", "ADDRESS"
    )
    for link in session.links:
        table.add_row(
            str(link.number),
            state_text(link.state),
            time_text(link.since_us),
            count_text(link.messages),
            bytes_text(link.bytes),
            count_text(link.reconnects),
            age_text(link.last_frame_age_s),
            Text(f"{link.url}{f' ({link.last_error})' if link.last_error else ''}"),
        )
    return table


def make_table(*columns: str) -> Table:
    """Return an empty table; a column whose name begins with ``>`` holds numbers."""
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for column in columns:
        justify: Literal["right", "left"] = "right" if column.startswith(">") else "left"
        table.add_column(column.removeprefix(">"), justify=justify)
    return table


def _some(names: Sequence[str], limit: int = 3) -> str:
    more = f" … {len(names)} in all" if len(names) > limit else ""
    return ", ".join(names[:limit]) + more


def _gaps(gaps: int, gaps_open: int) -> Text:
    if not gaps:
        return Text("0")
    return Text(f"{count_text(gaps)} ({count_text(gaps_open)} open)" if gaps_open else count_text(gaps), style="yellow")


def _state_and_reason(session: SessionStatus) -> Text:
    text = state_text(session.state)
    return text.append(f": {session.reason}", style="default") if session.reason else text


def _until(session: SessionStatus) -> str:
    if session.ended_us is not None:
        return f", ended {time_text(session.ended_us)}"
    return f", for {duration_text(session.duration_s)}" if session.duration_s else ""


def _buffer_text(session: SessionStatus) -> str:
    buffer = session.buffer
    words: list[tuple[int, str]] = [(buffer.received, "received"), (buffer.written, "written")]
    words += [(buffer.pending, "pending"), (buffer.dropped, "dropped")]
    said = ", ".join(f"{count_text(count)} {word}" for count, word in words)
    if session.flush_s is None:
        return said
    return f"{said}; last flush {session.flush_s * 1000:.1f} ms, longest {(session.flush_max_s or 0) * 1000:.1f} ms"


def plain_lines(daemon: DaemonStatus, session: SessionStatus) -> str:
    """Return a line per symbol and one for the replica, for a log or a pipe."""
    lines = [
        f"exchange={session.exchange} {row.symbol} {row.state}: price {row.last_price or '-'}, "
        f"{rate_text(row.prices_per_s)} trades/s, {rate_text(row.orderbook_per_s)} book rows/s, "
        f"last event {age_text(row.last_event_age_s)}, {_gaps(row.gaps, row.gaps_open)} gaps"
        for row in session.per_symbol
    ]
    replica = f"QuestDB {questdb_text(daemon.questdb)}; {count_text(session.candles_closed)} candles closed"
    return "\n".join([*lines, replica])


Seen = TypeVar("Seen")


def draw_repeatedly(
    look: Callable[[], Seen | None],
    *,
    draw: Callable[[Seen], RenderableType],
    plain: Callable[[Seen], str] | None = None,
    intervals_s: tuple[float, float],
    wait: Callable[[float], None],
) -> None:
    """Draw what ``look`` sees until it sees None: in place on a terminal, else as lines, at the second interval."""
    from rich.console import Console
    from rich.live import Live

    console = Console(highlight=False)
    if not console.is_terminal:
        while (seen := look()) is not None:
            click.echo(plain(seen) if plain else plain_text(draw(seen)))
            wait(intervals_s[1])
        return
    with Live(console=console, auto_refresh=False) as live:
        while (seen := look()) is not None:
            live.update(draw(seen), refresh=True)
            wait(intervals_s[0])
