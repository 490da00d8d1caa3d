"""The one tree of errors: each is a sentence for the person who sees it, with a hint what to do.

A driver's exception never leaves the module that called the driver: it is translated here with ``raise … from``.
"""

from __future__ import annotations


class CollectorError(Exception):
    """Carry a sentence for a person, a hint what to do, and whether trying again can help.

    Args:
        message: one sentence that says what happened, with the operation and the path or address concerned.
        hint: one sentence that says what to do; empty where nothing can be done.
    """

    retryable = False

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __str__(self) -> str:
        return f"{self.message} {self.hint}".rstrip()


class UsageError(CollectorError):
    """The request itself is wrong: an unknown name, an impossible value, a missing argument."""


class ConfigError(UsageError):
    """A key or a value of the configuration is wrong."""


class UnknownName(UsageError):
    """A name that does not exist, with the nearest ones that do."""

    def __init__(self, kind: str, name: str, known: list[str], *, hint: str = "") -> None:
        nearest = nearest_names(name, known)
        super().__init__(
            f"There is no {kind} {name!r}.",
            hint=hint or (f"Did you mean {' or '.join(nearest)}?" if nearest else f"Known: {', '.join(known[:20])}."),
        )
        self.name = name
        self.nearest = nearest


class MessageError(CollectorError):
    """A message or an answer of an exchange that cannot be read; the connection goes on without it."""


class ExchangeRefused(CollectorError):
    """An exchange answered with an error status.

    Args:
        status: the HTTP status, or 0 where the refusal came over the websocket.
        retry_after_s: how long the exchange asks us to stay away, in seconds; None where it does not say.
        body: the answer's body; empty where there was none.
    """

    def __init__(
        self, message: str, *, status: int = 0, retry_after_s: float | None = None, body: bytes = b"", hint: str = ""
    ) -> None:
        super().__init__(message, hint=hint)
        self.status = status
        self.body = body
        self.retry_after_s = retry_after_s
        self.retryable = status in (0, 418, 429) or status >= 500


class SourceRefused(ExchangeRefused):
    """A source of history answered with an error, in a status or in the body of a good one.

    Args:
        reason: ``rate_limit``, ``unknown_symbol``, ``outage`` (also a page of HTML instead of JSON), or ``refused``.
    """

    def __init__(
        self, message: str, *, reason: str, status: int = 0, retry_after_s: float | None = None, hint: str = ""
    ) -> None:
        super().__init__(message, status=status, retry_after_s=retry_after_s, hint=hint)
        self.reason = reason
        self.retryable = reason in ("rate_limit", "outage")


class ConnectionLost(CollectorError):
    """A websocket or REST connection could not be opened, or ended."""

    retryable = True


class RecordingError(CollectorError):
    """A file of recorded messages cannot be read."""


class LogError(CollectorError):
    """A file of the session log cannot be read or written.

    Args:
        permanent: the cause cannot pass by waiting (no permission, a read-only file system).
    """

    def __init__(self, message: str, *, permanent: bool = False, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.permanent = permanent
        self.retryable = not permanent


class ManifestError(CollectorError):
    """A session's manifest is missing, damaged, or of a later format."""


class SessionNotFound(UsageError):
    """No session of that id is in the data directory."""


class BacktestNotFound(UsageError):
    """No backtest of that id is in the data directory, or its report is gone."""


class DatabaseUnavailable(CollectorError):
    """QuestDB cannot be reached, or did not answer in time; what was sent may have arrived."""

    retryable = True


class DatabaseMisconfigured(CollectorError):
    """QuestDB answers, but not as the configuration expects: credentials, address, version, tables."""


class MigrationError(CollectorError):
    """A migration cannot be run, or does not match what was applied."""


class InstallError(CollectorError):
    """The embedded QuestDB or its Java runtime cannot be installed or started."""


class MissingExtra(CollectorError):
    """What was asked for needs a library that comes with an optional extra, and is not installed."""


class DaemonNotRunning(CollectorError):
    """No daemon answers for this data directory."""


class DaemonRunning(CollectorError):
    """Another daemon holds this data directory."""

    def __init__(self, message: str, *, pid: int, hint: str = "") -> None:
        super().__init__(message, hint=hint)
        self.pid = pid


def nearest_names(name: str, known: list[str], limit: int = 3) -> list[str]:
    """Return up to ``limit`` known names that look like ``name``, nearest first, whatever the case."""
    from difflib import get_close_matches

    folded = {candidate.casefold(): candidate for candidate in known}
    return [folded[match] for match in get_close_matches(name.casefold(), folded, n=limit, cutoff=0.5)]
