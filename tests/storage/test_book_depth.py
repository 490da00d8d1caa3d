"""Books of more than three levels on their way to QuestDB: three in columns, and all of them in arrays."""

from __future__ import annotations

import random
import struct
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from questdb import Sender, TimestampMicros

from collector.storage.ilp import Encoder
from collector.storage.memory_transport import MemoryQuestDB
from collector.storage.questdb import Acknowledged, HttpTransport
from collector.streams import BOOK_LEVELS, ORDERBOOK, Stream, book_stream

START_US = 1_700_000_000_000_000
TAGS = {"session_id": "s1", "exchange": "sim", "symbol": "BTC_USDT"}


def book_row(seq: int, bids: list[tuple[str, str]], asks: list[tuple[str, str]], levels: int) -> str:
    """Return a row of ``orderbook.csv`` with so many levels; what a side lacks is empty."""
    padded = [*bids, *[("", "")] * (levels - len(bids)), *asks, *[("", "")] * (levels - len(asks))]
    numbers = ",".join(f"{price},{size}" for price, size in padded)
    return f"{START_US + seq * 100_000},{numbers},{5000 + seq},{seq},{START_US + seq}"


def random_side(chance: random.Random, levels: int) -> list[tuple[str, str]]:
    count = chance.choice([levels, levels, levels, 0, 1, chance.randrange(levels + 1)])
    return [
        (
            f"{chance.randrange(10**9)}.{chance.randrange(10**8):08d}",
            f"{chance.randrange(10**12)}e-{chance.randrange(9)}",
        )
        for _ in range(count)
    ]


def random_books(chance: random.Random, rows: int, levels: int) -> list[tuple[list[Any], list[Any]]]:
    return [(random_side(chance, levels), random_side(chance, levels)) for _ in range(rows)]


def encoded_rows(stream: Stream, *rows: str) -> bytes:
    content = "".join(row + "\n" for row in rows).encode()
    columns = [column.name for column in stream.columns]
    return Encoder(ORDERBOOK, TAGS, columns).encode(content).body


def test_the_header_has_the_levels_and_the_table_the_same_columns() -> None:
    """A deeper book changes the CSV, not the table."""
    deep = book_stream(20)
    names = deep.header.strip().split(",")
    assert names[:5] == ["timestamp", "bid_1", "bid_qty_1", "bid_2", "bid_qty_2"]
    assert names[39:43] == ["bid_20", "bid_qty_20", "ask_1", "ask_qty_1"][-len(names[39:43]) :]
    assert deep.table_columns == ORDERBOOK.table_columns
    assert deep.fitted(names) is deep
    assert ORDERBOOK.fitted(names) is deep
    assert book_stream(BOOK_LEVELS) is ORDERBOOK


def test_an_array_is_written_as_the_protocol_has_it() -> None:
    """The mark, the type, two dimensions, prices and then sizes; the three levels stay columns of their own."""
    body = encoded_rows(book_stream(4), book_row(1, [("9", "1"), ("8.5", "2")], [], 4))
    numbers = struct.pack("<4d", 9, 8.5, 1, 2)
    assert body == (
        b"tick_orderbook,session_id=s1,exchange=sim,symbol=BTC_USDT seq=1i,bid_price_1=9,bid_qty_1=1,bid_price_2=8.5,"
        b"bid_qty_2=2,update_id=5001i,received_at=%dt,bids==\x0e\x0a\x02"
        % (START_US + 1)
        + struct.pack("<II", 2, 2)
        + numbers
        + b" %d\n" % (START_US + 100_000)
    )


def test_three_levels_or_fewer_bring_no_array() -> None:
    """What has room in the columns is only there."""
    for levels in (1, 2, 3):
        assert b"bids=" not in encoded_rows(book_stream(levels), book_row(1, [("9", "1")], [("10", "1")], levels))


@pytest.mark.parametrize(
    ("old", "new", "reason"),
    [
        (",7,1,", ",,1,", "lacks its price"),
        (",7,1,", ",,,", "lacks its price"),
        (",7,1,", ",nan,1,", "no DOUBLE"),
        (",7,1,", ",1_0,1,", "no DOUBLE"),
    ],
)
def test_a_level_that_is_none_is_refused_with_its_line(old: str, new: str, reason: str) -> None:
    """A hole among the levels, or what is no number, would be another book in the table."""
    stream = book_stream(4)
    row = book_row(1, [("9", "1"), ("8", "1"), ("7", "1"), ("6", "1")], [("10", "1")], 4)
    good = book_row(2, [("9", "1")], [], 4)
    content = f"{row.replace(old, new)}\n{good}\n".encode()
    encoded = Encoder(stream, TAGS).encode(content)
    assert [(line, reason in why) for line, why in encoded.refused] == [(0, True)]
    assert encoded.rows == 1


