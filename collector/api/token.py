"""The API's token: where it lies and how it is made. Nothing else is imported, because every daemon needs it."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from collector.control import FOLDER

TOKEN_FILE = "api.token"  # noqa: S105  a file's name


def token_path(data_dir: Path) -> Path:
    """Return where the token of a data directory's API is."""
    return data_dir.resolve() / FOLDER / TOKEN_FILE


def ensure_token(data_dir: Path) -> str:
    """Return the token of a data directory's API, made where there is none: 256 bits, in a file of mode 0600."""
    path = token_path(data_dir)
    try:
        known = path.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError):
        known = ""
    if known:
        path.chmod(0o600)
        return known
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    token = secrets.token_urlsafe(32)
    new = path.with_suffix(".tmp")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as file:
        file.write(token + "\n")
    new.replace(path)
    return token
