"""The log keeps every row that it said it kept, and knows what it lost."""

from __future__ import annotations

import errno
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from collector.errors import LogError, UsageError
from collector.storage.csv_log import (
    Commit,
    CsvLog,
    StreamFile,
    Write,
    closed_name,
    closed_segments,
    symbol_folder,
)
from collector.storage.failing_files import FailingFiles
from collector.storage.files import OperatingSystem
from collector.streams import GAPS, PRICES

OpenLog = Callable[..., CsvLog]


def line(seq: int) -> bytes:
    return f"1700000000000000,1.5,2,3.0,buy,{seq + 100},{seq},1700000000000001,ws,,\n".encode()


def lines(first: int, last: int) -> bytes:
    return b"".join(line(seq) for seq in range(first, last + 1))


def add(log: CsvLog, file: StreamFile, count: int) -> None:
    content = lines(file.next_seq, file.next_seq + count - 1)
    log.append([Write(file, content, count)])


def seqs(log: CsvLog, file: StreamFile) -> list[int]:
    return [int(row[PRICES.seq_index]) for row in log.rows(file)]


@pytest.fixture
def files() -> FailingFiles:
    return FailingFiles(OperatingSystem())


@pytest.fixture
def directory(tmp_path: Path) -> Path:
    return tmp_path / "session_x"


@pytest.fixture
def open_log(directory: Path, files: FailingFiles) -> OpenLog:
    def open_(max_open_files: int = 256) -> CsvLog:
        return CsvLog(directory, files=files, max_open_files=max_open_files)

    return open_


@pytest.fixture
def log(open_log: OpenLog) -> CsvLog:
    return open_log()


@pytest.fixture
def file(log: CsvLog) -> StreamFile:
    return log.open(PRICES, "BTC_USDT")


class TestNames:
    def test_a_symbol_that_is_safe_is_its_own_folder(self) -> None:
        """BTC_USDT is BTC_USDT."""
        assert symbol_folder("BTC_USDT") == "BTC_USDT"

    @given(st.text(min_size=1, max_size=20))
    def test_whatever_a_symbol_holds_its_folder_is_one_plain_name(self, symbol: str) -> None:
        """No separator, no dot, nothing but a few ASCII characters comes out of any text."""
        try:
            name = symbol_folder(symbol)
        except (UsageError, UnicodeEncodeError):
            return
        assert set(name) <= set("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789_-%")

    @pytest.mark.parametrize("symbol", ["..", ".", "a/b", "CON", "nul", "\0"])
    def test_dangerous_names_are_changed(self, symbol: str) -> None:
        """Names that mean something to a file system are encoded."""
        assert symbol_folder(symbol) != symbol
        assert "/" not in symbol_folder(symbol)

    @pytest.mark.parametrize("symbol", ["", "A" * 201])
    def test_a_symbol_that_cannot_name_a_folder_is_refused(self, symbol: str) -> None:
        """An empty one, and one longer than file names may be."""
        with pytest.raises(UsageError):
            symbol_folder(symbol)

    def test_closed_segments_are_found_in_the_order_of_their_rows(self) -> None:
        """Other files that stand beside them are no segments."""
        names = ["prices.csv", "prices.000000000100.csv", "prices.000000000001.csv", "prices.csv.next", "ohlcv.csv"]
        assert closed_segments(names, PRICES) == [
            (1, "prices.000000000001.csv"),
            (100, "prices.000000000100.csv"),
        ]
        assert closed_name(PRICES, 100) == "prices.000000000100.csv"


