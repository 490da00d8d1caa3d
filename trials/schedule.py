"""What goes wrong and when: a function of the seed, so that a run can be repeated."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Any, Literal

Actor = Literal["daemon", "database", "network", "feed"]


@dataclass(frozen=True)
class Kind:
    """A kind of fault: how long it lasts (seconds, from … to), how often it happens at least."""

    name: str
    actor: Actor
    hold_s: tuple[float, float] = (0.0, 0.0)
    least: int = 1


KINDS: tuple[Kind, ...] = (
    Kind("kill daemon", "daemon", (0.0, 2.0), 3),
    Kind("freeze daemon", "daemon", (0.5, 4.0)),
    Kind("disk full", "daemon", (1.5, 3.5)),
    Kind("file size limit", "daemon", (1.5, 3.0)),
    Kind("no descriptors", "daemon", (1.0, 3.0)),
    Kind("kill database", "database", (0.0, 3.0), 2),
    Kind("freeze database", "database", (2.0, 6.0)),
    Kind("suspend table", "database", (0.5, 1.5)),
    Kind("drop table", "database", (0.5, 1.5)),
    Kind("back up database", "database", (0.0, 0.5)),
    Kind("restore database", "database", (0.0, 1.0)),
    Kind("lost answer", "network"),
    Kind("cut request", "network"),
    Kind("cut answer", "network"),
    Kind("reset", "network"),
    Kind("false 500", "network"),
    Kind("false 503", "network"),
    Kind("black hole", "network", (1.0, 4.0)),
    Kind("refused connections", "network", (0.5, 2.0)),
    Kind("drop", "feed", least=2),
    Kind("close", "feed"),
    Kind("shutdown", "feed"),
    Kind("stall", "feed"),
    Kind("skip", "feed", least=2),
    Kind("duplicate", "feed", least=2),
    Kind("reorder", "feed", least=2),
    Kind("malformed", "feed", least=2),
    Kind("oversized", "feed"),
    Kind("refuse", "feed"),
    Kind("fail", "feed"),
    Kind("slow", "feed"),
    Kind("stale", "feed"),
    Kind("limit", "feed"),
)
_REST = ("fail", "slow", "stale", "limit")
_CLEAN_S = 2.0
"""At the beginning, so that there is a session to be disturbed."""


@dataclass(frozen=True)
class Step:
    """One fault: when it begins (seconds from the start), how long it lasts, and its parameters."""

    at_s: float
    actor: Actor
    kind: str
    hold_s: float
    parameters: dict[str, Any]


def make_schedule(seed: int, seconds: float, *, rate: float, without: frozenset[str] = frozenset()) -> list[Step]:
    """Return what happens in a run, in order of time: every kind at least as often as it must, and more at random."""
    chance = random.Random(seed)
    steps: list[Step] = []
    for actor in ("daemon", "database", "network", "feed"):
        kinds = [kind for kind in KINDS if kind.actor == actor and kind.name not in without]
        chosen = [kind for kind in kinds for _ in range(kind.least)]
        rare = {"back up database", "restore database", "drop table"}
        density_s = {"daemon": 6.0, "database": 7.0, "network": 2.5, "feed": 1.6}[actor]
        more = max(0, round(seconds / density_s) - len(chosen))
        chosen += chance.choices([kind for kind in kinds if kind.name not in rare], k=more)
        chance.shuffle(chosen)
        chosen.sort(key=lambda kind: kind.name in _REST, reverse=True)  # they wait for a request: arm them early
        _backup_first(chosen)
        gap_s = (seconds - _CLEAN_S) / max(1, len(chosen))
        for index, kind in enumerate(chosen):
            at_s = _CLEAN_S + gap_s * (index + chance.uniform(0.0, 0.6))
            hold_s = round(chance.uniform(*kind.hold_s), 3)
            steps.append(Step(round(at_s, 3), kind.actor, kind.name, hold_s, _parameters(kind.name, chance, rate)))
    return sorted(steps, key=lambda step: step.at_s)


def _backup_first(chosen: list[Kind]) -> None:
    names = [kind.name for kind in chosen]
    if "restore database" in names and "back up database" in names:
        first, second = sorted((names.index("back up database"), names.index("restore database")))
        backup = next(kind for kind in chosen if kind.name == "back up database")
        restore = next(kind for kind in chosen if kind.name == "restore database")
        chosen[first], chosen[second] = backup, restore


def _parameters(kind: str, chance: random.Random, rate: float) -> dict[str, Any]:
    any_channel = chance.choice(["*@aggTrade", "*@depth*", "*"])
    after = chance.randrange(0, 200)
    known: dict[str, dict[str, Any]] = {
        "drop": {"channel": any_channel, "after": after},
        "close": {"channel": any_channel, "after": after, "status": chance.choice([1001, 1006 + 5, 1013])},
        "shutdown": {"seconds": 0.5},
        "stall": {"channel": chance.choice(["*", "*@aggTrade"]), "seconds": round(chance.uniform(2, 5), 1)},
        "skip": {"channel": chance.choice(["*@aggTrade", "*@depth*"]), "n": chance.randrange(1, 60)},
        "duplicate": {"channel": "*@aggTrade", "n": chance.randrange(1, 400)},
        "reorder": {
            "channel": "*@aggTrade",
            "n": chance.choice([chance.randrange(1, 20), round(rate * chance.uniform(0.6, 1.2))]),
        },
        "malformed": {"channel": "*@aggTrade", "n": chance.randrange(1, 5)},
        "oversized": {"channel": "*@aggTrade", "size": 3 * 1024 * 1024},
        "refuse": {"status": chance.choice([500, 502, 503])},  # a 429 keeps us away for a minute, as it should
        "fail": {"path": "/api/v3/depth", "status": chance.choice([500, 503])},
        "slow": {"path": "/api/v3/*", "seconds": 2},
        "stale": {"path": "/api/v3/depth", "n": chance.randrange(5, 40)},
        "limit": {"path": "/api/v3/*", "seconds": 2},
        "cut request": {"after_bytes": chance.choice([0, 10, 200, 700, 5_000, 60_000])},
        "cut answer": {"after_bytes": chance.randrange(0, 60)},
        "suspend table": {"table": chance.choice(["tick_prices", "tick_orderbook", "collection_gaps"])},
        "drop table": {"table": chance.choice(["tick_prices", "tick_orderbook", "collection_gaps"])},
        "false 500": {"times": chance.randrange(1, 5)},
        "false 503": {"times": chance.randrange(1, 5)},
    }
    return known.get(kind, {})
