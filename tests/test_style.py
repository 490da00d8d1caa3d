"""What tools don't check by themselves: layers, names, one task tree, exchanges unnamed in generic code."""

from __future__ import annotations

import ast
import configparser
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from collector.exchanges.registry import EXCHANGES

ROOT = Path(__file__).parent.parent
SOURCES = sorted((ROOT / "collector").rglob("*.py"))
FORBIDDEN_WORDS = frozenset({"data", "info", "manager", "handler", "util", "utils", "helper", "helpers"})
NAMED_BY_DEFAULT = {"collector/cli/run.py"}
"""Where an exchange's name is a person's choice: the default of an option."""
SIMULATED = {"collector/sim/history_answers.py", "collector/sim/history_contracts.py"}
"""Where exchanges are what is simulated: their REST dialects, which are no part of the product's path."""


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def nodes(path: Path) -> Iterator[ast.AST]:
    return ast.walk(ast.parse(path.read_text(encoding="utf-8")))


def words(name: str) -> set[str]:
    """Split a name in snake or camel case into its words."""
    spaced = "".join(f"_{letter.lower()}" if letter.isupper() else letter for letter in name)
    return set(spaced.split("_"))


EVERY = pytest.mark.parametrize("path", SOURCES, ids=name_of)


def test_imports_point_one_way() -> None:
    """import-linter keeps the layers that ARCHITECTURE.md draws."""
    code = "import sys; from importlinter.cli import lint_imports; sys.exit(lint_imports(no_cache=True))"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "COLUMNS": "200", "PYTHONUTF8": "1"},
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_layer_exists_or_is_still_to_come() -> None:
    """A layer of the contract is a module of ours, unless it stands in parentheses."""
    contract = configparser.ConfigParser()
    contract.read(ROOT / ".importlinter", encoding="utf-8")
    layers = contract["importlinter:contract:layers"]["layers"].replace("|", " ").replace(":", " ").split()
    present = {path.stem for path in (ROOT / "collector").iterdir()}
    assert [layer for layer in layers if not layer.startswith("(") and layer not in present] == []


@EVERY
def test_modules_and_classes_are_named_after_what_they_are(path: Path) -> None:
    """Words that fit everything say nothing."""
    classes = [node.name for node in nodes(path) if isinstance(node, ast.ClassDef) and not node.name.startswith("_")]
    assert [name for name in (path.stem, *classes) if words(name) & FORBIDDEN_WORDS] == []


@EVERY
def test_tasks_belong_to_a_task_group(path: Path) -> None:
    """A task that nobody waits for fails unseen."""
    bare = [
        node.lineno
        for node in nodes(path)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and (
            node.func.attr == "ensure_future"
            or (
                node.func.attr == "create_task" and ast.unparse(node.func.value).endswith(("asyncio", "loop", "loop()"))
            )
        )
    ]
    assert bare == []


@EVERY
def test_every_module_class_and_function_for_others_says_what_it_is(path: Path) -> None:
    """A docstring that begins with a sentence."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    public = [
        node
        for node in tree.body
        if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and not node.name.startswith("_")
    ]
    silent = [node.name for node in public if not ast.get_docstring(node)]
    if tree.body and not ast.get_docstring(tree):
        silent.append(path.stem)
    assert silent == []


@EVERY
def test_generic_code_names_no_exchange(path: Path) -> None:
    """One exchange is one file; only the registry lists them. The simulated one is ours, and may be named."""
    if name_of(path).startswith("collector/exchanges/") or name_of(path) in NAMED_BY_DEFAULT | SIMULATED:
        return
    real = set(EXCHANGES) - {"sim"}
    named = [node.lineno for node in nodes(path) if isinstance(node, ast.Constant) and node.value in real]
    assert named == []