class TestAppending:
    def test_a_new_file_has_its_header(self, log: CsvLog, file: StreamFile, directory: Path) -> None:
        """Files of a symbol stand in its folder, with mode 0640 in one of 0750."""
        assert file.path == directory / "BTC_USDT" / "prices.csv"
        assert file.path.read_text() == PRICES.header
        assert file.path.stat().st_mode & 0o777 == 0o640
        assert file.path.parent.stat().st_mode & 0o777 == 0o750
        assert (file.next_seq, file.rows, file.last_row) == (1, 0, "")

    def test_rows_are_committed_once_they_are_durable(self, log: CsvLog, file: StreamFile) -> None:
        """A commit says up to which byte, row and number the replicator may read."""
        add(log, file, 3)
        assert file.durable < file.size
        size = len(PRICES.header) + len(lines(1, 3))
        assert log.sync() == [Commit(file, size, 3, 3, 1)]
        assert (file.durable, file.size, file.last_row) == (size, size, line(3).decode().rstrip())

    def test_what_did_not_grow_is_not_committed_again(self, log: CsvLog, file: StreamFile) -> None:
        """Neither without rows, nor when another file got some."""
        assert log.sync() == []
        other = log.open(PRICES, "ETH_USDT")
        add(log, file, 1)
        log.sync()
        add(log, other, 1)
        assert [commit.file for commit in log.sync()] == [other]

    def test_a_session_file_stands_in_the_session_directory(self, log: CsvLog, directory: Path) -> None:
        """The ledger belongs to no symbol."""
        assert log.open(GAPS).path == directory / "gaps.csv"

    def test_the_same_file_is_opened_once(self, log: CsvLog, file: StreamFile) -> None:
        """Whoever asks again gets the same one."""
        assert log.open(PRICES, "BTC_USDT") is file

    def test_a_short_write_is_gone_on_with(self, log: CsvLog, file: StreamFile, files: FailingFiles) -> None:
        """A system that takes only part of the rows at once is given the rest."""
        files.shorten_next_write(5)
        add(log, file, 2)
        assert file.path.read_bytes() == PRICES.header.encode() + lines(1, 2)

    def test_a_failed_append_leaves_whole_rows_only(self, log: CsvLog, file: StreamFile, files: FailingFiles) -> None:
        """On a full disk the torn line is cut, and the same rows go in once there is room."""
        add(log, file, 1)
        files.shorten_next_write(7)
        write = Write(file, lines(2, 3), 2)
        calls = len(files.calls)
        files.fail_at(3, errno.ENOSPC)
        with pytest.raises(LogError) as caught:
            log.append([write])
        assert files.calls[calls:] == ["look", "write", "write", "truncate"]
        assert not caught.value.permanent
        assert "room" in caught.value.hint
        assert not write.written
        assert file.path.read_bytes() == PRICES.header.encode() + lines(1, 1)
        log.append([write])
        assert write.written
        assert seqs(log, file) == [1, 2, 3]

    def test_a_torn_line_that_could_not_be_cut_is_cut_before_the_next_append(
        self, log: CsvLog, file: StreamFile, files: FailingFiles
    ) -> None:
        """Even where cutting back failed too."""
        files.shorten_next_write(7)
        files.fail_at(3, errno.EIO, for_good=True)
        with pytest.raises(LogError):
            add(log, file, 1)
        assert not file.path.read_bytes().endswith(b"\n")
        files.heal()
        add(log, file, 1)
        assert file.path.read_bytes() == PRICES.header.encode() + lines(1, 1)

    @pytest.mark.parametrize("number", [errno.EACCES, errno.EROFS, errno.EPERM])
    def test_errors_that_cannot_pass_are_permanent(
        self, log: CsvLog, file: StreamFile, files: FailingFiles, number: int
    ) -> None:
        """Waiting doesn't help against missing rights."""
        files.fail_next("write", number)
        with pytest.raises(LogError) as caught:
            add(log, file, 1)
        assert caught.value.permanent

    def test_other_files_are_written_though_one_fails(self, log: CsvLog, file: StreamFile, files: FailingFiles) -> None:
        """Each write says whether it went in."""
        other = log.open(PRICES, "ETH_USDT")
        writes = [Write(file, line(1), 1), Write(other, line(1), 1)]
        files.fail_next("write", errno.EIO)
        with pytest.raises(LogError):
            log.append(writes)
        assert [write.written for write in writes] == [False, True]

    def test_there_can_be_more_files_than_descriptors(self, open_log: OpenLog) -> None:
        """Forty files with four descriptors: each row is in its file, durable."""
        log = open_log(max_open_files=4)
        opened = [log.open(PRICES, f"S{number}_USDT") for number in range(40)]
        for _ in range(3):
            log.append([Write(file, line(file.next_seq), 1) for file in opened])
            assert len(log.sync()) == 40
        assert all(file.path.read_bytes() == PRICES.header.encode() + lines(1, 3) for file in opened)
        assert (log.open_files, log.closed_early) == (4, 4 * 40 - 4)

    def test_a_process_without_free_descriptors_gets_some_back(self, open_log: OpenLog, files: FailingFiles) -> None:
        """The log closes some of its own and tries again at once."""
        log = open_log()
        first = log.open(PRICES, "A_B")
        files.fail_next("open_append", errno.EMFILE)
        second = log.open(PRICES, "C_D")
        log.append([Write(first, line(1), 1), Write(second, line(1), 1)])
        assert len(log.sync()) == 2


