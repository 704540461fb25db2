import errno
import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from pydantic import ConfigDict, TypeAdapter

from emotion.errors import DamagedFile, UserError, is_machine_fault
from emotion.files import (
    MACHINE,
    STALE_S,
    claimed,
    holder,
    read_sealed,
    read_whole,
    unfinished,
    write_sealed,
    writer_lives,
)


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


@dataclass(frozen=True)
class Note:
    __pydantic_config__ = ConfigDict(extra="forbid")

    title: str
    scores: list[float]


NOTES = TypeAdapter(Note)


@pytest.fixture
def sealed(tmp_path):
    path = tmp_path / "note.json"
    write_sealed(path, NOTES, Note('a "quoted" ä', [0.5, 1e-9]))
    return path


def test_a_sealed_record_is_json_and_read_as_it_was(sealed):
    assert json.loads(sealed.read_bytes())["title"] == 'a "quoted" ä'
    assert read_sealed(sealed, NOTES) == Note('a "quoted" ä', [0.5, 1e-9])


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: bytes(range(256)),
        lambda content: content.replace(b"0.5", b"0.6"),
        lambda content: content.replace(b"quoted", b"edited"),
        lambda content: content.replace(b'"title"', b'"name"'),
        lambda content: b'{"title": "a", "scores": []}',
        lambda content: b"[" * 100_000,
        lambda content: content + content,
        lambda content: b'{"title": 1,\n  "digest": "' + b"0" * 64 + b'"\n}',
    ],
)
def test_every_change_of_a_sealed_record_is_found(sealed, damage):
    sealed.write_bytes(damage(sealed.read_bytes()))
    with pytest.raises(DamagedFile, match=re.escape(str(sealed))):
        read_sealed(sealed, NOTES)


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo, lambda path: path.symlink_to("/dev/zero")])
def test_what_is_no_regular_file_is_damaged_and_not_waited_for(tmp_path, make):
    path = tmp_path / "note.json"
    make(path)
    with pytest.raises(DamagedFile, match=re.escape(str(path))):
        read_sealed(path, NOTES)


def test_a_missing_record_and_a_huge_one(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_sealed(tmp_path / "note.json", NOTES)
    (tmp_path / "note.json").write_bytes(b"x" * 11)
    with pytest.raises(DamagedFile):
        read_whole(tmp_path / "note.json", max_bytes=10)


def test_a_long_name_is_written(tmp_path):
    path = tmp_path / ("ä" * 124 + ".json")  # 253 bytes
    write_sealed(path, NOTES, Note("a", []))
    assert [each.name for each in tmp_path.iterdir()] == [path.name]


def test_an_error_of_writing_names_the_file(tmp_path):
    path = tmp_path / "note.json"
    with pytest.raises(OSError) as raised, unfinished(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert raised.value.filename == str(path)
    assert is_machine_fault(raised.value)
    assert not list(tmp_path.iterdir())


def test_which_errors_are_the_machines():
    assert is_machine_fault(MemoryError())
    assert not is_machine_fault(FileNotFoundError(errno.ENOENT, "gone"))
    assert not is_machine_fault(ValueError())


def test_a_zombie_writes_no_more(tmp_path):
    process = subprocess.Popen([sys.executable, "-c", ""])
    while psutil.Process(process.pid).status() != psutil.STATUS_ZOMBIE:
        time.sleep(0.05)
    assert not writer_lives(tmp_path / f".a.{MACHINE}-{process.pid}.tiff")
    process.wait()


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_cannot_be_locked(tmp_path: Path, make: Callable):
    make(tmp_path / "lock")
    with pytest.raises(UserError, match=r"lock must be a file"), claimed(tmp_path / "lock", "it"):
        pass
    with pytest.raises(UserError, match=r"lock must be a file"):
        holder(tmp_path / "lock")
