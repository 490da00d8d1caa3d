"""Indicators of a session: whole candles only, nothing of the future, the same values however often they are asked."""

from __future__ import annotations

import csv
import io
import json
import os
import random
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from hypothesis import given
from hypothesis import strategies as st

from collector.backtest.indicator_rows import IndicatorRows, IndicatorSeries, Written, session_indicators
from collector.backtest.indicators import KINDS, Candle, Incremental, computed
from collector.cli.main import cli
from collector.errors import UnknownName, UsageError
from collector.reading.session_reader import SessionReader
from collector.streams import OHLCV

from .conftest import MINUTE_US, Opener, T, closes

DAY_US = 86_400_000_000
WANTED: dict[str, dict[str, float]] = {"sma": {"period": 3}, "macd": {}, "vwap": {}}


def invoke(folder: Path, *arguments: str, mode: str = '"off"') -> Result:
    environment = {name: None for name in os.environ if name.startswith("QUESTDB_")}
    config = folder / "config.toml"
    config.write_text(f"[questdb]\nmode = {mode}\n", encoding="utf-8")
    place = ("--config", str(config), "--data-dir", str(folder / "data"))
    return CliRunner().invoke(cli, [*arguments, *place], env=environment)


@given(st.lists(st.floats(1, 1e5), min_size=2, max_size=120), st.data())
def test_a_run_that_goes_on_is_the_run_in_one_go(prices: list[float], data: st.DataObject) -> None:
    """Whatever the candles and wherever the first one ended: no value depends on a later candle."""
    candles = [Candle(p, p + 1, p - 0.5, p + 0.25, 5 + n % 3, n * 3_600_000_000) for n, p in enumerate(prices)]
    end = data.draw(st.integers(1, len(candles)))
    for name in KINDS:
        whole = list(computed(name, candles))
        indicator = Incremental(name)
        first = [indicator.add(candle) for candle in candles[:end]]
        assert first + [indicator.add(candle) for candle in candles[end:]] == whole
        assert list(computed(name, candles[:end])) == first


def test_vwap_begins_anew_each_day() -> None:
    """Worked out by hand: the volume-weighted typical price of the day so far."""
    candles = [Candle(1, 12, 6, 9, 2, DAY_US - 1), Candle(1, 30, 30, 30, 5, DAY_US), Candle(1, 10, 4, 7, 1, DAY_US + 1)]
    assert [row[0] for row in computed("vwap", candles)] == pytest.approx([9, 30, (30 * 5 + 7) / 6])


def test_names_carry_the_parameters() -> None:
    """So that one set of parameters never overwrites another's rows; a number is never shortened."""
    assert Incremental("sma", period=50).column_names == ("sma(50)",)
    assert Incremental("macd").column_names == ("macd(12,26,9)", "macd_signal(12,26,9)", "macd_histogram(12,26,9)")
    assert Incremental("bollinger", deviations=2.00000001).column_names[0] == "bollinger_lower(20,2.00000001)"
    assert Incremental("vwap").column_names == ("vwap",)
    with pytest.raises(UsageError, match="counts candles"):
        Incremental("sma", period=2.5)


def test_only_closed_candles_of_full_coverage_count(session: Opener, tmp_path: Path) -> None:
    """The average of three whole candles, without the partial first and last one and one that a gap fell into."""
    reader = session(prices=closes(12))
    path = tmp_path / "data" / "session_s1" / "BTC_USDT" / "ohlcv.csv"
    lines = path.read_text().splitlines(keepends=True)
    lines[6] = lines[6].replace(",full,", ",gap,")
    path.write_text("".join(lines))
    found = session_indicators(reader, "BTC_USDT", "1m", {"sma": {"period": 3}})
    used = {n: price for n, price in enumerate(closes(12)) if n not in (0, 5, 11)}
    order = list(used)
    expected = {T + order[i] * MINUTE_US: sum(used[n] for n in order[i - 2 : i + 1]) / 3 for i in range(2, len(order))}
    assert {value.time_us: value.value for value in found.values} == pytest.approx(expected)
    assert (found.candles, found.source, found.names) == (9, "csv", ("sma(3)",))


def revise(data_dir: Path, session_id: str, minute: int, close: str) -> None:
    """Append a revision of a candle with another close, as a late trade does."""
    path = data_dir / f"session_{session_id}" / "BTC_USDT" / "ohlcv.csv"
    lines = path.read_text().splitlines()
    fields = next(line for line in lines if line.startswith(f"{T + minute * MINUTE_US},")).split(",")
    names = [column.name for column in OHLCV.columns]
    last = max(int(line.split(",")[names.index("seq")]) for line in lines[1:])
    for name, value in (("close", close), ("revision", "1"), ("seq", str(last + 1))):
        fields[names.index(name)] = value
    with path.open("a") as file:
        file.write(",".join(fields) + "\n")


def in_table(questdb: Any, series: IndicatorSeries) -> dict[tuple[int, str], float | None]:
    return IndicatorRows(lambda: questdb.settings).stored(series)


def as_stored(series: IndicatorSeries) -> dict[tuple[int, str], float]:
    return {(value.time_us, value.name): value.value for value in series.values}