class TestRecovering:
    def test_rows_and_numbers_are_learnt_from_the_file(self, log: CsvLog, file: StreamFile, open_log: OpenLog) -> None:
        """The next process goes on behind the last row, and commits what it found at its first sync."""
        add(log, file, 5)
        log.sync()
        log.close()
        log = open_log()
        file = log.open(PRICES, "BTC_USDT")
        assert (file.rows, file.next_seq, file.lost) == (5, 6, [])
        assert [(commit.rows, commit.last_seq) for commit in log.sync()] == [(5, 5)]
        add(log, file, 1)
        assert seqs(log, file) == [1, 2, 3, 4, 5, 6]

    @pytest.mark.parametrize("kept", range(1, len(line(3))))
    def test_a_torn_last_line_is_cut(self, log: CsvLog, file: StreamFile, open_log: OpenLog, kept: int) -> None:
        """Wherever the crash cut it."""
        add(log, file, 3)
        log.close()
        content = file.path.read_bytes()
        file.path.write_bytes(content[: len(content) - len(line(3)) + kept])
        log = open_log()
        file = log.open(PRICES, "BTC_USDT")
        assert (file.rows, file.next_seq) == (2, 3)
        assert file.path.read_bytes() == PRICES.header.encode() + lines(1, 2)
        assert [incident.kind for incident in log.take_incidents()] == ["torn"]

    @pytest.mark.parametrize("size", range(len(PRICES.header)))
    def test_a_torn_header_is_written_again(self, directory: Path, log: CsvLog, size: int) -> None:
        """A crash between making a file and writing its header leaves part of it."""
        (directory / "BTC_USDT").mkdir(parents=True)
        (directory / "BTC_USDT" / "prices.csv").write_text(PRICES.header[:size])
        file = log.open(PRICES, "BTC_USDT")
        add(log, file, 1)
        assert file.path.read_bytes() == PRICES.header.encode() + line(1)

    def test_a_tail_of_zeros_is_cut(self, log: CsvLog, file: StreamFile, open_log: OpenLog) -> None:
        """A power loss can leave a file longer than what was written, filled with zeros."""
        add(log, file, 3)
        log.close()
        with file.path.open("ab") as handle:
            handle.write(b"\0" * 5000 + b"\n" + b"\0" * 300_000 + b"\n\0\0")
        file = open_log().open(PRICES, "BTC_USDT")
        assert (file.rows, file.next_seq) == (3, 4)
        assert file.path.read_bytes() == PRICES.header.encode() + lines(1, 3)

    def test_long_files_are_counted_whole(self, log: CsvLog, file: StreamFile, open_log: OpenLog) -> None:
        """Files of more than one chunk are counted, and read back, row by row."""
        add(log, file, 40_000)
        log.close()
        log = open_log()
        file = log.open(PRICES, "BTC_USDT")
        assert (file.rows, file.next_seq, file.lost) == (40_000, 40_001, [])
        assert seqs(log, file) == list(range(1, 40_001))
        tail = log.tail_rows(file, lambda row: int(row[PRICES.seq_index]) > 39_000)
        assert [int(row[PRICES.seq_index]) for row in tail][-1000:] == list(range(39_001, 40_001))

    def test_numbers_that_others_know_of_are_not_used_again(
        self, log: CsvLog, file: StreamFile, open_log: OpenLog
    ) -> None:
        """A file that was shortened while nobody ran goes on behind the database's highest number."""
        add(log, file, 10)
        log.close()
        file.path.write_bytes(PRICES.header.encode() + lines(1, 4))
        log = open_log()
        file = log.open(PRICES, "BTC_USDT", known_seq=10)
        assert (file.next_seq, file.lost) == (11, [(5, 10)])
        add(log, file, 1)
        assert seqs(log, file) == [1, 2, 3, 4, 11]
        log.close()
        file = open_log().open(PRICES, "BTC_USDT", known_seq=10)
        assert (file.next_seq, file.rows, file.lost) == (12, 5, [(5, 10)])

    def test_a_file_that_is_gone_goes_on_behind_its_numbers(self, log: CsvLog, open_log: OpenLog) -> None:
        """Even where nothing of it is left."""
        file = log.open(PRICES, "BTC_USDT", known_seq=7)
        assert (file.next_seq, file.lost) == (8, [(1, 7)])
        add(log, file, 1)
        log.close()
        assert open_log().open(PRICES, "BTC_USDT").next_seq == 9

    def test_lines_taken_out_of_the_middle_are_named(self, log: CsvLog, file: StreamFile, open_log: OpenLog) -> None:
        """Row counts are checked against the numbers."""
        add(log, file, 6)
        log.close()
        file.path.write_bytes(PRICES.header.encode() + line(1) + line(4) + line(6))
        log = open_log()
        file = log.open(PRICES, "BTC_USDT")
        assert (file.rows, file.next_seq, file.lost) == (3, 7, [(2, 3), (5, 5)])
        assert [incident.kind for incident in log.take_incidents()] == ["damaged"]

    def test_a_file_of_other_columns_is_set_aside(self, directory: Path, log: CsvLog) -> None:
        """It is kept under another name, and not written into."""
        folder = directory / "BTC_USDT"
        folder.mkdir(parents=True)
        (folder / "prices.csv").write_text("timestamp,price\n1,2\n")
        file = log.open(PRICES, "BTC_USDT")
        assert file.path.read_text() == PRICES.header
        assert (folder / "prices.csv.damaged-1").read_text() == "timestamp,price\n1,2\n"

    def test_a_symbolic_link_is_refused(self, directory: Path, log: CsvLog, tmp_path: Path) -> None:
        """A link could lead rows to anywhere."""
        (directory / "BTC_USDT").mkdir(parents=True)
        (directory / "BTC_USDT" / "prices.csv").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(LogError) as caught:
            log.open(PRICES, "BTC_USDT")
        assert caught.value.permanent


