"""Delivery from CSV to a real QuestDB, under everything that happens to it."""

from __future__ import annotations

import asyncio
import csv
import gzip
import os
import signal
import time
from collections.abc import Callable
from typing import Any

import pytest

from collector.clock import SystemClock
from collector.sim.fault_proxy import Fault
from collector.storage.cursor import CURSOR_FILE
from collector.storage.delivery import State
from collector.storage.migrations import repair_tables
from collector.streams import GAPS, OHLCV, PRICES

Make = Callable[..., Any]
WRITE = b"POST /write"


def rejected_rows(delivery: Any) -> list[list[str]]:
    path = delivery.directory / "rejected.csv"
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return list(csv.reader(file))[1:]


def until_state(delivery: Any, *states: State, timeout_s: float = 20) -> Any:
    """Wait until the replicator says that it is in one of these states."""

    async def wait() -> Any:
        async with asyncio.timeout(timeout_s):
            while delivery.replicator.status().state not in states:
                await asyncio.sleep(0.01)
        return delivery.replicator.status()

    return asyncio.run(wait())


class TestTheMainPath:
    def test_what_is_committed_is_in_the_table_with_where_it_came_from(self, questdb: Any, make_delivery: Make) -> None:
        """A committed row is in its table with session, exchange and symbol, every column as in the CSV."""
        delivery = make_delivery(questdb.settings)
        file = delivery.file()
        delivery.start()
        delivery.commit(file.append("1700000000000001,60000.10,0.5,30000.05,buy,77,{seq},1700000000000900,ws,70,71"))

        assert delivery.delivered()
        found = delivery.select("*", "tick_prices")
        assert [
            [
                "2023-11-14T22:13:20.000001Z",
                delivery.session_id,
                "sim",
                "BTC_USDT",
                60000.1,
                0.5,
                30000.05,
                "buy",
                "77",
                1,
                "2023-11-14T22:13:20.000900Z",
                "ws",
                70,
                71,
            ]
        ] == found

    def test_rows_go_out_as_they_are_committed(self, questdb: Any, make_delivery: Make, rows: Any) -> None:
        """Commit after commit, the table grows with the file, and the state stays live."""
        delivery = make_delivery(questdb.settings)
        file = delivery.file()
        delivery.start()
        for number in range(20):
            delivery.commit(file.append(rows.price(number), rows.price(number)))
            assert delivery.delivered()

        assert list(range(1, 41)) == delivery.sequence()
        assert State.LIVE is delivery.replicator.status().state

    def test_nothing_beyond_the_durable_offset_is_sent(self, questdb: Any, make_delivery: Make, rows: Any) -> None:
        """Rows that the log has not made durable stay out of the table."""
        delivery = make_delivery(questdb.settings)
        file = delivery.file()
        delivery.start()
        commit = file.append(rows.price(0))
        file.append(rows.price(1), rows.price(2))
        delivery.commit(commit)

        assert delivery.delivered()
        assert delivery.sequence() == [1]

    def test_many_files_share_a_request(self, questdb: Any, make_delivery: Make, rows: Any) -> None:
        """A thousand symbols with two rows each cost one request, and each row keeps its symbol."""
        delivery = make_delivery(questdb.settings)
        files = [delivery.file(PRICES, f"S{number}_USDT") for number in range(1000)]
        for file in files:
            file.append(rows.price(0), rows.price(1))
        delivery.start()

        assert delivery.delivered()
        assert delivery.replicator.status().requests == 1
        counted = delivery.select("count(), count_distinct(symbol)", "tick_prices")
        assert counted == [[2000, 1000]]

    def test_a_large_file_goes_out_in_bounded_batches(self, questdb: Any, make_delivery: Make) -> None:
        """A backlog larger than a batch is cut by rows, and all of it arrives."""
        delivery = make_delivery(questdb.settings, batch_max_rows=1000)
        delivery.file().append_many(10_500)
        delivery.start()

        assert delivery.delivered()
        assert list(range(1, 10_501)) == delivery.sequence()
        assert delivery.replicator.status().requests >= 11

    def test_the_last_row_of_a_key_counts(self, questdb: Any, make_delivery: Make, rows: Any) -> None:
        """Revisions of a candle leave one row in the table, the newest, within a batch and over several."""
        delivery = make_delivery(questdb.settings)
        file = delivery.file(OHLCV)
        file.append(rows.candle(0, "1.1"), rows.candle(1, "1.5"), rows.candle(0, "1.2", 1))
        delivery.start()
        assert delivery.delivered()
        delivery.commit(file.append(rows.candle(1, "1.6", 1), rows.candle(1, "1.7", 2)))
        assert delivery.delivered()

        found = delivery.select("close, revision", "aggregated_ohlcv", "order by timestamp")
        assert found == [[1.2, 1], [1.7, 2]]

    def test_text_with_commas_and_quotes_arrives_as_it_is(self, questdb: Any, make_delivery: Make, rows: Any) -> None:
        """The ledger's details go through CSV's quoting and ILP's escaping unharmed."""
        details = ["plain", 'a, "quoted", comma', "back\\slash = and space", "Grüße 币安"]
        delivery = make_delivery(questdb.settings)
        file = delivery.file(GAPS)
        delivery.start()
        delivery.commit(file.append(*[rows.gap(number, detail) for number, detail in enumerate(details)]))

        assert delivery.delivered()
        found = delivery.select("detail", "collection_gaps", "order by seq")
        assert details == [row[0] for row in found]


