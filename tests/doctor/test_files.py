"""Whatever is wrong with a session's files is named, and mended where that is possible."""

from __future__ import annotations

import gzip
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.clock import ManualClock
from collector.doctor.files import SessionFiles, exchange_in, jumps, rebuilt_manifest
from collector.doctor.findings import mend_all
from collector.reading.verify import verify_session
from collector.session.manifest import load_manifest
from collector.storage.csv_log import CsvLog
from collector.storage.files import OperatingSystem
from collector.streams import PRICES

SYMBOL = "BTC_USDT"


def examine(patient: Any, **options: Any) -> list[Any]:
    return SessionFiles(patient.directory, files=OperatingSystem(), clock=ManualClock(), **options).examine()


def codes(cases: list[Any]) -> list[str]:
    return [each.finding.code for each in cases]


def cut(path: Path, size: int) -> None:
    os.truncate(path, path.stat().st_size + size)


def append(path: Path, content: bytes) -> None:
    with path.open("ab") as file:
        file.write(content)


def damage_cursor(patient: Any) -> None:
    path = patient.directory / "cursor.json"
    path.write_bytes(path.read_bytes()[:-9])


def compress_beside(patient: Any) -> None:
    path = patient.folder / "prices.000000000001.csv"
    path.with_name(path.name + ".gz").write_bytes(gzip.compress(path.read_bytes()))
    path.with_name(path.name + ".gz").chmod(0o640)


def foreign_cursor(patient: Any) -> None:
    path = patient.directory / "cursor.json"
    path.rename(patient.directory.parent / "elsewhere")
    from collector.storage.cursor import Cursor, save_cursor

    save_cursor(OperatingSystem(), patient.directory, Cursor("another", []))


def count_wrongly(patient: Any) -> None:
    patient.manifest.files[1].rows = 29
    patient.save()


def leave(patient: Any, name: str) -> None:
    path = patient.directory / name
    path.write_bytes(b"half")
    path.chmod(0o640)


def keep_first_rows(patient: Any) -> None:
    """Shorten the live file to whole rows, as a copy of an earlier moment would be."""
    lines = patient.live.read_bytes().splitlines(keepends=True)
    patient.live.write_bytes(b"".join(lines[:5]))


def test_a_healthy_session_has_no_finding(patient: Any) -> None:
    """Nor with its hashes compared."""
    assert codes(examine(patient, deep=True)) == []


@pytest.mark.parametrize(
    ("damage", "expected"),
    [
        pytest.param(lambda p: append(p.live, b"1700,1"), ["torn-tail"], id="torn tail"),
        pytest.param(lambda p: cut(p.live, -5), ["torn-tail", "rows-lost", "counts", "cursor-ahead"], id="torn row"),
        pytest.param(keep_first_rows, ["rows-lost", "counts", "cursor-ahead"], id="truncated"),
        pytest.param(lambda p: p.live.unlink(), ["rows-lost", "counts", "cursor-ahead"], id="deleted"),
        pytest.param(lambda p: (p.folder / "prices.000000000011.csv").unlink(), ["rows-lost", "counts"], id="hole"),
        pytest.param(damage_cursor, ["cursor-unreadable"], id="torn cursor"),
        pytest.param(foreign_cursor, ["cursor-unreadable"], id="foreign cursor"),
        pytest.param(lambda p: (p.directory / "cursor.json").unlink(), ["cursor-missing"], id="no cursor"),
        pytest.param(lambda p: (p.directory / "session.json").unlink(), ["manifest-missing"], id="no manifest"),
        pytest.param(lambda p: cut(p.directory / "session.json", -20), ["manifest-damaged"], id="half a manifest"),
        pytest.param(lambda p: leave(p, "session.json.tmp"), ["leftover"], id="temporary file"),
        pytest.param(lambda p: leave(p, "prices.csv.next"), ["leftover"], id="segment never begun"),
        pytest.param(compress_beside, ["leftover"], id="half compressed"),
        pytest.param(lambda p: leave(p, "prices.csv.damaged-1"), ["set-aside"], id="set aside"),
        pytest.param(lambda p: p.live.chmod(0o644), ["permissions"], id="readable by all"),
        pytest.param(lambda p: p.folder.chmod(0o770), ["permissions"], id="writable by the group"),
        pytest.param(count_wrongly, ["counts"], id="wrong count"),
    ],
)
def test_each_damage_is_named_and_mended(patient: Any, damage: Callable[[Any], object], expected: list[str]) -> None:
    """What can be mended is, and then the session opens and is proved; a note stays."""
    damage(patient)
    cases = examine(patient)
    assert codes(cases) == expected
    assert all(each.finding.problem.endswith(".") and each.finding.remedy for each in cases)
    mend_all(cases)
    again = examine(patient)
    mend_all(again)  # what came to light behind a lost manifest
    left = examine(patient)
    assert all(each.finding.weight == "note" for each in left), [each.finding for each in left]
    report = verify_session(patient.directory, None)
    assert all(part.agrees for part in report.streams), report.text()  # its candles were never made
    log = CsvLog(patient.directory, files=OperatingSystem())
    log.open(PRICES, SYMBOL)
    log.close()


