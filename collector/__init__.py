"""A streaming tick collector: exchange websockets to CSV and QuestDB, exact, with every hole written down.

For reading sessions back: ``collector.sessions()`` and ``collector.open_session(id)``.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collector.reading.session_reader import open_session as open_session
    from collector.reading.session_reader import sessions as sessions

__all__ = ["open_session", "sessions"]


def __getattr__(name: str) -> Any:
    """Import what reads sessions when it is first asked for: commands that don't read must start at once."""
    if name in __all__:
        from collector.reading import session_reader

        return getattr(session_reader, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
