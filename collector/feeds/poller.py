"""What an exchange has over REST only, asked for again and again: open interest at Binance, for instance."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from structlog.typing import FilteringBoundLogger

from collector import config
from collector.clock import Clock
from collector.errors import CollectorError
from collector.events import Event
from collector.exchanges.base import Exchange, Request
from collector.feeds.backoff import stay_away_s
from collector.feeds.link import Gate
from collector.feeds.rest import Rest
from collector.feeds.tracks import MarketTrack, Track

WEIGHT_SHARE = 0.25
"""The part of an exchange's limit that polling may take: snapshots and repairs need the rest."""

_AT_ONCE = 4


class Poller:
    """Ask for the streams that no channel delivers, each at the configured interval, evenly spread over it.

    An answer that does not come is a hole from the last event to the next one.

    Args:
        tracks: the subscriptions concerned; without any, nothing is asked.
        take: is given each event of an answer.
        observed: is told of a track's newest exchange time.
    """

    def __init__(
        self,
        exchange: Exchange,
        tracks: Sequence[MarketTrack],
        *,
        rest: Rest,
        settings: config.Feed,
        clock: Clock,
        log: FilteringBoundLogger,
        gate: Gate,
        take: Callable[[Event], None],
        observed: Callable[[Track, int], None],
    ) -> None:
        self.tracks = tracks
        self._exchange = exchange
        self._rest = rest
        self._clock = clock
        self._log = log
        self._gate = gate
        self._take = take
        self._observed = observed
        self._stopping = asyncio.Event()
        self._requests = list(exchange.poll_requests([track.subscription for track in tracks])) if tracks else []
        self._failures = 0
        self.interval_s = poll_interval_s(settings.poll_interval_s, self._requests, exchange.limits.weight_per_min)

    def stop(self) -> None:
        """End ``run``: the feed has nothing more to come."""
        self._stopping.set()

    async def run(self) -> None:
        """Ask until the feed stops; without anything to ask for, return at once."""
        if not self._requests:
            return
        for track in self.tracks:
            track.begin()
            track.expect(self._clock.monotonic_s())
        async with asyncio.TaskGroup() as group:
            asking = [group.create_task(self._ask_in_turn(number)) for number in range(_AT_ONCE)]
            ends = [group.create_task(self._gate.stopping.wait()), group.create_task(self._stopping.wait())]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for task in (*asking, *ends):
                task.cancel()

    async def _ask_in_turn(self, number: int) -> None:
        """Ask every fourth request at its own moment of each interval."""
        begun_s = self._clock.monotonic_s()
        step_s = self.interval_s / len(self._requests)
        turn = 0
        while True:
            for place in range(number, len(self._requests), _AT_ONCE):
                due_s = begun_s + turn * self.interval_s + place * step_s
                await asyncio.sleep(max(0.0, due_s - self._clock.monotonic_s()))
                await self._ask(self._requests[place])
            turn += 1
            if number >= len(self._requests):
                return
            # Where answers were slow, the turns that could not be had are left out.
            turn = max(turn, int((self._clock.monotonic_s() - begun_s) / self.interval_s))

    async def _ask(self, request: Request) -> None:
        try:
            body = await self._rest.get(request)
            events = self._exchange.parse_poll(request, body, self._clock.now_us())
        except CollectorError as error:
            self._failed(request, error)
            away_s = stay_away_s(error)
            if away_s is not None:
                await asyncio.sleep(away_s)
            return
        for event in events:
            self._take(event)
        self._look_at_tracks()

    def _failed(self, request: Request, error: CollectorError) -> None:
        self._failures += 1
        if self._failures & (self._failures - 1) == 0:
            # The 1st, 2nd, 4th, 8th …: an exchange that is away for a day doesn't fill the log.
            self._log.warning("feed.poll_failed", path=request.path, reason=str(error), attempt=self._failures)
        for track in self.tracks:
            if request in self._exchange.poll_requests([track.subscription]):
                track.interrupt("disconnect")
                track.begin()

    def _look_at_tracks(self) -> None:
        now_s = self._clock.monotonic_s()
        for track in self.tracks:
            newest_us = track.sample()
            if newest_us is not None:
                self._observed(track, newest_us)
            if track.state != "live" and track.delivers:
                track.notice_data(now_s)


def poll_interval_s(wanted_s: float, requests: Sequence[Request], weight_per_min: int) -> float:
    """Return how often requests may be asked: as wanted, or as often as a quarter of the exchange's limit allows."""
    weight = sum(request.weight for request in requests)
    return max(wanted_s, weight * 60 / (weight_per_min * WEIGHT_SHARE))
