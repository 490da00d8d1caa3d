"""What a feed says about itself, for the terminal, ``/metrics`` and the session's manifest."""

from __future__ import annotations

from typing import Literal

import msgspec

from collector.status import LatencyStatus

LinkState = Literal["waiting", "connecting", "open", "closed"]
"""``waiting``: for the next attempt to connect; ``closed``: for good."""

TrackState = Literal["waiting", "live", "silent", "rejected"]
"""``waiting``: for the first data since subscribing; ``silent``: it is overdue; ``rejected``: the exchange refused."""


class ConnectionStatus(msgspec.Struct, frozen=True):
    """One websocket connection. Counters are since the feed began; ``since_us`` is when its state was entered.

    ``last_frame_age_s`` is measured by a clock that never steps; None before the first frame. ``oversized`` counts
    messages that were longer than the bound, decompressed; ``slowed`` how often reading paused because rows waited.
    """

    number: int
    url: str
    state: LinkState
    since_us: int
    reconnects: int
    messages: int
    bytes: int
    malformed: int
    last_frame_age_s: float | None
    last_error: str
    rotations: int = 0
    """How often a successor took over from it without a gap."""
    oversized: int = 0
    slowed: int = 0


class StreamStatus(msgspec.Struct, frozen=True):
    """One subscription. Latency is receipt minus exchange time: negative where the two clocks differ.

    ``received`` counts events, ``duplicates`` those of them that had been seen. ``synchronised`` is a book's, as is
    ``refreshes``: how often another snapshot was needed because the market had left the prices of the last one.
    """

    symbol: str
    stream: str
    connection: int
    state: TrackState
    received: int
    duplicates: int
    gaps: int
    last_event_us: int | None
    last_received_us: int | None
    last_price: str | None
    latency_us: int | None
    latency_mean_us: float | None
    synchronised: bool | None
    refreshes: int = 0


class FeedStatus(msgspec.Struct, frozen=True):
    """All of a feed. ``banned_s`` is for how much longer the exchange wants no request from this address.

    ``rest_refused`` counts answers that were a refusal, ``rest_oversized`` those that were longer than the bound.
    """

    exchange: str
    connections: list[ConnectionStatus]
    streams: list[StreamStatus]
    rest_requests: int
    rest_refused: int
    banned_s: float
    latency: LatencyStatus | None = None
    rest_oversized: int = 0
