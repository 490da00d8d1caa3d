"""Slopes: what rises is found, what only trembles is not."""

from __future__ import annotations

import random

import pytest

from trials.soak import SERIES, judge, percentile, plot, slope

TIMES = [2.0 * number for number in range(900)]


def level(seed: int = 1) -> dict[str, list[float]]:
    chance = random.Random(seed)
    return {series.name: [50 + chance.uniform(-1, 1) for _ in TIMES] for series in SERIES}


def test_the_slope_of_a_line_is_its_own() -> None:
    """Whatever its height; too few points have none."""
    assert slope(TIMES, [3 + 0.25 * t for t in TIMES]) == pytest.approx(0.25)
    assert slope([1.0], [5.0]) == 0.0


@pytest.mark.parametrize("seed", range(5))
def test_what_only_trembles_is_no_rise(seed: int) -> None:
    """Half an hour of noise."""
    assert judge(level(seed), TIMES)[1] == []


@pytest.mark.parametrize("name", [series.name for series in SERIES])
def test_what_creeps_is_named(name: str) -> None:
    """A rise that would not hold for months."""
    samples = level()
    samples[name] = [value + 100_000 * t / 3600 for value, t in zip(samples[name], TIMES, strict=True)]
    (problem,) = judge(samples, TIMES)[1]
    assert problem.startswith(f"{name} rises by ")


def test_what_rises_while_it_warms_up_is_forgiven() -> None:
    """Caches fill."""
    samples = level()
    samples["memory"] = [value + min(t, 400) for value, t in zip(samples["memory"], TIMES, strict=True)]
    assert judge(samples, TIMES)[1] == []


def test_a_run_that_is_over_before_it_is_warm_is_not_judged() -> None:
    """Its slopes are shown all the same."""
    times = TIMES[:60]
    samples = {name: [value + t for value, t in zip(values, times, strict=False)] for name, values in level().items()}
    slopes, problems = judge(samples, times)
    assert problems == []
    assert slopes["memory"] > 3000


def test_percentiles_are_values_that_occur() -> None:
    """Of nothing it is 0."""
    assert [percentile([3, 1, 2], share) for share in (0.0, 0.5, 1.0)] == [1, 2, 3]
    assert percentile([], 0.5) == 0.0


def test_a_plot_is_a_drawing() -> None:
    """Also of zeros."""
    assert plot("rows <behind>", "rows", [0, 1], [0, 0]).startswith("<h2>rows &lt;behind&gt; (rows)</h2><svg ")
