"""CSV lines → ILP lines."""

from __future__ import annotations

import random
from contextlib import closing
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from questdb import Sender, TimestampMicros

from collector.storage.ilp import Encoder, escape_tag
from collector.storage.questdb import Acknowledged, HttpTransport
from collector.streams import GAPS, OHLCV, ORDERBOOK, PRICES, STREAMS, Kind, Stream

TAGS = {"session_id": "s1", "exchange": "sim", "symbol": "BTC_USDT"}
PREFIX = "tick_prices,session_id=s1,exchange=sim,symbol=BTC_USDT"
ROW = "1700000000000001,60000.10,0.5,30000.05,buy,77,1,1700000000000900,ws,70,71"


def lines(*rows: str) -> bytes:
    return "".join(row + "\n" for row in rows).encode()


class TestPlainLines:
    def test_digits_go_over_untouched(self) -> None:
        """Every column is written with its type's sign, the digits as they stand in the CSV."""
        encoded = Encoder(PRICES, TAGS).encode(lines(ROW))

        assert encoded.body.decode() == (
            f'{PREFIX},side=buy,source=ws seq=1i,price=60000.10,volume=0.5,quote_volume=30000.05,trade_id="77",'
            "received_at=1700000000000900t,first_raw_id=70i,last_raw_id=71i 1700000000000001\n"
        )
        assert (encoded.rows, encoded.lines, encoded.kept, encoded.refused) == (1, 1, None, [])
        assert (encoded.seqs, encoded.times, encoded.last_seq) == ((1, 1), (1700000000000001, 1700000000000001), 1)

    def test_an_empty_field_is_left_out(self) -> None:
        """NULL is the absence of a column: for a whole chunk, and for single rows of it."""
        bare = "1700000000000002,1,2,,sell,,2,,,,"
        encoded = Encoder(PRICES, TAGS).encode(lines(bare))
        assert encoded.body.decode() == f"{PREFIX},side=sell seq=2i,price=1,volume=2 1700000000000002\n"

        mixed = Encoder(PRICES, TAGS).encode(lines(ROW, bare))
        assert mixed.body == Encoder(PRICES, TAGS).encode(lines(ROW)).body + encoded.body

    def test_older_and_newer_files_are_read_by_their_header(self) -> None:
        """A header with fewer columns, or with one that the stream does not know, gives what it has."""
        encoder = Encoder(PRICES, TAGS, ["timestamp", "price", "novelty", "seq"])
        assert encoder.encode(b"5,1.5,x,9\n").body.decode() == f"{PREFIX} seq=9i,price=1.5 5\n"

    @pytest.mark.parametrize("columns", [["price", "seq"], ["timestamp", "price"]])
    def test_a_header_without_time_or_number_is_refused(self, columns: list[str]) -> None:
        """Without a timestamp or a ``seq`` there is no row."""
        with pytest.raises(ValueError, match="no column"):
            Encoder(PRICES, TAGS, columns)

    def test_many_chunks_are_as_one(self) -> None:
        """Cutting a large content into chunks leaves no trace."""
        rows = [ROW.replace(",77,1,", f",77,{number},") for number in range(1, 2001)]
        encoder = Encoder(PRICES, TAGS)
        whole = encoder.encode(lines(*rows))

        assert whole.body == b"".join(encoder.encode(lines(row)).body for row in rows)
        assert (whole.rows, whole.seqs, whole.last_seq) == (2000, (1, 2000), 2000)

    def test_lines_that_make_up_for_each_other_are_found(self) -> None:
        """One line with a field too many beside one with a field too few are both refused."""
        encoded = Encoder(PRICES, TAGS).encode(lines(ROW + ",x", ROW.removesuffix(",71"), ROW))

        assert encoded.rows == 1
        assert [(line, reason) for line, reason in encoded.refused] == [
            (0, "12 fields instead of 11"),
            (1, "10 fields instead of 11"),
        ]
        assert encoded.line_of(0) == 2


