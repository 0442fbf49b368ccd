"""Files are written whole or not at all, and what killed writers left is removed."""

import os
from pathlib import Path

import pytest

from braincog_transformers.files import clear_temporary, write_whole


def test_temporary_files_of_killed_writers_are_removed_and_those_of_living_ones_stay(tmp_path):
    dead, alive = tmp_path / ".summary.csv.99999999.tmp", tmp_path / f".report.html.{os.getppid()}.tmp"
    other = [tmp_path / name for name in ("notes.tmp", ".hidden", "summary.csv")]
    for path in (dead, alive, *other):
        path.touch()
    clear_temporary(tmp_path)
    assert sorted(tmp_path.iterdir()) == sorted([alive, *other])


def test_what_is_written_whole_is_recognised_as_temporary(tmp_path):
    def killed(beside: Path) -> None:
        beside.write_text("half")
        clear_temporary(tmp_path)
        assert not beside.exists()
        beside.write_text("whole")

    write_whole(tmp_path / "file", killed)
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_failing_write_keeps_the_old_file(tmp_path):
    path = tmp_path / "last.pth.tar"
    path.write_text("old")

    def fail(beside):
        beside.write_text("half")
        raise OSError("disk full")

    with pytest.raises(OSError, match="disk full"):
        write_whole(path, fail)
    assert path.read_text() == "old"
    assert list(tmp_path.iterdir()) == [path]
