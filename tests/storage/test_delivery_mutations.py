"""Each rule of delivery is needed: with one taken out, the state machine's own judgement fails.

Scenarios are short plays of the state machine's rules, which all of them must survive; a mutation takes one rule out of
the product, and the scenario that the rule was made for must end in rows that differ. So the machine can fail, and for
each rule there is a play that shows why it is there.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from collector.storage import checks, inspector
from collector.storage.batches import Lane
from collector.storage.checks import Rewind, ServerFacts
from collector.storage.courier import Courier
from collector.storage.cursor import START, ServerMark
from collector.storage.inspector import Inspector
from collector.storage.memory_transport import MemoryQuestDB
from collector.storage.outbox import Outbox
from collector.storage.questdb import Acknowledged, Maybe, Outcome
from collector.storage.segments import StreamReader
from collector.streams import PRICES
from tests.storage.test_delivery_machine import DeliveryMachine

Scenario = Callable[[DeliveryMachine], None]
Mutation = Callable[[pytest.MonkeyPatch], None]


def play(scenario: Scenario, *, applies_at_once: bool = True, batch_max_rows: int = 50_000) -> None:
    """Play a scenario, look at the invariant, heal everything and compare."""
    machine = DeliveryMachine()
    try:
        machine.begin(applies_at_once=applies_at_once, batch_max_rows=batch_max_rows)
        scenario(machine)
        machine.the_database_is_a_part_of_the_csv()
    finally:
        machine.teardown()


# What happens


def rows_vanish(machine: DeliveryMachine) -> None:
    """What was acknowledged never shows, without any other sign."""
    machine.go_on(3)
    machine.append(3, PRICES)
    machine.flush()
    machine.deliver(2)
    table = machine.server.tables[PRICES.table]
    for key in list(table.rows)[-3:]:
        del table.rows[key]


def database_is_another_one(machine: DeliveryMachine) -> None:
    """An empty server stands where the old one stood, with tables of the same names, folders and transactions."""
    machine.go_on(3)
    server = machine.server
    transactions = {name: table.transaction for name, table in server.tables.items()}
    server.__dict__.update(MemoryQuestDB().__dict__)
    server.instance = "memory-2"
    for name, table in server.tables.items():
        table.applied = transactions[name]


def table_is_made_again(machine: DeliveryMachine) -> None:
    """Dropped and made by somebody, and written to since, so that its transactions don't tell."""
    machine.go_on(3)
    server = machine.server
    transaction = server.tables[PRICES.table].transaction
    server.drop(PRICES.table)
    server.make_tables()
    server.tables[PRICES.table].applied = transaction


def older_copy_is_restored(machine: DeliveryMachine) -> None:
    """A backup from before the last rows, in the same folders."""
    machine.go_on(3)
    copied = machine.server.backup()
    machine.go_on(3)
    machine.server.restore(copied)
    machine.server.starts -= 1  # seen by its transactions alone


def server_restarts_with_a_loss(machine: DeliveryMachine) -> None:
    """It forgets what it had acknowledged and not applied."""
    machine.go_on(2)
    machine.append(3, PRICES)
    machine.flush()
    machine.deliver(1)
    machine.server.restart(lost=1)


def server_restarts_with_a_loss_that_grows_over(machine: DeliveryMachine) -> None:
    """The same, and its transactions have grown past the old ones when it is looked at."""
    server_restarts_with_a_loss(machine)
    machine.server.tables[PRICES.table].applied += 5


def table_is_suspended_and_skips(machine: DeliveryMachine) -> None:
    """What it took while suspended is thrown away when it is resumed."""
    machine.go_on(2)
    machine.server.suspend(PRICES.table)
    machine.append(3, PRICES)
    machine.flush()
    machine.deliver(1)
    table = machine.server.tables[PRICES.table]
    table.applied += len(table.accepted)
    table.accepted.clear()


def answer_is_lost(machine: DeliveryMachine) -> None:
    """The rows are in, the answer is not: they are sent again."""
    machine.go_on(1)
    machine.append(3, PRICES)
    machine.flush()
    machine.transport.fail_at(1, lost=True)
    machine.deliver(2)
    machine.transport.heal()


def request_is_lost_and_the_process_dies(machine: DeliveryMachine) -> None:
    """Nothing of it arrived, nobody remembers."""
    machine.go_on(1)
    machine.append(3, PRICES)
    machine.flush()
    machine.transport.fail_at(1)
    machine.deliver(1)
    machine.save_cursor()
    machine.crash(b"")


