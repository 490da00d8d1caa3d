"""A step of the machine's clock while a daemon runs: noticed, told, and kept with the sessions that it concerns."""

from __future__ import annotations

import asyncio
from pathlib import Path

import uvloop

from collector.clock import SystemClock
from collector.collection import Collection
from collector.config import load_config
from collector.daemon import Daemon
from collector.logs import get_log
from collector.metrics import exposition
from collector.requests import StartRequest
from collector.session.manifest import load_manifest
from collector.sim.exchange import Options, serve_exchange


class SteppedClock(SystemClock):
    """The machine's clock, which a test sets."""

    def __init__(self) -> None:
        self.set_by_us = 0

    def now_us(self) -> int:
        return super().now_us() + self.set_by_us


def test_a_step_is_in_status_metrics_and_manifest(tmp_path: Path) -> None:
    """Set back by an hour in the middle of a session: rows go on, and the step is written down with its size."""

    async def scenario() -> None:
        clock = SteppedClock()
        config = load_config(
            overrides={
                "daemon": {"data_dir": str(tmp_path / "data"), "log_dir": str(tmp_path / "logs")},
                "questdb": {"mode": "off"},
                "api": {"enabled": False},
            }
        )
        daemon = Daemon(config, clock=clock, log=get_log())
        async with asyncio.timeout(30), serve_exchange(Options(rate=100)) as server, asyncio.TaskGroup() as tasks:
            ready = asyncio.Event()
            tasks.create_task(daemon.run(ready.set))
            await ready.wait()
            order = StartRequest(
                exchange="sim", symbols=("BTC_USDT",), ws_url=server.ws_url, rest_url=server.rest_url,
                data_types=("prices",),
            )  # fmt: skip
            manifest = Collection.describe(order, "stepped", config, clock.now_us())
            collection = await daemon._begin(manifest, order)
            while collection.status().rows["prices"] < 20:
                await asyncio.sleep(0.02)
            before = collection.status().latency
            assert before is not None
            clock.set_by_us = -3_600_000_000
            while daemon.status().clock_steps == 0:
                await asyncio.sleep(0.02)
            rows = collection.status().rows["prices"]
            while collection.status().rows["prices"] < rows + 20:
                await asyncio.sleep(0.02)
            after = collection.status().latency
            assert after is not None
            assert after.p50_us < -3_500_000_000 < before.minimum_us
            text = exposition(daemon.status).decode()
            assert "collector_clock_steps_total 1.0" in text
            assert 'collector_latency_seconds{exchange="sim",quantile="0.5"' in text
            daemon.request_stop("the test is over")
        [step] = load_manifest(tmp_path / "data" / "session_stepped").clock_steps
        assert -3601 < step.step_s < -3599

    uvloop.run(scenario())