class TestRotating:
    def test_a_closed_segment_carries_its_first_number(self, log: CsvLog, file: StreamFile, open_log: OpenLog) -> None:
        """The live one goes on with the next number, and all are read as one."""
        add(log, file, 3)
        closed = log.rotate(file)
        assert closed == file.path.with_name("prices.000000000001.csv")
        assert closed.read_bytes() == PRICES.header.encode() + lines(1, 3)
        assert file.path.read_text() == PRICES.header
        assert [(c.rows, c.last_seq, c.first_seq) for c in log.sync()] == [(3, 3, 4)]
        add(log, file, 2)
        assert [(c.rows, c.last_seq, c.first_seq) for c in log.sync()] == [(5, 5, 4)]
        assert seqs(log, file) == [1, 2, 3, 4, 5]
        log.close()
        file = open_log().open(PRICES, "BTC_USDT")
        assert (file.rows, file.next_seq, file.first_seq, file.lost) == (5, 6, 4, [])

    def test_a_segment_without_rows_is_not_closed(self, log: CsvLog, file: StreamFile) -> None:
        """There would be nothing in it."""
        assert log.rotate(file) is None

    def test_a_process_that_ends_behind_a_rotation_knows_its_numbers(
        self, log: CsvLog, file: StreamFile, open_log: OpenLog
    ) -> None:
        """They are in the closed segment, also where no live one was made any more."""
        add(log, file, 3)
        log.rotate(file)
        log.close()
        file.path.unlink()
        file = open_log().open(PRICES, "BTC_USDT")
        assert (file.rows, file.next_seq) == (3, 4)

    def test_a_segment_that_the_next_one_repeats_is_cut(self, log: CsvLog, file: StreamFile, open_log: OpenLog) -> None:
        """A disk error can leave rows in a segment that was given up, which then stand in the next one."""
        add(log, file, 3)
        log.rotate(file)
        add(log, file, 2)
        log.close()
        closed = file.path.with_name("prices.000000000001.csv")
        closed.write_bytes(PRICES.header.encode() + lines(1, 5))
        log = open_log()
        file = log.open(PRICES, "BTC_USDT")
        assert (file.rows, file.next_seq) == (5, 6)
        assert seqs(log, file) == [1, 2, 3, 4, 5]


