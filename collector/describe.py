"""The daemon's status from what its stages say of themselves: pure, so that it can be tested without a daemon."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterable, Mapping
from pathlib import Path

import msgspec

from collector.candles.compare import CandleScore
from collector.exchanges.ccxt import is_ccxt
from collector.feeds.status import ConnectionStatus, FeedStatus, StreamStatus
from collector.session.gaps import Entry
from collector.session.session import SessionStatus as Facts
from collector.status import (
    BufferStatus,
    CandleDifference,
    LinkStatus,
    QuestDBStatus,
    ReplicaState,
    SessionStatus,
    SymbolStatus,
)
from collector.storage.delivery import ReplicatorStatus, SessionDelivery, State
from collector.storage.sessions import SessionRow
from collector.streams import DATA_TYPES, KLINES, OHLCV, ORDERBOOK, PRICES

RATE_WINDOW_S = 10.0
_DIFFERENCES_SHOWN = 20
"""Of each symbol; the manifest has more."""

_REPLICA_STATES: Mapping[State, ReplicaState] = {
    State.LIVE: "LIVE",
    State.CATCHUP: "CATCHUP",
    State.DOWN: "DOWN",
    State.SUSPENDED: "SUSPENDED",
    State.FAILED: "FAILED",
}
_OTHERS = tuple(name for name in DATA_TYPES if name not in (PRICES.name, ORDERBOOK.name))
_STATE_ORDER = ("rejected", "silent", "waiting", "live")

FileRows = Mapping[tuple[str, str], int]
"""(stream, symbol) → rows in its file."""


class Rates:
    """Rows per second over the last ten seconds, or since the first sample."""

    def __init__(self) -> None:
        self._samples: deque[tuple[float, dict[tuple[str, str], int]]] = deque()

    def sample(self, now_s: float, rows: FileRows) -> None:
        """Remember the rows as they stand now; one sample older than the window is kept to measure against."""
        self._samples.append((now_s, dict(rows)))
        while len(self._samples) > 2 and self._samples[1][0] <= now_s - RATE_WINDOW_S:
            self._samples.popleft()

    def per_s(self, stream: str, symbol: str) -> float:
        """Return a file's rate; 0 before the second sample."""
        if len(self._samples) < 2:
            return 0.0
        (first_s, first), (last_s, last) = self._samples[0], self._samples[-1]
        rows = last.get((stream, symbol), 0) - first.get((stream, symbol), 0)
        return rows / (last_s - first_s) if last_s > first_s else 0.0


