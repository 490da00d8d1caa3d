"""A session's manifest as a person reads it."""

from __future__ import annotations

import io

from rich.console import Console

from collector.cli.render_session import manifest_view
from collector.session.manifest import FileRecord, Manifest, StateChange
from collector.status import SessionStatus


def test_the_whole_story_is_told() -> None:
    """What was asked, which states it had and why, which files it wrote, what it lacks."""
    manifest = Manifest(
        session_id="s1",
        exchange="sim",
        symbols=["BTC_USDT"],
        data_types=["prices"],
        created_us=1_700_000_000_000_000,
        raw_trades=True,
        label="[try]",
        history=[StateChange("failed", 1_700_000_000_000_000, "disk [full]")],
        versions={"python": "3.11"},
        dropped=5,
        lost=["5 rows of prices"],
        files=[FileRecord("prices", "BTC_USDT", "BTC_USDT/prices.csv", 3, 99, first_id="1", last_id="3")],
    )
    status = SessionStatus(
        session_id="s1", exchange="sim", state="failed", symbols=(), data_types=(), directory="d", created_us=0, gaps=2
    )
    screen = io.StringIO()
    Console(file=screen, width=200).print(manifest_view(manifest, status))
    for part in ("[try]", "disk [full]", "(raw trades)", "python 3.11", "99 B", "5 rows of prices", "2, 0 open"):
        assert part in screen.getvalue()
