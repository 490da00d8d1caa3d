"""A session's id and its directory."""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from collector.errors import UsageError

_SESSION_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


def new_session_id(now_us: int, exchange: str, random: Callable[[], str] = lambda: secrets.token_hex(2)) -> str:
    """Return a session id that says when and where: ``20261121-081500-binance-7f3a``.

    Args:
        random: gives the four hexadecimal digits at the end.
    """
    at = datetime.fromtimestamp(now_us / 1_000_000, UTC)
    return check_session_id(f"{at:%Y%m%d-%H%M%S}-{exchange.replace(':', '_')}-{random()}")


def check_session_id(session_id: str) -> str:
    """Return a session id that can name a directory; raise UsageError otherwise."""
    if not _SESSION_ID.fullmatch(session_id):
        raise UsageError(
            f"{session_id[:80]!r} is no session id.", hint="Use 1 to 64 letters, digits, hyphens and underscores."
        )
    return session_id


def session_directory(data_dir: Path, session_id: str) -> Path:
    """Return a session's directory, which is inside the data directory whatever the id and whatever links stand there.

    Raises:
        UsageError: the id is none, or its directory would be outside.
    """
    directory = data_dir / f"session_{check_session_id(session_id)}"
    if not directory.resolve().is_relative_to(data_dir.resolve()):
        raise UsageError(f"{directory} leads out of the data directory.")
    return directory
