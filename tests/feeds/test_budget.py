"""A host's budget for history: never more than it allows in any window, at its pace, and with an ear for its count."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from collector.clock import ManualClock
from collector.exchanges.base import Limits
from collector.feeds.allowance import Allowance, Ban
from collector.feeds.budget import Budget


def test_no_window_has_more_than_the_limit(run: Any) -> None:
    """Forty weights in two seconds: whenever a span of two begins, no more are spent in it."""

    async def scenario() -> None:
        budget = Budget(40, 2, clock=ManualClock())
        loop, spent = asyncio.get_running_loop(), []
        while not spent or loop.time() - spent[0] < 3:
            await budget.spend(2)
            spent.append(loop.time())
        for at in spent:
            # A timer may fire a little late, which can only bring two spans closer: half a weight of slack.
            assert sum(2 for other in spent if at <= other < at + 1.95) <= 40

    run(scenario())


def test_more_than_a_burst_counts_as_one(run: Any) -> None:
    """A weight that the bucket cannot hold is sent all the same."""
    run(asyncio.wait_for(Budget(6, 0.1, clock=ManualClock()).spend(1000), 5))


def test_the_hosts_own_count_is_waited_for(run: Any) -> None:
    """From nine tenths on, until its next minute; what is no number is no count."""
    clock = ManualClock(1_700_000_050_000_000)  # 10 s before a minute is over
    waited: list[float] = []

    async def sleep(seconds: float) -> None:
        waited.append(seconds)
        clock.advance(seconds)

    async def scenario() -> None:
        budget = Budget(1000, 60, clock=clock, used_header="Used", sleep=sleep)
        for used in ("899", "", "many", "-950"):
            budget.hear({"Used": used})
        budget.hear({"Other": "999"})
        await budget.spend(1)
        assert waited == []
        budget.hear({"Used": "900"})
        await budget.spend(1)
        await budget.spend(1)
        assert waited == [pytest.approx(60 - 1_700_000_050 % 60)]
        assert budget.waits == 1

    run(scenario())


def test_bans_are_shared(run: Any) -> None:
    """By all budgets of an address; with live feeds where there are any, and what is spent is spent there too."""
    clock = ManualClock()
    ban = Ban(clock)
    one, other = Budget(10, 1, clock=clock, ban=ban), Budget(20, 1, clock=clock, ban=ban)
    one.rest_ban.extend(30)
    assert other.rest_ban.remaining_s == 30

    async def scenario() -> None:
        live = Allowance(Limits(1, 1, 1, 1, None, weight_per_min=600), clock, snapshots_per_s=1)
        shared = Budget(1000, 1, clock=clock, live=lambda: live)
        assert shared.rest_ban is live.rest_ban
        await shared.spend(100)
        assert not live.weight.has_capacity(1)

    run(scenario())
