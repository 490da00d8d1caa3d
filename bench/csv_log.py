"""How many rows a second the CSV log takes on one core: formatted, appended and made durable, batch by batch."""

from __future__ import annotations

import time

from bench.blast import frame
from bench.harness import Figure, Place, Result, Scale, median
from bench.receive import LISTING
from bench.stages import BASE_MS, write
from collector.events import Trade
from collector.exchanges.binance import Binance

ROWS = 1_000_000
BATCH = 25_000
TARGET_ROWS_PER_S = 200_000
_HEADER_BYTES = 4


def measure(place: Place, scale: Scale) -> list[Result]:
    """Write the same batch again and again, as new rows; the disk's time counts too."""
    exchange = Binance([LISTING])
    frames = (frame(LISTING.native, n, BASE_MS + n // 50)[_HEADER_BYTES:] for n in range(BATCH))
    events = [event for payload in frames for event in exchange.parse(payload, BASE_MS * 1000)]
    batch = [event for event in events if isinstance(event, Trade)]
    walls: list[float] = []
    costs: list[float] = []
    for _ in range(scale.runs):
        begin_s = time.perf_counter()
        cost_us, log = write(place.folder / "csv_log", [batch] * (ROWS // BATCH))
        walls.append(ROWS / (time.perf_counter() - begin_s))
        costs.append(cost_us)
        size = sum(file.size for file in log.streams.values())
    note = f"{size / ROWS:.0f} bytes/row, synced every {BATCH:,} rows"
    return [
        Figure("CSV alone", median(walls), "rows/s", TARGET_ROWS_PER_S, "higher", note=f"wall clock; {note}"),
        Figure("CSV alone: CPU", median(costs), "µs CPU/row"),
    ]