def describe_session(
    facts: Facts,
    *,
    directory: Path,
    feed: FeedStatus | None,
    delivery: SessionDelivery | None,
    file_rows: FileRows,
    gaps: Iterable[Entry],
    rates: Rates,
    now_us: int,
    repaired_rows: int = 0,
    repair_requests: int = 0,
) -> SessionStatus:
    """Put together what a session, its feed, its repairs and its delivery say."""
    delivery = delivery or SessionDelivery()
    compared, matching = (sum(getattr(score, name) for score in facts.candle_scores) for name in ("total", "equal"))
    scores = {score.symbol: score for score in facts.candle_scores}
    per_symbol = tuple(
        _with_score(row, scores.get(row.symbol))
        for row in _describe_symbols(facts.symbols, feed, file_rows, list(gaps), rates, now_us)
    )
    return SessionStatus(
        session_id=facts.session_id,
        exchange=facts.exchange,
        unverified=is_ccxt(facts.exchange),
        state=facts.state,
        symbols=facts.symbols,
        data_types=facts.data_types,
        directory=str(directory),
        created_us=facts.created_us,
        label=facts.label,
        reason=facts.reason,
        started_us=facts.started_us,
        ended_us=facts.ended_us,
        duration_s=facts.duration_s,
        rows={
            PRICES.name: facts.prices_count,
            ORDERBOOK.name: facts.orderbook_count,
            OHLCV.name: facts.candles_count,
            **facts.other_counts,
            "gaps": facts.gaps_count,
        },
        delivered_rows=delivery.acknowledged_rows,
        lag_rows=delivery.lag_rows,
        rejected_rows=delivery.rejected_rows,
        gaps=facts.gaps_count,
        gaps_open=facts.open_gaps,
        errors=facts.errors_count,
        candles_closed=facts.candles_count,
        candles_compared=compared,
        candles_different=compared - matching,
        candle_differences=tuple(_describe_differences(facts.candle_scores)),
        flushes=facts.flushes,
        flush_s=facts.last_flush_s if facts.flushes else None,
        flush_max_s=facts.longest_flush_s if facts.flushes else None,
        rotations=facts.rotations,
        compressed_files=facts.compressed_files,
        released_rows=facts.released_rows,
        csv_open_files=facts.open_files,
        csv_files_closed_early=facts.files_closed_early,
        rest_requests=feed.rest_requests if feed else 0,
        rest_refused=feed.rest_refused if feed else 0,
        rest_oversized=feed.rest_oversized if feed else 0,
        repaired_rows=repaired_rows,
        repair_requests=repair_requests,
        buffer=BufferStatus(
            received=facts.received, written=facts.written, pending=facts.pending, dropped=facts.dropped
        ),
        per_symbol=per_symbol,
        links=tuple(_describe_link(connection) for connection in feed.connections) if feed else (),
        latency=feed.latency if feed else None,
    )


def _describe_symbols(
    symbols: Iterable[str],
    feed: FeedStatus | None,
    file_rows: FileRows,
    gaps: list[Entry],
    rates: Rates,
    now_us: int,
) -> Iterable[SymbolStatus]:
    streams: dict[str, dict[str, StreamStatus]] = {}
    for stream in feed.streams if feed else ():
        streams.setdefault(stream.symbol, {})[stream.stream] = stream
    counts: dict[str, tuple[int, int]] = {}
    for entry in gaps:
        total, still_open = counts.get(entry.symbol, (0, 0))
        counts[entry.symbol] = total + 1, still_open + (entry.state == "open")
    for symbol in symbols:
        yield _describe_symbol(symbol, streams.get(symbol, {}), file_rows, counts.get(symbol, (0, 0)), rates, now_us)


def _describe_symbol(
    symbol: str,
    streams: Mapping[str, StreamStatus],
    file_rows: FileRows,
    gaps: tuple[int, int],
    rates: Rates,
    now_us: int,
) -> SymbolStatus:
    prices, book = streams.get(PRICES.name), streams.get(ORDERBOOK.name)
    # The exchange's candles are asked for with the trades, and say nothing of a session that does not record them.
    collected = [stream for name, stream in streams.items() if name != KLINES.name or (name, symbol) in file_rows]
    events = [stream.last_event_us for stream in collected if stream.last_event_us is not None]
    received = [stream.last_received_us for stream in collected if stream.last_received_us is not None]
    states = {stream.state for stream in collected}
    state = next((state for state in _STATE_ORDER if state in states), "waiting")
    return SymbolStatus(
        symbol=symbol,
        state=state,
        last_price=prices.last_price if prices else None,
        last_event_us=max(events, default=None),
        # Measured from the receipt: the exchange's clock and ours need not agree.
        last_event_age_s=max(0.0, (now_us - max(received)) / 1_000_000) if received else None,
        prices=file_rows.get((PRICES.name, symbol), 0),
        prices_per_s=rates.per_s(PRICES.name, symbol),
        orderbook=file_rows.get((ORDERBOOK.name, symbol), 0),
        orderbook_per_s=rates.per_s(ORDERBOOK.name, symbol),
        candles_closed=file_rows.get((OHLCV.name, symbol), 0),
        others={name: file_rows[name, symbol] for name in _OTHERS if (name, symbol) in file_rows},
        gaps=gaps[0],
        gaps_open=gaps[1],
        duplicates=sum(stream.duplicates for stream in collected),
        latency_us=next((stream.latency_us for stream in collected if stream.latency_us is not None), None),
        book_synchronised=book.synchronised if book else None,
        book_refreshes=book.refreshes if book else 0,
    )


