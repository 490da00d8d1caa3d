"""Run a strategy on a session's ticks with hftbacktest: its own events, latencies, the place in the queue, and fees.

The events are those of the export (``collector.reading.export``): every change of the book where the session recorded
raw messages, otherwise the recorded levels after each 100 ms. The same session and assumptions give the same result.
"""

from __future__ import annotations

import hashlib
import math
import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec

from collector.backtest.candles import Hole, open_holes
from collector.backtest.run import Outcome
from collector.backtest.tick_strategies import TickStrategy
from collector.errors import CollectorError, UsageError
from collector.reading.arrow import extra
from collector.reading.export.exporting import Wanted, export_session
from collector.reading.export.nautilus import decimals_of
from collector.reading.session_reader import SessionReader
from collector.reading.times import Time, to_us

RECORDED = "recorded"
RISK_ADVERSE, PROBABILITY = "risk-adverse", "prob"
_MAX_RECORDS = 10_000_000
_CURVE_POINTS = 5_000
_LATENCY_STEP_NS = 1_000_000_000
_FIELDS = ("ev", "exch_ts", "local_ts", "px", "qty")
_STATISTICS_STEP, _STATISTICS_STEP_NS = "10s", 10_000_000_000
_DAYS_PER_YEAR = 365
_LATENCY = re.compile(r"([0-9]+(?:\.[0-9]+)?)(us|ms|s)")
_UNIT_NS = {"us": 1_000, "ms": 1_000_000, "s": 1_000_000_000}
_QUEUE = re.compile(rf"{PROBABILITY}(?::([0-9]+(?:\.[0-9]+)?))?")


class Assumptions(msgspec.Struct, frozen=True, kw_only=True):
    """What a run assumes of the exchange.

    Args:
        latency: ``recorded``: an order takes as long as what was received at the time had taken, each way; or a
            constant each way (``5ms``), or two, there and back (``5ms,8ms``).
        queue: ``risk-adverse``: only trades at the price bring an order forward in the queue; ``prob:N``: cancellations
            do so, too, by hftbacktest's power function with the exponent N (``prob`` means 2).
        maker_fee, taker_fee: shares of an order's value; less than 0 is a rebate.
        tick_size, lot_size: the smallest steps of price and size; 0: as many decimals as were recorded.
    """

    latency: str = RECORDED
    queue: str = RISK_ADVERSE
    maker_fee: float = 0.001
    taker_fee: float = 0.001
    tick_size: float = 0.0
    lot_size: float = 0.0


@dataclass(frozen=True, slots=True)
class TickEvents:
    """A symbol's events as hftbacktest takes them. ``events`` counts them; times are microseconds UTC by our clock."""

    session_id: str
    symbol: str
    arrays: list[Any]
    data_hash: str
    source: str
    book: str
    tick_size: float
    lot_size: float
    contract_size: float
    holes: tuple[Hole, ...]

    @property
    def events(self) -> int:
        return sum(len(array) for array in self.arrays)

    @property
    def from_us(self) -> int:
        return int(self.arrays[0]["local_ts"][0]) // 1000

    @property
    def to_us(self) -> int:
        return int(self.arrays[-1]["local_ts"][-1]) // 1000


def session_ticks(
    reader: SessionReader,
    symbol: str,
    start: Time | None = None,
    end: Time | None = None,
    *,
    allow_gaps: bool = False,
) -> TickEvents:
    """Return a session's events of a symbol.

    Raises:
        UsageError: trades or changes of the book lack and that is not allowed; there is nothing; the session still
            runs; its contracts are worth so much of the quote currency (inverse ones).
        UnknownName: the session has no such symbol.
        MissingExtra: hftbacktest is not installed.
    """
    np = extra("numpy")
    extra("hftbacktest")
    bounds = to_us(start), to_us(end)
    holes = open_holes(reader, symbol, *bounds, streams=("prices", "orderbook"))
    if holes and not allow_gaps:
        raise UsageError(
            f"Session {reader.session_id} lacks trades or books of {symbol}: {len(holes)} gaps are not repaired "
            f"(the first: {holes[0].gap_id}, {holes[0].cause}).",
            hint="Repair it with `collector repair`, or pass --allow-gaps and see them in the report.",
        )
    contract_size = _contract_size(reader, symbol)
    with tempfile.TemporaryDirectory(prefix="collector-ticks-") as folder:
        wanted = Wanted("hftbacktest", (symbol,), None, *bounds)
        report = export_session(reader, wanted, Path(folder), lambda _what, _rows: None)
        arrays = [np.load(path)["data"] for path in sorted(Path(folder).rglob("*.npz"))]
    arrays = [array for array in arrays if len(array)]
    if not arrays:
        raise UsageError(f"Session {reader.session_id} has no ticks of {symbol} there.")
    digest = hashlib.sha256()
    for array in arrays:
        for name in _FIELDS:
            digest.update(np.ascontiguousarray(array[name]).tobytes())
    tick_size, lot_size = _steps(arrays)
    return TickEvents(
        reader.session_id, symbol, arrays, digest.hexdigest(), report.source, report.notes["book"][symbol],
        tick_size, lot_size, contract_size, holes,
    )  # fmt: skip


