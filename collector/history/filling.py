"""Decide which source is asked for which candles of one symbol, and what is still missing afterwards, and why. Pure.

Sources are asked in the configured order, each for what no exchange gave and no aggregator that comes before it. Where
two exchanges answered for a bucket and neither has a candle, nothing was traded in it: nobody else is asked. Before the
first candle that anybody has, the symbol was not traded yet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Literal

import msgspec

from collector.events import Gap
from collector.exchanges.candle_sources.base import Unreachable
from collector.exchanges.candle_sources.intervals import DAY_US
from collector.history.holdings import Holding
from collector.history.spans import Span, Spans, intersect, joined, length, subtract, union

_SETTLED_US = DAY_US
"""How old a bucket must be until two exchanges without a candle of it are believed: they may be late."""
_LEDGER_GAP_US = DAY_US
"""Holes of one cause that are nearer to each other are one row of the ledger, which counts their candles."""


class Answered(msgspec.Struct):
    """What one source was asked for, and what became of it; ``failure`` is empty where it answered everything."""

    source: str
    asked: Spans
    covered: Spans = []
    got: Spans = []
    unreachable: list[Unreachable] = []
    failure: str = ""
    unlisted: bool = False

    @property
    def absent(self) -> Spans:
        """What it answered for without having it."""
        beyond = union([(one.from_us, one.to_us) for one in self.unreachable])
        return subtract(subtract(intersect(self.asked, self.covered), self.got), beyond)


class Filling:
    """One symbol's range, as it is being filled.

    Args:
        span: the buckets that are wanted.
        kinds: of each source that can be met, whether it is an exchange or an aggregator; others are exchanges.
        order: the sources that are asked, first to last.
        holding: what is held already; it is added to.
    """

    def __init__(
        self,
        symbol: str,
        span: Span,
        bucket_us: int,
        holding: Holding,
        *,
        kinds: Mapping[str, Literal["exchange", "aggregator"]],
        order: Sequence[str],
        now_us: int,
    ) -> None:
        self.symbol = symbol
        self.answers: list[Answered] = []
        self._span = span
        self._bucket_us = bucket_us
        self._holding = holding
        self._kinds = kinds
        self._order = list(order)
        self._settled_before = now_us - _SETTLED_US
        self._absent_once: Spans = []
        self._absent_twice: Spans = []

    @property
    def missing(self) -> Spans:
        """What nobody has given yet, and of which nobody said that there is nothing."""
        return subtract(subtract(self._wanted(), self._holding.any), self._no_trades())

    def to_ask(self, source: str) -> Spans:
        """Return what a source is to be asked for."""
        rank = self._order.index(source)
        first = set(self._order[: rank + 1])
        counted = [
            spans
            for name, spans in self._holding.by_source.items()
            if self._kinds.get(name, "exchange") == "exchange" or name in first
        ]
        return subtract(subtract(self._wanted(), union(*counted)), self._no_trades())

    def take(self, answered: Answered) -> None:
        """Take in what a source brought; its candles are held by then."""
        self.answers.append(answered)
        if self._kinds.get(answered.source, "exchange") == "exchange":
            absent = answered.absent
            self._absent_twice = union(self._absent_twice, intersect(self._absent_once, absent))
            self._absent_once = union(self._absent_once, absent)

    def finish(self) -> Spans:
        """Keep in the holding where nothing was traded; return that."""
        self._holding.empty = union(self._holding.empty, self._no_trades())
        return intersect([self._span], self._holding.empty)

    def count(self, spans: Spans) -> int:
        """Return how many buckets some spans have."""
        return length(spans) // self._bucket_us

    def first_us(self) -> int | None:
        """Return the start of the first candle that anybody has; None where nobody has one."""
        held = self._holding.any
        return held[0][0] if held else None

    def gaps(self, stream: str) -> list[Gap]:
        """Return the ledger's rows: what is missing and why, and what one source lacked and another one had."""
        found: list[Gap] = []
        first_us = self.first_us()
        missing = self.missing
        if first_us is not None:
            before = intersect(missing, [(self._span[0], first_us)])
            missing = subtract(missing, before)
            found += self._rows(stream, "not_listed", before, "unrecoverable", "before the first candle of any source")
            found += self._rows(
                stream, "no_trades", self.finish(), "unrecoverable", "two exchanges have no candle: nothing was traded"
            )
        for answered in self.answers:
            if answered.unlisted or first_us is None:
                continue
            lacking = intersect(subtract(answered.absent, self._no_trades()), [(first_us, self._span[1])])
            found += self._lacking(stream, "missing_at_source", answered.source, lacking, "has no candle", missing)
            beyond = intersect(union([(u.from_us, u.to_us) for u in answered.unreachable]), [(first_us, self._span[1])])
            reason = answered.unreachable[0].reason if answered.unreachable else ""
            found += self._lacking(stream, "unreachable", answered.source, beyond, f"cannot give it: {reason}", missing)
            if answered.failure:
                unanswered = subtract(answered.asked, answered.covered)
                found += self._lacking(stream, "source_failed", answered.source, unanswered, answered.failure, missing)
        told = union([(gap.from_us or 0, gap.to_us or 0) for gap in found if gap.state == "open"])
        found += self._rows(stream, "missing_at_source", subtract(missing, told), "open", "no source could be asked")
        return found

    def _lacking(self, stream: str, cause: str, source: str, spans: Spans, why: str, missing: Spans) -> list[Gap]:
        """Return what a source lacked: as repaired where others had it, as open where nobody did."""
        filled = subtract(spans, missing)
        rows: list[Gap] = []
        if filled:
            others = [
                name for name, held in self._holding.by_source.items() if name != source and intersect(filled, held)
            ]
            detail = f"{source}: {why}; it is from {', '.join(others) or 'elsewhere'}"
            rows += self._rows(stream, cause, filled, "repaired", detail)
        return rows + self._rows(stream, cause, intersect(spans, missing), "open", f"{source}: {why}")

    def _rows(self, stream: str, cause: str, spans: Spans, state: str, detail: str) -> list[Gap]:
        rows = []
        for hull in joined(spans, _LEDGER_GAP_US):
            count = self.count(intersect(spans, [hull]))
            rows.append(
                Gap(
                    self.symbol, stream, cause, hull[0], hull[1], None, None, count, state, detail,  # type: ignore[arg-type]  # the causes and states of this module
                )
            )  # fmt: skip
        return rows

    def _wanted(self) -> Spans:
        return subtract([self._span], self._holding.empty)

    def _no_trades(self) -> Spans:
        """What two exchanges agree on, behind the first candle and old enough."""
        first_us = self.first_us()
        if first_us is None:
            return []
        return intersect(self._absent_twice, [(first_us, max(first_us, self._settled_before))])
