"""A session's states follow one another as the table says."""

from __future__ import annotations

import itertools
from typing import get_args

import pytest

from collector.session.manifest import Manifest
from collector.session.states import (
    FINAL,
    RUNNING,
    TRANSITIONS,
    State,
    close_interrupted,
    mark_interrupted,
    next_state,
)

STATES: tuple[State, ...] = get_args(State)


def found(state: State, duration_s: float | None = None) -> Manifest:
    return Manifest("x", "sim", [], [], 1_000_000, state=state, duration_s=duration_s)


@pytest.mark.parametrize(("before", "after"), list(itertools.product(STATES, STATES)))
def test_only_what_the_table_allows_may_follow(before: State, after: State) -> None:
    """Everything else is a bug, and is raised as one."""
    if after in TRANSITIONS[before]:
        assert next_state(before, after) == after
    else:
        with pytest.raises(ValueError, match="cannot become"):
            next_state(before, after)


def test_every_state_is_running_final_or_interrupted() -> None:
    """And what is final is left by nothing."""
    assert set(STATES) == RUNNING | FINAL | {"interrupted"}
    assert {state for state in STATES if not TRANSITIONS[state]} == FINAL


@pytest.mark.parametrize("state", STATES)
def test_a_session_found_running_was_interrupted(state: State) -> None:
    """One that was final stays what it was."""
    manifest = found(state)
    assert mark_interrupted(manifest, 5) is (state not in FINAL)
    assert manifest.state == (state if state in FINAL else "interrupted")
    assert len(manifest.history) == (state in RUNNING)


def test_an_interrupted_session_is_resumed_or_closed_as_failed() -> None:
    """As the configuration says."""
    manifest = found("interrupted")
    assert not close_interrupted(manifest, 5_000_000, policy="resume")
    assert manifest.state == "interrupted"
    assert close_interrupted(manifest, 5_000_000, policy="close")
    assert (manifest.state, manifest.ended_us) == ("failed", 5_000_000)


@pytest.mark.parametrize(("now_us", "closed"), [(60_999_999, False), (61_000_000, True)])
def test_one_whose_duration_passed_meanwhile_is_completed(now_us: int, closed: bool) -> None:
    """Whatever the configuration says."""
    manifest = found("interrupted", duration_s=60)
    assert close_interrupted(manifest, now_us, policy="resume") is closed
    assert manifest.state == ("completed" if closed else "interrupted")