def _with_score(row: SymbolStatus, score: CandleScore | None) -> SymbolStatus:
    if score is None:
        return row
    return msgspec.structs.replace(row, candles_compared=dict(score.compared), candles_matching=dict(score.matching))


def _describe_differences(scores: Iterable[CandleScore]) -> Iterable[CandleDifference]:
    for score in scores:
        for found in score.differences[-_DIFFERENCES_SHOWN:]:
            fields = {difference.field: (difference.ours, difference.theirs) for difference in found.differences}
            yield CandleDifference(
                symbol=found.symbol, interval=found.interval, timestamp_us=found.timestamp_us, fields=fields
            )


def _describe_link(connection: ConnectionStatus) -> LinkStatus:
    return LinkStatus(
        number=connection.number,
        url=connection.url,
        state=connection.state,
        since_us=connection.since_us,
        reconnects=connection.reconnects,
        messages=connection.messages,
        bytes=connection.bytes,
        malformed=connection.malformed,
        last_frame_age_s=connection.last_frame_age_s,
        last_error=connection.last_error,
        rotations=connection.rotations,
        oversized=connection.oversized,
        slowed=connection.slowed,
    )


def describe_database(
    *,
    mode: str,
    reason: str,
    replicator: ReplicatorStatus | None,
    console_url: str,
    pg_address: str,
    pid: int | None,
    starting: bool,
    now_us: int,
    version: str = "",
) -> QuestDBStatus:
    """Put together what the server's supervisor and the replicator say."""
    if replicator is None:
        return QuestDBStatus(mode=mode, state="OFF", reason="the configuration wants no database")
    state: ReplicaState = _REPLICA_STATES[replicator.state]
    if starting and state == "DOWN":
        state = "STARTING"
    acknowledged = replicator.last_acknowledged_us
    return QuestDBStatus(
        mode=mode,
        state=state,
        reason=reason or f"{replicator.reason} {replicator.hint}".strip(),
        version=version,
        console_url=console_url,
        pg_address=pg_address,
        pid=pid,
        lag_rows=replicator.lag_rows,
        lag_bytes=replicator.lag_bytes,
        lag_s=replicator.lag_seconds,
        acknowledged_rows=replicator.acknowledged_rows,
        resent_rows=replicator.resent_rows,
        rejected_rows=replicator.rejected_rows,
        failures=replicator.failures,
        requests=replicator.requests,
        rewinds=replicator.rewinds,
        last_acknowledged_age_s=None if acknowledged is None else max(0.0, (now_us - acknowledged) / 1_000_000),
    )


def session_row(facts: Facts) -> SessionRow:
    """Return the row of ``data_collection_sessions`` that says the same as a session's status."""
    ended = facts.ended_us or facts.heartbeat_us
    return SessionRow(
        session_id=facts.session_id,
        status=facts.state,
        exchange=facts.exchange,
        symbols=facts.symbols,
        data_types=facts.data_types,
        label=facts.label,
        start_us=facts.started_us,
        end_us=facts.ended_us,
        duration_s=None if facts.started_us is None else (ended - facts.started_us) / 1_000_000,
        records_collected=facts.prices_count + facts.orderbook_count + sum(facts.other_counts.values()),
        prices_count=facts.prices_count,
        orderbook_count=facts.orderbook_count,
        candles_count=facts.candles_count,
        gaps_count=facts.gaps_count,
        errors_count=facts.errors_count,
        error=facts.reason if facts.state in ("failed", "degraded", "interrupted") else "",
        created_us=facts.created_us,
        heartbeat_us=facts.heartbeat_us,
    )