class TestUnusualLines:
    @pytest.mark.parametrize(
        ("row", "reason"),
        [
            (ROW.replace("60000.10", "six thousand"), "no DOUBLE"),
            (ROW.replace("60000.10", "spa ce"), "no DOUBLE"),
            (ROW.replace("1700000000000001", ""), "no timestamp"),
            (ROW.replace("1700000000000001", "now"), "no TIMESTAMP"),
            (ROW.replace(",70,", ",7.5 ,"), "no LONG"),
            (ROW.replace(",77,", ",7\x007,"), "control character"),
            ("", "1 fields"),
        ],
    )
    def test_a_line_that_no_table_could_take_is_named(self, row: str, reason: str) -> None:
        """The line is refused with the reason, and the others are encoded."""
        encoded = Encoder(PRICES, TAGS).encode(lines(ROW, row + " " * (reason == "no TIMESTAMP"), ROW))

        assert encoded.rows == 2
        assert [line for line, _ in encoded.refused] == [1]
        assert reason in encoded.refused[0].reason

    def test_a_line_that_is_not_utf8_is_named(self) -> None:
        """Bytes that are no text are refused."""
        encoded = Encoder(PRICES, TAGS).encode(lines(ROW) + b"\xff\xfe,1\n")
        assert encoded.refused == [(1, "not UTF-8")]

    def test_tags_and_strings_are_escaped(self) -> None:
        """What ILP would read as its own signs is written so that it does not."""
        row = ROW.replace(",buy,77,", ',"b,u=y z\\","say ""so""\\",')
        encoded = Encoder(PRICES, {**TAGS, "symbol": "A B,C=D"}).encode(lines(row))

        body = encoded.body.decode()
        assert "symbol=A\\ B\\,C\\=D,side=b\\,u\\=y\\ z\\\\," in body
        assert 'trade_id="say \\"so\\"\\\\"' in body

    @pytest.mark.parametrize("value", ["", "a\nb", "nul\0"])
    def test_what_cannot_be_a_tag_is_refused(self, value: str) -> None:
        """An empty tag, or one with a control character, cannot be written."""
        with pytest.raises(ValueError, match="cannot be a tag"):
            escape_tag(value)

    @given(st.binary(max_size=300))
    def test_any_bytes_give_rows_or_reasons(self, content: bytes) -> None:
        """Every line is either in the body or refused; nothing raises."""
        content = content.rpartition(b"\n")[0] + b"\n"
        encoded = Encoder(PRICES, TAGS).encode(content)
        assert encoded.rows + len(encoded.refused) == encoded.lines == content.count(b"\n")
        assert encoded.body.count(b"\n") == encoded.rows

    @given(st.lists(st.sampled_from(["", "1", "2.5", "buy", "x y", 'q"q', "ü", "-3", "\\", "=", "1e5"]), max_size=13))
    def test_the_fast_and_the_slow_way_agree(self, fields: list[str]) -> None:
        """Whatever both ways take, they write the same; a line is fast or slow by what stands beside it."""
        row = ",".join(fields)
        encoder = Encoder(PRICES, TAGS)
        slow = encoder._encode_lines(lines(row), None)
        fast = encoder.encode(lines(row))
        if slow.rows and fast.rows:
            assert fast.body == slow.body


class TestKeys:
    def test_the_last_line_of_a_key_is_encoded(self) -> None:
        """Of two revisions in one batch only the later one goes out, where the later one stood."""
        rows = [
            f"{start},1m,1,2,0.5,{close},10,100,5,4,1,5,true,full,trades,0,{seq}"
            for seq, (start, close) in enumerate([(60, "1.1"), (120, "2.2"), (60, "1.3")], 1)
        ]
        encoded = Encoder(OHLCV, TAGS).encode(lines(*rows))

        assert encoded.rows == 2
        assert encoded.kept == [1, 2]
        assert b"close=1.1" not in encoded.body
        assert b"is_closed=true" in encoded.body

    def test_rows_below_the_retention_are_left_out(self) -> None:
        """What the table would drop at once is not sent, and is no refusal either."""
        encoded = Encoder(PRICES, TAGS).encode(lines(ROW, ROW.replace("1700000000000001", "5")), oldest_us=1000)
        assert (encoded.rows, encoded.lines, encoded.refused) == (1, 2, [])


def random_value(kind: Kind, chance: random.Random) -> str:
    if chance.random() < 0.2:
        return ""
    if kind is Kind.DOUBLE:
        digits = str(chance.randrange(10 ** chance.randrange(1, 18)))
        return (
            f"{digits}.{chance.randrange(10**9):09d}" if chance.random() < 0.8 else f"{digits}e-{chance.randrange(9)}"
        )
    if kind in (Kind.LONG, Kind.TIMESTAMP):
        return str(chance.randrange(1, 2**50))
    if kind is Kind.BOOLEAN:
        return chance.choice(["true", "false"])
    texts = ["plain", "with space", 'quo"te', "back\\slash", "a=b", "comma,comma", "Grüße", "币安", "x" * 60]
    return chance.choice(texts)


def random_row(stream: Stream, seq: int, chance: random.Random) -> dict[str, str]:
    row = {column.name: random_value(column.kind, chance) for column in stream.columns}
    row[stream.timestamp.name] = str(1_700_000_000_000_000 + seq * 1_000_003)
    row["seq"] = str(seq)
    for column in stream.columns:
        if column.kind is Kind.BOOLEAN and not row[column.name]:
            row[column.name] = "false"
    if stream is GAPS:
        row["gap_id"] = f"gap-{seq}"
    if stream is OHLCV:
        row["interval"] = "1m"
    return row