class TestRestart:
    def test_a_restart_goes_on_where_the_cursor_says(self, questdb: Any, make_delivery: Make) -> None:
        """After an orderly stop nothing is sent twice."""
        delivery = make_delivery(questdb.settings)
        file = delivery.file()
        file.append_many(100)
        delivery.start()
        assert delivery.delivered()
        delivery.stop()
        file.append_many(50)
        delivery.start()

        assert delivery.delivered()
        assert list(range(1, 151)) == delivery.sequence()
        assert delivery.replicator.status().sent_rows == 50

    @pytest.mark.parametrize("spoil", ["missing", "torn", "foreign", "garbage", "beyond the file"])
    def test_a_cursor_that_cannot_be_used_costs_only_a_resend(
        self, questdb: Any, make_delivery: Make, spoil: str
    ) -> None:
        """Whatever is wrong with the cursor, everything is sent again and nothing is doubled."""
        delivery = make_delivery(questdb.settings)
        file = delivery.file()
        file.append_many(100)
        delivery.start()
        assert delivery.delivered()
        delivery.stop()
        cursor = delivery.directory / CURSOR_FILE
        content = cursor.read_bytes()
        if spoil == "missing":
            cursor.unlink()
        elif spoil == "beyond the file":
            file.path.write_text(file.stream.header + "".join(row + "\n" for row in file.rows[:40]))
        else:
            changed = {"torn": content[: len(content) // 2], "garbage": b"\x00\xff{", "foreign": content}[spoil]
            cursor.write_bytes(changed)
            if spoil == "foreign":
                delivery.session_id += "-other"
        delivery.start()

        assert delivery.delivered()
        expected = range(1, 101)
        assert list(expected) == delivery.sequence()

    def test_a_process_that_died_anywhere_leaves_nothing_doubled(
        self, questdb: Any, make_delivery: Make, tmp_path: Any
    ) -> None:
        """With the cursor of any earlier moment in place, the table ends up equal to the file."""
        delivery = make_delivery(questdb.settings, batch_max_rows=30)
        file = delivery.file()
        cursors = []
        for _ in range(4):
            file.append_many(70)
            delivery.start()
            assert delivery.delivered()
            delivery.stop()
            cursors.append((delivery.directory / CURSOR_FILE).read_bytes())
        for content in reversed(cursors):
            (delivery.directory / CURSOR_FILE).write_bytes(content)
            delivery.start()
            assert delivery.delivered()
            delivery.stop()

        assert list(range(1, 281)) == delivery.sequence()

    def test_a_rewind_sends_again_and_doubles_nothing(self, questdb: Any, make_delivery: Make) -> None:
        """A rewind to a ``seq`` sends exactly the rows from there on."""
        delivery = make_delivery(questdb.settings)
        delivery.file().append_many(100)
        delivery.start()
        assert delivery.delivered()
        delivery.replicator.rewind(delivery.session_id, from_seq=61)

        assert delivery.delivered()
        status = delivery.replicator.status()
        assert (status.sent_rows, status.resent_rows) == (140, 40)
        assert list(range(1, 101)) == delivery.sequence()


class TestRotation:
    @pytest.mark.parametrize("compressed", [False, True])
    def test_all_segments_are_read_in_order(self, questdb: Any, make_delivery: Make, compressed: bool) -> None:
        """Closed segments, compressed or not, come before the live one."""
        delivery = make_delivery(questdb.settings)
        file = delivery.file()
        for _ in range(3):
            file.append_many(50)
            closed = file.rotate()
            if compressed:
                closed.with_name(closed.name + ".gz").write_bytes(gzip.compress(closed.read_bytes()))
                closed.unlink()
        file.append_many(10)
        delivery.start()

        assert delivery.delivered()
        assert list(range(1, 161)) == delivery.sequence()

    def test_a_rotation_under_way_loses_nothing(self, questdb: Any, make_delivery: Make, rows: Any) -> None:
        """Rows behind the cursor in a segment that is closed, and compressed, meanwhile are still delivered."""
        delivery = make_delivery(questdb.settings)
        file = delivery.file()
        delivery.start()
        delivery.commit(file.append(rows.price(0)))
        assert delivery.delivered()
        file.append_many(20)
        closed = file.rotate()
        closed.with_name(closed.name + ".gz").write_bytes(gzip.compress(closed.read_bytes()))
        closed.unlink()
        delivery.commit(file.append(rows.price(50), rows.price(51)))

        assert delivery.delivered()
        assert list(range(1, 24)) == delivery.sequence()
        delivery.stop()
        delivery.start()
        assert delivery.delivered()
        assert delivery.replicator.status().sent_rows == 0


class TestFaultsOnTheWay:
    def test_without_a_server_it_says_so_once_and_picks_it_up(
        self, questdb: Any, make_delivery: Make, fault_proxy: Make, rows: Any
    ) -> None:
        """Started without a server: one warning with the reason; when the server appears, everything is delivered."""
        proxy = fault_proxy(questdb.settings.ilp_port)
        proxy.refuse()
        delivery = make_delivery(questdb.settings)
        file = delivery.file()
        delivery.start(proxy.port)
        delivery.commit(file.append(rows.price(0)))
        until_state(delivery, State.DOWN)
        assert not delivery.delivered(timeout_s=0.5)
        assert delivery.log.names() == ["data_collection.db_persistence_disabled"]
        assert delivery.log.facts("data_collection.db_persistence_disabled")[0]["reason"]

        proxy.heal()
        assert delivery.delivered()
        assert delivery.sequence() == [1]

    def test_a_lost_answer_is_absorbed(self, questdb_server: Make, make_delivery: Make, fault_proxy: Make) -> None:
        """Rows whose acknowledgement was lost are sent again, and the server's dedup drops them."""
        server = questdb_server()
        proxy = fault_proxy(server.settings.ilp_port)
        delivery = make_delivery(server.settings)
        file = delivery.file()
        delivery.start(proxy.port)
        for _ in range(5):
            proxy.arm(Fault("drop_response", WRITE))
            delivery.commit(file.append_many(100))
            assert delivery.delivered()

        assert list(range(1, 501)) == delivery.sequence()
        assert proxy.fired["drop_response"] == 5
        absorbed = delivery.query(
            "select wal_dedup_row_count_since_start from tables() where table_name = 'tick_prices'"
        )
        assert absorbed[0][0] >= 500

    @pytest.mark.parametrize(
        "fault",
        [
            Fault("reset", WRITE),
            Fault("cut_request", WRITE, after_bytes=300),
            Fault("cut_request", WRITE, after_bytes=9000),
            Fault("cut_response", WRITE, after_bytes=10),
            Fault("fake_status", WRITE, status=500),
            Fault("fake_status", WRITE, status=503),
            Fault("fake_status", WRITE, status=429),
            Fault("fake_status", WRITE, status=413),
            Fault("fake_status", WRITE, status=200, body=b"welcome to the hotel"),
            Fault("fake_status", WRITE, status=400, body=b"<html>"),
            Fault("fake_status", b"/exec", status=502),
            Fault("fake_status", b"/exec", status=200, body=b"{"),
        ],
        ids=lambda fault: f"{fault.kind}-{fault.status}-{fault.after_bytes}",
    )
    def test_a_broken_request_is_sent_again(
        self, questdb: Any, make_delivery: Make, fault_proxy: Make, fault: Fault
    ) -> None:
        """Whatever happens to requests on the way, the table ends up equal to the file."""
        proxy = fault_proxy(questdb.settings.ilp_port)
        delivery = make_delivery(questdb.settings)
        file = delivery.file()
        delivery.start(proxy.port)
        until_state(delivery, State.LIVE)
        proxy.arm(fault, times=3)
        delivery.commit(file.append_many(100))

        assert delivery.delivered()
        assert list(range(1, 101)) == delivery.sequence()
        if fault.match == WRITE:
            assert proxy.fired[fault.kind] == 3

    @pytest.mark.parametrize("status", [401, 403, 404])
    def test_a_wrong_configuration_is_failed_and_still_retried(
        self, questdb: Any, make_delivery: Make, fault_proxy: Make, status: int
    ) -> None:
        """401, 403 and 404 are for a person: the state says failed, with a hint; when it is put right, it goes on."""
        proxy = fault_proxy(questdb.settings.ilp_port)
        delivery = make_delivery(questdb.settings)
        file = delivery.file()
        delivery.start(proxy.port)
        until_state(delivery, State.LIVE)
        proxy.arm(Fault("fake_status", b"", status=status), times=3)
        delivery.commit(file.append_many(10))
        found = until_state(delivery, State.FAILED)
        assert found.hint
        assert str(status) in found.reason

        assert delivery.delivered()
        assert 1 <= delivery.log.names().count("replicator.failed") <= 3
        assert list(range(1, 11)) == delivery.sequence()

    def test_each_change_of_state_is_one_event(self, questdb: Any, make_delivery: Make, fault_proxy: Make) -> None:
        """An outage with many attempts is one warning, and one line when it ends."""
        proxy = fault_proxy(questdb.settings.ilp_port)
        delivery = make_delivery(questdb.settings)
        file = delivery.file()
        delivery.start(proxy.port)
        until_state(delivery, State.LIVE)
        proxy.refuse()
        delivery.commit(file.append_many(10))
        until_state(delivery, State.DOWN)
        assert not delivery.delivered(timeout_s=1)
        proxy.heal()
        assert delivery.delivered()
        until_state(delivery, State.LIVE)

        names = delivery.log.names()
        assert names.count("replicator.down") == 1
        assert names[:2] == ["replicator.live", "replicator.down"]
        assert names[-1] == "replicator.live"

    def test_a_server_that_answers_but_takes_no_rows_is_down(
        self, questdb: Any, make_delivery: Make, fault_proxy: Make
    ) -> None:
        """On a full disk, for one: that is one outage, until rows are taken again."""
        proxy = fault_proxy(questdb.settings.ilp_port)
        delivery = make_delivery(questdb.settings, retry_initial_s=0.01, retry_cap_s=10)
        file = delivery.file()
        delivery.start(proxy.port)
        until_state(delivery, State.LIVE)
        proxy.arm(Fault("fake_status", b"/write", status=500, body=b"No space left"), 6)
        delivery.commit(file.append_many(10))
        assert delivery.delivered()
        until_state(delivery, State.LIVE)
        assert proxy.fired["fake_status"] == 6
        assert delivery.log.names() == ["replicator.live", "replicator.down", "replicator.live"]

    def test_a_server_that_hangs_is_given_up_and_asked_again(
        self, questdb: Any, make_delivery: Make, fault_proxy: Make
    ) -> None:
        """Behind a black hole the request times out; when it opens, nothing is missing and nothing doubled."""
        proxy = fault_proxy(questdb.settings.ilp_port)
        delivery = make_delivery(questdb.settings, request_timeout_s=0.3)
        file = delivery.file()
        delivery.start(proxy.port)
        until_state(delivery, State.LIVE)
        proxy.stall()
        delivery.commit(file.append_many(100))
        until_state(delivery, State.DOWN)
        proxy.heal()

        assert delivery.delivered()
        assert list(range(1, 101)) == delivery.sequence()

    def test_a_stop_during_an_outage_ends_in_time(self, questdb: Any, make_delivery: Make, fault_proxy: Make) -> None:
        """A server that is down is not waited for at the end; the next start delivers the rest."""
        proxy = fault_proxy(questdb.settings.ilp_port)
        delivery = make_delivery(questdb.settings)
        file = delivery.file()
        delivery.start(proxy.port)
        until_state(delivery, State.LIVE)
        proxy.refuse()
        delivery.commit(file.append_many(10))
        until_state(delivery, State.DOWN)
        delivery.stop()
        assert not delivery.dead[-1]._thread.is_alive()

        delivery.start()
        assert delivery.delivered()
        assert list(range(1, 11)) == delivery.sequence()


class TestTheServerDies:
    def test_killed_in_the_middle(self, questdb_server: Make, make_delivery: Make) -> None:
        """kill -9 of the server while rows stream in: after its restart the table equals the file."""
        server = questdb_server()
        delivery = make_delivery(server.settings, batch_max_rows=500)
        file = delivery.file()
        delivery.start()
        for turn in range(3):
            for _ in range(10):
                delivery.commit(file.append_many(300))
            os.kill(server.pid, signal.SIGKILL)
            delivery.commit(file.append_many(300))
            until_state(delivery, State.DOWN)
            server.server.start()
            assert delivery.delivered(), turn

        assert list(range(1, file.next_seq)) == delivery.sequence()

    def test_stopped_and_continued(self, questdb_server: Make, make_delivery: Make) -> None:
        """A server that freezes (SIGSTOP) and goes on ends up equal to the file."""
        server = questdb_server()
        delivery = make_delivery(server.settings, request_timeout_s=0.3)
        file = delivery.file()
        delivery.start()
        until_state(delivery, State.LIVE)
        pid = server.pid
        os.kill(pid, signal.SIGSTOP)
        try:
            delivery.commit(file.append_many(1000))
            until_state(delivery, State.DOWN)
        finally:
            os.kill(pid, signal.SIGCONT)

        assert delivery.delivered()
        assert list(range(1, 1001)) == delivery.sequence()


class TestTables:
    def test_a_dropped_table_of_ours_is_made_again_and_filled(self, questdb_server: Make, make_delivery: Make) -> None:
        """The embedded server's table is made again from the declared schema, and gets every row again."""
        server = questdb_server()
        repaired = []

        def repair() -> None:
            repaired.append(True)
            repair_tables(server.settings)

        delivery = make_delivery(server.settings, repair=repair)
        file = delivery.file()
        file.append_many(200)
        delivery.start()
        assert delivery.delivered()
        delivery.query("drop table tick_prices")
        delivery.commit(file.append_many(50))

        assert delivery.delivered()
        assert repaired
        assert list(range(1, 251)) == delivery.sequence()
        assert rejected_rows(delivery) == []

    def test_a_dropped_table_of_an_external_server_is_named_with_its_cure(
        self, questdb_server: Make, make_delivery: Make
    ) -> None:
        """The state says failed, and names the command; other tables go on; after the cure everything is there."""
        server = questdb_server()
        delivery = make_delivery(server.settings)
        file, ledger = delivery.file(), delivery.file(GAPS)
        file.append_many(100)
        delivery.start()
        assert delivery.delivered()
        delivery.query("drop table tick_prices")
        status = until_state(delivery, State.FAILED)
        assert "tick_prices" in status.reason
        assert "collector db migrate --repair" in status.hint
        delivery.commit(file.append_many(20))
        from_ledger = ledger.append(f"{1_700_000_000_000_000},gap-1,BTC_USDT,prices,stall,,,,,,,open,,,0,{{seq}}")
        delivery.commit(from_ledger)
        assert asyncio.run(delivery.replicator.wait_delivered(delivery.session_id, {("gaps", None): 1}, 10))

        repair_tables(server.settings)
        assert delivery.delivered()
        assert list(range(1, 121)) == delivery.sequence()

    def test_a_suspended_table_is_resumed(self, questdb_server: Make, make_delivery: Make) -> None:
        """A table whose WAL is suspended is found, resumed, and holds everything afterwards."""
        server = questdb_server()
        delivery = make_delivery(server.settings)
        file = delivery.file()
        file.append_many(100)
        delivery.start()
        assert delivery.delivered()
        delivery.query("alter table tick_prices suspend wal")
        delivery.commit(file.append_many(100))

        assert delivery.delivered()
        assert list(range(1, 201)) == delivery.sequence()
        assert "replicator.rewound" in delivery.log.names()

    def test_rows_that_vanish_from_the_table_are_sent_again(self, questdb_server: Make, make_delivery: Make) -> None:
        """Rows that were acknowledged but are not there when it is counted are sent again."""
        server = questdb_server()
        delivery = make_delivery(server.settings, check_interval_s=3600)
        file = delivery.file()
        file.append_many(100)
        delivery.start()
        assert delivery.delivered()
        delivery.query("alter table tick_prices drop partition where timestamp > 0")
        while delivery.sequence():  # the server applies it when it gets to it
            time.sleep(0.05)
        courier = delivery.replicator._courier
        for _ in range(2):
            delivery.replicator._post(courier.check_soon)
            assert delivery.delivered()

        assert list(range(1, 101)) == delivery.sequence()
        assert "replicator.rows_missing" in delivery.log.names()

    def test_dedup_that_was_turned_off_is_an_error(self, questdb_server: Make, make_delivery: Make) -> None:
        """Without its dedup keys a table gets nothing: sending twice would double rows."""
        server = questdb_server()
        delivery = make_delivery(server.settings)
        file = delivery.file()
        delivery.start()
        until_state(delivery, State.LIVE)
        delivery.query("alter table tick_prices dedup disable")
        status = until_state(delivery, State.FAILED)
        assert "dedup" in status.reason
        delivery.commit(file.append_many(10))
        assert not delivery.delivered(timeout_s=1)

        delivery.query("alter table tick_prices dedup enable upsert keys(timestamp, session_id, symbol, seq)")
        assert delivery.delivered()

    def test_rows_below_the_retention_are_not_sent(self, questdb_server: Make, make_delivery: Make, rows: Any) -> None:
        """What the table's TTL would drop is passed over, now and on a rewind; the rest is delivered."""
        server = questdb_server()
        delivery = make_delivery(server.settings)
        now_us = SystemClock().now_us()
        file = delivery.file()
        file.append_many(100)
        delivery.query("alter table tick_prices set ttl 2 days")
        delivery.start()
        delivery.commit(file.append(f"{now_us},1,1,1,buy,1,{{seq}},{now_us},ws,,", rows.price(5)))
        assert delivery.delivered()
        delivery.replicator.rewind(delivery.session_id)

        assert delivery.delivered()
        assert delivery.sequence() == [101]
        assert delivery.replicator.status().sent_rows == 2
        assert rejected_rows(delivery) == []


class TestRowsThatAreRefused:
    def test_a_poison_row_is_put_aside_and_the_rest_moves_on(
        self, questdb: Any, make_delivery: Make, rows: Any
    ) -> None:
        """Rows that the server refuses, and rows that are no rows, are in ``rejected.csv`` with the reason."""
        delivery = make_delivery(questdb.settings)
        file = delivery.file()
        other = delivery.file(PRICES, "ETH_USDT")
        other.append_many(5)
        file.append(
            rows.price(0),
            rows.price(1, price="abc"),
            rows.price(2),
            rows.price(3) + ",one,too,many",
            rows.price(4, price="1e400"),
            rows.price(5, price="spa ce"),
            rows.price(6),
        )
        delivery.start()

        assert delivery.delivered()
        assert delivery.sequence() == [1, 1, 2, 3, 3, 4, 5, 7]
        refused = {int(row[2]): row for row in rejected_rows(delivery)}
        assert {2, 4, 5, 6} == set(refused)
        assert refused[2][:3] == ["prices", "BTC_USDT", "2"]
        assert "abc" in refused[2][3]
        assert file.rows[1] == refused[2][4]
        assert file.rows[3] == refused[4][4]
        assert State.LIVE is until_state(delivery, State.LIVE).state
        assert delivery.replicator.status().rejected_rows == 4

    def test_only_poison(self, questdb: Any, make_delivery: Make, rows: Any) -> None:
        """A file of nothing but poison is put aside whole, and what comes after it arrives."""
        delivery = make_delivery(questdb.settings)
        file = delivery.file()
        file.append(*[rows.price(number, price="xx") for number in range(100)])
        file.append(rows.price(200))
        delivery.start()

        assert delivery.delivered()
        assert delivery.sequence() == [101]
        assert [str(seq) for seq in range(1, 101)] == [row[2] for row in rejected_rows(delivery)]

    def test_a_row_is_put_aside_once(self, questdb: Any, make_delivery: Make, rows: Any) -> None:
        """Sent again after a restart without a cursor, a refused row is not written a second time."""
        delivery = make_delivery(questdb.settings)
        file = delivery.file()
        file.append(rows.price(0), rows.price(1, price="abc"), rows.price(2, price="no, field"), rows.price(3))
        for _ in range(3):
            delivery.start()
            assert delivery.delivered()
            delivery.stop()
            (delivery.directory / CURSOR_FILE).unlink()

        assert delivery.sequence() == [1, 4]
        assert sorted(row[2] for row in rejected_rows(delivery)) == ["2", "3"]

    def test_a_refused_revision_leaves_the_one_before_it(self, questdb: Any, make_delivery: Make, rows: Any) -> None:
        """Where the last row of a key is refused, the one before it is in the table."""
        delivery = make_delivery(questdb.settings)
        file = delivery.file(OHLCV)
        file.append(rows.candle(0, "1.1"), rows.candle(0, "1e999", 1), rows.candle(1, "2.2"))
        delivery.start()

        assert delivery.delivered()
        found = delivery.select("close, revision", "aggregated_ohlcv", "order by timestamp")
        assert found == [[1.1, 0], [2.2, 0]]


class TestTheFilesChange:
    def test_a_file_that_is_cut_is_an_alarm_and_the_rest_goes_on(
        self, questdb: Any, make_delivery: Make, rows: Any
    ) -> None:
        """A file that lost durable rows is said to be damaged, read from its start, and other files go on."""
        delivery = make_delivery(questdb.settings)
        file, other = delivery.file(), delivery.file(PRICES, "ETH_USDT")
        file.append_many(100)
        delivery.start()
        assert delivery.delivered()
        file.path.write_text(file.stream.header + "".join(row + "\n" for row in file.rows[:50]))
        file.first_seq, file.next_seq = 1, 101
        commit = file.append(rows.price(200))
        delivery.commit(commit)
        delivery.commit(other.append_many(10))

        assert delivery.delivered()
        assert {*range(1, 102)} == set(delivery.sequence())
        assert "replicator.log_damaged" in delivery.log.names()

    def test_a_file_that_is_gone_is_an_alarm(self, questdb: Any, make_delivery: Make) -> None:
        """A deleted file is named; the thread goes on with the others."""
        delivery = make_delivery(questdb.settings)
        file, other = delivery.file(), delivery.file(PRICES, "ETH_USDT")
        delivery.start()
        commit = file.append_many(10)
        file.path.unlink()
        delivery.commit(commit)
        delivery.commit(other.append_many(10))

        assert asyncio.run(delivery.replicator.wait_delivered(delivery.session_id, {("prices", "ETH_USDT"): 10}, 10))
        assert str(file.path) in delivery.replicator.status().problems
        assert "replicator.log_damaged" in delivery.log.names()
