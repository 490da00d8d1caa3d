"""Ask sources of history over HTTP: one budget, one pace and one ban per address, for all tasks of the process.

What fails by itself is asked again, ever more slowly: no answer, an outage, too many requests (not before Retry-After
has passed), an answer that cannot be read. What stays wrong is raised, so that another source can be asked.
"""

from __future__ import annotations

import random as system_random
from asyncio import sleep as real_sleep
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from types import TracebackType
from typing import NamedTuple, Self, TypeVar

from collector.clock import Clock
from collector.errors import CollectorError, ConnectionLost, ExchangeRefused, MessageError, SourceRefused
from collector.exchanges.base import Request
from collector.exchanges.candle_sources.base import HistorySource, SourceLimits
from collector.exchanges.candle_sources.walk import Pages
from collector.feeds.allowance import Allowance, Ban
from collector.feeds.backoff import Backoff, Verdict, stay_away_s
from collector.feeds.budget import Budget
from collector.feeds.rest import Rest

T = TypeVar("T")


class _Host(NamedTuple):
    rest: Rest
    budget: Budget


class HistoryClient:
    """The one client of a process for everything historical.

    Args:
        addresses: for sources by name, an address in place of their own.
        live: what live feeds are allowed, by address: history takes from the same budgets and obeys the same bans.
        limits: for sources by name, limits in place of the public ones, for who is allowed more.
        attempts: how often a request is sent before its failure is raised.
        patience_s: the longest that a source's wish to be left alone is waited for, in seconds; a longer one is raised
            at once.
        timeout_s: for connecting, and for each wait for bytes; a whole answer may take three times as long.
        max_bytes: the longest body that is read.
        proxy: address of a proxy; empty for none.
        random: returns floats in [0, 1), for the jitter of back-off.
        sleep: waits, for tests.
    """

    def __init__(
        self,
        *,
        clock: Clock,
        addresses: Mapping[str, str] | None = None,
        live: Mapping[str, Allowance] | None = None,
        limits: Mapping[str, SourceLimits] | None = None,
        attempts: int = 6,
        patience_s: float = 300,
        backoff_initial_s: float = 1,
        backoff_cap_s: float = 60,
        timeout_s: float = 20,
        max_bytes: int = 64 * 1024 * 1024,
        proxy: str = "",
        random: Callable[[], float] = system_random.random,
        sleep: Callable[[float], Awaitable[None]] = real_sleep,
    ) -> None:
        self.retries: Counter[str] = Counter()
        """By source: what was sent again."""
        self._clock = clock
        self._addresses = dict(addresses or {})
        self._live: Mapping[str, Allowance] = {} if live is None else live
        self._limits = dict(limits or {})
        self._attempts = attempts
        self._patience_s = patience_s
        self._backoff_s = backoff_initial_s, backoff_cap_s
        self._timeout_s = timeout_s
        self._max_bytes = max_bytes
        self._proxy = proxy
        self._random = random
        self._sleep = sleep
        self._hosts: dict[tuple[str, SourceLimits], _Host] = {}
        self._bans: dict[str, Ban] = {}

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        for host in self._hosts.values():
            await host.rest.close()
        self._hosts.clear()

    def banned_s(self, source: HistorySource) -> float:
        """For how many more seconds a source wants no request; 0 where it does not mind."""
        return self._host(source).rest.banned_s

    def requests(self, source: HistorySource) -> int:
        """Return how many requests were sent within a source's limits, by all who share them."""
        return self._host(source).rest.requests

    async def get(self, source: HistorySource, request: Request) -> bytes:
        """Return the body of an answer; what fails by itself is tried again.

        Raises:
            SourceRefused: the source refused for good, too often, or for longer than anybody waits.
            ConnectionLost: it did not answer.
        """
        return await self._until_good(source, request, lambda body: body)

    async def step(self, walk: Pages[T]) -> list[T]:
        """Ask for a walk's next page and return what it brought; nothing where the walk is at its end.

        Raises:
            SourceRefused, ConnectionLost: as ``get``.
            MessageError: its answers cannot be read.
        """
        request = walk.request
        return [] if request is None else await self._until_good(walk.source, request, walk.feed)

    async def pages(self, walk: Pages[T]) -> AsyncIterator[list[T]]:
        """Yield what each answer brings until the walk is at its end; raise as ``step``."""
        while walk.request is not None:
            yield await self.step(walk)

    async def _until_good(self, source: HistorySource, request: Request, read: Callable[[bytes], T]) -> T:
        initial_s, cap_s = self._backoff_s
        backoff = Backoff(initial_s=initial_s, cap_s=cap_s, random=self._random)
        attempt = 1
        while True:
            try:
                return read(await self._send(source, request))
            except (SourceRefused, ConnectionLost, MessageError) as error:
                wait_s = stay_away_s(error)
                if isinstance(error, SourceRefused) and error.reason == "rate_limit" and wait_s is None:
                    # Said in the body of a good answer: nobody else at this address must ask either.
                    wait_s = self._limits_of(source).per_s
                    self._host(source).budget.rest_ban.extend(wait_s)
                if not _passes(error) or attempt >= self._attempts or (wait_s or 0) > self._patience_s:
                    raise
                self.retries[source.name] += 1
                attempt += 1
                await self._sleep(backoff.delay_s(Verdict.RETRY, wait_s))

    async def _send(self, source: HistorySource, request: Request) -> bytes:
        try:
            return await self._host(source).rest.get(request)
        except ExchangeRefused as error:
            raise source.refusal(error.status, error.body, error.retry_after_s, words=error.message) from error

    def _host(self, source: HistorySource) -> _Host:
        """Return the connection and the budget: sources at one address share bans, and where they are equal, limits."""
        address, limits = self._address(source), self._limits_of(source)
        host = self._hosts.get((address, limits))
        if host is None:
            budget = Budget(
                limits.weight,
                limits.per_s,
                clock=self._clock,
                pace_s=limits.pace_s,
                used_header=limits.used_header,
                ban=self._bans.setdefault(address, Ban(self._clock)),
                live=lambda: self._live.get(address),
                sleep=self._sleep,
            )
            rest = Rest(
                address,
                allowance=budget,
                timeout_s=self._timeout_s,
                max_bytes=self._max_bytes,
                clock=self._clock,
                proxy=self._proxy,
            )
            host = self._hosts[address, limits] = _Host(rest, budget)
        return host

    def _limits_of(self, source: HistorySource) -> SourceLimits:
        return self._limits.get(source.name, source.limits)

    def _address(self, source: HistorySource) -> str:
        return (self._addresses.get(source.name) or source.rest_url).rstrip("/")


def _passes(error: CollectorError) -> bool:
    """Tell whether asking again can help: an answer that cannot be read may have been cut off on its way."""
    return error.retryable or isinstance(error, MessageError)
