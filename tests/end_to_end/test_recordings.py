"""Real recorded messages, played through a real server into a daemon, give what is independently known of them."""

from __future__ import annotations

import json
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest


class Case(NamedTuple):
    """A recording, and how it is collected."""

    recording: str
    exchange: str
    symbols: dict[str, str]  # ours → the exchange's
    trades: str = "default"


CASES = [
    Case("binance-spot-ETHUSDT-20240808.rec.gz", "binance", {"ETH_USDT": "ETHUSDT"}, "raw"),
    Case(
        "binance-spot-20211012.rec.gz",
        "binance",
        {"NKN_USDT": "NKNUSDT", "BLZ_ETH": "BLZETH", "LRC_BTC": "LRCBTC", "RUNE_EUR": "RUNEEUR"},
    ),
    Case(
        "binance-futures-20210722.rec.gz",
        "binance_futures",
        {"SUSHI_USDT": "SUSHIUSDT", "AKRO_USDT": "AKROUSDT", "KEEP_USDT": "KEEPUSDT", "CTK_USDT": "CTKUSDT"},
    ),
]


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.recording)
def test_a_recording_gives_its_known_trades_books_and_candles(
    case: Case, daemon: Callable[..., Any], server: Callable[..., Any], recordings: Path
) -> None:
    """Counts and ids are equal, sums are equal to the digit, and so are the last book and every complete candle."""
    collector = daemon()
    collector.start()
    replay = server(
        "replay", str(recordings / case.recording), "--exchange", case.exchange, "--symbols", ",".join(case.symbols),
        "--speed", "max", "--trades", case.trades, "--data-types", "prices,orderbook,klines",
    )  # fmt: skip
    session_id = collector.ask(
        "start", exchange=case.exchange, symbols=list(case.symbols), raw_trades=case.trades == "raw",
        ws_url=replay.ws_url, rest_url=replay.rest_url, recording=case.recording,
    )["session_id"]  # fmt: skip
    ended = collector.wait_state(session_id, "completed", "failed")
    assert (ended["state"], ended["gaps"]) == ("completed", 0)
    report = collector.ask("verify", session=session_id)
    assert not [part for part in (*report["streams"], *report["candles"]) if part["findings"]["count"]]
    assert (
        sum(part["equal_rows"] for part in report["streams"] if part["stream"] == "prices") == ended["rows"]["prices"]
    )

    truths = json.loads((recordings / "expected.json").read_text(encoding="utf-8"))[case.recording]["symbols"]
    for symbol, native in case.symbols.items():
        truth = truths[native]
        assert_trades(collector.rows(session_id, "prices", symbol), truth["trades"])
        assert_book(collector.rows(session_id, "orderbook", symbol), truth.get("final_book") or truth["book"])
        assert_candles(collector.rows(session_id, "ohlcv", symbol), truth.get("candles", {}))


def assert_trades(rows: list[dict[str, str]], truth: dict[str, Any]) -> None:
    """Compare the rows of prices.csv with the known trades."""
    assert len(rows) == truth["count"]
    if rows:
        ids = [row["trade_id"] for row in rows]
        assert (ids[0], ids[-1]) == (str(truth["first_id"]), str(truth["last_id"]))
        assert len(set(ids)) == len(ids)
        assert sum(Decimal(row["volume"]) for row in rows) == Decimal(truth["sum_qty"])
        assert sum(Decimal(row["price"]) * Decimal(row["volume"]) for row in rows) == Decimal(truth["sum_notional"])
        assert all(Decimal(row["quote_volume"]) == Decimal(row["price"]) * Decimal(row["volume"]) for row in rows)


def assert_book(rows: list[dict[str, str]], truth: dict[str, Any]) -> None:
    """Compare the last row of orderbook.csv with the known book after the last message."""
    for side in ("bid", "ask"):
        known = truth.get(f"{side}s") or truth[f"{side}s_top"]
        ours = [(rows[-1][f"{side}_{n}"], rows[-1][f"{side}_qty_{n}"]) for n in (1, 2, 3)]
        assert [tuple(map(Decimal, level)) for level in ours] == [tuple(map(Decimal, level)) for level in known[:3]]


def assert_candles(rows: list[dict[str, str]], truth: dict[str, Any]) -> None:
    """Compare the last row of each candle with the known one, where that is complete."""
    last = {(row["interval"], int(row["timestamp"]) // 1000): row for row in rows}
    names = {"o": "open", "h": "high", "l": "low", "c": "close", "v": "volume", "qv": "quote_volume"}
    for interval, candles in truth.items():
        for known in candles if interval in ("1m", "5m", "15m", "1h") else ():
            if known["complete"]:
                ours = last[interval, known["t"]]
                assert {short: Decimal(ours[name]) for short, name in names.items()} == {
                    short: Decimal(known[short]) for short in names
                }
                assert int(ours["trades_count"]) == known["n"]
                assert Decimal(ours["taker_buy_volume"]) == Decimal(known["taker_buy_v"])
                assert ours["is_closed"] == "true"
