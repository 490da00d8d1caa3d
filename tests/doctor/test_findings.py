"""Findings are told and mended one by one."""

from __future__ import annotations

import errno

from collector.doctor.findings import Case, Diagnosis, case, mend_all


def refuse() -> None:
    raise OSError(errno.EACCES, "no right to")


def make() -> list[Case]:
    done: list[str] = []
    return [
        case("a", "one", "It is broken.", "It is mended.", mend=lambda: done.append("one")),
        case("b", "two", "It is broken, too.", "It would be mended.", mend=refuse),
        case("c", "three", "It is worth knowing.", weight="note"),
        case("d", "four", "It takes a person.", "Do it."),
    ]


def test_one_that_cannot_be_mended_leaves_the_others_alone() -> None:
    """Each says what became of it."""
    cases = make()
    mend_all(cases)
    assert [each.finding.fixed for each in cases] == [True, False, False, False]
    assert "no right to" in cases[1].finding.failure


def test_the_text_says_what_is_done_and_what_is_left() -> None:
    """A line per finding, what would be done, and a count."""
    cases = make()
    diagnosis = Diagnosis("data", 2, "off", [each.finding for each in cases])
    assert "problem  one: It is broken.\n         --fix: It is mended." in diagnosis.text()
    assert "3 problems, 0 mended, 3 left; `collector doctor --fix` mends 2 of them." in diagnosis.text()
    assert not diagnosis.healthy
    mend_all(cases)
    assert "mended   one" in diagnosis.text()
    assert "could not be mended: [Errno 13] no right to" in diagnosis.text()
    assert "3 problems, 1 mended, 2 left" in diagnosis.text()


def test_notes_alone_are_healthy() -> None:
    """They do not change the exit status."""
    assert Diagnosis("data", 0, "off", [make()[2].finding]).healthy
    assert "Nothing is wrong." in Diagnosis("data", 0, "off").text()
