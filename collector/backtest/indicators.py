"""Indicators of candles, by talipp, one candle at a time: a backtest uses what the table ``indicators`` holds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from collector.errors import UnknownName, UsageError
from collector.reading.arrow import extra


@dataclass(frozen=True, slots=True)
class IndicatorKind:
    """An indicator: its parameters with their defaults, and the names of the values that it gives."""

    parameters: Mapping[str, float]
    values: tuple[str, ...]
    make: Callable[[Any, Mapping[str, float]], Any]
    of_candles: bool = False
    """Whether it takes whole candles; otherwise their closes."""


def _whole(parameters: Mapping[str, float], name: str) -> int:
    return int(parameters[name])


KINDS: dict[str, IndicatorKind] = {
    "sma": IndicatorKind({"period": 20}, ("",), lambda t, p: t.SMA(_whole(p, "period"))),
    "ema": IndicatorKind({"period": 20}, ("",), lambda t, p: t.EMA(_whole(p, "period"))),
    "rsi": IndicatorKind({"period": 14}, ("",), lambda t, p: t.RSI(_whole(p, "period"))),
    "macd": IndicatorKind(
        {"fast": 12, "slow": 26, "signal": 9},
        ("", "signal", "histogram"),
        lambda t, p: t.MACD(_whole(p, "fast"), _whole(p, "slow"), _whole(p, "signal")),
    ),
    "bollinger": IndicatorKind(
        {"period": 20, "deviations": 2.0},
        ("lower", "middle", "upper"),
        lambda t, p: t.BB(_whole(p, "period"), float(p["deviations"])),
    ),
    "atr": IndicatorKind({"period": 14}, ("",), lambda t, p: t.ATR(_whole(p, "period")), of_candles=True),
    "vwap": IndicatorKind({}, ("",), lambda t, _: t.VWAP(), of_candles=True),
}
"""Every indicator by its name; ``macd`` gives ``macd``, ``macd_signal`` and ``macd_histogram``, and so on."""

_DAY_US = 86_400_000_000
_FIELDS = {"macd": ("macd", "signal", "histogram"), "bollinger": ("lb", "cb", "ub")}


@dataclass(frozen=True, slots=True)
class Candle:
    """What an indicator is told: float64 values of one candle."""

    open: float
    high: float
    low: float
    close: float
    volume: float
    start_us: int = 0
    """Its start in microseconds since the epoch, UTC; only ``vwap`` looks at it."""


class Incremental:
    """One indicator, fed candle by candle in their order.

    ``vwap`` begins anew with each day, UTC.

    Args:
        name: one of ``KINDS``.
        parameters: in place of defaults.

    Raises:
        UnknownName: there is no such indicator, or it has no such parameter.
        UsageError: a parameter is not a positive number, or not a whole one where it counts candles.
    """

    def __init__(self, name: str, **parameters: float) -> None:
        if name not in KINDS:
            raise UnknownName("indicator", name, list(KINDS))
        kind = KINDS[name]
        for parameter, value in parameters.items():
            if parameter not in kind.parameters:
                raise UnknownName(f"parameter of {name}", parameter, list(kind.parameters))
            if not value > 0:
                raise UsageError(f"{parameter} of {name} must be more than 0.")
            if isinstance(kind.parameters[parameter], int) and value != int(value):
                raise UsageError(f"{parameter} of {name} counts candles: {value:g} is not whole.")
        self.name = name
        given = {**kind.parameters, **parameters}
        self.parameters = {key: type(own)(given[key]) for key, own in kind.parameters.items()}
        self._day: int | None = None
        self._kind = kind
        self._indicator = kind.make(extra("talipp.indicators"), self.parameters)
        self._candle = extra("talipp.ohlcv").OHLCV

    @property
    def value_names(self) -> tuple[str, ...]:
        """Return the names of what ``add`` returns."""
        return tuple(f"{self.name}_{value}" if value else self.name for value in self._kind.values)

    @property
    def column_names(self) -> tuple[str, ...]:
        """Return the same names with the parameters, as ``sma(20)``: what tells apart the rows of ``indicators``."""
        told = ",".join(str(int(one)) if one == int(one) else repr(float(one)) for one in self.parameters.values())
        return tuple(f"{name}({told})" if told else name for name in self.value_names)

    def add(self, candle: Candle) -> tuple[float | None, ...]:
        """Take the next candle; return its values, None while there were too few candles."""
        if self.name == "vwap" and self._day != (day := candle.start_us // _DAY_US):
            self._day, self._indicator = day, self._kind.make(extra("talipp.indicators"), self.parameters)
        told = candle.close
        if self._kind.of_candles:
            told = self._candle(candle.open, candle.high, candle.low, candle.close, candle.volume)
        self._indicator.add(told)
        value = self._indicator[-1]
        if value is None:
            return (None,) * len(self._kind.values)
        fields = _FIELDS.get(self.name)
        return (value,) if fields is None else tuple(getattr(value, field) for field in fields)


def computed(name: str, candles: Iterable[Candle], **parameters: float) -> Iterator[tuple[float | None, ...]]:
    """Return an indicator's values for candles in their order."""
    indicator = Incremental(name, **parameters)
    return (indicator.add(candle) for candle in candles)
