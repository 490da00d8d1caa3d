"""What one exchange allows this address, and what is left of it: one object for everybody here who asks it.

Exchanges count requests, connections and bans by address, so all sessions of a daemon that ask the same server share
one of these: its budget of weights, its pace of snapshots, its connection attempts, and its bans.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, MutableMapping
from typing import Protocol

from aiolimiter import AsyncLimiter

from collector.clock import Clock
from collector.exchanges.base import Exchange, Limits

_CONNECTS_WINDOW_S = 300
_WEIGHT_WINDOW_S = 60
_BURST_SHARE = 6
"""One part in so many of a limit may be used at once; the rest comes back evenly, so that no window has more."""


class Ban:
    """Until when an exchange wants to be left alone; it only grows."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._until_s = 0.0

    @property
    def remaining_s(self) -> float:
        """For how many more seconds; 0 where the exchange does not mind."""
        return max(0.0, self._until_s - self._clock.monotonic_s())

    def extend(self, seconds: float) -> None:
        """Stay away for so long from now on, or longer where that was known already."""
        self._until_s = max(self._until_s, self._clock.monotonic_s() + seconds)


def limiter(limit: int, window_s: float) -> AsyncLimiter:
    """Return a limiter that lets no more than ``limit`` through in any window of that many seconds.

    A leaky bucket as large as the limit would let twice as much through: all at once, and as much again as it empties.
    """
    burst = max(1, limit // _BURST_SHARE)
    return AsyncLimiter(burst, window_s * burst / (limit - burst) if limit > burst else window_s)


class RestAllowance(Protocol):
    """What a REST client asks before each request, and tells of each answer."""

    @property
    def rest_ban(self) -> Ban: ...

    async def spend(self, weight: int) -> None:
        """Wait until a request of this weight may be sent, and take it from the budget."""
        ...

    def hear(self, headers: Mapping[str, str]) -> None:
        """Take notice of an answer's headers."""
        ...


class Allowance:
    """One exchange's limits, as they are used up.

    Args:
        limits: what the exchange allows one address.
        snapshots_per_s: how many order books may be asked for each second, over all symbols and sessions.
    """

    def __init__(self, limits: Limits, clock: Clock, *, snapshots_per_s: float) -> None:
        self._limits = limits
        self._spare: AsyncLimiter | None = None
        self.weight = limiter(limits.weight_per_min, _WEIGHT_WINDOW_S)
        self.snapshots = AsyncLimiter(max(1.0, snapshots_per_s), max(1.0, 1 / snapshots_per_s))
        self.connects = limiter(limits.connects_per_5_min, _CONNECTS_WINDOW_S)
        self.rest_ban = Ban(clock)
        self.connect_ban = Ban(clock)
        self.doubling = asyncio.Lock()
        """Held while a connection and its successor are both open: streams count twice then, so it is one at a time."""

    async def spend(self, weight: int) -> None:
        """Wait until a request of this weight fits into the minute's budget, and take it."""
        await self.weight.acquire(min(weight, self.weight.max_rate))

    async def leave_room(self, weight: int, share: float) -> None:
        """Wait, before spending, until all that can wait takes no more than a share of the minute's budget."""
        if self._spare is None:
            self._spare = limiter(max(1, int(self._limits.weight_per_min * share)), _WEIGHT_WINDOW_S)
        await self._spare.acquire(min(weight, self._spare.max_rate))

    def hear(self, headers: Mapping[str, str]) -> None:
        """Take no notice of an answer's headers: live feeds stay far below what they count."""


Allowances = MutableMapping[str, Allowance]
"""By the address of an exchange's REST interface: whoever is behind it counts."""


def allowance_of(
    allowances: Allowances, exchange: Exchange, clock: Clock, *, rest_url: str = "", snapshots_per_s: float
) -> Allowance:
    """Return the allowance at an exchange's address, made where nobody has asked it yet."""
    address = (rest_url or exchange.rest_url).rstrip("/")
    allowance = allowances.get(address)
    if allowance is None:
        allowance = allowances[address] = Allowance(exchange.limits, clock, snapshots_per_s=snapshots_per_s)
    return allowance