class TestChangedByOthers:
    def test_a_deleted_file_is_made_again(self, log: CsvLog, file: StreamFile, open_log: OpenLog) -> None:
        """At the next append; what was in it is lost, and its numbers are not used again."""
        add(log, file, 3)
        log.sync()
        file.path.unlink()
        add(log, file, 2)
        log.sync()
        assert [(i.kind, i.lost) for i in log.take_incidents()] == [("damaged", (1, 3))]
        assert (seqs(log, file), file.rows) == ([4, 5], 2)
        log.close()
        assert open_log().open(PRICES, "BTC_USDT").next_seq == 6

    def test_rows_that_were_not_durable_yet_survive_a_deletion(self, log: CsvLog, file: StreamFile) -> None:
        """They are still in memory."""
        add(log, file, 3)
        log.sync()
        add(log, file, 1)
        file.path.unlink()
        add(log, file, 1)
        assert [commit.last_seq for commit in log.sync()] == [5]
        assert [i.lost for i in log.take_incidents()] == [(1, 3)]
        assert seqs(log, file) == [4, 5]

    def test_a_deleted_folder_is_made_again(self, log: CsvLog, file: StreamFile) -> None:
        """With the file in it."""
        add(log, file, 1)
        log.sync()
        file.path.unlink()
        file.path.parent.rmdir()
        add(log, file, 1)
        assert seqs(log, file) == [2]

    def test_a_shortened_file_is_closed_behind_what_is_left(self, log: CsvLog, file: StreamFile) -> None:
        """A torn line is cut; the lost rows are named exactly."""
        add(log, file, 5)
        log.sync()
        with file.path.open("r+b") as handle:
            handle.truncate(len(PRICES.header) + len(lines(1, 2)) + 9)
        add(log, file, 1)
        log.sync()
        assert [(i.kind, i.lost) for i in log.take_incidents()] == [("damaged", (3, 5))]
        assert seqs(log, file) == [1, 2, 6]
        assert file.rows == 3

    def test_a_file_replaced_by_an_older_copy_goes_on_behind_its_numbers(self, log: CsvLog, file: StreamFile) -> None:
        """As a restored backup does."""
        add(log, file, 2)
        log.sync()
        copy = file.path.read_bytes()
        add(log, file, 3)
        log.sync()
        file.path.rename(file.path.with_name("old"))
        file.path.write_bytes(copy)
        add(log, file, 1)
        assert [i.lost for i in log.take_incidents()] == [(3, 5)]
        assert seqs(log, file) == [1, 2, 6]

    def test_a_file_replaced_by_the_same_rows_loses_none(self, log: CsvLog, file: StreamFile) -> None:
        """As an editor does that saves a file without changing it."""
        add(log, file, 3)
        log.sync()
        copy = file.path.read_bytes()
        file.path.rename(file.path.with_name("old"))
        file.path.write_bytes(copy)
        add(log, file, 1)
        assert [i.lost for i in log.take_incidents()] == [None]
        assert seqs(log, file) == [1, 2, 3, 4]

    def test_a_file_replaced_by_something_else_is_set_aside(self, log: CsvLog, file: StreamFile) -> None:
        """It may be someone's work."""
        add(log, file, 2)
        log.sync()
        file.path.rename(file.path.with_name("old"))
        file.path.write_text("hello\n")
        add(log, file, 1)
        assert [i.lost for i in log.take_incidents()] == [(1, 2)]
        assert seqs(log, file) == [3]
        assert file.path.with_name("prices.csv.damaged-1").read_text() == "hello\n"

    def test_bytes_that_someone_appended_are_cut(self, log: CsvLog, file: StreamFile) -> None:
        """Between our rows there are only our rows."""
        add(log, file, 1)
        with file.path.open("ab") as handle:
            handle.write(b"hello")
        add(log, file, 1)
        assert seqs(log, file) == [1, 2]


