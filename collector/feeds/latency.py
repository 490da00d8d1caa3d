"""How long events take from the exchange's clock to ours: percentiles of the newest samples. No clock, no I/O.

A latency is the receipt by our wall clock minus the event's time by the exchange's, so it holds the difference of the
two clocks, and may well be negative. The least one is that difference and the shortest way here: the best estimate of
the clocks' offset that a stream alone can give.
"""

from __future__ import annotations

from collections import deque

from collector.status import LatencyStatus

_SAMPLES = 2_000


class LatencyWindow:
    """The newest latencies of an exchange."""

    def __init__(self, samples: int = _SAMPLES) -> None:
        self._samples: deque[int] = deque(maxlen=samples)

    def add(self, latency_us: int) -> None:
        """Take a sample; the oldest goes where there are too many."""
        self._samples.append(latency_us)

    def clear(self) -> None:
        """Forget all samples: a clock was set, and they say nothing about what comes."""
        self._samples.clear()

    def status(self) -> LatencyStatus | None:
        """Return the percentiles; None before the first sample."""
        if not self._samples:
            return None
        ordered = sorted(self._samples)

        def percentile(share: float) -> int:
            return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

        return LatencyStatus(
            p50_us=percentile(0.5),
            p95_us=percentile(0.95),
            p99_us=percentile(0.99),
            minimum_us=ordered[0],
            samples=len(ordered),
        )