def power_fails_before_the_sync(machine: DeliveryMachine) -> None:
    """Rows were in the file, and are gone: the database must not have had them."""
    machine.go_on(2)
    machine.append(5, PRICES)
    machine.deliver(3)
    machine.lose_power()


def tables_lose_their_keys(machine: DeliveryMachine) -> None:
    """Somebody turns dedup off; then an answer is lost."""
    machine.go_on(1)
    machine.server.tables[PRICES.table].dedup = False
    machine.check()
    answer_is_lost(machine)


def process_dies_after_a_loss_was_not_seen(machine: DeliveryMachine) -> None:
    """Acknowledged and saved, not yet verified; the rows vanish while no process looks."""
    machine.go_on(2)
    machine.append(4, PRICES)
    machine.flush()
    machine.deliver(3)
    machine.save_cursor()
    table = machine.server.tables[PRICES.table]
    for key in list(table.rows)[-4:]:
        del table.rows[key]
    machine.crash(b"")


def write_is_torn(machine: DeliveryMachine) -> None:
    """The process ends in the middle of a line; the next one goes on in the same file."""
    machine.go_on(2)
    machine.crash(b"1700000000000005,1,2")
    machine.go_on(2)


SCENARIOS: tuple[Scenario, ...] = (
    rows_vanish,
    database_is_another_one,
    table_is_made_again,
    older_copy_is_restored,
    server_restarts_with_a_loss,
    server_restarts_with_a_loss_that_grows_over,
    table_is_suspended_and_skips,
    answer_is_lost,
    request_is_lost_and_the_process_dies,
    power_fails_before_the_sync,
    tables_lose_their_keys,
    process_dies_after_a_loss_was_not_seen,
    write_is_torn,
)


@pytest.mark.parametrize("batch_max_rows", [2, 50_000])
@pytest.mark.parametrize("applies_at_once", [True, False])
@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.__name__)
def test_the_product_survives(scenario: Scenario, applies_at_once: bool, batch_max_rows: int) -> None:
    """With all of its rules, every scenario ends in equal rows."""
    play(scenario, applies_at_once=applies_at_once, batch_max_rows=batch_max_rows)


# What is taken out


