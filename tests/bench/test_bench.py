"""The benchmarks' own parts: what they send is what they say, and what they report is what they measured."""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path
from types import ModuleType

import pytest

from collector.events import Trade
from collector.exchanges.base import Listing
from collector.exchanges.binance import Binance

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def bench() -> ModuleType:
    """Give the package of the benchmarks, which is not installed."""
    spec = importlib.util.spec_from_file_location(
        "bench", PROJECT / "bench" / "__init__.py", submodule_search_locations=[str(PROJECT / "bench")]
    )
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules.setdefault("bench", module)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def runner(bench: ModuleType) -> ModuleType:
    return importlib.import_module(f"{bench.__name__}.__main__")


@pytest.fixture(scope="module")
def harness(bench: ModuleType) -> ModuleType:
    return importlib.import_module(f"{bench.__name__}.harness")


@pytest.mark.parametrize("number", [0, 1, 10**6])
def test_the_load_server_sends_trades_of_210_bytes(bench: ModuleType, number: int) -> None:
    """Each is a frame of one text message, which the parser takes for a trade."""
    blast = importlib.import_module(f"{bench.__name__}.blast")
    native = blast.symbol_names(500)[-1]
    frame = blast.frame(native, number, 1_723_000_000_000)
    header, payload = frame[:4], frame[4:]
    assert (header[0], int.from_bytes(header[2:], "big"), len(payload)) == (0x81, 210, 210)
    exchange = Binance([Listing("S0499_USDT", native, native[:-4], "USDT")])
    (trade,) = exchange.parse(payload, 1)
    assert isinstance(trade, Trade)
    assert trade.trade_id == 10**9 + number


def test_every_benchmark_is_there(runner: ModuleType) -> None:
    """Each name that can be asked for is a module with something to measure."""
    for name in runner.BENCHMARKS:
        assert callable(importlib.import_module(f"bench.{name}").measure)


def test_figures_are_held_against_their_targets(harness: ModuleType, runner: ModuleType) -> None:
    """Lower is better unless it says otherwise; without a target there is no verdict."""
    results = [
        harness.Figure("cost", 12.5, "µs", 12.0),
        harness.Figure("rate", 200_000, "rows/s", 200_000, "higher"),
        harness.Figure("size", 3.0, "MB"),
        harness.Skipped("replay", "no recordings"),
    ]
    assert [figure.reached for figure in results[:3]] == [False, True, None]
    lines = runner.table(results).splitlines()
    assert [line.split()[0] for line in lines[2:]] == ["cost", "rate", "size", "replay"]
    assert lines[2].endswith("MISSED")
    assert lines[3].endswith("reached")
    assert lines[5].endswith("no recordings")


def test_the_report_says_what_was_measured_where(harness: ModuleType, runner: ModuleType) -> None:
    """It is JSON, with the machine's facts, each figure and what failed."""
    results = [harness.Figure("cost", 12.5, "µs", 12.0), harness.Skipped("replay", "no recordings")]
    report = json.loads(json.dumps(runner.report(results, {"flood": "it broke"}, harness.QUICK)))
    assert report["figures"][0]["reached"] is False
    assert report["skipped"] == [{"name": "replay", "reason": "no recordings"}]
    assert report["failed"] == {"flood": "it broke"}
    assert report["machine"]["cores"]


def test_what_fails_does_not_keep_the_others_from_running(
    runner: ModuleType, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A benchmark that cannot run is named with its reason."""
    monkeypatch.setattr(runner, "PROJECT", tmp_path)
    monkeypatch.delenv("COLLECTOR_RECORDINGS", raising=False)
    results, failures = runner.run(["nothing_of_that_name", "replay"], runner.QUICK)
    assert [result.name for result in results] == ["replay of ETHUSDT at max speed"]
    assert list(failures) == ["nothing_of_that_name"]
    assert list((tmp_path / "build").iterdir()) == []


def test_an_unknown_name_is_wrong_usage(runner: ModuleType, capsys: pytest.CaptureFixture[str]) -> None:
    """The names that there are stand in the message."""
    with pytest.raises(SystemExit) as caught:
        runner.main(["floood"])
    assert caught.value.code == 2
    assert "flood" in capsys.readouterr().err


@pytest.mark.parametrize(("values", "middle"), [([3.0, 1.0, 2.0], 2.0), ([4.0, 1.0, 3.0, 2.0], 2.0)])
def test_the_median_is_a_measured_value(harness: ModuleType, values: list[float], middle: float) -> None:
    """Of an even number it is the lower of the two in the middle."""
    assert harness.median(values) == middle


def test_a_percentile_is_a_measured_value(harness: ModuleType) -> None:
    """So many of all are not above it."""
    values = [float(n) for n in range(1, 101)]
    assert harness.percentile(values, 0.99) == 100.0
    assert harness.percentile(values, 0.5) == 51.0


def test_cpu_and_memory_are_those_of_the_process(harness: ModuleType) -> None:
    """Both only grow from nothing, and a process that lives has some of each."""
    assert harness.cpu_s(os.getpid()) > 0
    assert harness.resident_mb(os.getpid(), peak=True) >= harness.resident_mb(os.getpid()) * 0.5 > 0
