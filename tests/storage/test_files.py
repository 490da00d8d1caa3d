"""The real file system does what the log relies on."""

from __future__ import annotations

import errno
import os
from pathlib import Path

import pytest

from collector.storage.files import Files, OperatingSystem


@pytest.fixture
def files() -> Files:
    return OperatingSystem()


def test_a_file_is_made_readable_for_the_group_and_nobody_else(files: Files, tmp_path: Path) -> None:
    """Mode 0640 in a folder of 0750, whatever the process's own mask allows."""
    folder = tmp_path / "a" / "b"
    files.make_folder(folder)
    fd = files.open_append(folder / "x")
    files.close(fd)
    assert (folder / "x").stat().st_mode & 0o777 == 0o640
    assert folder.stat().st_mode & 0o777 == (tmp_path / "a").stat().st_mode & 0o777 == 0o750


def test_making_a_folder_that_exists_does_nothing(files: Files, tmp_path: Path) -> None:
    """Nor does making it twice."""
    files.make_folder(tmp_path / "a")
    files.make_folder(tmp_path / "a")


def test_writes_go_to_the_end_and_reads_to_where_they_are_asked(files: Files, tmp_path: Path) -> None:
    """Truncating in between moves the end."""
    fd = files.open_append(tmp_path / "x")
    try:
        assert files.write(fd, b"hello") == 5
        files.truncate(fd, 2)
        assert files.write(fd, memoryview(b"ya")) == 2
        assert files.size(fd) == 4
        assert files.read(fd, 10, 1) == b"eya"
    finally:
        files.close(fd)


def test_a_symbolic_link_is_not_written_through(files: Files, tmp_path: Path) -> None:
    """It could lead out of the data directory."""
    (tmp_path / "link").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(OSError, match=os.strerror(errno.ELOOP)):
        files.open_append(tmp_path / "link")


def test_looking_at_a_path_tells_whether_it_is_still_the_same_file(files: Files, tmp_path: Path) -> None:
    """A file in place of another has another inode."""
    (tmp_path / "x").write_bytes(b"abc")
    inode, size = files.look(tmp_path / "x")
    (tmp_path / "x").rename(tmp_path / "old")
    (tmp_path / "x").write_bytes(b"abc")
    assert size == 3
    assert files.look(tmp_path / "x")[0] != inode
    with pytest.raises(FileNotFoundError):
        files.look(tmp_path / "y")


def test_a_folder_that_is_missing_has_no_names(files: Files, tmp_path: Path) -> None:
    """One that exists has them sorted."""
    (tmp_path / "b").touch()
    (tmp_path / "a").touch()
    assert files.names(tmp_path) == ["a", "b"]
    assert files.names(tmp_path / "none") == []


@pytest.mark.parametrize("count", [0, 1, 5, 20])
@pytest.mark.parametrize("whole_system", [True, False])
def test_any_number_of_files_is_synced(tmp_path: Path, count: int, whole_system: bool) -> None:
    """Open ones, closed ones and folders, with and without the system's call for all of them at once."""
    files = OperatingSystem()
    if not whole_system:
        files._syncfs = None
    fds = [files.open_append(tmp_path / f"{number}") for number in range(count)]
    (tmp_path / "closed").touch()
    files.sync(fds)
    files.sync_many(fds, [tmp_path / "closed", tmp_path])
    for fd in fds:
        files.close(fd)


def test_a_sync_reports_the_disk_before_what_never_reached_it(tmp_path: Path) -> None:
    """A missing file must not hide an error of another one."""
    files = OperatingSystem()
    read_end, write_end = os.pipe()
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
            files.sync([write_end, write_end])
        with pytest.raises(FileNotFoundError):
            files.sync_many([], [tmp_path / "none", tmp_path])
    finally:
        os.close(read_end)
        os.close(write_end)


def test_a_file_is_replaced_whole(files: Files, tmp_path: Path) -> None:
    """The temporary file is gone afterwards."""
    files.replace(tmp_path / "x", b"one")
    files.replace(tmp_path / "x", b"two")
    assert (tmp_path / "x").read_bytes() == b"two"
    assert files.names(tmp_path) == ["x"]
    files.rename(tmp_path / "x", tmp_path / "y")
    assert files.names(tmp_path) == ["y"]


def test_a_removed_file_is_gone_and_may_be_gone_before(files: Files, tmp_path: Path) -> None:
    """Removing twice is harmless."""
    (tmp_path / "x").touch()
    files.remove(tmp_path / "x")
    files.remove(tmp_path / "x")
    assert files.names(tmp_path) == []