def _contract_size(reader: SessionReader, symbol: str) -> float:
    worth = reader.manifest.contracts.get(symbol, "")
    if not worth:
        return 1.0
    number, _, currency = worth.partition(" ")
    if currency != symbol.partition("_")[0]:
        raise UsageError(f"A contract of {symbol} is worth {worth}: inverse contracts are not run on ticks.")
    return float(number)


def _steps(arrays: list[Any]) -> tuple[float, float]:
    """Return the smallest steps of prices and sizes that the recorded digits allow."""
    np = extra("numpy")
    price = size = 0
    for array in arrays:
        kept = array[np.isfinite(array["px"])]
        price = decimals_of(np.unique(kept["px"]), price)
        size = decimals_of(np.unique(kept["qty"]), size)
    return float(f"1e-{price}"), float(f"1e-{size}")


def check(assumed: Assumptions) -> None:
    """Raise UsageError where the latency or the queue is not written as they are."""
    _latency_of(assumed.latency)
    _power_of(assumed.queue)


def settle(data: TickEvents, assumed: Assumptions) -> Assumptions:
    """Return assumptions with the steps that are meant."""
    return msgspec.structs.replace(
        assumed, tick_size=assumed.tick_size or data.tick_size, lot_size=assumed.lot_size or data.lot_size
    )


def run_ticks(data: TickEvents, strategy: TickStrategy, assumed: Assumptions, cash: float) -> Outcome:
    """Run a strategy once; ``trades`` of the outcome are the records in which something was filled.

    Raises:
        UsageError: the strategy failed, with what it said.
        CollectorError: hftbacktest refuses the events.
    """
    library = extra("hftbacktest")
    assumed = settle(data, assumed)
    latencies = _recorded_latencies(data.arrays) if assumed.latency == RECORDED else None
    asset = _asset(library, data, assumed, latencies)
    machine = library.HashMapMarketDepthBacktest([asset])
    recorder = library.Recorder(1, _MAX_RECORDS)
    try:
        own = strategy.parameters.values()
        strategy.function(machine, recorder.recorder, assumed.tick_size, assumed.lot_size, *own)
        recorder.recorder.record(machine)
    except Exception as error:
        if isinstance(error, IndexError) and recorder.recorder.i >= _MAX_RECORDS:
            sentence = f"The strategy {strategy.name} recorded {_MAX_RECORDS:,} times."
            raise UsageError(sentence, hint="Record less often.") from error
        raise UsageError(f"The strategy {strategy.name} failed: {type(error).__name__}: {error}.") from error
    finally:
        machine.close()
    return _outcome(data, strategy, recorder.get(0).copy(), cash)


def _asset(library: Any, data: TickEvents, assumed: Assumptions, latencies: Any) -> Any:
    asset = library.BacktestAsset().data(data.arrays).linear_asset(data.contract_size)
    if latencies is None:
        asset = asset.constant_order_latency(*_latency_of(assumed.latency))
    else:
        asset = asset.intp_order_latency(latencies)
    power = _power_of(assumed.queue)
    asset = asset.risk_adverse_queue_model() if power is None else asset.power_prob_queue_model(power)
    return (
        asset.no_partial_fill_exchange()
        .trading_value_fee_model(assumed.maker_fee, assumed.taker_fee)
        .tick_size(assumed.tick_size)
        .lot_size(assumed.lot_size)
        .last_trades_capacity(10_000)
    )


def _latency_of(text: str) -> tuple[int, int]:
    """Return the nanoseconds there and back; for ``recorded`` nothing."""
    if text == RECORDED:
        return 0, 0
    parts = [_LATENCY.fullmatch(part.strip()) for part in text.split(",")]
    if len(parts) > 2 or not all(parts):
        raise UsageError(f"{text!r} is no latency.", hint="Write recorded, 5ms, or 5ms,8ms (there and back).")
    found = [round(float(part[1]) * _UNIT_NS[part[2]]) for part in parts if part]
    return found[0], found[-1]


