"""A schedule is a function of its seed, and leaves no kind of fault out."""

from __future__ import annotations

from collections import Counter

import pytest

from trials.schedule import KINDS, make_schedule


@pytest.mark.parametrize("seed", range(20))
def test_every_kind_happens_as_often_as_it_must(seed: int) -> None:
    """In a minute and in half of one."""
    for seconds in (30, 60):
        counted = Counter(step.kind for step in make_schedule(seed, seconds, rate=2000))
        assert [kind.name for kind in KINDS if counted[kind.name] < kind.least] == []


def test_the_same_seed_gives_the_same_schedule() -> None:
    """And another one another."""
    assert make_schedule(7, 60, rate=2000) == make_schedule(7, 60, rate=2000)
    assert make_schedule(7, 60, rate=2000) != make_schedule(8, 60, rate=2000)


@pytest.mark.parametrize("seed", range(20))
def test_steps_are_in_order_and_within_the_time(seed: int) -> None:
    """A backup is made before it is restored."""
    steps = make_schedule(seed, 60, rate=2000)
    times = [step.at_s for step in steps]
    assert times == sorted(times)
    assert times[-1] < 60
    kinds = [step.kind for step in steps]
    assert kinds.index("back up database") < kinds.index("restore database")


def test_what_is_left_out_does_not_happen() -> None:
    """For a machine where it cannot."""
    steps = make_schedule(1, 60, rate=2000, without=frozenset({"disk full"}))
    assert "disk full" not in {step.kind for step in steps}
