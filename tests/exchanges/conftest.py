"""Fixtures for the exchanges: where recordings of real messages are, if they are."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def recordings() -> Path:
    """The folder of recordings that COLLECTOR_RECORDINGS names; skips visibly where it names none."""
    folder = os.environ.get("COLLECTOR_RECORDINGS")
    if not folder:
        pytest.skip("COLLECTOR_RECORDINGS is not set: no recordings of real messages")
    return Path(folder)
