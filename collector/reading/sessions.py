"""Find sessions in a data directory, by their manifests."""

from __future__ import annotations

from pathlib import Path

import msgspec

from collector.errors import ManifestError, SessionNotFound, nearest_names
from collector.session.manifest import MANIFEST_FILE, Manifest, load_manifest

_PREFIX = "session_"


class StoredSession(msgspec.Struct, frozen=True):
    """A session as it lies on disk: its directory and its manifest."""

    directory: Path
    manifest: Manifest

    @property
    def session_id(self) -> str:
        return self.manifest.session_id


def list_sessions(data_dir: Path) -> tuple[list[StoredSession], list[str]]:
    """Return the sessions of a data directory, oldest first, and a sentence for each directory that cannot be read."""
    found: list[StoredSession] = []
    problems: list[str] = []
    for directory in sorted(data_dir.glob(f"{_PREFIX}*")) if data_dir.is_dir() else []:
        if not directory.is_dir():
            continue
        try:
            found.append(StoredSession(directory, load_manifest(directory)))
        except ManifestError as error:
            problems.append(str(error))
    found.sort(key=lambda session: (session.manifest.created_us, session.session_id))
    return found, problems


def find_session(data_dir: Path, name: str) -> StoredSession:
    """Return a session by its id, or by the path of its directory.

    Raises:
        SessionNotFound: there is none, with the ids that look like it.
        ManifestError: its manifest cannot be read.
    """
    for directory in (data_dir / f"{_PREFIX}{name}", data_dir / name, Path(name)):
        if _is_plain(name, directory, data_dir) and (directory / MANIFEST_FILE).is_file():
            return StoredSession(directory, load_manifest(directory))
    known = [session.session_id for session in list_sessions(data_dir)[0]]
    nearest = nearest_names(name, known)
    hint = f"Did you mean {' or '.join(nearest)}?" if nearest else "See `collector sessions`."
    raise SessionNotFound(f"There is no session {name!r} in {data_dir}.", hint=hint)


def _is_plain(name: str, directory: Path, data_dir: Path) -> bool:
    """Say whether an id stays inside the data directory; a path is what the caller names, wherever it is."""
    return directory == Path(name) or (
        "/" not in name and name not in ("", ".", "..") and data_dir in directory.parents
    )
