"""Names that are meant to be read as SQL or as ILP stay names, on every way into the server.

Over PG wire values are bind parameters; ``/exec`` has none, so there each value is a quoted literal; ILP escapes.
Nothing of a symbol, a session id, a label or an error is ever a part of a statement.
"""

from __future__ import annotations

import ast
import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from collector.reading.replica_proof import Source
from collector.reading.table_reader import TableReader
from collector.storage.files import OperatingSystem
from collector.storage.sessions import SessionRow, SessionRows
from collector.storage.survey import survey_segment
from collector.streams import GAPS, PRICES
from tests.storage.conftest import price_row

COLLECTOR = Path(__file__).parent.parent.parent / "collector"
HOSTILE = [
    "A'; DROP TABLE tick_prices; --",
    "A' OR '1'='1",
    'A", B=1i 1700000000000000\\',
    "A,session_id=other,exchange=x y=1",
    "%s %(x)s {0} $1 ?",
    "A\\' -- ",
    "ÄÖÜ_測試",
]


def literal(text: str) -> str:
    return "'" + text.replace("'", "''") + "'"


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_name_is_delivered_verified_and_read_back_as_it_is(
    questdb: Any, make_delivery: Callable[..., Any], tmp_path: Path, name: str
) -> None:
    """As symbol, session id and text of a gap: sent, counted, surveyed, compared; every table still stands."""
    delivery = make_delivery(questdb.settings)
    delivery.session_id = f"{delivery.session_id} {name}"
    delivery.directory = tmp_path / "session_hostile"
    delivery.directory.mkdir()
    file = delivery.file()
    file.symbol = name
    ledger = delivery.file(GAPS)
    plain = name.replace('"', "'").replace(",", ";")  # one field of a line of CSV
    delivery.start()
    delivery.commit(
        file.append(*(price_row(n) for n in range(1, 4))),
        ledger.append(f"1700000000000000,g000001,{plain},prices,stall,,,3,4,2,0,open,,{plain},0,{{seq}}"),
    )
    assert delivery.delivered(20), (delivery.log.events, delivery.replicator.status())

    assert delivery.replicator is not None
    where = f"where session_id = {literal(delivery.session_id)}"
    found = delivery.query(f"select detail, symbol from collection_gaps {where}")  # noqa: S608
    assert found == [[plain, plain]]
    found = delivery.query(f"select symbol, session_id, seq from tick_prices {where} order by seq")  # noqa: S608
    assert found == [[name, delivery.session_id, seq] for seq in (1, 2, 3)]
    span = survey_segment(file.path, PRICES, name, OperatingSystem())

    async def verified() -> bool:
        assert delivery.replicator is not None
        async with asyncio.timeout(30):
            while not await delivery.replicator.held(delivery.session_id, [span]):
                await asyncio.sleep(0.05)
        return True

    assert asyncio.run(verified())
    assert delivery.replicator.status().rewinds == 0
    with TableReader(delivery.settings) as table:
        source = Source(delivery.session_id, "sim", name)
        assert [record[6] for record in table.records(PRICES, source, (0, 10), (0, 2_000_000_000_000_000))] == [1, 2, 3]
        assert table.count(PRICES, source, None) == 3
        assert len(table.positions(PRICES, source, (0, 10))) == 3
        assert table.count(PRICES, Source(f"{delivery.session_id}x", "sim", name), None) == 0
    assert delivery.query("select count() from tables() where table_name = 'tick_prices'") == [[1]]


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_label_is_a_value_of_the_session_s_row(questdb: Any, name: str) -> None:
    """So are its id, its symbols and the text of its error; and it is found by its id."""
    rows = SessionRows(lambda: questdb.settings)
    symbol = name.replace(",", ";")  # symbols are listed with commas
    row = SessionRow(
        session_id=f"hostile {name}", status="failed", exchange="sim", symbols=(symbol,), data_types=("prices",),
        label=name, error=name, created_us=1_700_000_000_000_000, heartbeat_us=1_700_000_000_000_000,
    )  # fmt: skip
    rows.upsert(row)
    for _ in range(2000):
        if (found := rows.get(row.session_id)) is not None:
            break
    assert found is not None
    assert (found.label, found.error, found.symbols, found.session_id) == (name, name, (symbol,), row.session_id)
    assert rows.get(f"hostile {name}' OR '1'='1") is None


def test_no_statement_is_made_of_values() -> None:
    """What puts text together into SQL says, on the line, why that is no value: the list is short, and known."""
    suspicious = []
    for path in sorted(COLLECTOR.rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute) or not node.args:
                continue
            # Everything else takes a LiteralString, which mypy checks; this one takes any text.
            if node.func.attr == "run_text" and not _is_of_our_names(node.args[0]):
                suspicious.append(f"{path.name}:{node.lineno}")
    assert suspicious == []
    marked = {path.name for path in COLLECTOR.rglob("*.py") if "noqa: S608" in path.read_text(encoding="utf-8")}
    assert marked == {"checks.py", "survey.py", "database.py", "table_arrow.py"}


def _is_of_our_names(argument: ast.expr) -> bool:
    """Tell whether only table names, columns and types of our own schema are put into a text."""
    if isinstance(argument, ast.Constant):
        return True
    if isinstance(argument, ast.Attribute):
        # A statement of a migration's file, and one of a plan of retention: a table that there is, and whole numbers.
        return argument.attr in ("text", "statement")
    if isinstance(argument, ast.JoinedStr):
        parts = [ast.unparse(part.value) for part in argument.values if isinstance(part, ast.FormattedValue)]
        return set(parts) <= {"table", "name", "kind", "', '.join(ordered)", "trial"}
    return False
