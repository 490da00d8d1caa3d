"""What a running daemon says about itself: the one contract between daemon, command line, REST API and ``/metrics``.

Times are microseconds since the epoch, UTC; ages and lags are seconds, measured by a clock that never steps. None is
"not known (yet)". The structs travel as JSON over the control socket; readers ignore fields that they don't know.
"""

from __future__ import annotations

from typing import Literal

import msgspec

from collector.clock import ClockStep

SessionState = Literal["starting", "active", "degraded", "stopping", "completed", "failed", "interrupted"]
LIVE_STATES: frozenset[str] = frozenset({"starting", "active", "degraded", "stopping"})
"""The states in which a session is run by a daemon."""

ReplicaState = Literal["OFF", "STARTING", "LIVE", "CATCHUP", "DOWN", "SUSPENDED", "FAILED"]
"""``OFF``: the configuration wants no database. ``DOWN``: it does not answer. ``FAILED``: it refuses us."""


class LatencyStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Receipt minus exchange time, of a feed's newest samples, in microseconds; negative where the clocks differ.

    ``minimum_us`` is the best estimate of the clocks' offset: ours minus the exchange's, and the shortest way.
    """

    p50_us: int
    p95_us: int
    p99_us: int
    minimum_us: int
    samples: int


class SymbolStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One symbol of a session. Rates are rows per second over the last ten seconds, or since the start."""

    symbol: str
    state: str = "waiting"
    """``waiting`` for first data, ``live``, ``silent`` (overdue) or ``rejected`` by the exchange."""
    last_price: str | None = None
    last_event_us: int | None = None
    last_event_age_s: float | None = None
    prices: int = 0
    prices_per_s: float = 0.0
    orderbook: int = 0
    orderbook_per_s: float = 0.0
    candles_closed: int = 0
    candles_compared: dict[str, int] = {}
    """By interval, how many closed candles were compared with the exchange's own, and how many of them match."""
    candles_matching: dict[str, int] = {}
    others: dict[str, int] = {}
    """Rows of each other data type that is collected."""
    gaps: int = 0
    gaps_open: int = 0
    duplicates: int = 0
    latency_us: int | None = None
    book_synchronised: bool | None = None
    book_refreshes: int = 0


class CandleDifference(msgspec.Struct, frozen=True, kw_only=True):
    """A closed candle that is not the exchange's own: by field, what ours says and what theirs."""

    symbol: str
    interval: str
    timestamp_us: int
    fields: dict[str, tuple[str, str]]


class BufferStatus(msgspec.Struct, frozen=True, kw_only=True):
    """Rows through a session's buffer: ``received = written + pending + dropped``, always."""

    received: int = 0
    written: int = 0
    pending: int = 0
    dropped: int = 0


class LinkStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One websocket connection of a session."""

    number: int
    url: str
    state: str
    since_us: int
    reconnects: int = 0
    messages: int = 0
    bytes: int = 0
    malformed: int = 0
    last_frame_age_s: float | None = None
    last_error: str = ""
    rotations: int = 0
    """How often a second connection took over from it without a gap."""
    oversized: int = 0
    """Messages that were longer than ``feed.max_message_bytes``, decompressed."""
    slowed: int = 0
    """How often reading paused because too many rows waited."""


class SessionStatus(msgspec.Struct, frozen=True, kw_only=True):
    """One session: a row of ``sessions``, and all that ``status SESSION`` shows.

    ``rows`` counts per stream what is durable in CSV; ``delivered_rows`` what QuestDB acknowledged of it. ``reason``
    says why it is degraded, failed or interrupted. ``flush_s`` is how long the last flush took, ``flush_max_s`` the
    longest.
    """

    session_id: str
    exchange: str
    state: SessionState
    symbols: tuple[str, ...]
    data_types: tuple[str, ...]
    directory: str
    created_us: int
    unverified: bool = False
    """Whether nothing here vouches for what its exchange's messages mean (``ccxt:NAME``)."""
    label: str = ""
    reason: str = ""
    started_us: int | None = None
    ended_us: int | None = None
    duration_s: float | None = None
    """How long it shall last; None until it is stopped."""
    rows: dict[str, int] = {}
    delivered_rows: int = 0
    lag_rows: int = 0
    rejected_rows: int = 0
    gaps: int = 0
    gaps_open: int = 0
    errors: int = 0
    candles_closed: int = 0
    candles_compared: int = 0
    candles_different: int = 0
    candle_differences: tuple[CandleDifference, ...] = ()
    """The newest of those that differ, oldest first."""
    flushes: int = 0
    flush_s: float | None = None
    flush_max_s: float | None = None
    rotations: int = 0
    compressed_files: int = 0
    released_rows: int = 0
    """Rows that were deleted from the CSV because QuestDB has them for certain, since the session began."""
    csv_open_files: int = 0
    csv_files_closed_early: int = 0
    """How often a file was closed because ``csv.max_open_files`` were open."""
    rest_requests: int = 0
    rest_refused: int = 0
    rest_oversized: int = 0
    """REST answers that were longer than ``feed.rest_max_bytes``."""
    repaired_rows: int = 0
    """Trades that were fetched because they had been missed, since this daemon runs the session."""
    repair_requests: int = 0
    buffer: BufferStatus = BufferStatus()
    per_symbol: tuple[SymbolStatus, ...] = ()
    links: tuple[LinkStatus, ...] = ()
    latency: LatencyStatus | None = None

    @property
    def is_live(self) -> bool:
        return self.state in LIVE_STATES


class QuestDBStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The replica: where it is, whether it keeps up, and why not."""

    mode: str
    state: ReplicaState
    reason: str = ""
    since_us: int | None = None
    version: str = ""
    console_url: str = ""
    pg_address: str = ""
    pid: int | None = None
    lag_rows: int = 0
    lag_bytes: int = 0
    lag_s: float = 0.0
    acknowledged_rows: int = 0
    resent_rows: int = 0
    rejected_rows: int = 0
    failures: int = 0
    requests: int = 0
    rewinds: int = 0
    last_acknowledged_age_s: float | None = None


class DaemonStatus(msgspec.Struct, frozen=True, kw_only=True):
    """The whole daemon. ``sessions`` holds those that it runs, and those that ended since it started."""

    version: str
    pid: int
    started_us: int
    uptime_s: float
    data_dir: str
    log_file: str
    questdb: QuestDBStatus
    api_url: str = ""
    csv_enabled: bool = True
    stopping: bool = False
    memory_bytes: int = 0
    cpu_s: float = 0.0
    loop_lag_s: float = 0.0
    """How late the event loop's timer last ran."""
    clock_steps: int = 0
    """How often the wall clock was set while the daemon ran."""
    last_clock_step: ClockStep | None = None
    disk_free_bytes: int | None = None
    open_files: int | None = None
    open_files_max: int | None = None
    control_refused_connections: int = 0
    control_refused_commands: int = 0
    api_refused_connections: int = 0
    api_refused_bodies: int = 0
    api_delayed_streams: int = 0
    log_dropped_records: int = 0
    ended_compressed_files: int = 0
    ended_released_rows: int = 0
    """Of sessions that had ended, since the daemon started."""
    sessions: tuple[SessionStatus, ...] = ()


def unready_reasons(status: DaemonStatus) -> list[str]:
    """Return why the daemon is not doing what it was asked to do, one sentence each; empty where it does.

    A database that is down is no reason: rows go to CSV and reach it later.
    """
    reasons = ["The daemon is stopping."] if status.stopping else []
    for session in status.sessions:
        if session.state in ("degraded", "failed"):
            reasons.append(f"Session {session.session_id} is {session.state}: {session.reason or 'no reason known'}")
        silent = [row.symbol for row in session.per_symbol if session.is_live and row.state in ("silent", "rejected")]
        if silent:
            reasons.append(f"Session {session.session_id} gets nothing of {', '.join(silent)}.")
    if status.questdb.state in ("FAILED", "SUSPENDED"):
        reasons.append(f"QuestDB is {status.questdb.state}: {status.questdb.reason or 'no reason known'}")
    return reasons
