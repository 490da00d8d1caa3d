"""The registry of streams: each is a CSV file and its table."""

from __future__ import annotations

import re

import pytest

from collector.streams import DATA_TYPES, GAPS, KLINES, OHLCV, ORDERBOOK, PRICES, STREAMS, Kind, Stream

EVERY = pytest.mark.parametrize("stream", STREAMS.values(), ids=list(STREAMS))


@EVERY
def test_a_stream_is_registered_under_its_name(stream: Stream) -> None:
    """The registry's key is the stream's name, and its file is named after it."""
    assert STREAMS[stream.name] is stream
    assert stream.file == f"{stream.name}.csv"


@EVERY
def test_the_first_column_is_the_designated_timestamp_and_one_is_seq(stream: Stream) -> None:
    """Rows are found by time, and identified by a number."""
    assert stream.timestamp.kind is Kind.TIMESTAMP
    assert stream.columns[stream.seq_index].name == "seq"
    assert stream.columns[stream.seq_index].kind is Kind.LONG


@EVERY
def test_the_keys_are_columns_of_the_table_and_hold_the_timestamp_and_the_session(stream: Stream) -> None:
    """QuestDB demands the designated timestamp among the dedup keys; two sessions never share a row."""
    names = [name for name, _ in stream.table_columns]
    assert set(stream.keys) <= set(names)
    assert stream.timestamp.in_database in stream.keys
    assert "session_id" in stream.keys


@EVERY
def test_columns_have_names_that_need_no_quotes_and_occur_once(stream: Stream) -> None:
    """Names are plain in CSV and in SQL."""
    for names in ([c.name for c in stream.columns], [name for name, _ in stream.table_columns]):
        assert len(set(names)) == len(names)
        assert all(re.fullmatch(r"[a-z][a-z0-9_]*", name) for name in names)


@EVERY
def test_a_table_says_where_its_rows_come_from(stream: Stream) -> None:
    """Session and exchange are in every table, the symbol in each that is kept per symbol."""
    names = [name for name, _ in stream.table_columns]
    assert names[1:3] == ["session_id", "exchange"]
    assert ("symbol" in names[:4]) is stream.per_symbol


def test_the_first_four_columns_of_prices_are_what_existing_readers_know() -> None:
    """New columns only ever go to the right."""
    assert PRICES.header == (
        "timestamp,price,volume,quote_volume,side,trade_id,seq,received_at,source,first_raw_id,last_raw_id\n"
    )


def test_the_order_book_has_three_levels_bids_first() -> None:
    """The header is the one that DESIGN.md gives."""
    sides = ",".join(f"{side}_{n},{side}_qty_{n}" for side in ("bid", "ask") for n in (1, 2, 3))
    assert ORDERBOOK.header == f"timestamp,{sides},update_id,seq,received_at\n"
    assert ("bid_price_1", Kind.DOUBLE) in ORDERBOOK.table_columns


def test_candles_and_gaps_are_keyed_by_what_they_are() -> None:
    """A revision replaces the row that it revises."""
    assert OHLCV.keyed
    assert OHLCV.keys == ("timestamp", "session_id", "symbol", "interval")
    assert GAPS.keyed
    assert GAPS.keys == ("detected_at", "session_id", "gap_id")


def test_the_data_types_that_can_be_asked_for_are_streams_of_ticks() -> None:
    """What a person asks for is a stream whose rows have a number for identity, but for candles, which have a time."""
    ticks = [STREAMS[name] for name in DATA_TYPES if name != "klines"]
    assert all(not stream.keyed and "seq" in stream.keys for stream in ticks)
    assert KLINES.keyed
    assert KLINES.keys == OHLCV.keys


def test_a_data_type_says_when_and_from_where_it_came() -> None:
    """Each row has the time of its receipt, and what may come over two ways says which."""
    for name in DATA_TYPES:
        columns = [column.name for column in STREAMS[name].columns]
        assert columns[columns.index("seq") + 1] == "received_at"
        assert ("source" in columns) is (name not in ("orderbook", "klines"))