def no_row_verification(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(inspector, "lanes_with_missing_rows", lambda *_: [])


def _without(patch: pytest.MonkeyPatch, blind: Callable[[ServerMark, ServerFacts], ServerFacts]) -> None:
    def rewind_of(mark: ServerMark, facts: ServerFacts, table: str) -> tuple[Rewind, str]:
        return checks.rewind_of(mark, blind(mark, facts), table)

    patch.setattr(inspector, "rewind_of", rewind_of)


def no_look_at_the_instance(patch: pytest.MonkeyPatch) -> None:
    _without(patch, lambda mark, facts: _replaced(facts, instance=mark.instance, started=mark.started))


def no_look_at_the_folder(patch: pytest.MonkeyPatch) -> None:
    _without(patch, lambda mark, facts: _tables(facts, mark, "directory"))


def no_look_at_the_transaction(patch: pytest.MonkeyPatch) -> None:
    _without(patch, lambda mark, facts: _tables(facts, mark, "transaction"))


def no_look_at_the_start(patch: pytest.MonkeyPatch) -> None:
    _without(patch, lambda mark, facts: _replaced(facts, started=mark.started))
    no_row_verification(patch)  # which would find it too, later


def _replaced(facts: ServerFacts, **fields: Any) -> ServerFacts:
    changed = copy.copy(facts)
    for name, value in fields.items():
        object.__setattr__(changed, name, value)
    return changed


def _tables(facts: ServerFacts, mark: ServerMark, name: str) -> ServerFacts:
    tables = {}
    for table, found in facts.tables.items():
        tables[table] = copy.copy(found)
        if table in mark.tables:
            object.__setattr__(tables[table], name, getattr(mark.tables[table], name))
    return _replaced(facts, tables=tables)


def no_rewind_of_a_resumed_table(patch: pytest.MonkeyPatch) -> None:
    rewind = Inspector._rewind
    patch.setattr(Inspector, "_rewind", lambda self, facts, _resumed: rewind(self, facts, []))
    no_row_verification(patch)


def verified_with_the_acknowledgement(patch: pytest.MonkeyPatch) -> None:
    acknowledged = Outbox.acknowledged

    def trusting(self: Outbox, lane: Lane, position: Any) -> None:
        acknowledged(self, lane, position)
        lane.verified = position

    patch.setattr(Outbox, "acknowledged", trusting)


def no_dedup_keys_wanted(patch: pytest.MonkeyPatch) -> None:
    find = checks._fault

    def find_others(table: Any, stream: Any) -> Any:
        fault = find(table, stream)
        return None if fault is not None and fault.kind == "dedup" else fault

    patch.setattr(checks, "_fault", find_others)


def cursor_before_the_acknowledgement(patch: pytest.MonkeyPatch) -> None:
    post = Courier._post

    def early(self: Courier, batch: Any) -> Outcome:
        for part in batch.slices:
            part.lane.window.add(part.encoded)
            self.outbox.acknowledged(part.lane, part.end)
        self.outbox.save_due(all_now=True)
        return post(self, batch)

    patch.setattr(Courier, "_post", early)
    verified_with_the_acknowledgement(patch)


def no_answer_counts_as_an_acknowledgement(patch: pytest.MonkeyPatch) -> None:
    post = Courier._post

    def hopeful(self: Courier, batch: Any) -> Outcome:
        outcome = post(self, batch)
        return Acknowledged() if isinstance(outcome, Maybe) else outcome

    patch.setattr(Courier, "_post", hopeful)
    verified_with_the_acknowledgement(patch)


def reading_past_the_durable_offset(patch: pytest.MonkeyPatch) -> None:
    read = StreamReader.read

    def greedy(self: StreamReader, *arguments: Any) -> Any:
        self.measure()
        return read(self, *arguments)

    def work(self: Courier) -> bool:
        for lane in self.outbox.lanes():
            self.outbox.mark_waiting(lane)
        return done(self)

    done = Courier.work
    patch.setattr(Courier, "work", work)
    patch.setattr(StreamReader, "read", greedy)


def restart_goes_on_where_it_was_acknowledged(patch: pytest.MonkeyPatch) -> None:
    make = Outbox._lane

    def trusting(self: Outbox, session_id: str, stream: Any, symbol: str | None, path: Any) -> Lane | None:
        known = symbol is not None and (stream.name, symbol) in self.sessions[session_id].lanes
        lane = make(self, session_id, stream, symbol, path)
        saved = self.sessions[session_id].saved.get((stream.name, symbol))
        if lane is not None and saved is not None and not known and lane.acknowledged != START:
            lane.acknowledged = lane.verified = saved.acknowledged
        return lane

    patch.setattr(Outbox, "_lane", trusting)


def torn_lines_stay(patch: pytest.MonkeyPatch) -> None:
    from tests.storage.test_delivery_machine import QuickFiles

    patch.setattr(QuickFiles, "truncate", lambda *_: None)


MUTATIONS: tuple[tuple[Mutation, Scenario], ...] = (
    (no_row_verification, rows_vanish),
    (no_look_at_the_instance, database_is_another_one),
    (no_look_at_the_folder, table_is_made_again),
    (no_look_at_the_transaction, older_copy_is_restored),
    (no_look_at_the_start, server_restarts_with_a_loss_that_grows_over),
    (no_rewind_of_a_resumed_table, table_is_suspended_and_skips),
    (verified_with_the_acknowledgement, server_restarts_with_a_loss_that_grows_over),
    (no_dedup_keys_wanted, tables_lose_their_keys),
    (cursor_before_the_acknowledgement, request_is_lost_and_the_process_dies),
    (no_answer_counts_as_an_acknowledgement, request_is_lost_and_the_process_dies),
    (reading_past_the_durable_offset, power_fails_before_the_sync),
    (restart_goes_on_where_it_was_acknowledged, process_dies_after_a_loss_was_not_seen),
    (torn_lines_stay, write_is_torn),
)


@pytest.mark.parametrize(("mutation", "scenario"), MUTATIONS, ids=lambda part: part.__name__)
def test_a_rule_that_is_taken_out_is_missed(
    mutation: Mutation, scenario: Scenario, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In at least one of the ways in which a server applies and batches are cut."""
    mutation(monkeypatch)
    outcomes: list[bool] = []
    for applies_at_once, batch_max_rows in ((True, 50_000), (False, 50_000), (False, 2)):
        try:
            play(scenario, applies_at_once=applies_at_once, batch_max_rows=batch_max_rows)
        except Exception:  # noqa: BLE001 - however the mutant dies, it was noticed
            outcomes.append(False)
        else:
            outcomes.append(True)
    assert not all(outcomes), f"{mutation.__name__} was not noticed"


def test_every_scenario_is_needed_by_a_rule_or_kept_for_the_product() -> None:
    """No play is listed twice, and each mutation names one that is played."""
    assert len(set(SCENARIOS)) == len(SCENARIOS)
    played: Sequence[Scenario] = [scenario for _, scenario in MUTATIONS]
    assert set(played) <= set(SCENARIOS)
