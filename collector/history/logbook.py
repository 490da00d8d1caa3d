"""What the log of operations says, by task and provider. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from collector.history.tables import LogRow

_GOOD = frozenset({"completed"})
_UNDECIDED = frozenset({"running", "active", "starting", "interrupted"})


class LogSummary(msgspec.Struct, frozen=True, kw_only=True):
    """Operations of one task and provider: durations are seconds of those that ended."""

    task_name: str
    provider: str
    runs: int
    success_rate: float
    p50_s: float
    p95_s: float
    max_s: float
    records: int
    retries: int
    last_error: str


def summarise(rows: Iterable[LogRow]) -> list[LogSummary]:
    """Return one summary per task and provider, in the order of their names."""
    groups: dict[tuple[str, str], list[LogRow]] = {}
    for row in rows:
        groups.setdefault((row.task_name, row.provider), []).append(row)
    return [_summary(key, group) for key, group in sorted(groups.items())]


def _summary(key: tuple[str, str], rows: Sequence[LogRow]) -> LogSummary:
    durations = sorted((row.finished_us - row.started_us) / 1e6 for row in rows if row.finished_us is not None)
    ended = [row for row in rows if row.status not in _UNDECIDED]
    failed = [row for row in rows if row.error]
    return LogSummary(
        task_name=key[0],
        provider=key[1],
        runs=len(rows),
        success_rate=sum(row.status in _GOOD for row in ended) / len(ended) if ended else 0.0,
        p50_s=percentile(durations, 0.50),
        p95_s=percentile(durations, 0.95),
        max_s=durations[-1] if durations else 0.0,
        records=sum(row.records for row in rows),
        retries=sum(row.retries for row in rows),
        last_error=max(failed, key=lambda row: row.started_us).error if failed else "",
    )


def percentile(ordered: Sequence[float], share: float) -> float:
    """Return the value below or at which a share of ascending values lies; 0 where there is none."""
    if not ordered:
        return 0.0
    return ordered[min(len(ordered) - 1, max(0, -(-round(share * len(ordered) * 1000) // 1000) - 1))]
