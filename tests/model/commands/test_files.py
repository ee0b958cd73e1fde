"""Files that are written as a whole or not at all, and what a killed process left of them."""

import errno
import os
import stat
import subprocess
import sys

import pytest
from PIL import Image

from polarmask.common.files import TEMPORARY, remove_stale, write_whole, writing

GONE = 2**22 + 1  # above the largest number of a process on Linux


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_file_that_is_written_appears_at_the_end(tmp_path):
    path = tmp_path / "new" / "picture.png"
    with writing(path) as temporary:
        Image.new("RGB", (3, 2)).save(temporary)  # the format comes from the suffix
        assert temporary.parent == path.parent
        assert TEMPORARY.fullmatch(temporary.name)
        assert not path.exists()
    assert names(path.parent) == ["picture.png"]
    with Image.open(path) as picture:
        assert picture.size == (3, 2)
    assert path.stat().st_mode & 0o777 == 0o666 & ~os.umask(os.umask(0o22))


def test_a_file_system_that_cannot_flush_folders_is_written_to(tmp_path, monkeypatch):
    flush = os.fsync

    def of_files(descriptor):
        if stat.S_ISDIR(os.fstat(descriptor).st_mode):
            raise OSError(errno.EINVAL, "Invalid argument")
        flush(descriptor)

    monkeypatch.setattr(os, "fsync", of_files)
    write_whole(tmp_path / "file.txt", b"all of it")
    assert names(tmp_path) == ["file.txt"]


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt])
def test_an_error_while_writing_leaves_what_was_there(tmp_path, error):
    path = tmp_path / "file.txt"
    write_whole(path, b"before")

    def pieces():
        yield b"half"
        raise error

    with pytest.raises(error):
        write_whole(path, pieces())
    assert names(tmp_path) == ["file.txt"]
    assert path.read_bytes() == b"before"


def test_an_error_of_the_disk_names_the_file_that_was_asked_for(tmp_path):
    (tmp_path / "taken").mkdir()
    with pytest.raises(OSError, match=r"taken'$") as raised:
        write_whole(tmp_path / "taken", b"")
    assert raised.value.filename == str(tmp_path / "taken")
    assert names(tmp_path) == ["taken"]


def test_the_longest_name_of_a_file_can_be_written(tmp_path):
    for name in ("n" * 251 + ".txt", "é" * 125 + ".txt"):
        write_whole(tmp_path / name, b"x")
    assert len(names(tmp_path)) == 2


def test_temporary_files_of_dead_processes_are_removed_and_no_others(tmp_path):
    other = subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE)
    try:
        stale = [f".last.{GONE}-0.polarmask.pt", f".a.b.{os.getpid()}-99.polarmask", f".x.{10**30}-1.polarmask.png"]
        kept = [f".last.{other.pid}-0.polarmask.pt", "mine.part", "last.1.part", f".last.{GONE}.polarmask.pt", "a.txt"]
        for name in [*stale, *kept]:
            (tmp_path / name).write_bytes(b"")
        (tmp_path / f".folder.{GONE}-0.polarmask").mkdir()
        below = tmp_path / "below" / f".last.{GONE}-0.polarmask.pt"
        below.parent.mkdir()
        below.write_bytes(b"")
        with writing(tmp_path / "now.txt") as temporary:
            temporary.write_text("")
            remove_stale(tmp_path)
            assert temporary.exists()
        assert set(names(tmp_path)) == {*kept, f".folder.{GONE}-0.polarmask", "below", "now.txt"}
        assert below.exists()
    finally:
        other.communicate(b"\n")
    remove_stale(tmp_path)
    assert f".last.{other.pid}-0.polarmask.pt" not in names(tmp_path)
    remove_stale(tmp_path / "nowhere")