def test_a_file_that_changed_since_the_end_is_found_by_its_hash(patient: Any) -> None:
    """One digit is enough; nobody but a copy can mend it."""
    path = patient.folder / "prices.000000000001.csv"
    path.write_bytes(path.read_bytes().replace(b",1.5,", b",1.6,", 1))
    assert codes(examine(patient)) == []
    cases = examine(patient, deep=True)
    assert codes(cases) == ["hash"]
    assert cases[0].mend is None


def test_a_file_that_is_no_csv_is_named(patient: Any) -> None:
    """It is for a person, with the place."""
    append(patient.live, b"no row at all\n")
    found = [each.finding for each in examine(patient) if each.finding.code == "unreadable"]
    assert "prices.csv" in found[0].problem


def test_a_running_session_is_left_in_peace(make_patient: Callable[..., Any]) -> None:
    """Its tail is being written, its temporary files are about to be renamed."""
    patient = make_patient("active")
    append(patient.live, b"1700,1")
    leave(patient, "session.json.tmp")
    assert codes(examine(patient, running=True)) == []
    assert codes(examine(patient)) == ["leftover", "torn-tail", "interrupted"]


def test_a_rebuilt_manifest_says_what_the_files_say(patient: Any) -> None:
    """Symbols, rows, numbers; and that it was made again."""
    manifest = rebuilt_manifest(patient.directory, 5)
    record = manifest.record("prices", SYMBOL)
    assert record is not None
    assert (record.rows, record.next_seq, record.path) == (30, 31, "BTC_USDT/prices.csv")
    assert (manifest.exchange, manifest.symbols, manifest.data_types) == ("sim", [SYMBOL], ["prices"])
    assert manifest.state == "failed"
    assert "made again" in manifest.reason


def test_nothing_is_written_without_being_asked(patient: Any) -> None:
    """An examination alone leaves every byte and every mode."""
    keep_first_rows(patient)
    damage_cursor(patient)
    leave(patient, "session.json.tmp")
    before = {path: (path.stat().st_mode, path.stat().st_mtime_ns) for path in patient.directory.rglob("*")}
    examine(patient, deep=True)
    assert before == {path: (path.stat().st_mode, path.stat().st_mtime_ns) for path in patient.directory.rglob("*")}
    assert load_manifest(patient.directory).state == "completed"


def test_the_exchange_is_in_a_generated_id_only() -> None:
    """Any other id tells nothing."""
    assert exchange_in("20261121-081500-binance_futures-7f3a") == "binance_futures"
    assert exchange_in("my-own-session-id") == "unknown"


@given(st.sets(st.integers(1, 60)))
def test_jumps_are_exactly_the_missing_numbers(present: set[int]) -> None:
    """Between the first number and the last."""
    seqs = sorted(present)
    missing = {n for first, last in jumps(0, seqs) for n in range(first, last + 1)}
    assert missing == set(range(1, (seqs[-1] if seqs else 0) + 1)) - present
