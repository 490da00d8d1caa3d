"""How much history may be asked of a host: a budget of weights, a pace, and the host's own count of what was used."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from aiolimiter import AsyncLimiter

from collector.clock import Clock
from collector.feeds.allowance import Allowance, Ban, limiter

_NEARLY_USED = 0.9
_MINUTE_S = 60


class Budget:
    """One host's budget, shared by everybody who asks it for history.

    Args:
        weight: the sum of request weights that the host allows in any ``per_s`` seconds.
        pace_s: the least time from one request to the next, in seconds; 0 for none.
        used_header: the answer's header that says how much of the minute's weight has been used; empty for none.
            Other programs at the same address count there too.
        ban: until when the host wants to be left alone, shared by all budgets of its address.
        live: returns the allowance of live feeds at the same host, where there is one: its bans are this one's, and
            what is spent here is gone there.
        sleep: waits, for tests.
    """

    def __init__(
        self,
        weight: int,
        per_s: float,
        *,
        clock: Clock,
        pace_s: float = 0.0,
        used_header: str = "",
        ban: Ban | None = None,
        live: Callable[[], Allowance | None] = lambda: None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self.waits = 0
        """How often the host's own count made everybody wait for the next minute."""
        self._weight = weight
        self._limiter = limiter(weight, per_s)
        self._pace = AsyncLimiter(1, pace_s) if pace_s > 0 else None
        self._used_header = used_header
        self._live = live
        self._clock = clock
        self._sleep = sleep
        self._ban = ban or Ban(clock)
        self._free_at_s = 0.0

    @property
    def rest_ban(self) -> Ban:
        """Until when the host wants to be left alone."""
        live = self._live()
        return self._ban if live is None else live.rest_ban

    async def spend(self, weight: int) -> None:
        """Wait until a request of a weight may be sent; one that is heavier than a burst counts as a burst."""
        live = self._live()
        if live is not None:
            await live.spend(weight)
        await self._limiter.acquire(min(weight, self._limiter.max_rate))
        if self._pace is not None:
            await self._pace.acquire()
        while (left_s := self._free_at_s - self._clock.monotonic_s()) > 0:
            await self._sleep(left_s)

    def hear(self, headers: Mapping[str, str]) -> None:
        """Hear from an answer how much the host has counted; wait for its next minute where that is nearly all."""
        used = headers.get(self._used_header, "") if self._used_header else ""
        if used.isascii() and used.isdecimal() and int(used) >= _NEARLY_USED * self._weight:
            self.waits += 1
            left_s = _MINUTE_S - self._clock.now_us() / 1e6 % _MINUTE_S
            self._free_at_s = self._clock.monotonic_s() + left_s
