"""A data directory and a real server, examined together."""

from __future__ import annotations

import base64
import json
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from collector.doctor.examination import Examination
from collector.errors import SessionNotFound

Make = Callable[..., Any]


def send(server: Any, body: bytes) -> None:
    token = base64.b64encode(f"{server.user}:{server.password}".encode()).decode()
    request = urllib.request.Request(f"{server.http_url}/write?precision=u", body, {"Authorization": f"Basic {token}"})
    with urllib.request.urlopen(request, timeout=30) as answer:
        assert answer.status in (200, 204)


def wait_rows(server: Any, session_id: str, rows: int) -> None:
    with server.connect() as connection:
        for _ in range(2000):
            found = connection.rows("SELECT count() FROM tick_prices WHERE session_id = %s", session_id)
            if found[0][0] == rows:
                return
    pytest.fail("the rows did not show")


def codes(diagnosis: Any) -> list[str]:
    return [finding.code for finding in diagnosis.findings]


def test_a_delivered_session_is_healthy(patient: Any, questdb: Any) -> None:
    """Files, tables and counts."""
    send(questdb, patient.body())
    wait_rows(questdb, patient.session_id, 30)
    diagnosis = Examination(patient.data_dir, settings=questdb.settings).run()
    assert codes(diagnosis) == []
    assert diagnosis.healthy
    assert diagnosis.examined == 1


def test_rows_that_questdb_lacks_are_sent_again(patient: Any, questdb: Any) -> None:
    """Without a daemon by setting the cursor aside; by the daemon where one runs."""
    send(questdb, b"".join(patient.body().splitlines(keepends=True)[:20]))
    wait_rows(questdb, patient.session_id, 20)
    asked: list[str] = []
    beside = Examination(patient.data_dir, settings=questdb.settings, resend=asked.append).run(fix=True)
    assert codes(beside) == ["rows-missing"]
    assert "10 of 30" in beside.findings[0].problem
    assert asked == [patient.session_id]

    offline = Examination(patient.data_dir, settings=questdb.settings).run(patient.session_id, fix=True)
    assert offline.healthy
    assert not (patient.directory / "cursor.json").exists()
    assert (patient.directory / "cursor.json.damaged-1").exists()


def test_rows_too_many_are_for_a_person(patient: Any, questdb: Any) -> None:
    """Nothing is deleted from a database."""
    send(questdb, patient.body() + patient.body().splitlines(keepends=True)[0].replace(b"seq=1i", b"seq=99i"))
    wait_rows(questdb, patient.session_id, 31)
    diagnosis = Examination(patient.data_dir, settings=questdb.settings).run(fix=True)
    assert codes(diagnosis) == ["rows-extra"]
    assert not diagnosis.healthy


def test_tables_are_made_whole(patient: Any, questdb_server: Make) -> None:
    """A dropped one, one without dedup keys, a suspended one."""
    server = questdb_server()
    send(server, patient.body())
    wait_rows(server, patient.session_id, 30)
    with server.connect() as connection:
        for statement in (
            "DROP TABLE tick_orderbook",
            "ALTER TABLE aggregated_ohlcv DEDUP DISABLE",
            "ALTER TABLE collection_gaps SUSPEND WAL",
        ):
            connection.run_text(statement)
    examination = Examination(patient.data_dir, settings=server.settings)
    for _ in range(500):  # a change of the dedup keys is applied in the server's own time
        found = examination.run()
        if len(found.findings) == 3:
            break
    assert sorted(codes(found)) == ["table-dedup", "table-missing", "table-suspended"]
    mended = examination.run(fix=True)
    assert [finding.failure for finding in mended.findings] == ["", "", ""]
    for _ in range(500):
        if not (again := examination.run()).findings:
            break
    assert again.healthy, again.text()


def test_a_server_that_does_not_answer_is_a_finding(patient: Any, questdb: Any, free_port: int) -> None:
    """The files are examined all the same."""
    settings = questdb.settings.model_copy(update={"ilp_port": free_port})
    (patient.directory / "session.json.tmp").touch(mode=0o640)
    assert codes(Examination(patient.data_dir, settings=settings).run()) == ["leftover", "database"]


def test_a_lost_manifest_takes_its_exchange_from_questdb(patient: Any, questdb: Any) -> None:
    """The rows know whose they are."""
    send(questdb, patient.body().replace(b"exchange=sim", b"exchange=elsewhere"))
    wait_rows(questdb, patient.session_id, 30)
    (patient.directory / "session.json").unlink()
    diagnosis = Examination(patient.data_dir, settings=questdb.settings).run(fix=True)
    assert [(f.code, f.fixed) for f in diagnosis.findings] == [("manifest-missing", True)]
    assert json.loads((patient.directory / "session.json").read_text())["exchange"] == "elsewhere"


def test_a_session_that_does_not_exist_is_an_error_with_the_nearest(patient: Any) -> None:
    """As everywhere."""
    with pytest.raises(SessionNotFound, match="no session"):
        Examination(patient.data_dir).run(patient.session_id[:-1] + "z")


def test_sessions_that_run_are_not_counted_in_questdb(make_patient: Make, questdb: Any) -> None:
    """Their rows are under way."""
    patient = make_patient("active")
    running = Examination(patient.data_dir, settings=questdb.settings, running=[patient.session_id]).run()
    assert codes(running) == []


def test_a_directory_that_cannot_be_read_is_one_finding(patient: Any, tmp_path: Path) -> None:
    """The other sessions are examined."""
    (patient.data_dir / "session_broken").mkdir(mode=0o750)
    (patient.data_dir / "session_broken" / "session.json").mkdir(mode=0o750)
    assert codes(Examination(patient.data_dir).run()) == ["manifest-damaged"]
