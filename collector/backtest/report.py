"""A run as one HTML file that needs nothing else: what went in, what came out, where holes are, the plot."""

from __future__ import annotations

import html
from pathlib import Path

from collector.backtest.results import TICKS, BacktestResult
from collector.wording import count_text, time_text

# The library counts its users by having each plot fetch a page of its author's; the policy forbids what else there is.
_COUNTER = "https://kernc.github.io/backtesting.py/plx.gif.html"
_POLICY = "default-src 'none'; script-src 'unsafe-inline' 'unsafe-eval'; style-src 'unsafe-inline'; img-src data: blob:"

_STYLE = """
body { font: 15px/1.45 system-ui, sans-serif; margin: 24px auto; max-width: 1200px; padding: 0 16px; color: #1c2430; }
h1 { font-size: 1.4rem; } table { border-collapse: collapse; margin: 12px 0; } td, th { padding: 3px 14px 3px 0;
text-align: left; } td:last-child { font-variant-numeric: tabular-nums; } .warn { background: #fff4e0; border: 1px solid
#e9b75b; padding: 10px 14px; border-radius: 8px; } .grid { display: flex; flex-wrap: wrap; gap: 40px;
align-items: flex-start; }
iframe { border: 0; width: 100%; height: 900px; }
"""


def write_report(path: Path, result: BacktestResult, plot: Path | None) -> None:
    """Write the report.

    Args:
        plot: the library's own plot, which is taken into the report and deleted.
    """
    facts = {
        "Strategy": result.strategy,
        "Engine": "hftbacktest, on ticks" if result.engine == TICKS else "Backtesting.py, on candles",
        "Parameters": ", ".join(f"{key} = {value}" for key, value in result.parameters.items()) or "none",
        "Symbol": f"{result.symbol}, {result.interval}",
        "Session": result.session_id or "history",
        "From": time_text(result.from_us),
        "To": time_text(result.to_us),
        **_amounts(result),
        "Cash": f"{result.cash:,.2f}",
        **({} if result.engine == TICKS else {"Commission": f"{100 * result.commission:g} %"}),
        "Combinations tried": f"{count_text(result.tried)}, best by {result.best_by}" if result.best_by else "1",
        "Data": result.data_hash,
        "Code": result.code_hash,
    }
    numbers = {
        name: "-" if value is None else f"{value:,.4f}".rstrip("0").rstrip(".")
        for name, value in result.statistics.items()
    }
    parts = [
        f"<!doctype html><html lang=en><meta charset=utf-8><title>{html.escape(result.backtest_id)}</title>",
        f'<meta http-equiv="Content-Security-Policy" content="{_POLICY}">',
        f"<style>{_STYLE}</style><h1>{html.escape(result.backtest_id)}</h1>",
        _holes(result),
        f"<div class=grid>{_table(facts)}{_table(numbers)}</div>",
        _tried(result),
        _curve(result.equity) if result.engine == TICKS and result.equity else "",
    ]
    if plot is not None:
        # A frame of its own: the plot is a whole page with styles and scripts for itself.
        drawn = html.escape(plot.read_text(encoding="utf-8").replace(_COUNTER, "about:blank"), quote=True)
        parts.append(f'<iframe title="equity, trades and candles" srcdoc="{drawn}"></iframe>')
        plot.unlink()
    new = path.with_suffix(".tmp")
    new.write_text("\n".join(parts) + "</html>\n", encoding="utf-8")
    new.replace(path)


def _table(rows: dict[str, str]) -> str:
    cells = [f"<tr><th>{html.escape(name)}</th><td>{html.escape(value)}</td></tr>" for name, value in rows.items()]
    return f"<table>{''.join(cells)}</table>"


def _amounts(result: BacktestResult) -> dict[str, str]:
    """Return how much went in, from where, and what was assumed of the exchange."""
    if result.engine != TICKS:
        counted = f"{count_text(result.candles)} whole ones, {count_text(result.left_out)} left out"
        sources = ", ".join(f"{count_text(count)} of {name}" for name, count in result.sources.items())
        return {"Candles": counted, "From store": result.source, **({"Sources": sources} if sources else {})}
    assumed = {name.replace("_", " ").capitalize(): str(value) for name, value in result.assumptions.items()}
    return {"Events": count_text(result.candles), "From store": result.source, **assumed}


def _curve(points: list[tuple[int, float]]) -> str:
    """Return the account's value as a drawing that needs no script."""
    values = [value for _, value in points]
    low, span = min(values), max(values) - min(values) or 1.0
    begin, length = points[0][0], points[-1][0] - points[0][0] or 1
    line = " ".join(
        f"{1000 * (at - begin) / length:.1f},{300 - 300 * (value - low) / span:.1f}" for at, value in points
    )
    return (
        f"<h2>Equity</h2><p>{min(values):,.4f} to {max(values):,.4f}, {time_text(points[0][0])} to "
        f"{time_text(points[-1][0])}</p><svg viewBox='0 -5 1000 310' role=img aria-label='equity by time'>"
        f"<polyline fill=none stroke='#2563eb' stroke-width=1.5 points='{line}'/></svg>"
    )


def _holes(result: BacktestResult) -> str:
    if not result.holes:
        return ""
    lines = "".join(
        f"<li>{html.escape(hole.gap_id)}: {html.escape(hole.cause)}, {html.escape(hole.state)}, "
        f"{time_text(hole.from_us)} to {time_text(hole.to_us)}, "
        f"{'?' if hole.rows is None else count_text(hole.rows)} trades</li>"
        for hole in result.holes
    )
    return f"<div class=warn><b>Trades are missing in what this was run on:</b><ul>{lines}</ul></div>"


def _tried(result: BacktestResult) -> str:
    if not result.table:
        return ""
    names = list(result.table[0])
    head = "".join(f"<th>{html.escape(name)}</th>" for name in names)
    shown = [["-" if row[name] is None else f"{row[name]:g}" for name in names] for row in result.table[:30]]
    body = "".join("<tr>" + "".join(f"<td>{html.escape(cell)}</td>" for cell in row) + "</tr>" for row in shown)
    return f"<h2>Best combinations</h2><table><tr>{head}</tr>{body}</table>"