def test_the_fast_and_the_slow_way_write_the_same() -> None:
    """A symbol of any text, and a line beside that sends the chunk down the slow path."""
    chance = random.Random(7)
    stream = book_stream(6)
    rows = [book_row(n, *books, 6) for n, books in enumerate(random_books(chance, 200, 6), 1)]
    content = "".join(row + "\n" for row in rows).encode()
    for tags in (TAGS, {**TAGS, "symbol": "币 A,B=C"}):
        encoder = Encoder(stream, tags)
        fast = encoder.encode(content)
        assert fast.body == encoder._encode_lines(content, None).body
        assert (fast.rows, fast.refused) == (200, [])


class TestAgainstTheServer:
    @pytest.mark.parametrize("levels", [4, 20])
    def test_the_table_cannot_tell_who_sent_a_book(
        self, questdb: Any, make_delivery: Any, tmp_path: Path, levels: int
    ) -> None:
        """Random books of our encoder and of the official client read back the same, and the memory holds them too."""
        seed = random.randrange(2**32)
        print(f"seed {seed}")
        books = random_books(random.Random(seed), 300, levels)
        stream = book_stream(levels)
        ours, theirs = f"{tmp_path.name}-{levels}-ours", f"{tmp_path.name}-{levels}-theirs"
        content = "".join(book_row(n, *book, levels) + "\n" for n, book in enumerate(books, 1)).encode()
        encoded = Encoder(stream, {**TAGS, "session_id": ours}).encode(content)
        assert (encoded.rows, encoded.refused) == (300, [])
        settings = questdb.settings
        with closing(HttpTransport.from_config(settings)) as transport:
            for _ in range(2):  # what is sent again changes nothing
                assert transport.send(stream.table, encoded.body, 300) == Acknowledged()
        with Sender.from_conf(
            f"http::addr={settings.ilp_host}:{settings.ilp_port};username={settings.http_user};"
            f"password={settings.http_password.get_secret_value()};auto_flush=off;protocol_version=2;"
        ) as sender:
            buffer = sender.new_buffer()
            for n, (bids, asks) in enumerate(books, 1):
                columns: dict[str, Any] = {"update_id": 5000 + n, "seq": n}
                for side, found in (("bid", bids), ("ask", asks)):
                    for level, (price, size) in enumerate(found[:BOOK_LEVELS], 1):
                        columns |= {f"{side}_price_{level}": float(price), f"{side}_qty_{level}": float(size)}
                    if found:
                        columns[f"{side}s"] = np.array(found, dtype=float).T.copy()
                columns["received_at"] = TimestampMicros(START_US + n)
                at = TimestampMicros(START_US + n * 100_000)
                buffer.row(stream.table, symbols={**TAGS, "session_id": theirs}, columns=columns, at=at)
            sender.flush(buffer)

        delivery = make_delivery(settings)
        names = ", ".join(name for name, _ in stream.table_columns if name != "session_id")
        delivery.session_id = ours
        delivery.wait_applied(stream.table)
        found = delivery.select(names, stream.table, "order by seq")
        delivery.session_id = theirs
        assert len(found) == 300
        assert found == delivery.select(names, stream.table, "order by seq")
        arrays = [[side and [[float(level[i]) for level in side] for i in (0, 1)] for side in book] for book in books]
        assert [row[-2:] for row in found] == [[side or None for side in pair] for pair in arrays]

        memory = MemoryQuestDB()
        assert memory.accept(encoded.body) == Acknowledged()
        held = [[row.get("bids"), row.get("asks")] for row in memory.shown(stream.table)]
        assert held == [
            [tuple(tuple(part) for part in side) if side else None for side in (bids, asks)] for bids, asks in arrays
        ]

    def test_sessions_of_several_depths_are_delivered_together(self, questdb: Any, make_delivery: Any) -> None:
        """One request has rows with and without arrays; a session from before the arrays has NULL there."""
        delivery = make_delivery(questdb.settings)
        deep = book_stream(20)
        plain = delivery.file(ORDERBOOK, "OLD_USDT")
        file = delivery.file(deep, "DEEP_USDT")
        bids = [(f"{100 - n}.5", f"{n}.25") for n in range(20)]
        asks = [(f"{101 + n}.5", f"{n}.75") for n in range(13)]
        for n in range(1, 501):
            file.append(book_row(n, bids, asks, 20))
            plain.append(book_row(n, bids[:3], asks[:3], 3))
        delivery.start()
        assert delivery.delivered()
        columns = "symbol, count(), count(bid_price_3), sum(bids[1, 20]), sum(asks[2, 13]), sum(asks[1, 14])"
        found = delivery.select(columns, "tick_orderbook", "group by symbol order by symbol")
        assert found == [
            ["DEEP_USDT", 500, 500, 500 * 81.5, 500 * 12.75, None],
            ["OLD_USDT", 500, 500, None, None, None],
        ]