def test_the_table_is_the_run_in_one_go_after_any_runs_and_revisions(
    session: Opener, tmp_path: Path, questdb: Any
) -> None:
    """A session that grows and is revised, computed after each step: nothing twice, nothing before the first change."""
    seed = random.randrange(1 << 30)
    print(f"seed {seed}")
    chance = random.Random(seed)
    session_id = f"ind-{tmp_path.name}"
    reader = session(session_id, closes(60), partial=False)
    path = tmp_path / "data" / f"session_{session_id}" / "BTC_USDT" / "ohlcv.csv"
    lines = path.read_text().splitlines(keepends=True)
    rows = IndicatorRows(lambda: questdb.settings)

    def computed_now() -> IndicatorSeries:
        return session_indicators(reader, "BTC_USDT", "1m", WANTED)

    end = 1
    for _ in range(4):
        before = as_stored(computed_now()) if end > 1 else {}
        end = min(61, end + chance.randrange(5, 20))
        path.write_text("".join(lines[:end]))
        series = computed_now()
        written = rows.put(series)
        assert written == Written(new=len(series.values) - len(before))
        assert in_table(questdb, series) == as_stored(series)
        assert rows.put(series) == Written()
    revise(tmp_path / "data", session_id, 4, "123.5")
    series = computed_now()
    earlier = in_table(questdb, series)
    written = rows.put(series)
    assert written.new == 0
    differ = {key for key, value in as_stored(series).items() if earlier[key] != value}
    assert written.changed == len(differ) > 0
    assert min(time_us for time_us, _ in differ) == T + 4 * MINUTE_US
    assert in_table(questdb, series) == as_stored(series)
    path.write_text(path.read_text().replace(f"{T + 7 * MINUTE_US},1m", f"{T + 7 * MINUTE_US},5m"))
    series = computed_now()
    gone = earlier.keys() - as_stored(series).keys()
    assert {(T + 7 * MINUTE_US, "sma(3)"), (T + 7 * MINUTE_US, "vwap")} <= gone
    assert rows.put(series).withdrawn == len(gone), "a candle that is not whole any more has no value"
    held = in_table(questdb, series)
    assert {key for key, value in held.items() if value is None} == gone
    assert {key: value for key, value in held.items() if value is not None} == as_stored(series)


def test_sets_of_parameters_and_sessions_stay_apart(session: Opener, tmp_path: Path, questdb: Any) -> None:
    """As do symbols and intervals, which are keys."""
    rows = IndicatorRows(lambda: questdb.settings)
    readers: list[SessionReader] = [session(f"{name}-{tmp_path.name}", closes(30)) for name in ("a", "b")]
    made = [
        session_indicators(reader, "BTC_USDT", "1m", {"sma": {"period": period}})
        for reader in readers
        for period in (3, 5)
    ]
    for series in made:
        assert rows.put(series) == Written(new=len(series.values))
    for series in made:
        assert in_table(questdb, series) == as_stored(series)


def test_the_command_keeps_them_or_prints_them(session: Opener, tmp_path: Path, questdb: Any) -> None:
    """With a server into the table, twice the same; without one onto the screen, and it says so."""
    session_id = f"cli-{tmp_path.name}"
    reader = session(session_id, closes(40))
    run = ("indicators", session_id, "--names", "sma,macd", "--param", "sma.period=7")
    series = session_indicators(reader, "BTC_USDT", "1m", {"sma": {"period": 7}, "macd": {}})
    answer = invoke(tmp_path, *run, "--format", "csv")
    assert answer.exit_code == 0, answer.output
    assert "Not in QuestDB: questdb.mode is off." in answer.stderr
    printed = list(csv.DictReader(io.StringIO(answer.stdout)))
    assert {(int(row["timestamp"]), row["name"]): float(row["value"]) for row in printed} == as_stored(series)
    assert json.loads(printed[0]["parameters"]) == {"period": 7}
    facts = json.loads(invoke(tmp_path, *run, "--format", "json").stdout)["indicators"]
    assert len(facts) == len(series.values)
    assert "sma(7)" in invoke(tmp_path, *run).stdout
    settings = questdb.settings
    external = (
        f'"external"\nilp_port = {settings.ilp_port}\npg_port = {settings.pg_port}\npg_user = "{settings.pg_user}"\n'
        f'pg_password = "{settings.pg_password.get_secret_value()}"'
    )
    first = invoke(tmp_path, *run, mode=external)
    assert (first.exit_code, first.stdout) == (0, ""), first.output
    assert f"{len(series.values):,} new, 0 changed." in first.stderr
    assert in_table(questdb, series) == as_stored(series)
    assert "0 new, 0 changed." in invoke(tmp_path, *run, mode=external).stderr


@pytest.mark.parametrize(
    ("arguments", "kind", "sentence"),
    [
        (("--names", "smaa"), UnknownName, "sma"),
        (("--names", ","), UsageError, "No indicator"),
        (("--param", "sma.perod=3"), UnknownName, "period"),
        (("--param", "sma=3x"), UsageError, "sma.period=20"),
        (("--names", "sma", "--param", "ema.period=3"), UsageError, "not among"),
        (("--interval", "7m"), UnknownName, "7m"),
        (("--symbol", "ETH_USDT"), UnknownName, "ETH_USDT"),
    ],
)
def test_what_cannot_be_computed_says_why(
    session: Opener, tmp_path: Path, arguments: tuple[str, ...], kind: type[Exception], sentence: str
) -> None:
    """With the nearest name, before anything is written."""
    session()
    answer = invoke(tmp_path, "indicators", "s1", *arguments)
    assert isinstance(answer.exception, kind)
    assert sentence in f"{answer.exception} {getattr(answer.exception, 'hint', '')}"
