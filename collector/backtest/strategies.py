"""The built-in strategies, and strategies in somebody's own file, as Backtesting.py runs them.

Backtesting.py is an extra, so its classes are made when they are wanted.
"""

from __future__ import annotations

import hashlib
import importlib.util
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from collector.backtest.indicators import Candle, computed
from collector.errors import UnknownName, UsageError
from collector.reading.arrow import extra


@dataclass(frozen=True, slots=True)
class Template:
    """A built-in strategy: what it does, its parameters with their defaults, and what makes its class."""

    name: str
    title: str
    description: str
    parameters: Mapping[str, float]
    make: Callable[[Any], Any]
    version: int = 1


def _indicator(strategy: Any, name: str, value: int = 0, **parameters: float) -> Any:
    """Return one of the values of an indicator as a line of the strategy's, NaN where it is not known yet."""

    def line(opened: Any, high: Any, lows: Any, close: Any, volume: Any) -> Any:
        candles = (
            Candle(float(o), float(h), float(low), float(c), float(v), int(at.value // 1000))
            for o, h, low, c, v, at in zip(opened, high, lows, close, volume, data.index, strict=True)
        )
        found = [row[value] for row in computed(name, candles, **parameters)]
        return extra("numpy").array([float("nan") if one is None else one for one in found])

    data = strategy.data
    label = f"{name}({', '.join(f'{one:g}' for one in parameters.values())})"
    return strategy.I(line, data.Open, data.High, data.Low, data.Close, data.Volume, name=label)


def _moving_average_cross(base: Any) -> Any:
    class MovingAverageCross(base):  # type: ignore[misc]
        fast, slow = 10, 30

        def init(self) -> None:
            self.quick = _indicator(self, "sma", period=self.fast)
            self.steady = _indicator(self, "sma", period=self.slow)

        def next(self) -> None:
            if crossed(self.quick, self.steady):
                self.position.close()
                self.buy()
            elif crossed(self.steady, self.quick):
                self.position.close()

    return MovingAverageCross


def _rsi_reversal(base: Any) -> Any:
    class RsiReversal(base):  # type: ignore[misc]
        period, low, high = 14, 30.0, 70.0

        def init(self) -> None:
            self.rsi = _indicator(self, "rsi", period=self.period)

        def next(self) -> None:
            if self.rsi[-1] < self.low and not self.position:
                self.buy()
            elif self.rsi[-1] > self.high and self.position:
                self.position.close()

    return RsiReversal


def _breakout(base: Any) -> Any:
    class Breakout(base):  # type: ignore[misc]
        window, exit_window = 20, 10

        def init(self) -> None:
            pandas = extra("pandas")
            # Of the candles before: a candle's own high says nothing about whether it broke out.
            self.ceiling = self.I(lambda v: pandas.Series(v).rolling(self.window).max().shift(1), self.data.High)
            self.floor = self.I(lambda v: pandas.Series(v).rolling(self.exit_window).min().shift(1), self.data.Low)

        def next(self) -> None:
            if self.data.Close[-1] > self.ceiling[-1] and not self.position:
                self.buy()
            elif self.data.Close[-1] < self.floor[-1] and self.position:
                self.position.close()

    return Breakout


def _buy_and_hold(base: Any) -> Any:
    class BuyAndHold(base):  # type: ignore[misc]
        def init(self) -> None:
            """Need nothing."""

        def next(self) -> None:
            if not self.position:
                self.buy()

    return BuyAndHold


def crossed(above: Any, below: Any) -> bool:
    """Tell whether the first line has just come over the second."""
    return bool(above[-2] < below[-2] and above[-1] > below[-1])


TEMPLATES: dict[str, Template] = {
    template.name: template
    for template in (
        Template(
            "moving_average_cross", "Moving average cross",
            "Buys when the fast simple average of the closes comes over the slow one, sells when it falls under it.",
            {"fast": 10, "slow": 30}, _moving_average_cross,
        ),
        Template(
            "rsi_reversal", "RSI reversal",
            "Buys when the relative strength index is under `low`, sells when it is over `high`.",
            {"period": 14, "low": 30, "high": 70}, _rsi_reversal,
        ),
        Template(
            "breakout", "Breakout",
            "Buys on a close over the highest high of `window` candles, sells under the lowest low of `exit_window`.",
            {"window": 20, "exit_window": 10}, _breakout,
        ),
        Template(
            "buy_and_hold", "Buy and hold", "Buys at once and keeps it: what the others are held against.",
            {}, _buy_and_hold,
        ),
    )
}  # fmt: skip
"""The built-in strategies by name; ``strategy_templates`` has them as rows."""


@dataclass(frozen=True, slots=True)
class Strategy:
    """A strategy that can be run: its class, its parameters, and what tells its code from another's."""

    name: str
    kind: Any
    parameters: dict[str, Any]
    code_hash: str


def load_strategy(name: str, given: Mapping[str, str]) -> Strategy:
    """Return a built-in strategy by its name, or the one class of a Python file, with its parameters.

    Args:
        given: parameters as text; each takes the type of the class's own value.

    Raises:
        UnknownName: there is no such strategy or parameter.
        UsageError: the file cannot be read or has not exactly one strategy; a value has the wrong type.
        MissingExtra: Backtesting.py is not installed.
    """
    base = extra("backtesting").Strategy
    kind, code_hash = _from_file(Path(name), base) if name.endswith(".py") else _built_in(name, base)
    own = {
        key: value
        for key, value in inspect.getmembers(kind)
        if not key.startswith("_") and isinstance(value, (bool, int, float, str)) and key not in dir(base)
    }
    chosen = dict(own)
    for key, text in given.items():
        if key not in own:
            raise UnknownName(f"parameter of {name}", key, sorted(own))
        chosen[key] = value_like(own[key], text, key)
    return Strategy(Path(name).stem if name.endswith(".py") else name, kind, chosen, code_hash)


def value_like(own: Any, text: str, key: str) -> Any:
    """Return text as a value of the same type as a parameter has by default; raise UsageError where it is none."""
    try:
        if isinstance(own, bool):
            return {"true": True, "false": False}[text.strip().lower()]
        if isinstance(own, str):
            return text
        number = float(text)
        return int(number) if number == int(number) and isinstance(own, int) else number
    except (KeyError, ValueError, OverflowError) as error:
        raise UsageError(f"{text!r} is no value for {key}, which is {own!r} by default.") from error


@cache
def _class_of(name: str, base: Any) -> Any:
    return TEMPLATES[name].make(base)


def _built_in(name: str, base: Any) -> tuple[Any, str]:
    if name not in TEMPLATES:
        raise UnknownName("strategy", name, list(TEMPLATES))
    code = inspect.getsource(TEMPLATES[name].make)
    return _class_of(name, base), hashlib.sha256(code.encode()).hexdigest()


def _from_file(path: Path, base: Any) -> tuple[Any, str]:
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
    found = [
        value
        for value in vars(module).values()
        if isinstance(value, type) and issubclass(value, base) and value.__module__ == module.__name__
    ]
    if len(found) != 1:
        names = ", ".join(one.__name__ for one in found) or "none"
        raise UsageError(
            f"{path} must define exactly one subclass of backtesting.Strategy; it has {names}.",
            hint="Put each strategy into a file of its own.",
        )
    return found[0], hashlib.sha256(code).hexdigest()
