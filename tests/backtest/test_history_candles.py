"""Past candles: one per bucket, from the source that comes first, and what lacks is said."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from collector.backtest.history_candles import history_candles
from collector.backtest.indicator_rows import IndicatorRows, Written, history_indicators
from collector.config import Config
from collector.errors import UnknownName, UsageError
from collector.session.manifest import Backfill, FileRecord, Manifest, save_manifest
from collector.storage.files import OperatingSystem
from collector.streams import MARKET_DATA

from .conftest import closes
from .test_indicators import invoke

HOUR_US = 3_600_000_000
T = 1_700_006_400_000_000
HOURS = 120


def store(
    data_dir: Path, session_id: str, held: dict[str, range], *, shift: float = 0.0, empty: Any = (), created_us: int = T
) -> None:
    """Write a session of history: of each source the hours given, whose closes are known."""
    directory = data_dir / f"session_{session_id}"
    folder = directory / "BTC_USDT"
    folder.mkdir(parents=True)
    lines = []
    for source, hours in held.items():
        for n in hours:
            price = closes(HOURS)[n] + shift
            lines.append(
                f"{T + n * HOUR_US},crypto,1h,{price},{price + 1},{price - 1},{price},7,700,4,3,300,{source},"
                f"{created_us},{len(lines) + 1}\n"
            )
    (folder / MARKET_DATA.file).write_text(MARKET_DATA.header + "".join(lines), encoding="utf-8")
    manifest = Manifest(
        session_id=session_id, exchange="history", symbols=["BTC_USDT"], data_types=["market_data"],
        created_us=created_us, state="completed", kind="history",
        backfill=Backfill("backfill", "1h", T, T + HOURS * HOUR_US, list(held), empty={"BTC_USDT": list(empty)}),
        files=[FileRecord("market_data", "BTC_USDT", f"BTC_USDT/{MARKET_DATA.file}", len(lines), next_seq=len(lines))],
    )  # fmt: skip
    save_manifest(directory, manifest, OperatingSystem())


@pytest.fixture
def config(tmp_path: Path) -> Config:
    return Config.model_validate(
        {"daemon": {"data_dir": str(tmp_path / "data")}, "questdb": {"mode": "off"}, "history": {"sources": []}}
    )


def preferring(config: Config, *sources: str) -> Config:
    return config.model_copy(update={"history": config.history.model_copy(update={"sources": [*sources]})})


def test_the_source_that_comes_first_counts(config: Config, tmp_path: Path) -> None:
    """Bucket by bucket, over all sessions; of one source, what was fetched last."""
    data = tmp_path / "data"
    store(data, "h1", {"okx": range(60), "binance": range(40)}, shift=5)
    store(data, "h2", {"okx": range(50, HOURS)}, created_us=T + 1)
    found = history_candles(config, "BTC_USDT", "1h")
    assert found.sources == {"okx": 80, "binance": 40}
    assert list(found.frame["Close"]) == [price + 5 * (n < 50) for n, price in enumerate(closes(HOURS))]
    assert (found.from_us, found.to_us, found.source, found.holes) == (T, T + (HOURS - 1) * HOUR_US, "csv", ())
    other = history_candles(preferring(config, "okx", "binance"), "BTC_USDT", "1h")
    assert other.sources == {"okx": HOURS}
    part = history_candles(config, "BTC_USDT", "1h", T + 10 * HOUR_US, T + 30 * HOUR_US)
    assert (len(part.frame), part.sources) == (20, {"binance": 20})


def test_what_lacks_is_refused_but_not_where_nobody_traded(config: Config, tmp_path: Path) -> None:
    """With bounds, what lacks at the edges counts, too."""
    data = tmp_path / "data"
    store(data, "h1", {"okx": range(10, 40)}, empty=[(T + 40 * HOUR_US, T + 42 * HOUR_US)])
    store(data, "h2", {"okx": range(42, 100)})
    assert history_candles(config, "BTC_USDT", "1h").holes == ()
    with pytest.raises(UsageError, match="12 past candles of BTC_USDT in 1h lack, in 2 places"):
        history_candles(config, "BTC_USDT", "1h", T, T + 102 * HOUR_US)
    first, second = history_candles(config, "BTC_USDT", "1h", T, T + 102 * HOUR_US, allow_gaps=True).holes
    assert (first.from_us, first.to_us, first.rows) == (T, T + 10 * HOUR_US, 10)
    assert (second.from_us, second.rows) == (T + 100 * HOUR_US, 2)
    with pytest.raises(UnknownName, match="ETH_USDT"):
        history_candles(config, "ETH_USDT", "1h")
    with pytest.raises(UnknownName, match="7h"):
        history_candles(config, "BTC_USDT", "7h")
    with pytest.raises(UsageError, match="0 past candles"):
        history_candles(config, "BTC_USDT", "1m")


def test_the_command_runs_on_history_and_says_whose(tmp_path: Path) -> None:
    """A result without a session, with the sources; the same as on a session, once and again."""
    store(tmp_path / "data", "h1", {"binance": range(100), "okx": range(100, HOURS)})
    run = ("backtest", "--symbol", "BTC_USDT", "--interval", "1h", "--strategy", "breakout")
    answer = invoke(tmp_path, *run, "--json")
    assert answer.exit_code == 0, answer.output
    facts = json.loads(answer.stdout)
    assert (facts["session_id"], facts["candles"], facts["sources"]) == ("", HOURS, {"binance": 100, "okx": 20})
    assert facts["trades"] > 0
    assert "100 of binance, 20 of okx" in Path(facts["report"]).read_text(encoding="utf-8")
    again = json.loads(invoke(tmp_path, *run, "--json").stdout)
    assert {**again, "created_us": 0} == {**facts, "created_us": 0}
    assert "From binance" in invoke(tmp_path, *run).stdout
    for wrong in (("backtest",), ("backtest", "--symbol", "BTC_USDT", "--engine", "ticks"), ("indicators",)):
        refused = invoke(tmp_path, *wrong)
        assert isinstance(refused.exception, UsageError)
        assert "No session was named" in str(refused.exception)


def test_indicators_of_history_have_no_session(config: Config, tmp_path: Path, questdb: Any) -> None:
    """And are written once."""
    store(tmp_path / "data", "h1", {"okx": range(HOURS)})
    series = history_indicators(config, "BTC_USDT", "1h", {"sma": {"period": 5}})
    rows = IndicatorRows(lambda: questdb.settings)
    assert rows.put(series) == Written(new=HOURS - 4)
    assert rows.put(series) == Written()
    assert rows.stored(series)[T + 4 * HOUR_US, "sma(5)"] == pytest.approx(sum(closes(HOURS)[:5]) / 5)
    printed = invoke(
        tmp_path, "indicators", "--symbol", "BTC_USDT", "--interval", "1h", "--names", "sma", "--format", "json"
    )
    assert len(json.loads(printed.stdout)["indicators"]) == HOURS - 19
