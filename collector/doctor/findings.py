"""What an examination finds: a sentence, what would be done about it, and, where it can be done, how."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import msgspec

from collector.errors import CollectorError

Weight = Literal["problem", "note"]
"""A note is worth knowing and wants nothing done: it does not change the exit status."""


class Finding(msgspec.Struct, kw_only=True):
    """One thing that is not as it should be.

    Args:
        code: what kind of thing it is, for programs.
        subject: the session, table or file that is concerned.
        problem: a sentence that says what is wrong.
        remedy: what ``--fix`` does, or what a person has to do.
        fixable: whether ``--fix`` can do it.
        fixed: whether it did; ``failure`` says why not.
    """

    code: str
    subject: str
    problem: str
    remedy: str = ""
    weight: Weight = "problem"
    fixable: bool = False
    fixed: bool = False
    failure: str = ""


@dataclass(frozen=True, slots=True)
class Case:
    """A finding and how it is mended; None where that takes a person."""

    finding: Finding
    mend: Callable[[], object] | None = None


def case(
    code: str,
    subject: str,
    problem: str,
    remedy: str = "",
    *,
    weight: Weight = "problem",
    mend: Callable[[], object] | None = None,
) -> Case:
    """Make a case; it is fixable where there is a way to mend it."""
    finding = Finding(
        code=code, subject=subject, problem=problem, remedy=remedy, weight=weight, fixable=mend is not None
    )
    return Case(finding, mend)


def mend_all(cases: list[Case]) -> None:
    """Mend what can be mended, in the order in which it was found; one that fails leaves the others alone."""
    for each in cases:
        if each.mend is None:
            continue
        try:
            each.mend()
        except (CollectorError, OSError) as error:
            each.finding.failure = str(error)
        else:
            each.finding.fixed = True


class Diagnosis(msgspec.Struct):
    """Everything that was found. ``examined`` counts the sessions; ``database`` says what was asked, or why nothing."""

    data_dir: str
    examined: int = 0
    database: str = ""
    findings: list[Finding] = []

    @property
    def healthy(self) -> bool:
        """Say whether nothing is wrong (any more)."""
        return all(finding.fixed or finding.weight == "note" for finding in self.findings)

    def text(self) -> str:
        """Return it for a person: a line per finding, with what is or was done."""
        lines = [_line(finding) for finding in self.findings]
        problems = [finding for finding in self.findings if finding.weight == "problem"]
        left = [finding for finding in problems if not finding.fixed]
        lines.append(f"{self.data_dir}: {self.examined} sessions examined; database: {self.database}.")
        if not problems:
            lines.append("Nothing is wrong.")
        else:
            fixable = sum(finding.fixable for finding in left)
            hint = f"; `collector doctor --fix` mends {fixable} of them" if fixable else ""
            lines.append(f"{len(problems)} problems, {len(problems) - len(left)} mended, {len(left)} left{hint}.")
        return "\n".join(lines)


def _line(finding: Finding) -> str:
    mark = "mended" if finding.fixed else finding.weight
    lines = f"{mark:<8} {finding.subject}: {finding.problem}"
    if finding.failure:
        return f"{lines}\n         could not be mended: {finding.failure}"
    if finding.remedy and not finding.fixed:
        lines += f"\n         {'--fix: ' if finding.fixable else ''}{finding.remedy}"
    return lines
