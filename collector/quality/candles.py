"""How good a series of candles is: checks with visible parts, and a score made of them. Pure.

A part is a share of the candles, so that a person sees what the score is made of: nothing is weighed in secret.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from decimal import Decimal

import msgspec

_JUMP = Decimal("0.5")
"""A candle that opens more than half above or below the close before it, its neighbour, is a jump."""
_STALE_RUN = 12
"""So many candles in a row with the same four prices and some volume are repeats of one."""


class Point(msgspec.Struct, gc=False):
    """One candle: ``start_us`` is the start of its bucket; ``volume`` is None where the source has none."""

    start_us: int
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal | None = None


class Report(msgspec.Struct, kw_only=True):
    """What is wrong with a series. Each number counts candles.

    Args:
        expected: how many there could be, without those that nobody traded in; ``present`` how many there are.
        missing_ranges: the first of them: bucket starts from the first to before the second.
        duplicates: several of one bucket; ``not_positive``: a price of zero or less; ``inverted``: high below low;
            ``outside``: open or close outside of low and high; ``jumps``: opens far from the close before;
            ``stale``: repeats of the candle before, many in a row; ``negative_volume``.
    """

    expected: int = 0
    present: int = 0
    missing: int = 0
    missing_ranges: list[tuple[int, int]] = []
    duplicates: int = 0
    not_positive: int = 0
    inverted: int = 0
    outside: int = 0
    jumps: int = 0
    stale: int = 0
    negative_volume: int = 0

    @property
    def completeness(self) -> float:
        """Return the share of the expected candles that there are, in per cent."""
        return 100.0 * self.present / self.expected if self.expected else 0.0

    @property
    def parts(self) -> dict[str, float]:
        """Return what is taken off a hundred, by reason: each a share of the candles, in per cent."""

        def share(count: int, total: int) -> float:
            return round(100.0 * count / total, 4) if total else 0.0

        flaws = ("duplicates", "not_positive", "inverted", "outside", "jumps", "stale", "negative_volume")
        return {
            "missing": share(self.missing, self.expected),
            **{name: share(getattr(self, name), self.present) for name in flaws},
        }

    @property
    def score(self) -> float:
        """Return a hundred without the parts, not below nothing."""
        return max(0.0, round(100.0 - sum(self.parts.values()), 2)) if self.present else 0.0


def examine(
    points: Iterable[Point],
    bucket_us: int,
    *,
    missing: Sequence[tuple[int, int]] = (),
    ranges_kept: int = 100,
) -> Report:
    """Examine candles in the order of their starts.

    Args:
        missing: what lacks between the first and the last, as whoever knows the empty spans says.
        ranges_kept: how many of the missing ranges are named.
    """
    report = Report(missing_ranges=list(missing)[:ranges_kept])
    report.missing = sum(before - first for first, before in missing) // bucket_us
    previous: Point | None = None
    run = 0
    for point in points:
        if previous is not None and point.start_us == previous.start_us:
            report.duplicates += 1
            continue
        report.present += 1
        _judge(point, report)
        if previous is not None and point.start_us - previous.start_us == bucket_us:
            report.jumps += _is_jump(previous, point)
            run = run + 1 if _repeats(previous, point) else 0
            report.stale += _STALE_RUN if run == _STALE_RUN else run > _STALE_RUN
        else:
            run = 0
        previous = point
    report.expected = report.present + report.missing
    return report


def _judge(point: Point, report: Report) -> None:
    prices = point.open, point.high, point.low, point.close
    report.not_positive += min(prices) <= 0
    report.inverted += point.high < point.low
    inside = point.low <= point.open <= point.high and point.low <= point.close <= point.high
    report.outside += not inside and point.high >= point.low
    report.negative_volume += point.volume is not None and point.volume < 0


def _is_jump(before: Point, point: Point) -> bool:
    return before.close > 0 and abs(point.open / before.close - 1) > _JUMP


def _repeats(before: Point, point: Point) -> bool:
    same = (before.open, before.high, before.low, before.close) == (point.open, point.high, point.low, point.close)
    return same and (point.volume is None or point.volume > 0)


class SecondOpinion(msgspec.Struct, kw_only=True):
    """A sample of candles of two sources, compared: ``largest`` is the greatest difference of a price, in per cent."""

    first: str
    second: str
    compared: int = 0
    equal: int = 0
    largest: float = 0.0
    at_us: int | None = None


def compare(first: Iterable[Point], second: Iterable[Point], names: tuple[str, str]) -> SecondOpinion:
    """Compare the candles that two sources have of the same buckets."""
    others = {point.start_us: point for point in second}
    opinion = SecondOpinion(first=names[0], second=names[1])
    for point in first:
        other = others.get(point.start_us)
        if other is None:
            continue
        opinion.compared += 1
        pairs = [(getattr(point, name), getattr(other, name)) for name in ("open", "high", "low", "close")]
        opinion.equal += all(a == b for a, b in pairs)
        apart = max(float(abs(a - b) / b * 100) if b else 100.0 for a, b in pairs)
        if apart > opinion.largest:
            opinion.largest, opinion.at_us = round(apart, 6), point.start_us
    return opinion
