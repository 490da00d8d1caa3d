"""What time it is at the exchange, per symbol: known from its events, estimated between them."""

from __future__ import annotations


class _Reading:
    __slots__ = ("at_s", "event_us", "floor_us", "frozen")

    def __init__(self, event_us: int, at_s: float) -> None:
        self.event_us = event_us
        self.at_s = at_s
        self.floor_us = event_us
        self.frozen: set[str] = set()


class ExchangeClock:
    """Estimate each symbol's exchange time: the last event's time plus the monotonic time since, never going backward.

    It stands still while one of the symbol's streams is interrupted, so that a disconnect closes no candle; and it
    knows nothing of the wall clock, so that a skewed one, or a recording of years ago, closes none early.
    """

    def __init__(self) -> None:
        self._readings: dict[str, _Reading] = {}

    def observe(self, symbol: str, timestamp_us: int, monotonic_s: float) -> None:
        """Take note of an event's exchange time (µs) and of when it was seen; one older than the last is ignored."""
        reading = self._readings.get(symbol)
        if reading is None:
            self._readings[symbol] = _Reading(timestamp_us, monotonic_s)
        elif timestamp_us >= reading.event_us:
            reading.event_us = timestamp_us
            reading.at_s = monotonic_s

    def freeze(self, symbol: str, stream: str, monotonic_s: float) -> None:
        """Stop estimating for a symbol: one of its streams is interrupted."""
        reading = self._readings.get(symbol)
        if reading is not None:
            self._advance(reading, monotonic_s)
            reading.frozen.add(stream)

    def thaw(self, symbol: str, stream: str) -> None:
        """Estimate again, from the last event on, once none of the symbol's streams is interrupted."""
        reading = self._readings.get(symbol)
        if reading is not None:
            reading.frozen.discard(stream)

    def now_us(self, symbol: str, monotonic_s: float) -> int | None:
        """Return the symbol's exchange time, in microseconds since the epoch; None before its first event."""
        reading = self._readings.get(symbol)
        if reading is None:
            return None
        self._advance(reading, monotonic_s)
        return reading.floor_us

    @staticmethod
    def _advance(reading: _Reading, monotonic_s: float) -> None:
        if not reading.frozen:
            since_us = round(max(0.0, monotonic_s - reading.at_s) * 1_000_000)
            reading.floor_us = max(reading.floor_us, reading.event_us + since_us)
