"""Strategies on ticks: the built-in one, and functions in somebody's own file, as hftbacktest runs them.

A strategy is a function ``trade(hbt, recorder, tick_size, lot_size, …)``. ``hbt`` is hftbacktest's own object with one
asset (number 0); ``recorder.record(hbt)`` notes the account as often as the function wants it in the result; the
parameters behind the first four have defaults, and ``--param`` replaces those. It may be compiled with ``numba.njit``,
which makes it some hundred times as fast. It ends when ``hbt.elapse`` or ``hbt.wait_next_feed`` says that no data is
left (other than 0). hftbacktest is an extra, so the built-in one is made when it is wanted.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from collector.backtest.strategies import Template, value_like
from collector.errors import UnknownName, UsageError
from collector.reading.arrow import extra

FUNCTION = "trade"
_GIVEN = ("hbt", "recorder", "tick_size", "lot_size")


def _market_maker(library: Any) -> Callable[..., None]:
    buy, gtx, limit = library.BUY, library.GTX, library.LIMIT

    def trade(
        hbt: Any,
        recorder: Any,
        tick_size: float,
        lot_size: float,
        half_spread: float = 0.0005,
        quantity: float = 0.0,
        max_orders: int = 5,
        step_ms: int = 100,
    ) -> None:
        size = max(quantity, lot_size)
        number = 0
        while hbt.elapse(step_ms * 1_000_000) == 0:
            hbt.clear_inactive_orders(0)
            depth = hbt.depth(0)
            if not (depth.best_bid > 0 and depth.best_ask > depth.best_bid):
                continue  # a side of the book is empty
            middle = (depth.best_bid + depth.best_ask) / 2
            position = hbt.position(0)
            # Whoever holds much wants to sell: both prices move down with the position, and up without.
            skew = half_spread * position / (max_orders * size)
            bid = min(math.floor(middle * (1 - half_spread - skew) / tick_size), depth.best_bid_tick)
            ask = max(math.ceil(middle * (1 + half_spread - skew) / tick_size), depth.best_ask_tick)
            bids = position + size <= max_orders * size + lot_size / 2
            asks = position - size >= -max_orders * size - lot_size / 2
            orders = hbt.orders(0).values()
            while orders.has_next():
                order = orders.get()
                buys = order.side == buy
                wanted = bids if buys else asks
                stays = (wanted and order.price_tick == (bid if buys else ask)) or not order.cancellable
                if not stays:
                    hbt.cancel(0, order.order_id, False)
                elif buys:
                    bids = False
                else:
                    asks = False
            if bids:
                number += 1
                hbt.submit_buy_order(0, number, bid * tick_size, size, gtx, limit, False)
            if asks:
                number += 1
                hbt.submit_sell_order(0, number, ask * tick_size, size, gtx, limit, False)
            recorder.record(hbt)

    compiled: Callable[..., None] = extra("numba").njit(trade)
    return compiled


TICK_TEMPLATES: dict[str, Template] = {
    "market_maker": Template(
        "market_maker", "Market maker (ticks)",
        "Keeps a post-only order on each side of the middle, `half_spread` away, moved against what it holds.",
        {"half_spread": 0.0005, "quantity": 0.0, "max_orders": 5, "step_ms": 100}, _market_maker,
    ),
}  # fmt: skip
"""The built-in strategies on ticks by name; a ``quantity`` of 0 is the smallest lot."""


@dataclass(frozen=True, slots=True)
class TickStrategy:
    """A strategy on ticks that can be run: its function, its parameters in order, and a hash of its code."""

    name: str
    function: Callable[..., None]
    parameters: dict[str, Any]
    code_hash: str


def load_tick_strategy(name: str, given: Mapping[str, str]) -> TickStrategy:
    """Return a built-in strategy on ticks by its name, or the function ``trade`` of a Python file.

    Args:
        given: parameters as text; each takes the type of its default.

    Raises:
        UnknownName: there is no such strategy or parameter.
        UsageError: the file cannot be read or its function takes something else; a value has the wrong type.
        MissingExtra: hftbacktest is not installed.
    """
    library = extra("hftbacktest")
    function, code_hash = _from_file(Path(name)) if name.endswith(".py") else _built_in(name, library)
    own = _parameters_of(function, name)
    for key in given:
        if key not in own:
            raise UnknownName(f"parameter of {name}", key, sorted(own))
    chosen = {key: value_like(value, given[key], key) if key in given else value for key, value in own.items()}
    return TickStrategy(Path(name).stem if name.endswith(".py") else name, function, chosen, code_hash)


@cache
def _made(name: str, library: Any) -> Callable[..., None]:
    function: Callable[..., None] = TICK_TEMPLATES[name].make(library)
    return function


def _built_in(name: str, library: Any) -> tuple[Callable[..., None], str]:
    if name not in TICK_TEMPLATES:
        raise UnknownName("strategy on ticks", name, list(TICK_TEMPLATES))
    code = inspect.getsource(TICK_TEMPLATES[name].make)
    return _made(name, library), hashlib.sha256(code.encode()).hexdigest()


def _from_file(path: Path) -> tuple[Callable[..., None], str]:
    try:
        code = path.read_bytes()
    except OSError as error:
        raise UsageError(f"The strategy {path} cannot be read: {error.strerror or error}.") from error
    spec = importlib.util.spec_from_file_location(f"collector_strategy_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UsageError(f"The strategy {path} is no Python file.")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        raise UsageError(f"The strategy {path} failed while it was read: {type(error).__name__}: {error}.") from error
    function = getattr(module, FUNCTION, None)
    if not callable(function):
        raise UsageError(
            f"{path} has no function {FUNCTION}.",
            hint=f"Define {FUNCTION}({', '.join(_GIVEN)}, …); a class for Backtesting.py runs on candles.",
        )
    return function, hashlib.sha256(code).hexdigest()


def _parameters_of(function: Callable[..., None], name: str) -> dict[str, Any]:
    """Return a function's own parameters with their defaults; a compiled one has the plain one in it."""
    taken = list(inspect.signature(getattr(function, "py_func", function)).parameters.values())
    if [one.name for one in taken[: len(_GIVEN)]] != list(_GIVEN):
        raise UsageError(f"{FUNCTION} of {name} must begin with ({', '.join(_GIVEN)}).")
    own = {one.name: one.default for one in taken[len(_GIVEN) :]}
    for key, value in own.items():
        if not isinstance(value, (bool, int, float)):
            raise UsageError(f"The parameter {key} of {name} needs a number as its default.")
    return own
