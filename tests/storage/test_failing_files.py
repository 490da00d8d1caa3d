"""The file system that fails does so where it was told to, and nowhere else."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from collector.storage.failing_files import FailingFiles
from collector.storage.files import OperatingSystem


def test_only_the_chosen_calls_of_an_operation_fail(tmp_path: Path) -> None:
    """The next one, then none."""
    files = FailingFiles(OperatingSystem())
    files.fail_next("replace", errno.ENOSPC)
    with pytest.raises(OSError, match="space"):
        files.replace(tmp_path / "x", b"x")
    assert not (tmp_path / "x").exists()
    files.replace(tmp_path / "x", b"x")
    assert (files.calls, files.failed) == (["replace", "replace"], ["replace"])


@pytest.mark.parametrize(("for_good", "names"), [(False, ["a", "c"]), (True, ["a"])])
def test_the_nth_operation_fails_once_or_for_good(tmp_path: Path, for_good: bool, names: list[str]) -> None:
    """Whatever operation that is."""
    files = FailingFiles(OperatingSystem())
    files.fail_at(2, errno.EIO, for_good=for_good)
    for name in ("a", "b", "c"):
        try:
            files.replace(tmp_path / name, b"")
        except OSError as error:
            assert error.errno == errno.EIO
    assert OperatingSystem().names(tmp_path) == names


def test_a_write_can_be_cut_short(tmp_path: Path) -> None:
    """As by a disk that is nearly full."""
    files = FailingFiles(OperatingSystem())
    fd = files.open_append(tmp_path / "x")
    files.shorten_next_write(2)
    assert files.write(fd, b"hello") == 2
    assert files.write(fd, b"llo") == 3
    files.close(fd)


def test_a_healed_system_does_not_fail(tmp_path: Path) -> None:
    """Whatever was planned is forgotten."""
    files = FailingFiles(OperatingSystem())
    files.fail_next("replace", errno.EIO, times=3)
    files.fail_at(1, errno.EIO, for_good=True)
    files.heal()
    files.replace(tmp_path / "x", b"x")
