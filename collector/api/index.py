"""The sessions of a data directory as a list: manifests are read once, and again when they change."""

from __future__ import annotations

from pathlib import Path

from collector.errors import CollectorError, SessionNotFound, nearest_names
from collector.reading.sessions import StoredSession
from collector.session.manifest import MANIFEST_FILE, load_manifest

_PREFIX = "session_"


class SessionIndex:
    """Know every session on disk; not for several threads at once.

    Looking again costs a ``stat`` per session: 200 of them take two milliseconds, reading them all takes a hundred.
    """

    def __init__(self, data_dir: Path) -> None:
        self._data_dir = data_dir
        self._known: dict[Path, tuple[tuple[int, int], StoredSession]] = {}

    def list(self) -> list[StoredSession]:
        """Return all sessions whose manifest can be read, newest first."""
        found = {}
        for directory in self._data_dir.glob(f"{_PREFIX}*"):
            session = self._load(directory)
            if session is not None:
                found[directory] = session
        self._known = {directory: self._known[directory] for directory in found}
        return sorted(found.values(), key=lambda one: (one.manifest.created_us, one.session_id), reverse=True)

    def find(self, session_id: str) -> StoredSession:
        """Return a session; raise SessionNotFound with the ids that look like it."""
        directory = self._data_dir / f"{_PREFIX}{session_id}"
        plain = session_id not in ("", ".", "..") and "/" not in session_id and "\0" not in session_id
        session = self._load(directory) if plain else None
        if session is None:
            nearest = nearest_names(session_id, [one.session_id for one in self.list()])
            hint = f"Did you mean {' or '.join(nearest)}?" if nearest else "See the list of sessions."
            raise SessionNotFound(f"There is no session {session_id[:80]!r}.", hint=hint)
        return session

    def _load(self, directory: Path) -> StoredSession | None:
        try:
            facts = (directory / MANIFEST_FILE).stat()
            stamp = (facts.st_mtime_ns, facts.st_size)
            known = self._known.get(directory)
            if known is None or known[0] != stamp:
                known = self._known[directory] = (stamp, StoredSession(directory, load_manifest(directory)))
        except (OSError, CollectorError):
            return None
        return known[1]