def _power_of(text: str) -> float | None:
    """Return the exponent of a queue model; None for the risk-adverse one."""
    if text == RISK_ADVERSE:
        return None
    found = _QUEUE.fullmatch(text)
    if found is None or not float(found[1] or 2) > 0:
        raise UsageError(f"{text!r} is no model of the queue.", hint="Write risk-adverse, prob, or prob:3.")
    return float(found[1] or 2)


def _recorded_latencies(arrays: list[Any]) -> Any:
    """Return an order's latencies as hftbacktest interpolates them: each second, the last event's own, each way.

    Nobody recorded what an order would have taken, so the way there is taken to be as long as the way back.
    """
    np = extra("numpy")
    local = np.concatenate([array["local_ts"] for array in arrays])
    took = local - np.concatenate([array["exch_ts"] for array in arrays])
    seconds = local // _LATENCY_STEP_NS
    last = np.flatnonzero(np.append(seconds[1:] != seconds[:-1], True))
    found = np.zeros(len(last), [(name, "i8") for name in ("req_ts", "exch_ts", "resp_ts", "_padding")])
    found["req_ts"] = local[last]
    found["exch_ts"] = found["req_ts"] + took[last]
    found["resp_ts"] = found["exch_ts"] + took[last]
    return found


def _outcome(data: TickEvents, strategy: TickStrategy, records: Any, cash: float) -> Outcome:
    np = extra("numpy")
    records = records[np.isfinite(records["price"])]
    if not len(records):
        raise CollectorError(
            "There was never a price on both sides of the book, so that nothing has a value.",
            hint="Run it on a session that recorded order books.",
        )
    equity = cash + records["balance"] + records["position"] * records["price"] * data.contract_size - records["fee"]
    peaks = np.maximum.accumulate(np.append(cash, equity))[1:]
    last, first = records[-1], records[0]
    values = {
        "return_pct": 100 * (equity[-1] / cash - 1),
        "buy_and_hold_return_pct": 100 * (last["price"] / first["price"] - 1),
        **_library_statistics(records, data.contract_size, cash),
        "max_drawdown_pct": -100 * float(np.max((peaks - equity) / peaks)),
        "equity_final": equity[-1],
        "commissions": last["fee"],
        "trades": last["num_trades"],
        "trading_volume": last["trading_volume"],
        "trading_value": last["trading_value"],
        "position_final": last["position"],
        "max_position": np.max(np.abs(records["position"])),
        "win_rate_pct": math.nan,  # fills are not matched with each other
    }
    statistics = {name: float(value) if math.isfinite(value) else None for name, value in values.items()}
    filled = np.flatnonzero(np.diff(records["num_trades"], prepend=0))
    trades = [
        {
            "at_us": int(row["timestamp"]) // 1000, "fills": int(row["num_trades"]), "position": float(row["position"]),
            "balance": float(row["balance"]), "fee": float(row["fee"]),
        }
        for row in records[filled]
    ]  # fmt: skip
    step = max(1, math.ceil(len(records) / _CURVE_POINTS))
    shown = sorted({*range(0, len(records), step), len(records) - 1})
    curve = [(int(records["timestamp"][n]) // 1000, float(equity[n])) for n in shown]
    return Outcome(statistics, curve, trades, dict(strategy.parameters))


def _library_statistics(records: Any, contract_size: float, cash: float) -> dict[str, float]:
    """Return what hftbacktest makes of the records; NaN where they span fewer than three steps of 10 s."""
    stats = extra("hftbacktest.stats")
    names = {"sharpe_ratio": stats.SR, "sortino_ratio": stats.Sortino}
    steps = extra("numpy").unique(records["timestamp"] // _STATISTICS_STEP_NS)
    if len(steps) < 3:
        return dict.fromkeys(names, math.nan)
    metrics = [kind(name, trading_days_per_year=_DAYS_PER_YEAR) for name, kind in names.items()]
    record = stats.LinearAssetRecord(records).contract_size(contract_size).resample(_STATISTICS_STEP)
    with extra("numpy").errstate(all="ignore"):
        found = record.stats(metrics, book_size=cash).splits[-1]
    return {name: float(found[name]) for name in names}
