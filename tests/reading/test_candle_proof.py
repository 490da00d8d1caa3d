"""Candles are proved by the aggregator and by an oracle, which agree with each other."""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.candles.aggregator import Aggregator
from collector.reading.candle_proof import CandleProof, Oracle
from collector.reading.csv_rows import to_ticks
from collector.streams import OHLCV, PRICES

DAY_US = 86_400_000_000
START_US = 1_700_006_400_000_000
MakeSession = Callable[..., Any]


@st.composite
def price_rows(draw: st.DrawFn) -> list[list[str]]:
    rows = []
    for seq in range(1, draw(st.integers(2, 25))):
        at = START_US + draw(st.integers(0, 5000)) * 1_000_000
        number, size = draw(st.integers(1, 10**6)), draw(st.integers(0, 10**9))
        price, volume = f"{number}.{number % 100:02d}", f"{size // 10**4}.{size % 10**4:04d}"
        first = draw(st.none() | st.integers(0, 50))
        rows.append(
            [
                str(at), price, volume, str(Decimal(price) * Decimal(volume)), draw(st.sampled_from(["buy", "sell"])),
                draw(st.sampled_from([str(seq), "", f"x{seq}"])), str(seq), "", draw(st.sampled_from(["ws", "rest"])),
                "" if first is None else str(first), "" if first is None else str(first + seq % 3),
            ]
        )  # fmt: skip
    return rows


@given(price_rows())
def test_oracle_and_aggregator_agree(rows: list[list[str]]) -> None:
    """They share no code, and give the same digits."""
    oracle = Oracle()
    oracle.add(rows)
    ticks = to_ticks("A", rows)
    aggregator = Aggregator("A", grace_us=0)
    aggregator.fold(ticks.trades, ticks.seqs, ticks.quotes)
    made = {candle.key: candle for candle in aggregator.open_candles()}
    truth = oracle.candles()
    assert made.keys() == truth.keys()
    for key, fields in truth.items():
        assert {name: str(getattr(made[key], name)) for name in fields} == fields


def test_a_session_of_months_is_proved_in_windows(make_session: MakeSession) -> None:
    """Trades weeks apart, and late ones across windows, are compared where they belong."""
    session = make_session(["A"])
    times = [START_US, START_US + 40 * DAY_US, START_US + 90 * DAY_US, START_US + 60_000_000]
    rows = [[str(t), "2", "3", "6", "buy", "", str(n), "", "ws", "", ""] for n, t in enumerate(times, 1)]
    session.append(PRICES, "A", [",".join(row) for row in rows])
    aggregator = Aggregator("A", grace_us=0)
    ticks = to_ticks("A", rows)
    aggregator.fold(ticks.trades, ticks.seqs, ticks.quotes)
    candles = aggregator.finish(lambda *_: False)
    session.append(OHLCV, "A", [candle.line(seq) for seq, candle in enumerate(candles, 1)])
    report = CandleProof(session.directory, "A").run()
    assert report.agrees, report.findings.named
    assert (report.trades, report.candles) == (4, len(candles))


@pytest.mark.parametrize("ids_ordered", [True, False])
def test_ids_that_tell_no_order_open_and_close_no_candle(make_session: MakeSession, ids_ordered: bool) -> None:
    """Of trades at the same time the arrival counts then; by the ids, right candles would look wrong."""
    session = make_session(["A"])
    time = START_US + 5
    rows = [[str(time), price, "2", str(int(price) * 2), "buy", "", str(trade_id), "", "ws", "", ""]
            for price, trade_id in (("3", 900), ("4", 20), ("5", 500))]  # fmt: skip
    for seq, row in enumerate(rows, 1):
        row[PRICES.seq_index] = str(seq)
        row[[column.name for column in PRICES.columns].index("trade_id")] = str((900, 20, 500)[seq - 1])
    session.append(PRICES, "A", [",".join(row) for row in rows])
    aggregator = Aggregator("A", grace_us=0, ids_ordered=False)
    ticks = to_ticks("A", rows)
    aggregator.fold(ticks.trades, ticks.seqs, ticks.quotes)
    candles = aggregator.finish(lambda *_: False)
    assert (candles[0].open, candles[0].close) == ("3", "5")
    session.append(OHLCV, "A", [candle.line(seq) for seq, candle in enumerate(candles, 1)])
    assert CandleProof(session.directory, "A", ids_ordered=ids_ordered).run().agrees is not ids_ordered


def test_candles_without_any_trade_are_found(make_session: MakeSession) -> None:
    """A window that has candles only is looked at too."""
    session = make_session(["A"])
    session.write_market("A")
    session.path(PRICES, "A").unlink()
    report = CandleProof(session.directory, "A").run()
    assert (report.trades, report.findings.count) == (0, 19)


@pytest.mark.parametrize(("ended", "waiting"), [(True, 0), (False, 6)])
def test_what_is_not_due_may_be_missing_while_a_session_runs(
    make_session: MakeSession, ended: bool, waiting: int
) -> None:
    """Open candles are written when a session stops: before that they wait, after it they are missing."""
    session = make_session(["A"])
    session.write_market("A", finish=False)
    report = CandleProof(session.directory, "A", ended=ended).run()
    assert report.waiting == waiting
    assert report.agrees is not ended


def test_an_open_candle_of_a_resumed_session_is_passed_over_while_it_runs(make_session: MakeSession) -> None:
    """What an earlier stop wrote as open is out of date until the candle closes."""
    session = make_session(["A"])
    session.write_market("A", minutes=3)
    last = session.lines(PRICES, "A")[-1].split(",")
    last[0], last[6] = str(int(last[0]) + 1_000_000), str(int(last[6]) + 1)
    session.append(PRICES, "A", [",".join(last)])
    assert CandleProof(session.directory, "A", ended=False).run().agrees
    assert not CandleProof(session.directory, "A", ended=True).run().agrees
