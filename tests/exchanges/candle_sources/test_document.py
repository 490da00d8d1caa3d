"""The table of sources in docs/HISTORY.md says what the sources say."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from collector.exchanges.candle_sources.intervals import INTERVALS_US
from collector.exchanges.candle_sources.registry import DEFAULT_ORDER, SOURCES, create_source
from collector.exchanges.candle_sources.walk import part_of
from tests.exchanges.candle_sources.conftest import NOW_US

DOCUMENT = (Path(__file__).parents[3] / "docs" / "HISTORY.md").read_text(encoding="utf-8")
LINES = [line.strip("|").split("|") for line in DOCUMENT.splitlines() if line.startswith("| `")]
NOTHING = "\N{EN DASH}"
ROWS = {cells[0].strip(" `"): [cell.strip() for cell in cells[1:]] for cells in LINES}


def test_every_source_is_in_the_table() -> None:
    """In the order of the registry, and no other; the default order is told."""
    assert list(ROWS) == list(SOURCES)
    assert ", ".join(f"`{name}`" for name in DEFAULT_ORDER) in DOCUMENT.replace("\n", " ")


@pytest.mark.parametrize("name", SOURCES)
def test_a_row_says_what_the_source_says(bench: Any, name: str) -> None:
    """Its kind, page, order, limits, and what has to be folded."""
    source, limits = create_source(name), create_source(name).limits
    kind, page, order, limit, pace, folded, back, traps = ROWS[name]
    assert kind == source.kind
    assert page == (NOTHING if name == "coingecko" else str(source.page_size("1h")))
    assert order == ("newest first" if source.newest_first else "oldest first")
    assert limit == f"{limits.weight} in {limits.per_s:g} s"
    assert pace == (f"{limits.pace_s:g} s" if limits.pace_s else NOTHING)
    missing = [interval for interval in INTERVALS_US if interval not in source.intervals]
    possible = [
        interval for interval in missing if not (name == "coingecko" and INTERVALS_US[interval] < 1_800_000_000)
    ]
    assert folded == (" ".join(possible) or NOTHING)
    for interval in possible:
        assert part_of(source, interval) in source.intervals
    limited = any(source.reach_us(interval, NOW_US) is not None for interval in source.intervals)
    assert (back == "to the listing") is not limited
    assert traps