def quoted(value: str) -> str:
    return '"' + value.replace('"', '""') + '"' if set(value) & set(',"') else value


def add_with_the_official_client(buffer: Any, stream: Stream, tags: dict[str, str], row: dict[str, str]) -> None:
    symbols, columns = dict(tags), {}
    for column in stream.columns[1:]:
        value = row[column.name]
        if not value:
            continue
        if column.kind is Kind.SYMBOL:
            symbols[column.in_database] = value
        else:
            kinds = {
                Kind.DOUBLE: float,
                Kind.LONG: int,
                Kind.VARCHAR: str,
                Kind.TIMESTAMP: lambda text: TimestampMicros(int(text)),
                Kind.BOOLEAN: lambda text: text == "true",
            }
            columns[column.in_database] = kinds[column.kind](value)
    buffer.row(stream.table, symbols=symbols, columns=columns, at=TimestampMicros(int(row[stream.timestamp.name])))


class TestAgainstTheOfficialClient:
    @pytest.mark.parametrize("stream", STREAMS.values(), ids=STREAMS)
    def test_the_table_cannot_tell_who_sent_a_row(
        self, questdb: Any, make_delivery: Any, tmp_path: Any, stream: Stream
    ) -> None:
        """Random rows sent by the encoder and by the official client's ``row()`` read back the same."""
        seed = random.randrange(2**32)
        print(f"seed {seed}")
        chance = random.Random(seed)
        rows = [random_row(stream, seq, chance) for seq in range(1, 501)]
        ours, theirs = f"{tmp_path.name}-ours", f"{tmp_path.name}-theirs"
        tags = {"session_id": ours, "exchange": "sim"} | ({"symbol": "币 A,B=C"} if stream.per_symbol else {})
        settings = questdb.settings

        content = lines(*[",".join(quoted(row[column.name]) for column in stream.columns) for row in rows])
        encoded = Encoder(stream, tags).encode(content)
        assert (encoded.rows, encoded.refused) == (500, [])
        with closing(HttpTransport.from_config(settings)) as transport:
            assert transport.send(stream.table, encoded.body, 500) == Acknowledged()
        with Sender.from_conf(
            f"http::addr={settings.ilp_host}:{settings.ilp_port};username={settings.http_user};"
            f"password={settings.http_password.get_secret_value()};auto_flush=off;protocol_version=2;"
        ) as sender:
            buffer = sender.new_buffer()
            for row in rows:
                add_with_the_official_client(buffer, stream, {**tags, "session_id": theirs}, row)
            sender.flush(buffer)

        delivery = make_delivery(settings)
        columns = ", ".join(name for name, _ in stream.table_columns if name != "session_id")
        delivery.session_id = ours
        delivery.wait_applied(stream.table)
        found = delivery.select(columns, stream.table, "order by seq")
        delivery.session_id = theirs
        assert len(found) == 500
        assert found == delivery.select(columns, stream.table, "order by seq")


class TestExactness:
    def test_every_decimal_becomes_the_double_that_it_is(self, questdb: Any, make_delivery: Any) -> None:
        """Random decimals of up to 28 digits, with exponents, read back bit for bit as ``float`` makes them."""
        seed = random.randrange(2**32)
        print(f"seed {seed}")
        chance = random.Random(seed)
        texts = [
            str(Decimal(chance.randrange(10 ** chance.randrange(1, 28))).scaleb(-chance.randrange(0, 30)))
            for _ in range(20_000)
        ]
        delivery = make_delivery(questdb.settings)
        file = delivery.file(ORDERBOOK)
        empty = "," * 11
        file.path.write_text(
            ORDERBOOK.header
            + "".join(f"{1_700_000_000_000_000 + n},{text}{empty},1,{n},\n" for n, text in enumerate(texts, 1))
        )
        delivery.start()

        assert delivery.delivered()
        found = delivery.select("bid_price_1", "tick_orderbook", "order by seq")
        assert [float(text) for text in texts] == [row[0] for row in found]


def test_a_quoted_line_that_is_no_csv_is_refused_and_not_an_error() -> None:
    """A carriage return outside of quotes, and a field longer than the csv module takes."""
    encoder = Encoder(PRICES, {"session_id": "x", "exchange": "sim", "symbol": "A_B"})
    for line in ('1,"2\r3",4\r5', '1,"' + "9" * 200_000 + '"'):
        assert encoder.fields_of(line) is None
        assert len(encoder.encode(line.encode() + b"\n").refused) == 1
