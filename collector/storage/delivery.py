"""What the replicator says about itself, and what it needs from those who use it. No behaviour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path
from typing import Protocol

from collector.streams import Stream


class State(Enum):
    """How delivery stands.

    ``LIVE`` everything durable is acknowledged as it comes; ``CATCHUP`` a backlog is being sent; ``DOWN`` the server
    does not answer; ``SUSPENDED`` a table does not apply what it takes; ``FAILED`` a person is needed.
    """

    LIVE = "live"
    CATCHUP = "catchup"
    DOWN = "down"
    SUSPENDED = "suspended"
    FAILED = "failed"


class CommittedFile(Protocol):
    """A file of the log, as a commit names it. ``path`` is the live segment's."""

    @property
    def stream(self) -> Stream: ...

    @property
    def symbol(self) -> str | None: ...

    @property
    def path(self) -> Path: ...


class Commit(Protocol):
    """What is durable of one file: the live segment up to ``offset``, and every segment before it."""

    @property
    def file(self) -> CommittedFile: ...

    @property
    def offset(self) -> int: ...

    @property
    def last_seq(self) -> int: ...

    @property
    def first_seq(self) -> int: ...


class EventLog(Protocol):
    """A structured log: an event's name and its facts."""

    def debug(self, event: str, **facts: object) -> object: ...

    def info(self, event: str, **facts: object) -> object: ...

    def warning(self, event: str, **facts: object) -> object: ...

    def error(self, event: str, **facts: object) -> object: ...


@dataclass(frozen=True, slots=True)
class SessionDelivery:
    """One session's delivery: rows acknowledged (by their numbers), rows durable but not acknowledged, rows refused."""

    acknowledged_rows: int = 0
    lag_rows: int = 0
    rejected_rows: int = 0


@dataclass(frozen=True, slots=True)
class ReplicatorStatus:
    """How delivery stands at one moment; the counters count since the start.

    ``lag_seconds`` is how long ago everything durable was last acknowledged; 0 while it is. ``problems`` names the
    tables and files that wait for something, each with the reason.
    """

    state: State = State.CATCHUP
    reason: str = ""
    hint: str = ""
    lag_rows: int = 0
    lag_bytes: int = 0
    lag_seconds: float = 0.0
    sent_rows: int = 0
    resent_rows: int = 0
    acknowledged_rows: int = 0
    rejected_rows: int = 0
    requests: int = 0
    failures: int = 0
    rewinds: int = 0
    last_acknowledged_us: int | None = None
    sessions: Mapping[str, SessionDelivery] = field(default_factory=dict)
    problems: Mapping[str, str] = field(default_factory=dict)
