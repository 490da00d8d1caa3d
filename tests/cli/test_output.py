"""How errors are described and facts printed."""

from __future__ import annotations

import json

import click
import pytest

from collector.cli.output import Shown, describe, print_json, print_view
from collector.errors import CollectorError, UnknownName
from collector.status import BufferStatus


def wrapped(cause: Exception) -> click.ClickException:
    """Return an error of click's as ``raise … from`` makes it."""
    error = click.ClickException("shown by click")
    error.__cause__ = cause
    return error


@pytest.mark.parametrize(
    ("error", "shown"),
    [
        (CollectorError("No.", hint="Do."), Shown("No.", "Do.", "CollectorError", 1)),
        (UnknownName("x", "y", ["yy"]), Shown("There is no x 'y'.", "Did you mean yy?", "UnknownName", 2)),
        (wrapped(CollectorError("No.", hint="Do.")), Shown("No.", "Do.", "CollectorError", 1)),
        (wrapped(ValueError("driver")), Shown("shown by click", "", "ClickException", 1)),
        (click.UsageError("Bad."), Shown("Bad.", "`collector --help` says more.", "UsageError", 2)),
    ],
)
def test_an_error_is_shown_with_its_kind_and_exit_status(error: Exception, shown: Shown) -> None:
    """One of ours that click's wraps is shown itself."""
    assert describe(error) == shown


def test_a_fault_of_ours_is_named() -> None:
    """With a way to see where."""
    shown = describe(KeyError("x"))
    assert shown.message == "KeyError: 'x'"
    assert "COLLECTOR_DEBUG=1" in shown.hint
    assert shown.exit_status == 1


def test_facts_are_one_line_of_json(capsys: pytest.CaptureFixture[str]) -> None:
    """Structs and what JSON does not know included."""
    print_json({"buffer": BufferStatus(received=1), "error": ValueError("no")})
    out = capsys.readouterr().out
    assert out.count("\n") == 1
    assert json.loads(out)["buffer"]["received"] == 1


def test_into_a_pipe_nothing_is_cut(capsys: pytest.CaptureFixture[str]) -> None:
    """A line is as long as it is, without blanks at its end."""
    print_view("x" * 300 + "   ")
    assert capsys.readouterr().out == "x" * 300 + "\n"