class TestDiskErrors:
    @pytest.mark.parametrize("durable_rows", [0, 3])
    def test_a_failed_sync_moves_the_rows_to_a_new_segment(
        self, log: CsvLog, file: StreamFile, files: FailingFiles, durable_rows: int
    ) -> None:
        """A repeated sync could report success for pages that were dropped, so it is not asked again."""
        log.sync()
        if durable_rows:
            add(log, file, durable_rows)
            log.sync()
        add(log, file, 2)
        files.fail_next("sync_many", errno.EIO)
        calls = len(files.calls)
        commits = log.sync()
        assert files.calls[calls:].count("sync_many") == 1
        assert [(c.rows, c.last_seq, c.first_seq) for c in commits] == [
            (durable_rows + 2, durable_rows + 2, durable_rows + 1)
        ]
        assert [incident.kind for incident in log.take_incidents()] == ["suspect"]
        assert file.path.read_bytes() == PRICES.header.encode() + lines(durable_rows + 1, durable_rows + 2)
        assert seqs(log, file) == list(range(1, durable_rows + 3))
        add(log, file, 1)
        assert [c.last_seq for c in log.sync()] == [durable_rows + 3]

    def test_rows_wait_in_memory_until_a_new_segment_can_be_made(
        self, log: CsvLog, file: StreamFile, files: FailingFiles, open_log: OpenLog
    ) -> None:
        """Nothing is committed before, whatever operation fails, and nothing is written into the doubtful file."""
        log.sync()
        add(log, file, 2)
        log.sync()
        add(log, file, 2)
        files.fail_next("sync_many", errno.EIO)
        for operation in ("replace", "rename", "rename"):
            files.fail_next(operation, errno.ENOSPC)
            with pytest.raises(LogError):
                log.sync()
        with pytest.raises(LogError):
            files.fail_next("replace", errno.ENOSPC)
            add(log, file, 1)
        assert [c.last_seq for c in log.sync()] == [4]
        assert seqs(log, file) == [1, 2, 3, 4]
        log.close()
        assert open_log().open(PRICES, "BTC_USDT").next_seq == 5

    def test_commits_of_the_files_that_are_safe_come_after_all(
        self, log: CsvLog, file: StreamFile, files: FailingFiles
    ) -> None:
        """A sync that failed for one of them does not swallow the other's."""
        other = log.open(PRICES, "ETH_USDT")
        log.sync()
        add(log, file, 1)
        add(log, other, 1)
        files.fail_next("sync_many", errno.EIO)
        files.fail_next("replace", errno.ENOSPC)
        with pytest.raises(LogError):
            log.sync()
        assert {commit.file for commit in log.sync()} == {file, other}

    def test_a_sync_that_could_not_open_its_file_casts_no_doubt(
        self, log: CsvLog, file: StreamFile, files: FailingFiles
    ) -> None:
        """Without descriptors nothing reached the disk, so it can be asked again."""
        add(log, file, 1)
        files.fail_next("sync_many", errno.EMFILE)
        with pytest.raises(LogError):
            log.sync()
        assert [c.last_seq for c in log.sync()] == [1]
        assert log.take_incidents() == []

    @pytest.mark.parametrize("for_good", [False, True])
    @pytest.mark.parametrize("number", [errno.EIO, errno.ENOSPC, errno.EMFILE])
    def test_whichever_operation_fails_no_committed_row_is_lost_and_none_doubled(
        self, tmp_path: Path, number: int, for_good: bool
    ) -> None:
        """The first, the second, … the n-th operation fails, until a run in which none does."""
        for call in range(1, 200):
            files = FailingFiles(OperatingSystem())
            directory = tmp_path / f"{call}"
            log = CsvLog(directory, files=files, max_open_files=1)
            written: set[int] = set()
            committed = 0
            files.fail_at(call, number, for_good=for_good)
            try:
                file = log.open(PRICES, "BTC_USDT")
                other = log.open(PRICES, "ETH_USDT")
                for step in range(4):
                    content = line(file.next_seq) + line(file.next_seq + 1)
                    writes = [Write(file, content, 2), Write(other, line(other.next_seq), 1)]
                    log.append(writes)
                    written |= {file.next_seq - 1, file.next_seq - 2}
                    committed = max([committed, *(c.last_seq for c in log.sync() if c.file is file)])
                    if step == 2:
                        log.rotate(file)
            except LogError:
                pass
            log.close()
            failed = bool(files.failed)
            files.heal()
            log = CsvLog(directory, files=files)
            file = log.open(PRICES, "BTC_USDT")
            found = seqs(log, file)
            assert found == sorted(set(found)), call
            assert set(range(1, committed + 1)) <= set(found), call
            assert file.next_seq > max([*found, committed, 0])
            add(log, file, 1)
            assert log.sync()
            log.close()
            if not failed:
                return
        raise AssertionError("there was no run without a failure")


class TestReading:
    def test_rows_are_read_across_segments_from_the_end(self, log: CsvLog, file: StreamFile) -> None:
        """Back to a stretch that begins with a row that is not wanted."""
        add(log, file, 3)
        log.rotate(file)
        add(log, file, 3)
        log.rotate(file)
        add(log, file, 1)
        rows = log.tail_rows(file, lambda row: int(row[PRICES.seq_index]) >= 5)
        assert [int(row[PRICES.seq_index]) for row in rows] == [4, 5, 6, 7]
