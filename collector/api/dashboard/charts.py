"""What the charts show, as ECharts wants it: pure, from rows of CSV and of the ledger."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Any

from collector.backtest.results import BacktestResult
from collector.reading.comparison import Comparison
from collector.reading.coverage import HourCoverage
from collector.reading.tail import Fields
from collector.session.gaps import Entry
from collector.wording import time_text

UP, DOWN, PARTIAL = "#1f9d61", "#cf3b3b", "#8b95a5"
_GAP_COLOURS = {"open": "#cf3b3b", "partial": "#c77d0a", "repaired": "#1f9d61", "unrecoverable": "#6b4fb3"}
_TEXT = {"color": "#7d8796", "fontSize": 11, "hideOverlap": True}
_GRID_LINE = {"lineStyle": {"color": "#80808030"}}


def newest_candles(rows: Iterable[Fields], interval: str) -> list[Fields]:
    """Return the candles of an interval in their order: of each, the last row counts."""
    found: dict[int, Fields] = {}
    for row in rows:
        if row["interval"] == interval:
            found[int(row["timestamp"])] = row
    return [found[at] for at in sorted(found)]


def candle_chart(candles: Sequence[Fields]) -> dict[str, Any]:
    """Return a chart of candles over their volumes; ones that are not whole are grey."""
    times = [time_text(int(row["timestamp"])).removesuffix(":00Z") for row in candles]
    whole = [row["coverage"] == "full" for row in candles]
    bodies = []
    volumes = []
    for row, is_whole in zip(candles, whole, strict=True):
        opened, closed = float(row["open"]), float(row["close"])
        colour = (UP if closed >= opened else DOWN) if is_whole else PARTIAL
        style = {"color": colour, "color0": colour, "borderColor": colour, "borderColor0": colour}
        bodies.append({"value": [opened, closed, float(row["low"]), float(row["high"])], "itemStyle": style})
        volumes.append({"value": float(row["volume"]), "itemStyle": {"color": colour, "opacity": 0.6}})
    axis = {"type": "category", "data": times, "axisLabel": _TEXT, "axisTick": {"show": False}}
    return {
        "animation": False,
        "tooltip": {"trigger": "axis", "axisPointer": {"type": "cross"}},
        "axisPointer": {"link": [{"xAxisIndex": "all"}]},
        "grid": [
            {"left": 70, "right": 16, "top": 12, "height": "62%"},
            {"left": 70, "right": 16, "top": "78%", "height": "14%"},
        ],
        "xAxis": [{**axis, "axisLabel": {"show": False}}, {**axis, "gridIndex": 1}],
        "yAxis": [
            {"scale": True, "splitLine": _GRID_LINE, "axisLabel": _TEXT},
            {"gridIndex": 1, "splitNumber": 2, "splitLine": _GRID_LINE, "axisLabel": _TEXT},
        ],
        "dataZoom": [
            # The newest 120 candles at first; the wheel shows more.
            {"type": "inside", "xAxisIndex": [0, 1], "start": max(0, 100 - 12_000 / max(1, len(times))), "end": 100}
        ],
        "series": [
            {"type": "candlestick", "name": "price", "data": bodies, "barMaxWidth": 24},
            {"type": "bar", "name": "volume", "data": volumes, "xAxisIndex": 1, "yAxisIndex": 1, "barMaxWidth": 24},
        ],
    }  # fmt: skip


def past_candle_chart(candles: Sequence[Sequence[Any]]) -> dict[str, Any]:
    """Return a chart of past candles, given by time as time (microseconds), open, high, low, close, volume and more.

    Where several sources have a bucket, the first one is drawn.
    """
    names = ("timestamp", "open", "high", "low", "close", "volume")
    first: dict[int, Fields] = {}
    for row in candles:
        values = dict(zip(names, (str(value if value is not None else 0) for value in row), strict=False))
        first.setdefault(int(row[0]), {**values, "coverage": "full"})
    return candle_chart(list(first.values()))


def gap_chart(entries: Sequence[Entry], symbols: Sequence[str], from_us: int, to_us: int) -> dict[str, Any]:
    """Return the gaps on a line of time per symbol, in the colour of their state."""
    series: dict[str, list[Any]] = {}
    for entry in entries:
        begin_us = entry.from_us if entry.from_us is not None else entry.to_us
        if entry.symbol not in symbols or begin_us is None:
            continue
        end_us = entry.to_us if entry.to_us is not None else to_us
        row = symbols.index(entry.symbol)
        # A hole of a moment is drawn as wide as a moment can be seen.
        end_us = max(end_us, begin_us + (to_us - from_us) // 400)
        name = f"{entry.stream}: {entry.cause}, {entry.expected_rows if entry.expected_rows is not None else '?'} rows"
        points = series.setdefault(entry.state, [])
        points.append({"name": name, "coords": [[begin_us / 1000, row], [end_us / 1000, row]]})
    return {
        "animation": False,
        "tooltip": {"trigger": "item", "formatter": "{b}"},
        "legend": {"data": list(_GAP_COLOURS), "textStyle": _TEXT, "top": 0, "itemHeight": 8},
        "grid": {"left": 100, "right": 16, "top": 28, "bottom": 24},
        "xAxis": {
            "type": "time", "min": from_us / 1000, "max": to_us / 1000, "axisLabel": _TEXT, "splitLine": _GRID_LINE,
        },
        "yAxis": {"type": "category", "data": list(symbols), "axisLabel": _TEXT, "axisTick": {"show": False}},
        "series": [
            {
                "type": "lines", "coordinateSystem": "cartesian2d", "name": state, "data": series.get(state, []),
                "lineStyle": {"width": 12, "color": colour, "opacity": 0.9, "cap": "butt"},
                "itemStyle": {"color": colour},
            }
            for state, colour in _GAP_COLOURS.items()
        ],
    }  # fmt: skip


def coverage_chart(hours: Sequence[HourCoverage], symbols: Sequence[str]) -> dict[str, Any]:
    """Return the coverage of each hour as a map of colours, symbol by symbol."""
    columns = sorted({hour.hour_us for hour in hours})
    place = {hour_us: number for number, hour_us in enumerate(columns)}
    data = [
        [place[hour.hour_us], symbols.index(hour.symbol), round(100 * hour.coverage, 3)]
        for hour in hours
        if hour.symbol in symbols
    ]
    return {
        "animation": False,
        "tooltip": {"formatter": "{c}"},
        "grid": {"left": 100, "right": 16, "top": 8, "bottom": 64},
        "xAxis": {"type": "category", "data": [time_text(at)[5:16] for at in columns], "axisLabel": _TEXT},
        "yAxis": {"type": "category", "data": list(symbols), "axisLabel": _TEXT},
        "visualMap": {
            "min": 90, "max": 100, "calculable": True, "orient": "horizontal", "left": "center", "bottom": 0,
            "text": ["100 %", "≤ 90 %"], "textStyle": _TEXT, "itemHeight": 120, "itemWidth": 12,
            "inRange": {"color": ["#cf3b3b", "#e9a23b", "#9bd17c", "#1f9d61"]},
        },
        "series": [{"type": "heatmap", "data": data, "itemStyle": {"borderWidth": 1, "borderColor": "#80808022"}}],
    }  # fmt: skip


def latency_chart(trades: Sequence[Fields]) -> dict[str, Any]:
    """Return the time from the exchange's stamp to the receipt, trade by trade."""
    points = [
        [int(row["received_at"]) / 1000, (int(row["received_at"]) - int(row["timestamp"])) / 1000]
        for row in trades
        if row.get("source") == "ws" and row["received_at"]
    ]
    return {
        "animation": False,
        "tooltip": {"trigger": "axis"},
        "grid": {"left": 60, "right": 16, "top": 12, "bottom": 24},
        "xAxis": {"type": "time", "axisLabel": _TEXT, "splitLine": _GRID_LINE},
        "yAxis": {"type": "value", "name": "ms", "scale": True, "axisLabel": _TEXT, "splitLine": _GRID_LINE},
        "series": [{"type": "scatter", "data": points, "symbolSize": 3, "itemStyle": {"color": "#3b6fd4"}}],
    }


