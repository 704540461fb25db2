import os
import subprocess
import sys
import time

import pytest

from emotion.files import MACHINE, STALE_S, unfinished, writer_lives


def test_file_appears_whole_under_its_name_and_nothing_else_stays(tmp_path):
    path = tmp_path / "new" / "stack.tiff"
    with unfinished(path) as temporary:
        temporary.write_text("content")
        assert not path.exists() and temporary.parent == path.parent
    assert path.read_text() == "content" and list(path.parent.iterdir()) == [path]


def test_failed_writing_leaves_the_old_file_and_nothing_else(tmp_path):
    path = tmp_path / "stack.tiff"
    path.write_text("old")
    with pytest.raises(RuntimeError), unfinished(path) as temporary:
        temporary.write_text("half")
        raise RuntimeError
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def pid_of_nobody():
    """A process that has been and gone."""
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait()
    return process.pid


def test_temporary_file_is_its_writers_as_long_as_that_lives(tmp_path):
    path = tmp_path / "Happy_0001.v2_0001.tiff"
    with unfinished(path) as temporary:
        temporary.touch()
        assert temporary.name.startswith(".") and temporary.suffix == ".tiff"
        assert writer_lives(temporary)
        dead = temporary.with_name(temporary.name.replace(str(os.getpid()), str(pid_of_nobody())))
        assert dead != temporary
        dead.touch()
        assert not writer_lives(dead)


def test_temporary_file_of_another_machine_is_left_for_an_hour(tmp_path):
    foreign = tmp_path / f".Happy_0001_0001.{MACHINE}x-{pid_of_nobody()}.tiff"
    foreign.touch()
    assert writer_lives(foreign)
    os.utime(foreign, (0, time.time() - STALE_S - 60))
    assert not writer_lives(foreign)
    foreign.unlink()  # by another run, between its being listed and looked at
    assert not writer_lives(foreign)


@pytest.mark.parametrize("name", [".DS_Store", ".nfs0000000012", ".gitignore", ".a.12.tiff"])
def test_hidden_files_of_others_are_not_ours_to_judge(tmp_path, name):
    (tmp_path / name).touch()
    assert writer_lives(tmp_path / name)


def test_writers_of_two_machines_with_one_number_do_not_meet(tmp_path, monkeypatch):
    with unfinished(tmp_path / "stack.tiff") as ours:
        monkeypatch.setattr("emotion.files.MACHINE", "elsewhere")
        with unfinished(tmp_path / "stack.tiff") as theirs:
            assert ours != theirs
            ours.write_text("same")
            theirs.write_text("same")
    assert (tmp_path / "stack.tiff").read_text() == "same"
