"""What a session can be, and what may follow; which sessions were interrupted, and what becomes of them. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Literal

from collector.session.manifest import Manifest, StateChange

State = Literal["starting", "active", "degraded", "stopping", "completed", "failed", "interrupted"]

TRANSITIONS: Mapping[State, frozenset[State]] = {
    "starting": frozenset({"active", "degraded", "stopping", "failed", "interrupted"}),
    "active": frozenset({"degraded", "stopping", "failed", "interrupted"}),
    "degraded": frozenset({"active", "starting", "stopping", "failed", "interrupted"}),
    "stopping": frozenset({"completed", "failed", "interrupted"}),
    "interrupted": frozenset({"starting", "completed", "failed"}),
    "completed": frozenset(),
    "failed": frozenset(),
}
"""From each state, the states that may follow. What is final has none."""

RUNNING: frozenset[str] = frozenset({"starting", "active", "degraded", "stopping"})
"""States in which a process is at work; one found without its process was interrupted."""

FINAL: frozenset[str] = frozenset({"completed", "failed"})


def next_state(state: State, wanted: State) -> State:
    """Return the state wanted where it may follow, and raise ValueError where it may not."""
    if wanted not in TRANSITIONS[state]:
        raise ValueError(f"A session that is {state} cannot become {wanted}.")
    return wanted


def mark_interrupted(manifest: Manifest, now_us: int) -> bool:
    """Note that a session was found running without its process; return whether it was."""
    if manifest.state not in RUNNING:
        return manifest.state == "interrupted"
    manifest.state = "interrupted"
    manifest.reason = "the daemon ended without stopping it"
    manifest.history.append(StateChange("interrupted", now_us, manifest.reason))
    return True


def close_interrupted(manifest: Manifest, now_us: int, *, policy: Literal["resume", "close"]) -> bool:
    """Close an interrupted session that is not to be resumed; return whether it was closed.

    One whose duration passed meanwhile is completed, whatever the policy.
    """
    since_us = manifest.created_us if manifest.started_us is None else manifest.started_us
    over = manifest.duration_s is not None and now_us >= since_us + manifest.duration_s * 1_000_000
    if policy == "resume" and not over:
        return False
    state: State = "completed" if over else "failed"
    manifest.state = next_state("interrupted", state)
    manifest.reason = "its duration passed while no daemon ran" if over else "the daemon ended without stopping it"
    manifest.ended_us = now_us
    manifest.history.append(StateChange(state, now_us, manifest.reason))
    return True