def even_digits(texts: Sequence[str]) -> list[str]:
    """Return decimals with as many digits after the point as any of them needs, and no zeros behind."""
    needed = max((len(text.partition(".")[2].rstrip("0")) for text in texts), default=0)
    found = []
    for text in texts:
        whole, _, part = text.partition(".")
        found.append(f"{whole}.{part[:needed]:0<{needed}}" if needed else whole)
    return found


def quantiles_ms(trades: Sequence[Fields]) -> tuple[float, float, float] | None:
    """Return the smallest, the middle and the 99th of 100 latencies of received trades, in milliseconds."""
    values = sorted(
        (int(row["received_at"]) - int(row["timestamp"])) / 1000
        for row in trades
        if row.get("source") == "ws" and row["received_at"]
    )
    if not values:
        return None
    return values[0], values[len(values) // 2], values[min(len(values) - 1, int(0.99 * len(values)))]


_CURVES = ("#3b6fd4", "#c77d0a", "#1f9d61", "#6b4fb3", "#2b8fb3", "#cf3b3b")
_POINTS = 2_000


def equity_chart(result: BacktestResult) -> dict[str, Any]:
    """Return a backtest's account after each candle, with its trades, over how far it was below its best."""
    value_at = dict(result.equity)
    best, falls = -math.inf, []
    for at_us, value in result.equity:
        best = max(best, value)
        falls.append([at_us / 1000, 100 * (value / best - 1) if best > 0 else 0])
    marks = [
        {"type": "scatter", "name": name, "symbolSize": 7, "itemStyle": {"color": colour},
         "data": [[trade[key] / 1000, value_at[trade[key]]] for trade in result.trades if trade[key] in value_at]}
        for name, key, colour in (("entry", "entry_us", UP), ("exit", "exit_us", DOWN))
    ]  # fmt: skip
    axis = {"type": "time", "axisLabel": _TEXT, "splitLine": {"show": False}}
    return {
        "animation": False,
        "tooltip": {"trigger": "axis"},
        "legend": {"textStyle": _TEXT, "top": 0},
        "axisPointer": {"link": [{"xAxisIndex": "all"}]},
        "grid": [
            {"left": 70, "right": 16, "top": 30, "height": "58%"},
            {"left": 70, "right": 16, "top": "76%", "height": "15%"},
        ],
        "xAxis": [{**axis, "axisLabel": {"show": False}}, {**axis, "gridIndex": 1}],
        "yAxis": [
            {"scale": True, "splitLine": _GRID_LINE, "axisLabel": _TEXT},
            {"gridIndex": 1, "splitNumber": 2, "splitLine": _GRID_LINE, "axisLabel": _TEXT},
        ],
        "series": [
            {"type": "line", "name": "equity", "showSymbol": False, "sampling": "lttb", "lineStyle": {"width": 2},
             "color": _CURVES[0], "data": [[at / 1000, value] for at, value in result.equity]},
            *marks,
            {"type": "line", "name": "drawdown %", "showSymbol": False, "sampling": "lttb", "xAxisIndex": 1,
             "yAxisIndex": 1, "color": DOWN, "areaStyle": {"opacity": 0.25}, "data": falls},
        ],
    }  # fmt: skip


def returns_chart(results: Sequence[BacktestResult]) -> dict[str, Any]:
    """Return what each backtest had gained, in percent of its cash, over the time since its first candle."""
    series = []
    for number, result in enumerate(results):
        step = max(1, len(result.equity) // _POINTS)
        points = [
            [(at_us - result.from_us) / 3_600_000_000, 100 * (value / result.cash - 1)]
            for at_us, value in result.equity[::step]
        ]
        colour = _CURVES[number % len(_CURVES)]
        series.append(
            {"type": "line", "name": result.backtest_id, "showSymbol": False, "color": colour, "data": points}
        )
    return {
        "animation": False,
        "tooltip": {"trigger": "axis"},
        "legend": {"textStyle": _TEXT, "top": 0, "type": "scroll"},
        "grid": {"left": 60, "right": 16, "top": 34, "bottom": 40},
        "xAxis": {
            "type": "value", "name": "hours", "nameLocation": "middle", "nameGap": 24, "axisLabel": _TEXT,
            "splitLine": {"show": False},
        },
        "yAxis": {"type": "value", "name": "%", "scale": True, "axisLabel": _TEXT, "splitLine": _GRID_LINE},
        "series": series,
    }  # fmt: skip


def comparison_chart(found: Comparison) -> dict[str, Any]:
    """Return the prices of two sessions over their difference in basis points; every n-th step where there are many."""
    points = found.points[:: max(1, len(found.points) // _POINTS)]
    axis = {"type": "time", "axisLabel": _TEXT, "splitLine": {"show": False}}
    prices = [
        {"type": "line", "name": side.session_id, "showSymbol": False, "color": _CURVES[number],
         "data": [[point[0] / 1000, point[number + 1]] for point in points]}
        for number, side in enumerate((found.left, found.right))
    ]  # fmt: skip
    return {
        "animation": False,
        "tooltip": {"trigger": "axis"},
        "legend": {"textStyle": _TEXT, "top": 0},
        "axisPointer": {"link": [{"xAxisIndex": "all"}]},
        "dataZoom": [{"type": "inside", "xAxisIndex": [0, 1]}],
        "grid": [
            {"left": 80, "right": 16, "top": 30, "height": "50%"},
            {"left": 80, "right": 16, "top": "70%", "height": "20%"},
        ],
        "xAxis": [{**axis, "axisLabel": {"show": False}}, {**axis, "gridIndex": 1}],
        "yAxis": [
            {"scale": True, "splitLine": _GRID_LINE, "axisLabel": _TEXT},
            {"gridIndex": 1, "name": "bp", "splitNumber": 2, "splitLine": _GRID_LINE, "axisLabel": _TEXT},
        ],
        "series": [
            *prices,
            {"type": "bar", "name": "difference", "xAxisIndex": 1, "yAxisIndex": 1, "color": PARTIAL,
             "data": [[at / 1000, round(10_000 * (left / right - 1), 4)] for at, left, right in points]},
        ],
    }  # fmt: skip
