"""Statuses go to the terminal, the metrics and the manifest: they must be plain enough for JSON."""

from __future__ import annotations

import msgspec

from collector.feeds.status import ConnectionStatus, FeedStatus, StreamStatus


def test_a_status_survives_json() -> None:
    """What is encoded is what comes back."""
    connection = ConnectionStatus(1, "ws://127.0.0.1/stream", "open", 5, 0, 10, 2100, 1, 0.5, "")
    stream = StreamStatus("BTC_USDT", "prices", 1, "live", 10, 1, 0, 7, 8, "1.5", -3, -2.5, None)
    status = FeedStatus("binance", [connection], [stream], 3, 0, 0.0)
    assert msgspec.json.decode(msgspec.json.encode(status), type=FeedStatus) == status
