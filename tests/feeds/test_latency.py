"""Latencies: percentiles of the newest samples, negative ones among them."""

from __future__ import annotations

from random import Random

from collector.feeds.latency import LatencyWindow


def test_percentiles_and_the_offset() -> None:
    """The order in which they came doesn't matter; the least is the offset, negative where our clock is behind."""
    window = LatencyWindow()
    assert window.status() is None
    samples = list(range(-50, 950))
    Random(3).shuffle(samples)
    for sample in samples:
        window.add(sample)
    status = window.status()
    assert status is not None
    assert (status.minimum_us, status.p50_us, status.p95_us, status.p99_us) == (-50, 450, 900, 940)
    assert status.samples == 1000


def test_only_the_newest_count() -> None:
    """Old samples go; after a step of the clock all do."""
    window = LatencyWindow(samples=10)
    for sample in [1] * 100 + [7] * 10:
        window.add(sample)
    status = window.status()
    assert status is not None
    assert (status.minimum_us, status.samples) == (7, 10)
    window.clear()
    assert window.status() is None
