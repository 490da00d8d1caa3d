"""The pages about exchanges and the registry name the same: nothing is offered undocumented, or documented in vain."""

from __future__ import annotations

import re
from pathlib import Path

from collector.exchanges.registry import EXCHANGES, exchange_class

DOCS = Path(__file__).parent.parent / "docs"
FIELDS = (DOCS / "FIELDS.md").read_text(encoding="utf-8")
ADDING = (DOCS / "ADDING_AN_EXCHANGE.md").read_text(encoding="utf-8")
OFFERED = {(name, stream) for name in EXCHANGES for stream in exchange_class(name).streams}


def rows(text: str) -> list[list[str]]:
    """Return the cells of a page's tables, without their heads."""
    return [
        [cell.strip() for cell in line.strip("|").split(" | ")] for line in text.splitlines() if line.startswith("| `")
    ]


def test_the_semantics_of_every_field_are_told() -> None:
    """Each exchange has its section, with a whole row for each data type that it offers, and no other."""
    told = set()
    for section in re.split(r"^### ", FIELDS, flags=re.MULTILINE)[1:]:
        name = section.partition("\n")[0].strip("` ")
        for row in rows(section):
            assert len(row) == 4, row
            assert all(row), row
            if not name.startswith("ccxt:"):
                told.add((name, row[0].strip("`")))
    assert told == OFFERED


def test_the_evidence_for_every_parser_is_told() -> None:
    """Each exchange and data type has its variants and what they stand on, and nothing else has."""
    found = {(row[0].strip("`"), row[1].strip("`")) for row in rows(ADDING) if not row[0].startswith("`ccxt:")}
    assert found == OFFERED
    assert all(len(row) == 4 and all(row) for row in rows(ADDING))


def test_every_exchange_has_a_file_of_tests() -> None:
    """The golden frames stand where the recipe says."""
    folder = Path(__file__).parent / "exchanges"
    assert [name for name in EXCHANGES if not (folder / f"test_{name}.py").exists()] == []


def test_every_exchange_is_in_the_readme() -> None:
    """The table of exchanges names each."""
    readme = (DOCS.parent / "README.md").read_text(encoding="utf-8")
    assert [name for name in EXCHANGES if f"| `{name}` |" not in readme] == []
