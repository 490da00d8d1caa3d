"""The list of faults in the documentation and the tests agree."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs" / "FAULTS.md"
FAULTS = 44
NOT_HERE = {16}


def documented() -> dict[int, list[str]]:
    """Return, by number, the tests that a fault's row names."""
    rows = re.findall(r"^\| (\d+) \|.*\|(.*)\|$", DOCUMENT.read_text(encoding="utf-8"), re.MULTILINE)
    return {int(number): re.findall(r"`([^`]+)`", tests) for number, tests in rows}


def functions(path: Path) -> set[str]:
    """Return the names of a file's functions, those of classes too."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}


def test_every_fault_is_listed_once() -> None:
    """All of them, but for the ones that are said not to concern this project."""
    assert sorted(documented()) == sorted(set(range(1, FAULTS + 1)) - NOT_HERE)


def test_every_fault_names_tests_that_exist() -> None:
    """A test that was renamed, moved or removed takes its row with it."""
    missing = [
        f"{number}: {test}"
        for number, tests in documented().items()
        for test in tests or ["no test"]
        if (path := ROOT / test.partition("::")[0]).suffix != ".py"
        or not path.is_file()
        or test.partition("::")[2] not in functions(path)
    ]
    assert missing == []


def test_every_test_of_a_fault_is_listed_at_its_number() -> None:
    """Their names begin with it."""
    listed = documented()
    for path in sorted(Path(__file__).parent.glob("test_of_*.py")):
        for name in sorted(functions(path)):
            if name.startswith("test_"):
                number = re.match(r"test_(\d\d)_", name)
                assert number, f"{name} does not say which fault it is of"
                assert f"tests/faults/{path.name}::{name}" in listed[int(number[1])]
