"""The one client of history over a real loopback server with the simulated sources."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import pytest
import uvloop

from collector.clock import Clock, SystemClock
from collector.exchanges.candle_sources.base import CandleSource, SourceLimits
from collector.exchanges.candle_sources.registry import SOURCES, create_source
from collector.history.client import HistoryClient
from collector.sim.history import HistoryServer, Options, serve_history

QUICK = SourceLimits(weight=1_000_000, per_s=1)


class Sleeps:
    """A sleep that notes for how long and lets others run; it waits only where it is told to."""

    def __init__(self) -> None:
        self.seconds: list[float] = []
        self.waits = False

    async def __call__(self, seconds: float) -> None:
        self.seconds.append(seconds)
        await asyncio.sleep(seconds if self.waits else 0)


class ClientBench:
    """A server and a client that waits for nothing but what it is told to."""

    def __init__(self) -> None:
        self.sleeps = Sleeps()

    @asynccontextmanager
    async def serving(self, *, clock: Clock | None = None, **options: Any) -> AsyncIterator[HistoryServer]:
        values: dict[str, Any] = {"limits": False, **options}
        async with serve_history(Options(**values), clock=clock or SystemClock()) as server:
            yield server

    def client(self, server: HistoryServer, **options: Any) -> HistoryClient:
        values: dict[str, Any] = {
            "clock": SystemClock(),
            "addresses": server.addresses,
            "limits": dict.fromkeys(SOURCES, QUICK),
            "sleep": self.sleeps,
            "timeout_s": 5,
            **options,
        }
        return HistoryClient(**values)

    def source(self, name: str) -> CandleSource:
        return create_source(name)


@pytest.fixture
def client_bench() -> ClientBench:
    return ClientBench()


@pytest.fixture
def run() -> Callable[[Coroutine[Any, Any, None]], None]:
    """Run a coroutine on the daemon's kind of loop, for 60 seconds at most."""

    async def bounded(scenario: Coroutine[Any, Any, None]) -> None:
        async with asyncio.timeout(60):
            await scenario

    return lambda scenario: uvloop.run(bounded(scenario))
