"""Who is asked for what, and what is missing why."""

from __future__ import annotations

from collector.exchanges.candle_sources.base import Unreachable
from collector.exchanges.candle_sources.intervals import DAY_US, HOUR_US
from collector.history.filling import Answered, Filling
from collector.history.holdings import Holding
from collector.history.spans import Spans

KINDS = {"first": "exchange", "mean": "aggregator", "second": "exchange", "third": "exchange"}
ORDER = ["first", "mean", "second", "third"]
END = 100 * HOUR_US


def filling(holding: Holding | None = None, *, now_us: int = END + 10 * DAY_US) -> Filling:
    return Filling("BTC_USDT", (0, END), HOUR_US, holding or Holding(), kinds=KINDS, order=ORDER, now_us=now_us)  # type: ignore[arg-type]


def hours(first: int, before: int) -> Spans:
    return [(first * HOUR_US, before * HOUR_US)]


def give(one: Filling, holding: Holding, source: str, asked: Spans, got: Spans, failure: str = "") -> None:
    holding.add(source, got)
    one.take(Answered(source, asked, covered=[] if failure else asked, got=got, failure=failure))


def test_each_source_is_asked_for_what_those_before_it_did_not_give() -> None:
    """And for nothing that an exchange has."""
    holding = Holding({"second": hours(0, 10)})
    one = filling(holding)
    assert one.to_ask("first") == hours(10, 100)
    give(one, holding, "first", hours(10, 100), hours(10, 60))
    assert one.to_ask("second") == hours(60, 100)


def test_an_exchange_before_an_aggregator_is_asked_in_its_place_and_one_behind_it_is_not() -> None:
    """An aggregator's rows stay, and are never what keeps a better source from being asked."""
    one = filling(Holding({"mean": hours(0, 100)}))
    assert one.to_ask("first") == hours(0, 100)
    assert one.to_ask("second") == []


def test_where_two_exchanges_have_nothing_nothing_was_traded() -> None:
    """Nobody else is asked, and the ledger says so; before the first candle there was no listing."""
    holding = Holding()
    one = filling(holding)
    give(one, holding, "first", hours(0, 100), [*hours(20, 50), *hours(53, 100)])
    assert one.to_ask("second") == [*hours(0, 20), *hours(50, 53)]
    give(one, holding, "second", one.to_ask("second"), [])
    assert one.to_ask("third") == hours(0, 20)
    give(one, holding, "third", hours(0, 20), [])
    gaps = {(gap.cause, gap.from_us, gap.to_us, gap.expected_rows, gap.state) for gap in one.gaps("market_data")}
    assert gaps == {
        ("not_listed", 0, 20 * HOUR_US, 20, "unrecoverable"),
        ("no_trades", 50 * HOUR_US, 53 * HOUR_US, 3, "unrecoverable"),
    }
    assert holding.empty == hours(50, 53)


def test_the_newest_hours_are_not_called_empty() -> None:
    """Two exchanges may be late: what is younger than a day stays missing, and is asked for again."""
    holding = Holding()
    one = filling(holding, now_us=END)
    give(one, holding, "first", hours(0, 100), hours(0, 98))
    give(one, holding, "second", hours(98, 100), [])
    give(one, holding, "third", hours(98, 100), [])
    assert one.missing == hours(98, 100)
    assert {(gap.cause, gap.state) for gap in one.gaps("market_data")} == {("missing_at_source", "open")}


def test_what_one_lacks_and_another_has_is_a_repaired_row() -> None:
    """With both names, how many there were, and the reason where there is one."""
    holding = Holding()
    one = filling(holding)
    holding.add("first", hours(30, 90))
    one.take(
        Answered(
            "first", hours(0, 100), covered=hours(0, 100), got=hours(30, 90),
            unreachable=[Unreachable(0, 30 * HOUR_US, "it goes back seventy hours.")],
        )
    )  # fmt: skip
    give(one, holding, "second", [*hours(0, 30), *hours(90, 100)], [*hours(0, 30), *hours(90, 100)])
    rows = {gap.cause: gap for gap in one.gaps("market_data")}
    assert {cause: (gap.expected_rows, gap.state) for cause, gap in rows.items()} == {
        "unreachable": (30, "repaired"),
        "missing_at_source": (10, "repaired"),
    }
    assert "first: cannot give it: it goes back seventy hours." in rows["unreachable"].detail
    assert "it is from second" in rows["missing_at_source"].detail


def test_a_source_that_failed_is_named_with_its_reason() -> None:
    """What nobody gave in its place is open."""
    holding = Holding({"first": hours(0, 50)})
    one = filling(holding)
    give(one, holding, "first", hours(50, 100), [], failure="it is down")
    gaps = one.gaps("market_data")
    assert [(gap.cause, gap.state, gap.expected_rows) for gap in gaps] == [("source_failed", "open", 50)]
    assert "it is down" in gaps[0].detail
